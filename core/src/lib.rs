//! The sealed model format: no allocator, no I/O, no unsafe.
//!
//! ```text
//!  publisher                          vault                               device
//!  ─────────                          ─────                               ──────
//!  model ─▶ seal::Sealing ─▶ sealed model ───────── any storage ────────▶ sealed::Header
//!                │ content key ─▶ wrapped by the master key                  │
//!                ▼                                                           ▼
//!  operator ─▶ unwrap ─▶ open::Unwrapped ─▶ grant ───────────────────────▶ open::Request ─▶ … ─▶ model
//! ```
//!
//! A **model** is any bytes. A **sealed model** is a signed manifest and encrypted chunks; a **grant** is
//! its content key wrapped for one device, with terms. The words, the bytes and the order of checks are
//! those of `docs/FORMAT.md`. Every module names its section; numbers in brackets, such as (3.2), are
//! sections, too.
//!
//! In reading order:
//!
//! - [`error`]: every way in which reading can fail
//! - [`keys`]: the secrets, every label and derivation
//! - `strict`: reads the canonical encoding and no other
//! - [`text`]: characters that aren't seen
//! - [`manifest`]: what is sealed
//! - [`sealed`]: the layout of a sealed model
//! - [`chunk`]: the AEAD of the payload
//! - `tree`: the root over the payload
//! - [`sign`]: publisher signatures
//! - [`grant`]: terms, and wrapping for a device
//! - [`seal`]: model -> sealed model
//! - `x25519`: HPKE, for grants to devices that have a private key
//! - [`open`]: sealed model + grant -> model, the order of checks
//! - [`lazy`]: the same, chunk by chunk in any order
//! - [`wipe`]: what secrets leave on the stack

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod chunk;
pub mod error;
pub mod grant;
pub mod keys;
pub mod lazy;
pub mod manifest;
pub mod open;
pub mod seal;
pub mod sealed;
pub mod sign;
mod strict;
pub mod text;
mod tree;
pub mod wipe;
#[cfg(all(
    test,
    feature = "aes-gcm",
    feature = "chacha20-poly1305",
    feature = "ed25519",
    feature = "p256",
    feature = "x25519"
))]
mod wycheproof;
#[cfg(feature = "x25519")]
mod x25519;

pub use error::{Class, Error};
