//! The root over the payload: BLAKE3's own tree, cut at chunk boundaries (FORMAT.md, section 4.4).
//!
//! A chunk's *chaining value* is BLAKE3's subtree value at the chunk's offset. Merged left-balanced, the
//! values give the hash of the whole payload, so that a reader checks the index against the root once and
//! then any chunk alone.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::error::Error;

/// Merged values that can wait for a right neighbour: one for each bit of the number of chunks, at most
/// 2^38 (2^48 bytes in chunks of 2^10).
const DEPTH: usize = 40;

/// (4.4) `value(ciphertext, offset)`: the chaining value of the chunk that begins at `offset`; with `only`
/// set, of a chunk that is the whole payload, whose value is the root itself.
pub(crate) fn chaining_value(ciphertext: &[u8], offset: u64, only: bool) -> [u8; 32] {
    if only {
        return *blake3::hash(ciphertext).as_bytes();
    }
    // The bounds of a layout keep this from panicking: an offset is a multiple of the chunk size, a chunk
    // is at least 1 KiB but for the last, and none is empty.
    Hasher::new().set_input_offset(offset).update(ciphertext).finalize_non_root()
}

/// (4.4) `merge`: takes chaining values from left to right and gives the root.
pub(crate) struct Tree {
    waiting: heapless::Vec<[u8; 32], DEPTH>,
    count: u64,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { waiting: heapless::Vec::new(), count: 0 }
    }

    /// Before value number n is pushed, as many subtrees are complete as n has one bits.
    pub(crate) fn push(&mut self, value: [u8; 32]) -> Result<(), Error> {
        while self.waiting.len() > self.count.count_ones() as usize {
            self.merge()?;
        }
        self.count = self.count.checked_add(1).ok_or(Error::Index)?;
        self.waiting.push(value).map_err(|_| Error::Index)
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The root of all values. With one value only, that value.
    pub(crate) fn root(mut self) -> Result<[u8; 32], Error> {
        while self.waiting.len() > 2 {
            self.merge()?;
        }
        match self.waiting.as_slice() {
            [only] => Ok(*only),
            [left, right] => Ok(*merge_subtrees_root(left, right, Mode::Hash).as_bytes()),
            _ => Err(Error::Index),
        }
    }

    /// `parent(x, y)`, without the flag ROOT.
    fn merge(&mut self) -> Result<(), Error> {
        let right = self.waiting.pop().ok_or(Error::Index)?;
        let left = self.waiting.last_mut().ok_or(Error::Index)?;
        *left = merge_subtrees_non_root(left, &right, Mode::Hash);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_any_size_merge_to_the_hash_of_the_whole() {
        let data: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        let lengths = [1, 1023, 1024, 1025, 2048, 3000, 4096, 4097, 9 * 1024 + 1, 16 * 1024, 40_000];
        // Miri takes a second for a kilobyte.
        let lengths = if cfg!(miri) { &lengths[..6] } else { &lengths[..] };
        for log2 in [10, 11, 12, 16] {
            let size = 1usize << log2;
            for &len in lengths {
                let data = &data[..len];
                let only = len <= size;
                let mut tree = Tree::new();
                for (i, chunk) in data.chunks(size).enumerate() {
                    tree.push(chaining_value(chunk, (i * size) as u64, only)).unwrap();
                }
                assert_eq!(tree.root().unwrap(), *blake3::hash(data).as_bytes(), "{len} in {size}");
            }
        }
    }

    #[test]
    fn an_empty_tree_has_no_root() {
        assert_eq!(Tree::new().root(), Err(Error::Index));
    }
}
