"""The tensors of an opened model, as NumPy's arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ._errors import UnsupportedError
from ._format import Header, Tensor

if TYPE_CHECKING:
    import numpy

    from . import _modelseal

_NUMPY = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "U64": "uint64",
    "I32": "int32",
    "U32": "uint32",
    "I16": "int16",
    "U16": "uint16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
#: NumPy has these only once the package ml_dtypes is imported.
_ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def numpy_dtype(dtype: str) -> numpy.dtype[Any]:
    """NumPy's dtype for one of safetensors'."""
    import numpy

    if dtype in _NUMPY:
        return numpy.dtype(_NUMPY[dtype]).newbyteorder("<")
    if dtype in _ML_DTYPES:
        try:
            import ml_dtypes
        except ImportError:
            hint = "install ml_dtypes, or use modelseal.safetensors.torch"
            raise UnsupportedError(f"NumPy has no {dtype}", hint) from None
        found: numpy.dtype[Any] = numpy.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
        return found
    raise UnsupportedError(f"NumPy has no {dtype}", "read it with read_at, as bytes")


def safetensors_dtype(dtype: numpy.dtype[Any]) -> str:
    """The same the other way."""
    for ours, theirs in (*_NUMPY.items(), *_ML_DTYPES.items()):
        if theirs == dtype.name:
            return ours
    raise UnsupportedError(f"safetensors has no {dtype.name}", "convert the array")


def to_numpy(buffer: object, tensor: Tensor, offset: int = 0) -> numpy.ndarray[Any, Any]:
    """The array that is at ``offset`` in ``buffer``, without a copy."""
    import numpy

    dtype = numpy_dtype(tensor.dtype)
    if tensor.length == 0:
        return numpy.empty(tensor.shape, dtype)
    flat = numpy.frombuffer(buffer, numpy.uint8, tensor.length, offset)  # type: ignore[call-overload]
    array: numpy.ndarray[Any, Any] = flat.view(dtype).reshape(tensor.shape)
    return array


def read_header(sealed: _modelseal.Sealed) -> Header:
    """Opens the header alone."""
    placed, metadata = sealed.tensors()
    tensors = {name: Tensor(dtype, tuple(shape), *place) for name, dtype, shape, *place in placed}
    return Header(tensors, metadata or None)


class Tensors(Mapping[str, "numpy.ndarray[Any, Any]"]):
    """The tensors of a safetensors model by name. Each time one is asked for, the chunks that it is in, and no others, are
    read, checked and opened, into memory of its own.
    """

    def __init__(self, sealed: _modelseal.Sealed) -> None:
        self._sealed = sealed
        self._header = read_header(sealed)

    @property
    def metadata(self) -> dict[str, str]:
        """What the header says besides the tensors."""
        return dict(self._header.metadata or {})

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without opening it."""
        return self._header.tensors[name].shape

    def dtype(self, name: str) -> str:
        """A tensor's dtype as safetensors names it, such as ``BF16``, without opening it."""
        return self._header.tensors[name].dtype

    def __getitem__(self, name: str) -> numpy.ndarray[Any, Any]:
        tensor = self._header.tensors[name]
        return to_numpy(self._sealed.read_at(tensor.start, tensor.length), tensor)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header.tensors)

    def __len__(self) -> int:
        return len(self._header.tensors)

    def __repr__(self) -> str:
        return f"<modelseal.Tensors: {len(self)}>"
