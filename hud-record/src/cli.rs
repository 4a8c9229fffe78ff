//! The command line of `hud-record`, shared with `hud`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use hud_common::{cockpit::ui::LookArgs, files, session};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    allocator,
    error::{Error, Result},
    headless::{self, Headless, Target, Where},
    inspect::Process,
    launch::{self, Launch, Output},
    live,
    privilege::{Owner, create_as},
    probes::{self, Plan},
    record::{Every, Keep, RollPolicy, Store},
    service::{self, LogFormat},
    values::{Interval, interval, percent, size},
};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hud-record my-server --headless                      record until Ctrl-C
  hud-record --pid 4711 --headless --duration 30       record for 30 seconds
  hud-record my-server --headless --export /var/tmp/s  choose the session's folder
  hud-record --headless -- ./my-server --port 80       start it, and record from its first instruction
  hud-record my-server --headless --polls off          no probes, near-zero overhead
  hud-record my-server --headless --target ./my-server.unstripped
  hud-record my-server --headless --keep-size 10GiB --keep-age 7d
                                                       without end, within limits
  hud-record my-server --headless --store /var/lib/hud --wait --keep-size 50GiB
                                                       as a service: a session a day and a start of my-server

Signals: Ctrl-C and SIGTERM end in order, a second one at once; SIGUSR1 seals all segments now; SIGUSR2
reads the state of all tasks now; SIGHUP does nothing. A program that hud started gets SIGINT, SIGTERM, SIGQUIT and SIGHUP
instead, and hud ends when it does.

Exit codes: those of the program that hud started; else 0 done, 1 failed, or rows were lost to a full disk (the rest of the session is complete), 2 usage, 77 no permission or no
eBPF here.";

/// What to record, and how.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// Name of the running binary to record
    pub name: Option<String>,
    /// Process id, if the name is not unique
    #[arg(long, value_name = "PID", conflicts_with = "name")]
    pub pid: Option<u32>,
    /// Binary to take symbols from, if the running one is stripped [default: found through /proc]
    #[arg(long, value_name = "BIN")]
    pub target: Option<PathBuf>,
    /// Folder for the session; must not exist [default: a new one under the data directory]
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["store", "wait"])]
    pub export: Option<PathBuf>,
    /// Keep sessions in ROOT/host=HOST/session=ID/: one a day (UTC), a start of the target, and an eighth of
    /// --keep-size
    #[arg(long, value_name = "ROOT")]
    pub store: Option<PathBuf>,
    /// Wait for a process of that name, record it, and after its exit wait for the next one
    #[arg(long, requires = "name")]
    pub wait: bool,
    /// Record without the cockpit
    #[arg(long)]
    pub headless: bool,
    /// Print a line each second instead of drawing; the default if stdout is no terminal
    #[arg(long, conflicts_with = "headless")]
    pub no_tui: bool,
    /// Seconds to record (0 records until stopped)
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    pub duration: u64,
    /// Sampling frequency per CPU, in Hz (0 disables sampling).
    #[arg(long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub freq: u32,
    /// Record task polls, wakes, spawns and ends by probes
    #[arg(long, value_enum, default_value_t = Polls::Auto)]
    pub polls: Polls,
    /// Overhead budget of the probes with --polls auto, in percent of the target's CPU time
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = percent)]
    pub budget: f64,
    /// Interval at which the state of all tasks is read from the target's memory (off: never)
    #[arg(long, value_name = "INTERVAL", default_value = "10s", value_parser = interval)]
    pub state: Interval,
    /// Size of rows in memory at which a segment is sealed; less if --keep-size is small
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub roll_size: u64,
    /// Age after which a segment is sealed (such as 60s, 5m)
    #[arg(long, value_name = "AGE", default_value = "60s", value_parser = hud_common::units::parse_std)]
    pub roll_age: Duration,
    /// Disk space for the session, or for this host's part of the store (such as 10GiB); the oldest events are removed
    /// first
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub keep_size: Option<u64>,
    /// Age at which events are removed (such as 12h, 7d)
    #[arg(long, value_name = "AGE", value_parser = hud_common::units::parse_std)]
    pub keep_age: Option<Duration>,
    /// Format of logs on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Log level: error, warn, info, debug, or a filter as in RUST_LOG [default: $RUST_LOG, or info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Interval at which a headless recording logs its figures, if stderr is no terminal (off: never)
    #[arg(long, value_name = "INTERVAL", default_value = "1h", value_parser = interval)]
    pub heartbeat: Interval,
    /// When a store's next session begins
    #[arg(long, value_name = "AGE", value_parser = hud_common::units::parse_std, requires = "store", hide = true)]
    pub session_every: Option<Duration>,
    /// How to unwind stacks
    #[arg(long, value_enum, default_value_t = Unwind::Auto)]
    pub unwind: Unwind,
    /// Use plain tracepoints even if the kernel has BTF
    #[arg(long, hide = true)]
    pub no_btf: bool,
    /// End when standard input ends: how a cockpit ends its recorder, whichever users they run as
    #[arg(long, hide = true, requires = "headless")]
    pub until_eof: bool,
    /// What the cockpit shows, and how
    #[command(flatten)]
    pub look: LookArgs,
    /// Program to start, and its arguments: it is recorded from its first instruction, as the user who called sudo
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["name", "pid", "wait"])]
    pub command: Vec<OsString>,
}

/// A program to start and record.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "hud run [OPTIONS] -- CMD [ARGS]...")]
pub struct RunArgs {
    #[command(flatten)]
    record: RecordArgs,
}

impl RunArgs {
    /// Starts and records it.
    pub fn run(mut self) -> Result<()> {
        // `hud run ./my-server`
        self.record.command.extend(self.record.name.take().map(OsString::from));
        if self.record.command.is_empty() {
            return Err(Error::NoProgram);
        }
        self.record.run()
    }
}

/// Whether task polls are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Polls {
    /// In intervals, as the budget allows; always if they cost less
    Auto,
    /// All of them, at about 2 µs per poll
    Exact,
    /// No probes: tasks are known at samples and context switches only
    Off,
}

/// How stacks are unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unwind {
    /// By unwind tables, which every binary has, else by frame pointers
    Auto,
    /// By unwind tables only
    EhFrame,
    /// By frame pointers: complete only if all code was built with them
    Fp,
}

/// Prints the man page of a program (roff).
pub fn print_manual(command: clap::Command) -> Result<()> {
    // If the reader of stdout has exited, there is no more to do.
    let _ = clap_mangen::Man::new(command).render(&mut io::stdout());
    Ok(())
}

/// Runs a command and reports its error: one line, and the next step.
pub fn report(program: &str, result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Error::Recorder(_) | Error::Program(_) = error {
        return ExitCode::from(error.exit_code());
    }
    let help = error.help();
    match service::log_format() {
        LogFormat::Text => {
            // If stderr is closed, the exit code still reports it.
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "{program}: {error}");
            if let Some(help) = help {
                let _ = writeln!(stderr, "  help: {help}");
            }
        }
        LogFormat::Json => tracing::error!(help = help.as_deref(), "{error}"),
    }
    ExitCode::from(error.exit_code())
}

impl RecordArgs {
    /// Records in another process, and shows its session.
    fn show(self) -> Result<()> {
        if self.wait || self.store.is_some() {
            let what = if self.wait { "--wait" } else { "--store" };
            return Err(Error::Unavailable(format!(
                "{what} requires --headless; show the session with `hud attach SESSION`"
            )));
        }
        let (name, pid) = match (self.command.first(), self.pid, &self.name) {
            (Some(program), ..) => (launch::name_of(program), std::process::id()),
            (None, pid, name) => {
                let process = match (pid, name) {
                    (Some(pid), _) => Process::by_pid(pid)?,
                    (None, Some(name)) => Process::by_name(name)?,
                    (None, None) => return Err(Error::NoTarget),
                };
                (process.name(), process.pid)
            }
        };
        let given: Vec<OsString> = std::env::args_os().skip(1).collect();
        // What follows `--` is the program's.
        let (options, program) = given.split_at(given.iter().position(|a| a == "--").unwrap_or(given.len()));
        let mut arguments: Vec<OsString> = options.iter().filter(|a| *a != "--no-tui").cloned().collect();
        arguments.extend(["--headless".into(), "--until-eof".into()]);
        let session = match self.export {
            Some(folder) => folder,
            None => {
                let folder = headless::default_session(&name, pid, Owner::from_sudo())?;
                arguments.extend(["--export".into(), folder.clone().into()]);
                folder
            }
        };
        arguments.extend_from_slice(program);
        live::run(arguments, &session, self.no_tui, &self.look)
    }

    /// Finds the target and records it.
    pub fn run(self) -> Result<()> {
        if !self.headless {
            return self.show();
        }
        allocator::use_one_arena();
        let open_files = getrlimit(Resource::Nofile);
        raise_open_files()?;
        // On a terminal that is the program's, hud reports errors only.
        let level = match (&self.log_level, std::env::var_os("RUST_LOG")) {
            (None, None) if !self.command.is_empty() => Some("warn"),
            (level, _) => level.as_deref(),
        };
        service::log_to_stderr(self.log_format, level)?;
        let owner = Owner::from_sudo();
        let target = match (self.pid, self.name) {
            (Some(pid), _) => Target::Process(Process::by_pid(pid)?),
            (None, Some(name)) if self.wait => Target::Every(name),
            (None, Some(name)) => Target::Process(Process::by_name(&name)?),
            (None, None) if self.command.is_empty() => return Err(Error::NoTarget),
            (None, None) => Target::Program(Launch {
                command: self.command,
                owner,
                output: match &self.export {
                    Some(session) if self.until_eof => Output::File(output_of(session)),
                    _ => Output::Inherited,
                },
                open_files,
            }),
        };
        let is_program = matches!(target, Target::Program(_));
        let place = match (self.store, self.export) {
            (Some(root), _) => Where::Store(open_store(&root, owner)?),
            (None, Some(folder)) => Where::Folder(folder),
            (None, None) => Where::DataDir,
        };
        let roll_bytes = self.roll_size << 20;
        // Rows in flight take several times their sealed size: they must not be most of the retained amount.
        let roll_bytes = self.keep_size.map_or(roll_bytes, |keep| roll_bytes.min((keep / 16).max(1 << 20)));
        Headless {
            target,
            place,
            owner,
            symbols: self.target,
            duration: (self.duration > 0).then(|| Duration::from_secs(self.duration)),
            plan: Plan {
                freq: self.freq,
                polls: match self.polls {
                    Polls::Auto => probes::Polls::Auto,
                    Polls::Exact => probes::Polls::Exact,
                    Polls::Off => probes::Polls::Off,
                },
                unwind: match self.unwind {
                    Unwind::Auto => probes::Unwind::Auto,
                    Unwind::EhFrame => probes::Unwind::EhFrame,
                    Unwind::Fp => probes::Unwind::Fp,
                },
                no_btf: self.no_btf,
                stop_at_exec: is_program,
            },
            budget: self.budget,
            state: self.state.duration(),
            roll: RollPolicy { bytes: roll_bytes, age: self.roll_age, ..RollPolicy::default() },
            keep: Keep { bytes: self.keep_size, age: self.keep_age },
            every: self.session_every.map_or(Every::Day, Every::Interval),
            heartbeat: self.heartbeat.duration(),
            until_eof: self.until_eof,
        }
        .run()
    }
}

/// Files that a recorder opens at most, besides one per CPU: kernel maps and programs, logs and segments of the session
/// that ends and of the next one, child processes.
const OPEN_FILES: u64 = 256;

/// Raises the limit of open files to the number that recording needs, as far as this process may.
fn raise_open_files() -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let needed = OPEN_FILES + cpus;
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|n| n >= needed);
    if is_enough(limit.current) {
        return Ok(());
    }
    // Only root may exceed the hard limit.
    let maximum = if is_enough(limit.maximum) { limit.maximum } else { Some(needed) };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }) {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::OpenFiles { needed, limit: limit.maximum.unwrap_or(needed) }),
    }
}

/// The file for the output of a program whose terminal is the cockpit's: beside its session.
fn output_of(session: &Path) -> PathBuf {
    let mut path = session.as_os_str().to_os_string();
    path.push(".out");
    path.into()
}

/// Opens a store, unless the path contains another user's symbolic link, which could redirect root's files.
fn open_store(root: &Path, owner: Option<Owner>) -> Result<Store> {
    let check = |place: &Path| {
        let is_denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        let open = || match files::open_folder(place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened.map(drop),
        };
        create_as(owner, place, is_denied, open).map_err(session::Error::io("open", place))
    };
    check(root)?;
    let store = Store::open(root, owner)?;
    // Checked again: a link may have been created where nothing was at first.
    check(store.path())?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_store_is_not_opened_through_another_users_link() {
        let folder = tempfile::tempdir().unwrap();
        let (private, planted) = (folder.path().join("private"), folder.path().join("planted"));
        std::fs::create_dir(&private).unwrap();
        std::os::unix::fs::symlink(&private, &planted).unwrap();
        open_store(&planted.join("own"), None).unwrap();
        if std::os::unix::fs::lchown(&planted, Some(65_534), None).is_ok() {
            let error = open_store(&planted.join("store"), None).unwrap_err().to_string();
            assert!(error.ends_with("planted is a symbolic link of user 65534"), "{error}");
            assert!(!private.join("store").exists());
        }
    }
}
