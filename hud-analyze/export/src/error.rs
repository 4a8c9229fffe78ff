//! Errors of an export.

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
    /// The source of the rows failed.
    #[error("{0}")]
    Rows(Box<dyn std::error::Error + Send + Sync>),
    /// Rows do not have the table's schema.
    #[error("the rows are not as the table's schema says: {0}")]
    Schema(#[from] ArrowError),
    /// Writing the output failed.
    #[error("write: {0}")]
    Write(#[from] io::Error),
    /// More than a reader of the format can handle.
    #[error("{events} events are too many for {format} (at most {limit}); {advice}")]
    TooMany {
        /// The format.
        format: Format,
        /// Events in the window, at least.
        events: u64,
        /// The most that is allowed.
        limit: u64,
        /// What to do next.
        advice: &'static str,
    },
    /// An option that has no meaning in the format.
    #[error("{format} takes no {option}: {why}")]
    Option {
        /// The format.
        format: Format,
        /// The option.
        option: &'static str,
        /// Why it has none.
        why: &'static str,
    },
    /// There is nothing to export.
    #[error("there is nothing to draw: {0}")]
    Nothing(String),
}

/// [`core::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// For `map_err`: the source of the rows failed.
    pub fn rows(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Rows(error.into())
    }
}
