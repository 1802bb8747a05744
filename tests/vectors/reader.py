#!/usr/bin/env python3
"""A second, independent reader of modelseal files, written from docs/FORMAT.md alone ("section" means its sections).

    reader.py open SEALED --grant GRANT --identity IDENTITY -o MODEL
    reader.py run CASES            every *.json of a folder is one test vector
    reader.py example FORMAT.md    the worked example, section 11

It needs Python 3.11 and the packages `cryptography` and `blake3`. It is for tests: it keeps files in memory, wipes
nothing, and doesn't repeat comparisons.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import load_pem_public_key


T = TypeVar("T")


class Error(IntEnum):
    """Section 8: every number and its name."""

    Truncated = 301
    Extended = 302
    ManifestLength = 303
    EnvelopeLength = 304
    ManifestEncoding = 305
    ChunkSize = 306
    Alignment = 307
    Line = 308
    Kind = 309
    Length = 310
    Claims = 311
    Padding = 312
    GrantLength = 313
    GrantEncoding = 314
    DeviceId = 315
    Validity = 316
    GrantForm = 317
    GrantPath = 318
    Key = 319
    ManifestSignature = 330
    GrantSignature = 331
    GrantKey = 332
    Commitment = 333
    Index = 334
    Chunk = 335
    Root = 336
    OtherModel = 401
    OtherLine = 402
    OtherSuite = 403
    OtherDevice = 404
    NoClock = 405
    NotYetValid = 406
    Expired = 407
    FloorAboveVersion = 408
    RolledBack = 409
    Storage = 601
    Memory = 602
    Floor = 603
    ForeignMagic = 701
    UnknownVersion = 702
    UnknownSuite = 703


class Refused(Exception):
    """A refusal of section 8."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.value} {error.name}")
        self.number: int = error.value
        self.name: str = error.name

    @property
    def exit_code(self) -> int:
        """The class: the hundreds of the number."""
        return self.number // 100


class NoSlotOpens(Exception):
    """No slot decrypts with the vault's master keys. Section 8 has no number for it."""


def require(condition: bool, error: Error) -> None:
    if not condition:
        raise Refused(error)


# ---- Opening: section 7 ------------------------------------------------------------------------------------------

Profile = Literal["host", "device"]


@dataclass(frozen=True)
class Device:
    """What a device is configured with; it has one of the two keys, and asks for a model of one of `lines`."""

    id: str
    lines: tuple[str, ...]
    publisher: Publisher
    floor: int | None
    now: int | None
    device_key: bytes | None = None
    x25519: bytes | None = None


@dataclass(frozen=True)
class Opened:
    model: bytes
    floor: int | None
    """What the reader stores on confirmation (step 9); a vault confirms nothing."""


def open_with_grant(sealed_file: bytes, grant_file: bytes, device: Device, profile: Profile = "host") -> Opened:
    """Section 7, steps 1 to 9."""
    sealed = parse_sealed(sealed_file) if profile == "host" else parse_stored(sealed_file)
    grant = parse_grant(grant_file)
    if profile == "host":
        verify_manifest(sealed, device.publisher)
    withheld = authenticate(grant, sealed, device)
    check_name(grant, sealed, device)
    floor = admit(grant.terms, sealed.manifest, device)
    content_key = withheld or unwrap_hpke(grant, sealed.model_id, device.x25519)
    model = open_payload(sealed, content_key, profile)
    return Opened(model, max(floor, grant.terms.floor))


def open_with_vault(
    sealed_file: bytes, publisher: Publisher, masters: dict[int, bytes], line: str | None = None
) -> Opened:
    """Section 7, "A vault"; with a host's checks. Where `line` is checked is this reader's choice."""
    sealed = parse_sealed(sealed_file)
    verify_manifest(sealed, publisher)
    require(line is None or line == sealed.manifest.line, Error.OtherLine)
    content_key = open_slots(sealed, masters)
    return Opened(open_payload(sealed, content_key, "host"), None)


def verify(sealed_file: bytes, publisher: Publisher) -> None:
    """Section 7: to verify without any key."""
    sealed = parse_sealed(sealed_file)
    verify_manifest(sealed, publisher)
    check_index(sealed)
    check_chunks(sealed)


def verify_manifest(sealed: Sealed, publisher: Publisher) -> None:
    require(publisher.verifies(sealed.signed_bytes, sealed.signature), Error.ManifestSignature)


def authenticate(grant: Grant, sealed: Sealed, device: Device) -> bytes | None:
    """Step 2. Returns the content key of a device-key grant, which the caller withholds until step 5."""
    if isinstance(grant.wrapping, HpkeWrapping):
        assert grant.path is not None, "317"
        signed = grants_signed_bytes(grant.path.root(grant.leaf))
        require(device.publisher.verifies(signed, grant.path.signature), Error.GrantSignature)
        return None
    if device.device_key is None:
        raise Refused(Error.GrantKey)
    try:
        return unwrap_device_key(grant, sealed.model_id, device.device_key)
    except Refused:
        if grant.terms.model == sealed.model_id:
            raise
    unwrap_device_key(grant, grant.terms.model, device.device_key)
    refuse_other_model(sealed, device.publisher)


def check_name(grant: Grant, sealed: Sealed, device: Device) -> None:
    """Step 3."""
    if grant.terms.model != sealed.model_id:
        refuse_other_model(sealed, device.publisher)
    require(sealed.manifest.line in device.lines, Error.OtherLine)


def refuse_other_model(sealed: Sealed, publisher: Publisher) -> NoReturn:
    """Section 7, "Which error for which model"."""
    verify_manifest(sealed, publisher)
    raise Refused(Error.OtherModel)


def admit(terms: Terms, manifest: Manifest, device: Device) -> int:
    """Step 4. Returns the stored floor."""
    require(terms.suite == manifest.suite, Error.OtherSuite)
    require(terms.device == device.id, Error.OtherDevice)
    if terms.validity is not None:
        not_before, not_after = terms.validity
        if device.now is None:
            raise Refused(Error.NoClock)
        require(not_before <= device.now, Error.NotYetValid)
        require(device.now < not_after, Error.Expired)
    require(terms.floor <= manifest.version, Error.FloorAboveVersion)
    if device.floor is None:
        raise Refused(Error.Floor)
    require(manifest.version >= device.floor, Error.RolledBack)
    return device.floor


def open_payload(sealed: Sealed, content_key: bytes, profile: Profile) -> bytes:
    """Steps 6 to 8."""
    keys = payload_keys(content_key, sealed.subject)
    require(keys.commitment == sealed.manifest.commitment, Error.Commitment)
    if profile == "host":
        check_index(sealed)
        check_chunks(sealed)
        return decrypt_chunks(sealed, keys)
    require(len(sealed.data) >= sealed.end, Error.Truncated)
    model = decrypt_chunks(sealed, keys)
    require(blake3(sealed.payload).digest() == sealed.manifest.root, Error.Root)
    return model


def check_index(sealed: Sealed) -> None:
    """Section 7, "A host", between 6 and 7."""
    require(not any(sealed.padding), Error.Padding)
    require(merge(sealed.chaining_values) == sealed.manifest.root, Error.Index)


def check_chunks(sealed: Sealed) -> None:
    """Section 7, "A host", in 7; section 4.4."""
    if sealed.chunks == 1:
        values = [blake3(sealed.payload).digest()]
    else:
        values = subtree_values(sealed.payload, sealed.manifest.chunk_log2)
    require(values == sealed.chaining_values, Error.Chunk)


def decrypt_chunks(sealed: Sealed, keys: PayloadKeys) -> bytes:
    """Section 3.2."""
    cipher, size = aead(sealed.manifest.suite, keys.key), 1 << sealed.manifest.chunk_log2
    model = []
    for i, tag in enumerate(sealed.tags):
        ciphertext = sealed.payload[i * size : (i + 1) * size]
        try:
            model.append(cipher.decrypt(chunk_nonce(keys.base_nonce, i), ciphertext + tag, b""))
        except InvalidTag:
            raise Refused(Error.Chunk) from None
    return b"".join(model)


# ---- Sealed model: section 4 -------------------------------------------------------------------------------------

SEALED_MAGIC = bytes.fromhex("894D5345414C1A0A")
GRANT_MAGIC = bytes.fromhex("894D534752541A0A")
LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
DEVICE_ID = LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


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
        self.slots = split(data[envelope_at + 64 : index_at], 64)
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
    require(magic == SEALED_MAGIC, Error.ForeignMagic)
    require(version == 1, Error.UnknownVersion)
    require(1 <= manifest_length <= 1024, Error.ManifestLength)
    require(envelope_length in range(128, 64 * 17 + 1, 64), Error.EnvelopeLength)
    return manifest_length, envelope_length


def parse_manifest(data: bytes) -> Manifest:
    """Section 4.2."""
    require(data[0] in AEADS, Error.UnknownSuite)
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
        and all(a < b for a, b in zip(keys, keys[1:]))
        and all(len(value.encode()) <= 128 and not any(is_control(c) for c in value) for _, value in claims)
    )


def is_control(character: str) -> bool:
    return character <= "\x1f" or "\x7f" <= character <= "\x9f"


def is_word(text: str, most: int, characters: frozenset[str]) -> bool:
    """Section 2, character sets."""
    return 1 <= len(text.encode()) <= most and characters.issuperset(text)


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# ---- Grant: section 6 --------------------------------------------------------------------------------------------


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
    require(magic == GRANT_MAGIC, Error.ForeignMagic)
    require(version == 1, Error.UnknownVersion)
    require(1 <= length <= 2036, Error.GrantLength)
    require(len(data) >= 12 + length, Error.Truncated)
    require(len(data) <= 12 + length, Error.Extended)
    require(data[12] in AEADS, Error.UnknownSuite)
    grant = decode(data[12:], read_grant, Error.GrantEncoding)
    require(is_word(grant.terms.device, 32, DEVICE_ID), Error.DeviceId)
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
    wrapping = [DeviceKeyWrapping, HpkeWrapping][data.variant(2)](data.take(32), data.take(32), data.take(16))
    leaf = blake3(b"\x00" + data.data[: data.at]).digest()
    path = data.option(lambda: PathSignature(data.take(64), data.seq(16, lambda: data.take(32)), data.varint(16)))
    return Grant(terms, wrapping, path, data.data[:terms_end], leaf)


# ---- Encoding: section 2 -----------------------------------------------------------------------------------------


class NotCanonical(Exception):
    """The caller says which error it is."""


def decode(data: bytes, read: Callable[[Decoder], T], error: Error) -> T:
    """Canonical postcard, and nothing after it."""
    decoder = Decoder(data)
    try:
        value = read(decoder)
    except NotCanonical:
        raise Refused(error) from None
    require(decoder.at == len(data), error)
    return value


class Decoder:
    """Reads the types of section 2's table."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise NotCanonical
        self.at += n
        return self.data[self.at - n : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def varint(self, bits: int) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if value >> bits or (byte == 0 and shift > 0):
                raise NotCanonical
            if byte < 0x80:
                return value
            shift += 7
            if shift >= bits:
                raise NotCanonical

    def str(self) -> str:
        try:
            return self.take(self.varint(64)).decode("utf-8")
        except UnicodeDecodeError:
            raise NotCanonical from None

    def seq(self, most: int, read: Callable[[], T]) -> list[T]:
        n = self.varint(64)
        if n > most:
            raise NotCanonical
        return [read() for _ in range(n)]

    def option(self, read: Callable[[], T]) -> T | None:
        present = self.u8()
        if present > 1:
            raise NotCanonical
        return read() if present else None

    def variant(self, variants: int) -> int:
        number = self.varint(32)
        if number >= variants:
            raise NotCanonical
        return number


# ---- Key schedule: section 3 -------------------------------------------------------------------------------------

AEADS: dict[int, type[AESGCM] | type[ChaCha20Poly1305]] = {1: AESGCM, 2: ChaCha20Poly1305}
HPKE_AEAD_IDS = {1: 0x0002, 2: 0x0003}


def aead(suite: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return AEADS[suite](key)


@dataclass(frozen=True)
class PayloadKeys:
    key: bytes
    base_nonce: bytes
    commitment: bytes


def payload_keys(content_key: bytes, subject: bytes) -> PayloadKeys:
    """Section 3.1."""
    okm = hkdf_expand(content_key, b"modelseal/v1/payload\0" + sha256(subject), 76)
    return PayloadKeys(okm[:32], okm[32:44], okm[44:])


def chunk_nonce(base_nonce: bytes, i: int) -> bytes:
    """Section 3.2."""
    return xor(base_nonce, bytes(4) + i.to_bytes(8, "big"))


def device_key(fleet_key: bytes, device_id: str) -> bytes:
    """Section 3.3."""

    def block(i: int) -> bytes:
        cmac = CMAC(AES(fleet_key))
        cmac.update(struct.pack(">I", i) + b"modelseal/v1/device\0" + device_id.encode() + struct.pack(">I", 256))
        return cmac.finalize()

    return block(1) + block(2)


def grant_keys(device_key: bytes, grant: Grant, model_id: bytes) -> tuple[bytes, bytes]:
    """Section 3.4: grant key and nonce."""
    assert isinstance(grant.wrapping, DeviceKeyWrapping)
    info = b"modelseal/v1/device-grant\0" + grant.wrapping.salt + sha256(grant.terms_bytes) + model_id
    okm = hkdf_expand(device_key, info, 44)
    return okm[:32], okm[32:]


def unwrap_device_key(grant: Grant, model_id: bytes, device_key: bytes) -> bytes:
    """Section 6.3."""
    key, nonce = grant_keys(device_key, grant, model_id)
    return open_content_key(grant, key, nonce, b"")


def open_content_key(grant: Grant, key: bytes, nonce: bytes, aad: bytes) -> bytes:
    try:
        ciphertext = grant.wrapping.ciphertext + grant.wrapping.tag
        return aead(grant.terms.suite, key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise Refused(Error.GrantKey) from None


def open_slots(sealed: Sealed, masters: dict[int, bytes]) -> bytes:
    """Sections 3.5 and 4.3."""
    for slot in sealed.slots:
        master = masters.get(int.from_bytes(slot[:4], "little"))
        if master is None or slot[:4] == bytes(4):
            continue
        try:
            return AESGCM(master).decrypt(slot[4:16], slot[16:], b"modelseal/v1/content-key\0" + sealed.model_id)
        except InvalidTag:
            continue
    raise NoSlotOpens


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, info).derive(prk)


def sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


# ---- HPKE: section 6.4 and RFC 9180, base mode -------------------------------------------------------------------


def unwrap_hpke(grant: Grant, model_id: bytes, private: bytes | None) -> bytes:
    """Section 7, step 5: OpenBase."""
    if private is None:
        raise Refused(Error.GrantKey)
    assert isinstance(grant.wrapping, HpkeWrapping)
    shared = hpke_decap(grant.wrapping.encapsulated, private)
    key, nonce = hpke_key_schedule(grant.terms.suite, shared, hpke_info(model_id))
    return open_content_key(grant, key, nonce, grant.terms_bytes)


def hpke_info(model_id: bytes) -> bytes:
    return b"modelseal/v1/hpke-grant\0" + model_id


def hpke_decap(encapsulated: bytes, private: bytes) -> bytes:
    """RFC 9180, section 4.1."""
    secret = x25519.X25519PrivateKey.from_private_bytes(private)
    dh = x25519_shared(secret, encapsulated, Error.GrantKey)
    kem = b"KEM" + struct.pack(">H", 0x0020)
    prk = labeled_extract(kem, b"", b"eae_prk", dh)
    return labeled_expand(kem, prk, b"shared_secret", encapsulated + secret.public_key().public_bytes_raw(), 32)


def hpke_key_schedule(suite: int, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180, section 5.1, mode 0. The nonce of the first message is the base nonce."""
    hpke = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, HPKE_AEAD_IDS[suite])
    psk_id_hash = labeled_extract(hpke, b"", b"psk_id_hash", b"")
    context = b"\0" + psk_id_hash + labeled_extract(hpke, b"", b"info_hash", info)
    secret = labeled_extract(hpke, shared, b"secret", b"")
    return labeled_expand(hpke, secret, b"key", context, 32), labeled_expand(hpke, secret, b"base_nonce", context, 12)


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    extract = hmac.HMAC(salt or bytes(32), hashes.SHA256())
    extract.update(b"HPKE-v1" + suite_id + label + ikm)
    return extract.finalize()


def labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(prk, struct.pack(">H", length) + b"HPKE-v1" + suite_id + label + info, length)


def x25519_shared(private: x25519.X25519PrivateKey, public: bytes, error: Error) -> bytes:
    """Refuses a result of zeros, which the library reports as ValueError."""
    try:
        return private.exchange(x25519.X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Refused(error) from None


def check_x25519(public: bytes) -> None:
    """Section 6.4: a key of small order gives zeros with every private key."""
    x25519_shared(x25519.X25519PrivateKey.from_private_bytes(bytes([9] * 32)), public, Error.Key)


# ---- Signatures: section 5 ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publisher:
    """A trust set: at most four keys."""

    keys: tuple[Ed25519Key | P256Key, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.keys) <= 4, Error.Key)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        return any(key.verifies(message, signature) for key in self.keys)


@dataclass(frozen=True)
class Ed25519Key:
    encoded: bytes

    def __post_init__(self) -> None:
        require(len(self.encoded) == 32 and is_ed25519_point(self.encoded), Error.Key)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """The library compares sB - kA, encoded canonically, with the 32 bytes R."""
        if not is_ed25519_point(signature[:32]) or int.from_bytes(signature[32:], "little") >= ED25519_L:
            return False
        return verifies(lambda: ed25519.Ed25519PublicKey.from_public_bytes(self.encoded).verify(signature, message))


ED25519_P = 2**255 - 19
ED25519_L = 2**252 + 27742317777372353535851937790883648493
ED25519_D = -121665 * pow(121666, -1, ED25519_P) % ED25519_P
SMALL_ORDER_Y = frozenset(
    int.from_bytes(bytes.fromhex(encoded), "little")
    for encoded in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)


def is_ed25519_point(encoded: bytes) -> bool:
    """Whether 32 bytes decode to a point that hasn't small order; as RFC 8032, section 5.1.3, y is below the prime."""
    y = int.from_bytes(encoded, "little") & (1 << 255) - 1
    if y >= ED25519_P or y in SMALL_ORDER_Y:
        return False
    x_squared = (y * y - 1) * pow(ED25519_D * y * y + 1, -1, ED25519_P)
    return pow(x_squared, (ED25519_P - 1) // 2, ED25519_P) == 1


@dataclass(frozen=True)
class P256Key:
    x: bytes
    y: bytes

    def __post_init__(self) -> None:
        x, y = int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big")
        fits = len(self.x) == len(self.y) == 32 and x < P256_P and y < P256_P
        require(fits and (y * y - x**3 + 3 * x - P256_B) % P256_P == 0, Error.Key)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if not (1 <= r < P256_N and 1 <= s <= (P256_N - 1) // 2):
            return False
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + self.x + self.y)
        der = utils.encode_dss_signature(r, s)
        return verifies(lambda: key.verify(der, message, ec.ECDSA(hashes.SHA256())))


P256_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def verifies(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True


# ---- BLAKE3 chaining values: section 4.4 -------------------------------------------------------------------------
#
# Many compressions go at once: each word is an int with one lane of 64 bits, of which the lower 32 count, for each
# compression. Pairing neighbours level by level gives the tree of section 4.4: the last, odd one moves up as it is.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXED = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
BATCH = 1 << 20


def subtree_values(payload: bytes, chunk_log2: int) -> list[bytes]:
    """The chaining value of each sealed chunk of a payload that has two or more."""
    whole = len(payload) & ~1023
    values: list[bytes] = []
    for at in range(0, whole, BATCH):
        values += leaf_values(payload[at : min(at + BATCH, whole)], at // 1024, 1024)
    if whole < len(payload):
        values += leaf_values(payload[whole:], whole // 1024, len(payload) - whole)
    for _ in range(10, chunk_log2):
        values = pair(values, PARENT)
    return values


def merge(values: list[bytes]) -> bytes:
    """The root of an index."""
    while len(values) > 1:
        values = pair(values, PARENT | ROOT if len(values) == 2 else PARENT)
    return values[0]


def pair(values: list[bytes], flags: int) -> list[bytes]:
    n = len(values) // 2
    words = words_of(b"".join(values[: 2 * n]))
    block = [spread(words[i::16]) for i in range(16)]
    parents = compress(initial(n), block, spread([0] * n), 64, flags, n)
    return gather(parents, n) + values[2 * n :]


def leaf_values(data: bytes, first: int, size: int) -> list[bytes]:
    """The chaining values of BLAKE3 chunks of `size` bytes each, the first of which has number `first`."""
    n, blocks = len(data) // size, -(-size // 64)
    words = words_of(data.ljust(n * blocks * 64, b"\0"))
    counters = spread(range(first, first + n))
    value = initial(n)
    for i in range(blocks):
        block = [spread(words[16 * i + word :: 16 * blocks]) for word in range(16)]
        flags = (CHUNK_START if i == 0 else 0) | (CHUNK_END if i == blocks - 1 else 0)
        value = compress(value, block, counters, min(64, size - 64 * i), flags, n)
    return gather(value, n)


def compress(value: list[int], block: list[int], counters: int, length: int, flags: int, n: int) -> list[int]:
    """The compression function of n lanes, without the second half of its output."""
    ones = spread([1] * n)
    mask = ones * 0xFFFFFFFF
    v = [*value, *(ones * word for word in IV[:4]), counters & mask, counters >> 32 & mask, ones * length, ones * flags]

    def rotate(word: int, by: int) -> int:
        return (word >> by | word << 32 - by) & mask

    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXED):
            v[a] = (v[a] + v[b] + block[2 * i]) & mask
            v[d] = rotate(v[d] ^ v[a], 16)
            v[c] = (v[c] + v[d]) & mask
            v[b] = rotate(v[b] ^ v[c], 12)
            v[a] = (v[a] + v[b] + block[2 * i + 1]) & mask
            v[d] = rotate(v[d] ^ v[a], 8)
            v[c] = (v[c] + v[d]) & mask
            v[b] = rotate(v[b] ^ v[c], 7)
        block = [block[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def initial(n: int) -> list[int]:
    return [spread([word] * n) for word in IV]


def words_of(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def spread(lanes: Sequence[int]) -> int:
    return int.from_bytes(struct.pack(f"<{len(lanes)}Q", *lanes), "little")


def gather(words: list[int], n: int) -> list[bytes]:
    lanes = [struct.unpack(f"<{n}Q", word.to_bytes(8 * n, "little")) for word in words]
    return [struct.pack("<8I", *value) for value in zip(*lanes)]
