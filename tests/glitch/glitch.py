"""Disturbs the boot of the shipped image, one fault at a time, and counts how it ends.

usage: glitch.py IMAGE CASES [--long] [--shard N] [--only PART] [--jobs N]

Each part of a case that is done is written to CASES/../done; what is there isn't done again. The shard says which faults a
sample is of.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter

from campaign import Campaign
from elf import Image
from machine import ARGUMENTS, ENDLESS, Machine
from memo import Known
from plans import Control, Long, Short

# Where a check has been made weak, the campaign must find a way through: the case, and what is done to the image.
CONTROLS = {
    "what is compared a second time comes to nothing": ("derived, rolled back", lambda image: image.without("4open5below")),
}
KINDS = ["as before", "otherwise", "crashed", "hung", "false verdict", "opened"]


class Case:
    def __init__(self, folder):
        self.name = os.path.basename(folder)
        for part in ("provisioned", "eeprom", "psram", "model"):
            with open(os.path.join(folder, part), "rb") as file:
                setattr(self, part, file.read())
        with open(os.path.join(folder, "verdict")) as file:
            self.verdict = file.read()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("image")
    arguments.add_argument("cases")
    arguments.add_argument("--long", action="store_true")
    arguments.add_argument("--shard", type=int, default=0)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    options = arguments.parse_args()
    options.success = success(options)
    work = list(pieces(options))
    with multiprocessing.Pool(options.jobs) as pool:
        done = list(pool.imap_unordered(piece, work))
    sys.exit(conclude(done))


def success(options):
    """What the board's `run` returns when it has opened."""
    machine = Machine(Image(options.image), Case(os.path.join(options.cases, "derived, genuine")))
    machine.to_entry()
    if machine.run(ENDLESS) != "opened":
        sys.exit(f"tests/glitch: genuine material isn't opened: {machine.stop}")
    machine.go_on(machine.back)
    return machine.uc.reg_read(ARGUMENTS[0]) & 0xFFFF


def pieces(options):
    """What is done at once: a part of a case, a whole one, or a control. Those that take longest come first."""
    names = sorted((name for name in os.listdir(options.cases) if options.only in name),
                   key=lambda name: (name.startswith("derived"), name))
    parts = Long.PARTS if options.long else 1
    for name in names:
        for part in range(parts):
            yield options, name, None, part, parts
    for control, (name, _) in CONTROLS.items():
        yield options, name, control, 0, 1


def piece(item):
    """Does it, unless it has been done."""
    options, name, control, part, parts = item
    folder = os.path.join(options.cases, "..", "done")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}, {control or f'{part + 1} of {parts}'}")
    if os.path.exists(path):
        with open(path) as file:
            return json.load(file)
    outcome = {"name": name, "control": control, "part": f"{part + 1} of {parts}", **run(*item)}
    report(outcome)
    if not outcome["failure"]:
        with open(path + ".new", "w") as file:
            json.dump(outcome, file)
        os.replace(path + ".new", path)
    return outcome


KNOWN = Known()


def run(options, name, control, part, parts):
    began = time.time()
    try:
        image, case = Image(options.image), Case(os.path.join(options.cases, name))
        if control:
            CONTROLS[control][1](image)
        plan = (Control if control else Long if options.long else Short)(case.name, options.shard)
        campaign = Campaign(image, case, Known() if control else KNOWN, plan, options.success)
        if case.verdict != "opened":
            campaign.run(part, parts)
        places = Counter(f"{kind} at {at:#x} in {image.name_at(at)}: {ended}, {'' if handed else 'not '}handed over, "
                         f"{'' if plain else 'no '}plaintext left{', floor lowered' if lowered else ''}"
                         for kind, at, bit, ended, handed, plain, lowered in campaign.found)
        return {"verdict": case.verdict, "counts": campaign.counts, "opened": places, "seconds": time.time() - began,
                "failure": None}
    except SystemExit as failure:
        return {"failure": str(failure)}
    except Exception:
        return {"failure": traceback.format_exc()}


def report(outcome):
    name = f"{outcome['name']}, {outcome['control'] or outcome['part']}"
    if outcome["failure"]:
        print(f"{name}: {outcome['failure']}", flush=True)
        return
    counts = Counter(outcome["counts"])
    lines = [f"{name}: {outcome['verdict']}, {outcome['seconds']:.0f} s; {totals(counts)}"]
    lines += [f"  OPENED {n} times by {place}" for place, n in Counter(outcome["opened"]).most_common(40)]
    print("\n".join(lines), flush=True)


def totals(counts):
    def ends(kind):
        return ", ".join(f"{counts[f'{kind}: {end}']} {end}" for end in KINDS if counts[f"{kind}: {end}"])

    return "; ".join(f"{counts[kind]} {kind}: {ends(kind)}" for kind in ("skips", "flips") if counts[kind])


def conclude(done):
    failed = {outcome["name"] for outcome in done if outcome["failure"]}
    done = [outcome for outcome in done if not outcome["failure"]]
    refusals = [outcome for outcome in done if outcome["verdict"] != "opened" and not outcome["control"]]
    total = sum((Counter(outcome["counts"]) for outcome in refusals), Counter())
    found = sum(sum(outcome["opened"].values()) for outcome in refusals)
    print(f"all: {totals(total)}")
    blind = [outcome["control"] for outcome in done if outcome["control"] and not outcome["opened"]]
    if blind:
        print(f"tests/glitch: opened nowhere, so that none opened means nothing: {'; '.join(blind)}", file=sys.stderr)
    if failed or not refusals:
        print(f"tests/glitch: {len(failed)} of the cases couldn't be tried", file=sys.stderr)
    print(f"glitches: {total['skips']} skips and {total['flips']} bit flips over"
          f" {len({outcome['name'] for outcome in refusals})} refusals, {found} opened"
          f" ({total['decision, skipped']} of {total['decision']} instructions that decide were skipped,"
          f" {total['inside, skipped']} of {total['inside']} inside primitives)")
    return 1 if found or failed or blind or not refusals else 0


if __name__ == "__main__":
    main()
