//! From a command to its answer.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use hud_common::files::OutputFile;
use jiff::SignedDuration;

use crate::{
    catalog::{Catalog, Settings},
    cli::{BlockingArgs, Command, HotspotsArgs, TasksArgs, TimelineArgs, ViewArgs, WorkersArgs},
    defaults, diff,
    error::{Error, Result},
    export, info, lanes,
    output::{self, Format, Stdout},
    verify,
    view::{self, Arguments, View},
    window::Window,
};

/// Rows that people are shown unless they ask for more.
const LIMIT: usize = 20;

/// A `--threshold` and the like: nanoseconds.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|d| i64::try_from(d.as_nanos()).ok())
        .filter(|ns| *ns > 0)
        .ok_or_else(|| "write it like 10ms, 500us or 1.5s".into())
}

/// Memory that queries may take where nobody says otherwise.
pub(crate) const MEMORY: usize = 1 << 30;

/// A `--memory`: bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size = text.parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.filter(|size| *size >= 16 << 20).ok_or_else(|| "write it like 512MiB or 4GiB, 16MiB at least".into())
}

/// Answers a command; what it writes into a file goes to `output`, where that is open already.
pub(crate) async fn run(command: Command, output: Option<OutputFile>, out: &mut Stdout) -> Result<()> {
    match command {
        Command::Info(args) => info::run(&open(&args.sessions, MEMORY)?, args.format, out).await,
        Command::Hotspots(args) => hotspots(args, out).await,
        Command::Blocking(args) => blocking(args, out).await,
        Command::Workers(args) => workers(args, out).await,
        Command::Tasks(args) => tasks(args, out).await,
        Command::Timeline(args) => timeline(args, out).await,
        Command::Export(args) => export::run(&args, output, out).await,
        Command::Diff(args) => diff::run(&args, out).await,
        Command::Verify(args) => verify::run(&args.sessions, args.format, out),
        // Answered before a runtime was needed.
        Command::Compact(_)
        | Command::Repair(_)
        | Command::Completions { .. }
        | Command::Sql(_)
        | Command::Replay(_)
        | Command::Screenshot(_) => Ok(()),
    }
}

/// Opens sessions, and says on stderr what happened to them.
pub(crate) fn open(places: &[PathBuf], memory: usize) -> Result<Catalog> {
    open_with(places, &Settings { memory, ..Settings::default() })
}

/// The same, for queries that are run as `settings` say.
pub(crate) fn open_with(places: &[PathBuf], settings: &Settings) -> Result<Catalog> {
    let catalog = Catalog::open_all(places, settings)?;
    for notice in catalog.notices() {
        let _ = writeln!(io::stderr(), "note: {}", hud_common::clean(notice));
    }
    Ok(catalog)
}

async fn hotspots(args: HotspotsArgs, out: &mut Stdout) -> Result<()> {
    let catalog = open(&args.view.sessions, args.view.memory)?;
    let window = window(&catalog, &args.view).await?;
    let arguments =
        within(window).int("task", args.task.task).int("thread", args.thread.thread).flag("lines", args.lines);
    show(&catalog, view::HOTSPOTS, arguments, &args.view, out).await
}

async fn blocking(args: BlockingArgs, out: &mut Stdout) -> Result<()> {
    let catalog = open(&args.view.sessions, args.view.memory)?;
    let window = window(&catalog, &args.view).await?;
    let arguments = within(window)
        .int("task", args.task.task)
        .int("thread", args.thread.thread)
        .int("threshold", args.threshold)
        .int("asleep", args.asleep);
    let view = if args.each { view::BLOCKING_EACH } else { view::BLOCKING };
    show(&catalog, view, arguments, &args.view, out).await
}

async fn workers(args: WorkersArgs, out: &mut Stdout) -> Result<()> {
    let catalog = open(&args.view.sessions, args.view.memory)?;
    let window = window(&catalog, &args.view).await?;
    let arguments = within(window).int("thread", args.thread.thread);
    show(&catalog, view::WORKERS, arguments, &args.view, out).await
}

async fn tasks(args: TasksArgs, out: &mut Stdout) -> Result<()> {
    let catalog = open(&args.view.sessions, args.view.memory)?;
    let window = window(&catalog, &args.view).await?;
    let view = if args.by_type { view::TASKS_BY_TYPE } else { view::TASKS };
    show(&catalog, view, within(window).int("task", args.task.task), &args.view, out).await
}

async fn timeline(args: TimelineArgs, out: &mut Stdout) -> Result<()> {
    let catalog = open(&args.view.sessions, args.view.memory)?;
    let window = window(&catalog, &args.view).await?;
    let drawn = args.view.format == Format::Table;
    let fitting = || (window.dur().saturating_add(lanes::columns() - 1)) / lanes::columns();
    let step = args.step.unwrap_or_else(|| if drawn { fitting().max(1) } else { defaults::hundredth(window) });
    let arguments = within(window).int("step", step).int("thread", args.thread.thread);
    if !drawn {
        return show(&catalog, view::TIMELINE, arguments, &args.view, out).await;
    }
    let frames = view::TIMELINE.plan_each(catalog.opened(), &arguments).await?;
    for (frame, session) in frames.into_iter().zip(catalog.sessions()) {
        let rows = frame.collect().await.map_err(|e| catalog.explain(e.into()))?;
        catalog.confirm()?;
        if catalog.sessions().len() > 1 {
            let place = session.dir().path().display().to_string();
            writeln!(out, "{}", hud_common::clean(&place)).map_err(Error::io("write the answer"))?;
        }
        lanes::draw(&rows, window, step, args.ascii, out)?;
    }
    Ok(())
}

pub(crate) async fn window(catalog: &Catalog, args: &ViewArgs) -> Result<Window> {
    let whole = Window::whole(catalog).await?;
    Window::part(whole, catalog.start(), args.from, args.to)
}

fn within(window: Window) -> Arguments {
    Arguments::default().int("from", window.from).int("to", window.to)
}

pub(crate) async fn show(
    catalog: &Catalog,
    view: View,
    arguments: Arguments,
    args: &ViewArgs,
    out: &mut Stdout,
) -> Result<()> {
    let limit = match args.limit {
        Some(0) => None,
        Some(limit) => Some(limit),
        None => args.format.is_text().then_some(LIMIT),
    };
    let frames = view.plan_each(catalog.opened(), &arguments).await?;
    output::write(catalog, frames, &view.header()?.columns, args.format, limit, args.wide, out).await
}
