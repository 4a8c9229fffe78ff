//! From a session's growing files to batches, with each row once.
//!
//! Each numbered segment of a table is read in one way: as a log from its first frame to its end, if the log could be
//! opened, or else as the sealed segment. An open log is read on through its descriptor after it has been sealed and
//! removed.

use std::{
    io::ErrorKind,
    path::Path,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use hud_common::{
    cockpit::STATES_REACH,
    session::{self, Error, InflightReader, Manifest, SessionDir, Table, scan_verified, verified_info},
};

use crate::error::Result;

/// Interval of listing a table's folder for missing numbers.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// Damaged parts that are reported.
const MOST_DAMAGE: usize = 100;

/// The tables of the cockpit: events first, so that the names which they refer to are at least as new; among the names,
/// tables that refer to others first.
const TABLES: [Table; 18] = [
    Table::Polls,
    Table::OffCpu,
    Table::Samples,
    Table::Wakes,
    Table::Spawns,
    Table::Ends,
    Table::InProgress,
    Table::TaskStates,
    Table::Coverage,
    Table::Drops,
    Table::Overhead,
    Table::Process,
    Table::Tasks,
    Table::Threads,
    Table::TaskTypes,
    Table::Stacks,
    Table::Frames,
    Table::Modules,
];

/// Whether rows of a table are irrelevant once older than the retained time. `tasks` and `threads` are written once.
fn is_event(table: Table) -> bool {
    table.expires() && !matches!(table, Table::Tasks | Table::Threads)
}

/// Rows are written at their end, so in a segment whose last event began before the window, some may have ended in it.
/// A segment has many polls, so its last one began shortly before the segment's end; a thread may sleep alone. The state of
/// a task holds until another is recorded, and snapshots of all tasks may be as rare.
fn margin(table: Table) -> i64 {
    match table {
        Table::OffCpu => 60_000_000_000,
        Table::Coverage | Table::TaskStates => STATES_REACH,
        _ => 1_000_000_000,
    }
}

/// The position in a table.
struct Cursor {
    table: Table,
    /// The number that is read now or next.
    number: u32,
    log: Option<InflightReader>,
    listed: Option<Instant>,
}

/// Follows a session's files.
pub(super) struct Follower {
    dir: SessionDir,
    cursors: Vec<Cursor>,
    /// Segments that were skipped because all their rows are older than the retained time.
    pub(super) skipped: u64,
    /// Messages about unreadable data, each once.
    pub(super) damage: Vec<String>,
}

impl Follower {
    /// Starts at the session's first remaining segments.
    pub(super) fn new(dir: SessionDir, manifest: &Manifest) -> Self {
        let cursor = |table| Cursor { table, number: manifest.first_segment(table), log: None, listed: None };
        Follower { dir, cursors: TABLES.into_iter().map(cursor).collect(), skipped: 0, damage: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Passes every new batch to `each`, but stops with events at `until`; names are always read, as later rows refer
    /// to them. Segments whose events all ended before `horizon` are skipped. Returns the number of rows, and whether
    /// there are more.
    pub(super) fn read(
        &mut self,
        horizon: i64,
        until: Option<Instant>,
        mut each: impl FnMut(Table, &RecordBatch),
    ) -> Result<(u64, bool)> {
        let (mut rows, mut is_behind) = (0, false);
        for cursor in &mut self.cursors {
            let table = cursor.table;
            let until = until.filter(|_| is_event(table));
            let is_time = || until.is_some_and(|until| Instant::now() >= until);
            let mut take = |batch: &RecordBatch| {
                rows += batch.num_rows() as u64;
                each(table, batch);
                !is_time()
            };
            while cursor.step(&self.dir, horizon, &mut self.skipped, &mut self.damage, &mut take)? {
                if is_time() {
                    is_behind = true;
                    break;
                }
            }
            is_behind |= is_time();
        }
        Ok((rows, is_behind))
    }

    /// Repeats the rows of these tables that are already on disk and have been read.
    pub(super) fn read_again(
        &mut self,
        tables: &[Table],
        horizon: i64,
        mut each: impl FnMut(Table, &RecordBatch),
    ) -> Result<()> {
        for cursor in self.cursors.iter().filter(|p| tables.contains(&p.table)) {
            let read_so_far = cursor.log.as_ref().map(InflightReader::rows);
            for (number, _) in self.dir.sealed(cursor.table)? {
                let is_read = number < cursor.number;
                if is_read
                    && last_ts(&self.dir, cursor.table, number)
                        .is_ok_and(|last| last >= horizon.saturating_sub(margin(cursor.table)))
                {
                    gone_is_none(scan(&self.dir, cursor.table, number, |batch| each(cursor.table, batch)))?;
                }
            }
            let Some(most) = read_so_far else { continue };
            let mut left = usize::try_from(most).unwrap_or(usize::MAX);
            let mut take = |batch: &RecordBatch| {
                // If it was sealed meanwhile, it is in another order: some of its last rows may then be repeated and
                // others missing.
                let rows = batch.num_rows().min(left);
                left -= rows;
                each(cursor.table, &batch.slice(0, rows));
            };
            match self.dir.open_log(cursor.table, cursor.number) {
                Ok(reader) => {
                    for batch in reader {
                        take(&batch?);
                    }
                }
                Err(_) => gone_is_none(scan(&self.dir, cursor.table, cursor.number, take))?,
            }
        }
        Ok(())
    }
}

/// Passes all batches of a sealed segment to `each`.
fn scan(dir: &SessionDir, table: Table, number: u32, mut each: impl FnMut(&RecordBatch)) -> session::Result<()> {
    let columns: Vec<_> = table.columns().iter().map(|c| c.name).collect();
    scan_verified(table, dir.open_sealed(table, number)?, &columns, |batch| {
        each(batch);
        Ok(())
    })
}

/// When the last event of a sealed segment began.
fn last_ts(dir: &SessionDir, table: Table, number: u32) -> session::Result<i64> {
    Ok(verified_info(table, dir.open_sealed(table, number)?)?.last_ts)
}

/// An expired segment, or a log that was sealed, is no error: there is nothing to read.
fn gone_is_none(result: session::Result<()>) -> session::Result<()> {
    match result {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Cursor {
    /// Reads the current log or segment, a log until `each` returns false. Returns whether to continue.
    fn step(
        &mut self,
        dir: &SessionDir,
        horizon: i64,
        skipped: &mut u64,
        damage: &mut Vec<String>,
        each: &mut impl FnMut(&RecordBatch) -> bool,
    ) -> Result<bool> {
        if let Some(log) = &mut self.log {
            for batch in log.by_ref() {
                match batch {
                    Ok(batch) if each(&batch) => {}
                    Ok(_) => return Ok(false),
                    Err(error @ Error::Foreign { .. }) => {
                        note_damage(damage, &error);
                        self.log = None;
                        self.number = self.number.saturating_add(1);
                        return Ok(true);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let is_due = self.listed.is_none_or(|at| at.elapsed() >= LIST_EVERY);
            if !log.is_ended() {
                if !is_due {
                    return Ok(false);
                }
                self.listed = Some(Instant::now());
                if !has_follower(dir, self.table, self.number) {
                    return Ok(false);
                }
                // Rows between the last read and its end.
                for batch in log.by_ref() {
                    each(&batch?);
                }
            }
            if let Some(cut) = log.cut()
                && damage.len() < MOST_DAMAGE
            {
                damage.push(format!("{}: its last {} bytes: {}", log.path().display(), cut.bytes, cut.why));
            }
            self.log = None;
            self.number = self.number.saturating_add(1);
            return Ok(true);
        }
        match dir.open_log(self.table, self.number) {
            Ok(log) => {
                self.log = Some(log);
                return Ok(true);
            }
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        if !dir.has_segment(self.table, self.number) {
            return self.look_on(dir);
        }
        let is_old = is_event(self.table)
            && last_ts(dir, self.table, self.number)
                .is_ok_and(|last| last < horizon.saturating_sub(margin(self.table)));
        if is_old {
            *skipped += 1;
        } else {
            match gone_is_none(scan(dir, self.table, self.number, |batch| {
                each(batch);
            })) {
                Err(error @ (Error::Damaged { .. } | Error::Foreign { .. })) => note_damage(damage, &error),
                read => read?,
            }
        }
        self.number = self.number.saturating_add(1);
        Ok(true)
    }

    /// Continues with the next existing number: numbers may be missing, as expired or never filled.
    fn look_on(&mut self, dir: &SessionDir) -> Result<bool> {
        if self.listed.is_some_and(|at| at.elapsed() < LIST_EVERY) {
            return Ok(false);
        }
        self.listed = Some(Instant::now());
        let logs = dir.unsealed_of(self.table)?.into_iter();
        let numbers = logs.chain(dir.sealed(self.table)?).map(|(number, _)| number);
        match numbers.filter(|n| *n >= self.number).min() {
            Some(next) if next > self.number => {
                self.number = next;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Notes unreadable data, within bounds.
fn note_damage(damage: &mut Vec<String>, error: &Error) {
    if damage.len() < MOST_DAMAGE {
        damage.push(error.to_string());
    }
}

/// Whether a log's writer has continued with another: then it is complete, though its end was not marked.
fn has_follower(dir: &SessionDir, table: Table, number: u32) -> bool {
    let next = number.saturating_add(1);
    dir.has_segment(table, number) || dir.has_log(table, next) || dir.has_segment(table, next)
}
