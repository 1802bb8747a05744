//! What a person should hear of although nothing failed. A library says nothing by itself: whoever runs it gives a
//! function that is told.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

/// What there is to say.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// Another process holds the lock of this file.
    Waiting(&'a Path),
    /// A file with a secret may be read or changed by others than its owner.
    Exposed(&'a Path),
}

type Listener = Box<dyn Fn(Notice<'_>) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// From now on `listener` is told, in the whole process. Only the first one is.
pub fn listen(listener: impl Fn(Notice<'_>) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

pub(crate) fn tell(notice: Notice<'_>) {
    if let Some(listener) = LISTENER.get() {
        listener(notice);
    }
}

/// Tells of a file with a secret that others than its owner may use. It is looked at through the handle by which it
/// is read. A pipe, such as a shell's `<(…)`, is nobody else's to open.
pub(crate) fn tell_if_exposed(file: &File, path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let is_exposed =
            |found: &std::fs::Metadata| found.is_file() && found.permissions().mode() & 0o077 != 0;
        if file.metadata().is_ok_and(|found| is_exposed(&found)) {
            tell(Notice::Exposed(path));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, path);
}
