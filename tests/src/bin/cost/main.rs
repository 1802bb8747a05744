//! What opening a model costs on a device, by profile: instructions, flash, RAM. Everything is measured: images of
//! `modelseal-cost` with exactly a profile's features are built, their sections read, and run in QEMU with what the
//! real program sealed and granted.
//!
//! ```text
//! cargo run -p modelseal-tests --bin cost              compares with the published section of docs/BENCHMARKS.md
//! cargo run -p modelseal-tests --bin cost -- --write   replaces that section
//! ```
//!
//! It fails where a figure is over its bar, or more than 2% worse than the published one: a change that costs that
//! much says why, and publishes it. In reading order:
//!
//! - [`profile`]: what is measured, and the bars
//! - [`material`]: models and grants of the real program
//! - [`image`]: builds the images, reads their sections, runs them
//! - [`parts`]: whose code it is
//! - [`section`]: the section of the document, both ways

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement"
)]

mod image;
mod material;
mod parts;
mod profile;
mod section;

use std::process::{Command, ExitCode};

use image::{Image, Ran};
use material::Material;
use profile::{BUILDS, Build, Figures, PROFILES, Profile};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let write = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--write"] => true,
        _ => panic!("the only argument is --write"),
    };
    let measured = measure();
    let mut faults = section::over_bars(&measured);
    if write {
        section::write(&measured);
    } else {
        faults.extend(section::compare(&measured));
    }
    print!("{}", section::text(&measured));
    for fault in &faults {
        eprintln!("cost: {fault}");
    }
    println!("{}", section::summary(&measured));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The figures of each profile in each build, in the order of [`BUILDS`] and [`PROFILES`].
fn measure() -> Vec<Vec<Figures>> {
    build_program();
    let material = Material::make();
    BUILDS.iter().map(|build| measure_build(build, &material)).collect()
}

/// What seals and grants: the real program, in this one's profile.
fn build_program() {
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package", "modelseal"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(built.success(), "building modelseal failed");
}

fn measure_build(build: &Build, material: &Material) -> Vec<Figures> {
    let empty = Image::build(build, &[]);
    empty.run_empty();
    PROFILES.iter().map(|profile| measure_profile(build, profile, &empty, material)).collect()
}

fn measure_profile(build: &Build, profile: &Profile, empty: &Image, material: &Material) -> Figures {
    let image = Image::build(build, profile.features);
    image.assert_no_heap();
    let cases = material.of(profile);
    let ran: Vec<Ran> = cases.iter().map(|case| image.run(case)).collect();
    let mean = |ofs: &dyn Fn(&Ran) -> u64| ran.iter().map(ofs).sum::<u64>() as f64 / ran.len() as f64;
    // What follows the signatures takes the same time for every key, so two lengths tell exactly what a byte takes.
    let (short, long) = material::extremes(cases);
    let (bytes, more) = (cases[long].length - cases[short].length, ran[long].opening - ran[short].opening);
    let per_byte = more as f64 / bytes as f64;
    let fixed = ran[short].opening as f64 - per_byte * cases[short].length as f64;
    Figures {
        per_byte,
        boot: mean(&|ran| ran.checking) + fixed,
        flash: image.flash - empty.flash,
        statics: image.statics - empty.statics,
        parts: image.parts(),
        stack: ran.iter().map(|ran| ran.stack).max().unwrap(),
    }
}
