//! The flame graph: callers above, callees below, boxes as wide as their share of the time, coloured by origin.

use std::ops::Range;

use ratatui::{layout::Rect, style::Style};

use crate::{Flame, FlameKind, FlameNode, Origin, filter::Filter};

use super::{
    format::{count, nanos, share, thousandths},
    names,
    paint::{Canvas, Cx, to_u16},
    state::{Hit, find},
    tables::none_of,
    text::Cut,
};

/// Boxes narrower than this are packed with their neighbours.
const NARROW: u16 = 3;

/// The flame graph.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let flame = &cx.snapshot.flame;
    let of = flame.task_type.as_ref().map_or("all tasks and threads".into(), |of| of.name.to_string());
    let root_total = flame.nodes.first().map_or(0, |root| root.total);
    let (title, streams, nothing): (_, &[&str], _) = match flame.kind {
        FlameKind::Cpu => ("CPU TIME", &["samples"], "no CPU sample in this window"),
        FlameKind::OffCpu => ("TIME ASLEEP in tasks", &["off_cpu"], "no task slept in this window"),
    };
    let filter = Filter::of(cx.state.filter());
    let area = canvas.pane(cx, area, &format!("{title} of {of}"), &note(flame, root_total, &filter), None);
    if root_total <= 0 || area.height < 2 {
        return canvas.nothing(cx, area, &none_of(cx, streams, nothing));
    }
    let zoomed = find(flame, cx.state.flame_path().get(..cx.state.flame_zoom()).unwrap_or_default());
    let selected = find(flame, cx.state.flame_path());
    let starts = starts(flame);
    let (from, whole) = (
        starts.get(zoomed).copied().unwrap_or(0),
        flame.nodes.get(zoomed).map_or(root_total, |node| node.total).max(1),
    );
    let legend = u16::from(area.height > 10);
    let body = Rect { height: area.height - 1 - legend, ..area };
    // Deeper than the screen: the selected node stays visible.
    let depth = flame.nodes.get(selected).map_or(0, |node| node.depth);
    let first = depth.saturating_sub(u32::from(body.height) * 2 / 3);
    let end = from.saturating_add(whole);
    let place = |at: usize| -> Option<(u16, u16)> {
        let (node, start) = (flame.nodes.get(at)?, *starts.get(at)?);
        let stop = start.saturating_add(node.total);
        if stop <= from || start >= end {
            return None;
        }
        let x0 = cell_of(start.max(from).saturating_sub(from), whole, body.width);
        Some((x0, cell_of(stop.min(end).saturating_sub(from), whole, body.width)))
    };
    let mut at = 0;
    while let Some(node) = flame.nodes.get(at) {
        let Some((x0, x1)) = place(at) else {
            at = after(flame, at);
            continue;
        };
        // Siblings are sorted by their time, so narrow ones follow each other.
        let packed = if x1 - x0 < NARROW { pack(flame, at, &place) } else { at..at + 1 };
        let row = node.depth.checked_sub(first).and_then(|row| u16::try_from(row).ok());
        let is_many = packed.len() > 1 && after(flame, at) < packed.end;
        let x1 = if is_many { last_cell(flame, &packed, &place).unwrap_or(x1) } else { x1 };
        if let Some(row) = row.filter(|row| *row < body.height && x1 > x0) {
            let area = Rect { x: body.x + x0, y: body.y + row, width: x1 - x0, height: 1 };
            let is_selected = if is_many { packed.contains(&selected) } else { at == selected };
            if is_many {
                paint_pack(cx, canvas, area, (flame, &packed), is_selected, &filter);
            } else {
                paint_node(cx, canvas, area, node, is_selected, &filter);
            }
            canvas.drawn.hits.push((area, Hit::Node(at)));
        }
        at = packed.end;
    }
    if legend > 0 {
        key(cx, canvas, Rect { y: area.bottom() - 2, height: 1, ..area });
    }
    if let Some(node) = flame.nodes.get(selected) {
        details(cx, canvas, Rect { y: area.bottom() - 1, height: 1, ..area }, node, root_total);
    }
}

fn note(flame: &Flame, total: i64, filter: &Filter) -> String {
    let mut note = match flame.kind {
        FlameKind::Cpu => format!("{} of CPU", nanos(total)),
        FlameKind::OffCpu => format!("{} asleep", nanos(total)),
    };
    if !filter.is_empty() {
        note = format!("{} of {note} matches", share(thousandths(matched(flame, filter), total)));
    }
    if flame.left_out > 0 {
        note.push_str(&format!(", {} in nodes left out", nanos(flame.left_out)));
    }
    note
}

fn matches(filter: &Filter, node: &FlameNode) -> bool {
    !filter.is_empty() && node.depth > 0 && filter.passes([node.function.as_str()])
}

/// Time of the stacks with a function that matches.
fn matched(flame: &Flame, filter: &Filter) -> i64 {
    let (mut at, mut sum) = (0, 0_i64);
    while let Some(node) = flame.nodes.get(at) {
        // What is below a match is in its time.
        let is_match = matches(filter, node);
        sum = sum.saturating_add(if is_match { node.total } else { 0 });
        at = if is_match { after(flame, at) } else { at + 1 };
    }
    sum
}

/// The first node that is not below this one.
fn after(flame: &Flame, at: usize) -> usize {
    let Some(depth) = flame.nodes.get(at).map(|node| node.depth) else { return at + 1 };
    let below = flame.nodes.iter().skip(at + 1).take_while(|node| node.depth > depth).count();
    at + 1 + below
}

/// The narrow siblings from this node on, with all that is below them.
fn pack(flame: &Flame, first: usize, place: &impl Fn(usize) -> Option<(u16, u16)>) -> Range<usize> {
    let depth = flame.nodes.get(first).map(|node| node.depth);
    let mut end = first;
    loop {
        let is_sibling = flame.nodes.get(end).map(|node| node.depth) == depth;
        if !is_sibling || place(end).is_some_and(|(x0, x1)| x1 - x0 >= NARROW) {
            return first..end.max(first + 1);
        }
        end = after(flame, end);
    }
}

/// The cell past the last sibling of a pack.
fn last_cell(flame: &Flame, pack: &Range<usize>, place: &impl Fn(usize) -> Option<(u16, u16)>) -> Option<u16> {
    siblings(flame, pack).filter_map(place).map(|(_, x1)| x1).max()
}

fn siblings<'a>(flame: &'a Flame, pack: &'a Range<usize>) -> impl Iterator<Item = usize> + 'a {
    let depth = flame.nodes.get(pack.start).map(|node| node.depth);
    pack.clone().filter(move |at| flame.nodes.get(*at).map(|node| node.depth) == depth)
}

/// A filled box with a text; without colours, its edge and a line.
fn paint_box(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, text: &str, (style, edge): (Style, Style)) {
    let is_filled = style.bg.is_some() || !style.add_modifier.is_empty();
    for x in area.left()..area.right() {
        canvas.glyph(x, area.y, if is_filled { ' ' } else { cx.theme.glyphs.rule }, style);
    }
    canvas.glyph(area.x, area.y, cx.theme.glyphs.edge, edge);
    canvas.text(cx, (area.x + 1, area.y), area.width.saturating_sub(1), text, style, Cut::Name);
}

fn paint_node(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, node: &FlameNode, is_selected: bool, filter: &Filter) {
    let name = match (node.depth, node.folded) {
        (0, _) => "all".to_string(),
        (_, 0) => names::function(&node.function).to_string(),
        (_, frames) => format!("{} ({frames} frames) {}", node.function, cx.theme.glyphs.folded),
    };
    let filled = cx.theme.filled(node.origin);
    let style = match (is_selected, matches(filter, node)) {
        // The root is selected as the screen opens: it does not stand out.
        (true, _) if node.depth == 0 => cx.theme.title.patch(cx.theme.select),
        (true, _) => cx.theme.picked,
        (false, true) => cx.theme.matched,
        _ if cx.theme.has_boxes() => filled,
        _ => cx.theme.origin(node.origin),
    };
    paint_box(cx, canvas, area, &name, (style, edge(cx, style)));
}

/// The edge of a box: the ground's colour on that of the box.
fn edge(cx: &Cx<'_>, style: Style) -> Style {
    match style.bg {
        Some(_) => Style { fg: cx.theme.ground(), ..style },
        None => cx.theme.dim,
    }
}

fn paint_pack(
    cx: &Cx<'_>,
    canvas: &mut Canvas<'_>,
    area: Rect,
    (flame, pack): (&Flame, &Range<usize>),
    is_selected: bool,
    filter: &Filter,
) {
    let of = || siblings(flame, pack).filter_map(|at| flame.nodes.get(at));
    let total = of().fold(0_i64, |sum, node| sum.saturating_add(node.total));
    let whole = flame.nodes.first().map_or(0, |root| root.total);
    let style = match is_selected {
        true => cx.theme.picked,
        false if flame.nodes.get(pack.clone()).unwrap_or_default().iter().any(|node| matches(filter, node)) => {
            cx.theme.matched
        }
        false if cx.theme.has_boxes() => cx.theme.filled(Origin::Unknown),
        false => cx.theme.dim,
    };
    let many = to_u16(of().count());
    let text = format!("{many} more, {}", share(thousandths(total, whole)));
    let text = match usize::from(area.width) {
        room if room > text.len() => text,
        room if room > many.to_string().len() + 1 => format!("+{many}"),
        _ => String::new(),
    };
    paint_box(cx, canvas, area, &text, (style, edge(cx, style)));
}

/// The colours of origins.
fn key(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let mut x = area.x + area.width.min(1);
    for (origin, name) in [
        (Origin::Own, "own code"),
        (Origin::Dependency, "dependency"),
        (Origin::Tokio, "tokio"),
        (Origin::Std, "std"),
        (Origin::System, "system"),
    ] {
        if x + to_u16(name.len()) + 4 > area.right() || !cx.theme.has_boxes() {
            return;
        }
        canvas.text(cx, (x, area.y), 2, "  ", cx.theme.filled(origin), Cut::End);
        x += 3 + canvas.text(cx, (x + 3, area.y), 12, name, cx.theme.dim, Cut::End) + 2;
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
    let text = match (node.depth, cx.snapshot.flame.kind) {
        (0, FlameKind::Cpu) => format!("{name}, {} samples", count(samples)),
        _ => name.to_string(),
    };
    canvas.text(cx, (area.x, area.y), room, &text, cx.theme.bright, Cut::Name);
}

/// The start of each node, in time from the root's start.
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

    fn flame(nodes: &[(&str, u32, i64)]) -> Flame {
        let node = |(function, depth, total): &(&str, u32, i64)| FlameNode {
            function: (*function).into(),
            file: None,
            origin: Origin::Own,
            depth: *depth,
            own: 0,
            total: *total,
            folded: 0,
        };
        Flame { nodes: nodes.iter().map(node).collect(), ..Flame::default() }
    }

    #[test]
    fn nodes_start_where_their_siblings_end() {
        let flame = flame(&[("", 0, 10), ("a", 1, 6), ("c", 2, 6), ("b", 1, 4), ("c", 2, 3), ("d", 2, 1)]);
        assert_eq!(starts(&flame), [0, 0, 0, 6, 6, 9]);
    }

    #[test]
    fn narrow_siblings_are_one_pack() {
        let flame = flame(&[("", 0, 100), ("a", 1, 97), ("b", 1, 2), ("x", 2, 2), ("c", 1, 1), ("d", 1, 1)]);
        // A cell for each.
        let place = |at: usize| {
            let (start, node) = (starts(&flame)[at], &flame.nodes[at]);
            Some((to_u16(usize::try_from(start).unwrap()), to_u16(usize::try_from(start + node.total).unwrap())))
        };
        assert_eq!(pack(&flame, 2, &place), 2..6);
        assert_eq!(siblings(&flame, &(2..6)).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(last_cell(&flame, &(2..6), &place), Some(101));
    }

    #[test]
    fn a_match_below_a_match_counts_once() {
        let flame = flame(&[("", 0, 100), ("json::a", 1, 60), ("json::b", 2, 50), ("c", 1, 40), ("json::d", 2, 5)]);
        assert_eq!(matched(&flame, &Filter::of("json")), 65);
        assert_eq!(matched(&flame, &Filter::of("")), 0);
    }
}
