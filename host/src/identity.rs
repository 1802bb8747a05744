//! A device's identity: what the factory puts into it. The one file of a device that holds a secret.
//!
//! ```text
//! { "format": "modelseal identity 1",
//!   "device": "kitchen-7",
//!   "lines": ["wake-word"],             empty until the device is enrolled
//!   "publisher": [PEM …],               empty until the device is enrolled
//!   "first_floor": 0,
//!   "used": false,                      true once a floor was stored: from then on a missing state is an error
//!   "public_key": PEM,                  for an X25519 device
//!   "device_key" | "x25519": hex }      the secret
//! ```

use std::path::Path;

use modelseal_core::grant::DeviceId;
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::manifest::is_line;
use modelseal_core::sign::Publisher;
use modelseal_hsm::wiped::wiped;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing, Source};
use crate::notice;
use crate::pem;
use crate::state::StateOwner;

const FORMAT: &str = "modelseal identity 1";
const FILE_MAX: usize = 64 * 1024;

/// A device's identity, enrolled or not, with or without its secret.
#[derive(Serialize, Deserialize)]
pub struct Identity {
    format: String,
    device: String,
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default)]
    publisher: Vec<String>,
    #[serde(default)]
    first_floor: u64,
    #[serde(default)]
    used: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_key: Option<Hex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x25519: Option<Hex>,
}

/// 32 secret bytes, as hex in the file.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct Hex(String);

impl Hex {
    fn new(bytes: &[u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    fn decode(&self) -> Option<Zeroizing<[u8; 32]>> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&self.0, bytes.as_mut_slice()).ok()?;
        Some(bytes)
    }
}

/// What enrolment says of a device, without any secret.
#[derive(Clone, Debug)]
pub struct Enrolment<'a> {
    /// The device's id.
    pub device: DeviceId<'a>,
    /// The lines that it may open.
    pub lines: &'a [String],
    /// The keys that it trusts.
    pub publisher: &'a Publisher,
    /// The floor of every line before the first confirmation.
    pub first_floor: u64,
}

impl Identity {
    /// A new X25519 identity, not enrolled yet.
    pub fn keygen(device: DeviceId<'_>, secret: &X25519Secret) -> Result<Self> {
        let mut identity = Self::bare(device);
        identity.public_key = pem::x25519(&secret.public()?);
        identity.x25519 = Some(Hex::new(secret.expose_to_device()));
        Ok(identity)
    }

    /// The identity of an enrolled device that shares a key with its vault.
    pub fn derived(enrolment: &Enrolment<'_>, key: &DeviceKey) -> Result<Self> {
        let mut identity = Self::bare(enrolment.device);
        identity.device_key = Some(Hex::new(key.expose_to_factory()));
        identity.complete(enrolment)?;
        Ok(identity)
    }

    /// The public part of the identity of an enrolled X25519 device, which keeps its secret to itself.
    pub fn public_part(enrolment: &Enrolment<'_>, public: &[u8; 32]) -> Result<Self> {
        let mut identity = Self::bare(enrolment.device);
        identity.public_key = pem::x25519(public);
        identity.complete(enrolment)?;
        Ok(identity)
    }

    fn bare(device: DeviceId<'_>) -> Self {
        Self {
            format: FORMAT.into(),
            device: device.as_str().into(),
            lines: Vec::new(),
            publisher: Vec::new(),
            first_floor: 0,
            used: false,
            public_key: None,
            device_key: None,
            x25519: None,
        }
    }

    /// Adds what enrolment says.
    pub fn complete(&mut self, enrolment: &Enrolment<'_>) -> Result<()> {
        if self.device != enrolment.device.as_str() {
            let what = format!("the identity is {}'s, not {}'s", self.device, enrolment.device.as_str());
            return Err(Error::new(Code::Refused, what, "use the identity of the device that is enrolled"));
        }
        self.lines = enrolment.lines.to_vec();
        self.trust(enrolment.publisher);
        self.first_floor = enrolment.first_floor;
        Ok(())
    }

    /// Trusts these keys of its publisher from now on, and no others.
    pub fn trust(&mut self, publisher: &Publisher) {
        self.publisher = publisher.keys().iter().filter_map(pem::publisher).collect();
    }

    /// Reads an identity.
    pub fn read(path: &Path) -> Result<Self> {
        wiped(|| Self::read_secret(path, Source::Pipe))
    }

    /// Reads one that is going to be rewritten, and so is no pipe.
    pub fn read_file(path: &Path) -> Result<Self> {
        wiped(|| Self::read_secret(path, Source::File))
    }

    fn read_secret(path: &Path, source: Source) -> Result<Self> {
        let malformed = || Error::malformed(path, "an identity");
        let (text, file) = files::read_private(path, FILE_MAX, source)?;
        let identity: Self = serde_json::from_slice(&text).map_err(|_| malformed())?;
        let secrets = [&identity.device_key, &identity.x25519];
        let sound = secrets.iter().all(|secret| secret.as_ref().is_none_or(|hex| hex.decode().is_some()));
        let named =
            DeviceId::new(&identity.device).is_ok() && identity.lines.iter().all(|line| is_line(line));
        if identity.format != FORMAT || !sound || !named {
            return Err(malformed());
        }
        if secrets.iter().any(|secret| secret.is_some()) {
            notice::tell_if_exposed(&file, path);
        }
        Ok(identity)
    }

    /// Writes the identity where there is none: it is written once.
    pub fn write_new(&self, path: &Path) -> Result<()> {
        files::write(path, &self.encode(path)?, Access::Private, Existing::Keep)
    }

    /// Changes the identity in the file `path` under a lock, so that no other process's change is lost. Whoever holds
    /// another lock, too, took it before this one.
    pub fn update<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<(Self, T)> {
        let _lock = files::lock(path)?;
        let place = files::resolve(path)?;
        let mut identity = wiped(|| Self::read_secret(&place, Source::Itself))?;
        let done = change(&mut identity)?;
        files::rewrite(&place, &identity.encode(path)?, Access::Private)?;
        Ok((identity, done))
    }

    fn encode(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>> {
        // Roomy enough from the start: a buffer that grew would leave the secret in memory that was given back.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_MAX));
        serde_json::to_writer_pretty(&mut *text, self).map_err(|error| Error::io(path, &error.into()))?;
        text.push(b'\n');
        Ok(text)
    }

    /// The device's id.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The lines that the device may open.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The floor of every line before the first confirmation.
    pub fn first_floor(&self) -> u64 {
        self.first_floor
    }

    /// Whether a floor has been stored since enrolment.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Notes that a floor has been stored.
    pub fn mark_used(&mut self) {
        self.used = true;
    }

    /// Whose state it is.
    pub fn owner(&self) -> StateOwner {
        StateOwner { device: self.device.clone(), first_floor: self.first_floor, used: self.used }
    }

    /// The device's public key, if it has an X25519 key.
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.public_key.as_deref().and_then(pem::parse_x25519)
    }

    /// The keys that the device trusts.
    pub fn publisher(&self) -> Result<Publisher> {
        let keys: Option<Vec<_>> = self.publisher.iter().map(|text| pem::parse_publisher(text)).collect();
        let keys = keys.ok_or(modelseal_core::Error::Key)?.concat();
        Ok(Publisher::new(&keys)?)
    }

    /// The device's secret. To be called in [`wiped`]: moving it leaves copies.
    pub fn secret(&self) -> Result<Secret> {
        match (&self.device_key, &self.x25519) {
            (Some(hex), None) => {
                let bytes = hex.decode().ok_or(modelseal_core::Error::Key)?;
                Ok(Secret::DeviceKey(DeviceKey::from_bytes(&bytes)))
            }
            (None, Some(hex)) => {
                let bytes = hex.decode().ok_or(modelseal_core::Error::Key)?;
                Ok(Secret::X25519(X25519Secret::from_bytes(&bytes)))
            }
            _ => {
                let what = format!("the identity of {} has no secret", self.device);
                let hint = "it is the public part: complete the device's own identity with `modelseal device complete`";
                Err(Error::new(Code::Other, what, hint))
            }
        }
    }

    /// Refuses an identity that hasn't been enrolled.
    pub fn require_enrolled(&self) -> Result<()> {
        if !self.lines.is_empty() && !self.publisher.is_empty() {
            return Ok(());
        }
        let what = format!("the identity of {} isn't enrolled yet", self.device);
        let hint =
            "have it enrolled: `modelseal device enroll ID --line NAME --public-key P --identity-out FILE`";
        Err(Error::new(Code::Other, what, hint))
    }
}
