//! The chip's synchronous serial interface, a PL022, as SPI master, and the pin that selects the SD card.

use core::convert::Infallible;
use core::sync::atomic::{AtomicBool, Ordering};

use embedded_hal::digital::{self, OutputPin};
use embedded_hal::spi::{ErrorKind, ErrorType, SpiBus};

use crate::chip::Peripheral::{GpioD, Ssi0};
use crate::chip::{CLOCK, set_pin};

const CONTROL_0: usize = 0x00;
const CONTROL_1: usize = 0x04;
const DATA: usize = 0x08;
const STATE: usize = 0x0c;
const PRESCALE: usize = 0x10;

const BITS_8: u32 = 7;
const ENABLE: u32 = 1 << 1;
const ROOM: u32 = 1 << 1;
const RECEIVED: u32 = 1 << 2;

/// How fast a card can be until it has started.
const SLOW: u32 = 400_000;
/// The smallest prescaler.
const HALF: u32 = 2;

/// Mode 0, most significant bit first.
pub(crate) struct Bus(());

impl Bus {
    /// The first time only. Slow.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let mut bus = (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Self(()))?;
        bus.clock(CLOCK / HALF / SLOW - 1);
        Some(bus)
    }

    /// From here on as fast as it goes: 6 MHz.
    pub(crate) fn hurry(&mut self) {
        self.clock(0);
    }

    fn clock(&mut self, cycles: u32) {
        Ssi0.set(CONTROL_1, 0);
        Ssi0.set(PRESCALE, HALF);
        Ssi0.set(CONTROL_0, cycles << 8 | BITS_8);
        Ssi0.set(CONTROL_1, ENABLE);
    }

    /// One byte each way, so both queues are empty before and after it.
    fn exchange(&mut self, byte: u8) -> Result<u8, ErrorKind> {
        Ssi0.wait(STATE, |state| state & ROOM != 0).ok_or(ErrorKind::Other)?;
        Ssi0.set(DATA, byte.into());
        Ssi0.wait(STATE, |state| state & RECEIVED != 0).ok_or(ErrorKind::Other)?;
        let [received, ..] = Ssi0.get(DATA).to_le_bytes();
        Ok(received)
    }
}

impl ErrorType for Bus {
    type Error = ErrorKind;
}

impl SpiBus for Bus {
    /// Sends ones, which a card that answers expects.
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ErrorKind> {
        bytes.fill(0xff);
        self.transfer_in_place(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        bytes.iter().try_for_each(|byte| self.exchange(*byte).map(|_| ()))
    }

    fn transfer(&mut self, received: &mut [u8], sent: &[u8]) -> Result<(), ErrorKind> {
        let (mut received, mut sent) = (received.iter_mut(), sent.iter());
        loop {
            match (received.next(), sent.next()) {
                (None, None) => return Ok(()),
                (Some(to), from) => *to = self.exchange(from.map_or(0xff, |byte| *byte))?,
                (None, Some(from)) => self.exchange(*from).map(|_| ())?,
            }
        }
    }

    fn transfer_in_place(&mut self, bytes: &mut [u8]) -> Result<(), ErrorKind> {
        bytes.iter_mut().try_for_each(|byte| {
            *byte = self.exchange(*byte)?;
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// Selects the card when low.
pub(crate) struct Select(());

impl Select {
    /// The first time only.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Self(()))
    }
}

impl digital::ErrorType for Select {
    type Error = Infallible;
}

impl OutputPin for Select {
    fn set_low(&mut self) -> Result<(), Infallible> {
        set_pin(GpioD, 0, false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        set_pin(GpioD, 0, true);
        Ok(())
    }
}
