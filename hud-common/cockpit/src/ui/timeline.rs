//! The timeline: a lane per worker. A column's height is the share of the time in which the worker was not idle, its colour
//! what took most of that; a tick marks intervals past the limit.

use ratatui::{layout::Rect, style::Style};

use crate::{Activity, Lane, LaneColumn, Role, Span, SpanKind, Status, lane_cells};

use super::{
    axis,
    format::{nanos, round},
    names,
    paint::{Canvas, Cx, eighth, scaled, to_u16},
    state::{Hit, List},
    tables::none_of,
    text::{Cut, width},
};

/// Cells that a lane's name takes.
const LABEL: u16 = 11;

/// The timeline, and the spans at the mark.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let details = if area.height >= 16 { (area.height / 3).clamp(4, 14) } else { 0 };
    let (lanes, below) =
        (Rect { height: area.height - details, ..area }, Rect { y: area.bottom() - details, height: details, ..area });
    lanes_pane(cx, canvas, lanes, true);
    if details > 0 {
        longest(cx, canvas, below);
    }
}

/// The lanes alone.
pub(super) fn lanes_pane(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, is_whole: bool) {
    let timeline = &cx.snapshot.timeline;
    let (from, to) = cx.state.lens(cx.snapshot);
    let note = format!("{} from {}", round(to.saturating_sub(from)), cx.millis(from));
    let area = canvas.pane(cx, area, "TIMELINE", &note, is_whole.then_some(List::Lanes));
    if timeline.lanes.is_empty() || area.height < 2 {
        return canvas.nothing(cx, area, &none_of(cx, &["off_cpu"], "no worker was seen in this window"));
    }
    let label = LABEL.min(area.width / 3);
    let time = Rect { x: area.x + label, width: area.width - label, ..area };
    if time.width == 0 {
        return;
    }
    let body = Rect { height: area.height - 1, ..area };
    let count = timeline.lanes.len();
    // Lanes are as high as there is room, up to three rows.
    let each = (body.height / to_u16(count).max(1)).clamp(1, 3);
    let height = usize::from(body.height / each).max(1);
    let cursor = match cx.state.lane().and_then(|tid| timeline.lanes.iter().position(|lane| lane.tid == tid)) {
        Some(at) => at,
        None => cx.state.cursor(List::Lanes).min(count - 1),
    };
    let offset = cursor.saturating_add(1).saturating_sub(height).min(count.saturating_sub(height));
    if let Some(scroll) = canvas.drawn.scrolls.get_mut(List::Lanes.index()).filter(|_| is_whole) {
        *scroll = (offset, height);
    }
    for (line, (at, lane)) in timeline.lanes.iter().enumerate().skip(offset).take(height).enumerate() {
        let y = body.y + to_u16(line) * each;
        let row = Rect { y, height: each, ..time };
        let is_here = is_whole && at == cursor;
        let name = match lane.role {
            Role::Blocking => format!("p{}", lane.tid),
            _ => names::seat(cx.snapshot, lane.runtime, lane.worker, lane.tid),
        };
        let style = if is_here { cx.theme.title } else { cx.theme.text };
        if is_here {
            canvas.glyph(area.x, y, cx.theme.glyphs.cursor, style);
        }
        canvas.text(cx, (area.x + 2.min(label), y), label.saturating_sub(3), &name, style, Cut::Name);
        lane_row(cx, canvas, row, lane, from, to);
        if is_whole {
            canvas.drawn.hits.push((row, Hit::Lane(at)));
        }
    }
    axis::draw(cx, canvas, Rect { y: area.bottom() - 1, height: 1, ..time }, from, to);
    if is_whole {
        canvas.drawn.lanes = Some((time, from, to));
    }
}

fn lane_row(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, lane: &Lane, from: i64, to: i64) {
    let dur = to.saturating_sub(from).max(1);
    let columns = lane.columns(from, to, area.width, cx.state.thresholds());
    let time = (dur / i64::from(area.width.max(1))).max(1);
    for (x, column) in (area.x..).zip(&columns) {
        column_cells(cx, canvas, Rect { x, width: 1, ..area }, lane.role, column, time);
    }
    if let Some((mark, _)) = cx.state.mark().filter(|(mark, _)| (from..to).contains(mark)) {
        let x = area.x + scaled(mark.saturating_sub(from), dur, area.width).min(area.width.saturating_sub(1));
        canvas.buf.set_style(Rect { x, width: 1, ..area }, cx.theme.select);
    }
}

fn column_cells(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, role: Role, column: &LaneColumn, time: i64) {
    let glyphs = &cx.theme.glyphs;
    // The blocking pool's purpose is to block.
    let over = column.over.filter(|_| role == Role::Worker);
    let mark = over.map(|over| cx.theme.ink(over));
    let has_tick = area.height > 1;
    let style = |activity| match (activity, mark) {
        // Without room for a tick, the colour of the bar tells.
        (Activity::Running, Some(mark)) if !has_tick => mark,
        _ => style(cx, role, column, activity),
    };
    let mut top = None;
    for (up, cell) in (0..area.height).zip(lane_cells(&column.load, time, area.height)) {
        let y = area.bottom() - 1 - up;
        let Some(cell) = cell else {
            if up == 0 && column.load.idle > 0 {
                canvas.glyph(area.x, y, glyphs.idle, cx.theme.dim);
            }
            continue;
        };
        let mut ink = style(cell.activity);
        if let Some(above) = cell.above {
            ink.bg = style(above).fg;
        }
        // Without colours, what a column is full of shows by its glyph.
        let glyph = match (cell.activity, cell.eighths) {
            (Activity::Blocked, 8) if !cx.theme.has_boxes() => glyphs.blocked,
            (Activity::Waiting, 8) if !cx.theme.has_boxes() => glyphs.waiting,
            (_, eighths) => eighth(&glyphs.heights, eighths),
        };
        canvas.glyph(area.x, y, glyph, ink);
        top = Some((up, cell, ink));
    }
    let Some(mark) = mark.filter(|_| has_tick) else { return };
    match top {
        Some((up, cell, ink)) if up + 1 == area.height => {
            // Above what nearly fills the lane, the tick takes the place of its last part.
            let under = if cell.eighths >= 4 { ink.fg } else { None };
            canvas.glyph(area.x, area.y, glyphs.tick, Style { bg: under, ..mark });
        }
        _ => canvas.glyph(area.x, area.y, glyphs.tick, mark),
    }
}

/// The colour of an activity: running has that of the type of task.
fn style(cx: &Cx<'_>, role: Role, column: &LaneColumn, activity: Activity) -> Style {
    match (role, activity) {
        (Role::Worker, Activity::Blocked) => cx.theme.warning,
        (Role::Worker, Activity::Running) if column.task_type.is_some() => cx.theme.lane(column.task_type),
        (Role::Worker, Activity::Running) => cx.theme.good,
        (_, Activity::Running) => cx.theme.text,
        _ => cx.theme.dim,
    }
}

/// The longest spans of the selected lane, or those at the mark.
fn longest(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let timeline = &cx.snapshot.timeline;
    let lane = match cx.state.lane().and_then(|tid| timeline.lanes.iter().find(|lane| lane.tid == tid)) {
        Some(lane) => Some(lane),
        None => timeline.lanes.get(cx.state.cursor(List::Lanes).min(timeline.lanes.len().saturating_sub(1))),
    };
    let (from, to) = cx.state.mark().unwrap_or_else(|| cx.state.lens(cx.snapshot));
    let mut spans: Vec<&Span> = lane.map_or(Vec::new(), |lane| {
        lane.spans.iter().filter(|span| span.ts < to && span.ts.saturating_add(span.dur) > from).collect()
    });
    spans.sort_by_key(|span| (span.dur.saturating_neg(), span.ts));
    let name = lane.map_or(String::new(), |lane| names::seat(cx.snapshot, lane.runtime, lane.worker, lane.tid));
    let title = if cx.state.mark().is_some() { format!("AT THE MARK, {name}") } else { format!("LONGEST, {name}") };
    let mut note = format!("polls from {}", nanos(timeline.span_min));
    if let Some(left_out) = lane.map(|lane| lane.left_out).filter(|n| *n > 0) {
        note.push_str(&format!(", {left_out} shorter left out"));
    }
    let area = canvas.pane(cx, area, &title, &note, None);
    if spans.is_empty() {
        return canvas.nothing(cx, area, "no span of this length here");
    }
    let legend = u16::from(area.height > 3);
    for (at, span) in spans.iter().enumerate().take(usize::from(area.height - legend)) {
        let y = area.y + to_u16(at);
        let (what, style): (&str, Style) = match (span.kind, span.is_long) {
            (SpanKind::Asleep, _) => ("asleep", cx.theme.warning),
            (SpanKind::Waiting, _) => ("waiting", cx.theme.dim),
            (SpanKind::Poll, true) => ("long poll", cx.theme.caution),
            (SpanKind::Poll, false) => ("poll", cx.theme.text),
        };
        let mut x = area.x + 2;
        for (text, wide, style) in [
            (cx.millis(span.ts), 13, cx.theme.dim),
            (nanos(span.dur), 9, style),
            (what.to_string(), 10, style),
            (
                names::task(&span.task),
                area.right().saturating_sub(x + 32),
                cx.theme.lane(span.task.task_type.as_ref().map(|of| of.id)),
            ),
        ] {
            let room = wide.min(area.right().saturating_sub(x));
            canvas.text(cx, (x, y), room, &text, style, Cut::Name);
            x += room;
        }
    }
    if legend > 0 {
        key(cx, canvas, Rect { y: area.bottom() - 1, height: 1, ..area });
    }
}

/// The legend of marks and colours.
fn key(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let glyphs = &cx.theme.glyphs;
    let glyph = |without| if cx.theme.has_boxes() { glyphs.running } else { without };
    let fixed = [
        (glyphs.tick, cx.theme.ink(Status::Warning), "over the limit"),
        (glyph(glyphs.blocked), cx.theme.warning, "asleep in a task"),
        (glyph(glyphs.waiting), cx.theme.dim, "waiting for a CPU"),
    ];
    let mut x = area.x + 2;
    let types = cx.snapshot.types.iter().filter_map(|row| row.task_type.as_ref()).take(8);
    let types = types.map(|of| (glyphs.running, cx.theme.lane(Some(of.id)), of.name.as_str()));
    for (glyph, style, name) in fixed.into_iter().chain(types) {
        let shown = super::text::fit(name, 24, Cut::Name, glyphs.ellipsis);
        let wide = to_u16(width(&shown));
        if x + wide + 4 > area.right() {
            break;
        }
        canvas.glyph(x, area.y, glyph, style);
        canvas.text(cx, (x + 2, area.y), wide, &shown, cx.theme.dim, Cut::End);
        x += wide + 4;
    }
}
