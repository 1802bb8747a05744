//! A chunk that opens under two content keys: ciphertext, tag, index and root are all right under both, so that only
//! the commitment can tell them apart. AES-GCM doesn't commit to its key (FORMAT.md, section 9.5): its tag is a
//! polynomial over the ciphertext, so one block can be chosen such that the tags under two keys are equal.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;

use super::Case;
use super::make::{Model, Spec, bytes, okm};
use super::scene::{Scene, WRAPS};

const LENGTH: usize = 32;

pub(super) fn cases() -> Vec<Case> {
    let (model, second) = colliding();
    let mut cases = Vec::new();
    let comment = "the chunk opens under the content key that the manifest commits to, and under another one";
    cases.push(model.opened_by_vault("collision-first-key", comment, &[1]));
    let comment = "the chunk opens under this content key, too, to which the manifest doesn't commit";
    let mut slot = model.clone();
    slot.slots[0] = slot.slot(1, &second);
    let case = slot.by_vault("commitment-collision-slot", comment, &[1], None);
    cases.push(case.refused("commitment", 333));
    for wrap in WRAPS {
        let scene = Scene { content: second, ..Scene::of(model.clone(), wrap) };
        let name = format!("commitment-collision-{}", wrap.name());
        cases.push(scene.case(name.clone(), comment).refused("commitment", 333));
        cases.push(scene.on_device().case(format!("{name}-device"), comment).refused("commitment", 333));
    }
    cases
}

/// A model sealed under one key, and another key under which its payload opens as well.
fn colliding() -> (Model, [u8; 32]) {
    let spec = Spec { length: LENGTH, ..Spec::default() };
    let subject = spec.subject().concat();
    let keys: [[u8; 32]; 2] = [bytes("content key"), bytes("a second content key")];
    let gcm = keys.map(|key| Gcm::new(&okm(&key, &subject)));
    let ciphertext = ciphertext(&gcm);
    let plain = gcm[0].decrypt(ciphertext);
    let model = spec.seal_plain(keys[0], plain.to_vec());
    assert_eq!(model.payload, ciphertext);

    let tag: [u8; 16] = model.index[..16].try_into().unwrap();
    let okm = okm(&keys[1], &subject);
    let nonce: [u8; 12] = okm[32..44].try_into().unwrap();
    let mut other = ciphertext;
    let cipher = <Aes256Gcm as aes_gcm::KeyInit>::new_from_slice(&okm[..32]).unwrap();
    cipher.decrypt_inout_detached(&nonce.into(), &[], (&mut other[..]).into(), &tag.into()).unwrap();
    assert_ne!(other, plain);
    (model, keys[1])
}

/// Two blocks c, d whose tags under both keys are equal. With h the hash key, l the block of lengths and e the mask of
/// the tag, a tag is c h^3 + d h^2 + l h + e; d is chosen, and c follows.
fn ciphertext(gcm: &[Gcm; 2]) -> [u8; LENGTH] {
    let d = u128::from_be_bytes(bytes("the second block"));
    let l = 8 * LENGTH as u128;
    let [a, b] = gcm.each_ref().map(|gcm| {
        let square = times(gcm.h, gcm.h);
        (times(square, gcm.h), times(d, square) ^ times(l, gcm.h) ^ gcm.mask)
    });
    let c = times(a.1 ^ b.1, inverse(a.0 ^ b.0));
    [c.to_be_bytes(), d.to_be_bytes()].concat().try_into().unwrap()
}

/// AES-256-GCM under one key and nonce, by SP 800-38D.
struct Gcm {
    aes: Aes256,
    nonce: [u8; 12],
    h: u128,
    mask: u128,
}

impl Gcm {
    /// Of a payload key and base nonce, which is the nonce of the first chunk.
    fn new(okm: &[u8; 76]) -> Self {
        let aes = Aes256::new_from_slice(&okm[..32]).unwrap();
        let nonce: [u8; 12] = okm[32..44].try_into().unwrap();
        let mut gcm = Self { aes, nonce, h: 0, mask: 0 };
        gcm.h = gcm.block([0; 16]);
        gcm.mask = gcm.counter(1);
        gcm
    }

    fn counter(&self, i: u32) -> u128 {
        self.block([&self.nonce[..], &i.to_be_bytes()].concat().try_into().unwrap())
    }

    fn block(&self, block: [u8; 16]) -> u128 {
        let mut block = block.into();
        self.aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }

    fn decrypt(&self, ciphertext: [u8; LENGTH]) -> [u8; LENGTH] {
        let mut plain = ciphertext;
        for (i, block) in (2..).zip(plain.as_chunks_mut::<16>().0) {
            *block = (u128::from_be_bytes(*block) ^ self.counter(i)).to_be_bytes();
        }
        plain
    }
}

/// In GCM's field, whose coefficients stand in order from the highest bit.
fn times(x: u128, y: u128) -> u128 {
    let (mut product, mut y) = (0, y);
    for i in (0..128).rev() {
        product ^= if x >> i & 1 == 1 { y } else { 0 };
        y = y >> 1 ^ if y & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    product
}

/// By Fermat: x^(2^128 - 2).
fn inverse(x: u128) -> u128 {
    let (mut power, mut result) = (x, 1 << 127);
    for _ in 1..128 {
        power = times(power, power);
        result = times(result, power);
    }
    result
}
