//! Two places for images and two for grants, in RAM.

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

#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) images: [Vec<u8>; 2],
    pub(crate) deliveries: [Vec<u8>; 2],
    /// How many bytes were written, by an update.
    pub(crate) written: usize,
    pub(crate) power: Power,
}

impl Places {
    pub(crate) fn blank() -> Self {
        let blank = |len| [vec![0xff; len], vec![0xff; len]];
        Self { images: blank(ROOM), deliveries: blank(DELIVERY_MAX), written: 0, power: Power::default() }
    }

    /// What a factory or an installer does.
    pub(crate) fn put(&mut self, choice: Choice, image: &[u8], grant: &[u8]) {
        self.images[choice.image as usize][..image.len()].copy_from_slice(image);
        let delivery = delivery(image.len(), grant);
        self.deliveries[choice.grant as usize][..delivery.len()].copy_from_slice(&delivery);
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

impl Slots for Places {
    fn find<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, impl ReadStorage), Error> {
        self.power.require()?;
        let delivery = Delivery::read(&mut Memory::new(&self.deliveries[choice.grant as usize]), 0, buffer)?;
        let len = usize::try_from(delivery.sealed_len).map_err(|_| Error::Storage)?;
        let image = self.images[choice.image as usize].get(..len).ok_or(Error::Storage)?;
        Ok((Grant::parse(delivery.grant)?, Memory::new(image)))
    }
}

impl Target for Places {
    const BLOCK: u32 = 1024;

    fn room(&mut self, choice: Choice, in_use: Choice) -> Result<u32, Error> {
        assert!(choice.image != in_use.image && choice.grant != in_use.grant);
        u32::try_from(ROOM).map_err(|_| Error::Storage)
    }

    fn read(&mut self, part: Part, choice: Choice, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        self.power.require()?;
        Memory::new(self.part(part, choice)).read(offset, bytes)
    }

    fn erase(&mut self, part: Part, choice: Choice, offset: u32) -> Result<(), Error> {
        let power = self.power.clone();
        let part = self.part(part, choice).get_mut(offset as usize..).ok_or(Error::Storage)?;
        let end = part.len().min(1024);
        power.step(&mut part[..end], core::iter::repeat(0xff))
    }

    fn write(&mut self, part: Part, choice: Choice, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.written += bytes.len();
        let power = self.power.clone();
        let place =
            self.part(part, choice).get_mut(offset as usize..).and_then(|rest| rest.get_mut(..bytes.len()));
        let place = place.ok_or(Error::Storage)?;
        assert!(place.iter().all(|byte| *byte == 0xff), "written twice without being erased");
        power.step(place, bytes.iter().copied())
    }
}

pub(crate) fn at(image: Slot, grant: Slot) -> Choice {
    Choice { image, grant }
}
