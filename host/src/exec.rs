//! Giving an opened model to a program that takes only a file name, without a file: in anonymous memory that nobody can
//! change any more, as `/proc/self/fd/N` (Linux).
//!
//! The caller becomes the program (`execve`): signals, exit code, terminal and process id are the program's own, and
//! nothing of the caller's memory is left. The opened model is gone when the last process that has it ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::error::{Code, Error, Result};
use crate::memory::require;

/// What the kernel lets a name have.
const NAME_MAX: usize = 249;
/// Anonymous shared memory, mapped files and shared huge pages aren't dumped: everything by which a model is mapped. Of
/// the default, this leaves private memory and headers.
const COREDUMP_FILTER: &str = "0x31";
/// Variables that are modelseal's own: several hold or name a secret, which the program has no use for.
const OURS: &[u8] = b"MODELSEAL_";

/// Anonymous memory that a model is being written into.
pub struct Writing(File);

impl Writing {
    /// For `len` bytes. `name` is what `/proc/PID/fd` and `/proc/PID/maps` show of it.
    pub fn new(name: &str, len: u64) -> Result<Self> {
        require(len)?;
        let name = name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or_default();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 don't know the last one.
        let memory = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create(name, flags),
            made => made,
        };
        Ok(Self(memory.map_err(failed)?.into()))
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    /// From now on nobody can change it: not the program, and not this process.
    pub fn seal(mut self) -> Result<InMemory> {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        // Who else can get at it is up to /proc, which asks for the right to trace the process.
        fchmod(&self.0, Mode::from_raw_mode(0o444)).map_err(failed)?;
        fcntl_add_seals(&self.0, seals).map_err(failed)?;
        self.0.rewind().map_err(failed)?;
        Ok(InMemory(self.0))
    }
}

/// A whole model in anonymous memory that can't change.
pub struct InMemory(File);

impl InMemory {
    /// The file name under which this process, and the one that it becomes, can open it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn failed(error: impl Into<std::io::Error>) -> Error {
    let what = format!("the memory for the model: {}", error.into());
    Error::new(Code::Io, what, "free some memory, or raise the limit: the whole model has to fit")
}

/// Refuses a program that can't be run, before anything is opened for it.
pub fn require_program(program: &OsStr) -> Result<()> {
    if program.as_bytes().contains(&b'/') {
        return runnable(Path::new(program)).map_err(|errno| not_run(program, &errno.into()));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut found = Errno::NOENT;
    for dir in std::env::split_paths(&path) {
        match runnable(&dir.join(program)) {
            Ok(()) => return Ok(()),
            Err(errno @ Errno::ACCESS) => found = errno,
            Err(_) => {}
        }
    }
    Err(not_run(program, &found.into()))
}

fn runnable(program: &Path) -> rustix::io::Result<()> {
    rustix::fs::access(program, rustix::fs::Access::EXEC_OK)?;
    if program.is_dir() { Err(Errno::ACCESS) } else { Ok(()) }
}

/// The exit codes that shells give.
fn not_run(program: &OsStr, error: &std::io::Error) -> Error {
    let program = program.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let what = format!("{program}: there is no such command");
            Error::new(Code::NoCommand, what, "check its name and PATH")
        }
        _ => Error::new(Code::NotRun, format!("{program}: {error}"), "check that it can be run"),
    }
}

/// Becomes `command`, which gets `models` and none of modelseal's variables. Returns only if that fails.
pub fn become_command(command: &[OsString], models: &[InMemory]) -> Error {
    let Some((program, arguments)) = command.split_first() else {
        return Error::usage("there is no command", "give one after --");
    };
    if let Err(error) = models.iter().try_for_each(|model| fcntl_setfd(&model.0, FdFlags::empty())) {
        return failed(error);
    }
    if let Err(error) = keep_out_of_core_dumps() {
        return error;
    }
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(OURS)) {
        command.env_remove(name);
    }
    not_run(program, &command.exec())
}

/// Whatever the program makes of the model is in its own memory, so it gets no core dump at all: a limit of one byte is
/// the one at which Linux doesn't start a program that collects dumps, either. Should somebody with the right to do so
/// raise the limit again, the filter still leaves out what is mapped of the model.
fn keep_out_of_core_dumps() -> Result<()> {
    let refused = |error: std::io::Error| {
        let what = format!("core dumps can't be kept from having the model: {error}");
        Error::new(Code::Io, what, "mount /proc so that it can be written")
    };
    // Where none are allowed as it is, one byte can't be.
    let most = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, limit).map_err(|errno| refused(errno.into()))?;
    // Files in /proc are their owner's only while the process may be dumped.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|errno| refused(errno.into()))?;
    match std::fs::write("/proc/self/coredump_filter", COREDUMP_FILTER) {
        // A kernel that can't dump.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(refused),
    }
}
