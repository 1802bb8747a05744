//! What no output may replace and nobody may seal: modelseal's own files, and a command's inputs. A slip of the hand must
//! not cost a vault, and a sealed model must not hand its publisher's passphrase to everybody.

use std::fs::File;
use std::path::{Path, PathBuf};

use modelseal_hsm::Location;
use modelseal_hsm::wiped::wiped;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::{place, read_exact_at, with_suffix};
use crate::io::Folder;
use crate::vaults;

/// Longest file that is looked into: no vault and no identity is longer. Of longer ones the beginning says it.
const LOOK_MAX: usize = 1 << 20;

/// The files that are somebody's keys, secrets, floors or inputs, however they are spelt or linked.
#[derive(Default)]
pub struct Protected {
    places: Vec<PathBuf>,
    ids: Vec<FileId>,
}

/// Device and inode: hard links have the same.
#[cfg(unix)]
type FileId = (u64, u64);
#[cfg(not(unix))]
type FileId = PathBuf;

impl Protected {
    /// The files that may hold a passphrase or PIN now, and those that `vault` names.
    pub fn secrets(vault: Option<&Location>) -> Self {
        let mut protected = Self::default();
        vaults::secret_files().iter().for_each(|path| protected.add(path));
        match vault {
            Some(Location::File(path)) => protected.add(path),
            Some(Location::Pkcs11(uri)) => uri.pin_source.iter().for_each(|path| protected.add(path)),
            None => {}
        }
        let registry = vault.and_then(|vault| vaults::default_registry(vault).ok());
        registry.iter().for_each(|path| protected.add(path));
        protected
    }

    /// Protects `path` and its lock, too.
    pub fn add(&mut self, path: &Path) {
        for path in [path.to_owned(), with_suffix(path, ".lock")] {
            self.ids.extend(id_at(&path));
            self.places.push(place(&path));
        }
    }

    /// Refuses to replace `out`, if it is one of them or looks like a file of modelseal's that holds keys, devices or
    /// floors.
    pub fn require_other(&self, out: &Path) -> Result<()> {
        if out.as_os_str() == "-" {
            return Err(Error::usage(
                "this output needs a file",
                "name one; only `open` writes to standard output",
            ));
        }
        let target = place(out);
        if self.places.contains(&target) || id_at(&target).is_some_and(|id| self.ids.contains(&id)) {
            let what = format!("the output {} is an input, too, or holds a secret", out.display());
            return Err(Error::usage(what, "name another file for the output"));
        }
        if is_kept_at(&target) || is_lock_of_kept(&target) {
            let what = format!("{} is a vault, an identity, a registry or a state", out.display());
            return Err(Error::usage(what, "name another file for the output"));
        }
        Ok(())
    }

    /// Refuses to seal a file that holds modelseal's own keys, secrets or devices. `path` is for the message.
    pub fn require_no_secret(&self, file: &File, path: &Path) -> Result<()> {
        if !self.has(file) && !is_kept(file) {
            return Ok(());
        }
        let what = format!("{} holds modelseal's own keys, secrets or devices", path.display());
        Err(Error::usage(what, "keep it elsewhere: whoever opens what is sealed would get it, too"))
    }

    #[cfg(unix)]
    fn has(&self, file: &File) -> bool {
        use std::os::unix::fs::MetadataExt;
        file.metadata().is_ok_and(|found| self.ids.contains(&(found.dev(), found.ino())))
    }

    #[cfg(not(unix))]
    fn has(&self, _: &File) -> bool {
        false
    }
}

/// Refuses an output that would replace one of a command's `inputs`, or what [`Protected::secrets`] protects.
pub fn protect(out: &Path, inputs: &[&Path], vault: Option<&Location>) -> Result<()> {
    let mut protected = Protected::secrets(vault);
    inputs.iter().for_each(|path| protected.add(path));
    protected.require_other(out)
}

/// Refuses to replace what is at `name` in `folder`, if it is modelseal's own or has a passphrase or PIN.
pub(crate) fn require_no_secret_at(folder: &Folder, name: &Path) -> Result<()> {
    let Ok(Some(file)) = folder.file(name) else { return Ok(()) };
    if !is_kept(&file) && !Protected::secrets(None).has(&file) {
        return Ok(());
    }
    let what = format!("the output is a link to {}, which holds a secret", folder.shown(name).display());
    Err(Error::usage(what, "name another file for the output"))
}

#[cfg(unix)]
fn id_at(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id_at(path: &Path) -> Option<FileId> {
    path.canonicalize().ok()
}

fn is_kept_at(path: &Path) -> bool {
    path.is_file() && super::Input::file(path, false).is_ok_and(|file| is_kept(&file))
}

/// A lock stays when nobody holds it, and is empty.
fn is_lock_of_kept(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "lock") && is_kept_at(&path.with_extension(""))
}

/// Whether the file is one of modelseal's own: a JSON object whose `format` says so, wherever in it that stands.
pub(crate) fn is_kept(file: &File) -> bool {
    // It may be anybody's model, or a secret.
    wiped(|| {
        let Some(text) = start(file) else { return false };
        let text = text.trim_ascii();
        if text.first() != Some(&b'{') {
            return false;
        }
        match serde_json::from_slice::<Marked>(text) {
            Ok(marked) => marked.format.starts_with("modelseal "),
            // A registry may be longer than what was read. Ours begin with it.
            Err(_) => {
                let mut squeezed = text.iter().filter(|byte| !byte.is_ascii_whitespace());
                br#"{"format":"modelseal"#.iter().all(|byte| squeezed.next() == Some(byte))
            }
        }
    })
}

fn start(file: &File) -> Option<Zeroizing<Vec<u8>>> {
    let len = usize::try_from(file.metadata().ok()?.len()).unwrap_or(usize::MAX).min(LOOK_MAX);
    // Nobody's model is read whole because it might be something else.
    let mut head = [0; 64];
    let (head, _) = head.split_at_mut(len.min(64));
    read_exact_at(file, head, 0).ok()?;
    head.trim_ascii_start().starts_with(b"{").then_some(())?;
    let mut text = Zeroizing::new(vec![0; len]);
    read_exact_at(file, &mut text, 0).ok()?;
    Some(text)
}

#[derive(serde::Deserialize)]
struct Marked {
    format: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn kept(text: &str) -> bool {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        is_kept(&file)
    }

    #[test]
    fn ours_are_told_however_their_keys_are_sorted() {
        for ours in [
            r#"{ "format": "modelseal vault 1", "kdf": {} }"#,
            "\n\t{\"device\":\"a\",\n\"format\" : \"modelseal identity 1\"}\n",
            r#"{"format":"modelseal registry 1","devices":{"cut"#,
        ] {
            assert!(kept(ours), "{ours}");
        }
        for others in ["", "{", "{}", r#"{"format":"pt"}"#, r#"["format","modelseal vault 1"]"#, "GGUF{"] {
            assert!(!kept(others), "{others}");
        }
    }
}
