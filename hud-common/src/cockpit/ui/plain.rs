//! A snapshot in one line: for logs and pipes.

use std::{format, prelude::v1::*};

use crate::cockpit::{Load, Snapshot};

use super::{
    format::{count, count_u64, maybe_nanos, nanos, share, time_of_day},
    lists::workers,
    session::{cost, watched},
    text::{Cut, fit},
};

/// Cells that the reason takes at most.
const REASON: usize = 160;

/// The line, with its end.
pub(super) fn line(snapshot: &Snapshot) -> String {
    let mut load = Load::default();
    for worker in workers(snapshot) {
        load.running = load.running.saturating_add(worker.load.running);
        load.blocked = load.blocked.saturating_add(worker.load.blocked);
        load.waiting = load.waiting.saturating_add(worker.load.waiting);
        load.idle = load.idle.saturating_add(worker.load.idle);
    }
    let least = snapshot.coverage.streams.iter().map(watched).min();
    let reason = snapshot.findings.first().map_or("", |worst| worst.sentence.as_str());
    format!(
        "{} {:<7} workers {} busy {} blocked, polls {} p99 {} longest {}, tasks {}, drops {}, watched {}, hud {}{}{}\n",
        time_of_day(snapshot.at),
        snapshot.status,
        share(load.share(load.running)),
        share(load.share(load.blocked)),
        count_u64(snapshot.polls.count),
        maybe_nanos(snapshot.polls.p99),
        nanos(snapshot.polls.longest),
        count(snapshot.tasks.count),
        count(snapshot.drops.lost),
        least.map_or("-".into(), share),
        cost(snapshot).map_or("-".into(), share),
        if reason.is_empty() { "" } else { ": " },
        fit(reason, REASON, Cut::Middle, '~'),
    )
}
