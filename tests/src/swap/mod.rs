//! What stops a program before any of its calls that take a path, so that a test can put something else there.
//!
//! - `calls`: which calls take a path, and which path that is
//! - `trace`: runs a program under `ptrace`, and stops it
//! - [`Swap`]: what is put in a path's place, and taken away again

mod calls;
mod trace;

use std::fs::{remove_file, rename};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, RenameFlags, mkfifoat, renameat_with};

pub use trace::{Traced, trace};

/// What comes into the place of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap<'a> {
    /// This one of the same kind, with which it changes places.
    Other(&'a str),
    /// A link to this one.
    Link(&'a str),
    /// A pipe that nobody writes to.
    Fifo,
}

impl Swap<'_> {
    /// Does it to `path` in the folder `dir`. What was there, if anything, is then at [`aside`] or has changed places.
    pub fn apply(self, dir: &Path, path: &str) {
        let at = dir.join(path);
        match self {
            Self::Other(other) => exchange(&dir.join(other), &at),
            Self::Link(target) => {
                move_aside(&at);
                std::os::unix::fs::symlink(dir.join(target), at).unwrap();
            }
            Self::Fifo => {
                move_aside(&at);
                mkfifoat(CWD, at, Mode::from_raw_mode(0o600)).unwrap();
            }
        }
    }

    /// Takes it back, but for what the program itself has put there meanwhile.
    pub fn undo(self, dir: &Path, path: &str) {
        let at = dir.join(path);
        if let Self::Other(other) = self {
            return exchange(&dir.join(other), &at);
        }
        let is_ours = at.symlink_metadata().is_ok_and(|found| !found.is_file() && !found.is_dir());
        if is_ours {
            remove_file(&at).unwrap();
        }
        if aside(&at).symlink_metadata().is_ok() && at.symlink_metadata().is_err() {
            rename(aside(&at), at).unwrap();
        }
    }
}

/// Where the program's own file or folder is while something else is in its place.
pub fn aside(path: &Path) -> PathBuf {
    path.with_file_name("aside")
}

fn move_aside(path: &Path) {
    // An output may not be there yet.
    if path.symlink_metadata().is_ok() {
        rename(path, aside(path)).unwrap();
    }
}

fn exchange(other: &Path, path: &Path) {
    match (other.symlink_metadata().is_ok(), path.symlink_metadata().is_ok()) {
        (true, true) => renameat_with(CWD, other, CWD, path, RenameFlags::EXCHANGE).unwrap(),
        (true, false) => rename(other, path).unwrap(),
        (false, true) => rename(path, other).unwrap(),
        (false, false) => {}
    }
}
