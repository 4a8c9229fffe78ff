//! The lists as tables, the same on all screens; wider ones have more columns.

use ratatui::{layout::Rect, style::Style};

use crate::{BlockingInterval, Cause, Hotspot, Load, Place, Snapshot, Status, TaskKind, TaskOutcome, TaskRow, Worker};

use super::{
    figures::{is_partial, recorded},
    format::{count, maybe_nanos, nanos, share, thousandths, value},
    names,
    paint::{Block, Canvas, Cell, Column, Cx},
    state::{Hit, List},
    text::{Cut, shortened, wrap},
};

/// The streams of polls, and of what wakes led to.
const POLLS: &[&str] = &["polls"];
const WAKES: &[&str] = &["polls", "wakes"];

/// A duration, coloured by the thresholds of long polls.
fn long(cx: &Cx<'_>, ns: Option<i64>) -> Cell<'static> {
    Cell::text(maybe_nanos(ns), long_style(cx, ns.unwrap_or(0)))
}

/// The colour of the duration of a poll or of a blocking interval.
pub(super) fn long_style(cx: &Cx<'_>, ns: i64) -> Style {
    let thresholds = cx.state.thresholds();
    match ns {
        ns if ns >= thresholds.very_long_poll => cx.theme.warning,
        ns if ns >= thresholds.long_poll => cx.theme.caution,
        _ => cx.theme.text,
    }
}

fn cause(cx: &Cx<'_>, cause: Cause, is_estimated: bool) -> Cell<'static> {
    // `~` marks an estimate: it rests on samples or on sums.
    match (cause, is_estimated) {
        (Cause::Blocked, false) => Cell::text("blocked", cx.theme.warning),
        (Cause::Blocked, true) => Cell::text("blocked~", cx.theme.warning),
        (Cause::Cpu, false) => Cell::text("cpu", cx.theme.caution),
        (Cause::Cpu, true) => Cell::text("cpu~", cx.theme.caution),
        (Cause::ShortSleeps, false) => Cell::text("short", cx.theme.caution),
        (Cause::ShortSleeps, true) => Cell::text("short~", cx.theme.caution),
    }
}

fn function(cx: &Cx<'_>, place: &Place) -> Cell<'static> {
    Cell::name(names::function(&place.function).to_string(), cx.theme.origin(place.origin))
}

fn file_line(cx: &Cx<'_>, place: &Place) -> Cell<'static> {
    Cell::path(names::file_line(place.file.as_ref(), place.line), cx.theme.dim)
}

/// The longest of those that have ended, or, marked by `+`, the time for which a longer one has been in progress.
fn longest(cx: &Cx<'_>, ended: Option<i64>, in_progress: Option<i64>) -> Cell<'static> {
    match in_progress.filter(|lasted| Some(*lasted) >= ended) {
        Some(lasted) => Cell::text(format!("{}+", nanos(lasted)), long_style(cx, lasted)),
        None => long(cx, ended),
    }
}

fn blank() -> Cell<'static> {
    Cell::text("", Style::new())
}

/// Lines of a finding's sentence.
const SENTENCE_LINES: usize = 4;

/// Detected problems, with whole sentences: each takes the lines that it needs.
pub(super) fn findings(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const LABEL: u16 = 10;
    let found = &cx.snapshot.findings;
    let note = match found.len() {
        0 => String::new(),
        n => match cx.state.acknowledged(cx.snapshot) {
            0 => format!("{n} found"),
            of => format!("{n} found, {of} acknowledged"),
        },
    };
    let area = canvas.pane(cx, area, "FINDINGS", &note, Some(List::Findings));
    if found.is_empty() {
        let why = all_quiet(cx);
        return canvas.nothing(cx, area, &why);
    }
    let room = usize::from(area.width.saturating_sub(LABEL + 2));
    let block = |at: usize| {
        let Some(finding) = found.get(at) else {
            return Block { label: "", style: Style::new(), lines: Vec::new(), ink: Style::new() };
        };
        let label = if finding.severity == Status::Warning { "warning" } else { "caution" };
        let lines = sentence(cx, &finding.sentence, room, SENTENCE_LINES);
        match cx.state.is_acknowledged(finding) {
            true => Block { label, style: cx.theme.dim, lines, ink: cx.theme.dim },
            false => Block { label, style: cx.theme.ink(finding.severity), lines, ink: cx.theme.text },
        }
    };
    canvas.blocks(cx, area, List::Findings, LABEL, block);
}

/// Lines of a finding's sentence that the overview has room for, all findings together.
pub(super) fn finding_lines(cx: &Cx<'_>, width: u16) -> usize {
    let room = usize::from(width.saturating_sub(12));
    cx.snapshot.findings.iter().take(5).map(|found| sentence(cx, &found.sentence, room, SENTENCE_LINES).len()).sum()
}

/// A sentence in lines of `room` cells. Its names are as short as it takes to be at most two lines.
fn sentence(cx: &Cx<'_>, text: &str, room: usize, most: usize) -> Vec<String> {
    let lines = wrap(text, room, 3);
    match lines.len() > 2 {
        true => wrap(&shortened(text, room.saturating_mul(2).saturating_sub(12), cx.theme.glyphs.ellipsis), room, most),
        false => lines,
    }
}

/// Whether the window has any data.
pub(super) fn is_seeing(snapshot: &Snapshot) -> bool {
    snapshot.coverage.streams.iter().any(|stream| stream.rows > 0)
        || snapshot.workers.runtimes.iter().any(|runtime| !runtime.workers.is_empty())
        || snapshot.tasks.count > 0
}

/// The text of an empty list: there is nothing, or it was not recorded. The absence of rows of a stream that was off is no
/// evidence.
pub(super) fn none_of(cx: &Cx<'_>, streams: &[&str], nothing: &str) -> String {
    let coverage = &cx.snapshot.coverage.streams;
    let of = || coverage.iter().filter(|row| streams.contains(&row.stream.as_str()));
    let unread = cx.snapshot.coverage.unread;
    if unread > 0 {
        return format!("{nothing}; the window's first {} is unread", nanos(unread));
    }
    let least = of().min_by_key(|row| recorded(row));
    let is_first = matches!(cx.snapshot.mode, crate::Mode::Live { newest, .. } if newest <= cx.snapshot.session.start);
    match least {
        _ if !is_seeing(cx.snapshot) && is_first => "waiting for the first data".into(),
        _ if !is_seeing(cx.snapshot) => "nothing was recorded in this window".into(),
        None => nothing.into(),
        Some(least) => {
            let why = least.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
            match recorded(least) {
                995.. => nothing.into(),
                0 if of().count() == 1 => format!("{} were not recorded in this window{why}", least.stream),
                part => format!("{nothing} (recorded: {} {}{why})", least.stream, share(part)),
            }
        }
    }
}

/// Whether certainly no task ran in the window.
fn is_idle(snapshot: &Snapshot) -> bool {
    let is_task = |row: &&crate::TypeRow| row.task_type.is_some() && row.kind == TaskKind::Task;
    let ran =
        snapshot.types.iter().filter(is_task).any(|row| row.polls > 0 || row.cpu > 0 || row.in_progress.is_some());
    is_seeing(snapshot) && snapshot.polls.count == 0 && !ran && !is_partial(snapshot, &["polls", "samples"])
}

/// The text in place of findings.
pub(super) fn all_quiet(cx: &Cx<'_>) -> String {
    let quiet = match is_idle(cx.snapshot) {
        true => "idle: no task was polled in this window, and none was on a CPU",
        false => "no threshold is exceeded",
    };
    none_of(cx, &["off_cpu", "polls", "samples", "wakes"], quiet)
}

/// Code that held workers.
pub(super) fn culprits(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::fixed("cause", 8),
        Column::number("longest", 7),
        Column::number("total", 7),
        Column::number("times", 6),
        Column::number("median", 7).from(100),
        Column::flex("code", 3),
        Column::flex("at", 2).from(90),
        Column::flex("task type", 2),
    ];
    let blocking = &cx.snapshot.blocking;
    let note = intervals_note(cx);
    let area = canvas.pane(cx, area, "BLOCKING", &note, Some(List::Culprits));
    if blocking.culprits.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["off_cpu", "polls"], "no task held its worker"));
    }
    canvas.table(cx, area, List::Culprits, COLUMNS, |row, column| {
        let Some(row) = blocking.culprits.get(row) else { return blank() };
        match column {
            0 => cause(cx, row.cause, row.is_estimated),
            1 => longest(cx, Some(row.longest), row.in_progress),
            2 => Cell::text(nanos(row.total), cx.theme.text),
            3 => Cell::text(count(row.count), cx.theme.text),
            4 => Cell::text(nanos(row.median), cx.theme.text),
            5 => function(cx, &row.place),
            6 => file_line(cx, &row.place),
            _ => Cell::name(
                names::type_of(row.task_type.as_ref()),
                cx.theme.lane(row.task_type.as_ref().map(|of| of.id)),
            ),
        }
    });
}

fn intervals_note(cx: &Cx<'_>) -> String {
    let blocking = &cx.snapshot.blocking;
    match (blocking.count, blocking.left_out) {
        (0, _) => String::new(),
        (n, 0) => format!("{} intervals, {}", count(n), nanos(blocking.total)),
        (n, left) => {
            format!("{} intervals, {}; {} shorter ones left out", count(n), nanos(blocking.total), count(left))
        }
    }
}

/// Blocking intervals, newest or longest first.
pub(super) fn intervals(
    cx: &Cx<'_>,
    canvas: &mut Canvas<'_>,
    area: Rect,
    list: List,
    title: &str,
    rows: &[BlockingInterval],
) {
    const COLUMNS: &[Column] = &[
        Column::fixed("at", 12),
        Column::fixed("cause", 8),
        Column::number("for", 7),
        Column::fixed("on", 7),
        Column::flex("code", 3),
        Column::flex("at", 2).from(110),
        Column::flex("task", 2),
    ];
    // Those of one task are not counted separately.
    let note = if list == List::Intervals { String::new() } else { intervals_note(cx) };
    let area = canvas.pane(cx, area, title, &note, Some(list));
    if rows.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["off_cpu", "polls"], "no task held its worker"));
    }
    canvas.table(cx, area, list, COLUMNS, |row, column| {
        let Some(row) = rows.get(row) else { return blank() };
        match column {
            0 => Cell::text(cx.millis(row.ts), cx.theme.dim),
            1 => cause(cx, row.cause, row.is_estimated),
            2 => longest(cx, Some(row.dur), row.in_progress),
            3 => Cell::text(names::thread(cx.snapshot, row.tid), cx.theme.text),
            4 => function(cx, &row.place),
            5 => file_line(cx, &row.place),
            _ => Cell::name(names::task(&row.task), cx.theme.lane(row.task.task_type.as_ref().map(|of| of.id))),
        }
    });
}

/// The time by which hotspots are sorted.
fn sorted_by(row: &Hotspot, by: &str) -> i64 {
    match by {
        "total" => row.total,
        "self" => row.leaf,
        _ => row.own,
    }
}

/// CPU time by function or by line.
pub(super) fn hotspots(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, list: List, rows: &[Hotspot]) {
    const COLUMNS: &[Column] = &[
        Column::number("attrib", 6),
        Column::number("self", 6).from(90),
        Column::number("total", 6),
        Column::fixed("", 8).from(70),
        Column::flex("code", 3),
        Column::flex("at", 2),
        Column::flex("calling", 2).from(130),
        Column::flex("task type", 2).from(100),
    ];
    let hotspots = &cx.snapshot.hotspots;
    let title = match list {
        List::Lines => "HOTSPOTS by file and line",
        _ => "HOTSPOTS by function",
    };
    let (by, is_reversed) = cx.state.order_of(list);
    let up = if is_reversed { ", reversed" } else { "" };
    let note = format!("by {by}{up}, {} samples, {} of CPU", count(hotspots.samples), nanos(hotspots.weight));
    let area = canvas.pane(cx, area, title, &note, Some(list));
    if rows.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["samples"], "no CPU sample in this window"));
    }
    canvas.table(cx, area, list, COLUMNS, |row, column| {
        let Some(row) = rows.get(row) else { return blank() };
        let part = |ns: i64| thousandths(ns, hotspots.weight);
        match column {
            0 => Cell::text(share(part(row.own)), cx.theme.text),
            1 => Cell::text(share(part(row.leaf)), cx.theme.text),
            2 => Cell::text(share(part(row.total)), cx.theme.dim),
            3 => Cell::gauge(part(sorted_by(row, by)), cx.theme.accent),
            4 if list == List::Lines => file_line(cx, &row.place),
            4 => function(cx, &row.place),
            5 if list == List::Lines => function(cx, &row.place),
            5 => file_line(cx, &row.place),
            6 => Cell::name(
                row.calling
                    .as_ref()
                    .map_or(String::new(), |to| format!("{} {}", cx.theme.glyphs.arrow, names::function(to))),
                cx.theme.dim,
            ),
            _ => match &row.task_type {
                Some(of) => Cell::name(of.name.to_string(), cx.theme.lane(Some(of.id))),
                None => Cell::text("-", cx.theme.dim),
            },
        }
    });
}

/// CPU time by type of task.
pub(super) fn type_spots(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::number("share", 6),
        Column::fixed("", 8),
        Column::number("CPU", 7),
        Column::flex("task type", 2),
        Column::flex("most of it in", 2),
    ];
    let hotspots = &cx.snapshot.hotspots;
    let note = format!("{} samples, {} of CPU", count(hotspots.samples), nanos(hotspots.weight));
    let area = canvas.pane(cx, area, "HOTSPOTS by task type", &note, Some(List::TypeSpots));
    if hotspots.by_type.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["samples"], "no CPU sample in this window"));
    }
    canvas.table(cx, area, List::TypeSpots, COLUMNS, |row, column| {
        let Some(row) = hotspots.by_type.get(row) else { return blank() };
        let part = thousandths(row.own, hotspots.weight);
        match column {
            0 => Cell::text(share(part), cx.theme.text),
            1 => Cell::gauge(part, cx.theme.accent),
            2 => Cell::text(nanos(row.own), cx.theme.text),
            3 => Cell::name(
                names::type_or_outside(row.task_type.as_ref()),
                cx.theme.lane(row.task_type.as_ref().map(|of| of.id)),
            ),
            _ => Cell::name(row.place.as_ref().map_or(String::new(), names::place), cx.theme.dim),
        }
    });
}

/// Tasks.
pub(super) fn tasks(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::number("id", 8).from(60),
        Column::flex("task type", 3),
        Column::number("polls", 7).from(52).counts(POLLS),
        Column::number("busy", 7).counts(POLLS),
        Column::number("longest", 8).counts(POLLS),
        Column::number("delay", 7).from(70).estimates(WAKES),
        Column::number("blocked", 7).from(90),
        Column::number("CPU", 7).from(140),
        Column::number("wakes", 7).from(140).counts(WAKES),
        Column::number("by self", 8).from(130).counts(WAKES),
        Column::fixed("state", 15).from(100),
        Column::flex("written at", 2).from(110),
        Column::flex("spawned by", 2).from(170),
    ];
    let tasks = &cx.snapshot.tasks;
    let of = match tasks.matching == tasks.count {
        true => count(tasks.count),
        false => format!("{} of {}", count(tasks.matching), count(tasks.count)),
    };
    let (by, is_reversed) = cx.state.order_of(List::Tasks);
    let mut note = format!("{of} by {by}{}", if is_reversed { ", reversed" } else { "" });
    if let (Some(spawned), Some(ended)) = (tasks.spawned, tasks.ended) {
        note.push_str(&format!(", {} spawned, {} ended", count(spawned), count(ended)));
    }
    if tasks.left_out > 0 {
        note.push_str(&format!(", {} without a row", count(tasks.left_out)));
    }
    let area = canvas.pane(cx, area, "TASKS", &note, Some(List::Tasks));
    if tasks.rows.is_empty() {
        let why = match cx.state.filter() {
            "" => none_of(cx, &["tasks", "polls"], "no task in this window"),
            _ => "no task passes the filter".into(),
        };
        return canvas.nothing(cx, area, &why);
    }
    canvas.table(cx, area, List::Tasks, COLUMNS, |row, column| {
        let Some(row) = tasks.rows.get(row) else { return blank() };
        let text = |text: String| Cell::text(text, cx.theme.text);
        match column {
            0 => Cell::text(row.task.id.to_string(), cx.theme.dim),
            1 => Cell::name(
                names::type_of(row.task.task_type.as_ref()),
                cx.theme.lane(row.task.task_type.as_ref().map(|of| of.id)),
            ),
            2 => text(count(row.polls)),
            3 => text(nanos(row.busy)),
            4 => longest(cx, row.longest_poll, row.in_progress),
            5 => text(maybe_nanos(row.wake_delay_mean)),
            6 => Cell::text(nanos(row.blocked), if row.blocked > 0 { cx.theme.caution } else { cx.theme.dim }),
            7 => text(nanos(row.cpu)),
            8 => text(count(row.wakes)),
            9 => text(count(row.self_wakes)),
            10 => Cell::text(task_state(cx.snapshot, row), cx.theme.dim),
            11 => Cell::path(names::file_line(row.file.as_ref(), row.line), cx.theme.dim),
            _ => Cell::name(
                row.spawned.as_ref().map_or(String::new(), |by| names::spawned(cx.snapshot, by)),
                cx.theme.dim,
            ),
        }
    });
}

/// A task's state.
pub(super) fn task_state(snapshot: &Snapshot, row: &TaskRow) -> String {
    match row.ended {
        Some(ended) => match ended.outcome {
            TaskOutcome::Completed => "completed".into(),
            TaskOutcome::Cancelled => "cancelled".into(),
            TaskOutcome::Panicked => "panicked".into(),
        },
        None if row.in_progress.is_some() => format!("in poll {}", maybe_nanos(row.in_progress)),
        None if row.kind == TaskKind::Blocking => "blocking".into(),
        None => format!("idle {}", nanos(snapshot.at.saturating_sub(row.last_seen).max(0))),
    }
}

/// The names of the screen's lists; the focused one is highlighted.
pub(super) fn tabs(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, names: &[&str]) -> Rect {
    if area.height < 8 {
        return area;
    }
    let mut x = area.x + area.width.min(2);
    for (name, list) in names.iter().zip(cx.state.screen().lists()) {
        let style = if cx.state.focused() == Some(*list) { cx.theme.title } else { cx.theme.dim };
        let room = area.right().saturating_sub(x);
        let used = canvas.text(cx, (x, area.y), room, name, style, Cut::End);
        canvas.drawn.hits.push((Rect { x, y: area.y, width: used, height: 1 }, Hit::Pane(*list)));
        x = x.saturating_add(used + 3).min(area.right());
    }
    Rect { y: area.y + 1, height: area.height - 1, ..area }
}

/// The frames of a stack, own code in bright. If not all fit, those that are not `kept` are left out, the outermost first.
pub(super) fn stack(
    cx: &Cx<'_>,
    canvas: &mut Canvas<'_>,
    area: Rect,
    frames: &[Place],
    kept: impl Fn(&Place, usize) -> bool,
) {
    let room = usize::from(area.height);
    let is_kept = |(at, frame): (usize, &Place)| kept(frame, at);
    let mut others = room.saturating_sub(frames.iter().enumerate().filter(|of| is_kept(*of)).count());
    let mut y = area.y;
    for (at, frame) in frames.iter().enumerate() {
        if !kept(frame, at) {
            if others == 0 {
                continue;
            }
            others -= 1;
        }
        if y >= area.bottom() {
            break;
        }
        let style = cx.theme.origin(frame.origin);
        let indent = area.x + area.width.min(2);
        let room = area.width.saturating_sub(2);
        let file = names::file_line(frame.file.as_ref(), frame.line);
        let right = if file.is_empty() { 0 } else { room / 3 };
        canvas.text(cx, (indent, y), room - right, names::function(&frame.function), style, Cut::Name);
        if right > 1 {
            canvas.text(cx, (indent + room - right + 1, y), right - 1, &file, cx.theme.dim, Cut::Start);
        }
        y += 1;
    }
}

const WORKER_COLUMNS: &[Column] = &[
    Column::fixed("worker", 7),
    Column::flex("load", 3),
    Column::number("busy", 6),
    Column::number("blocked", 7),
    Column::number("waiting", 7).from(64),
    Column::number("polls", 7).from(70).counts(POLLS),
    Column::number("longest", 8).counts(POLLS),
    Column::flex("now", 3).from(90),
];

/// Workers, a row each.
pub(super) fn workers(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let all: Vec<(Option<_>, &Worker)> =
        cx.snapshot.workers.runtimes.iter().flat_map(|of| of.workers.iter().map(move |w| (of.id, w))).collect();
    let runtimes = cx.snapshot.workers.runtimes.len();
    let mut note = format!("{}", all.len());
    if runtimes > 1 {
        note.push_str(&format!(" of {runtimes} runtimes"));
    }
    if cx.snapshot.workers.others > 0 {
        note.push_str(&format!(", {} other threads", cx.snapshot.workers.others));
    }
    let area = canvas.pane(cx, area, "WORKERS", &note, Some(List::Workers));
    if all.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["off_cpu"], "no worker was seen in this window"));
    }
    canvas.table(cx, area, List::Workers, WORKER_COLUMNS, |row, column| {
        let Some((runtime, worker)) = all.get(row) else { return blank() };
        match column {
            0 => Cell::text(names::seat(cx.snapshot, *runtime, worker.worker, worker.tid), cx.theme.text),
            column => worker_cell(cx, worker, column, true),
        }
    });
}

/// The blocking pool's threads.
pub(super) fn pool(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let pool = &cx.snapshot.workers.pool;
    let area = canvas.pane(cx, area, "BLOCKING POOL", &pool_note(cx), Some(List::Pool));
    if pool.workers.is_empty() {
        return canvas.nothing(cx, area, "no thread of the blocking pool was seen in this window");
    }
    canvas.table(cx, area, List::Pool, WORKER_COLUMNS, |row, column| {
        let Some(worker) = pool.workers.get(row) else { return blank() };
        match column {
            0 => Cell::text(worker.tid.to_string(), cx.theme.text),
            column => worker_cell(cx, worker, column, false),
        }
    });
}

/// Use of the blocking pool.
pub(super) fn pool_note(cx: &Cx<'_>) -> String {
    let pool = &cx.snapshot.workers.pool;
    let work = pool.load.observed().saturating_sub(pool.load.idle);
    format!("{} threads, {} busy", pool.threads, share(pool.load.share(work)))
}

fn worker_cell(cx: &Cx<'_>, worker: &Worker, column: usize, is_worker: bool) -> Cell<'static> {
    let load: &Load = &worker.load;
    let part = |ns: i64| share(load.share(ns));
    let blocked = load.share(load.blocked);
    let blocked_style = match blocked {
        // Blocking is the pool's purpose.
        0 => cx.theme.dim,
        _ if !is_worker => cx.theme.text,
        n if n >= cx.state.thresholds().worker_blocked => cx.theme.warning,
        _ => cx.theme.caution,
    };
    match column {
        1 => Cell::load(*load),
        2 => Cell::text(part(load.running), cx.theme.text),
        3 => Cell::text(share(blocked), blocked_style),
        4 => Cell::text(part(load.waiting), if load.waiting > 0 { cx.theme.text } else { cx.theme.dim }),
        5 => Cell::text(worker.polls.map_or("-".into(), count), cx.theme.text),
        6 => longest(cx, worker.longest_poll, worker.in_progress()),
        _ => Cell::name(names::now(cx.snapshot, worker), cx.theme.dim),
    }
}

/// Types of tasks with the percentiles of their polls.
pub(super) fn types(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::flex("task type", 3),
        Column::number("tasks", 6),
        Column::number("polls", 7).from(60).counts(POLLS),
        Column::number("p50", 7).from(100).estimates(POLLS),
        Column::number("p99", 7).from(60).estimates(POLLS),
        Column::number("longest", 8).counts(POLLS),
        Column::number("wake p99", 9).from(60).estimates(WAKES),
        Column::number("busy", 7).counts(POLLS),
        Column::number("blocked", 7).from(90),
        Column::number("spawned", 8).from(120).counts(&["spawns"]),
        Column::number("ended", 7).from(120).counts(&["ends"]),
        Column::flex("written at", 2).from(130),
    ];
    let types = &cx.snapshot.types;
    let (by, is_reversed) = cx.state.order_of(List::Types);
    let up = if is_reversed { ", reversed" } else { "" };
    let note = format!("{} types by {by}{up}, {} tasks", types.len(), count(cx.snapshot.tasks.count));
    let area = canvas.pane(cx, area, "TASKS by type", &note, Some(List::Types));
    if types.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["tasks", "polls"], "no task in this window"));
    }
    canvas.table(cx, area, List::Types, COLUMNS, |row, column| {
        let Some(row) = types.get(row) else { return blank() };
        let text = |text: String| Cell::text(text, cx.theme.text);
        match column {
            0 => Cell::name(
                names::type_of(row.task_type.as_ref()),
                cx.theme.lane(row.task_type.as_ref().map(|of| of.id)),
            ),
            1 => text(count(row.tasks)),
            2 => text(count(row.polls)),
            3 => text(maybe_nanos(row.durations.p50)),
            4 => long(cx, row.durations.p99),
            5 => longest(cx, (row.durations.count > 0).then_some(row.durations.longest), row.in_progress),
            6 => text(maybe_nanos(row.wake_delay.p99)),
            7 => text(nanos(row.busy)),
            8 => text(nanos(row.blocked)),
            9 => text(count(row.spawned)),
            10 => text(count(row.ended)),
            _ => Cell::path(names::file_line(row.file.as_ref(), row.line), cx.theme.dim),
        }
    });
}

/// A finding in full: its sentence, its evidence, what to do.
pub(super) fn finding(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = cx.state.rows(cx.snapshot, List::Findings);
    let at = rows.get(cx.state.cursor(List::Findings).min(rows.len().saturating_sub(1)));
    let area = canvas.pane(cx, area, "EVIDENCE", "", None);
    let Some(finding) = at.and_then(|at| cx.snapshot.findings.get(*at)) else {
        return canvas.nothing(cx, area, "no finding to show");
    };
    let mut lines: Vec<(String, Style)> = Vec::new();
    let room = usize::from(area.width.saturating_sub(4)).max(1);
    for line in wrap(&finding.sentence, room, 4) {
        lines.push((line, cx.theme.ink(finding.severity)));
    }
    for evidence in &finding.evidence {
        let limit = evidence.threshold.map_or(String::new(), |limit| format!("  (threshold {})", value(limit)));
        lines.push((format!("{:>10}  {}{limit}", value(evidence.value), evidence.what), cx.theme.text));
    }
    if finding.is_estimated {
        lines.push(("an estimate from samples".into(), cx.theme.dim));
    }
    for line in wrap(&[cx.theme.glyphs.arrow, " ", finding.rule.advice()].concat(), room, 4) {
        lines.push((line, cx.theme.bright));
    }
    for (at, (line, style)) in lines.iter().enumerate().take(usize::from(area.height)) {
        let y = area.y + super::paint::to_u16(at);
        canvas.text(cx, (area.x + area.width.min(2), y), area.width.saturating_sub(2), line, *style, Cut::End);
    }
    if status_is_bad(finding.severity) && usize::from(area.height) > lines.len() {
        let y = area.y + super::paint::to_u16(lines.len());
        canvas.text(
            cx,
            (area.x + area.width.min(2), y),
            area.width.saturating_sub(2),
            "Enter opens it",
            cx.theme.dim,
            Cut::End,
        );
    }
}

fn status_is_bad(status: Status) -> bool {
    status > Status::Normal
}
