//! Notes of which keys are retired, and the end of keys.
//!
//! A key that can't be modified keeps its label, so that it is retired stands in an object of its own: a private data
//! object with the label `modelseal/retired/ROLE/VERSION`. Private, so that only who has the PIN can make or delete one.

use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::failure::{Failure, failed};
use super::keys::{Keys, find, label, parse, read_label};
use super::session::Pool;
use crate::error::Error;
use crate::vault::Role;

const READ: &str = "reading which keys are retired";
const NOTE: &str = "noting that a key is retired";
const UNNOTE: &str = "deleting the note that a key is retired";
const DESTROY: &str = "destroying a key";
const PREFIX: &str = "modelseal/retired/";

/// The keys that are retired, whether they are still there or not.
pub(super) fn noted(session: &Session) -> Result<Vec<(Role, u32)>, Failure> {
    Ok(notes(session)?.into_iter().map(|(key, _)| key).collect())
}

/// The key that it is about, and the note itself.
type Note = ((Role, u32), ObjectHandle);

fn notes(session: &Session) -> Result<Vec<Note>, Failure> {
    let private = [Attribute::Class(ObjectClass::DATA), Attribute::Token(true), Attribute::Private(true)];
    let mut notes = Vec::new();
    for handle in session.find_objects(&private).map_err(failed(READ))? {
        let label = read_label(session, handle)?.unwrap_or_default();
        let key = label.strip_prefix(PREFIX).and_then(|key| parse(&format!("modelseal/{key}")));
        notes.extend(key.map(|key| (key, handle)));
    }
    Ok(notes)
}

/// Makes the note, or deletes every one there is.
pub(super) fn mark(pool: &Pool, role: Role, version: u32, retired: bool) -> Result<(), Error> {
    let session = pool.open_writable()?;
    let marked = if retired { note(&session, role, version) } else { unnote(&session, role, version) };
    pool.forget_keys();
    marked.map_err(|failure| failure.error)
}

fn note(session: &Session, role: Role, version: u32) -> Result<(), Failure> {
    if noted(session)?.contains(&(role, version)) {
        return Ok(());
    }
    let label = format!("{PREFIX}{}/{version}", role.name());
    let object = [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(b"modelseal".to_vec()),
        Attribute::Label(label.into()),
        Attribute::Value(b"retired".to_vec()),
    ];
    session.create_object(&object).map(drop).map_err(failed(NOTE))
}

fn unnote(session: &Session, role: Role, version: u32) -> Result<(), Failure> {
    for (key, handle) in notes(session)? {
        if key == (role, version) {
            session.destroy_object(handle).map_err(failed(UNNOTE))?;
        }
    }
    Ok(())
}

/// Destroys every object that has the key's label, then the note: whatever the key's attributes are, and though there
/// be two.
pub(super) fn destroy(pool: &Pool, role: Role, version: u32) -> Result<(), Error> {
    let session = pool.open_writable()?;
    let destroyed = destroy_all(&session, role, version);
    pool.forget_keys();
    destroyed.map_err(|failure| failure.error)
}

fn destroy_all(session: &Session, role: Role, version: u32) -> Result<(), Failure> {
    // It may have been reinstated meanwhile.
    if !noted(session)?.contains(&(role, version)) {
        return Err(Error::NotRetired(role, version).into());
    }
    let label = label(role, version);
    // The secret first: without it the rest is of no use.
    for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        for handle in find(session, class, Some(&label))? {
            session.destroy_object(handle).map_err(failed(DESTROY))?;
        }
    }
    // Not every token tells that it refuses.
    let left = Keys::read(session)?;
    if left.entries.iter().any(|entry| (entry.key.role, entry.key.version) == (role, version)) {
        return Err(Error::NotDestroyed(role, version).into());
    }
    unnote(session, role, version)
}
