//! What an attacker can do to a sealed model, as a matrix: every bit, every length, every splice, and what knowing a
//! key adds. `attacks_on_grants.rs` does the same to grants. Both run in-process, through the function that gives
//! every program its exit code; `cli_attacks.rs` has a sample of each kind through the real program.
//!
//! Each case ends in one of two ways: it is refused with the right code and nothing is left behind, or the
//! change is without effect and the true model opens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::io::Write;
use std::ops::Range;

use ed25519_dalek::Signer;
use modelseal::open::SealedFile;
use modelseal_core::manifest::Suite;
use modelseal_hsm::Algorithm;
use modelseal_tests::bench::{
    Bench, By, LINE, Model, NO_LIMITS, SUITES, Wrap, extensions, flip, replaced, swapped,
};
use modelseal_tests::forge::{self, Parts};

// ---- Every single bit of a sealed model ----

/// What a flip in this byte must lead to; `None`: the model opens all the same.
fn after_a_flip(byte: usize, flipped: &[u8], parts: Parts, by: By<'_>) -> Option<u8> {
    let slots = parts.envelope + 64..parts.index;
    let envelope_len = u32::from_le_bytes(*flipped[12..].first_chunk().unwrap());
    match byte {
        0..10 => Some(7), // magic and format version
        // The length of an odd number of slots of 64 bytes, as they were before the first release.
        12..16 if envelope_len % 128 == 0 && (128..=1024).contains(&envelope_len) => Some(7),
        16 => Some(7), // suite
        // What a slot of 64 bytes would have there.
        _ if matches!(by, By::Vault) && (slots.start + 6..slots.start + 8).contains(&byte) => Some(7),
        _ if !slots.contains(&byte) => Some(3),
        // Only a vault looks at slots, and the first one is the one in use.
        _ if matches!(by, By::Vault) && byte < slots.start + 128 => Some(3),
        _ => None,
    }
}

fn every_bit(bench: &Bench, model: &Model, by: By<'_>, bytes: Range<usize>) {
    for bit in bytes.start * 8..bytes.end * 8 {
        let flipped = flip(&model.sealed, bit);
        let opened = bench.open(&flipped, by, &model.plain);
        let code = opened.as_ref().err().map(|refused| refused.code);
        assert_eq!(
            code,
            after_a_flip(bit / 8, &flipped, model.parts, by),
            "bit {bit}: {:?}",
            opened.as_ref().err()
        );
        assert!(opened.is_err() || opened == Ok(model.plain.clone()), "bit {bit} opened another model");
    }
}

fn every_bit_by_vault(suite: Suite) {
    let bench = Bench::new();
    let model = bench.seal(suite);
    every_bit(&bench, &model, By::Vault, 0..model.sealed.len());
}

fn every_bit_by_grant(suite: Suite, wrap: Wrap) {
    let bench = Bench::new();
    // Two chunks: what a grant changes comes before the payload.
    let model = bench.seal_as(suite, LINE, 2, 1100);
    let held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
    every_bit(&bench, &model, By::Grant(&held), 0..model.sealed.len());
}

#[test]
fn every_bit_of_an_aes_model_by_vault() {
    every_bit_by_vault(Suite::Aes256Gcm);
}

#[test]
fn every_bit_of_a_chacha_model_by_vault() {
    every_bit_by_vault(Suite::ChaCha20Poly1305);
}

#[test]
fn every_bit_of_an_aes_model_by_device_key() {
    every_bit_by_grant(Suite::Aes256Gcm, Wrap::DeviceKey);
}

#[test]
fn every_bit_of_a_chacha_model_by_device_key() {
    every_bit_by_grant(Suite::ChaCha20Poly1305, Wrap::DeviceKey);
}

#[test]
fn every_bit_of_an_aes_model_by_hpke() {
    every_bit_by_grant(Suite::Aes256Gcm, Wrap::Hpke);
}

#[test]
fn every_bit_of_a_chacha_model_by_hpke() {
    every_bit_by_grant(Suite::ChaCha20Poly1305, Wrap::Hpke);
}

/// Without any key.
#[test]
fn every_bit_of_a_model_by_publisher() {
    let bench = Bench::new();
    let model = bench.seal(Suite::Aes256Gcm);
    // A tag is the one thing that can't be checked without the content key, and the index names it beside what
    // can: the values, which say all of the ciphertext.
    for bit in 0..model.sealed.len() * 8 {
        let byte = bit / 8;
        let tag =
            (model.parts.index..model.parts.padding).contains(&byte) && (byte - model.parts.index) % 48 < 16;
        let flipped = flip(&model.sealed, bit);
        let expected = if tag { None } else { after_a_flip(byte, &flipped, model.parts, By::Publisher) };
        let refused = bench.open(&flipped, By::Publisher, &model.plain).err();
        assert_eq!(refused.as_ref().map(|refused| refused.code), expected, "bit {bit}: {refused:?}");
    }
}

/// The other signature algorithm, where it is looked at.
#[test]
fn every_bit_of_what_ecdsa_signs_and_of_the_signature() {
    let bench = Bench::signing_with(Algorithm::EcdsaP256);
    let model = bench.seal(Suite::Aes256Gcm);
    every_bit(&bench, &model, By::Vault, 0..model.parts.envelope + 64);
    let held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
    every_bit(&bench, &model, By::Grant(&held), 0..model.parts.envelope + 64);
}

// ---- Every length ----

#[test]
fn every_truncation_and_extension_of_a_model() {
    for suite in SUITES {
        let bench = Bench::new();
        let model = bench.seal(suite);
        let hpke = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let shared = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        for by in [By::Vault, By::Publisher, By::Grant(&hpke), By::Grant(&shared)] {
            for length in 0..model.sealed.len() {
                bench.refuses(
                    &model.sealed[..length],
                    by,
                    &model.plain,
                    (3, "Truncated"),
                    &length.to_string(),
                );
            }
            for extended in extensions(&model.sealed) {
                bench.refuses(&extended, by, &model.plain, (3, "Extended"), &extended.len().to_string());
            }
        }
    }
}

/// From a pipe, whose length isn't known before: what was handed out is the beginning of the model, and the end
/// is a refusal.
#[test]
fn every_truncation_and_every_byte_through_a_pipe() {
    let bench = Bench::new();
    let model = bench.seal(Suite::Aes256Gcm);
    let pipe = bench.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let through = |bytes: &[u8]| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::fs::File::options().write(true).open(&pipe).unwrap().write_all(bytes);
            });
            bench.open_path(&pipe, By::Vault, &model.plain)
        })
    };
    assert!(through(&model.sealed).as_ref() == Ok(&model.plain));
    for length in 0..model.sealed.len() {
        let refused = through(&model.sealed[..length]).unwrap_err();
        assert_eq!((refused.code, refused.name), (3, Some("Truncated")), "{length}");
    }
    for extended in extensions(&model.sealed) {
        assert_eq!(through(&extended).unwrap_err().name, Some("Extended"));
    }
    for byte in 0..model.sealed.len() {
        let flipped = flip(&model.sealed, byte * 8);
        let code = through(&flipped).err().map(|refused| refused.code);
        assert_eq!(code, after_a_flip(byte, &flipped, model.parts, By::Vault), "byte {byte}");
    }
}

/// A pipe gets chunks before the last one has passed, and never a byte of one that hasn't.
#[test]
fn a_long_model_is_handed_out_up_to_the_chunk_that_fails() {
    let bench = Bench::new();
    let model = bench.seal_as(Suite::Aes256Gcm, LINE, 1, 1 << 20);
    let mut longest = 0;
    for chunk in [0, 1, 255, 256, 257, 511, 700, 1023] {
        let at = model.parts.payload + chunk * 1024;
        let path = bench.path("long");
        std::fs::write(&path, flip(&model.sealed, at * 8)).unwrap();
        let mut handed = Vec::new();
        let error = bench.copy(&path, By::Vault, &bench.path("out/model"), &mut handed).unwrap_err();
        assert_eq!(error.name(), Some("Chunk"));
        assert!(handed.len() <= chunk * 1024 && model.plain.starts_with(&handed), "chunk {chunk}");
        longest = longest.max(handed.len());
    }
    assert!(longest > 0, "nothing is ever handed out, so this proves nothing");
}

// ---- Splices: genuine parts in the wrong place ----

#[test]
fn chunks_and_index_entries_swapped() {
    for suite in SUITES {
        let bench = Bench::new();
        let model = bench.seal_as(suite, LINE, 2, 4 * 1024);
        let held = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        let chunk = |i: usize| model.parts.payload + i * 1024..model.parts.payload + (i + 1) * 1024;
        let entry = |i: usize| model.parts.index + i * 48..model.parts.index + (i + 1) * 48;
        let (tag, value) = (|r: Range<usize>| r.start..r.start + 16, |r: Range<usize>| r.start + 16..r.end);
        for by in [By::Vault, By::Grant(&held)] {
            for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                let refuses = |sealed: &[u8], name| {
                    bench.refuses(sealed, by, &model.plain, (3, name), &format!("{a} and {b} of {name}"));
                };
                let chunks = swapped(&model.sealed, chunk(a), chunk(b));
                refuses(&chunks, "Chunk");
                refuses(&swapped(&model.sealed, entry(a), entry(b)), "Index");
                refuses(&swapped(&chunks, entry(a), entry(b)), "Index");
                refuses(&swapped(&model.sealed, value(entry(a)), value(entry(b))), "Index");
                refuses(&swapped(&model.sealed, tag(entry(a)), tag(entry(b))), "Chunk");
                refuses(&swapped(&chunks, tag(entry(a)), tag(entry(b))), "Chunk");
            }
        }
    }
}

/// Two versions of the same model, spliced at every border.
#[test]
fn parts_of_another_version() {
    for suite in SUITES {
        let bench = Bench::new();
        let (one, two) = (bench.seal_as(suite, LINE, 1, 2100), bench.seal_as(suite, LINE, 2, 2100));
        let (p, end) = (one.parts, one.sealed.len());
        assert_eq!((p.envelope, p.index, end), (two.parts.envelope, two.parts.index, two.sealed.len()));
        let held = bench.grant(&one, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let take = |range: Range<usize>| replaced(&one.sealed, range.start, &two.sealed[range]);
        let truth = &one.plain;
        for (range, by_vault, by_grant) in [
            (0..p.envelope, (3, "ManifestSignature"), (3, "ManifestSignature")),
            (p.envelope..p.envelope + 64, (3, "ManifestSignature"), (3, "ManifestSignature")),
            // A genuine header, but of a model that wasn't granted.
            (0..p.envelope + 64, (3, "KeySlot"), (4, "OtherModel")),
            (0..p.index, (3, "Index"), (4, "OtherModel")),
            (0..p.payload, (3, "Chunk"), (4, "OtherModel")),
            (p.envelope..p.index, (3, "ManifestSignature"), (3, "ManifestSignature")),
            (p.index..p.padding, (3, "Index"), (3, "Index")),
            (p.index..end, (3, "Index"), (3, "Index")),
            (p.payload..end, (3, "Chunk"), (3, "Chunk")),
            (p.payload + 1024..p.payload + 2048, (3, "Chunk"), (3, "Chunk")),
        ] {
            let what = format!("{range:?} of {p:?}");
            bench.refuses(&take(range.clone()), By::Vault, truth, by_vault, &what);
            bench.refuses(&take(range), By::Grant(&held), truth, by_grant, &what);
        }
        // The key slots of another version: of no use to the vault, of no interest to the device.
        let slots = take(p.envelope + 64..p.index);
        bench.refuses(&slots, By::Vault, truth, (3, "KeySlot"), "slots");
        bench.opens(&slots, By::Grant(&held), truth, "slots");
    }
}

/// The slots are no secret and not signed: what matters is that one of them opens for this very model.
#[test]
fn the_wrapped_key_moved_copied_and_hidden_among_others() {
    let bench = Bench::new();
    let model = bench.seal(Suite::Aes256Gcm);
    let other = bench.seal_as(Suite::Aes256Gcm, LINE, 3, 2100);
    let slot = |i: usize| model.parts.envelope + 64 + 128 * i..model.parts.envelope + 64 + 128 * (1 + i);
    let genuine = model.sealed[slot(0)].to_vec();
    for i in 1..4 {
        bench.opens(&swapped(&model.sealed, slot(0), slot(i)), By::Vault, &model.plain, "moved");
        bench.opens(&replaced(&model.sealed, slot(i).start, &genuine), By::Vault, &model.plain, "copied");
        let decoy = replaced(&model.sealed, slot(0).start, &other.sealed[slot(0)]);
        let hidden = replaced(&decoy, slot(i).start, &genuine);
        bench.opens(&hidden, By::Vault, &model.plain, "behind another model's");
    }
    let none = replaced(&model.sealed, slot(0).start, &[0; 128]);
    bench.refuses(&none, By::Vault, &model.plain, (3, "KeySlot"), "no slot in use");
}

// ---- Somebody else's signature ----

#[test]
fn a_manifest_signed_by_somebody_else() {
    for suite in SUITES {
        let (bench, attacker) = (Bench::new(), Bench::new());
        let (model, theirs) = (bench.seal(suite), attacker.seal(suite));
        let p = model.parts;
        let held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let shared = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        let signature = (3, "ManifestSignature");

        // This manifest, as it is and with a higher version, signed with a key of the attacker's own.
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let version = 16 + 3 + 1 + LINE.len();
        assert_eq!(model.sealed[version], 2);
        for sealed in [model.sealed.clone(), replaced(&model.sealed, version, &[99])] {
            let signed = key.sign(&forge::signed_bytes(&sealed, p)).to_bytes();
            let sealed = replaced(&sealed, p.envelope, &signed);
            for by in [By::Vault, By::Publisher, By::Grant(&held), By::Grant(&shared)] {
                bench.refuses(&sealed, by, &model.plain, signature, "signed again");
            }
        }

        // The attacker's model with this vault's wrapped key copied in, for this vault to unwrap or grant; and
        // this model with the attacker's.
        let slots = p.envelope + 64..p.index;
        let lure = replaced(&theirs.sealed, slots.start, &model.sealed[slots.clone()]);
        let back = replaced(&model.sealed, slots.start, &theirs.sealed[slots]);
        for (name, sealed) in [("lure", &lure), ("theirs", &theirs.sealed)] {
            bench.refuses(sealed, By::Vault, &theirs.plain, signature, name);
            bench.refuses(sealed, By::Publisher, &theirs.plain, signature, name);
            bench.refuses(sealed, By::Grant(&held), &theirs.plain, signature, name);
            bench.refuses(sealed, By::Grant(&shared), &theirs.plain, signature, name);
        }
        attacker.refuses(&lure, By::Vault, &theirs.plain, (3, "KeySlot"), "lure");
        bench.refuses(&back, By::Vault, &model.plain, (3, "KeySlot"), "back");
        attacker.refuses(&back, By::Vault, &model.plain, signature, "back");
        attacker.refuses(&model.sealed, By::Vault, &model.plain, signature, "another vault's");
        attacker.refuses(&model.sealed, By::Publisher, &model.plain, signature, "another vault's");
    }
}

/// A device that was licensed knows the content key. It makes a payload of its own under it.
#[test]
fn a_payload_forged_with_the_content_key() {
    for suite in SUITES {
        for length in [2100, 1000, 1024, 1025, 4096] {
            let bench = Bench::new();
            let model = bench.seal_as(suite, LINE, 2, length);
            let (p, key) = (model.parts, bench.content_key(&model));
            let held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
            let shared = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);

            // The forger's tools make the genuine thing: a refusal is for what was forged, not for how.
            let (index, payload) = forge::payload(&model.sealed, p, &key, &model.plain);
            assert!(model.sealed[p.index..p.padding] == index && model.sealed[p.payload..] == payload);
            assert_eq!(forge::root(&index), model.sealed[p.envelope - 32..p.envelope]);

            let evil = vec![0xe7; length];
            let (index, payload) = forge::payload(&model.sealed, p, &key, &evil);
            let forged = replaced(&replaced(&model.sealed, p.index, &index), p.payload, &payload);
            // With the genuine values kept, only the tags are the forger's.
            let mut tags = replaced(&model.sealed, p.payload, &payload);
            for (i, entry) in index.chunks(48).enumerate() {
                tags = replaced(&tags, p.index + 48 * i, &entry[..16]);
            }
            // With the root changed along, the forgery is perfect but for the signature.
            let rooted = replaced(&forged, p.envelope - 32, &forge::root(&index));
            for by in [By::Vault, By::Grant(&held), By::Grant(&shared), By::Publisher] {
                // Nothing may be handed out: not a byte of this is the model.
                bench.refuses(&forged, by, &[], (3, "Index"), "forged");
                bench.refuses(&tags, by, &[], (3, "Chunk"), "tags");
                bench.refuses(&rooted, by, &[], (3, "ManifestSignature"), "rooted");
            }
            in_place(&bench, &model, &payload, &index, &[]);
        }
    }
}

/// As a device opens it, which needs no values: every tag is right, and the root alone catches it. The memory is
/// wiped.
fn in_place(bench: &Bench, model: &Model, payload: &[u8], index: &[u8], opened: &[u8]) {
    std::fs::write(bench.path("in place"), &model.sealed).unwrap();
    let sealed = SealedFile::open(&bench.path("in place")).unwrap();
    let unwrapped = sealed.unwrap_by_vault(&*bench.vault, None).unwrap();
    let mut memory = payload.to_vec();
    let tag = |i: u64| Ok(index[48 * i as usize..][..16].try_into().unwrap());
    match unwrapped.open_in_place(&mut memory, tag) {
        Ok(model) => assert!(model.model() == opened),
        Err(error) => {
            assert_eq!(error, modelseal_core::Error::Root);
            assert!(opened.is_empty() && memory.iter().all(|byte| *byte == 0));
        }
    }
}

/// The same order of checks where the ciphertext lies in the device's own memory.
#[test]
fn every_bit_of_payload_and_tags_opened_in_place() {
    let bench = Bench::new();
    let model = bench.seal_as(Suite::ChaCha20Poly1305, LINE, 1, 1100);
    let (index, payload) =
        (&model.sealed[model.parts.index..model.parts.padding], &model.sealed[model.parts.payload..]);
    in_place(&bench, &model, payload, index, &model.plain);
    let sealed = SealedFile::open(&bench.path("in place")).unwrap();
    for bit in 0..(index.len() + payload.len()) * 8 {
        let flipped = flip(&[index, payload].concat(), bit);
        let (index, payload) = flipped.split_at(index.len());
        let mut memory = payload.to_vec();
        let unwrapped = sealed.unwrap_by_vault(&*bench.vault, None).unwrap();
        let tag = |i: u64| Ok(index[48 * i as usize..][..16].try_into().unwrap());
        let unread = bit / 8 < index.len() && (bit / 8) % 48 >= 16;
        match unwrapped.open_in_place(&mut memory, tag) {
            Ok(opened) => assert!(unread && opened.model() == model.plain, "bit {bit}"),
            Err(error) => {
                assert!(!unread && error == modelseal_core::Error::Chunk, "bit {bit}: {error}");
                assert!(memory.iter().all(|byte| *byte == 0), "bit {bit} left something in memory");
            }
        }
    }
}
