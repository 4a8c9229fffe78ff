//! Drawing operations of all panels: text that stays in its cells, panes, tables, bars.

use std::borrow::Cow;

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use crate::{Load, Snapshot};

use super::{
    figures::is_partial,
    state::{Drawn, Hit, List, State, Strip},
    text::{Cut, fit, width, wrap},
    theme::Theme,
};

/// The input of a panel.
#[derive(Clone, Copy)]
pub(super) struct Cx<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) state: &'a State,
    pub(super) theme: &'a Theme,
    pub(super) strip: &'a Strip,
    pub(super) range: (i64, i64),
    /// The last frame: lists keep their scroll positions.
    pub(super) before: &'a Drawn,
}

impl Cx<'_> {
    /// An instant to the millisecond, by the clock of the screen.
    pub(super) fn millis(&self, ts: i64) -> String {
        self.state.clock().millis(self.snapshot.session.start, ts)
    }
}

/// The output of a panel.
pub(super) struct Canvas<'a> {
    pub(super) buf: &'a mut Buffer,
    pub(super) drawn: Drawn,
}

impl Canvas<'_> {
    /// Writes text into at most `width` cells from (`x`, `y`). Returns the number of cells.
    pub(super) fn text(
        &mut self,
        cx: &Cx<'_>,
        (x, y): (u16, u16),
        width: u16,
        text: &str,
        style: Style,
        cut: Cut,
    ) -> u16 {
        let area = self.buf.area;
        if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
            return 0;
        }
        let room = usize::from(width.min(area.right() - x));
        // Units have the only character of hud's own texts that is not ASCII.
        let has_micro = cx.theme.glyphs.ellipsis.is_ascii() && text.contains(" µs");
        let text = if has_micro { Cow::Owned(text.replace(" µs", " us")) } else { Cow::Borrowed(text) };
        let shown = fit(&text, room, cut, cx.theme.glyphs.ellipsis);
        let (end, _) = self.buf.set_stringn(x, y, shown.as_ref(), room, style);
        end.saturating_sub(x)
    }

    /// Writes text at the right end of `area`'s first row. Returns the number of cells.
    pub(super) fn text_right(&mut self, cx: &Cx<'_>, area: Rect, text: &str, style: Style) -> u16 {
        let wide = to_u16(width(text)).min(area.width);
        self.text(cx, (area.right() - wide, area.y), wide, text, style, Cut::End)
    }

    /// Writes a glyph, if it is on the screen.
    pub(super) fn glyph(&mut self, x: u16, y: u16, glyph: char, style: Style) {
        if let Some(cell) = self.buf.cell_mut((x, y)) {
            cell.set_char(glyph).set_style(style);
        }
    }

    /// A pane with its title on a rule. Returns the area of its content.
    pub(super) fn pane(&mut self, cx: &Cx<'_>, area: Rect, title: &str, note: &str, list: Option<List>) -> Rect {
        if area.is_empty() {
            return Rect::default();
        }
        let is_focused = list.is_some() && cx.state.focused() == list;
        for x in area.left()..area.right() {
            self.glyph(x, area.y, cx.theme.glyphs.rule, cx.theme.dim);
        }
        let row = Rect { height: 1, ..area };
        let style = if is_focused { cx.theme.title } else { cx.theme.text };
        let mark = if is_focused { cx.theme.glyphs.cursor } else { cx.theme.glyphs.rule };
        self.glyph(area.x, area.y, mark, if is_focused { cx.theme.title } else { cx.theme.dim });
        self.glyph(area.x.saturating_add(1), area.y, ' ', style);
        let at = area.x.saturating_add(2);
        let used = self.text(cx, (at, area.y), area.width.saturating_sub(3), title, style, Cut::End);
        self.text(cx, (at.saturating_add(used), area.y), 1, " ", style, Cut::End);
        let room = area.width.saturating_sub(used.saturating_add(6));
        if !note.is_empty() && room > 6 {
            let mut note = Cow::Borrowed(note);
            note = Cow::Owned(
                fit(&note, usize::from(room.saturating_sub(2)), Cut::End, cx.theme.glyphs.ellipsis).into_owned(),
            );
            let end = Rect { width: area.width.saturating_sub(1), ..row };
            self.text_right(cx, end, &[" ", note.as_ref(), " "].concat(), cx.theme.dim);
        }
        if let Some(list) = list {
            self.drawn.hits.push((area, Hit::Pane(list)));
        }
        Rect { y: area.y + 1, height: area.height - 1, ..area }
    }

    /// The text of an empty list.
    pub(super) fn nothing(&mut self, cx: &Cx<'_>, area: Rect, why: &str) {
        let (x, room) = (area.x + area.width.min(2), area.width.saturating_sub(3));
        let lines = wrap(why, usize::from(room).max(1), usize::from(area.height.min(3)));
        for (y, line) in (area.y..area.bottom()).zip(lines) {
            self.text(cx, (x, y), room, &line, cx.theme.dim, Cut::End);
        }
    }

    /// A table of the rows of a list: with its cursor, scrolled so that the cursor shows.
    pub(super) fn table(
        &mut self,
        cx: &Cx<'_>,
        area: Rect,
        list: List,
        columns: &[Column],
        cell: impl Fn(usize, usize) -> Cell<'static>,
    ) {
        if area.is_empty() {
            return;
        }
        let rows = cx.state.rows(cx.snapshot, list);
        let spans = lay_out(columns, area);
        let has_head = area.height >= 3 && columns.iter().any(|column| !column.title.is_empty());
        if has_head {
            for (column, (x, wide)) in columns.iter().zip(&spans) {
                if *wide > 0 {
                    let title = column.heading(cx);
                    let used = to_u16(width(&title)).min(*wide);
                    let x = if column.is_right { x + wide - used } else { *x };
                    let is_key = cx.state.is_sorted_by(list, column.title);
                    let style = if is_key { cx.theme.bright } else { cx.theme.dim };
                    self.text(cx, (x, area.y), *wide, &title, style, Cut::End);
                    let head = Rect { x, y: area.y, width: used, height: 1 };
                    self.drawn.hits.push((head, Hit::Head(list, column.title)));
                }
            }
        }
        let body = if has_head { Rect { y: area.y + 1, height: area.height - 1, ..area } } else { area };
        let height = usize::from(body.height);
        let cursor = cx.state.cursor(list).min(rows.len().saturating_sub(1));
        let before = cx.before.scrolls.get(list.index()).map_or(0, |(offset, _)| *offset);
        let offset = scrolled(before, cursor, height, rows.len());
        if let Some(scroll) = self.drawn.scrolls.get_mut(list.index()) {
            *scroll = (offset, height);
        }
        let is_focused = cx.state.focused() == Some(list);
        for (line, (at, row)) in rows.iter().enumerate().skip(offset).take(height).enumerate() {
            let y = body.y + to_u16(line);
            let is_here = at == cursor && is_focused;
            let whole = Rect { y, height: 1, ..body };
            for (n, (column, (x, wide))) in columns.iter().zip(&spans).enumerate() {
                if *wide > 0 {
                    self.cell(cx, (*x, y), *wide, column.is_right, &cell(*row, n));
                }
            }
            if is_here {
                self.buf.set_style(whole, cx.theme.select);
                self.glyph(body.x, y, cx.theme.glyphs.cursor, cx.theme.title.patch(cx.theme.select));
            }
            self.drawn.hits.push((whole, Hit::Row(list, at)));
        }
        // A scroll mark at the right edge, if there are more rows.
        if rows.len() > height && height > 1 && area.width > 20 {
            let most = rows.len().saturating_sub(height).max(1);
            let y = body.y + to_u16(offset.min(most) * (height - 1) / most);
            self.glyph(area.right() - 1, y, cx.theme.glyphs.running, cx.theme.dim);
        }
    }

    /// The rows of a list as blocks of lines, each with a label before its first line. The block of the cursor shows.
    pub(super) fn blocks(&mut self, cx: &Cx<'_>, area: Rect, list: List, label: u16, block: impl Fn(usize) -> Block) {
        let rows = cx.state.rows(cx.snapshot, list);
        if area.is_empty() || rows.is_empty() {
            return;
        }
        let height = usize::from(area.height);
        let cursor = cx.state.cursor(list).min(rows.len() - 1);
        let before = cx.before.scrolls.get(list.index()).map_or(0, |(offset, _)| *offset).min(cursor);
        // The last block that is shown ends with the area, unless that is the first.
        let (mut offset, mut used) = (cursor, 0);
        for at in (before..=cursor).rev() {
            used += rows.get(at).map_or(0, |row| block(*row).lines.len().max(1));
            if used > height && at < cursor {
                break;
            }
            offset = at;
        }
        let is_focused = cx.state.focused() == Some(list);
        let (mut y, mut shown) = (area.y, 0);
        for (at, row) in rows.iter().enumerate().skip(offset) {
            if y >= area.bottom() {
                break;
            }
            let Block { label: name, style, lines, ink } = block(*row);
            let whole = Rect { y, height: to_u16(lines.len().max(1)).min(area.bottom() - y), ..area };
            let text = whole.x + whole.width.min(label);
            self.text(
                cx,
                (whole.x + whole.width.min(2), y),
                label.saturating_sub(3).min(whole.width),
                name,
                style,
                Cut::End,
            );
            for line in lines.iter().take(usize::from(whole.height)) {
                self.text(cx, (text, y), area.right().saturating_sub(text + 1), line, ink, Cut::End);
                y += 1;
            }
            y = y.max(whole.bottom());
            if at == cursor && is_focused {
                self.buf.set_style(whole, cx.theme.select);
                self.glyph(whole.x, whole.y, cx.theme.glyphs.cursor, cx.theme.title.patch(cx.theme.select));
            }
            self.drawn.hits.push((whole, Hit::Row(list, at)));
            shown += 1;
        }
        if let Some(scroll) = self.drawn.scrolls.get_mut(list.index()) {
            *scroll = (offset, shown);
        }
        if rows.len() > shown && height > 1 && area.width > 20 {
            let most = rows.len().saturating_sub(shown).max(1);
            let y = area.y + to_u16(offset.min(most) * (height - 1) / most);
            self.glyph(area.right() - 1, y, cx.theme.glyphs.running, cx.theme.dim);
        }
    }

    fn cell(&mut self, cx: &Cx<'_>, (x, y): (u16, u16), wide: u16, is_right: bool, cell: &Cell<'_>) {
        match &cell.content {
            Content::Text(text, cut) => {
                let used = if is_right { to_u16(width(text)).min(wide) } else { wide };
                self.text(cx, (x + wide - used, y), used, text, cell.style, *cut);
            }
            Content::Load(load) => self.load(cx, Rect { x, y, width: wide, height: 1 }, load),
            Content::Gauge(thousandths) => {
                self.gauge(cx, Rect { x, y, width: wide, height: 1 }, *thousandths, cell.style)
            }
        }
    }

    /// A load as a bar: blocked first, as it matters most; then running, runnable and idle.
    pub(super) fn load(&mut self, cx: &Cx<'_>, area: Rect, load: &Load) {
        let glyphs = &cx.theme.glyphs;
        let parts = [
            (load.blocked, glyphs.blocked, cx.theme.warning),
            (load.running, glyphs.running, cx.theme.good),
            (load.waiting, glyphs.waiting, cx.theme.caution),
            (load.idle, glyphs.idle, cx.theme.dim),
        ];
        let observed = load.observed();
        let mut done: i64 = 0;
        let mut x = area.x;
        for (part, glyph, style) in parts {
            done = done.saturating_add(part);
            let end = area.x + scaled(done, observed, area.width);
            // A part that is not 0 is visible.
            let end = if part > 0 && end == x && glyph != glyphs.idle { (x + 1).min(area.right()) } else { end };
            while x < end {
                self.glyph(x, area.y, glyph, style);
                x += 1;
            }
        }
    }

    /// A bar of a share of its area, to the eighth of a cell.
    pub(super) fn gauge(&mut self, cx: &Cx<'_>, area: Rect, thousandths: i64, style: Style) {
        let eighths = i64::from(area.width) * 8 * thousandths.clamp(0, 1_000) / 1_000;
        let eighths = if thousandths > 0 { eighths.max(1) } else { eighths };
        for at in 0..area.width {
            let left = eighths - i64::from(at) * 8;
            if left <= 0 {
                break;
            }
            let glyph = eighth(&cx.theme.glyphs.widths, left);
            self.glyph(area.x + at, area.y, glyph, style);
        }
    }
}

/// The glyph for a number of eighths (1 to 8).
pub(super) fn eighth(glyphs: &[char; 8], eighths: i64) -> char {
    let at = usize::try_from(eighths.clamp(1, 8) - 1).unwrap_or(0);
    glyphs.get(at).copied().unwrap_or(' ')
}

/// `part` of `whole` in cells.
pub(super) fn scaled(part: i64, whole: i64, cells: u16) -> u16 {
    if whole <= 0 {
        return 0;
    }
    let at = i128::from(part.max(0)) * i128::from(cells) / i128::from(whole);
    u16::try_from(at).unwrap_or(cells).min(cells)
}

/// A small number of cells.
pub(super) fn to_u16(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// The first row to show, so that the cursor is among `height` rows of `count`, moved as little as can be.
fn scrolled(before: usize, cursor: usize, height: usize, count: usize) -> usize {
    let least = cursor.saturating_add(1).saturating_sub(height);
    before.clamp(least, cursor.max(least)).min(count.saturating_sub(height))
}

/// A row of several lines, with a label before the first.
pub(super) struct Block {
    pub(super) label: &'static str,
    pub(super) style: Style,
    pub(super) lines: Vec<String>,
    pub(super) ink: Style,
}

/// A column.
pub(super) struct Column {
    title: &'static str,
    width: Width,
    is_right: bool,
    /// The least width of a table that shows it.
    from: u16,
    /// The streams that its figures rest on, and whether those are estimates if one was recorded in part.
    rests_on: Option<(&'static [&'static str], bool)>,
}

#[derive(Clone, Copy)]
enum Width {
    Fixed(u16),
    Flex(u16),
}

impl Column {
    /// Numbers, at the right.
    pub(super) const fn number(title: &'static str, width: u16) -> Self {
        Column { title, width: Width::Fixed(width), is_right: true, from: 0, rests_on: None }
    }

    /// Text of one width.
    pub(super) const fn fixed(title: &'static str, width: u16) -> Self {
        Column { title, width: Width::Fixed(width), is_right: false, from: 0, rests_on: None }
    }

    /// Text that shares the rest of the width, by weight.
    pub(super) const fn flex(title: &'static str, weight: u16) -> Self {
        Column { title, width: Width::Flex(weight), is_right: false, from: 0, rests_on: None }
    }

    /// Counts or sums of these streams: at least so much, if one was recorded in part.
    pub(super) const fn counts(mut self, streams: &'static [&'static str]) -> Self {
        self.rests_on = Some((streams, false));
        self
    }

    /// Percentiles of these streams: estimates, if one was recorded in part.
    pub(super) const fn estimates(mut self, streams: &'static [&'static str]) -> Self {
        self.rests_on = Some((streams, true));
        self
    }

    /// The heading, with a mark if the figures are not those of the whole window.
    fn heading(&self, cx: &Cx<'_>) -> Cow<'static, str> {
        match self.rests_on.filter(|(streams, _)| is_partial(cx.snapshot, streams)) {
            Some((_, is_estimate)) => {
                let mark = if is_estimate { '~' } else { cx.theme.glyphs.at_least };
                format!("{mark}{}", self.title).into()
            }
            None => self.title.into(),
        }
    }

    /// Shown only if the table is this wide.
    pub(super) const fn from(mut self, width: u16) -> Self {
        self.from = width;
        self
    }
}

/// Start and width of each column; 0 if it is not shown. The first two cells are for the cursor.
fn lay_out(columns: &[Column], area: Rect) -> Vec<(u16, u16)> {
    let shown = |column: &Column| area.width >= column.from;
    // The last cell is for the scroll mark.
    let mut fixed: u16 = 3;
    let mut weights: u16 = 0;
    for column in columns.iter().filter(|c| shown(c)) {
        fixed = fixed.saturating_add(1);
        match column.width {
            Width::Fixed(w) => fixed = fixed.saturating_add(w),
            Width::Flex(w) => weights = weights.saturating_add(w),
        }
    }
    let room = area.width.saturating_sub(fixed);
    let mut x = area.x.saturating_add(2);
    columns
        .iter()
        .map(|column| {
            let wide = match column.width {
                _ if !shown(column) => return (x, 0),
                Width::Fixed(w) => w,
                Width::Flex(w) => {
                    u16::try_from(u32::from(room) * u32::from(w) / u32::from(weights.max(1))).unwrap_or(0)
                }
            };
            let wide = wide.min(area.right().saturating_sub(x).saturating_sub(1));
            let at = x;
            x = x.saturating_add(wide).saturating_add(1).min(area.right());
            (at, wide)
        })
        .collect()
}

/// A cell of a table.
pub(super) struct Cell<'a> {
    content: Content<'a>,
    style: Style,
}

enum Content<'a> {
    Text(Cow<'a, str>, Cut),
    Load(Load),
    Gauge(i64),
}

impl<'a> Cell<'a> {
    /// Text that is cut at its end.
    pub(super) fn text(text: impl Into<Cow<'a, str>>, style: Style) -> Self {
        Cell { content: Content::Text(text.into(), Cut::End), style }
    }

    /// A name, or a text with names, which are shortened by their structure.
    pub(super) fn name(text: impl Into<Cow<'a, str>>, style: Style) -> Self {
        Cell { content: Content::Text(text.into(), Cut::Name), style }
    }

    /// A path, which is cut at its start.
    pub(super) fn path(text: impl Into<Cow<'a, str>>, style: Style) -> Self {
        Cell { content: Content::Text(text.into(), Cut::Start), style }
    }

    /// A load.
    pub(super) fn load(load: Load) -> Self {
        Cell { content: Content::Load(load), style: Style::new() }
    }

    /// A share.
    pub(super) fn gauge(thousandths: i64, style: Style) -> Self {
        Cell { content: Content::Gauge(thousandths), style }
    }
}

#[cfg(test)]
mod tests {
    use super::scrolled;

    #[test]
    fn scrolls_only_as_far_as_the_cursor_needs() {
        assert_eq!(scrolled(0, 4, 5, 10), 0);
        assert_eq!(scrolled(0, 5, 5, 10), 1);
        assert_eq!(scrolled(3, 5, 5, 10), 3);
        assert_eq!(scrolled(3, 2, 5, 10), 2);
        assert_eq!(scrolled(9, 9, 5, 10), 5);
        assert_eq!(scrolled(9, 0, 5, 0), 0);
        assert_eq!(scrolled(0, 3, 0, 10), 4);
    }
}
