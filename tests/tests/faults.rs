//! What can go wrong with a token while it is used: it is taken away, it hangs, it has no session left, it is shared.
//! SoftHSM is real; where it never does such a thing by itself, a library in front of it does
//! (`tests/examples/shim.rs`).
//!
//! Whoever uses the vault notices nothing, or gets an error of exit code 5 that says what it was, in time and with
//! every file as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use modelseal_tests::Workspace;
use modelseal_tests::faults::{User, calls, empty_workspace, set, workspace};
use modelseal_tests::workspace::WAKE_WORD;

const USER: &str = env!("CARGO_BIN_EXE_user");
const SEAL: [&str; 8] =
    ["seal", WAKE_WORD, "-o", "new.sealed", "--line", "wake-word", "--model-version", "2"];

fn user(w: &Workspace) -> User {
    User::start(w.another(USER, &[] as &[&str]))
}

fn is_error(answer: &str, name: &str) -> bool {
    answer.starts_with(&format!("error 5 {name} "))
}

// ---- It hangs ----------------------------------------------------------------------------------------------

#[test]
fn a_token_that_hangs_is_given_up_in_time() {
    let mut w = workspace();
    w.ok(&["seal", WAKE_WORD, "-o", "sealed", "--line", "wake-word", "--model-version", "1"]);
    w.set("MODELSEAL_TOKEN_TIMEOUT", "1");
    let open = ["open", "sealed", "-o", "opened"];
    for (function, command) in [
        ("C_Initialize", &SEAL[..]),
        ("C_OpenSession", &SEAL),
        ("C_Login", &SEAL),
        ("C_FindObjectsInit", &SEAL),
        ("C_Encrypt", &SEAL),
        ("C_Sign", &SEAL),
        ("C_Decrypt", &open),
    ] {
        set(&w, &format!("{function} hang"));
        let began = Instant::now();
        let refusal = w.refused(5, command);
        assert!(refusal.message.contains("no answer within 1 s"), "{function}: {refusal:?}");
        assert!(refusal.hint.contains("MODELSEAL_TOKEN_TIMEOUT"), "{function}: {refusal:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{function}: {:?}", began.elapsed());
    }
    set(&w, "");
    w.ok(&SEAL);
    w.ok(&open);
    w.set("MODELSEAL_TOKEN_TIMEOUT", "soon");
    w.refused(2, &open);
}

#[test]
fn a_session_that_hangs_is_left_alone_and_others_go_on() {
    let mut w = workspace();
    w.set("MODELSEAL_TOKEN_TIMEOUT", "2");
    let mut user = user(&w);
    let key = user.does("derive");
    assert!(key.starts_with("ok "), "{key}");
    set(&w, "C_Sign hang 1");
    assert!(is_error(&user.does("derive"), "NoAnswer"));
    // It still hangs.
    assert_eq!(user.does("derive"), key);
    assert_eq!(user.does("derive 80"), key);
    // As many as there are sessions: then nobody waits for another one.
    for _ in 0..3 {
        set(&w, "C_Sign hang 1");
        assert!(is_error(&user.does("derive"), "NoAnswer"));
    }
    let began = Instant::now();
    assert!(is_error(&user.does("derive"), "NoAnswer"));
    assert!(began.elapsed() < Duration::from_secs(1));
    user.ends();
}

// ---- Its keys are others' to change --------------------------------------------------------------------------

/// A program that has the vault open, a token's or a file, doesn't go on with what isn't to be used any more.
#[test]
fn what_another_program_retires_or_destroys_counts_at_once() {
    for w in [workspace(), Workspace::new()] {
        let mut user = user(&w);
        let key = user.does("derive");
        w.ok(&["key", "rotate", "fleet"]);
        assert_eq!(user.does("derive"), key);
        w.ok(&["key", "retire", "fleet", "1"]);
        assert!(is_error(&user.does("derive"), "Retired"));
        w.ok(&["key", "retire", "fleet", "1", "--undo"]);
        assert_eq!(user.does("derive"), key);
        w.ok(&["key", "retire", "fleet", "1"]);
        w.ok(&["key", "destroy", "fleet", "1", "--confirm", "destroy fleet/1"]);
        let gone = user.does("derive");
        assert!(is_error(&gone, "NoVersion"), "{gone}");
        assert_eq!(user.does("keys"), "ok 3");
        user.ends();
    }
}

// ---- It is taken away --------------------------------------------------------------------------------------

#[test]
fn a_token_that_is_taken_away_and_brought_back() {
    let w = workspace();
    let mut user = user(&w);
    let key = user.does("derive");
    let (here, away) = (w.path("tokens"), w.path("elsewhere"));
    std::fs::rename(&here, &away).unwrap();
    let before = w.snapshot();
    for _ in 0..2 {
        let answer = user.does("derive");
        assert!(answer.starts_with("error 5 "), "{answer}");
        let refusal = w.refused(5, &SEAL);
        assert!(refusal.message.contains("SOFTHSM2_CONF"), "{refusal:?}");
    }
    assert_eq!(w.snapshot(), before);
    std::fs::rename(&away, &here).unwrap();
    assert_eq!(user.does("derive"), key);
    // And in the middle of an operation, which nobody notices.
    std::fs::rename(&here, &away).unwrap();
    user.begin("derive 80");
    std::thread::sleep(Duration::from_millis(300));
    std::fs::rename(&away, &here).unwrap();
    assert_eq!(user.answer(), key);
    user.ends();
}

#[test]
fn what_is_lost_is_connected_anew() {
    let w = workspace();
    let mut user = user(&w);
    let key = user.does("derive");
    let started = ["C_Initialize", "C_Login"];
    calls(&w, &started);
    for (code, starts) in [
        ("0xb3", 0),  // CKR_SESSION_HANDLE_INVALID
        ("0xb0", 0),  // CKR_SESSION_CLOSED
        ("0x60", 0),  // CKR_KEY_HANDLE_INVALID
        ("0x101", 0), // CKR_USER_NOT_LOGGED_IN
        ("0x90", 0),  // CKR_OPERATION_ACTIVE
        ("0x30", 1),  // CKR_DEVICE_ERROR
        ("0x31", 1),  // CKR_DEVICE_MEMORY
        ("0x32", 1),  // CKR_DEVICE_REMOVED
        ("0xe0", 1),  // CKR_TOKEN_NOT_PRESENT
        ("0x190", 1), // CKR_CRYPTOKI_NOT_INITIALIZED
        ("0x5", 1),   // CKR_GENERAL_ERROR
    ] {
        set(&w, &format!("C_SignInit {code} 1"));
        assert_eq!(user.does("derive"), key, "{code}");
        assert_eq!(calls(&w, &started), [starts, 1], "{code}");
    }
    // Where it doesn't help, it is tried four times, and said.
    set(&w, "C_SignInit 0x32");
    let answer = user.does("derive");
    assert!(is_error(&answer, "Failed") && answer.contains("DeviceRemoved"), "{answer}");
    assert_eq!(calls(&w, &["C_SignInit"]), [4]);
    let refusal = w.refused(5, &["device", "enroll", "d", "--derive", "--line", "l", "--identity-out", "x"]);
    assert!(refusal.message.contains("DeviceRemoved"), "{refusal:?}");
    set(&w, "");
    assert_eq!(user.does("derive"), key);
    user.ends();
}

/// As after a restart of what the library talks to: it works again once it has been started again, for every vault
/// in it.
#[test]
fn a_library_that_has_lost_its_process_is_started_again() {
    let w = workspace();
    let mut user = user(&w);
    let key = user.does("derive");
    assert_eq!(user.does("open"), "ok");
    assert_eq!(user.does("derive by 1"), key);
    set(&w, "C_Sign 0x5 started\nC_FindObjectsInit 0x5 started");
    assert_eq!(user.does("derive 80"), key);
    assert_eq!(user.does("derive by 1"), key);
    assert_eq!(user.does("derive"), key);
    assert_eq!(calls(&w, &["C_Initialize", "C_Finalize"]), [2, 1]);
    user.ends();
}

#[test]
fn a_login_and_handles_that_went_stale_are_renewed() {
    let w = workspace();
    let mut user = user(&w);
    let key = user.does("derive");
    assert_eq!(user.does("open"), "ok");
    for _ in 0..3 {
        assert_eq!(user.does("log out"), "ok");
        assert_eq!(user.does("derive"), key);
        // The other vault's handles are of the login before.
        assert_eq!(user.does("derive by 1"), key);
        assert_eq!(user.does("keys"), "ok 3");
    }
    user.ends();
}

/// Keys are made once, and all or none: what was made before the failure is destroyed.
#[test]
fn keys_are_all_made_or_none() {
    let w = empty_workspace();
    for fault in ["C_GenerateKey 0x32", "C_GenerateKey 0x32 after 1", "C_GenerateKeyPair 0x32"] {
        set(&w, fault);
        let refusal = w.refused(5, &["init"]);
        assert!(refusal.message.contains("DeviceRemoved"), "{fault}: {refusal:?}");
        set(&w, "");
        let none = w.refused(5, &SEAL);
        assert!(none.message.contains("no master key"), "{fault}: {none:?}");
    }
    assert_eq!(w.ok(&["init"])["keys"].as_array().unwrap().len(), 3);
    assert_eq!(w.ok(&["key", "check"])["ok"], true);
}

// ---- The PIN -----------------------------------------------------------------------------------------------

/// Somebody changes the PIN while a program runs that has to log in anew: it does so once, and never again.
#[test]
fn a_pin_that_is_refused_is_never_tried_again() {
    let w = workspace();
    // CKR_PIN_INCORRECT, and what may have been a wrong PIN.
    for code in ["0xa0", "0x5", "0x6", "0x30"] {
        set(&w, "");
        let mut user = user(&w);
        assert!(user.does("derive").starts_with("ok "));
        calls(&w, &[]);
        set(&w, &format!("C_SignInit 0xb3 1\nC_Login {code} 1"));
        assert!(user.does("derive").starts_with("error 5 "), "{code}");
        for _ in 0..3 {
            assert!(is_error(&user.does("derive"), "WrongPin"), "{code}");
        }
        assert_eq!(calls(&w, &["C_Login"]), [1], "{code}");
        user.ends();
    }
    set(&w, "");
    w.write("pin", "000000");
    let refusal = w.refused(5, &SEAL);
    assert!(refusal.message.contains("PIN"), "{refusal:?}");
    assert_eq!(calls(&w, &["C_Login"]), [1]);
}

// ---- Sessions ----------------------------------------------------------------------------------------------

#[test]
fn fewer_sessions_than_threads_are_shared() {
    let w = workspace();
    let mut user = user(&w);
    let key = user.does("derive");
    calls(&w, &[]);
    assert_eq!(user.does("derive 800"), key);
    let opened = calls(&w, &["C_OpenSession"])[0];
    assert!(opened < 4, "{opened} more than the one that there was");
    user.ends();
    // The anchor and one more, and no third.
    let w = workspace();
    set(&w, "C_OpenSession 0xb1 after 2");
    let mut user = self::user(&w);
    let key = user.does("derive");
    assert!(key.starts_with("ok "), "{key}");
    assert_eq!(user.does("derive 800"), key);
    user.ends();
}

#[test]
fn a_token_without_a_session_says_so() {
    let w = workspace();
    set(&w, "C_OpenSession 0xb1 after 1");
    let refusal = w.refused(5, &SEAL);
    assert!(
        refusal.message.contains("no session left") && refusal.hint.contains("other programs"),
        "{refusal:?}"
    );
    // Some tokens notice only when it is used, and some programs end meanwhile.
    set(&w, "C_Encrypt 0xb1 2");
    w.ok(&SEAL);
}

// ---- Others ------------------------------------------------------------------------------------------------

#[test]
fn two_processes_use_one_token() {
    let w = workspace();
    let mut users = [user(&w), user(&w)];
    users.iter_mut().for_each(|user| user.begin("derive 200"));
    let answers = users.each_mut().map(User::answer);
    assert!(answers[0].starts_with("ok ") && answers[0] == answers[1], "{answers:?}");
    users.into_iter().for_each(User::ends);
}

#[test]
fn a_key_that_another_process_destroys_is_missed_by_name() {
    let w = workspace();
    let (mut one, mut other) = (user(&w), user(&w));
    assert!(one.does("derive").starts_with("ok "));
    assert_eq!(other.does("destroy modelseal/fleet/1"), "ok");
    let answer = one.does("derive");
    assert!(is_error(&answer, "NoVersion"), "{answer}");
    assert_eq!(one.does("keys"), "ok 2");
    let enroll = ["device", "enroll", "d", "--derive", "--line", "l", "--identity-out", "x"];
    let refusal = w.refused(5, &enroll);
    assert!(refusal.message.contains("no fleet key"), "{refusal:?}");
    w.ok(&SEAL);
    one.ends();
    other.ends();
}

#[test]
fn a_forked_process_opens_the_vault_anew() {
    let w = workspace();
    let mut user = user(&w);
    let key = user.does("derive");
    user.begin("fork");
    let copy = user.answer();
    assert!(is_error(&copy, "Forked") && copy.contains("open it again"), "{copy}");
    assert_eq!(user.answer(), key, "in the child, opened anew");
    assert_eq!(user.answer(), key, "in the parent, as before");
    user.ends();
}

// ---- What isn't a fault of the token -----------------------------------------------------------------------

/// Tokens give a slot that doesn't open the code of a broken device; that one is told from the other, and nothing is
/// tried again.
#[test]
fn a_bad_slot_is_no_fault_of_the_token() {
    let w = workspace();
    w.ok(&["seal", WAKE_WORD, "-o", "sealed", "--line", "wake-word", "--model-version", "1"]);
    let mut bytes = w.read("sealed");
    let inspected = w.device_ok(&["inspect", "sealed"]);
    assert_eq!(inspected["line"], "wake-word");
    let manifest = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    bytes[16 + manifest + 64 + 20] ^= 1;
    w.write("bad", &bytes);
    calls(&w, &[]);
    let refusal = w.refused(3, &["open", "bad", "-o", "opened"]);
    assert_eq!(refusal.name.as_deref(), Some("KeySlot"));
    assert_eq!(calls(&w, &["C_Initialize", "C_Finalize"]), [1, 0]);
    // A device that is broken indeed says the same, and isn't taken for a bad slot.
    set(&w, "C_Decrypt 0x30");
    let refusal = w.refused(5, &["open", "sealed", "-o", "opened"]);
    assert!(refusal.message.contains("DeviceError"), "{refusal:?}");
    set(&w, "C_Decrypt 0x30 2");
    w.ok(&["open", "sealed", "-o", "opened"]);
}
