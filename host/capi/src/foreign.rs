//! The border: pointers from C are checked for NULL and turned into references here, values are given away as pointers
//! and taken back, and no panic gets across.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use modelseal::error::Code;

type Failure = modelseal::Error;

/// What `pointer` refers to.
///
/// # Safety
///
/// `pointer` is NULL, or points to a `T` that lives and isn't changed while the result is used.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: NULL gives None; the rest is the caller's promise.
    unsafe { pointer.as_ref() }
}

/// Stores `value` where the caller wants it.
///
/// # Safety
///
/// `place` is NULL, or can be written as a `T`, which isn't dropped.
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: it isn't NULL; the rest is the caller's promise. What was there is the caller's, uninitialised perhaps.
        unsafe { place.write(value) };
    }
}

/// A pointer to `value`, which lives until [`take_back`].
pub(crate) fn give_away<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Drops what was given away.
///
/// # Safety
///
/// `pointer` is NULL, or comes from [`give_away`], wasn't taken back before, and nobody uses it any more.
pub(crate) unsafe fn take_back<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: the caller's promise: it was made by Box::into_raw, and is dropped once.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// A string, none if it is NULL.
///
/// # Safety
///
/// `text` is NULL, or points to bytes that end with zero and aren't changed while the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it isn't NULL; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    let not_utf8 = || Failure::usage(format!("{name} isn't UTF-8"), "encode it as UTF-8");
    text.to_str().map(Some).map_err(|_| not_utf8())
}

/// A path, likewise. On Unix it may be any bytes.
///
/// # Safety
///
/// As for [`text`].
pub(crate) unsafe fn path<'a>(path: *const c_char, name: &str) -> Result<Option<&'a Path>, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let _ = name;
        if path.is_null() {
            return Ok(None);
        }
        // SAFETY: it isn't NULL; the rest is the caller's promise.
        let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
        Ok(Some(Path::new(std::ffi::OsStr::from_bytes(bytes))))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the same promise.
        let path = unsafe { text(path, name) };
        Ok(path?.map(Path::new))
    }
}

/// Memory of the caller's that is to be filled: zeros, whatever was there. The caller may never have written to it.
///
/// # Safety
///
/// `buffer` is NULL, or points to `length` bytes that can be written and that nobody else uses meanwhile.
pub(crate) unsafe fn buffer<'a>(buffer: *mut u8, length: usize) -> Option<&'a mut [u8]> {
    if length == 0 {
        return Some(&mut []);
    }
    if buffer.is_null() || isize::try_from(length).is_err() {
        return None;
    }
    // SAFETY: it isn't NULL, bytes are aligned everywhere, the length is an isize's; the rest is the caller's promise. It is
    // initialised before there is a slice of it.
    Some(unsafe {
        buffer.write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    })
}

/// What `work` gives; a panic, which would be undefined in C, is an error like any other.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // A model isn't changed after it was made, so nothing half done is seen by whoever calls next.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Failure::new(
            Code::Other,
            "modelseal failed in a way that it shouldn't",
            "report it, with how it came to it",
        ))
    })
}
