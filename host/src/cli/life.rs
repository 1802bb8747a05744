//! How keys come and go: `rewrap`, and of `key`: rotate, retire, destroy, backup and restore.

use std::path::{Path, PathBuf};

use modelseal_core::sign::TRUSTED_MAX;
use modelseal_hsm::{Key, Location, Role, Vault};
use serde_json::{Value, json};

use super::args::{DestroyArgs, RetireArgs, RewrapArgs, RotateArgs};
use super::context::{Context, error_object, typed};
use super::keys::key_object;
use super::terminal::{name, names};
use crate::depends::{self, Dependents, find_sealed};
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing};
use crate::registry::Registry;
use crate::rewrap::{self as rewrapping, Rewrapped};
use crate::text::shown;
use crate::vaults::{make_parent, tell_of_files};

/// How many names a message has; the rest is counted.
const NAMES_MAX: usize = 8;

pub(super) fn rewrap(args: &RewrapArgs, context: &Context<'_>) -> Result<()> {
    let files = find_sealed(&args.files)?;
    if files.is_empty() {
        let names = list(args.files.iter().map(|path| path.display().to_string()));
        let hint = "name sealed models, or folders that have some whose names end in .sealed";
        return Err(Error::new(Code::Io, format!("there is no sealed model in {names}"), hint));
    }
    let vault = context.vault()?;
    let bar = context.count("rewrapping", files.len());
    let mut done = Vec::new();
    for file in &files {
        done.push((file, rewrapping::rewrap(&*vault, file)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let objects: Vec<_> = done.iter().map(|(file, result)| rewrapped_object(file, result)).collect();
    let lines = done.iter().filter_map(|(file, result)| Some(rewrapped_text(file, result.as_ref().ok()?)));
    let lines: Vec<_> = lines.collect();
    if context.is_json() || !lines.is_empty() {
        context.show(&json!({ "rewrapped": objects }), &lines)?;
    }
    if let [(_, Err(error))] = &done[..] {
        return Err(error.clone());
    }
    let failed: Vec<_> = done.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    match failed[..] {
        [] => Ok(()),
        [first, ..] => {
            if !context.is_json() {
                failed.iter().for_each(|error| context.report(error));
            }
            let what = format!("{} of {} sealed models weren't rewrapped", failed.len(), files.len());
            Err(Error::new(first.code(), what, "see what is said of each; then run it again for those"))
        }
    }
}

fn rewrapped_object(file: &Path, result: &Result<Rewrapped>) -> Value {
    match result {
        Ok(done) => json!({
            "file": name(file),
            "ok": true,
            "to": done.to,
            "written": done.written,
            "cleared": done.cleared,
        }),
        Err(error) => json!({ "file": name(file), "ok": false, "error": error_object(error) }),
    }
}

fn rewrapped_text(file: &Path, done: &Rewrapped) -> String {
    let (file, to) = (file.display(), done.to);
    match (done.written, done.cleared.as_slice()) {
        (false, []) => format!("{file} is under master/{to} already"),
        (_, cleared) => {
            let cleared: Vec<_> = cleared.iter().map(|version| format!("master/{version}")).collect();
            format!("{file} is under master/{to} now; cleared: {}", cleared.join(", "))
        }
    }
}

pub(super) fn rotate(args: &RotateArgs, context: &Context<'_>) -> Result<()> {
    let role = Role::from(args.role);
    if args.algorithm.is_some() && role != Role::Publisher {
        return Err(Error::usage("--algorithm is for publisher keys", "leave it out"));
    }
    let vault = context.vault()?;
    let registry = context.registry()?;
    let version = {
        let _lock = lock(&registry)?;
        // A key that the registry can't follow isn't made.
        if role == Role::Publisher
            && let Some(found) = Registry::read(&registry)?
        {
            found.require_vault(&registry, &*vault)?;
        }
        let version = vault.rotate(role, args.algorithm.map(Into::into))?;
        follow(&*vault, &registry, role)?;
        version
    };
    let next = match role {
        Role::Master => "move sealed models to it with `modelseal rewrap`",
        Role::Fleet => "devices that are enrolled keep their keys; new ones get theirs from it",
        Role::Publisher => {
            "hand out the keys of `modelseal key export` before anything that the new one signed"
        }
    };
    let keys = vault.keys()?;
    let made = keys.iter().find(|key| key.role == role && key.version == version);
    let mut text = vec![format!("made {}/{version}, which is used from now on; {next}", role.name())];
    let left_out = if role == Role::Publisher { left_out(&*vault, &keys)? } else { Vec::new() };
    if !left_out.is_empty() {
        let names = list(left_out.iter().cloned());
        text.push(format!(
            "readers take {TRUSTED_MAX} keys, so `key export` and new identities leave out {names}: `modelseal reseal` what only they signed"
        ));
    }
    context
        .show(&json!({ "made": made.map(|key| key_object(&*vault, key)), "not_exported": left_out }), &text)
}

/// The publisher keys that are used and that readers don't get any more: they take the newest.
fn left_out(vault: &dyn Vault, keys: &[Key]) -> Result<Vec<String>> {
    let retired = vault.retired()?;
    let active = keys.iter().filter(|key| key.role == Role::Publisher);
    let active = active.filter(|key| !retired.contains(&(key.role, key.version)));
    let mut older: Vec<_> = active.rev().skip(TRUSTED_MAX).map(|key| key.version).collect();
    older.reverse();
    Ok(older.iter().map(|version| format!("{}/{version}", Role::Publisher.name())).collect())
}

pub(super) fn retire(args: &RetireArgs, context: &Context<'_>) -> Result<()> {
    let (role, version) = (Role::from(args.role), args.version);
    let key = format!("{}/{version}", role.name());
    let vault = context.vault()?;
    let registry = context.registry()?;
    if args.undo {
        let _lock = lock(&registry)?;
        vault.reinstate(role, version)?;
        return context.show(&json!({ "reinstated": key }), &format!("{key} is used again"));
    }
    // Whether it can be, before anything is looked at.
    if !vault.keys()?.iter().any(|found| found.role == role && found.version == version) {
        return Err(modelseal_hsm::Error::NoVersion(role, version).into());
    }
    if vault.newest(role)? == version {
        return Err(modelseal_hsm::Error::Newest(role, version).into());
    }
    let found = look(&*vault, role, version, &find_sealed(&args.files)?, &registry)?;
    if !args.force {
        require_independent(role, &key, &found, &args.files)?;
    }
    {
        let _lock = lock(&registry)?;
        // The registry knows the newer keys before it can't be told any more that they are the same publisher's.
        follow(&*vault, &registry, role)?;
        vault.retire(role, version)?;
    }
    let failed: Vec<_> = found
        .failed
        .iter()
        .map(|(file, error)| json!({ "file": name(file), "error": error_object(error) }))
        .collect();
    let object = json!({
        "retired": key,
        "looked_at": found.looked_at,
        "sealed": names(&found.sealed),
        "devices": found.devices,
        "foreign": names(&found.foreign),
        "failed": failed,
    });
    context.show(&object, &retired_text(role, &key, &found))
}

/// What depends on the key.
fn look(
    vault: &dyn Vault,
    role: Role,
    version: u32,
    files: &[PathBuf],
    registry: &Path,
) -> Result<Dependents> {
    match role {
        Role::Master => Ok(depends::on_master(vault, version, files)),
        Role::Publisher => depends::on_publisher(vault, version, files),
        Role::Fleet => Ok(depends::on_fleet(&Registry::require(registry)?, version)),
    }
}

fn require_independent(role: Role, key: &str, found: &Dependents, given: &[PathBuf]) -> Result<()> {
    let refuse = |what: String, hint: String| Err(Error::new(Code::Refused, what, hint));
    let names = |paths: &[PathBuf]| list(paths.iter().map(|path| path.display().to_string()));
    if role != Role::Fleet && found.looked_at == 0 {
        let what = format!("what depends on {key} can't be known without looking at the sealed models");
        let none =
            if given.is_empty() { String::new() } else { format!("there is none in {}: ", names(given)) };
        return refuse(what, format!("{none}name them, or the folders that they are in; or give --force"));
    }
    if !found.sealed.is_empty() {
        let (does, hint) = match role {
            Role::Publisher => (
                "have no other signature than that of",
                "`modelseal reseal` them and put the old ones away first, or give --force",
            ),
            _ => ("open with no other key than", "`modelseal rewrap` them first, or give --force"),
        };
        let what = format!("{} sealed models {does} {key}: {}", found.sealed.len(), names(&found.sealed));
        return refuse(what, hint.into());
    }
    if !found.devices.is_empty() {
        let devices = list(found.devices.iter().cloned());
        let what = format!("{} devices have keys derived from {key}: {devices}", found.devices.len());
        return refuse(
            what,
            "enrol them anew under new ids; or give --force, and they get no more grants".into(),
        );
    }
    if let Some((file, error)) = found.failed.first() {
        let mut what = format!("{} sealed models can't be looked at; the first: ", found.failed.len());
        let said = error.what();
        let file = file.display().to_string();
        what.push_str(&if said.starts_with(&*shown(&file)) {
            said.to_owned()
        } else {
            format!("{file}: {said}")
        });
        return Err(Error::new(error.code(), what, "name those that can be, or give --force"));
    }
    if !found.foreign.is_empty() {
        let what = format!(
            "whether {} sealed models depend on {key} can't be known, for no publisher key of this vault signed them: {}",
            found.foreign.len(),
            names(&found.foreign)
        );
        return refuse(what, "put those of others elsewhere, or give --force".into());
    }
    Ok(())
}

fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut names: Vec<_> = names.take(NAMES_MAX).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

fn retired_text(role: Role, key: &str, found: &Dependents) -> Vec<String> {
    let mut text = format!("retired {key}");
    match role {
        Role::Fleet if found.devices.is_empty() => text.push_str("; no device depends on it"),
        Role::Fleet => text.push_str(&format!(", though {} devices depend on it", found.devices.len())),
        _ if found.looked_at == 0 => text.push_str(" without looking at any sealed model"),
        _ => text.push_str(&format!(
            "; of {} sealed models {} depend on it",
            found.looked_at,
            found.sealed.len()
        )),
    }
    let mut text = vec![text];
    for path in &found.sealed {
        text.push(format!("  depends on it: {}", path.display()));
    }
    for device in &found.devices {
        text.push(format!("  depends on it: {device}"));
    }
    for path in &found.foreign {
        text.push(format!("  no key of this vault signed: {}", path.display()));
    }
    for (path, error) in &found.failed {
        text.push(format!("  not looked at: {}: {error}", path.display()));
    }
    if role == Role::Publisher {
        text.push("devices enrolled before the next version trust it until they get the newer keys: `modelseal device trust`, or their firmware".into());
    }
    text
}

pub(super) fn destroy(args: &DestroyArgs, context: &Context<'_>) -> Result<()> {
    let (role, version) = (Role::from(args.role), args.version);
    let key = format!("{}/{version}", role.name());
    let vault = context.vault()?;
    let there = vault.keys()?.iter().any(|found| found.role == role && found.version == version);
    if !there {
        return Err(modelseal_hsm::Error::NoVersion(role, version).into());
    }
    // Nobody is asked to confirm what would be refused.
    if !vault.retired()?.contains(&(role, version)) {
        return Err(modelseal_hsm::Error::NotRetired(role, version).into());
    }
    let wanted = format!("destroy {key}");
    let question = format!("what only {key} opens will be lost for good; to confirm, type: {wanted}");
    match args.confirm.clone().or_else(|| typed(&question)) {
        None => {
            let what = format!("destroying {key} takes a confirmation");
            return Err(Error::usage(what, format!("give --confirm '{wanted}', or run it on a terminal")));
        }
        Some(text) if text != wanted => {
            return Err(Error::usage(format!("{text:?} doesn't confirm it"), format!("it is: {wanted}")));
        }
        Some(_) => {}
    }
    let _lock = lock(&context.registry()?)?;
    vault.destroy(role, version)?;
    let kept = match context.location()? {
        Location::File(_) => "; backups and snapshots of the vault file still have it",
        Location::Pkcs11(_) => "; backups and clones of the token still have it",
    };
    context.show(&json!({ "destroyed": key }), &format!("destroyed {key}{kept}"))
}

pub(super) fn backup(output: &Path, context: &Context<'_>) -> Result<()> {
    context.protect(output, &[])?;
    let location = context.location()?;
    let bytes =
        modelseal_hsm::backup(&location, &|| context.ask(&location, false), &|| context.ask_of_backup(true))?;
    files::write(output, &bytes, Access::Private, Existing::Keep)?;
    let registry = context.registry()?;
    let text = format!(
        "wrote {}; keep it and its passphrase apart, and a copy of {} with it",
        output.display(),
        registry.display()
    );
    context.show(&json!({ "backup": name(output), "registry": name(&registry) }), &text)
}

pub(super) fn restore(backup: &Path, context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    // Nobody is asked for the passphrase of a backup that isn't there.
    std::fs::metadata(backup).map_err(|error| Error::io(backup, &error))?;
    if let Location::File(path) = &location {
        make_parent(path)?;
    }
    let vault = modelseal_hsm::restore(&location, backup, &|| context.ask_of_backup(false), &|| {
        context.ask(&location, true)
    })?;
    tell_of_files(&*vault);
    let (keys, registry) = (vault.keys()?, context.registry()?);
    let there = registry.exists();
    let next = if there { "" } else { "; put the registry's copy back, too, at " };
    let place = if there { String::new() } else { registry.display().to_string() };
    let text = format!("restored {} keys into {location}{next}{place}", keys.len());
    let object = json!({
        "vault": location.to_string(),
        "keys": keys.iter().map(|key| key_object(&*vault, key)).collect::<Vec<_>>(),
        "registry": name(&registry),
        "registry_exists": there,
    });
    context.show(&object, &text)
}

/// Changes of a vault's keys are made one after the other: a token has no lock of its own.
fn lock(registry: &Path) -> Result<std::fs::File> {
    make_parent(registry)?;
    files::lock(registry)
}

/// The registry notes the publisher's keys, so that it stays this vault's when older ones go. The caller holds its lock
/// over the change of the keys, too: of two that change them, the second one's keys are all.
fn follow(vault: &dyn Vault, path: &Path, role: Role) -> Result<()> {
    if role == Role::Publisher
        && let place = files::resolve(path)?
        && let Some(mut registry) = Registry::read(&place)?
    {
        registry.require_vault(path, vault)?;
        registry.follow(vault)?;
        registry.write(&place)?;
    }
    Ok(())
}
