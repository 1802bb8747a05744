//! Models and grants, made by the real program.

use std::path::Path;

use modelseal::identity::Identity;
use modelseal_core::keys::Secret;
use modelseal_core::sign::PublisherKey;
use modelseal_firmware::eeprom::first_state;
use modelseal_tests::Workspace;

use crate::profile::{PROFILES, Profile};

/// The names that the image answers to.
const DEVICE: &str = "doorbell-00042";
const LINE: &str = "wake-word";
/// Whole chunks, so that what a chunk takes is in what its bytes take.
const LENGTHS: [usize; 2] = [64 << 10, 192 << 10];
/// Checking a signature takes a time that depends on the signature, which is public: the mean of so many of each
/// length.
const SIGNED: usize = 3;

/// What one image is run with.
pub(crate) struct Case {
    /// Of the model.
    pub(crate) length: usize,
    pub(crate) sealed: Vec<u8>,
    /// What `firmware/cost/src/given.rs` reads.
    pub(crate) given: Vec<u8>,
}

/// All of it, in the order of the profiles.
pub(crate) struct Material(Vec<Vec<Case>>);

impl Material {
    pub(crate) fn make() -> Self {
        let publisher = |signed: &str| {
            let w = Workspace::with_vault("file:vault.json");
            w.ok(&["init", "--publisher-algorithm", signed]);
            for length in LENGTHS {
                w.write(length.to_string(), model(length));
            }
            w
        };
        let (ed25519, p256) = (publisher("ed25519"), publisher("ecdsa-p256"));
        let of = |profile: &Profile| {
            let w = if profile.signed == Some("ecdsa-p256") { &p256 } else { &ed25519 };
            cases(w, profile)
        };
        Self(PROFILES.iter().map(of).collect())
    }

    pub(crate) fn of(&self, profile: &Profile) -> &[Case] {
        let at = PROFILES.iter().position(|other| other.name == profile.name);
        &self.0[at.unwrap()]
    }
}

/// A shortest and a longest one.
pub(crate) fn extremes(cases: &[Case]) -> (usize, usize) {
    let at = |length| cases.iter().position(|case| case.length == length).unwrap();
    (at(LENGTHS[0]), at(LENGTHS[1]))
}

/// Any bytes will do.
fn model(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

fn cases(w: &Workspace, profile: &Profile) -> Vec<Case> {
    let identity = enrolled(w, profile);
    let times = if profile.signed.is_some() { SIGNED } else { 1 };
    let lengths = LENGTHS.iter().flat_map(|length| std::iter::repeat_n(*length, times));
    lengths.map(|length| case(w, profile, &identity, length)).collect()
}

fn case(w: &Workspace, profile: &Profile, identity: &Identity, length: usize) -> Case {
    for name in ["sealed", "grant"] {
        let _ = std::fs::remove_file(w.path(name));
    }
    let name = length.to_string();
    let seal = ["seal", &name, "-o", "sealed", "--line", LINE, "--model-version", "7"];
    w.ok(&[&seal[..], &["--profile", "device", "--suite", profile.suite]].concat());
    w.ok(&["grant", "sealed", "--device", DEVICE, "-o", "grant"]);
    let sealed = w.read("sealed");
    let given = given(identity, &sealed, &w.read("grant"));
    Case { length, sealed, given }
}

/// Enrols the device anew, in a registry of its own.
fn enrolled(w: &Workspace, profile: &Profile) -> Identity {
    for name in ["registry.json", "identity", "pem"] {
        let _ = std::fs::remove_file(w.path(name));
    }
    let enroll = ["device", "enroll", DEVICE, "--line", LINE, "--identity-out", "identity"];
    if profile.signed.is_some() {
        w.device_ok(&["device", "keygen", DEVICE, "--identity-out", "identity", "--public-out", "pem"]);
        w.ok(&[&enroll[..], &["--public-key", "pem"]].concat());
    } else {
        w.ok(&[&enroll[..], &["--derive"]].concat());
    }
    Identity::read(Path::new(&w.path("identity"))).unwrap()
}

fn given(identity: &Identity, sealed: &[u8], grant: &[u8]) -> Vec<u8> {
    let secret = match identity.secret().unwrap() {
        Secret::DeviceKey(key) => *key.expose_to_factory(),
        Secret::X25519(key) => *key.expose_to_device(),
    };
    let key = match identity.publisher().unwrap().keys() {
        [PublisherKey::Ed25519(key)] => [*key, [0; 32]],
        [PublisherKey::EcdsaP256 { x, y }] => [*x, *y],
        keys => panic!("{} publisher keys", keys.len()),
    };
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&secret[..], key.as_flattened(), &first_state(1), &length(sealed), &length(grant), grant].concat()
}
