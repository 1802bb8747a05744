//! What is genuine and refused by the terms, and grants that don't open.

use super::make::{DEVICE, LINE, Model, NOW, Signer, Spec, bytes, master};
use super::scene::{Scene, WRAPS, Wrap, grant_bytes, terms};
use super::{Case, Number};
use crate::forge;

pub(super) fn cases() -> Vec<Case> {
    [by_terms(), other_models(), by_keys(), slots(), old_slots(), commitments()].concat()
}

fn scene(wrap: Wrap) -> Scene {
    Scene::new(&Spec::default(), wrap)
}

fn by_terms() -> Vec<Case> {
    let mut cases = Vec::new();
    for wrap in WRAPS {
        let valid = |from, to, now| scene(wrap).terms(DEVICE, 7, Some((from, to))).at(now);
        let floors = |grant, stored: Option<u64>| {
            let mut scene = scene(wrap).terms(DEVICE, grant, None);
            scene.device.floor = stored.map(Number);
            scene
        };
        let line = |line: &str| {
            let mut scene = scene(wrap);
            scene.device.line = line.into();
            scene
        };
        let mut suite = scene(wrap);
        suite.terms = terms(2, &suite.id, DEVICE, 7, None);
        for (name, comment, code, scene) in [
            ("line-other", "another line was asked for", 402, line("wake-work")),
            ("line-prefix", "the line begins with what was asked for", 402, line("wake")),
            ("line-longer", "what was asked for begins with the line", 402, line("wake-word-2")),
            ("suite-other", "a genuine grant of another suite", 403, suite),
            ("device-other", "granted to another device", 404, scene(wrap).terms("Kitchen-8", 7, None)),
            ("device-case", "ids differ in case", 404, scene(wrap).terms("kitchen-7", 7, None)),
            ("device-prefix", "a prefix of the id", 404, scene(wrap).terms("Kitchen", 7, None)),
            ("no-clock", "a validity needs a clock", 405, valid(0, u64::MAX, None)),
            ("not-yet", "now = not_before - 1", 406, valid(NOW + 1, NOW + 9, Some(NOW))),
            ("not-yet-far", "valid in the last second only", 406, valid(u64::MAX - 1, u64::MAX, Some(0))),
            ("expired", "now = not_after", 407, valid(NOW - 9, NOW, Some(NOW))),
            (
                "expired-end-of-time",
                "now = 2^64 - 1 is no second of any",
                407,
                valid(0, u64::MAX, Some(u64::MAX)),
            ),
            ("floor-above", "the grant's floor is the version + 1", 408, floors(8, Some(0))),
            ("floor-above-max", "the grant's floor is 2^64 - 1", 408, floors(u64::MAX, Some(0))),
            ("rolled-back", "the stored floor is the version + 1", 409, floors(7, Some(8))),
            ("rolled-back-max", "the stored floor is 2^64 - 1", 409, floors(0, Some(u64::MAX))),
            ("floor-missing", "the stored floor is missing: it isn't 0", 603, floors(7, None)),
        ] {
            let name = format!("terms-{name}-{}", wrap.name());
            cases.push(scene.case(name.clone(), comment).refused("terms", code));
            cases.push(scene.on_device().case(format!("{name}-device"), comment).refused("terms", code));
        }
    }
    let model = Spec::default().seal();
    for (name, line) in [("other", "wake-work"), ("prefix", "wake")] {
        let case =
            model.by_vault(&format!("vault-line-{name}"), "another line was asked for", &[1], Some(line));
        cases.push(case.refused("terms", 402));
    }
    cases
}

/// A genuine grant for another genuine model.
fn other_models() -> Vec<Case> {
    let mut cases = Vec::new();
    for wrap in WRAPS {
        for (name, spec) in [
            ("version", Spec { version: 8, ..Spec::default() }),
            ("line", Spec { line: "other".into(), ..Spec::default() }),
            ("slots", Spec { slots: 4, ..Spec::default() }),
        ] {
            let mut scene = Scene::new(&spec, wrap);
            scene.model = Spec::default().seal();
            scene.device.line = LINE.into();
            let name = format!("other-model-{name}-{}", wrap.name());
            let comment = "the grant is for another model of this publisher";
            cases.push(scene.case(name.clone(), comment).refused("terms", 401));
            let trusting = Scene { profile: "device", ..scene.clone() };
            cases.push(trusting.case(format!("{name}-device"), comment).refused("terms", 401));
            if wrap == Wrap::DeviceKey {
                let comment = "a reader that trusts no key can't tell, and says that the header was changed";
                let case = scene.on_device().case(format!("{name}-device-no-key"), comment);
                cases.push(case.refused("signature", 330));
            }
        }
        let mut scene = scene(wrap);
        scene.terms = terms(1, &bytes("no model's id"), DEVICE, 7, None);
        scene.id = bytes("no model's id");
        let case =
            scene.case(format!("other-model-unknown-{}", wrap.name()), "a grant for an id of no model");
        cases.push(case.refused("terms", 401));
    }
    cases
}

fn by_keys() -> Vec<Case> {
    let mut cases = Vec::new();
    for wrap in WRAPS {
        let mut refuse = |name: &str, comment: &str, scene: Scene| {
            let name = format!("grant-key-{name}-{}", wrap.name());
            cases.push(scene.case(name.clone(), comment).refused("grant", 332));
            cases.push(scene.on_device().case(format!("{name}-device"), comment).refused("grant", 332));
        };
        refuse("wrong", "wrapped for another key", Scene { wrapped_for: bytes("other"), ..scene(wrap) });
        let mut other = scene(wrap);
        std::mem::swap(&mut other.device.device_key, &mut other.device.x25519);
        refuse("other-kind", "the device has the other kind of key", other);
        refuse(
            "id",
            "wrapped with another id than the terms name",
            Scene { id: bytes("other"), ..scene(wrap) },
        );
        let good = scene(wrap).grant();
        for (field, at) in
            [("first", 0), ("first", 30), ("ciphertext", 0), ("ciphertext", 31), ("tag", 0), ("tag", 15)]
        {
            let mut wrapping = scene(wrap).wrapping();
            let mut changed = wrapping.get(field).to_vec();
            changed[at] ^= 1;
            wrapping = wrapping.with(field, changed);
            let scene = scene(wrap);
            let grant = grant_bytes(&scene.signed(wrapping).concat());
            let name = format!("grant-key-{field}-{at}-{}", wrap.name());
            let case =
                scene.case_with(name, "a bit changed, and signed where it is", &scene.model.bytes(), &grant);
            cases.push(case.refused("grant", 332));
        }
        if wrap == Wrap::DeviceKey {
            for (field, value) in [("floor", vec![6]), ("device", b"Kitchen-8".to_vec()), ("suite", vec![2])]
            {
                let scene = scene(wrap);
                let grant = grant_bytes(&good.clone().with(field, value).concat());
                let name = format!("grant-key-terms-{field}");
                let case = scene.case_with(name, "the terms flow into the key", &scene.model.bytes(), &grant);
                cases.push(case.refused("grant", 332));
            }
        } else {
            // The terms are HPKE's additional data: wrapped under others, then signed.
            let wrapping = scene(wrap).terms(DEVICE, 6, None).wrapping();
            let scene = scene(wrap);
            let grant = grant_bytes(&scene.signed(wrapping).concat());
            let comment = "wrapped under other terms, and signed";
            let case = scene.case_with("grant-key-aad", comment, &scene.model.bytes(), &grant);
            cases.push(case.refused("grant", 332));
        }
    }
    for (i, low) in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ]
    .iter()
    .enumerate()
    {
        let scene = scene(Wrap::Hpke);
        let wrapping = scene.wrapping().with("first", hex::decode(low).unwrap());
        let grant = grant_bytes(&scene.signed(wrapping).concat());
        let comment = "an encapsulated key of small order";
        let case =
            scene.case_with(format!("grant-key-small-order-{i}"), comment, &scene.model.bytes(), &grant);
        cases.push(case.refused("grant", 332));
    }
    cases
}

fn slots() -> Vec<Case> {
    let model = Spec::default().seal();
    let mut cases = Vec::new();
    let mut refuse = |name: &str, comment: &str, slot: [u8; 128], versions: &[u32]| {
        let mut model = model.clone();
        model.slots[0] = slot;
        cases.push(model.by_vault(&format!("slot-{name}"), comment, versions, None).refused("grant", 337));
    };
    let good = model.slots[0];
    for (name, at) in
        [("nonce", 8), ("ciphertext", 20), ("ciphertext-last", 51), ("tag", 52), ("tag-last", 67)]
    {
        let mut slot = good;
        slot[at] ^= 1;
        refuse(name, "a bit changed", slot, &[1]);
    }
    for (name, comment, at, byte) in [
        ("kind-0", "kind 0 is none, and a torn write leaves it", 4, 0),
        ("kind-2", "another kind", 4, 2),
        ("kind-255", "a kind that nobody knows", 4, 255),
        ("length-59", "a byte less than the least", 5, 59),
        ("length-61", "a nonce of 13 bytes, and a tag that ends in a zero", 5, 61),
        ("length-65", "a nonce of 17 bytes", 5, 65),
        ("length-121", "longer than a slot has room for", 5, 121),
        ("length-255", "longer than a slot", 5, 255),
        ("filler-first", "a byte after the value", 68, 1),
        ("filler-last", "the last byte", 127, 1),
    ] {
        let mut slot = good;
        slot[at] = byte;
        refuse(name, comment, slot, &[1]);
    }
    refuse("nonce-11", "a nonce of 11 bytes", forge::slot_of(1, 1, &good[9..68]), &[1]);
    let numbered = |version: u32| {
        let mut slot = good;
        slot[..4].copy_from_slice(&version.to_le_bytes());
        slot
    };
    refuse("version-0", "version 0 says that the slot is empty, whatever it holds", numbered(0), &[1]);
    refuse("version-2", "it claims another version of the master key", numbered(2), &[1, 2]);
    refuse("version-big-endian", "version 1, big-endian", numbered(1 << 24), &[1]);
    refuse("key-gone", "the vault has no master key of this version", good, &[2]);
    refuse("no-key", "the vault has no master key", good, &[]);
    refuse("empty", "all slots are empty", [0; 128], &[1]);
    let other = Spec { version: 8, ..Spec::default() }.seal();
    refuse("of-another-model", "the slot of another model", other.slots[0], &[1]);
    let mut broken = model.clone();
    broken.slots[0][24] ^= 1;
    let comment = "a slot that doesn't open, and another line was asked for: the slot comes first";
    cases.push(broken.by_vault("slot-and-line", comment, &[1], Some("other")).refused("grant", 337));
    let wrong = "the vault's master key is another, under the same version";
    let mut case = model.by_vault("slot-wrong-key", wrong, &[1], None).refused("grant", 337);
    case.vault.as_mut().unwrap().master = [("1".into(), hex::encode(master(77)))].into();
    cases.push(case);
    cases
}

/// Slots of 64 bytes. Four of them are as long as two are now.
fn old_slots() -> Vec<Case> {
    let model = Spec::default().seal();
    let named = |name: &str, comment: &str, slots: [[u8; 128]; 2]| {
        let model = Model { slots: slots.to_vec(), ..model.clone() };
        model.by_vault(&format!("old-slots-{name}"), comment, &[1, 9], None).refused("grant", 704)
    };
    let (good, old) = (model.slots[0], model.old_slot(1));
    let with = |at: usize| {
        let mut slot = good;
        slot[at] = 1;
        slot
    };
    let mut gone = good;
    gone[..4].copy_from_slice(&8u32.to_le_bytes());
    vec![
        named("first", "four slots as they were before, the first one used", [old, [0; 128]]),
        named("third", "four slots as they were before, the third one used", [[0; 128], model.old_slot(9)]),
        named("beside", "beside a slot of a master key that is gone", [gone, old]),
        named("zeros-6", "a slot but for the first of its two zeros", [with(6), [0; 128]]),
        named("zeros-7", "a slot but for the second of its two zeros", [with(7), [0; 128]]),
    ]
}

/// Another content key than the one that the manifest commits to.
fn commitments() -> Vec<Case> {
    let mut cases = Vec::new();
    for suite in [1, 2] {
        let spec = Spec { suite, signer: Signer::P256(1), ..Spec::default() };
        let mut model = spec.seal();
        model.slots[0] = model.slot(1, &bytes("another content key"));
        let comment = "the slot opens to another content key than the manifest commits to";
        let case = model.by_vault(&format!("commitment-slot-suite-{suite}"), comment, &[1], None);
        cases.push(case.refused("commitment", 333));
        let name = format!("commitment-and-line-suite-{suite}");
        let comment = "the same, and another line was asked for: the commitment comes first";
        cases.push(model.by_vault(&name, comment, &[1], Some("other")).refused("commitment", 333));
        for wrap in WRAPS {
            let scene = Scene { content: bytes("another content key"), ..Scene::new(&spec, wrap) };
            let name = format!("commitment-grant-suite-{suite}-{}", wrap.name());
            let comment = "the grant opens to another content key than the manifest commits to";
            cases.push(scene.case(name.clone(), comment).refused("commitment", 333));
            cases.push(scene.on_device().case(format!("{name}-device"), comment).refused("commitment", 333));
        }
    }
    let model = Spec::default().seal();
    for at in [0, 31] {
        let mut manifest = model.manifest.clone();
        let from = manifest.len() - 64;
        manifest[from + at] ^= 1;
        let model = model.with_manifest(&manifest);
        let comment = "a bit of the commitment, and signed";
        let case = model.by_vault(&format!("commitment-bit-{at}"), comment, &[1], None);
        cases.push(case.refused("commitment", 333));
        let case = Scene::of(model, Wrap::DeviceKey).case(format!("commitment-bit-{at}-grant"), comment);
        cases.push(case.refused("commitment", 333));
    }
    // The same content key under another subject has another commitment.
    let subject = Spec { created: 0, ..Spec::default() }.subject().concat();
    let model = Spec::default().seal().with_subject(&subject);
    let case = model.by_vault("commitment-subject", "the commitment of another subject", &[1], None);
    cases.push(case.refused("commitment", 333));
    cases
}
