//! What can be asked of the command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use modelseal_core::manifest::Suite;
use modelseal_hsm::Algorithm;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  anything that isn't below
  2  usage
  3  not authentic: changed, cut, extended, malformed, wrong key or publisher, another vault's
  4  refused by terms: other line, device or model, expired, not yet valid, rolled back
  5  vault: no passphrase, PIN, token, key
  6  input or output
  7  foreign magic, unknown version or suite

Example:
  modelseal --vault file:vault.json init
  modelseal --vault file:vault.json seal model.onnx -o model.sealed --line detector --model-version 1";

/// Seals trained models: encrypts, signs, binds them to devices, and opens them where they run.
#[derive(Parser)]
#[command(name = "modelseal", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(ClapArgs)]
pub(super) struct Global {
    /// The vault: file:PATH, or pkcs11:token=LABEL?module-path=LIBRARY&pin-source=FILE
    ///
    /// Default: file:vault.json in modelseal's folder of the user's data. The passphrase is read from
    /// MODELSEAL_PASSPHRASE_FILE, MODELSEAL_PASSPHRASE or a prompt; a token's PIN from pin-source,
    /// MODELSEAL_PIN_FILE, MODELSEAL_PIN or a prompt.
    #[arg(long, global = true, env = "MODELSEAL_VAULT", value_name = "URI")]
    pub(super) vault: Option<String>,
    /// The registry of enrolled devices (default: beside the vault)
    #[arg(long, global = true, env = "MODELSEAL_REGISTRY", value_name = "FILE")]
    pub(super) registry: Option<PathBuf>,
    /// Print JSON: results to standard output, errors to standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a vault: its master, fleet and publisher key
    #[command(
        after_help = "Example:\n  modelseal init --vault file:vault.json\n  modelseal init --vault 'pkcs11:token=models?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=pin'"
    )]
    Init(InitArgs),
    /// Seal a model: encrypt and sign it
    #[command(
        after_help = "Example:\n  modelseal seal wake.tflite -o wake.sealed --line wake-word --model-version 3 --profile device"
    )]
    Seal(SealArgs),
    /// Show what a sealed model or a grant says, without checking that it is genuine
    #[command(after_help = "Example:\n  modelseal inspect wake.sealed --json")]
    Inspect(InspectArgs),
    /// Check a sealed model's signature and every byte that it covers, without any key
    #[command(after_help = "Example:\n  modelseal verify wake.sealed --publisher publisher.pem")]
    Verify(VerifyArgs),
    /// Open a sealed model, with the vault or with a grant
    #[command(
        after_help = "Example:\n  modelseal open wake.sealed -o wake.tflite\n  modelseal open wake.sealed -o - --grant kitchen.grant --identity kitchen.identity | run-model"
    )]
    Open(OpenArgs),
    /// Grant a sealed model to an enrolled device
    #[command(
        after_help = "Example:\n  modelseal grant wake.sealed --device kitchen-7 -o kitchen.grant --not-before 2026-01-01T00:00:00Z --not-after 2027-01-01T00:00:00Z"
    )]
    Grant(GrantArgs),
    /// Devices: make identities, enrol, list, show
    #[command(
        subcommand,
        after_help = "Example:\n  modelseal device enroll kitchen-7 --line wake-word --derive --identity-out kitchen.identity"
    )]
    Device(DeviceCommand),
    /// Keys of the vault: list, check, export
    #[command(subcommand, after_help = "Example:\n  modelseal key export -o publisher.pem")]
    Key(KeyCommand),
    /// Seal a bundled model, grant it and open it as a device would
    #[command(after_help = "Example:\n  modelseal demo --dir /tmp/modelseal-demo")]
    Demo(DemoArgs),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  modelseal completions bash > /etc/bash_completion.d/modelseal")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(after_help = "Example:\n  modelseal man /usr/local/share/man/man1")]
    Man {
        /// The folder, made if it isn't there
        dir: PathBuf,
    },
}

#[derive(ClapArgs)]
pub(super) struct InitArgs {
    /// What to sign with (default: ed25519, or ecdsa-p256 on a token that lacks it)
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    pub(super) publisher_algorithm: Option<PublisherAlgorithm>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum PublisherAlgorithm {
    Ed25519,
    EcdsaP256,
}

impl From<PublisherAlgorithm> for Algorithm {
    fn from(algorithm: PublisherAlgorithm) -> Self {
        match algorithm {
            PublisherAlgorithm::Ed25519 => Self::Ed25519,
            PublisherAlgorithm::EcdsaP256 => Self::EcdsaP256,
        }
    }
}

#[derive(ClapArgs)]
pub(super) struct SealArgs {
    /// The model's file
    pub(super) model: PathBuf,
    /// Where the sealed model goes
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// The name that successive versions share: 1 to 64 of a-z 0-9 . _ -
    #[arg(long, value_name = "NAME")]
    pub(super) line: String,
    /// Grows with each release; a version is released once
    #[arg(long, value_name = "N")]
    pub(super) model_version: u64,
    /// What the model is, such as onnx (default: guessed from content and ending)
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<String>,
    /// The cipher; chacha20-poly1305 is for microcontrollers without an AES unit
    #[arg(long, value_enum, default_value = "aes-256-gcm")]
    pub(super) suite: SuiteArg,
    /// Where it will open: host means chunks of 64 KiB, aligned to 4096 bytes; device means 4 KiB and 16
    #[arg(long, value_enum, default_value = "host")]
    pub(super) profile: Profile,
    /// Something said of the model, such as licence=MIT; may be repeated, up to 8 times
    #[arg(long = "claim", value_name = "KEY=VALUE")]
    pub(super) claims: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum SuiteArg {
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<SuiteArg> for Suite {
    fn from(suite: SuiteArg) -> Self {
        match suite {
            SuiteArg::Aes256Gcm => Self::Aes256Gcm,
            SuiteArg::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Profile {
    Host,
    Device,
}

impl Profile {
    /// Chunk size and alignment as powers of two.
    pub(super) const fn logs(self) -> (u8, u8) {
        match self {
            Self::Host => (16, 12),
            Self::Device => (12, 4),
        }
    }
}

#[derive(ClapArgs)]
pub(super) struct InspectArgs {
    /// A sealed model or a grant; - for standard input
    pub(super) file: PathBuf,
}

#[derive(ClapArgs)]
pub(super) struct VerifyArgs {
    /// The sealed model; - for standard input
    pub(super) sealed: PathBuf,
    /// The publisher's public keys as PEM, as `key export` writes them; then no vault is needed
    #[arg(long, value_name = "PEM")]
    pub(super) publisher: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub(super) struct OpenArgs {
    /// The sealed model; - for standard input
    pub(super) sealed: PathBuf,
    /// Where the model goes; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Refuse a model of any other line
    #[arg(long, value_name = "NAME")]
    pub(super) line: Option<String>,
    /// Open with this grant instead of the vault
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub(super) grant: Option<PathBuf>,
    /// The device's identity
    #[arg(long, value_name = "FILE", requires = "grant")]
    pub(super) identity: Option<PathBuf>,
    /// Where the device's floors are stored (default: the identity's name with .state appended)
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub(super) state: Option<PathBuf>,
    /// Leave the stored floor as it is
    #[arg(long, requires = "identity")]
    pub(super) no_confirm: bool,
}

#[derive(ClapArgs)]
pub(super) struct GrantArgs {
    /// The sealed model
    pub(super) sealed: PathBuf,
    /// The enrolled device
    #[arg(long, value_name = "ID")]
    pub(super) device: String,
    /// Where the grant goes
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// The first moment at which it is good: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME", requires = "not_after")]
    pub(super) not_before: Option<String>,
    /// The first moment at which it is no longer good
    #[arg(long, value_name = "TIME", requires = "not_before")]
    pub(super) not_after: Option<String>,
    /// Lowest version that may open once this grant is confirmed (default: the model's own)
    #[arg(long, value_name = "N")]
    pub(super) floor: Option<u64>,
}

#[derive(Subcommand)]
pub(super) enum DeviceCommand {
    /// Make an X25519 identity, away from any vault
    #[command(
        after_help = "Example:\n  modelseal device keygen kitchen-7 --identity-out kitchen.identity --public-out kitchen.pem"
    )]
    Keygen {
        /// The device's id: 1 to 32 of A-Z a-z 0-9 . _ -
        id: String,
        /// Where the identity goes, once; it holds the secret and stays on the device
        #[arg(long, value_name = "FILE")]
        identity_out: PathBuf,
        /// Where the public key goes, for `device enroll`
        #[arg(long, value_name = "FILE")]
        public_out: PathBuf,
    },
    /// Enrol a device for one line or more
    #[command(
        after_help = "Example:\n  modelseal device enroll kitchen-7 --line wake-word --derive --identity-out kitchen.identity\n  modelseal device enroll porch-2 --line wake-word --public-key porch.pem --identity-out porch.public"
    )]
    Enroll(EnrollArgs),
    /// Complete an identity of `device keygen` with the public part that enrolment wrote
    #[command(
        after_help = "Example:\n  modelseal device complete --identity porch.identity --public-part porch.public"
    )]
    Complete {
        /// The identity with the secret; it is rewritten
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// What `device enroll --public-key` wrote to --identity-out
        #[arg(long, value_name = "FILE")]
        public_part: PathBuf,
    },
    /// List the enrolled devices
    #[command(after_help = "Example:\n  modelseal device list --json")]
    List,
    /// Show one enrolled device
    #[command(after_help = "Example:\n  modelseal device show kitchen-7")]
    Show {
        /// The device's id
        id: String,
    },
}

#[derive(ClapArgs)]
#[command(group(ArgGroup::new("kind").required(true).args(["public_key", "derive"])))]
pub(super) struct EnrollArgs {
    /// The device's id: 1 to 32 of A-Z a-z 0-9 . _ -
    pub(super) id: String,
    /// A line that it may open; may be repeated
    #[arg(long = "line", value_name = "NAME", required = true)]
    pub(super) lines: Vec<String>,
    /// The device's X25519 public key, as `device keygen` writes it
    #[arg(long, value_name = "FILE")]
    pub(super) public_key: Option<PathBuf>,
    /// Derive the device's key from the vault's fleet key
    #[arg(long, requires = "identity_out")]
    pub(super) derive: bool,
    /// Where the identity goes, once, mode 0600: what the factory puts into the device
    ///
    /// With --public-key it has no secret. If the file is the identity that `device keygen` made, it is
    /// completed; otherwise `device complete` does that on the device.
    #[arg(long, value_name = "FILE")]
    pub(super) identity_out: Option<PathBuf>,
    /// The floor of every line before the first confirmation
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) first_floor: u64,
}

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// List the vault's keys
    #[command(after_help = "Example:\n  modelseal key list --json")]
    List,
    /// Check the token and every key: mechanisms, attributes, labels, PIN, and each key in use
    ///
    /// A table: `ok`; `note` for what is tolerated and good to know; `FAIL` for what isn't, with exit code 5. A key
    /// with wider rights than its role's is refused in use, too.
    #[command(after_help = "Example:\n  modelseal key check\n  modelseal key check --json")]
    Check,
    /// Write the publisher's public keys as PEM, the newest first
    #[command(after_help = "Example:\n  modelseal key export -o publisher.pem")]
    Export {
        /// Only this version
        #[arg(long, value_name = "N")]
        version: Option<u32>,
        /// Where they go (default: standard output)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(ClapArgs)]
pub(super) struct DemoArgs {
    /// A folder for the demo's files, new or empty (default: a new one among the temporary files)
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
