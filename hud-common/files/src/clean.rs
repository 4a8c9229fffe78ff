//! Sanitizes text from the target (functions, threads, tasks, paths) for a terminal.
//!
//! A recorded program may name a thread with an escape sequence. Printed raw, it would retitle the window, hide rows or
//! worse. So every character that is not plainly visible is shown as its code.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with control characters, and those that reorder or hide text, replaced by codes such as `\x1b` or `\u{202e}`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_harmful(c) || is_mark(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut marks = 0;
    for c in text.chars() {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        match c {
            c if marks > MOST_MARKS => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Writing to a String cannot fail.
            c if c.is_ascii() && is_harmful(c) => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if is_harmful(c) => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Maximum number of characters of a name. Generic futures have long names.
const LONGEST: usize = 4096;
/// Maximum number of combining marks on a letter: text of any language has a few at most.
const MOST_MARKS: usize = 4;

/// A name from the target in the form in which hud stores it: [cleaned](clean), and cut if it is too long.
pub fn clean_name(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => clean(&name[..end]).into_owned() + "…",
        None => clean(name).into_owned(),
    }
}

/// [`clean_name`] for bytes: invalid UTF-8 becomes `\u{fffd}`.
pub fn clean_bytes(name: &[u8]) -> String {
    // A character has at most four bytes.
    clean_name(&String::from_utf8_lossy(name.get(..LONGEST * 4 + 4).unwrap_or(name)))
}

/// Control characters, and those of Unicode 16.0 that reorder, hide or join text: format characters (Cf), line and paragraph
/// separators, and letters and selectors of no width. A name with one of them may look like another name.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Combining marks, which are drawn over the preceding letter; many of them on one letter reach into other lines.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn shows_harmful_characters_as_codes() {
        assert_eq!(clean("\x1b]0;owned\x07"), "\\x1b]0;owned\\x07");
        assert_eq!(clean("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(clean("two\nrows"), "two\\nrows");
        assert_eq!(clean("evil\u{202e}gnp.exe"), "evil\\u{202e}gnp.exe");
        for hidden in
            "\u{ad}\u{61c}\u{180e}\u{200b}\u{2066}\u{2069}\u{2028}\u{fe0f}\u{feff}\u{fff9}\u{3164}\u{e0041}\u{7f}"
                .chars()
        {
            assert_eq!(clean(&format!("a{hidden}b")).find(hidden), None, "{:x}", u32::from(hidden));
        }
        assert_eq!(clean(&format!("a{}", "\u{301}".repeat(6))), "a\u{301}\u{301}\u{301}\u{301}\\u{301}\\u{301}");
    }

    #[test]
    fn cuts_long_names_and_replaces_invalid_bytes() {
        assert_eq!(clean_name(&"ä".repeat(9000)).chars().count(), 4097);
        assert_eq!(clean_bytes(&[b'x'; 100_000]).len(), 4096 + "…".len());
        assert_eq!(clean_bytes(b"ok\xff\x1b"), "ok\u{fffd}\\x1b");
        assert_eq!(clean_bytes(b""), "");
    }

    #[test]
    fn keeps_plain_names() {
        for name in ["<u64>::wrapping_add", "tokio-rt-worker", "größe::λ", "日本", "हिन्दी"] {
            assert!(matches!(clean(name), std::borrow::Cow::Borrowed(same) if same == name));
        }
    }
}
