//! The account of a recording: the events that each stream produced, stored and lost.
//!
//! `produced` and the losses in the kernel are its counters; `stored` is counted in sealed segments. No number is
//! derived from those it is compared with, with one exception: when a session continues in the next one without a stop,
//! records still in the ring belong to the next, so the earlier one's `produced` is the number read. The last session
//! of an attachment accounts for the remainder of the kernel's count, so a vanished event is detected there.

use hud_common::{
    session::Table,
    wire::{Counters, Stream, StreamCounters},
};

use crate::probes::stream_counters;

/// A number per stream.
pub(super) type PerStream = [u64; Stream::ALL.len()];

/// Events produced so far, in all streams.
pub(super) fn produced(counters: &Counters) -> u64 {
    counters.streams.iter().map(|s| s.produced).sum()
}

/// Events lost because the ring was full so far, in all streams.
pub(super) fn lost(counters: &Counters) -> u64 {
    counters.streams.iter().map(|s| s.lost).sum()
}

/// The table of a stream's events.
pub(super) fn table_of(stream: Stream) -> Option<Table> {
    Table::ALL.iter().copied().find(|t| t.name() == stream.name())
}

/// The kernel's counts that earlier sessions of the attachment account for.
#[derive(Clone, Copy, Default)]
pub(super) struct Baseline {
    streams: [StreamCounters; Stream::ALL.len()],
    arrivals_missed: u64,
    merged: u64,
}

impl Baseline {
    /// The counters since this baseline.
    pub(super) fn since(&self, now: &Counters) -> Counters {
        let mut since = *now;
        for (to, before) in since.streams.iter_mut().zip(self.streams) {
            to.produced = to.produced.saturating_sub(before.produced);
            to.lost = to.lost.saturating_sub(before.lost);
            to.untracked = to.untracked.saturating_sub(before.untracked);
        }
        since.arrivals_missed = now.arrivals_missed.saturating_sub(self.arrivals_missed);
        since.merged = now.merged.saturating_sub(self.merged);
        since
    }

    /// The next session's baseline if this one ends at `now` after reading `read` events: read and lost events are
    /// accounted for, those in the ring are not.
    pub(super) fn hand_over(&self, now: &Counters, read: &PerStream) -> Baseline {
        let mut next = Baseline { arrivals_missed: now.arrivals_missed, merged: now.merged, ..Baseline::default() };
        for (((to, before), now), read) in next.streams.iter_mut().zip(self.streams).zip(now.streams).zip(read) {
            to.produced = before.produced + read + now.lost.saturating_sub(before.lost);
            to.lost = now.lost;
            to.untracked = now.untracked;
        }
        next
    }

    /// The counters, as of `now`, of the session followed by one with the baseline `next`.
    pub(super) fn until(&self, now: &Counters, next: &Baseline) -> Counters {
        let mut until = *now;
        for (to, handed) in until.streams.iter_mut().zip(next.streams) {
            to.produced = handed.produced;
        }
        self.since(&until)
    }
}

/// The kernel's part of a stream's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelAccount {
    pub(super) stream: Stream,
    /// Events produced, and rows that the recorder added itself.
    pub(super) produced: u64,
    /// Events lost before they were read.
    pub(super) dropped: u64,
}

/// The kernel's part of each stream's account, by the counters since the session's baseline.
pub(super) fn kernel_account(since: &Counters, own_rows: &PerStream) -> Vec<KernelAccount> {
    Stream::ALL
        .into_iter()
        .zip(own_rows)
        .map(|(stream, own)| {
            let c = stream_counters(since, stream);
            KernelAccount { stream, produced: c.produced + c.untracked + own, dropped: c.lost + c.untracked }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_records_in_the_ring_for_the_next_session() {
        let counters = |produced, lost, untracked| {
            let mut c = Counters::default();
            c.streams[0] = StreamCounters { produced, lost, untracked };
            c
        };
        let mut read = PerStream::default();
        read[0] = 80;
        // 100 were produced, 5 lost, 80 read: 15 are in the ring.
        let handed = Baseline::default().hand_over(&counters(100, 5, 2), &read);
        let next = handed.since(&counters(130, 7, 2)).streams[0];
        assert_eq!((next.produced, next.lost, next.untracked), (45, 2, 0));
        // In sum: 80 + 5 of the first, 43 + 2 of the second.
        read[0] = 43;
        assert_eq!(handed.hand_over(&counters(130, 7, 2), &read).streams[0].produced, 130);
    }
}
