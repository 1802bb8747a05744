//! What this board brings to a device: where its state is kept.

use core::cell::RefCell;

use eeprom24x::{Eeprom24x, SlaveAddr};
use embedded_hal::delay::DelayNs;
use embedded_hal_bus::i2c::RefCellDevice;
use embedded_storage::Storage;
use modelseal_firmware::eeprom;
use modelseal_firmware::state::StateStore;

use crate::i2c::BitBang;

/// The processor's clock in Hz.
pub(crate) const CLOCK: u32 = 25_000_000;

/// The state, at the EEPROM's byte 0.
pub(crate) fn state(bus: &RefCell<BitBang>) -> impl StateStore {
    eeprom::state(eeprom(bus), eeprom::IN_A_ROW)
}

/// The AT24C64 on the bus.
pub(crate) fn eeprom(bus: &RefCell<BitBang>) -> impl Storage {
    let chip = Eeprom24x::new_24x64(RefCellDevice::new(bus), SlaveAddr::default());
    eeprom24x::Storage::new(chip, Pause)
}

/// Waits for so many cycles.
struct Pause;

impl DelayNs for Pause {
    fn delay_ns(&mut self, ns: u32) {
        let cycles = u64::from(ns) * u64::from(CLOCK) / 1_000_000_000;
        cortex_m::asm::delay(u32::try_from(cycles).unwrap_or(u32::MAX).max(1));
    }
}
