//! No secret stays on the stack: what a vault does is done on stack that is wiped afterwards.

use modelseal_core::grant::{DeviceId, GrantBytes, UnsignedGrant};
use modelseal_core::keys::DeviceKey;
use modelseal_core::open::Unwrapped;
use modelseal_core::seal::Unsigned;
use modelseal_core::sealed::{Envelope, Header, Slot};
use modelseal_core::sign::{Publisher, PublisherKey};
use modelseal_core::wipe::on_wiped_stack;

use crate::batch::{GrantTree, SignedTree};
use crate::error::Error;
use crate::exposed::Exposed;
use crate::life::{LifeCycle, OpenSlot};
use crate::vault::{Algorithm, Finding, Key, Role, Vault};

/// More than sealing, granting or opening takes, even unoptimised.
const STACK: usize = 64 * 1024;

/// Does `work`, then wipes the stack that it used. Whoever handles an [`Unwrapped`] or a [`DeviceKey`] does so in
/// here: each move leaves a copy. [`on_wiped_stack`] says what `work` had better return.
pub fn wiped<T>(work: impl FnOnce() -> T) -> T {
    on_wiped_stack::<STACK, T>(work)
}

/// A vault that leaves nothing on the stack but what it returns.
pub(crate) struct Wiped<V>(pub(crate) V);

impl<V: Vault> Vault for Wiped<V> {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        wiped(|| self.0.keys())
    }

    fn publisher_key(&self, version: u32) -> Result<PublisherKey, Error> {
        wiped(|| self.0.publisher_key(version))
    }

    fn publisher(&self) -> Result<Publisher, Error> {
        wiped(|| self.0.publisher())
    }

    fn newest(&self, role: Role) -> Result<u32, Error> {
        wiped(|| self.0.newest(role))
    }

    fn publish(&self, unsigned: &Unsigned) -> Result<Envelope, Error> {
        wiped(|| self.0.publish(unsigned))
    }

    fn unwrap<'a>(&self, header: Header<'a>, envelope: &Envelope) -> Result<Unwrapped<'a>, Error> {
        wiped(|| self.0.unwrap(header, envelope))
    }

    fn sign_grant(&self, grant: &UnsignedGrant) -> Result<GrantBytes, Error> {
        wiped(|| self.0.sign_grant(grant))
    }

    fn sign_grants(&self, tree: GrantTree) -> Result<SignedTree, Error> {
        wiped(|| self.0.sign_grants(tree))
    }

    fn device_keys(&self, devices: &[(DeviceId<'_>, u32)]) -> Result<Vec<DeviceKey>, Error> {
        wiped(|| self.0.device_keys(devices))
    }

    fn device_key(&self, device: DeviceId<'_>, fleet: u32) -> Result<DeviceKey, Error> {
        wiped(|| self.0.device_key(device, fleet))
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.0.exposed()
    }

    fn check(&self) -> Result<Vec<Finding>, Error> {
        wiped(|| self.0.check())
    }
}

impl<V: LifeCycle> LifeCycle for Wiped<V> {
    fn retired(&self) -> Result<Vec<(Role, u32)>, Error> {
        wiped(|| self.0.retired())
    }

    fn rotate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        wiped(|| self.0.rotate(role, algorithm))
    }

    fn open_slots(&self, header: Header<'_>, envelope: &Envelope) -> Result<Vec<OpenSlot>, Error> {
        wiped(|| self.0.open_slots(header, envelope))
    }

    fn rewrap(&self, header: Header<'_>, envelope: &Envelope) -> Result<Option<Slot>, Error> {
        wiped(|| self.0.rewrap(header, envelope))
    }

    fn retire(&self, role: Role, version: u32) -> Result<(), Error> {
        wiped(|| self.0.retire(role, version))
    }

    fn reinstate(&self, role: Role, version: u32) -> Result<(), Error> {
        wiped(|| self.0.reinstate(role, version))
    }

    fn destroy(&self, role: Role, version: u32) -> Result<(), Error> {
        wiped(|| self.0.destroy(role, version))
    }
}
