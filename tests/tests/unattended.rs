//! Without anybody at a terminal: where passphrase and PIN come from, and what is said when they don't. And with
//! somebody there: what becomes of the terminal.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelseal_tests::softhsm::{self, PIN};
use modelseal_tests::workspace::PASSPHRASE;
use modelseal_tests::{Refusal, Workspace};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

const LIST: [&str; 3] = ["key", "list", "--json"];

/// One kind of vault, and the names of what it looks for.
struct Kind {
    w: Workspace,
    secret: &'static str,
    file: &'static str,
    variable: &'static str,
    credential: &'static str,
}

fn kinds() -> [Kind; 2] {
    let (mut token, file) = (softhsm::workspace(), Workspace::new());
    token.ok(&["init"]);
    let module = softhsm::module();
    token.set("MODELSEAL_VAULT", format!("pkcs11:token=models?module-path={module}"));
    [
        Kind {
            w: file,
            secret: PASSPHRASE,
            file: "MODELSEAL_PASSPHRASE_FILE",
            variable: "MODELSEAL_PASSPHRASE",
            credential: "modelseal.passphrase",
        },
        Kind {
            w: token,
            secret: PIN,
            file: "MODELSEAL_PIN_FILE",
            variable: "MODELSEAL_PIN",
            credential: "modelseal.pin",
        },
    ]
}

impl Kind {
    /// With nothing to find.
    fn bare(&self) -> Command {
        let mut command = self.w.command(&LIST);
        command.env_remove("MODELSEAL_PASSPHRASE_FILE");
        command
    }

    fn with(&self, variables: &[(&str, &OsStr)]) -> Command {
        let mut command = self.bare();
        command.envs(variables.iter().copied());
        command
    }
}

/// Each source alone works, and of two the first counts.
#[test]
fn a_passphrase_or_pin_comes_from_a_file_the_environment_or_a_credential() {
    for kind in kinds() {
        let w = &kind.w;
        std::fs::create_dir(w.path("credentials")).unwrap();
        w.write(format!("credentials/{}", kind.credential), format!("{}\n", kind.secret));
        w.write("right", kind.secret);
        w.write("wrong", "wrong wrong");
        let credentials = ("CREDENTIALS_DIRECTORY", w.path("credentials").into_os_string());
        let credentials = (credentials.0, credentials.1.as_os_str());
        let file = |name: &'static str| (kind.file, OsStr::new(name));
        let variable = |value: &'static str| (kind.variable, OsStr::new(value));
        w.ok_from(kind.with(&[file("right")]));
        w.ok_from(kind.with(&[variable(kind.secret)]));
        w.ok_from(kind.with(&[credentials]));
        w.ok_from(kind.with(&[file("right"), variable("wrong wrong")]));
        w.ok_from(kind.with(&[variable(kind.secret), credentials]));
        w.refused_from(5, kind.with(&[file("wrong"), variable(kind.secret), credentials]));
        w.refused_from(5, kind.with(&[variable("wrong wrong"), credentials]));
        // A folder of credentials without ours is another service's.
        std::fs::remove_file(w.path(&format!("credentials/{}", kind.credential))).unwrap();
        let none = w.refused_from(5, kind.with(&[credentials]));
        assert!(none.hint.contains(kind.variable) && none.hint.contains(kind.file), "{none:?}");
        let missing = w.refused_from(5, kind.with(&[file("nowhere")]));
        assert!(missing.message.contains("nowhere"), "{missing:?}");
        // Set, though to nothing that could be one: it doesn't count as unset.
        let odd = w.refused_from(5, kind.with(&[(kind.variable, OsStr::from_bytes(b"\xff\xfe"))]));
        assert!(odd.message.contains(kind.variable) && odd.message.contains("UTF-8"), "{odd:?}");
    }
}

#[test]
fn a_pin_source_is_a_file() {
    let mut w = softhsm::workspace();
    w.ok(&["init"]);
    let base = format!("pkcs11:token=models?module-path={}&pin-source=", softhsm::module());
    let pin = w.path("pin").display().to_string();
    for source in
        [pin.clone(), format!("file:{pin}"), format!("file://{pin}"), format!("file://localhost{pin}")]
    {
        w.set("MODELSEAL_VAULT", format!("{base}{source}"));
        w.ok(&["key", "list"]);
    }
    for source in ["file:pin", "%7Ccat%20pin", "https:pin", "builtin:pin", ""] {
        w.set("MODELSEAL_VAULT", format!("{base}{source}"));
        let refusal = w.refused(2, &["key", "list"]);
        assert!(refusal.message.contains("pin-source") || source.is_empty(), "{source}: {refusal:?}");
    }
}

#[test]
fn who_else_can_read_a_pin_is_said() {
    let w = softhsm::workspace();
    w.ok(&["init"]);
    for (mode, is_said) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        std::fs::set_permissions(w.path("pin"), std::fs::Permissions::from_mode(mode)).unwrap();
        let run = w.run(w.command(&["key", "list"]), &[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(run.stderr.contains("chmod 600"), is_said, "{mode:o}: {}", run.stderr);
    }
    let other = softhsm::add_token(&w, "other");
    let init = w.run(w.command(&["--vault", &other, "--registry", "other.registry", "init"]), &[]);
    assert!(init.code == Some(0) && init.stderr.contains("chmod 600"), "{init:?}");
    // Where a program reads it, too.
    let run = w.run(w.command(&["key", "list", "--json"]), &[]);
    let said: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(said["warning"], "exposed");
}

#[test]
fn who_waits_for_another_modelseal_is_told() {
    let w = Workspace::new();
    let lock = File::create(w.path("registry.json.lock")).unwrap();
    lock.lock().unwrap();
    let enroll = ["device", "enroll", "d", "--derive", "--line", "l", "--identity-out", "d.identity"];
    let spawn = |more: &[&str]| {
        let mut command = w.command(&[&enroll[..], more].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut loud = spawn(&[]);
    let mut said = [0; 512];
    let len = loud.stderr.take().unwrap().read(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..len]).into_owned();
    assert!(said.contains("waiting") && said.contains("registry.json.lock"), "{said}");
    let quiet = spawn(&["--quiet"]);
    std::thread::sleep(Duration::from_millis(1500));
    loud.kill().unwrap();
    loud.wait().unwrap();
    lock.unlock().unwrap();
    let quiet = quiet.wait_with_output().unwrap();
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
}

// ---- At a terminal -----------------------------------------------------------------------------------------

/// The program with a terminal of its own.
struct Terminal {
    near: File,
    far: File,
    child: Child,
}

impl Terminal {
    fn run(kind: &Kind, arguments: &[&str]) -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap().into_string().unwrap();
        let far = File::options().read(true).write(true).open(name).unwrap();
        let mut command = kind.w.wrapped(&["setsid", "--ctty", "--wait"], arguments);
        command.env_remove("MODELSEAL_PASSPHRASE_FILE").stdin(far.try_clone().unwrap());
        command.stdout(far.try_clone().unwrap()).stderr(far.try_clone().unwrap());
        Self { near: near.into(), far, child: command.spawn().unwrap() }
    }

    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.far).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Reads until it has asked.
    fn asked(&mut self) -> String {
        let mut said = String::new();
        while !said.ends_with(": ") {
            let mut bytes = [0; 256];
            let len = self.near.read(&mut bytes).unwrap();
            said.push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
        assert!(!self.shows_what_is_typed());
        said
    }

    fn types(&mut self, text: &str) {
        self.near.write_all(text.as_bytes()).unwrap();
    }

    /// Its exit code or the signal that ended it, and what it said at last.
    fn ends(mut self) -> (Result<i32, i32>, String) {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > Duration::from_secs(60) => panic!("it goes on"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(self.shows_what_is_typed(), "{status}");
        // All that it said is there; something, so that reading ends.
        self.far.write_all(b"\x04").unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\x04") {
            let mut byte = [0];
            self.near.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        (status.code().ok_or_else(|| status.signal().unwrap()), String::from_utf8_lossy(&said).into_owned())
    }
}

#[test]
fn a_prompt_asks_in_silence_and_the_terminal_is_as_before() {
    for kind in kinds() {
        let mut terminal = Terminal::run(&kind, &["key", "list"]);
        let asked = terminal.asked();
        assert!(asked.contains("passphrase of file:") || asked.contains("PIN of pkcs11:models"), "{asked}");
        terminal.types(&format!("{}\n", kind.secret));
        let (code, said) = terminal.ends();
        assert_eq!(code, Ok(0), "{said}");
        assert!(said.contains("master/1") && !said.contains(kind.secret), "{said}");
    }
}

#[test]
fn interrupting_a_prompt_restores_the_terminal() {
    for kind in kinds() {
        // Ctrl-C and Ctrl-\, and the end of input.
        for (typed, code) in [("\x03", Err(2)), ("half\x03", Err(2)), ("\x1c", Err(3)), ("\x04", Ok(5))] {
            let mut terminal = Terminal::run(&kind, &["key", "list"]);
            terminal.asked();
            terminal.types(typed);
            let (ended, said) = terminal.ends();
            assert_eq!(ended, code, "{typed:?}: {said}");
        }
    }
}

#[test]
fn a_new_passphrase_is_asked_for_twice() {
    let [kind, _] = kinds();
    let init = ["--vault", "file:new.json", "--registry", "new.registry", "init", "--json"];
    let mut terminal = Terminal::run(&kind, &init);
    terminal.asked();
    terminal.types("one\n");
    terminal.asked();
    terminal.types("other\n");
    let (code, said) = terminal.ends();
    assert_eq!(code, Ok(5), "{said}");
    let object = said.lines().find(|line| line.starts_with('{')).unwrap();
    assert!(Refusal::parse(5, object).message.contains("differ"), "{said}");
    assert!(!kind.w.path("new.json").exists());
    let mut terminal = Terminal::run(&kind, &init);
    terminal.asked();
    terminal.types("same\n");
    terminal.asked();
    terminal.types("same\n");
    assert_eq!(terminal.ends().0, Ok(0));
}
