"""The package safetensors over sealed models: ``from modelseal.safetensors import safe_open``.

``modelseal.safetensors.numpy`` and ``modelseal.safetensors.torch`` have ``load_file``, ``save_file``, ``load`` and ``save``.
Everything takes the arguments of the package safetensors and, by name, those of :func:`modelseal.open` or
:func:`modelseal.seal`. Without them, the environment says it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import _modelseal
from .._errors import UnsupportedError, UsageError
from .._format import Tensor
from .._model import Credentials
from .._tensors import read_header, to_numpy

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .._model import Path, VaultLike

try:
    from safetensors import SafetensorError as _SafetensorError
except ImportError:

    class _SafetensorError(Exception):  # type: ignore[no-redef]
        """In place of the package safetensors'."""


__all__ = ["SafetensorError", "safe_open"]


class SafetensorError(UsageError, _SafetensorError):
    """What the package safetensors' users expect where a tensor isn't there."""


def _numpy(buffer: object, tensor: Tensor, offset: int, device: Any) -> Any:
    return to_numpy(buffer, tensor, offset)


def _torch(buffer: object, tensor: Tensor, offset: int, device: Any) -> Any:
    from .torch import to_torch

    return to_torch(buffer, tensor, offset, device)


_FRAMEWORKS = {
    "np": _numpy,
    "numpy": _numpy,
    "pt": _torch,
    "torch": _torch,
    "pytorch": _torch,
}


class safe_open:  # noqa: N801: it is named so there
    """Opens a sealed safetensors model; its tensors are opened when they are asked for.

    ``backend`` is taken and has no meaning here.
    """

    def __init__(
        self,
        filename: Path,
        framework: str,
        device: str | int | Any = "cpu",
        *,
        backend: str = "mmap",
        vault: VaultLike | None = None,
        passphrase: str | None = None,
        grant: Path | None = None,
        identity: Path | None = None,
        line: str | None = None,
        state: Path | None = None,
        confirm: bool = True,
    ) -> None:
        if framework not in _FRAMEWORKS:
            raise UnsupportedError(f"there is no framework {framework!r} here", "use numpy or pt")
        credentials = Credentials(
            vault=vault,
            passphrase=passphrase,
            grant=grant,
            identity=identity,
            line=line,
            state=state,
            confirm=confirm,
        )
        self._make = _FRAMEWORKS[framework]
        self._device = device
        self._sealed = _modelseal.open_sealed(filename, credentials)
        self._header = read_header(self._sealed)

    def keys(self) -> list[str]:
        """The tensors' names."""
        return sorted(self._header.tensors)

    def offset_keys(self) -> list[str]:
        """The tensors' names, in the order in which they are in the model."""
        return list(self._header.tensors)

    def metadata(self) -> dict[str, str] | None:
        """What the header says besides the tensors."""
        return self._header.metadata

    def get_tensor(self, name: str) -> Any:
        """A tensor: of the model, only the chunks that it is in are opened."""
        tensor = self._tensor(name)
        return self._make(self._sealed.read_at(tensor.start, tensor.length), tensor, 0, self._device)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors, in one memory that goes when the last of them has gone."""
        buffer = self._sealed.read_all()
        tensors = self._header.tensors.items()
        return {name: self._make(buffer, tensor, tensor.start, self._device) for name, tensor in tensors}

    def confirm(self) -> None:
        """Stores the floor that the grant says, as :meth:`modelseal.Model.confirm` does."""
        self._sealed.confirm()

    def get_slice(self, name: str) -> Slice:
        """A tensor of which only what is indexed is opened."""
        return Slice(self, self._tensor(name))

    def _tensor(self, name: str) -> Tensor:
        try:
            return self._header.tensors[name]
        except KeyError:
            raise SafetensorError(f"the model has no tensor {name!r}", "keys() has their names") from None

    def __contains__(self, name: str) -> bool:
        return name in self._header.tensors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._sealed.close()


class Slice:
    """A tensor of which only what is indexed is opened: along its first dimension, that is; what else is opened with it is
    dropped again.
    """

    def __init__(self, opened: safe_open, tensor: Tensor) -> None:
        self._opened = opened
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def get_dtype(self) -> str:
        return self._tensor.dtype

    def __getitem__(self, index: Any) -> Any:
        first, *rest = index if isinstance(index, tuple) else (index,)
        shape = self._tensor.shape
        if not shape or not isinstance(first, (int, slice)) or isinstance(first, bool):
            return self._rows(0, None)[index]
        if isinstance(first, slice):
            start, stop, step = first.indices(shape[0])
            if step < 0:
                raise SafetensorError("a slice that goes backwards", "turn it round afterwards")
            return self._rows(start, max(start, stop))[(slice(None, None, step), *rest)]
        row = first + shape[0] if first < 0 else first
        if not 0 <= row < shape[0]:
            raise SafetensorError(f"{first} is outside of {shape[0]}", "index within the shape")
        return self._rows(row, row + 1)[(0, *rest)]

    def _rows(self, start: int, stop: int | None) -> Any:
        tensor = self._tensor
        if stop is not None:
            row = tensor.length // tensor.shape[0] if tensor.shape[0] else 0
            shape = (stop - start, *tensor.shape[1:])
            tensor = Tensor(tensor.dtype, shape, tensor.start + start * row, (stop - start) * row)
        opened = self._opened
        buffer = opened._sealed.read_at(tensor.start, tensor.length)
        return opened._make(buffer, tensor, 0, opened._device)


def open_bytes(data: bytes, framework: str, **credentials: Any) -> dict[str, Any]:
    """The tensors of a sealed model that is in memory. What is written for it is what is sealed."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="modelseal-") as folder:
        path = os.path.join(folder, "model.sealed")
        with open(path, "wb") as file:
            file.write(data)
        with safe_open(path, framework, **credentials) as model:
            return model.get_tensors()
