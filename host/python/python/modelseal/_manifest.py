"""What a sealed model says of itself."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """A manifest that its publisher has signed."""

    #: The model's id, by which grants know it; an empty file of a folder has none, and it is ``""``.
    id: str
    #: The name that successive versions share.
    line: str
    version: int
    #: What the model is, such as ``onnx``.
    kind: str
    #: Of the plaintext, in bytes.
    length: int
    created: datetime.datetime
    claims: Mapping[str, str]
    suite: str
    chunk_size: int


def manifest(said: dict[str, Any]) -> Manifest:
    created = datetime.datetime.fromtimestamp(said.pop("created"), datetime.timezone.utc)
    return Manifest(created=created, claims=MappingProxyType(said.pop("claims")), **said)
