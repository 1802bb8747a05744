//! How folders are written, complete or not at all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::files::{Access, Existing, Output, parent, place, resolve, temporary_name};
use crate::io::Folder;

/// A folder that appears under its name when it is complete. Where the system can, none of its files has a name until
/// then, so that a kill leaves nothing; of hundreds, some get theirs before, in a hidden folder beside it.
pub struct OutputFolder {
    /// The folder that it will be in.
    beside: Arc<Folder>,
    name: PathBuf,
    access: Access,
    waiting: Vec<(String, Output)>,
    made: Option<Made>,
}

/// The hidden folder, and in it the one that is to be.
struct Made {
    beside: Arc<Folder>,
    temporary: PathBuf,
    folder: Folder,
}

/// How many files wait for their names. Each is open, so it is at most half of what this process may have open.
fn waiting_max() -> usize {
    const MOST: usize = 256;
    #[cfg(unix)]
    let may = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let may = None::<u64>;
    may.and_then(|may| usize::try_from(may / 2).ok()).map_or(MOST, |half| half.clamp(1, MOST))
}

impl OutputFolder {
    /// Begins a folder that will be at `path`, where there is none, or an empty one.
    pub fn create(path: &Path, access: Access) -> Result<Self> {
        let path = resolve(path)?;
        require_new_folder(&path)?;
        let name = path.file_name().ok_or_else(|| there_already(&path))?;
        let beside = Arc::new(Folder::open(parent(&path))?);
        Ok(Self { beside, name: name.into(), access, waiting: Vec::new(), made: None })
    }

    /// Begins one of its files.
    pub fn file(&self) -> Result<Output> {
        // It gets another name, and in another folder.
        let name = temporary_name().map_err(|error| self.failed(&error))?;
        Output::create_in(&self.beside, &name, self.access, Existing::Replace)
    }

    /// Takes a file that is complete, to be at `name`, which may have folders.
    pub fn add(&mut self, name: &str, output: Output) -> Result<()> {
        output.sync()?;
        self.waiting.push((name.to_owned(), output));
        if self.waiting.len() >= waiting_max() { self.name_waiting() } else { Ok(()) }
    }

    fn name_waiting(&mut self) -> Result<()> {
        let private = self.access == Access::Private;
        let folder = match &self.made {
            Some(made) => &made.folder,
            None => &self.made.insert(Made::beside(&self.beside, private)?).folder,
        };
        for (name, output) in self.waiting.drain(..) {
            let name = Path::new(&name);
            let last = Path::new(name.file_name().unwrap_or(name.as_os_str()));
            output.moved(Arc::new(folder.make(parent(name), private)?), last)?.commit()?;
        }
        Ok(())
    }

    /// Gives the folder its name.
    pub fn commit(mut self) -> Result<()> {
        self.name_waiting()?;
        let Some(made) = &self.made else { return Ok(()) };
        made.sync().and_then(|()| self.take_name(made)).map_err(|error| self.failed(&error))?;
        self.made = None;
        self.beside.sync().map_err(|error| self.failed(&error))
    }

    /// A rename takes the place of an empty folder, and of nothing else.
    fn take_name(&self, made: &Made) -> io::Result<()> {
        let (from, to) = (made.temporary.join(Made::FOLDER), self.beside.dir());
        #[cfg(not(unix))]
        let _ = to.remove_dir(&self.name);
        to.rename(from, to, &self.name)
    }

    fn failed(&self, error: &io::Error) -> Error {
        let path = self.beside.shown(&self.name);
        match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => there_already(&path),
            _ => Error::io(&path, error),
        }
    }
}

impl Made {
    const FOLDER: &'static str = "folder";

    fn beside(beside: &Arc<Folder>, private: bool) -> Result<Self> {
        let temporary = temporary_name().map_err(|error| Error::io(beside.path(), &error))?;
        let folder = beside.make(&temporary, true)?.make(Path::new(Self::FOLDER), private)?;
        Ok(Self { beside: Arc::clone(beside), temporary, folder })
    }

    /// Files are synced already; their names aren't.
    fn sync(&self) -> io::Result<()> {
        let mut to_do = vec![PathBuf::from(".")];
        while let Some(path) = to_do.pop() {
            for entry in self.folder.dir().read_dir(&path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    to_do.push(path.join(entry.file_name()));
                }
            }
            self.folder.sync_below(&path)?;
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.beside.dir().remove_dir_all(&self.temporary);
    }
}

/// Refuses an output below the folder, which would be taken for a part of it the next time, and standard output, which
/// isn't a folder.
pub fn require_apart(folder: &Path, out: &Path) -> Result<()> {
    if out.as_os_str() == "-" {
        return Err(Error::usage("a folder needs a folder to go into", "name one: -o FOLDER"));
    }
    if place(out).starts_with(place(folder)) {
        let what = format!("the output {} is in the folder {}", out.display(), folder.display());
        return Err(Error::usage(what, "name a folder beside it"));
    }
    Ok(())
}

/// Refuses a folder that has something in it, and whatever isn't a folder.
pub fn require_new_folder(path: &Path) -> Result<()> {
    let is_free = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_free { Ok(()) } else { Err(there_already(path)) }
}

fn there_already(path: &Path) -> Error {
    let what = format!("{} is there already", path.display());
    Error::new(Code::Io, what, "it is never overwritten; name another folder, or an empty one")
}
