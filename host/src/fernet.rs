//! Files that were protected with Fernet, to be sealed instead (<https://github.com/fernet/spec>).
//!
//! ```text
//! token = base64url( 0x80 | timestamp u64 | IV[16] | AES-128-CBC, PKCS #7 | HMAC-SHA256[32] over all before )
//! key   = base64url( signing key[16] | encryption key[16] )
//! ```
//!
//! Such a token has no chunks: its plaintext can't be trusted, or read, before all of it is in memory.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use aes::Aes128;
use base64ct::{Base64Url, Encoding};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use modelseal_hsm::wiped::wiped;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::files;

const VERSION: u8 = 0x80;
/// The version, and the zeros of any timestamp for a few ten thousand years, in base64url.
const BEGINNING: &[u8] = b"gAAAA";
/// Version and timestamp, before the IV.
const IV_AT: usize = 9;
const HEAD_LEN: usize = IV_AT + 16;
const HMAC_LEN: usize = 32;
/// A key in base64url has 44 characters; a line may end behind them.
const KEY_FILE_MAX: usize = 64;

/// A Fernet key.
pub struct Key {
    signing: Zeroizing<[u8; 16]>,
    encryption: Zeroizing<[u8; 16]>,
}

impl Key {
    /// Reads a key as `Fernet.generate_key()` gives it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        let decoded = Base64Url::decode(text.trim_ascii(), bytes.as_mut_slice()).ok()?;
        let (signing, encryption) = decoded.split_first_chunk()?;
        Some(Self {
            signing: Zeroizing::new(*signing),
            encryption: Zeroizing::new(encryption.try_into().ok()?),
        })
    }

    /// Reads a key from a file.
    pub fn read(path: &Path) -> Result<Self> {
        wiped(|| {
            let text = files::read_secret(path, KEY_FILE_MAX)
                .map_err(|error| if error.name() == Some("Extended") { not_a_key(path) } else { error })?;
            Self::parse(&text).ok_or_else(|| not_a_key(path))
        })
    }
}

fn not_a_key(path: &Path) -> Error {
    Error::malformed(path, "a Fernet key, which is 32 bytes in base64url")
}

/// What was in a token: wiped when it is dropped.
pub struct Opened {
    bytes: Zeroizing<Vec<u8>>,
    plaintext: Range<usize>,
}

impl Opened {
    /// The plaintext.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.plaintext.clone()).unwrap_or_default()
    }
}

/// Opens the token in the file `path`.
pub fn open_file(path: &Path, key: &Key) -> Result<Opened> {
    open(read(path)?, key).map_err(|error| error.about(path))
}

/// Opens a token in place. Its age doesn't matter.
pub fn open(token: Vec<u8>, key: &Key) -> Result<Opened> {
    // It will be the plaintext.
    let mut bytes = Zeroizing::new(token);
    let seems_one = bytes.trim_ascii_start().starts_with(BEGINNING);
    let damaged = || if seems_one { not_authentic() } else { not_a_token() };
    let len = decode(&mut bytes).ok_or_else(damaged)?;
    bytes.truncate(len);
    let end = len.checked_sub(HMAC_LEN).filter(|end| *end >= HEAD_LEN).ok_or_else(damaged)?;
    wiped(|| {
        let (signed, tag) = bytes.split_at_mut(end);
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&*key.signing).map_err(|_| not_authentic())?;
        mac.update(signed);
        mac.verify_slice(tag).map_err(|_| not_authentic())?;
        let (head, ciphertext) = signed.split_at_mut(HEAD_LEN);
        let iv = head.get(IV_AT..).unwrap_or_default();
        let cipher = cbc::Decryptor::<Aes128>::new_from_slices(&*key.encryption, iv);
        let cipher = cipher.map_err(|_| not_authentic())?;
        let plaintext = cipher.decrypt_padded::<Pkcs7>(ciphertext).map_err(|_| not_authentic())?;
        Ok(HEAD_LEN..HEAD_LEN + plaintext.len())
    })
    .map(|plaintext| Opened { bytes, plaintext })
}

/// The length of what the text stands for, which takes its place.
fn decode(text: &mut Vec<u8>) -> Option<usize> {
    text.truncate(text.trim_ascii_end().len());
    text.drain(..text.len() - text.trim_ascii_start().len());
    let decoded = Base64Url::decode_in_place(text).ok()?;
    (decoded.first() == Some(&VERSION)).then_some(decoded.len())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let file = File::open(path).map_err(io)?;
    let len = usize::try_from(file.metadata().map_err(io)?.len()).unwrap_or(usize::MAX);
    let mut token = Vec::new();
    token.try_reserve_exact(len.saturating_add(1)).map_err(|_| {
        let what = format!("{}: a Fernet token has to fit into memory", path.display());
        Error::new(Code::Io, what, "free some, or migrate it on a larger machine")
    })?;
    let mut file = file.take(len as u64);
    file.read_to_end(&mut token).map_err(io)?;
    Ok(token)
}

fn not_a_token() -> Error {
    Error::new(Code::Unsupported, "it isn't a Fernet token", "name a file that Fernet has encrypted")
}

fn not_authentic() -> Error {
    let hint = "check the key: it is another one than the file was encrypted with, or the file was changed";
    Error::new(Code::NotAuthentic, "the Fernet token doesn't open with this key", hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    // https://github.com/fernet/spec: generate.json
    const KEY: &[u8] = b"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &[u8] = b"gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    fn opened(token: &[u8]) -> Result<Opened> {
        open(token.to_vec(), &Key::parse(KEY).unwrap())
    }

    #[test]
    fn the_specs_own_token_opens() {
        assert_eq!(opened(TOKEN).unwrap().bytes(), b"hello");
        assert_eq!(opened(&[b" ", TOKEN, b"\r\n"].concat()).unwrap().bytes(), b"hello");
    }

    #[test]
    fn every_change_is_refused() {
        // The last character before the filling stands for two bits, and the others don't count.
        for at in (0..TOKEN.len()).filter(|at| *at != TOKEN.len() - 3) {
            let mut token = TOKEN.to_vec();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            assert!(opened(&token).is_err(), "{at}");
            assert!(opened(&TOKEN[..at]).is_err(), "{at}");
        }
        for damaged in [&TOKEN[..60], &TOKEN[..TOKEN.len() - 1], &[TOKEN, b"!"].concat()] {
            assert_eq!(opened(damaged).err().unwrap().code(), Code::NotAuthentic);
        }
        assert_eq!(opened(b"").err().unwrap().code(), Code::Unsupported);
        assert_eq!(opened(b"not a token").err().unwrap().code(), Code::Unsupported);
        let mut changed = TOKEN.to_vec();
        changed[40] ^= 1;
        assert_eq!(opened(&changed).err().unwrap().code(), Code::NotAuthentic);
    }

    #[test]
    fn only_keys_are_keys() {
        assert!(Key::parse(&[KEY, b"\n"].concat()).is_some());
        for text in [
            &b""[..],
            &KEY[..43],
            &KEY[..40],
            &[KEY, KEY].concat(),
            b"cw+0x689RpI/jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
        ] {
            assert!(Key::parse(text).is_none());
        }
        let other = Key::parse(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
        assert_eq!(open(TOKEN.to_vec(), &other).err().unwrap().code(), Code::NotAuthentic);
    }
}
