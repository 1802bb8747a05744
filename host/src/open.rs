//! A sealed model at hand, and its content key by a vault or by a grant: steps 1 to 6 (FORMAT.md, section 7, "A host").
//!
//! What comes next is in [`whole`](crate::whole) and [`lazy`](crate::lazy).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use modelseal_core::Error as Refusal;
use modelseal_core::grant::Grant;
use modelseal_core::open::{Conditions, Request, Unwrapped};
use modelseal_core::sealed::{ENVELOPE_MAX, Envelope, HEADER_MAX, Header, Layout, PREFIX_LEN, Prefix};
use modelseal_hsm::Vault;

use crate::error::{Code, Error, Result};
use crate::identity::Identity;
use crate::index::require_blocks;
use crate::io::{Folder, Input};

/// A sealed model whose parts have the right shape. Nothing of it has been checked for being genuine.
pub struct SealedFile {
    pub(crate) path: PathBuf,
    pub(crate) header: Vec<u8>,
    pub(crate) envelope: Box<Envelope>,
    /// The file itself or, where the sealed model comes from a pipe, the part of it that was read so far.
    pub(crate) file: File,
    /// The rest of a pipe.
    pub(crate) pipe: Option<Mutex<Box<dyn Read + Send>>>,
}

/// What a user named: a sealed model, or a sealed folder. Nothing of either has been checked.
pub enum SealedInput {
    /// A sealed model.
    Model(SealedFile),
    /// A folder, which may be a sealed one.
    Folder(Folder),
}

impl SealedInput {
    /// Opens `path`, once; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(match Input::open(path)? {
            Input::File(file) => Self::Model(SealedFile::from_file(path, file)?),
            Input::Stream(stream) => Self::Model(SealedFile::from_reader(stream)?),
            Input::Folder(folder) => Self::Folder(folder),
        })
    }
}

impl SealedFile {
    /// Reads a sealed model from a file, or from standard input if `path` is `-`.
    pub fn open(path: &Path) -> Result<Self> {
        match SealedInput::open(path)? {
            SealedInput::Model(sealed) => Ok(sealed),
            SealedInput::Folder(_) => Err(Error::io(path, &std::io::ErrorKind::IsADirectory.into())),
        }
    }

    /// Reads a sealed model from a file that is open.
    pub(crate) fn from_file(path: &Path, mut file: File) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::io(path, &error))?;
        let (header, envelope) = read_front(&mut file).map_err(|error| error.about(path))?;
        let sealed = Self { path: path.to_owned(), header, envelope, file, pipe: None };
        sealed.check_length(metadata.len()).map_err(|error| sealed.about(error))?;
        Ok(sealed)
    }

    /// Reads the beginning of a sealed model from a pipe: a few KiB.
    pub fn from_reader(mut pipe: Box<dyn Read + Send>) -> Result<Self> {
        let path = PathBuf::from("-");
        let (header, envelope) = read_front(&mut pipe)?;
        let file = tempfile::tempfile().map_err(|error| Error::io(&path, &error))?;
        Ok(Self { path, header, envelope, file, pipe: Some(Mutex::new(pipe)) })
    }

    /// Keeps the index of a sealed model that comes from a pipe in a file without a name: it is needed twice. Its length
    /// is what the header says, so the header has been verified before.
    pub(crate) fn keep_index(&self, layout: Layout) -> Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        require_blocks(&self.path, layout)?;
        let io = |error: std::io::Error| Error::io(&self.path, &error);
        let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.file).seek(SeekFrom::Start(layout.index)).map_err(io)?;
        let rest = layout.payload - layout.index;
        if std::io::copy(&mut pipe.by_ref().take(rest), &mut &self.file).map_err(io)? != rest {
            return Err(self.about(Refusal::Truncated.into()));
        }
        Ok(())
    }

    /// (4.1) A sealed model has P + length bytes, exactly.
    fn check_length(&self, length: u64) -> Result<()> {
        match length.cmp(&self.header()?.layout().end) {
            std::cmp::Ordering::Less => Err(Refusal::Truncated.into()),
            std::cmp::Ordering::Greater => Err(Refusal::Extended.into()),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    pub(crate) fn header_bytes(&self) -> &[u8] {
        &self.header
    }

    /// Prefix and manifest.
    pub fn header(&self) -> Result<Header<'_>> {
        Ok(Header::parse(&self.header)?)
    }

    /// Signature and key slots.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    pub(crate) fn about(&self, error: Error) -> Error {
        error.about(&self.path)
    }

    /// The content key, by the vault whose publisher signed the model. To be called in
    /// [`wiped`](modelseal_hsm::wiped::wiped), as [`copy_to`](Self::copy_to) does: moving the key leaves copies.
    pub fn unwrap_by_vault(&self, vault: &dyn Vault, line: Option<&str>) -> Result<Unwrapped<'_>> {
        let unwrapped =
            vault.unwrap(self.header()?, &self.envelope).map_err(|error| self.about(error.into()))?;
        if let Some(line) = line {
            unwrapped.header().require_line(line).map_err(|error| self.about(error.into()))?;
        }
        Ok(unwrapped)
    }

    /// The content key, by a grant: steps 1 to 6. To be called in
    /// [`wiped`](modelseal_hsm::wiped::wiped), likewise.
    pub fn unwrap_by_grant(&self, grant: &[u8], reader: &Reader<'_>) -> Result<Unwrapped<'_>> {
        let (publisher, secret) = (reader.identity.publisher()?, reader.identity.secret()?);
        let grant = Grant::parse(grant).map_err(|error| Error::from(error).about(reader.grant_path))?;
        let granted_to = grant.terms().device.as_str().to_owned();
        let open = || -> std::result::Result<Unwrapped<'_>, Refusal> {
            let header = Header::parse(&self.header)?;
            let request = Request::new(header, *self.envelope.signature(), grant);
            request.verify_manifest(&publisher)?;
            let named = request.authenticate(&secret, &publisher)?.name(reader.line)?;
            let conditions = reader.conditions()?;
            named.admit(&conditions)?.unwrap(&secret, &conditions)
        };
        open().map_err(|refusal| {
            let error = Error::from(refusal);
            match refusal {
                Refusal::GrantKey | Refusal::OtherDevice if granted_to != reader.identity.device() => {
                    error.about(reader.grant_path).with_hint(format!(
                        "the grant names {granted_to}, the identity is {}: use the grant that was made for this device",
                        reader.identity.device()
                    ))
                }
                Refusal::GrantKey
                | Refusal::OtherDevice
                | Refusal::GrantSignature
                | Refusal::OtherModel
                | Refusal::NoClock
                | Refusal::NotYetValid
                | Refusal::Expired
                | Refusal::FloorAboveVersion => error.about(reader.grant_path),
                _ => self.about(error),
            }
        })
    }
}

/// Step 1: reads prefix, manifest and envelope (4.1), each with the length that came before it.
fn read_front(input: &mut dyn Read) -> Result<(Vec<u8>, Box<Envelope>)> {
    let mut header = [0; HEADER_MAX];
    let (front, rest) = header.split_first_chunk_mut::<PREFIX_LEN>().ok_or(Refusal::Truncated)?;
    read_exact(input, front)?;
    let prefix = Prefix::parse(front)?;
    let len = prefix.header_len();
    let (manifest, _) = rest.split_at_mut(len - PREFIX_LEN);
    read_exact(input, manifest)?;
    let mut envelope = [0; ENVELOPE_MAX];
    let (envelope, _) = envelope.split_at_mut(prefix.envelope_len());
    read_exact(input, envelope)?;
    let header: Vec<u8> = header.into_iter().take(len).collect();
    Header::parse(&header)?;
    Ok((header, Box::new(Envelope::parse(envelope)?)))
}

fn read_exact(input: &mut dyn Read, bytes: &mut [u8]) -> Result<()> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Refusal::Truncated.into(),
        _ => Error::new(Code::Io, error.to_string(), "check the file and its disk"),
    })
}

/// A reader with a grant: who it is and what it knows.
pub struct Reader<'a> {
    /// The device's identity, complete.
    pub identity: &'a Identity,
    /// The grant's file, for messages.
    pub grant_path: &'a Path,
    /// The line asked for.
    pub line: &'a str,
    /// The stored floor of that line.
    pub floor: u64,
    /// Seconds since 1970-01-01 UTC.
    pub now: Option<u64>,
}

impl Reader<'_> {
    fn conditions(&self) -> std::result::Result<Conditions<'_>, Refusal> {
        let device = modelseal_core::grant::DeviceId::new(self.identity.device())?;
        Ok(Conditions { line: self.line, device, now: self.now, floor: self.floor })
    }
}

/// Writes to standard output, past its buffer, which would keep a part of the model.
pub fn to_stdout(bytes: &[u8]) -> Result<()> {
    let written = unbuffered_stdout().and_then(|mut out| out.write_all(bytes));
    written.map_err(|error| Error::io(Path::new("-"), &error))
}

#[cfg(unix)]
fn unbuffered_stdout() -> std::io::Result<File> {
    use std::os::fd::AsFd;
    Ok(std::io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn unbuffered_stdout() -> std::io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(std::io::stdout().as_handle().try_clone_to_owned()?.into())
}
