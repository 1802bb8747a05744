//! A sample of every attack, and everything around it that can go wrong, through the real program: exit codes,
//! words, and what is left behind. `attacks.rs` has the whole matrix.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modelseal_tests::forge::Parts;
use modelseal_tests::workspace::{PASSPHRASE, WAKE_WORD, assert_same};
use modelseal_tests::{Refusal, Workspace, scratch, story};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const SEAL: [&str; 5] = ["seal", "--line", "wake-word", "--model-version", "1"];
const ENROLL: [&str; 5] = ["device", "enroll", "--derive", "--line", "wake-word"];

fn seal(w: &Workspace, model: &str, out: &str) {
    w.ok(&[&SEAL[..], &[model, "-o", out]].concat());
}

fn enroll(w: &Workspace, id: &str) {
    w.ok(&[&ENROLL[..], &[id, "--identity-out", &format!("{id}.identity")]].concat());
}

/// A vault, a sealed model, an enrolled device and its grant; `kept` is an output from before.
fn published() -> Workspace {
    let w = Workspace::new();
    seal(&w, WAKE_WORD, "sealed");
    enroll(&w, "kitchen-7");
    w.ok(&["grant", "sealed", "--device", "kitchen-7", "-o", "grant"]);
    w.write("kept", "from before");
    w
}

const BY_VAULT: [&str; 4] = ["open", "attacked", "-o", "kept"];
const BY_GRANT: [&str; 8] = ["open", "attacked", "-o", "kept", "--grant", "grant", "--identity", "kitchen-7.identity"];

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
    let cases: [(&str, Vec<u8>, u8, &str); 8] = [
        ("magic", flip(3), 7, "ForeignMagic"),
        ("version", flip(8), 7, "UnknownVersion"),
        ("suite", flip(12), 7, "UnknownSuite"),
        ("model", flip(13), 3, "GrantKey"),
        ("wrapping", flip(grant.len() - 2), 3, "GrantKey"),
        ("cut", grant[..grant.len() - 1].to_vec(), 3, "Truncated"),
        ("extended", [&grant[..], &[0]].concat(), 3, "Extended"),
        ("huge", vec![0; 1 << 20], 3, "Extended"),
    ];
    for (what, bytes, code, name) in cases {
        w.write("grant", bytes);
        let refusal = w.device_refused(code, &BY_GRANT);
        assert_eq!(refusal.name.as_deref(), Some(name), "{what}");
        assert!(refusal.message.starts_with("grant: "), "{what}: {refusal:?}");
    }
    for (file, what) in [("kitchen-7.identity", "an identity"), ("attacked", "no grant")] {
        w.write("grant", w.read(file));
        w.device_refused(if file == "attacked" { 3 } else { 7 }, &BY_GRANT);
        println!("{what} isn't a grant");
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
        &["grant", "sealed", "--device", "kitchen-7", "-o", "x", "--not-before", "soon", "--not-after", "later"],
    ] {
        w.refused(2, arguments);
    }
}

#[test]
fn what_the_vault_refuses_exits_5() {
    let mut w = published();
    let list = ["key", "list"];
    assert!(w.refused(5, &["--vault", "file:nowhere", "key", "list"]).hint.contains("init"));
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

// ---- Outputs: complete or not at all ----

/// What a signal must not leave behind: anything. `kept` is as it was.
fn killed_in_the_middle(w: &Workspace, command: impl Fn() -> Command) {
    // How long a whole run takes, for the moments at which to kill.
    let began = Instant::now();
    let run = w.run(command(), &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let whole = began.elapsed();
    w.write("kept", "from before");
    let before = w.snapshot();
    let mut killed = 0;
    let (early, late) = (&[3, 7, 10, 13][..], &[5, 11][..]);
    for (signal, moments) in [(Signal::KILL, early), (Signal::INT, late), (Signal::TERM, late)] {
        for sixteenths in moments.iter().copied() {
            let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * sixteenths / 16);
            let _ = kill_process(Pid::from_child(&child), signal);
            let status = child.wait().unwrap();
            if status.success() {
                w.write("kept", "from before");
            } else {
                assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
                killed += 1;
            }
            assert_same(&before, &w.snapshot(), &format!("{signal:?} after {sixteenths}/16"));
        }
    }
    assert!(killed >= 5, "only {killed} of 8 were killed in time, so this proves little");
}

#[test]
fn a_signal_while_sealing_or_opening_leaves_nothing() {
    let w = published();
    // Elsewhere, so that it isn't compared each time.
    let big = scratch();
    let (model, sealed) = (big.path().join("model"), big.path().join("sealed"));
    // Ten times slower unoptimised.
    let length = if cfg!(debug_assertions) { 8 << 20 } else { 256 << 20 };
    std::fs::File::create(&model).unwrap().set_len(length).unwrap();
    let (model, sealed) = (model.to_str().unwrap(), sealed.to_str().unwrap());
    killed_in_the_middle(&w, || w.command(&[&SEAL[..], &[model, "-o", "kept"]].concat()));
    seal(&w, model, sealed);
    killed_in_the_middle(&w, || w.command(&["open", sealed, "-o", "kept"]));
    w.ok(&["grant", sealed, "--device", "kitchen-7", "-o", "grant"]);
    let open = ["open", sealed, "-o", "kept", "--grant", "grant", "--identity", "kitchen-7.identity", "--no-confirm"];
    killed_in_the_middle(&w, || w.device_command(&open));
}

/// Runs the program where only about a megabyte can be written below `full`: on a small disk of its own, or
/// where none may be mounted, under a limit of the file size, which fails in the same place. The folder must stay
/// as it was, which is an old output.
fn on_a_full_disk(w: &Workspace, arguments: &[&str]) -> Refusal {
    const DISK: &str = r#"mount -t tmpfs -o size=1m none full || exit 99; echo old > full/out
        "$@"; code=$?; [ "$(ls -A full)" = out ] && [ "$(cat full/out)" = old ] || exit 98; exit $code"#;
    const LIMIT: &str = r#"trap "" XFSZ; ulimit -f 1024; echo old > full/out
        "$@"; code=$?; [ "$(ls -A full)" = out ] && [ "$(cat full/out)" = old ] || exit 98; exit $code"#;
    let _ = std::fs::create_dir(w.path("full"));
    let arguments = [arguments, &["--json"]].concat();
    let mut run = w.run(w.wrapped(&["unshare", "-rm", "sh", "-c", DISK, "sh"], &arguments), &[]);
    let mounted = run.code.is_some_and(|code| code != 99 && code != 1);
    if !mounted {
        println!("no disk can be mounted here ({}), so the file size is limited", run.stderr.trim());
        run = w.run(w.wrapped(&["sh", "-c", LIMIT, "sh"], &arguments), &[]);
    }
    assert_ne!(run.code, Some(98), "something was left, or the old output is gone: {}", run.stderr);
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    Refusal::parse(6, &run.stderr)
}

#[test]
fn a_full_disk_exits_6_and_leaves_nothing() {
    let w = published();
    std::fs::File::create(w.path("model")).unwrap().set_len(4 << 20).unwrap();
    seal(&w, "model", "sealed");
    w.ok(&["grant", "sealed", "--device", "kitchen-7", "-o", "grant"]);
    let sealing = on_a_full_disk(&w, &[&SEAL[..], &["model", "-o", "full/out"]].concat());
    assert!(sealing.message.contains("full/out"), "{sealing:?}");
    on_a_full_disk(&w, &["open", "sealed", "-o", "full/out"]);
    let grant = ["open", "sealed", "-o", "full/out", "--grant", "grant", "--identity", "kitchen-7.identity"];
    on_a_full_disk(&w, &grant);
    // A floor isn't raised by an opening that failed.
    assert!(!w.path("kitchen-7.identity.state").exists());
    let full = w.refused(6, &["open", "sealed", "-o", "/dev/full"]);
    assert!(full.hint.contains("space"), "{full:?}");
}

#[test]
fn a_reader_that_goes_away_exits_6() {
    let w = published();
    std::fs::File::create(w.path("model")).unwrap().set_len(4 << 20).unwrap();
    seal(&w, "model", "sealed");
    let mut child = w
        .command(&["open", "sealed", "-o", "-", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(Refusal::parse(6, &String::from_utf8(output.stderr).unwrap()).hint.contains("pipe"));
}

#[test]
fn an_output_behind_a_link_leaves_the_link() {
    let w = published();
    std::os::unix::fs::symlink("kept", w.path("link")).unwrap();
    w.ok(&["open", "sealed", "-o", "link"]);
    assert!(w.path("link").is_symlink() && w.read("kept") == std::fs::read(WAKE_WORD).unwrap());
}

/// An output that is an input, or a secret, would lose it.
#[test]
fn an_output_never_replaces_an_input_or_a_secret() {
    let w = published();
    let before = w.snapshot();
    let open = ["open", "sealed", "--grant", "grant", "--identity", "kitchen-7.identity", "-o"];
    let grant = ["grant", "sealed", "--device", "kitchen-7", "-o"];
    let cases = [
        [&["open", "sealed", "-o"][..], &["sealed"]].concat(),
        [&["open", "sealed", "-o"][..], &["vault.json"]].concat(),
        [&open[..], &["sealed"]].concat(),
        [&open[..], &["grant"]].concat(),
        [&open[..], &["kitchen-7.identity"]].concat(),
        [&grant[..], &["sealed"]].concat(),
        [&grant[..], &["vault.json"]].concat(),
        [&grant[..], &["registry.json"]].concat(),
        [&grant[..], &["kitchen-7.identity"]].concat(),
        [&SEAL[..], &["kept", "-o", "vault.json"]].concat(),
        [&SEAL[..], &["kept", "-o", "kept"]].concat(),
        vec!["key", "export", "-o", "vault.json"],
        vec!["device", "keygen", "d", "--identity-out", "d", "--public-out", "d"],
    ];
    let mut replaced = Vec::new();
    for arguments in cases {
        let run = w.run(w.command(&arguments), &[]);
        let after = w.snapshot();
        if run.code == Some(0) || before != after {
            replaced.push(arguments.join(" "));
        }
        for path in after.keys().filter(|path| !before.contains_key(*path)) {
            std::fs::remove_file(path).unwrap();
        }
        before.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    assert!(replaced.is_empty(), "lost an input or a secret:\n  {}", replaced.join("\n  "));
}

// ---- What is kept: vault, identities, states, registry ----

#[test]
fn secrets_are_for_their_owner_and_written_once() {
    let w = published();
    w.device_ok(&["device", "keygen", "porch-2", "--identity-out", "porch.identity", "--public-out", "porch.pem"]);
    for secret in ["vault.json", "kitchen-7.identity", "porch.identity"] {
        assert_eq!(w.mode(secret), 0o600, "{secret}");
    }
    // Even where the umask would let nobody or everybody read.
    let loose = w.wrapped(&["sh", "-c", "umask 0; \"$@\"", "sh"], &["open", "sealed", "-o", "opened"]);
    assert_eq!(w.run(loose, &[]).code, Some(0));
    assert_eq!(w.mode("opened"), 0o600);

    w.refused(5, &["init"]);
    w.refused(5, &["init", "--registry", "another"]);
    w.device_refused(6, &["device", "keygen", "porch-2", "--identity-out", "porch.identity", "--public-out", "x"]);
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
    for corrupt in ["", "{}", "[]", &registry.replace("registry 1", "registry 2"), &registry[..registry.len() - 3]] {
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
    let enroll = ["device", "enroll", "porch-2", "--line", "l", "--public-key", "porch.pem", "--identity-out", "x"];
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
                let open = ["open", &sealed, "-o", &out, "--grant", &grant, "--identity", "kitchen-7.identity"];
                // An older version may come too late, and is then refused.
                let code = w.run(w.device_command(&open), &[]).code;
                assert!(code == Some(0) || (code == Some(4) && version < 4), "{version}: {code:?}");
            });
        }
    });
    assert_eq!(w.json("kitchen-7.identity.state")["floors"]["wake-word"], 4);
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

    let vault = vault_keys(&w);
    let mut secrets: Vec<(String, Vec<u8>, &str)> = vec![("passphrase".into(), PASSPHRASE.into(), "passphrase")];
    secrets.extend(vault.into_iter().map(|(name, key)| (name, key, "nowhere")));
    for version in 1..=3 {
        secrets.push((format!("content key {version}"), content_key(&w, version), "nowhere"));
    }
    for (name, field) in [("kitchen", "device_key"), ("cellar", "device_key"), ("porch", "x25519"), ("attic", "x25519")]
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

/// Opens the vault's file as its own module says it is written.
fn vault_keys(w: &Workspace) -> Vec<(String, Vec<u8>)> {
    use aes_gcm::aead::AeadInOut;
    use aes_gcm::{Aes256Gcm, KeyInit};
    let file = w.json("vault.json");
    let hex = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let number = |name: &str| file["kdf"][name].as_u64().unwrap() as u32;
    let params = argon2::Params::new(number("memory_kib"), number("passes"), number("lanes"), Some(32)).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = [0; 32];
    argon.hash_password_into(PASSPHRASE.as_bytes(), &hex(&file["kdf"]["salt"]), &mut key).unwrap();
    let mut keys = hex(&file["keys"]);
    let tag: [u8; 16] = keys.split_off(keys.len() - 16).try_into().unwrap();
    let nonce: [u8; 12] = hex(&file["nonce"]).try_into().unwrap();
    let format = file["format"].as_str().unwrap().as_bytes();
    let cipher = Aes256Gcm::new(&key.into());
    cipher.decrypt_inout_detached(&nonce.into(), format, keys.as_mut_slice().into(), &tag.into()).unwrap();
    // A number of keys, then of each role, version, algorithm and 32 bytes.
    assert_eq!((keys[0], keys.len()), (3, 1 + 3 * 35));
    let each = keys[1..].chunks(35).map(|key| (format!("vault key {}", key[0]), key[3..].to_vec()));
    each.chain([("the vault's own key".into(), key.to_vec())]).collect()
}

fn content_key(w: &Workspace, version: u64) -> Vec<u8> {
    let location = modelseal_hsm::Location::File(w.path("vault.json"));
    let passphrase = || Ok(modelseal_hsm::Passphrase::new(PASSPHRASE.to_owned().into()));
    let vault = modelseal_hsm::open(&location, &passphrase).unwrap();
    let sealed = modelseal::open::SealedFile::open(&w.path(&format!("v{version}.sealed"))).unwrap();
    let unwrapped = sealed.unwrap_by_vault(&*vault, None).unwrap();
    unwrapped.content_key().expose_to_vault().to_vec()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
