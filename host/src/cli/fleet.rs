//! `grant` to many devices.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use modelseal_core::grant::{DEVICE_ID_MAX, DeviceId};
use modelseal_core::sign::Publisher;
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use serde_json::json;

use super::args::GrantArgs;
use super::context::Context;
use super::models::explain_floor;
use super::terminal::name;
use crate::directory::{Directory, LIST_GRANT, grant_name};
use crate::error::{Code, Error, Result};
use crate::fleet::{Fleet, Granted, Recipient};
use crate::folder::GrantFolder;
use crate::grant::Limits;
use crate::io::{Folder, Input};
use crate::open::{SealedFile, SealedInput};
use crate::opener::{Opener, With};
use crate::registry::{Device, Registry};

/// Ten million ids, each as long as can be.
const LIST_MAX: u64 = 10_000_000 * (DEVICE_ID_MAX as u64 + 2);
/// Most ids that a message names.
const NAMED_MAX: usize = 5;

pub(super) fn grant(
    args: &GrantArgs,
    sealed: SealedInput,
    limits: Limits,
    context: &Context<'_>,
) -> Result<()> {
    if args.output.as_os_str() == "-" {
        return Err(Error::usage("grants to many devices go into a folder", "name one: -o FOLDER"));
    }
    let path = context.registry()?;
    let registry = Registry::require(&path)?;
    let list = args.devices.as_deref().map(|path| read_list(path, context)).transpose()?;
    let vault: Arc<dyn Vault> = context.vault()?.into();
    let publisher = vault.publisher()?;
    registry.require_vault(&path, &*vault)?;
    // Of a folder, its list says which line, once it is genuine.
    let (directory, single) = match sealed {
        SealedInput::Folder(folder) => (Some(whole(folder, &vault)?), None),
        SealedInput::Model(sealed) => (None, Some(sealed)),
    };
    let of_list = directory.as_ref().map(Directory::sealed_list);
    let sealed = of_list.or(single.as_ref()).ok_or(modelseal_core::Error::Truncated)?;
    let header = sealed.header()?;
    let subject = &header.manifest().subject;
    let (recipients, left_out) = match &list {
        Some(list) => (listed(list, &registry, subject.line)?, Vec::new()),
        None => all(&registry, subject.line)?,
    };
    let entries =
        directory.iter().flat_map(|directory| directory.files().iter().map(move |entry| (directory, entry)));
    let files: Vec<_> = entries.filter(|(_, entry)| entry.length > 0).collect();
    let inputs: Vec<_> =
        [Some(args.sealed.as_path()), args.devices.as_deref()].into_iter().flatten().collect();
    let mut folder = GrantFolder::new(&args.output, context.protected(&inputs), !args.fresh)?;
    folder.require_distinct(&recipients)?;
    let grants = recipients.len() * (files.len() + 1);
    let (bar, begun) = (context.progress_of("granting", grants as u64), Instant::now());
    let fleet = ToMany { vault: &*vault, publisher: &publisher, limits, recipients: &recipients };
    let mut granted = Granted::default();
    let explained = |error| explain_floor(error, subject.version);
    for (directory, entry) in files {
        folder.within_devices(grant_name(&entry.path));
        let before = granted.made + granted.kept;
        if let Some(sealed) = directory.open_file(&entry.path)?.sealed() {
            let progress = |done| bar.set_position(before + done);
            granted = added(granted, fleet.grant(sealed, &folder, &progress).map_err(explained)?);
        }
    }
    if directory.is_some() {
        folder.within_devices(LIST_GRANT.into());
    }
    let before = granted.made + granted.kept;
    let more = fleet.grant(sealed, &folder, &|done| bar.set_position(before + done)).map_err(explained)?;
    granted = added(granted, more);
    bar.finish_and_clear();
    let object = json!({
        "grants": name(&args.output),
        "model": header.id().to_string(),
        "line": subject.line,
        "version": subject.version,
        "floor": limits.floor.unwrap_or(subject.version),
        "made": granted.made,
        "kept": granted.kept,
        "left_out": left_out.len(),
        "left_out_devices": left_out,
        "signatures": granted.signatures,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    let what = format!("{} version {}", subject.line, subject.version);
    let mut text = vec![said(granted, recipients.len(), &what, &args.output)];
    if !left_out.is_empty() {
        text.push(format!("left out {}, not enrolled for {}", some_of(&left_out), subject.line));
    }
    context.show(&object, &text)
}

/// A folder with all of its files. The list's grants come last: until they are there, nothing opens.
fn whole(folder: Folder, vault: &Arc<dyn Vault>) -> Result<Directory> {
    let directory = Directory::open(folder, &Opener::new(With::Vault(vault.clone()), None))?;
    directory.require_names()?;
    Ok(directory)
}

fn added(a: Granted, b: Granted) -> Granted {
    Granted { made: a.made + b.made, kept: a.kept + b.kept, signatures: a.signatures + b.signatures }
}

/// To whom, and by whom.
struct ToMany<'a> {
    vault: &'a dyn Vault,
    publisher: &'a Publisher,
    limits: Limits,
    recipients: &'a [Recipient<'a>],
}

impl ToMany<'_> {
    fn grant(
        &self,
        sealed: &SealedFile,
        store: &GrantFolder,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Granted> {
        let Self { vault, publisher, limits, recipients } = *self;
        wiped(|| {
            let content = sealed.unwrap_by_vault(vault, None)?;
            Fleet { vault, publisher, content: &content, limits, store }.grant(recipients, progress)
        })
    }
}

fn said(granted: Granted, total: usize, model: &str, dir: &Path) -> String {
    let Granted { made, kept, signatures } = granted;
    let total = if total == 1 { "1 device".into() } else { format!("{total} devices") };
    let signatures = if signatures == 1 { "1 signature".into() } else { format!("{signatures} signatures") };
    format!("granted {model} to {total} in {}: kept {kept}, made {made} with {signatures}", dir.display())
}

/// All that are enrolled for the line, and the others' ids.
fn all<'a>(registry: &'a Registry, line: &str) -> Result<(Vec<Recipient<'a>>, Vec<&'a str>)> {
    let (mut recipients, mut left_out) = (Vec::new(), Vec::new());
    for (id, device) in registry.devices() {
        if device.is_for(line) {
            recipients.push((DeviceId::new(id)?, device));
        } else {
            left_out.push(id.as_str());
        }
    }
    if recipients.is_empty() {
        let what = format!("no device is enrolled for the line {line}");
        return Err(Error::new(Code::Refused, what, "see `modelseal device list`"));
    }
    Ok((recipients, left_out))
}

/// A message names ids of the list, so the file mustn't be one with a secret.
fn read_list(path: &Path, context: &Context<'_>) -> Result<String> {
    let input: Box<dyn Read + Send> = match Input::open(path)? {
        Input::Stream(stream) => stream,
        Input::Folder(_) => return Err(Error::io(path, &std::io::ErrorKind::IsADirectory.into())),
        Input::File(file) => {
            let checked = context.protected(&[]).require_no_secret(&file, path);
            checked.map_err(|error| error.with_hint("name a list of device ids"))?;
            Box::new(file)
        }
    };
    let mut bytes = Vec::new();
    let read = input.take(LIST_MAX).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(path, &error))?;
    if bytes.len() as u64 == LIST_MAX {
        return Err(Error::from(modelseal_core::Error::Extended).about(path));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Error::usage("the list of devices isn't text", HINT).about(path))?;
    // Some editors begin UTF-8 with a mark that nobody sees.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

const HINT: &str = "list ids of enrolled devices, one a line, each once";

/// The listed devices, of which all must be enrolled, and for the line: nothing is granted before that is known.
fn listed<'a>(list: &'a str, registry: &'a Registry, line: &str) -> Result<Vec<Recipient<'a>>> {
    let ids = list.lines().map(|line| line.split_once('#').map_or(line, |(id, _)| id).trim());
    let (mut seen, mut problems) = (BTreeMap::new(), Problems::default());
    for id in ids.filter(|id| !id.is_empty()) {
        match (DeviceId::new(id), registry.devices().get(id)) {
            (Err(_), _) => problems.malformed.push(id),
            (Ok(_), None) => problems.unknown.push(id),
            (Ok(_), Some(device)) if !device.is_for(line) => problems.other_line.push(id),
            (Ok(known), Some(device)) => {
                let known: (DeviceId<'a>, &'a Device) = (known, device);
                if seen.insert(id, known).is_some() {
                    problems.twice.push(id);
                }
            }
        }
    }
    problems.none(line)?;
    if seen.is_empty() {
        return Err(Error::usage("the list names no device", HINT));
    }
    Ok(seen.into_values().collect())
}

/// Ids that can't be granted to.
#[derive(Default)]
struct Problems<'a> {
    malformed: Vec<&'a str>,
    twice: Vec<&'a str>,
    unknown: Vec<&'a str>,
    other_line: Vec<&'a str>,
}

impl Problems<'_> {
    fn none(&self, line: &str) -> Result<()> {
        let kinds = [
            (&self.malformed, String::from("not a device id: ")),
            (&self.twice, "listed twice: ".into()),
            (&self.unknown, "not enrolled: ".into()),
            (&self.other_line, format!("not enrolled for the line {line}: ")),
        ];
        let said = kinds.iter().filter(|(ids, _)| !ids.is_empty());
        let said: Vec<_> = said.map(|(ids, what)| format!("{what}{}", some_of(ids))).collect();
        if said.is_empty() {
            return Ok(());
        }
        let refused = self.malformed.is_empty() && self.twice.is_empty();
        let code = if refused { Code::Refused } else { Code::Usage };
        let hint =
            if refused { "enrol them, or take them off the list: see `modelseal device list`" } else { HINT };
        Err(Error::new(code, said.join("; "), hint))
    }
}

/// A few of the ids, and how many others there are.
fn some_of(ids: &[&str]) -> String {
    let named = ids.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match ids.len().saturating_sub(NAMED_MAX) {
        0 => named,
        others => format!("{named} and {others} more"),
    }
}
