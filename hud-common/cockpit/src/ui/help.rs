//! The help page, from the one list of keys.

use ratatui::layout::Rect;

use super::{
    paint::{Canvas, Cx, to_u16},
    state::GROUPS,
    text::Cut,
};

/// The page, from a line on.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, offset: usize) {
    let area = canvas.pane(cx, area, "KEYS", "j, k scroll; any other key closes", None);
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for group in GROUPS {
        lines.push((group.title, ""));
        lines.extend(group.keys);
        lines.push(("", ""));
    }
    for (at, (key, what)) in lines.iter().skip(offset).enumerate().take(usize::from(area.height)) {
        let y = area.y + to_u16(at);
        let style = if what.is_empty() { cx.theme.title } else { cx.theme.bright };
        canvas.text(cx, (area.x + area.width.min(2), y), area.width.saturating_sub(2).min(16), key, style, Cut::End);
        canvas.text(cx, (area.x + area.width.min(19), y), area.width.saturating_sub(19), what, cx.theme.text, Cut::End);
    }
}
