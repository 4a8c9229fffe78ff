//! Events and tables that the kernel programs and user space exchange: events in the ring buffer, states and configuration
//! in maps, and in [`unwind`] the unwind tables.
//!
//! Every event starts with its [`kind`](EventKind) and its thread. Times are CLOCK_MONOTONIC nanoseconds, durations
//! nanoseconds. All structs are `repr(C)` without padding and a multiple of 8 bytes, so that a record can be read in place;
//! [`Event::decode`] is the one place where bytes become events.
//!
//! Invariant: the kernel counts an event as *produced* exactly once, before it tries to send it, and as *lost* if the ring
//! is full. So `produced = decoded + lost` once the ring has been drained.

#![no_std]

pub mod unwind;

use bytemuck::{AnyBitPattern, Pod, Zeroable};

/// Maximum frames of a stack; deeper stacks are cut at the root and flagged as truncated.
pub const MAX_FRAMES: usize = 128;
/// Maximum kernel frames of a sample's stack, before the user's.
pub const MAX_KERNEL_FRAMES: usize = 32;
/// Maximum nesting of polls on one thread (a `LocalSet` inside a task, `block_on` inside `block_in_place`, …).
pub const MAX_POLLS: usize = 8;
/// A poll function without an index: found through a task's vtable in memory, not by a probe.
pub const NO_POLL_FN: u32 = u32::MAX;

/// The kind of a record in the ring buffer.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`PollEvent`]
    Poll = 1,
    /// [`OffCpuEvent`]
    OffCpu = 2,
    /// [`SampleEvent`]
    Sample = 3,
    /// [`TaskEvent`]
    Task = 4,
    /// [`ThreadEvent`]
    Thread = 5,
    /// [`WakeEvent`]
    Wake = 6,
    /// [`SpawnEvent`]
    Spawn = 7,
    /// [`EndEvent`]
    End = 8,
    /// [`ShortPollEvent`]
    ShortPoll = 9,
}

/// A stream of events with its own counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Exact polls.
    Polls = 0,
    /// Off-CPU intervals.
    OffCpu = 1,
    /// CPU samples.
    Samples = 2,
    /// Tasks whose type became known.
    Tasks = 3,
    /// Threads that were observed, renamed or exited.
    Threads = 4,
    /// Tasks woken.
    Wakes = 5,
    /// Tasks spawned.
    Spawns = 6,
    /// Tasks that ended.
    Ends = 7,
}

/// Number of streams.
pub const STREAMS: usize = 8;

impl Stream {
    /// All streams, in the order of their counters.
    pub const ALL: [Stream; STREAMS] = [
        Stream::Polls,
        Stream::OffCpu,
        Stream::Samples,
        Stream::Tasks,
        Stream::Threads,
        Stream::Wakes,
        Stream::Spawns,
        Stream::Ends,
    ];

    /// Whether its events come from probes in the target's code, which cost and may be switched off.
    pub const fn is_probed(self) -> bool {
        matches!(self, Stream::Polls | Stream::Wakes | Stream::Spawns | Stream::Ends)
    }

    /// The stream's name, which is that of its table.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Polls => "polls",
            Stream::OffCpu => "off_cpu",
            Stream::Samples => "samples",
            Stream::Tasks => "tasks",
            Stream::Threads => "threads",
            Stream::Wakes => "wakes",
            Stream::Spawns => "spawns",
            Stream::Ends => "ends",
        }
    }
}

/// A stream's counters; the kernel has a set per CPU, user space sums them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct StreamCounters {
    /// Number of events.
    pub produced: u64,
    /// Number of these that were lost because the ring was full.
    pub lost: u64,
    /// Number of events lost because the map of threads was full, or polls nested deeper than [`MAX_POLLS`]. Not in
    /// `produced`.
    pub untracked: u64,
}

/// Counters of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Counters {
    /// By [`Stream`].
    pub streams: [StreamCounters; STREAMS],
    /// Failed reads of the current task's id from thread-local storage.
    pub tls_failed: u64,
    /// Off-CPU intervals whose end was not observed, and was reconstructed.
    pub arrivals_missed: u64,
    /// Failed searches of a stack for the task's header.
    pub scan_failed: u64,
    /// Steps of stack walks that reached an address in no known mapping: new code may be mapped.
    pub unmapped: u64,
    /// Stacks taken from the cache instead of walked.
    pub spared: u64,
    /// Off-CPU intervals that were reported as part of another event.
    pub merged: u64,
    /// Off-CPU intervals that were reported without a stack of their own, to stay within the budget.
    pub not_walked: u64,
    /// Hits of probes on polls: entries and returns.
    pub poll_hits: u64,
    /// Hits of the other probes: wakes, spawns, panics.
    pub other_hits: u64,
}

/// One task poll, from the entry of `tokio::runtime::task::raw::poll` to its return.
///
/// `blocked` is the part of the poll that the thread spent asleep, `run_queue` the part in which it was runnable
/// without a CPU, waiting in a run queue or on a virtual CPU that its hypervisor did not run; the rest was spent computing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PollEvent {
    /// [`EventKind::Poll`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When the poll began.
    pub ts: u64,
    /// Its duration.
    pub dur: u64,
    /// Tokio's task id; 0 if it could not be read.
    pub task_id: u64,
    /// Asleep inside the poll.
    pub blocked: u64,
    /// Runnable inside the poll, without a CPU.
    pub run_queue: u64,
    /// The first wake since the task's previous poll, or its spawn; 0 if not observed.
    pub wake_ts: u64,
    /// Index of the poll function, set at the attach.
    pub poll_fn: u32,
    /// The CPU on which the poll ended.
    pub cpu: u16,
    /// 1 if the task ended in it.
    pub completed: u16,
}

/// The short form of most [`PollEvent`]s: shorter than four seconds, on a CPU throughout, soon after its wake. It has half the
/// size, as the ring's bytes are written on one CPU and read on another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ShortPollEvent {
    /// [`EventKind::ShortPoll`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When the poll began.
    pub ts: u64,
    /// Tokio's task id; 0 if it could not be read.
    pub task_id: u64,
    /// Its duration.
    pub dur: u32,
    /// Time from the wake to the poll; [`ShortPollEvent::NO_WAKE`] if no wake was observed.
    pub wake_delay: u32,
    /// Index of the poll function, set at the attach.
    pub poll_fn: u32,
    /// The CPU on which the poll ended.
    pub cpu: u16,
    /// 1 if the task ended in it.
    pub completed: u16,
}

impl ShortPollEvent {
    /// In place of a delay: no wake was observed.
    pub const NO_WAKE: u32 = u32::MAX;
}

impl PollEvent {
    /// The short form, if that holds all of it.
    #[inline(always)]
    pub fn short(&self) -> Option<ShortPollEvent> {
        let dur = u32::try_from(self.dur).ok()?;
        let wake_delay = match self.wake_ts {
            0 => ShortPollEvent::NO_WAKE,
            ts => u32::try_from(self.ts.wrapping_sub(ts)).ok().filter(|delay| *delay != ShortPollEvent::NO_WAKE)?,
        };
        if self.blocked | self.run_queue != 0 {
            return None;
        }
        Some(ShortPollEvent {
            kind: EventKind::ShortPoll as u32,
            tid: self.tid,
            ts: self.ts,
            task_id: self.task_id,
            dur,
            wake_delay,
            poll_fn: self.poll_fn,
            cpu: self.cpu,
            completed: self.completed,
        })
    }
}

impl From<&ShortPollEvent> for PollEvent {
    #[inline]
    fn from(short: &ShortPollEvent) -> Self {
        let wake_ts = match short.wake_delay {
            ShortPollEvent::NO_WAKE => 0,
            delay => short.ts.wrapping_sub(delay.into()),
        };
        PollEvent {
            kind: EventKind::Poll as u32,
            tid: short.tid,
            ts: short.ts,
            dur: short.dur.into(),
            task_id: short.task_id,
            blocked: 0,
            run_queue: 0,
            wake_ts,
            poll_fn: short.poll_fn,
            cpu: short.cpu,
            completed: short.completed,
        }
    }
}

/// One off-CPU interval of a thread, from the switch away from it to the switch back; or the sum of several short ones. The
/// stack follows the head.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct OffCpuHead {
    /// [`EventKind::OffCpu`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When it left the CPU. Of a sum: the end of the last interval, less `dur`.
    pub ts: u64,
    /// Time off-CPU (ns), in all intervals.
    pub dur: u64,
    /// The task in a poll when the last one began; 0 = none.
    pub task_id: u64,
    /// When it was woken (in the last one); 0 = it stayed runnable.
    pub wake_ts: u64,
    /// Run-queue latency (ns): after the wake-up, and in a sum also after preemptions.
    pub run_queue: u64,
    /// The thread that woke it (of any process; 0 = none or the idle task).
    pub waker_tid: u32,
    /// The CPU that it left.
    pub cpu: u32,
    /// `task_struct::__state` as it left, with [`STATE_PREEMPTED`] if the switch was involuntary.
    pub state: u32,
    /// Frames that follow, leaf first.
    pub frames: u16,
    /// How the walk ended: an [`Outcome`](crate::unwind::Outcome).
    pub unwind: u16,
    /// Number of off-CPU intervals in this event.
    pub intervals: u32,
    /// 1 if it is the sum of short intervals that were not reported one by one, to stay within the overhead budget. It then
    /// has no stack.
    pub is_sum: u32,
}

/// Added to [`OffCpuHead::state`] for an involuntary switch.
pub const STATE_PREEMPTED: u32 = 1 << 31;

/// A CPU sample. The stack follows the head.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SampleHead {
    /// [`EventKind::Sample`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When.
    pub ts: u64,
    /// The task being polled; 0 = none.
    pub task_id: u64,
    /// CPU.
    pub cpu: u32,
    /// Frames that follow, leaf first.
    pub frames: u16,
    /// How the walk ended: an [`Outcome`](crate::unwind::Outcome).
    pub unwind: u16,
}

/// A stack, leaf first, as runtime addresses.
pub type StackBuffer = [u64; MAX_FRAMES];

/// An [`OffCpuHead`] and its stack, as the kernel keeps them while the thread is off-CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct OffCpuEvent {
    /// The head.
    pub head: OffCpuHead,
    /// The stack; `head.frames` of it are valid.
    pub stack: StackBuffer,
}

/// A [`SampleHead`] and its stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SampleEvent {
    /// The head.
    pub head: SampleHead,
    /// The stack; `head.frames` of it are valid. The kernel's frames come first, if the sample hit the kernel.
    pub stack: [u64; MAX_KERNEL_FRAMES + MAX_FRAMES],
}

/// A task's type became known. It is reported again if the kernel programs have evicted the task from their map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TaskEvent {
    /// [`EventKind::Task`]
    pub kind: u32,
    /// The thread that was polling it.
    pub tid: u32,
    /// When.
    pub ts: u64,
    /// Tokio's task id.
    pub task_id: u64,
    /// The address of its poll function in the target, from the task's vtable; 0 if `poll_fn` is known.
    pub poll_addr: u64,
    /// `Header::owner_id`: the list of tasks, that is, the runtime or `LocalSet`, to which it belongs; 0 = none.
    pub owner: u64,
    /// From the thread's scheduler context: the address of the handle to its runtime, or 0. Any word if the context is not a
    /// worker's.
    pub runtime: u64,
    /// The worker's index in the runtime, from the same context.
    pub worker: u64,
    /// Index of its poll function, or [`NO_POLL_FN`].
    pub poll_fn: u32,
    /// Padding, zero.
    pub reserved: u32,
}

/// A task is woken: it was neither notified already nor complete. The id of the task that the waking thread was polling
/// follows, if there is one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct WakeEvent {
    /// [`EventKind::Wake`]
    pub kind: u32,
    /// The waking thread.
    pub tid: u32,
    /// When.
    pub ts: u64,
    /// The task woken.
    pub task_id: u64,
}

/// A [`WakeEvent`] and the task that the waking thread was polling.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TaskWakeEvent {
    /// The wake.
    pub wake: WakeEvent,
    /// The task that the waking thread was polling; 0 = none.
    pub waker_task_id: u64,
}

/// A task is bound to its runtime: from then on it can be polled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SpawnEvent {
    /// [`EventKind::Spawn`]
    pub kind: u32,
    /// The spawning thread.
    pub tid: u32,
    /// When.
    pub ts: u64,
    /// The task.
    pub task_id: u64,
    /// The task that the spawning thread was polling; 0 = none.
    pub parent_task_id: u64,
    /// The address of its poll function in the target.
    pub poll_addr: u64,
}

/// How a task ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskOutcome {
    /// Its future was ready.
    Completed = 0,
    /// It was aborted.
    Cancelled = 1,
    /// Its future panicked.
    Panicked = 2,
}

/// A task ended in the poll that just returned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct EndEvent {
    /// [`EventKind::End`]
    pub kind: u32,
    /// [`TaskOutcome`]
    pub outcome: u32,
    /// When.
    pub ts: u64,
    /// The task.
    pub task_id: u64,
}

/// The event of a thread.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadChange {
    /// First observed.
    Seen = 1,
    /// Renamed.
    Renamed = 2,
    /// Exited.
    Gone = 3,
}

/// A thread was observed, renamed or exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ThreadEvent {
    /// [`EventKind::Thread`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When.
    pub ts: u64,
    /// Its name (`comm`), NUL-padded.
    pub comm: [u8; 16],
    /// [`ThreadChange`]
    pub change: u32,
    /// The thread that started it, where that was seen; else 0.
    pub parent: u32,
}

/// A poll in progress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PollFrame {
    /// When it began.
    pub ts: u64,
    /// The stack pointer at its entry, by which its return is recognized.
    pub sp: u64,
    /// Task.
    pub task_id: u64,
    /// Asleep so far.
    pub blocked: u64,
    /// Runnable without a CPU so far.
    pub run_queue: u64,
    /// The wake that led to it; 0 = not seen.
    pub wake_ts: u64,
    /// The task's `Header`.
    pub header: u64,
    /// The task's vtable, to check after the poll whether `header` is still this task's.
    pub vtable: u64,
    /// Index of the poll function.
    pub poll_fn: u32,
    /// How the task ends if it ends in this poll: a [`TaskOutcome`].
    pub outcome: u32,
}

/// The registers at which a stack walk begins, and the task in a poll. If they are unchanged, the thread most likely waits
/// where it waited before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Leaf {
    /// `rip`
    pub pc: u64,
    /// `rsp`
    pub sp: u64,
    /// `rbp`
    pub bp: u64,
    /// The task.
    pub task_id: u64,
}

/// Short off-CPU intervals of a thread that have not been reported yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Unreported {
    /// Their number.
    pub intervals: u64,
    /// Sum of their durations (ns).
    pub dur: u64,
    /// Sum of their run-queue latencies (ns).
    pub run_queue: u64,
    /// When the first one began.
    pub since: u64,
    /// The task in a poll when the last one began; 0 = none.
    pub task_id: u64,
}

/// Entries of [`ThreadState::places`].
pub const PLACES: usize = 8;

/// The state of a thread of the target. The fields that every context switch touches come first, so that they take few cache
/// lines.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ThreadState {
    /// While the thread is off-CPU: [`switch_tag`] of the time from which switches count; else 0.
    pub is_off: u32,
    /// 1 if the stack in `off` was walked at the start of the interval, 0 if it is that of an earlier one.
    pub is_walked: u32,
    /// Start of its on-CPU interval; 0 = unknown.
    pub on_since: u64,
    /// Number of polls in progress.
    pub depth: u64,
    /// The epoch of the probes in which they began: those of another epoch are discarded.
    pub epoch: u64,
    /// Places where it recently left the CPU: in the upper 24 bits a hash of its registers, in the lower 8 the number of
    /// consecutive short intervals there.
    pub places: [u32; PLACES],
    /// Short intervals that have not been reported yet.
    pub unreported: Unreported,
    /// The leaf of the last walk, whose stack is in `off`.
    pub leaf: Leaf,
    /// Its frames.
    pub frames: u16,
    /// How it ended: an [`Outcome`](crate::unwind::Outcome).
    pub unwind: u16,
    /// Hash of the registers with which it last left the CPU.
    pub place: u32,
    /// The stack slot in which the current task's header was last found; 0 = none yet.
    pub anchor: u64,
    /// Its name.
    pub comm: [u8; 16],
    /// The off-CPU interval in progress, if `is_off` is set.
    pub off: OffCpuEvent,
    /// Polls in progress, outermost first.
    pub polls: [PollFrame; MAX_POLLS],
}

/// The token bucket of one CPU, from which the programs at context switches pay for their time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct SwitchBudget {
    /// Tokens (ns); negative if overdrawn.
    pub tokens: i64,
    /// When tokens were last added.
    pub refilled: u64,
    /// Off-CPU intervals shorter than this may be reported as a sum (ns).
    pub limit: u64,
    /// When that limit was last changed.
    pub limit_set: u64,
    /// Number of switches away from threads of the target, while switches counted.
    pub switches: u64,
    /// Time spent on walks and searches at switches (ns).
    pub spent: u64,
    /// Time spent on samples (ns).
    pub sampled: u64,
}

/// The value of [`ThreadState::is_off`] while switches count from `since` on (CLOCK_MONOTONIC). It shows whether an interval
/// began before switches last stopped counting.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "any bits of the time will do")]
pub const fn switch_tag(since: u64) -> u32 {
    (since >> 16) as u32 | 1
}

/// The configuration of the kernel programs, written before they are loaded: constants to the verifier.
///
/// Offsets come from the kernel's BTF (`task_*`, `utask_*`, `instance_*`) or from tokio's and the target's layout (the
/// others). An offset of [`Config::NONE`] disables the code that needs it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Config {
    /// The target's thread group (in the pid namespace that hud runs in).
    pub tgid: u32,
    /// `task_struct::pid`.
    pub task_pid: u32,
    /// `task_struct::tgid`.
    pub task_tgid: u32,
    /// `task_struct::thread.fsbase`.
    pub task_fsbase: u32,
    /// `Vtable::poll`.
    pub vtable_poll: u32,
    /// `Vtable::id_offset`.
    pub vtable_id_offset: u32,
    /// 1 if polls are to be sent. Otherwise poll probes only serve to find the thread-local.
    pub polls: u32,
    /// 1 if the word before the id is the tag of an `Option<u64>`: tokio before 1.40, in which the id outlives its task.
    pub tls_tagged: u32,
    /// Offset of tokio's thread-local `CONTEXT` from the thread's `fsbase`, or from the block of `tls_module`; if its
    /// symbol is stripped, that of all the module's thread-locals.
    pub tls_context: i64,
    /// The id of the shared library with tokio, if its thread-locals are reached by the thread's vector of blocks (`dtv`);
    /// else 0.
    pub tls_module: u64,
    /// Its size in words; 0 = it cannot be read. [`Calibration::found`] is the word that holds the current task's id.
    pub tls_words: u64,
    /// First address at which a task vtable may lie in the target.
    pub vtables_start: u64,
    /// Address past them.
    pub vtables_end: u64,
    /// Device and inode of the pid namespace that hud runs in; 0 if that is the initial one.
    pub pidns_device: u64,
    /// See `pidns_device`.
    pub pidns_inode: u64,
    /// 1 = stacks are walked by unwind tables, 0 = by frame pointers.
    pub unwind: u32,
    /// `task_struct::utask`.
    pub task_utask: u32,
    /// `uprobe_task::return_instances`.
    pub utask_instances: u32,
    /// `return_instance::stack`.
    pub instance_stack: u32,
    /// `return_instance::orig_ret_vaddr`.
    pub instance_return: u32,
    /// `return_instance::next`.
    pub instance_next: u32,
    /// `task_struct::__state`, if `sched_switch` does not pass it (Linux before 5.18); else [`Config::NONE`].
    pub task_state: u32,
    /// Share of the target's CPU time that the programs at context switches may spend on stacks, in 65536ths.
    pub switch_share: u32,
    /// Minimum share of each CPU's time, in 65536ths, so that a nearly idle target is recorded too.
    pub switch_floor: u32,
    /// `task_struct::se` + `sched_entity::cfs_rq`; [`Config::NONE`] = steal time cannot be read.
    pub task_cfs_rq: u32,
    /// `cfs_rq::rq`.
    pub cfs_rq_rq: u32,
    /// `rq::prev_steal_time`.
    pub rq_steal: u32,
    /// 1 if the target is to be stopped (SIGSTOP) when it executes another program.
    pub stop_at_exec: u32,
    /// `task_struct::thread_pid`.
    pub task_thread_pid: u32,
    /// `pid::level`.
    pub pid_level: u32,
    /// `pid::numbers`.
    pub pid_numbers: u32,
    /// `pid_namespace::ns` + `ns_common::inum`.
    pub pidns_inum: u32,
    /// Padding.
    pub reserved: u32,
}

impl Config {
    /// An unknown offset.
    pub const NONE: u32 = u32::MAX;
}

/// Number of words examined at a time: tokio's thread-local `CONTEXT` has 88 bytes in 1.54, and all thread-locals of a
/// program of moderate size have 300.
pub const CONTEXT_WORDS: usize = 64;

/// The position of the current task's id in `CONTEXT`. It is in the debug information. Without that: while polls are probed
/// the id is known, and after a few switches inside polls the word that always holds it is found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Calibration {
    /// Number of trials inside polls.
    pub looks: u64,
    /// The first of the words examined, set by user space.
    pub first: u64,
    /// Number of trials in which each of them held the id.
    pub hits: [u64; CONTEXT_WORDS],
    /// 1 + the word, once user space has decided; [`Calibration::GAVE_UP`] if it could not.
    pub found: u64,
    /// Offsets that lead to the worker whose loop a thread runs; all zero if unknown.
    pub worker: WorkerPlace,
}

/// Offsets from `CONTEXT` to the worker whose core a thread has: `scheduler` points to the context of a scheduler, which has
/// a pointer to the worker, which has one to its runtime's handle, and its own index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct WorkerPlace {
    /// 1 + the word of `CONTEXT` that points to the scheduler's context; 0 = unknown.
    pub scheduler: u64,
    /// Offset of the worker's address in the context.
    pub worker: u64,
    /// Offset of the handle's address from there.
    pub handle: u64,
    /// Offset of the index.
    pub index: u64,
}

impl Calibration {
    /// The search ended without a result: without polls there is then no current task.
    pub const GAVE_UP: u64 = u64::MAX;

    /// The word that holds the id, once that is certain: found often enough, in a third of the trials, and four times as often as
    /// any other. `words` is the number of all words.
    ///
    /// Not in every trial: at a poll's first instructions the id is not yet set, at its last no longer (with polls of 7 µs, 91 %
    /// of 126 trials were hits); and a task found on a thread's stack may be one that another thread polls.
    pub fn verdict(&self, words: u64) -> Option<u64> {
        const HITS: u64 = 16;
        let count = usize::try_from(words.saturating_sub(self.first)).unwrap_or(CONTEXT_WORDS);
        let mut best = (0, 0);
        let mut second = 0;
        for (word, &hits) in (0..).zip(&self.hits).take(count) {
            if hits > best.1 {
                second = best.1;
                best = (word, hits);
            } else if hits > second {
                second = hits;
            }
        }
        let is_sure = best.1 >= HITS && best.1 * 3 >= self.looks && second * 4 < best.1;
        is_sure.then_some(self.first + best.0)
    }
}

/// An event, read in place.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A poll, in either form.
    Poll(PollEvent),
    /// An off-CPU interval and its stack, leaf first.
    OffCpu(&'a OffCpuHead, &'a [u64]),
    /// A CPU sample and its stack, leaf first.
    Sample(&'a SampleHead, &'a [u64]),
    /// A task's type.
    Task(&'a TaskEvent),
    /// A thread was observed, renamed or exited.
    Thread(&'a ThreadEvent),
    /// A task woken, and the task that the waking thread was polling (0 = none).
    Wake(&'a WakeEvent, u64),
    /// A task spawned.
    Spawn(&'a SpawnEvent),
    /// A task ended.
    End(&'a EndEvent),
}

impl<'a> Event<'a> {
    /// Reads a record of the ring buffer. `None` if it is not one (too short, unknown kind, misaligned).
    #[inline]
    pub fn decode(record: &'a [u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(record.get(..4)?.try_into().ok()?);
        Some(match kind {
            k if k == EventKind::ShortPoll as u32 => Event::Poll(head::<ShortPollEvent>(record)?.0.into()),
            k if k == EventKind::Poll as u32 => Event::Poll(*head(record)?.0),
            k if k == EventKind::OffCpu as u32 => {
                let (event, rest) = head::<OffCpuHead>(record)?;
                Event::OffCpu(event, stack(rest, event.frames)?)
            }
            k if k == EventKind::Sample as u32 => {
                let (event, rest) = head::<SampleHead>(record)?;
                Event::Sample(event, stack(rest, event.frames)?)
            }
            k if k == EventKind::Task as u32 => Event::Task(head(record)?.0),
            k if k == EventKind::Thread as u32 => Event::Thread(head(record)?.0),
            k if k == EventKind::Wake as u32 => {
                let (event, rest) = head::<WakeEvent>(record)?;
                let waker = rest.get(..8).and_then(|id| id.try_into().ok()).map_or(0, u64::from_ne_bytes);
                Event::Wake(event, waker)
            }
            k if k == EventKind::Spawn as u32 => Event::Spawn(head(record)?.0),
            k if k == EventKind::End as u32 => Event::End(head(record)?.0),
            _ => return None,
        })
    }
}

#[inline]
fn head<T: AnyBitPattern>(record: &[u8]) -> Option<(&T, &[u8])> {
    let size = size_of::<T>();
    let head = bytemuck::try_from_bytes(record.get(..size)?).ok()?;
    Some((head, record.get(size..)?))
}

#[inline]
fn stack(rest: &[u8], frames: u16) -> Option<&[u64]> {
    let bytes = rest.get(..usize::from(frames) * 8)?;
    bytemuck::try_cast_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_short_and_unknown_records() {
        let event = OffCpuEvent {
            head: OffCpuHead { kind: EventKind::OffCpu as u32, frames: 3, ..Zeroable::zeroed() },
            stack: [7; MAX_FRAMES],
        };
        let bytes = bytemuck::bytes_of(&event);
        let whole = size_of::<OffCpuHead>() + 3 * 8;
        assert!(matches!(Event::decode(&bytes[..whole]), Some(Event::OffCpu(_, stack)) if stack == [7, 7, 7]));
        assert!(Event::decode(&bytes[..whole - 1]).is_none());
        assert!(Event::decode(&bytes[..3]).is_none());
        assert!(Event::decode(&[9; 64]).is_none());
    }

    #[test]
    fn decodes_both_forms_of_a_poll() {
        let poll = PollEvent {
            kind: EventKind::Poll as u32,
            tid: 7,
            ts: 1 << 40,
            dur: 1500,
            task_id: u64::MAX - 1,
            blocked: 0,
            run_queue: 0,
            wake_ts: (1 << 40) - 300,
            poll_fn: 3,
            cpu: 1,
            completed: 1,
        };
        let long = u64::from(u32::MAX);
        let forms = [
            (poll, true),
            (PollEvent { wake_ts: 0, completed: 0, ..poll }, true),
            (PollEvent { wake_ts: poll.ts, dur: long, ..poll }, true),
            (PollEvent { dur: long + 1, ..poll }, false),
            (PollEvent { wake_ts: poll.ts - long, ..poll }, false),
            (PollEvent { wake_ts: poll.ts + 1, ..poll }, false),
            (PollEvent { blocked: 1, ..poll }, false),
            (PollEvent { run_queue: 1, ..poll }, false),
        ];
        for (poll, is_short) in forms {
            let short = poll.short();
            assert_eq!(short.is_some(), is_short, "{poll:?}");
            let record = short.as_ref().map_or(bytemuck::bytes_of(&poll), bytemuck::bytes_of);
            let Some(Event::Poll(read)) = Event::decode(record) else { panic!("no poll: {poll:?}") };
            assert_eq!(bytemuck::bytes_of(&read), bytemuck::bytes_of(&poll), "{poll:?}");
            assert!(Event::decode(&record[..record.len() - 1]).is_none());
        }
    }

    #[test]
    fn decodes_a_wake_with_and_without_a_waking_task() {
        let wake = WakeEvent { kind: EventKind::Wake as u32, tid: 7, ts: 1, task_id: 2 };
        let whole = TaskWakeEvent { wake, waker_task_id: 9 };
        let bytes = bytemuck::bytes_of(&whole);
        let head = size_of::<WakeEvent>();
        assert!(matches!(Event::decode(bytes), Some(Event::Wake(WakeEvent { task_id: 2, .. }, 9))));
        assert!(matches!(Event::decode(&bytes[..head]), Some(Event::Wake(WakeEvent { task_id: 2, .. }, 0))));
        assert!(Event::decode(&bytes[..head - 1]).is_none());
    }

    #[test]
    fn finds_the_word_with_the_task_id() {
        let mut seen = Calibration::zeroed();
        assert_eq!(seen.verdict(64), None);
        (seen.looks, seen.hits[6]) = (20, 19);
        assert_eq!(seen.verdict(64), Some(6));
        // Another word held it as often.
        seen.hits[3] = 19;
        assert_eq!(seen.verdict(64), None);
        // Some trials may find tasks of other threads.
        (seen.hits[3], seen.looks) = (4, 57);
        assert_eq!(seen.verdict(64), Some(6));
        (seen.hits[3], seen.looks) = (4, 58);
        assert_eq!(seen.verdict(64), None);
        (seen.looks, seen.hits[6]) = (20, 10);
        assert_eq!(seen.verdict(64), None);
        // Words beyond the last one do not count.
        (seen.looks, seen.hits[6]) = (20, 19);
        assert_eq!(seen.verdict(6), None);
    }

    #[test]
    fn rejects_a_stack_longer_than_the_record() {
        let head = SampleHead { kind: EventKind::Sample as u32, frames: u16::MAX, ..Zeroable::zeroed() };
        assert!(Event::decode(bytemuck::bytes_of(&head)).is_none());
    }
}
