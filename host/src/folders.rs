//! How folders are written, complete or not at all, and what is in one.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::files::{Access, Existing, Output, parent, place, resolve, sync, with_suffix};

/// A folder that appears under its name when it is complete. Where the system can, none of its files has a name until
/// then, so that a kill leaves nothing; of hundreds, some get theirs before, in a hidden folder beside it.
pub struct OutputFolder {
    path: PathBuf,
    access: Access,
    waiting: Vec<(String, Output)>,
    made: Option<Made>,
}

/// The hidden folder, and in it the one that is to be.
struct Made {
    temporary: tempfile::TempDir,
    folder: PathBuf,
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
        let path = resolve(path);
        require_new_folder(&path)?;
        let dir = parent(&path);
        std::fs::metadata(dir).map_err(|error| Error::io(dir, &error))?;
        Ok(Self { path, access, waiting: Vec::new(), made: None })
    }

    /// Begins one of its files.
    pub fn file(&self) -> Result<Output> {
        // Only the folder of this path counts.
        Output::create(&with_suffix(&self.path, ".part"), self.access, Existing::Replace)
    }

    /// Takes a file that is complete, to be at `name`, which may have folders.
    pub fn add(&mut self, name: &str, output: Output) -> Result<()> {
        output.sync()?;
        self.waiting.push((name.to_owned(), output));
        if self.waiting.len() >= waiting_max() { self.name_waiting() } else { Ok(()) }
    }

    fn name_waiting(&mut self) -> Result<()> {
        let io = |error: io::Error| Error::io(&self.path, &error);
        let folder = match &self.made {
            Some(made) => &made.folder,
            None => &self.made.insert(Made::beside(&self.path, self.access).map_err(io)?).folder,
        };
        for (name, output) in self.waiting.drain(..) {
            let file = folder.join(name);
            make_dirs(parent(&file), self.access).map_err(io)?;
            output.moved(file).commit()?;
        }
        Ok(())
    }

    /// Gives the folder its name.
    pub fn commit(mut self) -> Result<()> {
        require_new_folder(&self.path)?;
        self.name_waiting()?;
        let Some(Made { temporary, folder }) = self.made else { return Ok(()) };
        let synced = folders_below(&folder).and_then(|dirs| dirs.iter().try_for_each(|dir| sync(dir)));
        let named = synced.and_then(|()| std::fs::rename(&folder, &self.path));
        let committed = named.and_then(|()| temporary.close()).and_then(|()| sync(parent(&self.path)));
        committed.map_err(|error| Error::io(&self.path, &error))
    }
}

impl Made {
    fn beside(path: &Path, access: Access) -> io::Result<Self> {
        let temporary = tempfile::Builder::new().prefix(".modelseal-").tempdir_in(parent(path))?;
        let folder = temporary.path().join("folder");
        make_dirs(&folder, access)?;
        Ok(Self { temporary, folder })
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
    if is_free {
        return Ok(());
    }
    let what = format!("{} is there already", path.display());
    Err(Error::new(Code::Io, what, "it is never overwritten; name another folder, or an empty one"))
}

fn make_dirs(dir: &Path, access: Access) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    if access == Access::Private {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    }
    #[cfg(not(unix))]
    let _ = access;
    builder.recursive(true).create(dir)
}

/// Everything below `dir` that isn't a folder, relative to it, in no order. Links aren't followed.
pub fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders_below(dir).map_err(|error| Error::io(dir, &error))? {
        let io = |error: io::Error| Error::io(&folder, &error);
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !is_folder(&path)
                && let Ok(relative) = path.strip_prefix(dir)
            {
                found.push(relative.to_owned());
            }
        }
    }
    Ok(found)
}

/// `dir` and every folder below it.
fn folders_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut to_do) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = to_do.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if is_folder(&path) {
                to_do.push(path);
            }
        }
        found.push(folder);
    }
    Ok(found)
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}
