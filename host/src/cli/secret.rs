//! Where a passphrase or PIN comes from: never from the command line, which every process can read.

use std::path::{Path, PathBuf};

use modelseal_hsm::{Error, Location, Passphrase};
use zeroize::Zeroizing;

type Result<T> = std::result::Result<T, Error>;

/// What a kind of vault asks for, and where it is looked for, in this order.
struct Source {
    name: &'static str,
    file: &'static str,
    variable: &'static str,
    credential: &'static str,
}

const PASSPHRASE: Source = Source {
    name: "passphrase",
    file: "MODELSEAL_PASSPHRASE_FILE",
    variable: "MODELSEAL_PASSPHRASE",
    credential: "modelseal.passphrase",
};
const PIN: Source = Source {
    name: "PIN",
    file: "MODELSEAL_PIN_FILE",
    variable: "MODELSEAL_PIN",
    credential: "modelseal.pin",
};

const BACKUP: Source = Source {
    name: "passphrase",
    file: "MODELSEAL_BACKUP_PASSPHRASE_FILE",
    variable: "MODELSEAL_BACKUP_PASSPHRASE",
    credential: "modelseal.backup-passphrase",
};

/// A vault's own. `warn` is called if others can read the file.
pub(super) fn obtain(location: &Location, new: bool, warn: &dyn Fn(&str)) -> Result<Passphrase> {
    match location {
        Location::File(_) => look_up(&PASSPHRASE, &location.to_string(), new, warn),
        Location::Pkcs11(_) => look_up(&PIN, &location.to_string(), false, warn),
    }
}

/// That of a backup, which is another than the vault's own.
pub(super) fn obtain_for_backup(new: bool, warn: &dyn Fn(&str)) -> Result<Passphrase> {
    look_up(&BACKUP, "the backup", new, warn)
}

/// From a file, the environment, a systemd credential or a prompt. A new one is asked for twice.
fn look_up(source: &Source, of: &str, new: bool, warn: &dyn Fn(&str)) -> Result<Passphrase> {
    if let Some(path) = set(source.file) {
        warn_of_mode(&path, warn);
        return Passphrase::from_file(&path);
    }
    match std::env::var(source.variable).map(Zeroizing::new) {
        Ok(text) => return Ok(Passphrase::new(text)),
        Err(std::env::VarError::NotUnicode(_)) => return Err(Error::NotUtf8(source.variable)),
        Err(std::env::VarError::NotPresent) => {}
    }
    if let Some(path) = credential(source) {
        return Passphrase::from_file(&path);
    }
    let first = prompt(&format!("{} of {of}: ", source.name))?;
    if new && *prompt("the same again: ")? != *first {
        return Err(Error::PassphrasesDiffer);
    }
    Ok(Passphrase::new(first))
}

/// The files that may hold one now: no output may replace them.
pub(super) fn files() -> Vec<PathBuf> {
    let sources = [PASSPHRASE, PIN, BACKUP];
    sources.iter().flat_map(|source| [set(source.file), credential(source)]).flatten().collect()
}

/// Others can use a vault whose PIN they can read. It is said, and no more: the vault isn't safer if it is refused.
pub(super) fn warn_of_mode(path: &Path, warn: &dyn Fn(&str)) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = path.metadata().map(|metadata| metadata.permissions().mode() & 0o077);
        if mode.is_ok_and(|mode| mode != 0) {
            let path = path.display();
            warn(&format!(
                "warning: others can read {path}; it should be its owner's alone: chmod 600 {path}"
            ));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, warn);
}

/// What systemd's `LoadCredential=` put there for this service alone.
fn credential(source: &Source) -> Option<PathBuf> {
    set("CREDENTIALS_DIRECTORY").map(|dir| dir.join(source.credential)).filter(|path| path.exists())
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    #[cfg(unix)]
    let entered = super::prompt::ask(text);
    #[cfg(not(unix))]
    let entered = rpassword::prompt_password(text).map(Zeroizing::new);
    entered.map_err(|_| Error::NoPassphrase)
}
