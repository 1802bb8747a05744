//! Model file -> sealed model, and sealed model -> sealed anew, in one pass and little memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use getrandom::SysRng;
use modelseal_core::Error as Refusal;
use modelseal_core::manifest::{LENGTH_MAX, MANIFEST_MAX, Subject, Suite};
use modelseal_core::seal::{Sealing, Seat};
use modelseal_core::sealed::{ENTRY_LEN, Entry, Header, Layout, ModelId, SLOTS_DEFAULT};
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use rand_core::UnwrapErr;

use crate::cipher::{Backend, Cipher};
use crate::error::{Code, Error, Result};
use crate::files::{Access, Existing, Output, read_exact_at};
use crate::io::Input;
use crate::io::protect::Protected;
use crate::kind;
use crate::list;
use crate::memory::Buffer;
use crate::open::SealedFile;
use crate::whole::{Units, unit_len};
use crate::work::in_order;

/// How many bytes are read, sealed and written at a time. A multiple of every chunk size.
const BATCH: usize = 1 << 20;

/// A model that was sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The name by which grants know it.
    pub id: ModelId,
    /// Length of the sealed file in bytes.
    pub length: u64,
}

/// Called with the number of bytes done.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// A model's file that is to be sealed: opened once, and looked at through the handle.
pub struct Model {
    file: File,
    /// For messages, and for guessing the kind.
    path: PathBuf,
    length: u64,
}

impl Model {
    /// Opens `path`. It must be a file: the manifest comes before what it commits to. None of `protected` is sealed.
    pub fn open(path: &Path, protected: &Protected) -> Result<Self> {
        match Input::open(path)? {
            Input::File(file) => Self::of(file, path, protected),
            Input::Folder(_) | Input::Stream(_) => Err(Self::not_a_file(path)),
        }
    }

    /// Why what is at `path` can't be sealed.
    pub(crate) fn not_a_file(path: &Path) -> Error {
        let hint = "write the model to a file first: its manifest comes before what it commits to";
        Error::usage(format!("{} isn't a file", path.display()), hint)
    }

    /// The file that was opened at `path`.
    pub fn of(file: File, path: &Path, protected: &Protected) -> Result<Self> {
        let length = file.metadata().map_err(|error| Error::io(path, &error))?.len();
        protected.require_no_secret(&file, path)?;
        Ok(Self { file, path: path.to_owned(), length })
    }

    /// Refuses an empty one, of which there is no sealed model.
    pub fn require_bytes(self) -> Result<Self> {
        match self.length {
            0 => Err(Error::usage(format!("{} is empty", self.path.display()), "name the model's file")),
            1..=LENGTH_MAX => Ok(self),
            _ => Err(Error::usage(format!("{} is too long", self.path.display()), "seal it in parts")),
        }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What it is, as far as its first bytes and its name tell.
    pub fn kind(&self) -> Result<&'static str> {
        let mut head = [0; kind::HEAD_LEN];
        let len = usize::try_from(self.length).map_or(kind::HEAD_LEN, |len| len.min(kind::HEAD_LEN));
        let (head, _) = head.split_at_mut(len);
        read_exact_at(&self.file, head, 0).map_err(|error| changed(&self.path, &error))?;
        Ok(kind::guess(head, &self.path))
    }
}

/// Refuses what no manifest could say, with what to do about it.
pub fn check(subject: &Subject<'_>) -> Result<()> {
    subject.check().map_err(|error| {
        let hint = match error {
            Refusal::Claims => {
                "keys are 1 to 32 of a-z 0-9 . _ -, each once; values at most 128 bytes without control characters or format controls"
            }
            _ => "names are of a-z 0-9 . _ -",
        };
        Error::from(error).as_usage().with_hint(hint)
    })?;
    match subject.manifest_len().checked_sub(MANIFEST_MAX) {
        Some(over @ 1..) => {
            let what =
                format!("the manifest would be {over} bytes longer than the {MANIFEST_MAX} it may have");
            Err(Error::usage(what, "make fewer or shorter claims"))
        }
        _ => Ok(()),
    }
}

/// (14.1) Nothing but a folder's list is sealed as one.
fn require_model(subject: &Subject<'_>) -> Result<()> {
    if subject.kind == list::KIND {
        let what = format!("the kind {} is that of a folder's list", list::KIND);
        return Err(Error::usage(what, "seal the folder itself, or name another kind"));
    }
    Ok(())
}

/// What `seal` made is at `out` once all of it is written.
fn into_file(out: &Path, seal: impl FnOnce(Output) -> Result<(Sealed, Output)>) -> Result<Sealed> {
    let (sealed, output) = seal(Output::create(out, Access::Public, Existing::Replace)?)?;
    output.commit()?;
    Ok(sealed)
}

/// Seals `model`, of which `subject` tells everything, into `out`.
pub fn seal(
    vault: &dyn Vault,
    model: &Model,
    subject: Subject<'_>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Sealed> {
    require_model(&subject)?;
    into_file(out, |output| seal_into(vault, model, subject, output, progress))
}

/// The same into an output that isn't committed yet.
pub(crate) fn seal_into(
    vault: &dyn Vault,
    model: &Model,
    subject: Subject<'_>,
    output: Output,
    progress: Progress<'_>,
) -> Result<(Sealed, Output)> {
    wiped(|| {
        let Model { file, path, .. } = model;
        let mut sealer = wiped(|| Sealer::new(subject, output))?;
        let read =
            |bytes: &mut [u8], at| read_exact_at(file, bytes, at).map_err(|error| changed(path, &error));
        sealer.seal_all(&mut |_| Ok(()), read, progress)?;
        if file.metadata().map_err(|error| Error::io(path, &error))?.len() != sealer.layout.length {
            return Err(changed(path, &std::io::ErrorKind::UnexpectedEof.into()));
        }
        sealer.finish(vault)
    })
}

/// Seals a model that is in memory, of which `subject` tells everything, into `out`.
pub fn seal_bytes(
    vault: &dyn Vault,
    model: &[u8],
    subject: Subject<'_>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Sealed> {
    require_model(&subject)?;
    into_file(out, |output| seal_bytes_into(vault, model, subject, output, progress))
}

/// The same into an output that isn't committed yet.
pub(crate) fn seal_bytes_into(
    vault: &dyn Vault,
    model: &[u8],
    subject: Subject<'_>,
    output: Output,
    progress: Progress<'_>,
) -> Result<(Sealed, Output)> {
    wiped(|| {
        let mut sealer = wiped(|| Sealer::new(subject, output))?;
        if sealer.layout.length != model.len() as u64 {
            return Err(Refusal::Memory.into());
        }
        let read = |bytes: &mut [u8], at| {
            let from = usize::try_from(at).ok().and_then(|at| model.get(at..)?.get(..bytes.len()));
            bytes.copy_from_slice(from.ok_or(Refusal::Memory)?);
            Ok(())
        };
        sealer.seal_all(&mut |_| Ok(()), read, progress)?;
        sealer.finish(vault)
    })
}

/// Seals a model of which `next` fills in one piece after the other. Nothing of it is ever in a file.
pub fn seal_from(
    vault: &dyn Vault,
    next: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    subject: Subject<'_>,
    out: &Path,
) -> Result<Sealed> {
    require_model(&subject)?;
    into_file(out, |output| {
        wiped(|| {
            let mut sealer = wiped(|| Sealer::new(subject, output))?;
            sealer.seal_all(next, |_, _| Ok(()), &mut |_| ())?;
            sealer.finish(vault)
        })
    })
}

/// What differs in a model that is sealed anew.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// Its version, which is released once.
    pub version: u64,
    /// Its cipher, if it is another.
    pub suite: Option<Suite>,
    /// Its chunk size and alignment as powers of two, if they are others.
    pub logs: Option<(u8, u8)>,
    /// When, in seconds since 1970-01-01 UTC.
    pub created: u64,
}

/// Opens `sealed` with its vault and seals the model anew, under another content key, into `out`. Only ciphertext is
/// written, and it appears once every byte of the old one has passed.
pub fn reseal(
    vault: &dyn Vault,
    sealed: &mut SealedFile,
    changes: Changes,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Sealed> {
    let header = sealed.header_bytes().to_vec();
    let mut subject = Header::parse(&header)?.manifest().subject.clone();
    subject.version = changes.version;
    subject.created = changes.created;
    subject.suite = changes.suite.unwrap_or(subject.suite);
    (subject.chunk_log2, subject.align_log2) =
        changes.logs.unwrap_or((subject.chunk_log2, subject.align_log2));
    into_file(out, |output| {
        wiped(|| {
            let mut sealer = Sealer::new(subject, output)?;
            sealed.copy_to(
                |sealed| sealed.unwrap_by_vault(vault, None),
                &mut |bytes| sealer.push(bytes),
                progress,
            )?;
            sealer.finish(vault)
        })
    })
}

/// A sealed model that is being written.
struct Sealer<'a> {
    sealing: Sealing<'a, Cipher>,
    layout: Layout,
    output: Output,
    /// Of what is pushed, `filled` bytes wait to be sealed.
    batch: Buffer,
    filled: usize,
    index: Vec<u8>,
    index_at: u64,
    done: u64,
}

impl<'a> Sealer<'a> {
    fn new(subject: Subject<'a>, output: Output) -> Result<Self> {
        Backend::chosen()?;
        let sealing: Sealing<'_, Cipher> = Sealing::new(subject, SLOTS_DEFAULT, &mut UnwrapErr(SysRng))?;
        let layout = sealing.layout();
        let index = Vec::with_capacity(BATCH / layout.chunk_size as usize * ENTRY_LEN);
        Ok(Self {
            sealing,
            layout,
            output,
            batch: Buffer::default(),
            filled: 0,
            index,
            index_at: layout.index,
            done: 0,
        })
    }

    /// Seals a whole model, on several threads. Its bytes come from `next`, which the caller's thread asks for one
    /// piece after the other, or from `read`, which any thread asks for those at an offset, each once.
    fn seal_all(
        &mut self,
        next: &mut dyn FnMut(&mut [u8]) -> Result<()>,
        read: impl Fn(&mut [u8], u64) -> Result<()> + Sync,
        progress: Progress<'_>,
    ) -> Result<()> {
        let (layout, output) = (self.layout, &mut self.output);
        let units = Units::new(layout, false)?;
        let (mut seats, mut entries) = self.sealing.split();
        let (mut given, mut done, mut index_at) = (0, 0, layout.index);
        in_order(
            units.threads,
            units.places(|| Unit::new(layout))?,
            |unit: &mut Unit<'_>| {
                unit.at = given;
                unit.seats.extend(seats.by_ref().take(unit_len(layout) / layout.chunk_size as usize));
                let left = usize::try_from(layout.length - given).unwrap_or(usize::MAX);
                unit.len = left.min(unit.bytes.len());
                given += unit.len as u64;
                next(unit.bytes.split_at_mut(unit.len).0)?;
                Ok(unit.len > 0)
            },
            |unit| unit.seal(&read, layout),
            |unit| {
                let mut index = Vec::with_capacity(unit.entries.len() * ENTRY_LEN);
                for entry in &unit.entries {
                    entries.push(entry)?;
                    index.extend_from_slice(&entry.encode());
                }
                output.write_at(layout.payload + unit.at, unit.bytes.get(..unit.len).unwrap_or_default())?;
                output.write_at(index_at, &index)?;
                index_at += index.len() as u64;
                done += unit.len as u64;
                progress(done);
                Ok(())
            },
        )
    }

    /// What of the batch isn't filled yet: none once the whole model is there.
    fn room(&mut self) -> &mut [u8] {
        let len = usize::try_from(self.layout.length - self.done).map_or(BATCH, |rest| rest.min(BATCH));
        self.batch.get_mut(self.filled..len).unwrap_or_default()
    }

    /// Takes the next bytes, of any number.
    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.batch.is_empty() {
            self.batch = Buffer::new(BATCH)?;
        }
        while !bytes.is_empty() {
            let room = self.room();
            let len = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(len);
            room.split_at_mut(len).0.copy_from_slice(now);
            bytes = later;
            self.filled += len;
            if len == 0 {
                return Err(modelseal_core::Error::Memory.into());
            }
            if self.room().is_empty() {
                self.seal_batch()?;
            }
        }
        Ok(())
    }

    /// Seals and writes the batch, which is full.
    fn seal_batch(&mut self) -> Result<()> {
        let len = self.filled + self.room().len();
        let (plaintext, _) = self.batch.split_at_mut(len);
        for chunk in plaintext.chunks_mut(self.layout.chunk_size as usize) {
            self.index.extend_from_slice(&self.sealing.seal_next(chunk)?.encode());
        }
        self.output.write_at(self.layout.payload + self.done, plaintext)?;
        self.output.write_at(self.index_at, &self.index)?;
        self.index_at += self.index.len() as u64;
        self.index.clear();
        self.done += len as u64;
        self.filled = 0;
        Ok(())
    }

    fn finish(mut self, vault: &dyn Vault) -> Result<(Sealed, Output)> {
        let unsigned = self.sealing.finish()?;
        let envelope = vault.publish(&unsigned)?;
        self.output.write_at(0, unsigned.header_bytes())?;
        self.output.write_at(self.layout.envelope, &envelope.encode())?;
        Ok((Sealed { id: unsigned.header()?.id(), length: self.layout.end }, self.output))
    }
}

/// Some chunks that are sealed together.
struct Unit<'s> {
    seats: Vec<Seat<'s, Cipher>>,
    at: u64,
    len: usize,
    bytes: Buffer,
    entries: Vec<Entry>,
}

impl Unit<'_> {
    fn new(layout: Layout) -> Result<Self> {
        Ok(Self {
            seats: Vec::new(),
            at: 0,
            len: 0,
            bytes: Buffer::new(unit_len(layout))?,
            entries: Vec::new(),
        })
    }

    fn seal(&mut self, read: impl Fn(&mut [u8], u64) -> Result<()>, layout: Layout) -> Result<()> {
        let (bytes, _) = self.bytes.split_at_mut(self.len);
        read(bytes, self.at)?;
        self.entries.clear();
        for (seat, chunk) in self.seats.drain(..).zip(bytes.chunks_mut(layout.chunk_size as usize)) {
            self.entries.push(seat.seal(chunk)?);
        }
        Ok(())
    }
}

fn changed(model: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            let what = format!("{} changed its length while it was sealed", model.display());
            Error::new(Code::Io, what, "seal it when nobody writes to it")
        }
        _ => Error::io(model, error),
    }
}
