//! What Python can't do itself: reading and writing sealed models, without the GIL, in memory that is wiped. The package
//! `modelseal` (`../python/modelseal`) is written over it.
//!
//! ```text
//!  vault.rs   a vault, or what a device has ─▶ Opener
//!  model.rs   sealed model + Opener ─▶ bytes, or any part of them, in a Buffer
//!  seal.rs    file, folder or buffers ─▶ sealed model
//!  work.rs    what all three do without the GIL: progress, Ctrl-C, errors
//! ```

mod buffer;
mod errors;
mod folder;
mod model;
mod seal;
mod vault;
mod work;

use pyo3::prelude::*;

/// Private: use the package `modelseal`.
#[pymodule]
mod _modelseal {
    #[pymodule_export]
    use super::buffer::{Buffer, wipe};
    #[pymodule_export]
    use super::folder::{Folder, open_folder};
    #[pymodule_export]
    use super::model::{Sealed, open_sealed};
    #[pymodule_export]
    use super::seal::{read_fernet, seal_buffers, seal_file, seal_folder};
    #[pymodule_export]
    use super::vault::Vault;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
