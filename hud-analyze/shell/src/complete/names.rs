//! The tables of a statement, found by its tokens.

use crate::{
    lexer::{Kind, Token},
    sql,
};

/// A table of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name, with its schema if written.
    pub(crate) name: String,
    /// Its name or alias in the statement.
    pub(crate) alias: Option<String>,
}

/// The relations of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Tables, views and table functions.
    pub(crate) relations: Vec<Named>,
    /// Queries that it names itself (`WITH name AS (…)`).
    pub(crate) queries: Vec<String>,
}

/// Most tables of a statement that are considered; no hand-written statement has more.
const MOST: usize = 64;

impl Scope {
    /// Of the significant tokens of a statement.
    pub(crate) fn of(text: &str, tokens: &[Token]) -> Scope {
        let mut scope = Scope::default();
        for (i, token) in tokens.iter().enumerate() {
            let after = || (tokens.get(i + 1), tokens.get(i + 2));
            if is_name(text, token)
                && matches!(after(), (Some(a), Some(b)) if is(text, a, "AS") && is(text, b, "("))
                && scope.queries.len() < MOST
            {
                scope.queries.push(unquoted(text, token));
            }
            let begins = is(text, token, "FROM") || is(text, token, "JOIN") || is(text, token, "DESCRIBE");
            if begins && scope.relations.len() < MOST {
                scope.read(text, &tokens[i + 1..]);
            }
        }
        scope
    }

    /// Reads the tokens after a FROM: names with their aliases, separated by commas.
    fn read(&mut self, text: &str, tokens: &[Token]) {
        let mut at = 0;
        while self.relations.len() < MOST {
            let Some(first) = tokens.get(at).filter(|token| is_name(text, token)) else { return };
            let mut name = unquoted(text, first);
            at += 1;
            while tokens.get(at).is_some_and(|token| is(text, token, ".")) {
                let Some(next) = tokens.get(at + 1).filter(|token| is_name(text, token)) else { break };
                name = format!("{name}.{}", unquoted(text, next));
                at += 2;
            }
            if tokens.get(at).is_some_and(|token| is(text, token, "(")) {
                at = behind_parentheses(text, tokens, at);
            }
            at += usize::from(tokens.get(at).is_some_and(|token| is(text, token, "AS")));
            let alias = tokens.get(at).filter(|token| is_name(text, token)).map(|token| unquoted(text, token));
            at += usize::from(alias.is_some());
            self.relations.push(Named { name, alias });
            if !tokens.get(at).is_some_and(|token| is(text, token, ",")) {
                return;
            }
            at += 1;
        }
    }
}

/// The name before a dot that the word at the cursor follows; the last part of it.
pub(crate) fn qualifier(text: &str, before: &[Token]) -> Option<String> {
    let [.., name, dot] = before else { return None };
    (is(text, dot, ".") && matches!(name.kind, Kind::Word | Kind::Name)).then(|| unquoted(text, name))
}

/// Whether a table is expected next.
pub(crate) fn wants_relation(text: &str, before: &[Token]) -> bool {
    let Some(last) = before.last() else { return false };
    if ["FROM", "JOIN", "DESCRIBE", "TABLE", "VIEW", "INTO"].iter().any(|word| is(text, last, word)) {
        return true;
    }
    // A comma between tables: only names stand between it and a FROM.
    is(text, last, ",")
        && before
            .iter()
            .rev()
            .skip(1)
            .find(|t| t.kind == Kind::Word && sql::is_keyword(&text[t.range.clone()]) || is(text, t, "("))
            .is_some_and(|token| is(text, token, "FROM"))
}

fn behind_parentheses(text: &str, tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if is(text, token, "(") {
            depth += 1;
        } else if is(text, token, ")") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + 1;
            }
        }
    }
    tokens.len()
}

fn is(text: &str, token: &Token, word: &str) -> bool {
    matches!(token.kind, Kind::Word | Kind::Symbol) && text[token.range.clone()].eq_ignore_ascii_case(word)
}

fn is_name(text: &str, token: &Token) -> bool {
    match token.kind {
        Kind::Name => true,
        Kind::Word => !sql::is_keyword(&text[token.range.clone()]),
        _ => false,
    }
}

fn unquoted(text: &str, token: &Token) -> String {
    let all = &text[token.range.clone()];
    match token.kind {
        Kind::Name => all.trim_matches(['"', '`']).replace("\"\"", "\""),
        _ => all.to_owned(),
    }
}
