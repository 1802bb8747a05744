"""Section 14.1: the list of a folder. What it refuses has no numbers there, only classes."""

from __future__ import annotations

from dataclasses import dataclass

from .encoding import Decoder, NotCanonical

FILES_MOST = 65_536
LENGTH_MOST = 2**48
NO_ID = bytes(32)
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    kind + number for kind in ("COM", "LPT") for number in "0123456789\u00b9\u00b2\u00b3"
}


class ListRefused(Exception):
    """With the class."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"class {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Entry:
    path: str
    id: bytes
    length: int


def parse_list(data: bytes) -> list[Entry]:
    decoder = Decoder(data)
    try:
        if decoder.u8() != 1:
            raise ListRefused(7)
        entries = decoder.seq(FILES_MOST, lambda: Entry(decoder.str(), decoder.take(32), decoder.varint(64)))
    except NotCanonical:
        raise ListRefused(3) from None
    if decoder.at != len(data) or not is_list(entries):
        raise ListRefused(3)
    return entries


def is_list(entries: list[Entry]) -> bool:
    paths = [entry.path for entry in entries]
    names = [lower(path) for path in paths]
    folders = {folder for name in names for folder in folders_of(name)}
    return (
        len(entries) > 0
        and all(a.encode() < b.encode() for a, b in zip(paths, paths[1:]))
        and all(entry.length <= LENGTH_MOST and (entry.length == 0) == (entry.id == NO_ID) for entry in entries)
        and all(is_portable(path) for path in paths)
        and len(set(names)) == len(names)
        and folders.isdisjoint(names)
        and not any(folder.endswith((".sealed", ".grant")) for folder in folders)
    )


def lower(text: str) -> str:
    """Case is that of ASCII letters."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def folders_of(path: str) -> list[str]:
    return [path[:at] for at, c in enumerate(path) if c == "/"]


def is_portable(path: str) -> bool:
    return len(path.encode()) <= 1024 and lower(path) != "directory" and all(map(is_name, path.split("/")))


def is_name(name: str) -> bool:
    return (
        1 <= len(name.encode()) <= 247
        and name not in (".", "..")
        and not any(c < " " or "\x7f" <= c <= "\x9f" or c in '\\:*?"<>|' for c in name)
        and not name.endswith((".", " "))
        and lower(name.split(".")[0].rstrip(" ")) not in map(lower, DEVICES)
    )
