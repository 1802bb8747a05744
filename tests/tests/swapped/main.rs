//! What was checked is what is used: for each command and each path that it is given, another valid thing, a link and a
//! pipe come into the path's place before the first, second … call that takes it. Nothing forged comes out, no secret is
//! sealed or overwritten, nothing is half written, and nobody waits for ever.
//!
//! By default a fixed part of all cases runs; with `MODELSEAL_LONG` in the environment, all do.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod judges;
mod made;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use judges::{Did, Judge, kept, must, outputs};
use made::{World, made, tree};
use modelseal_tests::counted;
use modelseal_tests::swap::{Swap, Traced, trace};

/// Of so many cases one runs by default. It has no factor in common with the number of swaps.
const PART: usize = 11;
/// What a link may lead to, and no output may replace.
const SECRETS: [&str; 2] = ["passphrase", "dev-b.identity"];

/// A command, who judges it, what it may change, and its paths: `|` before one that may be a pipe, as `<(…)` is in a
/// shell, `:` before what comes into its place.
struct Row(&'static str, Judge, &'static str, &'static str);

const VAULT: &str = "vault.json:stranger.json |passphrase registry.json:registry.other";
const A: &str = "|a.sealed:b.sealed,f.sealed";
const RA: &str =
    "|ra:rb,rf ra/directory.sealed:rb/directory.sealed,rf/directory.sealed ra/one.sealed:rb/one.sealed";
const RF: &str = "|rf:ra rf/directory.sealed:ra/directory.sealed";
const DEVICE: &str = "|dev-a.identity:dev-b.identity state:state.other";
const IN_PLACE: &str =
    "ra:rb,rf ra/directory.sealed:rb/directory.sealed,rf/directory.sealed ra/one.sealed:rb/one.sealed";
const OUT: &str = "out:kept";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row("seal plain/a -o out --line alpha --model-version 2", judges::sealed, "", "plain/a:plain/b"),
    Row("seal plain/a -o out --line alpha --model-version 2", judges::sealed, "", VAULT),
    Row("seal plain/a -o out --line alpha --model-version 2", judges::sealed, "", OUT),
    Row("seal fa -o out --line alpha --model-version 2", judges::sealed, "", "fa:fb fa/one:fb/one fa/sub:fb/sub"),
    Row("seal fa -o out --line alpha --model-version 2", judges::sealed, "", OUT),
    Row("reseal a.sealed -o out --model-version 2", judges::sealed, "", A),
    Row("reseal a.sealed -o out --model-version 2", judges::sealed, "", OUT),
    Row("rewrap a.sealed", judges::rewrapped, "a.sealed b.sealed", "a.sealed:b.sealed,f.sealed"),
    Row("rewrap ra", judges::rewrapped, "ra rb rf", IN_PLACE),
    Row("inspect a.sealed", judges::inspected, "", A),
    Row("inspect ra", judges::inspected, "", RA),
    Row("verify a.sealed", judges::verified, "", A),
    Row("verify f.sealed --publisher pub.pem", judges::verified, "", "|f.sealed:a.sealed"),
    Row("verify a.sealed --publisher pub.pem", judges::verified, "", "|pub.pem:stranger.pem"),
    Row("verify ra", judges::verified, "", RA),
    Row("verify ra --publisher pub.pem", judges::verified, "", RA),
    Row("verify rf --publisher pub.pem", judges::verified, "", RF),
    Row("open a.sealed -o out", judges::opened, "", A),
    Row("open f.sealed -o out", judges::opened, "", "|f.sealed:a.sealed"),
    Row("open a.sealed -o out", judges::opened, "", VAULT),
    Row("open a.sealed -o out", judges::opened, "", "|out:kept"),
    Row("open ra -o out", judges::opened, "", RA),
    Row("open rf -o out", judges::opened, "", RF),
    Row("open ra -o out", judges::opened, "", OUT),
    Row("open a.sealed -o out --grant ga --identity dev-a.identity --state state", judges::opened, "state", A),
    Row("open a.sealed -o out --grant ga --identity dev-a.identity --state state", judges::opened, "state state.other", DEVICE),
    Row("open a.sealed -o out --grant ga --identity dev-a.identity --state state", judges::opened, "state", "|ga:gb"),
    Row("open ra -o out --grant gra --identity dev-a.identity --state state", judges::opened, "state", RA),
    Row("open ra -o out --grant gra --identity dev-a.identity --state state", judges::opened, "state state.other", DEVICE),
    Row("open ra -o out --grant gra --identity dev-a.identity --state state", judges::opened, "state", "gra:grb gra/one.grant:grb/one.grant"),
    Row("exec a.sealed -- cat {}", judges::ran, "", A),
    Row("exec a.sealed --grant ga --identity dev-a.identity --state state -- cat {}", judges::ran, "state state.other", DEVICE),
    Row("grant a.sealed --device dev-a -o out", judges::granted, "", A),
    Row("grant a.sealed --device dev-a -o out", judges::granted, "", VAULT),
    Row("grant a.sealed --device dev-x -o out", judges::granted, "", OUT),
    Row("grant a.sealed --all -o out", judges::granted, "", A),
    Row("grant f.sealed --all -o out", judges::granted, "", "|f.sealed:a.sealed"),
    Row("grant a.sealed --all -o out", judges::granted, "", VAULT),
    Row("grant a.sealed --devices ids -o out", judges::granted, "", "|ids:ids.other"),
    Row("grant ra --device dev-a -o out", judges::granted, "", RA),
    Row("grant ra --all -o out", judges::granted, "", RA),
    Row("grant rf --all -o out", judges::granted, "", RF),
    Row("grant ra --devices ids -o out", judges::granted, "", RA),
    Row("grant ra --all -o out", judges::granted, "", OUT),
    Row("device enroll dev-n --line alpha --derive --identity-out out", judges::enrolled, "registry.json registry.other", VAULT),
    Row("device enroll dev-n --line alpha --derive --identity-out out", judges::enrolled, "registry.json", OUT),
    Row("device enroll dev-n --line alpha --public-key n.pem", judges::enrolled, "registry.json", "|n.pem:y.pem"),
    Row("device complete --identity x.identity --public-part x.public", judges::told, "x.identity n.identity", "x.identity:n.identity |x.public:y.public"),
    Row("device trust --identity dev-a.identity --publisher pub.pem", judges::told, "dev-a.identity x.identity", "dev-a.identity:x.identity |pub.pem:stranger.pem"),
    Row("key export -o out", judges::exported, "", "vault.json:stranger.json |passphrase out:kept"),
    Row("key backup -o out", judges::backed_up, "", "vault.json:stranger.json out:kept"),
];

/// Something that comes into the place of `path` before the `call`-th call that takes it.
struct Case {
    row: usize,
    path: &'static str,
    may_be_pipe: bool,
    call: usize,
    swap: Swap<'static>,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { row, path, call, swap, .. } = self;
        write!(f, "{}: {path}, call {call}, {swap:?}", ROWS[*row].0)
    }
}

fn run(world: &World<'_>, words: &str, before: &mut dyn FnMut(usize, &str), path: &str) -> Traced {
    world.restore();
    let at = world.w.dir().canonicalize().unwrap().join(path);
    let arguments: Vec<_> = ["--json"].into_iter().chain(words.split(' ')).collect();
    let command = match words.strip_prefix("sh -c ") {
        Some(script) => world.w.another("sh", &["-c", script]),
        None => world.w.command(&arguments),
    };
    let mut calls = 0;
    trace(command, &mut |taken| {
        if taken.starts_with(&at) {
            calls += 1;
            before(calls, path);
        }
    })
}

/// What swaps there are, and before how many calls: the command runs once as it should.
fn cases_of(world: &World<'_>, row: usize) -> Vec<Case> {
    let undisturbed = run(world, ROWS[row].0, &mut |_, _| (), "");
    let should_fail = ROWS[row].0.contains(" f.sealed") || ROWS[row].0.contains(" rf");
    assert_eq!(undisturbed.code != Some(0), should_fail, "{}: {}", ROWS[row].0, undisturbed.stderr);
    let mut cases = Vec::new();
    for named in ROWS[row].3.split(' ') {
        let (named, others) = named.split_once(':').unwrap_or((named, ""));
        let (path, may_be_pipe) = named.strip_prefix('|').map_or((named, false), |path| (path, true));
        let at = world.w.dir().canonicalize().unwrap().join(path);
        let calls = undisturbed.paths.iter().filter(|taken| taken.starts_with(&at)).count();
        assert!(calls > 0, "{}: {path} isn't looked at", ROWS[row].0);
        let others: Vec<_> = others.split(',').filter(|other| !other.is_empty()).collect();
        let links = others.first().into_iter().chain(&SECRETS).filter(|target| **target != path);
        let swaps: Vec<_> = (others.iter().map(|other| Swap::Other(other)))
            .chain(links.map(|target| Swap::Link(target)))
            .chain([Swap::Fifo])
            .collect();
        for call in 1..=calls {
            cases.extend(swaps.iter().map(|swap| Case { row, path, may_be_pipe, call, swap: *swap }));
        }
    }
    cases
}

/// What is wrong with what the command did. It may be over before that call.
fn judged(world: &World<'_>, case: &Case) -> Result<(), String> {
    let Row(words, judge, changes, _) = ROWS[case.row];
    let mut swapped = false;
    let traced = run(
        world,
        words,
        &mut |call, path| {
            if call == case.call {
                case.swap.apply(world.w.dir(), path);
                swapped = true;
            }
        },
        case.path,
    );
    must(!traced.hung || (case.may_be_pipe && case.swap == Swap::Fifo), "it waits for ever")?;
    let is_output = case.path == "out";
    let device = words.split(' ').skip_while(|word| *word != "--device").nth(1);
    let by_grant = words.contains("--grant").then_some("dev-a");
    let places = if is_output { outputs(world, "kept") } else { vec![world.w.path("out")] };
    let device_of = device.or(by_grant).unwrap_or_default();
    let did = Did { run: &traced, path: case.path, swap: case.swap, outputs: places, device: device_of };
    let said = |why: String| format!("{why} (exit {:?}: {})", traced.code, traced.stderr.trim());
    // What is enrolled last has been handed over before.
    let is_resumable = words.starts_with("device enroll")
        || words.starts_with("grant ") && device.is_none_or(|_| words.contains(" ra "));
    let is_gone =
        is_output || is_resumable || traced.code == Some(0) || tree(&world.w.path("out")).is_empty();
    let is_gone = must(is_gone, "it failed and left an output");
    // An output is looked at where it is now.
    let is_right = is_output.then(|| judge(world, &did));
    if swapped {
        case.swap.undo(world.w.dir(), case.path);
    }
    let is_right = is_right.unwrap_or_else(|| judge(world, &did));
    let faults = [kept(world, &format!("out kept aside {changes}")), is_gone, is_right];
    let faults: Vec<_> = faults.into_iter().filter_map(Result::err).collect();
    if faults.is_empty() { Ok(()) } else { Err(said(faults.join("; "))) }
}

fn report(cases: &[Case], failures: &BTreeMap<String, String>, ran: usize, step: usize) {
    counted(&format!("{ran} of {} swaps of a path before a call ran, 1 of {step}", cases.len()));
    let said: Vec<_> = failures.iter().map(|(case, why)| format!("{case}: {why}")).collect();
    assert!(said.is_empty(), "{} swaps went wrong:\n{}", said.len(), said.join("\n"));
}

#[test]
fn what_is_swapped_before_any_call_forges_nothing() {
    let made = made();
    let (rows, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let step = if std::env::var_os("MODELSEAL_LONG").is_some() { 1 } else { PART };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let cases = Mutex::new(Vec::new());
    on_threads(threads, || {
        let world = World::new(&made);
        while let Some(row) = Some(rows.fetch_add(1, Ordering::Relaxed)).filter(|row| *row < ROWS.len()) {
            cases.lock().unwrap().extend(cases_of(&world, row));
        }
    });
    let mut cases = cases.into_inner().unwrap();
    cases.sort_by_key(|case: &Case| case.row);
    let (failures, ran) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    on_threads(threads, || {
        let world = World::new(&made);
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) * step) {
            ran.fetch_add(1, Ordering::Relaxed);
            if let Err(why) = judged(&world, case) {
                eprintln!("{case}: {why}");
                failures.lock().unwrap().insert(case.to_string(), why);
            }
        }
    });
    report(&cases, &failures.into_inner().unwrap(), ran.into_inner(), step);
}

fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(&work))));
}

/// A program that looks at a path and then opens it again is found out: it reads a secret, and it waits for a pipe.
#[test]
fn who_opens_again_what_was_checked_is_caught() {
    let made = made();
    let world = World::new(&made);
    let script = "sh -c test -f plain/a && cat plain/a";
    let read = |call, swap: Swap<'_>| {
        run(
            &world,
            script,
            &mut |now, path| {
                if now == call {
                    swap.apply(world.w.dir(), path)
                }
            },
            "plain/a",
        )
    };
    let undisturbed = run(&world, script, &mut |_, _| (), "plain/a");
    let calls = undisturbed.paths.iter().filter(|path| path.ends_with("plain/a")).count();
    assert!(calls >= 2, "{:?}", undisturbed.paths);
    let caught =
        (1..=calls).any(|call| read(call, Swap::Link("passphrase")).stdout == made.read("passphrase"));
    assert!(caught);
    assert!(read(calls, Swap::Fifo).hung);
    assert_eq!(read(calls, Swap::Other("plain/b")).stdout, made.read("plain/b"));
}
