//! Edits of a sealed model, on a host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use modelseal_core::manifest::{Claim, Subject};
use modelseal_tests::bench::{Bench, By, Held, LINE, Model, NO_LIMITS, NOW, SUITES, WRAPS};
use modelseal_tests::forge::Parts;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::check::check;

/// A change of some bytes, at a place that is a fraction of a region or of the whole file.
#[derive(Clone, Debug)]
enum Edit {
    Change(Place, u8),
    Insert(Place, Vec<u8>),
    Delete(Place, usize),
    Swap(Place, Place, usize),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    region: usize,
    offset: Index,
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = || (0..9usize, any::<Index>()).prop_map(|(region, offset)| Place { region, offset });
    let lengths =
        || prop_oneof![4 => 1..=4usize, 2 => select(vec![16, 32, 48, 64, 1024]), 1 => 1..=1500usize];
    prop_oneof![
        6 => (place(), 1..=255u8).prop_map(|(place, by)| Edit::Change(place, by)),
        1 => (place(), prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 1..70))
            .prop_map(|(place, bytes)| Edit::Insert(place, bytes)),
        1 => (place(), lengths()).prop_map(|(place, length)| Edit::Delete(place, length)),
        2 => (place(), place(), lengths()).prop_map(|(a, b, length)| Edit::Swap(a, b, length)),
    ]
}

/// The parts of a sealed model; the last one is all of it.
fn regions(sealed: &[u8], parts: Parts) -> [Range<usize>; 9] {
    [
        0..16,
        16..parts.envelope,
        parts.envelope..parts.envelope + 64,
        parts.envelope + 64..parts.envelope + 128,
        parts.envelope + 64..parts.index,
        parts.index..parts.padding,
        parts.padding..parts.payload,
        parts.payload..sealed.len(),
        0..sealed.len(),
    ]
}

impl Place {
    /// Within a file of this length.
    fn at(self, regions: &[Range<usize>; 9], length: usize) -> usize {
        let region = &regions[self.region];
        let at = region.start + if region.is_empty() { 0 } else { self.offset.index(region.len()) };
        at.min(length)
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, regions: &[Range<usize>; 9]) {
        let length = bytes.len();
        match self {
            Self::Change(place, by) => {
                if let Some(byte) = bytes.get_mut(place.at(regions, length)) {
                    *byte ^= by;
                }
            }
            Self::Insert(place, more) => {
                let at = place.at(regions, length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Delete(place, count) => {
                let at = place.at(regions, length);
                bytes.drain(at..length.min(at + count));
            }
            Self::Swap(a, b, count) => {
                let (a, b) = (a.at(regions, length), b.at(regions, length));
                let (low, high) = (a.min(b), a.max(b));
                let count = (*count).min(high - low).min(length - high);
                let (left, right) = bytes.split_at_mut(high);
                left[low..low + count].swap_with_slice(&mut right[..count]);
            }
        }
    }
}

/// What an edit came to.
struct Edited {
    /// Outside the slots, and outside slots and tags.
    outside: bool,
    outside_tags: bool,
    /// Whether the one slot that was in use is still somewhere.
    has_slot: bool,
}

impl Edited {
    fn of(model: &Model, edited: &[u8]) -> Self {
        let (sealed, parts) = (&model.sealed, model.parts);
        let slots = parts.envelope + 64..parts.index;
        let tag = |i: usize| (parts.index..parts.padding).contains(&i) && (i - parts.index) % 48 < 16;
        let resized = sealed.len() != edited.len();
        let mut changed = (0..sealed.len()).filter(|i| !slots.contains(i) && sealed[*i] != edited[*i]);
        let outside_tags = resized || changed.clone().any(|i| !tag(i));
        let outside = resized || changed.next().is_some();
        let genuine = &sealed[slots.start..][..128];
        let has_slot = !resized && edited[slots].chunks(128).any(|slot| slot == genuine);
        Self { outside, outside_tags, has_slot }
    }
}

/// On a host. What an edit of the slots alone, or of nothing, does is said as exactly.
#[test]
fn any_edit_outside_the_slots_is_refused() {
    let bench = Bench::with_master_keys(&[1]);
    // One chunk, two, and some with a short last one; with padding and without.
    let shapes =
        [(10, 4, 1), (10, 4, 1024), (10, 6, 1025), (10, 12, 3000), (11, 8, 4096), (10, 4, 5 * 1024 + 7)];
    let models: Vec<(Model, [Held; 2])> = (0..)
        .zip(shapes)
        .map(|(i, (chunk_log2, align_log2, length))| {
            let mut plain = vec![0; length as usize];
            blake3::Hasher::new().update(&[i]).finalize_xof().fill(&mut plain);
            let claims = [Claim { key: "licence", value: "MIT" }].into_iter().collect();
            let (suite, version, kind) = (SUITES[usize::from(i) % 2], 1 << (7 * i), "onnx");
            let subject = Subject {
                suite,
                chunk_log2,
                align_log2,
                line: LINE,
                version,
                kind,
                length,
                created: NOW,
                claims,
            };
            let model = bench.seal_with(plain, subject);
            let grants = WRAPS.map(|wrap| bench.grant(&model, "kitchen-7", wrap, NO_LIMITS));
            (model, grants)
        })
        .collect();
    let input = (0..models.len(), prop::collection::vec(edit(), 1..6));
    let seen = RefCell::new(BTreeMap::new());
    check(file!(), 6000, input, |(i, edits)| {
        let (model, grants) = &models[i];
        let (regions, mut edited) = (regions(&model.sealed, model.parts), model.sealed.clone());
        edits.iter().for_each(|edit| edit.apply(&mut edited, &regions));
        let came_to = Edited::of(model, &edited);
        let outcome = |by: By<'_>| match bench.open(&edited, by, &model.plain) {
            Ok(opened) => {
                assert!(opened == model.plain, "another model");
                None
            }
            Err(refused) => {
                assert!(matches!(refused.code, 3 | 7), "{refused:?}");
                refused.name
            }
        };

        let by_vault = outcome(By::Vault);
        assert_eq!(by_vault.is_none(), !came_to.outside && came_to.has_slot, "by vault: {by_vault:?}");
        assert!(
            came_to.outside || by_vault.is_none_or(|name| matches!(name, "KeySlot" | "OldSlots")),
            "by vault: {by_vault:?}"
        );
        for held in grants {
            let by_grant = outcome(By::Grant(held));
            assert_eq!(by_grant.is_none(), !came_to.outside, "by grant: {by_grant:?}");
            // Whoever has the content key finds a changed tag, and says so.
            let tags_only = came_to.outside && !came_to.outside_tags;
            assert!(!tags_only || by_grant == Some("Chunk"), "by grant: {by_grant:?}");
        }
        // Who verifies has no content key, and sees everything but slots and tags.
        let verified = outcome(By::Publisher);
        assert_eq!(verified.is_none(), !came_to.outside_tags, "verify: {verified:?}");
        let what = (by_vault.unwrap_or("opened"), verified.unwrap_or("verified"));
        *seen.borrow_mut().entry(what).or_insert(0) += 1;
    });
    let seen = seen.into_inner();
    println!("{seen:?}");
    let both = [
        "ManifestSignature",
        "Truncated",
        "Extended",
        "ManifestLength",
        "EnvelopeLength",
        "Index",
        "Padding",
    ];
    let differ = [("opened", "verified"), ("KeySlot", "verified"), ("Chunk", "verified"), ("Chunk", "Chunk")];
    for what in both.map(|name| (name, name)).into_iter().chain(differ) {
        assert!(seen.contains_key(&what), "{what:?} was never seen");
    }
}
