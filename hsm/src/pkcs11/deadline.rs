//! A call into a PKCS#11 library can't be cancelled, and a token may never answer. So it is made by another thread,
//! for which the caller waits only so long; a thread that is stuck is left alone with its session.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use modelseal_core::sealed::Slot;
use modelseal_core::sign::{PublisherKey, Signature};
use tracing::dispatcher;
use zeroize::Zeroizing;

use super::backend::{CMAC, DECRYPT, ENCRYPT, SIGN, Token};
use super::session::{Look, SESSIONS_MAX};
use super::turn::Turn;
use crate::error::Error;
use crate::exposed::Exposed;
use crate::vault::{Algorithm, Backend, Finding, Key, Role};
use crate::wiped::wiped;

const VARIABLE: &str = "MODELSEAL_TOKEN_TIMEOUT";
const DEFAULT: u64 = 30;
/// Making keys and checking a token is many operations in one.
const MANY: u32 = 4;

/// How many threads of this process are stuck in a library.
static STUCK: AtomicUsize = AtomicUsize::new(0);

/// Whether a call into a PKCS#11 library hasn't come back, though its caller has given up on it. Such a process had
/// better end with `_exit`: as it ends in the ordinary way, some libraries crash under the thread that is still inside.
pub fn is_stuck() -> bool {
    STUCK.load(Ordering::SeqCst) > 0
}

/// Threads that call a library, and how long an answer may take.
pub(super) struct Deadline {
    limit: Duration,
    idle: Mutex<Vec<Worker>>,
    stuck: AtomicUsize,
    /// Threads don't survive a fork.
    process: u32,
}

/// A thread that waits for something to do, and has ended when this is dropped: one that still ends while the process
/// does would clean up in the library at the same time as the process.
struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

const RUNNING: u8 = 0;
const ANSWERED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Deadline {
    /// From the environment.
    pub(super) fn new() -> Result<Self, Error> {
        let seconds = match std::env::var(VARIABLE) {
            Err(std::env::VarError::NotPresent) => Some(DEFAULT),
            Ok(text) => text.parse().ok().filter(|seconds| (1..=3600).contains(seconds)),
            Err(_) => None,
        };
        let seconds = seconds.ok_or(Error::Timeout)?;
        Ok(Self {
            limit: Duration::from_secs(seconds),
            idle: Mutex::default(),
            stuck: AtomicUsize::new(0),
            process: std::process::id(),
        })
    }

    /// Does `work`, which is `operation`, on another thread, whose stack is wiped afterwards. A secret that it
    /// returns is to be in a box: the value itself is moved about.
    pub(super) fn within<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.wait(operation, self.limit, None, work)
    }

    /// The same for many operations in a row, each of which has the whole time: `work` says when one is done.
    fn within_each<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&dyn Fn()) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let steps = Arc::new(AtomicUsize::new(0));
        let taken = steps.clone();
        let work = move || {
            work(&|| {
                taken.fetch_add(1, Ordering::SeqCst);
            })
        };
        self.wait(operation, self.limit, Some(&steps), work)
    }

    /// The same for what is many operations.
    pub(super) fn within_many<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.wait(operation, self.limit.saturating_mul(MANY), None, work)
    }

    fn wait<T: Send + 'static>(
        &self,
        operation: &'static str,
        limit: Duration,
        steps: Option<&AtomicUsize>,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        // A channel has padding, which takes along to the heap what was on the stack where the channel is made.
        wiped(|| ());
        self.wait_on_wiped_stack(operation, limit, steps, work)
    }

    /// In a frame of its own, below the caller's.
    #[inline(never)]
    fn wait_on_wiped_stack<T: Send + 'static>(
        &self,
        operation: &'static str,
        limit: Duration,
        steps: Option<&AtomicUsize>,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.process != std::process::id() {
            return Err(Error::Forked);
        }
        let no_answer = || Error::NoAnswer(operation, limit.as_secs());
        if self.stuck.load(Ordering::SeqCst) >= SESSIONS_MAX {
            return Err(no_answer());
        }
        let worker = self.idle().pop().map_or_else(Worker::start, Ok)?;
        let state = Arc::new(AtomicU8::new(RUNNING));
        let (job, answer) = job(work, state.clone());
        let crashed = || Error::Failed(operation, "the thread that called the module has ended".into());
        worker.send(job).map_err(|_| crashed())?;
        match receive(&answer, limit, steps) {
            Err(RecvTimeoutError::Timeout) if give_up(&state) => {
                self.stuck.fetch_add(1, Ordering::SeqCst);
                worker.abandon();
                Err(no_answer())
            }
            // In the last moment.
            Err(RecvTimeoutError::Timeout) => answer.recv().map_err(|_| crashed())?,
            Err(RecvTimeoutError::Disconnected) => Err(crashed()),
            Ok(done) => {
                self.idle().push(worker);
                done
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an answer, and begins anew as long as steps are taken.
fn receive<T>(
    answer: &Receiver<T>,
    limit: Duration,
    steps: Option<&AtomicUsize>,
) -> Result<T, RecvTimeoutError> {
    let taken = || steps.map_or(0, |steps| steps.load(Ordering::SeqCst));
    loop {
        let before = taken();
        match answer.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) if taken() != before => {}
            received => return received,
        }
    }
}

fn give_up(state: &AtomicU8) -> bool {
    let given_up = state.compare_exchange(RUNNING, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    if given_up {
        STUCK.fetch_add(1, Ordering::SeqCst);
    }
    given_up
}

/// What goes to the worker, and where its answer comes from.
fn job<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    state: Arc<AtomicU8>,
) -> (Job, Receiver<Result<T, Error>>) {
    let (send, answer) = sync_channel(1);
    // Not the span: it would end when the thread does, and not with the caller's operation.
    let subscriber = dispatcher::get_default(Clone::clone);
    let job = Box::new(move || {
        let done = dispatcher::with_default(&subscriber, || wiped(work));
        if state.swap(ANSWERED, Ordering::SeqCst) == GIVEN_UP {
            STUCK.fetch_sub(1, Ordering::SeqCst);
        }
        // Nobody waits any more for an answer that comes too late: it is wiped where it is.
        let _ = send.send(done);
    });
    (job, answer)
}

impl Worker {
    fn start() -> Result<Self, Error> {
        let (send, jobs) = sync_channel::<Job>(1);
        let thread = std::thread::Builder::new().name("modelseal-token".into());
        let started = thread.spawn(move || jobs.into_iter().for_each(|job| job()));
        let thread = started.map_err(|_| Error::Memory)?;
        Ok(Self { jobs: Some(send), thread: Some(thread) })
    }

    fn send(&self, job: Job) -> Result<(), ()> {
        self.jobs.as_ref().ok_or(())?.send(job).map_err(|_| ())
    }

    /// Nobody waits for its end.
    fn abandon(mut self) {
        self.thread = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Deadline {
    /// Threads of the process that this one was forked from can't be waited for.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            self.idle().drain(..).for_each(Worker::abandon);
        }
    }
}

/// A token each of whose operations ends in time, in one way or another.
pub(crate) struct Timed {
    pub(super) token: Arc<Token>,
    pub(super) deadline: Deadline,
    /// The file with the PIN, if others may use it.
    pub(super) exposed: Option<Exposed>,
}

impl Timed {
    /// Changes what is in the token, in turn with other processes. Their turns aren't this one's time; a change that
    /// hangs keeps its turn.
    pub(super) fn change<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Token) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let work = self.in_turn(work);
        self.deadline.within_many(operation, work)
    }

    fn in_turn<T>(
        &self,
        work: impl FnOnce(&Token) -> Result<T, Error> + Send + 'static,
    ) -> impl FnOnce() -> Result<T, Error> + Send + 'static {
        let token = self.token.clone();
        let turn = Turn::wait_to_change(token.pool().module_path());
        move || {
            let _turn = turn;
            work(&token)
        }
    }
}

impl Backend for Timed {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        let token = self.token.clone();
        self.deadline.within("reading the keys", move || token.keys())
    }

    fn encrypt(&self, master: u32, aad: &[u8], content: &[u8; 32]) -> Result<Slot, Error> {
        let (token, aad, content) = (self.token.clone(), aad.to_vec(), boxed(content));
        self.deadline.within(ENCRYPT, move || token.encrypt(master, &aad, &content))
    }

    fn decrypt(&self, slot: &Slot, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
        let (token, aad, slot) = (self.token.clone(), aad.to_vec(), *slot);
        self.deadline
            .within(DECRYPT, move || token.decrypt(&slot, &aad).map(|content| boxed(&content)))
            .map(|content| Zeroizing::new(**content))
    }

    fn cmac(&self, fleet: u32, message: &[u8]) -> Result<Zeroizing<[u8; 16]>, Error> {
        let (token, message) = (self.token.clone(), message.to_vec());
        self.deadline
            .within(CMAC, move || token.cmac(fleet, &message).map(|cmac| boxed(&cmac)))
            .map(|cmac| Zeroizing::new(**cmac))
    }

    fn cmacs(&self, fleet: u32, messages: &[Vec<u8>]) -> Result<Vec<Zeroizing<[u8; 16]>>, Error> {
        let (token, messages) = (self.token.clone(), messages.to_vec());
        self.deadline.within_each(CMAC, move |done| {
            // Roomy enough from the start: a buffer that grew would leave keys in memory that was given back.
            let mut cmacs = Vec::with_capacity(messages.len());
            for message in &messages {
                // One use of the key, at the beginning of which the token is looked at.
                let look = if cmacs.is_empty() { Look::Anew } else { Look::Lately };
                cmacs.push(token.cmac_after(look, fleet, message)?);
                done();
            }
            Ok(cmacs)
        })
    }

    fn sign(&self, publisher: u32, message: &[u8]) -> Result<Signature, Error> {
        let (token, message) = (self.token.clone(), message.to_vec());
        self.deadline.within(SIGN, move || token.sign(publisher, &message))
    }

    fn publisher_key(&self, publisher: u32) -> Result<PublisherKey, Error> {
        let token = self.token.clone();
        self.deadline.within("reading a public key", move || token.publisher_key(publisher))
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.exposed.clone().into_iter().collect()
    }

    fn check(&self) -> Result<Vec<Finding>, Error> {
        let token = self.token.clone();
        self.deadline.within_many("checking the token", move || token.check())
    }

    fn unavailable(&self, role: Role) -> Option<&'static str> {
        let token = self.token.clone();
        self.deadline.within("listing the mechanisms", move || Ok(token.unavailable(role))).ok().flatten()
    }

    fn retired(&self) -> Result<Vec<(Role, u32)>, Error> {
        let token = self.token.clone();
        self.deadline.within("reading the keys", move || token.retired())
    }

    fn generate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        self.change("generating a key", move |token| token.generate(role, algorithm))
    }

    fn mark(&self, role: Role, version: u32, retired: bool) -> Result<(), Error> {
        let work = self.in_turn(move |token| token.mark(role, version, retired));
        self.deadline.within("noting that a key is retired", work)
    }

    fn destroy(&self, role: Role, version: u32) -> Result<(), Error> {
        self.change("destroying a key", move |token| token.destroy(role, version))
    }
}

/// A secret that stays where it is when its box is moved.
fn boxed<const N: usize>(secret: &[u8; N]) -> Box<Zeroizing<[u8; N]>> {
    let mut place = Box::new(Zeroizing::new([0; N]));
    place.copy_from_slice(secret);
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline() -> Deadline {
        Deadline {
            limit: Duration::from_millis(400),
            idle: Mutex::default(),
            stuck: AtomicUsize::new(0),
            process: std::process::id(),
        }
    }

    #[test]
    fn each_of_many_operations_has_the_whole_time() {
        let slow = |steps: bool| {
            deadline().within_each("trying", move |done| {
                for _ in 0..12 {
                    std::thread::sleep(Duration::from_millis(100));
                    if steps {
                        done();
                    }
                }
                Ok(())
            })
        };
        assert!(slow(true).is_ok());
        assert!(matches!(slow(false), Err(Error::NoAnswer("trying", 0))));
    }
}
