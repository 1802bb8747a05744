"""``safetensors.numpy`` over sealed models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._tensors import safetensors_dtype
from . import open_bytes, safe_open
from ._save import Flat, save_bytes, save_tensors

if TYPE_CHECKING:
    from .._model import Path

__all__ = ["load", "load_file", "save", "save_file"]


def load_file(filename: Path, *, backend: str = "mmap", **credentials: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a sealed safetensors model. ``credentials`` are those of :func:`modelseal.open`."""
    with safe_open(filename, framework="np", backend=backend, **credentials) as model:
        return model.get_tensors()


def load(data: bytes, **credentials: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The same of a sealed model that is in memory."""
    return open_bytes(data, "np", **credentials)


def save_file(
    tensor_dict: dict[str, np.ndarray[Any, Any]],
    filename: Path,
    metadata: dict[str, str] | None = None,
    **release: Any,
) -> None:
    """Seals the tensors into the file. ``release`` is what :func:`modelseal.seal` takes by name; without it, the line is
    ``MODELSEAL_LINE`` or the file's name, and the version the time in milliseconds.
    """
    save_tensors(_flatten(tensor_dict), filename, metadata, **release)


def save(
    tensor_dict: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str] | None = None, **release: Any
) -> bytes:
    """The same as bytes of a sealed model."""
    return save_bytes(_flatten(tensor_dict), metadata, **release)


def _flatten(tensors: dict[str, np.ndarray[Any, Any]]) -> list[Flat]:
    return [(name, safetensors_dtype(array.dtype), array.shape, _bytes(array)) for name, array in tensors.items()]


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    flat: np.ndarray[Any, Any] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat
