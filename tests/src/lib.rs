//! What the tests share. In reading order:
//!
//! - [`story`]: the whole path, command by command. Read it first
//! - [`workspace`]: a folder with a vault in it, in which the real `modelseal` runs
//! - [`softhsm`]: a token of its own for one test
//! - [`forge`]: the format over again, for attackers who know it and hold a key

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

pub mod forge;
pub mod softhsm;
pub mod story;
pub mod workspace;

pub use workspace::{Refusal, Run, Workspace, scratch};
