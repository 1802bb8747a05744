//! What a token can do at all. A token without one role's mechanisms serves the others.

use cryptoki::context::Pkcs11;
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::{MechanismInfo, MechanismType};
use cryptoki::slot::Slot;

use super::backend::{CMAC, DECRYPT, ECDSA, ED25519, ENCRYPT};
use super::session::Pool;
use crate::vault::{Algorithm, Role};

/// A mechanism, and what it is needed for.
pub(super) struct Need {
    pub(super) role: Role,
    pub(super) algorithm: Algorithm,
    pub(super) operation: &'static str,
    pub(super) mechanism: MechanismType,
    allows: fn(&MechanismInfo) -> bool,
}

/// Everything that keys of all roles need.
pub(super) fn needs() -> [Need; 9] {
    use Algorithm::{Aes256, EcdsaP256, Ed25519};
    use Role::{Fleet, Master, Publisher};
    let need = |role, algorithm, operation, mechanism, allows| Need {
        role,
        algorithm,
        operation,
        mechanism,
        allows,
    };
    let (generates, pairs) = (MechanismInfo::generate as fn(&_) -> _, MechanismInfo::generate_key_pair as _);
    let signs = MechanismInfo::sign as fn(&_) -> _;
    [
        need(Master, Aes256, ENCRYPT, MechanismType::AES_GCM, MechanismInfo::encrypt),
        need(Master, Aes256, DECRYPT, MechanismType::AES_GCM, MechanismInfo::decrypt),
        need(Master, Aes256, "generating a master key", MechanismType::AES_KEY_GEN, generates),
        need(Fleet, Aes256, CMAC, MechanismType::AES_CMAC, signs),
        need(Fleet, Aes256, "generating a fleet key", MechanismType::AES_KEY_GEN, generates),
        need(Publisher, Ed25519, ED25519, MechanismType::EDDSA, signs),
        need(Publisher, Ed25519, "generating an Ed25519 key", MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, pairs),
        need(Publisher, EcdsaP256, ECDSA, MechanismType::ECDSA, signs),
        need(Publisher, EcdsaP256, "generating a P-256 key", MechanismType::ECC_KEY_PAIR_GEN, pairs),
    ]
}

/// Asks the library about the token.
pub(super) fn ask<T>(
    pool: &Pool,
    question: impl FnOnce(&Pkcs11, Slot) -> Result<T, Pkcs11Error>,
) -> Result<T, String> {
    let answer = pool.ask(question).map_err(|error| error.to_string())?;
    answer.map_err(|error| error.to_string())
}

/// The mechanism's limits, if the token has it for this. SoftHSM gives those of a mechanism, too, that its
/// configuration excludes and its list therefore lacks.
pub(super) fn offered(pool: &Pool, need: &Need) -> Option<MechanismInfo> {
    let listed = ask(pool, Pkcs11::get_mechanism_list).ok()?;
    if !listed.contains(&need.mechanism) {
        return None;
    }
    let info = ask(pool, |context, slot| context.get_mechanism_info(slot, need.mechanism)).ok()?;
    (need.allows)(&info).then_some(info)
}

/// The first operation of a role that the token can't do, use before generation. A publisher needs one algorithm
/// of the two.
pub(super) fn missing(pool: &Pool, role: Role) -> Option<&'static str> {
    match role {
        Role::Master | Role::Fleet => missing_for(pool, role, Algorithm::Aes256),
        Role::Publisher => missing_for(pool, role, Algorithm::Ed25519)
            .and_then(|_| missing_for(pool, role, Algorithm::EcdsaP256)),
    }
}

/// The same for one algorithm.
pub(super) fn missing_for(pool: &Pool, role: Role, algorithm: Algorithm) -> Option<&'static str> {
    let needs = needs();
    let mut wanted = needs.iter().filter(|need| need.role == role && need.algorithm == algorithm);
    wanted.find(|need| offered(pool, need).is_none()).map(|need| need.operation)
}
