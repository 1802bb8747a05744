//! What must hold for any model, any slots and any edit: one property a function. `properties_of_grants.rs` does the
//! same for grants. `PROPTEST_CASES` in the environment asks for more cases.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use getrandom::SysRng;
use modelseal::grant::Limits;
use modelseal::open::SealedFile;
use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant, Validity};
use modelseal_core::lazy::{IndexCheck, Lazy};
use modelseal_core::manifest::{Claim, Subject, Suite};
use modelseal_core::open::{Conditions, FloorStore, Request, Unwrapped};
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::{
    ENTRY_LEN, Entry, Envelope, Header, Layout, PREFIX_LEN, Prefix, SLOT_LEN, Slot,
};
use modelseal_tests::bench::{Bench, By, Held, LINE, Model, NO_LIMITS, NOW, SUITES, WRAPS};
use modelseal_tests::forge::{self, Parts};
use modelseal_tests::property::check;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rand_core::UnwrapErr;

// ---- Seal, then open ----

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
    let names = ("[a-z0-9._-]{1,64}", "[a-z0-9._-]{1,16}", "[A-Za-z0-9._-]{1,32}");
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

/// At most 128 bytes of any characters but control characters.
fn claim_value() -> impl Strategy<Value = String> {
    let longest = Just("v".repeat(128));
    let any =
        prop::collection::vec(any::<char>().prop_filter("no control characters", |c| !c.is_control()), 0..40);
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

/// Seals in memory, with any number of slots, what the vault then signs.
fn seal_in_memory(bench: &Bench, plain: &[u8], subject: Subject<'_>, slots: u8) -> Vec<u8> {
    let mut sealing: Sealing<'_> = Sealing::new(subject, slots, &mut UnwrapErr(SysRng)).unwrap();
    let (layout, mut payload) = (sealing.layout(), plain.to_vec());
    let chunks = payload.chunks_mut(layout.chunk_size as usize);
    let index: Vec<u8> = chunks.flat_map(|chunk| sealing.seal_next(chunk).unwrap().encode()).collect();
    let unsigned = sealing.finish().unwrap();
    let envelope = bench.vault.publish(&unsigned).unwrap().encode();
    let padding = vec![0; (layout.payload - layout.padding) as usize];
    let sealed = [unsigned.header_bytes(), &envelope, &index, &padding, &payload].concat();
    assert_eq!(sealed.len() as u64, layout.end);
    sealed
}

type Unwrapping<'u> = &'u dyn for<'a> Fn(&'a SealedFile) -> modelseal::Result<Unwrapped<'a>>;

/// As `open` does, but into memory.
fn open_as_host(path: &Path, unwrap: Unwrapping<'_>) -> modelseal::Result<Vec<u8>> {
    let (mut sealed, mut model) = (SealedFile::open(path)?, Vec::new());
    let mut out = |bytes: &[u8]| {
        model.extend_from_slice(bytes);
        Ok(())
    };
    sealed.copy_to(unwrap, &mut out, &mut |_| ())?;
    Ok(model)
}

/// As firmware does: in place, and confirmed.
fn open_as_device(sealed: &[u8], held: &Held, floor: &mut Floor) -> Result<Vec<u8>, Error> {
    let header = header(sealed);
    let layout = header.layout();
    let (secret, publisher) = (held.identity.secret().unwrap(), held.identity.publisher().unwrap());
    let request = Request::new(header, *envelope(sealed).signature(), Grant::parse(&held.grant)?);
    let named = request.authenticate(&secret, &publisher)?.name(held.line)?;
    let device = DeviceId::new(held.identity.device())?;
    let unwrapped = named.admit(&Conditions { device, now: held.now, floor: floor.0 })?.unwrap(&secret)?;
    let mut memory = sealed[layout.payload as usize..].to_vec();
    let opened = unwrapped.open_in_place(&mut memory, |i| Ok(entry(sealed, layout, i).tag))?;
    Ok(opened.confirm(floor)?.to_vec())
}

struct Floor(u64);

impl FloorStore for Floor {
    fn floor(&mut self) -> Result<u64, Error> {
        Ok(self.0)
    }

    fn raise(&mut self, floor: u64) -> Result<(), Error> {
        assert!(floor > self.0, "only ever up");
        self.0 = floor;
        Ok(())
    }
}

fn header(sealed: &[u8]) -> Header<'_> {
    let prefix: &[u8; PREFIX_LEN] = sealed.first_chunk().unwrap();
    Header::parse(&sealed[..Prefix::parse(prefix).unwrap().header_len()]).unwrap()
}

fn envelope(sealed: &[u8]) -> Envelope {
    let layout = header(sealed).layout();
    Envelope::parse(&sealed[layout.envelope as usize..layout.index as usize]).unwrap()
}

fn entry(sealed: &[u8], layout: Layout, i: u64) -> Entry {
    let at = layout.index as usize + ENTRY_LEN * i as usize;
    Entry::parse(sealed[at..][..ENTRY_LEN].try_into().unwrap())
}

#[test]
fn seal_then_open_is_the_identity() {
    let bench = Bench::with_master_keys(&[1]);
    check(file!(), 200, wanted(), |wanted| {
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
}

// ---- Random access ----

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
        let lazy: Lazy = unwrap().into_lazy(check.finish().unwrap()).unwrap();
        for index in order {
            let i = index.index(layout.chunks as usize) as u64;
            let (start, len) = (i as usize * layout.chunk_size as usize, layout.chunk_len(i));
            let mut chunk = sealed[layout.payload as usize + start..][..len].to_vec();
            lazy.open_chunk(i, &entry(&sealed, layout, i), &mut chunk).unwrap();
            assert!(chunk == sequential.model()[start..start + len], "chunk {i}");
        }
    });
}

// ---- Rewrapping ----

/// What may be found in a slot.
#[derive(Clone, Debug)]
enum Found {
    Empty,
    /// Version 0, and anything behind it: cleared in part.
    HalfCleared([u8; 60]),
    /// The content key under this version of the master key.
    Wrapped {
        version: u32,
        nonce: [u8; 12],
    },
    /// The same, of which only so many bytes were written over what was there.
    Torn {
        version: u32,
        nonce: [u8; 12],
        written: usize,
        over: [u8; SLOT_LEN],
    },
    /// This version, and anything behind it.
    Garbage(u32, [u8; 60]),
}

fn found() -> impl Strategy<Value = Found> {
    let bytes = || prop::collection::vec(any::<u8>(), 60).prop_map(|bytes| bytes.try_into().unwrap());
    let over = prop_oneof![
        Just([0; SLOT_LEN]),
        prop::collection::vec(any::<u8>(), SLOT_LEN).prop_map(|bytes| bytes.try_into().unwrap())
    ];
    prop_oneof![
        2 => Just(Found::Empty),
        1 => bytes().prop_map(Found::HalfCleared),
        4 => (1..=5u32, any::<[u8; 12]>()).prop_map(|(version, nonce)| Found::Wrapped { version, nonce }),
        3 => (1..=5u32, any::<[u8; 12]>(), 0..=SLOT_LEN, over)
            .prop_map(|(version, nonce, written, over)| Found::Torn { version, nonce, written, over }),
        1 => (prop_oneof![1..=5u32, 6..=u32::MAX], bytes()).prop_map(|(version, rest)| Found::Garbage(version, rest)),
    ]
}

/// A model whose slots can be set, and what must not change with them.
struct Slotted {
    model: Model,
    content: [u8; 32],
    id: [u8; 32],
    grants: [Held; 2],
}

impl Slotted {
    /// The vault has the master keys 1 to 5.
    fn new(bench: &Bench, suite: Suite, slots: u8) -> Self {
        let subject = Subject {
            suite,
            chunk_log2: 10,
            align_log2: 4,
            line: LINE,
            version: 3,
            kind: "onnx",
            length: 1500,
            created: NOW,
            claims: Default::default(),
        };
        let plain = vec![0xab; 1500];
        let sealed = seal_in_memory(bench, &plain, subject, slots);
        let parts = Parts::of(&sealed, plain.len());
        let model = Model { plain, sealed, parts };
        let grants = WRAPS.map(|wrap| bench.grant(&model, "kitchen-7", wrap, NO_LIMITS));
        Self {
            content: bench.content_key(&model),
            id: forge::model_id(&model.sealed, model.parts),
            model,
            grants,
        }
    }

    fn wrapped(&self, version: u32, nonce: [u8; 12]) -> [u8; SLOT_LEN] {
        forge::slot(version, &forge::master_key(version), &nonce, &self.id, &self.content)
    }

    /// The bytes, and of which master key they are a whole and genuine slot.
    fn bytes(&self, found: &Found) -> ([u8; SLOT_LEN], Option<u32>) {
        let behind = |version: u32, rest: &[u8; 60]| {
            ([&version.to_le_bytes()[..], rest].concat().try_into().unwrap(), None)
        };
        match found {
            Found::Empty => ([0; SLOT_LEN], None),
            Found::HalfCleared(rest) => behind(0, rest),
            Found::Garbage(version, rest) => behind(*version, rest),
            Found::Wrapped { version, nonce } => (self.wrapped(*version, *nonce), Some(*version)),
            Found::Torn { version, nonce, written, over } => {
                let (whole, mut torn) = (self.wrapped(*version, *nonce), *over);
                torn[..*written].copy_from_slice(&whole[..*written]);
                (torn, (torn == whole).then_some(*version))
            }
        }
    }

    fn with(&self, slots: &[[u8; SLOT_LEN]]) -> Vec<u8> {
        let (start, mut sealed) = (self.model.parts.envelope + 64, self.model.sealed.clone());
        sealed[start..self.model.parts.index].copy_from_slice(slots.as_flattened());
        sealed
    }

    /// The same model under the same id, by every grant and for whoever verifies.
    fn is_the_same(&self, sealed: &[u8], bench: &Bench) {
        assert_eq!(header(sealed).id().as_bytes(), &self.id);
        for held in &self.grants {
            self.opens(sealed, bench, &|sealed| held.unwrap(sealed));
            assert!(open_as_device(sealed, held, &mut Floor(0)).unwrap() == self.model.plain);
        }
        let publisher = bench.vault.publisher().unwrap();
        SealedFile::open(&bench.path("slots")).unwrap().verify(&publisher, &mut |_| ()).unwrap();
    }

    fn opens(&self, sealed: &[u8], bench: &Bench, unwrap: Unwrapping<'_>) {
        assert!(self.open(sealed, bench, unwrap).unwrap() == self.model.plain);
    }

    fn open(&self, sealed: &[u8], bench: &Bench, unwrap: Unwrapping<'_>) -> modelseal::Result<Vec<u8>> {
        let path = bench.path("slots");
        std::fs::write(&path, sealed).unwrap();
        open_as_host(&path, unwrap)
    }

    /// By a vault: the same model if it has the key of a genuine slot, and else by name the reason.
    fn by_vault(&self, sealed: &[u8], vault: &Bench, genuine: bool) {
        let opened = self.open(sealed, vault, &|sealed| sealed.unwrap_by_vault(&*vault.vault, Some(LINE)));
        match opened {
            Ok(model) => assert!(genuine && model == self.model.plain, "opened without a key"),
            Err(error) => assert!(!genuine && error.name() == Some("KeySlot"), "{error:?}"),
        }
    }
}

#[test]
fn whatever_is_in_the_slots_the_model_is_the_same() {
    let bench = Bench::with_master_keys(&[1, 2, 3, 4, 5]);
    let models: Vec<Slotted> =
        (1..=16).map(|slots| Slotted::new(&bench, SUITES[usize::from(slots) % 2], slots)).collect();
    let slots = prop::collection::vec(found(), 1..=16);
    let versions = prop::collection::vec(prop::sample::subsequence(vec![1u32, 2, 3, 4, 5], 1..=5), 3);
    check(file!(), 500, (slots, versions), |(slots, versions)| {
        let model = &models[slots.len() - 1];
        let slots: Vec<_> = slots.iter().map(|found| model.bytes(found)).collect();
        let sealed = model.with(&slots.iter().map(|slot| slot.0).collect::<Vec<_>>());
        model.is_the_same(&sealed, &bench);
        for versions in versions {
            let genuine = slots.iter().any(|slot| slot.1.is_some_and(|version| versions.contains(&version)));
            model.by_vault(&sealed, &Bench::with_master_keys(&versions), genuine);
        }
        // What the core says of the slots is what stands there.
        let envelope = envelope(&sealed);
        let used: Vec<usize> = (0..slots.len()).filter(|i| slots[*i].0[..4] != [0; 4]).collect();
        assert_eq!(envelope.free_slot(), (0..slots.len()).find(|i| !used.contains(i)));
        assert_eq!(envelope.numbered_slots().map(|(i, _)| i).collect::<Vec<_>>(), used);
        assert!(envelope.numbered_slots().all(|(i, slot)| slot.encode() == slots[i].0));
    });
}

/// A rewrap, as FORMAT.md has it, cut after any byte of either write: fill a free slot, then clear the old one.
#[test]
fn a_rewrap_that_is_cut_leaves_a_model_that_opens() {
    let [old, new, both] = [&[1][..], &[2], &[1, 2]].map(Bench::with_master_keys);
    let models: Vec<Slotted> =
        (2..=16).map(|slots| Slotted::new(&old, SUITES[usize::from(slots) % 2], slots)).collect();
    let input =
        (select((0..15usize).collect::<Vec<_>>()), any::<Index>(), any::<[u8; 12]>(), 0..=2 * SLOT_LEN);
    check(file!(), 500, input, |(model, place, nonce, cut)| {
        let model = &models[model];
        let layout = header(&model.model.sealed).layout();
        let slots = (layout.index - layout.envelope) as usize / SLOT_LEN - 1;
        // The old slot may stand anywhere.
        let mut at = vec![Slot::EMPTY; slots];
        let genuine = model.wrapped(1, [9; 12]);
        at[place.index(slots)] = genuine;
        let mut sealed = model.with(&at);

        let envelope = envelope(&sealed);
        let (old_slot, free) = (envelope.numbered_slots().next().unwrap().0, envelope.free_slot().unwrap());
        assert_eq!((old_slot, free), (place.index(slots), usize::from(place.index(slots) == 0)));
        let mut write = |slot: usize, bytes: [u8; SLOT_LEN], written: usize| {
            let at = layout.slot(slot).unwrap() as usize;
            sealed[at..at + written].copy_from_slice(&bytes[..written]);
        };
        let (filled, cleared) = (cut.min(SLOT_LEN), cut.saturating_sub(SLOT_LEN));
        write(free, model.wrapped(2, nonce), filled);
        write(old_slot, Slot::EMPTY, cleared);

        model.is_the_same(&sealed, &both);
        model.by_vault(&sealed, &both, true);
        // Versions are little-endian: the first byte of a write already changes which key a slot names. Zeros that
        // were zeros before change nothing.
        let still = sealed[layout.slot(old_slot).unwrap() as usize..][..SLOT_LEN] == genuine;
        model.by_vault(&sealed, &old, still);
        model.by_vault(
            &sealed,
            &new,
            filled == SLOT_LEN
                || sealed[layout.slot(free).unwrap() as usize..][..SLOT_LEN] == model.wrapped(2, nonce),
        );
        assert_eq!(layout.slot(slots), None);
    });
}

// ---- Edits ----

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
        let genuine = &sealed[slots.start..][..64];
        let has_slot = !resized && edited[slots].chunks(64).any(|slot| slot == genuine);
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
        assert!(came_to.outside || by_vault.is_none_or(|name| name == "KeySlot"), "by vault: {by_vault:?}");
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
