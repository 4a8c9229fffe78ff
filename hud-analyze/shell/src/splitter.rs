//! Splits text into statements, and finds backslash commands between or in them.
//!
//! Text is pushed as it arrives (whole lines), statements and commands are returned in order. A command does not end
//! the statement in which it stands: its handler may inspect the statement so far, take it or replace it.

use crate::lexer::{self, Kind, Open};

/// A piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A statement, without its `;`.
    Statement(Statement),
    /// A backslash command with its arguments.
    Command {
        /// Its text, from the backslash on.
        text: String,
        /// The line that it is on, from 1.
        line: usize,
    },
}

/// A statement and where it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Its text, without leading and trailing space.
    pub(crate) sql: String,
    /// The line that it began on, from 1.
    pub(crate) line: usize,
}

/// Splits text.
#[derive(Debug)]
pub(crate) struct Splitter {
    input: String,
    at: usize,
    open: Open,
    pending: Statement,
    line: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Splitter { input: String::new(), at: 0, open: Open::Nothing, pending: Statement::default(), line: 1 }
    }
}

impl Splitter {
    /// Takes more text. It ends where a line ends, or is the last.
    pub(crate) fn push(&mut self, text: &str) {
        self.input.drain(..self.at);
        self.at = 0;
        self.input.push_str(text);
    }

    /// The next piece of the text pushed until now.
    pub(crate) fn next(&mut self) -> Option<Piece> {
        while let Some(token) = lexer::next(&mut self.open, &self.input, self.at) {
            self.at = token.range.end;
            let text = &self.input[token.range];
            let line = self.line;
            self.line += text.matches('\n').count();
            match token.kind {
                Kind::End => {
                    if let Some(statement) = self.take_pending() {
                        return Some(Piece::Statement(statement));
                    }
                }
                Kind::Command if text == "\\\\" => {}
                Kind::Command => return Some(Piece::Command { text: text.trim().to_owned(), line }),
                kind => {
                    // Space and comments before a statement are no part of it.
                    if self.pending.sql.is_empty() {
                        if !kind.is_significant() {
                            continue;
                        }
                        self.pending.line = line;
                    }
                    self.pending.sql.push_str(text);
                }
            }
        }
        self.input.clear();
        self.at = 0;
        None
    }

    /// Inserts text before all that has not been returned yet.
    pub(crate) fn insert(&mut self, text: &str) {
        self.input.insert_str(self.at, text);
    }

    /// The statement that has begun and not ended.
    pub(crate) fn pending(&self) -> &str {
        self.pending.sql.trim_end()
    }

    /// Takes the statement that has begun and not ended.
    pub(crate) fn take_pending(&mut self) -> Option<Statement> {
        let mut statement = std::mem::take(&mut self.pending);
        statement.sql.truncate(statement.sql.trim_end().len());
        (!statement.sql.is_empty()).then_some(statement)
    }

    /// The open construct: a string, a comment.
    pub(crate) fn open(&self) -> &Open {
        &self.open
    }

    /// Discards all text that was pushed and not returned.
    pub(crate) fn clear(&mut self) {
        *self = Splitter::default();
    }
}

/// Whether Enter at the end of `text` should run it, rather than begin a new line.
pub(crate) fn is_complete(text: &str) -> bool {
    let (tokens, open) = lexer::tokens(text);
    if open != Open::Nothing {
        return false;
    }
    let last = tokens.iter().rev().find(|token| !matches!(token.kind, Kind::Space | Kind::Comment));
    last.is_none_or(|token| matches!(token.kind, Kind::End | Kind::Command)) || is_plain_word(text)
}

/// Whether it is one of the words that people type to quit any shell, or to get help in it.
pub(crate) fn is_plain_word(text: &str) -> bool {
    matches!(text.trim().trim_end_matches(';').trim_end().to_ascii_lowercase().as_str(), "quit" | "exit" | "help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut splitter = Splitter::default();
        splitter.push(text);
        drain(&mut splitter)
    }

    fn drain(splitter: &mut Splitter) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(piece) = splitter.next() {
            all.push(match piece {
                Piece::Statement(s) => format!("{}: {}", s.line, s.sql),
                Piece::Command { text, line } => format!("{line}: {text} [{}]", splitter.pending()),
            });
        }
        all
    }

    #[test]
    fn statements_end_at_semicolons_that_are_not_quoted() {
        for (text, wanted) in [
            ("select 1;", vec!["1: select 1"]),
            ("select 1; select 2 ;\n", vec!["1: select 1", "1: select 2"]),
            ("\n\n  select\n1;\nselect 2;", vec!["3: select\n1", "5: select 2"]),
            (";;\n;select 1;;", vec!["2: select 1"]),
            ("-- one; two\nselect ';' -- three;\n;", vec!["2: select ';' -- three;"]),
            ("/* a;\nb */ select 1;", vec!["2: select 1"]),
            ("select $$;$$; select \"a;b\";", vec!["1: select $$;$$", "1: select \"a;b\""]),
            ("select 'it''s; so';", vec!["1: select 'it''s; so'"]),
            ("select 1", vec![]),
            ("-- nothing\n/* at all */;", vec![]),
            ("select\r\n1;\r\n", vec!["1: select\r\n1"]),
        ] {
            assert_eq!(split(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn commands_stand_between_and_in_statements() {
        for (text, wanted) in [
            ("\\d\n", vec!["1: \\d []"]),
            ("select 1 \\g", vec!["1: \\g [select 1]"]),
            ("select 1\n\\d polls\n+ 1;", vec!["2: \\d polls [select 1]", "1: select 1\n\n+ 1"]),
            ("\\x \\d polls\nselect 1;", vec!["1: \\x []", "1: \\d polls []", "2: select 1"]),
            ("\\x \\\\ select 1;", vec!["1: \\x []", "1: select 1"]),
            ("select '\\d';", vec!["1: select '\\d'"]),
        ] {
            assert_eq!(split(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn text_may_come_line_by_line() {
        let text = "select 'a\n;b' /* c\n; */ , $x$\n;$x$;\n\\d 'x\nselect E'\\'\n;' ;\nselect \"a\n;\";";
        let mut splitter = Splitter::default();
        let mut all = Vec::new();
        for line in text.split_inclusive('\n') {
            splitter.push(line);
            all.extend(drain(&mut splitter));
        }
        assert_eq!(all, split(text));
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_is_pending_can_be_taken_and_forgotten() {
        let mut splitter = Splitter::default();
        splitter.push("\nselect 1 \n");
        assert_eq!(splitter.next(), None);
        assert_eq!(splitter.take_pending(), Some(Statement { sql: "select 1".into(), line: 2 }));
        assert_eq!(splitter.take_pending(), None);
        splitter.push("select 'x");
        assert_eq!(splitter.next(), None);
        assert_eq!(splitter.open().what(), Some("string"));
        splitter.clear();
        splitter.push("select 2;");
        assert_eq!(split("select 2;"), drain(&mut splitter));
    }

    #[test]
    fn enter_runs_what_is_complete() {
        for text in ["", "  ", "select 1;", "select 1; -- done", "\\d", "select 1 \\g", "select 1;\n", "quit", "help;"]
        {
            assert!(is_complete(text), "{text:?}");
        }
        for text in ["select 1", "select ';", "select 1; select", "/* ;", "\\d\nselect", "$$;", "quit now"] {
            assert!(!is_complete(text), "{text:?}");
        }
    }

    #[test]
    fn any_text_is_taken_apart_without_loss() {
        let alphabet: Vec<char> = "a1 '\"`$\\;-/*\n\r\teE.(é日\u{1b}\u{0}\u{202e}".chars().collect();
        for seed in 1..3000_u64 {
            let mut random = crate::random::Random::new(seed);
            let text: String = (0..random.below(60)).map(|_| alphabet[random.below(alphabet.len())]).collect();
            let (tokens, _) = lexer::tokens(&text);
            let mut at = 0;
            for token in &tokens {
                assert_eq!(token.range.start, at, "{text:?}");
                assert!(token.range.end > at, "{text:?}");
                at = token.range.end;
            }
            assert_eq!(at, text.len(), "{text:?}");
            let whole = split(&text);
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            for line in text.split_inclusive('\n') {
                splitter.push(line);
                lines.extend(drain(&mut splitter));
            }
            assert_eq!(lines, whole, "{text:?}");
            let _ = is_complete(&text);
        }
    }
}
