//! `seal`, `open`, `verify`, `inspect` and `grant` of a folder of models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelseal_core::grant::{DeviceId, GrantBytes};
use modelseal_core::sign::Publisher;
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use serde_json::{Value, json};

use super::args::{GrantArgs, OpenArgs, SealArgs};
use super::context::Context;
use super::models::{claims, explain_floor, opener, own_publisher, protect};
use super::terminal::name;
use crate::directory::{self, Directory, LIST_GRANT, LIST_NAME, Release, grant_name, open_list};
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing, Output};
use crate::folders::{self, require_apart};
use crate::grant::{self as granting, Limits};
use crate::io::Folder;
use crate::open::SealedFile;
use crate::opener::{Opener, With};
use crate::registry::{Device, Registry};
use crate::seal::Progress;

pub(super) fn seal(args: &SealArgs, folder: &Folder, context: &Context<'_>) -> Result<()> {
    let said = &args.said;
    if let Some(kind) = &said.kind {
        let what = format!("--kind {kind} would be every file's of the folder");
        return Err(Error::usage(what, "leave it out: each file's own is guessed"));
    }
    require_apart(&args.model, &args.output)?;
    let release = Release {
        line: &said.line,
        version: said.model_version,
        suite: said.suite.into(),
        profile: said.profile.into(),
        claims: claims(&said.claims)?,
    };
    folders::require_new_folder(&args.output)?;
    let length = directory::length(folder)?;
    let vault = context.vault()?;
    let bar = context.progress("sealing", length);
    let protected = context.protected(&[]);
    let progress: Progress<'_> = &mut |done| bar.set_position(done);
    let sealed = directory::seal(&*vault, folder, &protected, &release, &args.output, progress)?;
    bar.finish_and_clear();
    let object = json!({
        "sealed": name(&args.output),
        "id": sealed.id.to_string(),
        "line": said.line,
        "version": said.model_version,
        "kind": "directory",
        "files": sealed.files,
        "length": sealed.length,
    });
    let text = format!(
        "sealed {} version {} ({}, {} bytes) in {}",
        said.line,
        said.model_version,
        counted(sealed.files),
        sealed.length,
        args.output.display()
    );
    context.show(&object, &text)
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".into() } else { format!("{files} files") }
}

pub(super) fn open(args: &OpenArgs, folder: Folder, context: &Context<'_>) -> Result<()> {
    require_apart(&args.sealed, &args.output)?;
    protect(args, context)?;
    folders::require_new_folder(&args.output)?;
    let opener = opener(&args.by, args.grant.as_deref(), context)?;
    let bar = context.progress("opening", directory::length(&folder)?);
    let directory = directory::open_into(folder, &opener, &args.output, &mut |done| {
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let header = directory.header()?;
    let subject = &header.manifest().subject;
    let object = json!({
        "opened": name(&args.output),
        "line": subject.line,
        "version": subject.version,
        "kind": subject.kind,
        "files": directory.files().len(),
        "length": directory.length(),
    });
    let text = format!(
        "opened {} version {} ({}) into {}",
        subject.line,
        subject.version,
        counted(directory.files().len()),
        args.output.display()
    );
    context.show(&object, &text)
}

/// With the vault, everything that opening checks; with a publisher's key alone, each sealed model by itself.
pub(super) fn verify(folder: Folder, given: Option<&Publisher>, context: &Context<'_>) -> Result<()> {
    let bar = context.progress("verifying", directory::length(&folder)?);
    let progress = |done| bar.set_position(done);
    let (files, list, complete) = match given {
        Some(publisher) => verify_each(&folder, publisher, &progress)?,
        None => verify_listed(folder, context, &progress)?,
    };
    bar.finish_and_clear();
    let header = list.header()?;
    let subject = &header.manifest().subject;
    let object = json!({
        "verified": true,
        "complete": complete,
        "id": header.id().to_string(),
        "line": subject.line,
        "version": subject.version,
        "files": files,
    });
    let mut text = vec![format!(
        "genuine: {} version {}, {}, id {}",
        subject.line,
        subject.version,
        counted(files),
        header.id()
    )];
    if !complete {
        text.push("whether one is missing or was swapped, only who can open the list can see".into());
    }
    context.show(&object, &text)
}

/// How many files were verified, the list that was, and whether it was held against them.
type Checked = (usize, SealedFile, bool);

fn verify_listed(folder: Folder, context: &Context<'_>, progress: &dyn Fn(u64)) -> Result<Checked> {
    let vault: Arc<dyn Vault> = context.vault()?.into();
    let directory = Directory::open(folder, &Opener::new(With::Vault(vault.clone()), None))?;
    directory.require_names()?;
    let mut done = 0;
    for entry in directory.files() {
        let mut member = directory.open_file(&entry.path)?;
        if let Some(sealed) = member.sealed() {
            let publisher = own_publisher(&*vault, sealed)?;
            member.verify(&publisher, &mut |bytes| progress(done + bytes))?;
        }
        done += entry.length;
    }
    Ok((directory.files().len(), directory.into_sealed_list(), true))
}

/// The list, too, and first of all: its line and version are those of every file.
fn verify_each(folder: &Folder, publisher: &Publisher, progress: &dyn Fn(u64)) -> Result<Checked> {
    let mut list = open_list(folder)?;
    list.verify(publisher, &mut |bytes| progress(bytes))?;
    let (line, version, mut done) = {
        let header = list.header()?;
        let subject = &header.manifest().subject;
        (subject.line.to_owned(), subject.version, subject.length)
    };
    let files = sealed_files(folder)?;
    for path in &files {
        let mut sealed = open_sealed(folder, path)?;
        sealed.verify(publisher, &mut |bytes| progress(done + bytes))?;
        let header = sealed.header()?;
        let subject = &header.manifest().subject;
        if (subject.line, subject.version) != (line.as_str(), version) {
            let what = format!("{} is of another line or version", folder.shown(path).display());
            return Err(Error::new(Code::Refused, what, "take the folder from its publisher again"));
        }
        done += subject.length;
    }
    Ok((files.len(), list, false))
}

fn open_sealed(folder: &Folder, path: &Path) -> Result<SealedFile> {
    let shown = folder.shown(path);
    let file = folder.file(path)?.ok_or_else(|| Error::io(&shown, &std::io::ErrorKind::NotFound.into()))?;
    SealedFile::from_file(&shown, file)
}

/// All but the list.
fn sealed_files(folder: &Folder) -> Result<Vec<PathBuf>> {
    let mut found = folder.names()?;
    found.retain(|path| {
        path.extension().is_some_and(|ending| ending == "sealed") && path != Path::new(LIST_NAME)
    });
    found.sort();
    Ok(found)
}

/// What each sealed model says of itself.
pub(super) fn inspect(folder: &Folder, context: &Context<'_>) -> Result<()> {
    let list = open_list(folder)?;
    let (mut objects, mut rows) = (Vec::new(), Vec::new());
    for path in &sealed_files(folder)? {
        let sealed = open_sealed(folder, path)?;
        let header = sealed.header()?;
        let subject = &header.manifest().subject;
        let (kind, length) = (subject.kind, subject.length);
        objects.push(
            json!({ "file": name(path), "id": header.id().to_string(), "kind": kind, "length": length }),
        );
        rows.push(format!("file          {} ({kind}, {length} bytes)", path.display()));
    }
    let mut object = super::inspect::sealed_object(&list)?;
    if let Value::Object(fields) = &mut object {
        fields.insert("type".into(), "sealed folder".into());
        fields.insert("files".into(), objects.into());
    }
    let text = [super::inspect::sealed_text(&list)?, rows].concat();
    context.answer(&object, &text)
}

/// One grant for each file, and one for the list: whoever gets them can open the folder, and no other.
pub(super) fn grant_to_one(
    args: &GrantArgs,
    folder: Folder,
    device: &str,
    limits: Limits,
    context: &Context<'_>,
) -> Result<()> {
    let id = DeviceId::new(device).map_err(|error| Error::from(error).as_usage())?;
    require_apart(&args.sealed, &args.output)?;
    let path = context.registry()?;
    let registry = Registry::require(&path)?;
    let device = registry.device(id.as_str())?;
    let vault: Arc<dyn Vault> = context.vault()?.into();
    registry.require_vault(&path, &*vault)?;
    let directory = Directory::open(folder, &Opener::new(With::Vault(vault.clone()), None))?;
    directory.require_names()?;
    let header = directory.header()?;
    let subject = &header.manifest().subject;
    let granter = Granter { vault: &*vault, id, device, limits, out: &args.output, context };
    let granted = granter.grant_all(&directory);
    let grants = granted.map_err(|error| explain_floor(error, subject.version))?;
    let object = json!({
        "grants": name(&args.output),
        "made": grants,
        "device": id.as_str(),
        "model": header.id().to_string(),
        "line": subject.line,
        "version": subject.version,
        "floor": args.floor.unwrap_or(subject.version),
    });
    let text = format!(
        "granted {} version {} ({}) to {} in {}",
        subject.line,
        subject.version,
        counted(directory.files().len()),
        id.as_str(),
        args.output.display()
    );
    context.show(&object, &text)
}

struct Granter<'a> {
    vault: &'a dyn Vault,
    id: DeviceId<'a>,
    device: &'a Device,
    limits: Limits,
    out: &'a Path,
    context: &'a Context<'a>,
}

impl Granter<'_> {
    /// Nothing is written before all are made. The list's comes last: until it is there, nothing opens.
    fn grant_all(&self, directory: &Directory) -> Result<usize> {
        let bar = self.context.progress_of("granting", directory.files().len() as u64);
        let mut grants = Vec::with_capacity(directory.files().len() + 1);
        for entry in directory.files() {
            if let Some(sealed) = directory.open_file(&entry.path)?.sealed() {
                grants.push((grant_name(&entry.path), self.grant(sealed)?));
            }
            bar.inc(1);
        }
        grants.push((LIST_GRANT.into(), self.grant(directory.sealed_list())?));
        bar.finish_and_clear();
        let folder = Arc::new(files::open_or_make_dir(self.out)?);
        let protected = self.context.protected(&[]);
        for (name, bytes) in &grants {
            protected.require_other(&self.out.join(name))?;
            let name = Path::new(name);
            let own = match name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => Arc::new(folder.make(parent, false)?),
                None => Arc::clone(&folder),
            };
            let name = Path::new(name.file_name().unwrap_or(name.as_os_str()));
            let mut output = Output::create_in(&own, name, Access::Public, Existing::Replace)?;
            output.write(bytes)?;
            output.commit()?;
        }
        Ok(grants.len())
    }

    fn grant(&self, sealed: &SealedFile) -> Result<GrantBytes> {
        wiped(|| {
            let content = sealed.unwrap_by_vault(self.vault, None)?;
            granting::grant(self.vault, &content, self.id, self.device, self.limits)
        })
    }
}
