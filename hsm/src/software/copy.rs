//! Backups: a vault file once more, under a passphrase of its own.

use std::path::Path;

use super::{FileKey, Software, file};
use crate::error::Error;
use crate::location::Passphrase;
use crate::vault::Role;
use crate::vault_file::VaultFile;

/// The bytes of a backup of the vault in `path`.
pub(crate) fn backup(path: &Path, passphrase: &Passphrase, own: &Passphrase) -> Result<Vec<u8>, Error> {
    let vault = super::open(path, passphrase)?;
    let key = FileKey::fresh(own).map_err(Error::of_backup)?;
    key.encrypt(&vault.seen().stock)
}

/// Makes a vault in `path`, which must not exist, of a backup that opens and has what a vault needs.
pub(crate) fn restore(
    path: &Path,
    backup: &Path,
    own: &Passphrase,
    passphrase: &Passphrase,
) -> Result<Software, Error> {
    let corrupt = || Error::Corrupt(backup.to_owned());
    let found = VaultFile::parse(&file::read(backup)?.bytes).ok_or_else(corrupt)?;
    let key = FileKey::derive(found.kdf.clone(), own)?;
    let stock = key.decrypt(found, backup).map_err(Error::of_backup)?;
    for role in Role::ALL {
        stock.versions(role).next().ok_or_else(corrupt)?;
    }
    Software::write_new(path, FileKey::fresh(passphrase)?, stock)
}
