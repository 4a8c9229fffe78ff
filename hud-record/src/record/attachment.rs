//! The attachment to the target: probes, ring, counters. It lasts as long as hud records the process, over any number
//! of sessions.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hud_common::{
    session::Container,
    wire::{Counters, Stream},
};
use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, PidfdFlags},
};

use super::{
    account::{Baseline, lost, produced},
    debuginfo_reader::{DebugInfoReader, Learned},
    drain::Drain,
    governor::{Governor, ProbedInterval, Watched},
    identity::Identity,
    in_progress::{self, InProgress},
    queue::BatchSender,
    settings::Settings,
    switches::{SwitchGovernor, Turned},
};
use crate::{
    error::{Error, Result},
    inspect::{Inspection, Mapping, Process, Tokio, container, executor, search},
    kernel::{self, CpuTime},
    privilege::{self, RaisedPriority},
    probes::{Plan, Polls, Probes, Unwind},
    ring::{Drained, Ring},
    sandbox::Sandbox,
    symbols::{Cache, Sources},
    tasks::{CurrentTasks, WorkerLoops},
    unwind::Prepared,
};

/// How long the current task's id is searched in tokio's thread-local context.
const CALIBRATE_FOR: Duration = Duration::from_secs(30);

/// hud, attached to a process.
pub(super) struct Attachment {
    pub(super) process: Process,
    pub(super) tokio: Arc<Tokio>,
    pub(super) names_from: PathBuf,
    /// For symbols, in every session.
    pub(super) sources: Arc<Sources>,
    pub(super) build_id: Option<String>,
    /// The executor in the binary instead of tokio.
    pub(super) executor: Option<String>,
    pub(super) container: Option<Container>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) load_bias: u64,
    /// The addresses of the target's binary.
    image: (u64, u64),
    /// Finds worker threads by their stacks, once the debug information has been read.
    worker_loops: Option<WorkerLoops>,
    /// Reads what threads are polling, from then on.
    current_tasks: Option<CurrentTasks>,
    in_progress: InProgress,
    /// Of the target, on which the budgets depend.
    cpu_time: CpuTime,
    pub(super) plan: Plan,
    pub(super) probes: Probes,
    ring: Ring,
    pidfd: OwnedFd,
    identity: Option<Identity>,
    /// While the target's debug information is being read.
    debuginfo: Option<DebugInfoReader>,
    /// Since when the current task's id is searched.
    searching: Instant,
    /// Notes for every session's manifest: data that could not be recorded.
    pub(super) notes: Vec<String>,
    /// The counters as the session began.
    pub(super) baseline: Baseline,
    pub(super) governor: Governor,
    switches: SwitchGovernor,
}

impl Attachment {
    /// Inspects the target and attaches to it. Nothing is recorded before [`Probes::start`].
    pub(super) fn new(mut process: Process, settings: &Settings, raised: &RaisedPriority) -> Result<Self> {
        // First, so that an exec from here on is detected.
        let identity = Identity::of(&process);
        let pidfd = Pid::from_raw(process.pid.cast_signed())
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
            .ok_or(Error::Exited(process.pid))?;
        // While hud has all its rights: the child must become nobody.
        let sources = Arc::new(Sources::new(Sandbox::start(settings.sandbox.as_deref())?, Cache::shared()));
        // A second child for requests that recording waits for; the first one has low priority.
        let urgent = Arc::new(Sources::new(Sandbox::start_urgent(settings.sandbox.as_deref())?, Cache::default()));
        // Before another thread requests the unwind tables from the same child.
        let running = Inspection::of_running(&mut process, urgent.sandbox())?;
        let mut plan = settings.plan;
        let tables = prepare(&process, Arc::clone(&urgent), plan)?;
        let load_bias = running.load_bias.ok_or(Error::Exited(process.pid))?;
        let build_id = running.build_id.clone();
        let mut image = (running.image.0.wrapping_add(load_bias), running.image.1.wrapping_add(load_bias));
        let mut executor = None;
        let mut tokio = match &settings.target {
            Some(path) => {
                let given = Inspection::of_given_file(path, &process, load_bias, urgent.sandbox())?;
                if let (Some(given), Some(running)) = (&given.build_id, &build_id)
                    && given != running
                {
                    return Err(Error::OtherBuild {
                        path: path.clone(),
                        pid: process.pid,
                        given: given.clone(),
                        running: running.clone(),
                    });
                }
                given.into_tokio(path)?
            }
            None => match running.tokio {
                // Its threads can still be recorded. No address in the binary is then taken for a task's vtable.
                Err(why) if plan.polls != Polls::Exact => {
                    (plan.polls, image) = (Polls::Off, (0, 0));
                    executor = search::open(&process.exe_path()).and_then(|(file, _)| executor::search(file));
                    Tokio::none(why)
                }
                _ => running.into_tokio(&process.tokio_file())?,
            },
        };
        let names_from = match &settings.target {
            Some(path) => path.clone(),
            None => process.tokio_path(),
        };
        let tables = tables.join().unwrap_or_else(|_| Ok(Prepared::default()))?;
        let mut notes = tables.notes();
        // The child reads debug information while the kernel verifies the programs.
        let urgent_sandbox = Arc::clone(&urgent);
        let debuginfo = DebugInfoReader::start(tokio.clone(), names_from.clone(), &process, urgent)?;
        let mut probes = Probes::attach(&process, &tokio, image, plan, settings.budget, tables, &sources)?;
        if !probes.has_samples() {
            plan.freq = 0;
        }
        if privilege::lacks_mapped_files() {
            notes.push(
                "hud lacks CAP_CHECKPOINT_RESTORE: files that the target has mapped may not be opened, and then most stacks \
                 end after a few frames"
                    .into(),
            );
        }
        let debuginfo = match debuginfo.wait(settings.is_held) {
            Learned::All(learned) => {
                tokio = *learned;
                probes.use_learned(&process, &tokio, plan)?;
                None
            }
            Learned::Pending(debuginfo) => Some(debuginfo),
        };
        if let Some(child) = urgent_sandbox.sandbox().pid() {
            raised.end_for(child);
        }
        let ring = probes.take_ring()?;
        let mappings = process.mappings()?;
        let budget = (plan.polls == Polls::Auto).then_some(settings.budget);
        notes.extend(probes.left_out().iter().map(|left_out| left_out.what.clone()));
        let has = |stream| probes.left_out().iter().all(|left_out| left_out.stream != Some(stream));
        let watched = Watched {
            wakes: !tokio.wakes.is_empty() && has(Stream::Wakes),
            spawns: !tokio.spawns.is_empty() && has(Stream::Spawns),
        };
        notes.extend_from_slice(&tokio.notes);
        if let Some(executor) = &executor {
            notes.push(format!("the binary contains the executor {executor}, whose tasks are not recorded"));
        }
        let mut cpu_time = CpuTime::of(process.pid);
        let (now, cpus) = (kernel::now(), cpus());
        let governor = Governor::new(budget, watched, cpu_time.at(now), cpus, &probes, now);
        let switches = SwitchGovernor::new(settings.budget, plan, cpu_time.at(now), cpus, now);
        let mut attachment = Attachment {
            container: container::of(process.pid),
            executor,
            image,
            worker_loops: None,
            current_tasks: None,
            in_progress: InProgress::default(),
            cpu_time,
            switches,
            notes,
            process,
            tokio: Arc::new(tokio),
            names_from,
            sources,
            build_id,
            mappings,
            load_bias,
            plan,
            probes,
            ring,
            pidfd,
            identity,
            debuginfo,
            searching: Instant::now(),
            baseline: Baseline::default(),
            governor,
        };
        if attachment.has_learned() {
            attachment.read_from_outside();
        }
        Ok(attachment)
    }

    /// Reads workers' loops and current tasks from outside, once the target's tokio is known.
    fn read_from_outside(&mut self) {
        self.worker_loops = WorkerLoops::new(&self.process, &self.tokio, self.image, self.load_bias);
        self.current_tasks = CurrentTasks::new(&self.process, &self.tokio, self.image);
        // Without all of their probes, a poll that was not seen to begin is no evidence.
        let is_recorded = self.plan.polls != Polls::Off && self.probes.has_all_polls();
        self.in_progress.record(Some(&*self.tokio).filter(|_| is_recorded));
    }

    /// Starts all streams. Returns the instant (CLOCK_MONOTONIC).
    pub(super) fn start(&mut self) -> Result<u64> {
        if self.executed_meanwhile() {
            return Err(Error::Executed(self.process.pid));
        }
        let now = kernel::now();
        self.governor.begin(&self.probes, now);
        self.probes.start(now)?;
        Ok(now)
    }

    /// Keeps the probes within their budget; to be called every [`governor::TICK`]. Returns the interval in which they
    /// counted, if it ended.
    pub(super) fn govern(&mut self) -> Result<Option<ProbedInterval>> {
        if let Some(off_since) = self.switches.off_since()
            && self.governor.has_budget()
        {
            return self.governor.pause(&mut self.probes, off_since, "context switches are not recorded");
        }
        self.governor.tick(&mut self.probes, &mut self.cpu_time, kernel::now())
    }

    /// Keeps context switches within their budget. Returns the interval in which they counted, if it ended.
    pub(super) fn govern_switches(&mut self, drain: &mut Drain, out: &BatchSender) -> Result<Option<(u64, u64)>> {
        match self.switches.tick(&mut self.probes, &self.process, &mut self.cpu_time, kernel::now())? {
            None => Ok(None),
            Some(Turned::Off { began, ended }) => {
                // A program that has already tested the flag may still be writing. Earlier events come first.
                thread::sleep(Duration::from_millis(1));
                while !self.drain_ring(drain, out).is_empty {}
                for state in self.probes.unfinished(began)? {
                    drain.unfinished(&state, ended, out);
                }
                Ok(Some((began, ended)))
            }
            Some(Turned::On { now, meanwhile }) => {
                for sum in &meanwhile {
                    drain.meanwhile(sum, out);
                }
                for tid in self.probes.forget_threads(&self.process)? {
                    drain.gone(now, tid);
                }
                Ok(None)
            }
        }
    }

    /// Reports sums of the off-CPU time of threads while switches did not count, until `ended`.
    pub(super) fn end_sums(&mut self, ended: u64, drain: &mut Drain, out: &BatchSender) {
        for sum in self.switches.so_far(&self.process, ended) {
            drain.meanwhile(&sum, out);
        }
    }

    /// Since when switches count (CLOCK_MONOTONIC), if they do.
    pub(super) fn switches_since(&self) -> Option<u64> {
        Some(self.probes.switches_since()).filter(|since| *since != 0)
    }

    /// Whether the probes are attached and do not count yet: they cost time and record nothing.
    pub(super) fn has_probes_to_count(&self) -> bool {
        self.governor.waits_for_probes() && self.probes.probes_are_on()
    }

    /// Whether probes are being attached.
    pub(super) fn is_attaching_probes(&self) -> bool {
        self.probes.probes_are_attaching() || self.probes.switches_are_attaching()
    }

    /// Takes records from the ring, up to a bound: a target that is always ahead must not keep the recorder from its
    /// other work.
    pub(super) fn drain_ring(&mut self, drain: &mut Drain, out: &BatchSender) -> Drained {
        self.ring.drain(65_536, |record| drain.record(record, out))
    }

    /// Takes from the ring all events that the kernel had counted as the call began: each is then in the session or
    /// counted as lost.
    pub(super) fn catch_up(&mut self, drain: &mut Drain, out: &BatchSender) -> Result<()> {
        let known = produced(&self.baseline.since(&self.probes.counters()?));
        loop {
            let is_empty = self.drain_ring(drain, out).is_empty;
            let read = drain.rows.iter().sum::<u64>() + drain.undecoded;
            if is_empty || read + lost(&self.baseline.since(&self.probes.counters()?)) >= known {
                return Ok(());
            }
        }
    }

    /// Stops the streams and drains the ring until the kernel's account and ours agree. Intervals in progress end at
    /// this instant, which is returned as CLOCK_MONOTONIC.
    pub(super) fn settle(&mut self, drain: &mut Drain, out: &BatchSender) -> Result<u64> {
        self.probes.stop()?;
        let ended = self.probes.executed()?.unwrap_or_else(kernel::now);
        // A program that has already tested the flag may still be writing: for microseconds, or until its preempted
        // thread gets a CPU again.
        for _ in 0..100 {
            let before = produced(&self.probes.counters()?);
            std::thread::sleep(Duration::from_millis(2));
            // Recording is off, so the ring runs empty.
            while !self.drain_ring(drain, out).is_empty {}
            if produced(&self.probes.counters()?) == before {
                break;
            }
        }
        for state in self.probes.unfinished(self.probes.switches_since())? {
            drain.unfinished(&state, ended, out);
        }
        self.end_sums(ended, drain, out);
        Ok(ended)
    }

    /// The counters since the session's baseline.
    pub(super) fn counters(&self) -> Result<Counters> {
        Ok(self.baseline.since(&self.probes.counters()?))
    }

    /// Whether the target's debug information has been read.
    pub(super) fn has_learned(&self) -> bool {
        self.debuginfo.is_none()
    }

    /// Applies the target's debug information once it has been read, and returns the result then.
    pub(super) fn learn(&mut self) -> Option<Arc<Tokio>> {
        let learned = self.debuginfo.as_ref()?.take()?;
        self.debuginfo = None;
        let took = self.searching.elapsed();
        self.searching = Instant::now();
        self.notes.retain(|note| !self.tokio.notes.contains(note));
        self.notes.extend_from_slice(&learned.notes);
        self.notes.push(format!(
            "the debug information took {:.1} s to read: before that no task is known and no poll is recorded",
            took.as_secs_f64()
        ));
        self.tokio = Arc::new(learned);
        let known = self.probes.left_out().len();
        let used = self.probes.use_learned(&self.process, &self.tokio, self.plan);
        self.notes.extend(self.probes.left_out().iter().skip(known).map(|left_out| left_out.what.clone()));
        self.read_from_outside();
        if let Err(e) = used {
            // The always-on streams are unaffected. The target's exit is detected elsewhere.
            tracing::warn!("polls, wakes, spawns and ends are not recorded: {e}");
            self.notes.push(format!("polls, wakes, spawns and ends are not recorded: {e}"));
        }
        Some(Arc::clone(&self.tokio))
    }

    /// Finds threads that run a worker's loop by their stacks, for at most this long.
    pub(super) fn search_workers(&mut self, drain: &mut Drain, at_most: Duration) {
        if let Some(word) = self.probes.task_id_word() {
            drain.knows_task_ids();
            if let Some(at) = self.tokio.context_word(word) {
                self.worker_loops.iter_mut().for_each(|loops| loops.know_task_id(at));
                self.current_tasks.iter_mut().for_each(|tasks| tasks.know_task_id(at));
            }
        }
        let probes = &mut self.probes;
        if let Some(loops) = &self.worker_loops {
            drain.search_workers(loops, at_most, |tid| probes.last_stack_pointer(tid));
        }
    }

    /// Looks for polls in progress, for at most this long.
    pub(super) fn look_at_polls(&mut self, drain: &mut Drain, at_most: Duration) {
        let (pid, tasks) = (self.process.pid, self.current_tasks.as_mut());
        self.in_progress.look(&mut in_progress::Sources { pid, probes: &mut self.probes, tasks }, drain, at_most);
    }

    /// Continues the search for the current task's id, or gives up.
    pub(super) fn calibrate(&mut self) -> Result<()> {
        if !self.probes.is_calibrating() {
            return Ok(());
        }
        let found = self.probes.calibrate(self.searching.elapsed() >= CALIBRATE_FOR)?;
        if self.probes.is_calibrating() {
            return Ok(());
        }
        if !found {
            self.notes.push(
                "the current task's id was not found in tokio's thread-local: samples and off-CPU intervals have a task \
                 only while polls are recorded"
                    .into(),
            );
        }
        Ok(())
    }

    /// Makes the kernel report each task's type again when it next sees it.
    pub(super) fn report_tasks_again(&mut self) -> Result<()> {
        self.probes.report_tasks_again()
    }

    /// Whether the process has exited.
    pub(super) fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
    }

    /// Whether the process executed another program since hud attached. The kernel programs report it and end all
    /// streams at that moment.
    pub(super) fn has_executed(&self) -> Result<bool> {
        Ok(self.probes.executed()?.is_some())
    }

    /// Whether the process executed another program while hud was attaching.
    fn executed_meanwhile(&self) -> bool {
        match (self.identity, Identity::of(&self.process)) {
            (Some(then), Some(now)) => then != now,
            // Exited or invisible: no evidence.
            _ => false,
        }
    }
}

/// Builds the unwind tables on a thread of their own, while tokio is searched.
fn prepare(process: &Process, sources: Arc<Sources>, plan: Plan) -> Result<JoinHandle<Result<Prepared>>> {
    let process = process.clone();
    let work = move || match plan.unwind {
        Unwind::Fp => Ok(Prepared::default()),
        Unwind::Auto | Unwind::EhFrame => Prepared::of(&process, sources.sandbox()),
    };
    let started = thread::Builder::new().name("hud-unwinder".into()).spawn(work);
    started.map_err(|source| Error::Io { action: "start a thread", source })
}

/// CPUs of this machine.
pub(super) fn cpus() -> u32 {
    aya::util::nr_cpus().ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}
