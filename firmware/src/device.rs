//! The one trait that a port implements.

use modelseal_core::grant::DeviceId;
use modelseal_core::keys::Secret;
use modelseal_core::open::FloorStore;
use modelseal_core::sign::Publisher;

/// A device, as far as one line of models is concerned. A second line is a second value, with a floor of its
/// own.
///
/// ```
/// # use modelseal_core::{grant::DeviceId, keys::Secret, open::FloorStore, sign::Publisher};
/// struct Doorbell<F> {
///     secret: Secret,
///     publisher: Publisher,
///     floor: F,
/// }
///
/// impl<F: FloorStore> modelseal_firmware::Device for Doorbell<F> {
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
///     fn floor(&mut self) -> &mut impl FloorStore {
///         &mut self.floor
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

    /// Where the floor of the line is kept, such as [`State`](crate::state::State).
    fn floor(&mut self) -> &mut impl FloorStore;

    /// Seconds since 1970-01-01 UTC; `None` without a clock that works. Grants that are limited in time are
    /// then refused.
    fn now(&mut self) -> Option<u64>;
}
