//! A model that PyPI's `cryptography` has encrypted with Fernet. `tests/run` makes the environment that has it.

use std::path::Path;

use crate::Workspace;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv/bin/python");
/// What the classes that protect models so do: a key in a file, a file encrypted whole.
const ENCRYPT: &str = "\
import base64, sys
from cryptography.fernet import Fernet
key = Fernet.generate_key()
open('key', 'wb').write(key)
open('key.hex', 'w').write(base64.urlsafe_b64decode(key).hex())
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

/// A vault, and `model` encrypted in `old.tflite.enc` with the key in `key`, and once more in `key.hex`.
pub fn protected(model: impl AsRef<[u8]>) -> Workspace {
    let w = Workspace::new();
    encrypt(&w, model.as_ref());
    w
}

/// Encrypts `model` likewise.
pub fn encrypt(w: &Workspace, model: &[u8]) {
    assert!(Path::new(PYTHON).exists(), "run tests/run, which makes target/venv with cryptography in it");
    let run = w.run(w.another(PYTHON, &["-c", ENCRYPT]), model);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // Python makes files that everybody may read, of which the program warns.
    std::fs::set_permissions(w.path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}
