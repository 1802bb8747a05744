//! From reset to the verdict.

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, entry, exception};
use defmt_semihosting as _;
use embedded_storage::ReadStorage;
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::provision::{Provisioned, ProvisionedDevice, Purpose, Remembered, Surroundings};
use modelseal_firmware::slots::{Chosen, Slots, choose};
use modelseal_firmware::state::{Choice, Slot};
use modelseal_firmware::storage::GRANT_BUFFER;
use modelseal_firmware::{Device, Loaded, load};
use semihosting::process::exit;
use zeroize::Zeroize;

use crate::board::state;
use crate::card::Card;
use crate::memory::{abandon, provisioned, take_model, wipe_stack};
use crate::places::Places;
use crate::{chip, i2c};

#[entry]
fn main() -> ! {
    let Some(memory) = take_model() else { abandon() };
    let outcome = run(memory);
    if let Err(error) = outcome {
        // A model that couldn't be confirmed lies there opened.
        memory.zeroize();
        defmt::println!("refused {=u16} {=str}", error.code(), error.name());
    }
    wipe_stack();
    exit(outcome.map_or_else(|error| error.class() as i32, |()| 0))
}

/// Has a stack frame of its own, which is wiped afterwards with those of all that it calls.
#[inline(never)]
fn run(memory: &mut [u8]) -> Result<(), Error> {
    let (provisioned, rest) = Provisioned::decode(provisioned())?;
    let (surroundings, _) = Surroundings::decode(rest)?;
    defmt::info!("device {=str}", provisioned.device.as_str());
    if surroundings.purpose == Purpose::Update {
        defmt::error!("this board can't write its card");
        return Err(Error::Storage);
    }

    chip::start();
    let state = state(i2c::Bus::take().ok_or(Error::Storage)?);
    let mut board = ProvisionedDevice { provisioned, time: Remembered::new(surroundings.now), state };
    let mut places = Places::new(Card::take()?);
    let mut chosen = chosen(&mut board, &mut places)?;
    let opened = match open(&mut board, &mut places, chosen.choice, memory) {
        Ok(opened) => opened,
        Err(error) => {
            chosen = chosen.refused(error, &mut board)?;
            defmt::warn!("the update is refused, {=u16} {=str}, falling back", error.code(), error.name());
            open(&mut board, &mut places, chosen.choice, memory)?
        }
    };
    let version = opened.version();
    // An application would run the model here, and confirm it when it works.
    let hash = hash(opened.model());
    let model = match surroundings.purpose {
        Purpose::Crash => opened.unconfirmed(),
        Purpose::Run | Purpose::Update => chosen.confirm(opened, &mut board)?,
    };
    let line = board.line();
    defmt::println!(
        "opened {=str} {=u64} {=usize} blake3={=str}",
        line,
        version,
        model.len(),
        &*hash.to_hex()
    );
    Ok(())
}

// Each of these has a stack frame of its own as well, so that what one needs is there again for the next.

#[inline(never)]
fn chosen(board: &mut impl Device, places: &mut Places) -> Result<Chosen, Error> {
    choose(board, places)
}

#[inline(never)]
fn open<'m>(
    board: &mut impl Device,
    places: &mut Places,
    choice: Choice,
    memory: &'m mut [u8],
) -> Result<Loaded<'m>, Error> {
    let mut buffer = GRANT_BUFFER;
    let (grant, mut sealed) = places.find(choice, &mut buffer)?;
    let image = if choice.image == Slot::A { "A" } else { "B" };
    defmt::info!("image {=str}, {=usize} bytes", image, sealed.capacity());
    load(board, grant, &mut sealed, memory)
}

#[inline(never)]
fn hash(model: &[u8]) -> blake3::Hash {
    blake3::hash(model)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    defmt::error!("panic");
    abandon()
}

// SAFETY: it uses nothing that the interrupted code may have left half done, and never returns to it.
#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    abandon()
}
