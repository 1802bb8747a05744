//! Runs a program, and stops it before each call that takes a path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls;

/// How long one call may take: none of ours takes long, but one that opens a pipe which nobody writes to.
const CALL_MAX: Duration = Duration::from_secs(2);
/// How long the program may take, on a machine with much else to do.
const RUN_MAX: Duration = Duration::from_secs(60);

/// What became of the program.
#[derive(Debug)]
pub struct Traced {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Whether it had to be ended, as it waited for ever.
    pub hung: bool,
    /// Every path that its calls took, in their order.
    pub paths: Vec<PathBuf>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

/// Runs `command`. Before each call that takes a path it stands still, with all that it started, while `before` is told
/// that path.
pub fn trace(mut command: Command, before: &mut dyn FnMut(&Path)) -> Traced {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(Stdio::from(stdout.try_clone().unwrap())).stderr(Stdio::from(stderr.try_clone().unwrap()));
    command.process_group(0);
    let allow = || Ok(ptrace::traceme()?);
    #[allow(unsafe_code, reason = "there is no other way to be traced from the start")]
    // SAFETY: after the fork it does one system call and nothing else: no memory is allocated, no lock is taken.
    unsafe {
        command.pre_exec(allow);
    }
    #[allow(clippy::zombie_processes, reason = "`follow` waits for it")]
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let leader = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (begun, mut paths) = (Calls::default(), Vec::new());
    let (done, end) = channel();
    let (code, hung) = std::thread::scope(|scope| {
        let guard = scope.spawn(|| watch(leader, &begun, end));
        let code = follow(leader, &begun, &mut |path| {
            before(path);
            paths.push(path.to_owned());
        });
        drop(done);
        (code, guard.join().unwrap())
    });
    let stderr = String::from_utf8_lossy(&all(&mut stderr)).into_owned();
    Traced { code, hung, paths, stdout: all(&mut stdout), stderr }
}

/// When each thread began the call that takes a path and that it is in.
type Calls = Mutex<BTreeMap<i32, Instant>>;

/// Ends the program if it waits for ever, until there is no sender any more. Says whether it had to.
fn watch(leader: Pid, begun: &Calls, end: Receiver<()>) -> bool {
    let started = Instant::now();
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_millis(50)) {
        let waits = begun.lock().unwrap().values().any(|begun| begun.elapsed() > CALL_MAX);
        if waits || started.elapsed() > RUN_MAX {
            // What has ended meanwhile needs no signal.
            let _ = killpg(leader, Signal::SIGKILL);
            return true;
        }
    }
    false
}

/// Lets the program run from call to call, with all of its threads and processes, until all have ended.
fn follow(leader: Pid, begun: &Calls, before: &mut dyn FnMut(&Path)) -> Option<i32> {
    let mut code = None;
    let mut is_first = true;
    loop {
        // Only what this thread traces: other tests have children, too.
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::Exited(process, ended)) if process == leader => code = Some(ended),
            Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..)) => {
                begun.lock().unwrap().remove(&thread.as_raw());
            }
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                stop(thread, begun, before);
                go_on(thread, None);
            }
            Ok(WaitStatus::PtraceEvent(thread, ..)) => go_on(thread, None),
            Ok(WaitStatus::Stopped(thread, signal)) => {
                if std::mem::take(&mut is_first) {
                    follow_all(thread);
                }
                go_on(thread, Some(signal));
            }
            Err(Errno::ECHILD) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("waiting for the program: {error}"),
        }
    }
}

fn follow_all(leader: Pid) {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(leader, options).unwrap();
}

fn go_on(thread: Pid, signal: Option<Signal>) {
    // Those two are the tracing's own: a program starts with one, a thread with the other.
    let signal = signal.filter(|signal| ![Signal::SIGTRAP, Signal::SIGSTOP].contains(signal));
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("letting the program go on: {error}"),
    }
}

/// Where a call begins, tells which paths it takes; where it ends, notes that.
fn stop(thread: Pid, begun: &Calls, before: &mut dyn FnMut(&Path)) {
    begun.lock().unwrap().remove(&thread.as_raw());
    let Some((nr, arguments)) = beginning(thread) else { return };
    let paths = calls::paths(thread, nr, &arguments);
    paths.iter().for_each(|path| before(path));
    if !paths.is_empty() {
        begun.lock().unwrap().insert(thread.as_raw(), Instant::now());
    }
}

/// Number and arguments of the call that begins, if one does. Not by `nix`, which gives the kernel no size to fill.
#[allow(unsafe_code, reason = "there is no safe function for it")]
fn beginning(thread: Pid) -> Option<(u64, [u64; 6])> {
    type Info = libc::ptrace_syscall_info;
    // SAFETY: it is integers alone, for which zeros are a value.
    let mut info: Info = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most as many bytes as it is told, which is the size of what they are written to.
    let written = unsafe {
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread.as_raw(), size_of::<Info>(), &raw mut info)
    };
    if written <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that a call begins, and then this is what the kernel has filled in.
    let entry = unsafe { info.u.entry };
    Some((entry.nr, entry.args))
}

fn all(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}
