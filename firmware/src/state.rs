//! What a device remembers of one line from boot to boot, through a cut of power at any instant.
//!
//! ```text
//! offset  size  field            a record, in two cells that are equal but for a store that was cut short
//! 0       8     sequence         grows with each store
//! 8       8     floor
//! 16      1     confirmed        0, or which image and which grant
//! 17      1     trial            0, or which image and which grant
//! 18      1     tries            of the trial, that are left
//! 19      1     0
//! 20      12    check            BLAKE3("modelseal-firmware/v1/state\0" || bytes 0 .. 20), cut to 12 bytes
//! ```
//!
//! A store writes the new record into one cell and then into the other, beginning with the cell that doesn't
//! hold the newest record. So at every instant one cell is whole and holds the old record or the new one; and
//! a cell that rots later has its twin, from which the next load mends it. Where the cells are is the business of [`eeprom`](crate::eeprom) and
//! [`flash`](crate::flash).
//!
//! The check finds accidents. Whoever can write to the chip can also put an old record back.

use modelseal_core::Error;
use modelseal_core::open::FloorStore;

const LABEL: &[u8] = b"modelseal-firmware/v1/state\0";
const CHECK_LEN: usize = 12;
/// Length of a record in bytes: the smallest page of common EEPROMs, so that a driver writes it at once.
pub const RECORD_LEN: usize = 32;
/// How often a trial may boot without being confirmed, unless whoever starts it says otherwise.
pub const TRIES: u8 = 3;

/// One of the two places for an image, or for a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Which image, and which grant for it. They are chosen apart, so that a new grant doesn't need the image a
/// second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the sealed model is.
    pub image: Slot,
    /// Where the grant is.
    pub grant: Slot,
}

impl Choice {
    /// Both in the first place: where a factory puts them.
    pub const FIRST: Self = Self { image: Slot::A, grant: Slot::A };

    /// At least four bits apart from each other and from none.
    fn encode(choice: Option<Self>) -> u8 {
        let Some(Self { image, grant }) = choice else { return 0 };
        let image = if image == Slot::A { 0x03 } else { 0x0c };
        image | if grant == Slot::A { 0x30 } else { 0xc0 }
    }

    fn decode(byte: u8) -> Option<Option<Self>> {
        let slot = |bits| match bits {
            0x3 => Some(Slot::A),
            0xc => Some(Slot::B),
            _ => None,
        };
        if byte == 0 {
            return Some(None);
        }
        Some(Some(Self { image: slot(byte & 0xf)?, grant: slot(byte >> 4)? }))
    }
}

/// What is booted until it is confirmed or has failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What is tried.
    pub choice: Choice,
    /// How many more boots it has.
    pub tries: u8,
}

/// What a device remembers of one line. None of it says that a model is genuine: that is found out anew at
/// each boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The lowest version that may open.
    pub floor: u64,
    /// What has been seen to run.
    pub confirmed: Option<Choice>,
    /// What is to be tried before that.
    pub trial: Option<Trial>,
}

impl State {
    /// What enrolment writes: a first floor, and that the factory's model is to be tried.
    pub fn first(floor: u64) -> Self {
        Self { floor, confirmed: None, trial: Some(Trial { choice: Choice::FIRST, tries: TRIES }) }
    }

    /// What a factory puts into both cells.
    pub fn first_record(self) -> [u8; RECORD_LEN] {
        Record { sequence: 1, state: self }.encode()
    }
}

/// Where the state of one line is kept.
pub trait StateStore {
    /// The state. One that is missing or corrupt is [`Error::Floor`], never a guess.
    fn load(&mut self) -> Result<State, Error>;

    /// Stores a state, with the old floor if that is higher. After a cut of power at any instant the old or
    /// the new state is there.
    fn store(&mut self, state: State) -> Result<(), Error>;
}

/// One of the two cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The first.
    First,
    /// The second.
    Second,
}

/// Two cells, each big enough for a record.
pub trait Cells {
    /// What the cell holds, if it can be told; whether it is a record is the caller's business.
    fn read(&mut self, cell: Cell) -> Result<Option<[u8; RECORD_LEN]>, Error>;

    /// Writes one cell. A cut of power may leave anything in it, and nothing new in the other.
    fn write(&mut self, cell: Cell, record: &[u8; RECORD_LEN]) -> Result<(), Error>;
}

/// A state in two cells. Holding one says nothing yet about what is stored.
pub struct Twin<C>(C);

impl<C: Cells> Twin<C> {
    /// The state in these cells, into both of which a factory has written [`State::first_record`].
    pub fn new(cells: C) -> Self {
        Self(cells)
    }

    /// Does that: writes the first state, over whatever there is. For enrolment, and nobody else.
    pub fn enrol(&mut self, state: State) -> Result<(), Error> {
        let record = Record { sequence: 1, state };
        [Cell::First, Cell::Second].into_iter().try_for_each(|cell| self.write(cell, &record))
    }

    /// The cells.
    pub fn into_inner(self) -> C {
        self.0
    }

    fn read(&mut self, cell: Cell) -> Result<Option<Record>, Error> {
        Ok(self.0.read(cell)?.as_ref().and_then(Record::decode))
    }

    fn write(&mut self, cell: Cell, record: &Record) -> Result<(), Error> {
        self.0.write(cell, &record.encode())?;
        // A cell that didn't take the record mustn't be relied on while the other one is written.
        if self.read(cell)?.as_ref() == Some(record) { Ok(()) } else { Err(Error::Storage) }
    }

    /// The newest record, and the cells in the order in which the next one is written.
    fn newest(&mut self) -> Result<(Record, [Cell; 2]), Error> {
        let (first, second) = (self.read(Cell::First)?, self.read(Cell::Second)?);
        let (from_first, from_second) = ([Cell::Second, Cell::First], [Cell::First, Cell::Second]);
        let (record, cells) = match (first, second) {
            (Some(a), Some(b)) if a.follows(&b) => (a, from_first),
            (Some(a), Some(b)) if b.follows(&a) => (b, from_second),
            (Some(a), None) => (a, from_first),
            (None, Some(b)) => (b, from_second),
            _ => return Err(Error::Floor),
        };
        // Once more from its place: a glitch may have read it from another, and written over both.
        let [_, newer] = cells;
        if self.read(newer)? == Some(record) { Ok((record, cells)) } else { Err(Error::Storage) }
    }
}

impl<C: Cells> StateStore for Twin<C> {
    /// Also mends a cell that a cut or rot has left without the newest record. If that fails, the other one
    /// still has it.
    fn load(&mut self) -> Result<State, Error> {
        let (record, [older, _]) = self.newest()?;
        match self.read(older)? {
            Some(other) if other == record => {}
            // It has become readable since: what is newer mustn't be written over.
            Some(other) if other.follows(&record) => return Err(Error::Storage),
            _ => {
                let _ = self.write(older, &record);
            }
        }
        Ok(record.state)
    }

    fn store(&mut self, state: State) -> Result<(), Error> {
        let (newest, [older, newer]) = self.newest()?;
        let sequence = newest.sequence.checked_add(1).ok_or(Error::Floor)?;
        let state = State { floor: state.floor.max(newest.state.floor), ..state };
        let record = Record { sequence, state };
        self.write(older, &record)?;
        // As the next load will see it: a floor that a glitch has lowered up to here doesn't follow what is still there.
        self.newest()?;
        self.write(newer, &record)
    }
}

/// The floor of a state, for [`Opened::confirm`](modelseal_core::open::Opened::confirm). A raise also
/// confirms what has been chosen, in the same store.
pub(crate) struct Floor<'s, S> {
    pub(crate) store: &'s mut S,
    /// What has been chosen, and the trial that it was, as stored when it was chosen.
    pub(crate) confirms: Option<(Choice, Option<Trial>)>,
}

impl<S: StateStore> FloorStore for Floor<'_, S> {
    fn floor(&mut self) -> Result<u64, Error> {
        Ok(self.store.load()?.floor)
    }

    fn raise(&mut self, floor: u64) -> Result<(), Error> {
        let state = self.store.load()?;
        let confirmed = self.confirmed(state)?;
        self.store.store(State { floor, ..confirmed })
    }
}

impl<S: StateStore> Floor<'_, S> {
    /// Stores that what has been chosen is confirmed, unless that is stored already.
    pub(crate) fn confirm(&mut self) -> Result<(), Error> {
        if self.confirms.is_none() {
            return Ok(());
        }
        let state = self.store.load()?;
        let confirmed = self.confirmed(state)?;
        if confirmed == state { Ok(()) } else { self.store.store(confirmed) }
    }

    /// A trial ends only with its own confirmation. What has been given up or written over since it was chosen can't
    /// be confirmed any more: another trial in the same places has all its tries left.
    fn confirmed(&self, state: State) -> Result<State, Error> {
        match self.confirms {
            None => Ok(state),
            Some((choice, trial)) if trial.is_some() && state.trial == trial => {
                Ok(State { confirmed: Some(choice), trial: None, ..state })
            }
            Some((choice, _)) if state.confirmed == Some(choice) => Ok(state),
            Some(_) => Err(Error::Storage),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    sequence: u64,
    state: State,
}

impl Record {
    /// `None` for a cell that is blank or torn.
    fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk()?;
        let (floor, rest) = rest.split_first_chunk()?;
        let &[confirmed, trial, tries, ..] = rest else { return None };
        let confirmed = Choice::decode(confirmed)?;
        let trial = Choice::decode(trial)?.map(|choice| Trial { choice, tries });
        let state = State { floor: u64::from_le_bytes(*floor), confirmed, trial };
        let record = Self { sequence: u64::from_le_bytes(*sequence), state };
        let boots_something = confirmed.is_some() || trial.is_some();
        (boots_something && record.encode() == *bytes).then_some(record)
    }

    fn encode(self) -> [u8; RECORD_LEN] {
        let State { floor, confirmed, trial } = self.state;
        let choices = [
            Choice::encode(confirmed),
            Choice::encode(trial.map(|trial| trial.choice)),
            trial.map_or(0, |trial| trial.tries),
            0,
        ];
        let fields = self.sequence.to_le_bytes().into_iter().chain(floor.to_le_bytes()).chain(choices);
        let mut bytes = [0; RECORD_LEN];
        let (head, check) = bytes.split_at_mut(RECORD_LEN - CHECK_LEN);
        head.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        let hash = blake3::Hasher::new().update(LABEL).update(head).finalize();
        check.iter_mut().zip(hash.as_bytes()).for_each(|(byte, hashed)| *byte = *hashed);
        bytes
    }

    /// The same record, or one that a store wrote after `older`. Of two others, neither is to be believed.
    fn follows(&self, older: &Self) -> bool {
        self == older
            || older.sequence.checked_add(1) == Some(self.sequence) && self.state.floor >= older.state.floor
    }
}

#[cfg(test)]
mod tests;
