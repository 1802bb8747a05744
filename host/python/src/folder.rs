//! A sealed folder that is open: its files, each of which is opened when it is asked for.

use std::path::PathBuf;
use std::sync::Arc;

use modelseal::directory::{Directory, LIST_NAME};
use modelseal_hsm::wiped::wiped;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::model::{Floor, Manifest, Sealed};
use crate::vault::Credentials;
use crate::work::work;

/// A sealed folder: its list has been opened, and none of its files yet.
#[pyclass(frozen, module = "modelseal")]
pub(crate) struct Folder {
    path: PathBuf,
    manifest: Manifest,
    directory: Arc<Directory>,
}

/// Opens the list of the sealed folder `path`, in which nothing may be missing or one too many.
#[pyfunction]
pub(crate) fn open_folder(py: Python<'_>, path: PathBuf, credentials: Credentials<'_>) -> PyResult<Folder> {
    let opener = credentials.opener(py)?;
    work(py, None, 0, |_| {
        let directory = Directory::open(modelseal::io::Folder::open(&path)?, &opener)?;
        directory.require_complete()?;
        let manifest = Manifest::of(&directory.header()?);
        Ok(Folder { path, manifest, directory: Arc::new(directory) })
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
            Ok(match self.directory.open_file(name)?.begin()? {
                Some(opening) => {
                    let floor = Floor::Folder(Arc::clone(&self.directory), name.to_owned());
                    let lazy = wiped(|| opening.lazily())?;
                    Sealed::open(lazy, self.path.join(format!("{name}.sealed")), floor)?
                }
                None => Sealed::empty(self.path.join(LIST_NAME), self.manifest.of_empty(name)),
            })
        })
    }

    /// Stores the floor that the list's grant says: the application has seen the models run.
    fn confirm(&self, py: Python<'_>) -> PyResult<()> {
        work(py, None, 0, |_| self.directory.confirm())
    }
}
