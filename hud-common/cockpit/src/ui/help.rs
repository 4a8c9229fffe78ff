//! The help: the keys, and what the figures of the screen mean.

use ratatui::layout::Rect;

use super::{
    paint::{Canvas, Cx},
    state::{HelpPage, Screen},
    text::{Cut, wrap},
};

/// Width of the keys or terms.
const TERM: u16 = 16;

/// A page, from a line on.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, page: HelpPage, screen: Screen) {
    let (title, offset, note) = match page {
        HelpPage::Keys(offset) => ("KEYS", offset, "j, k scroll; ? reading this screen; any other key closes"),
        HelpPage::Reading(offset) => ("READING THIS SCREEN", offset, "j, k scroll; any other key closes"),
    };
    let area = canvas.pane(cx, area, title, note, None);
    let (term, text) = (area.x + area.width.min(2), area.x + area.width.min(TERM + 3));
    let room = area.right().saturating_sub(text);
    let mut y = area.y;
    for (key, what) in page.lines(screen).iter().skip(offset) {
        if y >= area.bottom() {
            break;
        }
        let style = if what.is_empty() { cx.theme.title } else { cx.theme.bright };
        canvas.text(cx, (term, y), area.width.saturating_sub(2).min(TERM), key, style, Cut::End);
        let meaning = wrap(what, usize::from(room).max(1), 4);
        for line in meaning.iter().take(usize::from(area.bottom() - y)) {
            canvas.text(cx, (text, y), room, line, cx.theme.text, Cut::End);
            y += 1;
        }
        y += u16::from(meaning.is_empty());
    }
}
