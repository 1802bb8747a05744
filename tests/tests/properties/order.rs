//! The order of checks: the first one that fails gives the error.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use getrandom::SysRng;
use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant};
use modelseal_core::keys::{DeviceKey, Secret};
use modelseal_core::manifest::Suite;
use modelseal_core::open::{Conditions, Request};
use modelseal_core::sealed::Header;
use modelseal_core::sign::Signature;
use modelseal_tests::bench::{Bench, LINE, Model, SUITES, WRAPS, Wrap};
use modelseal_tests::forge;
use proptest::bool::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use rand_core::UnwrapErr;

use crate::check::check;
use crate::grants::{VERSION, device_key, trusting, x25519};

const DEVICE: &str = "Kitchen-7";

fn stranger(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// Whose model id: of the model in hand, of another genuine one, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Own,
    Other,
    Nobodys,
}

/// The key that the reader has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Right,
    Wrong,
    OtherKind,
}

/// A reader and what it is given, each part of which may be right or wrong.
#[derive(Clone, Debug)]
struct Scene {
    suite: usize,
    wrap: Wrap,
    holds: Holds,
    /// The id that the terms name, and the one that flowed into the wrapping.
    named: Id,
    derived: Id,
    manifest_signed: bool,
    grant_signed: bool,
    trusts: bool,
    verifies_first: bool,
    line: bool,
    terms_suite: bool,
    device: bool,
    validity: Option<(u64, u64)>,
    now: Option<u64>,
    floor: u8,
    stored: u64,
    content: bool,
}

fn scene() -> impl Strategy<Value = Scene> {
    let right = || weighted(0.93);
    let holds = prop_oneof![16 => Just(Holds::Right), 1 => Just(Holds::Wrong), 1 => Just(Holds::OtherKind)];
    // Mostly the same in both places.
    let ids = prop_oneof![
        12 => Just((Id::Own, Id::Own)),
        2 => Just((Id::Other, Id::Other)),
        2 => (select(vec![Id::Own, Id::Other, Id::Nobodys]), select(vec![Id::Own, Id::Other, Id::Nobodys])),
    ];
    let time = || prop_oneof![4 => 0..6u64, 1 => select(vec![u64::MAX - 1, u64::MAX])];
    let validity = prop::option::of((time(), time()).prop_filter("an interval", |(a, b)| a < b));
    let floors = (prop_oneof![6 => 0..=3u8, 1 => 4..6u8], prop_oneof![6 => 0..=3u64, 1 => 4..6u64]);
    let keys = (0..2usize, select(&WRAPS[..]), holds, ids);
    let signed = (right(), right(), right(), any::<bool>());
    let asked = (right(), right(), right(), right());
    (keys, signed, asked, validity, prop::option::weighted(0.9, time()), floors).prop_map(
        |((suite, wrap, holds, (named, derived)), signed, asked, validity, now, (floor, stored))| {
            let (manifest_signed, grant_signed, trusts, verifies_first) = signed;
            let (line, terms_suite, device, content) = asked;
            Scene {
                suite,
                wrap,
                holds,
                named,
                derived,
                manifest_signed,
                grant_signed,
                trusts,
                verifies_first,
                line,
                terms_suite,
                device,
                validity,
                now,
                floor,
                stored,
                content,
            }
        },
    )
}

impl Scene {
    /// FORMAT.md, section 7, step by step.
    fn expected(&self) -> Result<(), Error> {
        let manifest =
            if self.manifest_signed && self.trusts { Ok(()) } else { Err(Error::ManifestSignature) };
        let another = manifest.and(Err(Error::OtherModel));
        if self.verifies_first {
            manifest?;
        }
        // 2
        if self.wrap == Wrap::Hpke {
            ensure(self.grant_signed && self.trusts, Error::GrantSignature)?;
        } else {
            ensure(self.holds != Holds::OtherKind, Error::GrantKey)?;
            if !self.opens(Id::Own) {
                ensure(self.named != Id::Own && self.opens(self.named), Error::GrantKey)?;
                return another;
            }
        }
        // 3
        if self.named != Id::Own {
            return another;
        }
        ensure(self.line, Error::OtherLine)?;
        // 4
        ensure(self.terms_suite, Error::OtherSuite)?;
        ensure(self.device, Error::OtherDevice)?;
        if let Some((not_before, not_after)) = self.validity {
            let now = self.now.ok_or(Error::NoClock)?;
            ensure(not_before <= now, Error::NotYetValid)?;
            ensure(now < not_after, Error::Expired)?;
        }
        ensure(u64::from(self.floor) <= VERSION, Error::FloorAboveVersion)?;
        ensure(VERSION >= self.stored, Error::RolledBack)?;
        // 5 and 6
        ensure(self.opens(Id::Own), Error::GrantKey)?;
        ensure(self.content, Error::Commitment)
    }

    fn opens(&self, id: Id) -> bool {
        self.holds == Holds::Right && self.derived == id
    }

    fn outcome(&self, stage: &Stage) -> Result<(), Error> {
        let key = |publishers, number| if publishers { forge::publisher_key() } else { stranger(number) };
        let id = |id| match id {
            Id::Own => stage.id,
            Id::Other => stage.other,
            Id::Nobodys => [0xee; 32],
        };
        let suite = u8::from(stage.suite) ^ if self.terms_suite { 0 } else { 3 };
        let device = if self.device { DEVICE } else { "Kitchen-8" };
        let terms = forge::terms(suite, &id(self.named), device, self.floor, self.validity);
        let content = if self.content { stage.content } else { [0xcc; 32] };
        let grant = match self.wrap {
            Wrap::DeviceKey => forge::device_grant(&device_key(5), &id(self.derived), &terms, &content),
            Wrap::Hpke => {
                let signer = key(self.grant_signed, 1);
                let public = x25519(6).public().unwrap();
                let sign = |message: &[u8]| signer.sign(message).to_bytes();
                forge::hpke_grant(&public, &id(self.derived), &terms, &content, &mut UnwrapErr(SysRng), sign)
            }
        };
        let trust = trusting(&key(self.trusts, 2));
        let signature = if self.manifest_signed { stage.signature } else { Signature::from_bytes(&[3; 64]) };
        let request = Request::new(Header::parse(&stage.header)?, signature, Grant::parse(&grant)?);
        if self.verifies_first {
            request.verify_manifest(&trust)?;
        }
        let secret = self.secret();
        let line = if self.line { LINE } else { "another" };
        let named = request.authenticate(&secret, &trust)?.name(line)?;
        let conditions =
            Conditions { line, device: DeviceId::new(DEVICE)?, now: self.now, floor: self.stored };
        named.admit(&conditions)?.unwrap(&secret, &conditions).map(|_| ())
    }

    fn secret(&self) -> Secret {
        let shared = (self.wrap == Wrap::DeviceKey) != (self.holds == Holds::OtherKind);
        let wrong = u8::from(self.holds != Holds::Right);
        if shared {
            Secret::DeviceKey(DeviceKey::from_bytes(&device_key(5 + wrong)))
        } else {
            Secret::X25519(x25519(6 + wrong))
        }
    }
}

fn ensure(holds: bool, error: Error) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(error) }
}

/// A genuine model, and the id of another.
struct Stage {
    suite: Suite,
    header: Vec<u8>,
    signature: Signature,
    content: [u8; 32],
    id: [u8; 32],
    other: [u8; 32],
}

impl Stage {
    fn new(bench: &Bench, suite: Suite) -> Self {
        let seal = |version| bench.seal_as(suite, LINE, version, 1500);
        let (model, other) = (seal(VERSION), seal(VERSION + 1));
        let id = |model: &Model| forge::model_id(&model.sealed, model.parts);
        let envelope = model.parts.envelope;
        Self {
            suite,
            header: model.sealed[..envelope].to_vec(),
            signature: Signature::from_bytes(model.sealed[envelope..envelope + 64].try_into().unwrap()),
            content: bench.content_key(&model),
            id: id(&model),
            other: id(&other),
        }
    }
}

#[test]
fn the_first_check_that_fails_gives_the_error() {
    let bench = Bench::with_master_keys(&[1]);
    let stages = SUITES.map(|suite| Stage::new(&bench, suite));
    let seen = RefCell::new(BTreeMap::new());
    check(file!(), 10_000, scene(), |scene| {
        let outcome = scene.outcome(&stages[scene.suite]);
        assert_eq!(outcome, scene.expected());
        let name = outcome.err().map_or("opened", Error::name);
        *seen.borrow_mut().entry(name).or_insert(0) += 1;
    });
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert_eq!(seen.len(), 14, "opened, and each error that steps 2 to 6 can give");
}
