//! Where a model will open, and how it is cut for that.

/// Where a model will open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Where a file can be read at any place: chunks of 64 KiB, or longer ones of a long model, aligned to 4096 bytes.
    Host,
    /// On a microcontroller: chunks of 4 KiB, aligned to 16 bytes.
    Device,
}

/// A lazy model's index is read whole before anything else: with as many chunks, it has 768 KiB.
const CHUNKS: u64 = 1 << 14;

impl Profile {
    /// Chunk size and alignment of a model of `length` bytes, as powers of two (FORMAT.md, section 4.2).
    pub fn logs(self, length: u64) -> (u8, u8) {
        match self {
            Self::Host => ((16..20).find(|log2| length.div_ceil(1 << log2) <= CHUNKS).unwrap_or(20), 12),
            Self::Device => (12, 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_models_have_longer_chunks() {
        let gib = 1 << 30;
        for (length, log2) in
            [(1, 16), (gib, 16), (gib + 1, 17), (2 * gib, 17), (10 * gib, 20), (1 << 48, 20)]
        {
            assert_eq!(Profile::Host.logs(length), (log2, 12), "{length}");
        }
        assert_eq!(Profile::Device.logs(gib), (12, 4));
    }
}
