//! The writer: batches in, in-flight logs and sealed segments out.
//!
//! A log is rolled when it is large, long or old; sealing (sort, Parquet, fsync) is another thread's work, so that a
//! slow disk holds up neither.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use hud_common::session::{Columns, InflightLog, Result, SessionDir, Table, seal};

use crate::error::Error;

/// When a segment is full.
#[derive(Clone, Copy, Debug)]
pub struct RollPolicy {
    /// Bytes in memory of its rows.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Age.
    pub age: Duration,
}

impl Default for RollPolicy {
    fn default() -> Self {
        // DESIGN, "Recording": a segment of 1 M rows costs 7.4 B a row and 0.2 s of CPU to seal; 60 s bounds what power
        // loss can take.
        RollPolicy { bytes: 64 << 20, rows: 1_000_000, age: Duration::from_secs(60) }
    }
}

/// What the writer has done so far, for the progress line.
#[derive(Debug, Default)]
pub(super) struct WriterStatus {
    /// Bytes of sealed segments.
    pub(super) sealed_bytes: AtomicU64,
    /// Set once something could not be written; the recording then ends.
    pub(super) failed: AtomicBool,
}

/// Where batches go. Cheap to clone; the writer ends when every handle is gone.
#[derive(Clone)]
pub(super) struct BatchSender(SyncSender<RecordBatchOf>);

struct RecordBatchOf(Table, RecordBatch);

impl BatchSender {
    /// Sends the rows of `columns`, if there are any. Waits while the writer is 64 batches behind; gives the rows up
    /// when it is gone (its error is told at the end).
    pub(super) fn send<C: Columns>(&self, columns: &mut C) {
        if !columns.is_empty() {
            let _ = self.0.send(RecordBatchOf(C::TABLE, columns.finish()));
        }
    }
}

/// The writer and sealer threads.
pub(super) struct Writer {
    writer: JoinHandle<Result<()>>,
    sealer: JoinHandle<Result<BTreeMap<Table, u64>>>,
    status: Arc<WriterStatus>,
}

impl Writer {
    /// Starts them.
    pub(super) fn start(session: SessionDir, policy: RollPolicy) -> Result<(Self, BatchSender), Error> {
        let status = Arc::new(WriterStatus::default());
        let (batches, incoming) = mpsc::sync_channel(64);
        let (finished, to_seal) = mpsc::channel();
        let spawn = |source| Error::Io { action: "start a thread", source };
        let sealer = {
            let (session, status) = (session.clone(), Arc::clone(&status));
            thread::Builder::new()
                .name("hud-sealer".into())
                .spawn(move || flagged(&status, || seal_all(&session, &to_seal, &status)))
                .map_err(spawn)?
        };
        let writer = {
            let status = Arc::clone(&status);
            thread::Builder::new()
                .name("hud-writer".into())
                .spawn(move || flagged(&status, || write_all(&session, policy, &incoming, &finished)))
                .map_err(spawn)?
        };
        Ok((Writer { writer, sealer, status }, BatchSender(batches)))
    }

    /// What has been done so far.
    pub(super) fn status(&self) -> &WriterStatus {
        &self.status
    }

    /// Waits until everything is sealed. Gives the rows on disk by table. Every [`BatchSender`] must be gone.
    pub(super) fn finish(self) -> Result<BTreeMap<Table, u64>, Error> {
        let died = || Error::Kernel { what: "writing the session".into(), why: "a thread of hud panicked".into() };
        let written = self.writer.join().map_err(|_| died())?;
        let rows = self.sealer.join().map_err(|_| died())??;
        written?;
        Ok(rows)
    }
}

/// Runs a thread's work, and raises the flag where it fails, by a panic too.
fn flagged<T>(status: &WriterStatus, work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Raised<'a>(&'a AtomicBool, bool);
    impl Drop for Raised<'_> {
        fn drop(&mut self) {
            self.0.fetch_or(self.1, Ordering::Relaxed);
        }
    }
    let mut raised = Raised(&status.failed, true);
    let result = work();
    raised.1 = result.is_err();
    result
}

struct Open {
    log: InflightLog,
    since: Instant,
}

fn write_all(
    session: &SessionDir,
    policy: RollPolicy,
    incoming: &Receiver<RecordBatchOf>,
    finished: &Sender<(Table, u32)>,
) -> Result<()> {
    let mut open: BTreeMap<Table, Open> = BTreeMap::new();
    let mut next: BTreeMap<Table, u32> = BTreeMap::new();
    loop {
        match incoming.recv_timeout(Duration::from_secs(1)) {
            Ok(RecordBatchOf(table, batch)) => {
                let segment = match open.entry(table) {
                    std::collections::btree_map::Entry::Occupied(o) => o.into_mut(),
                    std::collections::btree_map::Entry::Vacant(v) => {
                        let number = match next.get(&table) {
                            Some(&number) => number,
                            None => session.next_number(table)?,
                        };
                        next.insert(table, number.saturating_add(1));
                        let log = InflightLog::create(session, table, number)?;
                        v.insert(Open { log, since: Instant::now() })
                    }
                };
                segment.log.append(&batch)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let full: Vec<Table> = open
            .iter()
            .filter(|(table, o)| {
                o.log.rows() >= policy.rows
                    || o.log.bytes() >= policy.bytes
                    || o.since.elapsed() >= age(policy, **table)
            })
            .map(|(table, _)| *table)
            .collect();
        for table in full {
            roll(&mut open, table, finished)?;
        }
    }
    for table in Table::ALL {
        roll(&mut open, *table, finished)?;
    }
    Ok(())
}

fn roll(open: &mut BTreeMap<Table, Open>, table: Table, finished: &Sender<(Table, u32)>) -> Result<()> {
    if let Some(segment) = open.remove(&table) {
        // A sealer that is gone has told its error.
        let _ = finished.send(segment.log.finish()?);
    }
    Ok(())
}

/// Staggered, so that not all tables are sealed in the same second.
fn age(policy: RollPolicy, table: Table) -> Duration {
    let share = policy.age / 16;
    policy.age.saturating_add(share.saturating_mul(u32::try_from(table as usize % 8).unwrap_or(0)))
}

fn seal_all(
    session: &SessionDir,
    finished: &Receiver<(Table, u32)>,
    status: &WriterStatus,
) -> Result<BTreeMap<Table, u64>> {
    let mut rows: BTreeMap<Table, u64> = BTreeMap::new();
    for (table, number) in finished {
        if let Some(sealed) = seal(session, table, number)? {
            *rows.entry(table).or_default() += sealed.rows;
            status.sealed_bytes.fetch_add(sealed.bytes, Ordering::Relaxed);
        }
    }
    Ok(rows)
}
