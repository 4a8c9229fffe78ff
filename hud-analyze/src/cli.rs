//! The command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use hud_common::{
    files::OutputFile,
    viewer::{Purpose, Viewer},
};

use crate::{
    ask,
    catalog::Settings,
    commands,
    diff::Condition,
    error::{Error, Result},
    output::{Format, Stdout},
    replay, run, shelf, upkeep, view,
    window::Moment,
};

pub(crate) const TIMES: &str = "\
Times for --from and --to:
  +12.5s                  since the start of the session
  -30s                    before its end
  14:03:20                that time of day, in UTC (as tables show it)
  2026-01-31T14:03:20Z    RFC 3339";

/// Answers questions about a session that hud-record has written.
#[derive(Parser, Debug)]
#[command(
    name = "hud-analyze",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  hud-analyze info SESSION
  hud-analyze blocking SESSION --from +5s --to +10s
  hud-analyze hotspots SESSION --format json | jq '.[0]'
  hud-analyze sql SESSION -c 'SELECT count(*) FROM polls'

Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// What was recorded, where, when, how, and how well
    Info(InfoArgs),
    /// Where the CPU time went: the user's own functions, with file and line, by task type
    #[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze hotspots SESSION
  hud-analyze hotspots SESSION --lines --limit 50
  hud-analyze hotspots SESSION --task 42 --format json"))]
    Hotspots(HotspotsArgs),
    /// What held a worker: tasks that slept or computed too long inside a poll
    #[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze blocking SESSION
  hud-analyze blocking SESSION --each --from +5s --to +6s
  hud-analyze blocking SESSION --threshold 1ms --asleep 100us")) ]
    Blocking(BlockingArgs),
    /// Where each worker's time went: running, blocked, waiting for a CPU, idle
    #[command(after_help = TIMES)]
    Workers(WorkersArgs),
    /// Tasks, the busiest first
    #[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze tasks SESSION
  hud-analyze tasks SESSION --by-type"))]
    Tasks(TasksArgs),
    /// What the workers did, step by step: a lane each
    #[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze timeline SESSION
  hud-analyze timeline SESSION --from +5s --to +5.5s --step 5ms
  hud-analyze timeline SESSION --format csv > timeline.csv"))]
    Timeline(TimelineArgs),
    /// The cockpit, at any instant of a recorded session
    #[command(after_help = "\
Times: +12.5s since the start, -30s before the end, 14:03:20 (UTC), 2026-01-31T14:03:20Z.
A session that is being recorded can be looked at too: it grows, and `End` follows it.

Examples:
  hud-analyze replay SESSION
  hud-analyze replay SESSION --at -10s --window 5s
  hud-analyze replay BEFORE AFTER --align start")]
    Replay(replay::ReplayArgs),
    /// A picture of the cockpit's screen: text, SVG or PNG
    #[command(after_help = "\
Examples:
  hud-analyze screenshot SESSION --at +12s
  hud-analyze screenshot SESSION --at +12s --size 160x50 -o screen.svg
  hud-analyze screenshot SESSION --screen blocking --format png > screen.png")]
    Screenshot(replay::ScreenshotArgs),
    /// Any question, in SQL
    #[command(after_help = "\
Without -c and -f, statements ended by `;` are read from standard input; at a terminal it is a shell: Tab completes,
`\\?` tells the commands, `\\d` lists tables and views, `\\d NAME` their columns, `\\df` the functions.

Examples:
  hud-analyze sql SESSION -c 'SELECT task_id, max(dur) FROM polls GROUP BY 1 ORDER BY 2 DESC LIMIT 5'
  hud-analyze sql SESSION -c 'SELECT * FROM drops' --format csv
  hud-analyze sql SESSION -c \"SELECT * FROM blocking('+5s', '+6s')\"
  hud-analyze sql /var/lib/hud -c 'SELECT host, session, count(*) FROM polls GROUP BY 1, 2'
  hud-analyze sql SESSION -f report.sql
  echo 'SELECT count(*) FROM samples;' | hud-analyze sql SESSION")]
    Sql(SqlArgs),
    /// What changed between two sessions, or two windows of one
    #[command(after_help = format!("{TIMES}\n
Metrics: cpu, polls_rate, p50_poll, p99_poll, longest_poll, busy_share, busy_per_poll, blocked_per_poll, wait_per_poll,
p50_wake, p99_wake, blocking_rate, blocking_share; of a type of task: METRIC:TYPE. cpu_share:FUNCTION for functions.
Rates and shares are of the time that was watched. A change is sure where 95 of 100 draws of blocks of time agree on
its direction.

Examples:
  hud-analyze diff BEFORE AFTER
  hud-analyze diff SESSION --from +0s --to +30s --from-b +30s --to-b +60s
  hud-analyze diff BEFORE AFTER --fail-if 'p99_poll > +20%' --fail-if 'blocking_rate:app::handler > 5'

Exit codes: 0 done, 1 failed or a --fail-if is met, 2 wrong usage."))]
    Diff(DiffArgs),
    /// Proves that a session is whole: every byte as written, every event stored or known to be lost
    #[command(after_help = "\
A session whose recorder was killed is recovered first, and its loss is stated. Of one that is being recorded, what is
there so far is checked.

Examples:
  hud-analyze verify SESSION
  hud-analyze verify ROOT/host=*/session=*
  hud-analyze verify SESSION --format json | jq '.[0].checks'

Exit codes: 0 everything is proven, 1 something is not.")]
    Verify(VerifyArgs),
    /// A session in the formats of other tools: Perfetto, Firefox Profiler, pprof, flame graphs, one portable file
    #[command(after_help = format!("{TIMES}\n
Formats: perfetto (ui.perfetto.dev), firefox (profiler.firefox.com), pprof, folded (flamegraph.pl), svg (a flame graph),
chrome (small windows), zip (the session in one file, which hud opens as it is). CSV, NDJSON and Parquet of any query:
`hud-analyze sql SESSION -c … --format parquet`.

Examples:
  hud-analyze export SESSION -o trace.pftrace
  hud-analyze export SESSION --format svg --off-cpu -o waiting.svg
  hud-analyze export SESSION --from +5s --to +6s -o moment.trace.json
  hud-analyze export SESSION -o session.hud.zip && hud-analyze replay session.hud.zip"))]
    Export(ExportArgs),
    /// Merges small segments into large ones: less to open, better compressed
    #[command(after_help = "\
The session is whole at every moment, for whoever reads it too: a compacted copy is made beside it, held against it and
put in its place at once. It needs the room of the session once more.

Examples:
  hud-analyze compact SESSION
  hud-analyze compact SESSION --output COPY
  hud-analyze compact ROOT/host=*/session=*")]
    Compact(CompactArgs),
    /// Brings a damaged session back to one that `verify` proves, its loss stated
    #[command(after_help = "\
Damaged segments are set aside in SESSION/damaged, never removed; what of them is whole is kept. What is lost becomes
`drops` of stage `damaged`.

Examples:
  hud-analyze repair SESSION --dry-run
  hud-analyze repair SESSION
  hud-analyze repair SESSION --output COPY

Exit codes: 0 done, 1 failed, or damaged with --dry-run.")]
    Repair(RepairArgs),
    /// Prints a completion script for a shell
    #[command(after_help = "Example:\n  hud-analyze completions bash > hud-analyze.bash && . ./hud-analyze.bash")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// Sessions: folders, stores of them, archives (.hud.zip), or s3://, gs:// and az:// URLs of these
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: InfoFormat,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The sessions' folders
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: InfoFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum InfoFormat {
    /// For a terminal
    Table,
    /// One object
    Json,
}

/// What all views take.
#[derive(Args, Debug)]
pub(crate) struct ViewArgs {
    /// Sessions: folders, stores of them, archives (.hud.zip), or s3://, gs:// and az:// URLs of these
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
    /// Only what happened from then on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<Moment>,
    /// Only what happened before
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<Moment>,
    /// Rows at most, 0 = all [default: 20 in table and markdown, all elsewhere]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// All columns, in table and markdown too
    #[arg(long)]
    pub(crate) wide: bool,
    /// How to write the answer
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Memory that queries may take; past it they go on with temporary files
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = run::size)]
    pub(crate) memory: usize,
}

#[derive(Args, Debug)]
pub(crate) struct TaskArg {
    /// Only this task
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<i64>,
}

#[derive(Args, Debug)]
pub(crate) struct ThreadArg {
    /// Only this thread
    #[arg(long, value_name = "TID")]
    pub(crate) thread: Option<i64>,
}

#[derive(Args, Debug)]
pub(crate) struct HotspotsArgs {
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) task: TaskArg,
    #[command(flatten)]
    pub(crate) thread: ThreadArg,
    /// A row for each line, instead of each function with its hottest line
    #[arg(long)]
    pub(crate) lines: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BlockingArgs {
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) task: TaskArg,
    #[command(flatten)]
    pub(crate) thread: ThreadArg,
    /// Every stretch, longest first, instead of the culprits
    #[arg(long)]
    pub(crate) each: bool,
    /// Computing at least so long inside a poll counts
    #[arg(long, value_name = "DURATION", default_value = view::BLOCKING.default_of("threshold"), value_parser = run::duration)]
    pub(crate) threshold: i64,
    /// Sleeping at least so long inside a poll counts
    #[arg(long, value_name = "DURATION", default_value = view::BLOCKING.default_of("asleep"), value_parser = run::duration)]
    pub(crate) asleep: i64,
}

#[derive(Args, Debug)]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) thread: ThreadArg,
}

#[derive(Args, Debug)]
pub(crate) struct TasksArgs {
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) task: TaskArg,
    /// A row for each type of task, with the median and the p99 of its polls
    #[arg(long, conflicts_with = "task")]
    pub(crate) by_type: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TimelineArgs {
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) thread: ThreadArg,
    /// Length of a step [default: what fits the terminal, else a hundredth of the window]
    #[arg(long, value_name = "DURATION", value_parser = run::duration)]
    pub(crate) step: Option<i64>,
    /// Lanes of plain letters
    #[arg(long)]
    pub(crate) ascii: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The session before
    pub(crate) a: PathBuf,
    /// The session after; none: another window of the same one
    pub(crate) b: Option<PathBuf>,
    /// Only what happened from then on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<Moment>,
    /// Only what happened before
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<Moment>,
    /// The same of B [default: as of A, in another session]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from_b: Option<Moment>,
    /// The same of B
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to_b: Option<Moment>,
    /// Fails where this is so: METRIC[:SCOPE] > +20% (a sure change), or > 50ms (what B has)
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Condition>,
    /// Rows at most, 0 = all [default: 40 in table and markdown, all elsewhere]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// How to write the answer
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Memory that queries may take; past it they go on with temporary files
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = run::size)]
    pub(crate) memory: usize,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The session: a folder, an archive or a URL
    #[arg(required = true, num_args = 1, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
    /// The format [default: by the name of the output]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<hud_export::Format>,
    /// Where to write it, - for standard output [default: the session's name, here]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only what happened from then on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<Moment>,
    /// Only what happened before
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<Moment>,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<i64>,
    /// Only of this thread
    #[arg(long, value_name = "TID")]
    pub(crate) thread: Option<i32>,
    /// folded and svg: by the time off CPU instead of that on CPUs
    #[arg(long)]
    pub(crate) off_cpu: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompactArgs {
    /// The sessions' folders
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
    /// A new folder for the result; the session stays as it is
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// The session's folder
    pub(crate) session: PathBuf,
    /// Says what would be done, and does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A new folder for the result; the session stays as it is
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct SqlArgs {
    /// Sessions: folders, stores of them, archives (.hud.zip), or s3://, gs:// and az:// URLs of these
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
    /// Statements; may be given several times
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    pub(crate) command: Vec<String>,
    /// A file of statements; may be given several times
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// How to write the answer
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Memory that queries may take; past it they go on with temporary files
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = run::size)]
    pub(crate) memory: usize,
    /// Lets statements read and write files that are no part of the session (CREATE EXTERNAL TABLE, COPY TO)
    #[arg(long)]
    pub(crate) allow_files: bool,
}

/// Parses the command line, answers, and tells how it went.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    shelf::raise_limit();
    let mut out = Stdout::new();
    let answered = give_up_root(&matches).and_then(|output| match commands::asked(&matches) {
        Some((view, given)) => runtime().and_then(|runtime| runtime.block_on(commands::answer(view, given, &mut out))),
        None => match Cli::from_arg_matches(&matches) {
            Ok(cli) => answer(cli.command, output, &mut out),
            Err(error) => error.exit(),
        },
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if out.broken || error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "hud-analyze: {}", hud_common::clean(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The whole command line: what is written here, and a command for each other view.
pub(crate) fn command() -> clap::Command {
    commands::add(Cli::command())
}

/// Becomes the owner of the sessions that a command names, where root runs it, before any of them is read. A file that is
/// to be written is opened first: it is root's, and need not lie where that owner may write.
fn give_up_root(matches: &ArgMatches) -> Result<Option<OutputFile>> {
    let Some((name, given)) = matches.subcommand() else { return Ok(None) };
    let named = |id| given.try_get_many::<PathBuf>(id).ok().flatten().into_iter().flatten().cloned();
    let places: Vec<_> = ["sessions", "session", "a", "b"].into_iter().flat_map(named).collect();
    if places.is_empty() {
        return Ok(None);
    }
    let purpose = if matches!(name, "compact" | "repair") { Purpose::Rewrite } else { Purpose::Read };
    let viewer = Viewer::of(&places, purpose);
    let path = named("output").next().filter(|_| matches!(name, "export" | "screenshot"));
    let create = |path: PathBuf| -> io::Result<OutputFile> {
        let mut file = OutputFile::create(&path)?;
        if viewer.is_someone_else() {
            file.place()?;
        }
        Ok(file)
    };
    let written = |path: PathBuf| create(path.clone()).map_err(Error::io(format!("create {}", path.display())));
    let output = path.filter(|path| path.as_os_str() != "-").map(written).transpose()?;
    if let Err(why) = viewer.enter() {
        let _ = writeln!(io::stderr(), "note: cannot become the session's owner, and stays root: {why}");
    }
    Ok(output)
}

/// How long a cancelled statement may take to remove its temporary files.
const ENDING: Duration = Duration::from_millis(300);
/// Room for the expressions of a statement, which are evaluated recursively. Only what is used of it takes memory.
const STACK: usize = 64 << 20;

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_time().thread_stack_size(STACK).build().map_err(Error::io("start the runtime"))
}

fn answer(command: Command, output: Option<OutputFile>, out: &mut Stdout) -> Result<()> {
    if let Command::Completions { shell } = command {
        clap_complete::generate(shell, &mut self::command(), "hud-analyze", out);
        return out.flush().map_err(Error::io("write the script"));
    }
    // Neither waits for anything but files: they need no runtime.
    let command = match command {
        Command::Replay(args) => return replay::run(args),
        Command::Screenshot(args) => return replay::screenshot(args, output),
        Command::Compact(args) => return upkeep::compact(&args, out),
        Command::Repair(args) => return upkeep::repair(&args, out),
        other => other,
    };
    let runtime = runtime()?;
    if let Command::Sql(args) = &command {
        let settings = Settings { memory: args.memory, allow_files: args.allow_files };
        let catalog = run::open_with(&args.sessions, &settings)?;
        let ended = ask::run(&catalog, &runtime, args);
        // Not by dropping it, which waits for a cancelled statement that is within one long step.
        runtime.shutdown_timeout(ENDING);
        return match ended? {
            hud_shell::Outcome::Signal(signal) => Err(Error::Signal(signal)),
            hud_shell::Outcome::Done | hud_shell::Outcome::OutputClosed => Ok(()),
        };
    }
    runtime.block_on(run::run(command, output, out))
}
