//! Colours of the input: keywords, strings and comments.

use nu_ansi_term::{Color, Style};
use reedline::{Highlighter, StyledText};
use sqlparser::tokenizer::Token;

use crate::sql::{self, End};

/// Colours SQL. Control characters in pasted text are replaced, as the terminal would interpret them.
#[derive(Debug)]
pub(crate) struct SqlHighlighter {
    /// Whether there are colours.
    pub(crate) colour: bool,
}

impl Highlighter for SqlHighlighter {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let mut styled = StyledText::new();
        let tokens = sql::tokenize(line);
        for (token, range) in &tokens.tokens {
            let style = if self.colour { style(token) } else { Style::new() };
            styled.push((style, visible(&line[range.clone()])));
        }
        let is_open_string = self.colour && tokens.end == End::Open("string");
        let style = if is_open_string { Style::new().fg(Color::Green) } else { Style::new() };
        styled.push((style, visible(&line[tokens.rest..])));
        styled
    }
}

fn style(token: &Token) -> Style {
    match token {
        Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => {
            Style::new().fg(Color::Green)
        }
        token if sql::is_keyword(token) => Style::new().fg(Color::Blue).bold(),
        token if sql::is_comment(token) => Style::new().dimmed(),
        _ => Style::new(),
    }
}

/// `text` without control characters, and with the same length in bytes, by which the editor positions the cursor.
fn visible(text: &str) -> String {
    let mut buffer = [0; 4];
    let replacement = |c: char| match c.len_utf8() {
        1 if c == '\t' => ' ',
        1 => '?',
        2 => '¿',
        3 => '\u{fffd}',
        _ => '\u{1f5cc}',
    };
    let mut is_safe = |c: char| c == '\n' || hud_common::clean(c.encode_utf8(&mut buffer)).len() == c.len_utf8();
    text.chars().map(|c| if is_safe(c) { c } else { replacement(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_strings_and_comments_are_coloured() {
        let text = "select dur from polls where name = 'from' -- select";
        let styled = SqlHighlighter { colour: true }.highlight(text, 0);
        let coloured: Vec<_> =
            styled.buffer.iter().filter(|(style, _)| *style != Style::new()).map(|(_, text)| text.as_str()).collect();
        assert_eq!(coloured, ["select", "from", "where", "'from'", "-- select"]);
        let plain = SqlHighlighter { colour: false }.highlight(text, 0);
        assert!(plain.buffer.iter().all(|(style, _)| *style == Style::new()));
    }

    #[test]
    fn control_characters_are_replaced() {
        for text in ["a\x1b[2J", "\t\r\u{9b}x", "\u{202e}\u{feff}", "\u{e0041}'", "größe 日本\n", "'\x07"] {
            let shown: String =
                SqlHighlighter { colour: true }.highlight(text, 0).buffer.into_iter().map(|(_, text)| text).collect();
            assert_eq!(shown.len(), text.len(), "{text:?}");
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }
}
