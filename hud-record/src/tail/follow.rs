//! From a session's files to batches, as they grow: each row once.
//!
//! A table's segments have numbers, and each is read one way: as a log from its first frame to its end, if the log could be
//! opened, or else as the sealed segment. A log that was opened is read on by its descriptor, whatever becomes of its
//! name, so sealing is not even noticed.

use std::{
    io::ErrorKind,
    path::Path,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use hud_common::session::{self, Error, InflightReader, Manifest, SessionDir, Table, scan_verified, verified_info};

use crate::error::Result;

/// How often to look through a table's folder for numbers that were left out.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// Damaged parts that are named.
const MOST_DAMAGE: usize = 100;

/// The tables that a cockpit is made of: events first, so that the names which they refer to are as new as they; and of
/// the names those first that refer to the others.
const TABLES: [Table; 16] = [
    Table::Polls,
    Table::OffCpu,
    Table::Samples,
    Table::Wakes,
    Table::Spawns,
    Table::Ends,
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

/// Whether rows of a table say nothing any more once they are older than what is kept. `tasks`, `threads` are told once.
fn is_event(table: Table) -> bool {
    table.expires() && !matches!(table, Table::Tasks | Table::Threads)
}

/// Rows are written as they end, so of a segment whose last event began before the window some may have ended in it. A
/// segment has many polls, so its last one began shortly before the segment's end; a thread may sleep alone.
fn margin(table: Table) -> i64 {
    match table {
        Table::OffCpu | Table::Coverage => 60_000_000_000,
        _ => 1_000_000_000,
    }
}

/// A table's place.
struct Place {
    table: Table,
    /// The number to be read next, or being read.
    number: u32,
    log: Option<InflightReader>,
    listed: Option<Instant>,
}

/// Follows a session's files.
pub(super) struct Follower {
    dir: SessionDir,
    places: Vec<Place>,
    /// Segments that were not read, as all they hold is older than what is kept.
    pub(super) passed_over: u64,
    /// What could not be read, and why: told once.
    pub(super) damage: Vec<String>,
}

impl Follower {
    /// From the session's beginning, or from what it still has.
    pub(super) fn new(dir: SessionDir, manifest: &Manifest) -> Self {
        let place = |table| Place { table, number: manifest.first_segment(table), log: None, listed: None };
        Follower { dir, places: TABLES.into_iter().map(place).collect(), passed_over: 0, damage: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives `each` every batch that has come since, but stops with events once it is `until`; names are always read, as
    /// rows that come later refer to them. Segments of events of which all ended before `horizon` are passed over unread.
    /// Gives how many rows there were, and whether more are there.
    pub(super) fn read(
        &mut self,
        horizon: i64,
        until: Option<Instant>,
        mut each: impl FnMut(Table, &RecordBatch),
    ) -> Result<(u64, bool)> {
        let (mut rows, mut is_behind) = (0, false);
        for place in &mut self.places {
            let table = place.table;
            let until = until.filter(|_| is_event(table));
            let is_time = || until.is_some_and(|until| Instant::now() >= until);
            let mut take = |batch: &RecordBatch| {
                rows += batch.num_rows() as u64;
                each(table, batch);
                !is_time()
            };
            while place.step(&self.dir, horizon, &mut self.passed_over, &mut self.damage, &mut take)? {
                if is_time() {
                    is_behind = true;
                    break;
                }
            }
            is_behind |= is_time();
        }
        Ok((rows, is_behind))
    }

    /// The same once more for the rows of these tables that are on the disk already, of those read so far.
    pub(super) fn read_again(
        &mut self,
        tables: &[Table],
        horizon: i64,
        mut each: impl FnMut(Table, &RecordBatch),
    ) -> Result<()> {
        for place in self.places.iter().filter(|p| tables.contains(&p.table)) {
            let read_so_far = place.log.as_ref().map(InflightReader::rows);
            for (number, _) in self.dir.sealed(place.table)? {
                let is_read = number < place.number;
                if is_read
                    && last_ts(&self.dir, place.table, number)
                        .is_ok_and(|last| last >= horizon.saturating_sub(margin(place.table)))
                {
                    gone_is_none(scan(&self.dir, place.table, number, |batch| each(place.table, batch)))?;
                }
            }
            let Some(most) = read_so_far else { continue };
            let mut left = usize::try_from(most).unwrap_or(usize::MAX);
            let mut take = |batch: &RecordBatch| {
                // Sealed meanwhile, it is in another order: then some of its last rows may be told twice and others not.
                let rows = batch.num_rows().min(left);
                left -= rows;
                each(place.table, &batch.slice(0, rows));
            };
            match self.dir.open_log(place.table, place.number) {
                Ok(reader) => {
                    for batch in reader {
                        take(&batch?);
                    }
                }
                Err(_) => gone_is_none(scan(&self.dir, place.table, place.number, take))?,
            }
        }
        Ok(())
    }
}

/// Gives `each` all batches of a sealed segment.
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

/// What has expired or was sealed away is no error: there is nothing to read.
fn gone_is_none(result: session::Result<()>) -> session::Result<()> {
    match result {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Place {
    /// Reads what the segment or log of the present number has, a log until `each` says that it is time. Gives whether to
    /// go on.
    fn step(
        &mut self,
        dir: &SessionDir,
        horizon: i64,
        passed_over: &mut u64,
        damage: &mut Vec<String>,
        each: &mut impl FnMut(&RecordBatch) -> bool,
    ) -> Result<bool> {
        if let Some(log) = &mut self.log {
            for batch in log.by_ref() {
                match batch {
                    Ok(batch) if each(&batch) => {}
                    Ok(_) => return Ok(false),
                    Err(error @ Error::Foreign { .. }) => {
                        told(damage, &error);
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
                // What came between the last look and its end.
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
            *passed_over += 1;
        } else {
            match gone_is_none(scan(dir, self.table, self.number, |batch| {
                each(batch);
            })) {
                Err(error @ (Error::Damaged { .. } | Error::Foreign { .. })) => told(damage, &error),
                read => read?,
            }
        }
        self.number = self.number.saturating_add(1);
        Ok(true)
    }

    /// Numbers may be left out: expired, or never filled. Goes to the next one there is.
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

/// Notes what could not be read, within bounds.
fn told(damage: &mut Vec<String>, error: &Error) {
    if damage.len() < MOST_DAMAGE {
        damage.push(error.to_string());
    }
}

/// Whether a log's writer has gone on: then it is whole, though its end could not be marked.
fn has_follower(dir: &SessionDir, table: Table, number: u32) -> bool {
    let next = number.saturating_add(1);
    dir.has_segment(table, number) || dir.has_log(table, next) || dir.has_segment(table, next)
}
