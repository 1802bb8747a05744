//! Index, padding and payload, under a genuine header: changed, or forged with the content key.

use super::Case;
use super::make::{Model, Spec, encrypt, okm};
use super::scene::{Scene, Wrap, grant_bytes};
use crate::bench::swapped;
use crate::forge;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (suite, chunks, length) in
        [(1, "several", 4096 + 100), (2, "several", 3 * 1024), (2, "one", 600), (1, "one", 1024)]
    {
        let model = Spec { suite, length, ..Spec::default() }.seal();
        cases.extend(changed(&model, &format!("{chunks}-suite-{suite}")));
        cases.extend(forged(&model, &format!("{chunks}-suite-{suite}")));
    }
    cases.extend(moved());
    cases.extend(padding());
    cases.extend(wrongly_sealed());
    cases
}

/// As host, with a grant and with the vault; as device.
fn host(model: &Model, name: &str, comment: &str, refusal: (&str, u16)) -> Case {
    Scene::of(model.clone(), Wrap::DeviceKey).case(name, comment).refused(refusal.0, refusal.1)
}

fn vault(model: &Model, name: &str, comment: &str, refusal: (&str, u16)) -> Case {
    model.by_vault(&format!("{name}-vault"), comment, &[1], None).refused(refusal.0, refusal.1)
}

fn device(model: &Model, name: &str, comment: &str, refusal: (&str, u16)) -> Case {
    let scene = Scene::of(model.clone(), Wrap::DeviceKey).on_device();
    scene.case(format!("{name}-device"), comment).refused(refusal.0, refusal.1)
}

const INDEX: (&str, u16) = ("index", 334);
const CHUNK: (&str, u16) = ("chunk", 335);
const ROOT: (&str, u16) = ("root", 336);

fn changed(model: &Model, what: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let with_index = |at: usize| {
        let mut model = model.clone();
        model.index[at] ^= 1;
        model
    };
    let last = model.index.len() - 48;
    let mut places = vec![("first", 0), ("last", last)];
    places.dedup_by_key(|place| place.1);
    for (name, at) in places {
        let name = format!("index-{name}-{what}");
        let comment = "a bit of a chaining value";
        let value = with_index(at + 16);
        cases.push(host(&value, &format!("{name}-value"), comment, INDEX));
        cases.push(vault(&value, &format!("{name}-value"), comment, INDEX));
        cases.push(value.verified(&format!("{name}-value-verify"), comment).refused("index", 334));
        let tag = with_index(at + 15);
        cases.push(host(&tag, &format!("{name}-tag"), "a bit of a tag", CHUNK));
        cases.push(device(&tag, &format!("{name}-tag"), "a bit of a tag", CHUNK));
    }
    for (name, at) in [("first", 0), ("last", model.payload.len() - 1)] {
        let mut changed = model.clone();
        changed.payload[at] ^= 0x80;
        let name = format!("payload-{name}-{what}");
        let comment = "a bit of the ciphertext";
        cases.push(host(&changed, &name, comment, CHUNK));
        cases.push(vault(&changed, &name, comment, CHUNK));
        cases.push(device(&changed, &name, comment, CHUNK));
        cases.push(changed.verified(&format!("{name}-verify"), comment).refused("chunk", 335));
    }
    let (good, end) = (model.bytes(), model.offsets()[3]);
    let scene = Scene::of(model.clone(), Wrap::DeviceKey).on_device();
    let grant = grant_bytes(&scene.grant().concat());
    let name = format!("storage-short-{what}-device");
    let case = scene.case_with(name, "storage that ends within the payload", &good[..end - 1], &grant);
    cases.push(case.refused("shape", 301));
    cases
}

/// By who has the content key, as every licensed device does: tags and values are right.
fn forged(model: &Model, what: &str) -> Vec<Case> {
    let mut plain = model.plain.clone();
    plain[0] ^= 1;
    let (index, payload) = encrypt(model.subject(), &model.content, &plain);
    let whole = Model { index: index.clone(), payload: payload.clone(), ..model.clone() };
    let name = format!("forged-{what}");
    let comment = "another model under the content key: tags and chaining values are right, the root isn't";
    // The old chaining values, so that the index is that of the root, and the new tags.
    let mut mixed = whole.clone();
    for (entry, old) in mixed.index.chunks_mut(48).zip(model.index.chunks(48)) {
        entry[16..].copy_from_slice(&old[16..]);
    }
    let kept = "another model under the content key, with tags that are right and the chaining values that were sealed";
    vec![
        host(&whole, &name, comment, INDEX),
        vault(&whole, &name, comment, INDEX),
        whole.verified(&format!("{name}-verify"), comment).refused("index", 334),
        device(&whole, &name, comment, ROOT),
        host(&mixed, &format!("{name}-values-kept"), kept, CHUNK),
        device(&mixed, &format!("{name}-values-kept"), kept, ROOT),
    ]
}

/// Things in another's place.
fn moved() -> Vec<Case> {
    let model = Spec { length: 4096, ..Spec::default() }.seal();
    let entries = Model { index: swapped(&model.index, 0..48, 48..96), ..model.clone() };
    let values = Model { index: swapped(&model.index, 16..48, 112..144), ..model.clone() };
    let tags = Model { index: swapped(&model.index, 0..16, 48..64), ..model.clone() };
    let payload = swapped(&model.payload, 0..1024, 1024..2048);
    let chunks = Model { payload: payload.clone(), ..model.clone() };
    let both = Model { payload, ..entries.clone() };
    let other = Spec { version: 8, length: 4096, ..Spec::default() }.seal();
    let index_of = Model { index: other.index.clone(), ..model.clone() };
    let all_of = Model { payload: other.payload.clone(), ..index_of.clone() };
    let repeated = [&model.payload[..1024], &model.payload[..1024], &model.payload[2048..]].concat();
    let repeated = Model { payload: repeated, ..model.clone() };
    let (name, comment) = ("moved-both", "two chunks swapped, with their entries");
    vec![
        host(&entries, "moved-entries", "two entries swapped", INDEX),
        device(&entries, "moved-entries", "two entries swapped: their tags are", CHUNK),
        host(&values, "moved-values", "two chaining values swapped", INDEX),
        host(&tags, "moved-tags", "two tags swapped", CHUNK),
        device(&tags, "moved-tags", "two tags swapped", CHUNK),
        host(&chunks, "moved-chunks", "two chunks swapped", CHUNK),
        device(&chunks, "moved-chunks", "two chunks swapped", CHUNK),
        host(&both, name, comment, INDEX),
        device(&both, name, comment, CHUNK),
        host(&index_of, "moved-index-of-another", "the index of another model", INDEX),
        host(&all_of, "moved-payload-of-another", "index and payload of another model", INDEX),
        device(&all_of, "moved-payload-of-another", "index and payload of another model", CHUNK),
        host(&repeated, "moved-repeated", "the first chunk twice", CHUNK),
        device(&repeated, "moved-repeated", "the first chunk twice", CHUNK),
    ]
}

fn padding() -> Vec<Case> {
    let model = Spec { align_log2: 8, ..Spec::default() }.seal();
    let [_, padding, payload, _] = model.offsets();
    let scene = Scene::of(model.clone(), Wrap::DeviceKey);
    let grant = grant_bytes(&scene.grant().concat());
    let mut cases = Vec::new();
    for (name, at) in [("first", padding), ("last", payload - 1)] {
        let mut bytes = model.bytes();
        bytes[at] = 1;
        let comment = "a byte other than 0 before the payload";
        let case = scene.case_with(format!("padding-{name}"), comment, &bytes, &grant);
        cases.push(case.refused("shape", 312));
        let case = model.verified(&format!("padding-{name}-verify"), comment).sealed(&bytes);
        cases.push(case.refused("shape", 312));
        let case = model.by_vault(&format!("padding-{name}-vault"), comment, &[1], None).sealed(&bytes);
        cases.push(case.refused("shape", 312));
    }
    cases
}

/// Signed by a publisher that seals wrongly.
fn wrongly_sealed() -> Vec<Case> {
    let model = Spec::default().seal();
    let with_root = |root: &[u8], index: &[u8]| {
        let manifest = [&model.manifest[..model.manifest.len() - 32], root].concat();
        Model { index: index.to_vec(), ..model.with_manifest(&manifest) }
    };
    // All chaining values as if at offset 0.
    let mut at_0 = model.index.clone();
    for (entry, chunk) in at_0.chunks_mut(48).zip(model.payload.chunks(1024)) {
        use blake3::hazmat::HasherExt;
        entry[16..].copy_from_slice(&blake3::Hasher::new().update(chunk).finalize_non_root());
    }
    let offsets = with_root(&forge::root(&at_0), &at_0);
    let of_plain = with_root(blake3::hash(&model.plain).as_bytes(), &model.index);
    // Chunk numbers from 1.
    let okm = okm(&model.content, model.subject());
    let (mut index, mut payload) = (model.index.clone(), model.plain.clone());
    for (i, chunk) in payload.chunks_mut(1024).enumerate() {
        let mut nonce: [u8; 12] = okm[32..44].try_into().unwrap();
        nonce[11] ^= i as u8 + 1;
        let tag = forge::encrypt(1, &okm[..32], &nonce, chunk);
        use blake3::hazmat::HasherExt;
        let value = blake3::Hasher::new().set_input_offset(i as u64 * 1024).update(chunk).finalize_non_root();
        index[i * 48..][..48].copy_from_slice(&[&tag[..], &value].concat());
    }
    let mut counted = with_root(blake3::hash(&payload).as_bytes(), &index);
    counted.payload = payload;
    // A single chunk's value is the root, and not the value of a subtree.
    let one = Spec { length: 500, ..Spec::default() }.seal();
    let mut subtree = one.index.clone();
    {
        use blake3::hazmat::HasherExt;
        subtree[16..].copy_from_slice(&blake3::Hasher::new().update(&one.payload).finalize_non_root());
    }
    let subtree = Model { index: subtree, ..one };
    vec![
        host(&offsets, "sealed-offsets", "a root over chaining values at offset 0", CHUNK),
        device(&offsets, "sealed-offsets", "a root over chaining values at offset 0", ROOT),
        host(&of_plain, "sealed-root-of-plaintext", "a root over the plaintext", INDEX),
        device(&of_plain, "sealed-root-of-plaintext", "a root over the plaintext", ROOT),
        host(&counted, "sealed-counter", "nonces counted from 1", CHUNK),
        device(&counted, "sealed-counter", "nonces counted from 1", CHUNK),
        host(
            &subtree,
            "index-one-subtree",
            "a single chunk with the value of a subtree, not the root",
            INDEX,
        ),
    ]
}
