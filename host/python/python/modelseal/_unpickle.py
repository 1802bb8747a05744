"""The tensors of a pickled ``state_dict``. Of a pickle, nothing is run but what makes tensors."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import torch

from ._errors import UnsupportedError


def _strictly(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class _Items(dict[str, Any]):
    """An ordered dict of the pickle's. Its attributes, such as PyTorch's ``_metadata``, aren't taken."""

    def __setstate__(self, state: object) -> None:
        pass


class _Named:
    """What a pickle may call, and not change: it could leave attributes on a function of PyTorch's, even if it is refused later."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what makes tensors")


def _storage(data: bytes) -> Any:
    """Never a function or a class, which a file of PyTorch's can be, too, and which the pickle could change then."""
    storage = _strictly(data)
    if not isinstance(storage, (torch.storage.TypedStorage, torch.UntypedStorage)):
        raise pickle.UnpicklingError("a storage in it is something else")
    return storage


def _encode(text: str, encoding: str) -> bytes:
    # How protocol 2 has bytes.
    return text.encode("latin1" if encoding == "latin1" else "ascii")


#: Where checkpoints have the tensors, one level down.
_NESTED = ("state_dict", "model_state_dict")
#: The first PyTorch whose ``weights_only`` keeps its promise (CVE-2025-32434, CVE-2026-24747). PyTorch compares it as a version.
_SOUND = "2.10"
#: What a pickled ``state_dict`` names. A storage in it is a file of PyTorch's own, which is read as strictly.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _Items,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Named(_ALLOWED[module, name])
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def tensors(model: bytes, otherwise: str) -> dict[str, torch.Tensor]:
    """The tensors of what ``pickle.dumps`` or ``torch.save`` made of a ``state_dict``."""
    if torch.__version__ < _SOUND:
        what = f"PyTorch {torch.__version__} can be made to run what is in a pickle"
        raise UnsupportedError(what, f"install torch 2.10 or later; or {otherwise}")
    try:
        state = _load(model)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UnsupportedError(f"the pickle can't be converted safely: {error}", otherwise) from error
    # The types' own methods: what was unpickled may have attributes of these names.
    if isinstance(state, dict):
        nested = (dict.get(state, name) for name in _NESTED)
        state = next((inner for inner in nested if isinstance(inner, dict)), state)
    if not isinstance(state, dict) or not all(_is_named_tensor(*item) for item in dict.items(state)) or not len(state):
        raise UnsupportedError("the pickle holds other things than named tensors", otherwise)
    return {name: torch.Tensor.detach(tensor) for name, tensor in dict.items(state)}


def _load(model: bytes) -> Any:
    # A file of torch.save's is zipped, or begins with a pickled number.
    if model[:2] != b"PK":
        state = _Unpickler(io.BytesIO(model)).load()
        if not isinstance(state, int):
            return state
    return _strictly(model)


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)
