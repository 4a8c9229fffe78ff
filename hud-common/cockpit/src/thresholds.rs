//! The thresholds of the rules: the one table of their names, units, defaults and descriptions.
//!
//! The cockpit's `--warn`, the parameters of `hud-analyze findings` and of the SQL function, and the column `thresholds` of
//! the session's table `findings` are made from it.

use std::{fmt::Write as _, string::String};

use serde::{Deserialize, Serialize};

/// The unit of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdUnit {
    /// A duration in ns.
    Nanos,
    /// Thousandths of something, so that comparisons are exact.
    Thousandths,
    /// A number of things.
    Count,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// Its name, that of the field of [`Thresholds`].
    pub name: &'static str,
    /// Its unit.
    pub unit: ThresholdUnit,
    /// Its default.
    pub default: i64,
    /// A description, as one line.
    pub about: &'static str,
    get: fn(&Thresholds) -> i64,
    set: fn(&mut Thresholds, i64),
}

impl Threshold {
    /// Its value.
    pub fn get(&self, of: &Thresholds) -> i64 {
        (self.get)(of)
    }

    /// Sets its value.
    pub fn set(&self, of: &mut Thresholds, value: i64) {
        (self.set)(of, value);
    }
}

macro_rules! thresholds {
    ($( #[doc = $about:literal] $name:ident: $unit:ident = $default:expr, )+) => {
        /// Thresholds of the rules. Durations in ns, shares and ratios in thousandths.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Thresholds {
            $( #[doc = $about] pub $name: i64, )+
        }

        impl Default for Thresholds {
            fn default() -> Self {
                Thresholds { $( $name: $default, )+ }
            }
        }

        impl Thresholds {
            /// Every threshold.
            pub const TABLE: &'static [Threshold] = &[ $( Threshold {
                name: stringify!($name),
                unit: ThresholdUnit::$unit,
                default: $default,
                about: $about.trim_ascii(),
                get: |of| of.$name,
                set: |of, value| of.$name = value,
            }, )+ ];
        }
    };
}

const MILLI: i64 = 1_000_000;

thresholds! {
    /// duration of a poll that is a caution, time without a CPU excluded
    long_poll: Nanos = 10 * MILLI,
    /// duration of a poll that is a warning
    very_long_poll: Nanos = 100 * MILLI,
    /// minimum duration of a sleep inside a poll that is listed as blocking, at least 1 ms
    asleep: Nanos = MILLI,
    /// maximum 99th percentile of wake-to-poll latency
    wake_delay_p99: Nanos = 5 * MILLI,
    /// minimum number of latencies for a percentile
    wake_delay_count: Count = 100,
    /// maximum share of their busy time that workers may wait for a CPU if latency is judged, in thousandths
    wake_delay_waiting: Thousandths = 200,
    /// maximum share of a worker's time that one task may compute while polls are not recorded, in thousandths
    cpu_share: Thousandths = 400,
    /// maximum time per second that sleeps inside polls, none longer than `long_poll`, of one type of task may take
    short_sleeps: Nanos = 30 * MILLI,
    /// maximum share of its time that a worker may be asleep inside polls, in thousandths
    worker_blocked: Thousandths = 500,
    /// maximum ratio of the busiest to the least busy worker's share of CPU time, in thousandths
    imbalance: Thousandths = 3_000,
    /// minimum share of its time that the busiest worker is on a CPU, in thousandths
    imbalance_busy: Thousandths = 300,
    /// maximum share of its time that the blocking pool may be busy, in thousandths
    pool_busy: Thousandths = 950,
    /// minimum number of threads of the blocking pool
    pool_threads: Count = 4,
    /// minimum number of spawns of a type that count as growth
    growth: Count = 100,
    /// maximum number of ends as a share of these spawns, in thousandths
    growth_ended: Thousandths = 100,
    /// minimum growth of the number of threads
    threads_grow: Count = 20,
    /// minimum growth of the number of open file descriptors
    fds_grow: Count = 50,
    /// minimum growth of resident memory, in bytes
    memory_grow: Count = 16 << 20,
    /// minimum ratio of the last to the first value of a quantity that grows, in thousandths
    grow_ratio: Thousandths = 1_250,
    /// minimum time for which it grows
    grow_time: Nanos = 3_500 * MILLI,
    /// minimum number of tasks of a type that panicked
    panics: Count = 1,
    /// minimum number of tasks of a type that were cancelled
    cancelled: Count = 50,
    /// minimum share of these in the type's tasks that ended, in thousandths
    cancelled_share: Thousandths = 500,
    /// maximum number of wakes of a task by itself, per second
    self_wakes: Count = 1_000,
    /// minimum share of these in the task's wakes, in thousandths
    self_wakes_share: Thousandths = 500,
    /// minimum number of other tasks that a type's tasks wake per poll
    wake_storm: Count = 100,
    /// minimum number of these wakes per second
    wake_storm_rate: Count = 5_000,
    /// minimum number of tasks of a type that are spawned per second and worker
    spawn_rate: Count = 10_000,
    /// duration of a wait for a lock whose holder slept, at least 1 ms
    lock_wait: Nanos = MILLI,
    /// maximum time per second that tasks of a type may wait for locks whose holders compute
    lock_busy: Nanos = 30 * MILLI,
    /// duration of a poll in progress, or of a deadlock of tasks, that is a warning
    stuck: Nanos = 1_000 * MILLI,
    /// minimum time for which a thread or a stream was observed
    observed: Nanos = 500 * MILLI,
}

impl Thresholds {
    /// The line of the table with this name.
    pub fn named(name: &str) -> Option<&'static Threshold> {
        Self::TABLE.iter().find(|threshold| threshold.name == name)
    }

    /// All values on a line: `long_poll=10000000,…`.
    pub fn line(&self) -> String {
        let mut line = String::new();
        for threshold in Self::TABLE {
            let comma = if line.is_empty() { "" } else { "," };
            let _ = write!(line, "{comma}{}={}", threshold.name, threshold.get(self));
        }
        line
    }
}
