"""Sealing what was encrypted with Fernet."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from typing import TYPE_CHECKING, Any, Literal

from . import _modelseal
from ._errors import IoError, NotAuthenticError, UnsupportedError
from ._names import named
from ._plaintext import Plaintext, new
from ._seal import Release, Sealed, seal_parts

if TYPE_CHECKING:
    from ._model import Path

#: A pickled number, before several pickles and what is in their tensors: PyTorch's format before it was zipped.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
#: Meant to be a key, whatever became of it.
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/_-]{40}")
_AS_IT_IS = "convert=None seals it as it is"


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

    PyTorch's pickles are converted to safetensors, for which PyTorch 2.10 or later must be installed: only tensors and the
    containers around them are unpickled, nothing else is run. ``convert=None`` seals them as they are, as it does everything else.
    """
    release = named(out, release)
    plaintext, kind = _decrypt(path, key, out)
    if convert == "safetensors" and _is_pickle(plaintext):
        return _save_state(plaintext, out, release)
    return seal_parts([plaintext], out, Release(**{"kind": kind, **release}))


def _decrypt(path: Path, key: str | bytes | os.PathLike[str], out: Path) -> tuple[Plaintext, str]:
    if isinstance(key, str) and _KEY.fullmatch(key.strip()):
        key = key.strip().encode()
    if isinstance(key, bytes):
        return _modelseal.read_fernet(path, None, key, out, new)
    if not os.path.exists(key):
        raise _no_key_file(os.fspath(key))
    return _modelseal.read_fernet(path, key, None, out, new)


def _no_key_file(given: str) -> NotAuthenticError | IoError:
    """It may be a key that was cut: it isn't quoted."""
    hint = "give the path of the key's file, or the key's 44 characters, of which the last is ="
    if _KEY_LIKE.search(given):
        return NotAuthenticError("the key isn't a Fernet key, or is damaged; nor is there a file of that name", hint)
    return IoError("there is no such key file", hint)


def _is_pickle(model: bytes) -> bool:
    """What ``pickle.dumps`` or ``torch.save`` made. TorchScript is a program and stays what it is."""
    if model[:4] == b"PK\x03\x04":
        names = {name.rpartition("/")[2] for name in _zipped(model)}
        return "data.pkl" in names and "constants.pkl" not in names
    is_pickled = model[:1] == b"\x80" and b"\x02" <= model[1:2] <= b"\x05" and model[-1:] == b"."
    return is_pickled or model.startswith(_OLD_TORCH)


def _zipped(model: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        what = f"it begins as a zip file, as PyTorch's models do, and isn't a whole one: {error}"
        raise NotAuthenticError(what, f"restore the old file; or {_AS_IT_IS}") from None


def _save_state(model: bytes, out: Path, release: dict[str, Any]) -> Sealed:
    try:
        from ._unpickle import tensors
        from .safetensors.torch import save_state
    except ImportError:
        raise UnsupportedError("it is a pickle, which PyTorch would convert", f"install torch; or {_AS_IT_IS}") from None
    return save_state(tensors(model, _AS_IT_IS), out, **release)
