//! Stops recording context switches for a while if even the minimum cost exceeds the budget.
//!
//! A thread that only wakes another one switches every 3 µs; a program at the switch takes at least a tenth of that.
//! The budget of such a target is a few milliseconds a second, so its switches are recorded for a part of the time. In
//! between the programs return at once. If even that is too expensive, they are detached for at least 10 s, as
//! attaching and detaching make the kernel patch its own code. `coverage` has the times. For the time in between, the
//! kernel's statistics show how long and how often each thread was off CPU (`/proc/PID/task/TID/schedstat`): one summed
//! row of `off_cpu` per thread.
//!
//! Polls are not recorded in that time, as their blocked time would be unknown.

use std::collections::HashMap;

use hud_common::wire::{EventKind, OffCpuHead};

use crate::{
    error::Result,
    inspect::{Process, read_text},
    kernel::{self, CpuTime},
    probes::{Plan, Polls, Probes, SWITCH_FLOOR},
};

/// The part of the overhead budget that context switches may use in all.
const SHARE: f64 = 0.7;
/// At least this share of one CPU's time: the programs' least budget for walks, and 1.5 ms a second for the minimum
/// cost of 5,000 switches. It must not be below the least budget of the programs: otherwise a nearly idle target's
/// switches would not be recorded for most of the time.
const FLOOR: f64 = SWITCH_FLOOR + 0.0015;
/// How much may be saved, in seconds of the machine's CPU time at that share.
const SAVED: f64 = 0.3;
/// How long the savings must suffice before the programs are attached again, in seconds.
const WINDOW: f64 = 0.2;
/// Threads whose statistics are read: 10 µs each.
const MOST_THREADS: usize = 256;

/// A change of state.
pub(super) enum Turned {
    /// Switches counted until now.
    Off {
        /// Since when (CLOCK_MONOTONIC).
        began: u64,
        /// Until when.
        ended: u64,
    },
    /// They count again.
    On {
        /// Since when.
        now: u64,
        /// The threads' off-CPU time meanwhile.
        meanwhile: Vec<OffCpuHead>,
    },
}

/// `/proc/PID/task/TID/schedstat` (Documentation/scheduler/sched-stats.rst): ns on a CPU, ns runnable without one, and
/// how often it got one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    on_cpu: u64,
    waiting: u64,
    turns: u64,
}

impl Times {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        Some(Times { on_cpu: next()?, waiting: next()?, turns: next()? })
    }
}

enum State {
    On,
    Off {
        since: u64,
        times: HashMap<u32, Times>,
        /// When the programs were detached (CLOCK_MONOTONIC); `None` if they return at once instead.
        detached: Option<u64>,
        /// Whether they are being attached again.
        is_returning: bool,
    },
}

/// Cost of a program that returns at once, at a switch and at the wake-up before (ns).
const LEAST: f64 = 120.0;
/// How long programs stay detached (ns).
const DETACHED_FOR: u64 = 10_000_000_000;

/// Decides when switches count.
pub(super) struct SwitchGovernor {
    /// Their share of the target's CPU time; `None` if they always count.
    share: Option<f64>,
    cpus: f64,
    /// Nanoseconds that may be spent; negative after overspending.
    saved: f64,
    /// Their cost per nanosecond while they count.
    rate: f64,
    /// CPU time of the target, cost and time at the last tick (ns).
    target: f64,
    cost: f64,
    looked: u64,
    /// Context switches of the target so far, and per nanosecond when last counted.
    switches: u64,
    per_ns: f64,
    state: State,
}

impl SwitchGovernor {
    /// Begins with counting switches. With exact polls, they always count.
    pub(super) fn new(budget: f64, plan: Plan, target: u64, cpus: u32, now: u64) -> Self {
        let mut governor = SwitchGovernor {
            share: (plan.polls != Polls::Exact).then_some(budget * SHARE),
            cpus: f64::from(cpus.max(1)),
            saved: 0.0,
            rate: 0.0,
            target: float(target),
            cost: 0.0,
            looked: now,
            switches: 0,
            per_ns: 0.0,
            state: State::On,
        };
        governor.saved = governor.most();
        governor
    }

    fn most(&self) -> f64 {
        self.share.unwrap_or(0.0) * SAVED * 1e9 * self.cpus
    }

    /// Updates the savings, with the CPU time that the target has used by `now`.
    pub(super) fn tick(
        &mut self,
        probes: &mut Probes,
        process: &Process,
        target: &mut CpuTime,
        now: u64,
    ) -> Result<Option<Turned>> {
        let Some(share) = self.share else { return Ok(None) };
        let passed = float(now.saturating_sub(self.looked)).max(1.0);
        // They may have counted for a part of that time, as at the first tick.
        let counted = float(now.saturating_sub(self.looked.max(probes.switches_since()))).max(1.0);
        self.looked = now;
        let target = float(target.at(now));
        let income = (share * (target - self.target)).max(FLOOR * passed);
        self.target = target;
        let cost = probes.switch_cost();
        let spent = cost - self.cost;
        self.cost = cost;
        self.saved = (self.saved + income - spent).min(self.most());
        let most = self.most();
        match &mut self.state {
            State::On => {
                self.rate = if self.rate == 0.0 { spent / counted } else { 0.8 * self.rate + 0.2 * spent / counted };
                let switches = probes.switches();
                self.per_ns = float(switches.saturating_sub(self.switches)) / counted;
                self.switches = switches;
                if self.saved >= 0.0 || !probes.switches_are_on() {
                    return Ok(None);
                }
                let is_least_too_much = self.per_ns * LEAST > 0.3 * income / passed;
                let began = probes.switches_since();
                // No poll may count whose blocked time does not.
                probes.count_probes_since(0)?;
                probes.count_switches_since(0)?;
                let ended = kernel::now();
                let detached = (is_least_too_much && probes.switches_can_detach()).then_some(ended);
                self.state = State::Off { since: ended, times: times_of(process), detached, is_returning: false };
                if detached.is_some() {
                    probes.turn_switches(false);
                }
                Ok(Some(Turned::Off { began, ended }))
            }
            State::Off { since, times, detached, is_returning } => {
                let is_affordable = self.saved >= (self.rate * WINDOW * 1e9).min(most);
                let is_back = match detached {
                    Some(_) => *is_returning && probes.switches_are_on(),
                    None => {
                        self.saved -= (self.per_ns * LEAST * passed).min(income);
                        is_affordable
                    }
                };
                if is_back {
                    let after = times_of(process);
                    let now = kernel::now();
                    probes.count_switches_since(now)?;
                    let meanwhile = sums(times, &after, *since, now);
                    self.switches = probes.switches();
                    self.state = State::On;
                    return Ok(Some(Turned::On { now, meanwhile }));
                }
                let is_due = detached.is_some_and(|at| now.saturating_sub(at) >= DETACHED_FOR);
                if is_due && is_affordable && probes.switches_can_attach() {
                    probes.turn_switches(true);
                    *is_returning = true;
                }
                Ok(None)
            }
        }
    }

    /// Since when switches do not count (CLOCK_MONOTONIC), if they do not.
    pub(super) fn off_since(&self) -> Option<u64> {
        match self.state {
            State::On => None,
            State::Off { since, .. } => Some(since),
        }
    }

    /// At the end of a session at `now`: the threads' off-CPU time since switches stopped counting, if they have.
    pub(super) fn so_far(&mut self, process: &Process, now: u64) -> Vec<OffCpuHead> {
        let State::Off { since, times, .. } = &mut self.state else { return Vec::new() };
        let after = times_of(process);
        let sums = sums(times, &after, *since, now);
        (*since, *times) = (now, after);
        sums
    }
}

fn times_of(process: &Process) -> HashMap<u32, Times> {
    let times = |tid| Times::parse(&read_text(format!("/proc/{}/task/{tid}/schedstat", process.pid)).ok()?);
    let threads = process.threads().into_iter().take(MOST_THREADS);
    threads.filter_map(|tid| Some((tid, times(tid)?))).collect()
}

/// Each thread's off-CPU time from `since` to `now`, as one event: its duration and number of intervals.
fn sums(before: &HashMap<u32, Times>, after: &HashMap<u32, Times>, since: u64, now: u64) -> Vec<OffCpuHead> {
    // The kernel updates a thread's time on a CPU at each tick.
    const TICK: u64 = 10_000_000;
    let passed = now.saturating_sub(since);
    let sum = |(&tid, after): (&u32, &Times)| {
        // A new thread has no earlier value.
        let before = before.get(&tid)?;
        let dur = passed.saturating_sub(after.on_cpu.saturating_sub(before.on_cpu));
        let turns = after.turns.saturating_sub(before.turns);
        (dur > 0 && (turns > 0 || dur >= TICK)).then(|| OffCpuHead {
            kind: EventKind::OffCpu as u32,
            tid,
            ts: since,
            dur,
            task_id: 0,
            wake_ts: now,
            run_queue: after.waiting.saturating_sub(before.waiting).min(dur),
            waker_tid: 0,
            cpu: 0,
            state: 0,
            frames: 0,
            unwind: 0,
            // An interval in progress counts as well.
            intervals: u32::try_from(turns).unwrap_or(u32::MAX).max(1),
            is_sum: 1,
        })
    };
    after.iter().filter_map(sum).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts and times, for shares")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_off_cpu_time_by_difference() {
        let second = 1_000_000_000;
        let times = |on_cpu, waiting, turns| Times { on_cpu, waiting, turns };
        let before = HashMap::from([(1, times(100, 10, 5)), (2, times(0, 0, 0)), (3, times(7, 0, 1))]);
        let after = HashMap::from([
            (1, times(400, 60, 25)),
            (2, times(second, 0, 0)),
            (3, times(7, 0, 1)),
            (4, times(1, 1, 1)),
        ]);
        let mut sums = sums(&before, &after, 5_000, 5_000 + second);
        sums.sort_by_key(|s| s.tid);
        let found: Vec<_> = sums.iter().map(|s| (s.tid, s.ts, s.dur, s.run_queue, s.intervals)).collect();
        assert_eq!(found, [(1, 5_000, second - 300, 50, 20), (3, 5_000, second, 0, 1)]);
    }

    #[test]
    fn schedstat_is_three_numbers() {
        assert_eq!(Times::parse("12 34 5\n"), Some(Times { on_cpu: 12, waiting: 34, turns: 5 }));
        assert_eq!(Times::parse("12 34"), None);
    }
}
