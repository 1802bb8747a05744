//! Opens sealed models from C. The header, `include/modelseal.h`, is made from here.
//!
//! - `options`: what a caller names; `model`: what it gets; `error`: what it gets instead
//! - `foreign`: every pointer that comes from outside, and every one that goes there

// The header's first words are the promise of whoever calls: a pointer is NULL, or is what its function says it is.
#![allow(clippy::missing_safety_doc, reason = "the header says it once for all functions")]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(unsafe_code, reason = "pointers from C; each use says why it is sound")]

pub mod error;
mod foreign;
pub mod model;
pub mod options;
