//! The one place where text that the target chose (functions, threads, tasks, paths) is made fit for a terminal.
//!
//! A program under observation may name a thread with an escape sequence. Written raw, it would retitle the window,
//! hide rows or worse. So whatever is not plainly visible is shown as its code.

use std::{borrow::Cow, fmt::Write as _, string::String};

/// `text` without anything that a terminal would act on: control characters and those that reorder or hide text
/// appear as `\x1b` or `\u{202e}`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
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

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn what_a_terminal_would_act_on_is_shown_as_its_code() {
        assert_eq!(clean("\x1b]0;owned\x07"), "\\x1b]0;owned\\x07");
        assert_eq!(clean("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(clean("two\nrows"), "two\\nrows");
        assert_eq!(clean("evil\u{202e}gnp.exe"), "evil\\u{202e}gnp.exe");
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        for name in ["<u64>::wrapping_add", "tokio-rt-worker", "größe::λ", "日本"] {
            assert!(matches!(clean(name), std::borrow::Cow::Borrowed(same) if same == name));
        }
    }
}
