//! The two places for an image, in memory-mapped storage, and the two for a grant, in the EEPROM.
//!
//! Image B begins in the middle. An image A that is longer than that takes B's place as well; a device with such
//! an image can't be updated.

use embedded_storage::{ReadStorage, Storage};
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::modelseal_core::grant::Grant;
use modelseal_firmware::provision::{DELIVERY_MAX, Delivery};
use modelseal_firmware::slots::Slots;
use modelseal_firmware::state::{Choice, Slot};
use modelseal_firmware::storage::{GRANT_BUFFER, GrantBuffer, Memory};
use modelseal_firmware::update::Target;
use modelseal_firmware::update::wire::Part;

const IMAGE_B: u32 = 8 << 20;
/// Where the EEPROM holds the deliveries.
const DELIVERY_A: u32 = 0x0400;
const DELIVERY_B: u32 = 0x1000;
const ROOM: u32 = 0x0c00;
const _: () = assert!(DELIVERY_MAX <= ROOM as usize);

pub(crate) struct Places<'p, E> {
    eeprom: E,
    images: &'p mut [u8],
}

impl<'p, E: Storage> Places<'p, E> {
    pub(crate) fn new(eeprom: E, images: &'p mut [u8]) -> Self {
        Self { eeprom, images }
    }

    /// The grant, and the sealed model to open where it lies.
    pub(crate) fn place<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, &mut [u8]), Error> {
        let delivery = self.delivery(choice, buffer)?;
        let len = usize::try_from(delivery.sealed_len).map_err(|_| Error::Memory)?;
        let image = self.images.get_mut(start(choice.image)..).and_then(|image| image.get_mut(..len));
        Ok((Grant::parse(delivery.grant)?, image.ok_or(Error::Memory)?))
    }

    fn delivery<'b>(&mut self, choice: Choice, buffer: &'b mut GrantBuffer) -> Result<Delivery<'b>, Error> {
        Delivery::read(&mut self.eeprom, delivery_at(choice.grant), buffer)
    }

    /// What is at `offset` of an image.
    fn image(&mut self, slot: Slot, offset: u32, len: usize) -> Result<&mut [u8], Error> {
        let offset = usize::try_from(offset).map_err(|_| Error::Storage)?;
        let image = self.images.get_mut(start(slot)..).and_then(|image| image.get_mut(offset..));
        image.and_then(|rest| rest.get_mut(..len)).ok_or(Error::Storage)
    }
}

fn start(image: Slot) -> usize {
    match image {
        Slot::A => 0,
        Slot::B => IMAGE_B as usize,
    }
}

fn delivery_at(grant: Slot) -> u32 {
    match grant {
        Slot::A => DELIVERY_A,
        Slot::B => DELIVERY_B,
    }
}

impl<E: Storage> Slots for Places<'_, E> {
    fn find<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, impl ReadStorage), Error> {
        let delivery = self.delivery(choice, buffer)?;
        let len = usize::try_from(delivery.sealed_len).map_err(|_| Error::Memory)?;
        let image = self.image(choice.image, 0, len).map_err(|_| Error::Memory)?;
        Ok((Grant::parse(delivery.grant)?, Memory::new(image)))
    }
}

impl<E: Storage> Target for Places<'_, E> {
    const BLOCK: u32 = 4096;

    fn room(&mut self, choice: Choice, in_use: Choice) -> Result<u32, Error> {
        let mut buffer = GRANT_BUFFER;
        // What can't be read doesn't boot, and an update may be what mends it.
        let overlap =
            self.delivery(in_use, &mut buffer).is_ok_and(|delivery| delivery.sealed_len > IMAGE_B.into());
        Ok(if choice.image == Slot::B && overlap { 0 } else { IMAGE_B })
    }

    fn read(&mut self, part: Part, choice: Choice, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        match part {
            Part::Image => bytes.copy_from_slice(self.image(choice.image, offset, bytes.len())?),
            Part::Delivery => {
                self.eeprom.read(delivery_at(choice.grant) + offset, bytes).map_err(|_| Error::Storage)?;
            }
        }
        Ok(())
    }

    fn erase(&mut self, _: Part, _: Choice, _: u32) -> Result<(), Error> {
        // Neither needs it.
        Ok(())
    }

    fn write(&mut self, part: Part, choice: Choice, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        match part {
            Part::Image => self.image(choice.image, offset, bytes.len())?.copy_from_slice(bytes),
            Part::Delivery => {
                self.eeprom.write(delivery_at(choice.grant) + offset, bytes).map_err(|_| Error::Storage)?;
            }
        }
        Ok(())
    }
}
