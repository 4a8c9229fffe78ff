//! Sessions in folders of their own, written as the recorder writes them.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;
use hud_common::session::{
    Clock, Columns, FORMAT_VERSION, InflightLog, Manifest, Options, SessionDir, SessionLock, seal,
};
use tempfile::TempDir;

/// The start of made-up sessions: 2023-11-14T22:13:20Z.
pub const T0: i64 = 1_700_000_000 * SECOND;
/// A second in nanoseconds.
pub const SECOND: i64 = 1_000_000_000;
/// A millisecond in nanoseconds.
pub const MS: i64 = 1_000_000;

/// The manifest of a complete session of 10 s.
pub fn manifest() -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        id: "made-up".into(),
        hud_version: "0.1.0".into(),
        host: "nowhere".into(),
        kernel: "6.0".into(),
        cpus: 2,
        pid: 100,
        exe: "/srv/app".into(),
        start: T0,
        end: Some(T0 + 10 * SECOND),
        end_reason: Some("made up".into()),
        options: Options { freq: 100, polls: "exact".into(), ..Options::default() },
        clock: Clock { mono: 5 * SECOND, real: T0 },
        complete: true,
        ..Manifest::default()
    }
}

/// Rows as one batch.
pub fn batch<C: Columns>(rows: impl IntoIterator<Item = C::Row>) -> RecordBatch {
    let mut columns = C::default();
    rows.into_iter().for_each(|row| columns.push(row));
    columns.finish()
}

/// A session in a temporary folder.
#[derive(Debug)]
pub struct Session {
    /// The folder of the session's folder.
    pub tmp: TempDir,
    /// The session's folder, without symbolic links.
    pub path: PathBuf,
    /// The same as the format's type.
    pub dir: SessionDir,
    most_rows: usize,
}

impl Session {
    /// An empty session.
    pub fn new(manifest: &Manifest) -> Self {
        let (tmp, path) = folder();
        let (dir, lock) = SessionDir::create(&path, manifest).unwrap();
        drop(lock);
        Session { tmp, path, dir, most_rows: usize::MAX }
    }

    /// A copy of any session.
    pub fn copy_of(session: &Path) -> Self {
        let (tmp, path) = folder();
        copy_folder(session, &path);
        Session { dir: SessionDir::at(&path), tmp, path, most_rows: usize::MAX }
    }

    /// Writes logs in batches of this number of rows, the last rows first: the recorder writes events in the order of
    /// their ends.
    #[must_use]
    pub fn in_batches(self, most_rows: usize) -> Self {
        Session { most_rows, ..self }
    }

    /// Seals rows as another segment of their table.
    pub fn add<C: Columns>(&self, rows: impl IntoIterator<Item = C::Row>) -> &Self {
        let number = self.log::<C>(rows);
        seal(&self.dir, C::TABLE, number).unwrap();
        self
    }

    /// Leaves rows in a log. Opening the session recovers it, unless the session is locked.
    pub fn log<C: Columns>(&self, rows: impl IntoIterator<Item = C::Row>) -> u32 {
        let number = self.dir.next_number(C::TABLE).unwrap();
        let mut log = InflightLog::create(&self.dir, C::TABLE, number).unwrap();
        let mut rows: Vec<_> = rows.into_iter().collect();
        loop {
            let last = rows.split_off(rows.len().saturating_sub(self.most_rows));
            log.append(&batch::<C>(last)).unwrap();
            if rows.is_empty() {
                return log.finish().unwrap().1;
            }
        }
    }

    /// The lock that a recorder holds while it runs.
    pub fn lock(&self) -> SessionLock {
        self.dir.lock().unwrap()
    }
}

fn folder() -> (TempDir, PathBuf) {
    let tmp = TempDir::new().unwrap();
    // `/tmp` may be a link.
    let path = fs::canonicalize(tmp.path()).unwrap().join("session");
    (tmp, path)
}

/// Copies a folder and those in it.
pub fn copy_folder(from: &Path, to: &Path) {
    DirBuilder::new().mode(0o700).recursive(true).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// The recording of a real program that the repository contains.
pub fn recording() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hud-analyze/tests/data/session");
    let path = fs::canonicalize(&path).unwrap_or(path);
    assert!(path.join("manifest.json").exists(), "{} is missing", path.display());
    path
}
