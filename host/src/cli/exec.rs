//! `exec`: runs a program with opened models in memory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::args::ExecArgs;
use super::context::Context;
use super::models::opener;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::exec::{InMemory, Writing, become_command, require_program};
use crate::io::Folder;
use crate::open::{SealedFile, SealedInput};
use crate::opener::{Confirming, Opener};

/// What a word of the command has in braces, and the model whose file name replaces it.
type Named = (String, InMemory);

pub(super) fn run(args: &ExecArgs, context: &Context<'_>) -> Result<()> {
    let program = args.command.first().map(OsString::as_os_str).unwrap_or_default();
    require_program(program)?;
    let mut inputs = Vec::with_capacity(args.sealed.len());
    for sealed in &args.sealed {
        inputs.push(SealedInput::open(sealed)?);
    }
    let mut files = Vec::with_capacity(inputs.len());
    let several = inputs.len() > 1;
    let mut models = None;
    for (input, path) in inputs.into_iter().zip(&args.sealed) {
        match input {
            SealedInput::Model(sealed) => files.push(sealed),
            SealedInput::Folder(_) if several => {
                let what = format!("{} is a folder", path.display());
                return Err(Error::usage(what, "give one folder alone, or models that are files"));
            }
            SealedInput::Folder(folder) => models = Some(open_folder(args, folder, context)?),
        }
    }
    let models = match models {
        Some(models) => models,
        None => open_models(args, files, context)?,
    };
    let command: Vec<_> = args.command.iter().map(|word| replace(word, &models)).collect();
    let models: Vec<_> = models.into_iter().map(|(_, model)| model).collect();
    Err(become_command(&command, &models))
}

/// All are opened, then all are confirmed; the vault is closed when this returns.
fn open_models(args: &ExecArgs, files: Vec<SealedFile>, context: &Context<'_>) -> Result<Vec<Named>> {
    let names: Vec<_> = match args.sealed.len() {
        1 => vec!["{}".to_owned()],
        several => (1..=several).map(|number| format!("{{{number}}}")).collect(),
    };
    require_named(args, &names)?;
    let grants = grants(args)?;
    let first = opener(&args.by, grants.first().copied().flatten(), context)?;
    let mut opened = Vec::new();
    for ((sealed, grant), name) in files.into_iter().zip(grants).zip(names) {
        let (memory, confirming) = open_one(&first.with_grant(grant), sealed, context)?;
        opened.push(((name, memory), confirming));
    }
    let confirm = |(named, confirming): (_, Confirming)| confirming.confirm().map(|()| named);
    opened.into_iter().map(confirm).collect()
}

fn open_one(opener: &Opener, sealed: SealedFile, context: &Context<'_>) -> Result<(InMemory, Confirming)> {
    let (name, length) = {
        let header = sealed.header()?;
        let subject = &header.manifest().subject;
        (format!("{} {}", subject.line, subject.version), subject.length)
    };
    let bar = context.progress("opening", length);
    let memory = Writing::new(&name, length)?;
    let opened = opener.open(sealed)?.exec(memory, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    Ok(opened)
}

/// Of a folder, the files that the command names.
fn open_folder(args: &ExecArgs, folder: Folder, context: &Context<'_>) -> Result<Vec<Named>> {
    let shown = folder.path().to_owned();
    if has(args, "{}") {
        let what = format!("{} is a folder, for which there is no single file name", shown.display());
        let hint =
            "name its files, such as {config.json}; for a program that takes a folder, use `modelseal open`";
        return Err(Error::usage(what, hint));
    }
    let grant = match args.grants.as_slice() {
        [] => None,
        [grant] => Some(grant.as_path()),
        _ => return Err(Error::usage("a folder has one folder of grants", "give --grant once")),
    };
    let directory = Directory::open(folder, &opener(&args.by, grant, context)?)?;
    let named = directory.files().iter().map(|entry| (format!("{{{}}}", entry.path), entry));
    let named: Vec<_> = named.filter(|(name, _)| has(args, name)).collect();
    if named.is_empty() {
        let what = format!("the command names none of the files in {}", shown.display());
        return Err(Error::usage(what, "write {config.json} or the like where it takes a file's name"));
    }
    let paths: Vec<_> = named.iter().map(|(_, entry)| entry.path.as_str()).collect();
    let members = paths.iter().map(|path| directory.open_file(path)).collect::<Result<Vec<_>>>()?;
    directory.require_complete_but(&paths)?;
    let mut opened = Vec::new();
    for ((name, entry), member) in named.iter().zip(members) {
        let mut memory = Writing::new(&entry.path, entry.length)?;
        let bar = context.progress("opening", entry.length);
        member.copy_to(&mut |bytes| memory.write(bytes), &mut |done| bar.set_position(done))?;
        bar.finish_and_clear();
        opened.push((name.clone(), memory.seal()?));
    }
    directory.confirm()?;
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
