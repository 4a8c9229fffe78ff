//! What can go wrong with a session's files.

use std::{
    format, io,
    path::{Path, PathBuf},
    string::{String, ToString},
};

/// A session's file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: "create", "read", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something at the place where a new session should go.
    #[error("{path} exists already; name a new folder", path = .0.display())]
    Exists(PathBuf),
    /// No manifest.
    #[error("{path} is no hud session: {why}", path = path.display())]
    NotASession {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A newer hud wrote it.
    #[error(
        "{path} has session format {found}, this hud reads up to {known}; use the hud that recorded it, or a newer one",
        path = path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Another process records it, or recovers it.
    #[error("{path} is in use: another hud records or recovers it", path = .0.display())]
    InUse(PathBuf),
    /// A file's content is not what its name says.
    #[error("{path} is damaged: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        why: String,
    },
    /// A segment or a log is of another session, table or number than its name says.
    #[error("{path} is damaged: {why}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Which one it is.
        why: String,
    },
}

/// [`core::result::Result`] with this module's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// For `map_err`: the system refused `action` on `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// Whether the system refused because a disk or a quota is full: room may come again.
    pub fn is_no_space(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// For `map_err`: `path` does not decode. One line, whatever the decoder said.
    pub fn damaged<E: core::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |why| Error::Damaged { path, why: one_line(&why.to_string()) }
    }
}

fn one_line(text: &str) -> String {
    match text.split_once('\n') {
        Some((first, _)) => format!("{first} …"),
        None => text.to_string(),
    }
}
