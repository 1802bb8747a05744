//! A path that a user named, opened once: what it is, is asked of the handle.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::folder::Folder;
use crate::error::{Code, Error, Result};
#[cfg(unix)]
use crate::files::at_once;
use crate::files::{Source, open_file};

/// What was at a path.
pub enum Input {
    /// A file.
    File(File),
    /// A folder.
    Folder(Folder),
    /// A pipe or the like, or standard input: it can be read once, from its beginning to its end.
    Stream(Box<dyn Read + Send>),
}

impl Input {
    /// Opens `path`; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stream(Box::new(std::io::stdin())));
        }
        #[cfg(windows)]
        if path.is_dir() {
            return Folder::open(path).map(Self::Folder);
        }
        let io = |error: std::io::Error| Error::io(path, &error);
        Self::of(File::open(path).map_err(io)?, path)
    }

    /// The same where a pipe is of no use: its writer isn't waited for, and nothing can be read from it.
    pub(crate) fn open_at_once(path: &Path) -> Result<Self> {
        #[cfg(unix)]
        if path.as_os_str() != "-" {
            let opened = at_once(File::options().read(true), Source::Pipe).open(path);
            return Self::of(opened.map_err(|error| Error::io(path, &error))?, path);
        }
        Self::open(path)
    }

    fn of(file: File, path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(path, &error);
        let kind = file.metadata().map_err(io)?.file_type();
        Ok(match (kind.is_dir(), kind.is_file()) {
            (true, _) => Self::Folder(Folder::of(file, path)),
            (_, true) => Self::File(file),
            _ => Self::Stream(Box::new(file)),
        })
    }

    /// Opens a file, and nothing else: a pipe that nobody writes to isn't waited for.
    pub fn file(path: &Path, write: bool) -> Result<File> {
        open_file(path, write, Source::File).map_err(|error| match error.kind() {
            std::io::ErrorKind::Other => {
                Error::new(Code::Io, format!("{} isn't a file", path.display()), "name a file")
            }
            _ => Error::io(path, &error),
        })
    }
}
