//! `exec`: a program that takes only a file name gets an opened model in memory that nobody can change.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use modelseal_tests::Workspace;
use modelseal_tests::published::{SEAL, published};
use modelseal_tests::workspace::WAKE_WORD;
use rustix::process::{Pid, Signal, kill_process};

const BY_GRANT: [&str; 4] = ["--grant", "grant", "--identity", "kitchen-7.identity"];

/// Standard output of a command that must succeed.
fn says(w: &Workspace, arguments: &[&str]) -> Vec<u8> {
    let run = w.run(w.command(arguments), &[]);
    assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
    run.stdout
}

#[test]
fn a_program_reads_the_model_by_name_with_the_vault_and_with_a_grant() {
    let w = published();
    let model = std::fs::read(WAKE_WORD).unwrap();
    assert!(says(&w, &["exec", "sealed", "--", "cat", "{}"]) == model);
    let by_grant = [&["exec", "sealed"], &BY_GRANT[..], &["--", "cat", "{}"]].concat();
    let run = w.run(w.device_command(&by_grant), &[]);
    assert!(run.stdout == model, "{}", run.stderr);
    // The floor is stored before the command starts.
    assert_eq!(w.json("kitchen-7.identity.state")["floors"]["wake-word"], 1);
    // Mapped, and within a word.
    let map = "import mmap,sys\nwith open(sys.argv[1].split('=')[1],'rb') as f: \
               sys.stdout.buffer.write(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)[:])";
    assert!(says(&w, &["exec", "sealed", "--", "python3", "-c", map, "--model={}"]) == model);
    // What else is in braces is the command's.
    let kept = says(&w, &["exec", "sealed", "--", "sh", "-c", "echo '{a} {1} {{b}}'; true {}"]);
    assert_eq!(kept, b"{a} {1} {{b}}\n");
}

#[test]
fn several_models_have_numbers_and_a_grant_each() {
    let w = published();
    w.write("other", "another model");
    w.ok(&[&SEAL[..], &["other", "-o", "other.sealed"]].concat());
    w.ok(&["grant", "other.sealed", "--device", "kitchen-7", "-o", "other.grant"]);
    let both = ["other.sealed", "sealed", "--grant", "other.grant"];
    let by_grant = [&["exec"], &both[..], &BY_GRANT[..], &["--", "cat", "{2}", "{1}"]].concat();
    let run = w.run(w.device_command(&by_grant), &[]);
    let expected = [&std::fs::read(WAKE_WORD).unwrap()[..], b"another model"].concat();
    assert!(run.stdout == expected, "{}", run.stderr);
    let too_few =
        [&["--json", "exec", "other.sealed", "sealed"], &BY_GRANT[..], &["--", "cat", "{1}", "{2}"]].concat();
    w.refused_from(2, w.device_command(&too_few));
    for command in [&["cat", "{1}"][..], &["cat", "{}"], &["cat", "{1}", "{}", "{2}"]] {
        w.refused_from(2, w.command(&[&["--json", "exec", "sealed", "sealed", "--"], command].concat()));
    }
}

#[test]
fn nobody_can_change_the_model_and_no_core_dump_has_it() {
    let w = published();
    let shell = r#"m={}; readlink $m; stat -Lc '%s %h %a' $m; cat /proc/self/coredump_filter; prlimit --core
        (echo x > $m) 2>/dev/null && echo changed; truncate -s 0 $m 2>/dev/null && echo cut; ls /proc/self/fd | wc -l"#;
    let said = String::from_utf8(says(&w, &["exec", "sealed", "--", "sh", "-c", shell])).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "/memfd:wake-word 1 (deleted)");
    let length = std::fs::metadata(WAKE_WORD).unwrap().len();
    assert_eq!(lines[1], format!("{length} 0 444"));
    assert_eq!(u32::from_str_radix(lines[2], 16), Ok(0x31), "neither shared nor mapped memory is dumped");
    let limit: Vec<_> = lines[4].split_whitespace().collect();
    assert_eq!(limit[limit.len() - 3..], ["1", "1", "bytes"], "{said}");
    // It gets one more open file than without, the model.
    let without = w.run(w.another("sh", &["-c", "ls /proc/self/fd | wc -l"]), &[]);
    let count = |text: &str| text.trim().parse::<u32>().unwrap();
    assert_eq!(count(lines[5]), count(std::str::from_utf8(&without.stdout).unwrap()) + 1, "{said}");
    // With the right to write everywhere, too.
    let write = "import os,sys\nfor f in (lambda: os.pwrite(os.open(sys.argv[1],os.O_RDWR),b'x',0), \
                 lambda: os.ftruncate(os.open(sys.argv[1],os.O_RDWR),0)):\n try: f(); print('changed')\n \
                 except OSError as e: print(e.strerror)";
    let said = says(&w, &["exec", "sealed", "--", "python3", "-c", write, "{}"]);
    for line in String::from_utf8(said).unwrap().lines() {
        assert!(["Operation not permitted", "Permission denied"].contains(&line), "{line}");
    }
}

/// As a service with `LimitCORE=0` has it: the right to raise the limit is root's.
#[test]
fn where_no_core_dumps_are_allowed_it_stays_so() {
    let w = published();
    let lowered = ["setpriv", "--bounding-set=-sys_resource", "sh", "-c", "ulimit -c 0; exec \"$@\"", "sh"];
    let lowered = if rustix::process::geteuid().is_root() { &lowered[..] } else { &lowered[2..] };
    let said =
        w.run(w.wrapped(lowered, &["exec", "sealed", "--", "sh", "-c", "ulimit -Hc; ulimit -Sc", "{}"]), &[]);
    assert_eq!((said.code, said.stdout.as_slice()), (Some(0), &b"0\n0\n"[..]), "{}", said.stderr);
}

#[test]
fn a_crash_of_the_program_leaves_no_core_dump() {
    let w = published();
    let crash = ["sh", "-c", "ulimit -c unlimited 2>/dev/null; exec \"$@\"", "sh"];
    let mut command = w.wrapped(&crash, &["exec", "sealed", "--", "sh", "-c", "kill -SEGV $$", "{}"]);
    let before = w.snapshot();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), Some(Signal::SEGV.as_raw()));
    assert!(!status.core_dumped());
    modelseal_tests::workspace::assert_same(&before, &w.snapshot(), "a crash");
}

#[test]
fn exit_code_and_signals_are_the_programs() {
    let w = published();
    for code in [0, 1, 3, 42, 255] {
        let run = w.run(w.command(&["exec", "sealed", "--", "sh", "-c", &format!("exit {code}"), "{}"]), &[]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(code), ""));
    }
    // Not a shell, which can't trap what was ignored when it began.
    let program = "import os, signal\n\
                   say = lambda what: os.write(1, what.encode() + b'\\n')\n\
                   for s in 'TERM INT HUP QUIT USR1 USR2 WINCH'.split():\n \
                   signal.signal(signal.Signals['SIG' + s], lambda s, _: say(signal.Signals(s).name))\n\
                   say('ready')\n\
                   while True: signal.pause()";
    let mut command = w.command(&["exec", "sealed", "--", "python3", "-c", program, "{}"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    let signals = [
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::WINCH, "SIGWINCH"),
    ];
    let pid = Pid::from_child(&child);
    for (signal, name) in signals {
        kill_process(pid, signal).unwrap();
        assert_eq!(lines.next().unwrap(), name);
    }
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn the_program_gets_no_secret_of_modelseals() {
    let mut w = published();
    w.set("MODELSEAL_PASSPHRASE", modelseal_tests::workspace::PASSPHRASE);
    w.set("MODELSEAL_PIN", "1234");
    w.set("MODELSEAL_BACKUP_PASSPHRASE", "1234");
    w.set("MODELSEAL_VAULT", "file:vault.json");
    w.set("MODELSEAL_OF_LATER", "unknown");
    w.set("OTHER", "stays");
    let said = String::from_utf8(says(&w, &["exec", "sealed", "--", "sh", "-c", "env", "{}"])).unwrap();
    assert!(said.contains("OTHER=stays") && !said.contains("MODELSEAL_"), "{said}");
}

#[test]
fn what_can_not_be_run_or_opened_starts_nothing() {
    let w = published();
    let exec = |rest: &[&str]| w.command(&[&["--json", "exec"], rest].concat());
    w.refused_from(127, exec(&["sealed", "--", "no-such-command", "{}"]));
    w.refused_from(127, exec(&["sealed", "--", "./nowhere/command", "{}"]));
    w.write("script", "#!/bin/sh\n");
    w.refused_from(126, exec(&["sealed", "--", "./script", "{}"]));
    w.refused_from(126, exec(&["sealed", "--", "/", "{}"]));
    let touch = ["--", "sh", "-c", "touch started {}", "sh"];
    w.refused_from(2, exec(&["sealed", "--", "true"]));
    w.refused_from(2, exec(&["sealed"]));
    w.refused_from(6, exec(&[&["nowhere"], &touch[..]].concat()));
    let mut changed = w.read("sealed");
    *changed.last_mut().unwrap() ^= 1;
    w.write("changed", changed);
    w.refused_from(3, exec(&[&["changed"], &touch[..]].concat()));
    w.refused_from(4, exec(&[&["sealed", "--line", "other"], &touch[..]].concat()));
    w.refused_from(7, exec(&[&["/bin/sh"], &touch[..]].concat()));
    assert!(!w.path("started").exists());
    // A floor that can't be stored: not even then.
    std::fs::create_dir(w.path("kitchen-7.identity.state.lock")).unwrap();
    let by_grant = [&["--json", "exec", "sealed"], &BY_GRANT[..], &touch[..]].concat();
    w.refused_from(6, w.device_command(&by_grant));
}

#[test]
fn of_a_folder_the_files_that_are_named() {
    let w = published();
    std::fs::create_dir_all(w.path("folder/deep")).unwrap();
    w.write("folder/config.json", "{}");
    w.write("folder/deep/weights", "the weights");
    w.ok(&["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "2"]);
    w.ok(&["grant", "release", "--device", "kitchen-7", "-o", "grants"]);
    let cat = ["--", "cat", "{deep/weights}", "{config.json}"];
    assert_eq!(says(&w, &[&["exec", "release"], &cat[..]].concat()), b"the weights{}");
    let by_grant =
        [&["exec", "release", "--grant", "grants", "--identity", "kitchen-7.identity"], &cat[..]].concat();
    let run = w.run(w.device_command(&by_grant), &[]);
    assert_eq!(run.stdout, b"the weights{}", "{}", run.stderr);
    assert_eq!(w.json("kitchen-7.identity.state")["floors"]["wake-word"], 2);
    let exec = |rest: &[&str]| w.command(&[&["--json", "exec"], rest].concat());
    assert!(w.refused_from(2, exec(&["release", "--", "cat", "{}"])).hint.contains("config.json"));
    w.refused_from(2, exec(&["release", "--", "cat", "{deep}"]));
    w.refused_from(2, exec(&["release", "sealed", "--", "cat", "{1}", "{2}"]));
    std::fs::remove_file(w.path("release/deep/weights.sealed")).unwrap();
    w.refused_from(3, exec(&["release", "--", "cat", "{config.json}"]));
}
