//! The governor: keeps the cost of the probes in the target's code below a share of its CPU time.
//!
//! A token bucket fills with `budget` times the target's CPU time, and pays for each hit of a probe: the trap, measured
//! at the start, the kernel program's run time, which the kernel counts, and the recorder's time for the row. It also
//! pays for attaching and detaching: with 1,000 places that is tens of milliseconds each time. When it is empty the
//! probes are detached; when it could pay for them for a while, they are attached again. So recorded intervals are
//! complete: `coverage` lists them, and in each every poll, wake and spawn was counted.
//!
//! The always-on streams are paid from the same budget: the probes get the rest, and at least half of it.

use std::time::Duration;

use hud_common::wire::Counters;

use crate::{
    error::Result,
    kernel::{self, CpuTime},
    probes::{Probes, TrapCost},
};

/// Interval of updates: at a million polls a second and 2 µs each, it bounds the overdraft.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// Interval while the probes are detached and nothing is spent (ns).
const TICK_OFF: u64 = 80_000_000;
/// How long the budget must suffice before the probes are attached again (s): attaching and detaching take the kernel
/// milliseconds each, and an interval of a few polls shows little.
const LEAST_ON: f64 = 0.2;
/// Capacity, in seconds of the target's CPU time at the budget's share: a target that slept for an hour must not pay
/// for it at once.
const CAPACITY: f64 = 1.0;

/// The probes' share of the budget, independent of the cost of the always-on streams. These keep within the other half,
/// except for the minimum cost of each context switch.
const LEAST: f64 = 0.5;
/// The part of the budget that is spent: a hit also displaces the target's data from the caches, which is not counted.
const MARGIN: f64 = 0.8;
/// At least this share of one CPU's time: 2 % of a nearly idle target would be nothing.
const FLOOR: f64 = 0.0025;

/// The recorder's CPU time for a row (ns), sealing included: measured for a poll and its wake on the machine of
/// docs/benchmarks, beyond its time without probes.
const RECORD: f64 = 180.0;

/// An interval in which the probes counted, by CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbedInterval {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) reason: &'static str,
    /// Which streams were recorded.
    pub(super) watched: Watched,
}

/// Which of the optional functions of tokio the binary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) wakes: bool,
    pub(super) spawns: bool,
}

/// The consumption of the target and the probes so far (ns).
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    target: f64,
    probes: f64,
    /// Attaching and detaching.
    turning: f64,
    always_on: f64,
}

/// Decides when the probes are attached. Without a budget they always are.
#[derive(Debug)]
pub(super) struct Governor {
    budget: Option<f64>,
    watched: Watched,
    trap: TrapCost,
    cpus: f64,
    used: Used,
    /// Nanoseconds of the target's CPU time that may be spent; negative after overspending.
    bucket: f64,
    /// The probes' cost per nanosecond, in recent intervals.
    rate: f64,
    /// Cost of attaching and detaching them once, and the sum when they were last attached.
    turn: f64,
    turned: f64,
    /// Since when they count.
    since: Option<u64>,
    updated: u64,
}

impl Governor {
    /// Uses the measured cost of a trap. Counting begins with [`Governor::begin`].
    ///
    /// The target has used `target` nanoseconds of CPU time.
    pub(super) fn new(
        budget: Option<f64>,
        watched: Watched,
        target: u64,
        cpus: u32,
        probes: &Probes,
        now: u64,
    ) -> Self {
        // A high estimate if it could not be measured.
        let guess = TrapCost { entry: Duration::from_nanos(800), entry_and_return: Duration::from_nanos(1800) };
        let trap = budget.and_then(|_| probes.trap_cost()).unwrap_or(guess);
        let mut governor = Governor {
            budget,
            watched,
            trap,
            cpus: f64::from(cpus.max(1)),
            used: Used::default(),
            bucket: 0.0,
            rate: 0.0,
            turn: 0.0,
            turned: 0.0,
            since: None,
            updated: now,
        };
        governor.bucket = governor.full();
        governor.used = governor.used(target, probes, &probes.counters().unwrap_or_default());
        governor
    }

    /// Recording begins at `now`: attached probes count from then on.
    pub(super) fn begin(&mut self, probes: &Probes, now: u64) {
        self.since = probes.probes_are_on().then_some(now);
        self.updated = now;
    }

    /// Updates the bucket; to be called every [`TICK`], with the CPU time that the target has used by `now`. Returns the interval in which the probes counted, if it ended.
    pub(super) fn tick(
        &mut self,
        probes: &mut Probes,
        target: &mut CpuTime,
        now: u64,
    ) -> Result<Option<ProbedInterval>> {
        let begins = self.since.is_none() && probes.probes_are_on();
        if begins {
            self.since = Some(now);
            probes.count_probes_since(now)?;
        }
        let Some(budget) = self.budget else { return Ok(None) };
        if self.since.is_none() && now.saturating_sub(self.updated) < TICK_OFF {
            return Ok(None);
        }
        let used = self.used(target.at(now), probes, &probes.counters()?);
        let (target, cost) = (used.target - self.used.target, used.probes - self.used.probes);
        let (turning, always_on) = (used.turning - self.used.turning, used.always_on - self.used.always_on);
        self.used = used;
        let passed = as_float(now.saturating_sub(self.updated)).max(1.0);
        self.updated = now;
        let allowed = budget * MARGIN * target.max(0.0);
        let income = (allowed - always_on).max(allowed * LEAST).max(passed * FLOOR);
        self.bucket = (self.bucket + income - cost.max(0.0) - turning).min(self.full());
        match self.since {
            Some(_) if begins => {}
            Some(_) => {
                self.rate = if self.rate == 0.0 { cost / passed } else { 0.8 * self.rate + 0.2 * cost / passed };
                if self.bucket < 0.0 {
                    let interval = self.cut(now, "the budget is used up");
                    probes.count_probes_since(0)?;
                    probes.turn_probes(false);
                    return Ok(interval);
                }
            }
            None => {
                let needed = (self.rate * LEAST_ON * 1e9 + self.turn).min(self.full());
                if self.bucket >= needed && probes.probes_can_attach() {
                    // A detach and an attach; at first only a detach.
                    (self.turn, self.turned) = (used.turning - self.turned, used.turning);
                    probes.turn_probes(true);
                }
            }
        }
        Ok(None)
    }

    /// Whether the probes have a budget.
    pub(super) fn has_budget(&self) -> bool {
        self.budget.is_some()
    }

    /// Stops the probes because of `reason`. Returns the interval in which they counted, if it ended. The bucket
    /// continues to fill.
    pub(super) fn pause(
        &mut self,
        probes: &mut Probes,
        now: u64,
        reason: &'static str,
    ) -> Result<Option<ProbedInterval>> {
        let ended = self.cut(now, reason);
        if ended.is_some() {
            probes.count_probes_since(0)?;
        }
        // Probes attached one by one stay: they could not be attached again.
        if probes.probes_can_turn() && probes.probes_are_on() {
            probes.turn_probes(false);
        }
        Ok(ended)
    }

    /// Whether no interval is in progress.
    pub(super) fn waits_for_probes(&self) -> bool {
        self.since.is_none()
    }

    /// Ends the interval in progress, if there is one, because of `reason`.
    pub(super) fn cut(&mut self, now: u64, reason: &'static str) -> Option<ProbedInterval> {
        let began = self.since.take()?;
        Some(ProbedInterval { began, ended: now, reason, watched: self.watched })
    }

    /// Ends the interval in progress and begins the next at the same instant, for a session that continues in the next
    /// one.
    pub(super) fn split(&mut self, now: u64, reason: &'static str) -> Option<ProbedInterval> {
        let interval = self.cut(now, reason)?;
        self.since = Some(now);
        Some(interval)
    }

    fn full(&self) -> f64 {
        self.budget.unwrap_or(0.0) * CAPACITY * 1e9 * self.cpus
    }

    fn used(&self, target: u64, probes: &Probes, counters: &Counters) -> Used {
        let rows = as_float(counters.poll_hits) / 2.0 + as_float(counters.other_hits);
        let traps = as_float(counters.poll_hits) / 2.0 * as_float(nanos(self.trap.entry_and_return))
            + as_float(counters.other_hits) * as_float(nanos(self.trap.entry));
        let programs = probes.run_times(kernel::now(), counters);
        Used {
            target: as_float(target),
            probes: traps + programs.probed + rows * RECORD,
            turning: as_float(probes.turning_cost()),
            always_on: programs.always_on,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts and times, for shares")]
fn as_float(n: u64) -> f64 {
    n as f64
}
