//! The list of a folder's files (FORMAT.md, section 14.1): the plaintext of a sealed model of the kind "directory".
//!
//! ```text
//! list = format u8 = 1 | files: count, then for each    path | model id[32] | length        all of it postcard, strict
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// The kind of a sealed model that is a list.
pub const KIND: &str = "directory";
/// Longest list in bytes.
pub const LIST_MAX: u64 = 16 << 20;
/// Most files of one list.
pub const FILES_MAX: usize = 1 << 16;
/// Longest path in bytes.
pub const PATH_MAX: usize = 1024;
/// Longest name within a path in bytes: with `.sealed` behind it, it still is a file name.
pub const NAME_MAX: usize = 247;
const FORMAT: u8 = 1;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path below the folder, with `/` between names.
    pub path: String,
    /// The id of the sealed model that it is in; zeros for an empty file, which has none.
    pub id: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

/// All files of a folder, by path. Holding one proves that it has the right shape.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    format: u8,
    files: Vec<Entry>,
}

impl List {
    /// Of these files, whose paths may be in any order.
    pub fn new(mut files: Vec<Entry>) -> Result<Self> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let list = Self { format: FORMAT, files };
        match list.problem() {
            Some(problem) => Err(Error::usage(problem, "leave it out, or give it another name")),
            None => Ok(list),
        }
    }

    /// Decodes exactly `bytes`, which must be the canonical encoding, and checks every bound.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let refused = |what: &str| {
            Err(Error::new(Code::NotAuthentic, format!("the list of files {what}"), "have it sealed again"))
        };
        if bytes.first() != Some(&FORMAT) {
            let hint = "use a newer modelseal";
            return Err(Error::new(Code::Unsupported, "the list of files has an unknown format", hint));
        }
        let Ok(list) = postcard::from_bytes::<Self>(bytes) else { return refused("is malformed") };
        // What is encoded in another way, or followed by something, doesn't come out as it went in.
        if list.encode().is_none_or(|canonical| canonical != bytes) {
            return refused("is malformed");
        }
        match list.problem() {
            Some(problem) => refused(&format!("breaks a rule: {problem}")),
            None => Ok(list),
        }
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok()
    }

    /// The files, by path.
    pub fn files(&self) -> &[Entry] {
        &self.files
    }

    /// The file at `path`.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        let found = self.files.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.files.get(found)
    }

    fn problem(&self) -> Option<String> {
        let count = self.files.len();
        if !(1..=FILES_MAX).contains(&count) {
            return Some(format!("{count} files aren't between 1 and {FILES_MAX}"));
        }
        if !self.files.is_sorted_by(|a, b| a.path < b.path) {
            return Some("the paths aren't in strictly ascending order".into());
        }
        let mut names = Names::default();
        self.files.iter().find_map(|entry| problem_of(entry).or_else(|| names.problem(&entry.path)))
    }
}

fn problem_of(entry: &Entry) -> Option<String> {
    if let Some(problem) = problem_of_path(&entry.path) {
        return Some(format!("{:?} {problem}", entry.path));
    }
    if (entry.length == 0) != (entry.id == [0; 32]) || entry.length > modelseal_core::manifest::LENGTH_MAX {
        return Some(format!("the length of {:?} doesn't fit", entry.path));
    }
    None
}

/// Why a path wouldn't be the same file on every system, if so.
pub fn problem_of_path(path: &str) -> Option<&'static str> {
    if path.len() > PATH_MAX {
        return Some("is longer than 1024 bytes");
    }
    if path.eq_ignore_ascii_case(KIND) {
        return Some("has the name of the list itself");
    }
    path.split('/').find_map(problem_of_name)
}

pub(crate) fn problem_of_name(name: &str) -> Option<&'static str> {
    let special = |c: char| c.is_control() || r#"\:*?"<>|"#.contains(c);
    match name {
        "" | "." | ".." => Some("isn't a path below the folder"),
        _ if name.len() > NAME_MAX => Some("has a name longer than 247 bytes"),
        _ if name.contains(special) => Some(r#"has a control character or one of \ : * ? " < > |"#),
        _ if name.ends_with(['.', ' ']) => Some("has a name that ends with a dot or a space"),
        _ if is_device(name) => Some("has a name that Windows keeps for devices"),
        _ => None,
    }
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    let numbered = |kind| {
        let mut number = stem.strip_prefix(kind).unwrap_or_default().chars();
        matches!((number.next(), number.next()), (Some('0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'), None))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT")
}

/// Paths that were seen, without regard to case.
#[derive(Default)]
struct Names {
    files: HashSet<String>,
    folders: HashSet<String>,
}

impl Names {
    /// No two are the same file, and none is a file and a folder, where upper and lower case are the same.
    fn problem(&mut self, path: &str) -> Option<String> {
        let path = path.to_ascii_lowercase();
        let folders: Vec<_> = path.match_indices('/').filter_map(|(end, _)| path.get(..end)).collect();
        let taken = folders.iter().any(|folder| self.files.contains(*folder)) || self.folders.contains(&path);
        self.folders.extend(folders.iter().map(|folder| (*folder).to_owned()));
        if let Some(folder) =
            folders.iter().find(|folder| folder.ends_with(".sealed") || folder.ends_with(".grant"))
        {
            return Some(format!(
                "the folder {folder:?} could have the name of a file's sealed model or grant"
            ));
        }
        if taken || !self.files.insert(path.clone()) {
            return Some(format!("{path:?} would be another file, too, where case doesn't count"));
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry { path: path.into(), id: [7; 32], length: 1 }
    }

    fn parsed(files: &[Entry]) -> Result<List> {
        List::parse(&List { format: FORMAT, files: files.to_vec() }.encode().unwrap())
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        let paths = ["a", "a.b", "sub/Ä model (1).gguf", "sub/deep/x", ".hidden", "concept", "com10"];
        let list = List::new(paths.map(entry).to_vec()).unwrap();
        let bytes = list.encode().unwrap();
        assert_eq!(List::parse(&bytes).unwrap(), list);
        assert_eq!(list.get("sub/deep/x"), Some(&entry("sub/deep/x")));
        assert_eq!(list.get("sub/deep"), None);
    }

    #[test]
    fn paths_that_are_not_the_same_file_everywhere_are_refused() {
        let long = "x".repeat(NAME_MAX + 1);
        let deep = ["x"; 513].join("/");
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a\\b",
            "c:",
            "a\0",
            "a\n",
            "a\u{7f}",
            "a\u{85}",
            "a*",
            "a?",
            "a\"",
            "a<",
            "a>",
            "a|",
            "a.",
            "a ",
            "a./b",
            "nul",
            "Con.txt",
            "sub/COM1.onnx",
            "lpt0",
            "aux .x",
            "directory",
            "Directory",
            &long,
            &deep,
        ] {
            assert!(List::new(vec![entry(path)]).is_err(), "{path:?}");
            let refused = parsed(&[entry(path)]).unwrap_err();
            assert_eq!(refused.code(), Code::NotAuthentic, "{path:?}");
        }
    }

    #[test]
    fn paths_that_are_one_file_are_refused() {
        let files = [["a", "a"], ["A", "a"], ["a", "a/b"], ["A", "a/b"], ["A/b", "a"], ["X/y", "x/Y"]];
        let sealed = [["a", "a.Sealed/b"], ["a", "x/a.grant/b"], ["a", "directory.sealed/b"]];
        for paths in files.into_iter().chain(sealed) {
            assert!(List::new(paths.map(entry).to_vec()).is_err(), "{paths:?}");
            assert!(parsed(&paths.map(entry)).is_err(), "{paths:?}");
        }
        assert!(parsed(&["A/b", "a/c"].map(entry)).is_ok());
        assert!(parsed(&["a", "a.sealed", "b.grant"].map(entry)).is_ok());
        assert!(parsed(&["b", "a"].map(entry)).is_err());
    }

    #[test]
    fn lengths_and_ids_fit() {
        let with = |id, length| parsed(&[Entry { path: "a".into(), id: [id; 32], length }]);
        assert!(with(0, 0).is_ok() && with(1, 1 << 48).is_ok());
        assert!(with(0, 1).is_err() && with(1, 0).is_err() && with(1, (1 << 48) + 1).is_err());
        assert!(parsed(&[]).is_err());
        let many: Vec<_> = (0..=FILES_MAX).map(|i| entry(&format!("{i:05}"))).collect();
        assert!(parsed(&many).is_err() && parsed(many.split_last().unwrap().1).is_ok());
    }

    #[test]
    fn only_the_canonical_encoding_is_parsed() {
        let good = List::new(vec![entry("a")]).unwrap().encode().unwrap();
        assert_eq!(List::parse(&good).unwrap().files(), [entry("a")]);
        for end in 0..good.len() {
            assert!(List::parse(good.get(..end).unwrap()).is_err(), "{end}");
        }
        assert!(List::parse(&[&good[..], &[0]].concat()).is_err());
        // The count, one, in two bytes.
        let (format, rest) = good.split_first().unwrap();
        let long = [&[*format, 0x81, 0], rest.get(1..).unwrap()].concat();
        assert_eq!(List::parse(&long).unwrap_err().code(), Code::NotAuthentic);
        let unknown = [&[2], rest].concat();
        assert_eq!(List::parse(&unknown).unwrap_err().code(), Code::Unsupported);
        // A count that nothing stands behind takes no memory.
        assert!(List::parse(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
