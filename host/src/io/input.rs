//! A path that a user named, opened once: what it is, is asked of the handle.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::folder::Folder;
use crate::error::{Code, Error, Result};

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
        let file = File::open(path).map_err(io)?;
        let kind = file.metadata().map_err(io)?.file_type();
        Ok(match (kind.is_dir(), kind.is_file()) {
            (true, _) => Self::Folder(Folder::of(file, path)),
            (_, true) => Self::File(file),
            _ => Self::Stream(Box::new(file)),
        })
    }

    /// Opens a file, and nothing else: a pipe that nobody writes to isn't waited for.
    pub fn file(path: &Path, write: bool) -> Result<File> {
        let io = |error: std::io::Error| Error::io(path, &error);
        let mut options = File::options();
        options.read(true).write(write);
        #[cfg(unix)]
        {
            let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
        }
        let file = options.open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_file() {
            return Ok(file);
        }
        let what = format!("{} isn't a file", path.display());
        Err(Error::new(Code::Io, what, "name a file"))
    }
}
