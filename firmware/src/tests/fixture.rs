//! A fake device, storage in RAM, and a publisher.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ed25519_dalek::{Signer, SigningKey};
use embedded_storage::{ReadStorage, Storage};
use modelseal_core::Error;
use modelseal_core::chunk::Portable;
use modelseal_core::grant::{
    DeviceId, PathSignature, Terms, grants_message, wrap_for_device_key, wrap_for_x25519,
};
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::manifest::{Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_core::seal::{Sealing, Unsigned};
use modelseal_core::sealed::{Envelope, Layout, Slot};
use modelseal_core::sign::{Publisher, PublisherKey, Signature};
use rand_core::UnwrapErr;

use crate::Device;
use crate::eeprom::{self, Eeprom, STATE_LEN, first_state};
use crate::state::{StateStore, Twin};
use crate::storage::Memory;

pub(crate) const LINE: &str = "wake-word";
pub(crate) const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
pub(crate) const SECRETS: [fn() -> Secret; 2] = [
    || Secret::DeviceKey(DeviceKey::from_bytes(&[1; 32])),
    || Secret::X25519(X25519Secret::from_bytes(&[2; 32])),
];

pub(crate) struct Fake {
    pub(crate) id: &'static str,
    pub(crate) line: &'static str,
    pub(crate) secret: Secret,
    pub(crate) publisher: Publisher,
    pub(crate) state: Twin<Eeprom<Ram>>,
    pub(crate) now: Option<u64>,
    pub(crate) power: Power,
}

impl Fake {
    pub(crate) fn new(secret: Secret) -> Self {
        let publisher =
            Publisher::new(&[PublisherKey::Ed25519(signer().verifying_key().to_bytes())]).unwrap();
        let power = Power::default();
        let state = eeprom::state(Ram { bytes: first_state(5), power: power.clone() }, eeprom::IN_A_ROW);
        Self { id: "doorbell-00042", line: LINE, secret, publisher, state, now: None, power }
    }
}

impl Device for Fake {
    fn id(&self) -> DeviceId<'_> {
        DeviceId::new(self.id).unwrap()
    }

    fn line(&self) -> &str {
        self.line
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    fn state(&mut self) -> &mut impl StateStore {
        &mut self.state
    }

    fn now(&mut self) -> Option<u64> {
        self.now
    }
}

/// How many steps of writing or erasing power will last, for all the memory that has this one.
#[derive(Clone)]
pub(crate) struct Power(Arc<AtomicUsize>, Arc<AtomicBool>);

impl Default for Power {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)), Arc::default())
    }
}

impl Power {
    pub(crate) fn lasts(&self, steps: usize) {
        self.0.store(steps, Ordering::Relaxed);
    }

    /// From now on the state's memory takes no write.
    pub(crate) fn reads_only(&self) {
        self.1.store(true, Ordering::Relaxed);
    }

    /// Whether it is still on.
    pub(crate) fn require(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) == 0 { Err(Error::Storage) } else { Ok(()) }
    }

    /// One step. The last one is done by half.
    pub(crate) fn step(&self, bytes: &mut [u8], new: impl Iterator<Item = u8>) -> Result<(), Error> {
        self.require()?;
        let left = self.0.fetch_sub(1, Ordering::Relaxed) - 1;
        let half = if left == 0 { bytes.len() / 2 } else { bytes.len() };
        bytes.iter_mut().zip(new).take(half).for_each(|(byte, new)| *byte = new);
        if left == 0 {
            // Where the other half begins, nobody can tell what is there.
            bytes.iter_mut().skip(half).take(1).for_each(|byte| *byte ^= 0x5a);
        }
        self.require()
    }
}

pub(crate) struct Ram {
    pub(crate) bytes: [u8; STATE_LEN],
    pub(crate) power: Power,
}

impl ReadStorage for Ram {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        self.power.require()?;
        Memory::new(&self.bytes).read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl Storage for Ram {
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        if self.power.1.load(Ordering::Relaxed) {
            return Err(Error::Storage);
        }
        for (old, new) in self.bytes[offset as usize..].chunks_mut(1).zip(bytes) {
            self.power.step(old, [*new].into_iter())?;
        }
        Ok(())
    }
}

/// Storage that somebody changes behind the reader's back: every byte is right the first time only.
pub(crate) struct Once(pub(crate) Vec<u8>);

impl ReadStorage for Once {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        Memory::new(&self.0).read(offset, bytes)?;
        self.0.iter_mut().skip(offset as usize).take(bytes.len()).for_each(|byte| *byte ^= 0xff);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn sign(message: &[u8]) -> Signature {
    Signature::from_bytes(&signer().sign(message).to_bytes())
}

/// A sealed model of four chunks, version 7 unless another is asked for, and how its grants are made.
pub(crate) struct Sealed {
    pub(crate) unsigned: Unsigned,
    pub(crate) layout: Layout,
    pub(crate) model: Vec<u8>,
    pub(crate) file: Vec<u8>,
}

impl Sealed {
    pub(crate) fn new(suite: Suite) -> Self {
        Self::of_version(suite, 7)
    }

    pub(crate) fn of_version(suite: Suite, version: u64) -> Self {
        let model: Vec<u8> = (0..=250).cycle().take(3500).collect();
        let subject = Subject {
            suite,
            chunk_log2: 10,
            align_log2: 8,
            line: LINE,
            version,
            kind: "tflite",
            length: model.len() as u64,
            created: 1,
            claims: heapless::Vec::new(),
        };
        let mut sealing = Sealing::<Portable>::new(subject, 1, &mut UnwrapErr(getrandom::SysRng)).unwrap();
        let layout = sealing.layout();
        let mut payload = model.clone();
        let entries: Vec<u8> =
            payload.chunks_mut(1024).flat_map(|chunk| sealing.seal_next(chunk).unwrap().encode()).collect();
        let unsigned = sealing.finish().unwrap();
        let signature = sign(&unsigned.header().unwrap().signed_bytes());
        let slot = Slot { version: 1, nonce: [0; 12].into(), ciphertext: [0; 32], tag: [0; 16] };
        let envelope = Envelope::new(signature, slot, 1).unwrap().encode();
        let mut file = [unsigned.header_bytes(), &envelope, &entries].concat();
        file.resize(usize::try_from(layout.payload).unwrap(), 0);
        file.extend(payload);
        Self { unsigned, layout, model, file }
    }

    /// A grant for the fake device, with floor 6, after `change`.
    pub(crate) fn grant(&self, secret: &Secret, change: impl FnOnce(&mut Terms<'_>)) -> Vec<u8> {
        let header = self.unsigned.header().unwrap();
        let signature = sign(&header.signed_bytes());
        let header = header.verify(&signature, &Fake::new(SECRETS[0]()).publisher).unwrap();
        let content = Unwrapped::by_vault(header, self.unsigned.content_key().expose_to_vault()).unwrap();
        let mut terms = Terms::new(&content, DeviceId::new("doorbell-00042").unwrap());
        terms.floor = 6;
        change(&mut terms);
        let rng = &mut UnwrapErr(getrandom::SysRng);
        match secret {
            Secret::DeviceKey(key) => wrap_for_device_key(&content, &terms, key, rng).unwrap().to_vec(),
            Secret::X25519(key) => {
                let grant = wrap_for_x25519(&content, &terms, &key.public().unwrap(), rng).unwrap();
                let signature = sign(&grants_message(&grant.leaf()));
                let path = PathSignature { signature, siblings: heapless::Vec::new(), sides: 0 };
                grant.sign(&path).unwrap().to_vec()
            }
        }
    }
}
