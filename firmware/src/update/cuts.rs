//! Power that is cut at every step of writing and erasing, in everything that a device does with an update: what is
//! confirmed still boots, or what came after it, and the same once more brings it to its end.

use super::*;
use crate::boot::Loaded;
use crate::load;
use crate::slots::{Chosen, choose};
use crate::state::Slot;
use crate::tests::fixture::{Fake, SECRETS, SUITES, Sealed};
use crate::tests::places::{Places, at, granted};

const OLD: u64 = 7;
const NEW: u64 = 8;

/// A device, its storage, and what is brought to it.
struct Bench<const WORD: usize = 8> {
    device: Fake,
    places: Places<WORD>,
    image: Vec<u8>,
    grant: Vec<u8>,
    /// Boots of a trial.
    tried: u8,
}

impl Bench {
    fn new() -> Self {
        Self::of_words()
    }
}

impl<const WORD: usize> Bench<WORD> {
    /// That has confirmed the old version.
    fn of_words() -> Self {
        let device = Fake::new(SECRETS[0]());
        let places = Places { power: device.power.clone(), ..Places::of_words() };
        let [old, new] = [OLD, NEW].map(|version| Sealed::of_version(SUITES[1], version));
        let grant = granted(&new, &device);
        let mut bench = Self { device, places, image: new.file, grant, tried: 0 };
        let grant = granted(&old, &bench.device);
        bench.places.put(Choice::FIRST, &old.file, &grant);
        assert_eq!(bench.boot(confirms), Ok(OLD));
        bench.tried = 0;
        bench
    }

    /// Everything that a sender asks for, one request after the other.
    fn update(&mut self, with_image: bool) -> Result<(), Error> {
        let mut update = None;
        let image = self.image.clone();
        let len = u32::try_from(image.len()).unwrap();
        self.ask(&mut update, Request::Begin { image: with_image.then_some(len) })?;
        let delivery = crate::provision::Delivery { sealed_len: image.len() as u64, grant: &self.grant };
        let delivery = delivery.encode(&mut GRANT_BUFFER.clone()).unwrap().to_vec();
        let image = if with_image { &image[..] } else { &[] };
        for (part, bytes) in [(Part::Image, image), (Part::Delivery, &delivery)] {
            for (n, block) in bytes.chunks(1024).enumerate() {
                let (offset, len) = (u32::try_from(1024 * n).unwrap(), u32::try_from(block.len()).unwrap());
                let hash = blake3::hash(block).into();
                if self.ask(&mut update, Request::Block { part, offset, len, hash })? == Answer::Same {
                    continue;
                }
                for (n, bytes) in block.chunks(PIECE_MAX).enumerate() {
                    let offset = offset + u32::try_from(PIECE_MAX * n).unwrap();
                    self.ask(&mut update, Request::Piece { part, offset, bytes })?;
                }
            }
        }
        self.ask(&mut update, Request::Finish).map(|_| ())
    }

    fn ask(&mut self, update: &mut Option<Update>, request: Request<'_>) -> Result<Answer, Error> {
        match answer(&mut self.device, &mut self.places, update, request) {
            Answer::Refused { code } => {
                Err(Error::ALL.into_iter().find(|error| error.code() == code).unwrap())
            }
            answer => Ok(answer),
        }
    }

    /// What opened.
    fn boot(&mut self, then: Then) -> Result<u64, Error> {
        let chosen = choose(&mut self.device, &mut self.places)?;
        self.tried += u8::from(chosen.trial.is_some());
        let mut buffer = GRANT_BUFFER;
        let (grant, mut image) = self.places.find(chosen.choice, &mut buffer)?;
        let mut memory = [0; 4000];
        let loaded = load(&mut self.device, grant, &mut image, &mut memory)?;
        let version = loaded.version();
        then(chosen, loaded, &mut self.device)?;
        Ok(version)
    }
}

/// What an application does with its model.
type Then = fn(Chosen, Loaded<'_>, &mut Fake) -> Result<(), Error>;

fn confirms(chosen: Chosen, loaded: Loaded<'_>, device: &mut Fake) -> Result<(), Error> {
    chosen.confirm(loaded, device).map(|_| ())
}

fn crashes(_: Chosen, _: Loaded<'_>, _: &mut Fake) -> Result<(), Error> {
    Ok(())
}

fn refuses(chosen: Chosen, _: Loaded<'_>, device: &mut Fake) -> Result<(), Error> {
    chosen.refused(Error::Chunk, device).and(Err(Error::Chunk))
}

/// Does it with power for one more step each time, until it lasts; and looks each time at what is there when power
/// comes back. Gives how many cuts there were.
fn cut_everywhere<const WORD: usize>(
    ready: impl Fn() -> Bench<WORD>,
    act: impl Fn(&mut Bench<WORD>) -> Result<(), Error>,
    look: impl Fn(&mut Bench<WORD>, bool),
) -> usize {
    for steps in 1.. {
        let mut bench = ready();
        bench.device.power.lasts(steps);
        let done = act(&mut bench).is_ok();
        let was_cut = bench.device.power.require().is_err();
        bench.device.power.lasts(usize::MAX);
        assert!(done || was_cut, "it failed with power, after {steps} steps");
        look(&mut bench, done);
        if !was_cut {
            assert!(done);
            return steps - 1;
        }
    }
    unreachable!()
}

fn floor(device: &mut Fake) -> u64 {
    device.state.load().unwrap().floor
}

/// Cuts an update at every step up to its confirmation, in flash of such words. Gives how many cuts there were.
fn an_update<const WORD: usize>(reads_erased: bool) -> usize {
    let ready = || {
        let mut bench = Bench::<WORD>::of_words();
        if !reads_erased {
            bench.places.cannot_read_erased();
        }
        bench
    };
    let whole = |bench: &mut Bench<WORD>| {
        bench.update(true)?;
        bench.boot(confirms).map(|_| ())
    };
    let look = |bench: &mut Bench<WORD>, done: bool| {
        let floor_before = floor(&mut bench.device);
        let found = bench.boot(crashes).unwrap();
        assert!(found == NEW || found == OLD && !done, "{found}");
        assert_eq!(floor(&mut bench.device), floor_before);
        // Once more, from the beginning, and the update is there.
        bench.update(true).unwrap();
        assert_eq!(bench.boot(confirms), Ok(NEW));
        assert_eq!(bench.boot(crashes), Ok(NEW));
    };
    cut_everywhere(ready, whole, look)
}

#[test]
fn an_update_that_is_taken_tried_and_confirmed() {
    let cuts = an_update::<8>(true);
    assert!(cuts > 200, "{cuts}");
    assert_eq!(an_update::<8>(false), cuts);
    println!("{cuts} cuts of an update that is confirmed");
}

/// What the last word of the image has too few is 0xff, and readers get neither more nor less than what was brought.
fn padded<const WORD: usize>() {
    let mut bench = Bench::<WORD>::of_words();
    bench.update(true).unwrap();
    let (places, image) = (&mut bench.places, &bench.image);
    let mut buffer = GRANT_BUFFER;
    let (_, stored) = places.find(at(Slot::B, Slot::B), &mut buffer).unwrap();
    assert_eq!(stored.capacity(), image.len());
    drop(stored);
    let (written, rest) = places.images[1].split_at(image.len());
    assert!(written == image && rest.iter().all(|byte| *byte == 0xff));
    assert_eq!(bench.boot(confirms), Ok(NEW));
}

/// In flash whose driver takes nothing but whole words.
#[test]
fn an_update_in_words_of_every_length() {
    padded::<1>();
    padded::<2>();
    padded::<4>();
    padded::<8>();
    padded::<16>();
    padded::<32>();
    an_update::<32>(false);
}

/// What is confirmed may be what can't be read any more. An update with an image mends that as well.
#[test]
fn an_update_beside_what_can_not_be_read() {
    let mut bench = Bench::new();
    bench.places.cannot_read(Slot::A);
    assert_eq!(bench.boot(confirms), Err(Error::Storage));
    assert_eq!(bench.update(false), Err(Error::Storage));
    bench.update(true).unwrap();
    assert_eq!(bench.boot(confirms), Ok(NEW));
}

#[test]
fn a_new_grant_alone() {
    let ready = || {
        let mut bench = Bench::new();
        bench.update(true).unwrap();
        assert_eq!(bench.boot(confirms), Ok(NEW));
        bench
    };
    let whole = |bench: &mut Bench| {
        bench.update(false)?;
        bench.boot(confirms).map(|_| ())
    };
    let cuts = cut_everywhere(ready, whole, |bench, _| {
        assert_eq!(bench.boot(confirms), Ok(NEW));
        bench.update(false).unwrap();
        assert_eq!(bench.boot(confirms), Ok(NEW));
    });
    assert!(cuts > 150, "{cuts}");
    println!("{cuts} cuts of a grant that is confirmed");
}

#[test]
fn a_trial_that_crashes_until_it_is_given_up() {
    let ready = || {
        let mut bench = Bench::new();
        bench.update(true).unwrap();
        bench
    };
    let whole = |bench: &mut Bench| {
        for _ in 0..TRIES {
            bench.boot(crashes)?;
        }
        bench.boot(confirms).map(|_| ())
    };
    let cuts = cut_everywhere(ready, whole, |bench, done| {
        for _ in 0..=TRIES {
            bench.boot(crashes).unwrap();
        }
        // Never more tries than it was given, and in the end the old one boots.
        assert!(bench.tried <= TRIES, "{}", bench.tried);
        assert!(!done || bench.tried == TRIES);
        assert_eq!(bench.boot(crashes), Ok(OLD));
    });
    assert!(cuts > 200, "{cuts}");
    println!("{cuts} cuts of a trial that crashes");
}

#[test]
fn a_trial_that_does_not_open() {
    let ready = || {
        let mut bench = Bench::new();
        bench.update(true).unwrap();
        bench
    };
    let refused = |bench: &mut Bench| match bench.boot(refuses) {
        // What to open instead is said even if it can't be stored that the trial is given up.
        Err(Error::Chunk) => bench.device.power.require(),
        other => other.map(|_| ()),
    };
    let cuts = cut_everywhere(ready, refused, |bench, done| {
        let found = bench.boot(crashes).unwrap();
        assert!(found == OLD || found == NEW && !done, "{found}");
    });
    assert!(cuts > 100, "{cuts}");
    // And one that choosing finds rotten.
    let rotten = || {
        let mut bench = ready();
        let state = bench.device.state.load().unwrap();
        *bench.places.images[state.trial.unwrap().choice.image as usize].get_mut(3000).unwrap() ^= 1;
        bench
    };
    let boot = |bench: &mut Bench| bench.boot(confirms).map(|_| ());
    let more = cut_everywhere(rotten, boot, |bench, _| assert_eq!(bench.boot(crashes), Ok(OLD)));
    assert!(more > 100, "{more}");
    println!("{} cuts of a trial that is refused", cuts + more);
}
