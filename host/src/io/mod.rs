//! Files and folders as handles: what was checked is what is used, whatever becomes of its path meanwhile.
//!
//! - [`folder`]: a folder that is open; everything in it is reached beneath its handle
//! - [`input`]: a path that a user named, opened once: a file, a folder or a stream
//! - [`protect`]: what no output may replace and nobody may seal
//! - [`name`]: the one place where a stranger's name becomes a file name

pub mod folder;
pub mod input;
pub mod name;
pub mod protect;

pub use folder::Folder;
pub use input::Input;
