//! `hud`: the front end. Records by itself, and passes every command on recorded sessions to `hud-analyze`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command as Process, ExitCode},
};

use clap::{CommandFactory as _, Parser, Subcommand};
use hud_record::{
    attach::AttachArgs,
    check::CheckArgs,
    cli::{RecordArgs, report},
    dump::{self, DumpArgs},
    error::Error,
};

const EXAMPLES: &str = "\
Examples:
  hud my-server                             show it live, and keep the session
  hud attach /var/tmp/s                     show a session that another hud is recording
  hud my-server --headless --duration 10    record for 10 seconds
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
    /// Print every task of a running program: its state, where it waits and for what
    #[command(after_help = dump::EXAMPLES)]
    Dump(DumpArgs),
    /// Record without the cockpit's defaults (see hud-record --help)
    #[command(disable_help_flag = true)]
    Record(Rest),
    /// CPU time by function
    #[command(disable_help_flag = true)]
    Hotspots(Rest),
    /// Blocked and busy polls that held a worker, by culprit
    #[command(disable_help_flag = true)]
    Blocking(Rest),
    /// Each worker's time: busy, blocked, idle
    #[command(disable_help_flag = true)]
    Workers(Rest),
    /// Tasks: polls, busy time, longest poll
    #[command(disable_help_flag = true)]
    Tasks(Rest),
    /// The workers' activity over time
    #[command(disable_help_flag = true)]
    Timeline(Rest),
    /// SQL over a session
    #[command(disable_help_flag = true)]
    Sql(Rest),
    /// A session's contents: program, time range, tables, losses
    #[command(disable_help_flag = true)]
    Info(Rest),
    /// Replay a recorded session, or several side by side
    #[command(disable_help_flag = true)]
    Replay(Rest),
    /// Draw the cockpit's screen of a session to a file
    #[command(disable_help_flag = true)]
    Screenshot(Rest),
    /// Changes between two sessions, or two time ranges of one
    #[command(disable_help_flag = true)]
    Diff(Rest),
    /// Convert a session for Perfetto, the Firefox Profiler, pprof or a flame graph, or pack it into one file
    #[command(disable_help_flag = true)]
    Export(Rest),
    /// Detected problems, with severity and evidence
    #[command(disable_help_flag = true)]
    Findings(Rest),
    /// Verify that a session is complete and undamaged
    #[command(disable_help_flag = true)]
    Verify(Rest),
    /// Any other command of hud-analyze, such as `hud analyze locks SESSION`
    #[command(disable_help_flag = true)]
    Analyze(Rest),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args)]
struct Rest {
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    if let Some(ended) = hud_record::sandbox::divert() {
        return ended;
    }
    let cli = Cli::parse();
    let result = match (cli.command, cli.replay) {
        (None, Some(session)) => {
            Err(exec_program("hud-analyze", Some("replay"), Rest { arguments: vec![session.into()] }))
        }
        (None, None) => cli.record.run(),
        (Some(command), _) => command.run(),
    };
    report("hud", result)
}

impl Command {
    fn run(self) -> Result<(), Error> {
        match self {
            Command::Attach(attach) => attach.run(),
            Command::Check(check) => check.run(),
            Command::Dump(dump) => dump.run(),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "hud", &mut std::io::stdout());
                Ok(())
            }
            Command::Record(rest) => Err(exec_program("hud-record", None, rest)),
            Command::Hotspots(rest) => Err(exec_program("hud-analyze", Some("hotspots"), rest)),
            Command::Blocking(rest) => Err(exec_program("hud-analyze", Some("blocking"), rest)),
            Command::Workers(rest) => Err(exec_program("hud-analyze", Some("workers"), rest)),
            Command::Tasks(rest) => Err(exec_program("hud-analyze", Some("tasks"), rest)),
            Command::Timeline(rest) => Err(exec_program("hud-analyze", Some("timeline"), rest)),
            Command::Sql(rest) => Err(exec_program("hud-analyze", Some("sql"), rest)),
            Command::Info(rest) => Err(exec_program("hud-analyze", Some("info"), rest)),
            Command::Replay(rest) => Err(exec_program("hud-analyze", Some("replay"), rest)),
            Command::Diff(rest) => Err(exec_program("hud-analyze", Some("diff"), rest)),
            Command::Export(rest) => Err(exec_program("hud-analyze", Some("export"), rest)),
            Command::Findings(rest) => Err(exec_program("hud-analyze", Some("findings"), rest)),
            Command::Verify(rest) => Err(exec_program("hud-analyze", Some("verify"), rest)),
            Command::Analyze(rest) => Err(exec_program("hud-analyze", None, rest)),
            Command::Screenshot(rest) => Err(exec_program("hud-analyze", Some("screenshot"), rest)),
        }
    }
}

/// Executes another of hud's programs, found beside this one or in PATH. Returns only if that fails.
fn exec_program(program: &str, command: Option<&str>, rest: Rest) -> Error {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(program)).filter(|p| p.is_file());
    let path = beside.unwrap_or_else(|| PathBuf::from(program));
    let source = Process::new(&path).args(command).args(rest.arguments).exec();
    Error::Unavailable(format!("cannot run {}: {source}; install it beside hud or in PATH", path.display()))
}
