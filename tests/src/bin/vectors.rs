//! Writes the conformance vectors into a folder, one file each: `vectors tests/vectors/cases`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::PathBuf;

fn main() {
    let folder: PathBuf = std::env::args_os().nth(1).expect("usage: vectors FOLDER").into();
    std::fs::create_dir_all(&folder).unwrap();
    let cases = modelseal_tests::vectors::all();
    for case in &cases {
        std::fs::write(folder.join(&case.name).with_extension("json"), case.to_json()).unwrap();
    }
    println!("{} cases", cases.len());
}
