//! What this board brings to [`Device`].

use cortex_m::delay::Delay;
use eeprom24x::{Eeprom24x, SlaveAddr};
use modelseal_firmware::Device;
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::modelseal_core::grant::DeviceId;
use modelseal_firmware::modelseal_core::keys::Secret;
use modelseal_firmware::modelseal_core::open::FloorStore;
use modelseal_firmware::modelseal_core::sign::Publisher;
use modelseal_firmware::provision::Provisioned;
use modelseal_firmware::state::State;

use crate::i2c::BitBang;

/// The processor's clock in Hz.
pub(crate) const CLOCK: u32 = 25_000_000;

/// The board, as far as its one line is concerned.
pub(crate) struct Board<'a, F> {
    provisioned: Provisioned<'a>,
    now: Option<u64>,
    floor: F,
}

impl<'a, F: FloorStore> Board<'a, F> {
    pub(crate) fn new(provisioned: Provisioned<'a>, now: Option<u64>, floor: F) -> Self {
        Self { provisioned, now, floor }
    }
}

impl<F: FloorStore> Device for Board<'_, F> {
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

    fn floor(&mut self) -> &mut impl FloorStore {
        &mut self.floor
    }

    fn now(&mut self) -> Option<u64> {
        self.now
    }
}

/// The floor in the EEPROM. It can be taken once.
pub(crate) fn floor_store() -> Result<impl FloorStore, Error> {
    let core = cortex_m::Peripherals::take().ok_or(Error::Storage)?;
    let bus = BitBang::take().ok_or(Error::Storage)?;
    let delay = Delay::new(core.SYST, CLOCK);
    let eeprom = Eeprom24x::new_24x64(bus, SlaveAddr::default());
    Ok(State::new(eeprom24x::Storage::new(eeprom, delay), 0))
}
