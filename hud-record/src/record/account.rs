//! The account of a recording: what each stream produced, stored and lost.
//!
//! `produced` and what was lost in the kernel are its counters; `stored` is counted in sealed segments. Nothing here is
//! derived from what it is held against.

use std::collections::BTreeMap;

use hud_common::{
    session::{Columns as _, DropColumns, DropRow, StreamAccount, Table},
    wire::{Counters, Stream},
};

use super::writer::BatchSender;
use crate::probes::stream_counters;

/// Events that came to be so far, in all streams.
pub(super) fn produced(counters: &Counters) -> u64 {
    counters.streams.iter().map(|s| s.produced).sum()
}

/// What each stream produced, stored (by the sealed segments, not by what was sent there) and lost.
pub(super) fn account(
    counters: &Counters,
    own_rows: &[u64; Stream::ALL.len()],
    stored: &BTreeMap<Table, u64>,
) -> BTreeMap<String, StreamAccount> {
    let table = |stream: Stream| Table::ALL.iter().find(|t| t.name() == stream.name());
    Stream::ALL
        .into_iter()
        .zip(own_rows)
        .map(|(stream, own)| {
            let c = stream_counters(counters, stream);
            let account = StreamAccount {
                produced: c.produced + c.untracked + own,
                stored: table(stream).and_then(|t| stored.get(t)).copied().unwrap_or(0),
                dropped: c.lost + c.untracked,
                expired: 0,
            };
            (stream.name().to_string(), account)
        })
        .collect()
}

/// Turns growing loss counters into `drops` rows.
#[derive(Default)]
pub(super) struct DropLog {
    since: i64,
    seen: BTreeMap<(&'static str, &'static str), u64>,
    rows: DropColumns,
}

impl DropLog {
    /// Writes a row for every loss that is new since the last look.
    pub(super) fn note(&mut self, now: i64, counters: &Counters, undecoded: u64, out: &BatchSender) {
        for stream in Stream::ALL {
            let c = stream_counters(counters, stream);
            self.one(now, stream.name(), "ring", c.lost);
            self.one(now, stream.name(), "untracked", c.untracked);
        }
        self.one(now, "all", "decode", undecoded);
        self.since = now;
        out.send(&mut self.rows);
    }

    fn one(&mut self, now: i64, stream: &'static str, stage: &'static str, total: u64) {
        let seen = self.seen.entry((stream, stage)).or_default();
        let lost = total.saturating_sub(*seen);
        *seen = total;
        if lost > 0 {
            let since = if self.since == 0 { now } else { self.since };
            self.rows.push(DropRow {
                ts: since,
                dur: now - since,
                stream: stream.into(),
                stage: stage.into(),
                lost: i64::try_from(lost).unwrap_or(i64::MAX),
            });
        }
    }

    /// All losses so far.
    pub(super) fn total(&self) -> u64 {
        self.seen.values().sum()
    }
}
