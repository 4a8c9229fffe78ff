//! What can go wrong with the upkeep of a session.

use std::{
    io,
    path::{Path, PathBuf},
};

use hud_common::session;

/// [`core::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// A session could not be repaired or compacted. It is as it was, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its files could not be read or written; a session that is being recorded is [`session::Error::InUse`].
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: "link", "rename", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something where the result should go.
    #[error("{path} exists already; name a new folder", path = .0.display())]
    Exists(PathBuf),
    /// A folder's name has no room for another one beside it.
    #[error("{path} has no folder around it, in which its copy could be made", path = .0.display())]
    NoParent(PathBuf),
    /// The disk has no room for a copy.
    #[error("{path} has {free} bytes free and {needed} are needed; make room, or name a folder on another disk by --output", path = path.display())]
    NoRoom {
        /// Where the copy would be made.
        path: PathBuf,
        /// What it takes at most.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// A file that belongs to no session, where this crate keeps what it works at.
    #[error("{path} is in the way, and was not made by hud; move it elsewhere", path = .0.display())]
    InTheWay(PathBuf),
    /// Something in the session's folder that cannot be copied.
    #[error("{path} is neither a file nor a folder; move it out of the session", path = .0.display())]
    Strange(PathBuf),
    /// The session is not whole, or not proven.
    #[error("{path} cannot be compacted: {why}; `hud-analyze repair` makes it whole", path = path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer hud wrote columns that this one would lose.
    #[error("{path} has a column {column} that this hud does not know; use the hud that recorded it, or a newer one", path = path.display())]
    NewerColumn {
        /// The segment.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// The copy has not the rows of the session. It was thrown away.
    #[error(
        "the copy of {table} differs from what it was made from ({why}); nothing was changed. This is a fault of hud"
    )]
    Differs {
        /// The table.
        table: &'static str,
        /// How.
        why: String,
    },
    /// Arrow could not do what was asked of it.
    #[error("{path}: {why}", path = path.display())]
    Encode {
        /// What was being made.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// The one who waits does so no more.
    #[error("cancelled; the session is as it was")]
    Cancelled,
}

impl Error {
    /// For `map_err`: the system refused `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The same, of rustix.
    pub(crate) fn os(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_path_buf();
        move |errno| Error::Io { action, path, source: errno.into() }
    }

    /// For `map_err`: Arrow could not make `path`.
    pub(crate) fn encode<E: core::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |why| Error::Encode { path, why: why.to_string() }
    }
}
