//! Brings a board an update over its serial line, a Unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use embedded_io_adapters::std::FromStd;
use modelseal_firmware::update::send::{Failure as Failed, Update};

use crate::failure::Failure;
use crate::options::Options;
use crate::program::read_grant;

/// How long a request waits for its answer. An emulated board may have little of the processor.
const PATIENCE: Duration = Duration::from_secs(5);

/// `--cut` ends it, as a cut of the line would, after so many bytes.
pub(crate) fn send(options: &Options) -> Result<(), Failure> {
    let image = options.get("sealed").map(std::fs::read).transpose()?;
    let grant = read_grant(options)?;
    let socket = connect(Path::new(options.require("socket")?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let left = options.number("cut")?.unwrap_or(u64::MAX);
    let mut sent = 0;
    let line = FromStd::new(Line { socket, left, sent: &mut sent });
    let update = Update { image: image.as_deref(), grant: &grant };
    let outcome = modelseal_firmware::update::send(line, &update, |done, total| {
        eprintln!("{done} of {total} bytes are there");
    });
    eprintln!("{sent} bytes were sent");
    match outcome {
        Ok(_) => Ok(()),
        Err(Failed::Refused(code)) => Err(refused(code)),
        Err(_) if sent == left => {
            println!("cut after {sent} bytes");
            Err("the power was cut, as --cut asks; without it, the same update goes on from there".into())
        }
        Err(failed) => Err(format!("the update didn't arrive: {failed:?}").into()),
    }
}

/// Whoever makes the socket may not listen yet.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let began = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(_) if began.elapsed() < 2 * PATIENCE => sleep(Duration::from_millis(20)),
            connected => return connected,
        }
    }
}

/// The verdict, as a board gives it that refuses to boot.
pub(crate) fn refused(code: u16) -> Failure {
    match modelseal_core::Error::ALL.iter().find(|error| error.code() == code) {
        Some(error) => {
            println!("refused {code} {}", error.name());
            (*error).into()
        }
        None => format!("the board refuses the update with {code}").into(),
    }
}

/// A line that is cut after `left` more bytes.
struct Line<'l> {
    socket: UnixStream,
    left: u64,
    sent: &'l mut u64,
}

impl Read for Line<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.read(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.socket.write(bytes.get(..room).unwrap_or_default())?;
        self.left -= written as u64;
        *self.sent += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
