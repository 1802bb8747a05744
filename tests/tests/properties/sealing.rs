//! Seal, then open: in one go, or in any order.

use std::cell::RefCell;
use std::collections::BTreeSet;

use modelseal::grant::Limits;
use modelseal::open::SealedFile;
use modelseal_core::grant::Validity;
use modelseal_core::lazy::{Chunks, IndexCheck};
use modelseal_core::manifest::{Claim, Subject, Suite};
use modelseal_core::text::is_invisible;
use modelseal_tests::bench::{Bench, Model, NOW, SUITES, WRAPS};
use modelseal_tests::forge::Parts;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::check::check;
use crate::openers::{Floor, entry, envelope, header, open_as_device, open_as_host, seal_in_memory};

/// A model to be sealed, and the terms of its grants.
#[derive(Clone, Debug)]
struct Wanted {
    suite: Suite,
    chunk_log2: u8,
    align_log2: u8,
    line: String,
    version: u64,
    kind: String,
    created: u64,
    claims: Vec<(String, String)>,
    length: usize,
    slots: u8,
    device: String,
    floor: Option<u64>,
    validity: Option<(u64, u64)>,
}

impl Wanted {
    fn subject(&self) -> Subject<'_> {
        let claims = self.claims.iter().map(|(key, value)| Claim { key, value });
        let mut subject = Subject {
            suite: self.suite,
            chunk_log2: self.chunk_log2,
            align_log2: self.align_log2,
            line: &self.line,
            version: self.version,
            kind: &self.kind,
            length: self.length as u64,
            created: self.created,
            claims: claims.collect(),
        };
        // Eight of the longest claims don't fit into a manifest.
        while subject.manifest_len() > 1024 {
            subject.claims.pop();
        }
        subject
    }

    fn plain(&self) -> Vec<u8> {
        let mut plain = vec![0; self.length];
        blake3::Hasher::new().update(self.line.as_bytes()).finalize_xof().fill(&mut plain);
        plain
    }

    fn limits(&self) -> Limits {
        let validity = self.validity.map(|(before, after)| Validity {
            not_before: NOW.saturating_sub(before),
            not_after: NOW.saturating_add(1).saturating_add(after),
        });
        Limits { validity, floor: self.floor }
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let shape = (10..=20u8).prop_flat_map(|log2| (Just(log2), lengths(log2)));
    let names = ("[a-z0-9._-]{1,64}", "[a-z0-9._-]{1,16}", "[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
    let numbers = prop_oneof![Just(0), Just(u64::MAX), 0..=300u64, any::<u64>()];
    let claims = prop::collection::btree_map("[a-z0-9._-]{1,32}", claim_value(), 0..=8);
    let validity = prop::option::of((numbers.clone(), numbers.clone()));
    let terms = (prop::option::of(any::<Index>()), validity);
    (select(&SUITES[..]), shape, 4..=16u8, names, numbers.clone(), numbers, claims, 1..=16u8, terms).prop_map(
        |(
            suite,
            (chunk_log2, length),
            align_log2,
            names,
            version,
            created,
            claims,
            slots,
            (floor, validity),
        )| {
            let (line, kind, device) = names;
            let claims = claims.into_iter().collect();
            // Any floor up to the version.
            let floor =
                floor.map(|index| if version == 0 { 0 } else { index.index(version as usize) as u64 });
            Wanted {
                suite,
                chunk_log2,
                align_log2,
                line,
                version,
                kind,
                created,
                claims,
                length,
                slots,
                device,
                floor,
                validity,
            }
        },
    )
}

/// At most 128 bytes of any characters but invisible ones.
fn claim_value() -> impl Strategy<Value = String> {
    let longest = Just("v".repeat(128));
    let any = prop::collection::vec(
        any::<char>().prop_filter("no invisible characters", |c| !is_invisible(*c)),
        0..40,
    );
    prop_oneof![1 => longest, 8 => any.prop_map(|chars| {
        let mut value: String = chars.into_iter().collect();
        while value.len() > 128 {
            value.pop();
        }
        value
    })]
}

/// Lengths around the borders of chunks of 2^`log2`, mostly short ones, up to 2.5 MiB; and, where chunks are so small,
/// around the 4096 entries of the index that a host reads at a time.
fn lengths(log2: u8) -> BoxedStrategy<usize> {
    let chunk = 1usize << log2;
    let most = (5usize << 19) / chunk;
    let border = move |chunks: usize, by: usize| (chunks * chunk + by).saturating_sub(1).max(1);
    let borders = prop_oneof![3 => 1..=3usize, 1 => 1..=most];
    let borders = (borders, 0..=2usize).prop_map(move |(chunks, by)| border(chunks, by));
    let small = 1..=3 * chunk.min(1 << 16);
    let block = (0..=2usize).prop_map(move |by| border(if log2 == 10 { 4096 } else { 1 }, by));
    prop_oneof![2 => Just(1), 8 => borders, 4 => small, 2 => 1..=5usize << 19, 1 => block].boxed()
}

#[test]
fn seal_then_open_is_the_identity() {
    let bench = Bench::with_master_keys(&[1]);
    let seen = RefCell::new(BTreeSet::new());
    check(file!(), 200, wanted(), |wanted| {
        seen.borrow_mut().extend([("chunk", wanted.chunk_log2), ("alignment", wanted.align_log2)]);
        let (plain, line): (_, &'static str) = (wanted.plain(), wanted.line.clone().leak());
        let by_host = bench.seal_with(plain.clone(), wanted.subject()).sealed;
        let in_memory = seal_in_memory(&bench, &plain, wanted.subject(), wanted.slots);
        for sealed in [by_host, in_memory] {
            assert_eq!(header(&sealed).manifest().subject, wanted.subject());
            let path = bench.path("property");
            std::fs::write(&path, &sealed).unwrap();
            SealedFile::open(&path).unwrap().verify(&bench.vault.publisher().unwrap(), &mut |_| ()).unwrap();
            let vault = &*bench.vault;
            let opened = open_as_host(&path, &|sealed| sealed.unwrap_by_vault(vault, Some(line)));
            assert!(opened.unwrap() == plain, "by vault");
            let parts = Parts::of(&sealed, plain.len());
            let model = Model { plain: plain.clone(), sealed, parts };
            for wrap in WRAPS {
                let held = bench.grant_for(&[line], &model, &wanted.device, wrap, wanted.limits());
                let opened = open_as_host(&path, &|sealed| held.unwrap(sealed));
                assert!(opened.unwrap() == plain, "by grant, {wrap:?}");
                let mut floor = Floor(0);
                let opened = open_as_device(&model.sealed, &held, &mut floor);
                assert!(opened.unwrap() == plain, "in place, {wrap:?}");
                assert_eq!(floor.0, wanted.floor.unwrap_or(wanted.version), "confirmed");
            }
        }
    });
    assert_eq!(seen.into_inner().len(), 11 + 13, "every size of chunks and every alignment");
}

#[test]
fn random_access_equals_sequential() {
    let bench = Bench::with_master_keys(&[1]);
    let order = prop::collection::vec(any::<Index>(), 1..60);
    check(file!(), 400, (wanted(), order), |(wanted, order)| {
        let plain = wanted.plain();
        let sealed = seal_in_memory(&bench, &plain, wanted.subject(), wanted.slots);
        let layout = header(&sealed).layout();
        let unwrap = || bench.vault.unwrap(header(&sealed), &envelope(&sealed)).unwrap();

        let mut sequential = sealed[layout.payload as usize..].to_vec();
        let opened = unwrap().open_in_place(&mut sequential, |i| Ok(entry(&sealed, layout, i).tag));
        let sequential = opened.unwrap();
        assert!(sequential.model() == plain);

        let mut check = IndexCheck::new(&header(&sealed));
        (0..layout.chunks).for_each(|i| check.push(&entry(&sealed, layout, i)).unwrap());
        let lazy = unwrap().into_lazy(check.finish().unwrap()).unwrap();
        let lazy: Chunks<'_> = lazy.keyed().unwrap();
        for index in order {
            let i = index.index(layout.chunks as usize) as u64;
            let (start, len) = (i as usize * layout.chunk_size as usize, layout.chunk_len(i));
            let mut chunk = sealed[layout.payload as usize + start..][..len].to_vec();
            lazy.open_chunk(i, &entry(&sealed, layout, i), &mut chunk).unwrap();
            assert!(chunk == sequential.model()[start..start + len], "chunk {i}");
        }
    });
}
