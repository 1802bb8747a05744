//! The state of a line in any byte-wise [`Storage`], such as an EEPROM.
//!
//! Each store writes each cell once: an EEPROM whose pages last a million writes can store one state every five
//! minutes for nine years. A device stores one when it starts, tries or confirms an update, and not otherwise.

use core::hint::black_box;

use embedded_storage::Storage;
use modelseal_core::Error;

use crate::state::{Cell, Cells, RECORD_LEN, State, Twin};

/// How many bytes of storage the state of one line takes.
pub const STATE_LEN: usize = 2 * RECORD_LEN;
/// Where the two cells begin that [`first_state`] fills from byte 0. With a 24-series EEPROM of up to 64 kbit no page has a
/// part of both.
pub const IN_A_ROW: [u32; 2] = [0, 32];
const _: () = assert!(IN_A_ROW[1] as usize == RECORD_LEN);

/// What a factory writes for the state of one line, with cells in a row.
pub fn first_state(floor: u64) -> [u8; STATE_LEN] {
    let mut bytes = [0; STATE_LEN];
    bytes.as_chunks_mut().0.fill(State::first(floor).first_record());
    bytes
}

/// The state whose first record has been written to both of these places. They are in different pages, for a cut of
/// power may take all of the page that is being written.
pub fn state<S: Storage>(storage: S, [first, second]: [u32; 2]) -> Twin<Eeprom<S>> {
    Twin::new(Eeprom { storage, first, second, again: black_box([first, second]) })
}

/// Two cells. Where they are is remembered twice: a fault that overwrites it doesn't lead to what an update has brought.
pub struct Eeprom<S> {
    storage: S,
    first: u32,
    second: u32,
    again: [u32; 2],
}

impl<S> Eeprom<S> {
    fn at(&self, cell: Cell) -> Result<u32, Error> {
        let [first, second] = self.again;
        let (at, again) = match cell {
            Cell::First => (self.first, first),
            Cell::Second => (self.second, second),
        };
        if at == again { Ok(at) } else { Err(Error::Storage) }
    }

    /// The storage, for what else is in it.
    pub fn into_storage(self) -> S {
        self.storage
    }
}

impl<S: Storage> Cells for Eeprom<S> {
    fn read(&mut self, cell: Cell) -> Result<Option<[u8; RECORD_LEN]>, Error> {
        let mut record = [0; RECORD_LEN];
        let at = self.at(cell)?;
        self.storage.read(at, &mut record).map_err(|_| Error::Storage)?;
        Ok(Some(record))
    }

    fn write(&mut self, cell: Cell, record: &[u8; RECORD_LEN]) -> Result<(), Error> {
        let at = self.at(cell)?;
        self.storage.write(at, record).map_err(|_| Error::Storage)
    }
}
