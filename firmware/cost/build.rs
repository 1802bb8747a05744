//! Tells the linker where things go, but only when the image is built for the board.

const BOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../boards/mps2-an386");

fn main() {
    println!("cargo::rerun-if-changed={BOARD}/memory.x");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo::rustc-link-search={BOARD}");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
