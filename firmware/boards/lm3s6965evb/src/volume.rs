//! What the FAT driver takes for granted about a card's first partition.
//!
//! It divides by the size of a cluster. And in a FAT32, which has none of FAT16's bounds, a directory could go round
//! in circles, and the driver with it.

use embedded_sdmmc::{Block, BlockDevice, BlockIdx};
use modelseal_firmware::modelseal_core::Error;

/// Where the boot record says at which block the first partition begins.
const FIRST: usize = 446 + 8;
const DIRECTORY_ENTRY: u32 = 32;
/// From so many clusters on, it isn't FAT16.
const CLUSTERS: u32 = 65_525;

/// Refuses anything but a FAT16 that adds up. Has a stack frame of its own, for the block in it.
#[inline(never)]
pub(crate) fn check(card: &impl BlockDevice) -> Result<(), Error> {
    let mut blocks = [Block::new()];
    card.read(&mut blocks, BlockIdx(0)).map_err(|_| Error::Storage)?;
    let [Block { contents: block }] = &blocks;
    let start = u32::from_le_bytes(field(block, FIRST)?);
    card.read(&mut blocks, BlockIdx(start)).map_err(|_| Error::Storage)?;
    let [Block { contents: block }] = &blocks;
    match clusters(block)? {
        Some(clusters) if clusters < CLUSTERS => Ok(()),
        _ => Err(Error::Storage),
    }
}

/// How many clusters the partition has, from its first block; `None` if it has less than none.
fn clusters(block: &[u8]) -> Result<Option<u32>, Error> {
    let byte = |at| field(block, at).map(|[byte]| u32::from(byte));
    let word = |at| field(block, at).map(|bytes| u32::from(u16::from_le_bytes(bytes)));
    let (cluster, reserved, tables) = (byte(13)?, word(14)?, byte(16)?);
    let (entries, small, table) = (word(17)?, word(19)?, word(22)?);
    let total = if small == 0 { u32::from_le_bytes(field(block, 32)?) } else { small };
    // A length of 0 stands for a longer field, which FAT16 doesn't have.
    if table == 0 {
        return Ok(None);
    }
    let root = (entries * DIRECTORY_ENTRY).div_ceil(Block::LEN_U32);
    let data = total.checked_sub(reserved + tables * table + root);
    Ok(data.and_then(|data| data.checked_div(cluster)))
}

fn field<const N: usize>(block: &[u8], at: usize) -> Result<[u8; N], Error> {
    block.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Error::Storage)
}
