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

use crate::error::{Error, Result};
use crate::files::{self, Access, Existing};
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

/// The floor of one line of one device, in a file.
pub struct StateStore<'a> {
    path: &'a Path,
    identity_path: &'a Path,
    line: &'a str,
    failure: Option<Error>,
}

impl<'a> StateStore<'a> {
    /// The floor of `line` in the state file `path`, for the device of the identity file.
    pub fn new(path: &'a Path, identity_path: &'a Path, line: &'a str) -> Self {
        Self { path, identity_path, line, failure: None }
    }

    /// The stored floor, or the first one if none was ever stored.
    pub fn stored(&self) -> Result<u64> {
        let identity = Identity::read(self.identity_path)?;
        let state = self.read(&identity)?;
        let stored = state.and_then(|state| state.floors.get(self.line).copied());
        Ok(stored.unwrap_or(0).max(identity.first_floor()))
    }

    /// Raises the floor to what a checked grant says, under a lock, so that no other process's raise is lost.
    pub fn confirm(mut self, confirmation: modelseal_core::open::Confirmation) -> Result<()> {
        let _lock = files::lock(self.path)?;
        self.begin()?;
        confirmation.confirm(&mut self).map_err(|error| self.failure.take().unwrap_or_else(|| error.into()))
    }

    /// Before anything is raised there is a state, with the first floor, and the identity knows it.
    fn begin(&self) -> Result<()> {
        let identity = Identity::read(self.identity_path)?;
        if self.read(&identity)?.is_none() {
            self.write(&identity, self.stored()?)?;
        }
        if !identity.is_used() {
            let mark = |identity: &mut Identity| {
                identity.mark_used();
                Ok(())
            };
            // Only now locked: the folder of one that was used already may be read-only.
            Identity::update(self.identity_path, mark).map_err(|error| {
                error.with_hint(
                    "the identity notes that it was used: let its folder be written, or give --no-confirm",
                )
            })?;
        }
        Ok(())
    }

    fn read(&self, identity: &Identity) -> Result<Option<StateFile>> {
        let damaged = |what: &str| {
            let error: Error = Refusal::Floor.into();
            Err(error
                .about(self.path)
                .with_hint(format!("{what}; restore it, or enrol the device under a new id")))
        };
        let text = match files::read_if_there(self.path, FILE_MAX)? {
            Some(text) => text,
            None => {
                return if identity.is_used() {
                    damaged("it is missing, though the identity was used")
                } else {
                    Ok(None)
                };
            }
        };
        match serde_json::from_slice::<StateFile>(&text) {
            Ok(state) if state.format != FORMAT => damaged("it isn't a state file"),
            Ok(state) if state.device != identity.device() => damaged("it is another device's"),
            Ok(state) => Ok(Some(state)),
            Err(_) => damaged("it isn't a state file"),
        }
    }

    fn write(&self, identity: &Identity, floor: u64) -> Result<()> {
        let fresh =
            || StateFile { format: FORMAT.into(), device: identity.device().into(), floors: BTreeMap::new() };
        let mut state = self.read(identity)?.unwrap_or_else(fresh);
        state.floors.insert(self.line.into(), floor);
        let text = serde_json::to_vec_pretty(&state).map_err(|error| Error::io(self.path, &error.into()))?;
        files::write(self.path, &text, Access::Public, Existing::Replace)
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
        let written = Identity::read(self.identity_path).and_then(|identity| self.write(&identity, floor));
        self.keep(written)
    }
}
