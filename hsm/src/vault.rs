//! The `Vault` trait: the only ways to use the keys (FORMAT.md, section 7, "A vault"; 3.3, 3.5, 4.3, 5).

use std::path::Path;

use modelseal_core::grant::{DeviceId, GrantBytes, PathSignature, UnsignedGrant, grants_message};
use modelseal_core::keys::{DeviceKey, content_key_aad, fleet_block};
use modelseal_core::open::Unwrapped;
use modelseal_core::seal::Unsigned;
use modelseal_core::sealed::{Envelope, Header, Slot};
use modelseal_core::sign::{Publisher, PublisherKey, Signature, TRUSTED_MAX, Verified};
use zeroize::Zeroizing;

use crate::batch::{GrantTree, SignedTree};
use crate::error::Error;
use crate::exposed::Exposed;
use crate::life::LifeCycle;
use crate::location::{Location, Passphrase};
use crate::observed::{Observed, observe};
use crate::self_test::self_test;
use crate::wiped::{Wiped, wiped};
use crate::{pkcs11, software};

/// What a key is for. A key has one role and no other right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// AES-256: encrypts content keys.
    Master,
    /// AES-256: makes the CMACs that device keys consist of.
    Fleet,
    /// Ed25519 or ECDSA P-256: signs manifests and grants.
    Publisher,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Master, Self::Fleet, Self::Publisher];

    /// The role's name in labels, files and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Fleet => "fleet",
            Self::Publisher => "publisher",
        }
    }

    /// What isn't available without a key of this role.
    pub const fn serves(self) -> &'static str {
        match self {
            Self::Master => "sealing, opening by the vault and granting",
            Self::Fleet => "deriving device keys, and grants for them",
            Self::Publisher => "signing manifests and grants",
        }
    }
}

/// What a key computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// For master and fleet keys.
    Aes256,
    /// RFC 8032.
    Ed25519,
    /// FIPS 186-5, with SHA-256.
    EcdsaP256,
}

impl Algorithm {
    /// The algorithm's name in files and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256 => "aes-256",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }
}

/// One key of a vault, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is for.
    pub role: Role,
    /// From 1; the newest is used, older ones are kept for opening.
    pub version: u32,
    /// What it computes.
    pub algorithm: Algorithm,
}

/// One thing that a check of a vault looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is a part of.
    pub part: Part,
    /// What was looked at, such as `master/1 sensitive`.
    pub subject: String,
    /// Whether it is as it should be, or may be as it is.
    pub ok: bool,
    /// Whether it isn't quite as it should be and is tolerated: something to know.
    pub note: bool,
    /// What was found, and where it isn't ok, what to do.
    pub detail: String,
}

/// What a finding is about, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The software: a PKCS#11 library.
    Library,
    /// The token, or the vault's file.
    Token,
    /// What the token can compute.
    Mechanisms,
    /// The keys, and every attribute of theirs.
    Keys,
    /// The keys in use.
    Tests,
}

impl Part {
    /// The part's name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Token => "token",
            Self::Mechanisms => "mechanisms",
            Self::Keys => "keys",
            Self::Tests => "tests",
        }
    }
}

impl Finding {
    /// As it should be.
    pub fn good(part: Part, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { part, subject: subject.into(), ok: true, note: false, detail: detail.into() }
    }

    /// Tolerated.
    pub fn noted(part: Part, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { note: true, ..Self::good(part, subject, detail) }
    }

    /// Wrong.
    pub fn bad(part: Part, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { ok: false, ..Self::good(part, subject, detail) }
    }
}

/// The holder of one publisher's keys. One vault is one tenant. Here is their use; [`LifeCycle`] changes them.
pub trait Vault: LifeCycle + Send + Sync {
    /// Every key, by role and version.
    fn keys(&self) -> Result<Vec<Key>, Error>;

    /// One public key.
    fn publisher_key(&self, version: u32) -> Result<PublisherKey, Error>;

    /// The newest four public keys that aren't retired: what readers of this vault's models trust.
    fn publisher(&self) -> Result<Publisher, Error>;

    /// The newest version of a role's key.
    fn newest(&self, role: Role) -> Result<u32, Error>;

    /// Wraps the content key of a model that was just sealed, and signs its header: steps 6 and 7 of
    /// FORMAT.md, section 4.5.
    fn publish(&self, unsigned: &Unsigned) -> Result<Envelope, Error>;

    /// The content key of a model that **this vault's own publisher key** signed: otherwise a licensed device
    /// could copy a wrapped key into a manifest of its own and have the vault grant it. The commitment is
    /// checked, too. This is the only way to a grant, a rewrap or an opening by a vault. A retired master key opens
    /// nothing. Every publisher key that isn't retired counts, also those that readers no longer get.
    fn unwrap<'a>(&self, header: Header<'a>, envelope: &Envelope) -> Result<Unwrapped<'a>, Error>;

    /// Signs a grant alone: its leaf is the root (FORMAT.md, section 6.5).
    fn sign_grant(&self, grant: &UnsignedGrant) -> Result<GrantBytes, Error>;

    /// Signs up to 65,536 grants at once: the root of the tree in which they are leaves.
    fn sign_grants(&self, tree: GrantTree) -> Result<SignedTree, Error>;

    /// The keys of several devices, each under a version of the fleet key: [`device_key`](Self::device_key) of each.
    fn device_keys(&self, devices: &[(DeviceId<'_>, u32)]) -> Result<Vec<DeviceKey>, Error>;

    /// The key of one device under one version of the fleet key (SP 800-108r1, counter mode, AES-256-CMAC;
    /// FORMAT.md, section 3.3): `device key = K(1) || K(2)`. A retired fleet key makes none.
    fn device_key(&self, device: DeviceId<'_>, fleet: u32) -> Result<DeviceKey, Error>;

    /// The vault's file, or the file with its token's PIN, if others than its owner may read or change it: something to warn
    /// of. What it says is of the file that was read, not of what has its name by now.
    fn exposed(&self) -> Vec<Exposed>;

    /// Looks at everything that can be wrong with a vault. A key with wider rights than its role's is
    /// refused in use, too, not only here.
    fn check(&self) -> Result<Vec<Finding>, Error>;
}

/// Opens a vault. `ask` is called for the passphrase or PIN if the location doesn't say where it is, at most
/// once.
pub fn open(location: &Location, ask: Ask<'_>) -> Result<Box<dyn Vault>, Error> {
    match location {
        // Nobody is asked for the passphrase of a vault that isn't there.
        Location::File(path) if !path.exists() => Err(Error::Missing(path.display().to_string())),
        Location::File(path) => {
            let passphrase = ask()?;
            Ok(Box::new(Wiped(Roles(Observed(wiped(|| software::open(path, &passphrase))?)))))
        }
        Location::Pkcs11(uri) => Ok(Box::new(Wiped(Roles(Observed(wiped(|| pkcs11::open(uri, ask))?))))),
    }
}

/// What [`Vault::check`] finds of a token, its library and its mechanisms where [`open`] gave `refusal` instead of a
/// vault. `None` if that has nothing to do with the PIN, or the token can't be looked at. No PIN is tried.
pub fn check_unopened(location: &Location, refusal: &Error) -> Option<Vec<Finding>> {
    let is_of_pin = match refusal {
        Error::WrongPin(_) | Error::PinLocked | Error::NoPassphrase | Error::NotUtf8(_) => true,
        // The PIN's file; the login itself; a token without a PIN.
        Error::Io(..) | Error::Failed(..) | Error::Token(_) => true,
        _ => false,
    };
    match location {
        Location::Pkcs11(uri) if is_of_pin => pkcs11::look(uri, refusal).ok(),
        _ => None,
    }
}

/// Makes the first version of every key: in a new file, or in a token that has none of them yet.
/// `publisher` is the algorithm to sign with, if it matters.
pub fn create(
    location: &Location,
    publisher: Option<Algorithm>,
    ask: Ask<'_>,
) -> Result<Box<dyn Vault>, Error> {
    match location {
        Location::File(path) if path.exists() => Err(Error::Exists(path.display().to_string())),
        Location::File(path) => {
            let algorithm = publisher.unwrap_or(Algorithm::Ed25519);
            let passphrase = ask()?;
            Ok(Box::new(Wiped(Roles(Observed(wiped(|| software::create(path, algorithm, &passphrase))?)))))
        }
        Location::Pkcs11(uri) => {
            Ok(Box::new(Wiped(Roles(Observed(wiped(|| pkcs11::create(uri, publisher, ask))?)))))
        }
    }
}

/// The bytes of a backup of a software vault, under the passphrase that `own` obtains: a vault file itself. What a token
/// holds never leaves it.
pub fn backup(location: &Location, ask: Ask<'_>, own: Ask<'_>) -> Result<Vec<u8>, Error> {
    match location {
        Location::Pkcs11(_) => Err(Error::NoBackup),
        Location::File(path) if !path.exists() => Err(Error::Missing(path.display().to_string())),
        Location::File(path) => {
            let (passphrase, own) = (ask()?, own().map_err(Error::of_backup)?);
            wiped(|| observe("backup", None, || software::backup(path, &passphrase, &own)))
        }
    }
}

/// Makes a software vault, where there is none, of the backup in the file `backup`, whose passphrase `own` obtains. The
/// vault gets the passphrase that `ask` obtains.
pub fn restore(
    location: &Location,
    backup: &Path,
    own: Ask<'_>,
    ask: Ask<'_>,
) -> Result<Box<dyn Vault>, Error> {
    match location {
        Location::Pkcs11(_) => Err(Error::NoBackup),
        Location::File(path) if path.exists() => Err(Error::Exists(path.display().to_string())),
        Location::File(path) => {
            let (own, passphrase) = (own().map_err(Error::of_backup)?, ask()?);
            let restore = || software::restore(path, backup, &own, &passphrase);
            let vault = wiped(|| observe("restore", None, restore))?;
            Ok(Box::new(Wiped(Roles(Observed(vault)))))
        }
    }
}

/// Obtains a passphrase or PIN: from a file, the environment or a prompt.
pub type Ask<'a> = &'a dyn Fn() -> Result<Passphrase, Error>;

/// The raw operations of a kind of vault. Nothing outside this crate calls them: [`Roles`] decides what they
/// are used for.
pub(crate) trait Backend: Send + Sync {
    fn keys(&self) -> Result<Vec<Key>, Error>;

    /// AES-256-GCM with a random nonce under a master key (FORMAT.md, section 3.5). The slot's version is
    /// the key's.
    fn encrypt(&self, master: u32, aad: &[u8], content: &[u8; 32]) -> Result<Slot, Error>;

    /// The reverse; [`Error::Slot`] where the slot isn't one that this key made.
    fn decrypt(&self, slot: &Slot, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error>;

    /// AES-256-CMAC under a fleet key (FORMAT.md, section 3.3).
    fn cmac(&self, fleet: u32, message: &[u8]) -> Result<Zeroizing<[u8; 16]>, Error>;

    /// Several of them under one key, in order: from a token, for the wait of one.
    fn cmacs(&self, fleet: u32, messages: &[Vec<u8>]) -> Result<Vec<Zeroizing<[u8; 16]>>, Error> {
        let mut cmacs = Vec::with_capacity(messages.len());
        for message in messages {
            cmacs.push(self.cmac(fleet, message)?);
        }
        Ok(cmacs)
    }

    /// A signature over `message`: Ed25519, or ECDSA P-256 over its SHA-256 with either s.
    fn sign(&self, publisher: u32, message: &[u8]) -> Result<Signature, Error>;

    fn publisher_key(&self, publisher: u32) -> Result<PublisherKey, Error>;

    /// The operation that this kind of vault, or this very token, can't do with any key of a role.
    fn unavailable(&self, role: Role) -> Option<&'static str>;

    /// The files of this vault, as they were read last, that others may use.
    fn exposed(&self) -> Vec<Exposed> {
        Vec::new()
    }

    /// Findings that are this kind's own.
    fn check(&self) -> Result<Vec<Finding>, Error>;

    /// The keys that are retired.
    fn retired(&self) -> Result<Vec<(Role, u32)>, Error>;

    /// Makes the next version of a role's key. No two callers make the same one.
    fn generate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error>;

    /// Notes durably that a key is retired, or no longer is.
    fn mark(&self, role: Role, version: u32, retired: bool) -> Result<(), Error>;

    /// Destroys a key for good, and the note that it is retired after it.
    fn destroy(&self, role: Role, version: u32) -> Result<(), Error>;
}

/// The roles, over any backend.
pub(crate) struct Roles<B>(pub(crate) B);

impl<B: Backend> Roles<B> {
    /// The versions of a role's key that are used, in ascending order.
    pub(crate) fn active(&self, role: Role) -> Result<Vec<u32>, Error> {
        let (keys, retired) = (self.0.keys()?, self.0.retired()?);
        let versions = keys.iter().filter(|key| key.role == role).map(|key| key.version);
        let mut active: Vec<_> = versions.filter(|version| !retired.contains(&(role, *version))).collect();
        active.sort_unstable();
        Ok(active)
    }

    /// The header, if one of these versions of the publisher key signed it. They are tried from the last, with as many at
    /// a time as a reader may trust: a vault may have more.
    pub(crate) fn verify<'a>(
        &self,
        header: Header<'a>,
        envelope: &Envelope,
        versions: &[u32],
    ) -> Result<Verified<Header<'a>>, Error> {
        for versions in versions.rchunks(TRUSTED_MAX) {
            let keys: Vec<_> =
                versions.iter().map(|version| self.0.publisher_key(*version)).collect::<Result<_, _>>()?;
            match header.clone().verify(envelope.signature(), &Publisher::new(&keys)?) {
                Err(modelseal_core::Error::ManifestSignature) => {}
                verified => return Ok(verified?),
            }
        }
        Err(modelseal_core::Error::ManifestSignature.into())
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, Error> {
        let version = self.newest(Role::Publisher)?;
        let key = self.0.publisher_key(version)?;
        let signature = key.canonical(self.0.sign(version, message)?);
        // A token that signs wrongly, or with another key than it shows, is found out here and not in the
        // field.
        let key = Publisher::new(&[key])?;
        if key.has_signed(message, &signature) { Ok(signature) } else { Err(Error::BadSignature) }
    }
}

impl<B: Backend> Vault for Roles<B> {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        let mut keys = self.0.keys()?;
        keys.sort_by_key(|key| (key.role, key.version));
        Ok(keys)
    }

    fn publisher_key(&self, version: u32) -> Result<PublisherKey, Error> {
        self.0.publisher_key(version)
    }

    fn publisher(&self) -> Result<Publisher, Error> {
        let active = self.active(Role::Publisher)?;
        let newest = active.into_iter().rev().take(TRUSTED_MAX);
        let keys: Vec<_> = newest.map(|version| self.0.publisher_key(version)).collect::<Result<_, _>>()?;
        Ok(Publisher::new(&keys)?)
    }

    fn newest(&self, role: Role) -> Result<u32, Error> {
        let lacking = || self.0.unavailable(role).map_or(Error::NoKey(role), Error::Unavailable);
        self.active(role)?.pop().ok_or_else(lacking)
    }

    fn publish(&self, unsigned: &Unsigned) -> Result<Envelope, Error> {
        let header = unsigned.header()?;
        let master = self.newest(Role::Master)?;
        let aad = content_key_aad(&header.id());
        let slot = self.0.encrypt(master, &aad, unsigned.content_key().expose_to_vault())?;
        let signature = self.sign(&header.signed_bytes())?;
        Ok(Envelope::new(signature, slot, unsigned.slots())?)
    }

    fn unwrap<'a>(&self, header: Header<'a>, envelope: &Envelope) -> Result<Unwrapped<'a>, Error> {
        let header = self.verify(header, envelope, &self.active(Role::Publisher)?)?;
        let aad = content_key_aad(&header.id());
        let active = self.active(Role::Master)?;
        for slot in envelope.slots().filter(|slot| active.contains(&slot.version)) {
            match self.0.decrypt(slot, &aad) {
                Ok(content) => return Ok(Unwrapped::by_vault(header, &content)?),
                Err(Error::Slot) => {}
                Err(error) => return Err(error),
            }
        }
        let retired = self.0.retired()?;
        let named = |slot: &Slot| retired.contains(&(Role::Master, slot.version));
        match envelope.slots().find(|slot| named(slot)) {
            Some(slot) => Err(Error::Retired(Role::Master, slot.version)),
            None => Err(modelseal_core::Error::KeySlot.into()),
        }
    }

    fn sign_grant(&self, grant: &UnsignedGrant) -> Result<GrantBytes, Error> {
        let signature = self.sign(&grants_message(&grant.leaf()))?;
        Ok(grant.sign(&PathSignature { signature, siblings: Default::default(), sides: 0 })?)
    }

    fn sign_grants(&self, tree: GrantTree) -> Result<SignedTree, Error> {
        let signature = self.sign(&grants_message(&tree.root()))?;
        Ok(tree.signed(signature))
    }

    fn device_keys(&self, devices: &[(DeviceId<'_>, u32)]) -> Result<Vec<DeviceKey>, Error> {
        let retired = self.0.retired()?;
        // Roomy enough from the start: a buffer that grew would leave keys in memory that was given back.
        let mut keys = Vec::with_capacity(devices.len());
        for part in devices.chunk_by(|(_, a), (_, b)| a == b) {
            let Some((_, fleet)) = part.first() else { continue };
            if retired.contains(&(Role::Fleet, *fleet)) {
                return Err(Error::Retired(Role::Fleet, *fleet));
            }
            let blocks = part.iter().flat_map(|(device, _)| [1, 2].map(|i| fleet_block(i, *device).to_vec()));
            let cmacs = self.0.cmacs(*fleet, &blocks.collect::<Vec<_>>())?;
            keys.extend(cmacs.as_chunks().0.iter().map(joined));
        }
        Ok(keys)
    }

    fn device_key(&self, device: DeviceId<'_>, fleet: u32) -> Result<DeviceKey, Error> {
        let keys = self.device_keys(&[(device, fleet)])?;
        // Copied, not popped: what is taken out of a list isn't wiped there.
        let key = keys.first().map(|key| DeviceKey::from_bytes(key.expose_to_factory()));
        key.ok_or(Error::NoVersion(Role::Fleet, fleet))
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.0.exposed()
    }

    fn check(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = self.0.check()?;
        findings.extend(Role::ALL.map(|role| self.check_newest(role)));
        findings.extend(self.keys()?.iter().map(|key| self_test(&self.0, key)));
        findings.sort_by_key(|finding| finding.part);
        Ok(findings)
    }
}

impl<B: Backend> Roles<B> {
    /// A token that can't have a role's key does without; any other vault lacks one.
    fn check_newest(&self, role: Role) -> Finding {
        let subject = format!("{} key", role.name());
        let without = |error: &Error| format!("{error}; not available: {}", role.serves());
        match self.newest(role) {
            Ok(version) => Finding::good(Part::Keys, subject, format!("version {version} is used")),
            Err(error @ Error::Unavailable(_)) if role != Role::Publisher => {
                Finding::noted(Part::Keys, subject, without(&error))
            }
            Err(error) => Finding::bad(Part::Keys, subject, without(&error)),
        }
    }
}

/// `K(1) || K(2)` (FORMAT.md, section 3.3)
fn joined(halves: &[Zeroizing<[u8; 16]>; 2]) -> DeviceKey {
    let mut key = Zeroizing::new([0; 32]);
    key.chunks_exact_mut(16).zip(halves).for_each(|(to, half)| to.copy_from_slice(half.as_slice()));
    DeviceKey::from_bytes(&key)
}
