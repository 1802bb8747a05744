//! Model -> sealed model (FORMAT.md, section 4.5): the mirror of [`open`](crate::open).
//!
//! ```text
//! Sealing::new ─▶ seal_next, chunk by chunk ─▶ finish ─▶ Unsigned ─▶ a vault wraps and signs ─▶ Envelope
//!               └▶ split ─▶ Seats: chunks at once ─▶ Entries: in order ┘
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
    content: ContentKey,
    chunks: Chunks<C>,
    /// The number of the next chunk to be encrypted. It only grows: no nonce is used twice.
    next: u64,
    tree: Tree,
}

/// What encrypting any chunk takes.
struct Chunks<C> {
    layout: Layout,
    keys: PayloadKeys,
    cipher: C,
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
        let chunks = Chunks { layout, keys, cipher };
        Ok(Self { subject, slots, content, chunks, next: 0, tree: Tree::new() })
    }

    /// Sizes and offsets of the sealed model.
    pub fn layout(&self) -> Layout {
        self.chunks.layout
    }

    /// Step 3: encrypts the next chunk in place. Every chunk has the layout's
    /// [`chunk_len`](Layout::chunk_len).
    pub fn seal_next(&mut self, chunk: &mut [u8]) -> Result<Entry, Error> {
        if chunk.len() != self.chunks.layout.chunk_len(self.next) {
            return Err(Error::Memory);
        }
        let (mut seats, mut entries) = self.split();
        let entry = seats.next().ok_or(Error::Memory)?.seal(chunk)?;
        entries.push(&entry)?;
        Ok(entry)
    }

    /// Step 3 for several chunks at once: a seat for each chunk that is still to be encrypted, and where the entries
    /// go, in order.
    pub fn split(&mut self) -> (Seats<'_, C>, Entries<'_>) {
        (Seats { chunks: &self.chunks, next: &mut self.next }, Entries(&mut self.tree))
    }

    /// Steps 4 and 5, after the last chunk: the header, and the content key for the vault to wrap.
    pub fn finish(self) -> Result<Unsigned, Error> {
        if self.tree.count() != self.chunks.layout.chunks {
            return Err(Error::Truncated);
        }
        let commitment = self.chunks.keys.commitment;
        let manifest = Manifest { subject: self.subject, commitment, root: self.tree.root()? };
        Ok(Unsigned {
            header: Header::encode(&manifest, self.slots)?,
            content: self.content,
            slots: self.slots,
        })
    }
}

/// The chunks that are still to be encrypted, each once.
pub struct Seats<'s, C> {
    chunks: &'s Chunks<C>,
    next: &'s mut u64,
}

impl<'s, C> Iterator for Seats<'s, C> {
    type Item = Seat<'s, C>;

    fn next(&mut self) -> Option<Seat<'s, C>> {
        let number = *self.next;
        if number >= self.chunks.layout.chunks {
            return None;
        }
        *self.next = number.checked_add(1)?;
        Some(Seat { chunks: self.chunks, number })
    }
}

/// One chunk's number, which is in its nonce: nobody else has it, and it is used up by encrypting one chunk.
pub struct Seat<'s, C> {
    chunks: &'s Chunks<C>,
    number: u64,
}

impl<C: ChunkCipher> Seat<'_, C> {
    /// Encrypts the chunk in place. It has the layout's [`chunk_len`](Layout::chunk_len).
    pub fn seal(self, chunk: &mut [u8]) -> Result<Entry, Error> {
        let Chunks { layout, keys, cipher } = self.chunks;
        let i = self.number;
        if chunk.len() != layout.chunk_len(i) {
            return Err(Error::Memory);
        }
        let tag = cipher.seal(&keys.nonce(i), &[], chunk)?;
        let offset = i * u64::from(layout.chunk_size);
        Ok(Entry { tag, chaining_value: chaining_value(chunk, offset, layout.chunks == 1) })
    }
}

/// Where the entries go. In any other order than that of the chunks, the model won't open.
pub struct Entries<'s>(&'s mut Tree);

impl Entries<'_> {
    /// Takes the next chunk's entry.
    pub fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        self.0.push(entry.chaining_value)
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
