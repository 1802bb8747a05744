//! Files of software vaults, made without `modelseal-hsm`, with a key derivation that costs next to nothing.

use std::sync::OnceLock;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use argon2::{Algorithm, Argon2, Params, Version};
use modelseal_core::grant::DeviceId;
use modelseal_hsm::{Error, Location, Passphrase, Vault};

const PASSPHRASE: &str = "fuzzing";
const SALT: [u8; 16] = [5; 16];
const NONCE: [u8; 12] = [6; 12];

/// The formats of vault files: without retired keys, and with some.
pub const FORMATS: [&str; 2] = ["modelseal vault 1", "modelseal vault 2"];

/// A vault file that holds `keys`, which are whatever they are.
pub fn file(format: &str, keys: &[u8]) -> Vec<u8> {
    static CIPHER: OnceLock<Aes256Gcm> = OnceLock::new();
    let cipher = CIPHER.get_or_init(|| {
        let mut key = [0; 32];
        let argon2 =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, Some(32)).unwrap());
        argon2.hash_password_into(PASSPHRASE.as_bytes(), &SALT, &mut key).unwrap();
        Aes256Gcm::new(&key.into())
    });
    let mut encrypted = keys.to_vec();
    let buffer = encrypted.as_mut_slice().into();
    let tag = cipher.encrypt_inout_detached(&NONCE.into(), format.as_bytes(), buffer).unwrap();
    encrypted.extend(tag);
    let kdf = serde_json::json!({ "memory_kib": 8, "passes": 1, "lanes": 1, "salt": hex::encode(SALT) });
    let file = serde_json::json!({
        "format": format, "kdf": kdf, "nonce": hex::encode(NONCE), "keys": hex::encode(encrypted),
    });
    serde_json::to_vec_pretty(&file).unwrap()
}

/// One key of each role, encoded: role, version, algorithm, key.
pub fn genuine_keys() -> Vec<u8> {
    let keys = [[1, 1, 1], [2, 1, 1], [3, 1, 2], [3, 2, 3]];
    std::iter::once(4).chain(keys.into_iter().flat_map(|name| name.into_iter().chain([7; 32]))).collect()
}

/// Opens a vault file.
pub fn open(file: &[u8]) -> Result<Box<dyn Vault>, Error> {
    let passphrase = || Ok(Passphrase::new(String::from(PASSPHRASE).into()));
    modelseal_hsm::open(&Location::File(crate::file(file)), &passphrase)
}

/// Everything about a vault's keys that it gives out and that is the same each time.
pub fn keys_of(vault: &dyn Vault) -> impl PartialEq + std::fmt::Debug + use<> {
    let device = DeviceId::new("Kitchen-7").unwrap();
    let keys = vault.keys().unwrap();
    let public: Vec<_> = keys.iter().map(|key| vault.publisher_key(key.version).ok()).collect();
    let device: Vec<_> = keys
        .iter()
        .map(|key| vault.device_key(device, key.version).ok().map(|key| *key.expose_to_factory()))
        .collect();
    (keys, public, device)
}

/// What the file asks of Argon2id: memory in KiB, passes, lanes.
pub fn cost(file: &[u8]) -> Option<[u64; 3]> {
    let file: serde_json::Value = serde_json::from_slice(file).ok()?;
    let number = |name| file["kdf"][name].as_u64();
    Some([number("memory_kib")?, number("passes")?, number("lanes")?])
}
