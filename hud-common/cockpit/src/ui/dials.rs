//! The dials of the overview: each figure with its limit and the last 60 seconds.

use ratatui::{layout::Rect, style::Style};

use crate::{Dial, Thresholds};

use super::{
    figures::is_partial,
    format::{count, nanos, round, share},
    paint::{Canvas, Cx, eighth},
    text::Cut,
};

/// Time of the sparklines (s).
const SPAN: i64 = 60;
/// Shares of the workers' time above which a dial is amber (thousandths). No rule judges them.
const BUSY: i64 = 900;
const STARVED: i64 = 100;

/// Rows that the dials take on a screen of this size.
pub(super) fn height(area: Rect) -> u16 {
    match (area.width, area.height) {
        (110.., 48..) => 4,
        (110.., 20..) | (60.., 16..) => 3,
        _ => 0,
    }
}

fn percent(thousandths: i64) -> String {
    format!("{} %", thousandths / 10)
}

/// What a dial shows.
struct Face {
    name: &'static str,
    /// Where there is little room.
    short: &'static str,
    /// From which value on it is amber, and red.
    limits: Option<(i64, i64)>,
    streams: &'static [&'static str],
    text: fn(i64) -> String,
    /// How the limit is written.
    limit: fn(i64) -> String,
}

fn face(dial: Dial, thresholds: &Thresholds) -> Face {
    let twice = |limit: i64| Some((limit, limit.saturating_mul(2)));
    match dial {
        Dial::PollRate => Face {
            name: "polls per second",
            short: "polls/s",
            limits: None,
            streams: &["polls"],
            text: count,
            limit: count,
        },
        Dial::PollTime => Face {
            name: "poll p99",
            short: "poll p99",
            limits: Some((thresholds.long_poll, thresholds.very_long_poll)),
            streams: &["polls"],
            text: nanos,
            limit: round,
        },
        Dial::WakeDelay => Face {
            name: "wake to poll p99",
            short: "wake p99",
            limits: twice(thresholds.wake_delay_p99),
            streams: &["polls", "wakes"],
            text: nanos,
            limit: round,
        },
        Dial::Busy => Face {
            name: "workers busy",
            short: "busy",
            limits: Some((BUSY, i64::MAX)),
            streams: &["off_cpu"],
            text: share,
            limit: percent,
        },
        Dial::Starved => Face {
            name: "short of CPU",
            short: "no CPU",
            limits: twice(STARVED),
            streams: &["off_cpu"],
            text: share,
            limit: percent,
        },
        Dial::Blocked => Face {
            name: "workers blocked",
            short: "blocked",
            limits: twice(thresholds.worker_blocked),
            streams: &["off_cpu"],
            text: share,
            limit: percent,
        },
    }
}

/// The dials: side by side, or two in a row.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    if area.height < 3 {
        return;
    }
    let is_wide = area.width >= 110;
    let (columns, rows) = if is_wide { (6, area.height) } else { (2, 1) };
    let wide = area.width / columns;
    for (at, dial) in (0..).zip(Dial::ALL) {
        let x = area.x + at % columns * wide + 1;
        let y = area.y + at / columns * rows;
        let of = Rect { x, y, width: wide.saturating_sub(2), height: rows };
        if is_wide {
            large(cx, canvas, of, dial);
        } else {
            small(cx, canvas, of, dial);
        }
    }
}

fn value(cx: &Cx<'_>, dial: Dial, face: &Face) -> (String, Style) {
    let Some(value) = cx.snapshot.dials.get(dial) else { return ("-".into(), cx.theme.dim) };
    // A rate and a percentile of what was recorded are estimates of all.
    let mark = if is_partial(cx.snapshot, face.streams) { "~" } else { "" };
    (format!("{mark}{}", (face.text)(value)), style(cx, face, value).unwrap_or(cx.theme.bright))
}

/// The colour of a value past its limit.
fn style(cx: &Cx<'_>, face: &Face, value: i64) -> Option<Style> {
    match face.limits? {
        (_, warning) if value >= warning => Some(cx.theme.warning),
        (caution, _) if value >= caution => Some(cx.theme.caution),
        _ => None,
    }
}

/// The limit in `room` cells; a value at it is amber.
fn limit(face: &Face, room: u16) -> String {
    let Some((limit, _)) = face.limits else { return String::new() };
    let text = (face.limit)(limit);
    let long = ["limit ", &text].concat();
    if long.len() <= usize::from(room) { long } else { ["<", &text].concat() }
}

/// One row: name, value, limit, sparkline.
fn small(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, dial: Dial) {
    const NAME: u16 = 8;
    const VALUE: u16 = 9;
    const LIMIT: u16 = 6;
    let face = face(dial, cx.state.thresholds());
    let (text, style) = value(cx, dial, &face);
    canvas.text(cx, (area.x, area.y), NAME, face.short, cx.theme.text, Cut::End);
    let at = Rect { x: area.x + NAME, width: VALUE, height: 1, ..area };
    canvas.text_right(cx, at, &text, style);
    let mut x = at.right() + 1;
    canvas.text(
        cx,
        (x, area.y),
        LIMIT.min(area.right().saturating_sub(x)),
        &limit(&face, LIMIT),
        cx.theme.dim,
        Cut::End,
    );
    x += LIMIT + 1;
    spark(cx, canvas, Rect { x, width: area.right().saturating_sub(x), height: 1, ..area }, dial, &face);
}

/// Name and limit, then the value, then the sparkline.
fn large(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, dial: Dial) {
    let face = face(dial, cx.state.thresholds());
    let (text, style) = value(cx, dial, &face);
    canvas.text(cx, (area.x, area.y), area.width, face.name, cx.theme.text, Cut::End);
    let below = Rect { y: area.y + 1, height: 1, ..area };
    let used = canvas.text(cx, (below.x, below.y), below.width, &text, style, Cut::End);
    let rest = Rect { x: below.x + used + 1, width: below.width.saturating_sub(used + 1), ..below };
    canvas.text_right(cx, rest, &limit(&face, rest.width), cx.theme.dim);
    spark(cx, canvas, Rect { y: area.y + 2, height: area.height - 2, ..area }, dial, &face);
}

/// The last minute: as high as the greatest value, and at least as the limit; blank where nothing is known.
fn spark(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, dial: Dial, face: &Face) {
    if area.is_empty() {
        return;
    }
    let values = cx.strip.trend(dial, cx.snapshot.at, SPAN, area.width);
    let least = face.limits.map_or(1, |(limit, _)| limit).max(1);
    let most = values.iter().flatten().copied().max().unwrap_or(0).max(least);
    for (x, value) in (area.x..).zip(values) {
        let Some(value) = value else { continue };
        let all = i128::from(area.height) * 8;
        let eighths = i64::try_from(i128::from(value.max(0)) * all / i128::from(most)).unwrap_or(0);
        let style = style(cx, face, value).unwrap_or(if value > 0 { cx.theme.accent } else { cx.theme.dim });
        for up in 0..area.height {
            let left = eighths - i64::from(up) * 8;
            if left > 0 || up == 0 {
                canvas.glyph(x, area.bottom() - 1 - up, eighth(&cx.theme.glyphs.heights, left), style);
            }
        }
    }
}
