//! Everything that can be wrong with a token, looked at. What endangers is refused in use, too.

use cryptoki::context::Pkcs11;
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::MechanismInfo;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::{Limit, TokenInfo};

use super::backend::{Public, Token};
use super::failure::Failure;
use super::keys::{Entry, Keys, label, lacking, read};
use super::offers::{Need, ask, needs, offered};
use super::session::{Pool, SESSIONS_MAX};
use super::template::{forbidden, isnt, mechanism_alone, origin, required, words};
use crate::error::Error;
use crate::vault::{Algorithm, Backend, Finding, Key, Part, Role};

const PIN: &str = "PIN";
/// Those of the pool, one that keeps the login, and one that writes.
const SESSIONS_WANTED: u64 = SESSIONS_MAX as u64 + 2;

pub(super) fn check(token: &Token) -> Result<Vec<Finding>, Error> {
    let pool = token.pool();
    let mut findings = library(pool);
    findings.extend(token_itself(pool));
    findings.push(randomness(pool)?);
    pool.forget_keys();
    let keys = token.keys()?;
    findings.push(listed(pool));
    findings.extend(needs().iter().map(|need| mechanism(pool, need, &keys)));
    findings.extend(pool.run(attributes)?);
    findings.extend(keys.iter().filter(|key| key.role == Role::Publisher).map(|key| public(token, key)));
    Ok(findings)
}

/// The same for a token that there is no login to: `refusal` says why.
pub(super) fn look(pool: &Pool, refusal: String) -> Vec<Finding> {
    let mut findings = library(pool);
    findings.extend(token_itself(pool).into_iter().filter(|finding| finding.subject != PIN));
    findings.push(Finding::bad(Part::Token, PIN, refusal));
    findings.push(listed(pool));
    findings.extend(needs().iter().map(|need| mechanism(pool, need, &[])));
    findings
}

fn library(pool: &Pool) -> Vec<Finding> {
    let path = pool.module_path().display();
    match ask(pool, |context, _| context.get_library_info()) {
        Err(error) => vec![Finding::bad(Part::Library, "module", error)],
        Ok(info) => {
            let (name, version) = (info.library_description().trim_end(), info.library_version());
            vec![
                Finding::good(Part::Library, "module", format!("{path}: {name} {version}")),
                Finding::good(Part::Library, "PKCS#11", info.cryptoki_version().to_string()),
            ]
        }
    }
}

// ---- The token ---------------------------------------------------------------------------------------------

fn token_itself(pool: &Pool) -> Vec<Finding> {
    match ask(pool, Pkcs11::get_token_info) {
        Err(error) => vec![Finding::bad(Part::Token, "token", error)],
        Ok(info) => {
            vec![
                identity(&info),
                versions(&info),
                slot(pool),
                pin(&info, pool.before_login()),
                sessions(&info),
                clock(&info),
            ]
        }
    }
}

fn identity(info: &TokenInfo) -> Finding {
    let (label, serial) = (info.label(), info.serial_number());
    let detail = format!("{label}, serial {serial}: {} {}", info.manufacturer_id(), info.model().trim_end());
    if info.error_state() {
        return Finding::bad(Part::Token, "token", detail + "; it reports a failed self-test of its own");
    }
    if info.write_protected() {
        return Finding::noted(Part::Token, "token", detail + "; it can't be written to: no new keys");
    }
    Finding::good(Part::Token, "token", detail)
}

fn versions(info: &TokenInfo) -> Finding {
    let detail = format!("{}, hardware {}", info.firmware_version(), info.hardware_version());
    Finding::good(Part::Token, "firmware", detail)
}

fn slot(pool: &Pool) -> Finding {
    match ask(pool, Pkcs11::get_slot_info) {
        Err(error) => Finding::bad(Part::Token, "slot", error),
        Ok(info) => {
            let kind = if info.hardware_slot() { "hardware" } else { "software" };
            let removable = if info.removable_device() { ", removable" } else { "" };
            let detail = format!("{kind}{removable}: {}", info.slot_description().trim_end());
            Finding::good(Part::Token, "slot", detail)
        }
    }
}

/// All that PKCS#11 tells of the tries that are left: there is no number. A login makes the token forget the wrong ones,
/// so what it said `before` counts, too.
fn pin(info: &TokenInfo, before: &TokenInfo) -> Finding {
    let warnings = [
        (!info.user_pin_initialized(), "none is set"),
        (info.user_pin_locked(), "locked; no tries are left"),
        (info.user_pin_final_try(), "one try is left"),
        (info.user_pin_count_low(), "there were wrong tries, and few are left"),
        (info.user_pin_to_be_changed(), "it is still the first one and must be changed"),
    ];
    match warnings.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, warning)) => Finding::bad(Part::Token, PIN, warning),
        None if before.user_pin_count_low() => {
            let tries = "before this login the token warned of wrong tries, which it has now forgotten";
            Finding::noted(Part::Token, PIN, format!("set; {tries}; {}", entry(info)))
        }
        None => {
            let tries = "the token warned of no wrong tries before this login";
            Finding::good(Part::Token, PIN, format!("set; {tries}; {}", entry(info)))
        }
    }
}

fn entry(info: &TokenInfo) -> String {
    if info.protected_authentication_path() {
        return "it is entered at the token".into();
    }
    match (info.min_pin_length(), info.max_pin_length()) {
        // Seen: a greatest length of 0, for none.
        (least, most) if most < least => format!("the token asks for at least {least} characters"),
        (least, most) => format!("the token asks for {least} to {most} characters"),
    }
}

fn sessions(info: &TokenInfo) -> Finding {
    let open = info.session_count().map_or("unknown".into(), |open| open.to_string());
    let detail = |limit: &str| format!("{limit}, open: {open}; modelseal uses up to {SESSIONS_WANTED}");
    match info.max_session_count() {
        Limit::Infinite => Finding::good(Part::Token, "sessions", detail("no limit")),
        Limit::Unavailable => Finding::good(Part::Token, "sessions", detail("the token tells no limit")),
        Limit::Max(most) if most >= SESSIONS_WANTED => {
            Finding::good(Part::Token, "sessions", detail(&format!("at most {most}")))
        }
        Limit::Max(most) => Finding::noted(Part::Token, "sessions", detail(&format!("only {most}"))),
    }
}

/// Nothing depends on it.
fn clock(info: &TokenInfo) -> Finding {
    let detail = match info.utc_time() {
        _ if !info.clock_on_token() => "none; none is needed".into(),
        Some(time) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            time.year, time.month, time.day, time.hour, time.minute, time.second
        ),
        None => "the token has one and doesn't tell its time; none is needed".into(),
    };
    Finding::good(Part::Token, "clock", detail)
}

/// The token's keys come from it. Nonces and content keys are the host's.
fn randomness(pool: &Pool) -> Result<Finding, Error> {
    let drawn = pool.run(|session, _| {
        let draw = || session.generate_random_vec(32);
        Ok(draw().and_then(|first| Ok((first, draw()?))))
    })?;
    let part = Part::Token;
    Ok(match drawn {
        Ok((first, second)) if first != second && first.iter().any(|byte| *byte != 0) => {
            Finding::good(part, "RNG", "two draws of 32 bytes differ")
        }
        Ok(_) => Finding::bad(part, "RNG", "two draws of 32 bytes are equal; don't make keys with it"),
        Err(error) => {
            Finding::noted(part, "RNG", format!("it gives nothing out ({error}); only keys are made with it"))
        }
    })
}

// ---- Mechanisms --------------------------------------------------------------------------------------------

fn listed(pool: &Pool) -> Finding {
    match ask(pool, Pkcs11::get_mechanism_list) {
        Ok(list) => {
            let detail = format!("{} that are known by name; what matters of them is below", list.len());
            Finding::good(Part::Mechanisms, "list", detail)
        }
        Err(error) => Finding::bad(Part::Mechanisms, "list", error),
    }
}

/// Wrong is what a key lacks that is there. What is missing for a key that isn't there is something to know.
fn mechanism(pool: &Pool, need: &Need, keys: &[Key]) -> Finding {
    let (part, name) = (Part::Mechanisms, need.mechanism);
    if let Some(info) = offered(pool, need) {
        return Finding::good(part, need.operation, format!("{name}, {}", limits(&info)));
    }
    let uses = |key: &Key| key.role == need.role && key.algorithm == need.algorithm;
    let generates = need.operation.starts_with("generating");
    if keys.iter().any(uses) && !generates {
        return Finding::bad(part, need.operation, format!("{name} is missing, and a key here needs it"));
    }
    let other = match need.algorithm {
        Algorithm::Ed25519 => "ECDSA P-256 serves as well",
        Algorithm::EcdsaP256 => "Ed25519 serves as well",
        Algorithm::Aes256 => "other operations go on",
    };
    Finding::noted(part, need.operation, format!("{name} is missing; {other}"))
}

fn limits(info: &MechanismInfo) -> String {
    let place = if info.hardware() { "in hardware" } else { "in software" };
    // In bits or bytes: tokens differ.
    match (info.min_key_size(), info.max_key_size()) {
        (0, 0) => place.into(),
        (least, most) => format!("{place}, key sizes {least} to {most}"),
    }
}

// ---- Keys --------------------------------------------------------------------------------------------------

fn attributes(session: &Session, keys: &Keys) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for entry in &keys.entries {
        let name = format!("{}/{}", entry.key.role.name(), entry.key.version);
        findings.push(narrow(entry, &name));
        findings.extend(each_required(session, entry, &name)?);
        findings.extend(each_forbidden(session, entry, &name)?);
        findings.push(labels(entry, &name));
        findings.push(made_inside(session, entry, &name)?);
        findings.push(fences(session, entry, &name));
    }
    for stray in &keys.strays {
        let wrong = "a key that can't have this role has its label; it is never used";
        findings.push(Finding::bad(Part::Keys, stray, wrong));
    }
    for planted in &keys.planted {
        let wrong = "it isn't private, so anybody may have made it: it is never used; delete it";
        findings.push(Finding::bad(Part::Keys, planted, wrong));
    }
    Ok(findings)
}

/// Others of its name are ignored in use.
fn public(token: &Token, key: &Key) -> Finding {
    let (subject, label) = (format!("publisher/{} public key", key.version), label(key.role, key.version));
    match token.public(key.version) {
        Err(error) => Finding::bad(Part::Keys, subject, error.to_string()),
        Ok(Public { others: 0, .. }) => Finding::good(Part::Keys, subject, "the private key signs for it"),
        Ok(Public { others, .. }) => {
            let wrong = format!("others are called {label} as well ({others}), which anybody may make: ");
            Finding::bad(Part::Keys, subject, wrong + "they are ignored; delete them")
        }
    }
}

/// In one line, and in the same words as where it is refused in use.
fn narrow(entry: &Entry, name: &str) -> Finding {
    let subject = format!("{name} attributes");
    if entry.faults.is_empty() {
        let detail = format!("{}, as narrow as its role", entry.key.algorithm.name());
        return Finding::good(Part::Keys, subject, detail);
    }
    Finding::bad(Part::Keys, subject, format!("refused in use: {}", entry.faults.join(", ")))
}

fn each_required(session: &Session, entry: &Entry, name: &str) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for wanted in required(entry.key.role) {
        let (attribute, value) = words(&wanted);
        let subject = format!("{name} {attribute}");
        findings.push(match read(session, entry.handle, &wanted)? {
            Some(found) if found == wanted => Finding::good(Part::Keys, subject, value),
            Some(found) => {
                let found = words(&found).1;
                Finding::bad(Part::Keys, subject, format!("{found}, must be {value}: refused in use"))
            }
            None => {
                let detail = format!("the token doesn't tell, must be {value}: refused in use");
                Finding::bad(Part::Keys, subject, detail)
            }
        });
    }
    Ok(findings)
}

fn each_forbidden(session: &Session, entry: &Entry, name: &str) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for wrong in forbidden(entry.key.role) {
        let (attribute, value) = words(&wrong);
        let subject = format!("{name} {attribute}");
        findings.push(match read(session, entry.handle, &wrong)? {
            Some(found) if found == wrong => {
                Finding::bad(Part::Keys, subject, format!("{value}, must not be: refused in use"))
            }
            Some(found) => Finding::good(Part::Keys, subject, words(&found).1),
            None => Finding::noted(Part::Keys, subject, "the token doesn't know it"),
        });
    }
    Ok(findings)
}

fn labels(entry: &Entry, name: &str) -> Finding {
    let subject = format!("{name} label");
    if entry.alone {
        return Finding::good(Part::Keys, subject, format!("{}, once", entry.label()));
    }
    let detail = format!("several keys are called {}: refused in use", entry.label());
    Finding::bad(Part::Keys, subject, detail)
}

/// An imported key may be elsewhere, too; it is reported and used.
fn made_inside(session: &Session, entry: &Entry, name: &str) -> Result<Finding, Failure> {
    let wrong = lacking(session, entry.handle, origin())?;
    let subject = format!("{name} origin");
    if wrong.is_empty() {
        return Ok(Finding::good(Part::Keys, subject, "made in the token, and never outside it"));
    }
    let wrong: Vec<_> = wrong.iter().map(isnt).collect();
    let detail = format!("copies of it may exist, or the token doesn't tell: {}", wrong.join(", "));
    Ok(Finding::bad(Part::Keys, subject, detail))
}

/// Not every token has it, and use doesn't rely on it.
fn fences(session: &Session, entry: &Entry, name: &str) -> Finding {
    let Key { role, algorithm, .. } = entry.key;
    let subject = format!("{name} fences");
    if has(session, entry.handle, &mechanism_alone(role, algorithm)) {
        return Finding::good(Part::Keys, subject, "for one mechanism only");
    }
    let detail = "the token doesn't bind the key to one mechanism; its usage bits do that";
    Finding::noted(Part::Keys, subject, detail)
}

fn has(session: &Session, handle: ObjectHandle, wanted: &Attribute) -> bool {
    let found: Result<_, Pkcs11Error> = session.get_attributes(handle, &[wanted.attribute_type()]);
    found.is_ok_and(|found| found.contains(wanted))
}
