"""Saving tensors as sealed models."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from .. import _format
from .._errors import UsageError
from .._model import Path
from .._names import named
from .._seal import Release, Sealed, seal_parts

#: Name, dtype, shape and bytes of a tensor.
Flat = tuple[str, str, tuple[int, ...], Any]


def save_tensors(
    tensors: Iterable[Flat], filename: Path, metadata: Mapping[str, str] | None, **release: Any
) -> Sealed:
    """Seals the tensors; what ``release`` doesn't say, the file's name and the time do."""
    data = {name: (dtype, shape, view) for name, dtype, shape, view in tensors}
    sizes = [(name, dtype, shape, view.nbytes) for name, (dtype, shape, view) in data.items()]
    header, order = _format.layout(sizes, metadata)
    parts = [header, *(data[name][2] for name in order)]
    return seal_parts(parts, filename, Release(**named(filename, {"kind": "safetensors", **release})))


def save_bytes(tensors: Iterable[Flat], metadata: Mapping[str, str] | None, **release: Any) -> bytes:
    """The same as bytes. What is written meanwhile is what is sealed."""
    if not release.get("line") and not os.environ.get("MODELSEAL_LINE"):
        raise UsageError("the model has no line", "give line=, or set MODELSEAL_LINE")
    with tempfile.TemporaryDirectory(prefix="modelseal-") as folder:
        path = os.path.join(folder, "model.sealed")
        save_tensors(tensors, path, metadata, **release)
        with open(path, "rb") as file:
            return file.read()
