//! Reads selected rows of a segment with one zstd context per thread.
//!
//! parquet's reader creates a compression and a decompression context for each column of each segment. In a jump, which reads
//! a few pages of forty columns, that took a quarter of the time. So the column chunks are declared uncompressed to parquet,
//! and its pages are decompressed here.

use std::{cell::RefCell, ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use hud_common::session::VerifiedFile;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, RowGroups, RowSelection},
        parquet_to_arrow_field_levels,
    },
    basic::Compression,
    column::page::{Page, PageIterator, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
        serialized_reader::SerializedPageReader,
    },
};
use zstd::{bulk::Decompressor, zstd_safe::get_frame_content_size};

/// Maximum size of a decompressed page: it contains at most 20,000 rows, or is a dictionary.
const MOST_BYTES: usize = 64 << 20;

/// Rows per batch.
const BATCH: usize = 8 << 10;

thread_local! {
    static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Reads these ranges of rows, in order.
pub(crate) fn read(
    file: VerifiedFile,
    metadata: &ArrowReaderMetadata,
    columns: &[&str],
    ranges: Vec<Range<usize>>,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let schema = metadata.parquet_schema();
    let mask = ProjectionMask::columns(schema, columns.iter().copied());
    let levels = parquet_to_arrow_field_levels(schema, mask, Some(metadata.schema().fields()))?;
    let segment = Segment { file: Arc::new(file), metadata: Arc::clone(metadata.metadata()) };
    let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), segment.num_rows());
    let reader = ParquetRecordBatchReader::try_new_with_row_groups(&levels, &segment, BATCH, Some(selection))?;
    Ok(reader.map(|batch| batch.map_err(ParquetError::from)))
}

/// A segment whose pages are decompressed here.
struct Segment {
    file: Arc<VerifiedFile>,
    metadata: Arc<ParquetMetaData>,
}

impl RowGroups for Segment {
    fn num_rows(&self) -> usize {
        self.metadata.row_groups().iter().filter_map(|group| usize::try_from(group.num_rows()).ok()).sum()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let (file, metadata) = (Arc::clone(&self.file), Arc::clone(&self.metadata));
        Ok(Box::new(Chunks { file, metadata, column, groups: 0..self.metadata.num_row_groups() }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.metadata.row_groups().iter())
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The chunks of a column, one per row group.
struct Chunks {
    file: Arc<VerifiedFile>,
    metadata: Arc<ParquetMetaData>,
    column: usize,
    groups: Range<usize>,
}

impl Chunks {
    fn open(&self, number: usize) -> Result<Box<dyn PageReader>> {
        let missing = || ParquetError::General(format!("no column {} in row group {number}", self.column));
        let group = self.metadata.row_groups().get(number).ok_or_else(missing)?;
        let chunk = group.columns().get(self.column).ok_or_else(missing)?;
        let places = self.metadata.offset_index().and_then(|index| index.get(number)?.get(self.column));
        let places = places.map(|index| index.page_locations().clone());
        let rows = usize::try_from(group.num_rows()).map_err(|error| ParquetError::External(error.into()))?;
        let pages =
            |chunk: &ColumnChunkMetaData| SerializedPageReader::new(Arc::clone(&self.file), chunk, rows, places);
        if !matches!(chunk.compression(), Compression::ZSTD(_)) {
            return Ok(Box::new(pages(chunk)?));
        }
        let raw = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        Ok(Box::new(Pages(pages(&raw)?)))
    }
}

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.groups.next()?;
        Some(self.open(number))
    }
}

impl PageIterator for Chunks {}

/// Decompresses pages.
struct Pages(SerializedPageReader<VerifiedFile>);

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let mut page = self.0.get_next_page()?;
        match &mut page {
            Some(Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. }) => *buf = decompress(buf)?.into(),
            // Segments contain no such page.
            Some(Page::DataPageV2 { .. }) => return Err(ParquetError::NYI("a data page of version 2".into())),
            None => {}
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.0.at_record_boundary()
    }
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>> {
    let stated = get_frame_content_size(compressed).ok().flatten().and_then(|size| usize::try_from(size).ok());
    let size = stated.filter(|size| *size <= MOST_BYTES);
    let size = size.ok_or_else(|| ParquetError::General("a page does not state its size, or is too large".into()))?;
    ZSTD.with_borrow_mut(|known| {
        let context = match known {
            Some(context) => context,
            None => known.insert(Decompressor::new()?),
        };
        Ok(context.decompress(compressed, size)?)
    })
}
