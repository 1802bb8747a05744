//! While a model is open, whole or lazily, a core dump of the program has neither its keys nor the model: all of them lie in
//! memory that dumps leave out. The programs are in Rust and in C; Python's is in `host/python/tests/test_open.py`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use modelseal_tests::Workspace;
use modelseal_tests::c::compile;
use modelseal_tests::exposed::{content_key, grant_key, payload_key};
use modelseal_tests::published::enroll;
use modelseal_tests::remains::{LEFT_OUT, Remains, Secrets, search};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");
/// Several chunks of either profile.
const LENGTH: usize = 200_000;
const SUITES: [&str; 2] = ["aes-256-gcm", "chacha20-poly1305"];

/// A random model, sealed and granted.
fn workspace(suite: &str) -> (Workspace, Secrets) {
    let w = Workspace::new();
    let mut model = vec![0; LENGTH];
    getrandom::fill(&mut model).unwrap();
    w.write("model", &model);
    let seal = ["seal", "model", "-o", "sealed", "--line", "wake-word", "--model-version", "1"];
    w.ok(&[&seal[..], &["--suite", suite, "--profile", "device"]].concat());
    enroll(&w, "kitchen-7");
    w.ok(&["grant", "sealed", "--device", "kitchen-7", "-o", "grant"]);

    let content = content_key(&w, "sealed");
    let device = w.json("kitchen-7.identity")["device_key"].as_str().unwrap().to_owned();
    let device: [u8; 32] = hex::decode(device).unwrap().try_into().unwrap();
    let mut secrets = Secrets::default();
    secrets.add("content key", &content);
    secrets.add("payload key", &payload_key(&w.read("sealed"), LENGTH, &content));
    secrets.add("grant key", &grant_key(&w.read("grant"), &device));
    secrets.add("device key", &device);
    secrets.add_model("model", &model);
    (w, secrets)
}

/// All that was found is `expected`, where dumps don't look.
fn require_left_out(remains: &Remains, expected: &str, what: &str) {
    let found: Vec<_> = remains.keys().map(|(name, place)| (name.as_str(), *place)).collect();
    assert_eq!(found, [(expected, LEFT_OUT)], "{what}: {remains:?}");
}

#[test]
fn a_dump_of_a_program_in_rust_has_no_key() {
    for (suite, how, expected) in
        SUITES.into_iter().flat_map(|suite| [(suite, "whole", "model"), (suite, "lazy", "payload key")])
    {
        let (w, secrets) = workspace(suite);
        let mut command =
            w.another(VICTIM, &["library", "hold", how, "sealed", "grant", "kitchen-7.identity"]);
        // Registers aren't wiped, and when the loader binds a function late it stores all of them on the stack.
        let mut child = command.env("LD_BIND_NOW", "1").spawn().unwrap();
        let process = Pid::from_child(&child);
        let (_, status) = waitpid(Some(process), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "it ended early");
        let (remains, _) = search(process, &secrets);
        kill_process(process, Signal::CONT).unwrap();
        assert!(child.wait().unwrap().success());
        require_left_out(&remains, expected, &format!("{suite} {how}"));
    }
}

#[test]
fn a_dump_of_a_program_in_c_has_no_key() {
    for suite in SUITES {
        let (w, secrets) = workspace(suite);
        let program = compile(&w, "tests/confirm.c", true, &["-O1"]);
        let command = w.another(&program, &["256", "sealed", "-", "grant", "kitchen-7.identity"]);
        let mut child = when_read(command);
        let (mut remains, _) = search(Pid::from_child(&child), &secrets);
        child.stdin.take().unwrap().write_all(b"n").unwrap();
        assert!(child.wait().unwrap().success());
        // The program has read the model into memory of its own.
        remains.retain(|(name, _), _| name != "model");
        require_left_out(&remains, "payload key", suite);
    }
}

/// Runs a program until it says that it has read the model.
fn when_read(mut command: Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "read\n");
    child
}
