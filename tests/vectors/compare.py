#!/usr/bin/env python3
"""Compares modelseal with the second reader: compare.py PATH_TO_MODELSEAL

It seals models, opens each with both, then changes files at random, and requires the same refusal from both.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reader import Publisher, Refused, open_with_grant, read_identity, read_publisher, verify

ALGORITHMS = ("ed25519", "ecdsa-p256")
SUITES = ("aes-256-gcm", "chacha20-poly1305")
PROFILES = ("host", "device")
SIZES = (1, 1023, 4096, 4097, 65536, 300_000)
DEVICES = ("derived", "own-key", "late")
CHANGES = 150
"""For each vault, suite and profile."""

Result = tuple[int, str | None]
"""Exit code, and the name of the error."""


@dataclass(frozen=True)
class Pair:
    """A sealed model and a grant, with the identity that they are opened with."""

    sealed: bytes
    grant: bytes
    identity: Path


def main() -> int:
    # Of identities that others may read the program warns.
    os.umask(0o077)
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    seen: Counter[Result] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, algorithm in enumerate(ALGORITHMS):
            vault = Vault(Path(sys.argv[1]).resolve(), Path(folder, algorithm), algorithm)
            for what, ours, theirs in compare(vault, random.Random(number)):
                seen[theirs] += 1
                if ours != theirs:
                    failed += 1
                    print(f"{algorithm}, {what}: the second reader says {ours}, modelseal {theirs}")
    for result, times in sorted(seen.items(), key=str):
        print(f"{times:6} {result[0]} {result[1] or 'opened'}")
    print(f"{seen.total() - failed} passed, {failed} failed")
    return 1 if failed else 0


class Vault:
    """Runs modelseal in a folder of its own."""

    def __init__(self, program: Path, folder: Path, algorithm: str) -> None:
        self.program, self.folder = program, folder
        folder.mkdir()
        self.run("init", "--publisher-algorithm", algorithm)
        self.run("key", "export", "-o", "publisher.pem")
        lines = ("--line", "one", "--line", "two")
        self.run("device", "enroll", "derived", *lines, "--derive", "--identity-out", "derived.json")
        for device, floor in (("own-key", "0"), ("late", "2")):
            files = ("--identity-out", f"{device}.json")
            self.run("device", "keygen", device, *files, "--public-out", f"{device}.pem")
            key = ("--public-key", f"{device}.pem", "--first-floor", floor)
            self.run("device", "enroll", device, *lines, *key, *files)
        for device in DEVICES:
            identity = json.loads(folder.joinpath(f"{device}.json").read_text())
            folder.joinpath(f"{device}-one.json").write_text(json.dumps({**identity, "lines": ["one"]}))

    def run(self, *arguments: str) -> None:
        self.start(*arguments).check_returncode()

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MODELSEAL_VAULT": "file:vault.json", "MODELSEAL_PASSPHRASE": "comparison"}
        command = [str(self.program), "--json", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)

    def seal(self, model: bytes, line: str, version: int, suite: str, profile: str) -> bytes:
        self.write("model", model)
        how = ("--line", line, "--model-version", str(version), "--suite", suite, "--profile", profile)
        self.run("seal", "model", "-o", "new.sealed", *how, "--claim", "licence=MIT", "--claim", "chip=any")
        return self.take("new.sealed")

    def grant(self, sealed: bytes, device: str, *terms: str) -> bytes:
        self.write("any.sealed", sealed)
        self.run("grant", "any.sealed", "--device", device, "-o", "new.grant", *terms)
        return self.take("new.grant")

    def open(self, pair: Pair) -> tuple[Result, bytes | None]:
        self.write("a.sealed", pair.sealed)
        self.write("a.grant", pair.grant)
        files = ("a.sealed", "-o", "out", "--grant", "a.grant", "--identity", str(pair.identity))
        done = self.start("open", *files, "--no-confirm")
        return result(done), self.take("out") if done.returncode == 0 else None

    def verify(self, sealed: bytes) -> Result:
        self.write("a.sealed", sealed)
        return result(self.start("verify", "a.sealed", "--publisher", "publisher.pem"))

    def publisher(self) -> Publisher:
        return read_publisher([self.folder.joinpath("publisher.pem").read_text()])

    def write(self, name: str, data: bytes) -> None:
        self.folder.joinpath(name).write_bytes(data)

    def take(self, name: str) -> bytes:
        data = self.folder.joinpath(name).read_bytes()
        self.folder.joinpath(name).unlink()
        return data


def result(done: subprocess.CompletedProcess[str]) -> Result:
    return done.returncode, None if done.returncode == 0 else json.loads(done.stderr)["name"]


def compare(vault: Vault, chance: random.Random) -> Iterator[tuple[str, Result, Result]]:
    """Gives what was tried, the second reader's result and modelseal's."""
    for number, (suite, profile) in enumerate(itertools.product(SUITES, PROFILES)):
        pairs = []
        for version, size in enumerate(SIZES, start=10 * number + 1):
            model = chance.randbytes(size)
            sealed = vault.seal(model, chance.choice(("one", "two")), version, suite, profile)
            for device in DEVICES:
                pair = Pair(sealed, vault.grant(sealed, device), vault.folder / f"{device}.json")
                pairs.append(pair)
                yield f"{suite}, {profile}, {size} bytes for {device}", *both(vault, pair, model)
        for pair in crossed(pairs, chance):
            yield f"{suite}, {profile}, crossed", *both(vault, pair)
        for _ in range(CHANGES):
            what, pair = changed(chance.choice(pairs), chance)
            yield f"{suite}, {profile}, {what}", *both(vault, pair)
            if what.startswith("sealed"):
                ours = refusal(partial(verify, pair.sealed, vault.publisher()))
                yield f"{suite}, {profile}, verify {what}", ours, vault.verify(pair.sealed)
    yield from terms(vault, chance)


def both(vault: Vault, pair: Pair, model: bytes | None = None) -> tuple[Result, Result]:
    """Where both open, they must give the same bytes, those of `model` if it is known."""
    theirs, their_model = vault.open(pair)
    device = read_identity(pair.identity.read_text())
    models: list[bytes] = []
    ours = refusal(lambda: models.append(open_with_grant(pair.sealed, pair.grant, device).model))
    if models and their_model is not None and not models[0] == their_model == (model or their_model):
        return (0, "another model"), theirs
    return ours, theirs


def refusal(act: Callable[[], None]) -> Result:
    try:
        act()
    except Refused as refused:
        return refused.exit_code, refused.name
    return 0, None


def crossed(pairs: list[Pair], chance: random.Random) -> Iterator[Pair]:
    """A sealed model, a grant and an identity that needn't belong together."""
    for _ in range(20):
        a, b, c = chance.choices(pairs, k=3)
        identity = chance.choice((b, c)).identity
        yield Pair(a.sealed, b.grant, identity)
        yield Pair(b.sealed, b.grant, identity.with_stem(identity.stem + "-one"))


def terms(vault: Vault, chance: random.Random) -> Iterator[tuple[str, Result, Result]]:
    """Each term that modelseal can write, on each side of it."""
    earlier, past, future, later = "900000000", "1000000000", "4000000000", "5000000000"
    for version, device in itertools.product((1, 2, 3), DEVICES):
        sealed = vault.seal(chance.randbytes(5000), "one", version, SUITES[0], PROFILES[1])
        for validity in (
            ("--not-before", past, "--not-after", future),
            ("--not-before", future, "--not-after", later),
            ("--not-before", earlier, "--not-after", past),
            ("--floor", "1"),
        ):
            pair = Pair(sealed, vault.grant(sealed, device, *validity), vault.folder / f"{device}.json")
            yield f"version {version}, {device}, {validity}", *both(vault, pair)


def changed(pair: Pair, chance: random.Random) -> tuple[str, Pair]:
    """One of both files, or both, changed in one to three places."""
    which = chance.choice(("sealed", "grant", "sealed and grant"))
    if which != "grant":
        how, sealed = change(pair.sealed, chance)
        which, pair = f"{which}, {how}", replace(pair, sealed=sealed)
    if "grant" in which:
        how, grant = change(pair.grant, chance)
        which, pair = f"{which}, {how}", replace(pair, grant=grant)
    return which, pair


def change(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    how = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(min(len(data), chance.choice((16, 128, 1024, len(data)))))
        match chance.randrange(8):
            case 0:
                data, done = data[:at], "cut at"
            case 1:
                data, done = data[:at] + data[at + 1 :], "byte left out at"
            case 2:
                data, done = data[:at] + chance.randbytes(1) + data[at:], "byte put in at"
            case 3:
                longer = chance.choice((at % 3 + 1, 5000))
                data, done = data + chance.randbytes(longer), f"extended by {longer},"
            case 4:
                data, done = data[:at] + chance.randbytes(1) + data[at + 1 :], "byte replaced at"
            case _:
                data, done = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :], "bit flipped at"
        how.append(f"{done} {at}")
        if not data:
            break
    return ", ".join(how), data


if __name__ == "__main__":
    sys.exit(main())
