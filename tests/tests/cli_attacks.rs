//! A sample of every attack through the real program, and its exit codes. `attacks.rs` has the whole matrix.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::time::{Duration, Instant};

use modelseal_tests::forge::Parts;
use modelseal_tests::published::{BY_GRANT, BY_VAULT, SEAL, published};
use modelseal_tests::workspace::WAKE_WORD;
use serde_json::json;

// ---- Changed files ----

#[test]
fn a_sample_of_every_change() {
    let w = published();
    let sealed = w.read("sealed");
    let model = std::fs::read(WAKE_WORD).unwrap();
    let p = Parts::of(&sealed, model.len());
    let flip = |byte: usize| {
        let mut flipped = sealed.clone();
        flipped[byte] ^= 1;
        flipped
    };
    let cases: [(&str, Vec<u8>, u8, Option<&str>); 14] = [
        ("magic", flip(0), 7, Some("ForeignMagic")),
        ("format version", flip(8), 7, Some("UnknownVersion")),
        ("manifest length", flip(10), 3, Some("ManifestEncoding")),
        ("envelope length", flip(12), 3, Some("EnvelopeLength")),
        ("suite", flip(16), 7, Some("UnknownSuite")),
        ("manifest", flip(p.envelope - 1), 3, Some("ManifestSignature")),
        ("signature", flip(p.envelope), 3, Some("ManifestSignature")),
        ("tag", flip(p.index), 3, Some("Chunk")),
        ("value", flip(p.index + 16), 3, Some("Index")),
        ("padding", flip(p.padding), 3, Some("Padding")),
        ("payload", flip(p.payload), 3, Some("Chunk")),
        ("cut", sealed[..sealed.len() - 1].to_vec(), 3, Some("Truncated")),
        ("extended", [&sealed[..], &[0]].concat(), 3, Some("Extended")),
        ("empty", Vec::new(), 3, Some("Truncated")),
    ];
    for (what, bytes, code, name) in cases {
        w.write("attacked", bytes);
        for refusal in [w.refused(code, &BY_VAULT), w.device_refused(code, &BY_GRANT)] {
            assert_eq!(refusal.name.as_deref(), name, "{what}");
            assert!(refusal.message.starts_with("attacked: "), "{what}: {refusal:?}");
        }
        let words = w.run(w.command(&BY_VAULT), &[]);
        let [error, hint] = words.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{}", words.stderr) };
        assert!(error.starts_with("error: attacked: ") && hint.starts_with("  hint: "), "{}", words.stderr);
    }
    w.write("attacked", flip(p.envelope + 64 + 20));
    assert!(w.refused(3, &BY_VAULT).message.contains("key slot"));
    w.device_ok(&BY_GRANT);
    assert!(w.read("kept") == model);
}

#[test]
fn a_sample_of_every_change_to_a_grant() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    let grant = w.read("grant");
    let flip = |byte: usize| {
        let mut flipped = grant.clone();
        flipped[byte] ^= 1;
        flipped
    };
    let cases: [(&str, Vec<u8>, u8, &str); 9] = [
        ("magic", flip(3), 7, "ForeignMagic"),
        ("version", flip(8), 7, "UnknownVersion"),
        ("suite", flip(12), 7, "UnknownSuite"),
        ("model", flip(13), 3, "GrantKey"),
        ("wrapping", flip(grant.len() - 2), 3, "GrantKey"),
        ("cut", grant[..grant.len() - 1].to_vec(), 3, "Truncated"),
        ("extended", [&grant[..], &[0]].concat(), 3, "Extended"),
        ("long", [&grant[..], &[0; 5000]].concat(), 3, "Extended"),
        ("huge", vec![0; 1 << 20], 7, "ForeignMagic"),
    ];
    for (what, bytes, code, name) in cases {
        w.write("grant", bytes);
        let refusal = w.device_refused(code, &BY_GRANT);
        assert_eq!(refusal.name.as_deref(), Some(name), "{what}");
        assert!(refusal.message.starts_with("grant: "), "{what}: {refusal:?}");
    }
    // However long: what is no grant is said to be none.
    for file in ["kitchen-7.identity", "attacked"] {
        w.write("grant", w.read(file));
        w.device_refused(7, &BY_GRANT);
    }
}

#[test]
fn a_model_of_another_vault() {
    let (w, stranger) = (published(), published());
    w.write("attacked", stranger.read("sealed"));
    for refusal in [w.refused(3, &BY_VAULT), w.device_refused(3, &BY_GRANT)] {
        assert_eq!(refusal.name.as_deref(), Some("ManifestSignature"));
    }
    w.refused(3, &["verify", "attacked"]);
    w.refused(3, &["grant", "attacked", "--device", "kitchen-7", "-o", "kept"]);
    stranger.ok(&["key", "export", "-o", "publisher.pem"]);
    w.write("publisher.pem", stranger.read("publisher.pem"));
    w.device_ok(&["verify", "attacked", "--publisher", "publisher.pem"]);
    w.device_refused(3, &["verify", "sealed", "--publisher", "publisher.pem"]);
}

// ---- Exit codes ----

#[test]
fn what_is_wrong_on_the_command_line_exits_2() {
    let w = published();
    let long = "x".repeat(65);
    let claim = format!("k={}", "v".repeat(129));
    for arguments in [
        &["frobnicate"][..],
        &["open", "sealed"],
        &["open", "sealed", "-o", "x", "--grant", "grant"],
        &["--vault", "nowhere", "key", "list"],
        &["--vault", "file:", "key", "list"],
        &[&SEAL[..], &["/dev/null", "-o", "x"]].concat(),
        &[&SEAL[..], &["sealed", "-o", "sealed"]].concat(),
        &["seal", "sealed", "-o", "x", "--line", "Wake Word", "--model-version", "1"],
        &["seal", "sealed", "-o", "x", "--line", &long, "--model-version", "1"],
        &["seal", "sealed", "-o", "x", "--line", "l", "--model-version", "-1"],
        &[&SEAL[..], &["sealed", "-o", "x", "--claim", "no-value"]].concat(),
        &[&SEAL[..], &["sealed", "-o", "x", "--claim", "a=1", "--claim", "a=2"]].concat(),
        &[&SEAL[..], &["sealed", "-o", "x", "--claim", &claim]].concat(),
        &["device", "keygen", "no spaces", "--identity-out", "x", "--public-out", "y"],
        &["device", "enroll", "d", "--line", "l"],
        &[
            "grant",
            "sealed",
            "--device",
            "kitchen-7",
            "-o",
            "x",
            "--not-before",
            "soon",
            "--not-after",
            "later",
        ],
    ] {
        w.refused(2, arguments);
    }
}

#[test]
fn what_the_vault_refuses_exits_5() {
    let mut w = published();
    let list = ["key", "list"];
    assert!(w.refused(5, &["--vault", "file:nowhere", "key", "list"]).hint.contains("init"));
    for unknown in ["key retire master 7", "key destroy master 7 --confirm x", "key export --version 9"] {
        let refused = w.refused(5, &unknown.split(' ').collect::<Vec<_>>());
        assert!(refused.hint.contains("`modelseal key list`"), "{unknown}: {refused:?}");
    }
    w.write("wrong", "wrong");
    w.set("MODELSEAL_PASSPHRASE_FILE", "wrong");
    let wrong = w.refused(5, &list);
    assert!(wrong.message.contains("passphrase") && wrong.message.contains("vault.json"), "{wrong:?}");
    assert!(wrong.hint.contains("MODELSEAL_PASSPHRASE_FILE"), "{wrong:?}");
    w.write("attacked", w.read("sealed"));
    w.refused(5, &BY_VAULT);
    w.set("MODELSEAL_PASSPHRASE_FILE", "nowhere");
    w.refused(5, &list);
    // Without a passphrase and without a terminal to ask at.
    w.set("MODELSEAL_PASSPHRASE_FILE", "");
    let alone = |arguments: &[&str]| w.wrapped(&["setsid", "--wait"], &[arguments, &["--json"]].concat());
    let none = w.refused_from(5, alone(&list));
    assert!(none.hint.contains("MODELSEAL_PASSPHRASE"), "{none:?}");
    w.refused_from(5, alone(&["init", "--vault", "file:new.json", "--registry", "new.registry"]));
    let mut empty = alone(&["init", "--vault", "file:new.json", "--registry", "new.registry"]);
    empty.env("MODELSEAL_PASSPHRASE", "");
    w.refused_from(5, empty);
}

#[test]
fn a_damaged_vault_exits_5_at_once() {
    let w = published();
    let vault = w.json("vault.json");
    let change = |pointer: &str, value: serde_json::Value| {
        let mut changed = vault.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed.to_string()
    };
    for text in [
        String::new(),
        "{}".into(),
        change("/format", json!("modelseal vault 2")),
        change("/keys", json!("")),
        change("/kdf/memory_kib", json!(u32::MAX)),
        change("/kdf/memory_kib", json!(0)),
        change("/kdf/passes", json!(u32::MAX)),
        change("/kdf/passes", json!(0)),
        change("/kdf/lanes", json!(0)),
        change("/kdf/lanes", json!(u32::MAX)),
        change("/nonce", json!("00".repeat(12))),
        "x".repeat(2 << 20),
    ] {
        w.write("vault.json", &text);
        let began = Instant::now();
        w.refused(5, &["key", "list"]);
        assert!(began.elapsed() < Duration::from_secs(20), "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn what_is_not_there_exits_6() {
    let w = published();
    let nowhere = [
        &["open", "nowhere", "-o", "x"][..],
        &["inspect", "nowhere"],
        &["verify", "nowhere"],
        &["verify", "sealed", "--publisher", "nowhere"],
        &["grant", "nowhere", "--device", "kitchen-7", "-o", "x"],
        &["open", "sealed", "-o", "x", "--grant", "nowhere", "--identity", "kitchen-7.identity"],
        &["open", "sealed", "-o", "x", "--grant", "grant", "--identity", "nowhere"],
        &["open", "sealed", "-o", "nowhere/x"],
        &["open", "sealed", "-o", "tmp"],
        &[&SEAL[..], &["sealed", "-o", "nowhere/x"]].concat(),
        &[&SEAL[..], &["nowhere", "-o", "x"]].concat(),
        &["--registry", "nowhere", "device", "list"],
        &["key", "export", "-o", "nowhere/x"],
    ];
    for arguments in nowhere {
        let refusal = w.refused(6, arguments);
        assert!(refusal.message.contains("nowhere") || refusal.message.contains("tmp"), "{refusal:?}");
    }
}
