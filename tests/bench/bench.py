"""Runs modelseal and its peers, interleaved, and writes docs/BENCHMARKS.md. Called by `run`, which says how."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
DOCS = os.path.join(HERE, "../../docs")
SPEED = os.path.abspath(sys.argv[1])
SHORT = "--short" in sys.argv
MIB, GIB = 1 << 20, 1 << 30
SIZE = 64 * MIB if SHORT else GIB
REPEAT = 1 if SHORT else 5
TENSOR = 8 * MIB
# Whole-message ciphers of slow peers aren't waited for longer than this takes.
SLOW = {"fernet": 16 * MIB if SHORT else 128 * MIB}
NAMES = {
    "modelseal": "modelseal",
    "plain": "plain safetensors",
    "cp": "`cp`",
    "tink": "Tink AES256_GCM_HKDF_1MB",
    "age": "age",
    "aesgcm": "pyca AESGCM",
    "secretbox": "libsodium secretbox",
    "fernet": "Fernet",
}
ENCRYPTING = ["tink", "age", "aesgcm", "secretbox", "fernet"]


def run(*command, **environment):
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if ran.returncode != 0:
        sys.exit(f"{command}: {ran.stderr}")
    return ran.stdout


def ours(*words, **environment):
    return json.loads(run(SPEED, *words, **environment))


def settle(size):
    """Has memory touched that the next program will get: a virtual machine may have to wait for its host to supply it, which
    is nobody's fault."""
    ours("fresh", str(size))


def peer(*words):
    return json.loads(run(sys.executable, os.path.join(HERE, "peers.py"), *words))


def outside(*command, out=None):
    """A program that isn't Python's. Its peak isn't told, for the system counts its parent's to it."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=out or subprocess.DEVNULL, stderr=subprocess.PIPE)
    status = child.wait()
    seconds = time.perf_counter() - began
    if status != 0:
        sys.exit(f"{command}: {child.stderr.read()}")
    return {"seconds": seconds, "peak_kib": 0}


def make_model(path, size, random=True):
    count = max(1, size // TENSOR)
    tensor = min(size, TENSOR) - (1024 if size <= TENSOR else 0)
    generator = numpy.random.default_rng(1)
    tensors = {}
    for i in range(count):
        values = generator.integers(0, 256, tensor, numpy.uint8) if random else numpy.full(tensor, i % 256, numpy.uint8)
        tensors[f"layers.{i}.weight"] = values
    save_file(tensors, path)


class Bench:
    def __init__(self, folder):
        self.path = lambda name: os.path.join(folder, name)
        self.vault = self.path("vault")
        self.age_key = self.path("age.key")
        ours("init", self.vault)
        run("age-keygen", "-o", self.age_key)
        self.recipient = run("age-keygen", "-y", self.age_key).strip()
        self.model = self.path("model")

    def seal(self, name, model, sealed=None):
        sealed = self.path(sealed or name)
        # Nobody's time is to give back the memory of an older one.
        if os.path.exists(sealed):
            os.unlink(sealed)
        if name == "modelseal":
            return ours("seal", self.vault, model, sealed)
        if name == "cp":
            return outside("cp", model, sealed)
        if name == "age":
            return outside("age", "-r", self.recipient, "-o", sealed, model)
        return peer(name, "seal", model, sealed)

    def open(self, name):
        sealed = self.path(name)
        if name == "modelseal":
            return ours("open", self.vault, sealed)
        if name == "cp":
            return outside("cp", sealed, self.path("copied"))
        if name == "age":
            # Its output goes nowhere: less than the others do.
            return outside("age", "-d", "-i", self.age_key, sealed)
        return peer(name, "open", sealed, "-")

    def compare(self):
        make_model(self.model, SIZE)
        small = self.path("small")
        figures = {name: {"seal": [], "open": []} for name in NAMES}
        for _ in range(REPEAT):
            for what in ("seal", "open"):
                for name in NAMES:
                    model = self.model
                    if name in SLOW:
                        if not os.path.exists(small):
                            make_model(small, SLOW[name])
                        model = small
                    settle(3 * SIZE)
                    made = self.seal(name, model) if what == "seal" else self.open(name)
                    made["rate"] = os.path.getsize(model) / made["seconds"] / 1e9
                    figures[name][what].append(made)
        return figures

    def check(self):
        """What was opened is what was sealed; the times would mean nothing otherwise."""
        b3 = run(SPEED, "hash", self.model).strip().strip('"')
        assert self_hash(self.open("modelseal")) == b3, "opened another model"
        ours("file", self.vault, self.path("modelseal"), self.path("opened"))
        assert run("cmp", self.model, self.path("opened")) == ""
        os.unlink(self.path("opened"))

    def to_file(self):
        made = [ours("file", self.vault, self.path("modelseal"), self.path("opened")) for _ in range(REPEAT)]
        os.unlink(self.path("opened"))
        for one in made:
            one["rate"] = os.path.getsize(self.model) / one["seconds"] / 1e9
        return made

    def threads(self):
        most = os.cpu_count()
        numbers = sorted({1, 2, *(n for n in (4, 8, 16, 32) if n <= most), most})
        rates = {n: [] for n in numbers}
        size = os.path.getsize(self.model)
        for _ in range(max(REPEAT, 3)):
            for n in numbers:
                settle(2 * SIZE)
                made = ours("open", self.vault, self.path("modelseal"), MODELSEAL_THREADS=str(n))
                rates[n].append(size / made["seconds"] / 1e9)
        return {n: statistics.median(each) for n, each in rates.items()}

    def sizes(self):
        sizes = [4096, MIB, 4 * MIB, 16 * MIB, 64 * MIB]
        if not SHORT:
            sizes += [256 * MIB, GIB, 4 * GIB, 10 * GIB]
        rates, tensor = {}, None
        for size in sizes:
            model, sealed = self.path("sized"), self.path("sized.sealed")
            make_sized(model, size)
            length = os.path.getsize(model)
            repeat = 9 if size < GIB else 5
            seals = []
            for _ in range(3):
                seals.append(self.seal("modelseal", model, "sized.sealed")["seconds"])
            # Where there isn't room for the sealed model and the opened one, chunks are opened one after the other.
            what = "open" if available() > length + GIB else "stream"
            if size == sizes[-1]:
                tensor = self.tensor(model, sealed, size)
            os.unlink(model)
            opened, fresh = [], []
            for _ in range(repeat):
                settle(min(length, available() - GIB // 2))
                opened.append(ours(what, self.vault, sealed)["seconds"])
                fresh.append(length / ours("fresh", str(length))["seconds"] / 1e9)
            rates[size] = {"what": what, "seconds": min(opened), "fresh": (min(fresh), max(fresh))}
            rates[size] |= {"seal": length / min(seals) / 1e9, "open": length / min(opened) / 1e9}
            rates[size]["median"] = length / statistics.median(opened) / 1e9
            os.unlink(sealed)
        return rates, tensor

    def tensor(self, model, sealed, size):
        name = f"layers.{max(1, size // TENSOR) // 2}.weight"
        plain, lazy = [], []
        for _ in range(3 if SHORT else 15):
            plain.append(peer("lazy", "open", model, name))
            lazy.append(ours("tensor", self.vault, sealed, name))
        return {"size": size, "plain": plain, "lazy": lazy}


def self_hash(made):
    return made["hash"]


def available():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def make_sized(path, size):
    """Every tensor is the same random bytes or, of a model that wouldn't fit twice into memory, a hole."""
    count, tensor = max(1, size // TENSOR), min(size, TENSOR) - (2048 if size <= TENSOR else 0)
    header = {
        f"layers.{i}.weight": {"dtype": "U8", "shape": [tensor], "data_offsets": [i * tensor, (i + 1) * tensor]}
        for i in range(count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = numpy.random.default_rng(1).integers(0, 256, tensor, numpy.uint8).tobytes()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count if size < 4 * GIB else 0):
            file.write(values)
        file.truncate(8 + len(text) + count * tensor)


def median(made, what="rate"):
    return statistics.median(one[what] for one in made)


def spread(made):
    rates = [one["rate"] for one in made]
    return f"{min(rates):.2f}-{max(rates):.2f}"


def peak(made):
    return max(one["peak_kib"] for one in made) / 1024


def human(size):
    return f"{size // GIB} GiB" if size >= GIB else f"{size // MIB} MiB"


def machine():
    with open("/proc/cpuinfo") as file:
        lines = file.read().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    seen = [flag for flag in ("aes", "vaes", "vpclmulqdq", "avx2", "avx512f") if flag in flags]
    return f'{os.cpu_count()} processors "{model}" ({" ".join(seen)})'


def bars(figures, to_file, threads, rates, tensor):
    fastest = lambda what: max(median(figures[name][what]) for name in ENCRYPTING)
    opened, sealed = median(figures["modelseal"]["open"]), median(figures["modelseal"]["seal"])
    model = SIZE / MIB
    lazy, plain = median(tensor["lazy"], "seconds"), median(tensor["plain"], "seconds")
    whole = [(size, one) for size, one in rates.items() if size >= MIB]
    fixed = rates[4096]["seconds"]
    flat = [one["open"] for _, one in whole]
    beyond = [size / (one["seconds"] - fixed) / 1e9 for size, one in whole]
    large = [one["open"] for size, one in whole if size >= 64 * MIB]
    return [
        ("open into memory, against plain safetensors", "at least 2.0x", opened / median(figures["plain"]["open"]), "x", lambda x: x >= 2.0),
        ("open into memory, against the fastest encrypting peer", "at least 2.5x", opened / fastest("open"), "x", lambda x: x >= 2.5),
        ("seal file to file, against the fastest encrypting peer", "at least 1.5x", sealed / fastest("seal"), "x", lambda x: x >= 1.5),
        (f"one 8 MiB tensor of {human(tensor['size'])}, time against plain safetensors' lazy read", "at most 2.0x", lazy / plain, "x", lambda x: x <= 2.0),
        ("the same, peak memory", "under 64 MiB", peak(tensor["lazy"]), " MiB", lambda x: x < 64),
        ("open into memory, peak memory above the model", "at most 32 MiB", peak(figures["modelseal"]["open"]) - model, " MiB", lambda x: x <= 32),
        ("open to a file, peak memory", "under 64 MiB", peak(to_file), " MiB", lambda x: x < 64),
        ("two threads against one", "at least 1.7x", threads[2] / threads[1], "x", lambda x: x >= 1.7),
        ("cost of a byte from 1 MiB up (fastest runs), the dearest size against the cheapest", "flat: at most 1.3x", max(flat) / min(flat), "x", lambda x: x <= 1.3),
        (f"the same without the {fixed * 1e3:.2f} ms that opening 4 KiB takes", "flat: at most 1.3x", max(beyond) / min(beyond), "x", lambda x: x <= 1.3),
        ("the same from 64 MiB up", "flat: at most 1.3x", max(large) / min(large), "x", lambda x: x <= 1.3),
    ]


def table(figures, to_file, threads, rates, tensor, limits):
    lines = [
        f"Made by `tests/bench/run` on {machine()}.",
        "",
        f"One safetensors model of {human(SIZE)}, from a warm cache and in memory (tmpfs), each run in a process of its own that times",
        f"itself; medians of {REPEAT} interleaved runs. Sealing is from file to file, opening into memory; `cp` copies from file to file both",
        "times, and age, a program of its own, opens to nowhere. Fernet gets 128 MiB, for want of patience. Time begins with the key",
        "at hand: of modelseal the vault is open (which takes Argon2id's 32 MiB and some 50 ms, once a process), pyca, libsodium and",
        "Fernet have a fixed key, Tink its keyset; only age's counts the program's start and its key file.",
        "",
        "| | seal, GB/s | runs | open, GB/s | runs | modelseal's ratio, seal | open | peak of opening, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    own = {what: median(figures["modelseal"][what]) for what in ("seal", "open")}
    for name, title in NAMES.items():
        made = figures[name]
        seal, opened = median(made["seal"]), median(made["open"])
        memory = f"{peak(made['open']):.0f}" if peak(made["open"]) else ""
        lines.append(
            f"| {title} | {seal:.2f} | {spread(made['seal'])} | {opened:.2f} | {spread(made['open'])} "
            f"| {own['seal'] / seal:.1f} | {own['open'] / opened:.1f} | {memory} |"
        )
    lines += [
        "",
        f"To a file, modelseal opens {median(to_file):.2f} GB/s, synced, in {peak(to_file):.0f} MiB of memory.",
        "",
        "| bar | required | measured | met |",
        "|---|--:|--:|---|",
    ]
    for what, required, value, unit, met in bars(figures, to_file, threads, rates, tensor):
        lines.append(f"| {what} | {required} | {value:.2f}{unit} | {'yes' if met(value) else '**no**'} |")
    lazy, plain = tensor["lazy"], tensor["plain"]
    lines += [
        "",
        f"Time to the first tensor, of {human(tensor['size'])}: {median(lazy, 'seconds') * 1e3:.1f} ms, of which "
        f"{median(lazy, 'opening') * 1e3:.1f} ms are for checking the index; plain safetensors {median(plain, 'seconds') * 1e3:.1f} ms.",
        "",
        "What bounds these figures, measured in the same run, on one core:",
        "",
        "| limit | GB/s |",
        "|---|--:|",
    ]
    lines += [f"| {name} | {rate:.1f} |" for name, rate in limits.items()]
    read, hashed, cipher = (limits[name] for name in ("read into a cached buffer", "BLAKE3 of chunks", "AES-256-GCM, aws-lc"))
    faults = limits["page faults, huge"]
    together = 1 / (1 / read + 1 / hashed + 1 / cipher + 1 / faults)
    shares = ", ".join(f"{what} {together / rate:.0%}" for what, rate in
                       (("reading", read), ("hash", hashed), ("cipher", cipher), ("fresh memory", faults)))
    lines += [
        "",
        f"Opening into memory does each of these once for each byte. One after the other, as they were measured, they come to "
        f"{together:.2f} GB/s a core ({shares}); one thread opened {threads[1]:.2f}, two {threads[2]:.2f}. Sealing writes a file, too, which `cp` does at {median(figures['cp']['seal']):.2f}.",
        "",
        "| size | seal, GB/s | open, GB/s | median | fresh memory of that size, GB/s |",
        "|---|--:|--:|--:|--:|",
    ]
    notes = {"open": "", "stream": ", chunk by chunk into nothing, for want of memory"}
    lines += [
        f"| {human(size)} | {one['seal']:.2f} | {one['open']:.2f}{notes[one['what']]} | {one['median']:.2f} "
        f"| {one['fresh'][0]:.1f}-{one['fresh'][1]:.1f} |"
        for size, one in rates.items()
        if size >= MIB
    ]
    lines += [
        "",
        "By size, the fastest of several runs counts: a virtual machine whose host has taken back free memory waits until it is",
        "supplied again, which the medians show, and the slowest of the programs that only fill as much fresh memory on as many",
        "threads. Before each run, another program fills and frees as much memory, to have it there; the host takes it back after",
        "a second or two. Models of 4 GiB and more are holes but for their header.",
    ]
    small, fixed = rates[MIB], rates[4096]["seconds"]
    lines += [
        "",
        f"The cost of a byte isn't flat for small models: of the {small['seconds'] * 1e3:.2f} ms that 1 MiB takes, {fixed * 1e3:.2f} are those of 4 KiB, which "
        "are for",
        "keys, signatures and the first touch of the program's own pages, and a program that does nothing but fill 1 MiB of fresh",
        f"memory reaches {small['fresh'][0]:.1f} to {small['fresh'][1]:.1f} GB/s, {statistics.fmean(rates[64 * MIB]['fresh']) / statistics.fmean(small['fresh']):.0f} "
        "times less than with 64 MiB.",
    ]
    lines += ["", "![Throughput by peer](speed.svg)", "", "![Throughput by size, by threads, and time to the first tensor](speed-by.svg)"]
    return "\n".join(lines)


def charts(figures, threads, rates, tensor):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "modelseal"
    from matplotlib import pyplot

    save = dict(metadata={"Date": None}, bbox_inches="tight")
    names = sorted(NAMES, key=lambda name: median(figures[name]["open"]))
    figure, axes = pyplot.subplots(figsize=(8, 4))
    places = numpy.arange(len(names))
    for shift, what in ((-0.2, "open"), (0.2, "seal")):
        axes.barh(places + shift, [median(figures[name][what]) for name in names], 0.4, label=what)
    axes.set_yticks(places, [NAMES[name].strip("`") for name in names])
    axes.set_xlabel(f"GB/s, {human(SIZE)}")
    axes.legend()
    figure.savefig(os.path.join(DOCS, "speed.svg"), **save)
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.5))
    sizes = [size for size in rates if size >= MIB]
    left.plot(sizes, [rates[size]["open"] for size in sizes], marker="o", label="open")
    left.plot(sizes, [rates[size]["seal"] for size in sizes], marker="o", label="seal")
    left.set_xscale("log", base=2)
    left.set_xticks(sizes, [human(size) for size in sizes], rotation=60)
    left.set_ylabel("GB/s")
    left.set_ylim(0)
    left.legend()
    middle.plot(list(threads), list(threads.values()), marker="o")
    middle.set_xticks(list(threads))
    middle.set_xlabel("threads")
    middle.set_ylabel("open, GB/s")
    middle.set_ylim(0)
    right.bar(["modelseal", "plain"], [median(tensor[who], "seconds") * 1e3 for who in ("lazy", "plain")])
    right.set_ylabel(f"ms to the first tensor of {human(tensor['size'])}")
    figure.tight_layout()
    figure.savefig(os.path.join(DOCS, "speed-by.svg"), **save)


def write(section):
    path = os.path.join(DOCS, "BENCHMARKS.md")
    with open(path) as file:
        text = file.read()
    begin, end = "<!-- speed -->\n", "<!-- end of speed -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    with open(path, "w") as file:
        file.write(f"{before}{begin}{section}\n{end}{after}")


def main():
    folder = tempfile.mkdtemp(prefix="modelseal-bench-", dir="/dev/shm")
    try:
        bench = Bench(folder)
        figures = bench.compare()
        bench.check()
        to_file = bench.to_file()
        threads = bench.threads()
        for name in [*NAMES, "copied", "small"]:
            if name != "modelseal" and os.path.exists(bench.path(name)):
                os.unlink(bench.path(name))
        os.unlink(bench.model)
        os.unlink(bench.path("modelseal"))
        rates, tensor = bench.sizes()
        limits = json.loads(run(SPEED, "limits", "64" if SHORT else "512"))
        section = table(figures, to_file, threads, rates, tensor, limits)
    finally:
        shutil.rmtree(folder)
    print(section)
    if not SHORT:
        charts(figures, threads, rates, tensor)
        write(section)
    print(f"benchmark: {len(NAMES)} programs, sizes up to {human(max(rates))}: what was opened is what was sealed")


main()
