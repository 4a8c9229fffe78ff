//! The dials of past seconds, as far as they were shown or read in the background.

use std::collections::BTreeMap;

use crate::{Dial, Dials, Snapshot, Tick};

/// Maximum number of seconds: two hours. Beyond it, the oldest are discarded.
const MOST_SECONDS: usize = 7_200;
const SECOND: i64 = 1_000_000_000;

/// The dials by second.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    seconds: BTreeMap<i64, Dials>,
}

impl Trend {
    /// Adds what a snapshot says of single seconds.
    pub(super) fn learn(&mut self, snapshot: &Snapshot) {
        self.add(&snapshot.seconds);
    }

    /// Adds complete seconds of consecutive buckets.
    pub(super) fn learn_ticks(&mut self, ticks: &[Tick]) {
        self.add(&Dials::by_second(ticks));
    }

    fn add(&mut self, seconds: &[(i64, Dials)]) {
        for (ts, dials) in seconds {
            self.seconds.entry(ts.div_euclid(SECOND)).or_default().update(dials);
        }
        while self.seconds.len() > MOST_SECONDS {
            self.seconds.pop_first();
        }
    }

    /// The greatest value of a dial in each part of the last `seconds` before `at`, in `parts` of equal length.
    pub(super) fn of(&self, dial: Dial, at: i64, seconds: i64, parts: u16) -> Vec<Option<i64>> {
        // The second that contains the instant is not complete.
        let end = at.div_euclid(SECOND);
        let edge =
            |part: u16| end.saturating_sub(seconds).saturating_add(seconds * i64::from(part) / i64::from(parts.max(1)));
        let most = |part: u16| {
            let (from, to) = (edge(part), edge(part + 1).max(edge(part) + 1));
            self.seconds.range(from..to).filter_map(|(_, dials)| dials.get(dial)).max()
        };
        (0..parts).map(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_greatest_value_of_each_part() {
        let mut trend = Trend::default();
        let dials = |value: i64| {
            let mut dials = Dials::default();
            dials.set(Dial::Busy, Some(value));
            dials
        };
        trend.add(&(40..60).map(|second| (second * SECOND, dials(second))).collect::<Vec<_>>());
        let shown = trend.of(Dial::Busy, 60 * SECOND + 5, 60, 6);
        assert_eq!(shown, [None, None, None, None, Some(49), Some(59)]);
        assert_eq!(trend.of(Dial::Blocked, 60 * SECOND, 60, 2), [None, None]);
        // A value that is known already is not lost.
        trend.add(&[(59 * SECOND, Dials::default())]);
        assert_eq!(trend.of(Dial::Busy, 60 * SECOND, 60, 60).last(), Some(&Some(59)));
        trend.add(&(0..20_000).map(|second| (second * SECOND, dials(1))).collect::<Vec<_>>());
        assert_eq!(trend.seconds.len(), MOST_SECONDS);
    }
}
