//! What the program was asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use modelseal_core::Error;
use modelseal_core::sealed::{Header, PREFIX_LEN, Prefix};

use crate::failure::Failure;
use crate::identity::Identity;

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

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| format!("--{name} isn't a number").into())
    }

    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        Identity::read(Path::new(self.require("identity")?))
    }
}

/// The line of a sealed model, whoever made it: what opens it is for the board to check.
fn line_of(sealed: &Path) -> Result<String, Failure> {
    let mut file = File::open(sealed)?;
    let mut prefix = [0; PREFIX_LEN];
    file.read_exact(&mut prefix)?;
    let mut header = vec![0; Prefix::parse(&prefix)?.header_len()];
    let (front, manifest) = header.split_first_chunk_mut().ok_or(Error::Truncated)?;
    *front = prefix;
    file.read_exact(manifest)?;
    Ok(Header::parse(&header)?.manifest().subject.line.to_owned())
}

/// The line that was asked for; else the model's, if the device is enrolled for it; else the device's first.
pub(crate) fn line<'i>(identity: &'i Identity, options: &Options) -> Result<&'i str, Failure> {
    let enrolled = |line: &str| identity.lines.iter().find(|enrolled| *enrolled == line);
    let found = match options.get("line") {
        Some(wanted) => enrolled(wanted),
        None => {
            let of_model = options.get("sealed").and_then(|sealed| line_of(Path::new(sealed)).ok());
            of_model.and_then(|line| enrolled(&line)).or(identity.lines.first())
        }
    };
    Ok(found.ok_or(Error::OtherLine)?)
}
