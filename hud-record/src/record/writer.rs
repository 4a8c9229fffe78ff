//! The writer: appends batches to in-flight logs.
//!
//! One channel feeds it, so rows sent first are in a log first. A log is rolled when it is long, large or old; another
//! thread seals it (`sealer`), so a slow disk delays neither. While the disk is full rows are counted instead of
//! written (`disk`), and all others wait for space.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use hud_common::session::{
    AccountColumns, AccountRow, Clock, Columns as _, DropColumns, DropRow, InflightLog, Result, SessionDir, Table,
};

use super::{
    account::{KernelAccount, table_of},
    disk::{Pause, Reserve},
    queue::{BatchSender, Counts, Flow, Message, Rows, queue},
    retention::Retention,
    rules::Rules,
    sealer::{Kept, SealOrder, Sealer, SealerTotals},
    settings::RollPolicy,
    shared_manifest::SharedManifest,
    writer_status::WriterStatus,
};
use crate::{
    error::Error,
    kernel,
    privilege::{self, Owner},
};

/// The writer's settings for its session.
pub(super) struct Job {
    pub(super) session: SessionDir,
    pub(super) policy: RollPolicy,
    pub(super) clock: Clock,
    pub(super) retention: Retention,
    pub(super) manifest: SharedManifest,
    /// The owner of the files.
    pub(super) owner: Option<Owner>,
}

/// The writer and sealer threads.
pub(super) struct Writer {
    writer: JoinHandle<Result<WriterTotals>>,
    sealer: JoinHandle<Result<SealerTotals>>,
    status: Arc<WriterStatus>,
}

/// The writer's totals.
#[derive(Debug, Default)]
pub(super) struct WriterTotals {
    /// Rows in logs, by table.
    pub(super) appended: BTreeMap<Table, u64>,
    /// Rows not written because the disk was full.
    pub(super) dropped: Counts,
    /// Rows not written because the disk was too slow.
    pub(super) given_up: Counts,
}

impl Writer {
    /// Starts the threads.
    pub(super) fn start(job: Job) -> Result<(Self, BatchSender), Error> {
        let status = Arc::new(WriterStatus::default());
        let (batches, incoming, flow) = queue();
        let (finished, to_seal) = mpsc::channel();
        let spawn = |source| Error::Io { action: "start a thread", source };
        let Job { session, policy, clock, retention, manifest, owner } = job;
        let reserve = Reserve::new(&session);
        let sealer = {
            let (session, status) = (session.clone(), Arc::clone(&status));
            thread::Builder::new()
                .name("hud-sealer".into())
                .spawn(move || {
                    privilege::enter_writer(owner);
                    let sealer = Sealer::new(session, manifest, retention, Arc::clone(&status));
                    flagged(&status, || sealer.run(&to_seal))
                })
                .map_err(spawn)?
        };
        // Without them a session is as good, but for one table.
        let rules = Rules::start().inspect_err(|e| tracing::warn!("failed to start a thread for the rules: {e}")).ok();
        let writer = {
            let status = Arc::clone(&status);
            thread::Builder::new()
                .name("hud-writer".into())
                .spawn(move || {
                    privilege::enter_writer(owner);
                    let totals = WriterTotals::default();
                    let flag = Arc::clone(&status);
                    let thread = WriterThread {
                        session,
                        policy,
                        clock,
                        open: BTreeMap::new(),
                        next: BTreeMap::new(),
                        totals,
                        pause: None,
                        reserve,
                        to_seal: finished,
                        kept: Arc::default(),
                        rules,
                        written: Vec::new(),
                        flow,
                        status,
                    };
                    flagged(&flag, || thread.run(&incoming))
                })
                .map_err(spawn)?
        };
        Ok((Writer { writer, sealer, status }, batches))
    }

    /// The state so far.
    pub(super) fn status(&self) -> &Arc<WriterStatus> {
        &self.status
    }

    /// Waits until everything is sealed. Every [`BatchSender`] must have been dropped.
    pub(super) fn finish(self) -> Result<(WriterTotals, SealerTotals), Error> {
        let died = || Error::Kernel { what: "writing the session".into(), why: "a thread of hud panicked".into() };
        let written = self.writer.join().map_err(|_| died())?;
        let sealed = self.sealer.join().map_err(|_| died())?;
        // The writer's error takes precedence: after it, the sealer has nothing to do.
        Ok((written?, sealed?))
    }
}

/// Runs a thread's work, and sets the flag if it fails or panics.
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
    kept: Option<Kept>,
    since: Instant,
    opened: i64,
}

struct WriterThread {
    session: SessionDir,
    policy: RollPolicy,
    clock: Clock,
    open: BTreeMap<Table, Open>,
    next: BTreeMap<Table, u32>,
    totals: WriterTotals,
    pause: Option<Pause>,
    reserve: Reserve,
    to_seal: Sender<SealOrder>,
    /// Bytes of unsealed rows in memory.
    kept: Arc<AtomicU64>,
    /// Where the rules are evaluated, and what was written for them to judge.
    rules: Option<Rules>,
    written: Vec<(Table, RecordBatch)>,
    flow: Arc<Flow>,
    status: Arc<WriterStatus>,
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        // No sender waits for it any more.
        self.flow.end();
    }
}

impl WriterThread {
    fn run(mut self, incoming: &Receiver<Message>) -> Result<WriterTotals> {
        // Without space for the reserve there will be none for rows: that is reported then.
        self.reserve.fill().or_else(|e| if e.is_no_space() { Ok(()) } else { Err(e) })?;
        loop {
            match incoming.recv_timeout(Duration::from_millis(500)) {
                Ok(Message::Rows(rows)) => {
                    for Rows { table, batch, bytes } in rows {
                        self.rows(table, batch)?;
                        self.flow.done(bytes);
                    }
                    if let Some(rules) = &mut self.rules {
                        let now = self.clock.epoch(kernel::now());
                        rules.send(now, std::mem::take(&mut self.written));
                    }
                }
                Ok(Message::Account { ts, kernel, given_up }) => self.account(ts, with_given_up(kernel, &given_up))?,
                Ok(Message::SealAll) => self.roll_where(|_, _| true)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.report_given_up()?;
            self.findings()?;
            if self.pause.is_some() {
                self.try_resume()?;
            }
            let policy = self.policy;
            self.roll_where(|table, open| {
                open.log.rows() >= policy.rows
                    || open.log.bytes() >= policy.bytes
                    || open.since.elapsed() >= age(policy, table, open.log.rows())
            })?;
        }
        self.report_given_up()?;
        let last = self.rules.take().map(Rules::finish).unwrap_or_default();
        last.into_iter().try_for_each(|(table, batch)| self.rows(table, batch))?;
        self.end_pause()?;
        self.roll_where(|_, _| true)?;
        for Open { log, .. } in std::mem::take(&mut self.open).into_values() {
            // Begun, and then there was no space for a row.
            let (table, number) = (log.table(), log.number());
            drop(log);
            let _ = self.session.remove_log(table, number);
        }
        // The sealer and the manifest may use the space of the reserve.
        self.reserve.free();
        self.totals.given_up = self.flow.all_given_up();
        Ok(std::mem::take(&mut self.totals))
    }

    /// Writes `drops` rows for the rows that senders dropped.
    fn report_given_up(&mut self) -> Result<()> {
        let Some((since, unreported)) = self.flow.unreported() else { return Ok(()) };
        let (ts, now) = (self.clock.epoch(since), self.clock.epoch(kernel::now()));
        let mut drops = DropColumns::default();
        for (table, rows) in unreported {
            tracing::warn!("{rows} rows of {} were dropped: the disk is too slow", table.name());
            self.status.rows_dropped.fetch_add(rows, Ordering::Relaxed);
            let lost = i64::try_from(rows).unwrap_or(i64::MAX);
            let dur = now - ts;
            drops.push(DropRow { ts, dur, stream: table.name().into(), stage: "writer".into(), lost });
        }
        self.rows(Table::Drops, drops.finish())
    }

    /// Writes what the rules have found since.
    fn findings(&mut self) -> Result<()> {
        let found = self.rules.as_ref().map(Rules::take).unwrap_or_default();
        found.into_iter().try_for_each(|(table, batch)| self.rows(table, batch))
    }

    /// Writes a batch, or counts it if the disk is full.
    fn rows(&mut self, table: Table, batch: RecordBatch) -> Result<()> {
        if self.pause.is_none() {
            match self.append(table, &batch) {
                Err(e) if e.is_no_space() => self.begin_pause(&e),
                done => return done,
            }
        }
        self.hold(table, batch);
        Ok(())
    }

    /// Appends a batch to its table's log, completely or not at all.
    fn append(&mut self, table: Table, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows() as u64;
        let segment = match self.open.entry(table) {
            std::collections::btree_map::Entry::Occupied(o) => o.into_mut(),
            std::collections::btree_map::Entry::Vacant(v) => {
                let number = match self.next.get(&table) {
                    Some(&number) => number,
                    None => self.session.next_number(table)?,
                };
                let log = InflightLog::create(&self.session, table, number)?;
                self.next.insert(table, number.saturating_add(1));
                self.status.log_bytes.fetch_add(log.len(), Ordering::Relaxed);
                let kept = Some(Kept::new(&self.kept));
                v.insert(Open { log, kept, since: Instant::now(), opened: self.clock.epoch(kernel::now()) })
            }
        };
        let before = segment.log.len();
        segment.log.append(batch)?;
        segment.kept = segment.kept.take().and_then(|mut kept| kept.push(batch.clone()).then_some(kept));
        self.status.log_bytes.fetch_add(segment.log.len().saturating_sub(before), Ordering::Relaxed);
        *self.totals.appended.entry(table).or_default() += rows;
        if self.rules.is_some() {
            self.written.push((table, batch.clone()));
        }
        if table.expires() {
            self.status.newest.store(self.clock.epoch(kernel::now()), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes the account of each stream: the kernel's part as it was sent, and the rows in the logs.
    fn account(&mut self, ts: i64, kernel: Vec<KernelAccount>) -> Result<()> {
        if let Some(pause) = &mut self.pause {
            pause.account = Some((ts, kernel));
            return Ok(());
        }
        let batch = self.account_rows(ts, &kernel);
        match self.append(Table::Accounts, &batch) {
            Err(e) if e.is_no_space() => {
                self.begin_pause(&e);
                if let Some(pause) = &mut self.pause {
                    pause.account = Some((ts, kernel));
                }
                Ok(())
            }
            done => done,
        }
    }

    fn account_rows(&self, ts: i64, kernel: &[KernelAccount]) -> RecordBatch {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut rows = AccountColumns::default();
        for of in kernel {
            let own = |by: &BTreeMap<Table, u64>| table_of(of.stream).and_then(|t| by.get(&t)).copied().unwrap_or(0);
            rows.push(AccountRow {
                ts,
                stream: of.stream.name().into(),
                produced: signed(of.produced),
                stored: signed(own(&self.totals.appended)),
                dropped: signed(of.dropped + own(&self.totals.dropped)),
            });
        }
        rows.finish()
    }

    fn begin_pause(&mut self, why: &hud_common::session::Error) {
        tracing::warn!("{why}: recording pauses until there is disk space; missing rows are counted");
        self.pause = Some(Pause::new(self.clock.epoch(kernel::now())));
        self.status.is_paused.store(true, Ordering::Relaxed);
    }

    /// For a full disk: names are held, rows are counted.
    fn hold(&mut self, table: Table, batch: RecordBatch) {
        let Some(pause) = &mut self.pause else { return };
        let dropped = pause.hold(table, batch);
        if dropped > 0 {
            *self.totals.dropped.entry(table).or_default() += dropped;
            self.status.rows_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// Checks, at most once a second, for free space, and writes the held rows.
    fn try_resume(&mut self) -> Result<()> {
        let now = self.clock.epoch(kernel::now());
        let Some(pause) = &mut self.pause else { return Ok(()) };
        if !pause.is_due() || !pause.may_fit(self.session.path()) {
            return Ok(());
        }
        if let Err(e) = self.reserve.fill() {
            return if e.is_no_space() { Ok(()) } else { Err(e) };
        }
        pause.prepare(now);
        if self.write_held(false)? {
            self.resumed();
        }
        Ok(())
    }

    fn resumed(&mut self) {
        let Some(pause) = self.pause.take() else { return };
        tracing::warn!(
            "there is disk space again after {:.1} s: recording resumes, {} rows were dropped",
            pause.began.elapsed().as_secs_f64(),
            pause.rows_dropped
        );
        // The held account is older than the rows counted since; the next one follows in a second.
        self.status.is_paused.store(false, Ordering::Relaxed);
        self.status.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the held rows. Returns whether all were written. With `or_empty`, names that do not fit are replaced by
    /// empty ones, so that every reference is valid.
    fn write_held(&mut self, or_empty: bool) -> Result<bool> {
        while let Some((table, batch)) = self.pause.as_mut().and_then(Pause::next) {
            match self.append(table, &batch) {
                Ok(()) => {}
                Err(e) if e.is_no_space() => {
                    let Some(pause) = &mut self.pause else { return Ok(true) };
                    pause.put_back(table, batch);
                    if !or_empty || !pause.empty_names() {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// At the end, if the disk is still full: the reserve makes space for losses and names.
    fn end_pause(&mut self) -> Result<()> {
        let now = self.clock.epoch(kernel::now());
        let Some(pause) = &mut self.pause else { return Ok(()) };
        pause.prepare(now);
        pause.losses_first();
        self.reserve.free();
        let all = self.write_held(true)?;
        if let Some(Pause { account: Some((ts, kernel)), .. }) = self.pause.take() {
            let batch = self.account_rows(ts, &kernel);
            match self.append(Table::Accounts, &batch) {
                Err(e) if !e.is_no_space() => return Err(e),
                _ => {}
            }
        }
        if !all {
            tracing::error!("the disk is still full: names of stacks could not be written");
        }
        Ok(())
    }

    fn roll_where(&mut self, is_full: impl Fn(Table, &Open) -> bool) -> Result<()> {
        // A log without rows stays: no number may be left out.
        let is_due = |(table, open): &(&Table, &Open)| open.log.rows() > 0 && is_full(**table, open);
        let full: Vec<Table> = self.open.iter().filter(is_due).map(|(table, _)| *table).collect();
        for table in full {
            let Some(Open { log, kept, opened, .. }) = self.open.remove(&table) else { continue };
            let order = SealOrder { table, number: log.number(), rows: log.rows(), bytes: log.len(), opened, kept };
            match log.finish() {
                // A log without its end mark is valid: each frame has its own checksum.
                Err(e) if !e.is_no_space() => return Err(e),
                _ => {}
            }
            // If the sealer has ended, it has reported its error.
            let _ = self.to_seal.send(order);
        }
        Ok(())
    }
}

/// Adds the senders' dropped rows to the kernel's part of an account.
fn with_given_up(mut kernel: Vec<KernelAccount>, given_up: &Counts) -> Vec<KernelAccount> {
    for account in &mut kernel {
        account.dropped += table_of(account.stream).and_then(|table| given_up.get(&table)).copied().unwrap_or(0);
    }
    kernel
}

/// Staggered, so that not all tables are sealed in the same second. A log with few rows may grow older: at one row a
/// second, as in most tables, a segment a minute would be 20,000 files a day, mostly footers.
fn age(policy: RollPolicy, table: Table, rows: u64) -> Duration {
    const FEW: u64 = 256;
    let share = policy.age / 16;
    let age = policy.age.saturating_add(share.saturating_mul(u32::try_from(table as usize % 8).unwrap_or(0)));
    if rows < FEW { age.saturating_mul(8) } else { age }
}
