//! Sealed model + grant -> model. The order of checks, as types (FORMAT.md, section 7).
//!
//! ```text
//!  1 parse ─▶ Request                Header::parse, Grant::parse: every bound
//!  2 authenticate ─▶ Authentic       the publisher's signature, twice, or the device key
//!  3 name ─▶ Named                   the model in hand is the granted one, and of the line asked for
//!  4 admit ─▶ Admitted               suite, device, validity, floors
//!  5 unwrap                          the content key, which stays in here
//!  6   "    ─▶ Unwrapped             the commitment
//!  7 open_in_place                   every chunk, read once, in order
//!  8   "    ─▶ Opened                the root: only now does the caller get the model
//!  9 confirm                         raises the stored floor
//! ```
//!
//! Each step consumes the previous one's type, so none can be left out or done in another order. A vault has
//! no grant: it starts from a [`Verified<Header>`](Verified) and joins at step 6.
//!
//! Against a single skipped instruction, no refusal rests on one comparison. Signatures are verified twice. The model
//! id, the terms and the subject flow into the keys. What steps 3 and 4 compare is compared a second time, from the
//! bytes, with what the reader has read of its own side (id, line, clock, floor) a second time: doubt of it makes
//! another content key. The commitment's own difference makes another payload key. The root is compared twice, and
//! what is handed out carries a proof of it.

use core::hint::black_box;

use zeroize::Zeroize;

use crate::chunk::{ChunkCipher, Portable};
use crate::error::Error;
use crate::grant::{DeviceId, Grant, Validity};
use crate::keys::{ContentKey, DeviceKey, KEY_LEN, PayloadKeys, Secret, TAG_LEN};
use crate::sealed::{Header, ModelId};
use crate::sign::{Publisher, Signature, Verified};

/// Step 1 is done: a sealed model and a grant of the right shape.
pub struct Request<'a, 'g> {
    header: Header<'a>,
    signature: Signature,
    grant: Grant<'g>,
}

impl<'a, 'g> Request<'a, 'g> {
    /// `signature` is the envelope's, which covers the header. A grant names the header by its id, so it is
    /// needed only to say what was wrong, and by [`verify_manifest`](Self::verify_manifest).
    pub fn new(header: Header<'a>, signature: Signature, grant: Grant<'g>) -> Self {
        Self { header, signature, grant }
    }

    /// Between steps 1 and 2 (7, "A host"), for readers that can afford one more signature: checks the
    /// manifest's, too, so that nothing outside the key slots can be changed without being noticed.
    pub fn verify_manifest(&self, publisher: &Publisher) -> Result<&Self, Error> {
        self.header.check_signature(&self.signature, publisher)?;
        Ok(self)
    }

    /// Step 2. Nothing of the grant is believed before.
    ///
    /// With a device key, the AEAD call that authenticates is the one that unwraps (step 5). Its result isn't kept:
    /// the content key is unwrapped anew once steps 3 and 4 are done.
    ///
    /// The later steps' types refer to the request, so that a device's stack holds it once.
    pub fn authenticate<'r, 'p>(
        &'r self,
        secret: &Secret,
        publisher: &'p Publisher,
    ) -> Result<Authentic<'a, 'r, 'p>, Error> {
        // The id is computed from the header in hand, never taken from the grant.
        let id = self.header.id();
        let grant = match (self.grant.is_hpke(), secret) {
            (false, Secret::DeviceKey(key)) => match self.grant.unwrap_with_device_key(key, &id) {
                Ok(_) => Verified::by_device_key(&self.grant),
                Err(_) => return Err(self.why_not(key, &id, publisher)),
            },
            (false, Secret::X25519(_)) => return Err(Error::GrantKey),
            (true, _) => {
                let once = self.grant.verify(publisher)?;
                black_box(*once).verify(black_box(publisher))?
            }
        };
        Ok(Authentic { hand: Hand { request: self, id, grant }, publisher })
    }

    /// (7, "Which error for which model", step 2) Why the grant didn't open with the device's key and the
    /// computed id. Every answer is a refusal.
    fn why_not(&self, key: &DeviceKey, id: &ModelId, publisher: &Publisher) -> Error {
        let named = &self.grant.terms().model;
        if equal(named.as_bytes(), id.as_bytes()) || self.grant.unwrap_with_device_key(key, named).is_err() {
            return Error::GrantKey;
        }
        other_model(&self.header, &self.signature, publisher)
    }
}

/// (7, "Which error for which model") A genuine grant names another model than the one in hand: either that
/// is the publisher's too, or it has been changed. A reader that trusts no publisher key can't tell, and
/// says the latter.
fn other_model(header: &Header<'_>, signature: &Signature, publisher: &Publisher) -> Error {
    match header.check_signature(signature, publisher) {
        Ok(()) => Error::OtherModel,
        Err(error) => error,
    }
}

/// Step 2 is done: the publisher, or the vault, made this grant. For which model and device is still open.
pub struct Authentic<'a, 'r, 'p> {
    hand: Hand<'a, 'r>,
    publisher: &'p Publisher,
}

/// What the steps hand on.
struct Hand<'a, 'r> {
    request: &'r Request<'a, 'r>,
    id: ModelId,
    grant: Verified<&'r Grant<'r>>,
}

impl<'a, 'r> Authentic<'a, 'r, '_> {
    /// Step 3: the model in hand is the granted one, and of the line that the caller asked for. With the id,
    /// the whole header is authentic.
    pub fn name(self, line: &str) -> Result<Named<'a, 'r>, Error> {
        let Hand { request, id, grant, .. } = &self.hand;
        if !equal(id.as_bytes(), grant.terms().model.as_bytes()) {
            return Err(other_model(&request.header, &request.signature, self.publisher));
        }
        request.header.require_line(line)?;
        Ok(Named(self.hand))
    }
}

impl Header<'_> {
    /// (7, step 3) Refuses any line but `line`.
    pub fn require_line(&self, line: &str) -> Result<(), Error> {
        if equal(self.manifest().subject.line.as_bytes(), line.as_bytes()) {
            Ok(())
        } else {
            Err(Error::OtherLine)
        }
    }
}

/// What the reader brings to step 4.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// The line that it asks for.
    pub line: &'a str,
    /// The reader's own id.
    pub device: DeviceId<'a>,
    /// Seconds since 1970-01-01 UTC; `None` without a working clock.
    pub now: Option<u64>,
    /// The stored floor of this line.
    pub floor: u64,
}

/// Step 3 is done: a genuine grant for the genuine model in hand.
pub struct Named<'a, 'r>(Hand<'a, 'r>);

impl<'a, 'r> Named<'a, 'r> {
    /// Step 4: the terms (6.2).
    pub fn admit(self, conditions: &Conditions<'_>) -> Result<Admitted<'a, 'r>, Error> {
        let terms = self.0.grant.terms();
        let subject = &self.0.request.header.manifest().subject;
        if !equal(&[u8::from(terms.suite)], &[u8::from(subject.suite)]) {
            return Err(Error::OtherSuite);
        }
        if !equal(terms.device.as_str().as_bytes(), conditions.device.as_str().as_bytes()) {
            return Err(Error::OtherDevice);
        }
        if let Some(validity) = terms.validity {
            within(validity, conditions.now)?;
        }
        if subject.version < terms.floor {
            return Err(Error::FloorAboveVersion);
        }
        if subject.version < conditions.floor {
            return Err(Error::RolledBack);
        }
        Ok(Admitted(self.0))
    }
}

/// (6.2) Good when `not_before <= now < not_after`.
fn within(validity: Validity, now: Option<u64>) -> Result<(), Error> {
    match now.ok_or(Error::NoClock)? {
        now if now < validity.not_before => Err(Error::NotYetValid),
        now if now >= validity.not_after => Err(Error::Expired),
        _ => Ok(()),
    }
}

/// Step 4 is done: this device may open the model, now.
pub struct Admitted<'a, 'r>(Hand<'a, 'r>);

impl<'a> Admitted<'a, '_> {
    /// Steps 5 and 6: the content key, and that it is the one the manifest commits to. In a frame of its own, for it
    /// copies the header.
    ///
    /// `again` are the conditions of step 4, which a device that may be glitched has read a second time: what speaks
    /// against opening by them is mixed into the content key.
    #[inline(never)]
    pub fn unwrap(self, secret: &Secret, again: &Conditions<'_>) -> Result<Unwrapped<'a>, Error> {
        let Hand { request, id, grant } = self.0;
        let mut content = match secret {
            Secret::DeviceKey(key) => grant.unwrap_with_device_key(key, &id)?,
            Secret::X25519(key) => grant.unwrap_with_x25519(key, &id)?,
        };
        let header = request.header.parse_again()?;
        content.mix(doubt(&header, &grant, &id, again)?);
        let version = header.manifest().subject.version;
        Unwrapped::new(header, content, Confirmation { floor: Some(grant.terms().floor), version })
    }
}

/// Steps 3 and 4 once more (7, "A device"), of a header that was read again and without a branch: 0 if nothing speaks
/// against opening.
#[inline(never)]
fn doubt(header: &Header<'_>, grant: &Grant<'_>, id: &ModelId, reader: &Conditions<'_>) -> Result<u8, Error> {
    let terms = grant.terms_again()?;
    let subject = &header.manifest().subject;
    let mut doubt = difference(id.as_bytes(), terms.model.as_bytes())
        | difference(subject.line.as_bytes(), reader.line.as_bytes())
        | (u8::from(terms.suite) ^ u8::from(subject.suite))
        | difference(terms.device.as_str().as_bytes(), reader.device.as_str().as_bytes())
        | below(subject.version, terms.floor)
        | below(subject.version, reader.floor);
    if let Some(Validity { not_before, not_after }) = terms.validity {
        // Without a clock, it is both too early and too late.
        doubt |=
            below(reader.now.unwrap_or(0), not_before) | !below(reader.now.unwrap_or(u64::MAX), not_after);
    }
    Ok(doubt)
}

/// Step 6 is done: the content key that the genuine manifest commits to. It is what grants are made from,
/// and what opens the payload. Nothing is known of the payload yet.
pub struct Unwrapped<'a> {
    pub(crate) header: Header<'a>,
    content: ContentKey,
    pub(crate) keys: PayloadKeys,
    pub(crate) confirmation: Confirmation,
}

impl<'a> Unwrapped<'a> {
    /// (7, "A vault") For a vault, which has verified the publisher's signature instead of steps 2 to 4 and
    /// unwrapped `content` with a master key.
    pub fn by_vault(header: Verified<Header<'a>>, content: &[u8; KEY_LEN]) -> Result<Self, Error> {
        let content = ContentKey::from_bytes(content);
        let header = header.into_inner();
        let version = header.manifest().subject.version;
        Self::new(header, content, Confirmation { floor: None, version })
    }

    /// Step 6: derive (3.1) and compare the commitment with the manifest's.
    fn new(header: Header<'a>, content: ContentKey, confirmation: Confirmation) -> Result<Self, Error> {
        let mut keys = content.derive(header.subject_bytes()?)?;
        let expected = &header.manifest().commitment;
        if !equal(&keys.commitment, expected) {
            return Err(Error::Commitment);
        }
        // Where that was skipped, another key opens no chunk.
        keys.mix(difference(&keys.commitment, expected));
        Ok(Self { header, content, keys, confirmation })
    }

    /// The genuine header.
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The content key, for a vault to wrap again.
    pub fn content_key(&self) -> &ContentKey {
        &self.content
    }

    /// Steps 7 and 8: decrypts `memory`, which holds the payload and nothing else, where it lies. `tag(i)`
    /// reads the tag of chunk i from the index. On any failure `memory` is wiped.
    pub fn open_in_place<'m>(
        self,
        memory: &'m mut [u8],
        tag: impl FnMut(u64) -> Result<[u8; TAG_LEN], Error>,
    ) -> Result<Opened<'m>, Error> {
        self.open_in_place_with::<Portable>(memory, tag)
    }

    /// The same with another back end.
    pub fn open_in_place_with<'m, C: ChunkCipher>(
        self,
        memory: &'m mut [u8],
        tag: impl FnMut(u64) -> Result<[u8; TAG_LEN], Error>,
    ) -> Result<Opened<'m>, Error> {
        let mut root = [0; 32];
        let decrypted = self.decrypt::<C>(memory, tag, &mut root);
        // The root a second time: what the first comparison came to is one flag. And what this came to stays what it is,
        // where the compiler would take it for PROOF once it has been compared.
        let proof = PROOF ^ u32::from(difference(&root, &self.header.manifest().root));
        match decrypted {
            Ok(()) if black_box(proof) == PROOF => {
                Ok(Opened { model: memory, proof, confirmation: self.confirmation })
            }
            decrypted => {
                memory.zeroize();
                Err(decrypted.err().unwrap_or(Error::Root))
            }
        }
    }

    /// Steps 7 and 8 (3.2, 4.4), without the wiping. In a frame of its own, for the hasher in it takes 2 KB.
    #[inline(never)]
    fn decrypt<C: ChunkCipher>(
        &self,
        memory: &mut [u8],
        mut tag: impl FnMut(u64) -> Result<[u8; TAG_LEN], Error>,
        root: &mut [u8; 32],
    ) -> Result<(), Error> {
        let layout = self.header.layout();
        let manifest = self.header.manifest();
        if usize::try_from(layout.length) != Ok(memory.len()) {
            return Err(Error::Memory);
        }
        let cipher = C::new(manifest.subject.suite, &self.keys.key)?;
        // One hasher over all of the ciphertext: no chaining values are needed to reach the root.
        let mut hasher = blake3::Hasher::new();
        for (i, chunk) in (0u64..).zip(memory.chunks_mut(layout.chunk_size as usize)) {
            hasher.update(chunk);
            cipher.open(&self.keys.nonce(i), &[], chunk, &tag(i)?)?;
        }
        *root = *hasher.finalize().as_bytes();
        // A device that holds the content key can make any tag. It can't make another root.
        if equal(root, &manifest.root) { Ok(()) } else { Err(Error::Root) }
    }
}

/// What [`Opened`] holds if the root was the right one; 16 of its bits are set.
const PROOF: u32 = 0x5ac3_965a;

/// Step 8 is done: every byte is authentic, in order and complete.
///
/// A glitch that takes a refusal for one of these has no proof to show: it gets an empty model, and confirms nothing.
pub struct Opened<'m> {
    model: &'m mut [u8],
    proof: u32,
    confirmation: Confirmation,
}

impl<'m> Opened<'m> {
    /// The model.
    pub fn model(&self) -> &[u8] {
        if black_box(self.proof) == PROOF { self.model } else { &[] }
    }

    /// Step 9, when the application has seen the model run: raises the stored floor and leaves the model. If
    /// the floor can't be stored, the model is wiped.
    pub fn confirm(self, store: &mut impl FloorStore) -> Result<&'m mut [u8], Error> {
        let model = proven(self.model, self.proof).ok_or(Error::Root)?;
        match self.confirmation.confirm(store) {
            Ok(()) => Ok(model),
            Err(error) => {
                model.zeroize();
                Err(error)
            }
        }
    }

    /// Leaves the model without confirming it: the stored floor stays, so an older version may open again.
    pub fn unconfirmed(self) -> &'m mut [u8] {
        proven(self.model, self.proof).unwrap_or_default()
    }
}

fn proven(model: &mut [u8], proof: u32) -> Option<&mut [u8]> {
    (black_box(proof) == PROOF).then_some(model)
}

/// The floor that the checked grant set, if a grant it was, and the version that was opened by it.
pub struct Confirmation {
    floor: Option<u64>,
    version: u64,
}

impl Confirmation {
    /// Of the same grant: confirming twice stores what confirming once does.
    pub(crate) fn again(&self) -> Self {
        Self { floor: self.floor, version: self.version }
    }

    /// (7, step 9) Stores `max(stored floor, floor)`. A vault's opening has no floor and stores nothing.
    ///
    /// A newer version may have been confirmed since this one was opened. Then the stored floor is above this version,
    /// and it is [`Error::RolledBack`].
    pub fn confirm(self, store: &mut impl FloorStore) -> Result<(), Error> {
        let Some(floor) = self.floor else { return Ok(()) };
        let stored = store.floor()?;
        if self.version < stored {
            return Err(Error::RolledBack);
        }
        if floor > stored { store.raise(floor) } else { Ok(()) }
    }
}

/// Where the floor of one line is kept.
pub trait FloorStore {
    /// The stored floor. One that is missing or corrupt is [`Error::Floor`], never 0.
    fn floor(&mut self) -> Result<u64, Error>;

    /// Stores a higher floor. After a cut of power at any instant the old or the new one is there.
    fn raise(&mut self, floor: u64) -> Result<(), Error>;
}

/// Compared without a branch on a byte: the commitment depends on the content key. Only the verdict is branched on,
/// and it is public.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    difference(a, b) == 0
}

/// 0 if two slices are the same; else bits in which they differ, all in one byte. The compiler can't see that a second
/// call with the same slices gives the same, and leave it out.
#[inline(never)]
fn difference(a: &[u8], b: &[u8]) -> u8 {
    let lengths = u8::from(a.len() != b.len());
    black_box(a.iter().zip(b).fold(lengths, |bits, (a, b)| bits | (a ^ b)))
}

/// All bits if `a < b`, none otherwise: what is borrowed in the subtraction.
#[inline(never)]
fn below(a: u64, b: u64) -> u8 {
    0u8.wrapping_sub(black_box(a).overflowing_sub(b).1.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_add_up() {
        let same = [7u8; 32];
        assert!(equal(&same, &same) && equal(&[], &[]));
        for (a, b) in [(0, 31), (3, 4)] {
            let mut other = same;
            (other[a], other[b]) = (other[a] ^ 0x40, other[b] ^ 0x40);
            assert!(!equal(&same, &other), "two bytes differ in the same bit");
        }
        // In one bit, in each, and in length alone.
        for bit in 0..256 {
            let mut other = same;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!equal(&same, &other));
        }
        assert!(!equal(&[1; 9], &[1; 9 + 256]));
        assert!(!equal(&same, &same[..31]) && !equal(&same[..31], &same) && !equal(&same, &[]));
    }

    #[test]
    fn a_borrow_is_all_bits() {
        let numbers = [0, 1, 2, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX - 1, u64::MAX];
        for a in numbers {
            for b in numbers {
                assert_eq!(below(a, b), if a < b { 0xff } else { 0 }, "{a} {b}");
            }
        }
    }
}
