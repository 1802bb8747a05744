//! Writes what `tests/glitch` boots: one folder for each case, with what the chips of the board hold.
//!
//! ```text
//! glitch-cases DIR        DIR/CASE/{provisioned, eeprom, psram, model, verdict}
//! ```
//!
//! Everything but what the case is named for is genuine: models sealed by the real program, and what it refuses to
//! make forged with the publisher's own key, so that **one** check alone stands between a fault and the model.
//! `model` is the plaintext that must not appear.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};

use ed25519_dalek::Signer;
use modelseal::identity::Identity;
use modelseal_core::grant::DeviceId;
use modelseal_core::keys::Secret;
use modelseal_core::sign::Publisher;
use modelseal_firmware::eeprom::STATE_LEN;
use modelseal_firmware::provision::{
    Delivery, PROVISIONED_MAX, Provisioned, Purpose, SURROUNDINGS_MAX, Surroundings,
};
use modelseal_firmware::state::{Choice, RECORD_LEN, State};
use modelseal_firmware::storage::GRANT_BUFFER;
use modelseal_tests::forge::{self, Parts};
use modelseal_tests::workspace::PASSPHRASE;
use modelseal_tests::{Workspace, boards, exposed};

const LINE: &str = "wake-word";
const VERSION: u8 = 5;
const NOW: u64 = 1500;
const VALID: Option<(u64, u64)> = Some((1000, 2000));
const EEPROM_LEN: usize = 8192;
/// Where firmware/boards/mps2-an386/src/places.rs has the delivery beside image A.
const DELIVERY_A: usize = 0x400;

fn main() {
    let out = PathBuf::from(std::env::args().nth(1).expect("glitch-cases DIR"));
    let bench = Bench::new();
    for device in ["derived", "own"] {
        for case in bench.cases(device) {
            bench.write(&out, device, &case);
        }
    }
}

/// One boot.
struct Case {
    name: &'static str,
    /// What the board says when nothing disturbs it.
    verdict: &'static str,
    sealed: Vec<u8>,
    grant: Vec<u8>,
    /// What a wrongly opened payload would decrypt to.
    model: Vec<u8>,
    now: Option<u64>,
    /// What the device remembers.
    state: State,
    /// Whether the device trusts the publisher's key.
    signed: bool,
}

/// A genuine sealed model, with what a forger needs.
#[derive(Clone)]
struct Genuine {
    model: Vec<u8>,
    sealed: Vec<u8>,
    content: [u8; 32],
}

impl Genuine {
    fn parts(&self) -> Parts {
        Parts::of(&self.sealed, self.model.len())
    }

    fn id(&self) -> [u8; 32] {
        forge::model_id(&self.sealed, self.parts())
    }

    /// Changes the manifest, and signs it as the publisher would.
    fn resigned(&self, change: impl FnOnce(&mut [u8])) -> Self {
        let mut changed = self.clone();
        let p = self.parts();
        change(&mut changed.sealed[16..p.envelope]);
        let signature = forge::publisher_key().sign(&forge::signed_bytes(&changed.sealed, p));
        changed.sealed[p.envelope..p.envelope + 64].copy_from_slice(&signature.to_bytes());
        changed
    }

    fn with(&self, change: impl FnOnce(&mut [u8], Parts)) -> Vec<u8> {
        let mut sealed = self.sealed.clone();
        change(&mut sealed, self.parts());
        sealed
    }
}

struct Bench {
    w: Workspace,
    small: Genuine,
    /// Of two chunks.
    large: Genuine,
    other_line: Genuine,
}

impl Bench {
    fn new() -> Self {
        let w = Workspace::with_vault("file:vault.json");
        w.write("vault.json", forge::vault_file(PASSPHRASE, &[1]));
        boards::enrol(&w);
        let make = |line: &str, length: usize| {
            let mut model = vec![0; length];
            blake3::Hasher::new().update(b"glitch").finalize_xof().fill(&mut model);
            w.write("model", &model);
            boards::seal(&w, "model", "sealed", line, &VERSION.to_string(), boards::SUITES[1]);
            Genuine { model, sealed: w.read("sealed"), content: exposed::content_key(&w, "sealed") }
        };
        let (small, large, other_line) = (make(LINE, 600), make(LINE, 4200), make("other", 600));
        Self { w, small, large, other_line }
    }

    fn identity(&self, device: &str) -> Identity {
        Identity::read(Path::new(&self.w.path(device))).unwrap()
    }

    /// A grant of the vault's with any terms; `named` is the model in the terms, `wrapped` the one that HPKE or the
    /// derivation has.
    fn grant(&self, device: &str, terms: &[u8], wrapped: &[u8; 32], content: &[u8; 32]) -> Vec<u8> {
        match self.identity(device).secret().unwrap() {
            Secret::DeviceKey(key) => forge::device_grant(key.expose_to_factory(), wrapped, terms, content),
            Secret::X25519(key) => {
                let sign = |message: &[u8]| forge::publisher_key().sign(message).to_bytes();
                let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
                forge::hpke_grant(&key.public().unwrap(), wrapped, terms, content, &mut rng, sign)
            }
        }
    }

    fn genuine_grant(&self, device: &str, of: &Genuine) -> Vec<u8> {
        let terms = forge::terms(2, &of.id(), device, VERSION, None);
        self.grant(device, &terms, &of.id(), &of.content)
    }

    fn case(&self, device: &str, name: &'static str, verdict: &'static str, of: &Genuine) -> Case {
        Case {
            name,
            verdict,
            sealed: of.sealed.clone(),
            grant: self.genuine_grant(device, of),
            model: of.model.clone(),
            now: Some(NOW),
            state: State::first(3),
            signed: device == "own",
        }
    }

    fn with_terms(&self, device: &str, name: &'static str, verdict: &'static str, terms: &[u8]) -> Case {
        let grant = self.grant(device, terms, &self.small.id(), &self.small.content);
        Case { grant, ..self.case(device, name, verdict, &self.small) }
    }

    fn cases(&self, device: &str) -> Vec<Case> {
        let mut cases = self.refused_for_the_model(device);
        cases.extend(self.refused_for_the_terms(device));
        cases.push(self.case(device, "genuine", "opened", &self.large));
        cases
    }

    fn refused_for_the_model(&self, device: &str) -> Vec<Case> {
        let (small, large) = (&self.small, &self.large);
        let (p, l) = (small.parts(), large.parts());
        let case = |name, verdict, of: &Genuine| self.case(device, name, verdict, of);
        let commitment = small.resigned(|manifest| spoil(manifest, manifest.len() - 64));
        let root = large.resigned(|manifest| spoil(manifest, manifest.len() - 8));
        let (index, payload) = forge::payload(&large.sealed, l, &large.content, &vec![0x66; 4200]);
        let forged = large.with(|sealed, l| {
            sealed[l.index..l.padding].copy_from_slice(&index);
            sealed[l.payload..].copy_from_slice(&payload);
        });
        vec![
            Case {
                sealed: small.with(|sealed, p| spoil(sealed, p.envelope + 32)),
                signed: true,
                ..case("manifest signature", "refused 330", small)
            },
            case("other line", "refused 402", &self.other_line),
            case("wrong commitment", "refused 333", &commitment),
            Case {
                sealed: large.with(|sealed, l| spoil(sealed, l.payload + 4100)),
                ..case("changed chunk", "refused 335", large)
            },
            case("wrong root", "refused 336", &root),
            Case { sealed: forged, model: vec![0x66; 4200], ..case("forged payload", "refused 336", large) },
            Case {
                sealed: [&small.sealed[..p.payload], &small.sealed[p.payload..], &[0; 0x55]].concat(),
                ..case("extended", "refused 302", small)
            },
        ]
    }

    fn refused_for_the_terms(&self, device: &str) -> Vec<Case> {
        let id = self.small.id();
        let terms = |validity| forge::terms(2, &id, device, VERSION, validity);
        let case = |name, verdict, terms: &[u8]| self.with_terms(device, name, verdict, terms);
        let mut other = id;
        spoil(&mut other, 24);
        let mut cases = vec![
            Case {
                // Only the publisher's key tells another model of the publisher's from a changed one.
                signed: true,
                ..case("other model", "refused 401", &forge::terms(2, &other, device, VERSION, None))
            },
            case("other device", "refused 404", &forge::terms(2, &id, &other_id(device), VERSION, None)),
            Case { now: None, ..case("no clock", "refused 405", &terms(VALID)) },
            Case { now: Some(999), ..case("not yet valid", "refused 406", &terms(VALID)) },
            Case { now: Some(2000), ..case("expired", "refused 407", &terms(VALID)) },
            case("floor above version", "refused 408", &forge::terms(2, &id, device, VERSION + 1, None)),
            Case { state: State::first(6), ..case("rolled back", "refused 409", &terms(None)) },
            // The floor is stored once more before anything is looked at, and when the trial is given up.
            Case {
                state: State { confirmed: Some(Choice::FIRST), ..State::first(6) },
                ..case("rolled back, on trial", "refused 409", &terms(None))
            },
        ];
        let mut changed = self.case(device, "grant signature", "refused 331", &self.small);
        // The lower half of a signature's s, before two bytes of path; or the middle of a tag.
        let at = if device == "own" { changed.grant.len() - 34 } else { changed.grant.len() - 10 };
        spoil(&mut changed.grant, at);
        if device == "derived" {
            (changed.name, changed.verdict) = ("grant key", "refused 332");
        }
        cases.push(changed);
        cases
    }

    /// What the chips hold. The one place that knows where.
    fn write(&self, out: &Path, device: &str, case: &Case) {
        let dir = out.join(format!("{device}, {}", case.name));
        std::fs::create_dir_all(&dir).unwrap();
        let identity = self.identity(device);
        let provisioned = Provisioned {
            device: DeviceId::new(identity.device()).unwrap(),
            line: LINE,
            publisher: if case.signed { identity.publisher().unwrap() } else { Publisher::default() },
            secret: identity.secret().unwrap(),
        };
        let surroundings = Surroundings { now: case.now, purpose: Purpose::Run };
        let mut first = [0; PROVISIONED_MAX];
        let mut second = [0; SURROUNDINGS_MAX];
        let record =
            [provisioned.encode(&mut first).unwrap(), surroundings.encode(&mut second).unwrap()].concat();
        let mut buffer = GRANT_BUFFER;
        let delivery = Delivery { sealed_len: case.sealed.len() as u64, grant: &case.grant };
        let delivery = delivery.encode(&mut buffer).unwrap();
        // Wherever else a fault makes the board look for its state: whoever brings updates can have put this there.
        let mut eeprom = State::first(0).first_record().repeat(EEPROM_LEN / RECORD_LEN);
        eeprom[..STATE_LEN].as_chunks_mut().0.fill(case.state.first_record());
        eeprom[DELIVERY_A..DELIVERY_A + delivery.len()].copy_from_slice(delivery);
        let files: [(&str, &[u8]); 5] = [
            ("provisioned", &record),
            ("eeprom", &eeprom),
            ("psram", &case.sealed),
            ("model", &case.model),
            ("verdict", case.verdict.as_bytes()),
        ];
        for (name, bytes) in files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

/// Eight bytes are others, each in four bits: a fault that happens to write one byte doesn't put them right.
fn spoil(bytes: &mut [u8], at: usize) {
    bytes[at..at + 8].iter_mut().for_each(|byte| *byte ^= 0xa5);
}

/// An id of the same length, of which each letter is another.
fn other_id(device: &str) -> String {
    device.chars().map(|letter| if letter == 'z' { 'a' } else { (letter as u8 + 1).into() }).collect()
}
