//! Sessions: a bounded pool, and a new login where the old one was lost.
//!
//! The login lasts as long as the process has any session, so an anchor stays open that nobody borrows. A
//! session whose operation failed isn't used again: the operation may still be active in it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::Slot;

use super::keys::Keys;
use super::login::Login;
use super::module::Module;
use crate::error::Error;

/// Tokens serialise operations anyway; more sessions don't make them faster.
pub(super) const SESSIONS_MAX: usize = 4;
/// How long a reading of the keys and their attributes is believed.
const KEYS_FRESH: Duration = Duration::from_secs(1);

/// A token that is logged in to.
pub(super) struct Pool {
    pub(super) module: Module,
    pub(super) slot: Slot,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    login: Login,
    connection: Connection,
    lent: usize,
}

/// What one login made valid: handles of another generation are stale.
struct Connection {
    generation: u64,
    _anchor: Session,
    idle: Vec<Session>,
    keys: Option<(Instant, Arc<Keys>)>,
}

/// The right to one session at a time. What is in `idle` when it ends goes back to the pool.
struct Lease<'a> {
    pool: &'a Pool,
    generation: u64,
    idle: Option<Session>,
}

impl Pool {
    pub(super) fn connect(module: Module, slot: Slot, mut login: Login) -> Result<Self, Error> {
        let connection = Connection::new(&module, slot, &mut login, 0)?;
        let state = Mutex::new(State { login, connection, lent: 0 });
        Ok(Self { module, slot, state, freed: Condvar::new() })
    }

    /// Runs `operation` in a session, and once more after a new login if the first try found the session, the
    /// login or a key handle gone.
    pub(super) fn run<T>(
        &self,
        operation: impl Fn(&Session, &Keys) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let (lease, session) = self.lease()?;
        let generation = lease.generation;
        let result = match lease.run(session, &operation) {
            Err(failure) if failure.stale => {
                self.reconnect(generation)?;
                let (lease, session) = self.lease()?;
                lease.run(session, &operation)
            }
            result => result,
        };
        result.map_err(|failure| failure.error)
    }

    /// A session of its own that may write to the token.
    pub(super) fn open_writable(&self) -> Result<Session, Error> {
        let session = self.module.context.open_rw_session(self.slot);
        session.map_err(|error| failed("opening a session")(error).error)
    }

    /// The next use reads the keys anew.
    pub(super) fn forget_keys(&self) {
        self.state().connection.keys = None;
    }

    fn lease(&self) -> Result<(Lease<'_>, Session), Error> {
        let full = |state: &mut State| state.lent >= SESSIONS_MAX;
        let waited = self.freed.wait_while(self.state(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let session = match state.connection.idle.pop() {
            Some(session) => session,
            None => open(&self.module, self.slot)?,
        };
        state.lent += 1;
        Ok((Lease { pool: self, generation: state.connection.generation, idle: None }, session))
    }

    /// Logs in anew, unless another thread has since `generation`.
    fn reconnect(&self, generation: u64) -> Result<(), Error> {
        let mut state = self.state();
        let State { login, connection, .. } = &mut *state;
        if connection.generation == generation {
            *connection = Connection::new(&self.module, self.slot, login, generation.wrapping_add(1))?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(module: &Module, slot: Slot, login: &mut Login, generation: u64) -> Result<Self, Error> {
        let anchor = open(module, slot)?;
        login.log_in(&module.context, slot, &anchor)?;
        Ok(Self { generation, _anchor: anchor, idle: Vec::new(), keys: None })
    }
}

fn open(module: &Module, slot: Slot) -> Result<Session, Error> {
    module.context.open_ro_session(slot).map_err(|error| failed("opening a session")(error).error)
}

impl Lease<'_> {
    fn run<T>(
        mut self,
        session: Session,
        operation: impl Fn(&Session, &Keys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut result = self.keys(&session).and_then(|keys| operation(&session, &keys));
        if let Err(failure) = &mut result {
            // kryoptic calls a lost login a general error.
            failure.stale |= require_login(&session).is_err_and(|lost| lost.stale);
            return result;
        }
        self.idle = Some(session);
        result
    }

    fn keys(&self, session: &Session) -> Result<Arc<Keys>, Failure> {
        let cached = self.pool.state().connection.keys.clone();
        if let Some((read, keys)) = cached
            && read.elapsed() < KEYS_FRESH
        {
            return Ok(keys);
        }
        require_login(session)?;
        let keys = Arc::new(Keys::read(session)?);
        let mut state = self.pool.state();
        if state.connection.generation == self.generation {
            state.connection.keys = Some((Instant::now(), keys.clone()));
        }
        Ok(keys)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.lent -= 1;
        if state.connection.generation == self.generation {
            state.connection.idle.extend(self.idle.take());
        }
        self.pool.freed.notify_one();
    }
}

/// Without a login, private keys are simply absent: that must not pass for a vault without keys.
fn require_login(session: &Session) -> Result<(), Failure> {
    let operation = "reading the session's state";
    match session.get_session_info().map_err(failed(operation))?.session_state() {
        SessionState::RoUser | SessionState::RwUser => Ok(()),
        state => {
            Err(Failure { stale: true, error: Error::Failed(operation, format!("logged out ({state:?})")) })
        }
    }
}

/// Why an operation failed, and whether a new login may help.
pub(super) struct Failure {
    pub(super) stale: bool,
    pub(super) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { stale: false, error }
    }
}

/// What a failure of the library during `operation` means.
pub(super) fn failed(operation: &'static str) -> impl Fn(Pkcs11Error) -> Failure {
    move |error| match error {
        Pkcs11Error::Pkcs11(RvError::MechanismInvalid | RvError::FunctionNotSupported, _)
        | Pkcs11Error::NullFunctionPointer => Error::Unavailable(operation).into(),
        Pkcs11Error::Pkcs11(code, function) => {
            Failure { stale: is_stale(code), error: code_of(operation, code, function) }
        }
        error => Error::Failed(operation, error.to_string()).into(),
    }
}

fn code_of(operation: &'static str, code: RvError, function: Function) -> Error {
    Error::Failed(operation, format!("{code:?} at {function}"))
}

fn is_stale(code: RvError) -> bool {
    matches!(
        code,
        RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::UserNotLoggedIn
            | RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::OperationActive
    )
}
