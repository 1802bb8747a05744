//! The story with a PKCS#11 token, and what only a token can do wrong. Every test has a token of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use modelseal_tests::softhsm::{PIN, add_token, workspace};
use modelseal_tests::workspace::{Refusal, WAKE_WORD};
use modelseal_tests::{Workspace, story};

fn seal(w: &Workspace, out: &str) {
    w.ok(&["seal", WAKE_WORD, "-o", out, "--line", "wake-word", "--model-version", "1"]);
}

#[test]
fn the_whole_path_with_a_token() {
    story::tell(&workspace());
}

#[test]
fn the_whole_path_with_a_token_that_signs_with_ecdsa() {
    let w = workspace();
    let keys = w.ok(&["init", "--publisher-algorithm", "ecdsa-p256"]);
    assert_eq!(keys["keys"][2]["algorithm"], "ecdsa-p256");
    seal(&w, "sealed");
    w.ok(&["verify", "sealed"]);
    w.ok(&["open", "sealed", "-o", "opened"]);
    assert!(w.read("opened") == std::fs::read(WAKE_WORD).unwrap());
}

#[test]
fn a_wrong_pin_is_said_and_the_tries_that_are_left() {
    let w = workspace();
    w.ok(&["init"]);
    w.write("pin", "000000");
    for _ in 0..2 {
        let refusal = w.refused(5, &["key", "list"]);
        assert!(refusal.message.contains("PIN"), "{refusal:?}");
        assert!(refusal.hint.contains("pin-source") && refusal.hint.contains("MODELSEAL_PIN"), "{refusal:?}");
    }
    w.refused(5, &["seal", WAKE_WORD, "-o", "sealed", "--line", "wake-word", "--model-version", "1"]);
    w.write("pin", PIN);
    w.ok(&["key", "check"]);
}

#[test]
fn a_token_that_is_not_there() {
    let w = workspace();
    w.ok(&["init"]);
    let uri = add_token(&w, "empty");
    let with = |from: &str, to: &str| {
        let uri = uri.replace(from, to);
        w.refused(5, &["--vault", &uri, "key", "list"])
    };
    let missing = with("token=empty", "token=nobody");
    assert!(missing.hint.contains("token="), "{missing:?}");
    let module = with("libsofthsm2.so", "no-such-module.so");
    assert!(
        module.message.contains("no-such-module.so") && module.hint.contains("module-path"),
        "{module:?}"
    );
    let pin = with("pin-source=", "pin-source=/nowhere");
    assert!(pin.message.contains("/nowhere"), "{pin:?}");
    let leak = w.refused(2, &["--vault", &format!("{uri}&pin-value={PIN}"), "key", "list"]);
    assert!(leak.message.contains("pin-value") && !leak.message.contains(PIN), "{leak:?}");
    // A token without keys isn't a vault yet.
    let empty =
        w.refused(5, &["--vault", &uri, "seal", WAKE_WORD, "-o", "x", "--line", "l", "--model-version", "1"]);
    assert!(empty.hint.contains("init"), "{empty:?}");
}

/// One token's model is nothing to another, nor to a software vault, and the other way round.
#[test]
fn a_model_of_one_vault_cannot_be_opened_by_another() {
    let w = workspace();
    w.ok(&["init"]);
    seal(&w, "sealed");
    let other = add_token(&w, "other");
    w.ok(&["--vault", &other, "--registry", "other.json", "init"]);
    w.ok(&["--vault", "file:vault.json", "--registry", "file.json", "init"]);
    for stranger in [other.as_str(), "file:vault.json"] {
        let refusal = w.refused(3, &["--vault", stranger, "open", "sealed", "-o", "opened"]);
        assert_eq!(refusal.name.as_deref(), Some("ManifestSignature"));
        w.refused(3, &["--vault", stranger, "verify", "sealed"]);
        let seal =
            ["--vault", stranger, "seal", WAKE_WORD, "-o", "theirs", "--line", "l", "--model-version", "1"];
        w.ok(&seal);
        w.refused(3, &["open", "theirs", "-o", "opened"]);
        // A registry belongs to one publisher.
        let enroll = ["device", "enroll", "d", "--line", "l", "--derive", "--identity-out", "d.identity"];
        w.refused(5, &[&["--vault", stranger], &enroll[..]].concat());
    }
}

/// The login that the check needs makes the token forget them.
#[test]
fn a_check_tells_of_wrong_tries_before_it() {
    let w = workspace();
    w.ok(&["init"]);
    let pin = || {
        let check = w.ok(&["key", "check"]);
        let findings = check["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["subject"] == "PIN").unwrap()
    };
    assert_eq!(pin()["status"], "ok");
    w.write("pin", "000000");
    w.refused(5, &["key", "list"]);
    w.write("pin", PIN);
    let warned = pin();
    assert_eq!(warned["status"], "note");
    assert!(warned["detail"].as_str().unwrap().contains("wrong tries"), "{warned}");
    assert_eq!(pin()["status"], "ok");
}

#[test]
fn a_check_without_a_login_shows_the_rest() {
    let w = workspace();
    w.ok(&["init"]);
    for (pin, what) in [("000000", "refused the PIN"), ("", "needs a passphrase or PIN")] {
        w.write("pin", pin);
        let run = w.run(w.command(&["key", "check", "--json", "--trace"]), &[]);
        assert_eq!(run.code, Some(5), "{run:?}");
        assert!(Refusal::parse(5, &run.stderr).hint.contains("pin-source"), "{run:?}");
        let check: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        let findings = check["findings"].as_array().unwrap();
        for part in ["library", "token", "mechanisms"] {
            assert!(findings.iter().any(|finding| finding["part"] == part), "{part}: {check:#}");
        }
        let failed: Vec<_> = findings.iter().filter(|finding| finding["status"] == "fail").collect();
        let [failed] = failed[..] else { panic!("{failed:?}") };
        assert_eq!((&failed["subject"], &check["failed"]), (&"PIN".into(), &1.into()));
        assert!(failed["detail"].as_str().unwrap().contains(what), "{failed}");
    }
    let logins = w.trace().iter().filter(|line| line.contains("login")).count();
    assert_eq!(logins, 1, "the PIN is tried once: {:?}", w.trace());
}

/// Nothing but the token is common to them: every process has a registry of its own.
#[test]
fn keys_made_at_once_by_processes_are_different_versions() {
    let w = workspace();
    w.ok(&["init"]);
    let rotate = |i: usize| w.ok(&["--registry", &format!("{i}.json"), "key", "rotate", "fleet"]);
    let mut made: Vec<_> = at_once(8, rotate).iter().map(|made| made["made"]["version"].clone()).collect();
    made.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(serde_json::json!(made), serde_json::json!([2, 3, 4, 5, 6, 7, 8, 9]));
    w.ok(&["key", "check"]);
}

#[test]
fn of_vaults_made_at_once_in_one_token_there_is_one() {
    for registries in [["0.json", "1.json", "2.json", "3.json"], ["one.json"; 4]] {
        let w = workspace();
        let runs = at_once(4, |i| {
            let init = ["--registry", registries[i], "init", "--json"];
            w.run(w.command(&init), &[])
        });
        let (made, refused): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.code == Some(0));
        assert_eq!(made.len(), 1, "{runs:?}");
        for run in refused {
            let refusal = Refusal::parse(5, &run.stderr);
            let is_there = ["already holds a vault", "there is a registry at"];
            assert!(is_there.iter().any(|text| refusal.message.contains(text)), "{refusal:?}");
        }
        let keys = w.ok(&["key", "list"]);
        assert_eq!(keys["keys"].as_array().unwrap().len(), 3, "{keys}");
        w.ok(&["key", "check"]);
    }
}

/// Runs `work` in as many threads.
fn at_once<T: Send>(times: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..times).map(|i| scope.spawn(move || work(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The PIN is read from its file and goes nowhere else.
#[test]
fn the_pin_stays_in_its_file() {
    let w = workspace();
    story::tell(&w);
    for (path, bytes) in w.snapshot().iter().filter(|(path, _)| **path != w.path("pin")) {
        assert!(!contains(bytes, PIN.as_bytes()), "{}", path.display());
    }
    assert!(!contains(&w.everything_said(), PIN.as_bytes()));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
