//! Splits lines into statements and backslash commands. A command is a line that begins with a backslash, outside strings and
//! comments; it does not end the statement that it is in.

use sqlparser::tokenizer::Token;

use crate::sql::{self, End};

/// A statement or a command, and the number of its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A statement, without its `;`.
    Statement(String, usize),
    /// A command, with its arguments.
    Command(String, usize),
}

/// Splits lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// Text that is not returned yet, and the number of its first line.
    pending: String,
    first: usize,
    /// Number of the next line.
    line: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Splitter { pending: String::new(), first: 1, line: 1 }
    }
}

impl Splitter {
    /// Adds a line with its line end. Returns the statements that end in it, or the command that it is.
    pub(crate) fn push(&mut self, line: &str) -> Vec<Piece> {
        let number = self.line;
        self.line += 1;
        if is_command(line) && !matches!(sql::tokenize(&self.pending).end, End::Open(_)) {
            return vec![Piece::Command(line.trim().to_owned(), number)];
        }
        if self.pending.is_empty() {
            self.first = number;
        }
        self.pending.push_str(line);
        if line.contains(';') { self.split() } else { Vec::new() }
    }

    fn split(&mut self) -> Vec<Piece> {
        let tokens = sql::tokenize(&self.pending);
        let (mut pieces, mut from, mut begin) = (Vec::new(), 0, None);
        let piece = |begin: usize, end: usize| {
            let line = self.first + self.pending[..begin].matches('\n').count();
            Piece::Statement(self.pending[begin..end].trim_end().to_owned(), line)
        };
        for (token, range) in &tokens.tokens {
            match token {
                Token::SemiColon => {
                    pieces.extend(begin.take().map(|begin| piece(begin, range.start)));
                    from = range.end;
                }
                token if sql::is_significant(token) => _ = begin.get_or_insert(range.start),
                _ => {}
            }
        }
        // The database reports the error.
        if tokens.end == End::Invalid && self.pending.trim_end().ends_with(';') {
            pieces.push(piece(begin.unwrap_or(tokens.rest), self.pending.trim_end().len() - 1));
            from = self.pending.len();
        }
        self.first += self.pending[..from].matches('\n').count();
        self.pending.drain(..from);
        if self.pending.trim().is_empty() {
            self.pending.clear();
        }
        pieces
    }

    /// Size of the text that is not returned yet.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether a statement has begun and not ended.
    pub(crate) fn is_pending(&self) -> bool {
        let tokens = sql::tokenize(&self.pending);
        tokens.end != End::Complete || tokens.tokens.iter().any(|(token, _)| sql::is_significant(token))
    }

    /// Takes a last statement without `;`, or the name of the construct in it that has no end.
    pub(crate) fn finish(&mut self) -> Option<(Result<String, &'static str>, usize)> {
        if !self.is_pending() {
            return None;
        }
        let text = std::mem::take(&mut self.pending);
        let tokens = sql::tokenize(&text);
        let begin = tokens.tokens.iter().find(|(token, _)| sql::is_significant(token));
        let begin = begin.map_or(tokens.rest, |(_, range)| range.start);
        let line = self.first + text[..begin].matches('\n').count();
        Some((if let End::Open(what) = tokens.end { Err(what) } else { Ok(text[begin..].trim_end().to_owned()) }, line))
    }
}

fn is_command(line: &str) -> bool {
    line.trim_start().starts_with('\\')
}

/// Whether Enter at the end of `text` runs it, instead of beginning a new line.
pub(crate) fn is_complete(text: &str) -> bool {
    let tokens = sql::tokenize(text);
    let last = tokens.tokens.iter().rev().find(|(token, _)| sql::is_significant(token));
    match tokens.end {
        End::Open(_) => false,
        End::Invalid => text.trim_end().ends_with(';'),
        End::Complete => {
            last.is_none_or(|(token, _)| *token == Token::SemiColon)
                || text.lines().last().is_some_and(is_command)
                || plain_word(text).is_some()
        }
    }
}

/// The word that users of other shells type to quit or to get help.
pub(crate) fn plain_word(text: &str) -> Option<&'static str> {
    let text = text.trim().trim_end_matches(';').trim_end();
    ["quit", "exit", "help"].into_iter().find(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut pieces: Vec<_> = text.split_inclusive('\n').flat_map(|line| splitter.push(line)).collect();
        pieces.extend(splitter.finish().map(|(rest, line)| Piece::Statement(format!("{rest:?}"), line)));
        let text = |piece| match piece {
            Piece::Statement(sql, line) => format!("{line}: {sql}"),
            Piece::Command(text, line) => format!("{line}: command {text}"),
        };
        pieces.into_iter().map(text).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        for (text, wanted) in [
            ("select 1;", vec!["1: select 1"]),
            ("select 1; select 2 ;\n", vec!["1: select 1", "1: select 2"]),
            ("\n\n  select\n1;\nselect 2;", vec!["3: select\n1", "5: select 2"]),
            (";;\n;select 1;;", vec!["2: select 1"]),
            ("-- one; two\nselect ';' -- three;\n;", vec!["2: select ';' -- three;"]),
            ("select $$;$$;\n/* ; */", vec!["1: select $$;$$"]),
            ("select 'a;\n\\d\n';", vec!["1: select 'a;\n\\d\n'"]),
            ("select\n\\d polls \n1;", vec!["2: command \\d polls", "1: select\n1"]),
            ("select 1", vec!["1: Ok(\"select 1\")"]),
            ("-- a\n\nselect 'b;", vec!["3: Err(\"string\")"]),
            ("select U&'\\zzzz';\nselect 2;", vec!["1: select U&'\\zzzz'", "2: select 2"]),
            ("-- nothing\n", vec![]),
        ] {
            assert_eq!(split(text), wanted, "{text}");
        }
    }

    #[test]
    fn enter_runs_complete_input() {
        for text in ["", "select 1;", "select 1; -- done", "\\d", "select\n\\d polls", "quit", "-- a comment"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["select 1", "select ';", "/* ;", "select 1; select", "'\n\\d"] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
