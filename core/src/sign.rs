//! Publisher signatures, checked (FORMAT.md, section 5). A vault makes them.
//!
//! A signature names neither key nor algorithm: a reader tries each key that it trusts.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Most keys that a reader trusts.
pub const TRUSTED_MAX: usize = 4;
/// Whether any signature can be verified. What only leads up to one isn't needed otherwise.
pub(crate) const ANY_ALGORITHM: bool = cfg!(any(feature = "ed25519", feature = "p256"));
/// Length of every signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// 64 bytes: Ed25519's R‖S, or ECDSA's r‖s, big-endian, with s in the lower half of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

impl Signature {
    /// Any 64 bytes have the shape of a signature.
    pub fn from_bytes(bytes: &[u8; SIGNATURE_LEN]) -> Self {
        let mut signature = Self { r: [0; 32], s: [0; 32] };
        let (r, s) = bytes.split_at(32);
        signature.r.copy_from_slice(r);
        signature.s.copy_from_slice(s);
        signature
    }

    /// The bytes.
    pub fn to_bytes(&self) -> [u8; SIGNATURE_LEN] {
        let mut bytes = [0; SIGNATURE_LEN];
        let (r, s) = bytes.split_at_mut(32);
        r.copy_from_slice(&self.r);
        s.copy_from_slice(&self.s);
        bytes
    }
}

/// A key that a publisher signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublisherKey {
    /// RFC 8032, compressed.
    Ed25519([u8; 32]),
    /// FIPS 186-5 over P-256 and SHA-256: the affine coordinates, big-endian.
    EcdsaP256 {
        /// The x coordinate.
        x: [u8; 32],
        /// The y coordinate.
        y: [u8; 32],
    },
}

impl PublisherKey {
    /// Whether the bytes are a key that can verify anything (5): on the curve and, for Ed25519, canonically
    /// encoded and not of small order. A key whose algorithm isn't built in can't.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_usable() { Ok(()) } else { Err(Error::Key) }
    }

    /// What readers accept of a signature that this key made (5): ECDSA's s moved into the lower half of
    /// the order, for some signers give either.
    pub fn canonical(&self, signature: Signature) -> Signature {
        match self {
            #[cfg(feature = "p256")]
            Self::EcdsaP256 { .. } => match p256::ecdsa::Signature::from_scalars(signature.r, signature.s) {
                Ok(either) => Signature::from_bytes(&either.normalize_s().to_bytes().into()),
                Err(_) => signature,
            },
            #[allow(unreachable_patterns, reason = "without P-256 there is nothing to move")]
            _ => signature,
        }
    }

    fn is_usable(&self) -> bool {
        match self {
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => ed25519_dalek::VerifyingKey::from_bytes(key)
                .is_ok_and(|point| !point.is_weak() && point.to_edwards().compress().as_bytes() == key),
            #[cfg(feature = "p256")]
            Self::EcdsaP256 { x, y } => p256_key(x, y).is_some(),
            #[allow(unreachable_patterns, reason = "without an algorithm's feature its keys verify nothing")]
            _ => false,
        }
    }

    /// All that section 5 demands of a signature: Ed25519 without the cofactor, R and A not of small order,
    /// s < L; ECDSA with the lower s only.
    #[allow(unused_variables, reason = "with neither algorithm built in")]
    fn verifies(&self, message: &[&[u8]], signature: &Signature) -> bool {
        match self {
            #[cfg(feature = "ed25519")]
            Self::Ed25519(key) => {
                use ed25519_dalek::ed25519::signature::MultipartVerifier;
                // With both points refused that are of small order, it is dalek's `verify_strict`, which takes the
                // message in one piece only. A point R that isn't encoded canonically never equals the computed one.
                is_strong(&signature.r)
                    && matches!(&ed25519_dalek::VerifyingKey::from_bytes(key), Ok(key) if !key.is_weak()
                        && key.multipart_verify(message, &signature.to_bytes().into()).is_ok())
            }
            #[cfg(feature = "p256")]
            Self::EcdsaP256 { x, y } => {
                use p256::ecdsa::signature::MultipartVerifier;
                // The upper half of the order would be a second signature of the same message.
                let signature = p256::ecdsa::Signature::from_scalars(signature.r, signature.s)
                    .ok()
                    .filter(|signature| signature.normalize_s() == *signature);
                p256_key(x, y)
                    .zip(signature)
                    .is_some_and(|(key, signature)| key.multipart_verify(message, &signature).is_ok())
            }
            #[allow(unreachable_patterns, reason = "without an algorithm's feature its keys verify nothing")]
            _ => false,
        }
    }
}

/// A point, and not one of small order.
#[cfg(feature = "ed25519")]
#[inline(never)]
fn is_strong(point: &[u8; 32]) -> bool {
    ed25519_dalek::VerifyingKey::from_bytes(point).is_ok_and(|point| !point.is_weak())
}

#[cfg(feature = "p256")]
fn p256_key(x: &[u8; 32], y: &[u8; 32]) -> Option<p256::ecdsa::VerifyingKey> {
    let point = p256::Sec1Point::from_affine_coordinates(&(*x).into(), &(*y).into(), false);
    p256::ecdsa::VerifyingKey::from_sec1_point(&point).ok()
}

/// The keys of **one** publisher that a reader trusts, at most four. They arrive and leave with its firmware
/// or configuration; removing one is how it is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publisher {
    keys: Vec<PublisherKey, TRUSTED_MAX>,
    /// Says once more whether there are any, so that a fault that loses count of them doesn't go unnoticed.
    any: Any,
}

/// A number in memory like any other, not a tag: whatever isn't [`Any::NONE`] stands for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Any(u32);

impl Any {
    const NONE: Self = Self(0x5a5a_5a5a);
    const SOME: Self = Self(0xa5a5_a5a5);
}

impl Default for Any {
    fn default() -> Self {
        Self::NONE
    }
}

impl Publisher {
    /// Trusts `keys` (5): at most four, each usable.
    pub fn new(keys: &[PublisherKey]) -> Result<Self, Error> {
        keys.iter().try_for_each(PublisherKey::check)?;
        let any = if keys.is_empty() { Any::NONE } else { Any::SOME };
        Ok(Self { keys: Vec::from_slice(keys).map_err(|_| Error::Key)?, any })
    }

    /// The trusted keys.
    pub fn keys(&self) -> &[PublisherKey] {
        &self.keys
    }

    /// Whether none was ever trusted. If the number of keys says so alone, a fault has changed it: there are some
    /// then, and none of them verifies anything.
    pub fn trusts_nobody(&self) -> bool {
        self.keys.is_empty() && self.any == Any::NONE
    }

    /// Whether one of the keys signed `message`, for a signer that checks its own work. A reader needs
    /// [`Verified`].
    pub fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        self.has_signed_parts(&[message], signature)
    }

    #[inline(never)]
    fn has_signed_parts(&self, message: &[&[u8]], signature: &Signature) -> bool {
        self.keys.iter().any(|key| key.verifies(message, signature))
    }

    /// `value`, if one of the keys signed `message`, which the caller made of `value`. In parts, so that a device
    /// needn't copy a header to put the label in front of it.
    pub(crate) fn verify<T>(
        &self,
        value: T,
        message: &[&[u8]],
        signature: &Signature,
    ) -> Option<Verified<T>> {
        self.has_signed_parts(message, signature).then_some(Verified(value))
    }
}

/// Proves that the publisher made exactly this: only a successful check of a signature, or of a device key,
/// returns one.
#[derive(Clone, Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// For what a device key has authenticated instead of a signature.
    pub(crate) fn by_device_key(value: T) -> Self {
        Self(value)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

impl<T> core::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_that_has_lost_its_keys_still_trusts_somebody() {
        assert!(Publisher::default().trusts_nobody());
        assert!(Publisher::new(&[]).is_ok_and(|publisher| publisher.trusts_nobody()));
        for any in [Any::SOME, Any(0), Any(!0)] {
            assert!(!Publisher { keys: Vec::new(), any }.trusts_nobody());
        }
        let mut keys = Vec::new();
        keys.push(PublisherKey::Ed25519([1; 32])).unwrap();
        assert!(!Publisher { keys, any: Any::NONE }.trusts_nobody());
    }
}
