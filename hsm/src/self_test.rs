//! Every key does what it is for, and nothing goes wrong with it: what `check` tries with any backend.

use modelseal_core::sign::Publisher;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::vault::{Backend, Finding, Key, Part, Role};

/// What self-tests encrypt under, take the CMAC of and sign: no label of the format.
pub(crate) const SELF_TEST: &[u8] = b"modelseal/v1/self-test\0";

/// Uses one key, and looks at the result.
pub(crate) fn self_test(backend: &impl Backend, key: &Key) -> Finding {
    let (what, tested) = match key.role {
        Role::Master => ("wraps and unwraps", wraps(backend, key.version)),
        Role::Fleet => ("makes CMACs", makes_cmacs(backend, key.version)),
        Role::Publisher => ("signs", signs(backend, key.version)),
    };
    let subject = format!("{}/{} {what}", key.role.name(), key.version);
    match tested {
        Ok(Some(how)) => Finding::good(Part::Tests, subject, how),
        Ok(None) => Finding::bad(Part::Tests, subject, "the result is wrong; don't use this vault"),
        Err(error) => Finding::bad(Part::Tests, subject, error.to_string()),
    }
}

/// A random content key comes back, and only from the slot and the additional data that it went into.
fn wraps(backend: &impl Backend, version: u32) -> Result<Option<&'static str>, Error> {
    let mut content = Zeroizing::new([0; 32]);
    getrandom::fill(content.as_mut()).map_err(|_| Error::Random)?;
    let slot = backend.encrypt(version, SELF_TEST, &content)?;
    let back = backend.decrypt(&slot, SELF_TEST)?;
    let elsewhere = backend.decrypt(&slot, &[]);
    let mut changed = slot;
    changed.ciphertext[0] ^= 1;
    let changed = backend.decrypt(&changed, SELF_TEST);
    let good = back == content
        && slot.ciphertext != *content
        && [elsewhere, changed].iter().all(|refused| matches!(refused, Err(Error::Slot)));
    Ok(good.then_some("a random test key came back; changed or elsewhere it was refused"))
}

fn makes_cmacs(backend: &impl Backend, version: u32) -> Result<Option<&'static str>, Error> {
    let (first, again) = (backend.cmac(version, SELF_TEST)?, backend.cmac(version, SELF_TEST)?);
    let other = backend.cmac(version, &[])?;
    Ok((first == again && first != other).then_some("the same for the same message, and another for another"))
}

/// With its public key as readers will see it.
fn signs(backend: &impl Backend, version: u32) -> Result<Option<&'static str>, Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| Error::Random)?;
    let message = [SELF_TEST, &random].concat();
    let key = backend.publisher_key(version)?;
    let signature = key.canonical(backend.sign(version, &message)?);
    let publisher = Publisher::new(&[key])?;
    let good = publisher.has_signed(&message, &signature) && !publisher.has_signed(SELF_TEST, &signature);
    Ok(good.then_some("a test message was signed, and the signature verifies under the public key"))
}
