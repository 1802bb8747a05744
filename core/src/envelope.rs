//! The signature and the key slots (FORMAT.md, section 4.3).
//!
//! ```text
//! envelope = signature[64] || slot[128] || slot[128] || …
//! slot     = U32(master key version) || kind u8 || length u8 || zeros[2] || value[length] || zeros
//! ```

use crate::error::Error;
use crate::keys::{NONCE_LEN, TAG_LEN};
use crate::sign::{SIGNATURE_LEN, Signature};

/// Length of one key slot in bytes.
pub const SLOT_LEN: usize = 128;
/// Longest envelope in bytes.
pub const ENVELOPE_MAX: usize = SIGNATURE_LEN + SLOT_LEN * SLOTS_MAX as usize;
/// Number of key slots unless the sealer says otherwise.
pub const SLOTS_DEFAULT: u8 = 4;
/// Most key slots.
pub const SLOTS_MAX: u8 = 16;

/// The kind of [`Slot`].
const AES_256_GCM: u8 = 1;
const FRONT_LEN: usize = 8;
const NONCE_MAX: usize = 16;

const _: () = assert!(NONCE_LEN == 12 && 32 + TAG_LEN == 48);
const _: () = assert!(FRONT_LEN + NONCE_MAX + 32 + TAG_LEN <= SLOT_LEN);

/// The nonce of a slot: 12 ..= 16 bytes. This crate's vaults write 12, and some tokens insist on more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotNonce {
    bytes: [u8; NONCE_MAX],
    len: u8,
}

impl SlotNonce {
    /// `None` where the length is out of bounds.
    pub fn new(nonce: &[u8]) -> Option<Self> {
        let mut bytes = [0; NONCE_MAX];
        bytes.get_mut(..nonce.len())?.copy_from_slice(nonce);
        let len = u8::try_from(nonce.len()).ok()?;
        (nonce.len() >= NONCE_LEN).then_some(Self { bytes, len })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// The bytes, for PKCS#11, which takes a nonce that a token may replace.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len.into()).unwrap_or_default()
    }
}

impl From<[u8; NONCE_LEN]> for SlotNonce {
    fn from(nonce: [u8; NONCE_LEN]) -> Self {
        let mut bytes = [0; NONCE_MAX];
        bytes.iter_mut().zip(nonce).for_each(|(to, byte)| *to = byte);
        Self { bytes, len: 12 }
    }
}

/// A content key under one version of a vault's master key (3.5, 4.3): kind 1, AES-256-GCM with the additional data of
/// [`content_key_aad`](crate::keys::content_key_aad).
///
/// `value = nonce[12 ..= 16] || ciphertext[32] || tag[16]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Version of the master key, from 1.
    pub version: u32,
    /// Random.
    pub nonce: SlotNonce,
    /// The content key, encrypted.
    pub ciphertext: [u8; 32],
    /// The AEAD tag.
    pub tag: [u8; TAG_LEN],
}

impl Slot {
    /// What clears a slot.
    pub const EMPTY: [u8; SLOT_LEN] = [0; SLOT_LEN];

    /// Reads the value of a slot of kind 1.
    fn parse(version: u32, value: &[u8]) -> Option<Self> {
        let (front, tag) = value.split_last_chunk()?;
        let (nonce, ciphertext) = front.split_last_chunk()?;
        Some(Self { version, nonce: SlotNonce::new(nonce)?, ciphertext: *ciphertext, tag: *tag })
    }

    /// Writes the slot, for [`Layout::slot`](crate::sealed::Layout::slot).
    pub fn encode(&self) -> [u8; SLOT_LEN] {
        let mut bytes = Self::EMPTY;
        let nonce = self.nonce.as_bytes();
        let length = self.nonce.len + 48;
        let parts = self.version.to_le_bytes().into_iter().chain([AES_256_GCM, length, 0, 0]);
        let parts = parts.chain(nonce.iter().copied()).chain(self.ciphertext).chain(self.tag);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }
}

/// What a slot in use holds (4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A content key, for a vault to open.
    Key(Slot),
    /// Nothing that can be read: what a write leaves that was cut off, or another's mistake. Whoever has the master key
    /// of this version may write over it.
    Spoiled {
        /// The version that it names.
        version: u32,
    },
    /// A content key of a kind that this crate doesn't know. It is somebody else's: skipped, and never written over.
    Foreign {
        /// The version that it names.
        version: u32,
        /// The kind.
        kind: u8,
    },
}

impl Held {
    /// `None` where the slot is empty, which version 0 alone says: a slot half cleared is empty.
    fn parse(bytes: &[u8; SLOT_LEN]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let version = u32::from_le_bytes(*version);
        let [kind, length, rest @ ..] = rest else { return None };
        let held = match value(rest, (*length).into()) {
            Some(value) if *kind == AES_256_GCM => Slot::parse(version, value).map(Self::Key),
            Some(_) if *kind > AES_256_GCM => Some(Self::Foreign { version, kind: *kind }),
            _ => None,
        };
        (version != 0).then_some(held.unwrap_or(Self::Spoiled { version }))
    }

    /// The version of the master key that it names.
    pub fn version(&self) -> u32 {
        match self {
            Self::Key(slot) => slot.version,
            Self::Spoiled { version } | Self::Foreign { version, .. } => *version,
        }
    }
}

/// `zeros[2] || value[length] || zeros`
fn value(bytes: &[u8], length: usize) -> Option<&[u8]> {
    let ([0, 0], rest) = bytes.split_first_chunk()? else { return None };
    let (value, filler) = rest.split_at_checked(length)?;
    filler.iter().all(|byte| *byte == 0).then_some(value)
}

/// The signature and the key slots (4.3). It holds nothing that the signature must cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    signature: Signature,
    /// As they are stored, but for zeros where a slot is empty.
    slots: heapless::Vec<[u8; SLOT_LEN], { SLOTS_MAX as usize }>,
}

impl Envelope {
    /// Reads an envelope of the length that the prefix gave. Whatever is in the slots, the others can be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (signature, slots) = bytes.split_first_chunk().ok_or(Error::Truncated)?;
        let (slots, []) = slots.as_chunks() else { return Err(Error::EnvelopeLength) };
        if slots.is_empty() || slots.len() > usize::from(SLOTS_MAX) {
            return Err(Error::EnvelopeLength);
        }
        let slots = slots.iter().map(|slot| if is_empty(slot) { Slot::EMPTY } else { *slot });
        Ok(Self { signature: Signature::from_bytes(signature), slots: slots.collect() })
    }

    /// A new envelope with one slot used of `slots`.
    pub fn new(signature: Signature, slot: Slot, slots: u8) -> Result<Self, Error> {
        if !(1..=SLOTS_MAX).contains(&slots) || slot.version == 0 {
            return Err(Error::EnvelopeLength);
        }
        let empty = core::iter::repeat_n(Slot::EMPTY, usize::from(slots) - 1);
        Ok(Self { signature, slots: core::iter::once(slot.encode()).chain(empty).collect() })
    }

    /// Writes the envelope.
    pub fn encode(&self) -> heapless::Vec<u8, ENVELOPE_MAX> {
        self.signature.to_bytes().iter().chain(self.slots.as_flattened()).copied().collect()
    }

    /// The publisher's signature over the header.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The slots that a vault may open.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.numbered_slots().map(|(_, slot)| slot)
    }

    /// The slots that a vault may open, each with its number for [`Layout::slot`](crate::sealed::Layout::slot).
    ///
    /// After a change of master key, the content key goes into the [free slot](Self::free_slot); only once that is
    /// stored durably is the old one overwritten with [`Slot::EMPTY`]. A torn write then spoils at most the slot
    /// that was being written, and one that opens is always there.
    pub fn numbered_slots(&self) -> impl Iterator<Item = (usize, Slot)> {
        self.held().filter_map(|(i, held)| if let Held::Key(slot) = held { Some((i, slot)) } else { None })
    }

    /// All slots in use, each with its number.
    pub fn held(&self) -> impl Iterator<Item = (usize, Held)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| Some((i, Held::parse(slot)?)))
    }

    /// The number of the first slot that isn't in use.
    pub fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(is_empty)
    }

    /// Why no slot opened: [`Error::OldSlots`] where one has the form that slots had before the first release, of 64
    /// bytes with a random nonce from byte 4 on; otherwise [`Error::KeySlot`].
    ///
    /// No cut-off write leaves anything but zeros in bytes 6 and 7, for all writers write zeros there.
    pub fn unopened(&self) -> Error {
        let is_old = |slot: &[u8; SLOT_LEN]| !is_empty(slot) && slot.get(6..8) != Some(&[0, 0]);
        if self.slots.iter().any(is_old) { Error::OldSlots } else { Error::KeySlot }
    }
}

fn is_empty(slot: &[u8; SLOT_LEN]) -> bool {
    slot.starts_with(&[0; 4])
}
