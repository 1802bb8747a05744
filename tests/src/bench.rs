//! The bench on which attacks are tried, in-process: a vault, models sealed with it, devices with grants, and a way
//! to open as any of them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use getrandom::SysRng;
use modelseal::files::{Access, Existing, Output};
use modelseal::grant::{Limits, grant};
use modelseal::identity::{Enrolment, Identity};
use modelseal::io::protect::Protected;
use modelseal::open::{Reader, SealedFile};
use modelseal::registry::{Device, DeviceKeyKind};
use modelseal_core::grant::DeviceId;
use modelseal_core::keys::X25519Secret;
use modelseal_core::manifest::{Claim, Claims, Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_hsm::{Algorithm, Location, Passphrase, Vault};
use rand_core::UnwrapErr;
use tempfile::TempDir;

use crate::forge::{self, Parts};
use crate::workspace::scratch;

/// Both suites.
pub const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
/// The line of every model, unless a test is about another.
pub const LINE: &str = "wake-word";
/// The time.
pub const NOW: u64 = 1_800_000_000;

/// A vault whose passphrase was paid for once, and a folder to work in.
pub struct Bench {
    dir: TempDir,
    /// The vault.
    pub vault: Box<dyn Vault>,
}

/// A device with its grant.
pub struct Held {
    /// Who the device is.
    pub identity: Identity,
    /// The line that it asks for.
    pub line: &'static str,
    /// Its stored floor.
    pub floor: u64,
    /// Its clock.
    pub now: Option<u64>,
    /// Its grant, genuine or not.
    pub grant: Vec<u8>,
}

/// Who opens.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// The vault that sealed.
    Vault,
    /// Checks only, with the public key.
    Publisher,
    /// A device.
    Grant(&'a Held),
}

/// How a refusal was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The exit code.
    pub code: u8,
    /// The format's name for it.
    pub name: Option<&'static str>,
    /// What to do.
    pub hint: String,
}

/// How the content key is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// Under a key that vault and device share.
    DeviceKey,
    /// To the device's public key, and signed.
    Hpke,
}

/// Both wrappings.
pub const WRAPS: [Wrap; 2] = [Wrap::DeviceKey, Wrap::Hpke];

/// What a sealed model was made of.
pub struct Model {
    /// The model.
    pub plain: Vec<u8>,
    /// The sealed model.
    pub sealed: Vec<u8>,
    /// Where its parts are.
    pub parts: Parts,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// With an Ed25519 publisher key.
    pub fn new() -> Self {
        Self::signing_with(Algorithm::Ed25519)
    }

    /// With a publisher key of either kind.
    pub fn signing_with(algorithm: Algorithm) -> Self {
        let dir = scratch();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let location = Location::File(dir.path().join("vault.json"));
        let passphrase = || Ok(Passphrase::new(String::from("attacks").into()));
        let vault = modelseal_hsm::create(&location, Some(algorithm), &passphrase).unwrap();
        Self { dir, vault }
    }

    /// With master keys of these versions, and the fleet and publisher keys that every such vault has. Its
    /// passphrase costs next to nothing.
    pub fn with_master_keys(masters: &[u32]) -> Self {
        let dir = scratch();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let path = dir.path().join("vault.json");
        std::fs::write(&path, forge::vault_file("attacks", masters)).unwrap();
        let passphrase = || Ok(Passphrase::new(String::from("attacks").into()));
        let vault = modelseal_hsm::open(&Location::File(path), &passphrase).unwrap();
        Self { dir, vault }
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Version 2 of the line: three chunks of 1 KiB, the last one short.
    pub fn seal(&self, suite: Suite) -> Model {
        self.seal_as(suite, LINE, 2, 2100)
    }

    /// Seals `length` bytes in chunks of 1 KiB.
    pub fn seal_as(&self, suite: Suite, line: &str, version: u64, length: usize) -> Model {
        self.seal_bytes(suite, line, version, contents("model", length))
    }

    /// Seals `plain` in chunks of 1 KiB.
    pub fn seal_bytes(&self, suite: Suite, line: &str, version: u64, plain: Vec<u8>) -> Model {
        let subject = Subject {
            suite,
            chunk_log2: 10,
            align_log2: 6,
            line,
            version,
            kind: "tflite",
            length: plain.len() as u64,
            created: NOW,
            claims: Claims::from_slice(&[Claim { key: "licence", value: "MIT" }]).unwrap(),
        };
        self.seal_with(plain, subject)
    }

    /// Seals `plain`, of which `subject` tells everything.
    pub fn seal_with(&self, plain: Vec<u8>, subject: Subject<'_>) -> Model {
        std::fs::write(self.path("model"), &plain).unwrap();
        let (model, out) = (self.path("model"), self.path("sealed"));
        let file = modelseal::seal::Model::open(&model, &Protected::default()).unwrap();
        modelseal::seal::seal(&*self.vault, &file, subject, &out, &mut |_| ()).unwrap();
        let sealed = std::fs::read(out).unwrap();
        let parts = Parts::of(&sealed, plain.len());
        Model { plain, sealed, parts }
    }

    /// Enrols `id` for two lines and grants `model` to it.
    pub fn grant(&self, model: &Model, id: &str, wrap: Wrap, limits: Limits) -> Held {
        self.grant_for(&[LINE, "other"], model, id, wrap, limits)
    }

    /// Enrols `id` for `lines`, of which it will ask for the first.
    pub fn grant_for(
        &self,
        lines: &[&'static str],
        model: &Model,
        id: &str,
        wrap: Wrap,
        limits: Limits,
    ) -> Held {
        let line = lines[0];
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
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
        Held { identity, line, floor: 0, now: Some(NOW), grant }
    }

    /// What the vault knows of a model that it sealed.
    pub fn unwrapped<T>(&self, model: &Model, then: impl FnOnce(&Unwrapped<'_>) -> T) -> T {
        std::fs::write(self.path("unwrapped"), &model.sealed).unwrap();
        let sealed = SealedFile::open(&self.path("unwrapped")).unwrap();
        then(&sealed.unwrap_by_vault(&*self.vault, None).unwrap())
    }

    /// The content key, which a licensed device knows, too.
    pub fn content_key(&self, model: &Model) -> [u8; 32] {
        self.unwrapped(model, |content| *content.content_key().expose_to_vault())
    }

    /// Opens `sealed` into a file, as `open` does. If it is refused, nothing is left, and nothing but the true
    /// model was handed out before.
    pub fn open(&self, sealed: &[u8], by: By<'_>, truth: &[u8]) -> Result<Vec<u8>, Refused> {
        let path = self.path("attacked");
        std::fs::write(&path, sealed).unwrap();
        self.open_path(&path, by, truth)
    }

    /// The same of a file or pipe.
    pub fn open_path(&self, path: &Path, by: By<'_>, truth: &[u8]) -> Result<Vec<u8>, Refused> {
        let (dir, out) = (self.path("out"), self.path("out/model"));
        let mut handed = Vec::new();
        let opened = self.copy(path, by, &out, &mut handed);
        let left = std::fs::read_dir(dir).unwrap().count();
        match opened {
            Ok(()) => {
                let model =
                    if let By::Publisher = by { truth.to_vec() } else { std::fs::read(&out).unwrap() };
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

    /// Opens into the file `out`, and notes what was handed to it.
    pub fn copy(&self, path: &Path, by: By<'_>, out: &Path, handed: &mut Vec<u8>) -> modelseal::Result<()> {
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

    /// The change is without effect.
    pub fn opens(&self, sealed: &[u8], by: By<'_>, truth: &[u8], what: &str) {
        let opened = self.open(sealed, by, truth);
        assert!(opened.as_deref() == Ok(truth), "{what}: {:?}", opened.map(|model| model.len()));
    }

    /// The change is refused, with this code and name, and leaves nothing.
    pub fn refuses(&self, sealed: &[u8], by: By<'_>, truth: &[u8], refusal: (u8, &str), what: &str) {
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
    /// Steps 1 to 6 of a host.
    pub fn unwrap<'a>(&self, sealed: &'a SealedFile) -> modelseal::Result<Unwrapped<'a>> {
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

/// A grant that is always good, with the version as its floor.
pub const NO_LIMITS: Limits = Limits { validity: None, floor: None };

/// A model that looks random, another one for each name.
pub fn contents(name: &str, length: usize) -> Vec<u8> {
    let mut plain = vec![0; length];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut plain);
    plain
}

/// One bit changed.
pub fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

/// Two parts of the same length exchanged.
pub fn swapped(bytes: &[u8], a: Range<usize>, b: Range<usize>) -> Vec<u8> {
    let mut swapped = bytes.to_vec();
    swapped[a.clone()].copy_from_slice(&bytes[b.clone()]);
    swapped[b].copy_from_slice(&bytes[a]);
    swapped
}

/// One part changed.
pub fn replaced(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut replaced = bytes.to_vec();
    replaced[at..at + with.len()].copy_from_slice(with);
    replaced
}

/// By one byte of each kind, by what alignments are made of, and by itself.
pub fn extensions(bytes: &[u8]) -> Vec<Vec<u8>> {
    let more: [&[u8]; 7] = [&[0], &[1], &[0xff], &[0; 16], &[0; 64], &[0; 4096], bytes];
    more.iter().map(|more| [bytes, more].concat()).collect()
}
