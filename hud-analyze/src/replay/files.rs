//! A session's rows by time: which segments, and which of their pages, may hold a row that touches a range.
//!
//! Of a session that is being recorded, a table's logs are read as they grow and kept in memory until they are sealed;
//! each row is in one part.

use std::{
    collections::{BTreeMap, VecDeque},
    io::ErrorKind,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int64Type,
};
use hud_common::session::{
    self, Error, InflightReader, Manifest, SessionDir, Table, VerifiedFile, open_verified, scan_verified,
};
use parquet::{arrow::arrow_reader::ArrowReaderMetadata, errors::ParquetError, file::metadata::PageIndexPolicy};

use crate::{
    packed,
    progress::Progress,
    span::{Facts, Page, Span, joined, pages},
    threads::{in_order, threads},
};

/// Segments that stay open, with their footers and page indexes: 50 kB each.
const OPEN: usize = 96;
/// Damaged parts that are named.
const MOST_DAMAGE: usize = 100;

/// The tables that partials are made of, those of names left out.
pub(super) const EVENTS: [Table; 11] = [
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
];
/// Those of which pages that a range cuts are narrowed to the rows that touch it: a page of few rows a second lasts for
/// minutes. What tells of tasks is taken as it comes up to the range's end, as it may be of tasks that are met in it.
const SIFTED: [Table; 5] = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes, Table::Spawns];
/// The tables that are read whole, in the order in which they refer to each other.
const NAMES: [Table; 5] = [Table::Threads, Table::TaskTypes, Table::Stacks, Table::Frames, Table::Modules];

/// The columns of which a task's page is made.
pub(super) fn columns_of_page(table: Table) -> &'static [&'static str] {
    match table {
        Table::Wakes => &["ts", "task_id", "waker_task_id", "waker_tid"],
        _ => columns(table),
    }
}

/// The columns that are counted; the others are not even read.
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
        Table::Process => &["ts", "cpu_user", "cpu_sys", "rss", "threads", "fds", "cpu_others", "throttled"],
        _ => &[],
    }
}

#[derive(Clone, Debug)]
enum Rows {
    /// The segment's number.
    Sealed(u32),
    /// What a log has so far.
    Log(Vec<(Span, RecordBatch)>),
}

/// A segment, or the log that it will be made of.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) table: Table,
    pub(super) span: Span,
    /// How many there are.
    count: usize,
    rows: Rows,
}

impl Part {
    /// About how many of its rows touch a range, if they are as many at any time.
    pub(super) fn rows_within(&self, from: i64, to: i64) -> usize {
        let all = i128::from(self.span.last) - i128::from(self.span.first) + 1;
        let within = i128::from(self.span.last.min(to)) - i128::from(self.span.first.max(from)) + 1;
        let share = within.clamp(0, all) * i128::try_from(self.count).unwrap_or(0) / all.max(1);
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    pub(super) fn touches(&self, from: i64, to: i64) -> bool {
        self.span.touches(from, to)
    }
}

/// An open segment: its table and number, and what its footer says.
type Opened = ((Table, u32), VerifiedFile, ArrowReaderMetadata);

/// What was opened is kept open for a while: those who scrub come back.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: SessionDir,
    /// What the first frame waits for.
    progress: Progress,
    open: Mutex<VecDeque<Opened>>,
    damage: Mutex<Vec<String>>,
}

impl Shelf {
    fn new(dir: SessionDir) -> Self {
        let progress = Progress::new("segments opened");
        Shelf { dir, progress, open: Mutex::default(), damage: Mutex::default() }
    }

    /// What could not be read, and why.
    pub(super) fn damage(&self) -> Vec<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &Error) {
        // What has expired is no damage.
        if matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound) {
            return;
        }
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let words = error.to_string();
        if damage.len() < MOST_DAMAGE && !damage.contains(&words) {
            damage.push(words);
        }
    }

    /// Gives `each` batches with all rows of a part that touch `[from, to]`, and others beside them, of these columns. What
    /// cannot be read is noted and passed over, as the tailer does. Stops where `each` says so.
    pub(super) fn read(
        &self,
        part: &Part,
        columns: &[&str],
        (from, to): (i64, i64),
        mut each: impl FnMut(&RecordBatch) -> bool,
    ) {
        match &part.rows {
            Rows::Log(batches) => {
                let _ = batches.iter().filter(|(span, _)| span.touches(from, to)).all(|(_, batch)| each(batch));
            }
            Rows::Sealed(number) => {
                if let Err(error) = self.read_sealed((part.table, *number), columns, (from, to), &mut each) {
                    self.note(&error);
                }
            }
        }
    }

    fn opened(&self, key: (Table, u32)) -> session::Result<(VerifiedFile, ArrowReaderMetadata)> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = open();
        if let Some(place) = files.iter().position(|(known, ..)| *known == key)
            && let Some(found) = files.remove(place)
        {
            let (file, metadata) = (found.1.clone(), found.2.clone());
            files.push_front(found);
            return Ok((file, metadata));
        }
        drop(files);
        let file = self.dir.open_sealed(key.0, key.1)?;
        let metadata = session::footer(&file, PageIndexPolicy::Optional)?;
        let mut files = open();
        files.push_front((key, file.clone(), metadata.clone()));
        files.truncate(OPEN);
        Ok((file, metadata))
    }

    fn read_sealed(
        &self,
        (table, number): (Table, u32),
        columns: &[&str],
        (from, to): (i64, i64),
        each: &mut impl FnMut(&RecordBatch) -> bool,
    ) -> session::Result<()> {
        let (file, metadata) = self.opened((table, number))?;
        let path = file.path().to_path_buf();
        let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        let touching = match pages(table, metadata.metadata()) {
            Some(found) => {
                let found = found.into_iter().filter(|page| page.span.touches(from, to));
                let is_cut = |page: &Page| page.span.first < from || to < page.span.last;
                let (cut, whole): (Vec<_>, Vec<_>) = found.partition(|page| SIFTED.contains(&table) && is_cut(page));
                let mut rows: Vec<Range<usize>> = whole.into_iter().map(|page| page.rows).collect();
                rows.extend(narrowed(table, &file, &metadata, cut, (from, to)).map_err(damaged(&path))?);
                rows.sort_unstable_by_key(|rows| rows.start);
                joined(rows.into_iter())
            }
            None => std::iter::once(0..rows).collect(),
        };
        for batch in packed::read(file, &metadata, columns, touching).map_err(damaged(&path))? {
            if !each(&batch.map_err(damaged(&path))?) {
                break;
            }
        }
        Ok(())
    }

    /// The greatest end of any row of these parts, up to `limit`. Where it may be is read first, so that most are not
    /// read at all.
    pub(super) fn last_end<'a>(&self, parts: impl Iterator<Item = &'a Part>, limit: i64) -> Option<i64> {
        let mut parts: Vec<&Part> = parts.collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.span.last));
        let mut best: Option<i64> = None;
        for part in parts {
            if best.is_some_and(|best| best >= part.span.last) {
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

/// How many times longer a page has to last than its longest row, so that where rows end need not be looked at.
const MUCH_LONGER: i64 = 4;

/// Of each of these pages the rows from the first to the last that touches `[from, to]`, both included, and maybe others.
fn narrowed(
    table: Table,
    file: &VerifiedFile,
    metadata: &ArrowReaderMetadata,
    pages: Vec<Page>,
    (from, to): (i64, i64),
) -> parquet::errors::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    for Page { rows, keys, span } in pages {
        let longest = span.last.saturating_sub(keys.1);
        // Where the sum of the last start and the longest row is past what can be told, its length is not known.
        let are_short = span.last < i64::MAX && longest.saturating_mul(MUCH_LONGER) < keys.1.saturating_sub(keys.0);
        let columns: &[&str] = if are_short { &[table.key()] } else { &[table.key(), "dur"] };
        // Of tasks that are met in it, others before it may tell.
        let from = if table == Table::Spawns { i64::MIN } else { from };
        let (mut first, mut past, mut at) = (rows.end, rows.start, rows.start);
        for batch in packed::read(file.clone(), metadata, columns, vec![rows.clone()])? {
            let batch = batch?;
            let missing = || ParquetError::General(format!("{} has no times", table.name()));
            let ts = integers(&batch, table.key()).ok_or_else(missing)?;
            let dur = integers(&batch, "dur");
            for (row, ts) in ts.iter().enumerate() {
                let dur = dur.map_or(longest, |dur| dur.get(row).copied().unwrap_or(0));
                if Span::of(*ts, *ts, dur).touches(from, to) {
                    (first, past) = (first.min(at + row), at + row + 1);
                }
            }
            at += batch.num_rows();
            // All that begin within it touch it.
            if past == at && keys.1 <= to {
                past = rows.end;
                break;
            }
        }
        found.extend((first < past).then_some(first..past));
    }
    Ok(found)
}

fn span_of_batch(table: Table, batch: &RecordBatch) -> Option<Span> {
    let ts = integers(batch, table.key())?;
    let (first, last) = (ts.iter().min()?, ts.iter().max()?);
    let longest = integers(batch, "dur").and_then(|dur| dur.iter().max()).copied().unwrap_or(0);
    Some(Span::of(*first, *last, longest))
}

/// A session's files, as they were when they were looked at last.
pub(super) struct Files {
    dir: SessionDir,
    pub(super) shelf: Arc<Shelf>,
    parts: BTreeMap<(Table, u32), Part>,
    logs: BTreeMap<(Table, u32), InflightReader>,
    /// Segments of names that were read.
    named: BTreeMap<(Table, u32), bool>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// The least start of a row that is new.
    pub(super) since: Option<i64>,
    /// Whether there are new names.
    pub(super) has_names: bool,
}

impl Found {
    fn add(&mut self, span: Span) {
        self.since = Some(self.since.map_or(span.first, |since| since.min(span.first)));
    }
}

impl Files {
    pub(super) fn new(dir: SessionDir) -> Self {
        Files {
            shelf: Arc::new(Shelf::new(dir.clone())),
            dir,
            parts: BTreeMap::new(),
            logs: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All parts of events, in the order of tables and numbers.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }

    /// Those of one table.
    pub(super) fn of(&self, table: Table) -> impl Iterator<Item = &Part> {
        self.parts.range((table, 0)..=(table, u32::MAX)).map(|(_, part)| part)
    }

    /// Looks what has come and gone. Names are given to `name` as they are read. Logs are opened first and segments listed
    /// afterwards, so that a log that is sealed meanwhile is met in one of both.
    pub(super) fn look(
        &mut self,
        manifest: &Manifest,
        mut name: impl FnMut(Table, &RecordBatch),
    ) -> session::Result<Found> {
        let mut found = Found::default();
        let mut unsealed = self.dir.unsealed()?;
        unsealed.sort_by_key(|log| (!EVENTS.contains(&log.table), log.table, log.number));
        for log in unsealed {
            let key = (log.table, log.number);
            let is_wanted = EVENTS.contains(&log.table) || NAMES.contains(&log.table);
            if !is_wanted || self.logs.contains_key(&key) || self.is_sealed(key) {
                continue;
            }
            if log.number < manifest.first_segment(log.table) {
                continue;
            }
            match self.dir.open_log(log.table, log.number) {
                Ok(reader) => drop(self.logs.insert(key, reader)),
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut sealed = Vec::new();
        for table in EVENTS.into_iter().chain(NAMES) {
            let numbers = self.dir.sealed(table)?.into_iter().map(|(number, _)| number);
            sealed.extend(
                numbers.filter(|number| *number >= manifest.first_segment(table)).map(|number| (table, number)),
            );
        }
        self.read_logs(&mut found, &mut name)?;
        self.forget_expired(&sealed);
        self.add_sealed(sealed, &mut found, &mut name)?;
        Ok(found)
    }

    fn is_sealed(&self, key: (Table, u32)) -> bool {
        matches!(self.parts.get(&key), Some(Part { rows: Rows::Sealed(_), .. }))
            || self.named.get(&key).is_some_and(|is_sealed| *is_sealed)
    }

    fn read_logs(&mut self, found: &mut Found, name: &mut impl FnMut(Table, &RecordBatch)) -> session::Result<()> {
        let mut foreign = Vec::new();
        for ((table, number), log) in &mut self.logs {
            for batch in log.by_ref() {
                let batch = match batch {
                    Err(error @ Error::Foreign { .. }) => {
                        self.shelf.note(&error);
                        foreign.push((*table, *number));
                        break;
                    }
                    batch => batch?,
                };
                if NAMES.contains(table) {
                    name(*table, &batch);
                    found.has_names = true;
                    self.named.insert((*table, *number), false);
                    continue;
                }
                let Some(span) = span_of_batch(*table, &batch) else { continue };
                found.add(span);
                let part = self.parts.entry((*table, *number)).or_insert_with(|| Part {
                    table: *table,
                    span,
                    count: 0,
                    rows: Rows::Log(Vec::new()),
                });
                part.count = part.count.saturating_add(batch.num_rows());
                part.span = Span { first: part.span.first.min(span.first), last: part.span.last.max(span.last) };
                if let Rows::Log(batches) = &mut part.rows {
                    batches.push((span, batch));
                }
            }
            // What of a log is torn may only be on its way.
            if let Some(cut) = log.cut().filter(|cut| !cut.is_torn) {
                let why = format!("its last {} bytes: {}", cut.bytes, cut.why);
                self.shelf.note(&Error::Damaged { path: log.path().into(), why });
            }
        }
        for key in foreign {
            self.logs.remove(&key);
        }
        Ok(())
    }

    fn forget_expired(&mut self, sealed: &[(Table, u32)]) {
        let known: std::collections::BTreeSet<_> = sealed.iter().copied().collect();
        self.parts.retain(|key, part| !matches!(part.rows, Rows::Sealed(_)) || known.contains(key));
    }

    fn add_sealed(
        &mut self,
        sealed: Vec<(Table, u32)>,
        found: &mut Found,
        name: &mut impl FnMut(Table, &RecordBatch),
    ) -> session::Result<()> {
        let new: Vec<_> = sealed.into_iter().filter(|key| !self.is_sealed(*key)).collect();
        let (names, events): (Vec<_>, Vec<_>) = new.into_iter().partition(|(table, _)| NAMES.contains(table));
        for (key, span, count) in self.spans(events) {
            let rows = Rows::Sealed(key.1);
            match self.parts.insert(key, Part { table: key.0, span, count, rows }) {
                // Its rows were told when the log was read.
                Some(_) => drop(self.logs.remove(&key)),
                None => found.add(span),
            }
        }
        let order = |table: Table| NAMES.iter().position(|t| *t == table);
        let mut names = names;
        names.sort_by_key(|(table, number)| (order(*table), *number));
        names.retain(|key| {
            self.named.insert(*key, true);
            self.logs.remove(key).is_none()
        });
        found.has_names |= !names.is_empty();
        let Files { shelf, dir, .. } = self;
        shelf.progress.expect(names.len());
        let read = |(table, number): &(Table, u32)| -> (Vec<RecordBatch>, session::Result<()>) {
            let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            let mut batches = Vec::new();
            let read = dir.open_sealed(*table, *number).and_then(|file| {
                scan_verified(*table, file, &columns, |batch| {
                    batches.push(batch.clone());
                    Ok(())
                })
            });
            shelf.progress.step();
            (batches, read)
        };
        // What precedes damage is taken all the same.
        let take = |(table, _): &(Table, u32), (batches, read): (Vec<RecordBatch>, session::Result<()>)| {
            batches.iter().for_each(|batch| name(*table, batch));
            if let Err(error) = read {
                shelf.note(&error);
            }
            Ok(())
        };
        let done = in_order(&names, read, take);
        shelf.progress.clear();
        done
    }

    /// Opens segments, by all threads: it is what the first frame of a long session waits for.
    fn spans(&self, sealed: Vec<(Table, u32)>) -> Vec<((Table, u32), Span, usize)> {
        let shelf = &self.shelf;
        let open = |of: &[(Table, u32)]| -> Vec<((Table, u32), Span, usize)> {
            let open =
                |key: &(Table, u32)| self.dir.open_sealed(key.0, key.1).and_then(|file| open_verified(key.0, file));
            let told = of.iter().inspect(|_| shelf.progress.step()).filter_map(|key| match open(key) {
                Ok(reader) => {
                    let facts = Facts::of(key.0, reader.metadata());
                    Some((*key, facts.span, facts.rows))
                }
                Err(error) => {
                    shelf.note(&error);
                    None
                }
            });
            told.collect()
        };
        shelf.progress.expect(sealed.len());
        let each = sealed.len().div_ceil(threads()).max(16);
        thread::scope(|scope| {
            let threads: Vec<_> = sealed.chunks(each).map(|some| scope.spawn(|| open(some))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        })
    }
}
