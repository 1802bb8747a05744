//! A folder of grants: `DEVICE-ID.grant` for each device, or `DEVICE-ID/NAME.grant` for one file of a sealed folder. Each
//! file is complete whenever it has its name.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelseal_core::grant::{DeviceId, GRANT_MAX};

use crate::error::{Error, Result};
use crate::files::{self, Access, Existing, Output, parent};
use crate::fleet::{Made, Recipient, Store};
use crate::io::protect::Protected;
use crate::io::{Folder, name};

/// Where a fleet's grants go.
pub struct GrantFolder {
    folder: Arc<Folder>,
    protected: Protected,
    keep: bool,
    /// The grant's name in the device's own folder, if it has one.
    name: Option<String>,
}

impl GrantFolder {
    /// The folder `dir`, made if it isn't there, in which nothing of `protected` is replaced. With `keep`, grants that
    /// are there may be kept.
    pub fn new(dir: &Path, protected: Protected, keep: bool) -> Result<Self> {
        Ok(Self { folder: Arc::new(files::open_or_make_dir(dir)?), protected, keep, name: None })
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
                && files::folds_case(&self.folder)?
            {
                let what = format!("{} and {} would be one file there", other.as_str(), id.as_str());
                return Err(
                    Error::usage(what, "grant to them into different folders").about(self.folder.path())
                );
            }
        }
        Ok(())
    }

    fn path(&self, id: DeviceId<'_>) -> Result<PathBuf> {
        Ok(match &self.name {
            Some(grant) => Path::new(&name::of_device(id, "")?).join(grant),
            None => name::of_device(id, ".grant")?.into(),
        })
    }

    /// Begins the grant at `path`, in the folder itself or in a device's own.
    fn output(&self, path: &Path) -> Result<Output> {
        let name = Path::new(path.file_name().unwrap_or(path.as_os_str()));
        if name == path {
            return Output::create_in(&self.folder, name, Access::Public, Existing::Replace);
        }
        let own = Arc::new(self.folder.make(parent(path), false)?);
        Output::create_in(&own, name, Access::Public, Existing::Replace)
    }
}

impl Store for GrantFolder {
    /// What is there is looked at in any case: not everything may be replaced.
    fn stored(&self, device: DeviceId<'_>) -> Result<Option<Vec<u8>>> {
        let path = self.path(device)?;
        if !self.folder.has(&path) {
            return Ok(None);
        }
        self.protected.require_other(&self.folder.shown(&path))?;
        let mut bytes = Vec::new();
        // A link that leads elsewhere is replaced.
        if self.keep
            && let Ok(Some(file)) = self.folder.file(&path)
        {
            let read = file.take(GRANT_MAX as u64 + 1).read_to_end(&mut bytes);
            read.map_err(|error| Error::io(&self.folder.shown(&path), &error))?;
        }
        Ok((1..=GRANT_MAX).contains(&bytes.len()).then_some(bytes))
    }

    fn put(&self, grants: &[Made<'_>]) -> Result<()> {
        let mut outputs = Vec::with_capacity(grants.len());
        for (id, bytes) in grants {
            let mut output = self.output(&self.path(*id)?)?;
            output.write(bytes)?;
            outputs.push(output);
        }
        files::commit_all(&self.folder, outputs)
    }
}
