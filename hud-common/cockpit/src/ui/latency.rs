//! Histograms of durations, with their percentiles.

use ratatui::layout::Rect;

use crate::{Distribution, Histogram};

use super::{
    format::{count_u64, maybe_nanos, nanos, thousandths},
    paint::{Canvas, Cx, to_u16},
    tables::{long_style, none_of, types},
    text::Cut,
};

/// Poll durations, wake-to-poll latencies, and both by type of task.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let below = if area.height >= 18 { area.height / 3 } else { 0 };
    let upper = Rect { height: area.height - below, ..area };
    let half = upper.width / 2;
    let (left, right) = (
        Rect { width: half.saturating_sub(1), ..upper },
        Rect { x: upper.x + half, width: upper.width - half, ..upper },
    );
    histogram(cx, canvas, left, "POLL DURATION", &cx.snapshot.polls, true);
    histogram(cx, canvas, right, "WAKE TO POLL", &cx.snapshot.wake_delay, false);
    if below > 0 {
        types(cx, canvas, Rect { y: area.bottom() - below, height: below, ..area });
    }
}

/// One distribution: its percentiles, then a bar for each doubling of the duration.
pub(super) fn histogram(
    cx: &Cx<'_>,
    canvas: &mut Canvas<'_>,
    area: Rect,
    title: &str,
    of: &Distribution,
    is_poll: bool,
) {
    let area = canvas.pane(cx, area, title, &format!("{} values", count_u64(of.count)), None);
    if of.count == 0 {
        return canvas.nothing(
            cx,
            area,
            &none_of(cx, &[if is_poll { "polls" } else { "wakes" }], "none in this window"),
        );
    }
    if area.is_empty() {
        return;
    }
    let longest = Some(of.longest);
    let figures = [("p50", of.p50), ("p90", of.p90), ("p99", of.p99), ("p99.9", of.p999), ("longest", longest)];
    let mut x = area.x + area.width.min(2);
    let mut y = area.y;
    for (name, ns) in figures {
        let text = format!("{name} {}", maybe_nanos(ns));
        let wide = to_u16(text.len());
        if x + wide > area.right() && x > area.x + 2 {
            x = area.x + 2;
            y += 1;
        }
        if y >= area.bottom() {
            return;
        }
        let style = if is_poll { long_style(cx, ns.unwrap_or(0)) } else { cx.theme.text };
        canvas.text(cx, (x, y), area.right().saturating_sub(x), &text, style, Cut::End);
        x = x.saturating_add(wide + 2);
    }
    let bars = Rect { y: y + 1, height: area.bottom().saturating_sub(y + 1), ..area };
    let mut rows = octaves(&of.histogram);
    // If rows do not fit, neighbours are merged.
    let fits = usize::from(bars.height).max(1);
    let each = rows.len().div_ceil(fits).max(1);
    if each > 1 {
        rows = rows
            .chunks(each)
            .map(|some| {
                let (from, to) = (some.first().map_or(0, |row| row.0), some.last().map_or(0, |row| row.1));
                (from, to, some.iter().fold(0, |n: u64, row| n.saturating_add(row.2)))
            })
            .collect();
    }
    let most = rows.iter().map(|row| row.2).max().unwrap_or(1).max(1);
    let tail = if bars.width > 40 { 14 } else { 9 };
    let bar = Rect { x: bars.x + bars.width.min(10), width: bars.width.saturating_sub(10 + tail), height: 1, ..bars };
    for (at, (from, to, n)) in rows.iter().enumerate().take(usize::from(bars.height)) {
        let y = bars.y + to_u16(at);
        canvas.text_right(cx, Rect { x: bars.x, y, width: bars.width.min(9), height: 1 }, &nanos(*from), cx.theme.dim);
        let style = match long_style(cx, *from) {
            style if is_poll && style != cx.theme.text => style,
            _ => cx.theme.accent,
        };
        let part = thousandths(i64::try_from(*n).unwrap_or(i64::MAX), i64::try_from(most).unwrap_or(i64::MAX));
        // A single poll among millions must be visible.
        canvas.gauge(cx, Rect { y, ..bar }, if *n > 0 { part.max(1) } else { 0 }, style);
        let mut text = count_u64(*n);
        for (name, ns) in [("p50", of.p50), ("p99", of.p99)] {
            if ns.is_some_and(|ns| (*from..=*to).contains(&ns)) && bars.width > 40 {
                text = format!("{name} {text}");
            }
        }
        let wide = bars.width.min(tail);
        canvas.text_right(cx, Rect { x: bars.right() - wide, y, width: wide, height: 1 }, &text, cx.theme.text);
    }
}

/// Counts per doubling, from the first to the last that is not empty: from, to (inclusive), count.
fn octaves(of: &Histogram) -> Vec<(i64, i64, u64)> {
    let mut rows: Vec<(i64, i64, u64)> = Vec::new();
    for &(slot, n) in of.counts() {
        let value = Histogram::range(slot).0.max(1);
        let from = 1_i64 << value.ilog2().min(62);
        loop {
            match rows.last_mut() {
                Some(last) if last.0 == from => {
                    last.2 = last.2.saturating_add(n);
                    break;
                }
                Some(last) if last.0 < from => {
                    let next = last.0.saturating_mul(2);
                    rows.push((next, next.saturating_mul(2).saturating_sub(1), 0));
                }
                Some(_) => break,
                None => rows.push((from, from.saturating_mul(2).saturating_sub(1), 0)),
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_row_and_no_row_is_left_out() {
        let mut of = Histogram::default();
        [0, 1, 3, 1_000, 1_000_000, i64::MAX].into_iter().for_each(|ns| of.record(ns));
        let rows = octaves(&of);
        assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 6);
        assert!(rows.windows(2).all(|pair| matches!(pair, [a, b] if b.0 == a.1 + 1)));
    }
}
