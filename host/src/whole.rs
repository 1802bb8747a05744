//! Sealed model -> model: into memory, to a file or a pipe, or only checked (FORMAT.md, section 7, "A host").
//!
//! Each byte of the payload is read once, a few hundred KiB at a time, into a buffer that stays in the processor's cache;
//! there it is hashed, and from there it is opened into its place. So what was hashed is what is opened, whoever writes
//! to the file meanwhile.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::PoisonError;

use modelseal_core::Error as Refusal;
use modelseal_core::lazy::{Chunks, Lazy};
use modelseal_core::open::{Confirmation, Unwrapped};
use modelseal_core::sealed::{Entry, Header, Layout};
use modelseal_core::sign::Publisher;
use modelseal_hsm::wiped::wiped;

use crate::cipher::{Backend, Cipher};
use crate::error::{Error, Result};
use crate::files::read_exact_at;
use crate::index::{Blocks, Entries, Keep, unread};
use crate::memory::{Buffer, Memory};
use crate::open::SealedFile;
use crate::seal::Progress;
use crate::work::{at_once, in_order, threads};

/// How much is read, hashed and opened at a time, if a chunk isn't larger.
const UNIT: usize = 256 << 10;
/// How much each thread has to do at least.
const WORTH_A_THREAD: usize = 1 << 20;
/// Bytes of both buffers of all units that are in work.
const IN_WORK_MAX: usize = 24 << 20;

impl SealedFile {
    /// Checks the publisher's signature and, without any key, that every byte but the key slots and the tags is
    /// what was signed. The tags take the content key; they only repeat what the root says.
    pub fn verify(&mut self, publisher: &Publisher, progress: Progress<'_>) -> Result<()> {
        let header = self.header.clone();
        let signature = *self.envelope.signature();
        let check = Header::parse(&header).and_then(|header| header.verify(&signature, publisher));
        let header = check.map_err(|error| self.about(error.into()))?;
        self.keep_index(header.layout())?;
        let (index, blocks) = self.check_index(&header, Keep::Hashes)?;
        let mut parts = self.parts(header.layout(), &blocks);
        let units = parts.units()?;
        at_once(
            units.threads,
            || Unit::new(units.len, 0),
            |unit| parts.feed(unit),
            |unit| {
                unit.read()?;
                unit.each(|i, entry, chunk, _| index.check_chunk(i, entry, chunk))?;
                Ok(unit.bytes())
            },
            progress,
        )?;
        self.require_end(header.layout())
    }

    /// Opens the whole model into memory of its own. On any failure that memory is wiped.
    pub fn open_whole(
        &mut self,
        unwrap: impl FnOnce(&Self) -> Result<Unwrapped<'_>>,
        progress: Progress<'_>,
    ) -> Result<(Memory, Confirmation)> {
        Backend::chosen()?;
        wiped(|| {
            let (lazy, blocks) = wiped(|| self.unwrap_and_check(unwrap, Keep::Hashes))?;
            let mut memory = Memory::new(lazy.layout().length)?;
            let opened = lazy.keyed().map_err(Error::from);
            let opened = opened.and_then(|keyed| self.open_into(&keyed, &blocks, &mut memory, progress));
            opened.and_then(|()| self.require_end(lazy.layout())).map(|()| (memory, lazy.finish()))
        })
    }

    fn open_into(
        &mut self,
        lazy: &Chunks<'_, Cipher>,
        blocks: &Blocks,
        memory: &mut Memory,
        progress: Progress<'_>,
    ) -> Result<()> {
        let mut parts = self.parts(lazy.layout(), blocks);
        let units = parts.units()?;
        let mut given = 0;
        let opened = {
            let mut rest = memory.chunks_mut(units.len);
            at_once(
                units.threads,
                || Ok((Unit::new(units.len, 0)?, [].as_mut_slice())),
                |(unit, place)| {
                    *place = rest.next().unwrap_or_default();
                    given += place.len();
                    parts.feed(unit)
                },
                |(unit, place)| {
                    unit.read()?;
                    unit.open(lazy, place)?;
                    Ok(unit.bytes())
                },
                progress,
            )
        };
        memory.used(given);
        opened
    }

    /// Opens every chunk, in order, into `out`. What was written is only part of the model until this
    /// succeeds.
    pub fn copy_to(
        &mut self,
        unwrap: impl FnOnce(&Self) -> Result<Unwrapped<'_>>,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<Confirmation> {
        Backend::chosen()?;
        wiped(|| {
            let (lazy, blocks) = wiped(|| self.unwrap_and_check(unwrap, Keep::Hashes))?;
            self.open_each(&lazy.keyed()?, &blocks, out, progress)?;
            self.require_end(lazy.layout())?;
            Ok(lazy.finish())
        })
    }

    fn open_each(
        &mut self,
        lazy: &Chunks<'_, Cipher>,
        blocks: &Blocks,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<()> {
        let mut parts = self.parts(lazy.layout(), blocks);
        let units = parts.units()?;
        let mut done = 0;
        in_order(
            units.threads,
            units.places(|| Unit::new(units.len, units.len))?,
            |unit| parts.feed(unit),
            |unit| {
                unit.read()?;
                let mut plaintext = std::mem::take(&mut unit.plaintext);
                let opened = unit.open(lazy, &mut plaintext);
                unit.plaintext = plaintext;
                opened
            },
            |unit| {
                out(unit.plaintext.get(..unit.len).unwrap_or_default())?;
                done += unit.bytes();
                progress(done);
                Ok(())
            },
        )
    }

    /// Steps up to 7: the keys and the index that opening any chunk takes.
    pub(crate) fn unwrap_and_check(
        &self,
        unwrap: impl FnOnce(&Self) -> Result<Unwrapped<'_>>,
        keep: Keep,
    ) -> Result<(Lazy, Blocks)> {
        let unwrapped = unwrap(self)?;
        self.keep_index(unwrapped.header().layout())?;
        let (index, blocks) = self.check_index(unwrapped.header(), keep)?;
        Ok((unwrapped.into_lazy(index).map_err(|error| self.about(error.into()))?, blocks))
    }

    fn parts<'a>(&'a mut self, layout: Layout, blocks: &'a Blocks) -> Parts<'a> {
        let (file, path) = (&self.file, self.path.as_path());
        let pipe = self.pipe.as_mut().map(|pipe| pipe.get_mut().unwrap_or_else(PoisonError::into_inner));
        Parts { layout, entries: Entries::new(blocks, file, path, 0), pipe, file, path }
    }

    /// (4.1) Nothing comes after the payload, even if it came while that was read.
    fn require_end(&mut self, layout: Layout) -> Result<()> {
        let more = match &mut self.pipe {
            Some(pipe) => {
                let pipe = pipe.get_mut().unwrap_or_else(PoisonError::into_inner);
                pipe.read(&mut [0]).map(|read| read != 0)
            }
            None => self.file.metadata().map(|metadata| metadata.len() > layout.end),
        };
        match more {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.about(Refusal::Extended.into())),
            Err(error) => Err(self.unread(&error)),
        }
    }
}

/// How the work is divided.
pub(crate) struct Units {
    pub(crate) threads: usize,
    len: usize,
    waiting: usize,
}

impl Units {
    /// For the whole model.
    pub(crate) fn new(layout: Layout, pipe: bool) -> Result<Self> {
        Self::of(layout, layout.length, pipe)
    }

    /// For `bytes` of it.
    pub(crate) fn of(layout: Layout, bytes: u64, pipe: bool) -> Result<Self> {
        let len = unit_len(layout);
        // Starting a thread takes longer than opening a few chunks.
        let worth = bytes.div_ceil(len.max(WORTH_A_THREAD) as u64);
        let worth = usize::try_from(worth).unwrap_or(usize::MAX);
        let most = IN_WORK_MAX / (2 * len);
        // What comes from a pipe is read in order, by one thread at a time.
        let threads = threads()?.min(worth).min(if pipe { 1 } else { most }).max(1);
        let waiting = if threads == 1 { 1 } else { (2 * threads + 1).min(most).max(1) };
        Ok(Self { threads, len, waiting })
    }

    pub(crate) fn places<P>(&self, place: impl Fn() -> Result<P>) -> Result<Vec<P>> {
        (0..self.waiting).map(|_| place()).collect()
    }
}

/// Whole chunks.
pub(crate) fn unit_len(layout: Layout) -> usize {
    UNIT.max(layout.chunk_size as usize)
}

/// Gives out a sealed model's chunks with what is known of them.
struct Parts<'a> {
    layout: Layout,
    entries: Entries<'a>,
    pipe: Option<&'a mut Box<dyn Read + Send>>,
    file: &'a File,
    path: &'a Path,
}

impl<'a> Parts<'a> {
    fn units(&self) -> Result<Units> {
        Units::new(self.layout, self.pipe.is_some())
    }

    fn feed(&mut self, unit: &mut Unit<'a>) -> Result<bool> {
        let chunk = self.layout.chunk_size as usize;
        let Some(first) = self.entries.next(unit.ciphertext.len() / chunk, &mut unit.entries)? else {
            return Ok(false);
        };
        let offset = first * u64::from(self.layout.chunk_size);
        let left = self.layout.length.saturating_sub(offset);
        unit.len =
            usize::try_from(left).map_or(unit.ciphertext.len(), |left| left.min(unit.ciphertext.len()));
        (unit.first, unit.chunk) = (first, chunk);
        match &mut self.pipe {
            None => unit.source = Some((self.file, self.path, self.layout.payload + offset)),
            Some(pipe) => {
                let (ciphertext, _) = unit.ciphertext.split_at_mut(unit.len);
                pipe.read_exact(ciphertext).map_err(|error| unread(self.path, &error))?;
                unit.path = Some(self.path);
            }
        }
        Ok(true)
    }
}

/// Some chunks that are worked on together.
struct Unit<'a> {
    /// Where they are still to be read from.
    source: Option<(&'a File, &'a Path, u64)>,
    path: Option<&'a Path>,
    first: u64,
    chunk: usize,
    len: usize,
    entries: Vec<Entry>,
    ciphertext: Buffer,
    /// For what doesn't go to its final place at once.
    plaintext: Buffer,
}

impl Unit<'_> {
    fn new(ciphertext: usize, plaintext: usize) -> Result<Self> {
        Ok(Self {
            source: None,
            path: None,
            first: 0,
            chunk: 1,
            len: 0,
            entries: Vec::new(),
            ciphertext: Buffer::new(ciphertext)?,
            plaintext: Buffer::new(plaintext)?,
        })
    }

    fn bytes(&self) -> u64 {
        self.len as u64
    }

    /// The one time that these bytes are read.
    fn read(&mut self) -> Result<()> {
        let Some((file, path, at)) = self.source.take() else { return Ok(()) };
        self.path = Some(path);
        let (ciphertext, _) = self.ciphertext.split_at_mut(self.len);
        read_exact_at(file, ciphertext, at).map_err(|error| unread(path, &error))
    }

    fn each(
        &self,
        mut visit: impl FnMut(u64, &Entry, &[u8], usize) -> std::result::Result<(), Refusal>,
    ) -> Result<()> {
        let chunks = self.ciphertext.get(..self.len).unwrap_or_default().chunks(self.chunk);
        let visited = (0..)
            .zip(chunks)
            .zip(&self.entries)
            .try_for_each(|((n, chunk), entry)| visit(self.first + n as u64, entry, chunk, n * self.chunk));
        visited.map_err(|refusal| match self.path {
            Some(path) => Error::from(refusal).about(path),
            None => refusal.into(),
        })
    }

    fn open(&self, lazy: &Chunks<'_, Cipher>, place: &mut [u8]) -> Result<()> {
        self.each(|i, entry, chunk, at| {
            let place = at.checked_add(chunk.len()).and_then(|end| place.get_mut(at..end));
            lazy.open_chunk_into(i, entry, chunk, place.ok_or(Refusal::Memory)?)
        })
    }
}
