//! A sealed model of which parts are opened as they are wanted (FORMAT.md, section 7, "A host").
//!
//! When it is opened, everything but the payload is checked. Of the payload, only the chunks that a part touches are
//! read, verified and opened: what was handed out was authentic, and of the rest nothing is known.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use modelseal_core::Error as Refusal;
use modelseal_core::lazy::{Chunks, Lazy};
use modelseal_core::open::{Confirmation, Unwrapped};
use modelseal_core::sealed::{Entry, Header};
use modelseal_hsm::wiped::wiped;
use zeroize::Zeroize;

use crate::cipher::{Backend, Cipher};
use crate::error::{Error, Result};
use crate::files::read_exact_at;
use crate::guarded::Guarded;
use crate::index::{Blocks, Entries, Keep, unread};
use crate::memory::Buffer;
use crate::open::SealedFile;
use crate::opener::Confirming;
use crate::whole::{Units, unit_len};
use crate::work::at_once;

/// A sealed model whose parts can be read, by any number of threads at once.
pub struct LazyModel {
    path: PathBuf,
    header: Vec<u8>,
    file: File,
    lazy: Guarded<Lazy>,
    blocks: Blocks,
    /// The floor that is still to be stored.
    confirming: Mutex<Option<Confirming>>,
}

impl SealedFile {
    /// Checks everything but the payload, of which parts can be read then.
    pub fn open_lazily(mut self, unwrap: impl FnOnce(&Self) -> Result<Unwrapped<'_>>) -> Result<LazyModel> {
        Backend::chosen()?;
        if self.pipe.take().is_some() {
            let what = format!("{} can only be read from its beginning to its end", self.path.display());
            return Err(Error::usage(what, "name a file, or open the whole model"));
        }
        wiped(|| {
            let (lazy, blocks) = self.unwrap_and_check(unwrap, Keep::All)?;
            let lazy = Guarded::new(lazy)?;
            let confirming = Mutex::new(None);
            Ok(LazyModel { path: self.path, header: self.header, file: self.file, lazy, blocks, confirming })
        })
    }
}

impl LazyModel {
    /// The model's length in bytes. There is no empty model.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty model")]
    pub fn len(&self) -> u64 {
        self.lazy.layout().length
    }

    /// Prefix and manifest, which are genuine.
    pub fn header(&self) -> Result<Header<'_>> {
        Ok(Header::parse(&self.header)?)
    }

    /// What confirming takes.
    pub(crate) fn confirmation(&self) -> Confirmation {
        self.lazy.confirmation()
    }

    pub(crate) fn with_floor(self, confirming: Confirming) -> Self {
        Self { confirming: Mutex::new(Some(confirming)), ..self }
    }

    /// Stores the floor: the application has seen the model run, or has read all of it. The second time it does
    /// nothing; where it failed, it can be tried again by opening the model again.
    pub fn confirm(&self) -> Result<()> {
        let confirming = self.confirming.lock().unwrap_or_else(PoisonError::into_inner).take();
        confirming.map_or(Ok(()), Confirming::confirm)
    }

    /// Reads the bytes from `offset` on, as many as `out` has. On failure `out` is wiped.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len());
        let read = match end {
            Some(end) if !out.is_empty() => wiped(|| self.read_parts(offset, end, out)),
            Some(_) => Ok(()),
            None => {
                let what = format!(
                    "{}: bytes {offset} to {offset} + {} are asked for, and the model has {}",
                    self.path.display(),
                    out.len(),
                    self.len()
                );
                Err(Error::usage(what, "ask for a part that there is"))
            }
        };
        if read.is_err() {
            out.zeroize();
        }
        read
    }

    /// One part for each unit of work that the range touches.
    fn read_parts(&self, offset: u64, end: u64, out: &mut [u8]) -> Result<()> {
        let layout = self.lazy.layout();
        let (chunk, unit) = (u64::from(layout.chunk_size), unit_len(layout) as u64);
        let threads = Units::of(layout, end - offset, false)?.threads;
        let keyed: Chunks<'_, Cipher> = self.lazy.keyed()?;
        let mut entries = Entries::new(&self.blocks, &self.file, &self.path, offset / chunk);
        let (mut at, mut rest) = (offset, out);
        at_once(
            threads,
            || Ok(Part::default()),
            |part: &mut Part<'_>| {
                let until = end.min((at / unit + 1) * unit);
                let (out, later) =
                    std::mem::take(&mut rest).split_at_mut(usize::try_from(until - at).unwrap_or(0));
                (part.at, part.out, rest) = (at, out, later);
                if part.out.is_empty() {
                    return Ok(false);
                }
                let chunks = (until - 1) / chunk - at / chunk + 1;
                at = until;
                Ok(entries.next(usize::try_from(chunks).unwrap_or(0), &mut part.entries)?.is_some())
            },
            // Nobody is told how far it is.
            |part| self.read_part(&keyed, part).map(|()| 0),
            &mut |_| (),
        )
    }

    /// Reads the chunks that a part touches, once, and opens them: where a chunk belongs as a whole into its place.
    fn read_part(&self, keyed: &Chunks<'_, Cipher>, part: &mut Part<'_>) -> Result<()> {
        let layout = keyed.layout();
        let size = layout.chunk_size as usize;
        let first = part.at / u64::from(layout.chunk_size);
        let before = part.at % u64::from(layout.chunk_size);
        let start = part.at - before;
        let len: usize = (first..).zip(&part.entries).map(|(i, _)| layout.chunk_len(i)).sum();
        if part.ciphertext.len() < len {
            part.ciphertext = Buffer::new(len)?;
        }
        let (ciphertext, _) = part.ciphertext.split_at_mut(len);
        read_exact_at(&self.file, ciphertext, layout.payload + start)
            .map_err(|error| unread(&self.path, &error))?;
        let mut skip = usize::try_from(before).unwrap_or(0);
        let mut rest = std::mem::take(&mut part.out);
        for ((i, entry), chunk) in (first..).zip(&part.entries).zip(ciphertext.chunks(size)) {
            let (place, later) = rest.split_at_mut(rest.len().min(chunk.len().saturating_sub(skip)));
            rest = later;
            if place.len() == chunk.len() {
                self.open_chunk(keyed, (i, entry), chunk, place)?;
            } else {
                let mut whole = Buffer::new(chunk.len())?;
                self.open_chunk(keyed, (i, entry), chunk, &mut whole)?;
                let some = whole.get(skip..).and_then(|rest| rest.get(..place.len()));
                place.copy_from_slice(some.ok_or(Refusal::Memory)?);
            }
            skip = 0;
        }
        Ok(())
    }

    fn open_chunk(
        &self,
        keyed: &Chunks<'_, Cipher>,
        (i, entry): (u64, &Entry),
        chunk: &[u8],
        place: &mut [u8],
    ) -> Result<()> {
        let opened = keyed.open_chunk_into(i, entry, chunk, place);
        opened.map_err(|refusal| Error::from(refusal).about(&self.path))
    }
}

/// Some bytes that are wanted, all in one unit of work.
#[derive(Default)]
struct Part<'a> {
    at: u64,
    out: &'a mut [u8],
    entries: Vec<Entry>,
    ciphertext: Buffer,
}
