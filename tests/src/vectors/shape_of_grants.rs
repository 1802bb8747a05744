//! Grants that don't parse. All else about them is right: they are signed, for one.

use super::Case;
use super::make::{Fields, Spec};
use super::scene::{Scene, WRAPS, Wrap, grant_bytes};
use super::shape::{NOT_UTF8, over_long, put};

pub(super) fn cases() -> Vec<Case> {
    [prefix_and_ends(), fields()].concat()
}

fn grant(name: impl Into<String>, comment: &str, bytes: &[u8], code: u16) -> Case {
    Case::new(name, comment, "parse-grant").grant(bytes).refused("shape", code)
}

fn prefix_and_ends() -> Vec<Case> {
    let mut cases = Vec::new();
    for wrap in WRAPS {
        let scene = Scene::new(&Spec::default(), wrap);
        let fields = scene.grant();
        let good = grant_bytes(&fields.concat());
        let kind = wrap.name();
        for cut in [0, 8, 11, 12, 13, 12 + fields.before("wrapping").len(), good.len() - 1] {
            cases.push(grant(format!("grant-{kind}-cut-at-{cut:03}"), "cut", &good[..cut], 301));
        }
        for (name, more) in [("zero", vec![0]), ("twice", good.clone())] {
            let name = format!("grant-{kind}-extended-by-{name}");
            cases.push(grant(name, "more", &[&good[..], &more].concat(), 302));
        }
        // The length says so, but the parts don't.
        for (field, _) in &fields.0[1..] {
            let name = format!("grant-{kind}-ends-before-{}", field.replace(' ', "-"));
            cases.push(grant(name, "a part is missing", &grant_bytes(&fields.before(field)), 314));
        }
        let more = [&fields.concat()[..], &[0]].concat();
        cases.push(grant(format!("grant-{kind}-left-over"), "a byte is left over", &grant_bytes(&more), 314));
        let body = fields.concat();
        let less = &body[..body.len() - 1];
        cases.push(grant(
            format!("grant-{kind}-one-less"),
            "the last byte is missing",
            &grant_bytes(less),
            314,
        ));
    }
    let good = grant_bytes(&Scene::new(&Spec::default(), Wrap::DeviceKey).grant().concat());
    let edits: [(&str, &str, usize, &[u8], u16); 14] = [
        ("magic-first", "the first byte without its top bit", 0, &[0x09], 701),
        ("magic-sealed", "a sealed model's magic", 1, b"MSEAL", 701),
        ("magic-newline", "LF for CR LF, as a text transfer does", 6, &[0x0a, 0x0a], 701),
        ("version-0", "format version 0", 8, &[0, 0], 702),
        ("version-2", "format version 2", 8, &[2, 0], 702),
        ("version-big-endian", "big-endian", 8, &[0, 1], 702),
        ("length-0", "length 0", 10, &[0, 0], 313),
        ("length-2037", "length 2037", 10, &[0xf5, 7], 313),
        ("length-65535", "length 65535", 10, &[0xff, 0xff], 313),
        ("length-2036", "length 2036, of which most is missing", 10, &[0xf4, 7], 301),
        ("length-1", "length 1, which isn't all", 10, &[1, 0], 302),
        ("suite-0", "suite 0", 12, &[0], 703),
        ("suite-3", "suite 3", 12, &[3], 703),
        ("suite-255", "suite 255", 12, &[255], 703),
    ];
    for (name, comment, at, with, code) in edits {
        cases.push(grant(format!("grant-{name}"), comment, &put(&good, at, with), code));
    }
    cases
}

fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    let hpke = || Scene::new(&Spec::default(), Wrap::Hpke).terms("abcd", 7, Some((5, 6)));
    let mut refuse = |name: &str, comment: &str, scene: Scene, edit: &dyn Fn(Fields) -> Fields, code| {
        let fields = edit(scene.grant());
        cases.push(grant(format!("grant-{name}"), comment, &grant_bytes(&fields.concat()), code));
    };
    for field in ["device length", "floor", "not_before", "not_after", "wrapping", "siblings length", "sides"]
    {
        let name = format!("over-long-{}", field.replace([' ', '_'], "-"));
        let edit = |fields: Fields| {
            let long = over_long(fields.get(field));
            fields.with(field, long)
        };
        refuse(&name, "a varint that ends in 0", hpke(), &edit, 314);
    }
    for field in ["floor", "not_before", "not_after"] {
        let beyond = [&[0xff; 9][..], &[2]].concat();
        let name = format!("beyond-u64-{}", field.replace('_', "-"));
        refuse(&name, "the tenth byte is 0x02", hpke(), &|fields| fields.with(field, beyond.clone()), 314);
    }
    let edits: [(&str, &str, &str, &[u8]); 12] = [
        ("validity-byte-2", "an option's byte is 0 or 1", "validity", &[2]),
        ("validity-byte-255", "an option's byte is 0 or 1", "validity", &[255]),
        ("path-byte-2", "an option's byte is 0 or 1", "path", &[2]),
        ("path-byte-128", "an option's byte is no varint", "path", &[0x81, 0]),
        ("wrapping-2", "no such variant", "wrapping", &[2]),
        ("wrapping-127", "no such variant", "wrapping", &[127]),
        (
            "wrapping-2-32",
            "variant numbers are u32: this is 2^32 + 1",
            "wrapping",
            &[0x81, 0x80, 0x80, 0x80, 0x10],
        ),
        ("sides-65536", "sides beyond u16", "sides", &[0x80, 0x80, 4]),
        ("sides-four-bytes", "sides in four bytes", "sides", &[0x80, 0x80, 0x80, 1]),
        ("siblings-1-of-0", "fewer siblings than it says", "siblings length", &[1]),
        ("siblings-huge", "2^32 - 1 siblings", "siblings length", &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        (
            "device-length-huge",
            "a device id of 2^32 - 1 bytes",
            "device length",
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
        ),
    ];
    for (name, comment, field, bytes) in edits {
        refuse(name, comment, hpke(), &|fields| fields.with(field, bytes), 314);
    }
    let mut many = hpke();
    many.siblings = vec![[1; 32]; 17];
    refuse("siblings-17", "17 siblings", many, &|fields| fields, 314);
    for (name, text) in NOT_UTF8 {
        refuse(
            &format!("utf8-device-{name}"),
            "not UTF-8",
            hpke(),
            &|fields| fields.with("device", text),
            314,
        );
    }
    let long = "a".repeat(65);
    for (name, id) in [
        ("empty", ""),
        ("long", long.as_str()),
        ("dot", "."),
        ("dots", ".."),
        ("dot-first", ".a"),
        ("hyphen-first", "-a"),
        ("underscore-first", "_a"),
        ("space", "a b"),
        ("slash", "a/b"),
        ("nul", "a\0"),
        ("colon", "a:b"),
        ("letter-beyond-ascii", "k\u{fc}che"),
        ("at", "@"),
        ("bracket", "["),
        ("backtick", "`"),
        ("brace", "{"),
    ] {
        for wrap in WRAPS {
            let scene = Scene::new(&Spec::default(), wrap).terms(id, 7, None);
            refuse(
                &format!("device-id-{name}-{}", wrap.name()),
                "not a device id",
                scene,
                &|fields| fields,
                315,
            );
        }
    }
    for (name, from, to) in [("empty", 5, 5), ("reversed", 6, 5), ("max", u64::MAX, u64::MAX), ("zero", 0, 0)]
    {
        for wrap in WRAPS {
            let scene = Scene::new(&Spec::default(), wrap).terms("a", 7, Some((from, to)));
            let name = format!("validity-{name}-{}", wrap.name());
            refuse(&name, "not_before isn't less than not_after", scene, &|fields| fields, 316);
        }
    }
    let device_key = || Scene::new(&Spec::default(), Wrap::DeviceKey);
    let signed = |fields: Fields| {
        let path = hpke().path(hpke().signer.sign(b""));
        Fields([&fields.0[..fields.0.len() - 1], &path.0].concat())
    };
    refuse("form-signed-device-key", "a device-key grant with a path signature", device_key(), &signed, 317);
    let unsigned = |fields: Fields| Fields([&fields.0[..fields.0.len() - 5], &[("path", vec![0])]].concat());
    refuse("form-unsigned-hpke", "HPKE without a path signature", hpke(), &unsigned, 317);
    for (count, sides) in [(0, 1), (0, 0x8000), (1, 2), (5, 0x20), (5, 0x8000), (15, 0x8000)] {
        let mut scene = hpke();
        (scene.siblings, scene.sides) = (vec![[1; 32]; count], sides);
        let name = format!("path-stray-{count}-{sides:04x}");
        refuse(&name, "a bit beyond the siblings", scene, &|fields| fields, 318);
    }
    cases
}
