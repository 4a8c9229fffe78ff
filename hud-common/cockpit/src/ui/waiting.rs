//! Where tasks wait: by place or each, with the await stack of the selected row.

use std::borrow::Cow;

use ratatui::{layout::Rect, style::Style};

use crate::{AwaitedBy, Mode, Name, Origin, Place, TaskState, Waiter, WaitingPlace, WaitingTask};

use super::{
    format::{count, nanos},
    names,
    paint::{Canvas, Cell, Column, Cx, to_u16},
    state::List,
    tables,
    text::Cut,
};

/// Time after the start of a recording within which the first snapshot of all tasks is taken (ns).
const FIRST: i64 = 5_000_000_000;

/// The screen.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let waiting = &cx.snapshot.waiting;
    let area = tables::tabs(cx, canvas, area, &["by place", "each task"]);
    let list = cx.state.focused().unwrap_or(List::Places);
    let rows = cx.state.rows(cx.snapshot, list);
    let selected = rows.get(cx.state.cursor(list).min(rows.len().saturating_sub(1))).copied();
    // The stack gets what the table does not need.
    let below =
        if area.height >= 12 { area.height.saturating_sub(to_u16(rows.len()) + 3).max(area.height * 2 / 5) } else { 0 };
    let upper = Rect { height: area.height - below, ..area };
    let lower = Rect { y: upper.bottom(), height: below, ..area };
    if list == List::Waiters {
        each(cx, canvas, upper);
        let row = selected.and_then(|at| waiting.tasks.get(at)).filter(|_| below > 0);
        if let Some(row) = row {
            let head = vec![(names::waiter(&row.who), cx.theme.bright)];
            details(cx, canvas, lower, head.into_iter().chain(wait_lines(cx, row)).collect(), &row.stack);
        }
        return;
    }
    places(cx, canvas, upper);
    if let Some(row) = selected.and_then(|at| waiting.places.get(at)).filter(|_| below > 0) {
        details(cx, canvas, lower, place_lines(cx, row), &row.stack);
    }
}

/// Why there is nothing to show, or that nobody waits.
fn nothing(cx: &Cx<'_>) -> String {
    let (snapshot, waiting) = (cx.snapshot, &cx.snapshot.waiting);
    if waiting.ts.is_some() {
        return match cx.state.filter() {
            "" => format!("no task was suspended when the tasks were last read{}", age(cx)),
            _ => "no waiting task passes the filter".into(),
        };
    }
    let age = snapshot.at.saturating_sub(snapshot.session.start);
    match (&waiting.gaps, &snapshot.session.state) {
        (Some(why), _) => why.to_string(),
        (None, Some(state)) if state == "off" => "the state of tasks was not read: recorded with --state off".into(),
        (None, _) if age < FIRST && matches!(snapshot.mode, Mode::Live { .. }) => {
            "the tasks have not been read yet; they are read for the first time in the first second, if tokio is known"
                .into()
        }
        _ => "the state of all tasks was not read up to this instant (--state off, or no tokio was found)".into(),
    }
}

fn age(cx: &Cx<'_>) -> String {
    let ago = |ts: i64| format!(" {} ago", nanos(cx.snapshot.at.saturating_sub(ts).max(0)));
    cx.snapshot.waiting.ts.map(ago).unwrap_or_default()
}

fn note(cx: &Cx<'_>) -> String {
    let waiting = &cx.snapshot.waiting;
    if waiting.ts.is_none() {
        return String::new();
    }
    let of = &waiting.counts;
    let states = [
        (of.suspended, "suspended"),
        (of.running, "running"),
        (of.scheduled, "scheduled"),
        (of.never_polled, "never polled"),
        (of.finished, "finished"),
        (of.cancelled, "cancelled"),
    ];
    let mut parts: Vec<String> =
        states.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(n))).collect();
    if waiting.left_out > 0 {
        parts.push(format!("{} rows left out", count(waiting.left_out)));
    }
    if parts.is_empty() {
        parts.push("no task".into());
    }
    format!("{}; read{}", parts.join(", "), age(cx))
}

/// What could not be read, in the last line of an area. Returns the rest of the area.
fn gaps(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) -> Rect {
    let waiting = &cx.snapshot.waiting;
    let Some(why) = waiting.gaps.as_ref().filter(|_| waiting.ts.is_some() && area.height >= 4) else { return area };
    let line = Rect { y: area.bottom() - 1, height: 1, ..area };
    canvas.nothing(cx, line, why);
    Rect { height: area.height - 1, ..area }
}

fn places(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::number("tasks", 6),
        Column::number("for", 8),
        Column::flex("waiting in", 3),
        Column::flex("at", 2).from(100),
        Column::flex("for what", 2),
        Column::flex("held by", 2).from(90),
        Column::flex("task type", 2).from(120),
    ];
    let waiting = &cx.snapshot.waiting;
    let area = canvas.pane(cx, area, "WAITING by place", &note(cx), Some(List::Places));
    if waiting.places.is_empty() {
        return canvas.nothing(cx, area, &nothing(cx));
    }
    let area = gaps(cx, canvas, area);
    canvas.table(cx, area, List::Places, COLUMNS, |row, column| {
        let Some(row) = waiting.places.get(row) else { return Cell::text("", Style::new()) };
        match column {
            0 => Cell::text(count(row.tasks), cx.theme.text),
            1 => Cell::text(at_least(row.longest), style(cx, row.deadlocked > 0, row.longest)),
            2 => function(cx, &row.place),
            3 => Cell::path(names::file_line(row.place.file.as_ref(), row.place.line), cx.theme.dim),
            4 => Cell::text(resource_of_place(row), cx.theme.text),
            5 => held_by(cx, row.holder.as_ref(), row.deadlocked > 0),
            _ => Cell::name(
                names::type_of(row.task_type.as_ref()),
                cx.theme.lane(row.task_type.as_ref().map(|of| of.id)),
            ),
        }
    });
}

fn each(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::number("for", 8),
        Column::flex("task", 3),
        Column::flex("waiting in", 3),
        Column::flex("at", 2).from(120),
        Column::flex("for what", 2).from(60),
        Column::flex("held by", 2).from(90),
    ];
    let waiting = &cx.snapshot.waiting;
    let area = canvas.pane(cx, area, "WAITING, the longest first", &note(cx), Some(List::Waiters));
    if waiting.tasks.is_empty() {
        return canvas.nothing(cx, area, &nothing(cx));
    }
    let area = gaps(cx, canvas, area);
    canvas.table(cx, area, List::Waiters, COLUMNS, |row, column| {
        let Some(row) = waiting.tasks.get(row) else { return Cell::text("", Style::new()) };
        match column {
            0 => {
                let lasted = waited(cx, row);
                Cell::text(at_least(lasted), style(cx, row.cycle.is_some(), lasted))
            }
            1 => Cell::name(names::waiter(&row.who), waiter_style(cx, &row.who)),
            2 => function(cx, &row.place),
            3 => Cell::path(names::file_line(row.place.file.as_ref(), row.place.line), cx.theme.dim),
            4 => Cell::text(resource(row.resource.as_ref(), row.detail.as_ref()), cx.theme.text),
            _ => held_by(cx, row.holder.as_ref(), row.cycle.is_some()),
        }
    });
}

/// The time for which a task has been found where it is.
fn waited(cx: &Cx<'_>, row: &WaitingTask) -> i64 {
    cx.snapshot.waiting.ts.unwrap_or(row.since).saturating_sub(row.since)
}

/// Snapshots found the task there each time: it has waited at least so long, or it was polled in between.
fn at_least(ns: i64) -> String {
    if ns > 0 { nanos(ns) } else { "-".into() }
}

/// Waiting is what tasks are for: only a deadlock stands out.
fn style(cx: &Cx<'_>, is_deadlocked: bool, ns: i64) -> Style {
    match (is_deadlocked, ns) {
        (true, _) => cx.theme.warning,
        (false, 0) => cx.theme.dim,
        _ => cx.theme.text,
    }
}

fn waiter_style(cx: &Cx<'_>, who: &Waiter) -> Style {
    match who {
        Waiter::Task(of) => cx.theme.lane(of.task_type.as_ref().map(|of| of.id)),
        Waiter::Thread(_) => cx.theme.text,
    }
}

fn function(cx: &Cx<'_>, place: &Place) -> Cell<'static> {
    Cell::name(names::function(&place.function).to_string(), cx.theme.origin(place.origin))
}

fn held_by(cx: &Cx<'_>, holder: Option<&AwaitedBy>, is_deadlocked: bool) -> Cell<'static> {
    let text = holder.map_or(String::new(), |holder| names::waiter(&holder.who));
    Cell::name(text, if is_deadlocked { cx.theme.warning } else { cx.theme.text })
}

/// The kind of a resource as people call it; unknown kinds as they are.
fn kind(resource: &str) -> &str {
    match resource {
        "mutex" => "Mutex",
        "rwlock_read" => "RwLock, to read",
        "rwlock_write" => "RwLock, to write",
        "semaphore" => "Semaphore",
        "mpsc_send" => "room in a channel",
        "mpsc_receive" => "a message",
        "once_cell" => "OnceCell",
        "notify" => "Notify",
        "oneshot" => "a oneshot message",
        "broadcast" => "a broadcast message",
        "task" => "the end of a task",
        "join_set" => "JoinSet",
        "timer" => "a timer",
        "io" => "I/O",
        other => other,
    }
}

/// A resource: its kind, and more of it where that is known.
fn resource(of: Option<&Name>, detail: Option<&Name>) -> Cow<'static, str> {
    match (of, detail) {
        (Some(_), Some(detail)) => detail.to_string().into(),
        (Some(of), None) => kind(of).to_string().into(),
        (None, Some(detail)) => detail.to_string().into(),
        (None, None) => "unknown".into(),
    }
}

fn resource_of_place(row: &WaitingPlace) -> Cow<'static, str> {
    match (row.resources, &row.detail) {
        (2.., None) => format!("{} of {}", count(row.resources), resource(row.resource.as_ref(), None)).into(),
        _ => resource(row.resource.as_ref(), row.detail.as_ref()),
    }
}

/// The state of a task in words.
pub(super) fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Scheduled => "woken, and not polled yet",
        TaskState::Suspended => "suspended",
        TaskState::NeverPolled => "never polled",
        TaskState::Finished => "finished, its handle still exists",
        TaskState::Cancelled => "cancelled, and not dropped yet",
        TaskState::Gone => "gone",
    }
}

type Lines = Vec<(String, Style)>;

fn place_lines(cx: &Cx<'_>, row: &WaitingPlace) -> Lines {
    let tasks = if row.tasks == 1 { "task" } else { "tasks" };
    let text = format!(
        "{} {tasks} of {}; waiting for: {}",
        count(row.tasks),
        names::type_of(row.task_type.as_ref()),
        resource_of_place(row)
    );
    let mut out = vec![(text, cx.theme.bright)];
    if row.deadlocked > 0 {
        out.push((
            format!("{} of them wait for each other in a cycle: a deadlock", count(row.deadlocked)),
            cx.theme.warning,
        ));
    }
    out.extend(row.holder.as_ref().map(|holder| (holder_line(holder), cx.theme.text)));
    let first = format!("below: the await stack of {}, which has waited longest", names::waiter(&row.first));
    out.push((first, cx.theme.dim));
    out
}

/// What a task waits for, and who holds it.
pub(super) fn wait_lines(cx: &Cx<'_>, row: &WaitingTask) -> Lines {
    let mut text = format!("waiting for: {}", resource(row.resource.as_ref(), row.detail.as_ref()));
    if let Some(deadline) = row.deadline {
        match deadline.saturating_sub(cx.snapshot.at) {
            left @ 0.. => text.push_str(&format!(", {} left", nanos(left))),
            // It may have ended since the tasks were read.
            late if row_is_late(cx, deadline) => {
                text.push_str(&format!(", due {} ago", nanos(late.saturating_neg())));
            }
            _ => text.push_str(", which has ended since"),
        }
    }
    if row.branches > 1 {
        text.push_str(&format!("; for {} futures at once", row.branches));
    }
    let mut out = vec![(text, cx.theme.text)];
    if let Some(cycle) = row.cycle {
        out.push((format!("in a deadlock, number {cycle}: tasks that wait for each other"), cx.theme.warning));
    }
    out.extend(row.holder.as_ref().map(|holder| (holder_line(holder), cx.theme.text)));
    out
}

/// Whether a timer had passed when the tasks were read.
fn row_is_late(cx: &Cx<'_>, deadline: i64) -> bool {
    cx.snapshot.waiting.ts.is_some_and(|read| deadline < read)
}

fn holder_line(holder: &AwaitedBy) -> String {
    let state = match (holder.state, &holder.place) {
        (_, Some(place)) => format!(", which is suspended in {}", names::place(place)),
        (Some(state), None) => format!(", which is {}", state_word(state)),
        (None, None) => String::new(),
    };
    format!("held by {}{state}", names::waiter(&holder.who))
}

/// The details of a row, then an await stack.
fn details(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, head: Lines, stack: &[Place]) {
    let area = canvas.pane(cx, area, "AWAIT STACK", "the future that waits first", None);
    let mut y = area.y;
    let (x, room) = (area.x + area.width.min(2), area.width.saturating_sub(2));
    for (text, style) in head {
        if y >= area.bottom() {
            return;
        }
        canvas.text(cx, (x, y), room, &text, style, Cut::Name);
        y += 1;
    }
    frames(cx, canvas, Rect { y, height: area.bottom().saturating_sub(y), ..area }, stack);
}

/// The frames of an await stack, own code in bright. If not all fit, others than own code are left out first.
pub(super) fn frames(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, stack: &[Place]) {
    if stack.is_empty() {
        return canvas.nothing(cx, area, "the await stack is not known: the binary has no type information");
    }
    tables::stack(cx, canvas, area, stack, |frame, at| frame.origin == Origin::Own || at == 0);
}
