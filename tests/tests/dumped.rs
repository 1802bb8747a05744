//! While a model is open, whole or lazily, a core dump of the program has neither its keys nor the model: all of them lie in
//! memory that dumps leave out. The programs are in Rust and in C; Python's is in `host/python/tests/test_open.py`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use modelseal_tests::Workspace;
use modelseal_tests::c::compile;
use modelseal_tests::exposed::{content_key, grant_key, payload_key};
use modelseal_tests::published::enroll;
use modelseal_tests::remains::{LEFT_OUT, Secrets, search};
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

/// What is found in the memory of `process`: all of it where dumps don't look, but for what the program itself has.
fn held(process: Pid, secrets: &Secrets, own: &str) -> BTreeSet<String> {
    let (mut remains, _) = search(process, secrets);
    remains.retain(|(name, _), _| name != own);
    assert!(remains.keys().all(|(_, place)| *place == LEFT_OUT), "{remains:?}");
    remains.into_keys().map(|(name, _)| name).collect()
}

#[test]
fn a_dump_of_a_program_in_rust_has_no_key() {
    for (suite, how, expected) in
        SUITES.into_iter().flat_map(|suite| [(suite, "whole", "model"), (suite, "lazy", "payload key")])
    {
        let (w, secrets) = workspace(suite);
        let mut child =
            w.another(VICTIM, &["library", "hold", how, "sealed", "grant", "kitchen-7.identity"]).spawn().unwrap();
        let process = Pid::from_child(&child);
        let (_, status) = waitpid(Some(process), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "it ended early");
        let held = held(process, &secrets, "");
        kill_process(process, Signal::CONT).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(held, BTreeSet::from([expected.to_owned()]), "{suite} {how}");
    }
}

#[test]
fn a_dump_of_a_program_in_c_has_no_key() {
    for suite in SUITES {
        let (w, secrets) = workspace(suite);
        let program = compile(&w, "tests/confirm.c", true, &["-O1"]);
        let command = w.another(&program, &["256", "sealed", "-", "grant", "kitchen-7.identity"]);
        let mut child = when_read(command);
        // The program has read the model into memory of its own.
        let held = held(Pid::from_child(&child), &secrets, "model");
        child.stdin.take().unwrap().write_all(b"n").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(held, BTreeSet::from(["payload key".to_owned()]), "{suite}");
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
