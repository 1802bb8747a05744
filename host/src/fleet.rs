//! Sealed model + many enrolled devices -> their grants, for one unwrapping of the content key.
//!
//! ```text
//!                    ┌ device key: derive ─▶ what the store has opens? ─▶ wrap ──────────▶ store
//!  recipients ─▶ has ┤
//!  (65,536)          └ X25519: what the store has is signed? ─▶ wrap ─▶ tree ─▶ one signature ─▶ add path ─▶ store
//! ```
//!
//! Work is done in parts of some dozen devices by several threads. What is in memory doesn't grow with the fleet.

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use getrandom::SysRng;
use modelseal_core::Error as Refusal;
use modelseal_core::grant::{DeviceId, Grant, GrantBytes, UnsignedGrant, Wrapping, wrap_for_device_key};
use modelseal_core::keys::{DeviceKey, Secret};
use modelseal_core::open::{Conditions, Request, Unwrapped};
use modelseal_core::sign::{Publisher, Signature};
use modelseal_hsm::wiped::wiped;
use modelseal_hsm::{BATCH_MAX, GrantTree, SignedTree, Vault};
use rand_core::UnwrapErr;

use crate::error::Result;
use crate::grant::{Limits, require_enrolled, terms, wrap_to};
use crate::registry::{Device, DeviceKeyKind};

/// Fewest threads: while one waits for a token or a disk, another computes. A token gets as many sessions.
const WORKERS_MIN: usize = 4;
/// Most grants that are stored at once by all threads together: each may be a file that is open meanwhile.
const STORED_AT_ONCE: usize = 512;
/// Most devices of one part of the work.
const PART_MAX: usize = 128;

/// A device that gets a grant, as it is enrolled.
pub type Recipient<'a> = (DeviceId<'a>, &'a Device);

/// A complete grant and its device.
pub type Made<'a> = (DeviceId<'a>, GrantBytes);

/// Where grants go.
pub trait Store: Sync {
    /// What it has for this device. It is kept if it is the grant that would be made.
    fn stored(&self, device: DeviceId<'_>) -> Result<Option<Vec<u8>>>;

    /// Takes some grants. They are safe when this returns.
    fn put(&self, grants: &[Made<'_>]) -> Result<()>;
}

/// A model that is granted to a fleet.
pub struct Fleet<'a> {
    /// The vault that unwrapped the content key.
    pub vault: &'a dyn Vault,
    /// Its keys, which signed what may be kept.
    pub publisher: &'a Publisher,
    /// The model.
    pub content: &'a Unwrapped<'a>,
    /// What all grants say.
    pub limits: Limits,
    /// Where they go.
    pub store: &'a dyn Store,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Grants that were made.
    pub made: u64,
    /// Grants that were there already.
    pub kept: u64,
    /// Publisher signatures that this took.
    pub signatures: u64,
}

/// Counts what is done while it is done.
struct Tally<'a> {
    made: AtomicU64,
    kept: AtomicU64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Tally<'_> {
    fn add(&self, counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
        (self.progress)(self.made.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed));
    }
}

impl Fleet<'_> {
    /// Grants to all of `recipients` but those whose grant the store has. One who isn't enrolled for the model's line is
    /// refused before anything is granted.
    /// Ends at the first failure: what is in the store by then is complete, and the next call goes on from there.
    ///
    /// Whoever calls this holds the content key, and so does it in [`wiped`]. `progress` is told how many are done.
    pub fn grant(&self, recipients: &[Recipient<'_>], progress: &(dyn Fn(u64) + Sync)) -> Result<Granted> {
        let line = self.content.header().manifest().subject.line;
        recipients.iter().try_for_each(|(id, device)| require_enrolled(*id, device, line))?;
        let tally = Tally { made: AtomicU64::new(0), kept: AtomicU64::new(0), progress };
        let mut signatures = 0;
        for batch in recipients.chunks(BATCH_MAX) {
            let unsigned = self.wrap_all(batch, &tally)?;
            if !unsigned.is_empty() {
                self.sign_all(&unsigned, &tally)?;
                signatures += 1;
            }
        }
        Ok(Granted { made: tally.made.into_inner(), kept: tally.kept.into_inner(), signatures })
    }

    /// Grants to those that share a key with the vault, and gives what is to be signed for the others.
    fn wrap_all<'r>(&self, batch: &[Recipient<'r>], tally: &Tally<'_>) -> Result<Vec<Leaf<'r>>> {
        let leaves = Mutex::new(Vec::new());
        in_parallel(batch, &|part| {
            let found = part.iter().map(|(id, device)| self.find(*id, device)).collect::<Result<Vec<_>>>()?;
            let mut wrapped = wiped(|| self.wrap(part, &found))?;
            tally.add(&tally.kept, wrapped.kept);
            leaves.lock().unwrap_or_else(PoisonError::into_inner).append(&mut wrapped.unsigned);
            self.put(&wrapped.made, tally)
        })?;
        Ok(leaves.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the store has that fits, as far as that can be told without the device's key.
    fn find(&self, id: DeviceId<'_>, device: &Device) -> Result<Option<Vec<u8>>> {
        Ok(self.store.stored(id)?.filter(|bytes| self.fits(bytes, id, device)))
    }

    /// Whether the grant is whole, of the terms that one made now would have, wrapped as the device is enrolled and,
    /// where it has one, with the publisher's signature.
    fn fits(&self, bytes: &[u8], id: DeviceId<'_>, device: &Device) -> bool {
        let Ok(grant) = Grant::parse(bytes) else { return false };
        if *grant.terms() != terms(self.content, id, self.limits) {
            return false;
        }
        match (grant.wrapping(), &device.key) {
            (Wrapping::DeviceKey { .. }, DeviceKeyKind::Fleet(_)) => true,
            (Wrapping::Hpke { .. }, DeviceKeyKind::X25519(_)) => grant.verify(self.publisher).is_ok(),
            _ => false,
        }
    }

    /// Derives all device keys first: one use of the vault for many. `found` is what fits, device by device.
    fn wrap<'r>(&self, part: &[Recipient<'r>], found: &[Option<Vec<u8>>]) -> Result<Wrapped<'r>> {
        let mut wrapped = Wrapped::default();
        let (mut sharing, mut to_try) = (Vec::new(), Vec::new());
        for ((id, device), found) in part.iter().zip(found) {
            match (&device.key, found) {
                (DeviceKeyKind::Fleet(version), found) => {
                    sharing.push((*id, *version));
                    to_try.push(found.as_deref());
                }
                (DeviceKeyKind::X25519(_), Some(_)) => wrapped.kept += 1,
                (DeviceKeyKind::X25519(pem), None) => {
                    let grant = wrap_to(pem, self.content, &terms(self.content, *id, self.limits));
                    let grant = grant.map_err(|error| error.about(Path::new(id.as_str())))?;
                    wrapped.unsigned.push(Leaf { id: *id, value: grant.leaf(), grant });
                }
            }
        }
        let keys = self.vault.device_keys(&sharing)?;
        for (((id, _), found), key) in sharing.iter().zip(to_try).zip(&keys) {
            if found.is_some_and(|found| self.open(found, key).is_ok()) {
                wrapped.kept += 1;
                continue;
            }
            let terms = terms(self.content, *id, self.limits);
            let grant = wrap_for_device_key(self.content, &terms, key, &mut UnwrapErr(SysRng))?;
            wrapped.made.push((*id, grant));
        }
        Ok(wrapped)
    }

    /// Does with a grant what the device will do, at a time at which it is good.
    fn open(&self, grant: &[u8], key: &DeviceKey) -> std::result::Result<(), Refusal> {
        let grant = Grant::parse(grant)?;
        let (device, validity) = (grant.terms().device, grant.terms().validity);
        let secret = Secret::DeviceKey(DeviceKey::from_bytes(key.expose_to_factory()));
        let header = self.content.header();
        // The manifest's signature, which the vault has checked, would only tell why a grant doesn't open.
        let request = Request::new(header.clone(), Signature::from_bytes(&[0; 64]), grant);
        let line = header.manifest().subject.line;
        let now = validity.map(|validity| validity.not_before);
        let conditions = Conditions { line, device, now, floor: 0 };
        let named = request.authenticate(&secret, self.publisher)?.name(line)?;
        named.admit(&conditions)?.unwrap(&secret, &conditions).map(drop)
    }

    fn sign_all(&self, leaves: &[Leaf<'_>], tally: &Tally<'_>) -> Result<()> {
        let tree = GrantTree::new(leaves.iter().map(|leaf| leaf.value).collect())?;
        let tree = self.vault.sign_grants(tree)?;
        let numbered: Vec<_> = leaves.iter().enumerate().collect();
        in_parallel(&numbered, &|part| {
            let signed = part.iter().map(|(number, leaf)| leaf.sign(&tree, *number));
            self.put(&signed.collect::<Result<Vec<_>>>()?, tally)
        })
    }

    fn put(&self, made: &[Made<'_>], tally: &Tally<'_>) -> Result<()> {
        if !made.is_empty() {
            self.store.put(made)?;
            tally.add(&tally.made, made.len());
        }
        Ok(())
    }
}

/// What became of a part of the devices.
#[derive(Default)]
struct Wrapped<'a> {
    kept: usize,
    made: Vec<Made<'a>>,
    unsigned: Vec<Leaf<'a>>,
}

/// A grant that waits for the signature of its batch.
struct Leaf<'a> {
    id: DeviceId<'a>,
    value: [u8; 32],
    grant: UnsignedGrant,
}

impl<'a> Leaf<'a> {
    fn sign(&self, tree: &SignedTree, number: usize) -> Result<Made<'a>> {
        let path = tree.path(number).ok_or(modelseal_core::Error::GrantPath)?;
        Ok((self.id, self.grant.sign(&path)?))
    }
}

/// Has several threads do `work` on parts of `items`, until all is done or one part failed.
fn in_parallel<T: Sync>(items: &[T], work: &(dyn Fn(&[T]) -> Result<()> + Sync)) -> Result<()> {
    let workers = thread::available_parallelism().map_or(1, NonZero::get).max(WORKERS_MIN);
    let parts: Vec<_> = items.chunks((STORED_AT_ONCE / workers).clamp(1, PART_MAX)).collect();
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let worker = || {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(part) {
                // Nobody takes another part; those that are being worked on are completed.
                next.store(parts.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers.min(parts.len()) {
            scope.spawn(worker);
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
