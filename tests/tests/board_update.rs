//! Updates in the field, on the boards: what is tried and falls back, what comes over the serial line, and power
//! that is cut in the middle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use modelseal::grant::Limits;
use modelseal_tests::bench::{Bench, SUITES as BENCH_SUITES, Wrap};
use modelseal_tests::boards::{
    BOARDS, BOOT, SUITES, Verdict, enrol, grant, opened, refused, run, seal, start, updated,
};
use modelseal_tests::forge::Parts;
use modelseal_tests::probe::{Given, Probe};
use modelseal_tests::workspace::WAKE_WORD;
use modelseal_tests::{Workspace, counted};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// The one that can write its storage.
const WRITES: &str = "mps2-an386";
const TRIES: usize = 3;

/// A board with its chips, and versions of a model that were granted to it.
struct Fielded {
    w: Workspace,
    board: &'static str,
    models: Vec<Vec<u8>>,
}

impl Fielded {
    /// With versions 1, 2 and 3, and none of them on the board yet.
    fn new(board: &'static str) -> Self {
        let w = Workspace::new();
        enrol(&w);
        let models: Vec<Vec<u8>> = (1..=3).map(model).collect();
        for (version, model) in ["1", "2", "3"].into_iter().zip(&models) {
            w.write("model", model);
            seal(&w, "model", version, "wake-word", version, SUITES[1]);
            grant(&w, version, "derived", &format!("{version}.grant"), &[]);
        }
        Self { w, board, models }
    }

    fn start(&self, options: &[&str]) -> Verdict {
        start(&self.w, self.board, &[&self.chips()[..], options].concat())
    }

    fn chips(&self) -> [&'static str; 8] {
        ["--identity", "derived", "--line", "wake-word", "--state", "eeprom", "--storage", "storage"]
    }

    /// Whatever has been there since the last boot.
    fn boot(&self) -> Verdict {
        self.start(&[])
    }

    fn program(&self, version: &str, more: &[&str]) -> Verdict {
        self.start(&[&["--sealed", version, "--grant", &format!("{version}.grant")], more].concat())
    }

    fn update(&self, version: &str, more: &[&str]) -> Verdict {
        self.start(&[&["--update", version, "--update-grant", &format!("{version}.grant")], more].concat())
    }

    fn opened(&self, version: u64) -> Verdict {
        opened(version, &self.models[usize::try_from(version).unwrap() - 1])
    }
}

/// A different one each time, of several blocks.
fn model(version: u8) -> Vec<u8> {
    let mut model = vec![0; 20_000];
    blake3::Hasher::new().update(&[version]).finalize_xof().fill(&mut model);
    model
}

#[test]
fn an_update_is_tried_confirmed_and_not_rolled_back() {
    for board in BOARDS {
        let fielded = Fielded::new(board);
        assert_eq!(fielded.program("1", &[]), fielded.opened(1), "{board}");
        assert_eq!(fielded.program("2", &["--install"]), fielded.opened(2), "{board}");
        assert_eq!(fielded.boot(), fielded.opened(2), "{board}");
        assert_eq!(fielded.program("1", &[]), refused(409, "RolledBack"), "{board}");
        // Nor as an update, which falls back.
        assert_eq!(fielded.program("2", &[]), fielded.opened(2), "{board}");
        assert_eq!(fielded.program("1", &["--install"]), fielded.opened(2), "{board}");
    }
}

#[test]
fn an_update_that_is_never_confirmed_falls_back() {
    for board in BOARDS {
        let fielded = Fielded::new(board);
        assert_eq!(fielded.program("1", &[]), fielded.opened(1), "{board}");
        assert_eq!(fielded.program("2", &["--install", "--crash"]), fielded.opened(2), "{board}");
        for _ in 1..TRIES {
            assert_eq!(fielded.start(&["--crash"]), fielded.opened(2), "{board}");
        }
        assert_eq!(fielded.start(&["--crash"]), fielded.opened(1), "{board}");
        assert_eq!(fielded.boot(), fielded.opened(1), "{board}");
        // A programmer writes where a boot will look, which isn't where a trial has no try left.
        assert_eq!(fielded.program("2", &["--install", "--crash"]), fielded.opened(2), "{board}");
        for _ in 1..TRIES {
            assert_eq!(fielded.start(&["--crash"]), fielded.opened(2), "{board}");
        }
        assert_eq!(fielded.program("3", &[]), fielded.opened(3), "{board}");
    }
}

/// What only opening finds out: a tag that was changed; and a model that is longer than this board's memory.
#[test]
fn an_update_that_does_not_open_falls_back_at_once() {
    for board in BOARDS {
        let fielded = Fielded::new(board);
        let w = &fielded.w;
        let mut changed = w.read("2");
        changed[Parts::of(&w.read("2"), fielded.models[1].len()).index] ^= 1;
        w.write("changed", changed);
        std::fs::copy(w.path("2.grant"), w.path("changed.grant")).unwrap();
        let mut updates = vec![("changed", "refused, 335 Chunk")];
        if board != WRITES {
            w.write("model", vec![1; 41_000]);
            seal(w, "model", "long", "wake-word", "2", SUITES[1]);
            grant(w, "long", "derived", "long.grant", &[]);
            updates.push(("long", "refused, 602 Memory"));
        }
        for (update, why) in updates {
            for file in ["eeprom", "storage"] {
                let _ = std::fs::remove_file(w.path(file));
            }
            assert_eq!(fielded.program("1", &[]), fielded.opened(1), "{board}");
            let grant = format!("{update}.grant");
            let install = ["--sealed", update, "--grant", &grant, "--install"];
            let (code, said, _) = run(w, board, &[&fielded.chips()[..], &install].concat());
            assert_eq!(
                (said.lines().last().unwrap().to_owned(), code),
                fielded.opened(1),
                "{board}, {update}"
            );
            assert!(said.contains(why), "{board}, {update}: {said}");
            assert_eq!(fielded.start(&["--crash"]), fielded.opened(1), "{board}, {update}");
        }
    }
}

/// One image may have more than half of the storage, and then no other is written into it.
#[test]
fn what_boots_is_not_written_over_by_an_installer() {
    let fielded = Fielded::new(WRITES);
    let long = vec![7; 9_000_000];
    fielded.w.write("model", &long);
    seal(&fielded.w, "model", "9", "wake-word", "9", SUITES[1]);
    grant(&fielded.w, "9", "derived", "9.grant", &[]);
    assert_eq!(fielded.program("1", &[]), fielded.opened(1));
    assert_eq!(fielded.program("2", &["--install"]), fielded.opened(2));
    assert_eq!(fielded.program("9", &["--install"]), refused(602, "Memory"), "A, while B boots");
    assert_eq!(fielded.boot(), fielded.opened(2));
    for file in ["eeprom", "storage"] {
        std::fs::remove_file(fielded.w.path(file)).unwrap();
    }
    assert_eq!(fielded.program("9", &[]), opened(9, &long));
    assert_eq!(fielded.program("2", &["--install"]), refused(602, "Memory"), "B, while A has a part of it");
    assert_eq!(fielded.boot(), opened(9, &long));
}

#[test]
fn a_board_without_a_model_or_a_state_opens_nothing() {
    for board in BOARDS {
        let fielded = Fielded::new(board);
        fielded.w.write("eeprom", [0xff; 8192]);
        assert_eq!(fielded.program("1", &[]), refused(603, "Floor"), "{board}");
        std::fs::remove_file(fielded.w.path("eeprom")).unwrap();
        std::fs::remove_file(fielded.w.path("storage")).unwrap();
        assert_eq!(fielded.boot(), refused(601, "Storage"), "{board}");
    }
}

/// Ten cuts, and after each the old model boots. What has arrived isn't sent again.
#[test]
fn an_update_is_cut_ten_times_and_resumed() {
    const CUTS: usize = 10;
    let mut fielded = Fielded::new(WRITES);
    assert_eq!(fielded.program("1", &[]), fielded.opened(1));
    fielded.models[1] = std::fs::read(WAKE_WORD).unwrap();
    seal(&fielded.w, WAKE_WORD, "long", "wake-word", "2", SUITES[0]);
    grant(&fielded.w, "long", "derived", "long.grant", &[]);
    let whole = fielded.w.read("long").len();
    let update = ["--update", "long", "--update-grant", "long.grant"];
    let sent_by = |cut: &[&str]| {
        let (code, said, noise) = run(&fielded.w, WRITES, &[&fielded.chips()[..], &update, cut].concat());
        let sent = noise.lines().find_map(|line| line.strip_suffix(" bytes were sent"));
        let sent: usize = sent.unwrap_or_else(|| panic!("{said}{noise}")).parse().unwrap();
        (code, said.lines().last().unwrap_or_default().to_owned(), sent)
    };
    let mut before = 0;
    for cut in 0..CUTS {
        // Each time about a block further.
        let left = 5000 + cut * 83;
        assert_eq!(sent_by(&["--cut", &left.to_string()]), (1, format!("cut after {left} bytes"), left));
        before += left;
        assert_eq!(fielded.boot(), fielded.opened(1), "after cut {cut}");
    }
    let (code, said, last) = sent_by(&[]);
    assert_eq!((said, code), updated(2));
    assert!(last < whole / 2, "{last} bytes were sent of {whole}");
    assert_eq!(fielded.boot(), fielded.opened(2));
    counted(&format!(
        "update over the UART: {whole} bytes, cut {CUTS} times after {before} bytes in all, {last} more to finish it"
    ));
}

#[test]
fn an_update_that_does_not_verify_replaces_nothing() {
    let fielded = Fielded::new(WRITES);
    assert_eq!(fielded.program("2", &[]), fielded.opened(2));
    let mut changed = fielded.w.read("3");
    *changed.last_mut().unwrap() ^= 1;
    fielded.w.write("4", changed);
    std::fs::copy(fielded.w.path("3.grant"), fielded.w.path("4.grant")).unwrap();
    assert_eq!(fielded.update("4", &[]), refused(336, "Root"));
    assert_eq!(fielded.update("1", &[]), refused(409, "RolledBack"));
    assert_eq!(fielded.boot(), fielded.opened(2));
    // The right bytes: of the model one block is another.
    assert_eq!(fielded.update("3", &[]), updated(3));
    assert_eq!(fielded.boot(), fielded.opened(3));
}

#[test]
fn a_new_grant_comes_alone() {
    let fielded = Fielded::new(WRITES);
    grant(&fielded.w, "1", "derived", "short", &["--not-before", "1000", "--not-after", "2000"]);
    grant(&fielded.w, "1", "derived", "long", &["--not-before", "1000", "--not-after", "3000"]);
    let short = ["--sealed", "1", "--grant", "short", "--time", "1500"];
    assert_eq!(fielded.start(&short), fielded.opened(1));
    assert_eq!(fielded.start(&["--time", "2500"]), refused(407, "Expired"));
    assert_eq!(fielded.start(&["--time", "2500", "--update-grant", "short"]), refused(407, "Expired"));
    assert_eq!(fielded.start(&["--time", "2500", "--update-grant", "long"]), updated(1));
    assert_eq!(fielded.start(&["--time", "2500"]), fielded.opened(1));
    assert_eq!(fielded.start(&["--time", "3000"]), refused(407, "Expired"));
}

/// A terminal at whose other end is the socket, as a serial adapter would be.
fn terminal(socket: &Path) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let (mut near, mut far) = (File::from(master), UnixStream::connect(socket).unwrap());
    let (mut back, mut to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    // They end with the board.
    std::thread::spawn(move || std::io::copy(&mut near, &mut far));
    std::thread::spawn(move || std::io::copy(&mut back, &mut to));
    name
}

/// As an operator does it, from another program.
#[test]
fn modelseal_brings_an_update() {
    let fielded = Fielded::new(WRITES);
    let w = &fielded.w;
    assert_eq!(fielded.program("1", &[]), fielded.opened(1));
    let brought = |over_a_terminal, arguments: &[&str]| {
        let mut board = Command::new(BOOT)
            .args(["--board", WRITES, "--serial", "serial"])
            .args(fielded.chips())
            .current_dir(w.dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !w.path("serial").exists() {
            assert_eq!(board.try_wait().unwrap(), None);
            sleep(Duration::from_millis(20));
        }
        let port = if over_a_terminal { terminal(&w.path("serial")) } else { "serial".to_owned() };
        let command = ["--json", "device", "update", "--port", &port];
        let run = w.run(w.device_command(&[&command[..], arguments].concat()), &[]);
        std::fs::remove_file(w.path("serial")).unwrap();
        if run.code != Some(0) {
            // It waits for somebody who does better.
            kill_process(Pid::from_child(&board), Signal::TERM).unwrap();
        }
        board.wait().unwrap();
        run
    };
    let refused = brought(false, &["3", "--grant", "2.grant"]);
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    let newer = brought(true, &["2", "--grant", "2.grant"]);
    assert_eq!(newer.code, Some(0), "{}", newer.stderr);
    assert!(String::from_utf8_lossy(&newer.stdout).contains("\"version\":2"));
    assert_eq!(fielded.boot(), fielded.opened(2));
    let older = brought(false, &["1", "--grant", "1.grant"]);
    assert_eq!(older.code, Some(4));
    assert!(older.stderr.contains("RolledBack"), "{}", older.stderr);
    assert_eq!(fielded.boot(), fielded.opened(2));
}

/// Power is cut at one byte on the I2C bus after another, while a boot confirms an update: the state is the old or
/// the new one, and something boots.
#[test]
fn power_is_cut_while_a_state_is_stored() {
    const LIMITS: Limits = Limits { validity: None, floor: None };
    let bench = Bench::new();
    let model = bench.seal(BENCH_SUITES[1]);
    let held = bench.grant(&model, "device-7", Wrap::DeviceKey, LIMITS);
    let eeprom = bench.path("eeprom").into_os_string().into_string().unwrap();
    let given = Given {
        sealed: &model.sealed,
        grant: &held.grant,
        identity: &held.identity,
        more: &["--state", &eeprom],
    };
    let boot = || {
        let mut board = Probe::start(given);
        board.run_past("opened ");
    };
    let before = {
        Probe::start(given).cut();
        std::fs::read(&eeprom).unwrap()
    };
    boot();
    let after = std::fs::read(&eeprom).unwrap();
    assert_ne!(before, after);
    let (mut cuts, mut old) = (0, 0);
    for byte in (1..).step_by(9) {
        std::fs::write(&eeprom, &before).unwrap();
        let mut board = Probe::start(given);
        board.run_past("INFO every byte is authentic");
        if !board.run_to_call("BitBang4send", byte) {
            break;
        }
        board.cut();
        cuts += 1;
        old += usize::from(std::fs::read(&eeprom).unwrap() == before);
        boot();
        assert_eq!(std::fs::read(&eeprom).unwrap()[..64], after[..64], "after byte {byte}");
    }
    assert!(cuts > 5 && old > 0 && old < cuts, "{cuts} {old}");
    counted(&format!(
        "cuts of power on the board while it stored its state: {cuts}, {old} left the old one, none neither"
    ));
}
