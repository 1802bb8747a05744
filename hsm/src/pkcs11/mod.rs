//! Keys in a PKCS#11 token, which never gives them up.
//!
//! ```text
//! uri ─▶ module (library, token) ─▶ login ─▶ session (pool) ─▶ keys (what is there, and is it as narrow as
//!                                                │              its role) ─▶ backend (use)
//!                                                └─▶ create (the first keys)     check (findings)
//!                                                           └───── offers (mechanisms) ─────┘
//! ```
//!
//! The master key has neither CKA_WRAP nor CKA_UNWRAP: content keys travel as data under AES-GCM, so the
//! known wrap-then-decrypt attacks on PKCS#11 have nothing to work with. Attributes are read back before a
//! key is used, not only when it is made: labels are anybody's to give.

mod backend;
mod check;
mod create;
mod keys;
mod login;
mod module;
mod offers;
mod point;
mod session;
mod template;
mod turn;

use std::time::Duration;

use backend::Token;
use cryptoki::slot::{Slot, TokenInfo};
use login::Login;
use module::Module;
use session::Pool;
use turn::Turn;

use crate::error::Error;
use crate::location::Pkcs11Uri;
use crate::vault::{Algorithm, Ask};

/// Opens the vault in the token that `uri` names.
pub(crate) fn open(uri: &Pkcs11Uri, ask: Ask<'_>) -> Result<Token, Error> {
    let (module, slot, info) = find(uri)?;
    let login = Login::obtain(&info, uri, ask)?;
    let _turn = Turn::wait(&module.path);
    Ok(Token::new(Pool::connect(module, slot, login)?))
}

/// Makes the first keys in a token that is initialised, has a user PIN and has none of them yet.
pub(crate) fn create(uri: &Pkcs11Uri, publisher: Option<Algorithm>, ask: Ask<'_>) -> Result<Token, Error> {
    let token = open(uri, ask)?;
    create::first_keys(token.pool(), publisher)?;
    Ok(token)
}

/// Before each further look for a token, in milliseconds.
const PAUSES: [u64; 4] = [20, 60, 180, 540];

/// The token, if need be at a further look: SoftHSM's can't be read in the moment in which another process logs in to
/// it, which may be one that doesn't take turns; and a library that starts then takes it for none at all.
fn find(uri: &Pkcs11Uri) -> Result<(Module, Slot, TokenInfo), Error> {
    let mut pauses = PAUSES.iter();
    loop {
        let turn = uri.module.as_deref().map(Turn::wait);
        let module = Module::load(uri)?;
        let found = module.find(uri);
        drop(turn);
        match (found, pauses.next()) {
            (Ok((slot, info)), _) => return Ok((module, slot, info)),
            (Err(Error::Token(_)), Some(pause)) => {
                std::thread::sleep(Duration::from_millis(*pause));
                module.unload_if_new()?;
            }
            (Err(error), _) => return Err(error),
        }
    }
}
