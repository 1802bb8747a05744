//! The vault's keys in a token: found by label, and each with all that is wrong with it.
//!
//! Labels are `modelseal/ROLE/VERSION`. Anybody who can write to the token can give them, so a key counts for
//! what its attributes are. Objects that aren't private are made without the PIN: keys among them count for nothing,
//! and of public keys the one counts that the private key proves. So nobody without the PIN stops a vault by making
//! objects; who has it can, and is refused by name.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::failure::{Failure, failed};
use super::template::{class, forbidden, is, isnt, required};
use crate::error::Error;
use crate::vault::{Algorithm, Key, Role};

const READ: &str = "reading the keys";
const PREFIX: &str = "modelseal/";
const PRIVATE: Attribute = Attribute::Private(true);

/// The label of a key.
pub(super) fn label(role: Role, version: u32) -> String {
    format!("{PREFIX}{}/{version}", role.name())
}

pub(super) fn parse(label: &str) -> Option<(Role, u32)> {
    let (name, version) = label.strip_prefix(PREFIX)?.split_once('/')?;
    let role = Role::ALL.into_iter().find(|role| role.name() == name)?;
    let version = version.parse().ok().filter(|version| *version != 0)?;
    // `+1` and `01` are other labels than `1`.
    (self::label(role, version) == label).then_some((role, version))
}

/// All of a token's keys that are, or pretend to be, this vault's.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) entries: Vec<Entry>,
    /// Labels that look like ours on keys that can't be.
    pub(super) strays: Vec<String>,
    /// The same on keys that aren't private: anybody may have made them.
    pub(super) planted: Vec<String>,
    /// What the notes in the token say of keys that are there.
    pub(super) retired: Vec<(Role, u32)>,
    /// Every object in the token before they were read.
    pub(super) objects: Vec<ObjectHandle>,
    /// The connection in which the handles are good, where the pool read them.
    pub(super) connection: u64,
}

/// One key.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) handle: ObjectHandle,
    /// What is called as a publisher key is: one of them should be its public half.
    pub(super) publics: Vec<ObjectHandle>,
    /// Why it isn't used; empty for a key that is.
    pub(super) faults: Vec<String>,
    /// Whether no other key has its label.
    pub(super) alone: bool,
}

impl Keys {
    /// Reads them from a session that is logged in.
    pub(super) fn read(session: &Session) -> Result<Self, Failure> {
        let mut keys = Self { objects: objects(session)?, ..Self::default() };
        for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY] {
            for handle in find(session, class, None)? {
                keys.add(session, class, handle)?;
            }
        }
        keys.refuse_duplicates();
        let there = |key: &(Role, u32)| keys.entries.iter().any(|e| (e.key.role, e.key.version) == *key);
        keys.retired = super::retire::noted(session)?.into_iter().filter(there).collect();
        Ok(keys)
    }

    /// A key, if it may be used.
    pub(super) fn get(&self, role: Role, version: u32) -> Result<&Entry, Error> {
        let wanted = |entry: &&Entry| entry.key.role == role && entry.key.version == version;
        let entry = self.entries.iter().find(wanted).ok_or(Error::NoVersion(role, version))?;
        if entry.faults.is_empty() {
            Ok(entry)
        } else {
            Err(Error::TooWide(entry.label(), entry.faults.join(", ")))
        }
    }

    fn add(&mut self, session: &Session, class: ObjectClass, handle: ObjectHandle) -> Result<(), Failure> {
        let Some(label) = read_label(session, handle)?.filter(|label| label.starts_with(PREFIX)) else {
            return Ok(());
        };
        if read(session, handle, &PRIVATE)? == Some(Attribute::Private(false)) {
            self.planted.push(label);
            return Ok(());
        }
        match (parse(&label), algorithm(session, class, handle)) {
            (Some((role, version)), Some(algorithm)) if self::class(role) == class => {
                self.entries.push(Entry::read(session, Key { role, version, algorithm }, handle)?);
            }
            _ => self.strays.push(label),
        }
        Ok(())
    }

    fn refuse_duplicates(&mut self) {
        let names: Vec<_> = self.entries.iter().map(Entry::label).collect();
        for (entry, name) in self.entries.iter_mut().zip(&names) {
            if names.iter().filter(|other| *other == name).count() > 1 {
                entry.alone = false;
                entry.faults.push("several keys have this label".into());
            }
        }
    }
}

impl Entry {
    fn read(session: &Session, key: Key, handle: ObjectHandle) -> Result<Self, Failure> {
        let faults = faults(session, key, handle)?;
        let mut entry = Self { key, handle, publics: Vec::new(), faults, alone: true };
        if key.role == Role::Publisher {
            entry.publics = find(session, ObjectClass::PUBLIC_KEY, Some(&entry.label()))?;
        }
        Ok(entry)
    }

    pub(super) fn label(&self) -> String {
        label(self.key.role, self.key.version)
    }
}

/// Those of `wanted` that the key doesn't have.
pub(super) fn lacking(
    session: &Session,
    handle: ObjectHandle,
    wanted: Vec<Attribute>,
) -> Result<Vec<Attribute>, Failure> {
    let types: Vec<_> = wanted.iter().map(Attribute::attribute_type).collect();
    let found = session.get_attributes(handle, &types).map_err(failed(READ))?;
    Ok(wanted.into_iter().filter(|attribute| !found.contains(attribute)).collect())
}

/// An attribute as it is in the token; `None` where that doesn't tell.
pub(super) fn read(
    session: &Session,
    handle: ObjectHandle,
    like: &Attribute,
) -> Result<Option<Attribute>, Failure> {
    let found = session.get_attributes(handle, &[like.attribute_type()]).map_err(failed(READ))?;
    Ok(found.into_iter().next())
}

fn faults(session: &Session, key: Key, handle: ObjectHandle) -> Result<Vec<String>, Failure> {
    let lacking_required = lacking(session, handle, required(key.role))?;
    let mut faults: Vec<_> = lacking_required.iter().map(isnt).collect();
    // Asked for one by one: see `required`.
    for wrong in forbidden(key.role) {
        if read(session, handle, &wrong)?.as_ref() == Some(&wrong) {
            faults.push(is(&wrong));
        }
    }
    if key.algorithm == Algorithm::Aes256 && wrong_length(session, handle)? {
        faults.push("it isn't an AES key of 256 bits".into());
    }
    Ok(faults)
}

/// An unwrapped key's length reads 0 or not at all on some tokens.
fn wrong_length(session: &Session, handle: ObjectHandle) -> Result<bool, Failure> {
    let found = session.get_attributes(handle, &[AttributeType::ValueLen]).map_err(failed(READ))?;
    let wrong = |found: &Attribute| !matches!(found, Attribute::ValueLen(len) if [0, 32].contains(&**len));
    Ok(found.iter().any(wrong))
}

/// Every object that the session sees. The handles are the same as before if none was made or destroyed.
pub(super) fn objects(session: &Session) -> Result<Vec<ObjectHandle>, Failure> {
    let mut objects = session.find_objects(&[Attribute::Token(true)]).map_err(failed(READ))?;
    objects.sort_unstable_by_key(ObjectHandle::handle);
    Ok(objects)
}

pub(super) fn find(
    session: &Session,
    class: ObjectClass,
    label: Option<&str>,
) -> Result<Vec<ObjectHandle>, Failure> {
    let mut template = vec![Attribute::Class(class), Attribute::Token(true)];
    template.extend(label.map(|label| Attribute::Label(label.into())));
    session.find_objects(&template).map_err(failed(READ))
}

pub(super) fn read_label(session: &Session, handle: ObjectHandle) -> Result<Option<String>, Failure> {
    let found = session.get_attributes(handle, &[AttributeType::Label]).map_err(failed(READ))?;
    Ok(match found.into_iter().next() {
        Some(Attribute::Label(label)) => String::from_utf8(label).ok(),
        _ => None,
    })
}

/// `None` for a key that none of the roles could be, of a type that the library may not even know.
fn algorithm(session: &Session, class: ObjectClass, handle: ObjectHandle) -> Option<Algorithm> {
    let found = session.get_attributes(handle, &[AttributeType::KeyType]).ok()?;
    match (class, found.into_iter().next()?) {
        (ObjectClass::SECRET_KEY, Attribute::KeyType(KeyType::AES)) => Some(Algorithm::Aes256),
        (ObjectClass::PRIVATE_KEY, Attribute::KeyType(KeyType::EC)) => Some(Algorithm::EcdsaP256),
        (ObjectClass::PRIVATE_KEY, Attribute::KeyType(KeyType::EC_EDWARDS)) => Some(Algorithm::Ed25519),
        _ => None,
    }
}
