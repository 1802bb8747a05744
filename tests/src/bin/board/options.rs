//! What the program was asked for.

use std::collections::BTreeMap;
use std::path::Path;

use modelseal::identity::Identity;
use modelseal::open::SealedFile;

use crate::Failure;

/// `--name value`, any number of times.
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = BTreeMap::new();
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").ok_or("an option begins with --")?.to_owned();
            options.insert(name, arguments.next().ok_or("an option has a value")?);
        }
        Ok(Self(options))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn require(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| format!("--{name} is missing").into())
    }

    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        let identity = Identity::read(Path::new(self.require("identity")?))?;
        identity.require_enrolled()?;
        Ok(identity)
    }
}

fn line_of(sealed: &Path) -> Result<String, modelseal::Error> {
    Ok(SealedFile::open(sealed)?.header()?.manifest().subject.line.to_owned())
}

/// The line that was asked for; else the model's, if the device is enrolled for it; else the device's first.
pub(crate) fn line<'i>(identity: &'i Identity, options: &Options) -> Result<&'i str, Failure> {
    let enrolled = |line: &str| identity.lines().iter().find(|enrolled| *enrolled == line);
    let found = match options.get("line") {
        Some(wanted) => enrolled(wanted),
        None => {
            let of_model = options.get("sealed").and_then(|sealed| line_of(Path::new(sealed)).ok());
            of_model.and_then(|line| enrolled(&line)).or(identity.lines().first())
        }
    };
    let refusal = || modelseal::Error::from(modelseal_core::Error::OtherLine);
    Ok(found.map(String::as_str).ok_or_else(refusal)?)
}
