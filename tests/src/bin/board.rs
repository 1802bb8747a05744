//! What `firmware/boot` can't do in a shell: writes what a board is provisioned with, and reads its log.
//!
//! ```text
//! board provision --identity I --grant G --sealed S --length N [--line L] [--time T] --out REGION
//! board state --identity I --out FILE
//! board log --elf ELF
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use defmt_decoder::{DecodeError, Frame, StreamDecoder, Table};
use modelseal::Code;
use modelseal::identity::Identity;
use modelseal::open::SealedFile;
use modelseal_core::grant::DeviceId;
use modelseal_firmware::provision::{
    DELIVERED_GRANT_MAX, DELIVERY_MAX, Delivery, PROVISIONED_MAX, Provisioned,
};
use modelseal_firmware::state::first_state;
use zeroize::Zeroizing;

/// An AT24C64, the chip on the board's I2C bus.
const EEPROM_LEN: usize = 8192;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(report(failure.as_ref()) as u8),
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

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = Options::read(arguments)?;
    match command.as_str() {
        "provision" => provision(&options),
        "state" => state(&options),
        "log" => log(&options),
        _ => Err("the commands are provision, state and log".into()),
    }
}

/// `--name value`, any number of times.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = BTreeMap::new();
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").ok_or("an option begins with --")?.to_owned();
            options.insert(name, arguments.next().ok_or("an option has a value")?);
        }
        Ok(Self(options))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn require(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| format!("--{name} is missing").into())
    }

    fn identity(&self) -> Result<Identity, Failure> {
        let identity = Identity::read(Path::new(self.require("identity")?))?;
        identity.require_enrolled()?;
        Ok(identity)
    }
}

/// What the factory wrote, and then what arrived with the sealed model.
fn provision(options: &Options) -> Result<(), Failure> {
    let identity = options.identity()?;
    let provisioned = Provisioned {
        device: DeviceId::new(identity.device())?,
        line: line(&identity, options)?,
        publisher: identity.publisher()?,
        secret: identity.secret()?,
    };
    let mut grant = Vec::new();
    let room = DELIVERED_GRANT_MAX as u64;
    File::open(options.require("grant")?)?.take(room).read_to_end(&mut grant)?;
    let delivery = Delivery {
        sealed_len: options.require("length")?.parse()?,
        now: options.get("time").map(str::parse).transpose()?,
        grant: &grant,
    };
    let mut first = Zeroizing::new([0; PROVISIONED_MAX]);
    let mut second = [0; DELIVERY_MAX];
    // Only the owner may read the secret in it.
    let mut region =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(options.require("out")?)?;
    region.write_all(provisioned.encode(&mut first)?)?;
    region.write_all(delivery.encode(&mut second)?)?;
    Ok(())
}

/// A board serves one line: the one that was asked for, or the identity's first.
/// The line that was asked for; else the model's, if the device is enrolled for it; else the device's first.
fn line<'i>(identity: &'i Identity, options: &Options) -> Result<&'i str, Failure> {
    let enrolled = |line: &str| identity.lines().iter().find(|enrolled| *enrolled == line);
    let found = match options.get("line") {
        Some(wanted) => enrolled(wanted),
        None => {
            let sealed = SealedFile::open(Path::new(options.require("sealed")?));
            let of_model = sealed.and_then(|sealed| Ok(sealed.header()?.manifest().subject.line.to_owned()));
            of_model.ok().and_then(|line| enrolled(&line)).or(identity.lines().first())
        }
    };
    let refusal = || modelseal::Error::from(modelseal_core::Error::OtherLine);
    Ok(found.map(String::as_str).ok_or_else(refusal)?)
}

/// An EEPROM as it leaves the factory: the first floor, and otherwise blank.
fn state(options: &Options) -> Result<(), Failure> {
    let first = first_state(options.identity()?.first_floor());
    let mut eeprom = vec![0xff; EEPROM_LEN];
    eeprom.splice(..first.len(), first);
    File::create_new(options.require("out")?)?.write_all(&eeprom)?;
    Ok(())
}

/// Decodes the log while it arrives. It is complete only with a verdict at its end.
fn log(options: &Options) -> Result<(), Failure> {
    let elf = std::fs::read(options.require("elf")?)?;
    let table = Table::parse(&elf).map_err(|error| error.to_string())?.ok_or("the image has no log")?;
    let mut decoder = table.new_stream_decoder();
    let mut last = String::new();
    let mut piece = [0; 4096];
    loop {
        let n = std::io::stdin().read(&mut piece)?;
        if n == 0 {
            break;
        }
        decoder.received(piece.get(..n).unwrap_or_default());
        print_frames(decoder.as_mut(), &mut last)?;
    }
    let ends = last.starts_with("opened ") || last.starts_with("refused ");
    if ends { Ok(()) } else { Err("the board stopped without a verdict".into()) }
}

fn print_frames(decoder: &mut dyn StreamDecoder, last: &mut String) -> Result<(), Failure> {
    loop {
        match decoder.decode() {
            Ok(frame) => *last = shown(&frame),
            Err(DecodeError::UnexpectedEof) => return Ok(()),
            Err(DecodeError::Malformed) => return Err("the log is malformed".into()),
        }
        writeln!(std::io::stdout(), "{last}")?;
    }
}

fn shown(frame: &Frame<'_>) -> String {
    let message = frame.display_message();
    match frame.level() {
        Some(level) => format!("{} {message}", level.as_str().to_uppercase()),
        None => message.to_string(),
    }
}
