//! `init` and `key`.

use modelseal_hsm::{Finding, Key, Role, Vault};
use serde_json::{Value, json};

use super::args::{InitArgs, KeyCommand};
use super::context::Context;
use super::life;
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing};
use crate::pem;
use crate::vaults;

pub(super) fn init(args: &InitArgs, context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    let registry = context.registry()?;
    let algorithm = args.publisher_algorithm.map(Into::into);
    let vault = vaults::create(&location, &registry, algorithm, &|| context.ask(&location, true))?;
    context.warn_of_files(&*vault);
    let keys = vault.keys()?;
    let made = if let [_] = keys.as_slice() { "1 key".into() } else { format!("{} keys", keys.len()) };
    let made = format!("made {made} in {location}; devices are kept in {}", registry.display());
    let lacking = lacking(&*vault);
    let text: Vec<_> = std::iter::once(made).chain(lacking.iter().map(|(_, text)| text.clone())).collect();
    let object = json!({
        "vault": location.to_string(),
        "registry": registry,
        "keys": keys.iter().map(key_object).collect::<Vec<_>>(),
        "unavailable": lacking.iter().map(|(role, _)| role.name()).collect::<Vec<_>>(),
    });
    context.show(&object, &text.join("\n"))
}

/// The roles whose keys a token can't have, and what that means.
fn lacking(vault: &dyn Vault) -> Vec<(Role, String)> {
    let why = |role: Role| {
        let error = vault.newest(role).err()?;
        Some((role, format!("no {} key: {error}; not available: {}", role.name(), role.serves())))
    };
    Role::ALL.into_iter().filter_map(why).collect()
}

pub(super) fn run(command: KeyCommand, context: &Context<'_>) -> Result<()> {
    match command {
        KeyCommand::List => list(&*context.vault()?, context),
        KeyCommand::Check => check(context),
        KeyCommand::Export { version, output } => {
            export(&*context.vault()?, version, output.as_deref(), context)
        }
        KeyCommand::Rotate(args) => life::rotate(&args, context),
        KeyCommand::Retire(args) => life::retire(&args, context),
        KeyCommand::Destroy(args) => life::destroy(&args, context),
        KeyCommand::Backup { output } => life::backup(&output, context),
        KeyCommand::Restore { backup } => life::restore(&backup, context),
    }
}

fn list(vault: &dyn Vault, context: &Context<'_>) -> Result<()> {
    let (keys, retired) = (vault.keys()?, vault.retired()?);
    let is_retired = |key: &Key| retired.contains(&(key.role, key.version));
    let line = |key: &Key| {
        let state = if is_retired(key) { "  retired" } else { "" };
        format!("{}/{}  {}{state}", key.role.name(), key.version, key.algorithm.name())
    };
    let object = |key: &Key| {
        let mut object = key_object(key);
        if let Some(object) = object.as_object_mut() {
            object.insert("retired".into(), is_retired(key).into());
        }
        object
    };
    let lines: Vec<_> = keys.iter().map(line).collect();
    context.answer(&json!({ "keys": keys.iter().map(object).collect::<Vec<_>>() }), &lines.join("\n"))
}

pub(super) fn key_object(key: &Key) -> Value {
    json!({ "role": key.role.name(), "version": key.version, "algorithm": key.algorithm.name() })
}

/// Where there is no login to a token, everything else about it is shown all the same.
fn check(context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    let refusal = match context.open(&location) {
        Ok(vault) => return show_findings(&vault.check()?, context),
        Err(refusal) => refusal,
    };
    let findings = modelseal_hsm::check_unopened(&location, &refusal);
    let refusal = Error::from(refusal).about(std::path::Path::new(&location.to_string()));
    if let Some(findings) = findings {
        let hint = refusal.hint().to_owned();
        show_findings(&findings, context).map_err(|failed| failed.with_hint(hint))?;
    }
    Err(refusal)
}

fn show_findings(findings: &[Finding], context: &Context<'_>) -> Result<()> {
    let object = |f: &Finding| {
        json!({
            "part": f.part.name(),
            "subject": f.subject,
            "status": status(f),
            "ok": f.ok,
            "detail": f.detail,
        })
    };
    let objects: Vec<_> = findings.iter().map(object).collect();
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    context.answer(&json!({ "ok": failed == 0, "failed": failed, "findings": objects }), &table(findings))?;
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(
        Code::Vault,
        format!("{failed} of {} checks failed", findings.len()),
        "see the lines with FAIL",
    ))
}

fn status(finding: &Finding) -> &'static str {
    match (finding.ok, finding.note) {
        (false, _) => "fail",
        (true, true) => "note",
        (true, false) => "ok",
    }
}

/// A heading for each part, and a line for each finding: what, in what state, and what was found.
fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for part in findings.chunk_by(|one, next| one.part == next.part) {
        lines.extend(part.first().map(|first| first.part.name().to_owned()));
        lines.extend(part.iter().map(|finding| {
            let status = match status(finding) {
                "fail" => "FAIL",
                status => status,
            };
            format!("  {status:4}  {:width$}  {}", finding.subject, finding.detail)
        }));
    }
    lines.join("\n")
}

fn export(
    vault: &dyn Vault,
    version: Option<u32>,
    output: Option<&std::path::Path>,
    context: &Context<'_>,
) -> Result<()> {
    // Retired ones only if they are asked for: nobody should trust them any more.
    let keys = match version {
        Some(version) => vec![vault.publisher_key(version)?],
        None => vault.publisher()?.keys().to_vec(),
    };
    let mut pems = Vec::new();
    for key in &keys {
        pems.push(pem::publisher(key).ok_or(modelseal_core::Error::Key)?);
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
