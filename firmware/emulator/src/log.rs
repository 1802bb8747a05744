//! What a board says.

use std::io::{Read, Write};
use std::path::Path;

use defmt_decoder::{DecodeError, Frame, StreamDecoder, Table};

use crate::failure::Failure;
use crate::options::Options;

/// Decodes the log while it arrives. It is complete only with a verdict. That may be kept in a file, for whoever wants
/// it behind all else, and knows what it means if there is none.
pub(crate) fn log(options: &Options) -> Result<(), Failure> {
    let elf = std::fs::read(options.require("elf")?)?;
    let table = Table::parse(&elf).map_err(|error| error.to_string())?.ok_or("the image has no log")?;
    let mut decoder = table.new_stream_decoder();
    let kept = options.get("verdict").map(Path::new);
    let mut complete = kept.is_some();
    let mut piece = [0; 4096];
    loop {
        let n = std::io::stdin().read(&mut piece)?;
        if n == 0 {
            return if complete { Ok(()) } else { Err("the board stopped without a verdict".into()) };
        }
        decoder.received(piece.get(..n).unwrap_or_default());
        complete |= print_frames(decoder.as_mut(), kept)?;
    }
}

/// Whether a verdict was among them.
fn print_frames(decoder: &mut dyn StreamDecoder, kept: Option<&Path>) -> Result<bool, Failure> {
    let mut complete = false;
    loop {
        let frame = match decoder.decode() {
            Ok(frame) => frame,
            Err(DecodeError::UnexpectedEof) => return Ok(complete),
            Err(DecodeError::Malformed) => return Err("the log is malformed".into()),
        };
        let line = shown(&frame) + "\n";
        // What a board prints without a level is its verdict.
        match (frame.level(), kept) {
            (None, Some(path)) => std::fs::write(path, line)?,
            _ => std::io::stdout().write_all(line.as_bytes())?,
        }
        complete |= frame.level().is_none();
    }
}

fn shown(frame: &Frame<'_>) -> String {
    let message = frame.display_message();
    match frame.level() {
        Some(level) => format!("{} {message}", level.as_str().to_uppercase()),
        None => message.to_string(),
    }
}
