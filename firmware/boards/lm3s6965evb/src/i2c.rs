//! The chip's own I2C controller, as master.

use core::sync::atomic::{AtomicBool, Ordering};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use crate::chip::CLOCK;
use crate::chip::Peripheral::I2c0;

const ADDRESS: usize = 0x00;
/// Commands when written, the state when read.
const CONTROL: usize = 0x04;
const DATA: usize = 0x08;
const PERIOD: usize = 0x0c;
const CONFIGURATION: usize = 0x20;

const RUN: u32 = 1 << 0;
const START: u32 = 1 << 1;
const STOP: u32 = 1 << 2;
const ACKNOWLEDGE: u32 = 1 << 3;

const BUSY: u32 = 1 << 0;
const ERROR: u32 = 1 << 1;
const NO_ADDRESS: u32 = 1 << 2;
const NO_DATA: u32 = 1 << 3;
const LOST: u32 = 1 << 4;

const MASTER: u32 = 1 << 4;
const SCL: u32 = 100_000;

pub(crate) struct Bus(());

impl Bus {
    /// The first time only.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let bus = (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Self(()))?;
        I2c0.set(CONFIGURATION, MASTER);
        I2c0.set(PERIOD, CLOCK / (20 * SCL) - 1);
        Some(bus)
    }

    fn run(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let mut begun = None;
        let mut rest = operations.iter_mut().filter(|operation| !is_empty(operation)).peekable();
        while let Some(operation) = rest.next() {
            let direction = reads(operation);
            let turns = rest.peek().is_none_or(|next| reads(next) != direction);
            let first = if begun == Some(direction) { 0 } else { START };
            let last = if rest.peek().is_none() { STOP } else { 0 };
            I2c0.set(ADDRESS, u32::from(address) << 1 | u32::from(direction));
            match operation {
                Operation::Write(bytes) => self.send(bytes, first, last)?,
                Operation::Read(bytes) => {
                    self.receive(bytes, first, if turns { last } else { ACKNOWLEDGE })?;
                }
            }
            begun = Some(direction);
        }
        // The controller can't address a device without a byte for it.
        begun.map(|_| ()).ok_or(ErrorKind::Other)
    }

    fn send(&mut self, bytes: &[u8], first: u32, last: u32) -> Result<(), ErrorKind> {
        let end = bytes.len() - 1;
        bytes.iter().enumerate().try_for_each(|(i, byte)| {
            I2c0.set(DATA, (*byte).into());
            self.command(edge(i == 0, first) | edge(i == end, last))
        })
    }

    /// Acknowledges each byte but the last, after which the device lets go of the bus.
    fn receive(&mut self, bytes: &mut [u8], first: u32, last: u32) -> Result<(), ErrorKind> {
        let end = bytes.len() - 1;
        bytes.iter_mut().enumerate().try_for_each(|(i, byte)| {
            self.command(edge(i == 0, first) | if i == end { last } else { ACKNOWLEDGE })?;
            [*byte, ..] = I2c0.get(DATA).to_le_bytes();
            Ok(())
        })
    }

    /// Moves one byte.
    fn command(&mut self, conditions: u32) -> Result<(), ErrorKind> {
        I2c0.set(CONTROL, RUN | conditions);
        let state = I2c0.wait(CONTROL, |state| state & BUSY == 0).ok_or(ErrorKind::Bus)?;
        if state & ERROR == 0 { Ok(()) } else { Err(reason(state)) }
    }
}

fn is_empty(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::Read(bytes) => bytes.is_empty(),
        Operation::Write(bytes) => bytes.is_empty(),
    }
}

fn reads(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Read(_))
}

fn edge(here: bool, condition: u32) -> u32 {
    if here { condition } else { 0 }
}

/// QEMU calls it lost when nobody answers to the address.
fn reason(state: u32) -> ErrorKind {
    match state {
        state if state & NO_ADDRESS != 0 => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
        state if state & NO_DATA != 0 => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data),
        state if state & LOST != 0 => ErrorKind::ArbitrationLoss,
        _ => ErrorKind::Bus,
    }
}

impl ErrorType for Bus {
    type Error = ErrorKind;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let outcome = self.run(address, operations);
        if !matches!(outcome, Ok(()) | Err(ErrorKind::ArbitrationLoss)) {
            I2c0.set(CONTROL, STOP);
        }
        outcome
    }
}
