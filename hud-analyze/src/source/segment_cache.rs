//! Open segments with their footers and page indexes, and the errors of those that could not be read: DataFusion's own
//! errors do not name the file.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use hud_common::session::{self, Table, VerifiedFile};
use parquet::{
    arrow::arrow_reader::ArrowReaderMetadata,
    file::metadata::{
        PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
    },
};
use rustix::process::{Resource, Rlimit};

use crate::{progress::Progress, source::snapshot::Segment};

/// Segments that a query keeps open: at most half of the file descriptors that the process may have, and 1,024, as the
/// footer and page index of one take 50 kB.
static CAPACITY: LazyLock<usize> = LazyLock::new(|| {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(64, 1 << 10)
});
/// Distinct errors that are kept.
const MOST_ERRORS: usize = 100;

/// Raises the limit of open files to the hard limit: a query over a long session reads hundreds of segments repeatedly.
pub(crate) fn raise_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // If it is refused, segments are opened more often.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: VerifiedFile,
    pub(crate) metadata: ArrowReaderMetadata,
}

/// Open segments by table and number, with the time of last use on a counter.
#[derive(Debug, Default)]
struct Entries {
    segments: HashMap<(Table, u32), (OpenSegment, u64)>,
    clock: u64,
}

impl Entries {
    fn find(&mut self, key: (Table, u32)) -> Option<OpenSegment> {
        self.clock += 1;
        let (opened, used) = self.segments.get_mut(&key)?;
        *used = self.clock;
        Some(opened.clone())
    }

    fn put(&mut self, key: (Table, u32), opened: OpenSegment, capacity: usize) {
        self.segments.insert(key, (opened, self.clock));
        if self.segments.len() > capacity {
            // Evicts half of them at once, so that eviction is rare.
            let mut times: Vec<u64> = self.segments.values().map(|(_, used)| *used).collect();
            let middle = times.len() / 2;
            let (_, oldest_kept, _) = times.select_nth_unstable(middle);
            let oldest_kept = *oldest_kept;
            self.segments.retain(|_, (_, used)| *used >= oldest_kept);
        }
    }
}

/// The most recently used segments of one session.
#[derive(Debug)]
pub(crate) struct SegmentCache {
    /// Progress of opening segments, which a query waits for before it starts.
    pub(crate) progress: Progress,
    capacity: usize,
    entries: Mutex<Entries>,
    errors: Mutex<Vec<Arc<session::Error>>>,
}

impl Default for SegmentCache {
    fn default() -> Self {
        Self::with_capacity(*CAPACITY)
    }
}

impl SegmentCache {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let progress = Progress::new("segments opened");
        SegmentCache { progress, capacity, entries: Mutex::default(), errors: Mutex::default() }
    }

    /// The segment of this table and number; `open` opens it if it is not cached.
    pub(crate) fn get(
        &self,
        table: Table,
        number: u32,
        open: impl FnOnce() -> session::Result<VerifiedFile>,
    ) -> session::Result<OpenSegment> {
        let entries = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = entries().find((table, number)) {
            return Ok(found);
        }
        let file = open()?;
        let metadata = session::footer(&file, PageIndexPolicy::Optional)?;
        let opened = OpenSegment { file, metadata };
        entries().put((table, number), opened.clone(), self.capacity);
        Ok(opened)
    }

    /// Segments that could not be read, and why, in the order of detection.
    pub(crate) fn errors(&self) -> Vec<Arc<session::Error>> {
        self.locked_errors().clone()
    }

    /// The first of them.
    pub(crate) fn first_error(&self) -> Option<Arc<session::Error>> {
        self.locked_errors().first().cloned()
    }

    /// Keeps an error, and returns it for an error of another type.
    pub(crate) fn record(&self, error: session::Error) -> Arc<session::Error> {
        let error = Arc::new(error);
        let mut errors = self.locked_errors();
        if errors.len() < MOST_ERRORS && !errors.iter().any(|known| known.to_string() == error.to_string()) {
            errors.push(Arc::clone(&error));
        }
        error
    }

    fn locked_errors(&self) -> MutexGuard<'_, Vec<Arc<session::Error>>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a segment's footer without its page indexes.
pub(crate) fn footer(segment: &Segment) -> session::Result<ParquetMetaData> {
    let file = segment.open()?;
    // Statistics that nothing reads are not decoded.
    let options = ParquetMetaDataOptions::new()
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let mut reader =
        ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).with_metadata_options(Some(options));
    reader.try_parse(&file).and_then(|()| reader.finish()).map_err(session::Error::damaged(&segment.path))
}
