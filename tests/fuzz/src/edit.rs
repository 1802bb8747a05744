//! What an attacker does to a sealed model and a grant: changes without any key, and those of somebody who holds a
//! signing key of his own, or the content key.

use arbitrary::Arbitrary;
use modelseal_core::grant::grants_message;
use modelseal_core::sign::Signature;

use crate::forge;
use crate::scene::{Genuine, Wrap, models, root_of, sign_as_somebody};
use crate::shape;

/// Genuine files, edited.
#[derive(Arbitrary, Debug)]
pub struct Attack {
    model: u8,
    hpke: bool,
    sealed: Vec<SealedEdit>,
    grant: Vec<GrantEdit>,
}

#[derive(Arbitrary, Debug)]
enum SealedEdit {
    Bytes(Edit),
    /// The manifest's root and the chaining values become those of the payload.
    Rebuild,
    /// Another model under the content key, as a licensed device could make it: all tags are right, the
    /// manifest stays.
    Reseal {
        at: u16,
        to: u8,
        with_values: bool,
    },
    /// Somebody else signs the header.
    Resign,
}

#[derive(Arbitrary, Debug)]
enum GrantEdit {
    Bytes(Edit),
    /// Somebody else signs the grant.
    Resign,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip {
        at: At,
        bit: u8,
    },
    Set {
        at: At,
        to: u8,
    },
    Insert {
        at: At,
        byte: u8,
        len: u8,
    },
    Delete {
        at: At,
        len: u8,
    },
    Truncate {
        at: At,
    },
    Extend {
        byte: u8,
        len: u8,
    },
    Swap {
        a: At,
        b: At,
        len: u16,
    },
    /// Takes a part from another model, or from its grant.
    Splice {
        model: u8,
        at: At,
        len: u16,
    },
}

/// A place, counted from the start of a part, so that a small change of an input is one of the place.
#[derive(Arbitrary, Debug)]
struct At {
    part: u8,
    offset: u16,
}

impl Attack {
    /// Which grant is attacked.
    pub fn wrap(&self) -> Wrap {
        if self.hpke { Wrap::Hpke } else { Wrap::DeviceKey }
    }

    /// The edited sealed model and grant.
    pub fn files(&self) -> (Vec<u8>, Vec<u8>) {
        let genuine = model(self.model);
        let mut sealed = genuine.sealed.clone();
        self.sealed.iter().take(8).for_each(|edit| edit.apply(&mut sealed, genuine));
        let mut grant = genuine.grants[self.wrap() as usize].clone();
        self.grant.iter().take(8).for_each(|edit| edit.apply(&mut grant, self.wrap()));
        (sealed, grant)
    }
}

fn model(number: u8) -> &'static Genuine {
    &models()[usize::from(number) % models().len()]
}

impl SealedEdit {
    fn apply(&self, sealed: &mut Vec<u8>, genuine: &Genuine) {
        let parts = genuine.parts;
        match self {
            Self::Bytes(edit) => {
                let starts =
                    [0, 16, parts.envelope, parts.envelope + 64, parts.index, parts.padding, parts.payload];
                edit.apply(sealed, &starts, |number| &model(number).sealed);
            }
            // The rest is done where everything still is where it was.
            _ if sealed.len() != genuine.sealed.len() => {}
            Self::Rebuild => {
                let (front, payload) = sealed.split_at_mut(parts.payload);
                let values = forge::values(payload, parts.chunk);
                let entries = front[parts.index..parts.padding].chunks_mut(48);
                entries.zip(&values).for_each(|(entry, value)| entry[16..].copy_from_slice(value));
                front[parts.envelope - 32..parts.envelope].copy_from_slice(blake3::hash(payload).as_bytes());
            }
            Self::Reseal { at, to, with_values } => {
                let mut plain = genuine.plain.clone();
                let at = usize::from(*at) % plain.len();
                plain[at] = *to;
                let (index, payload) = forge::payload(&genuine.sealed, parts, &genuine.content, &plain);
                let copied = if *with_values { 48 } else { 16 };
                let entries = sealed[parts.index..parts.padding].chunks_mut(48);
                entries
                    .zip(index.chunks(48))
                    .for_each(|(to, from)| to[..copied].copy_from_slice(&from[..copied]));
                sealed[parts.payload..].copy_from_slice(&payload);
            }
            Self::Resign => {
                let signature = sign_as_somebody(&forge::signed_bytes(sealed, parts));
                sealed[parts.envelope..parts.envelope + 64].copy_from_slice(&signature);
            }
        }
    }
}

impl GrantEdit {
    fn apply(&self, grant: &mut Vec<u8>, wrap: Wrap) {
        match self {
            Self::Bytes(edit) => {
                // Prefix, suite, model id, device; from there on the lengths vary.
                edit.apply(grant, &[0, 12, 13, 45, 60, 93, 125, 141], |number| {
                    &model(number).grants[wrap as usize]
                });
            }
            Self::Resign => {
                let Some((terms, wrapping, Some(mut path))) = shape::grant(grant) else { return };
                let leaf = shape::leaf(&(terms.clone(), wrapping.clone(), None));
                let root = root_of(leaf, &path.siblings, path.sides);
                path.signature = Signature::from_bytes(&sign_as_somebody(&grants_message(&root)));
                let body = postcard::to_allocvec(&(terms, wrapping, Some(path))).unwrap();
                grant.splice(12.., body);
            }
        }
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, starts: &[usize], other: impl Fn(u8) -> &'static Vec<u8>) {
        let end = bytes.len();
        let place = |at: &At| {
            let start = starts[usize::from(at.part) % starts.len()];
            (start + usize::from(at.offset)).min(end)
        };
        match self {
            Self::Flip { at, bit } => {
                bytes.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Self::Set { at, to } => bytes.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte = *to),
            Self::Insert { at, byte, len } => {
                let at = place(at);
                bytes.splice(at..at, std::iter::repeat_n(*byte, usize::from(*len)));
            }
            Self::Delete { at, len } => {
                let at = place(at);
                bytes.drain(at..(at + usize::from(*len)).min(end));
            }
            Self::Truncate { at } => bytes.truncate(place(at)),
            Self::Extend { byte, len } => bytes.extend(std::iter::repeat_n(*byte, usize::from(*len))),
            Self::Swap { a, b, len } => {
                let (a, b) = (place(a), place(b));
                let len = usize::from(*len).min(a.abs_diff(b)).min(end - a.max(b));
                let (left, right) = bytes.split_at_mut(a.max(b));
                left[a.min(b)..][..len].swap_with_slice(&mut right[..len]);
            }
            Self::Splice { model, at, len } => {
                let at = place(at);
                let from = other(*model).get(at..).unwrap_or_default();
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(from.iter().take(usize::from(*len)))
                    .for_each(|(to, from)| *to = *from);
            }
        }
    }
}
