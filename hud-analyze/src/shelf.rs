//! Segments that stay open, and why one could not be read: DataFusion's own errors do not name the file.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use hud_common::session::{self, VerifiedFile};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    file::metadata::{
        PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
    },
};

use crate::snapshot::Segment;

/// Segments that stay open, with their footers and page indexes: 50 kB each, and there may be more of them than
/// descriptors.
const OPEN: usize = 128;

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) file: VerifiedFile,
    pub(crate) metadata: ArrowReaderMetadata,
}

/// The segments opened last.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    open: Mutex<VecDeque<Opened>>,
    failed: Mutex<Option<Arc<session::Error>>>,
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
        {
            let mut open = shelf();
            if let Some(place) = open.iter().position(|opened| opened.file.path() == segment.path)
                && let Some(found) = open.remove(place)
            {
                open.push_front(found.clone());
                return Ok(found);
            }
        }
        let opened = open(segment)?;
        let mut open = shelf();
        open.push_front(opened.clone());
        open.truncate(OPEN);
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
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::load(&file, options).map_err(session::Error::damaged(&segment.path))?;
    Ok(Opened { file, metadata })
}
