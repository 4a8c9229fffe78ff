//! When a segment's rows are: what its footer and its page indexes say of time.
//!
//! A row lies in `[ts, ts + dur]`. Segments and pages carry the least and the greatest of both columns, so one whose
//! `[min(ts), max(ts) + max(dur)]` does not touch a range has no row that does: a sleep that began minutes ago is found, and
//! nothing is read for the sake of sleeps that might have been.

use std::ops::Range;

use hud_common::session::Table;
use parquet::file::{metadata::ParquetMetaData, page_index::column_index::ColumnIndexMetaData, statistics::Statistics};

/// From the least start of a row to the greatest end, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Span {
    /// Where nothing is told.
    pub(crate) const EVERYWHERE: Span = Span { first: i64::MIN, last: i64::MAX };

    pub(crate) fn of(first: i64, last_ts: i64, longest: i64) -> Self {
        Span { first, last: last_ts.saturating_add(longest.max(0)) }
    }

    pub(crate) fn touches(self, from: i64, to: i64) -> bool {
        self.first <= to && from <= self.last
    }
}

/// What a segment's footer says of its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// How many there are.
    pub(crate) rows: usize,
    /// The least and the greatest key; none where the footer does not say.
    pub(crate) keys: Option<(i64, i64)>,
    /// When they are: everywhere, where the footer does not say.
    pub(crate) span: Span,
    /// The least and the greatest task; none where there is no such column, or the footer does not say.
    pub(crate) tasks: Option<(i64, i64)>,
    /// Whether each row is known to end no sooner than it begins, at a moment that can be told.
    pub(crate) is_forward: bool,
}

impl Facts {
    pub(crate) fn of(table: Table, metadata: &ParquetMetaData) -> Self {
        let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let keys = range(metadata, table.key());
        let durs = range(metadata, "dur");
        let span = match (keys, leaf(metadata, "dur"), durs) {
            (Some((first, last)), None, _) => Span::of(first, last, 0),
            (Some((first, last)), Some(_), Some((_, longest))) => Span::of(first, last, longest),
            _ => Span::EVERYWHERE,
        };
        let is_forward = durs.is_some_and(|(shortest, _)| shortest >= 0) && span.last < i64::MAX;
        Facts { rows, keys, span, tasks: range(metadata, crate::bounds::TASK), is_forward }
    }
}

/// Rows of a page, by their place in the segment, and when they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) rows: Range<usize>,
    /// The least and the greatest key.
    pub(crate) keys: (i64, i64),
    pub(crate) span: Span,
}

/// The pages of the key; `None` where the page indexes do not tell.
pub(crate) fn pages(table: Table, metadata: &ParquetMetaData) -> Option<Vec<Page>> {
    let (columns, offsets) = (metadata.column_index()?, metadata.offset_index()?);
    let ts = leaf(metadata, table.key())?;
    let dur = leaf(metadata, "dur");
    let mut all = Vec::new();
    let mut before = 0_usize;
    for (group, described) in metadata.row_groups().iter().enumerate() {
        let rows = usize::try_from(described.num_rows()).ok()?;
        // First row, least and greatest of each page of a column.
        let of = |leaf: usize| -> Option<Vec<(Range<usize>, i64, i64)>> {
            let ColumnIndexMetaData::INT64(values) = columns.get(group)?.get(leaf)? else { return None };
            let places = offsets.get(group)?.get(leaf)?.page_locations();
            let starts: Vec<usize> =
                places.iter().map(|page| usize::try_from(page.first_row_index).ok()).collect::<Option<_>>()?;
            let ends = starts.iter().skip(1).copied().chain([rows]);
            let (least, greatest) = (values.min_values_iter(), values.max_values_iter());
            let pages = starts.iter().zip(ends).zip(least).zip(greatest);
            // A page of nulls alone is none of a key or a duration.
            let pages = pages.map(|(((start, end), least), greatest)| Some((*start..end, *least?, *greatest?)));
            pages.collect::<Option<Vec<_>>>().filter(|pages| pages.len() == starts.len())
        };
        let durs = match dur {
            Some(leaf) => of(leaf)?,
            None => Vec::new(),
        };
        for (range, first, last) in of(ts)? {
            if range.start > range.end || range.end > rows {
                return None;
            }
            let beside = durs.iter().filter(|(other, ..)| other.start < range.end && range.start < other.end);
            let longest = beside.map(|(.., greatest)| *greatest).max().unwrap_or(0);
            let rows = before.checked_add(range.start)?..before.checked_add(range.end)?;
            all.push(Page { rows, keys: (first, last), span: Span::of(first, last, longest) });
        }
        before = before.checked_add(rows)?;
    }
    Some(all)
}

/// Ranges that touch are one.
pub(crate) fn joined(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for range in ranges.filter(|range| range.start < range.end) {
        match all.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

fn leaf(metadata: &ParquetMetaData, column: &str) -> Option<usize> {
    let leaves = metadata.file_metadata().schema_descr().columns();
    leaves.iter().position(|leaf| leaf.path().parts().first().is_some_and(|name| name == column))
}

/// The least and the greatest integer of a column; `None` where the footer does not say.
fn range(metadata: &ParquetMetaData, column: &str) -> Option<(i64, i64)> {
    let leaf = leaf(metadata, column)?;
    let mut range: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        let Some(Statistics::Int64(told)) = group.columns().get(leaf)?.statistics() else { return None };
        let (least, greatest) = (*told.min_opt()?, *told.max_opt()?);
        range = Some(range.map_or((least, greatest), |(a, b)| (a.min(least), b.max(greatest))));
    }
    range
}
