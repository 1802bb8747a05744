//! The board's first serial line: a CMSDK APB UART, waited for.

use core::convert::Infallible;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicBool, Ordering};

use embedded_io::{ErrorType, Read, Write};

use crate::board::CLOCK;

const DATA: usize = 0x4000_4000;
const STATE: usize = DATA + 4;
const CTRL: usize = DATA + 8;
const BAUDDIV: usize = DATA + 16;
const SENDING: u32 = 1 << 0;
const RECEIVED: u32 = 1 << 1;
const ENABLE_BOTH: u32 = 0b11;
const BAUD: u32 = 115_200;

/// 8 data bits, no parity, 115,200 baud.
pub(crate) struct Uart(());

impl Uart {
    /// The first time only.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let mut uart = (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Self(()))?;
        uart.set(BAUDDIV, CLOCK / BAUD);
        uart.set(CTRL, ENABLE_BOTH);
        Some(uart)
    }

    fn set(&mut self, register: usize, value: u32) {
        // SAFETY: one of this UART's registers. They are 32 bits wide and aligned, writing one has no effect on
        // memory, and `self` is the only one to do so.
        unsafe { with_exposed_provenance_mut::<u32>(register).write_volatile(value) }
    }

    fn get(&mut self, register: usize) -> u32 {
        // SAFETY: as in `set`; reading `DATA` takes a byte, and `self` is the only one to do so.
        unsafe { with_exposed_provenance::<u32>(register).read_volatile() }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    /// Waits for one byte.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = bytes.first_mut() else { return Ok(0) };
        while self.get(STATE) & RECEIVED == 0 {}
        let [byte, ..] = self.get(DATA).to_le_bytes();
        *first = byte;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = bytes.first() else { return Ok(0) };
        while self.get(STATE) & SENDING != 0 {}
        self.set(DATA, (*first).into());
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while self.get(STATE) & SENDING != 0 {}
        Ok(())
    }
}
