//! How files are written: complete or not at all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use modelseal_hsm::wiped::wiped;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::notice::{self, Notice};

/// Who may read an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever the umask lets.
    Public,
    /// The owner only: mode 0600.
    Private,
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
/// system can, it has no name until then.
pub struct Output {
    file: File,
    path: PathBuf,
    existing: Existing,
    unnamed: bool,
    temporary: Option<tempfile::TempPath>,
}

impl Output {
    /// Begins an output that will be at `path`.
    pub fn create(path: &Path, access: Access, existing: Existing) -> Result<Self> {
        let path = resolve(path);
        if std::fs::metadata(&path).is_ok_and(|target| !target.is_file()) {
            let what = format!("{} isn't a file that could be replaced", path.display());
            return Err(Error::new(Code::Io, what, "name a file for the output"));
        }
        if existing == Existing::Keep && path.symlink_metadata().is_ok() {
            return Err(Error::new(
                Code::Io,
                format!("{} is there already", path.display()),
                "it is never overwritten; name another file",
            ));
        }
        let dir = parent(&path);
        if let Some(file) = unnamed(dir, access) {
            return Ok(Self { file, path, existing, unnamed: true, temporary: None });
        }
        std::fs::metadata(dir).map_err(|error| Error::io(dir, &error))?;
        let named = named(dir, access).map_err(|error| Error::io(&path, &error))?;
        let (file, temporary) = named.into_parts();
        Ok(Self { file, path, existing, unnamed: false, temporary: Some(temporary) })
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|error| Error::io(&self.path, &error))
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io(&self.path, &error))
    }

    /// Has the system write everything, so that a full disk shows before [`commit`](Self::commit).
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io(&self.path, &error))
    }

    /// To be at `path` instead, on the same disk.
    pub fn moved(mut self, path: PathBuf) -> Self {
        self.path = path;
        self
    }

    /// Syncs, and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        let committed =
            self.file.sync_all().and_then(|()| self.link()).and_then(|()| sync(parent(&self.path)));
        committed.map_err(|error| Error::io(&self.path, &error))
    }

    fn link(&mut self) -> io::Result<()> {
        if self.unnamed {
            match link_unnamed(&self.file, &self.path) {
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && self.existing == Existing::Replace => {
                }
                done => return done,
            }
            // A name can't be taken over by a link, only by a rename.
            self.temporary = Some(link_beside(&self.file, &self.path)?);
        }
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        match self.existing {
            Existing::Replace => temporary.persist(&self.path),
            Existing::Keep => temporary.persist_noclobber(&self.path),
        }
        .map_err(|error| error.error)
    }
}

/// Commits outputs that go into `dir`: all are synced at once, where the system can, and then get their names.
pub fn commit_all(dir: &Path, outputs: Vec<Output>) -> Result<()> {
    // What is behind a link is elsewhere, perhaps on another disk.
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        outputs.into_iter().partition(|output| parent(&output.path) == dir);
    elsewhere.into_iter().try_for_each(Output::commit)?;
    sync_together(dir, &here).map_err(|error| Error::io(dir, &error))?;
    for mut output in here {
        output.link().map_err(|error| Error::io(&output.path, &error))?;
    }
    sync(dir).map_err(|error| Error::io(dir, &error))
}

/// Makes the folder `dir` if it isn't there.
pub fn create_dir(dir: &Path) -> Result<()> {
    let made = match std::fs::create_dir(dir) {
        Ok(()) => sync(parent(dir)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    made.map_err(|error| Error::io(dir, &error))
}

/// Whether names that differ in case only are one file in `dir`.
pub fn folds_case(dir: &Path) -> Result<bool> {
    let probe = tempfile::Builder::new().prefix(".modelseal-case-").tempfile_in(dir);
    let probe = probe.map_err(|error| Error::io(dir, &error))?;
    let other = probe.path().file_name().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    Ok(dir.join(other).symlink_metadata().is_ok())
}

/// Writes a whole small file.
pub fn write(path: &Path, bytes: &[u8], access: Access, existing: Existing) -> Result<()> {
    let mut output = Output::create(path, access, existing)?;
    output.write(bytes)?;
    output.commit()
}

/// Refuses an output that would replace one of the command's own inputs, or a file of modelseal's that holds
/// keys, devices or floors: a slip of the hand must not cost a vault.
pub fn protect(out: &Path, inputs: &[&Path]) -> Result<()> {
    if out.as_os_str() == "-" {
        return Err(Error::usage(
            "this output needs a file",
            "name one; only `open` writes to standard output",
        ));
    }
    let target = place(out);
    if inputs.iter().any(|input| place(input) == target) {
        return Err(Error::usage(
            format!("the output {} is an input, too", out.display()),
            "name another file for the output",
        ));
    }
    if target.is_file() && is_kept(&target) {
        return Err(Error::usage(
            format!("{} is a vault, an identity, a registry or a state", out.display()),
            "name another file for the output",
        ));
    }
    Ok(())
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

/// Whether the file is one of those that begin with `{ "format": "modelseal …"`.
pub(crate) fn is_kept(path: &Path) -> bool {
    use io::Read;
    // It may be anybody's model.
    wiped(|| {
        let mut head = Zeroizing::new([0; 64]);
        let read = File::open(path).and_then(|mut file| file.read(head.as_mut_slice())).unwrap_or(0);
        let mut squeezed = head.iter().take(read).filter(|byte| !byte.is_ascii_whitespace());
        br#"{"format":"modelseal"#.iter().all(|byte| squeezed.next() == Some(byte))
    })
}

/// Reads a whole small file, of which no valid one is longer than `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    read_if_there(path, max)?.ok_or_else(|| missing(path))
}

/// The same; `None` if there is no such file. One look decides, for the file may appear meanwhile.
pub fn read_if_there(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    Ok(read_into(path, max, &mut bytes)?.map(|_| bytes))
}

/// Reads a file, or the first `len` bytes of a longer one.
pub fn read_start(path: &Path, len: u64) -> Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(len).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(path)),
        Err(error) => Err(Error::io(path, &error)),
    }
}

/// Reads a whole small file that holds a secret, and tells of it if others may use it.
pub fn read_secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let (bytes, file) = read_private(path, max)?;
    notice::tell_if_exposed(&file, path);
    Ok(bytes)
}

/// Reads a whole small file that may hold a secret. Whose it is, the handle by which it was read says.
pub(crate) fn read_private(path: &Path, max: usize) -> Result<(Zeroizing<Vec<u8>>, File)> {
    // Roomy enough from the start: a buffer that grew would leave the secret in memory that was given back.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    match read_into(path, max as u64, &mut bytes)? {
        Some(file) => Ok((bytes, file)),
        None => Err(missing(path)),
    }
}

/// By which handle it was read, if there is such a file.
fn read_into(path: &Path, max: u64, bytes: &mut Vec<u8>) -> Result<Option<File>> {
    use io::Read;
    let file = match File::open(path) {
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

/// Refuses what is there and isn't a file, before it is opened: a pipe that nobody writes to would be waited for.
pub fn require_file(path: &Path) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let what = format!("{} isn't a file", path.display());
        return Err(Error::new(Code::Io, what, "name sealed models that are files, or folders of them"));
    }
    Ok(())
}

fn missing(path: &Path) -> Error {
    Error::new(Code::Io, format!("{}: there is no such file", path.display()), "check the path")
}

/// Holds a lock against other processes until it is dropped. The lock's file stays: it is `path` with
/// `.lock` appended.
pub fn lock(path: &Path) -> Result<File> {
    let path = with_suffix(&resolve(path), ".lock");
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    // The owner's: whoever may read it may hold it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
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

/// Follows a link to where the file is, so that the file is replaced and not the link.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    if path.is_symlink() { path.canonicalize().unwrap_or_else(|_| path.to_owned()) } else { path.to_owned() }
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(target_os = "linux")]
fn sync_together(dir: &Path, outputs: &[Output]) -> io::Result<()> {
    if outputs.is_empty() { Ok(()) } else { Ok(rustix::fs::syncfs(File::open(dir)?)?) }
}

#[cfg(not(target_os = "linux"))]
fn sync_together(_: &Path, outputs: &[Output]) -> io::Result<()> {
    outputs.iter().try_for_each(|output| output.file.sync_all())
}

fn named(dir: &Path, access: Access) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".modelseal-");
    #[cfg(unix)]
    if access == Access::Public {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = access;
    builder.tempfile_in(dir)
}

#[cfg(target_os = "linux")]
fn unnamed(dir: &Path, access: Access) -> Option<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let mode = match access {
        Access::Public => Mode::from_raw_mode(0o666),
        Access::Private => Mode::from_raw_mode(0o600),
    };
    openat(CWD, dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn link_unnamed(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Links the complete file under a name of its own beside `path`.
#[cfg(target_os = "linux")]
fn link_beside(file: &File, path: &Path) -> io::Result<tempfile::TempPath> {
    let made =
        tempfile::Builder::new().prefix(".modelseal-").make_in(parent(path), |name| link_unnamed(file, name));
    Ok(made?.into_temp_path())
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path, _: Access) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn link_unnamed(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn link_beside(_: &File, _: &Path) -> io::Result<tempfile::TempPath> {
    Err(io::ErrorKind::Unsupported.into())
}
