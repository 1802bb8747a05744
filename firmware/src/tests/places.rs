//! Two places for images and two for grants, in RAM.

use std::collections::BTreeSet;

use embedded_storage::ReadStorage;
use modelseal_core::Error;
use modelseal_core::grant::Grant;

use super::fixture::{Fake, Power, Sealed};
use crate::provision::{DELIVERY_MAX, Delivery};
use crate::slots::Slots;
use crate::state::{Choice, Slot};
use crate::storage::{GrantBuffer, Memory};
use crate::update::Target;
use crate::update::wire::Part;

pub(crate) const ROOM: usize = 8192;

/// In flash that writes `WORD` bytes at once.
#[derive(Clone)]
pub(crate) struct Places<const WORD: usize = 8> {
    pub(crate) images: [Vec<u8>; 2],
    pub(crate) deliveries: [Vec<u8>; 2],
    /// Words that can't be read: one whose writing or erasing was cut and, in some flash, erased ones.
    pub(crate) unreadable: BTreeSet<(bool, u8, usize)>,
    /// Whether erased words can be read.
    pub(crate) reads_erased: bool,
    /// How many bytes were written, by an update.
    pub(crate) written: usize,
    pub(crate) power: Power,
}

impl Places {
    pub(crate) fn blank() -> Self {
        Self::of_words()
    }
}

impl<const WORD: usize> Places<WORD> {
    pub(crate) fn of_words() -> Self {
        let blank = |len| [vec![0xff; len], vec![0xff; len]];
        Self {
            images: blank(ROOM),
            deliveries: blank(DELIVERY_MAX.next_multiple_of(WORD)),
            unreadable: BTreeSet::new(),
            reads_erased: true,
            written: 0,
            power: Power::default(),
        }
    }

    /// What a factory or an installer does.
    pub(crate) fn put(&mut self, choice: Choice, image: &[u8], grant: &[u8]) {
        self.images[choice.image as usize][..image.len()].copy_from_slice(image);
        let delivery = delivery(image.len(), grant);
        self.deliveries[choice.grant as usize][..delivery.len()].copy_from_slice(&delivery);
    }

    /// What is in place B can't be read, nor what is erased from now on.
    pub(crate) fn cannot_read_erased(&mut self) {
        self.reads_erased = false;
        self.cannot_read(Slot::B);
    }

    /// No word of this place's image and delivery can be read.
    pub(crate) fn cannot_read(&mut self, slot: Slot) {
        for (is_image, len) in [(true, ROOM), (false, self.deliveries[0].len())] {
            self.unreadable.extend((0..len / WORD).map(|word| (is_image, slot as u8, word)));
        }
    }

    /// Does one step to the bytes from `start` on. If power is cut, the word in the middle can't be read any more.
    fn step(
        &mut self,
        (part, choice): (Part, Choice),
        start: usize,
        new: &[u8],
        is_readable: bool,
    ) -> Result<(), Error> {
        let power = self.power.clone();
        let place = self.part(part, choice).get_mut(start..start + new.len()).ok_or(Error::Storage)?;
        let done = power.step(place, new.iter().copied());
        let slot = slot_of(part, choice);
        for word in start / WORD..(start + new.len()) / WORD {
            match (done.is_ok(), is_readable) {
                (true, true) => drop(self.unreadable.remove(&(part == Part::Image, slot, word))),
                (true, false) => drop(self.unreadable.insert((part == Part::Image, slot, word))),
                (false, _) => {}
            }
        }
        if done.is_err() {
            self.unreadable.insert((part == Part::Image, slot, (start + new.len() / 2) / WORD));
        }
        done
    }

    fn readable(&self, part: Part, choice: Choice, start: usize, len: usize) -> Result<(), Error> {
        let slot = slot_of(part, choice);
        let words = start / WORD..(start + len).div_ceil(WORD);
        let torn = words.clone().any(|word| self.unreadable.contains(&(part == Part::Image, slot, word)));
        if torn { Err(Error::Storage) } else { Ok(()) }
    }

    fn part(&mut self, part: Part, choice: Choice) -> &mut [u8] {
        match part {
            Part::Image => &mut self.images[choice.image as usize],
            Part::Delivery => &mut self.deliveries[choice.grant as usize],
        }
    }
}

/// A sealed model with a grant for the fake device.
pub(crate) fn granted(sealed: &Sealed, device: &Fake) -> Vec<u8> {
    let version = sealed.unsigned.header().unwrap().manifest().subject.version;
    sealed.grant(&device.secret, |terms| terms.floor = version.min(6))
}

fn delivery(sealed_len: usize, grant: &[u8]) -> Vec<u8> {
    let delivery = Delivery { sealed_len: sealed_len as u64, grant };
    delivery.encode(&mut [0; DELIVERY_MAX]).unwrap().to_vec()
}

impl<const WORD: usize> Slots for Places<WORD> {
    fn find<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, impl ReadStorage), Error> {
        self.power.require()?;
        let (deliveries, part) = (&self.deliveries[choice.grant as usize], Part::Delivery);
        let mut stored = Stored { places: self, part, choice, bytes: deliveries };
        let delivery = Delivery::read(&mut stored, 0, buffer)?;
        let len = usize::try_from(delivery.sealed_len).map_err(|_| Error::Storage)?;
        let bytes = self.images[choice.image as usize].get(..len).ok_or(Error::Storage)?;
        Ok((Grant::parse(delivery.grant)?, Stored { places: self, part: Part::Image, choice, bytes }))
    }
}

fn slot_of(part: Part, choice: Choice) -> u8 {
    match part {
        Part::Image => choice.image as u8,
        Part::Delivery => choice.grant as u8,
    }
}

/// What is in one of the places, as far as it can be read.
struct Stored<'p, const WORD: usize> {
    places: &'p Places<WORD>,
    part: Part,
    choice: Choice,
    bytes: &'p [u8],
}

impl<const WORD: usize> ReadStorage for Stored<'_, WORD> {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        self.places.readable(self.part, self.choice, offset as usize, bytes.len())?;
        Memory::new(self.bytes).read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WORD: usize> Target for Places<WORD> {
    const BLOCK: u32 = 1024;
    const WORD: usize = WORD;

    fn room(&mut self, choice: Choice, in_use: Choice) -> Result<u32, Error> {
        assert!(choice.image != in_use.image && choice.grant != in_use.grant);
        u32::try_from(ROOM).map_err(|_| Error::Storage)
    }

    fn read(&mut self, part: Part, choice: Choice, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        self.power.require()?;
        self.readable(part, choice, offset as usize, bytes.len())?;
        Memory::new(self.part(part, choice)).read(offset, bytes)
    }

    fn erase(&mut self, part: Part, choice: Choice, offset: u32) -> Result<(), Error> {
        let start = offset as usize;
        let len = self.part(part, choice).get(start..).ok_or(Error::Storage)?.len().min(1024);
        self.step((part, choice), start, &vec![0xff; len], self.reads_erased)
    }

    fn write(&mut self, part: Part, choice: Choice, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.written += bytes.len();
        let start = offset as usize;
        assert!(start.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD), "not in whole words");
        let place = self.part(part, choice).get(start..start + bytes.len()).ok_or(Error::Storage)?;
        assert!(place.iter().all(|byte| *byte == 0xff), "written twice without being erased");
        self.step((part, choice), start, bytes, true)
    }
}

pub(crate) fn at(image: Slot, grant: Slot) -> Choice {
    Choice { image, grant }
}
