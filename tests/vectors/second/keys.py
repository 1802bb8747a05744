"""Section 3: the key schedule; sections 6.3 and 6.4: unwrapping the content key."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from .grant import DeviceKeyWrapping, Grant, HpkeWrapping
from .refusal import Error, Refused, require
from .sealed import Sealed

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
    aad = b"modelseal/v1/content-key\0" + sealed.model_id
    used = [slot for slot in sealed.slots if slot[:4] != bytes(4)]
    for slot in used:
        master = masters.get(int.from_bytes(slot[:4], "little"))
        value = aes_gcm_value(slot)
        if master is None or value is None:
            continue
        with suppress(InvalidTag):
            return AESGCM(master).decrypt(value[:-48], value[-48:], aad)
    raise Refused(Error.OldSlots if any(slot[6:8] != bytes(2) for slot in used) else Error.KeySlot)


def aes_gcm_value(slot: bytes) -> bytes | None:
    """Section 4.3: the value of a slot of kind 1, unless the slot is spoiled."""
    kind, length = slot[4], slot[5]
    is_good = kind == 1 and 60 <= length <= 64 and slot[6:8] == bytes(2) and not any(slot[8 + length :])
    return slot[8 : 8 + length] if is_good else None


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
    require(int.from_bytes(public, "little") < 2**255 - 19, Error.Key)
    x25519_shared(x25519.X25519PrivateKey.from_private_bytes(bytes([9] * 32)), public, Error.Key)
