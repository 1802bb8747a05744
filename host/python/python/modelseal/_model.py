"""Opening sealed models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Union
from weakref import WeakSet

from . import _modelseal
from ._errors import UsageError
from ._manifest import Manifest, manifest
from ._plaintext import Plaintext, new
from ._tensors import Tensors

if TYPE_CHECKING:
    from typing import Self

Path = Union[str, "os.PathLike[str]"]
#: Called as ``progress(done, total)``, in bytes.
Progress = Callable[[int, int], object]
#: Where a vault is (``file:…``, ``pkcs11:…``, or the path of a file), or an open one.
VaultLike = Union[str, "os.PathLike[str]", _modelseal.Vault]


class Credentials:
    """Whose key it is done with: the arguments that everything that opens has in common."""

    def __init__(
        self,
        *,
        vault: VaultLike | None = None,
        passphrase: str | None = None,
        grant: Path | None = None,
        identity: Path | None = None,
        line: str | None = None,
        state: Path | None = None,
        confirm: bool = True,
    ) -> None:
        if vault is None and passphrase is None:
            grant = grant or os.environ.get("MODELSEAL_GRANT") or None
            identity = identity or os.environ.get("MODELSEAL_IDENTITY") or None
        self.vault = vault
        self.passphrase = passphrase
        self.grant = grant
        self.identity = identity
        self.line = line
        self.state = state
        self.confirm = confirm


class Model:
    """A sealed model that is open. Only what is asked for is read, checked and decrypted.

    As a context manager it closes itself. What was read is overwritten when the last reference to it goes.
    """

    def __init__(self, sealed: _modelseal.Sealed, progress: Progress | None = None) -> None:
        self._sealed = sealed
        self._progress = progress
        self._manifest = manifest(sealed.manifest())
        self._whole: Plaintext | None = None
        self._tensors: Tensors | None = None

    @property
    def manifest(self) -> Manifest:
        """What the model says of itself, signed by its publisher."""
        return self._manifest

    @property
    def path(self) -> str:
        """The sealed model's file; of an empty file of a folder, the folder's list."""
        return os.fspath(self._sealed.path)

    def read(self) -> Plaintext:
        """The whole model, in memory. It is read once; later calls give the same object."""
        if self._whole is None or self._sealed.closed:
            self._whole = self._sealed.read_into(new, self._progress)
        return self._whole

    def read_at(self, offset: int, length: int) -> memoryview:
        """A part of the model, of which only the chunks that it touches are opened."""
        return memoryview(self._sealed.read_at(offset, length))

    def confirm(self) -> None:
        """Stores the floor that the grant says: the model runs, and older versions needn't open any more.

        :meth:`read` has done it already. After reading parts alone, it is for the application to say.
        """
        self._sealed.confirm()

    @property
    def tensors(self) -> Tensors:
        """The tensors of a safetensors model by name, each of which is opened when it is asked for."""
        if self._tensors is None:
            self._tensors = Tensors(self._sealed)
        return self._tensors

    @property
    def closed(self) -> bool:
        return self._sealed.closed

    def close(self) -> None:
        """Forgets the keys and the model's bytes. Whoever still uses those keeps them until he lets them go."""
        self._sealed.close()
        self._whole = None
        self._tensors = None

    def __len__(self) -> int:
        return self._manifest.length

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        about = self._manifest
        state = ", closed" if self.closed else ""
        return f"<modelseal.Model {about.line} version {about.version}: {about.kind}, {about.length} bytes{state}>"


class Directory(Mapping[str, Model]):
    """A sealed folder that is open: its files by path. Each is opened when it is asked for."""

    def __init__(self, folder: _modelseal.Folder, progress: Progress | None = None) -> None:
        self._folder: _modelseal.Folder | None = folder
        self._manifest = manifest(folder.manifest())
        self._lengths = dict(folder.files())
        self._progress = progress
        self._opened: WeakSet[Model] = WeakSet()

    @property
    def manifest(self) -> Manifest:
        """What the folder's list says of itself: line, version and claims are those of every file."""
        return self._manifest

    def __getitem__(self, path: str) -> Model:
        if path not in self._lengths:
            raise KeyError(path)
        if self._folder is None:
            raise UsageError("the folder is closed", "open it again")
        model = Model(self._folder.open(path), self._progress)
        self._opened.add(model)
        return model

    def length(self, path: str) -> int:
        """The length of a file in bytes, without opening it."""
        return self._lengths[path]

    def read(self, path: str) -> bytes:
        """A whole file in memory."""
        return self[path].read()

    def confirm(self) -> None:
        """Stores the floor that the list's grant says: the models run, and older releases needn't open any more.

        It is done without asking once all files have been read whole.
        """
        if self._folder is None:
            raise UsageError("the folder is closed", "open it again")
        self._folder.confirm()

    def __iter__(self) -> Iterator[str]:
        return iter(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    def close(self) -> None:
        """Closes it and all of its models."""
        self._folder = None
        for model in self._opened:
            model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        about = self._manifest
        return f"<modelseal.Directory {about.line} version {about.version}: {len(self)} files>"


def open(
    path: Path,
    *,
    vault: VaultLike | None = None,
    passphrase: str | None = None,
    grant: Path | None = None,
    identity: Path | None = None,
    line: str | None = None,
    state: Path | None = None,
    confirm: bool = True,
    progress: Progress | None = None,
) -> Model:
    """Opens a sealed model, with a vault or as a device with its grant.

    Without any of them, ``MODELSEAL_GRANT`` and ``MODELSEAL_IDENTITY`` name a grant and an identity, or else
    ``MODELSEAL_VAULT`` a vault. The passphrase or PIN comes from ``MODELSEAL_PASSPHRASE_FILE`` and the other places that the
    command line looks at; nobody is asked. With a grant, reading the whole model raises the device's stored floor, unless
    ``confirm`` is false; after reading parts of it, :meth:`Model.confirm` does.
    """
    credentials = Credentials(
        vault=vault, passphrase=passphrase, grant=grant, identity=identity, line=line, state=state, confirm=confirm
    )
    if os.path.isdir(path):
        raise UsageError(f"{os.fspath(path)} is a folder", "use modelseal.open_dir")
    return Model(_modelseal.open_sealed(path, credentials), progress)


def open_dir(
    path: Path,
    *,
    vault: VaultLike | None = None,
    passphrase: str | None = None,
    grant: Path | None = None,
    identity: Path | None = None,
    line: str | None = None,
    state: Path | None = None,
    confirm: bool = True,
    progress: Progress | None = None,
) -> Directory:
    """Opens a folder that was sealed as one. ``grant`` is the folder of its grants; the rest is as for :func:`open`."""
    credentials = Credentials(
        vault=vault, passphrase=passphrase, grant=grant, identity=identity, line=line, state=state, confirm=confirm
    )
    return Directory(_modelseal.open_folder(path, credentials), progress)
