//! Opens sealed models on a device: no allocator, no unsafe. A port implements [`Device`], and that is all; one
//! that takes updates also says where its images are ([`slots::Slots`]).
//!
//! ```text
//!  where the sealed model lies               what the board is              what the application gets
//!  ───────────────────────────               ─────────────────              ─────────────────────────
//!  the model's final memory ─▶ boot::boot ─┐
//!                                          ├─▶ Device: id, line, secret, ─▶ Loaded ─▶ confirm
//!  flash, SD card, … ───────▶ load::load ──┘   publisher, state, clock                (raises the floor)
//!          ▲                       ▲
//!          │ update::serve         └── slots::choose: the confirmed one, or one that is being tried
//!  a serial line
//! ```
//!
//! Both paths need the model's own memory and a few KiB of stack, `load` a buffer for the header, too: the payload is
//! decrypted where it lies, and the tags are read from storage one at a time. The checks and their order are
//! [`modelseal_core::open`]'s.
//!
//! In reading order:
//!
//! - [`device`]: the trait of a port
//! - [`boot`](mod@boot): the sealed model already lies in the model's final memory
//! - [`load`](mod@load): it is copied there from storage first
//! - [`storage`]: reads the parts of a sealed model
//! - [`state`]: the floor, and what boots, through cuts of power; kept in an [`eeprom`] or in [`flash`]
//! - [`slots`]: two places for an image and two for a grant: what this boot is to open
//! - [`update`]: takes a new image or grant over a serial line, and verifies it before it is tried
//! - [`provision`]: the bytes that a factory writes, and those that arrive with a model
//!
//! Deliberately absent: drivers (any [`ReadStorage`](embedded_storage::ReadStorage) will do), a file system, a
//! network, and a way to open a model without a grant.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

/// Logs with defmt. On a PC, where nothing would take the log, it merely evaluates its arguments.
macro_rules! log {
    ($level:ident, $format:literal $(, $argument:expr)* $(,)?) => {{
        #[cfg(target_os = "none")]
        defmt::$level!($format $(, $argument)*);
        #[cfg(not(target_os = "none"))]
        { $(let _ = &$argument;)* }
    }};
}

pub mod boot;
pub mod device;
pub mod eeprom;
#[cfg(feature = "nor-flash")]
pub mod flash;
pub mod load;
pub mod provision;
pub mod slots;
pub mod state;
pub mod storage;
#[cfg(test)]
mod tests;
#[cfg(feature = "update")]
pub mod update;

pub use boot::{Loaded, boot};
pub use device::Device;
pub use load::load;
pub use modelseal_core;
