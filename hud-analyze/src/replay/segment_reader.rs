//! Reads the rows of segments and in-flight logs that overlap a time range.

use std::{io::ErrorKind, ops::Range, path::Path};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int64Type,
};
use hud_common::{
    cockpit::{Ingest, Window},
    session::{self, Error, SessionDir, Table, VerifiedFile},
};
use parquet::{arrow::arrow_reader::ArrowReaderMetadata, errors::ParquetError};

use crate::source::{
    page_reader,
    segment_cache::{OpenSegment, SegmentCache},
    zone_map::{Interval, Page, joined, pages},
};

/// Segments that stay open, with their footers and page indexes: 50 kB each.
const OPEN: usize = 128;

/// The tables that partials are counted from, without tables of names.
pub(super) const EVENTS: [Table; 13] = [
    Table::Polls,
    Table::OffCpu,
    Table::Samples,
    Table::Wakes,
    Table::Spawns,
    Table::Ends,
    Table::Tasks,
    Table::Coverage,
    Table::Drops,
    Table::Overhead,
    Table::Process,
    Table::InProgress,
    Table::TaskStates,
];
/// Tables whose pages at the limits of a range are narrowed to the rows that overlap it: with few rows per second, a page covers
/// minutes. `tasks` is not among them: a task in the range may have its row before it.
const NARROWED: [Table; 5] = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes, Table::Spawns];
/// The columns for a task's page.
pub(super) fn columns_of_page(table: Table) -> &'static [&'static str] {
    match table {
        Table::Wakes => &["ts", "task_id", "waker_task_id", "waker_tid"],
        _ => columns(table),
    }
}

/// The columns for partials.
pub(super) fn columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::Polls => &["ts", "dur", "task_id", "type_id", "tid", "blocked", "run_queue", "wake_delay"],
        Table::OffCpu => &["ts", "dur", "tid", "state", "task_id", "stack_id", "run_queue", "waker_tid", "intervals"],
        Table::Samples => &["ts", "tid", "task_id", "stack_id", "weight"],
        Table::Wakes => &["ts", "task_id", "waker_task_id"],
        Table::Spawns => &["ts", "task_id", "type_id", "parent_task_id", "tid"],
        Table::Ends => &["ts", "task_id", "outcome"],
        Table::Tasks => &["ts", "task_id", "type_id"],
        Table::Coverage => &["ts", "dur", "stream", "reason"],
        Table::Drops => &["ts", "dur", "stream", "stage", "lost"],
        Table::Overhead => &["ts", "probe_ns", "recorder_cpu", "recorder_rss", "ring_bytes", "events"],
        Table::InProgress => {
            &["ts", "lasted", "since", "tid", "task_id", "type_id", "state", "stack_id", "estimated", "ended"]
        }
        Table::TaskStates => &[
            "ts",
            "since",
            "task_id",
            "tid",
            "type_id",
            "branches",
            "stack_id",
            "resource",
            "address",
            "holder_task_id",
            "holder_tid",
            "cycle",
        ],
        Table::Process => &["ts", "cpu_user", "cpu_sys", "rss", "threads", "fds", "cpu_others", "throttled"],
        _ => &[],
    }
}

#[derive(Clone, Debug)]
pub(super) enum Rows {
    /// The segment's number.
    Sealed(u32),
    /// The rows that a log has so far.
    Log(Vec<(Interval, RecordBatch)>),
}

/// A segment, or the log that becomes the segment of the same number.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) table: Table,
    pub(super) interval: Interval,
    /// Number of rows.
    pub(super) count: usize,
    pub(super) rows: Rows,
}

impl Part {
    /// Estimated number of rows in `[from, to]`: they are assumed to be uniformly distributed.
    pub(super) fn rows_within(&self, from: i64, to: i64) -> usize {
        let all = i128::from(self.interval.last) - i128::from(self.interval.first) + 1;
        let within = i128::from(self.interval.last.min(to)) - i128::from(self.interval.first.max(from)) + 1;
        let share = within.clamp(0, all) * i128::try_from(self.count).unwrap_or(0) / all.max(1);
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    pub(super) fn touches(&self, from: i64, to: i64) -> bool {
        self.interval.touches(from, to)
    }
}

/// Reads parts, and keeps segments open, as a user who scrubs returns to them.
#[derive(Debug)]
pub(super) struct SegmentReader {
    dir: SessionDir,
    pub(super) cache: SegmentCache,
}

impl SegmentReader {
    pub(super) fn new(dir: SessionDir) -> Self {
        SegmentReader { dir, cache: SegmentCache::with_capacity(OPEN) }
    }

    /// Parts that could not be read, and why.
    pub(super) fn damage(&self) -> Vec<String> {
        self.cache.errors().iter().map(ToString::to_string).collect()
    }

    pub(super) fn note(&self, error: Error) {
        // An expired segment is not damaged.
        if !matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound) {
            self.cache.record(error);
        }
    }

    /// Calls `each` with batches of these columns, with at least the rows of a part that overlap `[from, to]`, until it returns
    /// false. A part that cannot be read is noted and skipped, as in the tailer.
    pub(super) fn read(
        &self,
        part: &Part,
        columns: &[&str],
        (from, to): (i64, i64),
        mut each: impl FnMut(&RecordBatch) -> bool,
    ) {
        match &part.rows {
            Rows::Log(batches) => {
                let _ = batches.iter().filter(|(interval, _)| interval.touches(from, to)).all(|(_, batch)| each(batch));
            }
            Rows::Sealed(number) => {
                if let Err(error) = self.read_sealed((part.table, *number), columns, (from, to), &mut each) {
                    self.note(error);
                }
            }
        }
    }

    fn read_sealed(
        &self,
        (table, number): (Table, u32),
        columns: &[&str],
        (from, to): (i64, i64),
        each: &mut impl FnMut(&RecordBatch) -> bool,
    ) -> session::Result<()> {
        let OpenSegment { file, metadata } = self.cache.get(table, number, || self.dir.open_sealed(table, number))?;
        let path = file.path().to_path_buf();
        let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        let touching = match pages(table, metadata.metadata()) {
            Some(found) => {
                let found = found.into_iter().filter(|page| page.interval.touches(from, to));
                let is_cut = |page: &Page| page.interval.first < from || to < page.interval.last;
                let (cut, whole): (Vec<_>, Vec<_>) = found.partition(|page| NARROWED.contains(&table) && is_cut(page));
                let mut rows: Vec<Range<usize>> = whole.into_iter().map(|page| page.rows).collect();
                rows.extend(narrowed(table, &file, &metadata, cut, (from, to)).map_err(damaged(&path))?);
                rows.sort_unstable_by_key(|rows| rows.start);
                joined(rows.into_iter())
            }
            None => std::iter::once(0..rows).collect(),
        };
        for batch in page_reader::read(file, &metadata, columns, touching).map_err(damaged(&path))? {
            if !each(&batch.map_err(damaged(&path))?) {
                break;
            }
        }
        Ok(())
    }

    /// The latest end of a row of these parts, up to `limit`. Parts are read in the order of their latest possible end, so that
    /// most need not be read.
    pub(super) fn last_end<'a>(&self, parts: impl Iterator<Item = &'a Part>, limit: i64) -> Option<i64> {
        let mut parts: Vec<&Part> = parts.collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.interval.last));
        let mut best: Option<i64> = None;
        for part in parts {
            if best.is_some_and(|best| best >= part.interval.last) {
                break;
            }
            let ends: &[&str] = if columns(part.table).contains(&"dur") { &["ts", "dur"] } else { &["ts"] };
            self.read(part, ends, (best.unwrap_or(i64::MIN), i64::MAX), |batch| {
                let Some(ts) = integers(batch, "ts") else { return true };
                let dur = integers(batch, "dur");
                for (row, ts) in ts.iter().enumerate() {
                    let dur = dur.and_then(|dur| dur.get(row)).map_or(0, |dur| (*dur).max(0));
                    let end = ts.saturating_add(dur);
                    if end <= limit {
                        best = best.max(Some(end));
                    }
                }
                true
            });
        }
        best
    }
}

fn damaged<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Error + '_ {
    |error| Error::Damaged { path: path.into(), why: error.to_string() }
}

fn integers<'a>(batch: &'a RecordBatch, column: &str) -> Option<&'a [i64]> {
    Some(batch.column_by_name(column)?.as_primitive_opt::<Int64Type>()?.values())
}

/// A page that covers this multiple of its longest row is narrowed without reading durations.
const MUCH_LONGER: i64 = 4;

/// In each of these pages, the rows from the first to the last that overlaps `[from, to]`.
fn narrowed(
    table: Table,
    file: &VerifiedFile,
    metadata: &ArrowReaderMetadata,
    pages: Vec<Page>,
    (from, to): (i64, i64),
) -> parquet::errors::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    for Page { rows, keys, interval } in pages {
        let longest = interval.last.saturating_sub(keys.1);
        // If the latest end overflows, the longest duration is not known.
        let are_short = interval.last < i64::MAX && longest.saturating_mul(MUCH_LONGER) < keys.1.saturating_sub(keys.0);
        let columns: &[&str] = if are_short { &[table.key()] } else { &[table.key(), "dur"] };
        // A task in the range may have been spawned before it.
        let from = if table == Table::Spawns { i64::MIN } else { from };
        let (mut first, mut past, mut at) = (rows.end, rows.start, rows.start);
        for batch in page_reader::read(file.clone(), metadata, columns, vec![rows.clone()])? {
            let batch = batch?;
            let missing = || ParquetError::General(format!("{} has no key column", table.name()));
            let ts = integers(&batch, table.key()).ok_or_else(missing)?;
            let dur = integers(&batch, "dur");
            for (row, ts) in ts.iter().enumerate() {
                let dur = dur.map_or(longest, |dur| dur.get(row).copied().unwrap_or(0));
                if Interval::of(*ts, *ts, dur).touches(from, to) {
                    (first, past) = (first.min(at + row), at + row + 1);
                }
            }
            at += batch.num_rows();
            // All further rows start within the range.
            if past == at && keys.1 <= to {
                past = rows.end;
                break;
            }
        }
        found.extend((first < past).then_some(first..past));
    }
    Ok(found)
}

pub(super) fn interval_of(table: Table, batch: &RecordBatch) -> Option<Interval> {
    let ts = integers(batch, table.key())?;
    let (first, last) = (ts.iter().min()?, ts.iter().max()?);
    let longest = integers(batch, "dur").and_then(|dur| dur.iter().max()).copied().unwrap_or(0);
    Some(Interval::of(*first, *last, longest))
}

/// Counts the rows of these parts in the range of `ingest`.
pub(super) fn take_in<'a>(
    ingest: &mut Ingest,
    reader: &SegmentReader,
    parts: impl Iterator<Item = &'a Part>,
    is_wanted: &mut impl FnMut() -> bool,
) {
    let (from, to) = (ingest.buckets.from().start(), ingest.buckets.to().start());
    for part in parts {
        if is_wanted() {
            reader.read(part, columns(part.table), (from, to), |batch| {
                ingest.batch(part.table, batch);
                is_wanted()
            });
        }
    }
}

/// The parts of these tables that may have rows in a window. A row that ends at the start of the window counts in its first
/// bucket.
pub(super) fn touching<'a>(parts: &'a [Part], window: Window, tables: &'a [Table]) -> impl Iterator<Item = &'a Part> {
    let (from, to) = (window.from.start(), window.to.start());
    let parts = parts.iter().filter(move |_| window.from < window.to);
    parts.filter(move |part| tables.contains(&part.table) && part.touches(from, to))
}
