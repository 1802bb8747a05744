//! The PKCS#11 library: one context for all of a process's vaults in it, and a new start when it has lost its
//! tokens. `discover` finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};

use super::discover;
use super::failure::{Class, Failure, failed};
use super::second::Logins;
use super::session::State;
use crate::error::Error;
use crate::location::Pkcs11Uri;

const RELATIVE: &str =
    "module-path is the library's whole path, such as module-path=/usr/lib/softhsm/libsofthsm2.so";

/// C_Initialize is per process and library, so every vault in a library shares its one context.
static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A library that is loaded and initialised.
pub(super) struct Module {
    pub(super) path: PathBuf,
    context: Pkcs11,
    /// Nobody but us has initialised it, so nobody but us relies on it.
    ours: bool,
    /// Calls are made under the read lock, C_Finalize and C_Initialize under the write lock: under load they crash
    /// SoftHSM. Counts the starts.
    starts: RwLock<u64>,
    /// The sessions of every vault in this library.
    vaults: Mutex<Vec<Weak<Mutex<State>>>>,
    logins: Arc<ByToken>,
    /// A child of a fork has to initialise the library anew.
    process: u32,
}

/// By label and serial number.
type ByToken = Mutex<BTreeMap<[Option<String>; 2], Arc<Logins>>>;

/// The right to call the library, which isn't finalised meanwhile.
pub(super) struct Inside<'a> {
    context: &'a Pkcs11,
    /// Which start of the library this is.
    pub(super) start: u64,
    _starts: RwLockReadGuard<'a, u64>,
}

impl std::ops::Deref for Inside<'_> {
    type Target = Pkcs11;

    fn deref(&self) -> &Pkcs11 {
        self.context
    }
}

impl Module {
    /// The URI's library, else the environment's, else the only one that is found. By its whole path: a name alone would be
    /// looked for in the folder that the program happens to be in, or wherever the loader looks.
    pub(super) fn load(uri: &Pkcs11Uri) -> Result<Arc<Self>, Error> {
        let path = match &uri.module {
            Some(path) if !path.is_absolute() => return Err(Error::Location(RELATIVE)),
            Some(path) => path.clone(),
            None => discover::module()?,
        };
        let unusable = |why: String| Error::Module(path.clone(), why);
        let canonical = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&canonical).filter(|module| module.process == std::process::id()) {
            return Ok(module.clone());
        }
        // A child of a fork may be logged in as its parent was.
        let logins = loaded.get(&canonical).map(|module| module.logins.clone()).unwrap_or_default();
        let module = Arc::new(Self::start(&canonical, logins).map_err(unusable)?);
        loaded.insert(canonical, module.clone());
        Ok(module)
    }

    fn start(path: &Path, logins: Arc<ByToken>) -> Result<Self, String> {
        let context = Pkcs11::new(path).map_err(|error| error.to_string())?;
        let ours = initialize(&context).map_err(|error| explained(&error))?;
        Ok(Self {
            path: path.to_owned(),
            context,
            ours,
            starts: RwLock::new(0),
            vaults: Mutex::default(),
            logins,
            process: std::process::id(),
        })
    }

    /// Whoever calls the library does it in here. A second entry on the same thread is fine, for nobody ever waits
    /// for the write lock: it is tried.
    pub(super) fn enter(&self) -> Inside<'_> {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        Inside { context: &self.context, start: *starts, _starts: starts }
    }

    /// From now on this vault's sessions are dropped when the library is restarted.
    pub(super) fn register(&self, vault: &Arc<Mutex<State>>) {
        let mut vaults = self.vaults();
        vaults.retain(|vault| vault.strong_count() > 0);
        vaults.push(Arc::downgrade(vault));
    }

    /// Those to one token, of all vaults in it.
    pub(super) fn logins(&self, token: &Pkcs11Uri) -> Arc<Logins> {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.entry([token.token.clone(), token.serial.clone()]).or_default().clone()
    }

    /// Whether no vault is open in this library.
    pub(super) fn is_unused(&self) -> bool {
        self.vaults().iter().all(|vault| vault.strong_count() == 0)
    }

    /// Finalises and initialises the library, which is what makes it look at its tokens again: unless somebody has
    /// since `start`, or somebody is inside and doesn't come out.
    pub(super) fn restart(&self, start: u64) -> Result<(), Failure> {
        let mut starts = match self.alone() {
            Some(starts) if *starts == start => starts,
            // Done already, or impossible as long as another operation hangs: the next try will tell.
            _ => return Ok(()),
        };
        *starts += 1;
        // First, for a session that is closed later could by then be another one of the same number.
        for vault in self.vaults().iter().filter_map(Weak::upgrade) {
            vault.lock().unwrap_or_else(PoisonError::into_inner).disconnect();
        }
        if self.ours {
            // A library that has forgotten that it was initialised says so, and is initialised all the same.
            let _ = self.context.clone().finalize();
        }
        match initialize(&self.context) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure { class: Class::Module, ..failed("starting the module")(error) }),
        }
    }

    fn alone(&self) -> Option<std::sync::RwLockWriteGuard<'_, u64>> {
        let began = Instant::now();
        loop {
            match self.starts.try_write() {
                Ok(starts) => return Some(starts),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if began.elapsed() > PATIENCE => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn vaults(&self) -> MutexGuard<'_, Vec<Weak<Mutex<State>>>> {
        self.vaults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a restart waits for operations to end.
const PATIENCE: Duration = Duration::from_millis(500);

impl Inside<'_> {
    /// The one token that fits the URI. Slot numbers change, so they are no part of it.
    pub(super) fn find(&self, uri: &Pkcs11Uri) -> Result<(Slot, TokenInfo), Failure> {
        let slots = self.get_slots_with_token().map_err(failed("listing the tokens"))?;
        let (mut fitting, mut others) = (Vec::new(), Vec::new());
        for slot in slots {
            match self.get_token_info(slot) {
                Ok(info) if info.token_initialized() && fits(&info, uri) => fitting.push((slot, info)),
                Ok(info) if info.token_initialized() => others.push(name(&info)),
                Ok(_) => {}
                // One odd token must not hide the others.
                Err(error) => others.push(format!("one that can't be read ({error})")),
            }
        }
        let absent = |what: String| Failure { class: Class::Module, error: Error::Token(what) };
        match (fitting.pop(), fitting.is_empty()) {
            (Some(found), true) => Ok(found),
            (Some(last), false) => {
                let names: Vec<_> = fitting.iter().chain([&last]).map(|(_, info)| name(info)).collect();
                Err(Error::Token(format!("several do; add serial=SERIAL: {}", names.join(", "))).into())
            }
            (None, _) if others.is_empty() => Err(absent("the module has no initialised token".into())),
            (None, _) => Err(absent(format!("the module has only {}", others.join(", ")))),
        }
    }
}

/// Whether it wasn't before.
fn initialize(context: &Pkcs11) -> Result<bool, Pkcs11Error> {
    // Without OS_LOCKING_OK, SoftHSM crashes with more than one thread.
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => Ok(true),
        Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn explained(error: &Pkcs11Error) -> String {
    match error {
        Pkcs11Error::Pkcs11(RvError::GeneralError, _) => format!(
            "{error}; if it is SoftHSM: SOFTHSM2_CONF must name a readable file, whose directories.tokendir \
             must exist and be writable (for the system's own one: be a member of the group softhsm)"
        ),
        error => error.to_string(),
    }
}

fn fits(info: &TokenInfo, uri: &Pkcs11Uri) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    is(&uri.token, info.label())
        && is(&uri.serial, info.serial_number())
        && is(&uri.manufacturer, info.manufacturer_id())
}

fn name(info: &TokenInfo) -> String {
    format!("{} (serial {})", info.label(), info.serial_number())
}
