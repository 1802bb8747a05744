//! What the fuzz targets share. Each target says in a few lines what must hold of any input; what that takes is
//! here. In reading order:
//!
//! - [`scene`]: a few sealed models with their grants, made once, the same in every process
//! - [`shape`]: which bytes are a manifest, a sealed model, a grant: the specification over again
//! - [`edit`]: what an attacker does to files
//! - [`open`]: opening as a device and as a host, and what may open
//! - [`vault`]: files of software vaults
//! - [`forge`]: the format over again, as for the tests

pub mod edit;
#[path = "../../src/format.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
pub mod forge;
pub mod open;
pub mod scene;
pub mod shape;
pub mod vault;

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Makes `bytes` a file. There is one, without a name, so that nothing is left if the process dies.
pub fn file(bytes: &[u8]) -> PathBuf {
    static FILE: OnceLock<File> = OnceLock::new();
    let mut file = FILE.get_or_init(|| {
        // In memory, where there is such a folder: many times faster. The host's temporary files, too.
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            tempfile::env::override_temp_dir(memory).unwrap();
        }
        tempfile::tempfile().unwrap()
    });
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(bytes)).unwrap();
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
