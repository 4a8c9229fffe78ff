//! The sealer: turns finished logs, or their rows if those are still in memory, into Parquet segments, and runs the
//! retention.
//!
//! A log that cannot be sealed for lack of disk space stays readable, and is retried.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use hud_common::session::{Encoder, Result, SessionDir, Table, seal, seal_rows};

use super::{
    retention::{Retention, Segment},
    shared_manifest::SharedManifest,
    writer_status::WriterStatus,
};

/// Interval of retention and of retries.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A finished log, to be sealed.
#[derive(Debug)]
pub(super) struct SealOrder {
    pub(super) table: Table,
    pub(super) number: u32,
    pub(super) rows: u64,
    /// Of its file.
    pub(super) bytes: u64,
    /// When it was begun (ns since the epoch).
    pub(super) opened: i64,
    /// Its rows, if they could be kept in memory.
    pub(super) kept: Option<Kept>,
}

/// Bytes of rows kept in memory until they are encoded, in all: a full segment of polls and one of wakes are 12 MB, and
/// rows that arrive meanwhile begin the next ones. Sealing from memory spares reading the log, a tenth of a poll's
/// cost; beyond the bound the log is read.
const MOST_KEPT: u64 = 24 << 20;

/// The rows of a log, kept until they are sealed.
#[derive(Debug)]
pub(super) struct Kept {
    rows: Vec<RecordBatch>,
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Kept {
    /// For a new log. `all` is the size of the rows kept of all logs.
    pub(super) fn new(all: &Arc<AtomicU64>) -> Self {
        Kept { rows: Vec::new(), bytes: 0, all: Arc::clone(all) }
    }

    /// Keeps another batch; `false` if there is no room.
    pub(super) fn push(&mut self, batch: RecordBatch) -> bool {
        let bytes = batch.get_array_memory_size() as u64;
        self.bytes += bytes;
        let fits = self.all.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= MOST_KEPT;
        if fits {
            self.rows.push(batch);
        }
        fits
    }
}

impl AsRef<[RecordBatch]> for Kept {
    fn as_ref(&self) -> &[RecordBatch] {
        &self.rows
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The sealer's totals.
#[derive(Debug, Default)]
pub(super) struct SealerTotals {
    /// Rows in sealed segments, by table, without expired ones.
    pub(super) stored: std::collections::BTreeMap<Table, u64>,
    /// Expired rows, by table.
    pub(super) expired: std::collections::BTreeMap<Table, u64>,
    /// Logs that could not be sealed for lack of disk space.
    pub(super) unsealed: usize,
    /// Rows that were written to a log and could not be read back.
    pub(super) unreadable: u64,
}

pub(super) struct Sealer {
    session: SessionDir,
    manifest: SharedManifest,
    retention: Retention,
    status: Arc<WriterStatus>,
    waiting: VecDeque<SealOrder>,
    totals: SealerTotals,
    encoder: Encoder,
}

impl Sealer {
    pub(super) fn new(
        session: SessionDir,
        manifest: SharedManifest,
        retention: Retention,
        status: Arc<WriterStatus>,
    ) -> Self {
        Sealer {
            session,
            manifest,
            retention,
            status,
            waiting: VecDeque::new(),
            totals: SealerTotals::default(),
            encoder: Encoder::default(),
        }
    }

    pub(super) fn run(mut self, finished: &Receiver<SealOrder>) -> Result<SealerTotals> {
        let mut looked = Instant::now();
        loop {
            match finished.recv_timeout(LOOK_EVERY) {
                Ok(order) if self.waiting.is_empty() => self.seal(order)?,
                // In order, the longest waiting first.
                Ok(order) => self.waiting.push_back(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.retry()?;
                self.retention.tend(&self.session, &self.manifest, &self.status)?;
            }
        }
        self.last_tries()?;
        self.retention.tend(&self.session, &self.manifest, &self.status)?;
        (self.totals.stored, self.totals.expired) = self.retention.rows();
        for order in &self.waiting {
            *self.totals.stored.entry(order.table).or_default() += order.rows;
        }
        self.totals.unsealed = self.waiting.len();
        Ok(self.totals)
    }

    /// Seals a log, or queues it if there is no disk space.
    fn seal(&mut self, mut order: SealOrder) -> Result<()> {
        let sealed = match order.kept.take() {
            Some(kept) => seal_rows(&mut self.encoder, &self.session, order.table, order.number, kept),
            None => seal(&self.session, order.table, order.number),
        };
        match sealed {
            Ok(sealed) => {
                let (rows, bytes) = sealed.as_ref().map_or((0, 0), |s| (s.rows, s.bytes));
                if rows < order.rows {
                    self.totals.unreadable += order.rows - rows;
                    tracing::error!(
                        "{} of {} rows of {} segment {} could not be read back from its log",
                        order.rows - rows,
                        order.rows,
                        order.table.name(),
                        order.number
                    );
                }
                if let Some(sealed) = sealed {
                    self.retention.add(Segment {
                        table: order.table,
                        number: order.number,
                        rows,
                        bytes,
                        opened: order.opened,
                        last_ts: sealed.last_ts,
                        sealed: self.retention.now(),
                        path: sealed.path,
                    });
                }
                self.status.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.status.log_bytes.fetch_sub(order.bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(e) if e.is_no_space() => {
                if self.waiting.is_empty() {
                    tracing::warn!("{e}: the log stays and is sealed once there is disk space");
                }
                // It may wait for long, and the log holds all its rows.
                self.waiting.push_back(order);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Retries queued logs, until one fails for lack of disk space again.
    fn retry(&mut self) -> Result<()> {
        for _ in 0..self.waiting.len() {
            let Some(order) = self.waiting.pop_front() else { return Ok(()) };
            let before = self.waiting.len();
            self.seal(order)?;
            if self.waiting.len() > before {
                // It is now last: the next retry begins with another one.
                return Ok(());
            }
        }
        Ok(())
    }

    /// At the end: small logs first, as each sealed one frees most of its space for the next.
    fn last_tries(&mut self) -> Result<()> {
        loop {
            let before = self.waiting.len();
            if before == 0 {
                return Ok(());
            }
            self.waiting.make_contiguous().sort_by_key(|o| o.bytes);
            for order in std::mem::take(&mut self.waiting) {
                self.seal(order)?;
            }
            if self.waiting.len() == before {
                return Ok(());
            }
        }
    }
}
