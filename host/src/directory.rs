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
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use modelseal_core::sealed::Header;
use modelseal_core::sign::Publisher;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::files::Access;
use crate::folders::{self, OutputFolder};
use crate::io::Folder;
use crate::list::{Entry, KIND, LIST_MAX, List};
use crate::open::SealedFile;
use crate::opener::{Confirming, Opener, Opening, With};
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
    folder: Folder,
    opener: Opener,
    list: List,
    /// The sealed list, as it was opened.
    sealed: SealedFile,
    /// The floor that the list's grant says.
    confirming: Mutex<Option<Confirming>>,
    /// The files that were read whole.
    passed: Mutex<BTreeSet<String>>,
}

impl Directory {
    /// Opens the list of the sealed folder `folder`. An opener with a grant names the folder of its grants. The floor
    /// that the list's grant says is stored once all files have passed, or with [`confirm`](Self::confirm).
    pub fn open(folder: Folder, opener: &Opener) -> Result<Self> {
        require_folder_of_grants(opener)?;
        let sealed = open_list(&folder)?;
        let path = folder.shown(LIST_NAME);
        let (bytes, sealed, confirming) = read_list(&path, sealed, &for_grant(opener, LIST_GRANT))?;
        let list = List::parse(&bytes).map_err(|error| error.about(&path))?;
        Ok(Self {
            folder,
            opener: opener.clone(),
            list,
            sealed,
            confirming: Mutex::new(Some(confirming)),
            passed: Mutex::default(),
        })
    }

    /// The manifest of the list, whose line and version are those of every file.
    pub fn header(&self) -> Result<Header<'_>> {
        self.sealed.header()
    }

    /// The sealed list, to be granted.
    pub fn sealed_list(&self) -> &SealedFile {
        &self.sealed
    }

    /// The sealed list alone, which stays genuine.
    pub fn into_sealed_list(self) -> SealedFile {
        self.sealed
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
        self.require_complete_but(&[])
    }

    /// (14.3) Refuses likewise, where `opened` are files that [`open_file`](Self::open_file) has opened.
    pub fn require_complete_but(&self, opened: &[&str]) -> Result<()> {
        self.require_names()?;
        let others = self.files().iter().filter(|entry| !opened.contains(&entry.path.as_str()));
        others.map(|entry| self.open_file(&entry.path)).try_for_each(|member| member.map(drop))
    }

    /// (14.3) Refuses a folder in which a file is missing, or one too many. What each is, is seen when it is opened.
    pub fn require_names(&self) -> Result<()> {
        let listed = self.files().iter().filter(|entry| entry.length > 0);
        let mut missing: BTreeSet<_> = listed.map(|entry| sealed_name(&entry.path)).collect();
        missing.insert(LIST_NAME.into());
        for found in self.folder.names()? {
            let name = found.to_str().map(|path| path.replace(std::path::MAIN_SEPARATOR, "/"));
            if !name.is_some_and(|name| missing.remove(&name)) {
                let what = format!("{} isn't on the folder's list", self.folder.shown(&found).display());
                return Err(Error::new(Code::NotAuthentic, what, "remove it, if it doesn't belong there"));
            }
        }
        match missing.first() {
            Some(name) => Err(self.missing(name)),
            None => Ok(()),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let what = format!("{} is missing", self.folder.shown(name).display());
        let hint = "it is on the folder's list: take the folder from its publisher again";
        Error::new(Code::NotAuthentic, what, hint)
    }

    /// One file, of which the manifest has been checked: it is the one that the list names.
    pub fn open_file(&self, path: &str) -> Result<Member> {
        let Some(entry) = self.list.get(path) else {
            let what = format!("{path:?} isn't on the list of {}", self.folder.path().display());
            return Err(Error::usage(what, "`modelseal open` shows what is; write paths with /"));
        };
        if entry.length == 0 {
            return Ok(Member { opening: None });
        }
        let name = sealed_name(path);
        let file = self.folder.file(&name)?.ok_or_else(|| self.missing(&name))?;
        let shown = self.folder.shown(&name);
        let sealed = SealedFile::from_file(&shown, file)?;
        // The floor is the list's to raise.
        let opener = for_grant(&self.opener, &grant_name(path)).without_confirming();
        self.require_listed(entry, sealed, &opener, &shown)
    }

    /// (14.3) The sealed model in hand is the listed one. Where it isn't, it still tells why by itself, if it is damaged
    /// or a stranger's.
    fn require_listed(
        &self,
        entry: &Entry,
        sealed: SealedFile,
        opener: &Opener,
        file: &Path,
    ) -> Result<Member> {
        let is_listed = {
            let (header, list) = (sealed.header()?, self.header()?);
            let (subject, of_list) = (&header.manifest().subject, &list.manifest().subject);
            let told = (subject.line, subject.version, subject.length);
            *header.id().as_bytes() == entry.id && told == (of_list.line, of_list.version, entry.length)
        };
        let member = Member { opening: Some(Lately { sealed, opener: opener.clone() }) };
        if is_listed {
            return Ok(member);
        }
        match member.begin().and_then(|opening| opening.map_or(Ok(()), |opening| opening.check())) {
            Err(error) if error.name() != Some("OtherModel") => Err(error),
            _ => Err(not_listed(file)),
        }
    }

    /// Notes that every byte of the file at `path` has passed and is where it belongs. After the last one, the floor is
    /// stored.
    pub fn passed(&self, path: &str) -> Result<()> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.insert(path.to_owned());
        let all = self.files().iter().filter(|entry| entry.length > 0);
        if all.clone().all(|entry| passed.contains(&entry.path)) { self.confirm() } else { Ok(()) }
    }

    /// Stores the floor: the application has seen the models run. The second time it does nothing.
    pub fn confirm(&self) -> Result<()> {
        let confirming = self.confirming.lock().unwrap_or_else(PoisonError::into_inner).take();
        confirming.map_or(Ok(()), Confirming::confirm)
    }
}

/// Opens all files of a sealed folder into the new folder `out`, which appears when every byte of it has passed and the
/// floor is stored.
pub fn open_into(folder: Folder, opener: &Opener, out: &Path, progress: Progress<'_>) -> Result<Directory> {
    folders::require_apart(folder.path(), out)?;
    let directory = Directory::open(folder, opener)?;
    directory.require_names()?;
    let mut output = OutputFolder::create(out, Access::Private)?;
    let mut done = 0;
    for entry in directory.files() {
        let mut file = output.file()?;
        let member = directory.open_file(&entry.path)?;
        member.copy_to(&mut |bytes| file.write(bytes), &mut |bytes| progress(done + bytes))?;
        output.add(&entry.path, file)?;
        done += entry.length;
    }
    directory.confirm()?;
    output.commit()?;
    Ok(directory)
}

/// The sealed list of the sealed folder `folder`.
pub fn open_list(folder: &Folder) -> Result<SealedFile> {
    match folder.file(LIST_NAME)? {
        Some(file) => SealedFile::from_file(&folder.shown(LIST_NAME), file),
        None => {
            let what = format!("{} has no {LIST_NAME}", folder.path().display());
            let hint = "name a folder that `modelseal seal FOLDER` made, with all of its files";
            Err(Error::new(Code::NotAuthentic, what, hint))
        }
    }
}

fn not_listed(file: &Path) -> Error {
    let what = format!("{} isn't the file that the folder's list names", file.display());
    let hint = "it is another release's, or was renamed: take the folder from its publisher again";
    Error::new(Code::Refused, what, hint)
}

/// One file of a sealed folder.
pub struct Member {
    /// None of an empty file, which has no sealed model.
    opening: Option<Lately>,
}

/// The sealed model and what opens it: not before it is asked for, as a grant isn't read for what is only looked at.
struct Lately {
    sealed: SealedFile,
    opener: Opener,
}

impl Member {
    /// The sealed model; an empty file has none.
    pub fn sealed(&self) -> Option<&SealedFile> {
        self.opening.as_ref().map(|lately| &lately.sealed)
    }

    /// Reads what it takes to open it; an empty file takes nothing.
    pub fn begin(self) -> Result<Option<Opening>> {
        self.opening.map(|lately| lately.opener.open(lately.sealed)).transpose()
    }

    /// Opens every chunk, in order, into `out`. What was written is only part of the file until this succeeds.
    pub fn copy_to(self, out: &mut dyn FnMut(&[u8]) -> Result<()>, progress: Progress<'_>) -> Result<()> {
        let Some(mut opening) = self.begin()? else { return Ok(()) };
        opening.copy_to(out, progress).map(drop)
    }

    /// Checks every byte without opening it.
    pub fn verify(&mut self, publisher: &Publisher, progress: Progress<'_>) -> Result<()> {
        match &mut self.opening {
            Some(lately) => lately.sealed.verify(publisher, progress),
            None => Ok(()),
        }
    }
}

/// The list is small and wanted whole.
fn read_list(
    path: &Path,
    sealed: SealedFile,
    opener: &Opener,
) -> Result<(Zeroizing<Vec<u8>>, SealedFile, Confirming)> {
    let length = sealed.header()?.layout().length;
    let not_a_list = || {
        let hint = "take the folder from its publisher again";
        Error::new(Code::NotAuthentic, format!("{} isn't the list of a folder", path.display()), hint)
    };
    if length > LIST_MAX || sealed.header()?.manifest().subject.kind != KIND {
        return Err(not_a_list());
    }
    let mut opening = opener.open(sealed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    let mut out = |chunk: &[u8]| {
        // Taken once something has passed. It never grows, so that nothing stays behind in memory that was given back.
        if bytes.capacity() == 0 {
            bytes.reserve_exact(usize::try_from(length).map_err(|_| not_a_list())?);
        }
        bytes.extend_from_slice(chunk);
        Ok(())
    };
    let confirming = opening.copy_to(&mut out, &mut |_| ())?;
    Ok((bytes, opening.into_sealed(), confirming))
}

/// The opener for one file of the folder, or for its list.
fn for_grant(opener: &Opener, name: &str) -> Opener {
    match opener.with() {
        With::Vault(_) => opener.clone(),
        With::Grant(by) => opener.with_grant_in_folder(&by.grant.join(name)),
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
