//! Sentences on the lines of a terminal.

use unicode_width::UnicodeWidthStr as _;

/// `text` in lines of at most `width` cells, broken at spaces. A word that is longer has a line of its own and is not cut.
pub(crate) fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_at_spaces_and_cuts_no_word() {
        let text = "app::orders::checkout held its worker";
        assert_eq!(wrap(text, None), [text]);
        assert_eq!(wrap(text, Some(26)), ["app::orders::checkout held", "its worker"]);
        assert_eq!(wrap(text, Some(8)), ["app::orders::checkout", "held its", "worker"]);
        assert_eq!(wrap("日本 日本", Some(5)), ["日本", "日本"]);
        assert!(wrap("", Some(5)).is_empty());
    }
}
