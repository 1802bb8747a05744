"""Sealing models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

from . import _modelseal
from ._errors import UsageError
from ._model import Path, Progress, VaultLike

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

    Bytes = Union[bytes, bytearray, memoryview, Buffer]

Suite = Literal["aes-256-gcm", "chacha20-poly1305"]
Profile = Literal["host", "device"]


@dataclass(frozen=True)
class Sealed:
    """A model that was sealed."""

    #: The id by which grants know it.
    id: str
    #: The sealed model's file, or its folder.
    path: str
    #: The sealed model's length; of a folder, that of its files.
    length: int


class Release:
    """What is said of a model, and who says it."""

    def __init__(
        self,
        *,
        line: str,
        version: int,
        kind: str | None = None,
        suite: str = "aes-256-gcm",
        profile: str = "host",
        claims: Mapping[str, str] | None = None,
        vault: VaultLike | None = None,
        passphrase: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        if not 0 <= version < 1 << 64:
            raise UsageError(f"{version} isn't a version", "give a number that grows with each release")
        self.line = line
        self.version = version
        self.kind = kind
        self.suite = suite
        self.profile = profile
        self.claims = list((claims or {}).items())
        self.vault = vault
        self.passphrase = passphrase
        self.progress = progress


def seal(
    model: Path | Bytes,
    out: Path,
    *,
    line: str,
    version: int,
    vault: VaultLike | None = None,
    passphrase: str | None = None,
    kind: str | None = None,
    suite: Suite = "aes-256-gcm",
    profile: Profile = "host",
    claims: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Sealed:
    """Seals a model, which is a file, a folder, or bytes in memory, into ``out``.

    ``version`` grows with each release, and a version is released once. What is in memory never gets into a file but
    sealed. ``profile`` says where it will open: on a ``host``, or on a small ``device``.
    """
    release = Release(
        line=line,
        version=version,
        kind=kind,
        suite=suite,
        profile=profile,
        claims=claims,
        vault=vault,
        passphrase=passphrase,
        progress=progress,
    )
    if not isinstance(model, (str, os.PathLike)):
        return seal_parts([model], out, release)
    made = _modelseal.seal_folder if os.path.isdir(model) else _modelseal.seal_file
    return Sealed(*_named(made(model, out, release), out))


def seal_parts(parts: Iterable[Any], out: Path, release: Release) -> Sealed:
    """Seals buffers, one after the other, as one model."""
    views = [memoryview(part) for part in parts]
    # An empty view has no flat form, and nothing in it.
    flat = [view.cast("B") for view in views if view.nbytes > 0]
    return Sealed(*_named(_modelseal.seal_buffers(flat, out, release), out))


def _named(made: tuple[str, int], out: Path) -> tuple[str, str, int]:
    return made[0], os.fspath(out), made[1]
