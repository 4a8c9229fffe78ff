//! Completion at the cursor: commands and their arguments, tables and views, columns of the tables in the statement
//! (before the cursor or after it), functions, keywords.
//!
//! It works on tokens, not on a grammar: an unfinished statement is not valid SQL yet.

mod names;
pub(crate) mod paths;

use hud_common::clean;

use crate::{
    command::{self, Takes},
    database::{Catalogue, FunctionKind, Relation},
    lexer::{self, Kind, Token},
    settings::{Expanded, Format},
    sql,
};
use names::{Named, Scope};

/// Most candidates that are offered.
const MOST: usize = 500;

/// A candidate for the cursor's position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The replacement of the text between `start` and the cursor.
    pub(crate) value: String,
    /// A short description.
    pub(crate) about: String,
    /// Where the completed word begins.
    pub(crate) start: usize,
    /// Whether a space follows it.
    pub(crate) space: bool,
}

/// Candidates at byte `cursor` of `text`.
pub(crate) fn complete(catalogue: &Catalogue, text: &str, cursor: usize) -> Vec<Candidate> {
    if !text.is_char_boundary(cursor) {
        return Vec::new();
    }
    let (tokens, _) = lexer::tokens(text);
    let mut found = match tokens.iter().find(|token| token.range.start < cursor && cursor <= token.range.end) {
        Some(token) if token.kind == Kind::Command => in_command(catalogue, text, token, cursor),
        // Inside a string or a comment; right after it a new word begins.
        Some(token) if matches!(token.kind, Kind::Text | Kind::Comment) && !is_over(text, token, cursor) => Vec::new(),
        _ => in_statement(catalogue, text, &tokens, cursor),
    };
    // Names with control characters are not offered: a menu would show them unchanged.
    found.retain(|candidate| clean(&candidate.value) == candidate.value.as_str());
    found.truncate(MOST);
    for candidate in &mut found {
        candidate.about = clean(&candidate.about).chars().take(120).collect();
    }
    found
}

/// Whether a string or a block comment ends right at the cursor; a line comment never does.
fn is_over(text: &str, token: &Token, cursor: usize) -> bool {
    let all = &text[token.range.clone()];
    token.range.end == cursor && !all.starts_with("--") && lexer::tokens(all).1 == lexer::Open::Nothing
}

fn in_command(catalogue: &Catalogue, text: &str, token: &Token, cursor: usize) -> Vec<Candidate> {
    let (name, rest) = command::split_name(&text[token.range.start..cursor]);
    if rest.is_empty() {
        let start = token.range.start;
        let all = command::COMMANDS.iter().filter(|(known, ..)| known.starts_with(name));
        return all
            .map(|(known, _, takes, about)| Candidate {
                value: (*known).to_owned(),
                about: (*about).to_owned(),
                start,
                space: *takes != Takes::Nothing,
            })
            .collect();
    }
    let word_at =
        rest.rfind(char::is_whitespace).map_or(0, |at| at + rest[at..].chars().next().map_or(1, char::len_utf8));
    let (before, word) = (command::words(&rest[..word_at]), &rest[word_at..]);
    let start = cursor - word.len();
    let plain = |value: &str, about: &str| Candidate { value: value.into(), about: about.into(), start, space: false };
    let from = |all: &[&str]| -> Vec<Candidate> {
        all.iter().filter(|value| starts(value, word)).map(|value| plain(value, "")).collect()
    };
    match (command::takes(name), before.as_slice()) {
        (Takes::File, _) => {
            let head = rest.len() - rest.trim_start().len();
            paths::complete(&rest[head..], cursor - (rest.len() - head))
        }
        (Takes::Relation, []) => relations(catalogue, word, start),
        (Takes::Function, []) => functions(catalogue, word, start, |_| true, ""),
        (Takes::Switch, []) if name == "\\x" => from(&Expanded::ALL.map(|(name, _)| name)),
        (Takes::Switch, []) => from(&["on", "off"]),
        (Takes::Option, []) => command::pset_options()
            .filter(|(option, _)| starts(option, word))
            .map(|(option, about)| Candidate { space: true, ..plain(option, about) })
            .collect(),
        (Takes::Option, [option]) => match option.as_str() {
            "format" => from(&Format::ALL.map(|(name, _)| name)),
            "expanded" => from(&Expanded::ALL.map(|(name, _)| name)),
            "pager" | "footer" | "timing" => from(&["on", "off"]),
            _ => Vec::new(),
        },
        (Takes::Topic, []) => {
            let topics = sql::TOPICS.iter().filter(|(topic, ..)| starts(topic, word));
            let mut found: Vec<_> = topics.map(|(topic, _, about)| plain(topic, about)).collect();
            found.extend(relations(catalogue, word, start));
            found.extend(functions(catalogue, word, start, |_| true, ""));
            found
        }
        _ => Vec::new(),
    }
}

fn in_statement(catalogue: &Catalogue, text: &str, tokens: &[Token], cursor: usize) -> Vec<Candidate> {
    let ends = |token: &&Token| token.kind == Kind::End;
    let from = tokens.iter().filter(|token| token.range.end <= cursor).rfind(ends).map_or(0, |token| token.range.end);
    let to = tokens.iter().filter(|token| token.range.start >= cursor).find(ends).map_or(text.len(), |t| t.range.start);
    let own: Vec<Token> = tokens
        .iter()
        .filter(|t| t.range.start >= from && t.range.end <= to && t.kind.is_significant())
        .cloned()
        .collect();
    // The word being written, and the tokens before it.
    let current = own
        .iter()
        .find(|t| t.range.start < cursor && cursor <= t.range.end && matches!(t.kind, Kind::Word | Kind::Name));
    let start = current.map_or(cursor, |token| token.range.start);
    let prefix = text[start..cursor].trim_matches(['"', '`']);
    let before: Vec<Token> = own.iter().filter(|token| token.range.end <= start).cloned().collect();
    if current.is_none() && before.last().is_some_and(|t| t.range.end == cursor && t.kind == Kind::Number) {
        return Vec::new();
    }

    let wants_relation = names::wants_relation(text, &before);
    // A word being written is no alias yet.
    let known = own.iter().filter(|token| wants_relation || Some(*token) != current).cloned().collect::<Vec<_>>();
    let scope = Scope::of(text, &known);

    if let Some(qualifier) = names::qualifier(text, &before) {
        return qualified(catalogue, &scope, &qualifier, prefix, start);
    }
    if wants_relation {
        let mut found: Vec<_> = scope
            .queries
            .iter()
            .filter(|name| starts(name, prefix))
            .map(|name| Candidate { value: quoted(name), about: "query of this statement".into(), start, space: false })
            .collect();
        found.extend(relations(catalogue, prefix, start));
        found.extend(functions(catalogue, prefix, start, |kind| kind == FunctionKind::Table, "("));
        return found;
    }
    if before.is_empty() {
        return keywords(sql::BEGINNINGS, text, &own, prefix, start);
    }

    let mut found = Vec::new();
    let named: Vec<&Named> = scope.relations.iter().collect();
    for relation in named.iter().filter_map(|named| catalogue.relation(&named.name)) {
        add_columns(&mut found, relation, prefix, start);
    }
    for named in &named {
        let (value, about) = match &named.alias {
            Some(alias) => (alias.as_str(), format!("is {}", named.name)),
            None => (named.name.as_str(), "table of this statement".to_owned()),
        };
        if starts(value, prefix) {
            found.push(Candidate { value: quoted_path(value), about, start, space: false });
        }
    }
    if !prefix.is_empty() {
        // Before a FROM, any column is possible.
        if named.is_empty() {
            for relation in &catalogue.relations {
                add_columns(&mut found, relation, prefix, start);
            }
        }
        found.extend(functions(catalogue, prefix, start, |kind| kind != FunctionKind::Table, "("));
    }
    if !prefix.is_empty() || found.is_empty() {
        found.extend(keywords(sql::KEYWORDS, text, &own, prefix, start));
    }
    found
}

/// Candidates after `qualifier.`: columns of the relation with that name or alias, or the relations of that schema.
fn qualified(catalogue: &Catalogue, scope: &Scope, qualifier: &str, prefix: &str, start: usize) -> Vec<Candidate> {
    let mut found = Vec::new();
    let named = scope
        .relations
        .iter()
        .find(|named| named.alias.as_deref().unwrap_or(&named.name).eq_ignore_ascii_case(qualifier));
    let name = named.map_or(qualifier, |named| named.name.as_str());
    if let Some(relation) = catalogue.relation(name) {
        add_columns(&mut found, relation, prefix, start);
    }
    for relation in &catalogue.relations {
        let in_schema = relation.schema.as_deref().is_some_and(|schema| schema.eq_ignore_ascii_case(qualifier));
        if in_schema && starts(&relation.name, prefix) {
            let about = relation.doc.clone();
            found.push(Candidate { value: quoted(&relation.name), about, start, space: false });
        }
    }
    found
}

fn add_columns(found: &mut Vec<Candidate>, relation: &Relation, prefix: &str, start: usize) {
    for column in relation.columns.iter().filter(|column| starts(&column.name, prefix)) {
        let value = quoted(&column.name);
        if found.len() < MOST && !found.iter().any(|known| known.value == value) {
            let about = format!("{}  {}", column.data_type, column.doc).trim().to_owned();
            found.push(Candidate { value, about, start, space: false });
        }
    }
}

fn relations(catalogue: &Catalogue, prefix: &str, start: usize) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for relation in &catalogue.relations {
        let full = relation.qualified();
        // The schema is shown once its name has been started.
        let by_name = relation.schema.is_none() && starts(&relation.name, prefix);
        let by_schema = relation.schema.is_some() && !prefix.is_empty() && starts(&full, prefix);
        if by_name || by_schema {
            found.push(Candidate { value: quoted_path(&full), about: relation.doc.clone(), start, space: false });
        }
    }
    found
}

fn functions(
    catalogue: &Catalogue,
    prefix: &str,
    start: usize,
    wanted: impl Fn(FunctionKind) -> bool,
    behind: &str,
) -> Vec<Candidate> {
    let all = catalogue.functions.iter().filter(|f| wanted(f.kind) && starts(&f.name, prefix));
    let candidate = |function: &crate::Function| Candidate {
        value: format!("{}{behind}", quoted(&function.name)),
        about: if function.doc.is_empty() { function.signature.clone() } else { function.doc.clone() },
        start,
        space: false,
    };
    all.map(candidate).collect()
}

/// Keywords, in the statement's case.
fn keywords(all: &[&str], text: &str, own: &[Token], prefix: &str, start: usize) -> Vec<Candidate> {
    let sample = if prefix.is_empty() {
        let mut words = own.iter().map(|token| &text[token.range.clone()]);
        words.find(|word| sql::is_keyword(word)).unwrap_or_default()
    } else {
        prefix
    };
    let lower = sample.chars().any(char::is_lowercase);
    let keyword = |word: &str| if lower { word.to_ascii_lowercase() } else { word.to_owned() };
    let fitting = all.iter().filter(|word| starts(word, prefix));
    fitting.map(|word| Candidate { value: keyword(word), about: String::new(), start, space: true }).collect()
}

fn starts(name: &str, prefix: &str) -> bool {
    let mut own = name.chars().flat_map(char::to_lowercase);
    prefix.chars().flat_map(char::to_lowercase).all(|c| own.next() == Some(c))
}

/// A name as SQL accepts it: quoted if it would be read as something else.
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
mod tests;
