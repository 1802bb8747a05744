//! Two places for an image and two for a grant: what a boot chooses between, so that an update can fail.
//!
//! ```text
//!                 ┌──────────────────────── tries left, and it passes all checks ──▶ the trial
//! State ─▶ choose ┤                                                                      │ confirm
//!                 └─ no trial, or it has failed ───────────────────────────────────▶ the confirmed
//! ```
//!
//! A trial that isn't confirmed within its tries is given up, as is one that the checks refuse. A choice is no
//! promise: what was chosen is opened like anything else, from storage, with every check and against the
//! stored floor. That holds for what is fallen back to as well.

use embedded_storage::ReadStorage;
use modelseal_core::Error;
use modelseal_core::grant::Grant;
use modelseal_core::sealed::HEADER_MAX;

use crate::boot::{Loaded, unwrap};
use crate::device::Device;
use crate::state::{Choice, State, StateStore, Trial};
use crate::storage::{GRANT_BUFFER, GrantBuffer, read, read_header};

/// Where the images and grants of one line are. A place that can't be read is an error of that place alone: it doesn't
/// keep the other one from booting.
pub trait Slots {
    /// The grant, read into `buffer`, and the sealed model, exactly as long as it was when it was written.
    fn find<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, impl ReadStorage), Error>;
}

/// What this boot is to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What was chosen.
    pub choice: Choice,
    /// As what it is tried, with the tries that are left after this one; none if it has been confirmed.
    pub trial: Option<Trial>,
}

/// Chooses what this boot is to open. Takes one try from a trial, before anything of it is looked at, so that
/// a trial which crashes the device ends, too.
pub fn choose(device: &mut impl Device, slots: &mut impl Slots) -> Result<Chosen, Error> {
    let state = device.state().load()?;
    match (state.trial, state.confirmed) {
        (Some(trial), Some(confirmed)) => Ok(attempt(device, slots, state, trial, confirmed)),
        // With nothing to fall back to, there is no end to its tries.
        (Some(trial), None) => Ok(Chosen { choice: trial.choice, trial: Some(trial) }),
        (None, Some(choice)) => Ok(Chosen { choice, trial: None }),
        (None, None) => Err(Error::Floor),
    }
}

fn attempt(
    device: &mut impl Device,
    slots: &mut impl Slots,
    state: State,
    trial: Trial,
    confirmed: Choice,
) -> Chosen {
    let fallback = Chosen { choice: confirmed, trial: None };
    let Some(tries) = trial.tries.checked_sub(1) else {
        log!(warn, "the update wasn't confirmed, falling back");
        give_up(device, state);
        return fallback;
    };
    let trial = Trial { tries, ..trial };
    if device.state().store(State { trial: Some(trial), ..state }).is_err() {
        log!(warn, "a try of the update can't be paid for, falling back");
        return fallback;
    }
    match verify(device, slots, trial.choice) {
        Ok(_) => Chosen { choice: trial.choice, trial: Some(trial) },
        Err(error) if may_pass(error) => fallback,
        Err(error) => {
            log!(warn, "the update is refused, {=u16} {=str}, falling back", error.code(), error.name());
            give_up(device, state);
            fallback
        }
    }
}

/// If that can't be stored, what is confirmed boots all the same, and the next boot tries it again.
fn give_up(device: &mut impl Device, state: State) {
    if device.state().store(State { trial: None, ..state }).is_err() {
        log!(warn, "that the update is given up can't be stored");
    }
}

/// Storage may answer next time, and a clock be set.
fn may_pass(error: Error) -> bool {
    matches!(error, Error::Storage | Error::NoClock | Error::NotYetValid)
}

impl Chosen {
    /// For when what was chosen doesn't open: what to open instead, which is what was confirmed before a trial. The
    /// trial is given up, unless the reason may pass. Without anything to fall back to, it is the reason that comes back.
    pub fn refused(self, error: Error, device: &mut impl Device) -> Result<Self, Error> {
        let state = device.state().load()?;
        let choice =
            state.confirmed.filter(|_| self.trial.is_some() && state.trial == self.trial).ok_or(error)?;
        if !may_pass(error) {
            give_up(device, state);
        }
        Ok(Self { choice, trial: None })
    }

    /// What [`Loaded::confirm`] does, and remembers that what was chosen is what boots from now on. For when
    /// the application has seen the model run. Fails if an update has meanwhile begun in its place.
    pub fn confirm<'m>(self, loaded: Loaded<'m>, device: &mut impl Device) -> Result<&'m mut [u8], Error> {
        loaded.confirm_as(device, Some((self.choice, self.trial)))
    }
}

/// Reads the image once, from its storage, and refuses what a boot would refuse, but for the tags. Gives the
/// model's version. Opens nothing.
pub fn verify(device: &mut impl Device, slots: &mut impl Slots, choice: Choice) -> Result<u64, Error> {
    let mut buffer = GRANT_BUFFER;
    let (grant, mut image) = slots.find(choice, &mut buffer)?;
    let mut buffer = [0; HEADER_MAX];
    let header = read_header(&mut image, &mut buffer)?;
    let unwrapped = unwrap(device, header, grant, &mut image)?;
    let (layout, manifest) = (unwrapped.header().layout(), unwrapped.header().manifest());
    let root = hash(&mut image, layout.payload, layout.end)?;
    // The tags, which a boot will check, say nothing that the root doesn't.
    if root == blake3::Hash::from(manifest.root) { Ok(manifest.subject.version) } else { Err(Error::Root) }
}

/// BLAKE3 of what lies from `start` to `end`.
pub(crate) fn hash(storage: &mut impl ReadStorage, start: u64, end: u64) -> Result<blake3::Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    let mut at = start;
    while at < end {
        let mut piece = [0; 512];
        let len = usize::try_from(end - at).map_or(piece.len(), |left| left.min(piece.len()));
        let piece = piece.get_mut(..len).ok_or(Error::Storage)?;
        read(storage, at, piece)?;
        hasher.update(piece);
        at += len as u64;
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests;
