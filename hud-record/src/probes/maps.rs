//! The maps of the kernel programs: counters, threads, run times, and the words that turn streams on.

use std::collections::HashSet;

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use bytemuck::Zeroable as _;
use hud_common::wire::{Counters, EventKind, Stream, StreamCounters, SwitchBudget, ThreadState, switch_tag};

use super::{
    attached::Probes,
    cost::{Counted, RunTimes, Switches},
    refusal::{missing, refused},
    uprobes::Programs,
};
use crate::{error::Result, inspect::Process, kernel};

/// [`ThreadState`] as words, for aya.
type ThreadWords = [u64; size_of::<ThreadState>() / 8];
type CounterWords = [u64; size_of::<Counters>() / 8];
type BudgetWords = [u64; size_of::<SwitchBudget>() / 8];

impl Probes {
    /// Gives the kernel program an existing thread, so that it reports only new ones.
    pub fn know_thread(&mut self, tid: u32, name: &str) -> Result<()> {
        let mut state = ThreadState::zeroed();
        let name = name.as_bytes();
        let length = name.len().min(15);
        if let (Some(to), Some(from)) = (state.comm.get_mut(..length), name.get(..length)) {
            to.copy_from_slice(from);
        }
        // BPF_NOEXIST: a thread that the programs have seen meanwhile keeps its state.
        let _ = self.threads()?.insert(tid, bytemuck::cast::<_, ThreadWords>(state), 1);
        Ok(())
    }

    /// Counts the probes in the target's code from `since` (CLOCK_MONOTONIC), or not at all (0).
    pub fn count_probes_since(&mut self, since: u64) -> Result<()> {
        self.probes_since = since;
        self.set("PROBES_SINCE", since)
    }

    /// Counts context switches from `since` (CLOCK_MONOTONIC), or not at all (0).
    pub fn count_switches_since(&mut self, since: u64) -> Result<()> {
        self.switches_since = since;
        self.set("SWITCHES_SINCE", since)
    }

    /// When the target executed another program (CLOCK_MONOTONIC), which ended all streams; `None` if it has not.
    pub fn executed(&self) -> Result<Option<u64>> {
        let map = self.bpf.map("EXECUTED").ok_or_else(|| missing("EXECUTED"))?;
        let map: Array<&MapData, u64> = Array::try_from(map).map_err(|e| refused("opening a switch", &e))?;
        let at = map.get(&0, 0).map_err(|e| refused("reading a switch", &e))?;
        Ok((at != 0).then_some(at))
    }

    pub(super) fn set<T: aya::Pod>(&mut self, name: &str, value: T) -> Result<()> {
        let map = self.bpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut map: Array<&mut MapData, T> = Array::try_from(map).map_err(|e| refused("opening a switch", &e))?;
        map.set(0, value, 0).map_err(|e| refused("turning a switch", &e))
    }

    /// Makes the kernel programs report the types of all tasks again as they see them.
    pub fn report_tasks_again(&mut self) -> Result<()> {
        let map = self.bpf.map_mut("TASKS").ok_or_else(|| missing("TASKS"))?;
        let mut tasks: HashMap<&mut MapData, u64, u32> =
            HashMap::try_from(map).map_err(|e| refused("opening the task map", &e))?;
        let known: Vec<u64> = tasks.keys().flatten().collect();
        for task in known {
            // A task that the map has dropped meanwhile is fine too.
            let _ = tasks.remove(&task);
        }
        Ok(())
    }

    /// The counters, summed over CPUs.
    pub fn counters(&self) -> Result<Counters> {
        let map = self.bpf.map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let counters: PerCpuArray<&MapData, CounterWords> =
            PerCpuArray::try_from(map).map_err(|e| refused("opening the counters", &e))?;
        let per_cpu = counters.get(&0, 0).map_err(|e| refused("reading the counters", &e))?;
        let mut sum = Counters::default();
        for words in per_cpu.iter() {
            let c: Counters = bytemuck::cast(*words);
            for (to, from) in sum.streams.iter_mut().zip(c.streams) {
                to.produced += from.produced;
                to.lost += from.lost;
                to.untracked += from.untracked;
            }
            sum.arrivals_missed += c.arrivals_missed;
            sum.tls_failed += c.tls_failed;
            sum.scan_failed += c.scan_failed;
            sum.unmapped += c.unmapped;
            sum.spared += c.spared;
            sum.merged += c.merged;
            sum.not_walked += c.not_walked;
            sum.poll_hits += c.poll_hits;
            sum.other_hits += c.other_hits;
        }
        Ok(sum)
    }

    /// Threads with an off-CPU interval in progress, which `is_off` marks, or with unreported intervals. To be called
    /// when switches no longer count, with the time since when they did.
    pub fn unfinished(&mut self, since: u64) -> Result<Vec<ThreadState>> {
        let threads = self.threads()?;
        let mut unfinished = Vec::new();
        for (_, words) in threads.iter().flatten() {
            let mut state = bytemuck::cast::<ThreadWords, ThreadState>(words);
            let head = &mut state.off.head;
            if since == 0 || head.kind != EventKind::OffCpu as u32 {
                state.is_off = 0;
            } else if state.is_off != 0 && state.is_off != switch_tag(since) {
                // It left its CPU before switches began to count. If it was not seen on a CPU since, it was off all the
                // time.
                (head.ts, head.frames, head.task_id, head.is_sum) = (since, 0, 0, 1);
                head.wake_ts = if head.wake_ts < since { 0 } else { head.wake_ts };
                if state.on_since >= since {
                    state.is_off = 0;
                }
            }
            // Intervals unreported when switches last stopped counting were reported then.
            if since == 0 || state.unreported.since < since {
                state.unreported.intervals = 0;
            }
            if state.is_off != 0 || state.unreported.intervals != 0 {
                unfinished.push(state);
            }
        }
        Ok(unfinished)
    }

    /// Since when switches count (CLOCK_MONOTONIC); 0 if they do not.
    pub fn switches_since(&self) -> u64 {
        self.switches_since
    }

    /// Removes exited threads from the kernel programs' map, and returns them.
    pub fn forget_threads(&mut self, process: &Process) -> Result<Vec<u32>> {
        let mut threads = self.threads()?;
        let known: Vec<u32> = threads.keys().flatten().collect();
        // Read after the map: a thread born in between is not in the map.
        let alive: HashSet<u32> = process.threads().into_iter().collect();
        let gone: Vec<u32> = known.into_iter().filter(|tid| !alive.contains(tid)).collect();
        for tid in &gone {
            // A thread that the programs have removed meanwhile is fine too.
            let _ = threads.remove(tid);
        }
        Ok(gone)
    }

    /// Since when the probes count (CLOCK_MONOTONIC); 0 if they do not.
    pub(crate) fn probes_since(&self) -> u64 {
        self.probes_since
    }

    /// A thread's state. The kernel programs may be writing it.
    pub(crate) fn thread_state(&mut self, tid: u32) -> Option<Box<ThreadState>> {
        let words = self.threads().ok()?.get(&tid, 0).ok()?;
        Some(Box::new(bytemuck::cast(words)))
    }

    /// A thread's stack pointer at its last walked context switch.
    pub(crate) fn last_stack_pointer(&mut self, tid: u32) -> Option<u64> {
        Some(self.thread_state(tid)?.leaf.sp).filter(|&sp| sp != 0)
    }

    pub(super) fn threads(&mut self) -> Result<HashMap<&mut MapData, u32, ThreadWords>> {
        let map = self.bpf.map_mut("THREADS").ok_or_else(|| missing("THREADS"))?;
        HashMap::try_from(map).map_err(|e| refused("opening the thread map", &e))
    }

    /// Run time of the programs so far (ns), counted by the kernel or calculated.
    pub(crate) fn run_times(&self, now: u64, counters: &Counters) -> RunTimes {
        let switches = self.switch_counts().unwrap_or_default();
        self.costs.borrow_mut().run_times(now, counters, switches, || {
            let all = self.bpf.programs().filter_map(|(_, p)| p.info().ok());
            let (time, runs) =
                all.fold((0, 0), |(time, runs), p| (time + p.run_time().as_nanos(), runs + p.run_count()));
            let probed = self.programs.as_ref().map_or(0, Programs::run_time);
            let times = RunTimes { always_on: as_float(time), probed: as_float(probed.into()) };
            Counted { times, always_on: runs }
        })
    }

    /// Cost of context switches to the target so far (ns), including the kernel's dispatch.
    pub(crate) fn switch_cost(&self) -> f64 {
        let switches = self.switch_counts().unwrap_or_default();
        as_float(switches.count.into()) * self.costs.borrow().switch() + as_float(switches.spent.into())
    }

    pub(super) fn switch_counts(&self) -> Result<Switches> {
        let map = self.bpf.map("SWITCH_BUDGET").ok_or_else(|| missing("SWITCH_BUDGET"))?;
        let budgets: PerCpuArray<&MapData, BudgetWords> =
            PerCpuArray::try_from(map).map_err(|e| refused("opening the budgets", &e))?;
        let per_cpu = budgets.get(&0, 0).map_err(|e| refused("reading the budgets", &e))?;
        let budgets = per_cpu.iter().map(|words| bytemuck::cast::<BudgetWords, SwitchBudget>(*words));
        Ok(budgets.fold(Switches::default(), |sum, budget| Switches {
            count: sum.count + budget.switches,
            spent: sum.spent + budget.spent,
            sampled: sum.sampled + budget.sampled,
        }))
    }

    /// Run time of all programs so far (ns).
    pub fn run_time(&self) -> Option<u64> {
        let times = self.run_times(kernel::now(), &self.counters().ok()?);
        Some(whole(times.always_on + times.probed))
    }

    /// Name and verified instructions of each loaded program.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        let probed = self.programs.iter().flat_map(Programs::verified_instructions);
        self.bpf
            .programs()
            .filter_map(|(name, p)| Some((name.to_string(), p.info().ok()?.verified_instruction_count()?)))
            .chain(probed)
            .collect()
    }

    /// Context switches of the target that have counted.
    pub fn switches(&self) -> u64 {
        self.switch_counts().unwrap_or_default().count
    }
}

/// The counters of a stream.
pub fn stream_counters(counters: &Counters, stream: Stream) -> StreamCounters {
    counters.streams.get(stream as usize).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts and times, for shares")]
fn as_float(n: u128) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds, never negative")]
fn whole(nanoseconds: f64) -> u64 {
    nanoseconds.max(0.0) as u64
}
