//! What a failure of the library means: `session` says what is done about each kind.

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};

use crate::error::Error;

/// Why an operation failed, and what may help.
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) error: Error,
}

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing.
    Final,
    /// New sessions and a new login.
    Session,
    /// A restart of the library.
    Module,
    /// To wait for a free session.
    Full,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { class: Class::Final, error }
    }
}

/// What a failure of the library during `operation` means.
pub(super) fn failed(operation: &'static str) -> impl Fn(Pkcs11Error) -> Failure {
    move |error| match error {
        Pkcs11Error::Pkcs11(RvError::MechanismInvalid | RvError::FunctionNotSupported, _)
        | Pkcs11Error::NullFunctionPointer => Error::Unavailable(operation).into(),
        Pkcs11Error::Pkcs11(code, function) => {
            Failure { class: class(code), error: code_of(operation, code, function) }
        }
        error => Error::Failed(operation, error.to_string()).into(),
    }
}

fn code_of(operation: &'static str, code: RvError, function: Function) -> Error {
    match code {
        RvError::SessionCount => Error::Sessions,
        code => Error::Failed(operation, format!("{code:?} at {function}")),
    }
}

fn class(code: RvError) -> Class {
    match code {
        RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::UserNotLoggedIn
        | RvError::ObjectHandleInvalid
        | RvError::KeyHandleInvalid
        | RvError::OperationActive => Class::Session,
        RvError::CryptokiNotInitialized
        | RvError::DeviceError
        | RvError::DeviceMemory
        | RvError::DeviceRemoved
        | RvError::FunctionFailed
        | RvError::GeneralError
        | RvError::SlotIdInvalid
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized => Class::Module,
        RvError::SessionCount => Class::Full,
        _ => Class::Final,
    }
}
