//! Where the device keeps its state.

use modelseal_firmware::eeprom::STATE_LEN;

#[cfg(feature = "eeprom")]
pub(crate) use eeprom::{Kept, state};
#[cfg(not(feature = "eeprom"))]
pub(crate) use memory::{Kept, state};

/// In memory, for a place that is a product's own, such as a secure element.
#[cfg(not(feature = "eeprom"))]
mod memory {
    use modelseal_firmware::modelseal_core::Error;
    use modelseal_firmware::state::{State, StateStore};

    pub(crate) struct Kept(State);

    pub(crate) fn state(_: &mut [u8; super::STATE_LEN]) -> Kept {
        Kept(State::first(1))
    }

    impl StateStore for Kept {
        fn load(&mut self) -> Result<State, Error> {
            Ok(self.0)
        }

        fn store(&mut self, state: State) -> Result<(), Error> {
            self.0 = state;
            Ok(())
        }
    }
}

/// In an EEPROM, without the chip and its driver.
#[cfg(feature = "eeprom")]
mod eeprom {
    use embedded_storage::{ReadStorage, Storage};
    use modelseal_firmware::eeprom::{self, Eeprom};
    use modelseal_firmware::state::Twin;

    use super::STATE_LEN;

    pub(crate) type Kept = Twin<Eeprom<Chip>>;

    pub(crate) fn state(chip: &'static mut [u8; STATE_LEN]) -> Kept {
        eeprom::state(Chip(chip), eeprom::IN_A_ROW)
    }

    pub(crate) struct Chip(&'static mut [u8; STATE_LEN]);

    impl ReadStorage for Chip {
        type Error = ();

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), ()> {
            let rest = self.0.get(offset as usize..).ok_or(())?;
            bytes.copy_from_slice(rest.get(..bytes.len()).ok_or(())?);
            Ok(())
        }

        fn capacity(&self) -> usize {
            STATE_LEN
        }
    }

    impl Storage for Chip {
        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
            let rest = self.0.get_mut(offset as usize..).ok_or(())?;
            rest.get_mut(..bytes.len()).ok_or(())?.copy_from_slice(bytes);
            Ok(())
        }
    }
}
