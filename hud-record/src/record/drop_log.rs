//! The rows of `drops`: events lost in the kernel or for want of memory.

use std::collections::BTreeMap;

use hud_common::{
    session::{Columns as _, DropColumns, DropRow, Table},
    wire::{Counters, Stream},
};

use super::queue::BatchSender;
use crate::probes::stream_counters;

/// The stage of losses for lack of the recorder's memory.
pub(super) const CAPACITY: &str = "capacity";

/// Turns growing loss counters into `drops` rows.
#[derive(Default)]
pub(super) struct DropLog {
    since: i64,
    seen: BTreeMap<(&'static str, &'static str), u64>,
    rows: DropColumns,
}

impl DropLog {
    /// For a session that begins at `now`.
    pub(super) fn new(now: i64) -> Self {
        DropLog { since: now, ..DropLog::default() }
    }

    /// Writes a row for every loss since the last call. `since` are the counters since the baseline.
    pub(super) fn note(&mut self, now: i64, since: &Counters, undecoded: u64, stacks_not_kept: u64, out: &BatchSender) {
        for stream in Stream::ALL {
            let c = stream_counters(since, stream);
            self.one(now, stream.name(), "ring", c.lost);
            self.one(now, stream.name(), "untracked", c.untracked);
        }
        self.one(now, "all", "decode", undecoded);
        self.one(now, Table::Stacks.name(), CAPACITY, stacks_not_kept);
        self.since = now;
        out.send(&mut self.rows);
    }

    fn one(&mut self, now: i64, stream: &'static str, stage: &'static str, total: u64) {
        let seen = self.seen.entry((stream, stage)).or_default();
        let lost = total.saturating_sub(*seen);
        *seen = total;
        if lost > 0 {
            self.rows.push(DropRow {
                ts: self.since,
                dur: now - self.since,
                stream: stream.into(),
                stage: stage.into(),
                lost: i64::try_from(lost).unwrap_or(i64::MAX),
            });
        }
    }

    /// All events lost so far. Events stored without their stack do not count.
    pub(super) fn total(&self) -> u64 {
        self.seen.iter().filter(|((_, stage), _)| *stage != CAPACITY).map(|(_, lost)| lost).sum()
    }
}
