//! Retention: keeps disk usage within a size or an age by removing the oldest data.
//!
//! Segments of event tables expire in order of time across tables, so that all cover about the same range. Names stay,
//! and so do the rows that describe tasks and threads while any event may refer to them: at regular *epochs* the
//! recorder writes all living threads and tasks again, and their rows from before an epoch expire once all events from
//! before it have. Recorders that share a store each remove their own segments; the one with the oldest data is first.
//! The manifest is written first: a crash in between leaves files that the manifest lists as removed, and recovery
//! removes them.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use hud_common::session::{Clock, Error, Range, Result, SessionDir, Table};

use super::{
    disk::Reserve, settings::Keep, shared_manifest::SharedManifest, store::HostStore, writer_status::WriterStatus,
};
use crate::kernel;

/// A sealed segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) table: Table,
    pub(super) number: u32,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// When its log was begun, and when it was sealed (ns since the epoch): its rows were written in between.
    pub(super) opened: i64,
    pub(super) sealed: i64,
    /// The largest `ts` in it.
    pub(super) last_ts: i64,
    pub(super) path: PathBuf,
}

/// A repetition of all living threads and tasks: rows from before `begun` describe no event from `done` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub(super) begun: i64,
    pub(super) done: i64,
}

/// The epochs so far: the recorder adds them, retention consumes them.
#[derive(Clone, Default)]
pub(super) struct Epochs(Arc<Mutex<VecDeque<Epoch>>>);

impl Epochs {
    pub(super) fn add(&self, epoch: Epoch) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Eight per retained range; more accumulate only if nothing expires.
        if all.len() >= 64 {
            all.pop_front();
        }
        all.push_back(epoch);
    }

    /// The newest epoch that precedes all events from `oldest` on; older ones are dropped.
    fn reached(&self, oldest: i64) -> Option<Epoch> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while all.get(1).is_some_and(|next| next.done <= oldest) {
            all.pop_front();
        }
        all.front().copied().filter(|e| e.done <= oldest)
    }
}

/// Keeps a session, and its store, within bounds.
pub(super) struct Retention {
    keep: Keep,
    store: Option<HostStore>,
    epochs: Epochs,
    /// The session's clock: the wall clock may be set meanwhile.
    clock: Clock,
    /// Sealed segments, oldest first; empty if all are kept, as there may be thousands a day.
    segments: BTreeMap<Table, VecDeque<Segment>>,
    sealed: BTreeMap<Table, u64>,
    expired: BTreeMap<Table, u64>,
    /// The end of the range that has expired segments.
    gone_until: Option<i64>,
    turn: Turn,
}

/// How long to wait for another recorder of the store to remove its older data.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which recorder of a shared store has to remove data next: the one with the oldest. One that does not (it has another
/// bound, or none) is not waited for again until it does.
#[derive(Debug, Default)]
struct Turn {
    /// The begin of the oldest data of the others, and since when it is their turn.
    others: Option<(i64, Instant)>,
}

impl Turn {
    /// Whether to wait for a recorder with events since `other`, having events since `own`.
    fn is_others(&mut self, own: i64, other: Option<i64>, patience: Duration) -> bool {
        let Some(other) = other.filter(|other| *other < own) else {
            self.others = None;
            return false;
        };
        let since = match self.others {
            Some((seen, since)) if seen == other => since,
            _ => Instant::now(),
        };
        self.others = Some((other, since));
        since.elapsed() < patience
    }
}

impl Retention {
    pub(super) fn new(keep: Keep, store: Option<HostStore>, epochs: Epochs, clock: Clock) -> Self {
        Retention {
            keep,
            store,
            epochs,
            clock,
            segments: BTreeMap::new(),
            sealed: BTreeMap::new(),
            expired: BTreeMap::new(),
            gone_until: None,
            turn: Turn::default(),
        }
    }

    /// Now, by the session's clock.
    pub(super) fn now(&self) -> i64 {
        self.clock.epoch(kernel::now())
    }

    /// Adds a sealed segment.
    pub(super) fn add(&mut self, segment: Segment) {
        *self.sealed.entry(segment.table).or_default() += segment.rows;
        if self.keep.is_bounded() {
            self.segments.entry(segment.table).or_default().push_back(segment);
        }
    }

    /// Rows kept and rows expired, by table.
    pub(super) fn rows(&self) -> (BTreeMap<Table, u64>, BTreeMap<Table, u64>) {
        let expired = |table| self.expired.get(table).copied().unwrap_or(0);
        let there = self.sealed.iter().map(|(table, rows)| (*table, rows.saturating_sub(expired(table)))).collect();
        (there, self.expired.clone())
    }

    /// Removes expired segments.
    pub(super) fn tend(
        &mut self,
        session: &SessionDir,
        manifest: &SharedManifest,
        status: &WriterStatus,
    ) -> Result<()> {
        if !self.keep.is_bounded() {
            return Ok(());
        }
        let victims = self.victims(status.bytes(), status.newest.load(Ordering::Relaxed));
        if victims.is_empty() {
            return Ok(());
        }
        for segment in &victims {
            *self.expired.entry(segment.table).or_default() += segment.rows;
            self.gone_until = self.gone_until.max(Some(segment.sealed));
        }
        let now = self.now();
        let write = || {
            manifest.with(|m| {
                for (table, rows) in &self.expired {
                    m.streams.entry(table.name().into()).or_default().expired = *rows;
                }
                for segment in &victims {
                    let first = m.first_segment.entry(segment.table.name().into()).or_insert(1);
                    *first = (*first).max(segment.number.saturating_add(1));
                }
                m.range = self.gone_until.map(|from| Range { from, to: now });
                session.write_manifest(m)
            })
        };
        write().or_else(|e| {
            if !e.is_no_space() {
                return Err(e);
            }
            // The segments about to be removed make more room than the reserve.
            Reserve::new(session).free();
            write()
        })?;
        for segment in victims {
            tracing::debug!("{} has expired", segment.path.display());
            match session.remove_segment(segment.table, segment.number) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            status.expired_bytes.fetch_add(segment.bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes out expired segments.
    fn victims(&mut self, size: u64, newest: i64) -> Vec<Segment> {
        let mut victims = Vec::new();
        if let Some(age) = self.keep.age {
            let horizon = newest.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
            if let Some(store) = &mut self.store {
                store.remove_older(horizon);
            }
            while let Some(segment) = self.take_oldest(|s| s.sealed < horizon) {
                victims.push(segment);
            }
        }
        if let Some(most) = self.keep.bytes {
            let gone: u64 = victims.iter().map(|s: &Segment| s.bytes).sum();
            let mut size = size.saturating_sub(gone);
            if let Some(store) = &mut self.store {
                size = store.shrink(size, most);
            }
            while size > most
                && !self.is_others_turn()
                && let Some(segment) = self.take_oldest(|_| true)
            {
                size = size.saturating_sub(segment.bytes);
                victims.push(segment);
            }
        }
        victims
    }

    /// Whether another recorder of the store holds older events than this session.
    fn is_others_turn(&mut self) -> bool {
        let other = self.store.as_ref().and_then(HostStore::oldest_recorded);
        let own =
            self.segments.iter().filter(|(table, _)| table.expires()).filter_map(|(_, s)| Some(s.front()?.opened));
        let own = own.min().unwrap_or(i64::MAX);
        self.turn.is_others(own, other, PATIENCE)
    }

    /// Takes out the oldest segment that may be removed and satisfies `is_past`.
    fn take_oldest(&mut self, is_past: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let oldest_event = self
            .segments
            .iter()
            .filter(|(table, _)| table.expires() && !is_repeated(**table))
            .filter_map(|(_, all)| Some(all.front()?.opened))
            .min()
            // Nothing is sealed: rows in flight are younger than any segment.
            .unwrap_or_else(|| self.now());
        let epoch = self.epochs.reached(oldest_event);
        let may_go = |s: &Segment| {
            s.table.expires() && (!is_repeated(s.table) || epoch.is_some_and(|epoch| s.last_ts < epoch.begun))
        };
        let table = self
            .segments
            .iter()
            .filter_map(|(table, all)| Some((table, all.front()?)))
            .filter(|(_, s)| may_go(s) && is_past(s))
            .min_by_key(|(_, s)| s.sealed)
            .map(|(table, _)| *table)?;
        self.segments.get_mut(&table)?.pop_front()
    }
}

/// Whether a table describes the subjects of other tables' rows, so that it is written again each epoch.
fn is_repeated(table: Table) -> bool {
    matches!(table, Table::Tasks | Table::Threads)
}

/// Bytes of a session's files.
pub(super) fn folder_size(session: &SessionDir) -> u64 {
    let size = |path: PathBuf| -> u64 {
        let Ok(entries) = fs::read_dir(path) else { return 0 };
        entries.flatten().filter_map(|e| e.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
    };
    size(session.path().into()) + Table::ALL.iter().map(|t| size(session.table(*t))).sum::<u64>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hud_common::session::{FORMAT_VERSION, Manifest};

    use super::*;
    use crate::record::store::Store;

    fn segment(table: Table, number: u32, opened: i64, sealed: i64) -> Segment {
        Segment { table, number, rows: 10, bytes: 100, opened, sealed, last_ts: sealed - 1, path: PathBuf::new() }
    }

    #[test]
    fn removes_the_oldest_first_and_keeps_referenced_rows() {
        let epochs = Epochs::default();
        let mut retention = Retention::new(Keep { bytes: Some(0), age: None }, None, epochs.clone(), Clock::default());
        retention.add(segment(Table::Stacks, 1, 0, 10));
        retention.add(segment(Table::Threads, 1, 0, 11));
        retention.add(segment(Table::Polls, 1, 0, 13));
        retention.add(segment(Table::OffCpu, 1, 0, 12));
        retention.add(segment(Table::Polls, 2, 13, 23));
        retention.add(segment(Table::Threads, 2, 15, 24));
        epochs.add(Epoch { begun: 14, done: 15 });
        let mut gone = Vec::new();
        while let Some(s) = retention.take_oldest(|s| s.sealed < 20) {
            gone.push((s.table, s.number));
        }
        // Threads 1 was written before the epoch, and polls 2 began before it.
        assert_eq!(gone, [(Table::OffCpu, 1), (Table::Polls, 1)]);
        assert_eq!(retention.take_oldest(|_| true).unwrap().number, 2);
        // All that remains is younger than the epoch.
        assert_eq!(retention.take_oldest(|_| true).unwrap().table, Table::Threads);
        assert!(retention.take_oldest(|_| true).is_none(), "threads 2 and the names stay");
        assert_eq!(retention.rows().0[&Table::Stacks], 10);
    }

    #[test]
    fn waits_for_the_recorder_with_the_oldest_data_while_it_removes() {
        let mut turn = Turn::default();
        let (long, no) = (Duration::from_secs(3600), Duration::ZERO);
        assert!(!turn.is_others(10, None, long), "alone");
        assert!(!turn.is_others(10, Some(20), long), "ours is older");
        assert!(turn.is_others(10, Some(5), long));
        assert!(!turn.is_others(10, Some(5), no), "it has done nothing");
        assert!(turn.is_others(10, Some(7), long), "it has removed something");
    }

    /// A session of a store, of `bytes` and from `start` on; it is being recorded while the lock is held.
    fn session(store: &Store, id: &str, start: i64, bytes: usize) -> (SessionDir, hud_common::session::SessionLock) {
        let manifest = Manifest { format_version: FORMAT_VERSION, id: id.into(), start, ..Manifest::default() };
        let (session, lock) = SessionDir::create(&store.session(id), &manifest).unwrap();
        fs::create_dir(session.table(Table::Polls)).unwrap();
        fs::write(session.table(Table::Polls).join("000001.parquet"), vec![0; bytes]).unwrap();
        (session, lock)
    }

    #[test]
    fn recorders_of_one_store_remove_only_their_own_oldest_data() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), None).unwrap();
        let (own, _own_lock) = session(&store, "own", 100, 0);
        let (closed, lock) = session(&store, "closed", 1, 20_000);
        drop(lock);
        let (other, _other_lock) = session(&store, "other", 50, 20_000);
        let retention = |own: &SessionDir| {
            let keep = Keep { bytes: Some(32_000), age: None };
            let others = Some(HostStore::new(store.clone(), own.path().into()));
            let mut retention = Retention::new(keep, others, Epochs::default(), Clock::default());
            for (number, opened) in [(1, 100), (2, 200)] {
                let segment = segment(Table::Polls, number, opened, opened + 1);
                retention.add(Segment { bytes: 10_000, ..segment });
            }
            retention
        };
        let mut ours = retention(&own);
        let gone = |victims: Vec<Segment>| victims.into_iter().map(|s| s.number).collect::<Vec<_>>();
        // A session that is not being recorded is removed first; the rest is still too large, and the other session's
        // is older.
        assert!(gone(ours.victims(20_000, 0)).is_empty());
        assert!(!closed.path().exists() && other.path().exists());
        ours.turn.others = Some((50, Instant::now().checked_sub(2 * PATIENCE).unwrap()));
        assert_eq!(gone(ours.victims(20_000, 0)), [1], "the other one removes nothing");
        // It has removed its data older than ours.
        let mut manifest = Manifest::read(other.path()).unwrap();
        manifest.range = Some(Range { from: 150, to: 300 });
        manifest.write(other.path()).unwrap();
        assert_eq!(gone(retention(&own).victims(20_000, 0)), [1]);
        assert!(other.path().exists());
    }
}
