//! The index of a sealed model: checked against the root once, and the same ever after (FORMAT.md, section 4.4).
//!
//! Of an index only a hash of each block is kept, so that any size of model needs next to no memory, and yet no entry can
//! change unnoticed. When entries of it are needed, their block is read again and compared. A lazy model keeps all of an
//! index that isn't long.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use modelseal_core::Error as Refusal;
use modelseal_core::lazy::{CheckedIndex, IndexCheck};
use modelseal_core::sealed::{ENTRY_LEN, Entry, Header, Layout};

use crate::error::{Code, Error, Result};
use crate::files::read_exact_at;
use crate::open::SealedFile;

/// Entries of one block.
const BLOCK: u64 = 4096;
/// Blocks whose hashes are kept: 32 MiB of them, for 2^32 chunks.
const BLOCKS_MAX: u64 = 1 << 20;
/// Bytes of an index that a lazy model keeps.
const KEPT_MAX: u64 = 16 << 20;

/// The blocks of an index that was checked.
pub(crate) struct Blocks {
    layout: Layout,
    hashes: Vec<[u8; 32]>,
    /// All of it, if it is kept.
    kept: Option<Vec<u8>>,
}

/// What becomes of the index once it is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It will be read once more.
    Hashes,
    /// Parts of it will be needed often.
    All,
}

impl SealedFile {
    /// Between steps 6 and 7, the first reading of the index: against the root (4.4), and the padding
    /// behind it.
    pub(crate) fn check_index(&self, header: &Header<'_>, keep: Keep) -> Result<(CheckedIndex, Blocks)> {
        let layout = header.layout();
        require_blocks(&self.path, layout)?;
        let mut check = IndexCheck::new(header);
        let mut hashes = Vec::new();
        let mut kept = (keep == Keep::All && layout.padding - layout.index <= KEPT_MAX).then(Vec::new);
        for block in 0..layout.chunks.div_ceil(BLOCK) {
            let bytes = read_block(&self.file, layout, block).map_err(|error| self.unread(&error))?;
            hashes.push(*blake3::hash(&bytes).as_bytes());
            for entry in bytes.as_chunks::<ENTRY_LEN>().0 {
                check.push(&Entry::parse(entry)).map_err(|error| self.about(error.into()))?;
            }
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&bytes);
            }
        }
        let padding = read(&self.file, layout.padding, layout.payload - layout.padding);
        if padding.map_err(|error| self.unread(&error))?.iter().any(|byte| *byte != 0) {
            return Err(self.about(Refusal::Padding.into()));
        }
        let checked = check.finish().map_err(|error| self.about(error.into()))?;
        Ok((checked, Blocks { layout, hashes, kept }))
    }

    /// What couldn't be read.
    pub(crate) fn unread(&self, error: &std::io::Error) -> Error {
        unread(&self.path, error)
    }
}

pub(crate) fn unread(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::from(Refusal::Truncated).about(path),
        _ => Error::io(path, error),
    }
}

impl Blocks {
    /// The block of this number, as it was when it was checked.
    fn block(&self, number: u64, file: &File, path: &Path) -> Result<Cow<'_, [u8]>> {
        let number_in_memory = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(kept) = &self.kept {
            let block_len = usize::try_from(BLOCK).unwrap_or(usize::MAX).saturating_mul(ENTRY_LEN);
            let block = kept.chunks(block_len).nth(number_in_memory);
            return Ok(block.unwrap_or_default().into());
        }
        let bytes = read_block(file, self.layout, number).map_err(|error| unread(path, &error))?;
        if self.hashes.get(number_in_memory).is_none_or(|hash| blake3::hash(&bytes) != *hash) {
            return Err(Error::from(Refusal::Index).about(path));
        }
        Ok(bytes.into())
    }
}

/// Entries of a checked index, one after the other.
pub(crate) struct Entries<'a> {
    blocks: &'a Blocks,
    file: &'a File,
    path: &'a Path,
    next: u64,
    block: u64,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Entries<'a> {
    /// From number `first` on.
    pub(crate) fn new(blocks: &'a Blocks, file: &'a File, path: &'a Path, first: u64) -> Self {
        Self { blocks, file, path, next: first, block: u64::MAX, bytes: Cow::default() }
    }

    /// The number of the first of the next entries, of which at most `most` go into `entries`; `None` after the last.
    pub(crate) fn next(&mut self, most: usize, entries: &mut Vec<Entry>) -> Result<Option<u64>> {
        entries.clear();
        let first = self.next;
        while entries.len() < most && self.next < self.blocks.layout.chunks {
            if self.next / BLOCK != self.block {
                self.bytes = self.blocks.block(self.next / BLOCK, self.file, self.path)?;
                self.block = self.next / BLOCK;
            }
            let entry = entry(&self.bytes, self.next % BLOCK);
            entries.push(entry.ok_or_else(|| Error::from(Refusal::Index).about(self.path))?);
            self.next += 1;
        }
        Ok((!entries.is_empty()).then_some(first))
    }
}

/// Entry number `i` of some.
fn entry(bytes: &[u8], i: u64) -> Option<Entry> {
    bytes.as_chunks::<ENTRY_LEN>().0.get(usize::try_from(i).ok()?).map(Entry::parse)
}

pub(crate) fn require_blocks(path: &Path, layout: Layout) -> Result<()> {
    if layout.chunks.div_ceil(BLOCK) <= BLOCKS_MAX {
        return Ok(());
    }
    let what = format!("{}: {} chunks are too many for this reader", path.display(), layout.chunks);
    Err(Error::new(Code::Other, what, "seal the model again with --profile host"))
}

fn read_block(file: &File, layout: Layout, block: u64) -> std::io::Result<Vec<u8>> {
    let entries = layout.chunks.saturating_sub(block * BLOCK).min(BLOCK);
    read(file, layout.index + block * BLOCK * ENTRY_LEN as u64, entries * ENTRY_LEN as u64)
}

/// A part of at most a few hundred KiB before the payload.
fn read(file: &File, offset: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    read_exact_at(file, &mut bytes, offset)?;
    Ok(bytes)
}
