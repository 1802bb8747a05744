//! Keys in a PKCS#11 token, which never gives them up.
//!
//! ```text
//! uri ─▶ discover ─▶ module (library, token) ─▶ login ─▶ session (pool) ─▶ keys (what is there, and is it as
//!                                                           │              narrow as its role) ─▶ backend (use)
//!                                                           └─▶ create (first and next keys)   check (findings)
//!                                                               retire (notes, the end of keys)
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
mod keys;
mod login;
mod module;
mod point;
mod retire;
mod session;
mod template;

use std::sync::Arc;

use backend::Token;
use deadline::{Deadline, Timed};
use login::Login;
use module::Module;
use session::Pool;

use crate::error::Error;
use crate::location::Pkcs11Uri;
use crate::vault::{Algorithm, Ask};

pub use deadline::is_stuck;
#[doc(hidden)]
pub use discover::modules;

/// Opens the vault in the token that `uri` names.
pub(crate) fn open(uri: &Pkcs11Uri, ask: Ask<'_>) -> Result<Timed, Error> {
    let deadline = Deadline::new()?;
    let wanted = uri.clone();
    let (module, info) = deadline.within("looking for the token", move || {
        let module = Module::load(&wanted)?;
        let found = module.enter().find(&wanted).map_err(|failure| failure.error)?;
        Ok((module, found.1))
    })?;
    // Here, where there may be a terminal.
    let login = Login::obtain(&info, uri, ask)?;
    let connect = move || Pool::connect(module, &info, login).map(|pool| Arc::new(Token::new(pool)));
    let token = deadline.within("logging in", connect)?;
    Ok(Timed { token, deadline })
}

/// Makes the first keys in a token that is initialised, has a user PIN and has none of them yet.
pub(crate) fn create(uri: &Pkcs11Uri, publisher: Option<Algorithm>, ask: Ask<'_>) -> Result<Timed, Error> {
    let timed = open(uri, ask)?;
    let token = timed.token.clone();
    timed.deadline.within_many("making the keys", move || create::first_keys(token.pool(), publisher))?;
    Ok(timed)
}
