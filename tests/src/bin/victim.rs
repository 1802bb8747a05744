//! The program `modelseal`, which stops when it has done its work, so that `tests/tests/wiped.rs` can search its
//! memory. Or, as `victim library …`, another program that uses the same library, and still has a model open with `hold`; or, as `victim leak WHERE FILE`, one
//! that leaves the file's first 32 bytes in its memory on purpose.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use modelseal::identity::Identity;
use modelseal::open::{Reader, SealedFile};
use modelseal::opener::{ByGrant, Opener, With};
use modelseal_core::manifest::{Claims, Subject, Suite};
use modelseal_hsm::Passphrase;
use rustix::process::{DumpableBehavior, Signal, getpid, kill_process, set_dumpable_behavior};

fn main() -> ExitCode {
    let code = deep(work);
    // The command forbids it to others, not to itself.
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    kill_process(getpid(), Signal::STOP).unwrap();
    code
}

/// Further down the stack than what comes afterwards, which would otherwise overwrite what was left there.
#[inline(never)]
fn deep<T>(work: fn() -> T) -> T {
    let above = [0u8; 64 * 1024];
    black_box(&above);
    let done = work();
    black_box(&above);
    done
}

#[inline(never)]
fn work() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "leak", place, file] => {
            leak(place, Path::new(file));
            ExitCode::SUCCESS
        }
        [_, "library", ref words @ ..] => library(words).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        _ => modelseal::cli::main(),
    }
}

/// What another program does with the library, which wipes the stack after each of these by itself.
fn library(words: &[&str]) -> modelseal::Result<()> {
    let vault =
        || modelseal_hsm::open(&"file:vault.json".parse()?, &|| Passphrase::from_file("passphrase".as_ref()));
    let ignore = &mut |_: &[u8]| Ok(());
    match *words {
        ["seal", model, out] => {
            let none = modelseal::io::protect::Protected::default();
            let model = modelseal::seal::Model::open(model.as_ref(), &none)?;
            let subject = Subject {
                suite: Suite::Aes256Gcm,
                chunk_log2: 12,
                align_log2: 4,
                line: "wake-word",
                version: 3,
                kind: "tflite",
                length: model.length(),
                created: 0,
                claims: Claims::new(),
            };
            modelseal::seal::seal(&*vault()?, &model, subject, out.as_ref(), &mut |_| ())?;
        }
        ["open", sealed] => {
            let vault = vault()?;
            let mut sealed = SealedFile::open(sealed.as_ref())?;
            sealed.copy_to(|sealed| sealed.unwrap_by_vault(&*vault, None), ignore, &mut |_| ())?;
        }
        ["open", sealed, grant, identity] => {
            let identity = Identity::read(identity.as_ref())?;
            let bytes = std::fs::read(grant).unwrap();
            let reader = Reader {
                identity: &identity,
                grant_path: grant.as_ref(),
                line: "wake-word",
                floor: 0,
                now: Some(1),
            };
            let mut sealed = SealedFile::open(sealed.as_ref())?;
            sealed.copy_to(|sealed| sealed.unwrap_by_grant(&bytes, &reader), ignore, &mut |_| ())?;
        }
        ["hold", how, sealed, grant, identity] => {
            hold(how, sealed, With::Grant(ByGrant::new(grant, identity)))?
        }
        _ => panic!("{words:?}?"),
    }
    Ok(())
}

/// A model that stays open until this program ends.
fn hold(how: &str, sealed: &str, with: With) -> modelseal::Result<()> {
    let opening = Opener::new(with, None).open(SealedFile::open(sealed.as_ref())?)?;
    match how {
        "whole" => std::mem::forget(black_box(opening.into_memory(&mut |_| ())?)),
        "lazy" => {
            let lazy = opening.lazily()?;
            let mut part = vec![0; 20_000];
            lazy.read_at(5, &mut part)?;
            black_box(&mut part).fill(0);
            std::mem::forget(black_box(lazy));
        }
        _ => panic!("{how}?"),
    }
    Ok(())
}

fn leak(place: &str, file: &Path) {
    match place {
        "heap" => drop(black_box(std::fs::read(file).unwrap())),
        "stack" => on_the_stack(file),
        "mapped" => in_a_thread(file),
        // The control's control: read, and wiped.
        "nowhere" => {
            let mut bytes = std::fs::read(file).unwrap();
            bytes.fill(0);
            black_box(&bytes);
        }
        _ => panic!("{place}?"),
    }
}

#[inline(never)]
fn on_the_stack(file: &Path) {
    // So far down that the end of this program doesn't overwrite it.
    let mut bytes = [0; 4096];
    File::open(file).unwrap().read_exact(&mut bytes[..32]).unwrap();
    black_box(&bytes);
}

/// On the stack of a thread that goes on living.
fn in_a_thread(file: &Path) {
    let (done, wait) = std::sync::mpsc::channel();
    let file = file.to_owned();
    std::thread::spawn(move || {
        on_the_stack(&file);
        done.send(()).unwrap();
        std::thread::park();
    });
    wait.recv().unwrap();
}
