//! Sealed models that don't parse. All else about it is right: the header is signed, for one.

use super::Case;
use super::make::{Fields, Model, Spec, varint};

pub(super) fn cases() -> Vec<Case> {
    [sealed_bytes(), subject_bounds(), manifest_encoding()].concat()
}

/// A varint of a value with one byte more than it needs.
pub(super) fn over_long(number: &[u8]) -> Vec<u8> {
    let (last, rest) = number.split_last().unwrap();
    [rest, &[last | 0x80, 0]].concat()
}

pub(super) fn put(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    crate::bench::replaced(bytes, at, with)
}

fn sealed(name: impl Into<String>, comment: &str, bytes: &[u8], code: u16) -> Case {
    Case::new(name, comment, "parse-sealed").sealed(bytes).refused("shape", code)
}

fn sealed_bytes() -> Vec<Case> {
    let model = Spec::default().seal();
    let good = model.bytes();
    let header = model.header().len();
    let [index, padding, payload, end] = model.offsets();
    let mut cases = Vec::new();
    for cut in [
        0,
        1,
        8,
        15,
        16,
        17,
        header - 64,
        header - 1,
        header,
        header + 64,
        index - 1,
        index,
        index + 16,
        index + 48,
        padding - 1,
        padding,
        payload - 1,
        payload,
        payload + 1024,
        end - 1,
    ] {
        cases.push(sealed(format!("sealed-cut-at-{cut:04}"), "cut", &good[..cut], 301));
    }
    for (name, more) in
        [("zero", vec![0]), ("byte", vec![0x5a]), ("chunk", vec![0; 1024]), ("twice", good.clone())]
    {
        cases.push(sealed(format!("sealed-extended-by-{name}"), "more", &[&good[..], &more].concat(), 302));
    }
    let edits: [(&str, &str, usize, &[u8], u16); 26] = [
        ("magic-first", "the first byte without its top bit", 0, &[0x09], 701),
        ("magic-case", "lower case", 1, b"mseal", 701),
        ("magic-newline", "LF for CR LF, as a text transfer does", 6, &[0x0a, 0x0a], 701),
        ("magic-last", "the last byte", 7, &[0x0d], 701),
        ("magic-grant", "a grant's magic", 1, b"MSGRT", 701),
        ("version-0", "format version 0", 8, &[0, 0], 702),
        ("version-2", "format version 2", 8, &[2, 0], 702),
        ("version-257", "format version 257", 8, &[1, 1], 702),
        ("version-big-endian", "big-endian", 8, &[0, 1], 702),
        ("manifest-length-0", "M = 0", 10, &[0, 0], 303),
        ("manifest-length-1025", "M = 1025", 10, &[1, 4], 303),
        ("manifest-length-65535", "M = 65535", 10, &[0xff, 0xff], 303),
        ("envelope-0", "E = 0", 12, &[0, 0, 0, 0], 304),
        ("envelope-1", "E = 1", 12, &[1, 0, 0, 0], 304),
        ("envelope-64", "no slot", 12, &[64, 0, 0, 0], 304),
        ("envelope-191", "a slot that is short", 12, &[191, 0, 0, 0], 304),
        ("envelope-193", "a byte more than a slot", 12, &[193, 0, 0, 0], 304),
        ("envelope-2111", "one less than 16 slots", 12, &[0x3f, 8, 0, 0], 304),
        ("envelope-17-slots", "17 slots", 12, &[0xc0, 8, 0, 0], 304),
        ("envelope-2-16", "as 192 in the lower half", 12, &[0xc0, 0, 1, 0], 304),
        ("envelope-2-31", "as 192 in the lower bytes", 12, &[0xc0, 0, 0, 0x80], 304),
        ("envelope-1152", "17 slots of 64 bytes", 12, &[0x80, 4, 0, 0], 304),
        ("old-slots-1", "a slot of 64 bytes", 12, &[0x80, 0, 0, 0], 704),
        ("old-slots-3", "three slots of 64 bytes", 12, &[0, 1, 0, 0], 704),
        ("old-slots-15", "15 slots of 64 bytes", 12, &[0, 4, 0, 0], 704),
        ("envelope-max", "the largest multiple of 64", 12, &[0xc0, 0xff, 0xff, 0xff], 304),
    ];
    for (name, comment, at, with, code) in edits {
        cases.push(sealed(format!("sealed-{name}"), comment, &put(&good, at, with), code));
    }
    cases
}

fn subject_bounds() -> Vec<Case> {
    let spec = Spec::default();
    let model = spec.seal();
    let mut cases = Vec::new();
    let mut refuse = |name: String, comment: &str, fields: Fields, code| {
        cases.push(sealed(name, comment, &model.with_subject(&fields.concat()).bytes(), code));
    };
    for (field, values, code) in [
        ("suite", &[0, 3, 127, 255][..], 703),
        ("chunk_log2", &[0, 9, 21, 63, 64, 255], 306),
        ("align_log2", &[0, 3, 17, 64, 255], 307),
    ] {
        for value in values {
            refuse(
                format!("subject-{field}-{value}"),
                "out of bounds",
                spec.subject().with(field, [*value]),
                code,
            );
        }
    }
    for (name, length) in [("0", 0), ("2-48-plus-1", (1 << 48) + 1), ("max", u64::MAX)] {
        let fields = spec.subject().with("length", varint(length));
        refuse(format!("subject-length-{name}"), "out of bounds", fields, 310);
    }
    let names = |long: usize| {
        [
            ("empty", String::new()),
            ("long", "a".repeat(long)),
            ("upper-case", "Wake".into()),
            ("space", "wake word".into()),
            ("slash", "wake/word".into()),
            ("nul", "wake\0".into()),
            ("newline", "wake\n".into()),
            ("letter-beyond-ascii", "w\u{e4}ke".into()),
        ]
    };
    for (name, line) in names(65) {
        refuse(format!("line-{name}"), "not a name", Spec { line, ..spec.clone() }.subject(), 308);
    }
    for (name, kind) in names(17) {
        refuse(format!("kind-{name}"), "not a name", Spec { kind, ..spec.clone() }.subject(), 309);
    }
    let claims = |claims: &[(&str, &str)]| Spec {
        claims: claims.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..spec.clone()
    };
    for (name, key) in names(33) {
        refuse(format!("claim-key-{name}"), "not a name", claims(&[(&key, "x")]).subject(), 311);
    }
    let (long, euro) = ("v".repeat(129), "\u{20ac}".repeat(43));
    for (name, comment, pairs) in [
        ("order", "keys descend", &[("b", "1"), ("a", "2")][..]),
        ("order-last", "the last two keys descend", &[("a", "1"), ("c", "2"), ("b", "3")]),
        ("order-prefix", "a prefix comes first", &[("aa", "1"), ("a", "2")]),
        ("order-bytes", "compared byte by byte: - . 0 _ a", &[("_", "1"), ("0", "2")]),
        ("twice", "the same key twice", &[("a", "1"), ("a", "1")]),
        ("value-129", "a value of 129 bytes", &[("a", &long)]),
        ("value-129-unicode", "43 characters of 129 bytes", &[("a", &euro)]),
        ("value-u0000", "a control character", &[("a", "x\0")]),
        ("value-u000a", "a control character", &[("a", "x\ny")]),
        ("value-u001b", "a control character", &[("a", "\u{1b}[2J")]),
        ("value-u001f", "a control character", &[("a", "\u{1f}")]),
        ("value-u007f", "a control character", &[("a", "\u{7f}")]),
        ("value-u0080", "a control character", &[("a", "\u{80}")]),
        ("value-u009f", "a control character", &[("a", "\u{9f}")]),
        ("value-u00ad", "a soft hyphen", &[("a", "x\u{ad}y")]),
        ("value-u0600", "the first of its range", &[("a", "\u{600}")]),
        ("value-u061c", "a mark of direction", &[("a", "\u{61c}")]),
        ("value-u200b", "a space without width", &[("a", "x\u{200b}y")]),
        ("value-u200f", "a mark of direction", &[("a", "\u{200f}")]),
        ("value-u2028", "a separator of lines", &[("a", "x\u{2028}y")]),
        ("value-u2029", "a separator of paragraphs", &[("a", "x\u{2029}y")]),
        ("value-u202e", "from right to left", &[("a", "MIT \u{202e}TIM")]),
        ("value-u2066", "an isolate", &[("a", "\u{2066}")]),
        ("value-u2069", "the end of an isolate", &[("a", "\u{2069}")]),
        ("value-ufeff", "a byte order mark", &[("a", "\u{feff}")]),
        ("value-u1343f", "the last of its range", &[("a", "\u{1343f}")]),
        ("value-ue0001", "a tag", &[("a", "\u{e0001}")]),
        ("value-ue007f", "the last of all", &[("a", "\u{e007f}")]),
    ] {
        refuse(format!("claims-{name}"), comment, claims(pairs).subject(), 311);
    }
    let nine =
        [("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", ""), ("f", ""), ("g", ""), ("h", ""), ("i", "")];
    refuse("claims-9".into(), "nine claims", claims(&nine).subject(), 305);
    cases
}

/// Not UTF-8, each of its own kind, each of four bytes.
pub(super) const NOT_UTF8: [(&str, [u8; 4]); 6] = [
    ("continuation", *b"ab\x80c"),
    ("overlong", *b"\xc0\xafab"),
    ("surrogate", *b"\xed\xa0\x80a"),
    ("beyond", *b"\xf4\x90\x80\x80"),
    ("cut", *b"ab\xe2\x82"),
    ("ff", *b"abc\xff"),
];

fn manifest_encoding() -> Vec<Case> {
    let claims = vec![("ab".into(), "abcd".into())];
    let spec = Spec { line: "abcd".into(), kind: "abcd".into(), claims, ..Spec::default() };
    let model = spec.seal();
    let good = spec.subject();
    let mut cases = Vec::new();
    let mut refuse = |name: String, comment: &str, model: Model| {
        cases.push(sealed(format!("manifest-{name}"), comment, &model.bytes(), 305));
    };
    for field in [
        "line length",
        "version",
        "kind length",
        "length",
        "created",
        "claims",
        "claim key length",
        "claim value length",
    ] {
        let fields = good.clone().with(field, over_long(good.get(field)));
        let name = field.replace(' ', "-");
        refuse(format!("over-long-{name}"), "a varint that ends in 0", model.with_subject(&fields.concat()));
        let eleven = good.clone().with(field, [&[0x80; 10][..], &[1]].concat());
        refuse(format!("eleven-{name}"), "a varint of eleven bytes", model.with_subject(&eleven.concat()));
    }
    for field in ["version", "length", "created"] {
        let beyond = good.clone().with(field, [&[0xff; 9][..], &[2]].concat());
        refuse(format!("beyond-u64-{field}"), "the tenth byte is 0x02", model.with_subject(&beyond.concat()));
    }
    let zero = good.clone().with("created", [0x80, 0]);
    refuse("over-long-zero".into(), "0 in two bytes", model.with_subject(&zero.concat()));
    for field in ["line", "kind", "claim value"] {
        for (name, text) in NOT_UTF8 {
            let fields = good.clone().with(field, text);
            let name = format!("utf8-{}-{name}", field.replace(' ', "-"));
            refuse(name, "not UTF-8", model.with_subject(&fields.concat()));
        }
    }
    let fields = good.clone().with("claim key", [0xc3, 0x28]);
    refuse("utf8-claim-key".into(), "not UTF-8", model.with_subject(&fields.concat()));
    for field in ["line length", "kind length", "claim key length", "claim value length"] {
        for (name, length) in [("beyond-the-end", varint(1000)), ("huge", varint(u64::MAX))] {
            let fields = good.clone().with(field, length);
            let name = format!("{}-{name}", field.replace(' ', "-"));
            refuse(name, "a length beyond the end", model.with_subject(&fields.concat()));
        }
    }
    for (name, count) in [("two", vec![2]), ("huge", varint(u64::MAX))] {
        let fields = good.clone().with("claims", count);
        refuse(format!("claims-{name}"), "more claims than there are", model.with_subject(&fields.concat()));
    }
    for (field, _) in &good.0[1..] {
        let name = format!("ends-before-{}", field.replace(' ', "-"));
        refuse(name, "a manifest that ends too early", model.with_manifest(&good.before(field)));
    }
    let manifest = &model.manifest;
    refuse(
        "without-root".into(),
        "it ends before the root",
        model.with_manifest(&manifest[..manifest.len() - 32]),
    );
    refuse(
        "one-less".into(),
        "the last byte is missing",
        model.with_manifest(&manifest[..manifest.len() - 1]),
    );
    refuse("one-more".into(), "a byte is left over", model.with_manifest(&[&manifest[..], &[0]].concat()));
    let long = [&manifest[..], &vec![0; 1024 - manifest.len()]].concat();
    refuse("filled".into(), "zeros are left over, up to 1024 bytes", model.with_manifest(&long));
    cases
}
