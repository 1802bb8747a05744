//! Both sides of every bound, and exact values where a wrong operator or constant would give others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeSet;
use std::convert::Infallible;

use ed25519_dalek::{Signer, SigningKey, Verifier};
use modelseal_core::chunk::Portable;
use modelseal_core::grant::*;
use modelseal_core::keys::{DeviceKey, FLEET_BLOCK_LEN, Secret, X25519Secret, content_key_aad, fleet_block};
use modelseal_core::lazy::{CheckedIndex, Chunks, IndexCheck, Lazy};
use modelseal_core::manifest::{Claim, Manifest, Subject, Suite};
use modelseal_core::open::{Conditions, FloorStore, Request, Unwrapped};
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::*;
use modelseal_core::sign::{Publisher, PublisherKey, SIGNATURE_LEN, Signature};
use modelseal_core::{Class, Error};
use rand_core::{TryCryptoRng, TryRng};

/// Always the same bytes: what is random needn't be, here.
struct Sevens;

impl TryRng for Sevens {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0x0707_0707)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0x0707_0707_0707_0707)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(7);
        Ok(())
    }
}

impl TryCryptoRng for Sevens {}

fn subject() -> Subject<'static> {
    Subject {
        suite: Suite::Aes256Gcm,
        chunk_log2: 10,
        align_log2: 4,
        line: "wake-word",
        version: 7,
        kind: "tflite",
        length: 2500,
        created: 1,
        claims: Default::default(),
    }
}

fn refused<T>(result: Result<T, Error>, expected: Error) {
    assert_eq!(result.map(|_| ()), Err(expected));
}

/// A sealed model in parts, all of whose bytes are 0x2a.
struct Sealed {
    header: Vec<u8>,
    signature: Signature,
    content: [u8; 32],
    entries: Vec<Entry>,
    payload: Vec<u8>,
}

fn publisher() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn trust() -> Publisher {
    Publisher::new(&[PublisherKey::Ed25519(publisher().verifying_key().to_bytes())]).unwrap()
}

fn sign(message: &[u8]) -> Signature {
    Signature::from_bytes(&publisher().sign(message).to_bytes())
}

fn sealing(subject: Subject<'_>, slots: u8) -> Result<Sealing<'_, Portable>, Error> {
    Sealing::new(subject, slots, &mut Sevens)
}

fn seal(subject: Subject<'_>, slots: u8) -> Sealed {
    let mut payload = vec![0x2a; subject.length as usize];
    let mut sealing = sealing(subject, slots).unwrap();
    let size = sealing.layout().chunk_size as usize;
    let entries = payload.chunks_mut(size).map(|chunk| sealing.seal_next(chunk).unwrap()).collect();
    let unsigned = sealing.finish().unwrap();
    assert_eq!(unsigned.slots(), slots);
    let signature = sign(&unsigned.header().unwrap().signed_bytes());
    let content = *unsigned.content_key().expose_to_vault();
    Sealed { header: unsigned.header_bytes().to_vec(), signature, content, entries, payload }
}

impl Sealed {
    fn header(&self) -> Header<'_> {
        Header::parse(&self.header).unwrap()
    }

    fn unwrapped(&self) -> Unwrapped<'_> {
        let header = self.header().verify(&self.signature, &trust()).unwrap();
        Unwrapped::by_vault(header, &self.content).unwrap()
    }

    fn index(&self) -> CheckedIndex {
        let mut check = IndexCheck::new(&self.header());
        self.entries.iter().for_each(|entry| check.push(entry).unwrap());
        check.finish().unwrap()
    }

    /// By a grant with these terms, on a device with this clock and floor.
    fn by_grant(&self, terms: &Terms<'_>, now: Option<u64>, floor: u64) -> Result<Unwrapped<'_>, Error> {
        let key = || DeviceKey::from_bytes(&[5; 32]);
        let grant = wrap_for_device_key(&self.unwrapped(), terms, &key(), &mut Sevens)?;
        let request = Request::new(self.header(), self.signature, Grant::parse(&grant)?);
        let secret = Secret::DeviceKey(key());
        let named = request.authenticate(&secret, &trust())?.name("wake-word")?;
        let conditions = Conditions { line: "wake-word", device: terms.device, now, floor };
        named.admit(&conditions)?.unwrap(&secret, &conditions)
    }

    /// The same, where the conditions of step 4 are good and those read again are these.
    fn again(&self, terms: &Terms<'_>, good: &Conditions<'_>, again: &Conditions<'_>) -> Result<(), Error> {
        let key = || DeviceKey::from_bytes(&[5; 32]);
        let grant = wrap_for_device_key(&self.unwrapped(), terms, &key(), &mut Sevens)?;
        let request = Request::new(self.header(), self.signature, Grant::parse(&grant)?);
        let secret = Secret::DeviceKey(key());
        let named = request.authenticate(&secret, &trust())?.name(good.line)?;
        named.admit(good)?.unwrap(&secret, again).map(drop)
    }
}

/// In releases for hosts, too: see the profiles in the workspace's Cargo.toml.
#[test]
fn overflow_stops_the_program() {
    let most = std::hint::black_box(u8::MAX);
    assert!(std::panic::catch_unwind(|| most + std::hint::black_box(1)).is_err());
}

/// As if each comparison of steps 3 and 4 had been skipped: the second reading alone gives another key.
#[test]
#[cfg_attr(miri, ignore = "minutes")]
fn what_is_read_again_flows_into_the_key() {
    let sealed = seal(Subject { version: 7, ..subject() }, 1);
    let unwrapped = sealed.unwrapped();
    let validity = Some(Validity { not_before: 10, not_after: 20 });
    let terms = Terms { validity, ..Terms::new(&unwrapped, DeviceId::new("dev").unwrap()) };
    let good = Conditions { line: "wake-word", device: terms.device, now: Some(10), floor: 7 };
    let again = |conditions| sealed.again(&terms, &good, &conditions);
    for now in [10, 19] {
        assert_eq!(again(Conditions { now: Some(now), ..good }), Ok(()));
    }
    for now in [None, Some(0), Some(9), Some(20), Some(u64::MAX)] {
        assert_eq!(again(Conditions { now, ..good }), Err(Error::Commitment), "{now:?}");
    }
    for floor in [8, 1 << 32, u64::MAX] {
        assert_eq!(again(Conditions { floor, ..good }), Err(Error::Commitment), "{floor}");
    }
    for line in ["wake-wore", "wake-wor", "wake-word-", ""] {
        assert_eq!(again(Conditions { line, ..good }), Err(Error::Commitment), "{line}");
    }
    for device in ["dew", "de", "devi"] {
        let device = DeviceId::new(device).unwrap();
        assert_eq!(again(Conditions { device, ..good }), Err(Error::Commitment), "{device:?}");
    }
}

// ---- The sealed model ----

fn prefix(manifest: u16, envelope: u32) -> Result<Prefix, Error> {
    let bytes = [&MAGIC[..], &[1, 0], &manifest.to_le_bytes(), &envelope.to_le_bytes()].concat();
    Prefix::parse(bytes.as_slice().try_into().unwrap())
}

#[test]
fn the_prefix() {
    for (manifest, header) in [(1, 17), (256, 272), (1023, 1039), (1024, 1040)] {
        assert_eq!(prefix(manifest, 192).unwrap().header_len(), header);
    }
    for slots in 1..=16 {
        assert_eq!(prefix(9, 64 + 128 * slots).unwrap().envelope_len(), 64 + 128 * slots as usize);
    }
    for manifest in [0, 1025, 1026, u16::MAX] {
        refused(prefix(manifest, 192), Error::ManifestLength);
    }
    for envelope in
        [0, 1, 63, 64, 65, 127, 129, 160, 191, 193, 1025, 1152, 2111, 2113, 2176, 2240, 1 << 31, u32::MAX]
    {
        refused(prefix(9, envelope), Error::EnvelopeLength);
    }
    // 1, 3, …, 15 slots of before.
    for slots in (1..16).step_by(2) {
        refused(prefix(9, 64 * (1 + slots)), Error::OldSlots);
    }
    // The manifest's length is checked first.
    refused(prefix(0, 0), Error::ManifestLength);
    assert_eq!((PREFIX_LEN, HEADER_MAX, SLOT_LEN, ENVELOPE_MAX, ENTRY_LEN), (16, 1040, 128, 2112, 48));
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_header_ends_where_it_says() {
    let header = seal(subject(), 1).header;
    assert!(Header::parse(&header).is_ok());
    for length in [0, 15, 16, 17, header.len() - 1] {
        refused(Header::parse(&header[..length]), Error::Truncated);
    }
    refused(Header::parse(&[&header[..], &[0]].concat()), Error::Extended);
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_layout() {
    let of = |length, chunk_log2, align_log2, line, slots| {
        Layout::of(&Subject { length, chunk_log2, align_log2, line, ..subject() }, slots).unwrap()
    };
    // The manifest: 3 + (1 + 9) + 1 + (1 + 6) + 2 + 1 + 1 + 64 = 89.
    let layout = Layout {
        envelope: 105,
        index: 297,
        padding: 441,
        payload: 448,
        length: 2500,
        end: 2948,
        chunks: 3,
        chunk_size: 1024,
    };
    assert_eq!(of(2500, 10, 4, "wake-word", 1), layout);
    assert_eq!(seal(subject(), 1).header().layout(), layout);
    // Seven bytes more of a line, and there is nothing to pad.
    let full = Layout { envelope: 112, index: 304, padding: 448, ..layout };
    assert_eq!(of(2500, 10, 4, "wake-word.longer", 1), full);
    // One byte more, and there are 15 zeros.
    let padded = Layout { envelope: 113, index: 305, padding: 449, payload: 464, end: 2964, ..layout };
    assert_eq!(of(2500, 10, 4, "wake-word.longer.", 1), padded);
    let aligned = Layout { payload: 65536, end: 65536 + 2500, ..layout };
    assert_eq!(of(2500, 10, 16, "wake-word", 1), aligned);
    let largest = Layout {
        envelope: 110,
        index: 2222,
        padding: 13_194_139_535_534,
        payload: 13_194_139_598_848,
        length: 1 << 48,
        end: 294_669_116_309_504,
        chunks: 1 << 38,
        chunk_size: 1024,
    };
    assert_eq!(of(1 << 48, 10, 16, "wake-word", 16), largest);
    for (length, chunk_log2, chunks) in [
        (1, 10, 1),
        (1023, 10, 1),
        (1024, 10, 1),
        (1025, 10, 2),
        (2048, 10, 2),
        (2049, 10, 3),
        (1 << 20, 20, 1),
        ((1 << 20) + 1, 20, 2),
    ] {
        let layout = of(length, chunk_log2, 4, "wake-word", 1);
        assert_eq!((layout.chunks, layout.chunk_size), (chunks, 1 << chunk_log2), "{length}");
    }
}

#[test]
fn the_length_of_a_chunk() {
    let layout = |length| Layout::of(&Subject { length, ..subject() }, 1).unwrap();
    for (length, lengths) in [
        (1, &[1, 0][..]),
        (1023, &[1023, 0]),
        (1024, &[1024, 0]),
        (1025, &[1024, 1, 0]),
        (2047, &[1024, 1023, 0]),
        (2048, &[1024, 1024, 0, 0]),
    ] {
        for (i, expected) in (0..).zip(lengths) {
            assert_eq!(layout(length).chunk_len(i), *expected, "chunk {i} of {length}");
        }
        // No overflow, and no wrapping to a chunk that is there.
        for i in [1 << 54, 1 << 63, u64::MAX] {
            assert_eq!(layout(length).chunk_len(i), 0, "chunk {i}");
        }
    }
}

#[test]
fn the_place_of_a_slot() {
    for slots in [1, 2, 15, 16] {
        let layout = Layout::of(&subject(), slots).unwrap();
        for i in 0..usize::from(slots) {
            assert_eq!(layout.slot(i), Some(layout.envelope + 64 + 128 * i as u64));
        }
        assert_eq!(layout.slot(usize::from(slots) - 1), Some(layout.index - 128));
        for i in [usize::from(slots), 17, usize::MAX / 128 - 1, usize::MAX / 128, usize::MAX - 1, usize::MAX]
        {
            assert_eq!(layout.slot(i), None, "{i} of {slots}");
        }
    }
}

/// 1, 2, 3, …
fn counting<const N: usize>(from: u8) -> [u8; N] {
    core::array::from_fn(|i| from + i as u8)
}

#[test]
fn entries_and_slots_are_their_fields_in_order() {
    let bytes: [u8; ENTRY_LEN] = counting(1);
    let entry = Entry::parse(&bytes);
    assert_eq!(entry, Entry { tag: counting(1), chaining_value: counting(17) });
    assert_eq!(entry.encode(), bytes);

    let slot = slot(&counting::<12>(9));
    let bytes = [&[1, 2, 3, 4, 1, 60, 0, 0][..], &counting::<60>(9), &[0; 60]].concat();
    assert_eq!(slot.encode(), *bytes);
    assert_eq!(Slot::EMPTY, [0; 128]);
    let empty = [&[0; 4][..], &[0xff; 124]].concat();
    let envelope = [&[0xee; 64][..], &empty, &bytes, &[0; 128], &bytes].concat();
    let parsed = Envelope::parse(&envelope).unwrap();
    assert_eq!(parsed.signature().to_bytes(), [0xee; 64]);
    assert_eq!(parsed.slots().collect::<Vec<_>>(), [slot, slot]);
    assert_eq!(parsed.numbered_slots().collect::<Vec<_>>(), [(1, slot), (3, slot)]);
    assert_eq!(parsed.free_slot(), Some(0));
    // Written again, what is empty is zeros.
    assert_eq!(*parsed.encode(), [&[0xee; 64][..], &[0; 128], &bytes, &[0; 128], &bytes].concat());
    let full = Envelope::parse(&[&[0; 64][..], &bytes, &bytes].concat()).unwrap();
    assert_eq!(full.free_slot(), None);
    // Any version but 0 is one.
    for version in [1, 1 << 8, 1 << 16, 1 << 24, u32::MAX] {
        let slot = Slot { version, ..slot };
        assert_eq!(held(&slot.encode()), Some(Held::Key(slot)));
    }
}

/// Its fields count on from 9.
fn slot(nonce: &[u8]) -> Slot {
    let after = 9 + nonce.len() as u8;
    let nonce = SlotNonce::new(nonce).unwrap();
    Slot { version: 0x0403_0201, nonce, ciphertext: counting(after), tag: counting(after + 32) }
}

/// What a slot holds beside a good one, which is always found; and it is written again as it was.
fn held(bytes: &[u8]) -> Option<Held> {
    let good = slot(&[7; 12]);
    let envelope = [&[0xee; 64][..], bytes, &good.encode()].concat();
    let parsed = Envelope::parse(&envelope).unwrap();
    assert_eq!(parsed.numbered_slots().last(), Some((1, good)));
    let mut held: Vec<_> = parsed.held().collect();
    assert_eq!(held.pop(), Some((1, Held::Key(good))));
    assert_eq!(parsed.free_slot(), held.is_empty().then_some(0));
    assert!(held.is_empty() || *parsed.encode() == envelope);
    held.pop().map(|(_, held)| held)
}

#[test]
fn nonces_of_12_to_16_bytes() {
    for len in 12..=16 {
        let slot = slot(&counting::<16>(9)[..len]);
        let bytes = slot.encode();
        assert_eq!(bytes[..8], [1, 2, 3, 4, 1, 48 + len as u8, 0, 0]);
        assert_eq!(bytes[8..56 + len], counting::<64>(9)[..48 + len]);
        assert!(bytes[56 + len..].iter().all(|byte| *byte == 0));
        assert_eq!(held(&bytes), Some(Held::Key(slot)));
        assert_eq!(slot.nonce.as_bytes(), &counting::<16>(9)[..len]);
    }
    for len in [0, 1, 11, 17, 255, 256 + 12] {
        assert_eq!(SlotNonce::new(&vec![1; len]), None);
    }
}

/// Each rule of section 4.3 on what isn't a slot of kind 1.
#[test]
fn what_a_slot_holds() {
    let good = slot(&[7; 12]).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        held(&bytes)
    };
    let spoiled = Some(Held::Spoiled { version: 0x0403_0201 });
    assert_eq!(with(4, 0), spoiled, "kind 0");
    for length in (0..=255).filter(|length| *length != 60) {
        // Longer, it takes in a nonce of zeros, and the good one's end is part of it.
        let fits = (61..=64).contains(&length);
        assert_eq!(matches!(with(5, length), Some(Held::Key(_))), fits, "{length}");
        assert!(fits || with(5, length) == spoiled, "{length}");
    }
    for at in [6, 7, 68, 100, 127] {
        assert_eq!(with(at, 1), spoiled, "{at}");
    }
    let foreign = |kind, length: u8, filled: usize| {
        let front = [&[1, 2, 3, 4, kind, length, 0, 0][..], &vec![0xa5; filled]].concat();
        let mut bytes = [0; SLOT_LEN];
        bytes[..front.len()].copy_from_slice(&front);
        held(&bytes)
    };
    for kind in [2, 3, 255] {
        for length in [0, 1, 60, 113, 120] {
            let expected = Held::Foreign { version: 0x0403_0201, kind };
            assert_eq!(foreign(kind, length, length.into()), Some(expected), "{kind} {length}");
            assert_eq!(expected.version(), 0x0403_0201);
        }
        assert_eq!(foreign(kind, 60, 61), spoiled);
        assert_eq!(foreign(kind, 121, 120), spoiled);
        assert_eq!(foreign(kind, 255, 120), spoiled);
    }
}

/// A slot of 64 bytes had the first byte of its nonce where a kind is now.
#[test]
fn slots_of_before_are_named() {
    let unopened = |slots: &[[u8; SLOT_LEN]]| {
        Envelope::parse(&[&[0; 64][..], slots.as_flattened()].concat()).unwrap().unopened()
    };
    let mut old = [0; SLOT_LEN];
    old[..64].copy_from_slice(&counting::<64>(1));
    let good = slot(&[7; 12]).encode();
    let (mut cleared, mut torn) = (old, good);
    cleared[..4].fill(0);
    torn[30..].fill(0);
    refused::<()>(Err(unopened(&[good, old])), Error::OldSlots);
    for slots in [&[good][..], &[torn, Slot::EMPTY], &[cleared, good]] {
        assert_eq!(unopened(slots), Error::KeySlot);
    }
    for at in [6, 7] {
        let mut bytes = good;
        bytes[at] = 1;
        assert_eq!(unopened(&[Slot::EMPTY, bytes]), Error::OldSlots, "{at}");
    }
}

#[test]
fn the_envelope() {
    let signature = Signature::from_bytes(&counting(1));
    let slot = Slot { version: 1, nonce: [2; 12].into(), ciphertext: [3; 32], tag: [4; 16] };
    for slots in [1, 2, 16] {
        let envelope = Envelope::new(signature, slot, slots).unwrap();
        let bytes = envelope.encode();
        let rest = vec![0; 128 * (usize::from(slots) - 1)];
        assert_eq!(*bytes, [&counting::<64>(1)[..], &slot.encode(), &rest].concat());
        assert_eq!(Envelope::parse(&bytes).unwrap(), envelope);
        assert_eq!(envelope.free_slot(), (slots > 1).then_some(1));
    }
    for slots in [0, 17, 255] {
        refused(Envelope::new(signature, slot, slots), Error::EnvelopeLength);
    }
    refused(Envelope::new(signature, Slot { version: 0, ..slot }, 1), Error::EnvelopeLength);
    refused(Envelope::parse(&[0; 63]), Error::Truncated);
    for length in [64, 65, 128, 191, 193, 2111, 2113, 64 + 128 * 17] {
        refused(Envelope::parse(&vec![0; length]), Error::EnvelopeLength);
    }
    for length in [192, 320, 64 + 128 * 16] {
        assert!(Envelope::parse(&vec![0; length]).is_ok(), "{length}");
    }
}

#[test]
fn a_model_id_is_shown_in_hexadecimal() {
    let id: ModelId = postcard::from_bytes(&counting::<32>(0)).unwrap();
    let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    assert_eq!((id.to_string().as_str(), format!("{id:?}").as_str()), (text, text));
}

// ---- The manifest ----

#[test]
fn the_subject() {
    let check = |subject: Subject<'_>| subject.check();
    let (names, kinds) = (["a".repeat(64), "a".repeat(65)], ["a".repeat(16), "a".repeat(17)]);
    for chunk_log2 in 0..=255 {
        let expected = if (10..21).contains(&chunk_log2) { Ok(()) } else { Err(Error::ChunkSize) };
        assert_eq!(check(Subject { chunk_log2, ..subject() }), expected, "{chunk_log2}");
    }
    for align_log2 in 0..=255 {
        let expected = if (4..17).contains(&align_log2) { Ok(()) } else { Err(Error::Alignment) };
        assert_eq!(check(Subject { align_log2, ..subject() }), expected, "{align_log2}");
    }
    for line in ["a", &names[0]] {
        assert_eq!(check(Subject { line, ..subject() }), Ok(()));
    }
    for line in ["", &names[1]] {
        refused(check(Subject { line, ..subject() }), Error::Line);
    }
    for kind in ["a", &kinds[0]] {
        assert_eq!(check(Subject { kind, ..subject() }), Ok(()));
    }
    for kind in ["", &kinds[1]] {
        refused(check(Subject { kind, ..subject() }), Error::Kind);
    }
    for length in [1, 2, (1 << 48) - 1, 1 << 48] {
        assert_eq!(check(Subject { length, ..subject() }), Ok(()));
    }
    for length in [0, (1 << 48) + 1, u64::MAX] {
        refused(check(Subject { length, ..subject() }), Error::Length);
    }
    // Several at once: the first by the table.
    let wrong = Subject { chunk_log2: 9, align_log2: 3, line: "", kind: "", length: 0, ..subject() };
    refused(check(wrong.clone()), Error::ChunkSize);
    refused(check(Subject { chunk_log2: 10, ..wrong.clone() }), Error::Alignment);
    refused(check(Subject { chunk_log2: 10, align_log2: 4, ..wrong.clone() }), Error::Line);
    refused(check(Subject { chunk_log2: 10, align_log2: 4, line: "a", ..wrong }), Error::Kind);
}

/// Which of all the characters up to U+00FF a name may have.
#[test]
fn the_characters_of_names() {
    for code in 0..=255u8 {
        let text = char::from(code).to_string();
        let lower = matches!(code, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        assert_eq!(Subject { line: &text, ..subject() }.check().is_ok(), lower, "{code:#x}");
        assert_eq!(Subject { kind: &text, ..subject() }.check().is_ok(), lower, "{code:#x}");
        assert_eq!(claim(&text, "").is_ok(), lower, "{code:#x}");
        let of_id = lower || code.is_ascii_uppercase();
        assert_eq!(DeviceId::new(&format!("a{text}")).is_ok(), of_id, "{code:#x}");
        assert_eq!(DeviceId::new(&text).is_ok(), of_id && code.is_ascii_alphanumeric(), "{code:#x}");
        // In a value, it is the control characters that aren't allowed, and the soft hyphen.
        let control = code < 0x20 || (0x7f..0xa0).contains(&code) || code == 0xad;
        assert_eq!(claim("a", &text).is_err(), control, "{code:#x}");
    }
}

fn claim(key: &str, value: &str) -> Result<(), Error> {
    Subject { claims: [Claim { key, value }].into_iter().collect(), ..subject() }.check()
}

#[test]
fn claims() {
    let long = "a".repeat(129);
    assert_eq!(claim(&long[..32], ""), Ok(()));
    refused(claim(&long[..33], ""), Error::Claims);
    refused(claim("", ""), Error::Claims);
    assert_eq!(claim("a", &long[..128]), Ok(()));
    refused(claim("a", &long), Error::Claims);
    // Bytes count, not characters.
    assert_eq!(claim("a", &"ä".repeat(64)), Ok(()));
    refused(claim("a", &"ä".repeat(65)), Error::Claims);

    let keys = |keys: &[&'static str]| {
        let claims = keys.iter().map(|key| Claim { key, value: "" }).collect();
        Subject { claims, ..subject() }.check()
    };
    for ascending in [&["a"][..], &["a", "b"], &["a", "aa"], &["-", ".", "0", "_", "a"], &[]] {
        assert_eq!(keys(ascending), Ok(()), "{ascending:?}");
    }
    for wrong in [&["a", "a"][..], &["b", "a"], &["aa", "a"], &["a", "b", "b"], &["a", "c", "b"]] {
        refused(keys(wrong), Error::Claims);
    }
    assert_eq!(keys(&["a", "b", "c", "d", "e", "f", "g", "h"]), Ok(()));
}

/// A manifest of exactly `length` bytes, by its claims' values.
fn of_length(length: usize, values: &[String; 8]) -> Subject<'_> {
    const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut subject = subject();
    for (key, value) in KEYS.into_iter().zip(values) {
        subject.claims.push(Claim { key, value }).unwrap();
        let over = subject.manifest_len().saturating_sub(length);
        if over > 0 {
            let last = subject.claims.last_mut().unwrap();
            // The length of a value below 128 bytes takes one byte less.
            let cut = if last.value.len() == 128 { over - 1 } else { over };
            last.value = &last.value[..last.value.len() - cut];
            break;
        }
    }
    assert_eq!(subject.manifest_len(), length);
    subject
}

#[test]
#[cfg_attr(miri, ignore)]
fn the_length_of_a_manifest() {
    let values: [String; 8] = core::array::from_fn(|_| "v".repeat(128));
    let sealed = seal(of_length(1024, &values), 16);
    assert_eq!(sealed.header.len(), HEADER_MAX);
    assert_eq!(sealed.header().layout().envelope, 1040);
    assert!(Manifest::parse(&sealed.header[16..]).is_ok());
    refused(sealing(of_length(1025, &values), 16).map(|_| ()), Error::ManifestLength);
    refused(Layout::of(&of_length(1025, &values), 1), Error::ManifestLength);
    refused(Manifest::parse(&[]), Error::ManifestLength);
    refused(Manifest::parse(&[1; 1025]), Error::ManifestLength);
    refused(Manifest::parse(&[1; 1024]), Error::ManifestEncoding);
    assert_eq!(subject().manifest_len(), 89);
    assert_eq!(seal(subject(), 1).header.len(), 16 + 89);
    for slots in [0, 17, 255] {
        refused(Layout::of(&subject(), slots), Error::EnvelopeLength);
    }
}

#[test]
fn suites() {
    for id in 0..=255 {
        let suite = Suite::try_from(id);
        assert_eq!(suite.is_ok(), matches!(id, 1 | 2), "{id}");
        assert!(suite.is_err() || u8::from(suite.unwrap()) == id);
    }
    refused(Suite::try_from(3), Error::UnknownSuite);
}

// ---- Grants ----

#[test]
fn a_device_id() {
    let long = "a".repeat(65);
    assert_eq!(DeviceId::new(&long[..1]).unwrap().as_str(), "a");
    assert_eq!(DeviceId::new(&long[..64]).unwrap().as_str(), &long[..64]);
    refused(DeviceId::new(""), Error::DeviceId);
    refused(DeviceId::new(&long), Error::DeviceId);
    // What is derived for the longest fits exactly.
    let block = fleet_block(0x0102_0304, DeviceId::new(&long[..64]).unwrap());
    assert_eq!(*block, [&[1, 2, 3, 4], &b"modelseal/v1/device\0"[..], &[b'a'; 64], &[0, 0, 1, 0]].concat());
    assert_eq!(block.len(), FLEET_BLOCK_LEN);
    let id: ModelId = postcard::from_bytes(&[3; 32]).unwrap();
    assert_eq!(content_key_aad(&id)[..], [&b"modelseal/v1/content-key\0"[..], &[3; 32]].concat());
}

#[test]
fn the_length_of_a_grant() {
    let body_len = |length: u16| {
        let prefix = [&GRANT_MAGIC[..], &[1, 0], &length.to_le_bytes()].concat();
        Grant::body_len(prefix.as_slice().try_into().unwrap())
    };
    for length in [1, 2, 255, 256, 2035, 2036] {
        assert_eq!(body_len(length), Ok(length.into()));
    }
    for length in [0, 2037, 2048, u16::MAX] {
        refused(body_len(length), Error::GrantLength);
    }
    assert_eq!((GRANT_MAX, GRANT_PREFIX_LEN, SIBLINGS_MAX), (2048, 12, 16));
}

#[test]
#[cfg_attr(miri, ignore)]
fn terms() {
    let sealed = seal(subject(), 1);
    let device = DeviceId::new("dev").unwrap();
    let terms = Terms::new(&sealed.unwrapped(), device);
    assert_eq!((terms.floor, terms.validity, terms.model), (7, None, sealed.header().id()));

    let at_floor = |floor| sealed.by_grant(&Terms { floor, ..terms.clone() }, None, 0).map(|_| ());
    assert_eq!([0, 6, 7].map(at_floor), [Ok(()); 3]);
    refused(at_floor(8), Error::FloorAboveVersion);
    let stored = |floor| sealed.by_grant(&terms, None, floor).map(|_| ());
    assert_eq!([0, 6, 7].map(stored), [Ok(()); 3]);
    refused(stored(8), Error::RolledBack);
    refused(stored(u64::MAX), Error::RolledBack);

    let at = |not_before, not_after, now| {
        let validity = Some(Validity { not_before, not_after });
        sealed.by_grant(&Terms { validity, ..terms.clone() }, now, 0).map(|_| ())
    };
    assert_eq!(at(5, 6, Some(5)), Ok(()));
    refused(at(5, 6, Some(4)), Error::NotYetValid);
    refused(at(5, 6, Some(6)), Error::Expired);
    refused(at(5, 5, Some(5)), Error::Validity);
    refused(at(6, 5, Some(5)), Error::Validity);
    refused(at(0, u64::MAX, None), Error::NoClock);
    assert_eq!(at(0, u64::MAX, Some(0)), Ok(()));
    assert_eq!(at(0, u64::MAX, Some(u64::MAX - 1)), Ok(()));
    refused(at(0, u64::MAX, Some(u64::MAX)), Error::Expired);
    refused(at(u64::MAX - 1, u64::MAX, Some(u64::MAX - 2)), Error::NotYetValid);
}

fn unsigned(sealed: &Sealed) -> UnsignedGrant {
    let terms = Terms::new(&sealed.unwrapped(), DeviceId::new("dev").unwrap());
    unsigned_with(sealed, &terms)
}

fn unsigned_with(sealed: &Sealed, terms: &Terms<'_>) -> UnsignedGrant {
    let public = X25519Secret::from_bytes(&[6; 32]).public().unwrap();
    wrap_for_x25519(&sealed.unwrapped(), terms, &public, &mut Sevens).unwrap()
}

/// The longest that this version makes: 12 + 129 of terms + 81 of wrapping, and what follows.
#[test]
#[cfg_attr(miri, ignore)]
fn the_longest_grants() {
    let sealed = seal(Subject { version: u64::MAX, ..subject() }, 1);
    let long = "a".repeat(64);
    let mut terms = Terms::new(&sealed.unwrapped(), DeviceId::new(&long).unwrap());
    terms.validity = Some(Validity { not_before: u64::MAX - 1, not_after: u64::MAX });
    assert!(sealed.by_grant(&terms, Some(u64::MAX - 1), u64::MAX).is_ok());
    let key = DeviceKey::from_bytes(&[5; 32]);
    let shared = wrap_for_device_key(&sealed.unwrapped(), &terms, &key, &mut Sevens).unwrap();
    assert_eq!(shared.len(), 12 + 129 + 81 + 1);
    assert_eq!(Grant::parse(&shared).unwrap().signature(), None);

    let signature = Signature::from_bytes(&counting(1));
    let path = PathSignature { signature, siblings: [[2; 32]; 16].into_iter().collect(), sides: u16::MAX };
    let signed = unsigned_with(&sealed, &terms).sign(&path).unwrap();
    assert_eq!(signed.len(), 12 + 129 + 81 + 1 + 64 + 1 + 512 + 3);
    let parsed = Grant::parse(&signed).unwrap();
    assert_eq!((parsed.terms(), parsed.signature().as_ref()), (&terms, Some(&path)));
}

/// Every number of siblings, on either side, and each bit beyond them.
#[test]
#[cfg_attr(miri, ignore)]
fn the_path_to_the_root() {
    let sealed = seal(subject(), 1);
    let unsigned = unsigned(&sealed);
    for n in 0..=16 {
        let siblings: Vec<[u8; 32]> = (0..n).map(|i| [i; 32]).collect();
        let all = ((1u32 << n) - 1) as u16;
        for sides in [0, all, all & 0x5555, all & 0xaaaa, all & 0x8001] {
            let mut node = unsigned.leaf();
            for (i, sibling) in siblings.iter().enumerate() {
                let parts = if sides & (1 << i) != 0 { [sibling, &node] } else { [&node, sibling] };
                node = *blake3::hash(&[&[1][..], parts[0], parts[1]].concat()).as_bytes();
            }
            let signature = sign(&[&b"modelseal/v1/grants\0"[..], &node].concat());
            let path = PathSignature { signature, siblings: siblings.iter().copied().collect(), sides };
            let grant = unsigned.sign(&path).unwrap();
            assert!(Grant::parse(&grant).unwrap().verify(&trust()).is_ok(), "{n} siblings, {sides:#x}");
            for bit in 0..16 {
                let turned =
                    unsigned.sign(&PathSignature { sides: sides ^ (1 << bit), ..path.clone() }).unwrap();
                if bit >= n {
                    refused(Grant::parse(&turned).map(|_| ()), Error::GrantPath);
                } else {
                    let grant = Grant::parse(&turned).unwrap();
                    refused(grant.verify(&trust()).map(|_| ()), Error::GrantSignature);
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore)]
fn seventeen_siblings_are_too_many() {
    let sealed = seal(subject(), 1);
    let signature = Signature::from_bytes(&[1; 64]);
    let siblings = [[2; 32]; 16].into_iter().collect();
    let grant = unsigned(&sealed).sign(&PathSignature { signature, siblings, sides: 0 }).unwrap();
    assert!(Grant::parse(&grant).is_ok());
    let (before, rest) = grant.split_at(grant.len() - 1 - 16 * 32 - 1);
    assert_eq!(rest[0], 16, "the number of siblings");
    let mut longer = [before, &[17], &[2; 32], &rest[1..]].concat();
    let length = (longer.len() - GRANT_PREFIX_LEN) as u16;
    longer[10..12].copy_from_slice(&length.to_le_bytes());
    refused(Grant::parse(&longer).map(|_| ()), Error::GrantEncoding);
}

// ---- Signatures ----

#[test]
#[cfg_attr(miri, ignore)]
fn signatures_and_keys() {
    let signature = Signature::from_bytes(&counting(1));
    assert_eq!(signature.to_bytes(), counting(1));
    let key = trust().keys()[0];
    for n in 0..=4 {
        assert_eq!(Publisher::new(&vec![key; n]).unwrap().keys().len(), n);
    }
    refused(Publisher::new(&[key; 5]), Error::Key);
    assert!(trust().has_signed(b"m", &sign(b"m")) && !trust().has_signed(b"n", &sign(b"m")));
    assert!(!Publisher::default().has_signed(b"m", &sign(b"m")));
    // Any one of several will do, whatever kind the others are.
    let p256 = p256::ecdsa::SigningKey::from_slice(&[4; 32]).unwrap();
    let point = p256.verifying_key().to_sec1_point(false);
    let p256 = PublisherKey::EcdsaP256 { x: (*point.x().unwrap()).into(), y: (*point.y().unwrap()).into() };
    for keys in [[p256, p256, p256, key], [key, p256, p256, p256]] {
        assert!(Publisher::new(&keys).unwrap().has_signed(b"m", &sign(b"m")));
    }
    refused(Publisher::new(&[key, PublisherKey::Ed25519([0; 32])]), Error::Key);
    // Only ECDSA has two forms; what isn't one of its signatures stays as it is.
    assert_eq!(key.canonical(signature), signature);
    for outside in [[0; 64], [0xff; 64]] {
        let outside = Signature::from_bytes(&outside);
        assert_eq!(p256.canonical(outside), outside);
    }
}

// ---- Sealing and opening ----

/// R is the neutral element and s = k·a, so that sB = R + kA holds: section 5 refuses it all the same.
#[test]
fn a_signature_whose_r_has_small_order_verifies_nothing() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let publisher = Publisher::new(&[PublisherKey::Ed25519(key.verifying_key().to_bytes())]).unwrap();
    let mut signature = [0; SIGNATURE_LEN];
    signature[0] = 1;
    hex::decode_to_slice(
        "63cf8136759ff1d122a80939e10df3d60d4043404e708abeae698f05807ec305",
        &mut signature[32..],
    )
    .unwrap();
    let message = b"modelseal";
    assert!(key.verifying_key().verify(message, &signature.into()).is_ok(), "the equation must hold");
    assert!(!publisher.has_signed(message, &Signature::from_bytes(&signature)));
}

#[test]
#[cfg_attr(miri, ignore)]
fn sealing_takes_exactly_the_chunks_there_are() {
    let mut sealing = sealing(subject(), 2).unwrap();
    assert_eq!(sealing.layout(), Layout::of(&subject(), 2).unwrap());
    for length in [1024, 1024, 452] {
        for wrong in [0, length - 1, length + 1] {
            refused(sealing.seal_next(&mut vec![0; wrong]), Error::Memory);
        }
        sealing.seal_next(&mut vec![0; length]).unwrap();
    }
    for wrong in [0, 1, 1024] {
        refused(sealing.seal_next(&mut vec![0; wrong]), Error::Memory);
    }
    assert_eq!(sealing.finish().unwrap().slots(), 2);
}

/// Chunks may be encrypted in any order: a seat is one chunk's, and there is one for each.
#[test]
#[cfg_attr(miri, ignore)]
fn seats_are_given_out_once_and_seal_what_one_after_the_other_does() {
    let one_by_one = seal(subject(), 1);
    let mut sealing = sealing(subject(), 1).unwrap();
    let mut payload = vec![0x2a; one_by_one.payload.len()];
    let entries: Vec<Entry> = {
        let (seats, _) = sealing.split();
        let mut places: Vec<_> = seats.zip(payload.chunks_mut(1024)).collect();
        assert_eq!(places.len(), 3);
        places.reverse();
        let mut entries: Vec<_> = places.into_iter().map(|(seat, chunk)| seat.seal(chunk).unwrap()).collect();
        entries.reverse();
        entries
    };
    assert!(payload == one_by_one.payload && entries == one_by_one.entries);
    let (mut seats, mut places) = sealing.split();
    assert!(seats.next().is_none(), "each once, however often it is split");
    entries.iter().for_each(|entry| places.push(entry).unwrap());
    assert_eq!(sealing.finish().unwrap().header_bytes(), one_by_one.header);
    let mut other = self::sealing(subject(), 1).unwrap();
    let (mut seats, _) = other.split();
    refused(seats.next().unwrap().seal(&mut [0; 1023]).map(|_| ()), Error::Memory);
}

#[test]
#[cfg_attr(miri, ignore)]
fn an_index_has_exactly_the_entries_there_are() {
    let sealed = seal(Subject { length: 2048, ..subject() }, 1);
    let check = |entries: &[Entry]| {
        let mut check = IndexCheck::new(&sealed.header());
        entries.iter().try_for_each(|entry| check.push(entry))?;
        check.finish().map(|_| ())
    };
    assert_eq!(check(&sealed.entries), Ok(()));
    for entries in [&[][..], &sealed.entries[..1], &[&sealed.entries[..], &sealed.entries[..1]].concat()] {
        refused(check(entries), Error::Index);
    }
    // One entry that holds the root itself is right for one chunk only.
    let root = Entry { tag: [0; 16], chaining_value: sealed.header().manifest().root };
    refused(check(&[root]), Error::Index);
}

#[test]
#[cfg_attr(miri, ignore)]
fn a_chunk_has_exactly_its_length() {
    for length in [1, 1023, 1024, 1025, 2048] {
        let sealed = seal(Subject { length, ..subject() }, 1);
        let index = sealed.index();
        for (i, (chunk, entry)) in (0..).zip(sealed.payload.chunks(1024).zip(&sealed.entries)) {
            assert_eq!(index.check_chunk(i, entry, chunk), Ok(()), "{i} of {length}");
            refused(index.check_chunk(i, entry, &chunk[1..]), Error::Memory);
            refused(index.check_chunk(i, entry, &[chunk, &[0]].concat()), Error::Memory);
            let tag = Entry { tag: [0; 16], ..*entry };
            assert_eq!(index.check_chunk(i, &tag, chunk), Ok(()), "a tag takes the key");
            let value = Entry { chaining_value: [0; 32], ..*entry };
            refused(index.check_chunk(i, &value, chunk), Error::Chunk);
        }
        refused(index.check_chunk(sealed.entries.len() as u64, &sealed.entries[0], &[]), Error::Memory);
    }
}

#[test]
#[cfg_attr(miri, ignore)]
fn a_lazy_model_gives_out_what_passed_and_wipes_the_rest() {
    let sealed = seal(subject(), 1);
    let lazy = sealed.unwrapped().into_lazy(sealed.index()).unwrap();
    let lazy: Chunks<'_> = lazy.keyed().unwrap();
    assert_eq!(lazy.layout(), sealed.header().layout());
    for (i, entry) in (0u64..).zip(&sealed.entries) {
        let chunk = || sealed.payload.chunks(1024).nth(i as usize).unwrap().to_vec();
        let mut opened = chunk();
        lazy.open_chunk(i, entry, &mut opened).unwrap();
        assert!(opened.iter().all(|byte| *byte == 0x2a));
        let (mut ciphertext, mut of_tag) = (chunk(), chunk());
        ciphertext[0] ^= 1;
        refused(lazy.open_chunk(i, entry, &mut ciphertext), Error::Chunk);
        refused(lazy.open_chunk(i, &Entry { tag: [0; 16], ..*entry }, &mut of_tag), Error::Chunk);
        assert!([ciphertext, of_tag].concat().iter().all(|byte| *byte == 0), "wiped");
    }
    // From one place into another.
    for (i, entry) in (0u64..).zip(&sealed.entries) {
        let mut chunk = sealed.payload.chunks(1024).nth(i as usize).unwrap().to_vec();
        let mut opened = vec![0xee; chunk.len()];
        lazy.open_chunk_into(i, entry, &chunk, &mut opened).unwrap();
        assert!(opened.iter().all(|byte| *byte == 0x2a));
        let mut short = vec![0xee; chunk.len() - 1];
        refused(lazy.open_chunk_into(i, entry, &chunk, &mut short), Error::Memory);
        let of_tag = Entry { tag: [0; 16], ..*entry };
        let mut wiped = vec![0xee; chunk.len()];
        refused(lazy.open_chunk_into(i, &of_tag, &chunk, &mut wiped), Error::Chunk);
        chunk[0] ^= 1;
        refused(lazy.open_chunk_into(i, entry, &chunk, &mut opened), Error::Chunk);
        assert!([short, wiped, opened].concat().iter().all(|byte| *byte == 0), "wiped");
    }
    // The same payload and root behind another layout.
    let wider = seal(subject(), 2);
    assert_eq!(wider.header().manifest(), sealed.header().manifest());
    refused(wider.unwrapped().into_lazy(sealed.index()).map(|_| ()), Error::Index);
}

/// A store that counts what it is asked.
#[derive(Default)]
struct Store {
    floor: u64,
    read: usize,
    raised: Vec<u64>,
    broken: bool,
}

impl FloorStore for Store {
    fn floor(&mut self) -> Result<u64, Error> {
        self.read += 1;
        Ok(self.floor)
    }

    fn raise(&mut self, floor: u64) -> Result<(), Error> {
        self.raised.push(floor);
        if self.broken { Err(Error::Storage) } else { Ok(()) }
    }
}

#[test]
#[cfg_attr(miri, ignore)]
fn confirming_stores_the_higher_floor_and_nothing_else() {
    let sealed = seal(subject(), 1);
    let device = DeviceId::new("dev").unwrap();
    let terms = Terms { floor: 5, ..Terms::new(&sealed.unwrapped(), device) };
    let tag = |i: u64| Ok(sealed.entries[i as usize].tag);
    for (floor, raised) in [(0, vec![5]), (4, vec![5]), (5, vec![]), (6, vec![]), (7, vec![])] {
        let mut store = Store { floor, ..Store::default() };
        let mut memory = sealed.payload.clone();
        let unwrapped = sealed.by_grant(&terms, None, floor).unwrap();
        let model = unwrapped.open_in_place(&mut memory, tag).unwrap().confirm(&mut store).unwrap();
        assert!(model.iter().all(|byte| *byte == 0x2a));
        assert_eq!((store.raised, store.read), (raised.clone(), 1));

        let mut store = Store { floor, ..Store::default() };
        let unwrapped = sealed.by_grant(&terms, None, floor).unwrap();
        let lazy: Lazy = unwrapped.into_lazy(sealed.index()).unwrap();
        let mut again = Store { floor, ..Store::default() };
        lazy.confirmation().confirm(&mut again).unwrap();
        lazy.finish().confirm(&mut store).unwrap();
        assert_eq!((store.raised, again.raised), (raised.clone(), raised), "lazily");
    }
    let mut store = Store { broken: true, ..Store::default() };
    let mut memory = sealed.payload.clone();
    let opened = sealed.by_grant(&terms, None, 0).unwrap().open_in_place(&mut memory, tag).unwrap();
    refused(opened.confirm(&mut store).map(|_| ()), Error::Storage);
    assert!(memory.iter().all(|byte| *byte == 0), "wiped");
    // Without confirming there is a model and no floor; a vault has no floor to store.
    let mut memory = sealed.payload.clone();
    let opened = sealed.unwrapped().open_in_place(&mut memory, tag).unwrap();
    assert!(opened.unconfirmed().iter().all(|byte| *byte == 0x2a));
    let mut memory = sealed.payload.clone();
    let opened = sealed.unwrapped().open_in_place(&mut memory, tag).unwrap();
    let mut store = Store::default();
    assert!(opened.confirm(&mut store).is_ok());
    assert_eq!((store.read, store.raised), (0, vec![]));
}

#[test]
#[cfg_attr(miri, ignore)]
fn memory_has_exactly_the_length_of_the_model() {
    let sealed = seal(subject(), 1);
    for length in [0, 2499, 2501] {
        let mut memory = vec![0xaa; length];
        refused(sealed.unwrapped().open_in_place(&mut memory, |_| Ok([0; 16])).map(|_| ()), Error::Memory);
        assert!(memory.iter().all(|byte| *byte == 0), "wiped");
    }
}

// ---- Errors ----

#[test]
fn numbers_classes_and_names() {
    let all = Error::ALL;
    assert!(all.is_sorted_by_key(|error| error.code()));
    for distinct in [
        all.map(|error| error.code().to_string()),
        all.map(|error| error.name().to_owned()),
        all.map(|error| error.to_string()),
    ] {
        assert_eq!(BTreeSet::from(distinct).len(), all.len());
    }
    for error in all {
        let class = match error.code() {
            300..400 => Class::NotAuthentic,
            400..500 => Class::Refused,
            600..700 => Class::Storage,
            700..800 => Class::Unsupported,
            code => unreachable!("{code}"),
        };
        assert_eq!(error.class(), class);
        assert_eq!(u16::from(class as u8), error.code() / 100);
        assert_eq!(error.name(), format!("{error:?}"));
    }
    assert_eq!([all[0].code(), all[41].code()], [301, 703]);
}
