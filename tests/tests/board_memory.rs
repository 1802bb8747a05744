//! What is left in a board's memory and registers when it has opened a model or refused to: no part of a key, and
//! after a refusal nothing of the model either. The board is stopped at the very instruction that ends it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use modelseal::grant::Limits;
use modelseal::identity::{Enrolment, Identity};
use modelseal_core::grant::{DeviceId, Grant, Validity, Wrapping};
use modelseal_core::keys::Secret;
use modelseal_core::manifest::Suite;
use modelseal_tests::bench::{Bench, Held, LINE, Model, NO_LIMITS, SUITES, WRAPS, Wrap, flip, replaced};
use modelseal_tests::counted;
use modelseal_tests::forge;
use modelseal_tests::probe::{Given, PSRAM, Probe, RAM, in_parallel};

const DEVICE: &str = "device-7";
/// By now the content key is unwrapped, and the payload's keys are derived.
const UNWRAPPED: &str = "INFO decrypting";
/// What the image itself leaves: its statics, and the frame of `main`.
const NO_SECRET_BYTES: usize = 64;
/// What must be seen there, so that not to see it later means something.
const CONTROLS: [&str; 7] =
    ["DH result", "X25519 secret", "content key", "device key", "grant key", "payload key", "shared secret"];
const ZEROS: [u8; 16] = [0; 16];
const IN_TIME: Limits =
    Limits { validity: Some(Validity { not_before: 1000, not_after: 2000 }), floor: None };

/// A boot that is still to come, and the line that it will end with.
struct Case {
    verdict: &'static str,
    /// Done to the board right after the unwrapping.
    then: fn(&mut Probe),
    sealed: Vec<u8>,
    grant: Vec<u8>,
    identity: Identity,
    options: Vec<String>,
    /// What would be decrypted.
    model: Vec<u8>,
    keys: Keys,
}

type Keys = Vec<(&'static str, [u8; 32])>;

#[test]
fn no_key_stays_in_memory_or_registers() {
    let (bench, other) = (Bench::new(), Bench::new());
    let mut cases = Vec::new();
    for suite in SUITES {
        for wrap in WRAPS {
            cases.push(Start::new(&bench, suite, wrap, NO_LIMITS).ends("opened "));
        }
    }
    cases.extend(refused(&bench, &other, SUITES[0], Wrap::DeviceKey));
    cases.extend(refused(&bench, &other, SUITES[1], Wrap::Hpke));
    cases.extend(refused_of_a_forger(&bench, SUITES[0]));

    let seen = Mutex::new(BTreeSet::new());
    in_parallel(&cases, |case| seen.lock().unwrap().extend(ends_clean(case)));
    let seen = Vec::from_iter(seen.into_inner().unwrap());
    assert_eq!(seen, CONTROLS);
    counted(&format!(
        "board memory: {} dumps, no key byte found; controls found {}",
        cases.len(),
        seen.join(", ")
    ));
}

/// The others are seen on the board. HPKE wipes this one at once.
#[test]
fn the_hpke_key_is_the_right_one() {
    let bench = Bench::new();
    for suite in SUITES {
        let start = Start::new(&bench, suite, Wrap::Hpke, NO_LIMITS);
        let Secret::X25519(secret) = start.held.identity.secret().unwrap() else {
            panic!("no X25519 secret")
        };
        let grant = Grant::parse(&start.held.grant).unwrap();
        let Wrapping::Hpke { encapsulated, ciphertext, .. } = grant.wrapping() else { panic!("no HPKE") };
        let id = forge::model_id(&start.model.sealed, start.model.parts);
        let hpke = forge::hpke_keys(suite.into(), secret.expose_to_device(), &encapsulated, &id);
        let mut content = start.content;
        forge::encrypt(suite.into(), &hpke.key, &hpke.nonce, &mut content);
        assert_eq!(content, ciphertext);
        assert!(start.keys().contains(&("HPKE key", hpke.key)));
    }
}

/// A genuine model, and a device to which it was granted.
struct Start {
    model: Model,
    content: [u8; 32],
    held: Held,
    options: Vec<String>,
}

impl Start {
    fn new(bench: &Bench, suite: Suite, wrap: Wrap, limits: Limits) -> Self {
        let model = bench.seal(suite);
        let content = bench.content_key(&model);
        let held = bench.grant(&model, DEVICE, wrap, limits);
        Self { model, content, held, options: Vec::new() }
    }

    fn option(&mut self, name: &str, value: &str) {
        self.options.extend([name.to_owned(), value.to_owned()]);
    }

    /// The device has another id, secret or first floor than the grant is for.
    fn is_device(&mut self, id: &str, secret: Option<Secret>, first_floor: u64) {
        let identity = &self.held.identity;
        let (secret, publisher) =
            (secret.unwrap_or_else(|| identity.secret().unwrap()), identity.publisher());
        let (device, lines) = (DeviceId::new(id).unwrap(), [LINE.to_owned(), "other".to_owned()]);
        let enrolment = Enrolment { device, lines: &lines, publisher: &publisher.unwrap(), first_floor };
        self.held.identity = match secret {
            Secret::DeviceKey(key) => Identity::derived(&enrolment, &key).unwrap(),
            Secret::X25519(key) => {
                let mut identity = Identity::keygen(device, &key).unwrap();
                identity.complete(&enrolment).unwrap();
                identity
            }
        };
    }

    /// A grant that nobody but the vault or the device itself could make.
    fn forge_grant(&mut self, suite: u8, floor: u8, content: &[u8; 32]) {
        let Secret::DeviceKey(key) = self.held.identity.secret().unwrap() else { panic!("no device key") };
        let id = forge::model_id(&self.model.sealed, self.model.parts);
        let terms = forge::terms(suite, &id, DEVICE, floor, None);
        self.held.grant = forge::device_grant(key.expose_to_factory(), &id, &terms, content);
        self.content = *content;
    }

    /// Another payload, with every tag right.
    fn forge_payload(&mut self, plain: Vec<u8>) {
        let Model { sealed, parts, .. } = &self.model;
        let (index, payload) = forge::payload(sealed, *parts, &self.content, &plain);
        self.model.sealed = replaced(&replaced(sealed, parts.index, &index), parts.payload, &payload);
        self.model.plain = plain;
    }

    fn flip(&mut self, byte: usize) {
        self.model.sealed = flip(&self.model.sealed, byte * 8);
    }

    fn ends(self, verdict: &'static str) -> Case {
        let keys = self.keys();
        let Self { model, held, options, .. } = self;
        Case {
            verdict,
            then: |_| (),
            sealed: model.sealed,
            grant: held.grant,
            identity: held.identity,
            options,
            model: model.plain,
            keys,
        }
    }

    /// Everything that the device computes on its way to the model.
    fn keys(&self) -> Keys {
        let Model { sealed, parts, .. } = &self.model;
        let (suite, id) = (sealed[16], forge::model_id(sealed, *parts));
        let payload = forge::payload_keys(sealed, *parts, &self.content);
        let mut keys =
            vec![("content key", self.content), ("payload key", payload[..32].try_into().unwrap())];
        let grant = Grant::parse(&self.held.grant);
        match (self.held.identity.secret().unwrap(), grant.as_ref().map(Grant::wrapping)) {
            (Secret::DeviceKey(key), Ok(Wrapping::DeviceKey { salt, .. })) => {
                let key = *key.expose_to_factory();
                let terms = postcard::to_allocvec(grant.as_ref().unwrap().terms()).unwrap();
                let wrapping = forge::grant_key(&key, &salt, &terms, &id);
                keys.extend([("device key", key), ("grant key", wrapping[..32].try_into().unwrap())]);
            }
            (Secret::X25519(key), Ok(Wrapping::Hpke { encapsulated, .. })) => {
                let key = *key.expose_to_device();
                let hpke = forge::hpke_keys(suite, &key, &encapsulated, &id);
                keys.extend([("X25519 secret", key), ("DH result", hpke.dh)]);
                keys.extend([("shared secret", hpke.shared), ("HPKE key", hpke.key)]);
            }
            (Secret::DeviceKey(key), _) => keys.push(("device key", *key.expose_to_factory())),
            (Secret::X25519(key), _) => keys.push(("X25519 secret", *key.expose_to_device())),
        }
        keys
    }
}

/// Every way to end that leaves no model, for one kind of device.
fn refused(bench: &Bench, other: &Bench, suite: Suite, wrap: Wrap) -> Vec<Case> {
    let case = |verdict: &'static str, limits: Limits, change: &dyn Fn(&mut Start)| {
        let mut start = Start::new(bench, suite, wrap, limits);
        change(&mut start);
        start.ends(verdict)
    };
    let change = |verdict: &'static str, change: &dyn Fn(&mut Start)| case(verdict, NO_LIMITS, change);
    let newer = bench.seal_as(suite, LINE, 3, 2100);
    let stranger = Start::new(other, suite, wrap, NO_LIMITS).held.identity;
    let blank = bench.path("blank").into_os_string().into_string().unwrap();
    std::fs::write(&blank, [0xff; 8192]).unwrap();
    let grant = if wrap == Wrap::Hpke { "refused 331 GrantSignature" } else { "refused 332 GrantKey" };
    vec![
        change("refused 404 OtherDevice", &|start| start.is_device("device-8", None, 0)),
        change("refused 332 GrantKey", &|start| start.is_device(DEVICE, stranger.secret().ok(), 0)),
        change("refused 409 RolledBack", &|start| start.is_device(DEVICE, None, 3)),
        change("refused 603 Floor", &|start| start.option("--state", &blank)),
        change("refused 402 OtherLine", &|start| start.option("--line", "other")),
        case("refused 405 NoClock", IN_TIME, &|_| ()),
        case("refused 406 NotYetValid", IN_TIME, &|start| start.option("--time", "999")),
        case("refused 407 Expired", IN_TIME, &|start| start.option("--time", "2000")),
        change("refused 401 OtherModel", &|start| start.model.sealed.clone_from(&newer.sealed)),
        change(grant, &|start| {
            let changed = start.held.grant.len() - 10;
            start.held.grant[changed] ^= 1;
        }),
        change("refused 701 ForeignMagic", &|start| start.held.grant[0] ^= 1),
        change("refused 330 ManifestSignature", &|start| start.flip(start.model.parts.envelope)),
        // The last chunk: those before it have been decrypted by then.
        change("refused 335 Chunk", &|start| start.flip(start.model.sealed.len() - 1)),
        change("refused 336 Root", &|start| start.forge_payload(vec![0x66; start.model.plain.len()])),
        change("refused 301 Truncated", &|start| start.model.sealed.truncate(start.model.sealed.len() - 1)),
        change("refused 302 Extended", &|start| start.model.sealed.push(0)),
        // In the middle of things, with everything unwrapped.
        Case { then: |board| board.jump_to("rust_begin_unwind"), ..change("ERROR panic", &|_| ()) },
        Case { then: Probe::fault, ..change(UNWRAPPED, &|_| ()) },
    ]
}

/// What only a device that shares its key with the vault can bring about.
fn refused_of_a_forger(bench: &Bench, suite: Suite) -> Vec<Case> {
    let case = |verdict: &'static str, grant: &dyn Fn(&mut Start)| {
        let mut start = Start::new(bench, suite, Wrap::DeviceKey, NO_LIMITS);
        grant(&mut start);
        start.ends(verdict)
    };
    let (suite, other) = (u8::from(suite), 3 - u8::from(suite));
    vec![
        case("refused 333 Commitment", &|start| start.forge_grant(suite, 2, &[9; 32])),
        case("refused 403 OtherSuite", &|start| start.forge_grant(other, 2, &start.content.clone())),
        case("refused 408 FloorAboveVersion", &|start| start.forge_grant(suite, 3, &start.content.clone())),
    ]
}

/// Boots, and looks at what is left. Gives the keys that it saw right after the unwrapping.
fn ends_clean(case: &Case) -> BTreeSet<&'static str> {
    let options: Vec<&str> = case.options.iter().map(String::as_str).collect();
    let Case { verdict, sealed, grant, identity, keys, .. } = case;
    let mut board = Probe::start(Given { sealed, grant, identity, more: &options });
    let (mut seen, mut last) = (BTreeSet::new(), String::new());
    while let Some((line, _)) = board.next_line() {
        if line.starts_with(UNWRAPPED) {
            let ram = board.memory(RAM);
            seen.extend(keys.iter().filter(|(_, key)| holds(&ram, key, 8)).map(|(name, _)| name));
            (case.then)(&mut board);
        }
        last = line;
    }
    assert!(last.starts_with(verdict), "{last} instead of {verdict}");

    let (ram, psram, registers) = (board.memory(RAM), board.memory(PSRAM), board.registers());
    for (name, key) in keys {
        assert!(!holds(&ram, key, 8), "{verdict}: {name} in RAM");
        assert!(!holds(&psram, key, 8), "{verdict}: {name} in PSRAM");
        assert!(!holds(&registers, key, 4), "{verdict}: {name} in a register");
    }
    // Keys in other forms, such as a cipher's round keys, would be among these.
    let left = ram.iter().filter(|byte| **byte != 0).count();
    assert!(left < NO_SECRET_BYTES, "{verdict}: {left} bytes of RAM aren't wiped");
    if last.starts_with("opened ") {
        assert!(holds(&psram, &case.model, 16));
    } else {
        assert!(psram.iter().all(|byte| *byte == 0), "{verdict}: PSRAM isn't wiped");
        assert!(!holds(&ram, &case.model, 16), "{verdict}: part of the model in RAM");
    }
    // That registers are looked at.
    board.set_register(5, u32::from_le_bytes(keys[0].1[4..8].try_into().unwrap()));
    assert!(holds(&board.registers(), &keys[0].1, 4));
    seen
}

/// Whether `len` bytes in a row of `secret` are anywhere in `memory`.
fn holds(memory: &[u8], secret: &[u8], len: usize) -> bool {
    let parts: HashSet<&[u8]> = secret.windows(len).collect();
    // Most of memory is zero, which is quickly told.
    memory.windows(len).any(|part| part != &ZEROS[..len] && parts.contains(part))
}
