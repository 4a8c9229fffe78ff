//! Corrects the accounts of a repaired session: lost rows are added to `drops` (stage `damaged`), so that each stream adds up.

use std::collections::BTreeMap;

use hud_common::{
    session::{
        AccountColumns, AccountRow, Columns as _, DropColumns, DropRow, REFERENCES, StreamAccount, Table, encode_for,
        integers, scan_verified, texts, verified_info,
    },
    wire::Stream,
};

use super::{
    mend::{Hole, Mender},
    segments::name,
};
use crate::{error::Result, rows};

/// Stage of rows that were stored and are lost.
pub(super) const DAMAGED: &str = "damaged";
/// Stage of events that were dropped and whose rows in `drops` are lost.
const UNKNOWN: &str = "unknown";

/// Sums of the table `drops`.
#[derive(Default)]
struct Drops {
    all: BTreeMap<String, u64>,
    damaged: BTreeMap<String, u64>,
}

impl Mender<'_, '_> {
    /// Corrects the accounts. `is_fresh`: recovery has just counted the stored rows, and the rest as lost.
    pub(super) fn accounts(&mut self, is_fresh: bool) -> Result<()> {
        self.accounts_grow()?;
        let drops = self.drops()?;
        let mut rows = Vec::new();
        for stream in Stream::ALL {
            let Some(table) = Table::by_name(stream.name()) else { continue };
            self.stream(table, &drops, is_fresh, &mut rows)?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        let mut columns = DropColumns::default();
        rows.into_iter().for_each(|row| columns.push(row));
        let at = self.dir.table(Table::Drops);
        let number = self.next_number(Table::Drops)?;
        if let Some(encoded) =
            encode_for(&self.dir, Table::Drops, number, &[columns.finish()]).map_err(rows::arrow(&at))?
        {
            self.bench.put(Table::Drops, number, &encoded.data, &mut *self.watch.step)?;
        }
        Ok(())
    }

    fn stream(&mut self, table: Table, recorded: &Drops, is_fresh: bool, rows: &mut Vec<DropRow>) -> Result<()> {
        let stream = table.name();
        let mut present = 0_u64;
        for (number, _) in self.dir.sealed(table)? {
            let info = verified_info(table, self.dir.open_sealed(table, number)?)?;
            present = present.saturating_add(info.rows);
        }
        let Some(mut account) = self.manifest.streams.get(stream).copied() else { return Ok(()) };
        let before = account;
        let mut lost = self.manifest.recovery.as_ref().and_then(|r| r.lost.get(stream).copied()).unwrap_or(0);
        let lost_before = lost;

        // Drops whose rows are lost, or that the account does not contain.
        let of_drops = recorded.all.get(stream).copied().unwrap_or(0);
        account.dropped = account.dropped.max(of_drops);
        let unrecorded = account.dropped.saturating_sub(of_drops);
        if unrecorded > 0 && self.manifest.complete && self.manifest.first_segment(Table::Drops) <= 1 {
            rows.push(self.drop_row(stream, UNKNOWN, unrecorded, None));
            self.did(format!("added {unrecorded} dropped events of {stream} to drops, whose rows in it are lost"))?;
        }

        let holes = self.holes.get(&table).cloned().unwrap_or_default();
        let gone = match is_fresh {
            // Recovery counts missing rows as lost by the kill.
            true => lost.min(holes.iter().filter_map(|hole| hole.rows).fold(0, u64::saturating_add)),
            false => account.stored.saturating_sub(present),
        };
        if is_fresh {
            lost -= gone;
        }
        if gone > 0 {
            account.dropped = account.dropped.saturating_add(gone);
            self.lost.insert(stream.into(), gone);
            self.did(format!("added {gone} lost rows of {stream} to drops"))?;
            self.spread(stream, gone, &holes, rows);
        }
        account.stored = present;

        // Rows that `accounts` counts and that are missing.
        let counted = self.last_stored(stream)?;
        let damaged = recorded.damaged.get(stream).copied().unwrap_or(0).saturating_add(gone);
        let known = present.saturating_add(account.expired).saturating_add(damaged);
        lost = lost.max(counted.saturating_sub(known));
        let sum = |lost: u64| {
            [account.stored, account.dropped, account.expired, lost].iter().fold(0, |a, b| u64::saturating_add(a, *b))
        };
        lost = lost.saturating_add(account.produced.saturating_sub(sum(lost)));
        account.produced = sum(lost);

        if lost != lost_before {
            let recovery = self.recovery();
            match lost {
                0 => drop(recovery.lost.remove(stream)),
                lost => drop(recovery.lost.insert(stream.into(), lost)),
            }
            if lost > lost_before {
                self.did(format!("recorded that {} events of {stream} are lost", lost - lost_before))?;
            }
        }
        if account != before {
            self.manifest.streams.insert(stream.into(), account);
            if gone == 0 && lost <= lost_before {
                let StreamAccount { produced, stored, dropped, expired } = account;
                self.did(format!(
                    "corrected the account of {stream}: {produced} produced, {stored} stored, {dropped} dropped, {expired} expired"
                ))?;
            }
        }
        Ok(())
    }

    /// Adds rows to `drops`: for each gap its number of rows, and the others for the gaps whose number is unknown.
    fn spread(&self, stream: &'static str, gone: u64, holes: &[Hole], rows: &mut Vec<DropRow>) {
        let mut left = gone;
        for hole in holes {
            let here = hole.rows.unwrap_or(0).min(left);
            if here > 0 {
                left -= here;
                rows.push(self.drop_row(stream, DAMAGED, here, Some(*hole)));
            }
        }
        if left > 0 {
            let unknown = holes.iter().filter(|hole| hole.rows.is_none());
            let all = unknown.copied().reduce(|a, b| Hole { from: a.from.min(b.from), to: a.to.max(b.to), rows: None });
            rows.push(self.drop_row(stream, DAMAGED, left, all));
        }
    }

    fn drop_row(&self, stream: &'static str, stage: &'static str, lost: u64, hole: Option<Hole>) -> DropRow {
        let (start, end) = (self.manifest.start, self.manifest.end.unwrap_or(self.manifest.start));
        let (from, to) = hole.map_or((start, end), |hole| (hole.from, hole.to));
        // An open end is that of the session.
        let ts = if from == i64::MIN { start.min(to) } else { from };
        let to = if to == i64::MAX { end.max(ts) } else { to };
        let dur = to.saturating_sub(ts).max(0);
        DropRow { ts, dur, stream: stream.into(), stage: stage.into(), lost: i64::try_from(lost).unwrap_or(i64::MAX) }
    }

    fn drops(&self) -> Result<Drops> {
        let mut sums = Drops::default();
        for (number, _) in self.dir.sealed(Table::Drops)? {
            scan_verified(
                Table::Drops,
                self.dir.open_sealed(Table::Drops, number)?,
                &["stream", "stage", "lost"],
                |batch| {
                    let streams = texts(batch, "stream").into_iter().zip(texts(batch, "stage"));
                    for ((stream, stage), lost) in streams.zip(integers(batch, "lost")) {
                        let lost = u64::try_from(lost).unwrap_or(0);
                        let add = |sums: &mut BTreeMap<String, u64>| {
                            let sum = sums.entry(stream.into()).or_default();
                            *sum = sum.saturating_add(lost);
                        };
                        add(&mut sums.all);
                        if stage == DAMAGED {
                            add(&mut sums.damaged);
                        }
                    }
                    Ok(())
                },
            )?;
        }
        Ok(sums)
    }

    /// The rows that the last account of a stream counts.
    fn last_stored(&self, stream: &str) -> Result<u64> {
        let mut last = 0;
        for (number, _) in self.dir.sealed(Table::Accounts)? {
            scan_verified(
                Table::Accounts,
                self.dir.open_sealed(Table::Accounts, number)?,
                &["stream", "stored"],
                |batch| {
                    for (of, stored) in texts(batch, "stream").into_iter().zip(integers(batch, "stored")) {
                        if of == stream {
                            last = u64::try_from(stored).unwrap_or(0);
                        }
                    }
                    Ok(())
                },
            )?;
        }
        Ok(last)
    }

    /// Removes rows of `accounts` that decrease, or that count more events than were produced.
    fn accounts_grow(&mut self) -> Result<()> {
        let mut most: BTreeMap<String, [i64; 3]> = BTreeMap::new();
        for (number, path) in self.dir.sealed(Table::Accounts)? {
            let (mut kept, mut wrong) = (AccountColumns::default(), 0);
            let file = self.dir.open_sealed(Table::Accounts, number)?;
            scan_verified(Table::Accounts, file, &["ts", "stream", "produced", "stored", "dropped"], |batch| {
                let [ts, produced, stored, dropped] =
                    ["ts", "produced", "stored", "dropped"].map(|c| integers(batch, c));
                let counts = produced.into_iter().zip(stored).zip(dropped);
                for ((ts, stream), ((produced, stored), dropped)) in
                    ts.into_iter().zip(texts(batch, "stream")).zip(counts)
                {
                    let now = [produced, stored, dropped];
                    let last = most.entry(stream.into()).or_default();
                    let grows = last.iter().zip(now).all(|(last, now)| *last <= now);
                    if !grows || stored.saturating_add(dropped) > produced {
                        wrong += 1;
                        continue;
                    }
                    *last = now;
                    kept.push(AccountRow { ts, stream: String::from(stream).into(), produced, stored, dropped });
                }
                Ok(())
            })?;
            if wrong == 0 {
                continue;
            }
            let at = self.next_number(Table::Accounts)?;
            if let Some(encoded) =
                encode_for(&self.dir, Table::Accounts, at, &[kept.finish()]).map_err(rows::arrow(&path))?
            {
                self.bench.put(Table::Accounts, at, &encoded.data, &mut *self.watch.step)?;
            }
            self.bench.set_aside(std::path::Path::new(&name(Table::Accounts, number)), &mut *self.watch.step)?;
            self.is_gone(Table::Accounts, number);
            self.did(format!(
                "set {} aside: {wrong} of its rows decrease, or count more events than were produced",
                name(Table::Accounts, number)
            ))?;
        }
        Ok(())
    }

    /// Notes lost rows of tables that are no streams of events.
    pub(super) fn other_losses(&mut self) {
        for (table, holes) in &self.holes {
            if Stream::ALL.iter().any(|stream| stream.name() == table.name())
                || REFERENCES.iter().any(|r| r.to == *table)
            {
                continue;
            }
            let known: u64 = holes.iter().filter_map(|hole| hole.rows).fold(0, u64::saturating_add);
            let rows = if known > 0 { format!("at least {known} rows") } else { "rows".into() };
            self.notes.insert(format!("{rows} of {} are lost", table.name()));
        }
    }
}
