//! Confidence intervals of changes, by bootstrap over blocks of time.
//!
//! Events that are close in time are correlated, so blocks of time are resampled with replacement, not events (the block
//! bootstrap of Künsch 1989, without overlap). The generator has a fixed seed, so that results are reproducible.

/// Number of blocks of a window.
pub(crate) const BLOCKS: usize = 64;
/// Number of resamples.
const RESAMPLES: usize = 400;
/// Resamples outside the interval on each side: 2.5 %.
const TAIL: usize = RESAMPLES / 40;

/// A histogram: lower limit and count of each bucket. A bucket is a sixteenth of an octave wide; below 32 it is exact.
pub(crate) type Counts = Vec<(i64, u64)>;

/// Events of a scope in one block of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Block {
    /// Recorded time (ns).
    pub(crate) recorded: i64,
    /// Number of events.
    pub(crate) count: u64,
    /// Sum of their durations (ns).
    pub(crate) total: i64,
    /// The longest (ns).
    pub(crate) largest: i64,
    /// Histogram of their durations.
    pub(crate) sizes: Counts,
}

/// A statistic of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Events per second.
    Rate,
    /// Sum of durations divided by the recorded time: a share of one CPU, or of one thread's time.
    Share,
    /// Mean duration.
    Mean,
    /// A quantile of durations, in thousandths.
    Quantile(u32),
    /// The longest duration. It has no interval, as it is in one block.
    Largest,
}

impl Measure {
    /// The statistic of blocks with their multiplicities; `None` if it is not defined.
    #[allow(clippy::cast_precision_loss, reason = "past 2^53 ns, a day of a hundred CPUs, six digits are left")]
    pub(crate) fn of(self, drawn: &[(&Block, u64)]) -> Option<f64> {
        let sum = |of: fn(&Block) -> i64| drawn.iter().map(|(b, times)| of(b) as f64 * *times as f64).sum::<f64>();
        let recorded = sum(|b| b.recorded);
        let count: u64 = drawn.iter().map(|(block, times)| block.count.saturating_mul(*times)).sum();
        let total = sum(|b| b.total);
        match self {
            Measure::Rate => (recorded > 0.0).then(|| count as f64 / (recorded / 1e9)),
            Measure::Share => (recorded > 0.0).then(|| total / recorded),
            Measure::Mean => (count > 0).then(|| total / count as f64),
            Measure::Largest => {
                drawn.iter().filter(|(b, _)| b.count > 0).map(|(b, _)| b.largest as f64).reduce(f64::max)
            }
            Measure::Quantile(thousandths) => quantile(drawn, count, thousandths),
        }
    }
}

/// The quantile by nearest rank: the middle of its bucket.
#[allow(clippy::cast_precision_loss, reason = "sizes of events are far below 2^53 ns")]
fn quantile(drawn: &[(&Block, u64)], count: u64, thousandths: u32) -> Option<f64> {
    let rank = (u128::from(count) * u128::from(thousandths)).div_ceil(1000).max(1);
    let mut all = [(0_i64, 0_u64); BUCKETS];
    for (block, times) in drawn {
        for (low, n) in &block.sizes {
            if let Some(bucket) = all.get_mut(bucket(*low)) {
                *bucket = (*low, bucket.1.saturating_add(n.saturating_mul(*times)));
            }
        }
    }
    let mut seen = 0_u128;
    let bucket = all.into_iter().find(|(_, n)| {
        seen += u128::from(*n);
        seen >= rank
    });
    bucket.map(|(low, _)| low as f64 + (width(low) - 1) as f64 / 2.0)
}

/// Number of buckets: sixteen per octave.
const BUCKETS: usize = 1024;

/// The index of the bucket with this lower limit.
fn bucket(low: i64) -> usize {
    let low = low.max(0);
    let shift = low.max(16).ilog2() - 4;
    usize::try_from(i64::from(shift) * 16 + (low >> shift)).unwrap_or(0)
}

/// The width of the bucket with this lower limit.
pub(crate) fn width(low: i64) -> i64 {
    let octave = low.max(16).ilog2();
    1 << (octave - 4)
}

/// The change of a statistic from A to B.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) before: Option<f64>,
    pub(crate) after: Option<f64>,
    /// `after / before - 1`; `None` if `before` is 0 or not defined.
    pub(crate) ratio: Option<f64>,
    /// The 95 % confidence interval of the ratio; `None` if too few resamples have a ratio.
    pub(crate) interval: Option<(f64, f64)>,
}

impl Change {
    /// Whether the interval does not contain 0.
    pub(crate) fn is_significant(&self) -> bool {
        self.interval.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// Compares a statistic of two sides.
pub(crate) fn compare(measure: Measure, before: &[Block], after: &[Block]) -> Change {
    let once = |blocks: &[Block]| measure.of(&blocks.iter().map(|block| (block, 1)).collect::<Vec<_>>());
    let (a, b) = (once(before), once(after));
    let ratio = ratio(a, b);
    let mut ratios = Vec::new();
    if measure != Measure::Largest && ratio.is_some() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        ratios.extend((0..RESAMPLES).filter_map(|_| {
            let a = measure.of(&resample(before, &mut random));
            let b = measure.of(&resample(after, &mut random));
            self::ratio(a, b)
        }));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    // With few ratios, the events are in few blocks, and the interval would be too narrow.
    let interval = match (ratios.get(TAIL), ratios.iter().rev().nth(TAIL)) {
        (Some(low), Some(high)) if ratios.len() >= RESAMPLES - 2 * TAIL => Some((*low, *high)),
        _ => None,
    };
    Change { before: a, after: b, ratio, interval }
}

fn ratio(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let (before, after) = (before.filter(|a| *a > 0.0)?, after?);
    Some(after / before - 1.0)
}

/// Resamples blocks with replacement.
fn resample<'a>(blocks: &'a [Block], random: &mut Random) -> Vec<(&'a Block, u64)> {
    let mut times = vec![0_u64; blocks.len()];
    for _ in 0..blocks.len() {
        let place = random.below(blocks.len());
        if let Some(times) = times.get_mut(place) {
            *times += 1;
        }
    }
    blocks.iter().zip(times).filter(|(_, times)| *times > 0).collect()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let most = u64::try_from(below).unwrap_or(u64::MAX).max(1);
        usize::try_from((z ^ (z >> 31)) % most).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of one second with about `count` events of about `size` ns.
    fn blocks(count: u64, size: i64, seed: u64) -> Vec<Block> {
        let mut random = Random(seed);
        let mut block = || {
            let count = count * 9 / 10 + u64::try_from(random.below(usize::try_from(count / 5).unwrap())).unwrap();
            let low = size - size % width(size);
            let total = size * i64::try_from(count).unwrap();
            Block { recorded: 1_000_000_000, count, total, largest: size, sizes: vec![(low, count)] }
        };
        (0..BLOCKS).map(|_| block()).collect()
    }

    #[test]
    fn only_a_change_of_the_load_is_significant() {
        let (a, again, twice) = (blocks(1000, 50_000, 1), blocks(1000, 50_000, 2), blocks(2000, 50_000, 3));
        let same = compare(Measure::Rate, &a, &again);
        assert!(!same.is_significant() && same.ratio.unwrap().abs() < 0.03, "{same:?}");
        let more = compare(Measure::Rate, &a, &twice);
        let (low, high) = more.interval.unwrap();
        assert!(more.is_significant() && low > 0.9 && high < 1.1, "{more:?}");
        assert!(low <= more.ratio.unwrap() && more.ratio.unwrap() <= high);
    }

    #[test]
    fn statistics_refer_to_the_recorded_time() {
        let mut a = blocks(1000, 50_000, 1);
        let whole = compare(Measure::Rate, &a, &a).before.unwrap();
        for block in a.iter_mut().skip(1).step_by(2) {
            *block = Block::default();
        }
        let half = compare(Measure::Rate, &a, &a).before.unwrap();
        assert!((half / whole - 1.0).abs() < 0.05, "{half} of {whole}");
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_exact_ones() {
        let mut random = Random(7);
        let mut values: Vec<i64> = (0..10_000).map(|_| i64::try_from(random.below(5_000_000)).unwrap()).collect();
        let low = |value: i64| value - value % width(value);
        let block = |values: &[i64]| {
            let mut sizes: Counts = Vec::new();
            let mut lows: Vec<_> = values.iter().map(|v| low(*v)).collect();
            lows.sort_unstable();
            for low in lows {
                match sizes.last_mut() {
                    Some((last, n)) if *last == low => *n += 1,
                    _ => sizes.push((low, 1)),
                }
            }
            Block { count: values.len() as u64, sizes, ..Block::default() }
        };
        let parts: Vec<Block> = values.chunks(157).map(block).collect();
        values.sort_unstable();
        for (thousandths, rank) in [(500, 5_000), (990, 9_900), (999, 9_990), (1, 10)] {
            let estimate = compare(Measure::Quantile(thousandths), &parts, &parts).before.unwrap();
            #[allow(clippy::cast_precision_loss)]
            let value = values[rank - 1] as f64;
            assert!((estimate - value).abs() <= value / 31.0 + 1.0, "{thousandths}: {estimate} for {value}");
        }
    }

    #[test]
    fn no_events_before_give_no_ratio() {
        let change = compare(Measure::Mean, &[Block::default()], &blocks(10, 1000, 1));
        assert_eq!((change.before, change.ratio, change.interval), (None, None, None));
        assert!(change.after.is_some() && !change.is_significant());
    }
}
