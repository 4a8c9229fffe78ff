//! Counts of durations by size, in buckets whose width is a sixteenth of their octave.
//!
//! Merging adds counts, so it is exact. A percentile is told as the middle of its bucket: at most 1/32 (3.1 %) off.

use std::vec::Vec;

use serde::{Deserialize, Serialize};

/// Sub-buckets of an octave, as a power of two.
const SUB_BITS: u32 = 4;
const SUB: i64 = 1 << SUB_BITS;

/// Counts of values by [`Histogram::slot`], in order of the slot, without empty ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: Vec<(u16, u64)>,
}

impl Histogram {
    /// The slot of a value (ns): the value itself below 16; above, `16 * (e - 3) + m` where `e` is the place of its highest
    /// bit and `m` the four bits below it. What is negative counts as 0. SQL gets it from this very function, as a user
    /// defined one.
    pub fn slot(value: i64) -> u16 {
        let value = value.max(0);
        if value < SUB {
            return u16::try_from(value).unwrap_or(0);
        }
        let e = value.ilog2();
        let m = (value >> (e - SUB_BITS)) - SUB;
        let octave = i64::from(e - SUB_BITS + 1);
        u16::try_from(octave * SUB + m).unwrap_or(u16::MAX)
    }

    /// The values of a slot: from, and to (inclusive).
    pub fn range(slot: u16) -> (i64, i64) {
        let (octave, m) = (u32::from(slot) >> SUB_BITS, i64::from(slot) & (SUB - 1));
        if octave == 0 {
            return (m, m);
        }
        let shift = (octave - 1).min(i64::BITS - 2 - SUB_BITS);
        let from = (SUB + m) << shift;
        (from, from.saturating_add((1 << shift) - 1))
    }

    /// Adds `count` values of a slot.
    pub fn add(&mut self, slot: u16, count: u64) {
        if count == 0 {
            return;
        }
        match self.counts.binary_search_by_key(&slot, |(s, _)| *s) {
            Ok(at) => {
                if let Some((_, n)) = self.counts.get_mut(at) {
                    *n = n.saturating_add(count);
                }
            }
            Err(at) => self.counts.insert(at, (slot, count)),
        }
    }

    /// Adds a value (ns).
    pub fn record(&mut self, value: i64) {
        self.add(Self::slot(value), 1);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Histogram) {
        for &(slot, count) in &other.counts {
            self.add(slot, count);
        }
    }

    /// Slots and counts, by slot.
    pub fn counts(&self) -> &[(u16, u64)] {
        &self.counts
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |n, (_, c)| n.saturating_add(*c))
    }

    /// The value at `thousandths` of the values in order, by nearest rank: the middle of its slot; `None` where there is
    /// no value. 500 is the median, 990 the 99th percentile.
    pub fn percentile(&self, thousandths: u32) -> Option<i64> {
        let count = u128::from(self.count());
        let rank = (count * u128::from(thousandths.min(1000))).div_ceil(1000).max(1);
        let mut before = 0;
        for &(slot, n) in &self.counts {
            before += u128::from(n);
            if before >= rank {
                let (from, to) = Self::range(slot);
                return Some(from + (to - from) / 2);
            }
        }
        None
    }

    /// Values of at least `value`, counted by whole slots from the one that holds it.
    pub fn at_least(&self, value: i64) -> u64 {
        let slot = Self::slot(value);
        self.counts.iter().filter(|(s, _)| *s >= slot).fold(0, |n, (_, c)| n.saturating_add(*c))
    }
}

/// A histogram with its percentiles and exact ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The counts.
    pub histogram: Histogram,
    /// How many.
    pub count: u64,
    /// Their sum (ns), exact.
    pub sum: i64,
    /// The longest (ns), exact.
    pub longest: i64,
    /// The median (ns), at most 3.1 % off; `None` where there is no value.
    pub p50: Option<i64>,
    /// The 90th percentile.
    pub p90: Option<i64>,
    /// The 99th.
    pub p99: Option<i64>,
    /// The 99.9th.
    pub p999: Option<i64>,
}

impl Distribution {
    /// Of a histogram, and what is known exactly beside it.
    pub fn of(histogram: Histogram, sum: i64, longest: i64) -> Self {
        // No percentile lies past the longest, which is known.
        let at = |thousandths| histogram.percentile(thousandths).map(|v| v.min(longest.max(0)));
        Distribution {
            count: histogram.count(),
            sum,
            longest,
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            histogram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_each_other_without_gap_and_are_narrow() {
        let last = Histogram::slot(i64::MAX);
        let mut next = 0;
        for slot in 0..=last {
            let (from, to) = Histogram::range(slot);
            assert_eq!(from, next, "slot {slot}");
            assert_eq!((Histogram::slot(from), Histogram::slot(to)), (slot, slot));
            assert!((to - from) / 2 <= from / 32 + 1, "slot {slot}: {from} to {to}");
            next = to.saturating_add(1);
        }
        assert_eq!(Histogram::range(last).1, i64::MAX);
    }

    #[test]
    fn percentiles_are_within_five_percent() {
        let mut histogram = Histogram::default();
        for value in 1..=100_000 {
            histogram.record(value * 1_000);
        }
        for (thousandths, exact) in
            [(500, 50_000_000_f64), (900, 90_000_000.0), (990, 99_000_000.0), (999, 99_900_000.0)]
        {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let told = histogram.percentile(thousandths).unwrap_or(0) as f64;
            assert!((told / exact - 1.0).abs() < 0.05, "{thousandths}: {told}");
        }
        assert_eq!(Histogram::default().percentile(500), None);
    }
}
