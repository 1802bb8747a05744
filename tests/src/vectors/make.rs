//! Sealed models, field by field, from the specification.

use std::convert::Infallible;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::array::ArraySize;
use aes_gcm::aead::consts::U12;
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit};
use ed25519_dalek::Signer as _;
use modelseal_core::sign::PublisherKey;
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};

use super::{Case, Key, Vault};
use crate::forge;

pub(super) const LINE: &str = "wake-word";
pub(super) const DEVICE: &str = "Kitchen-7";
pub(super) const NOW: u64 = 1_800_000_000;

/// `BLAKE3(seed)`, as long as wanted.
pub(super) struct Rng(blake3::OutputReader);

impl Rng {
    pub(super) fn new(seed: &str) -> Self {
        Self(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof())
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

pub(super) fn bytes<const N: usize>(seed: &str) -> [u8; N] {
    let mut bytes = [0; N];
    Rng::new(seed).0.fill(&mut bytes);
    bytes
}

/// A publisher's private key, by number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    Ed25519(u8),
    P256(u8),
}

impl Signer {
    pub(super) fn ed25519(number: u8) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&bytes(&format!("ed25519 {number}")))
    }

    pub(super) fn p256(number: u8) -> p256::ecdsa::SigningKey {
        p256::ecdsa::SigningKey::from_slice(&bytes::<32>(&format!("p256 {number}"))).unwrap()
    }

    pub(super) fn sign(self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::Ed25519(number) => Self::ed25519(number).sign(message).to_bytes(),
            Self::P256(number) => {
                let signature: p256::ecdsa::Signature = Self::p256(number).sign(message);
                signature.normalize_s().to_bytes().into()
            }
        }
    }

    pub(super) fn public(self) -> PublisherKey {
        match self {
            Self::Ed25519(number) => PublisherKey::Ed25519(Self::ed25519(number).verifying_key().to_bytes()),
            Self::P256(number) => {
                let point = Self::p256(number).verifying_key().to_sec1_point(false);
                PublisherKey::EcdsaP256 { x: (*point.x().unwrap()).into(), y: (*point.y().unwrap()).into() }
            }
        }
    }

    pub(super) fn key(self) -> Key {
        match self.public() {
            PublisherKey::Ed25519(key) => Key::Ed25519 { key: hex::encode(key) },
            PublisherKey::EcdsaP256 { x, y } => Key::P256 { x: hex::encode(x), y: hex::encode(y) },
        }
    }
}

/// Encoded fields, by name.
#[derive(Clone)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Vec<u8>)>);

impl Fields {
    pub(super) fn push(&mut self, name: &'static str, bytes: impl Into<Vec<u8>>) {
        self.0.push((name, bytes.into()));
    }

    pub(super) fn str(&mut self, length: &'static str, name: &'static str, text: &str) {
        self.push(length, varint(text.len() as u64));
        self.push(name, text);
    }

    pub(super) fn get(&self, name: &str) -> &[u8] {
        &self.0.iter().find(|field| field.0 == name).unwrap().1
    }

    pub(super) fn with(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.iter_mut().find(|field| field.0 == name).unwrap().1 = bytes.into();
        self
    }

    pub(super) fn concat(&self) -> Vec<u8> {
        self.0.iter().flat_map(|field| field.1.clone()).collect()
    }

    /// Everything before `name`.
    pub(super) fn before(&self, name: &str) -> Vec<u8> {
        self.0.iter().take_while(|field| field.0 != name).flat_map(|field| field.1.clone()).collect()
    }
}

pub(super) fn varint(number: u64) -> Vec<u8> {
    postcard::to_allocvec(&number).unwrap()
}

/// What is sealed.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) suite: u8,
    pub(super) chunk_log2: u8,
    pub(super) align_log2: u8,
    pub(super) line: String,
    pub(super) version: u64,
    pub(super) kind: String,
    pub(super) created: u64,
    pub(super) claims: Vec<(String, String)>,
    pub(super) length: usize,
    /// How many slots, and which hold which version of the master key.
    pub(super) slots: usize,
    pub(super) used: Vec<(usize, u32)>,
    pub(super) signer: Signer,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            suite: 1,
            chunk_log2: 10,
            align_log2: 6,
            line: LINE.into(),
            version: 7,
            kind: "tflite".into(),
            created: 1_767_225_600,
            claims: vec![("licence".into(), "MIT".into())],
            length: 2100,
            slots: 2,
            used: vec![(0, 1)],
            signer: Signer::Ed25519(1),
        }
    }
}

impl Spec {
    pub(super) fn subject(&self) -> Fields {
        let mut fields = Fields(Vec::new());
        fields.push("suite", [self.suite]);
        fields.push("chunk_log2", [self.chunk_log2]);
        fields.push("align_log2", [self.align_log2]);
        fields.str("line length", "line", &self.line);
        fields.push("version", varint(self.version));
        fields.str("kind length", "kind", &self.kind);
        fields.push("length", varint(self.length as u64));
        fields.push("created", varint(self.created));
        fields.push("claims", varint(self.claims.len() as u64));
        for (key, value) in &self.claims {
            fields.str("claim key length", "claim key", key);
            fields.str("claim value length", "claim value", value);
        }
        fields
    }

    pub(super) fn seal(&self) -> Model {
        self.seal_with(bytes("content key"))
    }

    pub(super) fn seal_with(&self, content: [u8; 32]) -> Model {
        let mut plain = vec![0; self.length];
        Rng::new("model").0.fill(&mut plain);
        self.seal_plain(content, plain)
    }

    /// `plain` has the length that the subject says.
    pub(super) fn seal_plain(&self, content: [u8; 32], plain: Vec<u8>) -> Model {
        let subject = self.subject().concat();
        let (index, payload) = encrypt(&subject, &content, &plain);
        let manifest = [&subject[..], &okm(&content, &subject)[44..], &forge::root(&index)].concat();
        let (slots, signature) = (vec![[0; 128]; self.slots], [0; 64]);
        let mut model =
            Model { spec: self.clone(), plain, content, manifest, signature, slots, index, payload };
        model.sign();
        model
    }
}

/// Payload key, base nonce, commitment.
pub(super) fn okm(content: &[u8; 32], subject: &[u8]) -> [u8; 76] {
    forge::expand(content, &[&b"modelseal/v1/payload\0"[..], &Sha256::digest(subject)].concat())
}

/// Of chunk `i`.
fn nonce(base: &[u8], i: u64) -> Vec<u8> {
    let counter = [&[0; 4][..], &i.to_be_bytes()].concat();
    base.iter().zip(counter).map(|(base, counter)| base ^ counter).collect()
}

/// Index and payload.
pub(super) fn encrypt(subject: &[u8], content: &[u8; 32], plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let header = [&[0; 16], subject].concat();
    let parts = forge::Parts {
        envelope: header.len() + 64,
        index: 0,
        padding: 0,
        payload: 0,
        chunk: 1 << subject[1],
    };
    forge::payload(&header, parts, content, plain)
}

/// A sealed model in parts.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) spec: Spec,
    pub(super) plain: Vec<u8>,
    pub(super) content: [u8; 32],
    pub(super) manifest: Vec<u8>,
    pub(super) signature: [u8; 64],
    pub(super) slots: Vec<[u8; 128]>,
    pub(super) index: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Model {
    pub(super) fn header(&self) -> Vec<u8> {
        let manifest = u16::try_from(self.manifest.len()).unwrap().to_le_bytes();
        let envelope = u32::try_from(64 + 128 * self.slots.len()).unwrap().to_le_bytes();
        [b"\x89MSEAL\x1a\n\x01\0", &manifest[..], &envelope, &self.manifest].concat()
    }

    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        [&b"modelseal/v1/manifest\0"[..], &self.header()].concat()
    }

    pub(super) fn id(&self) -> [u8; 32] {
        *blake3::hash(&self.signed_bytes()).as_bytes()
    }

    pub(super) fn subject(&self) -> &[u8] {
        &self.manifest[..self.manifest.len() - 64]
    }

    /// Signs the header as it is, and fills the slots.
    pub(super) fn sign(&mut self) {
        self.signature = self.spec.signer.sign(&self.signed_bytes());
        for (slot, version) in self.spec.used.clone() {
            self.slots[slot] = self.slot(version, &self.content);
        }
    }

    pub(super) fn slot(&self, version: u32, content: &[u8; 32]) -> [u8; 128] {
        self.slot_with::<U12>(version, content)
    }

    /// With a nonce of `N` bytes.
    pub(super) fn slot_with<N: ArraySize>(&self, version: u32, content: &[u8; 32]) -> [u8; 128] {
        let value = self.value::<N>(version, content);
        forge::slot_of(version, 1, &value)
    }

    fn value<N: ArraySize>(&self, version: u32, content: &[u8; 32]) -> Vec<u8> {
        let nonce: [u8; 16] = bytes(&format!("slot nonce {version}"));
        let nonce = &nonce[..N::USIZE];
        let aad = [&b"modelseal/v1/content-key\0"[..], &self.id()].concat();
        let mut ciphertext = *content;
        let cipher = AesGcm::<Aes256, N>::new((&master(version)).into());
        let data = (&mut ciphertext[..]).into();
        let tag = cipher.encrypt_inout_detached(nonce.try_into().unwrap(), &aad, data).unwrap();
        [nonce, &ciphertext, &tag].concat()
    }

    /// As it was before the first release, in two slots' place: `version || nonce || ciphertext || tag`, then zeros.
    pub(super) fn old_slot(&self, version: u32) -> [u8; 128] {
        let value = self.value::<U12>(version, &self.content);
        [&version.to_le_bytes()[..], &value, &[0; 64]].concat().try_into().unwrap()
    }

    /// Where index, padding and payload begin, and the end.
    pub(super) fn offsets(&self) -> [usize; 4] {
        let index = 16 + self.manifest.len() + 64 + 128 * self.slots.len();
        let padding = index + self.index.len();
        let payload = padding.next_multiple_of(1 << self.spec.align_log2);
        [index, padding, payload, payload + self.payload.len()]
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let [_, padding, payload, _] = self.offsets();
        let zeros = vec![0; payload - padding];
        [&self.header()[..], &self.signature, &self.slots.concat(), &self.index, &zeros, &self.payload]
            .concat()
    }

    /// The same with another manifest, signed.
    pub(super) fn with_manifest(&self, manifest: &[u8]) -> Self {
        let mut model = Self { manifest: manifest.to_vec(), ..self.clone() };
        model.sign();
        model
    }

    /// The same with another subject, signed; commitment and root stay.
    pub(super) fn with_subject(&self, subject: &[u8]) -> Self {
        self.with_manifest(&[subject, &self.manifest[self.manifest.len() - 64..]].concat())
    }

    pub(super) fn header_values(&self, case: Case) -> Case {
        case.value("subject", self.subject())
            .value("signed_bytes", &self.signed_bytes())
            .value("model_id", &self.id())
            .value("root", &self.manifest[self.manifest.len() - 32..])
    }

    pub(super) fn content_values(&self, case: Case) -> Case {
        let okm = okm(&self.content, self.subject());
        let chunks = (self.spec.length as u64).div_ceil(1 << self.spec.chunk_log2);
        case.value("content_key", &self.content)
            .value("subject_hash", &Sha256::digest(self.subject()))
            .value("payload_key", &okm[..32])
            .value("base_nonce", &okm[32..44])
            .value("last_nonce", &nonce(&okm[32..44], chunks - 1))
            .value("commitment", &okm[44..])
    }

    /// Opened by the vault that has the master keys of these versions.
    pub(super) fn by_vault(&self, name: &str, comment: &str, versions: &[u32], line: Option<&str>) -> Case {
        let master = versions.iter().map(|v| (v.to_string(), hex::encode(master(*v)))).collect();
        let mut case = Case::new(name, comment, "open-vault").sealed(&self.bytes()).profile("host");
        case.vault = Some(Vault { master, line: line.map(Into::into) });
        self.header_values(case.trust(&[self.spec.signer.key()]))
    }

    pub(super) fn opened_by_vault(&self, name: &str, comment: &str, versions: &[u32]) -> Case {
        self.content_values(self.by_vault(name, comment, versions, Some(&self.spec.line)))
            .opened(&self.plain, None)
    }

    pub(super) fn verified(&self, name: &str, comment: &str) -> Case {
        let case = Case::new(name, comment, "verify").sealed(&self.bytes()).profile("host");
        self.header_values(case.trust(&[self.spec.signer.key()]))
    }
}

pub(super) fn master(version: u32) -> [u8; 32] {
    bytes(&format!("master key {version}"))
}
