//! How fingerprints are shown.

use modelseal_core::sign::PublisherKey;

use crate::fingerprint::Fingerprint;

/// What a command shows of the keys that it has dealt with: the device's public key, if it has one, and its
/// publisher's.
pub(super) struct Keys {
    device: Option<Fingerprint>,
    publisher: Vec<Fingerprint>,
}

impl Keys {
    pub(super) fn of(device: Option<[u8; 32]>, publisher: &[PublisherKey]) -> Self {
        let device = device.as_ref().and_then(Fingerprint::of_x25519);
        Self { device, publisher: publisher.iter().filter_map(Fingerprint::of_publisher_key).collect() }
    }

    /// For JSON: the device's.
    pub(super) fn device(&self) -> Option<String> {
        self.device.as_ref().map(Fingerprint::hex)
    }

    /// For JSON: the publisher's.
    pub(super) fn publisher(&self) -> Vec<String> {
        self.publisher.iter().map(Fingerprint::hex).collect()
    }

    /// `first`, and a line for each key.
    pub(super) fn below(&self, first: String) -> Vec<String> {
        std::iter::once(first).chain(self.lines()).collect()
    }

    /// A line for each key.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let device = self.device.iter().map(|key| line("device key", key));
        device.chain(self.publisher.iter().map(|key| line("publisher key", key)))
    }
}

fn line(whose: &str, key: &Fingerprint) -> String {
    format!("  {whose:13}  {key}")
}
