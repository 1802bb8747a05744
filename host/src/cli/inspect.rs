//! `inspect`: what a sealed model or a grant says of itself.

use std::io::{Cursor, Read};
use std::path::Path;

use modelseal_core::grant::{GRANT_MAGIC, GRANT_MAX, Grant, Wrapping};
use modelseal_core::manifest::Suite;
use serde_json::{Value, json};

use super::args::InspectArgs;
use super::context::{Context, time};
use crate::error::{Error, Result};
use crate::files::read_exact_at;
use crate::io::Input;
use crate::open::SealedFile;

pub(super) fn run(args: &InspectArgs, context: &Context<'_>) -> Result<()> {
    let path = args.file.as_path();
    let (object, text) = match Input::open(path)? {
        Input::Folder(folder) => return super::folders::inspect(&folder, context),
        Input::File(file) => {
            let mut head = [0; GRANT_MAGIC.len()];
            if read_exact_at(&file, &mut head, 0).is_ok() && head == GRANT_MAGIC {
                say_grant(path, &mut &file)?
            } else {
                say_sealed(&SealedFile::from_file(path, file)?)?
            }
        }
        Input::Stream(mut stream) => {
            // A pipe is read once: its first bytes say what it is, and are put back in front of the rest.
            let mut head = Vec::new();
            let read = stream.by_ref().take(GRANT_MAGIC.len() as u64).read_to_end(&mut head);
            read.map_err(|error| Error::io(path, &error))?;
            let is_grant = head == GRANT_MAGIC;
            let mut whole = Cursor::new(head).chain(stream);
            if is_grant {
                say_grant(path, &mut whole)?
            } else {
                say_sealed(&SealedFile::from_reader(Box::new(whole))?)?
            }
        }
    };
    context.answer(&object, &text)
}

fn say_sealed(sealed: &SealedFile) -> Result<(Value, Vec<String>)> {
    Ok((sealed_object(sealed)?, sealed_text(sealed)?))
}

fn say_grant(path: &Path, input: &mut dyn Read) -> Result<(Value, Vec<String>)> {
    let mut bytes = Vec::new();
    let read = input.take(GRANT_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(path, &error))?;
    let grant = Grant::parse(&bytes).map_err(|error| Error::from(error).about(path))?;
    Ok((grant_object(&grant), grant_text(&grant)))
}

fn suite_name(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes256Gcm => "aes-256-gcm",
        Suite::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

pub(super) fn sealed_object(sealed: &SealedFile) -> Result<Value> {
    let header = sealed.header()?;
    let (manifest, layout) = (header.manifest(), header.layout());
    let subject = &manifest.subject;
    let claims: serde_json::Map<_, _> =
        subject.claims.iter().map(|claim| (claim.key.to_owned(), claim.value.into())).collect();
    let slots: Vec<_> = sealed.envelope().slots().map(|slot| slot.version).collect();
    Ok(json!({
        "type": "sealed model",
        "verified": false,
        "id": header.id().to_string(),
        "suite": suite_name(subject.suite),
        "line": subject.line,
        "version": subject.version,
        "kind": subject.kind,
        "length": subject.length,
        "created": subject.created,
        "claims": claims,
        "commitment": hex::encode(manifest.commitment),
        "root": hex::encode(manifest.root),
        "chunk_size": layout.chunk_size,
        "chunks": layout.chunks,
        "payload_offset": layout.payload,
        "file_length": layout.end,
        "master_key_versions": slots,
    }))
}

pub(super) fn sealed_text(sealed: &SealedFile) -> Result<Vec<String>> {
    let header = sealed.header()?;
    let (manifest, layout) = (header.manifest(), header.layout());
    let subject = &manifest.subject;
    let slots: Vec<_> = sealed.envelope().slots().map(|slot| slot.version.to_string()).collect();
    let mut rows = vec![
        ("sealed model", header.id().to_string()),
        ("line", subject.line.to_owned()),
        ("version", subject.version.to_string()),
        ("kind", subject.kind.to_owned()),
        ("length", format!("{} bytes", subject.length)),
        ("created", time(subject.created)),
        ("suite", suite_name(subject.suite).to_owned()),
        (
            "chunks",
            format!("{} of {} bytes, payload at {}", layout.chunks, layout.chunk_size, layout.payload),
        ),
        ("root", hex::encode(manifest.root)),
        ("master keys", slots.join(", ")),
    ];
    rows.extend(subject.claims.iter().map(|claim| ("claim", format!("{} = {}", claim.key, claim.value))));
    rows.push(("signature", "not checked: see modelseal verify".into()));
    Ok(table(&rows))
}

fn grant_object(grant: &Grant<'_>) -> Value {
    let terms = grant.terms();
    json!({
        "type": "grant",
        "verified": false,
        "model": terms.model.to_string(),
        "suite": suite_name(terms.suite),
        "device": terms.device.as_str(),
        "floor": terms.floor,
        "not_before": terms.validity.map(|validity| validity.not_before),
        "not_after": terms.validity.map(|validity| validity.not_after),
        "wrapping": wrapping_name(grant.wrapping()),
        "siblings": grant.signature().map(|signature| signature.siblings.len()),
    })
}

fn grant_text(grant: &Grant<'_>) -> Vec<String> {
    let terms = grant.terms();
    let validity = match terms.validity {
        Some(validity) => format!("{} to {}", time(validity.not_before), time(validity.not_after)),
        None => "always".into(),
    };
    table(&[
        ("grant for", terms.model.to_string()),
        ("device", terms.device.as_str().to_owned()),
        ("floor", terms.floor.to_string()),
        ("valid", validity),
        ("suite", suite_name(terms.suite).to_owned()),
        ("wrapping", wrapping_name(grant.wrapping()).to_owned()),
        ("authenticity", "not checked: opening does".into()),
    ])
}

fn wrapping_name(wrapping: Wrapping) -> &'static str {
    match wrapping {
        Wrapping::DeviceKey { .. } => "device-key",
        Wrapping::Hpke { .. } => "hpke-x25519",
    }
}

fn table(rows: &[(&str, String)]) -> Vec<String> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect()
}
