//! Grants: what parses, and what comes back.

use ed25519_dalek::{Signer, SigningKey};
use getrandom::SysRng;
use modelseal_core::Error;
use modelseal_core::grant::{
    DeviceId, Grant, PathSignature, Terms, Validity, Wrapping, wrap_for_device_key, wrap_for_x25519,
};
use modelseal_core::keys::{DeviceKey, X25519Secret};
use modelseal_core::manifest::Suite;
use modelseal_core::sign::{Publisher, PublisherKey, Signature};
use modelseal_tests::bench::{Bench, LINE, SUITES};
use modelseal_tests::forge;
use proptest::bool::weighted;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rand_core::UnwrapErr;

use crate::check::check;

pub(crate) const VERSION: u64 = 3;

pub(crate) fn device_key(byte: u8) -> [u8; 32] {
    [byte; 32]
}

pub(crate) fn x25519(byte: u8) -> X25519Secret {
    X25519Secret::from_bytes(&[byte; 32])
}

pub(crate) fn trusting(key: &SigningKey) -> Publisher {
    Publisher::new(&[PublisherKey::Ed25519(key.verifying_key().to_bytes())]).unwrap()
}

// ---- Parsing ----

/// A grant of which each part may be wrong.
#[derive(Clone, Debug)]
struct Raw {
    magic: bool,
    format: u16,
    suite: u8,
    model: [u8; 32],
    device: String,
    floor: u64,
    validity: Option<(u64, u64)>,
    wrapping: u8,
    secret: [u8; 32],
    siblings: Option<usize>,
    sides: u16,
    over_long: bool,
    more: Vec<u8>,
    length: Length,
}

/// What the length field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Right,
    OneMore,
    OneLess,
    Zero,
    TooLong,
}

fn raw() -> impl Strategy<Value = Raw> {
    let outer = (
        weighted(0.97),
        prop_oneof![30 => Just(1), 1 => any::<u16>()],
        prop_oneof![20 => Just(Length::Right), 1 => select(vec![Length::OneMore, Length::OneLess, Length::Zero, Length::TooLong])],
    );
    let terms = (
        prop_oneof![20 => 1..=2u8, 1 => any::<u8>()],
        any::<[u8; 32]>(),
        prop_oneof![8 => "[A-Za-z0-9][A-Za-z0-9._-]{0,63}", 1 => "[A-Za-z0-9][A-Za-z0-9._-]{64}", 1 => "[._-][A-Za-z0-9._-]{0,9}", 1 => "\\PC{0,12}"],
        prop_oneof![0..300u64, any::<u64>()],
        prop::option::of(
            prop_oneof![6 => any::<(u64, u64)>().prop_map(|(a, b)| (a.min(b), a.max(b))), 1 => any::<(u64, u64)>(), 1 => (5..7u64, 5..7u64)],
        ),
    );
    let rest = (
        prop_oneof![10 => 0..=1u8, 1 => Just(2)],
        any::<[u8; 32]>(),
        prop::option::of(0..=17usize),
        prop_oneof![4 => Just(0), 2 => 0..8u16, 1 => any::<u16>()],
        weighted(0.05),
        prop_oneof![20 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..4)],
    );
    (outer, terms, rest).prop_map(|((magic, format, length), terms, rest)| {
        let (suite, model, device, floor, validity) = terms;
        let (wrapping, secret, siblings, sides, over_long, more) = rest;
        Raw {
            magic,
            format,
            suite,
            model,
            device,
            floor,
            validity,
            wrapping,
            secret,
            siblings,
            sides,
            over_long,
            more,
            length,
        }
    })
}

impl Raw {
    fn siblings(&self) -> Vec<[u8; 32]> {
        (0..self.siblings.unwrap_or(0)).map(|i| [i as u8; 32]).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut floor = postcard::to_allocvec(&self.floor).unwrap();
        if self.over_long {
            *floor.last_mut().unwrap() |= 0x80;
            floor.push(0);
        }
        let path = self.siblings.map(|_| ([self.secret; 2], self.siblings(), self.sides));
        let body = [
            &[self.suite][..],
            &self.model,
            &postcard::to_allocvec(&self.device).unwrap(),
            &floor,
            &postcard::to_allocvec(&self.validity).unwrap(),
            &[self.wrapping],
            &self.secret,
            &[1; 32],
            &[2; 16],
            &postcard::to_allocvec(&path).unwrap(),
            &self.more,
        ]
        .concat();
        let length = match self.length {
            Length::Right => body.len(),
            Length::OneMore => body.len() + 1,
            Length::OneLess => body.len() - 1,
            Length::Zero => 0,
            Length::TooLong => 2037,
        };
        let magic = if self.magic { b"\x89MSGRT\x1a\n" } else { b"\x89MSEAL\x1a\n" };
        [magic, &self.format.to_le_bytes()[..], &(length as u16).to_le_bytes(), &body].concat()
    }

    /// FORMAT.md, section 6.1: the first rule that is broken.
    fn expected(&self) -> Result<(), Error> {
        let begins = self.device.starts_with(|c: char| c.is_ascii_alphanumeric());
        let named = begins && self.device.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        let canonical =
            !self.over_long && self.wrapping < 2 && self.siblings.unwrap_or(0) <= 16 && self.more.is_empty();
        let rules = [
            (self.magic, Error::ForeignMagic),
            (self.format == 1, Error::UnknownVersion),
            (!matches!(self.length, Length::Zero | Length::TooLong), Error::GrantLength),
            (self.length != Length::OneMore, Error::Truncated),
            (self.length != Length::OneLess, Error::Extended),
            (matches!(self.suite, 1 | 2), Error::UnknownSuite),
            (canonical, Error::GrantEncoding),
            (named && self.device.len() <= 64, Error::DeviceId),
            (self.validity.is_none_or(|(before, after)| before < after), Error::Validity),
            (self.siblings.is_some() == (self.wrapping == 1), Error::GrantForm),
            (self.siblings.is_none_or(|n| u32::from(self.sides) < 1 << n), Error::GrantPath),
        ];
        rules.into_iter().try_for_each(|(holds, error)| if holds { Ok(()) } else { Err(error) })
    }

    fn is(&self, grant: &Grant<'_>) {
        let terms = Terms {
            suite: Suite::try_from(self.suite).unwrap(),
            model: postcard::from_bytes(&self.model).unwrap(),
            device: DeviceId::new(&self.device).unwrap(),
            floor: self.floor,
            validity: self.validity.map(|(not_before, not_after)| Validity { not_before, not_after }),
        };
        assert_eq!(*grant.terms(), terms);
        let (secret, ciphertext, tag) = (self.secret, [1; 32], [2; 16]);
        let wrapping = match self.wrapping {
            0 => Wrapping::DeviceKey { salt: secret, ciphertext, tag },
            _ => Wrapping::Hpke { encapsulated: secret, ciphertext, tag },
        };
        assert_eq!(grant.wrapping(), wrapping);
        let path = self.siblings.map(|_| PathSignature {
            signature: Signature::from_bytes([secret; 2].as_flattened().try_into().unwrap()),
            siblings: self.siblings().into_iter().collect(),
            sides: self.sides,
        });
        assert_eq!(grant.signature(), path);
    }
}

#[test]
fn what_parses_is_what_was_written_and_the_first_broken_rule_gives_the_error() {
    check(file!(), 20_000, raw(), |raw| {
        let bytes = raw.bytes();
        let parsed = Grant::parse(&bytes);
        assert_eq!(parsed.as_ref().map(|_| ()).map_err(|error| *error), raw.expected());
        if let Ok(grant) = parsed {
            raw.is(&grant);
        }
    });
}

// ---- Terms, there and back ----

/// A device, a floor up to the version, and a validity.
fn terms() -> impl Strategy<Value = (String, u64, Option<(u64, u64)>)> {
    let validity = any::<(u64, u64)>().prop_filter("an interval", |(a, b)| a != b);
    let validity = validity.prop_map(|(a, b)| (a.min(b), a.max(b)));
    ("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", 0..=VERSION, prop::option::of(validity))
}

/// Any terms of a genuine grant, of both wrappings; and any path to the root that the publisher signs.
#[test]
fn terms_and_paths_come_back_as_they_were_made() {
    let bench = Bench::with_master_keys(&[1]);
    let model = bench.seal_as(SUITES[0], LINE, VERSION, 100);
    let publisher = forge::publisher_key();
    let path = (prop::collection::vec(any::<[u8; 32]>(), 0..=16), any::<u16>(), any::<Index>());
    bench.unwrapped(&model, |content| {
        check(file!(), 1000, (terms(), path.clone()), |((device, floor, validity), path)| {
            let mut terms = Terms::new(content, DeviceId::new(&device).unwrap());
            terms.floor = floor;
            terms.validity = validity.map(|(not_before, not_after)| Validity { not_before, not_after });
            let rng = &mut UnwrapErr(SysRng);
            let key = DeviceKey::from_bytes(&device_key(5));
            let grant = wrap_for_device_key(content, &terms, &key, rng).unwrap();
            assert_eq!(*Grant::parse(&grant).unwrap().terms(), terms);

            let public = x25519(6).public().unwrap();
            let unsigned = wrap_for_x25519(content, &terms, &public, rng).unwrap();
            let (siblings, sides, other) = path;
            let sides = if siblings.len() == 16 { sides } else { sides & ((1 << siblings.len()) - 1) };
            let root = root(unsigned.leaf(), &siblings, sides);
            let signature = publisher.sign(&[b"modelseal/v1/grants\0", &root[..]].concat());
            let signature = Signature::from_bytes(&signature.to_bytes());
            let path = PathSignature { signature, siblings: siblings.iter().copied().collect(), sides };
            let verify = |path: &PathSignature| {
                let grant = unsigned.sign(path).unwrap();
                let grant = Grant::parse(&grant).unwrap();
                assert_eq!((grant.terms(), grant.signature().as_ref()), (&terms, Some(path)));
                grant.verify(&trusting(&publisher)).map(|_| ())
            };
            assert_eq!(verify(&path), Ok(()));
            if !siblings.is_empty() {
                // Another side or sibling leads to another root.
                let i = other.index(siblings.len());
                let mut changed = path.clone();
                changed.siblings[i][0] ^= 1;
                assert_eq!(verify(&changed), Err(Error::GrantSignature));
                let turned = PathSignature { sides: sides ^ (1 << i), ..path.clone() };
                assert_eq!(verify(&turned), Err(Error::GrantSignature));
                let mut cut = PathSignature { sides: 0, ..path.clone() };
                cut.siblings.pop();
                assert_eq!(verify(&cut), Err(Error::GrantSignature));
            }
        });
    });
}

/// Upward, one sibling at a time.
fn root(leaf: [u8; 32], siblings: &[[u8; 32]], sides: u16) -> [u8; 32] {
    let mut node = leaf;
    for (i, sibling) in siblings.iter().enumerate() {
        let left = sides & (1 << i) != 0;
        let (a, b) = if left { (sibling, &node) } else { (&node, sibling) };
        node = *blake3::hash(&[&[1], &a[..], &b[..]].concat()).as_bytes();
    }
    node
}
