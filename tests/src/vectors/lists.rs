//! Lists of folders, section 14.1. What is wrong has no number there, but the class of one.

use super::make::varint;
use super::shape::NOT_UTF8;
use super::{Case, File};

/// Paths and lengths.
type Files<'p> = Vec<(&'p str, u64)>;

/// The encoding of an entry, in the order of section 14.1.
struct Entry {
    path: Vec<u8>,
    id: Vec<u8>,
    length: Vec<u8>,
}

impl Entry {
    fn new(path: impl AsRef<[u8]>, length: u64) -> Self {
        let path = path.as_ref();
        let id = if length == 0 { [0; 32] } else { *blake3::hash(path).as_bytes() };
        let path = [varint(path.len() as u64), path.to_vec()].concat();
        Self { path, id: id.to_vec(), length: varint(length) }
    }

    fn concat(&self) -> Vec<u8> {
        [&self.path[..], &self.id, &self.length].concat()
    }
}

fn list(entries: &[Entry]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(Entry::concat).collect();
    [vec![1], varint(entries.len() as u64), entries.concat()].concat()
}

fn of_paths<'p>(paths: impl IntoIterator<Item = &'p str>) -> Vec<u8> {
    let entries: Vec<_> = paths.into_iter().map(|path| Entry::new(path, 1)).collect();
    list(&entries)
}

pub(super) fn cases() -> Vec<Case> {
    [accepted(), paths(), collisions(), encodings()].concat()
}

fn case(name: &str, comment: &str, list: &[u8]) -> Case {
    Case::new(format!("list-{name}"), comment, "parse-list").list(list)
}

fn accepted() -> Vec<Case> {
    let name = "n".repeat(247);
    let path = [&name[..], &name, &name, &name, &"p".repeat(32)].join("/");
    assert_eq!(path.len(), 1024);
    let cases: [(&str, &str, Files<'_>); 8] = [
        ("one-file", "one file", vec![("model.gguf", 52_272)]),
        ("an-empty-file", "an empty file has no id", vec![("a", 0), ("b", 1)]),
        ("longest-length", "2^48 bytes", vec![("a", 1 << 48)]),
        ("longest-name", "a name of 247 bytes", vec![(&name, 1)]),
        ("longest-path", "a path of 1024 bytes", vec![(&path, 1)]),
        (
            "order-is-of-bytes",
            "upper case before lower, `.` before `/`, and UTF-8 last",
            vec![("B", 1), ("a", 1), ("b.c", 1), ("c/d", 1), ("\u{e4}", 1), ("\u{4e00}", 1)],
        ),
        (
            "names-that-may-be",
            "nearly what is refused",
            [
                "...a",
                ".hidden",
                "COM",
                "COM10",
                "a b",
                "aux\u{a0}.x",
                "com\u{2074}",
                "con ner",
                "concept",
                "directory.x",
                "directory/x",
                "lpt",
                "null",
                "x.grant",
                "x.sealed",
                "y/x.sealed",
            ]
            .map(|path| (path, 1))
            .into(),
        ),
        ("case-beyond-ascii", "case is that of ASCII letters", vec![("\u{c4}", 1), ("\u{e4}", 1)]),
    ];
    cases
        .map(|(name, comment, files)| {
            let entries: Vec<_> = files.iter().map(|(path, length)| Entry::new(path, *length)).collect();
            let files = files.iter().zip(&entries).map(|((path, length), entry)| File {
                path: (*path).into(),
                id: hex::encode(&entry.id),
                length: super::Number(*length),
            });
            let files = files.collect();
            Case { files: Some(files), ..case(name, comment, &list(&entries)) }
        })
        .into()
}

/// One file each, whose path isn't portable.
fn paths() -> Vec<Case> {
    let long = "n".repeat(248);
    let deep = ["x"; 513].join("/");
    let paths: [(&str, &str); 49] = [
        ("empty", ""),
        ("root", "/"),
        ("absolute", "/a"),
        ("ends-with-slash", "a/"),
        ("two-slashes", "a//b"),
        ("dot", "."),
        ("dot-dot", ".."),
        ("parent", "../a"),
        ("dot-within", "a/./b"),
        ("dot-dot-within", "a/../b"),
        ("backslash", "a\\b"),
        ("colon", "c:a"),
        ("star", "a*"),
        ("question-mark", "a?"),
        ("quote", "a\"b"),
        ("less", "a<b"),
        ("greater", "a>b"),
        ("bar", "a|b"),
        ("control-00", "a\0"),
        ("control-0a", "a\nb"),
        ("control-1f", "\u{1f}"),
        ("control-7f", "a\u{7f}"),
        ("control-80", "a\u{80}"),
        ("control-9f", "a\u{9f}b"),
        ("ends-with-dot", "a."),
        ("ends-with-space", "a "),
        ("folder-ends-with-dot", "a./b"),
        ("folder-ends-with-space", "a /b"),
        ("con", "con"),
        ("prn", "PRN"),
        ("aux", "Aux"),
        ("nul-in-a-folder", "a/nul"),
        ("nul-folder", "NUL/a"),
        ("con-with-ending", "con.tar.gz"),
        ("con-space-ending", "con  .x"),
        ("com0", "com0"),
        ("com1", "COM1.onnx"),
        ("com9", "x/Com9"),
        ("lpt1", "lpt1"),
        ("com-superscript", "com\u{b9}.x"),
        ("lpt-superscript", "LPT\u{b3}"),
        ("console-in", "conin$"),
        ("console-out", "CONOUT$.x"),
        ("the-list", "directory"),
        ("the-list-in-capitals", "DIRECTORY"),
        ("folder-sealed", "a.sealed/b"),
        ("folder-grant", "x/A.Grant/b"),
        ("name-of-248", &long),
        ("path-of-1025", &deep),
    ];
    paths
        .map(|(name, path)| case(&format!("path-{name}"), "its path", &of_paths([path])).list_refused(3))
        .into()
}

fn collisions() -> Vec<Case> {
    let paths: [(&str, &[&str]); 8] = [
        ("twice", &["a", "a"]),
        ("other-case", &["A", "a"]),
        ("descending", &["b", "a"]),
        ("not-by-bytes", &["a", "B"]),
        ("file-and-folder", &["a", "a/b"]),
        ("file-and-folder-other-case", &["A", "a/b"]),
        ("folder-and-file-other-case", &["A/b", "a"]),
        ("other-case-of-a-folder", &["X/y", "x/Y"]),
    ];
    let refused = |(name, paths): (&str, &[&str])| {
        case(&format!("paths-{name}"), "two paths", &of_paths(paths.iter().copied())).list_refused(3)
    };
    paths.map(refused).into()
}

fn encodings() -> Vec<Case> {
    let good = || Entry::new("a", 1);
    let bytes = |entry: &Entry| list(std::slice::from_ref(entry));
    let one = bytes(&good());
    let many = of_paths(["a", "b", "c"]);
    let malformed: [(&str, &str, Vec<u8>); 15] = [
        ("no-files", "no files", list(&[])),
        ("left-over", "a byte is left over", [&one[..], &[0]].concat()),
        ("cut", "the last byte is missing", one[..one.len() - 1].to_vec()),
        ("cut-in-an-id", "ends in an id", one[..20].to_vec()),
        ("format-alone", "ends after the format", vec![1]),
        ("one-file-more", "says four files, has three", [&[1, 4], &many[2..]].concat()),
        ("one-file-less", "says two files, has three", [&[1, 2], &many[2..]].concat()),
        ("many-files", "says 2^64 - 1 files", [&[1], &varint(u64::MAX)[..], &one[2..]].concat()),
        (
            "over-long-files",
            "the number of files, with a zero behind it",
            [&[1, 0x81, 0], &one[2..]].concat(),
        ),
        ("over-long-path", "a path's length, with a zero behind it", {
            bytes(&Entry { path: vec![0x81, 0, b'a'], ..good() })
        }),
        ("over-long-length", "a length, with a zero behind it", {
            bytes(&Entry { length: vec![0x81, 0], ..good() })
        }),
        ("length-beyond-u64", "the tenth byte is 0x02", {
            bytes(&Entry { length: [&[0x80; 9][..], &[2]].concat(), ..good() })
        }),
        ("length-beyond-2-48", "2^48 + 1 bytes", bytes(&Entry::new("a", (1 << 48) + 1))),
        ("length-0-with-id", "0 bytes, with an id", bytes(&Entry { length: vec![0], ..good() })),
        ("length-1-without-id", "1 byte, without an id", bytes(&Entry { id: vec![0; 32], ..good() })),
    ];
    let not_utf8 = NOT_UTF8.map(|(name, path)| {
        let list = bytes(&Entry::new(path, 1));
        case(&format!("not-utf-8-{name}"), "a path that isn't UTF-8", &list).list_refused(3)
    });
    let unknown = [("format-0", 0), ("format-2", 2), ("format-255", 255)]
        .map(|(name, format)| case(name, "another format", &[&[format], &one[1..]].concat()).list_refused(7));
    let malformed = malformed.map(|(name, comment, list)| case(name, comment, &list).list_refused(3));
    malformed.into_iter().chain(not_utf8).chain(unknown).collect()
}
