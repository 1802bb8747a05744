//! The software vault: what it makes, what it refuses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use aes::Aes256;
use cmac::{Cmac, KeyInit, Mac};
use modelseal_core::grant::DeviceId;
use modelseal_core::sign::PublisherKey;
use modelseal_hsm::{Algorithm, Error, Location, Passphrase, Role, Vault, backup, create, open, restore};
use zeroize::Zeroizing;

#[path = "shared/life.rs"]
mod life;

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.into()))
}

fn location(dir: &tempfile::TempDir) -> Location {
    Location::File(dir.path().join("vault.json"))
}

fn path(location: &Location) -> &Path {
    match location {
        Location::File(path) => path,
        Location::Pkcs11(_) => unreachable!("these tests use files"),
    }
}

fn make(location: &Location) -> Box<dyn Vault> {
    create(location, None, &|| Ok(passphrase("right"))).unwrap()
}

#[test]
fn a_vault_opens_again_with_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let made = make(&location);
    let opened = open(&location, &|| Ok(passphrase("right\n"))).unwrap();
    assert_eq!(made.keys().unwrap(), opened.keys().unwrap());
    assert_eq!(made.publisher().unwrap(), opened.publisher().unwrap());
    assert_eq!(opened.newest(Role::Fleet).unwrap(), 1);
    assert!(opened.check().unwrap().iter().all(|finding| finding.ok));
}

#[cfg(unix)]
#[test]
fn the_file_is_the_owners_alone_and_is_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    make(&location);
    let before = std::fs::read(path(&location)).unwrap();
    assert_eq!(std::fs::metadata(path(&location)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(create(&location, None, &|| Ok(passphrase("x"))).err(), Some(Error::Exists(_))));
    assert_eq!(std::fs::read(path(&location)).unwrap(), before);
}

#[test]
fn a_wrong_or_missing_passphrase_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    assert!(matches!(create(&location, None, &|| Ok(passphrase(""))).err(), Some(Error::NoPassphrase)));
    make(&location);
    let wrong = open(&location, &|| Ok(passphrase("wrong"))).err();
    assert!(matches!(wrong, Some(Error::WrongPassphrase(_))), "{wrong:?}");
    assert!(matches!(open(&location, &|| Err(Error::NoPassphrase)).err(), Some(Error::NoPassphrase)));
}

#[test]
fn nobody_is_asked_for_the_passphrase_of_a_missing_vault() {
    let dir = tempfile::tempdir().unwrap();
    let missing = open(&location(&dir), &|| unreachable!("asked")).err();
    assert!(matches!(missing, Some(Error::Missing(_))));
}

#[test]
fn a_changed_file_is_refused_before_it_costs_anything() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    make(&location);
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(path(&location)).unwrap()).unwrap();
    let open_with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut edited = good.clone();
        edit(&mut edited);
        std::fs::write(path(&location), edited.to_string()).unwrap();
        open(&location, &|| Ok(passphrase("right"))).err()
    };
    for (field, value) in [("memory_kib", 65537), ("passes", 17), ("lanes", 9)] {
        let refused = open_with(&|file| file["kdf"][field] = value.into());
        assert!(matches!(refused, Some(Error::Corrupt(_))), "{field}: {refused:?}");
    }
    assert!(matches!(open_with(&|file| file["format"] = "other".into()), Some(Error::Corrupt(_))));
    assert!(matches!(open_with(&|file| file["keys"] = "00".into()), Some(Error::Corrupt(_))));
    let flipped = open_with(&|file| {
        let keys = file["keys"].as_str().unwrap();
        let first = if keys.starts_with('0') { "1" } else { "0" };
        file["keys"] = format!("{first}{}", &keys[1..]).into();
    });
    assert!(matches!(flipped, Some(Error::WrongPassphrase(_))), "{flipped:?}");
}

#[test]
fn device_keys_are_those_of_sp_800_108() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let vault = make(&location);
    let key = |id| *vault.device_key(DeviceId::new(id).unwrap(), 1).unwrap().expose_to_factory();
    assert_eq!(key("kitchen-7"), key("kitchen-7"));
    assert_ne!(key("kitchen-7"), key("kitchen-8"));
    assert!(matches!(
        vault.device_key(DeviceId::new("x").unwrap(), 2).err(),
        Some(Error::NoVersion(Role::Fleet, 2))
    ));

    // The same from the fleet key itself, which the file gives up to whoever has the passphrase.
    let fleet = fleet_key(path(&location), "right");
    let half = |counter: u8| {
        let mut mac = <Cmac<Aes256> as KeyInit>::new(&fleet.into());
        mac.update(&[&[0, 0, 0, counter][..], b"modelseal/v1/device\0kitchen-7", &[0, 0, 1, 0]].concat());
        mac.finalize().into_bytes()
    };
    assert_eq!(key("kitchen-7")[..], [half(1), half(2)].concat());
}

/// Decrypts a vault file by hand: Argon2id, AES-256-GCM, then the second key of the list.
fn fleet_key(path: &Path, passphrase: &str) -> [u8; 32] {
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::AeadInOut;
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let params = argon2::Params::new(32 * 1024, 3, 1, Some(32)).unwrap();
    let mut key = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &bytes(&file["kdf"]["salt"]), &mut key)
        .unwrap();
    let mut keys = bytes(&file["keys"]);
    let tag: [u8; 16] = keys.split_off(keys.len() - 16).try_into().unwrap();
    let nonce: [u8; 12] = bytes(&file["nonce"]).try_into().unwrap();
    let cipher = <Aes256Gcm as aes_gcm::KeyInit>::new(&key.into());
    let opened = cipher.decrypt_inout_detached(
        &nonce.into(),
        b"modelseal vault 1",
        keys.as_mut_slice().into(),
        &tag.into(),
    );
    opened.unwrap();
    // A count, then keys of role, version, algorithm and 32 bytes.
    assert_eq!((keys[0], keys.len()), (3, 1 + 3 * 35));
    assert_eq!(keys[36..39], [2, 1, 1]);
    keys[39..71].try_into().unwrap()
}

#[test]
fn a_publisher_may_sign_with_p256() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let vault = create(&location, Some(Algorithm::EcdsaP256), &|| Ok(passphrase("right"))).unwrap();
    assert!(matches!(vault.publisher_key(1).unwrap(), PublisherKey::EcdsaP256 { .. }));
    assert_eq!(vault.keys().unwrap().last().unwrap().algorithm, Algorithm::EcdsaP256);
}

#[test]
fn the_life_of_keys() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    life::tell(&*make(&location), &|| open(&location, &|| Ok(passphrase("right"))).unwrap());
}

#[test]
fn keys_made_at_once_are_different_versions() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    make(&location);
    life::rotate_at_once(&|| open(&location, &|| Ok(passphrase("right"))).unwrap(), 4);
}

/// Another vault in the same place isn't overwritten by one that was open before.
#[test]
fn a_vault_file_that_was_replaced_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let first = make(&location);
    std::fs::remove_file(path(&location)).unwrap();
    make(&location);
    let second = std::fs::read(path(&location)).unwrap();
    let refused = first.rotate(Role::Master, None);
    assert!(matches!(refused, Err(Error::Replaced(_))), "{refused:?}");
    assert_eq!(std::fs::read(path(&location)).unwrap(), second);
}

/// An open vault doesn't go on with keys of which its file says nothing any more.
#[test]
fn a_vault_whose_file_is_gone_is_of_no_use_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let (vault, away) = (make(&location), dir.path().join("away"));
    let keys = vault.keys().unwrap();
    let derive = || vault.device_key(DeviceId::new("x").unwrap(), 1).map(drop);
    std::fs::rename(path(&location), &away).unwrap();
    let refused = [derive(), vault.newest(Role::Master).map(drop), vault.rotate(Role::Fleet, None).map(drop)];
    assert!(refused.iter().all(|gone| matches!(gone, Err(Error::Gone(_)))), "{refused:?}");
    make(&location);
    assert!(matches!(derive(), Err(Error::Replaced(_))));
    let good = std::fs::read_to_string(&away).unwrap();
    std::fs::write(path(&location), good.replace("\"keys\": \"", "\"keys\": \"00")).unwrap();
    assert!(matches!(derive(), Err(Error::Corrupt(_))));
    std::fs::rename(&away, path(&location)).unwrap();
    derive().unwrap();
    assert_eq!(vault.keys().unwrap(), keys);
}

/// Nobody waits for somebody to write to what isn't a file.
#[cfg(target_os = "linux")]
#[test]
fn a_fifo_is_no_vault() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let made = std::process::Command::new("mkfifo").arg(path(&location)).status().unwrap();
    assert!(made.success());
    let refused = open(&location, &|| Ok(passphrase("right"))).err();
    assert!(matches!(refused, Some(Error::Corrupt(_))), "{refused:?}");
}

#[cfg(unix)]
#[test]
fn files_that_others_may_use_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (location, secret) = (location(&dir), dir.path().join("passphrase"));
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let vault = make(&location);
    std::fs::write(&secret, "right").unwrap();
    for (mode, told) in [(0o600, false), (0o400, false), (0o640, true), (0o602, true), (0o644, true)] {
        for path in [path(&location), &secret] {
            allow(path, mode);
        }
        let opened = open(&location, &|| Passphrase::from_file(&secret)).unwrap();
        vault.keys().unwrap();
        for vault in [&vault, &opened] {
            let exposed: Vec<_> =
                vault.exposed().into_iter().map(|exposed| (exposed.path, exposed.mode)).collect();
            let expected = told.then(|| (path(&location).to_owned(), mode));
            assert_eq!(exposed, Vec::from_iter(expected), "{mode:o}");
            assert_eq!(vault.check().unwrap()[0].ok, !told, "{mode:o}");
        }
        let read = Passphrase::from_file(&secret).unwrap();
        assert_eq!(read.exposed().map(|exposed| exposed.mode), told.then_some(mode), "{mode:o}");
    }
    // What it has become since it was read is another matter.
    let read = Passphrase::from_file(&secret).unwrap();
    allow(&secret, 0o600);
    assert!(read.exposed().is_some());
}

/// A link to the file stays one, the mode stays, and the format tells old programs what they don't know.
#[cfg(unix)]
#[test]
fn changes_keep_links_and_the_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    make(&location);
    let link = dir.path().join("link.json");
    std::os::unix::fs::symlink(path(&location), &link).unwrap();
    let vault = open(&Location::File(link.clone()), &|| Ok(passphrase("right"))).unwrap();
    let format = || {
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path(&location)).unwrap()).unwrap();
        file["format"].as_str().unwrap().to_owned()
    };
    vault.rotate(Role::Master, None).unwrap();
    assert_eq!(format(), "modelseal vault 1");
    vault.retire(Role::Master, 1).unwrap();
    assert_eq!(format(), "modelseal vault 2");
    vault.destroy(Role::Master, 1).unwrap();
    assert_eq!(format(), "modelseal vault 1");
    assert!(link.is_symlink());
    assert_eq!(std::fs::metadata(path(&location)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_backup_has_a_passphrase_of_its_own_and_is_restored_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let vault = make(&location);
    vault.rotate(Role::Master, None).unwrap();
    vault.retire(Role::Master, 1).unwrap();
    let right = || Ok(passphrase("right"));
    let empty = backup(&location, &right, &|| Ok(passphrase("")));
    assert!(matches!(empty, Err(Error::NoBackupPassphrase)));
    assert!(matches!(backup(&location, &|| Ok(passphrase("wrong")), &right), Err(Error::WrongPassphrase(_))));
    let file = dir.path().join("backup");
    let bytes = backup(&location, &right, &|| Ok(passphrase("theirs"))).unwrap();
    std::fs::write(&file, &bytes).unwrap();

    let elsewhere = Location::File(dir.path().join("restored.json"));
    let to = |location: &Location, own: &str| {
        restore(location, &file, &|| Ok(passphrase(own)), &|| Ok(passphrase("new")))
    };
    assert!(matches!(to(&location, "theirs").err(), Some(Error::Exists(_))));
    assert!(matches!(to(&elsewhere, "right").err(), Some(Error::WrongBackupPassphrase(_))));
    std::fs::write(&file, &bytes[..bytes.len() - 9]).unwrap();
    assert!(matches!(to(&elsewhere, "theirs").err(), Some(Error::Corrupt(_))));
    assert!(!path(&elsewhere).exists());
    std::fs::write(&file, &bytes).unwrap();
    to(&elsewhere, "theirs").unwrap();
    let restored = open(&elsewhere, &|| Ok(passphrase("new"))).unwrap();
    assert_eq!(restored.keys().unwrap(), vault.keys().unwrap());
    assert_eq!(restored.retired().unwrap(), [(Role::Master, 1)]);
    assert_eq!(restored.publisher().unwrap(), vault.publisher().unwrap());
    let id = DeviceId::new("kitchen-7").unwrap();
    let key = |vault: &dyn Vault| *vault.device_key(id, 1).unwrap().expose_to_factory();
    assert_eq!(key(&*restored), key(&*vault));
}

/// In releases, too: see the profiles in the workspace's Cargo.toml.
#[test]
fn overflow_stops_the_program() {
    let most = std::hint::black_box(u8::MAX);
    assert!(std::panic::catch_unwind(|| most + std::hint::black_box(1)).is_err());
}

#[test]
fn locations_are_parsed_strictly() {
    let parse = |text: &str| text.parse::<Location>();
    assert_eq!(parse("file:a b.json").unwrap(), Location::File("a b.json".into()));
    let Location::Pkcs11(uri) =
        parse("pkcs11:token=my%20models;serial=0a?module-path=/a%2fb.so&pin-source=file:/pin").unwrap()
    else {
        unreachable!("it is a token's")
    };
    assert_eq!((uri.token.as_deref(), uri.serial.as_deref()), (Some("my models"), Some("0a")));
    assert_eq!(uri.module.as_deref(), Some(Path::new("/a/b.so")));
    assert_eq!(uri.pin_source.as_deref(), Some(Path::new("/pin")));
    for wrong in [
        "",
        "file:",
        "vault.json",
        "pkcs11:",
        "pkcs11:object=x",
        "pkcs11:token=a?pin-value=1",
        "pkcs11:token=a b",
        "pkcs11:token= a",
        "pkcs11:token=a\n",
        "pkcs11:token=\u{a0}a",
        "pkcs11:\n",
        "pkcs11:token=a?\t",
        "pkcs11:token=a%",
        "pkcs11:token=a%2",
        "pkcs11:token=%zz?module-path=/a",
    ] {
        assert!(matches!(parse(wrong), Err(Error::Location(_))), "{wrong}");
    }
}
