//! The segments and logs of a session with the time that their rows cover. In a session that is being recorded, the rows of
//! a log are read as it grows and kept in memory until it is sealed; each row is in one part.

use std::{collections::BTreeMap, io::ErrorKind, path::Path, sync::Arc, thread};

use arrow::array::RecordBatch;
use hud_common::session::{self, Error, InflightReader, Manifest, SessionDir, Table, open_verified, scan_verified};

use super::segment_reader::{EVENTS, Part, Rows, SegmentReader, interval_of};
use crate::{
    source::zone_map::{Interval, ZoneMap},
    threads::{in_order, threads},
};

/// Tables of names, which are read completely, in the order of their references.
const NAMES: [Table; 5] = [Table::Threads, Table::TaskTypes, Table::Stacks, Table::Frames, Table::Modules];

/// The parts of a session at the last update.
pub(super) struct SegmentIndex {
    dir: SessionDir,
    pub(super) reader: Arc<SegmentReader>,
    parts: BTreeMap<(Table, u32), Part>,
    logs: BTreeMap<(Table, u32), InflightReader>,
    /// Parts of tables of names that were read, and whether they are sealed.
    named: BTreeMap<(Table, u32), bool>,
}

/// The result of an update.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// The earliest start of a new row.
    pub(super) since: Option<i64>,
    /// Whether there are new names.
    pub(super) has_names: bool,
}

impl Changes {
    fn add(&mut self, interval: Interval) {
        self.since = Some(self.since.map_or(interval.first, |since| since.min(interval.first)));
    }
}

impl SegmentIndex {
    pub(super) fn new(dir: SessionDir) -> Self {
        SegmentIndex {
            reader: Arc::new(SegmentReader::new(dir.clone())),
            dir,
            parts: BTreeMap::new(),
            logs: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All parts of events, ordered by table and number.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }

    /// The parts of one table.
    pub(super) fn of(&self, table: Table) -> impl Iterator<Item = &Part> {
        self.parts.range((table, 0)..=(table, u32::MAX)).map(|(_, part)| part)
    }

    /// Finds new and expired rows. Rows of names are passed to `name`. Logs are opened before segments are listed, so that a log
    /// that is sealed meanwhile is found in one of both.
    pub(super) fn update(
        &mut self,
        manifest: &Manifest,
        mut name: impl FnMut(Table, &RecordBatch),
    ) -> session::Result<Changes> {
        let mut found = Changes::default();
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

    fn read_logs(&mut self, found: &mut Changes, name: &mut impl FnMut(Table, &RecordBatch)) -> session::Result<()> {
        let mut foreign = Vec::new();
        for ((table, number), log) in &mut self.logs {
            for batch in log.by_ref() {
                let batch = match batch {
                    Err(error @ Error::Foreign { .. }) => {
                        self.reader.note(error);
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
                let Some(interval) = interval_of(*table, &batch) else { continue };
                found.add(interval);
                let part = self.parts.entry((*table, *number)).or_insert_with(|| Part {
                    table: *table,
                    interval,
                    count: 0,
                    rows: Rows::Log(Vec::new()),
                });
                part.count = part.count.saturating_add(batch.num_rows());
                part.interval = Interval {
                    first: part.interval.first.min(interval.first),
                    last: part.interval.last.max(interval.last),
                };
                if let Rows::Log(batches) = &mut part.rows {
                    batches.push((interval, batch));
                }
            }
            // An incomplete last frame may still be being written.
            if let Some(cut) = log.cut().filter(|cut| !cut.is_torn) {
                let why = format!("its last {} bytes: {}", cut.bytes, cut.why);
                self.reader.note(Error::Damaged { path: log.path().into(), why });
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
        found: &mut Changes,
        name: &mut impl FnMut(Table, &RecordBatch),
    ) -> session::Result<()> {
        let new: Vec<_> = sealed.into_iter().filter(|key| !self.is_sealed(*key)).collect();
        let (names, events): (Vec<_>, Vec<_>) = new.into_iter().partition(|(table, _)| NAMES.contains(table));
        for (key, interval, count) in self.spans(events) {
            let rows = Rows::Sealed(key.1);
            match self.parts.insert(key, Part { table: key.0, interval, count, rows }) {
                // Its rows were reported when the log was read.
                Some(_) => drop(self.logs.remove(&key)),
                None => found.add(interval),
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
        let SegmentIndex { reader, dir, .. } = self;
        reader.cache.progress.expect(names.len());
        let read = |(table, number): &(Table, u32)| -> (Vec<RecordBatch>, session::Result<()>) {
            let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            let mut batches = Vec::new();
            let read = dir.open_sealed(*table, *number).and_then(|file| {
                scan_verified(*table, file, &columns, |batch| {
                    batches.push(batch.clone());
                    Ok(())
                })
            });
            reader.cache.progress.step();
            (batches, read)
        };
        // Rows before the damage are used.
        let take = |(table, _): &(Table, u32), (batches, read): (Vec<RecordBatch>, session::Result<()>)| {
            batches.iter().for_each(|batch| name(*table, batch));
            if let Err(error) = read {
                reader.note(error);
            }
            Ok(())
        };
        let done = in_order(&names, read, take);
        reader.cache.progress.clear();
        done
    }

    /// Opens segments on all threads: the first frame of a long session waits for this.
    fn spans(&self, sealed: Vec<(Table, u32)>) -> Vec<((Table, u32), Interval, usize)> {
        let reader = &self.reader;
        let open = |of: &[(Table, u32)]| -> Vec<((Table, u32), Interval, usize)> {
            let open =
                |key: &(Table, u32)| self.dir.open_sealed(key.0, key.1).and_then(|file| open_verified(key.0, file));
            let found = of.iter().inspect(|_| reader.cache.progress.step()).filter_map(|key| match open(key) {
                Ok(reader) => {
                    let facts = ZoneMap::of(key.0, reader.metadata());
                    Some((*key, facts.interval, facts.rows))
                }
                Err(error) => {
                    reader.note(error);
                    None
                }
            });
            found.collect()
        };
        reader.cache.progress.expect(sealed.len());
        let each = sealed.len().div_ceil(threads()).max(16);
        thread::scope(|scope| {
            let threads: Vec<_> = sealed.chunks(each).map(|some| scope.spawn(|| open(some))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        })
    }
}
