//! Grants to many devices at once: signed as one tree, complete whenever they have their names, made once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use getrandom::SysRng;
use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant, Terms, UnsignedGrant, Wrapping, wrap_for_x25519};
use modelseal_core::keys::X25519Secret;
use modelseal_core::sign::Publisher;
use modelseal_hsm::{BATCH_MAX, GrantTree, SignedTree};
use modelseal_tests::bench::{Bench, SUITES};
use modelseal_tests::published::{enroll, published, seal};
use modelseal_tests::workspace::WAKE_WORD;
use modelseal_tests::{Workspace, softhsm};
use rand_core::UnwrapErr;
use serde_json::{Value, json};

// ---- Trees ----

/// `count` grants that wait for a signature.
fn unsigned(bench: &Bench, count: usize) -> Vec<UnsignedGrant> {
    let model = bench.seal(SUITES[1]);
    let public = x25519_public();
    bench.unwrapped(&model, |content| {
        let wrap = |i: usize| {
            let id = format!("device-{i}");
            let terms = Terms::new(content, DeviceId::new(&id).unwrap());
            wrap_for_x25519(content, &terms, &public, &mut UnwrapErr(SysRng)).unwrap()
        };
        (0..count).map(wrap).collect()
    })
}

fn x25519_public() -> [u8; 32] {
    X25519Secret::generate(&mut UnwrapErr(SysRng)).public().unwrap()
}

fn tree(grants: &[UnsignedGrant]) -> GrantTree {
    GrantTree::new(grants.iter().map(UnsignedGrant::leaf).collect()).unwrap()
}

fn verify(
    grant: &UnsignedGrant,
    tree: &SignedTree,
    leaf: usize,
    publisher: &Publisher,
) -> Result<usize, Error> {
    let bytes = grant.sign(&tree.path(leaf).unwrap()).unwrap();
    let grant = Grant::parse(&bytes).unwrap();
    let length = grant.signature().unwrap().siblings.len();
    grant.verify(publisher).map(|_| length)
}

#[test]
fn every_grant_of_a_batch_of_any_size_verifies() {
    let bench = Bench::with_master_keys(&[1]);
    let publisher = bench.vault.publisher().unwrap();
    let grants = unsigned(&bench, BATCH_MAX);
    for size in (1..=40).chain([1000, BATCH_MAX - 1, BATCH_MAX]) {
        let signed = bench.vault.sign_grants(tree(&grants[..size])).unwrap();
        let longest = (size as f64).log2().ceil() as usize;
        for (leaf, grant) in grants[..size].iter().enumerate() {
            let length = verify(grant, &signed, leaf, &publisher);
            assert!(length.is_ok_and(|length| length <= longest), "{leaf} of {size}: {length:?}");
        }
        assert!(signed.path(size).is_none());
    }
    for size in [0, BATCH_MAX + 1] {
        assert!(GrantTree::new(vec![[0; 32]; size]).is_err(), "{size}");
    }
}

/// RFC 9162, section 2.1.1: the left part is the largest power of two below the whole.
fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    if let [leaf] = leaves {
        return *leaf;
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    *blake3::hash(&[&[1][..], &root(left), &root(right)].concat()).as_bytes()
}

#[test]
fn trees_are_left_balanced() {
    let leaves: Vec<[u8; 32]> = (0..70u8).map(|i| *blake3::hash(&[i]).as_bytes()).collect();
    for size in 1..=leaves.len() {
        assert_eq!(GrantTree::new(leaves[..size].to_vec()).unwrap().root(), root(&leaves[..size]), "{size}");
    }
}

#[test]
fn a_path_of_another_batch_or_leaf_does_not_verify() {
    let bench = Bench::with_master_keys(&[1]);
    let publisher = bench.vault.publisher().unwrap();
    let grants = unsigned(&bench, 26);
    let (here, there) = grants.split_at(13);
    let [here_signed, there_signed] = [here, there].map(|part| bench.vault.sign_grants(tree(part)).unwrap());
    for (leaf, grant) in here.iter().enumerate() {
        assert!(verify(grant, &here_signed, leaf, &publisher).is_ok());
        assert_eq!(verify(grant, &there_signed, leaf, &publisher), Err(Error::GrantSignature), "{leaf}");
        let other = (leaf + 1) % here.len();
        assert_eq!(verify(grant, &here_signed, other, &publisher), Err(Error::GrantSignature), "{leaf}");
    }
    // Signed by another publisher.
    let stranger = Bench::new().vault.publisher().unwrap();
    assert_eq!(verify(&here[0], &here_signed, 0, &stranger), Err(Error::GrantSignature));
}

// ---- The command ----

/// Enrols devices without paying for the passphrase each time: `derived-0` …, `own-0` …
fn enrol_many(w: &Workspace, derived: usize, own: usize) {
    let mut registry = w.json("registry.json");
    let mut add = |id: String, key: Value| {
        registry["devices"][id] = json!({ "lines": ["wake-word"], "key": key, "enrolled": 0 });
    };
    for i in 0..derived {
        add(format!("derived-{i}"), json!({ "fleet": 1 }));
    }
    for i in 0..own {
        let pem = modelseal::pem::x25519(&x25519_public()).unwrap();
        add(format!("own-{i}"), json!({ "x25519": pem }));
    }
    w.write("registry.json", registry.to_string());
}

/// A device with a key of its own, in `ID.identity`.
fn enrol_own(w: &Workspace, id: &str, line: &str) {
    let identity = format!("{id}.identity");
    w.device_ok(&["device", "keygen", id, "--identity-out", &identity, "--public-out", "pem"]);
    w.ok(&["device", "enroll", id, "--line", line, "--public-key", "pem", "--identity-out", &identity]);
}

/// A sealed model, `kitchen-7` and `porch-2` that can open it, `shed-1` that may not, and others.
fn fleet(derived: usize, own: usize) -> Workspace {
    let w = published();
    populate(&w, derived, own);
    w
}

fn populate(w: &Workspace, derived: usize, own: usize) {
    enrol_own(w, "porch-2", "wake-word");
    enrol_own(w, "shed-1", "other");
    enrol_many(w, derived, own);
}

fn names(w: &Workspace, dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(w.path(dir)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Each file is a whole grant for the device that it is named after and, where the publisher signs, signed.
fn all_are_genuine(w: &Workspace, dir: &str) -> usize {
    let pem = w.ok(&["key", "export"])["publisher"][0].as_str().unwrap().to_owned();
    let publisher = Publisher::new(&modelseal::pem::parse_publisher(&pem).unwrap()).unwrap();
    let names = names(w, dir);
    for name in &names {
        let bytes = w.read(&format!("{dir}/{name}"));
        let grant = Grant::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(format!("{}.grant", grant.terms().device.as_str()), *name);
        if let Wrapping::Hpke { .. } = grant.wrapping() {
            grant.verify(&publisher).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    names.len()
}

fn opens(w: &Workspace, device: &str) {
    let (grant, identity) = (format!("grants/{device}.grant"), format!("{device}.identity"));
    w.device_ok(&["open", "sealed", "-o", "opened", "--grant", &grant, "--identity", &identity]);
    assert!(w.read("opened") == std::fs::read(WAKE_WORD).unwrap());
}

fn counts(answer: &Value) -> [u64; 4] {
    ["made", "kept", "left_out", "signatures"].map(|name| answer[name].as_u64().unwrap())
}

const ALL: [&str; 5] = ["grant", "sealed", "--all", "-o", "grants"];

fn a_mixed_fleet_is_granted(w: &Workspace) {
    let answer = w.ok(&ALL);
    assert_eq!(counts(&answer), [302, 0, 1, 1], "{answer}");
    assert_eq!(answer["left_out_devices"], json!(["shed-1"]));
    assert!(answer["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(all_are_genuine(w, "grants"), 302);
    for device in ["kitchen-7", "porch-2"] {
        opens(w, device);
    }
}

#[test]
fn a_mixed_fleet_is_granted_with_one_signature() {
    let w = fleet(150, 150);
    a_mixed_fleet_is_granted(&w);
    let said = w.run(w.command(&["grant", "sealed", "--all", "-o", "new"]), &[]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("302 devices in new: kept 0, made 302 with 1 signature\nleft out shed-1"),
        "{said}"
    );
}

#[test]
fn a_mixed_fleet_is_granted_with_keys_in_a_token() {
    let w = softhsm::workspace();
    w.ok(&["init"]);
    seal(&w, WAKE_WORD, "sealed");
    enroll(&w, "kitchen-7");
    populate(&w, 150, 150);
    a_mixed_fleet_is_granted(&w);
}

#[test]
fn what_fits_is_kept_and_everything_else_is_made() {
    let w = fleet(20, 20);
    assert_eq!(counts(&w.ok(&ALL)), [42, 0, 1, 1]);
    let made = w.snapshot();
    assert_eq!(counts(&w.ok(&ALL)), [0, 42, 1, 0]);
    assert_eq!(w.snapshot(), made);

    // Gone, cut, of another device, of other terms, and with another signature; and two for device keys that are changed
    // where only the keys can tell.
    std::fs::remove_file(w.path("grants/derived-0.grant")).unwrap();
    let change = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = w.read(name);
        change(&mut bytes);
        w.write(name, bytes);
    };
    change("grants/derived-1.grant", &|bytes| bytes.truncate(40));
    change("grants/derived-2.grant", &|bytes| bytes.clear());
    w.write("grants/derived-3.grant", w.read("grants/derived-4.grant"));
    w.write("grants/own-3.grant", w.read("grants/own-4.grant"));
    w.write("grants/own-5.grant", "something else altogether");
    w.ok(&["grant", "sealed", "--device", "own-6", "-o", "grants/own-6.grant", "--floor", "0"]);
    change("grants/own-7.grant", &|bytes| *bytes.last_mut().unwrap() ^= 0x80);
    change("grants/own-8.grant", &|bytes| bytes[100] ^= 1);
    change("grants/derived-9.grant", &|bytes| *bytes.iter_mut().rev().nth(4).unwrap() ^= 1);
    w.write("grants/own-9.grant", w.read("grants/derived-9.grant"));
    change("grants/kitchen-7.grant", &|bytes| *bytes.iter_mut().rev().nth(40).unwrap() ^= 1);
    let answer = w.ok(&ALL);
    assert_eq!(counts(&answer), [12, 30, 1, 1], "{answer}");
    assert_eq!(all_are_genuine(&w, "grants"), 42);
    opens(&w, "kitchen-7");
    assert_eq!(counts(&w.ok(&ALL)), [0, 42, 1, 0]);
    // `--fresh` makes all, and other terms are other grants.
    let fresh = [&ALL[..], &["--fresh"]].concat();
    assert_eq!(counts(&w.ok(&fresh)), [42, 0, 1, 1]);
    let floor = [&ALL[..], &["--floor", "0"]].concat();
    assert_eq!(counts(&w.ok(&floor)), [42, 0, 1, 1]);
    assert_eq!(counts(&w.ok(&floor)), [0, 42, 1, 0]);
    opens(&w, "porch-2");
}

#[test]
fn a_killed_command_leaves_whole_grants_and_goes_on_from_there() {
    let w = fleet(6000, 0);
    // By no means enough time for all; where one try is too early or too late, the next is not.
    let left = (0..).map(|n| 200 + 20 * n).find_map(|pause| {
        let _ = std::fs::remove_dir_all(w.path("grants"));
        let mut child = w.command(&ALL).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while names(&w, "grants").is_empty() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_micros(pause));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = all_are_genuine(&w, "grants");
        (1..6001).contains(&left).then_some(left as u64)
    });
    let left = left.unwrap();
    let answer = w.ok(&ALL);
    assert_eq!(counts(&answer), [6002 - left, left, 1, 1], "{answer}");
    assert_eq!(all_are_genuine(&w, "grants"), 6002);
    opens(&w, "kitchen-7");
}

#[test]
fn a_list_says_to_whom() {
    let w = fleet(3, 3);
    let list = "# the kitchen\nkitchen-7\r\n\n  porch-2 \t# and the porch\nown-0\nderived-0\n#shed-1";
    w.write("list", list);
    let by_list = ["grant", "sealed", "--devices", "list", "-o", "grants"];
    assert_eq!(counts(&w.ok(&by_list)), [4, 0, 0, 1]);
    let names: Vec<_> = names(&w, "grants").into_iter().collect();
    assert_eq!(names, ["derived-0.grant", "kitchen-7.grant", "own-0.grant", "porch-2.grant"]);
    opens(&w, "kitchen-7");
    // From a pipe, and as some editors write it.
    let piped = w.command(&["grant", "sealed", "--devices", "-", "-o", "piped", "--json"]);
    let run = w.run(piped, format!("\u{feff}{list}").as_bytes());
    assert_eq!(counts(&serde_json::from_slice(&run.stdout).unwrap()), [4, 0, 0, 1]);

    let refused = |code: u8, list: &str, words: &[&str]| {
        w.write("list", list);
        let refusal = w.refused(code, &["grant", "sealed", "--devices", "list", "-o", "never"]);
        for word in words {
            assert!(refusal.message.contains(word), "{list:?}: {refusal:?}");
        }
    };
    let unknown = ["not enrolled: a, b, c, d, e and 2 more", "for the line wake-word: shed-1"];
    refused(4, "kitchen-7\na\nb\nc\nd\ne\nf\ng\nshed-1", &unknown);
    refused(2, "kitchen-7\nown-0\nkitchen-7\nx", &["listed twice: kitchen-7", "not enrolled: x"]);
    refused(2, "kitchen-7\n../escape", &["not a device id: ../escape"]);
    refused(2, "two words", &["not a device id: two words"]);
    refused(2, "\n# nobody\n", &["no device"]);
    w.write("list", [0xff, 0xfe]);
    w.refused(2, &["grant", "sealed", "--devices", "list", "-o", "never"]);
    w.refused(6, &["grant", "sealed", "--devices", "missing", "-o", "never"]);
}

#[test]
fn wrong_words_make_nothing() {
    let w = fleet(1, 1);
    w.refused(2, &["grant", "sealed", "-o", "grants"]);
    w.refused(2, &["grant", "sealed", "--all", "--device", "kitchen-7", "-o", "grants"]);
    w.refused(2, &["grant", "sealed", "--device", "kitchen-7", "--fresh", "-o", "grants"]);
    w.refused(6, &["grant", "sealed", "--all", "-o", "no/such/folder"]);
    w.refused(6, &["grant", "sealed", "--all", "-o", "sealed"]);
    w.refused(2, &["grant", "sealed", "--all", "-o", "-"]);
    w.refused(2, &["grant", "sealed", "--devices", "list", "-o", "-"]);
    assert!(!w.path("-").exists());
    let floor = w.refused(2, &["grant", "sealed", "--all", "--floor", "2", "-o", "grants"]);
    assert!(floor.hint.contains("at most 1"), "{floor:?}");
    // A model of a line that nobody is enrolled for, and one of another vault.
    w.ok(&["seal", WAKE_WORD, "-o", "lonely", "--line", "lonely", "--model-version", "1"]);
    w.refused(4, &["grant", "lonely", "--all", "-o", "never"]);
    w.write("sealed", published().read("sealed"));
    w.refused(3, &["grant", "sealed", "--all", "-o", "grants"]);
}

/// What stands in a grant's place is replaced only if it is no input and none of modelseal's own files.
#[test]
fn nothing_of_value_is_replaced() {
    let w = fleet(1, 1);
    let grants = ["grant", "sealed", "--all", "-o", "grants"];
    std::fs::create_dir(w.path("grants")).unwrap();
    let guarded = |what: &str, code: u8, put: &dyn Fn(&std::path::Path)| {
        let place = w.path("grants/kitchen-7.grant");
        put(&place);
        let before = std::fs::read(&place).ok();
        let run = w.run(w.command(&grants), &[]);
        assert_eq!(run.code, Some(code.into()), "{what}: {}", run.stderr);
        assert_eq!(std::fs::read(&place).ok(), before, "{what}");
        assert!(!names(&w, "grants").iter().any(|name| name.starts_with(".modelseal")));
        let _ = std::fs::remove_file(&place).or_else(|_| std::fs::remove_dir(&place));
    };
    let link = |to: &'static str| {
        let w = &w;
        move |place: &std::path::Path| std::os::unix::fs::symlink(w.path(to), place).unwrap()
    };
    guarded("the sealed model", 2, &link("sealed"));
    guarded("the registry", 2, &link("registry.json"));
    guarded("a vault", 2, &link("vault.json"));
    guarded("an identity", 2, &|place| std::fs::write(place, w.read("kitchen-7.identity")).unwrap());
    guarded("a folder", 6, &|place| std::fs::create_dir(place).unwrap());
    // A link to another file is replaced: nothing is written out of the folder.
    std::fs::write(w.path("elsewhere"), "old").unwrap();
    link("elsewhere")(&w.path("grants/kitchen-7.grant"));
    w.ok(&grants);
    assert!(!w.path("grants/kitchen-7.grant").is_symlink());
    assert_eq!(w.read("elsewhere"), b"old");
}

/// A message names what the list has, so a file with a secret is no list.
#[test]
fn a_list_of_devices_is_no_secret() {
    let w = published();
    let secret = String::from_utf8(w.read("passphrase")).unwrap();
    std::os::unix::fs::symlink(w.path("passphrase"), w.path("devices")).unwrap();
    for list in ["passphrase", "devices", "vault.json", "kitchen-7.identity"] {
        let run = w.run(w.command(&["grant", "sealed", "--devices", list, "-o", "grants"]), &[]);
        assert_eq!(run.code, Some(2), "{list}: {}", run.stderr);
        assert!(!run.stderr.contains(secret.trim()), "{list}");
    }
}

/// Ids that mean something else to a file system, or that are one name to some.
#[test]
fn odd_ids_are_file_names() {
    let w = published();
    let mut registry = w.json("registry.json");
    let device = json!({ "lines": ["wake-word"], "key": { "fleet": 1 }, "enrolled": 0 });
    let kept = w.json("registry.json");
    // Names of folders, of options, and of what Windows keeps.
    for id in [".", "..", "-x", "--all", ".modelseal-x", "con", "nul.x"] {
        let mut odd = kept.clone();
        odd["devices"][id] = device.clone();
        w.write("registry.json", odd.to_string());
        assert_ne!(w.run(w.command(&ALL), &[]).code, Some(0), "{id}");
        assert!(!w.path("..grant").exists() && !w.path("grants/..grant").exists(), "{id}");
    }
    for id in ["7", "a", "A", "x.grant", "x--all"] {
        registry["devices"][id] = device.clone();
    }
    w.write("registry.json", registry.to_string());
    assert_eq!(counts(&w.ok(&[&ALL[..], &["--fresh"]].concat())), [6, 0, 0, 0]);
    assert_eq!(all_are_genuine(&w, "grants"), 6);
}
