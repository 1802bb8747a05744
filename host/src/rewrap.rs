//! Sealed model -> the same one with its content key under the newest master key (FORMAT.md, section 4.3).
//!
//! ```text
//! before                 [old][   ][   ][   ]
//! 1 write a free slot    [old][new][   ][   ]     then sync: from here on both open
//! 2 read it back         does it open?
//! 3 clear the old ones   [   ][new][   ][   ]     then sync
//! ```
//!
//! Nothing but 128 bytes at a time is written, so a hundred GiB take no longer than one. Whatever interrupts it, a slot
//! opens. In step 1 only bytes change that didn't open anything; in step 3 the new slot is on the disk. Slots aren't
//! aligned to sectors or pages, for the manifest before them has any length, so one may lie in two. Then a torn write
//! can leave half of it, which is the same as any other torn slot: it doesn't open, and the next rewrap clears it. And
//! where a sector holds bytes of a neighbour, too, they are written as they were: a sector is the old or the new one as a
//! whole, and the neighbour is the same in both.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use modelseal_core::sealed::{Envelope, Header, Held, Layout, SLOT_LEN, Slot};
use modelseal_hsm::{OpenSlot, Role, Vault};

use crate::error::{Code, Error, Result};
use crate::files;
use crate::io::Input;
use crate::open::SealedFile;

/// What a rewrap did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// The master key's version under which the content key is now.
    pub to: u32,
    /// Whether a slot was written for it; otherwise it was there already.
    pub written: bool,
    /// The versions whose slots were cleared.
    pub cleared: Vec<u32>,
}

/// Where an envelope is stored, to be changed slot by slot.
pub trait Slots {
    /// The envelope as it is stored now.
    fn envelope(&mut self) -> Result<Envelope>;

    /// Writes one slot and nothing else.
    fn write(&mut self, number: usize, bytes: &[u8; SLOT_LEN]) -> Result<()>;

    /// Returns when what was written would survive a cut of power.
    fn sync(&mut self) -> Result<()>;
}

/// Moves the sealed model in `path` to the newest master key. Others who do the same wait.
pub fn rewrap(vault: &dyn Vault, path: &Path) -> Result<Rewrapped> {
    let file = Input::file(path, true)?;
    files::hold(&file, path)?;
    // Read under the lock: another may have changed it just before.
    let sealed = SealedFile::from_file(path, file.try_clone().map_err(|error| Error::io(path, &error))?)?;
    let header = sealed.header()?;
    let mut slots = FileSlots { path, file, layout: header.layout() };
    rewrap_slots(vault, &header, &mut slots).map_err(|error| match error.code() {
        Code::Io => error,
        _ => error.about(path),
    })
}

/// The same wherever the envelope is.
pub fn rewrap_slots(vault: &dyn Vault, header: &Header<'_>, slots: &mut dyn Slots) -> Result<Rewrapped> {
    let envelope = slots.envelope()?;
    let slot = vault.rewrap(header.clone(), &envelope)?;
    if let Some(slot) = &slot {
        let open = vault.open_slots(header.clone(), &envelope)?;
        slots.write(place(&envelope, &open)?, &slot.encode())?;
        slots.sync()?;
    }
    let envelope = slots.envelope()?;
    let open = vault.open_slots(header.clone(), &envelope)?;
    let newest = open.into_iter().max_by_key(|open| open.version);
    let kept = newest.filter(|open| slot.is_none_or(|slot| slot.version == open.version));
    let kept = kept.ok_or(modelseal_core::Error::KeySlot)?;
    let cleared = clear(vault, &envelope, kept, slots)?;
    Ok(Rewrapped { to: kept.version, written: slot.is_some(), cleared })
}

/// The slot to write: a free one; else one that doesn't open; else one of several that open. Never one of a kind that
/// isn't known: it may be what another vault opens.
fn place(envelope: &Envelope, open: &[OpenSlot]) -> Result<usize> {
    let opens = |number: &usize| open.iter().any(|slot| slot.number == *number);
    let ours = || envelope.held().filter(|(_, held)| !is_foreign(held)).map(|(number, _)| number);
    let closed = || ours().find(|number| !opens(number));
    let spare = || open.split_first().filter(|(_, rest)| !rest.is_empty()).map(|(first, _)| first.number);
    envelope.free_slot().or_else(closed).or_else(spare).ok_or_else(|| {
        let what =
            "none of its key slots can be written: the one that opens is needed, others are of another kind";
        Error::new(Code::Other, what, "make a model with more slots of it: `modelseal reseal`")
    })
}

/// Clears every other slot of a version that the vault knows, whether it opens or was torn. A slot of an unknown version
/// may be a newer vault's, of which this one is an old backup; and a slot of an unknown kind isn't this vault's, whatever
/// version it names, for a version of a master key has one kind.
fn clear(vault: &dyn Vault, envelope: &Envelope, kept: OpenSlot, slots: &mut dyn Slots) -> Result<Vec<u32>> {
    let keys = vault.keys()?;
    let known = |version: u32| keys.iter().any(|key| key.role == Role::Master && key.version == version);
    let mut cleared = Vec::new();
    for (number, held) in envelope.held() {
        if number != kept.number && known(held.version()) && !is_foreign(&held) {
            slots.write(number, &Slot::EMPTY)?;
            cleared.push(held.version());
        }
    }
    if !cleared.is_empty() {
        slots.sync()?;
    }
    Ok(cleared)
}

fn is_foreign(held: &Held) -> bool {
    matches!(held, Held::Foreign { .. })
}

/// The envelope of a sealed model in a file.
struct FileSlots<'a> {
    path: &'a Path,
    file: File,
    layout: Layout,
}

impl Slots for FileSlots<'_> {
    fn envelope(&mut self) -> Result<Envelope> {
        let mut bytes = Vec::new();
        let len = self.layout.index - self.layout.envelope;
        let read = self.file.seek(SeekFrom::Start(self.layout.envelope));
        let read = read.and_then(|_| Read::by_ref(&mut self.file).take(len).read_to_end(&mut bytes));
        read.map_err(|error| Error::io(self.path, &error))?;
        Ok(Envelope::parse(&bytes)?)
    }

    fn write(&mut self, number: usize, bytes: &[u8; SLOT_LEN]) -> Result<()> {
        let at = self.layout.slot(number).ok_or(modelseal_core::Error::EnvelopeLength)?;
        let written = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|error| Error::io(self.path, &error))
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io(self.path, &error))
    }
}
