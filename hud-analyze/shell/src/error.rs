//! Errors of the shell. Every message is one line, safe for a terminal.

use std::io;

/// [`core::result::Result`] with this module's [`ShellError`].
pub type Result<T, E = ShellError> = core::result::Result<T, E>;

/// Maximum length of a message in characters: some errors contain a whole plan.
const LONGEST: usize = 2000;

/// A statement or a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The database rejected the statement, or it failed.
    #[error("{0}")]
    Query(String),
    /// The user cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// A command is unknown or lacks an argument.
    #[error("{message}; {hint}")]
    Usage {
        /// The fault.
        message: String,
        /// The correct usage.
        hint: String,
    },
    /// A file, a program or the terminal failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// The attempted action.
        action: String,
        /// The system's error.
        source: io::Error,
    },
    /// One of the above, in a script.
    #[error("{place}: {source}")]
    At {
        /// The script and the line that the statement begins on.
        place: String,
        /// The error there.
        source: Box<ShellError>,
    },
}

impl ShellError {
    /// An [`Io`](Self::Io) for [`core::result::Result::map_err`].
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| ShellError::Io { action: action.into(), source }
    }

    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        ShellError::Usage { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn at(self, place: &str, line: usize) -> Self {
        match self {
            ShellError::At { .. } => self,
            other => ShellError::At { place: format!("{place}:{line}"), source: Box::new(other) },
        }
    }

    /// Whether the user cancelled it.
    pub fn is_cancelled(&self) -> bool {
        match self {
            ShellError::Cancelled => true,
            ShellError::At { source, .. } => source.is_cancelled(),
            _ => false,
        }
    }

    /// The message as one line that is safe for a terminal: quoted text of the session is sanitized.
    pub fn line(&self) -> String {
        one_line(&self.to_string())
    }
}

/// `text` with its lines joined, sanitized and cut.
pub(crate) fn one_line(text: &str) -> String {
    let joined = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let mut cleaned = hud_common::clean(&joined).into_owned();
    if let Some((end, _)) = cleaned.char_indices().nth(LONGEST) {
        cleaned.truncate(end);
        cleaned.push('…');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_harmless_line() {
        let error = ShellError::Query("no column \x1b[2J\n  in:\r\n\n polls".into()).at("a.sql", 3).at("b.sql", 9);
        assert_eq!(error.line(), "a.sql:3: no column \\x1b[2J in: polls");
        assert_eq!(ShellError::Query("x".repeat(9999)).line().chars().count(), LONGEST + 1);
        assert!(ShellError::Cancelled.at("a", 1).is_cancelled());
    }
}
