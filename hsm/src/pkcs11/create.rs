//! The first keys of a vault, and the next versions of each.

use std::time::Duration;

use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;

use super::backend::ECDSA;
use super::failure::{Class, Failure, failed};
use super::keys::{Keys, label, lacking};
use super::offers::{missing, missing_for};
use super::session::Pool;
use super::template::{isnt, optional_choices, private, public_choices, secret};
use crate::error::Error;
use crate::observed::observe_key;
use crate::vault::{Algorithm, Role};

const GENERATE: &str = "generating a key";
const FIRST: u32 = 1;
/// How often, and how long at least between, the next version is tried for.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// Makes version 1 of every key that the token can have, or none. Two who do so at the same time, such as on two hosts,
/// both take back theirs and try again: the later one then finds the other's.
pub(super) fn first_keys(pool: &Pool, publisher: Option<Algorithm>) -> Result<(), Error> {
    let publishers = available(pool, publisher)?;
    unless_others_do(|| Ok(try_first_keys(pool, &publishers)?.then_some(())))
}

/// `false` if somebody else made some, too.
fn try_first_keys(pool: &Pool, publishers: &[Algorithm]) -> Result<bool, Error> {
    let secrets = [Role::Master, Role::Fleet].into_iter().filter(|role| missing(pool, *role).is_none());
    let secrets: Vec<_> = secrets.collect();
    let session = pool.open_writable()?;
    let there = read_keys(&session).map_err(|failure| failure.error)?;
    if !there.entries.is_empty() || !there.strays.is_empty() {
        return Err(Error::Exists("the token".into()));
    }
    let mut made = Made { pool, session: &session, version: FIRST, handles: Vec::new() };
    let result = made.all(&secrets, publishers);
    made.settle(result)
}

/// Makes the next version of one key, with the newest one's algorithm unless told otherwise, or nothing.
///
/// A token has nothing to reserve a version with. Two who make the same one at the same time both find that out, both
/// take back theirs, and try again after pauses of different lengths.
pub(super) fn next_key(pool: &Pool, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
    unless_others_do(|| try_next_key(pool, role, algorithm))
}

/// Does what gives `None` if somebody else did the same at the same time, until nobody else does.
fn unless_others_do<T>(make: impl Fn() -> Result<Option<T>, Error>) -> Result<T, Error> {
    for _ in 0..TRIES {
        if let Some(made) = make()? {
            return Ok(made);
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
    let there = read_keys(&session).map_err(|failure| failure.error)?;
    let newest = there.entries.iter().map(|entry| entry.key).filter(|key| key.role == role);
    let newest = newest.max_by_key(|key| key.version).ok_or(Error::NoKey(role))?;
    let version = newest.version.checked_add(1).ok_or(Error::LastVersion(role, newest.version))?;
    let algorithm = algorithm.unwrap_or(newest.algorithm);
    require(pool, role, algorithm)?;
    let mut made = Made { pool, session: &session, version, handles: Vec::new() };
    let result = made.one(role, algorithm);
    Ok(made.settle(result)?.then_some(version))
}

/// What somebody else takes back meanwhile vanishes under the reading, which is then done again.
fn read_keys(session: &Session) -> Result<Keys, Failure> {
    let mut keys = Keys::read(session);
    for _ in 0..TRIES {
        match keys {
            Err(Failure { class: Class::Session, .. }) => keys = Keys::read(session),
            _ => break,
        }
    }
    keys
}

/// All that a role's key needs.
fn require(pool: &Pool, role: Role, algorithm: Algorithm) -> Result<(), Error> {
    match missing_for(pool, role, algorithm) {
        Some(operation) => Err(Error::Unavailable(operation)),
        None => Ok(()),
    }
}

/// The algorithms to try for the publisher key, without which there is no vault.
fn available(pool: &Pool, publisher: Option<Algorithm>) -> Result<Vec<Algorithm>, Error> {
    let candidates = match publisher {
        Some(Algorithm::Aes256) => return Err(Error::Unavailable("signing with AES")),
        Some(algorithm) => vec![algorithm],
        None => vec![Algorithm::Ed25519, Algorithm::EcdsaP256],
    };
    let mut lacks = ECDSA;
    let mut available = Vec::new();
    for algorithm in candidates {
        match missing_for(pool, Role::Publisher, algorithm) {
            None => available.push(algorithm),
            Some(operation) => lacks = operation,
        }
    }
    if available.is_empty() { Err(Error::Unavailable(lacks)) } else { Ok(available) }
}

/// What has been made so far.
struct Made<'a> {
    pool: &'a Pool,
    session: &'a Session,
    version: u32,
    handles: Vec<ObjectHandle>,
}

impl Made<'_> {
    /// `false` if they aren't the only ones.
    fn all(&mut self, secrets: &[Role], publishers: &[Algorithm]) -> Result<bool, Failure> {
        for role in secrets {
            self.observed(*role, |made| made.secret(*role))?;
        }
        self.observed(Role::Publisher, |made| made.publisher(publishers))?;
        let roles: Vec<_> = secrets.iter().copied().chain([Role::Publisher]).collect();
        self.are_alone(&roles)
    }

    /// `false` if it isn't the only one of its version.
    fn one(&mut self, role: Role, algorithm: Algorithm) -> Result<bool, Failure> {
        match role {
            Role::Master | Role::Fleet => self.secret(role)?,
            Role::Publisher => self.pair(algorithm)?,
        }
        self.are_alone(&[role])
    }

    /// Whether nobody else made the same ones, as seen a moment later in a session that hasn't seen them being made.
    fn are_alone(&self, roles: &[Role]) -> Result<bool, Failure> {
        std::thread::sleep(PAUSE);
        let another = match self.pool.open_writable() {
            Ok(session) => Some(session),
            // The token has no more.
            Err(Error::Sessions) => None,
            Err(error) => return Err(error.into()),
        };
        let session = another.as_deref().unwrap_or(self.session);
        let keys = read_keys(session)?;
        let is_one = |role: &Role| {
            let same = keys.entries.iter().filter(|e| (e.key.role, e.key.version) == (*role, self.version));
            same.count() <= 1
        };
        if !roles.iter().all(is_one) {
            return Ok(false);
        }
        roles.iter().try_for_each(|role| require_made_inside(session, &keys, *role, self.version))?;
        Ok(true)
    }

    /// Takes back what isn't to stay.
    fn settle(&self, result: Result<bool, Failure>) -> Result<bool, Error> {
        if !matches!(result, Ok(true)) {
            self.undo();
        }
        self.pool.forget_keys();
        result.map_err(|failure| failure.error)
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
        let publics = public_choices(algorithm, &label);
        let choices = optional_choices(Role::Publisher, algorithm);
        let choices =
            choices.iter().flat_map(|optional| publics.iter().map(move |public| (public, optional)));
        let generate = |(public, optional): (&Vec<Attribute>, &Vec<Attribute>)| {
            self.session.generate_key_pair(&mechanism, public, &private(&label, optional))
        };
        let (public, private) = first_accepted(choices, generate)?;
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

fn first_accepted<C, T>(
    choices: impl IntoIterator<Item = C>,
    generate: impl Fn(C) -> Result<T, Pkcs11Error>,
) -> Result<T, Failure> {
    let mut result = Err(Error::Unavailable(GENERATE).into());
    for choice in choices {
        result = generate(choice).map_err(failed(GENERATE));
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
