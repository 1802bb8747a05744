//! Argon2id (RFC 9106), in memory that is wiped.

use argon2::{Argon2, Block, Params};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::location::Passphrase;

/// 32 bytes of it, in a box: they stay where they are when it is moved.
pub(crate) fn argon2id(
    params: Params,
    passphrase: &Passphrase,
    salt: &[u8; 16],
) -> Result<Box<Zeroizing<[u8; 32]>>, Error> {
    // Of its own, to be wiped: the result follows from it.
    let mut memory = Zeroizing::new(Vec::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| Error::Memory)?;
    memory.resize(params.block_count(), Block::default());
    let mut hash = Box::new(Zeroizing::new([0; 32]));
    let (text, out) = (passphrase.expose().as_bytes(), hash.as_mut_slice());
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into_with_memory(text, salt, out, memory.as_mut_slice())
        .map_err(|_| Error::Memory)?;
    Ok(hash)
}
