"""The bytes of an opened model."""

from __future__ import annotations

from ._modelseal import wipe


class Plaintext(bytes):
    """A model's bytes, overwritten when the last reference to them goes: also that of a ``memoryview``, an array or an
    interpreter. They are ``bytes``, because runtimes take nothing else; a slice is a copy, a ``memoryview`` isn't.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<modelseal.Plaintext: {len(self)} bytes>"

    __str__ = __repr__

    def __del__(self, _wipe: object = wipe) -> None:
        _wipe(self)  # type: ignore[operator]


def new(length: int) -> Plaintext:
    """Zeros, to be filled before anybody has seen them."""
    return Plaintext.__new__(Plaintext, length)
