//! modelseal's errors as Python's exceptions, which stand in `_errors.py`.

use modelseal::Error;
use pyo3::prelude::*;

/// The exception for `error`.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let made = py.import("modelseal._errors").and_then(|module| {
        let parts = (error.code() as u8, error.what(), error.hint(), error.name());
        module.getattr("exception")?.call1(parts)
    });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(failed) => failed,
    }
}

/// What a caller can't have meant.
pub(crate) fn usage(py: Python<'_>, what: &str, hint: &str) -> PyErr {
    exception(py, &Error::usage(what, hint))
}
