//! The parts of every screen: status, mode with drops and overhead, tabs, scrubber, foot.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use crate::{Mode, Name, Snapshot, Status};

use super::{
    axis,
    figures::{cost, why_partial},
    format::{bytes, count, nanos, round, share, thousandths},
    paint::{Canvas, Cx, eighth, scaled, to_u16},
    state::{Hit, Prompt, Screen},
    tables::{all_quiet, is_seeing},
    text::{Cut, shortened},
    theme::Theme,
};

/// The label of a session's pane; the active one is marked.
pub(super) fn label(
    theme: &Theme,
    buf: &mut Buffer,
    area: Rect,
    (at, count): (usize, usize),
    label: &str,
    is_active: bool,
) {
    let style = if is_active { theme.title } else { theme.dim };
    for x in area.left()..area.right() {
        if let Some(cell) = buf.cell_mut((x, area.y)) {
            cell.set_char(theme.glyphs.rule).set_style(theme.dim);
        }
    }
    let mark = if is_active { theme.glyphs.cursor } else { theme.glyphs.rule };
    let text = format!("{mark} {}/{count} {label} ", at + 1);
    let room = usize::from(area.width);
    let shown = super::text::fit(&text, room, Cut::Middle, theme.glyphs.ellipsis);
    buf.set_stringn(area.x, area.y, shown.as_ref(), room, style);
}

/// The status with the worst finding.
pub(super) fn status(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let snapshot = cx.snapshot;
    let seen = is_seeing(snapshot);
    let caution = cx.state.caution(snapshot);
    let (word, lamp) = match (caution, snapshot.status) {
        (None, _) if matches!(snapshot.mode, Mode::Starting { .. }) => (" STARTING ".into(), cx.theme.accent),
        // Without data, the absence of findings is no evidence.
        (None, Status::Normal) if !seen => (" NO DATA ".into(), cx.theme.dim),
        (Some(worst), _) => (format!(" {} ", worst.severity), cx.theme.lamp(worst.severity)),
        (None, Status::Normal) => (format!(" {} ", Status::Normal), cx.theme.lamp(Status::Normal)),
        // All that there is has been acknowledged.
        (None, status) => (format!(" {status} "), cx.theme.dim),
    };
    let used = canvas.text(cx, (area.x, area.y), area.width, &word, lamp, Cut::End);
    let room = area.width.saturating_sub(used + 1);
    let x = area.x + used + 1;
    match caution {
        Some(worst) => {
            let all = snapshot.findings.len();
            let more = all.saturating_sub(cx.state.acknowledged(snapshot)).saturating_sub(1);
            let more = if more > 0 && room > 40 { format!("  +{more}") } else { String::new() };
            let wide = room.saturating_sub(to_u16(more.len()));
            // Subject and amount come first: if the names cannot be short enough, the place at the end is cut.
            let sentence = shortened(&worst.sentence, usize::from(wide), cx.theme.glyphs.ellipsis);
            let used = canvas.text(cx, (x, area.y), wide, &sentence, cx.theme.ink(worst.severity), Cut::End);
            canvas.text(cx, (x.saturating_add(used), area.y), room.saturating_sub(used), &more, cx.theme.dim, Cut::End);
        }
        None => {
            let text = match snapshot.findings.len() {
                0 => starting(snapshot).unwrap_or_else(|| all_quiet(cx)),
                1 => "the finding is acknowledged (A shows it again)".into(),
                n => format!("all {n} findings are acknowledged (A shows them again)"),
            };
            canvas.text(cx, (x, area.y), room, &text, cx.theme.dim, Cut::End);
        }
    }
    canvas.drawn.hits.push((area, Hit::Tab(Screen::Findings)));
}

/// What the recorder does before it has begun its session.
fn starting(snapshot: &Snapshot) -> Option<String> {
    let Mode::Starting { steps, .. } = &snapshot.mode else { return None };
    steps.iter().find(|(_, is_done)| !is_done).map(|(step, _)| step.to_string())
}

/// The steps of the start, in place of a screen without data.
pub(super) fn steps(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, steps: &[(Name, bool)]) {
    let area = canvas.pane(cx, area, "STARTING", "q quits", None);
    let doing = steps.iter().position(|(_, is_done)| !is_done);
    for (y, (at, (step, is_done))) in (area.y..area.bottom()).zip(steps.iter().enumerate()) {
        let (mark, style) = match (is_done, doing == Some(at)) {
            (true, _) => (cx.theme.glyphs.done, cx.theme.good),
            (false, true) => (cx.theme.glyphs.cursor, cx.theme.bright),
            (false, false) => (cx.theme.glyphs.idle, cx.theme.dim),
        };
        let x = area.x + area.width.min(2);
        canvas.glyph(x, y, mark, style);
        canvas.text(cx, (x + 2, y), area.width.saturating_sub(4), step, style, Cut::End);
    }
}

/// Live or replay, the instant, drops, coverage, overhead, and the target's CPU time and memory.
pub(super) fn marks(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let (snapshot, theme) = (cx.snapshot, cx.theme);
    let glyphs = &theme.glyphs;
    let mut parts: Vec<(String, Style)> = Vec::new();
    let held = cx.state.at().is_some();
    match &snapshot.mode {
        Mode::Live { newest, skipped, .. } => {
            if held {
                // The age of a held screen must be noticed.
                let age = cx.range.1.saturating_sub(snapshot.at).max(0);
                parts.push((format!("{} HELD {} ago", glyphs.pause, nanos(age)), theme.caution));
            } else {
                let lag = snapshot.at.saturating_sub(*newest).max(0);
                // A second without an event: the target is idle, or the recorder hangs.
                let style = if lag > 2_000_000_000 { theme.caution } else { theme.good };
                let lag = if lag > 1_000_000_000 { format!(" no event for {}", nanos(lag)) } else { String::new() };
                parts.push((format!("{} LIVE{lag}", glyphs.live), style));
            }
            if skipped.0 > 0 {
                parts.push((format!("skipped {}", nanos(skipped.1)), theme.caution));
            }
        }
        Mode::Starting { since, .. } => {
            parts.push((
                format!("{} STARTING {}", glyphs.live, nanos(snapshot.at.saturating_sub(*since))),
                theme.accent,
            ));
        }
        Mode::Ended { is_complete: true } => parts.push((format!("{} ENDED", glyphs.ended), theme.dim)),
        Mode::Ended { is_complete: false } => parts.push((format!("{} CUT OFF", glyphs.ended), theme.caution)),
        Mode::Replay => {
            let speed = cx.state.speed();
            let speed = if speed % 10 == 0 { format!("{}x", speed / 10) } else { format!("0.{speed}x") };
            let mark = if cx.state.is_playing() { glyphs.play } else { glyphs.pause };
            parts.push((format!("{mark} REPLAY {speed}"), theme.accent));
        }
    }
    let lost = snapshot.drops.lost;
    parts.push((format!("drops {}", count(lost)), if lost > 0 { theme.warning } else { theme.dim }));
    if snapshot.coverage.unread > 0 {
        parts.push((format!("unread {}", nanos(snapshot.coverage.unread)), theme.caution));
    }
    match cost(snapshot) {
        Some(cost) => parts.push((format!("hud {}", share(cost)), theme.dim)),
        None => parts.push(("hud -".into(), theme.dim)),
    }
    let start = snapshot.session.start;
    let clock = cx.state.clock();
    parts.push((format!("{}{}", clock.tenths(start, snapshot.at), clock.zone(start)), theme.text));
    parts.push((format!("window {}", round(cx.state.window())), theme.text));
    if let Some(process) = snapshot.process.as_ref().filter(|process| process.rows > 0) {
        let cpu =
            thousandths(process.cpu_user.saturating_add(process.cpu_sys), process.rows.saturating_mul(1_000_000_000));
        parts.push((format!("app {} {}", share(cpu), bytes(process.rss)), theme.dim));
    }
    let exe = snapshot.session.exe.rsplit('/').next().unwrap_or_default();
    if !exe.is_empty() {
        parts.push((format!("{exe} {}", snapshot.session.pid), theme.text));
    }
    if let Some(version) = &snapshot.session.tokio_version {
        parts.push((format!("tokio {version}"), theme.dim));
    }
    if !snapshot.session.host.is_empty() {
        parts.push((snapshot.session.host.clone(), theme.dim));
    }
    let mut x = area.x + area.width.min(1);
    for (text, style) in parts {
        let shown = super::text::fit(&text, 40, Cut::Middle, glyphs.ellipsis);
        let wide = to_u16(super::text::width(&shown));
        if x.saturating_add(wide) > area.right() {
            continue;
        }
        x = x.saturating_add(canvas.text(cx, (x, area.y), wide, &shown, style, Cut::End) + 2);
    }
}

/// The streams that the figures of a screen rest on.
const fn streams(screen: Screen) -> &'static [&'static str] {
    match screen {
        Screen::Overview | Screen::Findings => &["off_cpu", "polls", "samples", "wakes"],
        Screen::Hotspots | Screen::Flame => &["samples"],
        Screen::Blocking | Screen::Timeline | Screen::Workers => &["off_cpu", "polls"],
        Screen::Tasks | Screen::Task | Screen::Latency => &["polls", "wakes"],
        // Its own table has all of them; and states are read, not recorded.
        Screen::Session | Screen::Waiting => &[],
    }
}

/// A line that says why figures of the screen are marked, if any are. Returns the rest of the area.
pub(super) fn partly(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) -> Rect {
    let why = why_partial(cx.snapshot, streams(cx.state.screen()), cx.theme.glyphs.at_least);
    let Some(why) = why.filter(|_| area.height >= 8 && cx.state.help().is_none()) else { return area };
    let line = Rect { y: area.bottom() - 1, height: 1, ..area };
    canvas.text(cx, (line.x + 1, line.y), line.width.saturating_sub(1), &why, cx.theme.dim, Cut::End);
    Rect { height: area.height - 1, ..area }
}

/// The screens, by their keys.
pub(super) fn tabs(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let full: usize = Screen::ALL.iter().map(|screen| screen.name().len() + 3).sum();
    let is_wide = usize::from(area.width) > full;
    let mut x = area.x + area.width.min(1);
    for screen in &Screen::ALL {
        let is_here = cx.state.screen() == *screen;
        let style = if is_here { cx.theme.title } else { cx.theme.dim };
        let name = if is_wide { screen.name() } else { screen.short() };
        let text = format!("{} {name}", screen.key());
        let wide = to_u16(text.len()).min(area.right().saturating_sub(x));
        let used = canvas.text(cx, (x, area.y), wide, &text, style, Cut::End);
        if is_here {
            canvas.buf.set_style(Rect { x, width: used, height: 1, ..area }, cx.theme.select);
        }
        canvas.drawn.hits.push((Rect { x, width: used, height: 1, ..area }, Hit::Tab(*screen)));
        x = x.saturating_add(used + 1).min(area.right());
    }
    if area.right().saturating_sub(x) >= 7 {
        let help = Rect { x: area.right() - 6, width: 6, height: 1, ..area };
        canvas.text(cx, (help.x, help.y), 6, "? help", cx.theme.dim, Cut::End);
        canvas.drawn.hits.push((help, Hit::Help));
    }
}

/// The whole session as a strip: load as height, anomalies in colour, the window highlighted; times below.
pub(super) fn scrubber(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let (from, to) = cx.range;
    let dur = to.saturating_sub(from);
    if area.is_empty() || dur <= 0 {
        return;
    }
    let glyphs = &cx.theme.glyphs;
    let strip = Rect { height: 1, ..area };
    let edge = |x: u16| {
        let at = i128::from(dur) * i128::from(x) / i128::from(area.width);
        from.saturating_add(i64::try_from(at).unwrap_or(dur))
    };
    let window = cx.snapshot.window;
    for x in 0..strip.width {
        let (t0, t1) = (edge(x), edge(x + 1));
        let (glyph, style) = match cx.strip.between(t0, t1.max(t0 + 1)) {
            Some(mark) => {
                let style = match mark.status {
                    Some(status) => cx.theme.ink(status),
                    None if mark.lost => cx.theme.caution,
                    None => cx.theme.good,
                };
                let height = if mark.any || mark.busy > 0 { (mark.busy * 8 + 999) / 1_000 } else { 0 };
                // Anomalies have full height, to be seen without colours.
                match (mark.status, height) {
                    (Some(Status::Warning), _) => (glyphs.blocked, style),
                    (_, 0) => (glyphs.idle, cx.theme.dim),
                    (_, height) => (eighth(&glyphs.heights, height), style),
                }
            }
            None => (glyphs.none, cx.theme.dim),
        };
        canvas.glyph(strip.x + x, strip.y, glyph, style);
    }
    let x0 = scaled(window.start().saturating_sub(from), dur, area.width);
    let x1 = scaled(window.end().saturating_sub(from), dur, area.width).max(x0 + 1).min(area.width);
    canvas.buf.set_style(Rect { x: area.x + x0, width: x1.saturating_sub(x0), ..strip }, cx.theme.select);
    if area.height >= 2 {
        let below = Rect { y: area.y + 1, height: 1, ..area };
        axis::draw(cx, canvas, below, from, to);
        for bookmark in cx.state.bookmarks() {
            let x = scaled(bookmark.saturating_sub(from), dur, area.width).min(area.width - 1);
            canvas.glyph(area.x + x, below.y, glyphs.bookmark, cx.theme.accent);
        }
        let x = scaled(cx.snapshot.at.saturating_sub(from), dur, area.width).min(area.width - 1);
        canvas.glyph(area.x + x, below.y, glyphs.here, cx.theme.title);
    }
    canvas.drawn.hits.push((area, Hit::Scrubber));
    canvas.drawn.scrubber = Some((area, from, to));
}

/// The prompt, a failure, a message, or the keys of this screen.
pub(super) fn foot(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, failure: Option<&str>) {
    let room = area.width.saturating_sub(2);
    let (text, style) = match (cx.state.prompt(), failure, cx.state.message()) {
        (Some(Prompt::Filter { .. }), ..) => (format!("/{}_", cx.state.filter()), cx.theme.bright),
        (Some(Prompt::Jump { text }), _, message) => {
            let message = message.map(|message| format!("  {message}")).unwrap_or_default();
            (format!("go to (+12.5s, -30s, 14:03:20): {text}_{message}"), cx.theme.bright)
        }
        (None, Some(failure), _) => (failure.into(), cx.theme.warning),
        (None, None, Some(message)) => (message.into(), cx.theme.accent),
        (None, None, None) => {
            let filter = cx.state.filter();
            let filter = if filter.is_empty() { String::new() } else { format!("filter {filter} (Esc clears it)  ") };
            (format!("{filter}{}", hints(cx)), cx.theme.dim)
        }
    };
    // The end of the typed text must be visible.
    let cut = if cx.state.prompt().is_some() { Cut::Start } else { Cut::End };
    canvas.text(cx, (area.x + area.width.min(1), area.y), room, &text, style, cut);
}

fn hints(cx: &Cx<'_>) -> &'static str {
    match (cx.state.screen(), &cx.snapshot.mode) {
        (Screen::Timeline, _) => "h l pan  + - zoom  j k lane  n N anomaly  Enter task  T clock  ? help  q quit",
        (Screen::Flame, _) => "hjkl move  Enter zoom  t type  o off-CPU  f unfold  / search  ? help  q quit",
        (Screen::Waiting, _) => "Tab each task  s sort  / filter  Enter open  ? help  q quit",
        (Screen::Tasks, _) => "Tab each task  s sort  / filter  Enter open  + - window  ? help  q quit",
        (_, Mode::Live { .. }) => "Tab list  Enter open  / filter  a acknowledge  space hold  ? help  q quit",
        _ => "space play  [ ] speed  , . step  n N anomaly  g go to  T clock  ? help  q quit",
    }
}
