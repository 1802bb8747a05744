//! One process at a time starts a library and logs in, and one at a time changes what is in its tokens.
//!
//! A login to SoftHSM rewrites the token's file. Another process that starts or logs in at that moment finds no token,
//! or gets a general error for its PIN, which isn't tried again. So processes of modelseal take turns, by a lock on the
//! library's own file: everybody who uses it can read it, and nothing has to be made or cleaned up.
//!
//! Whoever makes a key looks which there are, makes it and looks again, all in one turn. In SoftHSM, what another
//! process made between the first two is never seen by this one: it takes its own change for the last one.
//!
//! A turn is an open file's, not a thread's: nobody waits for one while they have one.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Anybody who can read the library could keep the lock, so it is waited for and not insisted on.
const PATIENCE: Duration = Duration::from_secs(2);
/// A change that meets another one may leave two keys with one label.
const PATIENCE_TO_CHANGE: Duration = Duration::from_secs(30);

/// The right to it, for as long as it lives.
pub(super) struct Turn {
    _locked: Option<File>,
}

impl Turn {
    /// Waits for it.
    pub(super) fn wait(library: &Path) -> Self {
        Self { _locked: lock(library, PATIENCE) }
    }

    /// Waits for it longer, to make, mark or destroy keys.
    pub(super) fn wait_to_change(library: &Path) -> Self {
        Self { _locked: lock(library, PATIENCE_TO_CHANGE) }
    }
}

fn lock(library: &Path, patience: Duration) -> Option<File> {
    // Elsewhere such a lock keeps others from reading the library.
    if !cfg!(unix) {
        return None;
    }
    let file = File::open(library).ok()?;
    let began = Instant::now();
    while file.try_lock().is_err() {
        if began.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(file)
}
