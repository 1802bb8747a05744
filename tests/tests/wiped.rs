//! After a command has done its work, or has refused it, no piece of a key, of a passphrase or of a model is left in
//! the memory of its process: not on the heap, where it was given back, and not on the stack, where functions have
//! returned.
//!
//! `victim` is the whole program, which stops itself in the end; then its memory is searched from outside.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::process::Command;

use modelseal_tests::exposed::{
    Named, content_key, expanded_seed, grant_key, passphrase_keys, payload_key, vault_keys,
};
use modelseal_tests::faults::{self, User};
use modelseal_tests::forge::{self, Parts};
use modelseal_tests::remains::{Remains, Secrets, search};
use modelseal_tests::softhsm::add_token_with_pin;
use modelseal_tests::workspace::{PASSPHRASE, Refusal, write_private};
use modelseal_tests::{Workspace, counted};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");
const WRONG: &str = "incorrect horse battery staple";
/// Several chunks of either profile.
const LENGTH: usize = 200_000;

/// Runs `command`, which is the victim's, until it has stopped itself, and gives what is left in its memory and what
/// it said.
fn remains(mut command: Command, w: &Workspace, secrets: impl FnOnce() -> Secrets) -> (Remains, i32, String) {
    let file = |name| File::create(w.path(name)).unwrap();
    let mut child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
    let process = Pid::from_child(&child);
    let (_, status) = waitpid(Some(process), WaitOptions::UNTRACED).unwrap().unwrap();
    let said = || String::from_utf8(w.read("stderr")).unwrap();
    assert!(status.stopped(), "{command:?} ended early: {}", said());
    let (remains, searched) = search(process, &secrets());
    assert!(searched > 100_000, "{command:?}: only {searched} bytes were searched");
    kill_process(process, Signal::CONT).unwrap();
    (remains, child.wait().unwrap().code().unwrap(), said())
}

/// The controls: what is left on purpose is found where it was left.
#[test]
fn what_is_left_is_found() {
    let w = Workspace::with_vault("file:vault.json");
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).unwrap();
    w.write("secret", secret);
    for place in ["heap", "stack", "mapped", "nowhere"] {
        let secrets = || {
            let mut secrets = Secrets::default();
            secrets.add("secret", &secret);
            secrets
        };
        let command = w.another(VICTIM, &["leak", place, "secret"]);
        let (remains, code, said) = remains(command, &w, secrets);
        assert_eq!(code, 0, "{said}");
        let places: Vec<_> =
            remains.keys().map(|(_, place)| *place).filter(|found| *found == place).collect();
        assert!(places == [place] || (place == "nowhere" && remains.is_empty()), "{place}: {remains:?}");
    }
}

use By::{Device, Operator, Stranger};

#[derive(Clone, Copy, PartialEq)]
enum By {
    Operator,
    /// With no vault to be found.
    Device,
    /// With a wrong passphrase.
    Stranger,
}

/// By whom, the command, and the exit code and name of the refusal, if it must refuse.
type Case = (By, &'static str, &'static str);

/// In this order, for some need what others made.
#[rustfmt::skip]
const CASES: &[Case] = &[
    (Operator, "key list", ""),
    (Stranger, "key list", "5"),
    (Operator, "key list --vault file:damaged.json", "5"),
    (Operator, "key export", ""),
    (Operator, "key check", ""),
    (Operator, "seal model -o new.sealed --line wake-word --model-version 3", ""),
    (Operator, "seal model -o none/new.sealed --line wake-word --model-version 3", "6"),
    (Stranger, "seal model -o newer.sealed --line wake-word --model-version 3", "5"),
    (Operator, "device enroll attic-3 --derive --line wake-word --identity-out attic.identity", ""),
    (Operator, "device enroll kitchen-7 --derive --line wake-word --identity-out again.identity", "4"),
    (Device, "device keygen cellar-1 --identity-out cellar.identity --public-out cellar.pem", ""),
    (Operator, "device enroll cellar-1 --public-key cellar.pem --line wake-word --identity-out cellar.public", ""),
    (Device, "device complete --identity cellar.identity --public-part cellar.public", ""),
    (Operator, "grant 1.sealed --device kitchen-7 -o new.kitchen.grant", ""),
    (Operator, "grant 1.sealed --device porch-2 -o new.porch.grant", ""),
    (Operator, "grant header.sealed --device porch-2 -o newer.porch.grant", "3 ManifestSignature"),
    (Stranger, "grant 1.sealed --device kitchen-7 -o newer.kitchen.grant", "5"),
    (Operator, "grant 1.sealed --all -o new.grants", ""),
    (Operator, "grant 1.sealed --all -o new.grants", ""),
    (Operator, "grant 1.sealed --all -o 1.sealed", "6"),
    (Operator, "grant 1.sealed --all --floor 9 -o new.grants", "2"),
    (Stranger, "grant 1.sealed --all -o new.grants", "5"),
    (Operator, "verify 1.sealed", ""),
    (Operator, "open 1.sealed -o out", ""),
    (Operator, "open 2.sealed -o out", ""),
    (Operator, "open 1.sealed -o -", ""),
    (Operator, "open 1.sealed -o /dev/full", "6"),
    (Operator, "open 1.sealed -o out --line other", "4 OtherLine"),
    (Operator, "open header.sealed -o out", "3 ManifestSignature"),
    (Operator, "open slot.sealed -o out", "3 KeySlot"),
    (Operator, "open commitment.sealed -o out", "3 Commitment"),
    (Operator, "open value.sealed -o out", "3 Index"),
    (Operator, "open tag.sealed -o out", "3 Chunk"),
    (Operator, "open chunk.sealed -o out", "3 Chunk"),
    (Operator, "open chunk.sealed -o -", "3 Chunk"),
    (Operator, "open cut.sealed -o out", "3 Truncated"),
    (Stranger, "open 1.sealed -o out", "5"),
    (Device, "open 1.sealed -o out --grant forged.grant --identity kitchen.identity", "3 Commitment"),
    (Operator, "seal folder -o new.release --line wake-word --model-version 3", ""),
    (Operator, "grant release --device kitchen-7 -o new.release.grants", ""),
    (Operator, "verify release", ""),
    (Operator, "open release -o out", ""),
    (Operator, "open mixed -o out", "4"),
    (Device, "open release -o out --no-confirm --grant grants --identity kitchen.identity", ""),
    (Device, "open mixed -o out --no-confirm --grant grants --identity kitchen.identity", "4"),
    (Operator, "migrate-fernet old.tflite.enc --key key -o migrated.sealed --line wake-word --model-version 3", ""),
    (Operator, "migrate-fernet old.tflite.enc --key wrong.key -o no.sealed --line wake-word --model-version 3", "3"),
    (Stranger, "migrate-fernet old.tflite.enc --key key -o no.sealed --line wake-word --model-version 3", "5"),
    (Operator, "key rotate master --vault file:copy.json", ""),
    (Operator, "rewrap moved.sealed --vault file:copy.json", ""),
    (Operator, "rewrap header.sealed --vault file:copy.json", "3 ManifestSignature"),
    (Operator, "key retire master 1 moved.sealed --vault file:copy.json", ""),
    (Operator, "key destroy master 1 --confirm destroy+master/1 --vault file:copy.json", ""),
    (Operator, "key rotate publisher --vault file:copy.json", ""),
    (Stranger, "key rotate fleet --vault file:copy.json", "5"),
    (Operator, "reseal 1.sealed -o new.sealed --model-version 3", ""),
    (Operator, "reseal chunk.sealed -o newer.sealed --model-version 3", "3 Chunk"),
    (Operator, "key backup -o backup", ""),
    (Operator, "key restore backup --vault file:restored.json", ""),
    (Stranger, "key restore vault.json --vault file:again.json", "5"),
];

/// The same for a device that shares a key with the vault, and for one that has an X25519 key.
#[rustfmt::skip]
const DEVICE_CASES: &[Case] = &[
    (Device, "open 1.sealed -o out --no-confirm --grant 1.DEVICE.grant --identity DEVICE.identity", ""),
    (Device, "open 2.sealed -o out --no-confirm --grant 2.DEVICE.grant --identity DEVICE.identity", ""),
    (Device, "open 1.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.wrong.identity", "3 GrantKey"),
    (Device, "open 1.sealed -o out --grant changed.DEVICE.grant --identity DEVICE.identity", "3"),
    (Device, "open 1.sealed -o out --grant 2.DEVICE.grant --identity DEVICE.identity", "4 OtherModel"),
    (Device, "open 1.sealed -o out --grant expired.DEVICE.grant --identity DEVICE.identity", "4 Expired"),
    (Device, "open 1.sealed -o out --line other --grant 1.DEVICE.grant --identity DEVICE.identity", "4 OtherLine"),
    (Device, "open 1.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.malformed.identity", "3"),
    (Device, "open header.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.identity", "3 ManifestSignature"),
    (Device, "open value.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.identity", "3 Index"),
    (Device, "open chunk.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.identity", "3 Chunk"),
    (Device, "open chunk.sealed -o - --grant 1.DEVICE.grant --identity DEVICE.identity", "3 Chunk"),
    (Device, "open cut.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.identity", "3 Truncated"),
    (Device, "open 2.sealed -o out --grant 2.DEVICE.grant --identity DEVICE.identity", ""),
    (Device, "open 1.sealed -o out --grant 1.DEVICE.grant --identity DEVICE.identity", "4 RolledBack"),
];

#[test]
fn nothing_stays_in_memory() {
    let scene = Scene::new();
    let of_devices = DEVICES.iter().flat_map(|device| DEVICE_CASES.iter().map(move |case| (case, *device)));
    let cases: Vec<_> = CASES.iter().map(|case| (case, "-")).chain(of_devices).collect();
    let left: Vec<_> = cases.iter().flat_map(|(case, device)| scene.run(**case, device)).collect();
    assert!(left.is_empty(), "{} remains:\n{}", left.len(), left.join("\n"));
    counted(&format!("memory of a process: {} commands, no key, passphrase or plaintext left", cases.len()));
}

/// The library by itself, in another program.
const LIBRARY_CASES: &[Case] = &[
    (Operator, "library seal model new.sealed", ""),
    (Operator, "library open 1.sealed", ""),
    (Operator, "library open 2.sealed", ""),
    (Operator, "library open chunk.sealed", "1"),
    (Device, "library open 1.sealed 1.DEVICE.grant DEVICE.identity", ""),
    (Device, "library open 2.sealed 2.DEVICE.grant DEVICE.identity", ""),
    (Device, "library open chunk.sealed 1.DEVICE.grant DEVICE.identity", "1"),
    (Device, "library open value.sealed 1.DEVICE.grant DEVICE.identity", "1"),
];

#[test]
fn nothing_stays_in_memory_of_another_program() {
    let scene = Scene::new();
    let cases = DEVICES.iter().flat_map(|device| LIBRARY_CASES.iter().map(move |case| (case, device)));
    let left: Vec<_> = cases.flat_map(|(case, device)| scene.run(*case, device)).collect();
    assert!(left.is_empty(), "{} remains:\n{}", left.len(), left.join("\n"));
}

/// A vault's keys are made in memory, too; and either algorithm signs there.
#[test]
fn nothing_stays_in_memory_of_a_new_vault() {
    let mut left = Vec::new();
    for algorithm in ["ed25519", "ecdsa-p256"] {
        let w = Workspace::with_vault("file:vault.json");
        w.write("model", "a model");
        let init = ["init", "--publisher-algorithm", algorithm, "--json"];
        let seal = ["seal", "model", "-o", "sealed", "--line", "wake-word", "--model-version", "1", "--json"];
        for command in [&init[..], &seal] {
            let (remains, code, said) = remains(w.another(VICTIM, command), &w, || vault_secrets(&w));
            assert_eq!(code, 0, "{said}");
            left.extend(told(&format!("{} {algorithm}", command[0]), &remains));
        }
    }
    assert!(left.is_empty(), "{} remains:\n{}", left.len(), left.join("\n"));
}

/// By whom, the command, what goes wrong with the token, and how it is refused. A token that hangs isn't among them:
/// its command ends at once with `_exit`, and no memory is left.
#[rustfmt::skip]
const TOKEN_CASES: &[(By, &str, &str, &str)] = &[
    (Operator, "key list", "", ""),
    (Operator, "key check", "", ""),
    (Stranger, "key list", "", "5"),
    (Operator, "seal model -o new.sealed --line wake-word --model-version 3", "", ""),
    (Operator, "open 1.sealed -o out", "", ""),
    (Operator, "open bad.sealed -o out", "", "3 KeySlot"),
    (Operator, "grant 1.sealed --device kitchen-7 -o new.kitchen.grant", "", ""),
    (Operator, "device enroll attic-3 --derive --line wake-word --identity-out attic.identity", "", ""),
    (Operator, "open 1.sealed -o out", "C_Decrypt 0x32", "5"),
    (Operator, "open 1.sealed -o out", "C_Decrypt 0x30 2", ""),
    (Operator, "open 1.sealed -o out", "C_SignInit 0xb3 1", ""),
    (Operator, "open 1.sealed -o out", "C_SignInit 0xb3", "5"),
    (Operator, "open 1.sealed -o out", "C_Login 0x32", "5"),
    (Operator, "seal model -o newer.sealed --line wake-word --model-version 4", "C_Encrypt 0x32", "5"),
    (Operator, "seal model -o newer.sealed --line wake-word --model-version 4", "C_Sign 0x32", "5"),
];

/// The same for a token's PIN, and for the content keys that it gave back: neither we nor SoftHSM keep them.
#[test]
fn nothing_stays_in_memory_with_a_token() {
    let mut w = faults::empty_workspace();
    let pin = hex::encode(random::<12>());
    let uri = add_token_with_pin(&w, "ours", &pin);
    std::fs::remove_file(w.path("pin")).unwrap();
    write_private(&w.path("pin"), &pin);
    let module = format!("module-path={}", modelseal_tests::softhsm::module());
    let shim = format!("module-path={}", faults::shim().display());
    w.set("MODELSEAL_VAULT", uri.replace(&module, &shim));
    w.set("MODELSEAL_TOKEN_TIMEOUT", "5");
    let mut model = vec![0; LENGTH];
    getrandom::fill(&mut model).unwrap();
    w.write("model", &model);
    w.ok(&["init"]);
    w.ok(&["seal", "model", "-o", "1.sealed", "--line", "wake-word", "--model-version", "1"]);
    w.ok(&[
        "device",
        "enroll",
        "kitchen-7",
        "--derive",
        "--line",
        "wake-word",
        "--identity-out",
        "kitchen.identity",
    ]);
    let mut bad = w.read("1.sealed");
    let slot = Parts::of(&bad, LENGTH).envelope + 64 + 20;
    bad[slot] ^= 1;
    w.write("bad.sealed", bad);
    let wrong = hex::encode(random::<12>());
    w.write("wrong", &wrong);
    let mut left = Vec::new();
    for (by, words, wanted, refusal) in TOKEN_CASES {
        faults::set(&w, wanted);
        let mut command = w.another(VICTIM, &words.split(' ').chain(["--json"]).collect::<Vec<_>>());
        if *by == Stranger {
            let uri = uri.replace(&module, &shim).replace("pin-source=", "pin-source=/nowhere");
            let (uri, _) = uri.split_once("&pin-source").unwrap();
            command.env("MODELSEAL_VAULT", uri).env("MODELSEAL_PIN_FILE", "wrong");
        }
        let secrets = || {
            faults::set(&w, "");
            let mut secrets = Secrets::default();
            secrets.add("PIN", pin.as_bytes());
            secrets.add("wrong PIN", wrong.as_bytes());
            secrets.add_model("model", &model);
            let mut user = User::start(w.another(env!("CARGO_BIN_EXE_user"), &[] as &[&str]));
            for name in ["1.sealed", "new.sealed"].into_iter().filter(|name| w.path(name).exists()) {
                let key = user.does(&format!("content key {name}"));
                let key: [u8; 32] = hex::decode(&key[3..]).unwrap().try_into().unwrap();
                secrets.add(&format!("content key of {name}"), &key);
                secrets.add(&format!("payload key of {name}"), &payload_key(&w.read(name), LENGTH, &key));
            }
            user.ends();
            for name in files(&w, ".identity") {
                let (name, key) = device_key(&w, &name).unwrap();
                secrets.add(&name, &key);
                secrets.add_hex(&name, &key);
            }
            secrets
        };
        let (remains, code, said) = remains(command, &w, secrets);
        let said = if code == 0 { String::new() } else { told_refusal(code, &said) };
        assert_eq!(said, *refusal, "{words}, {wanted}");
        let _ = std::fs::remove_file(w.path("out"));
        left.extend(told(&format!("{words}, {wanted} {refusal}"), &remains));
    }
    assert!(left.is_empty(), "{} remains:\n{}", left.len(), left.join("\n"));
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

const DEVICES: [&str; 2] = ["kitchen", "porch"];

struct Scene {
    w: Workspace,
    /// What doesn't change from case to case, and takes time.
    vault: Vec<Named>,
    model: Vec<u8>,
}

impl Scene {
    /// Two sealed models, one for each suite, granted to two devices; and every kind of damage to them.
    fn new() -> Self {
        let mut w = Workspace::new();
        // For what changes a vault: the others' secrets are those of vault.json.
        w.write("copy.json", w.read("vault.json"));
        w.set("MODELSEAL_BACKUP_PASSPHRASE_FILE", "wrong");
        let mut model = vec![0; LENGTH];
        getrandom::fill(&mut model).unwrap();
        w.write("model", &model);
        w.write("wrong", WRONG);
        w.ok(&["seal", "model", "-o", "1.sealed", "--line", "wake-word", "--model-version", "1"]);
        w.write("moved.sealed", w.read("1.sealed"));
        let second = ["seal", "model", "-o", "2.sealed", "--line", "wake-word", "--model-version", "2"];
        w.ok(&[&second[..], &["--suite", "chacha20-poly1305", "--profile", "device"]].concat());
        let enrol = ["device", "enroll", "--line", "wake-word", "--line", "other", "--identity-out"];
        w.ok(&[&enrol[..], &["kitchen.identity", "kitchen-7", "--derive"]].concat());
        w.device_ok(&[
            "device",
            "keygen",
            "porch-2",
            "--identity-out",
            "porch.identity",
            "--public-out",
            "porch.pem",
        ]);
        w.ok(&[&enrol[..], &["porch.identity", "porch-2", "--public-key", "porch.pem"]].concat());
        for (device, id) in [("kitchen", "kitchen-7"), ("porch", "porch-2")] {
            for sealed in ["1", "2"] {
                let (sealed, grant) = (format!("{sealed}.sealed"), format!("{sealed}.{device}.grant"));
                w.ok(&["grant", &sealed, "--device", id, "-o", &grant]);
            }
            let grant = format!("expired.{device}.grant");
            let long_ago = ["--not-before", "1", "--not-after", "2"];
            w.ok(&[&["grant", "1.sealed", "--device", id, "-o", &grant][..], &long_ago].concat());
        }
        for dir in ["folder", "mixed"] {
            std::fs::create_dir(w.path(dir)).unwrap();
        }
        w.write("folder/model", &model);
        w.ok(&["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "1"]);
        w.ok(&["grant", "release", "--device", "kitchen-7", "-o", "grants"]);
        w.write("mixed/directory.sealed", w.read("release/directory.sealed"));
        w.write("mixed/model.sealed", w.read("1.sealed"));
        modelseal_tests::fernet::encrypt(&w, &model);
        w.write("wrong.key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let vault = vault_keys_and_more(&w);
        damage(&w, &vault);
        Self { w, vault, model }
    }

    fn run(&self, (by, words, refusal): Case, device: &str) -> Vec<String> {
        let words = words.replace("DEVICE", device);
        let json = (!words.starts_with("library")).then_some("--json");
        let arguments: Vec<_> = words.split(' ').chain(json).map(|word| word.replace('+', " ")).collect();
        let mut command = self.w.another(VICTIM, &arguments);
        match by {
            Operator => {}
            Stranger => drop(command.env("MODELSEAL_PASSPHRASE_FILE", "wrong")),
            Device => {
                for name in ["MODELSEAL_VAULT", "MODELSEAL_REGISTRY", "MODELSEAL_PASSPHRASE_FILE"] {
                    command.env_remove(name);
                }
            }
        }
        let (remains, code, said) = remains(command, &self.w, || self.secrets());
        let said = match (code, json) {
            (0, _) => String::new(),
            (_, None) => code.to_string(),
            (_, Some(_)) => told_refusal(code, &said),
        };
        assert!(
            said == refusal || (!refusal.contains(' ') && said.split(' ').next() == Some(refusal)),
            "{words}: {said:?}"
        );
        let _ = std::fs::remove_file(self.w.path("out"));
        let _ = std::fs::remove_dir_all(self.w.path("out"));
        told(&format!("{words} {refusal}"), &remains)
    }

    /// Everything that the files now imply.
    fn secrets(&self) -> Secrets {
        let mut secrets = vault_secrets_of(&self.vault);
        secrets.add_model("model", &self.model);
        let devices: Vec<_> =
            files(&self.w, ".identity").iter().filter_map(|name| device_key(&self.w, name)).collect();
        for (name, key) in &devices {
            secrets.add(name, key);
            secrets.add_hex(name, key);
        }
        let key = self.w.read("key");
        secrets.add("Fernet key", &key);
        secrets.add("Fernet key, decoded", &hex::decode(self.w.read("key.hex")).unwrap());
        for name in ["1", "2", "new", "release/model", "new.release/model", "migrated"]
            .map(|name| format!("{name}.sealed"))
        {
            if self.w.path(&name).exists() {
                let key = content_key(&self.w, &name);
                secrets.add(&format!("content key of {name}"), &key);
                secrets
                    .add(&format!("payload key of {name}"), &payload_key(&self.w.read(&name), LENGTH, &key));
            }
        }
        for device in DEVICES {
            let (_, key) = device_key(&self.w, &format!("{device}.identity")).unwrap();
            for grant in files(&self.w, &format!(".{device}.grant")) {
                secrets.add(&format!("key of {grant}"), &grant_key(&self.w.read(&grant), &key));
            }
        }
        secrets
    }
}

fn files(w: &Workspace, ending: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(w.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).collect()
}

fn device_key(w: &Workspace, identity: &str) -> Option<(String, [u8; 32])> {
    let identity_file: Value = serde_json::from_slice(&w.read(identity)).ok()?;
    let key = identity_file["device_key"].as_str().or(identity_file["x25519"].as_str())?;
    Some((format!("device key in {identity}"), hex::decode(key).unwrap().try_into().unwrap()))
}

fn vault_secrets(w: &Workspace) -> Secrets {
    vault_secrets_of(&vault_keys_and_more(w))
}

fn vault_secrets_of(keys: &[Named]) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add("passphrase", PASSPHRASE.as_bytes());
    secrets.add("wrong passphrase", WRONG.as_bytes());
    for (name, key) in keys {
        secrets.add(name, key);
    }
    secrets
}

/// What follows from the vault's keys and from what was tried as its passphrase: it takes a while.
fn vault_keys_and_more(w: &Workspace) -> Vec<Named> {
    let mut keys = vault_keys(w, PASSPHRASE);
    keys.push(("expanded publisher key".into(), expanded_seed(&keys[2].1)));
    let [_, memory] = passphrase_keys(w, PASSPHRASE);
    keys.push(("memory of argon2".into(), memory));
    let [key, memory] = passphrase_keys(w, WRONG);
    keys.extend([
        ("key of the wrong passphrase".into(), key),
        ("memory of argon2, wrong passphrase".into(), memory),
    ]);
    keys
}

/// `3 Chunk`
fn told_refusal(code: i32, said: &str) -> String {
    let refusal = Refusal::parse(u8::try_from(code).unwrap(), said);
    [Some(code.to_string()), refusal.name].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn told(what: &str, remains: &Remains) -> Vec<String> {
    remains.iter().map(|((name, place), pieces)| format!("{what:80} | {name} | {place} | {pieces}")).collect()
}

/// What is made by hand: everything that a case must refuse.
fn damage(w: &Workspace, vault: &[Named]) {
    let sealed = w.read("1.sealed");
    let p = Parts::of(&sealed, LENGTH);
    let flipped = |bytes: &[u8], at: usize| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        flipped
    };
    for (name, at) in [
        ("header", p.envelope - 1),
        ("slot", p.envelope + 64 + 20),
        ("value", p.padding - 1),
        ("tag", p.padding - 48),
        ("chunk", sealed.len() - 1),
    ] {
        w.write(format!("{name}.sealed"), flipped(&sealed, at));
    }
    w.write("cut.sealed", &sealed[..sealed.len() - 1]);
    w.write("commitment.sealed", with_forged_commitment(&sealed, p, vault, &content_key(w, "1.sealed")));

    let vault_file = String::from_utf8(w.read("vault.json")).unwrap();
    let keys = w.json("vault.json")["keys"].as_str().unwrap().to_owned();
    w.write("damaged.json", vault_file.replace(&keys, &keys[..keys.len() - 2]));

    for device in DEVICES {
        let grant = w.read(&format!("1.{device}.grant"));
        w.write(format!("changed.{device}.grant"), flipped(&grant, grant.len() - 40));
        let name = format!("{device}.identity");
        let (_, key) = device_key(w, &name).unwrap();
        let text = String::from_utf8(w.read(&name)).unwrap();
        let mut other = [0; 32];
        getrandom::fill(&mut other).unwrap();
        w.write(format!("{device}.wrong.identity"), text.replace(&hex::encode(key), &hex::encode(other)));
        w.write(format!("{device}.malformed.identity"), &text[..text.len() - 3]);
    }
    // A grant that only the vault could have made wraps another content key than the manifest commits to.
    let id = forge::model_id(&sealed, p);
    let (_, key) = device_key(w, "kitchen.identity").unwrap();
    let terms = forge::terms(1, &id, "kitchen-7", 1, None);
    w.write("forged.grant", forge::device_grant(&key, &id, &terms, &[0x5c; 32]));
}

/// A manifest that the publisher did sign, with the right key in its slot and another commitment.
fn with_forged_commitment(sealed: &[u8], p: Parts, vault: &[Named], content: &[u8; 32]) -> Vec<u8> {
    use ed25519_dalek::Signer;
    let mut forged = sealed.to_vec();
    forged[p.envelope - 64] ^= 1;
    let seed: &[u8; 32] = vault[2].1.as_slice().try_into().unwrap();
    let signature = ed25519_dalek::SigningKey::from_bytes(seed).sign(&forge::signed_bytes(&forged, p));
    forged[p.envelope..p.envelope + 64].copy_from_slice(&signature.to_bytes());
    let slot = forge::slot(
        1,
        vault[0].1.as_slice().try_into().unwrap(),
        &[9; 12],
        &forge::model_id(&forged, p),
        content,
    );
    forged[p.envelope + 64..p.envelope + 192].copy_from_slice(&slot);
    forged
}
