//! How keys come and go: the next version, moving sealed models to it, retirement, destruction (docs/KEYS.md).
//!
//! ```text
//! rotate ─▶ newest ─▶ older: kept for opening ─▶ retired: kept, not used ─▶ destroyed
//!                                                   └──── reinstate ◀──┘
//! ```

use modelseal_core::keys::content_key_aad;
use modelseal_core::open::Unwrapped;
use modelseal_core::sealed::{Envelope, Header, Slot};

use crate::error::Error;
use crate::vault::{Algorithm, Backend, Role, Roles, Vault};

/// A key slot that opens: the content key is in it that the manifest commits to, under a master key that isn't retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSlot {
    /// Its number, from 0.
    pub number: usize,
    /// The version of the master key.
    pub version: u32,
}

/// Changes of a vault's keys. Each is durable when it returns, and one that is interrupted has happened or hasn't.
pub trait LifeCycle {
    /// The retired keys. A retired publisher key isn't trusted any more, a retired master key opens nothing, and a
    /// retired fleet key makes no device keys.
    fn retired(&self) -> Result<Vec<(Role, u32)>, Error>;

    /// Makes the next version of a role's key, which is used from then on, and gives its number. `algorithm` is for
    /// publisher keys; without it the newest one's stays.
    fn rotate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error>;

    /// The key slots that open, of a model that any publisher key of this vault signed, a retired one included: such a
    /// model isn't opened, but what it depends on can be told.
    fn open_slots(&self, header: Header<'_>, envelope: &Envelope) -> Result<Vec<OpenSlot>, Error>;

    /// The content key under the newest master key, for a free slot; `None` if one that opens has it already. What
    /// [`unwrap`](Vault::unwrap) checks is checked first.
    fn rewrap(&self, header: Header<'_>, envelope: &Envelope) -> Result<Option<Slot>, Error>;

    /// Keeps a key from being used. The newest of its role can't be retired.
    fn retire(&self, role: Role, version: u32) -> Result<(), Error>;

    /// Takes a retirement back.
    fn reinstate(&self, role: Role, version: u32) -> Result<(), Error>;

    /// Destroys a retired key for good. What only it can open is lost.
    fn destroy(&self, role: Role, version: u32) -> Result<(), Error>;
}

impl<B: Backend> LifeCycle for Roles<B> {
    fn retired(&self) -> Result<Vec<(Role, u32)>, Error> {
        let mut retired = self.0.retired()?;
        retired.sort_unstable();
        Ok(retired)
    }

    fn rotate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        let fits = |algorithm| (algorithm == Algorithm::Aes256) != (role == Role::Publisher);
        if !algorithm.is_none_or(fits) {
            return Err(Error::Unavailable("this algorithm in this role"));
        }
        self.0.generate(role, algorithm)
    }

    fn open_slots(&self, header: Header<'_>, envelope: &Envelope) -> Result<Vec<OpenSlot>, Error> {
        let mut publishers = self.0.keys()?;
        publishers.retain(|key| key.role == Role::Publisher);
        let mut publishers: Vec<_> = publishers.iter().map(|key| key.version).collect();
        publishers.sort_unstable();
        let header = self.verify(header, envelope, &publishers)?;
        let (aad, active) = (content_key_aad(&header.id()), self.active(Role::Master)?);
        let mut open = Vec::new();
        for (number, slot) in envelope.numbered_slots().filter(|(_, slot)| active.contains(&slot.version)) {
            match self.0.decrypt(&slot, &aad) {
                Ok(content) if Unwrapped::by_vault(header.clone(), &content).is_ok() => {
                    open.push(OpenSlot { number, version: slot.version });
                }
                Ok(_) | Err(Error::Slot) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }

    fn rewrap(&self, header: Header<'_>, envelope: &Envelope) -> Result<Option<Slot>, Error> {
        let newest = self.newest(Role::Master)?;
        let unwrapped = self.unwrap(header.clone(), envelope)?;
        if self.open_slots(header, envelope)?.iter().any(|slot| slot.version == newest) {
            return Ok(None);
        }
        let aad = content_key_aad(&unwrapped.header().id());
        let content = unwrapped.content_key().expose_to_vault();
        let slot = self.0.encrypt(newest, &aad, content)?;
        // A key that encrypts and then doesn't decrypt is found out here, before the old slot is gone.
        if *self.0.decrypt(&slot, &aad)? != *content {
            return Err(Error::Slot);
        }
        Ok(Some(slot))
    }

    fn retire(&self, role: Role, version: u32) -> Result<(), Error> {
        self.require(role, version)?;
        if self.newest(role)? == version {
            return Err(Error::Newest(role, version));
        }
        self.0.mark(role, version, true)
    }

    fn reinstate(&self, role: Role, version: u32) -> Result<(), Error> {
        self.require(role, version)?;
        self.0.mark(role, version, false)
    }

    fn destroy(&self, role: Role, version: u32) -> Result<(), Error> {
        self.require(role, version)?;
        if !self.0.retired()?.contains(&(role, version)) {
            return Err(Error::NotRetired(role, version));
        }
        self.0.destroy(role, version)
    }
}

impl<B: Backend> Roles<B> {
    fn require(&self, role: Role, version: u32) -> Result<(), Error> {
        let there = self.0.keys()?.iter().any(|key| key.role == role && key.version == version);
        if there { Ok(()) } else { Err(Error::NoVersion(role, version)) }
    }
}
