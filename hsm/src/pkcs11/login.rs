//! The PIN. A wrong one is tried once: a second try could be the one that locks the token.

use std::sync::Arc;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::failure::{Failure, failed};
use super::second::{LoginTurn, PinHash};
use crate::error::Error;
use crate::exposed::Exposed;
use crate::location::{Passphrase, Pkcs11Uri};
use crate::observed::observe;
use crate::vault::Ask;

const LOGIN: &str = "logging in";

/// How to log in, kept for logging in anew.
pub(super) enum Login {
    /// With this PIN.
    Pin(AuthPin, Arc<PinHash>),
    /// The token has a keypad or the like: CKF_PROTECTED_AUTHENTICATION_PATH. No PIN passes through this process, so a
    /// second vault has none that could be wrong: who enters it at the token lets in the process.
    Pad,
    /// The token refused it once, so it isn't tried again.
    Refused,
}

impl Login {
    /// Asks for the PIN, unless the token has its own way or wouldn't take one. With the PIN's file, if others may use it.
    pub(super) fn obtain(
        info: &TokenInfo,
        uri: &Pkcs11Uri,
        ask: Ask<'_>,
    ) -> Result<(Self, Option<Exposed>), Error> {
        may_try(info)?;
        if info.protected_authentication_path() {
            return Ok((Self::Pad, None));
        }
        let pin = uri.pin_source.as_deref().map_or_else(ask, Passphrase::from_file)?;
        if pin.expose().is_empty() {
            return Err(Error::NoPassphrase);
        }
        // Of a file that `ask` read, whoever asked knows.
        let exposed = pin.exposed().filter(|_| uri.pin_source.is_some()).cloned();
        Ok((Self::Pin(AuthPin::new(pin.expose().into()), PinHash::new(&pin)?), exposed))
    }

    /// Logs the application in. Another vault in the same token may have done so already, which is as good if it was with
    /// the same PIN: the login is the process's.
    pub(super) fn log_in(
        &mut self,
        context: &Pkcs11,
        slot: Slot,
        session: &Session,
        turn: &mut LoginTurn<'_>,
    ) -> Result<(), Failure> {
        let info = context.get_token_info(slot).map_err(failed(LOGIN))?;
        may_try(&info)?;
        let pin = self.pin()?;
        let mut tried = Ok(());
        let done = observe("login", Some(info.label()), || {
            tried = session.login(UserType::User, pin);
            match &tried {
                Ok(()) => self.accepted(turn),
                Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => self.compare(turn),
                Err(error) => Err(Error::Failed(LOGIN, error.to_string())),
            }
        });
        match (done, tried) {
            (Ok(()), _) => Ok(()),
            (Err(Error::Failed(..)), Err(error)) => self.refused(error, context, slot),
            (Err(error), _) => {
                *self = Self::Refused;
                Err(error.into())
            }
        }
    }

    fn pin(&self) -> Result<Option<&AuthPin>, Error> {
        match self {
            Self::Pin(pin, _) => Ok(Some(pin)),
            Self::Pad => Ok(None),
            Self::Refused => Err(Error::WrongPin("it isn't tried again")),
        }
    }

    fn accepted(&self, turn: &mut LoginTurn<'_>) -> Result<(), Error> {
        if let Self::Pin(_, hash) = self {
            turn.accepted(hash);
        }
        Ok(())
    }

    /// A token that is logged in to already has looked at no PIN.
    fn compare(&self, turn: &mut LoginTurn<'_>) -> Result<(), Error> {
        match self {
            Self::Pin(_, hash) if !turn.compare(hash)? => {
                Err(Error::WrongPin("this process is logged in with another one, so it wasn't tried"))
            }
            _ => Ok(()),
        }
    }

    /// Only where the token can't have looked at the PIN is it kept for another try.
    fn refused(&mut self, error: Pkcs11Error, context: &Pkcs11, slot: Slot) -> Result<(), Failure> {
        let Pkcs11Error::Pkcs11(code, _) = error else {
            *self = Self::Refused;
            return Err(failed(LOGIN)(error));
        };
        if !is_before_pin(code) {
            *self = Self::Refused;
        }
        Err(match code {
            RvError::PinLocked => Error::PinLocked.into(),
            RvError::UserPinNotInitialized => {
                Error::Token("the one that does has no user PIN yet; initialise it first".into()).into()
            }
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                Error::WrongPin(context.get_token_info(slot).map_or(UNTOLD, |info| tries_left(&info))).into()
            }
            _ if is_before_pin(code) => failed(LOGIN)(error),
            _ => failed(LOGIN)(error).error.into(),
        })
    }
}

/// The token, the session or the library was gone.
fn is_before_pin(code: RvError) -> bool {
    matches!(
        code,
        RvError::CryptokiNotInitialized
            | RvError::DeviceRemoved
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::SlotIdInvalid
            | RvError::TokenNotPresent
    )
}

const UNTOLD: &str = "it doesn't tell how many tries are left";

/// Read before every try.
fn may_try(info: &TokenInfo) -> Result<(), Error> {
    if info.user_pin_locked() {
        return Err(Error::PinLocked);
    }
    if info.user_pin_final_try() {
        return Err(Error::WrongPin(
            "that was earlier; one try is left, which isn't spent here: log in with the token's own tool first",
        ));
    }
    Ok(())
}

fn tries_left(info: &TokenInfo) -> &'static str {
    if info.user_pin_locked() {
        "that was the last try, and the PIN is locked now"
    } else if info.user_pin_final_try() {
        "one try is left"
    } else if info.user_pin_count_low() {
        "the token warns that few tries are left"
    } else {
        UNTOLD
    }
}
