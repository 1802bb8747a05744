//! The layout of a sealed model (FORMAT.md, section 4.1).
//!
//! ```text
//! offset    size             field
//! 0         8                magic 89 4D 53 45 41 4C 1A 0A
//! 8         2                format version = 1
//! 10        2                manifest length M            1 ..= 1024
//! 12        4                envelope length E            64 * (1 + slots), slots 1 ..= 16
//! 16        M                manifest
//! 16+M      E                envelope: signature[64], slots[64 each]
//! 16+M+E    48 * chunks      index: tag[16] || chaining value[32] of each chunk
//! …         to alignment     zeros
//! P         model length     payload: ciphertext, at the plaintext's offsets
//! ```
//!
//! All integers are little-endian.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::keys::{MANIFEST, NONCE_LEN, TAG_LEN};
use crate::manifest::{MANIFEST_MAX, Manifest, Subject, subject_bytes};
use crate::sign::{Publisher, Signature, Verified};
use crate::strict::Reader;

/// First bytes of a sealed model.
pub const MAGIC: [u8; 8] = *b"\x89MSEAL\x1a\n";
/// The format version that this crate reads and writes.
pub const FORMAT_VERSION: u16 = 1;
/// Length of the prefix in bytes.
pub const PREFIX_LEN: usize = 16;
/// Longest prefix and manifest together, in bytes: what a reader keeps in memory of its own.
pub const HEADER_MAX: usize = PREFIX_LEN + MANIFEST_MAX;
/// Length of one key slot, and of the signature before the slots, in bytes.
pub const SLOT_LEN: usize = 64;
const SLOT: u32 = 64;
/// Longest envelope in bytes.
pub const ENVELOPE_MAX: usize = SLOT_LEN * (1 + SLOTS_MAX as usize);
/// Number of key slots unless the sealer says otherwise.
pub const SLOTS_DEFAULT: u8 = 4;
/// Most key slots.
pub const SLOTS_MAX: u8 = 16;
/// Length of one index entry in bytes.
pub const ENTRY_LEN: usize = TAG_LEN + 32;

const _: () = assert!(4 + NONCE_LEN + 32 + TAG_LEN == SLOT_LEN && SLOT as usize == SLOT_LEN);

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
        let slots = (envelope_len / SLOT).checked_sub(1).ok_or(Error::EnvelopeLength)?;
        if !envelope_len.is_multiple_of(SLOT) || !(1..=SLOTS_MAX.into()).contains(&slots) {
            return Err(Error::EnvelopeLength);
        }
        Ok(Self { manifest_len, envelope_len })
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
        let before = u64::try_from(i).ok()?.checked_add(1)?.checked_mul(SLOT_LEN as u64)?;
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
    Prefix::new(manifest_len, SLOT * (1 + u32::from(slots)))
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

/// A content key under one version of a vault's master key (3.5, 4.3): AES-256-GCM with the additional data
/// of [`content_key_aad`](crate::keys::content_key_aad).
///
/// `slot = U32(master key version) || nonce[12] || ciphertext[32] || tag[16]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Version of the master key, from 1.
    pub version: u32,
    /// Random.
    pub nonce: [u8; NONCE_LEN],
    /// The content key, encrypted.
    pub ciphertext: [u8; 32],
    /// The AEAD tag.
    pub tag: [u8; TAG_LEN],
}

impl Slot {
    /// What clears a slot.
    pub const EMPTY: [u8; SLOT_LEN] = [0; SLOT_LEN];

    /// Reads a slot; `None` where it is empty, which version 0 alone says: a slot half cleared is empty.
    fn parse(bytes: &[u8; SLOT_LEN]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (ciphertext, rest) = rest.split_first_chunk()?;
        let (tag, _) = rest.split_first_chunk()?;
        let version = u32::from_le_bytes(*version);
        (version != 0).then_some(Self { version, nonce: *nonce, ciphertext: *ciphertext, tag: *tag })
    }

    /// Writes the slot, for [`Layout::slot`].
    pub fn encode(&self) -> [u8; SLOT_LEN] {
        let mut bytes = Self::EMPTY;
        let parts =
            self.version.to_le_bytes().into_iter().chain(self.nonce).chain(self.ciphertext).chain(self.tag);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }
}

/// The signature and the key slots (4.3). It holds nothing that the signature must cover.
///
/// `envelope = signature[64] || slot || slot || …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    signature: Signature,
    slots: heapless::Vec<Option<Slot>, { SLOTS_MAX as usize }>,
}

impl Envelope {
    /// Reads an envelope of the length that the prefix gave.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (signature, slots) = bytes.split_first_chunk().ok_or(Error::Truncated)?;
        let (slots, []) = slots.as_chunks() else { return Err(Error::EnvelopeLength) };
        if slots.is_empty() || slots.len() > usize::from(SLOTS_MAX) {
            return Err(Error::EnvelopeLength);
        }
        Ok(Self {
            signature: Signature::from_bytes(signature),
            slots: slots.iter().map(Slot::parse).collect(),
        })
    }

    /// A new envelope with one slot used of `slots`.
    pub fn new(signature: Signature, slot: Slot, slots: u8) -> Result<Self, Error> {
        if !(1..=SLOTS_MAX).contains(&slots) || slot.version == 0 {
            return Err(Error::EnvelopeLength);
        }
        let empty = core::iter::repeat_n(None, usize::from(slots) - 1);
        Ok(Self { signature, slots: core::iter::once(Some(slot)).chain(empty).collect() })
    }

    /// Writes the envelope.
    pub fn encode(&self) -> heapless::Vec<u8, ENVELOPE_MAX> {
        let mut bytes: heapless::Vec<u8, ENVELOPE_MAX> = self.signature.to_bytes().into_iter().collect();
        for slot in &self.slots {
            match slot {
                Some(slot) => bytes.extend(slot.encode()),
                None => bytes.extend(Slot::EMPTY),
            }
        }
        bytes
    }

    /// The publisher's signature over the header.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The slots in use.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    /// The slots in use, each with its number for [`Layout::slot`].
    ///
    /// After a change of master key, the content key goes into the [free slot](Self::free_slot); only once that is
    /// stored durably is the old one overwritten with [`Slot::EMPTY`]. A torn write then spoils at most the slot
    /// that was being written, and one that opens is always there.
    pub fn numbered_slots(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.as_ref()?)))
    }

    /// The number of the first slot that isn't in use.
    pub fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none)
    }
}
