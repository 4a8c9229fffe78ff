//! Load and anomalies of the whole session by bucket: for the scrubber, and for the next and previous anomaly.
//!
//! It is filled from every snapshot that is shown, and from an overview that the session's source may send. Beyond
//! [`MOST_TICKS`] entries, the length of an entry doubles: a session of any length takes the same memory.

use std::collections::BTreeMap;

use crate::{Bucket, Dial, Snapshot, Status, Tick};

use super::trend::Trend;

/// Maximum number of entries: at 100 ms each, over an hour. A frame reads all of them.
const MOST_TICKS: usize = 40_000;

/// An entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ui) struct Mark {
    /// Load of the workers (thousandths).
    pub(in crate::ui) busy: i64,
    /// The worst status.
    pub(in crate::ui) status: Option<Status>,
    /// Whether events were lost in it.
    pub(in crate::ui) lost: bool,
    /// Whether there were any events.
    pub(in crate::ui) any: bool,
}

/// The whole session, as far as it is known.
#[derive(Clone, Debug)]
pub struct Strip {
    /// The length of an entry (ns).
    step: i64,
    marks: BTreeMap<i64, Mark>,
    trend: Trend,
}

impl Default for Strip {
    fn default() -> Self {
        Strip { step: Bucket::NANOS, marks: BTreeMap::new(), trend: Trend::default() }
    }
}

impl Strip {
    /// Adds what a snapshot shows.
    pub fn learn_from(&mut self, snapshot: &Snapshot) {
        self.learn(&snapshot.history);
        self.trend.learn(snapshot);
    }

    /// Adds buckets. A bucket that was still being written is replaced by that of the next snapshot.
    pub fn learn(&mut self, ticks: &[Tick]) {
        self.trend.learn_ticks(ticks);
        for tick in ticks {
            let new = Mark {
                busy: tick.load.share(tick.load.running.saturating_add(tick.load.blocked)),
                status: (tick.status != Status::Normal).then_some(tick.status),
                lost: tick.lost > 0,
                any: tick.polls > 0 || tick.cpu > 0 || tick.longest_block > 0,
            };
            let at = tick.ts.div_euclid(self.step);
            if self.step == Bucket::NANOS {
                self.marks.insert(at, new);
            } else {
                let mark = self.marks.entry(at).or_default();
                *mark = merged(*mark, new);
            }
        }
        while self.marks.len() > MOST_TICKS {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.step = self.step.saturating_mul(2);
        let mut marks: BTreeMap<i64, Mark> = BTreeMap::new();
        for (at, mark) in std::mem::take(&mut self.marks) {
            let both = marks.entry(at.div_euclid(2)).or_default();
            *both = merged(*both, mark);
        }
        self.marks = marks;
    }

    /// The merged entries between two instants; `None` if there are none.
    pub(in crate::ui) fn between(&self, from: i64, to: i64) -> Option<Mark> {
        let last = to.saturating_sub(1).div_euclid(self.step);
        let first = from.div_euclid(self.step).min(last);
        self.marks.range(first..=last).map(|(_, mark)| *mark).reduce(merged)
    }

    /// The last seconds of a dial, in parts of equal length.
    pub(in crate::ui) fn trend(&self, dial: Dial, at: i64, seconds: i64, parts: u16) -> Vec<Option<i64>> {
        self.trend.of(dial, at, seconds, parts)
    }

    /// The first instant after `at` at which a new anomaly is in the window.
    pub(in crate::ui) fn next_anomaly(&self, at: i64) -> Option<i64> {
        self.anomalies().find(|ts| *ts > at)
    }

    /// The last such instant before `at`.
    pub(in crate::ui) fn previous_anomaly(&self, at: i64) -> Option<i64> {
        self.anomalies().take_while(|ts| *ts < at).last()
    }

    /// The end of the first bucket of each run of anomalies.
    fn anomalies(&self) -> impl Iterator<Item = i64> + '_ {
        let mut last = None;
        self.marks.iter().filter(|(_, mark)| mark.status.is_some()).filter_map(move |(at, _)| {
            let follows = last == Some(at.saturating_sub(1));
            last = Some(*at);
            (!follows).then(|| at.saturating_add(1).saturating_mul(self.step))
        })
    }

    /// The end of the next, or previous, bucket with events.
    pub(in crate::ui) fn step(&self, at: i64, is_forward: bool) -> Option<i64> {
        let here = at.saturating_sub(1).div_euclid(self.step);
        let found = if is_forward {
            self.marks.range(here.saturating_add(1)..).find(|(_, mark)| mark.any)
        } else {
            self.marks.range(..here).rev().find(|(_, mark)| mark.any)
        };
        found.map(|(at, _)| at.saturating_add(1).saturating_mul(self.step))
    }
}

fn merged(a: Mark, b: Mark) -> Mark {
    Mark { busy: a.busy.max(b.busy), status: a.status.max(b.status), lost: a.lost || b.lost, any: a.any || b.any }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Load;

    fn tick(bucket: i64, status: Status) -> Tick {
        Tick {
            ts: bucket * Bucket::NANOS,
            load: Load { running: 1, ..Load::default() },
            polls: 1,
            polls_recorded: Bucket::NANOS,
            cpu: 0,
            longest_poll: 0,
            longest_block: 0,
            lost: 0,
            status,
        }
    }

    #[test]
    fn finds_runs_of_anomalies() {
        let mut strip = Strip::default();
        strip.learn(&[10, 11, 12, 20].map(|at| tick(at, Status::Warning)));
        strip.learn(&[13, 19].map(|at| tick(at, Status::Normal)));
        let end = |bucket: i64| (bucket + 1) * Bucket::NANOS;
        assert_eq!(strip.next_anomaly(0), Some(end(10)));
        assert_eq!(strip.next_anomaly(end(10)), Some(end(20)));
        assert_eq!(strip.next_anomaly(end(20)), None);
        assert_eq!(strip.previous_anomaly(end(20)), Some(end(10)));
        assert_eq!(strip.step(end(13), true), Some(end(19)));
        assert_eq!(strip.step(end(19), false), Some(end(13)));
    }

    #[test]
    fn a_session_of_any_length_takes_bounded_memory() {
        let mut strip = Strip::default();
        for hour in 0..4 {
            let ticks: Vec<Tick> = (0..36_000).map(|at| tick(hour * 36_000 + at, Status::Normal)).collect();
            strip.learn(&ticks);
        }
        strip.learn(&[tick(7, Status::Caution)]);
        assert!(strip.marks.len() <= MOST_TICKS);
        assert_eq!(strip.between(0, 100 * Bucket::NANOS).and_then(|mark| mark.status), Some(Status::Caution));
    }
}
