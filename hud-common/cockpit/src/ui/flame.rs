//! The flame graph: callers above, callees below, as wide as their share of CPU time.

use ratatui::{layout::Rect, style::Style};

use crate::{Flame, FlameNode, Origin};

use super::{
    format::{count, nanos, share, thousandths},
    names,
    paint::{Canvas, Cx, to_u16},
    state::{Hit, find},
    tables::none_of,
    text::Cut,
};

/// The flame graph.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let flame = &cx.snapshot.flame;
    let of = flame.task_type.as_ref().map_or("all".into(), |of| of.name.to_string());
    let root_total = flame.nodes.first().map_or(0, |root| root.total);
    let mut note = format!("{} of CPU, t: next type", nanos(root_total));
    if flame.left_out > 0 {
        note = format!("{} of CPU, {} of it in nodes left out", nanos(root_total), nanos(flame.left_out));
    }
    let area = canvas.pane(cx, area, &format!("FLAME GRAPH of {of}"), &note, None);
    if root_total <= 0 || area.height < 2 {
        return canvas.nothing(cx, area, &none_of(cx, &["samples"], "no CPU sample in this window"));
    }
    let zoomed = find(flame, cx.state.flame_path().get(..cx.state.flame_zoom()).unwrap_or_default());
    let selected = find(flame, cx.state.flame_path());
    let starts = starts(flame);
    let (from, whole) = (
        starts.get(zoomed).copied().unwrap_or(0),
        flame.nodes.get(zoomed).map_or(root_total, |node| node.total).max(1),
    );
    let body = Rect { height: area.height - 1, ..area };
    // Deeper than the screen: the selected node stays visible.
    let depth = flame.nodes.get(selected).map_or(0, |node| node.depth);
    let first = depth.saturating_sub(u32::from(body.height) * 2 / 3);
    let end = from.saturating_add(whole);
    for (at, (node, start)) in flame.nodes.iter().zip(&starts).enumerate() {
        let stop = start.saturating_add(node.total);
        let Some(row) = node.depth.checked_sub(first).and_then(|row| u16::try_from(row).ok()) else { continue };
        if row >= body.height || stop <= from || *start >= end {
            continue;
        }
        let x0 = cell_of((*start).max(from).saturating_sub(from), whole, body.width);
        let x1 = cell_of(stop.min(end).saturating_sub(from), whole, body.width);
        let area = Rect { x: body.x + x0, y: body.y + row, width: x1.saturating_sub(x0), height: 1 };
        if !area.is_empty() {
            paint_node(cx, canvas, area, node, at == selected);
            canvas.drawn.hits.push((area, Hit::Node(at)));
        }
    }
    if let Some(node) = flame.nodes.get(selected) {
        details(cx, canvas, Rect { y: area.bottom() - 1, height: 1, ..area }, node, root_total);
    }
}

fn paint_node(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, node: &FlameNode, is_selected: bool) {
    let name = if node.depth == 0 { "all" } else { names::function(&node.function) };
    let style = match (is_selected, node.origin) {
        (true, _) => cx.theme.title.patch(cx.theme.select),
        (_, Origin::Own) => cx.theme.bright,
        (_, origin) => cx.theme.origin(origin),
    };
    let glyph = match node.origin {
        Origin::Own => cx.theme.glyphs.running,
        _ => cx.theme.glyphs.waiting,
    };
    // Each node starts with a mark, so that neighbours differ without colours.
    canvas.glyph(area.x, area.y, glyph, if node.origin == Origin::Own { cx.theme.accent } else { cx.theme.dim });
    let used = canvas.text(cx, (area.x + 1, area.y), area.width.saturating_sub(2), name, style, Cut::Name);
    for x in area.x + 1 + used..area.right() {
        canvas.glyph(x, area.y, cx.theme.glyphs.rule, cx.theme.dim);
    }
    if is_selected {
        canvas.buf.set_style(area, Style::new().patch(cx.theme.select));
    }
}

fn details(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, node: &FlameNode, whole: i64) {
    let name = if node.depth == 0 { "all" } else { names::function(&node.function) };
    let figures = format!(
        "total {} {}  self {} {}  {}",
        share(thousandths(node.total, whole)),
        nanos(node.total),
        share(thousandths(node.own, whole)),
        nanos(node.own),
        names::file_line(node.file.as_ref(), None),
    );
    let used = canvas.text_right(
        cx,
        Rect { width: area.width * 2 / 3, x: area.x + area.width - area.width * 2 / 3, ..area },
        &figures,
        cx.theme.text,
    );
    let samples = cx.snapshot.hotspots.samples;
    let room = area.width.saturating_sub(used + 2);
    let text = if node.depth == 0 { format!("{name}, {} samples", count(samples)) } else { name.to_string() };
    canvas.text(cx, (area.x, area.y), room, &text, cx.theme.bright, Cut::Name);
}

/// The start of each node, in CPU time from the root's start.
fn starts(flame: &Flame) -> Vec<i64> {
    let mut next: Vec<i64> = vec![0];
    flame
        .nodes
        .iter()
        .map(|node| {
            let depth = usize::try_from(node.depth).unwrap_or(0).min(flame.nodes.len());
            next.resize(next.len().max(depth + 2), 0);
            let start = next.get(depth).copied().unwrap_or(0);
            if let Some(after) = next.get_mut(depth) {
                *after = start.saturating_add(node.total);
            }
            if let Some(below) = next.get_mut(depth + 1) {
                *below = start;
            }
            start
        })
        .collect()
}

fn cell_of(part: i64, whole: i64, cells: u16) -> u16 {
    to_u16(
        usize::try_from((i128::from(part) * i128::from(cells) + i128::from(whole) / 2) / i128::from(whole.max(1)))
            .unwrap_or(0),
    )
    .min(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(function: &str, depth: u32, total: i64) -> FlameNode {
        FlameNode { function: function.into(), file: None, origin: Origin::Own, depth, own: 0, total }
    }

    #[test]
    fn nodes_start_where_their_siblings_end() {
        let nodes =
            vec![node("", 0, 10), node("a", 1, 6), node("c", 2, 6), node("b", 1, 4), node("c", 2, 3), node("d", 2, 1)];
        let flame = Flame { task_type: None, nodes, left_out: 0 };
        assert_eq!(starts(&flame), [0, 0, 0, 6, 6, 9]);
    }
}
