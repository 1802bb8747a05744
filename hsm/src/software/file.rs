//! The file of a software vault on its disk: read, written anew, locked.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::vault_file::FILE_MAX;

/// Half a minute in all: nobody holds the lock for longer than one file takes to write.
const LOCK_TRIES: u32 = 600;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(path.display().to_string()),
        _ => Error::Io(path.to_owned(), error),
    };
    let mut text = Vec::new();
    // What is longer is refused by its length, whatever the length was said to be.
    let file = File::open(path).map_err(io)?;
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut text).map_err(io)?;
    Ok(text)
}

/// Written beside and linked into place, so that it appears complete or not at all.
pub(super) fn write_new(path: &Path, text: &[u8]) -> Result<(), Error> {
    let persisted = write_beside(path, text)?.persist_noclobber(path);
    persisted.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists(path.display().to_string()),
        _ => Error::Io(path.to_owned(), error.error),
    })?;
    sync_folder(path)
}

/// Written beside and renamed, so that a command that is interrupted leaves the old file.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), Error> {
    let persisted = write_beside(path, text)?.persist(path);
    persisted.map_err(|error| Error::Io(path.to_owned(), error.error))?;
    sync_folder(path)
}

/// Created with mode 0600.
fn write_beside(path: &Path, text: &[u8]) -> Result<tempfile::NamedTempFile, Error> {
    let written = tempfile::NamedTempFile::new_in(folder(path)).and_then(|mut file| {
        file.write_all(text)?;
        file.as_file().sync_all()?;
        Ok(file)
    });
    written.map_err(|error| Error::Io(path.to_owned(), error))
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    if !cfg!(unix) {
        return Ok(());
    }
    File::open(folder(path)).and_then(|dir| dir.sync_all()).map_err(|error| Error::Io(path.to_owned(), error))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Holds the vault against changes by others until it is dropped. The lock's file stays: it is the vault's with `.lock`
/// appended, for the vault's own is another one after each change.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let io = |error| Error::Io(path.clone(), error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Err(Error::Busy(path))
}
