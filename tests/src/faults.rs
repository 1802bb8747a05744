//! A token of which one can go wrong what one likes: SoftHSM behind the library `examples/shim.rs`. And a program that
//! goes on using a vault while that happens: `bin/user.rs`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::softhsm;
use crate::workspace::Workspace;

/// A workspace whose vault is in such a token, made already.
pub fn workspace() -> Workspace {
    let w = empty_workspace();
    w.ok(&["init"]);
    calls(&w, &[]);
    w
}

/// The same without keys yet.
pub fn empty_workspace() -> Workspace {
    let mut w = softhsm::workspace();
    w.set("SHIM_MODULE", softhsm::module());
    // By these names no change that the program makes.
    w.set("SHIM_FAULTS", w.path("faults.lock"));
    w.set("SHIM_LOG", w.path("log.lock"));
    let pin = w.path("pin");
    w.set(
        "MODELSEAL_VAULT",
        format!("pkcs11:token=models?module-path={}&pin-source={}", shim().display(), pin.display()),
    );
    w
}

/// What goes wrong from now on: lines as the shim takes them.
pub fn set(w: &Workspace, faults: &str) {
    w.write("new.faults.lock", faults);
    // At once, for the shim may be reading.
    std::fs::rename(w.path("new.faults.lock"), w.path("faults.lock")).unwrap();
}

/// How often `function` was called since this was last asked.
pub fn calls(w: &Workspace, functions: &[&str]) -> Vec<usize> {
    let log = std::fs::read_to_string(w.path("log.lock")).unwrap_or_default();
    let _ = std::fs::remove_file(w.path("log.lock"));
    functions.iter().map(|function| log.lines().filter(|line| line == function).count()).collect()
}

/// The library in front.
pub fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(std::path::Path::parent).unwrap();
    let shim = folder.join(format!("examples/libshim{}", std::env::consts::DLL_SUFFIX));
    assert!(shim.exists(), "{}: run `cargo build -p modelseal-tests --example shim` first", shim.display());
    shim
}

/// The program, which opens the vault when it starts.
pub struct User {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl User {
    /// Started by `command`.
    pub fn start(mut command: Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut user = Self { process, stdin, stdout: BufReader::new(stdout) };
        assert_eq!(user.answer(), "ok");
        user
    }

    /// Has it do something, and gives what came of it.
    pub fn does(&mut self, what: &str) -> String {
        self.begin(what);
        self.answer()
    }

    /// Has it do something.
    pub fn begin(&mut self, what: &str) {
        writeln!(self.stdin, "{what}").unwrap();
    }

    /// The next line that it says.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it has ended: {:?}", self.process.wait());
        line.trim_end().to_owned()
    }

    /// Lets it end, which it must do in good order.
    pub fn ends(mut self) {
        drop(self.stdin);
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}
