//! A table's sealed segments: each is read whole; what is not as it should be is set aside, and what can be read of it
//! goes into a new one. What is missing is told.

use std::{collections::BTreeSet, fs, io, path::Path};

use hud_common::session::{Error as SessionError, Recovery, Table, VerifiedFile, verified_info};

use super::{mend::Mender, salvage::salvage};
use crate::{
    error::{Error, Result},
    progress::Step,
    roll::{Roller, Target},
    rows::{self, keys, unknown_column},
};

/// Numbers that may be missing in a row: a file whose number leaps over more was never named by hud.
const LEAP: u32 = 10_000;
/// Of a segment that salvaged rows go to: as the recorder rolls.
pub(super) const TARGET: Target = Target { rows: 1 << 20, bytes: 64 << 20 };

/// A stretch of a table of which rows are gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) from: i64,
    pub(super) to: i64,
    /// How many, where that is known.
    pub(super) rows: Option<u64>,
}

/// What is wrong with a segment.
enum Fault {
    Broken(String),
    Unsorted,
    Empty,
}

impl Mender<'_, '_> {
    /// Mends a table's sealed segments.
    pub(super) fn segments(&mut self, table: Table) -> Result<()> {
        self.number(table)?;
        let segments = self.dir.sealed(table)?;
        let all = segments.len() as u64;
        for (done, (number, _)) in segments.into_iter().enumerate() {
            self.watch.tell(Step::Mending, table, done as u64, all)?;
            let opened = self.dir.open_sealed(table, number);
            let file = opened.as_ref().ok().cloned();
            let Some(fault) = check(table, opened)? else { continue };
            self.mend(table, number, file, &fault)?;
        }
        Ok(())
    }

    /// Removes what had expired, and names anew what no recorder has named so.
    fn number(&mut self, table: Table) -> Result<()> {
        let first = self.manifest.first_segment(table);
        let mut next = first;
        for (number, path) in self.dir.sealed(table)? {
            if number < first {
                self.dir.remove_segment(table, number)?;
                self.did(format!("removed {}, which had expired", name(table, number)))?;
                continue;
            }
            let mut number = number;
            if number - next > LEAP {
                let to = self.dir.segment(table, next);
                fs::rename(&path, &to).map_err(Error::io("rename", &path))?;
                self.did(format!("named {} anew: {}", name(table, number), name(table, next)))?;
                number = next;
            }
            next = number.saturating_add(1);
        }
        Ok(())
    }

    /// Sets a segment aside; `file` is what it is, where it could be opened and is this session's.
    fn mend(&mut self, table: Table, number: u32, file: Option<VerifiedFile>, fault: &Fault) -> Result<()> {
        let told = file.clone().and_then(|file| verified_info(table, file).ok());
        // What it was made from is still there: recovery makes it again.
        let is_in_log = self.dir.has_log(table, number);
        let mut out = Roller::to_segments(self.bench, table, TARGET, self.next_number(table)?).with_any_order();
        let mut rows = 0;
        if let Some(file) = file.filter(|_| !is_in_log) {
            let lost_columns = unknown_column(table, file.clone()).ok().flatten();
            salvage(table, file, &mut |batch| {
                rows += batch.num_rows() as u64;
                out.push(batch, self.watch)
            })?;
            if let Some(column) = lost_columns {
                self.notes.insert(format!("{}: its column {column} is a newer hud's", name(table, number)));
            }
        }
        let made = out.finish(self.watch)?;
        self.bench.set_aside(Path::new(&name(table, number)), &mut *self.watch.step)?;
        let why = match fault {
            Fault::Broken(why) => why.as_str(),
            Fault::Unsorted => "it is not sorted",
            Fault::Empty => "it has no row",
        };
        let of = told.map_or(String::new(), |t| format!(" of {}", t.rows));
        let salvaged = match (is_in_log, made.is_empty()) {
            (true, _) => "its log is still there".into(),
            (_, true) => format!("no row{of} can be read"),
            _ => format!("{rows} rows{of} went into a new segment"),
        };
        self.did(format!("set {} aside: {why}; {salvaged}", name(table, number)))?;
        if is_in_log {
            return Ok(());
        }
        self.salvaged += rows;
        self.is_gone(table, number);
        let lost = told.map(|t| t.rows.saturating_sub(rows));
        if lost != Some(0) {
            let (from, to) = told.map_or((i64::MIN, i64::MAX), |t| (t.first_ts, t.last_ts));
            self.holes.entry(table).or_default().push(Hole { from, to, rows: lost });
        }
        Ok(())
    }

    /// Finds numbers that no segment has.
    pub(super) fn missing(&mut self, table: Table) -> Result<()> {
        let told = |r: &Recovery| r.empty_segments.get(table.name()).cloned().unwrap_or_default();
        let told: BTreeSet<u32> = self.manifest.recovery.as_ref().map(told).unwrap_or_default().into_iter().collect();
        let mut next = self.manifest.first_segment(table);
        let mut last = i64::MIN;
        for (number, _) in self.dir.sealed(table)? {
            let info = verified_info(table, self.dir.open_sealed(table, number)?)?;
            let gone: Vec<u32> = (next..number).filter(|n| !told.contains(n)).collect();
            let is_known = |n: &u32| self.gone.get(&table).is_some_and(|gone| gone.contains(n));
            let news: Vec<u32> = gone.iter().copied().filter(|n| !is_known(n)).collect();
            if let (Some(from), Some(to)) = (news.first(), news.last()) {
                let which = if from == to { name(table, *from) } else { format!("{} to {to:06}", name(table, *from)) };
                self.did(format!("noted that {which} are missing ({})", news.len()))?;
                self.holes.entry(table).or_default().push(Hole { from: last, to: info.first_ts, rows: None });
            }
            for number in gone {
                self.is_gone(table, number);
            }
            next = number.saturating_add(1);
            last = last.max(info.last_ts);
        }
        Ok(())
    }

    /// That there is no such segment any more.
    pub(super) fn is_gone(&mut self, table: Table, number: u32) {
        self.gone.entry(table).or_default().insert(number);
    }
}

/// A segment's name, as it is told.
pub(super) fn name(table: Table, number: u32) -> String {
    format!("{}/{number:06}.parquet", table.name())
}

/// Reads all of a segment; what is wrong with it.
fn check(table: Table, opened: Result<VerifiedFile, SessionError>) -> Result<Option<Fault>> {
    let (mut last, mut rows, mut is_sorted) = (i64::MIN, 0, true);
    let read = |file: VerifiedFile| -> Result<()> {
        file.check_all()?;
        rows::scan(table, file.clone(), |batch| {
            rows += batch.num_rows();
            for &key in keys(table, file.path(), batch)? {
                is_sorted &= last <= key;
                last = key;
            }
            Ok(())
        })
    };
    Ok(match opened.map_err(Error::from).and_then(read) {
        Ok(()) if rows == 0 => Some(Fault::Empty),
        Ok(()) => (!is_sorted).then_some(Fault::Unsorted),
        Err(Error::Session(SessionError::Damaged { why, .. } | SessionError::Foreign { why, .. })) => {
            Some(Fault::Broken(why))
        }
        // A disk that does not give what it holds, or a folder of that name. What is not ours to read is no damage.
        Err(Error::Session(SessionError::Io { source, .. })) if source.kind() != io::ErrorKind::PermissionDenied => {
            Some(Fault::Broken(source.to_string()))
        }
        Err(other) => return Err(other),
    })
}
