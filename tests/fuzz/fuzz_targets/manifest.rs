//! A manifest parses where it is the one encoding of what keeps every bound, and its header gives the same back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal_core::manifest::{MANIFEST_MAX, Manifest};
use modelseal_core::sealed::{Header, Layout};
use modelseal_fuzz::shape;

fuzz_target!(|bytes: &[u8]| {
    let parsed = Manifest::parse(bytes).ok();
    assert_eq!(parsed, shape::manifest(bytes).filter(|_| bytes.len() <= MANIFEST_MAX));
    let Some(manifest) = parsed else { return };
    assert_eq!(postcard::to_allocvec(&manifest).unwrap(), bytes);

    let slots = 1 + manifest.root[0] % 16;
    let envelope = 64 + 128 * u32::from(slots);
    let prefix =
        [&b"\x89MSEAL\x1a\n\x01\0"[..], &(bytes.len() as u16).to_le_bytes(), &envelope.to_le_bytes()];
    let header = [&prefix.concat(), bytes].concat();
    let header = Header::parse(&header).unwrap();
    assert_eq!(*header.manifest(), manifest);
    assert_eq!(header.layout(), Layout::of(&manifest.subject, slots).unwrap());
});
