"""Sealed models where models run: opened in memory, never in a file.

    import modelseal

    with modelseal.open("vad.sealed", vault="file:vault.json") as model:
        session = onnxruntime.InferenceSession(model.read())

``modelseal.safetensors`` stands in for the package safetensors, ``modelseal.ModelProtection`` saves and loads PyTorch
modules. See docs/PYTHON.md.
"""

from __future__ import annotations

from ._errors import (
    Error,
    IoError,
    NotAuthenticError,
    RefusedError,
    UnsupportedError,
    UsageError,
    VaultError,
)
from ._manifest import Manifest
from ._migrate import migrate_fernet
from ._model import Directory, Model, open, open_dir
from ._modelseal import Vault, __version__
from ._plaintext import Plaintext
from ._progress import tqdm_progress
from ._protection import ModelProtection
from ._seal import Sealed, seal
from ._tensors import Tensors

__all__ = [
    "Directory",
    "Error",
    "IoError",
    "Manifest",
    "Model",
    "ModelProtection",
    "NotAuthenticError",
    "Plaintext",
    "RefusedError",
    "Sealed",
    "Tensors",
    "UnsupportedError",
    "UsageError",
    "Vault",
    "VaultError",
    "__version__",
    "migrate_fernet",
    "open",
    "open_dir",
    "seal",
    "tqdm_progress",
]
