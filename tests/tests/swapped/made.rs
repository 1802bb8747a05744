//! Two of everything, made once and copied for each case: what was named, and what is put in its place.
//!
//! Ours are a model and a folder of the line alpha (`a.sealed`, `ra`) and of the line bravo (`b.sealed`, `rb`). Forged are
//! `f.sealed` and `rf`: alpha's, which say that they are bravo's. A stranger's are `stranger.json` and `stranger.pem`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use modelseal::open::SealedFile;
use modelseal::opener::{Opener, With};
use modelseal_hsm::{Location, Passphrase, Vault};
use modelseal_tests::Workspace;
use modelseal_tests::workspace::PASSPHRASE;

const MADE: &str = "\
seal plain/a -o a.sealed --line alpha --model-version 1 --profile device
seal plain/b -o b.sealed --line bravo --model-version 1 --profile device
seal fa -o ra --line alpha --model-version 1
seal fb -o rb --line bravo --model-version 1
key export -o pub.pem
device enroll dev-c --line alpha --derive --identity-out dev-c.identity --registry registry.other
device enroll dev-a --line alpha --derive --identity-out dev-a.identity
device enroll dev-b --line bravo --derive --identity-out dev-b.identity
device keygen dev-x --identity-out x.identity --public-out x.pem
device enroll dev-x --line alpha --public-key x.pem --identity-out x.public
device keygen dev-y --identity-out y.identity --public-out y.pem
device enroll dev-y --line bravo --public-key y.pem --identity-out y.public
device keygen dev-n --identity-out n.identity --public-out n.pem
grant a.sealed --device dev-a -o ga
grant b.sealed --device dev-b -o gb
grant ra --device dev-a -o gra
grant rb --device dev-b -o grb
open a.sealed -o opened --grant ga --identity dev-a.identity --state state
open b.sealed -o opened --grant gb --identity dev-b.identity --state state.other
key rotate master";

/// The workspace of which all others are copies.
pub(crate) fn made() -> Workspace {
    let w = Workspace::new();
    for (folder, fill) in [("fa", 1), ("fb", 2)] {
        std::fs::create_dir_all(w.path(folder).join("sub")).unwrap();
        w.write(format!("{folder}/one"), vec![fill; 5000]);
        w.write(format!("{folder}/sub/two"), vec![fill + 2; 100]);
    }
    std::fs::create_dir(w.path("plain")).unwrap();
    w.write("plain/a", vec![5; 9000]);
    w.write("plain/b", vec![6; 7000]);
    w.write("ids", "dev-a\ndev-x\n");
    w.write("ids.other", "dev-a\n");
    w.write("kept", "from before");
    std::fs::copy(w.path("registry.json"), w.path("registry.other")).unwrap();
    for line in MADE.lines() {
        w.ok(&line.split(' ').collect::<Vec<_>>());
    }
    std::fs::remove_file(w.path("opened")).unwrap();
    forge(&w);
    let stranger = Workspace::new();
    stranger.ok(&["key", "export", "-o", "pub.pem"]);
    for (theirs, here) in [("vault.json", "stranger.json"), ("pub.pem", "stranger.pem")] {
        w.write(here, stranger.read(theirs));
    }
    w
}

fn forge(w: &Workspace) {
    copy(&w.path("ra"), &w.path("rf"));
    for (real, forged) in [("a.sealed", "f.sealed"), ("ra/directory.sealed", "rf/directory.sealed")] {
        let mut bytes = w.read(real);
        let at = bytes.windows(5).position(|word| word == b"alpha").unwrap();
        bytes[at..at + 5].copy_from_slice(b"bravo");
        w.write(forged, bytes);
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Where the cases of one thread run, and what is known of what they may meet.
pub(crate) struct World<'a> {
    pub(crate) w: Workspace,
    pub(crate) made: &'a Workspace,
    /// Ours, then a stranger's.
    vaults: Vec<Arc<dyn Vault>>,
    /// The line of each model that our vault signed.
    pub(crate) lines: BTreeMap<String, String>,
}

impl<'a> World<'a> {
    pub(crate) fn new(made: &'a Workspace) -> Self {
        let mut w = Workspace::with_vault("file:vault.json");
        w.set("MODELSEAL_BACKUP_PASSPHRASE", PASSPHRASE);
        let open = |name| {
            let ask = || Ok(Passphrase::new(PASSPHRASE.to_owned().into()));
            modelseal_hsm::open(&Location::File(made.path(name)), &ask).unwrap().into()
        };
        let vaults = ["vault.json", "stranger.json"].map(open).to_vec();
        let ours = ["a.sealed", "b.sealed"].map(PathBuf::from).into_iter();
        let members = ["ra", "rb"].into_iter().flat_map(|release| {
            ["directory.sealed", "one.sealed", "sub/two.sealed"].map(|name| Path::new(release).join(name))
        });
        let said = |path: PathBuf| {
            let sealed = SealedFile::open(&made.dir().join(path)).unwrap();
            let header = sealed.header().unwrap();
            (header.id().to_string(), header.manifest().subject.line.to_owned())
        };
        let lines = ours.chain(members).map(said).collect();
        Self { w, made, vaults, lines }
    }

    /// Makes everything as it was.
    pub(crate) fn restore(&self) {
        for entry in std::fs::read_dir(self.w.dir()).unwrap().map(|entry| entry.unwrap().path()) {
            let is_folder = entry.symlink_metadata().unwrap().is_dir();
            if is_folder { std::fs::remove_dir_all(entry) } else { std::fs::remove_file(entry) }.unwrap();
        }
        copy(&self.made.dir().join("."), self.w.dir());
    }

    /// Line and bytes of a sealed model, opened by whichever vault made it.
    pub(crate) fn open(&self, path: &Path) -> Result<(String, Vec<u8>), String> {
        let by = |vault: &Arc<dyn Vault>| {
            let opener = Opener::new(With::Vault(vault.clone()), None);
            let (memory, opened) = opener.open(SealedFile::open(path)?)?.into_memory(&mut |_| ())?;
            Ok((opened.header()?.manifest().subject.line.to_owned(), memory.to_vec()))
        };
        let opened: Vec<modelseal::Result<_>> = self.vaults.iter().map(by).collect();
        let why = format!("{} doesn't open: {:?}", path.display(), opened[0].as_ref().err());
        opened.into_iter().find_map(Result::ok).ok_or(why)
    }

    /// The model `plain/a` or `plain/b`, or the folder `fa` or `fb`, of a line.
    pub(crate) fn plain(&self, line: &str, is_folder: bool) -> Tree {
        let name = line.get(..1).unwrap_or_default();
        tree(&self.made.path(&if is_folder { format!("f{name}") } else { format!("plain/{name}") }))
    }
}

/// Every file of a folder by its path, or a file alone; nothing of a pipe, or if there is none.
pub(crate) type Tree = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn tree(path: &Path) -> Tree {
    let Ok(found) = path.metadata() else { return Tree::new() };
    if found.is_file() {
        return [(PathBuf::new(), std::fs::read(path).unwrap())].into();
    }
    if !found.is_dir() {
        return Tree::new();
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            let name = PathBuf::from(entry.file_name());
            tree(&entry.path()).into_iter().map(move |(below, bytes)| {
                (if below.as_os_str().is_empty() { name.clone() } else { name.join(below) }, bytes)
            })
        })
        .collect()
}
