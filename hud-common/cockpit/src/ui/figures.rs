//! Figures that several panels show.

use crate::{Snapshot, StreamCoverage};

use super::format::{share, thousandths};

/// Share of the time in which a stream was recorded, in thousandths: of the time for which that is known. Where it is not
/// known for any yet, rows are evidence, and without them nothing says that it was off.
pub(super) fn recorded(stream: &StreamCoverage) -> i64 {
    match stream.on.saturating_add(stream.off) {
        0 if stream.rows > 0 || stream.unknown > 0 => 1_000,
        known => thousandths(stream.on, known),
    }
}

/// The streams of these that were not recorded all the time, and the part of it in which they were.
fn partial<'a>(snapshot: &'a Snapshot, streams: &[&str]) -> impl Iterator<Item = (&'a StreamCoverage, i64)> {
    let of = snapshot.coverage.streams.iter().filter(|row| streams.contains(&row.stream.as_str()));
    of.map(|row| (row, recorded(row))).filter(|(_, part)| *part < WHOLE)
}

/// Share from which on a stream counts as recorded all the time (thousandths).
pub(super) const WHOLE: i64 = 995;

/// Whether one of these streams was not recorded all the time: counts and sums of it are at least so much, and rates and
/// percentiles are estimates.
pub(super) fn is_partial(snapshot: &Snapshot, streams: &[&str]) -> bool {
    partial(snapshot, streams).next().is_some()
}

/// Why figures that rest on these streams are marked; `None` if none is.
pub(super) fn why_partial(snapshot: &Snapshot, streams: &[&str], at_least: char) -> Option<String> {
    let mut reasons = Vec::new();
    let mut out = Vec::new();
    for (row, part) in partial(snapshot, streams) {
        // Each reason once.
        let why = row.reason.as_ref().filter(|why| !reasons.contains(why));
        reasons.extend(why);
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        out.push(match part {
            0 => format!("{} not recorded{why}", row.stream),
            _ => format!("{} {} recorded{why}", row.stream, share(part)),
        });
    }
    (!out.is_empty()).then(|| format!("{at_least} at least, ~ estimate: {}", out.join(", ")))
}

/// hud's overhead in thousandths of a core; `None` if unknown.
pub(super) fn cost(snapshot: &Snapshot) -> Option<i64> {
    let overhead = snapshot.overhead.as_ref().filter(|overhead| overhead.rows > 0)?;
    let spent = overhead.recorder_cpu.saturating_add(overhead.probes.unwrap_or(0));
    Some(thousandths(spent, overhead.rows.saturating_mul(1_000_000_000)))
}
