//! What `firmware/boot` can't do in a shell: writes what a board's chips hold, brings it updates, and reads its log.
//!
//! ```text
//! board provision --identity I [--sealed S] [--line L] [--time T] [--purpose run|crash|update] --out FILE
//! board eeprom --identity I --out FILE
//! board storage --board B --out FILE
//! board program --board B --eeprom FILE --storage FILE --sealed S --grant G [--install yes]
//! board send --socket S --grant G [--sealed S] [--cut BYTES]
//! board log --elf ELF [--verdict FILE]
//! ```

use std::process::ExitCode;

use modelseal::Code;

mod chips;
mod log;
mod options;
mod program;
mod provision;
mod send;

use options::Options;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(report(failure.as_ref()) as u8),
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = Options::read(arguments)?;
    match command.as_str() {
        "provision" => provision::provision(&options),
        "eeprom" => provision::eeprom(&options),
        "storage" => program::storage(&options),
        "program" => program::program(&options),
        "send" => send::send(&options),
        "log" => log::log(&options),
        _ => Err("the commands are provision, eeprom, storage, program, send and log".into()),
    }
}

fn report(failure: &(dyn std::error::Error + 'static)) -> Code {
    eprintln!("error: {failure}");
    match failure.downcast_ref::<modelseal::Error>() {
        Some(error) => {
            eprintln!("  hint: {}", error.hint());
            error.code()
        }
        None if failure.is::<std::io::Error>() => Code::Io,
        None => Code::Other,
    }
}
