//! The cost of the kernel programs: their run time, counted by the kernel or calculated from the number of runs.
//!
//! The kernel counts while a descriptor for it is open (BPF_ENABLE_STATS, Linux 5.8). That takes 50 ns per run of a
//! program, which at 100,000 context switches a second is 1 % of a CPU. So if programs run often, it is closed once the
//! cost of a run is known, and from then on the run time is calculated.
//!
//! The programs at context switches run at those of all processes, and return at once if it is not the target's. That
//! counts as hud's cost, but not as the target's: a busy neighbour must not use up the target's budget.

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use hud_common::wire::Counters;

/// Runs after which their average is reliable.
const ENOUGH: u64 = 2_000;
/// Runs per second that the kernel may count: a twentieth of a percent of a CPU.
const FEW: f64 = 10_000.0;

/// Interval at which the number of runs is considered (ns).
const CONSIDER_EVERY: u64 = 250_000_000;

/// Initial estimates of a run's time (ns), from the machine of docs/benchmarks.
const SWITCH: f64 = 250.0;
const POLL_HIT: f64 = 350.0;
const OTHER_HIT: f64 = 500.0;
/// A run at another process' switch (ns).
const FOREIGN: f64 = 30.0;
/// Time of a context switch besides the programs (ns): the kernel calls two of them.
pub(crate) const DISPATCH: f64 = 60.0;

/// The descriptor by which the kernel counts; `None` if it does not.
static STATS: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Makes the kernel count, if it does not already. Needs CAP_SYS_ADMIN, which is given up after the attach.
pub(crate) fn begin() -> bool {
    let mut stats = STATS.lock().unwrap_or_else(PoisonError::into_inner);
    if stats.is_none() {
        *stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).ok();
    }
    stats.is_some()
}

fn end() {
    *STATS.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Run times so far (ns).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RunTimes {
    /// Of the always-on programs.
    pub(crate) always_on: f64,
    /// Of those in the target's code.
    pub(crate) probed: f64,
}

/// What the kernel has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// The run times.
    pub(crate) times: RunTimes,
    /// Runs of the always-on programs.
    pub(crate) always_on: u64,
}

/// Counts of the work at context switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// Number of switches.
    pub(crate) count: u64,
    /// Time spent on walks and searches at switches (ns).
    pub(crate) spent: u64,
    /// Time spent on samples (ns).
    pub(crate) sampled: u64,
}

/// Tracks the cost of the programs.
#[derive(Debug)]
pub(crate) struct Costs {
    counts: bool,
    switch: f64,
    poll_hit: f64,
    other_hit: f64,
    /// Added to calculated times, so that they continue from the kernel's last count.
    offset: RunTimes,
    last: RunTimes,
    /// When it was last decided whether the kernel should continue to count, and by then the number of runs and that of runs
    /// at other processes' switches.
    considered: (u64, u64, u64),
    /// Cost of other processes' switches per nanosecond, and when the kernel ceased to count.
    foreign: (f64, u64),
}

impl Costs {
    /// Begins; `counts`: whether the kernel counts.
    pub(crate) fn new(counts: bool) -> Self {
        Costs {
            counts,
            switch: SWITCH,
            poll_hit: POLL_HIT,
            other_hit: OTHER_HIT,
            offset: RunTimes::default(),
            last: RunTimes::default(),
            considered: (0, 0, 0),
            foreign: (0.0, 0),
        }
    }

    /// The minimum cost of a context switch to the target (ns).
    pub(crate) fn switch(&self) -> f64 {
        self.switch + DISPATCH
    }

    /// The run times by `now` (CLOCK_MONOTONIC). `counted` queries the kernel.
    pub(crate) fn run_times(
        &mut self,
        now: u64,
        counters: &Counters,
        switches: Switches,
        counted: impl FnOnce() -> Counted,
    ) -> RunTimes {
        if !self.counts {
            return self.calculated(now, counters, switches);
        }
        let Counted { times, always_on } = counted();
        let foreign = always_on.saturating_sub(2 * switches.count);
        if switches.count >= ENOUGH {
            let rest = times.always_on - float(switches.spent) - float(switches.sampled) - float(foreign) * FOREIGN;
            self.switch = (rest / float(switches.count)).clamp(50.0, 1_000.0);
        }
        let hits = float(counters.poll_hits) + float(counters.other_hits);
        if counters.poll_hits + counters.other_hits >= ENOUGH {
            (self.poll_hit, self.other_hit) = (times.probed / hits, times.probed / hits);
        }
        self.last = times;
        let runs = always_on + counters.poll_hits + counters.other_hits;
        let (then, before, foreign_before) = self.considered;
        if then == 0 || now.saturating_sub(then) >= CONSIDER_EVERY {
            self.considered = (now, runs, foreign);
            let passed = float(now.saturating_sub(then)).max(1.0);
            if then != 0 && float(runs.saturating_sub(before)) > FEW * passed / 1e9 {
                self.foreign = (float(foreign.saturating_sub(foreign_before)) * FOREIGN / passed, now);
                self.calculate(now, counters, switches);
            }
        }
        times
    }

    /// From here on the kernel need not count.
    fn calculate(&mut self, now: u64, counters: &Counters, switches: Switches) {
        self.counts = false;
        end();
        let calculated = self.calculated(now, counters, switches);
        self.offset = RunTimes {
            always_on: self.last.always_on - calculated.always_on,
            probed: self.last.probed - calculated.probed,
        };
    }

    fn calculated(&self, now: u64, counters: &Counters, switches: Switches) -> RunTimes {
        let (foreign, since) = self.foreign;
        RunTimes {
            always_on: self.offset.always_on
                + foreign * float(now.saturating_sub(since))
                + float(switches.count) * self.switch
                + float(switches.spent)
                + float(switches.sampled),
            probed: self.offset.probed
                + float(counters.poll_hits) * self.poll_hit
                + float(counters.other_hits) * self.other_hit,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and times, for shares")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(poll_hits: u64) -> Counters {
        Counters { poll_hits, ..Counters::default() }
    }

    #[test]
    fn calculated_run_time_continues_where_the_kernel_stopped_counting() {
        let mut costs = Costs::new(true);
        let second = 1_000_000_000;
        let mut at = |n: u64| {
            let switches = Switches { count: n * 100_000, spent: n * 900_000, sampled: n * 100_000 };
            let times = RunTimes { always_on: float(n) * 31e6, probed: float(n) * 2e6 };
            let counted = || Counted { times, always_on: 2 * switches.count };
            costs.run_times(n * second, &counters(n * 10_000), switches, counted)
        };
        let times: Vec<RunTimes> = (1..6).map(&mut at).collect();
        for pair in times.windows(2) {
            let grown = pair[1].always_on - pair[0].always_on;
            assert!((grown - 31e6).abs() < 1e5, "{pair:?}");
            assert!((pair[1].probed - pair[0].probed - 2e6).abs() < 1e4, "{pair:?}");
        }
        assert!(!costs.counts && (costs.switch - 300.0).abs() < 1.0, "{costs:?}");
    }

    #[test]
    fn few_runs_are_counted_by_the_kernel_for_good() {
        let mut costs = Costs::new(true);
        for n in 1..10 {
            let switches = Switches { count: n * 1_000, ..Switches::default() };
            costs.run_times(n * 1_000_000_000, &counters(0), switches, Counted::default);
        }
        assert!(costs.counts);
    }

    #[test]
    fn a_busy_neighbour_is_hud_s_cost_and_not_the_target_s() {
        let mut costs = Costs::new(true);
        let second = 1_000_000_000;
        // The target switches 1,000 times a second at 300 ns each, another process 100,000 times, two runs each.
        let mut at = |n: u64| {
            let switches = Switches { count: n * 1_000, ..Switches::default() };
            let foreign = n * 200_000;
            let always_on = float(switches.count) * 300.0 + float(foreign) * FOREIGN;
            let times = RunTimes { always_on, probed: 0.0 };
            let counted = || Counted { times, always_on: foreign + 2 * switches.count };
            costs.run_times(n * second, &counters(0), switches, counted)
        };
        let times: Vec<RunTimes> = (1..6).map(&mut at).collect();
        for pair in times.windows(2) {
            let grown = pair[1].always_on - pair[0].always_on;
            assert!((grown - 6.3e6).abs() < 1e5, "{pair:?}");
        }
        assert!(!costs.counts, "counting them would take 50 ns each");
        assert!((costs.switch - 300.0).abs() < 1.0, "{costs:?}");
    }
}
