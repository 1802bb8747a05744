//! Strangers' text, made fit to be shown: names of files, ids, claims, what a token says of itself.

use std::borrow::Cow;
use std::fmt::Write;

use modelseal_core::text::is_invisible;

/// `text` on one line, with an escape such as `\u{1b}` for each character that a terminal would obey or hide, and for
/// each that stands for bytes that aren't UTF-8.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_escaped(char) {
            // Nothing fails that writes into a string.
            let _ = write!(shown, "{}", char.escape_unicode());
        } else {
            shown.push(char);
        }
    }
    shown.into()
}

/// A document of JSON on one line, with its own escapes for such characters. They are in its strings alone.
pub(crate) fn shown_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for char in json.chars() {
        if is_escaped(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(char);
        }
    }
    shown
}

fn is_escaped(char: char) -> bool {
    is_invisible(char) || char == char::REPLACEMENT_CHARACTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown() {
        for (text, wanted) in [
            ("", ""),
            ("naïve 語 🦀 \\", "naïve 語 🦀 \\"),
            ("a\nerror: b\r", "a\\u{a}error: b\\u{d}"),
            ("\u{1b}[2J\u{9b}1m", "\\u{1b}[2J\\u{9b}1m"),
            ("\u{202e}gpj.\u{2066}\u{200b}\u{feff}", "\\u{202e}gpj.\\u{2066}\\u{200b}\\u{feff}"),
            ("\u{e0041}\u{fffd}", "\\u{e0041}\\u{fffd}"),
        ] {
            assert_eq!(shown(text), wanted);
        }
    }

    #[test]
    fn json_stays_what_it_was() {
        let value = serde_json::json!({ "a\u{202e}\u{7f}": ["\u{1b}\n\u{9b}", "\u{e0041}", "é\\"] });
        let shown = shown_json(&value.to_string());
        assert!(!shown.contains(is_escaped), "{shown}");
        assert!(shown.contains("\\udb40\\udc41"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
