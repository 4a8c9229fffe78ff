//! The commands of views that need more than their header says: `hotspots`, `blocking`, `workers`, `tasks`, `timeline`.

use std::io::{self, Write as _};

use clap::Args;
use hud_shell::Format;

use crate::{
    commands::{
        args::{TIMES, TaskArg, ThreadArg, ViewArgs},
        recorded,
        sort::sorted,
    },
    error::{Error, Result},
    human::{self, parse_duration},
    output::{stdout::Stdout, table::Shape, timeline, write},
    query::{
        catalog::Catalog,
        defaults,
        header::Item,
        view::{self, Arguments, View},
        window::Window,
    },
};

/// Show CPU time by function or source line, and task type
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze hotspots SESSION
  hud-analyze hotspots SESSION --lines --limit 50
  hud-analyze hotspots SESSION --task 42 --format json"))]
pub(crate) struct HotspotsArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    task: TaskArg,
    #[command(flatten)]
    thread: ThreadArg,
    /// One row per source line instead of one per function with its hottest line
    #[arg(long)]
    lines: bool,
}

/// Show what blocked or kept busy a worker inside a poll for too long
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze blocking SESSION
  hud-analyze blocking SESSION --each --from +5s --to +6s
  hud-analyze blocking SESSION --threshold 1ms --asleep 100us"))]
pub(crate) struct BlockingArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    task: TaskArg,
    #[command(flatten)]
    thread: ThreadArg,
    /// One row per interval, longest first, instead of one per culprit
    #[arg(long)]
    each: bool,
    /// Minimum busy time inside a poll
    #[arg(long, value_name = "DURATION", default_value = view::BLOCKING.default_of("threshold"), value_parser = parse_duration)]
    threshold: i64,
    /// Minimum blocked time inside a poll
    #[arg(long, value_name = "DURATION", default_value = view::BLOCKING.default_of("asleep"), value_parser = parse_duration)]
    asleep: i64,
}

/// Show the time of each worker: running, blocked, runnable, idle
#[derive(Args, Debug)]
#[command(after_help = TIMES)]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    thread: ThreadArg,
}

/// Show polls, busy and blocked time by task type, busiest first
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze tasks SESSION
  hud-analyze tasks SESSION --each
  hud-analyze tasks SESSION --task 42"))]
pub(crate) struct TasksArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    task: TaskArg,
    /// One row per task, instead of one per task type
    #[arg(long)]
    each: bool,
    // The default: types come first.
    #[arg(long, hide = true, conflicts_with_all = ["each", "task"])]
    by_type: bool,
}

/// Draw the state of each worker over time
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze timeline SESSION
  hud-analyze timeline SESSION --from +5s --to +5.5s --step 5ms
  hud-analyze timeline SESSION --format csv > timeline.csv"))]
pub(crate) struct TimelineArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    thread: ThreadArg,
    /// Length of a step [default: the window divided by the columns of the terminal, otherwise by 100]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    step: Option<i64>,
    /// Draw with ASCII letters
    #[arg(long)]
    ascii: bool,
}

impl ThreadArg {
    fn id(&self) -> Option<i64> {
        self.thread.map(i64::from)
    }
}

pub(crate) async fn hotspots(args: &HotspotsArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, window) = args.view.open().await?;
    let arguments =
        Arguments::within(window).int("task", args.task.task).int("thread", args.thread.id()).flag("lines", args.lines);
    show(&catalog, view::HOTSPOTS, window, arguments, &args.view, out).await
}

pub(crate) async fn blocking(args: &BlockingArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, window) = args.view.open().await?;
    let arguments = Arguments::within(window)
        .int("task", args.task.task)
        .int("thread", args.thread.id())
        .int("threshold", args.threshold)
        .int("asleep", args.asleep);
    let view = if args.each { view::BLOCKING_EACH } else { view::BLOCKING };
    show(&catalog, view, window, arguments, &args.view, out).await
}

pub(crate) async fn workers(args: &WorkersArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, window) = args.view.open().await?;
    let arguments = Arguments::within(window).int("thread", args.thread.id());
    show(&catalog, view::WORKERS, window, arguments, &args.view, out).await
}

pub(crate) async fn tasks(args: &TasksArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, window) = args.view.open().await?;
    let is_each = args.each || args.task.task.is_some();
    let view = if is_each && !args.by_type { view::TASKS } else { view::TASKS_BY_TYPE };
    let arguments = Arguments::within(window).int("task", args.task.task);
    show(&catalog, view, window, arguments, &args.view, out).await
}

pub(crate) async fn timeline(args: &TimelineArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, window) = args.view.open().await?;
    let drawn = args.view.query.format == Format::Table && args.view.sort.is_empty();
    let fitting = || (window.dur().saturating_add(timeline::columns() - 1)) / timeline::columns();
    let step = args.step.unwrap_or_else(|| if drawn { fitting().max(1) } else { defaults::hundredth(window) });
    let arguments = Arguments::within(window).int("step", step).int("thread", args.thread.id());
    if !drawn {
        return show(&catalog, view::TIMELINE, window, arguments, &args.view, out).await;
    }
    let frames = view::TIMELINE.plan_each(catalog.opened(), &arguments).await?;
    for (frame, session) in frames.into_iter().zip(catalog.sessions()) {
        let rows = frame.collect().await.map_err(|e| catalog.explain(e.into()))?;
        catalog.confirm()?;
        if catalog.sessions().len() > 1 {
            let path = session.dir().path().display().to_string();
            writeln!(out, "{}", hud_common::clean(&path)).map_err(Error::io("write the result"))?;
        }
        timeline::draw(&rows, window, step, args.ascii, out)?;
    }
    Ok(())
}

/// Runs a view over each session, and writes its rows.
pub(crate) async fn show(
    catalog: &Catalog,
    view: View,
    window: Window,
    arguments: Arguments,
    args: &ViewArgs,
    out: &mut Stdout,
) -> Result<()> {
    let frames = sorted(view.plan_each(catalog.opened(), &arguments).await?, &args.sort)?;
    let columns = view.header()?.columns;
    write::write(catalog, frames, args.query.format, shape(&view, &columns, window, args), out).await?;
    if args.query.format == Format::Table {
        note_coverage(catalog, &view, window).await?;
    }
    Ok(())
}

/// How a view's rows are shown.
pub(crate) fn shape<'a>(view: &View, columns: &'a [Item], window: Window, args: &ViewArgs) -> Shape<'a> {
    let empty = Some(no_rows(view, window));
    Shape { columns, limit: args.limit(), wide: args.wide, empty, ..Shape::default() }
}

/// The answer of a view without rows: `No events were lost in 6.02 s.`
pub(crate) fn no_rows(view: &View, window: Window) -> String {
    format!("{} in {}.", view.empty, human::nanos(window.dur()))
}

/// Reports on stderr if the view rests on streams that were recorded for a part of the time only.
pub(crate) async fn note_coverage(catalog: &Catalog, view: &View, window: Window) -> Result<()> {
    let used = recorded::used(view);
    if used.is_empty() {
        return Ok(());
    }
    if let Some(note) = recorded::shares(catalog, window).await?.and_then(|shares| recorded::note(&used, &shares)) {
        let _ = writeln!(io::stderr(), "note: {note}");
    }
    Ok(())
}
