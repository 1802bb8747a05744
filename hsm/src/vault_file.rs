//! The file of a software vault, as bytes: nothing here reads, writes or decrypts anything.
//!
//! ```text
//! { "format": "modelseal vault 1",
//!   "kdf":   { "memory_kib": 32768, "passes": 3, "lanes": 1, "salt": hex }     Argon2id (RFC 9106)
//!   "nonce": hex,
//!   "keys":  hex }                                                            AES-256-GCM of the keys, postcard
//! ```
//!
//! Once a key is retired the format is `modelseal vault 2`, and after the keys stand the names of those that are: a
//! program that doesn't know of retirement must not open it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::vault::{Algorithm, Key, Role};

/// Also the additional data of the encrypted keys.
pub(crate) const FORMAT: &str = "modelseal vault 1";
/// The same where keys are retired.
pub(crate) const FORMAT_RETIRED: &str = "modelseal vault 2";
/// Longest file in bytes: far more than a vault of any age needs.
pub(crate) const FILE_MAX: usize = 1 << 20;
/// A file that asks for more than this is refused before any memory is taken.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 8;

/// A vault file of the right shape, whose key derivation is affordable.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VaultFile {
    format: String,
    pub(crate) kdf: Kdf,
    #[serde(with = "hex::serde")]
    pub(crate) nonce: [u8; 12],
    #[serde(with = "hex::serde")]
    pub(crate) keys: Vec<u8>,
}

impl VaultFile {
    pub(crate) fn new(format: &str, kdf: Kdf, nonce: [u8; 12], keys: Vec<u8>) -> Self {
        Self { format: format.into(), kdf, nonce, keys }
    }

    pub(crate) fn format(&self) -> &str {
        &self.format
    }

    /// Reads a file and checks every bound.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > FILE_MAX {
            return None;
        }
        let file: Self = serde_json::from_slice(text).ok()?;
        let known = [FORMAT, FORMAT_RETIRED].contains(&file.format.as_str());
        (known && file.kdf.is_bounded()).then_some(file)
    }

    /// Writes it.
    pub(crate) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// What Argon2id is run with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kdf {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    #[serde(with = "hex::serde")]
    pub(crate) salt: [u8; 16],
}

impl Kdf {
    /// A third of RFC 9106's second choice, so that a vault opens within 64 MiB.
    pub(crate) fn new(salt: [u8; 16]) -> Self {
        Self { memory_kib: 32 * 1024, passes: 3, lanes: 1, salt }
    }

    fn is_bounded(&self) -> bool {
        let capped =
            self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX && self.lanes <= LANES_MAX;
        capped && self.params().is_ok()
    }

    pub(crate) fn params(&self) -> Result<argon2::Params, argon2::Error> {
        argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
    }
}

/// A key as it stands in the file. The numbers are the file's.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct StoredKey {
    role: u8,
    version: u32,
    algorithm: u8,
    pub(crate) key: [u8; 32],
}

impl StoredKey {
    pub(crate) fn new(name: Key, key: [u8; 32]) -> Self {
        Self {
            role: role_number(name.role),
            version: name.version,
            algorithm: algorithm_number(name.algorithm),
            key,
        }
    }

    /// A second one of the same key. What a vector of keys gives back when it grows isn't wiped, so another vector gets
    /// copies, and the first is dropped whole.
    pub(crate) fn copy(&self) -> Self {
        Self { role: self.role, version: self.version, algorithm: self.algorithm, key: self.key }
    }

    /// The key's name; `None` for numbers that don't name a key, or name one that its role can't use.
    pub(crate) fn name(&self) -> Option<Key> {
        let role = role_of(self.role)?;
        let algorithms: &[Algorithm] = match role {
            Role::Master | Role::Fleet => &[Algorithm::Aes256],
            Role::Publisher => &[Algorithm::Ed25519, Algorithm::EcdsaP256],
        };
        let algorithm = *algorithms.iter().find(|a| algorithm_number(**a) == self.algorithm)?;
        (self.version != 0).then_some(Key { role, version: self.version, algorithm })
    }

    /// Any 32 bytes are an AES or an Ed25519 key; one in 2^32 isn't a P-256 scalar.
    pub(crate) fn is_usable(&self) -> bool {
        self.name().is_some_and(|name| {
            name.algorithm != Algorithm::EcdsaP256 || p256::ecdsa::SigningKey::from_slice(&self.key).is_ok()
        })
    }
}

const fn role_number(role: Role) -> u8 {
    match role {
        Role::Master => 1,
        Role::Fleet => 2,
        Role::Publisher => 3,
    }
}

const fn algorithm_number(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Aes256 => 1,
        Algorithm::Ed25519 => 2,
        Algorithm::EcdsaP256 => 3,
    }
}

/// Everything that a vault file keeps secret.
pub(crate) struct Stock {
    pub(crate) keys: Vec<StoredKey>,
    /// In ascending order.
    pub(crate) retired: Vec<(Role, u32)>,
}

impl Stock {
    /// The format that can hold it.
    pub(crate) fn format(&self) -> &'static str {
        if self.retired.is_empty() { FORMAT } else { FORMAT_RETIRED }
    }

    /// Encodes it, to be encrypted.
    pub(crate) fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let keys = encode_keys(&self.keys)?;
        if self.retired.is_empty() {
            return Some(keys);
        }
        let names: Vec<_> =
            self.retired.iter().map(|(role, version)| (role_number(*role), *version)).collect();
        let names = postcard::to_allocvec(&names).ok()?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(keys.len() + names.len()));
        bytes.extend_from_slice(&keys);
        bytes.extend_from_slice(&names);
        Some(bytes)
    }

    /// Decodes what was decrypted. Each format has one encoding of each stock.
    pub(crate) fn decode(format: &str, bytes: &[u8]) -> Option<Self> {
        if format == FORMAT {
            return Some(Self { keys: decode_keys(bytes)?, retired: Vec::new() });
        }
        let (_, names) = postcard::take_from_bytes::<Vec<StoredKey>>(bytes).ok()?;
        let keys = decode_keys(bytes.strip_suffix(names)?)?;
        let names: Vec<(u8, u32)> = postcard::from_bytes(names).ok()?;
        let retired: Option<Vec<_>> = names.into_iter().map(|(role, v)| Some((role_of(role)?, v))).collect();
        let stock = Self { keys, retired: retired? };
        let canonical = *stock.encode()? == *bytes && stock.format() == format;
        (canonical && stock.is_sound()).then_some(stock)
    }

    /// The newest key of a role isn't retired.
    fn is_sound(&self) -> bool {
        let older = |(role, version): &(Role, u32)| {
            self.versions(*role).any(|v| v == *version) && self.versions(*role).any(|v| v > *version)
        };
        self.retired.is_sorted_by(|a, b| a < b) && self.retired.iter().all(older)
    }

    /// The versions of a role's keys.
    pub(crate) fn versions(&self, role: Role) -> impl Iterator<Item = u32> {
        let names = self.keys.iter().filter_map(StoredKey::name);
        names.filter(move |name| name.role == role).map(|name| name.version)
    }
}

fn role_of(number: u8) -> Option<Role> {
    Role::ALL.into_iter().find(|role| role_number(*role) == number)
}

/// Decodes the decrypted keys: the canonical encoding, of usable keys, each role and version once.
fn decode_keys(bytes: &[u8]) -> Option<Vec<StoredKey>> {
    let keys: Vec<StoredKey> = postcard::from_bytes(bytes).ok()?;
    // Postcard alone accepts over-long varints and trailing bytes.
    let canonical = **encode_keys(&keys)? == *bytes;
    let names: BTreeSet<(u8, u32)> = keys.iter().map(|key| (key.role, key.version)).collect();
    let sound = names.len() == keys.len() && keys.iter().all(StoredKey::is_usable);
    (canonical && sound).then_some(keys)
}

/// Encodes keys, to be encrypted.
fn encode_keys(keys: &[StoredKey]) -> Option<Zeroizing<Vec<u8>>> {
    // Sized once: a buffer that grew would leave keys in memory that was given back.
    let size = postcard::experimental::serialized_size(keys).ok()?;
    let mut bytes = Zeroizing::new(vec![0; size]);
    postcard::to_slice(keys, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: (u8, u32, u8) = (1, 1, 1);

    /// Four keys, good ones unless `edit` makes them bad.
    fn keys(edit: impl FnOnce(&mut Vec<StoredKey>)) -> Vec<u8> {
        let names = [MASTER, (2, 1, 1), (3, 1, 2), (3, 2, 3)];
        let mut keys = names.map(|(role, version, algorithm)| key(role, version, algorithm)).into();
        edit(&mut keys);
        encode_keys(&keys).unwrap().to_vec()
    }

    fn key(role: u8, version: u32, algorithm: u8) -> StoredKey {
        StoredKey { role, version, algorithm, key: [7; 32] }
    }

    #[test]
    fn good_keys_come_back() {
        for bytes in [keys(|_| ()), keys(Vec::clear), keys(|keys| keys[0].version = u32::MAX)] {
            assert_eq!(**encode_keys(&decode_keys(&bytes).unwrap()).unwrap(), bytes);
        }
    }

    #[test]
    fn keys_that_mean_nothing_are_refused() {
        type Edit = fn(&mut Vec<StoredKey>);
        let wrong: [(&str, Edit); 9] = [
            ("role 0", |keys| keys[0].role = 0),
            ("role 4", |keys| keys[0].role = 4),
            ("version 0", |keys| keys[0].version = 0),
            ("algorithm 0", |keys| keys[0].algorithm = 0),
            ("algorithm 4", |keys| keys[2].algorithm = 4),
            ("a master key that signs", |keys| keys[0].algorithm = 2),
            ("a publisher key that encrypts", |keys| keys[2].algorithm = 1),
            ("no P-256 scalar", |keys| keys[3].key = [0xff; 32]),
            ("one name twice", |keys| keys.push(key(MASTER.0, MASTER.1, MASTER.2))),
        ];
        for (what, edit) in wrong {
            assert!(decode_keys(&keys(edit)).is_none(), "{what}");
        }
    }

    #[test]
    fn keys_have_one_encoding() {
        let good = keys(|_| ());
        assert!(decode_keys(&[&good[..], &[0]].concat()).is_none(), "a trailing byte");
        assert!(decode_keys(&good[..good.len() - 1]).is_none(), "cut");
        assert!(decode_keys(&[&[0x84, 0], &good[1..]].concat()).is_none(), "an over-long count");
    }

    #[test]
    fn retired_keys_are_older_ones_that_are_there() {
        let stock = |retired: &[(Role, u32)]| {
            let names = [MASTER, (1, 2, 1), (2, 1, 1), (3, 1, 2), (3, 2, 3)];
            let keys = names.map(|(role, version, algorithm)| key(role, version, algorithm)).into();
            Stock { keys, retired: retired.to_vec() }
        };
        let (master, publisher) = ((Role::Master, 1), (Role::Publisher, 1));
        for good in [&[master][..], &[publisher], &[master, publisher], &[]] {
            let stock = stock(good);
            let bytes = stock.encode().unwrap();
            assert_eq!(Stock::decode(stock.format(), &bytes).unwrap().retired, good);
            let other = if good.is_empty() { FORMAT_RETIRED } else { FORMAT };
            assert!(Stock::decode(other, &bytes).is_none(), "{good:?} in {other}");
            assert!(Stock::decode(stock.format(), &[&bytes[..], &[0]].concat()).is_none(), "trailing");
        }
        let newest = [(Role::Master, 2)];
        let wrong =
            [&newest[..], &[(Role::Fleet, 1)], &[(Role::Master, 3)], &[publisher, master], &[master; 2]];
        for wrong in wrong {
            assert!(Stock::decode(FORMAT_RETIRED, &stock(wrong).encode().unwrap()).is_none(), "{wrong:?}");
        }
        let empty = [&stock(&[]).encode().unwrap()[..], &[0]].concat();
        assert!(Stock::decode(FORMAT_RETIRED, &empty).is_none(), "a second encoding of none");
    }

    #[test]
    fn files_come_back_and_have_no_more_fields_than_are_known() {
        let text = VaultFile::new(FORMAT, Kdf::new([1; 16]), [2; 12], vec![3; 40]).encode().unwrap();
        assert_eq!(VaultFile::parse(&text).unwrap().encode().unwrap(), text);
        let text = String::from_utf8(text).unwrap();
        for field in ["\"nonce\"", "\"passes\""] {
            assert!(
                VaultFile::parse(text.replace(field, &format!("\"more\": 0, {field}")).as_bytes()).is_none()
            );
        }
        let long = text.clone() + &" ".repeat(FILE_MAX + 1 - text.len());
        assert!(VaultFile::parse(&long.as_bytes()[..FILE_MAX]).is_some());
        assert!(VaultFile::parse(long.as_bytes()).is_none());
    }
}
