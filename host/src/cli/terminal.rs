//! The one place where text reaches standard output and standard error. A stranger wrote part of most of it, so what
//! a terminal would obey or hide is escaped, and a line begins only where the program begins one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::{shown, shown_json};

/// Text by its lines: a string is one of them, whatever is in it.
pub(super) trait Text {
    /// Each ready to be shown, with its end.
    fn shown(&self) -> String;
}

impl Text for str {
    fn shown(&self) -> String {
        format!("{}\n", shown(self))
    }
}

impl Text for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

impl<L: Text> Text for [L] {
    fn shown(&self) -> String {
        self.iter().map(L::shown).collect()
    }
}

impl<L: Text> Text for Vec<L> {
    fn shown(&self) -> String {
        self.as_slice().shown()
    }
}

impl<L: Text, const N: usize> Text for [L; N] {
    fn shown(&self) -> String {
        self.as_slice().shown()
    }
}

impl<T: Text + ?Sized> Text for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl Text for Value {
    fn shown(&self) -> String {
        format!("{}\n", shown_json(&self.to_string()))
    }
}

/// To standard output.
pub(super) fn print(text: &(impl Text + ?Sized)) -> Result<()> {
    write(&text.shown())
}

/// To standard error, in one piece, for others may write there, too. Where even that is full, the exit code still says
/// it.
pub(super) fn complain(text: &(impl Text + ?Sized)) {
    let _ = io::stderr().write_all(text.shown().as_bytes());
}

/// Data that the program made all by itself, as it is.
pub(super) fn print_data(data: &str) -> Result<()> {
    write(data)
}

fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).map_err(|error| Error::io(Path::new("-"), &error))
}

/// A file's name for JSON, which has text only.
pub(super) fn name(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

/// Likewise for several.
pub(super) fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(name).collect()
}

/// Standard error for whoever writes whole lines there, each in one piece.
pub(super) struct Lines {
    pub(super) json: bool,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.trim_end_matches('\n');
        let line = if self.json { shown_json(line) } else { shown(line).into_owned() };
        io::stderr().write_all(format!("{line}\n").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
