//! The PIN. A wrong one is tried once: a second try could be the one that locks the token.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::session::{Failure, failed};
use crate::error::Error;
use crate::location::{Passphrase, Pkcs11Uri};
use crate::observed::observe;
use crate::vault::Ask;

const LOGIN: &str = "logging in";

/// How to log in, kept for logging in anew.
pub(super) enum Login {
    /// With this PIN.
    Pin(AuthPin),
    /// The token has a keypad or the like: CKF_PROTECTED_AUTHENTICATION_PATH.
    Pad,
    /// The token refused it once, so it isn't tried again.
    Refused,
}

impl Login {
    /// Asks for the PIN, unless the token has its own way or wouldn't take one.
    pub(super) fn obtain(info: &TokenInfo, uri: &Pkcs11Uri, ask: Ask<'_>) -> Result<Self, Error> {
        may_try(info)?;
        if info.protected_authentication_path() {
            return Ok(Self::Pad);
        }
        let pin = uri.pin_source.as_deref().map_or_else(ask, Passphrase::from_file)?;
        if pin.expose().is_empty() {
            return Err(Error::NoPassphrase);
        }
        Ok(Self::Pin(AuthPin::new(pin.expose().into())))
    }

    /// Logs the application in. Another vault in the same token may have done so already, which is as good:
    /// the login is the process's.
    pub(super) fn log_in(&mut self, context: &Pkcs11, slot: Slot, session: &Session) -> Result<(), Failure> {
        let info = context.get_token_info(slot).map_err(failed(LOGIN))?;
        may_try(&info)?;
        let pin = match self {
            Self::Pin(pin) => Some(&*pin),
            Self::Pad => None,
            Self::Refused => return Err(Error::WrongPin("it isn't tried again").into()),
        };
        let mut tried = Ok(());
        observe("login", Some(info.label()), || {
            tried = session.login(UserType::User, pin);
            match &tried {
                Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
                Err(error) => Err(Error::Failed(LOGIN, error.to_string())),
            }
        })
        .or_else(|_| tried.or_else(|error| self.refused(error, context, slot)))
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
