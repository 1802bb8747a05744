//! `demo`: the whole path on a bundled model, through the same commands that a user types.

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::{Args, DemoArgs};
use super::context::{Context, error_lines};
use super::terminal::{Text, name, print};
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing};

/// A wake-word model for microcontrollers, from the PyPI package pymicro-wakeword (Apache-2.0).
const MODEL: &[u8] = include_bytes!("../../demo/hey_jarvis.tflite");
const MODEL_NAME: &str = "hey_jarvis.tflite";

pub(super) fn run(args: &DemoArgs, context: &Context<'_>) -> Result<()> {
    let demo = Demo::new(args, context)?;
    demo.say("The publisher makes a vault and seals a model with it.");
    demo.step(&["init"])?;
    demo.step(&["key", "export", "-o", "publisher.pem"])?;
    demo.step(&[
        "seal",
        MODEL_NAME,
        "-o",
        "hey_jarvis.sealed",
        "--line",
        "wake-word",
        "--model-version",
        "1",
        "--profile",
        "device",
        "--claim",
        "licence=Apache-2.0",
    ])?;
    demo.step(&["verify", "hey_jarvis.sealed", "--publisher", "publisher.pem"])?;
    demo.say("The operator enrols a device and grants the model to it.");
    demo.step(&[
        "device",
        "enroll",
        "kitchen-7",
        "--line",
        "wake-word",
        "--derive",
        "--identity-out",
        "kitchen-7.identity",
    ])?;
    demo.step(&["grant", "hey_jarvis.sealed", "--device", "kitchen-7", "-o", "kitchen-7.grant"])?;
    demo.say("The device opens it with its identity and the grant. It has no vault.");
    demo.step(&open("hey_jarvis.sealed", "opened.tflite"))?;
    demo.say("A model of which one bit was changed is refused.");
    demo.flip_a_bit("hey_jarvis.sealed", "changed.sealed")?;
    demo.refused(&open("changed.sealed", "never.tflite"))?;
    demo.finish(context)
}

fn open<'a>(sealed: &'a str, out: &'a str) -> [&'a str; 8] {
    ["open", sealed, "-o", out, "--grant", "kitchen-7.grant", "--identity", "kitchen-7.identity"]
}

struct Demo {
    dir: PathBuf,
    loud: bool,
}

impl Demo {
    fn new(args: &DemoArgs, context: &Context<'_>) -> Result<Self> {
        let dir = match &args.dir {
            Some(dir) => empty_dir(dir)?,
            None => temporary_dir()?,
        };
        let demo = Self { dir, loud: context.is_loud() };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| modelseal_hsm::Error::Random)?;
        let passphrase = Zeroizing::new(hex::encode(random));
        files::write(&demo.path("passphrase"), passphrase.as_bytes(), Access::Private, Existing::Keep)?;
        files::write(&demo.path(MODEL_NAME), MODEL, Access::Public, Existing::Keep)?;
        if demo.loud {
            tell(&format!("All files are in {}. To repeat a step there:", demo.dir.display()));
            tell(&format!("  cd {}", demo.dir.display()));
            tell("  export MODELSEAL_VAULT=file:vault.json MODELSEAL_PASSPHRASE_FILE=passphrase");
        }
        Ok(demo)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn say(&self, text: &str) {
        if self.loud {
            tell(&["", text]);
        }
    }

    /// Runs one command, with the names of files standing for those in the demo's folder.
    fn step(&self, command: &[&str]) -> Result<()> {
        if self.loud {
            tell(&format!("$ modelseal {}", command.join(" ")));
        }
        let file = |word: &&str| match Path::new(word).extension().and_then(|ending| ending.to_str()) {
            Some("tflite" | "sealed" | "grant" | "identity" | "pem") => self.path(word).into_os_string(),
            _ => word.into(),
        };
        let vault = format!("file:{}", self.path("vault.json").display());
        let registry = self.path("vault.json.registry").into_os_string();
        let options = ["modelseal".into(), "--vault".into(), vault.into(), "--registry".into(), registry];
        let quiet = (!self.loud).then(|| "--quiet".into());
        let words = options.into_iter().chain(quiet).chain(command.iter().map(file));
        let args =
            Args::try_parse_from(words).map_err(|error| Error::new(Code::Other, error.to_string(), ""))?;
        let passphrase = self.path("passphrase");
        let context = Context::with_passphrase(&args.global, &passphrase);
        super::run(args.command, &context)
    }

    fn refused(&self, command: &[&str]) -> Result<()> {
        match self.step(command) {
            Err(error) if error.code() == Code::NotAuthentic => {
                self.say_error(&error);
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => Err(Error::new(Code::Other, "a changed model was opened", "don't use this build")),
        }
    }

    fn say_error(&self, error: &Error) {
        if self.loud {
            tell(&error_lines(error));
        }
    }

    /// Changes the last bit of the payload in a copy.
    fn flip_a_bit(&self, from: &str, to: &str) -> Result<()> {
        let mut bytes = files::read(&self.path(from), 1 << 20)?;
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        files::write(&self.path(to), &bytes, Access::Public, Existing::Keep)
    }

    fn finish(&self, context: &Context<'_>) -> Result<()> {
        let opened = files::read(&self.path("opened.tflite"), 1 << 20)?;
        if opened != MODEL {
            return Err(Error::new(
                Code::Other,
                "the opened model isn't the one that was sealed",
                "don't use this build",
            ));
        }
        let hash = blake3::hash(&opened).to_hex();
        let mut text = vec![
            String::new(),
            format!("The opened model is the sealed one, byte for byte: blake3 {hash}"),
            String::new(),
            format!("Files in {}:", self.dir.display()),
        ];
        let about = [
            ("hey_jarvis.tflite", "the model"),
            ("hey_jarvis.sealed", "the model, sealed: what is shipped"),
            ("kitchen-7.grant", "its content key, for one device: shipped, too"),
            ("kitchen-7.identity", "what the factory puts into that device: its secret"),
            ("kitchen-7.identity.state", "the device's rollback floor"),
            ("opened.tflite", "the model, as the device opened it"),
            ("vault.json", "master, fleet and publisher key, encrypted under the passphrase"),
            ("vault.json.registry", "the enrolled devices"),
            ("publisher.pem", "the publisher's public key"),
        ];
        text.extend(about.iter().map(|(name, what)| format!("  {name:24}  {what}")));
        let names: Vec<_> = about.iter().map(|(name, _)| name).collect();
        context.show(&json!({ "dir": name(&self.dir), "files": names, "blake3": hash.as_str() }), &text)
    }
}

fn empty_dir(dir: &Path) -> Result<PathBuf> {
    let io = |error: std::io::Error| Error::io(dir, &error);
    std::fs::create_dir_all(dir).map_err(io)?;
    if std::fs::read_dir(dir).map_err(io)?.next().is_some() {
        return Err(Error::usage(format!("{} isn't empty", dir.display()), "name a new folder with --dir"));
    }
    dir.canonicalize().map_err(io)
}

fn temporary_dir() -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix("modelseal-demo-").tempdir();
    made.map(tempfile::TempDir::keep).map_err(|error| Error::io(&std::env::temp_dir(), &error))
}

/// Where nobody listens any more, the demo still does its work.
fn tell(text: &(impl Text + ?Sized)) {
    let _ = print(text);
}
