//! Merges many sorted segments into few, in constant memory.
//!
//! At most [`FAN_IN`] segments are open at a time, with one decoded batch each. A segment is opened when the merge reaches its
//! first key, so that segments that do not overlap need one reader. If more of them overlap, groups are first merged into
//! temporary files (runs), then the runs are merged.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, compute::interleave_record_batch};
use hud_common::session::{Error as SessionError, REFERENCES, Table, VerifiedFile, open_segment, unnamed};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::{
    bench::{self, Bench},
    error::Result,
    progress::Step,
    roll::{Roller, Run, Target},
    rows::{self, BATCH, Sum, Summer, adapt, keys, one_line},
    watch::Watch,
};

/// Maximum number of open segments: a reader holds a page of each column, up to 2 MB in total.
pub(crate) const FAN_IN: usize = 32;
/// Rows per output batch.
const CHUNK: usize = 8192;

/// Files that do not overlap, in order.
pub(crate) type Source = Vec<Run>;

/// The result of a merge.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// The files, in order.
    pub(crate) files: Vec<Run>,
    /// Duplicate rows of names that were dropped.
    pub(crate) doubles: Sum,
}

/// Whether a table has unique ids, to which other tables refer.
pub(crate) fn is_names(table: Table) -> bool {
    REFERENCES.iter().any(|r| r.to == table)
}

/// Merges a table's segments into its successor's.
pub(crate) struct Merge<'a> {
    bench: &'a Bench,
    table: Table,
    target: Target,
    summer: &'a Summer,
    /// Number of the last run, for unique names.
    serial: Cell<u32>,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(bench: &'a Bench, table: Table, target: Target, summer: &'a Summer) -> Self {
        Merge { bench, table, target, summer, serial: Cell::new(0) }
    }

    /// Merges into segments numbered from `number`. Rows with equal keys stay in the order of `sources`.
    pub(crate) fn run(&self, mut sources: Vec<Source>, number: u32, watch: &mut Watch<'_>) -> Result<Merged> {
        let mut doubles = Sum::default();
        while depth(&sources) > FAN_IN {
            let mut merged = Vec::new();
            // Groups are consecutive, so that equal keys keep their order.
            for group in sources.chunks(FAN_IN) {
                let mut out = Roller::to_runs(self.bench, self.table, self.target, &self.serial);
                doubles += self.pass(group, &mut out, watch)?;
                merged.push(out.finish(watch)?);
                forget(group)?;
            }
            sources = merged;
        }
        let mut out = Roller::to_segments(self.bench, self.table, self.target, number);
        doubles += self.pass(&sources, &mut out, watch)?;
        let files = out.finish(watch)?;
        forget(&sources)?;
        Ok(Merged { files, doubles })
    }

    /// Sorts an unsorted segment into runs.
    pub(crate) fn sort(&self, path: &Path, watch: &mut Watch<'_>) -> Result<Vec<Source>> {
        let mut out = Roller::to_runs(self.bench, self.table, self.target, &self.serial).with_any_order();
        rows::scan(self.table, VerifiedFile::open(path)?, |batch| out.push(batch, watch))?;
        // Each run is sorted, but the runs overlap.
        Ok(out.finish(watch)?.into_iter().map(|run| vec![run]).collect())
    }

    /// Merges at most [`FAN_IN`] overlapping sources. Returns the duplicates that were dropped.
    fn pass(&self, sources: &[Source], out: &mut Roller<'_>, watch: &mut Watch<'_>) -> Result<Sum> {
        let all = sources.iter().flatten().map(|run| run.rows).sum();
        let mut waiting: Vec<(i64, usize)> =
            sources.iter().enumerate().filter_map(|(at, source)| Some((source.first()?.first, at))).collect();
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        let mut open: Vec<Option<Cursor>> = sources.iter().map(|_| None).collect();
        let mut heads: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
        let mut chunk = Chunk::new(self.table, self.summer);
        let mut done = 0;
        loop {
            // Opens all sources that may contain the next row.
            while let Some(&(first, at)) = waiting.last()
                && heads.peek().is_none_or(|Reverse((key, _))| first <= *key)
            {
                waiting.pop();
                let (Some(source), Some(place)) = (sources.get(at), open.get_mut(at)) else { continue };
                let mut cursor = Cursor::new(self.table, source);
                if let Some(key) = cursor.key()? {
                    heads.push(Reverse((key, at)));
                    *place = Some(cursor);
                }
            }
            let Some(Reverse((_, at))) = heads.pop() else { break };
            let Some(place) = open.get_mut(at) else { continue };
            let Some(cursor) = place.as_mut() else { continue };
            let until = heads.peek().map(|Reverse(head)| *head);
            let until = until.into_iter().chain(waiting.last().copied()).min();
            loop {
                let Some(key) = cursor.key()? else {
                    *place = None;
                    break;
                };
                if until.is_some_and(|until| until <= (key, at)) {
                    heads.push(Reverse((key, at)));
                    break;
                }
                if let Some(rows) = chunk.take(cursor, key)? {
                    done += rows.num_rows() as u64;
                    out.push(&rows, watch)?;
                    watch.report(Step::Merging, self.table, done, all)?;
                }
                cursor.row += 1;
            }
        }
        if let Some(rows) = chunk.finish()? {
            out.push(&rows, watch)?;
        }
        watch.report(Step::Merging, self.table, all, all)?;
        Ok(chunk.doubles)
    }
}

/// Removes merged runs.
fn forget(sources: &[Source]) -> Result<()> {
    sources.iter().flatten().filter(|run| run.is_held).try_for_each(|run| bench::remove_file(&run.path))
}

/// Maximum number of sources that overlap.
pub(crate) fn depth(sources: &[Source]) -> usize {
    let ends = sources.iter().filter_map(|s| Some((s.first()?.first, s.last()?.last)));
    // A source that ends at the first key of another overlaps it.
    let mut events: Vec<(i64, i8)> = ends.flat_map(|(first, last)| [(first, -1), (last, 1)]).collect();
    events.sort_unstable();
    let (mut open, mut most) = (0_usize, 0);
    for (_, event) in events {
        if event < 0 {
            open += 1;
            most = most.max(open);
        } else {
            open = open.saturating_sub(1);
        }
    }
    most
}

/// Read position in a source.
struct Cursor {
    table: Table,
    files: VecDeque<PathBuf>,
    path: PathBuf,
    reader: Option<ParquetRecordBatchReader>,
    batch: Option<RecordBatch>,
    row: usize,
    /// Number of the current chunk, and the batch's index in it.
    place: Option<(u64, usize)>,
}

impl Cursor {
    fn new(table: Table, source: &Source) -> Self {
        let files = source.iter().map(|run| run.path.clone()).collect();
        Cursor { table, files, path: PathBuf::new(), reader: None, batch: None, row: 0, place: None }
    }

    /// The key of the next row; `None` at the end.
    fn key(&mut self) -> Result<Option<i64>> {
        loop {
            if let Some(batch) = &self.batch
                && let Some(key) = keys(self.table, &self.path, batch)?.get(self.row)
            {
                return Ok(Some(*key));
            }
            let damaged = |why: String| SessionError::Damaged { path: self.path.clone(), why };
            (self.batch, self.row, self.place) = (None, 0, None);
            match self.reader.as_mut().and_then(Iterator::next) {
                Some(batch) => {
                    let batch = batch.map_err(|e| damaged(one_line(&e.to_string())))?;
                    self.batch = Some(adapt(self.table, &self.path, &batch)?);
                }
                None => {
                    let Some(path) = self.files.pop_front() else { return Ok(None) };
                    let reader = open_segment(self.table, &path)?.with_batch_size(BATCH).build();
                    self.reader = Some(reader.map_err(|e| damaged(one_line(&e.to_string())))?);
                    self.path = path;
                }
            }
        }
    }
}

/// Collects rows of several batches into one.
struct Chunk<'a> {
    table: Table,
    summer: &'a Summer,
    serial: u64,
    batches: Vec<RecordBatch>,
    rows: Vec<(usize, usize)>,
    last: Option<i64>,
    is_names: bool,
    doubles: Sum,
}

impl<'a> Chunk<'a> {
    fn new(table: Table, summer: &'a Summer) -> Self {
        let is_names = is_names(table);
        let (batches, rows, doubles) = (Vec::new(), Vec::with_capacity(CHUNK), Sum::default());
        Chunk { table, summer, serial: 0, batches, rows, last: None, is_names, doubles }
    }

    /// Adds a cursor's row, which has this key. Returns the earlier rows once they fill a batch.
    fn take(&mut self, cursor: &mut Cursor, key: i64) -> Result<Option<RecordBatch>> {
        let is_double = self.is_names && self.last == Some(key);
        // Not between duplicates, as the better one is kept.
        let full = if !is_double && self.rows.len() >= CHUNK { self.finish()? } else { None };
        self.last = Some(key);
        let Some(batch) = &cursor.batch else { return Ok(full) };
        let place = match cursor.place {
            Some((serial, place)) if serial == self.serial => place,
            _ => {
                self.batches.push(batch.clone());
                self.batches.len() - 1
            }
        };
        cursor.place = Some((self.serial, place));
        let row = (place, cursor.row);
        match self.rows.last_mut().filter(|_| is_double) {
            None => self.rows.push(row),
            Some(kept) => {
                // A placeholder row, which has only an id, is replaced by a real one.
                let sum = |(place, row): (usize, usize)| {
                    let rows = self.batches.get(place).map(|batch| batch.slice(row, 1));
                    rows.map(|rows| self.summer.sum(&rows)).unwrap_or_default()
                };
                let nothing = self.summer.sum(&unnamed(self.table, [key].into_iter()));
                let (of_kept, of_other) = (sum(*kept), sum(row));
                if of_kept == nothing && of_other != nothing {
                    *kept = row;
                    self.doubles += of_kept;
                } else {
                    self.doubles += of_other;
                }
            }
        }
        Ok(full)
    }

    /// The collected rows; `None` if there are none.
    fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let made = interleave_record_batch(&batches, &self.rows).map_err(rows::arrow(Path::new(self.table.name())))?;
        self.serial += 1;
        self.batches.clear();
        self.rows.clear();
        Ok(Some(made))
    }
}
