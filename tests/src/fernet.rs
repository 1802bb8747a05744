//! A model that PyPI's `cryptography` has encrypted with Fernet. `tests/run` makes the environment that has it.

use std::path::Path;

use crate::Workspace;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv/bin/python");
/// What the classes that protect models so do: a key in a file, a file encrypted whole.
const ENCRYPT: &str = "\
import sys
from cryptography.fernet import Fernet
key = Fernet.generate_key()
open('key', 'wb').write(key)
open('old.tflite.enc', 'wb').write(Fernet(key).encrypt(sys.stdin.buffer.read()))
";

/// Seals it.
pub const MIGRATE: [&str; 10] = [
    "migrate-fernet",
    "old.tflite.enc",
    "--key",
    "key",
    "-o",
    "new.sealed",
    "--line",
    "wake-word",
    "--model-version",
    "1",
];

/// A vault, and `model` encrypted in `old.tflite.enc` with the key in `key`.
pub fn protected(model: impl AsRef<[u8]>) -> Workspace {
    assert!(Path::new(PYTHON).exists(), "run tests/run, which makes target/venv with cryptography in it");
    let w = Workspace::new();
    let run = w.run(w.another(PYTHON, &["-c", ENCRYPT]), model.as_ref());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    w
}
