//! The values of the dials, over a window and in each second of it.

use super::{Bucket, Counts, Dial, Dials, Histogram, Load, Names, Snapshot, Sums, TaskKind, Tick};

const SECOND: i64 = 1_000_000_000;
/// Buckets in a second.
const BUCKETS: usize = 10;

impl Dials {
    /// What some buckets say: rate and load.
    pub fn of(ticks: &[Tick]) -> Self {
        let (mut load, mut polls, mut recorded) = (Load::default(), 0_i64, 0_i64);
        for tick in ticks {
            load.add(&tick.load);
            polls = polls.saturating_add(tick.polls);
            recorded = recorded.saturating_add(tick.polls_recorded);
        }
        // Rows are evidence that polls were recorded, for how long is reported later.
        let length = i64::try_from(ticks.len()).unwrap_or(i64::MAX).saturating_mul(Bucket::NANOS);
        let recorded = if recorded == 0 && polls > 0 { length } else { recorded };
        let share = |part: i64| (load.observed() > 0).then(|| load.share(part));
        let mut dials = Dials::default();
        let rate = i128::from(polls) * i128::from(SECOND) / i128::from(recorded.max(1));
        dials.set(Dial::PollRate, (recorded > 0).then(|| i64::try_from(rate).unwrap_or(i64::MAX)));
        dials.set(Dial::Busy, share(load.running));
        dials.set(Dial::Starved, share(load.waiting));
        dials.set(Dial::Blocked, share(load.blocked));
        dials
    }

    /// The same for each complete second, by its start.
    pub fn by_second(ticks: &[Tick]) -> Vec<(i64, Dials)> {
        let second = |tick: &Tick| tick.ts.div_euclid(SECOND);
        let whole = ticks.chunk_by(|a, b| second(a) == second(b)).filter(|of| of.len() == BUCKETS);
        whole.filter_map(|of| Some((second(of.first()?).saturating_mul(SECOND), Dials::of(of)))).collect()
    }
}

impl Snapshot {
    /// Adds the percentiles of single seconds, from their sums.
    pub fn add_seconds<'a>(&mut self, seconds: impl Iterator<Item = (i64, &'a Sums)>, names: &Names) {
        let p99 = |of: &super::Map<Option<super::TypeId>, Counts>| {
            let mut all = Counts::default();
            let tasks = of.iter().filter(|(id, _)| names.kind_of_type(**id) == TaskKind::Task);
            tasks.for_each(|(_, counts)| all.merge(counts));
            Histogram::from(&all).percentile(990)
        };
        self.seconds = seconds
            .map(|(ts, sums)| {
                let mut dials = Dials::default();
                dials.set(Dial::PollTime, p99(&sums.durations));
                dials.set(Dial::WakeDelay, p99(&sums.delays));
                (ts, dials)
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn tick(bucket: i64, polls: i64, polls_recorded: i64) -> Tick {
        Tick {
            ts: bucket * Bucket::NANOS,
            load: Load { running: 30, blocked: 10, waiting: 20, idle: 40 },
            polls,
            polls_recorded,
            cpu: 0,
            longest_poll: 0,
            longest_block: 0,
            lost: 0,
            status: Status::Normal,
        }
    }

    #[test]
    fn a_rate_is_of_the_time_in_which_polls_were_recorded() {
        let half: Vec<Tick> = (0..10).map(|n| tick(n, 5, Bucket::NANOS / 2)).collect();
        let dials = Dials::of(&half);
        let values = Dial::ALL.map(|dial| dials.get(dial));
        assert_eq!(values, [Some(100), None, None, Some(300), Some(200), Some(100)]);
        assert_eq!(Dials::of(&[tick(0, 0, 0)]).get(Dial::PollRate), None, "not recorded");
        assert_eq!(Dials::of(&[tick(0, 3, 0)]).get(Dial::PollRate), Some(30), "not reported yet");
    }

    #[test]
    fn only_complete_seconds_count() {
        let ticks: Vec<Tick> = (7..32).map(|n| tick(n, 1, Bucket::NANOS)).collect();
        let seconds: Vec<i64> = Dials::by_second(&ticks).into_iter().map(|(ts, _)| ts).collect();
        assert_eq!(seconds, [SECOND, 2 * SECOND]);
    }
}
