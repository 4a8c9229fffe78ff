//! Errors of compaction and repair.

use std::{
    io,
    path::{Path, PathBuf},
};

use hud_common::session;

/// [`core::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// A session could not be repaired or compacted. It is unchanged, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its files could not be read or written; a session that is being recorded is [`session::Error::InUse`].
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A system call failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// The action: "link", "rename", …
        action: &'static str,
        /// Its object.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The output exists.
    #[error("{path} already exists; name a new folder", path = .0.display())]
    Exists(PathBuf),
    /// The path has no parent folder.
    #[error("{path} has no parent folder, in which the copy would be made", path = .0.display())]
    NoParent(PathBuf),
    /// The disk is too full for a copy.
    #[error("{path} has {free} bytes free and {needed} are needed; free disk space, or name a folder on another disk with --output", path = path.display())]
    NoRoom {
        /// The folder of the copy.
        path: PathBuf,
        /// Bytes that the copy may take.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
    /// Another file has the name of the working folder.
    #[error("{path} has the name of hud's working folder but was not created by hud; move it elsewhere", path = .0.display())]
    InTheWay(PathBuf),
    /// An entry of the session's folder that cannot be copied.
    #[error("{path} is neither a file nor a folder; move it out of the session", path = .0.display())]
    Strange(PathBuf),
    /// The session is damaged or incomplete.
    #[error("{path} cannot be compacted: {why}; run `hud-analyze repair` first", path = path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// A newer hud wrote columns that this version would drop.
    #[error("{path} has a column {column} that is unknown to this version of hud; use the version that recorded it, or a newer one", path = path.display())]
    NewerColumn {
        /// The segment.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// The copy differs from the session. It was removed.
    #[error("the copy of {table} differs from the original ({why}), and was removed; please report this bug")]
    Differs {
        /// The table.
        table: &'static str,
        /// The difference.
        why: String,
    },
    /// Arrow failed.
    #[error("{path}: {why}", path = path.display())]
    Encode {
        /// The file to be written.
        path: PathBuf,
        /// Arrow's error.
        why: String,
    },
    /// It was cancelled.
    #[error("cancelled; the session is unchanged")]
    Cancelled,
}

impl Error {
    /// For `map_err`: an error of the system, with the action that failed.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The same, for errors of rustix.
    pub(crate) fn os(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_path_buf();
        move |errno| Error::Io { action, path, source: errno.into() }
    }

    /// For `map_err`: an error of Arrow when writing `path`.
    pub(crate) fn encode<E: core::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |why| Error::Encode { path, why: why.to_string() }
    }
}
