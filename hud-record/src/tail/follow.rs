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
use hud_common::session::{self, Error, InflightReader, Manifest, SessionDir, Table, scan_segment, segment_info};

use crate::error::Result;

/// How often to look through a table's folder for numbers that were left out.
const LIST_EVERY: Duration = Duration::from_secs(1);

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
            for (number, path) in self.dir.sealed(place.table)? {
                let is_read = number < place.number;
                if is_read
                    && segment_info(place.table, &path)
                        .is_ok_and(|info| info.last_ts >= horizon.saturating_sub(margin(place.table)))
                {
                    let columns: Vec<_> = place.table.columns().iter().map(|c| c.name).collect();
                    gone_is_none(scan_segment(place.table, &path, &columns, |batch| {
                        each(place.table, batch);
                        Ok(())
                    }))?;
                }
            }
            let Some(most) = read_so_far else { continue };
            let log = self.dir.log(place.table, place.number);
            let segment = self.dir.segment(place.table, place.number);
            let mut left = usize::try_from(most).unwrap_or(usize::MAX);
            let mut take = |batch: &RecordBatch| {
                // Sealed meanwhile, it is in another order: then some of its last rows may be told twice and others not.
                let rows = batch.num_rows().min(left);
                left -= rows;
                each(place.table, &batch.slice(0, rows));
            };
            match InflightReader::open(place.table, &log) {
                Ok(reader) => {
                    for batch in reader {
                        take(&batch?);
                    }
                }
                Err(_) => {
                    let columns: Vec<_> = place.table.columns().iter().map(|c| c.name).collect();
                    gone_is_none(scan_segment(place.table, &segment, &columns, |batch| {
                        take(batch);
                        Ok(())
                    }))?;
                }
            }
        }
        Ok(())
    }
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
                if !each(&batch?) {
                    return Ok(false);
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
                && damage.len() < 100
            {
                damage.push(format!("{}: its last {} bytes: {}", log.path().display(), cut.bytes, cut.why));
            }
            self.log = None;
            self.number = self.number.saturating_add(1);
            return Ok(true);
        }
        match InflightReader::open(self.table, &dir.log(self.table, self.number)) {
            Ok(log) => {
                self.log = Some(log);
                return Ok(true);
            }
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let segment = dir.segment(self.table, self.number);
        if !segment.exists() {
            return self.look_on(dir);
        }
        let is_old = is_event(self.table)
            && segment_info(self.table, &segment).is_ok_and(|i| i.last_ts < horizon.saturating_sub(margin(self.table)));
        if is_old {
            *passed_over += 1;
        } else {
            let columns: Vec<_> = self.table.columns().iter().map(|c| c.name).collect();
            let read = gone_is_none(scan_segment(self.table, &segment, &columns, |batch| {
                each(batch);
                Ok(())
            }));
            match read {
                Err(error @ Error::Damaged { .. }) if damage.len() < 100 => damage.push(error.to_string()),
                Err(Error::Damaged { .. }) => {}
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

/// Whether a log's writer has gone on: then it is whole, though its end could not be marked.
fn has_follower(dir: &SessionDir, table: Table, number: u32) -> bool {
    let next = number.saturating_add(1);
    dir.segment(table, number).exists() || dir.log(table, next).exists() || dir.segment(table, next).exists()
}
