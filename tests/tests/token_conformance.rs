//! What a token has to do to hold a vault: one suite that drives any token by its URI, through the real program and
//! through the library.
//!
//! It is run with SoftHSM and kryoptic, which disagree on nearly every default and error code; its signing part with a
//! TPM; and by `tests/run --token URI` with a token of your own, which must be initialised, have a user PIN that
//! `pin-source` names, and have no key whose label begins with `modelseal/`. The keys that the suite makes there are
//! destroyed in the end. One wrong PIN is tried, and then the right one.
//!
//! A library is initialised once for each process, and its environment is the process's. So each test runs itself
//! again in a child process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::process::Command;

use aes::Aes256;
use cmac::{Cmac, KeyInit, Mac};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use getrandom::SysRng;
use modelseal_core::grant::{DeviceId, Grant, Terms, wrap_for_x25519};
use modelseal_core::keys::{X25519Secret, fleet_block};
use modelseal_core::manifest::{Subject, Suite};
use modelseal_core::seal::{Sealing, Unsigned};
use modelseal_core::sealed::{Entry, Envelope, Header};
use modelseal_hsm::{Error, Finding, Location, Role, Vault};
use modelseal_tests::bench::{Bench, LINE};
use modelseal_tests::tokens::Token;
use modelseal_tests::workspace::WAKE_WORD;
use modelseal_tests::{Refusal, Workspace, story};
use rand_core::UnwrapErr;
use serde_json::{Value, json};

/// The token's URI: for the child, and for `the_token_given`.
const URI: &str = "MODELSEAL_TEST_TOKEN";
/// Set in the child: the names of the variables that the token's library needs.
const CHILD: &str = "MODELSEAL_TEST_CHILD";
/// Newest wins, so what is made wrongly here is what would be used.
const SECOND: u32 = 2;
const ENROL_DERIVED: [&str; 8] =
    ["device", "enroll", "d", "--line", LINE, "--derive", "--identity-out", "d.identity"];

// ---- The tokens --------------------------------------------------------------------------------------------

#[test]
fn softhsm_conforms() {
    with_token("softhsm_conforms", || Token::softhsm(&[]), |suite| assert_eq!(whole(suite), 0));
}

#[test]
fn kryoptic_conforms() {
    with_token("kryoptic_conforms", || Token::kryoptic(&[]), |suite| assert_eq!(whole(suite), 0));
}

/// It has no AES-GCM and no AES-CMAC for anybody, so it is a publisher's alone.
#[test]
fn a_tpm_signs() {
    with_token("a_tpm_signs", Token::tpm, |suite| {
        suite.require_empty();
        let roles = suite.init();
        assert_eq!(roles, [Role::Publisher]);
        publisher_of(suite, &roles);
    });
}

/// Each with a TPM of its own, which has room for three objects.
#[test]
fn a_tpms_key_that_may_decrypt_is_refused() {
    tpm_refuses("a_tpms_key_that_may_decrypt_is_refused", Attribute::Decrypt(true), "decrypt isn't false");
}

#[test]
fn a_tpms_key_that_may_derive_is_refused() {
    tpm_refuses("a_tpms_key_that_may_derive_is_refused", Attribute::Derive(true), "derive isn't false");
}

#[test]
fn a_tpms_key_that_may_be_changed_is_refused() {
    tpm_refuses(
        "a_tpms_key_that_may_be_changed_is_refused",
        Attribute::Modifiable(true),
        "modifiable is true",
    );
}

fn tpm_refuses(name: &str, wide: Attribute, fault: &str) {
    with_token(name, Token::tpm, |suite| {
        suite.init();
        assert_eq!(widened_key(suite, Role::Publisher, &wide, fault), 0);
    });
}

/// Whatever token the environment names. What it lacks or forbids is printed, and doesn't fail it.
#[test]
#[ignore = "needs a token: run tests/run --token URI"]
fn the_token_given() {
    let uri = std::env::var(URI).expect("MODELSEAL_TEST_TOKEN names the token by its URI");
    // Which ones its library needs isn't known here.
    let suite = UnderTest::of(&uri, |name| !name.starts_with("MODELSEAL_") && name != "TMPDIR");
    suite.require_empty();
    let _keys = Destroyed(&suite);
    let roles = suite.init();
    let skipped = if roles == Role::ALL {
        whole_of(&suite)
    } else {
        publisher_of(&suite, &roles);
        widened_keys(&suite, &[Role::Publisher])
    };
    suite.say(&format!("everything; {skipped} skipped"));
}

// ---- What a token lacks ------------------------------------------------------------------------------------

#[test]
fn softhsm_without_cmac_goes_on() {
    with_token("softhsm_without_cmac_goes_on", || Token::softhsm(&["CKM_AES_CMAC"]), without_cmac);
}

#[test]
fn kryoptic_without_cmac_goes_on() {
    with_token("kryoptic_without_cmac_goes_on", || Token::kryoptic(&["CKM_AES_CMAC"]), without_cmac);
}

#[test]
fn softhsm_without_gcm_goes_on() {
    with_token("softhsm_without_gcm_goes_on", || Token::softhsm(&["CKM_AES_GCM"]), without_gcm);
}

#[test]
fn kryoptic_without_gcm_goes_on() {
    with_token("kryoptic_without_gcm_goes_on", || Token::kryoptic(&["CKM_AES_GCM"]), without_gcm);
}

/// With neither algorithm there is no publisher, and so no vault. Nothing is left behind.
#[test]
fn kryoptic_without_signatures_is_refused() {
    let without = ["CKM_ECDSA", "CKM_EDDSA"];
    with_token(
        "kryoptic_without_signatures_is_refused",
        || Token::kryoptic(&without),
        |suite| {
            let refusal = suite.w.refused(5, &["init"]);
            assert!(refusal.message.contains("signing with ECDSA P-256"), "{refusal:?}");
            suite.require_empty();
        },
    );
}

/// Ed25519 where there is EdDSA, ECDSA P-256 where there isn't; what is asked for is never replaced.
#[test]
fn softhsm_without_eddsa_signs_with_ecdsa() {
    let name = "softhsm_without_eddsa_signs_with_ecdsa";
    with_token(
        name,
        || Token::softhsm(&["CKM_EDDSA"]),
        |suite| {
            let refusal = suite.w.refused(5, &["init", "--publisher-algorithm", "ed25519"]);
            assert!(refusal.message.contains("signing with Ed25519"), "{refusal:?}");
            let made = suite.w.ok(&["init"]);
            assert_eq!(made["keys"][2]["algorithm"], "ecdsa-p256");
            assert_eq!(suite.status("signing with Ed25519"), "note");
            seal(&suite.w, "sealed");
            suite.w.ok(&["verify", "sealed"]);
        },
    );
}

/// kryoptic counts wrong tries and locks after ten. Eight runs of the program cost eight tries, so the ninth one may
/// still be the right one; if any of them tried twice, it would be too late.
#[test]
fn a_wrong_pin_costs_one_try() {
    with_token(
        "a_wrong_pin_costs_one_try",
        || Token::kryoptic(&[]),
        |suite| {
            suite.w.ok(&["init"]);
            for _ in 0..8 {
                suite.wrong_pin();
            }
            suite.w.ok(&["key", "list"]);
        },
    );
}

fn without_cmac(suite: &UnderTest) {
    assert_eq!(suite.init(), [Role::Master, Role::Publisher]);
    let cmac = "making an AES-256-CMAC";
    assert_eq!(suite.status(cmac), "note");
    assert_eq!(suite.status("fleet key"), "note");
    seal(&suite.w, "sealed");
    suite.w.ok(&["open", "sealed", "-o", "opened"]);
    suite.refused(&ENROL_DERIVED).refuses(cmac);
    grant_to_public_key(&suite.w);
    assert!(matches!(suite.open().newest(Role::Fleet), Err(Error::Unavailable(what)) if what == cmac));
}

fn without_gcm(suite: &UnderTest) {
    assert_eq!(suite.init(), [Role::Fleet, Role::Publisher]);
    let gcm = "encrypting with AES-256-GCM";
    assert_eq!(suite.status(gcm), "note");
    assert_eq!(suite.status("master key"), "note");
    suite.refused(&sealing("sealed")).refuses(gcm);
    suite.w.ok(&ENROL_DERIVED);
}

// ---- The suite ---------------------------------------------------------------------------------------------

/// All of it, with a token that has every mechanism. How many checks the token didn't allow.
fn whole(suite: &UnderTest) -> usize {
    suite.require_empty();
    assert_eq!(suite.init(), Role::ALL);
    whole_of(suite)
}

fn whole_of(suite: &UnderTest) -> usize {
    suite.step("the program, from enrolment to opening", the_program);
    suite.step("several programs at once", several_programs);
    suite.step("a wrong PIN is tried once and said", |suite| suite.wrong_pin());
    suite.step("signatures verify, and only of what was signed", signatures);
    suite.step("changed key slots are refused, and the vault goes on", changed_slots);
    suite.step("a key slot is bound to its model", bound_slots);
    suite.step("device keys differ and stay", device_keys);
    suite.step("eight threads share a vault", threads);
    suite.step("a lost login is renewed", lost_login);
    suite.step("two vaults in one process, and the program beside them", two_vaults);
    let mut skipped = device_keys_are_the_standards(suite);
    skipped += widened_keys(suite, &Role::ALL);
    skipped += duplicate_labels(suite);
    suite.step("after all that, every check is passed", |suite| suite.require_good(&Role::ALL));
    skipped
}

/// The part of a token that can't have every key.
fn publisher_of(suite: &UnderTest, roles: &[Role]) {
    suite.step("a wrong PIN is tried once and said", |suite| suite.wrong_pin());
    suite.step("the program says what isn't available", |suite| unavailable(suite, roles));
    suite.step("the program exports the public key", |suite| {
        let exported = suite.w.ok(&["key", "export"]);
        assert!(exported["publisher"][0].as_str().unwrap().contains("PUBLIC KEY"));
    });
    // Some libraries serve one process at a time: from here on it is this one.
    suite.step("grants are signed, and verify", grants);
    suite.step("after all that, every check is passed", |suite| {
        let findings = suite.open().check().unwrap();
        assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");
    });
}

fn the_program(suite: &UnderTest) {
    // The story begins by making the vault, which is made already.
    suite.destroy_keys();
    std::fs::remove_file(suite.w.path("registry.json")).unwrap();
    story::tell(&suite.w);
}

fn several_programs(suite: &UnderTest) {
    std::thread::scope(|scope| {
        for out in ["first.sealed", "second.sealed"] {
            scope.spawn(move || seal(&suite.w, out));
        }
    });
    // What they can fail at is starting and logging in, so that is done often.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| drop(suite.w.ok(&["key", "list"]))));
        }
    });
    for sealed in ["first.sealed", "second.sealed"] {
        suite.w.ok(&["open", sealed, "-o", "opened"]);
        assert!(suite.w.read("opened") == std::fs::read(WAKE_WORD).unwrap());
    }
}

fn signatures(suite: &UnderTest) {
    let (vault, model) = (suite.open(), Model::seal(b"weights"));
    // About half of a token's ECDSA signatures have the s that readers refuse.
    for _ in 0..8 {
        let envelope = vault.publish(&model.unsigned).unwrap();
        let header = Header::parse(model.unsigned.header_bytes()).unwrap();
        header.verify(envelope.signature(), &vault.publisher().unwrap()).unwrap();
        let other = Model::seal(b"weights");
        let header = Header::parse(other.unsigned.header_bytes()).unwrap();
        let refused = header.verify(envelope.signature(), &vault.publisher().unwrap()).map(drop);
        assert_eq!(refused, Err(modelseal_core::Error::ManifestSignature));
    }
}

/// As a slot that isn't this vault's: whatever code the token has for it, it isn't a failure of the token.
fn changed_slots(suite: &UnderTest) {
    let (vault, model) = (suite.open(), Model::seal(b"weights"));
    let good = vault.publish(&model.unsigned).unwrap().encode();
    for i in (64 + 4..64 + 64).step_by(3) {
        let mut bad = good.clone();
        bad[i] ^= 1;
        let refused = model.open(&*vault, &Envelope::parse(&bad).unwrap());
        let expected = matches!(refused, Err(Error::Core(modelseal_core::Error::KeySlot)));
        assert!(expected, "byte {i}: {refused:?}");
    }
    assert_eq!(model.open(&*vault, &Envelope::parse(&good).unwrap()).unwrap(), b"weights");
}

fn bound_slots(suite: &UnderTest) {
    let (vault, one, two) = (suite.open(), Model::seal(b"one"), Model::seal(b"two"));
    let slot = *vault.publish(&one.unsigned).unwrap().slots().next().unwrap();
    let signature = *vault.publish(&two.unsigned).unwrap().signature();
    let moved = Envelope::new(signature, slot, 4).unwrap();
    let refused = two.open(&*vault, &moved);
    assert!(matches!(refused, Err(Error::Core(modelseal_core::Error::KeySlot))), "{refused:?}");
}

fn device_keys(suite: &UnderTest) {
    let vault = suite.open();
    let one = device_key(&*vault, "one", 1).unwrap();
    assert_eq!(one, device_key(&*suite.open(), "one", 1).unwrap());
    assert_ne!(one, device_key(&*vault, "two", 1).unwrap());
    assert!(matches!(device_key(&*vault, "one", 9), Err(Error::NoVersion(Role::Fleet, 9))));
}

fn threads(suite: &UnderTest) {
    let (vault, model) = (suite.open(), Model::seal(b"shared"));
    let envelope = vault.publish(&model.unsigned).unwrap();
    let work = |i: usize| {
        assert_eq!(model.open(&*vault, &envelope).unwrap(), b"shared");
        device_key(&*vault, &format!("device-{i}"), 1).unwrap();
        vault.publish(&model.unsigned).unwrap();
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || (0..5).for_each(|i| work(thread * 5 + i)));
        }
    });
}

fn lost_login(suite: &UnderTest) {
    let vault = suite.open();
    let before = device_key(&*vault, "one", 1).unwrap();
    suite.session().logout().unwrap();
    assert_eq!(device_key(&*vault, "one", 1).unwrap(), before);
    suite.session().logout().unwrap();
    // Not taken for a token without keys.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(vault.keys().unwrap().len(), 3);
}

fn two_vaults(suite: &UnderTest) {
    let (one, two, model) = (suite.open(), suite.open(), Model::seal(b"weights"));
    let envelope = one.publish(&model.unsigned).unwrap();
    suite.w.ok(&["key", "list"]);
    assert_eq!(model.open(&*two, &envelope).unwrap(), b"weights");
    drop(one);
    suite.w.ok(&["key", "list"]);
    assert_eq!(model.open(&*two, &envelope).unwrap(), b"weights");
}

/// The content comes from a software vault: what the token does is sign.
fn grants(suite: &UnderTest) {
    let (vault, bench) = (suite.open(), Bench::new());
    let model = bench.seal(Suite::Aes256Gcm);
    let device = DeviceId::new("porch-2").unwrap();
    let rng = &mut UnwrapErr(SysRng);
    let public = X25519Secret::generate(rng).public().unwrap();
    for _ in 0..8 {
        let bytes = bench.unwrapped(&model, |content| {
            let unsigned = wrap_for_x25519(content, &Terms::new(content, device), &public, rng).unwrap();
            vault.sign_grant(&unsigned).unwrap()
        });
        Grant::parse(&bytes).unwrap().verify(&vault.publisher().unwrap()).unwrap();
        let stranger = bench.vault.publisher().unwrap();
        let refused = Grant::parse(&bytes).unwrap().verify(&stranger).map(drop);
        assert_eq!(refused, Err(modelseal_core::Error::GrantSignature));
    }
}

/// Each operation that the token can't do, by name; and the rest goes on.
fn unavailable(suite: &UnderTest, roles: &[Role]) {
    suite.require_good(roles);
    if !roles.contains(&Role::Master) {
        assert_eq!(suite.status("master key"), "note");
        suite.refused(&sealing("sealed")).refuses("AES");
    }
    if !roles.contains(&Role::Fleet) {
        assert_eq!(suite.status("fleet key"), "note");
        suite.refused(&ENROL_DERIVED).refuses("AES");
    }
}

// ---- What only some tokens allow ---------------------------------------------------------------------------

/// SP 800-108r1 computed on the host, with a key that both know.
fn device_keys_are_the_standards(suite: &UnderTest) -> usize {
    let (session, key) = (suite.session(), [7; 32]);
    let mut template = secret(Role::Fleet, &[]);
    template.retain(|attribute| !matches!(attribute, Attribute::ValueLen(_)));
    template.push(Attribute::Value(key.to_vec()));
    let imported = match session.create_object(&template) {
        Ok(imported) => imported,
        Err(error) => return suite.skip("device keys are the standard's", &none(&error)),
    };
    let block = |counter| {
        let mut mac = <Cmac<Aes256> as KeyInit>::new(&key.into());
        mac.update(&fleet_block(counter, DeviceId::new("device-1").unwrap()));
        mac.finalize().into_bytes().to_vec()
    };
    let vault = suite.open();
    assert_eq!(device_key(&*vault, "device-1", SECOND).unwrap(), [block(1), block(2)].concat());
    // It is used, and reported: it is known elsewhere, too.
    let origin = find(&vault.check().unwrap(), "fleet/2 origin");
    assert!(!origin.ok, "{origin:?}");
    session.destroy_object(imported).unwrap();
    suite.say("device keys are the standard's");
    0
}

/// A key that may do more than its role is refused in use and by `key check`, whichever attribute says so.
fn widened_keys(suite: &UnderTest, roles: &[Role]) -> usize {
    use Attribute as A;
    let cases = [
        (Role::Master, A::Wrap(true), "wrap isn't false"),
        (Role::Master, A::Unwrap(true), "unwrap isn't false"),
        (Role::Master, A::Extractable(true), "extractable isn't false"),
        (Role::Master, A::Sensitive(false), "sensitive isn't true"),
        (Role::Master, A::Modifiable(true), "modifiable is true"),
        (Role::Master, A::Copyable(true), "copyable is true"),
        (Role::Master, A::Derive(true), "derive isn't false"),
        (Role::Master, A::Sign(true), "sign isn't false"),
        (Role::Fleet, A::Encrypt(true), "encrypt isn't false"),
        (Role::Fleet, A::Decrypt(true), "decrypt isn't false"),
        (Role::Fleet, A::Wrap(true), "wrap isn't false"),
        (Role::Fleet, A::Extractable(true), "extractable isn't false"),
        (Role::Fleet, A::Modifiable(true), "modifiable is true"),
        (Role::Publisher, A::Decrypt(true), "decrypt isn't false"),
        (Role::Publisher, A::Derive(true), "derive isn't false"),
        (Role::Publisher, A::Extractable(true), "extractable isn't false"),
        (Role::Publisher, A::Modifiable(true), "modifiable is true"),
    ];
    let cases = cases.into_iter().filter(|(role, ..)| roles.contains(role));
    cases.map(|(role, wide, fault)| widened_key(suite, role, &wide, fault)).sum()
}

fn widened_key(suite: &UnderTest, role: Role, wide: &Attribute, fault: &str) -> usize {
    let what = format!("a {} key is refused if {fault}", role.name());
    let session = suite.session();
    let made = match make(&session, role, wide) {
        Ok(made) => made,
        Err(error) => return suite.skip(&what, &none(&error)),
    };
    let found = session.get_attributes(made[0], &[wide.attribute_type()]).unwrap();
    let skipped = if found.contains(wide) {
        refused_in_use(&*session.vault, role, fault);
        reported(&*session.vault, role, fault);
        suite.say(&what);
        0
    } else {
        suite.skip(&what, "the token made it narrow all the same")
    };
    for handle in made {
        session.destroy_object(handle).unwrap();
    }
    skipped
}

/// Why there is no such key.
fn none(error: &Pkcs11Error) -> String {
    match error {
        Pkcs11Error::Pkcs11(code, function) => format!("the token makes none: {code:?} at {function}"),
        error => format!("the token makes none: {error}"),
    }
}

fn refused_in_use(vault: &dyn Vault, role: Role, fault: &str) {
    let model = Model::seal(b"weights");
    let refused = match role {
        Role::Fleet => device_key(vault, "one", SECOND).map(drop),
        Role::Master => vault.publish(&model.unsigned).map(drop),
        Role::Publisher => vault.publisher().map(drop),
    };
    match refused {
        Err(Error::TooWide(key, what)) => {
            assert_eq!(key, format!("modelseal/{}/2", role.name()));
            assert!(what.contains(fault), "{what}");
        }
        other => panic!("{fault}: {other:?}"),
    }
}

/// In one line for the key, and in the attribute's own.
fn reported(vault: &dyn Vault, role: Role, fault: &str) {
    let findings = vault.check().unwrap();
    let key = format!("{}/2", role.name());
    let attributes = find(&findings, &format!("{key} attributes"));
    assert!(!attributes.ok && attributes.detail.contains(fault), "{attributes:?}");
    let attribute = find(&findings, &format!("{key} {}", fault.split(' ').next().unwrap()));
    assert!(!attribute.ok && attribute.detail.contains("refused in use"), "{attribute:?}");
}

fn duplicate_labels(suite: &UnderTest) -> usize {
    let (what, session) = ("two keys with one label are refused", suite.session());
    let mut template = secret(Role::Master, &[]);
    for attribute in &mut template {
        match attribute {
            Attribute::Label(label) | Attribute::Id(label) => *label = b"modelseal/master/1".to_vec(),
            _ => {}
        }
    }
    let double = match session.generate_key(&Mechanism::AesKeyGen, &template) {
        Ok(double) => double,
        Err(error) => return suite.skip(what, &none(&error)),
    };
    let refused = suite.open().publish(&Model::seal(b"weights").unsigned).map(drop);
    assert!(matches!(refused, Err(Error::TooWide(..))), "{refused:?}");
    let run = suite.w.run(suite.w.command(&["key", "check", "--json"]), &[]);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    let check: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(check["ok"], false);
    assert_eq!(finding(&check, "master/1 label")["status"], "fail", "{check}");
    session.destroy_object(double).unwrap();
    suite.say(what);
    0
}

/// Version 2 of a role's key, with one attribute as it shouldn't be.
fn make(session: &Session, role: Role, wide: &Attribute) -> Result<Vec<ObjectHandle>, Pkcs11Error> {
    if role != Role::Publisher {
        let handle =
            session.generate_key(&Mechanism::AesKeyGen, &secret(role, std::slice::from_ref(wide)))?;
        return Ok(vec![handle]);
    }
    let name = name(role);
    let curve = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let public =
        [&[Attribute::Token(true), Attribute::Private(false), Attribute::EcParams(curve)], &name[..]];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(!matches!(wide, Attribute::Extractable(true))),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
    ];
    let private = replaced([&private, &name[..]].concat(), std::slice::from_ref(wide));
    let (public, private) =
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public.concat(), &private)?;
    Ok(vec![private, public])
}

fn secret(role: Role, changes: &[Attribute]) -> Vec<Attribute> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(role == Role::Master),
        Attribute::Decrypt(role == Role::Master),
        Attribute::Sign(role == Role::Fleet),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
    ];
    replaced([&template, &name(role)[..]].concat(), changes)
}

fn name(role: Role) -> [Attribute; 2] {
    let label = format!("modelseal/{}/{SECOND}", role.name());
    [Attribute::Label(label.clone().into()), Attribute::Id(label.into())]
}

fn replaced(mut template: Vec<Attribute>, changes: &[Attribute]) -> Vec<Attribute> {
    for change in changes {
        template.retain(|attribute| attribute.attribute_type() != change.attribute_type());
        template.push(change.clone());
    }
    template
}

// ---- A token under test ------------------------------------------------------------------------------------

/// A token, and a folder in which the program uses it.
struct UnderTest {
    w: Workspace,
    uri: String,
}

impl UnderTest {
    /// With those variables of the environment that the token's library needs.
    fn of(uri: &str, needs: impl Fn(&str) -> bool) -> Self {
        let mut w = Workspace::with_vault(uri);
        for (name, value) in std::env::vars_os() {
            if name.to_str().is_some_and(&needs) {
                w.set(&name.to_string_lossy(), value);
            }
        }
        Self { w, uri: uri.into() }
    }

    fn say(&self, what: &str) {
        println!("passed: {what}");
    }

    fn skip(&self, what: &str, why: &str) -> usize {
        println!("SKIPPED: {what}: {why}");
        1
    }

    fn step(&self, what: &str, run: impl FnOnce(&Self)) {
        run(self);
        self.say(what);
    }

    /// Runs `init`, and gives the roles that the token has keys of.
    fn init(&self) -> Vec<Role> {
        let made = self.w.ok(&["init"]);
        let has = |role: &Role| {
            let keys = made["keys"].as_array().unwrap();
            let there = keys.iter().any(|key| key["role"] == role.name());
            let missing = made["unavailable"].as_array().unwrap().contains(&json!(role.name()));
            assert_ne!(there, missing, "{made}");
            there
        };
        let roles: Vec<_> = Role::ALL.into_iter().filter(has).collect();
        self.require_good(&roles);
        roles
    }

    /// `key check` finds nothing wrong, and uses every key.
    fn require_good(&self, roles: &[Role]) {
        let check = self.w.ok(&["key", "check"]);
        assert_eq!((&check["ok"], &check["failed"]), (&json!(true), &json!(0)), "{check}");
        for subject in
            ["module", "PKCS#11", "token", "firmware", "slot", "PIN", "sessions", "clock", "RNG", "list"]
        {
            assert!(finding(&check, subject)["detail"].is_string(), "{subject}: {check}");
        }
        for role in roles {
            let test = match role {
                Role::Master => "master/1 wraps and unwraps",
                Role::Fleet => "fleet/1 makes CMACs",
                Role::Publisher => "publisher/1 signs",
            };
            assert_eq!(finding(&check, test)["status"], "ok");
        }
    }

    /// What `key check`, which finds nothing wrong, says of one subject.
    fn status(&self, subject: &str) -> Value {
        finding(&self.w.ok(&["key", "check"]), subject)["status"].clone()
    }

    fn wrong_pin(&self) {
        self.w.write("wrong-pin", "00000000");
        let (before, source) = self.uri.split_once("pin-source=").expect("pin-source names the PIN");
        let after = source.split_once('&').map_or("", |(_, after)| after);
        let wrong = self.w.path("wrong-pin");
        let uri = format!("{before}pin-source={}&{after}", wrong.display());
        let message = self.refused(&["--vault", uri.trim_end_matches('&'), "key", "list"]).0;
        assert!(message.contains("refused the PIN"), "{message}");
    }

    /// Runs the program, which must refuse; for libraries that write to standard error of their own accord.
    fn refused(&self, arguments: &[&str]) -> Refused {
        let run = self.w.run(self.w.command(&[arguments, &["--json"]].concat()), &[]);
        assert_eq!(run.code, Some(5), "{arguments:?}: {}", run.stderr);
        Refused(Refusal::parse(5, run.stderr.lines().last().unwrap()).message)
    }

    fn open(&self) -> Box<dyn Vault> {
        let location: Location = self.uri.parse().unwrap();
        modelseal_hsm::open(&location, &|| panic!("the PIN is in a file")).unwrap()
    }

    /// A logged-in session past the vault's. It is a vault that logs in: one refuses to open where something else did.
    fn session(&self) -> LoggedIn {
        let Location::Pkcs11(uri) = self.uri.parse().unwrap() else { panic!("{} isn't a token's", self.uri) };
        let context = Pkcs11::new(uri.module.expect("module-path names the library")).unwrap();
        // Before the vault, which then won't restart it under this session. Another one may have done it.
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let vault = self.open();
        let fits =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let is_it = |slot: &_| {
            let info = context.get_token_info(*slot).unwrap();
            info.token_initialized()
                && fits(&uri.token, info.label())
                && fits(&uri.serial, info.serial_number())
        };
        let slot = context.get_slots_with_token().unwrap().into_iter().find(is_it).unwrap();
        let session = context.open_rw_session(slot).unwrap();
        let pin = std::fs::read_to_string(uri.pin_source.expect("pin-source names the PIN")).unwrap();
        let _ = session.login(UserType::User, Some(&AuthPin::new(pin.trim_end().into())));
        LoggedIn { session, vault }
    }

    fn keys(&self, session: &Session) -> Vec<ObjectHandle> {
        let classes = [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY];
        let find = |class| session.find_objects(&[Attribute::Class(class), Attribute::Token(true)]).unwrap();
        let mut keys: Vec<_> = classes.into_iter().flat_map(find).collect();
        keys.retain(|key| {
            let label = session.get_attributes(*key, &[AttributeType::Label]).unwrap();
            matches!(label.first(), Some(Attribute::Label(label)) if label.starts_with(b"modelseal/"))
        });
        keys
    }

    /// By the program: some libraries serve one process at a time.
    fn require_empty(&self) {
        let keys = self.w.ok(&["key", "list"]);
        assert_eq!(keys, json!({ "keys": [] }), "the token holds keys of modelseal's: name an empty one");
    }

    fn destroy_keys(&self) {
        let session = self.session();
        for key in self.keys(&session) {
            if let Err(error) = session.destroy_object(key) {
                println!(
                    "a key of the suite's can't be destroyed ({error}): do it with the token's own tool"
                );
            }
        }
    }
}

/// A session, and the vault whose login it shares.
struct LoggedIn {
    session: Session,
    vault: Box<dyn Vault>,
}

impl std::ops::Deref for LoggedIn {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// The suite's keys go, whatever happened to it.
struct Destroyed<'a>(&'a UnderTest);

impl Drop for Destroyed<'_> {
    fn drop(&mut self) {
        self.0.destroy_keys();
    }
}

/// Runs `suite` in a child process, whose environment is the token's.
fn with_token(name: &str, make: impl FnOnce() -> Token, suite: impl FnOnce(&UnderTest)) {
    if let Ok(needed) = std::env::var(CHILD) {
        let needs = |name: &str| needed.split(',').any(|needed| needed == name);
        return suite(&UnderTest::of(&std::env::var(URI).unwrap(), needs));
    }
    let token = make();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    let needed: Vec<_> = token.variables.iter().map(|(name, _)| *name).collect();
    child.env(CHILD, needed.join(",")).env(URI, &token.uri).envs(token.variables.iter().cloned());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "in the child process: {}", String::from_utf8_lossy(&output.stderr));
}

// ---- Models and commands -----------------------------------------------------------------------------------

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
            line: LINE,
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
        let unwrapped = vault.unwrap(Header::parse(self.unsigned.header_bytes())?, envelope)?;
        let mut memory = self.payload.clone();
        let tag = |i| Ok(self.index[usize::try_from(i).unwrap()].tag);
        Ok(unwrapped.open_in_place(&mut memory, tag)?.model().to_vec())
    }
}

fn device_key(vault: &dyn Vault, id: &str, fleet: u32) -> Result<Vec<u8>, Error> {
    Ok(vault.device_key(DeviceId::new(id).unwrap(), fleet)?.expose_to_factory().to_vec())
}

fn sealing(out: &str) -> [&str; 8] {
    ["seal", WAKE_WORD, "-o", out, "--line", LINE, "--model-version", "1"]
}

fn seal(w: &Workspace, out: &str) {
    w.ok(&sealing(out));
}

fn grant_to_public_key(w: &Workspace) {
    w.device_ok(&[
        "device",
        "keygen",
        "porch",
        "--identity-out",
        "porch.identity",
        "--public-out",
        "porch.pem",
    ]);
    w.ok(&[
        "device",
        "enroll",
        "porch",
        "--line",
        LINE,
        "--public-key",
        "porch.pem",
        "--identity-out",
        "porch.identity",
    ]);
    w.ok(&["grant", "sealed", "--device", "porch", "-o", "porch.grant"]);
    w.device_ok(&[
        "open",
        "sealed",
        "-o",
        "opened",
        "--grant",
        "porch.grant",
        "--identity",
        "porch.identity",
    ]);
}

/// A refusal's message.
struct Refused(String);

impl Refused {
    /// That it names the operation.
    fn refuses(&self, operation: &str) {
        assert!(self.0.contains("the token can't do this") && self.0.contains(operation), "{}", self.0);
    }
}

fn finding<'a>(check: &'a Value, subject: &str) -> &'a Value {
    let findings = check["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("no {subject} in {check:#}"))
}

fn find(findings: &[Finding], subject: &str) -> Finding {
    let found = findings.iter().find(|finding| finding.subject == subject);
    found.unwrap_or_else(|| panic!("no {subject} in {findings:#?}")).clone()
}
