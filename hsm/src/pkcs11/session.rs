//! Sessions: a bounded pool, and a new login where the old one was lost.
//!
//! The login lasts as long as the process has any session, so an anchor stays open that nobody borrows. A
//! session whose operation failed isn't used again: the operation may still be active in it.
//!
//! | what is lost | codes | what is done |
//! |---|---|---|
//! | the session, the login or a key's handle | [`Class::Session`] | new sessions, one login, the keys read anew |
//! | the token, or the library's own state | [`Class::Module`] | after a pause the library is restarted, then the same |
//! | a free session | [`Class::Full`] | fewer at a time, or a pause |
//! | a key slot that doesn't open, a PIN, anything else | [`Class::Final`] | nothing: it would fail again, or lock the token |

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::{Slot, TokenInfo};

use super::failure::{Class, Failure, failed};
use super::keys::{self, Keys};
use super::login::Login;
use super::module::{Inside, Module};
use super::second::Logins;
use crate::error::Error;
use crate::location::Pkcs11Uri;
use crate::observed::observe;

/// Tokens serialise operations anyway; more sessions don't make them faster.
pub(super) const SESSIONS_MAX: usize = 4;
/// How long a reading of the keys' attributes is believed, as long as the token has the same objects.
const KEYS_FRESH: Duration = Duration::from_secs(1);
/// Before each further try, in milliseconds: up to a half more, so that processes don't try in step.
const PAUSES: [u64; 3] = [50, 250, 1000];

/// A token that is logged in to.
pub(super) struct Pool {
    module: Arc<Module>,
    /// By label and serial number: after a restart of the library its slot may be another.
    token: Pkcs11Uri,
    logins: Arc<Logins>,
    /// What the token said of itself before the first login, which makes it forget wrong tries.
    before: TokenInfo,
    state: Arc<Mutex<State>>,
    freed: Condvar,
}

/// What changes.
pub(super) struct State {
    connection: Option<Connection>,
    /// Dropped after the sessions: see `second`.
    login: Login,
    connections: u64,
    lent: usize,
    /// How many may be lent at once: fewer where the token has no more.
    limit: usize,
}

/// What one login made valid: handles of another one are stale.
struct Connection {
    number: u64,
    slot: Slot,
    _anchor: Session,
    idle: Vec<Session>,
    keys: Option<(Instant, Arc<Keys>)>,
}

/// What is looked at before a key is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Which objects the token has now: another process may have retired or destroyed keys.
    Anew,
    /// Nothing, if it was done within a second: for the rest of many operations that are one use.
    Lately,
}

/// The right to one session at a time. What is in `idle` when it ends goes back to the pool.
struct Lease<'a> {
    pool: &'a Pool,
    connection: u64,
    idle: Option<Session>,
}

/// A session of its own that may write to the token.
pub(super) struct Writable<'a> {
    session: Session,
    _inside: Inside<'a>,
}

impl Deref for Writable<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl State {
    /// Drops all sessions that aren't lent. The next use connects anew.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// The same for one connection only: another thread may have a newer one already.
    fn disconnect_from(&mut self, number: u64) {
        if self.connection.as_ref().is_some_and(|connection| connection.number == number) {
            self.disconnect();
        }
    }
}

impl Pool {
    /// Logs in to the token that `info` describes, once.
    pub(super) fn connect(module: Arc<Module>, info: TokenInfo, login: Login) -> Result<Self, Error> {
        let pool = Self::unconnected(module, info, login);
        pool.connected(&pool.module.enter(), &mut pool.state()).map_err(|failure| failure.error)?;
        Ok(pool)
    }

    /// Doesn't log in. With [`Login::Refused`] it never does.
    pub(super) fn unconnected(module: Arc<Module>, info: TokenInfo, login: Login) -> Self {
        let token = Pkcs11Uri {
            token: Some(info.label().into()),
            serial: Some(info.serial_number().into()),
            ..Pkcs11Uri::default()
        };
        let state = State { login, connection: None, connections: 0, lent: 0, limit: SESSIONS_MAX };
        let state = Arc::new(Mutex::new(state));
        module.register(&state);
        let logins = module.logins(&token);
        Self { module, token, logins, before: info, state, freed: Condvar::new() }
    }

    /// Runs `operation` in a session, and again where a new login, a restart of the library or a pause may help. So
    /// `operation` is one that may be done twice: generating and destroying keys goes through
    /// [`open_writable`](Self::open_writable).
    pub(super) fn run<T>(
        &self,
        operation: impl Fn(&Session, &Keys) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        self.run_after(Look::Anew, operation)
    }

    /// The same after another look at the token.
    pub(super) fn run_after<T>(
        &self,
        look: Look,
        operation: impl Fn(&Session, &Keys) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut pauses = PAUSES.iter();
        loop {
            let (start, failure) = match self.once(look, &operation) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let pause = pauses.next().filter(|_| failure.class != Class::Final);
            let Some(pause) = pause else { return Err(failure.error) };
            match failure.class {
                Class::Final | Class::Session => {}
                Class::Full => std::thread::sleep(jittered(*pause)),
                Class::Module => {
                    std::thread::sleep(jittered(*pause));
                    // If it fails, so does the next try, which says how.
                    let _ = observe("restart", None, || self.module.restart(start).map_err(|f| f.error));
                }
            }
        }
    }

    /// A session of its own that may write to the token. What is done in it isn't tried again.
    pub(super) fn open_writable(&self) -> Result<Writable<'_>, Error> {
        let inside = self.module.enter();
        let slot = self.connected(&inside, &mut self.state()).map_err(|failure| failure.error)?.slot;
        let session = inside.open_rw_session(slot);
        let session = session.map_err(|error| failed("opening a session")(error).error)?;
        Ok(Writable { session, _inside: inside })
    }

    /// Asks the library something about the token's slot, which takes no login.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Pkcs11, Slot) -> T) -> Result<T, Error> {
        let inside = self.module.enter();
        let connected = self.state().connection.as_ref().map(|connection| connection.slot);
        let slot = match connected {
            Some(slot) => slot,
            None => inside.find(&self.token).map_err(|failure| failure.error)?.0,
        };
        Ok(question(&inside, slot))
    }

    /// What the token said of itself before the login.
    pub(super) fn before_login(&self) -> &TokenInfo {
        &self.before
    }

    /// The library's path.
    pub(super) fn module_path(&self) -> &std::path::Path {
        &self.module.path
    }

    /// The next use reads the keys anew.
    pub(super) fn forget_keys(&self) {
        if let Some(connection) = &mut self.state().connection {
            connection.keys = None;
        }
    }

    /// One try, and which start of the library it met.
    fn once<T>(
        &self,
        look: Look,
        operation: impl Fn(&Session, &Keys) -> Result<T, Failure>,
    ) -> Result<T, (u64, Failure)> {
        let inside = self.module.enter();
        let done = self.lease(&inside).and_then(|(lease, session)| {
            let connection = lease.connection;
            lease.run(session, look, &operation).inspect_err(|failure| {
                if matches!(failure.class, Class::Session | Class::Module) {
                    self.state().disconnect_from(connection);
                }
            })
        });
        done.map_err(|failure| (inside.start, failure))
    }

    fn lease(&self, inside: &Inside<'_>) -> Result<(Lease<'_>, Session), Failure> {
        let mut state = self.state();
        loop {
            let full = |state: &mut State| state.lent >= state.limit;
            state = self.freed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
            let connection = self.connected(inside, &mut state)?;
            let (number, slot) = (connection.number, connection.slot);
            match connection.idle.pop().map_or_else(|| open(inside, slot), Ok) {
                Ok(session) => {
                    state.lent += 1;
                    return Ok((Lease { pool: self, connection: number, idle: None }, session));
                }
                // The token has no more than those that are lent: one of them will be free.
                Err(failure) if failure.class == Class::Full && state.lent > 0 => state.limit = state.lent,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// The connection, made anew if there is none.
    fn connected<'a>(
        &self,
        inside: &Inside<'_>,
        state: &'a mut State,
    ) -> Result<&'a mut Connection, Failure> {
        let State { login, connection, connections, .. } = state;
        match connection {
            Some(connection) => Ok(connection),
            none => {
                let new = Connection::new(inside, self, login, *connections)?;
                *connections += 1;
                Ok(none.insert(new))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(inside: &Inside<'_>, pool: &Pool, login: &mut Login, number: u64) -> Result<Self, Failure> {
        let (slot, _) = inside.find(&pool.token)?;
        let mut turn = pool.logins.turn();
        let anchor = open(inside, slot)?;
        login.log_in(inside, slot, &anchor, &mut turn)?;
        Ok(Self { number, slot, _anchor: anchor, idle: Vec::new(), keys: None })
    }
}

fn open(context: &Pkcs11, slot: Slot) -> Result<Session, Failure> {
    context.open_ro_session(slot).map_err(failed("opening a session"))
}

/// Where the system has no randomness, without.
fn jittered(milliseconds: u64) -> Duration {
    let more = getrandom::u32().unwrap_or(0);
    Duration::from_millis(milliseconds + u64::from(more) % (milliseconds / 2))
}

impl Lease<'_> {
    fn run<T>(
        mut self,
        session: Session,
        look: Look,
        operation: impl Fn(&Session, &Keys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut result = self.keys(&session, look).and_then(|keys| operation(&session, &keys));
        if let Err(failure) = &mut result {
            // kryoptic calls a lost login a general error.
            if require_login(&session).is_err_and(|lost| lost.class == Class::Session) {
                failure.class = Class::Session;
            }
            return result;
        }
        self.idle = Some(session);
        result
    }

    fn keys(&self, session: &Session, look: Look) -> Result<Arc<Keys>, Failure> {
        let cached = self.connection(|connection| connection.keys.clone());
        if let Some((read, keys)) = cached
            && read.elapsed() < KEYS_FRESH
            && (look == Look::Lately || keys.objects == keys::objects(session)?)
        {
            return Ok(keys);
        }
        require_login(session)?;
        let keys = Arc::new(Keys { connection: self.connection, ..Keys::read(session)? });
        self.require_token()?;
        self.connection(|connection| {
            connection.keys = Some((Instant::now(), keys.clone()));
            None::<()>
        });
        Ok(keys)
    }

    /// SoftHSM goes on with none of a token's objects when it can't read them any more: that must not pass for keys that
    /// were destroyed.
    fn require_token(&self) -> Result<(), Failure> {
        let operation = "looking at the token";
        let lost = || Error::Failed(operation, "another thread lost it".into());
        let slot = self.connection(|connection| Some(connection.slot));
        let slot = slot.ok_or_else(|| Failure { class: Class::Session, error: lost() })?;
        self.pool.module.enter().get_token_info(slot).map(drop).map_err(failed(operation))
    }

    /// The connection, if it is still the one that this session is of.
    fn connection<T>(&self, work: impl FnOnce(&mut Connection) -> Option<T>) -> Option<T> {
        let mut state = self.pool.state();
        state.connection.as_mut().filter(|connection| connection.number == self.connection).and_then(work)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let idle = self.idle.take();
        self.connection(|connection| {
            connection.idle.extend(idle);
            None::<()>
        });
        self.pool.state().lent -= 1;
        self.pool.freed.notify_one();
    }
}

/// Without a login, private keys are simply absent: that must not pass for a vault without keys.
fn require_login(session: &Session) -> Result<(), Failure> {
    let operation = "reading the session's state";
    match session.get_session_info().map_err(failed(operation))?.session_state() {
        SessionState::RoUser | SessionState::RwUser => Ok(()),
        state => Err(Failure {
            class: Class::Session,
            error: Error::Failed(operation, format!("logged out ({state:?})")),
        }),
    }
}
