//! Lists that a publisher has signed and that are wrong all the same: FORMAT.md, section 14, rule by rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use getrandom::SysRng;
use modelseal::directory::{Directory, LIST_NAME};
use modelseal::io::Folder;
use modelseal::io::protect::Protected;
use modelseal::list::{KIND, LIST_MAX};
use modelseal::open::SealedFile;
use modelseal::opener::{Opener, With};
use modelseal_core::manifest::{Claims, Subject, Suite};
use modelseal_core::seal::Sealing;
use modelseal_hsm::{Location, Passphrase, Vault};
use modelseal_tests::scratch;
use rand_core::UnwrapErr;
use serde::Serialize;

/// As section 14.1 has it, over again.
#[derive(Serialize)]
struct List {
    format: u8,
    files: Vec<(String, [u8; 32], u64)>,
}

struct Scene {
    dir: tempfile::TempDir,
    vault: Arc<dyn Vault>,
}

impl Scene {
    fn new() -> Self {
        let dir = scratch();
        let location = Location::File(dir.path().join("vault.json"));
        let passphrase = || Ok(Passphrase::new(String::from("lists").into()));
        let vault = modelseal_hsm::create(&location, None, &passphrase).unwrap();
        std::fs::create_dir(dir.path().join("release")).unwrap();
        Self { dir, vault: vault.into() }
    }

    fn release(&self) -> std::path::PathBuf {
        self.dir.path().join("release")
    }

    /// Writes a sealed model that says what it is told to, and gives its id.
    fn seal(&self, name: &str, (line, version, kind): (&str, u64, &str), plain: &[u8]) -> [u8; 32] {
        let length = plain.len() as u64;
        let claims = Claims::new();
        let (suite, chunk_log2, align_log2) = (Suite::Aes256Gcm, 16, 12);
        let subject =
            Subject { suite, chunk_log2, align_log2, line, version, kind, length, created: 0, claims };
        let mut sealing: Sealing<'_> = Sealing::new(subject, 4, &mut UnwrapErr(SysRng)).unwrap();
        let layout = sealing.layout();
        let (mut payload, mut index) = (plain.to_vec(), Vec::new());
        for chunk in payload.chunks_mut(layout.chunk_size as usize) {
            index.extend(sealing.seal_next(chunk).unwrap().encode());
        }
        let unsigned = sealing.finish().unwrap();
        let mut sealed = unsigned.header_bytes().to_vec();
        sealed.extend(self.vault.publish(&unsigned).unwrap().encode());
        sealed.extend(index);
        sealed.resize(usize::try_from(layout.payload).unwrap(), 0);
        sealed.extend(payload);
        let path = self.release().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, sealed).unwrap();
        let sealed = SealedFile::open(&path).unwrap();
        *sealed.header().unwrap().id().as_bytes()
    }

    /// What a reader says of the folder with this list and its file `model`: the code, or 0.
    fn reads(&self, list: &[u8]) -> (u8, String) {
        self.seal(LIST_NAME, ("wake-word", 1, KIND), list);
        let opener = Opener::new(With::Vault(self.vault.clone()), None);
        let read = || {
            let directory = Directory::open(Folder::open(&self.release())?, &opener)?;
            directory.require_complete()?;
            directory.open_file("model")?.copy_to(&mut |_| Ok(()), &mut |_| ())
        };
        read().map_or_else(|error| (error.code() as u8, error.what().to_owned()), |()| (0, String::new()))
    }
}

fn encoded(format: u8, files: &[(&str, [u8; 32], u64)]) -> Vec<u8> {
    let files = files.iter().map(|(path, id, length)| ((*path).to_owned(), *id, *length)).collect();
    postcard::to_allocvec(&List { format, files }).unwrap()
}

#[test]
fn a_list_must_be_well_formed() {
    let scene = Scene::new();
    let id = scene.seal("model.sealed", ("wake-word", 1, "onnx"), b"a model");
    let good = encoded(1, &[("empty", [0; 32], 0), ("model", id, 7)]);
    assert_eq!(scene.reads(&good), (0, String::new()));
    let model = ("model", id, 7);
    let cases: [(&str, u8, Vec<u8>); 17] = [
        ("another format", 7, encoded(2, &[model])),
        ("no format", 7, encoded(0, &[model])),
        ("cut", 3, good[..good.len() - 1].to_vec()),
        ("something behind it", 3, [&good[..], &[0]].concat()),
        ("a number in too many bytes", 3, [&[1, 0x82, 0], &good[2..]].concat()),
        ("a count of more than there is", 3, [&[1, 0xff, 0xff, 0x03], &good[2..]].concat()),
        ("not UTF-8", 3, encoded(1, &[model]).iter().map(|b| if *b == b'm' { 0xff } else { *b }).collect()),
        ("no files", 3, encoded(1, &[])),
        ("in another order", 3, encoded(1, &[model, ("empty", [0; 32], 0)])),
        ("twice", 3, encoded(1, &[model, model])),
        ("twice but for case", 3, encoded(1, &[("Model", id, 7), model])),
        ("a file and a folder", 3, encoded(1, &[model, ("model/x", [0; 32], 0)])),
        ("out of the folder", 3, encoded(1, &[("../model", id, 7), model])),
        ("absolute", 3, encoded(1, &[("/model", id, 7), model])),
        ("in the list's place", 3, encoded(1, &[("directory", id, 7), model])),
        ("an empty file with an id", 3, encoded(1, &[("model", id, 0)])),
        ("too long for a model", 3, encoded(1, &[("model", id, (1 << 48) + 1)])),
    ];
    for (what, code, list) in cases {
        assert_eq!(scene.reads(&list).0, code, "{what}");
    }
    assert_eq!(scene.reads(&good).0, 0);
    // It isn't read: its length is in the header.
    let (code, said) = scene.reads(&vec![1; usize::try_from(LIST_MAX).unwrap() + 1]);
    assert!(code == 3 && said.contains("isn't the list"), "{said}");
}

#[test]
fn a_file_must_be_what_its_list_says() {
    let scene = Scene::new();
    let read = |listed: &dyn Fn([u8; 32]) -> ([u8; 32], u64), of: (&str, u64, &str)| {
        let (id, length) = listed(scene.seal("model.sealed", of, b"a model"));
        scene.reads(&encoded(1, &[("model", id, length)]))
    };
    let honest = |id| (id, 7);
    assert_eq!(read(&honest, ("wake-word", 1, "onnx")), (0, String::new()));
    for (what, refused) in [
        ("of another line", read(&honest, ("other", 1, "onnx"))),
        ("of another version", read(&honest, ("wake-word", 2, "onnx"))),
        ("of another length", read(&|id| (id, 8), ("wake-word", 1, "onnx"))),
        (
            "of another id",
            read(
                &|mut id| {
                    id[31] ^= 1;
                    (id, 7)
                },
                ("wake-word", 1, "onnx"),
            ),
        ),
        ("said to be empty", read(&|_| ([0; 32], 0), ("wake-word", 1, "onnx"))),
    ] {
        let code = if what == "said to be empty" { 3 } else { 4 };
        assert!(refused.0 == code && refused.1.contains("model.sealed"), "{what}: {refused:?}");
    }
}

/// Only what was sealed as a list is one, whatever it holds.
#[test]
fn a_model_that_holds_a_list_is_none() {
    let scene = Scene::new();
    let id = scene.seal("model.sealed", ("wake-word", 1, "onnx"), b"a model");
    let list = encoded(1, &[("model", id, 7)]);
    assert_eq!(scene.reads(&list).0, 0);
    scene.seal(LIST_NAME, ("wake-word", 1, "json"), &list);
    let opener = Opener::new(With::Vault(scene.vault.clone()), None);
    let refused = Directory::open(Folder::open(&scene.release()).unwrap(), &opener).err().unwrap();
    assert_eq!(refused.code() as u8, 3);
    // And the library seals no other model as one.
    let model = scene.dir.path().join("model");
    std::fs::write(&model, &list).unwrap();
    let out: &Path = &scene.dir.path().join("out");
    let claims = Claims::new();
    let subject = Subject {
        suite: Suite::Aes256Gcm,
        chunk_log2: 16,
        align_log2: 12,
        line: "l",
        version: 1,
        kind: KIND,
        length: list.len() as u64,
        created: 0,
        claims,
    };
    let vault = &*scene.vault;
    let model = modelseal::seal::Model::open(&model, &Protected::default()).unwrap();
    let of_file = modelseal::seal::seal(vault, &model, subject.clone(), out, &mut |_| ()).unwrap_err();
    let of_bytes = modelseal::seal::seal_bytes(vault, &list, subject, out, &mut |_| ()).unwrap_err();
    assert_eq!([of_file.code() as u8, of_bytes.code() as u8], [2, 2]);
    assert!(!out.exists());
}
