//! Reads the parts of a sealed model and a grant, each once, from any [`ReadStorage`] or from memory that
//! nobody else writes (FORMAT.md, sections 4.1, 6.1 and 7, step 1).

use core::cmp::Ordering;

use embedded_storage::ReadStorage;
use modelseal_core::Error;
use modelseal_core::grant::{GRANT_MAX, GRANT_PREFIX_LEN, Grant};
use modelseal_core::keys::TAG_LEN;
use modelseal_core::sealed::{ENTRY_LEN, HEADER_MAX, Header, Layout, PREFIX_LEN, Prefix};
use modelseal_core::sign::{SIGNATURE_LEN, Signature};

use crate::provision::DELIVERY_MAX;

/// Memory for a grant while it is in use, and for what may be stored around it.
pub type GrantBuffer = [u8; DELIVERY_MAX];
/// An empty one.
pub const GRANT_BUFFER: GrantBuffer = [0; DELIVERY_MAX];

/// Memory that nobody else writes while it is borrowed: RAM, or flash in the address space.
pub struct Memory<'m> {
    /// Where in the whole it begins.
    start: usize,
    bytes: &'m [u8],
}

impl<'m> Memory<'m> {
    /// All of `bytes`.
    pub fn new(bytes: &'m [u8]) -> Self {
        Self::after(0, bytes)
    }

    /// What follows the first `start` bytes, which can't be read.
    pub(crate) fn after(start: usize, bytes: &'m [u8]) -> Self {
        Self { start, bytes }
    }
}

impl ReadStorage for Memory<'_> {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let offset = usize::try_from(offset).map_err(|_| Error::Storage)?;
        let start = offset.checked_sub(self.start).ok_or(Error::Storage)?;
        let end = start.checked_add(bytes.len()).ok_or(Error::Storage)?;
        bytes.copy_from_slice(self.bytes.get(start..end).ok_or(Error::Storage)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.start.saturating_add(self.bytes.len())
    }
}

/// A part of other storage, such as the sealed model in a larger partition.
pub struct Part<S> {
    storage: S,
    offset: u32,
    len: u32,
}

impl<S: ReadStorage> Part<S> {
    /// `len` bytes from `offset`.
    pub fn new(storage: S, offset: u32, len: u32) -> Self {
        Self { storage, offset, len }
    }

    /// The sealed model at `offset`, as long as its header says. What follows it isn't looked at.
    pub fn sealed_model(storage: S, offset: u32) -> Result<Self, Error> {
        let left = u32::try_from(storage.capacity()).unwrap_or(u32::MAX).saturating_sub(offset);
        let mut part = Self::new(storage, offset, left);
        let mut buffer = [0; HEADER_MAX];
        let end = Header::parse(read_header(&mut part, &mut buffer)?)?.layout().end;
        part.len = u32::try_from(end).ok().filter(|end| *end <= left).ok_or(Error::Truncated)?;
        Ok(part)
    }
}

impl<S: ReadStorage> ReadStorage for Part<S> {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let end = offset.checked_add(u32::try_from(bytes.len()).map_err(|_| Error::Storage)?);
        if end.is_none_or(|end| end > self.len) {
            return Err(Error::Storage);
        }
        let at = self.offset.checked_add(offset).ok_or(Error::Storage)?;
        self.storage.read(at, bytes).map_err(|_| Error::Storage)
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

/// Reads a grant that begins at `offset` into memory that only the reader writes.
pub fn read_grant<'b>(
    storage: &mut impl ReadStorage,
    offset: u64,
    buffer: &'b mut [u8; GRANT_MAX],
) -> Result<Grant<'b>, Error> {
    let (prefix, rest) = buffer.split_first_chunk_mut::<GRANT_PREFIX_LEN>().ok_or(Error::Memory)?;
    read(storage, offset, prefix)?;
    let body = Grant::body_len(prefix)?;
    let at = offset.checked_add(GRANT_PREFIX_LEN as u64).ok_or(Error::Truncated)?;
    read(storage, at, rest.get_mut(..body).ok_or(Error::GrantLength)?)?;
    Grant::parse(buffer.get(..GRANT_PREFIX_LEN + body).ok_or(Error::GrantLength)?)
}

/// Reads bytes 0 .. 16+M into memory that only the reader writes.
pub(crate) fn read_header<'b>(
    storage: &mut impl ReadStorage,
    buffer: &'b mut [u8; HEADER_MAX],
) -> Result<&'b [u8], Error> {
    let (prefix, manifest) = buffer.split_first_chunk_mut::<PREFIX_LEN>().ok_or(Error::Memory)?;
    read(storage, 0, prefix)?;
    let len = Prefix::parse(prefix)?.header_len();
    read(storage, PREFIX_LEN as u64, manifest.get_mut(..len - PREFIX_LEN).ok_or(Error::ManifestLength)?)?;
    buffer.get(..len).ok_or(Error::ManifestLength)
}

/// The signature, which is all that a device needs of the envelope (4.3).
pub(crate) fn read_signature(storage: &mut impl ReadStorage, layout: &Layout) -> Result<Signature, Error> {
    let mut bytes = [0; SIGNATURE_LEN];
    read(storage, layout.envelope, &mut bytes)?;
    Ok(Signature::from_bytes(&bytes))
}

/// The tag of chunk `i`, from the index (4.4). A device needs no chaining values.
pub(crate) fn read_tag(
    storage: &mut impl ReadStorage,
    layout: &Layout,
    i: u64,
) -> Result<[u8; TAG_LEN], Error> {
    let entry = i.checked_mul(ENTRY_LEN as u64).and_then(|n| n.checked_add(layout.index));
    let mut tag = [0; TAG_LEN];
    read(storage, entry.ok_or(Error::Storage)?, &mut tag)?;
    Ok(tag)
}

/// Nothing signs the bytes between index and payload (4.1), so nothing may hide there.
pub(crate) fn check_padding(storage: &mut impl ReadStorage, layout: &Layout) -> Result<(), Error> {
    let mut at = layout.padding;
    while at < layout.payload {
        let mut piece = [0; 64];
        let len = usize::try_from(layout.payload - at).map_or(piece.len(), |left| left.min(piece.len()));
        let piece = piece.get_mut(..len).ok_or(Error::Storage)?;
        read(storage, at, piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            return Err(Error::Padding);
        }
        at += len as u64;
    }
    Ok(())
}

/// (4.1) The file ends with the payload, exactly.
pub(crate) fn check_end(storage: &impl ReadStorage, layout: &Layout) -> Result<(), Error> {
    match (storage.capacity() as u64).cmp(&layout.end) {
        Ordering::Less => Err(Error::Truncated),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(Error::Extended),
    }
}

/// Fills `bytes` from `offset`. What lies beyond the capacity was cut off.
#[inline(never)]
pub(crate) fn read(storage: &mut impl ReadStorage, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
    let end = offset.checked_add(bytes.len() as u64).ok_or(Error::Truncated)?;
    if end > storage.capacity() as u64 {
        return Err(Error::Truncated);
    }
    let offset = u32::try_from(offset).map_err(|_| Error::Storage)?;
    storage.read(offset, bytes).map_err(|_| Error::Storage)
}
