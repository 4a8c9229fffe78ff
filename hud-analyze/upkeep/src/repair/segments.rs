//! Repairs a table's sealed segments: each is read completely; a damaged one is set aside, and its intact rows are written to a new
//! one. Missing segments are recorded.

use std::{collections::BTreeSet, fs, io, path::Path};

use hud_common::session::{Error as SessionError, Recovery, Table, VerifiedFile, verified_info};

use super::{
    mend::{Hole, Mender},
    salvage::salvage,
};
use crate::{
    error::{Error, Result},
    progress::Step,
    roll::{Roller, Target},
    rows::{self, keys, unknown_column},
};

/// Maximum gap in segment numbers: a file with a higher number was not named by hud.
const LEAP: u32 = 10_000;
/// Size of segments with salvaged rows: that of the recorder's.
pub(super) const TARGET: Target = Target { rows: 1 << 20, bytes: 64 << 20 };

/// Why a segment is not valid.
enum Fault {
    Broken(String),
    Unsorted,
    Empty,
}

impl Mender<'_, '_> {
    /// Repairs a table's sealed segments.
    pub(super) fn segments(&mut self, table: Table) -> Result<()> {
        self.number(table)?;
        let segments = self.dir.sealed(table)?;
        let all = segments.len() as u64;
        for (done, (number, _)) in segments.into_iter().enumerate() {
            self.watch.report(Step::Repairing, table, done as u64, all)?;
            let opened = self.dir.open_sealed(table, number);
            let file = opened.as_ref().ok().cloned();
            let Some(fault) = check(table, opened)? else { continue };
            self.mend(table, number, file, &fault)?;
        }
        Ok(())
    }

    /// Removes expired segments, and renames those with numbers that no recorder gives.
    fn number(&mut self, table: Table) -> Result<()> {
        let first = self.manifest.first_segment(table);
        let mut next = first;
        for (number, path) in self.dir.sealed(table)? {
            if number < first {
                self.dir.remove_segment(table, number)?;
                self.did(format!("removed {}, which has expired", name(table, number)))?;
                continue;
            }
            let mut number = number;
            if number - next > LEAP {
                let to = self.dir.segment(table, next);
                fs::rename(&path, &to).map_err(Error::io("rename", &path))?;
                self.did(format!("renamed {} to {}", name(table, number), name(table, next)))?;
                number = next;
            }
            next = number.saturating_add(1);
        }
        Ok(())
    }

    /// Sets a segment aside. `file` is its file, if it could be opened and belongs to this session.
    fn mend(&mut self, table: Table, number: u32, file: Option<VerifiedFile>, fault: &Fault) -> Result<()> {
        let footer = file.clone().and_then(|file| verified_info(table, file).ok());
        // Its log still exists: recovery seals it again.
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
                self.notes
                    .insert(format!("{}: its column {column} is from a newer version of hud", name(table, number)));
            }
        }
        let made = out.finish(self.watch)?;
        self.bench.set_aside(Path::new(&name(table, number)), &mut *self.watch.step)?;
        let why = match fault {
            Fault::Broken(why) => why.as_str(),
            Fault::Unsorted => "it is not sorted",
            Fault::Empty => "it has no row",
        };
        let of = footer.map_or(String::new(), |t| format!(" of {}", t.rows));
        let salvaged = match (is_in_log, made.is_empty()) {
            (true, _) => "its log is still there".into(),
            (_, true) => format!("no row{of} is intact"),
            _ => format!("{rows} rows{of} are kept in a new segment"),
        };
        self.did(format!("set {} aside: {why}; {salvaged}", name(table, number)))?;
        if is_in_log {
            return Ok(());
        }
        self.salvaged += rows;
        self.is_gone(table, number);
        let lost = footer.map(|t| t.rows.saturating_sub(rows));
        if lost != Some(0) {
            let (from, to) = footer.map_or((i64::MIN, i64::MAX), |t| (t.first_ts, t.last_ts));
            self.holes.entry(table).or_default().push(Hole { from, to, rows: lost });
        }
        Ok(())
    }

    /// Finds missing segments.
    pub(super) fn missing(&mut self, table: Table) -> Result<()> {
        let recorded = |r: &Recovery| r.empty_segments.get(table.name()).cloned().unwrap_or_default();
        let recorded: BTreeSet<u32> =
            self.manifest.recovery.as_ref().map(recorded).unwrap_or_default().into_iter().collect();
        let mut next = self.manifest.first_segment(table);
        let mut last = i64::MIN;
        for (number, _) in self.dir.sealed(table)? {
            let info = verified_info(table, self.dir.open_sealed(table, number)?)?;
            let gone: Vec<u32> = (next..number).filter(|n| !recorded.contains(n)).collect();
            let is_known = |n: &u32| self.gone.get(&table).is_some_and(|gone| gone.contains(n));
            let news: Vec<u32> = gone.iter().copied().filter(|n| !is_known(n)).collect();
            if let (Some(from), Some(to)) = (news.first(), news.last()) {
                let which = if from == to { name(table, *from) } else { format!("{} to {to:06}", name(table, *from)) };
                self.did(format!("recorded that {which} are missing ({})", news.len()))?;
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

    /// Records that a segment was removed.
    pub(super) fn is_gone(&mut self, table: Table, number: u32) {
        self.gone.entry(table).or_default().insert(number);
    }
}

/// A segment's path in the session.
pub(super) fn name(table: Table, number: u32) -> String {
    format!("{}/{number:06}.parquet", table.name())
}

/// Reads all of a segment. Returns why it is not valid.
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
        // A read error of the disk, or a folder with that name. Missing permission is no damage.
        Err(Error::Session(SessionError::Io { source, .. })) if source.kind() != io::ErrorKind::PermissionDenied => {
            Some(Fault::Broken(source.to_string()))
        }
        Err(other) => return Err(other),
    })
}
