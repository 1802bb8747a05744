//! Sealing in memory, and opening as a host and as a device do.

use std::path::Path;

use getrandom::SysRng;
use modelseal::open::SealedFile;
use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant};
use modelseal_core::manifest::Subject;
use modelseal_core::open::{Conditions, FloorStore, Request, Unwrapped};
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::{ENTRY_LEN, Entry, Envelope, Header, Layout, PREFIX_LEN, Prefix};
use modelseal_tests::bench::{Bench, Held};
use rand_core::UnwrapErr;

/// Seals in memory, with any number of slots, what the vault then signs.
pub(crate) fn seal_in_memory(bench: &Bench, plain: &[u8], subject: Subject<'_>, slots: u8) -> Vec<u8> {
    let mut sealing: Sealing<'_> = Sealing::new(subject, slots, &mut UnwrapErr(SysRng)).unwrap();
    let (layout, mut payload) = (sealing.layout(), plain.to_vec());
    let chunks = payload.chunks_mut(layout.chunk_size as usize);
    let index: Vec<u8> = chunks.flat_map(|chunk| sealing.seal_next(chunk).unwrap().encode()).collect();
    let unsigned = sealing.finish().unwrap();
    let envelope = bench.vault.publish(&unsigned).unwrap().encode();
    let padding = vec![0; (layout.payload - layout.padding) as usize];
    let sealed = [unsigned.header_bytes(), &envelope, &index, &padding, &payload].concat();
    assert_eq!(sealed.len() as u64, layout.end);
    sealed
}

pub(crate) type Unwrapping<'u> = &'u dyn for<'a> Fn(&'a SealedFile) -> modelseal::Result<Unwrapped<'a>>;

/// As `open` does, but into memory.
pub(crate) fn open_as_host(path: &Path, unwrap: Unwrapping<'_>) -> modelseal::Result<Vec<u8>> {
    let (mut sealed, mut model) = (SealedFile::open(path)?, Vec::new());
    let mut out = |bytes: &[u8]| {
        model.extend_from_slice(bytes);
        Ok(())
    };
    sealed.copy_to(unwrap, &mut out, &mut |_| ())?;
    Ok(model)
}

/// As firmware does: in place, and confirmed.
pub(crate) fn open_as_device(sealed: &[u8], held: &Held, floor: &mut Floor) -> Result<Vec<u8>, Error> {
    let header = header(sealed);
    let layout = header.layout();
    let (secret, publisher) = (held.identity.secret().unwrap(), held.identity.publisher().unwrap());
    let request = Request::new(header, *envelope(sealed).signature(), Grant::parse(&held.grant)?);
    let named = request.authenticate(&secret, &publisher)?.name(held.line)?;
    let device = DeviceId::new(held.identity.device())?;
    let conditions = Conditions { line: held.line, device, now: held.now, floor: floor.0 };
    let unwrapped = named.admit(&conditions)?.unwrap(&secret, &conditions)?;
    let mut memory = sealed[layout.payload as usize..].to_vec();
    let opened = unwrapped.open_in_place(&mut memory, |i| Ok(entry(sealed, layout, i).tag))?;
    Ok(opened.confirm(floor)?.to_vec())
}

pub(crate) struct Floor(pub(crate) u64);

impl FloorStore for Floor {
    fn floor(&mut self) -> Result<u64, Error> {
        Ok(self.0)
    }

    fn raise(&mut self, floor: u64) -> Result<(), Error> {
        assert!(floor > self.0, "only ever up");
        self.0 = floor;
        Ok(())
    }
}

pub(crate) fn header(sealed: &[u8]) -> Header<'_> {
    let prefix: &[u8; PREFIX_LEN] = sealed.first_chunk().unwrap();
    Header::parse(&sealed[..Prefix::parse(prefix).unwrap().header_len()]).unwrap()
}

pub(crate) fn envelope(sealed: &[u8]) -> Envelope {
    let layout = header(sealed).layout();
    Envelope::parse(&sealed[layout.envelope as usize..layout.index as usize]).unwrap()
}

pub(crate) fn entry(sealed: &[u8], layout: Layout, i: u64) -> Entry {
    let at = layout.index as usize + ENTRY_LEN * i as usize;
    Entry::parse(sealed[at..][..ENTRY_LEN].try_into().unwrap())
}
