"""Section 2: suites, postcard in its canonical encoding, character sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .refusal import Error, Refused, require

SUITES = (1, 2)
LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
FIRST_OF_DEVICE = (LOWER | UPPER) - frozenset("._-")
INVISIBLE = [
    range(int(first, 16), int(last or first, 16) + 1)
    for first, _, last in (
        span.partition("-")
        for span in (
            "0-1f 7f-9f ad 600-605 61c 6dd 70f 890-891 8e2 180e 200b-200f 2028-202e 2060-2064 2066-206f feff fff9-fffb "
            "110bd 110cd 13430-1343f 1bca0-1bca3 1d173-1d17a e0001 e0020-e007f"
        ).split()
    )
]

T = TypeVar("T")


class NotCanonical(Exception):
    """The caller says which error it is."""


def decode(data: bytes, read: Callable[[Decoder], T], error: Error) -> T:
    """Canonical postcard, and nothing after it."""
    decoder = Decoder(data)
    try:
        value = read(decoder)
    except NotCanonical:
        raise Refused(error) from None
    require(decoder.at == len(data), error)
    return value


class Decoder:
    """Reads the types of section 2's table."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise NotCanonical
        self.at += n
        return self.data[self.at - n : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def varint(self, bits: int) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if value >> bits or (byte == 0 and shift > 0):
                raise NotCanonical
            if byte < 0x80:
                return value
            shift += 7
            if shift >= bits:
                raise NotCanonical

    def str(self) -> str:
        try:
            return self.take(self.varint(64)).decode("utf-8")
        except UnicodeDecodeError:
            raise NotCanonical from None

    def seq(self, most: int, read: Callable[[], T]) -> list[T]:
        n = self.varint(64)
        if n > most:
            raise NotCanonical
        return [read() for _ in range(n)]

    def option(self, read: Callable[[], T]) -> T | None:
        present = self.u8()
        if present > 1:
            raise NotCanonical
        return read() if present else None

    def variant(self, variants: int) -> int:
        number = self.varint(32)
        if number >= variants:
            raise NotCanonical
        return number


def is_word(text: str, most: int, characters: frozenset[str]) -> bool:
    """Section 2, character sets."""
    return 1 <= len(text.encode()) <= most and characters.issuperset(text)


def is_device_id(text: str) -> bool:
    """Section 2, character sets."""
    return is_word(text, 64, LOWER | UPPER) and text[0] in FIRST_OF_DEVICE


def is_invisible(character: str) -> bool:
    """Section 2, character sets."""
    return any(ord(character) in span for span in INVISIBLE)
