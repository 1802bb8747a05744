//! `exec`: runs a program with opened models in memory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use modelseal_core::open::Confirmation;

use super::args::ExecArgs;
use super::context::Context;
use super::models::opener;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::exec::{InMemory, Writing, become_command, require_program};
use crate::open::SealedFile;
use crate::opener::Opener;

/// What a word of the command has in braces, and the model whose file name replaces it.
type Named = (String, InMemory);

pub(super) fn run(args: &ExecArgs, context: &Context<'_>) -> Result<()> {
    let program = args.command.first().map(OsString::as_os_str).unwrap_or_default();
    require_program(program)?;
    let models = match args.sealed.as_slice() {
        [dir] if dir.is_dir() => open_folder(args, dir, context)?,
        models => match models.iter().find(|model| model.is_dir()) {
            Some(dir) => {
                let what = format!("{} is a folder", dir.display());
                return Err(Error::usage(what, "give one folder alone, or models that are files"));
            }
            None => open_models(args, context)?,
        },
    };
    let command: Vec<_> = args.command.iter().map(|word| replace(word, &models)).collect();
    let models: Vec<_> = models.into_iter().map(|(_, model)| model).collect();
    Err(become_command(&command, &models))
}

/// All are opened, then all are confirmed; the vault is closed when this returns.
fn open_models(args: &ExecArgs, context: &Context<'_>) -> Result<Vec<Named>> {
    let names: Vec<_> = match args.sealed.len() {
        1 => vec!["{}".to_owned()],
        several => (1..=several).map(|number| format!("{{{number}}}")).collect(),
    };
    require_named(args, &names)?;
    let grants = grants(args)?;
    let first = opener(&args.by, grants.first().copied().flatten(), context)?;
    let mut opened = Vec::new();
    for ((sealed, grant), name) in args.sealed.iter().zip(grants).zip(names) {
        let opener = first.with_grant(grant);
        let mut sealed = SealedFile::open(sealed)?;
        let (memory, confirmation) = open_one(&opener, &mut sealed, context)?;
        let line = sealed.header()?.manifest().subject.line.to_owned();
        opened.push(((name, memory), opener, line, confirmation));
    }
    let confirm = |(named, opener, line, confirmation): (_, Opener, String, _)| {
        opener.confirm(&line, confirmation)?;
        Ok(named)
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
    let mut memory = Writing::new(&name, length)?;
    let confirmation =
        sealed.copy_to(|sealed| opening.unwrap(sealed), &mut |bytes| memory.write(bytes), &mut |done| {
            bar.set_position(done)
        })?;
    bar.finish_and_clear();
    Ok((memory.seal()?, confirmation))
}

/// Of a folder, the files that the command names.
fn open_folder(args: &ExecArgs, dir: &Path, context: &Context<'_>) -> Result<Vec<Named>> {
    if has(args, "{}") {
        let what = format!("{} is a folder, for which there is no single file name", dir.display());
        let hint =
            "name its files, such as {config.json}; for a program that takes a folder, use `modelseal open`";
        return Err(Error::usage(what, hint));
    }
    let grant = match args.grants.as_slice() {
        [] => None,
        [grant] => Some(grant.as_path()),
        _ => return Err(Error::usage("a folder has one folder of grants", "give --grant once")),
    };
    let (directory, confirmation) = Directory::open(dir, &opener(&args.by, grant, context)?)?;
    directory.require_complete()?;
    let named = directory.files().iter().map(|entry| (format!("{{{}}}", entry.path), entry));
    let named: Vec<_> = named.filter(|(name, _)| has(args, name)).collect();
    if named.is_empty() {
        let what = format!("the command names none of the files in {}", dir.display());
        return Err(Error::usage(what, "write {config.json} or the like where it takes a file's name"));
    }
    let mut opened = Vec::new();
    for (name, entry) in named {
        let mut memory = Writing::new(&entry.path, entry.length)?;
        let bar = context.progress("opening", entry.length);
        let mut member = directory.open_file(&entry.path)?;
        member.copy_to(&mut |bytes| memory.write(bytes), &mut |done| bar.set_position(done))?;
        bar.finish_and_clear();
        opened.push((name, memory.seal()?));
    }
    directory.confirm(confirmation)?;
    Ok(opened)
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
    if names.len() > 1 && has(args, "{}") {
        let what = format!("of {} models, {{}} could be any", names.len());
        return Err(Error::usage(what, "write {1}, {2} … in the order of the models"));
    }
    match names.iter().find(|name| !has(args, name)) {
        Some(name) => {
            let what = format!("the command has no {name}");
            Err(Error::usage(what, format!("write {name} where it takes the model's file name")))
        }
        None => Ok(()),
    }
}

fn has(args: &ExecArgs, name: &str) -> bool {
    let has = |word: &OsString| word.as_bytes().windows(name.len()).any(|part| part == name.as_bytes());
    args.command.iter().skip(1).any(has)
}

/// Whatever else is in braces is the command's own.
fn replace(word: &OsStr, models: &[Named]) -> OsString {
    let mut rest = word.as_bytes();
    let mut replaced = Vec::new();
    'word: while let Some((first, others)) = rest.split_first() {
        for (name, model) in models {
            if let Some(behind) = rest.strip_prefix(name.as_bytes()) {
                replaced.extend_from_slice(model.path().as_os_str().as_bytes());
                rest = behind;
                continue 'word;
            }
        }
        replaced.push(*first);
        rest = others;
    }
    OsString::from_vec(replaced)
}
