//! Folder -> sealed folder: each file is sealed alone, then the list of them (FORMAT.md, section 14).

use std::path::{Path, PathBuf};

use modelseal_core::manifest::{Claims, LENGTH_MAX, Subject, Suite};
use modelseal_core::sealed::ModelId;
use modelseal_hsm::Vault;
use zeroize::Zeroizing;

use crate::directory::{LIST_NAME, sealed_name};
use crate::error::{Error, Result};
use crate::files::{self, Access};
use crate::folders::{self, OutputFolder};
use crate::kind;
use crate::list::{Entry, KIND, LIST_MAX, List, problem_of_path};
use crate::opener::now;
use crate::profile::Profile;
use crate::seal::{self, Progress};
use crate::vaults;

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
pub fn length(folder: &Path) -> Result<u64> {
    Ok(walk(folder)?.iter().map(|file| file.length).sum())
}

/// Seals every file below `folder` into the new folder `out`, which appears when it is complete.
pub fn seal(
    vault: &dyn Vault,
    folder: &Path,
    release: &Release<'_>,
    out: &Path,
    progress: Progress<'_>,
) -> Result<SealedFolder> {
    folders::require_apart(folder, out)?;
    seal::check(&release.subject(KIND, 1))?;
    let files = walk(folder)?;
    // Everything that could be wrong with a path is known before anything is sealed.
    let placeholder = |file: &Source| file.entry(if file.length == 0 { [0; 32] } else { [1; 32] });
    List::new(files.iter().map(placeholder).collect()).map_err(|error| error.about(folder))?;
    let mut output = OutputFolder::create(out, Access::Public)?;
    let (mut entries, mut done) = (Vec::with_capacity(files.len()), 0);
    for file in &files {
        entries.push(file.seal(vault, release, &mut output, &mut |bytes| progress(done + bytes))?);
        done += file.length;
    }
    let list = Zeroizing::new(List::new(entries)?.encode().unwrap_or_default());
    if list.len() as u64 > LIST_MAX {
        return Err(Error::usage("the list of files is longer than 16 MiB", "seal fewer files"));
    }
    let subject = release.subject(KIND, list.len() as u64);
    let (sealed, file) = seal::seal_bytes_into(vault, &list, subject, output.file()?, &mut |_| ())?;
    output.add(LIST_NAME, file)?;
    output.commit()?;
    Ok(SealedFolder { id: sealed.id, files: files.len(), length: done })
}

/// A file that is to be sealed.
struct Source {
    path: String,
    file: PathBuf,
    length: u64,
}

impl Source {
    fn entry(&self, id: [u8; 32]) -> Entry {
        Entry { path: self.path.clone(), id, length: self.length }
    }

    fn seal(
        &self,
        vault: &dyn Vault,
        release: &Release<'_>,
        output: &mut OutputFolder,
        progress: Progress<'_>,
    ) -> Result<Entry> {
        if self.length == 0 {
            return Ok(self.entry([0; 32]));
        }
        let subject = release.subject(kind::of_file(&self.file)?, self.length);
        let (sealed, file) = seal::seal_into(vault, &self.file, subject, output.file()?, progress)?;
        output.add(&sealed_name(&self.path), file)?;
        Ok(self.entry(*sealed.id.as_bytes()))
    }
}

/// The files below `folder`, whatever their names.
fn walk(folder: &Path) -> Result<Vec<Source>> {
    let root = folder.canonicalize().map_err(|error| Error::io(folder, &error))?;
    let secrets: Vec<_> = vaults::secret_files().iter().map(|path| files::place(path)).collect();
    let mut sources = Vec::new();
    let mut below = folders::below(&root)?;
    below.sort();
    for found in below {
        let file = root.join(&found);
        let shown = folder.join(&found);
        let Some(path) = found.to_str().map(|path| path.replace(std::path::MAIN_SEPARATOR, "/")) else {
            let what = format!("{}: its name isn't UTF-8", shown.display());
            return Err(Error::usage(what, "give it another name"));
        };
        if let Some(problem) = problem_of_path(&path) {
            return Err(Error::usage(format!("{path:?} {problem}"), "leave it out, or give it another name"));
        }
        let io = |error: std::io::Error| Error::io(&shown, &error);
        // Behind a link, too.
        let target = file.canonicalize().map_err(io)?;
        let metadata = target.metadata().map_err(io)?;
        if !target.starts_with(&root) || !metadata.is_file() {
            let what = format!("{} isn't a file, or is a link out of the folder", shown.display());
            let hint = "seal a copy without links: cp -rL FOLDER COPY";
            return Err(Error::usage(what, hint));
        }
        if files::is_kept(&target) || secrets.contains(&target) {
            let what = format!("{} holds modelseal's own keys, secrets or devices", shown.display());
            return Err(Error::usage(
                what,
                "keep it outside the folder: whoever opens that would get it, too",
            ));
        }
        let length = metadata.len();
        if length > LENGTH_MAX {
            return Err(Error::usage(format!("{} is too long", shown.display()), "leave it out"));
        }
        sources.push(Source { path, file: target, length });
    }
    if sources.is_empty() {
        return Err(Error::usage(format!("{} has no files", folder.display()), "name a model's folder"));
    }
    Ok(sources)
}
