//! The chips of a board, as files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use embedded_storage::{ReadStorage, Storage};

/// An AT24C64, the chip on each board's I2C bus.
pub(crate) const EEPROM_LEN: usize = 8192;

/// A file that is written as a chip would be.
pub(crate) struct Chip(File);

impl Chip {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(path).map(Self)
    }
}

impl ReadStorage for Chip {
    type Error = io::Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset.into())
    }

    fn capacity(&self) -> usize {
        self.0.metadata().map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(usize::MAX))
    }
}

impl Storage for Chip {
    fn write(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset.into())
    }
}
