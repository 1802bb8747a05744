"""The tensors of a pickled ``state_dict``. Of a pickle, nothing is run but what makes tensors."""

from __future__ import annotations

import collections
import io
import pickle
from typing import Any

import torch

from ._errors import UnsupportedError


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    # How protocol 2 has bytes.
    return text.encode("latin1" if encoding == "latin1" else "ascii")


#: Where checkpoints have the tensors, one level down.
_NESTED = ("state_dict", "model_state_dict")
#: What a pickled ``state_dict`` names. A storage in it is a file of PyTorch's own, which is read as strictly.
_ALLOWED = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def tensors(model: bytes, otherwise: str) -> dict[str, torch.Tensor]:
    """The tensors of what ``pickle.dumps`` or ``torch.save`` made of a ``state_dict``."""
    try:
        state = _load(model)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UnsupportedError(f"the pickle can't be converted safely: {error}", otherwise) from error
    if isinstance(state, dict):
        nested = (state[name] for name in _NESTED if isinstance(state.get(name), dict))
        state = next(nested, state)
    if not isinstance(state, dict) or not state or not all(_is_named_tensor(*item) for item in state.items()):
        raise UnsupportedError("the pickle holds other things than named tensors", otherwise)
    return {name: tensor.detach() for name, tensor in state.items()}


def _load(model: bytes) -> Any:
    # A file of torch.save's is zipped, or begins with a pickled number.
    if model[:2] != b"PK":
        state = _Unpickler(io.BytesIO(model)).load()
        if not isinstance(state, int):
            return state
    return torch.load(io.BytesIO(model), map_location="cpu", weights_only=True)


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)
