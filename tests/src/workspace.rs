//! A folder with a vault in it, in which the real `modelseal` runs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

/// The passphrase of every software vault in the tests.
pub const PASSPHRASE: &str = "correct horse battery staple";
/// The wake-word model that the demo bundles, about 50 KB.
pub const WAKE_WORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/demo/hey_jarvis.tflite");

/// A folder that is deleted in the end, in memory where the system has one.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("modelseal-test-");
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }.unwrap()
}

/// The `modelseal` of the profile that the test was built in: beside the folder of the running test, or beside the
/// running program.
pub fn program() -> PathBuf {
    let running = std::env::current_exe().unwrap();
    let folder = running.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap();
    let program = folder.join("modelseal");
    require_fresh(&program, "run `cargo build -p modelseal`, in the tests' profile, first");
    program
}

/// A library for C, of the same profile.
pub fn c_library(name: &str) -> PathBuf {
    let library = program().with_file_name(name);
    let hint = "run `cargo build -p modelseal-capi`, in the tests' profile, first";
    require_fresh(&library, hint);
    require_newer(&library, "host/capi/src", hint);
    library
}

/// Fails, with what to do, if `program` isn't there or is older than what it is built from.
pub fn require_fresh(program: &Path, hint: &str) {
    for part in ["core/src", "hsm/src", "host/src"] {
        require_newer(program, part, hint);
    }
}

fn require_newer(program: &Path, part: &str, hint: &str) {
    let built = program.metadata().and_then(|metadata| metadata.modified());
    let built = built.unwrap_or_else(|error| panic!("{}: {error}; {hint}", program.display()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert!(newest(&root.join(part)) <= built, "{} is older than {part}; {hint}", program.display());
}

fn newest(dir: &Path) -> SystemTime {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let times = entries.map(|path| if path.is_dir() { newest(&path) } else { modified(&path) });
    times.max().unwrap()
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

/// A folder, a vault, and what the program says in it.
pub struct Workspace {
    dir: TempDir,
    environment: BTreeMap<OsString, OsString>,
    log: Mutex<Vec<u8>>,
    trace: Mutex<Vec<String>>,
}

/// What one run of the program said.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

/// The JSON object with which a command refuses.
#[derive(Debug)]
pub struct Refusal {
    /// What failed.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// The format's own name for the failure.
    pub name: Option<String>,
}

impl Workspace {
    /// With a software vault, made already.
    pub fn new() -> Self {
        let workspace = Self::with_vault("file:vault.json");
        workspace.ok(&["init"]);
        workspace
    }

    /// With the vault `uri`, which isn't made yet. The environment is this and nothing else.
    pub fn with_vault(uri: &str) -> Self {
        let dir = scratch();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        write_private(&dir.path().join("passphrase"), PASSPHRASE);
        let temporary = dir.path().join("tmp").into_os_string();
        let variables: [(&str, OsString); 6] = [
            ("MODELSEAL_VAULT", uri.into()),
            ("MODELSEAL_REGISTRY", "registry.json".into()),
            ("MODELSEAL_PASSPHRASE_FILE", "passphrase".into()),
            ("HOME", dir.path().join("home").into_os_string()),
            ("PATH", std::env::var_os("PATH").unwrap_or_default()),
            ("TMPDIR", temporary),
        ];
        let environment = variables.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Self { dir, environment, log: Mutex::default(), trace: Mutex::default() }
    }

    /// Sets one more variable, for every run.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.insert(name.into(), value.into());
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Reads a file in the folder.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a file in the folder, its owner's alone: it may be a secret's.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::File::options();
        let mut file =
            options.create(true).write(true).truncate(true).mode(0o600).open(self.dir().join(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads a JSON file in the folder.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Permission bits of a file in the folder.
    pub fn mode(&self, name: &str) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        self.path(name).metadata().unwrap().permissions().mode() & 0o7777
    }

    /// The program, about to run in the folder, without a terminal.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        self.wrapped(&[] as &[&str], arguments)
    }

    /// The program as the last arguments of another one, such as a shell that sets limits.
    pub fn wrapped(&self, wrapper: &[impl AsRef<OsStr>], arguments: &[impl AsRef<OsStr>]) -> Command {
        let program = program();
        let words = wrapper.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
        let words: Vec<_> = words.chain(arguments.iter().map(AsRef::as_ref)).collect();
        self.another(words[0], &words[1..])
    }

    /// Another program in the program's place.
    pub fn another(&self, program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.dir())
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null());
        command
    }

    /// The same as a device would run it: with no vault, registry or passphrase to be found.
    pub fn device_command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.command(arguments);
        for name in ["MODELSEAL_VAULT", "MODELSEAL_REGISTRY", "MODELSEAL_PASSPHRASE_FILE"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command with `input` at its standard input, and keeps what it said for
    /// [`everything_said`](Self::everything_said), unless that was a model.
    pub fn run(&self, mut command: Command, input: &[u8]) -> Run {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // A command that refuses early closes the pipe, and should.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        let stderr = self.without_trace(String::from_utf8(output.stderr).unwrap());
        let mut log = self.log.lock().unwrap();
        log.extend_from_slice(stderr.as_bytes());
        if std::str::from_utf8(&output.stdout).is_ok() {
            log.extend_from_slice(&output.stdout);
        }
        Run { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// What `--trace` showed is kept apart, for [`trace`](Self::trace).
    fn without_trace(&self, stderr: String) -> String {
        let is_trace = |line: &&str| line.contains("modelseal::vault");
        let (trace, rest): (Vec<_>, Vec<_>) = stderr.split_inclusive('\n').partition(is_trace);
        self.trace.lock().unwrap().extend(trace.into_iter().map(str::to_owned));
        rest.concat()
    }

    /// What `--trace` has shown so far, line by line.
    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().clone()
    }

    /// Runs the program, which must succeed, and gives its JSON answer.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        self.ok_from(self.command(&[arguments, &["--json"]].concat()))
    }

    /// The same with no vault to be found.
    pub fn device_ok(&self, arguments: &[&str]) -> Value {
        self.ok_from(self.device_command(&[arguments, &["--json"]].concat()))
    }

    /// Runs a command that must succeed and answer with one JSON object, and nothing else.
    pub fn ok_from(&self, command: Command) -> Value {
        let text = format!("{command:?}");
        let run = self.run(command, &[]);
        assert_eq!(run.code, Some(0), "{text}: {}", run.stderr);
        assert_eq!(run.stderr, "", "{text}");
        let answer = serde_json::from_slice(&run.stdout);
        answer.unwrap_or_else(|error| panic!("{text}: {error}: {:?}", String::from_utf8_lossy(&run.stdout)))
    }

    /// Runs the program, which must refuse with exit code `code` and leave every file as it was.
    pub fn refused(&self, code: u8, arguments: &[&str]) -> Refusal {
        self.refused_from(code, self.command(&[arguments, &["--json"]].concat()))
    }

    /// The same with no vault to be found.
    pub fn device_refused(&self, code: u8, arguments: &[&str]) -> Refusal {
        self.refused_from(code, self.device_command(&[arguments, &["--json"]].concat()))
    }

    /// Runs a command with `--json` that must refuse: one JSON object on standard error, nothing on standard
    /// output, and every file as it was.
    pub fn refused_from(&self, code: u8, command: Command) -> Refusal {
        let (text, before) = (format!("{command:?}"), self.snapshot());
        let run = self.run(command, &[]);
        assert_eq!(run.code, Some(code.into()), "{text}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{text}: {:?}", String::from_utf8_lossy(&run.stdout));
        assert_same(&before, &self.snapshot(), &text);
        Refusal::parse(code, &run.stderr)
    }

    /// Every file below the folder, but for locks and tokens.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.dir(), &mut files);
        let lock = |path: &Path| path.extension().is_some_and(|ending| ending == "lock");
        files.retain(|path, _| !lock(path) && !path.starts_with(self.path("tokens")));
        files
    }

    /// Everything that the program has said so far.
    pub fn everything_said(&self) -> Vec<u8> {
        self.log.lock().unwrap().clone()
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Refusal {
    /// Reads the one object that standard error must be.
    pub fn parse(code: u8, stderr: &str) -> Self {
        let object: Value = serde_json::from_str(stderr).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        assert_eq!(object["code"], code, "{stderr}");
        let text = |name: &str| object[name].as_str().map(str::to_owned);
        let refusal =
            Self { message: text("message").unwrap(), hint: text("hint").unwrap(), name: text("name") };
        assert!(!refusal.message.is_empty() && !refusal.hint.is_empty(), "{stderr}");
        refusal
    }
}

/// For its owner alone.
pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Fails if a file came, went or changed.
pub fn assert_same(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "{what}: a file came or went");
    for (path, bytes) in before {
        assert!(after[path] == *bytes, "{what}: {} changed", path.display());
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // Links to folders may lead in circles; what is behind them in the workspace is found without them.
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files);
        } else if path.is_file() {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}
