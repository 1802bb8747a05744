//! A model whose chunks are checked as they are read, for hosts (FORMAT.md, section 7, "A host").
//!
//! ```text
//!  IndexCheck ─▶ CheckedIndex          every chaining value, against the root, once
//!  Unwrapped + CheckedIndex ─▶ Lazy    the keys of a model that stays open
//!  Lazy ─▶ Chunks                      then any chunk alone, in any order
//! ```

use zeroize::Zeroize;

use crate::chunk::{ChunkCipher, Portable};
use crate::error::Error;
use crate::keys::PayloadKeys;
use crate::manifest::Suite;
use crate::open::{Confirmation, Unwrapped, equal};
use crate::sealed::{Entry, Header, Layout};
use crate::tree::{Tree, chaining_value};

/// Checks an index against the root (4.4): between steps 6 and 7.
pub struct IndexCheck {
    tree: Tree,
    layout: Layout,
    root: [u8; 32],
}

impl IndexCheck {
    /// For the index of this header.
    pub fn new(header: &Header<'_>) -> Self {
        Self { tree: Tree::new(), layout: header.layout(), root: header.manifest().root }
    }

    /// Takes the next entry.
    pub fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        self.tree.push(entry.chaining_value)
    }

    /// After the last entry.
    pub fn finish(self) -> Result<CheckedIndex, Error> {
        if self.tree.count() != self.layout.chunks || !equal(&self.tree.root()?, &self.root) {
            return Err(Error::Index);
        }
        Ok(CheckedIndex { layout: self.layout, root: self.root })
    }
}

/// Proves that the chaining values pushed into an [`IndexCheck`] hash to the root of a manifest, whose
/// genuineness is another matter. The tags are checked when the chunks are opened.
pub struct CheckedIndex {
    layout: Layout,
    root: [u8; 32],
}

impl CheckedIndex {
    /// (4.4) Checks the ciphertext of chunk `i`, which anybody can, without a key. `entry` is the one that
    /// went into the [`IndexCheck`]: the caller has kept the index, or a hash of it, since.
    pub fn check_chunk(&self, i: u64, entry: &Entry, ciphertext: &[u8]) -> Result<(), Error> {
        if ciphertext.is_empty() || ciphertext.len() != self.layout.chunk_len(i) {
            return Err(Error::Memory);
        }
        let offset = i * u64::from(self.layout.chunk_size);
        let value = chaining_value(ciphertext, offset, self.layout.chunks == 1);
        if equal(&value, &entry.chaining_value) { Ok(()) } else { Err(Error::Chunk) }
    }
}

/// A model whose chunks are checked as they are read: only the bytes already handed out were authentic.
///
/// It has the model's keys and no pointers, so that its owner can keep it where core dumps don't reach.
pub struct Lazy {
    suite: Suite,
    keys: PayloadKeys,
    index: CheckedIndex,
    confirmation: Confirmation,
}

impl Lazy {
    /// Sizes and offsets.
    pub fn layout(&self) -> Layout {
        self.index.layout
    }

    /// Keys a back end for some chunks.
    pub fn keyed<C: ChunkCipher>(&self) -> Result<Chunks<'_, C>, Error> {
        Ok(Chunks { cipher: C::new(self.suite, &self.keys.key)?, lazy: self })
    }

    /// What step 9 needs, of a model that stays open.
    pub fn confirmation(&self) -> Confirmation {
        self.confirmation.again()
    }

    /// After the last chunk that was wanted: what step 9 needs.
    pub fn finish(self) -> Confirmation {
        self.confirmation
    }
}

/// The chunks of a [`Lazy`] model, while some of them are read.
pub struct Chunks<'a, C = Portable> {
    cipher: C,
    lazy: &'a Lazy,
}

impl<C: ChunkCipher> Chunks<'_, C> {
    /// Sizes and offsets.
    pub fn layout(&self) -> Layout {
        self.lazy.layout()
    }

    /// (3.2) Decrypts chunk `i` in place, with `entry` as for [`CheckedIndex::check_chunk`]. On failure
    /// `chunk` is wiped.
    pub fn open_chunk(&self, i: u64, entry: &Entry, chunk: &mut [u8]) -> Result<(), Error> {
        let Lazy { index, keys, .. } = self.lazy;
        let checked = index.check_chunk(i, entry, chunk);
        let opened = checked.and_then(|()| self.cipher.open(&keys.nonce(i), &[], chunk, &entry.tag));
        if opened.is_err() {
            chunk.zeroize();
        }
        opened
    }

    /// The same from a ciphertext that nobody else writes into `chunk`, where it belongs. On failure `chunk` is wiped.
    pub fn open_chunk_into(
        &self,
        i: u64,
        entry: &Entry,
        ciphertext: &[u8],
        chunk: &mut [u8],
    ) -> Result<(), Error> {
        let Lazy { index, keys, .. } = self.lazy;
        let opened = index
            .check_chunk(i, entry, ciphertext)
            .and_then(|()| self.cipher.open_into(&keys.nonce(i), &[], ciphertext, &entry.tag, chunk));
        if opened.is_err() {
            chunk.zeroize();
        }
        opened
    }
}

impl Unwrapped<'_> {
    /// A model whose chunks are checked as they are read, on the strength of a checked index.
    pub fn into_lazy(self, index: CheckedIndex) -> Result<Lazy, Error> {
        let manifest = self.header.manifest();
        if !equal(&index.root, &manifest.root) || index.layout != self.header.layout() {
            return Err(Error::Index);
        }
        let suite = manifest.subject.suite;
        Ok(Lazy { suite, keys: self.keys, index, confirmation: self.confirmation })
    }
}
