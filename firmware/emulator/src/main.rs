//! What `firmware/boot` can't do in a shell: writes what a board's chips hold, brings it updates, and reads its log.
//!
//! ```text
//! modelseal-emulator provision --identity I [--sealed S] [--line L] [--time T] [--purpose run|crash|update] --out FILE
//! modelseal-emulator eeprom --identity I --out FILE
//! modelseal-emulator storage --modelseal-emulator B --out FILE
//! modelseal-emulator program --modelseal-emulator B --eeprom FILE --storage FILE --sealed S --grant G [--install yes]
//! modelseal-emulator send --socket S --grant G [--sealed S] [--cut BYTES]
//! modelseal-emulator log --elf ELF [--verdict FILE]
//! ```

use std::process::ExitCode;

use modelseal_core::wipe::on_wiped_stack;

mod chips;
mod failure;
mod identity;
mod log;
mod options;
mod program;
mod provision;
mod sdcard;
mod send;

use failure::Failure;
use options::Options;

/// More than reading an identity takes, even unoptimised.
const STACK: usize = 64 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.what);
            ExitCode::from(failure.code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = Options::read(arguments)?;
    match command.as_str() {
        "provision" => on_wiped_stack::<STACK, _>(|| provision::provision(&options)),
        "eeprom" => on_wiped_stack::<STACK, _>(|| provision::eeprom(&options)),
        "storage" => program::storage(&options),
        "program" => program::program(&options),
        "send" => send::send(&options),
        "log" => log::log(&options),
        _ => Err("the commands are provision, eeprom, storage, program, send and log".into()),
    }
}
