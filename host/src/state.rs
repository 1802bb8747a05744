//! A device's stored floors: the lowest version of each line that may still open.
//!
//! `{ "format": "modelseal state 1", "device": "kitchen-7", "floors": { "wake-word": 3 } }`
//!
//! The first confirmation makes the file, from the identity's first floor. From then on the identity says that
//! it was used, and a missing or malformed state is an error, never 0.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use modelseal_core::Error as Refusal;
use modelseal_core::open::FloorStore;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::files::{self, Access};
use crate::identity::Identity;

const FORMAT: &str = "modelseal state 1";
const FILE_MAX: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    format: String,
    device: String,
    floors: BTreeMap<String, u64>,
}

/// Where the state of an identity is unless the caller says otherwise.
pub fn default_path(identity: &Path) -> PathBuf {
    files::with_suffix(identity, ".state")
}

/// Whose state it is: what an identity says of it, without its secret.
#[derive(Clone, Debug)]
pub struct StateOwner {
    /// The device's id.
    pub device: String,
    /// The floor of every line before the first confirmation.
    pub first_floor: u64,
    /// Whether a floor has been stored: from then on a missing state is an error.
    pub used: bool,
}

/// The floor of one line of one device, in a file.
pub struct StateStore<'a> {
    path: &'a Path,
    identity_path: &'a Path,
    owner: &'a StateOwner,
    line: &'a str,
    failure: Option<Error>,
}

impl<'a> StateStore<'a> {
    /// The floor of `line` in the state file `path`, for the device of the identity that was read from
    /// `identity_path`.
    pub fn new(path: &'a Path, identity_path: &'a Path, owner: &'a StateOwner, line: &'a str) -> Self {
        Self { path, identity_path, owner, line, failure: None }
    }

    /// The stored floor, or the first one if none was ever stored.
    pub fn stored(&self) -> Result<u64> {
        Ok(self.floor_in(self.read()?.as_ref()))
    }

    fn floor_in(&self, state: Option<&StateFile>) -> u64 {
        let stored = state.and_then(|state| state.floors.get(self.line).copied());
        stored.unwrap_or(0).max(self.owner.first_floor)
    }

    /// Finds out whether a floor could be stored, before anything is handed out that is to be confirmed then.
    pub fn prepare(&self) -> Result<()> {
        let _lock = files::lock(self.path)?;
        self.begin()?;
        let state = self.read()?.ok_or_else(|| Error::from(Refusal::Floor).about(self.path))?;
        let floor = self.floor_in(Some(&state));
        self.write(floor)
    }

    /// Raises the floor to what a checked grant says, under a lock, so that no other process's raise is lost. A version
    /// below what is stored by now is refused.
    pub fn confirm(mut self, confirmation: modelseal_core::open::Confirmation) -> Result<()> {
        let _lock = files::lock(self.path)?;
        self.begin()?;
        confirmation.confirm(&mut self).map_err(|error| self.failure.take().unwrap_or_else(|| error.into()))
    }

    /// Before anything is raised there is a state, with the first floor, and the identity knows it.
    fn begin(&self) -> Result<()> {
        let is_missing = self.read()?.is_none();
        if self.owner.used {
            return Ok(());
        }
        // Only now locked: the folder of one that was used already may be read-only.
        let marked = Identity::update(self.identity_path, |now| self.mark_used(now, is_missing));
        marked.map(drop).map_err(|error| {
            error.with_hint(
                "the identity notes that it was used: let its folder be written, or give --no-confirm",
            )
        })
    }

    /// The state comes first: an identity that was used and has none is refused.
    fn mark_used(&self, now: &mut Identity, is_missing: bool) -> Result<()> {
        if now.device() != self.owner.device {
            let what = format!("{} isn't the identity any more that was read", self.identity_path.display());
            return Err(Error::new(Code::Io, what, "open the model again"));
        }
        match (is_missing, now.is_used()) {
            (true, true) => return Err(Error::from(Refusal::Floor).about(self.path)),
            (true, false) => self.write(self.owner.first_floor)?,
            (false, _) => {}
        }
        now.mark_used();
        Ok(())
    }

    fn read(&self) -> Result<Option<StateFile>> {
        self.read_at(self.path)
    }

    fn read_at(&self, place: &Path) -> Result<Option<StateFile>> {
        let damaged = |what: &str| {
            let error: Error = Refusal::Floor.into();
            Err(error
                .about(self.path)
                .with_hint(format!("{what}; restore it, or enrol the device under a new id")))
        };
        let text = match files::read_if_there(place, FILE_MAX)? {
            Some(text) => text,
            None => {
                return if self.owner.used {
                    damaged("it is missing, though the identity was used")
                } else {
                    Ok(None)
                };
            }
        };
        match serde_json::from_slice::<StateFile>(&text) {
            Ok(state) if state.format != FORMAT => damaged("it isn't a state file"),
            Ok(state) if state.device != self.owner.device => damaged("it is another device's"),
            Ok(state) => Ok(Some(state)),
            Err(_) => damaged("it isn't a state file"),
        }
    }

    fn write(&self, floor: u64) -> Result<()> {
        let fresh = || StateFile {
            format: FORMAT.into(),
            device: self.owner.device.clone(),
            floors: BTreeMap::new(),
        };
        let place = files::resolve(self.path)?;
        let mut state = self.read_at(&place)?.unwrap_or_else(fresh);
        state.floors.insert(self.line.into(), floor);
        let text = serde_json::to_vec_pretty(&state).map_err(|error| Error::io(self.path, &error.into()))?;
        files::rewrite(&place, &text, Access::Public)
    }

    fn keep<T>(&mut self, result: Result<T>) -> std::result::Result<T, Refusal> {
        result.map_err(|error| {
            self.failure = Some(error);
            Refusal::Floor
        })
    }
}

impl FloorStore for StateStore<'_> {
    fn floor(&mut self) -> std::result::Result<u64, Refusal> {
        let stored = self.stored();
        self.keep(stored)
    }

    fn raise(&mut self, floor: u64) -> std::result::Result<(), Refusal> {
        let written = self.write(floor);
        self.keep(written)
    }
}
