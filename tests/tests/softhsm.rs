//! The story with a PKCS#11 token, and what only a token can do wrong. Every test has a token of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use modelseal_tests::softhsm::{PIN, add_token, workspace};
use modelseal_tests::workspace::WAKE_WORD;
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
