//! A sealed model that is open: all of it, or any part.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use modelseal::directory::Directory;
use modelseal::lazy::LazyModel;
use modelseal::memory::Memory;
use modelseal::open::SealedFile;
use modelseal::tensors::Tensors;
use modelseal::{Error, Result, kind};
use modelseal_core::manifest::Suite;
use modelseal_core::sealed::Header;
use modelseal_hsm::wiped::wiped;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict};

use crate::buffer::{Buffer, Fresh};
use crate::errors::usage;
use crate::vault::Credentials;
use crate::work::{Tick, work};

/// How much is read between two looks at signals.
const STEP: usize = 32 << 20;

/// A sealed model whose manifest has been checked, with what opens it.
#[pyclass(frozen, module = "modelseal")]
pub(crate) struct Sealed {
    path: PathBuf,
    manifest: Manifest,
    /// Absent once it was closed. Whoever reads meanwhile reads to the end.
    reading: Mutex<Option<Arc<Reading>>>,
}

/// Opens the sealed model `path`. Only its manifest and its index are read, and they are authentic.
#[pyfunction]
pub(crate) fn open_sealed(py: Python<'_>, path: PathBuf, credentials: Credentials<'_>) -> PyResult<Sealed> {
    let opener = credentials.opener(py)?;
    work(py, None, 0, |_| {
        let lazy = wiped(|| opener.open(SealedFile::open(&not_a_pipe(&path))?)?.lazily())?;
        Sealed::open(lazy, path, Floor::Own)
    })
}

/// `-` is a file like any other here.
fn not_a_pipe(path: &Path) -> PathBuf {
    if path.as_os_str() == "-" { Path::new(".").join(path) } else { path.to_owned() }
}

impl Sealed {
    pub(crate) fn open(lazy: LazyModel, path: PathBuf, floor: Floor) -> Result<Self> {
        let manifest = Manifest::of(&lazy.header()?);
        Ok(Self::new(path, manifest, Content::Lazy(Box::new(lazy)), floor))
    }

    /// An empty file of a folder, of which `path` and `manifest` are.
    pub(crate) fn empty(path: PathBuf, manifest: Manifest) -> Self {
        Self::new(path, manifest, Content::Empty, Floor::Own)
    }

    fn new(path: PathBuf, manifest: Manifest, content: Content, floor: Floor) -> Self {
        Self { path, manifest, reading: Mutex::new(Some(Arc::new(Reading { content, floor }))) }
    }

    /// Does `read` without the GIL, if the model wasn't closed.
    fn read<T: Send>(
        &self,
        py: Python<'_>,
        progress: Option<&Py<PyAny>>,
        total: u64,
        read: impl FnOnce(&Reading, Tick<'_>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let Some(reading) = self.lock().clone() else {
            return Err(usage(py, "the model is closed", "open it again"));
        };
        work(py, progress, total, |tick| read(&reading, tick))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Reading>>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Sealed {
    #[getter]
    fn path(&self) -> &Path {
        &self.path
    }

    #[getter]
    fn length(&self) -> u64 {
        self.manifest.length
    }

    /// What the manifest says, which its publisher has signed.
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.manifest.to_python(py)
    }

    /// The whole model, in the object that `make(length)` makes: new `bytes`.
    #[pyo3(signature = (make, progress=None))]
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        make: &Bound<'py, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut fresh = Fresh::new(make, self.length())?;
        let bytes = fresh.bytes_mut();
        self.read(py, progress.as_ref(), self.length(), |model, tick| model.read_whole(bytes, tick))?;
        Ok(fresh.finish())
    }

    /// The whole model.
    #[pyo3(signature = (progress=None))]
    fn read_all(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<Buffer> {
        let memory = self.read(py, progress.as_ref(), self.length(), |model, tick| {
            let mut memory = Memory::new(self.length())?;
            model.read_whole(&mut memory, tick)?;
            Ok(memory)
        })?;
        Ok(Buffer::new(memory))
    }

    /// A part of the model, of which only the chunks that it touches are read.
    fn read_at(&self, py: Python<'_>, offset: u64, length: u64) -> PyResult<Buffer> {
        let end = offset.saturating_add(length);
        let memory = self.read(py, None, length, |model, _| model.content.range(offset..end))?;
        Ok(Buffer::new(memory))
    }

    /// Name, dtype, shape, start and length of each tensor of a safetensors model, as they lie, and the metadata.
    fn tensors(&self, py: Python<'_>) -> PyResult<(Vec<Placed>, BTreeMap<String, String>)> {
        self.read(py, None, 0, |model, _| {
            let tensors = model.content.tensors()?;
            let placed = |name: String| {
                let tensor = tensors.get(&name)?;
                let (start, length) = (tensor.bytes.start, tensor.bytes.end - tensor.bytes.start);
                Ok((name, tensor.dtype, tensor.shape, start, length))
            };
            let all = tensors.names().into_iter().map(placed).collect::<Result<_>>()?;
            let metadata = tensors.metadata().map(|(key, value)| (key.to_owned(), value.to_owned()));
            Ok((all, metadata.collect()))
        })
    }

    /// Stores the floor that the grant says: the application has seen the model run. What was read whole is confirmed
    /// already.
    fn confirm(&self, py: Python<'_>) -> PyResult<()> {
        self.read(py, None, 0, |model, _| model.confirm())
    }

    /// From now on nothing can be read. Buffers that were handed out are their holders'.
    fn close(&self) {
        self.lock().take();
    }

    #[getter]
    fn closed(&self) -> bool {
        self.lock().is_none()
    }
}

/// A tensor and its place in the model.
type Placed = (String, String, Vec<usize>, u64, u64);

/// What is read from.
enum Content {
    Lazy(Box<LazyModel>),
    /// Of an empty file of a folder there is no sealed model.
    Empty,
}

impl Content {
    /// Fills `out`, which has the model's length.
    fn read_whole(&self, out: &mut [u8], tick: Tick<'_>) -> Result<()> {
        let Self::Lazy(model) = self else { return Ok(()) };
        let mut done = 0;
        for part in out.chunks_mut(STEP) {
            model.read_at(done, part)?;
            done += part.len() as u64;
            tick(done);
        }
        Ok(())
    }

    fn range(&self, bytes: Range<u64>) -> Result<Memory> {
        match self {
            Self::Lazy(model) => model.range(bytes),
            Self::Empty if bytes.end == 0 => Memory::new(0),
            Self::Empty => Err(Error::usage("the file is empty", "ask for nothing of it")),
        }
    }

    fn tensors(&self) -> Result<Tensors> {
        match self {
            Self::Lazy(model) => Tensors::of(model),
            Self::Empty => Tensors::in_memory(&[]),
        }
    }
}

struct Reading {
    content: Content,
    floor: Floor,
}

/// Whose floor a model's opening raises.
pub(crate) enum Floor {
    /// The model's own.
    Own,
    /// That of the folder in which it is the file of this name, once all of its files have passed.
    Folder(Arc<Directory>, String),
}

impl Reading {
    /// All of it, which is handed out once the floor is stored.
    fn read_whole(&self, out: &mut [u8], tick: Tick<'_>) -> Result<()> {
        self.content.read_whole(out, tick)?;
        match (&self.floor, &self.content) {
            (Floor::Folder(folder, name), Content::Lazy(_)) => folder.passed(name),
            _ => self.confirm(),
        }
    }

    fn confirm(&self) -> Result<()> {
        match (&self.floor, &self.content) {
            (Floor::Folder(folder, _), _) => folder.confirm(),
            (Floor::Own, Content::Lazy(model)) => model.confirm(),
            (Floor::Own, Content::Empty) => Ok(()),
        }
    }
}

/// What a manifest says.
#[derive(Clone)]
pub(crate) struct Manifest {
    id: String,
    line: String,
    version: u64,
    kind: String,
    length: u64,
    created: u64,
    claims: Vec<(String, String)>,
    suite: &'static str,
    chunk_size: u32,
}

impl Manifest {
    pub(crate) fn of(header: &Header<'_>) -> Self {
        let subject = &header.manifest().subject;
        Self {
            id: header.id().to_string(),
            line: subject.line.into(),
            version: subject.version,
            kind: subject.kind.into(),
            length: subject.length,
            created: subject.created,
            claims: subject.claims.iter().map(|claim| (claim.key.into(), claim.value.into())).collect(),
            suite: suite_name(subject.suite),
            chunk_size: header.layout().chunk_size,
        }
    }

    /// The same of an empty file of the folder whose list says this. It is no model of its own, and has no id.
    pub(crate) fn of_empty(&self, name: &str) -> Self {
        let kind = kind::guess(&[], Path::new(name)).into();
        Self { id: String::new(), kind, length: 0, ..self.clone() }
    }

    pub(crate) fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let said = PyDict::new(py);
        said.set_item("id", &self.id)?;
        said.set_item("line", &self.line)?;
        said.set_item("version", self.version)?;
        said.set_item("kind", &self.kind)?;
        said.set_item("length", self.length)?;
        said.set_item("created", self.created)?;
        said.set_item("claims", self.claims.clone().into_py_dict(py)?)?;
        said.set_item("suite", self.suite)?;
        said.set_item("chunk_size", self.chunk_size)?;
        Ok(said)
    }
}

pub(crate) const SUITES: [(&str, Suite); 2] =
    [("aes-256-gcm", Suite::Aes256Gcm), ("chacha20-poly1305", Suite::ChaCha20Poly1305)];

fn suite_name(suite: Suite) -> &'static str {
    SUITES.iter().find(|(_, known)| *known == suite).map_or("", |(name, _)| name)
}
