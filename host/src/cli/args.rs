//! What can be asked of the command line.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use modelseal_core::manifest::Suite;
use modelseal_hsm::{Algorithm, Role};

use crate::fingerprint::Fingerprint;

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
exec ends as its command does, with 127 if there is none such, with 126 if it can't be run.

Example:
  modelseal --vault file:vault.json init
  modelseal --vault file:vault.json seal model.onnx -o model.sealed --line detector --model-version 1";

/// Seals trained models: encrypts, signs, binds them to devices, and opens them where they run.
#[derive(Parser)]
#[command(name = "modelseal", bin_name = "modelseal", version, after_help = EXIT_CODES, max_term_width = 100)]
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
    /// Default: file:vault.json in modelseal's folder of the user's data. The passphrase is read from the first of
    /// these that there is: the file MODELSEAL_PASSPHRASE_FILE, MODELSEAL_PASSPHRASE, the systemd credential
    /// modelseal.passphrase, a prompt. A token's PIN: the URI's pin-source, the file MODELSEAL_PIN_FILE,
    /// MODELSEAL_PIN, the systemd credential modelseal.pin, a prompt. A wrong PIN is tried once. Without module-path:
    /// MODELSEAL_PKCS11_MODULE, PKCS11_MODULE_PATH, or the only library at a usual place or in p11-kit's
    /// configuration. A token that doesn't answer is given up after MODELSEAL_TOKEN_TIMEOUT seconds (30).
    #[arg(long, global = true, env = "MODELSEAL_VAULT", value_name = "URI")]
    pub(super) vault: Option<String>,
    /// The registry of enrolled devices (default: beside the vault)
    #[arg(long, global = true, env = "MODELSEAL_REGISTRY", value_name = "FILE")]
    pub(super) registry: Option<PathBuf>,
    /// Print JSON: results to standard output, errors to standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print errors and warnings only
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Show each use of a vault's key on standard error: operation, key, duration, outcome; never a secret
    #[arg(long, global = true, env = "MODELSEAL_TRACE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(super) trace: bool,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a vault: its master, fleet and publisher key
    #[command(
        after_help = "Example:\n  modelseal init --vault file:vault.json\n  modelseal init --vault 'pkcs11:token=models?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=pin'"
    )]
    Init(InitArgs),
    /// Seal a model, or a folder of models: encrypt and sign it
    ///
    /// Of a folder, every file below it becomes a sealed model of its own, NAME.sealed, and directory.sealed is the signed
    /// list of them: it opens only as a whole and as it was, with nothing missing, added, renamed or from another release.
    /// Links out of the folder are refused.
    #[command(
        after_help = "Example:\n  modelseal seal wake.tflite -o wake.sealed --line wake-word --model-version 3 --profile device\n  modelseal seal llama-folder -o llama-3 --line llama --model-version 3"
    )]
    Seal(SealArgs),
    /// Seal a model that was encrypted with Fernet
    ///
    /// The key comes from a file or from the variable MODELSEAL_FERNET_KEY, never from the command line. The old file is
    /// checked before anything of it is decrypted, in memory, which it has to fit into: Fernet has no smaller parts.
    /// Nothing is written but the sealed model. The old file stays; delete it, and its key, once the sealed one has been
    /// opened.
    #[command(
        after_help = "Example:\n  modelseal migrate-fernet model.pt.enc --key model.key -o model.sealed --line detector --model-version 1"
    )]
    MigrateFernet(MigrateFernetArgs),
    /// Show what a sealed model or a grant says, without checking that it is genuine
    #[command(after_help = "Example:\n  modelseal inspect wake.sealed --json")]
    Inspect(InspectArgs),
    /// Check a sealed model's signature and every byte that it covers, without any key
    #[command(after_help = "Example:\n  modelseal verify wake.sealed --publisher publisher.pem")]
    Verify(VerifyArgs),
    /// Open a sealed model, with the vault or with a grant
    #[command(
        after_help = "Example:\n  modelseal open wake.sealed -o wake.tflite\n  modelseal open wake.sealed -o - --grant kitchen.grant --identity kitchen.identity | run-model\n  modelseal open model.sealed -o weight.bin --tensor layers.0.weight"
    )]
    Open(OpenArgs),
    /// List the tensors of a sealed safetensors model: name, type, shape, range of bytes
    #[command(after_help = "Example:\n  modelseal tensors model.sealed")]
    Tensors(TensorsArgs),
    /// Run a program that takes only a file name with an opened model, which is in memory and in no file
    ///
    /// Each model is opened into anonymous memory (memfd), sealed so that nobody can change it. In the command, also
    /// within a word, {} is replaced by its file name, /proc/self/fd/N; with several models, {1}, {2} … in their order.
    /// For a program that takes it from a variable: -- env MODEL={} PROGRAM. Of a sealed folder, {weights/1.gguf} is a file's
    /// name by its path in the folder; those that the command names are opened, and there is no name for the folder.
    ///
    /// modelseal then becomes the command, as a shell's exec does: process id, terminal and signals are the command's,
    /// and so is the exit code. If it can't be run, that is 127 where there is no such command, else 126; if a model
    /// can't be opened, it is modelseal's own, as below, and the command isn't started. The floor that a grant says is
    /// stored before the command starts.
    ///
    /// The command writes no core dump (its limit is one byte, at which the system starts no collector of dumps either),
    /// since it has copies of the model in its own memory; shared memory and mapped files are left out of its dumps,
    /// too. It gets none of the variables whose names begin with MODELSEAL_. The memory can be swapped out: see
    /// docs/SERVICE.md. Linux only.
    #[command(
        after_help = "Examples:\n  modelseal exec wake.sealed --grant kitchen.grant --identity kitchen.identity -- serve --model={} --port 80\n  modelseal exec target.sealed draft.sealed -- serve --model {1} --draft {2}\n  modelseal exec llama-3 -- serve --weights {model.gguf} --config {config.json}"
    )]
    Exec(ExecArgs),
    /// Grant a sealed model to an enrolled device, or to many
    #[command(
        after_help = "To many devices it can be run again after it was stopped: grants that are there already are kept.\n\nExample:\n  modelseal grant wake.sealed --device kitchen-7 -o kitchen.grant --not-before 2026-01-01T00:00:00Z --not-after 2027-01-01T00:00:00Z\n  modelseal grant wake.sealed --all -o grants\n  modelseal grant llama-3 --device kitchen-7 -o kitchen-grants\n  grep ^kitchen- ids | modelseal grant wake.sealed --devices - -o grants"
    )]
    Grant(GrantArgs),
    /// Move sealed models to the newest master key, in place
    ///
    /// For each, the content key is wrapped under the newest master key in a free key slot, and when that is on the
    /// disk, the slots of older versions are cleared. Nothing else of the file is read or written, whatever its size,
    /// and an interruption at any instant leaves a model that opens. Grants stay good.
    ///
    /// This is NOT revocation. The content key stays the same, so who has it still opens the model: a device with a
    /// grant, whoever copied a content key, and whoever has an old master key together with an old copy of the file.
    /// Against them only `modelseal reseal` helps, which encrypts the model anew under another content key.
    #[command(
        after_help = "Example:\n  modelseal key rotate master\n  modelseal rewrap wake.sealed archive/"
    )]
    Rewrap(RewrapArgs),
    /// Seal a sealed model anew: under another content key, as another version
    ///
    /// Line, kind and claims stay. Unlike `rewrap`, this is true re-encryption: who has the old content key, or a grant
    /// of the old version, can't open the new one, and devices need new grants. What they have of the old version they
    /// keep. The model is never on the disk in the clear.
    #[command(after_help = "Example:\n  modelseal reseal wake.sealed -o wake.4.sealed --model-version 4")]
    Reseal(ResealArgs),
    /// Devices: make identities, enrol, list, show, trust new publisher keys
    #[command(
        subcommand,
        after_help = "Example:\n  modelseal device enroll kitchen-7 --line wake-word --derive --identity-out kitchen.identity"
    )]
    Device(DeviceCommand),
    /// Keys of the vault: list, check, export, rotate, retire, destroy, back up
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
    /// The model's file, or a folder, of which each file is sealed
    pub(super) model: PathBuf,
    /// Where the sealed model goes; for a folder, a new folder
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) said: Said,
}

#[derive(ClapArgs)]
pub(super) struct MigrateFernetArgs {
    /// The file that Fernet has encrypted; it stays as it is
    pub(super) old: PathBuf,
    /// The file with its key, 32 bytes in base64url (default: the key in MODELSEAL_FERNET_KEY)
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Where the sealed model goes
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) said: Said,
}

/// What is said of a model when it is sealed.
#[derive(ClapArgs)]
pub(super) struct Said {
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
    /// Where it will open: host means chunks of 64 KiB, of models over 1 GiB longer ones, aligned to 4096 bytes; device means 4 KiB and 16
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

impl From<Profile> for crate::profile::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Host => Self::Host,
            Profile::Device => Self::Device,
        }
    }
}

#[derive(ClapArgs)]
pub(super) struct RewrapArgs {
    /// Sealed models, and folders, in which all *.sealed are meant
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

#[derive(ClapArgs)]
pub(super) struct ResealArgs {
    /// The sealed model
    pub(super) sealed: PathBuf,
    /// Where the new one goes
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Greater than the old one's: a version is released once
    #[arg(long, value_name = "N")]
    pub(super) model_version: u64,
    /// The cipher (default: the old one's)
    #[arg(long, value_enum)]
    pub(super) suite: Option<SuiteArg>,
    /// Where it will open, as for `seal` (default: chunks and alignment as they were)
    #[arg(long, value_enum)]
    pub(super) profile: Option<Profile>,
}

#[derive(ClapArgs)]
pub(super) struct InspectArgs {
    /// A sealed model, a sealed folder or a grant; - for standard input
    pub(super) file: PathBuf,
}

#[derive(ClapArgs)]
pub(super) struct VerifyArgs {
    /// The sealed model or folder; - for standard input
    ///
    /// Whether a file of a folder is missing or was swapped, only the vault can tell: the list is sealed.
    pub(super) sealed: PathBuf,
    /// The publisher's public keys as PEM, as `key export` writes them; then no vault is needed
    #[arg(long, value_name = "PEM")]
    pub(super) publisher: Option<PathBuf>,
    /// The fingerprint that each of the publisher's keys must have, as `key export` shows it; given once for each key
    #[arg(long = "fingerprint", value_name = "HEX", requires = "publisher")]
    pub(super) fingerprints: Vec<Fingerprint>,
}

#[derive(ClapArgs)]
pub(super) struct OpenArgs {
    /// The sealed model or folder; - for standard input
    pub(super) sealed: PathBuf,
    /// Where the model goes; - for standard output; for a folder, a new folder
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: PathBuf,
    /// Open with this grant instead of the vault; for a folder, with this folder of grants
    #[arg(long, value_name = "PATH", requires = "identity")]
    pub(super) grant: Option<PathBuf>,
    /// Only this tensor's bytes, of a safetensors model: nothing else of the payload is read
    ///
    /// What is written was authentic; of the rest nothing is known. The stored floor stays as it is.
    #[arg(long, value_name = "NAME", conflicts_with = "range")]
    pub(super) tensor: Option<String>,
    /// Only these bytes, from START up to, but without, END; likewise
    #[arg(long, value_name = "START..END", value_parser = range)]
    pub(super) range: Option<Range<u64>>,
    #[command(flatten)]
    pub(super) by: OpenBy,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    range.filter(|range| !range.is_empty()).ok_or_else(|| "write it as START..END, such as 0..4096".into())
}

#[derive(ClapArgs)]
pub(super) struct TensorsArgs {
    /// The sealed model
    pub(super) sealed: PathBuf,
    /// Open with this grant instead of the vault
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub(super) grant: Option<PathBuf>,
    #[command(flatten)]
    pub(super) by: OpenBy,
}

/// Whose key opens, and what may.
#[derive(ClapArgs)]
pub(super) struct OpenBy {
    /// Refuse a model of any other line
    #[arg(long, value_name = "NAME")]
    pub(super) line: Option<String>,
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
pub(super) struct ExecArgs {
    /// The sealed models; - for standard input; or one sealed folder
    #[arg(required = true, value_name = "SEALED")]
    pub(super) sealed: Vec<PathBuf>,
    /// Open with this grant instead of the vault; for several models, once for each, in their order
    #[arg(id = "grant", long = "grant", value_name = "FILE", requires = "identity")]
    pub(super) grants: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) by: OpenBy,
    /// The command and its arguments, in which {} is the model's file name
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

#[derive(ClapArgs)]
#[command(group(ArgGroup::new("recipients").required(true).args(["device", "devices", "all"])))]
pub(super) struct GrantArgs {
    /// The sealed model, or a sealed folder
    pub(super) sealed: PathBuf,
    /// The enrolled device
    #[arg(long, value_name = "ID")]
    pub(super) device: Option<String>,
    /// The enrolled devices whose ids this file lists, one a line; - for standard input
    ///
    /// Empty lines and what follows a # don't count.
    #[arg(long, value_name = "FILE")]
    pub(super) devices: Option<PathBuf>,
    /// All devices that are enrolled for the model's line
    #[arg(long)]
    pub(super) all: bool,
    /// Where the grant goes; with --devices or --all a folder, for files named ID.grant; for a sealed folder, one for a
    /// grant for each of its files and directory.grant, with --devices or --all in a folder ID
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: PathBuf,
    /// Make all grants anew, those that are in the folder already, too
    ///
    /// Without it, a grant is kept that is the one that would be made: it says the same (this model, device, floor and
    /// validity), and it is genuine. One for an X25519 key has the publisher's signature; one for a device key opens
    /// with that key, which is derived for it. What is damaged is made anew.
    #[arg(long, conflicts_with = "device")]
    pub(super) fresh: bool,
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
        /// The device's id: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit
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
        /// The fingerprint that each of the publisher's keys must have, as `key export` shows it; given once for each key
        #[arg(long = "fingerprint", value_name = "HEX")]
        fingerprints: Vec<Fingerprint>,
    },
    /// Replace the publisher keys that an identity trusts, after `key rotate publisher`
    #[command(
        after_help = "Example:\n  modelseal device trust --identity kitchen.identity --publisher publisher.pem"
    )]
    Trust {
        /// The identity; it is rewritten
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// Its publisher's public keys, as `key export` writes them: these and no others are trusted
        #[arg(long, value_name = "PEM")]
        publisher: PathBuf,
        /// The fingerprint that each of the publisher's keys must have, as `key export` shows it; given once for each key
        #[arg(long = "fingerprint", value_name = "HEX")]
        fingerprints: Vec<Fingerprint>,
    },
    /// Bring a device a sealed model and its grant over a serial line
    ///
    /// The device verifies both before anything is replaced, and tries them at its next boot. What was interrupted
    /// goes on where it was when it is sent again. See docs/DEVICES.md for the device's side.
    #[command(
        after_help = "Examples:\n  modelseal device update wake-2.sealed --grant kitchen-7.grant --port /dev/ttyACM0\n  modelseal device update --grant kitchen-7-renewed.grant --port /dev/ttyACM0"
    )]
    Update {
        /// The sealed model; without it, the grant is for the model that the device has
        sealed: Option<PathBuf>,
        /// The grant
        #[arg(long, value_name = "FILE")]
        grant: PathBuf,
        /// The serial line, or a Unix socket
        #[arg(long, value_name = "PATH")]
        port: PathBuf,
        /// The line's speed
        #[arg(long, value_name = "BAUD", default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(1..))]
        baud: u32,
    },
    /// Make the registry the vault's, where it is a copy from before all of its publisher keys were destroyed
    ///
    /// Check first that it isn't another vault's: grants for its devices would be made with keys that they don't have.
    #[command(after_help = "Example:\n  modelseal --registry copy.registry device adopt")]
    Adopt,
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
    /// The device's id: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit
    pub(super) id: String,
    /// A line that it may open; may be repeated
    #[arg(long = "line", value_name = "NAME", required = true)]
    pub(super) lines: Vec<String>,
    /// The device's X25519 public key, as `device keygen` writes it
    #[arg(long, value_name = "FILE")]
    pub(super) public_key: Option<PathBuf>,
    /// The fingerprint that the public key must have, as `device keygen` shows it on the device
    #[arg(long, value_name = "HEX", requires = "public_key")]
    pub(super) fingerprint: Option<Fingerprint>,
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
    /// Make the next version of a key, which is used from then on; older ones are kept for opening
    ///
    /// After `rotate master`, move sealed models to it with `rewrap`. After `rotate publisher`, hand out the public keys
    /// (`key export`, `device trust`, a device's firmware) before anything that the new one signed: who doesn't trust it
    /// yet refuses that. After `rotate fleet`, devices keep their keys; new ones get theirs from the new version.
    #[command(after_help = "Example:\n  modelseal key rotate master")]
    Rotate(RotateArgs),
    /// Keep an older key from being used, after showing what still depends on it
    ///
    /// A retired master key opens nothing, a retired publisher key isn't trusted, a retired fleet key makes no grants and
    /// no device keys. It stays in the vault until `key destroy`, and --undo takes the retirement back.
    ///
    /// For a master or publisher key, name the sealed models that there are, wherever they are stored: what isn't looked
    /// at can't be found to depend on it.
    #[command(
        after_help = "Example:\n  modelseal key retire master 1 models/ archive/\n  modelseal key retire master 1 --undo"
    )]
    Retire(RetireArgs),
    /// Destroy a retired key for good: whatever only it opens is lost
    ///
    /// On a token the key's objects are destroyed. A vault file is written anew without the key: whether the old file's
    /// blocks are overwritten is up to the disk, and backups and snapshots keep what they have; destroy them, too.
    #[command(
        after_help = "Example:\n  modelseal key destroy master 1\n  modelseal key destroy master 1 --confirm 'destroy master/1'"
    )]
    Destroy(DestroyArgs),
    /// Write a backup of a software vault, under a passphrase of its own
    ///
    /// It is read from MODELSEAL_BACKUP_PASSPHRASE_FILE, MODELSEAL_BACKUP_PASSPHRASE or a prompt. The registry isn't in
    /// it: copy that, too. For tokens see docs/KEYS.md.
    #[command(after_help = "Example:\n  modelseal key backup -o vault.backup")]
    Backup {
        /// Where it goes; nothing is ever overwritten
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Make a software vault of a backup, where there is none
    #[command(after_help = "Example:\n  modelseal --vault file:vault.json key restore vault.backup")]
    Restore {
        /// What `key backup` wrote
        backup: PathBuf,
    },
}

#[derive(ClapArgs)]
pub(super) struct RotateArgs {
    /// Which key
    #[arg(value_enum)]
    pub(super) role: RoleArg,
    /// For a publisher key: what it signs with (default: as before)
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    pub(super) algorithm: Option<PublisherAlgorithm>,
}

#[derive(ClapArgs)]
pub(super) struct RetireArgs {
    /// Which key
    #[arg(value_enum)]
    pub(super) role: RoleArg,
    /// Its version, which isn't the newest
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) version: u32,
    /// Sealed models to look at, and folders, in which all *.sealed are meant
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Retire it whatever depends on it
    #[arg(long)]
    pub(super) force: bool,
    /// Take a retirement back
    #[arg(long, conflicts_with_all = ["force", "files"])]
    pub(super) undo: bool,
}

#[derive(ClapArgs)]
pub(super) struct DestroyArgs {
    /// Which key
    #[arg(value_enum)]
    pub(super) role: RoleArg,
    /// Its version, which is retired
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) version: u32,
    /// What would have to be typed, such as 'destroy master/1'
    #[arg(long, value_name = "TEXT")]
    pub(super) confirm: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum RoleArg {
    Master,
    Fleet,
    Publisher,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Master => Self::Master,
            RoleArg::Fleet => Self::Fleet,
            RoleArg::Publisher => Self::Publisher,
        }
    }
}

#[derive(ClapArgs)]
pub(super) struct DemoArgs {
    /// A folder for the demo's files, new or empty (default: a new one among the temporary files)
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
