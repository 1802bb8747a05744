//! Chunked AEAD, in place, both ways (FORMAT.md, section 3.2).
//!
//! `ciphertext(i), tag(i) = AEAD(payload key, nonce(i), aad = empty, chunk i of the model)`

#[cfg(feature = "aes-gcm")]
use aes_gcm::Aes256Gcm;
#[cfg(feature = "chacha20-poly1305")]
use chacha20poly1305::ChaCha20Poly1305;

use crate::error::Error;
use crate::keys::{KEY_LEN, NONCE_LEN, TAG_LEN};
use crate::manifest::Suite;

/// The joint for faster back ends: one keyed AEAD. Nonces come from the key schedule, never from a caller.
pub trait ChunkCipher: Sized {
    /// Keys the suite's AEAD (2).
    fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Result<Self, Error>;

    /// Encrypts in place and gives the tag.
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG_LEN], Error>;

    /// Checks the tag and decrypts in place. On failure `data` holds no plaintext.
    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Error>;

    /// Checks the tag of `ciphertext` and decrypts it into `plaintext`, which has its length. On failure
    /// `plaintext` holds no plaintext.
    fn open_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Error> {
        if plaintext.len() != ciphertext.len() {
            return Err(Error::Memory);
        }
        plaintext.copy_from_slice(ciphertext);
        self.open(nonce, aad, plaintext, tag)
    }
}

/// The portable back end, for any processor: RustCrypto's.
#[expect(clippy::large_enum_variant, reason = "there is no allocator to box the AES key schedule in")]
pub enum Portable {
    /// Suite 1
    #[cfg(feature = "aes-gcm")]
    Aes256Gcm(Aes256Gcm),
    /// Suite 2
    #[cfg(feature = "chacha20-poly1305")]
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl ChunkCipher for Portable {
    #[allow(unused_variables, reason = "with no suite built in")]
    fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Result<Self, Error> {
        match suite {
            #[cfg(feature = "aes-gcm")]
            Suite::Aes256Gcm => Ok(Self::Aes256Gcm(aes_gcm::KeyInit::new(key.into()))),
            #[cfg(feature = "chacha20-poly1305")]
            Suite::ChaCha20Poly1305 => Ok(Self::ChaCha20Poly1305(chacha20poly1305::KeyInit::new(key.into()))),
            #[allow(unreachable_patterns, reason = "a suite that isn't built in")]
            _ => Err(Error::UnknownSuite),
        }
    }

    #[allow(unused_variables, reason = "with no suite built in")]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG_LEN], Error> {
        match *self {
            #[cfg(feature = "aes-gcm")]
            Self::Aes256Gcm(ref cipher) => {
                use aes_gcm::aead::AeadInOut;
                let tag = cipher.encrypt_inout_detached(nonce.into(), aad, data.into());
                tag.map(Into::into).map_err(|_| Error::Length)
            }
            #[cfg(feature = "chacha20-poly1305")]
            Self::ChaCha20Poly1305(ref cipher) => {
                use chacha20poly1305::aead::AeadInOut;
                let tag = cipher.encrypt_inout_detached(nonce.into(), aad, data.into());
                tag.map(Into::into).map_err(|_| Error::Length)
            }
        }
    }

    #[allow(unused_variables, reason = "with no suite built in")]
    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Error> {
        match *self {
            #[cfg(feature = "aes-gcm")]
            Self::Aes256Gcm(ref cipher) => {
                use aes_gcm::aead::AeadInOut;
                let opened = cipher.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into());
                opened.map_err(|_| Error::Chunk)
            }
            #[cfg(feature = "chacha20-poly1305")]
            Self::ChaCha20Poly1305(ref cipher) => {
                use chacha20poly1305::aead::AeadInOut;
                let opened = cipher.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into());
                opened.map_err(|_| Error::Chunk)
            }
        }
    }
}
