//! Reads strict postcard, value by value (FORMAT.md, section 2): what it takes is the canonical encoding and nothing
//! else.
//!
//! Postcard's own deserializer takes over-long numbers, too, so that it would have to encode again and compare. On a
//! device that was a quarter of the code and half of the stack.

/// What follows the values that were read.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What hasn't been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// What has been read of `bytes`, which this reader began with.
    pub(crate) fn read_of(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(..bytes.len().checked_sub(self.0.len())?)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// An array of bytes has no length in front.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    /// `count` arrays in a row.
    pub(crate) fn arrays<const N: usize>(&mut self, count: usize) -> Option<&'a [[u8; N]]> {
        let (arrays, rest) = self.0.split_at_checked(count.checked_mul(N)?)?;
        self.0 = rest;
        Some(arrays.as_chunks().0)
    }

    /// An unsigned number: seven bits a byte, the lowest first, and no more bytes than it needs.
    #[inline(never)]
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit, and a last byte of zero wasn't needed.
                let fits = shift < 63 || byte == 1;
                return (fits && (byte != 0 || shift == 0)).then_some(number);
            }
        }
        None
    }

    /// A length of at most `max`.
    pub(crate) fn length(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|length| *length <= max)
    }

    /// Its length, then UTF-8.
    #[inline(never)]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.length(usize::MAX)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        core::str::from_utf8(text).ok()
    }

    /// Whether an optional value follows.
    pub(crate) fn is_some(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::grant::{Grant, PathSignature, Terms, Wrapping};
    use crate::manifest::{Claim, Manifest, Subject, Suite};

    #[test]
    fn numbers_have_one_encoding() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            reader.number().filter(|_| reader.rest().is_empty())
        };
        for number in (0..=64).flat_map(|bits| [(1u128 << bits) - 1, 1 << bits]) {
            let Ok(number) = u64::try_from(number) else { continue };
            let mut buffer = [0; 10];
            let bytes = &*postcard::to_slice(&number, &mut buffer).unwrap();
            assert_eq!(read(bytes), Some(number));
            // One byte more than it needs, and cut short.
            let (last, front) = bytes.split_last().unwrap();
            assert_eq!(read(&[front, &[last | 0x80, 0]].concat()), None, "{number}");
            assert_eq!(read(front), None, "{number}");
        }
        // 2^64, and eleven bytes.
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]), None);
        assert_eq!(read(&[0xff; 11]), None);
    }

    /// Whatever is done to an encoding, the readers take what postcard takes and encodes again to the same bytes.
    #[test]
    fn what_is_read_is_what_postcard_reads() {
        let manifest = encoded(&manifest());
        each_change(&manifest, |bytes| {
            assert_eq!(Manifest::read(bytes), canonical::<Manifest<'_>>(bytes), "{bytes:02x?}");
        });
        for grant in grants() {
            each_change(&grant, |bytes| {
                let read = Grant::read(bytes).map(|g| (g.terms().clone(), g.wrapping(), g.signature()));
                assert_eq!(read, canonical(bytes), "{bytes:02x?}");
            });
        }
    }

    type Parts<'a> = (Terms<'a>, Wrapping, Option<PathSignature>);

    fn canonical<'a, T: Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
        (rest.is_empty() && encoded(&value) == bytes).then_some(value)
    }

    fn encoded(value: &impl Serialize) -> Vec<u8> {
        postcard::to_slice(value, &mut [0; 2048]).unwrap().to_vec()
    }

    /// Each byte replaced by any other, taken out, and doubled; and each end cut off.
    fn each_change(bytes: &[u8], check: impl Fn(&[u8])) {
        check(bytes);
        // Miri is slow.
        let step = if cfg!(miri) { 17 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            for byte in (0..=u8::MAX).step_by(step) {
                check(&[&bytes[..at], &[byte], &bytes[at + 1..]].concat());
            }
            check(&[&bytes[..at], &bytes[at + 1..]].concat());
            check(&[&bytes[..=at], &bytes[at..]].concat());
            check(&bytes[..at]);
        }
    }

    fn manifest() -> Manifest<'static> {
        let claims =
            [Claim { key: "chip", value: "Cortex-M4 \u{e4}\u{20ac}" }, Claim { key: "licence", value: "" }];
        let subject = Subject {
            suite: Suite::try_from(if cfg!(feature = "aes-gcm") { 1 } else { 2 }).unwrap(),
            chunk_log2: 12,
            align_log2: 4,
            line: "wake-word",
            version: u64::MAX,
            kind: "tflite",
            length: 1 << 48,
            created: 300,
            claims: claims.into_iter().collect(),
        };
        Manifest { subject, commitment: [1; 32], root: [0x80; 32] }
    }

    fn grants() -> [Vec<u8>; 2] {
        let suite = u8::from(manifest().subject.suite);
        let front =
            |validity: &[u8]| [&[suite][..], &[9; 32], b"\x08kitchen7", &[0x80, 1], validity].concat();
        let (salt, content, tag) = ([2; 32], [3; 32], [4; 16]);
        let device_key = encoded(&Wrapping::DeviceKey { salt, ciphertext: content, tag });
        let hpke = encoded(&Wrapping::Hpke { encapsulated: salt, ciphertext: content, tag });
        let signature = [&[1][..], &[5; 64], &[2], &[6; 64], &[0xff, 0xff, 3]].concat();
        let grants = [
            [front(&[0]), device_key, vec![0]].concat(),
            [front(&[1, 5, 0x85, 1]), hpke, signature].concat(),
        ];
        grants.iter().for_each(|grant| assert!(canonical::<Parts<'_>>(grant).is_some()));
        grants
    }
}
