//! Zone maps: minima and maxima of segments and pages, from footers and page indexes.
//!
//! A row covers `[ts, ts + dur]`. If `[min(ts), max(ts) + max(dur)]` of a segment or page does not overlap a time range, none
//! of its rows does. So an off-CPU interval that began minutes before the range is found, and other pages are not read.

use std::ops::Range;

use hud_common::session::Table;
use parquet::file::{metadata::ParquetMetaData, page_index::column_index::ColumnIndexMetaData, statistics::Statistics};

/// The column that predicates select segments by, beside times: task ids increase in the order of spawns, so that those of a
/// segment are close together.
pub(crate) const TASK: &str = "task_id";

/// From the earliest start of a row to the latest end, inclusive (ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Interval {
    /// Without statistics.
    pub(crate) const EVERYWHERE: Interval = Interval { first: i64::MIN, last: i64::MAX };

    pub(crate) fn of(first: i64, last_ts: i64, longest: i64) -> Self {
        Interval { first, last: last_ts.saturating_add(longest.max(0)) }
    }

    pub(crate) fn touches(self, from: i64, to: i64) -> bool {
        self.first <= to && from <= self.last
    }
}

/// Statistics of a segment, from its footer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneMap {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Minimum and maximum key, if the footer contains them.
    pub(crate) keys: Option<(i64, i64)>,
    /// The time that the rows cover.
    pub(crate) interval: Interval,
    /// Minimum and maximum task id, if there is such a column and the footer contains them.
    pub(crate) tasks: Option<(i64, i64)>,
    /// Whether no row ends before it begins, and no end overflows.
    pub(crate) is_forward: bool,
}

impl ZoneMap {
    pub(crate) fn of(table: Table, metadata: &ParquetMetaData) -> Self {
        let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let keys = range(metadata, table.key());
        let durs = range(metadata, "dur");
        let interval = match (keys, leaf(metadata, "dur"), durs) {
            (Some((first, last)), None, _) => Interval::of(first, last, 0),
            (Some((first, last)), Some(_), Some((_, longest))) => Interval::of(first, last, longest),
            _ => Interval::EVERYWHERE,
        };
        let is_forward = durs.is_some_and(|(shortest, _)| shortest >= 0) && interval.last < i64::MAX;
        ZoneMap { rows, keys, interval, tasks: range(metadata, TASK), is_forward }
    }
}

/// Statistics of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its rows' positions in the segment.
    pub(crate) rows: Range<usize>,
    /// Minimum and maximum key.
    pub(crate) keys: (i64, i64),
    pub(crate) interval: Interval,
}

/// The pages of the key column; `None` without page indexes.
pub(crate) fn pages(table: Table, metadata: &ParquetMetaData) -> Option<Vec<Page>> {
    let (columns, offsets) = (metadata.column_index()?, metadata.offset_index()?);
    let ts = leaf(metadata, table.key())?;
    let dur = leaf(metadata, "dur");
    let mut all = Vec::new();
    let mut before = 0_usize;
    for (group, described) in metadata.row_groups().iter().enumerate() {
        let rows = usize::try_from(described.num_rows()).ok()?;
        // Rows, minimum and maximum of each page of a column.
        let of = |leaf: usize| -> Option<Vec<(Range<usize>, i64, i64)>> {
            let ColumnIndexMetaData::INT64(values) = columns.get(group)?.get(leaf)? else { return None };
            let places = offsets.get(group)?.get(leaf)?.page_locations();
            let starts: Vec<usize> =
                places.iter().map(|page| usize::try_from(page.first_row_index).ok()).collect::<Option<_>>()?;
            let ends = starts.iter().skip(1).copied().chain([rows]);
            let (least, greatest) = (values.min_values_iter(), values.max_values_iter());
            let pages = starts.iter().zip(ends).zip(least).zip(greatest);
            // A page without values has no minimum; key and duration are never null.
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
            all.push(Page { rows, keys: (first, last), interval: Interval::of(first, last, longest) });
        }
        before = before.checked_add(rows)?;
    }
    Some(all)
}

/// Merges adjacent and overlapping ranges.
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

/// Minimum and maximum of an integer column, if the footer contains them.
fn range(metadata: &ParquetMetaData, column: &str) -> Option<(i64, i64)> {
    let leaf = leaf(metadata, column)?;
    let mut range: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        let Some(Statistics::Int64(values)) = group.columns().get(leaf)?.statistics() else { return None };
        let (least, greatest) = (*values.min_opt()?, *values.max_opt()?);
        range = Some(range.map_or((least, greatest), |(a, b)| (a.min(least), b.max(greatest))));
    }
    range
}
