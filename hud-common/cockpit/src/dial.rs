//! The dials: six figures that say how a program does.

use serde::{Deserialize, Serialize};

/// One of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dial {
    /// Polls of tasks per second, of the time in which polls were recorded.
    PollRate,
    /// 99th percentile of their durations (ns).
    PollTime,
    /// 99th percentile of the wake-to-poll latencies (ns).
    WakeDelay,
    /// Share of the workers' time on a CPU (thousandths).
    Busy,
    /// Share of the workers' time runnable without a CPU (thousandths).
    Starved,
    /// Share of the workers' time asleep inside tasks (thousandths).
    Blocked,
}

impl Dial {
    /// Every dial.
    pub const ALL: [Dial; 6] =
        [Dial::PollRate, Dial::PollTime, Dial::WakeDelay, Dial::Busy, Dial::Starved, Dial::Blocked];

    const fn index(self) -> usize {
        match self {
            Dial::PollRate => 0,
            Dial::PollTime => 1,
            Dial::WakeDelay => 2,
            Dial::Busy => 3,
            Dial::Starved => 4,
            Dial::Blocked => 5,
        }
    }
}

/// A value of each dial; `None` if it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dials([Option<i64>; Dial::ALL.len()]);

impl Dials {
    /// The value of a dial.
    pub fn get(&self, dial: Dial) -> Option<i64> {
        self.0.get(dial.index()).copied().flatten()
    }

    /// Sets the value of a dial.
    pub fn set(&mut self, dial: Dial, value: Option<i64>) {
        if let Some(known) = self.0.get_mut(dial.index()) {
            *known = value;
        }
    }

    /// Takes the known values of another one.
    pub fn update(&mut self, newer: &Dials) {
        for (known, new) in self.0.iter_mut().zip(newer.0) {
            *known = new.or(*known);
        }
    }
}
