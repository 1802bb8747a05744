//! What a board says.

use std::io::{Read, Write};

use defmt_decoder::{DecodeError, Frame, StreamDecoder, Table};

use crate::Failure;
use crate::options::Options;

/// Decodes the log while it arrives. It is complete only with a verdict at its end, unless power is to be cut.
pub(crate) fn log(options: &Options) -> Result<(), Failure> {
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
    let ends = ["opened ", "refused ", "updated "].iter().any(|verdict| last.starts_with(verdict));
    if ends || options.get("cut").is_some() {
        Ok(())
    } else {
        Err("the board stopped without a verdict".into())
    }
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
