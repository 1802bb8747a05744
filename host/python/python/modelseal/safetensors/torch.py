"""``safetensors.torch`` over sealed models."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from .._errors import UnsupportedError, UsageError
from . import open_bytes, safe_open
from ._save import Flat, save_bytes, save_tensors

if TYPE_CHECKING:
    from .._format import Tensor
    from .._model import Path
    from .._seal import Sealed

__all__ = ["load", "load_file", "load_model", "save", "save_file", "save_model"]

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
# Older versions of PyTorch lack some.
_TYPES = {ours: getattr(torch, theirs) for ours, theirs in _NAMES.items() if hasattr(torch, theirs)}


def to_torch(buffer: object, tensor: Tensor, offset: int, device: Any) -> torch.Tensor:
    """The tensor that is at ``offset`` in ``buffer``; on the CPU, without a copy."""
    try:
        dtype = _TYPES[tensor.dtype]
    except KeyError:
        hint = "use a newer PyTorch, or read it with modelseal.open(…).read_at, as bytes"
        raise UnsupportedError(f"PyTorch has no {tensor.dtype}", hint) from None
    if tensor.length == 0:
        return torch.empty(tensor.shape, dtype=dtype, device=device)
    flat = torch.frombuffer(buffer, dtype=torch.uint8, count=tensor.length, offset=offset)
    if (flat.data_ptr() % dtype.itemsize) != 0:
        flat = flat.clone()
    return flat.view(dtype).reshape(tensor.shape).to(device)


def load_file(
    filename: Path, device: str | int = "cpu", *, backend: str = "mmap", **credentials: Any
) -> dict[str, torch.Tensor]:
    """The tensors of a sealed safetensors model. ``credentials`` are those of :func:`modelseal.open`."""
    with safe_open(filename, framework="pt", device=device, backend=backend, **credentials) as model:
        return model.get_tensors()


def load(data: bytes, **credentials: Any) -> dict[str, torch.Tensor]:
    """The same of a sealed model that is in memory."""
    return open_bytes(data, "pt", **credentials)


def save_file(
    tensors: dict[str, torch.Tensor], filename: Path, metadata: dict[str, str] | None = None, **release: Any
) -> None:
    """Seals the tensors into the file. ``release`` is what :func:`modelseal.seal` takes by name; without it, the line is
    ``MODELSEAL_LINE`` or the file's name, and the version the time in milliseconds.
    """
    save_tensors(_flatten(tensors), filename, metadata, **release)


def save(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, **release: Any) -> bytes:
    """The same as bytes of a sealed model."""
    return save_bytes(_flatten(tensors), metadata, **release)


def save_model(
    model: torch.nn.Module,
    filename: Path,
    metadata: dict[str, str] | None = None,
    force_contiguous: bool = True,
    **release: Any,
) -> None:
    """Seals a module's tensors, those that several names share once: the other names are noted in the metadata."""
    save_state(model.state_dict(), filename, metadata, force_contiguous, **release)


def save_state(
    state: dict[str, torch.Tensor],
    filename: Path,
    metadata: dict[str, str] | None = None,
    force_contiguous: bool = True,
    **release: Any,
) -> Sealed:
    """The same of a module's ``state_dict()``."""
    noted = dict(metadata or {})
    others = {other: kept for kept, group in _duplicates(state).items() for other in group}
    kept = {name: tensor for name, tensor in state.items() if name not in others}
    if force_contiguous:
        kept = {name: tensor.contiguous() for name, tensor in kept.items()}
    return save_tensors(_flatten(kept), filename, {**others, **noted} or None, **release)


def load_model(
    model: torch.nn.Module,
    filename: Path,
    strict: bool = True,
    device: str | int = "cpu",
    *,
    backend: str = "mmap",
    **credentials: Any,
) -> tuple[set[str], list[str]]:
    """Loads a module's tensors. Returns the names that the model lacks and those that the module does: none if ``strict``,
    for then they are an error.
    """
    state = load_file(filename, device=device, backend=backend, **credentials)
    # A name that shares memory with a loaded one is loaded with it.
    shared = _duplicates(model.state_dict(), preferred=set(state))
    found = model.load_state_dict(state, strict=False)
    missing = set(found.missing_keys).difference(*shared.values())
    unexpected = list(found.unexpected_keys)
    if strict and (missing or unexpected):
        lines = [f"Error(s) in loading state_dict for {type(model).__name__}:"]
        lines += [f"    Missing key(s) in state_dict: {_quoted(missing)}"] if missing else []
        lines += [f"    Unexpected key(s) in state_dict: {_quoted(unexpected)}"] if unexpected else []
        raise RuntimeError("\n".join(lines))
    return missing, unexpected


def _quoted(names: set[str] | list[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))


def _flatten(tensors: dict[str, torch.Tensor]) -> list[Flat]:
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(f"{name!r} isn't a tensor", "give a dict of tensors")
        if tensor.layout != torch.strided:
            raise UsageError(f"{name!r} is sparse", "make it dense: to_dense()")
        if not tensor.is_contiguous():
            raise UsageError(f"{name!r} isn't contiguous", "make it so: contiguous()")
    shared = [sorted(names) for names in _shared(tensors)]
    if shared:
        raise UsageError(f"some tensors share memory: {shared}", "use save_model, or clone() them")
    return [(name, _dtype(tensor), tuple(tensor.shape), _bytes(tensor)) for name, tensor in tensors.items()]


def _dtype(tensor: torch.Tensor) -> str:
    for name, dtype in _TYPES.items():
        if dtype == tensor.dtype:
            return name
    raise UnsupportedError(f"safetensors has no {tensor.dtype}", "convert the tensor")


def _bytes(tensor: torch.Tensor) -> Any:
    flat = tensor.detach().to("cpu").reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj()).reshape(-1)
    return flat.view(torch.uint8).numpy()


def _range(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor's first and last elements are."""
    start = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return start, start + (last + 1) * tensor.element_size()


def _shared(tensors: dict[str, torch.Tensor]) -> list[set[str]]:
    """The names of tensors that overlap."""
    storages: dict[tuple[torch.device, int], list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if tensor.device.type != "meta" and tensor.numel() > 0:
            storages[tensor.device, tensor.untyped_storage().data_ptr()].append(name)
    groups: list[set[str]] = []
    for names in storages.values():
        end = 0
        for name in sorted(names, key=lambda name: _range(tensors[name])):
            start, stop = _range(tensors[name])
            if start < end:
                groups[-1].add(name)
            else:
                groups.append({name})
            end = max(end, stop)
    return [group for group in groups if len(group) > 1]


def _duplicates(state: dict[str, torch.Tensor], preferred: set[str] | None = None) -> dict[str, list[str]]:
    """Of the names that share memory, one that has all of it, and the others."""
    duplicates = {}
    for group in _shared(state):
        whole = {name for name in group if _is_whole(state[name])}
        if not whole:
            what = f"{sorted(group)} share memory, and none of them has all of it"
            raise UsageError(what, "clone() one of them")
        kept = min(whole & (preferred or set()) or whole)
        duplicates[kept] = sorted(group - {kept})
    return duplicates


def _is_whole(tensor: torch.Tensor) -> bool:
    storage = tensor.untyped_storage()
    return bool(tensor.data_ptr() == storage.data_ptr() and tensor.nbytes == storage.nbytes())
