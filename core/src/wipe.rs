//! Wipes what is left on the stack.
//!
//! Secrets are wiped where they are dropped. Where they were before they were moved, and what the primitives computed
//! with, stays below the stack pointer until something overwrites it.

use core::hint::black_box;

use zeroize::Zeroize;

/// Does `work`, then wipes the `N` bytes of stack below the caller's frame, which hold whatever `work` left there. It
/// needs as much stack itself.
///
/// What `work` returns is moved into the caller's frame: a secret in it is the caller's to wipe, and its unused bytes,
/// such as an error's, may take along what was on the stack where it was made. An exit code or a flag has none.
/// Registers aren't wiped.
pub fn on_wiped_stack<const N: usize, T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    wipe::<N>();
    done
}

/// In a frame of its own, where [`wipe`]'s will be.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe<const N: usize>() {
    black_box([0u8; N].as_mut_slice()).zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done() {
        let mut done = 0;
        assert_eq!(on_wiped_stack::<4096, _>(|| core::mem::replace(&mut done, 7)), 0);
        assert_eq!(done, 7);
    }
}
