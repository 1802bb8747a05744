"""Section 4: sealed models."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from blake3 import blake3

from .encoding import LOWER, SUITES, Decoder, decode, is_invisible, is_word
from .refusal import Error, require

MAGIC = bytes.fromhex("894D5345414C1A0A")


@dataclass(frozen=True)
class Manifest:
    """Section 4.2."""

    suite: int
    chunk_log2: int
    align_log2: int
    line: str
    version: int
    kind: str
    length: int
    created: int
    claims: list[tuple[str, str]]
    commitment: bytes
    root: bytes


class Sealed:
    """Section 4.1: the parts of a file whose header has been parsed, by their offsets."""

    def __init__(self, data: bytes, manifest_length: int, envelope_length: int, manifest: Manifest) -> None:
        self.data = data
        self.manifest = manifest
        self.chunks = -(-manifest.length >> manifest.chunk_log2)
        envelope_at = 16 + manifest_length
        index_at = envelope_at + envelope_length
        padding_at = index_at + 48 * self.chunks
        payload_at = -(-padding_at >> manifest.align_log2) << manifest.align_log2
        self.end = payload_at + manifest.length

        self.header = data[:envelope_at]
        self.subject = data[16 : envelope_at - 64]
        self.signature = data[envelope_at : envelope_at + 64]
        self.slots = split(data[envelope_at + 64 : index_at], 128)
        index = split(data[index_at:padding_at], 48)
        self.tags = [entry[:16] for entry in index]
        self.chaining_values = [entry[16:] for entry in index]
        self.padding = data[padding_at:payload_at]
        self.payload = data[payload_at : self.end]
        self.signed_bytes = b"modelseal/v1/manifest\0" + self.header
        self.model_id = blake3(self.signed_bytes).digest()


def parse_sealed(data: bytes) -> Sealed:
    """Section 7, step 1, for a reader that has files."""
    manifest_length, envelope_length = parse_prefix(data)
    require(len(data) >= 16 + manifest_length + envelope_length, Error.Truncated)
    manifest = parse_manifest(data[16 : 16 + manifest_length])
    sealed = Sealed(data, manifest_length, envelope_length, manifest)
    require(len(data) >= sealed.end, Error.Truncated)
    require(len(data) <= sealed.end, Error.Extended)
    return sealed


def parse_stored(data: bytes) -> Sealed:
    """Section 7, step 1, for a device: the header only."""
    manifest_length, envelope_length = parse_prefix(data)
    require(len(data) >= 16 + manifest_length, Error.Truncated)
    return Sealed(data, manifest_length, envelope_length, parse_manifest(data[16 : 16 + manifest_length]))


def parse_prefix(data: bytes) -> tuple[int, int]:
    """Section 4.1. Returns M and E."""
    require(len(data) >= 16, Error.Truncated)
    magic, version, manifest_length, envelope_length = struct.unpack("<8sHHI", data[:16])
    require(magic == MAGIC, Error.ForeignMagic)
    require(version == 1, Error.UnknownVersion)
    require(1 <= manifest_length <= 1024, Error.ManifestLength)
    require(envelope_length not in range(128, 1025, 128), Error.OldSlots)
    require(envelope_length in range(192, 64 + 128 * 16 + 1, 128), Error.EnvelopeLength)
    return manifest_length, envelope_length


def parse_manifest(data: bytes) -> Manifest:
    """Section 4.2."""
    require(data[0] in SUITES, Error.UnknownSuite)
    manifest = decode(data, read_manifest, Error.ManifestEncoding)
    require(10 <= manifest.chunk_log2 <= 20, Error.ChunkSize)
    require(4 <= manifest.align_log2 <= 16, Error.Alignment)
    require(is_word(manifest.line, 64, LOWER), Error.Line)
    require(is_word(manifest.kind, 16, LOWER), Error.Kind)
    require(1 <= manifest.length <= 1 << 48, Error.Length)
    require(claims_are_good(manifest.claims), Error.Claims)
    return manifest


def read_manifest(data: Decoder) -> Manifest:
    return Manifest(
        suite=data.u8(),
        chunk_log2=data.u8(),
        align_log2=data.u8(),
        line=data.str(),
        version=data.varint(64),
        kind=data.str(),
        length=data.varint(64),
        created=data.varint(64),
        claims=data.seq(8, lambda: (data.str(), data.str())),
        commitment=data.take(32),
        root=data.take(32),
    )


def claims_are_good(claims: list[tuple[str, str]]) -> bool:
    keys = [key.encode() for key, _ in claims]
    return (
        all(is_word(key, 32, LOWER) for key, _ in claims)
        and all(a < b for a, b in pairwise(keys))
        and all(len(value.encode()) <= 128 and not any(is_invisible(c) for c in value) for _, value in claims)
    )


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
