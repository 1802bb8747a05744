//! What a caller names, and what opens it.

use std::ffi::c_char;
use std::path::Path;

use modelseal::Error;
use modelseal::opener::{ByGrant, Opener, With};
use modelseal_hsm::wiped::wiped;
use modelseal_hsm::{Location, Passphrase};
use zeroize::Zeroizing;

use crate::foreign::{path, text};

/// What is to be opened, and with whose key: `grant` and `identity`, or else `vault`. To be filled with zeros first, for
/// what is NULL or 0 isn't asked for, and `size` to be set to `sizeof(modelseal_options)`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    /// `sizeof(modelseal_options)`: later versions of this library know by it which fields there are.
    pub size: usize,
    /// The sealed model, or the sealed folder that `file` is in. Nothing is read from standard input: "-" is refused, and a
    /// file of that name is "./-".
    pub path: *const c_char,
    /// With a sealed folder: the file's path in it, such as "weights/1.gguf".
    pub file: *const c_char,
    /// The device's grant; with a sealed folder, the folder of its grants.
    pub grant: *const c_char,
    /// The device's identity.
    pub identity: *const c_char,
    /// Where the device's floors are stored; NULL: beside the identity.
    pub state: *const c_char,
    /// The vault: "file:PATH" or "pkcs11:…".
    pub vault: *const c_char,
    /// The vault's passphrase or PIN; a copy is made, and wiped.
    pub passphrase: *const c_char,
    /// Or the file that it is in.
    pub passphrase_file: *const c_char,
    /// Any other line is refused.
    pub line: *const c_char,
    /// Read what is asked for when it is asked for, and check it then: for models that are larger than memory.
    /// 1, or 0 for the whole model.
    pub lazy: u8,
    /// Leave the stored floor as it is: 1, or 0.
    pub no_confirm: u8,
}

/// More than any version's options have: a `size` that was never set.
const SIZE_MAX: usize = 4096;

/// The same, read.
pub(crate) struct Named<'a> {
    pub(crate) path: &'a Path,
    pub(crate) file: Option<&'a str>,
    pub(crate) lazy: bool,
    pub(crate) opener: Opener,
}

impl Options {
    /// A copy of the caller's options. `size` is looked at before anything behind it is read. The options of a later
    /// version are longer; what they ask for besides must be nothing.
    ///
    /// # Safety
    ///
    /// `options` is NULL, or points to a `size_t` that says how many bytes can be read there, this one included.
    pub(crate) unsafe fn copy(options: *const Self) -> Result<Self, Error> {
        if options.is_null() {
            return Err(Error::usage("options is NULL", "give options"));
        }
        // SAFETY: the caller's promise. Nothing is said of its alignment.
        let size = unsafe { options.cast::<usize>().read_unaligned() };
        let (known, hint) = (size_of::<Self>(), "set size to sizeof(modelseal_options)");
        if !(known..=SIZE_MAX).contains(&size) {
            let what = format!("size is {size}, and modelseal_options has {known} bytes");
            return Err(Error::usage(what, hint));
        }
        for at in known..size {
            // SAFETY: within `size`.
            if unsafe { options.cast::<u8>().add(at).read() } != 0 {
                let what = "the options ask for something that this library doesn't know";
                return Err(Error::usage(what, "link the header's own library"));
            }
        }
        // SAFETY: `size` bytes can be read, which are at least as many. Numbers and pointers have no invalid values.
        Ok(unsafe { options.read_unaligned() })
    }

    /// # Safety
    ///
    /// Every string is NULL or ends with zero, and isn't changed meanwhile.
    pub(crate) unsafe fn read(&self) -> Result<Named<'_>, Error> {
        let lazy = flag(self.lazy, "lazy")?;
        // SAFETY: the caller's promise, for each.
        let (sealed, file, line) =
            unsafe { (path(self.path, "path")?, text(self.file, "file")?, text(self.line, "line")?) };
        let sealed = sealed.ok_or_else(|| Error::usage("path is NULL", "name a sealed model"))?;
        if sealed.as_os_str() == "-" {
            return Err(Error::usage("path is -, which names no file", "write ./- for a file of that name"));
        }
        // SAFETY: the caller's promise.
        let with = unsafe { self.with()? };
        Ok(Named { path: sealed, file, lazy, opener: Opener::new(with, line.map(str::to_owned)) })
    }

    /// # Safety
    ///
    /// As for [`read`](Self::read).
    unsafe fn with(&self) -> Result<With, Error> {
        // SAFETY: the caller's promise, for each.
        let (grant, identity, state, vault) = unsafe {
            let paths =
                (path(self.grant, "grant")?, path(self.identity, "identity")?, path(self.state, "state")?);
            (paths.0, paths.1, paths.2, text(self.vault, "vault")?)
        };
        let no_confirm = flag(self.no_confirm, "no_confirm")?;
        match (grant, identity, vault) {
            (Some(grant), Some(identity), None) => {
                let mut by = ByGrant::new(grant, identity);
                by.confirm = !no_confirm;
                if let Some(state) = state {
                    by.state = state.to_owned();
                }
                Ok(With::Grant(by))
            }
            (None, None, Some(vault)) => {
                let location: Location = vault.parse()?;
                // SAFETY: the caller's promise.
                let passphrase = || unsafe { self.passphrase() };
                let opened = wiped(|| modelseal_hsm::open(&location, &passphrase));
                let opened = opened.map_err(|error| Error::from(error).about(Path::new(vault)))?;
                Ok(With::Vault(opened.into()))
            }
            _ => {
                let what = "it takes either grant and identity, or vault";
                Err(Error::usage(what, "set these and leave the others NULL"))
            }
        }
    }

    /// # Safety
    ///
    /// As for [`read`](Self::read).
    unsafe fn passphrase(&self) -> Result<Passphrase, modelseal_hsm::Error> {
        // SAFETY: the caller's promise, for both.
        let (given, file) =
            unsafe { (text(self.passphrase, "passphrase"), path(self.passphrase_file, "passphrase_file")) };
        let given = given.map_err(|_| modelseal_hsm::Error::NotUtf8("passphrase"))?;
        match (given, file.ok().flatten()) {
            (Some(given), _) => Ok(Passphrase::new(Zeroizing::new(given.to_owned()))),
            (None, Some(file)) => Passphrase::from_file(file),
            (None, None) => Err(modelseal_hsm::Error::NoPassphrase),
        }
    }
}

fn flag(value: u8, name: &str) -> Result<bool, Error> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::usage(format!("{name} is {value}"), "set it to 0 or 1, and what isn't used to 0")),
    }
}
