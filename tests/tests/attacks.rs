//! What an attacker can do to a sealed model or a grant, as a matrix: every bit, every length, every splice, and
//! what knowing a key adds. It runs in-process, through the function that gives every program its exit code;
//! `cli_attacks.rs` has a sample of each kind through the real binary.
//!
//! Each case ends in one of two ways: it is refused with the right code and nothing is left behind, or the
//! change is without effect and the true model opens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ed25519_dalek::Signer;
use getrandom::SysRng;
use modelseal::files::{Access, Existing, Output};
use modelseal::grant::{Limits, grant};
use modelseal::identity::{Enrolment, Identity};
use modelseal::open::{Reader, SealedFile};
use modelseal::registry::{Device, DeviceKeyKind};
use modelseal_core::grant::{DeviceId, Terms, Validity, wrap_for_x25519};
use modelseal_core::keys::X25519Secret;
use modelseal_core::manifest::{Claim, Claims, Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_hsm::{Algorithm, Location, Passphrase, Vault};
use modelseal_tests::forge::{self, Parts};
use modelseal_tests::scratch;
use rand_core::UnwrapErr;
use tempfile::TempDir;

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
const LINE: &str = "wake-word";
const NOW: u64 = 1_800_000_000;

// ---- The bench: a vault, models sealed with it, devices, and a way to open as any of them ----

/// A vault whose passphrase was paid for once, and a folder to work in.
struct Bench {
    dir: TempDir,
    vault: Box<dyn Vault>,
}

/// A device with its grant.
struct Held {
    identity: Identity,
    line: &'static str,
    floor: u64,
    now: Option<u64>,
    grant: Vec<u8>,
}

/// Who opens.
#[derive(Clone, Copy)]
enum By<'a> {
    Vault,
    /// Checks only, with the public key.
    Publisher,
    Grant(&'a Held),
}

/// How a refusal was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    code: u8,
    name: Option<&'static str>,
    hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrap {
    DeviceKey,
    Hpke,
}

const WRAPS: [Wrap; 2] = [Wrap::DeviceKey, Wrap::Hpke];

/// What a sealed model was made of.
struct Model {
    plain: Vec<u8>,
    sealed: Vec<u8>,
    parts: Parts,
}

impl Bench {
    fn new() -> Self {
        Self::signing_with(Algorithm::Ed25519)
    }

    fn signing_with(algorithm: Algorithm) -> Self {
        let dir = scratch();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let location = Location::File(dir.path().join("vault.json"));
        let passphrase = || Ok(Passphrase::new(String::from("attacks").into()));
        let vault = modelseal_hsm::create(&location, Some(algorithm), &passphrase).unwrap();
        Self { dir, vault }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Three chunks of 1 KiB, the last one short.
    fn seal(&self, suite: Suite) -> Model {
        self.seal_as(suite, LINE, 2, 2100)
    }

    fn seal_as(&self, suite: Suite, line: &str, version: u64, length: usize) -> Model {
        let mut plain = vec![0; length];
        blake3::Hasher::new().update(b"model").finalize_xof().fill(&mut plain);
        std::fs::write(self.path("model"), &plain).unwrap();
        let subject = Subject {
            suite,
            chunk_log2: 10,
            align_log2: 6,
            line,
            version,
            kind: "tflite",
            length: length as u64,
            created: NOW,
            claims: Claims::from_slice(&[Claim { key: "licence", value: "MIT" }]).unwrap(),
        };
        let (model, out) = (self.path("model"), self.path("sealed"));
        modelseal::seal::seal(&*self.vault, &model, subject, &out, &mut |_| ()).unwrap();
        let sealed = std::fs::read(out).unwrap();
        let parts = Parts::of(&sealed, length);
        Model { plain, sealed, parts }
    }

    /// Enrols `id` and grants `model` to it.
    fn grant(&self, model: &Model, id: &str, wrap: Wrap, limits: Limits) -> Held {
        let lines = vec![LINE.to_owned(), "other".to_owned()];
        let publisher = self.vault.publisher().unwrap();
        let device = DeviceId::new(id).unwrap();
        let enrolment = Enrolment { device, lines: &lines, publisher: &publisher, first_floor: 0 };
        let (identity, key) = match wrap {
            Wrap::DeviceKey => {
                let key = self.vault.device_key(device, 1).unwrap();
                (Identity::derived(&enrolment, &key).unwrap(), DeviceKeyKind::Fleet(1))
            }
            Wrap::Hpke => {
                let secret = X25519Secret::generate(&mut UnwrapErr(SysRng));
                let mut identity = Identity::keygen(device, &secret).unwrap();
                identity.complete(&enrolment).unwrap();
                let public = modelseal::pem::x25519(&secret.public().unwrap()).unwrap();
                (identity, DeviceKeyKind::X25519(public))
            }
        };
        let enrolled = Device { lines: lines.clone(), key, enrolled: NOW };
        let grant = self.unwrapped(model, |content| {
            grant(&*self.vault, content, device, &enrolled, limits).unwrap().to_vec()
        });
        Held { identity, line: LINE, floor: 0, now: Some(NOW), grant }
    }

    fn unwrapped<T>(&self, model: &Model, then: impl FnOnce(&Unwrapped<'_>) -> T) -> T {
        std::fs::write(self.path("unwrapped"), &model.sealed).unwrap();
        let sealed = SealedFile::open(&self.path("unwrapped")).unwrap();
        then(&sealed.unwrap_by_vault(&*self.vault, None).unwrap())
    }

    fn content_key(&self, model: &Model) -> [u8; 32] {
        self.unwrapped(model, |content| *content.content_key().expose_to_vault())
    }

    /// Opens `sealed` into a file, as `open` does. If it is refused, nothing is left, and nothing but the true
    /// model was handed out before.
    fn open(&self, sealed: &[u8], by: By<'_>, truth: &[u8]) -> Result<Vec<u8>, Refused> {
        let path = self.path("attacked");
        std::fs::write(&path, sealed).unwrap();
        self.open_path(&path, by, truth)
    }

    fn open_path(&self, path: &Path, by: By<'_>, truth: &[u8]) -> Result<Vec<u8>, Refused> {
        let (dir, out) = (self.path("out"), self.path("out/model"));
        let mut handed = Vec::new();
        let opened = self.copy(path, by, &out, &mut handed);
        let left = std::fs::read_dir(dir).unwrap().count();
        match opened {
            Ok(()) => {
                let model = if let By::Publisher = by { truth.to_vec() } else { std::fs::read(&out).unwrap() };
                let _ = std::fs::remove_file(out);
                Ok(model)
            }
            Err(error) => {
                assert_eq!(left, 0, "{error:?} left a file");
                assert!(truth.starts_with(&handed), "{error:?} handed out what isn't the model");
                let code = modelseal::cli::exit_code(&error);
                Err(Refused { code, name: error.name(), hint: error.hint().into() })
            }
        }
    }

    fn copy(&self, path: &Path, by: By<'_>, out: &Path, handed: &mut Vec<u8>) -> modelseal::Result<()> {
        let mut sealed = SealedFile::open(path)?;
        if let By::Publisher = by {
            return sealed.verify(&self.vault.publisher()?, &mut |_| ());
        }
        let mut output = Output::create(out, Access::Private, Existing::Keep)?;
        let mut sink = |bytes: &[u8]| {
            handed.extend_from_slice(bytes);
            output.write(bytes)
        };
        let vault = &*self.vault;
        sealed.copy_to(|sealed| by.unwrap(sealed, vault), &mut sink, &mut |_| ())?;
        output.commit()
    }

    fn opens(&self, sealed: &[u8], by: By<'_>, truth: &[u8], what: &str) {
        let opened = self.open(sealed, by, truth);
        assert!(opened.as_deref() == Ok(truth), "{what}: {:?}", opened.map(|model| model.len()));
    }

    fn refuses(&self, sealed: &[u8], by: By<'_>, truth: &[u8], refusal: (u8, &str), what: &str) {
        let refused = self.open(sealed, by, truth).map(|model| model.len());
        let refused = refused.map_err(|refused| (refused.code, refused.name.unwrap_or("no name")));
        assert_eq!(refused, Err(refusal), "{what}");
    }
}

impl By<'_> {
    fn unwrap<'a>(self, sealed: &'a SealedFile, vault: &dyn Vault) -> modelseal::Result<Unwrapped<'a>> {
        match self {
            By::Grant(held) => held.unwrap(sealed),
            _ => sealed.unwrap_by_vault(vault, Some(LINE)),
        }
    }
}

impl Held {
    fn unwrap<'a>(&self, sealed: &'a SealedFile) -> modelseal::Result<Unwrapped<'a>> {
        let reader = Reader {
            identity: &self.identity,
            grant_path: Path::new("grant"),
            line: self.line,
            floor: self.floor,
            now: self.now,
        };
        sealed.unwrap_by_grant(&self.grant, &reader)
    }
}

const NO_LIMITS: Limits = Limits { validity: None, floor: None };

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fn swapped(bytes: &[u8], a: Range<usize>, b: Range<usize>) -> Vec<u8> {
    let mut swapped = bytes.to_vec();
    swapped[a.clone()].copy_from_slice(&bytes[b.clone()]);
    swapped[b].copy_from_slice(&bytes[a]);
    swapped
}

fn replaced(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut replaced = bytes.to_vec();
    replaced[at..at + with.len()].copy_from_slice(with);
    replaced
}

// ---- Every single bit of a sealed model ----

/// What a flip in this byte must lead to; `None`: the model opens all the same.
fn after_a_flip(byte: usize, parts: Parts, by: By<'_>) -> Option<u8> {
    let slots = parts.envelope + 64..parts.index;
    match byte {
        0..10 => Some(7), // magic and format version
        16 => Some(7),    // suite
        _ if !slots.contains(&byte) => Some(3),
        // Only a vault looks at slots, and the first one is the one in use.
        _ if matches!(by, By::Vault) && byte < slots.start + 64 => Some(3),
        _ => None,
    }
}

fn every_bit(bench: &Bench, model: &Model, by: By<'_>, bytes: Range<usize>) {
    for bit in bytes.start * 8..bytes.end * 8 {
        let opened = bench.open(&flip(&model.sealed, bit), by, &model.plain);
        let code = opened.as_ref().err().map(|refused| refused.code);
        assert_eq!(code, after_a_flip(bit / 8, model.parts, by), "bit {bit}: {:?}", opened.as_ref().err());
        assert!(opened.is_err() || opened == Ok(model.plain.clone()), "bit {bit} opened another model");
    }
}

fn every_bit_by_vault(suite: Suite) {
    let bench = Bench::new();
    let model = bench.seal(suite);
    every_bit(&bench, &model, By::Vault, 0..model.sealed.len());
}

fn every_bit_by_grant(suite: Suite, wrap: Wrap) {
    let bench = Bench::new();
    // Two chunks: what a grant changes comes before the payload.
    let model = bench.seal_as(suite, LINE, 2, 1100);
    let held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
    every_bit(&bench, &model, By::Grant(&held), 0..model.sealed.len());
}

#[test]
fn every_bit_of_an_aes_model_by_vault() {
    every_bit_by_vault(Suite::Aes256Gcm);
}

#[test]
fn every_bit_of_a_chacha_model_by_vault() {
    every_bit_by_vault(Suite::ChaCha20Poly1305);
}

#[test]
fn every_bit_of_an_aes_model_by_device_key() {
    every_bit_by_grant(Suite::Aes256Gcm, Wrap::DeviceKey);
}

#[test]
fn every_bit_of_a_chacha_model_by_device_key() {
    every_bit_by_grant(Suite::ChaCha20Poly1305, Wrap::DeviceKey);
}

#[test]
fn every_bit_of_an_aes_model_by_hpke() {
    every_bit_by_grant(Suite::Aes256Gcm, Wrap::Hpke);
}

#[test]
fn every_bit_of_a_chacha_model_by_hpke() {
    every_bit_by_grant(Suite::ChaCha20Poly1305, Wrap::Hpke);
}

/// Without any key.
#[test]
fn every_bit_of_a_model_by_publisher() {
    let bench = Bench::new();
    let model = bench.seal(Suite::Aes256Gcm);
    // A tag is the one thing that can't be checked without the content key, and the index names it beside what
    // can: the values, which say all of the ciphertext.
    for bit in 0..model.sealed.len() * 8 {
        let byte = bit / 8;
        let tag = (model.parts.index..model.parts.padding).contains(&byte) && (byte - model.parts.index) % 48 < 16;
        let expected = if tag { None } else { after_a_flip(byte, model.parts, By::Publisher) };
        let refused = bench.open(&flip(&model.sealed, bit), By::Publisher, &model.plain).err();
        assert_eq!(refused.as_ref().map(|refused| refused.code), expected, "bit {bit}: {refused:?}");
    }
}

/// The other signature algorithm, where it is looked at.
#[test]
fn every_bit_of_what_ecdsa_signs_and_of_the_signature() {
    let bench = Bench::signing_with(Algorithm::EcdsaP256);
    let model = bench.seal(Suite::Aes256Gcm);
    every_bit(&bench, &model, By::Vault, 0..model.parts.envelope + 64);
    let held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
    every_bit(&bench, &model, By::Grant(&held), 0..model.parts.envelope + 64);
}

// ---- Every length ----

#[test]
fn every_truncation_and_extension_of_a_model() {
    for suite in SUITES {
        let bench = Bench::new();
        let model = bench.seal(suite);
        let hpke = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let shared = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        for by in [By::Vault, By::Publisher, By::Grant(&hpke), By::Grant(&shared)] {
            for length in 0..model.sealed.len() {
                bench.refuses(&model.sealed[..length], by, &model.plain, (3, "Truncated"), &length.to_string());
            }
            for extended in extensions(&model.sealed) {
                bench.refuses(&extended, by, &model.plain, (3, "Extended"), &extended.len().to_string());
            }
        }
    }
}

/// By one byte of each kind, by what alignments are made of, and by itself.
fn extensions(bytes: &[u8]) -> Vec<Vec<u8>> {
    let more: [&[u8]; 7] = [&[0], &[1], &[0xff], &[0; 16], &[0; 64], &[0; 4096], bytes];
    more.iter().map(|more| [bytes, more].concat()).collect()
}

#[test]
fn every_truncation_and_extension_of_a_grant() {
    for suite in SUITES {
        for wrap in WRAPS {
            let bench = Bench::new();
            let model = bench.seal(suite);
            let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
            let grant = held.grant.clone();
            for length in 0..grant.len() {
                held.grant = grant[..length].to_vec();
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "Truncated"), "cut");
            }
            for extended in extensions(&grant) {
                held.grant = extended;
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "Extended"), "extended");
            }
            // With the length field changed along.
            for delta in [-1i32, 1] {
                let length = (grant.len() as i32 - 12 + delta) as u16;
                let mut changed = replaced(&grant, 10, &length.to_le_bytes());
                changed.resize((grant.len() as i32 + delta) as usize, 0);
                held.grant = changed;
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "GrantEncoding"), "resized");
            }
        }
    }
}

/// From a pipe, whose length isn't known before: what was handed out is the beginning of the model, and the end
/// is a refusal.
#[test]
fn every_truncation_and_every_byte_through_a_pipe() {
    let bench = Bench::new();
    let model = bench.seal(Suite::Aes256Gcm);
    let pipe = bench.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let through = |bytes: &[u8]| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::fs::File::options().write(true).open(&pipe).unwrap().write_all(bytes);
            });
            bench.open_path(&pipe, By::Vault, &model.plain)
        })
    };
    assert!(through(&model.sealed).as_ref() == Ok(&model.plain));
    for length in 0..model.sealed.len() {
        let refused = through(&model.sealed[..length]).unwrap_err();
        assert_eq!((refused.code, refused.name), (3, Some("Truncated")), "{length}");
    }
    for extended in extensions(&model.sealed) {
        assert_eq!(through(&extended).unwrap_err().name, Some("Extended"));
    }
    for byte in 0..model.sealed.len() {
        let code = through(&flip(&model.sealed, byte * 8)).err().map(|refused| refused.code);
        assert_eq!(code, after_a_flip(byte, model.parts, By::Vault), "byte {byte}");
    }
}

/// A pipe gets chunks before the last one has passed, and never a byte of one that hasn't.
#[test]
fn a_long_model_is_handed_out_up_to_the_chunk_that_fails() {
    let bench = Bench::new();
    let model = bench.seal_as(Suite::Aes256Gcm, LINE, 1, 1 << 20);
    let mut longest = 0;
    for chunk in [0, 1, 255, 256, 257, 511, 700, 1023] {
        let at = model.parts.payload + chunk * 1024;
        let path = bench.path("long");
        std::fs::write(&path, flip(&model.sealed, at * 8)).unwrap();
        let mut handed = Vec::new();
        let error = bench.copy(&path, By::Vault, &bench.path("out/model"), &mut handed).unwrap_err();
        assert_eq!(error.name(), Some("Chunk"));
        assert!(handed.len() <= chunk * 1024 && model.plain.starts_with(&handed), "chunk {chunk}");
        longest = longest.max(handed.len());
    }
    assert!(longest > 0, "nothing is ever handed out, so this proves nothing");
}

// ---- Splices: genuine parts in the wrong place ----

#[test]
fn chunks_and_index_entries_swapped() {
    for suite in SUITES {
        let bench = Bench::new();
        let model = bench.seal_as(suite, LINE, 2, 4 * 1024);
        let held = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        let chunk = |i: usize| model.parts.payload + i * 1024..model.parts.payload + (i + 1) * 1024;
        let entry = |i: usize| model.parts.index + i * 48..model.parts.index + (i + 1) * 48;
        let (tag, value) = (|r: Range<usize>| r.start..r.start + 16, |r: Range<usize>| r.start + 16..r.end);
        for by in [By::Vault, By::Grant(&held)] {
            for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                let refuses = |sealed: &[u8], name| {
                    bench.refuses(sealed, by, &model.plain, (3, name), &format!("{a} and {b} of {name}"));
                };
                let chunks = swapped(&model.sealed, chunk(a), chunk(b));
                refuses(&chunks, "Chunk");
                refuses(&swapped(&model.sealed, entry(a), entry(b)), "Index");
                refuses(&swapped(&chunks, entry(a), entry(b)), "Index");
                refuses(&swapped(&model.sealed, value(entry(a)), value(entry(b))), "Index");
                refuses(&swapped(&model.sealed, tag(entry(a)), tag(entry(b))), "Chunk");
                refuses(&swapped(&chunks, tag(entry(a)), tag(entry(b))), "Chunk");
            }
        }
    }
}

/// Two versions of the same model, spliced at every border.
#[test]
fn parts_of_another_version() {
    for suite in SUITES {
        let bench = Bench::new();
        let (one, two) = (bench.seal_as(suite, LINE, 1, 2100), bench.seal_as(suite, LINE, 2, 2100));
        let (p, end) = (one.parts, one.sealed.len());
        assert_eq!((p.envelope, p.index, end), (two.parts.envelope, two.parts.index, two.sealed.len()));
        let held = bench.grant(&one, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let take = |range: Range<usize>| replaced(&one.sealed, range.start, &two.sealed[range]);
        let truth = &one.plain;
        for (range, by_vault, by_grant) in [
            (0..p.envelope, (3, "ManifestSignature"), (3, "ManifestSignature")),
            (p.envelope..p.envelope + 64, (3, "ManifestSignature"), (3, "ManifestSignature")),
            // A genuine header, but of a model that wasn't granted.
            (0..p.envelope + 64, (3, "no name"), (4, "OtherModel")),
            (0..p.index, (3, "Index"), (4, "OtherModel")),
            (0..p.payload, (3, "Chunk"), (4, "OtherModel")),
            (p.envelope..p.index, (3, "ManifestSignature"), (3, "ManifestSignature")),
            (p.index..p.padding, (3, "Index"), (3, "Index")),
            (p.index..end, (3, "Index"), (3, "Index")),
            (p.payload..end, (3, "Chunk"), (3, "Chunk")),
            (p.payload + 1024..p.payload + 2048, (3, "Chunk"), (3, "Chunk")),
        ] {
            let what = format!("{range:?} of {p:?}");
            bench.refuses(&take(range.clone()), By::Vault, truth, by_vault, &what);
            bench.refuses(&take(range), By::Grant(&held), truth, by_grant, &what);
        }
        // The key slots of another version: of no use to the vault, of no interest to the device.
        let slots = take(p.envelope + 64..p.index);
        bench.refuses(&slots, By::Vault, truth, (3, "no name"), "slots");
        bench.opens(&slots, By::Grant(&held), truth, "slots");
    }
}

/// The slots are no secret and not signed: what matters is that one of them opens for this very model.
#[test]
fn the_wrapped_key_moved_copied_and_hidden_among_others() {
    let bench = Bench::new();
    let model = bench.seal(Suite::Aes256Gcm);
    let other = bench.seal_as(Suite::Aes256Gcm, LINE, 3, 2100);
    let slot = |i: usize| model.parts.envelope + 64 * (1 + i)..model.parts.envelope + 64 * (2 + i);
    let genuine = model.sealed[slot(0)].to_vec();
    for i in 1..4 {
        bench.opens(&swapped(&model.sealed, slot(0), slot(i)), By::Vault, &model.plain, "moved");
        bench.opens(&replaced(&model.sealed, slot(i).start, &genuine), By::Vault, &model.plain, "copied");
        let decoy = replaced(&model.sealed, slot(0).start, &other.sealed[slot(0)]);
        let hidden = replaced(&decoy, slot(i).start, &genuine);
        bench.opens(&hidden, By::Vault, &model.plain, "behind another model's");
    }
    let none = replaced(&model.sealed, slot(0).start, &[0; 64]);
    bench.refuses(&none, By::Vault, &model.plain, (3, "no name"), "no slot in use");
}

// ---- Somebody else's signature ----

#[test]
fn a_manifest_signed_by_somebody_else() {
    for suite in SUITES {
        let (bench, attacker) = (Bench::new(), Bench::new());
        let (model, theirs) = (bench.seal(suite), attacker.seal(suite));
        let p = model.parts;
        let held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let shared = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        let signature = (3, "ManifestSignature");

        // This manifest, as it is and with a higher version, signed with a key of the attacker's own.
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let version = 16 + 3 + 1 + LINE.len();
        assert_eq!(model.sealed[version], 2);
        for sealed in [model.sealed.clone(), replaced(&model.sealed, version, &[99])] {
            let signed = key.sign(&forge::signed_bytes(&sealed, p)).to_bytes();
            let sealed = replaced(&sealed, p.envelope, &signed);
            for by in [By::Vault, By::Publisher, By::Grant(&held), By::Grant(&shared)] {
                bench.refuses(&sealed, by, &model.plain, signature, "signed again");
            }
        }

        // The attacker's model with this vault's wrapped key copied in, for this vault to unwrap or grant; and
        // this model with the attacker's.
        let slots = p.envelope + 64..p.index;
        let lure = replaced(&theirs.sealed, slots.start, &model.sealed[slots.clone()]);
        let back = replaced(&model.sealed, slots.start, &theirs.sealed[slots]);
        for (name, sealed) in [("lure", &lure), ("theirs", &theirs.sealed)] {
            bench.refuses(sealed, By::Vault, &theirs.plain, signature, name);
            bench.refuses(sealed, By::Publisher, &theirs.plain, signature, name);
            bench.refuses(sealed, By::Grant(&held), &theirs.plain, signature, name);
            bench.refuses(sealed, By::Grant(&shared), &theirs.plain, signature, name);
        }
        attacker.refuses(&lure, By::Vault, &theirs.plain, (3, "no name"), "lure");
        bench.refuses(&back, By::Vault, &model.plain, (3, "no name"), "back");
        attacker.refuses(&back, By::Vault, &model.plain, signature, "back");
        attacker.refuses(&model.sealed, By::Vault, &model.plain, signature, "another vault's");
        attacker.refuses(&model.sealed, By::Publisher, &model.plain, signature, "another vault's");
    }
}

/// A device that was licensed knows the content key. It makes a payload of its own under it.
#[test]
fn a_payload_forged_with_the_content_key() {
    for suite in SUITES {
        for length in [2100, 1000, 1024, 1025, 4096] {
            let bench = Bench::new();
            let model = bench.seal_as(suite, LINE, 2, length);
            let (p, key) = (model.parts, bench.content_key(&model));
            let held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
            let shared = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);

            // The forger's tools make the genuine thing: a refusal is for what was forged, not for how.
            let (index, payload) = forge::payload(&model.sealed, p, &key, &model.plain);
            assert!(model.sealed[p.index..p.padding] == index && model.sealed[p.payload..] == payload);
            assert_eq!(forge::root(&index), model.sealed[p.envelope - 32..p.envelope]);

            let evil = vec![0xe7; length];
            let (index, payload) = forge::payload(&model.sealed, p, &key, &evil);
            let forged = replaced(&replaced(&model.sealed, p.index, &index), p.payload, &payload);
            // With the genuine values kept, only the tags are the forger's.
            let mut tags = replaced(&model.sealed, p.payload, &payload);
            for (i, entry) in index.chunks(48).enumerate() {
                tags = replaced(&tags, p.index + 48 * i, &entry[..16]);
            }
            // With the root changed along, the forgery is perfect but for the signature.
            let rooted = replaced(&forged, p.envelope - 32, &forge::root(&index));
            for by in [By::Vault, By::Grant(&held), By::Grant(&shared), By::Publisher] {
                // Nothing may be handed out: not a byte of this is the model.
                bench.refuses(&forged, by, &[], (3, "Index"), "forged");
                bench.refuses(&tags, by, &[], (3, "Chunk"), "tags");
                bench.refuses(&rooted, by, &[], (3, "ManifestSignature"), "rooted");
            }
            in_place(&bench, &model, &payload, &index, &[]);
        }
    }
}

/// As a device opens it, which needs no values: every tag is right, and the root alone catches it. The memory is
/// wiped.
fn in_place(bench: &Bench, model: &Model, payload: &[u8], index: &[u8], opened: &[u8]) {
    std::fs::write(bench.path("in place"), &model.sealed).unwrap();
    let sealed = SealedFile::open(&bench.path("in place")).unwrap();
    let unwrapped = sealed.unwrap_by_vault(&*bench.vault, None).unwrap();
    let mut memory = payload.to_vec();
    let tag = |i: u64| Ok(index[48 * i as usize..][..16].try_into().unwrap());
    match unwrapped.open_in_place(&mut memory, tag) {
        Ok(model) => assert!(model.model() == opened),
        Err(error) => {
            assert_eq!(error, modelseal_core::Error::Root);
            assert!(opened.is_empty() && memory.iter().all(|byte| *byte == 0));
        }
    }
}

/// The same order of checks where the ciphertext lies in the device's own memory.
#[test]
fn every_bit_of_payload_and_tags_opened_in_place() {
    let bench = Bench::new();
    let model = bench.seal_as(Suite::ChaCha20Poly1305, LINE, 1, 1100);
    let (index, payload) = (&model.sealed[model.parts.index..model.parts.padding], &model.sealed[model.parts.payload..]);
    in_place(&bench, &model, payload, index, &model.plain);
    let sealed = SealedFile::open(&bench.path("in place")).unwrap();
    for bit in 0..(index.len() + payload.len()) * 8 {
        let flipped = flip(&[index, payload].concat(), bit);
        let (index, payload) = flipped.split_at(index.len());
        let mut memory = payload.to_vec();
        let unwrapped = sealed.unwrap_by_vault(&*bench.vault, None).unwrap();
        let tag = |i: u64| Ok(index[48 * i as usize..][..16].try_into().unwrap());
        let unread = bit / 8 < index.len() && (bit / 8) % 48 >= 16;
        match unwrapped.open_in_place(&mut memory, tag) {
            Ok(opened) => assert!(unread && opened.model() == model.plain, "bit {bit}"),
            Err(error) => {
                assert!(!unread && error == modelseal_core::Error::Chunk, "bit {bit}: {error}");
                assert!(memory.iter().all(|byte| *byte == 0), "bit {bit} left something in memory");
            }
        }
    }
}

// ---- Grants ----

#[test]
fn every_bit_of_a_grant() {
    for suite in SUITES {
        for wrap in WRAPS {
            let bench = Bench::new();
            let model = bench.seal(suite);
            let validity = Some(Validity { not_before: NOW - 1, not_after: NOW + 1 });
            let mut held = bench.grant(&model, "kitchen-7", wrap, Limits { validity, floor: Some(1) });
            bench.opens(&model.sealed, By::Grant(&held), &model.plain, "genuine");
            let grant = held.grant.clone();
            for bit in 0..grant.len() * 8 {
                held.grant = flip(&grant, bit);
                let refused = bench.open(&model.sealed, By::Grant(&held), &model.plain).unwrap_err();
                let code = if matches!(bit / 8, 0..10 | 12) { 7 } else { 3 };
                assert_eq!(refused.code, code, "{wrap:?} bit {bit}: {refused:?}");
            }
        }
    }
}

#[test]
fn a_grant_of_another_device_model_line_or_vault() {
    for suite in SUITES {
        for wrap in WRAPS {
            let (bench, stranger) = (Bench::new(), Bench::new());
            let model = bench.seal(suite);
            let give = |model: &Model, id: &str| bench.grant(model, id, wrap, NO_LIMITS);
            let mut held = give(&model, "kitchen-7");
            let own = held.grant.clone();
            let mut with = |grant: Vec<u8>, refusal, what: &str| {
                held.grant = grant;
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, what);
            };
            let shared = wrap == Wrap::DeviceKey;

            // That a device key doesn't fit says no more than that: another device, or a change.
            with(give(&model, "porch-2").grant, if shared { (3, "GrantKey") } else { (4, "OtherDevice") }, "device");
            with(give(&bench.seal_as(suite, LINE, 1, 2100), "kitchen-7").grant, (4, "OtherModel"), "older");
            with(give(&bench.seal_as(suite, LINE, 3, 2100), "kitchen-7").grant, (4, "OtherModel"), "newer");
            with(give(&bench.seal_as(suite, "other", 2, 2100), "kitchen-7").grant, (4, "OtherModel"), "line");
            let again = if shared { SUITES[1] } else { SUITES[0] };
            with(give(&bench.seal_as(again, LINE, 2, 2100), "kitchen-7").grant, (4, "OtherModel"), "sealed again");
            let theirs = stranger.grant(&stranger.seal(suite), "kitchen-7", wrap, NO_LIMITS).grant;
            with(theirs, (3, if shared { "GrantKey" } else { "GrantSignature" }), "another vault's");
            let other = if shared { Wrap::Hpke } else { Wrap::DeviceKey };
            let otherwise = bench.grant(&model, "kitchen-7", other, NO_LIMITS).grant;
            with(otherwise, (3, "GrantKey"), "the other wrapping");
            with(model.sealed.clone(), (7, "ForeignMagic"), "no grant at all");
            held.grant = own;
            bench.opens(&model.sealed, By::Grant(&held), &model.plain, "genuine");
        }
    }
}

#[test]
fn a_model_of_another_line() {
    for wrap in WRAPS {
        let bench = Bench::new();
        let (model, other) = (bench.seal(SUITES[0]), bench.seal_as(SUITES[0], "other", 2, 2100));
        let refusal = (4, "OtherLine");
        bench.refuses(&other.sealed, By::Vault, &other.plain, refusal, "by vault");
        let mut held = bench.grant(&other, "kitchen-7", wrap, NO_LIMITS);
        bench.refuses(&other.sealed, By::Grant(&held), &other.plain, refusal, "the device serves another");
        held.line = "other";
        bench.opens(&other.sealed, By::Grant(&held), &other.plain, "genuine");
        let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
        for line in ["other", "wake-wor", "wake-word2", "Wake-word", ""] {
            held.line = line;
            bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, line);
        }
    }
}

#[test]
fn a_grant_out_of_its_time_or_below_the_floor() {
    for suite in SUITES {
        for wrap in WRAPS {
            let bench = Bench::new();
            let model = bench.seal(suite);
            let validity = Some(Validity { not_before: NOW, not_after: NOW + 10 });
            let mut held = bench.grant(&model, "kitchen-7", wrap, Limits { validity, floor: None });
            let times = [
                (None, Some("NoClock")),
                (Some(0), Some("NotYetValid")),
                (Some(NOW - 1), Some("NotYetValid")),
                (Some(NOW), None),
                (Some(NOW + 9), None),
                (Some(NOW + 10), Some("Expired")),
                (Some(u64::MAX), Some("Expired")),
            ];
            for (now, refusal) in times {
                held.now = now;
                match refusal {
                    Some(name) => bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (4, name), name),
                    None => bench.opens(&model.sealed, By::Grant(&held), &model.plain, "in time"),
                }
            }
            let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
            held.now = None;
            for (floor, opens) in [(0, true), (2, true), (3, false), (u64::MAX, false)] {
                held.floor = floor;
                match opens {
                    true => bench.opens(&model.sealed, By::Grant(&held), &model.plain, "not below the floor"),
                    false => {
                        let refusal = (4, "RolledBack");
                        bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, "rolled back");
                    }
                }
            }
        }
    }
}

/// Somebody who holds the device's own key, such as a careless operator, grants what the terms forbid.
#[test]
fn a_device_grant_forged_with_the_device_key() {
    for (suite, other) in [(1, 2), (2, 1)] {
        let bench = Bench::new();
        let model = bench.seal(SUITES[suite as usize - 1]);
        let mut held = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        let device = bench.vault.device_key(DeviceId::new("kitchen-7").unwrap(), 1).unwrap();
        let (device, key) = (*device.expose_to_factory(), bench.content_key(&model));
        let id = forge::model_id(&model.sealed, model.parts);
        let terms = |suite, device, floor, validity| forge::terms(suite, &id, device, floor, validity);
        let genuine = terms(suite, "kitchen-7", 2, None);
        // Postcard would take the same floor with a needless byte.
        let mut overlong = genuine[..genuine.len() - 2].to_vec();
        overlong.extend([0x82, 0, 0]);
        let mut lying = id;
        lying[0] ^= 1;
        let cases: [(&str, Vec<u8>, [u8; 32], Option<(u8, &str)>); 9] = [
            ("genuine", genuine.clone(), id, None),
            ("suite", terms(other, "kitchen-7", 2, None), id, Some((4, "OtherSuite"))),
            ("device", terms(suite, "porch-2", 2, None), id, Some((4, "OtherDevice"))),
            ("device spelt badly", terms(suite, "kitchen 7", 2, None), id, Some((3, "DeviceId"))),
            ("floor", terms(suite, "kitchen-7", 3, None), id, Some((4, "FloorAboveVersion"))),
            ("validity", terms(suite, "kitchen-7", 2, Some((5, 5))), id, Some((3, "Validity"))),
            ("overlong", overlong, id, Some((3, "GrantEncoding"))),
            ("id in the terms", forge::terms(suite, &lying, "kitchen-7", 2, None), id, Some((4, "OtherModel"))),
            ("id in the key", genuine, lying, Some((3, "GrantKey"))),
        ];
        for (what, terms, id, refusal) in cases {
            held.grant = forge::device_grant(&device, &id, &terms, &key);
            match refusal {
                Some(refusal) => bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, what),
                None => bench.opens(&model.sealed, By::Grant(&held), &model.plain, what),
            }
        }
        held.grant = forge::device_grant(&device, &id, &forge::terms(suite, &id, "kitchen-7", 2, None), &[9; 32]);
        bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "Commitment"), "another content key");
    }
}

/// Anybody can wrap a content key for a device whose public key he knows; the publisher's signature is what he
/// lacks.
#[test]
fn an_hpke_grant_signed_by_somebody_else() {
    for suite in SUITES {
        let (bench, attacker) = (Bench::new(), Bench::new());
        let model = bench.seal(suite);
        let mut held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let (grant, public) = (held.grant.clone(), held.identity.public_key().unwrap());
        let wrapped = bench.unwrapped(&model, |content| {
            let terms = Terms::new(content, DeviceId::new("kitchen-7").unwrap());
            wrap_for_x25519(content, &terms, &public, &mut UnwrapErr(SysRng)).unwrap()
        });
        let mut with = |grant: Vec<u8>, what: &str| {
            held.grant = grant;
            bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "GrantSignature"), what);
        };
        let theirs = attacker.vault.sign_grant(&wrapped).unwrap().to_vec();
        let genuine = bench.vault.sign_grant(&wrapped).unwrap().to_vec();
        assert_eq!(theirs.len(), grant.len());
        with(theirs.clone(), "signed by the attacker");
        // The signature is the 66 bytes before the last 0 siblings and sides.
        let signature = grant.len() - 66..grant.len() - 2;
        with(replaced(&theirs, signature.start, &grant[signature.clone()]), "the signature of another grant");
        let manifest = &model.sealed[model.parts.envelope..][..64];
        with(replaced(&genuine, signature.start, manifest), "the signature of the manifest");
        held.grant = genuine;
        bench.opens(&model.sealed, By::Grant(&held), &model.plain, "genuine");
    }
}

/// The hint of a refusal that can't say which it was names both ids.
#[test]
fn a_grant_that_does_not_fit_names_both_devices() {
    for wrap in WRAPS {
        let bench = Bench::new();
        let model = bench.seal(SUITES[0]);
        let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
        held.grant = bench.grant(&model, "porch-2", wrap, NO_LIMITS).grant;
        let refused = bench.open(&model.sealed, By::Grant(&held), &model.plain).unwrap_err();
        assert!(refused.hint.contains("kitchen-7") && refused.hint.contains("porch-2"), "{}", refused.hint);
    }
}
