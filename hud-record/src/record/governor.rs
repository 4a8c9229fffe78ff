//! The budget governor: keeps what the probes in the target's code cost it under a share of its CPU time.
//!
//! A purse fills with `budget` times the CPU time that the target uses, and each hit of a probe is paid from it: the trap,
//! whose cost was measured at the start, the run time of the kernel program, which the kernel accounts, and what it takes
//! to record what the hit tells. When the purse is empty the probes are taken off; when it could pay for a while of them
//! again, they are put on. So what is seen is whole stretches, each of them in `coverage`, in which every poll, wake and
//! spawn was counted.
//!
//! What the always-on streams cost is paid from the same budget: the probes get what these leave, and at least half of it.

use std::time::Duration;

use hud_common::wire::Counters;

use crate::{
    error::Result,
    kernel,
    probes::{Probes, TrapCost},
};

/// How often the purse is looked into: at a million polls a second and 2 µs each, that is how much it can be overdrawn.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// And while the probes are off, when nothing is spent.
const TICK_OFF: u64 = 80_000_000;
/// For how long the purse must be able to pay before the probes are put on again: putting them on and off takes the kernel
/// some milliseconds each, and a stretch of a few polls tells little.
const STRETCH: f64 = 0.2;
/// How much the purse holds, in seconds of the target's CPU time at the budget's share: a target that slept for an hour
/// must not pay for it in one stretch.
const PURSE: f64 = 1.0;

/// The share of the budget that the probes get whatever the always-on streams cost. These keep within the other half, but for
/// what each context switch costs at least.
const LEAST: f64 = 0.5;
/// The part of the budget that is spent. Putting probes on and taking them off stops the target for moments that are counted
/// nowhere.
const MARGIN: f64 = 0.8;
/// And at least this share of one CPU's time: of a target that does nearly nothing, 2 % is nothing.
const FLOOR: f64 = 0.0025;

/// What recording a row takes (ns of the recorder's CPU time), sealing included: what a poll and its wake did on the machine
/// of docs/benchmarks, beside what the recorder takes with the probes off.
const RECORD: f64 = 180.0;

/// A stretch in which the probes counted, by CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) reason: &'static str,
    /// Which of them there are.
    pub(super) watched: Watched,
}

/// The functions of tokio that were found, of those that a binary may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) wakes: bool,
    pub(super) spawns: bool,
}

/// What the target and the probes have used so far (ns).
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    target: f64,
    probes: f64,
    always_on: f64,
}

/// Decides when the probes are on. Without a budget they always are.
#[derive(Debug)]
pub(super) struct Governor {
    budget: Option<f64>,
    watched: Watched,
    trap: TrapCost,
    pid: u32,
    cpus: f64,
    used: Used,
    /// Nanoseconds of the target's CPU time that may still be spent; below 0 where too much was.
    purse: f64,
    /// What the probes cost in a nanosecond, by their last stretches.
    rate: f64,
    /// Since when they count.
    since: Option<u64>,
    looked: u64,
}

impl Governor {
    /// Measures what a trap costs here. Counting begins with [`Governor::begin`].
    pub(super) fn new(budget: Option<f64>, watched: Watched, pid: u32, cpus: u32, probes: &Probes, now: u64) -> Self {
        // Where it cannot be measured: a guess, on the dear side.
        let guess = TrapCost { entry: Duration::from_nanos(800), entry_and_return: Duration::from_nanos(1800) };
        let trap = budget.and_then(|_| probes.trap_cost()).unwrap_or(guess);
        let mut governor = Governor {
            budget,
            watched,
            trap,
            pid,
            cpus: f64::from(cpus.max(1)),
            used: Used::default(),
            purse: 0.0,
            rate: 0.0,
            since: None,
            looked: now,
        };
        governor.purse = governor.full();
        governor.used = governor.used(probes, &probes.counters().unwrap_or_default());
        governor
    }

    /// Recording begins at `now`: the probes count from then on, if they are on.
    pub(super) fn begin(&mut self, probes: &Probes, now: u64) {
        self.since = probes.probes_are_on().then_some(now);
        self.looked = now;
    }

    /// Looks into the purse; to be called every [`TICK`]. Gives the stretch that ended, if one did.
    pub(super) fn tick(&mut self, probes: &mut Probes, now: u64) -> Result<Option<Stretch>> {
        let begins = self.since.is_none() && probes.probes_are_on();
        if begins {
            self.since = Some(now);
            probes.count_probes_since(now)?;
        }
        let Some(budget) = self.budget else { return Ok(None) };
        if self.since.is_none() && now.saturating_sub(self.looked) < TICK_OFF {
            return Ok(None);
        }
        let used = self.used(probes, &probes.counters()?);
        let (target, cost) = (used.target - self.used.target, used.probes - self.used.probes);
        let always_on = used.always_on - self.used.always_on;
        self.used = used;
        let passed = as_float(now.saturating_sub(self.looked)).max(1.0);
        self.looked = now;
        let allowed = budget * MARGIN * target.max(0.0);
        let income = (allowed - always_on).max(allowed * LEAST).max(passed * FLOOR);
        self.purse = (self.purse + income - cost.max(0.0)).min(self.full());
        match self.since {
            Some(_) if begins => {}
            Some(_) => {
                self.rate = if self.rate == 0.0 { cost / passed } else { 0.8 * self.rate + 0.2 * cost / passed };
                if self.purse < 0.0 {
                    let stretch = self.cut(now, "the budget is used up");
                    probes.count_probes_since(0)?;
                    probes.turn_probes(false);
                    return Ok(stretch);
                }
            }
            None => {
                let needed = (self.rate * STRETCH * 1e9).min(self.full());
                if self.purse >= needed && probes.probes_can_go_on() {
                    probes.turn_probes(true);
                }
            }
        }
        Ok(None)
    }

    /// Whether the probes are held to a budget.
    pub(super) fn has_budget(&self) -> bool {
        self.budget.is_some()
    }

    /// Stops the probes, if they are on, because of `reason`. Gives the time in which they counted, if that ended. What may be
    /// spent continues to add up.
    pub(super) fn pause(&mut self, probes: &mut Probes, now: u64, reason: &'static str) -> Result<Option<Stretch>> {
        let ended = self.cut(now, reason);
        if ended.is_some() {
            probes.count_probes_since(0)?;
        }
        // What was put on one by one stays on: it could not be put on again.
        if probes.probes_can_turn() && probes.probes_are_on() {
            probes.turn_probes(false);
        }
        Ok(ended)
    }

    /// Whether no stretch is under way.
    pub(super) fn waits_for_probes(&self) -> bool {
        self.since.is_none()
    }

    /// Ends the stretch under way, if there is one, because of `reason`.
    pub(super) fn cut(&mut self, now: u64, reason: &'static str) -> Option<Stretch> {
        let began = self.since.take()?;
        Some(Stretch { began, ended: now, reason, watched: self.watched })
    }

    /// Ends the stretch under way and begins the next at the same instant, for a session that hands over to another.
    pub(super) fn split(&mut self, now: u64, reason: &'static str) -> Option<Stretch> {
        let stretch = self.cut(now, reason)?;
        self.since = Some(now);
        Some(stretch)
    }

    fn full(&self) -> f64 {
        self.budget.unwrap_or(0.0) * PURSE * 1e9 * self.cpus
    }

    fn used(&self, probes: &Probes, counters: &Counters) -> Used {
        let rows = as_float(counters.poll_hits) / 2.0 + as_float(counters.other_hits);
        let traps = as_float(counters.poll_hits) / 2.0 * as_float(nanos(self.trap.entry_and_return))
            + as_float(counters.other_hits) * as_float(nanos(self.trap.entry));
        let programs = probes.run_times(kernel::now(), counters);
        Used {
            target: kernel::cpu_time(self.pid).map_or(self.used.target, as_float),
            probes: traps + programs.probed + rows * RECORD,
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
