//! What still depends on a key: sealed models and enrolled devices that would be lost without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use modelseal_core::Error as Refusal;
use modelseal_core::sign::Publisher;
use modelseal_hsm::Vault;

use crate::error::{Error, Result};
use crate::io::Input;
use crate::open::SealedFile;
use crate::registry::{DeviceKeyKind, Registry};

/// What was found.
#[derive(Debug, Default)]
pub struct Dependents {
    /// How many sealed models were looked at.
    pub looked_at: usize,
    /// The sealed models that need the key.
    pub sealed: Vec<PathBuf>,
    /// The devices that need the key.
    pub devices: Vec<String>,
    /// Those that no publisher key which the vault still has signed: it can't tell what they depend on.
    pub foreign: Vec<PathBuf>,
    /// Those that couldn't be looked at, and why.
    pub failed: Vec<(PathBuf, Error)>,
}

/// The given files, and in folders, however deep, all whose names end in `.sealed`; in order. Links to folders are
/// followed, and no folder is searched twice.
pub fn find_sealed(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut search = Search::default();
    for path in paths {
        if path.is_dir() {
            search.folder(path)?;
        } else {
            search.found.push(path.clone());
        }
    }
    Ok(search.found)
}

#[derive(Default)]
struct Search {
    found: Vec<PathBuf>,
    /// Links may lead in circles.
    visited: BTreeSet<FolderId>,
}

impl Search {
    fn folder(&mut self, dir: &Path) -> Result<()> {
        let io = |error: std::io::Error| Error::io(dir, &error);
        if !self.visited.insert(folder_id(dir).map_err(io)?) {
            return Ok(());
        }
        let entries: std::io::Result<Vec<_>> = std::fs::read_dir(dir).map_err(io)?.collect();
        let mut entries = entries.map_err(io)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            self.entry(entry.path())?;
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf) -> Result<()> {
        let is_sealed = path.extension().is_some_and(|ending| ending == "sealed");
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => self.folder(&path)?,
            Ok(metadata) if !(is_sealed && metadata.is_file()) => {}
            // Where a link to a sealed model leads nowhere, whoever opens it says so.
            Ok(_) => self.found.push(path),
            Err(_) if is_sealed => self.found.push(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path, &error)),
        }
        Ok(())
    }
}

/// Device and inode.
#[cfg(unix)]
type FolderId = (u64, u64);

#[cfg(unix)]
fn folder_id(dir: &Path) -> std::io::Result<FolderId> {
    use std::os::unix::fs::MetadataExt;
    let metadata = dir.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
type FolderId = PathBuf;

#[cfg(not(unix))]
fn folder_id(dir: &Path) -> std::io::Result<FolderId> {
    dir.canonicalize()
}

/// The sealed models among `files` that open with this version of the master key alone.
pub fn on_master(vault: &dyn Vault, version: u32, files: &[PathBuf]) -> Dependents {
    each(files, |sealed| {
        let open = vault.open_slots(sealed.header()?, sealed.envelope())?;
        Ok(!open.is_empty() && open.iter().all(|slot| slot.version == version))
    })
}

/// The sealed models among `files` that this version of the publisher key signed.
pub fn on_publisher(vault: &dyn Vault, version: u32, files: &[PathBuf]) -> Result<Dependents> {
    let publisher = Publisher::new(&[vault.publisher_key(version)?])?;
    Ok(each(files, |sealed| match sealed.header()?.verify(sealed.envelope().signature(), &publisher) {
        Ok(_) => Ok(true),
        Err(Refusal::ManifestSignature) => Ok(false),
        Err(error) => Err(error.into()),
    }))
}

/// The devices whose keys this version of the fleet key derives.
pub fn on_fleet(registry: &Registry, version: u32) -> Dependents {
    let devices = registry.devices().iter();
    let devices = devices.filter(|(_, device)| device.key == DeviceKeyKind::Fleet(version));
    Dependents { devices: devices.map(|(id, _)| id.clone()).collect(), ..Dependents::default() }
}

fn each(files: &[PathBuf], depends: impl Fn(&SealedFile) -> Result<bool>) -> Dependents {
    let mut found = Dependents { looked_at: files.len(), ..Dependents::default() };
    for path in files {
        let sealed = Input::file(path, false).and_then(|file| SealedFile::from_file(path, file));
        match sealed.and_then(|sealed| depends(&sealed)) {
            Ok(true) => found.sealed.push(path.clone()),
            Ok(false) => {}
            Err(error) if error.name() == Some(Refusal::ManifestSignature.name()) => {
                found.foreign.push(path.clone());
            }
            Err(error) => found.failed.push((path.clone(), error)),
        }
    }
    found
}
