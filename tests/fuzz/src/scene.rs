//! A few sealed models with their grants, made once, the same in every process: both suites, one chunk and
//! several, the last one full or short, and for each model a grant of either wrapping.

use std::convert::Infallible;
use std::sync::OnceLock;

use ed25519_dalek::{Signer, SigningKey};
use modelseal_core::grant::{
    DeviceId, PathSignature, Terms, Validity, grants_message, wrap_for_device_key, wrap_for_x25519,
};
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::manifest::{Claim, Claims, Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::{Envelope, Header, Slot};
use modelseal_core::sign::{Publisher, PublisherKey, Signature};
use rand_core::{TryCryptoRng, TryRng};

use crate::forge::Parts;

/// The line of every model.
pub const LINE: &str = "wake-word";
/// The device that everything is granted to.
pub const DEVICE: &str = "Kitchen-7";
/// The time.
pub const NOW: u64 = 1_800_000_000;
/// The device's stored floor.
pub const FLOOR: u64 = 3;
/// When grants with a validity are good.
pub const VALIDITY: Validity = Validity { not_before: NOW - 10, not_after: NOW + 10 };

/// A sealed model and what it was made of.
pub struct Genuine {
    /// The model.
    pub plain: Vec<u8>,
    /// The sealed model.
    pub sealed: Vec<u8>,
    /// Where its parts are.
    pub parts: Parts,
    /// Its id.
    pub id: [u8; 32],
    /// Its content key.
    pub content: [u8; 32],
    /// Its grants, by [`Wrap`]. That of the second kind has a validity.
    pub grants: [Vec<u8>; 2],
}

/// How a content key is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// Under a key that vault and device share.
    DeviceKey,
    /// To the device's public key, and signed.
    Hpke,
}

impl Wrap {
    /// What the device opens such grants with.
    pub fn secret(self) -> Secret {
        match self {
            Self::DeviceKey => Secret::DeviceKey(DeviceKey::from_bytes(&[1; 32])),
            Self::Hpke => Secret::X25519(X25519Secret::from_bytes(&[2; 32])),
        }
    }
}

/// All models.
pub fn models() -> &'static [Genuine] {
    static MODELS: OnceLock<Vec<Genuine>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        let lengths = [13, 1024, 2100, 4097];
        let kinds = suites.into_iter().flat_map(|suite| lengths.map(|length| (suite, length)));
        kinds.zip(0..).map(|((suite, length), number)| seal(number, suite, length)).collect()
    })
}

/// Whom readers trust.
pub fn publisher() -> Publisher {
    static PUBLISHER: OnceLock<Publisher> = OnceLock::new();
    let trusted = || Publisher::new(&[PublisherKey::Ed25519(key(7).verifying_key().to_bytes())]).unwrap();
    PUBLISHER.get_or_init(trusted).clone()
}

/// Signs as the publisher.
pub fn sign(message: &[u8]) -> [u8; 64] {
    key(7).sign(message).to_bytes()
}

/// Signs with a key that nobody trusts.
pub fn sign_as_somebody(message: &[u8]) -> [u8; 64] {
    key(8).sign(message).to_bytes()
}

/// The root over `leaf` by a path of siblings (FORMAT.md, section 6.5).
pub fn root_of(leaf: [u8; 32], siblings: &[[u8; 32]], sides: u16) -> [u8; 32] {
    siblings.iter().enumerate().fold(leaf, |node, (i, sibling)| {
        let (left, right) = if sides & 1 << i == 0 { (node, *sibling) } else { (*sibling, node) };
        *blake3::hash(&[&[1][..], &left, &right].concat()).as_bytes()
    })
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn seal(number: u8, suite: Suite, length: usize) -> Genuine {
    let mut rng = Rng::new(number);
    let mut plain = vec![0; length];
    rng.0.fill(&mut plain);
    let subject = Subject {
        suite,
        chunk_log2: 10,
        align_log2: 6,
        line: LINE,
        version: 7 + u64::from(number),
        kind: "tflite",
        length: length as u64,
        created: NOW,
        claims: Claims::from_slice(&[Claim { key: "licence", value: "MIT" }]).unwrap(),
    };
    let mut sealing: Sealing<'_> = Sealing::new(subject, 2, &mut rng).unwrap();
    let mut payload = plain.clone();
    let index: Vec<u8> =
        payload.chunks_mut(1 << 10).flat_map(|chunk| sealing.seal_next(chunk).unwrap().encode()).collect();
    let unsigned = sealing.finish().unwrap();
    let header = unsigned.header().unwrap();
    let signature = Signature::from_bytes(&sign(&header.signed_bytes()));
    let slot = Slot { version: 1, nonce: [4; 12].into(), ciphertext: [5; 32], tag: [6; 16] };
    let envelope = Envelope::new(signature, slot, 2).unwrap().encode();
    let mut sealed = [unsigned.header_bytes(), &envelope, &index].concat();
    sealed.resize(header.layout().payload as usize, 0);
    sealed.extend(payload);

    let id = *header.id().as_bytes();
    let content = *unsigned.content_key().expose_to_vault();
    let grants = grants(header, &signature, &content, number, &mut rng);
    let parts = Parts::of(&sealed, length);
    Genuine { plain, sealed, parts, id, content, grants }
}

fn grants(
    header: Header<'_>,
    signature: &Signature,
    content: &[u8; 32],
    number: u8,
    rng: &mut Rng,
) -> [Vec<u8>; 2] {
    let verified = header.verify(signature, &publisher()).unwrap();
    let unwrapped = Unwrapped::by_vault(verified, content).unwrap();
    let mut terms = Terms::new(&unwrapped, DeviceId::new(DEVICE).unwrap());
    let Secret::DeviceKey(shared) = Wrap::DeviceKey.secret() else { unreachable!() };
    let for_device_key = wrap_for_device_key(&unwrapped, &terms, &shared, rng).unwrap();

    terms.validity = Some(VALIDITY);
    let Secret::X25519(private) = Wrap::Hpke.secret() else { unreachable!() };
    let grant = wrap_for_x25519(&unwrapped, &terms, &private.public().unwrap(), rng).unwrap();
    // Every other one is signed together with others.
    let siblings: &[[u8; 32]] = if number.is_multiple_of(2) { &[] } else { &[[0x11; 32], [0x22; 32]] };
    let sides = if siblings.is_empty() { 0 } else { 2 };
    let signature = sign(&grants_message(&root_of(grant.leaf(), siblings, sides)));
    let path = PathSignature {
        signature: Signature::from_bytes(&signature),
        siblings: siblings.iter().copied().collect(),
        sides,
    };
    [for_device_key.to_vec(), grant.sign(&path).unwrap().to_vec()]
}

/// BLAKE3 of a number, as long as wanted.
struct Rng(blake3::OutputReader);

impl Rng {
    fn new(number: u8) -> Self {
        Self(blake3::Hasher::new().update(&[number]).finalize_xof())
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Rng {}
