//! One newtype per secret, and every label and derivation of the format (FORMAT.md, section 3).
//!
//! ```text
//! content key ──HKDF-Expand──▶ payload key, base nonce, commitment      (subject)
//! device key  ──HKDF-Expand──▶ grant key, nonce                         (salt, terms, model id)
//! fleet key   ──CMAC, in the vault──▶ device key                        (device id)
//! ```
//!
//! Secrets are wiped on drop and have no `Debug`, `Clone`, `PartialEq` or `Serialize`.

use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::Error;
use crate::grant::{DEVICE_ID_MAX, DeviceId};
use crate::sealed::ModelId;

/// What the publisher signs under: this, then bytes 0 .. 16+M of the sealed model (4.5).
pub(crate) const MANIFEST: &[u8] = b"modelseal/v1/manifest\0";
/// What the publisher signs under: this, then the root of a tree of grants (6.5).
pub(crate) const GRANTS: &[u8] = b"modelseal/v1/grants\0";
/// HPKE's `info` is this, then the model id (6.4).
#[cfg(feature = "x25519")]
pub(crate) const HPKE_GRANT: &[u8] = b"modelseal/v1/hpke-grant\0";
/// For payload keys (3.1).
const PAYLOAD: &[u8] = b"modelseal/v1/payload\0";
/// For grant keys (3.4).
const DEVICE_GRANT: &[u8] = b"modelseal/v1/device-grant\0";
/// For device keys (3.3).
const DEVICE: &[u8] = b"modelseal/v1/device\0";
/// For key slots (3.5).
const CONTENT_KEY: &[u8] = b"modelseal/v1/content-key\0";

/// Length of every symmetric key, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of every AEAD nonce, in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of every AEAD tag, in bytes.
pub const TAG_LEN: usize = 16;

/// 32 random bytes that encrypt one sealed model. Holding one proves possession only: which model it
/// belongs to is settled by the commitment.
pub struct ContentKey([u8; KEY_LEN]);

impl ContentKey {
    /// Fresh for each sealing (3.1): no caller brings one.
    pub(crate) fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = Self([0; KEY_LEN]);
        rng.fill_bytes(&mut key.0);
        key
    }

    pub(crate) fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(*bytes)
    }

    /// The bytes, for a vault that encrypts them under its master key and for nothing else.
    pub fn expose_to_vault(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Where it is unwrapped: until then these bytes are a ciphertext.
    pub(crate) fn in_place(&mut self) -> &mut [u8; KEY_LEN] {
        &mut self.0
    }

    /// Makes another key of it, unless `doubt` is 0.
    pub(crate) fn mix(&mut self, doubt: u8) {
        mix(&mut self.0, doubt);
    }

    /// (3.1) `payload key[32] || base nonce[12] || commitment[32] =
    /// HKDF-Expand(content key, "modelseal/v1/payload\0" || SHA-256(subject), 76 bytes)`
    pub(crate) fn derive(&self, subject: &[u8]) -> Result<PayloadKeys, Error> {
        let mut okm = Zeroizing::new([0; KEY_LEN + NONCE_LEN + 32]);
        expand(&self.0, &[PAYLOAD, &sha256(subject)], okm.as_mut())?;
        let mut keys = PayloadKeys { key: [0; KEY_LEN], base_nonce: [0; NONCE_LEN], commitment: [0; 32] };
        let (key, rest) = okm.split_at(KEY_LEN);
        let (nonce, commitment) = rest.split_at(NONCE_LEN);
        keys.key.copy_from_slice(key);
        keys.base_nonce.copy_from_slice(nonce);
        keys.commitment.copy_from_slice(commitment);
        Ok(keys)
    }
}

/// What one content key and one subject give (3.1): the key and base nonce of the chunks, and the commitment.
pub(crate) struct PayloadKeys {
    pub(crate) key: [u8; KEY_LEN],
    base_nonce: [u8; NONCE_LEN],
    pub(crate) commitment: [u8; 32],
}

impl PayloadKeys {
    /// Makes another key of it, unless `doubt` is 0.
    pub(crate) fn mix(&mut self, doubt: u8) {
        mix(&mut self.key, doubt);
    }

    /// (3.2) `nonce(i) = base nonce XOR (four zero bytes || i as unsigned 64-bit big-endian)`
    pub(crate) fn nonce(&self, chunk: u64) -> [u8; NONCE_LEN] {
        let [n0, n1, n2, n3, counted @ ..] = self.base_nonce;
        let [n4, n5, n6, n7, n8, n9, n10, n11] = (u64::from_be_bytes(counted) ^ chunk).to_be_bytes();
        [n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11]
    }
}

/// A symmetric key that one device shares with its vault.
pub struct DeviceKey([u8; KEY_LEN]);

impl DeviceKey {
    /// Takes over a device's key from where it is kept.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(*bytes)
    }

    /// The bytes, for the one file that the factory writes into the device.
    pub fn expose_to_factory(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// (3.4) `grant key[32] || nonce[12] = HKDF-Expand(device key, "modelseal/v1/device-grant\0" || salt ||
    /// SHA-256(terms) || model id, 44 bytes)`
    ///
    /// `model` is the id that the reader computed, so that changed terms or another manifest give an
    /// unrelated key even where every comparison is skipped.
    pub(crate) fn grant_key(
        &self,
        salt: &[u8; 32],
        terms: &[u8],
        model: &ModelId,
    ) -> Result<GrantKey, Error> {
        let mut okm = Zeroizing::new([0; KEY_LEN + NONCE_LEN]);
        expand(&self.0, &[DEVICE_GRANT, salt, &sha256(terms), model.as_bytes()], okm.as_mut())?;
        let mut key = GrantKey { key: [0; KEY_LEN], nonce: [0; NONCE_LEN] };
        let (left, right) = okm.split_at(KEY_LEN);
        key.key.copy_from_slice(left);
        key.nonce.copy_from_slice(right);
        Ok(key)
    }
}

/// Wraps one content key for one device, once (3.4).
pub(crate) struct GrantKey {
    pub(crate) key: [u8; KEY_LEN],
    pub(crate) nonce: [u8; NONCE_LEN],
}

/// The X25519 private key of a device (RFC 7748).
pub struct X25519Secret([u8; KEY_LEN]);

impl X25519Secret {
    /// Takes over a device's key from where it is kept.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(*bytes)
    }

    /// The bytes, for the one file that the device keeps.
    pub fn expose_to_device(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

#[cfg(feature = "x25519")]
impl X25519Secret {
    /// A new key pair's private half.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Self([0; KEY_LEN]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// The public half.
    pub fn public(&self) -> Result<[u8; 32], Error> {
        crate::x25519::public(self)
    }
}

/// What a device opens grants with.
pub enum Secret {
    /// A key that the vault derives from its fleet key.
    DeviceKey(DeviceKey),
    /// A private key that never left the device.
    X25519(X25519Secret),
}

/// Number of bytes that [`fleet_block`] writes at most.
pub const FLEET_BLOCK_LEN: usize = 4 + DEVICE.len() + DEVICE_ID_MAX + 4;

/// (3.3) Block `counter` (1, 2) of the fixed input of SP 800-108r1 in counter mode, of which a vault takes
/// the AES-256-CMAC under its fleet key; the two results make the device key.
///
/// `BE32(counter) || "modelseal/v1/device\0" || device id || BE32(256)`
pub fn fleet_block(counter: u32, device: DeviceId<'_>) -> heapless::Vec<u8, FLEET_BLOCK_LEN> {
    let counter = counter.to_be_bytes();
    let length = 256u32.to_be_bytes();
    // `collect` can't overflow: a device id has at most `DEVICE_ID_MAX` bytes.
    [&counter, DEVICE, device.as_str().as_bytes(), &length].into_iter().flatten().copied().collect()
}

/// Length of [`content_key_aad`] in bytes.
pub const CONTENT_KEY_AAD_LEN: usize = CONTENT_KEY.len() + 32;

/// (3.5) The additional data under which a master key encrypts the content key of model `id`:
/// `"modelseal/v1/content-key\0" || model id`
pub fn content_key_aad(id: &ModelId) -> [u8; CONTENT_KEY_AAD_LEN] {
    let mut aad = [0; CONTENT_KEY_AAD_LEN];
    let (label, model) = aad.split_at_mut(CONTENT_KEY.len());
    label.copy_from_slice(CONTENT_KEY);
    model.copy_from_slice(id.as_bytes());
    aad
}

/// Once in an image, not wherever it is used.
#[inline(never)]
fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Wiped where they are dropped, by one function in an image.
macro_rules! wiped_on_drop {
    ($($secret:ident { $($field:tt),+ })+) => {$(
        impl Drop for $secret {
            fn drop(&mut self) {
                $(wipe(&mut self.$field);)+
            }
        }

        impl ZeroizeOnDrop for $secret {}
    )+};
}

wiped_on_drop! {
    ContentKey { 0 }
    PayloadKeys { key, base_nonce, commitment }
    DeviceKey { 0 }
    GrantKey { key, nonce }
    X25519Secret { 0 }
}

#[inline(never)]
fn mix(key: &mut [u8; KEY_LEN], doubt: u8) {
    key.iter_mut().for_each(|byte| *byte ^= doubt);
}

#[inline(never)]
fn wipe(secret: &mut [u8]) {
    secret.zeroize();
}

/// HKDF-Expand with SHA-256 (3; RFC 5869, section 2.3), at most 255 * 32 bytes.
#[inline(never)]
pub(crate) fn expand(prk: &[u8; KEY_LEN], info: &[&[u8]], okm: &mut [u8]) -> Result<(), Error> {
    // Neither can fail: the key has SHA-256's length and the output is far below 255 blocks.
    let hkdf = Hkdf::<Sha256>::from_prk(prk).map_err(|_| Error::Key)?;
    hkdf.expand_multi_info(info, okm).map_err(|_| Error::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_in_its_last_eight_bytes() {
        let keys = PayloadKeys { key: [0; 32], base_nonce: [0xf0; 12], commitment: [0; 32] };
        assert_eq!(keys.nonce(0), [0xf0; 12]);
        let counted = [0xf0, 0xf0, 0xf0, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8];
        assert_eq!(keys.nonce(0x0102_0304_0506_0708), counted);
    }
}
