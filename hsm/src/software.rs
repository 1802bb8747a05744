//! The embedded default: keys in one file, encrypted under a passphrase. `vault_file` says what is in it.
//!
//! The salt is fresh for each passphrase, the nonce at each writing. The file is written beside and renamed, mode 0600.
//! In reading order: this file, use of the keys; `seen`, what the file holds now; `life`, changes of the file; `copy`,
//! backups.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aes::Aes256;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use cmac::{Cmac, Mac};
use modelseal_core::sealed::Slot;
use modelseal_core::sign::{PublisherKey, Signature};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::exposed::Exposed;
use crate::location::Passphrase;
use crate::observed::observe_key;
use crate::slow_hash::argon2id;
use crate::vault::{Algorithm, Backend, Finding, Key, Part, Role};
use crate::vault_file::{Kdf, Stock, StoredKey, VaultFile};

mod copy;
mod file;
mod life;
mod seen;

pub(crate) use copy::{backup, restore};

use file::Text;
use seen::Seen;

/// A vault whose keys are in this process's memory while it is open. The file decides at each use which they are: another
/// process may have retired or destroyed some.
pub(crate) struct Software {
    /// Absolute: the process may go to another folder.
    path: PathBuf,
    lock: FileKey,
    seen: Mutex<Arc<Seen>>,
}

/// What a vault file is encrypted with, kept so that it can be written again.
pub(crate) struct FileKey {
    kdf: Kdf,
    /// Boxed: a vault is moved out of the stack that is wiped.
    key: Box<Zeroizing<[u8; 32]>>,
}

/// Opens the vault in `path`.
pub(crate) fn open(path: &Path, passphrase: &Passphrase) -> Result<Software, Error> {
    let text = file::read(path)?;
    let file = VaultFile::parse(&text.bytes).ok_or_else(|| Error::Corrupt(path.to_owned()))?;
    let lock = FileKey::derive(file.kdf.clone(), passphrase)?;
    let stock = lock.decrypt(file, path)?;
    Software::new(path, lock, Seen { text, stock })
}

/// Makes a vault in `path`, which must not exist.
pub(crate) fn create(path: &Path, publisher: Algorithm, passphrase: &Passphrase) -> Result<Software, Error> {
    let keys =
        [(Role::Master, Algorithm::Aes256), (Role::Fleet, Algorithm::Aes256), (Role::Publisher, publisher)];
    let made = |(role, algorithm)| observe_key("generate", role, 1, || generate(role, 1, algorithm));
    let keys = keys.into_iter().map(made);
    let stock = Stock { keys: keys.collect::<Result<_, _>>()?, retired: Vec::new() };
    Software::write_new(path, FileKey::fresh(passphrase)?, stock)
}

impl FileKey {
    /// For a new file. An empty passphrase protects nothing.
    fn fresh(passphrase: &Passphrase) -> Result<Self, Error> {
        if passphrase.expose().is_empty() {
            return Err(Error::NoPassphrase);
        }
        Self::derive(Kdf::new(random()?), passphrase)
    }

    fn derive(kdf: Kdf, passphrase: &Passphrase) -> Result<Self, Error> {
        let params = kdf.params().map_err(|_| Error::Memory)?;
        let key = argon2id(params, passphrase, &kdf.salt)?;
        Ok(Self { kdf, key })
    }

    /// What the file `path` holds.
    fn decrypt(&self, file: VaultFile, path: &Path) -> Result<Stock, Error> {
        let corrupt = || Error::Corrupt(path.to_owned());
        let format = file.format().to_owned();
        let mut keys = Zeroizing::new(file.keys);
        let (body, tag) = keys.split_last_chunk_mut().ok_or_else(corrupt)?;
        let opened = self.cipher().decrypt_inout_detached(
            &file.nonce.into(),
            format.as_bytes(),
            body.as_mut().into(),
            &(*tag).into(),
        );
        opened.map_err(|_| Error::WrongPassphrase(path.to_owned()))?;
        Stock::decode(&format, body).ok_or_else(corrupt)
    }

    /// The bytes of a file.
    fn encrypt(&self, stock: &Stock) -> Result<Vec<u8>, Error> {
        let (format, nonce) = (stock.format(), random()?);
        let mut keys = stock.encode().ok_or(Error::Random)?;
        let tag = self.cipher().encrypt_inout_detached(
            &nonce.into(),
            format.as_bytes(),
            keys.as_mut_slice().into(),
        );
        let keys = keys.iter().copied().chain(tag.map_err(|_| Error::Random)?).collect();
        VaultFile::new(format, self.kdf.clone(), nonce, keys).encode().map_err(|_| Error::Random)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&**self.key).into())
    }
}

fn generate(role: Role, version: u32, algorithm: Algorithm) -> Result<StoredKey, Error> {
    let mut stored = StoredKey::new(Key { role, version, algorithm }, [0; 32]);
    loop {
        getrandom::fill(&mut stored.key).map_err(|_| Error::Random)?;
        if stored.is_usable() {
            return Ok(stored);
        }
    }
}

impl Software {
    fn new(path: &Path, lock: FileKey, seen: Seen) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| Error::Io(path.to_owned(), error))?;
        Ok(Self { path, lock, seen: Mutex::new(Arc::new(seen)) })
    }

    /// A vault in a file that must not exist.
    fn write_new(path: &Path, lock: FileKey, stock: Stock) -> Result<Self, Error> {
        let text = Text::ours(lock.encrypt(&stock)?);
        file::write_new(path, &text.bytes)?;
        Self::new(path, lock, Seen { text, stock })
    }

    /// Does `work` with a key of the file as it is now.
    fn with<T>(
        &self,
        role: Role,
        version: u32,
        work: impl FnOnce(&StoredKey, Algorithm) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.now()?.with(role, version, work)
    }

    fn aes(&self, version: u32) -> Result<Aes256Gcm, Error> {
        self.with(Role::Master, version, |stored, _| Ok(Aes256Gcm::new((&stored.key).into())))
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

impl Backend for Software {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        Ok(self.now()?.stock.keys.iter().filter_map(StoredKey::name).collect())
    }

    fn encrypt(&self, master: u32, aad: &[u8], content: &[u8; 32]) -> Result<Slot, Error> {
        let (nonce, mut ciphertext) = (random()?, *content);
        let sealed =
            self.aes(master)?.encrypt_inout_detached(&nonce.into(), aad, ciphertext.as_mut_slice().into());
        match sealed {
            Ok(tag) => Ok(Slot { version: master, nonce, ciphertext, tag: tag.into() }),
            Err(_) => {
                ciphertext.zeroize();
                Err(Error::Slot)
            }
        }
    }

    fn decrypt(&self, slot: &Slot, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
        let mut content = Zeroizing::new(slot.ciphertext);
        let (nonce, tag) = (&slot.nonce.into(), &slot.tag.into());
        let opened =
            self.aes(slot.version)?.decrypt_inout_detached(nonce, aad, content.as_mut_slice().into(), tag);
        opened.map(|()| content).map_err(|_| Error::Slot)
    }

    fn cmac(&self, fleet: u32, message: &[u8]) -> Result<Zeroizing<[u8; 16]>, Error> {
        self.with(Role::Fleet, fleet, |stored, _| Ok(cmac(stored, message)))
    }

    /// One use of the key, for which the file is read once.
    fn cmacs(&self, fleet: u32, messages: &[Vec<u8>]) -> Result<Vec<Zeroizing<[u8; 16]>>, Error> {
        self.with(Role::Fleet, fleet, |stored, _| {
            // Roomy enough from the start: a buffer that grew would leave keys in memory that was given back.
            let mut cmacs = Vec::with_capacity(messages.len());
            cmacs.extend(messages.iter().map(|message| cmac(stored, message)));
            Ok(cmacs)
        })
    }

    fn sign(&self, publisher: u32, message: &[u8]) -> Result<Signature, Error> {
        self.with(Role::Publisher, publisher, |stored, algorithm| {
            if algorithm == Algorithm::Ed25519 {
                use ed25519_dalek::Signer;
                let signature = ed25519_dalek::SigningKey::from_bytes(&stored.key).sign(message);
                return Ok(Signature::from_bytes(&signature.to_bytes()));
            }
            use p256::ecdsa::signature::Signer;
            let signature: p256::ecdsa::Signature = p256_key(stored)?.sign(message);
            Ok(Signature::from_bytes(&signature.to_bytes().into()))
        })
    }

    fn publisher_key(&self, publisher: u32) -> Result<PublisherKey, Error> {
        self.with(Role::Publisher, publisher, |stored, algorithm| {
            if algorithm == Algorithm::Ed25519 {
                let key = ed25519_dalek::SigningKey::from_bytes(&stored.key).verifying_key();
                return Ok(PublisherKey::Ed25519(key.to_bytes()));
            }
            let point = p256_key(stored)?.verifying_key().to_sec1_point(false);
            let (Some(x), Some(y)) = (point.x(), point.y()) else {
                return Err(modelseal_core::Error::Key.into());
            };
            Ok(PublisherKey::EcdsaP256 { x: (*x).into(), y: (*y).into() })
        })
    }

    fn retired(&self) -> Result<Vec<(Role, u32)>, Error> {
        Ok(self.now()?.stock.retired.clone())
    }

    fn generate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        self.add_key(role, algorithm)
    }

    fn mark(&self, role: Role, version: u32, retired: bool) -> Result<(), Error> {
        self.mark_key(role, version, retired)
    }

    fn destroy(&self, role: Role, version: u32) -> Result<(), Error> {
        self.remove_key(role, version)
    }

    fn unavailable(&self, _role: Role) -> Option<&'static str> {
        None
    }

    fn check(&self) -> Result<Vec<Finding>, Error> {
        let (subject, path, seen) = ("vault file", self.path.display(), self.now()?);
        let mode = seen.text.mode.map_or(String::new(), |mode| format!(", mode {mode:04o}"));
        let found = format!("{path}{mode}");
        Ok(vec![match self.exposed().first() {
            None => Finding::good(Part::Token, subject, found),
            Some(_) => {
                let advice = ": others can read or replace it; run chmod 600";
                Finding::bad(Part::Token, subject, found + advice)
            }
        }])
    }

    fn exposed(&self) -> Vec<Exposed> {
        let mode = self.seen().text.mode;
        Exposed::of(&self.path, mode).into_iter().collect()
    }
}

fn cmac(stored: &StoredKey, message: &[u8]) -> Zeroizing<[u8; 16]> {
    let mut mac = <Cmac<Aes256> as KeyInit>::new((&stored.key).into());
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn p256_key(stored: &StoredKey) -> Result<p256::ecdsa::SigningKey, Error> {
    p256::ecdsa::SigningKey::from_slice(&stored.key).map_err(|_| modelseal_core::Error::Key.into())
}

#[cfg(test)]
mod wycheproof;
