//! What must open, verify and parse.

use aes_gcm::aead::consts::{U13, U14, U15, U16};

use super::Case;
use super::make::{LINE, Model, NOW, Signer, Spec, bytes};
use super::scene::{Scene, WRAPS, Wrap, grant_bytes};
use crate::forge;

pub(super) fn cases() -> Vec<Case> {
    [
        matrix(),
        sizes(),
        subjects(),
        claims(),
        terms(),
        paths(),
        trust(),
        slots(),
        beside(),
        verified(),
        parsed(),
    ]
    .concat()
}

/// By turns, so that every length is opened with everything.
fn by_turns(i: usize) -> (Spec, Wrap) {
    let signer = if (i / 2).is_multiple_of(2) { Signer::Ed25519(1) } else { Signer::P256(1) };
    (Spec { suite: 1 + (i % 2) as u8, signer, ..Spec::default() }, WRAPS[i / 4 % 2])
}

fn matrix() -> Vec<Case> {
    let mut cases = Vec::new();
    for (suite, suite_name) in [(1, "aes256gcm"), (2, "chacha20poly1305")] {
        for (signer, signer_name) in [(Signer::Ed25519(1), "ed25519"), (Signer::P256(1), "p256")] {
            for wrap in WRAPS {
                let scene = Scene::new(&Spec { suite, signer, ..Spec::default() }, wrap);
                let name = format!("open-{suite_name}-{signer_name}-{}", wrap.name());
                cases.push(scene.opens(format!("{name}-host"), "three chunks, the last one short"));
                let comment = "by a device: one pass over the payload";
                cases.push(scene.on_device().opens(format!("{name}-device"), comment));
            }
        }
    }
    cases
}

fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut open = |name: String, comment: &str, chunk_log2, align_log2, length| {
        let (spec, wrap) = by_turns(cases.len());
        let scene = Scene::new(&Spec { chunk_log2, align_log2, length, ..spec }, wrap);
        let scene = if cases.len() % 3 == 2 { scene.on_device() } else { scene };
        cases.push(scene.opens(name, comment));
    };
    for length in [1, 2, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 4096, 5120, 5121, 7168, 7167, 8192, 9217] {
        open(format!("length-{length:05}"), "chunks of 1024 bytes", 10, 6, length);
    }
    for length in [1, 1024, 1025, 2048, 2049, 4096, 5 * 2048, 7 * 2048 - 1000] {
        open(format!("length-{length:05}-chunk-11"), "a chunk is two BLAKE3 chunks", 11, 6, length);
    }
    for chunk_log2 in 12..=15 {
        let length = (1 << chunk_log2) + 1;
        open(format!("chunk-{chunk_log2}-two"), "a full chunk and one byte", chunk_log2, 6, length);
    }
    for chunk_log2 in 10..=20 {
        open(format!("chunk-{chunk_log2}-one"), "one chunk that isn't full", chunk_log2, 6, 777);
    }
    open("chunk-16-three".into(), "the last chunk is no multiple of 1024 bytes", 16, 12, 2 * 65536 + 1500);
    open("chunk-20-two".into(), "a full chunk and one byte", 20, 16, (1 << 20) + 1);
    for align_log2 in 4..=16 {
        open(format!("align-{align_log2:02}"), "zeros before the payload", 10, align_log2, 1500);
    }
    cases
}

fn subjects() -> Vec<Case> {
    let spec = Spec::default;
    let line = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    let all = [
        ("line-64", "a line of 64 bytes", Spec { line: "a-1_.".repeat(13)[..64].into(), ..spec() }),
        ("line-all-characters", "every character that a line may have", Spec { line: line.into(), ..spec() }),
        ("line-1", "a line of one byte", Spec { line: ".".into(), ..spec() }),
        ("kind-16", "a kind of 16 bytes", Spec { kind: "0123456789abcdef".into(), ..spec() }),
        ("kind-1", "a kind of one byte", Spec { kind: "_".into(), ..spec() }),
        ("version-0", "version 0, floor 0", Spec { version: 0, ..spec() }),
        ("version-127", "the last version of one byte", Spec { version: 127, ..spec() }),
        ("version-128", "the first version of two bytes", Spec { version: 128, ..spec() }),
        ("version-2-63", "ten bytes of varint", Spec { version: 1 << 63, ..spec() }),
        ("version-max", "version and floor 2^64 - 1", Spec { version: u64::MAX, ..spec() }),
        ("created-0", "created 0", Spec { created: 0, ..spec() }),
        ("created-max", "created 2^64 - 1", Spec { created: u64::MAX, ..spec() }),
    ];
    all.into_iter()
        .map(|(name, comment, spec)| Scene::new(&spec, Wrap::DeviceKey).opens(name, comment))
        .collect()
}

fn claims() -> Vec<Case> {
    let long = "v".repeat(128);
    let key = "k".repeat(32);
    let euro = "\u{20ac}".repeat(42) + "ab";
    let edge = " ~\u{a0}\u{fffd}\u{ffff}\u{10ffff}\u{d7ff}\u{e000}";
    let format = "\u{ac}\u{ae}\u{5ff}\u{606}\u{200a}\u{2010}\u{2027}\u{202f}\u{205f}\u{2065}\u{2070}\u{fefe}\u{ff00}\u{e0080}";
    let many = ["-", ".", "0", "9", "_", "a", "aa", "z"].map(|key| (key, "x"));
    let all = [
        ("claims-0", "no claims", vec![]),
        ("claims-8", "eight, ascending by bytes", many.to_vec()),
        ("claims-value-128", "a value of 128 bytes", vec![("a", &long)]),
        ("claims-value-0", "an empty value", vec![("a", "")]),
        ("claims-key-32", "a key of 32 bytes", vec![(&key, "x")]),
        ("claims-unicode-128", "128 bytes are 44 characters", vec![("a", &euro)]),
        ("claims-unicode-edges", "characters beside those that aren't allowed", vec![("a", edge)]),
        ("claims-unicode-format", "characters beside format controls", vec![("a", format)]),
    ];
    let scene = |claims: Vec<(String, String)>| {
        Scene::new(&Spec { suite: 2, claims, ..Spec::default() }, Wrap::DeviceKey)
    };
    let owned = |claims: &[(&str, &str)]| claims.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mut cases: Vec<Case> =
        all.iter().map(|(name, comment, claims)| scene(owned(claims)).opens(*name, *comment)).collect();
    // As long as a manifest may be, and no longer.
    let mut claims: Vec<(String, String)> = (0..8).map(|i| (i.to_string(), "v".repeat(120))).collect();
    claims[7].1.clear();
    let missing = 1024 - scene(claims.clone()).model.manifest.len();
    claims[7].1 = "v".repeat(missing);
    let full = scene(claims);
    assert_eq!(full.model.manifest.len(), 1024);
    cases.push(full.opens("manifest-1024", "a manifest of 1024 bytes"));
    cases
}

fn terms() -> Vec<Case> {
    let mut cases = Vec::new();
    for wrap in WRAPS {
        let scene = Scene::new(&Spec::default(), wrap);
        let mut open = |name: &str, comment: &str, scene: Scene| {
            cases.push(scene.opens(format!("{name}-{}", wrap.name()), comment));
        };
        let device = scene.device.id.clone();
        let valid = |from, to| scene.clone().terms(&device, 7, Some((from, to)));
        let (first, last) = (valid(NOW, NOW + 10), valid(NOW - 10, NOW + 1));
        open("validity-first-second", "now = not_before", first);
        open("validity-last-second", "now = not_after - 1", last);
        open("validity-from-0", "now = not_before = 0", valid(0, 1).at(Some(0)));
        let end = valid(u64::MAX - 1, u64::MAX).at(Some(u64::MAX - 1));
        open("validity-to-the-end", "not_after = 2^64 - 1, now is one less", end);
        open("validity-none", "without a validity no clock is needed", scene.clone().at(None));
        open("floor-0", "the grant's floor is 0", scene.clone().terms(&device, 0, None));
        for (name, stored, floor) in
            [("floor-raised", 3, 6), ("floor-kept", 6, 3), ("floor-is-version", 7, 7)]
        {
            let mut scene = scene.clone().terms(&device, floor, None);
            scene.device.floor = Some(super::Number(stored));
            open(name, "the higher floor is stored", scene);
        }
        for id in [
            "A",
            "9",
            "z..",
            "0-_.",
            "123e4567-e89b-12d3-a456-426614174000",
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._",
        ] {
            let mut scene = scene.clone().terms(id, 7, None);
            scene.device.id = id.into();
            open(
                &format!("device-id-{}-{}", id.len(), &id.as_bytes()[0]),
                "device ids at their limits",
                scene,
            );
        }
    }
    let scene = Scene::new(&Spec { version: u64::MAX, ..Spec::default() }, Wrap::Hpke).terms(
        "Kitchen-7",
        u64::MAX,
        Some((0, u64::MAX)),
    );
    cases.push(scene.opens("terms-longest-numbers", "every number of the terms as long as it can be"));
    cases
}

fn paths() -> Vec<Case> {
    let sides =
        [(1, 0), (1, 1), (2, 2), (5, 0b10110), (16, 0), (16, 0xffff), (16, 0x8001), (7, 0x7f), (8, 0x80)];
    let open = |(count, sides): (usize, u16)| {
        let mut scene = Scene::new(&Spec::default(), Wrap::Hpke);
        scene.siblings = (0..count).map(|i| bytes(&format!("sibling {i}"))).collect();
        scene.sides = sides;
        scene.opens(format!("path-{count:02}-{sides:04x}"), format!("{count} siblings, sides {sides:016b}"))
    };
    sides.into_iter().map(open).collect()
}

fn trust() -> Vec<Case> {
    let four = [Signer::P256(3), Signer::Ed25519(2), Signer::P256(1), Signer::Ed25519(1)].map(Signer::key);
    let mut cases = Vec::new();
    for (number, signer) in [Signer::Ed25519(1), Signer::P256(1)].into_iter().enumerate() {
        for wrap in WRAPS {
            let mut scene = Scene::new(&Spec { signer, ..Spec::default() }, wrap);
            scene.trust = four.to_vec();
            cases.push(scene.opens(format!("trust-4-{number}-{}", wrap.name()), "four keys, two algorithms"));
        }
    }
    let mut scene = Scene::new(&Spec::default(), Wrap::Hpke);
    (scene.trust, scene.signer) = (four.to_vec(), Signer::P256(3));
    cases.push(scene.opens("trust-another-key-for-the-grant", "grant and manifest signed by different keys"));
    cases
}

fn slots() -> Vec<Case> {
    let model = |slots, used: &[(usize, u32)]| Spec { slots, used: used.to_vec(), ..Spec::default() }.seal();
    let mut torn = model(3, &[(2, 1)]);
    torn.slots[0] = [0xa5; 128];
    torn.slots[0][..4].fill(0);
    let mut changed = model(3, &[(0, 1), (2, 2)]);
    changed.slots[0][24] ^= 1;
    let mut twice = model(2, &[(0, 1), (1, 1)]);
    twice.slots[0][67] ^= 0x80;
    let mut other = model(2, &[(1, 1)]);
    other.slots[0] = other.slot(2, &bytes("another content key"));
    let any_line = model(1, &[(0, 1)]).by_vault("slots-any-line", "the caller asks for no line", &[1], None);
    let plain = model(1, &[(0, 1)]).plain;
    vec![
        model(1, &[(0, 1)]).opened_by_vault("slots-1", "one slot", &[1]),
        model(16, &[(0, 1)]).opened_by_vault("slots-16", "16 slots", &[1]),
        model(16, &[(15, 1)]).opened_by_vault("slots-16-last", "the last of 16 slots is used", &[1]),
        model(4, &[(2, 9)]).opened_by_vault(
            "slots-version-9",
            "master key version 9 in the third slot",
            &[1, 9],
        ),
        model(1, &[(0, u32::MAX)]).opened_by_vault("slots-version-max", "version 2^32 - 1", &[u32::MAX]),
        model(4, &[(0, 1), (1, 2)]).opened_by_vault(
            "slots-two-used",
            "a new master key, the old slot stays",
            &[1, 2],
        ),
        model(4, &[(0, 1), (1, 2)]).opened_by_vault(
            "slots-other-version-first",
            "the first slot's key is gone",
            &[2],
        ),
        torn.opened_by_vault("slots-half-cleared", "version 0 alone says that a slot is empty", &[1]),
        changed.opened_by_vault(
            "slots-torn-then-good",
            "a slot that doesn't open, then one that does",
            &[1, 2],
        ),
        twice.opened_by_vault("slots-same-version-twice", "the same with one version", &[1]),
        other.opened_by_vault(
            "slots-unknown-version-ignored",
            "a slot for a key that this vault hasn't",
            &[1],
        ),
        any_line.opened(&plain, None),
        Spec { suite: 2, signer: Signer::P256(1), ..Spec::default() }.seal().opened_by_vault(
            "slots-chacha20poly1305",
            "slots are AES-256-GCM in both suites",
            &[1],
        ),
    ]
}

/// What stands before a slot that opens doesn't keep it from opening.
fn beside() -> Vec<Case> {
    let model = Spec { used: vec![(1, 1)], ..Spec::default() }.seal();
    let good = model.slots[1];
    let with = |at: usize, byte: u8| {
        let mut slot = good;
        slot[at] = byte;
        slot
    };
    let nonce = |slot: [u8; 128]| Model { slots: vec![slot, [0; 128]], ..model.clone() };
    let lengths = [
        ("13", model.slot_with::<U13>(1, &model.content)),
        ("14", model.slot_with::<U14>(1, &model.content)),
        ("15", model.slot_with::<U15>(1, &model.content)),
        ("16", model.slot_with::<U16>(1, &model.content)),
    ];
    let nonces = lengths.map(|(length, slot)| {
        nonce(slot).opened_by_vault(&format!("slots-nonce-{length}"), "a token's own nonce", &[1])
    });
    let beside = [
        ("kind-0", "of a torn write", with(4, 0)),
        ("kind-2-113", "as long as HPKE's", forge::slot_of(1, 2, &[0xa5; 113])),
        ("kind-255-120", "as long as can be", forge::slot_of(1, 255, &[0xa5; 120])),
        ("kind-3-0", "without a value", forge::slot_of(1, 3, &[])),
        ("length-0", "of a torn write", with(5, 0)),
        ("length-65", "a nonce of 17 bytes", with(5, 65)),
        ("length-255", "longer than a slot", with(5, 255)),
        ("filler", "a byte after the value", with(127, 1)),
        ("old", "a slot of before", model.old_slot(1)),
    ]
    .map(|(name, comment, slot)| {
        let model = Model { slots: vec![slot, good], ..model.clone() };
        model.opened_by_vault(&format!("slots-beside-{name}"), comment, &[1])
    });
    [&nonces[..], &beside].concat()
}

fn verified() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, length) in [1, 1024, 1025, 5121, 7168].into_iter().enumerate() {
        let model = Spec { length, ..by_turns(i).0 }.seal();
        cases.push(model.verified(&format!("verify-{length:04}"), "without any secret key"));
    }
    let mut model = Spec::default().seal();
    model.index[0] ^= 1;
    cases.push(model.verified("verify-tag-changed", "to verify says nothing about tags"));
    let mut model = Spec::default().seal();
    model.slots[0] = [0xff; 128];
    cases.push(model.verified("verify-slots-changed", "to verify says nothing about slots"));
    let mut scene = Scene::new(&Spec::default(), Wrap::Hpke);
    scene.model.slots[0] = [0xff; 128];
    cases.push(scene.opens("slots-changed-for-a-device", "grants never depend on slots"));
    let mut scene = Scene::new(&Spec::default(), Wrap::DeviceKey);
    scene.device.line = LINE.into();
    scene.model.slots[0] = [0; 128];
    cases.push(scene.opens("slots-empty-for-a-device", "grants never depend on slots"));
    cases
}

fn parsed() -> Vec<Case> {
    let sealed = Spec::default().seal().bytes();
    let mut cases = vec![Case::new("parse-sealed", "a genuine one", "parse-sealed").sealed(&sealed)];
    for wrap in WRAPS {
        let scene = Scene::new(&Spec::default(), wrap).terms("a", 300, Some((1, 2)));
        let grant = grant_bytes(&scene.grant().concat());
        cases.push(
            Case::new(format!("parse-grant-{}", wrap.name()), "a genuine one", "parse-grant").grant(&grant),
        );
    }
    for signer in [Signer::Ed25519(1), Signer::P256(1)] {
        let name = if matches!(signer, Signer::P256(_)) { "key-p256" } else { "key-ed25519" };
        cases.push(Case::new(name, "a genuine one", "check-publisher-key").trust(&[signer.key()]));
    }
    // p - 2, the largest of an order that isn't small.
    let mut largest = [0xff; 32];
    (largest[0], largest[31]) = (0xeb, 0x7f);
    for (i, key) in [super::scene::x25519_public(&bytes("hpke")), largest, [9; 32]].into_iter().enumerate() {
        let mut case = Case::new(format!("x25519-{i}"), "a key that isn't of small order", "check-x25519");
        case.key = Some(hex::encode(key));
        cases.push(case);
    }
    cases
}
