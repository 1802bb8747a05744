//! The PKCS#11 library, and the token in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};

use super::session::failed;
use crate::error::Error;
use crate::location::Pkcs11Uri;

/// Where distributions put libraries that have tokens of their own. Proxies for other libraries don't count.
const KNOWN: [&str; 9] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/pkcs11/opensc-pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
const VARIABLE: &str = "MODELSEAL_PKCS11_MODULE";

/// C_Initialize is per process and library, so every vault in a library shares its one context. It is never
/// finalised: that would end the other vaults' sessions, and crashes SoftHSM under load.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// A library that is loaded and initialised.
#[derive(Clone)]
pub(super) struct Module {
    pub(super) path: PathBuf,
    pub(super) context: Pkcs11,
    /// Whether this vault is the first in it.
    new: bool,
}

impl Module {
    /// The URI's library, else the environment's, else the only one at a known place.
    pub(super) fn load(uri: &Pkcs11Uri) -> Result<Self, Error> {
        let variable = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = uri.module.clone().or_else(variable).map_or_else(only_known, Ok)?;
        let unusable = |why: String| Error::Module(path.clone(), why);
        let canonical = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = loaded.get(&canonical) {
            return Ok(Self { path: canonical, context: context.clone(), new: false });
        }
        let context = Pkcs11::new(&canonical).map_err(|error| unusable(error.to_string()))?;
        let new = initialize(&context).map_err(unusable)?;
        loaded.insert(canonical.clone(), context.clone());
        Ok(Self { path: canonical, context, new })
    }

    /// Undoes [`load`](Self::load), so that the next one starts the library anew, unless others use it.
    pub(super) fn unload_if_new(self) -> Result<(), Error> {
        if self.new {
            LOADED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
            let path = self.path;
            self.context.finalize().map_err(|error| Error::Module(path, error.to_string()))?;
        }
        Ok(())
    }

    /// The one token that fits the URI. Slot numbers change, so they are no part of it.
    pub(super) fn find(&self, uri: &Pkcs11Uri) -> Result<(Slot, TokenInfo), Error> {
        let slots = self.context.get_slots_with_token();
        let slots = slots.map_err(|error| failed("listing the tokens")(error).error)?;
        let (mut fitting, mut others) = (Vec::new(), Vec::new());
        for slot in slots {
            match self.context.get_token_info(slot) {
                Ok(info) if info.token_initialized() && fits(&info, uri) => fitting.push((slot, info)),
                Ok(info) if info.token_initialized() => others.push(name(&info)),
                Ok(_) => {}
                // One odd token must not hide the others.
                Err(error) => others.push(format!("one that can't be read ({error})")),
            }
        }
        match (fitting.pop(), fitting.is_empty()) {
            (Some(found), true) => Ok(found),
            (Some(last), false) => {
                let names: Vec<_> = fitting.iter().chain([&last]).map(|(_, info)| name(info)).collect();
                Err(Error::Token(format!("several do; add serial=SERIAL: {}", names.join(", "))))
            }
            (None, _) if others.is_empty() => Err(Error::Token("the module has no initialised token".into())),
            (None, _) => Err(Error::Token(format!("the module has only {}", others.join(", ")))),
        }
    }
}

fn only_known() -> Result<PathBuf, Error> {
    let mut found: Vec<_> = KNOWN.iter().filter_map(|path| Path::new(path).canonicalize().ok()).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Error::NoModule(found)),
    }
}

/// Whether it wasn't before.
fn initialize(context: &Pkcs11) -> Result<bool, String> {
    // Without OS_LOCKING_OK, SoftHSM crashes with more than one thread.
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => Ok(true),
        Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(false),
        Err(error @ Pkcs11Error::Pkcs11(RvError::GeneralError, _)) => Err(format!(
            "{error}; if it is SoftHSM: SOFTHSM2_CONF must name a readable file, whose directories.tokendir \
             must exist and be writable (for the system's own one: be a member of the group softhsm)"
        )),
        Err(error) => Err(error.to_string()),
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
