//! The end of the path: the board boots in QEMU, with what the real program sealed and granted. First what opens,
//! then a sample of every kind of attack.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::process::Command;

use modelseal::open::SealedFile;
use modelseal_hsm::{Location, Passphrase};
use modelseal_tests::boards::{self, BOOT, SUITES, Verdict, enrol, grant, opened, refused, seal};
use modelseal_tests::forge::{self, Parts};
use modelseal_tests::workspace::{PASSPHRASE, WAKE_WORD};
use modelseal_tests::{Workspace, softhsm};

const BOARD: &str = "mps2-an386";

fn boot(w: &Workspace, sealed: &str, grant: &str, identity: &str, more: &[&str]) -> Verdict {
    boards::boot(w, BOARD, sealed, grant, identity, more)
}

fn both_suites_and_wrappings_boot(w: &Workspace) {
    let model = std::fs::read(WAKE_WORD).unwrap();
    w.ok(&["init"]);
    enrol(w);
    for suite in SUITES {
        seal(w, WAKE_WORD, "sealed", "wake-word", "3", suite);
        for device in ["derived", "own"] {
            grant(w, "sealed", device, "grant", &[]);
            let verdict = boot(w, "sealed", "grant", device, &["--line", "wake-word"]);
            assert_eq!(verdict, opened(3, &model), "{suite} {device}");
        }
    }
}

#[test]
fn a_model_from_a_software_vault_boots() {
    both_suites_and_wrappings_boot(&Workspace::with_vault("file:vault.json"));
}

#[test]
fn a_model_whose_master_key_is_in_a_token_boots() {
    both_suites_and_wrappings_boot(&softhsm::workspace());
}

/// Of six grants that were signed together, the last two go up alone: their paths are shorter.
#[test]
fn a_grant_of_a_batch_boots() {
    let w = Workspace::new();
    let model = std::fs::read(WAKE_WORD).unwrap();
    enrol(&w);
    for id in ["a", "b", "c", "z0", "z1"] {
        w.device_ok(&["device", "keygen", id, "--identity-out", id, "--public-out", "pem"]);
        w.ok(&["device", "enroll", id, "--line", "wake-word", "--public-key", "pem", "--identity-out", id]);
    }
    seal(&w, WAKE_WORD, "sealed", "wake-word", "3", SUITES[1]);
    let granted = w.ok(&["grant", "sealed", "--all", "-o", "grants"]);
    assert_eq!((&granted["made"], &granted["signatures"]), (&7.into(), &1.into()), "{granted}");
    for device in ["own", "z1", "derived"] {
        let grant = format!("grants/{device}.grant");
        assert_eq!(
            boot(&w, "sealed", &grant, device, &["--line", "wake-word"]),
            opened(3, &model),
            "{device}"
        );
    }
    // The path is what the signature is over.
    let mut changed = w.read("grants/own.grant");
    let sibling = changed.len() - 10;
    changed[sibling] ^= 1;
    w.write("changed", changed);
    let verdict = boot(&w, "sealed", "changed", "own", &["--line", "wake-word"]);
    assert_eq!(verdict, refused(331, "GrantSignature"));
}

#[test]
fn the_floor_stays_in_the_eeprom() {
    let w = Workspace::new();
    let model = std::fs::read(WAKE_WORD).unwrap();
    enrol(&w);
    for version in ["1", "2"] {
        seal(&w, WAKE_WORD, version, "wake-word", version, SUITES[1]);
        grant(&w, version, "derived", &format!("{version}.grant"), &[]);
    }
    let state = ["--line", "wake-word", "--state", "eeprom"];
    let boot = |version: &str| boot(&w, version, &format!("{version}.grant"), "derived", &state);
    assert_eq!(boot("1"), opened(1, &model));
    assert_eq!(boot("2"), opened(2, &model));
    assert_eq!(boot("1"), refused(409, "RolledBack"));
    assert_eq!(boot("2"), opened(2, &model));
    // A state that is blank or rotten isn't a floor of 0.
    for filler in [0x00, 0xff] {
        w.write("eeprom", vec![filler; 8192]);
        assert_eq!(boot("2"), refused(603, "Floor"));
    }
}

#[test]
fn time_is_what_the_clock_says() {
    let w = Workspace::new();
    let model = std::fs::read(WAKE_WORD).unwrap();
    enrol(&w);
    seal(&w, WAKE_WORD, "sealed", "wake-word", "1", SUITES[1]);
    for device in ["derived", "own"] {
        grant(&w, "sealed", device, "grant", &["--not-before", "1000", "--not-after", "2000"]);
        let at =
            |time: &[&str]| boot(&w, "sealed", "grant", device, &[&["--line", "wake-word"], time].concat());
        assert_eq!(at(&[]), refused(405, "NoClock"));
        assert_eq!(at(&["--time", "999"]), refused(406, "NotYetValid"));
        assert_eq!(at(&["--time", "1000"]), opened(1, &model));
        assert_eq!(at(&["--time", "2000"]), refused(407, "Expired"));
    }
}

#[test]
fn eight_mebibytes_open_where_they_lie() {
    let w = Workspace::new();
    enrol(&w);
    let mut model = vec![0; 8 << 20];
    blake3::Hasher::new().update(b"large").finalize_xof().fill(&mut model);
    w.write("model", &model);
    seal(&w, "model", "sealed", "wake-word", "1", SUITES[1]);
    grant(&w, "sealed", "derived", "grant", &[]);
    assert_eq!(boot(&w, "sealed", "grant", "derived", &["--line", "wake-word"]), opened(1, &model));
    // What doesn't fit is refused, not loaded in part.
    w.write("model", vec![0; 17 << 20]);
    seal(&w, "model", "sealed", "wake-word", "2", SUITES[1]);
    grant(&w, "sealed", "derived", "grant", &[]);
    assert_eq!(boot(&w, "sealed", "grant", "derived", &[]), refused(602, "Memory"));
}

/// A small genuine model, its grants, and the board that attacks are tried on.
struct Bench {
    w: Workspace,
    model: Vec<u8>,
    sealed: Vec<u8>,
    parts: Parts,
}

impl Bench {
    fn new() -> Self {
        let w = Workspace::new();
        enrol(&w);
        let mut model = vec![0; 9000];
        blake3::Hasher::new().update(b"small").finalize_xof().fill(&mut model);
        w.write("model", &model);
        seal(&w, "model", "sealed", "wake-word", "5", SUITES[0]);
        for device in ["derived", "own"] {
            grant(&w, "sealed", device, &format!("{device}.grant"), &[]);
        }
        let sealed = w.read("sealed");
        let parts = Parts::of(&sealed, model.len());
        Self { w, model, sealed, parts }
    }

    /// Boots changed bytes with the grants of both devices, which must agree.
    fn boot(&self, sealed: &[u8]) -> Verdict {
        self.w.write("attacked", sealed);
        let by = |device: &str| self.with("attacked", &format!("{device}.grant"), device);
        let (derived, own) = (by("derived"), by("own"));
        assert_eq!(derived, own);
        derived
    }

    fn with(&self, sealed: &str, grant: &str, identity: &str) -> Verdict {
        boot(&self.w, sealed, grant, identity, &["--line", "wake-word"])
    }

    fn flipped(&self, at: usize, bit: u8) -> Verdict {
        let mut sealed = self.sealed.clone();
        sealed[at] ^= 1 << bit;
        self.boot(&sealed)
    }

    fn opened(&self) -> Verdict {
        opened(5, &self.model)
    }
}

#[test]
fn changed_models_are_refused_or_without_effect() {
    let b = Bench::new();
    let p = b.parts;
    assert_eq!(b.boot(&b.sealed), b.opened());
    let flips = [
        (3, 0, refused(701, "ForeignMagic")),
        (8, 1, refused(702, "UnknownVersion")),
        (16, 6, refused(703, "UnknownSuite")),
        (17, 5, refused(306, "ChunkSize")),
        // The length of the line, then its text.
        (19, 7, refused(305, "ManifestEncoding")),
        (20, 0, refused(330, "ManifestSignature")),
        // Commitment and root.
        (p.envelope - 64, 0, refused(330, "ManifestSignature")),
        (p.envelope - 1, 7, refused(330, "ManifestSignature")),
        // The signature itself, then a used and a free key slot, which a device doesn't read.
        (p.envelope, 0, refused(330, "ManifestSignature")),
        (p.envelope + 64 + 20, 0, b.opened()),
        (p.envelope + 128, 0, b.opened()),
        // A tag, and a chaining value, which a device has no need of.
        (p.index, 0, refused(335, "Chunk")),
        (p.index + 16, 0, b.opened()),
        (p.index + 2 * 48 + 15, 7, refused(335, "Chunk")),
        (p.payload, 0, refused(335, "Chunk")),
        (p.payload + 4096, 3, refused(335, "Chunk")),
        (b.sealed.len() - 1, 7, refused(335, "Chunk")),
    ];
    for (at, bit, verdict) in flips {
        assert_eq!(b.flipped(at, bit), verdict, "bit {bit} of byte {at}");
    }
    if p.padding < p.payload {
        assert_eq!(b.flipped(p.padding, 0), refused(312, "Padding"));
    }
}

#[test]
fn cut_extended_and_swapped_models_are_refused() {
    let b = Bench::new();
    let p = b.parts;
    let truncated = refused(301, "Truncated");
    for len in [0, 15, 16, p.envelope - 1, p.index - 1, p.payload - 1, p.payload, b.sealed.len() - 1] {
        assert_eq!(b.boot(&b.sealed[..len]), truncated, "cut to {len}");
    }
    assert_eq!(b.boot(&[&b.sealed[..], &[0]].concat()), refused(302, "Extended"));

    let swap = |a: usize, c: usize, len: usize| {
        let mut sealed = b.sealed.clone();
        let (left, right) = sealed.split_at_mut(c);
        left[a..a + len].swap_with_slice(&mut right[..len]);
        b.boot(&sealed)
    };
    assert_eq!(swap(p.payload, p.payload + 4096, 4096), refused(335, "Chunk"));
    assert_eq!(swap(p.index, p.index + 48, 48), refused(335, "Chunk"));
}

#[test]
fn other_models_grants_and_devices_are_refused() {
    let b = Bench::new();
    let w = &b.w;
    // Another version, and another line: genuine, but not what was granted.
    seal(w, "model", "newer", "wake-word", "6", SUITES[0]);
    seal(w, "model", "other", "other", "5", SUITES[0]);
    for (device, stranger) in [("derived", "own"), ("own", "derived")] {
        let held = format!("{device}.grant");
        assert_eq!(b.with("newer", &held, device), refused(401, "OtherModel"));
        assert_eq!(b.with("other", &held, device), refused(401, "OtherModel"));
        grant(w, "other", device, "other.grant", &[]);
        assert_eq!(b.with("other", "other.grant", device), refused(402, "OtherLine"));
        // A device key that doesn't fit can't be told from a changed grant.
        let stolen = b.with("sealed", &held, stranger);
        let verdict = if device == "own" { refused(404, "OtherDevice") } else { refused(332, "GrantKey") };
        assert_eq!(stolen, verdict);
    }
    // The manifest of one version with the envelope, index and payload of another.
    let (newer, p) = (w.read("newer"), b.parts);
    assert_eq!(
        b.boot(&[&newer[..p.envelope], &b.sealed[p.envelope..]].concat()),
        refused(330, "ManifestSignature")
    );
    // Another publisher's model and identity.
    let stranger = Workspace::new();
    stranger.write("model", &b.model);
    seal(&stranger, "model", "sealed", "wake-word", "5", SUITES[0]);
    assert_eq!(b.boot(&stranger.read("sealed")), refused(330, "ManifestSignature"));
}

#[test]
fn changed_grants_are_refused() {
    let b = Bench::new();
    for device in ["derived", "own"] {
        let genuine = b.w.read(&format!("{device}.grant"));
        let attempt = |grant: &[u8]| {
            b.w.write("attacked.grant", grant);
            b.with("sealed", "attacked.grant", device)
        };
        let flipped = |at: usize, bit: u8| {
            let mut grant = genuine.clone();
            grant[at] ^= 1 << bit;
            attempt(&grant)
        };
        let changed = if device == "own" { refused(331, "GrantSignature") } else { refused(332, "GrantKey") };
        assert_eq!(flipped(0, 0), refused(701, "ForeignMagic"));
        assert_eq!(flipped(8, 1), refused(702, "UnknownVersion"));
        assert_eq!(flipped(12, 7), refused(703, "UnknownSuite"));
        // The model's id, the device's, the floor, and the wrapped key.
        let floor = 12 + 33 + 1 + device.len();
        for at in [13, 44, 46, floor, floor + 3, floor + 2 + 1 + 32, floor + 2 + 1 + 64 + 15] {
            assert_eq!(flipped(at, 0), changed, "{device}: byte {at}");
        }
        for len in [0, 11, 12, genuine.len() - 1] {
            assert_eq!(attempt(&genuine[..len]), refused(301, "Truncated"), "{device}: cut to {len}");
        }
        assert_eq!(attempt(&[&genuine[..], &[0]].concat()), refused(302, "Extended"));
    }
}

/// A licensed device knows its content key, and so can make any tag.
#[test]
fn a_payload_forged_with_the_content_key_is_refused() {
    let b = Bench::new();
    let content = content_key(&b.w, "sealed");
    let (genuine_index, genuine) = forge::payload(&b.sealed, b.parts, &content, &b.model);
    assert!(
        genuine == b.sealed[b.parts.payload..] && genuine_index == b.sealed[b.parts.index..b.parts.padding]
    );
    let (index, payload) = forge::payload(&b.sealed, b.parts, &content, &vec![0x66; b.model.len()]);
    let padding = &b.sealed[b.parts.padding..b.parts.payload];
    let forged = [&b.sealed[..b.parts.index], &index, padding, &payload].concat();
    assert_eq!(b.boot(&forged), refused(336, "Root"));
}

fn content_key(w: &Workspace, sealed: &str) -> [u8; 32] {
    let passphrase = || Ok(Passphrase::new(String::from(PASSPHRASE).into()));
    let vault = modelseal_hsm::open(&Location::File(w.path("vault.json")), &passphrase).unwrap();
    let sealed = SealedFile::open(Path::new(&w.path(sealed))).unwrap();
    *sealed.unwrap_by_vault(&*vault, None).unwrap().content_key().expose_to_vault()
}

#[test]
fn wrong_words_and_missing_files_are_said() {
    let b = Bench::new();
    let run = |arguments: &[&str]| {
        Command::new(BOOT).args(arguments).current_dir(b.w.dir()).output().unwrap().status.code()
    };
    assert_eq!(run(&["--help"]), Some(0));
    assert_eq!(run(&["--board", "mps2-an386"]), Some(2));
    assert_eq!(run(&["--bord", "mps2-an386"]), Some(2));
    let files = ["--sealed", "sealed", "--identity", "derived"];
    assert_eq!(run(&[&["--board", "z80", "--grant", "derived.grant"], &files[..]].concat()), Some(2));
    assert_eq!(run(&[&["--board", "mps2-an386", "--grant", "nothing"], &files[..]].concat()), Some(6));
}
