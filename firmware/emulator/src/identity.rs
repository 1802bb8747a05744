//! The identity of a device, as enrolment wrote it: of its file, what a factory puts into a board.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use modelseal_core::Error;
use modelseal_core::grant::DeviceId;
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::sign::{Publisher, PublisherKey};
use serde::Deserialize;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::ObjectIdentifier;
use spki::der::{Decode, Document};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::failure::Failure;

const FORMAT: &str = "modelseal identity 1";
const FILE_MAX: usize = 64 * 1024;
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// An identity with its secret, of a device that is enrolled.
#[derive(Deserialize)]
pub(crate) struct Identity {
    format: String,
    device: String,
    #[serde(default)]
    pub(crate) lines: Vec<String>,
    #[serde(default)]
    publisher: Vec<String>,
    #[serde(default)]
    pub(crate) first_floor: u64,
    device_key: Option<Hex>,
    x25519: Option<Hex>,
}

/// 32 secret bytes, as hex in the file.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct Hex(String);

impl Hex {
    fn decode(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&self.0, bytes.as_mut_slice()).map_err(|_| Error::Key)?;
        Ok(bytes)
    }
}

impl Identity {
    /// To be called on stack that is wiped, as [`secret`](Self::secret).
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_secret(path)?;
        let malformed = || {
            let what = format!(
                "{} isn't an identity, or is damaged: take it from where it was made again",
                path.display()
            );
            Failure::not_authentic(what)
        };
        let identity: Self = serde_json::from_slice(&text).map_err(|_| malformed())?;
        if identity.format != FORMAT || DeviceId::new(&identity.device).is_err() {
            return Err(malformed());
        }
        if identity.lines.is_empty() || identity.publisher.is_empty() {
            let what =
                format!("the identity of {} isn't enrolled yet: `modelseal device enroll`", identity.device);
            return Err(what.into());
        }
        Ok(identity)
    }

    pub(crate) fn device(&self) -> Result<DeviceId<'_>, Failure> {
        Ok(DeviceId::new(&self.device)?)
    }

    /// The keys that the device trusts.
    pub(crate) fn publisher(&self) -> Result<Publisher, Failure> {
        let keys: Option<Vec<_>> = self.publisher.iter().map(|pem| publisher_key(pem)).collect();
        Ok(Publisher::new(&keys.ok_or(Error::Key)?)?)
    }

    pub(crate) fn secret(&self) -> Result<Secret, Failure> {
        match (&self.device_key, &self.x25519) {
            (Some(hex), None) => Ok(Secret::DeviceKey(DeviceKey::from_bytes(&*hex.decode()?))),
            (None, Some(hex)) => Ok(Secret::X25519(X25519Secret::from_bytes(&*hex.decode()?))),
            _ => Err(format!(
                "the identity of {} has no secret: complete the device's own with `modelseal device complete`",
                self.device
            )
            .into()),
        }
    }
}

/// Into memory that is roomy from the start, for a buffer that grew would leave the secret behind, and wiped on drop.
fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let about = |error| Failure::io(path, &error);
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
    File::open(path).map_err(about)?.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(about)?;
    if bytes.len() > FILE_MAX { Err(Error::Extended.into()) } else { Ok(bytes) }
}

/// One key as SPKI PEM (RFC 8410, RFC 5480), as identities have it.
fn publisher_key(pem: &str) -> Option<PublisherKey> {
    let (_, document) = Document::from_pem(pem).ok()?;
    let spki = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).ok()?;
    let bytes = spki.subject_public_key.as_bytes()?;
    if spki.algorithm.oid == ED25519 {
        return Some(PublisherKey::Ed25519(bytes.try_into().ok()?));
    }
    let curve: ObjectIdentifier = spki.algorithm.parameters?.decode_as().ok()?;
    match bytes.split_first()? {
        (4, point) if curve == P256 => {
            let (x, y) = point.split_first_chunk::<32>()?;
            Some(PublisherKey::EcdsaP256 { x: *x, y: y.try_into().ok()? })
        }
        _ => None,
    }
}
