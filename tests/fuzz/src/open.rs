//! Opening as a device and as a host, and what may open.

use modelseal::open::SealedFile;
use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant};
use modelseal_core::open::{Conditions, Request, Unwrapped};
use modelseal_core::sealed::{Header, PREFIX_LEN, Prefix};
use modelseal_core::sign::Signature;

use crate::scene::{DEVICE, FLOOR, Genuine, LINE, NOW, Wrap, models, publisher};

/// As a device that only does what it must: in place, without the manifest's signature, from storage that nobody
/// said the length of. On failure the memory is wiped.
pub fn as_device(sealed: &[u8], grant: &[u8], wrap: Wrap) -> Result<Vec<u8>, Error> {
    let prefix = Prefix::parse(sealed.first_chunk::<PREFIX_LEN>().ok_or(Error::Truncated)?)?;
    let header = Header::parse(sealed.get(..prefix.header_len()).ok_or(Error::Truncated)?)?;
    let layout = header.layout();
    let at = |offset: u64| sealed.get(usize::try_from(offset).ok()?..).ok_or(Error::Truncated).ok();
    let signature = at(layout.envelope).and_then(<[u8]>::first_chunk).ok_or(Error::Truncated)?;
    let request = Request::new(header, Signature::from_bytes(signature), Grant::parse(grant)?);
    let unwrapped = unwrap(request, wrap)?;
    let length = usize::try_from(layout.length).map_err(|_| Error::Memory)?;
    let mut memory = at(layout.payload).and_then(|rest| rest.get(..length)).ok_or(Error::Truncated)?.to_vec();
    let tag = |i| Ok(*at(layout.index + 48 * i).and_then(<[u8]>::first_chunk).ok_or(Error::Truncated)?);
    let opened = unwrapped.open_in_place(&mut memory, tag).map(|opened| opened.unconfirmed().to_vec());
    assert!(opened.is_ok() || memory.iter().all(|byte| *byte == 0), "something was left in memory");
    opened
}

/// As a host, by its own reader of files. Whatever it hands out before it fails is the model's beginning.
pub fn as_host(sealed: &[u8], grant: &[u8], wrap: Wrap) -> modelseal::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut id = None;
    let mut write = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let opened = SealedFile::open(&crate::file(sealed))?.copy_to(
        |sealed| {
            let header = sealed.header()?;
            id = Some(header.id());
            let request = Request::new(header, *sealed.envelope().signature(), Grant::parse(grant)?);
            request.verify_manifest(&publisher())?;
            Ok(unwrap(request, wrap)?)
        },
        &mut write,
        &mut |_| (),
    );
    let truth = models().iter().find(|genuine| id.is_some_and(|id| genuine.id == *id.as_bytes()));
    assert!(
        truth.map_or(&[][..], |genuine| &genuine.plain).starts_with(&out),
        "it handed out something else"
    );
    opened.map(|_| out)
}

/// Steps 2 to 6.
fn unwrap<'a>(request: Request<'a, '_>, wrap: Wrap) -> Result<Unwrapped<'a>, Error> {
    let secret = wrap.secret();
    let conditions = Conditions { line: LINE, device: DeviceId::new(DEVICE)?, now: Some(NOW), floor: FLOOR };
    request.authenticate(&secret, &publisher())?.name(LINE)?.admit(&conditions)?.unwrap(&secret, &conditions)
}

/// What a device must open these files as: nothing, unless header, tags, payload and grant are those of one
/// genuine model. It doesn't look at the rest of the envelope, chaining values, padding, or what follows.
pub fn truth_for_device(sealed: &[u8], grant: &[u8], wrap: Wrap) -> Option<&'static [u8]> {
    let tags = |bytes: &[u8], genuine: &Genuine| -> Vec<u8> {
        bytes[genuine.parts.index..genuine.parts.padding]
            .chunks(48)
            .flat_map(|entry| entry[..16].to_vec())
            .collect()
    };
    truth(grant, wrap, |genuine| {
        let (parts, end) = (genuine.parts, genuine.sealed.len());
        sealed.len() >= end
            && sealed[..parts.envelope] == genuine.sealed[..parts.envelope]
            && tags(sealed, genuine) == tags(&genuine.sealed, genuine)
            && sealed[parts.payload..end] == genuine.sealed[parts.payload..]
    })
}

/// What a host must open these files as: nothing, unless all but the key slots is genuine.
pub fn truth_for_host(sealed: &[u8], grant: &[u8], wrap: Wrap) -> Option<&'static [u8]> {
    truth(grant, wrap, |genuine| genuine.is(sealed, |at| (genuine.parts.slots()).contains(&at)))
}

fn truth(grant: &[u8], wrap: Wrap, is: impl Fn(&Genuine) -> bool) -> Option<&'static [u8]> {
    let found = models().iter().find(|genuine| genuine.grants[wrap as usize] == grant && is(genuine));
    found.map(|genuine| &genuine.plain[..])
}

impl Genuine {
    /// Whether it must verify without a key: where all but the key slots and the tags is this one's.
    pub fn verifies_as(&self, sealed: &[u8]) -> bool {
        let tag =
            |at| (self.parts.index..self.parts.padding).contains(&at) && (at - self.parts.index) % 48 < 16;
        self.is(sealed, |at| self.parts.slots().contains(&at) || tag(at))
    }

    /// Whether `sealed` is this one, but for the places that don't matter.
    pub fn is(&self, sealed: &[u8], but: impl Fn(usize) -> bool) -> bool {
        sealed.len() == self.sealed.len()
            && sealed.iter().zip(&self.sealed).enumerate().all(|(at, (a, b))| a == b || but(at))
    }
}

impl crate::forge::Parts {
    /// Where the key slots are.
    pub fn slots(&self) -> std::ops::Range<usize> {
        self.envelope + 64..self.index
    }
}
