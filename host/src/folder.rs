//! A folder of grants: `DEVICE-ID.grant` for each device, or `DEVICE-ID/NAME.grant` for one file of a sealed folder. Each
//! file is complete whenever it has its name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use modelseal_core::grant::{DeviceId, GRANT_MAX};

use crate::error::{Error, Result};
use crate::files::{self, Access, Existing, Output};
use crate::fleet::{Made, Recipient, Store};

/// Where a fleet's grants go.
pub struct Folder<'a> {
    dir: &'a Path,
    inputs: Vec<PathBuf>,
    keep: bool,
    /// The grant's name in the device's own folder, if it has one.
    name: Option<String>,
}

impl<'a> Folder<'a> {
    /// The folder `dir`, made if it isn't there, in which none of `inputs` is replaced. With `keep`, grants that are
    /// there may be kept.
    pub fn new(dir: &'a Path, inputs: &[&Path], keep: bool) -> Result<Self> {
        files::create_dir(dir)?;
        Ok(Self { dir, inputs: inputs.iter().map(|input| files::place(input)).collect(), keep, name: None })
    }

    /// From now on for this grant of each device's own folder.
    pub fn within_devices(&mut self, name: String) {
        self.name = Some(name);
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
        match &self.name {
            Some(name) => self.dir.join(id.as_str()).join(name),
            None => self.dir.join(format!("{}.grant", id.as_str())),
        }
    }
}

impl Store for Folder<'_> {
    /// What is there is looked at in any case: not everything may be replaced.
    fn stored(&self, device: DeviceId<'_>) -> Result<Option<Vec<u8>>> {
        let path = self.path(device);
        let Ok(metadata) = path.metadata() else { return Ok(None) };
        let inputs: Vec<_> = self.inputs.iter().map(PathBuf::as_path).collect();
        files::protect(&path, &inputs)?;
        if self.keep && metadata.is_file() && metadata.len() <= GRANT_MAX as u64 {
            files::read_if_there(&path, GRANT_MAX as u64)
        } else {
            Ok(None)
        }
    }

    fn put(&self, grants: &[Made<'_>]) -> Result<()> {
        let mut outputs = Vec::with_capacity(grants.len());
        for (id, bytes) in grants {
            let path = self.path(*id);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
            }
            let mut output = Output::create(&path, Access::Public, Existing::Replace)?;
            output.write(bytes)?;
            outputs.push(output);
        }
        files::commit_all(self.dir, outputs)
    }
}
