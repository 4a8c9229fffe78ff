//! The commands of views that need more than their header says: `hotspots`, `blocking`, `workers`, `tasks`, `timeline`.

use std::io::Write as _;

use clap::Args;
use hud_shell::Format;

use crate::{
    commands::args::{TIMES, TaskArg, ThreadArg, ViewArgs},
    error::{Error, Result},
    human::parse_duration,
    output::{stdout::Stdout, timeline, write},
    query::{
        catalog::Catalog,
        defaults,
        view::{self, Arguments, View},
        window::Window,
    },
};

/// Rows in table and markdown without `--limit`.
const LIMIT: usize = 20;

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

/// Show tasks or task types, busiest first
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n\n\
Examples:
  hud-analyze tasks SESSION
  hud-analyze tasks SESSION --by-type"))]
pub(crate) struct TasksArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    task: TaskArg,
    /// One row per task type, with the median and 99th percentile of its poll durations
    #[arg(long, conflicts_with = "task")]
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

impl ViewArgs {
    fn open(&self) -> Result<Catalog> {
        self.sessions.open(&self.query.settings())
    }

    /// The sessions, and the time range as a view's arguments.
    async fn begin(&self) -> Result<(Catalog, Arguments)> {
        let catalog = self.open()?;
        let window = self.range.within(&catalog).await?;
        Ok((catalog, arguments_of(window)))
    }
}

impl ThreadArg {
    fn id(&self) -> Option<i64> {
        self.thread.map(i64::from)
    }
}

fn arguments_of(window: Window) -> Arguments {
    Arguments::default().int("from", window.from).int("to", window.to)
}

pub(crate) async fn hotspots(args: &HotspotsArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, arguments) = args.view.begin().await?;
    let arguments = arguments.int("task", args.task.task).int("thread", args.thread.id()).flag("lines", args.lines);
    show(&catalog, view::HOTSPOTS, arguments, &args.view, out).await
}

pub(crate) async fn blocking(args: &BlockingArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, arguments) = args.view.begin().await?;
    let arguments = arguments
        .int("task", args.task.task)
        .int("thread", args.thread.id())
        .int("threshold", args.threshold)
        .int("asleep", args.asleep);
    let view = if args.each { view::BLOCKING_EACH } else { view::BLOCKING };
    show(&catalog, view, arguments, &args.view, out).await
}

pub(crate) async fn workers(args: &WorkersArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, arguments) = args.view.begin().await?;
    show(&catalog, view::WORKERS, arguments.int("thread", args.thread.id()), &args.view, out).await
}

pub(crate) async fn tasks(args: &TasksArgs, out: &mut Stdout) -> Result<()> {
    let (catalog, arguments) = args.view.begin().await?;
    let view = if args.by_type { view::TASKS_BY_TYPE } else { view::TASKS };
    show(&catalog, view, arguments.int("task", args.task.task), &args.view, out).await
}

pub(crate) async fn timeline(args: &TimelineArgs, out: &mut Stdout) -> Result<()> {
    let catalog = args.view.open()?;
    let window = args.view.range.within(&catalog).await?;
    let drawn = args.view.query.format == Format::Table;
    let fitting = || (window.dur().saturating_add(timeline::columns() - 1)) / timeline::columns();
    let step = args.step.unwrap_or_else(|| if drawn { fitting().max(1) } else { defaults::hundredth(window) });
    let arguments = arguments_of(window).int("step", step).int("thread", args.thread.id());
    if !drawn {
        return show(&catalog, view::TIMELINE, arguments, &args.view, out).await;
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
    arguments: Arguments,
    args: &ViewArgs,
    out: &mut Stdout,
) -> Result<()> {
    let format = args.query.format;
    let limit = match args.limit {
        Some(0) => None,
        Some(limit) => Some(limit),
        None => format.is_text().then_some(LIMIT),
    };
    let frames = view.plan_each(catalog.opened(), &arguments).await?;
    write::write(catalog, frames, &view.header()?.columns, format, limit, args.wide, out).await
}
