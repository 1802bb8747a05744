//! Files with secrets that others than their owner may use: told from the very handle that was read, for at a second look
//! the path may be another file's.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// A file that holds a vault, a passphrase or a PIN, and that its group or everybody may read or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Its name when it was opened.
    pub path: PathBuf,
    /// Its permission bits when it was read.
    pub mode: u32,
}

impl Exposed {
    /// `None` for a file of that mode which is its owner's alone.
    pub(crate) fn of(path: &Path, mode: Option<u32>) -> Option<Self> {
        let mode = mode.filter(|mode| mode & 0o077 != 0)?;
        Some(Self { path: path.to_owned(), mode })
    }
}

/// The permission bits of an open file, where the system has such.
pub(crate) fn mode(metadata: &Metadata) -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777);
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}
