//! The board mps2-an386, without its drivers: what its `run` does between what arrived and the verdict.

#[path = "../../../src/format.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
pub mod forge;
pub mod places;
#[path = "../../src/scene.rs"]
#[allow(dead_code, reason = "the other targets use all of it")]
pub mod scene;

use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant};
use modelseal_core::keys::Secret;
use modelseal_core::sign::Publisher;
use modelseal_firmware::Device;
use modelseal_firmware::provision::{Delivery, Surroundings};
use modelseal_firmware::state::{State, StateStore};

use crate::scene::{DEVICE, FLOOR, LINE, Wrap, publisher};

/// Opens what `psram` begins with. Gives the model's length, and leaves the model in `psram`.
pub fn run(
    surroundings: &Surroundings,
    delivery: &Delivery<'_>,
    wrap: Wrap,
    psram: &mut [u8],
) -> Result<usize, Error> {
    let length = usize::try_from(delivery.sealed_len).map_err(|_| Error::Memory)?;
    let sealed = psram.get_mut(..length).ok_or(Error::Memory)?;
    let mut board = Board { now: surroundings.now, ..board(wrap) };
    let opened = modelseal_firmware::boot(&mut board, Grant::parse(delivery.grant)?, sealed)?;
    Ok(opened.confirm(&mut board)?.len())
}

/// A board as its factory leaves it.
pub fn board(wrap: Wrap) -> Board {
    Board { secret: wrap.secret(), publisher: publisher(), now: None, stored: Stored(State::first(FLOOR)) }
}

/// The board, as far as its one line is concerned.
pub struct Board {
    secret: Secret,
    publisher: Publisher,
    now: Option<u64>,
    /// Its state.
    pub stored: Stored,
}

impl Device for Board {
    fn id(&self) -> DeviceId<'_> {
        DeviceId::new(DEVICE).unwrap()
    }

    fn line(&self) -> &str {
        LINE
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    fn state(&mut self) -> &mut impl StateStore {
        &mut self.stored
    }

    fn now(&mut self) -> Option<u64> {
        self.now
    }
}

/// A state in RAM.
pub struct Stored(State);

impl StateStore for Stored {
    fn load(&mut self) -> Result<State, Error> {
        Ok(self.0)
    }

    fn store(&mut self, state: State) -> Result<(), Error> {
        self.0 = state;
        Ok(())
    }
}
