"""Sealing what was encrypted with Fernet."""

from __future__ import annotations

import io
import os
import re
import zipfile
from typing import TYPE_CHECKING, Any, Literal

from . import _modelseal
from ._errors import UnsupportedError
from ._names import named
from ._plaintext import Plaintext, new
from ._seal import Release, Sealed, seal_parts

if TYPE_CHECKING:
    from ._model import Path

#: A pickled number, before several pickles and what is in their tensors: PyTorch's format before it was zipped.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_KEY = re.compile(rb"[A-Za-z0-9_-]{43}=")


def migrate_fernet(
    path: Path,
    key: str | bytes | os.PathLike[str],
    out: Path,
    *,
    convert: Literal["safetensors"] | None = "safetensors",
    **release: Any,
) -> Sealed:
    """Decrypts the file ``path``, a Fernet token, in memory and seals what is in it into ``out``.

    ``key`` is the Fernet key, or the path of its file. ``release`` is what :func:`modelseal.seal` takes by name; without it, the
    line is that of the file's name and the version the time in milliseconds.

    PyTorch's pickles are converted to safetensors, for which PyTorch must be installed: only tensors and the containers
    around them are unpickled, nothing else is run. ``convert=None`` seals them as they are, as it does everything else.
    """
    release = named(out, release)
    plaintext = _decrypt(path, key)
    if convert == "safetensors" and _is_pickle(plaintext):
        return _save_state(plaintext, out, release)
    return seal_parts([plaintext], out, Release(**release))


def _decrypt(path: Path, key: str | bytes | os.PathLike[str]) -> Plaintext:
    text = key.encode() if isinstance(key, str) else key
    if isinstance(text, bytes) and (_KEY.fullmatch(text.strip()) or not isinstance(key, str)):
        return _modelseal.read_fernet(path, None, text, new)
    return _modelseal.read_fernet(path, os.fspath(key), None, new)  # type: ignore[arg-type]


def _is_pickle(model: bytes) -> bool:
    """What ``pickle.dumps`` or ``torch.save`` made. TorchScript is a program and stays what it is."""
    if model[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        return "data.pkl" in names and "constants.pkl" not in names
    is_pickled = model[:1] == b"\x80" and b"\x02" <= model[1:2] <= b"\x05" and model[-1:] == b"."
    return is_pickled or model.startswith(_OLD_TORCH)


def _save_state(model: bytes, out: Path, release: dict[str, Any]) -> Sealed:
    as_it_is = "convert=None seals it as it is"
    try:
        from ._unpickle import tensors
        from .safetensors.torch import save_state
    except ImportError:
        raise UnsupportedError("it is a pickle, which PyTorch would convert", f"install torch; or {as_it_is}") from None
    return save_state(tensors(model, as_it_is), out, **release)
