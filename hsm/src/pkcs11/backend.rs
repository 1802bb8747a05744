//! Use of the keys.

use std::sync::{Mutex, PoisonError};

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use modelseal_core::sealed::Slot;
use modelseal_core::sign::{Publisher, PublisherKey, Signature};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::failure::{Failure, failed};
use super::session::{Look, Pool};
use super::{check, create, offers, point, retire};
use crate::error::Error;
use crate::observed::observe_key;
use crate::self_test::SELF_TEST;
use crate::vault::{Algorithm, Backend, Finding, Key, Role};

pub(super) const ENCRYPT: &str = "encrypting with AES-256-GCM";
pub(super) const DECRYPT: &str = "decrypting with AES-256-GCM";
pub(super) const CMAC: &str = "making an AES-256-CMAC";
pub(super) const SIGN: &str = "signing";
pub(super) const ED25519: &str = "signing with Ed25519";
pub(super) const ECDSA: &str = "signing with ECDSA P-256";

const TAG_BITS: u64 = 128;

/// The vault in a token.
pub(crate) struct Token {
    pool: Pool,
    /// In which connection, for which private key.
    proven: Mutex<Vec<(u64, ObjectHandle, PublisherKey)>>,
}

/// A publisher key's public half.
pub(super) struct Public {
    pub(super) key: PublisherKey,
    /// How many others have its label.
    pub(super) others: usize,
}

impl Token {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, proven: Mutex::new(Vec::new()) }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Public key objects can be made and replaced without the PIN. A vault that believed a planted one would unwrap the
    /// planter's models, and one that stopped at it could be stopped by anybody: so the private key has to sign for one.
    pub(super) fn public(&self, version: u32) -> Result<Public, Error> {
        let (connection, handle, candidates) = self.pool.run(|session, keys| {
            let entry = keys.get(Role::Publisher, version)?;
            Ok((keys.connection, entry.handle, point::candidates(session, entry)?))
        })?;
        let proven = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let is_proven = |key: &PublisherKey| proven().contains(&(connection, handle, *key));
        let key = match candidates.iter().flatten().find(|key| is_proven(key)) {
            Some(key) => *key,
            None => self.prove(version, &candidates)?,
        };
        if !is_proven(&key) {
            proven().push((connection, handle, key));
        }
        Ok(Public { key, others: candidates.iter().filter(|other| **other != Some(key)).count() })
    }

    /// What is signed is new each time, so that nobody can have made a public key for its signature.
    fn prove(&self, version: u32, candidates: &[Option<PublisherKey>]) -> Result<PublisherKey, Error> {
        let none = || point::none(version, candidates);
        if candidates.iter().all(Option::is_none) {
            return Err(none());
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| Error::Random)?;
        let message = [SELF_TEST, &random].concat();
        let signature = observe_key("sign", Role::Publisher, version, || self.sign(version, &message))?;
        let has_signed = |key: &&PublisherKey| {
            let publisher = Publisher::new(&[**key]);
            publisher.is_ok_and(|publisher| publisher.has_signed(&message, &key.canonical(signature)))
        };
        candidates.iter().flatten().find(has_signed).copied().ok_or_else(none)
    }

    /// A CMAC, after another look at the token.
    pub(super) fn cmac_after(
        &self,
        look: Look,
        fleet: u32,
        message: &[u8],
    ) -> Result<Zeroizing<[u8; 16]>, Error> {
        self.pool.run_after(look, |session, keys| {
            let key = keys.get(Role::Fleet, fleet)?;
            let made = session.sign(&Mechanism::AesCMac, key.handle, message).map_err(failed(CMAC))?;
            let made = Zeroizing::new(made);
            let mut cmac = Zeroizing::new([0; 16]);
            if made.len() != cmac.len() {
                return Err(odd(CMAC, &made).into());
            }
            cmac.copy_from_slice(&made);
            Ok(cmac)
        })
    }
}

impl Backend for Token {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        let names = self.pool.run(|_, keys| Ok(keys.entries.iter().map(|entry| entry.key).collect()));
        let mut names: Vec<Key> = names?;
        names.sort_by_key(|key| (key.role, key.version));
        // Duplicates are one key here, which is refused in use.
        names.dedup_by_key(|key| (key.role, key.version));
        Ok(names)
    }

    fn encrypt(&self, master: u32, aad: &[u8], content: &[u8; 32]) -> Result<Slot, Error> {
        self.pool.run(|session, keys| {
            let key = keys.get(Role::Master, master)?;
            let mut nonce = [0; 12];
            getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
            let sealed = gcm(&mut nonce, aad, |gcm| session.encrypt(gcm, key.handle, content));
            let sealed = sealed.map_err(failed(ENCRYPT))?;
            let (ciphertext, tag) = sealed.split_first_chunk().ok_or_else(|| odd(ENCRYPT, &sealed))?;
            let tag = tag.try_into().map_err(|_| odd(ENCRYPT, &sealed))?;
            // Read back: a token may have put a nonce of its own there.
            Ok(Slot { version: master, nonce, ciphertext: *ciphertext, tag })
        })
    }

    fn decrypt(&self, slot: &Slot, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
        let sealed = [&slot.ciphertext[..], &slot.tag].concat();
        self.pool.run(|session, keys| {
            let key = keys.get(Role::Master, slot.version)?;
            let mut nonce = slot.nonce;
            let opened = gcm(&mut nonce, aad, |gcm| session.decrypt(gcm, key.handle, &sealed));
            let opened = opened.map_err(|error| not_opened(error, || usable(session, key.handle)));
            let opened = Zeroizing::new(opened?);
            let mut content = Zeroizing::new([0; 32]);
            if opened.len() != content.len() {
                return Err(Error::Slot.into());
            }
            content.copy_from_slice(&opened);
            Ok(content)
        })
    }

    fn cmac(&self, fleet: u32, message: &[u8]) -> Result<Zeroizing<[u8; 16]>, Error> {
        self.cmac_after(Look::Anew, fleet, message)
    }

    fn sign(&self, publisher: u32, message: &[u8]) -> Result<Signature, Error> {
        self.pool.run(|session, keys| {
            let key = keys.get(Role::Publisher, publisher)?;
            sign(session, key.handle, key.key.algorithm, message)
        })
    }

    fn publisher_key(&self, publisher: u32) -> Result<PublisherKey, Error> {
        Ok(self.public(publisher)?.key)
    }

    fn unavailable(&self, role: Role) -> Option<&'static str> {
        offers::missing(&self.pool, role)
    }

    fn check(&self) -> Result<Vec<Finding>, Error> {
        check::check(self)
    }

    fn retired(&self) -> Result<Vec<(Role, u32)>, Error> {
        self.pool.run(|_, keys| Ok(keys.retired.clone()))
    }

    fn generate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        create::next_key(&self.pool, role, algorithm)
    }

    fn mark(&self, role: Role, version: u32, retired: bool) -> Result<(), Error> {
        retire::mark(&self.pool, role, version, retired)
    }

    fn destroy(&self, role: Role, version: u32) -> Result<(), Error> {
        retire::destroy(&self.pool, role, version)
    }
}

/// Runs `operation` with the one set of parameters that is ever used: tokens take any.
fn gcm<T>(
    nonce: &mut [u8; 12],
    aad: &[u8],
    operation: impl FnOnce(&Mechanism<'_>) -> Result<T, Pkcs11Error>,
) -> Result<T, Pkcs11Error> {
    operation(&Mechanism::AesGcm(GcmParams::new(nonce, aad, TAG_BITS.into())?))
}

fn sign(
    session: &Session,
    key: ObjectHandle,
    algorithm: Algorithm,
    message: &[u8],
) -> Result<Signature, Failure> {
    let (operation, made) = if algorithm == Algorithm::Ed25519 {
        // Without parameters: SoftHSM ignores them and signs plainly whatever they ask for.
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
        (ED25519, session.sign(&mechanism, key, message))
    } else {
        // CKM_ECDSA signs bytes of any length: here it is always a SHA-256.
        (ECDSA, session.sign(&Mechanism::Ecdsa, key, &Sha256::digest(message)))
    };
    let made = made.map_err(failed(operation))?;
    let bytes = made.as_slice().try_into().map_err(|_| odd(operation, &made))?;
    Ok(Signature::from_bytes(bytes))
}

/// Tokens agree that a slot of another key is refused by C_Decrypt, but not on the code: some give those of a broken
/// device, which this isn't if the key goes on working.
fn not_opened(error: Pkcs11Error, is_usable: impl FnOnce() -> Result<(), Failure>) -> Failure {
    match error {
        Pkcs11Error::Pkcs11(
            RvError::GeneralError | RvError::DeviceError | RvError::FunctionFailed,
            Function::Decrypt,
        ) => is_usable().err().unwrap_or_else(|| Error::Slot.into()),
        Pkcs11Error::Pkcs11(
            RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::DataInvalid
            | RvError::SignatureInvalid,
            Function::Decrypt,
        ) => Error::Slot.into(),
        error => failed(DECRYPT)(error),
    }
}

fn usable(session: &Session, key: ObjectHandle) -> Result<(), Failure> {
    let mut nonce = [0; 12];
    getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
    let sealed = gcm(&mut nonce, SELF_TEST, |gcm| session.encrypt(gcm, key, &[0; 32]));
    let sealed = sealed.map_err(failed(DECRYPT))?;
    let opened = gcm(&mut nonce, SELF_TEST, |gcm| session.decrypt(gcm, key, &sealed));
    opened.map(drop).map_err(failed(DECRYPT))
}

fn odd(operation: &'static str, made: &[u8]) -> Error {
    Error::Failed(operation, format!("the result has {} bytes", made.len()))
}
