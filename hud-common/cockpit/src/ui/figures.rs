//! Figures that several panels show.

use crate::{Snapshot, StreamCoverage};

use super::format::thousandths;

/// Share of the window in which a stream was recorded, in thousandths. Where coverage is not yet known, rows are evidence.
pub(super) fn recorded(stream: &StreamCoverage) -> i64 {
    let whole = stream.on.saturating_add(stream.off).saturating_add(stream.unknown);
    let on = if stream.rows > 0 { stream.on.saturating_add(stream.unknown) } else { stream.on };
    thousandths(on, whole)
}

/// hud's overhead in thousandths of a core; `None` if unknown.
pub(super) fn cost(snapshot: &Snapshot) -> Option<i64> {
    let overhead = snapshot.overhead.as_ref().filter(|overhead| overhead.rows > 0)?;
    let spent = overhead.recorder_cpu.saturating_add(overhead.probes.unwrap_or(0));
    Some(thousandths(spent, overhead.rows.saturating_mul(1_000_000_000)))
}
