//! Boards in QEMU, started by `firmware/boot`, with what the real program sealed and granted.

use std::process::Command;

use crate::Workspace;

/// The script.
pub const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/boot");
/// Every board that it knows.
pub const BOARDS: [&str; 2] = ["mps2-an386", "lm3s6965evb"];
/// The suites by the names that the program gives them.
pub const SUITES: [&str; 2] = ["aes-256-gcm", "chacha20-poly1305"];

/// What a board said: its last line and its exit code.
pub type Verdict = (String, i32);

/// Starts `board` with more options of the script.
pub fn start(w: &Workspace, board: &str, options: &[&str]) -> Verdict {
    let (code, said, noise) = run(w, board, options);
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(code != 1 && !last.is_empty(), "{said}{noise}");
    (last, code)
}

/// The exit code, what the board said, and what the script did.
pub fn run(w: &Workspace, board: &str, options: &[&str]) -> (i32, String, String) {
    let output = Command::new(BOOT)
        .args(["--board", board])
        .args(options)
        .current_dir(w.dir())
        .output()
        .unwrap_or_else(|error| panic!("{BOOT}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Boots with these files.
pub fn boot(w: &Workspace, board: &str, sealed: &str, grant: &str, identity: &str, more: &[&str]) -> Verdict {
    start(w, board, &[&["--sealed", sealed, "--grant", grant, "--identity", identity], more].concat())
}

/// A model of the line `wake-word` is open.
pub fn opened(version: u64, model: &[u8]) -> Verdict {
    (format!("opened wake-word {version} {} blake3={}", model.len(), blake3::hash(model).to_hex()), 0)
}

/// An update of that line has arrived.
pub fn updated(version: u64) -> Verdict {
    (format!("updated wake-word {version}"), 0)
}

/// Nothing is open, and why.
pub fn refused(code: u16, name: &str) -> Verdict {
    (format!("refused {code} {name}"), i32::from(code / 100))
}

/// Seals `model` as one for devices.
pub fn seal(w: &Workspace, model: &str, out: &str, line: &str, version: &str, suite: &str) {
    let options = ["--line", line, "--model-version", version, "--profile", "device", "--suite", suite];
    w.ok(&[&["seal", model, "-o", out], &options[..]].concat());
}

/// Enrols two devices for the lines `wake-word` and `other`: `derived` shares a key with the vault, `own` has made
/// its own.
pub fn enrol(w: &Workspace) {
    let lines = ["--line", "wake-word", "--line", "other"];
    w.ok(&[&["device", "enroll", "derived", "--derive", "--identity-out", "derived"], &lines[..]].concat());
    w.device_ok(&["device", "keygen", "own", "--identity-out", "own", "--public-out", "own.pem"]);
    w.ok(&[&["device", "enroll", "own", "--public-key", "own.pem", "--identity-out", "own"], &lines[..]]
        .concat());
}

/// Grants `sealed` to `device`.
pub fn grant(w: &Workspace, sealed: &str, device: &str, out: &str, more: &[&str]) {
    w.ok(&[&["grant", sealed, "--device", device, "-o", out], more].concat());
}
