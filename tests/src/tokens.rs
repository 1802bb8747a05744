//! Tokens of several kinds, each started for one test: SoftHSM, kryoptic, and a TPM 2.0 in software.
//! `docs/TOKENS.md` says what each of them does.

use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::softhsm::{MISSING, MODULES, PIN};
use crate::workspace::{scratch, write_private};

const SO_PIN: &str = "31415926";
const NO_TPM: &str = "a TPM in software is missing: run `apt-get install swtpm libtpm2-pkcs11-1 opensc`";
const NO_KRYOPTIC: &str = "kryoptic is missing: run `apt-get install libclang-dev libssl-dev libsqlite3-dev`, then \
    `cargo build --manifest-path tests/kryoptic/Cargo.toml --target-dir target/kryoptic`";

/// A token that is initialised and has a PIN and no keys.
pub struct Token {
    dir: TempDir,
    /// Where it is.
    pub uri: String,
    /// What its library needs in the environment.
    pub variables: Vec<(&'static str, OsString)>,
    server: Option<Child>,
}

impl Token {
    /// SoftHSM without the mechanisms named, such as `CKM_AES_CMAC`.
    pub fn softhsm(without: &[&str]) -> Self {
        let module = MODULES.iter().map(Path::new).find(|path| path.exists()).expect(MISSING);
        let token = Self::at(module);
        let conf = token.path("softhsm2.conf");
        std::fs::create_dir(token.path("tokens")).unwrap();
        let mut text = format!("directories.tokendir = {}\n", token.path("tokens").display());
        if let Some(first) = without.first() {
            // The first one after the minus isn't excluded: a fault of SoftHSM 2.6.1.
            text += &format!("slots.mechanisms = -{first},{}\n", without.join(","));
        }
        std::fs::write(&conf, text).unwrap();
        let token = token.with("SOFTHSM2_CONF", conf);
        let label = ["--init-token", "--free", "--label", "models", "--so-pin", SO_PIN, "--pin", PIN];
        succeed(Command::new("softhsm2-util").args(label).envs(token.variables.iter().cloned()), MISSING);
        token
    }

    /// kryoptic without the mechanisms named.
    pub fn kryoptic(without: &[&str]) -> Self {
        let library = "../target/kryoptic/debug/libmodelseal_kryoptic.so";
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(library);
        let module = module.canonicalize().unwrap_or_else(|error| panic!("{error}; {NO_KRYOPTIC}"));
        let token = Self::at(&module);
        let conf = token.path("token.conf");
        let database = token.path("token.sql");
        let mut text = format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {database:?}\n");
        if !without.is_empty() {
            let all: Vec<_> = std::iter::once("DENY").chain(without.iter().copied()).collect();
            text += &format!("mechanisms = {all:?}\n");
        }
        std::fs::write(&conf, text).unwrap();
        let token = token.with("KRYOPTIC_CONF", conf);
        token.initialise(&module);
        token
    }

    /// A TPM 2.0 behind tpm2-pkcs11.
    pub fn tpm() -> Self {
        // Where Debian has it.
        let library = format!("/usr/lib/{}-linux-gnu/pkcs11/libtpm2_pkcs11.so", std::env::consts::ARCH);
        let library = Path::new(&library);
        assert!(library.exists(), "{NO_TPM}");
        let mut token = Self::at(library);
        for dir in ["state", "store"] {
            std::fs::create_dir(token.path(dir)).unwrap();
        }
        let (server, port) = start_swtpm(&token.path("state"));
        token.server = Some(server);
        let store = token.path("store");
        let address = format!("swtpm:host=127.0.0.1,port={port}");
        let token = token.with("TPM2_PKCS11_STORE", store).with("TPM2_PKCS11_TCTI", address);
        // It writes to standard error whatever it meets, which is much.
        let token = token.with("TPM2_PKCS11_LOG_LEVEL", "0").with("TSS2_LOG", "all+none");
        token.initialise(library);
        token
    }

    fn at(module: &Path) -> Self {
        let dir = scratch();
        let pin = dir.path().join("pin");
        write_private(&pin, PIN);
        let uri =
            format!("pkcs11:token=models?module-path={}&pin-source={}", module.display(), pin.display());
        Self { dir, uri, variables: Vec::new(), server: None }
    }

    fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// C_InitToken and C_InitPIN in the first slot, as anybody would.
    fn initialise(&self, module: &Path) {
        let tool = |arguments: &[&str]| {
            let mut tool = Command::new("pkcs11-tool");
            tool.arg("--module").arg(module).args(["--slot-index", "0", "--so-pin", SO_PIN]).args(arguments);
            succeed(tool.envs(self.variables.iter().cloned()), "run `apt-get install opensc`");
        };
        tool(&["--init-token", "--label", "models"]);
        tool(&["--init-pin", "--login", "--new-pin", PIN]);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn succeed(command: &mut Command, hint: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Its port for commands; the next one is for its control.
fn start_swtpm(state: &Path) -> (Child, u16) {
    let port = two_free_ports();
    let mut swtpm = Command::new("swtpm");
    swtpm.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
    swtpm.arg(format!("dir={}", state.display()));
    swtpm.args(["--server", &format!("type=tcp,port={port}")]);
    swtpm.args(["--ctrl", &format!("type=tcp,port={}", port + 1)]);
    let server = swtpm.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = server.unwrap_or_else(|error| panic!("swtpm: {error}; {NO_TPM}"));
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "swtpm didn't start");
        std::thread::sleep(Duration::from_millis(50));
    }
    (server, port)
}

fn two_free_ports() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}
