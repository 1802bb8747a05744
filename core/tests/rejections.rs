//! Every rejection, each by the smallest change that causes it. The last test sees to it that none is missing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Mutex;

use ed25519_dalek::{Signer, SigningKey};
use modelseal_core::Error;
use modelseal_core::grant::*;
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::lazy::{Chunks, IndexCheck};
use modelseal_core::manifest::{Claim, Manifest, Subject, Suite};
use modelseal_core::open::{Conditions, FloorStore, Opened, Request, Unwrapped};
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::{Entry, Envelope, Header, PREFIX_LEN, Prefix, SLOT_LEN};
use modelseal_core::sign::{Publisher, PublisherKey, Signature};
use rand_core::{TryCryptoRng, TryRng};

static SEEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Notes that this rejection has been seen.
fn refused<T>(result: Result<T, Error>, expected: Error) {
    assert_eq!(result.map(|_| ()), Err(expected));
    SEEN.lock().unwrap().insert(expected.code());
}

/// A counter: what is random needn't be, here.
struct Rng(u8);

impl Rng {
    fn new(seed: u8) -> Self {
        Self(seed)
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill_with(|| {
            self.0 = self.0.wrapping_mul(5).wrapping_add(3);
            self.0
        });
        Ok(())
    }
}

impl TryCryptoRng for Rng {}

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

/// A sealed model in parts, and all the keys.
struct Sealed {
    publisher: SigningKey,
    header: Vec<u8>,
    signature: Signature,
    content: [u8; 32],
    entries: Vec<Entry>,
    payload: Vec<u8>,
}

fn seal_as(subject: Subject<'_>) -> Sealed {
    let publisher = SigningKey::from_bytes(&[9; 32]);
    let mut payload: Vec<u8> = (0..subject.length).map(|i| i as u8).collect();
    let mut sealing: Sealing<'_> = Sealing::new(subject, 1, &mut Rng::new(1)).unwrap();
    let size = sealing.layout().chunk_size as usize;
    let entries = payload.chunks_mut(size).map(|chunk| sealing.seal_next(chunk).unwrap()).collect();
    let unsigned = sealing.finish().unwrap();
    let signature = publisher.sign(&unsigned.header().unwrap().signed_bytes());
    let signature = Signature::from_bytes(&signature.to_bytes());
    let content = *unsigned.content_key().expose_to_vault();
    Sealed { publisher, header: unsigned.header_bytes().to_vec(), signature, content, entries, payload }
}

fn seal() -> Sealed {
    seal_as(subject())
}

impl Sealed {
    fn trust(&self) -> Publisher {
        Publisher::new(&[PublisherKey::Ed25519(self.publisher.verifying_key().to_bytes())]).unwrap()
    }

    fn header(&self) -> Header<'_> {
        Header::parse(&self.header).unwrap()
    }

    fn unwrapped(&self) -> Unwrapped<'_> {
        let header = self.header().verify(&self.signature, &self.trust()).unwrap();
        Unwrapped::by_vault(header, &self.content).unwrap()
    }

    fn terms<'a>(&self) -> Terms<'a> {
        Terms::new(&self.unwrapped(), DeviceId::new("dev").unwrap())
    }

    fn grant(&self, terms: &Terms<'_>) -> GrantBytes {
        wrap_for_device_key(&self.unwrapped(), terms, &key(5), &mut Rng::new(2)).unwrap()
    }

    fn signed_grant(&self, terms: &Terms<'_>) -> GrantBytes {
        let public = x25519(6).public().unwrap();
        let grant = wrap_for_x25519(&self.unwrapped(), terms, &public, &mut Rng::new(2)).unwrap();
        let signature = self.publisher.sign(&grants_message(&grant.leaf()));
        let signature = Signature::from_bytes(&signature.to_bytes());
        grant.sign(&PathSignature { signature, siblings: Default::default(), sides: 0 }).unwrap()
    }

    /// Steps 1 to 6, as the device `dev` with the key 5.
    fn unwrap(&self, grant: &[u8], with: With) -> Result<Unwrapped<'_>, Error> {
        let request = Request::new(Header::parse(&self.header)?, self.signature, Grant::parse(grant)?);
        let named = request.authenticate(&with.secret, &self.trust())?.name(with.line)?;
        let device = DeviceId::new(with.device)?;
        let conditions = Conditions { line: with.line, device, now: with.now, floor: with.floor };
        named.admit(&conditions)?.unwrap(&with.secret, &conditions)
    }

    fn open<'m>(&self, memory: &'m mut [u8]) -> Result<Opened<'m>, Error> {
        self.unwrapped().open_in_place(memory, |i| Ok(self.entries[i as usize].tag))
    }
}

fn key(byte: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[byte; 32])
}

fn x25519(byte: u8) -> X25519Secret {
    X25519Secret::from_bytes(&[byte; 32])
}

struct With {
    secret: Secret,
    line: &'static str,
    device: &'static str,
    now: Option<u64>,
    floor: u64,
}

fn with() -> With {
    With { secret: Secret::DeviceKey(key(5)), line: "wake-word", device: "dev", now: Some(100), floor: 0 }
}

/// The same manifest with another subject, encoded without any check.
fn header_of(subject: Subject<'_>) -> Vec<u8> {
    let manifest = Manifest { subject, commitment: [0; 32], root: [0; 32] };
    let mut buffer = [0; 2048];
    let encoded = postcard::to_slice(&manifest, &mut buffer).unwrap();
    header_with(encoded)
}

fn header_with(manifest: &[u8]) -> Vec<u8> {
    let mut header = seal().header[..PREFIX_LEN].to_vec();
    header[10..12].copy_from_slice(&(manifest.len() as u16).to_le_bytes());
    header.extend_from_slice(manifest);
    header
}

fn what_is_sealed_opens() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let sealed = seal_as(Subject { suite, ..subject() });
        let mut memory = sealed.payload.clone();
        let opened = sealed.open(&mut memory).unwrap();
        assert!(opened.model().iter().enumerate().all(|(i, byte)| *byte == i as u8));
        for grant in [sealed.grant(&sealed.terms()), sealed.signed_grant(&sealed.terms())] {
            let secret = match Grant::parse(&grant).unwrap().wrapping() {
                Wrapping::DeviceKey { .. } => Secret::DeviceKey(key(5)),
                Wrapping::Hpke { .. } => Secret::X25519(x25519(6)),
            };
            assert!(sealed.unwrap(&grant, With { secret, ..with() }).is_ok());
        }
    }
}

fn prefix() {
    let good: [u8; PREFIX_LEN] = *seal().header.first_chunk().unwrap();
    let edited = |at: usize, bytes: &[u8]| {
        let mut prefix = good;
        prefix[at..at + bytes.len()].copy_from_slice(bytes);
        Prefix::parse(&prefix)
    };
    refused(edited(0, b"\x88"), Error::ForeignMagic);
    refused(edited(7, b"\r"), Error::ForeignMagic);
    refused(edited(8, &[0, 0]), Error::UnknownVersion);
    refused(edited(8, &[2, 0]), Error::UnknownVersion);
    refused(edited(8, &[1, 1]), Error::UnknownVersion);
    refused(edited(10, &0u16.to_le_bytes()), Error::ManifestLength);
    refused(edited(10, &1025u16.to_le_bytes()), Error::ManifestLength);
    for len in [0, 63, 64, 65, 64 + 128 * 17, u32::MAX, u32::MAX - 63] {
        refused(edited(12, &u32::to_le_bytes(len)), Error::EnvelopeLength);
    }
    for slots in [1, 16] {
        assert!(edited(12, &u32::to_le_bytes(64 + 128 * slots)).is_ok());
    }
    refused(edited(12, &u32::to_le_bytes(64 * (1 + 3))), Error::OldSlots);
    refused(Envelope::parse(&[0; 64]), Error::EnvelopeLength);
    refused(Envelope::parse(&[0; 64 + SLOT_LEN * 17]), Error::EnvelopeLength);
}

fn header_shape() {
    let header = seal().header;
    for len in 0..header.len() {
        refused(Header::parse(&header[..len]), Error::Truncated);
    }
    refused(Header::parse(&[&header[..], &[0]].concat()), Error::Extended);
    // The manifest's length says one byte more, which is there.
    let manifest = &header[PREFIX_LEN..];
    refused(Header::parse(&header_with(&[manifest, &[0]].concat())), Error::ManifestEncoding);
    refused(Header::parse(&header_with(&manifest[..manifest.len() - 1])), Error::ManifestEncoding);
    // The version, 7, as a varint of two bytes.
    let at = 4 + "wake-word".len();
    let long = [&manifest[..at], &[0x87, 0], &manifest[at + 1..]].concat();
    refused(Header::parse(&header_with(&long)), Error::ManifestEncoding);
    for suite in [0, 3, 255] {
        let other = [&[suite], &manifest[1..]].concat();
        refused(Header::parse(&header_with(&other)), Error::UnknownSuite);
    }
}

fn subject_bounds() {
    let parse = |subject: Subject<'_>| Header::parse(&header_of(subject)).map(|_| ());
    for chunk_log2 in [0, 9, 21, 255] {
        refused(parse(Subject { chunk_log2, ..subject() }), Error::ChunkSize);
    }
    for align_log2 in [0, 3, 17, 255] {
        refused(parse(Subject { align_log2, ..subject() }), Error::Alignment);
    }
    let long = "a".repeat(65);
    for line in ["", "Wake", "wake word", "wäke", long.as_str()] {
        refused(parse(Subject { line, ..subject() }), Error::Line);
    }
    for kind in ["", "ONNX", "12345678901234567"] {
        refused(parse(Subject { kind, ..subject() }), Error::Kind);
    }
    for length in [0, (1 << 48) + 1, u64::MAX] {
        refused(parse(Subject { length, ..subject() }), Error::Length);
    }
    let long = "a".repeat(129);
    let key_long = "k".repeat(33);
    for claims in [
        &[("b", "1"), ("a", "2")][..],
        &[("a", "1"), ("a", "2")],
        &[("", "1")],
        &[("A", "1")],
        &[(key_long.as_str(), "1")],
        &[("a", "line\nbreak")],
        &[("a", "right\u{202e}to left")],
        &[("a", "zero\u{200b}width")],
        &[("a", "\u{2028}")],
        &[("a", long.as_str())],
    ] {
        let claims = claims.iter().map(|(key, value)| Claim { key, value }).collect();
        refused(parse(Subject { claims, ..subject() }), Error::Claims);
    }
    let bounds = Subject { chunk_log2: 20, align_log2: 16, length: 1 << 48, ..subject() };
    assert!(parse(bounds).is_ok());
}

fn keys() {
    // The identity of the curve, and a point of order 8 (RFC 8032 encodings).
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let order_8: [u8; 32] = hex::decode(order_8).unwrap().try_into().unwrap();
    let mut identity = [0; 32];
    identity[0] = 1;
    // y = 2 is no point's.
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    // y = p + 3, which is 3 said otherwise.
    let mut unreduced = [0xff; 32];
    (unreduced[0], unreduced[31]) = (0xf0, 0x7f);
    for weak in [identity, order_8, off_curve, unreduced] {
        refused(Publisher::new(&[PublisherKey::Ed25519(weak)]), Error::Key);
    }
    refused(Publisher::new(&[PublisherKey::EcdsaP256 { x: [1; 32], y: [1; 32] }]), Error::Key);
    refused(Publisher::new(&[seal().trust().keys()[0]; 5]), Error::Key);
    // One key in other encodings: bit 255 set, p + 9, and p + 9 with bit 255 set.
    let base = |first, rest, last| {
        let mut point = [rest; 32];
        (point[0], point[31]) = (first, last);
        check_x25519(&point, &mut Rng::new(3))
    };
    for (first, rest, last) in [(9, 0, 0), (0xec - 9, 0xff, 0x7f)] {
        assert!(base(first, rest, last).is_ok());
    }
    for (first, rest, last) in [(9, 0, 0x80), (0xf6, 0xff, 0x7f), (0xf6, 0xff, 0xff), (9, 1, 0xff)] {
        refused(base(first, rest, last), Error::Key);
    }
    for low_order in [[0; 32], identity] {
        refused(check_x25519(&low_order, &mut Rng::new(3)), Error::Key);
        let sealed = seal();
        let wrapped = wrap_for_x25519(&sealed.unwrapped(), &sealed.terms(), &low_order, &mut Rng::new(3));
        refused(wrapped.map(|_| ()), Error::Key);
    }
}

fn signatures() {
    let sealed = seal();
    let other = SigningKey::from_bytes(&[8; 32]);
    let by_other = Signature::from_bytes(&other.sign(&sealed.header().signed_bytes()).to_bytes());
    for signature in [by_other, Signature::from_bytes(&[0; 64])] {
        refused(sealed.header().verify(&signature, &sealed.trust()), Error::ManifestSignature);
    }
    refused(sealed.header().verify(&sealed.signature, &Publisher::default()), Error::ManifestSignature);

    use p256::ecdsa::signature::Signer as _;
    let key = p256::ecdsa::SigningKey::from_slice(&[4; 32]).unwrap();
    let point = key.verifying_key().to_sec1_point(false);
    let (x, y) = ((*point.x().unwrap()).into(), (*point.y().unwrap()).into());
    let trust = Publisher::new(&[PublisherKey::EcdsaP256 { x, y }]).unwrap();
    let low: p256::ecdsa::Signature = key.sign(&sealed.header().signed_bytes());
    let low = low.normalize_s();
    let high = p256::ecdsa::Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
    let bytes = |signature: p256::ecdsa::Signature| Signature::from_bytes(&signature.to_bytes().into());
    assert!(sealed.header().verify(&bytes(low), &trust).is_ok());
    refused(sealed.header().verify(&bytes(high), &trust), Error::ManifestSignature);
    assert_eq!(trust.keys()[0].canonical(bytes(high)), bytes(low));
}

fn grant_shape() {
    let sealed = seal();
    let grant = sealed.grant(&sealed.terms());
    let edited = |at: usize, bytes: &[u8]| {
        let mut grant = grant.to_vec();
        grant[at..at + bytes.len()].copy_from_slice(bytes);
        Grant::parse(&grant).map(|_| ())
    };
    refused(edited(0, b"\x88"), Error::ForeignMagic);
    refused(edited(8, &[2, 0]), Error::UnknownVersion);
    refused(edited(10, &[0, 0]), Error::GrantLength);
    refused(edited(10, &2037u16.to_le_bytes()), Error::GrantLength);
    refused(edited(10, &2036u16.to_le_bytes()), Error::Truncated);
    refused(edited(12, &[9]), Error::UnknownSuite);
    refused(edited(12 + 33 + 1, b" "), Error::DeviceId);
    refused(Grant::parse(&grant[..grant.len() - 1]).map(|_| ()), Error::Truncated);
    refused(Grant::parse(&[&grant[..], &[0]].concat()).map(|_| ()), Error::Extended);
    // One byte more that the length knows of.
    let mut longer = [&grant[..], &[0]].concat();
    longer[10] += 1;
    refused(Grant::parse(&longer).map(|_| ()), Error::GrantEncoding);
    // The floor, 7, as a varint of two bytes.
    let at = 12 + 33 + 4;
    let mut long = [&grant[..at], &[0x87, 0], &grant[at + 1..]].concat();
    long[10] += 1;
    refused(Grant::parse(&long).map(|_| ()), Error::GrantEncoding);
    // `None` where a signature must be, and a signature where none may be.
    let signed = sealed.signed_grant(&sealed.terms());
    let end = signed.len() - (1 + 64 + 1 + 1);
    let resized = |bytes: Vec<u8>| {
        let mut bytes = bytes;
        let len = (bytes.len() - GRANT_PREFIX_LEN) as u16;
        bytes[10..12].copy_from_slice(&len.to_le_bytes());
        Grant::parse(&bytes).map(|_| ())
    };
    refused(resized([&signed[..end], &[0]].concat()), Error::GrantForm);
    refused(resized([&grant[..grant.len() - 1], &signed[end..]].concat()), Error::GrantForm);
    // No siblings, and yet a side.
    refused(resized([&signed[..signed.len() - 1], &[1]].concat()), Error::GrantPath);
}

fn terms_bounds() {
    let sealed = seal();
    let wrap = |terms: &Terms<'_>| {
        wrap_for_device_key(&sealed.unwrapped(), terms, &key(5), &mut Rng::new(2)).map(|_| ())
    };
    for (not_before, not_after) in [(5, 5), (6, 5)] {
        let validity = Some(Validity { not_before, not_after });
        refused(wrap(&Terms { validity, ..sealed.terms() }), Error::Validity);
    }
    refused(wrap(&Terms { floor: 8, ..sealed.terms() }), Error::FloorAboveVersion);
    let other = seal_as(Subject { version: 8, ..subject() });
    refused(wrap(&Terms { floor: 1, ..other.terms() }), Error::OtherModel);
    refused(wrap(&Terms { suite: Suite::ChaCha20Poly1305, ..sealed.terms() }), Error::OtherSuite);
    let long = "1".repeat(65);
    for id in ["", "a b", "ä", ".", "..", ".a", "-a", "_a", "a/b", &long] {
        refused(DeviceId::new(id), Error::DeviceId);
    }
    for id in ["a", "9", "A..", "123e4567-e89b-12d3-a456-426614174000", &long[1..]] {
        assert!(DeviceId::new(id).is_ok(), "{id}");
    }
}

fn who_and_what() {
    let sealed = seal();
    let other = seal_as(Subject { version: 8, ..subject() });
    let (derived, signed) = (sealed.grant(&sealed.terms()), sealed.signed_grant(&sealed.terms()));
    let hpke = || Secret::X25519(x25519(6));
    let hpke_with = || With { secret: hpke(), ..with() };

    refused(other.unwrap(&derived, with()).map(|_| ()), Error::OtherModel);
    refused(other.unwrap(&signed, hpke_with()).map(|_| ()), Error::OtherModel);
    // Without a publisher's signature it isn't another model, but a changed one.
    let mut forged = seal_as(Subject { version: 8, ..subject() });
    forged.signature = Signature::from_bytes(&[1; 64]);
    refused(forged.unwrap(&derived, with()).map(|_| ()), Error::ManifestSignature);
    refused(forged.unwrap(&signed, hpke_with()).map(|_| ()), Error::ManifestSignature);

    let wrong_key = || With { secret: Secret::DeviceKey(key(4)), ..with() };
    refused(sealed.unwrap(&derived, wrong_key()).map(|_| ()), Error::GrantKey);
    // For another model and another device at once: of what doesn't open nothing is believed, not even its model.
    refused(other.unwrap(&derived, wrong_key()).map(|_| ()), Error::GrantKey);
    refused(sealed.unwrap(&derived, hpke_with()).map(|_| ()), Error::GrantKey);
    refused(sealed.unwrap(&signed, with()).map(|_| ()), Error::GrantKey);
    let wrong_key = With { secret: Secret::X25519(x25519(7)), ..with() };
    refused(sealed.unwrap(&signed, wrong_key).map(|_| ()), Error::GrantKey);

    let mut unsigned = signed.clone();
    let last = unsigned.len() - 3;
    unsigned[last] ^= 1;
    refused(sealed.unwrap(&unsigned, hpke_with()).map(|_| ()), Error::GrantSignature);

    refused(sealed.unwrap(&derived, With { line: "other", ..with() }).map(|_| ()), Error::OtherLine);
    refused(sealed.unwrap(&derived, With { device: "dev2", ..with() }).map(|_| ()), Error::OtherDevice);
    refused(sealed.unwrap(&signed, With { device: "de", ..hpke_with() }).map(|_| ()), Error::OtherDevice);
    refused(sealed.unwrap(&derived, With { floor: 8, ..with() }).map(|_| ()), Error::RolledBack);
    assert!(sealed.unwrap(&derived, With { floor: 7, ..with() }).is_ok());

    let header = sealed.header().verify(&sealed.signature, &sealed.trust()).unwrap();
    refused(Unwrapped::by_vault(header, &[0; 32]).map(|_| ()), Error::Commitment);
}

fn when() {
    let sealed = seal();
    let validity = Some(Validity { not_before: 100, not_after: 200 });
    let grant = sealed.grant(&Terms { validity, ..sealed.terms() });
    let at = |now| sealed.unwrap(&grant, With { now, ..with() }).map(|_| ());
    refused(at(None), Error::NoClock);
    refused(at(Some(0)), Error::NotYetValid);
    refused(at(Some(99)), Error::NotYetValid);
    assert_eq!(at(Some(100)), Ok(()));
    assert_eq!(at(Some(199)), Ok(()));
    refused(at(Some(200)), Error::Expired);
    refused(at(Some(u64::MAX)), Error::Expired);
}

fn payload() {
    let sealed = seal();
    let mut short = sealed.payload[1..].to_vec();
    refused(sealed.open(&mut short).map(|_| ()), Error::Memory);
    for at in [0, 1023, 1024, 2499] {
        let mut memory = sealed.payload.clone();
        memory[at] ^= 0x10;
        refused(sealed.open(&mut memory).map(|_| ()), Error::Chunk);
        assert!(memory.iter().all(|byte| *byte == 0), "wiped");
    }
    refused(
        sealed.unwrapped().open_in_place(&mut sealed.payload.clone(), |_| Err(Error::Storage)).map(|_| ()),
        Error::Storage,
    );
    // Another payload, sealed by the holder of the content key: every tag is right, the root isn't.
    let mut forged = seal_forged(&sealed);
    refused(
        sealed.unwrapped().open_in_place(&mut forged.1, |i| Ok(forged.0[i as usize])).map(|_| ()),
        Error::Root,
    );
    assert!(forged.1.iter().all(|byte| *byte == 0), "wiped");
}

/// The key schedule once more, as an attacker with the content key would run it.
fn seal_forged(sealed: &Sealed) -> (Vec<[u8; 16]>, Vec<u8>) {
    use aes_gcm::aead::AeadInOut;
    use aes_gcm::{Aes256Gcm, KeyInit};
    use sha2::Digest;
    let subject = &sealed.header[PREFIX_LEN..sealed.header.len() - 64];
    let info = [b"modelseal/v1/payload\0", &sha2::Sha256::digest(subject)[..]].concat();
    let mut okm = [0; 76];
    let prk = hkdf::Hkdf::<sha2::Sha256>::from_prk(&sealed.content).unwrap();
    prk.expand(&info, &mut okm).unwrap();
    let cipher = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
    let mut payload = vec![0x66; sealed.payload.len()];
    let tags = (0u8..).zip(payload.chunks_mut(1024)).map(|(i, chunk)| {
        let mut nonce: [u8; 12] = okm[32..44].try_into().unwrap();
        nonce[11] ^= i;
        cipher.encrypt_inout_detached(&nonce.into(), &[], chunk.into()).unwrap().into()
    });
    (tags.collect(), payload)
}

fn index() {
    let sealed = seal();
    let check = |entries: &[Entry]| {
        let mut check = IndexCheck::new(&sealed.header());
        entries.iter().try_for_each(|entry| check.push(entry))?;
        check.finish()
    };
    let lazy = sealed.unwrapped().into_lazy(check(&sealed.entries).unwrap()).unwrap();
    let lazy: Chunks<'_> = lazy.keyed().unwrap();
    let swapped = [sealed.entries[1], sealed.entries[0], sealed.entries[2]];
    for entries in [&swapped[..], &sealed.entries[..2], &[]] {
        refused(check(entries).map(|_| ()), Error::Index);
    }
    let other = seal_as(Subject { length: 2501, ..subject() });
    let index = check(&sealed.entries).unwrap();
    refused(other.unwrapped().into_lazy(index).map(|_| ()), Error::Index);

    let mut first = sealed.payload[..1024].to_vec();
    refused(lazy.open_chunk(1, &sealed.entries[1], &mut first.clone()), Error::Chunk);
    refused(lazy.open_chunk(0, &sealed.entries[0], &mut first[1..]), Error::Memory);
    refused(lazy.open_chunk(3, &sealed.entries[0], &mut []), Error::Memory);
    let mut first = sealed.payload[..1024].to_vec();
    lazy.open_chunk(0, &sealed.entries[0], &mut first).unwrap();
    assert!(first.iter().enumerate().all(|(i, byte)| *byte == i as u8));
}

fn sealing() {
    let mut sealing: Sealing<'_> = Sealing::new(subject(), 1, &mut Rng::new(1)).unwrap();
    refused(sealing.seal_next(&mut [0; 1023]), Error::Memory);
    sealing.seal_next(&mut [0; 1024]).unwrap();
    refused(sealing.finish().map(|_| ()), Error::Truncated);
    let long = "v".repeat(128);
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let claims = keys.iter().map(|key| Claim { key, value: &long }).collect();
    let large = Subject { claims, ..subject() };
    assert!(large.check().is_ok() && large.manifest_len() > 1024);
    refused(
        Sealing::<'_, modelseal_core::chunk::Portable>::new(large, 1, &mut Rng::new(1)).map(|_| ()),
        Error::ManifestLength,
    );
    for slots in [0, 17] {
        let sealing = Sealing::<'_, modelseal_core::chunk::Portable>::new(subject(), slots, &mut Rng::new(1));
        refused(sealing.map(|_| ()), Error::EnvelopeLength);
    }
}

fn floors() {
    struct Store(Result<u64, Error>);
    impl FloorStore for Store {
        fn floor(&mut self) -> Result<u64, Error> {
            self.0
        }
        fn raise(&mut self, floor: u64) -> Result<(), Error> {
            self.0 = Ok(floor);
            Ok(())
        }
    }
    let sealed = seal();
    let confirm = |floor, store: &mut Store| {
        let grant = sealed.grant(&Terms { floor, ..sealed.terms() });
        let mut memory = sealed.payload.clone();
        let unwrapped = sealed.unwrap(&grant, with()).unwrap();
        let opened = unwrapped.open_in_place(&mut memory, |i| Ok(sealed.entries[i as usize].tag)).unwrap();
        opened.confirm(store).map(|_| ())
    };
    let mut store = Store(Ok(5));
    confirm(3, &mut store).unwrap();
    assert_eq!(store.0, Ok(5), "never lowered");
    confirm(6, &mut store).unwrap();
    assert_eq!(store.0, Ok(6));
    refused(confirm(6, &mut Store(Err(Error::Floor))), Error::Floor);
}

/// One test, so that the last line sees them all.
#[test]
#[cfg_attr(miri, ignore)]
fn every_rejection_is_seen() {
    what_is_sealed_opens();
    prefix();
    header_shape();
    subject_bounds();
    keys();
    signatures();
    grant_shape();
    terms_bounds();
    who_and_what();
    when();
    payload();
    index();
    sealing();
    floors();
    // Padding and key slots are read outside this crate, where the matrix of attacks changes every bit of them.
    let outside = [Error::Padding, Error::KeySlot];
    let missing = |error: &&Error| !SEEN.lock().unwrap().contains(&error.code()) && !outside.contains(*error);
    assert_eq!(Error::ALL.iter().filter(missing).collect::<Vec<_>>(), Vec::<&Error>::new());
}
