//! A SoftHSM token of its own for one test.

use std::path::Path;
use std::process::Command;

use crate::workspace::{Workspace, write_private};

pub(crate) const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];
pub(crate) const MISSING: &str = "SoftHSM isn't installed: run `apt-get install softhsm2`";

/// The PIN of every token in the tests.
pub const PIN: &str = "271828";

/// A workspace whose vault will be in a fresh token, with the PIN in the file `pin`. It isn't made yet.
pub fn workspace() -> Workspace {
    let mut workspace = Workspace::with_vault("");
    let (tokens, conf) = (workspace.path("tokens"), workspace.path("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    workspace.write("softhsm2.conf", format!("directories.tokendir = {}\n", tokens.display()));
    workspace.set("SOFTHSM2_CONF", conf);
    write_private(&workspace.path("pin"), PIN);
    let uri = add_token(&workspace, "models");
    workspace.set("MODELSEAL_VAULT", uri);
    workspace
}

/// SoftHSM's library.
pub fn module() -> &'static str {
    MODULES.iter().find(|path| Path::new(path).exists()).expect(MISSING)
}

/// Makes one more token, and gives its URI.
pub fn add_token(workspace: &Workspace, label: &str) -> String {
    add_token_with_pin(workspace, label, PIN)
}

/// The same with another PIN, which isn't in the file `pin`.
pub fn add_token_with_pin(workspace: &Workspace, label: &str, pin: &str) -> String {
    let module = module();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label, "--so-pin", "31415926", "--pin", pin])
        .env("SOFTHSM2_CONF", workspace.path("softhsm2.conf"))
        .output()
        .expect(MISSING);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pin = workspace.path("pin");
    format!("pkcs11:token={label}?module-path={module}&pin-source={}", pin.display())
}
