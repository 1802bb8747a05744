//! The conformance vectors: the cases, as they stand in `tests/vectors/cases`, and what makes them.
//!
//! - [`Case`]: one case, as JSON
//! - `make`, `scene`: models and grants, from the specification
//! - `opens`: what must open; `derives`: keys that are derived for devices
//! - `shape`, `shape_of_grants`: what doesn't parse
//! - `collide`: what opens under two keys
//! - `lists`: lists of folders
//! - `signed`, `granted`, `sealed`: what parses and is refused by signatures and keys, by terms, by the payload
//!
//! Everything is the same at each run. What is expected is stated case by case, and is never what a reader said.

mod collide;
mod derives;
mod granted;
mod lists;
mod make;
mod opens;
mod scene;
mod sealed;
mod shape;
mod shape_of_grants;
mod signed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What may fail, and where.
pub const LAYERS: [&str; 9] =
    ["shape", "signature", "terms", "grant", "commitment", "index", "chunk", "root", "list"];

/// All cases, in no particular order.
pub fn all() -> Vec<Case> {
    [
        opens::cases(),
        derives::cases(),
        shape::cases(),
        shape_of_grants::cases(),
        signed::cases(),
        granted::cases(),
        collide::cases(),
        sealed::cases(),
        lists::cases(),
    ]
    .concat()
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Also the file's name.
    pub name: String,
    /// What is tried.
    pub comment: String,
    /// What must catch it, for what is refused.
    pub layer: Option<String>,
    /// What is done.
    pub operation: String,
    /// `host` or `device`, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The sealed model, Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// The grant, Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The list of a folder, Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// What is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<File>>,
    /// The trusted keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Vec<Key>>,
    /// The device that opens with the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The vault that opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault: Option<Vault>,
    /// The X25519 public key to check, as hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// From which the device's key is derived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Fleet>,
    /// What must come out.
    pub expect: Expect,
    /// What a correct reader computes on the way, as hex.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// A file of a folder, as its list has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Below the folder.
    pub path: String,
    /// 32 bytes as hex.
    pub id: String,
    /// In bytes.
    pub length: Number,
}

/// A fleet key, and the device that a key is derived for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// 32 bytes as hex.
    pub key: String,
    /// The device's id.
    pub device: String,
}

/// A publisher's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm")]
pub enum Key {
    /// RFC 8032
    #[serde(rename = "ed25519")]
    Ed25519 {
        /// 32 bytes as hex.
        key: String,
    },
    /// FIPS 186-5
    #[serde(rename = "ecdsa-p256")]
    P256 {
        /// 32 bytes as hex.
        x: String,
        /// 32 bytes as hex.
        y: String,
    },
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// The line that it asks for.
    pub line: String,
    /// The key that it shares with the vault, as hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_key: Option<String>,
    /// Its private key, as hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x25519: Option<String>,
    /// The stored floor; absent where it is missing or corrupt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Number>,
    /// Its clock, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Number>,
}

/// A vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Master keys by version, as hex.
    pub master: BTreeMap<String, String>,
    /// The line that the caller asked for, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// What must come out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The model.
    Opened(Opened),
    /// An error of section 8 of the specification.
    Refused {
        /// Its number.
        code: u16,
        /// Its name.
        name: String,
    },
    /// An error that has a class, and no number (14).
    Class(u16),
    /// Nothing is wrong.
    Accepted(bool),
}

/// An opened model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The model's hash, as hex.
    pub model_blake3: String,
    /// The model's length.
    pub length: Number,
    /// The stored floor after confirmation; absent with a vault, which confirms nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Number>,
}

/// A number, in JSON a string of digits from 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Number(pub u64);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Digits(String),
}

impl From<Number> for Written {
    fn from(number: Number) -> Self {
        if number.0 < 1 << 53 { Self::Number(number.0) } else { Self::Digits(number.0.to_string()) }
    }
}

impl TryFrom<Written> for Number {
    type Error = std::num::ParseIntError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Number(number) => Ok(Self(number)),
            Written::Digits(digits) => digits.parse().map(Self),
        }
    }
}

impl Case {
    fn new(name: impl Into<String>, comment: impl Into<String>, operation: &str) -> Self {
        Self {
            name: name.into(),
            comment: comment.into(),
            layer: None,
            operation: operation.into(),
            profile: None,
            sealed: None,
            grant: None,
            list: None,
            files: None,
            publisher: None,
            device: None,
            vault: None,
            key: None,
            fleet: None,
            expect: Expect::Accepted(true),
            values: BTreeMap::new(),
        }
    }

    fn sealed(mut self, bytes: &[u8]) -> Self {
        self.sealed = Some(base64(bytes));
        self
    }

    fn grant(mut self, bytes: &[u8]) -> Self {
        self.grant = Some(base64(bytes));
        self
    }

    fn list(mut self, bytes: &[u8]) -> Self {
        self.list = Some(base64(bytes));
        self
    }

    fn list_refused(mut self, class: u16) -> Self {
        self.layer = Some("list".into());
        self.expect = Expect::Class(class);
        self
    }

    fn trust(mut self, keys: &[Key]) -> Self {
        self.publisher = Some(keys.to_vec());
        self
    }

    fn profile(mut self, profile: &str) -> Self {
        self.profile = Some(profile.into());
        self
    }

    fn value(mut self, name: &str, bytes: &[u8]) -> Self {
        self.values.insert(name.into(), hex::encode(bytes));
        self
    }

    fn opened(mut self, model: &[u8], floor: Option<u64>) -> Self {
        let model_blake3 = blake3::hash(model).to_hex().to_string();
        let (length, floor) = (Number(model.len() as u64), floor.map(Number));
        self.expect = Expect::Opened(Opened { model_blake3, length, floor });
        self
    }

    fn refused(mut self, layer: &str, code: u16) -> Self {
        assert!(LAYERS.contains(&layer), "{layer}");
        let (_, name) = ERRORS.iter().find(|error| error.0 == code).unwrap();
        self.layer = Some(layer.into());
        self.expect = Expect::Refused { code, name: (*name).into() };
        self
    }

    /// The file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap() + "\n"
    }
}

/// Section 8 of the specification.
pub const ERRORS: [(u16, &str); 43] = [
    (301, "Truncated"),
    (302, "Extended"),
    (303, "ManifestLength"),
    (304, "EnvelopeLength"),
    (305, "ManifestEncoding"),
    (306, "ChunkSize"),
    (307, "Alignment"),
    (308, "Line"),
    (309, "Kind"),
    (310, "Length"),
    (311, "Claims"),
    (312, "Padding"),
    (313, "GrantLength"),
    (314, "GrantEncoding"),
    (315, "DeviceId"),
    (316, "Validity"),
    (317, "GrantForm"),
    (318, "GrantPath"),
    (319, "Key"),
    (330, "ManifestSignature"),
    (331, "GrantSignature"),
    (332, "GrantKey"),
    (333, "Commitment"),
    (334, "Index"),
    (335, "Chunk"),
    (336, "Root"),
    (337, "KeySlot"),
    (401, "OtherModel"),
    (402, "OtherLine"),
    (403, "OtherSuite"),
    (404, "OtherDevice"),
    (405, "NoClock"),
    (406, "NotYetValid"),
    (407, "Expired"),
    (408, "FloorAboveVersion"),
    (409, "RolledBack"),
    (601, "Storage"),
    (602, "Memory"),
    (603, "Floor"),
    (701, "ForeignMagic"),
    (702, "UnknownVersion"),
    (703, "UnknownSuite"),
    (704, "OldSlots"),
];

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = |i: usize| char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]);
        text.extend((0..4).map(|i| if i <= group.len() { digit(i) } else { '=' }));
    }
    text
}

/// The bytes of a field in Base64.
pub fn unbase64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let digits: Vec<u32> = text
        .trim_end_matches('=')
        .bytes()
        .map(|byte| ALPHABET.iter().position(|digit| *digit == byte).unwrap() as u32)
        .collect();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}
