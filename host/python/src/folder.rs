//! A sealed folder that is open: its files, each of which is opened when it is asked for.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use modelseal::Result;
use modelseal::directory::{Directory, LIST_NAME};
use modelseal_core::open::Confirmation;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::model::{Manifest, Sealed};
use crate::vault::Credentials;
use crate::work::work;

/// A sealed folder: its list has been opened, and none of its files yet.
#[pyclass(frozen, module = "modelseal")]
pub(crate) struct Folder {
    path: PathBuf,
    manifest: Manifest,
    directory: Directory,
    /// Whose floor is still to be stored.
    confirmation: Mutex<Option<Confirmation>>,
}

/// Opens the list of the sealed folder `path`, in which nothing may be missing or one too many.
#[pyfunction]
pub(crate) fn open_folder(py: Python<'_>, path: PathBuf, credentials: Credentials<'_>) -> PyResult<Folder> {
    let opener = credentials.opener(py)?;
    work(py, None, 0, |_| {
        let (directory, confirmation) = Directory::open(&path, &opener)?;
        directory.require_complete()?;
        let manifest = Manifest::of(&directory.header()?);
        Ok(Folder { path, manifest, directory, confirmation: Mutex::new(Some(confirmation)) })
    })
}

#[pymethods]
impl Folder {
    /// What the list's manifest says, which is said of every file.
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.manifest.to_python(py)
    }

    /// Paths and lengths of the files.
    fn files(&self) -> Vec<(String, u64)> {
        self.directory.files().iter().map(|entry| (entry.path.clone(), entry.length)).collect()
    }

    /// Opens one of the files. An empty one has no sealed model: it stands in the list alone.
    fn open(&self, py: Python<'_>, name: &str) -> PyResult<Sealed> {
        work(py, None, 0, |_| {
            let (sealed, opener) = self.directory.open_file(name)?.into_parts();
            let opened = match sealed {
                Some(sealed) => {
                    Sealed::open(sealed, self.path.join(format!("{name}.sealed")), &opener, false)?
                }
                None => Sealed::empty(self.path.join(LIST_NAME), self.manifest.of_empty(name)),
            };
            self.confirm()?;
            Ok(opened)
        })
    }
}

impl Folder {
    /// Stores the floor before the first file is handed out.
    fn confirm(&self) -> Result<()> {
        let confirmation = self.confirmation.lock().unwrap_or_else(PoisonError::into_inner).take();
        confirmation.map_or(Ok(()), |confirmation| self.directory.confirm(confirmation))
    }
}
