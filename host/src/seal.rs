//! Model file -> sealed model, in one pass and little memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use getrandom::SysRng;
use modelseal_core::manifest::Subject;
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::{ENTRY_LEN, ModelId, SLOTS_DEFAULT};
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use rand_core::UnwrapErr;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::files::{Access, Existing, Output};

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

/// The length of a model to be sealed. It must be a file: the manifest comes before what it commits to.
pub fn model_length(model: &Path) -> Result<u64> {
    let file = if model.as_os_str() == "-" { None } else { Some(std::fs::metadata(model)) };
    let metadata = file.transpose().map_err(|error| Error::io(model, &error))?;
    let Some(metadata) = metadata.filter(std::fs::Metadata::is_file) else {
        let hint = "write the model to a file first: its manifest comes before what it commits to";
        return Err(Error::usage(format!("{} isn't a file", model.display()), hint));
    };
    if metadata.len() == 0 {
        return Err(Error::usage(format!("{} is empty", model.display()), "name the model's file"));
    }
    Ok(metadata.len())
}

/// Seals `model`, of which `subject` tells everything, into `out`.
pub fn seal(
    vault: &dyn Vault,
    model: &Path,
    subject: Subject<'_>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Sealed> {
    wiped(|| seal_and_publish(vault, model, subject, out, progress))
}

fn seal_and_publish(
    vault: &dyn Vault,
    model: &Path,
    subject: Subject<'_>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Sealed> {
    let mut input = File::open(model).map_err(|error| Error::io(model, &error))?;
    let mut output = Output::create(out, Access::Public, Existing::Replace)?;
    let mut sealing: Sealing<'_> = Sealing::new(subject, SLOTS_DEFAULT, &mut UnwrapErr(SysRng))?;
    let layout = sealing.layout();
    let mut index = Vec::with_capacity(BATCH / layout.chunk_size as usize * ENTRY_LEN);
    let mut batch = Zeroizing::new(vec![0; BATCH]);
    let (mut done, mut index_at) = (0, layout.index);
    while done < layout.length {
        let len = usize::try_from(layout.length - done).map_or(BATCH, |rest| rest.min(BATCH));
        let (plaintext, _) = batch.split_at_mut(len);
        input.read_exact(plaintext).map_err(|error| changed(model, &error))?;
        for chunk in plaintext.chunks_mut(layout.chunk_size as usize) {
            index.extend_from_slice(&sealing.seal_next(chunk)?.encode());
        }
        output.write_at(layout.payload + done, plaintext)?;
        output.write_at(index_at, &index)?;
        index_at += index.len() as u64;
        index.clear();
        done += len as u64;
        progress(done);
    }
    if input.read(&mut [0]).map_err(|error| Error::io(model, &error))? != 0 {
        return Err(changed(model, &std::io::ErrorKind::UnexpectedEof.into()));
    }
    let unsigned = sealing.finish()?;
    let envelope = vault.publish(&unsigned)?;
    output.write_at(0, unsigned.header_bytes())?;
    output.write_at(layout.envelope, &envelope.encode())?;
    output.commit()?;
    Ok(Sealed { id: unsigned.header()?.id(), length: layout.end })
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
