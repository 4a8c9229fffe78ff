//! The drain: turns events from the ring into rows in columns.
//!
//! No symbol work and no strings here: names are borrowed constants, stacks are ids, all else is integers.

use std::{
    collections::HashMap,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use bytemuck::Zeroable as _;
use hud_common::{
    session::{
        Clock, Columns as _, EndColumns, EndRow, InProgressColumns, InProgressRow, OffCpuColumns, OffCpuRow,
        PollColumns, PollRow, SampleColumns, SampleRow, SpawnColumns, SpawnRow, TaskColumns, TaskRow, TaskStateColumns,
        TaskStateRow, Text, WakeColumns, WakeRow,
    },
    unwind::Outcome,
    wire::{
        EndEvent, Event, NO_POLL_FN, OffCpuHead, PollEvent, STATE_PREEMPTED, SampleHead, SpawnEvent, Stream, TaskEvent,
        TaskOutcome, ThreadState, WakeEvent,
    },
};

use super::{
    activity::{Activities, Activity},
    queue::BatchSender,
    stacks::{NewStack, StackTable},
    threads::Threads,
};
use crate::{
    inspect::{Mapping, PollFn, TaskKind, Tokio},
    kernel,
    tasks::{AwaitStack, RunningTask, WorkerLoops},
};

/// State of a row that sums up off-CPU intervals, so that no rule takes its duration for one interval's.
const SUM: &str = "+";
/// Rows of a table that make a batch: below about 1,000, Arrow's framing is larger than the data.
const BATCH_ROWS: usize = 4096;

/// Polls of at least this duration (ns) are examined for `block_in_place`.
const LONG_POLL: u64 = 1_000_000;

/// Tasks whose type is remembered.
const MOST_TYPES: usize = 65_536;

/// How long stacks are searched for workers' loops as recording begins; a stack takes 50 µs.
pub(super) const SEARCH_FIRST: Duration = Duration::from_millis(20);

/// Turns events into rows.
pub(super) struct Drain {
    clock: Clock,
    sample_weight: i64,
    /// By the index that the poll probes have.
    poll_fns: Vec<PollFn>,
    /// Tasks seen before the debug information was read.
    early: Option<Vec<(i64, TaskEvent)>>,
    /// Since when the kernel programs know the current task's id (CLOCK_MONOTONIC): before, an event without a task may
    /// still be in one.
    task_ids_since: Option<u64>,
    /// Index of a poll function by its runtime address.
    poll_addresses: HashMap<u64, usize>,
    threads: Threads,
    /// For polls in progress: what threads did last, and the poll functions of the tasks last reported.
    activities: Activities,
    types: HashMap<u64, usize>,
    stacks: StackTable,
    in_progress: InProgressColumns,
    task_states: TaskStateColumns,
    polls: PollColumns,
    off_cpu: OffCpuColumns,
    samples: SampleColumns,
    tasks: TaskColumns,
    wakes: WakeColumns,
    spawns: SpawnColumns,
    ends: EndColumns,
    /// Rows of the kernel's events, by stream.
    pub(super) rows: [u64; Stream::ALL.len()],
    /// Off-CPU rows added as recording ended, for intervals that the kernel had not reported.
    unfinished: u64,
    /// Rows of tasks that were found by their threads' stacks.
    found_tasks: u64,
    /// Records that could not be decoded.
    pub(super) undecoded: u64,
    /// Bytes read.
    pub(super) bytes: u64,
}

impl Drain {
    pub(super) fn new(
        clock: Clock,
        freq: u32,
        tokio: &Tokio,
        load_bias: u64,
        mappings: &[Mapping],
        namer: Sender<NewStack>,
    ) -> Self {
        Drain {
            clock,
            sample_weight: 1_000_000_000 / i64::from(freq.max(1)),
            poll_fns: tokio.poll_fns.clone(),
            early: Some(Vec::new()),
            task_ids_since: None,
            poll_addresses: tokio
                .poll_fns
                .iter()
                .enumerate()
                .map(|(index, p)| (p.address.wrapping_add(load_bias), index))
                .collect(),
            threads: Threads::default(),
            activities: Activities::default(),
            types: HashMap::new(),
            stacks: StackTable::new(mappings, namer),
            in_progress: InProgressColumns::default(),
            task_states: TaskStateColumns::default(),
            polls: PollColumns::default(),
            off_cpu: OffCpuColumns::default(),
            samples: SampleColumns::default(),
            tasks: TaskColumns::default(),
            wakes: WakeColumns::default(),
            spawns: SpawnColumns::default(),
            ends: EndColumns::default(),
            rows: [0; Stream::ALL.len()],
            unfinished: 0,
            found_tasks: 0,
            undecoded: 0,
            bytes: 0,
        }
    }

    /// Takes one record of the ring.
    pub(super) fn record(&mut self, record: &[u8], out: &BatchSender) {
        self.bytes += record.len() as u64;
        match Event::decode(record) {
            Some(Event::Poll(e)) => self.poll(&e, out),
            Some(Event::OffCpu(e, stack)) => {
                self.rows[Stream::OffCpu as usize] += 1;
                self.off_cpu_row(e, stack, out);
            }
            Some(Event::Sample(e, stack)) => self.sample(e, stack, out),
            Some(Event::Task(e)) => self.task(e),
            Some(Event::Thread(e)) => {
                self.rows[Stream::Threads as usize] += 1;
                self.threads.event(self.clock.epoch(e.ts), e);
            }
            Some(Event::Wake(e, waker)) => self.wake(e, waker, out),
            Some(Event::Spawn(e)) => self.spawn(e, out),
            Some(Event::End(e)) => self.end(e, out),
            None => self.undecoded += 1,
        }
    }

    /// Sends the collected rows.
    pub(super) fn flush(&mut self, out: &BatchSender) {
        out.burst()
            .add(&mut self.threads.rows)
            .add(&mut self.tasks)
            .add(&mut self.polls)
            .add(&mut self.off_cpu)
            .add(&mut self.samples)
            .add(&mut self.wakes)
            .add(&mut self.spawns)
            .add(&mut self.ends)
            .add(&mut self.in_progress)
            .add(&mut self.task_states);
    }

    /// Events whose stack was not kept.
    pub(super) fn stacks_not_kept(&self) -> u64 {
        self.stacks.not_kept
    }

    /// A thread that existed before recording began.
    pub(super) fn existing_thread(&mut self, ts: i64, tid: u32, name: &str) {
        self.threads.existing(ts, tid, name);
    }

    /// From now on the kernel programs know the current task's id.
    pub(super) fn knows_task_ids(&mut self) {
        self.task_ids_since.get_or_insert_with(kernel::now);
    }

    /// Searches threads' stacks for workers' loops, least recently searched first, for at most this long.
    pub(super) fn search_workers(
        &mut self,
        loops: &WorkerLoops,
        at_most: Duration,
        mut last_seen: impl FnMut(u32) -> Option<u64>,
    ) {
        let (began, ts) = (Instant::now(), self.clock.epoch(kernel::now()));
        let (mut found, mut searched) = (Vec::new(), Vec::new());
        for tid in self.threads.to_search(ts) {
            if began.elapsed() >= at_most {
                break;
            }
            self.threads.searched(ts, tid);
            searched.push(tid);
            found.extend(loops.of_thread(tid, || last_seen(tid)));
        }
        // A runtime starts its workers in the order of their numbers.
        found.sort_unstable_by_key(|l| l.task_id);
        for (n, one) in found.iter().enumerate() {
            // One thread's stack may still contain a loop that another thread runs: then neither counts.
            let is_disputed = found.iter().enumerate().any(|(m, other)| m != n && other.task_id == one.task_id);
            let poll = self.poll_addresses.get(&one.poll_addr).and_then(|&i| self.poll_fns.get(i));
            if let Some(poll) = poll.filter(|_| !is_disputed) {
                self.threads.runs_loop(ts, one, poll);
            }
        }
        for tid in searched {
            self.threads.runs_no_loop(ts, tid);
        }
    }

    /// The debug information has been read: which threads are workers is decided again.
    pub(super) fn learned(&mut self, tokio: &Tokio) {
        self.poll_fns.clone_from(&tokio.poll_fns);
        for (ts, e) in self.early.take().unwrap_or_default() {
            self.threads.task(ts, &e, self.index(&e).and_then(|i| self.poll_fns.get(i)));
        }
    }

    /// Writes a row for each living thread again, so that older ones may expire.
    pub(super) fn repeat_threads(&mut self, ts: i64) {
        self.threads.repeat(ts);
    }

    /// Rows that the recorder added itself, by stream.
    pub(super) fn own_rows(&self) -> [u64; Stream::ALL.len()] {
        let mut own = [0; Stream::ALL.len()];
        own[Stream::OffCpu as usize] = self.unfinished;
        own[Stream::Tasks as usize] = self.found_tasks;
        own[Stream::Threads as usize] = self.threads.own_rows;
        own
    }

    /// Reports the unfinished intervals of a thread as recording ends: its off-CPU interval in progress, and unreported
    /// ones.
    pub(super) fn unfinished(&mut self, state: &ThreadState, end: u64, out: &BatchSender) {
        let mut head = state.off.head;
        if state.unreported.intervals != 0 {
            let (unreported, before) = (state.unreported, if state.is_off != 0 { head.ts } else { end });
            let sum = OffCpuHead {
                ts: before.saturating_sub(unreported.dur),
                dur: unreported.dur,
                task_id: unreported.task_id,
                run_queue: unreported.run_queue,
                intervals: u32::try_from(unreported.intervals).unwrap_or(u32::MAX),
                is_sum: 1,
                wake_ts: before,
                waker_tid: 0,
                ..head
            };
            self.unfinished += 1;
            self.off_cpu_row(&sum, &[], out);
        }
        if state.is_off == 0 {
            return;
        }
        head.dur = end.saturating_sub(head.ts);
        head.run_queue = if head.wake_ts == 0 { 0 } else { end.saturating_sub(head.wake_ts) };
        let frames = usize::from(head.frames);
        self.unfinished += 1;
        self.off_cpu_row(&head, state.off.stack.get(..frames).unwrap_or_default(), out);
    }

    /// Off-CPU time of a thread while switches were not recorded.
    pub(super) fn meanwhile(&mut self, sum: &OffCpuHead, out: &BatchSender) {
        self.unfinished += 1;
        self.off_cpu_row(sum, &[], out);
    }

    /// A thread that exited while switches were not recorded, by `ts` (CLOCK_MONOTONIC).
    pub(super) fn gone(&mut self, ts: u64, tid: u32) {
        self.threads.gone(self.clock.epoch(ts), tid);
    }

    /// Continues in the next session, at `ts` of its clock: threads are kept and written again, stacks get new ids,
    /// counts start at 0. Collected rows must have been flushed.
    pub(super) fn next_session(&mut self, clock: Clock, ts: i64, mappings: &[Mapping], namer: Sender<NewStack>) {
        self.clock = clock;
        self.stacks = StackTable::new(mappings, namer);
        self.activities.forget_stacks();
        self.rows = [0; Stream::ALL.len()];
        (self.unfinished, self.found_tasks, self.undecoded, self.bytes) = (0, 0, 0, 0);
        self.threads.own_rows = 0;
        self.threads.repeat(ts);
    }

    fn poll(&mut self, e: &PollEvent, out: &BatchSender) {
        self.rows[Stream::Polls as usize] += 1;
        self.activities.polled(e.tid, e.ts.saturating_add(e.dur));
        if e.dur >= LONG_POLL {
            let of = usize::try_from(e.poll_fn).ok().and_then(|index| self.poll_fns.get(index));
            if let Some(of) = of.filter(|of| of.kind == TaskKind::Task) {
                self.threads.polled(self.clock.epoch(e.ts), e.tid, e.task_id, of.scheduler);
            }
        }
        self.polls.push(PollRow {
            ts: self.clock.epoch(e.ts),
            dur: e.dur.cast_signed(),
            task_id: e.task_id.cast_signed(),
            type_id: self.type_id(usize::try_from(e.poll_fn).ok()),
            tid: e.tid.cast_signed(),
            cpu: i32::from(e.cpu),
            blocked: e.blocked.cast_signed(),
            run_queue: e.run_queue.cast_signed(),
            wake_delay: (e.wake_ts != 0).then(|| e.ts.wrapping_sub(e.wake_ts).cast_signed()),
            completed: Some(e.completed != 0),
        });
        if self.polls.len() >= BATCH_ROWS {
            out.send(&mut self.polls);
        }
    }

    fn off_cpu_row(&mut self, e: &OffCpuHead, stack: &[u64], out: &BatchSender) {
        let (stack_id, _) = self.stacks.id(stack, Outcome::of(e.unwind));
        let woken = e.wake_ts != 0;
        let is_sum = e.is_sum != 0;
        let task_id = self.task_id(e.task_id);
        if is_sum {
            self.activities.unknown(e.tid);
        } else {
            self.activities.observed(e.tid, in_task(task_id), e.ts, e.ts.saturating_add(e.dur));
        }
        if e.task_id == 0 && !is_sum && self.task_ids_since.is_some_and(|since| e.ts >= since) {
            self.threads.outside(self.clock.epoch(e.ts.saturating_add(e.dur)), e.tid);
        }
        if woken && !is_sum {
            self.threads.slept(self.clock.epoch(e.ts.saturating_add(e.dur)), e.tid, e.task_id);
        }
        if woken && e.waker_tid != 0 {
            self.threads.woken(e.tid, e.waker_tid);
        }
        self.off_cpu.push(OffCpuRow {
            ts: self.clock.epoch(e.ts),
            dur: e.dur.cast_signed(),
            tid: e.tid.cast_signed(),
            cpu: e.cpu.cast_signed(),
            state: Text::Borrowed(if is_sum { SUM } else { state_name(e.state) }),
            task_id,
            stack_id,
            run_queue: woken.then(|| e.run_queue.min(e.dur).cast_signed()),
            waker_tid: (woken && e.waker_tid != 0).then_some(e.waker_tid.cast_signed()),
            intervals: is_sum.then(|| i32::try_from(e.intervals).unwrap_or(i32::MAX)),
        });
        if self.off_cpu.len() >= BATCH_ROWS {
            out.send(&mut self.off_cpu);
        }
    }

    fn sample(&mut self, e: &SampleHead, stack: &[u64], out: &BatchSender) {
        self.rows[Stream::Samples as usize] += 1;
        let (stack_id, unwind) = self.stacks.id(stack, Outcome::of(e.unwind));
        let task_id = self.task_id(e.task_id);
        self.activities.sampled(e.tid, in_task(task_id), e.ts, stack_id);
        self.samples.push(SampleRow {
            ts: self.clock.epoch(e.ts),
            tid: e.tid.cast_signed(),
            cpu: e.cpu.cast_signed(),
            task_id,
            stack_id,
            weight: self.sample_weight,
            unwind: Text::Borrowed(unwind.name()),
        });
        if self.samples.len() >= BATCH_ROWS {
            out.send(&mut self.samples);
        }
    }

    fn wake(&mut self, e: &WakeEvent, waker_task_id: u64, out: &BatchSender) {
        self.rows[Stream::Wakes as usize] += 1;
        self.wakes.push(WakeRow {
            ts: self.clock.epoch(e.ts),
            task_id: e.task_id.cast_signed(),
            waker_task_id: self.task_id(waker_task_id),
            waker_tid: e.tid.cast_signed(),
        });
        if self.wakes.len() >= BATCH_ROWS {
            out.send(&mut self.wakes);
        }
    }

    fn spawn(&mut self, e: &SpawnEvent, out: &BatchSender) {
        self.rows[Stream::Spawns as usize] += 1;
        self.spawns.push(SpawnRow {
            ts: self.clock.epoch(e.ts),
            task_id: e.task_id.cast_signed(),
            type_id: self.type_id(self.poll_addresses.get(&e.poll_addr).copied()),
            parent_task_id: self.task_id(e.parent_task_id),
            tid: e.tid.cast_signed(),
        });
        if self.spawns.len() >= BATCH_ROWS {
            out.send(&mut self.spawns);
        }
    }

    fn end(&mut self, e: &EndEvent, out: &BatchSender) {
        self.rows[Stream::Ends as usize] += 1;
        self.ends.push(EndRow {
            ts: self.clock.epoch(e.ts),
            task_id: e.task_id.cast_signed(),
            outcome: Text::Borrowed(match e.outcome {
                o if o == TaskOutcome::Panicked as u32 => "panicked",
                o if o == TaskOutcome::Cancelled as u32 => "cancelled",
                _ => "completed",
            }),
        });
        if self.ends.len() >= BATCH_ROWS {
            out.send(&mut self.ends);
        }
    }

    fn task(&mut self, e: &TaskEvent) {
        self.rows[Stream::Tasks as usize] += 1;
        self.add_task(e);
    }

    fn add_task(&mut self, e: &TaskEvent) {
        let index = self.index(e);
        if let Some(index) = index {
            self.remember_type(e.task_id, index);
        }
        let ts = self.clock.epoch(e.ts);
        self.threads.task(ts, e, index.and_then(|i| self.poll_fns.get(i)));
        if let Some(early) = self.early.as_mut().filter(|e| e.len() < BATCH_ROWS) {
            early.push((ts, *e));
        }
        self.tasks.push(TaskRow {
            ts,
            task_id: e.task_id.cast_signed(),
            type_id: self.type_id(index),
            tid: e.tid.cast_signed(),
            source: Text::Borrowed(if e.poll_fn == NO_POLL_FN { "memory" } else { "probe" }),
        });
    }

    fn remember_type(&mut self, task_id: u64, index: usize) {
        if self.types.len() >= MOST_TYPES {
            self.types.clear();
        }
        self.types.insert(task_id, index);
    }

    /// A task that a thread was found to poll by its stack.
    pub(super) fn found_task(&mut self, tid: u32, found: &RunningTask) {
        let ts = kernel::now();
        let e = TaskEvent {
            tid,
            ts,
            task_id: found.task_id,
            poll_addr: found.poll_addr,
            owner: found.owner,
            poll_fn: NO_POLL_FN,
            ..TaskEvent::zeroed()
        };
        // A type that is not known yet may be later.
        if self.index(&e).is_some() {
            self.found_tasks += 1;
            self.add_task(&e);
        }
    }

    /// Each thread, and whether it is known to be a worker.
    pub(super) fn threads(&self) -> impl Iterator<Item = (bool, u32)> {
        self.threads.all()
    }

    /// The number of a worker.
    pub(super) fn worker(&self, tid: u32) -> Option<i32> {
        self.threads.worker(tid)
    }

    /// Whether a task is a worker's loop.
    pub(super) fn is_loop(&self, task_id: u64) -> bool {
        self.threads.is_loop(task_id)
    }

    /// Since when events have tasks (CLOCK_MONOTONIC).
    pub(super) fn task_ids_since(&self) -> Option<u64> {
        self.task_ids_since
    }

    pub(super) fn activity(&self, tid: u32) -> Option<Activity> {
        self.activities.of(tid)
    }

    /// The end of a thread's last poll, or later; 0 if there was none (CLOCK_MONOTONIC).
    pub(super) fn last_poll(&self, tid: u32) -> u64 {
        self.activities.last_poll(tid)
    }

    /// The poll function of a task, if it was reported lately.
    pub(super) fn type_index(&self, task_id: u64) -> Option<usize> {
        self.types.get(&task_id).copied()
    }

    pub(super) fn type_of(&self, task_id: u64) -> Option<i64> {
        self.type_id(self.type_index(task_id))
    }

    pub(super) fn kind(&self, index: usize) -> Option<TaskKind> {
        self.poll_fns.get(index).map(|poll| poll.kind)
    }

    pub(super) fn stack_id(&mut self, frames: &[u64], outcome: Outcome) -> Option<i64> {
        self.stacks.id(frames, outcome).0
    }

    pub(super) fn epoch(&self, ts: u64) -> i64 {
        self.clock.epoch(ts)
    }

    pub(super) fn in_progress(&mut self, row: InProgressRow) {
        self.in_progress.push(row);
    }

    /// Adds a row of a snapshot of all tasks.
    pub(super) fn task_state(&mut self, row: TaskStateRow, out: &BatchSender) {
        self.task_states.push(row);
        if self.task_states.len() >= BATCH_ROWS {
            out.send(&mut self.task_states);
        }
    }

    /// The type of the tasks with this poll function (runtime address).
    pub(super) fn type_at(&self, poll: u64) -> Option<i64> {
        self.type_id(self.poll_addresses.get(&poll).copied())
    }

    pub(super) fn await_stack_id(&mut self, stack: &AwaitStack) -> Option<i64> {
        self.stacks.await_id(stack)
    }

    fn task_id(&self, id: u64) -> Option<i64> {
        (id != 0 && !self.threads.is_loop(id)).then_some(id.cast_signed())
    }

    fn index(&self, e: &TaskEvent) -> Option<usize> {
        if e.poll_fn == NO_POLL_FN {
            self.poll_addresses.get(&e.poll_addr).copied()
        } else {
            usize::try_from(e.poll_fn).ok()
        }
    }

    /// Type ids are indexes of poll functions, counted from 1.
    fn type_id(&self, index: Option<usize>) -> Option<i64> {
        let index = index.filter(|&i| i < self.poll_fns.len())?;
        i64::try_from(index).ok()?.checked_add(1)
    }
}

/// The letters of `ps` and of `/proc/PID/stat`, by the bits of include/linux/sched.h.
fn state_name(state: u32) -> &'static str {
    const TASK_NOLOAD: u32 = 0x400;
    match state {
        s if s & STATE_PREEMPTED != 0 => "R",
        s if s & 0x01 != 0 => "S",
        s if s & 0x02 != 0 && s & TASK_NOLOAD != 0 => "I",
        s if s & 0x02 != 0 => "D",
        s if s & 0x04 != 0 => "T",
        s if s & 0x08 != 0 => "t",
        s if s & 0x40 != 0 => "P",
        _ => "R",
    }
}

/// A row's task, for [`Activities`]; 0 = none, or a worker's loop.
fn in_task(task_id: Option<i64>) -> u64 {
    task_id.map_or(0, i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_letters_of_ps() {
        for (state, letter) in [
            (0, "R"),
            (STATE_PREEMPTED, "R"),
            (STATE_PREEMPTED | 1, "R"),
            (1, "S"),
            (0x2001, "S"),
            (2, "D"),
            (0x402, "I"),
            (4, "T"),
        ] {
            assert_eq!(state_name(state), letter, "{state:#x}");
        }
    }
}
