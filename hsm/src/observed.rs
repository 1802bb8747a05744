//! What is done with a vault's keys, as `tracing` spans: which operation, with which key, how long it took and how
//! it ended. Never a secret, nor what was signed or decrypted.

use std::time::Instant;

use modelseal_core::sealed::Slot;
use modelseal_core::sign::{PublisherKey, Signature};
use tracing::Span;
use tracing::field::{Empty, display};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::exposed::Exposed;
use crate::vault::{Algorithm, Backend, Finding, Key, Role};

/// Does `work` in a span. `subject` is the label and version of a key, or the label of a token.
pub(crate) fn observe<T>(
    operation: &'static str,
    subject: Option<&str>,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let span = tracing::info_span!(
        target: "modelseal::vault",
        "vault",
        operation,
        key = Empty,
        outcome = Empty,
        uses = Empty,
        microseconds = Empty,
    );
    if span.is_disabled() {
        return work();
    }
    if let Some(subject) = subject {
        span.record("key", subject);
    }
    let began = Instant::now();
    let done = span.in_scope(work);
    span.record("microseconds", u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    match &done {
        Ok(_) => span.record("outcome", "ok"),
        Err(error) => span.record("outcome", display(error.name())),
    };
    done
}

/// The same for one use of a key.
pub(crate) fn observe_key<T>(
    operation: &'static str,
    role: Role,
    version: u32,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if !tracing::enabled!(target: "modelseal::vault", tracing::Level::INFO) {
        return work();
    }
    observe(operation, Some(&format!("{}/{version}", role.name())), work)
}

/// A backend each of whose uses of a key is a span.
pub(crate) struct Observed<B>(pub(crate) B);

impl<B: Backend> Backend for Observed<B> {
    fn keys(&self) -> Result<Vec<Key>, Error> {
        self.0.keys()
    }

    fn encrypt(&self, master: u32, aad: &[u8], content: &[u8; 32]) -> Result<Slot, Error> {
        observe_key("encrypt", Role::Master, master, || self.0.encrypt(master, aad, content))
    }

    fn decrypt(&self, slot: &Slot, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
        observe_key("decrypt", Role::Master, slot.version, || self.0.decrypt(slot, aad))
    }

    fn cmac(&self, fleet: u32, message: &[u8]) -> Result<Zeroizing<[u8; 16]>, Error> {
        observe_key("cmac", Role::Fleet, fleet, || self.0.cmac(fleet, message))
    }

    fn cmacs(&self, fleet: u32, messages: &[Vec<u8>]) -> Result<Vec<Zeroizing<[u8; 16]>>, Error> {
        observe_key("cmac", Role::Fleet, fleet, || {
            Span::current().record("uses", messages.len());
            self.0.cmacs(fleet, messages)
        })
    }

    fn sign(&self, publisher: u32, message: &[u8]) -> Result<Signature, Error> {
        observe_key("sign", Role::Publisher, publisher, || self.0.sign(publisher, message))
    }

    fn publisher_key(&self, publisher: u32) -> Result<PublisherKey, Error> {
        self.0.publisher_key(publisher)
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.0.exposed()
    }

    fn check(&self) -> Result<Vec<Finding>, Error> {
        observe("check", None, || self.0.check())
    }

    fn unavailable(&self, role: Role) -> Option<&'static str> {
        self.0.unavailable(role)
    }

    fn retired(&self) -> Result<Vec<(Role, u32)>, Error> {
        self.0.retired()
    }

    fn generate(&self, role: Role, algorithm: Option<Algorithm>) -> Result<u32, Error> {
        observe("generate", None, || {
            let made = self.0.generate(role, algorithm);
            // The version is known when it is made.
            match &made {
                Ok(version) => {
                    Span::current().record("key", display(format_args!("{}/{version}", role.name())))
                }
                Err(_) => Span::current().record("key", role.name()),
            };
            made
        })
    }

    fn mark(&self, role: Role, version: u32, retired: bool) -> Result<(), Error> {
        let operation = if retired { "retire" } else { "bring back" };
        observe_key(operation, role, version, || self.0.mark(role, version, retired))
    }

    fn destroy(&self, role: Role, version: u32) -> Result<(), Error> {
        observe_key("destroy", role, version, || self.0.destroy(role, version))
    }
}
