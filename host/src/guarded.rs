//! Keys of models that stay open, in pages of their own that core dumps leave out.

use std::marker::PhantomData;
use std::ops::Deref;

use memmap2::MmapMut;

use crate::error::{Code, Error, Result};

/// A value in pages of its own: left out of core dumps, and overwritten before they are given back. What it points to lies
/// elsewhere, so it should hold all that is secret itself.
pub(crate) struct Guarded<T> {
    map: MmapMut,
    /// It owns a `T`, which may be used from other threads if a `T` may.
    owns: PhantomData<T>,
}

impl<T> Guarded<T> {
    /// Moves `value` there. The caller wipes the stack that it comes from.
    #[allow(unsafe_code, reason = "a value is placed in mapped pages")]
    pub(crate) fn new(value: T) -> Result<Self> {
        let map = MmapMut::map_anon(size_of::<T>().max(1)).and_then(|map| {
            #[cfg(target_os = "linux")]
            map.advise(memmap2::Advice::DontDump)?;
            Ok(map)
        });
        let mut map = map.map_err(|error| {
            Error::new(Code::Io, format!("memory for the model's keys: {error}"), "raise the limit")
        })?;
        // Pages are aligned for any value but one that asks for more than a page.
        assert!(align_of::<T>() <= 4096, "a value of such alignment isn't kept here");
        // SAFETY: the mapping is writable, at least as long as a `T`, aligned to a page, and nobody else's. It never moves,
        // is unmapped only after `drop`, and is changed by nobody else meanwhile.
        unsafe { map.as_mut_ptr().cast::<T>().write(value) };
        Ok(Self { map, owns: PhantomData })
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[allow(unsafe_code, reason = "a value is in mapped pages")]
    fn deref(&self) -> &T {
        // SAFETY: `new` has put a `T` there, which lives until `drop`; there is no way to a mutable reference.
        unsafe { &*self.map.as_ptr().cast::<T>() }
    }
}

impl<T> Drop for Guarded<T> {
    #[allow(unsafe_code, reason = "a value is in mapped pages")]
    fn drop(&mut self) {
        // SAFETY: `new` has put a `T` there, which nobody can use after this, and which is dropped once.
        unsafe { self.map.as_mut_ptr().cast::<T>().drop_in_place() };
        self.map.fill(0);
        std::hint::black_box(&self.map);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_value_is_dropped_once() {
        let counted = Rc::new(7);
        let guarded = Guarded::new(Rc::clone(&counted)).unwrap();
        assert_eq!((**guarded, Rc::strong_count(&counted)), (7, 2));
        drop(guarded);
        assert_eq!(Rc::strong_count(&counted), 1);
    }

    /// The kernel says so of the pages in which it lies.
    #[cfg(target_os = "linux")]
    #[test]
    fn its_pages_are_left_out_of_core_dumps() {
        let guarded = Guarded::new([7u8; 32]).unwrap();
        let boxed = Box::new([7u8; 32]);
        assert!(is_left_out(guarded.as_ptr().addr()));
        assert!(!is_left_out(boxed.as_ptr().addr()), "the control");
    }

    #[cfg(target_os = "linux")]
    fn is_left_out(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range =
                range.map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)));
            if let Some((Ok(from), Ok(to))) = range {
                within = (from..to).contains(&address);
            }
            if within && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split_whitespace().any(|flag| flag == "dd");
            }
        }
        false
    }
}
