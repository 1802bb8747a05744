//! From reset to the verdict.

use core::cell::RefCell;
use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, entry, exception};
use defmt_semihosting as _;
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::provision::{
    PROVISIONED_MAX, Provisioned, ProvisionedDevice, Purpose, Remembered, SURROUNDINGS_MAX, Surroundings,
};
use modelseal_firmware::slots::{Chosen, choose};
use modelseal_firmware::state::Slot;
use modelseal_firmware::storage::GRANT_BUFFER;
use modelseal_firmware::update::serve;
use modelseal_firmware::{Device, Loaded, boot};
use semihosting::process::exit;
use zeroize::{Zeroize, Zeroizing};

use crate::board::{eeprom, state};
use crate::i2c::BitBang;
use crate::memory::{Memory, abandon, keep_psram, wipe_psram, wipe_stack};
use crate::places::Places;
use crate::uart::Uart;

#[entry]
fn main() -> ! {
    let Some(memory) = Memory::take() else { abandon() };
    let outcome = run(memory.provisioned, memory.psram);
    if let Err(error) = outcome {
        // A model that couldn't be confirmed lies there opened.
        wipe_psram(memory.psram);
        defmt::println!("refused {=u16} {=str}", error.code(), error.name());
    }
    wipe_stack();
    exit(outcome.map_or_else(|error| error.class() as i32, |()| 0))
}

/// Has a stack frame of its own, which is wiped afterwards with those of all that it calls.
#[inline(never)]
fn run(provisioned: &mut [u8], psram: &mut [u8]) -> Result<(), Error> {
    let mut private = Zeroizing::new([0; PROVISIONED_MAX + SURROUNDINGS_MAX]);
    take_over(provisioned, private.as_mut_slice());
    let (provisioned, rest) = Provisioned::decode(private.as_slice())?;
    let (surroundings, _) = Surroundings::decode(rest)?;
    defmt::info!("device {=str}", provisioned.device.as_str());

    let bus = RefCell::new(BitBang::take().ok_or(Error::Storage)?);
    let mut board =
        ProvisionedDevice { provisioned, time: Remembered::new(surroundings.now), state: state(&bus) };
    let mut places = Places::new(eeprom(&bus), psram);
    if surroundings.purpose == Purpose::Update {
        return update(&mut board, &mut places);
    }
    let mut chosen = choose(&mut board, &mut places)?;
    let opened = match open(&mut board, &mut places, chosen) {
        Ok(opened) => opened,
        Err(error) => {
            chosen = chosen.refused(error, &mut board)?;
            defmt::warn!("the update is refused, {=u16} {=str}, falling back", error.code(), error.name());
            open(&mut board, &mut places, chosen)?
        }
    };
    let version = opened.version();
    // An application would run the model here, and confirm it when it works.
    let hash = blake3::hash(opened.model());
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

/// Opens it where it lies.
#[inline(never)]
fn open<'p>(
    board: &mut impl Device,
    places: &'p mut Places<'_, impl embedded_storage::Storage>,
    chosen: Chosen,
) -> Result<Loaded<'p>, Error> {
    let mut buffer = GRANT_BUFFER;
    let (grant, sealed) = places.place(chosen.choice, &mut buffer)?;
    let image = if chosen.choice.image == Slot::A { "A" } else { "B" };
    defmt::info!("image {=str}, trial {=bool}, {=usize} bytes", image, chosen.trial.is_some(), sealed.len());
    boot(board, grant, sealed)
}

/// Takes an update over the UART. Opens nothing, so that nothing is decrypted in storage that lasts.
fn update(
    board: &mut impl Device,
    places: &mut Places<'_, impl embedded_storage::Storage>,
) -> Result<(), Error> {
    keep_psram();
    let uart = Uart::take().ok_or(Error::Storage)?;
    defmt::info!("waiting for an update");
    let version = serve(board, places, uart).map_err(|_| Error::Storage)?;
    defmt::println!("updated {=str} {=u64}", board.line(), version);
    Ok(())
}

/// Moves what was provisioned to where only this image writes, and wipes it where it was.
fn take_over(provisioned: &mut [u8], private: &mut [u8]) {
    private.iter_mut().zip(&*provisioned).for_each(|(to, from)| *to = *from);
    provisioned.zeroize();
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
