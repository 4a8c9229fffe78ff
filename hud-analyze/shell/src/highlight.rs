//! Syntax highlighting of the input: keywords, strings, comments and commands; names are not coloured.

use nu_ansi_term::{Color, Style};
use reedline::{Highlighter, StyledText};

use crate::{
    lexer::{self, Kind},
    sql,
};

/// Colours SQL. Control characters (of pasted text) are shown as placeholders of the same length.
#[derive(Debug)]
pub(crate) struct SqlHighlighter {
    /// Whether there are colours.
    pub(crate) colour: bool,
}

impl Highlighter for SqlHighlighter {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let mut styled = StyledText::new();
        for token in lexer::tokens(line).0 {
            let text = &line[token.range];
            let style = if self.colour { style(token.kind, text) } else { Style::new() };
            styled.push((style, visible(text)));
        }
        styled
    }
}

fn style(kind: Kind, text: &str) -> Style {
    match kind {
        Kind::Word if sql::is_keyword(text) => Style::new().fg(Color::Blue).bold(),
        Kind::Text => Style::new().fg(Color::Green),
        Kind::Comment => Style::new().dimmed(),
        Kind::Parameter => Style::new().fg(Color::Magenta),
        Kind::Command => Style::new().fg(Color::Cyan),
        _ => Style::new(),
    }
}

/// `text` without control characters; of the same length in bytes, as the editor counts bytes.
fn visible(text: &str) -> String {
    let mut buffer = [0; 4];
    text.chars()
        .map(|c| match (&*hud_common::clean(c.encode_utf8(&mut buffer)), c.len_utf8()) {
            _ if c == '\n' => c,
            (cleaned, length) if cleaned.len() != length => match length {
                1 if c == '\t' => ' ',
                1 => '?',
                2 => '¿',
                3 => '\u{fffd}',
                _ => '\u{1f5cc}',
            },
            _ => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_strings_and_comments_have_colours_and_names_have_none() {
        let text = "select dur from polls where name = 'from' -- select";
        let styled = SqlHighlighter { colour: true }.highlight(text, 0);
        let coloured: Vec<_> =
            styled.buffer.iter().filter(|(style, _)| *style != Style::new()).map(|(_, text)| text.as_str()).collect();
        assert_eq!(coloured, ["select", "from", "where", "'from'", "-- select"]);
        let plain = SqlHighlighter { colour: false }.highlight(text, 0);
        assert!(plain.buffer.iter().all(|(style, _)| *style == Style::new()));
        assert_eq!(plain.buffer.iter().map(|(_, text)| text.as_str()).collect::<String>(), text);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_not_painted() {
        for text in ["a\x1b[2J", "\t\r\u{9b}x", "\u{202e}\u{feff}", "\u{e0041}'", "größe 日本\n"] {
            let painted: String =
                SqlHighlighter { colour: true }.highlight(text, 0).buffer.into_iter().map(|(_, text)| text).collect();
            assert_eq!(painted.len(), text.len(), "{text:?}");
            assert!(!painted.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }
}
