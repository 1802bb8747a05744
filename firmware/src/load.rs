//! Copies a sealed model's payload from storage into the model's final memory and opens it there (FORMAT.md,
//! section 7, "A device").

use embedded_storage::ReadStorage;
use modelseal_core::Error;
use modelseal_core::grant::Grant;
use modelseal_core::sealed::HEADER_MAX;

use crate::boot::{Loaded, open, unwrap};
use crate::device::Device;
use crate::storage::{read, read_header};

/// Opens the sealed model that fills `storage` into the first bytes of `memory`. Where it lies in larger
/// storage, [`Part`](crate::storage::Part) is that part of it.
///
/// Nothing is copied before everything but the payload has been checked, and every byte is read once, so
/// storage that changes meanwhile gains nothing. The stack isn't wiped: see [`Device`](crate::Device#the-stack).
pub fn load<'m>(
    device: &mut impl Device,
    grant: Grant<'_>,
    storage: &mut impl ReadStorage,
    memory: &'m mut [u8],
) -> Result<Loaded<'m>, Error> {
    let mut buffer = [0; HEADER_MAX];
    let header = read_header(storage, &mut buffer)?;
    let unwrapped = unwrap(device, header, grant, storage)?;
    let layout = unwrapped.header().layout();
    let length = usize::try_from(layout.length).map_err(|_| Error::Memory)?;
    let payload = memory.get_mut(..length).ok_or(Error::Memory)?;
    read(storage, layout.payload, payload)?;
    open(unwrapped, storage, payload)
}
