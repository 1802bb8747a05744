//! The device that boots.

use cortex_m::peripheral::SYST;
use modelseal_firmware::Device;
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::modelseal_core::grant::{DeviceId, Grant};
use modelseal_firmware::modelseal_core::keys::Secret;
use modelseal_firmware::modelseal_core::sign::Publisher;
use modelseal_firmware::state::StateStore;

use crate::given::Given;

/// What the measurement enrols.
const ID: &str = "doorbell-00042";
const LINE: &str = "wake-word";

/// Boots and confirms; and what SysTick said when the signatures had been checked.
pub(crate) fn boot() -> (Result<(), Error>, u32) {
    // SAFETY: nobody else takes it.
    let given = unsafe { Given::take() };
    let mut checked = 0;
    (boot_with(given, &mut checked), checked)
}

fn boot_with(given: Given, checked: &mut u32) -> Result<(), Error> {
    // Borrowed where it was made, and not moved: it has room for four keys.
    let publisher = &publisher(&given);
    let publisher = publisher.as_ref().map_err(|error| *error)?;
    let mut device = Measured {
        id: DeviceId::new(ID)?,
        secret: secret(&given),
        publisher,
        state: crate::state::state(given.state),
        checked,
    };
    let loaded = modelseal_firmware::boot(&mut device, Grant::parse(given.grant)?, given.sealed)?;
    loaded.confirm(&mut device).map(|_| ())
}

#[cfg(feature = "x25519")]
fn secret(given: &Given) -> Secret {
    use modelseal_firmware::modelseal_core::keys::X25519Secret;
    Secret::X25519(X25519Secret::from_bytes(given.secret))
}

#[cfg(not(feature = "x25519"))]
fn secret(given: &Given) -> Secret {
    use modelseal_firmware::modelseal_core::keys::DeviceKey;
    Secret::DeviceKey(DeviceKey::from_bytes(given.secret))
}

#[cfg(feature = "ed25519")]
fn publisher(given: &Given) -> Result<Publisher, Error> {
    use modelseal_firmware::modelseal_core::sign::PublisherKey;
    let [key, _] = *given.key;
    Publisher::new(&[PublisherKey::Ed25519(key)])
}

#[cfg(all(feature = "p256", not(feature = "ed25519")))]
fn publisher(given: &Given) -> Result<Publisher, Error> {
    use modelseal_firmware::modelseal_core::sign::PublisherKey;
    let [x, y] = *given.key;
    Publisher::new(&[PublisherKey::EcdsaP256 { x, y }])
}

/// The grant alone says which manifest is genuine.
#[cfg(not(any(feature = "ed25519", feature = "p256")))]
fn publisher(_: &Given) -> Result<Publisher, Error> {
    Ok(Publisher::default())
}

struct Measured<'a> {
    id: DeviceId<'a>,
    secret: Secret,
    publisher: &'a Publisher,
    state: crate::state::Kept,
    checked: &'a mut u32,
}

impl Device for Measured<'_> {
    fn id(&self) -> DeviceId<'_> {
        self.id
    }

    fn line(&self) -> &str {
        LINE
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn publisher(&self) -> &Publisher {
        self.publisher
    }

    fn state(&mut self) -> &mut impl StateStore {
        &mut self.state
    }

    /// Asked for once the grant is known to be genuine.
    fn now(&mut self) -> Option<u64> {
        *self.checked = SYST::get_current();
        None
    }
}
