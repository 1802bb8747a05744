//! Sealing a file, a folder, or what is in memory.

use std::path::{Path, PathBuf};

use modelseal::io::Folder;
use modelseal::io::protect::{Protected, protect};
use modelseal::opener::now;
use modelseal::profile::Profile;
use modelseal::seal::{self, Model, Sealed};
use modelseal::{Error, Result, directory, fernet, kind};
use modelseal_core::manifest::{Claim, Claims, Subject, Suite};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice};

use crate::buffer::Fresh;
use crate::errors::exception;
use crate::model::SUITES;
use crate::vault::{keys, vault_location};
use crate::work::{Tick, or_unwind, work};

/// What is said of a model, and who says it.
#[derive(FromPyObject)]
pub(crate) struct Release<'py> {
    line: String,
    version: u64,
    kind: Option<String>,
    suite: String,
    profile: String,
    claims: Vec<(String, String)>,
    vault: Option<Bound<'py, PyAny>>,
    passphrase: Option<String>,
    progress: Option<Py<PyAny>>,
}

/// The same, checked as far as it can be without the model.
struct Said {
    line: String,
    version: u64,
    kind: Option<String>,
    suite: Suite,
    profile: Profile,
    claims: Vec<(String, String)>,
}

impl Said {
    fn subject<'a>(&'a self, guessed: &'a str, length: u64) -> Result<Subject<'a>> {
        let (chunk_log2, align_log2) = self.profile.logs(length);
        let subject = Subject {
            suite: self.suite,
            chunk_log2,
            align_log2,
            line: &self.line,
            version: self.version,
            kind: self.kind.as_deref().unwrap_or(guessed),
            length,
            created: now().unwrap_or(0),
            claims: self.claims()?,
        };
        seal::check(&subject)?;
        Ok(subject)
    }

    fn claims(&self) -> Result<Claims<'_>> {
        let mut claims: Vec<_> = self.claims.iter().map(|(key, value)| Claim { key, value }).collect();
        claims.sort_by_key(|claim| claim.key);
        let too_many = |_| Error::usage(format!("{} claims are too many", claims.len()), "make at most 8");
        Claims::from_slice(&claims).map_err(too_many)
    }
}

impl Release<'_> {
    /// Says it, opens the vault and does `seal`, unless `out` would replace what mustn't be.
    fn seal<T: Send>(
        self,
        py: Python<'_>,
        inputs: &[&Path],
        out: &Path,
        total: u64,
        seal: impl FnOnce(&dyn modelseal_hsm::Vault, &Said, Tick<'_>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let location = vault_location(py, self.vault.as_ref())?;
        let said = Said {
            suite: choose(&SUITES, "suite", &self.suite).map_err(|error| exception(py, &error))?,
            profile: choose(&PROFILES, "profile", &self.profile).map_err(|error| exception(py, &error))?,
            line: self.line,
            version: self.version,
            kind: self.kind,
            claims: self.claims,
        };
        protect(out, inputs, location.as_ref())
            .and_then(|()| said.subject("bytes", 1).map(drop))
            .map_err(|error| exception(py, &error))?;
        let vault = keys(py, self.vault.as_ref(), self.passphrase)?;
        work(py, self.progress.as_ref(), total, |tick| seal(&*vault, &said, tick))
    }
}

/// Chunk size and alignment as powers of two.
const PROFILES: [(&str, Profile); 2] = [("host", Profile::Host), ("device", Profile::Device)];

fn choose<T: Copy>(known: &[(&str, T)], what: &str, name: &str) -> Result<T> {
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("there is no {what} {name:?}"), format!("give {}", names.join(" or ")))
    })
}

/// Seals the file `model`.
#[pyfunction]
pub(crate) fn seal_file(
    py: Python<'_>,
    model: PathBuf,
    out: PathBuf,
    release: Release<'_>,
) -> PyResult<Made> {
    let protected = Protected::secrets(vault_location(py, release.vault.as_ref())?.as_ref());
    let input = Model::open(&model, &protected).and_then(Model::require_bytes);
    let input = input.map_err(|error| exception(py, &error))?;
    let length = input.length();
    let made = release.seal(py, &[&model], &out, length, |vault, said, tick| {
        seal::seal(vault, &input, said.subject(input.kind()?, length)?, &out, tick)
    });
    made.map(|sealed| of(&sealed))
}

/// Seals every file below the folder `folder` into the new folder `out`.
#[pyfunction]
pub(crate) fn seal_folder(
    py: Python<'_>,
    folder: PathBuf,
    out: PathBuf,
    release: Release<'_>,
) -> PyResult<Made> {
    let protected = Protected::secrets(vault_location(py, release.vault.as_ref())?.as_ref());
    let opened = Folder::open(&folder).and_then(|folder| Ok((directory::length(&folder)?, folder)));
    let (length, files) = opened.map_err(|error| exception(py, &error))?;
    let made = release.seal(py, &[&folder], &out, length, |vault, said, tick| {
        let subject = said.subject(modelseal::list::KIND, 1)?;
        let release = directory::Release {
            line: subject.line,
            version: subject.version,
            suite: subject.suite,
            profile: said.profile,
            claims: subject.claims.clone(),
        };
        directory::seal(vault, &files, &protected, &release, &out, tick)
    });
    made.map(|sealed| (sealed.id.to_string(), sealed.length))
}

/// Seals what is in `parts`, which are flat views of bytes, one after the other.
#[pyfunction]
pub(crate) fn seal_buffers(
    py: Python<'_>,
    parts: Vec<Bound<'_, PyAny>>,
    out: PathBuf,
    release: Release<'_>,
) -> PyResult<Made> {
    let head = head(py, &parts)?;
    let mut source = Source::new(parts)?;
    let length = source.length;
    if length == 0 {
        return Err(exception(py, &Error::usage("the model is empty", "give its bytes")));
    }
    let made = release.seal(py, &[], &out, length, |vault, said, tick| {
        let mut next = |room: &mut [u8]| {
            or_unwind(Python::attach(|py| source.fill(py, room)));
            tick(source.done);
            Ok(())
        };
        seal::seal_from(vault, &mut next, said.subject(kind::guess(&head, Path::new("")), length)?, &out)
    });
    made.map(|sealed| of(&sealed))
}

/// The id of what was sealed, and its length.
type Made = (String, u64);

fn of(sealed: &Sealed) -> Made {
    (sealed.id.to_string(), sealed.length)
}

/// What tells the kind.
fn head(py: Python<'_>, parts: &[Bound<'_, PyAny>]) -> PyResult<Vec<u8>> {
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let head = first.get_item(PySlice::new(py, 0, kind::HEAD_LEN.cast_signed(), 1))?;
    PyBuffer::<u8>::get(&head)?.to_vec(py)
}

/// Views of bytes, taken one after the other. They may be written meanwhile, so each piece is copied with the GIL held.
struct Source {
    parts: std::vec::IntoIter<Py<PyAny>>,
    part: Option<(Py<PyAny>, usize)>,
    at: usize,
    length: u64,
    done: u64,
}

impl Source {
    fn new(parts: Vec<Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut length = 0;
        for part in &parts {
            length += part.len()? as u64;
        }
        let parts: Vec<_> = parts.into_iter().map(Bound::unbind).collect();
        Ok(Self { parts: parts.into_iter(), part: None, at: 0, length, done: 0 })
    }

    /// Fills `room`, of which all is there.
    fn fill(&mut self, py: Python<'_>, mut room: &mut [u8]) -> PyResult<()> {
        while !room.is_empty() {
            let Some((part, len)) = &self.part else {
                let next = self.parts.next().ok_or_else(|| PyValueError::new_err("a view became shorter"))?;
                let len = next.bind(py).len()?;
                (self.part, self.at) = (Some((next, len)), 0);
                continue;
            };
            let (now, later) = room.split_at_mut(room.len().min(len - self.at));
            let piece = PySlice::new(py, self.at.cast_signed(), (self.at + now.len()).cast_signed(), 1);
            PyBuffer::<u8>::get(&part.bind(py).get_item(piece)?)?.copy_to_slice(py, now)?;
            self.at += now.len();
            self.done += now.len() as u64;
            if self.at == *len {
                self.part = None;
            }
            room = later;
        }
        Ok(())
    }
}

/// What the Fernet token in the file `path` holds, in the object that `make(length)` makes, and its kind. Neither the
/// token nor the key is to be replaced by `out`.
#[pyfunction]
pub(crate) fn read_fernet<'py>(
    py: Python<'py>,
    path: PathBuf,
    key: Option<PathBuf>,
    text: Option<&[u8]>,
    out: PathBuf,
    make: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyBytes>, &'static str)> {
    let inputs: Vec<_> = [Some(&path), key.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
    protect(&out, &inputs, None).map_err(|error| exception(py, &error))?;
    let opened = work(py, None, 0, |_| {
        let key = match (&key, text) {
            (Some(path), _) => fernet::Key::read(path)?,
            (None, text) => fernet::Key::parse(text.unwrap_or_default()).ok_or_else(not_a_key)?,
        };
        let opened = fernet::open_file(&path, &key)?;
        if opened.bytes().is_empty() {
            return Err(Error::usage("it holds nothing", "name a model's file").about(&path));
        }
        Ok(opened)
    })?;
    let mut fresh = Fresh::new(make, opened.bytes().len() as u64)?;
    fresh.bytes_mut().copy_from_slice(opened.bytes());
    // Often, a name such as model.onnx.enc.
    let kind = kind::guess(opened.bytes(), &path.with_extension(""));
    Ok((fresh.finish(), kind))
}

fn not_a_key() -> Error {
    Error::malformed(Path::new("the key"), "a Fernet key, which is 32 bytes in base64url")
        .with_hint("give all of its 44 characters, or the path of a file that has them")
}
