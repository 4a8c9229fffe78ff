//! SQL tokens with their positions, by sqlparser's tokenizer, in the dialect of the database.

use std::ops::Range;

use sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Location, Token, Tokenizer, Whitespace},
};

/// Keywords that are completed, coloured, and never taken for names. sqlparser knows many more, such as NAME and TYPE, most of
/// which are also names.
const KEYWORDS: &str = "ALL ANALYZE AND AS ASC BETWEEN BY CASE CAST CREATE CROSS DESC DESCRIBE DISTINCT DROP ELSE END EXCEPT \
                        EXISTS EXPLAIN EXTERNAL FALSE FILTER FROM FULL GROUP HAVING ILIKE IN INNER INTERSECT INTERVAL IS JOIN \
                        LEFT LIKE LIMIT NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER PARTITION RECURSIVE REPLACE RIGHT ROWS \
                        SELECT SET SHOW TABLE TABLES THEN TIMESTAMP TRUE UNION USING VALUES VIEW WHEN WHERE WITH";

/// Keywords that begin a statement.
pub(crate) const BEGINNINGS: &str = "CREATE DESCRIBE DROP EXPLAIN SELECT SET SHOW VALUES WITH";

/// All of [`KEYWORDS`].
pub(crate) fn keywords() -> impl Iterator<Item = &'static str> {
    KEYWORDS.split_whitespace()
}

/// Tokens of a text.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Tokens with their bytes, white space and comments included.
    pub(crate) tokens: Vec<(Token, Range<usize>)>,
    /// The end of the text, after the last token.
    pub(crate) end: End,
    /// Offset of the text after the last token.
    pub(crate) rest: usize,
}

/// How a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After a token.
    Complete,
    /// Inside a string, a comment or a quoted name.
    Open(&'static str),
    /// At text that is no token.
    Invalid,
}

/// The tokens of a text. Any text has some.
pub(crate) fn tokenize(text: &str) -> Tokens {
    let mut found = Vec::new();
    let done = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut found);
    let mut positions = Positions { text, offset: 0, line: 1, column: 1 };
    let mut tokens = Vec::with_capacity(found.len());
    for token in found {
        let start = positions.offset_of(token.span.start);
        tokens.push((token.token, start..positions.offset_of(token.span.end)));
    }
    let rest = tokens.last().map_or(0, |(_, range)| range.end);
    let end = match done {
        Ok(()) => End::Complete,
        Err(error) if error.message.contains("Unterminated") || error.message.contains("EOF") => {
            End::Open(match text[rest..].chars().next() {
                Some('"' | '`') => "quoted name",
                Some('/') => "comment",
                _ => "string",
            })
        }
        Err(_) => End::Invalid,
    };
    Tokens { tokens, end, rest }
}

/// Converts sqlparser's lines and columns, in ascending order, to byte offsets.
struct Positions<'a> {
    text: &'a str,
    offset: usize,
    line: u64,
    column: u64,
}

impl Positions<'_> {
    fn offset_of(&mut self, location: Location) -> usize {
        let mut chars = self.text[self.offset..].chars();
        while (self.line, self.column) < (location.line, location.column) {
            let Some(c) = chars.next() else { break };
            self.offset += c.len_utf8();
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.offset
    }
}

/// Whether a token is part of a statement, not only white space.
pub(crate) fn is_significant(token: &Token) -> bool {
    !matches!(token, Token::Whitespace(_))
}

/// Whether a token is a comment.
pub(crate) fn is_comment(token: &Token) -> bool {
    matches!(token, Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)))
}

/// Whether a token is this keyword.
pub(crate) fn is(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

/// Whether a token is one of [`KEYWORDS`].
pub(crate) fn is_keyword(token: &Token) -> bool {
    keywords().any(|keyword| is(token, keyword))
}

/// The name that a token is, without quotes.
pub(crate) fn name(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if !is_keyword(token) => Some(&word.value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_bytes() {
        for text in
            ["select 'größe', \"日本\" -- ü\n from t;", "a\r\n\tb", "E'\\'' $$;$$ /* /* */ ; */ x", "'open\n", "é'"]
        {
            let Tokens { tokens, rest, .. } = tokenize(text);
            let joined: String = tokens.iter().map(|(_, range)| &text[range.clone()]).collect();
            assert_eq!(joined + &text[rest..], text);
        }
        let words = tokenize("select größe from日").tokens;
        assert_eq!(words.iter().filter_map(|(token, _)| name(token)).collect::<Vec<_>>(), ["größe", "from日"]);
    }

    #[test]
    fn an_open_construct_is_named() {
        for (text, end) in [
            ("", End::Complete),
            ("select 'a''", End::Open("string")),
            ("e'\\'", End::Open("string")),
            ("$a$b$", End::Open("string")),
            ("\"a", End::Open("quoted name")),
            ("/*/**/", End::Open("comment")),
            ("-- '", End::Complete),
        ] {
            assert_eq!(tokenize(text).end, end, "{text}");
        }
    }
}
