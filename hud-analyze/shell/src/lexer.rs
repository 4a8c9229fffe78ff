//! Tokens of SQL, as far as a shell needs them: where strings, quoted names, comments and dollar quotes begin and end,
//! so that a `;` or a `\` inside them is ignored.
//!
//! A text may come in pieces that each end at a line's end: the construct open at the end of a piece is kept in
//! [`Open`]. The rules are those of DataFusion's generic dialect. Any text has tokens; none is rejected.

use std::ops::Range;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Space,
    /// `-- …` or `/* … */`.
    Comment,
    /// `'…'`, `E'…'` or `$tag$…$tag$`.
    Text,
    /// `"…"` or `` `…` ``.
    Name,
    /// A keyword, or a name without quotes.
    Word,
    /// Digits and what follows them.
    Number,
    /// `$name` or `$1`.
    Parameter,
    /// Any other character.
    Symbol,
    /// `;`.
    End,
    /// A backslash command, to the end of its line or to the next one.
    Command,
}

impl Kind {
    /// Whether it is part of a statement, not only space between its parts.
    pub(crate) fn is_significant(self) -> bool {
        !matches!(self, Kind::Space | Kind::Comment | Kind::End | Kind::Command)
    }
}

/// The construct that is open at a text's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Open {
    /// Nothing.
    #[default]
    Nothing,
    /// A string; `escapes` where a backslash takes the next character's meaning away.
    Text {
        /// Whether it is an `E'…'`.
        escapes: bool,
    },
    /// A quoted name, by its quote.
    Name(char),
    /// A comment, with its nesting depth.
    Comment(u32),
    /// A dollar quote, by its whole delimiter.
    Dollar(String),
}

impl Open {
    /// Its name in a message.
    pub(crate) fn what(&self) -> Option<&'static str> {
        match self {
            Open::Nothing => None,
            Open::Text { .. } => Some("string"),
            Open::Name(_) => Some("quoted name"),
            Open::Comment(_) => Some("comment"),
            Open::Dollar(_) => Some("dollar-quoted string"),
        }
    }
}

/// A piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its position, in bytes.
    pub(crate) range: Range<usize>,
}

/// The tokens of a whole text, and the construct that is open at its end.
pub(crate) fn tokens(text: &str) -> (Vec<Token>, Open) {
    let (mut open, mut at, mut all) = (Open::Nothing, 0, Vec::new());
    while let Some(token) = next(&mut open, text, at) {
        at = token.range.end;
        all.push(token);
    }
    (all, open)
}

/// The token at byte `at`, which is the end of another one (or 0); none at the end. It is never empty.
pub(crate) fn next(open: &mut Open, text: &str, at: usize) -> Option<Token> {
    let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
    let (kind, length) = match open {
        Open::Nothing => begin(open, rest),
        Open::Text { .. } => (Kind::Text, go_on(open, rest)),
        Open::Name(_) => (Kind::Name, go_on(open, rest)),
        Open::Comment(_) => (Kind::Comment, go_on(open, rest)),
        Open::Dollar(_) => (Kind::Text, go_on(open, rest)),
    };
    Some(Token { kind, range: at..at + length })
}

/// A token that begins at the beginning of `rest`, which is not empty.
fn begin(open: &mut Open, rest: &str) -> (Kind, usize) {
    let mut chars = rest.chars();
    let (first, second) = (chars.next().unwrap_or_default(), chars.next());
    let quoted = |open: &mut Open, kind, opened: Open, head: usize| {
        *open = opened;
        (kind, head + go_on(open, &rest[head..]))
    };
    match (first, second) {
        (';', _) => (Kind::End, 1),
        ('\\', _) => (Kind::Command, command(rest)),
        ('\'', _) => quoted(open, Kind::Text, Open::Text { escapes: false }, 1),
        ('e' | 'E', Some('\'')) => quoted(open, Kind::Text, Open::Text { escapes: true }, 2),
        ('"' | '`', _) => quoted(open, Kind::Name, Open::Name(first), 1),
        ('-', Some('-')) => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
        ('/', Some('*')) => quoted(open, Kind::Comment, Open::Comment(1), 2),
        ('$', _) => {
            let name = 1 + run(&rest[1..], |c| c.is_alphanumeric() || c == '_');
            if rest[name..].starts_with('$') {
                quoted(open, Kind::Text, Open::Dollar(rest[..=name].to_owned()), name + 1)
            } else {
                (Kind::Parameter, name)
            }
        }
        (c, _) if c.is_whitespace() => (Kind::Space, run(rest, char::is_whitespace)),
        (c, _) if c.is_ascii_digit() => {
            (Kind::Number, run(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_')))
        }
        (c, _) if is_word(c) => (Kind::Word, run(rest, |c| is_word(c) || matches!(c, '$' | '@' | '#'))),
        (c, _) => (Kind::Symbol, c.len_utf8()),
    }
}

/// Whether a name without quotes may begin with it.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the open construct, to its end or to that of `rest`; `open` is reset if it ends.
fn go_on(open: &mut Open, rest: &str) -> usize {
    let end = match open {
        Open::Nothing => Some(0),
        Open::Text { escapes } => quote_end(rest, '\'', *escapes),
        Open::Name(quote) => quote_end(rest, *quote, false),
        Open::Dollar(delimiter) => rest.find(delimiter.as_str()).map(|at| at + delimiter.len()),
        Open::Comment(depth) => comment_end(rest, depth),
    };
    if end.is_some() {
        *open = Open::Nothing;
    }
    end.unwrap_or(rest.len())
}

/// The end of a quoted text; a doubled quote stands for one.
fn quote_end(rest: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Some(at + c.len_utf8());
        }
    }
    None
}

/// The end of a comment, with all nested ones.
fn comment_end(rest: &str, depth: &mut u32) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (b'*', b'/') => {
                *depth = depth.saturating_sub(1);
                at += 2;
                if *depth == 0 {
                    return Some(at);
                }
            }
            (b'/', b'*') => {
                *depth = depth.saturating_add(1);
                at += 2;
            }
            _ => at += 1,
        }
    }
    None
}

/// The end of a command: the end of its line, or a backslash that begins a word.
fn command(rest: &str) -> usize {
    // Only separates two commands, or a command and a statement.
    if rest.starts_with("\\\\") {
        return 2;
    }
    let (mut quote, mut before) = (None, '\\');
    for (at, c) in rest.char_indices().skip(1) {
        match (quote, c) {
            (_, '\n') => return at,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') if before.is_whitespace() => quote = Some(c),
            (None, '\\') if before.is_whitespace() => return at,
            (None, _) => {}
        }
        before = c;
    }
    rest.len()
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(Kind, &str)> {
        tokens(text).0.into_iter().map(|t| (t.kind, &text[t.range])).filter(|(k, _)| *k != Kind::Space).collect()
    }

    #[test]
    fn quotes_and_comments_hide_what_is_in_them() {
        use Kind::*;
        for (text, wanted) in [
            ("'a;''b' x", vec![(Text, "'a;''b'"), (Word, "x")]),
            (r"'a\';x", vec![(Text, r"'a\'"), (End, ";"), (Word, "x")]),
            (r"E'a\';x' y", vec![(Text, r"E'a\';x'"), (Word, "y")]),
            ("\"a;\"\"b\"c", vec![(Name, "\"a;\"\"b\""), (Word, "c")]),
            ("`a;`", vec![(Name, "`a;`")]),
            ("a--b;\nc", vec![(Word, "a"), (Comment, "--b;"), (Word, "c")]),
            ("/*a/*;*/b*/c", vec![(Comment, "/*a/*;*/b*/"), (Word, "c")]),
            ("$$a;$x$;$$b", vec![(Text, "$$a;$x$;$$"), (Word, "b")]),
            ("$q$a;$$;$q$", vec![(Text, "$q$a;$$;$q$")]),
            ("$from+$1", vec![(Parameter, "$from"), (Symbol, "+"), (Parameter, "$1")]),
            ("a$b$c", vec![(Word, "a$b$c")]),
            ("1.5e3", vec![(Number, "1.5e3")]),
            ("größe-日本", vec![(Word, "größe"), (Symbol, "-"), (Word, "日本")]),
            (r"a\d b \x", vec![(Word, "a"), (Command, r"\d b "), (Command, r"\x")]),
            (r"\i 'a \b' \g", vec![(Command, r"\i 'a \b' "), (Command, r"\g")]),
            (r"\i a\b", vec![(Command, r"\i a\b")]),
        ] {
            assert_eq!(parts(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_left_open_is_known() {
        for (text, wanted) in [
            ("", Open::Nothing),
            ("'a", Open::Text { escapes: false }),
            ("'a''", Open::Text { escapes: false }),
            (r"e'\'", Open::Text { escapes: true }),
            ("\"a", Open::Name('"')),
            ("/*/**/", Open::Comment(1)),
            ("$a$b$", Open::Dollar("$a$".into())),
            ("-- '", Open::Nothing),
            (r"\d '", Open::Nothing),
        ] {
            assert_eq!(tokens(text).1, wanted, "{text}");
        }
    }
}
