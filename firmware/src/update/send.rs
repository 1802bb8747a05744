//! The other end: whoever brings an update, on a PC or on a gateway.

use embedded_io::{Error as _, ErrorKind, Read, Write};

use crate::provision::Delivery;
use crate::storage::GRANT_BUFFER;

use super::wire::{Answer, Broken, Link, PIECE_MAX, Part, Request};

/// How often a request is repeated that isn't answered, and a block that doesn't arrive.
const ATTEMPTS: usize = 5;

/// What is brought.
#[derive(Clone, Copy)]
pub struct Update<'a> {
    /// The sealed model; none if it is a new grant for the model in use.
    pub image: Option<&'a [u8]>,
    /// The grant.
    pub grant: &'a [u8],
}

/// Why an update didn't arrive. What had arrived needn't be sent again.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The serial line fails or has ended.
    Line(Broken<E>),
    /// Nobody answers.
    Silence,
    /// The grant is longer than any.
    Grant,
    /// The device refuses, with the number of its [`Error`](modelseal_core::Error).
    Refused(u16),
    /// The device answers something else than what was asked.
    Answer,
    /// What the device has written isn't what was sent.
    Damaged,
}

/// Brings an update to a device that [serves](super::serve) one, and gives the version that it has verified.
/// `progress` is told how many bytes of both parts are there, of how many. Reading from `line` fails with
/// [`ErrorKind::TimedOut`] when nothing arrives for a while; the request is then repeated.
pub fn send<L: Read + Write>(
    line: L,
    update: &Update<'_>,
    mut progress: impl FnMut(usize, usize),
) -> Result<u64, Failure<L::Error>> {
    let mut sender = Sender { link: Link::new(line), number: 0 };
    let image = update.image.map(|image| u32::try_from(image.len()).unwrap_or(u32::MAX));
    let Answer::Ready { block, image } = sender.ask(&Request::Begin { image })? else {
        return Err(Failure::Answer);
    };
    let mut buffer = GRANT_BUFFER;
    let delivery = Delivery { sealed_len: image.into(), grant: update.grant };
    let delivery = delivery.encode(&mut buffer).map_err(|_| Failure::Grant)?;
    let block = usize::try_from(block).ok().filter(|block| *block > 0).ok_or(Failure::Answer)?;
    let parts = [(Part::Image, update.image.unwrap_or_default()), (Part::Delivery, delivery)];
    let total = parts.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut done = 0;
    for (part, bytes) in parts {
        for (offset, bytes) in (0..).step_by(block).zip(bytes.chunks(block)) {
            sender.bring(part, offset, bytes)?;
            done += bytes.len();
            progress(done, total);
        }
    }
    match sender.ask(&Request::Finish)? {
        Answer::Verified { version } => Ok(version),
        _ => Err(Failure::Answer),
    }
}

struct Sender<L> {
    link: Link<L>,
    number: u8,
}

impl<L: Read + Write> Sender<L> {
    /// Sends a block unless it is there, until it is.
    fn bring(&mut self, part: Part, offset: usize, block: &[u8]) -> Result<(), Failure<L::Error>> {
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        let (len, hash) = (at(block.len()), *blake3::hash(block).as_bytes());
        for _ in 0..ATTEMPTS {
            match self.ask(&Request::Block { part, offset: at(offset), len, hash })? {
                Answer::Same => return Ok(()),
                Answer::Differs => {}
                _ => return Err(Failure::Answer),
            }
            for (i, bytes) in (0..).step_by(PIECE_MAX).zip(block.chunks(PIECE_MAX)) {
                let piece = Request::Piece { part, offset: at(offset + i), bytes };
                if self.ask(&piece)? != Answer::Taken {
                    return Err(Failure::Answer);
                }
            }
        }
        Err(Failure::Damaged)
    }

    /// Asks until there is an answer.
    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Failure<L::Error>> {
        self.number = self.number.wrapping_add(1);
        for _ in 0..ATTEMPTS {
            self.link.send(self.number, request).map_err(Failure::Line)?;
            match self.answer() {
                Err(Broken::Line(error)) if error.kind() == ErrorKind::TimedOut => {}
                Err(error) => return Err(Failure::Line(error)),
                Ok(Some(Answer::Refused { code })) => return Err(Failure::Refused(code)),
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => return Err(Failure::Answer),
            }
        }
        Err(Failure::Silence)
    }

    /// The answer to the last request. Late ones to earlier requests are passed over.
    fn answer(&mut self) -> Result<Option<Answer>, Broken<L::Error>> {
        loop {
            let (number, message) = self.link.receive()?;
            if number == self.number {
                return Ok(postcard::from_bytes(message).ok());
            }
        }
    }
}
