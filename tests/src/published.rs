//! A workspace in which a model was sealed and granted, and the commands that open it.

use crate::workspace::{WAKE_WORD, Workspace};

/// Seals version 1; to be followed by model and output.
pub const SEAL: [&str; 5] = ["seal", "--line", "wake-word", "--model-version", "1"];
/// Enrols a device that shares its key with the vault; to be followed by id and identity.
pub const ENROLL: [&str; 5] = ["device", "enroll", "--derive", "--line", "wake-word"];
/// Opens the sealed model `attacked` into `kept`.
pub const BY_VAULT: [&str; 4] = ["open", "attacked", "-o", "kept"];
/// The same with the device's grant.
pub const BY_GRANT: [&str; 8] =
    ["open", "attacked", "-o", "kept", "--grant", "grant", "--identity", "kitchen-7.identity"];

/// Seals `model` as `out`.
pub fn seal(w: &Workspace, model: &str, out: &str) {
    w.ok(&[&SEAL[..], &[model, "-o", out]].concat());
}

/// Enrols the device `id`, whose identity will be in `ID.identity`.
pub fn enroll(w: &Workspace, id: &str) {
    w.ok(&[&ENROLL[..], &[id, "--identity-out", &format!("{id}.identity")]].concat());
}

/// A vault, the sealed model `sealed`, the device kitchen-7 and its grant `grant`; `kept` is an output from before.
pub fn published() -> Workspace {
    let w = Workspace::new();
    seal(&w, WAKE_WORD, "sealed");
    enroll(&w, "kitchen-7");
    w.ok(&["grant", "sealed", "--device", "kitchen-7", "-o", "grant"]);
    w.write("kept", "from before");
    w
}
