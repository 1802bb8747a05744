//! The first keys of a vault, and the next versions of each.

use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;

use super::backend::{CMAC, ECDSA, ED25519, ENCRYPT};
use super::keys::{Keys, label, lacking};
use super::session::{Failure, Pool, failed};
use super::template::{isnt, optional_choices, private, public, secret};
use crate::error::Error;
use crate::observed::observe_key;
use crate::vault::{Algorithm, Role};

const GENERATE: &str = "generating a key";
const FIRST: u32 = 1;
/// How often, and how long at least between, the next version is tried for.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);
const LIST: &str = "listing the mechanisms";

/// Makes version 1 of every key, or none.
pub(super) fn first_keys(pool: &Pool, publisher: Option<Algorithm>) -> Result<(), Error> {
    let publishers = available(pool, publisher)?;
    let session = pool.open_writable()?;
    let there = Keys::read(&session).map_err(|failure| failure.error)?;
    if !there.entries.is_empty() || !there.strays.is_empty() {
        return Err(Error::Exists("the token".into()));
    }
    let mut made = Made { session: &session, version: FIRST, handles: Vec::new() };
    let result = made.all(&publishers);
    pool.forget_keys();
    result.inspect_err(|_| made.undo()).map_err(|failure| failure.error)
}

/// Makes the next version of one key, with the newest one's algorithm unless told otherwise, or nothing.
///
/// A token has nothing to reserve a version with. Two who make the same one at the same time both find that out, both
/// take back theirs, and try again after pauses of different lengths.
pub(super) fn next_key(pool: &Pool, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
    for _ in 0..TRIES {
        if let Some(version) = try_next_key(pool, role, algorithm)? {
            return Ok(version);
        }
        let mut random = [0];
        getrandom::fill(&mut random).map_err(|_| Error::Random)?;
        std::thread::sleep(PAUSE + PAUSE * u32::from(random[0]) / 16);
    }
    Err(Error::Failed(GENERATE, "others keep making the same version at the same time".into()))
}

/// `None` if somebody else made the same version.
fn try_next_key(pool: &Pool, role: Role, algorithm: Option<Algorithm>) -> Result<Option<u32>, Error> {
    let session = pool.open_writable()?;
    // Read in this session: what the pool knows may be a second old.
    let there = Keys::read(&session).map_err(|failure| failure.error)?;
    let newest = there.entries.iter().map(|entry| entry.key).filter(|key| key.role == role);
    let newest = newest.max_by_key(|key| key.version).ok_or(Error::NoKey(role))?;
    let version = newest.version.checked_add(1).ok_or(Error::NoKey(role))?;
    let algorithm = algorithm.unwrap_or(newest.algorithm);
    require(&Mechanisms::of(pool)?, role, algorithm)?;
    let mut made = Made { session: &session, version, handles: Vec::new() };
    let result = made.one(role, algorithm);
    if !matches!(result, Ok(true)) {
        made.undo();
    }
    pool.forget_keys();
    Ok(result.map_err(|failure| failure.error)?.then_some(version))
}

struct Mechanisms(Vec<MechanismType>);

impl Mechanisms {
    fn of(pool: &Pool) -> Result<Self, Error> {
        let listed = pool.ask(Pkcs11::get_mechanism_list)?;
        listed.map(Self).map_err(|error| failed(LIST)(error).error)
    }

    fn need(&self, mechanism: MechanismType, operation: &'static str) -> Result<(), Error> {
        if self.0.contains(&mechanism) { Ok(()) } else { Err(Error::Unavailable(operation)) }
    }
}

/// All that a role's key needs.
fn require(mechanisms: &Mechanisms, role: Role, algorithm: Algorithm) -> Result<(), Error> {
    match (role, algorithm) {
        (Role::Publisher, Algorithm::Aes256) => Err(Error::Unavailable("signing with AES")),
        (Role::Publisher, Algorithm::Ed25519) => mechanisms.need(MechanismType::EDDSA, ED25519),
        (Role::Publisher, Algorithm::EcdsaP256) => mechanisms.need(MechanismType::ECDSA, ECDSA),
        (Role::Master | Role::Fleet, _) => {
            mechanisms.need(MechanismType::AES_KEY_GEN, "generating AES keys")?;
            match role {
                Role::Fleet => mechanisms.need(MechanismType::AES_CMAC, CMAC),
                _ => mechanisms.need(MechanismType::AES_GCM, ENCRYPT),
            }
        }
    }
}

/// The algorithms to try for the publisher key, after all that the other keys need has been found.
fn available(pool: &Pool, publisher: Option<Algorithm>) -> Result<Vec<Algorithm>, Error> {
    let mechanisms = Mechanisms::of(pool)?;
    require(&mechanisms, Role::Master, Algorithm::Aes256)?;
    require(&mechanisms, Role::Fleet, Algorithm::Aes256)?;
    let has = |algorithm| require(&mechanisms, Role::Publisher, algorithm);
    match publisher {
        Some(algorithm) => has(algorithm).map(|()| vec![algorithm]),
        None if has(Algorithm::Ed25519).is_ok() => Ok(vec![Algorithm::Ed25519, Algorithm::EcdsaP256]),
        None => has(Algorithm::EcdsaP256).map(|()| vec![Algorithm::EcdsaP256]),
    }
}

/// What has been made so far.
struct Made<'a> {
    session: &'a Session,
    version: u32,
    handles: Vec<ObjectHandle>,
}

impl Made<'_> {
    fn all(&mut self, publishers: &[Algorithm]) -> Result<(), Failure> {
        self.observed(Role::Master, |made| made.secret(Role::Master))?;
        self.observed(Role::Fleet, |made| made.secret(Role::Fleet))?;
        self.observed(Role::Publisher, |made| made.publisher(publishers))?;
        let keys = Keys::read(self.session)?;
        Role::ALL
            .into_iter()
            .try_for_each(|role| require_made_inside(self.session, &keys, role, self.version))
    }

    /// `false` if it isn't the only one of its version.
    fn one(&mut self, role: Role, algorithm: Algorithm) -> Result<bool, Failure> {
        match role {
            Role::Master | Role::Fleet => self.secret(role)?,
            Role::Publisher => self.pair(algorithm)?,
        }
        let keys = Keys::read(self.session)?;
        let same = keys.entries.iter().filter(|e| (e.key.role, e.key.version) == (role, self.version));
        if same.count() > 1 {
            return Ok(false);
        }
        require_made_inside(self.session, &keys, role, self.version).map(|()| true)
    }

    fn observed(
        &mut self,
        role: Role,
        make: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Error> {
        observe_key("generate", role, self.version, || make(self).map_err(|failure| failure.error))
    }

    fn secret(&mut self, role: Role) -> Result<(), Failure> {
        let label = label(role, self.version);
        let generate = |optional: Vec<Attribute>| {
            self.session.generate_key(&Mechanism::AesKeyGen, &secret(role, &label, &optional))
        };
        let handle = first_accepted(optional_choices(role, Algorithm::Aes256), generate)?;
        self.handles.push(handle);
        Ok(())
    }

    /// With the first algorithm that the token has in fact: some list EdDSA and refuse it.
    fn publisher(&mut self, algorithms: &[Algorithm]) -> Result<(), Failure> {
        let mut result = Err(Error::Unavailable(GENERATE).into());
        for algorithm in algorithms {
            result = self.pair(*algorithm);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn pair(&mut self, algorithm: Algorithm) -> Result<(), Failure> {
        let label = label(Role::Publisher, self.version);
        let mechanism = match algorithm {
            Algorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
            _ => Mechanism::EccKeyPairGen,
        };
        let public = public(algorithm, &label);
        let generate = |optional: Vec<Attribute>| {
            self.session.generate_key_pair(&mechanism, &public, &private(&label, &optional))
        };
        let (public, private) = first_accepted(optional_choices(Role::Publisher, algorithm), generate)?;
        self.handles.extend([public, private]);
        Ok(())
    }

    /// The failure that led here is what matters, not one in cleaning up after it.
    fn undo(&self) {
        for handle in &self.handles {
            let _ = self.session.destroy_object(*handle);
        }
    }
}

fn first_accepted<T>(
    choices: Vec<Vec<Attribute>>,
    generate: impl Fn(Vec<Attribute>) -> Result<T, Pkcs11Error>,
) -> Result<T, Failure> {
    let mut result = Err(Error::Unavailable(GENERATE).into());
    for optional in choices {
        result = generate(optional).map_err(failed(GENERATE));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Read back: a token may have taken the template and done otherwise. CKA_LOCAL isn't asked for, which NSS
/// gets wrong: we have just seen the key being generated.
fn require_made_inside(session: &Session, keys: &Keys, role: Role, version: u32) -> Result<(), Failure> {
    let key = keys.get(role, version)?;
    let mut origin = super::template::origin();
    origin.retain(|attribute| attribute.attribute_type() != AttributeType::Local);
    match lacking(session, key.handle, origin)?.as_slice() {
        [] => Ok(()),
        wrong => {
            let wrong: Vec<_> = wrong.iter().map(isnt).collect();
            Err(Error::TooWide(key.label(), wrong.join(", ")).into())
        }
    }
}
