//! How keys come and go, through the real program, with a software vault and with a token: rotate, rewrap, retire,
//! destroy, reseal, back up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use modelseal_hsm::{Location, Passphrase, Role};
use modelseal_tests::workspace::{PASSPHRASE, WAKE_WORD};
use modelseal_tests::{Workspace, forge, softhsm};
use serde_json::{Value, json};

fn model() -> Vec<u8> {
    std::fs::read(WAKE_WORD).unwrap()
}

fn seal(w: &Workspace, version: &str) {
    let out = format!("models/{version}.sealed");
    let seal = ["seal", WAKE_WORD, "-o", &out, "--line", "wake-word", "--model-version", version];
    w.ok(&[&seal[..], &["--claim", "licence=Apache-2.0"]].concat());
}

/// The master keys that have a slot.
fn slots(w: &Workspace, sealed: &str) -> Value {
    w.device_ok(&["inspect", sealed])["master_key_versions"].clone()
}

fn opens(w: &Workspace, sealed: &str) {
    w.ok(&["open", sealed, "-o", "opened"]);
    assert!(w.read("opened") == model());
}

fn enroll(w: &Workspace, id: &str) -> String {
    let identity = format!("{id}.identity");
    w.ok(&["device", "enroll", id, "--derive", "--line", "wake-word", "--identity-out", &identity]);
    identity
}

fn opens_by_grant(w: &Workspace, sealed: &str, id: &str) {
    let (grant, identity) = (format!("{id}.grant"), format!("{id}.identity"));
    w.device_ok(&[
        "open",
        sealed,
        "-o",
        "opened",
        "--grant",
        &grant,
        "--identity",
        &identity,
        "--no-confirm",
    ]);
    assert!(w.read("opened") == model());
}

/// The keys, as `master/1` or `master/1 retired`.
fn keys(w: &Workspace) -> Vec<String> {
    let listed = w.ok(&["key", "list"]);
    let name = |key: &Value| {
        let retired = if key["retired"] == true { " retired" } else { "" };
        format!("{}/{}{retired}", key["role"].as_str().unwrap(), key["version"])
    };
    listed["keys"].as_array().unwrap().iter().map(name).collect()
}

/// All chapters, in a workspace whose vault isn't made yet.
fn tell(w: &Workspace) {
    w.ok(&["init"]);
    std::fs::create_dir_all(w.path("models/deep")).unwrap();
    seal(w, "1");
    std::fs::copy(w.path("models/1.sealed"), w.path("models/deep/copy.sealed")).unwrap();
    enroll(w, "kitchen-7");
    w.ok(&["grant", "models/1.sealed", "--device", "kitchen-7", "-o", "kitchen-7.grant"]);
    a_master_key_is_rotated_and_models_follow(w);
    a_master_key_is_retired_and_destroyed(w);
    a_fleet_key_is_rotated_and_retired(w);
    a_publisher_key_is_rotated_and_retired(w);
    assert_eq!(w.ok(&["key", "check"])["ok"], true);
}

fn a_master_key_is_rotated_and_models_follow(w: &Workspace) {
    // For the end: what an attacker kept.
    std::fs::copy(w.path("models/1.sealed"), w.path("kept-from-before")).unwrap();
    let made = w.ok(&["key", "rotate", "master"]);
    assert_eq!((&made["made"]["role"], &made["made"]["version"]), (&json!("master"), &json!(2)));
    w.refused(2, &["key", "rotate", "master", "--algorithm", "ed25519"]);
    opens(w, "models/1.sealed");
    seal(w, "2");
    assert_eq!((slots(w, "models/1.sealed"), slots(w, "models/2.sealed")), (json!([1]), json!([2])));

    let before = w.read("models/1.sealed");
    let done = w.ok(&["rewrap", "models"]);
    let done: Vec<_> = done["rewrapped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["file"].as_str().unwrap(),
                one["to"].as_u64(),
                one["written"].as_bool(),
                one["cleared"].clone(),
            )
        })
        .collect();
    let moved = |file, written, cleared| (file, Some(2), Some(written), cleared);
    assert_eq!(
        done,
        [
            moved("models/1.sealed", true, json!([1])),
            moved("models/2.sealed", false, json!([])),
            moved("models/deep/copy.sealed", true, json!([1])),
        ]
    );
    // Only slots have changed: the model, its id and its grants are the same.
    let after = w.read("models/1.sealed");
    let (manifest, slots_end) = (16 + usize::from(u16::from_le_bytes([before[10], before[11]])), 5 * 64);
    assert!(after[..manifest + 64] == before[..manifest + 64]);
    assert!(after[manifest + slots_end..] == before[manifest + slots_end..]);
    assert_eq!(slots(w, "models/1.sealed"), json!([2]));
    opens(w, "models/1.sealed");
    opens_by_grant(w, "models/1.sealed", "kitchen-7");
    w.ok(&["verify", "models/1.sealed"]);
    w.ok(&["rewrap", "models"]);
    assert!(w.read("models/1.sealed") == after);
}

fn a_master_key_is_retired_and_destroyed(w: &Workspace) {
    let unknown = w.refused(4, &["key", "retire", "master", "1"]);
    assert!(unknown.message.contains("can't be known"), "{unknown:?}");
    let newest = w.refused(4, &["key", "retire", "master", "2", "models"]);
    assert!(newest.hint.contains("rotate"), "{newest:?}");
    w.refused(5, &["key", "retire", "master", "7", "models"]);
    let depends = w.refused(4, &["key", "retire", "master", "1", "models", "kept-from-before"]);
    assert!(depends.message.contains("kept-from-before"), "{depends:?}");
    assert!(!depends.message.contains("copy.sealed") && depends.hint.contains("rewrap"), "{depends:?}");
    w.write("models/broken.sealed", "this is no sealed model");
    let broken = w.refused(7, &["key", "retire", "master", "1", "models"]);
    assert!(broken.message.contains("broken.sealed"), "{broken:?}");
    std::fs::remove_file(w.path("models/broken.sealed")).unwrap();

    let retired = w.ok(&["key", "retire", "master", "1", "models"]);
    assert_eq!((&retired["looked_at"], &retired["sealed"]), (&json!(3), &json!([])));
    assert_eq!(keys(w)[..2], ["master/1 retired", "master/2"]);
    let refused = w.refused(5, &["open", "kept-from-before", "-o", "opened"]);
    assert!(
        refused.message.contains("master/1 is retired") && refused.hint.contains("--undo"),
        "{refused:?}"
    );
    w.ok(&["key", "retire", "master", "1", "--undo"]);
    opens(w, "kept-from-before");
    let forced = w.ok(&["key", "retire", "master", "1", "kept-from-before", "--force"]);
    assert_eq!(forced["sealed"], json!(["kept-from-before"]));

    let destroy = ["key", "destroy", "master"];
    let refused = w.refused(2, &[&destroy[..], &["1"]].concat());
    assert!(refused.hint.contains("--confirm 'destroy master/1'"), "{refused:?}");
    w.refused(2, &[&destroy[..], &["1", "--confirm", "destroy master/2"]].concat());
    let refused = w.refused(4, &[&destroy[..], &["2", "--confirm", "destroy master/2"]].concat());
    assert!(refused.message.contains("isn't retired"), "{refused:?}");
    w.ok(&[&destroy[..], &["1", "--confirm", "destroy master/1"]].concat());
    assert_eq!(keys(w), ["master/2", "fleet/1", "publisher/1"]);
    // Crypto-shredding: what only that key wrapped is lost, and to a rewrap, too. The rest isn't.
    let open = w.refused(3, &["open", "kept-from-before", "-o", "opened"]);
    assert_eq!(open.name.as_deref(), Some("KeySlot"));
    let run = w.run(w.command(&["rewrap", "kept-from-before", "--json"]), &[]);
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((run.code, &said["rewrapped"][0]["error"]["name"]), (Some(3), &json!("KeySlot")));
    w.refused(5, &["key", "retire", "master", "1", "--undo"]);
    opens(w, "models/1.sealed");
}

fn a_fleet_key_is_rotated_and_retired(w: &Workspace) {
    w.ok(&["key", "rotate", "fleet"]);
    enroll(w, "porch-2");
    assert_eq!(w.ok(&["device", "show", "porch-2"])["key"], json!({ "fleet": 2 }));
    let grant = |id: &str| {
        vec![
            "grant".to_owned(),
            "models/1.sealed".into(),
            "--device".into(),
            id.into(),
            "-o".into(),
            format!("{id}.grant"),
        ]
    };
    let words = |id: &str| grant(id);
    for id in ["kitchen-7", "porch-2"] {
        w.ok(&words(id).iter().map(String::as_str).collect::<Vec<_>>());
        opens_by_grant(w, "models/1.sealed", id);
    }
    let depends = w.refused(4, &["key", "retire", "fleet", "1"]);
    assert!(depends.message.contains("kitchen-7") && !depends.message.contains("porch"), "{depends:?}");
    assert_eq!(w.ok(&["key", "retire", "fleet", "1", "--force"])["devices"], json!(["kitchen-7"]));
    let refused = w.refused(5, &words("kitchen-7").iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.message.contains("fleet/1 is retired"), "{refused:?}");
    w.ok(&words("porch-2").iter().map(String::as_str).collect::<Vec<_>>());
    // What was granted before stays good.
    opens_by_grant(w, "models/1.sealed", "kitchen-7");
    w.ok(&["key", "destroy", "fleet", "1", "--confirm", "destroy fleet/1"]);
    enroll(w, "attic-3");
}

fn a_publisher_key_is_rotated_and_retired(w: &Workspace) {
    w.ok(&["key", "export", "-o", "old.pem"]);
    w.ok(&["key", "rotate", "publisher", "--algorithm", "ecdsa-p256"]);
    let exported = w.ok(&["key", "export", "-o", "both.pem"]);
    assert_eq!(exported["keys"], 2);
    seal(w, "3");
    w.ok(&["grant", "models/3.sealed", "--device", "porch-2", "-o", "porch-2.grant"]);
    // A device that was enrolled before trusts the new key when it is told to.
    let open = ["open", "models/3.sealed", "-o", "opened", "--grant", "porch-2.grant", "--identity"];
    let refused = w.device_refused(3, &[&open[..], &["porch-2.identity"]].concat());
    assert_eq!(refused.name.as_deref(), Some("ManifestSignature"));
    let trusts =
        w.device_ok(&["device", "trust", "--identity", "porch-2.identity", "--publisher", "both.pem"]);
    assert_eq!(trusts["keys"], 2);
    opens_by_grant(w, "models/3.sealed", "porch-2");

    let depends = w.refused(4, &["key", "retire", "publisher", "1", "models"]);
    assert!(depends.message.contains("1.sealed") && depends.hint.contains("reseal"), "{depends:?}");
    assert!(!depends.message.contains("3.sealed"), "{depends:?}");
    a_model_is_sealed_anew(w);
    w.ok(&["key", "retire", "publisher", "1", "models", "--force"]);
    assert_eq!(
        w.refused(3, &["open", "models/1.sealed", "-o", "x"]).name.as_deref(),
        Some("ManifestSignature")
    );
    opens(w, "models/4.sealed");
    w.ok(&["key", "destroy", "publisher", "1", "--confirm", "destroy publisher/1"]);
    assert_eq!(w.ok(&["key", "export"])["publisher"].as_array().unwrap().len(), 1);
    // The registry is still this vault's, though the key that it was begun with has gone.
    w.ok(&["grant", "models/4.sealed", "--device", "porch-2", "-o", "porch-2.grant"]);
    opens_by_grant(w, "models/4.sealed", "porch-2");
    w.device_refused(3, &["verify", "models/4.sealed", "--publisher", "old.pem"]);
}

fn a_model_is_sealed_anew(w: &Workspace) {
    let reseal = ["reseal", "models/1.sealed", "-o", "models/4.sealed", "--model-version"];
    let same = w.refused(2, &[&reseal[..], &["1"]].concat());
    assert!(same.message.contains("released once"), "{same:?}");
    w.refused(2, &["reseal", "models/1.sealed", "-o", "models/1.sealed", "--model-version", "2"]);
    w.ok(&[&reseal[..], &["4"]].concat());
    let [old, new] = ["models/1.sealed", "models/4.sealed"].map(|sealed| w.device_ok(&["inspect", sealed]));
    for same in ["line", "kind", "claims", "length", "suite", "chunk_size"] {
        assert_eq!(old[same], new[same], "{same}");
    }
    for other in ["id", "commitment", "root", "version"] {
        assert_ne!(old[other], new[other], "{other}");
    }
    opens(w, "models/4.sealed");
    // An old grant is none for the new one.
    let grant = ["--grant", "kitchen-7.grant", "--identity", "kitchen-7.identity"];
    let opened = [&["open", "models/4.sealed", "-o", "x"], &grant[..]].concat();
    w.device_ok(&["device", "trust", "--identity", "kitchen-7.identity", "--publisher", "both.pem"]);
    assert_eq!(w.device_refused(4, &opened).name.as_deref(), Some("OtherModel"));

    let other = ["5", "--suite", "chacha20-poly1305", "--profile", "device"];
    w.ok(&[&["reseal", "models/1.sealed", "-o", "5", "--model-version"], &other[..]].concat());
    let new = w.device_ok(&["inspect", "5"]);
    assert_eq!((&new["suite"], &new["chunk_size"]), (&json!("chacha20-poly1305"), &json!(4096)));
    opens(w, "5");
    // A model that isn't whole isn't sealed anew, and nothing appears.
    let mut changed = w.read("models/1.sealed");
    *changed.last_mut().unwrap() ^= 1;
    w.write("changed", changed);
    w.refused(3, &["reseal", "changed", "-o", "6", "--model-version", "6"]);
}

#[test]
fn keys_of_a_software_vault_come_and_go() {
    tell(&Workspace::with_vault("file:vault.json"));
}

#[test]
fn keys_of_a_token_come_and_go() {
    let w = softhsm::workspace();
    tell(&w);
    for command in [&["key", "backup", "-o", "b"][..], &["key", "restore", "pin"]] {
        let refused = w.refused(5, command);
        assert!(refused.hint.contains("docs/KEYS.md"), "{refused:?}");
    }
}

#[test]
fn one_failure_does_not_stop_a_rewrap() {
    let w = Workspace::new();
    std::fs::create_dir(w.path("models")).unwrap();
    for version in ["1", "2", "3"] {
        seal(&w, version);
    }
    w.ok(&["key", "rotate", "master"]);
    let mut changed = w.read("models/2.sealed");
    changed[40] ^= 1;
    w.write("models/2.sealed", &changed);
    let arguments = ["rewrap", "models/1.sealed", "models/2.sealed", "nowhere", "models/3.sealed"];
    let run = w.run(w.command(&[&arguments[..], &["--json"]].concat()), &[]);
    assert_eq!(run.code, Some(3), "the first failure's: {}", run.stderr);
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    let said = said["rewrapped"].as_array().unwrap();
    assert_eq!(said.iter().map(|one| one["ok"] == true).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!((&said[1]["error"]["code"], &said[2]["error"]["code"]), (&json!(3), &json!(6)));
    assert_eq!((slots(&w, "models/1.sealed"), slots(&w, "models/3.sealed")), (json!([2]), json!([2])));
    assert!(w.read("models/2.sealed") == changed);
    let run = w.run(w.command(&arguments), &[]);
    assert_eq!(run.stderr.matches("error: ").count(), 3, "each, and the sum: {}", run.stderr);
    assert!(run.stderr.contains("2 of 4 sealed models"), "{}", run.stderr);
    // One alone is shown likewise, and the failure is its own.
    let run = w.run(w.command(&["rewrap", "models/2.sealed", "--json"]), &[]);
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((run.code, &said["rewrapped"][0]["error"]["code"]), (Some(3), &json!(3)));
    let run = w.run(w.command(&["rewrap", "models/2.sealed"]), &[]);
    assert_eq!(
        (run.stdout.as_slice(), run.stderr.matches("error: ").count()),
        (&b""[..], 1),
        "{}",
        run.stderr
    );
}

#[test]
fn a_software_vault_is_backed_up_and_restored() {
    let mut w = Workspace::new();
    std::fs::create_dir(w.path("models")).unwrap();
    seal(&w, "1");
    enroll(&w, "kitchen-7");
    w.ok(&["key", "rotate", "master"]);
    w.ok(&["key", "retire", "master", "1", "--force"]);
    let none = w.refused(5, &["key", "backup", "-o", "backup"]);
    assert!(none.message.contains("backup") && none.hint.contains("MODELSEAL_BACKUP_PASSPHRASE"), "{none:?}");
    w.set("MODELSEAL_BACKUP_PASSPHRASE", "another");
    w.ok(&["key", "backup", "-o", "backup"]);
    assert_eq!(w.mode("backup"), 0o600);
    w.refused(2, &["key", "backup", "-o", "backup"]);
    w.refused(5, &["key", "restore", "backup"]);
    w.refused(2, &["key", "backup", "-o", "vault.json"]);

    std::fs::rename(w.path("vault.json"), w.path("lost")).unwrap();
    w.set("MODELSEAL_BACKUP_PASSPHRASE", "a wrong one");
    let wrong = w.refused(5, &["key", "restore", "backup"]);
    assert!(wrong.hint.contains("MODELSEAL_BACKUP_PASSPHRASE"), "{wrong:?}");
    let missing = w.refused(6, &["key", "restore", "nowhere"]);
    assert!(missing.hint.contains("path"), "{missing:?}");
    w.set("MODELSEAL_BACKUP_PASSPHRASE", "another");
    let restored = w.ok(&["key", "restore", "backup"]);
    assert_eq!((restored["keys"].as_array().unwrap().len(), &restored["registry_exists"]), (4, &json!(true)));
    assert_eq!(keys(&w)[..2], ["master/1 retired", "master/2"]);
    w.ok(&["key", "retire", "master", "1", "--undo"]);
    opens(&w, "models/1.sealed");
    w.ok(&["grant", "models/1.sealed", "--device", "kitchen-7", "-o", "kitchen-7.grant"]);
    opens_by_grant(&w, "models/1.sealed", "kitchen-7");
}

#[test]
fn there_is_a_last_version() {
    let w = Workspace::with_vault("file:vault.json");
    w.write("vault.json", forge::vault_file(PASSPHRASE, &[u32::MAX]));
    let refused = w.refused(5, &["key", "rotate", "master"]);
    assert!(refused.message.contains("master/4294967295 is the last version"), "{refused:?}");
    w.ok(&["key", "rotate", "publisher"]);
}

/// Many rotations at the same time, by processes of their own.
#[test]
fn rotations_at_once_make_different_versions() {
    for w in [Workspace::with_vault("file:vault.json"), softhsm::workspace()] {
        w.ok(&["init"]);
        let children: Vec<_> =
            (0..5).map(|_| w.command(&["key", "rotate", "master"]).spawn().unwrap()).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let masters = keys(&w).iter().filter(|key| key.starts_with("master/")).count();
        assert_eq!(masters, 6);
        assert_eq!(w.ok(&["key", "check"])["ok"], true);
    }
}

/// A change of a vault file that is killed has happened or hasn't: the file opens, and its keys are the old or the new.
#[test]
fn a_killed_change_leaves_a_vault_that_opens() {
    let w = Workspace::with_vault("file:vault.json");
    w.write("vault.json", forge::vault_file(PASSPHRASE, &[1, 2]));
    let masters = || {
        let location = Location::File(w.path("vault.json"));
        let vault = modelseal_hsm::open(&location, &|| Ok(Passphrase::new(PASSPHRASE.to_owned().into())));
        vault.unwrap().keys().unwrap().iter().filter(|key| key.role == Role::Master).count()
    };
    let rotate = || w.command(&["key", "rotate", "master", "--quiet"]);
    let began = Instant::now();
    assert!(rotate().status().unwrap().success());
    let whole = began.elapsed();
    let (mut before, mut killed, mut changed, mut after, mut tries) = (masters(), 0, 0, Duration::ZERO, 0);
    while killed < 200 {
        let mut child = rotate().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        let _ = child.kill();
        let in_time = !child.wait().unwrap().success();
        let now = masters();
        assert!(now == before + 1 || (in_time && now == before), "{before} keys, then {now}");
        // What a kill may leave has one name, which the next change looks for.
        assert!(hidden(&w).iter().all(|name| name == ".vault.json.new"), "{:?}", hidden(&w));
        killed += u32::from(in_time);
        changed += u32::from(in_time && now > before);
        before = now;
        after = if in_time { after + whole / 41 } else { Duration::ZERO };
        tries += 1;
        assert!(tries < 900, "only {killed} kills came in time");
    }
    println!("{killed} kills while a key was made; {changed} after it was there");
    w.ok(&["key", "rotate", "master"]);
    assert!(hidden(&w).is_empty(), "{:?}", hidden(&w));
}

/// What is in the folder under a name that begins with a dot.
fn hidden(w: &Workspace) -> Vec<String> {
    let names =
        std::fs::read_dir(w.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

/// A killed change may leave the whole file beside: a key that is destroyed must not live on in it.
#[test]
fn what_a_killed_change_left_goes_with_the_next() {
    let w = Workspace::new();
    let left = w.read("vault.json");
    w.ok(&["key", "rotate", "master"]);
    w.write(".vault.json.new", &left);
    w.ok(&["key", "retire", "master", "1", "--force"]);
    assert!(hidden(&w).is_empty(), "{:?}", hidden(&w));
    w.write(".vault.json.new", &left);
    w.ok(&["key", "destroy", "master", "1", "--confirm", "destroy master/1"]);
    assert!(hidden(&w).is_empty(), "{:?}", hidden(&w));
    assert_eq!((w.mode("vault.json"), w.mode("vault.json.lock")), (0o600, 0o600));
    // Where the next change is none, and where there is no vault yet.
    w.write(".vault.json.new", &left);
    let again = w.command(&["key", "destroy", "master", "2", "--confirm", "destroy master/2"]);
    assert_eq!(w.run(again, &[]).code, Some(4));
    std::fs::remove_file(w.path("vault.json")).unwrap();
    std::fs::remove_file(w.path("registry.json")).unwrap();
    w.ok(&["init"]);
    assert!(hidden(&w).is_empty(), "{:?}", hidden(&w));
}

/// A pipe that nobody writes to isn't waited for.
#[test]
fn a_pipe_is_no_sealed_model() {
    let w = Workspace::new();
    w.ok(&["key", "rotate", "master"]);
    assert!(w.another("mkfifo", &["p.sealed"]).status().unwrap().success());
    for command in [&["rewrap", "p.sealed"][..], &["key", "retire", "master", "1", "p.sealed"]] {
        let run = w.run(w.wrapped(&["timeout", "20"], command), &[]);
        assert_eq!(run.code, Some(6), "{command:?}: {}", run.stderr);
        assert!(run.stderr.contains("p.sealed isn't a file"), "{}", run.stderr);
    }
    assert_eq!(keys(&w)[..2], ["master/1", "master/2"]);
}

/// With a vault file whose passphrase costs nothing.
fn cheap() -> Workspace {
    let w = Workspace::with_vault("file:vault.json");
    w.write("vault.json", forge::vault_file(PASSPHRASE, &[1]));
    std::fs::create_dir(w.path("models")).unwrap();
    w
}

fn destroy(w: &Workspace, role: &str, version: &str) {
    w.ok(&["key", "retire", role, version, "--force"]);
    w.ok(&["key", "destroy", role, version, "--confirm", &format!("destroy {role}/{version}")]);
}

/// Readers take four publisher keys. The vault itself opens what its older ones signed.
#[test]
fn a_fifth_publisher_key_costs_nothing_that_the_first_signed() {
    let w = cheap();
    seal(&w, "1");
    enroll(&w, "kitchen-7");
    let rotated: Vec<_> =
        (2..=6).map(|_| w.ok(&["key", "rotate", "publisher"])["not_exported"].clone()).collect();
    let none = json!([]);
    let left_out = [json!(["publisher/1"]), json!(["publisher/1", "publisher/2"])];
    assert_eq!(rotated, [&[none.clone(), none.clone(), none.clone()][..], &left_out].concat());
    assert_eq!(w.ok(&["key", "export"])["publisher"].as_array().unwrap().len(), 4);
    let said = w.run(w.command(&["key", "rotate", "publisher"]), &[]).stdout;
    assert!(String::from_utf8(said).unwrap().contains("leave out publisher/1, publisher/2, publisher/3"));

    opens(&w, "models/1.sealed");
    w.ok(&["verify", "models/1.sealed"]);
    w.ok(&["grant", "models/1.sealed", "--device", "kitchen-7", "-o", "kitchen-7.grant"]);
    w.ok(&["grant", "models/1.sealed", "--all", "-o", "grants"]);
    w.ok(&["key", "rotate", "master"]);
    std::fs::copy(w.path("models/1.sealed"), w.path("models/old.sealed")).unwrap();
    assert_eq!(w.ok(&["rewrap", "models/1.sealed"])["rewrapped"][0]["cleared"], json!([1]));
    let depends = w.refused(4, &["key", "retire", "master", "1", "models"]);
    assert!(depends.message.contains("old.sealed") && !depends.message.contains("1.sealed"), "{depends:?}");

    // What a retired publisher key signed isn't opened, but it still depends on its master key.
    w.ok(&["key", "retire", "publisher", "1", "models", "--force"]);
    w.refused(3, &["open", "models/1.sealed", "-o", "x"]);
    w.refused(3, &["verify", "models/1.sealed"]);
    let depends = w.refused(4, &["key", "retire", "master", "1", "models"]);
    assert!(depends.message.contains("open with no other key"), "{depends:?}");
    // Once that key is gone, nobody can tell any more.
    destroy(&w, "publisher", "1");
    let unknown = w.refused(4, &["key", "retire", "master", "1", "models"]);
    assert!(unknown.message.contains("whether 2 sealed models depend on master/1"), "{unknown:?}");
    let forced = w.ok(&["key", "retire", "master", "1", "models", "--force"]);
    assert_eq!(forced["foreign"], json!(["models/1.sealed", "models/old.sealed"]));
}

#[test]
fn no_publisher_key_is_made_that_the_registry_cannot_follow() {
    let (w, other) = (cheap(), Workspace::new());
    w.write("registry.json", other.read("registry.json"));
    let refused = w.refused(5, &["key", "rotate", "publisher"]);
    assert!(refused.message.contains("another vault"), "{refused:?}");
    assert_eq!(keys(&w).iter().filter(|key| key.starts_with("publisher/")).count(), 1);
}

#[test]
fn the_registry_follows_publisher_keys_that_are_made_at_once() {
    let w = cheap();
    enroll(&w, "kitchen-7");
    let rotate = || w.command(&["key", "rotate", "publisher", "--quiet"]).spawn().unwrap();
    for mut child in (0..12).map(|_| rotate()).collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(w.json("registry.json")["publisher"].as_array().unwrap().len(), 13);
    // It is still the vault's, whichever keys go.
    (1..13).for_each(|version| destroy(&w, "publisher", &version.to_string()));
    enroll(&w, "porch-2");
}

#[test]
fn an_older_copy_of_the_registry_is_taken_over_when_somebody_says_so() {
    let w = cheap();
    enroll(&w, "kitchen-7");
    let copy = w.read("registry.json");
    (2..=6).for_each(|_| drop(w.ok(&["key", "rotate", "publisher"])));
    // As long as the vault has its key, retired or older than those that readers get, it is known.
    w.write("registry.json", &copy);
    enroll(&w, "porch-2");
    w.ok(&["key", "retire", "publisher", "1", "--force"]);
    w.write("registry.json", &copy);
    enroll(&w, "attic-3");

    destroy(&w, "publisher", "1");
    w.write("registry.json", &copy);
    let derive = ["--derive", "--line", "wake-word", "--identity-out", "cellar-4.identity"];
    let refused = w.refused(5, &[&["device", "enroll", "cellar-4"], &derive[..]].concat());
    assert!(refused.hint.contains("device adopt"), "{refused:?}");
    assert_eq!(w.ok(&["device", "adopt"])["devices"], 1);
    enroll(&w, "cellar-4");
    let devices = w.ok(&["device", "list"]);
    let ids = devices["devices"].as_array().unwrap().iter().map(|device| device["device"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), ["cellar-4", "kitchen-7"]);
    std::fs::remove_file(w.path("registry.json")).unwrap();
    w.refused(6, &["device", "adopt"]);
}

#[test]
fn sealed_models_are_found_behind_links_and_none_is_not_all() {
    use std::os::unix::fs::symlink;
    let w = cheap();
    std::fs::create_dir(w.path("empty")).unwrap();
    std::fs::create_dir(w.path("linked")).unwrap();
    seal(&w, "1");
    w.ok(&["key", "rotate", "master"]);
    let unknown = w.refused(4, &["key", "retire", "master", "1", "empty"]);
    assert!(
        unknown.message.contains("can't be known") && unknown.hint.contains("none in empty"),
        "{unknown:?}"
    );
    let none = w.refused(6, &["rewrap", "empty"]);
    assert!(none.message.contains("no sealed model in empty"), "{none:?}");

    // A folder behind two links, one that leads in a circle, and one that leads nowhere.
    for (target, link) in [
        ("../models", "linked/a"),
        ("../models", "linked/b"),
        ("../linked", "models/back"),
        ("x", "linked/c"),
    ] {
        symlink(target, w.path(link)).unwrap();
    }
    let depends = w.refused(4, &["key", "retire", "master", "1", "linked"]);
    assert!(depends.message.contains("1 sealed models open with no other key"), "{depends:?}");
    // A sealed model that can't be reached may depend on it, too.
    symlink("nowhere", w.path("linked/gone.sealed")).unwrap();
    let done = w.run(w.command(&["rewrap", "linked", "--json"]), &[]);
    assert_eq!(done.code, Some(6), "{}", done.stderr);
    assert_eq!(slots(&w, "models/1.sealed"), json!([2]));
    let failed = w.refused(6, &["key", "retire", "master", "1", "linked"]);
    assert!(failed.message.contains("gone.sealed"), "{failed:?}");
    std::fs::remove_file(w.path("linked/gone.sealed")).unwrap();
    let rewrapped = w.ok(&["rewrap", "linked"])["rewrapped"].clone();
    assert_eq!(rewrapped.as_array().unwrap().len(), 1, "{rewrapped}");
    assert_eq!(w.ok(&["key", "retire", "master", "1", "linked"])["looked_at"], 1);
}
