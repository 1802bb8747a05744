//! What the file holds now: it is read at each use of a key.
//!
//! Another process may have retired or destroyed keys since, and what is sealed with one that is gone can never be
//! opened. The file's bytes are compared, not its inode or times: an inode's number is used again, and a clock that is
//! set back or coarse repeats its times. Bytes miss nothing, and for a file of a kilobyte that costs a few microseconds.
//! Only other bytes are decrypted again, with the key that the passphrase gave when the vault was opened.

use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::file::{self, Text};
use super::{FileKey, Software};
use crate::error::Error;
use crate::vault::{Algorithm, Role};
use crate::vault_file::{Stock, StoredKey, VaultFile};

/// A file, and the keys in it.
pub(super) struct Seen {
    pub(super) text: Text,
    pub(super) stock: Stock,
}

impl Seen {
    /// Does `work` with a key, which stays where it is.
    pub(super) fn with<T>(
        &self,
        role: Role,
        version: u32,
        work: impl FnOnce(&StoredKey, Algorithm) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let wanted = |stored: &StoredKey| stored.name().filter(|n| n.role == role && n.version == version);
        let found = self.stock.keys.iter().find_map(|stored| Some((stored, wanted(stored)?.algorithm)));
        let (stored, algorithm) = found.ok_or(Error::NoVersion(role, version))?;
        work(stored, algorithm)
    }
}

impl Software {
    /// The file as it is now. A reading that ends later began later, too, so keys that are gone don't come back.
    pub(super) fn now(&self) -> Result<Arc<Seen>, Error> {
        let mut seen = self.seen();
        let text = file::read(&self.path).map_err(|error| self.since_opening(error))?;
        if seen.text != text {
            let stock = self.lock.decrypt_again(&text, &self.path)?;
            *seen = Arc::new(Seen { text, stock });
        }
        Ok(seen.clone())
    }

    /// What was read last.
    pub(super) fn seen(&self) -> MutexGuard<'_, Arc<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There was a vault there when it was opened.
    pub(super) fn since_opening(&self, error: Error) -> Error {
        match error {
            Error::Missing(_) => Error::Gone(self.path.clone()),
            other => other,
        }
    }
}

impl FileKey {
    /// What a file holds that was opened before.
    pub(super) fn decrypt_again(&self, text: &Text, path: &Path) -> Result<Stock, Error> {
        let corrupt = || Error::Corrupt(path.to_owned());
        let file = VaultFile::parse(&text.bytes).ok_or_else(corrupt)?;
        if file.kdf != self.kdf {
            return Err(Error::Replaced(path.to_owned()));
        }
        // The salt is that of the passphrase, so it isn't the passphrase that is wrong.
        self.decrypt(file, path).map_err(|error| match error {
            Error::WrongPassphrase(_) => corrupt(),
            other => other,
        })
    }
}
