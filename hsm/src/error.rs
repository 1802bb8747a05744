//! What can go wrong with a vault: what failed, then what to do.

use std::path::PathBuf;

use crate::vault::Role;

/// A vault's failure. None of the texts holds a secret.
#[derive(Debug)]
pub enum Error {
    /// The location isn't one: why.
    Location(&'static str),
    /// There is no passphrase or PIN, and no terminal to ask at.
    NoPassphrase,
    /// The same for the passphrase of a backup.
    NoBackupPassphrase,
    /// The new passphrase was typed in two ways.
    PassphrasesDiffer,
    /// The passphrase doesn't open the vault file.
    WrongPassphrase(PathBuf),
    /// The passphrase doesn't open the backup.
    WrongBackupPassphrase(PathBuf),
    /// The token refused the PIN. What it says of the tries that are left.
    WrongPin(&'static str),
    /// The process is logged in to the token, and not by a vault, so nothing can tell whether the PIN is right.
    LoggedIn,
    /// The token refuses any PIN until its security officer unlocks it.
    PinLocked,
    /// There is a vault there already.
    Exists(String),
    /// There is no vault there.
    Missing(String),
    /// The vault file is damaged or of an unknown format.
    Corrupt(PathBuf),
    /// The PKCS#11 module can't be loaded or started: its path and why.
    Module(PathBuf, String),
    /// The URI names no PKCS#11 module, and none is at a known place, or several are: which.
    NoModule(Vec<PathBuf>),
    /// No token fits the URI, or several do: what was found.
    Token(String),
    /// The vault has no key of this role.
    NoKey(Role),
    /// The vault doesn't have this version of the key.
    NoVersion(Role, u32),
    /// No version of a role's key can follow this one.
    LastVersion(Role, u32),
    /// The newest version of a role's key can't be retired: new work needs it.
    Newest(Role, u32),
    /// The key is retired, and so isn't used for this.
    Retired(Role, u32),
    /// Only a retired key can be destroyed.
    NotRetired(Role, u32),
    /// The token says that it destroyed the key, and still has it.
    NotDestroyed(Role, u32),
    /// A token's keys can't be backed up or restored here: they never leave it.
    NoBackup,
    /// The vault file was replaced by one with another passphrase since it was opened.
    Replaced(PathBuf),
    /// The vault file was moved or removed since it was opened.
    Gone(PathBuf),
    /// Another process holds this lock.
    Busy(PathBuf),
    /// A key's attributes allow more, or protect less, than its role's: which key, and what.
    TooWide(String, String),
    /// The token lacks a mechanism: the operation that isn't available.
    Unavailable(&'static str),
    /// The token failed: the operation, and the token's own code.
    Failed(&'static str, String),
    /// The token doesn't answer: the operation, and after how many seconds it was given up.
    NoAnswer(&'static str, u64),
    /// The token has no session left for us.
    Sessions,
    /// The vault was opened before this process was forked from another.
    Forked,
    /// MODELSEAL_TOKEN_TIMEOUT isn't one.
    Timeout,
    /// A variable of the environment isn't UTF-8: its name.
    NotUtf8(&'static str),
    /// The token signed with another key than it shows, or wrongly.
    BadSignature,
    /// A key slot isn't one that the master key made.
    Slot,
    /// The format refused.
    Core(modelseal_core::Error),
    /// A file can't be read or written.
    Io(PathBuf, std::io::Error),
    /// There isn't enough memory to derive the vault file's key.
    Memory,
    /// The system has no randomness to give.
    Random,
}

impl Error {
    /// The same failure with the passphrase of a backup, which is another than the vault's own.
    pub(crate) fn of_backup(self) -> Self {
        match self {
            Self::NoPassphrase => Self::NoBackupPassphrase,
            Self::WrongPassphrase(path) => Self::WrongBackupPassphrase(path),
            other => other,
        }
    }

    /// The variant's name, or the format's own name for the failure.
    pub fn name(&self) -> String {
        match self {
            Self::Core(error) => error.name().into(),
            other => {
                format!("{other:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().into()
            }
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Location(why) => write!(f, "the vault's location is wrong: {why}"),
            Self::NoPassphrase => f.write_str("the vault needs a passphrase or PIN"),
            Self::NoBackupPassphrase => f.write_str("the backup needs a passphrase of its own"),
            Self::PassphrasesDiffer => f.write_str("the two passphrases differ"),
            Self::WrongPassphrase(path) => write!(f, "the passphrase doesn't open {}", path.display()),
            Self::WrongBackupPassphrase(path) => {
                write!(f, "the backup's passphrase doesn't open {}", path.display())
            }
            Self::WrongPin(tries) => write!(f, "the token refused the PIN; {tries}"),
            Self::LoggedIn => f.write_str(
                "this process logged in to the token itself, so the token doesn't look at the PIN",
            ),
            Self::PinLocked => f.write_str("the token's PIN is locked"),
            Self::Exists(what) => write!(f, "{what} already holds a vault"),
            Self::Missing(what) => write!(f, "there is no vault at {what}"),
            Self::Corrupt(path) => write!(f, "{} isn't a vault file, or is damaged", path.display()),
            Self::Module(path, why) => {
                write!(f, "the PKCS#11 module {} can't be used: {why}", path.display())
            }
            Self::NoModule(found) if found.is_empty() => f.write_str(
                "no PKCS#11 module was found; name one, as pkcs11:token=LABEL?module-path=LIBRARY",
            ),
            Self::NoModule(found) => {
                let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
                write!(
                    f,
                    "there are several PKCS#11 modules; add module-path= with one of {}",
                    found.join(", ")
                )
            }
            Self::Token(found) => write!(f, "no one token fits the vault's URI: {found}"),
            Self::NoKey(role) => write!(f, "the vault has no {} key", role.name()),
            Self::NoVersion(role, version) => {
                write!(f, "the vault has no {} key version {version}", role.name())
            }
            Self::LastVersion(role, version) => {
                write!(f, "{}/{version} is the last version that there can be", role.name())
            }
            Self::Newest(role, version) => {
                write!(f, "{}/{version} is the newest version, which new work needs", role.name())
            }
            Self::Retired(role, version) => write!(f, "the key {}/{version} is retired", role.name()),
            Self::NotRetired(role, version) => write!(f, "the key {}/{version} isn't retired", role.name()),
            Self::NotDestroyed(role, version) => {
                write!(f, "the token still has the key {}/{version}", role.name())
            }
            Self::NoBackup => {
                f.write_str("a token's keys never leave it, so there is nothing to back up here")
            }
            Self::Replaced(path) => {
                write!(f, "{} was replaced by another vault file meanwhile", path.display())
            }
            Self::Gone(path) => {
                write!(f, "the vault {} was moved or removed since it was opened", path.display())
            }
            Self::Busy(path) => write!(f, "{} is held by another process", path.display()),
            Self::TooWide(key, what) => {
                write!(f, "the key {key} isn't protected as its role demands: {what}")
            }
            Self::Unavailable(operation) => write!(f, "the token can't do this: {operation}"),
            Self::Failed(operation, code) => write!(f, "the token failed at {operation}: {code}"),
            Self::NoAnswer(operation, seconds) => {
                write!(f, "the token gave no answer within {seconds} s at {operation}")
            }
            Self::Sessions => f.write_str("the token has no session left: other programs use them all"),
            Self::Forked => {
                f.write_str("the vault was opened before this process was forked; open it again in here")
            }
            Self::Timeout => {
                f.write_str("MODELSEAL_TOKEN_TIMEOUT isn't a number of seconds between 1 and 3600")
            }
            Self::NotUtf8(variable) => write!(f, "{variable} isn't UTF-8"),
            Self::BadSignature => {
                f.write_str("the vault's signature doesn't verify under its own public key")
            }
            Self::Slot => f.write_str("a key slot doesn't open with the master key that it names"),
            Self::Core(error) => error.fmt(f),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Memory => f.write_str("there isn't enough memory to open the vault"),
            Self::Random => f.write_str("the system has no randomness to give"),
        }
    }
}

impl std::error::Error for Error {}

impl From<modelseal_core::Error> for Error {
    fn from(error: modelseal_core::Error) -> Self {
        Self::Core(error)
    }
}
