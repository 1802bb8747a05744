//! The first keys of a vault.

use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;

use super::backend::ECDSA;
use super::keys::{Keys, label, lacking};
use super::offers::{missing, missing_for};
use super::session::{Failure, Pool, failed};
use super::template::{isnt, optional_choices, private, public_choices, secret};
use crate::error::Error;
use crate::vault::{Algorithm, Role};

const GENERATE: &str = "generating a key";
const FIRST: u32 = 1;

/// Makes version 1 of every key that the token can have, or none.
pub(super) fn first_keys(pool: &Pool, publisher: Option<Algorithm>) -> Result<(), Error> {
    let publishers = available(pool, publisher)?;
    let secrets = [Role::Master, Role::Fleet].into_iter().filter(|role| missing(pool, *role).is_none());
    let secrets: Vec<_> = secrets.collect();
    let session = pool.open_writable()?;
    let there = Keys::read(&session).map_err(|failure| failure.error)?;
    if !there.entries.is_empty() || !there.strays.is_empty() {
        return Err(Error::Exists("the token".into()));
    }
    let mut made = Made { session: &session, handles: Vec::new() };
    let result = made.all(&secrets, &publishers);
    pool.forget_keys();
    result.inspect_err(|_| made.undo()).map_err(|failure| failure.error)
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
    session: &'a Session,
    handles: Vec<ObjectHandle>,
}

impl Made<'_> {
    fn all(&mut self, secrets: &[Role], publishers: &[Algorithm]) -> Result<(), Failure> {
        secrets.iter().try_for_each(|role| self.secret(*role))?;
        self.publisher(publishers)?;
        let keys = Keys::read(self.session)?;
        let roles = secrets.iter().chain(&[Role::Publisher]);
        roles.copied().try_for_each(|role| require_made_inside(self.session, &keys, role))
    }

    fn secret(&mut self, role: Role) -> Result<(), Failure> {
        let label = label(role, FIRST);
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
        let label = label(Role::Publisher, FIRST);
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
fn require_made_inside(session: &Session, keys: &Keys, role: Role) -> Result<(), Failure> {
    let key = keys.get(role, FIRST)?;
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
