//! What can go wrong with a question, and what to do then. Every message is one line.

use std::{io, path::PathBuf};

use datafusion::{arrow::error::ArrowError, common::SchemaError, error::DataFusionError};
use hud_common::session::{self, Table};

/// [`core::result::Result`] with this module's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// A question could not be answered.
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
        /// What the decoder said.
        why: String,
    },
    /// A segment is no longer there.
    #[error("{path} has gone away while it was read; ask again", path = .0.display())]
    Gone(PathBuf),
    /// The SQL is wrong.
    #[error("{message}; {hint}")]
    Sql {
        /// What is wrong with it.
        message: String,
        /// What may help.
        hint: String,
    },
    /// The SQL is right and still it failed.
    #[error("the query failed: {0}")]
    Query(String),
    /// The arguments contradict each other or the session.
    #[error("{message}; {hint}")]
    Usage {
        /// What is wrong with them.
        message: String,
        /// What to give instead.
        hint: String,
    },
    /// A session is not whole.
    #[error("{session} is not proven: {why}", session = session.display())]
    Unproven {
        /// The folder.
        session: PathBuf,
        /// The first reason.
        why: String,
    },
    /// A comparison came out as it must not.
    #[error("{condition}{}", if *.more > 0 { format!(", and {more} more") } else { String::new() })]
    Differs {
        /// The first condition that is met.
        condition: String,
        /// How many others are.
        more: usize,
    },
    /// A file that the user named, or an output.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// A session could not be repaired or compacted.
    #[error("{0}")]
    Upkeep(String),
    /// An export could not be made.
    #[error("{0}")]
    Export(String),
    /// A signal ended it.
    #[error("ended by signal {0}")]
    Signal(i32),
    /// The user cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// The shell has said all of it in a line.
    #[error("{0}")]
    Shell(String),
    /// There is no cockpit.
    #[error("cannot {0}")]
    Replay(String),
    /// A view in the program is at fault.
    #[error("hud's own view {view} is wrong: {why}; please report this")]
    View {
        /// Its name.
        view: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// The exit code: 2 for wrong arguments, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } => 2,
            Error::Cancelled => 130,
            Error::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            _ => 1,
        }
    }

    /// For `map_err`: the system refused `action`.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Error::Io { action, source }
    }

    /// Whether the reader of our output went away: no failure, only the end.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
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
            ArrowError::IoError(_, source) => Error::Io { action: "write the answer".into(), source },
            other => Error::Query(one_line(&other.to_string())),
        }
    }
}

fn strip(message: &str) -> String {
    let mut message = message;
    for prefix in ["Error during planning: ", "Schema error: ", "Execution error: ", "External error: "] {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    message.replace("datafusion.public.", "")
}

fn schema_message(error: &SchemaError, message: &str) -> String {
    match error {
        // The list of valid fields is long; the table's own columns are one command away.
        SchemaError::FieldNotFound { field, valid_fields } => {
            let near = nearest(&field.name, valid_fields.iter().map(|c| c.name.as_str()));
            match near {
                Some(near) => format!("there is no column {}, did you mean {near}?", field.name),
                None => format!("there is no column {}", field.name),
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
    Error::Sql { message, hint: "`DESCRIBE table` lists a table's columns".into() }
}

/// The candidate most like `name`, if any is like it at all.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::normalized_damerau_levenshtein(name, c), c))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// Whatever an inner layer said, on one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
