//! The timeline: a lane per worker, coloured by type of task, with long intervals marked.

use ratatui::{layout::Rect, style::Style};

use crate::{Lane, Role, Span, SpanKind, TypeId};

use super::{
    format::{nanos, round, since, time_of_day_ms},
    names,
    paint::{Canvas, Cx, eighth, scaled, to_u16},
    state::{Hit, List},
    tables::none_of,
    text::{Cut, width},
};

/// Cells that a lane's name takes.
const LABEL: u16 = 11;

/// What a worker did in a span, the most important first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Asleep,
    Long,
    Waiting,
    Poll,
}

/// The spans within a column of a lane: their time by [`Kind`], and the type of the longest one that was polled.
#[derive(Clone, Copy, Default)]
struct Column {
    times: [i64; 4],
    longest: i64,
    task_type: Option<TypeId>,
}

impl Column {
    const KINDS: [Kind; 4] = [Kind::Asleep, Kind::Long, Kind::Waiting, Kind::Poll];

    fn add(&mut self, span: &Span, overlap: i64) {
        let [asleep, long, waiting, poll] = &mut self.times;
        let time = match (span.kind, span.is_long) {
            (SpanKind::Asleep, _) => asleep,
            (SpanKind::Poll, true) => long,
            (SpanKind::Waiting, _) => waiting,
            (SpanKind::Poll, false) => poll,
        };
        *time = time.saturating_add(overlap);
        if span.kind == SpanKind::Poll && overlap > self.longest {
            (self.longest, self.task_type) = (overlap, span.task.task_type.as_ref().map(|of| of.id));
        }
    }

    /// The kind that took at least half of the column, else the most important of those whose share of it can be drawn; and its
    /// time. A sleep lies within a poll.
    fn most(&self, column: i64, height: u16) -> Option<(Kind, i64)> {
        let [asleep, long, waiting, poll] = self.times;
        let within = asleep.saturating_add(waiting);
        let times = [asleep, long.saturating_sub(within).max(0), waiting, poll.saturating_sub(within).max(0)];
        let mut kinds = Self::KINDS.into_iter().zip(times);
        let most = kinds.clone().find(|(_, time)| *time > 0 && time.saturating_mul(2) >= column);
        most.or_else(|| kinds.find(|(_, time)| eighths(*time, column, height) > 0))
    }
}

/// A share of a column in eighths of a cell, rounded.
fn eighths(time: i64, column: i64, height: u16) -> i64 {
    let (column, all) = (column.max(1), i64::from(height) * 8);
    time.clamp(0, column).saturating_mul(all).saturating_add(column / 2) / column
}

/// The time that a column stands for.
fn column_time(x: u16, from: i64, dur: i64, width: u16) -> (i64, i64) {
    let at = |x: i128| i64::try_from(i128::from(dur) * x / i128::from(width.max(1))).unwrap_or(dur);
    (from.saturating_add(at(x.into())), from.saturating_add(at(i128::from(x) + 1)))
}

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
    let note = format!("{} from {}", round(to.saturating_sub(from)), time_of_day_ms(from));
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
    axis(cx, canvas, Rect { y: area.bottom() - 1, height: 1, ..time }, from, to);
    if is_whole {
        canvas.drawn.lanes = Some((time, from, to));
    }
}

fn lane_row(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, lane: &Lane, from: i64, to: i64) {
    let cells = usize::from(area.width);
    let dur = to.saturating_sub(from).max(1);
    let glyphs = &cx.theme.glyphs;
    // The background: load of each step, in the colour of its main type of task.
    for step in &lane.steps {
        let ends = step.ts.saturating_add(crate::Bucket::NANOS);
        if ends <= from || step.ts >= to {
            continue;
        }
        let (x0, x1) = columns(step.ts, ends, from, dur, area.width);
        let load = &step.load;
        let busy = load.share(load.running.saturating_add(load.blocked));
        let style = cx.theme.lane(step.task_type.as_ref().map(|of| of.id));
        let eighths = busy * 8 / 1_000 * i64::from(area.height);
        for x in x0..x1 {
            for up in 0..area.height {
                let y = area.bottom() - 1 - up;
                let left = eighths - i64::from(up) * 8;
                match left {
                    _ if busy == 0 && up == 0 => canvas.glyph(area.x + x, y, glyphs.idle, cx.theme.dim),
                    ..=0 if up == 0 => canvas.glyph(area.x + x, y, eighth(&glyphs.heights, 1), style),
                    ..=0 => {}
                    left => canvas.glyph(area.x + x, y, eighth(&glyphs.heights, left), style),
                }
            }
        }
    }
    // On it the spans, by their share of each column.
    let mut shown = vec![Column::default(); cells];
    for span in &lane.spans {
        let ends = span.ts.saturating_add(span.dur);
        if ends <= from || span.ts >= to {
            continue;
        }
        let (x0, x1) = columns(span.ts, ends, from, dur, area.width);
        for x in x0..x1 {
            let (start, end) = column_time(x, from, dur, area.width);
            let overlap = ends.min(end).saturating_sub(span.ts.max(start)).max(0);
            if let Some(column) = shown.get_mut(usize::from(x)) {
                column.add(span, overlap);
            }
        }
    }
    for (x, column) in (0..area.width).zip(&shown) {
        let (start, end) = column_time(x, from, dur, area.width);
        let Some((kind, overlap)) = column.most(end.saturating_sub(start), area.height) else { continue };
        let (glyph, style) = match kind {
            Kind::Asleep => (glyphs.blocked, cx.theme.warning),
            Kind::Long => (glyphs.long, cx.theme.caution),
            Kind::Waiting => (glyphs.waiting, cx.theme.dim),
            Kind::Poll => (glyphs.running, cx.theme.lane(column.task_type)),
        };
        let is_most = overlap.saturating_mul(2) >= end.saturating_sub(start);
        let eighths = eighths(overlap, end.saturating_sub(start), area.height);
        for up in 0..area.height {
            let (y, left) = (area.bottom() - 1 - up, eighths - i64::from(up) * 8);
            match left {
                _ if is_most => canvas.glyph(area.x + x, y, glyph, style),
                1.. => canvas.glyph(area.x + x, y, eighth(&glyphs.heights, left), style),
                _ => {}
            }
        }
    }
    if let Some((mark, _)) = cx.state.mark().filter(|(mark, _)| (from..to).contains(mark)) {
        let x = area.x + scaled(mark.saturating_sub(from), dur, area.width).min(area.width.saturating_sub(1));
        canvas.buf.set_style(Rect { x, width: 1, ..area }, cx.theme.select);
    }
}

/// The columns that a time range touches: at least one.
fn columns(start: i64, end: i64, from: i64, dur: i64, width: u16) -> (u16, u16) {
    let x0 = scaled(start.saturating_sub(from).max(0), dur, width).min(width.saturating_sub(1));
    // Rounded up: a partly covered last column counts.
    let reach = i128::from(end.saturating_sub(from).clamp(0, dur)) * i128::from(width);
    let x1 = u16::try_from((reach + i128::from(dur) - 1) / i128::from(dur)).unwrap_or(width).min(width);
    (x0, x1.max(x0 + 1).min(width))
}

/// Least number of cells from one time on the axis to the next.
const TICK: i64 = 14;
/// Steps of the axis from a second on (s).
const STEPS: [i64; 16] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 18_000, 43_200];
const SECOND: i64 = 1_000_000_000;

/// The step of an axis: 1, 2 or 5 of a power of ten below a second, above it what clocks are divided by.
fn tick(dur: i64, width: u16) -> i64 {
    let least = i128::from(dur) * i128::from(TICK) / i128::from(width.max(1));
    let below = (0..9).flat_map(|power| [1, 2, 5].map(|n| n * 10_i64.pow(power)));
    let above = STEPS.into_iter().map(|seconds| seconds * SECOND);
    let days = (0..20).map(|n| (86_400 * SECOND) << n.min(16));
    below.chain(above).chain(days).find(|step| i128::from(*step) >= least).unwrap_or(i64::MAX)
}

/// Times below the lanes, from the session's start, at whole steps.
pub(super) fn axis(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, from: i64, to: i64) {
    let dur = to.saturating_sub(from).max(1);
    let start = cx.snapshot.session.start;
    let step = tick(dur, area.width);
    let begin = from.saturating_sub(start);
    let mut at = begin.div_euclid(step).saturating_mul(step);
    if at < begin {
        at = at.saturating_add(step);
    }
    while at < begin.saturating_add(dur) {
        let x = i128::from(at.saturating_sub(begin)) * i128::from(area.width) / i128::from(dur);
        let x = area.x.saturating_add(u16::try_from(x).unwrap_or(u16::MAX));
        let label = tick_label(at, step);
        let room = area.right().saturating_sub(x);
        // No half a time at the right edge.
        if usize::from(room) > label.len() {
            canvas.text(cx, (x, area.y), room, &format!("'{label}"), cx.theme.dim, Cut::End);
        }
        at = at.saturating_add(step);
        if at == i64::MAX {
            break;
        }
    }
}

/// A time on the axis with as many decimals as the step needs: `+1:02`, `+1:02.5`, `+1:02.512`.
fn tick_label(at: i64, step: i64) -> String {
    let text = since(at);
    match step {
        SECOND.. => text.rsplit_once('.').map_or(text.clone(), |(whole, _)| whole.into()),
        100_000_000.. => text,
        _ => format!("{text}{:02}", at.saturating_abs() / 1_000_000 % 100),
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
            (time_of_day_ms(span.ts), 13, cx.theme.dim),
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
    let fixed = [
        (glyphs.blocked, cx.theme.warning, "asleep in a task"),
        (glyphs.long, cx.theme.caution, "long poll"),
        (glyphs.waiting, cx.theme.dim, "waiting"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_round_steps() {
        const MS: i64 = 1_000_000;
        for (dur, width, step) in [
            (10 * SECOND, 110, 2 * SECOND),
            (10 * SECOND, 70, 2 * SECOND),
            (60 * SECOND, 110, 10 * SECOND),
            (42_500 * MS, 120, 5 * SECOND),
            (1_250 * MS, 100, 200 * MS),
            (3_600 * SECOND, 100, 600 * SECOND),
            (7 * 86_400 * SECOND, 100, 86_400 * SECOND),
        ] {
            assert_eq!(tick(dur, width), step, "{dur} in {width} cells");
        }
        assert!(tick(i64::MAX, 1) > 0 && tick(0, 0) > 0);
        assert_eq!(tick_label(62 * SECOND, SECOND), "+1:02");
        assert_eq!(tick_label(62_500 * MS, 500 * MS), "+1:02.5");
        assert_eq!(tick_label(62_512 * MS, MS), "+1:02.512");
    }
}
