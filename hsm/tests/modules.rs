//! Which PKCS#11 libraries are found, in folders that look like other systems, and on this one.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what the tests share is test, too"
)]

use std::fs;
use std::path::{Path, PathBuf};

use modelseal_hsm::modules;

/// A root folder with these files in it.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn found(dir: &Path, home: Option<&Path>) -> Vec<String> {
    let canonical = dir.canonicalize().unwrap();
    let relative = |path: PathBuf| path.strip_prefix(&canonical).unwrap().to_str().unwrap().to_owned();
    modules(&[dir.to_owned()], home).into_iter().map(relative).collect()
}

#[test]
fn the_usual_places_of_each_system_are_known() {
    for place in [
        // Debian, on three architectures
        "usr/lib/softhsm/libsofthsm2.so",
        "usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "usr/lib/arm-linux-gnueabihf/pkcs11/opensc-pkcs11.so",
        "usr/lib/riscv64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
        // Fedora
        "usr/lib64/pkcs11/libsofthsm2.so",
        "usr/lib64/softhsm/libsofthsm2.so",
        "usr/lib64/pkcs11/opensc-pkcs11.so",
        // Arch
        "usr/lib/pkcs11/opensc-pkcs11.so",
        "usr/lib/pkcs11/libtpm2_pkcs11.so",
        // macOS
        "opt/homebrew/lib/softhsm/libsofthsm2.so",
        "usr/local/lib/softhsm/libsofthsm2.so",
        "Library/OpenSC/lib/opensc-pkcs11.so",
        // Windows
        "SoftHSM2/lib/softhsm2-x64.dll",
        "Program Files/OpenSC Project/OpenSC/pkcs11/opensc-pkcs11.dll",
    ] {
        let dir = root(&[(place, ""), ("usr/lib/x86_64-linux-gnu/libc.so.6", "")]);
        assert_eq!(found(dir.path(), None), [place]);
    }
    assert!(found(root(&[]).path(), None).is_empty());
}

/// All are given, for nobody but the user can choose; the same one by two names is one.
#[test]
fn several_are_all_given_and_links_are_followed() {
    let (one, two) = ("usr/lib/softhsm/libsofthsm2.so", "usr/lib/a/pkcs11/opensc-pkcs11.so");
    let dir = root(&[(one, ""), (two, "")]);
    fs::create_dir_all(dir.path().join("usr/lib/a/softhsm")).unwrap();
    std::os::unix::fs::symlink(dir.path().join(one), dir.path().join("usr/lib/a/softhsm/libsofthsm2.so"))
        .unwrap();
    assert_eq!(found(dir.path(), None), [two, one]);
}

#[test]
fn p11_kits_configuration_counts() {
    let library = "usr/lib/x86_64-linux-gnu/pkcs11/vendor.so";
    let cases: [(&str, &str, &[&str]); 12] = [
        ("usr/share/p11-kit/modules/v.module", "module: vendor.so\n", &[library]),
        ("etc/pkcs11/modules/v.module", "# a comment\n\n module :  vendor.so \npriority: 3\n", &[library]),
        ("etc/pkcs11/modules/v.module", "module: /opt/vendor/lib.so\n", &["opt/vendor/lib.so"]),
        ("etc/pkcs11/modules/v.module", "module: /opt/vendor/none.so\n", &[]),
        ("etc/pkcs11/modules/v.conf", "module: vendor.so\n", &[]),
        ("etc/pkcs11/modules/v.module", "module: vendor.so\nenabled: no\n", &[]),
        ("etc/pkcs11/modules/v.module", "#module: vendor.so\n", &[]),
        ("etc/pkcs11/modules/v.module", "remote: |ssh host p11-kit remote vendor.so\n", &[]),
        ("etc/pkcs11/modules/v.module", "remote: unix:path=/run/s\nmodule: vendor.so\n", &[]),
        ("etc/pkcs11/modules/v.module", "module: vendor.so\nenable-in: firefox, ssh\n", &[]),
        ("etc/pkcs11/modules/v.module", "module: vendor.so\nenable-in: firefox, modelseal\n", &[library]),
        ("etc/pkcs11/modules/v.module", "module: p11-kit-trust.so\n", &[]),
    ];
    for (file, text, expected) in cases {
        let dir = root(&[
            (library, ""),
            ("opt/vendor/lib.so", ""),
            ("usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so", ""),
            (file, text),
        ]);
        assert_eq!(found(dir.path(), None), expected, "{file}: {text}");
    }
}

/// The user's file hides the administrator's of the same name, and that the package's.
#[test]
fn the_nearer_configuration_hides_the_farther() {
    let (far, near, own) = ("opt/far.so", "opt/near.so", "opt/own.so");
    let files = [
        (far, ""),
        (near, ""),
        (own, ""),
        ("usr/share/p11-kit/modules/v.module", "module: /opt/far.so\n"),
        ("etc/pkcs11/modules/v.module", "module: /opt/near.so\n"),
        ("home/.config/pkcs11/modules/v.module", "module: /opt/own.so\n"),
    ];
    assert_eq!(found(root(&files[..4]).path(), None), [far]);
    assert_eq!(found(root(&files[..5]).path(), None), [near]);
    let dir = root(&files);
    assert_eq!(found(dir.path(), Some(&dir.path().join("home"))), [own]);
}

#[test]
fn softhsm_is_found_on_this_system() {
    let softhsm = Path::new("/usr/lib/softhsm/libsofthsm2.so").canonicalize();
    let softhsm = softhsm.expect("SoftHSM is missing, and this test needs it: apt-get install softhsm2");
    assert!(modules(&["/".into()], None).contains(&softhsm));
}
