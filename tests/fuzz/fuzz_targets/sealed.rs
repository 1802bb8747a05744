//! A sealed model parses where it has exactly the length of its layout, from a file as by the core; and verifies where
//! the publisher signed it and the payload is the one that was signed, from a file as from a pipe.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal::open::SealedFile;
use modelseal_core::sealed::Header;
use modelseal_fuzz::{file, forge, scene, shape};

fuzz_target!(|bytes: &[u8]| {
    let opened = SealedFile::open(&file(bytes));
    let shape = shape::sealed(bytes);
    assert_eq!(opened.is_ok(), shape.is_some());
    assert_eq!(verifies(bytes), scene::models().iter().any(|genuine| genuine.verifies_as(bytes)));
    let (Ok(opened), Some((parts, manifest))) = (opened, shape) else { return };
    let header = Header::parse(&bytes[..parts.envelope]).unwrap();
    assert_eq!(opened.header().unwrap().id(), header.id());
    assert_eq!((header.layout().payload, header.layout().end), (parts.payload as u64, bytes.len() as u64));

    let mut signed = bytes.to_vec();
    let signature = scene::sign(&forge::signed_bytes(bytes, parts));
    signed[parts.envelope..][..64].copy_from_slice(&signature);
    assert_eq!(verifies(&signed), shape::is_consistent(bytes, parts, &manifest));
});

fn verifies(bytes: &[u8]) -> bool {
    let verify = |mut sealed: SealedFile| sealed.verify(&scene::publisher(), &mut |_| ());
    let from_file = SealedFile::open(&file(bytes)).and_then(verify).is_ok();
    let pipe = Box::new(std::io::Cursor::new(bytes.to_vec()));
    assert_eq!(SealedFile::from_reader(pipe).and_then(verify).is_ok(), from_file);
    from_file
}
