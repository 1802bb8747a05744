"""The safetensors format: a header that says where each tensor is, and the tensors, one after the other.

``length of the header, u64 | header, JSON | tensors``
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: In the order of the package safetensors, which writes the last one first.
_DTYPES = (
    "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ "
    "I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64"
).split()
_PREFIX = 8


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is in the model."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


@dataclass(frozen=True)
class Header:
    """All tensors, in the order in which they are."""

    tensors: Mapping[str, Tensor]
    metadata: dict[str, str] | None


def layout(
    tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str] | None
) -> tuple[bytes, list[str]]:
    """The header of tensors, each given as name, dtype, shape and length in bytes, and the order in which they follow it:
    that of the package safetensors.
    """
    ordered = sorted(tensors, key=lambda tensor: (-_DTYPES.index(tensor[1]), tensor[0]))
    said: dict[str, Any] = {}
    if metadata is not None:
        said["__metadata__"] = dict(metadata)
    end = 0
    for name, dtype, shape, length in ordered:
        said[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _PREFIX)
    return len(text).to_bytes(_PREFIX, "little") + text, [tensor[0] for tensor in ordered]
