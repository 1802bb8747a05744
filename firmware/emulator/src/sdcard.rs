//! SD cards as files: one partition with FAT16, in which a board finds its models.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};

/// A power of two, as QEMU wants it. Hardly any of it is written, so the file is small where files can be sparse.
const CARD_LEN: u32 = 64 << 20;
/// Where the partition begins.
const START: u32 = 1 << 20;
const BLOCK: u32 = 512;

/// Makes a card anew, with these files in its root. Their names are as short as in FAT's early days.
pub(crate) fn write_card(path: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let mut card = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    card.set_len(CARD_LEN.into())?;
    card.write_all(&boot_record())?;
    let mut partition = Partition::new(card)?;
    format_volume(&mut partition, FormatVolumeOptions::new().fat_type(FatType::Fat16))?;
    partition.rewind()?;
    put_into(partition, files)
}

/// Puts these files into a card's root, in place of those that have their names.
pub(crate) fn put(path: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    put_into(Partition::new(File::options().read(true).write(true).open(path)?)?, files)
}

fn put_into(partition: Partition, files: &[(&str, &[u8])]) -> io::Result<()> {
    let volume = FileSystem::new(partition, FsOptions::new())?;
    for (name, bytes) in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(bytes)?;
    }
    volume.unmount()
}

/// Its one entry is the partition. Nobody boots from the card, or counts in cylinders.
fn boot_record() -> [u8; BLOCK as usize] {
    const FAT16: u8 = 6;
    let [start, blocks] = [START, CARD_LEN - START].map(|bytes| bytes / BLOCK);
    let mut record = [0; BLOCK as usize];
    record[446 + 4] = FAT16;
    record[446 + 8..446 + 12].copy_from_slice(&start.to_le_bytes());
    record[446 + 12..446 + 16].copy_from_slice(&blocks.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

/// What comes after `START`.
struct Partition(File);

impl Partition {
    fn new(card: File) -> io::Result<Self> {
        let mut partition = Self(card);
        partition.rewind()?;
        Ok(partition)
    }
}

impl Read for Partition {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Partition {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for Partition {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(offset) => SeekFrom::Start(offset + u64::from(START)),
            other => other,
        };
        let at = self.0.seek(to)?;
        at.checked_sub(START.into()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use std::os::unix::fs::FileExt;

    use embedded_sdmmc::{
        Block, BlockCount, BlockDevice, BlockIdx, Mode, TimeSource, Timestamp, VolumeIdx, VolumeManager,
    };

    use super::*;

    /// The file as the board's driver sees the card.
    struct Card(File);

    impl BlockDevice for Card {
        type Error = io::Error;

        fn read(&self, blocks: &mut [Block], start: BlockIdx) -> io::Result<()> {
            let at = (0..).map(|i| (u64::from(start.0) + i) * u64::from(BLOCK));
            blocks.iter_mut().zip(at).try_for_each(|(block, at)| self.0.read_exact_at(&mut block[..], at))
        }

        fn write(&self, _: &[Block], _: BlockIdx) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn num_blocks(&self) -> io::Result<BlockCount> {
            Ok(BlockCount(CARD_LEN / BLOCK))
        }
    }

    struct Never;

    impl TimeSource for Never {
        fn get_timestamp(&self) -> Timestamp {
            Timestamp::from_calendar(1980, 1, 1, 0, 0, 0).unwrap()
        }
    }

    fn read(manager: &VolumeManager<Card, Never>, name: &str) -> Option<Vec<u8>> {
        let volume = manager.open_volume(VolumeIdx(0)).unwrap();
        let root = volume.open_root_dir().unwrap();
        let file = root.open_file_in_dir(name, Mode::ReadOnly).ok()?;
        let mut bytes = vec![0; file.length() as usize];
        assert_eq!(file.read(&mut bytes).unwrap(), bytes.len());
        Some(bytes)
    }

    #[test]
    fn the_boards_driver_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card");
        // Of many clusters, of a part of one, and of none.
        let model: Vec<u8> = (0..=250).cycle().take(100_000).collect();
        let files = [("A.SLD", &model[..]), ("A.GRT", &[7; 99]), ("B.SLD", &[])];
        write_card(&path, &files).unwrap();
        let manager = VolumeManager::new(Card(File::open(&path).unwrap()), Never);
        for (name, bytes) in files {
            assert_eq!(read(&manager, name).as_deref(), Some(bytes), "{name}");
        }
        assert_eq!(read(&manager, "B.GRT"), None);
        // Made anew, it holds nothing of before.
        write_card(&path, &files[1..2]).unwrap();
        let manager = VolumeManager::new(Card(File::open(&path).unwrap()), Never);
        assert_eq!(read(&manager, "A.SLD"), None);
        assert_eq!(path.metadata().unwrap().len(), u64::from(CARD_LEN));
    }
}
