//! Opens a sealed model that already lies in the model's final memory, where it lies: it needs no second
//! buffer. Also the steps that both paths share. Steps are those of FORMAT.md, section 7, as a device does
//! them.

use embedded_storage::ReadStorage;
use modelseal_core::Error;
use modelseal_core::grant::Grant;
use modelseal_core::open::{Conditions, Opened, Request, Unwrapped};
use modelseal_core::sealed::{Header, Layout, Prefix};
use zeroize::Zeroize;

use crate::device::Device;
use crate::state::{Choice, Floor, StateStore, Trial};
use crate::storage::{Memory, check_end, check_padding, read_signature, read_tag};

/// Opens the sealed model that `region` holds from its first byte to its last. Nobody else writes `region`: the sealed
/// model was read into it once, and the header is used where it lies.
///
/// The model takes the payload's place. If anything fails once decryption has begun, the payload is wiped. The stack
/// isn't: see [`Device`](crate::Device#the-stack).
pub fn boot<'m>(
    device: &mut impl Device,
    grant: Grant<'_>,
    region: &'m mut [u8],
) -> Result<Loaded<'m>, Error> {
    let len = header_len(region)?;
    let (header, rest) = region.split_at_mut_checked(len).ok_or(Error::Truncated)?;
    let unwrapped = unwrap(device, header, grant, &mut Memory::after(len, rest));
    open_after(len, unwrapped, rest)
}

/// Opens in `rest`, which follows the header's `len` bytes.
#[inline(never)]
fn open_after<'m>(
    len: usize,
    unwrapped: Result<Unwrapped<'_>, Error>,
    rest: &'m mut [u8],
) -> Result<Loaded<'m>, Error> {
    let unwrapped = unwrapped?;
    let (front, payload) = split(rest, len, &unwrapped.header().layout()).ok_or(Error::Truncated)?;
    open(unwrapped, &mut Memory::after(len, front), payload)
}

/// Length of the header that `region` begins with.
fn header_len(region: &[u8]) -> Result<usize, Error> {
    Ok(Prefix::parse(region.first_chunk().ok_or(Error::Truncated)?)?.header_len())
}

/// Of what follows the header: what precedes the payload, and the payload (4.1).
fn split<'m>(rest: &'m mut [u8], header: usize, layout: &Layout) -> Option<(&'m [u8], &'m mut [u8])> {
    let at = usize::try_from(layout.payload).ok()?.checked_sub(header)?;
    let (front, payload) = rest.split_at_mut_checked(at)?;
    (payload.len() as u64 == layout.length).then_some((front, payload))
}

/// Steps 1 to 6: everything that can be refused before the payload is touched. In a frame of its own, as are the steps
/// that follow: a device's stack then holds only the deepest.
#[inline(never)]
pub(crate) fn unwrap<'a>(
    device: &mut impl Device,
    header: &'a [u8],
    grant: Grant<'_>,
    storage: &mut impl ReadStorage,
) -> Result<Unwrapped<'a>, Error> {
    // Borrowed where it was made: taken out of the result it would lie on the stack twice.
    match &request(header, grant, storage) {
        Ok(request) => admit(device, request),
        Err(error) => Err(*error),
    }
}

/// Step 1.
#[inline(never)]
fn request<'a, 'g>(
    header: &'a [u8],
    grant: Grant<'g>,
    storage: &mut impl ReadStorage,
) -> Result<Request<'a, 'g>, Error> {
    let header = Header::parse(header)?;
    let layout = header.layout();
    check_end(storage, &layout)?;
    check_padding(storage, &layout)?;
    Ok(Request::new(header, read_signature(storage, &layout)?, grant))
}

/// Steps 2 to 6. Whatever the device brings is read twice: once for the comparisons, and once for what is mixed into
/// the key.
fn admit<'a>(device: &mut impl Device, request: &Request<'a, '_>) -> Result<Unwrapped<'a>, Error> {
    check_manifest(device, request)?;
    let named = request.authenticate(device.secret(), device.publisher())?.name(device.line())?;
    let read = Read::of(device)?;
    let admitted = named.admit(&read.conditions(device))?;
    log!(info, "grant admitted, stored floor {=u64}", read.floor);
    check_manifest(device, request)?;
    let again = Read::of(device)?;
    admitted.unwrap(device.secret(), &again.conditions(device))
}

/// The grant authenticates the manifest already. A device that trusts publisher keys checks the signature, too, so
/// that removing a key from it also retires what that key had signed.
#[inline(never)]
fn check_manifest(device: &impl Device, request: &Request<'_, '_>) -> Result<(), Error> {
    if !device.publisher().trusts_nobody() {
        request.verify_manifest(device.publisher())?;
        log!(info, "manifest signed by the publisher");
    }
    Ok(())
}

/// What a device has to look up.
struct Read {
    floor: u64,
    now: Option<u64>,
}

impl Read {
    #[inline(never)]
    fn of(device: &mut impl Device) -> Result<Self, Error> {
        Ok(Self { floor: device.state().load()?.floor, now: device.now() })
    }

    fn conditions<'d>(&self, device: &'d impl Device) -> Conditions<'d> {
        Conditions { line: device.line(), device: device.id(), now: self.now, floor: self.floor }
    }
}

/// Steps 7 and 8.
pub(crate) fn open<'m>(
    unwrapped: Unwrapped<'_>,
    storage: &mut impl ReadStorage,
    payload: &'m mut [u8],
) -> Result<Loaded<'m>, Error> {
    let header = unwrapped.header();
    let (version, layout) = (header.manifest().subject.version, header.layout());
    log!(info, "decrypting {=u64} bytes in {=u64} chunks", layout.length, layout.chunks);
    let opened = unwrapped.open_in_place(payload, |i| read_tag(storage, &layout, i))?;
    log!(info, "every byte is authentic");
    Ok(Loaded { opened, version })
}

/// A model that this device may run: every byte is authentic, in order and complete.
pub struct Loaded<'m> {
    opened: Opened<'m>,
    version: u64,
}

impl<'m> Loaded<'m> {
    /// The model.
    pub fn model(&self) -> &[u8] {
        self.opened.model()
    }

    /// Its version, from the authentic manifest.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Step 9, when the application has seen the model run: raises the device's floor, so that no version
    /// below it opens again, and leaves the model.
    pub fn confirm(self, device: &mut impl Device) -> Result<&'m mut [u8], Error> {
        self.confirm_as(device, None)
    }

    /// Confirms, and stores with the floor what was chosen to be booted.
    pub(crate) fn confirm_as(
        self,
        device: &mut impl Device,
        confirms: Option<(Choice, Option<Trial>)>,
    ) -> Result<&'m mut [u8], Error> {
        let mut floor = Floor { store: device.state(), confirms };
        let model = self.opened.confirm(&mut floor)?;
        if let Err(error) = floor.confirm() {
            model.zeroize();
            return Err(error);
        }
        log!(info, "confirmed version {=u64}", self.version);
        Ok(model)
    }

    /// Leaves the model without confirming it: the floor stays.
    pub fn unconfirmed(self) -> &'m mut [u8] {
        self.opened.unconfirmed()
    }
}
