//! Boot and load on a PC: everything that is refused, and that both ways agree.

pub(crate) mod fixture;
pub(crate) mod places;

use ed25519_dalek::SigningKey;
use modelseal_core::Error;
use modelseal_core::grant::{GRANT_MAX, Grant, Terms, Validity};
use modelseal_core::sealed::ENTRY_LEN;
use modelseal_core::sign::{Publisher, PublisherKey};

use self::fixture::{Fake, Once, Ram, SECRETS, SUITES, Sealed};
use crate::eeprom::{self, STATE_LEN};
use crate::state::{State, StateStore};
use crate::storage::{Memory, Part, read_grant};
use crate::{Loaded, boot, load};

/// Boots and loads, requires that both open the same or nothing, and gives the model, or why it didn't boot.
fn both(device: &mut Fake, grant: &[u8], file: &[u8]) -> Result<Vec<u8>, Error> {
    let mut region = file.to_vec();
    let parsed = Grant::parse(grant)?;
    let booted = boot(device, parsed.clone(), &mut region).map(|loaded| loaded.model().to_vec());
    let mut memory = [0xa5; 4000];
    let loaded = load(device, parsed, &mut Once(file.to_vec()), &mut memory);
    let loaded = loaded.map(|loaded| loaded.model().to_vec());
    assert_eq!(booted.as_ref().ok(), loaded.as_ref().ok());
    booted
}

fn refusal(change: impl FnOnce(&mut Fake), terms: impl FnOnce(&mut Terms<'_>)) -> Option<Error> {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, terms);
    change(&mut device);
    both(&mut device, &grant, &sealed.file).err()
}

#[test]
fn every_suite_and_secret_opens_both_ways() {
    for suite in SUITES {
        let sealed = Sealed::new(suite);
        for secret in SECRETS {
            let mut device = Fake::new(secret());
            let grant = sealed.grant(&device.secret, |_| {});
            assert_eq!(both(&mut device, &grant, &sealed.file), Ok(sealed.model.clone()));
        }
    }
}

#[test]
fn a_device_key_needs_no_publisher() {
    assert_eq!(refusal(|device| device.publisher = Publisher::default(), |_| {}), None);
}

#[test]
fn a_removed_publisher_key_is_revoked() {
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    let other = Publisher::new(&[PublisherKey::Ed25519(other)]).unwrap();
    assert_eq!(refusal(|device| device.publisher = other, |_| {}), Some(Error::ManifestSignature));
}

#[test]
fn only_confirming_raises_the_floor() {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, |_| {});
    let opened = |device: &mut Fake, and: fn(Loaded<'_>, &mut Fake)| {
        let mut region = sealed.file.clone();
        let loaded = boot(device, Grant::parse(&grant).unwrap(), &mut region).unwrap();
        assert_eq!(loaded.version(), 7);
        and(loaded, device);
        device.state.load().map(|state| state.floor)
    };
    assert_eq!(opened(&mut device, |loaded, _| assert_eq!(loaded.unconfirmed().len(), 3500)), Ok(5));
    assert_eq!(opened(&mut device, |loaded, device| assert!(loaded.confirm(device).is_ok())), Ok(6));
}

/// Another opening of the line may be confirmed between: what is below its floor isn't confirmed any more.
#[test]
fn a_floor_that_was_raised_meanwhile_refuses_what_is_below() {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, |_| {});
    let mut region = sealed.file.clone();
    let loaded = boot(&mut device, Grant::parse(&grant).unwrap(), &mut region).unwrap();
    device.state.store(State::first(8)).unwrap();
    assert_eq!(loaded.confirm(&mut device).err(), Some(Error::RolledBack));
    assert_eq!(device.state.load(), Ok(State::first(8)));
    assert_eq!(region[region.len() - 3500..], [0; 3500]);
}

#[test]
fn terms_are_kept() {
    let valid = |terms: &mut Terms<'_>| {
        terms.validity = Some(Validity { not_before: 10, not_after: 20 });
    };
    assert_eq!(refusal(|_| {}, valid), Some(Error::NoClock));
    assert_eq!(refusal(|device| device.now = Some(9), valid), Some(Error::NotYetValid));
    assert_eq!(refusal(|device| device.now = Some(19), valid), None);
    assert_eq!(refusal(|device| device.now = Some(20), valid), Some(Error::Expired));
    assert_eq!(refusal(|device| device.id = "doorbell-00043", |_| {}), Some(Error::OtherDevice));
    assert_eq!(refusal(|device| device.line = "wake-word-2", |_| {}), Some(Error::OtherLine));
    assert_eq!(refusal(|device| device.secret = SECRETS[1](), |_| {}), Some(Error::GrantKey));
    let floor = |floor| move |device: &mut Fake| device.state.store(State::first(floor)).unwrap();
    assert_eq!(refusal(floor(7), |_| {}), None);
    assert_eq!(refusal(floor(8), |_| {}), Some(Error::RolledBack));
    let blank = |device: &mut Fake| {
        device.state =
            eeprom::state(Ram { bytes: [0xff; STATE_LEN], power: device.power.clone() }, eeprom::IN_A_ROW)
    };
    assert_eq!(refusal(blank, |_| {}), Some(Error::Floor));
}

#[test]
fn every_flipped_byte_is_refused_or_without_effect() {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, |_| {});
    let layout = sealed.layout;
    let payload = sealed.file.len() - sealed.model.len();
    for i in (0..payload).chain((payload..sealed.file.len()).step_by(13)) {
        let mut file = sealed.file.clone();
        file[i] ^= 0x10;
        let at = i as u64;
        let slots = layout.envelope + 64..layout.index;
        let values =
            (layout.index..layout.padding).contains(&at) && (at - layout.index) % ENTRY_LEN as u64 >= 16;
        let outcome = both(&mut device, &grant, &file);
        assert_eq!(outcome.is_ok(), slots.contains(&at) || values, "{i}: {:?}", outcome.err());
        let expected = match at {
            at if at >= layout.payload => Some(Error::Chunk),
            at if at >= layout.padding => Some(Error::Padding),
            _ => outcome.as_ref().err().copied(),
        };
        assert_eq!(outcome.err(), expected, "{i}");
    }
}

#[test]
fn every_flipped_byte_of_a_grant_is_refused() {
    let sealed = Sealed::new(SUITES[1]);
    for secret in SECRETS {
        let mut device = Fake::new(secret());
        let grant = sealed.grant(&device.secret, |_| {});
        for i in 0..grant.len() {
            let mut grant = grant.clone();
            grant[i] ^= 0x10;
            assert!(both(&mut device, &grant, &sealed.file).is_err(), "{i}");
        }
    }
}

#[test]
fn every_cut_is_refused() {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, |_| {});
    for cut in 0..sealed.file.len() {
        assert_eq!(both(&mut device, &grant, &sealed.file[..cut]), Err(Error::Truncated), "{cut}");
    }
}

#[test]
fn storage_ends_with_the_model_unless_it_is_a_part() {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, |_| {});
    assert_eq!(both(&mut device, &grant, &[&sealed.file[..], &[0]].concat()), Err(Error::Extended));
    let partition = [&[0xee; 99][..], &sealed.file, &[0xee; 100]].concat();
    let mut part = Part::sealed_model(Memory::new(&partition), 99).unwrap();
    let mut memory = [0; 4000];
    assert!(load(&mut device, Grant::parse(&grant).unwrap(), &mut part, &mut memory).is_ok());
    let cut = Memory::new(&partition[..98 + sealed.file.len()]);
    assert_eq!(Part::sealed_model(cut, 99).err(), Some(Error::Truncated));
    assert_eq!(Part::sealed_model(Memory::new(&partition), 1000).err(), Some(Error::ForeignMagic));
}

#[test]
fn memory_holds_the_model_or_nothing() {
    let sealed = Sealed::new(SUITES[1]);
    let mut device = Fake::new(SECRETS[0]());
    let grant = sealed.grant(&device.secret, |_| {});
    let grant = Grant::parse(&grant).unwrap();
    let mut short = [0; 3499];
    let outcome = load(&mut device, grant.clone(), &mut Memory::new(&sealed.file), &mut short);
    assert_eq!(outcome.err(), Some(Error::Memory));
    // The last chunk is wrong: those before it have been decrypted by then.
    let mut file = sealed.file.clone();
    *file.last_mut().unwrap() ^= 1;
    let mut memory = [0xa5; 4000];
    let outcome = load(&mut device, grant.clone(), &mut Memory::new(&file), &mut memory);
    assert_eq!(outcome.err(), Some(Error::Chunk));
    assert_eq!((&memory[..3500], &memory[3500..]), (&[0; 3500][..], &[0xa5; 500][..]));
    assert_eq!(boot(&mut device, grant, &mut file).err(), Some(Error::Chunk));
    assert_eq!(file[file.len() - 3500..], [0; 3500]);
}

#[test]
fn a_grant_is_read_from_storage_once() {
    let sealed = Sealed::new(SUITES[1]);
    for secret in SECRETS {
        let bytes = sealed.grant(&secret(), |_| {});
        let mut storage = Once([&[0; 99][..], &bytes, &[0; 3000]].concat());
        let mut buffer = [0; GRANT_MAX];
        let grant = read_grant(&mut storage, 99, &mut buffer).unwrap();
        assert_eq!(grant.terms(), Grant::parse(&bytes).unwrap().terms());
        let mut cut = Memory::new(&bytes[..bytes.len() - 1]);
        assert_eq!(read_grant(&mut cut, 0, &mut buffer).err(), Some(Error::Truncated));
    }
}
