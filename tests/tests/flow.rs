//! The story with the software vault. `src/story.rs` tells it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use modelseal_tests::workspace::WAKE_WORD;
use modelseal_tests::{Workspace, story};

#[test]
fn the_whole_path_with_a_software_vault() {
    story::tell(&Workspace::with_vault("file:vault.json"));
}

/// A vault that signs with ECDSA P-256, as on a token without Ed25519.
#[test]
fn the_whole_path_with_ecdsa_signatures() {
    let w = Workspace::with_vault("file:vault.json");
    w.ok(&["init", "--publisher-algorithm", "ecdsa-p256"]);
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    let seal = ["seal", WAKE_WORD, "-o", "sealed", "--line", "wake-word", "--model-version", "1"];
    w.ok(&seal);
    w.device_ok(&["verify", "sealed", "--publisher", "publisher.pem"]);
    w.device_ok(&["device", "keygen", "porch-2", "--identity-out", "identity", "--public-out", "public"]);
    let enroll = ["device", "enroll", "porch-2", "--line", "wake-word", "--public-key", "public"];
    w.ok(&[&enroll[..], &["--identity-out", "identity"]].concat());
    w.ok(&["grant", "sealed", "--device", "porch-2", "-o", "grant"]);
    w.device_ok(&["open", "sealed", "-o", "opened", "--grant", "grant", "--identity", "identity"]);
    assert!(w.read("opened") == std::fs::read(WAKE_WORD).unwrap());
}

/// What the README's first command runs.
#[test]
fn the_demo() {
    let w = Workspace::with_vault("file:nowhere");
    let shown = w.device_ok(&["demo", "--dir", "demo"]);
    assert_eq!(shown["blake3"], blake3::hash(&std::fs::read(WAKE_WORD).unwrap()).to_hex().as_str());
}
