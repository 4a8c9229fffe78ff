//! The overview, and the screens of a list with details of its selected row.

use ratatui::layout::Rect;

use crate::{BlockingInterval, Origin};

use super::{
    dials, names,
    paint::{Canvas, Cx, to_u16},
    state::{List, all_workers},
    tables, task,
    text::Cut,
    timeline,
};

/// Width from which on there are two columns.
const TWO_COLUMNS: u16 = 110;

/// Dials, findings, blocking, hotspots, workers and tasks.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = dials::height(area);
    dials::draw(cx, canvas, Rect { height: rows, ..area });
    let area = Rect { y: area.y + rows, height: area.height - rows, ..area };
    let left_width = if area.width >= TWO_COLUMNS { area.width * 3 / 5 } else { area.width + 1 };
    let findings = to_u16(tables::finding_lines(cx, left_width - 1).max(1)) + 1;
    let workers = to_u16(all_workers(cx.snapshot).count().max(1)) + 2;
    if area.width >= TWO_COLUMNS {
        let lanes = if area.height >= 30 {
            (to_u16(cx.snapshot.timeline.lanes.len()) + 2).clamp(4, area.height / 3)
        } else {
            0
        };
        let upper = Rect { height: area.height - lanes, ..area };
        let left = Rect { width: left_width - 1, ..upper };
        let right = Rect { x: upper.x + left_width, width: upper.width - left_width, ..upper };
        let [a, b, c] = stack(left, [findings.min(left.height / 3), 0, 0]);
        tables::findings(cx, canvas, a);
        tables::culprits(cx, canvas, b);
        spots(cx, canvas, c);
        let pool = 1;
        let [a, b, c] = stack(right, [workers.min(right.height / 2), pool, 0]);
        tables::workers(cx, canvas, a);
        pool_line(cx, canvas, b);
        tables::types(cx, canvas, c);
        if lanes > 0 {
            timeline::lanes_pane(cx, canvas, Rect { y: area.bottom() - lanes, height: lanes, ..area }, false);
        }
        return;
    }
    let workers = workers.min((area.height * 2 / 5).max(3));
    let [a, b, c] = stack(
        Rect { height: area.height - workers.min(area.height), ..area },
        [findings.min(area.height / 4).max(2), 0, 0],
    );
    tables::findings(cx, canvas, a);
    tables::culprits(cx, canvas, b);
    spots(cx, canvas, c);
    let workers = workers.min(area.height);
    tables::workers(cx, canvas, Rect { y: area.bottom() - workers, height: workers, ..area });
}

/// Three areas, one below the other; those of height 0 share the rest equally.
fn stack(area: Rect, heights: [u16; 3]) -> [Rect; 3] {
    let fixed: u16 = heights.iter().sum::<u16>().min(area.height);
    let open = to_u16(heights.iter().filter(|h| **h == 0).count());
    let mut rest = area.height - fixed;
    let mut parts = open;
    let mut y = area.y;
    heights.map(|wanted| {
        let height = if wanted == 0 {
            let part = rest.div_ceil(parts.max(1));
            rest -= part;
            parts -= 1;
            part
        } else {
            wanted
        };
        let height = height.min(area.bottom().saturating_sub(y));
        let part = Rect { y, height, ..area };
        y += height;
        part
    })
}

fn pool_line(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    canvas.text(
        cx,
        (area.x + area.width.min(2), area.y),
        area.width.saturating_sub(2),
        &["blocking pool: ", &tables::pool_note(cx)].concat(),
        cx.theme.dim,
        Cut::End,
    );
}

fn spots(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    tables::hotspots(cx, canvas, area, List::Functions, &cx.snapshot.hotspots.by_function);
}

/// The focused list of hotspots.
pub(super) fn hotspots(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let of = &cx.snapshot.hotspots;
    let area = tables::tabs(cx, canvas, area, &["by function", "by file:line", "by task type"]);
    match cx.state.focused() {
        Some(List::Lines) => tables::hotspots(cx, canvas, area, List::Lines, &of.by_line),
        Some(List::TypeSpots) => tables::type_spots(cx, canvas, area),
        _ => spots(cx, canvas, area),
    }
}

/// The focused list of blocking, with the stack of its selected row.
pub(super) fn blocking(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let of = &cx.snapshot.blocking;
    let area = tables::tabs(cx, canvas, area, &["by code", "newest", "longest"]);
    let count = cx.state.focused().map_or(0, |list| cx.state.rows(cx.snapshot, list).len());
    // The stack gets the rest of the area.
    let below =
        if area.height >= 12 { area.height.saturating_sub(to_u16(count) + 3).max(area.height * 2 / 5) } else { 0 };
    let upper = Rect { height: area.height - below, ..area };
    let focused = cx.state.focused();
    match focused {
        Some(List::Newest) => tables::intervals(cx, canvas, upper, List::Newest, "BLOCKING, newest first", &of.newest),
        Some(List::Worst) => tables::intervals(cx, canvas, upper, List::Worst, "BLOCKING, longest first", &of.worst),
        _ => tables::culprits(cx, canvas, upper),
    }
    let Some(list) = focused.filter(|_| below > 0) else { return };
    let rows = cx.state.rows(cx.snapshot, list);
    let at = rows.get(cx.state.cursor(list).min(rows.len().saturating_sub(1))).copied();
    let interval = at.and_then(|at| match list {
        List::Newest => of.newest.get(at),
        List::Worst => of.worst.get(at),
        _ => of.culprits.get(at).and_then(|culprit| {
            let alike =
                |row: &&BlockingInterval| row.cause == culprit.cause && row.place.function == culprit.place.function;
            let longest =
                of.worst.iter().find(|row| Some(row.ts) == culprit.jump.ts && Some(row.tid) == culprit.jump.tid);
            let same = of.worst.iter().filter(alike).find(|row| row.task.task_type == culprit.task_type);
            longest.or(same).or_else(|| of.worst.iter().find(alike))
        }),
    });
    stack_of(cx, canvas, Rect { y: area.bottom() - below, height: below, ..area }, interval);
}

/// The stack of a blocking interval, leaf first, own code in bright; and its waker.
fn stack_of(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, interval: Option<&BlockingInterval>) {
    let area = canvas.pane(cx, area, "STACK", "leaf first", None);
    let Some(interval) = interval else {
        return canvas.nothing(cx, area, "no stack was captured");
    };
    let waker = interval.waker.as_ref().map(|waker| ["woken by ", &names::waker(cx.snapshot, waker)].concat());
    let body = Rect { height: area.height.saturating_sub(u16::from(waker.is_some())), ..area };
    if interval.stack.is_empty() {
        canvas.nothing(cx, body, "no stack was captured");
    }
    tables::stack(cx, canvas, body, &interval.stack, |frame, at| frame.origin == Origin::Own || at == 0);
    if let Some(waker) = waker.filter(|_| area.height > 0) {
        canvas.text(
            cx,
            (area.x + area.width.min(2), area.bottom() - 1),
            area.width.saturating_sub(2),
            &waker,
            cx.theme.text,
            Cut::Name,
        );
    }
}

/// Tasks, by type or each.
pub(super) fn tasks(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let area = tables::tabs(cx, canvas, area, &["by type", "each task"]);
    match cx.state.focused() {
        Some(List::Tasks) => tables::tasks(cx, canvas, area),
        _ => tables::types(cx, canvas, area),
    }
}

/// Workers above, the blocking pool below.
pub(super) fn workers(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let pool = to_u16(cx.snapshot.workers.pool.workers.len().max(1) + 2).min(area.height / 2);
    let key = u16::from(area.height > 10);
    tables::workers(cx, canvas, Rect { height: area.height - pool - key, ..area });
    tables::pool(cx, canvas, Rect { y: area.bottom() - pool - key, height: pool, ..area });
    if key > 0 {
        let glyphs = &cx.theme.glyphs;
        let mut x = area.x + area.width.min(2);
        for (glyph, style, name) in [
            (glyphs.blocked, cx.theme.warning, "asleep inside a task"),
            (glyphs.running, cx.theme.good, "running"),
            (glyphs.waiting, cx.theme.caution, "waiting for a CPU"),
            (glyphs.idle, cx.theme.dim, "idle"),
        ] {
            canvas.glyph(x, area.bottom() - 1, glyph, style);
            let used = canvas.text(cx, (x + 2, area.bottom() - 1), 24, name, cx.theme.dim, Cut::End);
            x = x.saturating_add(used + 4);
        }
    }
}

/// Findings above, the evidence of one below.
pub(super) fn findings(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let below = (area.height / 2).min(14);
    tables::findings(cx, canvas, Rect { height: area.height - below, ..area });
    tables::finding(cx, canvas, Rect { y: area.bottom() - below, height: below, ..area });
}

/// A task's page.
pub(super) fn task(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    task::draw(cx, canvas, area);
}
