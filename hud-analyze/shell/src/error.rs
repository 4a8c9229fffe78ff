//! What can go wrong in the shell. Every message is one line, fit for a terminal.

use std::io;

/// [`core::result::Result`] with this module's [`ShellError`].
pub type Result<T, E = ShellError> = core::result::Result<T, E>;

/// The longest message that is shown, in characters: some errors quote a whole plan.
const LONGEST: usize = 2000;

/// A statement or a command was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The database says that the statement is wrong, or that it failed.
    #[error("{0}")]
    Query(String),
    /// The user cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// A command is unknown or lacks something.
    #[error("{message}; {hint}")]
    Usage {
        /// What is wrong with it.
        message: String,
        /// What to give instead.
        hint: String,
    },
    /// A file, a program or the terminal did not do.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// One of the above, in a script.
    #[error("{place}: {source}")]
    At {
        /// The script and the line that the statement begins on.
        place: String,
        /// What went wrong there.
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
            // The innermost script is the one to look at.
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

    /// The message as one line that a terminal may be given: whatever it quotes of the session is made harmless.
    pub fn line(&self) -> String {
        one_line(&self.to_string())
    }
}

/// `text` with its lines joined, cleaned and cut.
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
