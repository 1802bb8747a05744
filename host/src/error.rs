//! Errors for people and for scripts: what failed, then what to do, and a stable exit code.

use std::path::Path;

use modelseal_core::Class;

/// Why a command ended. The number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Anything that isn't below.
    Other = 1,
    /// The command line, or a value on it.
    Usage = 2,
    /// Changed, cut, extended, malformed; wrong key, wrong publisher, another vault's.
    NotAuthentic = 3,
    /// Refused by the terms: other line, device or model; expired, not yet valid, rolled back.
    Refused = 4,
    /// The vault: no passphrase, PIN, token, key.
    Vault = 5,
    /// Input or output.
    Io = 6,
    /// A foreign magic, an unknown version or an unknown suite.
    Unsupported = 7,
    /// `exec`: the command is there and can't be run.
    NotRun = 126,
    /// `exec`: there is no such command.
    NoCommand = 127,
}

impl From<Class> for Code {
    fn from(class: Class) -> Self {
        match class {
            Class::NotAuthentic => Self::NotAuthentic,
            Class::Refused => Self::Refused,
            Class::Storage => Self::Io,
            Class::Unsupported => Self::Unsupported,
        }
    }
}

/// What failed, and what to do. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    what: String,
    hint: String,
    name: Option<&'static str>,
}

/// The result of nearly everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `what` failed; `hint` says what to do.
    pub fn new(code: Code, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: hint.into(), name: None }
    }

    /// A wrong value on the command line.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Code::Usage, what, hint)
    }

    /// A file that can't be read or written.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check the file's owner and mode",
            std::io::ErrorKind::StorageFull => "free some space, then try again",
            std::io::ErrorKind::AlreadyExists => "it is never overwritten; name another file",
            std::io::ErrorKind::BrokenPipe => "the reader of the pipe has gone",
            _ => "check the file and its disk",
        };
        Self::new(Code::Io, format!("{}: {error}", path.display()), hint)
    }

    /// A file that should be ours and isn't well formed.
    pub fn malformed(path: &Path, what: &str) -> Self {
        let hint = "take the file from where it was made again";
        Self::new(Code::NotAuthentic, format!("{} isn't {what}, or is damaged", path.display()), hint)
    }

    /// The exit code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The format's own name for the failure, if it found it.
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// What failed.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Says first which file it was about.
    pub fn about(mut self, path: &Path) -> Self {
        self.what = format!("{}: {}", path.display(), self.what);
        self
    }

    /// Replaces the exit code.
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// Replaces what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same failure as one of usage, where what is malformed came from the command line.
    pub fn as_usage(mut self) -> Self {
        if self.code == Code::NotAuthentic {
            self.code = Code::Usage;
        }
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

impl From<modelseal_core::Error> for Error {
    fn from(error: modelseal_core::Error) -> Self {
        let hint = hint_for(error);
        Self {
            code: error.class().into(),
            what: error.to_string(),
            hint: hint.into(),
            name: Some(error.name()),
        }
    }
}

fn hint_for(error: modelseal_core::Error) -> &'static str {
    use modelseal_core::Error as E;
    match error {
        E::ForeignMagic => "name a .sealed or .grant file",
        E::UnknownVersion | E::UnknownSuite => "use a newer modelseal",
        E::ManifestSignature => {
            "another publisher's or vault's model, or a changed one: take it from its publisher again"
        }
        E::GrantSignature => "another publisher's grant, or a changed one: ask for it again",
        E::GrantKey => "a changed grant, or one for another device: ask for it again",
        E::Key => "make a new key, or take the file from where it was made again",
        E::KeySlot => "its envelope was changed, or its master key is no longer in this vault",
        E::OtherModel => "use the grant that was made for this model",
        E::OtherLine => "use the model of the line that was asked for, or --line",
        E::OtherSuite | E::FloorAboveVersion => "have the grant made again",
        E::OtherDevice => "use the grant that was made for this device",
        E::NoClock => "set the clock, or ask for a grant without validity",
        E::NotYetValid => "check the clock, or wait",
        E::Expired => "check the clock, or ask for a new grant",
        E::RolledBack => "a newer version was confirmed on this device: use that or a later one",
        E::Floor => "restore the state; if it is lost for good, enrol the device under a new id",
        E::Storage | E::Memory => "check the storage and its size",
        _ => "it was changed, cut or damaged: take it from its publisher again",
    }
}

impl From<modelseal_hsm::Error> for Error {
    fn from(error: modelseal_hsm::Error) -> Self {
        use modelseal_hsm::Error as E;
        let (code, hint) = match &error {
            E::Core(core) => return (*core).into(),
            E::Slot => return modelseal_core::Error::KeySlot.into(),
            E::Location(_) => (
                Code::Usage,
                "give --vault file:PATH or pkcs11:token=LABEL?module-path=LIBRARY&pin-source=FILE",
            ),
            E::NoPassphrase => {
                let hint = "set MODELSEAL_PASSPHRASE_FILE or MODELSEAL_PASSPHRASE, for a token MODELSEAL_PIN_FILE or MODELSEAL_PIN or pin-source; or run it on a terminal";
                (Code::Vault, hint)
            }
            E::NoBackupPassphrase => {
                let hint = "set MODELSEAL_BACKUP_PASSPHRASE_FILE or MODELSEAL_BACKUP_PASSPHRASE; or run it on a terminal";
                (Code::Vault, hint)
            }
            E::PassphrasesDiffer => (Code::Vault, "type the same passphrase twice"),
            E::WrongPassphrase(_) => {
                (Code::Vault, "check MODELSEAL_PASSPHRASE_FILE, MODELSEAL_PASSPHRASE and --vault")
            }
            E::WrongBackupPassphrase(_) => {
                (Code::Vault, "check MODELSEAL_BACKUP_PASSPHRASE_FILE and MODELSEAL_BACKUP_PASSPHRASE")
            }
            E::WrongPin(_) => {
                let hint = "check the first of these that there is: the URI's pin-source, MODELSEAL_PIN_FILE, MODELSEAL_PIN, the credential modelseal.pin; a PIN is tried once, so that nothing gets locked";
                (Code::Vault, hint)
            }
            E::LoggedIn => {
                (Code::Vault, "open the vault before the program logs in, or after it has logged out")
            }
            E::PinLocked => (Code::Vault, "have the token's security officer set a new PIN"),
            E::Exists(_) => (Code::Vault, "use it as it is, or name another place with --vault"),
            E::Missing(_) => (Code::Vault, "run `modelseal init`, or give --vault"),
            E::Corrupt(_) => (Code::Vault, "restore it from a backup"),
            E::Module(..) => (Code::Vault, "check module-path and that the token's software is installed"),
            E::NoModule(_) => (
                Code::Vault,
                "name the library in the URI: ?module-path=LIBRARY, or in MODELSEAL_PKCS11_MODULE",
            ),
            E::Token(_) => {
                (Code::Vault, "check token= in the URI, and that the token is there and initialised")
            }
            E::NoKey(_) => (Code::Vault, "run `modelseal init`, or check --vault"),
            E::NoVersion(..) => {
                (Code::Vault, "`modelseal key list` shows those that there are; or check --vault")
            }
            E::LastVersion(..) => (Code::Vault, "make a new vault"),
            E::Newest(..) => (Code::Refused, "make a newer one first: `modelseal key rotate ROLE`"),
            E::Retired(..) => (
                Code::Vault,
                "`modelseal key retire ROLE VERSION --undo` takes that back; docs/KEYS.md says more",
            ),
            E::NotRetired(..) => {
                (Code::Refused, "retire it first, which shows what depends on it: `modelseal key retire`")
            }
            E::NotDestroyed(..) => {
                (Code::Vault, "it may be protected by CKA_DESTROYABLE: use the token's own tool")
            }
            E::NoBackup => (Code::Vault, "use the token's own backup or cloning: see docs/KEYS.md"),
            E::Replaced(_) => (Code::Vault, "open the vault again, with the passphrase that it has now"),
            E::Gone(_) => (Code::Vault, "put it back, or open the vault where it is now"),
            E::Busy(_) => (Code::Io, "wait until the other modelseal has ended, then try again"),
            E::TooWide(..) => (
                Code::Vault,
                "run `modelseal key check`; have the key made again with its role's rights only",
            ),
            E::Unavailable(_) => (Code::Vault, "use a token that has the mechanism"),
            E::Failed(..) => (Code::Vault, "check the token, then try again"),
            E::NoAnswer(..) => (
                Code::Vault,
                "check the token and its connection, then try again; MODELSEAL_TOKEN_TIMEOUT=SECONDS waits longer",
            ),
            E::Sessions => (Code::Vault, "end the other programs that use the token, or try again later"),
            E::Forked => (Code::Vault, "open the vault in the process that uses it"),
            E::Timeout => (Code::Usage, "set it to a number such as 30, or unset it"),
            E::NotUtf8(_) => (Code::Vault, "set it anew, or name a file instead"),
            E::BadSignature => {
                (Code::Vault, "run `modelseal key check`; don't use this vault until it passes")
            }
            E::Io(..) => (Code::Vault, "check the path, its owner and mode"),
            E::Memory => (Code::Vault, "free some memory, or raise the limit: it takes 32 MiB"),
            E::Random => (Code::Other, "try again"),
        };
        Self::new(code, error.to_string(), hint)
    }
}
