//! From when on something is worth a word: the one place of every threshold of the rules.

use serde::{Deserialize, Serialize};

/// What the rules hold a window against. Durations in ns; shares in thousandths, so that all of it is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    /// A poll this long is a caution: no other task of its worker ran meanwhile.
    pub long_poll: i64,
    /// A poll this long is a warning.
    pub very_long_poll: i64,
    /// A stretch of sleep inside a poll this long is listed as blocking. At least [`super::STRETCH_MIN`].
    pub asleep: i64,
    /// The 99th percentile of wake-to-poll delays from which on workers do not keep up.
    pub wake_delay_p99: i64,
    /// The least wakes of which a percentile is taken.
    pub wake_delay_count: u64,
    /// The share of a worker's time that one task may compute, where polls are not recorded (thousandths).
    pub cpu_share: u32,
    /// Sleeps inside polls, each shorter than [`super::STRETCH_MIN`], that a type of task may come to each second.
    pub short_sleeps: i64,
    /// The share of its time that a worker may be asleep inside polls (thousandths).
    pub worker_blocked: u32,
    /// How many times as busy the busiest worker of a runtime may be as the least busy one (thousandths).
    pub imbalance: u32,
    /// Only where the busiest is this busy (thousandths of its time).
    pub imbalance_busy: u32,
    /// The share of its time that the blocking pool, as a whole, may be at work (thousandths).
    pub pool_busy: u32,
    /// Only where the pool has this many threads.
    pub pool_threads: usize,
    /// Spawns of one type in the window, of which next to none ended, that count as growth.
    pub growth: i64,
    /// What counts as next to none: this share of the spawns (thousandths).
    pub growth_ended: u32,
    /// Wakes of a task by itself, each second.
    pub self_wakes: i64,
    /// Only where they are this share of its wakes (thousandths).
    pub self_wakes_share: u32,
    /// A wait this long for a lock whose inferred holder slept.
    pub lock_wait: i64,
    /// The least that a worker must have been observed for its shares to say something.
    pub observed: i64,
}

const MILLI: i64 = 1_000_000;

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            long_poll: 10 * MILLI,
            very_long_poll: 100 * MILLI,
            asleep: MILLI,
            wake_delay_p99: 5 * MILLI,
            wake_delay_count: 100,
            cpu_share: 400,
            short_sleeps: 30 * MILLI,
            worker_blocked: 500,
            imbalance: 3_000,
            imbalance_busy: 300,
            pool_busy: 950,
            pool_threads: 4,
            growth: 100,
            growth_ended: 100,
            self_wakes: 1_000,
            self_wakes_share: 500,
            lock_wait: MILLI,
            observed: 500 * MILLI,
        }
    }
}
