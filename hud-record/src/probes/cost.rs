//! The cost of the kernel programs: their run time, counted by the kernel or calculated from the number of runs.
//!
//! The kernel counts while a descriptor for it is open (BPF_ENABLE_STATS, Linux 5.8). That takes 50 ns per run of a
//! program, which at 100,000 context switches a second is 1 % of a CPU. So if programs run often, it is closed once the
//! cost of a run is known, and from then on the run time is calculated.

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use hud_common::wire::Counters;

/// Runs after which their average is reliable.
const ENOUGH: u64 = 2_000;
/// Runs per second that the kernel may count: a twentieth of a percent of a CPU.
const FEW: f64 = 10_000.0;

/// Initial estimates of a run's time (ns), from the machine of docs/benchmarks.
const SWITCH: f64 = 250.0;
const POLL_HIT: f64 = 350.0;
const OTHER_HIT: f64 = 500.0;
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
    /// When it was last decided whether the kernel should continue to count, and the number of runs then.
    considered: (u64, u64),
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
            considered: (0, 0),
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
        counted: impl FnOnce() -> RunTimes,
    ) -> RunTimes {
        if !self.counts {
            return self.calculated(counters, switches);
        }
        let times = counted();
        if switches.count >= ENOUGH {
            // The programs also run at other processes' switches, which are in the time and not in the count.
            let rest = times.always_on - float(switches.spent) - float(switches.sampled);
            self.switch = (rest / float(switches.count)).clamp(50.0, 1_000.0);
        }
        let hits = float(counters.poll_hits) + float(counters.other_hits);
        if counters.poll_hits + counters.other_hits >= ENOUGH {
            (self.poll_hit, self.other_hit) = (times.probed / hits, times.probed / hits);
        }
        self.last = times;
        let runs = 2 * switches.count + counters.poll_hits + counters.other_hits;
        let (then, before) = self.considered;
        const SECOND: u64 = 1_000_000_000;
        if then == 0 || now.saturating_sub(then) >= SECOND {
            self.considered = (now, runs);
            if then != 0 && float(runs.saturating_sub(before)) > FEW * float(now - then) / float(SECOND) {
                self.calculate(counters, switches);
            }
        }
        times
    }

    /// From here on the kernel need not count.
    fn calculate(&mut self, counters: &Counters, switches: Switches) {
        self.counts = false;
        end();
        let calculated = self.calculated(counters, switches);
        self.offset = RunTimes {
            always_on: self.last.always_on - calculated.always_on,
            probed: self.last.probed - calculated.probed,
        };
    }

    fn calculated(&self, counters: &Counters, switches: Switches) -> RunTimes {
        RunTimes {
            always_on: self.offset.always_on
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
            let counted = || RunTimes { always_on: float(n) * 31e6, probed: float(n) * 2e6 };
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
            costs.run_times(n * 1_000_000_000, &counters(0), switches, RunTimes::default);
        }
        assert!(costs.counts);
    }
}
