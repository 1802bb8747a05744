//! A model of which any part can be read: only the chunks that it touches are read, checked and opened.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use modelseal_core::Error as Refusal;
use modelseal_core::lazy::Lazy;
use modelseal_core::open::Confirmation;
use modelseal_core::sealed::{ENTRY_LEN, Entry};
use modelseal_hsm::wiped::wiped;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A sealed model whose index has been checked against the root. Only the bytes that were handed out were authentic.
pub struct LazyModel {
    lazy: Lazy,
    /// Its own copy of the index: what was checked.
    index: Vec<u8>,
    path: PathBuf,
    /// With a chunk to work in.
    file: Mutex<(File, Zeroizing<Vec<u8>>)>,
}

impl LazyModel {
    pub(crate) fn new(lazy: Lazy, index: Vec<u8>, path: &Path, file: File) -> Self {
        let chunk = Zeroizing::new(vec![0; lazy.layout().chunk_size as usize]);
        Self { lazy, index, path: path.to_owned(), file: Mutex::new((file, chunk)) }
    }

    /// The model's length.
    pub fn length(&self) -> u64 {
        self.lazy.layout().length
    }

    /// Reads what is at `offset`. On failure `out` holds nothing that didn't pass.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.length());
        if end.is_none() {
            let what = format!("the model has {} bytes and no more", self.length());
            return Err(Error::usage(what, "read within its length"));
        }
        wiped(|| self.read_chunks(offset, out)).map_err(|error| error.about(&self.path))
    }

    fn read_chunks(&self, offset: u64, mut out: &mut [u8]) -> Result<()> {
        let layout = self.lazy.layout();
        let size = u64::from(layout.chunk_size);
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *held;
        file.seek(SeekFrom::Start(layout.payload + offset / size * size)).map_err(|e| io(&e))?;
        let mut skip = usize::try_from(offset % size).map_err(|_| Refusal::Memory)?;
        for i in offset / size.. {
            if out.is_empty() {
                break;
            }
            let (chunk, _) = buffer.split_at_mut(layout.chunk_len(i));
            file.read_exact(chunk).map_err(|e| io(&e))?;
            self.lazy.open_chunk(i, &self.entry(i)?, chunk)?;
            let (_, wanted) = chunk.split_at(skip);
            let (now, later) = out.split_at_mut(wanted.len().min(out.len()));
            now.copy_from_slice(wanted.split_at(now.len()).0);
            out = later;
            skip = 0;
        }
        Ok(())
    }

    fn entry(&self, i: u64) -> Result<Entry> {
        let i = usize::try_from(i).map_err(|_| Refusal::Memory)?;
        let entry = self.index.as_chunks::<ENTRY_LEN>().0.get(i).ok_or(Refusal::Memory)?;
        Ok(Entry::parse(entry))
    }

    /// What storing the floor takes.
    pub fn confirmation(&self) -> Confirmation {
        self.lazy.confirmation()
    }
}

fn io(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Refusal::Truncated.into(),
        _ => Error::new(crate::Code::Io, error.to_string(), "check the file and its disk"),
    }
}
