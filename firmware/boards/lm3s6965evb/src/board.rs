//! What this board brings to a device: where its state is kept.

use eeprom24x::{Eeprom24x, SlaveAddr};
use modelseal_firmware::eeprom;
use modelseal_firmware::state::StateStore;

use crate::chip::Pause;
use crate::i2c::Bus;

/// The state, at byte 0 of the AT24C64 on the bus.
pub(crate) fn state(bus: Bus) -> impl StateStore {
    let chip = Eeprom24x::new_24x64(bus, SlaveAddr::default());
    eeprom::state(eeprom24x::Storage::new(chip, Pause), eeprom::IN_A_ROW)
}
