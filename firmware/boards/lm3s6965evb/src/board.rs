//! What this board brings to [`Device`].

use eeprom24x::{Eeprom24x, SlaveAddr};
use modelseal_firmware::Device;
use modelseal_firmware::eeprom;
use modelseal_firmware::modelseal_core::grant::DeviceId;
use modelseal_firmware::modelseal_core::keys::Secret;
use modelseal_firmware::modelseal_core::sign::Publisher;
use modelseal_firmware::provision::Provisioned;
use modelseal_firmware::state::StateStore;

use crate::chip::Pause;
use crate::i2c::Bus;

/// The board, as far as its one line is concerned.
pub(crate) struct Board<'a, S> {
    provisioned: Provisioned<'a>,
    now: Option<u64>,
    state: S,
}

impl<'a, S: StateStore> Board<'a, S> {
    pub(crate) fn new(provisioned: Provisioned<'a>, now: Option<u64>, state: S) -> Self {
        Self { provisioned, now, state }
    }
}

impl<S: StateStore> Device for Board<'_, S> {
    fn id(&self) -> DeviceId<'_> {
        self.provisioned.device
    }

    fn line(&self) -> &str {
        self.provisioned.line
    }

    fn secret(&self) -> &Secret {
        &self.provisioned.secret
    }

    fn publisher(&self) -> &Publisher {
        &self.provisioned.publisher
    }

    fn state(&mut self) -> &mut impl StateStore {
        &mut self.state
    }

    fn now(&mut self) -> Option<u64> {
        self.now
    }
}

/// The state, at byte 0 of the AT24C64 on the bus.
pub(crate) fn state(bus: Bus) -> impl StateStore {
    let chip = Eeprom24x::new_24x64(bus, SlaveAddr::default());
    eeprom::state(eeprom24x::Storage::new(chip, Pause), 0)
}
