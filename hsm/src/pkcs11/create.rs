//! The first keys of a vault.

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

/// Makes version 1 of every key, or none.
pub(super) fn first_keys(pool: &Pool, publisher: Option<Algorithm>) -> Result<(), Error> {
    let publishers = available(pool, publisher)?;
    let session = pool.open_writable()?;
    let there = Keys::read(&session).map_err(|failure| failure.error)?;
    if !there.entries.is_empty() || !there.strays.is_empty() {
        return Err(Error::Exists("the token".into()));
    }
    let mut made = Made { session: &session, handles: Vec::new() };
    let result = made.all(&publishers);
    pool.forget_keys();
    result.inspect_err(|_| made.undo()).map_err(|failure| failure.error)
}

/// The algorithms to try for the publisher key, after all that the other keys need has been found.
fn available(pool: &Pool, publisher: Option<Algorithm>) -> Result<Vec<Algorithm>, Error> {
    let mechanisms = pool.ask(Pkcs11::get_mechanism_list)?;
    let mechanisms = mechanisms.map_err(|error| failed("listing the mechanisms")(error).error)?;
    let need = |mechanism: MechanismType, operation: &'static str| {
        if mechanisms.contains(&mechanism) { Ok(()) } else { Err(Error::Unavailable(operation)) }
    };
    need(MechanismType::AES_KEY_GEN, "generating AES keys")?;
    need(MechanismType::AES_GCM, ENCRYPT)?;
    need(MechanismType::AES_CMAC, CMAC)?;
    match publisher {
        Some(Algorithm::Aes256) => Err(Error::Unavailable("signing with AES")),
        Some(Algorithm::Ed25519) => need(MechanismType::EDDSA, ED25519).map(|()| vec![Algorithm::Ed25519]),
        Some(Algorithm::EcdsaP256) => need(MechanismType::ECDSA, ECDSA).map(|()| vec![Algorithm::EcdsaP256]),
        None if need(MechanismType::EDDSA, ED25519).is_ok() => {
            Ok(vec![Algorithm::Ed25519, Algorithm::EcdsaP256])
        }
        None => need(MechanismType::ECDSA, ECDSA).map(|()| vec![Algorithm::EcdsaP256]),
    }
}

/// What has been made so far.
struct Made<'a> {
    session: &'a Session,
    handles: Vec<ObjectHandle>,
}

impl Made<'_> {
    fn all(&mut self, publishers: &[Algorithm]) -> Result<(), Failure> {
        self.observed(Role::Master, |made| made.secret(Role::Master))?;
        self.observed(Role::Fleet, |made| made.secret(Role::Fleet))?;
        self.observed(Role::Publisher, |made| made.publisher(publishers))?;
        let keys = Keys::read(self.session)?;
        Role::ALL.into_iter().try_for_each(|role| require_made_inside(self.session, &keys, role))
    }

    fn observed(
        &mut self,
        role: Role,
        make: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Error> {
        observe_key("generate", role, FIRST, || make(self).map_err(|failure| failure.error))
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
