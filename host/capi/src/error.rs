//! Errors.

use std::ffi::{CString, c_char};

use crate::foreign::{reference, store, take_back};

/// What went wrong: the exit codes of the command line.
#[allow(dead_code, reason = "for the header; made of the library's own by number")]
#[repr(C)]
pub enum Code {
    /// Nothing.
    ModelsealOk = 0,
    /// Anything that isn't below.
    ModelsealOther = 1,
    /// A wrong argument.
    ModelsealUsage = 2,
    /// Changed, cut, extended, malformed; wrong key, wrong publisher, another vault's.
    ModelsealNotAuthentic = 3,
    /// Refused by the terms: other line, device or model; expired, not yet valid, rolled back.
    ModelsealRefused = 4,
    /// The vault: no passphrase, PIN, token, key.
    ModelsealVault = 5,
    /// Input, output or memory.
    ModelsealIo = 6,
    /// A foreign magic, an unknown version or an unknown suite.
    ModelsealUnsupported = 7,
}

/// What failed, and what to do.
pub struct Error {
    code: i32,
    name: Option<CString>,
    message: CString,
    hint: CString,
}

impl Error {
    fn new(error: &modelseal::Error) -> Self {
        Self {
            code: error.code() as i32,
            name: error.name().map(c_string),
            message: c_string(error.what()),
            hint: c_string(error.hint()),
        }
    }
}

/// A file's name could have been quoted; no zero byte is in it, for it came from C.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// The code of `result`; its error goes where the caller wants it.
///
/// # Safety
///
/// `place` is NULL, or can be written.
pub(crate) unsafe fn report(result: Result<(), modelseal::Error>, place: *mut *mut Error) -> i32 {
    let (code, error) = match result {
        Ok(()) => (0, std::ptr::null_mut()),
        Err(error) if place.is_null() => (error.code() as i32, std::ptr::null_mut()),
        Err(error) => (error.code() as i32, crate::foreign::give_away(Error::new(&error))),
    };
    // SAFETY: the caller's promise.
    unsafe { store(place, error) };
    code
}

/// The code, as the function returned it; `MODELSEAL_OK` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_code(error: *const Error) -> i32 {
    // SAFETY: the caller's promise; an error never changes.
    unsafe { reference(error) }.map_or(0, |error| error.code)
}

/// One sentence that says what failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_message(error: *const Error) -> *const c_char {
    // SAFETY: the caller's promise; an error never changes.
    unsafe { reference(error) }.map_or(std::ptr::null(), |error| error.message.as_ptr())
}

/// What to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_hint(error: *const Error) -> *const c_char {
    // SAFETY: the caller's promise; an error never changes.
    unsafe { reference(error) }.map_or(std::ptr::null(), |error| error.hint.as_ptr())
}

/// The format's own name for the failure, such as "RolledBack"; NULL if it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_name(error: *const Error) -> *const c_char {
    // SAFETY: the caller's promise; an error never changes.
    let name = unsafe { reference(error) }.and_then(|error| error.name.as_ref());
    name.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// Frees an error; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_free(error: *mut Error) {
    // SAFETY: the caller's promise.
    unsafe { take_back(error) };
}
