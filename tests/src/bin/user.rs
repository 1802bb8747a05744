//! A program that goes on using the vault in `MODELSEAL_VAULT`, for `tests/tests/faults.rs`: it does what its standard
//! input says, line by line, and answers each with `ok …`, or `error EXIT-CODE NAME MESSAGE`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::BufRead;

use cryptoki::context::Pkcs11;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use modelseal::open::SealedFile;
use modelseal_core::grant::DeviceId;
use modelseal_hsm::{Error, Location, Vault};

fn main() {
    let mut vaults = vec![open().unwrap_or_else(|error| panic!("{error}"))];
    println!("ok");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let first = || &*vaults[0];
        match words[..] {
            ["derive"] => say(derive(first())),
            ["derive", "by", n] => say(derive(&*vaults[n.parse::<usize>().unwrap()])),
            ["derive", n] => say(derive_often(first(), n.parse().unwrap())),
            ["content", "key", sealed] => say(content_key(first(), sealed)),
            ["keys"] => say(first().keys().map(|keys| keys.len().to_string())),
            ["open"] => say(open().map(|vault| {
                vaults.push(vault);
                String::new()
            })),
            ["log", "out"] => {
                session().logout().unwrap();
                println!("ok");
            }
            ["destroy", label] => {
                let session = session();
                for key in session.find_objects(&[Attribute::Label(label.into())]).unwrap() {
                    session.destroy_object(key).unwrap();
                }
                println!("ok");
            }
            ["fork"] => fork(first()),
            _ => panic!("{line}?"),
        }
    }
    // As the program itself does it.
    if modelseal_hsm::is_stuck() {
        // SAFETY: it takes nothing and doesn't return.
        #[allow(unsafe_code, reason = "there is no safe one")]
        unsafe {
            libc::_exit(0)
        }
    }
}

fn open() -> Result<Box<dyn Vault>, Error> {
    let location: Location = std::env::var("MODELSEAL_VAULT").unwrap().parse()?;
    modelseal_hsm::open(&location, &|| modelseal::vaults::unattended(&location))
}

fn say(done: Result<String, Error>) {
    match done {
        Ok(what) => println!("{}", format!("ok {what}").trim_end()),
        Err(error) => {
            let name = error.name();
            let error = modelseal::Error::from(error);
            println!("error {} {name} {}", modelseal::cli::exit_code(&error), error.what());
        }
    }
}

/// Two CMACs: a hash of the device's key, to compare.
fn derive(vault: &dyn Vault) -> Result<String, Error> {
    let key = vault.device_key(DeviceId::new("one")?, 1)?;
    Ok(blake3::hash(key.expose_to_factory()).to_hex().to_string())
}

/// The secret itself, for tests that look for it elsewhere.
fn content_key(vault: &dyn Vault, sealed: &str) -> Result<String, Error> {
    let sealed = SealedFile::open(sealed.as_ref()).unwrap();
    let unwrapped = sealed.unwrap_by_vault(vault, None).unwrap();
    Ok(hex::encode(unwrapped.content_key().expose_to_vault()))
}

fn derive_often(vault: &dyn Vault, n: usize) -> Result<String, Error> {
    std::thread::scope(|scope| {
        let work = || (0..n / 8).map(|_| derive(vault)).collect::<Result<Vec<_>, _>>();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        let mut keys = Vec::new();
        for thread in threads {
            keys.extend(thread.join().unwrap()?);
        }
        assert_eq!(keys.len(), n);
        keys.dedup();
        Ok(keys.join(" "))
    })
}

/// A session past the vault's, in the same process and so of the same login.
fn session() -> Session {
    let uri = std::env::var("MODELSEAL_VAULT").unwrap();
    let module = uri.split(['=', '&']).find(|part| part.starts_with('/')).unwrap();
    let context = Pkcs11::new(module).unwrap();
    let is_it = |slot: &cryptoki::slot::Slot| context.get_token_info(*slot).unwrap().label() == "models";
    let slot = context.get_slots_with_token().unwrap().into_iter().find(is_it).unwrap();
    let session = context.open_rw_session(slot).unwrap();
    // The vault has logged in.
    assert!(session.login(UserType::User, None).is_err());
    session
}

/// Uses the vault in a child that is nothing but a copy, opens it anew there, and uses it in the parent again.
#[allow(unsafe_code, reason = "there is no safe fork")]
fn fork(vault: &dyn Vault) {
    // SAFETY: no other thread holds a lock: those of the vault wait for work.
    match unsafe { libc::fork() } {
        0 => {
            say(derive(vault));
            say(open().and_then(|vault| derive(&*vault)));
            // SAFETY: it takes a number and doesn't return.
            unsafe { libc::_exit(0) }
        }
        child => {
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: the child's number, and a place for its status.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
            say(derive(vault));
        }
    }
}
