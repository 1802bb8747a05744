//! The PIN of a second vault in one token.
//!
//! A login is the process's. While it lasts, C_Login answers CKR_USER_ALREADY_LOGGED_IN and looks at no PIN: a wrong one
//! would open the vault. So each vault that is logged in keeps a hash of its PIN, and another one's is compared with that,
//! not tried at the token.
//!
//! The hash is Argon2id under a salt of this process's own. Four digits can be guessed from any hash, so what counts is
//! how long it is there: as long as its vault, which keeps the PIN itself for logging in anew. Whoever reads this memory
//! meanwhile has the PIN without guessing; both are wiped together, and before that the vault's sessions are closed. A
//! hash with a key would be no better, for the key would lie beside it; and a slow one keeps a page of it that was
//! swapped out from being looked up in a table.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use argon2::Params;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::location::Passphrase;
use crate::slow_hash::argon2id;

/// A few milliseconds at each opening.
const MEMORY_KIB: u32 = 4096;

static SALT: OnceLock<[u8; 16]> = OnceLock::new();

/// What a PIN is compared by.
pub(super) struct PinHash(Box<Zeroizing<[u8; 32]>>);

impl PinHash {
    pub(super) fn new(pin: &Passphrase) -> Result<Arc<Self>, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::Random)?;
        let params = Params::new(MEMORY_KIB, 1, 1, Some(32)).map_err(|_| Error::Memory)?;
        Ok(Arc::new(Self(argon2id(params, pin, SALT.get_or_init(|| random))?)))
    }

    fn is(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

/// The vaults of this process that are logged in to one token.
#[derive(Default)]
pub(super) struct Logins(Mutex<Vec<Weak<PinHash>>>);

impl Logins {
    /// The right to log in, which one vault at a time has: what it finds out, the next one has to know. Before it opens a
    /// session: that alone would keep alive the login of a vault that is just being closed, and of which nothing is known.
    pub(super) fn turn(&self) -> LoginTurn<'_> {
        let logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = logins.iter().filter_map(Weak::upgrade).collect();
        LoginTurn { logins, known }
    }
}

/// The right to log in to one token.
pub(super) struct LoginTurn<'a> {
    logins: MutexGuard<'a, Vec<Weak<PinHash>>>,
    known: Vec<Arc<PinHash>>,
}

impl LoginTurn<'_> {
    /// The token took the PIN. What it took before counts no more if it was another one.
    pub(super) fn accepted(&mut self, pin: &Arc<PinHash>) {
        self.logins.retain(|login| login.upgrade().is_some_and(|login| login.is(pin)));
        self.logins.push(Arc::downgrade(pin));
    }

    /// Whether the PIN is the one that logged in. [`Error::LoggedIn`] if it wasn't a vault that did.
    pub(super) fn compare(&mut self, pin: &Arc<PinHash>) -> Result<bool, Error> {
        if self.known.is_empty() {
            return Err(Error::LoggedIn);
        }
        let is_it = self.known.iter().any(|known| known.is(pin));
        if is_it {
            self.accepted(pin);
        }
        Ok(is_it)
    }
}
