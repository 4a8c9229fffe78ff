//! A full disk: rows that are counted, rows that are held, and a reserve for the end.
//!
//! Rows of events are counted by table and dropped. Names that later rows refer to, and records of losses, are held in
//! memory up to a bound; beyond it, names are kept as ranges of ids and written as empty rows. So after a pause every
//! id still has its row, and every missing row is in `drops`.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int64Type,
};
use hud_common::session::{Columns as _, DropColumns, DropRow, Error, Result, SessionDir, Table, unnamed};

use super::account::KernelAccount;

/// Bytes that may be held: the names of about 20,000 new stacks.
const MOST_HELD: usize = 8 << 20;
/// Free space below which resuming is not tried.
const LEAST_ROOM: u64 = 1 << 20;
/// Interval of checks for free space.
const RETRY: Duration = Duration::from_secs(1);
/// Rows of a batch of empty names.
const EMPTY_AT_ONCE: i64 = 4096;

/// A pause of writing while the disk is full.
pub(super) struct Pause {
    pub(super) began: Instant,
    since: i64,
    due: Instant,
    /// Rows dropped since `since`, by table.
    dropped: BTreeMap<Table, u64>,
    pub(super) rows_dropped: u64,
    held: VecDeque<(Table, RecordBatch)>,
    held_bytes: usize,
    /// Once names did not fit, no later ones are held: a stack must not be stored before its frames.
    is_over: bool,
    is_emptied: bool,
    /// First and last id of dropped names, by table.
    lost_names: BTreeMap<Table, (i64, i64)>,
    /// The latest account that could not be written.
    pub(super) account: Option<(i64, Vec<KernelAccount>)>,
}

impl Pause {
    pub(super) fn new(now: i64) -> Self {
        Pause {
            began: Instant::now(),
            since: now,
            due: Instant::now() + RETRY,
            dropped: BTreeMap::new(),
            rows_dropped: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            is_over: false,
            is_emptied: false,
            lost_names: BTreeMap::new(),
            account: None,
        }
    }

    /// Takes a batch that cannot be written. Returns how many of its rows are lost.
    pub(super) fn hold(&mut self, table: Table, batch: RecordBatch) -> u64 {
        let bytes = batch.get_array_memory_size();
        if waits(table) {
            if !self.is_over && self.held_bytes.saturating_add(bytes) <= MOST_HELD {
                self.held_bytes += bytes;
                self.held.push_back((table, batch));
                return 0;
            }
            self.is_over = true;
            if is_name(table) {
                self.lose_names(table, &batch);
                return 0;
            }
        }
        let rows = batch.num_rows() as u64;
        *self.dropped.entry(table).or_default() += rows;
        self.rows_dropped += rows;
        rows
    }

    fn lose_names(&mut self, table: Table, batch: &RecordBatch) {
        let ids = batch.column(0).as_primitive_opt::<Int64Type>();
        for id in ids.into_iter().flat_map(|ids| ids.values().iter().copied()) {
            let range = self.lost_names.entry(table).or_insert((id, id));
            *range = (range.0.min(id), range.1.max(id));
        }
    }

    /// Whether to check for free space again; then the next check is due a second later.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = Instant::now() >= self.due;
        if is_due {
            self.due = Instant::now() + RETRY;
        }
        is_due
    }

    /// Whether the file system reports enough free space. If it cannot (a quota), writing will show it.
    pub(super) fn may_fit(&self, folder: &Path) -> bool {
        let need = LEAST_ROOM + RESERVE + self.held_bytes as u64;
        rustix::fs::statvfs(folder).map_or(true, |fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= need)
    }

    /// Turns the losses so far into rows, which are held as well.
    pub(super) fn prepare(&mut self, now: i64) {
        let mut rows = DropColumns::default();
        for (table, lost) in std::mem::take(&mut self.dropped) {
            rows.push(DropRow {
                ts: self.since,
                dur: now - self.since,
                stream: table.name().into(),
                stage: "disk".into(),
                lost: i64::try_from(lost).unwrap_or(i64::MAX),
            });
        }
        self.since = now;
        if !rows.is_empty() {
            self.held.push_back((Table::Drops, rows.finish()));
        }
    }

    /// Puts records of losses before names.
    pub(super) fn losses_first(&mut self) {
        self.held.make_contiguous().sort_by_key(|(table, _)| is_name(*table));
    }

    /// The next batch to be written.
    pub(super) fn next(&mut self) -> Option<(Table, RecordBatch)> {
        if let Some((table, batch)) = self.held.pop_front() {
            self.held_bytes = self.held_bytes.saturating_sub(batch.get_array_memory_size());
            return Some((table, batch));
        }
        for table in [Table::Modules, Table::Frames, Table::Stacks] {
            if let Some((first, last)) = self.lost_names.get_mut(&table) {
                let start = *first;
                let end = (*last).min(start.saturating_add(EMPTY_AT_ONCE - 1));
                let is_done = end == *last;
                *first = end + 1;
                if is_done {
                    self.lost_names.remove(&table);
                }
                return Some((table, unnamed(table, start..=end)));
            }
        }
        None
    }

    /// Takes back a batch from [`Pause::next`].
    pub(super) fn put_back(&mut self, table: Table, batch: RecordBatch) {
        self.held_bytes += batch.get_array_memory_size();
        self.held.push_front((table, batch));
    }

    /// Replaces held names by empty ones. Returns false if there are none left.
    pub(super) fn empty_names(&mut self) -> bool {
        if std::mem::replace(&mut self.is_emptied, true) {
            return false;
        }
        self.is_over = true;
        let held = std::mem::take(&mut self.held);
        let mut any = false;
        for (table, batch) in held {
            // Rows refer to stacks only; nothing needs a frame of an empty stack.
            if table == Table::Stacks {
                any = true;
                self.lose_names(table, &batch);
            }
        }
        self.held_bytes = 0;
        // Dropped frames and modules belong to dropped stacks.
        any |= self.lost_names.remove(&Table::Frames).is_some() | self.lost_names.remove(&Table::Modules).is_some();
        any
    }
}

/// Whether a table's rows are held. Rows of events are not, as their number is unbounded.
pub(super) fn waits(table: Table) -> bool {
    is_name(table) || !table.expires() || matches!(table, Table::Drops | Table::Coverage)
}

fn is_name(table: Table) -> bool {
    matches!(table, Table::Modules | Table::Frames | Table::Stacks)
}

/// Size of the reserve (bytes).
const RESERVE: u64 = 256 << 10;

/// A small file that is removed when the disk is full, so that losses and the manifest can be written.
pub(super) struct Reserve {
    session: SessionDir,
    is_there: bool,
}

/// Its name in the session's folder.
const RESERVE_FILE: &str = ".reserve";

impl Reserve {
    pub(super) fn new(session: &SessionDir) -> Self {
        Reserve { session: session.clone(), is_there: false }
    }

    /// Writes it, completely or not at all.
    pub(super) fn fill(&mut self) -> Result<()> {
        if self.is_there {
            return Ok(());
        }
        let write = || {
            let folder = self.session.folder()?;
            // An existing one is a former recorder's, or a link.
            match folder.remove(RESERVE_FILE) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = folder.new_file(RESERVE_FILE)?;
            // Written out: not every file system can allocate blocks, and a hole reserves nothing.
            let block = [0x55; 4096];
            for _ in 0..RESERVE / block.len() as u64 {
                file.write_all(&block)?;
            }
            Ok(())
        };
        let done = write().map_err(Error::io("write", &self.session.path().join(RESERVE_FILE)));
        self.is_there = done.is_ok();
        if !self.is_there {
            self.remove();
        }
        done
    }

    /// Removes it.
    pub(super) fn free(&mut self) {
        self.remove();
        self.is_there = false;
    }

    fn remove(&self) {
        // One that cannot be removed frees nothing; that is no loss either.
        let _ = self.session.folder().and_then(|folder| folder.remove(RESERVE_FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(ids: std::ops::RangeInclusive<i64>) -> RecordBatch {
        unnamed(Table::Stacks, ids)
    }

    fn written(pause: &mut Pause) -> Vec<(Table, usize)> {
        std::iter::from_fn(|| pause.next()).map(|(t, b)| (t, b.num_rows())).collect()
    }

    #[test]
    fn names_wait_and_rows_are_counted() {
        let mut pause = Pause::new(100);
        assert_eq!(pause.hold(Table::Stacks, stacks(1..=3)), 0);
        // Any batch will do for a table whose rows are only counted.
        assert_eq!(pause.hold(Table::Polls, stacks(1..=5)), 5);
        pause.prepare(200);
        assert_eq!(written(&mut pause), [(Table::Stacks, 3), (Table::Drops, 1)]);
        pause.prepare(300);
        assert_eq!(written(&mut pause), []);
    }

    #[test]
    fn names_past_the_bound_are_written_empty() {
        let mut pause = Pause::new(100);
        pause.is_over = true;
        assert_eq!(pause.hold(Table::Frames, unnamed(Table::Frames, 7..=9)), 0);
        assert_eq!(pause.hold(Table::Stacks, stacks(4..=5000)), 0);
        assert_eq!(pause.hold(Table::Stacks, stacks(5001..=5002)), 0);
        assert_eq!(written(&mut pause), [(Table::Frames, 3), (Table::Stacks, 4096), (Table::Stacks, 903)]);
    }

    #[test]
    fn at_the_end_stacks_may_be_emptied_but_not_left_out() {
        let mut pause = Pause::new(100);
        pause.hold(Table::Frames, unnamed(Table::Frames, 1..=100));
        pause.hold(Table::Stacks, stacks(1..=10));
        let (table, batch) = pause.next().unwrap();
        pause.put_back(table, batch);
        assert!(pause.empty_names());
        assert_eq!(written(&mut pause), [(Table::Stacks, 10)]);
        assert!(!pause.empty_names());
    }
}
