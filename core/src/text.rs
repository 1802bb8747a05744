//! Text that was written by a stranger (FORMAT.md, section 2).

/// Ranges of control characters, both ends included: general categories Cc and Cf, and U+2028 and U+2029, which are all
/// of Zl and Zp. From `DerivedGeneralCategory.txt` of Unicode 16.0.
const INVISIBLE: [u32; 23] = [
    range(0x00, 0x1f),
    range(0x7f, 0x9f),
    range(0xad, 0xad),
    range(0x600, 0x605),
    range(0x61c, 0x61c),
    range(0x6dd, 0x6dd),
    range(0x70f, 0x70f),
    range(0x890, 0x891),
    range(0x8e2, 0x8e2),
    range(0x180e, 0x180e),
    range(0x200b, 0x200f),
    range(0x2028, 0x202e),
    range(0x2060, 0x2064),
    range(0x2066, 0x206f),
    range(0xfeff, 0xfeff),
    range(0xfff9, 0xfffb),
    range(0x110bd, 0x110bd),
    range(0x110cd, 0x110cd),
    range(0x13430, 0x1343f),
    range(0x1bca0, 0x1bca3),
    range(0x1d173, 0x1d17a),
    range(0xe0001, 0xe0001),
    range(0xe0020, 0xe007f),
];

/// In one number, for a device's flash: the first character, and in the lowest byte how many follow.
const fn range(first: u32, last: u32) -> u32 {
    first << 8 | (last - first)
}

/// Whether a character can change how the text around it looks without being seen itself: control characters, format
/// controls such as those that turn the direction of writing, and separators of lines and paragraphs.
///
/// A claim has none, and a program escapes them before it prints a name that it was given.
pub fn is_invisible(char: char) -> bool {
    INVISIBLE.iter().any(|range| u32::from(char).wrapping_sub(range >> 8) <= (range & 0xff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invisible() {
        for char in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{85}', '\u{ad}', '\u{200d}', '\u{2028}', '\u{2029}'] {
            assert!(is_invisible(char), "{char:?}");
        }
        for char in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{feff}', '\u{e0041}'])
        {
            assert!(is_invisible(char), "{char:?}");
        }
        for char in [' ', '~', '\u{a0}', 'é', '€', '\u{2027}', '\u{202f}', '\u{3000}', '語', '\u{fe0f}', '🦀']
        {
            assert!(!is_invisible(char), "{char:?}");
        }
    }

    #[test]
    fn the_table_is_whole_and_in_order() {
        assert!(INVISIBLE.is_sorted_by(|a, b| (a >> 8) + (a & 0xff) < b >> 8));
        // Unicode 16 has 65 of Cc, 170 of Cf, one of Zl and one of Zp.
        let count = ('\0'..=char::MAX).filter(|char| is_invisible(*char)).count();
        assert_eq!(count, 65 + 170 + 1 + 1);
    }
}
