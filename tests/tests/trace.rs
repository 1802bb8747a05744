//! `--trace` shows each use of a vault's key, of whatever kind the vault is, and never a secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use modelseal_tests::exposed::{content_key, vault_keys};
use modelseal_tests::faults::{User, calls, empty_workspace};
use modelseal_tests::softhsm::{self, PIN};
use modelseal_tests::workspace::{PASSPHRASE, WAKE_WORD};
use modelseal_tests::{Workspace, story};
use serde_json::Value;

/// Operation, key and outcome of each span, of those that are objects.
fn spans(w: &Workspace) -> Vec<(String, String, String)> {
    let lines = w.trace();
    let objects = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |span: &Value, name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let spans = objects.map(|object| {
        let span = object["span"].clone();
        assert!(span["microseconds"].is_u64() && span["outcome"].is_string(), "{object}");
        (text(&span, "operation"), text(&span, "key"), text(&span, "outcome"))
    });
    spans.collect()
}

fn traced(mut w: Workspace) -> Workspace {
    w.set("MODELSEAL_TRACE", "1");
    w
}

#[test]
fn the_whole_story_shows_every_kind_of_use_and_no_secret() {
    for (w, is_token) in
        [(traced(Workspace::with_vault("file:vault.json")), false), (traced(softhsm::workspace()), true)]
    {
        story::tell(&w);
        let seen: BTreeSet<_> = spans(&w).into_iter().collect();
        let mut expected = vec![
            ("generate", "master/1"),
            ("generate", "fleet/1"),
            ("generate", "publisher/1"),
            ("encrypt", "master/1"),
            ("decrypt", "master/1"),
            ("cmac", "fleet/1"),
            ("sign", "publisher/1"),
            ("check", ""),
        ];
        if is_token {
            expected.push(("login", "models"));
        }
        for (operation, key) in expected {
            let span = (operation.to_owned(), key.to_owned(), "ok".to_owned());
            assert!(seen.contains(&span), "{span:?} of {seen:#?}");
        }
        let trace = w.trace().concat();
        assert!(trace.lines().any(|line| !line.starts_with('{') && line.contains("operation=\"decrypt\"")));
        for (name, secret) in secrets(&w, is_token) {
            let forms = [secret.clone(), hex::encode(&secret).into(), format!("{secret:?}").into_bytes()];
            for form in forms {
                let found = trace.as_bytes().windows(form.len()).any(|window| window == form);
                assert!(!found, "{name} is in the trace");
            }
        }
    }
}

fn secrets(w: &Workspace, is_token: bool) -> Vec<(String, Vec<u8>)> {
    let mut secrets = vec![("passphrase".into(), PASSPHRASE.into()), ("PIN".into(), PIN.into())];
    let sealed = ["v1.sealed", "v2.sealed", "v3.sealed", "other.sealed"];
    if is_token {
        let mut user = User::start(w.another(env!("CARGO_BIN_EXE_user"), &[] as &[&str]));
        for name in sealed {
            let key = user.does(&format!("content key {name}"));
            secrets.push((name.into(), hex::decode(key.strip_prefix("ok ").unwrap()).unwrap()));
        }
        user.ends();
    } else {
        secrets.extend(vault_keys(w, PASSPHRASE));
        secrets.extend(sealed.map(|name| (name.into(), content_key(w, name).to_vec())));
    }
    for (name, field) in
        [("kitchen", "device_key"), ("cellar", "device_key"), ("porch", "x25519"), ("attic", "x25519")]
    {
        let key = w.json(&format!("{name}.identity"))[field].as_str().unwrap().to_owned();
        secrets.push((name.into(), hex::decode(key).unwrap()));
    }
    secrets
}

/// How often a span says that its key was used: `uses`, or once.
fn uses(w: &Workspace, operation: &str) -> usize {
    let lines = w.trace();
    let objects = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_it = objects.filter(|object| object["span"]["operation"] == operation);
    of_it.map(|object| object["span"]["uses"].as_u64().map_or(1, |uses| usize::try_from(uses).unwrap())).sum()
}

/// As many uses as the library was called.
#[test]
fn every_use_is_shown() {
    let w = traced(empty_workspace());
    w.ok(&["init"]);
    w.ok(&["seal", WAKE_WORD, "-o", "sealed", "--line", "l", "--model-version", "1"]);
    w.ok(&["open", "sealed", "-o", "opened"]);
    w.ok(&["device", "enroll", "d", "--derive", "--line", "l", "--identity-out", "d.identity"]);
    w.ok(&["grant", "sealed", "--device", "d", "-o", "d.grant"]);
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    let shown = |operation: &str| uses(&w, operation);
    let functions =
        ["C_EncryptInit", "C_DecryptInit", "C_SignInit", "C_Login", "C_GenerateKey", "C_GenerateKeyPair"];
    let called = calls(&w, &functions);
    let signed = shown("sign") + shown("cmac");
    assert_eq!(called[..4], [shown("encrypt"), shown("decrypt"), signed, shown("login")]);
    assert_eq!((shown("generate"), called[4], called[5]), (3, 2, 1));
    assert!(called.iter().all(|count| *count > 0), "{called:?}");
}

/// A new key is named with its version, once; copies of all keys are shown, too.
#[test]
fn the_life_of_keys_is_shown() {
    for (mut w, is_token) in
        [(traced(Workspace::with_vault("file:vault.json")), false), (traced(softhsm::workspace()), true)]
    {
        w.ok(&["init"]);
        let mut before = spans(&w).len();
        let mut shows = |w: &Workspace, arguments: &[&str], operation: &str, key: &str| {
            w.ok(arguments);
            let spans = spans(w).split_off(before);
            before += spans.len();
            let of_it: Vec<_> = spans.iter().filter(|(name, ..)| name == operation).collect();
            let expected = (operation.to_owned(), key.to_owned(), "ok".to_owned());
            assert_eq!(of_it, [&expected], "{arguments:?}");
        };
        shows(&w, &["key", "rotate", "master"], "generate", "master/2");
        shows(&w, &["key", "rotate", "publisher"], "generate", "publisher/2");
        if !is_token {
            w.set("MODELSEAL_BACKUP_PASSPHRASE", "another");
            shows(&w, &["key", "backup", "-o", "backup"], "backup", "");
            std::fs::remove_file(w.path("vault.json")).unwrap();
            shows(&w, &["key", "restore", "backup"], "restore", "");
        }
    }
}

#[test]
fn a_failure_is_shown_by_name() {
    let mut w = traced(modelseal_tests::faults::workspace());
    w.set("MODELSEAL_TOKEN_TIMEOUT", "1");
    modelseal_tests::faults::set(&w, "C_Encrypt hang");
    w.refused(5, &["seal", WAKE_WORD, "-o", "sealed", "--line", "l", "--model-version", "1"]);
    let gave_up = ("encrypt".to_owned(), "master/1".to_owned(), "NoAnswer".to_owned());
    assert!(spans(&w).contains(&gave_up), "{:?}", spans(&w));
    // It is an option, too; without it, nothing is shown.
    w.set("MODELSEAL_TRACE", "0");
    let before = w.trace().len();
    modelseal_tests::faults::set(&w, "C_Encrypt 0x32 1");
    let seal = ["seal", WAKE_WORD, "-o", "sealed", "--line", "l", "--model-version", "1"];
    w.ok(&seal);
    assert_eq!(w.trace().len(), before);
    w.ok(&[&seal[..], &["--trace"]].concat());
    assert!(w.trace().len() > before);
}
