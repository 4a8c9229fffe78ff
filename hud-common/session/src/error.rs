//! Errors of reading and writing sessions.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A session's file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// The attempted action: "create", "read", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something exists at the path of a new session.
    #[error("{path} exists already; name a new folder", path = .0.display())]
    Exists(PathBuf),
    /// No manifest.
    #[error("{path} is no hud session: {why}", path = path.display())]
    NotASession {
        /// The folder.
        path: PathBuf,
        /// The defect.
        why: String,
    },
    /// Written by a newer hud.
    #[error(
        "{path} has session format {found}, this hud reads up to {known}; use the hud that recorded it, or a newer one",
        path = path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version that this hud reads.
        known: u32,
    },
    /// Another process records or recovers it.
    #[error("{path} is in use: another hud records or recovers it", path = .0.display())]
    InUse(PathBuf),
    /// The file cannot be decoded, or a checksum does not match.
    #[error("{path} is damaged: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The defect.
        why: String,
    },
    /// A segment or a log belongs to another session, table or number.
    #[error("{path} is damaged: {why}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The place that it declares.
        why: String,
    },
}

/// [`core::result::Result`] with this module's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// For `map_err`: `action` failed on `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// Whether the disk or a quota is full, which may be temporary.
    pub fn is_no_space(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// For `map_err`: `path` does not decode. Keeps the first line of the decoder's error.
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
