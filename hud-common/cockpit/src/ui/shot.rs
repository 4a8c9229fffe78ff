//! A screen as a picture, for documents and reports: plain text, text with ANSI colours, SVG, and (feature `png`) PNG.
//!
//! It is drawn by the code that draws the terminal, into a buffer of cells. In an SVG, text is text at fixed positions; blocks
//! and symbols are shapes, as fonts differ in them.

use std::fmt::Write as _;

use ratatui::{
    buffer::{Buffer, Cell},
    layout::Rect,
    style::{Color, Modifier},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    panes::{Panes, Seat},
    run::{Options, UiError},
    shapes::{Shape, shape},
    theme::{Depth, Theme},
};

/// Maximum columns and rows.
const MOST: (u16, u16) = (1_000, 500);
/// Size of a cell of an SVG, in its units: monospace text of height 15 is 9 wide.
const CELL: (u32, u32) = (9, 18);

pub(super) type Rgb = [u8; 3];

/// A screen.
#[derive(Clone, Debug)]
pub struct Shot {
    pub(super) buffer: Buffer,
    /// The default colours of background and text.
    pub(super) ground: Rgb,
    ink: Rgb,
}

/// Consecutive cells in one style.
pub(super) struct Ink {
    pub(super) fore: Rgb,
    pub(super) back: Rgb,
    pub(super) is_bold: bool,
}

impl Shot {
    /// The first screen of a cockpit with these options and this size, once the seats' overviews are complete. In all colours,
    /// for any terminal.
    pub fn take(seats: Vec<Seat<'_>>, options: &Options, (columns, rows): (u16, u16)) -> Result<Self, UiError> {
        let name = options.theme.as_deref().unwrap_or("hud");
        let theme = Theme::named(name, Depth::True, options.is_ascii)
            .ok_or_else(|| UiError::NoTheme { name: name.to_string() })?;
        let mut panes = Panes::open(seats, &options.state())?;
        panes.take_all_overviews();
        // The shared clock may have changed the instants of the sessions.
        panes.look(false);
        let area = Rect::new(0, 0, columns.clamp(1, MOST.0), rows.clamp(1, MOST.1));
        let mut buffer = Buffer::empty(area);
        panes.draw(&theme, &mut buffer);
        let (ground, ink) =
            if name == "light" { ([255, 255, 255], [32, 32, 32]) } else { ([11, 15, 12], [208, 216, 210]) };
        Ok(Shot { buffer, ground, ink })
    }

    /// Columns and rows, as `120x40`.
    pub fn parse_size(text: &str) -> Result<(u16, u16), String> {
        let wrong = || format!("columns and rows such as 120x40, up to {}x{}", MOST.0, MOST.1);
        let (columns, rows) = text.split_once('x').ok_or_else(wrong)?;
        match (columns.parse(), rows.parse()) {
            (Ok(columns), Ok(rows)) if (1..=MOST.0).contains(&columns) && (1..=MOST.1).contains(&rows) => {
                Ok((columns, rows))
            }
            _ => Err(wrong()),
        }
    }

    /// Text, a line per row.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for y in self.rows() {
            let mut line = String::new();
            self.cells(y).for_each(|(_, cell)| line.push_str(cell.symbol()));
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The same with ANSI colours.
    pub fn ansi(&self) -> String {
        let mut out = String::new();
        for y in self.rows() {
            let mut last = None;
            for (_, cell) in self.cells(y) {
                let style = (cell.fg, cell.bg, cell.modifier);
                if last != Some(style) {
                    out.push_str("\x1b[0");
                    for (modifier, code) in [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::REVERSED, 7)] {
                        if cell.modifier.contains(modifier) {
                            // Writing to a string cannot fail.
                            let _ = write!(out, ";{code}");
                        }
                    }
                    for (color, code) in [(cell.fg, 38), (cell.bg, 48)] {
                        if let Color::Rgb(r, g, b) = color {
                            let _ = write!(out, ";{code};2;{r};{g};{b}");
                        }
                    }
                    out.push('m');
                    last = Some(style);
                }
                out.push_str(cell.symbol());
            }
            out.push_str("\x1b[0m\n");
        }
        out
    }

    /// An SVG.
    pub fn svg(&self) -> String {
        let (wide, high) = CELL;
        let area = self.buffer.area;
        let (width, height) = (u32::from(area.width) * wide, u32::from(area.height) * high);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
             {height}\" font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation \
             Mono',monospace\" font-size=\"15\" xml:space=\"preserve\">\n<rect width=\"100%\" height=\"100%\" \
             fill=\"{}\"/>\n",
            hex(self.ground)
        );
        for y in self.rows() {
            self.svg_row(&mut out, y);
        }
        out.push_str("</svg>\n");
        out
    }

    fn svg_row(&self, out: &mut String, y: u16) {
        let (wide, high) = CELL;
        let top = u32::from(y) * high;
        let cells: Vec<(u16, &Cell)> = self.cells(y).collect();
        // Backgrounds first.
        for run in cells.chunk_by(|a, b| self.ink_of(a.1).back == self.ink_of(b.1).back) {
            let Some((first, cell)) = run.first() else { continue };
            let back = self.ink_of(cell).back;
            if back != self.ground {
                let (x, width) = (u32::from(*first) * wide, cells_of(run) * wide);
                let _ = writeln!(
                    out,
                    "<rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{high}\" fill=\"{}\"/>",
                    hex(back)
                );
            }
        }
        for run in cells.chunk_by(|a, b| self.continues(a.1, b.1)) {
            let Some((first, cell)) = run.first() else { continue };
            let ink = self.ink_of(cell);
            let (x, width) = (u32::from(*first) * wide, cells_of(run) * wide);
            if let Some(of) = shape(cell.symbol()) {
                self.svg_shape(out, (x, top), run.len(), of, ink.fore);
                continue;
            }
            let text: String = run.iter().map(|(_, cell)| cell.symbol()).collect();
            if text.trim().is_empty() {
                continue;
            }
            let bold = if ink.is_bold { " font-weight=\"bold\"" } else { "" };
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\"{bold}>{}</text>",
                top + 14,
                hex(ink.fore),
                escaped(&text)
            );
        }
    }

    /// Whether a cell continues the previous one: the same bar, or text in the same style.
    fn continues(&self, a: &Cell, b: &Cell) -> bool {
        let (x, y) = (self.ink_of(a), self.ink_of(b));
        if x.fore != y.fore || x.is_bold != y.is_bold {
            return false;
        }
        match (shape(a.symbol()), shape(b.symbol())) {
            (Some(of), Some(_)) => a.symbol() == b.symbol() && of.joins,
            // A character that is not ASCII may differ from its cell in width: it is positioned by itself, or with equal ones.
            (None, None) => is_plain(a) && is_plain(b) || a.symbol() == b.symbol(),
            _ => false,
        }
    }

    fn svg_shape(&self, out: &mut String, (x, y): (u32, u32), times: usize, of: Shape, fore: Rgb) {
        let (wide, high) = CELL;
        let times = i32::try_from(times).unwrap_or(1);
        let opacity = if of.percent < 100 { format!(" fill-opacity=\"0.{:02}\"", of.percent) } else { String::new() };
        for polygon in &of.polygons {
            let mut points = String::new();
            for (px, py) in polygon {
                // A bar of several cells is one polygon.
                let px = if of.joins && *px == Shape::UNIT { Shape::UNIT * times } else { *px };
                let scaled = |at: i32, cells: u32| f64::from(at) * f64::from(cells) / f64::from(Shape::UNIT);
                let _ =
                    write!(points, "{:.2},{:.2} ", f64::from(x) + scaled(px, wide), f64::from(y) + scaled(*py, high));
            }
            let _ = writeln!(out, "<polygon points=\"{}\" fill=\"{}\"{opacity}/>", points.trim_end(), hex(fore));
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = u16> + use<> {
        self.buffer.area.top()..self.buffer.area.bottom()
    }

    /// The cells of a row; the second one of a wide character is left out.
    pub(super) fn cells(&self, y: u16) -> impl Iterator<Item = (u16, &Cell)> {
        let mut skip = 0;
        (self.buffer.area.left()..self.buffer.area.right()).filter_map(move |x| {
            if skip > 0 {
                skip -= 1;
                return None;
            }
            let cell = self.buffer.cell((x, y))?;
            skip = cell.symbol().width().saturating_sub(1);
            Some((x, cell))
        })
    }

    pub(super) fn ink_of(&self, cell: &Cell) -> Ink {
        let rgb = |color: Color, else_: Rgb| match color {
            Color::Rgb(r, g, b) => [r, g, b],
            _ => else_,
        };
        let (mut fore, mut back) = (rgb(cell.fg, self.ink), rgb(cell.bg, self.ground));
        if cell.modifier.contains(Modifier::DIM) {
            fore = mixed(fore, back, 55);
        }
        if cell.modifier.contains(Modifier::REVERSED) {
            (fore, back) = (back, fore);
        }
        Ink { fore, back, is_bold: cell.modifier.contains(Modifier::BOLD) }
    }
}

/// A percentage of one colour on another.
pub(super) fn mixed(over: Rgb, under: Rgb, percent: u32) -> Rgb {
    let percent = percent.min(100);
    let mut mixed = over;
    for (channel, (over, under)) in mixed.iter_mut().zip(over.into_iter().zip(under)) {
        let sum = u32::from(over) * percent + u32::from(under) * (100 - percent);
        *channel = u8::try_from(sum / 100).unwrap_or(u8::MAX);
    }
    mixed
}

fn is_plain(cell: &Cell) -> bool {
    cell.symbol().is_ascii()
}

fn cells_of(run: &[(u16, &Cell)]) -> u32 {
    run.iter().map(|(_, cell)| u32::try_from(cell.symbol().width().max(1)).unwrap_or(1)).sum()
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Text escaped for XML. It has no control characters: names were sanitized on their way into cells.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
