//! What all commands share: the vault, the registry, and how results and errors are shown.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use modelseal_hsm::{Location, Passphrase, Vault};
use serde_json::{Value, json};

use super::args::Global;
use super::secret;
use crate::error::{Error, Result};
use crate::vaults;

pub(super) struct Context<'a> {
    global: &'a Global,
    passphrase: Option<&'a Path>,
}

impl<'a> Context<'a> {
    pub(super) fn new(global: &'a Global) -> Self {
        Self { global, passphrase: None }
    }

    /// With the passphrase in this file, whatever the environment says.
    pub(super) fn with_passphrase(global: &'a Global, file: &'a Path) -> Self {
        Self { global, passphrase: Some(file) }
    }

    pub(super) fn location(&self) -> Result<Location> {
        match &self.global.vault {
            Some(text) => Ok(text.parse()?),
            None => vaults::default_location(),
        }
    }

    /// Opens the vault, asking for its passphrase or PIN at most once.
    pub(super) fn vault(&self) -> Result<Box<dyn Vault>> {
        let location = self.location()?;
        self.open(&location).map_err(|error| Error::from(error).about(Path::new(&location.to_string())))
    }

    /// The same with the vault's own error.
    pub(super) fn open(
        &self,
        location: &Location,
    ) -> std::result::Result<Box<dyn Vault>, modelseal_hsm::Error> {
        let vault = modelseal_hsm::open(location, &|| self.ask(location, false))?;
        self.warn_of_files(&*vault);
        Ok(vault)
    }

    /// Those that the library reads by itself.
    pub(super) fn warn_of_files(&self, vault: &dyn Vault) {
        vault.exposed().iter().for_each(|file| vaults::warn_of(file, &|text| self.note_text(text)));
    }

    /// Where the registry is.
    pub(super) fn registry(&self) -> Result<PathBuf> {
        match &self.global.registry {
            Some(path) => Ok(path.clone()),
            None => vaults::default_registry(&self.location()?),
        }
    }

    /// The passphrase or PIN: from a file, the environment or a prompt. A new passphrase is asked for twice.
    pub(super) fn ask(
        &self,
        location: &Location,
        new: bool,
    ) -> std::result::Result<Passphrase, modelseal_hsm::Error> {
        match self.passphrase {
            Some(file) => Passphrase::from_file(file),
            None => secret::obtain(location, new, &|text| self.note_text(text)),
        }
    }

    /// The passphrase of a backup, likewise.
    pub(super) fn ask_of_backup(&self, new: bool) -> std::result::Result<Passphrase, modelseal_hsm::Error> {
        secret::obtain_for_backup(new, &|text| self.note_text(text))
    }

    /// Refuses an output that would replace an input, a file of modelseal's own, or the file that has the
    /// passphrase or PIN.
    pub(super) fn protect(&self, out: &Path, inputs: &[&Path]) -> Result<()> {
        let mut secrets = vaults::secret_files();
        if let Ok(Location::Pkcs11(uri)) = self.location() {
            secrets.extend(uri.pin_source);
        }
        let all: Vec<_> = inputs.iter().copied().chain(secrets.iter().map(PathBuf::as_path)).collect();
        crate::files::protect(out, &all)
    }

    /// Whether there is somebody to tell a story to.
    pub(super) fn is_loud(&self) -> bool {
        !self.global.json && !self.global.quiet
    }

    /// Shows a result: the object with `--json`, else the text.
    pub(super) fn show(&self, object: &Value, text: &str) -> Result<()> {
        match (self.global.json, self.global.quiet) {
            (true, _) => print(&format!("{object}")),
            (false, true) => Ok(()),
            (false, false) => print(text),
        }
    }

    /// Shows what was asked for, which `--quiet` doesn't silence.
    pub(super) fn answer(&self, object: &Value, text: &str) -> Result<()> {
        if self.global.json { print(&format!("{object}")) } else { print(text) }
    }

    /// Like [`show`](Self::show), but never into standard output, where a model may be going.
    pub(super) fn note(&self, object: &Value, text: &str) {
        match (self.global.json, self.global.quiet) {
            (true, _) => complain(&object.to_string()),
            (false, true) => {}
            (false, false) => complain(text),
        }
    }

    /// Shows progress by number of files on a terminal, nothing elsewhere.
    pub(super) fn count(&self, what: &'static str, files: usize) -> ProgressBar {
        let bar = self.progress(what, files as u64);
        match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// Whether results are objects.
    pub(super) fn is_json(&self) -> bool {
        self.global.json
    }

    /// Something that a person may want to know meanwhile.
    pub(super) fn note_text(&self, text: &str) {
        if self.is_loud() {
            complain(text);
        }
    }

    pub(super) fn report(&self, error: &Error) {
        if self.global.json {
            report_json(error);
        } else {
            complain(&format!("error: {}\n  hint: {}", error.what(), error.hint()));
        }
    }

    /// Shows progress with throughput on a terminal, nothing elsewhere.
    pub(super) fn progress(&self, what: &'static str, length: u64) -> ProgressBar {
        let style = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        self.bar(what, length, style)
    }

    /// The same for things that are counted.
    pub(super) fn progress_of(&self, what: &'static str, count: u64) -> ProgressBar {
        self.bar(what, count, "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
    }

    fn bar(&self, what: &'static str, length: u64, style: &str) -> ProgressBar {
        if self.global.quiet || self.global.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(length).with_message(what);
        match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

pub(super) fn report_json(error: &Error) {
    complain(&error_object(error).to_string());
}

pub(super) fn error_object(error: &Error) -> Value {
    json!({
        "code": error.code() as u8,
        "name": error.name(),
        "message": error.what(),
        "hint": error.hint(),
    })
}

/// To standard error. Where even that is full, the exit code still says it.
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(|error| Error::io(Path::new("-"), &error))
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn time(seconds: u64) -> String {
    let parsed = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    parsed.map_or_else(|| format!("{seconds} seconds after 1970"), |time| time.to_string())
}

/// A line that the operator types, to be seen; `None` if there is nobody to type one.
pub(super) fn typed(text: &str) -> Option<String> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    complain(text);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok()?;
    Some(line.trim().to_owned())
}
