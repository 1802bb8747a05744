//! The embedded default: keys in one file, encrypted under a passphrase. `vault_file` says what is in it.
//!
//! Salt and nonce are fresh at each writing. The file is written beside and renamed, mode 0600.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use aes::Aes256;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use argon2::Argon2;
use cmac::{Cmac, Mac};
use modelseal_core::sealed::Slot;
use modelseal_core::sign::{PublisherKey, Signature};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::location::Passphrase;
use crate::vault::{Algorithm, Backend, Finding, Key, Part, Role};
use crate::vault_file::{FILE_MAX, FORMAT, Kdf, StoredKey, VaultFile, decode_keys, encode_keys};

/// A vault whose keys are in this process's memory while it is open.
pub(crate) struct Software {
    path: PathBuf,
    keys: Vec<StoredKey>,
}

/// Opens the vault in `path`.
pub(crate) fn open(path: &Path, passphrase: &Passphrase) -> Result<Software, Error> {
    let corrupt = || Error::Corrupt(path.to_owned());
    let file = VaultFile::parse(&read(path)?).ok_or_else(corrupt)?;
    let cipher = cipher(&file.kdf, passphrase)?;
    let mut keys = Zeroizing::new(file.keys);
    let (body, tag) = keys.split_last_chunk_mut().ok_or_else(corrupt)?;
    let opened = cipher.decrypt_inout_detached(
        &file.nonce.into(),
        FORMAT.as_bytes(),
        body.as_mut().into(),
        &(*tag).into(),
    );
    opened.map_err(|_| Error::WrongPassphrase(path.to_owned()))?;
    Ok(Software { path: path.to_owned(), keys: decode_keys(body).ok_or_else(corrupt)? })
}

/// Makes a vault in `path`, which must not exist.
pub(crate) fn create(path: &Path, publisher: Algorithm, passphrase: &Passphrase) -> Result<Software, Error> {
    if passphrase.expose().is_empty() {
        return Err(Error::NoPassphrase);
    }
    let keys =
        [(Role::Master, Algorithm::Aes256), (Role::Fleet, Algorithm::Aes256), (Role::Publisher, publisher)];
    let keys = keys.into_iter().map(|(role, algorithm)| generate(role, 1, algorithm));
    let vault = Software { path: path.to_owned(), keys: keys.collect::<Result<_, _>>()? };
    vault.write_new(path, passphrase)?;
    Ok(vault)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Missing(path.display().to_string()),
        _ => Error::Io(path.to_owned(), error),
    };
    let mut text = Vec::new();
    // What is longer is refused by its length, whatever the length was said to be.
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut text).map_err(io)?;
    Ok(text)
}

fn cipher(kdf: &Kdf, passphrase: &Passphrase) -> Result<Aes256Gcm, Error> {
    let params = kdf.params().map_err(|_| Error::Memory)?;
    // Of its own, to be wiped: the key follows from it.
    let mut memory = Zeroizing::new(Vec::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| Error::Memory)?;
    memory.resize(params.block_count(), argon2::Block::default());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into_with_memory(
            passphrase.expose().as_bytes(),
            &kdf.salt,
            key.as_mut(),
            memory.as_mut_slice(),
        )
        .map_err(|_| Error::Memory)?;
    Ok(Aes256Gcm::new((&*key).into()))
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
    fn key(&self, role: Role, version: u32) -> Result<(&StoredKey, Algorithm), Error> {
        let wanted = |stored: &StoredKey| stored.name().filter(|n| n.role == role && n.version == version);
        let found = self.keys.iter().find_map(|stored| Some((stored, wanted(stored)?.algorithm)));
        found.ok_or(Error::NoVersion(role, version))
    }

    fn aes(&self, version: u32) -> Result<Aes256Gcm, Error> {
        Ok(Aes256Gcm::new((&self.key(Role::Master, version)?.0.key).into()))
    }

    /// Written beside and linked into place, so that it appears complete or not at all.
    fn write_new(&self, path: &Path, passphrase: &Passphrase) -> Result<(), Error> {
        let io = |error: std::io::Error| Error::Io(path.to_owned(), error);
        let text = self.encrypt_file(passphrase)?.encode().map_err(|error| io(error.into()))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Created with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
        file.write_all(&text).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist_noclobber(path).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists(path.display().to_string()),
            _ => io(error.error),
        })?;
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
    }

    fn encrypt_file(&self, passphrase: &Passphrase) -> Result<VaultFile, Error> {
        let (kdf, nonce) = (Kdf::new(random()?), random()?);
        let mut keys = encode_keys(&self.keys).ok_or(Error::Random)?;
        let cipher = cipher(&kdf, passphrase)?;
        let tag = cipher.encrypt_inout_detached(&nonce.into(), FORMAT.as_bytes(), keys.as_mut_slice().into());
        let tag = tag.map_err(|_| Error::Random)?;
        let keys = keys.iter().copied().chain(tag).collect();
        Ok(VaultFile::new(kdf, nonce, keys))
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

impl Backend for Software {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        Ok(self.keys.iter().filter_map(StoredKey::name).collect())
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
        let mut mac = <Cmac<Aes256> as KeyInit>::new((&self.key(Role::Fleet, fleet)?.0.key).into());
        mac.update(message);
        Ok(Zeroizing::new(mac.finalize().into_bytes().into()))
    }

    fn sign(&self, publisher: u32, message: &[u8]) -> Result<Signature, Error> {
        let (stored, algorithm) = self.key(Role::Publisher, publisher)?;
        if algorithm == Algorithm::Ed25519 {
            use ed25519_dalek::Signer;
            let signature = ed25519_dalek::SigningKey::from_bytes(&stored.key).sign(message);
            return Ok(Signature::from_bytes(&signature.to_bytes()));
        }
        use p256::ecdsa::signature::Signer;
        let signature: p256::ecdsa::Signature = p256_key(stored)?.sign(message);
        Ok(Signature::from_bytes(&signature.to_bytes().into()))
    }

    fn publisher_key(&self, publisher: u32) -> Result<PublisherKey, Error> {
        let (stored, algorithm) = self.key(Role::Publisher, publisher)?;
        if algorithm == Algorithm::Ed25519 {
            let key = ed25519_dalek::SigningKey::from_bytes(&stored.key).verifying_key();
            return Ok(PublisherKey::Ed25519(key.to_bytes()));
        }
        let point = p256_key(stored)?.verifying_key().to_sec1_point(false);
        let (Some(x), Some(y)) = (point.x(), point.y()) else {
            return Err(modelseal_core::Error::Key.into());
        };
        Ok(PublisherKey::EcdsaP256 { x: (*x).into(), y: (*y).into() })
    }

    fn unavailable(&self, _role: Role) -> Option<&'static str> {
        None
    }

    #[cfg(unix)]
    fn check(&self) -> Result<Vec<Finding>, Error> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(&self.path).map_err(|error| Error::Io(self.path.clone(), error))?;
        let mode = metadata.permissions().mode() & 0o777;
        let (subject, found) = ("vault file", format!("{}, mode {mode:04o}", self.path.display()));
        Ok(vec![if mode & 0o077 == 0 {
            Finding::good(Part::Token, subject, found)
        } else {
            let advice = ": others can read or replace it; run chmod 600";
            Finding::bad(Part::Token, subject, found + advice)
        }])
    }

    #[cfg(not(unix))]
    fn check(&self) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }
}

fn p256_key(stored: &StoredKey) -> Result<p256::ecdsa::SigningKey, Error> {
    p256::ecdsa::SigningKey::from_slice(&stored.key).map_err(|_| modelseal_core::Error::Key.into())
}

#[cfg(test)]
mod wycheproof;
