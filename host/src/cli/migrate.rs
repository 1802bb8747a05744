//! `migrate-fernet`: a model that was encrypted with Fernet is sealed instead.

use std::path::{Path, PathBuf};

use modelseal_hsm::wiped::wiped;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::MigrateFernetArgs;
use super::context::Context;
use super::models::{kind_of, report_sealed, subject};
use crate::error::{Error, Result};
use crate::{fernet, kind, seal as sealing};

const VARIABLE: &str = "MODELSEAL_FERNET_KEY";

pub(super) fn migrate_fernet(args: &MigrateFernetArgs, context: &Context<'_>) -> Result<()> {
    let inputs = [Some(&args.old), args.key.as_ref()];
    let inputs: Vec<_> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    context.protect(&args.output, &inputs)?;
    // What can be wrong on the command line is said before the old file is read.
    subject(&args.said, &kind_of(&args.said, || Ok("bytes"))?, 1)?;
    let key = fernet_key(args)?;
    let model = fernet::open_file(&args.old, &key)?;
    drop(key);
    let bytes = model.bytes();
    if bytes.is_empty() {
        return Err(Error::usage(format!("{} holds nothing", args.old.display()), "name a model's file"));
    }
    // Often, a name such as model.onnx.enc.
    let name = args.old.with_extension("");
    let kind = kind_of(&args.said, || Ok(kind::guess(bytes, &name)))?;
    let length = bytes.len() as u64;
    let subject = subject(&args.said, &kind, length)?;
    let vault = context.vault()?;
    let bar = context.progress("sealing", length);
    let sealed =
        sealing::seal_bytes(&*vault, bytes, subject, &args.output, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    if is_pickle(bytes) {
        let text = "warning: it is a Python pickle, which runs code when it is loaded, and was sealed as it is; \
                    modelseal.migrate_fernet in Python makes safetensors of it, which its load_model takes";
        context.note(&json!({ "warning": "pickle", "message": text }), text);
    }
    report_sealed(&args.said, &kind, length, &args.output, &sealed, context)
}

/// What `pickle.dumps` or `torch.save` made. TorchScript is a program and stays what it is.
fn is_pickle(model: &[u8]) -> bool {
    let has = |name: &[u8]| model.windows(name.len()).any(|part| part == name);
    match model {
        [b'P', b'K', 3, 4, ..] => has(b"data.pkl") && !has(b"constants.pkl"),
        _ => kind::guess(model, Path::new("")) == kind::PICKLE,
    }
}

fn fernet_key(args: &MigrateFernetArgs) -> Result<fernet::Key> {
    if let Some(path) = &args.key {
        return fernet::Key::read(path);
    }
    wiped(|| {
        let text = std::env::var(VARIABLE).map(Zeroizing::new);
        let text = text.map_err(|_| {
            Error::usage("no Fernet key was given", format!("give --key FILE, or set {VARIABLE}"))
        })?;
        fernet::Key::parse(text.as_bytes()).ok_or_else(|| {
            Error::malformed(Path::new(VARIABLE), "a Fernet key, which is 32 bytes in base64url")
        })
    })
}
