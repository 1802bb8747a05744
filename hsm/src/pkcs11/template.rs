//! What a key's attributes must be: when it is made, and whenever it is used.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};

use crate::vault::{Algorithm, Role};

/// DER of the object identifiers 1.3.101.112 and 1.2.840.10045.3.1.7.
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The class of a role's key, where a pair's private half counts.
pub(super) fn class(role: Role) -> ObjectClass {
    match role {
        Role::Master | Role::Fleet => ObjectClass::SECRET_KEY,
        Role::Publisher => ObjectClass::PRIVATE_KEY,
    }
}

/// Without exactly these a key isn't used. Every usage bit of its class is among them.
///
/// CKA_SENSITIVE is last: a library that stops at an attribute it doesn't know leaves the rest false, and so
/// fails here.
pub(super) fn required(role: Role) -> Vec<Attribute> {
    let mut required = match role {
        Role::Master | Role::Fleet => vec![
            Attribute::Encrypt(role == Role::Master),
            Attribute::Decrypt(role == Role::Master),
            Attribute::Sign(role == Role::Fleet),
            Attribute::Verify(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
        ],
        Role::Publisher => {
            vec![Attribute::Sign(true), Attribute::Decrypt(false), Attribute::Unwrap(false)]
        }
    };
    required.extend([
        Attribute::Derive(false),
        Attribute::Extractable(false),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
    ]);
    required
}

/// What not every token knows: absent is as good as false.
///
/// A key that may be changed can be given any right that it lacks, and one that may be copied can be copied into
/// one that may be changed.
pub(super) fn forbidden(role: Role) -> Vec<Attribute> {
    let mut forbidden = vec![Attribute::Modifiable(true), Attribute::Copyable(true)];
    if role == Role::Publisher {
        forbidden.extend([Attribute::SignRecover(true), Attribute::Decapsulate(true)]);
    }
    forbidden
}

/// That the key was made in the token and never was outside. An imported key isn't, which is reported.
pub(super) fn origin() -> Vec<Attribute> {
    vec![Attribute::Local(true), Attribute::NeverExtractable(true), Attribute::AlwaysSensitive(true)]
}

/// What not every token takes: no other mechanism, no copy, no later change. A token that doesn't take the last
/// two must not read them as true, either: see [`forbidden`].
pub(super) fn optional(role: Role, algorithm: Algorithm) -> Vec<Attribute> {
    vec![mechanism_alone(role, algorithm), Attribute::Copyable(false), Attribute::Modifiable(false)]
}

/// A second fence, where the token has it. Use doesn't rely on it.
pub(super) fn mechanism_alone(role: Role, algorithm: Algorithm) -> Attribute {
    let mechanism = match (role, algorithm) {
        (Role::Master, _) => MechanismType::AES_GCM,
        (Role::Fleet, _) => MechanismType::AES_CMAC,
        (Role::Publisher, Algorithm::Ed25519) => MechanismType::EDDSA,
        (Role::Publisher, _) => MechanismType::ECDSA,
    };
    Attribute::AllowedMechanisms(vec![mechanism])
}

/// The optional attributes to ask for: all, then without one of them, then none.
pub(super) fn optional_choices(role: Role, algorithm: Algorithm) -> Vec<Vec<Attribute>> {
    let all = optional(role, algorithm);
    let without = |left_out: &Attribute| all.iter().filter(|kept| *kept != left_out).cloned().collect();
    let some: Vec<_> = all.iter().map(without).collect();
    [vec![all], some, vec![Vec::new()]].concat()
}

/// For C_GenerateKey: AES-256.
pub(super) fn secret(role: Role, label: &str, optional: &[Attribute]) -> Vec<Attribute> {
    let kind = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
    ];
    [&kind, &required(role)[..], &name(label), optional].concat()
}

/// For C_GenerateKeyPair: the private half.
pub(super) fn private(label: &str, optional: &[Attribute]) -> Vec<Attribute> {
    // Tokens that lack the optional attributes may not know this one, either.
    let recover = if optional.is_empty() { vec![] } else { vec![Attribute::SignRecover(false)] };
    [&required(Role::Publisher)[..], &recover, &name(label), optional].concat()
}

/// For C_GenerateKeyPair: the public half. It is the host that verifies, so the key doesn't have to; and to a TPM
/// one that verifies or encrypts would be one whose private half decrypts or doesn't sign. A first try that fails
/// costs a TPM one of the three objects that it has room for. Then as most tokens have it, for those that ask for it.
pub(super) fn public_choices(algorithm: Algorithm, label: &str) -> [Vec<Attribute>; 2] {
    let curve = if algorithm == Algorithm::Ed25519 { ED25519.to_vec() } else { P256.to_vec() };
    let kind = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::EcParams(curve),
        Attribute::Wrap(false),
        Attribute::Derive(false),
    ];
    let usage = [Attribute::Verify(true), Attribute::Encrypt(false)];
    let without = [&kind, &name(label)[..]].concat();
    let with = [&without, &usage[..]].concat();
    [without, with]
}

fn name(label: &str) -> [Attribute; 2] {
    [Attribute::Label(label.into()), Attribute::Id(label.into())]
}

/// In words: `extractable isn't false`.
pub(super) fn isnt(attribute: &Attribute) -> String {
    let (name, value) = words(attribute);
    format!("{name} isn't {value}")
}

/// In words: `signrecover is true`.
pub(super) fn is(attribute: &Attribute) -> String {
    let (name, value) = words(attribute);
    format!("{name} is {value}")
}

/// From `Extractable(false)`, which is how the library names an attribute.
pub(super) fn words(attribute: &Attribute) -> (String, String) {
    if let Attribute::AllowedMechanisms(_) = attribute {
        return ("allowedmechanisms".into(), "the role's alone".into());
    }
    let debug = format!("{attribute:?}").to_lowercase();
    let (name, value) = debug.split_once('(').unwrap_or((&debug, ""));
    (name.to_owned(), value.trim_end_matches(')').to_owned())
}
