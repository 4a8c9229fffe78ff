//! Recording without a screen: one process, with `--wait` each process of a name, one after the other, or a program that
//! hud starts.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    inspect::{Arrivals, Process},
    launch::{Held, Launch, Program},
    privilege::Owner,
    probes::Plan,
    progress::ProgressLine,
    record::{Destination, End, Every, Finished, Keep, News, Recorder, RollPolicy, Settings, Store},
    service::{Control, Notify},
};

/// Interval of searching for a process: a search of a thousand processes costs about 2 ms.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Interval of looking for new processes, which takes microseconds.
const LOOK_FOR_NEW: Duration = Duration::from_millis(10);
/// Time from a process's detection until its code is relocated and can be inspected.
const SETTLE: Duration = Duration::from_millis(25);

/// What to record.
#[derive(Clone, Debug)]
pub enum Target {
    /// This process.
    Process(Process),
    /// Each process of this name, one after the other.
    Every(String),
    /// A program that hud starts.
    Program(Launch),
}

/// Where sessions are stored.
#[derive(Clone, Debug)]
pub enum Where {
    /// A folder that does not exist yet.
    Folder(PathBuf),
    /// A new folder for each, under the data directory.
    DataDir,
    /// A store.
    Store(Store),
}

/// The settings from the command line.
#[derive(Clone, Debug)]
pub struct Headless {
    /// What to record.
    pub target: Target,
    /// Where to.
    pub place: Where,
    /// The owner of the files.
    pub owner: Option<Owner>,
    /// The binary to take symbols from.
    pub symbols: Option<PathBuf>,
    /// Duration.
    pub duration: Option<Duration>,
    /// What to attach.
    pub plan: Plan,
    /// The probes' share of the target's CPU time.
    pub budget: f64,
    /// Interval of snapshots of all tasks; `None` for no snapshots.
    pub state: Option<Duration>,
    /// When segments are sealed.
    pub roll: RollPolicy,
    /// How much to keep.
    pub keep: Keep,
    /// When a store's next session begins.
    pub every: Every,
    /// Interval of a line about the recording, if stderr is no terminal.
    pub heartbeat: Option<Duration>,
    /// Whether to end when standard input ends.
    pub until_eof: bool,
}

impl Headless {
    /// Records until the end.
    pub fn run(self) -> Result<()> {
        if let Target::Program(launch) = &self.target {
            return self.run_program(launch);
        }
        let control = Control::by_signals()?;
        if self.until_eof {
            control.stop_at_eof()?;
        }
        let mut notify = Notify::new();
        if let Where::Store(store) = &self.place {
            store.recover();
        }
        let mut lost = Lost::default();
        let mut previous = None;
        loop {
            let process = match &self.target {
                Target::Process(process) => process.clone(),
                Target::Every(name) => match wait_for(name, &control, &mut notify)? {
                    Some(process) => process,
                    None => break,
                },
                Target::Program(_) => break,
            };
            let waits = matches!(self.target, Target::Every(_));
            let recording =
                Recording { destination: self.destination(&process, 1)?, previous: previous.clone(), held: None };
            let finished = match self.record(process, recording, &control, &mut notify) {
                // It exited before it could be recorded: the next one may live longer.
                Err(e) if waits && e.is_gone() => {
                    tracing::debug!("{e}");
                    thread::sleep(LOOK_EVERY);
                    continue;
                }
                done => done?,
            };
            lost.add(&finished);
            previous = Some(finished.last.id);
            if !waits || !matches!(finished.end, End::TargetExited | End::TargetExecuted) {
                break;
            }
        }
        notify.stopping();
        lost.report()
    }

    /// Starts a program, records it and each one that it executes, and ends when it does, with its exit code.
    fn run_program(&self, launch: &Launch) -> Result<()> {
        let (mut program, held) = Program::start(launch)?;
        let control = Control::for_program(program.pidfd(), self.until_eof)?;
        let mut notify = Notify::new();
        if let Where::Store(store) = &self.place {
            store.recover();
        }
        if program.has_ended() {
            tracing::warn!(
                "the program has ended, and nothing was recorded: it has no Tokio, and executed no program with it"
            );
        }
        let recorded = self.record_program(&mut program, held, &control, &mut notify);
        notify.stopping();
        // It goes on without hud, but hud is what its parent waits for.
        let code = match &recorded {
            Err(Refused::NotStarted(_)) => None,
            Err(Refused::Failed(e)) => {
                tracing::error!("{e}; the program continues");
                program.wait(|| control.is_stopped())?
            }
            Ok(_) => program.wait(|| control.is_stopped())?,
        };
        match (recorded, code) {
            (Err(Refused::NotStarted(e)), _) => Err(e),
            (_, Some(code @ 1..)) => Err(Error::Program(code)),
            (Err(Refused::Failed(e)), _) => Err(e),
            (Ok(lost), _) => lost.report(),
        }
    }

    /// Records a program that hud has started, and each one that it executes.
    fn record_program(
        &self,
        program: &mut Program,
        mut held: Option<Held>,
        control: &Control,
        notify: &mut Notify,
    ) -> Result<Lost, Refused> {
        let (mut lost, mut previous) = (Lost::default(), None);
        for number in 1.. {
            if program.has_ended() || control.is_stopped() {
                break;
            }
            let is_held = held.is_some();
            let process = match Process::by_pid(program.pid()) {
                Ok(process) => process,
                Err(e) if e.is_gone() => break,
                Err(e) => return Err(Refused::of(e, held)),
            };
            let recorded = self.destination(&process, number).and_then(|destination| {
                let recording = Recording { destination, previous: previous.clone(), held: Some(&mut held) };
                self.record(process, recording, control, notify)
            });
            let finished = match recorded {
                // A program may end or execute another one at any time, unless it is held.
                Err(e) if e.is_gone() && !is_held => {
                    program.resume();
                    continue;
                }
                Err(e) => {
                    program.resume();
                    return Err(Refused::of(e, held));
                }
                Ok(finished) => finished,
            };
            lost.add(&finished);
            previous = Some(finished.last.id);
            if finished.end != End::TargetExecuted {
                if finished.has_executed {
                    program.resume();
                }
                break;
            }
            held = program.hold_after_exec();
        }
        Ok(lost)
    }

    /// Where a recording goes. A program that hud has started may execute others: the folders of their sessions are
    /// numbered.
    fn destination(&self, process: &Process, number: u32) -> Result<Destination> {
        let folder = match &self.place {
            Where::Folder(folder) => folder.clone(),
            Where::DataDir => default_session(&process.name(), process.pid, self.owner)?,
            Where::Store(store) => return Ok(Destination::Store(store.clone())),
        };
        if number == 1 {
            return Ok(Destination::Folder(folder));
        }
        let mut name = folder.into_os_string();
        name.push(format!("-{number}"));
        Ok(Destination::Folder(name.into()))
    }

    /// Records one process.
    fn record(
        &self,
        process: Process,
        recording: Recording<'_>,
        control: &Control,
        notify: &mut Notify,
    ) -> Result<Finished> {
        let Recording { destination, previous, mut held } = recording;
        let name = process.name();
        let pid = process.pid;
        let settings = Settings {
            destination,
            target: self.symbols.clone(),
            duration: self.duration,
            plan: self.plan,
            budget: self.budget,
            state: self.state,
            roll: self.roll,
            keep: self.keep,
            every: self.every,
            previous,
            owner: match &self.place {
                Where::Store(store) => store.owner(),
                Where::Folder(_) | Where::DataDir => self.owner,
            },
            keep_bpf: !matches!(self.target, Target::Process(_)),
            is_held: held.as_ref().is_some_and(|held| held.is_some()),
            sandbox: None,
        };
        notify.alive();
        let recorder = Recorder::attach(process, settings)?;
        // The terminal is the program's.
        let is_silent = matches!(self.target, Target::Program(_));
        for note in recorder.notes().iter().filter(|_| !is_silent) {
            tracing::info!("note: {note}");
        }
        let mut line = ProgressLine::new(&name, pid, recorder.task_types(), is_silent, self.heartbeat);
        let status = format!("recording {name} (pid {pid})");
        let finished = recorder.run(control, |news| {
            notify.alive();
            match news {
                News::Began(session) => {
                    held.as_mut().and_then(|held| held.take()).into_iter().for_each(Held::release);
                    tracing::debug!(session = %session.display(), "session begun");
                    line.began(session);
                    notify.ready(&status);
                }
                News::Progress(progress) => line.show(progress),
                News::Closed(outcome) => line.closed(outcome),
                News::Alive => {}
            }
        });
        let Ok(mut finished) = finished else {
            line.clear();
            return finished;
        };
        line.detaching(finished.probed_places());
        finished.detach();
        line.clear();
        Ok(finished)
    }
}

/// One recording of a process.
struct Recording<'a> {
    destination: Destination,
    /// The id of the previous session.
    previous: Option<String>,
    /// The process, if it is held: it continues when recording has begun.
    held: Option<&'a mut Option<Held>>,
}

/// Why a program that hud started is not recorded.
enum Refused {
    /// Before its first instruction: it is not run.
    NotStarted(Error),
    /// While it runs.
    Failed(Error),
}

impl Refused {
    /// Kills the program if nothing of it has run.
    fn of(error: Error, held: Option<Held>) -> Self {
        match held {
            Some(held) => {
                held.kill();
                Refused::NotStarted(error)
            }
            None => Refused::Failed(error),
        }
    }
}

/// Rows that were lost to a full disk.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    rows: u64,
    unsealed: usize,
}

impl Lost {
    fn add(&mut self, finished: &Finished) {
        self.rows += finished.disk_drops;
        self.unsealed += finished.last.unsealed;
    }

    fn report(self) -> Result<()> {
        match self {
            Lost { rows: 0, unsealed: 0 } => Ok(()),
            Lost { rows, unsealed } => Err(Error::DiskFull { rows, unsealed }),
        }
    }
}

/// Waits for a process of this name; `None` if hud is stopped before.
fn wait_for(name: &str, control: &Control, notify: &mut Notify) -> Result<Option<Process>> {
    let status = format!("waiting for {name}");
    notify.ready(&status);
    let line = ProgressLine::waiting(&status);
    let mut has_warned = false;
    let (mut arrivals, mut searched) = (Arrivals::default(), None::<Instant>);
    while !control.is_stopped() {
        notify.alive();
        if !arrivals.has(name) && searched.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            thread::sleep(LOOK_FOR_NEW);
            continue;
        }
        searched = Some(Instant::now());
        match Process::by_name(name) {
            Ok(process) => {
                line.clear();
                tracing::debug!("detected {name} (pid {})", process.pid);
                thread::sleep(SETTLE);
                return Ok(Some(process));
            }
            Err(Error::ManyProcesses { found, .. }) => {
                // An old one beside a new one, as in a rolling restart, which ends soon.
                if !std::mem::replace(&mut has_warned, true) {
                    tracing::warn!("{} processes are named {name}: waiting until only one is left", found.len());
                }
                thread::sleep(LOOK_EVERY);
            }
            Err(e) if e.is_gone() => {}
            Err(e) => {
                line.clear();
                return Err(e);
            }
        }
        thread::sleep(LOOK_FOR_NEW);
    }
    line.clear();
    Ok(None)
}

/// The session's folder in [`sessions_folder`]: `<name>-<local time>-<pid>`.
pub(crate) fn default_session(name: &str, pid: u32, owner: Option<Owner>) -> Result<PathBuf> {
    let now = jiff::ZonedDateTime::now().strftime("%Y%m%dT%H%M%S").to_string();
    Ok(sessions_folder(owner)?.join(format!("{name}-{now}-{pid}")))
}

/// `<data dir>/hud`, in the home of the user who called sudo.
pub(crate) fn sessions_folder(owner: Option<Owner>) -> Result<PathBuf> {
    use etcetera::BaseStrategy as _;
    let data = match owner.and_then(|o| o.home()) {
        Some(home) => home.join(".local/share"),
        None => etcetera::choose_base_strategy()
            .map_err(|_| {
                Error::Unavailable("there is no home directory for the session: choose a folder with --export".into())
            })?
            .data_dir(),
    };
    Ok(data.join("hud"))
}
