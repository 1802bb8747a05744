//! The SD card, and the files in its root.
//!
//! The driver's own start-up insists that CMD58 is answered with 0 once the card has started, as cards do. QEMU's
//! answers 1, so the start-up is here.

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{Operation, SpiBus, SpiDevice};
use embedded_hal_bus::spi::ExclusiveDevice;
use embedded_sdmmc::embedded_sdmmc_types::sdcard::CardType;
use embedded_sdmmc::{Mode, RawDirectory, SdCard, TimeSource, Timestamp, VolumeIdx, VolumeManager};
use embedded_storage::ReadStorage;
use modelseal_firmware::modelseal_core::Error;

use crate::chip::Pause;
use crate::spi::{Bus, Select};
use crate::volume;

type Device = ExclusiveDevice<Bus, Select, Pause>;
type Manager = VolumeManager<SdCard<Device, Pause>, Never, 1, 1, 1>;

/// A card with its root open. One block of it is kept, so what is read piece by piece is read from the card once.
pub(crate) struct Card {
    manager: Manager,
    root: RawDirectory,
}

impl Card {
    /// Starts the card. It can be taken once.
    pub(crate) fn take() -> Result<Self, Error> {
        let (mut bus, select) = Bus::take().zip(Select::take()).ok_or(Error::Storage)?;
        wake(&mut bus)?;
        let device = ExclusiveDevice::new(bus, select, Pause).map_err(|_| Error::Storage)?;
        let card = SdCard::new(device, Pause);
        let kind = card.spi(start)?;
        // SAFETY: it has been started, and says to be of that kind.
        unsafe { card.mark_card_as_init(kind) };
        volume::check(&card)?;
        let manager = Manager::new_with_limits(card, Never, 0);
        let volume = manager.open_raw_volume(VolumeIdx(0)).map_err(|_| Error::Storage)?;
        let root = manager.open_root_dir(volume).map_err(|_| Error::Storage)?;
        Ok(Self { manager, root })
    }

    /// A file in the root. One at a time.
    pub(crate) fn open(&self, name: &str) -> Result<File<'_>, Error> {
        let file = self.manager.open_file_in_dir(self.root, name, Mode::ReadOnly);
        Ok(File(file.map_err(|_| Error::Storage)?.to_file(&self.manager)))
    }
}

/// A file, exactly as long as it is.
pub(crate) struct File<'c>(embedded_sdmmc::File<'c, SdCard<Device, Pause>, Never, 1, 1, 1>);

impl ReadStorage for File<'_> {
    type Error = Error;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.seek_from_start(offset).map_err(|_| Error::Storage)?;
        match self.0.read(bytes) {
            Ok(len) if len == bytes.len() => Ok(()),
            _ => Err(Error::Storage),
        }
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.0.length()).unwrap_or(usize::MAX)
    }
}

/// Nothing is written, so no time is needed.
struct Never;

impl TimeSource for Never {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp::from_fat(0, 0)
    }
}

/// The clocks that a card needs before it is first selected: 74 or more.
fn wake(bus: &mut Bus) -> Result<(), Error> {
    bus.write(&[0xff; 10]).map_err(|_| Error::Storage)
}

/// A command: its number, its argument and the checksum of both.
type Command = (u8, u32, u8);
const RESET: Command = (0, 0, 0x95);
const VOLTAGE: Command = (8, 0x1aa, 0x87);
const CHECKSUMS: Command = (59, 1, 0x83);
const APPLICATION: Command = (55, 0, 0x65);
const START: Command = (41, 0x4000_0000, 0x77);
const CONDITIONS: Command = (58, 0, 0xfd);

const READY: u8 = 0;
const IDLE: u8 = 1;
/// How often a card is asked whether it is ready, a millisecond apart. It may take a second.
const PATIENCE: u32 = 1000;

/// Starts a card of version 2, and then goes as fast as one can (SD Physical Layer, section 7.2.1).
fn start(device: &mut Device) -> Result<CardType, Error> {
    expect(ask(device, RESET)?, IDLE)?;
    // It runs at this voltage, and gives back the pattern that it was sent.
    let answer = ask(device, VOLTAGE)?;
    expect(answer, IDLE)?;
    if answer.1 & 0xfff != VOLTAGE.1 {
        return Err(Error::Storage);
    }
    expect(ask(device, CHECKSUMS)?, IDLE)?;
    become_ready(device)?;
    let (_, conditions) = ask(device, CONDITIONS)?;
    device.bus_mut().hurry();
    Ok(if conditions & 1 << 30 == 0 { CardType::SD2 } else { CardType::SdhcSdxc })
}

fn become_ready(device: &mut Device) -> Result<(), Error> {
    for _ in 0..PATIENCE {
        ask(device, APPLICATION)?;
        if ask(device, START)?.0 == READY {
            return Ok(());
        }
        Pause.delay_ms(1);
    }
    Err(Error::Storage)
}

fn expect((state, _): (u8, u32), expected: u8) -> Result<(), Error> {
    if state == expected { Ok(()) } else { Err(Error::Storage) }
}

/// The card's state, within eight bytes of the command, and what follows it.
fn ask(device: &mut Device, (command, argument, checksum): Command) -> Result<(u8, u32), Error> {
    let [a, b, c, d] = argument.to_be_bytes();
    let sent = [0x40 | command, a, b, c, d, checksum];
    let mut received = [0; 8 + 1 + 4];
    device
        .transaction(&mut [Operation::Write(&sent), Operation::Read(&mut received)])
        .map_err(|_| Error::Storage)?;
    let answers = received.array_windows().take(9);
    let answer = answers.copied().find(|[state, ..]: &[u8; 5]| state & 0x80 == 0);
    let [state, a, b, c, d] = answer.ok_or(Error::Storage)?;
    Ok((state, u32::from_be_bytes([a, b, c, d])))
}
