//! Work on several threads: in any order, or with what comes of it taken in order.
//!
//! ```text
//! at_once    feed, in order ─▶ work, on each thread
//! in_order   feed, in order ─▶ work, on each thread ─▶ take, in order
//! ```
//!
//! A place is what one piece of work needs: places are made once and used again, so memory is bounded by their number.
//! Whatever goes wrong first, by the order of the pieces, is the error, however many threads there are.
//!
//! Secrets on the threads' stacks are wiped. Nothing but what a place owns moves from thread to thread, for a move copies
//! what was on the stack in unused bytes, too.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use modelseal_hsm::wiped::wiped;

use crate::error::{Code, Error, Result};
use crate::seal::Progress;

/// More threads than this only wait for memory.
const THREADS_MAX: usize = 256;

/// How many threads work: as many as `MODELSEAL_THREADS` says, or as there are processors for this process.
pub fn threads() -> Result<usize> {
    let Some(number) = std::env::var_os("MODELSEAL_THREADS").filter(|number| !number.is_empty()) else {
        static PROCESSORS: OnceLock<usize> = OnceLock::new();
        // Asking takes reading a dozen files.
        let processors = || thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        return Ok(*PROCESSORS.get_or_init(processors));
    };
    let parsed = number.to_str().and_then(|number| number.parse().ok());
    parsed.filter(|number| (1..=THREADS_MAX).contains(number)).ok_or_else(|| {
        let what = format!("MODELSEAL_THREADS is {number:?}, which isn't a number of threads");
        Error::usage(what, format!("set it to 1 to {THREADS_MAX}"))
    })
}

/// Works on `threads` threads, of which the caller's is one, until `feed` says that nothing is left. `work` gives the
/// number of bytes done.
pub(crate) fn at_once<P>(
    threads: usize,
    place: impl Fn() -> Result<P> + Sync,
    feed: impl FnMut(&mut P) -> Result<bool> + Send,
    work: impl Fn(&mut P) -> Result<u64> + Sync,
    progress: Progress<'_>,
) -> Result<()> {
    let source = Mutex::new((feed, 0u64));
    let (first, done) = (First::new(), AtomicU64::new(0));
    let one = |progress: &mut dyn FnMut(u64)| {
        let mut place = match place() {
            Ok(place) => place,
            Err(error) => return first.failed(0, error),
        };
        while !first.has_failed() {
            let number = {
                let (feed, next) = &mut *lock(&source);
                let number = *next;
                *next += 1;
                match feed(&mut place) {
                    Ok(true) => number,
                    Ok(false) => return,
                    Err(error) => return first.failed(number, error),
                }
            };
            match work(&mut place) {
                Ok(bytes) => progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes),
                Err(error) => return first.failed(number, error),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without it, there are fewer.
            let _ = thread::Builder::new().spawn_scoped(scope, || wiped(|| one(&mut |_| ())));
        }
        one(progress);
    });
    first.into_result()?;
    progress(done.into_inner());
    Ok(())
}

/// The same with what comes of each piece taken in order, by the caller's thread, which also feeds. As many pieces are
/// in work as there are `places`.
pub(crate) fn in_order<P: Send>(
    threads: usize,
    places: Vec<P>,
    mut feed: impl FnMut(&mut P) -> Result<bool>,
    work: impl Fn(&mut P) -> Result<()> + Sync,
    mut take: impl FnMut(&mut P) -> Result<()>,
) -> Result<()> {
    let places: Vec<_> = places.into_iter().map(Place::new).collect();
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let one = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(place) = nth(&places, number) else { return };
        let mut inside =
            place.wait(|inside| inside.stage == Stage::Fed(number) || over.load(Ordering::Relaxed));
        if inside.stage != Stage::Fed(number) {
            return;
        }
        // Others wait for this place only, so it may be held.
        let worked = catch_unwind(AssertUnwindSafe(|| work(&mut inside.piece)));
        inside.failed = match &worked {
            Ok(worked) => worked.as_ref().err().cloned(),
            Err(_) => {
                let hint = "report it: it is a mistake of modelseal's";
                Some(Error::new(Code::Other, "a thread ended before its work", hint))
            }
        };
        inside.stage = Stage::Done;
        place.changed.notify_all();
        drop(inside);
        if let Err(unwinding) = worked {
            resume_unwind(unwinding);
        }
    };
    thread::scope(|scope| {
        // One alone does everything in turn.
        let workers = (0..if threads > 1 { threads } else { 0 })
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, || wiped(one)).ok())
            .count();
        let _end = End { places: &places, over: &over };
        carry(&places, workers > 0, &mut feed, &work, &mut take)
    })
}

/// Has the workers end when it is dropped, also by a callback that unwinds.
struct End<'p, P> {
    places: &'p [Place<P>],
    over: &'p AtomicBool,
}

impl<P> Drop for End<'_, P> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for place in self.places {
            // Under the lock, so that nobody is about to wait.
            let _inside = lock(&place.inside);
            place.changed.notify_all();
        }
    }
}

/// Feeds the places, one after the other, and takes from each before it is fed again.
fn carry<P>(
    places: &[Place<P>],
    workers: bool,
    feed: &mut impl FnMut(&mut P) -> Result<bool>,
    work: &impl Fn(&mut P) -> Result<()>,
    take: &mut impl FnMut(&mut P) -> Result<()>,
) -> Result<()> {
    let mut taken = |place: &Place<P>| -> Result<()> {
        let mut inside = place.wait(|inside| !matches!(inside.stage, Stage::Fed(_)));
        if inside.stage == Stage::Empty {
            return Ok(());
        }
        inside.stage = Stage::Empty;
        match inside.failed.take() {
            Some(error) => Err(error),
            None => take(&mut inside.piece),
        }
    };
    let mut fed = 0;
    while let Some(place) = nth(places, fed) {
        taken(place)?;
        let mut inside = lock(&place.inside);
        match feed(&mut inside.piece) {
            Ok(true) if workers => inside.stage = Stage::Fed(fed),
            Ok(true) => {
                inside.failed = work(&mut inside.piece).err();
                inside.stage = Stage::Done;
            }
            Ok(false) => break,
            Err(error) => {
                drop(inside);
                // What came before it may have failed, too.
                rest(places, fed).try_for_each(&mut taken)?;
                return Err(error);
            }
        }
        place.changed.notify_all();
        fed += 1;
    }
    rest(places, fed).try_for_each(taken)
}

/// The places that are still to be taken from, the oldest first, once `fed` pieces were fed.
fn rest<P>(places: &[Place<P>], fed: u64) -> impl Iterator<Item = &Place<P>> {
    let oldest = fed.saturating_sub(places.len() as u64);
    (oldest..fed).filter_map(|number| nth(places, number))
}

fn nth<P>(places: &[Place<P>], number: u64) -> Option<&Place<P>> {
    let number = number.checked_rem(places.len() as u64)?;
    places.get(usize::try_from(number).ok()?)
}

/// Where one piece after the other is worked on.
struct Place<P> {
    inside: Mutex<Inside<P>>,
    changed: Condvar,
}

struct Inside<P> {
    stage: Stage,
    piece: P,
    failed: Option<Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Empty,
    /// With the piece of this number.
    Fed(u64),
    Done,
}

impl<P> Place<P> {
    fn new(piece: P) -> Self {
        let inside = Inside { stage: Stage::Empty, piece, failed: None };
        Self { inside: Mutex::new(inside), changed: Condvar::new() }
    }

    fn wait(&self, until: impl Fn(&Inside<P>) -> bool) -> MutexGuard<'_, Inside<P>> {
        let waited = self.changed.wait_while(lock(&self.inside), |inside| !until(inside));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of the first piece that failed. All before it were given out, and are finished.
struct First {
    any: AtomicBool,
    first: Mutex<Option<(u64, Error)>>,
}

impl First {
    fn new() -> Self {
        Self { any: AtomicBool::new(false), first: Mutex::new(None) }
    }

    fn failed(&self, number: u64, error: Error) {
        let mut first = lock(&self.first);
        if first.as_ref().is_none_or(|(other, _)| number < *other) {
            *first = Some((number, error));
        }
        self.any.store(true, Ordering::Relaxed);
    }

    fn has_failed(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn into_result(self) -> Result<()> {
        match self.first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn numbers(until: u64) -> impl FnMut(&mut u64) -> Result<bool> + Send {
        let mut next = 0..until;
        move |place| Ok(next.next().map(|number| *place = number).is_some())
    }

    fn failing(at: &[u64]) -> impl Fn(&mut u64) -> Result<()> + Sync {
        move |number| match at.contains(number) {
            true => Err(Error::new(Code::Other, number.to_string(), "")),
            false => Ok(()),
        }
    }

    #[test]
    fn everything_is_done_once_and_progress_only_grows() {
        for threads in [1, 2, 5] {
            let (mut last, sum) = (0, AtomicU64::new(0));
            let work = |number: &mut u64| {
                sum.fetch_add(*number, Ordering::Relaxed);
                Ok(1)
            };
            let mut progress = |done| {
                assert!(done >= last);
                last = done;
            };
            at_once(threads, || Ok(0), numbers(1000), work, &mut progress).unwrap();
            assert_eq!((last, sum.into_inner()), (1000, 499_500));
        }
    }

    #[test]
    fn what_is_taken_is_in_order() {
        for threads in [0, 1, 2, 5] {
            for places in [1, 2, 7] {
                let mut taken = Vec::new();
                let work = |number: &mut u64| {
                    *number *= 2;
                    Ok(())
                };
                let take = |number: &mut u64| {
                    taken.push(*number);
                    Ok(())
                };
                in_order(threads, vec![0; places], numbers(100), work, take).unwrap();
                assert_eq!(taken, (0..100).map(|n| 2 * n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_first_failure_is_told() {
        for _ in 0..200 {
            let mut taken = 0;
            let take = |_: &mut u64| {
                taken += 1;
                Ok(())
            };
            let failed = in_order(3, vec![0; 4], numbers(100), failing(&[41, 42, 43]), take);
            assert_eq!((failed.unwrap_err().what(), taken), ("41", 41));
            let work = |number: &mut u64| failing(&[41, 42, 43])(number).map(|()| 1);
            let failed = at_once(3, || Ok(0), numbers(100), work, &mut |_| ());
            assert_eq!(failed.unwrap_err().what(), "41");
        }
    }

    #[test]
    fn a_feed_that_fails_comes_after_what_it_fed() {
        let feed = || {
            let mut numbers = numbers(5);
            move |place: &mut u64| match numbers(place)? {
                true => Ok(true),
                false => Err(Error::new(Code::Other, "feed", "")),
            }
        };
        let mut taken = 0;
        let take = |_: &mut u64| {
            taken += 1;
            Ok(())
        };
        assert_eq!(in_order(2, vec![0; 3], feed(), failing(&[]), take).unwrap_err().what(), "feed");
        assert_eq!(taken, 5);
        let failed = in_order(2, vec![0; 3], feed(), failing(&[4]), |_| Ok(()));
        assert_eq!(failed.unwrap_err().what(), "4");
    }

    #[test]
    fn a_take_that_unwinds_ends_it() {
        let take = |_: &mut u64| std::panic::resume_unwind(Box::new("interrupted"));
        let work = || in_order(3, vec![0; 4], numbers(100), failing(&[]), take);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }

    #[test]
    fn work_that_unwinds_ends_it() {
        let work = |number: &mut u64| match *number {
            41 => resume_unwind(Box::new("a mistake")),
            _ => Ok(()),
        };
        let all = || in_order(3, vec![0; 4], numbers(100), work, |_| Ok(()));
        assert!(catch_unwind(AssertUnwindSafe(all)).is_err());
    }

    #[test]
    fn a_failing_take_ends_it() {
        let failed = in_order(2, vec![0; 3], numbers(1000), failing(&[]), failing(&[7]));
        assert_eq!(failed.unwrap_err().what(), "7");
    }
}
