//! Recording: one attachment with one session after the other, until it is stopped or the target exits.
//!
//! However it ends, also by an error, the session is closed and all threads have been joined.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hud_common::session::{Clock, FORMAT_VERSION, Manifest, Options};

use super::{
    attachment::{Attachment, cpus},
    drain::{Drain, SEARCH_FIRST},
    governor,
    retention::Epoch,
    session::{Blueprint, Closing, Ending, LiveSession, Prepared},
    settings::{Destination, Every, Keep, Settings},
    status::{End, News, Outcome},
    store::{host_name, session_id},
    task_states::{self, TaskStates},
};
use crate::{
    error::{Error, Result},
    inspect::Process,
    kernel,
    privilege::{self, RaisedPriority},
    probes::Probes,
    service::Control,
};

/// Interval of draining the ring. On a busy machine each round takes a CPU from the target, twice.
const DRAIN_EVERY: Duration = Duration::from_millis(20);
/// Interval if it fills fast: at 1 million polls/s, 10 ms are 0.8 of its 8 MB, which the caches hold.
const DRAIN_OFTEN: Duration = Duration::from_millis(10);
/// Bytes in a round that count as fast. Two million a second are 100,000 polls with their wakes.
const MUCH: usize = 64 << 10;
/// Interval while probes are being attached: until they count, they cost time and record nothing.
const ATTACHING: Duration = Duration::from_millis(2);
/// Interval at which rows are sent to the log. kill -9 loses at most 100 ms: this, and as much again for threads that
/// wait for a CPU.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
/// How long each of two searches may look at threads from outside, per flush: 2 % of a CPU at first, when most is to be
/// found, later 0.4 %. With 2,000 threads they never end.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LATER: Duration = Duration::from_micros(200);
const FIRST: Duration = Duration::from_secs(1);

/// A recording that has ended in order.
pub struct Finished {
    /// The reason.
    pub end: End,
    /// Its last session.
    pub last: Outcome,
    /// Rows lost to a full disk, in all sessions.
    pub disk_drops: u64,
    /// Whether the target executed another program, even if that was not the reason.
    pub has_executed: bool,
    /// Still attached, without effect, until detached or dropped.
    pub probes: Option<Probes>,
    /// Until the probes are detached.
    raised: Option<RaisedPriority>,
}

impl Finished {
    /// Detaches the probes, which takes the kernel a moment.
    pub fn detach(&mut self) {
        self.probes = None;
        self.raised = None;
    }

    /// Number of probes still attached in the target's code.
    pub fn probed_places(&self) -> usize {
        self.probes.as_ref().map_or(0, Probes::probed_places)
    }
}

/// An attached recorder that has not started yet.
pub struct Recorder {
    attachment: Attachment,
    settings: Settings,
}

impl Recorder {
    /// Inspects the target and attaches to it. Nothing is written before [`Recorder::run`].
    pub fn attach(process: Process, settings: Settings) -> Result<Self> {
        if let Destination::Folder(folder) = &settings.destination
            && folder.symlink_metadata().is_ok()
        {
            return Err(hud_common::session::Error::Exists(folder.clone()).into());
        }
        if let Some(namespace) = kernel::inner_pid_namespace()
            && (settings.plan.no_btf || !kernel::can_translate_pids_of(process.pid))
        {
            return Err(Error::PidNamespace { pid: process.pid, namespace });
        }
        let raised = RaisedPriority::begin();
        Ok(Recorder { attachment: Attachment::new(process, &settings, &raised)?, settings })
    }

    /// Messages about facts that were not found in the target.
    pub fn notes(&self) -> &[String] {
        &self.attachment.notes
    }

    /// Number of task types found.
    pub fn task_types(&self) -> usize {
        self.attachment.tokio.poll_fns.len()
    }

    /// Name and verified instructions of each kernel program.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        self.attachment.probes.verified_instructions()
    }

    /// Records until it is stopped, the duration has passed, the target exits, or the session cannot be written. All
    /// sessions are closed when this returns.
    pub fn run(self, control: &Control, mut news: impl FnMut(News<'_>)) -> Result<Finished> {
        let Recorder { attachment, settings } = self;
        // The probes may still have to be attached.
        let keep_bpf = settings.keep_bpf || !attachment.has_learned();
        privilege::drop_after_attach(keep_bpf, settings.owner);
        let mut run = Run::begin(attachment, &settings)?;
        news(News::Began(run.live.folder()));
        let result = run.watch(control, &mut news);
        run.close(result, &mut news)
    }
}

/// A recording in progress.
struct Run<'a> {
    settings: &'a Settings,
    attachment: Attachment,
    drain: Drain,
    live: LiveSession,
    /// The next session, being prepared.
    opening: Option<JoinHandle<Result<Prepared>>>,
    /// The previous session, being named and sealed.
    closing: Option<JoinHandle<Result<Outcome>>>,
    disk_drops: u64,
    epoch: EpochClock,
    /// Reads the state of all tasks, once the target's tokio is known.
    states: Option<TaskStates>,
    /// When it was last read in this session (CLOCK_MONOTONIC); `None` before the first snapshot with all tasks.
    states_read: Option<u64>,
    started: Instant,
    /// During the first second, as the user waits for the first rows.
    raised: Option<RaisedPriority>,
}

impl<'a> Run<'a> {
    /// Begins the first session.
    fn begin(mut attachment: Attachment, settings: &'a Settings) -> Result<Self> {
        let raised = RaisedPriority::begin();
        let prepared = blueprint(&attachment, settings, settings.previous.clone()).prepare()?;
        let clock = prepared.clock();
        let (mut live, new_stacks) = prepared.begin(kernel::now(), attachment.process.pid, &attachment.probes);
        let mut drain = Drain::new(
            clock,
            attachment.plan.freq,
            &attachment.tokio,
            attachment.load_bias,
            &attachment.mappings,
            new_stacks,
        );
        if attachment.has_learned() {
            drain.learned(&attachment.tokio);
        }
        match start(&mut attachment, &mut drain, clock) {
            Ok(began) => live.started_at(began),
            Err(e) => {
                drop(drain);
                live.abandon();
                return Err(e);
            }
        }
        attachment.search_workers(&mut drain, SEARCH_FIRST);
        live.without(attachment.probes.left_out());
        let epoch = EpochClock::new(&live);
        let states = start_states(&attachment, &live, settings);
        Ok(Run {
            settings,
            attachment,
            drain,
            live,
            opening: None,
            closing: None,
            disk_drops: 0,
            epoch,
            states,
            states_read: None,
            started: Instant::now(),
            raised: Some(raised),
        })
    }

    fn watch(&mut self, control: &Control, news: &mut impl FnMut(News<'_>)) -> Result<End> {
        let (mut ticked, mut flushed, mut second) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            let drained = self.attachment.drain_ring(&mut self.drain, &self.live.out);
            if ticked.elapsed() >= governor::TICK || self.attachment.has_probes_to_count() {
                ticked = Instant::now();
                if let Some((began, ended)) = self.attachment.govern_switches(&mut self.drain, &self.live.out)? {
                    self.live.switched(began, ended, "the budget is used up");
                }
                if let Some(interval) = self.attachment.govern()? {
                    self.live.probed(interval);
                }
                if self.attachment.has_executed()? {
                    return Ok(End::TargetExecuted);
                }
            }
            if flushed.elapsed() >= FLUSH_EVERY {
                flushed = Instant::now();
                if let Some(tokio) = self.attachment.learn() {
                    privilege::drop_after_attach(self.settings.keep_bpf, self.settings.owner);
                    // Names before the rows that refer to them.
                    self.live.task_types(&tokio);
                    self.drain.learned(&tokio);
                    self.states = start_states(&self.attachment, &self.live, self.settings);
                }
                self.take_states(control);
                let at_most = if self.started.elapsed() < FIRST { LOOK_FIRST } else { LOOK_LATER };
                self.attachment.search_workers(&mut self.drain, at_most);
                self.attachment.look_at_polls(&mut self.drain, at_most);
                self.drain.flush(&self.live.out);
                self.attachment.calibrate()?;
                self.turn_session(news)?;
                if control.take_seal() {
                    self.live.out.seal_all();
                }
            }
            if second.elapsed() >= SECOND {
                second = Instant::now();
                self.raised = None;
                self.repeat_threads_and_tasks()?;
                let counters = self.attachment.counters()?;
                self.attachment.probes.follow_mappings(&counters);
                let switches_since = self.attachment.switches_since();
                self.live.cover(self.attachment.plan, &mut self.attachment.governor, switches_since);
                let progress = self.live.tick(&mut self.drain, &counters, &self.attachment.probes);
                news(News::Progress(&progress));
            }
            if control.is_stopped() {
                return Ok(End::Stopped);
            }
            if self.settings.duration.is_some_and(|d| self.started.elapsed() >= d) {
                return Ok(End::DurationOver);
            }
            if self.live.status().failed.load(Ordering::Relaxed) {
                // The thread that failed reports the error as the session is closed.
                return Err(Error::Unavailable("the session could not be written".into()));
            }
            if self.attachment.has_exited() {
                return Ok(End::TargetExited);
            }
            if drained.is_empty {
                let pause = match drained.bytes {
                    _ if self.attachment.is_attaching_probes() => ATTACHING,
                    MUCH.. => DRAIN_OFTEN,
                    _ => DRAIN_EVERY,
                };
                // On a busy machine a pause too many would be more than kill -9 may cost.
                thread::sleep(pause.min(FLUSH_EVERY.saturating_sub(flushed.elapsed())));
            }
        }
    }

    /// Writes threads and tasks again when an epoch ends, or when a full disk may have lost their rows.
    fn repeat_threads_and_tasks(&mut self) -> Result<()> {
        if !self.epoch.is_over(&self.live, self.settings.keep) {
            return Ok(());
        }
        let begun = self.live.now();
        self.drain.repeat_threads(begun);
        self.attachment.report_tasks_again()?;
        self.states.iter().for_each(TaskStates::repeat);
        self.live.epochs.add(Epoch { begun, done: self.live.now() });
        Ok(())
    }

    /// Writes the states of all tasks that were read, and has them read if a signal asks for it.
    fn take_states(&mut self, control: &Control) {
        let is_asked = control.take_state();
        let Some(states) = &self.states else { return };
        if is_asked {
            states.ask();
        }
        match states.news() {
            // It was taken for the session before; the next one is full.
            Some(task_states::News::Snapshot(snapshot))
                if self.states_read.is_none() && !(snapshot.is_full && self.live.has_begun(snapshot.read_at)) => {}
            Some(task_states::News::Snapshot(snapshot)) => {
                self.live.states_read(self.states_read, snapshot.read_at, &snapshot.gaps);
                self.states_read = Some(snapshot.read_at);
                task_states::write(snapshot, &mut self.drain, &self.live.out);
            }
            Some(task_states::News::Failed(why)) => {
                tracing::debug!("the state of tasks is not read: {why}");
                self.live.states_not_read(format!("the state of tasks is not read: {why}"));
                self.states = None;
            }
            None => {}
        }
    }

    /// Continues in a new session when it is due, without missing an event.
    fn turn_session(&mut self, news: &mut impl FnMut(News<'_>)) -> Result<()> {
        let Destination::Store(_) = &self.settings.destination else { return Ok(()) };
        if let Some(done) = self.closing.take_if(|c| c.is_finished()) {
            self.note_closed(&joined(done)?, news);
        }
        if let Some(done) = self.opening.take_if(|o| o.is_finished()) {
            match joined(done) {
                Ok(prepared) => return self.switch_to(prepared, news),
                Err(e) => {
                    tracing::warn!("cannot begin the next session, this one continues: {e}");
                    self.epoch.retry_session = Some(Instant::now() + Duration::from_secs(60));
                }
            }
        }
        let is_free = self.opening.is_none() && self.closing.is_none();
        if is_free && self.attachment.has_learned() && self.is_session_over() {
            let blueprint = blueprint(&self.attachment, self.settings, Some(self.live.id()));
            self.opening = Some(spawn("hud-opener", move || blueprint.prepare())?);
        }
        Ok(())
    }

    fn is_session_over(&self) -> bool {
        if self.epoch.retry_session.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        if is_full(self.settings.keep, self.live.status().bytes()) {
            return true;
        }
        match self.settings.every {
            // By the wall clock: the session's own does not follow when that is set.
            Every::Day => day(kernel::anchor().real) != day(self.live.clock.real),
            Every::Interval(interval) => self.live.started.elapsed() >= interval,
        }
    }

    /// From here on events belong to `next`, including those in the ring.
    fn switch_to(&mut self, next: Prepared, news: &mut impl FnMut(News<'_>)) -> Result<()> {
        let before = &mut self.attachment;
        if let Err(e) = before.catch_up(&mut self.drain, &self.live.out) {
            next.discard();
            return Err(e);
        }
        let counters = match self.attachment.probes.counters() {
            Ok(counters) => counters,
            Err(e) => {
                next.discard();
                return Err(e);
            }
        };
        let baseline = self.attachment.baseline.hand_over(&counters, &self.drain.rows);
        let ended = kernel::now();
        self.attachment.end_sums(ended, &mut self.drain, &self.live.out);
        let (clock, pid) = (next.clock(), self.attachment.process.pid);
        let (live, new_stacks) = next.begin(ended, pid, &self.attachment.probes);
        let old = std::mem::replace(&mut self.live, live);
        let reason = "the next session began";
        let ending = Ending {
            reason,
            ended,
            counters: self.attachment.baseline.until(&counters, &baseline),
            probed: self.attachment.governor.split(ended, reason),
            switches_since: self.attachment.switches_since(),
            notes: &self.attachment.notes,
        };
        let closing = old.end(&ending, &mut self.drain, &self.attachment.probes, self.attachment.plan);
        self.drain.next_session(clock, clock.epoch(ended), &self.attachment.mappings, new_stacks);
        self.attachment.baseline = baseline;
        self.attachment.report_tasks_again()?;
        self.states.iter().for_each(TaskStates::repeat);
        self.states_read = None;
        self.live.without(self.attachment.probes.left_out());
        self.epoch = EpochClock::new(&self.live);
        self.closing = Some(close_aside(closing)?);
        news(News::Began(self.live.folder()));
        Ok(())
    }

    fn note_closed(&mut self, outcome: &Outcome, news: &mut impl FnMut(News<'_>)) {
        self.disk_drops += outcome.disk_drops;
        news(News::Closed(outcome));
    }

    /// Ends the last session and waits for all threads.
    fn close(self, result: Result<End>, news: &mut impl FnMut(News<'_>)) -> Result<Finished> {
        let Run { mut attachment, mut drain, live, opening, closing, mut disk_drops, raised, .. } = self;
        // Before the next `RaisedPriority` notes the threads' niceness.
        drop(raised);
        // The user waits for it, unless the target has exited.
        let raised = match result {
            Ok(End::Stopped | End::DurationOver) => Some(RaisedPriority::all(attachment.sources.sandbox().pid())),
            _ => None,
        };
        if !attachment.has_learned() {
            live.task_types(&attachment.tokio);
        }
        let settled = attachment.settle(&mut drain, &live.out);
        let counters = attachment.counters();
        tracing::debug!("counters: {counters:?}");
        let reason = result.as_ref().map_or("hud failed", |end| end.reason());
        let ended = settled.as_ref().copied().unwrap_or_else(|_| kernel::now());
        let ending = Ending {
            reason,
            ended,
            probed: attachment.governor.cut(ended, reason),
            switches_since: attachment.switches_since(),
            // If the counters cannot be read, the account is the last row of `accounts`.
            counters: counters.as_ref().copied().unwrap_or_default(),
            notes: &attachment.notes,
        };
        let last = live.end(&ending, &mut drain, &attachment.probes, attachment.plan);
        drop(drain);
        let mut wait = |outcome: Result<JoinHandle<Result<Outcome>>>| -> Result<Outcome> {
            let outcome = outcome?;
            while !outcome.is_finished() {
                news(News::Alive);
                thread::sleep(DRAIN_EVERY);
            }
            let outcome = joined(outcome)?;
            disk_drops += outcome.disk_drops;
            news(News::Closed(&outcome));
            Ok(outcome)
        };
        // All threads are joined before any error is returned; the first error takes precedence.
        if let Some(Ok(prepared)) = opening.map(joined) {
            prepared.discard();
        }
        let before = closing.map(|closing| wait(Ok(closing)));
        let last = wait(close_aside(last));
        // A writer's own error is more specific.
        let end = match (result, last) {
            (Ok(end), Ok(last)) => (end, last),
            (Err(_), Err(e)) | (Err(e), Ok(_)) | (Ok(_), Err(e)) => return Err(e),
        };
        before.transpose()?;
        settled?;
        counters?;
        let (end, last) = end;
        let has_executed = attachment.has_executed()?;
        Ok(Finished { end, last, disk_drops, has_executed, probes: Some(attachment.probes), raised })
    }
}

/// Adds the existing threads and starts the streams.
fn start(attachment: &mut Attachment, drain: &mut Drain, clock: Clock) -> Result<u64> {
    for tid in attachment.process.threads() {
        if let Some(name) = attachment.process.thread_name(tid) {
            attachment.probes.know_thread(tid, &name)?;
            drain.existing_thread(clock.epoch(kernel::now()), tid, &name);
        }
    }
    attachment.start()
}

/// Starts to read the state of all tasks, if that is wanted and the target's tokio is known.
fn start_states(attachment: &Attachment, live: &LiveSession, settings: &Settings) -> Option<TaskStates> {
    let interval = settings.state.filter(|_| attachment.has_learned())?;
    let started = TaskStates::start(task_states::Plan {
        process: attachment.process.clone(),
        polls: attachment.tokio.poll_fns.clone(),
        names_from: attachment.names_from.clone(),
        sources: Arc::clone(&attachment.sources),
        interval,
    });
    started.map_err(|e| live.states_not_read(format!("the state of tasks is not read: {e}"))).ok()
}

fn blueprint(attachment: &Attachment, settings: &Settings, previous: Option<String>) -> Blueprint {
    let manifest = manifest(attachment, settings, previous);
    let (folder, store) = match &settings.destination {
        Destination::Folder(folder) => (folder.clone(), None),
        Destination::Store(store) => (store.session(&manifest.id), Some(store.clone())),
    };
    Blueprint {
        folder,
        manifest,
        process: attachment.process.clone(),
        tokio: attachment.has_learned().then(|| attachment.tokio.clone()),
        names_from: attachment.names_from.clone(),
        sources: Arc::clone(&attachment.sources),
        mappings: attachment.mappings.clone(),
        roll: settings.roll,
        keep: settings.keep,
        store,
        owner: settings.owner,
    }
}

fn manifest(attachment: &Attachment, settings: &Settings, previous: Option<String>) -> Manifest {
    let clock = kernel::anchor();
    let plan = attachment.plan;
    let state = settings.state.map_or("off".into(), |every| {
        hud_common::units::round_duration(i64::try_from(every.as_nanos()).unwrap_or(i64::MAX))
    });
    Manifest {
        format_version: FORMAT_VERSION,
        id: session_id(&attachment.process.name(), clock.real, attachment.process.pid),
        hud_version: env!("CARGO_PKG_VERSION").into(),
        host: host_name(),
        kernel: crate::inspect::clean(&rustix::system::uname().release().to_string_lossy()),
        cpus: cpus(),
        pid: attachment.process.pid,
        exe: crate::inspect::clean(&attachment.process.exe.to_string_lossy()),
        build_id: attachment.build_id.clone(),
        tokio_version: attachment.tokio.version.clone(),
        executor: attachment.executor.clone(),
        container: attachment.container.clone(),
        start: clock.real,
        options: Options {
            freq: plan.freq,
            polls: plan.polls.name().into(),
            unwind: plan.unwind.name().into(),
            other: [("state".to_owned(), state.into())].into(),
        },
        clock,
        notes: attachment.notes.clone(),
        previous,
        ..Manifest::default()
    }
}

/// When threads and tasks are written again.
struct EpochClock {
    since: Instant,
    sealed_bytes: u64,
    resumed: u64,
    /// When to retry to begin the next session, after a failure.
    retry_session: Option<Instant>,
}

impl EpochClock {
    fn new(live: &LiveSession) -> Self {
        EpochClock {
            since: Instant::now(),
            sealed_bytes: live.status().sealed_bytes.load(Ordering::Relaxed),
            resumed: live.status().resumed.load(Ordering::Relaxed),
            retry_session: None,
        }
    }

    /// Whether an eighth of the retained amount has been written, or rows of threads and tasks may be missing. If so,
    /// the next epoch begins.
    fn is_over(&mut self, live: &LiveSession, keep: Keep) -> bool {
        let now = EpochClock { retry_session: self.retry_session, ..EpochClock::new(live) };
        let is_over = now.resumed != self.resumed
            || keep.age.is_some_and(|age| self.since.elapsed() >= age / 8)
            || keep.bytes.is_some_and(|bytes| now.sealed_bytes.saturating_sub(self.sealed_bytes) >= bytes / 8);
        if is_over {
            *self = now;
        }
        is_over
    }
}

/// Smallest session of a store (bytes): each repeats names, threads and tasks.
const LEAST_SESSION: u64 = 8 << 20;

/// Whether a store's session holds so large a part of the retained amount that the next one must begin: earlier
/// sessions are removed as a whole, which must not cost most of it.
fn is_full(keep: Keep, bytes: u64) -> bool {
    keep.bytes.is_some_and(|most| bytes >= (most / 8).max(LEAST_SESSION))
}

/// Days since the epoch (UTC) of a time in nanoseconds.
fn day(real: i64) -> i64 {
    real.div_euclid(86_400_000_000_000)
}

/// Closes a session on a thread of its own.
fn close_aside(closing: Closing) -> Result<JoinHandle<Result<Outcome>>> {
    spawn("hud-closer", move || closing.finish())
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let started = thread::Builder::new().name(name.into()).spawn(work);
    started.map_err(|source| Error::Io { action: "start a thread", source })
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    let died = |_| Error::Kernel { what: "a session".into(), why: "a thread of hud panicked".into() };
    thread.join().map_err(died)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_full_at_an_eighth_of_what_is_kept() {
        let keep = |bytes| Keep { bytes, age: None };
        assert!(!is_full(keep(None), u64::MAX));
        assert!(!is_full(keep(Some(8 << 30)), (1 << 30) - 1) && is_full(keep(Some(8 << 30)), 1 << 30));
        assert!(!is_full(keep(Some(1 << 20)), LEAST_SESSION - 1));
    }
}
