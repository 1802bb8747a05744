//! A model that stays sealed: what is asked for is read and checked when it is asked for (FORMAT.md, section 7, "A host").

use std::fs::File;
use std::path::{Path, PathBuf};

use modelseal_core::Error as Refusal;
use modelseal_core::lazy::{IndexCheck, Lazy};
use modelseal_core::open::{Confirmation, Unwrapped};
use modelseal_core::sealed::{ENTRY_LEN, Entry, Layout};
use modelseal_hsm::wiped::wiped;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::open::SealedFile;

/// A model whose chunks are checked as they are read: only the bytes already handed out were authentic. Several threads
/// may read it at the same time.
pub struct LazyModel {
    path: PathBuf,
    file: File,
    index: Vec<u8>,
    lazy: Lazy,
}

impl LazyModel {
    pub(crate) fn open(
        sealed: &SealedFile,
        file: File,
        unwrap: impl FnOnce(&SealedFile) -> Result<Unwrapped<'_>>,
    ) -> Result<Self> {
        let path = sealed.path().to_owned();
        let about = |refusal: Refusal| Error::from(refusal).about(&path);
        wiped(|| {
            let unwrapped = unwrap(sealed)?;
            let layout = unwrapped.header().layout();
            let index = read(&file, &path, layout.index, layout.padding - layout.index)?;
            let mut check = IndexCheck::new(unwrapped.header());
            for entry in index.as_chunks::<ENTRY_LEN>().0 {
                check.push(&Entry::parse(entry)).map_err(about)?;
            }
            if read(&file, &path, layout.padding, layout.payload - layout.padding)?
                .iter()
                .any(|byte| *byte != 0)
            {
                return Err(about(Refusal::Padding));
            }
            let lazy = unwrapped.into_lazy(check.finish().map_err(about)?).map_err(about)?;
            Ok(Self { path: path.clone(), file, index, lazy })
        })
    }

    /// Sizes and offsets.
    pub fn layout(&self) -> Layout {
        self.lazy.layout()
    }

    /// What storing the floor takes.
    pub fn confirmation(&self) -> Confirmation {
        self.lazy.confirmation()
    }

    /// Reads the model from `offset` on, as much as `out` has room for. On failure `out` is wiped.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = self.read_chunks(offset, out);
        if read.is_err() {
            out.zeroize();
        }
        read
    }

    fn read_chunks(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let layout = self.layout();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > layout.length) {
            let what = format!("{} bytes from {offset} on aren't in a model of {}", out.len(), layout.length);
            return Err(Error::usage(what, "read within its length"));
        }
        let size = u64::from(layout.chunk_size);
        let mut buffer = Zeroizing::new(vec![0; layout.chunk_size as usize]);
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let (i, within) = (at / size, usize::try_from(at % size).unwrap_or(0));
            let (chunk, _) = buffer.split_at_mut(layout.chunk_len(i));
            self.open_chunk(i, chunk)?;
            let wanted = chunk.get(within..).unwrap_or_default();
            let len = wanted.len().min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(wanted.split_at(len).0);
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    fn open_chunk(&self, i: u64, chunk: &mut [u8]) -> Result<()> {
        let layout = self.layout();
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::from(Refusal::Truncated).about(&self.path),
            _ => Error::io(&self.path, &error),
        };
        read_exact_at(&self.file, chunk, layout.payload + i * u64::from(layout.chunk_size)).map_err(io)?;
        let entry = usize::try_from(i).ok().and_then(|i| self.index.as_chunks::<ENTRY_LEN>().0.get(i));
        let entry = Entry::parse(entry.ok_or(Refusal::Index)?);
        self.lazy.open_chunk(i, &entry, chunk).map_err(|error| Error::from(error).about(&self.path))
    }
}

fn read(file: &File, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>> {
    let too_long = || Error::new(crate::Code::Io, "the index doesn't fit into memory", "open it to a file");
    let len = usize::try_from(len).map_err(|_| too_long())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_long())?;
    bytes.resize(len, 0);
    read_exact_at(file, &mut bytes, offset).map_err(|error| Error::io(path, &error))?;
    Ok(bytes)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = bytes.split_at_mut(read).1;
        offset += read as u64;
    }
    Ok(())
}
