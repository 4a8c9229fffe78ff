//! Colours and glyphs by meaning, theme and capabilities of the terminal.
//!
//! Colour never carries a meaning alone: states also differ by glyph, statuses by word.

use ratatui::style::{Color, Modifier, Style};

use crate::{Origin, Status, TypeId};

/// Number of colours of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// None: bold, dim and reverse only.
    None,
    /// The sixteen of ANSI.
    Sixteen,
    /// The 256 of xterm.
    Indexed,
    /// 24 bits.
    True,
}

impl Depth {
    /// From the environment: `NO_COLOR` (not empty), `COLORTERM`, `TERM`.
    pub fn detect(var: impl Fn(&str) -> Option<String>) -> Self {
        let term = var("TERM").unwrap_or_default();
        if var("NO_COLOR").is_some_and(|v| !v.is_empty()) || term == "dumb" {
            return Depth::None;
        }
        match var("COLORTERM").as_deref() {
            Some("truecolor" | "24bit") => Depth::True,
            _ if term.contains("direct") || term.contains("truecolor") => Depth::True,
            _ if term.contains("256") => Depth::Indexed,
            _ => Depth::Sixteen,
        }
    }
}

/// A colour for every depth.
#[derive(Clone, Copy)]
struct Tone(u8, u8, u8, Color);

impl Tone {
    fn at(self, depth: Depth) -> Option<Color> {
        let Tone(r, g, b, sixteen) = self;
        match depth {
            Depth::None => None,
            Depth::Sixteen => Some(sixteen),
            Depth::Indexed => Some(Color::Indexed(indexed(r, g, b))),
            Depth::True => Some(Color::Rgb(r, g, b)),
        }
    }
}

/// The nearest colour of xterm's cube or grey ramp.
fn indexed(r: u8, g: u8, b: u8) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let near = |v: u8| (0u8..6).min_by_key(|i| LEVELS.get(usize::from(*i)).map_or(255, |l| l.abs_diff(v))).unwrap_or(0);
    let level = |i: u8| LEVELS.get(usize::from(i)).copied().unwrap_or(0);
    let (x, y, z) = (near(r), near(g), near(b));
    let mean = (u16::from(r) + u16::from(g) + u16::from(b)) / 3;
    let grey = u8::try_from((mean.saturating_sub(3) / 10).min(23)).unwrap_or(0);
    let far = |to: [u8; 3]| to.iter().zip([r, g, b]).map(|(to, from)| u16::from(to.abs_diff(from))).sum::<u16>();
    let ramp = 8 + 10 * grey;
    if far([ramp; 3]) < far([level(x), level(y), level(z)]) { 232 + grey } else { 16 + 36 * x + 6 * y + z }
}

struct Palette {
    text: Option<Tone>,
    bright: Tone,
    dim: Tone,
    accent: Tone,
    good: Tone,
    caution: Tone,
    warning: Tone,
    on_status: Tone,
    select: Tone,
    lanes: [Tone; 8],
    /// Boxes of own code, dependencies, tokio, std, the system, and others; and the text on them.
    boxes: [Tone; 6],
    on_box: Tone,
}

/// Green on the terminal's background, as in a head-up display; amber and red for caution and warning.
const HUD: Palette = Palette {
    text: Some(Tone(166, 214, 176, Color::Reset)),
    bright: Tone(224, 255, 232, Color::White),
    dim: Tone(92, 124, 102, Color::DarkGray),
    accent: Tone(64, 224, 128, Color::Green),
    good: Tone(48, 176, 104, Color::Green),
    caution: Tone(255, 191, 64, Color::Yellow),
    warning: Tone(255, 82, 72, Color::Red),
    on_status: Tone(8, 12, 9, Color::Black),
    select: Tone(24, 56, 36, Color::Blue),
    lanes: [
        Tone(64, 200, 128, Color::Green),
        Tone(88, 172, 232, Color::Blue),
        Tone(160, 200, 88, Color::LightGreen),
        Tone(72, 200, 200, Color::Cyan),
        Tone(176, 144, 232, Color::Magenta),
        Tone(136, 168, 152, Color::Gray),
        Tone(112, 224, 176, Color::LightCyan),
        Tone(120, 136, 224, Color::LightBlue),
    ],
    boxes: [
        Tone(24, 112, 64, Color::Green),
        Tone(28, 84, 124, Color::Blue),
        Tone(80, 64, 128, Color::Magenta),
        Tone(92, 84, 36, Color::Yellow),
        Tone(104, 62, 48, Color::Red),
        Tone(64, 72, 68, Color::DarkGray),
    ],
    on_box: Tone(232, 240, 234, Color::White),
};

/// For a light background.
const LIGHT: Palette = Palette {
    text: None,
    bright: Tone(0, 0, 0, Color::Black),
    dim: Tone(120, 120, 120, Color::DarkGray),
    accent: Tone(0, 96, 64, Color::Blue),
    good: Tone(0, 128, 72, Color::Green),
    caution: Tone(176, 104, 0, Color::Magenta),
    warning: Tone(200, 24, 24, Color::Red),
    on_status: Tone(255, 255, 255, Color::White),
    select: Tone(208, 228, 216, Color::Gray),
    lanes: [
        Tone(0, 120, 80, Color::Green),
        Tone(24, 88, 176, Color::Blue),
        Tone(96, 112, 0, Color::DarkGray),
        Tone(0, 120, 136, Color::Cyan),
        Tone(120, 56, 168, Color::Magenta),
        Tone(96, 96, 96, Color::Gray),
        Tone(32, 136, 152, Color::LightCyan),
        Tone(64, 64, 192, Color::LightBlue),
    ],
    boxes: [
        Tone(152, 216, 176, Color::Green),
        Tone(168, 204, 240, Color::Cyan),
        Tone(208, 192, 240, Color::Magenta),
        Tone(232, 224, 160, Color::Yellow),
        Tone(240, 200, 184, Color::LightRed),
        Tone(216, 216, 216, Color::Gray),
    ],
    on_box: Tone(16, 16, 16, Color::Black),
};

/// Blue and orange (Okabe and Ito), which differ for any colour vision.
const COLORBLIND: Palette = Palette {
    text: None,
    bright: Tone(255, 255, 255, Color::White),
    dim: Tone(136, 136, 136, Color::DarkGray),
    accent: Tone(86, 180, 233, Color::Cyan),
    good: Tone(0, 114, 178, Color::Blue),
    caution: Tone(240, 228, 66, Color::Yellow),
    warning: Tone(230, 120, 0, Color::LightRed),
    on_status: Tone(0, 0, 0, Color::Black),
    select: Tone(40, 56, 80, Color::Blue),
    lanes: [
        Tone(86, 180, 233, Color::Cyan),
        Tone(0, 158, 115, Color::Green),
        Tone(204, 121, 167, Color::Magenta),
        Tone(0, 114, 178, Color::Blue),
        Tone(240, 228, 66, Color::LightYellow),
        Tone(190, 190, 190, Color::Gray),
        Tone(120, 200, 180, Color::LightCyan),
        Tone(150, 150, 230, Color::LightBlue),
    ],
    boxes: [
        Tone(0, 92, 148, Color::Blue),
        Tone(0, 108, 80, Color::Green),
        Tone(136, 72, 112, Color::Magenta),
        Tone(120, 112, 24, Color::Yellow),
        Tone(148, 76, 0, Color::LightRed),
        Tone(80, 80, 80, Color::DarkGray),
    ],
    on_box: Tone(255, 255, 255, Color::White),
};

/// The glyphs of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glyphs {
    pub(super) ellipsis: char,
    pub(super) rule: char,
    pub(super) cursor: char,
    pub(super) running: char,
    pub(super) blocked: char,
    pub(super) waiting: char,
    pub(super) idle: char,
    pub(super) none: char,
    pub(super) live: &'static str,
    pub(super) pause: &'static str,
    pub(super) play: &'static str,
    pub(super) ended: &'static str,
    pub(super) bookmark: char,
    pub(super) here: char,
    pub(super) long: char,
    pub(super) dot: &'static str,
    pub(super) arrow: &'static str,
    pub(super) at_least: char,
    /// The mark of a step that is done.
    pub(super) done: char,
    /// The mark of an interval past a limit, at the top of its cell.
    pub(super) tick: char,
    /// The left edge of a box.
    pub(super) edge: char,
    pub(super) folded: &'static str,
    /// Heights, from an eighth to all.
    pub(super) heights: [char; 8],
    /// Widths, from an eighth to all.
    pub(super) widths: [char; 8],
}

const UNICODE: Glyphs = Glyphs {
    ellipsis: '…',
    rule: '─',
    cursor: '▸',
    running: '█',
    blocked: '▓',
    waiting: '▒',
    idle: '·',
    none: ' ',
    live: "●",
    pause: "‖",
    play: "▶",
    ended: "■",
    bookmark: '◆',
    here: '▲',
    long: '█',
    dot: "·",
    arrow: "→",
    at_least: '≥',
    done: '✓',
    tick: '▔',
    edge: '▏',
    folded: "▸",
    heights: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    widths: ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'],
};

const ASCII: Glyphs = Glyphs {
    ellipsis: '~',
    rule: '-',
    cursor: '>',
    running: '#',
    blocked: '!',
    waiting: '%',
    idle: '.',
    none: ' ',
    live: "*",
    pause: "||",
    play: ">",
    ended: "x",
    bookmark: '+',
    here: '^',
    long: '#',
    dot: "|",
    arrow: "->",
    at_least: '>',
    done: '+',
    tick: '\'',
    edge: '|',
    folded: ">",
    heights: ['.', '.', ':', ':', '-', '=', '+', '#'],
    widths: [' ', '-', '-', '-', '=', '=', '=', '#'],
};

/// Styles and glyphs of a screen.
#[derive(Clone, Debug)]
pub struct Theme {
    pub(super) glyphs: Glyphs,
    pub(super) text: Style,
    pub(super) bright: Style,
    pub(super) dim: Style,
    pub(super) title: Style,
    pub(super) accent: Style,
    pub(super) good: Style,
    pub(super) caution: Style,
    pub(super) warning: Style,
    pub(super) select: Style,
    /// A box that is selected, and one that is searched for.
    pub(super) picked: Style,
    pub(super) matched: Style,
    status: [Style; 3],
    lanes: [Style; 8],
    boxes: [Style; 6],
    ground: Option<Color>,
}

impl Theme {
    /// The names that [`Theme::named`] knows; the first is the default.
    pub const NAMES: [&'static str; 4] = ["hud", "light", "colorblind", "mono"];

    /// The theme of this name, if there is one.
    pub fn named(name: &str, depth: Depth, is_ascii: bool) -> Option<Self> {
        let (palette, depth) = match name {
            "hud" => (&HUD, depth),
            "light" => (&LIGHT, depth),
            "colorblind" => (&COLORBLIND, depth),
            "mono" => (&HUD, Depth::None),
            _ => return None,
        };
        let fg = |tone: Tone| tone.at(depth).map_or_else(Style::new, |c| Style::new().fg(c));
        let text = palette.text.map_or_else(Style::new, fg);
        let has_colours = depth != Depth::None;
        let on = |tone: Tone| match (tone.at(depth), palette.on_status.at(depth)) {
            (Some(ground), Some(ink)) => Style::new().fg(ink).bg(ground).add_modifier(Modifier::BOLD),
            _ => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        };
        let marked = |tone: Tone, without: Modifier| {
            if has_colours { fg(tone) } else { Style::new().add_modifier(without) }
        };
        Some(Theme {
            glyphs: if is_ascii { ASCII } else { UNICODE },
            text,
            bright: fg(palette.bright).add_modifier(Modifier::BOLD),
            dim: marked(palette.dim, Modifier::DIM),
            title: fg(palette.accent).add_modifier(Modifier::BOLD),
            accent: fg(palette.accent),
            good: fg(palette.good),
            caution: marked(palette.caution, Modifier::BOLD),
            warning: marked(palette.warning, Modifier::BOLD).add_modifier(Modifier::BOLD),
            select: match palette.select.at(depth) {
                Some(ground) => Style::new().bg(ground),
                None => Style::new().add_modifier(Modifier::REVERSED),
            },
            status: [
                marked(palette.good, Modifier::BOLD).add_modifier(Modifier::BOLD),
                on(palette.caution),
                on(palette.warning),
            ],
            lanes: palette.lanes.map(fg),
            ground: palette.on_status.at(depth),
            picked: on(palette.accent),
            matched: on(palette.caution),
            boxes: palette.boxes.map(|tone| match (tone.at(depth), palette.on_box.at(depth)) {
                (Some(ground), Some(ink)) => Style::new().fg(ink).bg(ground),
                _ => Style::new(),
            }),
        })
    }

    /// The default theme in all colours.
    pub fn usual() -> Self {
        // "hud" exists; otherwise the plain theme.
        Theme::named("hud", Depth::True, false).unwrap_or_else(Theme::plain)
    }

    fn plain() -> Self {
        let none = Style::new();
        Theme {
            glyphs: ASCII,
            text: none,
            bright: none,
            dim: none,
            title: none,
            accent: none,
            good: none,
            caution: none,
            warning: none,
            select: none,
            picked: none,
            matched: none,
            status: [none; 3],
            lanes: [none; 8],
            boxes: [none; 6],
            ground: None,
        }
    }

    /// A status as a lamp.
    pub(super) fn lamp(&self, status: Status) -> Style {
        let [normal, caution, warning] = self.status;
        match status {
            Status::Normal => normal,
            Status::Caution => caution,
            Status::Warning => warning,
        }
    }

    /// A status as text.
    pub(super) fn ink(&self, status: Status) -> Style {
        match status {
            Status::Normal => self.good,
            Status::Caution => self.caution,
            Status::Warning => self.warning,
        }
    }

    /// The colour of a type of task, the same on all screens and in all lists.
    pub(super) fn lane(&self, id: Option<TypeId>) -> Style {
        let Some(TypeId(id)) = id else { return self.dim };
        let at = usize::try_from(id.rem_euclid(8)).unwrap_or(0);
        self.lanes.get(at).copied().unwrap_or(self.text)
    }

    /// A filled box of code by its origin.
    pub(super) fn filled(&self, origin: Origin) -> Style {
        let [own, dependency, tokio, std, system, unknown] = self.boxes;
        match origin {
            Origin::Own => own,
            Origin::Dependency => dependency,
            Origin::Tokio => tokio,
            Origin::Std => std,
            Origin::System => system,
            Origin::Unknown => unknown,
        }
    }

    /// The colour between boxes.
    pub(super) fn ground(&self) -> Option<Color> {
        self.ground
    }

    /// Whether boxes have colours; otherwise their edges are drawn.
    pub(super) fn has_boxes(&self) -> bool {
        self.filled(Origin::Own).bg.is_some()
    }

    /// Code by its origin: own code is highlighted.
    pub(super) fn origin(&self, origin: Origin) -> Style {
        match origin {
            Origin::Own => self.bright,
            Origin::Dependency | Origin::Unknown => self.text,
            Origin::Tokio | Origin::Std | Origin::System => self.dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    fn depth(vars: &[(&str, &str)]) -> Depth {
        Depth::detect(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn the_environment_selects_the_colours() {
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")]), Depth::True);
        assert_eq!(depth(&[("TERM", "screen-256color")]), Depth::Indexed);
        assert_eq!(depth(&[("TERM", "xterm")]), Depth::Sixteen);
        assert_eq!(depth(&[("TERM", "dumb")]), Depth::None);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("NO_COLOR", "1")]), Depth::None);
        assert_eq!(depth(&[("TERM", "xterm"), ("NO_COLOR", "")]), Depth::Sixteen);
    }

    #[test]
    fn without_colours_no_style_has_one() {
        for name in Theme::NAMES {
            let Some(theme) = Theme::named(name, Depth::None, true) else { panic!("no theme {name}") };
            let all = [theme.text, theme.bright, theme.dim, theme.title, theme.accent, theme.good, theme.caution];
            let more = [theme.warning, theme.select, theme.picked, theme.matched];
            for style in all.into_iter().chain(more).chain(theme.status).chain(theme.lanes).chain(theme.boxes) {
                assert_eq!((style.fg, style.bg), (None, None), "{name}");
            }
        }
    }

    #[test]
    fn indexed_colours_are_near() {
        assert_eq!(indexed(255, 0, 0), 196);
        assert_eq!(indexed(0, 0, 0), 16);
        assert_eq!(indexed(128, 128, 128), 244);
    }
}
