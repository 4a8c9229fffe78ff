//! What can go wrong with an export.

use std::io;

use arrow::error::ArrowError;
use hud_common::session;

use crate::Format;

/// A session could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session's files could not be read.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// Whoever gives the rows could not.
    #[error("{0}")]
    Rows(Box<dyn std::error::Error + Send + Sync>),
    /// Rows are not of the table's schema.
    #[error("the rows are not as the table's schema says: {0}")]
    Schema(#[from] ArrowError),
    /// The system refused to take what was written.
    #[error("write: {0}")]
    Write(#[from] io::Error),
    /// More than a reader of the format copes with.
    #[error("{events} events are too many for {format} (at most {limit}); {advice}")]
    TooMany {
        /// The format.
        format: Format,
        /// Events in the window, at least.
        events: u64,
        /// At most so many.
        limit: u64,
        /// What to do next.
        advice: &'static str,
    },
    /// An option that means nothing in the format.
    #[error("{format} takes no {option}: {why}")]
    Option {
        /// The format.
        format: Format,
        /// The option.
        option: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// There is nothing to show.
    #[error("there is nothing to draw: {0}")]
    Nothing(String),
}

/// [`core::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// For `map_err`: whoever gives the rows could not.
    pub fn rows(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Rows(error.into())
    }
}
