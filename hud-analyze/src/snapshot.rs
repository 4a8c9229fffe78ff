//! What a session holds at one moment, of a session that is being recorded too: each row once.
//!
//! A log is sealed under our eyes: first there is only the log, then both, then only the segment. So logs are opened
//! first, segments listed afterwards, and a segment wins over the log of its number. A log that was opened can be read
//! even when it has been sealed and removed since; its rows are then sorted and encoded as sealing would, in memory.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hud_common::session::{self, Cut, InflightReader, Manifest, SessionDir, Table, VerifiedFile, encode};

use crate::{
    catalog::many,
    error::{Error, Result},
};

/// Rows of a table that are sorted together.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its table.
    pub table: Table,
    /// Its number.
    pub number: u32,
    /// The sealed segment, or the log that it will be made from.
    pub path: PathBuf,
    /// Its size (bytes), sealed.
    pub size: u64,
    bytes: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// A file of this session.
    Sealed(SessionDir),
    /// Made from a log, as sealing would.
    Made(Bytes),
}

impl Segment {
    /// Whether it is still a log.
    pub fn is_log(&self) -> bool {
        matches!(self.bytes, Source::Made(_))
    }

    /// Whether it has gone away since it was listed.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(&self.bytes, Source::Sealed(dir) if dir.is_folder() && !dir.has_segment(self.table, self.number))
    }

    /// Opens it. What was listed is what is opened, or it is an error.
    pub fn open(&self) -> session::Result<VerifiedFile> {
        let file = match &self.bytes {
            Source::Sealed(dir) => dir.open_sealed(self.table, self.number)?,
            Source::Made(bytes) => VerifiedFile::over(Arc::new(bytes.clone()), &self.path)?,
        };
        if file.size() != self.size {
            let why = "its size has changed since the session was opened".into();
            return Err(session::Error::Damaged { path: self.path.clone(), why });
        }
        Ok(file)
    }
}

/// How long before it was looked at a folder must have changed last, for its time of change to tell of a later one: the
/// clock of a file system goes in steps.
const STEP: Duration = Duration::from_secs(1);

/// The folders of a session's tables, as they were before they were listed.
#[derive(Debug, Default)]
pub(crate) struct Folders(Vec<(PathBuf, Folder)>);

/// What a folder was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folder {
    /// Nothing was put into it or taken away since then.
    Changed(SystemTime),
    /// There is none: nothing of that table was recorded.
    Missing,
    /// It was changed so lately that a change after it may have the same time, or cannot be looked at.
    Uncertain,
}

impl Folders {
    pub(crate) fn of(dir: &SessionDir) -> Self {
        let now = SystemTime::now();
        let settled = |folder| match folder {
            Folder::Changed(then) if !now.duration_since(then).is_ok_and(|age| age > STEP) => Folder::Uncertain,
            other => other,
        };
        let paths = Table::ALL.iter().filter(|_| dir.is_folder()).map(|&table| dir.path().join(table.name()));
        Folders(paths.map(|path| (path.clone(), settled(Folder::of(&path)))).collect())
    }

    /// Whether nothing was put into them or taken away since, for certain.
    pub(crate) fn are_as_they_were(&self) -> bool {
        self.0.iter().all(|(path, then)| *then != Folder::Uncertain && Folder::of(path) == *then)
    }
}

impl Folder {
    fn of(path: &Path) -> Self {
        match path.metadata().and_then(|metadata| metadata.modified()) {
            Ok(changed) => Folder::Changed(changed),
            Err(error) if error.kind() == ErrorKind::NotFound => Folder::Missing,
            Err(_) => Folder::Uncertain,
        }
    }
}

/// What of a log could not be read.
pub(crate) type CutLog = (PathBuf, Cut);

/// Takes the snapshot: the segments by table and number, and what of logs could not be read.
pub(crate) fn take(dir: &SessionDir, manifest: &Manifest) -> Result<(Vec<Segment>, Vec<CutLog>)> {
    let logs = open_logs(dir, manifest)?;
    let mut segments = Vec::new();
    for &table in Table::ALL {
        for (number, path) in dir.sealed(table)? {
            if number < manifest.first_segment(table) {
                continue;
            }
            match dir.size_of(table, number) {
                Ok(size) => segments.push(Segment { table, number, path, size, bytes: Source::Sealed(dir.clone()) }),
                // Expired this very moment.
                Err(session::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut cuts = Vec::new();
    for (number, mut log) in logs {
        let (table, path) = (log.table(), log.path().to_path_buf());
        if segments.iter().any(|s| s.table == table && s.number == number) {
            continue;
        }
        let batches = log.by_ref().collect::<session::Result<Vec<_>>>()?;
        cuts.extend(log.cut().map(|cut| (path.clone(), cut.clone())));
        if let Some(made) = encode(table, &batches).map_err(session::Error::damaged(&path))? {
            let made = Bytes::from(made.data);
            let size = made.len() as u64;
            segments.push(Segment { table, number, path, size, bytes: Source::Made(made) });
        }
    }
    segments.sort_by_key(|s| (s.table, s.number));
    Ok((segments, cuts))
}

/// Opens the logs: those of events first, so that the names that they refer to are as new as they.
fn open_logs(dir: &SessionDir, manifest: &Manifest) -> Result<Vec<(u32, InflightReader)>> {
    let mut unsealed = dir.unsealed()?;
    unsealed.sort_by_key(|log| (!log.table.expires(), log.table, log.number));
    let mut logs = Vec::new();
    for log in unsealed {
        if log.number < manifest.first_segment(log.table) {
            continue;
        }
        match dir.open_log(log.table, log.number) {
            Ok(reader) => logs.push((log.number, reader)),
            // Sealed since: then the segment will be listed.
            Err(session::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(logs)
}

/// What a log that was cut has lost, in a line.
pub(crate) fn told(path: &Path, cut: &Cut) -> String {
    format!("{}: its last {} are lost: {}", path.display(), many(cut.bytes, "byte"), cut.why)
}

/// Whether an error of recovery only means that this session is not ours to write.
pub(crate) fn is_read_only(error: &session::Error) -> bool {
    matches!(error, session::Error::Io { source, .. }
        if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
}

impl From<&session::Error> for Error {
    fn from(error: &session::Error) -> Self {
        match error {
            session::Error::Damaged { path, why } | session::Error::Foreign { path, why } => {
                Error::Segment { path: path.clone(), why: why.clone() }
            }
            session::Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
                Error::Gone(path.clone())
            }
            other => Error::Query(other.to_string()),
        }
    }
}
