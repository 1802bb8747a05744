//! `init` and `key`.

use modelseal_hsm::{Finding, Key, Role, Vault};
use serde_json::{Value, json};

use super::args::{InitArgs, KeyCommand};
use super::context::Context;
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing};
use crate::pem;
use crate::registry::{Locked, Registry};

pub(super) fn init(args: &InitArgs, context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    let registry = context.registry()?;
    if Registry::read(&registry)?.is_some() {
        let what = format!("there is a registry at {} already", registry.display());
        return Err(Error::new(Code::Vault, what, "name another one with --registry, or move it away"));
    }
    make_parent(&registry)?;
    if let modelseal_hsm::Location::File(path) = &location {
        make_parent(path)?;
        if files::place(path) == files::place(&registry) {
            return Err(Error::usage("vault and registry would be one file", "give --registry another name"));
        }
    }
    // Whether the registry can be written is found out before there are keys.
    drop(files::lock(&registry)?);
    context.warn_of_pin_source(&location);
    let algorithm = args.publisher_algorithm.map(Into::into);
    let vault = modelseal_hsm::create(&location, algorithm, &|| context.ask(&location, true))?;
    Locked::open(&registry, &vault.publisher()?)?.commit()?;
    let keys = vault.keys()?;
    let text = format!("made {} keys in {location}; devices are kept in {}", keys.len(), registry.display());
    let object = json!({
        "vault": location.to_string(),
        "registry": registry,
        "keys": keys.iter().map(key_object).collect::<Vec<_>>(),
    });
    context.show(&object, &text)
}

fn make_parent(path: &std::path::Path) -> Result<()> {
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error)),
        None => Ok(()),
    }
}

pub(super) fn run(command: KeyCommand, context: &Context<'_>) -> Result<()> {
    let vault = context.vault()?;
    match command {
        KeyCommand::List => list(&*vault, context),
        KeyCommand::Check => check(&*vault, context),
        KeyCommand::Export { version, output } => export(&*vault, version, output.as_deref(), context),
    }
}

fn list(vault: &dyn Vault, context: &Context<'_>) -> Result<()> {
    let keys = vault.keys()?;
    let lines: Vec<_> = keys
        .iter()
        .map(|key| format!("{}/{}  {}", key.role.name(), key.version, key.algorithm.name()))
        .collect();
    context.answer(&json!({ "keys": keys.iter().map(key_object).collect::<Vec<_>>() }), &lines.join("\n"))
}

fn key_object(key: &Key) -> Value {
    json!({ "role": key.role.name(), "version": key.version, "algorithm": key.algorithm.name() })
}

fn check(vault: &dyn Vault, context: &Context<'_>) -> Result<()> {
    let findings = vault.check()?;
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let line =
        |f: &Finding| format!("{}  {:width$}  {}", if f.ok { "ok  " } else { "FAIL" }, f.subject, f.detail);
    let object = |f: &Finding| json!({ "subject": f.subject, "ok": f.ok, "detail": f.detail });
    let objects: Vec<_> = findings.iter().map(object).collect();
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    let text = findings.iter().map(line).collect::<Vec<_>>().join("\n");
    context.answer(&json!({ "ok": failed == 0, "findings": objects }), &text)?;
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(
        Code::Vault,
        format!("{failed} of {} checks failed", findings.len()),
        "see the lines with FAIL",
    ))
}

fn export(
    vault: &dyn Vault,
    version: Option<u32>,
    output: Option<&std::path::Path>,
    context: &Context<'_>,
) -> Result<()> {
    let keys = vault.keys()?;
    let publishers = keys.iter().rev().filter(|key| key.role == Role::Publisher).map(|key| key.version);
    let wanted: Vec<_> = publishers.filter(|v| version.is_none_or(|wanted| wanted == *v)).collect();
    if wanted.is_empty() {
        return Err(modelseal_hsm::Error::NoVersion(Role::Publisher, version.unwrap_or(1)).into());
    }
    let mut pems = Vec::new();
    for version in wanted {
        pems.push(pem::publisher(&vault.publisher_key(version)?).ok_or(modelseal_core::Error::Key)?);
    }
    let text = pems.concat();
    match output {
        None => context.answer(&json!({ "publisher": pems }), text.trim_end()),
        Some(path) => {
            context.protect(path, &[])?;
            files::write(path, text.as_bytes(), Access::Public, Existing::Replace)?;
            context.show(&json!({ "output": path, "keys": pems.len() }), &format!("wrote {}", path.display()))
        }
    }
}
