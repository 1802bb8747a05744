//! Takes a new sealed model, a new grant, or both, over a serial line (any [`embedded_io`] one) while what is
//! confirmed stays as it is.
//!
//! ```text
//!  sender                                   device
//!  Begin: image of so many bytes, … ──▶     chooses the places that aren't in use, drops a pending trial
//!                                   ◀── Ready: in blocks of so many bytes
//!  Block: from here on, its hash    ──▶     hashes what it has there
//!                                   ◀── Same, or Differs, once the block is erased
//!  Piece: 256 bytes of that block   ──▶     writes them
//!                                   ◀── Taken                           … and Block again, until Same
//!  Finish                           ──▶     verifies it all, in storage, and stores a trial
//!                                   ◀── Verified: version, or Refused: the error's number
//! ```
//!
//! There is no memory of how far an update has got: after a cut of power or of the line the sender begins
//! anew, and what is there already is the same and not sent again. Nor is any word of the sender's believed
//! in the end: hashes here only save time. What was written is verified from storage before a trial is
//! stored, and again, from storage, at each boot.
//!
//! In reading order: [`wire`], the messages and their frames; [`serve`] and what it needs; [`send`](send()).

use embedded_io::{Error as _, ErrorKind, Read, Write};
use embedded_storage::ReadStorage;
use modelseal_core::Error;

use crate::device::Device;
use crate::provision::DELIVERY_MAX;
use crate::slots::{Slots, hash, verify};
use crate::state::{Choice, State, StateStore, TRIES, Trial};
use crate::storage::GRANT_BUFFER;

pub mod send;
pub mod wire;

pub use send::send;

use wire::{Answer, Broken, Link, PIECE_MAX, Part, Request};

/// Slots that can be written, block by block.
pub trait Target: Slots {
    /// Length of a block in bytes: what is erased at once, or a multiple of it. A power of two.
    const BLOCK: u32;

    /// Length of a word in bytes: what the memory writes at once. A power of two, of at most [`PIECE_MAX`]. Every write
    /// is of whole words and begins at one; what the last of a part has too few is filled with 0xff. Readers of a part
    /// don't read on to there. A port whose memory writes more at once collects it itself.
    const WORD: usize = 1;

    /// How many bytes there are for the image of `choice`, while `in_use` mustn't be touched. For a delivery
    /// there are always [`DELIVERY_MAX`]. Both places go on to the end of the last word.
    fn room(&mut self, choice: Choice, in_use: Choice) -> Result<u32, Error>;

    /// Fills `bytes` from `offset` of this part of `choice`. Flash with check bits can't read a word whose writing was
    /// cut, and some can't read erased ones: both are errors here, and an update mends them by erasing.
    fn read(&mut self, part: Part, choice: Choice, offset: u32, bytes: &mut [u8]) -> Result<(), Error>;

    /// Makes the block at `offset` writable; what it held is lost.
    fn erase(&mut self, part: Part, choice: Choice, offset: u32) -> Result<(), Error>;

    /// Writes whole words into a block that has been erased, each byte once.
    fn write(&mut self, part: Part, choice: Choice, offset: u32, bytes: &[u8]) -> Result<(), Error>;
}

/// Serves a sender until it has brought an update that is verified and will be tried at the next boot, and
/// gives its version. Refusals are told to the sender, who may try again. Fails with the serial line; one whose
/// reads time out is waited for.
pub fn serve<L: Read + Write>(
    device: &mut impl Device,
    target: &mut impl Target,
    line: L,
) -> Result<u64, Broken<L::Error>> {
    let mut link = Link::new(line);
    let mut update = None;
    loop {
        let (number, message) = match link.receive() {
            Err(Broken::Line(error)) if error.kind() == ErrorKind::TimedOut => continue,
            received => received?,
        };
        let answer = match postcard::from_bytes(message) {
            Ok(request) => answer(device, target, &mut update, request),
            // Whole, but in words of another version of this.
            Err(_) => Answer::Refused { code: Error::UnknownVersion.code() },
        };
        link.send(number, &answer)?;
        if let Answer::Verified { version } = answer {
            return Ok(version);
        }
    }
}

/// What a sender has begun.
#[derive(Clone, Copy)]
struct Update {
    choice: Choice,
    image: Option<u32>,
}

fn answer<T: Target>(
    device: &mut impl Device,
    target: &mut T,
    update: &mut Option<Update>,
    request: Request<'_>,
) -> Answer {
    let answer = match (request, *update) {
        (Request::Begin { image }, _) => begin(device, target, image).map(|(begun, image)| {
            *update = Some(begun);
            Answer::Ready { block: T::BLOCK, image }
        }),
        (Request::Block { part, offset, len, hash }, Some(begun)) => {
            begun.compare(target, part, offset, len, &hash)
        }
        (Request::Piece { part, offset, bytes }, Some(begun)) => begun.write(target, part, offset, bytes),
        (Request::Finish, Some(begun)) => begun.finish(device, target),
        // A device that has started anew knows of nothing that was begun.
        (_, None) => Err(Error::Storage),
    };
    answer.unwrap_or_else(|error| {
        log!(warn, "update refused {=u16} {=str}", error.code(), error.name());
        Answer::Refused { code: error.code() }
    })
}

/// Chooses the places, and makes sure that no boot will look there while they are written. Also gives the
/// length of the image that the grant will be for.
fn begin<T: Target>(
    device: &mut impl Device,
    target: &mut T,
    image: Option<u32>,
) -> Result<(Update, u32), Error> {
    let state = device.state().load()?;
    let in_use = state.confirmed.or(state.trial.map(|trial| trial.choice)).ok_or(Error::Floor)?;
    let grant = in_use.grant.other();
    let (choice, len) = match image {
        Some(len) => {
            let choice = Choice { image: in_use.image.other(), grant };
            let room = target.room(choice, in_use)?;
            if len == 0 {
                return Err(Error::Truncated);
            }
            (choice, Some(len).filter(|len| *len <= room).ok_or(Error::Memory)?)
        }
        None => {
            let mut buffer = GRANT_BUFFER;
            let len = target.find(in_use, &mut buffer)?.1.capacity();
            (Choice { image: in_use.image, grant }, u32::try_from(len).map_err(|_| Error::Memory)?)
        }
    };
    if state.confirmed.is_some() && state.trial.is_some() {
        device.state().store(State { trial: None, ..state })?;
    }
    Ok((Update { choice, image }, len))
}

impl Update {
    /// How long a part may be.
    fn room(self, part: Part) -> Result<u32, Error> {
        match part {
            Part::Image => self.image.ok_or(Error::Storage),
            Part::Delivery => u32::try_from(DELIVERY_MAX).map_err(|_| Error::Storage),
        }
    }

    /// Whether the block is there already. If it isn't, its place is made ready.
    fn compare<T: Target>(
        self,
        target: &mut T,
        part: Part,
        offset: u32,
        len: u32,
        expected: &[u8; 32],
    ) -> Result<Answer, Error> {
        let end = offset.checked_add(len).filter(|_| (1..=T::BLOCK).contains(&len));
        let room = self.room(part)?;
        let end = end.filter(|end| *end <= room && offset.is_multiple_of(T::BLOCK)).ok_or(Error::Storage)?;
        let mut written = Written { target, part, choice: self.choice, len: end };
        // What can't be read differs: erasing mends it.
        if hash(&mut written, offset.into(), end.into()).is_ok_and(|hash| hash == *expected) {
            return Ok(Answer::Same);
        }
        target.erase(part, self.choice, offset)?;
        Ok(Answer::Differs)
    }

    fn write<T: Target>(
        self,
        target: &mut T,
        part: Part,
        offset: u32,
        bytes: &[u8],
    ) -> Result<Answer, Error> {
        let end = u32::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len));
        let room = self.room(part)?;
        let mut buffer = [0; PIECE_MAX];
        let written = buffer.get_mut(..bytes.len()).ok_or(Error::Storage)?;
        if end.is_none_or(|end| end > room) || !(offset as usize).is_multiple_of(T::WORD) {
            return Err(Error::Storage);
        }
        // Flash takes each word once, and a piece whose answer was lost comes again. An erased word may not be readable.
        if target.read(part, self.choice, offset, written).is_err() || written != bytes {
            let words = whole_words::<T>(bytes, &mut buffer)?;
            target.write(part, self.choice, offset, words)?;
        }
        Ok(Answer::Taken)
    }

    fn finish(self, device: &mut impl Device, target: &mut impl Target) -> Result<Answer, Error> {
        let version = verify(device, target, self.choice)?;
        let state = device.state().load()?;
        // Before anything has been confirmed, a factory's model is what there is to fall back to, if there is one. It may
        // need a clock that isn't set yet.
        let confirmed = match (state.confirmed, state.trial) {
            (None, Some(Trial { choice, .. })) => match verify(device, target, choice) {
                Ok(_) | Err(Error::NoClock | Error::NotYetValid) => Some(choice),
                Err(_) => None,
            },
            (confirmed, _) => confirmed,
        };
        let trial = Some(Trial { choice: self.choice, tries: TRIES });
        device.state().store(State { confirmed, trial, ..state })?;
        log!(info, "verified the update, version {=u64}", version);
        Ok(Answer::Verified { version })
    }
}

/// `bytes`, and what the last word has too few.
fn whole_words<'b, T: Target>(bytes: &[u8], buffer: &'b mut [u8; PIECE_MAX]) -> Result<&'b [u8], Error> {
    const { assert!(T::WORD.is_power_of_two() && T::WORD <= PIECE_MAX && T::BLOCK as usize >= T::WORD) };
    let words = buffer.get_mut(..bytes.len().next_multiple_of(T::WORD)).ok_or(Error::Storage)?;
    words.fill(0xff);
    words.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
    Ok(words)
}

/// What has been written of one part.
struct Written<'t, T> {
    target: &'t mut T,
    part: Part,
    choice: Choice,
    len: u32,
}

impl<T: Target> ReadStorage for Written<'_, T> {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        self.target.read(self.part, self.choice, offset, bytes)
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;
