//! Figures that several panels show.

use crate::{Snapshot, StreamCoverage};

use super::format::thousandths;

/// Share of the time in which a stream was recorded, in thousandths: of the time for which that is known. Where it is not
/// known for any yet, rows are evidence.
pub(super) fn recorded(stream: &StreamCoverage) -> i64 {
    match stream.on.saturating_add(stream.off) {
        0 if stream.rows > 0 => 1_000,
        known => thousandths(stream.on, known),
    }
}

/// hud's overhead in thousandths of a core; `None` if unknown.
pub(super) fn cost(snapshot: &Snapshot) -> Option<i64> {
    let overhead = snapshot.overhead.as_ref().filter(|overhead| overhead.rows > 0)?;
    let spent = overhead.recorder_cpu.saturating_add(overhead.probes.unwrap_or(0));
    Some(thousandths(spent, overhead.rows.saturating_mul(1_000_000_000)))
}
