//! The two places for an image and the two for a grant: files on the card.

use embedded_storage::ReadStorage;
use modelseal_firmware::modelseal_core::Error;
use modelseal_firmware::modelseal_core::grant::Grant;
use modelseal_firmware::provision::DELIVERED_GRANT_MAX;
use modelseal_firmware::slots::Slots;
use modelseal_firmware::state::{Choice, Slot};
use modelseal_firmware::storage::GrantBuffer;

use crate::card::Card;

pub(crate) struct Places {
    card: Card,
}

impl Places {
    pub(crate) fn new(card: Card) -> Self {
        Self { card }
    }

    /// The file's first bytes: all of it, unless it is longer than any grant, which is then refused.
    fn grant<'b>(&self, grant: Slot, buffer: &'b mut GrantBuffer) -> Result<Grant<'b>, Error> {
        let mut file = self.card.open(if grant == Slot::A { "A.GRT" } else { "B.GRT" })?;
        let len = file.capacity().min(DELIVERED_GRANT_MAX);
        let bytes = buffer.get_mut(..len).ok_or(Error::Memory)?;
        file.read(0, bytes)?;
        Grant::parse(bytes)
    }
}

impl Slots for Places {
    fn find<'b>(
        &mut self,
        choice: Choice,
        buffer: &'b mut GrantBuffer,
    ) -> Result<(Grant<'b>, impl ReadStorage), Error> {
        let grant = self.grant(choice.grant, buffer)?;
        let image = self.card.open(if choice.image == Slot::A { "A.SLD" } else { "B.SLD" })?;
        Ok((grant, image))
    }
}
