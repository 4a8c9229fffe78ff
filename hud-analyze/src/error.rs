//! The errors of hud-analyze. Each message is one line: the action, the cause, and how to proceed.

use std::{io, path::PathBuf};

use datafusion::{
    arrow::error::ArrowError,
    common::{Column, SchemaError},
    error::DataFusionError,
};
use hud_common::session::{self, Table};

/// [`core::result::Result`] with this module's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Characters of a statement that are shown where the parser stopped.
const NEAR: usize = 40;
/// Columns that an error lists.
const FEW_COLUMNS: usize = 24;

/// A command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session cannot be opened.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A segment does not decode.
    #[error(
        "{path} is damaged: {why}; copy it again, or move it out of the session to read the rest",
        path = path.display()
    )]
    Segment {
        /// The file.
        path: PathBuf,
        /// The decoder's error.
        why: String,
    },
    /// A segment disappeared.
    #[error("{path} disappeared while it was read; run the command again", path = .0.display())]
    Gone(PathBuf),
    /// The SQL is invalid.
    #[error("{message}; {hint}")]
    Sql {
        /// The cause.
        message: String,
        /// How to proceed.
        hint: String,
    },
    /// A valid query failed.
    #[error("the query failed: {0}")]
    Query(String),
    /// The arguments contradict each other or do not fit the session.
    #[error("{message}; {hint}")]
    Usage {
        /// The cause.
        message: String,
        /// How to proceed.
        hint: String,
    },
    /// A session failed verification.
    #[error("{session} failed verification: {why}", session = session.display())]
    Unproven {
        /// The folder.
        session: PathBuf,
        /// The first failed check.
        why: String,
    },
    /// A `--fail-if` condition of `diff` holds.
    #[error("{condition}{}", if *.more > 0 { format!(", and {more} more") } else { String::new() })]
    Differs {
        /// The first of them.
        condition: String,
        /// Number of others.
        more: usize,
    },
    /// There are findings of the severity of `--fail-on`.
    #[error("{count} of severity {severity} or worse, which --fail-on makes a failure")]
    Found {
        /// Their number, as text.
        count: String,
        /// The severity.
        severity: String,
    },
    /// Reading an input or writing an output failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// The action and its object.
        action: String,
        /// The system's error.
        source: io::Error,
    },
    /// A session could not be repaired or compacted.
    #[error("{0}")]
    Upkeep(String),
    /// An export could not be made.
    #[error("{0}")]
    Export(String),
    /// A signal ended the shell.
    #[error("ended by signal {0}")]
    Signal(i32),
    /// The user cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// An error of the shell, as one line.
    #[error("{0}")]
    Shell(String),
    /// The cockpit could not be shown.
    #[error("cannot {0}")]
    Replay(String),
    /// An embedded view is invalid.
    #[error("hud's view {view} is invalid: {why}; please report this bug")]
    View {
        /// Its name.
        view: &'static str,
        /// The cause.
        why: String,
    },
}

impl Error {
    /// The exit code: 2 for invalid arguments, 128 + N for signal N, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } => 2,
            Error::Cancelled => 130,
            Error::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            _ => 1,
        }
    }

    /// An error of the parser with the text at which it stopped.
    pub(crate) fn pointing_into(self, sql: &str) -> Self {
        match self {
            Error::Sql { message, hint } => {
                let message = place_in(sql, &message).or_else(|| line_of(sql, &message)).unwrap_or(message);
                Error::Sql { message: message.replace("found: EOF", "found: the end of the statement"), hint }
            }
            other => other,
        }
    }

    /// For `map_err`: an error of the system, with the action that failed.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Error::Io { action, source }
    }

    /// Whether the reader of the output closed it, which is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<&session::Error> for Error {
    fn from(error: &session::Error) -> Self {
        match error {
            session::Error::Damaged { path, why } | session::Error::Foreign { path, why } => {
                Error::Segment { path: path.clone(), why: why.clone() }
            }
            session::Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::Gone(path.clone())
            }
            other => Error::Query(other.to_string()),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let message = one_line(&error.strip_backtrace());
        match error.find_root() {
            DataFusionError::SQL(parser, _) => {
                let why = one_line(&parser.to_string());
                let why = why.strip_prefix("sql parser error: ").unwrap_or(&why);
                Error::Sql {
                    message: format!("the SQL does not parse: {why}"),
                    hint: "`hud-analyze sql --help` has examples".into(),
                }
            }
            DataFusionError::SchemaError(schema, _) => sql_error(schema_message(schema, &message)),
            DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) | DataFusionError::Diagnostic(..) => {
                sql_error(strip(&message))
            }
            _ => Error::Query(strip(&message)),
        }
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, source) => Error::Io { action: "write the result".into(), source },
            other => Error::Query(one_line(&other.to_string())),
        }
    }
}

/// A parser's message whose end `at Line: 1, Column: 8` is replaced by the text there.
fn place_in(sql: &str, message: &str) -> Option<String> {
    let (message, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    let text = sql.lines().nth(line.checked_sub(1)?)?;
    let near: String = text.chars().skip(column.checked_sub(1)?).take(NEAR).collect();
    let near = if near.is_empty() { "its end".into() } else { format!("\"{}\"", one_line(&near)) };
    Some(format!("{message}, in line {line} at {near}"))
}

/// A message about a name, with the line in which it is, if there are several.
fn line_of(sql: &str, message: &str) -> Option<String> {
    let (missing, rest) = ["column ", "table ", "function "].iter().find_map(|kind| {
        let rest = message.strip_prefix("there is no ")?.strip_prefix(kind)?;
        let end = rest.find([' ', ',', ';']).unwrap_or(rest.len());
        Some((rest.get(..end)?, rest.get(end..)?))
    })?;
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let has = |line: &str| line.split(|c| !is_part(c)).any(|word| word.eq_ignore_ascii_case(missing));
    let line = sql.lines().position(has)? + 1;
    let head = message.strip_suffix(rest)?;
    (sql.lines().nth(1).is_some()).then(|| format!("{head} (line {line}){rest}"))
}

fn strip(message: &str) -> String {
    // What DataFusion's rules put before an error of a function: `type_coercion caused by Error during planning: …`.
    let mut message = message.rsplit_once(" caused by ").map_or(message, |(_, cause)| cause);
    for prefix in ["Error during planning: ", "Schema error: ", "Execution error: ", "External error: "] {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    message.replace("datafusion.public.", "")
}

fn schema_message(error: &SchemaError, message: &str) -> String {
    match error {
        // The list of valid fields is long, and `DESCRIBE` prints it.
        SchemaError::FieldNotFound { field, valid_fields } => {
            // `t.x`: columns of other tables are no answer.
            let is_of = |c: &&Column| field.relation.is_none() || c.relation == field.relation;
            let names: Vec<_> = valid_fields.iter().filter(is_of).map(|c| c.name.as_str()).collect();
            let of = field.relation.as_ref().map(|of| format!(" in {of}")).unwrap_or_default();
            match nearest(&field.name, names.iter().copied()) {
                Some(near) => format!("there is no column {}{of}, did you mean {near}?", field.name),
                None if !of.is_empty() && (1..=FEW_COLUMNS).contains(&names.len()) => {
                    format!("there is no column {}{of}, which has {}", field.name, names.join(", "))
                }
                None => format!("there is no column {}{of}", field.name),
            }
        }
        _ => strip(message),
    }
}

fn sql_error(message: String) -> Error {
    let tables = || Table::ALL.iter().map(|t| t.name());
    let missing = message.strip_prefix("table '").and_then(|m| m.strip_suffix("' not found"));
    if let Some(missing) = missing {
        let near = nearest(missing, tables()).map(|t| format!("did you mean {t}? ")).unwrap_or_default();
        return Error::Sql {
            message: format!("there is no table {missing}"),
            hint: format!("{near}the tables are {}", tables().collect::<Vec<_>>().join(", ")),
        };
    }
    if let Some((name, near)) = message.strip_prefix("Invalid function '").and_then(|rest| rest.split_once('\'')) {
        let near = near.split('\'').nth(1);
        let near = near.and_then(|near| nearest(name, std::iter::once(near)));
        return Error::Sql {
            message: format!(
                "there is no function {name}{}",
                near.map_or(String::new(), |near| format!(", did you mean {near}?"))
            ),
            hint: "`\\df` in the shell lists the functions".into(),
        };
    }
    let hint = match message.starts_with("there is no column") {
        true => "`DESCRIBE table` lists a table's columns",
        false => "`hud-analyze sql --help` has examples",
    };
    Error::Sql { message, hint: hint.into() }
}

/// The candidate most similar to `name`, if any is similar.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::normalized_damerau_levenshtein(name, c), c))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// An error message as one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_errors_point_at_the_place() {
        let message = "the SQL does not parse: Expected: an SQL statement, found: selec at Line: 2, Column: 3";
        assert_eq!(
            place_in("select 1;\n  selec 1", message).as_deref(),
            Some("the SQL does not parse: Expected: an SQL statement, found: selec, in line 2 at \"selec 1\"")
        );
        let at_end = "Expected: an expression, found: EOF at Line: 1, Column: 8";
        assert_eq!(
            place_in("select", at_end).as_deref(),
            Some("Expected: an expression, found: EOF, in line 1 at its end")
        );
        let of = |message: &str| {
            let error = Error::Sql { message: message.into(), hint: String::new() };
            error.pointing_into("select ts,\n  foo(Tsx)\nfrom polls").to_string()
        };
        assert!(of("there is no column tsx, did you mean ts?").contains("no column tsx (line 2), did you mean ts?"));
        assert!(of("there is no function foo").contains("no function foo (line 2)"));
        assert!(of("Expected: ), found: EOF").contains("found: the end of the statement"));
        assert_eq!(line_of("select tsx", "there is no column tsx"), None, "a single line needs no number");
        assert_eq!(strip("a caused by b caused by Error during planning: it"), "it");
        for other in ["no place", "x at Line: a, Column: 1", "x at Line: 9, Column: 1", "x at Line: 0, Column: 0"] {
            assert_eq!(place_in("select", other), None, "{other}");
        }
    }
}
