//! What a host does while others write to its files, read along with it, or leave it little memory: an error or the right
//! model, never a crash and never a byte that wasn't checked.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelseal::open::SealedFile;
use modelseal::{Code, Error};
use modelseal_core::manifest::Suite;
use modelseal_tests::bench::{Bench, contents};
use modelseal_tests::workspace::program;
use modelseal_tests::{Workspace, counted};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Several units of work, for several threads.
const LENGTH: usize = 3_000_000;

/// One at a time: what a process uses is measured or limited, and the others would count.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bench(length: usize) -> (Bench, PathBuf, Vec<u8>) {
    let bench = Bench::new();
    let plain = contents("under load", length);
    let model = bench.seal_bytes(Suite::Aes256Gcm, "wake-word", 1, plain.clone());
    let path = bench.path("loaded");
    std::fs::write(&path, &model.sealed).unwrap();
    (bench, path, plain)
}

/// The three ways to open: what came out, or why nothing did.
fn open_each_way(bench: &Bench, path: &Path, plain: &[u8]) -> Vec<Result<(), Error>> {
    let whole = SealedFile::open(path).and_then(|mut sealed| {
        let (model, _) =
            sealed.open_whole(|sealed| sealed.unwrap_by_vault(&*bench.vault, None), &mut |_| ())?;
        assert!(*model == *plain, "whole: another model");
        Ok(())
    });
    let mut written = Vec::new();
    let copied = SealedFile::open(path).and_then(|mut sealed| {
        let out = &mut |bytes: &[u8]| {
            written.extend_from_slice(bytes);
            Ok(())
        };
        sealed.copy_to(|sealed| sealed.unwrap_by_vault(&*bench.vault, None), out, &mut |_| ()).map(|_| ())
    });
    assert!(plain.starts_with(&written), "copied: other bytes");
    assert!(copied.is_err() || written.len() == plain.len());
    let lazy = SealedFile::open(path).and_then(|sealed| {
        let model = sealed.open_lazily(|sealed| sealed.unwrap_by_vault(&*bench.vault, None))?;
        for at in [0, 70_001, 1_500_000, plain.len() - 300_000] {
            let mut part = vec![0xee; 300_000];
            match model.read_at(at as u64, &mut part) {
                Ok(()) => assert!(part == plain[at..at + 300_000], "lazy: other bytes"),
                Err(error) => {
                    assert!(part.iter().all(|byte| *byte == 0), "lazy: not wiped");
                    return Err(error);
                }
            }
        }
        Ok(())
    });
    vec![whole, copied, lazy]
}

/// Opens again and again while `meddle` does something to the file, and undoes it.
fn while_it(what: &str, bench: &Bench, path: &Path, plain: &[u8], meddle: impl Fn(&Path, u64) + Sync) {
    let over = AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                meddle(path, n);
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            for outcome in open_each_way(bench, path, plain) {
                match outcome {
                    Ok(()) => opened += 1,
                    Err(error) => {
                        assert!(
                            matches!(error.code(), Code::NotAuthentic | Code::Io | Code::Unsupported),
                            "{error}"
                        );
                        refused += 1;
                    }
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(refused > 0, "{what}: nothing was ever seen of it");
    counted(&format!(
        "under load: a file that {what}: opened {opened} times, refused {refused}, never wrong"
    ));
}

#[test]
fn a_file_that_changes() {
    let _alone = alone();
    let (bench, path, plain) = bench(LENGTH);
    let sealed = std::fs::read(&path).unwrap();
    let payload = sealed.len() - plain.len();
    while_it("changes", &bench, &path, &plain, |path, n| {
        let file = File::options().write(true).open(path).unwrap();
        let at = payload + usize::try_from(n).unwrap() * 7919 % plain.len();
        file.write_all_at(&[!sealed[at]], at as u64).unwrap();
        std::thread::sleep(Duration::from_micros(n % 7 * 300));
        file.write_all_at(&[sealed[at]], at as u64).unwrap();
        std::thread::sleep(Duration::from_micros(n % 5 * 900));
    });
}

#[test]
fn a_file_that_shrinks() {
    let _alone = alone();
    let (bench, path, plain) = bench(LENGTH);
    let sealed = std::fs::read(&path).unwrap();
    while_it("shrinks", &bench, &path, &plain, |path, n| {
        let file = File::options().write(true).open(path).unwrap();
        let to = sealed.len() - 1 - usize::try_from(n).unwrap() * 104_729 % (sealed.len() - 1);
        file.set_len(to as u64).unwrap();
        std::thread::sleep(Duration::from_micros(n % 7 * 300));
        file.write_all_at(&sealed[to..], to as u64).unwrap();
        std::thread::sleep(Duration::from_micros(n % 5 * 900));
    });
}

#[test]
fn a_file_that_vanishes() {
    let _alone = alone();
    let (bench, path, plain) = bench(LENGTH);
    let aside = path.with_extension("aside");
    while_it("vanishes", &bench, &path, &plain, |path, n| {
        std::fs::rename(path, &aside).unwrap();
        std::thread::sleep(Duration::from_micros(n % 7 * 300));
        std::fs::rename(&aside, path).unwrap();
        std::thread::sleep(Duration::from_micros(n % 5 * 900));
    });
}

#[test]
fn a_thousand_readers_of_one_model_agree() {
    let _alone = alone();
    let (bench, path, plain) = bench(LENGTH);
    let sealed = SealedFile::open(&path).unwrap();
    let model = sealed.open_lazily(|sealed| sealed.unwrap_by_vault(&*bench.vault, None)).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..1000 {
            let (model, plain) = (&model, &plain);
            let read = move || {
                for n in 0..4 {
                    let at = (reader * 2_654_435 + n * 777_777) % plain.len();
                    let len = (reader * 131 + n * 8191) % 100_000;
                    let mut part = vec![0; len.min(plain.len() - at)];
                    model.read_at(at as u64, &mut part).unwrap();
                    assert!(part == plain[at..at + part.len()], "reader {reader} at {at}");
                }
            };
            std::thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, read).unwrap();
        }
    });
    let beyond = model.read_at(plain.len() as u64 - 1, &mut [0; 2]).unwrap_err();
    assert_eq!(beyond.code(), Code::Usage);
    model.read_at(plain.len() as u64, &mut []).unwrap();
    counted("under load: 1000 readers of one lazy model agree");
}

#[test]
fn ten_thousand_models_leak_nothing() {
    let _alone = alone();
    let (bench, path, plain) = bench(20_000);
    let once = || {
        let mut sealed = SealedFile::open(&path).unwrap();
        let (model, _) =
            sealed.open_whole(|sealed| sealed.unwrap_by_vault(&*bench.vault, None), &mut |_| ()).unwrap();
        assert!(*model == *plain);
    };
    (0..500).for_each(|_| once());
    let before = used();
    (0..9_500).for_each(|_| once());
    let after = used();
    assert_eq!(before.files, after.files);
    assert!(after.resident < before.resident + 2048, "{} KiB, then {}", before.resident, after.resident);
    counted("under load: 10000 models opened in one process leak nothing");
}

struct Used {
    files: usize,
    resident: u64,
}

fn used() -> Used {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    Used { files, resident }
}

const NEEDED: u64 = 256 << 20;

/// A sealed model of 256 MiB, which is a hole.
fn a_large_one() -> Workspace {
    let w = Workspace::new();
    File::create(w.path("model")).unwrap().set_len(NEEDED).unwrap();
    w.ok(&["seal", "model", "-o", "sealed", "--line", "large", "--model-version", "1"]);
    w
}

/// Runs modelseal by a shell that does `first`, and gives its exit code and what it said.
fn runs_after(w: &Workspace, first: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let like = w.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} && exec \"$0\" \"$@\"")]).arg(program()).args(arguments);
    shell.current_dir(w.dir()).env_clear();
    shell.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = shell.output().unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn a_limit_of_addresses_is_told_with_what_was_needed() {
    let _alone = alone();
    let (bench, path, plain) = bench(64 << 20);
    let whole = || {
        SealedFile::open(&path)?
            .open_whole(|sealed| sealed.unwrap_by_vault(&*bench.vault, None), &mut |_| ())
            .map(|(model, _)| assert!(*model == *plain))
    };
    whole().unwrap();
    let before = getrlimit(Resource::As);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    let size: u64 = size.split_whitespace().nth(1).unwrap().parse().unwrap();
    setrlimit(Resource::As, Rlimit { current: Some((size << 10) + (48 << 20)), ..before }).unwrap();
    let refused = whole();
    setrlimit(Resource::As, before).unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Io);
    assert!(refused.what().contains(&format!("needs {} bytes of memory", plain.len())), "{refused}");
}

/// What makes tables of a model's header can't fail where it runs out of memory, so it is looked at before.
#[test]
fn a_long_header_in_little_memory_is_refused() {
    let _alone = alone();
    let w = Workspace::new();
    let tensors: Vec<_> = (0..150_000)
        .map(|i| {
            format!(r#""layers.{i}.weight":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1)
        })
        .collect();
    let header = format!("{{{}}}", tensors.join(","));
    let model = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[7; 150_000]].concat();
    w.write("model", model);
    w.ok(&["seal", "model", "-o", "sealed", "--line", "many", "--model-version", "1"]);
    let open = ["open", "sealed", "-o", "out", "--tensor", "layers.7.weight"];
    w.ok(&open);
    for kib in [60_000, 80_000, 100_000, 120_000] {
        let (code, said) = runs_after(&w, &format!("ulimit -v {kib}"), &open);
        assert_eq!(code, Some(6), "{kib}: {said}");
    }
}

/// Where this process may make control groups; what reads their files has tests of its own, in `host/src/limits.rs`.
#[test]
fn a_control_groups_limit_is_told_with_what_was_needed() {
    let _alone = alone();
    let Some(group) = Group::new(128 << 20) else {
        counted("under load: control group NOT TRIED: this process may not make one with a memory limit");
        return;
    };
    let w = a_large_one();
    let join = format!("echo $$ > {}/cgroup.procs", group.0.display());
    let exec = ["exec", "sealed", "--", "cat", "{}"];
    let (code, said) = runs_after(&w, &join, &exec);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains(&format!("needs {NEEDED} bytes")) && said.contains("134217728"), "{said}");
    // Its memory would just fit, and what opening it takes wouldn't.
    for length in [120 << 20, 127 << 20, 128 << 20] {
        let model = File::create(w.path("model")).unwrap();
        model.set_len(length).unwrap();
        w.ok(&["seal", "model", "-o", "sealed", "--line", "large", "--model-version", "1"]);
        let (code, said) = runs_after(&w, &join, &exec);
        assert_eq!(code, Some(6), "{length}: {said}");
    }
    counted("under load: a control group's limit ends in an error that says what was needed");
}

/// A control group of its own, of either version.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Option<Self> {
        let name = format!("modelseal-test-{}", std::process::id());
        let places = [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        places.iter().find_map(|(root, file)| {
            let dir = Path::new(root).join(&name);
            std::fs::create_dir(&dir).ok()?;
            let group = Self(dir);
            let limited =
                group.0.join(file).exists() && std::fs::write(group.0.join(file), limit.to_string()).is_ok();
            limited.then_some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
