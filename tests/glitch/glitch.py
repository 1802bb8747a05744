"""Disturbs the boot of the shipped image, one fault at a time, and counts how it ends.

usage: glitch.py IMAGE CASES [--long] [--only PART] [--jobs N]
"""

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter

from campaign import Campaign
from elf import Image

CONTROLS = ["derived, rolled back"]
KINDS = ["as before", "otherwise", "crashed", "hung", "no verdict", "opened"]


class Case:
    def __init__(self, folder):
        self.name = os.path.basename(folder)
        for part in ("provisioned", "eeprom", "psram", "model"):
            with open(os.path.join(folder, part), "rb") as file:
                setattr(self, part, file.read())
        with open(os.path.join(folder, "verdict")) as file:
            self.verdict = file.read()


class Short:
    """Near the decision everything; elsewhere, of the skips and the flips of each address, a part that is another one in
    each case."""

    NEAR, SKIPS, FLIPS, CALLS = 350, 8, 160, 2

    def __init__(self, name):
        self.seed = sum(name.encode())

    def choose(self, at, nth, of, left, inside):
        part = self.seed + at // 2 * 31 + nth * 17
        if inside:
            return part % 1000 == 0, []
        near = left < self.near
        flips = range(32) if near else [part // self.SKIPS % 16] if part % (self.FLIPS // 16) == 0 else []
        return near or part % self.SKIPS == 0, flips if nth in (1, of) else []

    near = NEAR

    def inside(self, call):
        blocks = call.blocks
        if call.bus:
            return []
        step = max(1, len(blocks) // self.CALLS)
        return [(n, blocks[n]) for n in range(self.seed % step, len(blocks), step)]


class Long:
    """Every decision; inside primitives, the first, the last and each 97th time that an instruction is executed."""

    def __init__(self, name):
        self.seed = sum(name.encode())

    def choose(self, at, nth, of, left, inside):
        sampled = nth in (1, of) or nth % 97 == 0
        return not inside or sampled, range(32) if not inside and nth in (1, of) else []

    def inside(self, call):
        """The first and the last execution of each block."""
        first, last = {}, {}
        for n, block in enumerate(call.blocks):
            first.setdefault(block, n)
            last[block] = n
        chosen = {n: block for places in (first, last) for block, n in places.items()}
        return sorted(chosen.items())


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("image")
    arguments.add_argument("cases")
    arguments.add_argument("--long", action="store_true")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    options = arguments.parse_args()
    names = [name for name in sorted(os.listdir(options.cases)) if options.only in name]
    work = [(options.image, os.path.join(options.cases, name), options.long, False) for name in names]
    # The control: where what is compared a second time comes to nothing, one fault must be enough.
    work += [(options.image, os.path.join(options.cases, name), False, True) for name in CONTROLS]
    # Those that take longest first.
    work.sort(key=lambda item: "own" not in item[1])
    total, found, failed, refusals, genuine, seen = Counter(), 0, [], 0, 0, 0
    with multiprocessing.Pool(options.jobs) as pool:
        for name, verdict, counts, opened, seconds, failure, control in pool.imap_unordered(run, work):
            if failure:
                failed.append(name)
                print(f"{name}: {failure}")
                continue
            if control:
                seen += bool(opened)
                print(f"control, {name} with nothing but the refusal: {len(opened)} opened")
                continue
            if verdict == "opened":
                genuine += 1
                print(f"{name}: opens undisturbed, as it should")
                continue
            refusals += 1
            total.update(counts)
            found += len(opened)
            report(name, verdict, counts, opened, seconds)
    report("all", f"{refusals} refusals", total, [], 0)
    if seen != len(CONTROLS):
        sys.exit("tests/glitch: a control opened nowhere, so that none opened means nothing")
    if failed or not refusals or not (genuine or options.only):
        sys.exit(f"tests/glitch: {len(failed)} of the cases couldn't be tried")
    print(f"glitches: {total['skips']} skips and {total['flips']} bit flips over {refusals} refusals, {found} opened"
          f" ({total['decision, skipped']} of {total['decision']} instructions that decide were skipped,"
          f" {total['inside, skipped']} of {total['inside']} inside primitives)")
    sys.exit(1 if found else 0)


KNOWN = {}


def run(item):
    image, folder, long, control = item
    began = time.time()
    try:
        image, case = Image(image), Case(folder)
        if control:
            image = image.without("4open5below")
        campaign = Campaign(image, case, {} if control else KNOWN, (Long if long else Short)(case.name))
        if case.verdict != "opened":
            campaign.run()
        places = Counter((kind, image.name_at(at), at, ended, handed, plain)
                         for kind, at, bit, ended, handed, plain in campaign.found)
        return case.name, case.verdict, campaign.counts, list(places.elements()), time.time() - began, None, control
    except SystemExit as failure:
        return os.path.basename(folder), None, None, None, 0, str(failure), control
    except Exception:
        return os.path.basename(folder), None, None, None, 0, traceback.format_exc(), control


def report(name, verdict, counts, opened, seconds):
    print(f"{name}: {verdict}, {seconds:.0f} s")
    for kind in ("skips", "flips"):
        ends = ", ".join(f"{counts[f'{kind}: {end}']} {end}" for end in KINDS if counts[f"{kind}: {end}"])
        print(f"  {counts[kind]} {kind}: {ends}")
    for (kind, function, at, ended, handed, plain), n in Counter(opened).most_common(40):
        print(f"  OPENED {n} times by {kind} at {at:#x} in {function}: {ended}, {'' if handed else 'not '}handed over, "
              f"{'' if plain else 'no '}plaintext left")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
