"""Section 6: grants."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from blake3 import blake3

from .encoding import SUITES, Decoder, decode, is_device_id
from .refusal import Error, require

MAGIC = bytes.fromhex("894D534752541A0A")


@dataclass(frozen=True)
class Terms:
    """Section 6.2."""

    suite: int
    model: bytes
    device: str
    floor: int
    validity: tuple[int, int] | None


@dataclass(frozen=True)
class DeviceKeyWrapping:
    salt: bytes
    ciphertext: bytes
    tag: bytes


@dataclass(frozen=True)
class HpkeWrapping:
    encapsulated: bytes
    ciphertext: bytes
    tag: bytes


@dataclass(frozen=True)
class PathSignature:
    """Section 6.5, path signature."""

    signature: bytes
    siblings: list[bytes]
    sides: int

    def root(self, leaf: bytes) -> bytes:
        value = leaf
        for i, sibling in enumerate(self.siblings):
            left, right = (sibling, value) if self.sides >> i & 1 else (value, sibling)
            value = blake3(b"\x01" + left + right).digest()
        return value


@dataclass(frozen=True)
class Grant:
    """Section 6.1; with the bytes of the terms and the leaf of the grant as received."""

    terms: Terms
    wrapping: DeviceKeyWrapping | HpkeWrapping
    path: PathSignature | None
    terms_bytes: bytes
    leaf: bytes


def grants_signed_bytes(root: bytes) -> bytes:
    return b"modelseal/v1/grants\0" + root


def parse_grant(data: bytes) -> Grant:
    """Section 6.1."""
    require(len(data) >= 12, Error.Truncated)
    magic, version, length = struct.unpack("<8sHH", data[:12])
    require(magic == MAGIC, Error.ForeignMagic)
    require(version == 1, Error.UnknownVersion)
    require(1 <= length <= 2036, Error.GrantLength)
    require(len(data) >= 12 + length, Error.Truncated)
    require(len(data) <= 12 + length, Error.Extended)
    require(data[12] in SUITES, Error.UnknownSuite)
    grant = decode(data[12:], read_grant, Error.GrantEncoding)
    require(is_device_id(grant.terms.device), Error.DeviceId)
    if grant.terms.validity is not None:
        require(grant.terms.validity[0] < grant.terms.validity[1], Error.Validity)
    require(isinstance(grant.wrapping, HpkeWrapping) == (grant.path is not None), Error.GrantForm)
    if grant.path is not None:
        require(grant.path.sides >> len(grant.path.siblings) == 0, Error.GrantPath)
    return grant


def read_grant(data: Decoder) -> Grant:
    terms = Terms(
        suite=data.u8(),
        model=data.take(32),
        device=data.str(),
        floor=data.varint(64),
        validity=data.option(lambda: (data.varint(64), data.varint(64))),
    )
    terms_end = data.at
    wrapping_type = HpkeWrapping if data.variant(2) else DeviceKeyWrapping
    wrapping = wrapping_type(data.take(32), data.take(32), data.take(16))
    leaf = blake3(b"\x00" + data.data[: data.at]).digest()
    path = data.option(lambda: PathSignature(data.take(64), data.seq(16, lambda: data.take(32)), data.varint(16)))
    return Grant(terms, wrapping, path, data.data[:terms_end], leaf)
