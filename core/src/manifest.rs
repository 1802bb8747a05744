//! What is sealed: the subject, known before sealing, then what sealing adds (FORMAT.md, section 4.2).
//!
//! ```text
//! manifest = subject || commitment[32] || root[32]                       all of it postcard, strict
//! subject  = suite u8 | chunk log2 u8 | alignment log2 u8 | line | version | kind | length | created | claims
//! ```

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::strict::Reader;
use crate::text::is_invisible;

/// Longest encoded manifest in bytes.
pub const MANIFEST_MAX: usize = 1024;
/// Longest model in bytes.
pub const LENGTH_MAX: u64 = 1 << 48;
/// Most claims of one manifest.
pub const CLAIMS_MAX: usize = 8;
const COMMITMENT_AND_ROOT: usize = 64;

/// The AEAD of a sealed model and its grants. Nothing else varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM (SP 800-38D).
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 2,
}

impl From<Suite> for u8 {
    fn from(suite: Suite) -> u8 {
        suite as u8
    }
}

impl TryFrom<u8> for Suite {
    type Error = Error;

    /// Only a suite that this reader was built for (2).
    fn try_from(id: u8) -> Result<Self, Error> {
        match id {
            1 if cfg!(feature = "aes-gcm") => Ok(Self::Aes256Gcm),
            2 if cfg!(feature = "chacha20-poly1305") => Ok(Self::ChaCha20Poly1305),
            _ => Err(Error::UnknownSuite),
        }
    }
}

/// One thing that the publisher says about the model: licence, target chip, digest of the data set …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim<'a> {
    /// 1 ..= 32 bytes of `[a-z0-9._-]`.
    pub key: &'a str,
    /// At most 128 bytes of UTF-8 without [control characters or format controls](crate::text::is_invisible).
    pub value: &'a str,
}

/// The claims of one manifest.
pub type Claims<'a> = Vec<Claim<'a>, CLAIMS_MAX>;

/// What is known of a model before it is sealed. Field by field in the order of the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject<'a> {
    /// The AEAD.
    pub suite: Suite,
    /// Chunk size, as a power of two: 10 ..= 20.
    pub chunk_log2: u8,
    /// Alignment of the payload in the file, as a power of two: 4 ..= 16.
    pub align_log2: u8,
    /// The name that successive versions share: 1 ..= 64 bytes of `[a-z0-9._-]`.
    pub line: &'a str,
    /// Grows with each release; a version is released once.
    pub version: u64,
    /// What the model is, such as "onnx": 1 ..= 16 bytes of `[a-z0-9._-]`.
    pub kind: &'a str,
    /// Length of the model in bytes: 1 ..= 2^48.
    pub length: u64,
    /// When it was sealed, in seconds since 1970-01-01 UTC.
    pub created: u64,
    /// At most 8, with strictly ascending keys.
    #[serde(borrow)]
    pub claims: Claims<'a>,
}

impl<'a> Subject<'a> {
    /// Checks every bound, in the order of the table of 4.2.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            _ if !(10..=20).contains(&self.chunk_log2) => Err(Error::ChunkSize),
            _ if !(4..=16).contains(&self.align_log2) => Err(Error::Alignment),
            _ if !is_line(self.line) => Err(Error::Line),
            _ if !is_name(self.kind, 16) => Err(Error::Kind),
            _ if !(1..=LENGTH_MAX).contains(&self.length) => Err(Error::Length),
            _ if !claims_hold(&self.claims) => Err(Error::Claims),
            _ => Ok(()),
        }
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            suite: Suite::try_from(reader.byte()?).ok()?,
            chunk_log2: reader.byte()?,
            align_log2: reader.byte()?,
            line: reader.text()?,
            version: reader.number()?,
            kind: reader.text()?,
            length: reader.number()?,
            created: reader.number()?,
            claims: read_claims(reader)?,
        })
    }

    /// Length of the manifest that this subject makes, in bytes. Sealing refuses more than
    /// [`MANIFEST_MAX`].
    pub fn manifest_len(&self) -> usize {
        postcard::experimental::serialized_size(self)
            .map_or(usize::MAX, |n| n.saturating_add(COMMITMENT_AND_ROOT))
    }
}

/// A manifest of the right shape. Holding one doesn't prove that it is genuine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// What was known before sealing.
    #[serde(borrow)]
    pub subject: Subject<'a>,
    /// Commits to the content key.
    pub commitment: [u8; 32],
    /// BLAKE3 of the payload's ciphertext.
    pub root: [u8; 32],
}

impl<'a> Manifest<'a> {
    /// Decodes exactly `bytes`, which must be the canonical encoding, and checks every bound, in the order
    /// of 4.2.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if !(1..=MANIFEST_MAX).contains(&bytes.len()) {
            return Err(Error::ManifestLength);
        }
        Suite::try_from(*bytes.first().ok_or(Error::Truncated)?)?;
        let manifest = Self::read(bytes).ok_or(Error::ManifestEncoding)?;
        manifest.subject.check()?;
        Ok(manifest)
    }

    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let subject = Subject::read(&mut reader)?;
        let (commitment, root) = (*reader.array()?, *reader.array()?);
        reader.rest().is_empty().then_some(Self { subject, commitment, root })
    }

    /// Encodes, and refuses what [`parse`](Self::parse) would.
    pub(crate) fn encode<'b>(&self, buffer: &'b mut [u8; MANIFEST_MAX]) -> Result<&'b [u8], Error> {
        self.subject.check()?;
        match postcard::to_slice(self, buffer) {
            Ok(bytes) => Ok(bytes),
            Err(_) => Err(Error::ManifestLength),
        }
    }
}

/// The encoded subject within an encoded manifest (4.2): all but commitment and root, the last 64 bytes.
pub(crate) fn subject_bytes(manifest: &[u8]) -> Result<&[u8], Error> {
    let end = manifest.len().checked_sub(COMMITMENT_AND_ROOT).ok_or(Error::Truncated)?;
    manifest.get(..end).ok_or(Error::Truncated)
}

/// Whether a line may have this name (4.2).
pub fn is_line(name: &str) -> bool {
    is_name(name, 64)
}

/// A name (2): `[a-z0-9._-]`, 1 ..= `max` bytes.
fn is_name(name: &str, max: usize) -> bool {
    is_spelt(name, max, false)
}

/// A name, in which there may be capitals. One function for all names, for a device's flash.
#[inline(never)]
pub(crate) fn is_spelt(name: &str, max: usize, capitals: bool) -> bool {
    (1..=max).contains(&name.len())
        && name.bytes().all(|b| {
            let b = if capitals { b.to_ascii_lowercase() } else { b };
            matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
        })
}

fn read_claims<'a>(reader: &mut Reader<'a>) -> Option<Claims<'a>> {
    let mut claims = Claims::new();
    for _ in 0..reader.length(CLAIMS_MAX)? {
        claims.push(Claim { key: reader.text()?, value: reader.text()? }).ok()?;
    }
    Some(claims)
}

/// (4.2) Keys are names and strictly ascending, values at most 128 bytes of what is seen.
fn claims_hold(claims: &[Claim<'_>]) -> bool {
    let mut before = "";
    claims.iter().all(|claim| {
        let ascends = core::mem::replace(&mut before, claim.key).bytes().lt(claim.key.bytes());
        let holds = is_name(claim.key, 32) && claim.value.len() <= 128;
        ascends && holds && !claim.value.chars().any(is_invisible)
    })
}
