//! Folder -> sealed folder: each file is sealed alone, then the list of them (FORMAT.md, section 14).

use std::path::Path;

use modelseal_core::manifest::{Claims, LENGTH_MAX, Subject, Suite};
use modelseal_core::sealed::ModelId;
use modelseal_hsm::Vault;
use zeroize::Zeroizing;

use crate::directory::{LIST_NAME, sealed_name};
use crate::error::{Code, Error, Result};
use crate::files::Access;
use crate::folders::{self, OutputFolder};
use crate::io::Folder;
use crate::io::protect::Protected;
use crate::list::{Entry, KIND, LIST_MAX, List, problem_of_path};
use crate::opener::now;
use crate::profile::Profile;
use crate::seal::{self, Model, Progress};

/// What is said of all models of a folder.
#[derive(Clone, Debug)]
pub struct Release<'a> {
    /// The line.
    pub line: &'a str,
    /// The version, which is released once.
    pub version: u64,
    /// The cipher.
    pub suite: Suite,
    /// Where they will open.
    pub profile: Profile,
    /// The claims.
    pub claims: Claims<'a>,
}

impl<'a> Release<'a> {
    fn subject(&self, kind: &'a str, length: u64) -> Subject<'a> {
        let (chunk_log2, align_log2) = self.profile.logs(length);
        Subject {
            suite: self.suite,
            chunk_log2,
            align_log2,
            line: self.line,
            version: self.version,
            kind,
            length,
            created: now().unwrap_or(0),
            claims: self.claims.clone(),
        }
    }
}

/// A folder that was sealed.
#[derive(Clone, Debug)]
pub struct SealedFolder {
    /// The id of its list.
    pub id: ModelId,
    /// How many files it has.
    pub files: usize,
    /// Their length together.
    pub length: u64,
}

/// The length of all files of a folder, for progress.
pub fn length(folder: &Folder) -> Result<u64> {
    Ok(folder.names()?.iter().map(|name| folder.about_as_long(name)).sum())
}

/// Seals every file below `folder` but those of `protected`, which are refused, into the new folder `out`, which appears
/// when it is complete.
pub fn seal(
    vault: &dyn Vault,
    folder: &Folder,
    protected: &Protected,
    release: &Release<'_>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<SealedFolder> {
    folders::require_apart(folder.path(), out)?;
    seal::check(&release.subject(KIND, 1))?;
    // Everything that could be wrong with a path is known before anything is sealed.
    let paths = paths(folder)?;
    let placeholder = |path: &String| Entry { path: path.clone(), id: [0; 32], length: 0 };
    List::new(paths.iter().map(placeholder).collect()).map_err(|error| error.about(folder.path()))?;
    let mut output = OutputFolder::create(out, Access::Public)?;
    let (mut entries, mut done) = (Vec::with_capacity(paths.len()), 0);
    for path in paths {
        let model = open(folder, &path, protected)?;
        entries.push(seal_one(vault, &model, path, release, &mut output, &mut |more| progress(done + more))?);
        done += model.length();
    }
    let files = entries.len();
    let list = Zeroizing::new(List::new(entries)?.encode().unwrap_or_default());
    if list.len() as u64 > LIST_MAX {
        return Err(Error::usage("the list of files is longer than 16 MiB", "seal fewer files"));
    }
    let subject = release.subject(KIND, list.len() as u64);
    let (sealed, file) = seal::seal_bytes_into(vault, &list, subject, output.file()?, &mut |_| ())?;
    output.add(LIST_NAME, file)?;
    output.commit()?;
    Ok(SealedFolder { id: sealed.id, files, length: done })
}

/// One of the folder's files. It is opened once, beneath the folder: a link that leads out of it isn't followed, whenever
/// it appears.
fn open(folder: &Folder, path: &str, protected: &Protected) -> Result<Model> {
    let not_a_file = |error: Error| match error.code() {
        Code::NotAuthentic => error.as_usage(),
        _ => error,
    };
    let shown = folder.shown(path);
    let gone =
        || Error::new(Code::Io, format!("{}: there is no such file", shown.display()), "seal it again");
    let file = folder.file(path).map_err(not_a_file)?.ok_or_else(gone)?;
    let model = Model::of(file, &shown, protected)?;
    if model.length() > LENGTH_MAX {
        return Err(Error::usage(format!("{} is too long", shown.display()), "leave it out"));
    }
    Ok(model)
}

fn seal_one(
    vault: &dyn Vault,
    model: &Model,
    path: String,
    release: &Release<'_>,
    output: &mut OutputFolder,
    progress: Progress<'_>,
) -> Result<Entry> {
    let length = model.length();
    if length == 0 {
        return Ok(Entry { path, id: [0; 32], length });
    }
    let subject = release.subject(model.kind()?, length);
    let (sealed, file) = seal::seal_into(vault, model, subject, output.file()?, progress)?;
    output.add(&sealed_name(&path), file)?;
    Ok(Entry { path, id: *sealed.id.as_bytes(), length })
}

/// The paths of the files below `folder`, in order.
fn paths(folder: &Folder) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for found in folder.names()? {
        let Some(path) = found.to_str().map(|path| path.replace(std::path::MAIN_SEPARATOR, "/")) else {
            let what = format!("{}: its name isn't UTF-8", folder.shown(&found).display());
            return Err(Error::usage(what, "give it another name"));
        };
        if let Some(problem) = problem_of_path(&path) {
            return Err(Error::usage(format!("{path:?} {problem}"), "leave it out, or give it another name"));
        }
        paths.push(path);
    }
    if paths.is_empty() {
        let what = format!("{} has no files", folder.path().display());
        return Err(Error::usage(what, "name a model's folder"));
    }
    paths.sort();
    Ok(paths)
}
