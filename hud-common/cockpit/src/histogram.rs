//! Histograms of durations, with buckets whose width is a sixteenth of their octave.
//!
//! Merging adds counts, so it is exact. A percentile is the middle of its bucket: its error is at most 1/32 (3.1 %).

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
    /// bit and `m` the four bits below it. Negative values count as 0. SQL has it as a user-defined function.
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

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |n, (_, c)| n.saturating_add(*c))
    }

    /// The value at `thousandths` of the values in order, by nearest rank: the middle of its slot; `None` if there is
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

/// The same counts for millions of additions: an array of all slots from the lowest to the highest octave that occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The first slot of the least octave.
    first: u16,
    /// Counts modulo their size; `carried` has the overflows.
    counts: Vec<u32>,
    /// Number of overflows of a slot's count, by slot.
    carried: Vec<(u16, u32)>,
}

impl Counts {
    /// Adds a value (ns).
    #[inline]
    pub fn record(&mut self, value: i64) {
        let slot = Histogram::slot(value);
        let place = usize::from(slot.wrapping_sub(self.first));
        if let Some(count) = self.counts.get_mut(place)
            && let Some(more) = count.checked_add(1)
        {
            *count = more;
            return;
        }
        self.add(slot, &[1]);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Counts) {
        self.add(other.first, &other.counts);
        other.carried.iter().for_each(|(slot, times)| self.carry(*slot, *times));
    }

    /// Adds to the counts of the slots from `first` on.
    fn add(&mut self, first: u16, more: &[u32]) {
        let Some(last) = u16::try_from(more.len()).ok().and_then(|len| first.checked_add(len.checked_sub(1)?)) else {
            return;
        };
        self.reach(first, last);
        let place = usize::from(first - self.first);
        let mut carries = Vec::new();
        let counts = self.counts.iter_mut().skip(place);
        for ((count, more), slot) in counts.zip(more).zip(first..) {
            let (sum, is_past) = count.overflowing_add(*more);
            *count = sum;
            if is_past {
                carries.push(slot);
            }
        }
        carries.into_iter().for_each(|slot| self.carry(slot, 1));
    }

    fn carry(&mut self, slot: u16, times: u32) {
        match self.carried.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => {
                if let Some((_, n)) = self.carried.get_mut(at) {
                    *n = n.saturating_add(times);
                }
            }
            Err(at) => self.carried.insert(at, (slot, times)),
        }
    }

    /// Extends the array to the slots from `first` to `last`.
    fn reach(&mut self, first: u16, last: u16) {
        let octave = 1 << SUB_BITS;
        let begin = first / octave * octave;
        let past = usize::from(last / octave + 1) * usize::from(octave);
        if self.counts.is_empty() {
            self.first = begin;
        } else if begin < self.first {
            let before = usize::from(self.first - begin);
            self.counts.splice(0..0, core::iter::repeat_n(0, before));
            self.first = begin;
        }
        let len = past - usize::from(self.first);
        if self.counts.len() < len {
            self.counts.resize(len, 0);
        }
    }

    /// Number of octaves, plus one for the overflows, as a measure of memory.
    pub fn len(&self) -> usize {
        1 + (self.counts.len() >> SUB_BITS)
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl From<&Counts> for Histogram {
    fn from(counts: &Counts) -> Self {
        let slots = (counts.first..).zip(counts.counts.iter().map(|n| u64::from(*n)));
        let mut histogram = Histogram { counts: slots.filter(|(_, n)| *n > 0).collect() };
        for (slot, times) in &counts.carried {
            histogram.add(*slot, u64::from(*times) << u32::BITS);
        }
        histogram
    }
}

/// A histogram with its percentiles, exact sum and exact maximum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The counts.
    pub histogram: Histogram,
    /// Number of values.
    pub count: u64,
    /// Their sum (ns), exact.
    pub sum: i64,
    /// The longest (ns), exact.
    pub longest: i64,
    /// The median (ns), with an error of at most 3.1 %; `None` if there is no value.
    pub p50: Option<i64>,
    /// The 90th percentile.
    pub p90: Option<i64>,
    /// The 99th.
    pub p99: Option<i64>,
    /// The 99.9th.
    pub p999: Option<i64>,
}

impl Distribution {
    /// From a histogram, with the exact sum and maximum.
    pub fn of(histogram: Histogram, sum: i64, longest: i64) -> Self {
        // No percentile exceeds the exact maximum.
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
    fn counts_equal_a_histogram_in_any_order() {
        let values = [40_000, 3, 17, 900_000_000, 0, i64::MAX, 40_000, -5, 1_000];
        let (mut all, mut histogram) = (Counts::default(), Histogram::default());
        for value in values {
            all.record(value);
            histogram.record(value);
        }
        assert_eq!(Histogram::from(&all), histogram);
        for cut in 0..=values.len() {
            let (mut head, mut tail) = (Counts::default(), Counts::default());
            let (first, rest) = values.split_at(cut);
            first.iter().rev().for_each(|value| head.record(*value));
            rest.iter().for_each(|value| tail.record(*value));
            tail.merge(&head);
            assert_eq!(tail, all, "cut at {cut}");
        }
    }

    #[test]
    fn counts_overflows() {
        let mut all = Counts::default();
        all.record(5);
        all.record(7_000);
        for _ in 0..33 {
            let once = all.clone();
            all.merge(&once);
        }
        let histogram = Histogram::from(&all);
        assert_eq!(histogram.counts(), [(5, 1 << 33), (Histogram::slot(7_000), 1 << 33)]);
        all.record(5);
        assert_eq!(Histogram::from(&all).count(), (1 << 34) + 1);
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
            let found = histogram.percentile(thousandths).unwrap_or(0) as f64;
            assert!((found / exact - 1.0).abs() < 0.05, "{thousandths}: {found}");
        }
        assert_eq!(Histogram::default().percentile(500), None);
    }
}
