//! On a board, opening takes the same number of instructions whatever the keys and the model are, to the instruction.
//! What is compared is everything that handles a secret: taking it over at reset; and then, once the public-key checks
//! are over, which work in variable time on public data alone, all up to the model's being handed over, or up to the
//! refusal. Only the writing of the log in between is left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use ed25519_dalek::{Signer, SigningKey};
use modelseal::identity::{Enrolment, Identity};
use modelseal_core::grant::DeviceId;
use modelseal_core::manifest::Suite;
use modelseal_core::sign::{Publisher, PublisherKey};
use modelseal_tests::bench::{Bench, LINE, Model, NO_LIMITS, SUITES, WRAPS, Wrap, contents, flip, replaced};
use modelseal_tests::counted;
use modelseal_tests::forge;
use modelseal_tests::probe::{Given, Probe, Stage, in_parallel};

const HANDED_OVER: &str = "INFO every byte is authentic";
const LENGTH: usize = 2100;

/// A boot that is still to come.
struct Case {
    /// Whatever has the same name must take the same number of instructions.
    name: String,
    wrap: Wrap,
    /// How the line begins that ends what is compared.
    until: &'static str,
    sealed: Vec<u8>,
    grant: Vec<u8>,
    identity: Identity,
}

type Counts = BTreeMap<String, BTreeSet<u64>>;

#[test]
fn the_same_number_of_instructions_under_every_key() {
    let (bench, other) = (Bench::new(), Bench::new());
    let mut cases = Vec::new();
    for suite in SUITES {
        for wrap in WRAPS {
            for n in 0..8 {
                cases.push(opened(&bench, suite, wrap, n));
            }
            for n in 0..4 {
                cases.push(with_a_wrong_key(&bench, &other, suite, wrap, n));
            }
        }
        cases.extend([0, 15].map(|byte| with_a_wrong_tag(&bench, suite, byte)));
        cases.extend([0, 7, 31].map(|byte| with_a_wrong_commitment(&bench, suite, byte)));
    }
    let boots = cases.len();
    let counts = instructions(&cases);
    for (name, different) in &counts {
        assert_eq!(different.len(), 1, "{name}: {different:?}");
    }
    let longer = a_byte_more_is_seen(&bench, &counts);
    one_instruction_more_is_seen(&bench, &counts);
    let list =
        counts.iter().flat_map(|(name, counts)| counts.iter().map(move |count| format!("{name} {count}")));
    let list: Vec<String> = list.collect();
    println!(
        "a model that is one byte longer: {longer} instructions more; an instruction done twice: 1 more"
    );
    counted(&format!("board: {boots} boots, identical instruction counts: {}", list.join(", ")));
}

/// A genuine model, device and grant, all of them new.
fn opened(bench: &Bench, suite: Suite, wrap: Wrap, n: usize) -> Case {
    let model = sealed(bench, suite, n);
    let held = bench.grant(&model, &format!("device-{n}"), wrap, NO_LIMITS);
    Case {
        name: format!("{suite:?} {wrap:?}"),
        wrap,
        until: HANDED_OVER,
        sealed: model.sealed,
        grant: held.grant,
        identity: held.identity,
    }
}

fn sealed(bench: &Bench, suite: Suite, n: usize) -> Model {
    bench.seal_bytes(suite, LINE, 2, plain(n))
}

fn plain(n: usize) -> Vec<u8> {
    match n {
        0 => vec![0; LENGTH],
        1 => vec![0xff; LENGTH],
        n => contents(&format!("model {n}"), LENGTH),
    }
}

/// The same, but the device has another key than the grant was made for.
fn with_a_wrong_key(bench: &Bench, other: &Bench, suite: Suite, wrap: Wrap, n: usize) -> Case {
    let genuine = opened(bench, suite, wrap, n);
    let name = format!("device-{n}");
    // Either another vault derives another key, or the device makes one.
    let mut identity = other.grant(&sealed(other, suite, n), &name, wrap, NO_LIMITS).identity;
    trust(&mut identity, &bench.vault.publisher().unwrap());
    let until = "refused 332 GrantKey";
    Case { name: format!("{suite:?} {wrap:?}, wrong key"), until, identity, ..genuine }
}

fn trust(identity: &mut Identity, publisher: &Publisher) {
    let (name, lines) = (identity.device().to_owned(), [LINE.to_owned()]);
    let device = DeviceId::new(&name).unwrap();
    identity.complete(&Enrolment { device, lines: &lines, publisher, first_floor: 0 }).unwrap();
}

/// One byte of the first chunk's tag changed.
fn with_a_wrong_tag(bench: &Bench, suite: Suite, byte: usize) -> Case {
    let model = sealed(bench, suite, byte);
    let held = bench.grant(&model, "device-0", Wrap::DeviceKey, NO_LIMITS);
    Case {
        name: format!("{suite:?}, wrong tag"),
        wrap: Wrap::DeviceKey,
        until: "refused 335 Chunk",
        sealed: flip(&model.sealed, (model.parts.index + byte) * 8),
        grant: held.grant,
        identity: held.identity,
    }
}

/// One byte of the commitment changed, in a manifest that a publisher signed and a grant that fits it.
fn with_a_wrong_commitment(bench: &Bench, suite: Suite, byte: usize) -> Case {
    let model = sealed(bench, suite, byte);
    let mut held = bench.grant(&model, "device-0", Wrap::DeviceKey, NO_LIMITS);
    let signer = SigningKey::from_bytes(&[1; 32]);
    let signer_public = PublisherKey::Ed25519(signer.verifying_key().to_bytes());
    trust(&mut held.identity, &Publisher::new(&[signer_public]).unwrap());

    let parts = model.parts;
    let sealed = flip(&model.sealed, (parts.envelope - 64 + byte) * 8);
    let signature = signer.sign(&forge::signed_bytes(&sealed, parts)).to_bytes();
    let id = forge::model_id(&sealed, parts);
    let key = bench.vault.device_key(DeviceId::new("device-0").unwrap(), 1).unwrap();
    let terms = forge::terms(suite.into(), &id, "device-0", 2, None);
    Case {
        name: format!("{suite:?}, wrong commitment"),
        wrap: Wrap::DeviceKey,
        until: "refused 333 Commitment",
        sealed: replaced(&sealed, parts.envelope, &signature),
        grant: forge::device_grant(key.expose_to_factory(), &id, &terms, &bench.content_key(&model)),
        identity: held.identity,
    }
}

/// Boots all, and gives the different counts of each name.
fn instructions(cases: &[Case]) -> Counts {
    let counts = Mutex::new(Counts::new());
    in_parallel(cases, |case| {
        let count = compared(case, &Probe::start(given(case)).run_past(case.until));
        counts.lock().unwrap().entry(case.name.clone()).or_default().insert(count);
    });
    counts.into_inner().unwrap()
}

fn given(case: &Case) -> Given<'_> {
    Given { sealed: &case.sealed, grant: &case.grant, identity: &case.identity, more: &[] }
}

/// How many instructions led to the first line, and to the last one from where the public-key checks were over; but for
/// the second check of the manifest's signature, which comes after the terms.
fn compared(case: &Case, stages: &[Stage]) -> u64 {
    let checked = match case.wrap {
        Wrap::DeviceKey => "INFO manifest signed",
        Wrap::Hpke => "INFO grant admitted",
    };
    let checked = stages.iter().position(|(line, _)| line.starts_with(checked));
    let checked = checked.unwrap_or_else(|| panic!("{}: {stages:?}", case.name));
    let secret = stages[checked + 1..].iter().filter(|(line, _)| !line.starts_with("INFO manifest signed"));
    stages[..1].iter().chain(secret).map(|(_, instructions)| instructions).sum()
}

/// A control: the length is public, and counts.
fn a_byte_more_is_seen(bench: &Bench, counts: &Counts) -> u64 {
    let model = bench.seal_bytes(SUITES[1], LINE, 2, contents("longer", LENGTH + 1));
    let held = bench.grant(&model, "device-9", WRAPS[0], NO_LIMITS);
    let case = Case {
        sealed: model.sealed,
        grant: held.grant,
        identity: held.identity,
        ..opened(bench, SUITES[1], WRAPS[0], 9)
    };
    let longer = compared(&case, &Probe::start(given(&case)).run_past(case.until)) - expected(&case, counts);
    assert!(longer > 0);
    longer
}

/// A control: somewhere in what is compared, a single instruction is executed twice.
fn one_instruction_more_is_seen(bench: &Bench, counts: &Counts) {
    let case = opened(bench, SUITES[1], WRAPS[0], 9);
    let mut probe = Probe::start(given(&case));
    let mut stages = probe.run_past("INFO manifest signed");
    probe.repeat_instruction();
    stages.extend(probe.run_past(case.until));
    assert_eq!(compared(&case, &stages), expected(&case, counts) + 1);
}

fn expected(case: &Case, counts: &Counts) -> u64 {
    *counts[&case.name].first().unwrap()
}
