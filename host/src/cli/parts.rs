//! `tensors`, and `open` of one tensor or a range of bytes.

use std::ops::Range;
use std::path::Path;

use modelseal_hsm::wiped::wiped;
use serde_json::json;

use super::args::{OpenArgs, TensorsArgs};
use super::context::Context;
use super::models::{is_stream, open_stream, opener, write_stream};
use crate::error::Result;
use crate::files::{self, Access, Existing};
use crate::lazy::LazyModel;
use crate::open::{SealedFile, to_stdout};
use crate::opener::Opener;
use crate::tensors::Tensors;

pub(super) fn tensors(args: &TensorsArgs, context: &Context<'_>) -> Result<()> {
    let model = open_lazily(&args.sealed, opener(&args.by, args.grant.as_deref(), context)?)?;
    list(&Tensors::of(&model).map_err(|error| error.about(&args.sealed))?, context)
}

fn open_lazily(sealed: &Path, opener: Opener) -> Result<LazyModel> {
    let sealed = SealedFile::open(sealed)?;
    let opening = opener.begin(&sealed)?;
    sealed.open_lazily(|sealed| opening.unwrap(sealed))
}

fn list(tensors: &Tensors, context: &Context<'_>) -> Result<()> {
    let (mut objects, mut lines) = (Vec::new(), Vec::new());
    for name in tensors.names() {
        let tensor = tensors.get(&name)?;
        let Range { start, end } = tensor.bytes;
        lines.push(format!("{name}  {}  {:?}  {start}..{end}", tensor.dtype, tensor.shape));
        objects.push(json!({
            "name": name, "dtype": tensor.dtype, "shape": tensor.shape, "start": start, "end": end,
        }));
    }
    context.show(&json!({ "tensors": objects }), &lines.join("\n"))
}

/// Writes only what was asked for. Nothing is confirmed: of the rest of the model, nothing is known.
pub(super) fn write(args: &OpenArgs, context: &Context<'_>) -> Result<()> {
    let model = open_lazily(&args.sealed, opener(&args.by, args.grant.as_deref(), context)?)?;
    // A model's bytes in memory of their own: none of them stays on the stack.
    let bytes = wiped(|| {
        let range = match (&args.tensor, &args.range) {
            (Some(name), _) => {
                let tensors = Tensors::of(&model).map_err(|error| error.about(&args.sealed))?;
                tensors.get(name)?.bytes
            }
            (None, range) => range.clone().unwrap_or(0..model.len()),
        };
        model.range(range)
    })?;
    if args.output.as_os_str() == "-" {
        to_stdout(&bytes)?;
    } else if is_stream(&args.output) {
        write_stream(&mut open_stream(&args.output)?, &args.output, &bytes)?;
    } else {
        files::write(&args.output, &bytes, Access::Private, Existing::Replace)?;
    }
    report(args, context, &model, bytes.len())
}

fn report(args: &OpenArgs, context: &Context<'_>, model: &LazyModel, length: usize) -> Result<()> {
    let header = model.header()?;
    let subject = &header.manifest().subject;
    let object = json!({
        "opened": args.output,
        "line": subject.line,
        "version": subject.version,
        "kind": subject.kind,
        "tensor": args.tensor,
        "length": length,
    });
    let (line, version, output) = (subject.line, subject.version, args.output.display());
    let text = format!("opened {length} bytes of {line} version {version} into {output}");
    if args.output.as_os_str() == "-" {
        context.note(&object, &text);
        return Ok(());
    }
    context.show(&object, &text)
}
