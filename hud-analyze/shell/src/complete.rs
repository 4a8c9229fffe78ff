//! Completion at the cursor: commands and their arguments, tables and views, columns of the tables in the statement (before and
//! after the cursor), functions, keywords. It works on tokens, as an unfinished statement does not parse.

use std::ops::Range;

use hud_common::clean;
use reedline::{Span, Suggestion};
use sqlparser::tokenizer::Token;

use crate::{
    command::COMMANDS,
    database::{Catalogue, Function, FunctionKind, Relation},
    settings::{Format, OPTIONS},
    sql::{self, End, is, name},
};

/// Maximum number of candidates.
const MOST: usize = 500;
/// Maximum number of tables in a statement that are considered.
const MOST_TABLES: usize = 64;

/// A candidate that replaces the word between these offsets.
fn candidate(value: String, about: &str, word: &Range<usize>) -> Suggestion {
    // The menu would show control characters of descriptions.
    let about: String = clean(about).chars().take(120).collect();
    let description = Some(about).filter(|about| !about.is_empty());
    Suggestion { value, description, span: Span { start: word.start, end: word.end }, ..Suggestion::default() }
}

/// Candidates at byte `cursor` of `text`.
pub(crate) fn complete(catalogue: &Catalogue, text: &str, cursor: usize) -> Vec<Suggestion> {
    let Some((before, after)) = text.split_at_checked(cursor) else { return Vec::new() };
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let is_command =
        before[line..].trim_start().starts_with('\\') && sql::tokenize(&before[..line]).end == End::Complete;
    let mut found = match is_command {
        true => in_command(catalogue, &before[line..], cursor),
        false => in_statement(catalogue, before, after),
    };
    // The menu shows names unchanged, so those with control characters are not offered.
    found.retain(|candidate| clean(&candidate.value) == candidate.value.as_str());
    found.truncate(MOST);
    found
}

fn in_command(catalogue: &Catalogue, line: &str, cursor: usize) -> Vec<Suggestion> {
    let word = line.rsplit(char::is_whitespace).next().unwrap_or_default();
    let at = &(cursor - word.len()..cursor);
    let earlier: Vec<&str> = line[..line.len() - word.len()].split_whitespace().collect();
    let plain = |value: &str, about: &str| candidate(value.to_owned(), about, at);
    let mut found = match earlier.as_slice() {
        [] => COMMANDS
            .iter()
            .map(|(command, usage, about)| Suggestion {
                append_whitespace: usage.contains(' '),
                ..plain(command, about)
            })
            .collect(),
        ["\\d"] => relations(catalogue, word, at),
        ["\\df"] => functions(catalogue, at, |_| true, ""),
        ["\\pset"] => OPTIONS.iter().map(|(option, about)| plain(option, about)).collect(),
        ["\\pset", "format"] => Format::names().iter().map(|format| plain(format, "")).collect(),
        ["\\pset", "times"] => ["human", "ns"].map(|value| plain(value, "")).into(),
        ["\\x" | "\\timing"] | ["\\pset", "expanded" | "timing"] => ["on", "off"].map(|value| plain(value, "")).into(),
        _ => Vec::new(),
    };
    found.retain(|candidate| starts(&candidate.value, word));
    found
}

fn in_statement(catalogue: &Catalogue, before: &str, after: &str) -> Vec<Suggestion> {
    let cursor = before.len();
    let tokens = sql::tokenize(before);
    let is_line_comment = |text: &str| text.starts_with("--") && !text.ends_with('\n');
    // The word at the cursor: the last one, or a quoted name that is open.
    let (word, start) = match (tokens.end, tokens.tokens.last()) {
        (End::Open("quoted name"), _) => (&before[tokens.rest + 1..], tokens.rest),
        (End::Open(_) | End::Invalid, _) | (_, Some((Token::Number(..), _))) => return Vec::new(),
        (_, Some((_, range))) if is_line_comment(&before[range.clone()]) => return Vec::new(),
        (_, Some((Token::Word(_), range))) => (before[range.clone()].trim_matches(['"', '`']), range.start),
        _ => ("", cursor),
    };
    let significant = |tokens: Vec<(Token, Range<usize>)>| -> Vec<Token> {
        tokens.into_iter().map(|(token, _)| token).filter(sql::is_significant).collect()
    };
    let mut own = significant(tokens.tokens.into_iter().filter(|(_, range)| range.end <= start).collect());
    let statement = own.iter().rposition(|token| *token == Token::SemiColon).map_or(0, |end| end + 1);
    own.drain(..statement);
    let rest = significant(sql::tokenize(after).tokens).into_iter().take_while(|token| *token != Token::SemiColon);
    let (at, wants_relation) = (&(start..cursor), wants_relation(&own));
    let mut all = own.clone();
    if wants_relation {
        // It separates the FROM from the tokens after the cursor.
        all.push(Token::Word(sqlparser::tokenizer::Word {
            value: word.to_owned(),
            quote_style: None,
            keyword: sqlparser::keywords::Keyword::NoKeyword,
        }));
    }
    all.extend(rest);
    let scope = Scope::of(&all);

    let mut found = Vec::new();
    if let [.., qualifier, Token::Period] = own.as_slice() {
        found = name(qualifier).map(|qualifier| qualified(catalogue, &scope, qualifier, at)).unwrap_or_default();
    } else if wants_relation {
        found.extend(scope.queries.iter().map(|name| candidate(quoted(name), "query of this statement", at)));
        found.extend(relations(catalogue, word, at));
        found.extend(functions(catalogue, at, |kind| kind == FunctionKind::Table, "("));
    } else if own.is_empty() {
        found = keywords(sql::BEGINNINGS.split_whitespace(), word, &all, at);
    } else {
        let mut known: Vec<&Relation> =
            scope.tables.iter().filter_map(|table| catalogue.relation(&table.name)).collect();
        // Before the FROM is written, all columns are possible.
        if scope.tables.is_empty() && !word.is_empty() {
            known.extend(&catalogue.relations);
        }
        known.iter().for_each(|relation| columns(&mut found, relation, at));
        for table in &scope.tables {
            let about = table.alias.as_ref().map_or_else(String::new, |_| format!("is {}", table.name));
            found.push(candidate(quoted_path(table.alias.as_deref().unwrap_or(&table.name)), &about, at));
        }
        if !word.is_empty() {
            found.extend(functions(catalogue, at, |kind| kind != FunctionKind::Table, "("));
            found.extend(keywords(sql::keywords(), word, &all, at));
        }
    }
    found.retain(|candidate| starts(candidate.value.trim_start_matches('"'), word));
    found
}

/// A table in a statement.
struct Named {
    name: String,
    alias: Option<String>,
}

/// Tables and named queries in a statement.
#[derive(Default)]
struct Scope {
    tables: Vec<Named>,
    /// Names of common table expressions.
    queries: Vec<String>,
}

impl Scope {
    fn of(tokens: &[Token]) -> Scope {
        let mut scope = Scope::default();
        for (at, token) in tokens.iter().enumerate() {
            if let (Some(query), Some(as_), Some(Token::LParen)) = (name(token), tokens.get(at + 1), tokens.get(at + 2))
                && is(as_, "AS")
                && scope.queries.len() < MOST_TABLES
            {
                scope.queries.push(query.to_owned());
            }
            if ["FROM", "JOIN", "DESCRIBE"].iter().any(|keyword| is(token, keyword)) {
                scope.read(&tokens[at + 1..]);
            }
        }
        scope
    }

    /// Reads names with their aliases, separated by commas.
    fn read(&mut self, tokens: &[Token]) {
        let mut tokens = tokens.iter().peekable();
        while self.tables.len() < MOST_TABLES {
            let Some(mut table) = tokens.next_if(|token| name(token).is_some()).and_then(name).map(str::to_owned)
            else {
                return;
            };
            while tokens.next_if(|token| **token == Token::Period).is_some() {
                let Some(next) = tokens.next().and_then(name) else { return };
                table = format!("{table}.{next}");
            }
            let mut depth = 0_usize;
            while let Some(token) = tokens.next_if(|token| depth > 0 || **token == Token::LParen) {
                match token {
                    Token::LParen => depth += 1,
                    Token::RParen => depth -= 1,
                    _ => {}
                }
            }
            let _ = tokens.next_if(|token| is(token, "AS"));
            let alias = tokens.next_if(|token| name(token).is_some()).and_then(name).map(str::to_owned);
            self.tables.push(Named { name: table, alias });
            if tokens.next_if(|token| **token == Token::Comma).is_none() {
                return;
            }
        }
    }
}

/// Whether the next word is a table.
fn wants_relation(before: &[Token]) -> bool {
    let Some((last, earlier)) = before.split_last() else { return false };
    if ["FROM", "JOIN", "DESCRIBE", "TABLE", "VIEW"].iter().any(|keyword| is(last, keyword)) {
        return true;
    }
    // A comma between tables: only names stand between it and FROM.
    let is_limit = |token: &&Token| sql::is_keyword(token) || **token == Token::LParen;
    *last == Token::Comma && earlier.iter().rfind(is_limit).is_some_and(|token| is(token, "FROM"))
}

/// Columns of the table with this name or alias, and relations of the schema with this name.
fn qualified(catalogue: &Catalogue, scope: &Scope, qualifier: &str, at: &Range<usize>) -> Vec<Suggestion> {
    let mut found = Vec::new();
    let has_name = |table: &&Named| table.alias.as_deref().unwrap_or(&table.name).eq_ignore_ascii_case(qualifier);
    let table = scope.tables.iter().find(has_name).map_or(qualifier, |table| &table.name);
    if let Some(relation) = catalogue.relation(table) {
        columns(&mut found, relation, at);
    }
    let in_schema =
        |relation: &&Relation| relation.schema.as_deref().is_some_and(|s| s.eq_ignore_ascii_case(qualifier));
    let relations = catalogue.relations.iter().filter(in_schema);
    found.extend(relations.map(|relation| candidate(quoted(&relation.name), &relation.doc, at)));
    found
}

fn columns(found: &mut Vec<Suggestion>, relation: &Relation, at: &Range<usize>) {
    for column in &relation.columns {
        let value = quoted(&column.name);
        if !found.iter().any(|known| known.value == value) {
            found.push(candidate(value, format!("{}  {}", column.data_type, column.doc).trim(), at));
        }
    }
}

/// Relations; those of other schemas only if the word begins with the schema.
fn relations(catalogue: &Catalogue, word: &str, at: &Range<usize>) -> Vec<Suggestion> {
    let offered = catalogue.relations.iter().filter(|relation| relation.schema.is_none() || !word.is_empty());
    offered.map(|relation| candidate(quoted_path(&relation.qualified()), &relation.doc, at)).collect()
}

fn functions(
    catalogue: &Catalogue,
    at: &Range<usize>,
    wanted: impl Fn(FunctionKind) -> bool,
    end: &str,
) -> Vec<Suggestion> {
    let about = |function: &Function| if function.doc.is_empty() { &function.signature } else { &function.doc }.clone();
    let found = catalogue.functions.iter().filter(|function| wanted(function.kind));
    found.map(|function| candidate(quoted(&function.name) + end, &about(function), at)).collect()
}

/// Keywords, in lower case if the word or an earlier keyword is.
fn keywords<'a>(all: impl Iterator<Item = &'a str>, word: &str, own: &[Token], at: &Range<usize>) -> Vec<Suggestion> {
    let earlier = own.iter().find(|token| sql::is_keyword(token)).map(Token::to_string).unwrap_or_default();
    let is_lower = if word.is_empty() { earlier } else { word.to_owned() }.contains(char::is_lowercase);
    let value = |word: &str| if is_lower { word.to_ascii_lowercase() } else { word.to_owned() };
    all.map(|word| Suggestion { append_whitespace: true, ..candidate(value(word), "", at) }).collect()
}

fn starts(name: &str, prefix: &str) -> bool {
    let mut own = name.chars().flat_map(char::to_lowercase);
    prefix.chars().flat_map(char::to_lowercase).all(|c| own.next() == Some(c))
}

/// A name as it is written in SQL, with quotes if necessary.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn quoted_path(path: &str) -> String {
    path.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
#[path = "../tests/unit/complete.rs"]
mod tests;
