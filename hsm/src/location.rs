//! Which vault: `file:PATH`, or an RFC 7512 `pkcs11:` URI.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::exposed::{self, Exposed};

/// Where a vault is. It never holds a secret: a URI with `pin-value` is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The software vault, in this file.
    File(PathBuf),
    /// A PKCS#11 token.
    Pkcs11(Pkcs11Uri),
}

/// What modelseal uses of an RFC 7512 URI, decoded. At least one of the three token attributes is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `serial`: the token's serial number.
    pub serial: Option<String>,
    /// `manufacturer`: the token's manufacturer.
    pub manufacturer: Option<String>,
    /// `module-path`: the PKCS#11 library.
    pub module: Option<PathBuf>,
    /// `pin-source`: the file that has the PIN.
    pub pin_source: Option<PathBuf>,
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("file", "")) => Err(Error::Location("file: needs a path")),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(("pkcs11", _)) => Pkcs11Uri::parse(text).map(Self::Pkcs11),
            _ => Err(Error::Location("it is file:PATH, or pkcs11:token=LABEL?module-path=LIBRARY")),
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pkcs11(uri) => {
                let label = uri.token.as_deref().or(uri.serial.as_deref());
                write!(f, "pkcs11:{}", label.or(uri.manufacturer.as_deref()).unwrap_or_default())
            }
        }
    }
}

const NO_URI: &str = "the pkcs11: URI isn't one of RFC 7512";
const PIN_VALUE: &str = "pin-value leaks the PIN; put it into a file and name that as pin-source";

impl Pkcs11Uri {
    fn parse(text: &str) -> Result<Self, Error> {
        // Wherever and however it is spelt: an error that repeats it would leak it once more.
        if text.to_ascii_lowercase().contains("pin-value") {
            return Err(Error::Location(PIN_VALUE));
        }
        // The parser skips white space, panics where nothing else is left, and takes any % for itself.
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) || !is_percent_encoded(text) {
            return Err(Error::Location(NO_URI));
        }
        let uri = pk11_uri_parser::parse(text).map_err(|_| Error::Location(NO_URI))?;
        let parsed = Self {
            token: uri.token().map(decode).transpose()?,
            serial: uri.serial().map(decode).transpose()?,
            manufacturer: uri.manufacturer().map(decode).transpose()?,
            module: uri.module_path().map(decode).transpose()?.map(Into::into),
            pin_source: uri
                .pin_source()
                .map(decode)
                .transpose()?
                .map(|source| source_path(&source))
                .transpose()?,
        };
        if parsed.token.is_none() && parsed.serial.is_none() && parsed.manufacturer.is_none() {
            return Err(Error::Location("the pkcs11: URI names no token; add token=LABEL"));
        }
        Ok(parsed)
    }
}

/// Two hexadecimal digits follow each %.
fn is_percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

fn decode(value: &str) -> Result<String, Error> {
    let decoded = percent_decode_str(value).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::Location("the pkcs11: URI isn't UTF-8"))
}

/// RFC 7512, section 2.4: a `file:` URI, whose path is absolute, or a path. `|program` is refused: whoever sets the
/// URI would run a program.
fn source_path(source: &str) -> Result<PathBuf, Error> {
    let path = match source.split_once(':') {
        Some(("file", path)) => {
            let local = path.strip_prefix("//localhost/").map(|path| format!("/{path}"));
            let path = local.unwrap_or_else(|| path.strip_prefix("//").unwrap_or(path).to_owned());
            if Path::new(&path).is_absolute() { Some(path) } else { None }
        }
        // A drive's letter is no scheme.
        Some((scheme, _)) if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => None,
        _ => Some(source.to_owned()).filter(|source| !source.is_empty() && !source.starts_with('|')),
    };
    path.map(PathBuf::from).ok_or(Error::Location(
        "pin-source is a file: file:/ABSOLUTE/PATH, or a path; nothing else can be a source",
    ))
}

/// Longest passphrase or PIN in bytes.
const PASSPHRASE_MAX: usize = 4096;

/// A passphrase or PIN.
pub struct Passphrase {
    text: Zeroizing<String>,
    exposed: Option<Exposed>,
}

impl Passphrase {
    /// Takes it over from where it was entered; one line end at the end is dropped.
    pub fn new(mut text: Zeroizing<String>) -> Self {
        let line =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        let len = line.len();
        text.truncate(len);
        Self { text, exposed: None }
    }

    /// Reads it from a file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        use std::io::Read;
        // Never grows, so that no copy stays behind.
        let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_MAX + 1));
        let file = std::fs::File::open(path).map_err(|error| Error::Io(path.to_owned(), error))?;
        let metadata = file.metadata().map_err(|error| Error::Io(path.to_owned(), error))?;
        let read = file.take(PASSPHRASE_MAX as u64 + 1).read_to_string(&mut text);
        match read {
            Ok(len) if len > PASSPHRASE_MAX => {
                Err(Error::Io(path.to_owned(), std::io::ErrorKind::FileTooLarge.into()))
            }
            Ok(_) => Ok(Self { exposed: Exposed::of(path, exposed::mode(&metadata)), ..Self::new(text) }),
            Err(error) => Err(Error::Io(path.to_owned(), error)),
        }
    }

    /// The file that it was read from, if others than its owner may read or change that: something to warn of.
    pub fn exposed(&self) -> Option<&Exposed> {
        self.exposed.as_ref()
    }

    pub(crate) fn expose(&self) -> &str {
        &self.text
    }
}
