//! The format over again, written from its specification and not from `modelseal-core`: what is the same whoever makes
//! it. `tests/fuzz` compiles this file, too, so that it needs few crates. [`forge`](super::forge) has the rest.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

/// Where the parts of a sealed model are.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Where the manifest ends and the envelope begins.
    pub envelope: usize,
    /// Where the index begins.
    pub index: usize,
    /// Where the padding begins.
    pub padding: usize,
    /// Where the payload begins.
    pub payload: usize,
    /// Length of a chunk.
    pub chunk: usize,
}

impl Parts {
    /// Reads the offsets of a genuine sealed model that holds `length` bytes.
    pub fn of(sealed: &[u8], length: usize) -> Self {
        let envelope = 16 + usize::from(u16::from_le_bytes([sealed[10], sealed[11]]));
        let index = envelope + u32::from_le_bytes(sealed[12..16].try_into().unwrap()) as usize;
        let chunk = 1 << sealed[17];
        let padding = index + 48 * length.div_ceil(chunk);
        Self { envelope, index, padding, payload: sealed.len() - length, chunk }
    }
}

/// Encrypts a payload with a content key: index and payload, all tags and all values valid.
pub fn payload(sealed: &[u8], parts: Parts, content_key: &[u8; 32], model: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let okm = payload_keys(sealed, parts, content_key);
    let (mut tags, mut payload) = (Vec::new(), model.to_vec());
    for (i, chunk) in payload.chunks_mut(parts.chunk).enumerate() {
        let mut nonce: [u8; 12] = okm[32..44].try_into().unwrap();
        nonce.iter_mut().zip((i as u128).to_be_bytes()[4..].iter()).for_each(|(a, b)| *a ^= b);
        tags.push(encrypt(sealed[16], &okm[..32], &nonce, chunk));
    }
    let entries = tags.iter().zip(values(&payload, parts.chunk));
    let index = entries.flat_map(|(tag, value)| [&tag[..], &value].concat()).collect();
    (index, payload)
}

/// `payload_key[32] || base_nonce[12] || commitment[32]`
pub fn payload_keys(sealed: &[u8], parts: Parts, content_key: &[u8; 32]) -> [u8; 76] {
    let subject = &sealed[16..parts.envelope - 64];
    expand(content_key, &[b"modelseal/v1/payload\0", &Sha256::digest(subject)[..]].concat())
}

/// The chaining values of a payload.
pub fn values(payload: &[u8], chunk: usize) -> Vec<[u8; 32]> {
    if payload.len() <= chunk {
        return vec![*blake3::hash(payload).as_bytes()];
    }
    let value = |(i, ciphertext): (usize, &[u8])| {
        let offset = (i * chunk) as u64;
        blake3::Hasher::new().set_input_offset(offset).update(ciphertext).finalize_non_root()
    };
    payload.chunks(chunk).enumerate().map(value).collect()
}

/// The root of an index, by BLAKE3's recursive definition.
pub fn root(index: &[u8]) -> [u8; 32] {
    let values: Vec<[u8; 32]> = index.chunks(48).map(|entry| entry[16..].try_into().unwrap()).collect();
    match values.len() {
        1 => values[0],
        n => {
            let (left, right) = values.split_at(n.next_power_of_two() / 2);
            *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    }
}

fn subtree(values: &[[u8; 32]]) -> [u8; 32] {
    match values.len() {
        1 => values[0],
        n => {
            let (left, right) = values.split_at(n.next_power_of_two() / 2);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// A grant for the holder of `device_key`, with any terms.
pub fn device_grant(device_key: &[u8; 32], id: &[u8; 32], terms: &[u8], content_key: &[u8; 32]) -> Vec<u8> {
    let salt = [7; 32];
    let okm = grant_key(device_key, &salt, terms, id);
    let mut ciphertext = *content_key;
    let tag = encrypt(terms[0], &okm[..32], &okm[32..].try_into().unwrap(), &mut ciphertext);
    let body = [terms, &[0], &salt, &ciphertext, &tag, &[0]].concat();
    let length = u16::try_from(body.len()).unwrap().to_le_bytes();
    [b"\x89MSGRT\x1a\n\x01\0", &length[..], &body].concat()
}

/// `grant_key[32] || nonce[12]`
pub fn grant_key(device_key: &[u8; 32], salt: &[u8; 32], terms: &[u8], id: &[u8; 32]) -> [u8; 44] {
    let info = [b"modelseal/v1/device-grant\0", &salt[..], &Sha256::digest(terms)[..], id].concat();
    expand(device_key, &info)
}

/// The terms of a grant: suite, model id, device, floor, validity; every number below 128 but the validity's.
pub fn terms(suite: u8, id: &[u8; 32], device: &str, floor: u8, validity: Option<(u64, u64)>) -> Vec<u8> {
    let device = [&[device.len() as u8], device.as_bytes()].concat();
    [&[suite], &id[..], &device, &[floor], &postcard::to_allocvec(&validity).unwrap()].concat()
}

/// `BLAKE3("modelseal/v1/manifest\0" || bytes 0 .. 16+M)`
pub fn model_id(sealed: &[u8], parts: Parts) -> [u8; 32] {
    *blake3::hash(&signed_bytes(sealed, parts)).as_bytes()
}

/// What the publisher signs.
pub fn signed_bytes(sealed: &[u8], parts: Parts) -> Vec<u8> {
    [b"modelseal/v1/manifest\0", &sealed[..parts.envelope]].concat()
}

/// A suite's AEAD, without additional data: encrypts in place and gives the tag.
pub fn encrypt(suite: u8, key: &[u8], nonce: &[u8; 12], data: &mut [u8]) -> [u8; 16] {
    let key: &[u8; 32] = key.try_into().unwrap();
    let (nonce, data) = (nonce.into(), data.into());
    let tag = match suite {
        1 => Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce, &[], data).unwrap(),
        2 => ChaCha20Poly1305::new(key.into()).encrypt_inout_detached(nonce, &[], data).unwrap(),
        _ => panic!("suite {suite}"),
    };
    tag.into()
}

pub(crate) fn expand<const N: usize>(prk: &[u8; 32], info: &[u8]) -> [u8; N] {
    let mut okm = [0; N];
    Hkdf::<Sha256>::from_prk(prk).unwrap().expand(info, &mut okm).unwrap();
    okm
}
