"""What failed, and what to do. The codes are the command line's exit codes."""

from __future__ import annotations


class Error(Exception):
    """Anything that isn't one of the classes below, and what all of them are."""

    #: The command line's exit code for the same failure.
    code: int = 1
    #: The format's own name for the failure, such as ``RolledBack``, if it found it.
    name: str | None
    #: What to do.
    hint: str

    def __init__(self, what: str, hint: str = "", name: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.name = name

    def __str__(self) -> str:
        return f"{self.what}\n  hint: {self.hint}" if self.hint else self.what

    def __reduce__(self) -> tuple[type[Error], tuple[str, str, str | None]]:
        return type(self), (self.what, self.hint, self.name)


class UsageError(Error, ValueError):
    """A value that can't have been meant."""

    code = 2


class NotAuthenticError(Error):
    """Changed, cut, extended, malformed; wrong key, wrong publisher, another vault's."""

    code = 3


class RefusedError(Error):
    """Refused by the terms: other line, device or model; expired, not yet valid, rolled back."""

    code = 4


class VaultError(Error):
    """The vault: no passphrase, PIN, token, key."""

    code = 5


class IoError(Error, OSError):
    """Input, output or memory."""

    code = 6


class UnsupportedError(Error):
    """A foreign magic, an unknown version, an unknown suite."""

    code = 7


_CLASSES = {
    kind.code: kind
    for kind in (Error, UsageError, NotAuthenticError, RefusedError, VaultError, IoError, UnsupportedError)
}


def exception(code: int, what: str, hint: str, name: str | None) -> Error:
    """The exception for one of the library's errors."""
    return _CLASSES.get(code, Error)(what, hint, name)
