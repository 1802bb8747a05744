//! Long work: without the GIL, with progress, and ended by Ctrl-C.
//!
//! The library's work can't be told to stop, and needn't be: an exception that is raised meanwhile unwinds it, from the
//! callback up to here. Whatever it leaves on the way cleans up after itself, as after an error: an output that isn't
//! complete is gone, and secrets are wiped.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use modelseal::Result;
use modelseal_hsm::wiped::wiped;
use pyo3::prelude::*;

use crate::errors::exception;

/// How long Ctrl-C may wait, and how often progress is told.
const PAUSE: Duration = Duration::from_millis(50);

/// Called with the number of bytes done. It doesn't return if Python has raised an exception meanwhile.
pub(crate) type Tick<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Does `work` without the GIL. `progress` is called as `progress(done, total)`, at last with both the same.
pub(crate) fn work<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    total: u64,
    work: impl FnOnce(Tick<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let done = py.detach(|| {
        let mut last: Option<Instant> = None;
        let mut tick = |done: u64| {
            // The end is told at the end.
            if done < total && last.is_none_or(|last| last.elapsed() >= PAUSE) {
                or_unwind(Python::attach(|py| {
                    py.check_signals()?;
                    tell(py, progress, done, total)
                }));
                // The callback's own time doesn't count.
                last = Some(Instant::now());
            }
        };
        // Unwinding doesn't wipe the stack by itself.
        wiped(|| catch_unwind(AssertUnwindSafe(|| work(&mut tick))))
    });
    let done = match done {
        Ok(done) => done.map_err(|error| exception(py, &error))?,
        Err(reason) => return Err(*reason.downcast::<PyErr>().unwrap_or_else(|panic| resume_unwind(panic))),
    };
    tell(py, progress, total, total)?;
    Ok(done)
}

/// Ends the work with the exception, if there is one.
pub(crate) fn or_unwind<T>(result: PyResult<T>) -> T {
    // No panic: no message, and no backtrace.
    result.unwrap_or_else(|raised| resume_unwind(Box::new(raised)))
}

fn tell(py: Python<'_>, progress: Option<&Py<PyAny>>, done: u64, total: u64) -> PyResult<()> {
    match progress {
        Some(progress) => progress.call1(py, (done, total)).map(drop),
        None => Ok(()),
    }
}
