//! modelseal for hosts: seals models, grants them to devices, opens them.
//!
//! ```text
//!  seal.rs   model file ─▶ sealed model          vault signs and wraps
//!  grant.rs  sealed model + enrolled device ─▶ grant
//!  rewrap.rs sealed model ─▶ the same under the newest master key
//!  open.rs   sealed model (+ grant, identity, state) ─▶ its content key
//!   ├ whole.rs  ─▶ model, in memory or to a file
//!   └ lazy.rs   ─▶ any part of it, or a tensor by name
//! ```
//!
//! In reading order:
//!
//! - [`error`]: what failed, what to do, and the exit codes
//! - [`seal`], [`grant`], [`open`]: the three things that are done
//! - [`whole`], [`lazy`], [`tensors`]: the ways to open; `index`, what they check once; [`work`], on how many threads
//! - [`cipher`], [`memory`], `limits`: which AEAD computes, and where an opened model lies
//! - [`opener`]: opening with a vault or with a grant, from the first file to the stored floor
//! - [`release`], [`directory`]: folders of models, sealed and opened, with a [`list`] of their files
//! - `exec`: running a program with an opened model in memory
//! - [`fernet`]: models that were protected with Fernet, to be sealed instead
//! - [`fleet`]: granting to many devices at once, into a [`folder`]
//! - [`rewrap`], [`depends`]: what a change of keys takes
//! - [`update`]: bringing a device a new model or grant over its serial line
//! - [`registry`], [`identity`], [`state`]: the three files that are kept: the operator's, the device's
//!   secret, the device's floors
//! - [`io`]: files and folders as handles, what is protected, and strangers' names
//! - [`vaults`]: which vault is meant, its registry, and its passphrase or PIN
//! - [`pem`], [`fingerprint`]: public keys as text, and what people compare of them
//! - [`kind`], [`profile`], [`files`]: what a model is, how files and [`folders`] are written
//! - [`notice`], `text`: what is said although nothing failed, and how strangers' text is shown
//! - [`cli`]: the command line over all of it

pub mod cipher;
pub mod cli;
pub mod depends;
pub mod directory;
pub mod error;
#[cfg(target_os = "linux")]
pub mod exec;
pub mod fernet;
pub mod files;
pub mod fingerprint;
pub mod fleet;
pub mod folder;
pub mod folders;
pub mod grant;
mod guarded;
pub mod identity;
mod index;
pub mod io;
pub mod kind;
pub mod lazy;
mod limits;
pub mod list;
pub mod memory;
pub mod notice;
pub mod open;
pub mod opener;
pub mod pem;
pub mod profile;
pub mod registry;
pub mod release;
pub mod rewrap;
pub mod seal;
pub mod state;
pub mod tensors;
mod text;
pub mod update;
pub mod vaults;
pub mod whole;
pub mod work;

pub use error::{Code, Error, Result};
