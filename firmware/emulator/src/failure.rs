//! Why it ended, and with which of modelseal's exit codes.

use std::path::Path;

use modelseal_core::Error;

const OTHER: u8 = 1;
const NOT_AUTHENTIC: u8 = 3;
const IO: u8 = 6;

/// What failed, for people, and the exit code, for scripts.
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) what: String,
}

impl Failure {
    pub(crate) fn not_authentic(what: String) -> Self {
        Self { code: NOT_AUTHENTIC, what }
    }

    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self { code: IO, what: format!("{}: {error}", path.display()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // The hundreds are the class, and that is the exit code.
        let code = u8::try_from(error.code() / 100).unwrap_or(OTHER);
        Self { code, what: format!("{error} ({}: docs/FORMAT.md, section 8)", error.name()) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { code: IO, what: error.to_string() }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { code: OTHER, what }
    }
}

impl From<&str> for Failure {
    fn from(what: &str) -> Self {
        what.to_owned().into()
    }
}
