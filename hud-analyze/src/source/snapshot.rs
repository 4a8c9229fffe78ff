//! The segments and logs of a session at one instant, with each row once, while a recorder may be writing it.
//!
//! When a log is sealed, first only the log exists, then both, then only the segment. So logs are opened before segments are
//! listed, and a segment takes precedence over the log of its number. An open log can be read after it was removed; its rows
//! are sorted and encoded in memory, as sealing does.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hud_common::session::{self, Cut, InflightReader, Manifest, SessionDir, Table, VerifiedFile, encode};

use crate::{error::Result, human::many};

/// A segment, or a log encoded as one.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its table.
    pub table: Table,
    /// Its number.
    pub number: u32,
    /// The file: the segment, or the log.
    pub path: PathBuf,
    /// The segment's size in bytes.
    pub size: u64,
    bytes: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// A file of the session.
    Sealed(SessionDir),
    /// A segment encoded from a log.
    Encoded(Bytes),
}

impl Segment {
    /// Whether it is a log.
    pub fn is_log(&self) -> bool {
        matches!(self.bytes, Source::Encoded(_))
    }

    /// Whether it has disappeared since it was listed.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&self.bytes, Source::Sealed(dir) if dir.is_folder() && !dir.has_segment(self.table, self.number))
    }

    /// Opens it; fails if it is not the file that was listed.
    pub fn open(&self) -> session::Result<VerifiedFile> {
        let file = match &self.bytes {
            Source::Sealed(dir) => dir.open_sealed(self.table, self.number)?,
            Source::Encoded(bytes) => VerifiedFile::over(Arc::new(bytes.clone()), &self.path)?,
        };
        if file.size() != self.size {
            let why = "its size has changed since the session was opened".into();
            return Err(session::Error::Damaged { path: self.path.clone(), why });
        }
        Ok(file)
    }
}

/// Minimum age of a folder's last change for a later change to have another timestamp: file systems store times in steps.
const STEP: Duration = Duration::from_secs(1);

/// Modification times of the folders of a session's tables, from before they were listed.
#[derive(Debug, Default)]
pub(crate) struct Folders(Vec<(PathBuf, Folder)>);

/// Modification time of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folder {
    /// Its last change.
    Changed(SystemTime),
    /// It does not exist: no row of the table was recorded.
    Missing,
    /// It changed so recently that a later change may have the same time, or it cannot be read.
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

    /// Whether no file was certainly added or removed since.
    pub(crate) fn are_unchanged(&self) -> bool {
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

/// A log, and its end that could not be read.
pub(crate) type CutLog = (PathBuf, Cut);

/// Lists the segments by table and number, and the logs whose end could not be read.
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
                // It expired after it was listed.
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
            segments.push(Segment { table, number, path, size, bytes: Source::Encoded(made) });
        }
    }
    segments.sort_by_key(|s| (s.table, s.number));
    Ok((segments, cuts))
}

/// Opens the logs, those of events first, so that the names that they refer to are at least as new.
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
            // It was sealed after it was listed: then its segment is listed below.
            Err(session::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(logs)
}

/// The loss of a log whose end could not be read, as text.
pub(crate) fn loss(path: &Path, cut: &Cut) -> String {
    format!("{}: its last {} are lost: {}", path.display(), many(cut.bytes, "byte"), cut.why)
}
