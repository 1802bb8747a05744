//! What is kept on disk: vault, identities, states and the registry, whole and for their owner; and no secret
//! anywhere else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::HashSet;

use modelseal_tests::exposed::{content_key, vault_keys};
use modelseal_tests::published::{BY_GRANT, ENROLL, enroll, published};
use modelseal_tests::workspace::{PASSPHRASE, WAKE_WORD};
use modelseal_tests::{Workspace, story};

#[test]
fn secrets_are_for_their_owner_and_written_once() {
    let w = published();
    w.device_ok(&[
        "device",
        "keygen",
        "porch-2",
        "--identity-out",
        "porch.identity",
        "--public-out",
        "porch.pem",
    ]);
    for secret in ["vault.json", "kitchen-7.identity", "porch.identity"] {
        assert_eq!(w.mode(secret), 0o600, "{secret}");
    }
    // Even where the umask would let nobody or everybody read.
    let loose = w.wrapped(&["sh", "-c", "umask 0; \"$@\"", "sh"], &["open", "sealed", "-o", "opened"]);
    assert_eq!(w.run(loose, &[]).code, Some(0));
    assert_eq!(w.mode("opened"), 0o600);

    w.refused(5, &["init"]);
    w.refused(5, &["init", "--registry", "another"]);
    w.device_refused(
        6,
        &["device", "keygen", "porch-2", "--identity-out", "porch.identity", "--public-out", "x"],
    );
    let again = w.refused(4, &[&ENROLL[..], &["kitchen-7", "--identity-out", "again.identity"]].concat());
    assert!(again.message.contains("kitchen-7") && again.hint.contains("new id"), "{again:?}");
    w.refused(6, &[&ENROLL[..], &["attic-3", "--identity-out", "kitchen-7.identity"]].concat());
    w.refused(6, &[&ENROLL[..], &["attic-3", "--identity-out", "porch.identity"]].concat());
    // The refused ids are still free.
    enroll(&w, "attic-3");
}

#[test]
fn a_state_that_is_missing_or_corrupt_is_refused_once_the_identity_was_used() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    w.device_ok(&BY_GRANT);
    let state = w.json("kitchen-7.identity.state");
    assert_eq!(state["floors"]["wake-word"], 1);
    w.write("kept", "from before");
    let elsewhere = [&BY_GRANT[..], &["--state", "elsewhere.state"]].concat();
    let missing = w.device_refused(6, &elsewhere);
    assert!(missing.message.contains("elsewhere.state") && missing.hint.contains("missing"), "{missing:?}");
    std::fs::remove_file(w.path("kitchen-7.identity.state")).unwrap();
    w.device_refused(6, &BY_GRANT);
    w.device_refused(6, &[&BY_GRANT[..], &["--no-confirm"]].concat());

    let text = state.to_string();
    for corrupt in [
        "",
        "0",
        "{}",
        "null",
        &text[..text.len() - 1],
        &text.replace("state 1", "state 2"),
        &text.replace("kitchen-7", "porch-2"),
        &text.replace(":1", ":-1"),
        &text.replace(":1", ":1.5"),
        &text.replace(":1", ":18446744073709551616"),
        &text.replace("floors", "flaws"),
    ] {
        assert_ne!(corrupt, text);
        w.write("kitchen-7.identity.state", corrupt);
        assert_eq!(w.device_refused(6, &BY_GRANT).name.as_deref(), Some("Floor"), "{corrupt}");
    }
    w.write("kitchen-7.identity.state", &text);
    w.device_ok(&BY_GRANT);
    // And it can be restored at a place of its own.
    w.write("elsewhere.state", &text);
    w.device_ok(&elsewhere);
}

/// A floor that can't be stored: then nothing is handed out.
#[test]
fn a_floor_that_cannot_be_stored_leaves_no_output() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    w.device_refused(6, &[&BY_GRANT[..], &["--state", "nowhere/state"]].concat());
    w.device_ok(&[&BY_GRANT[..], &["--state", "nowhere/state", "--no-confirm"]].concat());
}

#[test]
fn damaged_identities_and_registries_are_refused() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    let identity = String::from_utf8(w.read("kitchen-7.identity")).unwrap();
    let key = w.json("kitchen-7.identity")["device_key"].as_str().unwrap().to_owned();
    for corrupt in [
        "",
        "{}",
        &identity.replace("identity 1", "identity 2"),
        &identity.replace("kitchen-7", "kitchen 7"),
        &identity.replace(&key, &key[2..]),
        &identity.replace(&key, &"zz".repeat(32)),
    ] {
        w.write("kitchen-7.identity", corrupt);
        w.device_refused(3, &BY_GRANT);
    }
    // A changed key or publisher is of the right shape; the grant or the manifest just doesn't fit it.
    w.write("kitchen-7.identity", identity.replace(&key, &"00".repeat(32)));
    assert_eq!(w.device_refused(3, &BY_GRANT).name.as_deref(), Some("GrantKey"));
    let registry = String::from_utf8(w.read("registry.json")).unwrap();
    for corrupt in
        ["", "{}", "[]", &registry.replace("registry 1", "registry 2"), &registry[..registry.len() - 3]]
    {
        w.write("registry.json", corrupt);
        w.refused(3, &["device", "list"]);
        w.refused(3, &[&ENROLL[..], &["attic-3", "--identity-out", "attic-3.identity"]].concat());
    }
}

/// Every point of small order on the curve and its twist, each with and without the bit that is ignored, and as
/// numbers above the field's prime (RFC 7748, section 5; libsodium's list).
#[test]
fn x25519_keys_of_small_order_are_refused() {
    let w = Workspace::new();
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let enroll =
        ["device", "enroll", "porch-2", "--line", "l", "--public-key", "porch.pem", "--identity-out", "x"];
    for point in points {
        for ignored in [0, 0x80] {
            let mut public: [u8; 32] = hex::decode(point).unwrap().try_into().unwrap();
            public[31] |= ignored;
            w.write("porch.pem", modelseal::pem::x25519(&public).unwrap());
            let refusal = w.refused(3, &enroll);
            assert_eq!(refusal.name.as_deref(), Some("Key"), "{point}");
        }
    }
    // A public key of another kind, or several, or none.
    w.ok(&["key", "export", "-o", "porch.pem"]);
    w.refused(3, &enroll);
    let fine = modelseal::pem::x25519(&[9; 32]).unwrap();
    for text in ["", "porch", &fine.repeat(2), &fine.replace("PUBLIC", "PRIVATE"), &fine[..fine.len() - 9]] {
        w.write("porch.pem", text);
        w.refused(3, &enroll);
    }
    w.write("porch.pem", fine);
    w.ok(&enroll);
}

#[test]
fn enrolments_at_the_same_time_lose_nothing() {
    let w = Workspace::new();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let w = &w;
            scope.spawn(move || enroll(w, &format!("device-{i}")));
        }
    });
    assert_eq!(w.ok(&["device", "list"])["devices"].as_array().unwrap().len(), 8);

    // The same id eight times: one wins, and only the winner gets an identity.
    let codes = std::thread::scope(|scope| {
        let race = |i: usize| {
            let out = format!("racer.{i}");
            let w = &w;
            move || w.run(w.command(&[&ENROLL[..], &["racer", "--identity-out", &out]].concat()), &[]).code
        };
        let racers: Vec<_> = (0..8).map(|i| scope.spawn(race(i))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(4)).count(), 7, "{codes:?}");
    assert_eq!((0..8).filter(|i| w.path(&format!("racer.{i}")).exists()).count(), 1);
}

/// Openings at the same time leave the highest floor, whichever ends last.
#[test]
fn confirmations_at_the_same_time_leave_the_highest_floor() {
    let w = Workspace::new();
    enroll(&w, "kitchen-7");
    let versions = 1..=4;
    for version in versions.clone() {
        let (sealed, grant) = (format!("sealed.{version}"), format!("grant.{version}"));
        let version = version.to_string();
        w.ok(&["seal", WAKE_WORD, "-o", &sealed, "--line", "wake-word", "--model-version", &version]);
        w.ok(&["grant", &sealed, "--device", "kitchen-7", "-o", &grant]);
    }
    std::thread::scope(|scope| {
        for version in versions {
            let w = &w;
            scope.spawn(move || {
                let (sealed, grant) = (format!("sealed.{version}"), format!("grant.{version}"));
                let out = format!("opened.{version}");
                let open =
                    ["open", &sealed, "-o", &out, "--grant", &grant, "--identity", "kitchen-7.identity"];
                // An older version may come too late, and is then refused.
                let code = w.run(w.device_command(&open), &[]).code;
                assert!(code == Some(0) || (code == Some(4) && version < 4), "{version}: {code:?}");
            });
        }
    });
    assert_eq!(w.json("kitchen-7.identity.state")["floors"]["wake-word"], 4);
}

/// Whoever changes an identity does so under one lock: neither that it was used nor the newer keys get lost.
#[test]
fn changes_of_an_identity_wait_for_each_other() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    w.ok(&["key", "rotate", "publisher"]);
    w.ok(&["key", "export", "-o", "both.pem"]);
    let keygen =
        ["device", "keygen", "porch-2", "--identity-out", "porch.identity", "--public-out", "porch.pem"];
    w.device_ok(&keygen);
    let part = ["porch-2", "--line", "wake-word", "--public-key", "porch.pem", "--identity-out", "part"];
    w.ok(&[&["device", "enroll"][..], &part].concat());

    let locks = ["kitchen-7.identity.lock", "porch.identity.lock"].map(|name| {
        let lock = std::fs::File::create(w.path(name)).unwrap();
        lock.lock().unwrap();
        lock
    });
    let trust = ["device", "trust", "--identity", "kitchen-7.identity", "--publisher", "both.pem"];
    let complete = ["device", "complete", "--identity", "porch.identity", "--public-part", "part"];
    let commands = [&BY_GRANT[..], &trust, &complete];
    let mut changes =
        commands.map(|words| w.device_command(words).stdout(std::process::Stdio::null()).spawn().unwrap());
    std::thread::sleep(std::time::Duration::from_secs(1));
    for (change, command) in changes.iter_mut().zip(commands) {
        assert!(change.try_wait().unwrap().is_none(), "{command:?} doesn't wait");
    }
    assert!(w.json("kitchen-7.identity")["used"] == false);
    drop(locks);
    for (mut change, command) in changes.into_iter().zip(commands) {
        assert!(change.wait().unwrap().success(), "{command:?}");
    }
    let identity = w.json("kitchen-7.identity");
    assert_eq!((&identity["used"], identity["publisher"].as_array().unwrap().len()), (&true.into(), 2));
    assert_eq!(w.json("porch.identity")["lines"], w.json("part")["lines"]);
}

/// Whoever may read a lock's file may hold the lock.
#[test]
fn locks_are_for_their_owner() {
    let w = published();
    w.write("attacked", w.read("sealed"));
    w.device_ok(&BY_GRANT);
    w.ok(&["key", "rotate", "master"]);
    let subjects = ["vault.json", "registry.json", "kitchen-7.identity", "kitchen-7.identity.state"];
    for subject in subjects {
        assert_eq!(w.mode(&format!("{subject}.lock")), 0o600, "{subject}");
    }
}

// ---- What is found on the disk afterwards ----

/// After the whole story, no file and no message holds a key that isn't its own, the passphrase, or plaintext.
#[test]
fn nothing_on_the_disk_and_nothing_that_was_said_holds_a_secret() {
    let w = Workspace::with_vault("file:vault.json");
    story::tell(&w);
    assert_eq!(std::fs::read_dir(w.path("tmp")).unwrap().count(), 0, "a temporary file was left");
    let mut places: Vec<(String, Vec<u8>)> = vec![("what was said".into(), w.everything_said())];
    for (path, bytes) in w.snapshot() {
        places.push((path.strip_prefix(w.dir()).unwrap().display().to_string(), bytes));
    }
    assert!(places.len() > 25, "{}", places.len());

    let vault = vault_keys(&w, PASSPHRASE);
    let mut secrets: Vec<(String, Vec<u8>, &str)> =
        vec![("passphrase".into(), PASSPHRASE.into(), "passphrase")];
    secrets.extend(vault.into_iter().map(|(name, key)| (name, key, "nowhere")));
    for version in 1..=3 {
        secrets.push((
            format!("content key {version}"),
            content_key(&w, &format!("v{version}.sealed")).to_vec(),
            "nowhere",
        ));
    }
    for (name, field) in
        [("kitchen", "device_key"), ("cellar", "device_key"), ("porch", "x25519"), ("attic", "x25519")]
    {
        let key = w.json(&format!("{name}.identity"))[field].as_str().unwrap().to_owned();
        secrets.push((name.into(), hex::decode(key).unwrap(), name));
    }
    for (what, secret, own) in &secrets {
        for (place, bytes) in places.iter().filter(|(place, _)| !place.starts_with(own)) {
            for form in [secret.clone(), hex::encode(secret).into(), hex::encode_upper(secret).into()] {
                assert!(!contains(bytes, &form), "{place} holds {what}");
            }
        }
    }

    // 16 bytes of the model anywhere but in the opened model. Dull ones, such as zeros, are nobody's secret.
    let model = std::fs::read(WAKE_WORD).unwrap();
    let telling = |window: &&[u8]| window.iter().collect::<HashSet<_>>().len() > 8;
    let windows: HashSet<&[u8]> = model.windows(16).filter(telling).collect();
    assert!(windows.len() > 10_000);
    for (place, bytes) in places.iter().filter(|(place, _)| place != "opened") {
        assert!(!bytes.windows(16).any(|window| windows.contains(window)), "{place} holds plaintext");
    }
    // The search finds what is there.
    assert!(w.read("opened").windows(16).any(|window| windows.contains(window)));
    assert!(contains(&w.read("passphrase"), &secrets[0].1));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
