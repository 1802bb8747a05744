//! Memory for an opened model: its own pages, wiped before they are given back, left out of core dumps, and huge where
//! the system gives those.
//!
//! A model that doesn't fit is an error that says how much was needed. A control group's limit is looked at first:
//! who exceeds it isn't told, but killed.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::error::{Code, Error, Result};
use crate::limits;

/// The size of a huge page, to which the memory is aligned if it has at least half of one: filling the whole takes
/// less time than half of it in small ones.
const HUGE: usize = 2 << 20;
/// What opening takes besides the model: the threads' buffers and stacks, and huge pages of which it fills a part.
const WORK: u64 = 32 << 20;
/// Looking takes longer than opening less than this.
const ASKED_FROM: u64 = 4 << 20;

/// A model in memory that nobody else can write.
pub struct Memory {
    map: MmapMut,
    start: usize,
    len: usize,
    /// How much of it may hold anything.
    used: usize,
}

impl Memory {
    /// Zeros.
    pub fn new(len: u64) -> Result<Self> {
        require(len)?;
        let len = usize::try_from(len).map_err(|_| refused(len, "this system can't address them"))?;
        let spare = if len >= HUGE / 2 { HUGE } else { 0 };
        let whole = len
            .max(spare)
            .checked_add(spare)
            .ok_or_else(|| refused(len as u64, "they can't be addressed"))?;
        let map = MmapMut::map_anon(whole.max(1));
        let map = map.map_err(|error| refused(len as u64, &format!("the system gave none: {error}")))?;
        let start = if spare > 0 { map.as_ptr().align_offset(HUGE).min(spare) } else { 0 };
        advise(&map, spare > 0);
        Ok(Self { map, start, len, used: len })
    }

    /// Of what hasn't been used nothing needs to be wiped, and wiping would ask the system for it.
    pub(crate) fn used(&mut self, used: usize) {
        self.used = used.min(self.len);
    }
}

/// Refuses a model that this process's control group leaves no room for, and for working on it.
pub fn require(len: u64) -> Result<()> {
    let work = len.min(WORK);
    if len < ASKED_FROM {
        return Ok(());
    }
    match limits::group().filter(|limit| len.saturating_add(work) > limit.free) {
        Some(limit) => {
            let what = format!(
                "the model needs {len} bytes of memory, and {work} to work on it, and the memory limit of this control \
                 group ({} bytes) leaves {}",
                limit.max, limit.free
            );
            Err(Error::new(Code::Io, what, HINT))
        }
        None => Ok(()),
    }
}

const HINT: &str = "raise the limit, or open it to a file or lazily";

fn refused(len: u64, why: &str) -> Error {
    Error::new(Code::Io, format!("the model needs {len} bytes of memory: {why}"), HINT)
}

/// Neither changes what the memory holds; a system without them does without.
fn advise(map: &MmapMut, huge: bool) {
    #[cfg(target_os = "linux")]
    {
        let _ = map.advise(memmap2::Advice::DontDump);
        if huge {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (map, huge);
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let used = self.used;
        wipe(self.split_at_mut(used).0);
    }
}

/// Memory for work in progress, wiped before it is given back.
#[derive(Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// Zeros. Memory that can't be had is an error, not the end of the process.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let mut bytes = reserve(len)?;
        bytes.resize(len, 0);
        Ok(Self(bytes))
    }
}

fn reserve(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| {
        let what = format!("{len} bytes of memory to work in are needed, and the system gave none");
        Error::new(Code::Io, what, "raise the limit")
    })?;
    Ok(bytes)
}

/// Fails where what takes about `len` bytes, and can't fail, would end the process.
pub(crate) fn require_to_work(len: usize) -> Result<()> {
    reserve(len).map(drop)
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// As `zeroize` does, which would write byte by byte: the compiler can't see that nobody looks any more.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn it_is_aligned_and_of_its_length() {
        for len in [1, 4096, HUGE / 2 - 1, HUGE / 2, HUGE, 3 * HUGE + 7] {
            let mut memory = Memory::new(len as u64).unwrap();
            assert_eq!(memory.len(), len);
            let boundary = if len < HUGE / 2 { 4096 } else { HUGE };
            assert!(memory.as_ptr().addr().is_multiple_of(boundary), "{len}");
            assert!(memory.iter().all(|byte| *byte == 0));
            memory.fill(7);
        }
    }

    #[test]
    fn more_than_there_is_is_refused_with_its_number() {
        for len in [1 << 46, u64::MAX] {
            let error = Memory::new(len).err().unwrap();
            assert_eq!(error.code(), Code::Io);
            assert!(error.what().contains(&format!("needs {len} bytes")), "{error}");
        }
    }
}
