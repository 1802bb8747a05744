//! A rewrap that is interrupted, at any instant and after any byte, leaves a model that opens; and it writes a few pages
//! of a file, whatever its size.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use modelseal::Result;
use modelseal::error::{Code, Error};
use modelseal::open::SealedFile;
use modelseal::rewrap::{Slots, rewrap, rewrap_slots};
use modelseal_core::manifest::{Claims, Subject, Suite};
use modelseal_core::sealed::{Envelope, Header, Layout, SLOT_LEN};
use modelseal_hsm::{Location, Passphrase, Vault};
use modelseal_tests::forge::{self, Parts, master_key, publisher_key};
use modelseal_tests::workspace::PASSPHRASE;
use modelseal_tests::{Workspace, counted};
use rustix::process::{Pid, Signal, kill_process};

const CONTENT_KEY: [u8; 32] = [0xc0; 32];
const SLOTS: u8 = 4;

/// Everything before the index of a genuine sealed model of `length` bytes, whose payload isn't there: nothing but the
/// header, its signature and its slots matter to a rewrap. Its content key is in slot `number`.
fn front(length: u64, line: &str, number: usize) -> (Vec<u8>, Layout) {
    let subject = Subject {
        suite: Suite::Aes256Gcm,
        chunk_log2: 20,
        align_log2: 12,
        line,
        version: 1,
        kind: "bytes",
        length,
        created: 0,
        claims: Claims::new(),
    };
    let mut bytes = b"\x89MSEAL\x1a\n\x01\0".to_vec();
    bytes.extend((subject.manifest_len() as u16).to_le_bytes());
    bytes.extend((64 + 128 * u32::from(SLOTS)).to_le_bytes());
    bytes.extend(postcard::to_allocvec(&subject).unwrap());
    // The commitment follows from all before it; the root is made up.
    let envelope = bytes.len() + 64;
    let parts = Parts { envelope, index: 0, padding: 0, payload: 0, chunk: 1 << 20 };
    bytes.extend([0; 64]);
    let commitment = forge::payload_keys(&bytes, parts, &CONTENT_KEY);
    bytes[envelope - 64..envelope - 32].copy_from_slice(&commitment[44..]);
    let id = forge::model_id(&bytes, parts);
    let signature = ed25519_dalek::Signer::sign(&publisher_key(), &forge::signed_bytes(&bytes, parts));
    bytes.extend(signature.to_bytes());
    let mut slots = [[0; SLOT_LEN]; SLOTS as usize];
    slots[number] = forge::slot(1, &master_key(1), &[9; 12], &id, &CONTENT_KEY);
    bytes.extend(slots.as_flattened());
    (bytes, Layout::of(&subject, SLOTS).unwrap())
}

fn header(front: &[u8], layout: Layout) -> Header<'_> {
    Header::parse(&front[..layout.envelope as usize]).unwrap()
}

/// A vault with these master keys and the forge's publisher key.
fn vault(dir: &Path, masters: &[u32]) -> Box<dyn Vault> {
    let path = dir.join(format!("{masters:?}.json"));
    std::fs::write(&path, forge::vault_file(PASSPHRASE, masters)).unwrap();
    let passphrase = || Ok(Passphrase::new(PASSPHRASE.to_owned().into()));
    modelseal_hsm::open(&Location::File(path), &passphrase).unwrap()
}

/// Whether the vault gets the content key, and the right one.
fn opens(vault: &dyn Vault, header: &Header<'_>, envelope: &Envelope) -> bool {
    match vault.unwrap(header.clone(), envelope) {
        Ok(unwrapped) => *unwrapped.content_key().expose_to_vault() == CONTENT_KEY,
        Err(_) => false,
    }
}

// ---- Torn writes -------------------------------------------------------------------------------------------

/// How the bytes of a torn write reach the disk.
#[derive(Clone, Copy, Debug)]
enum Order {
    First,
    Last,
    /// One half of the bytes in no order: each that `i * 37 % 128` puts before the cut.
    Scattered,
}

/// An envelope on a disk that loses power during write number `write`, of which `written` bytes are stored.
struct Torn {
    envelope: Vec<u8>,
    writes: usize,
    write: usize,
    written: usize,
    order: Order,
}

impl Slots for Torn {
    fn envelope(&mut self) -> Result<Envelope> {
        Ok(Envelope::parse(&self.envelope)?)
    }

    fn write(&mut self, number: usize, bytes: &[u8; SLOT_LEN]) -> Result<()> {
        let at = 64 + SLOT_LEN * number;
        let last = self.writes == self.write;
        self.writes += 1;
        for (i, byte) in bytes.iter().enumerate() {
            let place = match self.order {
                Order::First => i,
                Order::Last => SLOT_LEN - 1 - i,
                Order::Scattered => i * 37 % SLOT_LEN,
            };
            if !last || place < self.written {
                self.envelope[at + i] = *byte;
            }
        }
        if last { Err(Error::new(Code::Io, "the power is gone", "")) } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Both writes, cut after each number of bytes, in every order, with the old slot in every place: the model opens with
/// the old keys or with the new ones, always with both, and a second rewrap finishes.
#[test]
fn torn_writes_of_every_length_leave_a_model_that_opens() {
    let dir = modelseal_tests::scratch();
    let [old, new, both] = [&[1][..], &[2], &[1, 2]].map(|masters| vault(dir.path(), masters));
    let mut opened = [0; 3];
    for number in 0..usize::from(SLOTS) {
        let (front, layout) = front(1000, "torn", number);
        let header = header(&front, layout);
        for order in [Order::First, Order::Last, Order::Scattered] {
            for (write, written) in (0..2).flat_map(|write| (0..=SLOT_LEN).map(move |n| (write, n))) {
                let what = format!("slot {number}, {order:?}, write {write}, {written} bytes");
                let envelope = front[layout.envelope as usize..].to_vec();
                let mut torn = Torn { envelope, writes: 0, write, written, order };
                let failed = rewrap_slots(&*both, &header, &mut torn).unwrap_err();
                assert_eq!((failed.what(), torn.writes), ("the power is gone", write + 1), "{what}");

                let envelope = torn.envelope().unwrap();
                let by = [&old, &new].map(|vault| opens(&**vault, &header, &envelope));
                assert!(by[0] || by[1], "neither: {what}");
                assert!(opens(&*both, &header, &envelope), "{what}");
                opened[usize::from(by[1]) + usize::from(by[0] && by[1])] += 1;

                torn.write = usize::MAX;
                let done = rewrap_slots(&*both, &header, &mut torn).unwrap();
                assert_eq!(done.to, 2, "{what}");
                let envelope = torn.envelope().unwrap();
                assert_eq!(envelope.slots().map(|slot| slot.version).collect::<Vec<_>>(), [2], "{what}");
                assert!(opens(&*new, &header, &envelope), "{what}");
            }
        }
    }
    counted(&format!(
        "rewrap: torn writes: {} opened by the old key, {} by the new one, {} by both, 0 by neither",
        opened[0], opened[1], opened[2]
    ));
    assert!(opened.iter().all(|count| *count > 0), "{opened:?}");
}

/// With no slot free, one that opens nothing makes room; the only one that opens never does.
#[test]
fn what_is_overwritten_is_never_the_only_slot_that_opens() {
    let dir = modelseal_tests::scratch();
    let (new, both) = (vault(dir.path(), &[2]), vault(dir.path(), &[1, 2]));
    for number in 0..usize::from(SLOTS) {
        let (mut front, layout) = front(1000, "full", number);
        let slots = layout.envelope as usize + 64;
        // Garbage of the old, of the newest, of a version that never was.
        let others = (0..usize::from(SLOTS)).filter(|other| *other != number);
        for (other, version) in others.zip([1u8, 2, 77]) {
            front[slots + other * SLOT_LEN..][..SLOT_LEN].fill(0xaa);
            front[slots + other * SLOT_LEN..][..4].copy_from_slice(&[version, 0, 0, 0]);
        }
        let header = header(&front, layout);
        let envelope = front[layout.envelope as usize..].to_vec();
        for written in 0..=SLOT_LEN {
            let mut torn =
                Torn { envelope: envelope.clone(), writes: 0, write: 0, written, order: Order::First };
            rewrap_slots(&*both, &header, &mut torn).unwrap_err();
            assert!(opens(&*both, &header, &torn.envelope().unwrap()), "{number}, {written}");
        }
        let mut whole = Torn { envelope, writes: 0, write: usize::MAX, written: 0, order: Order::First };
        rewrap_slots(&*both, &header, &mut whole).unwrap();
        let envelope = whole.envelope().unwrap();
        assert!(opens(&*new, &header, &envelope));
        let known = envelope.held().filter(|(_, held)| held.version() != 77).count();
        assert_eq!(known, 1, "garbage of known versions was cleared");
    }
}

/// Slots of a kind that isn't known are another vault's: they are never written over, nor cleared, whatever version they
/// name. A spoiled one makes room.
#[test]
fn slots_of_another_kind_stay_as_they_are() {
    let dir = modelseal_tests::scratch();
    let (new, both) = (vault(dir.path(), &[2]), vault(dir.path(), &[1, 2]));
    let foreign = [1, 2, 77].map(|version| forge::slot_of(version, 2, &[0xa5; 113]));
    let (front, layout) = front(1000, "foreign", 0);
    let header = header(&front, layout);
    let with = |last: [u8; SLOT_LEN]| {
        let mut envelope = front[layout.envelope as usize..].to_vec();
        envelope[64 + SLOT_LEN..64 + 3 * SLOT_LEN].copy_from_slice(foreign[..2].as_flattened());
        envelope[64 + 3 * SLOT_LEN..].copy_from_slice(&last);
        Torn { envelope, writes: 0, write: usize::MAX, written: 0, order: Order::First }
    };
    let mut spoiled = foreign[1];
    spoiled[4] = 0;
    for last in [[0; SLOT_LEN], spoiled] {
        let mut slots = with(last);
        let done = rewrap_slots(&*both, &header, &mut slots).unwrap();
        assert_eq!((done.to, done.cleared), (2, vec![1]));
        assert!(opens(&*new, &header, &slots.envelope().unwrap()));
        assert_eq!(slots.envelope[64 + SLOT_LEN..64 + 3 * SLOT_LEN], *foreign[..2].as_flattened());
        assert_eq!(slots.envelope[64..64 + SLOT_LEN], [0; SLOT_LEN]);
    }
    let mut full = with(foreign[2]);
    let before = full.envelope.clone();
    let refused = rewrap_slots(&*both, &header, &mut full).unwrap_err();
    assert!(refused.what().contains("another kind"), "{}", refused.what());
    assert_eq!((full.writes, full.envelope), (0, before));
}

/// A sealed model of before has slots of 64 bytes. It is refused by name, and nothing of it is written.
#[test]
fn slots_of_before_are_refused_by_name() {
    let dir = modelseal_tests::scratch();
    let both = vault(dir.path(), &[1, 2]);
    let (mut front, layout) = front(1000, "before", 0);
    let slot = &mut front[layout.envelope as usize + 64..][..SLOT_LEN];
    slot.copy_within(8..68, 4);
    slot[64..].fill(0);
    let header = header(&front, layout);
    let envelope = front[layout.envelope as usize..].to_vec();
    let mut old =
        Torn { envelope: envelope.clone(), writes: 0, write: usize::MAX, written: 0, order: Order::First };
    let refused = rewrap_slots(&*both, &header, &mut old).unwrap_err();
    assert_eq!((refused.name(), refused.code()), (Some("OldSlots"), Code::Unsupported));
    assert_eq!((old.writes, old.envelope), (0, envelope));
}

/// A sealed model with one slot can't be rewrapped in place, which is said, and it stays as it is.
#[test]
fn without_room_nothing_is_written() {
    let dir = modelseal_tests::scratch();
    let both = vault(dir.path(), &[1, 2]);
    let (front, layout) = front(1000, "one", 0);
    let header = header(&front, layout);
    let envelope = front[layout.envelope as usize..][..64 + SLOT_LEN].to_vec();
    let mut one = Torn { envelope: envelope.clone(), writes: 0, write: 0, written: 0, order: Order::First };
    let refused = rewrap_slots(&*both, &header, &mut one).unwrap_err();
    assert!(
        refused.what().contains("none of its key slots") && refused.hint().contains("reseal"),
        "{refused:?}"
    );
    assert_eq!((one.writes, one.envelope), (0, envelope));
}

// ---- Kills -------------------------------------------------------------------------------------------------

/// The real program is killed at many instants while it rewraps many files.
#[test]
fn a_kill_at_any_instant_leaves_models_that_open() {
    const FILES: usize = 300;
    let w = Workspace::with_vault("file:vault.json");
    w.write("vault.json", forge::vault_file(PASSPHRASE, &[1, 2]));
    std::fs::create_dir(w.path("models")).unwrap();
    let (mut old, layout) = front(1000, "killed", 0);
    old.resize(layout.end as usize, 0);
    let files: Vec<_> = (0..FILES).map(|i| w.path(&format!("models/{i:03}.sealed"))).collect();
    let reset = || files.iter().for_each(|file| std::fs::write(file, &old).unwrap());
    let vault = vault(w.dir(), &[1, 2]);
    let command = || {
        let mut command = w.command(&["rewrap", "models", "--quiet"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    reset();
    let began = Instant::now();
    assert!(command().status().unwrap().success());
    let whole = began.elapsed();
    let (mut killed, mut between, mut both, mut after, mut tries) = (0, 0, 0, Duration::ZERO, 0);
    while between < 40 {
        reset();
        let mut child = command().spawn().unwrap();
        std::thread::sleep(after);
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        let in_time = !child.wait().unwrap().success();
        killed += u32::from(in_time);
        // Later and later, then from the beginning again.
        after = if in_time { after + whole / 67 } else { Duration::ZERO };
        tries += 1;
        assert!(tries < 500, "{killed} kills, {between} in between: this proves little");
        let mut moved = 0;
        for file in &files {
            let sealed = SealedFile::open(file).unwrap();
            let open = vault.open_slots(sealed.header().unwrap(), sealed.envelope()).unwrap();
            assert!(!open.is_empty(), "neither opens: {}", file.display());
            moved += usize::from(open.iter().any(|slot| slot.version == 2));
            both += usize::from(open.len() == 2);
        }
        between += u32::from(in_time && moved > 0 && moved < FILES);
    }
    counted(&format!(
        "rewrap: {killed} kills, {between} in the middle of {FILES} files; {both} files had both slots, none was lost"
    ));
}

// ---- Size --------------------------------------------------------------------------------------------------

/// What this thread has had written to disks, and read and written by calls, in bytes.
fn io() -> [u64; 3] {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    ["write_bytes: ", "rchar: ", "wchar: "].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_gib_take_a_few_pages() {
    const LENGTH: u64 = 100 << 30;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.sealed");
    let (front, layout) = front(LENGTH, "big", 0);
    let file = File::create(&path).unwrap();
    file.write_all_at(&front, 0).unwrap();
    file.set_len(layout.end).unwrap();
    file.sync_all().unwrap();
    let blocks = || path.metadata().unwrap().blocks();
    let vault = vault(dir.path(), &[1, 2]);
    let (before, (io_before, began)) = (blocks(), (io(), Instant::now()));
    let done = rewrap(&*vault, &path).unwrap();
    let (took, io_after) = (began.elapsed(), io());
    assert_eq!((done.to, done.written, done.cleared), (2, true, vec![1]));
    let [disk, read, written] = [0, 1, 2].map(|i| io_after[i] - io_before[i]);
    let grown = (blocks() - before) * 512;
    counted(&format!(
        "rewrap: {LENGTH} bytes in {:.1} ms; {disk} bytes ({} pages) written to the disk, {written} by calls, {read} read; \
         the file takes {grown} bytes more",
        took.as_secs_f64() * 1e3,
        disk.div_ceil(4096)
    ));
    // Two slots; and what /proc/thread-self/io itself takes to read.
    assert_eq!(written, 2 * SLOT_LEN as u64);
    assert!(read < 32 * 1024 && disk <= 16 * 4096 && grown == 0, "{read} {disk} {grown}");

    // And through the program, whose time has its start and the opening of the vault in it.
    file.write_all_at(&front, 0).unwrap();
    let w = Workspace::with_vault("file:vault.json");
    w.write("vault.json", forge::vault_file(PASSPHRASE, &[1, 2]));
    let began = Instant::now();
    w.ok(&["rewrap", path.to_str().unwrap()]);
    counted(&format!("rewrap: the same by the whole program: {:.1} ms", began.elapsed().as_secs_f64() * 1e3));
    assert!(began.elapsed() < Duration::from_secs(60), "it reads all of it");
}
