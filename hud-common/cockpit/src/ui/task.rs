//! A task's page: its type, poll durations, last polls, wakers and blocking intervals.

use ratatui::{layout::Rect, style::Style};

use crate::{Place, TaskPage, TaskRow};

use super::{
    format::{count, maybe_nanos, nanos},
    latency::histogram,
    names,
    paint::{Canvas, Cell, Column, Cx, to_u16},
    state::List,
    tables::{intervals, long_style, none_of, task_state},
    text::Cut,
    waiting::{frames, state_word, wait_lines},
};

/// The page.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(page) = &cx.snapshot.task else {
        let area = canvas.pane(cx, area, "TASK", "", None);
        return canvas.nothing(cx, area, "loading");
    };
    let head = facts(cx, page);
    let height = to_u16(head.len() + 1).min(area.height / 2).max(2).min(area.height);
    let upper = canvas.pane(cx, Rect { height, ..area }, &format!("TASK {}", page.task.id), "", None);
    for (at, (name, text, style)) in head.iter().enumerate().take(usize::from(upper.height)) {
        let y = upper.y + to_u16(at);
        canvas.text(
            cx,
            (upper.x + upper.width.min(2), y),
            upper.width.saturating_sub(2).min(10),
            name,
            cx.theme.dim,
            Cut::End,
        );
        canvas.text(cx, (upper.x + upper.width.min(13), y), upper.width.saturating_sub(13), text, *style, Cut::Name);
    }
    let rest = Rect { y: area.y + height, height: area.height - height, ..area };
    let stack = page.state.as_ref().and_then(|state| state.waits.first()).map(|wait| wait.stack.as_slice());
    let stack = stack.unwrap_or_default();
    if rest.width >= 100 && rest.height >= 12 {
        let half = rest.width / 2;
        let left = Rect { width: half - 1, ..rest };
        let right = Rect { x: rest.x + half, width: rest.width - half, ..rest };
        let [a, b] = split(left);
        histogram(cx, canvas, a, "ITS POLLS", &page.durations, true);
        intervals(cx, canvas, b, List::Intervals, "HELD ITS WORKER", &page.intervals);
        let [a, b] = split(right);
        polls(cx, canvas, a, page);
        if stack.is_empty() {
            wakers(cx, canvas, b, page);
        } else {
            let [b, c] = split(b);
            wakers(cx, canvas, b, page);
            await_stack(cx, canvas, c, stack);
        }
    } else {
        match cx.state.focused() {
            Some(List::Wakers) => wakers(cx, canvas, rest, page),
            Some(List::Intervals) => {
                intervals(cx, canvas, rest, List::Intervals, "HELD ITS WORKER (Tab: polls, wakers)", &page.intervals)
            }
            _ if rest.height >= 12 => {
                let [a, b] = split(rest);
                if stack.is_empty() {
                    histogram(cx, canvas, a, "ITS POLLS", &page.durations, true);
                } else {
                    await_stack(cx, canvas, a, stack);
                }
                polls(cx, canvas, b, page);
            }
            _ => polls(cx, canvas, rest, page),
        }
    }
}

fn await_stack(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, stack: &[Place]) {
    let area = canvas.pane(cx, area, "AWAIT STACK", "the future that waits first", None);
    frames(cx, canvas, area, stack);
}

fn split(area: Rect) -> [Rect; 2] {
    let upper = area.height / 2;
    [Rect { height: upper, ..area }, Rect { y: area.y + upper, height: area.height - upper, ..area }]
}

fn facts(cx: &Cx<'_>, page: &TaskPage) -> Vec<(&'static str, String, Style)> {
    let theme = cx.theme;
    let of = page.task.task_type.as_ref();
    let mut out = Vec::from([("type", names::type_of(of).into_owned(), theme.lane(of.map(|of| of.id)))]);
    let Some(row) = &page.row else {
        out.push(("state", "not observed in this window".into(), theme.dim));
        out.extend(state_lines(cx, page));
        return out;
    };
    let at = names::file_line(row.file.as_ref(), row.line);
    if !at.is_empty() {
        out.push(("written at", at, theme.text));
    }
    if let Some(spawned) = &row.spawned {
        let who = names::spawned(cx.snapshot, spawned);
        out.push(("spawned", format!("{} by {who}", cx.millis(spawned.by.ts)), theme.text));
    }
    out.push(("state", task_state(cx.snapshot, row), theme.text));
    out.push(("polls", polls_line(row), long_style(cx, row.longest_poll.unwrap_or(0))));
    out.push(("wakes", wakes_line(row), theme.text));
    out.extend(state_lines(cx, page));
    out
}

/// What the last snapshot of all tasks found of it.
fn state_lines(cx: &Cx<'_>, page: &TaskPage) -> Vec<(&'static str, String, Style)> {
    let Some(state) = &page.state else { return Vec::new() };
    let lasted = state.ts.saturating_sub(state.since);
    let found = format!(
        "{}{} when the tasks were read {} ago",
        state_word(state.state),
        if lasted > 0 { format!(" for at least {},", nanos(lasted)) } else { String::new() },
        nanos(cx.snapshot.at.saturating_sub(state.ts).max(0)),
    );
    let mut out = vec![("found", found, cx.theme.text)];
    let mut name = "waiting";
    for wait in &state.waits {
        for (text, style) in wait_lines(cx, wait) {
            out.push((std::mem::take(&mut name), text, style));
        }
    }
    out
}

fn polls_line(row: &TaskRow) -> String {
    format!(
        "{}, longest {}, busy {}, blocked {}, CPU by samples {}",
        count(row.polls),
        maybe_nanos(row.longest_poll),
        nanos(row.busy),
        nanos(row.blocked),
        nanos(row.cpu)
    )
}

fn wakes_line(row: &TaskRow) -> String {
    format!(
        "{}, {} by itself; wake-to-poll latency {} on average, {} at most",
        count(row.wakes),
        count(row.self_wakes),
        maybe_nanos(row.wake_delay_mean),
        maybe_nanos(row.wake_delay_longest)
    )
}

fn polls(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, page: &TaskPage) {
    const COLUMNS: &[Column] = &[
        Column::fixed("at", 12),
        Column::number("for", 7),
        Column::number("asleep", 7),
        Column::number("waiting", 7),
        Column::number("delay", 7),
        Column::flex("on", 1),
    ];
    let area = canvas.pane(cx, area, "LAST POLLS", "newest first", Some(List::LastPolls));
    if page.last_polls.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["polls"], "no poll of it in this window"));
    }
    canvas.table(cx, area, List::LastPolls, COLUMNS, |row, column| {
        let Some(poll) = page.last_polls.get(row) else { return Cell::text("", cx.theme.text) };
        match column {
            0 => Cell::text(cx.millis(poll.ts), cx.theme.dim),
            1 => Cell::text(nanos(poll.dur), long_style(cx, poll.dur)),
            2 => Cell::text(nanos(poll.blocked), if poll.blocked > 0 { cx.theme.caution } else { cx.theme.dim }),
            3 => Cell::text(nanos(poll.run_queue), cx.theme.dim),
            4 => Cell::text(maybe_nanos(poll.wake_delay), cx.theme.text),
            _ => Cell::text(names::thread(cx.snapshot, poll.tid), cx.theme.text),
        }
    });
}

fn wakers(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, page: &TaskPage) {
    const COLUMNS: &[Column] = &[Column::number("times", 7), Column::flex("woken by", 1)];
    let area = canvas.pane(cx, area, "WAKERS", "", Some(List::Wakers));
    if page.wakers.is_empty() {
        return canvas.nothing(cx, area, &none_of(cx, &["wakes"], "no wake of it in this window"));
    }
    canvas.table(cx, area, List::Wakers, COLUMNS, |row, column| {
        let Some((waker, n)) = page.wakers.get(row) else { return Cell::text("", cx.theme.text) };
        match column {
            0 => Cell::text(count(*n), cx.theme.text),
            _ => Cell::name(names::waker(cx.snapshot, waker), cx.theme.text),
        }
    });
}
