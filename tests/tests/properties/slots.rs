//! Rewrapping: whatever is in the key slots, the model is the same.

use modelseal::open::SealedFile;
use modelseal_core::manifest::{Subject, Suite};
use modelseal_core::sealed::{SLOT_LEN, Slot};
use modelseal_tests::bench::{Bench, Held, LINE, Model, NO_LIMITS, NOW, SUITES, WRAPS};
use modelseal_tests::forge::{self, Parts};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::check::check;
use crate::openers::{Floor, Unwrapping, envelope, header, open_as_device, open_as_host, seal_in_memory};

/// What may be found in a slot.
#[derive(Clone, Debug)]
enum Found {
    Empty,
    /// Version 0, and anything behind it: cleared in part.
    HalfCleared([u8; 124]),
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
    Garbage(u32, [u8; 124]),
    /// This version, of a kind that isn't known.
    Foreign(u32, u8, Vec<u8>),
}

fn found() -> impl Strategy<Value = Found> {
    let bytes = || prop::collection::vec(any::<u8>(), 124).prop_map(|bytes| bytes.try_into().unwrap());
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
        1 => (1..=5u32, 2..=u8::MAX, prop::collection::vec(any::<u8>(), 0..=120))
            .prop_map(|(version, kind, value)| Found::Foreign(version, kind, value)),
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
        let behind = |version: u32, rest: &[u8; 124]| {
            ([&version.to_le_bytes()[..], rest].concat().try_into().unwrap(), None)
        };
        match found {
            Found::Empty => ([0; SLOT_LEN], None),
            Found::HalfCleared(rest) => behind(0, rest),
            Found::Garbage(version, rest) => behind(*version, rest),
            Found::Foreign(version, kind, value) => (forge::slot_of(*version, *kind, value), None),
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
        let name = if is_old(&sealed[self.model.parts.envelope + 64..self.model.parts.index]) {
            "OldSlots"
        } else {
            "KeySlot"
        };
        let opened = self.open(sealed, vault, &|sealed| sealed.unwrap_by_vault(&*vault.vault, Some(LINE)));
        match opened {
            Ok(model) => assert!(genuine && model == self.model.plain, "opened without a key"),
            Err(error) => assert!(!genuine && error.name() == Some(name), "{error:?}"),
        }
    }
}

/// Whether a slot in use has no zeros where all have them.
fn is_old(slots: &[u8]) -> bool {
    slots.chunks(SLOT_LEN).any(|slot| slot[..4] != [0; 4] && slot[6..8] != [0; 2])
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
        assert_eq!(envelope.held().map(|(i, _)| i).collect::<Vec<_>>(), used);
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
        let slots = (layout.index - layout.envelope) as usize / SLOT_LEN;
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
