//! Segments that stay open, and why one could not be read: DataFusion's own errors do not name the file.

use std::{
    collections::HashMap,
    ffi::OsString,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use hud_common::session::{self, VerifiedFile};
use parquet::{
    arrow::arrow_reader::ArrowReaderMetadata,
    file::metadata::{
        PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
    },
};
use rustix::process::{Resource, Rlimit};

use crate::{progress::Progress, snapshot::Segment};

/// Segments that stay open, with their footers and page indexes: 50 kB each, and there may be more of them than descriptors,
/// of which half stay free.
static OPEN: LazyLock<usize> = LazyLock::new(|| {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(64, 1 << 10)
});

/// Lets this process open as many files as the system lets it: of a long session a query reads hundreds of segments, again
/// and again.
pub(crate) fn raise_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // Where it is not granted, segments are opened anew.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) file: VerifiedFile,
    pub(crate) metadata: ArrowReaderMetadata,
}

/// Open segments by their paths, and when each was asked for last, by a clock that counts.
#[derive(Debug, Default)]
struct Open {
    segments: HashMap<OsString, (Opened, u64)>,
    clock: u64,
}

impl Open {
    fn find(&mut self, segment: &Segment) -> Option<Opened> {
        self.clock += 1;
        let (opened, used) = self.segments.get_mut(segment.path.as_os_str())?;
        *used = self.clock;
        Some(opened.clone())
    }

    fn put(&mut self, segment: &Segment, opened: Opened) {
        self.segments.insert(segment.path.clone().into_os_string(), (opened, self.clock));
        if self.segments.len() > *OPEN {
            // Half of them at once, so that this is seldom done.
            let mut times: Vec<u64> = self.segments.values().map(|(_, used)| *used).collect();
            let middle = times.len() / 2;
            let (_, oldest_kept, _) = times.select_nth_unstable(middle);
            let oldest_kept = *oldest_kept;
            self.segments.retain(|_, (_, used)| *used >= oldest_kept);
        }
    }
}

/// The segments opened last.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// What a query waits for before it begins.
    pub(crate) progress: Progress,
    open: Mutex<Open>,
    failed: Mutex<Option<Arc<session::Error>>>,
}

impl Default for Shelf {
    fn default() -> Self {
        Shelf { progress: Progress::new("segments opened"), open: Mutex::default(), failed: Mutex::default() }
    }
}

impl Shelf {
    /// Why a segment could not be read, if one could not.
    pub(crate) fn failure(&self) -> Option<Arc<session::Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the first reason, and gives it back for an error of another kind.
    pub(crate) fn fail(&self, error: session::Error) -> Arc<session::Error> {
        let error = Arc::new(error);
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Arc::clone(&error));
        error
    }

    /// Opens a segment, or finds it open.
    pub(crate) fn opened(&self, segment: &Segment) -> session::Result<Opened> {
        let shelf = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = shelf().find(segment) {
            return Ok(found);
        }
        let opened = open(segment)?;
        shelf().put(segment, opened.clone());
        Ok(opened)
    }
}

/// Reads a segment's footer, without its page indexes.
pub(crate) fn footer(segment: &Segment) -> session::Result<ParquetMetaData> {
    let file = segment.open()?;
    // What nobody looks at is not decoded.
    let options = ParquetMetaDataOptions::new()
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let mut reader =
        ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).with_metadata_options(Some(options));
    reader.try_parse(&file).and_then(|()| reader.finish()).map_err(session::Error::damaged(&segment.path))
}

/// Opens a segment, with its page indexes.
fn open(segment: &Segment) -> session::Result<Opened> {
    let file = segment.open()?;
    let metadata = session::footer(&file, PageIndexPolicy::Optional)?;
    Ok(Opened { file, metadata })
}
