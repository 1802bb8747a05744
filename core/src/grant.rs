//! A grant: the content key wrapped for one device, with terms (FORMAT.md, section 6).
//!
//! ```text
//! magic 89 4D 53 47 52 54 1A 0A | version u16 | length u16 | terms | wrapping | signature?
//! ```
//!
//! The three parts are strict postcard, one after the other.

use heapless::Vec;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::chunk::{ChunkCipher, Portable};
use crate::error::Error;
use crate::keys::{ContentKey, DeviceKey, GRANTS, TAG_LEN, X25519Secret};
use crate::manifest::{Suite, is_spelt};
use crate::open::Unwrapped;
use crate::sealed::{FORMAT_VERSION, ModelId};
use crate::sign::{ANY_ALGORITHM, Publisher, SIGNATURE_LEN, Signature, Verified};
use crate::strict::Reader;
#[cfg(feature = "x25519")]
use crate::x25519;

/// First bytes of a grant.
pub const GRANT_MAGIC: [u8; 8] = *b"\x89MSGRT\x1a\n";
/// Longest grant in bytes.
pub const GRANT_MAX: usize = 2048;
/// Length of the prefix in bytes.
pub const GRANT_PREFIX_LEN: usize = 12;
/// Most siblings on the path from a grant to the signed root.
pub const SIBLINGS_MAX: usize = 16;

/// Longest device id in bytes.
pub const DEVICE_ID_MAX: usize = 64;

/// The name of a device (2): 1 ..= 64 bytes of `[A-Za-z0-9._-]`, the first a letter or digit, so that no id reads as an
/// option, a hidden file or a folder above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId<'a>(&'a str);

impl<'a> DeviceId<'a> {
    /// Checks the bounds.
    #[inline(never)]
    pub fn new(id: &'a str) -> Result<Self, Error> {
        let begins = !matches!(id.as_bytes().first(), Some(b'.' | b'_' | b'-'));
        if begins && is_spelt(id, DEVICE_ID_MAX, true) { Ok(Self(id)) } else { Err(Error::DeviceId) }
    }

    /// The id.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

/// When a grant is good: `not_before <= now < not_after`, in seconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The second after the last.
    pub not_after: u64,
}

impl Validity {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { not_before: reader.number()?, not_after: reader.number()? })
    }
}

/// What a grant allows (6.2), field by field in the order of the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms<'a> {
    /// The manifest's suite.
    pub suite: Suite,
    /// The model that may be opened.
    pub model: ModelId,
    /// The device that may open the model.
    #[serde(borrow)]
    pub device: DeviceId<'a>,
    /// The lowest version of this line that may open once this grant is confirmed.
    pub floor: u64,
    /// Absent: always good.
    pub validity: Option<Validity>,
}

impl<'a> Terms<'a> {
    /// Terms for the model whose content key was unwrapped, with the version itself as floor.
    pub fn new(content: &Unwrapped<'_>, device: DeviceId<'a>) -> Self {
        let header = content.header();
        let subject = &header.manifest().subject;
        Self { suite: subject.suite, model: header.id(), device, floor: subject.version, validity: None }
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            suite: Suite::try_from(reader.byte()?).ok()?,
            model: ModelId::read(reader)?,
            device: DeviceId(reader.text()?),
            floor: reader.number()?,
            validity: if reader.is_some()? { Some(Validity::read(reader)?) } else { None },
        })
    }

    /// The bounds of 6.2.
    fn check(&self) -> Result<(), Error> {
        DeviceId::new(self.device.0)?;
        match self.validity {
            Some(validity) if validity.not_before >= validity.not_after => Err(Error::Validity),
            _ => Ok(()),
        }
    }
}

/// The wrapped content key (6.1). The AEAD is the suite's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrapping {
    /// For a device that shares a key with the vault (6.3).
    DeviceKey {
        /// Random.
        salt: [u8; 32],
        /// The content key, encrypted.
        ciphertext: [u8; 32],
        /// The AEAD tag.
        tag: [u8; TAG_LEN],
    },
    /// HPKE base mode with DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256 (6.4; RFC 9180).
    Hpke {
        /// The encapsulated key.
        encapsulated: [u8; 32],
        /// The content key, encrypted.
        ciphertext: [u8; 32],
        /// The AEAD tag.
        tag: [u8; TAG_LEN],
    },
}

/// [`Wrapping`], where it lies in a grant.
#[derive(Clone, Copy, Debug)]
struct Wrapped<'a> {
    hpke: bool,
    /// The salt, or the encapsulated key.
    first: &'a [u8; 32],
    ciphertext: &'a [u8; 32],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Wrapped<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        // Of two kinds, as of two options.
        let hpke = reader.is_some()?;
        Some(Self { hpke, first: reader.array()?, ciphertext: reader.array()?, tag: reader.array()? })
    }
}

/// The publisher's signature over the root of a tree in which this grant is a leaf (6.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSignature {
    /// Over `"modelseal/v1/grants\0" || root`.
    pub signature: Signature,
    /// From the leaf upward. None where the grant was signed alone: then the leaf is the root.
    pub siblings: Vec<[u8; 32], SIBLINGS_MAX>,
    /// Bit i: sibling i is on the left.
    pub sides: u16,
}

/// [`PathSignature`], where it lies in a grant.
#[derive(Clone, Copy, Debug)]
struct Path<'a> {
    signature: &'a [u8; SIGNATURE_LEN],
    siblings: &'a [[u8; 32]],
    sides: u16,
}

impl<'a> Path<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let signature = reader.array()?;
        let siblings = reader.length(SIBLINGS_MAX)?;
        let siblings = reader.arrays(siblings)?;
        let sides = u16::try_from(reader.number()?).ok()?;
        Some(Self { signature, siblings, sides })
    }

    /// From the leaf up to the root.
    fn root(&self, leaf: [u8; 32]) -> [u8; 32] {
        self.siblings.iter().enumerate().fold(leaf, |node, (i, sibling)| {
            let (left, right) = if self.sides >> i & 1 == 1 { (sibling, &node) } else { (&node, sibling) };
            grants_node(left, right)
        })
    }

    /// (6.5) Bits of `sides` beyond the number of siblings must be 0.
    fn has_stray_bits(&self) -> bool {
        u32::from(self.sides) >> self.siblings.len() != 0
    }
}

/// (6.5) `node = BLAKE3(0x01 || left || right)`, in a tree of grants.
#[inline(never)]
pub fn grants_node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new().update(&[1]).update(left).update(right).finalize().as_bytes()
}

/// (6.5) What the publisher signs for grants: `signed bytes = "modelseal/v1/grants\0" || root of the tree`
pub fn grants_message(root: &[u8; 32]) -> [u8; GRANTS.len() + 32] {
    let mut message = [0; GRANTS.len() + 32];
    let (label, rest) = message.split_at_mut(GRANTS.len());
    label.copy_from_slice(GRANTS);
    rest.copy_from_slice(root);
    message
}

/// A grant of the right shape. Holding one doesn't prove that it is genuine.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    terms: Terms<'a>,
    terms_bytes: &'a [u8],
    wrapping: Wrapped<'a>,
    wrapping_bytes: &'a [u8],
    path: Option<Path<'a>>,
}

impl<'a> Grant<'a> {
    /// Reads a whole grant, in the order of 6.1; nothing may follow.
    #[inline(never)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (prefix, body) = bytes.split_first_chunk().ok_or(Error::Truncated)?;
        let length = Self::body_len(prefix)?;
        match body.len() {
            n if n < length => return Err(Error::Truncated),
            n if n > length => return Err(Error::Extended),
            _ => {}
        }
        Suite::try_from(*body.first().ok_or(Error::Truncated)?)?;
        let grant = Self::read(body).ok_or(Error::GrantEncoding)?;
        grant.check()?;
        Ok(grant)
    }

    /// What the parts demand of each other, once each has been read.
    fn check(&self) -> Result<(), Error> {
        self.terms.check()?;
        match self.path {
            path if path.is_some() != self.wrapping.hpke => Err(Error::GrantForm),
            Some(path) if path.has_stray_bits() => Err(Error::GrantPath),
            _ => Ok(()),
        }
    }

    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let terms = Terms::read(&mut reader)?;
        let terms_bytes = reader.read_of(body)?;
        let rest = reader.rest();
        let wrapping = Wrapped::read(&mut reader)?;
        let wrapping_bytes = reader.read_of(rest)?;
        let path = if reader.is_some()? { Some(Path::read(&mut reader)?) } else { None };
        reader.rest().is_empty().then_some(Self { terms, terms_bytes, wrapping, wrapping_bytes, path })
    }

    /// Reads the prefix (6.1) and gives the length of what follows, for readers that fetch one after the
    /// other.
    pub fn body_len(prefix: &[u8; GRANT_PREFIX_LEN]) -> Result<usize, Error> {
        let [magic @ .., v0, v1, l0, l1] = *prefix;
        if magic != GRANT_MAGIC {
            return Err(Error::ForeignMagic);
        }
        if u16::from_le_bytes([v0, v1]) != FORMAT_VERSION {
            return Err(Error::UnknownVersion);
        }
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if (1..=GRANT_MAX - GRANT_PREFIX_LEN).contains(&length) {
            Ok(length)
        } else {
            Err(Error::GrantLength)
        }
    }

    /// The terms.
    pub fn terms(&self) -> &Terms<'a> {
        &self.terms
    }

    /// The terms, read from their bytes once more.
    pub(crate) fn terms_again(&self) -> Result<Terms<'a>, Error> {
        Terms::read(&mut Reader::new(self.terms_bytes)).ok_or(Error::GrantEncoding)
    }

    /// The wrapping.
    pub fn wrapping(&self) -> Wrapping {
        let Wrapped { hpke, first, ciphertext, tag } = self.wrapping;
        if hpke {
            Wrapping::Hpke { encapsulated: *first, ciphertext: *ciphertext, tag: *tag }
        } else {
            Wrapping::DeviceKey { salt: *first, ciphertext: *ciphertext, tag: *tag }
        }
    }

    /// Whether it is wrapped for a private key, and not for a device key.
    pub fn is_hpke(&self) -> bool {
        self.wrapping.hpke
    }

    /// The signature, which only a grant wrapped with HPKE has.
    pub fn signature(&self) -> Option<PathSignature> {
        self.path.map(|path| PathSignature {
            signature: Signature::from_bytes(path.signature),
            // `collect` can't overflow: no grant with more siblings is read.
            siblings: path.siblings.iter().copied().collect(),
            sides: path.sides,
        })
    }

    /// Checks the publisher's signature (6.5).
    pub fn verify(&self, publisher: &Publisher) -> Result<Verified<&Self>, Error> {
        let path = self.path.filter(|_| ANY_ALGORITHM).ok_or(Error::GrantSignature)?;
        let root = path.root(leaf(self.terms_bytes, self.wrapping_bytes));
        let signature = Signature::from_bytes(path.signature);
        publisher.verify(self, &[GRANTS, &root], &signature).ok_or(Error::GrantSignature)
    }

    /// (6.3) Unwraps with a device key, which authenticates the grant: the key is derived from the terms,
    /// and from `model`, the id that the reader **computed**.
    ///
    /// `ciphertext, tag = AEAD(grant key, nonce, aad = empty, content key)`
    pub(crate) fn unwrap_with_device_key(
        &self,
        key: &DeviceKey,
        model: &ModelId,
    ) -> Result<ContentKey, Error> {
        let Wrapped { hpke: false, first: salt, ciphertext, tag } = self.wrapping else {
            return Err(Error::GrantKey);
        };
        let key = key.grant_key(salt, self.terms_bytes, model)?;
        let mut content = ContentKey::from_bytes(ciphertext);
        let cipher = Portable::new(self.terms.suite, &key.key)?;
        cipher.open(&key.nonce, &[], content.in_place(), tag).map_err(|_| Error::GrantKey)?;
        Ok(content)
    }

    /// (6.4) Unwraps with a private key: `info` has the computed id, `aad` is the terms as received.
    #[cfg(feature = "x25519")]
    pub(crate) fn unwrap_with_x25519(
        &self,
        key: &X25519Secret,
        model: &ModelId,
    ) -> Result<ContentKey, Error> {
        let Wrapped { hpke: true, first: encapsulated, ciphertext, tag } = self.wrapping else {
            return Err(Error::GrantKey);
        };
        let (suite, aad) = (self.terms.suite, self.terms_bytes);
        let mut content = ContentKey::from_bytes(ciphertext);
        let opened = x25519::open(suite, key, encapsulated, model, aad, content.in_place(), tag);
        opened.map_err(|_| Error::GrantKey)?;
        Ok(content)
    }

    #[cfg(not(feature = "x25519"))]
    pub(crate) fn unwrap_with_x25519(&self, _: &X25519Secret, _: &ModelId) -> Result<ContentKey, Error> {
        Err(Error::GrantKey)
    }
}

/// (6.5) `leaf = BLAKE3(0x00 || terms || wrapping)`
#[inline(never)]
fn leaf(terms: &[u8], wrapping: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&[0]).update(terms).update(wrapping).finalize().as_bytes()
}

/// An encoded grant.
pub type GrantBytes = Vec<u8, GRANT_MAX>;

/// Wraps the content key for a device that shares `key` with the vault (6.3). The grant is complete.
pub fn wrap_for_device_key(
    content: &Unwrapped<'_>,
    terms: &Terms<'_>,
    key: &DeviceKey,
    rng: &mut impl CryptoRng,
) -> Result<GrantBytes, Error> {
    let mut buffer = [0; TERMS_MAX];
    let terms_bytes = encode_terms(content, terms, &mut buffer)?;
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let key = key.grant_key(&salt, terms_bytes, &content.header().id())?;
    let mut ciphertext = Zeroizing::new(*content.content_key().expose_to_vault());
    let tag = Portable::new(terms.suite, &key.key)?.seal(&key.nonce, &[], ciphertext.as_mut())?;
    let wrapping = Wrapping::DeviceKey { salt, ciphertext: *ciphertext, tag };
    encode(terms_bytes, &encode_wrapping(&wrapping)?, None)
}

/// A grant wrapped with HPKE that the publisher hasn't signed yet.
#[cfg(feature = "x25519")]
pub struct UnsignedGrant {
    terms: Vec<u8, TERMS_MAX>,
    wrapping: Vec<u8, WRAPPING_MAX>,
}

/// Wraps the content key for the holder of an X25519 private key (6.4). A key of small order is refused.
#[cfg(feature = "x25519")]
pub fn wrap_for_x25519(
    content: &Unwrapped<'_>,
    terms: &Terms<'_>,
    public: &[u8; 32],
    rng: &mut impl CryptoRng,
) -> Result<UnsignedGrant, Error> {
    let mut buffer = [0; TERMS_MAX];
    let terms_bytes = encode_terms(content, terms, &mut buffer)?;
    let mut ciphertext = Zeroizing::new(*content.content_key().expose_to_vault());
    let model = content.header().id();
    let (encapsulated, tag) = x25519::seal(terms.suite, public, &model, terms_bytes, &mut ciphertext, rng)?;
    let wrapping = Wrapping::Hpke { encapsulated, ciphertext: *ciphertext, tag };
    Ok(UnsignedGrant {
        terms: Vec::from_slice(terms_bytes).map_err(|_| Error::GrantLength)?,
        wrapping: encode_wrapping(&wrapping)?,
    })
}

/// Refuses public keys that no grant could be wrapped for (6.4): those of small order parse, and fail on use. And refuses
/// a second encoding of a key, which would be taken for another device's.
#[cfg(feature = "x25519")]
pub fn check_x25519(public: &[u8; 32], rng: &mut impl CryptoRng) -> Result<(), Error> {
    if !x25519::is_canonical(public) {
        return Err(Error::Key);
    }
    x25519::try_encapsulate(public, rng)
}

#[cfg(feature = "x25519")]
impl UnsignedGrant {
    /// This grant's leaf in a tree of grants (6.5); the root, if it is signed alone.
    pub fn leaf(&self) -> [u8; 32] {
        leaf(&self.terms, &self.wrapping)
    }

    /// Completes the grant.
    pub fn sign(&self, signature: &PathSignature) -> Result<GrantBytes, Error> {
        encode(&self.terms, &self.wrapping, Some(signature))
    }
}

const TERMS_MAX: usize = 1 + 32 + (1 + DEVICE_ID_MAX) + 10 + (1 + 10 + 10);
const WRAPPING_MAX: usize = 1 + 32 + 32 + TAG_LEN;
const PATH_MAX: usize = 1 + 64 + 1 + 32 * SIBLINGS_MAX + 3;
const _: () = assert!(GRANT_PREFIX_LEN + TERMS_MAX + WRAPPING_MAX + PATH_MAX <= GRANT_MAX);

/// Encodes terms that fit the model in hand (6.2); no other can be granted.
fn encode_terms<'b>(
    content: &Unwrapped<'_>,
    terms: &Terms<'_>,
    buffer: &'b mut [u8; TERMS_MAX],
) -> Result<&'b [u8], Error> {
    terms.check()?;
    let header = content.header();
    if terms.model != header.id() {
        return Err(Error::OtherModel);
    }
    if terms.suite != header.manifest().subject.suite {
        return Err(Error::OtherSuite);
    }
    if terms.floor > header.manifest().subject.version {
        return Err(Error::FloorAboveVersion);
    }
    postcard::to_slice(terms, buffer).map(|bytes| &*bytes).map_err(|_| Error::GrantLength)
}

fn encode_wrapping(wrapping: &Wrapping) -> Result<Vec<u8, WRAPPING_MAX>, Error> {
    let mut buffer = [0; WRAPPING_MAX];
    let bytes = postcard::to_slice(wrapping, &mut buffer).map_err(|_| Error::GrantLength)?;
    Vec::from_slice(bytes).map_err(|_| Error::GrantLength)
}

/// (6.1) `prefix || terms || wrapping || path signature`
fn encode(terms: &[u8], wrapping: &[u8], signature: Option<&PathSignature>) -> Result<GrantBytes, Error> {
    let mut buffer = [0; PATH_MAX];
    let signature = postcard::to_slice(&signature, &mut buffer).map_err(|_| Error::GrantLength)?;
    let length = u16::try_from(terms.len() + wrapping.len() + signature.len());
    let length = length.map_err(|_| Error::GrantLength)?.to_le_bytes();
    let mut bytes = Vec::new();
    for part in [&GRANT_MAGIC[..], &FORMAT_VERSION.to_le_bytes(), &length, terms, wrapping, signature] {
        bytes.extend_from_slice(part).map_err(|_| Error::GrantLength)?;
    }
    Ok(bytes)
}
