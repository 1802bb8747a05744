//! Changes of a vault file: under a lock, of what is in the file at that time, and written anew as a whole.

use std::sync::Arc;

use super::file::{self, Text};
use super::seen::Seen;
use super::{Software, generate};
use crate::error::Error;
use crate::vault::{Algorithm, Role};
use crate::vault_file::{Stock, StoredKey};

impl Software {
    /// Adds the next version of a role's key, of the newest one's algorithm unless told otherwise.
    pub(super) fn add_key(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        self.change(|stock| {
            let newest = stock.keys.iter().filter_map(StoredKey::name).filter(|name| name.role == role);
            let newest = newest.max_by_key(|name| name.version).ok_or(Error::NoKey(role))?;
            let version = newest.version.checked_add(1).ok_or(Error::LastVersion(role, newest.version))?;
            let new = generate(role, version, algorithm.unwrap_or(newest.algorithm))?;
            // Copied, not pushed: see `StoredKey::copy`.
            let mut keys = Vec::with_capacity(stock.keys.len() + 1);
            keys.extend(stock.keys.iter().map(StoredKey::copy));
            keys.push(new);
            stock.keys = keys;
            Ok(version)
        })
    }

    /// Retires a key, or takes that back.
    pub(super) fn mark_key(&self, role: Role, version: u32, retired: bool) -> Result<(), Error> {
        self.change(|stock| {
            stock.require(role, version)?;
            if retired && stock.versions(role).max() == Some(version) {
                return Err(Error::Newest(role, version));
            }
            stock.retired.retain(|key| *key != (role, version));
            if retired {
                stock.retired.push((role, version));
                stock.retired.sort_unstable();
            }
            Ok(())
        })
    }

    /// Leaves a retired key out of the file.
    pub(super) fn remove_key(&self, role: Role, version: u32) -> Result<(), Error> {
        self.change(|stock| {
            stock.require(role, version)?;
            // It may have been reinstated meanwhile.
            if !stock.retired.contains(&(role, version)) {
                return Err(Error::NotRetired(role, version));
            }
            let gone = |stored: &&StoredKey| {
                stored.name().is_some_and(|name| (name.role, name.version) == (role, version))
            };
            let mut keys = Vec::with_capacity(stock.keys.len());
            keys.extend(stock.keys.iter().filter(|stored| !gone(stored)).map(StoredKey::copy));
            stock.keys = keys;
            stock.retired.retain(|key| *key != (role, version));
            Ok(())
        })
    }

    /// An interrupted change leaves the old file. Others' changes since this vault was opened are kept.
    fn change<T>(&self, edit: impl FnOnce(&mut Stock) -> Result<T, Error>) -> Result<T, Error> {
        // Where the file is, so that a link to it stays one.
        let path = self.path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Gone(self.path.clone()),
            _ => Error::Io(self.path.clone(), error),
        })?;
        let _lock = file::lock(&path)?;
        file::remove_leftover(&path)?;
        let found = file::read(&path).map_err(|error| self.since_opening(error))?;
        let mut stock = self.lock.decrypt_again(&found, &path)?;
        let done = edit(&mut stock)?;
        let text = Text::ours(self.lock.encrypt(&stock)?);
        file::replace(&path, &text.bytes)?;
        *self.seen() = Arc::new(Seen { text, stock });
        Ok(done)
    }
}

impl Stock {
    fn require(&self, role: Role, version: u32) -> Result<(), Error> {
        let there = self.versions(role).any(|found| found == version);
        if there { Ok(()) } else { Err(Error::NoVersion(role, version)) }
    }
}
