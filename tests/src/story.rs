//! The whole path, command by command, as three people walk it: the publisher, the operator and the device.
//!
//! The story takes a workspace whose vault isn't made yet, of whatever kind, and so it is told once for the
//! software vault and once for a token.

use serde_json::{Value, json};

use crate::workspace::{WAKE_WORD, Workspace};

/// Length of the wake-word model in bytes.
fn model() -> Vec<u8> {
    std::fs::read(WAKE_WORD).unwrap()
}

/// All chapters.
pub fn tell(w: &Workspace) {
    the_publisher_makes_a_vault(w);
    the_publisher_seals_three_versions(w);
    anybody_can_look_and_verify(w);
    the_vault_opens(w);
    the_operator_enrols_three_devices(w);
    the_operator_grants(w);
    the_devices_open(w);
    the_floor_rises_and_is_remembered(w);
    a_grant_can_lower_its_floor_and_limit_its_time(w);
    everything_can_be_piped(w);
}

fn the_publisher_makes_a_vault(w: &Workspace) {
    let made = w.ok(&["init"]);
    assert_eq!(made["keys"].as_array().unwrap().len(), 3);
    let keys = w.ok(&["key", "list"]);
    let roles: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| &key["role"]).collect();
    assert_eq!(roles, ["master", "fleet", "publisher"]);
    let check = w.ok(&["key", "check"]);
    assert_eq!(check["ok"], true, "{check}");
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    let exported = w.ok(&["key", "export"]);
    assert_eq!(exported["publisher"][0], String::from_utf8(w.read("publisher.pem")).unwrap());
    // A second vault in the same place would lose the first.
    w.refused(5, &["init"]);
}

/// Version 1 with AES, version 2 with ChaCha20, version 3 for hosts.
fn the_publisher_seals_three_versions(w: &Workspace) {
    let seal = |version: &str, suite: &str, profile: &str| {
        let out = format!("v{version}.sealed");
        let options = ["--line", "wake-word", "--model-version", version, "--suite", suite];
        let claims = ["--profile", profile, "--claim", "licence=Apache-2.0", "--claim", "chip=cortex-m4"];
        w.ok(&[&["seal", WAKE_WORD, "-o", &out], &options[..], &claims[..]].concat())
    };
    let sealed = seal("1", "aes-256-gcm", "device");
    assert_eq!(
        (&sealed["line"], &sealed["version"], &sealed["kind"], &sealed["length"]),
        (&json!("wake-word"), &json!(1), &json!("tflite"), &json!(model().len()))
    );
    assert_eq!(sealed["sealed_length"], w.read("v1.sealed").len());
    seal("2", "chacha20-poly1305", "device");
    seal("3", "aes-256-gcm", "host");
    w.ok(&["seal", WAKE_WORD, "-o", "other.sealed", "--line", "other", "--model-version", "1"]);
}

/// No vault is needed for either.
fn anybody_can_look_and_verify(w: &Workspace) {
    let (one, three) = (w.device_ok(&["inspect", "v1.sealed"]), w.device_ok(&["inspect", "v3.sealed"]));
    assert_eq!(one["verified"], false);
    assert_eq!((&one["suite"], &one["chunk_size"]), (&json!("aes-256-gcm"), &json!(4096)));
    assert_eq!((&three["chunk_size"], &three["payload_offset"]), (&json!(65536), &json!(4096)));
    assert_eq!(one["claims"], json!({ "chip": "cortex-m4", "licence": "Apache-2.0" }));
    assert_eq!(one["chunks"], model().len().div_ceil(4096));
    // The root is what `b3sum` prints for the payload.
    let sealed = w.read("v1.sealed");
    let payload = &sealed[one["payload_offset"].as_u64().unwrap() as usize..];
    assert_eq!(one["root"], blake3::hash(payload).to_hex().as_str());

    let by_pem = w.device_ok(&["verify", "v1.sealed", "--publisher", "publisher.pem"]);
    assert_eq!((&by_pem["verified"], &by_pem["id"]), (&json!(true), &one["id"]));
    assert_eq!(w.ok(&["verify", "v1.sealed"]), by_pem);
}

fn the_vault_opens(w: &Workspace) {
    for version in ["1", "2", "3"] {
        let opened = w.ok(&["open", &format!("v{version}.sealed"), "-o", "opened", "--line", "wake-word"]);
        assert_eq!(opened["version"].to_string(), version);
        assert!(w.read("opened") == model());
        assert_eq!(w.mode("opened"), 0o600);
    }
    assert_eq!(
        w.refused(4, &["open", "v1.sealed", "-o", "opened", "--line", "other"]).name.unwrap(),
        "OtherLine"
    );
}

/// One shares a key with the vault; one made its own and was completed on the device; one was completed by
/// its enrolment.
fn the_operator_enrols_three_devices(w: &Workspace) {
    let line = ["--line", "wake-word"];
    let derive = ["device", "enroll", "kitchen-7", "--derive", "--identity-out", "kitchen.identity"];
    w.ok(&[&derive[..], &line].concat());

    w.device_ok(&[
        "device",
        "keygen",
        "porch-2",
        "--identity-out",
        "porch.identity",
        "--public-out",
        "porch.pem",
    ]);
    let early = ["open", "v1.sealed", "-o", "x", "--grant", "v1.sealed", "--identity", "porch.identity"];
    let early = w.device_refused(1, &early);
    assert!(early.message.contains("isn't enrolled"), "{early:?}");
    let public =
        ["device", "enroll", "porch-2", "--public-key", "porch.pem", "--identity-out", "porch.public"];
    w.ok(&[&public[..], &line].concat());
    w.device_ok(&["device", "complete", "--identity", "porch.identity", "--public-part", "porch.public"]);
    assert!(w.json("porch.public")["x25519"].is_null() && !w.json("porch.identity")["x25519"].is_null());

    w.device_ok(&[
        "device",
        "keygen",
        "attic-3",
        "--identity-out",
        "attic.identity",
        "--public-out",
        "attic.pem",
    ]);
    let public =
        ["device", "enroll", "attic-3", "--public-key", "attic.pem", "--identity-out", "attic.identity"];
    w.ok(&[&public[..], &line, &["--line", "other"]].concat());
    assert!(!w.json("attic.identity")["x25519"].is_null());

    let listed = w.ok(&["device", "list"]);
    let ids: Vec<_> = listed["devices"].as_array().unwrap().iter().map(|device| &device["device"]).collect();
    assert_eq!(ids, ["attic-3", "kitchen-7", "porch-2"]);
    let shown = w.ok(&["device", "show", "kitchen-7"]);
    assert_eq!((&shown["lines"], &shown["key"]), (&json!(["wake-word"]), &json!({ "fleet": 1 })));
    for identity in ["kitchen.identity", "porch.identity", "attic.identity", "porch.public"] {
        assert_eq!(w.mode(identity), 0o600, "{identity}");
    }
}

const DEVICES: [(&str, &str, &str); 3] = [
    ("kitchen-7", "kitchen", "device-key"),
    ("porch-2", "porch", "hpke-x25519"),
    ("attic-3", "attic", "hpke-x25519"),
];

fn the_operator_grants(w: &Workspace) {
    for (id, name, wrapping) in DEVICES {
        for version in 1..=3 {
            let (sealed, out) = (format!("v{version}.sealed"), format!("{name}.{version}.grant"));
            let granted = w.ok(&["grant", &sealed, "--device", id, "-o", &out]);
            let grant = w.device_ok(&["inspect", &out]);
            assert_eq!((&grant["device"], &grant["wrapping"]), (&json!(id), &json!(wrapping)));
            assert_eq!((&grant["model"], &grant["floor"]), (&granted["model"], &json!(version)));
            assert_eq!(grant["model"], w.device_ok(&["inspect", &sealed])["id"]);
        }
    }
    let other =
        w.refused(4, &["grant", "other.sealed", "--device", "kitchen-7", "-o", "kitchen.other.grant"]);
    assert!(other.message.contains("kitchen-7") && other.message.contains("other"), "{other:?}");
    let unknown = w.refused(4, &["grant", "v1.sealed", "--device", "nobody", "-o", "nobody.grant"]);
    assert!(unknown.hint.contains("device enroll"), "{unknown:?}");
}

/// What a device opens version `version` with.
fn with_grant<'a>(sealed: &'a str, out: &'a str, grant: &'a str, identity: &'a str) -> Vec<&'a str> {
    vec!["open", sealed, "-o", out, "--grant", grant, "--identity", identity]
}

fn open(w: &Workspace, name: &str, version: u64) -> Value {
    let (sealed, grant) = (format!("v{version}.sealed"), format!("{name}.{version}.grant"));
    w.device_ok(&with_grant(&sealed, "opened", &grant, &format!("{name}.identity")))
}

fn open_refused(w: &Workspace, code: u8, name: &str, version: u64) -> String {
    let (sealed, grant) = (format!("v{version}.sealed"), format!("{name}.{version}.grant"));
    let refusal = w.device_refused(code, &with_grant(&sealed, "opened", &grant, &format!("{name}.identity")));
    refusal.name.unwrap_or_default()
}

fn floor(w: &Workspace, name: &str) -> Value {
    w.json(&format!("{name}.identity.state"))["floors"]["wake-word"].clone()
}

fn the_devices_open(w: &Workspace) {
    for (_, name, _) in DEVICES {
        let opened = open(w, name, 1);
        assert_eq!((&opened["line"], &opened["version"]), (&json!("wake-word"), &json!(1)));
        assert!(w.read("opened") == model());
        assert_eq!(floor(w, name), 1);
        assert_eq!(w.json(&format!("{name}.identity"))["used"], true);
    }
    // Each grant is for its device alone. That a device key doesn't fit says no more than that.
    let with = |grant, identity| with_grant("v1.sealed", "opened", grant, identity);
    let wrong = w.device_refused(4, &with("porch.1.grant", "attic.identity"));
    assert!(wrong.hint.contains("porch-2") && wrong.hint.contains("attic-3"), "{wrong:?}");
    let wrong = w.device_refused(3, &with("kitchen.1.grant", "attic.identity"));
    assert!(wrong.hint.contains("kitchen-7") && wrong.hint.contains("attic-3"), "{wrong:?}");
}

fn the_floor_rises_and_is_remembered(w: &Workspace) {
    for (_, name, _) in DEVICES {
        // A look that isn't confirmed leaves the floor where it is.
        let (grant, identity) = (format!("{name}.2.grant"), format!("{name}.identity"));
        let arguments = with_grant("v2.sealed", "opened", &grant, &identity);
        w.device_ok(&[&arguments[..], &["--no-confirm"]].concat());
        assert_eq!(floor(w, name), 1);
        open(w, name, 1);

        open(w, name, 2);
        assert!(w.read("opened") == model());
        assert_eq!(floor(w, name), 2);
        assert_eq!(open_refused(w, 4, name, 1), "RolledBack");
        open(w, name, 2);
        open(w, name, 3);
        assert_eq!(open_refused(w, 4, name, 2), "RolledBack");
        assert_eq!(floor(w, name), 3);
    }
    // The publisher's own vault has no floor.
    w.ok(&["open", "v1.sealed", "-o", "opened"]);
}

fn a_grant_can_lower_its_floor_and_limit_its_time(w: &Workspace) {
    let derive = ["device", "enroll", "cellar-1", "--derive", "--identity-out", "cellar.identity"];
    w.ok(&[&derive[..], &["--line", "wake-word", "--first-floor", "2"]].concat());
    let grant = |version: u64, more: &[&str]| {
        let (sealed, out) = (format!("v{version}.sealed"), format!("cellar.{version}.grant"));
        w.ok(&[&["grant", &sealed, "--device", "cellar-1", "-o", &out], more].concat())
    };
    grant(1, &[]);
    assert_eq!(open_refused(w, 4, "cellar", 1), "RolledBack");
    grant(2, &[]);
    grant(3, &["--floor", "2"]);
    open(w, "cellar", 3);
    assert_eq!(floor(w, "cellar"), 2);
    open(w, "cellar", 2);

    grant(3, &["--not-before", "2001-01-01T00:00:00Z", "--not-after", "2002-01-01T00:00:00Z"]);
    assert_eq!(open_refused(w, 4, "cellar", 3), "Expired");
    grant(3, &["--not-before", "2901-01-01T00:00:00Z", "--not-after", "2902-01-01T00:00:00Z"]);
    assert_eq!(open_refused(w, 4, "cellar", 3), "NotYetValid");
    grant(3, &["--not-before", "978307200", "--not-after", "2902-01-01T00:00:00Z"]);
    open(w, "cellar", 3);
    assert_eq!(floor(w, "cellar"), 3);
    let limits = ["grant", "v3.sealed", "--device", "cellar-1", "-o", "x"];
    w.refused(2, &[&limits[..], &["--floor", "4"]].concat());
    w.refused(2, &[&limits[..], &["--not-before", "2", "--not-after", "2"]].concat());
    w.refused(2, &[&limits[..], &["--not-before", "2"]].concat());
}

fn everything_can_be_piped(w: &Workspace) {
    let sealed = w.read("v3.sealed");
    let by_vault = w.run(w.command(&["open", "-", "-o", "-"]), &sealed);
    let by_grant = w.run(w.device_command(&with_grant("-", "-", "attic.3.grant", "attic.identity")), &sealed);
    for run in [by_vault, by_grant] {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stdout == model());
        assert!(run.stderr.starts_with("opened wake-word version 3"), "{}", run.stderr);
    }
    let verified = w.run(w.device_command(&["verify", "-", "--publisher", "publisher.pem"]), &sealed);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    // To a pipe go only chunks that passed.
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    let run = w.run(w.command(&["open", "-", "-o", "-", "--json"]), &changed);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(model().starts_with(&run.stdout) && run.stdout.len() < model().len());
    // Sealing needs a file: the manifest comes before what it commits to.
    w.refused(2, &["seal", "/dev/null", "-o", "x", "--line", "wake-word", "--model-version", "1"]);
}
