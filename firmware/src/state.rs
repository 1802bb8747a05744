//! Keeps the stored floor in any byte-wise [`Storage`], such as an EEPROM, through a cut of power at any
//! instant.
//!
//! ```text
//! offset  size  field            two slots, at 0 and 32, equal but for a raise that was cut short
//! 0       8     sequence         grows with each raise
//! 8       8     floor
//! 16      16    check            BLAKE3("modelseal-firmware/v1/floor\0" || bytes 0 .. 16), cut to 16 bytes
//! ```
//!
//! A raise writes the new record into one slot and then into the other, beginning with the slot that doesn't
//! hold the newest record. So at every instant one slot is whole and holds the old floor or the new one; and
//! a slot that rots later has its twin.
//!
//! A slot is as long as the smallest page of common EEPROMs, so that a driver writes it at once. The check
//! finds accidents. Whoever can write to the chip can also put an old floor back.

use embedded_storage::Storage;
use modelseal_core::Error;
use modelseal_core::open::FloorStore;

const LABEL: &[u8] = b"modelseal-firmware/v1/floor\0";
const SLOTS: [u32; 2] = [0, 32];
const SLOT_LEN: usize = SLOTS[1] as usize;
const CHECK_LEN: usize = 16;
/// How many bytes of storage the state of one line takes.
pub const STATE_LEN: usize = 2 * SLOT_LEN;

/// What enrolment writes: the first floor of a line, in both slots.
pub fn first_state(floor: u64) -> [u8; STATE_LEN] {
    let record = Record { sequence: 1, floor }.encode();
    let mut state = [0; STATE_LEN];
    state.as_chunks_mut().0.fill(record);
    state
}

/// The state of one line, at `offset` in storage. Holding one says nothing yet about what is stored.
pub struct State<S> {
    storage: S,
    offset: u32,
}

impl<S: Storage> State<S> {
    /// The state that [`first_state`] has been written for at `offset`, a multiple of the page size.
    pub fn new(storage: S, offset: u32) -> Self {
        Self { storage, offset }
    }

    fn read(&mut self, slot: u32) -> Result<Option<Record>, Error> {
        let mut bytes = [0; SLOT_LEN];
        let at = self.offset.checked_add(slot).ok_or(Error::Storage)?;
        self.storage.read(at, &mut bytes).map_err(|_| Error::Storage)?;
        Ok(Record::decode(&bytes))
    }

    fn write(&mut self, slot: u32, record: Record) -> Result<(), Error> {
        let at = self.offset.checked_add(slot).ok_or(Error::Storage)?;
        self.storage.write(at, &record.encode()).map_err(|_| Error::Storage)?;
        // A slot that didn't take the record mustn't be relied on while the other one is written.
        if self.read(slot)? == Some(record) { Ok(()) } else { Err(Error::Storage) }
    }

    /// The newest record, and the slots in the order in which the next one is written.
    fn newest(&mut self) -> Result<(Record, [u32; 2]), Error> {
        let [first, second] = SLOTS;
        match (self.read(first)?, self.read(second)?) {
            (Some(a), Some(b)) if a.follows(b) => Ok((a, [second, first])),
            (Some(a), Some(b)) if b.follows(a) => Ok((b, [first, second])),
            (Some(a), None) => Ok((a, [second, first])),
            (None, Some(b)) => Ok((b, [first, second])),
            _ => Err(Error::Floor),
        }
    }
}

impl<S: Storage> FloorStore for State<S> {
    fn floor(&mut self) -> Result<u64, Error> {
        self.newest().map(|(record, _)| record.floor)
    }

    fn raise(&mut self, floor: u64) -> Result<(), Error> {
        let (newest, slots) = self.newest()?;
        let sequence = newest.sequence.checked_add(1).ok_or(Error::Floor)?;
        let record = Record { sequence, floor: floor.max(newest.floor) };
        slots.into_iter().try_for_each(|slot| self.write(slot, record))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    sequence: u64,
    floor: u64,
}

impl Record {
    /// `None` for a slot that is blank or torn.
    fn decode(bytes: &[u8; SLOT_LEN]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk()?;
        let (floor, _) = rest.split_first_chunk()?;
        let record = Self { sequence: u64::from_le_bytes(*sequence), floor: u64::from_le_bytes(*floor) };
        (record.encode() == *bytes).then_some(record)
    }

    fn encode(self) -> [u8; SLOT_LEN] {
        let fields = self.sequence.to_le_bytes().into_iter().chain(self.floor.to_le_bytes());
        let mut bytes = [0; SLOT_LEN];
        let (head, check) = bytes.split_at_mut(SLOT_LEN - CHECK_LEN);
        head.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        let hash = blake3::Hasher::new().update(LABEL).update(head).finalize();
        check.iter_mut().zip(hash.as_bytes()).for_each(|(byte, hashed)| *byte = *hashed);
        bytes
    }

    /// The same record, or one that a raise wrote after `older`. Of two others, neither is to be believed.
    fn follows(self, older: Self) -> bool {
        self == older || (self.sequence > older.sequence && self.floor >= older.floor)
    }
}

#[cfg(test)]
mod tests {
    use embedded_storage::ReadStorage;

    use super::*;

    /// What a byte may hold that was being written when power was cut.
    #[derive(Clone, Copy)]
    enum Torn {
        Old,
        Erased,
        Garbage,
    }

    /// An EEPROM whose power is cut after so many more bytes.
    #[derive(Clone)]
    struct Ram {
        bytes: Vec<u8>,
        power: usize,
        torn: Torn,
    }

    impl Ram {
        fn new(bytes: &[u8]) -> Self {
            Self { bytes: bytes.to_vec(), power: usize::MAX, torn: Torn::Old }
        }

        fn floor(&self) -> Result<u64, Error> {
            State::new(self.clone(), 0).floor()
        }
    }

    impl ReadStorage for Ram {
        type Error = ();

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), ()> {
            if self.power == 0 {
                return Err(());
            }
            let start = offset as usize;
            bytes.copy_from_slice(self.bytes.get(start..start + bytes.len()).ok_or(())?);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.bytes.len()
        }
    }

    impl Storage for Ram {
        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
            for (to, from) in self.bytes[offset as usize..].iter_mut().zip(bytes) {
                match (self.power, self.torn) {
                    (0, Torn::Old) => {}
                    (0, Torn::Erased) => *to = 0xff,
                    (0, Torn::Garbage) => *to ^= 0x5a,
                    _ => *to = *from,
                }
                self.power = self.power.saturating_sub(1);
            }
            if self.power == 0 { Err(()) } else { Ok(()) }
        }
    }

    fn raised(ram: Ram, floor: u64) -> (Ram, Result<(), Error>) {
        let mut state = State::new(ram, 0);
        let outcome = state.raise(floor);
        (state.storage, outcome)
    }

    #[test]
    fn the_first_state_holds_the_first_floor() {
        for floor in [0, 1, u64::MAX] {
            assert_eq!(Ram::new(&first_state(floor)).floor(), Ok(floor));
        }
    }

    #[test]
    fn a_raise_is_remembered_and_never_lowers() {
        let (ram, outcome) = raised(Ram::new(&first_state(3)), 7);
        assert_eq!((outcome, ram.floor()), (Ok(()), Ok(7)));
        let (ram, outcome) = raised(ram, 5);
        assert_eq!((outcome, ram.floor()), (Ok(()), Ok(7)));
    }

    #[test]
    fn blank_is_an_error() {
        for blank in [0x00, 0xff] {
            assert_eq!(Ram::new(&[blank; STATE_LEN]).floor(), Err(Error::Floor));
            assert_eq!(raised(Ram::new(&[blank; STATE_LEN]), 1).1, Err(Error::Floor));
        }
        assert_eq!(Ram::new(&[]).floor(), Err(Error::Storage));
    }

    #[test]
    fn every_flipped_bit_of_one_slot_is_survived_and_of_both_is_an_error() {
        for bit in 0..SLOT_LEN * 8 {
            let mut bytes = first_state(9);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Ram::new(&bytes).floor(), Ok(9));
            bytes[SLOT_LEN + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Ram::new(&bytes).floor(), Err(Error::Floor));
        }
    }

    #[test]
    fn records_that_contradict_each_other_are_an_error() {
        let slots = |(a, x): (u64, u64), (b, y): (u64, u64)| {
            let records = [Record { sequence: a, floor: x }, Record { sequence: b, floor: y }];
            Ram::new(records.map(Record::encode).as_flattened()).floor()
        };
        assert_eq!(slots((1, 3), (2, 4)), Ok(4));
        assert_eq!(slots((2, 4), (1, 3)), Ok(4));
        assert_eq!(slots((1, 3), (1, 4)), Err(Error::Floor));
        assert_eq!(slots((2, 3), (1, 4)), Err(Error::Floor));
    }

    #[test]
    fn after_a_cut_at_any_byte_the_old_or_the_new_floor_is_there() {
        for torn in [Torn::Old, Torn::Erased, Torn::Garbage] {
            for first in 0..=STATE_LEN {
                let start = Ram { power: first, torn, ..Ram::new(&first_state(3)) };
                let once = Ram { power: usize::MAX, ..raised(start, 7).0 };
                let floor = once.floor().unwrap();
                assert!(floor == 3 || floor == 7, "{floor} after {first} bytes");
                assert_eq!(raised(once.clone(), 11).0.floor(), Ok(11));
                // And once more, on what the first cut left.
                for second in 0..=STATE_LEN {
                    let twice = raised(Ram { power: second, ..once.clone() }, 11).0;
                    let later = Ram { power: usize::MAX, ..twice }.floor().unwrap();
                    assert!(later == floor || later == 11, "{later} after {first} and {second} bytes");
                }
            }
        }
    }

    #[test]
    fn a_slot_that_does_not_take_the_record_stops_the_raise() {
        struct Stuck(Ram);
        impl ReadStorage for Stuck {
            type Error = ();
            fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), ()> {
                self.0.read(offset, bytes)
            }
            fn capacity(&self) -> usize {
                self.0.capacity()
            }
        }
        impl Storage for Stuck {
            fn write(&mut self, _: u32, _: &[u8]) -> Result<(), ()> {
                Ok(())
            }
        }
        let mut state = State::new(Stuck(Ram::new(&first_state(3))), 0);
        assert_eq!(state.raise(4), Err(Error::Storage));
        assert_eq!(state.floor(), Ok(3));
    }
}
