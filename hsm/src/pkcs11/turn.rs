//! One process at a time starts a library and logs in.
//!
//! A login to SoftHSM rewrites the token's file. Another process that starts or logs in at that moment finds no token,
//! or gets a general error for its PIN, which isn't tried again. So processes of modelseal take turns, by a lock on the
//! library's own file: everybody who uses it can read it, and nothing has to be made or cleaned up.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Anybody who can read the library could keep the lock, so it is waited for and not insisted on.
const PATIENCE: Duration = Duration::from_secs(2);

/// The right to it, for as long as it lives.
pub(super) struct Turn {
    _locked: Option<File>,
}

impl Turn {
    /// Waits for it.
    pub(super) fn wait(library: &Path) -> Self {
        Self { _locked: lock(library) }
    }
}

fn lock(library: &Path) -> Option<File> {
    // Elsewhere such a lock keeps others from reading the library.
    if !cfg!(unix) {
        return None;
    }
    let file = File::open(library).ok()?;
    let began = Instant::now();
    while file.try_lock().is_err() {
        if began.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(file)
}
