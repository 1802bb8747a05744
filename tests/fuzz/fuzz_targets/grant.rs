//! A grant parses where it is the one encoding of what keeps every bound, and verifies where the publisher signed it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal_core::grant::{Grant, grants_message};
use modelseal_core::sign::Signature;
use modelseal_fuzz::{scene, shape};

fuzz_target!(|bytes: &[u8]| {
    let (parsed, shape) = (Grant::parse(bytes).ok(), shape::grant(bytes));
    let parts = parsed.as_ref().map(|g| (g.terms().clone(), g.wrapping(), g.signature()));
    assert_eq!(parts, shape);
    let (Some(grant), Some((terms, wrapping, path))) = (parsed, shape) else { return };
    assert_eq!(postcard::to_allocvec(&(&terms, &wrapping, &path)).unwrap(), bytes[12..]);
    let genuine = scene::models().iter().any(|genuine| genuine.grants[1] == bytes);
    assert_eq!(grant.verify(&scene::publisher()).is_ok(), genuine);

    let Some(mut path) = path else { return };
    let leaf = shape::leaf(&(terms.clone(), wrapping.clone(), None));
    let signature = scene::sign(&grants_message(&scene::root_of(leaf, &path.siblings, path.sides)));
    path.signature = Signature::from_bytes(&signature);
    let signed = [&bytes[..12], &postcard::to_allocvec(&(terms, wrapping, Some(path))).unwrap()].concat();
    assert!(Grant::parse(&signed).unwrap().verify(&scene::publisher()).is_ok());
});
