//! The state of a line in NOR flash, through [`sequential_storage`]: a log of records, so that a page is erased
//! only when all are full, and all of them equally often.

use embassy_futures::block_on;
use embedded_storage::nor_flash::{ErrorType, NorFlash};
use modelseal_core::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use crate::state::{Cell, Cells, RECORD_LEN, Twin};

/// Most bytes in a word of flash.
const WORD_MAX: usize = 32;

type Log<F> = MapStorage<u8, Blocking<F>, Cache<Uncached, Uncached, Uncached, u8>>;

/// The state in the pages from byte `start` to byte `end` of the flash, at least two. Blank pages hold no state
/// until [`Twin::enrol`] has written the first.
pub fn state<F: NorFlash>(flash: F, start: u32, end: u32) -> Result<Twin<Flash<F>>, Error> {
    let config = MapConfig::try_new(start..end).map_err(|_| Error::Storage)?;
    Ok(Twin::new(Flash(MapStorage::new(Blocking(flash), config, Cache::new_uncached()))))
}

/// Two cells as two keys of a log. A key's older records can come back only if the newer ones rot, and then
/// the other key has the newest still.
pub struct Flash<F: NorFlash>(Log<F>);

impl<F: NorFlash> Flash<F> {
    /// The flash, for what else is in it.
    pub fn into_flash(self) -> F {
        self.0.destroy().0.0
    }
}

impl<F: NorFlash> Cells for Flash<F> {
    fn read(&mut self, cell: Cell) -> Result<Option<[u8; RECORD_LEN]>, Error> {
        let mut buffer = [0; RECORD_LEN + WORD_MAX];
        block_on(self.0.fetch_item(&mut buffer, &key(cell))).or_else(unreadable)
    }

    fn write(&mut self, cell: Cell, record: &[u8; RECORD_LEN]) -> Result<(), Error> {
        let mut buffer = [0; RECORD_LEN + WORD_MAX];
        block_on(self.0.store_item(&mut buffer, &key(cell), record)).map_err(|_| Error::Storage)
    }
}

/// Flash that can't be read is one thing, and flash that holds no record another.
fn unreadable<E>(error: sequential_storage::Error<E>) -> Result<Option<[u8; RECORD_LEN]>, Error> {
    match error {
        sequential_storage::Error::Storage { .. } => Err(Error::Storage),
        _ => Ok(None),
    }
}

fn key(cell: Cell) -> u8 {
    match cell {
        Cell::First => 0,
        Cell::Second => 1,
    }
}

/// Flash that is waited for, as flash that can be awaited.
struct Blocking<F>(F);

impl<F: NorFlash> ErrorType for Blocking<F> {
    type Error = F::Error;
}

impl<F: NorFlash> embedded_storage_async::nor_flash::ReadNorFlash for Blocking<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> embedded_storage_async::nor_flash::NorFlash for Blocking<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        self.0.write(offset, bytes)
    }
}
