//! Secrets, as memcheck sees them: memory whose content it takes for undefined.

use std::convert::Infallible;
use std::ffi::c_void;
use std::hint::black_box;

use crabgrind::memcheck::{MemState, mark_memory, vbits};
use crabgrind::valgrind::{RunningMode, running_mode};
use rand_core::{TryCryptoRng, TryRng};

/// Without valgrind nothing would be reported, whatever the code does.
pub(crate) fn require_valgrind() {
    assert_eq!(running_mode(), RunningMode::Valgrind, "run this under valgrind: tests/valgrind/run");
}

/// `bytes`, as a secret.
pub(crate) fn secret<const N: usize>(bytes: [u8; N]) -> Box<[u8; N]> {
    let mut secret = Box::new(bytes);
    hide(secret.as_mut_slice());
    secret
}

/// Makes a secret of `bytes`.
pub(crate) fn hide(bytes: &mut [u8]) {
    let bytes = black_box(bytes);
    mark_memory(bytes.as_ptr().cast::<c_void>(), bytes.len(), MemState::Undefined).unwrap();
}

/// A result is no secret, though it may have been computed from one: what branches on it from here on is the test.
pub(crate) fn public<T>(mut result: T) -> T {
    let place = black_box(&raw mut result);
    mark_memory(place.cast::<c_void>().cast_const(), size_of::<T>(), MemState::Defined).unwrap();
    result
}

/// Whether every byte depends on a secret. If none did, a case would have proved nothing.
pub(crate) fn is_secret(bytes: &[u8]) -> bool {
    let mut undefined = vec![0; bytes.len()];
    vbits(black_box(bytes).as_ptr().cast::<c_void>(), &mut undefined).unwrap();
    !undefined.is_empty() && black_box(undefined).iter().all(|bits| *bits != 0)
}

/// Random enough for a test; what it gives is secret or not.
pub(crate) struct Random {
    state: u8,
    secret: bool,
}

impl Random {
    pub(crate) fn public() -> Self {
        Self { state: 1, secret: false }
    }

    pub(crate) fn secret() -> Self {
        Self { state: 1, secret: true }
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes.iter_mut() {
            self.state = self.state.wrapping_mul(181).wrapping_add(101);
            *byte = self.state;
        }
        if self.secret {
            hide(bytes);
        }
        Ok(())
    }
}

impl TryCryptoRng for Random {}
