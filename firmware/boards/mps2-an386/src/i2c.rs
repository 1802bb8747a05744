//! The board's I2C bus, of which software moves each edge.

use core::ptr::{self, with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicBool, Ordering};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use crate::board::CLOCK;

const SET: usize = 0x4002_a000;
const CLEAR: usize = SET + 4;
const SCL: u32 = 1 << 0;
const SDA: u32 = 1 << 1;
/// Half a bit at 100 kHz, in cycles.
const HALF_BIT: u32 = CLOCK / 200_000;

/// The only controller of its bus, so neither stretched clocks nor lost arbitration are looked for.
pub(crate) struct BitBang(());

impl BitBang {
    /// The first time only.
    pub(crate) fn take() -> Option<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        (!TAKEN.swap(true, Ordering::Relaxed)).then_some(Self(()))
    }

    fn run(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let mut reading = None;
        let mut rest = operations.iter_mut().peekable();
        while let Some(operation) = rest.next() {
            let reads = matches!(operation, Operation::Read(_));
            if reading != Some(reads) {
                self.start();
                self.send(address << 1 | u8::from(reads), NoAcknowledgeSource::Address)?;
                reading = Some(reads);
            }
            match operation {
                Operation::Write(bytes) => {
                    bytes.iter().try_for_each(|byte| self.send(*byte, NoAcknowledgeSource::Data))?;
                }
                Operation::Read(bytes) => {
                    let more = matches!(rest.peek(), Some(Operation::Read(_)));
                    self.receive(bytes, more);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        self.set(SDA);
        self.set(SCL);
        self.clear(SDA);
        self.clear(SCL);
    }

    fn stop(&mut self) {
        self.clear(SDA);
        self.set(SCL);
        self.set(SDA);
    }

    fn send(&mut self, byte: u8, source: NoAcknowledgeSource) -> Result<(), ErrorKind> {
        for bit in (0..8).rev() {
            self.exchange(byte >> bit & 1 == 1);
        }
        if self.exchange(true) { Err(ErrorKind::NoAcknowledge(source)) } else { Ok(()) }
    }

    /// Acknowledges each byte but the last, after which the device lets go of the bus.
    fn receive(&mut self, bytes: &mut [u8], more: bool) {
        let mut left = bytes.len();
        for byte in bytes {
            *byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.exchange(true)));
            left -= 1;
            self.exchange(left == 0 && !more);
        }
    }

    /// One clock: drives SDA low, or lets go of it and sees who else does.
    fn exchange(&mut self, high: bool) -> bool {
        if high {
            self.set(SDA)
        } else {
            self.clear(SDA)
        }
        self.set(SCL);
        let seen = self.read() & SDA != 0;
        self.clear(SCL);
        seen
    }

    fn set(&mut self, lines: u32) {
        // SAFETY: the register that lets go of lines. It is 32 bits wide and aligned, writing it has no
        // effect on memory, and `self` is the only one to do so.
        unsafe { ptr::write_volatile(with_exposed_provenance_mut(SET), lines) };
        cortex_m::asm::delay(HALF_BIT);
    }

    fn clear(&mut self, lines: u32) {
        // SAFETY: the register that pulls lines low; otherwise as in `set`.
        unsafe { ptr::write_volatile(with_exposed_provenance_mut(CLEAR), lines) };
        cortex_m::asm::delay(HALF_BIT);
    }

    fn read(&mut self) -> u32 {
        // SAFETY: the register that shows the lines. It is 32 bits wide and aligned, and reading it changes
        // nothing.
        unsafe { ptr::read_volatile(with_exposed_provenance(SET)) }
    }
}

impl ErrorType for BitBang {
    type Error = ErrorKind;
}

impl I2c for BitBang {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let outcome = self.run(address, operations);
        self.stop();
        outcome
    }
}
