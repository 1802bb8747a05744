//! Times one thing of modelseal's in a process of its own, for `tests/bench/run`: what it prints is JSON, with the
//! seconds and the peak of resident memory from when the vault was open.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use modelseal::cipher::Backend;
use modelseal::files::{Access, Existing, Output};
use modelseal::io::protect::Protected;
use modelseal::memory::Memory;
use modelseal::open::SealedFile;
use modelseal::profile::Profile;
use modelseal::seal::Model;
use modelseal::tensors::Tensors;
use modelseal_core::chunk::ChunkCipher;
use modelseal_core::manifest::{Claims, Subject, Suite};
use modelseal_hsm::{Algorithm, Passphrase, Vault};
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = match words[..] {
        ["init", vault] => {
            modelseal_hsm::create(&location(vault), Some(Algorithm::Ed25519), &passphrase).unwrap();
            json!({})
        }
        ["hash", path] => blake3::hash(&std::fs::read(path).unwrap()).to_string().into(),
        ["limits", megabytes] => limits(megabytes.parse::<usize>().unwrap() << 20),
        ["fresh", length] => fresh(length.parse().unwrap()),
        [what, vault, ref rest @ ..] => {
            let vault = modelseal_hsm::open(&location(vault), &passphrase).unwrap();
            timed(|| of_modelseal(what, &*vault, rest))
        }
        _ => panic!("{words:?}?"),
    };
    println!("{said}");
}

fn location(path: &str) -> modelseal_hsm::Location {
    format!("file:{path}").parse().unwrap()
}

fn passphrase() -> Result<Passphrase, modelseal_hsm::Error> {
    Ok(Passphrase::new("of a benchmark".to_owned().into()))
}

fn timed(work: impl FnOnce() -> Value) -> Value {
    // From here on the peak is counted anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let began = Instant::now();
    let mut said = work();
    if said["seconds"].is_null() {
        said["seconds"] = began.elapsed().as_secs_f64().into();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    said["peak_kib"] = peak.into();
    said
}

fn of_modelseal(what: &str, vault: &dyn Vault, rest: &[&str]) -> Value {
    let began = Instant::now();
    let seconds = |began: Instant| began.elapsed().as_secs_f64();
    match (what, rest) {
        ("seal", [model, out]) => {
            let model = Model::open(model.as_ref(), &Protected::default()).unwrap();
            let length = model.length();
            let (chunk_log2, align_log2) = Profile::Host.logs(length);
            let subject = Subject {
                suite: Suite::Aes256Gcm,
                chunk_log2,
                align_log2,
                line: "bench",
                version: 1,
                kind: "safetensors",
                length,
                created: 0,
                claims: Claims::new(),
            };
            modelseal::seal::seal(vault, &model, subject, out.as_ref(), &mut |_| ()).unwrap();
            json!({})
        }
        ("open", [sealed]) => {
            let mut sealed = SealedFile::open(sealed.as_ref()).unwrap();
            let opened = sealed.open_whole(|sealed| sealed.unwrap_by_vault(vault, None), &mut |_| ());
            let (model, _) = opened.unwrap();
            let seconds = seconds(began);
            json!({ "seconds": seconds, "hash": blake3::hash(&model).to_string() })
        }
        ("stream", [sealed]) => {
            let mut sealed = SealedFile::open(sealed.as_ref()).unwrap();
            let out = &mut |_: &[u8]| Ok(());
            sealed.copy_to(|sealed| sealed.unwrap_by_vault(vault, None), out, &mut |_| ()).unwrap();
            json!({})
        }
        ("file", [sealed, out]) => {
            let mut sealed = SealedFile::open(sealed.as_ref()).unwrap();
            let mut output = Output::create(Path::new(out), Access::Private, Existing::Replace).unwrap();
            let out = &mut |bytes: &[u8]| output.write(bytes);
            sealed.copy_to(|sealed| sealed.unwrap_by_vault(vault, None), out, &mut |_| ()).unwrap();
            output.commit().unwrap();
            json!({})
        }
        ("tensor", [sealed, name]) => {
            let sealed = SealedFile::open(sealed.as_ref()).unwrap();
            let model = sealed.open_lazily(|sealed| sealed.unwrap_by_vault(vault, None)).unwrap();
            let opening = seconds(began);
            let tensor = Tensors::of(&model).unwrap().get(name).unwrap();
            let bytes = model.tensor(&tensor).unwrap();
            let seconds = seconds(began);
            json!({ "seconds": seconds, "opening": opening, "hash": blake3::hash(&bytes).to_string() })
        }
        _ => panic!("{what} {rest:?}?"),
    }
}

/// Fills memory as opening does, and does nothing else.
fn fresh(len: u64) -> Value {
    let threads = modelseal::work::threads().unwrap();
    let began = Instant::now();
    let mut memory = Memory::new(len).unwrap();
    let part = memory.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for part in memory.chunks_mut(part) {
            scope.spawn(|| part.fill(1));
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    std::mem::forget(black_box(memory));
    json!({ "seconds": seconds })
}

/// What bounds the others, on one core, in GB/s.
fn limits(len: usize) -> Value {
    let rate = |work: &mut dyn FnMut()| {
        work();
        let seconds = |()| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64()
        };
        len as f64 / [(); 3].map(seconds).into_iter().fold(f64::MAX, f64::min) / 1e9
    };
    let (source, mut target) = (vec![1u8; len], vec![2u8; len]);
    let copy = rate(&mut || black_box(&mut target).copy_from_slice(black_box(&source)));
    let faults = rate(&mut || drop(black_box(vec![1u8; len])));
    let huge = rate(&mut || {
        let mut memory = Memory::new(len as u64).unwrap();
        memory.fill(1);
        std::mem::forget(black_box(memory));
    });
    let hash = rate(&mut || {
        source.chunks(1 << 16).for_each(|chunk| {
            black_box(blake3::hash(chunk));
        })
    });
    let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
    std::io::Write::write_all(&mut file, &source).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let read = rate(&mut || {
        std::io::Seek::rewind(&mut file).unwrap();
        let mut file: &File = &file;
        while file.read(&mut buffer).unwrap() > 0 {}
    });
    let mut said = json!({ "memory copy": copy, "page faults, 4 KiB": faults, "page faults, huge": huge,
        "read into a cached buffer": read, "BLAKE3 of chunks": hash });
    for backend in Backend::ALL {
        let mut chunk = vec![3u8; 1 << 16];
        let mut seal =
            |cipher: &dyn Fn(&mut [u8])| rate(&mut || (0..len >> 16).for_each(|_| cipher(&mut chunk)));
        let rate = match backend {
            Backend::Portable => {
                let cipher = modelseal_core::chunk::Portable::new(Suite::Aes256Gcm, &[7; 32]).unwrap();
                seal(&|chunk| {
                    let _ = black_box(cipher.seal(&[0; 12], &[], chunk));
                })
            }
            Backend::AwsLc => {
                let cipher = modelseal::cipher::AwsLc::new(Suite::Aes256Gcm, &[7; 32]).unwrap();
                seal(&|chunk| {
                    let _ = black_box(cipher.seal(&[0; 12], &[], chunk));
                })
            }
        };
        said[format!("AES-256-GCM, {}", backend.name())] = rate.into();
    }
    said
}
