//! Makes seeds: `cargo run --example seeds -- ../vectors/cases corpus`. They are the parts of the conformance vectors
//! and of the scene, and a few texts.

use std::path::Path;

use base64ct::{Base64, Encoding};
use modelseal_fuzz::{scene, vault};

fn main() {
    let mut args = std::env::args().skip(1);
    let (cases, out) =
        (args.next().expect("the vectors' folder"), args.next().expect("the corpora's folder"));
    let keep = |target: &str, bytes: &[u8]| {
        let dir = Path::new(&out).join(target);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(blake3::hash(bytes).to_string()), bytes).unwrap();
    };
    for case in std::fs::read_dir(cases).unwrap() {
        let case = std::fs::read(case.unwrap().path()).unwrap();
        let case: serde_json::Value = serde_json::from_slice(&case).unwrap();
        let part = |name: &str| case[name].as_str().map(|text| Base64::decode_vec(text).unwrap());
        part("sealed").iter().for_each(|sealed| keep_sealed(sealed, &keep));
        part("grant").iter().for_each(|grant| keep_grant(grant, &keep));
    }
    for genuine in scene::models() {
        keep_sealed(&genuine.sealed, &keep);
        genuine.grants.iter().for_each(|grant| {
            keep_grant(grant, &keep);
            keep("board_grant", &delivery(genuine.sealed.len() as u64, grant));
            keep("board_update", &update(&genuine.sealed, grant));
        });
    }
    for text in URIS {
        keep("uri", text.as_bytes());
    }
    keep("vault_file", &vault::genuine_keys());
    keep("vault_file", &vault::file(vault::FORMATS[0], &vault::genuine_keys()));
}

const URIS: [&str; 5] = [
    "file:vault.json",
    "pkcs11:token=my%20models;serial=0a;manufacturer=x?module-path=/usr/lib/a.so&pin-source=file:/run/pin",
    "pkcs11:manufacturer=SoftHSM%20project;model=v2;object=a;type=private;id=%01?pin-source=file:///pin",
    "pkcs11:serial=1;slot-id=3;library-version=2.1;x-vendor=1?module-name=softhsm2",
    "pkcs11:token=a?pin-value=1",
];

/// What is longer adds nothing but length.
const SEALED_MAX: usize = 4096;

fn keep_sealed(sealed: &[u8], keep: &impl Fn(&str, &[u8])) {
    if sealed.len() > SEALED_MAX {
        return;
    }
    keep("sealed", sealed);
    let length =
        |at: usize| sealed.get(at..at + 2).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    let (Some(manifest), Some(envelope)) = (length(10), length(12)) else { return };
    let parts = sealed.get(16..16 + manifest).zip(sealed.get(16 + manifest..16 + manifest + envelope));
    if let Some((manifest, envelope)) = parts {
        keep("manifest", manifest);
        keep("envelope", envelope);
    }
}

fn keep_grant(grant: &[u8], keep: &impl Fn(&str, &[u8])) {
    keep("grant", grant);
    keep("board_grant", &delivery(2612, grant));
}

/// What a board is given: its surroundings, in which it is to run, and what was delivered.
fn delivery(sealed_len: u64, grant: &[u8]) -> Vec<u8> {
    let surroundings = postcard::to_allocvec(&(Some(scene::NOW), 0)).unwrap();
    let delivery = postcard::to_allocvec(&(sealed_len, grant)).unwrap();
    [encoded(b"\x89MSENV\x1a\n", &surroundings), encoded(b"\x89MSDLV\x1a\n", &delivery)].concat()
}

/// Everything that a sender says who is never answered: kinds of request and of part by their numbers.
fn update(sealed: &[u8], grant: &[u8]) -> Vec<u8> {
    let delivered = encoded(b"\x89MSDLV\x1a\n", &postcard::to_allocvec(&(sealed.len() as u64, grant)).unwrap());
    let mut said = postcard::to_allocvec(&(0u8, Some(sealed.len() as u32))).unwrap();
    for (part, bytes) in [(0u8, sealed), (1u8, &delivered[..])] {
        for (offset, piece) in (0u32..).step_by(256).zip(bytes.chunks(256)) {
            said.extend(postcard::to_allocvec(&(2u8, part, offset, piece)).unwrap());
        }
    }
    said.push(3);
    said
}

fn encoded(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    [&magic[..], &(body.len() as u16).to_le_bytes(), body].concat()
}
