//! A folder of grants: `DEVICE-ID.grant` for each device. Each file is complete whenever it has its name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use modelseal_core::grant::{DeviceId, GRANT_MAX, Grant, Terms, Wrapping};
use modelseal_core::sign::Publisher;

use crate::error::{Error, Result};
use crate::files::{self, Access, Existing, Output};
use crate::fleet::{Made, Recipient, Store};
use crate::registry::{Device, DeviceKeyKind};

/// Where a fleet's grants go.
pub struct Folder<'a> {
    dir: &'a Path,
    inputs: Vec<PathBuf>,
    /// The keys that signed what may be kept; `None` keeps nothing.
    publisher: Option<Publisher>,
}

impl<'a> Folder<'a> {
    /// The folder `dir`, made if it isn't there, in which none of `inputs` is replaced. Grants that are there and fit
    /// are kept: those for an X25519 key if `publisher` signed them, those for a device key by their terms. What else
    /// there is to check of the latter would cost the same two CMACs as making them again.
    pub fn new(dir: &'a Path, inputs: &[&Path], publisher: Option<Publisher>) -> Result<Self> {
        files::create_dir(dir)?;
        Ok(Self { dir, inputs: inputs.iter().map(|input| files::place(input)).collect(), publisher })
    }

    /// Refuses recipients whose grants would be one file, where the file system takes upper and lower case for the
    /// same.
    pub fn require_distinct(&self, recipients: &[Recipient<'_>]) -> Result<()> {
        let mut folded = HashMap::with_capacity(recipients.len());
        for (id, _) in recipients {
            if let Some(other) = folded.insert(id.as_str().to_ascii_lowercase(), *id)
                && files::folds_case(self.dir)?
            {
                let what = format!("{} and {} would be one file there", other.as_str(), id.as_str());
                return Err(Error::usage(what, "grant to them into different folders").about(self.dir));
            }
        }
        Ok(())
    }

    fn path(&self, id: DeviceId<'_>) -> PathBuf {
        self.dir.join(format!("{}.grant", id.as_str()))
    }
}

impl Store for Folder<'_> {
    fn has(&self, terms: &Terms<'_>, device: &Device) -> Result<bool> {
        let path = self.path(terms.device);
        let Ok(metadata) = path.metadata() else { return Ok(false) };
        let inputs: Vec<_> = self.inputs.iter().map(PathBuf::as_path).collect();
        files::protect(&path, &inputs)?;
        match &self.publisher {
            Some(publisher) if metadata.is_file() && metadata.len() <= GRANT_MAX as u64 => {
                let bytes = files::read_if_there(&path, GRANT_MAX as u64)?;
                Ok(bytes.is_some_and(|bytes| fits(&bytes, terms, device, publisher)))
            }
            _ => Ok(false),
        }
    }

    fn put(&self, grants: &[Made<'_>]) -> Result<()> {
        let mut outputs = Vec::with_capacity(grants.len());
        for (id, bytes) in grants {
            let mut output = Output::create(&self.path(*id), Access::Public, Existing::Replace)?;
            output.write(bytes)?;
            outputs.push(output);
        }
        files::commit_all(self.dir, outputs)
    }
}

/// Whether the grant is whole, of these terms, wrapped as the device is enrolled and, where it has one, with the
/// publisher's signature.
fn fits(bytes: &[u8], terms: &Terms<'_>, device: &Device, publisher: &Publisher) -> bool {
    let Ok(grant) = Grant::parse(bytes) else { return false };
    if grant.terms() != terms {
        return false;
    }
    match (grant.wrapping(), &device.key) {
        (Wrapping::DeviceKey { .. }, DeviceKeyKind::Fleet(_)) => true,
        (Wrapping::Hpke { .. }, DeviceKeyKind::X25519(_)) => grant.verify(publisher).is_ok(),
        _ => false,
    }
}
