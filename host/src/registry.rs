//! The operator's registry: enrolled devices and the publisher's public keys. It holds no secret.
//!
//! ```text
//! { "format": "modelseal registry 1",
//!   "publisher": [PEM …],
//!   "devices": { "kitchen-7": { "lines": ["wake-word"], "key": { "fleet": 1 }, "enrolled": seconds } } }
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use modelseal_core::sign::{Publisher, PublisherKey};
use modelseal_hsm::{Role, Vault};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::files::{self, Access};
use crate::pem;

const FORMAT: &str = "modelseal registry 1";
const FILE_MAX: u64 = 1 << 30;

/// How the content key is wrapped for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DeviceKeyKind {
    /// Under the device's own key, derived from this version of the fleet key.
    Fleet(u32),
    /// To the device's X25519 public key, as PEM.
    X25519(String),
}

/// One enrolled device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The lines that may be granted to it.
    pub lines: Vec<String>,
    /// How grants reach it.
    pub key: DeviceKeyKind,
    /// When it was enrolled, in seconds since 1970-01-01 UTC.
    pub enrolled: u64,
}

impl Device {
    /// Whether the line may be granted to it.
    pub fn is_for(&self, line: &str) -> bool {
        self.lines.iter().any(|enrolled| enrolled == line)
    }
}

/// The registry's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    format: String,
    publisher: Vec<String>,
    devices: BTreeMap<String, Device>,
}

impl Registry {
    /// An empty registry of this publisher.
    fn new(publisher: &Publisher) -> Self {
        Self { format: FORMAT.into(), publisher: pems(publisher), devices: BTreeMap::new() }
    }

    /// Reads a registry; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = files::read_if_there(path, FILE_MAX)? else { return Ok(None) };
        let malformed = || Error::malformed(path, "a registry");
        let registry: Self = serde_json::from_slice(&text).map_err(|_| malformed())?;
        if registry.format == FORMAT { Ok(Some(registry)) } else { Err(malformed()) }
    }

    /// Reads a registry that must be there.
    pub fn require(path: &Path) -> Result<Self> {
        Self::read(path)?.ok_or_else(|| {
            let what = format!("there is no registry at {}", path.display());
            Error::new(Code::Io, what, "run `modelseal init`, or give --registry")
        })
    }

    /// One device.
    pub fn device(&self, id: &str) -> Result<&Device> {
        self.devices.get(id).ok_or_else(|| {
            let hint = format!(
                "enrol it with `modelseal device enroll {id} --line NAME --derive --identity-out FILE`"
            );
            Error::new(Code::Refused, format!("the device {id} isn't enrolled"), hint)
        })
    }

    /// All devices, by id.
    pub fn devices(&self) -> &BTreeMap<String, Device> {
        &self.devices
    }

    /// The publisher's public keys, the newest first, with those that are retired.
    pub fn publisher_keys(&self) -> Vec<PublisherKey> {
        self.publisher.iter().filter_map(|text| pem::parse_publisher(text)).flatten().collect()
    }

    /// Refuses a vault that has none of the publisher keys, retired or not.
    pub fn require_vault(&self, path: &Path, vault: &dyn Vault) -> Result<()> {
        for key in vault.keys()?.iter().rev().filter(|key| key.role == Role::Publisher) {
            let key = pem::publisher(&vault.publisher_key(key.version)?);
            if key.is_some_and(|key| self.publisher.contains(&key)) {
                return Ok(());
            }
        }
        let what = format!("the registry {} belongs to another vault", path.display());
        let hint = "check --vault and --registry; if it is a copy from before all its publisher keys were destroyed, `modelseal device adopt` makes it this vault's";
        Err(Error::new(Code::Vault, what, hint))
    }

    /// Notes the vault's publisher keys beside those that are noted already, so that the registry is still known to be
    /// this vault's when older ones have gone. Another program may have noted newer ones meanwhile.
    pub(crate) fn follow(&mut self, vault: &dyn Vault) -> Result<()> {
        let mut keys = pems(&vault.publisher()?);
        keys.retain(|key| !self.publisher.contains(key));
        self.publisher.splice(..0, keys);
        Ok(())
    }

    /// Writes the registry at the place where it was read. The caller holds its lock.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::io(path, &error.into()))?;
        text.push(b'\n');
        files::rewrite(path, &text, Access::Public)
    }
}

fn pems(publisher: &Publisher) -> Vec<String> {
    publisher.keys().iter().filter_map(pem::publisher).collect()
}

/// A registry that nobody else changes meanwhile.
pub struct Locked {
    path: PathBuf,
    registry: Registry,
    _lock: File,
}

impl Locked {
    /// Locks and reads the vault's registry, or begins one. It follows the vault's publisher keys.
    pub fn open(path: &Path, vault: &dyn Vault) -> Result<Self> {
        Self::open_under(files::lock(path)?, path, vault)
    }

    /// The same for whoever holds the registry's lock already.
    pub fn open_under(lock: File, path: &Path, vault: &dyn Vault) -> Result<Self> {
        let place = files::resolve(path)?;
        let mut registry = match Registry::read(&place)? {
            Some(registry) => registry,
            None => Registry::new(&vault.publisher()?),
        };
        registry.require_vault(path, vault)?;
        registry.follow(vault)?;
        Ok(Self { path: place, registry, _lock: lock })
    }

    /// The same for a registry that must be there, whatever publisher keys it has: its owner says that it is this vault's.
    pub fn adopt(path: &Path, vault: &dyn Vault) -> Result<Self> {
        let lock = files::lock(path)?;
        let place = files::resolve(path)?;
        let mut registry = Registry::require(&place)?;
        registry.follow(vault)?;
        Ok(Self { path: place, registry, _lock: lock })
    }

    /// Adds a device, which must be new. Nothing is written yet.
    pub fn add(&mut self, id: &str, device: Device) -> Result<()> {
        if self.registry.devices.contains_key(id) {
            let hint = "a device that needs another key gets a new id";
            return Err(Error::new(Code::Refused, format!("the device {id} is enrolled already"), hint));
        }
        // Where case doesn't count, both would be one file.
        if let Some(other) = self.registry.devices.keys().find(|other| other.eq_ignore_ascii_case(id)) {
            let what = format!("the device {other} differs from {id} in upper and lower case alone");
            return Err(Error::new(Code::Refused, what, "choose another id"));
        }
        let same_key =
            |other: &Device| matches!(device.key, DeviceKeyKind::X25519(_)) && other.key == device.key;
        if let Some((other, _)) = self.registry.devices.iter().find(|(_, other)| same_key(other)) {
            let what = format!("the device {other} has the same key");
            return Err(Error::new(Code::Refused, what, "each device makes a key of its own"));
        }
        self.registry.devices.insert(id.into(), device);
        Ok(())
    }

    /// Writes the registry.
    pub fn commit(self) -> Result<()> {
        self.registry.write(&self.path)
    }
}
