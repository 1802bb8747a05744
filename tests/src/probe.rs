//! A board under a debugger, started by `firmware/boot --gdb`: the image that ships, unchanged, from one line of its
//! log to the next. How many instructions that took is exact: QEMU counts each (`-icount shift=0`). What writes a
//! line isn't counted, for it depends on what the line says.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use modelseal::identity::Identity;
use object::{Object, ObjectSection, ObjectSymbol};
use tempfile::TempDir;

use crate::boards::BOOT;
use crate::debugger::Debugger;
use crate::workspace::scratch;

/// SSRAM 2 and 3: the image's data, its stack, and what was provisioned.
pub const RAM: (u32, usize) = (0x2000_0000, 4 << 20);
/// Where the sealed model lies.
pub const PSRAM: (u32, usize) = (0x2100_0000, 16 << 20);
/// `bkpt #0xab`, little-endian: calls the semihosting host.
const SEMIHOSTING: [u8; 2] = [0xab, 0xbe];
const SYS_EXIT_EXTENDED: u32 = 0x20;

/// What a board is started with.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The sealed model.
    pub sealed: &'a [u8],
    /// The grant.
    pub grant: &'a [u8],
    /// The device's identity.
    pub identity: &'a Identity,
    /// More options of `firmware/boot`.
    pub more: &'a [&'a str],
}

/// A board that stands still.
pub struct Probe {
    dir: TempDir,
    boot: Child,
    log: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    debugger: Debugger,
    image: Image,
    /// How many instructions had been executed when the last line was complete.
    since: u64,
}

/// A line of the log, and how many instructions led to it from the one before.
pub type Stage = (String, u64);

impl Probe {
    /// Halted at reset.
    pub fn start(given: Given<'_>) -> Self {
        let dir = scratch();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("sealed"), given.sealed).unwrap();
        std::fs::write(path("grant"), given.grant).unwrap();
        given.identity.write_new(&path("identity")).unwrap();
        let mut boot = Command::new(BOOT)
            .args([
                "--board",
                "mps2-an386",
                "--sealed",
                "sealed",
                "--grant",
                "grant",
                "--identity",
                "identity",
            ])
            .args(["--gdb", "socket", "--timeout", "110"])
            .args(given.more)
            .current_dir(&dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{BOOT}: {error}"));
        let log = BufReader::new(boot.stdout.take().unwrap());
        let mut stderr = BufReader::new(boot.stderr.take().unwrap());
        let image = Image::read(Path::new(&image_path(&mut stderr)));
        let debugger = connect(&mut boot, &path("socket"), &mut stderr);
        Self { dir, boot, log, stderr, debugger, image, since: 0 }
    }

    /// Runs to the next line of the log and past it. After the last one it is the exit that is about to happen.
    pub fn next_line(&mut self) -> Option<Stage> {
        let Image { line, written, hosts, .. } = self.image.clone();
        let stopped = self.debugger.run_to(&[&[line], &hosts[..]].concat());
        let before = self.executed();
        if stopped.r(15) != line {
            assert_eq!(stopped.r(0), SYS_EXIT_EXTENDED, "another call of the host than an exit or a line");
            return None;
        }
        let back = self.debugger.run_to(&[written]).r(14) & !1;
        self.debugger.run_to(&[back]);
        let instructions = before - self.since;
        self.since = self.executed();
        Some((self.said(), instructions))
    }

    /// Runs past the line that begins with `start`, and gives the stages up to it.
    pub fn run_past(&mut self, start: &str) -> Vec<Stage> {
        let mut stages = Vec::new();
        while stages.last().is_none_or(|(line, _): &Stage| !line.starts_with(start)) {
            let stage = self.next_line().unwrap_or_else(|| panic!("no line {start:?} in {stages:?}"));
            stages.push(stage);
        }
        stages
    }

    /// Goes on with the function whose mangled name has `part` in it, as if it had been called.
    pub fn jump_to(&mut self, part: &str) {
        let address = self.image.find(part);
        self.debugger.set_register(15, address);
    }

    /// Runs until that function is called, for the `times`th time from now. False if the board ends before.
    pub fn run_to_call(&mut self, part: &str, times: usize) -> bool {
        let (called, ends) = (self.image.find(part), self.image.hosts.clone());
        let places = [&[called], &ends[..]].concat();
        let mut left = times;
        while left > 0 {
            let stopped = self.debugger.run_to(&places);
            match stopped.r(15) == called {
                true => left -= 1,
                false if stopped.r(0) == SYS_EXIT_EXTENDED => return false,
                false => {}
            }
            self.debugger.step();
        }
        true
    }

    /// Cuts the power.
    pub fn cut(self) {}

    /// Goes on among the peripherals, where nothing can be executed.
    pub fn fault(&mut self) {
        self.debugger.set_register(15, 0x4000_0000);
    }

    /// Sets the register r`n`.
    pub fn set_register(&mut self, n: usize, value: u32) {
        self.debugger.set_register(n, value);
    }

    /// Executes the next instruction twice.
    pub fn repeat_instruction(&mut self) {
        let before = self.debugger.registers();
        self.debugger.step();
        self.debugger.restore(&before);
    }

    /// A copy of memory.
    pub fn memory(&mut self, (start, len): (u32, usize)) -> Vec<u8> {
        let path = self.dir.path().join("memory");
        let answer = self.debugger.monitor(&format!("pmemsave {start:#x} {len:#x} {path:?}"));
        assert_eq!(answer, "");
        std::fs::read(path).unwrap()
    }

    /// The processor's registers in order: r0 to r15, and s0 to s31 of its floating-point unit.
    pub fn registers(&mut self) -> Vec<u8> {
        let text = self.debugger.monitor("info registers");
        let words = text.split_whitespace().filter_map(|word| word.split_once('='));
        let single = |name: &str| name.len() == 3 && name.starts_with(['R', 's']);
        let values = words.filter(|(name, _)| single(name));
        let values: Vec<u8> =
            values.flat_map(|(_, hex)| u32::from_str_radix(hex, 16).unwrap().to_le_bytes()).collect();
        assert_eq!(values.len(), (16 + 32) * 4, "{text}");
        values
    }

    fn said(&mut self) -> String {
        let mut line = String::new();
        if self.log.read_line(&mut line).unwrap() == 0 {
            let mut noise = String::new();
            self.stderr.read_to_string(&mut noise).unwrap();
            panic!("firmware/boot: {noise}");
        }
        line.trim_end().to_owned()
    }

    fn executed(&mut self) -> u64 {
        let answer = self.debugger.monitor("info replay");
        let count = answer.trim().rsplit(' ').next().and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("no number of instructions in {answer:?}"))
    }
}

impl Drop for Probe {
    /// Leaves no board behind that waits.
    fn drop(&mut self) {
        self.debugger.kill();
        let _ = self.boot.wait();
    }
}

/// Two boards at a time.
pub fn in_parallel<C: Sync>(cases: &[C], each: impl Fn(&C) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            each(case);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

/// Waits until the script has built everything and says where the symbols are.
fn image_path(stderr: &mut impl BufRead) -> String {
    let mut said = String::new();
    while stderr.read_line(&mut said).unwrap() > 0 {
        let last = said.lines().last().unwrap();
        if let Some((_, path)) = last.split_once("; symbols are in ") {
            return path.to_owned();
        }
    }
    panic!("firmware/boot: {said}");
}

fn connect(boot: &mut Child, socket: &Path, stderr: &mut impl Read) -> Debugger {
    loop {
        if let Some(debugger) = Debugger::connect(socket) {
            return debugger;
        }
        if let Some(status) = boot.try_wait().unwrap() {
            let mut noise = String::new();
            stderr.read_to_string(&mut noise).unwrap();
            panic!("firmware/boot: {status} {noise}");
        }
        sleep(Duration::from_millis(5));
    }
}

/// Where to stop.
#[derive(Clone)]
struct Image {
    symbols: Vec<(String, u32)>,
    /// Where defmt begins to write a line, and where it ends.
    line: u32,
    written: u32,
    /// Wherever the host may be called.
    hosts: Vec<u32>,
}

impl Image {
    fn find(&self, part: &str) -> u32 {
        self.symbols.iter().find(|(name, _)| name.contains(part)).unwrap().1
    }

    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        // Bit 0 of a function's address says Thumb.
        let address = |address: u64| u32::try_from(address).unwrap() & !1;
        let symbols: Vec<(String, u32)> = elf
            .symbols()
            .filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), address(symbol.address()))))
            .collect();
        let find = |name: &str| symbols.iter().find(|(found, _)| found == name).unwrap().1;
        let (line, written) = (find("_defmt_acquire"), find("_defmt_release"));
        let text = elf.section_by_name(".text").unwrap();
        let code = text.data().unwrap().chunks(2).zip((address(text.address())..).step_by(2));
        // Some of these are halves of something else, and never reached.
        let hosts = code.filter(|(code, _)| *code == SEMIHOSTING).map(|(_, at)| at).collect();
        Self { symbols, line, written, hosts }
    }
}
