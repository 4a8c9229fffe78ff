//! One recording, from the attach to the closed session.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use hud_common::{
    session::{
        Clock, ClockColumns, ClockRow, Columns as _, CoverageColumns, CoverageRow, FORMAT_VERSION, Manifest, Options,
        SessionDir, StreamAccount, Table, TaskTypeColumns, TaskTypeRow,
    },
    wire::Stream,
};
use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, PidfdFlags},
};

use super::{
    account::{DropLog, account, produced},
    drain::Drain,
    governor::{self, Governor, Stretch},
    namer::Namer,
    vitals::Vitals,
    writer::{BatchSender, RollPolicy, Writer},
};
use crate::{
    error::{Error, Result},
    kernel,
    probes::{Plan, Polls, Probes},
    target::{Binary, Process, Tokio},
};

/// How often the ring is looked at: at 1 M polls/s, 5 ms are 0.3 MB of its 8.
const DRAIN_EVERY: Duration = Duration::from_millis(5);
/// How often rows go to the log: what kill -9 can take.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// How long to look for the current task's id in tokio's thread-local before giving up.
const CALIBRATE_FOR: Duration = Duration::from_secs(30);

/// What to record, and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The new session's folder.
    pub session: PathBuf,
    /// The binary to take symbols from, where not the one that runs.
    pub target: Option<PathBuf>,
    /// How long; `None` until stopped.
    pub duration: Option<Duration>,
    /// What to attach.
    pub plan: Plan,
    /// What the probes may cost, as a share of the target's CPU time, where the plan leaves it to the governor.
    pub budget: f64,
    /// When segments are full.
    pub roll: RollPolicy,
}

/// How a recording goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Since it began.
    pub elapsed: Duration,
    /// Events stored.
    pub events: u64,
    /// Of these, in the last second.
    pub events_per_second: u64,
    /// Bytes in the session's folder.
    pub bytes: u64,
    /// Events known to be lost.
    pub drops: u64,
}

/// How a recording went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The session.
    pub session: PathBuf,
    /// Why it ended.
    pub reason: &'static str,
    /// At the end.
    pub progress: Progress,
    /// The account of each stream.
    pub streams: BTreeMap<String, StreamAccount>,
}

/// An attached recorder that has not started yet.
pub struct Recorder {
    process: Process,
    settings: Settings,
    tokio: Tokio,
    names_from: PathBuf,
    build_id: Option<String>,
    load_bias: u64,
    probes: Probes,
}

impl Recorder {
    /// Looks into the target and attaches to it. Nothing is written before [`Recorder::run`].
    pub fn attach(process: Process, settings: Settings) -> Result<Self> {
        if settings.session.symlink_metadata().is_ok() {
            return Err(hud_common::session::Error::Exists(settings.session).into());
        }
        let running = Binary::open(&process.exe_path(), &process.exe).map_err(|e| process.opened(e))?;
        let given = match &settings.target {
            Some(path) => Some(Binary::open(path, path)?),
            None => None,
        };
        if let (Some(given), Some(running_id)) = (&given, running.build_id())
            && let Some(given_id) = given.build_id()
            && given_id != running_id
        {
            return Err(Error::OtherBuild {
                path: given.path().into(),
                pid: process.pid,
                given: given_id.into(),
                running: running_id.into(),
            });
        }
        let names_from = match &settings.target {
            Some(path) => path.clone(),
            None => process.exe_path(),
        };
        let named = given.as_ref().unwrap_or(&running);
        let mut tokio = Tokio::find(named)?;
        let load_bias = process.load_bias(&running)?;
        tokio.learn(named, &process, load_bias);
        let (start, end) = running.image();
        let image = (start.wrapping_add(load_bias), end.wrapping_add(load_bias));
        let mut probes = Probes::attach(&process, &tokio, image, settings.plan)?;
        probes.use_learned(&process, &tokio, settings.plan)?;
        let build_id = running.build_id().map(str::to_string);
        Ok(Recorder { process, settings, tokio, names_from, build_id, load_bias, probes })
    }

    /// What could not be found out about the target, in words.
    pub fn notes(&self) -> &[String] {
        &self.tokio.notes
    }

    /// Task types found.
    pub fn task_types(&self) -> usize {
        self.tokio.poll_fns.len()
    }

    /// Name and instructions verified of each kernel program.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        self.probes.verified_instructions()
    }

    /// Records until `stop` is set, the time is over, the target exits, or the session cannot be written. The session is
    /// closed when this returns; the probes are still attached, without effect, until they are dropped.
    pub fn run(mut self, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> Result<(Outcome, Probes)> {
        let pidfd = Pid::from_raw(self.process.pid.cast_signed())
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
            .ok_or(Error::Exited(self.process.pid))?;
        let mappings = self.process.mappings()?;
        let clock = kernel::anchor();
        let mut manifest = self.manifest(clock);
        let mut ring = self.probes.take_ring()?;
        let (session, _lock) = SessionDir::create(&self.settings.session, &manifest)?;
        let unstarted = Unstarted(Some(session.path().into()));
        let (writer, out) = Writer::start(session.clone(), self.settings.roll)?;
        let (namer, new_stacks) =
            Namer::start(self.process.clone(), self.names_from.clone(), mappings.clone(), out.clone())?;
        self.write_constants(clock, &out);

        let mut drain = Drain::new(clock, self.settings.plan.freq, &self.tokio, self.load_bias, &mappings, new_stacks);
        for tid in self.process.threads() {
            if let Some(name) = self.process.thread_name(tid) {
                self.probes.know_thread(tid, &name)?;
                drain.existing_thread(clock.epoch(kernel::now()), tid, &name);
            }
        }
        let mut vitals = Vitals::new(self.process.pid, &self.probes);
        let mut drops = DropLog::default();
        let plan = self.settings.plan;
        let budget = (plan.polls == Polls::Auto).then_some(self.settings.budget);
        let mut governor = Governor::new(budget, self.process.pid, manifest.cpus, &self.probes, kernel::now());
        let began = kernel::now();
        governor.begin(began);
        self.probes.start(began)?;
        unstarted.keep();
        let started = Instant::now();
        let (mut flushed, mut second, mut ticked) = (started, started, started);
        let mut state = Progress::default();

        let reason = loop {
            let is_empty = drain_ring(&mut ring, &mut drain, &out);
            if ticked.elapsed() >= governor::TICK {
                ticked = Instant::now();
                let counters = self.probes.counters()?;
                if let Some(stretch) = governor.tick(&mut self.probes, &counters, kernel::now())? {
                    write_probed(stretch, clock, &out);
                }
            }
            if flushed.elapsed() >= FLUSH_EVERY {
                flushed = Instant::now();
                drain.flush(&out);
                if self.probes.is_calibrating() {
                    self.calibrate(started.elapsed() >= CALIBRATE_FOR, &mut manifest)?;
                }
            }
            if second.elapsed() >= SECOND {
                second = Instant::now();
                let now = clock.epoch(kernel::now());
                let events = drain.rows.iter().sum();
                vitals.take(now, &self.probes, drain.bytes, events, &out);
                drops.note(now, &self.probes.counters()?, drain.undecoded, &out);
                state = Progress {
                    elapsed: started.elapsed(),
                    events,
                    events_per_second: events - state.events,
                    bytes: folder_size(&session),
                    drops: drops.total(),
                };
                progress(&state);
            }
            if stop.load(Ordering::Relaxed) {
                break "stopped";
            }
            if self.settings.duration.is_some_and(|d| started.elapsed() >= d) {
                break "duration is over";
            }
            if writer.status().failed.load(Ordering::Relaxed) {
                break "the session could not be written";
            }
            if has_exited(&pidfd) {
                break "the target exited";
            }
            if is_empty {
                thread::sleep(DRAIN_EVERY);
            }
        };

        let ended = self.settle(&mut ring, &mut drain, &out)?;
        let now = clock.epoch(kernel::now());
        let counters = self.probes.counters()?;
        vitals.take(now, &self.probes, drain.bytes, drain.rows.iter().sum(), &out);
        drops.note(now, &counters, drain.undecoded, &out);
        if plan.polls != Polls::Off
            && let Some(stretch) = governor.cut(ended, reason)
        {
            write_probed(stretch, clock, &out);
        }
        write_coverage(plan, clock, began, ended, reason, &out);
        let own_rows = drain.own_rows();
        drain.flush(&out);
        let events = drain.rows.iter().sum();
        if drain.stacks_not_kept() > 0 {
            manifest.notes.push(format!("{} events have no stack: too many distinct ones", drain.stacks_not_kept()));
        }
        if counters.arrivals_missed > 0 {
            manifest.notes.push(format!(
                "the kernel told of {} switches too few: {} stretches off CPU end as their thread was woken",
                counters.arrivals_missed, counters.arrivals_missed
            ));
        }
        drop(drain);
        namer.finish();
        drop(out);
        let stored = writer.finish()?;

        manifest.streams = account(&counters, &own_rows, &stored);
        manifest.end = Some(clock.epoch(ended));
        manifest.end_reason = Some(reason.into());
        manifest.complete = true;
        manifest.write(session.path())?;
        let outcome = Outcome {
            session: session.path().into(),
            reason,
            progress: Progress {
                elapsed: Duration::from_nanos(ended.saturating_sub(began)),
                events,
                events_per_second: 0,
                bytes: folder_size(&session),
                drops: drops.total(),
            },
            streams: manifest.streams,
        };
        Ok((outcome, self.probes))
    }

    /// Goes on looking for the place of the current task's id, or gives up.
    fn calibrate(&mut self, give_up: bool, manifest: &mut Manifest) -> Result<()> {
        let found = self.probes.calibrate(give_up)?;
        if self.probes.is_calibrating() {
            return Ok(());
        }
        if !found {
            manifest.notes.push(
                "the current task's id was not found in tokio's thread-local: samples and stretches off CPU have a task \
                 only while exact polls are on"
                    .into(),
            );
        }
        self.probes.end_calibration(self.settings.plan.polls != Polls::Off)
    }

    /// Stops the streams and takes what is left: the ring is read until the kernel's account and ours agree, and
    /// stretches under way are cut at this instant.
    fn settle(&mut self, ring: &mut RingBuf<MapData>, drain: &mut Drain, out: &BatchSender) -> Result<u64> {
        self.probes.stop()?;
        let ended = kernel::now();
        // A program that had passed the switch may still be writing: for microseconds, or until its preempted thread
        // gets a CPU again.
        for _ in 0..100 {
            let before = produced(&self.probes.counters()?);
            thread::sleep(Duration::from_millis(2));
            // Recording is off: the ring ends.
            while !drain_ring(ring, drain, out) {}
            if produced(&self.probes.counters()?) == before {
                break;
            }
        }
        for state in self.probes.off_cpu_now()? {
            drain.unfinished(&state, ended, out);
        }
        Ok(ended)
    }

    fn manifest(&self, clock: Clock) -> Manifest {
        let uname = rustix::system::uname();
        let text = |s: &std::ffi::CStr| crate::target::clean(&s.to_string_lossy());
        let plan = self.settings.plan;
        Manifest {
            format_version: FORMAT_VERSION,
            id: format!("{}-{}", clock.real, self.process.pid),
            hud_version: env!("CARGO_PKG_VERSION").into(),
            host: text(uname.nodename()),
            kernel: text(uname.release()),
            cpus: aya::util::nr_cpus().ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            pid: self.process.pid,
            exe: crate::target::clean(&self.process.exe.to_string_lossy()),
            build_id: self.build_id.clone(),
            tokio_version: self.tokio.version.clone(),
            start: clock.real,
            end: None,
            end_reason: None,
            options: Options { freq: plan.freq, polls: plan.polls.name().into(), other: BTreeMap::new() },
            clock,
            notes: self.tokio.notes.clone(),
            ..Manifest::default()
        }
    }

    /// What is known before the first event: the clock's anchor and the task types.
    fn write_constants(&self, clock: Clock, out: &BatchSender) {
        let mut anchors = ClockColumns::default();
        anchors.push(ClockRow { mono: clock.mono, real: clock.real });
        out.send(&mut anchors);
        let mut types = TaskTypeColumns::default();
        for (type_id, poll) in (1..).zip(&self.tokio.poll_fns) {
            types.push(TaskTypeRow {
                type_id,
                name: poll.name.clone().into(),
                scheduler: poll.scheduler.map(Into::into),
                file: poll.file.clone().map(Into::into),
                line: poll.line.and_then(|l| i32::try_from(l).ok()),
                kind: poll.kind.name().into(),
                raw_name: poll.raw_name.clone().into(),
            });
        }
        out.send(&mut types);
    }
}

/// A stretch in which the probes in the target's code counted.
fn write_probed(stretch: Stretch, clock: Clock, out: &BatchSender) {
    let mut coverage = CoverageColumns::default();
    for stream in Stream::ALL.into_iter().filter(|s| s.is_probed()) {
        coverage.push(CoverageRow {
            ts: clock.epoch(stretch.began),
            dur: stretch.ended.saturating_sub(stretch.began).cast_signed(),
            stream: stream.name().into(),
            reason: stretch.reason.into(),
        });
    }
    out.send(&mut coverage);
}

fn write_coverage(plan: Plan, clock: Clock, began: u64, ended: u64, reason: &'static str, out: &BatchSender) {
    let mut coverage = CoverageColumns::default();
    for stream in Stream::ALL {
        let always_on = match stream {
            Stream::Samples => plan.freq > 0,
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
    out.send(&mut coverage);
    let mut anchors = ClockColumns::default();
    let end = kernel::anchor();
    anchors.push(ClockRow { mono: end.mono, real: end.real });
    out.send(&mut anchors);
}

impl Process {
    /// An error of opening the binary through /proc, in terms of the process.
    fn opened(&self, error: Error) -> Error {
        match error {
            Error::Binary { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Error::Denied { pid: self.pid, source }
            }
            Error::Binary { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Error::Exited(self.pid),
            other => other,
        }
    }
}

/// Takes what is in the ring, up to a bound: a target that is always ahead must not keep the recorder from its other
/// duties. Gives whether the ring was emptied.
fn drain_ring(ring: &mut RingBuf<MapData>, drain: &mut Drain, out: &BatchSender) -> bool {
    for _ in 0..65_536 {
        match ring.next() {
            Some(record) => drain.record(&record, out),
            None => return true,
        }
    }
    false
}

/// The folder of a session that has not begun: removed again where something fails before.
struct Unstarted(Option<PathBuf>);

impl Unstarted {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The error that led here is told; that the folder stays as well would only hide it.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn has_exited(pidfd: &impl std::os::fd::AsFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
}

fn folder_size(session: &SessionDir) -> u64 {
    let size = |path: PathBuf| -> u64 {
        let Ok(entries) = std::fs::read_dir(path) else { return 0 };
        entries.flatten().filter_map(|e| e.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
    };
    size(session.path().into()) + Table::ALL.iter().map(|t| size(session.table(*t))).sum::<u64>()
}
