import os
from collections.abc import Callable
from typing import Any, final

from ._model import Credentials, Path, Progress, VaultLike
from ._plaintext import Plaintext
from ._seal import Release

__version__: str

@final
class Buffer:
    """A part of a model in memory; it is overwritten when the last one who uses it lets it go."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def wipe(object: bytes) -> None: ...
@final
class Vault:
    """An open vault. It is thread-safe; a process that was forked has to open its own."""

    def __new__(
        cls, location: str | os.PathLike[str] | None = None, *, passphrase: str | None = None
    ) -> Vault:
        """Opens a vault, by default that of ``MODELSEAL_VAULT`` or the user's own. Without ``passphrase``, it comes from
        where the command line looks for it; nobody is asked."""

    @staticmethod
    def create(
        location: str | os.PathLike[str] | None = None,
        *,
        passphrase: str | None = None,
        registry: Path | None = None,
        algorithm: str | None = None,
    ) -> Vault:
        """Makes a vault, and its registry of devices, where there is none."""

    @property
    def location(self) -> str:
        """Which vault it is. It never holds a secret."""

    def publisher(self) -> str:
        """The public keys that readers of this vault's models trust, as PEM."""

@final
class Sealed:
    @property
    def path(self) -> os.PathLike[str]: ...
    @property
    def length(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def manifest(self) -> dict[str, Any]: ...
    def read_into(
        self, make: Callable[[int], Plaintext], progress: Progress | None = None
    ) -> Plaintext: ...
    def read_all(self, progress: Progress | None = None) -> Buffer: ...
    def read_at(self, offset: int, length: int) -> Buffer: ...
    def tensors(self) -> tuple[list[tuple[str, str, list[int], int, int]], dict[str, str]]: ...
    def confirm(self) -> None: ...
    def close(self) -> None: ...

@final
class Folder:
    def manifest(self) -> dict[str, Any]: ...
    def files(self) -> list[tuple[str, int]]: ...
    def open(self, name: str) -> Sealed: ...
    def confirm(self) -> None: ...

def open_sealed(path: Path, credentials: Credentials) -> Sealed: ...
def open_folder(path: Path, credentials: Credentials) -> Folder: ...
def seal_file(model: Path, out: Path, release: Release) -> tuple[str, int]: ...
def seal_folder(folder: Path, out: Path, release: Release) -> tuple[str, int]: ...
def seal_buffers(parts: list[memoryview], out: Path, release: Release) -> tuple[str, int]: ...
def read_fernet(
    path: Path, key: Path | None, text: bytes | None, out: Path, make: Callable[[int], Plaintext]
) -> tuple[Plaintext, str]: ...
