//! The images that `cost` (modelseal-tests) measures: a device that boots one sealed model and confirms it, with
//! exactly the features of a profile. Without any feature it is empty, and what it takes is subtracted.
//!
//! ```text
//! 0x0000_0000   4 MiB           this image
//! 0x2000_0000   4 MiB - 64 KiB  its data and its stack
//! 0x203f_0000   64 KiB          what it is given: given.rs
//! 0x2100_0000   16 MiB          the sealed model, from the first byte
//! ```
//!
//! It runs on the board mps2-an386 as QEMU has it, and says three numbers: report.rs. It has no driver and no log:
//! those are a product's own.

#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(target_os = "none", allow(unsafe_code, reason = "memory at fixed addresses, and the stack"))]

#[cfg(all(target_os = "none", any(feature = "aes-gcm", feature = "chacha20-poly1305")))]
mod device;
#[cfg(all(target_os = "none", any(feature = "aes-gcm", feature = "chacha20-poly1305")))]
mod given;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod stack;
#[cfg(all(target_os = "none", any(feature = "aes-gcm", feature = "chacha20-poly1305")))]
mod state;

/// On a PC there is nothing to do.
#[cfg(not(target_os = "none"))]
fn main() {}
