//! A state through every cut of power, on an EEPROM and on NOR flash that die after so many bytes.

use core::ops::Range;

use embedded_storage::ReadStorage;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use proptest::prelude::*;

use super::*;
use crate::eeprom::{self, Eeprom, STATE_LEN, first_state};
use crate::flash;

/// What a byte may hold that was being written or erased when power was cut.
#[derive(Clone, Copy, Debug)]
enum Torn {
    Old,
    Erased,
    Garbage,
}

const TORN: [Torn; 3] = [Torn::Old, Torn::Erased, Torn::Garbage];

/// Memory whose power is cut after so many more bytes: nothing is read or written after that.
#[derive(Clone, Debug)]
struct Chip {
    bytes: Vec<u8>,
    power: usize,
    torn: Torn,
    /// Bytes that can't be read before they are erased.
    unreadable: Range<usize>,
    /// How often each page has been erased.
    erased: Vec<u32>,
}

impl Chip {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            power: usize::MAX,
            torn: Torn::Old,
            unreadable: 0..0,
            erased: vec![0; bytes.len() / PAGE + 1],
        }
    }

    /// As it is when power comes back, and how long it will stay.
    fn powered(mut self, power: usize, torn: Torn) -> Self {
        (self.power, self.torn) = (power, torn);
        self
    }

    fn get(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        if self.power == 0 {
            return Err(Dead);
        }
        let start = offset as usize;
        if start < self.unreadable.end && self.unreadable.start < start + bytes.len() {
            return Err(Dead);
        }
        bytes.copy_from_slice(self.bytes.get(start..start + bytes.len()).ok_or(Dead)?);
        Ok(())
    }

    fn set(&mut self, offset: u32, bytes: impl IntoIterator<Item = u8>) -> Result<(), Dead> {
        for (to, new) in self.bytes[offset as usize..].iter_mut().zip(bytes) {
            match (self.power, self.torn) {
                (0, _) => return Err(Dead),
                (1, Torn::Old) => {}
                (1, Torn::Erased) => *to = 0xff,
                (1, Torn::Garbage) => *to ^= 0x5a,
                _ => *to = new,
            }
            self.power -= 1;
        }
        if self.power == 0 { Err(Dead) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Dead;

impl NorFlashError for Dead {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ReadStorage for Chip {
    type Error = Dead;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        self.get(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl embedded_storage::Storage for Chip {
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        self.set(offset, bytes.iter().copied())
    }
}

/// A page and a word of the flash.
const PAGE: usize = 256;
const WORD: usize = 4;
const FLASH_LEN: usize = 4 * PAGE;

/// NOR flash: bits go from 1 to 0, each word once, until its page is erased.
#[derive(Clone, Debug)]
struct Nor(Chip);

impl ErrorType for Nor {
    type Error = Dead;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        self.0.get(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.bytes.len()
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Dead> {
        for page in (from..to).step_by(PAGE) {
            self.0.erased[page as usize / PAGE] += 1;
            self.0.set(page, [0xff; PAGE])?;
            if (page as usize..page as usize + PAGE).contains(&self.0.unreadable.start) {
                self.0.unreadable = 0..0;
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        let start = offset as usize;
        let old = &self.0.bytes[start..start + bytes.len()];
        let new: Vec<u8> = old.iter().zip(bytes).map(|(old, new)| old & new).collect();
        self.0.set(offset, new)
    }
}

/// One of the two kinds of memory, with a state in it.
trait Kind: Clone {
    fn enrolled(state: State) -> Self;
    fn chip(&mut self) -> &mut Chip;
    fn load(&self) -> Result<State, Error>;
    fn store(self, state: State) -> (Self, Result<(), Error>);
}

#[derive(Clone)]
struct OnEeprom(Chip);
#[derive(Clone)]
struct OnFlash(Nor);

impl Kind for OnEeprom {
    fn enrolled(state: State) -> Self {
        let mut twin: Twin<Eeprom<Chip>> = eeprom::state(Chip::new(&[0xff; STATE_LEN]), eeprom::IN_A_ROW);
        twin.enrol(state).unwrap();
        Self(twin.into_inner().into_storage())
    }

    fn chip(&mut self) -> &mut Chip {
        &mut self.0
    }

    fn load(&self) -> Result<State, Error> {
        eeprom::state(self.0.clone(), eeprom::IN_A_ROW).load()
    }

    fn store(self, state: State) -> (Self, Result<(), Error>) {
        let mut twin = eeprom::state(self.0, eeprom::IN_A_ROW);
        let outcome = twin.store(state);
        (Self(twin.into_inner().into_storage()), outcome)
    }
}

impl Kind for OnFlash {
    fn enrolled(state: State) -> Self {
        let mut twin = flash::state(Nor(Chip::new(&[0xff; FLASH_LEN])), 0).unwrap();
        twin.enrol(state).unwrap();
        Self(twin.into_inner().into_flash())
    }

    fn chip(&mut self) -> &mut Chip {
        &mut self.0.0
    }

    fn load(&self) -> Result<State, Error> {
        flash::state(self.0.clone(), 0).unwrap().load()
    }

    fn store(self, state: State) -> (Self, Result<(), Error>) {
        let mut twin = flash::state(self.0, 0).unwrap();
        let outcome = twin.store(state);
        (Self(twin.into_inner().into_flash()), outcome)
    }
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::A), Just(Slot::B)]
}

fn choice() -> impl Strategy<Value = Choice> {
    (slot(), slot()).prop_map(|(image, grant)| Choice { image, grant })
}

fn state() -> impl Strategy<Value = State> {
    let trial = (choice(), any::<u8>()).prop_map(|(choice, tries)| Trial { choice, tries });
    (0..50u64, proptest::option::of(choice()), proptest::option::of(trial))
        .prop_filter("nothing to boot", |(_, confirmed, trial)| confirmed.is_some() || trial.is_some())
        .prop_map(|(floor, confirmed, trial)| State { floor, confirmed, trial })
}

/// Any number of stores, each cut after any number of bytes or not at all: what is there afterwards is what was
/// there before it or what it was to store, and the floor never sinks.
fn survives<K: Kind>(first: State, stores: &[(State, usize, Torn)]) -> Result<(), TestCaseError> {
    let mut chip = K::enrolled(first);
    let mut expected = chip.load().unwrap();
    prop_assert_eq!(expected, first);
    for (state, power, torn) in stores {
        *chip.chip() = chip.chip().clone().powered(*power, *torn);
        let (mut after, outcome) = chip.store(*state);
        *after.chip() = after.chip().clone().powered(usize::MAX, Torn::Old);
        let new = State { floor: state.floor.max(expected.floor), ..*state };
        let found = after.load().map_err(|error| TestCaseError::fail(format!("{error:?} after a cut")))?;
        prop_assert!(found == new || outcome.is_err() && found == expected, "{:?}", found);
        (chip, expected) = (after, found);
    }
    Ok(())
}

fn stores(longest: usize) -> impl Strategy<Value = Vec<(State, usize, Torn)>> {
    let power = prop_oneof![Just(usize::MAX), 1..longest];
    let torn = prop_oneof![Just(Torn::Old), Just(Torn::Erased), Just(Torn::Garbage)];
    proptest::collection::vec((state(), power, torn), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn an_eeprom_survives_cuts(first in state(), stores in stores(STATE_LEN + 2)) {
        survives::<OnEeprom>(first, &stores)?;
    }

    #[test]
    fn flash_survives_cuts(first in state(), stores in stores(400)) {
        survives::<OnFlash>(first, &stores)?;
    }
}

/// Every cut of one store, and of the one that follows it on what the first has left.
fn every_cut<K: Kind>(before: K) -> usize {
    let old = before.load().unwrap();
    let [first, second] = [3, 9].map(|floor| {
        let confirmed = Some(Choice { image: Slot::B, grant: Slot::A });
        State { floor: old.floor + floor, confirmed, trial: None }
    });
    let mut cuts = 0;
    let cut = |mut chip: K, state, power, torn| {
        *chip.chip() = chip.chip().clone().powered(power, torn);
        let (mut after, outcome) = chip.store(state);
        *after.chip() = after.chip().clone().powered(usize::MAX, Torn::Old);
        (after, outcome.is_err())
    };
    for torn in TORN {
        for power in 1.. {
            let (once, was_cut) = cut(before.clone(), first, power, torn);
            let found = once.load().unwrap();
            assert!(found == first || was_cut && found == old, "{found:?} after {power} bytes, {torn:?}");
            for power in (1..).step_by(7) {
                let (twice, was_cut) = cut(once.clone(), second, power, torn);
                let later = twice.load().unwrap();
                assert!(later == second || was_cut && later == found, "{later:?} after {power} more");
                cuts += 1;
                if !was_cut {
                    break;
                }
            }
            if !was_cut {
                break;
            }
        }
    }
    cuts
}

#[test]
fn every_cut_leaves_the_old_or_the_new_state() {
    let on_eeprom = every_cut(OnEeprom::enrolled(State::first(3)));
    // In each state of the log: pages being filled, closed, erased.
    let mut flash = OnFlash::enrolled(State::first(3));
    let mut on_flash = 0;
    for floor in 4..16 {
        on_flash += every_cut(flash.clone());
        flash = flash.store(State::first(floor)).0;
    }
    assert!(on_eeprom > 1000 && on_flash > 10_000, "{on_eeprom} {on_flash}");
    println!("{} cuts of power while a state was stored", on_eeprom + on_flash);
}

#[test]
fn what_is_blank_is_an_error_and_stays_one() {
    for blank in [0x00, 0xff] {
        let eeprom = OnEeprom(Chip::new(&[blank; STATE_LEN]));
        assert_eq!(eeprom.load(), Err(Error::Floor));
        assert_eq!(eeprom.store(State::first(1)).1, Err(Error::Floor));
        let flash = OnFlash(Nor(Chip::new(&[blank; FLASH_LEN])));
        assert_eq!(flash.load(), Err(Error::Floor));
        assert_eq!(flash.store(State::first(1)).1, Err(Error::Floor));
    }
    assert_eq!(OnEeprom(Chip::new(&[])).load(), Err(Error::Storage));
}

#[test]
fn a_factory_writes_what_enrolment_writes() {
    let OnEeprom(chip) = OnEeprom::enrolled(State::first(7));
    assert_eq!(chip.bytes, first_state(7));
}

#[test]
fn one_rotten_cell_is_survived_and_two_are_an_error() {
    for bit in 0..RECORD_LEN * 8 {
        let mut bytes = first_state(9);
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(OnEeprom(Chip::new(&bytes)).load(), Ok(State::first(9)));
        bytes[RECORD_LEN + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(OnEeprom(Chip::new(&bytes)).load(), Err(Error::Floor));
    }
    // Whatever rots in flash, what is stored is there or nothing is.
    let OnFlash(Nor(chip)) = OnFlash::enrolled(State::first(9));
    for bit in 0..FLASH_LEN * 8 {
        let mut rotten = chip.clone();
        rotten.bytes[bit / 8] ^= 1 << (bit % 8);
        let found = OnFlash(Nor(rotten)).load();
        assert!(
            matches!(found, Ok(state) if state == State::first(9)) || found == Err(Error::Floor),
            "{bit}: {found:?}"
        );
    }
}

/// A page of flash that is lost as a whole, at any point of the logs' lives, brings no older state back.
#[test]
fn a_lost_page_of_flash_is_survived() {
    let mut flash = OnFlash::enrolled(State::first(0));
    for floor in 1..=80 {
        flash = flash.store(State::first(floor)).0;
        for (page, lost) in (0..FLASH_LEN / PAGE).flat_map(|page| [0x00, 0x5a, 0xff].map(|lost| (page, lost)))
        {
            let mut after = flash.clone();
            after.chip().bytes[page * PAGE..][..PAGE].fill(lost);
            assert_eq!(after.load(), Ok(State::first(floor)), "page {page} of {lost:#x}");
        }
    }
}

/// Flash with check bits gives an error for a word that a cut has torn.
#[test]
fn a_word_of_flash_that_cannot_be_read_is_survived_and_mended() {
    let mut flash = OnFlash::enrolled(State::first(0));
    for floor in 1..=12 {
        flash = flash.store(State::first(floor)).0;
        for word in (0..FLASH_LEN).step_by(WORD) {
            let mut after = flash.clone();
            after.chip().unreadable = word..word + WORD;
            assert_eq!(after.load(), Ok(State::first(floor)), "word {word}");
            for next in 1..=2 {
                let (stored, outcome) = after.store(State::first(floor + next));
                assert_eq!(outcome, Ok(()), "word {word}");
                assert_eq!(stored.load(), Ok(State::first(floor + next)), "word {word}");
                after = stored;
            }
        }
    }
}

#[test]
fn a_page_of_flash_that_cannot_be_read_is_survived_and_mended() {
    let mut flash = OnFlash::enrolled(State::first(0));
    for floor in 1..=40 {
        flash = flash.store(State::first(floor)).0;
        for page in 0..FLASH_LEN / PAGE {
            let mut after = flash.clone();
            after.chip().unreadable = page * PAGE..(page + 1) * PAGE;
            assert_eq!(after.load(), Ok(State::first(floor)), "page {page}");
            let (mut after, outcome) = after.store(State::first(floor + 1));
            assert_eq!(outcome, Ok(()), "page {page}");
            assert_eq!(after.load(), Ok(State::first(floor + 1)), "page {page}");
            assert!(after.chip().unreadable.is_empty(), "page {page}");
        }
    }
}

#[test]
fn a_cell_is_mended_by_a_load() {
    for (byte, stored) in [(0, State::first(9)), (RECORD_LEN, State::first(9))] {
        let mut chip = Chip::new(&first_state(9));
        chip.bytes[byte] ^= 1;
        let mut twin = eeprom::state(chip, eeprom::IN_A_ROW);
        assert_eq!(twin.load(), Ok(stored));
        assert_eq!(twin.into_inner().into_storage().bytes, first_state(9));
    }
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let load = |(a, x): (u64, u64), (b, y): (u64, u64)| {
        let records = [(a, x), (b, y)]
            .map(|(sequence, floor)| Record { sequence, state: State::first(floor) }.encode());
        OnEeprom(Chip::new(records.as_flattened())).load().map(|state| state.floor)
    };
    assert_eq!(load((1, 3), (2, 4)), Ok(4));
    assert_eq!(load((2, 4), (1, 3)), Ok(4));
    assert_eq!(load((1, 3), (1, 4)), Err(Error::Floor));
    assert_eq!(load((2, 3), (1, 4)), Err(Error::Floor));
    assert_eq!(load((1, 3), (3, 4)), Err(Error::Floor));
}

#[test]
fn a_record_that_boots_nothing_is_none() {
    let record = Record { sequence: 1, state: State { floor: 1, confirmed: None, trial: None } }.encode();
    assert!(Record::decode(&record).is_none());
}

#[test]
fn a_cell_that_does_not_take_the_record_stops_the_store() {
    struct Stuck([u8; RECORD_LEN]);
    impl Cells for Stuck {
        fn read(&mut self, _: Cell) -> Result<Option<[u8; RECORD_LEN]>, Error> {
            Ok(Some(self.0))
        }
        fn write(&mut self, _: Cell, _: &[u8; RECORD_LEN]) -> Result<(), Error> {
            Ok(())
        }
    }
    let mut twin = Twin::new(Stuck(State::first(3).first_record()));
    assert_eq!(twin.store(State::first(4)), Err(Error::Storage));
    assert_eq!(twin.load(), Ok(State::first(3)));
}

/// Cells that are read wrongly once, as a glitch may: the `nth` time, as this record.
struct Lying {
    cells: [[u8; RECORD_LEN]; 2],
    nth: usize,
    lie: [u8; RECORD_LEN],
    /// What else the glitch does to both cells.
    spoils: bool,
}

impl Cells for Lying {
    fn read(&mut self, cell: Cell) -> Result<Option<[u8; RECORD_LEN]>, Error> {
        self.nth = self.nth.wrapping_sub(1);
        if self.nth != 0 {
            return Ok(Some(self.cells[cell as usize]));
        }
        if self.spoils {
            self.cells.as_flattened_mut().fill(0xa5);
        }
        Ok(Some(self.lie))
    }

    fn write(&mut self, cell: Cell, record: &[u8; RECORD_LEN]) -> Result<(), Error> {
        self.cells[cell as usize] = *record;
        Ok(())
    }
}

#[test]
fn a_record_that_was_read_wrongly_once_lowers_no_floor() {
    let torn = [0xff; RECORD_LEN];
    let held = State::first(9).first_record();
    for (cells, spoils) in
        [([held; 2], false), ([held; 2], true), ([held, torn], false), ([torn, held], false)]
    {
        for (nth, floor) in (1..12).flat_map(|nth| [0, 8, 9].map(|floor| (nth, floor))) {
            for stores in [false, true] {
                let lie = State::first(floor).first_record();
                let mut twin = Twin::new(Lying { cells, nth, lie, spoils });
                let found = if stores {
                    twin.store(State::first(9)).map(|()| 9)
                } else {
                    twin.load().map(|state| state.floor)
                };
                assert!(found.is_err() || found == Ok(9), "{found:?}: floor {floor} at read {nth}");
                let later = twin.load().map(|state| state.floor);
                assert!(later.is_err() || later == Ok(9), "later {later:?}: floor {floor} at read {nth}");
            }
        }
    }
}

/// Erasures are spread: after a thousand stores no page has been erased much more often than another.
#[test]
fn wear_is_spread() {
    let mut flash = OnFlash::enrolled(State::first(0));
    for floor in 1..=1000 {
        let (after, outcome) = flash.store(State::first(floor));
        assert_eq!(outcome, Ok(()));
        flash = after;
    }
    let erased = &flash.0.0.erased[..FLASH_LEN / PAGE];
    let (least, most) = (erased.iter().min().unwrap(), erased.iter().max().unwrap());
    assert!(*least > 50 && most - least <= 2, "{erased:?}");
}
