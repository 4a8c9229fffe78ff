//! Reads the intact rows of a damaged segment: those whose pages match their checksums in all columns. Without an intact footer,
//! which contains the positions of columns and blocks, there are none.

use std::ops::Range;

use arrow::array::RecordBatch;
use hud_common::session::{Table, VerifiedFile, footer, open_verified};
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection},
    file::metadata::{PageIndexPolicy, ParquetMetaData},
};

use crate::{
    error::Result,
    rows::{BATCH, adapt},
};

/// Calls `each` with the intact rows, in order.
pub(crate) fn salvage(
    table: Table,
    file: VerifiedFile,
    each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    // Checks the schema too. The error was reported before.
    if open_verified(table, file.clone()).is_err() {
        return Ok(());
    }
    let Ok(metadata) = footer(&file, PageIndexPolicy::Required) else { return Ok(()) };
    for group in 0..metadata.metadata().num_row_groups() {
        for rows in readable(&file, metadata.metadata(), group) {
            let selection = RowSelection::from_consecutive_ranges(std::iter::once(rows.clone()), rows.end);
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone())
                .with_row_groups(vec![group])
                .with_row_selection(selection)
                .with_batch_size(BATCH)
                .build();
            // Rows after one that does not decode are not used.
            let Ok(reader) = reader else { continue };
            for batch in reader.map_while(std::result::Result::ok) {
                let Ok(batch) = adapt(table, file.path(), &batch) else { break };
                each(&batch)?;
            }
        }
    }
    Ok(())
}

/// Rows of a row group whose pages are intact in all columns.
fn readable(file: &VerifiedFile, metadata: &ParquetMetaData, group: usize) -> Vec<Range<usize>> {
    let Some(columns) = metadata.row_groups().get(group) else { return Vec::new() };
    let rows = usize::try_from(columns.num_rows()).unwrap_or(0);
    let pages = metadata.offset_index().and_then(|index| index.get(group));
    let mut bad: Vec<Range<usize>> = Vec::new();
    for (place, column) in columns.columns().iter().enumerate() {
        let Some(pages) = pages.and_then(|pages| pages.get(place)).map(|p| p.page_locations()) else {
            return Vec::new();
        };
        let (start, _) = column.byte_range();
        let first = pages.first().and_then(|page| u64::try_from(page.offset).ok());
        let Some(first) = first.filter(|first| start <= *first) else { return Vec::new() };
        // All pages may refer to the dictionary.
        if file.read(start..first).is_err() {
            return Vec::new();
        }
        for (at, page) in pages.iter().enumerate() {
            let next = pages.get(at + 1).and_then(|next| usize::try_from(next.first_row_index).ok()).unwrap_or(rows);
            let is_whole = u64::try_from(page.offset)
                .ok()
                .zip(u64::try_from(page.compressed_page_size).ok())
                .is_some_and(|(from, len)| file.read(from..from.saturating_add(len)).is_ok());
            if !is_whole {
                bad.push(usize::try_from(page.first_row_index).unwrap_or(0)..next);
            }
        }
    }
    bad.sort_by_key(|range| range.start);
    let (mut good, mut from) = (Vec::new(), 0);
    for range in bad {
        if from < range.start.min(rows) {
            good.push(from..range.start.min(rows));
        }
        from = from.max(range.end);
    }
    if from < rows {
        good.push(from..rows);
    }
    good
}
