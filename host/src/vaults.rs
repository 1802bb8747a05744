//! Which vault is meant, where its registry is, and where its passphrase or PIN comes from: never from the command line,
//! which every process can read.

use std::path::{Path, PathBuf};

use modelseal_hsm::{Algorithm, Error as VaultError, Exposed, Location, Passphrase, Vault};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::files;
use crate::registry::{Locked, Registry};

/// The vault that is meant unless the caller says otherwise: a file in the user's data.
pub fn default_location() -> Result<Location> {
    Ok(Location::File(data_dir()?.join("vault.json")))
}

/// Where the registry of a vault is unless the caller says otherwise: beside a vault file, or in the user's data under the
/// token's label.
pub fn default_registry(location: &Location) -> Result<PathBuf> {
    match location {
        Location::File(path) => Ok(files::with_suffix(path, ".registry")),
        Location::Pkcs11(_) => {
            let name: String = location.to_string();
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
            Ok(data_dir()?.join(format!("{name}.registry")))
        }
    }
}

fn data_dir() -> Result<PathBuf> {
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let data = data.or_else(|| set("APPDATA"));
    data.map(|dir| dir.join("modelseal")).ok_or_else(|| {
        Error::usage("there is no home folder to look for a vault in", "give --vault file:PATH")
    })
}

/// Makes a vault where there is none, and its registry with it. `ask` obtains the new passphrase.
pub fn create(
    location: &Location,
    registry: &Path,
    algorithm: Option<Algorithm>,
    ask: &dyn Fn() -> std::result::Result<Passphrase, VaultError>,
) -> Result<Box<dyn Vault>> {
    require_no_registry(registry)?;
    make_parent(registry)?;
    if let Location::File(path) = location {
        make_parent(path)?;
        if files::place(path) == files::place(registry) {
            return Err(Error::usage("vault and registry would be one file", "give --registry another name"));
        }
    }
    // Before there are keys: whether the registry can be written, and that nobody else begins it meanwhile.
    let lock = files::lock(registry)?;
    require_no_registry(registry)?;
    let vault = modelseal_hsm::create(location, algorithm, ask)?;
    Locked::open_under(lock, registry, &*vault)?.commit()?;
    Ok(vault)
}

fn require_no_registry(path: &Path) -> Result<()> {
    match Registry::read(path)? {
        None => Ok(()),
        Some(_) => {
            let what = format!("there is a registry at {} already", path.display());
            Err(Error::new(Code::Vault, what, "name another one with --registry, or move it away"))
        }
    }
}

/// Makes the folder that `path` is to be in.
pub fn make_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error)),
        None => Ok(()),
    }
}

/// What a kind of vault asks for, and where it is looked for, in this order.
pub(crate) struct Source {
    /// What it is called.
    pub(crate) name: &'static str,
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
/// A backup's, which is another than the vault's own.
pub(crate) const BACKUP: Source = Source {
    name: "passphrase",
    file: "MODELSEAL_BACKUP_PASSPHRASE_FILE",
    variable: "MODELSEAL_BACKUP_PASSPHRASE",
    credential: "modelseal.backup-passphrase",
};

impl Source {
    /// A vault's own.
    pub(crate) fn of(location: &Location) -> &'static Self {
        match location {
            Location::File(_) => &PASSPHRASE,
            Location::Pkcs11(_) => &PIN,
        }
    }

    /// From a file, the environment or a systemd credential. `warn` is called if others can read the file.
    pub(crate) fn find(&self, warn: &dyn Fn(&str)) -> std::result::Result<Option<Passphrase>, VaultError> {
        if let Some(path) = set(self.file) {
            let passphrase = Passphrase::from_file(&path)?;
            passphrase.exposed().into_iter().for_each(|file| warn_of(file, warn));
            return Ok(Some(passphrase));
        }
        match std::env::var(self.variable).map(Zeroizing::new) {
            Ok(text) => return Ok(Some(Passphrase::new(text))),
            Err(std::env::VarError::NotUnicode(_)) => return Err(VaultError::NotUtf8(self.variable)),
            Err(std::env::VarError::NotPresent) => {}
        }
        self.credential().map(|path| Passphrase::from_file(&path)).transpose()
    }

    /// What systemd's `LoadCredential=` put there for this service alone.
    fn credential(&self) -> Option<PathBuf> {
        set("CREDENTIALS_DIRECTORY").map(|dir| dir.join(self.credential)).filter(|path| path.exists())
    }
}

/// A vault's passphrase or PIN, from the same places as on the command line, without asking anybody.
pub fn unattended(location: &Location) -> std::result::Result<Passphrase, VaultError> {
    Source::of(location).find(&|_| ())?.ok_or(VaultError::NoPassphrase)
}

/// The files that may hold one now: no output may replace them.
pub fn secret_files() -> Vec<PathBuf> {
    let sources = [PASSPHRASE, PIN, BACKUP];
    sources.iter().flat_map(|source| [set(source.file), source.credential()]).flatten().collect()
}

/// Others can use a vault whose passphrase or PIN they can read. It is said, and no more: the vault isn't safer if it is
/// refused.
pub(crate) fn warn_of(file: &Exposed, warn: &dyn Fn(&str)) {
    let path = file.path.display();
    warn(&format!("warning: others can read {path}; it should be its owner's alone: chmod 600 {path}"));
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
