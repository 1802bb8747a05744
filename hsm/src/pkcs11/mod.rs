//! Keys in a PKCS#11 token, which never gives them up.
//!
//! ```text
//! uri ─▶ discover ─▶ module (library, token) ─▶ login ─▶ session (pool) ─▶ keys (what is there, and is it as
//!                                                           │              narrow as its role) ─▶ backend (use)
//!                                                           └─▶ create (first and next keys)   check (findings)
//!                                                               │ retire (notes, the end of keys)     │
//!                                                               └───────── offers (mechanisms) ───────┘
//! ```
//!
//! The master key has neither CKA_WRAP nor CKA_UNWRAP: content keys travel as data under AES-GCM, so the
//! known wrap-then-decrypt attacks on PKCS#11 have nothing to work with. Attributes are read back before a
//! key is used, not only when it is made: labels are anybody's to give.

mod backend;
mod check;
mod create;
mod deadline;
mod discover;
mod failure;
mod keys;
mod login;
mod module;
mod offers;
mod point;
mod retire;
mod second;
mod session;
mod template;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use backend::Token;
use cryptoki::slot::TokenInfo;
use deadline::{Deadline, Timed};
use failure::Class;
use login::Login;
use module::Module;
use session::Pool;
use turn::Turn;

use crate::error::Error;
use crate::location::Pkcs11Uri;
use crate::vault::{Algorithm, Ask, Finding};

pub use deadline::is_stuck;
#[doc(hidden)]
pub use discover::modules;

/// Opens the vault in the token that `uri` names.
pub(crate) fn open(uri: &Pkcs11Uri, ask: Ask<'_>) -> Result<Timed, Error> {
    let deadline = Deadline::new()?;
    let wanted = uri.clone();
    let (module, info) = deadline.within("looking for the token", move || find(&wanted))?;
    // Here, where there may be a terminal.
    let (login, exposed) = Login::obtain(&info, uri, ask)?;
    let connect = move || {
        let _turn = Turn::wait(&module.path);
        Pool::connect(module, info, login).map(|pool| Arc::new(Token::new(pool)))
    };
    let token = deadline.within("logging in", connect)?;
    Ok(Timed { token, deadline, exposed })
}

/// Makes the first keys in a token that is initialised, has a user PIN and has none of them yet.
pub(crate) fn create(uri: &Pkcs11Uri, publisher: Option<Algorithm>, ask: Ask<'_>) -> Result<Timed, Error> {
    let timed = open(uri, ask)?;
    timed.change("making the keys", move |token| create::first_keys(token.pool(), publisher))?;
    Ok(timed)
}

/// What a check finds without a login, where `refusal` came of trying to [`open`] the vault. The PIN isn't tried.
pub(crate) fn look(uri: &Pkcs11Uri, refusal: &Error) -> Result<Vec<Finding>, Error> {
    let (deadline, wanted, refusal) = (Deadline::new()?, uri.clone(), refusal.to_string());
    deadline.within_many("checking the token", move || {
        let (module, info) = find(&wanted)?;
        Ok(check::look(&Pool::unconnected(module, info, Login::Refused), refusal))
    })
}

/// Before each further look for a token, in milliseconds.
const PAUSES: [u64; 4] = [20, 60, 180, 540];

/// The token, if need be at a further look: SoftHSM's can't be read in the moment in which another process logs in to
/// it, which may be one that doesn't take turns; and a library that starts then takes it for none at all.
fn find(uri: &Pkcs11Uri) -> Result<(Arc<Module>, TokenInfo), Error> {
    let mut pauses = PAUSES.iter();
    loop {
        let turn = uri.module.as_deref().map(Turn::wait);
        let module = Module::load(uri)?;
        let (start, found) = {
            let inside = module.enter();
            (inside.start, inside.find(uri))
        };
        drop(turn);
        let failure = match found {
            Ok((_, info)) => return Ok((module, info)),
            Err(failure) => failure,
        };
        match pauses.next().filter(|_| failure.class == Class::Module && module.is_unused()) {
            Some(pause) => std::thread::sleep(Duration::from_millis(*pause)),
            None => return Err(failure.error),
        }
        module.restart(start).map_err(|failure| failure.error)?;
    }
}
