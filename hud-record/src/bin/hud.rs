//! `hud`: the front end. Records by itself, and passes every command on recorded sessions to `hud-analyze`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command as Process, ExitCode},
};

use clap::{Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use hud_record::{
    attach::AttachArgs,
    check::CheckArgs,
    cli::{RecordArgs, RunArgs, print_manual, report},
    doctor::{self, DoctorArgs},
    dump::{self, DumpArgs},
    error::Error,
    list::{self, ListArgs},
};

const EXAMPLES: &str = "\
Examples:
  hud my-server                             show it live, and keep the session
  hud attach /var/tmp/s                     show a session that another hud is recording
  hud my-server --headless --duration 10    record for 10 seconds
  hud run -- ./my-server --port 80          start a program and record it from its first instruction
  hud ls                                    programs that hud can attach to, and sessions
  hud doctor                                what works on this machine
  hud dump my-server                        every task: where it waits and for what
  hud --pid 4711 --target ./my-server --export /var/tmp/s --headless
  hud hotspots /var/tmp/s                   CPU time by function
  hud blocking /var/tmp/s                   blocked and busy polls that held a worker
  hud sql /var/tmp/s -c 'SELECT count(*) FROM polls'
  hud diff /var/tmp/before /var/tmp/after   changes between two sessions, with confidence
  hud export /var/tmp/s -o s.pftrace        for ui.perfetto.dev

Exit codes: 0 done, 1 failed, 2 usage, 77 no permission or no eBPF here.";

/// A heads-up display for async Rust: see what a running Tokio program is doing, without touching it
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Replay a recorded session
    #[arg(long, value_name = "SESSION", exclusive = true)]
    replay: Option<PathBuf>,
    #[command(flatten)]
    record: RecordArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Show a session that another process is recording
    Attach(AttachArgs),
    /// Check whether this kernel accepts hud's programs, and which rights hud has
    Check(CheckArgs),
    /// Show what hud can record on this machine, what is missing, and what to do about it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print every task of a running program: its state, where it waits and for what
    #[command(after_help = dump::EXAMPLES)]
    Dump(DumpArgs),
    /// Start a program, and record it from its first instruction
    Run(Box<RunArgs>),
    /// List running programs that contain Tokio, and recorded sessions
    #[command(after_help = list::EXAMPLES)]
    Ls(ListArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, for packages
    #[command(hide = true)]
    Manual,
}

/// Commands of hud's other programs, with their descriptions. All but the first two are those of hud-analyze.
const PASSED_ON: &[(&str, &str)] = &[
    ("record", "Record without the cockpit's defaults (see hud-record --help)"),
    ("analyze", "Any command of hud-analyze, such as `hud analyze locks SESSION`"),
    ("info", "Show target, time, settings and completeness of a recording"),
    ("hotspots", "Show CPU time by function or source line, and task type"),
    ("blocking", "Show what blocked or kept busy a worker inside a poll for too long"),
    ("workers", "Show the time of each worker: running, blocked, runnable, idle"),
    ("tasks", "Show polls, busy and blocked time by task type, busiest first"),
    ("timeline", "Draw the state of each worker over time"),
    ("replay", "Show a recorded session in the cockpit, at any instant"),
    ("screenshot", "Draw the cockpit's screen at an instant: text, SVG or PNG"),
    ("sql", "Query sessions in SQL, or start an SQL shell"),
    ("diff", "Compare two sessions, or two time ranges of one session"),
    (
        "verify",
        "Check that sessions are complete: checksums, sort order, references, and that every event is accounted for",
    ),
    ("export", "Convert a session for Perfetto, Firefox Profiler, pprof or flame graphs, or into one portable file"),
    ("compact", "Merge small segments into large ones, which open faster and compress better"),
    ("repair", "Repair a damaged session, so that it passes verify, with its losses recorded"),
    ("rollup", "Publish sums per minute of sessions in a fleet store, which `fleet` queries"),
    ("fleet", "Query the rollups of many hosts"),
    ("upload", "Copy a fleet store to an object store"),
    ("findings", "Detected problems, with severity and evidence, worst first"),
    ("in-progress", "Polls that had not ended when they were observed, longest first"),
    ("suspended", "Where tasks wait, and for what, at the last snapshot of the time range"),
    ("wait-graph", "Tasks that wait for another task, with that task, at the last snapshot of the time range"),
    ("deadlocks", "Tasks that waited for each other in a cycle, longest first"),
    ("await-flame", "Waiting time of tasks by await stack, for flame graphs"),
    ("hotspots-by", "Time by any of function, line, type of task, thread and state, most first"),
    ("cpu-flame", "CPU time by whole stack, for flame graphs"),
    ("off-cpu-flame", "Sleeping time by whole stack, for flame graphs"),
    ("task-tree", "Tasks by the task that spawned them"),
    ("polls-histogram", "Poll durations by type of task, in buckets that double"),
    ("wake-latency", "Wake-to-poll latency by type of task, ordered by total latency"),
    ("wake-chains", "Wakes by type of the waking and of the woken task, most first"),
    ("critical-path", "Causes of the slowest polls, traced back through the wakes that led to them"),
    ("run-queue", "Run-queue latency by thread and by type of task, ordered by total time"),
    ("blocking-pool", "Use of tokio's pool for blocking work, in total, by thread and by type of work"),
    ("locks", "Waits for locks by place and holder, ordered by total waiting time"),
    ("coverage", "How much of the time range each stream was recorded"),
    ("drops", "Events known to be lost, by stream and stage, most first"),
    ("overhead", "Cost of hud itself, in total and by second"),
];

/// The command line, with the commands of the other programs.
fn command_line() -> clap::Command {
    let rest = Arg::new("arguments")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(clap::value_parser!(OsString));
    let passed_on = PASSED_ON
        .iter()
        .map(|(name, about, ..)| clap::Command::new(*name).about(*about).disable_help_flag(true).arg(rest.clone()));
    Cli::command().subcommands(passed_on)
}

fn main() -> ExitCode {
    if let Some(ended) = hud_record::sandbox::divert() {
        return ended;
    }
    let matches = command_line().get_matches();
    let passed_on = matches.subcommand().and_then(|(given, rest)| {
        let (name, _) = PASSED_ON.iter().find(|(name, _)| *name == given)?;
        let (program, command) = match *name {
            "record" => ("hud-record", None),
            "analyze" => ("hud-analyze", None),
            view => ("hud-analyze", Some(view)),
        };
        let arguments = rest.get_many("arguments").unwrap_or_default().cloned().collect();
        Some(Err(exec_program(program, command, arguments)))
    });
    let result = passed_on.unwrap_or_else(|| match Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit()) {
        Cli { command: None, replay: Some(session), .. } => {
            Err(exec_program("hud-analyze", Some("replay"), vec![session.into()]))
        }
        Cli { command: None, record, .. } => record.run(),
        Cli { command: Some(command), .. } => command.run(),
    });
    report("hud", result)
}

impl Command {
    fn run(self) -> Result<(), Error> {
        match self {
            Command::Attach(attach) => attach.run(),
            Command::Check(check) => check.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Dump(dump) => dump.run(),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut command_line(), "hud", &mut std::io::stdout());
                Ok(())
            }
            Command::Ls(list) => list.run(),
            Command::Manual => print_manual(command_line()),
            Command::Run(run) => run.run(),
        }
    }
}

/// Executes another of hud's programs, found beside this one or in PATH. Returns only if that fails.
fn exec_program(program: &str, command: Option<&str>, arguments: Vec<OsString>) -> Error {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(program)).filter(|p| p.is_file());
    let path = beside.unwrap_or_else(|| PathBuf::from(program));
    let source = Process::new(&path).args(command).args(arguments).exec();
    Error::Unavailable(format!("cannot run {}: {source}; install it beside hud or in PATH", path.display()))
}
