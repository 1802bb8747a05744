//! What a factory writes into a device, and what arrives beside a sealed model, as bytes. A port that keeps
//! these otherwise doesn't need it.
//!
//! ```text
//! magic[8] | length u16 | postcard      "\x89MSDEV\x1a\n": Provisioned      "\x89MSDLV\x1a\n": Delivery
//!                                       "\x89MSENV\x1a\n": Surroundings, for boards in an emulator
//! ```
//!
//! The length is little-endian; only the canonical encoding decodes. Whatever doesn't is
//! [`Error::Storage`], for nobody but the device's owner writes it.

use core::hint::black_box;

use embedded_storage::ReadStorage;
use heapless::Vec;
use modelseal_core::Error;
use modelseal_core::grant::{DEVICE_ID_MAX, DeviceId, GRANT_MAX};
use modelseal_core::keys::{DeviceKey, KEY_LEN, Secret, X25519Secret};
use modelseal_core::sign::{Publisher, PublisherKey, TRUSTED_MAX};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::device::Device;
use crate::state::StateStore;
use crate::storage::GrantBuffer;

const PROVISIONED: &[u8; 8] = b"\x89MSDEV\x1a\n";
const DELIVERY: &[u8; 8] = b"\x89MSDLV\x1a\n";
const SURROUNDINGS: &[u8; 8] = b"\x89MSENV\x1a\n";
const PREFIX_LEN: usize = 8 + 2;
const BODY: u32 = 10;
const _: () = assert!(BODY as usize == PREFIX_LEN);
/// Longest encoding of a [`Provisioned`] in bytes.
pub const PROVISIONED_MAX: usize =
    PREFIX_LEN + (1 + DEVICE_ID_MAX) + (1 + 64) + (1 + TRUSTED_MAX * (1 + 64)) + 1 + (1 + KEY_LEN);
/// Longest encoding of [`Surroundings`] in bytes.
pub const SURROUNDINGS_MAX: usize = PREFIX_LEN + (1 + 10) + 1;
/// Longest encoding of a [`Delivery`] in bytes.
pub const DELIVERY_MAX: usize = PREFIX_LEN + 10 + (2 + DELIVERED_GRANT_MAX);
/// As much of a grant as is delivered: one byte more than the longest, which is refused as any longer one is.
pub const DELIVERED_GRANT_MAX: usize = GRANT_MAX + 1;

/// What a factory writes into a device for one line. Holding one proves that its parts have the right shape.
pub struct Provisioned<'a> {
    /// The device's id.
    pub device: DeviceId<'a>,
    /// The line that it serves.
    pub line: &'a str,
    /// The publisher keys that it trusts.
    pub publisher: Publisher,
    /// What it opens grants with, wiped on drop.
    pub secret: Secret,
}

impl<'a> Provisioned<'a> {
    /// Decodes the front of `bytes` and gives what follows. The secret is copied; wiping `bytes` is the
    /// caller's.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let (wire, rest) = decode::<Wire<'a>, PROVISIONED_MAX>(PROVISIONED, bytes)?;
        Ok((wire.check()?, rest))
    }

    /// Encodes it, for the device alone to keep. Wiping `buffer` is the caller's.
    pub fn encode<'b>(&self, buffer: &'b mut [u8; PROVISIONED_MAX]) -> Result<&'b [u8], Error> {
        let (kind, key) = match &self.secret {
            Secret::DeviceKey(key) => (Kind::DeviceKey, key.expose_to_factory()),
            Secret::X25519(key) => (Kind::X25519, key.expose_to_device()),
        };
        let keys = Vec::from_slice(self.publisher.keys()).map_err(|_| Error::Storage)?;
        encode(PROVISIONED, &Wire { device: self.device, line: self.line, keys, kind, key }, buffer)
    }
}

/// A device that keeps what a factory wrote as [`Provisioned`], and its state wherever a port keeps it.
pub struct ProvisionedDevice<'a, S> {
    /// What a factory wrote.
    pub provisioned: Provisioned<'a>,
    /// What the clock said.
    pub time: Remembered,
    /// Where the state is kept.
    pub state: S,
}

/// A time that a device was told and can't ask for again. It is kept twice: a fault that overwrites one leaves no
/// time, and not a wrong one.
pub struct Remembered([Option<u64>; 2]);

impl Remembered {
    /// Seconds since 1970-01-01 UTC; `None` where there is no clock.
    pub fn new(now: Option<u64>) -> Self {
        Self([now, black_box(now)])
    }

    fn now(&self) -> Option<u64> {
        let Self([one, other]) = self;
        one.filter(|_| one == other)
    }
}

impl<S: StateStore> Device for ProvisionedDevice<'_, S> {
    fn id(&self) -> DeviceId<'_> {
        self.provisioned.device
    }

    fn line(&self) -> &str {
        self.provisioned.line
    }

    fn secret(&self) -> &Secret {
        &self.provisioned.secret
    }

    fn publisher(&self) -> &Publisher {
        &self.provisioned.publisher
    }

    fn state(&mut self) -> &mut impl StateStore {
        &mut self.state
    }

    fn now(&mut self) -> Option<u64> {
        self.time.now()
    }
}

/// What arrives in the field beside a sealed model.
#[derive(Serialize, Deserialize)]
pub struct Delivery<'a> {
    /// Length of the sealed model in bytes.
    pub sealed_len: u64,
    /// The grant.
    pub grant: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// Decodes the front of `bytes` and gives what follows.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        decode::<Self, DELIVERY_MAX>(DELIVERY, bytes)
    }

    /// Reads one that begins at `offset`, and no more than that.
    pub fn read(
        storage: &mut impl ReadStorage,
        offset: u32,
        buffer: &'a mut GrantBuffer,
    ) -> Result<Self, Error> {
        let (prefix, rest) = buffer.split_first_chunk_mut::<PREFIX_LEN>().ok_or(Error::Storage)?;
        storage.read(offset, prefix).map_err(|_| Error::Storage)?;
        let body = rest.get_mut(..body_len(DELIVERY, prefix)?).ok_or(Error::Storage)?;
        let at = offset.checked_add(BODY).ok_or(Error::Storage)?;
        storage.read(at, body).map_err(|_| Error::Storage)?;
        Ok(Self::decode(buffer)?.0)
    }

    /// Encodes it.
    pub fn encode<'b>(&self, buffer: &'b mut [u8; DELIVERY_MAX]) -> Result<&'b [u8], Error> {
        encode(DELIVERY, self, buffer)
    }
}

/// What an emulated board can't find out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// What the clock says, in seconds since 1970-01-01 UTC, where there is one.
    pub now: Option<u64>,
    /// What is to happen.
    pub purpose: Purpose,
}

/// What a board is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To open the model, run it, and confirm that it runs.
    Run,
    /// To open a model whose application never comes to the point of confirming it.
    Crash,
    /// To take an update over the serial line.
    Update,
}

impl Surroundings {
    /// Decodes the front of `bytes` and gives what follows.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        decode::<Self, SURROUNDINGS_MAX>(SURROUNDINGS, bytes)
    }

    /// Encodes them.
    pub fn encode<'b>(&self, buffer: &'b mut [u8; SURROUNDINGS_MAX]) -> Result<&'b [u8], Error> {
        encode(SURROUNDINGS, self, buffer)
    }
}

/// [`Provisioned`], field by field. The key is borrowed, so that no copy of it is made in passing.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    device: DeviceId<'a>,
    line: &'a str,
    keys: Vec<PublisherKey, TRUSTED_MAX>,
    kind: Kind,
    key: &'a [u8],
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    DeviceKey,
    X25519,
}

impl<'a> Wire<'a> {
    fn check(&self) -> Result<Provisioned<'a>, Error> {
        let key = self.key.try_into().map_err(|_| Error::Key)?;
        Ok(Provisioned {
            device: DeviceId::new(self.device.as_str())?,
            line: self.line,
            publisher: Publisher::new(&self.keys)?,
            secret: match self.kind {
                Kind::DeviceKey => Secret::DeviceKey(DeviceKey::from_bytes(key)),
                Kind::X25519 => Secret::X25519(X25519Secret::from_bytes(key)),
            },
        })
    }
}

fn encode<'b>(magic: &[u8; 8], value: &impl Serialize, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
    let (prefix, body) = buffer.split_first_chunk_mut::<PREFIX_LEN>().ok_or(Error::Storage)?;
    let len = postcard::to_slice(value, body).map_err(|_| Error::Storage)?.len();
    let (start, length) = prefix.split_at_mut(magic.len());
    start.copy_from_slice(magic);
    length.copy_from_slice(&u16::try_from(len).map_err(|_| Error::Storage)?.to_le_bytes());
    buffer.get(..PREFIX_LEN + len).ok_or(Error::Storage)
}

fn decode<'a, T: Serialize + Deserialize<'a>, const MAX: usize>(
    magic: &[u8; 8],
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Error> {
    let (prefix, rest) = bytes.split_first_chunk().ok_or(Error::Storage)?;
    let (body, rest) = rest.split_at_checked(body_len(magic, prefix)?).ok_or(Error::Storage)?;
    let value = postcard::from_bytes(body).map_err(|_| Error::Storage)?;
    // Postcard alone accepts over-long varints and trailing bytes.
    let mut again = Zeroizing::new([0; MAX]);
    let canonical = encode(magic, &value, again.as_mut_slice())?;
    match bytes.strip_prefix(canonical) {
        Some(after) if after.len() == rest.len() => Ok((value, rest)),
        _ => Err(Error::Storage),
    }
}

fn body_len(magic: &[u8; 8], prefix: &[u8; PREFIX_LEN]) -> Result<usize, Error> {
    let length = prefix.strip_prefix(magic).and_then(|length| length.first_chunk()).ok_or(Error::Storage)?;
    Ok(u16::from_le_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provisioned(secret: Secret) -> Provisioned<'static> {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        Provisioned {
            device: DeviceId::new("doorbell-00042").unwrap(),
            line: "wake-word",
            publisher: Publisher::new(&[PublisherKey::Ed25519(key)]).unwrap(),
            secret,
        }
    }

    #[test]
    fn what_is_provisioned_comes_back() {
        let secrets = [
            Secret::DeviceKey(DeviceKey::from_bytes(&[1; 32])),
            Secret::X25519(X25519Secret::from_bytes(&[2; 32])),
        ];
        for secret in secrets {
            let before = provisioned(secret);
            let mut buffer = [0; PROVISIONED_MAX];
            let bytes = [before.encode(&mut buffer).unwrap(), b"rest"].concat();
            let (after, rest) = Provisioned::decode(&bytes).unwrap();
            assert_eq!((after.device, after.line), (before.device, before.line));
            assert_eq!((after.publisher, rest), (before.publisher, &b"rest"[..]));
            match (after.secret, before.secret) {
                (Secret::DeviceKey(a), Secret::DeviceKey(b)) => {
                    assert_eq!(a.expose_to_factory(), b.expose_to_factory());
                }
                (Secret::X25519(a), Secret::X25519(b)) => {
                    assert_eq!(a.expose_to_device(), b.expose_to_device());
                }
                _ => panic!("another kind of secret"),
            }
        }
    }

    #[test]
    fn a_time_that_was_overwritten_is_none() {
        for now in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(Remembered::new(now).now(), now);
        }
        for times in [[Some(1), Some(2)], [None, Some(2)], [Some(1), None]] {
            assert_eq!(Remembered(times).now(), None);
        }
    }

    #[test]
    fn surroundings_come_back() {
        for now in [None, Some(0), Some(u64::MAX)] {
            for purpose in [Purpose::Run, Purpose::Crash, Purpose::Update] {
                let before = Surroundings { now, purpose };
                let mut buffer = [0; SURROUNDINGS_MAX];
                let bytes = before.encode(&mut buffer).unwrap();
                assert_eq!(Surroundings::decode(bytes), Ok((before, &[][..])));
            }
        }
    }

    #[test]
    fn a_delivery_comes_back() {
        let before = Delivery { sealed_len: u64::MAX, grant: &[3; DELIVERED_GRANT_MAX] };
        let mut buffer = [0; DELIVERY_MAX];
        let (after, rest) = Delivery::decode(before.encode(&mut buffer).unwrap()).unwrap();
        assert_eq!((after.sealed_len, after.grant), (u64::MAX, before.grant));
        assert!(rest.is_empty());
    }

    #[test]
    fn the_longest_fits() {
        let device = "d".repeat(DEVICE_ID_MAX);
        let line = "l".repeat(64);
        // Four keys of the second kind, P-256.
        let key = [&[1][..], &[0; 64]].concat();
        let keys = [&[4][..], &key, &key, &key, &key].concat();
        let wire = Wire {
            device: DeviceId::new(&device).unwrap(),
            line: &line,
            keys: postcard::from_bytes(&keys).unwrap(),
            kind: Kind::X25519,
            key: &[0; KEY_LEN],
        };
        let mut buffer = [0; PROVISIONED_MAX];
        assert_eq!(encode(PROVISIONED, &wire, &mut buffer).unwrap().len(), PROVISIONED_MAX);
    }

    #[test]
    fn blank_cut_and_stretched_bytes_are_refused() {
        let mut buffer = [0; PROVISIONED_MAX];
        let secret = Secret::DeviceKey(DeviceKey::from_bytes(&[1; 32]));
        let bytes = provisioned(secret).encode(&mut buffer).unwrap();
        for cut in 0..bytes.len() {
            assert!(Provisioned::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        for blank in [0x00, 0xff] {
            assert!(Provisioned::decode(&[blank; PROVISIONED_MAX]).is_err());
        }
        // A trailing byte that the length counts, and a length of the device's id in two bytes.
        let grown = |at: usize, with: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.splice(at..at + with.len() - 1, with.iter().copied());
            bytes[8] += 1;
            Provisioned::decode(&bytes).err()
        };
        assert_eq!(grown(bytes.len(), &[0]), Some(Error::Storage));
        assert_eq!(grown(PREFIX_LEN, &[0x80 | 14, 0]), Some(Error::Storage));
    }
}
