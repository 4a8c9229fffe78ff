//! The session: target, options, coverage, drops and hud's overhead.

use ratatui::{layout::Rect, style::Style};

use crate::{Mode, Snapshot};

use super::{
    figures::{cost, recorded},
    format::{bytes, count, nanos, share, since, time_of_day},
    paint::{Canvas, Cell, Column, Cx, to_u16},
    state::List,
    text::{Cut, wrap},
};

/// The screen.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    let facts = wrapped(facts(cx), area.width);
    let lost = lost(cx.snapshot);
    let upper = to_u16(facts.len() + 1).min(area.height / 2);
    let head = canvas.pane(cx, Rect { height: upper, ..area }, "SESSION", "", None);
    lines(cx, canvas, head, &facts);
    let rest = Rect { y: area.y + upper, height: area.height - upper, ..area };
    let below = to_u16(lost.len() + 1).min(rest.height / 3);
    coverage(cx, canvas, Rect { height: rest.height - below, ..rest });
    let drops = Rect { y: rest.bottom() - below, height: below, ..rest };
    let note = format!("{} events", count(cx.snapshot.drops.lost));
    let drops = canvas.pane(cx, drops, "DROPS IN THIS WINDOW", &note, None);
    lines(cx, canvas, drops, &lost);
}

/// Facts as lines of `width` cells: long ones are wrapped.
fn wrapped(facts: Vec<(String, String, Style)>, width: u16) -> Vec<(String, String, Style)> {
    let room = usize::from(width.saturating_sub(16)).max(1);
    let mut out = Vec::new();
    for (name, text, style) in facts {
        let mut name = Some(name);
        for line in wrap(&text, room, 3) {
            out.push((name.take().unwrap_or_default(), line, style));
        }
    }
    out
}

fn lines(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, lines: &[(String, String, Style)]) {
    for (at, (name, text, style)) in lines.iter().enumerate().take(usize::from(area.height)) {
        let y = area.y + to_u16(at);
        canvas.text(
            cx,
            (area.x + area.width.min(2), y),
            area.width.saturating_sub(2).min(12),
            name,
            cx.theme.dim,
            Cut::End,
        );
        canvas.text(cx, (area.x + area.width.min(15), y), area.width.saturating_sub(15), text, *style, Cut::Name);
    }
}

fn facts(cx: &Cx<'_>) -> Vec<(String, String, Style)> {
    let (snapshot, theme) = (cx.snapshot, cx.theme);
    let facts = &snapshot.session;
    let mut out: Vec<(String, String, Style)> = Vec::new();
    let mut say = |name: &str, text: String, style: Style| out.push((name.into(), text, style));
    let tokio = facts.tokio_version.as_ref().map_or("tokio's version is unknown".into(), |v| format!("tokio {v}"));
    say("target", format!("{} (pid {}) on {}", facts.exe, facts.pid, facts.host), theme.bright);
    say("runtime", format!("{tokio}; {} CPUs", facts.cpus), theme.text);
    say("session", facts.id.clone(), theme.text);
    let end = match (facts.end, &facts.end_reason) {
        (Some(end), Some(why)) => format!("to {} ({why})", time_of_day(end)),
        (Some(end), None) => format!("to {}", time_of_day(end)),
        (None, _) => "on".into(),
    };
    say("recorded", format!("from {} {end}; times are UTC", time_of_day(facts.start)), theme.text);
    say("options", format!("polls {}, {} samples per second and CPU", facts.polls, facts.freq), theme.text);
    if let Mode::Live { skipped: (times, ns), restarts, .. } = &snapshot.mode {
        if *times > 0 {
            say("skipped", format!("{} in total, {} times, to catch up", nanos(*ns), count_u(*times)), theme.caution);
        }
        if *restarts > 0 {
            say("restarts", format!("{} recorders since this screen started", count_u(*restarts)), theme.caution);
        }
    }
    match &snapshot.overhead {
        Some(overhead) => {
            let probes = overhead.probes.map_or("not measured by this kernel".into(), nanos);
            let cost = cost(snapshot).map_or("-".into(), share);
            let text = format!(
                "{cost} of a core: probes {probes}, recorder {} in {} s; {} of memory, {} events, {} through the ring",
                nanos(overhead.recorder_cpu),
                overhead.rows,
                bytes(overhead.recorder_rss),
                count(overhead.events),
                bytes(overhead.ring_bytes)
            );
            say("hud", text, theme.text);
        }
        None => say("hud", "no figures in this window".into(), theme.dim),
    }
    if let Some(process) = &snapshot.process {
        let fds = process.fds.map_or(String::new(), |n| format!(", {n} files open"));
        let text = format!(
            "{} user and {} kernel time in {} s; {} of memory, {} threads{fds}",
            nanos(process.cpu_user),
            nanos(process.cpu_sys),
            process.rows,
            bytes(process.rss),
            process.threads
        );
        say("usage", text, theme.text);
    }
    if snapshot.coverage.unread > 0 {
        let text = format!(
            "the first {} of this window: before this screen started, or skipped",
            nanos(snapshot.coverage.unread)
        );
        say("not read", text, theme.caution);
    }
    let start = facts.start;
    say(
        "window",
        format!("{} to {}", since(snapshot.window.start() - start), since(snapshot.window.end() - start)),
        theme.text,
    );
    for note in &facts.notes {
        say("note", note.clone(), theme.caution);
    }
    out
}

fn count_u(n: u64) -> String {
    super::format::count_u64(n)
}

fn lost(snapshot: &Snapshot) -> Vec<(String, String, Style)> {
    let style = Style::new();
    if snapshot.drops.by_stage.is_empty() {
        return Vec::from([("none".into(), "every event was stored".into(), style)]);
    }
    let rows = snapshot.drops.by_stage.iter();
    rows.map(|row| (count(row.lost), format!("{} at {}", row.stream, row.stage), style)).collect()
}

fn coverage(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect) {
    const COLUMNS: &[Column] = &[
        Column::fixed("stream", 10),
        Column::fixed("recorded", 10),
        Column::number("", 6),
        Column::number("rows", 8),
        Column::number("off", 8),
        Column::number("unknown", 8),
        Column::flex("reason", 1),
    ];
    let streams = &cx.snapshot.coverage.streams;
    let area = canvas.pane(
        cx,
        area,
        "COVERAGE",
        "share of this window in which each stream was recorded",
        Some(List::Streams),
    );
    if streams.is_empty() {
        return canvas.nothing(cx, area, "no coverage in this window");
    }
    canvas.table(cx, area, List::Streams, COLUMNS, |row, column| {
        let Some(row) = streams.get(row) else { return Cell::text("", cx.theme.text) };
        let part = recorded(row);
        let style = if part >= 995 { cx.theme.good } else { cx.theme.caution };
        match column {
            0 => Cell::name(row.stream.to_string(), cx.theme.text),
            1 => Cell::gauge(part, style),
            2 => Cell::text(share(part), style),
            3 => Cell::text(count(row.rows), cx.theme.text),
            4 => Cell::text(nanos(row.off), cx.theme.dim),
            5 => Cell::text(nanos(row.unknown), cx.theme.dim),
            _ => Cell::text(row.reason.as_ref().map_or(String::new(), |why| why.to_string()), cx.theme.dim),
        }
    });
}
