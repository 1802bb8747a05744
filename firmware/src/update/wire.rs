//! The messages of an update, and how they travel.
//!
//! ```text
//! frame = COBS( number u8 | postcard(message) | CRC-32 of all that, little-endian ) || 0x00
//! ```
//!
//! A frame that is damaged is dropped in silence, and the sender repeats what wasn't answered; an answer has the
//! number of its request. Every request may be repeated. The CRC (CRC-32/ISO-HDLC) finds noise on the line and
//! nothing else.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use embedded_io::{Read, Write};
use serde::{Deserialize, Serialize};

/// Most bytes in a [`Request::Piece`].
pub const PIECE_MAX: usize = 256;
/// Longest message in bytes: number, kind, part, offset, length and bytes of a piece, and the CRC.
const MESSAGE_MAX: usize = 1 + 1 + 1 + 5 + 2 + PIECE_MAX + CRC_LEN;
/// Longest frame in bytes, its end included. COBS adds a byte to every 254, and one.
const FRAME_MAX: usize = MESSAGE_MAX + MESSAGE_MAX / 254 + 1 + 1;
const END: u8 = 0;
/// Without a table of 1 KiB.
static CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);
const CRC_LEN: usize = 4;

/// One of the two things that an update brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The sealed model.
    Image,
    /// The grant: an encoded [`Delivery`](crate::provision::Delivery).
    Delivery,
}

/// What a sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// An update is to come.
    Begin {
        /// Length of its sealed model in bytes; none if it is a new grant for the model in use.
        image: Option<u32>,
    },
    /// The next block of a part: as long as the device's blocks are, or to the part's end.
    Block {
        /// Which part.
        part: Part,
        /// Where in the part, in bytes.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// BLAKE3 of the block.
        hash: [u8; 32],
    },
    /// Some bytes of a block that differs.
    Piece {
        /// Which part.
        part: Part,
        /// Where in the part, in bytes.
        offset: u32,
        /// At most [`PIECE_MAX`].
        bytes: &'a [u8],
    },
    /// Nothing is missing.
    Finish,
}

/// What a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Begin`.
    Ready {
        /// Length of a block in bytes.
        block: u32,
        /// Length in bytes of the sealed model that the grant is for: the new one, or the one in use.
        image: u32,
    },
    /// To `Block`: it is there already.
    Same,
    /// To `Block`: it isn't, and its place is ready for pieces.
    Differs,
    /// To `Piece`: it is written.
    Taken,
    /// To `Finish`: the update will be tried at the next boot.
    Verified {
        /// The model's version.
        version: u64,
    },
    /// To any of them.
    Refused {
        /// The number of the [`Error`](modelseal_core::Error).
        code: u16,
    },
}

/// Why nothing comes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken<E> {
    /// The serial line fails.
    Line(E),
    /// It has ended: the other side has closed it.
    Ended,
}

/// A serial line that carries frames.
pub struct Link<L> {
    line: L,
    frame: [u8; FRAME_MAX],
}

impl<L: Read + Write> Link<L> {
    /// Frames on this line.
    pub fn new(line: L) -> Self {
        Self { line, frame: [0; FRAME_MAX] }
    }

    /// Waits for a frame that is whole, and gives its number and its message, still encoded.
    pub fn receive(&mut self) -> Result<(u8, &[u8]), Broken<L::Error>> {
        let (number, end) = loop {
            let len = self.receive_frame()?;
            if let Some(found) = self.frame.get_mut(..len).and_then(unpack) {
                break found;
            }
        };
        Ok((number, self.frame.get(1..end).unwrap_or_default()))
    }

    /// Reads to the end of a frame and gives its length without it: 0 if it is too long to be one.
    fn receive_frame(&mut self) -> Result<usize, Broken<L::Error>> {
        let (mut len, mut byte) = (0, [0]);
        loop {
            if self.line.read(&mut byte).map_err(Broken::Line)? == 0 {
                return Err(Broken::Ended);
            }
            match (byte, self.frame.get_mut(len)) {
                ([END], _) if len > FRAME_MAX => return Ok(0),
                ([END], _) => return Ok(len),
                ([byte], Some(place)) => (*place, len) = (byte, len + 1),
                (_, None) => len = FRAME_MAX + 1,
            }
        }
    }

    /// Sends a message.
    pub fn send(&mut self, number: u8, message: &impl Serialize) -> Result<(), Broken<L::Error>> {
        let mut bytes = [0; MESSAGE_MAX];
        // Every message fits: MESSAGE_MAX is the longest.
        let len = pack(number, message, &mut bytes).unwrap_or_default();
        let mut frame = [0; FRAME_MAX];
        let end = cobs::encode(bytes.get(..len).unwrap_or_default(), &mut frame);
        // The encoder may have written there.
        frame.get_mut(end..).unwrap_or_default().fill(END);
        self.line.write_all(frame.get(..=end).unwrap_or_default()).map_err(Broken::Line)?;
        self.line.flush().map_err(Broken::Line)
    }
}

/// Writes number, message and CRC into `bytes`, and gives their length.
fn pack(number: u8, message: &impl Serialize, bytes: &mut [u8; MESSAGE_MAX]) -> Option<usize> {
    let used = postcard::to_slice(&(number, message), bytes).ok()?.len();
    let crc = CRC.checksum(bytes.get(..used)?).to_le_bytes();
    let end = used.checked_add(CRC_LEN)?;
    bytes.get_mut(used..end)?.copy_from_slice(&crc);
    Some(end)
}

/// Decodes a frame where it is: its number, and where its message ends, which begins at byte 1. `None` if it is damaged.
fn unpack(frame: &mut [u8]) -> Option<(u8, usize)> {
    let len = cobs::decode_in_place(frame).ok()?;
    let (message, crc) = frame.get(..len)?.split_last_chunk::<CRC_LEN>()?;
    let number = *message.first()?;
    (CRC.checksum(message).to_le_bytes() == *crc).then_some((number, message.len()))
}

#[cfg(test)]
mod tests;
