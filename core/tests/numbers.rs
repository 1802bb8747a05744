//! The errors are those of the specification, with its numbers, and each belongs to the class of its hundreds.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use modelseal_core::{Class, Error};

const FORMAT: &str = include_str!("../../docs/FORMAT.md");

#[test]
fn the_errors_are_those_of_section_8() {
    let section = FORMAT.split("\n## 8. ").nth(1).unwrap().split("\n### ").next().unwrap();
    let specified: BTreeMap<u16, &str> = section.lines().filter_map(row).collect();
    let ours: BTreeMap<u16, &str> = Error::ALL.iter().map(|error| (error.code(), error.name())).collect();
    assert_eq!(ours, specified);
    assert_eq!(ours.len(), Error::ALL.len(), "no number is used twice");
}

/// `| 301 | Truncated | …`
fn row(line: &str) -> Option<(u16, &str)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    Some((cells.next()?.parse().ok()?, cells.next()?))
}

#[test]
fn the_class_is_the_hundreds() {
    for error in Error::ALL {
        let class = match error.code() {
            300..400 => Class::NotAuthentic,
            400..500 => Class::Refused,
            600..700 => Class::Storage,
            700..800 => Class::Unsupported,
            code => unreachable!("{code}"),
        };
        assert_eq!(error.class(), class, "{}", error.name());
        assert_eq!(u16::from(class as u8), error.code() / 100);
    }
}

#[test]
fn each_error_says_something_of_its_own() {
    let texts: BTreeMap<String, Error> = Error::ALL.iter().map(|error| (error.to_string(), *error)).collect();
    assert_eq!(texts.len(), Error::ALL.len());
    assert!(texts.keys().all(|text| !text.is_empty()));
}
