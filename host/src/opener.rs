//! Opening with a vault, or as a device with its grant: what comes before and after the reading itself, in one place.
//!
//! ```text
//!  Opener::begin     ─▶ Opening      identity, grant, line and stored floor are read
//!  Opening::unwrap   ─▶ Unwrapped    for `SealedFile::copy_to` and its like, which read the model
//!  Opening::confirm                  the floor is stored: what can't be confirmed isn't handed out
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use modelseal_core::Error as Refusal;
use modelseal_core::grant::GRANT_MAX;
use modelseal_core::open::{Confirmation, Unwrapped};
use modelseal_hsm::Vault;

use crate::error::{Error, Result};
use crate::files;
use crate::identity::Identity;
use crate::open::{Reader, SealedFile};
use crate::state::{StateStore, default_path};

/// What opens sealed models.
#[derive(Clone)]
pub struct Opener {
    with: With,
    line: Option<String>,
}

/// Whose key it is done with.
#[derive(Clone)]
pub enum With {
    /// The publisher's own.
    Vault(Arc<dyn Vault>),
    /// A device's, and what was granted to it.
    Grant(ByGrant),
}

/// The files of a device that opens with a grant.
#[derive(Clone, Debug)]
pub struct ByGrant {
    /// The grant; for a folder of models, the folder of their grants.
    pub grant: PathBuf,
    /// The device's identity.
    pub identity: PathBuf,
    /// Its stored floors.
    pub state: PathBuf,
    /// Whether an opening raises the stored floor.
    pub confirm: bool,
}

impl ByGrant {
    /// With the state at its usual place, and confirmations.
    pub fn new(grant: impl Into<PathBuf>, identity: impl Into<PathBuf>) -> Self {
        let identity = identity.into();
        Self { grant: grant.into(), state: default_path(&identity), identity, confirm: true }
    }
}

impl Opener {
    /// Opens models of `line`; without one, those of any line, or of the lines that the device is enrolled for.
    pub fn new(with: With, line: Option<String>) -> Self {
        Self { with, line }
    }

    /// Whose key it is done with.
    pub fn with(&self) -> &With {
        &self.with
    }

    /// The same with another grant, if there is one; a vault takes none.
    pub fn with_grant(&self, grant: Option<&Path>) -> Self {
        let mut opener = self.clone();
        if let (With::Grant(by), Some(grant)) = (&mut opener.with, grant) {
            by.grant = grant.to_owned();
        }
        opener
    }

    /// The same with stored floors left as they are.
    pub fn without_confirming(mut self) -> Self {
        if let With::Grant(by) = &mut self.with {
            by.confirm = false;
        }
        self
    }

    /// Reads what it takes to open `sealed`. Nothing is believed of it yet.
    pub fn begin(&self, sealed: &SealedFile) -> Result<Opening<'_>> {
        let device = match &self.with {
            With::Vault(_) => None,
            With::Grant(by) => Some(Device::read(by, self.line.as_deref(), sealed)?),
        };
        Ok(Opening { opener: self, device })
    }

    /// Stores the floor of `line`, after the model was read and before it is handed out. A vault has none.
    pub fn confirm(&self, line: &str, confirmation: Confirmation) -> Result<()> {
        match &self.with {
            With::Grant(by) if by.confirm => {
                StateStore::new(&by.state, &by.identity, line).confirm(confirmation)
            }
            _ => Ok(()),
        }
    }
}

/// An opener with all that it takes to open one sealed model.
pub struct Opening<'a> {
    opener: &'a Opener,
    device: Option<Device>,
}

impl Opening<'_> {
    /// The content key of the model that this was begun for, after every check that comes before it. To be called in
    /// [`wiped`](modelseal_hsm::wiped::wiped), as `SealedFile`'s readers do.
    pub fn unwrap<'s>(&self, sealed: &'s SealedFile) -> Result<Unwrapped<'s>> {
        match (&self.opener.with, &self.device) {
            (With::Grant(by), Some(device)) => sealed.unwrap_by_grant(&device.grant, &device.reader(by)),
            (With::Vault(vault), _) => sealed.unwrap_by_vault(&**vault, self.opener.line.as_deref()),
            (With::Grant(_), None) => Err(Refusal::GrantKey.into()),
        }
    }

    /// Stores the floor, after the model was read and before it is handed out.
    pub fn confirm(&self, confirmation: Confirmation) -> Result<()> {
        match &self.device {
            Some(device) => self.opener.confirm(&device.line, confirmation),
            None => Ok(()),
        }
    }
}

struct Device {
    identity: Identity,
    grant: Vec<u8>,
    line: String,
    floor: u64,
}

impl Device {
    fn read(by: &ByGrant, line: Option<&str>, sealed: &SealedFile) -> Result<Self> {
        let identity = Identity::read(&by.identity)?;
        identity.require_enrolled()?;
        // One byte more than a grant may have: what is wrong with a longer one, its parser says.
        let grant = files::read_start(&by.grant, GRANT_MAX as u64 + 1)?;
        let line = wanted_line(line, &identity, sealed)?;
        let floor = StateStore::new(&by.state, &by.identity, &line).stored()?;
        Ok(Self { identity, grant, line, floor })
    }

    fn reader<'r>(&'r self, by: &'r ByGrant) -> Reader<'r> {
        Reader {
            identity: &self.identity,
            grant_path: &by.grant,
            line: &self.line,
            floor: self.floor,
            now: now(),
        }
    }
}

/// The line that the device serves: the one asked for, or the model's own if the device is enrolled for it.
fn wanted_line(asked: Option<&str>, identity: &Identity, sealed: &SealedFile) -> Result<String> {
    let header = sealed.header()?;
    let line = asked.unwrap_or(header.manifest().subject.line);
    if identity.lines().iter().any(|enrolled| enrolled == line) {
        return Ok(line.to_owned());
    }
    match (asked, identity.lines()) {
        // What the model says of itself isn't to be believed yet: let the checks find out in their order.
        (None, [first, ..]) => Ok(first.clone()),
        _ => {
            let error = Error::from(Refusal::OtherLine);
            Err(error.with_hint(format!(
                "{} is enrolled for: {}",
                identity.device(),
                identity.lines().join(", ")
            )))
        }
    }
}

/// Seconds since 1970-01-01 UTC; `None` if the clock is before that.
pub fn now() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}
