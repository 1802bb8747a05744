//! Whose code it is, by the names of the functions.

use object::{Object, ObjectSymbol};

/// A column, and the crates that it counts.
pub(crate) const PARTS: [(&str, &[&str]); 6] = [
    ("modelseal", &["modelseal_core", "modelseal_firmware", "modelseal_cost"]),
    ("BLAKE3", &["blake3", "arrayvec"]),
    ("SHA-2, HKDF", &["block_buffer", "digest", "hkdf", "hmac", "sha2"]),
    (
        "AEAD",
        &[
            "aead",
            "aes",
            "aes_gcm",
            "chacha20",
            "chacha20poly1305",
            "cipher",
            "ctr",
            "ghash",
            "poly1305",
            "polyval",
            "universal_hash",
        ],
    ),
    (
        "public keys",
        &[
            "crypto_bigint",
            "curve25519_dalek",
            "ecdsa",
            "ed25519",
            "ed25519_dalek",
            "elliptic_curve",
            "hpke",
            "p256",
            "primefield",
            "primeorder",
            "sec1",
            "signature",
            "x25519_dalek",
        ],
    ),
    ("core, memory", &["compiler_builtins", "core"]),
];

/// How many bytes of an image each part has.
pub(crate) fn parts(elf: &[u8]) -> [u64; PARTS.len()] {
    let elf = object::File::parse(elf).unwrap();
    let mut sizes = [0; PARTS.len()];
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        let of = |(_, crates): &(&str, &[&str])| crate_of(name).is_some_and(|found| crates.contains(&found));
        if let Some(part) = PARTS.iter().position(of) {
            sizes[part] += symbol.size();
        }
    }
    sizes
}

/// In a mangled name, the first path's first part: `_ZN4core3fmt…`, or within the first `_$LT$…..…`. The memory
/// functions that the compiler calls have names of their own.
fn crate_of(mangled: &str) -> Option<&str> {
    if mangled.starts_with("__aeabi_") || ["memcmp", "memcpy", "memmove", "memset"].contains(&mangled) {
        return Some("compiler_builtins");
    }
    let path = mangled.strip_prefix("_ZN")?;
    let digits = path.find(|c: char| !c.is_ascii_digit())?;
    let length: usize = path[..digits].parse().ok()?;
    let first = path[digits..].get(..length)?;
    let Some(qualified) = first.strip_prefix("_$LT$") else { return Some(first) };
    let end = qualified.find("..")?;
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let start = qualified[..end].rfind(word).map_or(0, |at| at + 1);
    Some(&qualified[start..end])
}
