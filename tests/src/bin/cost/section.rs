//! The section of docs/BENCHMARKS.md: written, read again and compared.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::parts::PARTS;
use crate::profile::{BUILDS, Figures, PROFILES};

const SECTION: &str = "## Cost on a device";
const COMMAND: &str = "cargo run -p modelseal-tests --bin cost -- --write";
/// By how much of the published one a figure may be worse.
const TOLERANCE: f64 = 0.02;
const BUILT_BY: &str = "Compiled by ";
const ABOUT: &str = "\
Each row is an image of `firmware/cost` with exactly the features named, for a Cortex-M4F, and boots what the real
program sealed and granted: parses, checks signatures, unwraps, opens in place, confirms. Nothing is estimated:

- **Instructions** are counted by QEMU (`-icount shift=0`). Those *a byte* are what a longer model takes more; those *to
  boot* are all others, whatever the model's length. A signature takes a time that depends on it, and both the
  manifest's and the grant's are checked, the latter twice: the mean of six models.
- **Flash**, in bytes, is every section that is stored, less those of the same image empty: its start-up and its report.
  The log is compiled out (`DEFMT_LOG=off`); drivers are a product's own.
- **RAM**, in bytes, is statics and, by a painted stack, the deepest that it went, from the top. The model's own memory
  isn't counted, nor the grant's, which lies in memory as the sealed model does. A device that reads both from storage
  needs 1 KiB for the header and at most 2 KiB for the grant on top. There is no heap: an image that allocates doesn't
  link.

The state is kept in memory in the place of whatever a product has, such as a secure element; a row says what two
records in an EEPROM take. A change that makes a figure worse by more than 2% fails until the table is written anew, and
its commit says why.
";
const BARS: &str = "\
Bars: 62 instructions a byte with ChaCha20-Poly1305 and 260 with AES-256-GCM, at opt-level 3; at \"s\", 21 KiB of flash
with a device key and ChaCha20-Poly1305, 28 with AES-256-GCM, and 44 with X25519, Ed25519 and ChaCha20-Poly1305; in both
7 KiB of RAM with a device key, and 11 with public keys.
";
const COLUMNS: [&str; 6] =
    ["profile", "instructions a byte", "to boot, thousands", "flash", "statics", "stack"];

/// The figures of a row, as they are published.
fn cells(figures: &Figures) -> [String; 5] {
    [
        format!("{:.1}", figures.per_byte),
        format!("{:.0}", figures.boot / 1000.0),
        figures.flash.to_string(),
        figures.statics.to_string(),
        figures.stack.to_string(),
    ]
}

/// The whole section.
pub(crate) fn text(measured: &[Vec<Figures>]) -> String {
    let mut text = format!("{SECTION}\n\nMade by `{COMMAND}`. {BUILT_BY}{}.\n\n{ABOUT}\n{BARS}", compiler());
    for (build, figures) in BUILDS.iter().zip(measured) {
        write!(text, "\n{}:\n\n{}", build.title, head(&COLUMNS)).unwrap();
        for (profile, figures) in PROFILES.iter().zip(figures) {
            writeln!(text, "| {} | {} |", profile.name, cells(figures).join(" | ")).unwrap();
        }
    }
    let columns: Vec<&str> =
        std::iter::once("profile").chain(PARTS.map(|(name, _)| name)).chain(["rest"]).collect();
    let size = measured.last().unwrap();
    write!(text, "\nWhere the flash for size goes, by the crate in which a function is; what was inlined counts for the\n\
        function that it became part of:\n\n{}", head(&columns)).unwrap();
    for (profile, figures) in PROFILES.iter().zip(size) {
        let rest = figures.flash - figures.parts.iter().sum::<u64>();
        let cells: Vec<String> = figures.parts.iter().chain([&rest]).map(u64::to_string).collect();
        writeln!(text, "| {} | {} |", profile.name, cells.join(" | ")).unwrap();
    }
    text
}

fn head(columns: &[&str]) -> String {
    format!("| {} |\n|---|{}\n", columns.join(" | "), "--:|".repeat(columns.len() - 1))
}

/// One line for the table of tests/run.
pub(crate) fn summary(measured: &[Vec<Figures>]) -> String {
    let [speed, size] = measured else { panic!("{} builds", measured.len()) };
    let per_byte = |suite| {
        let of_suite = PROFILES.iter().zip(speed).filter(|(profile, _)| profile.suite == suite);
        of_suite.map(|(_, figures)| figures.per_byte).fold(0.0, f64::max)
    };
    let flash = PROFILES.iter().zip(size).filter(|(profile, _)| profile.bars.flash.is_some());
    let flash: Vec<String> =
        flash.map(|(_, figures)| format!("{:.1}", figures.flash as f64 / 1024.0)).collect();
    let ram = |signed: bool| {
        let both = speed.iter().chain(size).zip(PROFILES.iter().cycle());
        let most =
            both.filter(|(_, profile)| profile.signed.is_some() == signed).map(|(figures, _)| figures.ram());
        most.max().unwrap() as f64 / 1024.0
    };
    format!(
        "cost: {} profiles, at most {:.1} instructions a byte with ChaCha20-Poly1305 and {:.1} with AES-256-GCM, \
         {} KiB of flash where there is a bar, {:.1} KiB of RAM with a device key and {:.1} with public keys",
        PROFILES.len(),
        per_byte("chacha20-poly1305"),
        per_byte("aes-256-gcm"),
        flash.join(", "),
        ram(false),
        ram(true),
    )
}

/// What is over its bar.
pub(crate) fn over_bars(measured: &[Vec<Figures>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (build, figures) in BUILDS.iter().zip(measured) {
        for (profile, figures) in PROFILES.iter().zip(figures) {
            let mut at_most = |bar: f64, value: f64, what| {
                if value > bar {
                    let (build, profile) = (build.name, profile.name);
                    faults
                        .push(format!("{profile}, for {build}: {value:.1} {what} are over the bar of {bar}"));
                }
            };
            at_most(profile.bars.ram as f64, figures.ram() as f64, "bytes of RAM");
            match (build.name, profile.bars.flash) {
                ("speed", _) => at_most(profile.bars.per_byte, figures.per_byte, "instructions a byte"),
                (_, Some(bar)) => at_most(bar as f64, figures.flash as f64, "bytes of flash"),
                _ => {}
            }
        }
    }
    faults
}

/// What is worse than published. What is better is only said.
pub(crate) fn compare(measured: &[Vec<Figures>]) -> Vec<String> {
    let published = published();
    let mut faults = Vec::new();
    for (build, figures) in BUILDS.iter().zip(measured) {
        for (profile, figures) in PROFILES.iter().zip(figures) {
            let name = format!("{}, for {}", profile.name, build.name);
            match row(&published, build.title, profile.name) {
                Some(row) => faults.extend(compare_row(&name, &row, figures)),
                None => faults.push(format!("{name} isn't published: run `{COMMAND}`")),
            }
        }
    }
    if !faults.is_empty() && !published.contains(&format!("{BUILT_BY}{}.", compiler())) {
        faults.push(format!(
            "the published figures are another compiler's, and this is {}: run `{COMMAND}`, look at what became worse, \
             and commit it with that as the reason",
            compiler()
        ));
    }
    faults
}

fn compare_row(name: &str, published: &[f64], figures: &Figures) -> Vec<String> {
    let mut faults = Vec::new();
    for ((what, old), new) in COLUMNS.iter().skip(1).zip(published).zip(cells(figures)) {
        let new: f64 = new.parse().unwrap();
        let change = format!("{name}: {what}: {new} where {old} is published");
        if new > old * (1.0 + TOLERANCE) {
            faults.push(format!(
                "{change}: worse by more than 2%. If there is a reason, run `{COMMAND}` and give it"
            ));
        } else if new < old * (1.0 - TOLERANCE) {
            eprintln!("cost: {change}: better. `{COMMAND}` publishes it");
        }
    }
    faults
}

/// The numbers of a profile's row in the table below `title`.
fn row(section: &str, title: &str, profile: &str) -> Option<Vec<f64>> {
    let (_, table) = section.split_once(title)?;
    let table = table.trim_start_matches(":\n\n").split("\n\n").next()?;
    let start = format!("| {profile} | ");
    let cells = table.lines().find_map(|line| line.strip_prefix(&start))?;
    let numbers: Result<Vec<f64>, _> = cells.trim_end_matches(" |").split(" | ").map(str::parse).collect();
    numbers.ok().filter(|numbers| numbers.len() == COLUMNS.len() - 1)
}

/// The section as it is in the document; empty where there is none.
fn published() -> String {
    let document = std::fs::read_to_string(document()).unwrap();
    document[range(&document)].to_owned()
}

/// Puts the section into the document, in the place of the old one.
pub(crate) fn write(measured: &[Vec<Figures>]) {
    let mut document_text = std::fs::read_to_string(document()).unwrap();
    let range = range(&document_text);
    let gap = if range.end < document_text.len() { "\n" } else { "" };
    let before = if range.is_empty() { "\n" } else { "" };
    document_text.replace_range(range, &format!("{before}{}{gap}", text(measured)));
    std::fs::write(document(), document_text).unwrap();
}

fn range(document: &str) -> std::ops::Range<usize> {
    let start = document.find(SECTION).unwrap_or(document.len());
    let after = document[start..].get(SECTION.len()..).unwrap_or_default();
    let end = after.find("\n## ").map_or(document.len(), |end| start + SECTION.len() + end + 1);
    start..end
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BENCHMARKS.md")
}

/// The one that builds the images.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
