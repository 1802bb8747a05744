//! The LM3S6965's registers, and what its pins are used for.

use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use embedded_hal::delay::DelayNs;

/// The processor's clock in Hz: after reset, the internal oscillator.
pub(crate) const CLOCK: u32 = 12_000_000;

/// How often a register is read until it says that something is done. The longest wait, a byte on the I2C bus, takes
/// some 1100 cycles.
pub(crate) const PATIENCE: u32 = 10_000;

/// A peripheral, by the address of its registers.
#[derive(Clone, Copy)]
pub(crate) enum Peripheral {
    GpioA = 0x4000_4000,
    GpioB = 0x4000_5000,
    GpioC = 0x4000_6000,
    GpioD = 0x4000_7000,
    Ssi0 = 0x4000_8000,
    I2c0 = 0x4002_0000,
    SystemControl = 0x400f_e000,
}

impl Peripheral {
    pub(crate) fn set(self, register: usize, value: u32) {
        // SAFETY: `address` is that of a register, 32 bits wide and aligned, or of none, which faults. Writing it has
        // no effect on memory: none of the peripherals above has DMA.
        unsafe { with_exposed_provenance_mut::<u32>(self.address(register)).write_volatile(value) }
    }

    pub(crate) fn get(self, register: usize) -> u32 {
        // SAFETY: as in `set`.
        unsafe { with_exposed_provenance::<u32>(self.address(register)).read_volatile() }
    }

    /// A word in the 4 KiB of the peripheral.
    fn address(self, register: usize) -> usize {
        self as usize + (register & 0xffc)
    }

    /// Reads a register until `done`; `None` if it never is.
    pub(crate) fn wait(self, register: usize, done: impl Fn(u32) -> bool) -> Option<u32> {
        (0..PATIENCE).map(|_| self.get(register)).find(|value| done(*value))
    }
}

const CLOCKS_1: usize = 0x104;
const CLOCKS_2: usize = 0x108;
const DIRECTION: usize = 0x400;
const ALTERNATE: usize = 0x420;
const OPEN_DRAIN: usize = 0x50c;
const DIGITAL: usize = 0x51c;

/// Clocks what is used, and connects it to its pins.
pub(crate) fn start() {
    use Peripheral::{GpioA, GpioB, GpioC, GpioD, SystemControl};
    // I2C 0 and SSI 0; ports A to D.
    SystemControl.set(CLOCKS_1, 1 << 12 | 1 << 4);
    SystemControl.set(CLOCKS_2, 0b1111);
    // The clocks arrive after three cycles.
    cortex_m::asm::delay(3);
    // SSI 0: clock, receive, transmit.
    connect(GpioA, 1 << 2 | 1 << 4 | 1 << 5);
    // I2C 0: clock and data.
    connect(GpioB, 1 << 2 | 1 << 3);
    GpioB.set(OPEN_DRAIN, 1 << 2 | 1 << 3);
    // The display is selected whenever the card isn't. It takes what is then on the bus for pixels, not for commands.
    drive(GpioC, 7, true);
    // The card isn't selected.
    drive(GpioD, 0, true);
}

fn connect(port: Peripheral, pins: u32) {
    port.set(ALTERNATE, pins);
    port.set(DIGITAL, pins);
}

fn drive(port: Peripheral, pin: u8, high: bool) {
    port.set(DIRECTION, 1 << pin);
    port.set(DIGITAL, 1 << pin);
    set_pin(port, pin, high);
}

/// Of the data register's addresses, the one of this pin changes no other.
pub(crate) fn set_pin(port: Peripheral, pin: u8, high: bool) {
    port.set(4 << pin, u32::from(high) << pin);
}

/// Waits for so many cycles.
pub(crate) struct Pause;

impl DelayNs for Pause {
    fn delay_ns(&mut self, ns: u32) {
        let cycles = u64::from(ns) * u64::from(CLOCK) / 1_000_000_000;
        cortex_m::asm::delay(u32::try_from(cycles).unwrap_or(u32::MAX).max(1));
    }
}
