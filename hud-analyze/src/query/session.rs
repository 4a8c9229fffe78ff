//! One session: its manifest, its state, and its segments and logs at one instant.

use std::{os::unix::fs::MetadataExt as _, sync::Arc};

use datafusion::error::DataFusionError;
use hud_common::session::{self, Manifest, SessionDir, Table};

use crate::{
    error::{Error, Result},
    query::segment_table::{TableSegments, external},
    source::{
        location::Found,
        recovery::{State, open_state},
        segment_cache::SegmentCache,
        snapshot::{self, Folders, Segment},
    },
};

/// A session as it was when it was opened.
pub struct Session {
    dir: SessionDir,
    manifest: Manifest,
    state: State,
    segments: Vec<Segment>,
    folders: Folders,
    notices: Vec<String>,
    cache: Arc<SegmentCache>,
    tables: Vec<Arc<TableSegments>>,
}

impl Session {
    pub(crate) fn open(found: Found) -> Result<Self> {
        let Found { dir, mut manifest } = found;
        let mut notices = Vec::new();
        let (state, segments, cuts, folders) = loop {
            let root = identity(&dir);
            if dir.is_folder() {
                manifest = Manifest::read(dir.path())?;
            }
            notices.clear();
            let state = open_state(&dir, &mut manifest, &mut notices)?;
            let folders = Folders::of(&dir);
            let (segments, cuts) = snapshot::take(&dir, &manifest)?;
            // Compaction replaces the folder: then segments of the old and the new one may have been listed.
            if identity(&dir) == root {
                break (state, segments, cuts, folders);
            }
        };
        // While a recorder writes, the last frame of a log may be incomplete.
        let lost = cuts.iter().filter(|(_, cut)| state != State::Recording || !cut.is_torn);
        notices.extend(lost.map(|(path, cut)| snapshot::loss(path, cut)));
        // An empty file has no footer, and is no segment.
        if let Some(segment) = segments.iter().find(|s| s.size == 0) {
            return Err(Error::Segment { path: segment.path.clone(), why: "it is empty".into() });
        }
        let cache = Arc::<SegmentCache>::default();
        let labels = [manifest.host.clone(), manifest.id.clone()];
        let of = |table| segments.iter().filter(|s| s.table == table).cloned().collect();
        let table = |&table| Arc::new(TableSegments::new(table, labels.clone(), of(table), Arc::clone(&cache)));
        let tables = Table::ALL.iter().map(table).collect();
        Ok(Session { dir, manifest, state, segments, folders, notices, cache, tables })
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its files.
    pub fn dir(&self) -> &SessionDir {
        &self.dir
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its segments when it was opened, by table and number.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Recovery and losses, as text for the user.
    pub(crate) fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The first error of a segment that could not be read.
    pub(crate) fn first_error(&self) -> Option<Arc<session::Error>> {
        self.cache.first_error()
    }

    /// A segment that has disappeared since the session was opened.
    pub(crate) fn missing_segment(&self) -> Option<&Segment> {
        // One stat for each folder instead of one for each of thousands of files.
        let segments = if self.folders.are_unchanged() { &[] } else { self.segments.as_slice() };
        segments.iter().find(|segment| segment.is_missing())
    }

    /// Estimated number of rows of a table whose key lies in `[from, to]`.
    pub(crate) fn rows_within(&self, table: Table, from: i64, to: i64) -> Result<u64, DataFusionError> {
        self.table(table).map_or(Ok(0), |segments| segments.rows_within(from, to)).map_err(external)
    }

    /// The segments of a table.
    pub(crate) fn table(&self, table: Table) -> Option<&Arc<TableSegments>> {
        self.tables.iter().find(|segments| segments.table() == table)
    }
}

/// Device and inode of the session's folder, which a rename does not change.
fn identity(dir: &SessionDir) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(dir.path()).ok().filter(|_| dir.is_folder())?;
    Some((metadata.dev(), metadata.ino()))
}
