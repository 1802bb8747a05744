//! A folder of models as one release (FORMAT.md, section 14): each file is a sealed model, and the list of them is one, too.
//!
//! ```text
//! folder/config.json             ─▶ release/config.json.sealed
//! folder/weights/1.safetensors   ─▶ release/weights/1.safetensors.sealed
//! the list of both               ─▶ release/directory.sealed
//! ```
//!
//! The list is opened first. From then on a file is used only if it is the very sealed model that the list names, so that
//! nothing of one release gets into another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use modelseal_core::open::Confirmation;
use modelseal_core::sealed::Header;
use modelseal_core::sign::Publisher;
use modelseal_hsm::wiped::wiped;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::files::Access;
use crate::folders::{self, OutputFolder};
use crate::list::{Entry, KIND, LIST_MAX, List};
use crate::open::SealedFile;
use crate::opener::{Opener, With};
use crate::seal::Progress;

pub use crate::release::{Release, SealedFolder, length, seal};

/// The sealed list's file name. No file of a folder can have the name that would collide.
pub const LIST_NAME: &str = "directory.sealed";
/// The file name of its grant.
pub const LIST_GRANT: &str = "directory.grant";

/// The file name of a file's sealed model.
pub(crate) fn sealed_name(path: &str) -> String {
    format!("{path}.sealed")
}

/// The file name of a file's grant in the folder of grants.
pub fn grant_name(path: &str) -> String {
    format!("{path}.grant")
}

/// A sealed folder whose list has been opened: the list is genuine, complete, and what may be opened here. Of its files
/// nothing is known yet.
pub struct Directory {
    dir: PathBuf,
    opener: Opener,
    list: List,
    header: Vec<u8>,
}

impl Directory {
    /// Opens the list of the sealed folder `dir`. An opener with a grant names the folder of its grants. The floor that
    /// the list's grant says is to be stored with [`confirm`](Self::confirm).
    pub fn open(dir: &Path, opener: &Opener) -> Result<(Self, Confirmation)> {
        let mut sealed = open_list(dir)?;
        let path = dir.join(LIST_NAME);
        require_folder_of_grants(opener)?;
        let (bytes, confirmation) = read_list(&path, &mut sealed, &for_grant(opener, LIST_GRANT))?;
        let list = List::parse(&bytes).map_err(|error| error.about(&path))?;
        let directory = Self {
            dir: dir.to_owned(),
            opener: opener.clone(),
            list,
            header: sealed.header_bytes().to_vec(),
        };
        Ok((directory, confirmation))
    }

    /// The manifest of the list, whose line and version are those of every file.
    pub fn header(&self) -> Result<Header<'_>> {
        Ok(Header::parse(&self.header)?)
    }

    /// The files, by path.
    pub fn files(&self) -> &[Entry] {
        self.list.files()
    }

    /// The length of all files.
    pub fn length(&self) -> u64 {
        self.files().iter().map(|entry| entry.length).fold(0, u64::saturating_add)
    }

    /// (14.3) Refuses a folder in which a file is missing, one too many, or another than the listed one. Of the files'
    /// chunks nothing is known then.
    pub fn require_complete(&self) -> Result<()> {
        self.require_names()?;
        self.files().iter().try_for_each(|entry| self.open_file(&entry.path).map(drop))
    }

    fn require_names(&self) -> Result<()> {
        let listed = self.files().iter().filter(|entry| entry.length > 0);
        let mut missing: BTreeSet<_> = listed.map(|entry| sealed_name(&entry.path)).collect();
        missing.insert(LIST_NAME.into());
        for found in folders::below(&self.dir)? {
            let name = found.to_str().map(|path| path.replace(std::path::MAIN_SEPARATOR, "/"));
            if !name.is_some_and(|name| missing.remove(&name)) {
                let what = format!("{} isn't on the folder's list", self.dir.join(&found).display());
                return Err(Error::new(Code::NotAuthentic, what, "remove it, if it doesn't belong there"));
            }
        }
        match missing.first() {
            Some(name) => Err(self.missing(name)),
            None => Ok(()),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let what = format!("{} is missing", self.dir.join(name).display());
        Error::new(
            Code::NotAuthentic,
            what,
            "it is on the folder's list: take the folder from its publisher again",
        )
    }

    /// One file, of which the manifest has been checked: it is the one that the list names.
    pub fn open_file(&self, path: &str) -> Result<Member> {
        let Some(entry) = self.list.get(path) else {
            let what = format!("{path:?} isn't on the list of {}", self.dir.display());
            return Err(Error::usage(what, "`modelseal open` shows what is; write paths with /"));
        };
        // The floor is the list's to raise.
        let opener = for_grant(&self.opener, &grant_name(path)).without_confirming();
        if entry.length == 0 {
            return Ok(Member { sealed: None, opener });
        }
        let name = sealed_name(path);
        let file = self.dir.join(&name);
        if file.symlink_metadata().is_err() {
            return Err(self.missing(&name));
        }
        let sealed = open_regular(&file)?;
        self.require_listed(entry, &sealed, &opener, &file)?;
        Ok(Member { sealed: Some(sealed), opener })
    }

    /// (14.3) The sealed model in hand is the listed one. Where it isn't, it still tells why by itself, if it is damaged
    /// or a stranger's.
    fn require_listed(&self, entry: &Entry, sealed: &SealedFile, opener: &Opener, file: &Path) -> Result<()> {
        let (header, list) = (sealed.header()?, self.header()?);
        let (subject, of_list) = (&header.manifest().subject, &list.manifest().subject);
        let told = (subject.line, subject.version, subject.length);
        if *header.id().as_bytes() == entry.id && told == (of_list.line, of_list.version, entry.length) {
            return Ok(());
        }
        match wiped(|| opener.begin(sealed)?.unwrap(sealed).map(drop)) {
            Err(error) if error.name() != Some("OtherModel") => Err(error),
            _ => Err(not_listed(file)),
        }
    }

    /// Stores the floor, after what is to be used was read and before it is handed out.
    pub fn confirm(&self, confirmation: Confirmation) -> Result<()> {
        self.opener.confirm(self.header()?.manifest().subject.line, confirmation)
    }
}

/// Opens all files of a sealed folder into the new folder `out`, which appears when every byte of it has passed and the
/// floor is stored.
pub fn open_into(dir: &Path, opener: &Opener, out: &Path, progress: Progress<'_>) -> Result<Directory> {
    folders::require_apart(dir, out)?;
    let (directory, confirmation) = Directory::open(dir, opener)?;
    directory.require_complete()?;
    let mut output = OutputFolder::create(out, Access::Private)?;
    let mut done = 0;
    for entry in directory.files() {
        let mut file = output.file()?;
        let mut member = directory.open_file(&entry.path)?;
        member.copy_to(&mut |bytes| file.write(bytes), &mut |bytes| progress(done + bytes))?;
        output.add(&entry.path, file)?;
        done += entry.length;
    }
    directory.confirm(confirmation)?;
    output.commit()?;
    Ok(directory)
}

/// The sealed list of the sealed folder `dir`.
pub fn open_list(dir: &Path) -> Result<SealedFile> {
    let path = dir.join(LIST_NAME);
    if dir.is_dir() && path.symlink_metadata().is_err() {
        let what = format!("{} has no {LIST_NAME}", dir.display());
        let hint = "name a folder that `modelseal seal FOLDER` made, with all of its files";
        return Err(Error::new(Code::NotAuthentic, what, hint));
    }
    open_regular(&path)
}

/// A sealed model of a folder, which is a file: a pipe that nobody writes to would be waited for.
pub fn open_regular(path: &Path) -> Result<SealedFile> {
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        let what = format!("{} isn't a file", path.display());
        return Err(Error::new(Code::NotAuthentic, what, "take the folder from its publisher again"));
    }
    SealedFile::open(path)
}

fn not_listed(file: &Path) -> Error {
    let what = format!("{} isn't the file that the folder's list names", file.display());
    let hint = "it is another release's, or was renamed: take the folder from its publisher again";
    Error::new(Code::Refused, what, hint)
}

/// One file of a sealed folder.
pub struct Member {
    /// None of an empty file.
    sealed: Option<SealedFile>,
    opener: Opener,
}

impl Member {
    /// The sealed model; an empty file has none.
    pub fn sealed(&self) -> Option<&SealedFile> {
        self.sealed.as_ref()
    }

    /// The sealed model and what opens it.
    pub fn into_parts(self) -> (Option<SealedFile>, Opener) {
        (self.sealed, self.opener)
    }

    /// Opens every chunk, in order, into `out`. What was written is only part of the file until this succeeds.
    pub fn copy_to(
        &mut self,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: Progress<'_>,
    ) -> Result<()> {
        let Some(sealed) = &mut self.sealed else { return Ok(()) };
        let opening = self.opener.begin(sealed)?;
        sealed.copy_to(|sealed| opening.unwrap(sealed), out, progress).map(drop)
    }

    /// Checks every byte without opening it.
    pub fn verify(&mut self, publisher: &Publisher, progress: Progress<'_>) -> Result<()> {
        match &mut self.sealed {
            Some(sealed) => sealed.verify(publisher, progress),
            None => Ok(()),
        }
    }
}

/// The list is small and wanted whole.
fn read_list(
    path: &Path,
    sealed: &mut SealedFile,
    opener: &Opener,
) -> Result<(Zeroizing<Vec<u8>>, Confirmation)> {
    let length = sealed.header()?.layout().length;
    let not_a_list = || {
        let hint = "take the folder from its publisher again";
        Error::new(Code::NotAuthentic, format!("{} isn't the list of a folder", path.display()), hint)
    };
    if length > LIST_MAX || sealed.header()?.manifest().subject.kind != KIND {
        return Err(not_a_list());
    }
    let opening = opener.begin(sealed)?;
    // Never grows, so that nothing stays behind in memory that was given back.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).map_err(|_| not_a_list())?));
    let mut out = |chunk: &[u8]| {
        bytes.extend_from_slice(chunk);
        Ok(())
    };
    let confirmation = sealed.copy_to(|sealed| opening.unwrap(sealed), &mut out, &mut |_| ())?;
    Ok((bytes, confirmation))
}

/// The opener for one file of the folder, or for its list.
fn for_grant(opener: &Opener, name: &str) -> Opener {
    match opener.with() {
        With::Vault(_) => opener.clone(),
        With::Grant(by) => opener.with_grant(Some(&by.grant.join(name))),
    }
}

fn require_folder_of_grants(opener: &Opener) -> Result<()> {
    match opener.with() {
        With::Grant(by) if by.grant.is_file() => {
            let what = format!("{} is one grant, and a folder takes one for each file", by.grant.display());
            Err(Error::usage(what, "name the folder that `modelseal grant FOLDER` made"))
        }
        _ => Ok(()),
    }
}
