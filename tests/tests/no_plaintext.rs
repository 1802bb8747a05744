//! No file ever has the plaintext of a model: every system call of the real program that carries some of it is looked at,
//! with strace.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::create_dir_all;
use std::path::Path;
use std::process::Command;

use modelseal_tests::published::published;
use modelseal_tests::workspace::{c_library, program};
use modelseal_tests::{Workspace, counted};

/// All of a model, over and over: whatever part of it is seen, it is known.
const MARK: &str = "PLAINTEXT!";
/// Everything by which bytes get from one place to another, and what maps files.
const CALLS: &str = "trace=read,pread64,readv,preadv,preadv2,write,pwrite64,writev,pwritev,pwritev2,sendfile,splice,tee,\
    vmsplice,copy_file_range,mmap,sendto,sendmsg,recvfrom,recvmsg,process_vm_writev,io_uring_setup,mkdir,openat,open,creat";

/// What was done with plaintext, such as "write /memfd:wake-word 1".
fn traced(w: &Workspace, arguments: &[&str]) -> Vec<String> {
    traced_program(w, &program(), arguments)
}

fn traced_program(w: &Workspace, program: &Path, arguments: &[&str]) -> Vec<String> {
    // Each call whole, with the path of its file, of every thread in a file of its own, so that none comes in between;
    // `ls` has no plaintext, but the model's name.
    let strace = ["strace", "-ff", "-y", "-s", "400000", "-e", CALLS, "-e", "signal=none", "-o", "trace"];
    let words = [&strace[1..], &[program.to_str().unwrap()], arguments].concat();
    let run = w.run(w.another(strace[0], &words), &[]);
    assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
    let mut trace = String::new();
    for found in std::fs::read_dir(w.path("")).unwrap().map(|found| found.unwrap().path()) {
        if found.file_name().unwrap().to_str().unwrap().starts_with("trace.") {
            trace += &std::fs::read_to_string(&found).unwrap();
            std::fs::remove_file(found).unwrap();
        }
    }
    assert!(trace.contains("execve(") || trace.contains("openat("), "strace saw nothing: {trace}");
    assert!(!trace.contains("io_uring_setup"), "what that does, strace doesn't see");
    let mut carried: Vec<_> = trace.lines().filter(|line| carries(line)).map(described).collect();
    carried.sort();
    carried.dedup();
    carried
}

/// Whether plaintext is in it; or a file is mapped so that what is written there gets into it, or is moved unseen.
fn carries(line: &str) -> bool {
    let moved = ["sendfile(", "splice(", "copy_file_range(", "tee("].iter().any(|call| line.contains(call));
    let mapped = line.contains("mmap(") && line.contains("MAP_SHARED") && line.contains("PROT_WRITE");
    line.contains(&MARK[..5]) || moved || mapped
}

/// The call and its first file, without what differs from run to run.
fn described(line: &str) -> String {
    let call = line.split('(').next().unwrap().to_owned();
    let file = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(file, _)| file);
    let file = file.rsplit('/').next().unwrap();
    let file = if file.starts_with("pipe:") { "pipe" } else { file };
    // A file without a name is shown with its number.
    let file = if file.starts_with('#') { "a file without a name" } else { file };
    format!("{call} {}", file.trim_end_matches(" (deleted)"))
}

fn workspace() -> Workspace {
    let w = published();
    create_dir_all(w.path("folder/sub")).unwrap();
    let model = MARK.repeat(30_000);
    w.write("model", &model);
    w.write("folder/sub/weights", &model);
    w.write("folder/config", MARK.repeat(20));
    w
}

#[test]
fn sealing_reads_plaintext_and_writes_none() {
    let w = workspace();
    let seal = ["seal", "model", "-o", "s", "--line", "wake-word", "--model-version", "2"];
    assert_eq!(traced(&w, &seal), ["pread64 model"]);
    let seal = ["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "2"];
    assert_eq!(traced(&w, &seal), ["pread64 config", "pread64 weights"]);
}

#[test]
fn migrating_writes_none() {
    let w = modelseal_tests::fernet::protected(MARK.repeat(30_000));
    assert_eq!(traced(&w, &modelseal_tests::fernet::MIGRATE), [""; 0]);
}

#[test]
fn the_c_library_writes_none() {
    let w = workspace();
    w.ok(&["seal", "model", "-o", "s", "--line", "wake-word", "--model-version", "2"]);
    w.ok(&["grant", "s", "--device", "kitchen-7", "-o", "g"]);
    let capi = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/capi");
    let mut cc = Command::new("cc");
    cc.arg("-I")
        .arg(capi.join("include"))
        .arg(capi.join("examples/open.c"))
        .arg(c_library("libmodelseal_c.a"));
    assert!(cc.args(["-lm", "-o"]).arg(w.path("open")).status().unwrap().success());
    assert_eq!(traced_program(&w, &w.path("open"), &["s", "g", "kitchen-7.identity"]), [""; 0]);
}

#[test]
fn exec_writes_plaintext_into_memory_only() {
    let w = workspace();
    w.ok(&["seal", "model", "-o", "s", "--line", "wake-word", "--model-version", "2"]);
    w.ok(&["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "2"]);
    w.ok(&["grant", "s", "--device", "kitchen-7", "-o", "g"]);
    let (memory, read) = ("write memfd:wake-word 2", "read memfd:wake-word 2");
    let cat = ["--", "grep", "-c", "LAINTEXT", "{}"];
    assert_eq!(traced(&w, &[&["exec", "s"], &cat[..]].concat()), [read, memory]);
    let by_grant = ["exec", "s", "--grant", "g", "--identity", "kitchen-7.identity"];
    assert_eq!(traced(&w, &[&by_grant[..], &cat[..]].concat()), [read, memory]);
    let folder = ["exec", "release", "--", "grep", "-c", "LAINTEXT", "{sub/weights}"];
    assert_eq!(
        traced(&w, &folder),
        ["read memfd:sub/weights", "write memfd:sub/weights"].map(|s| s.replace("memfd:sub/", ""))
    );
    counted(
        "plaintext on disk: each call of sealing, exec and opening that carries some is seen, none writes a file",
    );
}

#[test]
fn opening_writes_where_it_was_told_and_nowhere_else() {
    let w = workspace();
    w.ok(&["seal", "model", "-o", "s", "--line", "wake-word", "--model-version", "2"]);
    w.ok(&["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "2"]);
    // The control: what is written to a file is seen. It has no name until it is complete.
    assert_eq!(traced(&w, &["open", "s", "-o", "opened"]), ["write a file without a name"]);
    assert_eq!(traced(&w, &["open", "release", "-o", "folder-2"]), ["write a file without a name"]);
    assert_eq!(traced(&w, &["open", "s", "-o", "-"]), ["write pipe"]);
    for checked in [
        &["verify", "s"][..],
        &["verify", "release"],
        &["inspect", "release"],
        &["reseal", "s", "-o", "t", "--model-version", "3"],
    ] {
        assert_eq!(traced(&w, checked), [""; 0], "{checked:?}");
    }
}
