//! Runs what is measured, and reports.
//!
//! ```text
//! standard output, over semihosting: four words, little-endian
//!   outcome   0, or the code of the error
//!   checked   ticks until the signatures were checked
//!   all       ticks until the model was confirmed
//!   stack     bytes at the peak, from the top of the stack
//! ```
//!
//! A tick of SysTick is 40 instructions: QEMU's clock counts instructions (`-icount shift=0`).

use core::panic::PanicInfo;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::entry;
use semihosting::io::{Write, stdout};
use semihosting::process::exit;

use crate::stack;

/// SysTick counts down from here.
const TICKS: u32 = 0x00ff_ffff;

#[entry]
fn main() -> ! {
    let Some(mut core) = cortex_m::Peripherals::take() else { exit(1) };
    core.SYST.set_clock_source(SystClkSource::Core);
    core.SYST.set_reload(TICKS);
    core.SYST.clear_current();
    core.SYST.enable_counter();
    stack::paint();
    let before = SYST::get_current();
    let (outcome, checked) = measured();
    let after = SYST::get_current();
    let since = |ticks: u32| before.wrapping_sub(ticks) & TICKS;
    report([outcome, since(checked), since(after), stack::peak()])
}

#[cfg(any(feature = "aes-gcm", feature = "chacha20-poly1305"))]
fn measured() -> (u32, u32) {
    let (outcome, checked) = crate::device::boot();
    (outcome.map_or_else(|error| error.code().into(), |()| 0), checked)
}

/// The empty image.
#[cfg(not(any(feature = "aes-gcm", feature = "chacha20-poly1305")))]
fn measured() -> (u32, u32) {
    core::hint::black_box((0, SYST::get_current()))
}

fn report(words: [u32; 4]) -> ! {
    let said =
        stdout().and_then(|mut out| words.iter().try_for_each(|word| out.write_all(&word.to_le_bytes())));
    exit(i32::from(said.is_err()))
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(1)
}
