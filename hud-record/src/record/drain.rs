//! The drain: events out of the ring, rows into columns.
//!
//! No symbol work and no strings here: names are borrowed constants, stacks are ids, the rest is integers.

use std::{
    collections::{HashMap, HashSet},
    sync::mpsc::Sender,
};

use hud_common::{
    session::{
        Clock, Columns as _, OffCpuColumns, OffCpuRow, PollColumns, PollRow, SampleColumns, SampleRow, TaskColumns,
        TaskRow, Text, ThreadColumns, ThreadRow,
    },
    wire::{
        Event, NO_POLL_FN, OffCpuHead, PollEvent, STATE_PREEMPTED, SampleHead, Stream, TaskEvent, ThreadChange,
        ThreadEvent, ThreadState,
    },
};

use super::{
    stacks::{NewStack, StackTable},
    writer::BatchSender,
};
use crate::target::{Mapping, TaskKind, Tokio, clean};

/// Rows after which a table's columns become a batch: below about 1,000, Arrow's framing costs more than it carries.
const BATCH_ROWS: usize = 4096;

/// Threads that are remembered by name and role.
const MAX_THREADS: usize = 65_536;

/// Turns events into rows.
pub(super) struct Drain {
    clock: Clock,
    sample_weight: i64,
    /// By the index that the poll probes were given.
    kinds: Vec<TaskKind>,
    /// Index of a poll function by its runtime address.
    poll_addresses: HashMap<u64, usize>,
    /// Tasks that are the loop of a worker thread: for everybody else, no task.
    worker_loops: HashSet<u64>,
    threads: HashMap<u32, Thread>,
    stacks: StackTable,
    polls: PollColumns,
    off_cpu: OffCpuColumns,
    samples: SampleColumns,
    tasks: TaskColumns,
    thread_rows: ThreadColumns,
    /// Rows made of the kernel's events, by stream.
    pub(super) rows: [u64; Stream::ALL.len()],
    /// Rows that the recorder added on its own, by stream.
    pub(super) own_rows: [u64; Stream::ALL.len()],
    /// Records that were none of ours.
    pub(super) undecoded: u64,
    /// Bytes read.
    pub(super) bytes: u64,
}

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    role: &'static str,
    /// The id of the loop that it runs, where it is a worker.
    worker_loop: Option<u64>,
    worker: Option<i32>,
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
            kinds: tokio.poll_fns.iter().map(|p| p.kind).collect(),
            poll_addresses: tokio
                .poll_fns
                .iter()
                .enumerate()
                .map(|(index, p)| (p.address.wrapping_add(load_bias), index))
                .collect(),
            worker_loops: HashSet::new(),
            threads: HashMap::new(),
            stacks: StackTable::new(mappings, namer),
            polls: PollColumns::default(),
            off_cpu: OffCpuColumns::default(),
            samples: SampleColumns::default(),
            tasks: TaskColumns::default(),
            thread_rows: ThreadColumns::default(),
            rows: [0; Stream::ALL.len()],
            own_rows: [0; Stream::ALL.len()],
            undecoded: 0,
            bytes: 0,
        }
    }

    /// Takes one record of the ring.
    pub(super) fn record(&mut self, record: &[u8], out: &BatchSender) {
        self.bytes += record.len() as u64;
        match Event::decode(record) {
            Some(Event::Poll(e)) => self.poll(e, out),
            Some(Event::OffCpu(e, stack)) => {
                self.rows[Stream::OffCpu as usize] += 1;
                self.off_cpu_row(e, stack, out);
            }
            Some(Event::Sample(e, stack)) => self.sample(e, stack, out),
            Some(Event::Task(e)) => self.task(e),
            Some(Event::Thread(e)) => self.thread(e),
            None => self.undecoded += 1,
        }
    }

    /// Hands over what has gathered.
    pub(super) fn flush(&mut self, out: &BatchSender) {
        out.send(&mut self.thread_rows);
        out.send(&mut self.tasks);
        out.send(&mut self.polls);
        out.send(&mut self.off_cpu);
        out.send(&mut self.samples);
    }

    /// Events whose stack was not kept.
    pub(super) fn stacks_not_kept(&self) -> u64 {
        self.stacks.not_kept
    }

    /// A thread that was there before recording began.
    pub(super) fn existing_thread(&mut self, ts: i64, tid: u32, name: String) {
        let thread = Thread { name: clean(&name), role: "other", worker_loop: None, worker: None };
        self.own_thread_row(ts, tid, &thread, "seen");
        self.threads.insert(tid, thread);
    }

    /// A stretch off CPU that is not over as recording ends.
    pub(super) fn unfinished(&mut self, state: &ThreadState, end: u64, out: &BatchSender) {
        let mut head = state.off.head;
        head.dur = end.saturating_sub(head.ts);
        let frames = usize::try_from(head.frames).unwrap_or(0);
        self.own_rows[Stream::OffCpu as usize] += 1;
        self.off_cpu_row(&head, state.off.stack.get(..frames).unwrap_or_default(), out);
    }

    /// Goes on in the next session, at `ts` of its clock: what is known of threads stays and is told again, stacks get new
    /// ids, counts begin anew. What has gathered must have been flushed.
    pub(super) fn next_session(&mut self, clock: Clock, ts: i64, mappings: &[Mapping], namer: Sender<NewStack>) {
        self.clock = clock;
        self.stacks = StackTable::new(mappings, namer);
        (self.rows, self.own_rows) = ([0; Stream::ALL.len()], [0; Stream::ALL.len()]);
        (self.undecoded, self.bytes) = (0, 0);
        self.tell_threads(ts);
    }

    /// Tells every living thread again, so that rows from before `ts` are not needed for it.
    pub(super) fn tell_threads(&mut self, ts: i64) {
        let threads: Vec<(u32, Thread)> = self.threads.iter().map(|(&tid, thread)| (tid, thread.clone())).collect();
        for (tid, thread) in threads {
            self.own_thread_row(ts, tid, &thread, "alive");
        }
    }

    fn poll(&mut self, e: &PollEvent, out: &BatchSender) {
        self.rows[Stream::Polls as usize] += 1;
        self.polls.push(PollRow {
            ts: self.clock.epoch(e.ts),
            dur: e.dur.cast_signed(),
            task_id: e.task_id.cast_signed(),
            type_id: self.type_id(usize::try_from(e.poll_fn).ok()),
            tid: e.tid.cast_signed(),
            cpu: e.cpu.cast_signed(),
            blocked: e.blocked.cast_signed(),
            run_queue: e.run_queue.cast_signed(),
            wake_ts: None,
            completed: None,
        });
        if self.polls.len() >= BATCH_ROWS {
            out.send(&mut self.polls);
        }
    }

    fn off_cpu_row(&mut self, e: &OffCpuHead, stack: &[u64], out: &BatchSender) {
        let (stack_id, _) = self.stacks.id(stack);
        let woken = e.wake_ts != 0;
        self.off_cpu.push(OffCpuRow {
            ts: self.clock.epoch(e.ts),
            dur: e.dur.cast_signed(),
            tid: e.tid.cast_signed(),
            cpu: e.cpu.cast_signed(),
            state: Text::Borrowed(state_name(e.state)),
            task_id: self.task_id(e.task_id),
            stack_id,
            wake_ts: woken.then(|| self.clock.epoch(e.wake_ts)),
            waker_tid: (woken && e.waker_tid != 0).then_some(e.waker_tid.cast_signed()),
        });
        if self.off_cpu.len() >= BATCH_ROWS {
            out.send(&mut self.off_cpu);
        }
    }

    fn sample(&mut self, e: &SampleHead, stack: &[u64], out: &BatchSender) {
        self.rows[Stream::Samples as usize] += 1;
        let (stack_id, unwind) = self.stacks.id(stack);
        self.samples.push(SampleRow {
            ts: self.clock.epoch(e.ts),
            tid: e.tid.cast_signed(),
            cpu: e.cpu.cast_signed(),
            task_id: self.task_id(e.task_id),
            stack_id,
            weight: self.sample_weight,
            unwind: Text::Borrowed(unwind.name()),
        });
        if self.samples.len() >= BATCH_ROWS {
            out.send(&mut self.samples);
        }
    }

    fn task(&mut self, e: &TaskEvent) {
        self.rows[Stream::Tasks as usize] += 1;
        let index = if e.poll_fn == NO_POLL_FN {
            self.poll_addresses.get(&e.poll_addr).copied()
        } else {
            usize::try_from(e.poll_fn).ok()
        };
        let ts = self.clock.epoch(e.ts);
        match index.and_then(|i| self.kinds.get(i)) {
            Some(TaskKind::Worker) => self.is_worker(ts, e.tid, e.task_id),
            Some(TaskKind::Blocking) => self.has_role(ts, e.tid, "blocking"),
            _ => {}
        }
        self.tasks.push(TaskRow {
            ts,
            task_id: e.task_id.cast_signed(),
            type_id: self.type_id(index),
            tid: e.tid.cast_signed(),
            source: Text::Borrowed(if e.poll_fn == NO_POLL_FN { "memory" } else { "probe" }),
        });
    }

    fn thread(&mut self, e: &ThreadEvent) {
        self.rows[Stream::Threads as usize] += 1;
        let end = e.comm.iter().position(|&b| b == 0).unwrap_or(e.comm.len());
        let name = clean(&String::from_utf8_lossy(e.comm.get(..end).unwrap_or_default()));
        let ts = self.clock.epoch(e.ts);
        let mut thread = self.threads.remove(&e.tid).unwrap_or(Thread {
            name: String::new(),
            role: "other",
            worker_loop: None,
            worker: None,
        });
        thread.name = name;
        let event = match e.change {
            c if c == ThreadChange::Gone as u32 => "gone",
            c if c == ThreadChange::Renamed as u32 => "renamed",
            _ => "seen",
        };
        self.thread_row(ts, e.tid, &thread, event);
        if event != "gone" && self.threads.len() < MAX_THREADS {
            self.threads.insert(e.tid, thread);
        }
    }

    /// A thread runs a worker's loop. Workers are numbered in the order in which their loops were spawned, so a newly
    /// met one may change the numbers of others.
    fn is_worker(&mut self, ts: i64, tid: u32, task_id: u64) {
        self.worker_loops.insert(task_id);
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        thread.role = "worker";
        thread.worker_loop = Some(task_id);
        let mut loops: Vec<u64> = self.threads.values().filter_map(|t| t.worker_loop).collect();
        loops.sort_unstable();
        let mut changed = Vec::new();
        for (&tid, thread) in &mut self.threads {
            let Some(own) = thread.worker_loop else { continue };
            let number = loops.binary_search(&own).ok().and_then(|n| i32::try_from(n).ok());
            if thread.worker != number {
                thread.worker = number;
                changed.push((tid, thread.clone()));
            }
        }
        for (tid, thread) in changed {
            self.own_thread_row(ts, tid, &thread, "role");
        }
    }

    fn has_role(&mut self, ts: i64, tid: u32, role: &'static str) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        if thread.role == "other" {
            thread.role = role;
            let thread = thread.clone();
            self.own_thread_row(ts, tid, &thread, "role");
        }
    }

    fn own_thread_row(&mut self, ts: i64, tid: u32, thread: &Thread, event: &'static str) {
        self.own_rows[Stream::Threads as usize] += 1;
        self.thread_row(ts, tid, thread, event);
    }

    fn thread_row(&mut self, ts: i64, tid: u32, thread: &Thread, event: &'static str) {
        self.thread_rows.push(ThreadRow {
            ts,
            tid: tid.cast_signed(),
            name: thread.name.clone().into(),
            role: thread.role.into(),
            worker: thread.worker,
            runtime_id: None,
            event: event.into(),
        });
    }

    fn task_id(&self, id: u64) -> Option<i64> {
        (id != 0 && !self.worker_loops.contains(&id)).then_some(id.cast_signed())
    }

    /// Type ids are indexes of poll functions, counted from 1.
    fn type_id(&self, index: Option<usize>) -> Option<i64> {
        let index = index.filter(|&i| i < self.kinds.len())?;
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
