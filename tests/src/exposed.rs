//! Every secret that the files of a workspace imply, for whoever has the passphrase: computed from the specification
//! and not by `modelseal-core`, but for the content key.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use argon2::{Argon2, Block, Params};
use curve25519_dalek::MontgomeryPoint;
use modelseal::open::SealedFile;
use modelseal_core::grant::{Grant, Wrapping};
use modelseal_hsm::{Location, Passphrase};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use crate::Workspace;
use crate::forge::{Parts, expand};
use crate::workspace::PASSPHRASE;

/// A secret and its name.
pub type Named = (String, Vec<u8>);

/// Master, fleet and publisher key, and the key of the vault's file, which opens as its own module says it is
/// written.
pub fn vault_keys(w: &Workspace, passphrase: &str) -> Vec<Named> {
    let file = w.json("vault.json");
    let (key, _) = argon2(&file, passphrase);
    let mut keys = hex(&file["keys"]);
    let tag: [u8; 16] = keys.split_off(keys.len() - 16).try_into().unwrap();
    let nonce: [u8; 12] = hex(&file["nonce"]).try_into().unwrap();
    let format = file["format"].as_str().unwrap().as_bytes();
    let cipher = Aes256Gcm::new(&key.into());
    cipher.decrypt_inout_detached(&nonce.into(), format, keys.as_mut_slice().into(), &tag.into()).unwrap();
    // A number of keys, then of each role, version, algorithm and 32 bytes.
    assert_eq!((keys[0], keys.len()), (3, 1 + 3 * 35));
    let each = keys[1..].chunks(35).map(|key| (format!("vault key {}", key[0]), key[3..].to_vec()));
    each.chain([("the vault's own key".into(), key.to_vec())]).collect()
}

/// What Argon2id makes of a passphrase, right or wrong: a key for the vault's file, and the last block of its memory,
/// from which the key follows.
pub fn passphrase_keys(w: &Workspace, passphrase: &str) -> [Vec<u8>; 2] {
    let (key, block) = argon2(&w.json("vault.json"), passphrase);
    [key.to_vec(), block]
}

fn argon2(file: &Value, passphrase: &str) -> ([u8; 32], Vec<u8>) {
    let number = |name: &str| file["kdf"][name].as_u64().unwrap() as u32;
    let params = Params::new(number("memory_kib"), number("passes"), number("lanes"), Some(32)).unwrap();
    let mut blocks = vec![Block::default(); params.block_count()];
    let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let (salt, mut key) = (hex(&file["kdf"]["salt"]), [0; 32]);
    argon.hash_password_into_with_memory(passphrase.as_bytes(), &salt, &mut key, &mut blocks).unwrap();
    let last: &[u64] = blocks.last().unwrap().as_ref();
    (key, last.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// What Ed25519 makes of its seed: the scalar and the prefix (RFC 8032, section 5.1.5).
pub fn expanded_seed(seed: &[u8]) -> Vec<u8> {
    Sha512::digest(seed).to_vec()
}

/// The content key of a sealed model.
pub fn content_key(w: &Workspace, sealed: &str) -> [u8; 32] {
    let location = Location::File(w.path("vault.json"));
    let passphrase = || Ok(Passphrase::new(PASSPHRASE.to_owned().into()));
    let vault = modelseal_hsm::open(&location, &passphrase).unwrap();
    let sealed = SealedFile::open(&w.path(sealed)).unwrap();
    *sealed.unwrap_by_vault(&*vault, None).unwrap().content_key().expose_to_vault()
}

/// What is derived from it: the key and the base nonce of the chunks.
pub fn payload_key(sealed: &[u8], length: usize, content_key: &[u8; 32]) -> Vec<u8> {
    let subject = &sealed[16..Parts::of(sealed, length).envelope - 64];
    let info = [b"modelseal/v1/payload\0", &Sha256::digest(subject)[..]].concat();
    expand::<44>(content_key, &info).to_vec()
}

/// What wraps the content key in a grant: the grant key and its nonce, or the shared secret of X25519.
pub fn grant_key(grant: &[u8], device: &[u8; 32]) -> Vec<u8> {
    let grant = Grant::parse(grant).unwrap();
    match grant.wrapping() {
        Wrapping::DeviceKey { salt, .. } => {
            let terms = Sha256::digest(postcard::to_allocvec(grant.terms()).unwrap());
            let id = grant.terms().model.as_bytes();
            let info = [b"modelseal/v1/device-grant\0", &salt[..], &terms[..], id].concat();
            expand::<44>(device, &info).to_vec()
        }
        Wrapping::Hpke { encapsulated, .. } => {
            MontgomeryPoint(encapsulated).mul_clamped(*device).to_bytes().to_vec()
        }
    }
}

fn hex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}
