//! What boots, boot after boot.

use modelseal_core::grant::Validity;
use modelseal_core::keys::Secret;

use super::*;
use crate::load;
use crate::state::{Slot, TRIES};
use crate::tests::fixture::{Fake, SECRETS, SUITES, Sealed};
use crate::tests::places::{Places, at, granted};

const A: Choice = Choice::FIRST;
const B: Choice = Choice { image: Slot::B, grant: Slot::B };

/// One boot from storage: the version that opened. `confirms` is whether the application gets that far.
fn boot(device: &mut Fake, places: &mut Places, confirms: bool) -> Result<u64, Error> {
    let mut chosen = choose(device, places)?;
    let mut memory = [0; 4000];
    let loaded = match open(device, places, chosen, &mut memory) {
        Ok(loaded) => loaded,
        Err(error) => {
            chosen = chosen.refused(error, device)?;
            open(device, places, chosen, &mut memory)?
        }
    };
    let version = loaded.version();
    if confirms {
        chosen.confirm(loaded, device)?;
    }
    Ok(version)
}

fn open<'m>(
    device: &mut Fake,
    places: &mut Places,
    chosen: Chosen,
    memory: &'m mut [u8],
) -> Result<Loaded<'m>, Error> {
    let mut buffer = GRANT_BUFFER;
    let (grant, mut image) = places.find(chosen.choice, &mut buffer)?;
    load(device, grant, &mut image, memory)
}

/// A device that has confirmed version 7 and has version `next` in the other place, to be tried.
fn updated(next: u64, change: impl FnOnce(&mut Places)) -> (Fake, Places) {
    let secret: fn() -> Secret = SECRETS[0];
    let mut device = Fake::new(secret());
    let mut places = Places::blank();
    let [old, new] = [7, next].map(|version| Sealed::of_version(SUITES[1], version));
    places.put(A, &old.file, &granted(&old, &device));
    assert_eq!(boot(&mut device, &mut places, true), Ok(7));
    places.put(B, &new.file, &granted(&new, &device));
    change(&mut places);
    let state = device.state.load().unwrap();
    device.state.store(State { trial: Some(Trial { choice: B, tries: TRIES }), ..state }).unwrap();
    (device, places)
}

#[test]
fn a_factory_model_is_tried_until_it_is_confirmed() {
    let mut device = Fake::new(SECRETS[0]());
    let mut places = Places::blank();
    assert_eq!(boot(&mut device, &mut places, true), Err(Error::Storage));
    let sealed = Sealed::new(SUITES[1]);
    places.put(A, &sealed.file, &granted(&sealed, &device));
    for _ in 0..TRIES + 2 {
        assert_eq!(boot(&mut device, &mut places, false), Ok(7));
    }
    assert_eq!(device.state.load().unwrap().confirmed, None);
    assert_eq!(boot(&mut device, &mut places, true), Ok(7));
    assert_eq!(device.state.load(), Ok(State { floor: 6, confirmed: Some(A), trial: None }));
}

/// There is nothing to fall back to, and an update may be what mends it.
#[test]
fn a_factory_model_that_is_refused_stays_a_trial() {
    let mut device = Fake::new(SECRETS[0]());
    let mut places = Places::blank();
    let sealed = Sealed::new(SUITES[1]);
    places.put(A, &sealed.file, &granted(&sealed, &device));
    places.images[0][0] ^= 1;
    let before = device.state.load();
    for _ in 0..TRIES + 2 {
        assert_eq!(boot(&mut device, &mut places, true), Err(Error::ForeignMagic));
    }
    assert_eq!(device.state.load(), before);
}

#[test]
fn a_confirmed_update_stays() {
    let (mut device, mut places) = updated(8, |_| {});
    assert_eq!(boot(&mut device, &mut places, false), Ok(8));
    assert_eq!(boot(&mut device, &mut places, true), Ok(8));
    let state = device.state.load().unwrap();
    assert_eq!((state.confirmed, state.trial), (Some(B), None));
    assert_eq!(boot(&mut device, &mut places, false), Ok(8));
}

#[test]
fn an_update_that_is_never_confirmed_falls_back() {
    let (mut device, mut places) = updated(8, |_| {});
    for _ in 0..TRIES {
        assert_eq!(boot(&mut device, &mut places, false), Ok(8));
    }
    for _ in 0..2 {
        assert_eq!(boot(&mut device, &mut places, false), Ok(7));
    }
    assert_eq!(device.state.load(), Ok(State { floor: 6, confirmed: Some(A), trial: None }));
}

#[test]
fn an_update_that_is_refused_falls_back_at_once() {
    let changes: [fn(&mut Places); 4] = [
        |places| places.images[1][0] ^= 1,
        |places| places.images[1][3000] ^= 1,
        |places| places.deliveries[1][60] ^= 1,
        |places| places.images[1] = places.images[0].clone(),
    ];
    for change in changes {
        let (mut device, mut places) = updated(8, change);
        assert_eq!(boot(&mut device, &mut places, false), Ok(7));
        assert_eq!(device.state.load().unwrap().trial, None);
    }
    // A version below the floor is no update.
    let (mut device, mut places) = updated(6, |_| {});
    let state = device.state.load().unwrap();
    device.state.store(State { floor: 7, ..state }).unwrap();
    assert_eq!(boot(&mut device, &mut places, false), Ok(7));
}

/// What is found out only when the model is opened.
#[test]
fn an_update_whose_tags_are_wrong_falls_back_at_once() {
    let index = usize::try_from(Sealed::of_version(SUITES[1], 8).layout.index).unwrap();
    let (mut device, mut places) = updated(8, |places| places.images[1][index] ^= 1);
    assert_eq!(boot(&mut device, &mut places, false), Ok(7));
    assert_eq!(device.state.load().unwrap().trial, None);
    // What was confirmed isn't given up.
    places.images[0][index] ^= 1;
    let before = device.state.load();
    assert_eq!(boot(&mut device, &mut places, false), Err(Error::Chunk));
    assert_eq!(device.state.load(), before);
}

#[test]
fn an_update_without_a_clock_waits_for_one() {
    let (mut device, mut places) = updated(8, |_| {});
    let new = Sealed::of_version(SUITES[1], 8);
    let validity = Some(Validity { not_before: 10, not_after: 20 });
    places.put(B, &new.file, &new.grant(&device.secret, |terms| terms.validity = validity));
    for now in [None, Some(5)] {
        device.now = now;
        assert_eq!(boot(&mut device, &mut places, true), Ok(7));
    }
    device.now = Some(15);
    assert_eq!(boot(&mut device, &mut places, true), Ok(8));
}

#[test]
fn storage_that_does_not_answer_costs_one_try() {
    let (mut device, mut places) = updated(8, |places| places.deliveries[1].fill(0xff));
    assert_eq!(boot(&mut device, &mut places, true), Ok(7));
    assert_eq!(device.state.load().unwrap().trial, Some(Trial { choice: B, tries: TRIES - 1 }));
}

/// Whatever the other place's flash can't read, what is confirmed boots.
#[test]
fn a_place_that_can_not_be_read_stops_nothing() {
    for tries in [Some(TRIES), Some(0), None] {
        let (mut device, mut places) = updated(8, |places| places.cannot_read(Slot::B));
        let state = device.state.load().unwrap();
        let trial = tries.map(|tries| Trial { choice: B, tries });
        device.state.store(State { trial, ..state }).unwrap();
        for _ in 0..=TRIES + 1 {
            assert_eq!(boot(&mut device, &mut places, true), Ok(7));
        }
        assert_eq!(device.state.load().unwrap().trial, None);
    }
}

/// Where a try can't be paid for, or a trial not given up, what is confirmed boots all the same.
#[test]
fn a_state_that_takes_no_store_does_not_keep_the_device_from_booting() {
    for (tries, rotten) in [(TRIES, false), (TRIES, true), (0, false)] {
        let (mut device, mut places) = updated(8, |places| places.images[1][0] ^= u8::from(rotten));
        let state = device.state.load().unwrap();
        device.state.store(State { trial: Some(Trial { choice: B, tries }), ..state }).unwrap();
        device.power.reads_only();
        for _ in 0..TRIES + 2 {
            assert_eq!(boot(&mut device, &mut places, false), Ok(7));
        }
    }
}

/// An update that begins while a trial runs gives the trial up, and writes over it.
#[test]
fn a_trial_that_was_given_up_meanwhile_is_not_confirmed() {
    let (mut device, mut places) = updated(8, |_| {});
    let chosen = choose(&mut device, &mut places).unwrap();
    assert_eq!(chosen, Chosen { choice: B, trial: Some(Trial { choice: B, tries: TRIES - 1 }) });
    let mut buffer = GRANT_BUFFER;
    let (grant, mut image) = places.find(B, &mut buffer).unwrap();
    let mut memory = [0; 4000];
    let loaded = load(&mut device, grant, &mut image, &mut memory).unwrap();
    let state = State { trial: None, ..device.state.load().unwrap() };
    device.state.store(state).unwrap();
    assert_eq!(chosen.confirm(loaded, &mut device).err(), Some(Error::Storage));
    assert_eq!(device.state.load(), Ok(state));
    assert_eq!(memory, [0; 4000]);
}

#[test]
fn what_is_fallen_back_to_is_held_to_the_floor() {
    let (mut device, mut places) = updated(8, |places| places.images[1][0] ^= 1);
    let state = device.state.load().unwrap();
    device.state.store(State { floor: 8, ..state }).unwrap();
    assert_eq!(boot(&mut device, &mut places, false), Err(Error::RolledBack));
}

/// The confirmed grant is replaced, its image stays.
#[test]
fn image_and_grant_are_chosen_apart() {
    let (mut device, mut places) = updated(8, |_| {});
    assert_eq!(boot(&mut device, &mut places, true), Ok(8));
    let new = Sealed::of_version(SUITES[1], 8);
    places.put(at(Slot::B, Slot::A), &new.file, &granted(&new, &device));
    let state = device.state.load().unwrap();
    let trial = Some(Trial { choice: at(Slot::B, Slot::A), tries: 1 });
    device.state.store(State { trial, ..state }).unwrap();
    assert_eq!(boot(&mut device, &mut places, true), Ok(8));
    assert_eq!(device.state.load().unwrap().confirmed, Some(at(Slot::B, Slot::A)));
}

#[test]
fn what_would_not_boot_does_not_verify() {
    let (mut device, mut places) = updated(8, |_| {});
    assert_eq!(verify(&mut device, &mut places, B), Ok(8));
    assert_eq!(verify(&mut device, &mut places, at(Slot::A, Slot::B)), Err(Error::OtherModel));
    let last = places.images[1].iter().rposition(|byte| *byte != 0xff).unwrap();
    for byte in (0..last).step_by(97) {
        let mut changed = places.clone();
        changed.images[1][byte] ^= 1;
        let verified = verify(&mut device, &mut changed, B);
        let mut buffer = GRANT_BUFFER;
        let (grant, mut image) = changed.find(B, &mut buffer).unwrap();
        let loaded = load(&mut device, grant, &mut image, &mut [0; 4000]).map(|loaded| loaded.version());
        // But for tags, which the root makes redundant.
        match (verified, loaded) {
            (Err(Error::Root), Err(Error::Chunk)) | (Ok(8), Err(Error::Chunk)) => {}
            (verified, loaded) => assert_eq!(verified, loaded, "byte {byte}"),
        }
    }
}
