//! The C library: its example and all that its header promises, in C, under AddressSanitizer and
//! UndefinedBehaviorSanitizer, with the shared and the static library.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;

use modelseal_tests::Workspace;
use modelseal_tests::c::{CAPI, compile};
use modelseal_tests::published::{SEAL, enroll};
use modelseal_tests::workspace::{WAKE_WORD, c_library};

const SANITIZED: [&str; 5] =
    ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1"];

/// A workspace with what the programs open.
fn workspace() -> Workspace {
    let w = Workspace::new();
    w.ok(&[&SEAL[..], &[WAKE_WORD, "-o", "sealed", "--claim", "licence=Apache-2.0"]].concat());
    enroll(&w, "kitchen-7");
    w.ok(&["grant", "sealed", "--device", "kitchen-7", "-o", "grant"]);
    let mut changed = w.read("sealed");
    *changed.last_mut().unwrap() ^= 1;
    w.write("changed", changed);
    std::fs::create_dir_all(w.path("folder/deep")).unwrap();
    w.write("folder/deep/model", std::fs::read(WAKE_WORD).unwrap());
    w.write("folder/empty", "");
    w.ok(&["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "1"]);
    w.ok(&["grant", "release", "--device", "kitchen-7", "-o", "grants"]);
    w
}

fn run(w: &Workspace, program: &PathBuf, arguments: &[&str]) -> (Option<i32>, String, String) {
    let run = w.run(w.another(program, arguments), &[]);
    (run.code, String::from_utf8(run.stdout).unwrap(), run.stderr)
}

#[test]
fn the_example_opens_a_model() {
    let w = workspace();
    for shared in [true, false] {
        let program = compile(&w, "examples/open.c", shared, &SANITIZED);
        let (code, said, stderr) = run(&w, &program, &["sealed", "grant", "kitchen-7.identity"]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert_eq!(said, "wake-word version 1 (tflite): 52272 bytes, the first is 20\n");
        // The library's words and codes are the program's.
        let (code, said, stderr) = run(&w, &program, &["changed", "grant", "kitchen-7.identity"]);
        let by_cli = w.run(
            w.device_command(&[
                "open",
                "changed",
                "-o",
                "x",
                "--grant",
                "grant",
                "--identity",
                "kitchen-7.identity",
            ]),
            &[],
        );
        assert_eq!((code, said.as_str(), stderr), (by_cli.code, "", by_cli.stderr));
        assert_eq!(code, Some(3));
    }
}

#[test]
fn everything_promised_holds_from_several_threads() {
    let w = workspace();
    let arguments = ["sealed", "changed", "grant", "kitchen-7.identity", WAKE_WORD, "release", "grants"];
    for shared in [true, false] {
        let program = compile(&w, "tests/threads.c", shared, &SANITIZED);
        let (code, said, stderr) = run(&w, &program, &arguments);
        assert_eq!((code, said.as_str(), stderr.as_str()), (Some(0), "all as promised\n", ""));
    }
    assert_eq!(w.json("kitchen-7.identity.state")["floors"]["wake-word"], 1);
}

/// What was read in parts is confirmed when the program says so, and never what was spoiled: the older version still opens.
/// And all of it runs on as little stack as the header says.
#[test]
fn a_lazy_model_is_confirmed_when_the_program_says_so() {
    let w = workspace();
    let program = compile(&w, "tests/confirm.c", false, &["-O1"]);
    let floor = |w: &Workspace| {
        w.path("kitchen-7.identity.state")
            .exists()
            .then(|| w.json("kitchen-7.identity.state")["floors"]["wake-word"].clone())
    };
    let opened = |sealed: &str, file: &str, grant: &str, confirm: &str| {
        let command = w.another(&program, &["256", sealed, file, grant, "kitchen-7.identity"]);
        w.run(command, confirm.as_bytes()).code
    };
    assert_eq!(opened("sealed", "-", "grant", "n"), Some(0));
    assert_eq!(opened("release", "deep/model", "grants", "n"), Some(0));
    assert_eq!(opened("changed", "-", "grant", "y"), Some(3));
    assert_eq!(floor(&w), None, "nobody confirmed");
    assert_eq!(opened("release", "deep/model", "grants", "y"), Some(0));
    assert_eq!(floor(&w), Some(1.into()));
    assert_eq!(opened("sealed", "-", "grant", "y"), Some(0));
}

/// The control: what is wrong is found.
#[test]
fn a_model_that_is_never_freed_is_found() {
    let w = workspace();
    let source = std::fs::read_to_string(format!("{CAPI}/examples/open.c")).unwrap();
    let wrong = source.replace("  modelseal_model_free(model);\n", "");
    assert_ne!(wrong, source);
    w.write("wrong.c", wrong);
    let program = compile(&w, w.path("wrong.c").to_str().unwrap(), true, &SANITIZED);
    let (code, _, stderr) = run(&w, &program, &["sealed", "grant", "kitchen-7.identity"]);
    assert!(code != Some(0) && stderr.contains("LeakSanitizer"), "{stderr}");
}

/// And the header is C++, too.
#[test]
fn the_header_is_for_cpp_too() {
    let w = Workspace::with_vault("file:vault.json");
    w.write("header.cpp", "#include <modelseal.h>\nint main() { return modelseal_error_code(nullptr); }\n");
    let output = Command::new("c++")
        .args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", &format!("-I{CAPI}/include")])
        .arg(w.path("header.cpp"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The library exports its functions and nothing else, all of which are in the header.
#[test]
fn what_is_exported_is_in_the_header() {
    let header = std::fs::read_to_string(format!("{CAPI}/include/modelseal.h")).unwrap();
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(c_library("libmodelseal_c.so"))
        .output()
        .unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    let exported: Vec<_> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(exported.len() > 15, "{exported:?}");
    for symbol in exported {
        assert!(symbol.starts_with("modelseal_") && header.contains(&format!("{symbol}(")), "{symbol}");
    }
}
