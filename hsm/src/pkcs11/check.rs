//! Everything that can be wrong with a token, looked at. What endangers is refused in use, too.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::Attribute;
use cryptoki::session::Session;
use cryptoki::slot::TokenInfo;
use zeroize::Zeroizing;

use super::backend::{CMAC, DECRYPT, ECDSA, ED25519, ENCRYPT, SELF_TEST, Token};
use super::keys::{Entry, Keys, lacking};
use super::session::{Failure, Pool};
use super::template::{isnt, optional, origin};
use crate::error::Error;
use crate::observed::observe_key;
use crate::vault::{Algorithm, Backend, Finding, Key, Role};

pub(super) fn check(token: &Token) -> Result<Vec<Finding>, Error> {
    let pool = token.pool();
    let mut findings = vec![module(pool)];
    findings.extend(token_itself(pool));
    pool.forget_keys();
    let keys = token.keys()?;
    findings.extend(mechanisms(pool, &keys));
    findings.extend(pool.run(attributes)?);
    findings.extend(keys.iter().map(|key| self_test(token, key)));
    Ok(findings)
}

fn finding(subject: impl Into<String>, found: Result<String, String>) -> Finding {
    let ok = found.is_ok();
    Finding { subject: subject.into(), ok, detail: found.unwrap_or_else(|wrong| wrong) }
}

fn module(pool: &Pool) -> Finding {
    let info = pool.ask(|context, _| context.get_library_info());
    let info = info.map_err(|e| e.to_string()).and_then(|info| info.map_err(|e| e.to_string()));
    let path = pool.module_path().display();
    finding(
        "module",
        info.map(|info| {
            let (name, version) = (info.library_description().trim_end(), info.library_version());
            format!("{path}: {name} {version}, PKCS#11 {}", info.cryptoki_version())
        }),
    )
}

fn token_itself(pool: &Pool) -> Vec<Finding> {
    match pool.ask(Pkcs11::get_token_info) {
        Err(error) => vec![finding("token", Err(error.to_string()))],
        Ok(Err(error)) => vec![finding("token", Err(error.to_string()))],
        Ok(Ok(info)) => {
            let detail = format!(
                "{}, serial {}: {} {}, firmware {}",
                info.label(),
                info.serial_number(),
                info.manufacturer_id(),
                info.model(),
                info.firmware_version()
            );
            vec![finding("token", Ok(detail)), finding("PIN", pin(&info))]
        }
    }
}

fn pin(info: &TokenInfo) -> Result<String, String> {
    let warnings = [
        (info.user_pin_locked(), "it is locked"),
        (info.user_pin_final_try(), "one try is left"),
        (info.user_pin_count_low(), "there were wrong tries, and few are left"),
        (info.user_pin_to_be_changed(), "it is still the first one and must be changed"),
    ];
    match warnings.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, warning)) => Err(warning.into()),
        None => Ok("the token has no warning about it".into()),
    }
}

/// Those that the keys need. A token without a publisher key yet needs either algorithm.
fn mechanisms(pool: &Pool, keys: &[Key]) -> Vec<Finding> {
    let has = |algorithm| keys.iter().any(|key| key.algorithm == algorithm);
    let mut needed = vec![
        (MechanismType::AES_GCM, ENCRYPT),
        (MechanismType::AES_GCM, DECRYPT),
        (MechanismType::AES_CMAC, CMAC),
    ];
    if has(Algorithm::Ed25519) {
        needed.push((MechanismType::EDDSA, ED25519));
    }
    if has(Algorithm::EcdsaP256) {
        needed.push((MechanismType::ECDSA, ECDSA));
    }
    let needed = needed.into_iter();
    needed.map(|(mechanism, operation)| finding(operation, offered(pool, mechanism, operation))).collect()
}

fn offered(pool: &Pool, mechanism: MechanismType, operation: &str) -> Result<String, String> {
    let info = pool.ask(|context, slot| context.get_mechanism_info(slot, mechanism));
    let offered = info.is_ok_and(|info| {
        info.is_ok_and(|info| match operation {
            ENCRYPT => info.encrypt(),
            DECRYPT => info.decrypt(),
            _ => info.sign(),
        })
    });
    if offered {
        Ok("the token has it".into())
    } else {
        Err("the token doesn't have it; other operations go on".into())
    }
}

fn attributes(session: &Session, keys: &Keys) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for entry in &keys.entries {
        let name = format!("{}/{}", entry.key.role.name(), entry.key.version);
        let narrow = if entry.faults.is_empty() {
            Ok("as narrow as its role".into())
        } else {
            Err(format!("refused in use: {}", entry.faults.join(", ")))
        };
        findings.push(finding(format!("{name} attributes"), narrow));
        findings.push(finding(format!("{name} origin"), made_inside(session, entry)?));
        findings.push(finding(format!("{name} fences"), Ok(fences(session, entry))));
    }
    for stray in &keys.strays {
        let wrong = "a key that can't have this role has its label; it is never used";
        findings.push(finding(stray, Err(wrong.into())));
    }
    Ok(findings)
}

/// An imported key may be elsewhere, too; it is reported and used.
fn made_inside(session: &Session, entry: &Entry) -> Result<Result<String, String>, Failure> {
    let wrong = lacking(session, entry.handle, origin())?;
    if wrong.is_empty() {
        return Ok(Ok("made in the token, and never outside it".into()));
    }
    Ok(Err(format!("copies of it may exist, or the token doesn't tell: {}", words(&wrong))))
}

/// Not every token has them, and use doesn't rely on them.
fn fences(session: &Session, entry: &Entry) -> String {
    let mut absent = Vec::new();
    for attribute in optional(entry.key.role, entry.key.algorithm) {
        // Alone, because a token may know one and not another.
        let found = lacking(session, entry.handle, vec![attribute.clone()]);
        absent.extend(found.unwrap_or_else(|_| vec![attribute]));
    }
    if absent.is_empty() {
        "one mechanism, no copies, no changes".into()
    } else {
        format!("the token leaves open what a PIN holder could change: {}", words(&absent))
    }
}

fn words(attributes: &[Attribute]) -> String {
    attributes.iter().map(isnt).collect::<Vec<_>>().join(", ")
}

fn self_test(token: &Token, key: &Key) -> Finding {
    let what = match key.role {
        Role::Master => "wraps and unwraps",
        Role::Fleet => "makes CMACs",
        Role::Publisher => "signs",
    };
    let tested = observe_key("self-test", key.role, key.version, || match key.role {
        Role::Master => wraps(token, key.version),
        Role::Fleet => makes_cmacs(token, key.version),
        Role::Publisher => token.publisher_key(key.version).map(|_| true),
    });
    let found = match tested {
        Ok(true) => Ok("tested".into()),
        Ok(false) => Err("the token gave a wrong result; don't use it".into()),
        Err(error) => Err(error.to_string()),
    };
    finding(format!("{}/{} {what}", key.role.name(), key.version), found)
}

/// A random content key comes back, and only from the slot and the additional data that it went into.
fn wraps(token: &Token, version: u32) -> Result<bool, Error> {
    let mut content = Zeroizing::new([0; 32]);
    getrandom::fill(content.as_mut()).map_err(|_| Error::Random)?;
    let slot = token.encrypt(version, SELF_TEST, &content)?;
    let back = token.decrypt(&slot, SELF_TEST)?;
    let elsewhere = token.decrypt(&slot, &[]);
    Ok(back == content && slot.ciphertext != *content && matches!(elsewhere, Err(Error::Slot)))
}

fn makes_cmacs(token: &Token, version: u32) -> Result<bool, Error> {
    let (first, again) = (token.cmac(version, SELF_TEST)?, token.cmac(version, SELF_TEST)?);
    let other = token.cmac(version, &[])?;
    Ok(first == again && first != other)
}
