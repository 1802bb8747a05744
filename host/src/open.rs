//! Sealed model -> model: to a file, to a pipe, or only checked. In one pass and little memory (FORMAT.md,
//! section 7, "A host").
//!
//! The index is read twice: first to check it against the root, then along with the payload. In between only a
//! hash of each block of it is kept, so that any size of model needs next to no memory, and yet no entry can
//! change unnoticed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use modelseal_core::Error as Refusal;
use modelseal_core::grant::Grant;
use modelseal_core::lazy::{CheckedIndex, IndexCheck, Lazy};
use modelseal_core::open::{Conditions, Confirmation, Request, Unwrapped};
use modelseal_core::sealed::{
    ENTRY_LEN, ENVELOPE_MAX, Entry, Envelope, HEADER_MAX, Header, Layout, PREFIX_LEN, Prefix,
};
use modelseal_core::sign::Publisher;
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::identity::Identity;
use crate::lazy::LazyModel;
use crate::seal::Progress;

/// Entries of one block of the index.
const BLOCK: u64 = 4096;
/// Blocks whose hashes are kept: 32 MiB of them, for 2^32 chunks.
const BLOCKS_MAX: u64 = 1 << 20;

/// A sealed model whose parts have the right shape. Nothing of it has been checked for being genuine.
pub struct SealedFile {
    path: PathBuf,
    header: Vec<u8>,
    envelope: Envelope,
    /// The file itself or, where the sealed model comes from a pipe, the part of it that was read so far.
    file: File,
    /// The rest of a pipe.
    pipe: Option<Box<dyn Read>>,
}

impl SealedFile {
    /// Reads a sealed model from a file, or from standard input if `path` is `-`.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(path, &error);
        if path.as_os_str() == "-" {
            return Self::from_reader(Box::new(std::io::stdin()));
        }
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(std::io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Self::from_reader(Box::new(file));
        }
        Self::from_file(path, file)
    }

    /// Reads a sealed model from a file that is open.
    pub(crate) fn from_file(path: &Path, mut file: File) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::io(path, &error))?;
        let (header, envelope) = read_front(&mut file).map_err(|error| error.about(path))?;
        let sealed = Self { path: path.to_owned(), header, envelope, file, pipe: None };
        sealed.check_length(metadata.len()).map_err(|error| sealed.about(error))?;
        Ok(sealed)
    }

    /// Reads a sealed model from a pipe. What comes before the payload is kept in a file without a name: it is
    /// needed twice.
    pub fn from_reader(mut pipe: Box<dyn Read>) -> Result<Self> {
        let path = PathBuf::from("-");
        let io = |error: std::io::Error| Error::io(Path::new("-"), &error);
        let (header, envelope) = read_front(&mut pipe)?;
        let layout = Header::parse(&header)?.layout();
        require_blocks(&path, layout)?;
        let mut file = tempfile::tempfile().map_err(io)?;
        file.seek(SeekFrom::Start(layout.index)).map_err(io)?;
        let rest = layout.payload - layout.index;
        if std::io::copy(&mut pipe.by_ref().take(rest), &mut file).map_err(io)? != rest {
            return Err(Refusal::Truncated.into());
        }
        Ok(Self { path, header, envelope, file, pipe: Some(pipe) })
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

    fn about(&self, error: Error) -> Error {
        error.about(&self.path)
    }

    /// The content key, by the vault whose publisher signed the model. To be called in
    /// [`wiped`], as [`copy_to`](Self::copy_to) does: moving the key leaves copies.
    pub fn unwrap_by_vault(&self, vault: &dyn Vault, line: Option<&str>) -> Result<Unwrapped<'_>> {
        let unwrapped =
            vault.unwrap(self.header()?, &self.envelope).map_err(|error| self.about(error.into()))?;
        if let Some(line) = line {
            unwrapped.header().require_line(line).map_err(|error| self.about(error.into()))?;
        }
        Ok(unwrapped)
    }

    /// The content key, by a grant: steps 1 to 6. To be called in [`wiped`], likewise.
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
                Refusal::GrantKey | Refusal::OtherDevice => error.about(reader.grant_path).with_hint(format!(
                    "the grant names {granted_to}, the identity is {}: use the grant that was made for this device",
                    reader.identity.device()
                )),
                Refusal::GrantSignature
                | Refusal::OtherModel
                | Refusal::NoClock
                | Refusal::NotYetValid
                | Refusal::Expired
                | Refusal::FloorAboveVersion => error.about(reader.grant_path),
                _ => self.about(error),
            }
        })
    }

    /// Checks the publisher's signature and, without any key, that every byte but the key slots and the tags is
    /// what was signed. The tags take the content key; they only repeat what the root says.
    pub fn verify(&mut self, publisher: &Publisher, progress: Progress<'_>) -> Result<()> {
        let header = self.header.clone();
        let signature = *self.envelope.signature();
        let check = Header::parse(&header).and_then(|header| header.verify(&signature, publisher));
        let header = check.map_err(|error| self.about(error.into()))?;
        let layout = header.layout();
        let (index, blocks) = self.check_index(&header)?;
        self.each_chunk(layout, &blocks, |i, entry, chunk| {
            index.check_chunk(i, entry, chunk)?;
            progress(i * u64::from(layout.chunk_size) + chunk.len() as u64);
            Ok(())
        })
    }

    /// Opens every chunk, in order, into `out`. What was written is only part of the model until this
    /// succeeds.
    pub fn copy_to(
        &mut self,
        open: impl FnOnce(&Self) -> Result<Unwrapped<'_>>,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<Confirmation> {
        wiped(|| self.open_each(open, out, progress))
    }

    fn open_each(
        &mut self,
        open: impl FnOnce(&Self) -> Result<Unwrapped<'_>>,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<Confirmation> {
        let (lazy, blocks): (Lazy, _) = {
            let unwrapped = open(self)?;
            let (index, blocks) = self.check_index(unwrapped.header())?;
            (unwrapped.into_lazy(index).map_err(|error| self.about(error.into()))?, blocks)
        };
        let layout = lazy.layout();
        let mut batch = Batch::new(out);
        self.each_chunk(layout, &blocks, |i, entry, chunk| {
            lazy.open_chunk(i, entry, chunk)?;
            batch.push(chunk)?;
            progress(i * u64::from(layout.chunk_size) + chunk.len() as u64);
            Ok(())
        })?;
        batch.flush()?;
        Ok(lazy.finish())
    }

    /// Opens a model of which any part can then be read.
    pub fn open_lazily(self, open: impl FnOnce(&Self) -> Result<Unwrapped<'_>>) -> Result<LazyModel> {
        wiped(|| {
            let (lazy, blocks): (Lazy, _) = {
                let unwrapped = open(&self)?;
                let (index, blocks) = self.check_index(unwrapped.header())?;
                (unwrapped.into_lazy(index).map_err(|error| self.about(error.into()))?, blocks)
            };
            let mut index = Vec::new();
            for (block, hash) in (0..).zip(&blocks) {
                let bytes = self.read_block(lazy.layout(), block)?;
                if blake3::hash(&bytes) != *hash {
                    return Err(self.about(Refusal::Index.into()));
                }
                index.extend_from_slice(&bytes);
            }
            Ok(LazyModel::new(lazy, index, &self.path, self.file))
        })
    }

    /// Between steps 6 and 7, the first reading of the index: against the root (4.4), and the padding
    /// behind it.
    fn check_index(&self, header: &Header<'_>) -> Result<(CheckedIndex, Vec<[u8; 32]>)> {
        let layout = header.layout();
        let blocks = layout.chunks.div_ceil(BLOCK);
        require_blocks(&self.path, layout)?;
        let mut check = IndexCheck::new(header);
        let mut hashes = Vec::new();
        for block in 0..blocks {
            let bytes = self.read_block(layout, block)?;
            hashes.push(*blake3::hash(&bytes).as_bytes());
            for entry in bytes.as_chunks::<ENTRY_LEN>().0 {
                check.push(&Entry::parse(entry)).map_err(|error| self.about(error.into()))?;
            }
        }
        let padding = self.read_at(layout.padding, layout.payload - layout.padding)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.about(Refusal::Padding.into()));
        }
        Ok((check.finish().map_err(|error| self.about(error.into()))?, hashes))
    }

    /// Step 7 and what follows it, with the second reading of the index, along with the payload.
    fn each_chunk(
        &mut self,
        layout: Layout,
        blocks: &[[u8; 32]],
        mut visit: impl FnMut(u64, &Entry, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut payload = self.payload(layout)?;
        let mut chunk = Zeroizing::new(vec![0; layout.chunk_size as usize]);
        for (block, hash) in (0..).zip(blocks) {
            let bytes = self.read_block(layout, block)?;
            if blake3::hash(&bytes) != *hash {
                return Err(self.about(Refusal::Index.into()));
            }
            for (i, entry) in (block * BLOCK..).zip(bytes.as_chunks::<ENTRY_LEN>().0) {
                let (chunk, _) = chunk.split_at_mut(layout.chunk_len(i));
                payload.read_exact(chunk).map_err(|error| self.short(&error))?;
                visit(i, &Entry::parse(entry), chunk).map_err(|error| self.located(error))?;
            }
        }
        match payload.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.about(Refusal::Extended.into())),
            Err(error) => Err(Error::io(&self.path, &error)),
        }
    }

    /// Names the file, if it was the sealed model that failed and not the output.
    fn located(&self, error: Error) -> Error {
        if error.code() == Code::NotAuthentic { self.about(error) } else { error }
    }

    fn payload(&mut self, layout: Layout) -> Result<Box<dyn Read>> {
        if let Some(pipe) = self.pipe.take() {
            return Ok(pipe);
        }
        // A description of its own, so that its offset isn't the index's.
        let io = |error: std::io::Error| Error::io(&self.path, &error);
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(layout.payload)).map_err(io)?;
        Ok(Box::new(std::io::BufReader::with_capacity(1 << 18, file)))
    }

    fn read_block(&self, layout: Layout, block: u64) -> Result<Vec<u8>> {
        let entries = (layout.chunks - block * BLOCK).min(BLOCK);
        self.read_at(layout.index + block * BLOCK * ENTRY_LEN as u64, entries * ENTRY_LEN as u64)
    }

    /// Reads a part of at most a few hundred KiB before the payload.
    fn read_at(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut file = &self.file;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.take(len).read_to_end(&mut bytes));
        match read {
            Ok(n) if n as u64 == len => Ok(bytes),
            Ok(_) => Err(self.about(Refusal::Truncated.into())),
            Err(error) => Err(Error::io(&self.path, &error)),
        }
    }

    fn short(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.about(Refusal::Truncated.into()),
            _ => Error::io(&self.path, error),
        }
    }
}

fn require_blocks(path: &Path, layout: Layout) -> Result<()> {
    if layout.chunks.div_ceil(BLOCK) <= BLOCKS_MAX {
        return Ok(());
    }
    let what = format!("{}: {} chunks are too many for this reader", path.display(), layout.chunks);
    Err(Error::new(Code::Other, what, "seal the model again with --profile host"))
}

/// Step 1: reads prefix, manifest and envelope (4.1), each with the length that came before it.
fn read_front(input: &mut dyn Read) -> Result<(Vec<u8>, Envelope)> {
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
    Ok((header, Envelope::parse(envelope)?))
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

/// Gathers small chunks, so that they aren't written one by one.
struct Batch<'a> {
    out: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    bytes: Zeroizing<Vec<u8>>,
}

impl<'a> Batch<'a> {
    const LEN: usize = 1 << 18;

    fn new(out: &'a mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        // Never grows, so that no plaintext stays behind in memory that was given back.
        Self { out, bytes: Zeroizing::new(Vec::with_capacity(Self::LEN)) }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<()> {
        if self.bytes.len() + chunk.len() > Self::LEN {
            self.flush()?;
        }
        if chunk.len() > Self::LEN {
            return (self.out)(chunk);
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let written = (self.out)(&self.bytes);
        self.bytes.clear();
        written
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
