//! Brings a device a sealed model or a grant over its serial line.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use embedded_io_adapters::std::FromStd;
use modelseal_core::grant::{GRANT_MAX, Grant};
use modelseal_firmware::update::send::{Failure, Update, send};
use modelseal_firmware::update::wire::Broken;

use crate::error::{Code, Error, Result};
use crate::files;
use crate::io::Input;
use crate::open::SealedFile;

/// How long a device may take to answer: as long as hashing a block, or verifying a whole image, takes it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is brought.
pub struct Brought {
    image: Option<Vec<u8>>,
    grant: Vec<u8>,
}

impl Brought {
    /// A grant, and the sealed model that it is for unless the device has that already.
    pub fn read(sealed: Option<&Path>, grant: &Path) -> Result<Self> {
        let bytes = files::read(grant, GRANT_MAX as u64)?;
        let parsed = Grant::parse(&bytes).map_err(|error| Error::from(error).about(grant))?;
        let image = sealed.map(|path| image(path, &parsed)).transpose()?;
        Ok(Self { image, grant: bytes })
    }

    /// How many bytes that is.
    pub fn len(&self) -> u64 {
        (self.image.as_ref().map_or(0, Vec::len) + self.grant.len()) as u64
    }

    /// Whether there is nothing to bring, which there always is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings it to the device at `port`, a serial line or a Unix socket, and gives the version that the device has
    /// verified. `progress` is told how many bytes are there.
    pub fn send(&self, port: &Path, baud: u32, progress: &mut dyn FnMut(u64)) -> Result<u64> {
        let line = open(port, baud)
            .map_err(|error| Error::io(port, &error).with_hint("check the port and its owner"))?;
        let update = Update { image: self.image.as_deref(), grant: &self.grant };
        let sent = send(FromStd::new(line), &update, |done, _| progress(done as u64));
        sent.map_err(|failure| failed(port, failure))
    }
}

/// The whole sealed model, if the grant is for it. A device would find out, too, but only when all has been sent.
fn image(path: &Path, grant: &Grant<'_>) -> Result<Vec<u8>> {
    let file = Input::file(path, false)?;
    let io = |error: io::Error| Error::io(path, &error);
    let sealed = SealedFile::from_file(path, file.try_clone().map_err(io)?)?;
    if sealed.header()?.id() != grant.terms().model {
        return Err(Error::from(modelseal_core::Error::OtherModel).about(path));
    }
    let mut bytes = vec![0; usize::try_from(sealed.header()?.layout().end).unwrap_or(usize::MAX)];
    files::read_exact_at(&file, &mut bytes, 0).map_err(io)?;
    Ok(bytes)
}

fn failed(port: &Path, failure: Failure<io::Error>) -> Error {
    let port = port.display();
    let again = "send it again; what has arrived isn't sent a second time";
    match failure {
        Failure::Refused(code) => refused(code),
        Failure::Silence => Error::new(
            Code::Io,
            format!("nobody answers at {port}"),
            "check that the device waits for an update, and the baud rate",
        ),
        Failure::Line(Broken::Line(error)) => Error::new(Code::Io, format!("{port}: {error}"), again),
        Failure::Line(Broken::Ended) => Error::new(Code::Io, format!("{port}: the device has gone"), again),
        Failure::Damaged => {
            Error::new(Code::Io, format!("{port}: a block doesn't arrive as it was sent"), again)
        }
        Failure::Answer | Failure::Grant => Error::new(
            Code::Unsupported,
            format!("{port}: the device answers what this modelseal doesn't know"),
            "use the modelseal that the device's firmware was made with",
        ),
    }
}

/// The device's own reason.
fn refused(code: u16) -> Error {
    match modelseal_core::Error::ALL.into_iter().find(|error| error.code() == code) {
        Some(error) => Error::from(error).about(Path::new("the device refuses the update")),
        None => Error::new(
            Code::Unsupported,
            format!("the device refuses the update with {code}"),
            "see its firmware",
        ),
    }
}

/// A line that gives up reading after a while.
trait Line: Read + Write {}

impl<T: Read + Write> Line for T {}

#[cfg(unix)]
fn open(port: &Path, baud: u32) -> io::Result<Box<dyn Line>> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    if port.metadata()?.file_type().is_socket() {
        let socket = UnixStream::connect(port)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        return Ok(Box::new(Socket(socket)));
    }
    Ok(Box::new(Terminal::open(port, baud)?))
}

#[cfg(not(unix))]
fn open(_: &Path, _: u32) -> io::Result<Box<dyn Line>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A socket whose time is up would block.
#[cfg(unix)]
struct Socket(std::os::unix::net::UnixStream);

#[cfg(unix)]
impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

#[cfg(unix)]
impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A terminal whose time is up reads nothing.
#[cfg(unix)]
struct Terminal(File);

#[cfg(unix)]
impl Terminal {
    /// 8 data bits, no parity, no flow control, nothing translated.
    fn open(port: &Path, baud: u32) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        use rustix::termios::{ControlModes, OptionalActions, SpecialCodeIndex};

        // A modem's carrier isn't waited for, and the terminal doesn't become this process's.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(port, flags, Mode::empty())?);
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        let mut settings = rustix::termios::tcgetattr(&file)?;
        settings.make_raw();
        settings.set_speed(baud)?;
        settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        settings.control_modes -= ControlModes::CRTSCTS | ControlModes::CSTOPB;
        let tenths = u8::try_from(PATIENCE.as_millis() / 100).unwrap_or(u8::MAX);
        settings.special_codes[SpecialCodeIndex::VMIN] = 0;
        settings.special_codes[SpecialCodeIndex::VTIME] = tenths;
        rustix::termios::tcsetattr(&file, OptionalActions::Flush, &settings)?;
        Ok(Self(file))
    }
}

#[cfg(unix)]
impl Read for Terminal {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::TimedOut.into()),
            read => Ok(read),
        }
    }
}

#[cfg(unix)]
impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
