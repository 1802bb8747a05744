//! A vault in a real token: SoftHSM.
//!
//! SoftHSM reads its configuration from the environment, once per process. So every test runs itself again
//! in a child process with an environment and tokens of its own, under any test runner.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the tests share is test, too"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aes::Aes256;
use aes_gcm::KeyInit;
use cmac::{Cmac, Mac};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use modelseal_core::grant::DeviceId;
use modelseal_core::keys::fleet_block;
use modelseal_core::manifest::{Subject, Suite};
use modelseal_core::seal::{Sealing, Unsigned};
use modelseal_core::sealed::{Entry, Envelope, Header};
use modelseal_core::sign::PublisherKey;
use modelseal_hsm::{Algorithm, Error, Finding, Location, Passphrase, Role, Vault};
use zeroize::Zeroizing;

#[path = "shared/life.rs"]
mod life;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "567890";
/// Set in the child: where its tokens are.
const CHILD: &str = "MODELSEAL_TEST_TOKENS";

// ---- What a vault does -------------------------------------------------------------------------------------

#[test]
fn a_sealed_model_opens() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let model = Model::seal(b"weights".repeat(1000).as_slice());
        let envelope = vault.publish(&model.unsigned).unwrap();
        assert_eq!(model.open(&*tokens.open("ours"), &envelope).unwrap(), b"weights".repeat(1000));
    });
}

#[test]
fn a_new_vault_has_one_key_of_each_role() {
    with_tokens(|tokens| {
        let expected = [
            (Role::Master, 1, Algorithm::Aes256),
            (Role::Fleet, 1, Algorithm::Aes256),
            (Role::Publisher, 1, Algorithm::Ed25519),
        ];
        for vault in [tokens.create("ours"), tokens.open("ours")] {
            let keys = vault.keys().unwrap();
            let keys: Vec<_> = keys.iter().map(|key| (key.role, key.version, key.algorithm)).collect();
            assert_eq!(keys, expected);
            assert!(matches!(vault.publisher_key(1).unwrap(), PublisherKey::Ed25519(_)));
            assert_eq!(vault.publisher().unwrap().keys(), [vault.publisher_key(1).unwrap()]);
        }
    });
}

#[test]
fn a_publisher_may_sign_with_p256() {
    with_tokens(|tokens| {
        let location = tokens.location("ours");
        let vault = modelseal_hsm::create(&location, Some(Algorithm::EcdsaP256), &never_asked).unwrap();
        assert!(matches!(vault.publisher_key(1).unwrap(), PublisherKey::EcdsaP256 { .. }));
        // About half of a token's ECDSA signatures have the s that readers refuse.
        for i in 0..8 {
            let model = Model::seal(&[i; 100]);
            let envelope = vault.publish(&model.unsigned).unwrap();
            assert_eq!(model.open(&*vault, &envelope).unwrap(), [i; 100]);
        }
        require_all_ok(&vault.check().unwrap());
    });
}

#[test]
fn a_fresh_vault_checks_out() {
    with_tokens(|tokens| {
        let findings = tokens.create("ours").check().unwrap();
        require_all_ok(&findings);
        for subject in ["module", "token", "PIN", "master/1 wraps and unwraps", "fleet/1 makes CMACs"] {
            assert!(findings.iter().any(|finding| finding.subject == subject), "{subject}: {findings:#?}");
        }
        assert!(detail(&findings, "publisher/1 fences").contains("one mechanism only"), "{findings:#?}");
    });
}

#[test]
fn device_keys_differ_and_stay() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let one = device_key(&*vault, "one", 1);
        assert_eq!(one, device_key(&*tokens.open("ours"), "one", 1));
        assert_ne!(one, device_key(&*vault, "two", 1));
        assert_ne!(one, device_key(&*tokens.create("theirs"), "one", 1));
        let missing = vault.device_key(DeviceId::new("one").unwrap(), 2);
        assert!(matches!(missing, Err(Error::NoVersion(Role::Fleet, 2))));
    });
}

#[test]
fn an_imported_fleet_key_gives_the_standards_device_key() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let (token, key) = (tokens.session("ours"), [7; 32]);
        let rights = [Attribute::Sign(true)];
        token.create_object(&imported("modelseal/fleet/2", key, &rights)).unwrap();

        let id = DeviceId::new("device-1").unwrap();
        let block = |counter| {
            let mut mac = <Cmac<Aes256> as KeyInit>::new(&key.into());
            mac.update(&fleet_block(counter, id));
            mac.finalize().into_bytes().to_vec()
        };
        assert_eq!(device_key(&*vault, "device-1", 2), [block(1), block(2)].concat());
        let origin = find(&vault.check().unwrap(), "fleet/2 origin");
        assert!(!origin.ok && origin.detail.contains("local isn't true"), "{origin:?}");
    });
}

#[test]
fn the_life_of_keys() {
    with_tokens(|tokens| life::tell(&*tokens.create("ours"), &|| tokens.open("ours")));
}

#[test]
fn keys_made_at_once_are_different_versions() {
    with_tokens(|tokens| {
        tokens.create("ours");
        life::rotate_at_once(&|| tokens.open("ours"), 4);
    });
}

/// Without the PIN nobody retires a key: what isn't private in the token doesn't count.
#[test]
fn a_public_note_retires_nothing() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        vault.rotate(Role::Master, None).unwrap();
        let note = |private| {
            let label = "modelseal/retired/master/1";
            let note = [
                Attribute::Class(ObjectClass::DATA),
                Attribute::Token(true),
                Attribute::Private(private),
                Attribute::Label(label.into()),
            ];
            tokens.session("ours").create_object(&note).unwrap();
            vault.retired().unwrap()
        };
        assert_eq!(note(false), []);
        assert_eq!(note(true), [(Role::Master, 1)]);
    });
}

/// Nothing of the key is left in the token, nor of the note that it was retired.
#[test]
fn a_destroyed_key_leaves_no_object() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let labels = || {
            let session = tokens.session("ours");
            let mut labels = Vec::new();
            for handle in session.find_objects(&[Attribute::Token(true)]).unwrap() {
                let found = session.get_attributes(handle, &[AttributeType::Label]).unwrap();
                let [Attribute::Label(label)] = &found[..] else { panic!("{found:?}") };
                labels.push(String::from_utf8(label.clone()).unwrap());
            }
            labels
        };
        for role in Role::ALL {
            vault.rotate(role, None).unwrap();
            let old = format!("{}/1", role.name());
            vault.retire(role, 1).unwrap();
            assert!(labels().contains(&format!("modelseal/retired/{old}")));
            vault.destroy(role, 1).unwrap();
            assert!(!labels().iter().any(|label| label.ends_with(&old)), "{:?}", labels());
        }
        require_all_ok(&vault.check().unwrap());
    });
}

#[test]
fn a_tokens_keys_are_not_backed_up() {
    with_tokens(|tokens| {
        tokens.create("ours");
        let backup = modelseal_hsm::backup(&tokens.location("ours"), &never_asked, &never_asked);
        assert!(matches!(backup, Err(Error::NoBackup)));
    });
}

#[test]
fn many_threads_share_a_vault() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let model = Model::seal(b"shared");
        let envelope = vault.publish(&model.unsigned).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| drop(model.open(&*vault, &envelope).unwrap())));
            }
        });
    });
}

#[test]
fn a_lost_login_is_renewed() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let before = device_key(&*vault, "one", 1);
        tokens.raw_session("ours").logout().unwrap();
        assert_eq!(device_key(&*vault, "one", 1), before);
        tokens.raw_session("ours").logout().unwrap();
        assert_eq!(vault.keys().unwrap().len(), 3);
    });
}

#[test]
fn the_environment_may_name_the_module() {
    with_tokens(|tokens| {
        let location = format!("pkcs11:token=ours?pin-source={}", tokens.pin().display());
        modelseal_hsm::create(&location.parse().unwrap(), None, &never_asked).unwrap();
    });
}

#[test]
fn the_pin_is_asked_for_once() {
    with_tokens(|_| {
        let asked = AtomicUsize::new(0);
        let ask = || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(Passphrase::new(Zeroizing::new(format!("{PIN}\n"))))
        };
        let location = format!("pkcs11:token=ours?module-path={MODULE}").parse().unwrap();
        let vault = modelseal_hsm::create(&location, None, &ask).unwrap();
        vault.keys().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}

// ---- What a vault refuses ----------------------------------------------------------------------------------

#[test]
fn creating_twice_is_refused() {
    with_tokens(|tokens| {
        drop(tokens.create("ours"));
        let again = modelseal_hsm::create(&tokens.location("ours"), None, &never_asked);
        assert!(matches!(again, Err(Error::Exists(_))));
        assert_eq!(tokens.open("ours").keys().unwrap().len(), 3);
    });
}

#[test]
fn a_vault_without_keys_says_so() {
    with_tokens(|tokens| {
        let vault = tokens.open("ours");
        assert!(matches!(vault.newest(Role::Master), Err(Error::NoKey(Role::Master))));
        assert!(vault.check().unwrap().iter().any(|finding| !finding.ok));
    });
}

#[test]
fn another_publishers_model_is_refused() {
    with_tokens(|tokens| {
        let (ours, theirs) = (tokens.create("ours"), tokens.create("theirs"));
        let model = Model::seal(b"ours");
        let envelope = ours.publish(&model.unsigned).unwrap();
        let refused = model.open(&*theirs, &envelope);
        assert!(matches!(refused, Err(Error::Core(modelseal_core::Error::ManifestSignature))));
    });
}

#[test]
fn a_tampered_slot_is_refused() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let model = Model::seal(b"weights");
        let good = vault.publish(&model.unsigned).unwrap().encode();
        // Nonce, ciphertext and tag; after each refusal the vault goes on.
        for i in (64 + 4..64 + 64).step_by(7) {
            let mut bad = good.clone();
            bad[i] ^= 1;
            let refused = model.open(&*vault, &Envelope::parse(&bad).unwrap());
            assert!(
                matches!(refused, Err(Error::Core(modelseal_core::Error::KeySlot))),
                "byte {i}: {refused:?}"
            );
        }
        assert_eq!(model.open(&*vault, &Envelope::parse(&good).unwrap()).unwrap(), b"weights");
    });
}

#[test]
fn a_slot_is_bound_to_its_model() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let (one, two) = (Model::seal(b"one"), Model::seal(b"two"));
        let slot = *vault.publish(&one.unsigned).unwrap().slots().next().unwrap();
        let signature = *vault.publish(&two.unsigned).unwrap().signature();
        let moved = Envelope::new(signature, slot, 4).unwrap();
        assert!(matches!(two.open(&*vault, &moved), Err(Error::Core(modelseal_core::Error::KeySlot))));
    });
}

#[test]
fn widened_keys_are_refused_in_use() {
    with_tokens(|tokens| {
        drop(tokens.create("ours"));
        let token = tokens.session("ours");
        let rights = |more: Attribute| [Attribute::Encrypt(true), Attribute::Decrypt(true), more];
        let widened = [
            (Attribute::Sensitive(false), "sensitive isn't true"),
            (Attribute::Extractable(true), "extractable isn't false"),
            (Attribute::Wrap(true), "wrap isn't false"),
            (Attribute::Unwrap(true), "unwrap isn't false"),
            (Attribute::Derive(true), "derive isn't false"),
            (Attribute::Sign(true), "sign isn't false"),
            (Attribute::Verify(true), "verify isn't false"),
            (Attribute::Encrypt(false), "encrypt isn't true"),
            (Attribute::Modifiable(true), "modifiable is true"),
            (Attribute::Copyable(true), "copyable is true"),
        ];
        let model = Model::seal(b"weights");
        for (version, (wide, fault)) in (2..).zip(widened) {
            let label = format!("modelseal/master/{version}");
            let key = token.create_object(&imported(&label, [7; 32], &rights(wide))).unwrap();
            let vault = tokens.open("ours");
            match vault.publish(&model.unsigned) {
                Err(Error::TooWide(key, what)) => assert_eq!((key, what), (label, fault.to_owned())),
                other => panic!("{fault}: {other:?}"),
            }
            let finding = find(&vault.check().unwrap(), &format!("master/{version} attributes"));
            assert!(!finding.ok && finding.detail.contains(fault), "{finding:?}");
            token.destroy_object(key).unwrap();
        }
        tokens.open("ours").publish(&model.unsigned).unwrap();
    });
}

#[test]
fn a_short_master_key_is_refused_in_use() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let rights = [Attribute::Encrypt(true), Attribute::Decrypt(true)];
        let mut template = imported("modelseal/master/2", [7; 32], &rights);
        template.retain(|attribute| !matches!(attribute, Attribute::Value(_)));
        template.push(Attribute::Value(vec![7; 16]));
        tokens.session("ours").create_object(&template).unwrap();
        let refused = vault.publish(&Model::seal(b"weights").unsigned);
        assert!(matches!(refused, Err(Error::TooWide(_, _))), "{refused:?}");
    });
}

#[test]
fn a_duplicate_label_is_refused_in_use() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let rights = [Attribute::Encrypt(true), Attribute::Decrypt(true)];
        tokens.session("ours").create_object(&imported("modelseal/master/1", [7; 32], &rights)).unwrap();
        let refused = vault.publish(&Model::seal(b"weights").unsigned);
        assert!(matches!(refused, Err(Error::TooWide(_, _))), "{refused:?}");
        assert!(!find(&vault.check().unwrap(), "master/1 attributes").ok);
    });
}

#[test]
fn a_label_on_another_kind_of_key_is_reported_and_never_used() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let mut template = imported("modelseal/master/2", [7; 32], &[]);
        template.retain(|attribute| !matches!(attribute, Attribute::KeyType(_)));
        template.push(Attribute::KeyType(KeyType::GENERIC_SECRET));
        tokens.session("ours").create_object(&template).unwrap();
        assert_eq!(vault.newest(Role::Master).unwrap(), 1);
        assert!(!find(&vault.check().unwrap(), "modelseal/master/2").ok);
    });
}

/// Whoever may write to the token without the PIN could otherwise have the vault unwrap models of his own.
#[test]
fn a_planted_public_key_is_refused() {
    with_tokens(|tokens| {
        drop(tokens.create("ours"));
        let token = tokens.session("ours");
        let public = |label: &str| {
            vec![Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Label(label.as_bytes().to_vec())]
        };
        let old = token.find_objects(&public("modelseal/publisher/1")).unwrap()[0];
        let curve = token.get_attributes(old, &[AttributeType::EcParams]).unwrap().remove(0);
        token.destroy_object(old).unwrap();
        let name = Attribute::Label(b"modelseal/publisher/1".to_vec());
        let public = [Attribute::Token(true), Attribute::Private(false), curve, name];
        token.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &[]).unwrap();
        assert!(matches!(tokens.open("ours").publisher(), Err(Error::BadSignature)));
    });
}

/// Anybody may make public objects in a token, without the PIN: they don't stop a vault.
#[test]
fn planted_public_keys_are_ignored_and_reported() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let key = vault.publisher_key(1).unwrap();
        let (token, next) = (tokens.public_session("ours"), "modelseal/publisher/2");
        let own = token.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY)]).unwrap();
        let curve = token.get_attributes(own[0], &[AttributeType::EcParams]).unwrap().remove(0);
        let p256 = Attribute::EcParams(vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let edwards = |point: &[u8]| planted(KeyType::EC_EDWARDS, curve.clone(), point);
        let strays = [
            edwards(&[&[4, 32], &[7; 32][..]].concat()),
            // The neutral element, under which a careless verifier takes any signature.
            edwards(&[&[4, 32, 1], &[0; 31][..]].concat()),
            planted(KeyType::EC, p256, &[&[4, 65, 4], &[9; 64][..]].concat()),
            edwards(&[4, 31]),
        ];
        for label in ["modelseal/publisher/1", next] {
            for stray in &strays {
                let label = Attribute::Label(label.into());
                token.create_object(&[&stray[..], &[label]].concat()).unwrap();
            }
        }
        for vault in [&vault, &tokens.open("ours")] {
            assert_eq!(vault.publisher().unwrap().keys(), [key]);
            let model = Model::seal(b"weights");
            let envelope = vault.publish(&model.unsigned).unwrap();
            assert_eq!(model.open(&**vault, &envelope).unwrap(), b"weights");
            let told = find(&vault.check().unwrap(), "publisher/1 public key");
            assert!(!told.ok && told.detail.contains("(4)"), "{told:?}");
        }
        assert_eq!(vault.rotate(Role::Publisher, None).unwrap(), 2);
        assert_eq!(vault.publisher().unwrap().keys(), [vault.publisher_key(2).unwrap(), key]);
        vault.retire(Role::Publisher, 1).unwrap();
        vault.destroy(Role::Publisher, 1).unwrap();
        vault.publish(&Model::seal(b"weights").unsigned).unwrap();
    });
}

/// Nor do keys that aren't private, whichever label they have. A private object takes the PIN.
#[test]
fn planted_keys_are_ignored_and_reported() {
    with_tokens(|tokens| {
        let token = tokens.public_session("ours");
        let plant = |label: &str, private| {
            let rights = [Attribute::Encrypt(true), Attribute::Decrypt(true), Attribute::Private(private)];
            token.create_object(&imported(label, [7; 32], &rights))
        };
        // Before there are keys, and beside and after them.
        plant("modelseal/master/1", false).unwrap();
        let vault = tokens.create("ours");
        for label in ["modelseal/master/1", "modelseal/master/2", "modelseal/fleet/9"] {
            plant(label, false).unwrap();
        }
        assert_eq!(Role::ALL.map(|role| vault.newest(role).unwrap()), [1, 1, 1]);
        let model = Model::seal(b"weights");
        let envelope = vault.publish(&model.unsigned).unwrap();
        assert_eq!(model.open(&*vault, &envelope).unwrap(), b"weights");
        assert!(!find(&vault.check().unwrap(), "modelseal/master/2").ok);
        assert_eq!(vault.rotate(Role::Master, None).unwrap(), 2);
        // The login is the process's: without it.
        drop(vault);
        token.logout().unwrap();
        assert!(plant("modelseal/master/3", true).is_err());
    });
}

// ---- A second login ----------------------------------------------------------------------------------------

/// A token that is logged in to looks at no PIN.
#[test]
fn a_wrong_pin_opens_no_second_vault() {
    with_tokens(|tokens| {
        let open = |pin: &str| {
            let ask = || Ok(Passphrase::new(Zeroizing::new(pin.into())));
            modelseal_hsm::open(&format!("pkcs11:token=ours?module-path={MODULE}").parse().unwrap(), &ask)
        };
        let is_wrong = |tried: bool| match open("000000").err() {
            Some(Error::WrongPin(why)) => assert_eq!(why.contains("wasn't tried"), !tried, "{why}"),
            other => panic!("{other:?}"),
        };
        let first = tokens.create("ours");
        is_wrong(false);
        let second = open(PIN).unwrap();
        drop(first);
        // As long as any vault is logged in, and the token hasn't been asked.
        is_wrong(false);
        assert!(find(&second.check().unwrap(), "PIN").detail.contains("no wrong tries"));
        // A login that was lost: the next one asks the token.
        tokens.raw_session("ours").logout().unwrap();
        is_wrong(true);
        second.keys().unwrap();
        is_wrong(false);
        drop(second);
        is_wrong(true);
        open(PIN).unwrap().keys().unwrap();
    });
}

/// Then nothing can tell whether a PIN is right. A vault that is open goes on.
#[test]
fn no_vault_opens_where_something_else_logged_in() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        tokens.raw_session("ours").logout().unwrap();
        let other = tokens.raw_session("ours");
        vault.keys().unwrap();
        drop(tokens.open("ours"));
        drop(vault);
        let refused = modelseal_hsm::open(&tokens.location("ours"), &never_asked).err();
        assert!(matches!(refused, Some(Error::LoggedIn)), "{refused:?}");
        other.logout().unwrap();
        tokens.open("ours").keys().unwrap();
    });
}

/// The token is looked at before the first of them, and what was destroyed is refused by name.
#[test]
fn many_device_keys_are_one_use() {
    with_tokens(|tokens| {
        let vault = tokens.create("ours");
        let ids: Vec<_> = (0..200).map(|i| format!("device-{i}")).collect();
        let devices: Vec<_> = ids.iter().map(|id| (DeviceId::new(id).unwrap(), 1)).collect();
        assert_eq!(vault.device_keys(&devices).unwrap().len(), 200);
        let session = tokens.session("ours");
        let label = Attribute::Label(b"modelseal/fleet/1".to_vec());
        session.destroy_object(session.find_objects(&[label]).unwrap()[0]).unwrap();
        let refused = vault.device_keys(&devices).map(drop);
        assert!(matches!(refused, Err(Error::NoVersion(Role::Fleet, 1))), "{refused:?}");
    });
}

#[test]
fn a_wrong_pin_is_tried_once_and_said() {
    with_tokens(|tokens| {
        let wrong = || Ok(Passphrase::new(Zeroizing::new("000000".into())));
        let location = format!("pkcs11:token=ours?module-path={MODULE}").parse().unwrap();
        match modelseal_hsm::open(&location, &wrong).err() {
            Some(Error::WrongPin(tries)) => assert_eq!(tries, "the token warns that few tries are left"),
            other => panic!("{other:?}"),
        }
        // The warning is the token's, and goes with the next good PIN.
        let vault = tokens.create("ours");
        assert!(find(&vault.check().unwrap(), "PIN").ok);
    });
}

#[test]
fn an_empty_or_missing_pin_isnt_tried() {
    with_tokens(|_| {
        let empty = || Ok(Passphrase::new(Zeroizing::new("\n".into())));
        let location = format!("pkcs11:token=ours?module-path={MODULE}").parse().unwrap();
        assert!(matches!(modelseal_hsm::open(&location, &empty).err(), Some(Error::NoPassphrase)));
        let location = format!("pkcs11:token=ours?module-path={MODULE}&pin-source=/nowhere/pin");
        let missing = modelseal_hsm::open(&location.parse().unwrap(), &never_asked).err();
        assert!(matches!(missing, Some(Error::Io(path, _)) if path == Path::new("/nowhere/pin")));
    });
}

#[test]
fn a_missing_token_is_said_with_those_that_are_there() {
    with_tokens(|tokens| {
        let missing = modelseal_hsm::open(&tokens.location("nobodys"), &never_asked).err().unwrap();
        assert!(matches!(&missing, Error::Token(_)), "{missing:?}");
        assert!(missing.to_string().contains("ours (serial "), "{missing}");
        let both = format!("pkcs11:manufacturer=SoftHSM%20project?module-path={MODULE}").parse().unwrap();
        let both = modelseal_hsm::open(&both, &never_asked).err().unwrap();
        assert!(both.to_string().contains("several"), "{both}");
    });
}

#[test]
fn a_missing_or_foreign_module_is_said() {
    with_tokens(|_| {
        for path in ["/nowhere/module.so", "/etc/passwd", "/lib/x86_64-linux-gnu/libm.so.6"] {
            let location = format!("pkcs11:token=ours?module-path={path}").parse().unwrap();
            let error = modelseal_hsm::open(&location, &never_asked).err().unwrap();
            assert!(matches!(&error, Error::Module(_, _)), "{error:?}");
            assert!(error.to_string().contains(path), "{error}");
        }
    });
}

/// A name alone would be looked for in the folder that the program is in.
#[test]
fn a_module_is_named_by_its_whole_path() {
    with_tokens(|tokens| {
        let here = std::env::current_dir().unwrap();
        let up = "../".repeat(here.components().count());
        let relative = format!("{up}{}", MODULE.trim_start_matches('/'));
        assert!(Path::new(&relative).exists());
        for module in ["libsofthsm2.so", "./libsofthsm2.so", &relative] {
            let location = format!("pkcs11:token=ours?module-path={module}").parse().unwrap();
            let refused = modelseal_hsm::open(&location, &never_asked).err();
            assert!(
                matches!(refused, Some(Error::Location(why)) if why.contains("whole path")),
                "{module}: {refused:?}"
            );
        }
        // SAFETY: this process has one thread, this test's.
        #[allow(unsafe_code, reason = "there is no safe one")]
        unsafe {
            std::env::set_var("MODELSEAL_PKCS11_MODULE", &relative)
        };
        let location = format!("pkcs11:token=ours?pin-source={}", tokens.pin().display());
        let refused = modelseal_hsm::open(&location.parse().unwrap(), &never_asked).err();
        assert!(
            matches!(refused, Some(Error::Location(why)) if why.starts_with("MODELSEAL_PKCS11_MODULE")),
            "{refused:?}"
        );
    });
}

// ---- A model -----------------------------------------------------------------------------------------------

/// A sealed model in pieces.
struct Model {
    unsigned: Unsigned,
    index: Vec<Entry>,
    payload: Vec<u8>,
}

impl Model {
    fn seal(model: &[u8]) -> Self {
        let subject = Subject {
            suite: Suite::Aes256Gcm,
            chunk_log2: 10,
            align_log2: 4,
            line: "wake-word",
            version: 1,
            kind: "onnx",
            length: model.len() as u64,
            created: 1_750_000_000,
            claims: Default::default(),
        };
        let mut sealing: Sealing<'_> = Sealing::new(subject, 4, &mut UnwrapErr(SysRng)).unwrap();
        let mut payload = model.to_vec();
        let index = payload.chunks_mut(1024).map(|chunk| sealing.seal_next(chunk).unwrap()).collect();
        Self { unsigned: sealing.finish().unwrap(), index, payload }
    }

    fn open(&self, vault: &dyn Vault, envelope: &Envelope) -> Result<Vec<u8>, Error> {
        let envelope = Envelope::parse(&envelope.encode())?;
        let unwrapped = vault.unwrap(Header::parse(self.unsigned.header_bytes())?, &envelope)?;
        let mut memory = self.payload.clone();
        let tag = |i| Ok(self.index[usize::try_from(i).unwrap()].tag);
        Ok(unwrapped.open_in_place(&mut memory, tag)?.model().to_vec())
    }
}

fn device_key(vault: &dyn Vault, id: &str, fleet: u32) -> Vec<u8> {
    vault.device_key(DeviceId::new(id).unwrap(), fleet).unwrap().expose_to_factory().to_vec()
}

// ---- Findings ----------------------------------------------------------------------------------------------

fn require_all_ok(findings: &[Finding]) {
    assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");
}

fn find(findings: &[Finding], subject: &str) -> Finding {
    let found = findings.iter().find(|finding| finding.subject == subject);
    found.unwrap_or_else(|| panic!("no {subject} in {findings:#?}")).clone()
}

fn detail(findings: &[Finding], subject: &str) -> String {
    find(findings, subject).detail
}

// ---- Tokens ------------------------------------------------------------------------------------------------

/// The two tokens of one test, `ours` and `theirs`, in a directory that goes with it.
struct Tokens {
    dir: PathBuf,
    held: Mutex<Vec<Box<dyn Vault>>>,
}

impl Tokens {
    fn pin(&self) -> PathBuf {
        self.dir.join("pin")
    }

    fn location(&self, token: &str) -> Location {
        let pin = self.pin();
        let uri = format!("pkcs11:token={token}?module-path={MODULE}&pin-source={}", pin.display());
        uri.parse().unwrap()
    }

    fn create(&self, token: &str) -> Box<dyn Vault> {
        modelseal_hsm::create(&self.location(token), None, &never_asked).unwrap()
    }

    fn open(&self, token: &str) -> Box<dyn Vault> {
        modelseal_hsm::open(&self.location(token), &never_asked).unwrap()
    }

    /// A logged-in session past the vault's. It is a vault that logs in: one refuses to open where something else did.
    fn session(&self, token: &str) -> Session {
        self.held.lock().unwrap().push(self.open(token));
        self.raw_session(token)
    }

    /// The same with a login of its own, unless there is one.
    fn raw_session(&self, token: &str) -> Session {
        let session = self.public_session(token);
        let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
        session
    }

    /// One that needs no PIN.
    fn public_session(&self, token: &str) -> Session {
        let context = Pkcs11::new(MODULE).unwrap();
        // The vault may have done it.
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slots = context.get_slots_with_token().unwrap();
        let is_it = |slot: &&_| context.get_token_info(**slot).unwrap().label() == token;
        context.open_rw_session(*slots.iter().find(is_it).unwrap()).unwrap()
    }
}

/// A public key, but for its label.
fn planted(kind: KeyType, curve: Attribute, point: &[u8]) -> [Attribute; 6] {
    [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(kind),
        Attribute::Token(true),
        Attribute::Private(false),
        curve,
        Attribute::EcPoint(point.to_vec()),
    ]
}

/// A key with all of a role's attributes, then `rights` instead.
fn imported(label: &str, value: [u8; 32], rights: &[Attribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Value(value.to_vec()),
        Attribute::Label(label.into()),
        Attribute::Id(label.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
    ];
    for right in rights {
        template.retain(|attribute| attribute.attribute_type() != right.attribute_type());
        template.push(right.clone());
    }
    template
}

fn never_asked() -> Result<Passphrase, Error> {
    panic!("the PIN is in a file")
}

/// Runs `test` in a child process with tokens of its own. The type of the closure names the test around it.
fn with_tokens<F: FnOnce(&Tokens)>(test: F) {
    if let Some(dir) = std::env::var_os(CHILD) {
        return test(&Tokens { dir: dir.into(), held: Mutex::default() });
    }
    let name = std::any::type_name::<F>().split("::").nth(1).unwrap();
    let dir = make_tokens();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, dir.path());
    child.env("SOFTHSM2_CONF", dir.path().join("softhsm2.conf")).env("MODELSEAL_PKCS11_MODULE", MODULE);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "in the child process:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn make_tokens() -> tempfile::TempDir {
    let missing = "SoftHSM is missing, and these tests need it: apt-get install softhsm2";
    assert!(Path::new(MODULE).exists(), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    let (tokens, conf) = (dir.path().join("tokens"), dir.path().join("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    std::fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    std::fs::write(dir.path().join("pin"), format!("{PIN}\n")).unwrap();
    for label in ["ours", "theirs"] {
        let mut make = Command::new("softhsm2-util");
        make.args(["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]);
        let made = make.env("SOFTHSM2_CONF", &conf).output().expect(missing);
        assert!(made.status.success(), "{made:?}");
    }
    dir
}
