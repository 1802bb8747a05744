//! What the tests share. In reading order:
//!
//! - [`story`]: the whole path, command by command. Read it first
//! - [`workspace`]: a folder with a vault in it, in which the real `modelseal` runs
//! - [`published`]: such a folder in which a model was sealed and granted
//! - [`c`]: programs in C that use the library
//! - [`fernet`]: a model that was protected with Fernet
//! - [`softhsm`]: a token of its own for one test; [`tokens`]: the same of any kind
//! - [`faults`]: a token of which one can go wrong what one likes, and a program that uses it
//! - [`mod@bench`]: a vault, models and devices in-process, to attack
//! - [`forge`], [`mod@format`]: the format over again, for attackers who know it and hold a key
//! - [`exposed`]: every secret that the files of a workspace imply, for whoever has the passphrase
//! - `remains`: the search for secrets in another process's memory
//! - `swap`: a program that is stopped before its calls that take a path, and what is put there meanwhile
//! - [`boards`]: boards in QEMU; [`probe`]: a board under a debugger, through [`debugger`]
//! - [`vectors`]: the conformance vectors, and what makes them

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

pub mod bench;
pub mod boards;
pub mod c;
pub mod debugger;
pub mod exposed;
pub mod faults;
pub mod fernet;
pub mod forge;
pub mod format;
pub mod probe;
pub mod published;
#[cfg(target_os = "linux")]
pub mod remains;
pub mod softhsm;
pub mod story;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod swap;
pub mod tokens;
pub mod vectors;
pub mod workspace;

pub use workspace::{Refusal, Run, Workspace, scratch};

/// Says what was counted: to standard error, past the test runner, and in the table of `tests/run`, which names its
/// file in MODELSEAL_EVIDENCE.
pub fn counted(line: &str) {
    use std::io::Write;
    let line = format!("{line}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("MODELSEAL_EVIDENCE") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}
