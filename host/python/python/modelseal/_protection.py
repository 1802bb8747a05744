"""Saving and loading PyTorch modules as before, sealed instead of encrypted with Fernet."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ._errors import UsageError
from ._modelseal import Vault

if TYPE_CHECKING:
    import torch

    from ._model import Path
    from ._seal import Sealed

_FERNET_KEY = re.compile(rb"\s*[A-Za-z0-9_-]{43}=\s*")


class ModelProtection:
    """Saves a PyTorch module sealed, and loads it again.

    ``key_path`` is the vault's file, which is made if it isn't there, or a ``pkcs11:`` URI; without it, the vault is that of
    ``MODELSEAL_VAULT``. The passphrase is the argument's, or comes from ``MODELSEAL_PASSPHRASE_FILE`` and the other places that
    the command line looks at. Tensors are saved as safetensors, never as a pickle.
    """

    def __init__(
        self, key_path: Path | None = None, *, passphrase: str | None = None, line: str | None = None
    ) -> None:
        self.key_path = key_path
        self.line = line
        self.vault = _vault(key_path, passphrase)

    def save_model(
        self, model: torch.nn.Module, path: Path, *, version: int | None = None, **release: Any
    ) -> Sealed:
        """Seals the module's tensors into the file ``path``.

        Without a line, it is that of the file's name; without a version, the time in milliseconds, which grows.
        """
        from .safetensors.torch import save_state

        release = {"line": self.line, **release}
        return save_state(model.state_dict(), path, vault=self.vault, version=version, **release)

    def load_model(
        self, model: torch.nn.Module, path: Path, *, strict: bool = True, device: str | int = "cpu"
    ) -> torch.nn.Module:
        """Loads the tensors of the file ``path`` into the module, and returns it. ``strict`` refuses names that only one of
        them has.
        """
        from .safetensors.torch import load_model

        load_model(model, path, strict, device, vault=self.vault, line=self.line)
        return model


def _vault(key_path: Path | None, passphrase: str | None) -> Vault:
    location = os.fspath(key_path) if key_path is not None else None
    if location is None or location.startswith(("file:", "pkcs11:")):
        return Vault(location, passphrase=passphrase)
    if not os.path.exists(location):
        return Vault.create(f"file:{location}", passphrase=passphrase)
    with open(location, "rb") as file:
        if _FERNET_KEY.fullmatch(file.read(64)):
            raise UsageError(
                f"{location} is a Fernet key, not a vault",
                "give another name, at which a vault is made, and seal the old files anew: "
                "modelseal.migrate_fernet(old, key, new, vault=…)",
            )
    return Vault(f"file:{location}", passphrase=passphrase)
