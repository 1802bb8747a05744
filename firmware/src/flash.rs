//! The state of a line in NOR flash, through [`sequential_storage`]: a log of records for each cell, so that a page is
//! erased only when all of its log are full, and all of them equally often.

use core::ops::Range;

use embassy_futures::block_on;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind};
use modelseal_core::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use crate::state::{Cell, Cells, RECORD_LEN, Twin};

/// Most bytes in a word of flash.
const WORD_MAX: usize = 32;
/// Of each log. With a third, a lost page could leave a record that is older than the one before the newest, which the
/// other log's wouldn't follow.
const LOG_PAGES: usize = 2;
/// Each log has one key.
const KEY: u8 = 0;

type Log<'f, F> = MapStorage<u8, Blocking<&'f mut F>, Cache<Uncached, Uncached, Uncached, u8>>;

/// The state in four pages of the flash, from byte `start`. Blank pages hold no state until [`Twin::enrol`] has
/// written the first.
pub fn state<F: NorFlash>(flash: F, start: u32) -> Result<Twin<Flash<F>>, Error> {
    let log = u32::try_from(LOG_PAGES * F::ERASE_SIZE).map_err(|_| Error::Storage)?;
    let [middle, end] = [1, 2].map(|logs| log.checked_mul(logs).and_then(|len| start.checked_add(len)));
    let (middle, end) = middle.zip(end).ok_or(Error::Storage)?;
    let mut flash = Flash { flash, first: start..middle, second: middle..end };
    flash.log(Cell::First)?;
    flash.log(Cell::Second)?;
    Ok(Twin::new(flash))
}

/// Two cells, each in a log of its own, of pages of its own. What makes a log lose its newest record, a page that rots
/// as a whole included, leaves the other log's, and the two say so: they don't follow each other, or the newest is there.
pub struct Flash<F> {
    flash: F,
    first: Range<u32>,
    second: Range<u32>,
}

impl<F: NorFlash> Flash<F> {
    /// The flash, for what else is in it.
    pub fn into_flash(self) -> F {
        self.flash
    }

    fn append(&mut self, cell: Cell, record: &[u8; RECORD_LEN]) -> Result<(), Error> {
        let mut buffer = [0; RECORD_LEN + WORD_MAX];
        block_on(self.log(cell)?.store_item(&mut buffer, &KEY, record)).map_err(|_| Error::Storage)
    }

    fn log(&mut self, cell: Cell) -> Result<Log<'_, F>, Error> {
        let pages = match cell {
            Cell::First => &self.first,
            Cell::Second => &self.second,
        };
        let config = MapConfig::try_new(pages.clone()).map_err(|_| Error::Storage)?;
        Ok(MapStorage::new(Blocking(&mut self.flash), config, Cache::new_uncached()))
    }
}

impl<F: NorFlash> Cells for Flash<F> {
    fn read(&mut self, cell: Cell) -> Result<Option<[u8; RECORD_LEN]>, Error> {
        let mut buffer = [0; RECORD_LEN + WORD_MAX];
        block_on(self.log(cell)?.fetch_item(&mut buffer, &KEY)).or_else(unreadable)
    }

    fn write(&mut self, cell: Cell, record: &[u8; RECORD_LEN]) -> Result<(), Error> {
        if self.append(cell, record).is_ok() && self.read(cell) == Ok(Some(*record)) {
            return Ok(());
        }
        // It holds nothing that the other log doesn't, and there may be a word in it that nobody can read.
        block_on(self.log(cell)?.erase_all()).map_err(|_| Error::Storage)?;
        self.append(cell, record)
    }
}

/// Flash that is used wrongly is one thing, and flash that holds no record another. Where words have check bits, a word
/// that was torn can't be read.
fn unreadable<E: NorFlashError>(
    error: sequential_storage::Error<E>,
) -> Result<Option<[u8; RECORD_LEN]>, Error> {
    match error {
        sequential_storage::Error::Storage { value } if value.kind() != NorFlashErrorKind::Other => {
            Err(Error::Storage)
        }
        _ => Ok(None),
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
