//! Outputs of the real program appear complete or not at all: after a signal, on a full disk, with nobody reading,
//! and where something is in the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use modelseal_tests::published::{SEAL, published, seal};
use modelseal_tests::workspace::{WAKE_WORD, assert_same};
use modelseal_tests::{Refusal, Workspace, scratch};
use rustix::process::{Pid, Signal, kill_process};

/// What a signal must not leave behind: anything. `kept` is as it was.
fn killed_in_the_middle(w: &Workspace, command: impl Fn() -> Command) {
    let began = Instant::now();
    let run = w.run(command(), &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let whole = began.elapsed();
    w.write("kept", "from before");
    let before = w.snapshot();
    for (signal, times) in [(Signal::KILL, 4), (Signal::INT, 2), (Signal::TERM, 2)] {
        // Just before the end, where the most has been written, then earlier and earlier.
        let (mut after, mut killed) = (whole, 0);
        while killed < times {
            after = after * 4 / 5;
            assert!(after > whole / 50, "{signal:?} always came too late, so this proves nothing");
            let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(after);
            let _ = kill_process(Pid::from_child(&child), signal);
            let status = child.wait().unwrap();
            if status.success() {
                w.write("kept", "from before");
            } else {
                assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
                killed += 1;
            }
            assert_same(&before, &w.snapshot(), &format!("{signal:?} after {after:?}"));
        }
    }
}

#[test]
fn a_signal_while_sealing_or_opening_leaves_nothing() {
    let w = published();
    // Elsewhere, so that it isn't compared each time.
    let big = scratch();
    let (model, sealed) = (big.path().join("model"), big.path().join("sealed"));
    std::fs::File::create(&model).unwrap().set_len(8 << 20).unwrap();
    let (model, sealed) = (model.to_str().unwrap(), sealed.to_str().unwrap());
    // As much as this build and this machine work on for a second or two.
    let began = Instant::now();
    seal(&w, model, sealed);
    let factor = (2.0 / began.elapsed().as_secs_f64()).clamp(1.0, 64.0);
    std::fs::File::options().write(true).open(model).unwrap().set_len((factor * 8e6) as u64).unwrap();
    killed_in_the_middle(&w, || w.command(&[&SEAL[..], &[model, "-o", "kept"]].concat()));
    seal(&w, model, sealed);
    killed_in_the_middle(&w, || w.command(&["open", sealed, "-o", "kept"]));
    w.ok(&["grant", sealed, "--device", "kitchen-7", "-o", "grant"]);
    let open = [
        "open",
        sealed,
        "-o",
        "kept",
        "--grant",
        "grant",
        "--identity",
        "kitchen-7.identity",
        "--no-confirm",
    ];
    killed_in_the_middle(&w, || w.device_command(&open));
}

/// Runs the program where only about a megabyte can be written below `full`: on a small disk of its own, or
/// where none may be mounted, under a limit of the file size, which fails in the same place. The folder must stay
/// as it was, which is an old output.
fn on_a_full_disk(w: &Workspace, arguments: &[&str]) -> Refusal {
    const DISK: &str = r#"mount -t tmpfs -o size=1m none full || exit 99; echo old > full/out
        "$@"; code=$?; [ "$(ls -A full)" = out ] && [ "$(cat full/out)" = old ] || exit 98; exit $code"#;
    const LIMIT: &str = r#"trap "" XFSZ; ulimit -f 1024; echo old > full/out
        "$@"; code=$?; [ "$(ls -A full)" = out ] && [ "$(cat full/out)" = old ] || exit 98; exit $code"#;
    let _ = std::fs::create_dir(w.path("full"));
    let arguments = [arguments, &["--json"]].concat();
    let mut run = w.run(w.wrapped(&["unshare", "-rm", "sh", "-c", DISK, "sh"], &arguments), &[]);
    let mounted = run.code.is_some_and(|code| code != 99 && code != 1);
    if !mounted {
        println!("no disk can be mounted here ({}), so the file size is limited", run.stderr.trim());
        run = w.run(w.wrapped(&["sh", "-c", LIMIT, "sh"], &arguments), &[]);
    }
    assert_ne!(run.code, Some(98), "something was left, or the old output is gone: {}", run.stderr);
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    Refusal::parse(6, &run.stderr)
}

#[test]
fn a_full_disk_exits_6_and_leaves_nothing() {
    let w = published();
    std::fs::File::create(w.path("model")).unwrap().set_len(4 << 20).unwrap();
    seal(&w, "model", "sealed");
    w.ok(&["grant", "sealed", "--device", "kitchen-7", "-o", "grant"]);
    let sealing = on_a_full_disk(&w, &[&SEAL[..], &["model", "-o", "full/out"]].concat());
    assert!(sealing.message.contains("full/out"), "{sealing:?}");
    on_a_full_disk(&w, &["open", "sealed", "-o", "full/out"]);
    let grant = ["open", "sealed", "-o", "full/out", "--grant", "grant", "--identity", "kitchen-7.identity"];
    on_a_full_disk(&w, &grant);
    // A floor isn't raised by an opening that failed.
    assert!(!w.path("kitchen-7.identity.state").exists());
    let full = w.refused(6, &["open", "sealed", "-o", "/dev/full"]);
    assert!(full.hint.contains("space"), "{full:?}");
}

#[test]
fn a_reader_that_goes_away_exits_6() {
    let w = published();
    std::fs::File::create(w.path("model")).unwrap().set_len(4 << 20).unwrap();
    seal(&w, "model", "sealed");
    let mut child = w
        .command(&["open", "sealed", "-o", "-", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(Refusal::parse(6, &String::from_utf8(output.stderr).unwrap()).hint.contains("pipe"));
}

#[test]
fn an_output_behind_a_link_leaves_the_link() {
    let w = published();
    std::os::unix::fs::symlink("kept", w.path("link")).unwrap();
    w.ok(&["open", "sealed", "-o", "link"]);
    assert!(w.path("link").is_symlink() && w.read("kept") == std::fs::read(WAKE_WORD).unwrap());
}

/// What modelseal keeps is a file, and `seal` takes nothing else.
#[test]
fn nobody_waits_for_a_pipe_in_place_of_a_file() {
    let w = published();
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    assert!(Command::new("mkfifo").arg(w.path("pipe")).status().unwrap().success());
    let open = ["open", "sealed", "-o", "kept", "--grant", "grant", "--identity", "kitchen-7.identity"];
    w.refused(6, &["device", "list", "--registry", "pipe"]);
    w.refused(6, &[&open[..], &["--state", "pipe"]].concat());
    w.refused(6, &["device", "trust", "--identity", "pipe", "--publisher", "publisher.pem"]);
    w.refused(2, &[&SEAL[..], &["pipe", "-o", "kept"]].concat());
}

/// An output that is an input, or a secret, would lose it.
#[test]
fn an_output_never_replaces_an_input_or_a_secret() {
    let w = published();
    let before = w.snapshot();
    let open = ["open", "sealed", "--grant", "grant", "--identity", "kitchen-7.identity", "-o"];
    let grant = ["grant", "sealed", "--device", "kitchen-7", "-o"];
    let cases = [
        [&["open", "sealed", "-o"][..], &["sealed"]].concat(),
        [&["open", "sealed", "-o"][..], &["vault.json"]].concat(),
        [&open[..], &["sealed"]].concat(),
        [&open[..], &["grant"]].concat(),
        [&open[..], &["kitchen-7.identity"]].concat(),
        [&grant[..], &["sealed"]].concat(),
        [&grant[..], &["vault.json"]].concat(),
        [&grant[..], &["registry.json"]].concat(),
        [&grant[..], &["kitchen-7.identity"]].concat(),
        [&SEAL[..], &["kept", "-o", "vault.json"]].concat(),
        [&SEAL[..], &["kept", "-o", "kept"]].concat(),
        vec!["key", "export", "-o", "vault.json"],
        vec!["device", "keygen", "d", "--identity-out", "d", "--public-out", "d"],
        vec!["device", "keygen", "d", "--identity-out", "d", "--public-out", "./d"],
        vec!["device", "keygen", "d", "--identity-out", "d", "--public-out", "nowhere/d"],
        // The state and the passphrase, however they are spelt and whether they are there yet or not.
        [&open[..], &["./kitchen-7.identity.state"]].concat(),
        [&open[..], &["state", "--state", "./state"]].concat(),
        [&SEAL[..], &["kept", "-o", "./passphrase"]].concat(),
        // A folder, and standard output where a file must be.
        [&open[..], &["tmp"]].concat(),
        [&SEAL[..], &["kept", "-o", "-"]].concat(),
    ];
    let mut replaced = Vec::new();
    for arguments in cases {
        let run = w.run(w.command(&arguments), &[]);
        let after = w.snapshot();
        if run.code == Some(0) || before != after {
            replaced.push(arguments.join(" "));
        }
        for path in after.keys().filter(|path| !before.contains_key(*path)) {
            std::fs::remove_file(path).unwrap();
        }
        before.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    assert!(replaced.is_empty(), "lost an input or a secret:\n  {}", replaced.join("\n  "));
}

/// A file would take the place of a pipe or a device for everybody.
#[test]
fn an_output_never_replaces_a_pipe() {
    let w = published();
    let pipe = w.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let grant = ["grant", "sealed", "--device", "kitchen-7", "-o", "pipe"];
    for arguments in
        [&grant[..], &["key", "export", "-o", "pipe"], &[&SEAL[..], &["kept", "-o", "pipe"]].concat()]
    {
        w.refused(6, arguments);
        use std::os::unix::fs::FileTypeExt;
        assert!(pipe.metadata().unwrap().file_type().is_fifo(), "{arguments:?}");
    }
}
