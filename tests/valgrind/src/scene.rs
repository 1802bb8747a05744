//! A sealed model, its keys, and its grants to one device. Everything here is public: a case makes secrets of copies.

use ed25519_dalek::{Signer, SigningKey};
use modelseal_core::grant::{
    DeviceId, GrantBytes, PathSignature, Terms, grants_message, wrap_for_device_key, wrap_for_x25519,
};
use modelseal_core::keys::{DeviceKey, X25519Secret};
use modelseal_core::manifest::{Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::{Entry, Header};
use modelseal_core::sign::{Publisher, PublisherKey, Signature, Verified};

use crate::secret::Random;

pub(crate) const LINE: &str = "wake-word";
pub(crate) const DEVICE: &str = "kitchen-7";
pub(crate) const DEVICE_KEY: [u8; 32] = [5; 32];
pub(crate) const X25519: [u8; 32] = [6; 32];

pub(crate) struct Scene {
    pub(crate) suite: Suite,
    pub(crate) header: Vec<u8>,
    pub(crate) signature: Signature,
    pub(crate) publisher: Publisher,
    pub(crate) content: [u8; 32],
    pub(crate) entries: Vec<Entry>,
    pub(crate) payload: Vec<u8>,
    pub(crate) device_grant: GrantBytes,
    pub(crate) hpke_grant: GrantBytes,
}

impl Scene {
    /// Three chunks, the last one short.
    pub(crate) fn new(suite: Suite) -> Self {
        let signer = SigningKey::from_bytes(&[9; 32]);
        let sign = |message: &[u8]| Signature::from_bytes(&signer.sign(message).to_bytes());
        let publisher = PublisherKey::Ed25519(signer.verifying_key().to_bytes());
        let publisher = Publisher::new(&[publisher]).unwrap();

        let mut payload: Vec<u8> = (0..=u8::MAX).cycle().take(2500).collect();
        let mut sealing: Sealing<'_> = Sealing::new(subject(suite), 1, &mut Random::public()).unwrap();
        let entries = payload.chunks_mut(1024).map(|chunk| sealing.seal_next(chunk).unwrap()).collect();
        let unsigned = sealing.finish().unwrap();
        let signature = sign(&unsigned.header().unwrap().signed_bytes());
        let content = *unsigned.content_key().expose_to_vault();

        let header = unsigned.header().unwrap().verify(&signature, &publisher).unwrap();
        let unwrapped = Unwrapped::by_vault(header, &content).unwrap();
        let terms = terms(&unwrapped);
        let key = DeviceKey::from_bytes(&DEVICE_KEY);
        let device_grant = wrap_for_device_key(&unwrapped, &terms, &key, &mut Random::public()).unwrap();
        let public = X25519Secret::from_bytes(&X25519).public().unwrap();
        let grant = wrap_for_x25519(&unwrapped, &terms, &public, &mut Random::public()).unwrap();
        let alone = sign(&grants_message(&grant.leaf()));
        let path = PathSignature { signature: alone, siblings: Default::default(), sides: 0 };
        let hpke_grant = grant.sign(&path).unwrap();

        let header = unsigned.header_bytes().to_vec();
        Self { suite, header, signature, publisher, content, entries, payload, device_grant, hpke_grant }
    }

    pub(crate) fn header(&self) -> Header<'_> {
        Header::parse(&self.header).unwrap()
    }

    pub(crate) fn verified(&self) -> Verified<Header<'_>> {
        self.header().verify(&self.signature, &self.publisher).unwrap()
    }
}

pub(crate) fn subject(suite: Suite) -> Subject<'static> {
    Subject {
        suite,
        chunk_log2: 10,
        align_log2: 4,
        line: LINE,
        version: 7,
        kind: "tflite",
        length: 2500,
        created: 1,
        claims: Default::default(),
    }
}

pub(crate) fn terms(content: &Unwrapped<'_>) -> Terms<'static> {
    Terms::new(content, DeviceId::new(DEVICE).unwrap())
}
