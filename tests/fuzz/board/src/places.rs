//! A board's two places for an image and two for what was delivered beside it.

use modelseal_core::Error;
use modelseal_core::grant::Grant;
use modelseal_firmware::provision::{DELIVERY_MAX, Delivery};
use modelseal_firmware::slots::Slots;
use modelseal_firmware::state::Choice;
use modelseal_firmware::storage::{GrantBuffer, Memory};
use modelseal_firmware::update::Target;
use modelseal_firmware::update::wire::Part;

const ROOM: usize = 16 << 10;

/// What storage holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Places {
    /// The images, A and B.
    pub images: [Vec<u8>; 2],
    /// The deliveries, A and B.
    pub deliveries: [Vec<u8>; 2],
}

impl Places {
    /// Blank.
    pub fn new() -> Self {
        Self {
            images: [(); 2].map(|()| vec![0xff; ROOM]),
            deliveries: [(); 2].map(|()| vec![0xff; DELIVERY_MAX]),
        }
    }

    /// What a factory puts into the first places.
    pub fn put(&mut self, sealed: &[u8], grant: &[u8]) {
        self.images[0][..sealed.len()].copy_from_slice(sealed);
        let mut buffer = [0; DELIVERY_MAX];
        let delivery = Delivery { sealed_len: sealed.len() as u64, grant }.encode(&mut buffer).unwrap();
        self.deliveries[0][..delivery.len()].copy_from_slice(delivery);
    }

    fn part(&mut self, part: Part, choice: Choice) -> &mut [u8] {
        match part {
            Part::Image => &mut self.images[choice.image as usize],
            Part::Delivery => &mut self.deliveries[choice.grant as usize],
        }
    }
}

impl Slots for Places {
    fn find<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, impl embedded_storage::ReadStorage), Error> {
        let delivery = Delivery::read(&mut Memory::new(&self.deliveries[choice.grant as usize]), 0, buffer)?;
        let len = usize::try_from(delivery.sealed_len).map_err(|_| Error::Memory)?;
        let image = self.images[choice.image as usize].get(..len).ok_or(Error::Memory)?;
        Ok((Grant::parse(delivery.grant)?, Memory::new(image)))
    }
}

impl Target for Places {
    const BLOCK: u32 = 1024;

    fn room(&mut self, _: Choice, _: Choice) -> Result<u32, Error> {
        Ok(ROOM as u32)
    }

    fn read(&mut self, part: Part, choice: Choice, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        embedded_storage::ReadStorage::read(&mut Memory::new(self.part(part, choice)), offset, bytes)
    }

    fn erase(&mut self, _: Part, _: Choice, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn write(&mut self, part: Part, choice: Choice, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let place =
            self.part(part, choice).get_mut(offset as usize..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or(Error::Storage)?.copy_from_slice(bytes);
        Ok(())
    }
}
