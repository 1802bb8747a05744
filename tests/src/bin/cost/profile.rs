//! What is measured, and the bars.

use crate::parts::PARTS;

/// What a device accepts.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    /// Of `modelseal-cost`, and no others.
    pub(crate) features: &'static [&'static str],
    pub(crate) suite: &'static str,
    /// What the publisher signs with; the grant is then wrapped for the device's own key.
    pub(crate) signed: Option<&'static str>,
    pub(crate) bars: Bars,
}

/// At most.
pub(crate) struct Bars {
    /// At opt-level 3.
    pub(crate) per_byte: f64,
    /// At opt-level "s".
    pub(crate) flash: Option<u64>,
    /// Statics and stack, in both builds.
    pub(crate) ram: u64,
}

const AES: f64 = 260.0;
const CHACHA: f64 = 62.0;

const fn bars(per_byte: f64, flash_kib: Option<u64>, ram_kib: u64) -> Bars {
    let flash = match flash_kib {
        Some(kib) => Some(kib << 10),
        None => None,
    };
    Bars { per_byte, flash, ram: ram_kib << 10 }
}

pub(crate) const PROFILES: [Profile; 7] = [
    Profile {
        name: "device key, AES-256-GCM",
        features: &["aes-gcm"],
        suite: "aes-256-gcm",
        signed: None,
        bars: bars(AES, Some(28), 7),
    },
    Profile {
        name: "device key, ChaCha20-Poly1305",
        features: &["chacha20-poly1305"],
        suite: "chacha20-poly1305",
        signed: None,
        bars: bars(CHACHA, Some(21), 7),
    },
    Profile {
        name: "the same, state in an EEPROM",
        features: &["chacha20-poly1305", "eeprom"],
        suite: "chacha20-poly1305",
        signed: None,
        bars: bars(CHACHA, None, 7),
    },
    Profile {
        name: "X25519, Ed25519, AES-256-GCM",
        features: &["aes-gcm", "ed25519", "x25519"],
        suite: "aes-256-gcm",
        signed: Some("ed25519"),
        bars: bars(AES, None, 11),
    },
    Profile {
        name: "X25519, Ed25519, ChaCha20-Poly1305",
        features: &["chacha20-poly1305", "ed25519", "x25519"],
        suite: "chacha20-poly1305",
        signed: Some("ed25519"),
        bars: bars(CHACHA, Some(44), 11),
    },
    Profile {
        name: "X25519, P-256, AES-256-GCM",
        features: &["aes-gcm", "p256", "x25519"],
        suite: "aes-256-gcm",
        signed: Some("ecdsa-p256"),
        bars: bars(AES, None, 11),
    },
    Profile {
        name: "X25519, P-256, ChaCha20-Poly1305",
        features: &["chacha20-poly1305", "p256", "x25519"],
        suite: "chacha20-poly1305",
        signed: Some("ecdsa-p256"),
        bars: bars(CHACHA, None, 11),
    },
];

/// How an image is compiled.
pub(crate) struct Build {
    /// Of its folder.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) opt_level: &'static str,
    pub(crate) flags: &'static str,
}

pub(crate) const BUILDS: [Build; 2] = [
    Build { name: "speed", title: "For speed, opt-level 3", opt_level: "3", flags: "" },
    Build {
        name: "size",
        title: "For size, opt-level \"s\", with the compact back ends",
        opt_level: "s",
        flags: "--cfg sha2_backend_soft=\"compact\" --cfg aes_backend_soft=\"compact\"",
    },
];

/// What a profile costs in one build.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    /// Instructions for each byte of the model.
    pub(crate) per_byte: f64,
    /// All other instructions from reset to the confirmed model.
    pub(crate) boot: f64,
    /// Bytes added to the empty image.
    pub(crate) flash: u64,
    /// Bytes of statics added to the empty image.
    pub(crate) statics: u64,
    /// Bytes of stack at the peak.
    pub(crate) stack: u64,
    /// Bytes of flash by whose code it is.
    pub(crate) parts: [u64; PARTS.len()],
}

impl Figures {
    /// All RAM beyond the model's own.
    pub(crate) fn ram(&self) -> u64 {
        self.statics + self.stack
    }
}
