//! `migrate-fernet`, against files that PyPI's `cryptography` has encrypted. `tests/run` makes the environment that has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use modelseal_tests::fernet::{MIGRATE, protected};
use modelseal_tests::workspace::WAKE_WORD;

fn wake_word() -> Vec<u8> {
    std::fs::read(WAKE_WORD).unwrap()
}

#[test]
fn a_protected_model_is_sealed_and_stays() {
    let w = protected(wake_word());
    let old = w.read("old.tflite.enc");
    let answer = w.ok(&MIGRATE);
    assert_eq!((&answer["kind"], &answer["length"]), (&"tflite".into(), &52272.into()));
    assert!(w.read("old.tflite.enc") == old);
    w.ok(&["open", "new.sealed", "-o", "opened"]);
    assert!(w.read("opened") == wake_word());
}

#[test]
fn a_larger_one_of_any_length() {
    for length in [1, 15, 16, 17, (3 << 20) + 5] {
        let model = vec![0x5a; length];
        let w = protected(&model);
        w.ok(&MIGRATE);
        w.ok(&["open", "new.sealed", "-o", "opened"]);
        assert!(w.read("opened") == model, "{length}");
    }
}

#[test]
fn the_key_comes_from_a_file_or_a_variable() {
    let mut w = protected(wake_word());
    let without = [&MIGRATE[..2], &MIGRATE[4..]].concat();
    assert!(w.refused(2, &without).hint.contains("MODELSEAL_FERNET_KEY"));
    w.set("MODELSEAL_FERNET_KEY", String::from_utf8(w.read("key")).unwrap());
    w.ok(&without);
    w.set("MODELSEAL_FERNET_KEY", "not a key");
    w.refused(3, &without);
    let said = w.everything_said();
    let key = w.read("key");
    assert!(!said.windows(key.len()).any(|part| part == key));
}

#[test]
fn what_is_not_authentic_is_refused() {
    let w = protected(wake_word());
    let other = protected(wake_word());
    let (key, old) = (w.read("key"), w.read("old.tflite.enc"));
    w.write("key", other.read("key"));
    let refusal = w.refused(3, &MIGRATE);
    assert!(refusal.message.contains("key") && refusal.hint.contains("another"), "{refusal:?}");
    for wrong in [&b""[..], b"x", &key[..43], &[key.clone(), key.clone()].concat()] {
        w.write("key", wrong);
        w.refused(3, &MIGRATE);
    }
    w.write("key", &key);
    for at in [11, old.len() / 2, old.len() - 10] {
        let mut changed = old.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        w.write("old.tflite.enc", changed);
        w.refused(3, &MIGRATE);
    }
    for (cut, code) in [(old.len() - 4, 3), (old.len() - 1, 3), (40, 3), (4, 7), (0, 7)] {
        w.write("old.tflite.enc", &old[..cut]);
        w.refused(code, &MIGRATE);
    }
    w.write("old.tflite.enc", wake_word());
    w.refused(7, &MIGRATE);
    std::fs::remove_file(w.path("old.tflite.enc")).unwrap();
    w.refused(6, &MIGRATE);
    w.write("old.tflite.enc", &old);
    for output in ["old.tflite.enc", "key", "passphrase"] {
        w.refused(
            2,
            &[
                "migrate-fernet",
                "old.tflite.enc",
                "--key",
                "key",
                "-o",
                output,
                "--line",
                "l",
                "--model-version",
                "1",
            ],
        );
    }
    w.ok(&MIGRATE);
}

/// It is sealed as it is, and that it is one is said.
#[test]
fn a_pickle_is_warned_of() {
    let zip = [b"PK\x03\x04", &[0; 26][..], b"archive/data.pkl"].concat();
    for (model, warned) in [
        (b"\x80\x02}q\x00.".to_vec(), true),
        (zip.clone(), true),
        ([&zip[..], b"archive/constants.pkl"].concat(), false),
        (wake_word(), false),
    ] {
        let w = protected(&model);
        let run = w.run(w.command(&MIGRATE), &[]);
        assert_eq!((run.code, run.stderr.contains("pickle")), (Some(0), warned), "{}", run.stderr);
        w.ok(&["open", "new.sealed", "-o", "opened"]);
        assert!(w.read("opened") == model);
    }
}
