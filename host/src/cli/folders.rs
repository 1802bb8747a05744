//! `seal`, `open`, `verify`, `inspect` and `grant` of a folder of models.

use std::path::{Path, PathBuf};

use modelseal_core::grant::{DeviceId, GrantBytes};
use modelseal_core::sign::Publisher;
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use serde_json::{Value, json};

use super::args::{GrantArgs, OpenArgs, SealArgs, VerifyArgs};
use super::context::Context;
use super::models::{claims, explain_floor, opener, own_publisher, protect};
use super::terminal::name;
use crate::directory::{
    self, Directory, LIST_GRANT, LIST_NAME, Release, grant_name, open_list, open_regular,
};
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing};
use crate::folders::{self, require_apart};
use crate::grant::{self as granting, Limits};
use crate::open::SealedFile;
use crate::opener::{Opener, With};
use crate::registry::{Device, Registry};

pub(super) fn seal(args: &SealArgs, context: &Context<'_>) -> Result<()> {
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
    let length = directory::length(&args.model)?;
    let vault = context.vault()?;
    let bar = context.progress("sealing", length);
    let sealed = directory::seal(&*vault, &args.model, &release, &args.output, &mut |done| {
        bar.set_position(done);
    })?;
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

pub(super) fn open(args: &OpenArgs, context: &Context<'_>) -> Result<()> {
    require_apart(&args.sealed, &args.output)?;
    protect(args, context)?;
    folders::require_new_folder(&args.output)?;
    let opener = opener(&args.by, args.grant.as_deref(), context)?;
    let length = sealed_length(&args.sealed)?;
    let bar = context.progress("opening", length);
    let directory = directory::open_into(&args.sealed, &opener, &args.output, &mut |done| {
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

/// About what there is to do: the sealed files' own length.
fn sealed_length(dir: &Path) -> Result<u64> {
    let found = folders::below(dir)?;
    Ok(found.iter().filter_map(|file| Some(dir.join(file).metadata().ok()?.len())).sum())
}

/// With the vault, everything that opening checks; with a publisher's key alone, each sealed model by itself.
pub(super) fn verify(args: &VerifyArgs, given: Option<&Publisher>, context: &Context<'_>) -> Result<()> {
    let dir = args.sealed.as_path();
    let bar = context.progress("verifying", sealed_length(dir)?);
    let progress = |done| bar.set_position(done);
    let (files, complete) = match given {
        Some(publisher) => (verify_each(dir, publisher, &progress)?, false),
        None => (verify_listed(dir, context, &progress)?, true),
    };
    bar.finish_and_clear();
    let list = open_list(dir)?;
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

fn verify_listed(dir: &Path, context: &Context<'_>, progress: &dyn Fn(u64)) -> Result<usize> {
    let vault: std::sync::Arc<dyn Vault> = context.vault()?.into();
    let (directory, _) = Directory::open(dir, &Opener::new(With::Vault(vault.clone()), None))?;
    directory.require_complete()?;
    let mut done = 0;
    for entry in directory.files() {
        let mut member = directory.open_file(&entry.path)?;
        if let Some(sealed) = member.sealed() {
            let publisher = own_publisher(&*vault, sealed)?;
            member.verify(&publisher, &mut |bytes| progress(done + bytes))?;
        }
        done += entry.length;
    }
    Ok(directory.files().len())
}

/// The list, too.
fn verify_each(dir: &Path, publisher: &Publisher, progress: &dyn Fn(u64)) -> Result<usize> {
    let list = open_list(dir)?;
    let header = list.header()?;
    let of_list = (header.manifest().subject.line, header.manifest().subject.version);
    let (mut done, mut files) = (0, 0);
    for path in sealed_files(dir)? {
        let mut sealed = open_regular(&dir.join(&path))?;
        sealed.verify(publisher, &mut |bytes| progress(done + bytes))?;
        let header = sealed.header()?;
        let subject = &header.manifest().subject;
        if (subject.line, subject.version) != of_list {
            let what = format!("{} is of another line or version", dir.join(&path).display());
            return Err(Error::new(Code::Refused, what, "take the folder from its publisher again"));
        }
        done += subject.length;
        files += usize::from(path != Path::new(LIST_NAME));
    }
    Ok(files)
}

fn sealed_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = folders::below(dir)?;
    found.retain(|path| path.extension().is_some_and(|ending| ending == "sealed"));
    found.sort();
    Ok(found)
}

/// What each sealed model says of itself.
pub(super) fn inspect(dir: &Path, context: &Context<'_>) -> Result<()> {
    let list = open_list(dir)?;
    let (mut objects, mut rows) = (Vec::new(), Vec::new());
    for path in sealed_files(dir)?.iter().filter(|path| *path != Path::new(LIST_NAME)) {
        let sealed = open_regular(&dir.join(path))?;
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
    device: &str,
    limits: Limits,
    context: &Context<'_>,
) -> Result<()> {
    let id = DeviceId::new(device).map_err(|error| Error::from(error).as_usage())?;
    require_apart(&args.sealed, &args.output)?;
    let path = context.registry()?;
    let registry = Registry::require(&path)?;
    let device = registry.device(id.as_str())?;
    let vault: std::sync::Arc<dyn Vault> = context.vault()?.into();
    registry.require_vault(&path, &*vault)?;
    let (directory, _) = Directory::open(&args.sealed, &Opener::new(With::Vault(vault.clone()), None))?;
    directory.require_complete()?;
    let header = directory.header()?;
    let subject = &header.manifest().subject;
    let granter = Granter { vault: &*vault, id, device, limits, out: &args.output, context };
    let granted = granter.grant_all(&args.sealed, &directory, &path);
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
    fn grant_all(&self, dir: &Path, directory: &Directory, registry: &Path) -> Result<usize> {
        let bar = self.context.progress_of("granting", directory.files().len() as u64);
        let mut grants = Vec::with_capacity(directory.files().len() + 1);
        for entry in directory.files() {
            if let Some(sealed) = directory.open_file(&entry.path)?.sealed() {
                grants.push((grant_name(&entry.path), self.grant(sealed)?));
            }
            bar.inc(1);
        }
        grants.push((LIST_GRANT.into(), self.grant(&open_list(dir)?)?));
        bar.finish_and_clear();
        files::create_dir(self.out)?;
        for (name, bytes) in &grants {
            let out = self.out.join(name);
            if let Some(folder) = out.parent() {
                std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
            }
            self.context.protect(&out, &[registry])?;
            files::write(&out, bytes, Access::Public, Existing::Replace)?;
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
