//! CKA_EC_POINT: tokens give it raw, as a DER OCTET STRING or as a DER BIT STRING.

use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::Session;
use modelseal_core::sign::PublisherKey;

use super::failure::{Failure, failed};
use super::keys::{Entry, label};
use crate::error::Error;
use crate::vault::{Algorithm, Role};

const READ: &str = "reading a public key";

/// What is called as a publisher key's public half is: `None` for what can't be it. Which one it is, if any, is still open.
pub(super) fn candidates(session: &Session, entry: &Entry) -> Result<Vec<Option<PublisherKey>>, Failure> {
    let mut candidates = Vec::new();
    for handle in &entry.publics {
        let found = session.get_attributes(*handle, &[AttributeType::EcPoint]).map_err(failed(READ))?;
        candidates.push(match found.first() {
            Some(Attribute::EcPoint(point)) => parse(entry.key.algorithm, point),
            _ => None,
        });
    }
    Ok(candidates)
}

/// Why none of them is.
pub(super) fn none(version: u32, candidates: &[Option<PublisherKey>]) -> Error {
    let label = label(Role::Publisher, version);
    match candidates {
        [] => Error::Failed(READ, format!("the token has no public key {label}")),
        _ if candidates.iter().all(Option::is_none) => {
            Error::Failed(READ, format!("{label} has a point of an unknown form"))
        }
        _ => Error::BadSignature,
    }
}

fn parse(algorithm: Algorithm, point: &[u8]) -> Option<PublisherKey> {
    if algorithm == Algorithm::Ed25519 {
        return unwrap(point).map(PublisherKey::Ed25519);
    }
    // Uncompressed, SEC 1: 04 || x || y.
    let [4, xy @ ..] = unwrap::<65>(point)? else { return None };
    let (x, y) = xy.split_first_chunk()?;
    Some(PublisherKey::EcdsaP256 { x: *x, y: y.try_into().ok()? })
}

/// The length tells the three forms apart.
fn unwrap<const N: usize>(point: &[u8]) -> Option<[u8; N]> {
    let len = u8::try_from(N).ok()?;
    let octets = [0x04, len];
    let bits = [0x03, len.checked_add(1)?, 0];
    let inner = match point.len().checked_sub(N)? {
        0 => Some(point),
        2 => point.strip_prefix(&octets),
        3 => point.strip_prefix(&bits),
        _ => None,
    };
    inner?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_point_is_read() {
        let raw = [7; 32];
        for prefix in [&[][..], &[4, 32], &[3, 33, 0]] {
            let point = [prefix, &raw].concat();
            assert_eq!(parse(Algorithm::Ed25519, &point), Some(PublisherKey::Ed25519(raw)));
        }
        let raw = [&[4][..], &[8; 32], &[9; 32]].concat();
        for prefix in [&[][..], &[4, 65], &[3, 66, 0]] {
            let key = PublisherKey::EcdsaP256 { x: [8; 32], y: [9; 32] };
            assert_eq!(parse(Algorithm::EcdsaP256, &[prefix, &raw].concat()), Some(key));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let compressed = [&[4, 33, 2][..], &[8; 32]].concat();
        assert_eq!(parse(Algorithm::EcdsaP256, &compressed), None);
        assert_eq!(parse(Algorithm::EcdsaP256, &[5; 65]), None);
        assert_eq!(parse(Algorithm::Ed25519, &[&[5, 32][..], &[7; 32]].concat()), None);
        assert_eq!(parse(Algorithm::Ed25519, &[]), None);
    }
}
