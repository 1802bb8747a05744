//! Opening, with a vault or as a device with its grant: the one owner of what comes before and after the reading itself.
//!
//! ```text
//!  Opener::open ─▶ Opening            identity, grant, line and stored floor are read
//!    .into_memory() .into_file() .into_pipe()    every byte passes, then the floor is stored, then it is handed out
//!    .lazily()                                   parts of it; the floor is stored when the application says so
//!    .exec()                                     every byte passes; the floor is stored before the program starts
//! ```
//!
//! A confirmation never leaves this module: it is a [`Confirming`], which stores one floor, once. It refuses a version
//! below what was stored meanwhile. docs/SECURITY.md has the table of who confirms when.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use modelseal_core::Error as Refusal;
use modelseal_core::grant::GRANT_MAX;
use modelseal_core::open::{Confirmation, Unwrapped};
use modelseal_core::sealed::Header;
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;

use crate::error::{Error, Result};
use crate::files::{self, Output, Source};
use crate::identity::Identity;
use crate::lazy::LazyModel;
use crate::memory::Memory;
use crate::open::{Reader, SealedFile};
use crate::seal::Progress;
use crate::state::{StateOwner, StateStore, default_path};

/// What opens sealed models.
#[derive(Clone)]
pub struct Opener {
    with: With,
    line: Option<String>,
    /// What may be where the grant is.
    grant: Source,
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
        Self { with, line, grant: Source::Pipe }
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

    /// The same with a grant in a folder of grants, which is a file.
    pub(crate) fn with_grant_in_folder(&self, grant: &Path) -> Self {
        Self { grant: Source::File, ..self.with_grant(Some(grant)) }
    }

    /// The same with stored floors left as they are.
    pub(crate) fn without_confirming(mut self) -> Self {
        if let With::Grant(by) = &mut self.with {
            by.confirm = false;
        }
        self
    }

    /// Reads what it takes to open `sealed`. Nothing is believed of it yet.
    pub fn open(&self, sealed: SealedFile) -> Result<Opening> {
        let device = match &self.with {
            With::Vault(_) => None,
            With::Grant(by) => Some(Device::read(by, self, &sealed)?),
        };
        Ok(Opening { keys: Keys { opener: self.clone(), device }, sealed })
    }
}

/// A sealed model with all that it takes to open it. Holding one proves nothing: each way to end it checks everything.
pub struct Opening {
    keys: Keys,
    sealed: SealedFile,
}

/// Prefix and manifest of a model that was opened. Holding one proves that it is genuine, and that what was opened here
/// was opened by it.
pub struct OpenedHeader(Vec<u8>);

impl OpenedHeader {
    /// Prefix and manifest.
    pub fn header(&self) -> Result<Header<'_>> {
        Ok(Header::parse(&self.0)?)
    }
}

impl Opening {
    /// What the model says of its own length, for progress alone.
    pub fn claimed_length(&self) -> Result<u64> {
        Ok(self.sealed.header()?.layout().length)
    }

    fn opened(&self) -> OpenedHeader {
        OpenedHeader(self.sealed.header_bytes().to_vec())
    }

    /// The whole model in memory, once its floor is stored.
    pub fn into_memory(mut self, progress: Progress<'_>) -> Result<(Memory, OpenedHeader)> {
        let (memory, confirmation) = self.sealed.open_whole(|sealed| self.keys.unwrap(sealed), progress)?;
        self.keys.confirming(confirmation).confirm()?;
        Ok((memory, self.opened()))
    }

    /// The whole model at the place of `output`, once its floor is stored.
    pub fn into_file(mut self, mut output: Output, progress: Progress<'_>) -> Result<OpenedHeader> {
        let confirming = self.copy_to(&mut |bytes| output.write(bytes), progress)?;
        output.sync()?;
        confirming.confirm()?;
        output.commit()?;
        Ok(self.opened())
    }

    /// Chunks that passed, in order, into `out`. Before the first one it is known that the floor can be stored.
    pub fn into_pipe(
        mut self,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<OpenedHeader> {
        let mut prepared = false;
        let keys = &self.keys;
        let mut out = |bytes: &[u8]| {
            if !prepared {
                keys.prepare()?;
                prepared = true;
            }
            out(bytes)
        };
        let copied = self.sealed.copy_to(|sealed| keys.unwrap(sealed), &mut out, progress)?;
        self.keys.confirming(copied).confirm()?;
        Ok(self.opened())
    }

    /// Any part of the model. Of parts that weren't read nothing is known, so the floor stays until
    /// [`LazyModel::confirm`].
    pub fn lazily(self) -> Result<LazyModel> {
        let Self { keys, sealed } = self;
        let lazy = wiped(|| sealed.open_lazily(|sealed| keys.unwrap(sealed)))?;
        let confirming = keys.confirming(lazy.confirmation());
        Ok(lazy.with_floor(confirming))
    }

    /// The whole model in `memory`, for a program that isn't running yet. It is to be confirmed before it starts.
    #[cfg(target_os = "linux")]
    pub fn exec(
        mut self,
        memory: crate::exec::Writing,
        progress: Progress<'_>,
    ) -> Result<(crate::exec::InMemory, Confirming)> {
        let mut memory = memory;
        let confirming = self.copy_to(&mut |bytes| memory.write(bytes), progress)?;
        Ok((memory.seal()?, confirming))
    }

    /// Whoever calls this confirms, or knows who does.
    pub(crate) fn copy_to(
        &mut self,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<Confirming> {
        let confirmation = self.sealed.copy_to(|sealed| self.keys.unwrap(sealed), out, progress)?;
        Ok(self.keys.confirming(confirmation))
    }

    /// Steps 1 to 6 alone: why it wouldn't open.
    pub(crate) fn check(&self) -> Result<()> {
        wiped(|| self.keys.unwrap(&self.sealed).map(drop))
    }

    pub(crate) fn into_sealed(self) -> SealedFile {
        self.sealed
    }
}

struct Keys {
    opener: Opener,
    device: Option<Device>,
}

impl Keys {
    /// The content key of the model, after every check that comes before it. To be called in [`wiped`], as `SealedFile`'s
    /// readers do.
    fn unwrap<'s>(&self, sealed: &'s SealedFile) -> Result<Unwrapped<'s>> {
        match (&self.opener.with, &self.device) {
            (With::Grant(by), Some(device)) => sealed.unwrap_by_grant(&device.grant, &device.reader(by)),
            (With::Vault(vault), _) => sealed.unwrap_by_vault(&**vault, self.opener.line.as_deref()),
            (With::Grant(_), None) => Err(Refusal::GrantKey.into()),
        }
    }

    fn prepare(&self) -> Result<()> {
        self.floor().map_or(Ok(()), |floor| floor.store().prepare())
    }

    fn confirming(&self, confirmation: Confirmation) -> Confirming {
        Confirming { floor: self.floor(), confirmation }
    }

    /// A vault has no floor, and who asked to leave it is left alone.
    fn floor(&self) -> Option<Floor> {
        let (With::Grant(by), Some(device)) = (&self.opener.with, &self.device) else { return None };
        by.confirm.then(|| Floor {
            state: by.state.clone(),
            identity: by.identity.clone(),
            owner: device.identity.owner(),
            line: device.line.clone(),
        })
    }
}

/// Where a floor is stored. It has no secret: a model may stay open for long.
struct Floor {
    state: PathBuf,
    identity: PathBuf,
    owner: StateOwner,
    line: String,
}

impl Floor {
    fn store(&self) -> StateStore<'_> {
        StateStore::new(&self.state, &self.identity, &self.owner, &self.line)
    }
}

/// A floor that is to be stored. Holding one proves that the grant which sets it was checked, and not that the model was
/// read: that is up to who holds it.
pub struct Confirming {
    floor: Option<Floor>,
    confirmation: Confirmation,
}

impl Confirming {
    /// Stores it, under the state's lock. A version below the floor that is stored by now is refused.
    pub fn confirm(self) -> Result<()> {
        self.floor.map_or(Ok(()), |floor| floor.store().confirm(self.confirmation))
    }
}

struct Device {
    identity: Identity,
    grant: Vec<u8>,
    line: String,
    floor: u64,
}

impl Device {
    fn read(by: &ByGrant, opener: &Opener, sealed: &SealedFile) -> Result<Self> {
        let identity = Identity::read(&by.identity)?;
        identity.require_enrolled()?;
        // One byte more than a grant may have: what is wrong with a longer one, its parser says.
        let grant = files::read_start(&by.grant, GRANT_MAX as u64 + 1, opener.grant)?;
        let line = wanted_line(opener.line.as_deref(), &identity, sealed)?;
        let floor = StateStore::new(&by.state, &by.identity, &identity.owner(), &line).stored()?;
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
