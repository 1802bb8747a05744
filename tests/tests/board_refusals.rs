//! What a board refuses, `modelseal open` refuses, with the same number, name and exit code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use modelseal_core::Error;
use modelseal_tests::boards::{BOARDS, SUITES, boot, enrol, grant, opened, refused, seal};
use modelseal_tests::forge::Parts;
use modelseal_tests::{Workspace, counted};

/// A model of version 2, genuine, and what is tried with it.
struct Bench {
    w: Workspace,
    sealed: Vec<u8>,
    parts: Parts,
    model: Vec<u8>,
}

type Change = Box<dyn FnOnce(&mut Vec<u8>)>;

impl Bench {
    fn new() -> Self {
        let w = Workspace::new();
        enrol(&w);
        let mut model = vec![0; 30_000];
        blake3::Hasher::new().update(b"refused").finalize_xof().fill(&mut model);
        w.write("model", &model);
        for (version, suite) in [("1", SUITES[1]), ("2", SUITES[1]), ("3", SUITES[1])] {
            seal(&w, "model", version, "wake-word", version, suite);
        }
        seal(&w, "model", "elsewhere", "other", "2", SUITES[0]);
        for device in ["derived", "own"] {
            grant(&w, "2", device, &format!("{device}.grant"), &[]);
            grant(&w, "elsewhere", device, &format!("{device}.elsewhere"), &[]);
            grant(
                &w,
                "2",
                device,
                &format!("{device}.short"),
                &["--not-before", "1000", "--not-after", "2000"],
            );
        }
        let sealed = w.read("2");
        let parts = Parts::of(&sealed, model.len());
        Self { w, sealed, parts, model }
    }

    /// Both boards say what the program says, which is this.
    fn refuses(&self, device: &str, sealed: &str, grant: &str, error: Error) {
        let open =
            ["open", sealed, "-o", "out", "--grant", grant, "--identity", device, "--line", "wake-word"];
        let class = u8::try_from(error.code() / 100).unwrap();
        let said = self.w.device_refused(class, &open);
        assert_eq!(said.name.as_deref(), Some(error.name()), "{said:?}");
        for board in BOARDS {
            let verdict = boot(&self.w, board, sealed, grant, device, &["--line", "wake-word"]);
            assert_eq!(verdict, refused(error.code(), error.name()), "{board}, {device}");
        }
    }

    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> &'static str {
        let mut sealed = self.sealed.clone();
        change(&mut sealed);
        self.w.write("changed", sealed);
        "changed"
    }
}

#[test]
fn boards_refuse_what_the_program_refuses() {
    let bench = Bench::new();
    let p = bench.parts;
    let mut cases = 0;
    for device in ["derived", "own"] {
        let granted = format!("{device}.grant");
        for board in BOARDS {
            let verdict = boot(&bench.w, board, "2", &granted, device, &["--line", "wake-word"]);
            assert_eq!(verdict, opened(2, &bench.model), "{board}, {device}");
        }
        let flip = |at: usize| move |sealed: &mut Vec<u8>| sealed[at] ^= 1;
        let last = bench.sealed.len() - 1;
        let changes: [(Change, Error); 9] = [
            (Box::new(flip(0)), Error::ForeignMagic),
            (Box::new(|sealed| sealed[16] = 9), Error::UnknownSuite),
            (Box::new(flip(20)), Error::ManifestSignature),
            (Box::new(flip(p.envelope)), Error::ManifestSignature),
            (Box::new(flip(p.index)), Error::Chunk),
            (Box::new(flip(p.payload)), Error::Chunk),
            (Box::new(flip(last)), Error::Chunk),
            (Box::new(|sealed| sealed.truncate(sealed.len() - 1)), Error::Truncated),
            (Box::new(|sealed| sealed.push(0)), Error::Extended),
        ];
        for (change, error) in changes {
            bench.refuses(device, bench.changed(change), &granted, error);
            cases += 1;
        }
        let genuine = [
            ("3", granted.clone(), Error::OtherModel),
            ("elsewhere", format!("{device}.elsewhere"), Error::OtherLine),
            ("2", format!("{device}.short"), Error::Expired),
        ];
        for (sealed, grant, error) in genuine {
            // The program has a clock, by which the short one is over; a board has none unless it is told.
            match error {
                Error::Expired => {
                    for board in BOARDS {
                        let at = |time| {
                            boot(
                                &bench.w,
                                board,
                                sealed,
                                &grant,
                                device,
                                &["--line", "wake-word", "--time", time],
                            )
                        };
                        assert_eq!(at("2000"), refused(error.code(), error.name()));
                        assert_eq!(at("1999"), opened(2, &bench.model));
                    }
                }
                _ => bench.refuses(device, sealed, &grant, error),
            }
            cases += 1;
        }
    }
    bench.refuses("own", "2", "derived.grant", Error::GrantKey);
    bench.refuses("derived", "2", "own.grant", Error::OtherDevice);
    counted(&format!("refusals: {} of {} boards, each as the program's", cases + 2, BOARDS.len()));
}
