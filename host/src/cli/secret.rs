//! The passphrase or PIN: where there is none to be found, it is asked for.

use modelseal_hsm::{Error, Location, Passphrase};
use zeroize::Zeroizing;

use crate::vaults::{BACKUP, Source};

type Result<T> = std::result::Result<T, Error>;

/// A vault's own.
pub(super) fn obtain(location: &Location, new: bool) -> Result<Passphrase> {
    let new = new && matches!(location, Location::File(_));
    look_up(Source::of(location), &location.to_string(), new)
}

/// That of a backup.
pub(super) fn obtain_for_backup(new: bool) -> Result<Passphrase> {
    look_up(&BACKUP, "the backup", new)
}

/// A new one is asked for twice.
fn look_up(source: &Source, of: &str, new: bool) -> Result<Passphrase> {
    if let Some(found) = source.find()? {
        return Ok(found);
    }
    let first = prompt(&format!("{} of {of}: ", source.name))?;
    if new && *prompt("the same again: ")? != *first {
        return Err(Error::PassphrasesDiffer);
    }
    Ok(Passphrase::new(first))
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    #[cfg(unix)]
    let entered = super::prompt::ask(text);
    #[cfg(not(unix))]
    let entered = rpassword::prompt_password(text).map(Zeroizing::new);
    entered.map_err(|_| Error::NoPassphrase)
}
