"""What a release is called where nobody says it."""

from __future__ import annotations

import os
import re
import time
from typing import Any


def named(path: str | os.PathLike[str], release: dict[str, Any]) -> dict[str, Any]:
    """``release`` with a line, by default ``MODELSEAL_LINE`` or that of the file's name, and a version, by default the time in
    milliseconds.
    """
    given = {name: value for name, value in release.items() if value is not None}
    line = os.environ.get("MODELSEAL_LINE") or _line(path)
    return {"line": line, "version": time.time_ns() // 1_000_000, **given}


def _line(path: str | os.PathLike[str]) -> str:
    """``checkpoints/My Model.safetensors.sealed`` is of the line ``my-model``."""
    name = os.path.basename(os.fspath(path)).lower()
    name = re.sub(r"(\.(sealed|safetensors|enc|encrypted|pth|pt|bin))+$", "", name)
    return re.sub(r"[^a-z0-9._-]+", "-", name)[:64] or "model"
