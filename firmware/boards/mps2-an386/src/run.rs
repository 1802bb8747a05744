//! From reset to the verdict.

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, entry, exception};
use defmt_semihosting as _;
use modelseal_firmware::Device;
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::modelseal_core::grant::Grant;
use modelseal_firmware::provision::{DELIVERY_MAX, Delivery, PROVISIONED_MAX, Provisioned};
use semihosting::process::exit;
use zeroize::{Zeroize, Zeroizing};

use crate::board::{Board, floor_store};
use crate::memory::{Memory, abandon, wipe_stack};

#[entry]
fn main() -> ! {
    let Some(memory) = Memory::take() else { abandon() };
    let outcome = run(memory.provisioned, memory.psram);
    if let Err(error) = outcome {
        // A model that couldn't be confirmed lies there opened.
        memory.psram.zeroize();
        defmt::println!("refused {=u16} {=str}", error.code(), error.name());
    }
    wipe_stack();
    exit(outcome.map_or_else(|error| error.class() as i32, |()| 0))
}

/// Has a stack frame of its own, which is wiped afterwards with those of all that it calls.
#[inline(never)]
fn run(provisioned: &mut [u8], psram: &mut [u8]) -> Result<(), Error> {
    let mut private = Zeroizing::new([0; PROVISIONED_MAX + DELIVERY_MAX]);
    take_over(provisioned, private.as_mut_slice());
    let (provisioned, rest) = Provisioned::decode(private.as_slice())?;
    let (delivery, _) = Delivery::decode(rest)?;
    let length = usize::try_from(delivery.sealed_len).map_err(|_| Error::Memory)?;
    let sealed = psram.get_mut(..length).ok_or(Error::Memory)?;
    defmt::info!("device {=str}, sealed model of {=usize} bytes", provisioned.device.as_str(), length);

    let mut board = Board::new(provisioned, delivery.now, floor_store()?);
    let opened = modelseal_firmware::boot(&mut board, Grant::parse(delivery.grant)?, sealed)?;
    let version = opened.version();
    // An application would run the model here, and confirm it when it works.
    let hash = blake3::hash(opened.model());
    let model = opened.confirm(&mut board)?;
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
