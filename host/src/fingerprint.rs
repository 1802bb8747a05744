//! Fingerprints of public keys, by which two people find out over another channel that they have the same key.
//!
//! A fingerprint is the SHA-256 of the key's DER SubjectPublicKeyInfo, so that other tools give it, too:
//! `openssl pkey -pubin -outform der -in KEY.pem | sha256sum`.

use std::fmt;
use std::str::FromStr;

use modelseal_core::sign::{Publisher, PublisherKey};
use sha2::{Digest, Sha256};
use spki::der::Document;

use crate::error::{Code, Error, Result};
use crate::pem;

/// The fingerprint of one public key. Nothing of it is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A publisher's key's.
    pub fn of_publisher_key(key: &PublisherKey) -> Option<Self> {
        Self::of_pem(&pem::publisher(key)?)
    }

    /// Those of all of a publisher's keys, in their order.
    pub fn of_publisher(publisher: &Publisher) -> Vec<Self> {
        publisher.keys().iter().filter_map(Self::of_publisher_key).collect()
    }

    /// A device's public key's.
    pub fn of_x25519(public: &[u8; 32]) -> Option<Self> {
        Self::of_pem(&pem::x25519(public)?)
    }

    fn of_pem(text: &str) -> Option<Self> {
        let (_, der) = Document::from_pem(text).ok()?;
        Some(Self(Sha256::digest(der.as_bytes()).into()))
    }

    /// As tools give it: 64 hex digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// To be read aloud: groups of four hex digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, [a, b]) in self.0.as_chunks().0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{a:02x}{b:02x}")?;
        }
        Ok(())
    }
}

/// All 64 hex digits, in either case, with or without spaces and colons. A part isn't enough: who can try many keys finds
/// one whose fingerprint begins likewise.
impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let digits: String = text.chars().filter(|char| !matches!(char, ' ' | ':')).collect();
        let mut bytes = [0; 32];
        match hex::decode_to_slice(&digits, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => {
                Err("a fingerprint is 64 hex digits; spaces and colons between them don't count".into())
            }
        }
    }
}

/// Refuses keys other than those with the fingerprints that somebody gave: exactly these, each once, in any order. If
/// none were given, all keys pass.
pub fn require(given: &[Fingerprint], keys: &[Fingerprint]) -> Result<()> {
    let other = |a: &[Fingerprint], b: &[Fingerprint]| a.iter().find(|one| !b.contains(one)).copied();
    let what = match (other(keys, given), other(given, keys)) {
        _ if given.is_empty() => return Ok(()),
        (None, None) => return Ok(()),
        (Some(key), _) => format!("there is a key with another fingerprint: {key}"),
        (None, Some(missing)) => format!("there is no key with the fingerprint {missing}"),
    };
    let hint = "ask who made the key for its fingerprint, by another way than the file came; don't use the file until they agree";
    Err(Error::new(Code::NotAuthentic, what, hint).with_name("OtherFingerprint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl pkey -pubin -outform der | sha256sum` of RFC 8032's first public key, RFC 7748's first, and P-256's
    /// generator.
    #[test]
    fn as_other_tools_give_it() {
        let bytes = |text: &str| hex::decode(text).unwrap().try_into().unwrap();
        let ed25519 = bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let x25519 = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let p256 = PublisherKey::EcdsaP256 {
            x: bytes("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            y: bytes("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        };
        for (found, wanted) in [
            (
                Fingerprint::of_publisher_key(&PublisherKey::Ed25519(ed25519)),
                "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9",
            ),
            (
                Fingerprint::of_publisher_key(&p256),
                "5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3",
            ),
            (
                Fingerprint::of_x25519(&x25519),
                "291c5293e030452a599851a7c7298f3f16c3ff1bdfafcb598927f2631f9fa641",
            ),
        ] {
            assert_eq!(found.unwrap().hex(), wanted);
        }
    }

    #[test]
    fn how_it_is_written_and_read() {
        let whole = Fingerprint(std::array::from_fn(|n| u8::try_from(n).unwrap() + 0xe0));
        let text = whole.to_string();
        assert!(text.starts_with("e0e1 e2e3 ") && text.len() == 16 * 5 - 1, "{text}");
        for text in [text.clone(), whole.hex(), text.to_uppercase(), text.replace(' ', ":")] {
            assert_eq!(text.parse(), Ok(whole));
        }
        let hex = whole.hex();
        for wrong in ["", "e0e1", &hex[..62], &hex[..63], &format!("{hex}00"), &hex.replace('e', "g")] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn exactly_the_given_ones() {
        let [a, b, c] = [1, 2, 3].map(|n| Fingerprint([n; 32]));
        for (given, keys, passes) in [
            (&[][..], &[a, b][..], true),
            (&[a], &[a], true),
            (&[b, a], &[a, b], true),
            (&[a], &[a, b], false),
            (&[a, b], &[a], false),
            (&[a, c], &[a, b], false),
            (&[c], &[], false),
        ] {
            let refusal = require(given, keys).err();
            assert_eq!(refusal.is_none(), passes, "{given:?} {keys:?}");
            assert!(refusal.is_none_or(|error| error.name() == Some("OtherFingerprint")));
        }
    }
}
