"""Section 7: opening with a grant, opening with the vault, verifying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from blake3 import blake3
from cryptography.exceptions import InvalidTag

from .grant import Grant, HpkeWrapping, Terms, grants_signed_bytes, parse_grant
from .keys import PayloadKeys, aead, chunk_nonce, open_slots, payload_keys, unwrap_device_key, unwrap_hpke
from .refusal import Error, Refused, require
from .sealed import Manifest, Sealed, parse_sealed, parse_stored
from .signatures import Publisher
from .tree import merge, subtree_values

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
    model = open_payload(sealed, committed_keys(sealed, content_key), profile)
    return Opened(model, max(floor, grant.terms.floor))


def open_with_vault(
    sealed_file: bytes, publisher: Publisher, masters: dict[int, bytes], line: str | None = None
) -> Opened:
    """Section 7, "A vault"; with a host's checks."""
    sealed = parse_sealed(sealed_file)
    verify_manifest(sealed, publisher)
    keys = committed_keys(sealed, open_slots(sealed, masters))
    require(line is None or line == sealed.manifest.line, Error.OtherLine)
    return Opened(open_payload(sealed, keys, "host"), None)


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


def committed_keys(sealed: Sealed, content_key: bytes) -> PayloadKeys:
    """Step 6."""
    keys = payload_keys(content_key, sealed.subject)
    require(keys.commitment == sealed.manifest.commitment, Error.Commitment)
    return keys


def open_payload(sealed: Sealed, keys: PayloadKeys, profile: Profile) -> bytes:
    """Steps 7 and 8."""
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
