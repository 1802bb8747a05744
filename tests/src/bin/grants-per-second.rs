//! How many grants a second, next to what the vault and the processor could do at most, in the same run.
//!
//! ```text
//! cargo run --release -p modelseal-tests --bin grants-per-second [-- --write]
//! ```
//!
//! prints a section of docs/BENCHMARKS.md; `--write` puts it there. SoftHSM reads its configuration from the environment, so
//! what measures is a second process of this program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aes::Aes256;
use cmac::{Cmac, KeyInit, Mac};
use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use getrandom::SysRng;
use modelseal::fleet::{Fleet, Made, Recipient, Store};
use modelseal::folder::GrantFolder;
use modelseal::grant::Limits;
use modelseal::io::protect::Protected;
use modelseal::open::SealedFile;
use modelseal::registry::{Device, DeviceKeyKind};
use modelseal_core::grant::{DeviceId, Terms, wrap_for_x25519};
use modelseal_core::keys::{X25519Secret, fleet_block};
use modelseal_core::manifest::{Claims, Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_hsm::{Location, Passphrase, Vault};
use modelseal_tests::{scratch, softhsm};
use rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};

const LINE: &str = "wake-word";
const MEASURE: &str = "measure";
const REPETITIONS: usize = 5;
/// As many as modelseal uses on a small machine.
const THREADS: usize = 4;
const DERIVED: usize = 8192;
const OWN: usize = 16_384;
const ALONE: usize = 1024;
const SECTION: &str = "## Grants a second";
const COMMAND: &str = "cargo run --release -p modelseal-tests --bin grants-per-second -- --write";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [MEASURE, uri] => print!("{}", section(&measure(uri))),
        [] => print!("{}", in_second_process()),
        ["--write"] => write(&in_second_process()),
        _ => panic!("the only argument is --write"),
    }
}

fn in_second_process() -> String {
    let w = softhsm::workspace();
    let uri = softhsm::add_token(&w, "fleet");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([MEASURE, &uri]).env("SOFTHSM2_CONF", w.path("softhsm2.conf"));
    let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Puts the section into the document, in the place of the old one.
fn write(section: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BENCHMARKS.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let start = document.find(SECTION).unwrap_or(document.len());
    let after = document[start..].get(SECTION.len()..).unwrap_or_default();
    let end = after.find("\n## ").map_or(document.len(), |end| start + SECTION.len() + end + 1);
    let rest = if document[end..].is_empty() { String::new() } else { format!("\n{}", &document[end..]) };
    std::fs::write(path, format!("{}{section}{rest}", &document[..start])).unwrap();
    print!("{section}");
}

// ---- What is measured ----

/// A rate, and the processor's seconds that one took.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    cpu: f64,
}

type Samples = BTreeMap<(&'static str, &'static str), Vec<Sample>>;

fn measure(uri: &str) -> Samples {
    let dir = scratch();
    let file = Location::File(dir.path().join("vault.json"));
    let passphrase = || Ok(Passphrase::new(String::from("benchmark").into()));
    let software = modelseal_hsm::create(&file, None, &passphrase).unwrap();
    let token = modelseal_hsm::create(&uri.parse().unwrap(), None, &passphrase).unwrap();
    let (derived, own) =
        (fleet("derived", DERIVED, &|| DeviceKeyKind::Fleet(1)), fleet("own", OWN, &own_key));
    let mut samples = Samples::new();
    for repetition in 1..=REPETITIONS {
        eprintln!("repetition {repetition} of {REPETITIONS}");
        for (kind, vault) in [("software", &software), ("SoftHSM", &token)] {
            let sealed = seal(&**vault, dir.path());
            let content = sealed.unwrap_by_vault(&**vault, None).unwrap();
            let mut add = |what, sample| samples.entry((kind, what)).or_default().push(sample);
            let grant = |fleet, store: &dyn Store| granted(&**vault, &content, fleet, store);
            let into_files = |fleet| {
                let out = dir.path().join("grants");
                let sample = grant(fleet, &GrantFolder::new(&out, Protected::default(), false).unwrap());
                std::fs::remove_dir_all(out).unwrap();
                sample
            };
            // What is compared is measured one right after the other.
            add("raw CMAC", if kind == "software" { raw_cmacs() } else { raw_token_cmacs(uri) });
            add("derived", grant(&derived, &Memory));
            add("derived, files", into_files(&derived));
            add("raw wrap", raw_wraps(&content, &own));
            add("HPKE", grant(&own, &Memory));
            add("HPKE, files", into_files(&own));
            add("signed alone", signed_alone(&**vault, &content, &own));
        }
    }
    samples
}

fn own_key() -> DeviceKeyKind {
    let public = X25519Secret::generate(&mut UnwrapErr(SysRng)).public().unwrap();
    DeviceKeyKind::X25519(modelseal::pem::x25519(&public).unwrap())
}

fn fleet(name: &str, count: usize, key: &dyn Fn() -> DeviceKeyKind) -> Vec<(String, Device)> {
    let device = |i| (format!("{name}-{i}"), Device { lines: vec![LINE.into()], key: key(), enrolled: 0 });
    (0..count).map(device).collect()
}

fn recipients(fleet: &[(String, Device)]) -> Vec<Recipient<'_>> {
    fleet.iter().map(|(id, device)| (DeviceId::new(id).unwrap(), device)).collect()
}

fn seal(vault: &dyn Vault, dir: &Path) -> SealedFile {
    let (model, sealed) = (dir.join("model"), dir.join("sealed"));
    std::fs::write(&model, [7; 4096]).unwrap();
    let subject = Subject {
        suite: Suite::Aes256Gcm,
        chunk_log2: 12,
        align_log2: 4,
        line: LINE,
        version: 1,
        kind: "raw",
        length: 4096,
        created: 0,
        claims: Claims::new(),
    };
    let model = modelseal::seal::Model::open(&model, &Protected::default()).unwrap();
    modelseal::seal::seal(vault, &model, subject, &sealed, &mut |_| ()).unwrap();
    SealedFile::open(&sealed).unwrap()
}

/// Keeps nothing.
struct Memory;

impl Store for Memory {
    fn stored(&self, _: DeviceId<'_>) -> modelseal::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn put(&self, grants: &[Made<'_>]) -> modelseal::Result<()> {
        std::hint::black_box(grants);
        Ok(())
    }
}

fn granted(
    vault: &dyn Vault,
    content: &Unwrapped<'_>,
    fleet: &[(String, Device)],
    store: &dyn Store,
) -> Sample {
    let recipients = recipients(fleet);
    let publisher = &vault.publisher().unwrap();
    timed(recipients.len(), || {
        let fleet = Fleet { vault, publisher, content, limits: Limits::default(), store };
        let granted = fleet.grant(&recipients, &|_| ()).unwrap();
        assert_eq!((granted.made, granted.kept), (recipients.len() as u64, 0));
        assert!(granted.signatures <= 1);
    })
}

/// The library that the software vault uses, by itself.
fn raw_cmacs() -> Sample {
    let count = 64 * DERIVED;
    timed(count, || {
        in_threads(count, &|| (), &|(), i| {
            let id = format!("derived-{}", i / 2);
            let mut mac = Cmac::<Aes256>::new(&[7; 32].into());
            mac.update(&fleet_block(1, DeviceId::new(&id).unwrap()));
            std::hint::black_box(mac.finalize());
        });
    })
}

/// The token by itself, through the process's login.
fn raw_token_cmacs(uri: &str) -> Sample {
    let module = uri.split(['?', '&']).find_map(|part| part.strip_prefix("module-path=")).unwrap();
    let context = Pkcs11::new(module).unwrap();
    let slots = context.get_slots_with_initialized_token().unwrap();
    let slot =
        slots.into_iter().find(|slot| context.get_token_info(*slot).unwrap().label() == "fleet").unwrap();
    let session = || {
        let session = context.open_ro_session(slot).unwrap();
        let key = session.find_objects(&[Attribute::Label("modelseal/fleet/1".into())]).unwrap()[0];
        (session, key)
    };
    let count = 2 * DERIVED;
    timed(count, || {
        in_threads(count, &session, &|(session, key), i| {
            let id = format!("derived-{}", i / 2);
            let message = fleet_block(1, DeviceId::new(&id).unwrap());
            std::hint::black_box(session.sign(&Mechanism::AesCMac, *key, &message).unwrap());
        });
    })
}

/// Wrapping for public keys that are at hand, and nothing else.
fn raw_wraps(content: &Unwrapped<'_>, fleet: &[(String, Device)]) -> Sample {
    let public = X25519Secret::generate(&mut UnwrapErr(SysRng)).public().unwrap();
    timed(fleet.len(), || {
        in_threads(fleet.len(), &|| (), &|(), i| {
            let terms = Terms::new(content, DeviceId::new(&fleet[i].0).unwrap());
            let wrapped = wrap_for_x25519(content, &terms, &public, &mut UnwrapErr(SysRng)).unwrap();
            std::hint::black_box(wrapped.leaf());
        });
    })
}

/// What it would be without batches: wrapped before, each with a signature of its own.
fn signed_alone(vault: &dyn Vault, content: &Unwrapped<'_>, fleet: &[(String, Device)]) -> Sample {
    let public = X25519Secret::generate(&mut UnwrapErr(SysRng)).public().unwrap();
    let wrap = |(id, _): &(String, Device)| {
        let terms = Terms::new(content, DeviceId::new(id).unwrap());
        wrap_for_x25519(content, &terms, &public, &mut UnwrapErr(SysRng)).unwrap()
    };
    let wrapped: Vec<_> = fleet.iter().take(ALONE).map(wrap).collect();
    timed(wrapped.len(), || {
        in_threads(wrapped.len(), &|| (), &|(), i| drop(vault.sign_grant(&wrapped[i]).unwrap()));
    })
}

fn in_threads<T>(count: usize, begin: &(dyn Fn() -> T + Sync), work: &(dyn Fn(&T, usize) + Sync)) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let state = begin();
                loop {
                    let from = next.fetch_add(64, Ordering::Relaxed);
                    if from >= count {
                        break;
                    }
                    (from..count.min(from + 64)).for_each(|i| work(&state, i));
                }
            });
        }
    });
}

fn timed(count: usize, work: impl FnOnce()) -> Sample {
    let (cpu, begun) = (cpu(), Instant::now());
    work();
    let (elapsed, used) = (begun.elapsed(), self::cpu() - cpu);
    let count = count as f64;
    Sample { per_second: count / elapsed.as_secs_f64(), cpu: used.as_secs_f64() / count }
}

/// What this process has used of all processors.
fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

// ---- How it is shown ----

fn section(samples: &Samples) -> String {
    let of = |kind, what| median(&samples[&(kind, what)]);
    let mut text = format!(
        "{SECTION}\n\nMade by `{COMMAND}` on\n{}.\n\nMedians of {REPETITIONS} interleaved repetitions, {THREADS} \
         threads. Fleets of {DERIVED} devices with derived keys and of {OWN} with X25519\nkeys; files in memory \
         (tmpfs). \"CPU\" is what the process used of all processors for one grant: {} divided by it is the\nrate \
         that processors with nothing else to do could reach. A software vault isn't bound by its CMACs, which take \
         less\ntime than the rest of a wrapping does.\n\n",
        machine(),
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    text.push_str("| fleet | vault | grants a second | CPU for one | into files | CPU for one | bound, measured in the same run | ratio | ratio, files |\n");
    text.push_str("|---|---|--:|--:|--:|--:|---|--:|--:|\n");
    for (fleet, files, bound, of_bound, uses) in [
        ("derived", "derived, files", "raw CMAC", "CMACs a second, two a device", 2.0),
        ("HPKE", "HPKE, files", "raw wrap", "X25519 wraps a second, unsigned", 1.0),
    ] {
        for kind in ["software", "SoftHSM"] {
            let ratio = |what| percent(uses * ratio(samples, kind, what, bound));
            let (to_bound, files_to_bound) = (ratio(fleet), ratio(files));
            let (memory, files, bound) = (of(kind, fleet), of(kind, files), of(kind, bound));
            writeln!(
                text,
                "| {fleet} | {kind} | {} | {} | {} | {} | {} {of_bound} ({} each) | {to_bound} | {files_to_bound} |",
                rate(memory),
                micros(memory),
                rate(files),
                micros(files),
                rate(bound),
                micros(bound),
            )
            .unwrap();
        }
    }
    text.push_str("\n| vault | grants signed one by one, a second | in batches, wrapping included | ratio |\n|---|--:|--:|--:|\n");
    for kind in ["software", "SoftHSM"] {
        let (alone, batched) = (of(kind, "signed alone"), of(kind, "HPKE"));
        let ratio = ratio(samples, kind, "HPKE", "signed alone");
        writeln!(text, "| {kind} | {} | {} | {ratio:.1} |", rate(alone), rate(batched)).unwrap();
    }
    text
}

fn median(samples: &[Sample]) -> Sample {
    let per_second = middle(samples.iter().map(|sample| sample.per_second));
    Sample { per_second, cpu: middle(samples.iter().map(|sample| sample.cpu)) }
}

/// The median of the repetitions' own ratios: what else the machine does changes from one to the next.
fn ratio(samples: &Samples, kind: &'static str, what: &'static str, to: &'static str) -> f64 {
    let (what, to) = (&samples[&(kind, what)], &samples[&(kind, to)]);
    middle(what.iter().zip(to).map(|(what, to)| what.per_second / to.per_second))
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rate(sample: Sample) -> String {
    format!("{:.0}", sample.per_second)
}

fn micros(sample: Sample) -> String {
    format!("{:.1} µs", sample.cpu * 1e6)
}

fn percent(ratio: f64) -> String {
    format!("{:.0}%", ratio * 100.0)
}

/// The processor's name, how many of it there are, and which of its features matter here.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value)
    };
    let flags: Vec<_> = field("flags").split(' ').collect();
    let wanted = ["aes", "vaes", "sha_ni", "avx2", "avx512f", "avx512ifma", "bmi2", "adx"];
    let features: Vec<_> = wanted.into_iter().filter(|flag| flags.contains(flag)).collect();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} processors \"{}\" ({})", field("model name"), features.join(" "))
}
