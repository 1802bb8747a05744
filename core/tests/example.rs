//! Recomputes the worked example of docs/FORMAT.md, section 11, and looks for every value there.
//!
//! Derivations, encodings and layouts are made here a second time, from the text and not from the crate, and
//! must agree with the crate, too. Whitespace aside, each block must stand in the document exactly as it is
//! built here. To print the blocks, for instance after a change of format:
//!
//! ```text
//! MODELSEAL_EXAMPLE=print cargo test -p modelseal-core --test example -- --nocapture --test-threads 1
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test: whatever is wrong fails at once, and all sizes are small"
)]

use std::convert::Infallible;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use chacha20poly1305::ChaCha20Poly1305;
use cmac::{Cmac, Mac};
use ed25519_dalek::Signer;
use hkdf::Hkdf;
use modelseal_core::grant::{
    DeviceId, Grant, PathSignature, Terms, UnsignedGrant, Validity, wrap_for_device_key, wrap_for_x25519,
};
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::lazy::IndexCheck;
use modelseal_core::manifest::{Claim, Claims, Subject, Suite};
use modelseal_core::open::{Conditions, Request, Unwrapped};
use modelseal_core::seal::{Sealing, Unsigned};
use modelseal_core::sealed::{Entry, Envelope, Header, Prefix, Slot};
use modelseal_core::sign::{Publisher, PublisherKey, Signature};
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};

const FORMAT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/FORMAT.md"));
const DEVICE: &str = "kitchen-7";
/// 2026-01-01 and 2027-01-01, 00:00 UTC.
const VALIDITY: Validity = Validity { not_before: 1_767_225_600, not_after: 1_798_761_600 };

#[test]
#[cfg_attr(miri, ignore)]
fn the_sealed_model_is_in_the_text() {
    let sealed = first();
    let okm = payload_okm(&sealed);
    let (key, nonce, commitment) = (&okm[..32], &okm[32..44], &okm[44..]);
    let mut block = Block::new("content key", &sealed.content);
    block.add("subject", &sealed.subject);
    block.add("SHA-256(subject)", &Sha256::digest(&sealed.subject));
    block.add("payload key", key).add("base nonce", nonce).add("commitment", commitment);
    let mut values = Vec::new();
    for (i, plain) in pattern(2060).chunks(1024).enumerate() {
        let nonce = chunk_nonce(nonce, i as u64);
        let (ciphertext, tag) = aes(key, &nonce, &[], plain);
        let offset = i as u64 * 1024;
        values.push(blake3::Hasher::new().set_input_offset(offset).update(&ciphertext).finalize_non_root());
        assert_eq!(ciphertext, sealed.payload[i * 1024..][..plain.len()]);
        assert_eq!(sealed.entries[i], Entry { tag, chaining_value: values[i] });
        block.add(&format!("nonce({i})"), &nonce).add(&format!("ciphertext({i})"), &ciphertext);
        block.add(&format!("tag({i})"), &tag).add(&format!("chaining value({i})"), &values[i]);
    }
    let left = merge_subtrees_non_root(&values[0], &values[1], Mode::Hash);
    let root = merge_subtrees_root(&left, &values[2], Mode::Hash);
    assert_eq!(root, blake3::hash(&sealed.payload));
    block.add("parent of chaining values 0 and 1", &left).add("root", root.as_bytes());
    block
        .add("bytes 0 .. 16+M", &sealed.header)
        .add("signed bytes", &sealed.signed)
        .add("model id", &sealed.id);
    assert_eq!(sealed.header, header(&sealed.subject, commitment, root.as_bytes(), 4));
    block.must_be_in_the_text();
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_envelope_is_in_the_text() {
    let sealed = first();
    let slot = slot(&sealed);
    let envelope = envelope(&sealed, ed25519(&sealed.signed), 4);
    let file = file(&sealed, &envelope);
    let mut block = Block::new("publisher seed", signer().as_bytes());
    block.add("publisher key", signer().verifying_key().as_bytes());
    block.add("signature", &ed25519(&sealed.signed).to_bytes());
    block.add("master key, version 1", &master_key()).add("slot nonce", slot.nonce.as_bytes());
    block.add("slot additional data", &slot_aad(&sealed));
    block.add("slot", &slot_bytes(&slot)).add("envelope", &envelope);
    block.add("BLAKE3 of the whole sealed model", blake3::hash(&file).as_bytes());
    block.must_be_in_the_text();
    let header = Header::parse(&sealed.header).unwrap();
    let mut index = IndexCheck::new(&header);
    sealed.entries.iter().for_each(|entry| index.push(entry).unwrap());
    index.finish().unwrap();
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_device_key_grant_is_in_the_text() {
    let (sealed, device_key) = (first(), device_key());
    let (id, salt) = (DeviceId::new(DEVICE).unwrap(), count::<32>(0x90));
    let unwrapped = unwrapped(&sealed, ed25519(&sealed.signed), &publisher());
    let key = DeviceKey::from_bytes(&device_key);
    let terms = Terms::new(&unwrapped, id);
    let grant = wrap_for_device_key(&unwrapped, &terms, &key, &mut Replay(&salt)).unwrap();
    let terms = [&[1][..], &sealed.id, &[9], DEVICE.as_bytes(), &[7], &[0]].concat();
    let okm = device_grant_okm(&device_key, &salt, &terms, &sealed.id);
    let (ciphertext, tag) = aes(&okm[..32], &okm[32..], &[], &sealed.content);
    let body = [&terms[..], &[0], &salt, &ciphertext, &tag, &[0]].concat();
    assert_eq!(*grant, grant_bytes(&body));
    let mut block = Block::new("fleet key, version 1", &count::<32>(0x70));
    block.add("CMAC input 1", &cmac_input(1)).add("CMAC input 2", &cmac_input(2));
    block.add("device key", &device_key).add("salt", &salt);
    block.add("terms", &terms).add("SHA-256(terms)", &Sha256::digest(&terms));
    block.add("grant key", &okm[..32]).add("grant nonce", &okm[32..]);
    block.add("ciphertext", &ciphertext).add("tag", &tag).add("grant", &grant);
    block.must_be_in_the_text();
    opens(&sealed, ed25519(&sealed.signed), &publisher(), &grant, &Secret::DeviceKey(key));
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_hpke_grant_is_in_the_text() {
    let sealed = first();
    let secret = X25519Secret::from_bytes(&count(0xb0));
    let terms = [&[1][..], &sealed.id, &[9], DEVICE.as_bytes(), &[5, 1], &validity()].concat();
    let ephemeral = X25519Secret::from_bytes(&derive_key_pair(&count(0xd0)));
    let unsigned = hpke_grant(&sealed, &secret);
    let alone = PathSignature { signature: grants_signature(&unsigned.leaf()), ..path() };
    let grant = unsigned.sign(&PathSignature { siblings: Default::default(), sides: 0, ..alone }).unwrap();
    let wrapping = &grant[12 + terms.len()..][..81];
    let leaf = *blake3::hash(&[&[0][..], &terms, wrapping].concat()).as_bytes();
    assert_eq!(leaf, unsigned.leaf());
    assert_eq!(wrapping[0], 1);
    assert_eq!(wrapping[1..33], ephemeral.public().unwrap());
    let body = [&terms[..], wrapping, &[1], &grants_signature(&leaf).to_bytes(), &[0, 0]].concat();
    assert_eq!(*grant, grant_bytes(&body));
    let mut block = Block::new("device's private key", &count::<32>(0xb0));
    block.add("device's public key", &secret.public().unwrap()).add("terms, the aad", &terms);
    block.add("info", &[&b"modelseal/v1/hpke-grant\0"[..], &sealed.id].concat());
    block.add("ikmE", &count::<32>(0xd0)).add("skE", ephemeral.expose_to_device());
    block.add("encapsulated key", &wrapping[1..33]).add("ciphertext", &wrapping[33..65]);
    block.add("tag", &wrapping[65..]).add("leaf", &leaf);
    block.add("signature", &grants_signature(&leaf).to_bytes()).add("grant", &grant);
    block.must_be_in_the_text();
    opens(&sealed, ed25519(&sealed.signed), &publisher(), &grant, &Secret::X25519(secret));
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_path_is_in_the_text() {
    let sealed = first();
    let secret = X25519Secret::from_bytes(&count(0xb0));
    let unsigned = hpke_grant(&sealed, &secret);
    let inner = node(&unsigned.leaf(), &[0x11; 32]);
    let root = node(&[0x22; 32], &inner);
    let grant = unsigned.sign(&PathSignature { signature: grants_signature(&root), ..path() }).unwrap();
    let mut block = Block::new("sibling 0", &[0x11; 32]);
    block.add("sibling 1", &[0x22; 32]).add("node of leaf and sibling 0", &inner);
    block.add("root", &root).add("grants' signed bytes", &grants_message(&root));
    block.add("signature", &grants_signature(&root).to_bytes()).add("grant", &grant);
    block.must_be_in_the_text();
    opens(&sealed, ed25519(&sealed.signed), &publisher(), &grant, &Secret::X25519(secret));
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_second_example_is_in_the_text() {
    let sealed = second();
    let okm = payload_okm(&sealed);
    let (nonce, plain) = (chunk_nonce(&okm[32..44], 0), b"hello, device");
    let mut ciphertext = plain.to_vec();
    let cipher = ChaCha20Poly1305::new(okm[..32].try_into().unwrap());
    let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], ciphertext.as_mut_slice().into()).unwrap();
    let root = blake3::hash(&ciphertext);
    assert_eq!(sealed.payload, ciphertext);
    assert_eq!(sealed.entries[0], Entry { tag: tag.into(), chaining_value: *root.as_bytes() });
    assert_eq!(sealed.header, header(&sealed.subject, &okm[44..], root.as_bytes(), 1));
    let (signature, publisher, x, y) = p256(&sealed.signed);
    let envelope = envelope(&sealed, signature, 1);
    let mut block = Block::new("model", plain);
    block.add("content key", &sealed.content).add("subject", &sealed.subject);
    block.add("payload key", &okm[..32]).add("base nonce", &okm[32..44]).add("commitment", &okm[44..]);
    block.add("ciphertext", &ciphertext).add("tag", &tag).add("root", root.as_bytes());
    block.add("model id", &sealed.id).add("private key", &count::<32>(1));
    block.add("public key x", &x).add("public key y", &y);
    block.add("signature", &signature.to_bytes()).add("sealed model", &file(&sealed, &envelope));
    let unwrapped = unwrapped(&sealed, signature, &publisher);
    let terms = Terms::new(&unwrapped, DeviceId::new(DEVICE).unwrap());
    let key = DeviceKey::from_bytes(&device_key());
    let grant = wrap_for_device_key(&unwrapped, &terms, &key, &mut Replay(&count::<32>(0x90))).unwrap();
    block.add("device-key grant, as in 11.3", &grant);
    block.must_be_in_the_text();
    opens(&sealed, signature, &publisher, &grant, &Secret::DeviceKey(key));
}

/// Names and values as they stand in the document.
struct Block(String);

impl Block {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let mut block = Self(String::new());
        block.add(name, bytes);
        block
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        self.0 += &format!("{name}\n");
        for line in bytes.chunks(48) {
            self.0 += &format!("    {}\n", hex::encode(line));
        }
        self
    }

    fn must_be_in_the_text(&self) {
        let strip = |text: &str| text.split_whitespace().collect::<String>();
        if std::env::var_os("MODELSEAL_EXAMPLE").is_some() {
            println!("```text\n{}```\n", self.0);
        } else if !strip(FORMAT).contains(&strip(&format!("```text\n{}```", self.0))) {
            panic!("docs/FORMAT.md should have this block:\n{}", self.0);
        }
    }
}

/// Gives the bytes that it was made with, and no others.
struct Replay<'a>(&'a [u8]);

impl TryRng for Replay<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let (now, later) = self.0.split_at(bytes.len());
        bytes.copy_from_slice(now);
        self.0 = later;
        Ok(())
    }
}

impl TryCryptoRng for Replay<'_> {}

/// `from, from + 1, …`
fn count<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|i| from.wrapping_add(i as u8))
}

/// Byte i is i mod 251.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// A sealed model in its parts, without the envelope.
struct Sealed {
    content: [u8; 32],
    subject: Vec<u8>,
    unsigned: Unsigned,
    header: Vec<u8>,
    signed: Vec<u8>,
    id: [u8; 32],
    entries: Vec<Entry>,
    payload: Vec<u8>,
}

fn first() -> Sealed {
    let claims = [Claim { key: "chip", value: "cortex-m4" }, Claim { key: "licence", value: "Apache-2.0" }];
    let subject = Subject {
        suite: Suite::Aes256Gcm,
        chunk_log2: 10,
        align_log2: 6,
        line: "wake-word",
        version: 7,
        kind: "tflite",
        length: 2060,
        created: 1_767_225_600,
        claims: Claims::from_slice(&claims).unwrap(),
    };
    let mut encoded = vec![1, 10, 6];
    string(&mut encoded, "wake-word");
    varint(&mut encoded, 7);
    string(&mut encoded, "tflite");
    varint(&mut encoded, 2060);
    varint(&mut encoded, 1_767_225_600);
    varint(&mut encoded, 2);
    claims.iter().flat_map(|claim| [claim.key, claim.value]).for_each(|text| string(&mut encoded, text));
    seal(subject, encoded, 4, count(0), pattern(2060))
}

fn second() -> Sealed {
    let subject = Subject {
        suite: Suite::ChaCha20Poly1305,
        chunk_log2: 10,
        align_log2: 4,
        line: "greeting",
        version: 1,
        kind: "text",
        length: 13,
        created: 0,
        claims: Claims::new(),
    };
    let mut encoded = vec![2, 10, 4];
    string(&mut encoded, "greeting");
    varint(&mut encoded, 1);
    string(&mut encoded, "text");
    encoded.extend([13, 0, 0]);
    seal(subject, encoded, 1, count(0xe0), b"hello, device".to_vec())
}

fn seal(subject: Subject<'_>, encoded: Vec<u8>, slots: u8, content: [u8; 32], mut model: Vec<u8>) -> Sealed {
    let mut sealing: Sealing<'_> = Sealing::new(subject, slots, &mut Replay(&content)).unwrap();
    let entries = model.chunks_mut(1024).map(|chunk| sealing.seal_next(chunk).unwrap()).collect();
    let unsigned = sealing.finish().unwrap();
    let header = unsigned.header_bytes().to_vec();
    assert_eq!(header[16..header.len() - 64], encoded);
    let signed = [&b"modelseal/v1/manifest\0"[..], &header].concat();
    assert_eq!(*unsigned.header().unwrap().signed_bytes(), signed);
    let id = *blake3::hash(&signed).as_bytes();
    assert_eq!(*unsigned.header().unwrap().id().as_bytes(), id);
    Sealed { content, subject: encoded, unsigned, header, signed, id, entries, payload: model }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// The whole sealed model, in the order of section 4.1.
fn file(sealed: &Sealed, envelope: &[u8]) -> Vec<u8> {
    let mut file = [&sealed.header[..], envelope].concat();
    file.extend(sealed.entries.iter().flat_map(|entry| [&entry.tag[..], &entry.chaining_value].concat()));
    let header = sealed.unsigned.header().unwrap();
    let align = 1 << header.manifest().subject.align_log2;
    file.resize(file.len().next_multiple_of(align), 0);
    assert_eq!(file.len() as u64, header.layout().payload);
    file.extend(&sealed.payload);
    assert_eq!(file.len() as u64, header.layout().end);
    file
}

fn header(subject: &[u8], commitment: &[u8], root: &[u8; 32], slots: u32) -> Vec<u8> {
    let manifest_len = (subject.len() + 64) as u16;
    let prefix =
        [&b"\x89MSEAL\x1a\n\x01\0"[..], &manifest_len.to_le_bytes(), &(64 + 128 * slots).to_le_bytes()];
    [&prefix.concat()[..], subject, commitment, root].concat()
}

/// Payload key, base nonce and commitment.
fn payload_okm(sealed: &Sealed) -> [u8; 76] {
    let mut okm = [0; 76];
    let info = [&b"modelseal/v1/payload\0"[..], &Sha256::digest(&sealed.subject)].concat();
    Hkdf::<Sha256>::from_prk(&sealed.content).unwrap().expand(&info, &mut okm).unwrap();
    okm
}

fn chunk_nonce(base: &[u8], i: u64) -> [u8; 12] {
    let counter = u128::from(i).to_be_bytes();
    std::array::from_fn(|byte| base[byte] ^ counter[4 + byte])
}

fn aes(key: &[u8], nonce: &[u8], aad: &[u8], plain: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let mut data = plain.to_vec();
    let cipher = Aes256Gcm::new(key.try_into().unwrap());
    let tag = cipher.encrypt_inout_detached(nonce.try_into().unwrap(), aad, data.as_mut_slice().into());
    (data, tag.unwrap().into())
}

fn signer() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&count(0x20))
}

fn publisher() -> Publisher {
    Publisher::new(&[PublisherKey::Ed25519(signer().verifying_key().to_bytes())]).unwrap()
}

fn ed25519(message: &[u8]) -> Signature {
    Signature::from_bytes(&signer().sign(message).to_bytes())
}

/// RFC 6979, then the lower s.
fn p256(message: &[u8]) -> (Signature, Publisher, [u8; 32], [u8; 32]) {
    let key = p256::ecdsa::SigningKey::from_slice(&count::<32>(1)).unwrap();
    let point = key.verifying_key().to_sec1_point(false);
    let (x, y) = (point.as_bytes()[1..33].try_into().unwrap(), point.as_bytes()[33..].try_into().unwrap());
    let signature: p256::ecdsa::Signature = key.sign(message);
    let public = PublisherKey::EcdsaP256 { x, y };
    let signature = public.canonical(Signature::from_bytes(&signature.to_bytes().into()));
    (signature, Publisher::new(&[public]).unwrap(), x, y)
}

fn master_key() -> [u8; 32] {
    count(0x40)
}

fn slot_aad(sealed: &Sealed) -> Vec<u8> {
    [&b"modelseal/v1/content-key\0"[..], &sealed.id].concat()
}

fn slot(sealed: &Sealed) -> Slot {
    let nonce: [u8; 12] = count(0x60);
    let (ciphertext, tag) = aes(&master_key(), &nonce, &slot_aad(sealed), &sealed.content);
    Slot { version: 1, nonce: nonce.into(), ciphertext: ciphertext.try_into().unwrap(), tag }
}

fn slot_bytes(slot: &Slot) -> Vec<u8> {
    let front = [&slot.version.to_le_bytes()[..], &[1, 60, 0, 0], slot.nonce.as_bytes()].concat();
    [&front[..], &slot.ciphertext, &slot.tag, &[0; 60]].concat()
}

fn envelope(sealed: &Sealed, signature: Signature, slots: u8) -> Vec<u8> {
    let slot = slot(sealed);
    let mut bytes = [&signature.to_bytes()[..], &slot_bytes(&slot)].concat();
    bytes.resize(64 + 128 * usize::from(slots), 0);
    assert_eq!(*Envelope::new(signature, slot, slots).unwrap().encode(), bytes);
    bytes
}

/// What a vault has: the signature verified, the slot opened, the commitment checked.
fn unwrapped<'a>(sealed: &'a Sealed, signature: Signature, publisher: &Publisher) -> Unwrapped<'a> {
    let header = Header::parse(&sealed.header).unwrap().verify(&signature, publisher).unwrap();
    Unwrapped::by_vault(header, &sealed.content).unwrap()
}

fn cmac_input(counter: u32) -> Vec<u8> {
    let label = b"modelseal/v1/device\0";
    [&counter.to_be_bytes()[..], label, DEVICE.as_bytes(), &[0, 0, 1, 0]].concat()
}

fn device_key() -> [u8; 32] {
    let half = |counter| {
        let mut mac = <Cmac<aes::Aes256> as KeyInit>::new(&count(0x70).into());
        mac.update(&cmac_input(counter));
        mac.finalize().into_bytes()
    };
    [half(1), half(2)].concat().try_into().unwrap()
}

/// Grant key and nonce.
fn device_grant_okm(key: &[u8; 32], salt: &[u8], terms: &[u8], id: &[u8; 32]) -> [u8; 44] {
    let mut okm = [0; 44];
    let info = [&b"modelseal/v1/device-grant\0"[..], salt, &Sha256::digest(terms), id].concat();
    Hkdf::<Sha256>::from_prk(key).unwrap().expand(&info, &mut okm).unwrap();
    okm
}

fn grant_bytes(body: &[u8]) -> Vec<u8> {
    [&b"\x89MSGRT\x1a\n\x01\0"[..], &(body.len() as u16).to_le_bytes(), body].concat()
}

fn validity() -> Vec<u8> {
    let mut bytes = Vec::new();
    varint(&mut bytes, VALIDITY.not_before);
    varint(&mut bytes, VALIDITY.not_after);
    bytes
}

fn hpke_grant(sealed: &Sealed, secret: &X25519Secret) -> UnsignedGrant {
    let unwrapped = unwrapped(sealed, ed25519(&sealed.signed), &publisher());
    let mut terms = Terms::new(&unwrapped, DeviceId::new(DEVICE).unwrap());
    terms.floor = 5;
    terms.validity = Some(VALIDITY);
    wrap_for_x25519(&unwrapped, &terms, &secret.public().unwrap(), &mut Replay(&count::<32>(0xd0))).unwrap()
}

/// DeriveKeyPair of RFC 9180, section 7.1.3.
fn derive_key_pair(ikm: &[u8; 32]) -> [u8; 32] {
    let suite = [&b"KEM"[..], &0x0020u16.to_be_bytes()].concat();
    let (_, dkp) = Hkdf::<Sha256>::extract(None, &[b"HPKE-v1", &suite[..], b"dkp_prk", ikm].concat());
    let mut secret = [0; 32];
    dkp.expand(&[&[0, 32][..], b"HPKE-v1", &suite, b"sk"].concat(), &mut secret).unwrap();
    secret
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    *blake3::hash(&[&[1][..], left, right].concat()).as_bytes()
}

fn grants_message(root: &[u8; 32]) -> Vec<u8> {
    [&b"modelseal/v1/grants\0"[..], root].concat()
}

fn grants_signature(root: &[u8; 32]) -> Signature {
    ed25519(&grants_message(root))
}

/// Two siblings, the second on the left; without its signature.
fn path() -> PathSignature {
    let siblings = [[0x11; 32], [0x22; 32]].into_iter().collect();
    PathSignature { signature: Signature::from_bytes(&[0; 64]), siblings, sides: 2 }
}

/// All steps of section 7.
fn opens(sealed: &Sealed, signature: Signature, publisher: &Publisher, grant: &[u8], secret: &Secret) {
    let file = file(sealed, &envelope(sealed, signature, sealed.unsigned.slots()));
    let header =
        Header::parse(&file[..Prefix::parse(file.first_chunk().unwrap()).unwrap().header_len()]).unwrap();
    let (layout, line) = (header.layout(), header.manifest().subject.line);
    let conditions = Conditions {
        line,
        device: DeviceId::new(DEVICE).unwrap(),
        now: Some(VALIDITY.not_before),
        floor: header.manifest().subject.version,
    };
    let request = Request::new(header, signature, Grant::parse(grant).unwrap());
    let named =
        request.verify_manifest(publisher).unwrap().authenticate(secret, publisher).unwrap().name(line);
    let unwrapped = named.unwrap().admit(&conditions).unwrap().unwrap(secret, &conditions).unwrap();
    let mut memory = file[layout.payload as usize..].to_vec();
    let tag = |i: u64| Ok(*file[layout.index as usize + 48 * i as usize..].first_chunk().unwrap());
    let opened = unwrapped.open_in_place(&mut memory, tag).unwrap();
    let model = if layout.length == 13 { b"hello, device".to_vec() } else { pattern(2060) };
    assert_eq!(opened.model(), model);
}
