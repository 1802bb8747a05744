//! What must hold for any model, any edit, any slots and any grant: one property a function, on inputs that proptest
//! makes up. `PROPTEST_CASES` in the environment asks for more of them than there are by default.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod check;
mod edits;
mod grants;
mod openers;
mod order;
mod sealing;
mod slots;
