//! A folder that is open. Everything in it is reached beneath its handle: with `openat2` and `RESOLVE_BENEATH` on Linux,
//! with its equal elsewhere. A link in it is followed only as far as it stays beneath.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};

use crate::error::{Code, Error, Result};

/// A folder. Holding one proves nothing about what is in it.
pub struct Folder {
    dir: Dir,
    /// For messages alone.
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let named = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let dir =
            Dir::open_ambient_dir(named, ambient_authority()).map_err(|error| Error::io(named, &error))?;
        Ok(Self { dir, path: named.to_owned() })
    }

    /// The folder that `file`, which was opened at `path`, turned out to be.
    pub(crate) fn of(file: File, path: &Path) -> Self {
        Self { dir: Dir::from_std_file(file), path: path.to_owned() }
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of what is in it, for messages.
    pub fn shown(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The file at `name`; `None` if there is none. Whatever isn't a file is refused, and nobody waits for a pipe.
    pub fn file(&self, name: impl AsRef<Path>) -> Result<Option<File>> {
        let name = name.as_ref();
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            use cap_std::fs::OpenOptionsExt;
            let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
            options.custom_flags(flags.bits().cast_signed());
        }
        let file = match self.dir.open_with(name, &options) {
            Ok(file) => file.into_std(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.is_link(name) => {
                return Err(self.not_a_file(name));
            }
            Err(error) => return Err(Error::io(&self.shown(name), &error)),
        };
        let metadata = file.metadata().map_err(|error| Error::io(&self.shown(name), &error))?;
        if metadata.is_file() { Ok(Some(file)) } else { Err(self.not_a_file(name)) }
    }

    fn is_link(&self, name: &Path) -> bool {
        self.dir.symlink_metadata(name).is_ok_and(|metadata| metadata.is_symlink())
    }

    /// Whether there is anything at `name`.
    pub(crate) fn has(&self, name: impl AsRef<Path>) -> bool {
        self.dir.symlink_metadata(name).is_ok()
    }

    fn not_a_file(&self, name: &Path) -> Error {
        let what = format!("{} isn't a file, or is a link out of the folder", self.shown(name).display());
        Error::new(Code::NotAuthentic, what, "use a copy of the folder without links: cp -rL FOLDER COPY")
    }

    /// Everything below it that isn't a folder, relative to it, in no order. Links aren't followed.
    pub fn names(&self) -> Result<Vec<PathBuf>> {
        let (mut found, mut to_do) = (Vec::new(), vec![PathBuf::from(".")]);
        while let Some(folder) = to_do.pop() {
            let io = |error: io::Error| Error::io(&self.shown(&folder), &error);
            for entry in self.dir.read_dir(&folder).map_err(io)? {
                let entry = entry.map_err(io)?;
                let path = if folder == Path::new(".") {
                    PathBuf::from(entry.file_name())
                } else {
                    folder.join(entry.file_name())
                };
                let is_folder = entry.file_type().map_err(io)?.is_dir();
                if is_folder { to_do.push(path) } else { found.push(path) }
            }
        }
        Ok(found)
    }

    /// The length of the file at `name`, to show progress by.
    pub(crate) fn about_as_long(&self, name: &Path) -> u64 {
        self.dir.metadata(name).map_or(0, |metadata| metadata.len())
    }

    /// The folder at `name` in it, made with those above it if it isn't there.
    pub(crate) fn make(&self, name: &Path, private: bool) -> Result<Self> {
        let io = |error: io::Error| Error::io(&self.shown(name), &error);
        let mut builder = cap_std::fs::DirBuilder::new();
        #[cfg(unix)]
        if private {
            cap_std::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        #[cfg(not(unix))]
        let _ = private;
        self.dir.create_dir_with(name, builder.recursive(true)).or_else(there).map_err(io)?;
        Ok(Self { dir: self.dir.open_dir(name).map_err(io)?, path: self.shown(name) })
    }

    /// Has the system write its names.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.sync_below(Path::new("."))
    }

    /// Has the system write the names in the folder `name` in it.
    #[cfg(unix)]
    pub(crate) fn sync_below(&self, name: &Path) -> io::Result<()> {
        self.readable(name)?.sync_all()
    }

    #[cfg(not(unix))]
    pub(crate) fn sync_below(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// A handle of the folder `name` in it that more can be done with than look up names.
    #[cfg(unix)]
    pub(crate) fn readable(&self, name: &Path) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(self.dir.open_dir(name)?, ".", flags, Mode::empty())?.into())
    }
}

fn there(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}
