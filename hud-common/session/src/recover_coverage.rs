//! Completes `coverage` up to a killed session's end.
//!
//! A recorder writes rows of `coverage` every few seconds. The time after the last of them is reconstructed from the rows of
//! the streams: a stream that is always on was on until the session's last row, and one that is switched off and on at least
//! from its first row after that to its last.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use hud_wire::Stream;

use super::{
    CoverageRow, SessionDir, Table,
    error::Result,
    scan::{integers, texts},
    table_scan::{Skip, each_batch, latest},
};

/// The reason of a time range that has not ended: the next one begins at its end.
pub const STILL_ON: &str = "still on";

/// The rows missing in `coverage` of a session that ended at `end`.
pub(super) fn not_covered(
    session: &SessionDir,
    end: i64,
    reason: &'static str,
    skip: &mut Skip<'_>,
) -> Result<Vec<CoverageRow>> {
    let mut covered: BTreeMap<String, (i64, bool)> = BTreeMap::new();
    let columns = ["ts", "dur", "stream", "reason"];
    let mut note = |batch: &RecordBatch| {
        let ends =
            integers(batch, "ts").into_iter().zip(integers(batch, "dur")).map(|(ts, dur)| ts.saturating_add(dur));
        for ((end, stream), why) in ends.zip(texts(batch, "stream")).zip(texts(batch, "reason")) {
            let last = covered.entry(stream.into()).or_insert((i64::MIN, false));
            *last = (*last).max((end, why == STILL_ON));
        }
    };
    each_batch(session, Table::Coverage, &columns, |_| true, &mut note, skip)?;

    let mut missing = Vec::new();
    for stream in Stream::ALL {
        let (last, is_on) = covered.get(stream.name()).copied().unwrap_or((i64::MIN, false));
        // A stream that is always on stays on, if it was on at all.
        let was_on = last != i64::MIN;
        // Context switches may be off for a while too.
        let is_always_on = !stream.is_probed() && stream != Stream::OffCpu;
        let is_on = was_on && (is_on || is_always_on);
        // Probes are switched together: a row of one stream shows that the others were on too.
        let together = |other: &Stream| *other == stream || (was_on && stream.is_probed() && other.is_probed());
        let rows = rows_since(session, together, last, skip)?;
        let from = if is_on { Some(last) } else { rows.map(|(first, _)| first) };
        let to = if stream.is_probed() { rows.map(|(_, last)| last) } else { Some(end) };
        if let Some((ts, to)) = from.zip(to)
            && ts < to
        {
            missing.push(CoverageRow { ts, dur: to - ts, stream: stream.name().into(), reason: reason.into() });
        }
    }
    Ok(missing)
}

/// First start and last end of the rows of these streams from `since` on.
fn rows_since(
    session: &SessionDir,
    is_wanted: impl Fn(&Stream) -> bool,
    since: i64,
    skip: &mut Skip<'_>,
) -> Result<Option<(i64, i64)>> {
    let mut span: Option<(i64, i64)> = None;
    for table in Stream::ALL.into_iter().filter(is_wanted).filter_map(|stream| Table::by_name(stream.name())) {
        let mut note = |batch: &RecordBatch| {
            let first = integers(batch, "ts").into_iter().filter(|ts| *ts >= since).min();
            if let Some((first, last)) = first.zip(latest(batch)) {
                span = Some(span.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            }
        };
        let is_wanted = |range: Option<(i64, i64)>| range.is_none_or(|(_, most)| most >= since);
        each_batch(session, table, &["ts", "dur"], is_wanted, &mut note, skip)?;
    }
    Ok(span)
}
