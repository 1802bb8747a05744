//! The format over again, written from its specification and not from `modelseal-core`: what an attacker can
//! make who knows the format and holds a content key or a device key. That the genuine parts come out byte for
//! byte is tested, too, so that a forgery is refused for the reason that it should be.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use curve25519_dalek::montgomery::MontgomeryPoint;
use hkdf::Hkdf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as X25519;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use rand_core::CryptoRng;
use serde_json::json;
use sha2::Sha256;

pub(crate) use crate::format::expand;
pub use crate::format::*;

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
) -> [u8; 128] {
    let aad = [&b"modelseal/v1/content-key\0"[..], id].concat();
    let mut ciphertext = *content_key;
    let data = ciphertext.as_mut_slice().into();
    let tag = Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce.into(), &aad, data).unwrap();
    slot_of(version, 1, &[&nonce[..], &ciphertext, &tag].concat())
}

/// A slot of any kind.
pub fn slot_of(version: u32, kind: u8, value: &[u8]) -> [u8; 128] {
    let length = u8::try_from(value.len()).unwrap();
    let mut slot = [&version.to_le_bytes()[..], &[kind, length, 0, 0], value].concat();
    slot.resize(128, 0);
    slot.try_into().unwrap()
}

/// The master key of a vault file of this forge.
pub fn master_key(version: u32) -> [u8; 32] {
    blake3::derive_key("modelseal tests: master key", &version.to_le_bytes())
}

/// The fleet key of every vault file of this forge.
pub const FLEET_KEY: [u8; 32] = [0xf1; 32];

/// The publisher's key of every vault file of this forge.
pub fn publisher_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[0x51; 32])
}

/// A vault file with master keys of these versions, one fleet and one publisher key. A file says itself what its
/// passphrase costs: here, next to nothing.
pub fn vault_file(passphrase: &str, masters: &[u32]) -> String {
    let others = [(2u8, 1u32, 1u8, FLEET_KEY), (3, 1, 2, publisher_key().to_bytes())];
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
