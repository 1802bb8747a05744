//! Peak resident memory of `seal` and `open` on 5 GiB, vault included: less than 64 MiB.
//!
//! It runs the release build where there is one beside the tests' own, for speed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelseal_tests::workspace::{program, require_fresh};
use modelseal_tests::{Workspace, counted};

const GIB: u64 = 1 << 30;
const LENGTH: u64 = 5 * GIB + 12_345;
const LIMIT_KIB: u64 = 64 * 1024;

/// A hole but for marks at both ends and beyond what 32 bits can count.
const MARKS: [u64; 4] = [0, 4 * GIB - 8, 4 * GIB + 777, LENGTH - 16];
const MARK: &[u8; 16] = b"modelseal's mark";

#[test]
fn five_gib_within_64_mib() {
    let bench = Bench::new();
    bench.seal(&[]);
    bench.run("verify", &["verify", &bench.sealed]);
    bench.run("open", &["open", &bench.sealed, "-o", &bench.opened]);
    assert_same(&bench.model, &bench.opened);
}

/// With chunks for small devices the index alone is as long as the memory that is allowed; and from a pipe it can't
/// be read twice.
#[test]
fn five_gib_in_small_chunks_within_64_mib() {
    let bench = Bench::new();
    bench.seal(&["--profile", "device"]);
    bench.run("open", &["open", "-", "-o", "/dev/null"]);
}

/// One at a time, for room.
static ONE: Mutex<()> = Mutex::new(());

/// A vault, a program, and a model that is a hole but for its marks.
struct Bench {
    workspace: Workspace,
    program: PathBuf,
    model: String,
    sealed: String,
    opened: String,
    _big: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let big = roomy();
        let file = |name: &str| big.path().join(name).to_str().unwrap().to_owned();
        let (model, sealed, opened) = (file("model"), file("sealed"), file("opened"));
        let holes = File::create(&model).unwrap();
        holes.set_len(LENGTH).unwrap();
        MARKS.iter().for_each(|at| holes.write_all_at(MARK, *at).unwrap());
        let workspace = Workspace::with_vault("file:vault.json");
        let bench = Self { workspace, program: fastest(), model, sealed, opened, _big: big, _alone: alone };
        bench.run("init", &["init"]);
        bench
    }

    fn seal(&self, profile: &[&str]) {
        let seal = ["seal", &self.model, "-o", &self.sealed, "--line", "big", "--model-version", "1"];
        self.run("seal", &[&seal[..], profile].concat());
    }

    /// Runs a command, with the sealed model at its standard input.
    fn run(&self, what: &str, arguments: &[&str]) {
        let like = self.workspace.command(arguments);
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.workspace.dir()).env_clear();
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Ok(sealed) = File::open(&self.sealed) {
            command.stdin(sealed);
        }
        let peak = peak(what, &mut command);
        assert!(peak < LIMIT_KIB, "{what}: {peak} KiB");
    }
}

/// The release build, if it is as new as the sources, else the tests' own.
fn fastest() -> PathBuf {
    let own = program();
    let release = own.parent().unwrap().parent().unwrap().join("release/modelseal");
    if release.exists() {
        require_fresh(&release, "run `cargo build --release -p modelseal` first");
        return release;
    }
    println!("there is no release build (cargo build --release -p modelseal): this will take long");
    own
}

/// A folder with room for the model twice: in memory if there is plenty of that.
fn roomy() -> tempfile::TempDir {
    let free = |dir: &str| rustix::fs::statvfs(dir).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    let information = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = kib(&information, "MemAvailable:").unwrap() * 1024;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("modelseal-test-");
    if free("/dev/shm").min(available) > 14 * GIB {
        return builder.tempdir_in("/dev/shm").unwrap();
    }
    let dir = builder.tempdir().unwrap();
    let room = free(dir.path().to_str().unwrap());
    assert!(
        room > 11 * GIB,
        "{} has {room} bytes free and 11 GiB are needed: set TMPDIR",
        dir.path().display()
    );
    dir
}

/// Runs a command that must succeed, and gives its peak resident memory in KiB, which the system keeps as a high
/// water mark while the process is there.
fn peak(what: &str, command: &mut Command) -> u64 {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let seen = std::fs::read_to_string(&status).ok().and_then(|status| kib(&status, "VmHWM:"));
        peak = peak.max(seen.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success(), "{what}: {ended}");
    let seconds = began.elapsed().as_secs_f32();
    counted(&format!("memory: {what} 5 GiB: peak {peak} KiB resident, {seconds:.1} s"));
    assert!(peak > 0, "{what}: {status} didn't say");
    peak
}

/// The number of KiB behind `name` in a file of /proc.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn assert_same(left: impl AsRef<Path>, right: impl AsRef<Path>) {
    let (left, right) = (File::open(left).unwrap(), File::open(right).unwrap());
    let length = left.metadata().unwrap().len();
    assert_eq!(length, right.metadata().unwrap().len());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..length).step_by(1 << 20) {
        let n = (length - at).min(1 << 20).try_into().unwrap();
        left.read_exact_at(&mut a[..n], at).unwrap();
        right.read_exact_at(&mut b[..n], at).unwrap();
        assert!(a[..n] == b[..n], "they differ after {at} bytes");
    }
}
