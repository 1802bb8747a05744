//! Which bytes are a manifest, an envelope, a sealed model, a grant: what FORMAT.md says, over again and not in
//! the way in which `modelseal-core` checks it. Only the decoding of postcard is the same.

use modelseal_core::grant::{PathSignature, Terms, Wrapping};
use modelseal_core::manifest::{Manifest, Subject};
use modelseal_core::text::is_invisible;

use crate::forge::{self, Parts};

/// Section 4.2, but for the length of the encoding.
pub fn manifest(bytes: &[u8]) -> Option<Manifest<'_>> {
    let (manifest, rest) = postcard::take_from_bytes::<Manifest<'_>>(bytes).ok()?;
    let canonical = rest.is_empty() && postcard::to_allocvec(&manifest).ok()? == bytes;
    (canonical && subject_holds(&manifest.subject)).then_some(manifest)
}

fn subject_holds(subject: &Subject<'_>) -> bool {
    let names = [(subject.line, 64), (subject.kind, 16)];
    let names = names.into_iter().chain(subject.claims.iter().map(|claim| (claim.key, 32)));
    let keys: Vec<&str> = subject.claims.iter().map(|claim| claim.key).collect();
    (10..=20).contains(&subject.chunk_log2)
        && (4..=16).contains(&subject.align_log2)
        && names.into_iter().all(|(name, max)| is_name(name, max, "abcdefghijklmnopqrstuvwxyz"))
        && subject.length != 0
        && subject.length <= 1 << 48
        && keys.len() <= 8
        && keys.windows(2).all(|pair| pair[0] < pair[1])
        && subject.claims.iter().all(|claim| claim.value.len() <= 128 && !claim.value.contains(is_invisible))
}

fn is_name(name: &str, max: usize, letters: &str) -> bool {
    !name.is_empty()
        && name.len() <= max
        && name.chars().all(|c| letters.contains(c) || "0123456789._-".contains(c))
}

/// Section 4.3: the envelope as it is written again, with zeros in empty slots.
pub fn envelope(bytes: &[u8]) -> Option<Vec<u8>> {
    let slots = bytes.len().checked_sub(64)?;
    if !slots.is_multiple_of(128) || !(1..=16).contains(&(slots / 128)) {
        return None;
    }
    let mut written = bytes.to_vec();
    written[64..].chunks_mut(128).filter(|slot| slot[..4] == [0; 4]).for_each(|slot| slot.fill(0));
    Some(written)
}

/// Section 4.3: the first three of its rules.
pub fn holds_a_key(slot: &[u8]) -> bool {
    let filler = 8 + usize::from(slot[5]);
    slot[..4] != [0; 4]
        && slot[4] == 1
        && (60..=64).contains(&slot[5])
        && slot[6..8] == [0; 2]
        && slot[filler..].iter().all(|byte| *byte == 0)
}

/// Section 4.1: where the parts of a header's sealed model are, whatever else the bytes hold.
pub fn layout(bytes: &[u8]) -> Option<(Parts, Manifest<'_>)> {
    let prefix: &[u8; 16] = bytes.first_chunk()?;
    let manifest_len = usize::from(u16::from_le_bytes([prefix[10], prefix[11]]));
    let envelope_len = u32::from_le_bytes([prefix[12], prefix[13], prefix[14], prefix[15]]) as usize;
    let known = prefix.starts_with(b"\x89MSEAL\x1a\n\x01\0") && (1..=1024).contains(&manifest_len);
    if !known || !(192..=2112).contains(&envelope_len) || envelope_len % 128 != 64 {
        return None;
    }
    let envelope = 16 + manifest_len;
    let manifest = manifest(bytes.get(16..envelope)?)?;
    let subject = &manifest.subject;
    let index = envelope + envelope_len;
    let padding = index + 48 * usize::try_from(subject.length.div_ceil(1 << subject.chunk_log2)).ok()?;
    let payload = padding.next_multiple_of(1 << subject.align_log2);
    Some((Parts { envelope, index, padding, payload, chunk: 1 << subject.chunk_log2 }, manifest))
}

/// Section 4.1: a whole sealed model.
pub fn sealed(bytes: &[u8]) -> Option<(Parts, Manifest<'_>)> {
    let (parts, manifest) = layout(bytes)?;
    (parts.payload as u64 + manifest.subject.length == bytes.len() as u64).then_some((parts, manifest))
}

/// Section 4.4: padding, chaining values and root are those of the payload.
pub fn is_consistent(bytes: &[u8], parts: Parts, manifest: &Manifest<'_>) -> bool {
    let payload = &bytes[parts.payload..];
    let values = bytes[parts.index..parts.padding].chunks(48).map(|entry| &entry[16..]);
    bytes[parts.padding..parts.payload].iter().all(|byte| *byte == 0)
        && *blake3::hash(payload).as_bytes() == manifest.root
        && values.eq(forge::values(payload, parts.chunk).iter().map(|value| &value[..]))
}

/// The three parts of a grant.
pub type Grant<'a> = (Terms<'a>, Wrapping, Option<PathSignature>);

/// Section 6.1.
pub fn grant(bytes: &[u8]) -> Option<Grant<'_>> {
    let body = bytes.strip_prefix(b"\x89MSGRT\x1a\n\x01\0")?;
    let (length, body) = body.split_first_chunk()?;
    let (grant, rest) = postcard::take_from_bytes::<Grant<'_>>(body).ok()?;
    let canonical = rest.is_empty() && postcard::to_allocvec(&grant).ok()? == body;
    let fits = usize::from(u16::from_le_bytes(*length)) == body.len() && bytes.len() <= 2048;
    (fits && canonical && terms_hold(&grant.0) && path_holds(&grant)).then_some(grant)
}

fn terms_hold(terms: &Terms<'_>) -> bool {
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    is_name(terms.device.as_str(), 64, letters)
        && !terms.device.as_str().starts_with(['.', '_', '-'])
        && terms.validity.is_none_or(|validity| validity.not_before < validity.not_after)
}

fn path_holds((_, wrapping, path): &Grant<'_>) -> bool {
    match (wrapping, path) {
        (Wrapping::DeviceKey { .. }, None) => true,
        (Wrapping::Hpke { .. }, Some(path)) => {
            path.sides.checked_shr(path.siblings.len() as u32).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Section 6.5.
pub fn leaf((terms, wrapping, _): &Grant<'_>) -> [u8; 32] {
    *blake3::hash(&[&[0][..], &postcard::to_allocvec(&(terms, wrapping)).unwrap()].concat()).as_bytes()
}
