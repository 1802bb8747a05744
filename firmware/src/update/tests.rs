//! Updates over a line that is cut, or noisy, to a device that is told lies.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use embedded_io::ErrorKind;
use modelseal_core::grant::Validity;

use super::send::{Failure, Update as Brought};
use super::*;
use crate::load;
use crate::provision::DELIVERY_MAX;
use crate::slots::choose;
use crate::state::Slot;
use crate::storage::GRANT_BUFFER;
use crate::tests::fixture::{Fake, SECRETS, SUITES, Sealed};
use crate::tests::places::{Places, ROOM, at, granted};

/// One end of a line. It is cut after `left` more bytes, and every `noise`th byte that leaves it is damaged.
struct End {
    from: Receiver<u8>,
    to: Option<Sender<u8>>,
    left: usize,
    noise: usize,
    sent: usize,
}

fn line() -> (End, End) {
    let ((to, from), (back_to, back)) = (channel(), channel());
    let end = |from, to| End { from, to: Some(to), left: usize::MAX, noise: usize::MAX, sent: 0 };
    (end(back, to), end(from, back_to))
}

impl embedded_io::ErrorType for End {
    type Error = ErrorKind;
}

impl Read for End {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.to.is_none() {
            return Ok(0);
        }
        match self.from.recv_timeout(Duration::from_millis(200)) {
            Ok(byte) => {
                bytes[0] = byte;
                Ok(1)
            }
            Err(RecvTimeoutError::Timeout) => Err(ErrorKind::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Ok(0),
        }
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        for byte in bytes {
            if self.left == 0 {
                self.to = None;
            }
            self.left = self.left.saturating_sub(1);
            self.sent += 1;
            let damaged = if self.sent.is_multiple_of(self.noise) { byte ^ 0x40 } else { *byte };
            let Some(to) = &self.to else { return Err(ErrorKind::BrokenPipe) };
            to.send(damaged).map_err(|_| ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// A device that has confirmed version 7.
struct Bench {
    device: Fake,
    places: Places,
}

type Sent = Result<u64, Failure<ErrorKind>>;

impl Bench {
    fn new() -> Self {
        let mut bench = Self { device: Fake::new(SECRETS[0]()), places: Places::blank() };
        let sealed = Sealed::of_version(SUITES[1], 7);
        bench.places.put(Choice::FIRST, &sealed.file, &granted(&sealed, &bench.device));
        assert_eq!(bench.boot(), Ok(7));
        bench
    }

    fn boot(&mut self) -> Result<u64, Error> {
        let chosen = choose(&mut self.device, &mut self.places)?;
        let mut buffer = GRANT_BUFFER;
        let (grant, mut image) = self.places.find(chosen.choice, &mut buffer)?;
        let mut memory = [0; 4000];
        let loaded = load(&mut self.device, grant, &mut image, &mut memory)?;
        let version = loaded.version();
        chosen.confirm(loaded, &mut self.device)?;
        Ok(version)
    }

    fn update(&mut self, brought: Brought<'_>, change: impl FnOnce(&mut End, &mut End)) -> Sent {
        let (mut near, mut far) = line();
        change(&mut near, &mut far);
        let Self { device, places } = self;
        std::thread::scope(|scope| {
            let serving = scope.spawn(move || serve(device, places, far));
            let sent = send(near, &brought, |_, _| {});
            let served = serving.join().unwrap();
            assert_eq!(sent.as_ref().ok(), served.ok().as_ref());
            sent
        })
    }

    fn state(&mut self) -> State {
        self.device.state.load().unwrap()
    }
}

struct Next {
    sealed: Sealed,
    grant: Vec<u8>,
}

impl Next {
    fn new(version: u64, bench: &Bench) -> Self {
        let sealed = Sealed::of_version(SUITES[1], version);
        let grant = granted(&sealed, &bench.device);
        Self { sealed, grant }
    }

    fn brought(&self) -> Brought<'_> {
        Brought { image: Some(&self.sealed.file), grant: &self.grant }
    }
}

#[test]
fn an_update_arrives_is_tried_and_confirmed() {
    let mut bench = Bench::new();
    for version in 8..12 {
        let next = Next::new(version, &bench);
        let before = bench.state();
        assert_eq!(bench.update(next.brought(), |_, _| {}), Ok(version));
        assert_eq!(bench.state().confirmed, before.confirmed);
        assert_eq!(bench.boot(), Ok(version));
        assert_ne!(bench.state().confirmed, before.confirmed);
    }
}

/// Before anything was confirmed, a factory's model is what is fallen back to.
#[test]
fn the_first_update_can_fail_too() {
    let mut bench = Bench { device: Fake::new(SECRETS[0]()), places: Places::blank() };
    let sealed = Sealed::of_version(SUITES[1], 7);
    bench.places.put(Choice::FIRST, &sealed.file, &granted(&sealed, &bench.device));
    let next = Next::new(8, &bench);
    assert_eq!(bench.update(next.brought(), |_, _| {}), Ok(8));
    for _ in 0..TRIES {
        assert!(choose(&mut bench.device, &mut bench.places).unwrap().trial.is_some());
    }
    assert_eq!(bench.boot(), Ok(7));
}

/// So does one that needs a clock, which isn't set while the update arrives.
#[test]
fn the_first_update_can_fail_back_to_a_model_that_needs_a_clock() {
    let mut bench = Bench { device: Fake::new(SECRETS[0]()), places: Places::blank() };
    let sealed = Sealed::of_version(SUITES[1], 7);
    let validity = Some(Validity { not_before: 10, not_after: 20 });
    let grant = sealed.grant(&bench.device.secret, |terms| terms.validity = validity);
    bench.places.put(Choice::FIRST, &sealed.file, &grant);
    let next = Next::new(8, &bench);
    for now in [None, Some(5)] {
        bench.device.now = now;
        assert_eq!(bench.update(next.brought(), |_, _| {}), Ok(8));
        assert_eq!(bench.state().confirmed, Some(Choice::FIRST));
        bench.device.state.store(State::first(0)).unwrap();
    }
}

/// A factory that puts no model there leaves nothing to fall back to, and the first update has no end to its tries.
#[test]
fn the_first_update_may_be_the_first_model() {
    let mut bench = Bench { device: Fake::new(SECRETS[0]()), places: Places::blank() };
    let next = Next::new(8, &bench);
    assert_eq!(bench.update(next.brought(), |_, _| {}), Ok(8));
    assert_eq!(bench.state().confirmed, None);
    for _ in 0..=TRIES {
        assert!(choose(&mut bench.device, &mut bench.places).unwrap().trial.is_some());
    }
    assert_eq!(bench.boot(), Ok(8));
    let later = Next::new(9, &bench);
    assert_eq!(bench.update(later.brought(), |_, _| {}), Ok(9));
    assert_eq!(bench.boot(), Ok(9));
}

/// The trial that runs was replaced by another one in the same places: neither its end nor its refusal is that one's.
#[test]
fn a_trial_that_runs_is_not_the_one_that_has_just_arrived() {
    let mut bench = Bench::new();
    let (first, second) = (Next::new(8, &bench), Next::new(9, &bench));
    assert_eq!(bench.update(first.brought(), |_, _| {}), Ok(8));
    let chosen = choose(&mut bench.device, &mut bench.places).unwrap();
    let (mut buffer, mut memory) = (GRANT_BUFFER, [0; 4000]);
    let (grant, mut image) = bench.places.find(chosen.choice, &mut buffer).unwrap();
    let loaded = load(&mut bench.device, grant, &mut image, &mut memory).unwrap();
    drop(image);
    assert_eq!(bench.update(second.brought(), |_, _| {}), Ok(9));
    let arrived = bench.state();
    assert_eq!(arrived.trial, Some(Trial { choice: chosen.choice, tries: TRIES }));
    assert_eq!(chosen.refused(Error::Root, &mut bench.device), Err(Error::Root));
    assert_eq!(chosen.confirm(loaded, &mut bench.device), Err(Error::Storage));
    assert_eq!(bench.state(), arrived);
    for _ in 0..TRIES {
        assert!(choose(&mut bench.device, &mut bench.places).unwrap().trial.is_some());
    }
    assert_eq!(bench.boot(), Ok(7));
}

#[test]
fn a_new_grant_comes_alone() {
    let mut bench = Bench::new();
    let next = Next::new(8, &bench);
    assert_eq!(bench.update(next.brought(), |_, _| {}), Ok(8));
    assert_eq!(bench.boot(), Ok(8));
    let grant = granted(&next.sealed, &bench.device);
    let written = bench.places.written;
    assert_eq!(bench.update(Brought { image: None, grant: &grant }, |_, _| {}), Ok(8));
    assert!(bench.places.written - written < grant.len() + 20);
    assert_eq!(bench.boot(), Ok(8));
    assert_eq!(bench.state().confirmed, Some(at(Slot::B, Slot::A)));
}

/// Cut again and again, each time after a few more bytes: what runs stays, and what has arrived isn't sent again.
#[test]
fn an_update_that_is_cut_goes_on() {
    let mut bench = Bench::new();
    let before = bench.state();
    let next = Next::new(8, &bench);
    let mut cuts = 0;
    let version = loop {
        match bench.update(next.brought(), |near, _| near.left = 1200 + cuts) {
            Ok(version) => break version,
            Err(_) => cuts += 1,
        }
        assert_eq!(bench.state(), before);
        assert_eq!(bench.boot(), Ok(7));
    };
    assert_eq!(version, 8);
    let whole = next.sealed.file.len() + next.grant.len() + 20;
    assert!(cuts >= 4 && bench.places.written < whole + cuts * 1024, "{cuts} {}", bench.places.written);
    assert_eq!(bench.boot(), Ok(8));
}

#[test]
fn every_cut_leaves_the_old_model_or_a_trial() {
    let mut cuts = 0;
    for left in (0..).step_by(61) {
        let mut bench = Bench::new();
        let next = Next::new(8, &bench);
        let outcome = bench.update(next.brought(), |near, _| near.left = left);
        let expected = if bench.state().trial.is_some() { 8 } else { 7 };
        assert_eq!(bench.boot(), Ok(expected), "cut after {left} bytes");
        if outcome.is_ok() {
            break;
        }
        cuts += 1;
    }
    println!("{cuts} cuts of an update");
    assert!(cuts > 50);
}

#[test]
fn noise_is_overcome() {
    let mut bench = Bench::new();
    let next = Next::new(8, &bench);
    let noisy = |near: &mut End, far: &mut End| (near.noise, far.noise) = (997, 61);
    assert_eq!(bench.update(next.brought(), noisy), Ok(8));
    assert_eq!(bench.boot(), Ok(8));
}

#[test]
fn what_does_not_verify_is_refused_and_replaces_nothing() {
    let mut bench = Bench::new();
    let before = bench.state();
    let next = Next::new(8, &bench);
    let mut refused = |image: &[u8], grant: &[u8], error: Error| {
        let brought = Brought { image: Some(image), grant };
        assert_eq!(bench.update(brought, |_, _| {}), Err(Failure::Refused(error.code())));
        assert_eq!(bench.state(), before);
        assert_eq!(bench.boot(), Ok(7));
    };
    let mut changed = next.sealed.file.clone();
    *changed.last_mut().unwrap() ^= 1;
    refused(&changed, &next.grant, Error::Root);
    refused(&next.sealed.file[..3000], &next.grant, Error::Truncated);
    refused(&[&next.sealed.file[..], &[0]].concat(), &next.grant, Error::Extended);
    let older = Next::new(5, &Bench::new());
    refused(&older.sealed.file, &older.grant, Error::RolledBack);
    let other = Sealed::of_version(SUITES[1], 8);
    refused(&other.file, &next.grant, Error::OtherModel);
    refused(&next.sealed.file, &[0; 99], Error::ForeignMagic);
    refused(&[1; ROOM + 1], &next.grant, Error::Memory);
    refused(&[], &next.grant, Error::Truncated);
    let brought = Brought { image: None, grant: &[1; DELIVERY_MAX] };
    assert_eq!(bench.update(brought, |near, _| near.left = 100), Err(Failure::Grant));
}

/// An update drops a trial before it writes into its place.
#[test]
fn an_update_replaces_one_that_is_pending() {
    let mut bench = Bench::new();
    let (first, second) = (Next::new(8, &bench), Next::new(9, &bench));
    assert_eq!(bench.update(first.brought(), |_, _| {}), Ok(8));
    assert!(bench.state().trial.is_some());
    assert!(bench.update(second.brought(), |near, _| near.left = 2000).is_err());
    assert_eq!(bench.state().trial, None);
    assert_eq!(bench.boot(), Ok(7));
    assert_eq!(bench.update(second.brought(), |_, _| {}), Ok(9));
    assert_eq!(bench.boot(), Ok(9));
}

#[test]
fn a_sender_out_of_turn_is_refused() {
    let mut bench = Bench::new();
    let mut update = None;
    let mut say =
        |update: &mut Option<Update>, request| answer(&mut bench.device, &mut bench.places, update, request);
    let storage = Answer::Refused { code: Error::Storage.code() };
    assert_eq!(say(&mut update, Request::Finish), storage);
    let ready = say(&mut update, Request::Begin { image: None });
    assert!(matches!(ready, Answer::Ready { block: 1024, image: 3500.. }), "{ready:?}");
    let block = |part, offset| Request::Block { part, offset, len: 100, hash: [0; 32] };
    // Of the image there was no talk.
    assert_eq!(say(&mut update, block(Part::Image, 0)), storage);
    assert_eq!(say(&mut update, block(Part::Delivery, 1)), storage);
    assert_eq!(say(&mut update, block(Part::Delivery, 2048)), storage);
    assert_eq!(say(&mut update, block(Part::Delivery, u32::MAX - 1023)), storage);
    assert_eq!(say(&mut update, block(Part::Delivery, 0)), Answer::Differs);
    let piece = |offset, bytes| Request::Piece { part: Part::Delivery, offset, bytes };
    assert_eq!(say(&mut update, piece(2000, &[0; 83])), storage);
    assert_eq!(say(&mut update, piece(u32::MAX, &[0; 11])), storage);
    assert_eq!(say(&mut update, piece(0, &[0; 257])), storage);
    assert_eq!(say(&mut update, piece(88, &[0; 10])), Answer::Taken);
    // A piece whose answer was lost.
    assert_eq!(say(&mut update, piece(88, &[0; 10])), Answer::Taken);
}
