//! The layout of a frame.

use ratatui::{buffer::Buffer, layout::Rect};

use crate::Mode;

use super::{
    chrome, flame, help, latency, overview,
    paint::{Canvas, Cx},
    session,
    state::{Drawn, Scene, Screen, State},
    theme::Theme,
    timeline, waiting,
};

/// Draws a screen into `area` of a buffer, with `failure` at the foot. Returns the positions.
///
/// It clears nothing: the buffer must be empty, as ratatui's is for each frame.
pub fn draw(
    state: &State,
    scene: &Scene<'_>,
    theme: &Theme,
    failure: Option<&str>,
    buf: &mut Buffer,
    area: Rect,
) -> Drawn {
    let area = area.intersection(buf.area);
    let cx = Cx { snapshot: scene.snapshot, state, theme, strip: scene.strip, range: scene.range, before: scene.drawn };
    let mut canvas = Canvas { buf, drawn: Drawn { scrolls: scene.drawn.scrolls, ..Drawn::default() } };
    if area.is_empty() {
        return canvas.drawn;
    }
    let mut rest = area;
    let mut top = |rows: u16, least: u16| {
        let rows = if area.height >= least { rows } else { 0 };
        let part = Rect { height: rows.min(rest.height), ..rest };
        rest = Rect { y: rest.y + part.height, height: rest.height - part.height, ..rest };
        part
    };
    // The status first: a terminal of one row shows only that.
    chrome::status(&cx, &mut canvas, top(1, 1));
    let marks = top(1, 2);
    if !marks.is_empty() {
        chrome::marks(&cx, &mut canvas, marks);
    }
    let tabs = top(1, 6);
    if !tabs.is_empty() {
        chrome::tabs(&cx, &mut canvas, tabs);
    }
    let foot = if area.height >= 5 { 1 } else { 0 };
    let scrubber = match area.height {
        20.. => 2,
        12.. => 1,
        _ => 0,
    };
    let body = Rect { height: rest.height.saturating_sub(foot + scrubber), ..rest };
    if !body.is_empty() {
        let body = chrome::partly(&cx, &mut canvas, body);
        match (state.help(), state.screen()) {
            (None, _) if let Mode::Starting { steps, .. } = &scene.snapshot.mode => {
                chrome::steps(&cx, &mut canvas, body, steps);
            }
            (Some(page), screen) => help::draw(&cx, &mut canvas, body, page, screen),
            (None, Screen::Overview) => overview::draw(&cx, &mut canvas, body),
            (None, Screen::Hotspots) => overview::hotspots(&cx, &mut canvas, body),
            (None, Screen::Blocking) => overview::blocking(&cx, &mut canvas, body),
            (None, Screen::Tasks) => overview::tasks(&cx, &mut canvas, body),
            (None, Screen::Timeline) => timeline::draw(&cx, &mut canvas, body),
            (None, Screen::Flame) => flame::draw(&cx, &mut canvas, body),
            (None, Screen::Latency) => latency::draw(&cx, &mut canvas, body),
            (None, Screen::Workers) => overview::workers(&cx, &mut canvas, body),
            (None, Screen::Findings) => overview::findings(&cx, &mut canvas, body),
            (None, Screen::Session) => session::draw(&cx, &mut canvas, body),
            (None, Screen::Waiting) => waiting::draw(&cx, &mut canvas, body),
            (None, Screen::Task) => overview::task(&cx, &mut canvas, body),
        }
    }
    let below = Rect { y: body.bottom(), height: scrubber.min(area.bottom().saturating_sub(body.bottom())), ..area };
    chrome::scrubber(&cx, &mut canvas, below);
    if foot > 0 {
        chrome::foot(&cx, &mut canvas, Rect { y: area.bottom() - 1, height: 1, ..area }, failure);
    }
    canvas.drawn
}
