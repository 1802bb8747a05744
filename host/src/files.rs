//! How files are written: complete or not at all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::io::Folder;
use crate::io::protect::require_no_secret_at;
use crate::notice::{self, Notice};

/// Who may read an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever the umask lets.
    Public,
    /// The owner only: mode 0600.
    Private,
}

#[cfg(unix)]
impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o666,
            Self::Private => 0o600,
        }
    }
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced, at once and only when the new one is complete.
    Replace,
    /// It stays, and the command fails.
    Keep,
}

/// A file that appears under its name when it is complete, and leaves nothing behind if it never is: where the
/// system can, it has no name until then. The folder that it goes into is a handle: what becomes of its path meanwhile
/// doesn't matter.
pub struct Output {
    file: File,
    folder: Arc<Folder>,
    name: PathBuf,
    existing: Existing,
    /// The name that it has until it is complete; `None` if it has none, or has its own.
    temporary: Option<PathBuf>,
    unnamed: bool,
}

impl Output {
    /// Begins an output that will be at `path`. A link there may have been made after anybody looked: what it leads to is
    /// looked at here, by the handle of the folder that is written to.
    pub fn create(path: &Path, access: Access, existing: Existing) -> Result<Self> {
        let place = resolve(path)?;
        let folder = Arc::new(Folder::open(parent(&place))?);
        let name = Path::new(place.file_name().ok_or_else(|| not_replaceable(&place))?);
        if place != path {
            require_no_secret_at(&folder, name)?;
        }
        Self::create_in(&folder, name, access, existing)
    }

    /// Begins an output that will be at `name`, which has no folders in it, in `folder`. A link there is replaced, and
    /// not what it leads to.
    pub fn create_in(folder: &Arc<Folder>, name: &Path, access: Access, existing: Existing) -> Result<Self> {
        match folder.dir().symlink_metadata(name) {
            Ok(_) if existing == Existing::Keep => return Err(there_already(&folder.shown(name))),
            Ok(found) if !found.is_file() && !found.is_symlink() => {
                return Err(not_replaceable(&folder.shown(name)));
            }
            _ => {}
        }
        let (folder, name) = (Arc::clone(folder), name.to_owned());
        if let Some(file) = unnamed(&folder, access) {
            return Ok(Self { file, folder, name, existing, temporary: None, unnamed: true });
        }
        let made = named(&folder, access).map_err(|error| Error::io(&folder.shown(&name), &error));
        let (file, temporary) = made?;
        Ok(Self { file, folder, name, existing, temporary: Some(temporary), unnamed: false })
    }

    /// Where it will be, for messages.
    fn path(&self) -> PathBuf {
        self.folder.shown(&self.name)
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|error| Error::io(&self.path(), &error))
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io(&self.path(), &error))
    }

    /// Has the system write everything, so that a full disk shows before [`commit`](Self::commit).
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io(&self.path(), &error))
    }

    /// To be at `name` in `folder` instead, on the same disk.
    pub(crate) fn moved(mut self, folder: Arc<Folder>, name: &Path) -> Result<Self> {
        if let Some(temporary) = self.temporary.take() {
            let moved = self.folder.dir().rename(&temporary, folder.dir(), &temporary);
            moved.map_err(|error| Error::io(&folder.shown(name), &error))?;
            self.temporary = Some(temporary);
        }
        (self.folder, self.name) = (folder, name.to_owned());
        Ok(self)
    }

    /// Syncs, and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        let committed = self.file.sync_all().and_then(|()| self.link()).and_then(|()| self.folder.sync());
        committed.map_err(|error| Error::io(&self.path(), &error))
    }

    fn link(&mut self) -> io::Result<()> {
        if self.unnamed {
            match link_unnamed(&self.file, &self.folder, &self.name) {
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && self.existing == Existing::Replace => {
                }
                done => return done,
            }
            // A name can't be taken over by a link, only by a rename.
            let temporary = temporary_name()?;
            link_unnamed(&self.file, &self.folder, &temporary)?;
            self.temporary = Some(temporary);
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let dir = self.folder.dir();
        match self.existing {
            Existing::Replace => dir.rename(temporary, dir, &self.name)?,
            // Unlike a rename, a link never replaces anything.
            Existing::Keep => {
                dir.hard_link(temporary, dir, &self.name)?;
                dir.remove_file(temporary)?;
            }
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let _ = self.folder.dir().remove_file(temporary);
        }
    }
}

fn there_already(path: &Path) -> Error {
    let what = format!("{} is there already", path.display());
    Error::new(Code::Io, what, "it is never overwritten; name another file")
}

fn not_replaceable(path: &Path) -> Error {
    let what = format!("{} isn't a file that could be replaced", path.display());
    Error::new(Code::Io, what, "name a file for the output")
}

/// Commits outputs that go into `folder`: all are synced at once, where the system can, and then get their names.
pub fn commit_all(folder: &Arc<Folder>, outputs: Vec<Output>) -> Result<()> {
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        outputs.into_iter().partition(|output| Arc::ptr_eq(&output.folder, folder));
    elsewhere.into_iter().try_for_each(Output::commit)?;
    sync_together(folder, &here).map_err(|error| Error::io(folder.path(), &error))?;
    for mut output in here {
        output.link().map_err(|error| Error::io(&output.path(), &error))?;
    }
    folder.sync().map_err(|error| Error::io(folder.path(), &error))
}

/// Makes the folder `dir` if it isn't there, and opens it.
pub fn open_or_make_dir(dir: &Path) -> Result<Folder> {
    match std::fs::create_dir(dir) {
        Ok(()) => Folder::open(parent(dir))?.sync().map_err(|error| Error::io(dir, &error))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io(dir, &error)),
    }
    Folder::open(dir)
}

/// Whether names that differ in case only are one file in `folder`.
pub(crate) fn folds_case(folder: &Arc<Folder>) -> Result<bool> {
    let probe = named(folder, Access::Private).map_err(|error| Error::io(folder.path(), &error));
    let (_, name) = probe?;
    let folds = folder.has(name.to_string_lossy().to_ascii_uppercase());
    let _ = folder.dir().remove_file(name);
    Ok(folds)
}

/// Writes a whole small file.
pub fn write(path: &Path, bytes: &[u8], access: Access, existing: Existing) -> Result<()> {
    let mut output = Output::create(path, access, existing)?;
    output.write(bytes)?;
    output.commit()
}

/// Writes a whole small file anew, at the place that [`resolve`] gave before it was read: a link that has come there since
/// is replaced, and not what it leads to.
pub(crate) fn rewrite(place: &Path, bytes: &[u8], access: Access) -> Result<()> {
    let folder = Arc::new(Folder::open(parent(place))?);
    let name = place.file_name().ok_or_else(|| not_replaceable(place))?;
    let mut output = Output::create_in(&folder, Path::new(name), access, Existing::Replace)?;
    output.write(bytes)?;
    output.commit()
}

/// Reads `bytes` at `offset`, whoever else reads the file: it has no position that would change.
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (_, bytes) = bytes.split_at_mut(read);
            offset += read as u64;
        }
        Ok(())
    }
}

/// Where `path` is or would be, however it is spelt.
pub fn place(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| match (parent(path).canonicalize(), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    })
}

/// Reads a whole small file, of which no valid one is longer than `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(path, max, &mut bytes, Source::Pipe)?.map(|_| bytes).ok_or_else(|| missing(path))
}

/// The same of a file that modelseal keeps; `None` if there is no such file. One look decides, for the file may appear
/// meanwhile. It is no pipe: nobody waits for one to be written to.
pub fn read_if_there(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    Ok(read_into(path, max, &mut bytes, Source::File)?.map(|_| bytes))
}

/// Reads a file, or the first `len` bytes of a longer one.
pub(crate) fn read_start(path: &Path, len: u64, source: Source) -> Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    let read = open_as(path, source).and_then(|file| file.take(len).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(path)),
        Err(error) => Err(Error::io(path, &error)),
    }
}

/// Reads a whole small file that holds a secret, and tells of it if others may use it.
pub fn read_secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let (bytes, file) = read_private(path, max, Source::Pipe)?;
    notice::tell_if_exposed(&file, path);
    Ok(bytes)
}

/// Reads a whole small file that may hold a secret. Whose it is, the handle by which it was read says.
pub(crate) fn read_private(path: &Path, max: usize, source: Source) -> Result<(Zeroizing<Vec<u8>>, File)> {
    // Roomy enough from the start: a buffer that grew would leave the secret in memory that was given back.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    match read_into(path, max as u64, &mut bytes, source)? {
        Some(file) => Ok((bytes, file)),
        None => Err(missing(path)),
    }
}

/// By which handle it was read, if there is such a file.
fn read_into(path: &Path, max: u64, bytes: &mut Vec<u8>, source: Source) -> Result<Option<File>> {
    use io::Read;
    let file = match open_as(path, source) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, &error)),
    };
    (&file).take(max + 1).read_to_end(bytes).map_err(|error| Error::io(path, &error))?;
    if bytes.len() as u64 > max {
        return Err(Error::from(modelseal_core::Error::Extended).about(path));
    }
    Ok(Some(file))
}

/// What may be at a path that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file alone.
    File,
    /// A file alone, and no link to one: links were followed before, and it is rewritten at that place.
    Itself,
    /// A pipe, too, whose writer is waited for.
    Pipe,
}

fn open_as(path: &Path, source: Source) -> io::Result<File> {
    match source {
        Source::Pipe => File::open(path),
        Source::File | Source::Itself => open_file(path, false, source),
    }
}

/// Opens without waiting for another end.
#[cfg(unix)]
pub(crate) fn at_once(options: &mut std::fs::OpenOptions, source: Source) -> &mut std::fs::OpenOptions {
    use rustix::fs::OFlags;
    let links = if source == Source::Itself { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | links;
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits().cast_signed())
}

/// Opens a file, and nothing else: a pipe that nobody writes to isn't waited for.
pub(crate) fn open_file(path: &Path, write: bool, source: Source) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(write);
    #[cfg(unix)]
    at_once(&mut options, source);
    #[cfg(not(unix))]
    let _ = source;
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it isn't a file")) }
}

fn missing(path: &Path) -> Error {
    Error::new(Code::Io, format!("{}: there is no such file", path.display()), "check the path")
}

/// Holds a lock against other processes until it is dropped. The lock's file stays: it is `path` with
/// `.lock` appended.
pub fn lock(path: &Path) -> Result<File> {
    let path = with_suffix(&resolve(path)?, ".lock");
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    // The owner's: whoever may read it may hold it.
    // And no link, which might make a file elsewhere.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    let file = options.open(&path).map_err(|error| Error::io(&path, &error))?;
    hold(&file, &path)?;
    Ok(file)
}

/// Holds `file` itself, which is at `path`, against other processes that do the same, until it is closed.
pub fn hold(file: &File, path: &Path) -> Result<()> {
    for tried in 0..LOCK_TRIES {
        if tried == LOCK_TRIES_IN_SILENCE {
            notice::tell(Notice::Waiting(path));
        }
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(error)) => return Err(Error::io(path, &error)),
        }
    }
    let what = format!("{} is held by another process", path.display());
    Err(Error::new(Code::Io, what, "wait until the other modelseal has ended, then try again"))
}

/// Half a minute in all: nobody holds a lock for longer than one file takes to write.
const LOCK_TRIES: u32 = 600;
/// A second.
const LOCK_TRIES_IN_SILENCE: u32 = 20;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// `path` with `suffix` appended to its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Follows a link to where the file is, so that the file is replaced and not the link. In a folder where everybody may
/// make links, a stranger's isn't followed: the rule of Linux's `fs.protected_symlinks`, wherever this runs.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path.to_owned());
    }
    require_own_link(path)?;
    Ok(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
}

#[cfg(unix)]
fn require_own_link(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let io = |error: io::Error| Error::io(path, &error);
    let folder = parent(path).metadata().map_err(io)?;
    let owner = path.symlink_metadata().map_err(io)?.uid();
    let anybody = folder.mode() & 0o1002 == 0o1002;
    if !anybody || owner == rustix::process::geteuid().as_raw() || owner == folder.uid() {
        return Ok(());
    }
    let what =
        format!("{} is a link that somebody else made in a folder that everybody writes to", path.display());
    Err(Error::new(Code::Io, what, "name another file, or remove the link"))
}

#[cfg(not(unix))]
fn require_own_link(_: &Path) -> Result<()> {
    Ok(())
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(target_os = "linux")]
fn sync_together(folder: &Folder, outputs: &[Output]) -> io::Result<()> {
    if outputs.is_empty() { Ok(()) } else { Ok(rustix::fs::syncfs(folder.readable(Path::new("."))?)?) }
}

#[cfg(not(target_os = "linux"))]
fn sync_together(_: &Folder, outputs: &[Output]) -> io::Result<()> {
    outputs.iter().try_for_each(|output| output.file.sync_all())
}

/// A name that no file has yet.
pub(crate) fn temporary_name() -> io::Result<PathBuf> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("the system gave no random bytes"))?;
    Ok(format!(".modelseal-{}", hex::encode(random)).into())
}

fn named(folder: &Folder, access: Access) -> io::Result<(File, PathBuf)> {
    let name = temporary_name()?;
    let mut options = cap_std::fs::OpenOptions::new();
    options.create_new(true).read(true).write(true);
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(&mut options, access.mode());
    #[cfg(not(unix))]
    let _ = access;
    Ok((folder.dir().open_with(&name, &options)?.into_std(), name))
}

#[cfg(target_os = "linux")]
fn unnamed(folder: &Folder, access: Access) -> Option<File> {
    use rustix::fs::{Mode, OFlags, openat};
    let mode = Mode::from_raw_mode(access.mode());
    openat(folder.dir(), ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn link_unnamed(file: &File, folder: &Folder, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, source, folder.dir(), name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Folder, _: Access) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn link_unnamed(_: &File, _: &Folder, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
