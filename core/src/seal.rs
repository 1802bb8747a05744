//! Model -> sealed model (FORMAT.md, section 4.5): the mirror of [`open`](crate::open).
//!
//! ```text
//! Sealing::new ─▶ seal_next, chunk by chunk ─▶ finish ─▶ Unsigned ─▶ a vault wraps and signs ─▶ Envelope
//! ```

use heapless::Vec;
use rand_core::CryptoRng;

use crate::chunk::{ChunkCipher, Portable};
use crate::error::Error;
use crate::keys::{ContentKey, PayloadKeys};
use crate::manifest::{MANIFEST_MAX, Manifest, Subject};
use crate::sealed::{Entry, HEADER_MAX, Header, Layout};
use crate::tree::{Tree, chaining_value};

/// A model on its way to being sealed, under a content key made for it alone.
pub struct Sealing<'a, C = Portable> {
    subject: Subject<'a>,
    slots: u8,
    layout: Layout,
    content: ContentKey,
    keys: PayloadKeys,
    cipher: C,
    tree: Tree,
}

impl<'a, C: ChunkCipher> Sealing<'a, C> {
    /// Steps 1 and 2 of 4.5: checks every bound of `subject` and makes a content key. The sealed model will
    /// have `slots` key slots, of which the first is used.
    pub fn new(subject: Subject<'a>, slots: u8, rng: &mut impl CryptoRng) -> Result<Self, Error> {
        let layout = Layout::of(&subject, slots)?;
        let content = ContentKey::generate(rng);
        let mut buffer = [0; MANIFEST_MAX];
        let encoded = postcard::to_slice(&subject, &mut buffer).map_err(|_| Error::ManifestLength)?;
        let keys = content.derive(encoded)?;
        let cipher = C::new(subject.suite, &keys.key)?;
        Ok(Self { subject, slots, layout, content, keys, cipher, tree: Tree::new() })
    }

    /// Sizes and offsets of the sealed model.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Step 3: encrypts the next chunk in place. Every chunk has the layout's
    /// [`chunk_len`](Layout::chunk_len).
    pub fn seal_next(&mut self, chunk: &mut [u8]) -> Result<Entry, Error> {
        let i = self.tree.count();
        if i >= self.layout.chunks || chunk.len() != self.layout.chunk_len(i) {
            return Err(Error::Memory);
        }
        let tag = self.cipher.seal(&self.keys.nonce(i), &[], chunk)?;
        let offset = i * u64::from(self.layout.chunk_size);
        let entry = Entry { tag, chaining_value: chaining_value(chunk, offset, self.layout.chunks == 1) };
        self.tree.push(entry.chaining_value)?;
        Ok(entry)
    }

    /// Steps 4 and 5, after the last chunk: the header, and the content key for the vault to wrap.
    pub fn finish(self) -> Result<Unsigned, Error> {
        if self.tree.count() != self.layout.chunks {
            return Err(Error::Truncated);
        }
        let commitment = self.keys.commitment;
        let manifest = Manifest { subject: self.subject, commitment, root: self.tree.root()? };
        Ok(Unsigned {
            header: Header::encode(&manifest, self.slots)?,
            content: self.content,
            slots: self.slots,
        })
    }
}

/// All of a sealed model but its envelope, which a vault makes: steps 6 and 7.
pub struct Unsigned {
    header: Vec<u8, HEADER_MAX>,
    content: ContentKey,
    slots: u8,
}

impl Unsigned {
    /// Bytes 0 .. 16+M of the sealed model.
    pub fn header_bytes(&self) -> &[u8] {
        &self.header
    }

    /// Prefix and manifest.
    pub fn header(&self) -> Result<Header<'_>, Error> {
        Header::parse(&self.header)
    }

    /// The content key, for the vault to wrap.
    pub fn content_key(&self) -> &ContentKey {
        &self.content
    }

    /// How many key slots the envelope has.
    pub fn slots(&self) -> u8 {
        self.slots
    }
}
