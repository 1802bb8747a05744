//! Asks at the terminal, without showing what is typed. Whatever ends the program meanwhile, the terminal shows again
//! what is typed afterwards.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

use crate::text::shown;

/// Longest line: longer ones are no passphrases.
const MAX: usize = 4096;

/// A line from the terminal of this process.
pub(super) fn ask(text: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let silence = Silence::begin(&terminal)?;
    terminal.write_all(shown(text).as_bytes())?;
    let line = read_line(&mut terminal);
    drop(silence);
    terminal.write_all(b"\n")?;
    line
}

/// While the terminal doesn't show what is typed.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn begin(terminal: &File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT])?;
        let silence = Self { terminal: terminal.try_clone()?, before: before.clone() };
        let (shown, restored) = (before.clone(), terminal.try_clone()?);
        // For as long as the process lives: without it, these signals would be ignored from then on.
        std::thread::Builder::new().spawn(move || {
            for signal in signals.forever() {
                let _ = tcsetattr(&restored, OptionalActions::Now, &shown);
                let _ = emulate_default_handler(signal);
            }
        })?;
        let mut silent = before;
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(silence)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Never grows, so that no copy stays behind, and reads no further than the line.
fn read_line(terminal: &mut File) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; MAX]);
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match terminal.read(rest)? {
            0 if len == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            read => len += read,
        }
        if bytes.get(..len).is_some_and(|line| line.ends_with(b"\n")) {
            break;
        }
    }
    let line = std::str::from_utf8(bytes.get(..len).unwrap_or_default());
    let line = line.map_err(|_| io::ErrorKind::InvalidData)?;
    let mut text = Zeroizing::new(String::with_capacity(len));
    text.push_str(line.trim_end_matches(['\n', '\r']));
    Ok(text)
}
