//! `tensors`, and `open` of one tensor or a range of bytes.

use std::ops::Range;
use std::path::Path;

use modelseal_hsm::wiped::wiped;
use serde_json::json;

use super::args::{OpenArgs, TensorsArgs};
use super::context::Context;
use super::models::{is_stream, open_stream, opener, write_stream};
use super::terminal::name;
use crate::error::Result;
use crate::files::{Access, Existing, Output};
use crate::lazy::LazyModel;
use crate::open::{SealedFile, to_stdout};
use crate::opener::Opener;
use crate::tensors::Tensors;

pub(super) fn tensors(args: &TensorsArgs, context: &Context<'_>) -> Result<()> {
    let model = open_lazily(&args.sealed, opener(&args.by, args.grant.as_deref(), context)?)?;
    list(&Tensors::of(&model).map_err(|error| error.about(&args.sealed))?, context)
}

fn open_lazily(sealed: &Path, opener: Opener) -> Result<LazyModel> {
    opener.open(SealedFile::open(sealed)?)?.lazily()
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
    context.show(&json!({ "tensors": objects }), &lines)
}

/// Writes only what was asked for. Nothing is confirmed: of the rest of the model, nothing is known.
pub(super) fn write(args: &OpenArgs, context: &Context<'_>) -> Result<()> {
    let model = open_lazily(&args.sealed, opener(&args.by, args.grant.as_deref(), context)?)?;
    let range = wiped(|| -> Result<_> {
        match (&args.tensor, &args.range) {
            (Some(name), _) => {
                let tensors = Tensors::of(&model).map_err(|error| error.about(&args.sealed))?;
                Ok(tensors.get(name)?.bytes)
            }
            (None, range) => Ok(range.clone().unwrap_or(0..model.len())),
        }
    })?;
    let length = range.end.saturating_sub(range.start);
    if args.output.as_os_str() == "-" {
        model.copy_range(range, &mut to_stdout)?;
    } else if is_stream(&args.output) {
        let mut stream = open_stream(&args.output)?;
        model.copy_range(range, &mut |bytes| write_stream(&mut stream, &args.output, bytes))?;
    } else {
        let mut output = Output::create(&args.output, Access::Private, Existing::Replace)?;
        model.copy_range(range, &mut |bytes| output.write(bytes))?;
        output.commit()?;
    }
    report(args, context, &model, length)
}

fn report(args: &OpenArgs, context: &Context<'_>, model: &LazyModel, length: u64) -> Result<()> {
    let header = model.header()?;
    let subject = &header.manifest().subject;
    let object = json!({
        "opened": name(&args.output),
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
