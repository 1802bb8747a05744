//! Public keys as SPKI PEM (RFC 7468, RFC 8410, RFC 5480), with X25519 for devices.

use modelseal_core::sign::PublisherKey;
use spki::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use spki::der::pem::LineEnding;
use spki::der::{Decode, Document, EncodePem};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const END: &str = "-----END PUBLIC KEY-----";

/// A publisher's key as PEM.
pub fn publisher(key: &PublisherKey) -> Option<String> {
    match key {
        PublisherKey::Ed25519(bytes) => encode(ED25519, None, bytes),
        PublisherKey::EcdsaP256 { x, y } => encode(EC, Some(P256), &[&[4], &x[..], &y[..]].concat()),
    }
}

/// Every publisher key of a text that has nothing but such keys, and at least one.
pub fn parse_publisher(text: &str) -> Option<Vec<PublisherKey>> {
    let keys: Option<Vec<_>> = blocks(text).map(|block| publisher_key(block?)).collect();
    keys.filter(|keys| !keys.is_empty())
}

/// A device's X25519 public key as PEM.
pub fn x25519(public: &[u8; 32]) -> Option<String> {
    encode(X25519, None, public)
}

/// The one X25519 public key of a text.
pub fn parse_x25519(text: &str) -> Option<[u8; 32]> {
    let mut blocks = blocks(text);
    let (oid, _, bytes) = decode(blocks.next()??)?;
    if blocks.next().is_some() || oid != X25519 { None } else { bytes.try_into().ok() }
}

fn encode(oid: ObjectIdentifier, curve: Option<ObjectIdentifier>, bytes: &[u8]) -> Option<String> {
    let parameters = curve.as_ref().map(AnyRef::from);
    let algorithm = AlgorithmIdentifierRef { oid, parameters };
    let subject_public_key = BitStringRef::from_bytes(bytes).ok()?;
    SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_pem(LineEnding::LF).ok()
}

/// The PEM blocks of a text; text between them is a comment, as in RFC 7468.
fn blocks(text: &str) -> impl Iterator<Item = Option<&str>> {
    text.split_inclusive(END).filter(|part| part.contains("-----")).map(|part| {
        let begin = part.find("-----BEGIN PUBLIC KEY-----")?;
        part.ends_with(END).then_some(&part[begin..])
    })
}

fn decode(block: &str) -> Option<(ObjectIdentifier, Option<ObjectIdentifier>, Vec<u8>)> {
    let (_, document) = Document::from_pem(block).ok()?;
    let spki = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).ok()?;
    let curve = spki.algorithm.parameters.map(|any| any.decode_as::<ObjectIdentifier>()).transpose().ok()?;
    Some((spki.algorithm.oid, curve, spki.subject_public_key.as_bytes()?.to_vec()))
}

fn publisher_key(block: &str) -> Option<PublisherKey> {
    match decode(block)? {
        (ED25519, None, bytes) => Some(PublisherKey::Ed25519(bytes.try_into().ok()?)),
        (EC, Some(P256), bytes) => match bytes.split_first()? {
            (4, point) => {
                let (x, y) = point.split_first_chunk::<32>()?;
                Some(PublisherKey::EcdsaP256 { x: *x, y: y.try_into().ok()? })
            }
            _ => None,
        },
        _ => None,
    }
}
