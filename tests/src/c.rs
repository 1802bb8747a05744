//! Programs in C that use the library.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Workspace;
use crate::workspace::c_library;

/// Its folder.
pub const CAPI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/capi");

/// Compiles `source` of the library's folder as C11, warnings being errors, and links it.
pub fn compile(w: &Workspace, source: &str, shared: bool, flags: &[&str]) -> PathBuf {
    let program = w.path("program");
    let library = c_library(if shared { "libmodelseal_c.so" } else { "libmodelseal_c.a" });
    let mut command = Command::new("cc");
    command
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread"])
        .args(flags)
        .arg(format!("-I{CAPI}/include"))
        .arg(Path::new(CAPI).join(source))
        .arg(&library)
        .arg("-lm")
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .arg("-o")
        .arg(&program);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}
