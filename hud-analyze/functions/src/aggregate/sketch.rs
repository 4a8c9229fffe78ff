//! The values of one group: a count for each of the cockpit's buckets, and the extremes.
//!
//! Few buckets are kept sorted, as in the cockpit; from [`FEW`] on there is a count for every bucket, so that a value
//! costs one addition. Merging adds counts: it is exact and independent of order.

use std::sync::LazyLock;

use hud_common::cockpit::Histogram;

/// Number of buckets up to which they are kept sorted: 16 bytes each; an array of all takes 7.7 kB.
const FEW: usize = 48;

/// The number of all buckets.
pub(super) static SLOTS: LazyLock<usize> = LazyLock::new(|| usize::from(Histogram::slot(i64::MAX)) + 1);

#[derive(Clone, Debug)]
enum Counts {
    Few(Histogram),
    Many(Box<[u64]>),
}

/// The values of a group.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    counts: Counts,
    least: i64,
    greatest: i64,
}

impl Default for Sketch {
    fn default() -> Self {
        Sketch { counts: Counts::Few(Histogram::default()), least: i64::MAX, greatest: 0 }
    }
}

impl Sketch {
    /// Adds a value.
    #[inline]
    pub(super) fn record(&mut self, value: i64) {
        let value = value.max(0);
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
        self.count(Histogram::slot(value), 1);
    }

    /// Adds `count` values of a bucket; the caller [extends](Sketch::extend) the extremes.
    #[inline]
    pub(super) fn count(&mut self, slot: u16, count: u64) {
        match &mut self.counts {
            Counts::Few(few) => {
                few.add(slot, count);
                if few.counts().len() > FEW {
                    let mut many = vec![0; *SLOTS].into_boxed_slice();
                    for (slot, count) in few.counts() {
                        add(&mut many, *slot, *count);
                    }
                    self.counts = Counts::Many(many);
                }
            }
            Counts::Many(many) => add(many, slot, count),
        }
    }

    /// Merges the extremes of other values.
    pub(super) fn extend(&mut self, least: i64, greatest: i64) {
        self.least = self.least.min(least.max(0));
        self.greatest = self.greatest.max(greatest.max(0));
    }

    /// Non-empty buckets with their counts, in order.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        let (few, many): (&[(u16, u64)], &[u64]) = match &self.counts {
            Counts::Few(few) => (few.counts(), &[]),
            Counts::Many(many) => (&[], many),
        };
        few.iter().copied().chain((0..=u16::MAX).zip(many.iter().copied()).filter(|(_, count)| *count > 0))
    }

    /// Whether there is no value.
    pub(super) fn is_empty(&self) -> bool {
        self.counts().next().is_none()
    }

    /// The least value and the greatest; negative ones as 0.
    pub(super) fn ends(&self) -> (i64, i64) {
        (self.least, self.greatest)
    }

    /// The value at `billionths` of the sorted values, by nearest rank; `None` if there is no value.
    pub(super) fn quantile(&self, billionths: u32) -> Option<i64> {
        let all: u128 = self.counts().map(|(_, count)| u128::from(count)).sum();
        let rank = (all * u128::from(billionths)).div_ceil(1_000_000_000).max(1);
        // Both extremes are exact.
        match rank {
            _ if all == 0 => return None,
            1 => return Some(self.least),
            rank if rank == all => return Some(self.greatest),
            _ => {}
        }
        let mut before = 0;
        for (slot, count) in self.counts() {
            before += u128::from(count);
            if before >= rank {
                let (from, to) = Histogram::range(slot);
                return Some((from + (to - from) / 2).max(self.least).min(self.greatest));
            }
        }
        None
    }

    /// Bytes that it takes beside itself.
    pub(super) fn heap(&self) -> usize {
        match &self.counts {
            Counts::Few(few) => few.counts().len().next_power_of_two() * size_of::<(u16, u64)>(),
            Counts::Many(many) => size_of_val(&**many),
        }
    }
}

fn add(many: &mut [u64], slot: u16, count: u64) {
    if let Some(known) = many.get_mut(usize::from(slot)) {
        *known = known.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_buckets_agree_with_the_cockpit() {
        for spread in [3_u32, 60] {
            let (mut sketch, mut cockpit) = (Sketch::default(), Histogram::default());
            for i in 0..5_000_i64 {
                let value = (i * 7_919) % (1 << (i % i64::from(spread))).max(1);
                sketch.record(value);
                cockpit.record(value);
            }
            assert_eq!(sketch.counts().collect::<Vec<_>>(), cockpit.counts());
            for thousandths in [1, 500, 900, 990, 999] {
                assert_eq!(sketch.quantile(thousandths * 1_000_000), cockpit.percentile(thousandths));
            }
        }
    }

    #[test]
    fn counts_end_at_what_they_hold() {
        let mut sketch = Sketch::default();
        sketch.record(i64::MIN);
        sketch.record(i64::MAX);
        for _ in 0..3 {
            sketch.count(3, u64::MAX);
        }
        assert_eq!(sketch.counts().map(|(_, count)| count).max(), Some(u64::MAX));
        assert_eq!(sketch.quantile(1_000_000_000), Some(i64::MAX));
        assert_eq!(sketch.quantile(0), Some(0));
        sketch.count(u16::MAX, 1);
    }
}
