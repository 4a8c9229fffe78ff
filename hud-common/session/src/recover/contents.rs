//! What a session's files hold: rows, losses, and what is missing.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use arrow::array::RecordBatch;
use hud_wire::Stream;

use crate::{
    Manifest, REFERENCES, Recovery, SessionDir, StreamAccount, Table, VerifiedFile,
    error::{Error, Result},
    fs,
    scan::{integers, scan_log, scan_verified, texts},
    segment::info_and_longest,
    table_scan::{Skip, each_batch, latest},
};

/// Maximum time for which a recorder buffers rows before it writes them (ns).
const FLUSHED_EVERY: i64 = 100_000_000;

/// The content of the files.
#[derive(Debug, Default)]
pub(super) struct Contents {
    rows: BTreeMap<Table, u64>,
    rows_salvaged: u64,
    bytes_cut: u64,
    /// Logs without a complete row.
    empty: BTreeMap<String, Vec<u32>>,
    /// Sealed segments that cannot be read completely.
    damaged: BTreeMap<String, BTreeSet<u32>>,
    /// The latest time of any row.
    pub(super) newest: Option<i64>,
    /// The latest time of any row before the first incomplete frame.
    before_cut: Option<i64>,
    /// Files of another session, table or number.
    pub(super) foreign: BTreeSet<(Table, String)>,
    /// Ids that rows refer to and that have no row, by the table that lacks the row.
    pub(super) unnamed: BTreeMap<Table, BTreeSet<i64>>,
    /// The last account of each stream.
    accounts: BTreeMap<String, StreamAccount>,
    /// The sum of `drops` of each stream.
    drops: BTreeMap<String, u64>,
}

impl Contents {
    pub(super) fn read(session: &SessionDir, manifest: &Manifest) -> Result<Self> {
        let mut found = Self::default();
        let logs = session.unsealed()?;
        for &table in Table::ALL {
            let mut newest = None;
            let in_logs: HashSet<u32> = logs.iter().filter(|l| l.table == table).map(|l| l.number).collect();
            // The newest first: most of the others are then read only up to their footers.
            for (number, _) in session.sealed(table)?.into_iter().rev() {
                let opened = session.open_sealed(table, number);
                if let Err(Error::Foreign { path, .. }) = &opened {
                    found.is_foreign(table, path);
                }
                if in_logs.contains(&number) {
                    continue;
                }
                if let Err(e) = opened.and_then(|file| found.sealed(table, file, &mut newest)) {
                    found.skip(table, number, e)?;
                }
            }
            for log in logs.iter().filter(|log| log.table == table) {
                let read = scan_log(session, log, |batch| {
                    newest = newest.max(latest(batch));
                    found.note(table, batch);
                    Ok(())
                });
                let reader = match read {
                    Err(Error::Foreign { path, .. }) => {
                        found.is_foreign(table, &path);
                        // There is no segment of its number then.
                        found.empty.entry(table.name().into()).or_default().push(log.number);
                        continue;
                    }
                    read => read?,
                };
                *found.rows.entry(table).or_default() += reader.rows();
                found.rows_salvaged += reader.rows();
                if reader.rows() == 0 {
                    found.empty.entry(table.name().into()).or_default().push(log.number);
                }
                if reader.bytes_cut() > 0 {
                    found.bytes_cut += reader.bytes_cut();
                    let before = newest.unwrap_or(manifest.start);
                    found.before_cut = Some(found.before_cut.map_or(before, |b| b.min(before)));
                }
            }
            found.newest = found.newest.max(newest);
        }
        for to in [Table::Stacks, Table::Frames, Table::Modules, Table::TaskTypes] {
            let missing = missing(session, to, &mut |table, number, e| found.skip(table, number, e))?;
            if !missing.is_empty() {
                found.unnamed.insert(to, missing);
            }
        }
        Ok(found)
    }

    /// Adds a sealed segment.
    fn sealed(&mut self, table: Table, file: VerifiedFile, newest: &mut Option<i64>) -> Result<()> {
        let (info, longest) = info_and_longest(table, file.clone())?;
        *self.rows.entry(table).or_default() += info.rows;
        if table.expires() {
            *newest = (*newest).max(Some(info.last_ts));
            // The end of its last event, which need not be that of its last row.
            if *newest < Some(info.last_ts.saturating_add(longest)) {
                scan_verified(table, file.clone(), &["ts", "dur"], |batch| {
                    *newest = (*newest).max(latest(batch));
                    Ok(())
                })?;
            }
        }
        // Accounts are totals, so the newest is enough; drops are summed.
        if table == Table::Drops || (table == Table::Accounts && self.accounts.is_empty()) {
            scan_verified(table, file, &["ts", "stream", "produced", "stored", "dropped", "lost"], |batch| {
                self.note(table, batch);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Skips a damaged sealed segment; other errors are returned.
    fn skip(&mut self, table: Table, number: u32, error: Error) -> Result<()> {
        match error {
            Error::Damaged { .. } | Error::Foreign { .. } => {
                self.damaged.entry(table.name().into()).or_default().insert(number);
                Ok(())
            }
            other => Err(other),
        }
    }

    fn is_foreign(&mut self, table: Table, path: &Path) {
        self.foreign.insert((table, fs::name(path).to_string_lossy().into_owned()));
    }

    /// Whether all rows counted by the closed session's account exist.
    pub(super) fn is_whole(&self, manifest: &Manifest) -> bool {
        let stored = |name: &str| Table::by_name(name).and_then(|t| self.rows.get(&t)).copied().unwrap_or(0);
        self.bytes_cut == 0
            && self.damaged.is_empty()
            && self.foreign.is_empty()
            && self.unnamed.is_empty()
            && manifest.streams.iter().all(|(name, account)| account.stored == stored(name))
    }

    fn note(&mut self, table: Table, batch: &RecordBatch) {
        let count = |n: &i64| u64::try_from(*n).unwrap_or(0);
        match table {
            Table::Accounts => {
                let [produced, stored, dropped] = ["produced", "stored", "dropped"].map(|c| integers(batch, c));
                let rows = texts(batch, "stream").into_iter().zip(&produced).zip(&stored).zip(&dropped);
                for (((stream, produced), stored), dropped) in rows {
                    // They only grow, so the last is the largest.
                    let last = self.accounts.entry(stream.to_string()).or_default();
                    last.produced = last.produced.max(count(produced));
                    last.stored = last.stored.max(count(stored));
                    last.dropped = last.dropped.max(count(dropped));
                }
            }
            Table::Drops => {
                for (stream, lost) in texts(batch, "stream").into_iter().zip(&integers(batch, "lost")) {
                    let sum = self.drops.entry(stream.to_string()).or_default();
                    *sum = sum.saturating_add(count(lost));
                }
            }
            _ => {}
        }
    }

    pub(super) fn recovery(&self, manifest: &Manifest) -> Recovery {
        let newest = self.newest.unwrap_or(manifest.start);
        let flushed = newest.saturating_sub(FLUSHED_EVERY).max(manifest.start);
        let unnamed = |table| self.unnamed.get(&table).map_or(0, |ids| ids.len() as u64);
        Recovery {
            rows_salvaged: self.rows_salvaged,
            bytes_cut: self.bytes_cut,
            unnamed_stacks: unnamed(Table::Stacks),
            unnamed_others: [Table::Frames, Table::Modules, Table::TaskTypes].map(unnamed).iter().sum(),
            lost_after: self.before_cut.map_or(flushed, |b| b.min(flushed)),
            lost: self.accounts(manifest).1,
            empty_segments: self.empty.clone(),
            damaged_segments: self.damaged.iter().map(|(t, n)| (t.clone(), n.iter().copied().collect())).collect(),
            foreign_files: self.foreign.iter().map(|(table, name)| format!("{}/{name}", table.name())).collect(),
            ended: None,
        }
    }

    /// The account of each stream, and the number of events that the last account counts and that are missing.
    pub(super) fn accounts(&self, manifest: &Manifest) -> (BTreeMap<String, StreamAccount>, BTreeMap<String, u64>) {
        let mut lost = BTreeMap::new();
        let accounts = Stream::ALL.into_iter().map(|stream| {
            let name = stream.name().to_string();
            let stored = Table::by_name(&name).and_then(|t| self.rows.get(&t)).copied().unwrap_or(0);
            let last = self.accounts.get(&name).copied().unwrap_or_default();
            // Complete only if the session was closed.
            let closed = manifest.streams.get(&name).copied().unwrap_or_default();
            let dropped = last.dropped.max(closed.dropped).max(self.drops.get(&name).copied().unwrap_or(0));
            let expired = closed.expired;
            let produced = last.produced.max(closed.produced);
            let known = stored.saturating_add(dropped).saturating_add(expired);
            if let Some(missing) = produced.checked_sub(known).filter(|n| *n > 0) {
                lost.insert(name.clone(), missing);
            }
            (name, StreamAccount { produced: known.max(produced), stored, dropped, expired })
        });
        (accounts.collect(), lost)
    }
}

/// Ids of `to` that rows refer to and that have no row.
pub(super) fn missing(session: &SessionDir, to: Table, skip: &mut Skip<'_>) -> Result<BTreeSet<i64>> {
    let mut known = HashSet::new();
    each_batch(session, to, &[to.key()], |_| true, |batch| known.extend(integers(batch, to.key())), skip)?;
    // Ids are consecutive: up to the first gap, all are known.
    let all_up_to = (1..).take_while(|id| known.contains(id)).last().unwrap_or(0);
    let mut missing = BTreeSet::new();
    for reference in REFERENCES.iter().filter(|r| r.to == to) {
        each_batch(
            session,
            reference.from,
            &[reference.column],
            |range| range.is_none_or(|(least, most)| least < 1 || most > all_up_to),
            |batch| missing.extend(integers(batch, reference.column).into_iter().filter(|id| !known.contains(id))),
            skip,
        )?;
    }
    Ok(missing)
}
