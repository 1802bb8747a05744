//! Folders of models through the real program: what was sealed opens, and every mixture of two releases is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::{create_dir_all, remove_dir_all, remove_file, rename};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use modelseal_tests::Workspace;
use modelseal_tests::published::published;
use modelseal_tests::workspace::{WAKE_WORD, assert_same};

const OPEN: [&str; 4] = ["open", "release", "-o", "opened"];
const BY_GRANT: [&str; 8] =
    ["open", "release", "-o", "opened", "--grant", "grants", "--identity", "kitchen-7.identity"];

/// A folder like those that models come in, two releases of it, and a device's grants for both.
fn released() -> Workspace {
    let w = published();
    create_dir_all(w.path("folder/weights/deep")).unwrap();
    w.write("folder/config.json", r#"{"hidden": 64}"#);
    w.write("folder/.gitattributes", "");
    w.write("folder/weights/1.tflite", std::fs::read(WAKE_WORD).unwrap());
    w.write("folder/weights/deep/Ü 2.bin", vec![7; 300_000]);
    std::os::unix::fs::symlink("weights/deep/Ü 2.bin", w.path("folder/link.bin")).unwrap();
    for (release, grants, version) in [("release", "grants", "2"), ("newer", "newer-grants", "3")] {
        w.ok(&["seal", "folder", "-o", release, "--line", "wake-word", "--model-version", version]);
        w.ok(&["grant", release, "--device", "kitchen-7", "-o", grants, "--floor", "2"]);
    }
    w
}

fn mkfifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let found = modelseal::io::Folder::open(dir).unwrap().names().unwrap();
    let read = |path: std::path::PathBuf| {
        (path.to_str().unwrap().to_owned(), std::fs::read(dir.join(&path)).unwrap())
    };
    let mut files: Vec<_> = found.into_iter().map(read).collect();
    files.sort();
    files
}

#[test]
fn a_folder_opens_as_it_was() {
    let w = released();
    let sealed: Vec<_> = files(&w.path("release")).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "config.json.sealed",
        "directory.sealed",
        "link.bin.sealed",
        "weights/1.tflite.sealed",
        "weights/deep/Ü 2.bin.sealed",
    ];
    assert_eq!(sealed, expected);
    let opened = w.ok(&OPEN);
    assert_eq!((&opened["files"], &opened["version"]), (&5.into(), &2.into()));
    assert!(files(&w.path("opened")) == files(&w.path("folder")));
    // It is plaintext: for its owner alone.
    assert_eq!(
        [w.mode("opened"), w.mode("opened/weights/deep"), w.mode("opened/config.json")],
        [0o700, 0o700, 0o600]
    );
    // A folder with something in it is never overwritten; an empty one is taken.
    assert!(w.refused(6, &OPEN).message.contains("opened"));
    remove_dir_all(w.path("opened")).unwrap();
    create_dir_all(w.path("opened")).unwrap();
    w.device_ok(&BY_GRANT);
    assert!(files(&w.path("opened")) == files(&w.path("folder")));
    assert_eq!(w.json("kitchen-7.identity.state")["floors"]["wake-word"], 2);
    let inspected = w.ok(&["inspect", "release"]);
    assert_eq!((&inspected["kind"], inspected["files"].as_array().unwrap().len()), (&"directory".into(), 4));
    assert_eq!(w.ok(&["verify", "release"])["complete"], true);
    w.ok(&["key", "export", "-o", "publisher.pem"]);
    assert_eq!(w.device_ok(&["verify", "release", "--publisher", "publisher.pem"])["complete"], false);
    // Each is a sealed model: a change of keys takes no more than for any other.
    w.ok(&["key", "rotate", "master"]);
    w.ok(&["rewrap", "release", "newer"]);
    w.ok(&["key", "retire", "master", "1", "--force"]);
    w.ok(&["open", "release", "-o", "again"]);
}

/// More than are written before the first gets its name.
#[test]
fn a_folder_of_many_files() {
    let w = Workspace::new();
    create_dir_all(w.path("folder/sub")).unwrap();
    for i in 0..300 {
        w.write(format!("folder/{}{i}", if i % 2 == 0 { "" } else { "sub/" }), format!("file {i}"));
    }
    w.ok(&["seal", "folder", "-o", "release", "--line", "l", "--model-version", "1"]);
    w.ok(&OPEN);
    assert!(files(&w.path("opened")) == files(&w.path("folder")));
    assert!(
        std::fs::read_dir(w.dir()).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with('.'))
    );
}

#[test]
fn a_fleet_gets_a_folder_of_grants_each() {
    let w = released();
    w.device_ok(&[
        "device",
        "keygen",
        "porch-2",
        "--identity-out",
        "porch-2.identity",
        "--public-out",
        "porch.pem",
    ]);
    let enrol = ["device", "enroll", "porch-2", "--line", "wake-word", "--public-key", "porch.pem"];
    w.ok(&[&enrol[..], &["--identity-out", "porch-2.identity"]].concat());
    let grant = ["grant", "release", "--all", "-o", "fleet"];
    let granted = w.ok(&grant);
    // Four files and their list, to two devices; for the X25519 key, a signature for each.
    assert_eq!([&granted["made"], &granted["kept"], &granted["signatures"]], [10, 0, 5]);
    let again = w.ok(&grant);
    assert_eq!([&again["made"], &again["kept"], &again["signatures"]], [0, 10, 0]);
    for device in ["kitchen-7", "porch-2"] {
        let (grants, identity) = (format!("fleet/{device}"), format!("{device}.identity"));
        w.device_ok(&["open", "release", "-o", device, "--grant", &grants, "--identity", &identity]);
        assert!(files(&w.path(device)) == files(&w.path("folder")));
    }
    let crossed =
        ["open", "release", "-o", "x", "--grant", "fleet/porch-2", "--identity", "kitchen-7.identity"];
    w.device_refused(4, &crossed);
    remove_file(w.path("release/config.json.sealed")).unwrap();
    w.refused(3, &["grant", "release", "--all", "-o", "more"]);
}

/// Everything that a file can have happened to it, and what is said.
#[test]
fn what_was_mixed_is_refused() {
    let w = released();
    let file = |name: &str| w.path(name);
    let copy = |from: &str, to: &str| w.write(to, w.read(from));
    type Attack<'a> = &'a dyn Fn();
    let cases: [(&str, u8, Attack<'_>); 13] = [
        ("a file of another release", 4, &|| copy("newer/config.json.sealed", "release/config.json.sealed")),
        ("a file in another's place", 4, &|| copy("release/link.bin.sealed", "release/config.json.sealed")),
        ("two of the same content swapped", 4, &|| {
            copy("release/link.bin.sealed", "aside");
            copy("release/weights/deep/Ü 2.bin.sealed", "release/link.bin.sealed");
            copy("aside", "release/weights/deep/Ü 2.bin.sealed");
            remove_file(file("aside")).unwrap();
        }),
        ("a model of its own in a file's place", 4, &|| copy("sealed", "release/config.json.sealed")),
        ("another release's list", 4, &|| copy("newer/directory.sealed", "release/directory.sealed")),
        ("a file renamed", 3, &|| {
            rename(file("release/config.json.sealed"), file("release/conf.json.sealed")).unwrap();
        }),
        ("a file missing", 3, &|| remove_file(file("release/link.bin.sealed")).unwrap()),
        ("the list missing", 3, &|| remove_file(file("release/directory.sealed")).unwrap()),
        ("a file in the list's place", 3, &|| copy("release/config.json.sealed", "release/directory.sealed")),
        ("a file too many", 3, &|| copy("newer/config.json.sealed", "release/more.sealed")),
        ("something else too many", 3, &|| w.write("release/weights/notes.txt", "hello")),
        ("a pipe in a file's place", 3, &|| {
            remove_file(file("release/config.json.sealed")).unwrap();
            mkfifo(&file("release/config.json.sealed"));
        }),
        ("a file changed", 3, &|| {
            let mut bytes = w.read("release/config.json.sealed");
            *bytes.last_mut().unwrap() ^= 1;
            w.write("release/config.json.sealed", bytes);
        }),
    ];
    let whole: Vec<_> = files(&w.path("release"));
    for (what, code, attack) in cases {
        attack();
        // By a device, another release's list is for another grant, or a file's id isn't the grant's.
        for refusal in [w.refused(code, &OPEN), w.device_refused(code, &BY_GRANT)] {
            assert!(
                refusal.message.contains("release") || refusal.message.contains("grants"),
                "{what}: {refusal:?}"
            );
        }
        w.refused(code, &["verify", "release"]);
        // What a grant is made for is named by its manifest, which commits to the rest; and of a file that isn't opened,
        // nothing but that is looked at.
        if what != "a file changed" {
            w.refused(code, &["grant", "release", "--device", "kitchen-7", "-o", "more-grants"]);
            w.refused_from(
                code,
                w.command(&["--json", "exec", "release", "--", "cat", "{weights/1.tflite}"]),
            );
        }
        remove_dir_all(file("release")).unwrap();
        for (name, bytes) in &whole {
            create_dir_all(file("release").join(name).parent().unwrap()).unwrap();
            w.write(format!("release/{name}"), bytes);
        }
        println!("refused: {what}");
    }
    // Not even the floor was raised by any of it.
    assert!(!w.path("kitchen-7.identity.state").exists());
    w.ok(&OPEN);
}

/// Neither folder is there until it is complete, and a kill leaves nothing beside it.
#[test]
fn a_kill_leaves_nothing() {
    let w = published();
    create_dir_all(w.path("folder/sub")).unwrap();
    for name in ["folder/a", "folder/sub/b", "folder/sub/c"] {
        w.write(name, vec![1; 6 << 20]);
    }
    let seal = ["seal", "folder", "-o", "out", "--line", "wake-word", "--model-version", "2"];
    w.ok(&["seal", "folder", "-o", "release", "--line", "wake-word", "--model-version", "2"]);
    for arguments in [&seal[..], &["open", "release", "-o", "out"]] {
        let before = w.snapshot();
        let began = Instant::now();
        w.ok(arguments);
        let (whole, mut killed, mut hidden) = (began.elapsed(), 0, 0);
        remove_dir_all(w.path("out")).unwrap();
        for twentieth in (1..20).rev() {
            let mut child = w.command(arguments).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * twentieth / 20);
            let _ = child.kill();
            if child.wait().unwrap().success() {
                remove_dir_all(w.path("out")).unwrap();
            } else {
                killed += 1;
                assert!(!w.path("out").exists(), "{arguments:?}");
            }
            // In the instant in which its files and the folder get their names, they are in a hidden one.
            let after = w.snapshot();
            let is_hidden = |path: &Path| path.to_str().unwrap().contains("/.modelseal-");
            hidden += u32::from(after.keys().any(|path| is_hidden(path)));
            for entry in std::fs::read_dir(w.dir()).unwrap().map(|entry| entry.unwrap().path()) {
                if is_hidden(&entry) {
                    remove_dir_all(entry).unwrap();
                }
            }
            assert_same(&before, &w.snapshot(), &format!("killed after {twentieth} of 20"));
        }
        assert!(hidden <= 2, "{hidden} of {killed} kills left a hidden folder");
        assert!(killed >= 5, "{arguments:?}: only {killed} kills came in time");
    }
}

#[test]
fn an_older_release_is_refused_once_a_newer_one_was_confirmed() {
    let w = released();
    w.ok(&["grant", "newer", "--device", "kitchen-7", "-o", "newer-grants"]);
    w.device_ok(&[
        "open",
        "newer",
        "-o",
        "new",
        "--grant",
        "newer-grants",
        "--identity",
        "kitchen-7.identity",
    ]);
    assert_eq!(w.device_refused(4, &BY_GRANT).name.as_deref(), Some("RolledBack"));
    // Grants of one release open no other.
    let crossed = ["open", "newer", "-o", "x", "--grant", "grants", "--identity", "kitchen-7.identity"];
    assert_eq!(w.device_refused(4, &crossed).name.as_deref(), Some("OtherModel"));
    let one = ["open", "newer", "-o", "x", "--grant", "grant", "--identity", "kitchen-7.identity"];
    w.device_refused(2, &one);
}

#[test]
fn what_can_not_be_sealed_is_refused() {
    let w = published();
    let seal = ["seal", "folder", "-o", "release", "--line", "l", "--model-version", "1"];
    let refused = |what: &str| {
        let refusal = w.refused(2, &seal);
        assert!(refusal.message.contains(what), "{refusal:?}");
        remove_dir_all(w.path("folder")).unwrap();
    };
    let fresh = || {
        create_dir_all(w.path("folder/sub")).unwrap();
        w.write("folder/model", "a model");
    };
    create_dir_all(w.path("folder/sub")).unwrap();
    refused("no files");
    for name in ["directory", "Directory", "nul.onnx", "a:b", "a\\b", "a.", "tab\t"] {
        fresh();
        w.write(format!("folder/{name}"), "x");
        refused(&format!("{name:?}"));
    }
    fresh();
    w.write("folder/MODEL", "x");
    refused("model");
    fresh();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(w.path("folder").join(name), "x").unwrap();
    refused("UTF-8");
    // What is sealed or granted would have the folder's name.
    for name in ["model.sealed", "other.GRANT", "directory.sealed"] {
        fresh();
        create_dir_all(w.path(&format!("folder/{name}"))).unwrap();
        w.write(format!("folder/{name}/x"), "x");
        refused(&name.to_ascii_lowercase());
    }
    for secret in ["vault.json", "kitchen-7.identity", "passphrase"] {
        fresh();
        std::fs::copy(w.path(secret), w.path(&format!("folder/{secret}"))).unwrap();
        let mut command = w.command(&[&["--json"], &seal[..]].concat());
        let passphrase = if secret == "passphrase" { "folder/passphrase" } else { "passphrase" };
        command.env("MODELSEAL_PASSPHRASE_FILE", w.path(passphrase));
        let refusal = w.refused_from(2, command);
        assert!(refusal.message.contains(secret), "{refusal:?}");
        remove_dir_all(w.path("folder")).unwrap();
    }
    for target in ["/etc/passwd", "../passphrase", "sub", "."] {
        fresh();
        std::os::unix::fs::symlink(target, w.path("folder/link")).unwrap();
        refused("folder/link");
    }
    fresh();
    mkfifo(&w.path("folder/pipe"));
    refused("folder/pipe");
    fresh();
    w.refused(2, &["seal", "folder", "-o", "folder/sub/release", "--line", "l", "--model-version", "1"]);
    w.refused(2, &["seal", "folder", "-o", "-", "--line", "l", "--model-version", "1"]);
    w.refused(2, &["seal", "folder", "-o", "release", "--line", "L", "--model-version", "1"]);
    w.refused(2, &[&seal[..], &["--kind", "onnx"]].concat());
    w.refused(6, &["seal", "folder", "-o", "passphrase", "--line", "l", "--model-version", "1"]);
    w.refused(
        2,
        &["seal", "folder/model", "-o", "x", "--kind", "directory", "--line", "l", "--model-version", "1"],
    );
    w.ok(&seal);
    w.refused(6, &seal);
}
