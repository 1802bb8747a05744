//! Slots with the nonces of tokens that insist on more than 12 bytes.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::array::ArraySize;
use aes_gcm::aead::consts::{U12, U13, U14, U15, U16};
use modelseal_core::sealed::{Slot, SlotNonce};

use super::{Software, create};
use crate::location::Passphrase;
use crate::vault::{Algorithm, Backend};

fn slot<N: ArraySize>(vault: &Software, content: [u8; 32]) -> Slot {
    let (nonce, mut ciphertext) = ([7; 16], content);
    let nonce = &nonce[..N::USIZE];
    let (cipher, data) = (vault.aes::<N>(1).unwrap(), ciphertext.as_mut_slice().into());
    let tag = cipher.encrypt_inout_detached(nonce.try_into().unwrap(), b"aad", data).unwrap();
    Slot { version: 1, nonce: SlotNonce::new(nonce).unwrap(), ciphertext, tag: tag.into() }
}

#[test]
fn nonces_of_12_to_16_bytes_open() {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::new(String::from("p").into());
    let vault = create(&folder.path().join("vault.json"), Algorithm::Ed25519, &passphrase).unwrap();
    let slots = [
        slot::<U12>(&vault, [1; 32]),
        slot::<U13>(&vault, [1; 32]),
        slot::<U14>(&vault, [1; 32]),
        slot::<U15>(&vault, [1; 32]),
        slot::<U16>(&vault, [1; 32]),
    ];
    for slot in slots {
        assert_eq!(*vault.decrypt(&slot, b"aad").unwrap(), [1; 32]);
        assert!(vault.decrypt(&slot, b"other").is_err());
    }
    // The first 12 bytes alone are another nonce.
    let shorter = SlotNonce::new(&[7; 12]).unwrap();
    assert!(vault.decrypt(&Slot { nonce: shorter, ..slots[4] }, b"aad").is_err());
}
