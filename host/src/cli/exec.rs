//! `exec`: runs a program with opened models in memory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use modelseal_core::open::Confirmation;

use super::args::ExecArgs;
use super::context::Context;
use super::models::opener;
use crate::error::{Error, Result};
use crate::exec::{InMemory, Writing, become_command, require_program};
use crate::open::SealedFile;
use crate::opener::Opener;

pub(super) fn run(args: &ExecArgs, context: &Context<'_>) -> Result<()> {
    let program = args.command.first().map(OsString::as_os_str).unwrap_or_default();
    require_program(program)?;
    let grants = grants(args)?;
    let names: Vec<_> = match args.sealed.len() {
        1 => vec!["{}".to_owned()],
        several => (1..=several).map(|number| format!("{{{number}}}")).collect(),
    };
    require_named(args, &names)?;
    let models = open_all(args, &grants, context)?;
    let paths: Vec<_> = names.into_iter().zip(models.iter().map(InMemory::path)).collect();
    let command: Vec<_> = args.command.iter().map(|word| replace(word, &paths)).collect();
    Err(become_command(&command, &models))
}

/// All are opened, then all are confirmed; the vault is closed when this returns.
fn open_all(args: &ExecArgs, grants: &[Option<&Path>], context: &Context<'_>) -> Result<Vec<InMemory>> {
    let first = opener(&args.by, grants.first().copied().flatten(), context)?;
    let mut opened = Vec::new();
    for (sealed, grant) in args.sealed.iter().zip(grants) {
        let opener = first.with_grant(*grant);
        let mut sealed = SealedFile::open(sealed)?;
        let (model, confirmation) = open_one(&opener, &mut sealed, context)?;
        let line = sealed.header()?.manifest().subject.line.to_owned();
        opened.push((model, opener, line, confirmation));
    }
    let confirm = |(model, opener, line, confirmation): (_, Opener, String, _)| {
        opener.confirm(&line, confirmation)?;
        Ok(model)
    };
    opened.into_iter().map(confirm).collect()
}

fn open_one(
    opener: &Opener,
    sealed: &mut SealedFile,
    context: &Context<'_>,
) -> Result<(InMemory, Confirmation)> {
    let opening = opener.begin(sealed)?;
    let (name, length) = {
        let header = sealed.header()?;
        let subject = &header.manifest().subject;
        (format!("{} {}", subject.line, subject.version), subject.length)
    };
    let bar = context.progress("opening", length);
    let mut memory = Writing::new(&name)?;
    let confirmation =
        sealed.copy_to(|sealed| opening.unwrap(sealed), &mut |bytes| memory.write(bytes), &mut |done| {
            bar.set_position(done)
        })?;
    bar.finish_and_clear();
    Ok((memory.seal()?, confirmation))
}

/// Each model's grant, in the order of the models.
fn grants(args: &ExecArgs) -> Result<Vec<Option<&Path>>> {
    let (models, grants) = (args.sealed.len(), args.grants.len());
    if grants == 0 {
        return Ok(vec![None; models]);
    }
    if grants != models {
        let what = format!("{models} models take as many grants, not {grants}");
        return Err(Error::usage(what, "give --grant once for each model, in the same order"));
    }
    Ok(args.grants.iter().map(|grant| Some(grant.as_path())).collect())
}

/// Refuses a command that leaves a model out: it was meant to be used, so something is misspelt.
fn require_named(args: &ExecArgs, names: &[String]) -> Result<()> {
    let has = |name: &str| args.command.iter().skip(1).any(|word| find(word, name).is_some());
    if names.len() > 1 && has("{}") {
        let what = format!("of {} models, {{}} could be any", names.len());
        return Err(Error::usage(what, "write {1}, {2} … in the order of the models"));
    }
    match names.iter().find(|name| !has(name)) {
        Some(name) => {
            let what = format!("the command has no {name}");
            Err(Error::usage(what, format!("write {name} where it takes the model's file name")))
        }
        None => Ok(()),
    }
}

fn find(word: &OsStr, name: &str) -> Option<usize> {
    word.as_bytes().windows(name.len()).position(|window| window == name.as_bytes())
}

/// Whatever else is in braces is the command's own.
fn replace(word: &OsStr, paths: &[(String, PathBuf)]) -> OsString {
    let mut rest = word.as_bytes();
    let mut replaced = Vec::new();
    'word: while let Some((first, others)) = rest.split_first() {
        for (name, path) in paths {
            if let Some(behind) = rest.strip_prefix(name.as_bytes()) {
                replaced.extend_from_slice(path.as_os_str().as_bytes());
                rest = behind;
                continue 'word;
            }
        }
        replaced.push(*first);
        rest = others;
    }
    OsString::from_vec(replaced)
}
