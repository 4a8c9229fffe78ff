//! Recording without a screen: one process, or with `--wait` each process of a name, one after the other.

use std::{path::PathBuf, thread, time::Duration};

use crate::{
    error::{Error, Result},
    inspect::Process,
    privilege::Owner,
    probes::Plan,
    progress::ProgressLine,
    record::{Destination, End, Every, Finished, Keep, News, Recorder, RollPolicy, Settings, Store},
    service::{Control, Notify},
};

/// Interval of searching for a process: a search of a thousand processes costs about 2 ms.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time from a process's start until its code is relocated and can be inspected.
const SETTLE: Duration = Duration::from_millis(50);

/// What to record.
#[derive(Clone, Debug)]
pub enum Target {
    /// This process.
    Process(Process),
    /// Each process of this name, one after the other.
    Every(String),
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
        let control = Control::by_signals()?;
        if self.until_eof {
            control.stop_at_eof()?;
        }
        let mut notify = Notify::new();
        if let Where::Store(store) = &self.place {
            store.recover();
        }
        let mut disk_drops = 0;
        let mut unsealed = 0;
        let mut previous = None;
        loop {
            let process = match &self.target {
                Target::Process(process) => process.clone(),
                Target::Every(name) => match wait_for(name, &control, &mut notify)? {
                    Some(process) => process,
                    None => break,
                },
            };
            let waits = matches!(self.target, Target::Every(_));
            let finished = match self.record(process, previous.clone(), &control, &mut notify) {
                // It exited before it could be recorded: the next one may live longer.
                Err(e) if waits && e.is_gone() => {
                    tracing::debug!("{e}");
                    thread::sleep(LOOK_EVERY);
                    continue;
                }
                done => done?,
            };
            disk_drops += finished.disk_drops;
            unsealed += finished.last.unsealed;
            previous = Some(finished.last.id);
            if !waits || !matches!(finished.end, End::TargetExited | End::TargetExecuted) {
                break;
            }
        }
        notify.stopping();
        if disk_drops > 0 || unsealed > 0 {
            return Err(Error::DiskFull { rows: disk_drops, unsealed });
        }
        Ok(())
    }

    /// Records one process.
    fn record(
        &self,
        process: Process,
        previous: Option<String>,
        control: &Control,
        notify: &mut Notify,
    ) -> Result<Finished> {
        let name = short_name(&process);
        let pid = process.pid;
        let settings = Settings {
            destination: match &self.place {
                Where::Folder(folder) => Destination::Folder(folder.clone()),
                Where::DataDir => Destination::Folder(default_session(&process, self.owner)?),
                Where::Store(store) => Destination::Store(store.clone()),
            },
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
            keep_bpf: matches!(self.target, Target::Every(_)),
            sandbox: None,
        };
        notify.alive();
        let recorder = Recorder::attach(process, settings)?;
        for note in recorder.notes() {
            tracing::info!("note: {note}");
        }
        let mut line = ProgressLine::new(&name, pid, recorder.task_types(), self.heartbeat);
        let status = format!("recording {name} (pid {pid})");
        let finished = recorder.run(control, |news| {
            notify.alive();
            match news {
                News::Began(session) => {
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

/// Waits for a process of this name; `None` if hud is stopped before.
fn wait_for(name: &str, control: &Control, notify: &mut Notify) -> Result<Option<Process>> {
    let status = format!("waiting for {name}");
    notify.ready(&status);
    let line = ProgressLine::waiting(&status);
    let mut has_warned = false;
    while !control.is_stopped() {
        notify.alive();
        match Process::by_name(name) {
            Ok(process) => {
                line.clear();
                thread::sleep(SETTLE);
                return Ok(Some(process));
            }
            Err(Error::ManyProcesses { found, .. }) => {
                // An old one beside a new one, as in a rolling restart, which ends soon.
                if !std::mem::replace(&mut has_warned, true) {
                    tracing::warn!("{} processes are named {name}: waiting until only one is left", found.len());
                }
            }
            Err(e) if e.is_gone() => {}
            Err(e) => {
                line.clear();
                return Err(e);
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    line.clear();
    Ok(None)
}

fn short_name(process: &Process) -> String {
    let file = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    crate::inspect::clean(file.strip_suffix(" (deleted)").unwrap_or(&file))
}

/// The session's folder in [`sessions_folder`]: `<name>-<local time>-<pid>`.
pub(crate) fn default_session(process: &Process, owner: Option<Owner>) -> Result<PathBuf> {
    let now = jiff::ZonedDateTime::now().strftime("%Y%m%dT%H%M%S").to_string();
    Ok(sessions_folder(owner)?.join(format!("{}-{now}-{}", short_name(process), process.pid)))
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
