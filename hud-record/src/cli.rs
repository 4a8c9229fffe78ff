//! The command line of `hud-record`, shared with `hud`.

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::{Args, ValueEnum};
use humansize::{BINARY, format_size};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::{
    error::{Error, Result},
    probes::{self, Plan},
    record::{Outcome, Progress, Recorder, RollPolicy, Settings},
    target::Process,
};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hud-record my-server --headless                      record until Ctrl-C
  hud-record --pid 4711 --headless --duration 30       record 30 seconds
  hud-record my-server --headless --export /var/tmp/s  choose the session's folder
  hud-record my-server --headless --polls off          no poll is timed, near-zero cost
  hud-record my-server --headless --target ./my-server.unstripped

Exit codes: 0 done, 1 failed, 2 usage, 77 no permission or no eBPF here.";

/// What to record, and how.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// Name of the running binary to watch
    pub name: Option<String>,
    /// Process id, where the name is not unique
    #[arg(long, value_name = "PID", conflicts_with = "name")]
    pub pid: Option<u32>,
    /// Binary to take symbols from, where the running one is stripped [default: found through /proc]
    #[arg(long, value_name = "BIN")]
    pub target: Option<PathBuf>,
    /// Folder for the session; must not exist [default: a new one under the data directory]
    #[arg(long, value_name = "SESSION")]
    pub export: Option<PathBuf>,
    /// Record without the cockpit
    #[arg(long)]
    pub headless: bool,
    /// Seconds to record; 0 = until stopped
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub duration: u64,
    /// CPU samples a second and CPU; 0 = none
    #[arg(long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub freq: u32,
    /// Time task polls, wakes, spawns and ends by probes
    #[arg(long, value_enum, default_value_t = Polls::Auto)]
    pub polls: Polls,
    /// What the probes may cost the target with --polls auto, in percent of the CPU time that it uses
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = percent)]
    pub budget: f64,
    /// Rows in memory after which a segment is sealed
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub roll_size: u64,
    /// Age after which a segment is sealed (such as 60s, 5m)
    #[arg(long, value_name = "AGE", default_value = "60s", value_parser = humantime::parse_duration)]
    pub roll_age: Duration,
    /// Use plain tracepoints even where the kernel has BTF
    #[arg(long, hide = true)]
    pub no_btf: bool,
}

/// Whether task polls are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Polls {
    /// In stretches, as the budget allows; all the time where they cost less
    Auto,
    /// Every one, at about 2 µs a poll
    Exact,
    /// No probes: tasks are known at samples and switches only
    Off,
}

/// `2%`, `2` or `0.5%` as a share.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100.0 => Ok(n / 100.0),
        _ => Err("a share such as 2%, above 0 and up to 100%".into()),
    }
}

/// Runs a command and tells its error: one line, and the next step.
pub fn report(program: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            if let Some(help) = error.help() {
                eprintln!("  help: {help}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

impl RecordArgs {
    /// Finds the target, records it, and says what there is.
    pub fn run(self) -> Result<()> {
        let process = match (self.pid, &self.name) {
            (Some(pid), _) => Process::by_pid(pid)?,
            (None, Some(name)) => Process::by_name(name)?,
            (None, None) => return Err(Error::NoTarget),
        };
        if !self.headless {
            return Err(Error::Unavailable(
                "the live cockpit is not built yet: record with --headless, then ask hud-analyze".into(),
            ));
        }
        let name = short_name(&process);
        let settings = Settings {
            session: match self.export {
                Some(path) => path,
                None => default_session(&name, process.pid)?,
            },
            target: self.target,
            duration: (self.duration > 0).then(|| Duration::from_secs(self.duration)),
            plan: Plan {
                freq: self.freq,
                polls: match self.polls {
                    Polls::Auto => probes::Polls::Auto,
                    Polls::Exact => probes::Polls::Exact,
                    Polls::Off => probes::Polls::Off,
                },
                no_btf: self.no_btf,
            },
            budget: self.budget,
            roll: RollPolicy { bytes: self.roll_size << 20, age: self.roll_age, ..RollPolicy::default() },
        };
        let stop = stop_on_signals()?;
        let pid = process.pid;
        let recorder = Recorder::attach(process, settings)?;
        for note in recorder.notes() {
            eprintln!("note: {note}");
        }
        let line = ProgressLine::new(&name, pid, recorder.task_types());
        let (outcome, attached) = recorder.run(&stop, |p| line.show(p))?;
        line.detaching(attached.probed_places());
        drop(attached);
        line.finish(&outcome);
        println!("{}", outcome.session.display());
        Ok(())
    }
}

fn short_name(process: &Process) -> String {
    let file = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    crate::target::clean(file.strip_suffix(" (deleted)").unwrap_or(&file))
}

/// `<data dir>/hud/<name>-<local time>-<pid>`
fn default_session(name: &str, pid: u32) -> Result<PathBuf> {
    use etcetera::BaseStrategy as _;
    let base = etcetera::choose_base_strategy()
        .map_err(|_| Error::Unavailable("no home directory to keep the session in: name one with --export".into()))?;
    let now = jiff::ZonedDateTime::now().strftime("%Y%m%dT%H%M%S").to_string();
    Ok(base.data_dir().join("hud").join(format!("{name}-{now}-{pid}")))
}

/// Set by Ctrl-C or SIGTERM; a second signal ends hud at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    use signal_hook::{consts::TERM_SIGNALS, flag};
    let stop = Arc::new(AtomicBool::new(false));
    let failed = |source| Error::Io { action: "handle signals", source };
    for &signal in TERM_SIGNALS {
        // In this order: the first signal finds `stop` unset, and only sets it.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop)).map_err(failed)?;
        flag::register(signal, Arc::clone(&stop)).map_err(failed)?;
    }
    Ok(stop)
}

/// The line that says how the recording goes; on a terminal only.
struct ProgressLine {
    bar: ProgressBar,
    started: String,
}

impl ProgressLine {
    fn new(name: &str, pid: u32, task_types: usize) -> Self {
        let started = format!("recording {name} (pid {pid}, {task_types} task types)");
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {elapsed_precise}  {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(started.clone());
            bar.set_message("Ctrl-C ends it");
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            eprintln!("{started}");
            ProgressBar::hidden()
        };
        ProgressLine { bar, started }
    }

    fn show(&self, p: &Progress) {
        self.bar.set_message(format!(
            "{} events/s  {}  {} dropped",
            HumanCount(p.events_per_second),
            format_size(p.bytes, BINARY),
            HumanCount(p.drops)
        ));
    }

    /// The session is closed; what remains takes the kernel a moment.
    fn detaching(&self, probes: usize) {
        self.bar.set_message(format!("session closed, detaching {probes} probes"));
    }

    fn finish(&self, outcome: &Outcome) {
        self.bar.finish_and_clear();
        let p = outcome.progress;
        eprintln!(
            "{}: {} events in {}, {}, {} dropped ({})",
            self.started.replacen("recording", "recorded", 1),
            HumanCount(p.events),
            HumanDuration(p.elapsed),
            format_size(p.bytes, BINARY),
            HumanCount(p.drops),
            outcome.reason,
        );
    }
}
