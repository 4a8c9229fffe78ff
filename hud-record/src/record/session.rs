//! One session: prepared, begun, filled, ended, closed.
//!
//! Preparing (folder, threads) and closing (symbols, sealing, manifest) take disk time, so another thread can do both
//! while events arrive; the steps in between take microseconds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc::Sender},
    time::{Duration, Instant},
};

use hud_common::{
    session::{
        self, Clock, ClockColumns, ClockRow, Columns as _, CoverageColumns, CoverageRow, Manifest, Range, SessionDir,
        SessionLock, StreamAccount, Table, TaskTypeColumns, TaskTypeRow, Text,
    },
    wire::{Counters, Stream},
};

use super::{
    account::{KernelAccount, kernel_account, table_of},
    drain::Drain,
    drop_log::DropLog,
    governor::{Governor, ProbedInterval},
    namer::Namer,
    queue::BatchSender,
    retention::{Epochs, Retention, folder_size},
    settings::{Keep, RollPolicy},
    shared_manifest::SharedManifest,
    stacks::NewStack,
    status::{Outcome, Progress},
    store::{HostStore, Store},
    vitals::Vitals,
    writer::{Job, Writer},
    writer_status::WriterStatus,
};
use crate::{
    error::Result,
    inspect::{Mapping, Process, Tokio},
    kernel,
    privilege::{Owner, create_as},
    probes::{LeftOut, Plan, Polls, Probes},
    symbols::Sources,
};

/// Interval at which a session in progress writes `coverage`; in its first seconds it does at each tick.
const COVER_EVERY: Duration = Duration::from_secs(10);

/// The ingredients of a new session.
pub(super) struct Blueprint {
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) process: Process,
    /// With its task types, if they are known by now.
    pub(super) tokio: Option<Arc<Tokio>>,
    pub(super) names_from: PathBuf,
    pub(super) sources: Arc<Sources>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) roll: RollPolicy,
    pub(super) keep: Keep,
    pub(super) store: Option<Store>,
    pub(super) owner: Option<Owner>,
}

/// A session with its folder and threads that has not begun.
pub(super) struct Prepared {
    folder: SessionDir,
    lock: SessionLock,
    clock: Clock,
    manifest: SharedManifest,
    epochs: Epochs,
    writer: Writer,
    out: BatchSender,
    namer: Namer,
    new_stacks: Sender<NewStack>,
    /// The actual owner of the files.
    owner: Option<Owner>,
}

impl Blueprint {
    /// Makes the folder and starts the threads. A failure leaves nothing behind.
    pub(super) fn prepare(self) -> Result<Prepared> {
        let clock = self.manifest.clock;
        let ((folder, lock), owner) = create_as(
            self.owner,
            &self.folder,
            |e| matches!(e, session::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied),
            || SessionDir::create(&self.folder, &self.manifest),
        )?;
        let unstarted = Unstarted(Some(folder.path().into()), owner);
        let manifest = SharedManifest::new(self.manifest);
        let epochs = Epochs::default();
        let others = self.store.map(|store| HostStore::new(store, folder.path().into()));
        let (writer, out) = Writer::start(Job {
            session: folder.clone(),
            policy: self.roll,
            clock,
            retention: Retention::new(self.keep, others, epochs.clone(), clock),
            manifest: manifest.clone(),
            owner,
        })?;
        let (mappings, sources) = (self.mappings, self.sources);
        let namer = Namer::start(self.process, self.names_from, mappings, sources, clock, out.patient());
        let (namer, new_stacks) = match namer {
            Ok(started) => started,
            Err(e) => {
                drop(out);
                let _ = writer.finish();
                return Err(e);
            }
        };
        write_anchor(Some(clock), &out);
        if let Some(tokio) = &self.tokio {
            write_task_types(tokio, &out);
        }
        unstarted.keep();
        Ok(Prepared { folder, lock, clock, manifest, epochs, writer, out, namer, new_stacks, owner })
    }
}

impl Prepared {
    /// Removes it, with its folder.
    pub(super) fn discard(self) {
        drop(self.new_stacks);
        remove(&self.folder, self.namer, self.out, self.writer, self.owner);
        drop(self.lock);
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Begins it at `began` (CLOCK_MONOTONIC), or a little later, see [`LiveSession::started_at`]. Also returns the
    /// sender to its namer, for the drain.
    pub(super) fn begin(self, began: u64, pid: u32, probes: &Probes) -> (LiveSession, Sender<NewStack>) {
        let live = LiveSession {
            vitals: Vitals::new(pid, probes),
            drops: DropLog::new(self.clock.epoch(began)),
            began,
            covered: began,
            started: Instant::now(),
            progress: Progress::default(),
            id: self.manifest.with(|m| m.id.clone()),
            folder: self.folder,
            lock: self.lock,
            clock: self.clock,
            manifest: self.manifest,
            epochs: self.epochs,
            writer: self.writer,
            out: self.out,
            namer: self.namer,
            owner: self.owner,
        };
        (live, self.new_stacks)
    }
}

/// Ends a session's threads and removes its folder.
fn remove(folder: &SessionDir, namer: Namer, out: BatchSender, writer: Writer, owner: Option<Owner>) {
    namer.finish();
    drop(out);
    // Its files are removed next, so write errors do not matter.
    let _ = writer.finish();
    drop(Unstarted(Some(folder.path().into()), owner));
}

/// The folder of a session that has not begun: removed if a later step fails.
struct Unstarted(Option<PathBuf>, Option<Owner>);

impl Unstarted {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The first error is reported; a leftover folder is not worth hiding it.
            let _ = Owner::act(self.1, || fs::remove_dir_all(path));
        }
    }
}

/// A session that is being recorded.
pub(super) struct LiveSession {
    /// Kept apart from the manifest, which is locked while it is written: the drain must not wait for a disk.
    id: String,
    folder: SessionDir,
    lock: SessionLock,
    owner: Option<Owner>,
    pub(super) clock: Clock,
    manifest: SharedManifest,
    pub(super) epochs: Epochs,
    writer: Writer,
    pub(super) out: BatchSender,
    namer: Namer,
    vitals: Vitals,
    drops: DropLog,
    began: u64,
    /// The end of the time that `coverage` describes so far.
    covered: u64,
    pub(super) started: Instant,
    progress: Progress,
}

/// Why and when a session ends.
pub(super) struct Ending<'a> {
    pub(super) reason: &'static str,
    /// By CLOCK_MONOTONIC.
    pub(super) ended: u64,
    /// The counters since the session's baseline.
    pub(super) counters: Counters,
    /// The interval in which the probes counted, if one was in progress.
    pub(super) probed: Option<ProbedInterval>,
    /// Since when context switches counted, if they did.
    pub(super) switches_since: Option<u64>,
    /// Data that could not be recorded.
    pub(super) notes: &'a [String],
}

impl LiveSession {
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    pub(super) fn status(&self) -> &Arc<WriterStatus> {
        self.writer.status()
    }

    /// Corrects its begin.
    pub(super) fn started_at(&mut self, began: u64) {
        (self.began, self.covered) = (began, began);
        self.drops = DropLog::new(self.clock.epoch(began));
    }

    /// Writes into `coverage` which streams are not recorded at all, and why, as intervals of zero length.
    pub(super) fn without(&self, left_out: &[LeftOut]) {
        let mut coverage = CoverageColumns::default();
        for LeftOut { stream, what } in left_out {
            if let Some(stream) = stream {
                let ts = self.clock.epoch(self.began);
                coverage.push(CoverageRow { ts, dur: 0, stream: stream.name().into(), reason: what.clone().into() });
            }
        }
        self.out.send(&mut coverage);
    }

    /// Removes it, as nothing could be recorded. The drain must have been dropped.
    pub(super) fn abandon(self) {
        remove(&self.folder, self.namer, self.out, self.writer, self.owner);
        drop(self.lock);
    }

    /// Now, by this session's clock.
    pub(super) fn now(&self) -> i64 {
        self.clock.epoch(kernel::now())
    }

    /// Writes into `coverage` which streams were on since the last time, for readers of a session in progress and in
    /// case it is killed. Seldom, as views join events with each interval.
    pub(super) fn cover(&mut self, plan: Plan, governor: &mut Governor, switches_since: Option<u64>) {
        let now = kernel::now();
        let since = Duration::from_nanos(now.saturating_sub(self.covered));
        if since >= COVER_EVERY || self.started.elapsed() < COVER_EVERY {
            let reason = session::STILL_ON;
            write_coverage(plan, self.clock, self.covered, now, reason, &self.out);
            if let Some(since) = switches_since {
                self.switched(since, now, reason);
            }
            if plan.polls != Polls::Off
                && let Some(interval) = governor.split(now, reason)
            {
                self.probed(interval);
            }
            self.covered = now;
        }
    }

    /// Writes the figures of the last second.
    pub(super) fn tick(&mut self, drain: &mut Drain, counters: &Counters, probes: &Probes) -> Progress {
        let now = self.now();
        let events = drain.rows.iter().sum();
        let status = Arc::clone(self.writer.status());
        self.vitals.take(now, probes, drain.bytes, events, &self.out);
        let is_paused = status.is_paused.load(Ordering::Relaxed);
        // Losses add up while the disk is full: one row reports them afterwards.
        if !is_paused {
            self.drops.note(now, counters, drain.undecoded, drain.stacks_not_kept(), &self.out);
        }
        // The rows counted in the account must be sent before it.
        drain.flush(&self.out);
        self.out.account(now, kernel_account(counters, &drain.own_rows()));
        self.progress = Progress {
            elapsed: self.started.elapsed(),
            events,
            events_per_second: events.saturating_sub(self.progress.events),
            bytes: status.bytes(),
            drops: self.drops.total() + status.rows_dropped.load(Ordering::Relaxed),
            is_paused,
        };
        self.progress
    }

    /// Writes an interval in which context switches were recorded, without the part already written.
    pub(super) fn switched(&self, began: u64, ended: u64, reason: &'static str) {
        let began = began.max(self.covered);
        let mut coverage = CoverageColumns::default();
        coverage.push(CoverageRow {
            ts: self.clock.epoch(began),
            dur: ended.saturating_sub(began).cast_signed(),
            stream: Stream::OffCpu.name().into(),
            reason: reason.into(),
        });
        self.out.send(&mut coverage);
    }

    /// Writes that the state of all tasks was read at `read_at`, and before that at `last`, or not in this session.
    pub(super) fn states_read(&self, last: u64, read_at: u64, gaps: &[String]) {
        let began = last.max(self.began).min(read_at);
        let reason = if gaps.is_empty() { Text::Borrowed(session::STILL_ON) } else { gaps.join("; ").into() };
        self.states(began, read_at - began, reason);
    }

    /// Writes why the state of tasks is not read.
    pub(super) fn states_not_read(&self, why: String) {
        self.states(self.began, 0, why.into());
    }

    fn states(&self, began: u64, dur: u64, reason: Text) {
        let stream = Table::TaskStates.name().into();
        let mut coverage = CoverageColumns::default();
        coverage.push(CoverageRow { ts: self.clock.epoch(began), dur: dur.cast_signed(), stream, reason });
        self.out.send(&mut coverage);
    }

    /// Writes the task types, which were not known as the session began.
    pub(super) fn task_types(&self, tokio: &Tokio) {
        write_task_types(tokio, &self.out);
    }

    /// Writes an interval in which the probes in the target's code counted.
    pub(super) fn probed(&self, interval: ProbedInterval) {
        let mut coverage = CoverageColumns::default();
        let is_watched = |stream: &Stream| match stream {
            Stream::Wakes => interval.watched.wakes,
            Stream::Spawns => interval.watched.spawns,
            _ => stream.is_probed(),
        };
        for stream in Stream::ALL.into_iter().filter(is_watched) {
            coverage.push(CoverageRow {
                ts: self.clock.epoch(interval.began),
                dur: interval.ended.saturating_sub(interval.began).cast_signed(),
                stream: stream.name().into(),
                reason: interval.reason.into(),
            });
        }
        self.out.send(&mut coverage);
    }

    /// Sends the last rows. [`Closing::finish`] does the waiting, after the drain has dropped the sender to this
    /// session's namer.
    pub(super) fn end(mut self, ending: &Ending<'_>, drain: &mut Drain, probes: &Probes, plan: Plan) -> Closing {
        let now = self.now();
        let events = drain.rows.iter().sum();
        self.vitals.take(now, probes, drain.bytes, events, &self.out);
        self.drops.note(now, &ending.counters, drain.undecoded, drain.stacks_not_kept(), &self.out);
        if let Some(interval) = ending.probed.filter(|_| plan.polls != Polls::Off) {
            self.probed(interval);
        }
        write_coverage(plan, self.clock, self.covered, ending.ended, ending.reason, &self.out);
        if let Some(since) = ending.switches_since {
            self.switched(since, ending.ended, ending.reason);
        }
        write_anchor(None, &self.out);
        drain.flush(&self.out);
        let kernel = kernel_account(&ending.counters, &drain.own_rows());
        self.out.account(now, kernel.clone());
        let mut notes = ending.notes.to_vec();
        if drain.stacks_not_kept() > 0 {
            notes.push(format!("{} events have no stack: too many distinct ones (see drops)", drain.stacks_not_kept()));
        }
        let merged = ending.counters.merged;
        if merged > 0 {
            notes.push(format!(
                "{merged} short off-CPU intervals are recorded as sums, to stay within the overhead budget (column \
                 `intervals` of off_cpu)"
            ));
        }
        let missed = ending.counters.arrivals_missed;
        if missed > 0 {
            notes.push(format!(
                "{missed} context switches were missed: the same number of off-CPU intervals end when their thread was woken"
            ));
        }
        let end = self.clock.epoch(ending.ended);
        self.manifest.with(|m| m.notes = notes);
        self.progress.elapsed = Duration::from_nanos(ending.ended.saturating_sub(self.began));
        self.progress.events = events;
        self.progress.events_per_second = 0;
        self.progress.drops = self.drops.total();
        Closing { live: self, kernel, end, reason: ending.reason }
    }
}

/// A session whose rows have all been sent.
pub(super) struct Closing {
    live: LiveSession,
    kernel: Vec<KernelAccount>,
    end: i64,
    reason: &'static str,
}

impl Closing {
    /// Waits until everything is named and sealed, and writes the manifest.
    pub(super) fn finish(self) -> Result<Outcome> {
        let Closing { live, kernel, end, reason } = self;
        let mut unnamed = live.namer.finish();
        drop(live.out);
        let (written, sealed) = live.writer.finish()?;
        let mut disk_drops = written.dropped.values().sum::<u64>();
        // Rows lost to a damaged log are in no `drops` row; the account shows them as missing.
        disk_drops += sealed.unreadable;
        let mut streams = BTreeMap::new();
        for KernelAccount { stream, produced, dropped } in kernel {
            let own = |by: &BTreeMap<_, u64>| table_of(stream).and_then(|t| by.get(&t)).copied().unwrap_or(0);
            let account = StreamAccount {
                produced,
                stored: own(&sealed.stored),
                dropped: dropped + own(&written.dropped) + own(&written.given_up),
                expired: own(&sealed.expired),
            };
            streams.insert(stream.name().to_string(), account);
        }
        let folder = &live.folder;
        let id = live.manifest.with(|m| {
            m.streams.clone_from(&streams);
            m.notes.append(&mut unnamed);
            m.end = Some(end);
            m.end_reason = Some(reason.into());
            m.range = m.range.map(|range| Range { to: end, ..range });
            // If logs remain, recovery completes the session once there is disk space.
            m.complete = sealed.unsealed == 0;
            Owner::act(live.owner, || folder.write_manifest(m)).map(|()| m.id.clone())
        })?;
        let mut progress = live.progress;
        progress.bytes = folder_size(&live.folder);
        progress.drops += disk_drops + written.given_up.values().sum::<u64>();
        drop(live.lock);
        Ok(Outcome {
            session: live.folder.path().into(),
            id,
            reason,
            progress,
            streams,
            disk_drops,
            unsealed: sealed.unsealed,
        })
    }
}

/// Writes a pair of clock readings: the session's own, or one taken now.
fn write_anchor(clock: Option<Clock>, out: &BatchSender) {
    let clock = clock.unwrap_or_else(kernel::anchor);
    let mut anchors = ClockColumns::default();
    anchors.push(ClockRow { mono: clock.mono, real: clock.real });
    out.send(&mut anchors);
}

fn write_task_types(tokio: &Tokio, out: &BatchSender) {
    let mut types = TaskTypeColumns::default();
    for (type_id, poll) in (1..).zip(&tokio.poll_fns) {
        types.push(TaskTypeRow {
            type_id,
            name: poll.name.clone().into(),
            scheduler: poll.scheduler.map(|s| s.name().into()),
            file: poll.file.clone().map(Into::into),
            line: poll.line.and_then(|l| i32::try_from(l).ok()),
            kind: poll.kind.name().into(),
            raw_name: poll.raw_name.clone().into(),
        });
    }
    out.send(&mut types);
}

/// Writes that the always-on streams, and the search for polls in progress, were on from `began` to `ended`.
fn write_coverage(plan: Plan, clock: Clock, began: u64, ended: u64, reason: &'static str, out: &BatchSender) {
    let mut coverage = CoverageColumns::default();
    for stream in Stream::ALL {
        let always_on = match stream {
            Stream::Samples => plan.freq > 0,
            // It has rows of its own, see `switched`.
            Stream::OffCpu => false,
            _ => !stream.is_probed(),
        };
        if always_on {
            coverage.push(CoverageRow {
                ts: clock.epoch(began),
                dur: ended.saturating_sub(began).cast_signed(),
                stream: stream.name().into(),
                reason: reason.into(),
            });
        }
    }
    coverage.push(CoverageRow {
        ts: clock.epoch(began),
        dur: ended.saturating_sub(began).cast_signed(),
        stream: Table::InProgress.name().into(),
        reason: reason.into(),
    });
    out.send(&mut coverage);
}
