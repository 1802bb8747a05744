//! The pages of docs/ that begin with lines that work: they are run.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::process::Command;

use modelseal_tests::Workspace;
use modelseal_tests::published::published;
use modelseal_tests::workspace::{WAKE_WORD, c_library, program};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The fenced blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/docs/{page}")).unwrap();
    let fences = text.split("\n```").collect::<Vec<_>>();
    // What opens a fence has a language; what follows is what was fenced.
    let fenced = fences.iter().filter_map(|part| part.strip_prefix(&format!("{language}\n")));
    fenced.map(str::to_owned).collect()
}

/// A folder with a model, and with the passphrase for whoever is asked.
fn workspace() -> Workspace {
    let mut w = Workspace::with_vault("file:vault.json");
    w.write("wake.tflite", std::fs::read(WAKE_WORD).unwrap());
    let path = std::env::join_paths(
        [program().parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    w.set("PATH", path.unwrap());
    w
}

/// Runs all of the page's blocks as one script that ends at the first failure, and gives what it said.
fn run(page: &str) -> String {
    let blocks = blocks(page, "sh");
    let lines = blocks[0].lines().filter(|line| !line.is_empty()).count();
    assert!((8..=10).contains(&lines), "{page} begins with {lines} lines");
    let w = workspace();
    let script = format!("set -eu\n{}", blocks.join("\n"));
    let run = w.run(w.another("bash", &["-c", &script]), &[]);
    assert_eq!(run.code, Some(0), "{page}: {}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
    String::from_utf8_lossy(&run.stdout).into_owned()
}

fn sum_of(path: &str) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn the_command_line() {
    assert!(run("CLI.md").contains(&sum_of(WAKE_WORD)));
}

#[test]
fn a_service() {
    // Once by the name in /proc, once through a link with an ending.
    assert_eq!(run("SERVICE.md").matches(&sum_of(WAKE_WORD)).count(), 2);
}

#[test]
fn a_program_in_c() {
    let source = &blocks("C.md", "c")[0];
    assert_eq!(source.lines().count(), 10);
    let w = published();
    for (from, to) in [("sealed", "wake.sealed"), ("grant", "kitchen-7.grant")] {
        w.write(to, w.read(from));
    }
    w.write("open.c", source);
    let include = format!("-I{ROOT}/host/capi/include");
    let output = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", &include])
        .arg(w.path("open.c"))
        .arg(c_library("libmodelseal_c.a"))
        .args(["-lm", "-o"])
        .arg(w.path("open"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = w.run(w.another("./open", &[] as &[&str]), &[]);
    assert!(run.stdout == std::fs::read(WAKE_WORD).unwrap(), "{}", run.stderr);
}
