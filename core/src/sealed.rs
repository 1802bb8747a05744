//! The layout of a sealed model (FORMAT.md, section 4.1).
//!
//! ```text
//! offset    size             field
//! 0         8                magic 89 4D 53 45 41 4C 1A 0A
//! 8         2                format version = 1
//! 10        2                manifest length M            1 ..= 1024
//! 12        4                envelope length E            64 + 128 * slots, slots 1 ..= 16
//! 16        M                manifest
//! 16+M      E                envelope: signature[64], slots[128 each]
//! 16+M+E    48 * chunks      index: tag[16] || chaining value[32] of each chunk
//! …         to alignment     zeros
//! P         model length     payload: ciphertext, at the plaintext's offsets
//! ```
//!
//! All integers are little-endian.

use serde::{Deserialize, Serialize};

pub use crate::envelope::{
    ENVELOPE_MAX, Envelope, Held, SLOT_LEN, SLOTS_DEFAULT, SLOTS_MAX, Slot, SlotNonce,
};
use crate::error::Error;
use crate::keys::{MANIFEST, TAG_LEN};
use crate::manifest::{MANIFEST_MAX, Manifest, Subject, subject_bytes};
use crate::sign::{Publisher, SIGNATURE_LEN, Signature, Verified};
use crate::strict::Reader;

/// First bytes of a sealed model.
pub const MAGIC: [u8; 8] = *b"\x89MSEAL\x1a\n";
/// The format version that this crate reads and writes.
pub const FORMAT_VERSION: u16 = 1;
/// Length of the prefix in bytes.
pub const PREFIX_LEN: usize = 16;
/// Longest prefix and manifest together, in bytes: what a reader keeps in memory of its own.
pub const HEADER_MAX: usize = PREFIX_LEN + MANIFEST_MAX;
const SIGNATURE: u32 = 64;
const SLOT: u32 = 128;
const ENVELOPE_MIN: u32 = SIGNATURE + SLOT;
const ENVELOPE_LONGEST: u32 = SIGNATURE + 16 * SLOT;
const _: () = assert!(SIGNATURE as usize == SIGNATURE_LEN && SLOT as usize == SLOT_LEN);
const _: () = assert!(ENVELOPE_LONGEST as usize == ENVELOPE_MAX);
/// Before the first release, 1 ..= 16 slots had 64 bytes. The lengths that an odd number of them gave are no lengths now.
const OLD_MIN: u32 = 64 * (1 + 1);
const OLD_LONGEST: u32 = 64 * (1 + 15);
/// Length of one index entry in bytes.
pub const ENTRY_LEN: usize = TAG_LEN + 32;

/// BLAKE3 of the signed bytes (4.5): the name by which grants and logs know a sealed model. Holding one
/// proves nothing about the model; it was computed from whatever manifest was in hand.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ModelId([u8; 32]);

impl ModelId {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.array().copied().map(Self)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Display for ModelId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for ModelId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// The first 16 bytes, with both lengths in bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    manifest_len: u16,
    envelope_len: u32,
}

impl Prefix {
    /// Reads the prefix, in the order of 4.1. Everything else of the file is read with the lengths that it
    /// gives.
    pub fn parse(bytes: &[u8; PREFIX_LEN]) -> Result<Self, Error> {
        let [magic @ .., v0, v1, m0, m1, e0, e1, e2, e3] = *bytes;
        if magic != MAGIC {
            return Err(Error::ForeignMagic);
        }
        if u16::from_le_bytes([v0, v1]) != FORMAT_VERSION {
            return Err(Error::UnknownVersion);
        }
        Self::new(u16::from_le_bytes([m0, m1]), u32::from_le_bytes([e0, e1, e2, e3]))
    }

    fn new(manifest_len: u16, envelope_len: u32) -> Result<Self, Error> {
        if !(1..=MANIFEST_MAX).contains(&manifest_len.into()) {
            return Err(Error::ManifestLength);
        }
        match envelope_len {
            ENVELOPE_MIN..=ENVELOPE_LONGEST if envelope_len % SLOT == ENVELOPE_MIN % SLOT => {
                Ok(Self { manifest_len, envelope_len })
            }
            OLD_MIN..=OLD_LONGEST if envelope_len.is_multiple_of(SLOT) => Err(Error::OldSlots),
            _ => Err(Error::EnvelopeLength),
        }
    }

    fn encode(self) -> [u8; PREFIX_LEN] {
        let [v0, v1] = FORMAT_VERSION.to_le_bytes();
        let [m0, m1] = self.manifest_len.to_le_bytes();
        let [e0, e1, e2, e3] = self.envelope_len.to_le_bytes();
        let [g0, g1, g2, g3, g4, g5, g6, g7] = MAGIC;
        [g0, g1, g2, g3, g4, g5, g6, g7, v0, v1, m0, m1, e0, e1, e2, e3]
    }

    /// Length of prefix and manifest together: the signed bytes of the file.
    pub fn header_len(&self) -> usize {
        PREFIX_LEN + usize::from(self.manifest_len)
    }

    /// Length of the envelope in bytes.
    pub fn envelope_len(&self) -> usize {
        self.envelope_len as usize
    }
}

/// Prefix and manifest, of the right shape. Holding one doesn't prove that they are genuine: that is
/// [`Verified<Header>`](Verified), or a grant that names its id.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    bytes: &'a [u8],
    manifest: Manifest<'a>,
    prefix: Prefix,
}

impl<'a> Header<'a> {
    /// Reads bytes 0 .. 16+M (4.1, 4.2), which must lie in memory that nobody else writes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (prefix, rest) = bytes.split_first_chunk().ok_or(Error::Truncated)?;
        let prefix = Prefix::parse(prefix)?;
        if rest.len() != usize::from(prefix.manifest_len) {
            return Err(if bytes.len() < prefix.header_len() { Error::Truncated } else { Error::Extended });
        }
        let manifest = Manifest::parse(rest)?;
        Ok(Self { bytes, manifest, prefix })
    }

    /// Writes prefix and manifest.
    pub(crate) fn encode(manifest: &Manifest<'_>, slots: u8) -> Result<heapless::Vec<u8, HEADER_MAX>, Error> {
        let mut buffer = [0; MANIFEST_MAX];
        let encoded = manifest.encode(&mut buffer)?;
        let prefix = prefix_of(encoded.len(), slots)?;
        Ok(prefix.encode().iter().chain(encoded).copied().collect())
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest<'a> {
        &self.manifest
    }

    /// Sizes and offsets.
    pub fn layout(&self) -> Layout {
        Layout::new(self.prefix, &self.manifest.subject)
    }

    /// (4.5) `model id = BLAKE3("modelseal/v1/manifest\0" || bytes 0 .. 16+M)`
    #[inline(never)]
    pub fn id(&self) -> ModelId {
        ModelId(*blake3::Hasher::new().update(MANIFEST).update(self.bytes).finalize().as_bytes())
    }

    pub(crate) fn subject_bytes(&self) -> Result<&'a [u8], Error> {
        subject_bytes(self.bytes.get(PREFIX_LEN..).ok_or(Error::Truncated)?)
    }

    /// (4.5) `signed bytes = "modelseal/v1/manifest\0" || bytes 0 .. 16+M`
    pub fn signed_bytes(&self) -> SignedBytes {
        MANIFEST.iter().chain(self.bytes).copied().collect()
    }

    /// The same header, read from its bytes once more.
    pub(crate) fn parse_again(&self) -> Result<Self, Error> {
        Self::parse(self.bytes)
    }

    /// Checks the publisher's signature (5).
    pub fn verify(self, signature: &Signature, publisher: &Publisher) -> Result<Verified<Self>, Error> {
        let message = [MANIFEST, self.bytes];
        publisher.verify(self, &message, signature).ok_or(Error::ManifestSignature)
    }

    /// The same for whoever goes on without a [`Verified`].
    pub(crate) fn check_signature(&self, signature: &Signature, publisher: &Publisher) -> Result<(), Error> {
        publisher.verify((), &[MANIFEST, self.bytes], signature).map(|_| ()).ok_or(Error::ManifestSignature)
    }
}

/// A signed message: the label and the header.
pub type SignedBytes = heapless::Vec<u8, { MANIFEST.len() + HEADER_MAX }>;

/// Where everything is (4.1). All offsets are from the start of the file.
///
/// ```text
/// chunks = ceil(length / 2^c)
/// P      = 2^a * ceil((16 + M + E + 48 * chunks) / 2^a)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the envelope begins.
    pub envelope: u64,
    /// Where the index begins.
    pub index: u64,
    /// Where the padding begins: the end of the index.
    pub padding: u64,
    /// Where the payload begins.
    pub payload: u64,
    /// Length of the model in bytes.
    pub length: u64,
    /// Where the file ends, exactly.
    pub end: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Length of every chunk but the last, in bytes.
    pub chunk_size: u32,
}

impl Layout {
    /// Of a subject whose bounds were checked. They keep every sum far below 2^64.
    fn new(prefix: Prefix, subject: &Subject<'_>) -> Self {
        let chunk_size = 1u32 << subject.chunk_log2;
        let chunks = (subject.length + u64::from(chunk_size - 1)) >> subject.chunk_log2;
        let envelope = prefix.header_len() as u64;
        let index = envelope + u64::from(prefix.envelope_len);
        let padding = index + chunks * ENTRY_LEN as u64;
        let odd = u64::from((1u32 << subject.align_log2) - 1);
        let payload = (padding + odd) & !odd;
        let end = payload + subject.length;
        Self { envelope, index, padding, payload, length: subject.length, end, chunks, chunk_size }
    }

    /// The layout that sealing `subject` will give.
    pub fn of(subject: &Subject<'_>, slots: u8) -> Result<Self, Error> {
        subject.check()?;
        Ok(Self::new(prefix_of(subject.manifest_len(), slots)?, subject))
    }

    /// Where key slot `i` begins (4.3); `None` beyond the last. A slot is [`SLOT_LEN`] bytes, written alone.
    pub fn slot(&self, i: usize) -> Option<u64> {
        let before =
            u64::try_from(i).ok()?.checked_mul(SLOT_LEN as u64)?.checked_add(SIGNATURE_LEN as u64)?;
        self.envelope.checked_add(before).filter(|offset| *offset < self.index)
    }

    /// Length of chunk `i` (3.2), in bytes; 0 beyond the last.
    pub fn chunk_len(&self, i: u64) -> usize {
        let start = i.saturating_mul(self.chunk_size.into());
        let len = self.length.saturating_sub(start).min(self.chunk_size.into());
        // Always fits: it is at most 2^20.
        usize::try_from(len).unwrap_or(0)
    }
}

fn prefix_of(manifest_len: usize, slots: u8) -> Result<Prefix, Error> {
    let manifest_len = u16::try_from(manifest_len).map_err(|_| Error::ManifestLength)?;
    Prefix::new(manifest_len, SIGNATURE + SLOT * u32::from(slots))
}

/// What the index holds of one chunk (4.4): `tag[16] || chaining value[32]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The AEAD tag.
    pub tag: [u8; TAG_LEN],
    /// BLAKE3's subtree value at the chunk's offset, or the root where there is one chunk only.
    pub chaining_value: [u8; 32],
}

impl Entry {
    /// Reads an entry. Every value has the right shape.
    pub fn parse(bytes: &[u8; ENTRY_LEN]) -> Self {
        let mut entry = Self { tag: [0; TAG_LEN], chaining_value: [0; 32] };
        let (tag, value) = bytes.split_at(TAG_LEN);
        entry.tag.copy_from_slice(tag);
        entry.chaining_value.copy_from_slice(value);
        entry
    }

    /// Writes an entry.
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        let (tag, value) = bytes.split_at_mut(TAG_LEN);
        tag.copy_from_slice(&self.tag);
        value.copy_from_slice(&self.chaining_value);
        bytes
    }
}
