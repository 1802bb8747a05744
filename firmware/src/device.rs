//! The one trait that a port implements.

use modelseal_core::grant::DeviceId;
use modelseal_core::keys::Secret;
use modelseal_core::sign::Publisher;

use crate::state::StateStore;

/// A device, as far as one line of models is concerned. A second line is a second value, with a state of its
/// own.
///
/// # The stack
///
/// Keys are wiped where they are dropped. Copies that moving and computing left on the stack are not: this crate has no
/// `unsafe`, and can't know where a port's stack is. Wiping it is the port's duty, whether a model opened or was refused:
/// call all that opens in [`on_wiped_stack`](modelseal_core::wipe::on_wiped_stack), or wipe what is below the stack pointer
/// before the application runs. The port also wipes its own copy of the secret when it isn't needed any more.
///
/// ```
/// # use modelseal_core::{grant::DeviceId, keys::Secret, sign::Publisher};
/// # use modelseal_firmware::state::StateStore;
/// struct Doorbell<S> {
///     secret: Secret,
///     publisher: Publisher,
///     state: S,
/// }
///
/// impl<S: StateStore> modelseal_firmware::Device for Doorbell<S> {
///     fn id(&self) -> DeviceId<'_> {
///         DeviceId::new("doorbell-00042").unwrap()
///     }
///     fn line(&self) -> &str {
///         "wake-word"
///     }
///     fn secret(&self) -> &Secret {
///         &self.secret
///     }
///     fn publisher(&self) -> &Publisher {
///         &self.publisher
///     }
///     fn state(&mut self) -> &mut impl StateStore {
///         &mut self.state
///     }
///     fn now(&mut self) -> Option<u64> {
///         None
///     }
/// }
/// ```
pub trait Device {
    /// Under which name the device is enrolled.
    fn id(&self) -> DeviceId<'_>;

    /// The line that it serves.
    fn line(&self) -> &str;

    /// What it opens grants with.
    fn secret(&self) -> &Secret;

    /// The publisher keys that it trusts. None where the secret is a device key and public-key code doesn't
    /// fit: the grant alone then says which manifest is genuine.
    fn publisher(&self) -> &Publisher;

    /// Where the state of the line is kept: in an [EEPROM](crate::eeprom), in [flash](crate::flash), or
    /// wherever a port has something better.
    fn state(&mut self) -> &mut impl StateStore;

    /// Seconds since 1970-01-01 UTC; `None` without a clock that works. Grants that are limited in time are
    /// then refused. It is asked for at least twice a boot and reads the clock each time: one fault can overwrite what is
    /// only remembered.
    fn now(&mut self) -> Option<u64>;
}
