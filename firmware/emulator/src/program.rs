//! What a programmer writes into a board's storage: a sealed model and its grant.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use embedded_storage::{ReadStorage, Storage};
use modelseal_firmware::eeprom;
use modelseal_firmware::provision::{DELIVERED_GRANT_MAX, Delivery};
use modelseal_firmware::state::{Choice, Slot, State, StateStore, TRIES, Trial};
use modelseal_firmware::storage::GRANT_BUFFER;

use crate::chips::Chip;
use crate::failure::Failure;
use crate::options::Options;
use crate::sdcard;
use crate::send::refused;

const MPS2: &str = "mps2-an386";
const LM3S: &str = "lm3s6965evb";

/// Writes both where the board looks for what it boots; or where an update would go, to be tried.
pub(crate) fn program(options: &Options) -> Result<(), Failure> {
    let eeprom = Path::new(options.require("eeprom")?);
    let installs = options.get("install").is_some();
    let choice = if installs { spare(eeprom)? } else { booted(eeprom)? };
    let sealed = std::fs::read(options.require("sealed")?)?;
    let grant = read_grant(options)?;
    match options.require("board")? {
        MPS2 => mps2(options, choice, &sealed, &grant),
        LM3S => lm3s(options, choice, &sealed, &grant),
        board => Err(format!("unknown board {board}").into()),
    }?;
    if installs { install(eeprom, choice) } else { Ok(()) }
}

/// A board's storage with nothing in it.
pub(crate) fn storage(options: &Options) -> Result<(), Failure> {
    let out = Path::new(options.require("out")?);
    match options.require("board")? {
        MPS2 => File::create_new(out)?.set_len(16 << 20)?,
        LM3S => sdcard::write_card(out, &[])?,
        board => return Err(format!("unknown board {board}").into()),
    }
    Ok(())
}

/// As much of a grant as is delivered.
pub(crate) fn read_grant(options: &Options) -> Result<Vec<u8>, Failure> {
    let mut grant = Vec::new();
    File::open(options.require("grant")?)?.take(DELIVERED_GRANT_MAX as u64).read_to_end(&mut grant)?;
    Ok(grant)
}

/// What the board remembers.
fn remembered(eeprom: &Path) -> Result<impl StateStore, Failure> {
    Ok(eeprom::state(Chip::open(eeprom)?, eeprom::IN_A_ROW))
}

/// What the board boots next. If its state is corrupt, that is for the board to say.
fn booted(eeprom: &Path) -> Result<Choice, Failure> {
    let Ok(State { confirmed, trial, .. }) = remembered(eeprom)?.load() else {
        return Ok(Choice::FIRST);
    };
    let trial = trial.filter(|trial| trial.tries > 0 || confirmed.is_none());
    Ok(trial.map(|trial| trial.choice).or(confirmed).unwrap_or(Choice::FIRST))
}

/// The places that aren't confirmed.
fn spare(eeprom: &Path) -> Result<Choice, Failure> {
    let state = remembered(eeprom)?.load().map_err(|error| refused(error.code()))?;
    let in_use = state
        .confirmed
        .ok_or("nothing has been confirmed that --install could follow: boot this board without it first")?;
    Ok(other(in_use))
}

fn other(choice: Choice) -> Choice {
    Choice { image: choice.image.other(), grant: choice.grant.other() }
}

/// Stores that they are to be tried.
fn install(eeprom: &Path, choice: Choice) -> Result<(), Failure> {
    let mut store = remembered(eeprom)?;
    let state = store.load()?;
    let trial = Some(Trial { choice, tries: TRIES });
    Ok(store.store(State { trial, ..state })?)
}

/// The memory map is in firmware/boards/mps2-an386/src/places.rs.
fn mps2(options: &Options, choice: Choice, sealed: &[u8], grant: &[u8]) -> Result<(), Failure> {
    const HALF: u32 = 8 << 20;
    let delivery = |choice: Choice| if choice.grant == Slot::A { 0x0400 } else { 0x1000 };
    let mut storage = Chip::open(Path::new(options.require("storage")?))?;
    let mut eeprom = Chip::open(Path::new(options.require("eeprom")?))?;
    let mut buffer = GRANT_BUFFER;
    // A model may have all of the storage that is behind its place, but not what the one that boots has.
    let image = if choice.image == Slot::A { 0 } else { HALF };
    let mut end = storage.capacity();
    if options.get("install").is_some() {
        let in_use = Delivery::read(&mut eeprom, delivery(other(choice)), &mut buffer);
        let overlap = in_use.is_ok_and(|in_use| in_use.sealed_len > u64::from(HALF));
        end = if choice.image == Slot::A || overlap { HALF as usize } else { end };
    }
    if image as usize + sealed.len() > end {
        return Err(refused(modelseal_core::Error::Memory.code()));
    }
    storage.write(image, sealed)?;
    let beside = Delivery { sealed_len: sealed.len() as u64, grant };
    let beside = beside.encode(&mut buffer)?;
    eeprom.write(delivery(choice), beside)?;
    Ok(())
}

/// The files' names are in firmware/boards/lm3s6965evb/src/places.rs.
fn lm3s(options: &Options, choice: Choice, sealed: &[u8], grant: &[u8]) -> Result<(), Failure> {
    let image = if choice.image == Slot::A { "A.SLD" } else { "B.SLD" };
    let beside = if choice.grant == Slot::A { "A.GRT" } else { "B.GRT" };
    let card = Path::new(options.require("storage")?);
    Ok(sdcard::put(card, &[(image, sealed), (beside, grant)])?)
}
