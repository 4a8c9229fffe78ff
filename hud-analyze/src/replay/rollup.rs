//! The rollups of a session that was recorded without them: the recorder's code over the rows that replay reads.

use arrow::array::RecordBatch;
use hud_common::{
    cockpit::{Bucket, Ingest, MINUTE, Minutes, Mode, Query, RANGE, Resolution, SessionFacts, View, Window},
    session::Table,
};

use super::{
    segment_reader::{EVENTS, take_in, touching},
    source::Replay,
};
use crate::error::{Error, Result};

/// Buckets in a minute.
const MINUTE_BUCKETS: i64 = MINUTE / Bucket::NANOS;

impl Replay {
    /// Calls `each` with the rows of the tables `rollup_*`, in order of time.
    pub(crate) fn rollups(&mut self, mut each: impl FnMut(Vec<(Table, RecordBatch)>) -> Result<()>) -> Result<()> {
        let to = self.limits.to.min(Bucket::of(self.last()).next());
        let mut ingest = Ingest::new(self.limits.from, self.limits.from).with_resolution(Resolution::Rules);
        ingest.names = std::mem::take(&mut self.names);
        let mut minutes = Minutes::default();
        let mut from = self.limits.from;
        while from < to {
            let past =
                Bucket(from.0.div_euclid(MINUTE_BUCKETS).saturating_add(1).saturating_mul(MINUTE_BUCKETS)).min(to);
            let window = Window { from, to: past };
            if touching(&self.parts, window, &EVENTS).next().is_some() {
                ingest.advance(from, past);
                take_in(&mut ingest, &self.index.reader, touching(&self.parts, window, &EVENTS), &mut || true);
                self.judge(&mut ingest, window, &mut minutes);
                ingest.prune();
            }
            minutes.close();
            each(minutes.take())?;
            from = past;
        }
        self.names = ingest.names;
        // Replay shows damage and continues; sums must not look complete without these rows.
        self.damage().into_iter().next().map_or(Ok(()), |damage| Err(Error::Query(damage)))
    }

    /// Adds the ranges of a minute.
    fn judge(&self, ingest: &mut Ingest, minute: Window, minutes: &mut Minutes) {
        ingest.buckets.settle(minute.from, minute.to);
        let mut from = minute.from;
        while from < minute.to {
            let to = Bucket(from.0.div_euclid(RANGE).saturating_add(1).saturating_mul(RANGE)).min(minute.to);
            let range = Window { from, to };
            let ranges =
                ingest.buckets.take_ranges(Bucket(from.0.div_euclid(RANGE).saturating_add(1).saturating_mul(RANGE)));
            let query = Query { at: Some(range.end()), window: range.dur(), ..Query::default() };
            let (_, rollup) = View {
                query: &query,
                at: range.end(),
                partials: ingest.buckets.partials(),
                total: None,
                names: &mut ingest.names,
                detail: None,
                session: SessionFacts::default(),
                mode: Mode::Replay,
                coverage_until: self.coverage_until,
                read_from: None,
            }
            .rollup(&ranges);
            minutes.add(range, rollup);
            from = to;
        }
    }
}
