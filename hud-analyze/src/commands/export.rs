//! `export`: a session in the formats of other tools.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use hud_common::files::OutputFile;
use hud_export::{Format, Kind, Options, SessionRows, Summary};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    commands::args::{TIMES, TaskArg, ThreadArg, TimeRange, open},
    error::{Error, Result},
    human::many,
    output::stdout::Stdout,
    query::opened::Settings,
};

/// Convert a session for Perfetto, Firefox Profiler, pprof or flame graphs, or into one portable file
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n
Formats: perfetto (ui.perfetto.dev), firefox (profiler.firefox.com), pprof, folded (flamegraph.pl), svg (a flame graph),
chrome (for short time ranges), zip (the session in one file, which hud opens without unpacking). `hud-analyze sql` writes the
rows of any query as CSV, NDJSON, Arrow or Parquet.

Examples:
  hud-analyze export SESSION -o trace.pftrace
  hud-analyze export SESSION --format svg --off-cpu -o off-cpu.svg
  hud-analyze export SESSION --format svg --awaits -o awaits.svg
  hud-analyze export SESSION --from +5s --to +6s -o second.trace.json
  hud-analyze export SESSION -o session.hud.zip && hud-analyze replay session.hud.zip"))]
pub(crate) struct ExportArgs {
    /// A session folder, an archive or a URL
    #[arg(value_name = "SESSION")]
    session: PathBuf,
    /// Output format [default: by the extension of the output file]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Output file, - for standard output [default: a file named after the session]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    range: TimeRange,
    #[command(flatten)]
    task: TaskArg,
    #[command(flatten)]
    thread: ThreadArg,
    /// Off-CPU time instead of CPU time, in folded and svg
    #[arg(long)]
    off_cpu: bool,
    /// Waiting time of tasks by await stack instead of CPU time, in folded and svg
    #[arg(long, conflicts_with = "off_cpu")]
    awaits: bool,
}

/// Exports a session to `output`, to a new file of its name, or to standard output.
pub(crate) async fn run(args: &ExportArgs, output: Option<OutputFile>, out: &mut Stdout) -> Result<()> {
    let format = format(args)?;
    let catalog = open(std::slice::from_ref(&args.session), &Settings::default())?;
    let [session] = catalog.sessions() else {
        return Err(Error::Usage {
            message: format!("{} contains {} sessions", args.session.display(), catalog.sessions().len()),
            hint: "export them one at a time".into(),
        });
    };
    let mut options = Options::default();
    if args.range.from.is_some() || args.range.to.is_some() {
        let window = args.range.within(&catalog).await?;
        options.window = Some((window.from, window.to));
    }
    options.task = args.task.task;
    options.thread = args.thread.thread;
    options.kind = match () {
        () if args.awaits => Kind::Await,
        () if args.off_cpu => Kind::OffCpu,
        () => Kind::Cpu,
    };
    options.title = Some(session.manifest().exe.clone());
    let rows = SessionRows::over(session.dir().clone(), session.manifest().clone()).map_err(failed)?;
    let bar = bar();
    let progress = |done: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let target = target(args, format, session.dir().path());
    let summary = match &target {
        None => hud_export::export(&rows, format, &options, out, &progress).map_err(failed)?,
        Some(path) => {
            let create = || OutputFile::create(path).map_err(Error::io(format!("create {}", path.display())));
            let file = output.map_or_else(create, Ok)?;
            to_file(path, file, |file| hud_export::export(&rows, format, &options, file, &progress))?
        }
    };
    bar.finish_and_clear();
    out.flush().map_err(Error::io("write the export"))?;
    print(&summary, target.as_deref());
    Ok(())
}

/// The format of `--format`, otherwise the one of the output file's extension.
fn format(args: &ExportArgs) -> Result<Format> {
    let of_name = || Format::of_file(args.output.as_ref()?.file_name()?.to_str()?);
    args.format.or_else(of_name).ok_or_else(|| Error::Usage {
        message: "the output format is not specified".into(),
        hint: format!(
            "use --format ({}), or name the output by its format ({})",
            Format::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", "),
            Format::ALL.iter().map(|format| format!("NAME.{}", format.extension())).collect::<Vec<_>>().join(", ")
        ),
    })
}

/// The output file; `None` for standard output, which is used with `-o -`, or without `-o` if it is no terminal.
fn target(args: &ExportArgs, format: Format, session: &Path) -> Option<PathBuf> {
    match &args.output {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None if !io::stdout().is_terminal() => None,
        None => {
            let name = session.file_name().map_or("session".into(), |name| name.to_string_lossy().into_owned());
            Some(format!("{}.{}", name.trim_end_matches(".hud.zip"), format.extension()).into())
        }
    }
}

/// Writes a file that appears complete or not at all, and that only its owner can read.
fn to_file(
    path: &Path,
    file: OutputFile,
    write: impl FnOnce(&mut BufWriter<OutputFile>) -> hud_export::Result<Summary>,
) -> Result<Summary> {
    let failed_to = |what: &str| format!("{what} {}", path.display());
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let summary = write(&mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|e| Error::io(failed_to("write"))(e.into_error()))?;
    file.persist().map_err(Error::io(failed_to("write")))?;
    Ok(summary)
}

fn failed(error: hud_export::Error) -> Error {
    Error::Export(error.to_string())
}

/// A progress bar on a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent}% of {human_len} rows, {eta} left");
    let bar = ProgressBar::new(0);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn print(summary: &Summary, target: Option<&Path>) {
    let parts = [
        (summary.slices, "slice"),
        (summary.instants, "instant"),
        (summary.samples, "sample"),
        (summary.flows, "flow"),
        (summary.counters, "counter value"),
        (summary.entries, "entry"),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| many(n, what)).collect();
    let mut err = io::stderr();
    let to = target.map_or(String::new(), |path| format!("{}: ", path.display()));
    let bytes = crate::human::bytes(i64::try_from(summary.bytes).unwrap_or(i64::MAX));
    let _ = writeln!(
        err,
        "{}",
        hud_common::clean(&format!("{to}{}, {bytes}", parts.join(", ")).replace("entrys", "entries"))
    );
    for note in &summary.notes {
        let _ = writeln!(err, "note: {}", hud_common::clean(note));
    }
}
