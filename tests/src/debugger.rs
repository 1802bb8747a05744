//! As much of GDB's remote protocol as the tests need to look into a board: `$packet#checksum`, each acknowledged
//! with `+`. Cortex-M, so registers are 32 bits wide and breakpoints 2 bytes long.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Slower than any board that works, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// A halted processor.
pub struct Debugger {
    stream: BufReader<UnixStream>,
}

/// What `g` gave: r0 to r15, then others that only [`Debugger::restore`] needs.
pub struct Registers(Vec<u8>);

impl Registers {
    /// The register r`n`; 14 is the link register, and 15 the program counter.
    pub fn r(&self, n: usize) -> u32 {
        u32::from_le_bytes(self.0[4 * n..][..4].try_into().unwrap())
    }
}

impl Debugger {
    /// Connects to a board, if it listens already.
    pub fn connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream: BufReader::new(stream) })
    }

    /// Runs until an instruction at one of `addresses` is about to be executed.
    pub fn run_to(&mut self, addresses: &[u32]) -> Registers {
        for address in addresses {
            self.command(&format!("Z0,{address:x},2"));
        }
        let stopped = self.exchange("c");
        assert!(stopped.starts_with("T05"), "stopped with {stopped}");
        for address in addresses {
            self.command(&format!("z0,{address:x},2"));
        }
        self.registers()
    }

    /// Executes one instruction.
    pub fn step(&mut self) {
        let stopped = self.exchange("s");
        assert!(stopped.starts_with("T05"), "stopped with {stopped}");
    }

    /// The registers that every processor has.
    pub fn registers(&mut self) -> Registers {
        Registers(hex::decode(self.exchange("g")).unwrap())
    }

    /// Puts registers back as they were.
    pub fn restore(&mut self, registers: &Registers) {
        self.command(&format!("G{}", hex::encode(&registers.0)));
    }

    /// Sets the register r`n`.
    pub fn set_register(&mut self, n: usize, value: u32) {
        let Registers(mut all) = self.registers();
        all[4 * n..][..4].copy_from_slice(&value.to_le_bytes());
        self.restore(&Registers(all));
    }

    /// What QEMU's monitor answers.
    pub fn monitor(&mut self, command: &str) -> String {
        self.send(&format!("qRcmd,{}", hex::encode(command)));
        let mut answer = Vec::new();
        loop {
            match self.receive() {
                packet if packet == "OK" => return String::from_utf8(answer).unwrap(),
                packet => answer.extend(hex::decode(packet.strip_prefix('O').unwrap()).unwrap()),
            }
        }
    }

    /// Ends the board.
    pub fn kill(&mut self) {
        self.send("k");
    }

    fn command(&mut self, packet: &str) {
        let answer = self.exchange(packet);
        assert_eq!(answer, "OK", "{packet}");
    }

    fn exchange(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        // A board that has ended is noticed by whoever waits for its answer.
        let _ = write!(self.stream.get_mut(), "${packet}#{sum:02x}");
    }

    fn receive(&mut self) -> String {
        let mut packet = Vec::new();
        self.stream.skip_until(b'$').unwrap();
        self.stream.read_until(b'#', &mut packet).unwrap();
        self.stream.read_exact(&mut [0; 2]).expect("the board has ended");
        let _ = self.stream.get_mut().write_all(b"+");
        packet.pop();
        String::from_utf8(packet).unwrap()
    }
}
