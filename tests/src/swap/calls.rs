//! System calls that take a path.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;

/// Of a call: which argument is a folder's handle, if any is, and which is the path.
type Place = (Option<usize>, usize);

const AT: Place = (Some(0), 1);
const SECOND_AT: Place = (Some(2), 3);

fn places(nr: i64) -> &'static [Place] {
    match nr {
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_readlinkat
        | libc::SYS_unlinkat
        | libc::SYS_mkdirat
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_fchmodat
        | libc::SYS_execveat => &[AT],
        libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_linkat => &[AT, SECOND_AT],
        libc::SYS_symlinkat => &[(Some(1), 2)],
        libc::SYS_execve | libc::SYS_truncate | libc::SYS_chdir | libc::SYS_statfs => &[(None, 0)],
        _ => older_places(nr),
    }
}

#[cfg(target_arch = "x86_64")]
fn older_places(nr: i64) -> &'static [Place] {
    match nr {
        libc::SYS_open
        | libc::SYS_creat
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_access
        | libc::SYS_readlink
        | libc::SYS_unlink
        | libc::SYS_mkdir
        | libc::SYS_rmdir
        | libc::SYS_chmod => &[(None, 0)],
        libc::SYS_rename | libc::SYS_link => &[(None, 0), (None, 1)],
        libc::SYS_symlink => &[(None, 1)],
        _ => &[],
    }
}

/// Newer architectures have none of them.
#[cfg(not(target_arch = "x86_64"))]
fn older_places(_: i64) -> &'static [Place] {
    &[]
}

/// The paths that the call `nr` takes, from the root; none of one that is about a handle alone.
pub(super) fn paths(thread: Pid, nr: u64, arguments: &[u64; 6]) -> Vec<PathBuf> {
    let of = |&(handle, path): &Place| {
        let named = text(thread, arguments[path])?;
        if named.is_empty() {
            return None;
        }
        let folder = match handle.map(|handle| arguments[handle] as i32) {
            None | Some(libc::AT_FDCWD) => format!("/proc/{thread}/cwd"),
            Some(handle) => format!("/proc/{thread}/fd/{handle}"),
        };
        Some(straightened(&std::fs::read_link(folder).ok()?.join(OsStr::from_bytes(&named))))
    };
    i64::try_from(nr).map_or(Vec::new(), |nr| places(nr).iter().filter_map(of).collect())
}

/// The text at `address` in the program's memory.
fn text(thread: Pid, address: u64) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut bytes = vec![0; libc::PATH_MAX as usize];
    let read = memory.read_at(&mut bytes, address).ok()?;
    bytes.truncate(bytes[..read].iter().position(|byte| *byte == 0)?);
    Some(bytes)
}

/// Without `.` and `..`, as far as that can be told without looking at links.
fn straightened(path: &Path) -> PathBuf {
    let mut parts: Vec<OsString> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(OsString::from_vec(name.as_bytes().to_vec())),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    Path::new("/").join(parts.iter().collect::<PathBuf>())
}
