//! Opened models.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;

use modelseal::directory::Directory;
use modelseal::io::Folder;
use modelseal::kind;
use modelseal::lazy::LazyModel;
use modelseal::memory::Memory;
use modelseal::open::SealedFile;
use modelseal::opener::Opening;

use crate::error::{Error, c_string, report};
use crate::foreign::{buffer, give_away, guarded, reference, store, take_back};
use crate::options::{Named, Options};

type Result<T> = std::result::Result<T, modelseal::Error>;

/// An opened model. It never changes, and its memory is wiped when it is freed.
pub struct Model {
    data: Data,
    length: u64,
    line: CString,
    version: u64,
    kind: CString,
    created: u64,
    id: CString,
    claims: Vec<(CString, CString)>,
    /// The folder that it is a file of.
    folder: Option<Box<Directory>>,
}

enum Data {
    Whole(Memory),
    Lazy(Box<LazyModel>),
    /// An empty file of a folder.
    Empty,
}

/// A model may be used from several threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Model>();
};

impl Model {
    fn open(named: &Named<'_>) -> Result<Self> {
        let Some(file) = named.file else {
            return Self::read(named.opener.open(SealedFile::open(named.path)?)?, named.lazy);
        };
        let directory = Directory::open(Folder::open(named.path)?, &named.opener)?;
        let member = directory.open_file(file)?;
        directory.require_complete_but(&[file])?;
        let mut model = match member.begin()? {
            Some(opening) => Self::read(opening, named.lazy)?,
            None => Self::empty(&directory, file)?,
        };
        model.folder = Some(Box::new(directory));
        Ok(model)
    }

    fn read(opening: Opening, lazy: bool) -> Result<Self> {
        if lazy {
            let model = opening.lazily()?;
            let length = model.len();
            let described = Self::described(&model.header()?, Data::Empty, length);
            return Ok(Self { data: Data::Lazy(Box::new(model)), ..described });
        }
        let (memory, opened) = opening.into_memory(&mut |_| ())?;
        let length = memory.len() as u64;
        Ok(Self::described(&opened.header()?, Data::Whole(memory), length))
    }

    /// What is open whole was confirmed when it was opened. A part, or a file of a folder, is when its caller says so.
    fn confirm(&self) -> Result<()> {
        if let Some(folder) = &self.folder {
            folder.confirm()?;
        }
        match &self.data {
            Data::Lazy(model) => model.confirm(),
            Data::Whole(_) | Data::Empty => Ok(()),
        }
    }

    /// Line, version and claims are the folder's. It is no model of its own, and has no id.
    fn empty(directory: &Directory, file: &str) -> Result<Self> {
        let list = Self::described(&directory.header()?, Data::Empty, 0);
        let kind = c_string(kind::guess(&[], Path::new(file)));
        Ok(Self { kind, id: CString::default(), ..list })
    }

    fn described(header: &modelseal_core::sealed::Header<'_>, data: Data, length: u64) -> Self {
        let subject = &header.manifest().subject;
        let claims = subject.claims.iter().map(|claim| (c_string(claim.key), c_string(claim.value)));
        Self {
            data,
            length,
            line: c_string(subject.line),
            version: subject.version,
            kind: c_string(subject.kind),
            created: subject.created,
            id: c_string(&header.id().to_string()),
            claims: claims.collect(),
            folder: None,
        }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.length);
        let Some(end) = end else {
            let what = format!("{} bytes from {offset} on aren't in a model of {}", out.len(), self.length);
            return Err(modelseal::Error::usage(what, "read within modelseal_length"));
        };
        match &self.data {
            Data::Lazy(model) => model.read_at(offset, out),
            Data::Empty => Ok(()),
            Data::Whole(memory) => {
                let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
                let from = range.and_then(|(start, end)| memory.get(start..end)).unwrap_or_default();
                out.copy_from_slice(from);
                Ok(())
            }
        }
    }
}

/// Opens a model. On success `*model` is it, to be freed with `modelseal_model_free`; on failure `*model` is NULL, the
/// code is returned, and `*error` says more, to be freed with `modelseal_error_free`. `error` may be NULL.
///
/// Unless `lazy` is set, every byte has been checked when this returns. With a grant, its floor has been stored then,
/// unless `no_confirm` is set. The floor of a model that is opened lazily, or of a folder of which this is one file, is
/// stored by `modelseal_confirm`.
///
/// The calling thread needs 256 KiB of stack for this and for `modelseal_read_at`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_open(
    options: *const Options,
    model: *mut *mut Model,
    error: *mut *mut Error,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { store(model, std::ptr::null_mut()) };
    let opened = guarded(|| {
        if model.is_null() {
            return Err(modelseal::Error::usage("model is NULL", "say where it goes"));
        }
        // SAFETY: the caller's promise.
        let options = unsafe { Options::copy(options)? };
        // SAFETY: likewise.
        let named = unsafe { options.read()? };
        Model::open(&named)
    });
    // SAFETY: the caller's promise, for `model` and `error`.
    unsafe { report(opened.map(|opened| store(model, give_away(opened))), error) }
}

/// The whole model, `modelseal_length` bytes, until it is freed; NULL if it was opened lazily or is empty. Nobody may
/// write there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_data(model: *const Model) -> *const c_void {
    // SAFETY: the caller's promise; a model never changes.
    match unsafe { reference(model) }.map(|model| &model.data) {
        Some(Data::Whole(memory)) => memory.as_ptr().cast(),
        _ => std::ptr::null(),
    }
}

/// The model's length in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_length(model: *const Model) -> u64 {
    // SAFETY: the caller's promise; a model never changes.
    unsafe { reference(model) }.map_or(0, |model| model.length)
}

/// Copies `length` bytes of the model, from `offset` on, into `out`, and returns the code; on failure `out` may have been
/// overwritten, with nothing that didn't pass. `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_read_at(
    model: *const Model,
    offset: u64,
    out: *mut c_void,
    length: usize,
    error: *mut *mut Error,
) -> i32 {
    let read = guarded(|| {
        // SAFETY: the caller's promise, for both.
        let (model, out) = unsafe { (reference(model), buffer(out.cast(), length)) };
        let (Some(model), Some(out)) = (model, out) else {
            return Err(modelseal::Error::usage("model or out is NULL", "give both"));
        };
        model.read_at(offset, out)
    });
    // SAFETY: the caller's promise.
    unsafe { report(read, error) }
}

/// The model's line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_line(model: *const Model) -> *const c_char {
    // SAFETY: the caller's promise; a model never changes.
    unsafe { reference(model) }.map_or(std::ptr::null(), |model| model.line.as_ptr())
}

/// The model's version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_version(model: *const Model) -> u64 {
    // SAFETY: the caller's promise; a model never changes.
    unsafe { reference(model) }.map_or(0, |model| model.version)
}

/// What the model is, such as "onnx".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_kind(model: *const Model) -> *const c_char {
    // SAFETY: the caller's promise; a model never changes.
    unsafe { reference(model) }.map_or(std::ptr::null(), |model| model.kind.as_ptr())
}

/// When it was sealed, in seconds since 1970-01-01 UTC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_created(model: *const Model) -> u64 {
    // SAFETY: the caller's promise; a model never changes.
    unsafe { reference(model) }.map_or(0, |model| model.created)
}

/// The model's id, in hexadecimal. An empty file of a folder has none: it is "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_id(model: *const Model) -> *const c_char {
    // SAFETY: the caller's promise; a model never changes.
    unsafe { reference(model) }.map_or(std::ptr::null(), |model| model.id.as_ptr())
}

/// What is claimed of the model under `key`, such as "licence"; NULL if nothing is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_claim(model: *const Model, key: *const c_char) -> *const c_char {
    // SAFETY: the caller's promise, for both; a model never changes.
    let (model, key) = unsafe { (reference(model), crate::foreign::text(key, "key")) };
    let (Some(model), Ok(Some(key))) = (model, key) else { return std::ptr::null() };
    let found = model.claims.iter().find(|(known, _)| known.to_bytes() == key.as_bytes());
    found.map_or(std::ptr::null(), |(_, value)| value.as_ptr())
}

/// Stores the floor that the grant says: the application has seen the model run, and older versions needn't open any
/// more. Call it after all that is wanted of the model, or of the folder, has been read. What was opened whole is
/// confirmed already. The second time it does nothing. Returns the code; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_confirm(model: *const Model, error: *mut *mut Error) -> i32 {
    let confirmed = guarded(|| {
        // SAFETY: the caller's promise; a model never changes.
        let model = unsafe { reference(model) };
        model.ok_or_else(|| modelseal::Error::usage("model is NULL", "give one"))?.confirm()
    });
    // SAFETY: the caller's promise.
    unsafe { report(confirmed, error) }
}

/// Frees a model and wipes its memory; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_model_free(model: *mut Model) {
    // SAFETY: the caller's promise.
    unsafe { take_back(model) };
}
