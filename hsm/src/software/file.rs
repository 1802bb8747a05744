//! The file of a software vault on its disk: read, written anew, locked.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::exposed;
use crate::vault_file::FILE_MAX;

/// Half a minute in all: nobody holds the lock for longer than one file takes to write.
const LOCK_TRIES: u32 = 600;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A file's bytes, and its mode when they were read.
#[derive(PartialEq, Eq)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Where the system has such.
    pub(super) mode: Option<u32>,
}

impl Text {
    /// As this program writes it.
    pub(super) fn ours(bytes: Vec<u8>) -> Self {
        Self { bytes, mode: cfg!(unix).then_some(0o600) }
    }
}

pub(super) fn read(path: &Path) -> Result<Text, Error> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(path.display().to_string()),
        _ => Error::Io(path.to_owned(), error),
    };
    let file = to_read().open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(Error::Corrupt(path.to_owned()));
    }
    let mut bytes = Vec::new();
    // What is longer is refused by its length, whatever the length was said to be.
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok(Text { bytes, mode: exposed::mode(&metadata) })
}

/// Without waiting for somebody to write to what isn't a file.
fn to_read() -> OpenOptions {
    let mut options = File::options();
    options.read(true);
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    options
}

/// Written beside and renamed, so that it appears complete or not at all.
pub(super) fn write_new(path: &Path, text: &[u8]) -> Result<(), Error> {
    let _lock = lock(path)?;
    let persisted = write_beside(path, text)?.persist_noclobber(path);
    persisted.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists(path.display().to_string()),
        _ => Error::Io(path.to_owned(), error.error),
    })?;
    sync_folder(path)
}

/// Written beside and renamed, so that a command that is interrupted leaves the old file. The caller holds the lock.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), Error> {
    let persisted = write_beside(path, text)?.persist(path);
    persisted.map_err(|error| Error::Io(path.to_owned(), error.error))?;
    sync_folder(path)
}

/// Removes what a change left that was killed: it may hold a key that is to be destroyed. The caller holds the lock.
pub(super) fn remove_leftover(path: &Path) -> Result<(), Error> {
    let beside = beside(path);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io(beside, error)),
        _ => Ok(()),
    }
}

/// Under the one name that the next change looks for.
fn write_beside(path: &Path, text: &[u8]) -> Result<tempfile::TempPath, Error> {
    remove_leftover(path)?;
    let beside = beside(path);
    let temporary = tempfile::TempPath::try_from_path(&beside);
    let written = temporary.and_then(|temporary| store(&beside, text).map(|()| temporary));
    written.map_err(|error| Error::Io(path.to_owned(), error))
}

/// `.vault.json.new` for `vault.json`.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Where the system can, the file has no name before it is complete.
fn store(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(file) = unnamed(folder(path)) {
        fill(&file, text)?;
        // Without /proc it can't be given one.
        if link(&file, path).is_ok() {
            return Ok(());
        }
    }
    fill(&private().create_new(true).open(path)?, text)
}

fn fill(mut file: &File, text: &[u8]) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()
}

/// What is created is the owner's: mode 0600.
fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(target_os = "linux")]
fn unnamed(dir: &Path) -> Option<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(CWD, dir, flags, Mode::from_raw_mode(0o600)).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
    // The owner's, too: whoever may read it may hold it.
    let file = private().create(true).truncate(false).open(&path).map_err(io)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Err(Error::Busy(path))
}
