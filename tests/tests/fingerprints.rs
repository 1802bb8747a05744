//! Keys that are handed on are compared by their fingerprints; secrets that others may use are warned of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use modelseal_tests::Workspace;
use modelseal_tests::published::{BY_GRANT, published};
use serde_json::{Value, json};

const KEYGEN: [&str; 7] =
    ["device", "keygen", "porch-2", "--identity-out", "porch.identity", "--public-out", "porch.pem"];
const ENROLL: [&str; 9] = [
    "device",
    "enroll",
    "porch-2",
    "--line",
    "wake-word",
    "--public-key",
    "porch.pem",
    "--identity-out",
    "porch.public",
];
const COMPLETE: [&str; 6] =
    ["device", "complete", "--identity", "porch.identity", "--public-part", "porch.public"];
const TRUST: [&str; 6] = ["device", "trust", "--identity", "porch.identity", "--publisher", "publisher.pem"];
const VERIFY: [&str; 4] = ["verify", "sealed", "--publisher", "publisher.pem"];

/// Of the one key in a file, as other tools give it.
fn by_openssl(w: &Workspace, pem: &str) -> String {
    let text = format!("openssl pkey -pubin -outform der -in {pem} | sha256sum");
    let output = Command::new("sh").args(["-c", &text]).current_dir(w.dir()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn every_command_shows_the_fingerprints_of_the_keys_that_it_hands_on() {
    let w = published();
    let exported = w.ok(&["key", "export", "-o", "publisher.pem"]);
    let publisher = json!([by_openssl(&w, "publisher.pem")]);
    let made = w.device_ok(&KEYGEN);
    let device = Value::from(by_openssl(&w, "porch.pem"));
    assert_eq!((&made["fingerprint"], &exported["publisher_fingerprints"]), (&device, &publisher));
    let listed = w.ok(&["key", "list"]);
    let of_publisher = |key: &&Value| key["role"] == "publisher";
    let keys = listed["keys"].as_array().unwrap();
    assert_eq!(keys.iter().find(of_publisher).unwrap()["fingerprint"], publisher[0]);
    for command in [&ENROLL[..], &COMPLETE, &["device", "show", "porch-2"]] {
        let said = w.ok(command);
        assert_eq!(
            (&said["fingerprint"], &said["publisher_fingerprints"]),
            (&device, &publisher),
            "{command:?}"
        );
    }
    for command in [&TRUST[..], &["key", "export"]] {
        assert_eq!(w.ok(command)["publisher_fingerprints"], publisher, "{command:?}");
    }
    // A device key that is derived has no public part.
    let derived = w.ok(&["device", "show", "kitchen-7"]);
    assert_eq!((&derived["fingerprint"], &derived["publisher_fingerprints"]), (&Value::Null, &publisher));
    // For people, in groups.
    let shown = w.run(w.command(&["device", "show", "porch-2"]), &[]);
    let grouped = |hex: &Value| {
        let hex = hex.as_str().unwrap().as_bytes();
        hex.chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(" ")
    };
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains(&grouped(&device)) && text.contains(&grouped(&publisher[0])), "{text}");
}

#[test]
fn another_key_is_refused_before_anything_is_written() {
    let w = published();
    w.ok(&["key", "rotate", "publisher"]);
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    w.ok(&KEYGEN);
    let of = |said: &Value| -> Vec<String> {
        said["publisher_fingerprints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|print| print.as_str().unwrap().into())
            .collect()
    };
    let keys = of(&w.ok(&["key", "export"]));
    let [newest, older] = [&*keys[0], &*keys[1]];
    let device = by_openssl(&w, "porch.pem");
    let other = "0123456789abcdef".repeat(4);
    let with = |command: &[&'static str], given: &[&str]| -> Vec<String> {
        let given = given.iter().flat_map(|print| ["--fingerprint", print]);
        command.iter().copied().chain(given).map(String::from).collect()
    };
    let words = |words: &[String]| {
        words.iter().map(|word| Box::leak(word.clone().into_boxed_str()) as &str).collect::<Vec<_>>()
    };
    let refuses = |command: &[&'static str], given: &[&str], code: u8| {
        let refused = w.refused(code, &words(&with(command, given)));
        assert_eq!(refused.name.is_some_and(|name| name == "OtherFingerprint"), code == 3, "{command:?}");
    };
    refuses(&ENROLL, &[&other], 3);
    refuses(&ENROLL, &[&device[..32]], 2);
    w.ok(&words(&with(&ENROLL, &[&device.to_uppercase()])));
    for command in [&COMPLETE[..], &TRUST, &VERIFY] {
        for wrong in [&[&*other][..], &[newest], &[older], &[newest, &other], &[newest, older, &other]] {
            if command != TRUST {
                refuses(command, wrong, 3);
            }
        }
        refuses(command, &[&newest[..60]], 2);
        w.ok(&words(&with(command, &[older, newest])));
    }
    refuses(&TRUST, &[newest], 3);
}

#[test]
fn a_secret_that_others_may_use_is_warned_of_even_when_little_is_said() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    let open = ["open", "sealed", "-o", "opened"];
    let device: Vec<_> = BY_GRANT.to_vec();
    for (file, command) in
        [("kitchen-7.identity", &device[..]), ("passphrase", &open), ("vault.json", &["key", "list"])]
    {
        for mode in [0o600, 0o640, 0o602] {
            std::fs::set_permissions(w.path(file), PermissionsExt::from_mode(mode)).unwrap();
            for option in ["--json", "--quiet"] {
                let run = w.run(w.command(&[command, &[option]].concat()), &[]);
                assert_eq!(run.code, Some(0), "{}", run.stderr);
                let lines: Vec<_> = run.stderr.lines().filter(|line| line.contains("chmod 600")).collect();
                assert_eq!(
                    lines.len(),
                    usize::from(mode != 0o600),
                    "{file} {mode:o} {option}: {}",
                    run.stderr
                );
                assert!(lines.iter().all(|line| line.contains(file)), "{lines:?}");
                if option == "--json"
                    && let [line] = lines[..]
                {
                    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["warning"], "exposed");
                }
            }
        }
        std::fs::set_permissions(w.path(file), PermissionsExt::from_mode(0o600)).unwrap();
    }
    // A public part is nobody's secret.
    w.ok(&KEYGEN);
    w.ok(&ENROLL);
    std::fs::set_permissions(w.path("porch.public"), PermissionsExt::from_mode(0o644)).unwrap();
    w.ok(&COMPLETE);
}
