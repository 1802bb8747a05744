//! What each command may do whatever it meets: said without looking at how it does it.

use std::path::{Path, PathBuf};

use modelseal_core::grant::Grant;
use modelseal_tests::swap::{Swap, Traced, aside};
use modelseal_tests::workspace::PASSPHRASE;
use serde_json::Value;

use crate::made::{Tree, World, tree};

/// What a command did, and what is wrong with it.
pub(crate) type Judge = fn(&World<'_>, &Did<'_>) -> Result<(), String>;

pub(crate) struct Did<'a> {
    pub(crate) run: &'a Traced,
    /// What was swapped, and how.
    pub(crate) path: &'a str,
    pub(crate) swap: Swap<'a>,
    /// The folder's or file's own name in `out`, and where else it may be if that was swapped.
    pub(crate) outputs: Vec<PathBuf>,
    /// Who may open what is granted or opened.
    pub(crate) device: &'a str,
}

impl Did<'_> {
    fn succeeded(&self) -> bool {
        self.run.code == Some(0)
    }

    fn answer(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.run.stdout).map_err(|error| format!("no answer: {error}"))
    }

    /// What came out, which `accepts` must like, wherever it may be by now.
    fn has(&self, what: &str, accepts: impl Fn(&Path, &Tree) -> bool) -> Result<(), String> {
        let is_there = self.outputs.iter().any(|path| accepts(path, &tree(path)));
        must(!self.succeeded() || is_there, &format!("what came out isn't {what}"))
    }
}

pub(crate) fn must(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

pub(crate) fn opened(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    if !did.succeeded() {
        return Ok(());
    }
    let answer = did.answer()?;
    let line = text(&answer, "line");
    must(did.device != "dev-a" || line == "alpha", "dev-a opened another line")?;
    let wanted = world.plain(line, answer["kind"] == "directory");
    did.has("the model that was reported", |_, found| !found.is_empty() && *found == wanted)
}

pub(crate) fn ran(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    let said = Tree::from([(PathBuf::new(), did.run.stdout.clone())]);
    let whole = ["alpha", "bravo"].iter().any(|line| world.plain(line, false) == said);
    must(!did.succeeded() || whole, "it read no whole model")
}

pub(crate) fn verified(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    if !did.succeeded() {
        return Ok(());
    }
    let answer = did.answer()?;
    let line = world.lines.get(text(&answer, "id")).map(String::as_str);
    must(line.is_some() && line == answer["line"].as_str(), "what was reported was never signed")
}

/// Nothing is proved; yet what is said is said of one file.
pub(crate) fn inspected(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    if !did.succeeded() {
        return Ok(());
    }
    let answer = did.answer()?;
    let line = world.lines.get(text(&answer, "id")).map_or("bravo", String::as_str);
    must(line == text(&answer, "line"), "what was shown is of two files")
}

/// What opens is a model that was named, and never a secret. Of a folder, each file is one.
pub(crate) fn sealed(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    let plain = |name: &Path, bytes: &[u8]| {
        let named = |folder: &str| tree(&world.made.path(folder)).get(name).is_some_and(|file| file == bytes);
        let alone = |file: &str| world.made.read(file) == bytes;
        named("fa") || named("fb") || alone("plain/a") || alone("plain/b")
    };
    let opens = |path: &Path, found: &Tree| {
        !found.is_empty()
            && found.keys().filter(|name| !name.ends_with("directory.sealed")).all(|name| {
                let (at, name) = (path.join(name), name.with_extension(""));
                // A file's path has a slash in the end when nothing is joined to it.
                let at = at.components().collect::<PathBuf>();
                world.open(&at).is_ok_and(|(_, bytes)| plain(&name, &bytes))
            })
    };
    did.has("what was named", opens)
}

/// In place: whatever was met, our models open as they did.
pub(crate) fn rewrapped(world: &World<'_>, _: &Did<'_>) -> Result<(), String> {
    let alone = [("a.sealed", "plain/a"), ("b.sealed", "plain/b")];
    let within =
        [("ra/one.sealed", "fa/one"), ("ra/sub/two.sealed", "fa/sub/two"), ("rb/one.sealed", "fb/one")];
    for (name, plain) in alone.into_iter().chain(within) {
        let (_, bytes) = world.open(&world.w.path(name))?;
        must(bytes == world.made.read(plain), &format!("{name} has become another"))?;
    }
    Ok(())
}

/// No grant is for a device that isn't enrolled for the line of the model that it opens. Those that were reported are
/// there, for one model or one folder.
pub(crate) fn granted(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    let enrolled = |device: &str| match device {
        "dev-a" | "dev-c" | "dev-x" => "alpha",
        _ => "bravo",
    };
    let mut lines = Vec::new();
    let mut models = Vec::new();
    for (name, bytes) in did.outputs.iter().flat_map(|path| tree(path)) {
        let Ok(grant) = Grant::parse(&bytes) else { continue };
        let (device, model) = (grant.terms().device.as_str(), grant.terms().model.to_string());
        let line = world.lines.get(&model).ok_or(format!("{} is for a model of nobody", name.display()))?;
        must(enrolled(device) == line, &format!("{device} has a grant for {line}"))?;
        must(did.device.is_empty() || did.device == device, &format!("{device} has a grant, unasked"))?;
        lines.push(line.clone());
        models.push(model);
    }
    if !did.succeeded() {
        return Ok(());
    }
    let answer = did.answer()?;
    must(models.iter().any(|model| model == text(&answer, "model")), "the grant isn't there")?;
    must(lines.iter().all(|line| line == text(&answer, "line")), "grants are for another line")
}

/// An identity keeps its secret, whatever else it has been told. Only one that somebody moves into the place of one that is
/// being rewritten, after that was read, is replaced.
pub(crate) fn told(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    for name in ["dev-a.identity", "x.identity", "n.identity"] {
        let now = world.w.read(name);
        let now: Value = serde_json::from_slice(&now).map_err(|error| format!("{name}: {error}"))?;
        let is = |other: &str| {
            let before = world.made.json(other);
            ["format", "device", "device_key", "x25519"].iter().all(|key| before[key] == now[key])
        };
        let is_right = is(name) || (did.swap == Swap::Other(name) && is(did.path));
        must(is_right, &format!("{name} has become another"))?;
    }
    Ok(())
}

/// A registry has all of its devices, and perhaps the new one.
pub(crate) fn enrolled(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    told(world, did)?;
    let devices = |registry: Value| {
        let mut devices = registry["devices"].as_object().cloned().unwrap_or_default();
        devices.remove("dev-n");
        devices
    };
    let known = ["registry.json", "registry.other"].map(|name| devices(world.made.json(name)));
    for name in ["registry.json", "registry.other"] {
        must(known.contains(&devices(world.w.json(name))), &format!("{name} has lost devices"))?;
    }
    Ok(())
}

/// Public keys, ours or those of the vault that was put in the place of ours.
pub(crate) fn exported(world: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    let keys = ["pub.pem", "stranger.pem"].map(|name| tree(&world.made.path(name)));
    did.has("the publisher's keys", |_, found| keys.contains(found))
}

pub(crate) fn backed_up(_: &World<'_>, did: &Did<'_>) -> Result<(), String> {
    let is_backup = |_: &Path, found: &Tree| {
        found.values().any(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            text.contains("modelseal") && !text.contains(PASSPHRASE)
        })
    };
    did.has("a backup", is_backup)
}

/// Files of before are as they were, but for those that the command is meant to change. None is left over.
pub(crate) fn kept(world: &World<'_>, changes: &str) -> Result<(), String> {
    let (before, now) = (tree(world.made.dir()), tree(world.w.dir()));
    let may = |path: &Path| {
        let changed = changes.split_whitespace().any(|name| path.starts_with(name));
        changed || path.extension().is_some_and(|ending| ending == "lock")
    };
    for (path, bytes) in before.iter().filter(|(path, _)| !may(path)) {
        must(now.get(path) == Some(bytes), &format!("{} was changed", path.display()))?;
    }
    let new = now.keys().find(|path| !before.contains_key(*path) && !may(path));
    new.map_or(Ok(()), |path| Err(format!("{} was left over", path.display())))
}

/// Where an output is that was swapped: in its place, beside it, or where a link or a rename took it.
pub(crate) fn outputs(world: &World<'_>, other: &str) -> Vec<PathBuf> {
    let out = world.w.path("out");
    let mut found = vec![aside(&out), out];
    if !other.is_empty() {
        found.push(world.w.path(other));
    }
    found
}
