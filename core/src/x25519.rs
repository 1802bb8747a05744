//! HPKE base mode with DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256, one message a context (RFC 9180, section
//! 6.1; FORMAT.md, section 6.4).

use hpke::aead::{Aead, AeadTag};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as X25519;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;

use crate::error::Error;
use crate::keys::{HPKE_GRANT, TAG_LEN, X25519Secret};
use crate::manifest::Suite;
use crate::sealed::ModelId;

type Encapsulated = ([u8; 32], [u8; TAG_LEN]);

pub(crate) fn public(secret: &X25519Secret) -> Result<[u8; 32], Error> {
    let secret = <X25519 as Kem>::PrivateKey::from_bytes(secret.expose_to_device());
    let mut public = [0; 32];
    X25519::sk_to_pk(&secret.map_err(|_| Error::Key)?).write_exact(&mut public);
    Ok(public)
}

/// (6.4) Whether it is below 2^255 - 19, in little-endian order. X25519 itself ignores the highest bit and reduces the
/// rest (RFC 7748, section 5), so that one key has several encodings.
pub(crate) fn is_canonical(public: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = public;
    *last < 0x7f || *last == 0x7f && (*first < 0xed || middle.iter().any(|byte| *byte != 0xff))
}

/// (6.4) Fails for a key of small order, whose X25519 result is 32 zero bytes.
pub(crate) fn try_encapsulate(public: &[u8; 32], rng: &mut impl CryptoRng) -> Result<(), Error> {
    let public = <X25519 as Kem>::PublicKey::from_bytes(public).map_err(|_| Error::Key)?;
    let sender = hpke::setup_sender_with_rng::<hpke::aead::ExportOnlyAead, HkdfSha256, X25519>;
    sender(&OpModeS::Base, &public, &[], rng).map(|_| ()).map_err(|_| Error::Key)
}

/// (6.4) `SealBase(pkR, info, aad, content key)`, in place: the encapsulated key and the tag.
pub(crate) fn seal(
    suite: Suite,
    public: &[u8; 32],
    model: &ModelId,
    aad: &[u8],
    content: &mut [u8; 32],
    rng: &mut impl CryptoRng,
) -> Result<Encapsulated, Error> {
    match suite {
        #[cfg(feature = "aes-gcm")]
        Suite::Aes256Gcm => seal_with::<hpke::aead::AesGcm256>(public, model, aad, content, rng),
        #[cfg(feature = "chacha20-poly1305")]
        Suite::ChaCha20Poly1305 => {
            seal_with::<hpke::aead::ChaCha20Poly1305>(public, model, aad, content, rng)
        }
        #[allow(unreachable_patterns, reason = "a suite that isn't built in")]
        _ => Err(Error::UnknownSuite),
    }
}

/// (6.4) `OpenBase(encapsulated, skR, info, aad, ciphertext || tag)`, in place.
pub(crate) fn open(
    suite: Suite,
    secret: &X25519Secret,
    encapsulated: &[u8; 32],
    model: &ModelId,
    aad: &[u8],
    content: &mut [u8; 32],
    tag: &[u8; TAG_LEN],
) -> Result<(), Error> {
    match suite {
        #[cfg(feature = "aes-gcm")]
        Suite::Aes256Gcm => {
            open_with::<hpke::aead::AesGcm256>(secret, encapsulated, model, aad, content, tag)
        }
        #[cfg(feature = "chacha20-poly1305")]
        Suite::ChaCha20Poly1305 => {
            open_with::<hpke::aead::ChaCha20Poly1305>(secret, encapsulated, model, aad, content, tag)
        }
        #[allow(unreachable_patterns, reason = "a suite that isn't built in")]
        _ => Err(Error::UnknownSuite),
    }
}

fn seal_with<A: Aead>(
    public: &[u8; 32],
    model: &ModelId,
    aad: &[u8],
    content: &mut [u8; 32],
    rng: &mut impl CryptoRng,
) -> Result<Encapsulated, Error> {
    let public = <X25519 as Kem>::PublicKey::from_bytes(public).map_err(|_| Error::Key)?;
    let (encapsulated, tag) = hpke::single_shot_seal_inout_detached_with_rng::<A, HkdfSha256, X25519>(
        &OpModeS::Base,
        &public,
        &info(model),
        content.as_mut_slice().into(),
        aad,
        rng,
    )
    .map_err(|_| Error::Key)?;
    let mut bytes = ([0; 32], [0; TAG_LEN]);
    encapsulated.write_exact(&mut bytes.0);
    tag.write_exact(&mut bytes.1);
    Ok(bytes)
}

fn open_with<A: Aead>(
    secret: &X25519Secret,
    encapsulated: &[u8; 32],
    model: &ModelId,
    aad: &[u8],
    content: &mut [u8; 32],
    tag: &[u8; TAG_LEN],
) -> Result<(), Error> {
    let secret = <X25519 as Kem>::PrivateKey::from_bytes(secret.expose_to_device());
    let encapsulated = <X25519 as Kem>::EncappedKey::from_bytes(encapsulated);
    let tag = AeadTag::<A>::from_bytes(tag);
    hpke::single_shot_open_inout_detached::<A, HkdfSha256, X25519>(
        &OpModeR::Base,
        &secret.map_err(|_| Error::Key)?,
        &encapsulated.map_err(|_| Error::Key)?,
        &info(model),
        content.as_mut_slice().into(),
        aad,
        &tag.map_err(|_| Error::Key)?,
    )
    .map_err(|_| Error::Key)
}

/// (6.4) `info = "modelseal/v1/hpke-grant\0" || model id`
fn info(model: &ModelId) -> [u8; HPKE_GRANT.len() + 32] {
    let mut info = [0; HPKE_GRANT.len() + 32];
    let (label, id) = info.split_at_mut(HPKE_GRANT.len());
    label.copy_from_slice(HPKE_GRANT);
    id.copy_from_slice(model.as_bytes());
    info
}
