//! Whatever strangers call their files, devices and lines, a terminal shows it and obeys none of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use modelseal_core::text::is_invisible;
use modelseal_tests::Workspace;
use modelseal_tests::published::published;
use serde_json::{Value, json};

/// Every kind of it in one name: escape sequences in seven and eight bits, a line of its own that looks like the
/// program's, and controls of Unicode.
const ODD: &str =
    "x\u{1b}[2J\u{9b}31m\r\nerror: forged\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}\u{7f}";

/// A command with the name in place of `@`.
const COMMANDS: [&str; 58] = [
    "init --vault file:@",
    "seal @ -o x --line wake-word --model-version 1",
    "seal @.model -o @.made --line wake-word --model-version 1",
    "seal folder -o @.release --line wake-word --model-version 1",
    "seal odd-folder -o x --line wake-word --model-version 1",
    "seal model -o x --line @ --model-version 1",
    "seal model -o x --line wake-word --model-version 1 --kind @",
    "seal model -o x --line wake-word --model-version 1 --claim @",
    "seal model -o x --line wake-word --model-version 1 --claim a=@",
    "seal model -o x --line wake-word --model-version @",
    "migrate-fernet @ -o x --line wake-word --model-version 1",
    "migrate-fernet @.model --key @.model -o x --line wake-word --model-version 1",
    "inspect @",
    "inspect @.model",
    "inspect @.release",
    "verify @",
    "verify sealed --publisher @",
    "verify sealed --publisher @.model",
    "verify sealed --publisher publisher.pem --fingerprint @",
    "open @ -o x",
    "open sealed -o @",
    "open sealed -o @.opened --line @",
    "open sealed -o x --tensor @",
    "open sealed -o x --range @",
    "open sealed -o x --grant @ --identity @",
    "open sealed -o x --grant grant --identity odd.identity",
    "tensors tensors.sealed",
    "open tensors.sealed -o x --tensor @.not",
    "exec sealed -- @",
    "exec folder sealed -- @",
    "grant sealed --device @ -o x",
    "grant sealed --device kitchen-7 -o @.grant",
    "grant sealed --devices @ -o x",
    "grant sealed --devices ids -o x",
    "grant sealed --device kitchen-7 -o x --not-before @ --not-after @",
    "rewrap @",
    "rewrap sealed @.model",
    "reseal sealed -o @.resealed --model-version 9",
    "device keygen @ --identity-out x --public-out y",
    "device keygen porch-2 --identity-out @.identity --public-out @.pem",
    "device enroll @ --line wake-word --derive --identity-out x",
    "device enroll attic-3 --line @ --derive --identity-out x",
    "device enroll attic-3 --line wake-word --public-key @.pem --identity-out @.public",
    "device complete --identity @.identity --public-part @.public",
    "device trust --identity @.identity --publisher publisher.pem",
    "device trust --identity kitchen-7.identity --publisher @",
    "device update sealed --grant grant --port @",
    "device list --registry odd.registry",
    "device show @ --registry odd.registry",
    "device show @",
    "key list --vault @",
    "key list --vault pkcs11:token=@?module-path=@",
    "key export -o @.exported",
    "key retire master 1 @",
    "key backup -o @.model",
    "key @",
    "--@",
    "man @.man",
];

#[test]
fn nothing_odd_reaches_a_terminal() {
    let utf8 = OsString::from(ODD);
    let not_utf8 = OsString::from_vec([ODD.as_bytes(), b"\xff\x9b\xe2\x80"].concat());
    for name in [utf8, not_utf8] {
        let w = stage(&name);
        for command in COMMANDS {
            let words: Vec<_> = command.split(' ').map(|word| with_name(word, &name)).collect();
            says_nothing_odd(&w, &words, command);
        }
    }
}

fn with_name(word: &str, name: &OsString) -> OsString {
    let mut parts = word.split('@');
    let mut word = OsString::from(parts.next().unwrap());
    for part in parts {
        word.push(name);
        word.push(part);
    }
    word
}

/// What the commands find.
fn stage(name: &OsString) -> Workspace {
    let w = published();
    let beside = |ending: &str| with_name(&format!("@{ending}"), name);
    w.write("model", "a model");
    w.write(Path::new(&beside(".model")), "a model");
    w.write("ids", format!("kitchen-7\n{ODD}\n").replace("\r\n", ""));
    for folder in ["folder", "odd-folder"] {
        std::fs::create_dir(w.path(folder)).unwrap();
    }
    w.write("folder/config.json", "{}");
    w.write(Path::new("odd-folder").join(name), "{}");
    let registry = w.json("registry.json");
    let device = &registry["devices"]["kitchen-7"];
    let mut odd = registry.clone();
    odd["devices"][ODD] = json!({ "lines": [ODD], "key": device["key"], "enrolled": 0 });
    w.write("odd.registry", odd.to_string());
    let mut identity = w.json("kitchen-7.identity");
    identity["lines"] = json!(["wake-word", ODD]);
    w.write("odd.identity", identity.to_string());
    let tensors = json!({ ODD: { "dtype": "U8", "shape": [1], "data_offsets": [0, 1] } }).to_string();
    let model = [&(tensors.len() as u64).to_le_bytes(), tensors.as_bytes(), b"1"].concat();
    w.write("tensors", model);
    w.ok(&["seal", "tensors", "-o", "tensors.sealed", "--line", "tensors", "--model-version", "1"]);
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    w
}

fn says_nothing_odd(w: &Workspace, words: &[OsString], command: &str) {
    for option in [&[][..], &["--json"], &["--quiet"], &["--trace"]] {
        let words: Vec<_> = option.iter().map(OsString::from).chain(words.iter().cloned()).collect();
        let run = w.run(w.command(&words), &[]);
        let stdout = String::from_utf8(run.stdout).unwrap();
        let shown = format!("{command} {option:?}: {:?} {stdout:?} {:?}", run.code, run.stderr);
        assert!(
            !run.stderr.contains("panicked") && run.code.is_some_and(|code| !(101..=125).contains(&code)),
            "{shown}"
        );
        for text in [&stdout, &run.stderr] {
            assert!(!text.chars().any(|char| char != '\n' && is_invisible(char)), "{shown}");
            assert!(!text.contains(char::REPLACEMENT_CHARACTER), "{shown}");
            assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{shown}");
            if option == ["--json"] {
                assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{shown}");
            }
        }
    }
}

#[test]
fn json_says_what_the_name_was() {
    let w = stage(&ODD.into());
    let listed = w.ok(&["device", "list", "--registry", "odd.registry"]);
    let of_odd = |device: &&Value| device["device"] == ODD && device["lines"] == json!([ODD]);
    assert_eq!(listed["devices"].as_array().unwrap().iter().filter(of_odd).count(), 1);
    assert_eq!(w.ok(&["tensors", "tensors.sealed"])["tensors"][0]["name"], ODD);
    let open = ["open", "sealed", "-o", "x", "--grant", "grant", "--identity", "odd.identity"];
    let refused = w.device_refused(3, &open);
    assert!(refused.message.contains("isn't an identity"), "{refused:?}");
}

#[test]
fn a_command_line_is_refused_in_the_words_of_any_other() {
    let w = published();
    let run = w.run(w.command(&["device", "shwo"]), &[]);
    assert!(run.stderr.starts_with("error: unrecognized subcommand 'shwo'\n"), "{}", run.stderr);
    assert!(run.stderr.contains("\nUsage: modelseal device"), "{}", run.stderr);
    assert_eq!(run.code, Some(2));
}
