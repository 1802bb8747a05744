//! The format over again, written from its specification and not from `modelseal-core`: what an attacker can
//! make who knows the format and holds a content key or a device key. That the genuine parts come out byte for
//! byte is tested, too, so that a forgery is refused for the reason that it should be.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use chacha20poly1305::ChaCha20Poly1305;
use curve25519_dalek::montgomery::MontgomeryPoint;
use hkdf::Hkdf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as X25519;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use rand_core::CryptoRng;
use serde_json::json;
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

/// A grant for the holder of the X25519 key `public`, with any terms, signed alone by `sign`.
pub fn hpke_grant(
    public: &[u8; 32],
    id: &[u8; 32],
    terms: &[u8],
    content_key: &[u8; 32],
    rng: &mut impl CryptoRng,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Vec<u8> {
    let mut ciphertext = *content_key;
    let (encapsulated, tag) = hpke_seal(terms[0], public, id, terms, &mut ciphertext, rng);
    let wrapping = [&[1], &encapsulated[..], &ciphertext, &tag].concat();
    let leaf = blake3::hash(&[&[0], terms, &wrapping].concat());
    let signature = sign(&[b"modelseal/v1/grants\0", &leaf.as_bytes()[..]].concat());
    let body = [terms, &wrapping, &[1], &signature, &[0, 0]].concat();
    let length = u16::try_from(body.len()).unwrap().to_le_bytes();
    [b"\x89MSGRT\x1a\n\x01\0", &length[..], &body].concat()
}

pub(crate) fn hpke_seal(
    suite: u8,
    public: &[u8; 32],
    id: &[u8; 32],
    terms: &[u8],
    content: &mut [u8; 32],
    rng: &mut impl CryptoRng,
) -> ([u8; 32], [u8; 16]) {
    match suite {
        1 => hpke_seal_with::<hpke::aead::AesGcm256>(public, id, terms, content, rng),
        2 => hpke_seal_with::<hpke::aead::ChaCha20Poly1305>(public, id, terms, content, rng),
        _ => panic!("suite {suite}"),
    }
}

fn hpke_seal_with<A: hpke::aead::Aead>(
    public: &[u8; 32],
    id: &[u8; 32],
    terms: &[u8],
    content: &mut [u8; 32],
    rng: &mut impl CryptoRng,
) -> ([u8; 32], [u8; 16]) {
    let public = <X25519 as Kem>::PublicKey::from_bytes(public).unwrap();
    let info = [&b"modelseal/v1/hpke-grant\0"[..], id].concat();
    let data = content.as_mut_slice().into();
    let sealed = hpke::single_shot_seal_inout_detached_with_rng::<A, HkdfSha256, X25519>(
        &OpModeS::Base,
        &public,
        &info,
        data,
        terms,
        rng,
    );
    let (encapsulated, tag) = sealed.unwrap();
    let mut bytes = ([0; 32], [0; 16]);
    encapsulated.write_exact(&mut bytes.0);
    tag.write_exact(&mut bytes.1);
    bytes
}

/// A key slot: the content key under a master key.
pub fn slot(
    version: u32,
    key: &[u8; 32],
    nonce: &[u8; 12],
    id: &[u8; 32],
    content_key: &[u8; 32],
) -> [u8; 64] {
    let aad = [&b"modelseal/v1/content-key\0"[..], id].concat();
    let mut ciphertext = *content_key;
    let data = ciphertext.as_mut_slice().into();
    let tag = Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce.into(), &aad, data).unwrap();
    [&version.to_le_bytes()[..], nonce, &ciphertext, &tag].concat().try_into().unwrap()
}

/// The master key of a vault file of this forge.
pub fn master_key(version: u32) -> [u8; 32] {
    blake3::derive_key("modelseal tests: master key", &version.to_le_bytes())
}

/// The publisher's key of every vault file of this forge.
pub fn publisher_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[0x51; 32])
}

/// A vault file with master keys of these versions, one fleet and one publisher key. A file says itself what its
/// passphrase costs: here, next to nothing.
pub fn vault_file(passphrase: &str, masters: &[u32]) -> String {
    let others = [(2u8, 1u32, 1u8, [0xf1; 32]), (3, 1, 2, publisher_key().to_bytes())];
    let masters = masters.iter().map(|version| (1, *version, 1, master_key(*version)));
    let mut keys = postcard::to_allocvec(&masters.chain(others).collect::<Vec<_>>()).unwrap();
    let (salt, nonce, mut key) = ([0x5a; 16], [0u8; 12], [0; 32]);
    let argon = argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        argon2::Params::new(8, 1, 1, Some(32)).unwrap(),
    );
    argon.hash_password_into(passphrase.as_bytes(), &salt, &mut key).unwrap();
    let format = "modelseal vault 1";
    let data = keys.as_mut_slice().into();
    let cipher = Aes256Gcm::new((&key).into());
    let tag = cipher.encrypt_inout_detached(&nonce.into(), format.as_bytes(), data).unwrap();
    keys.extend(tag);
    let kdf = json!({ "memory_kib": 8, "passes": 1, "lanes": 1, "salt": hex::encode(salt) });
    json!({ "format": format, "kdf": kdf, "nonce": hex::encode(nonce), "keys": hex::encode(keys) })
        .to_string()
}

/// `grant_key[32] || nonce[12]`
pub fn grant_key(device_key: &[u8; 32], salt: &[u8; 32], terms: &[u8], id: &[u8; 32]) -> [u8; 44] {
    let info = [b"modelseal/v1/device-grant\0", &salt[..], &Sha256::digest(terms)[..], id].concat();
    expand(device_key, &info)
}

/// What RFC 9180 computes on the way from an X25519 secret to a content key.
pub struct HpkeKeys {
    /// The result of Diffie-Hellman.
    pub dh: [u8; 32],
    /// The shared secret.
    pub shared: [u8; 32],
    /// The AEAD's key.
    pub key: [u8; 32],
    /// The AEAD's nonce, which is no secret.
    pub nonce: [u8; 12],
}

/// `model` is the id that HPKE's `info` has.
pub fn hpke_keys(suite: u8, secret: &[u8; 32], encapsulated: &[u8; 32], model: &[u8; 32]) -> HpkeKeys {
    let public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
    let dh = MontgomeryPoint(*encapsulated).mul_clamped(*secret).to_bytes();
    // DHKEM(X25519, HKDF-SHA256) is 0x0020, HKDF-SHA256 0x0001; AES-256-GCM is 2, ChaCha20-Poly1305 3.
    let kem = b"KEM\0\x20";
    let all = [b"HPKE\0\x20\0\x01\0", &[suite + 1][..]].concat();
    let eae = labeled_extract(kem, &[], b"eae_prk", &dh);
    let shared = labeled_expand(kem, &eae, b"shared_secret", &[&encapsulated[..], &public].concat());
    let info = [b"modelseal/v1/hpke-grant\0", &model[..]].concat();
    let psk = labeled_extract(&all, &[], b"psk_id_hash", &[]);
    let info = labeled_extract(&all, &[], b"info_hash", &info);
    let secret = labeled_extract(&all, &shared, b"secret", &[]);
    let context = [&[0], &psk[..], &info].concat();
    let key = labeled_expand(&all, &secret, b"key", &context);
    let nonce = labeled_expand(&all, &secret, b"base_nonce", &context);
    HpkeKeys { dh, shared, key, nonce }
}

fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> [u8; 32] {
    let ikm = [b"HPKE-v1", suite, label, ikm].concat();
    Hkdf::<Sha256>::extract(Some(salt), &ikm).0.into()
}

fn labeled_expand<const N: usize>(suite: &[u8], prk: &[u8; 32], label: &[u8], info: &[u8]) -> [u8; N] {
    let length = u16::try_from(N).unwrap().to_be_bytes();
    expand(prk, &[&length[..], b"HPKE-v1", suite, label, info].concat())
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
