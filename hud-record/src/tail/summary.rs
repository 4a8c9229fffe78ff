//! A snapshot as a line, for output without a terminal.

use hud_common::{
    clean,
    cockpit::{Mode, Snapshot, Status},
};

/// The line: status, rates, workers, the worst finding, and missing data.
pub fn line(snapshot: &Snapshot) -> String {
    let mut parts = vec![format!("{:<7}", snapshot.status)];
    if let Mode::Ended { is_complete } = snapshot.mode {
        parts.push(if is_complete { "ended".into() } else { "its recorder was killed".into() });
    }
    // A window that begins before the session, or before the first data read, is shorter.
    let from = (snapshot.window.start() + snapshot.coverage.unread).max(snapshot.session.start);
    let seconds = snapshot.window.end().min(snapshot.at).saturating_sub(from).max(1);
    let per_second = |n: u64| u128::from(n) * 1_000_000_000 / u128::from(seconds.unsigned_abs());
    let mut polls = format!("{} polls/s", per_second(snapshot.polls.count));
    if let (Some(p99), longest) = (snapshot.polls.p99, snapshot.polls.longest) {
        polls += &format!(" p99 {} longest {}", duration(p99), duration(longest));
    }
    parts.push(polls);
    if let Some(p99) = snapshot.wake_delay.p99 {
        parts.push(format!("wake-to-poll p99 {}", duration(p99)));
    }
    for runtime in &snapshot.workers.runtimes {
        let mut load = hud_common::cockpit::Load::default();
        for worker in &runtime.workers {
            load.running = load.running.saturating_add(worker.load.running);
            load.blocked = load.blocked.saturating_add(worker.load.blocked);
            load.waiting = load.waiting.saturating_add(worker.load.waiting);
            load.idle = load.idle.saturating_add(worker.load.idle);
        }
        let percent = |part: i64| load.share(part) / 10;
        let name = runtime.id.map_or_else(|| "runtime ?".into(), |id| format!("runtime {id}"));
        parts.push(format!(
            "{name}: {} workers {}% running {}% blocked {}% waiting",
            runtime.workers.len(),
            percent(load.running),
            percent(load.blocked),
            percent(load.waiting)
        ));
    }
    parts.push(format!("{} tasks", snapshot.tasks.count));
    if let Some(hot) = snapshot.hotspots.by_function.first() {
        let share = hot.own.saturating_mul(100) / snapshot.hotspots.weight.max(1);
        parts.push(format!("hot: {share}% {}", clean(&hot.place.function)));
    }
    if snapshot.status != Status::Normal
        && let Some(worst) = snapshot.findings.first()
    {
        parts.push(clean(&worst.sentence).into_owned());
    }
    if snapshot.drops.lost > 0 {
        parts.push(format!("{} events lost", snapshot.drops.lost));
    }
    if let Mode::Live { skipped: (times, ns), restarts, .. } = snapshot.mode {
        if times > 0 {
            parts.push(format!("skipped {times} times, {}", duration(ns)));
        }
        if restarts > 0 {
            parts.push(format!("{restarts} restarts"));
        }
    }
    parts.join(" · ")
}

fn duration(ns: i64) -> String {
    match ns {
        n if n >= 1_000_000_000 => format!("{}.{:02} s", n / 1_000_000_000, n / 10_000_000 % 100),
        n if n >= 1_000_000 => format!("{}.{:01} ms", n / 1_000_000, n / 100_000 % 10),
        n => format!("{} µs", n / 1_000),
    }
}
