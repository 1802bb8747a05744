"""Section 5: signatures and the keys that they are checked with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from .refusal import Error, Refused, require


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


def key_of_library(key: object) -> Ed25519Key | P256Key:
    """From the library's public key, such as it reads from PEM."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Ed25519Key(key.public_bytes_raw())
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        numbers = key.public_numbers()
        return P256Key(numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))
    raise Refused(Error.Key)
