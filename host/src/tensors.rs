//! The tensors of a safetensors model: the names in its header, and where each lies.

use std::ops::Range;

use safetensors::tensor::Metadata;

use crate::error::{Code, Error, Result};
use crate::lazy::LazyModel;
use crate::memory::{Buffer, Memory, require_to_work};

/// Longest header that the format allows, in bytes.
const HEADER_MAX: u64 = 100_000_000;
/// The length of the header comes first.
const PREFIX: u64 = 8;
/// How much is read at once, in the hope that all of the header is there: a chunk that is read twice is opened twice.
const HOPED: u64 = 256 << 10;
/// How much of a long range is in memory at a time: some units of work for each of a few threads.
const PIECE: u64 = 8 << 20;

/// The header of a safetensors model.
#[derive(Clone, Debug)]
pub struct Tensors {
    metadata: Metadata,
    data: u64,
}

/// One tensor: what its bytes mean, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The type of an element, as the format writes it: `F32`, `BF16`, …
    pub dtype: String,
    /// The number of elements in each dimension.
    pub shape: Vec<usize>,
    /// The bytes of the model.
    pub bytes: Range<u64>,
}

impl Tensors {
    /// Reads the header of a model that is opened lazily, and no more of it.
    pub fn of(model: &LazyModel) -> Result<Self> {
        Self::read(model.len(), |offset, bytes| model.read_at(offset, bytes))
    }

    /// Reads the header of a model in memory.
    pub fn in_memory(model: &[u8]) -> Result<Self> {
        Self::read(model.len() as u64, |offset, bytes| {
            let start = usize::try_from(offset).ok();
            let part = start.and_then(|start| model.get(start..)?.get(..bytes.len()));
            bytes.copy_from_slice(part.ok_or_else(|| malformed("its header is cut"))?);
            Ok(())
        })
    }

    fn read(len: u64, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<Self> {
        let room = |len: u64| Buffer::new(usize::try_from(len).unwrap_or(usize::MAX));
        let mut start = room(len.min(HOPED))?;
        read(0, &mut start)?;
        let (prefix, hoped) =
            start.split_first_chunk().ok_or_else(|| malformed("it is shorter than a header's length"))?;
        let header_len = u64::from_le_bytes(*prefix);
        if header_len > (len - PREFIX).min(HEADER_MAX) {
            return Err(malformed(&format!("its header would have {header_len} bytes")));
        }
        let mut longer;
        let header = match usize::try_from(header_len).ok().and_then(|len| hoped.get(..len)) {
            Some(header) => header,
            None => {
                longer = room(header_len)?;
                read(PREFIX, &mut longer)?;
                &longer
            }
        };
        // Its tables of tensors take some times as much, and an allocation that fails there ends the process.
        require_to_work(header.len().saturating_mul(16))?;
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|error| malformed(&format!("its header: {error}")))?;
        let data = PREFIX + header_len;
        if data + metadata.data_len() as u64 != len {
            return Err(malformed("its tensors end elsewhere than the model"));
        }
        Ok(Self { metadata, data })
    }

    /// All names, in the order in which the tensors lie.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// What the model says of itself besides.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.metadata().iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let info = self.metadata.info(name).ok_or_else(|| {
            let hint = "`modelseal tensors` lists those that there are";
            Error::usage(format!("the model has no tensor {name:?}"), hint)
        })?;
        let (start, end) = info.data_offsets;
        Ok(Tensor {
            dtype: info.dtype.to_string(),
            shape: info.shape.clone(),
            bytes: self.data + start as u64..self.data + end as u64,
        })
    }
}

impl LazyModel {
    /// Reads one tensor, and no more of the model.
    pub fn tensor(&self, tensor: &Tensor) -> Result<Memory> {
        self.range(tensor.bytes.clone())
    }

    /// Reads a range of bytes into memory of its own.
    pub fn range(&self, bytes: Range<u64>) -> Result<Memory> {
        // Checked before memory is asked for.
        let mut memory = Memory::new(self.length_of(&bytes)?)?;
        self.read_at(bytes.start, &mut memory)?;
        Ok(memory)
    }

    /// Reads a range of any length into `out`, piece by piece, in order. Each piece was authentic.
    pub fn copy_range(&self, bytes: Range<u64>, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = Memory::new(self.length_of(&bytes)?.min(PIECE))?;
        let mut at = bytes.start;
        while at < bytes.end {
            let len = usize::try_from(bytes.end - at).map_or(piece.len(), |left| left.min(piece.len()));
            let (part, _) = piece.split_at_mut(len);
            self.read_at(at, part)?;
            out(part)?;
            at += len as u64;
        }
        Ok(())
    }

    fn length_of(&self, bytes: &Range<u64>) -> Result<u64> {
        let length = bytes.end.checked_sub(bytes.start).filter(|_| bytes.end <= self.len());
        length.ok_or_else(|| {
            let what = format!(
                "bytes {}..{} aren't a part of the model, which has {}",
                bytes.start,
                bytes.end,
                self.len()
            );
            Error::usage(what, "ask for a part that there is")
        })
    }
}

fn malformed(what: &str) -> Error {
    let hint = "it isn't a safetensors model, or was damaged before it was sealed";
    Error::new(Code::Other, format!("not a safetensors model: {what}"), hint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn model(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; data]].concat()
    }

    const HEADER: &str = r#"{"__metadata__":{"by":"us"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    #[test]
    fn tensors_are_where_the_header_says() {
        let tensors = Tensors::in_memory(&model(HEADER, 28)).unwrap();
        assert_eq!(tensors.names(), ["a", "b"]);
        assert_eq!(tensors.metadata().collect::<Vec<_>>(), [("by", "us")]);
        let data = 8 + HEADER.len() as u64;
        let b = Tensor { dtype: "F32".into(), shape: vec![2, 3], bytes: data + 4..data + 28 };
        assert_eq!(tensors.get("b").unwrap(), b);
        assert_eq!(tensors.get("c").unwrap_err().code(), Code::Usage);
    }

    #[test]
    fn what_is_malformed_is_told() {
        let overlapping = HEADER.replace("[4,28]", "[0,24]");
        let huge = HEADER.replace("[2,3]", "[9223372036854775807,9]");
        let cut = model(HEADER, 28);
        for bad in [
            vec![],
            vec![0; 7],
            vec![0xff; 40],
            model(HEADER, 27),
            model(HEADER, 29),
            model("[]", 0),
            model("{", 0),
            model("\u{0}", 4),
            model(&overlapping, 24),
            model(&huge, 28),
            cut[..20].to_vec(),
        ] {
            let error = Tensors::in_memory(&bad).unwrap_err();
            assert!(error.what().starts_with("not a safetensors model: "), "{error}");
        }
    }
}
