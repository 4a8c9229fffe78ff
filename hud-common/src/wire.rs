//! The kernel's events, as they lie in the ring buffer, and what user space tells the kernel program.
//!
//! Every event starts with [`kind`](EventKind) and the thread it is about. Times are CLOCK_MONOTONIC nanoseconds,
//! durations nanoseconds. All structs are `repr(C)` without padding and a multiple of 8 bytes, so that a record can be
//! read in place; [`Event::decode`] is the one place where bytes become events.
//!
//! Invariant: the kernel counts an event as *produced* exactly once, before it tries to hand it over, and as *lost*
//! when the ring was full. So `produced = decoded + lost` once the ring has been drained.

use bytemuck::{AnyBitPattern, Pod, Zeroable};

/// Frames a stack can hold; deeper stacks are cut at the root and flagged as truncated.
pub const MAX_FRAMES: usize = 128;
/// Frames of the kernel that a sample's stack can hold before the user's.
pub const MAX_KERNEL_FRAMES: usize = 32;
/// How deep polls may nest on one thread (a `LocalSet` inside a task, `block_on` inside `block_in_place`, …).
pub const MAX_POLLS: usize = 8;
/// A poll function without an index: found through a task's vtable in memory, not by a probe.
pub const NO_POLL_FN: u32 = u32::MAX;

/// What a record in the ring buffer is.
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

/// An always-separate flow of events with counters of its own.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Exact polls.
    Polls = 0,
    /// Stretches off CPU.
    OffCpu = 1,
    /// CPU samples.
    Samples = 2,
    /// Tasks whose type became known.
    Tasks = 3,
    /// Threads seen, renamed, gone.
    Threads = 4,
    /// Tasks woken.
    Wakes = 5,
    /// Tasks spawned.
    Spawns = 6,
    /// Tasks that ended.
    Ends = 7,
}

/// How many streams there are.
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

    /// The stream's name: that of the table its events go to.
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

/// A stream's counters; the kernel keeps one set a CPU, user space adds them up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct StreamCounters {
    /// Events that came to be.
    pub produced: u64,
    /// Of these, events that the ring had no room for.
    pub lost: u64,
    /// Events that never came to be: their thread found no room in the kernel program's map, or their polls nested
    /// deeper than [`MAX_POLLS`]. Not in `produced`.
    pub untracked: u64,
}

/// Counters of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Counters {
    /// By [`Stream`].
    pub streams: [StreamCounters; STREAMS],
    /// Reads of the current task's id from thread-local storage that failed.
    pub tls_failed: u64,
    /// Stretches off CPU whose end was not seen, and was made up for.
    pub arrivals_missed: u64,
    /// Searches of a stack for the task's header that found none.
    pub scan_failed: u64,
    /// Steps of a walk up a stack that came to an address in no mapping known: something new may be mapped.
    pub unmapped: u64,
    /// Walks that were spared, as the stack was one that a thread had before.
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
/// without a CPU; what remains was spent computing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PollEvent {
    /// [`EventKind::Poll`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When the poll began.
    pub ts: u64,
    /// How long it took.
    pub dur: u64,
    /// Tokio's task id; 0 where it could not be read.
    pub task_id: u64,
    /// Asleep inside the poll.
    pub blocked: u64,
    /// Runnable inside the poll, without a CPU.
    pub run_queue: u64,
    /// The first wake since the task's poll before, or its spawn; 0 where not seen.
    pub wake_ts: u64,
    /// Index of the poll function, as given at the attach.
    pub poll_fn: u32,
    /// The CPU on which the poll ended.
    pub cpu: u16,
    /// 1 where the task ended in it.
    pub completed: u16,
}

/// A [`PollEvent`] as most are: shorter than four seconds, all of it on a CPU, soon after its wake. Half as long, as the
/// ring is where probes and the recorder meet: its bytes are written on one CPU and read on another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ShortPollEvent {
    /// [`EventKind::ShortPoll`]
    pub kind: u32,
    /// Thread.
    pub tid: u32,
    /// When the poll began.
    pub ts: u64,
    /// Tokio's task id; 0 where it could not be read.
    pub task_id: u64,
    /// How long it took.
    pub dur: u32,
    /// How long before it the wake was; [`ShortPollEvent::NO_WAKE`] where not seen.
    pub wake_delay: u32,
    /// Index of the poll function, as given at the attach.
    pub poll_fn: u32,
    /// The CPU on which the poll ended.
    pub cpu: u16,
    /// 1 where the task ended in it.
    pub completed: u16,
}

impl ShortPollEvent {
    /// In place of a delay: no wake was seen.
    pub const NO_WAKE: u32 = u32::MAX;
}

impl PollEvent {
    /// The same in short, where that says all of it.
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
    /// How long it was off CPU (ns), in all intervals.
    pub dur: u64,
    /// The task it was polling as the last one began; 0 = none.
    pub task_id: u64,
    /// When it was woken (in the last one); 0 = never, it stayed runnable.
    pub wake_ts: u64,
    /// Runnable without a CPU (ns): after having been woken, and in a sum also where the CPU was taken away.
    pub run_queue: u64,
    /// The thread that woke it (of any process; 0 = none or the idle task).
    pub waker_tid: u32,
    /// The CPU that it left.
    pub cpu: u32,
    /// `task_struct::__state` as it left; [`STATE_PREEMPTED`] added where the scheduler took the CPU away.
    pub state: u32,
    /// Frames that follow, leaf first.
    pub frames: u16,
    /// How the walk ended: an [`Outcome`](crate::unwind::Outcome).
    pub unwind: u16,
    /// How many off-CPU intervals this event is about.
    pub intervals: u32,
    /// 1 where it sums up short intervals that were not reported one by one, to stay within the overhead budget. It then has
    /// no stack.
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

/// Room for a whole stack, leaf first, as runtime addresses.
pub type StackBuffer = [u64; MAX_FRAMES];

/// An [`OffCpuHead`] with room for its stack, as the kernel keeps it while the thread is away.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct OffCpuEvent {
    /// The head.
    pub head: OffCpuHead,
    /// The stack; `head.frames` of it are valid.
    pub stack: StackBuffer,
}

/// A [`SampleHead`] with room for its stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SampleEvent {
    /// The head.
    pub head: SampleHead,
    /// The stack; `head.frames` of it are valid. The kernel's frames come first, where the sample hit the kernel.
    pub stack: [u64; MAX_KERNEL_FRAMES + MAX_FRAMES],
}

/// A task's type became known, for the first time (as far as the kernel program remembers).
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
    /// The address of its poll function in the target, from the task's vtable; 0 where `poll_fn` is known.
    pub poll_addr: u64,
    /// `Header::owner_id`: which list of tasks, that is, which runtime or `LocalSet` it belongs to; 0 = none.
    pub owner: u64,
    /// What the thread's scheduler context says, if it is that of a worker: the address of the handle to its runtime, or 0,
    /// and the worker's index in it. Elsewhere these are any words.
    pub runtime: u64,
    /// The worker's index.
    pub worker: u64,
    /// Index of its poll function, or [`NO_POLL_FN`].
    pub poll_fn: u32,
    /// Padding, zero.
    pub reserved: u32,
}

/// A task is woken: it was neither waiting for a poll already nor complete. The id of the task that the waking thread was
/// polling follows, where there is one.
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

/// A task is bound to its runtime: the first moment at which it can be polled.
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

/// What happened to a thread.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadChange {
    /// First met.
    Seen = 1,
    /// Has another name now.
    Renamed = 2,
    /// Exited.
    Gone = 3,
}

/// A thread seen, renamed or gone.
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

/// A poll under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PollFrame {
    /// When it began.
    pub ts: u64,
    /// The stack pointer at its entry; tells which return belongs to it.
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
    /// The task's vtable: tells whether `header` is still this task's when the poll is over.
    pub vtable: u64,
    /// Index of the poll function.
    pub poll_fn: u32,
    /// How the task ends if it ends in it, as far as is known: a [`TaskOutcome`].
    pub outcome: u32,
}

/// The registers by which a stack walk begins, and the task that was being polled. While they are the same, the thread
/// most likely waits where it waited before.
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
    /// How many.
    pub intervals: u64,
    /// How long they lasted (ns, in sum).
    pub dur: u64,
    /// Runnable without a CPU (ns, in sum).
    pub run_queue: u64,
    /// When the first one began.
    pub since: u64,
    /// The task that was being polled as the last one began; 0 = none.
    pub task_id: u64,
}

/// Entries of [`ThreadState::places`].
pub const PLACES: usize = 8;

/// What the kernel program remembers of one thread of the target. What every context switch touches comes first, so that
/// it takes few cache lines.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ThreadState {
    /// While the thread is off CPU: [`switch_tag`] of the time since which switches count; else 0.
    pub is_off: u32,
    /// 1 where the stack in `off` was walked as the interval began, 0 where it is that of an earlier one.
    pub is_walked: u32,
    /// Since when it has been on a CPU; 0 = not known.
    pub on_since: u64,
    /// How many polls are in progress.
    pub depth: u64,
    /// The epoch of the probes in which they began: those of another epoch are forgotten.
    pub epoch: u64,
    /// Where it left the CPU lately, and how long it stayed off there: a hash of its registers in the upper 24 bits, and
    /// below it how many times in a row it was soon back.
    pub places: [u32; PLACES],
    /// Short intervals that have not been reported yet.
    pub unreported: Unreported,
    /// Where the last walk began, whose stack is in `off`.
    pub leaf: Leaf,
    /// Its frames.
    pub frames: u16,
    /// How it ended: an [`Outcome`](crate::unwind::Outcome).
    pub unwind: u16,
    /// Hash of the registers with which it left the CPU last.
    pub place: u32,
    /// The stack slot in which the current task's header was last found; 0 = not yet.
    pub anchor: u64,
    /// Its name.
    pub comm: [u8; 16],
    /// The off-CPU interval in progress, where `is_off` is set.
    pub off: OffCpuEvent,
    /// Polls in progress, outermost first.
    pub polls: [PollFrame; MAX_POLLS],
}

/// The overhead budget of one CPU: what the programs that run at context switches may still spend there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct SwitchBudget {
    /// Nanoseconds that may still be spent; negative where too much was.
    pub tokens: i64,
    /// When tokens were last added.
    pub refilled: u64,
    /// Off-CPU intervals shorter than this may go unreported one by one (ns).
    pub limit: u64,
    /// When that limit was last changed.
    pub limit_set: u64,
    /// How often a thread of the target has left this CPU, as far as switches counted.
    pub switches: u64,
    /// What was spent so far on walks and searches at switches (ns).
    pub spent: u64,
    /// And on samples (ns).
    pub sampled: u64,
}

/// What [`ThreadState::is_off`] is while switches count since `since` (CLOCK_MONOTONIC): what a thread was at before they last
/// stopped counting is then known to be over.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "of a time, which bits does not matter")]
pub const fn switch_tag(since: u64) -> u32 {
    (since >> 16) as u32 | 1
}

/// What user space tells the kernel program before it is loaded: constants to the verifier.
///
/// Offsets come from the kernel's BTF (`task_*`), from the tracepoints' format (`tp_*`) or from tokio's and the
/// target's own layout (the others). An offset of [`Config::NONE`] switches off what needs it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Config {
    /// The target's thread group (in the initial pid namespace).
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
    /// 1 where polls are to be sent. Without, poll probes only serve to find the thread-local.
    pub polls: u32,
    /// 1 where the word before the id tells whether there is one (an `Option<u64>`: tokio before 1.40, where the id
    /// outlives the task that it names).
    pub tls_tagged: u32,
    /// Offset of tokio's thread-local `CONTEXT` from the thread's `fsbase`; where its symbol is gone, that of all that the
    /// executable keeps there.
    pub tls_context: i64,
    /// Words of it; 0 = it cannot be read. Which one holds the current task's id is in [`Calibration::found`].
    pub tls_words: u64,
    /// First address at which a task vtable may lie in the target.
    pub vtables_start: u64,
    /// First address past them.
    pub vtables_end: u64,
    /// 1 where stacks are walked by unwind tables, 0 = by frame pointers.
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
    /// `task_struct::__state`, where `sched_switch` does not pass it (Linux before 5.18); else [`Config::NONE`].
    pub task_state: u32,
    /// What the programs at context switches may spend on stacks, of the CPU time that the target uses: a share, in 65536ths.
    pub switch_share: u32,
    /// And at least this much of each CPU's time, likewise: a target that does nearly nothing is still looked at.
    pub switch_floor: u32,
    /// Padding, zero.
    pub reserved: u32,
}

impl Config {
    /// An offset that is not known.
    pub const NONE: u32 = u32::MAX;
}

/// Words that are looked at, at a time: tokio's thread-local `CONTEXT` is 88 bytes in 1.54, and all thread-locals of a
/// program of moderate size are 300.
pub const CONTEXT_WORDS: usize = 64;

/// Where in `CONTEXT` the current task's id lies. Debug information tells; where there is none: while polls are probed the
/// id is known, and so is, after a few switches inside polls, the word that always holds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Calibration {
    /// Looks inside a poll.
    pub looks: u64,
    /// The first of the words that are looked at, as user space has it.
    pub first: u64,
    /// How often each of them held the id.
    pub hits: [u64; CONTEXT_WORDS],
    /// 1 + the word, once user space has made up its mind; [`Calibration::GAVE_UP`] where it could not.
    pub found: u64,
    /// Where the worker is found whose loop a thread runs; all zero where that is not known.
    pub worker: WorkerPlace,
}

/// The way from `CONTEXT` to the worker whose core a thread has: `scheduler` points to the context of a scheduler, which has
/// a pointer to the worker, which has one to its runtime's handle, and its own index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct WorkerPlace {
    /// 1 + the word of `CONTEXT` that points to the scheduler's context; 0 = not known.
    pub scheduler: u64,
    /// Offset of the worker's address in the context.
    pub worker: u64,
    /// Offset of the handle's address from there.
    pub handle: u64,
    /// Offset of the index.
    pub index: u64,
}

impl Calibration {
    /// No word is sure, and the search is over: without polls there is then no current task.
    pub const GAVE_UP: u64 = u64::MAX;

    /// The word that holds the id, once that is sure: seen often enough, in a good part of the looks, and no other word comes
    /// close. `words` is how many there are in all.
    ///
    /// Not in each look: the id is not yet set at a poll's first instructions, and no more at its last (with polls of 7 µs,
    /// 91 % of 126 looks were right); and a task that was found on a thread's stack may be one that another thread polls.
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
    /// A poll, whichever form it was sent in.
    Poll(PollEvent),
    /// A stretch off CPU and its stack, leaf first.
    OffCpu(&'a OffCpuHead, &'a [u64]),
    /// A CPU sample and its stack, leaf first.
    Sample(&'a SampleHead, &'a [u64]),
    /// A task's type.
    Task(&'a TaskEvent),
    /// A thread's life.
    Thread(&'a ThreadEvent),
    /// A task woken, and the task that the waking thread was polling (0 = none).
    Wake(&'a WakeEvent, u64),
    /// A task spawned.
    Spawn(&'a SpawnEvent),
    /// A task ended.
    End(&'a EndEvent),
}

impl<'a> Event<'a> {
    /// Reads a record of the ring buffer. `None` where it is none of ours (too short, unknown kind, misaligned).
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
    fn a_cut_or_foreign_record_is_none() {
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
    fn a_poll_is_read_as_it_was_whichever_form_it_was_sent_in() {
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
    fn a_wake_without_a_waking_task_is_shorter() {
        let wake = WakeEvent { kind: EventKind::Wake as u32, tid: 7, ts: 1, task_id: 2 };
        let whole = TaskWakeEvent { wake, waker_task_id: 9 };
        let bytes = bytemuck::bytes_of(&whole);
        let head = size_of::<WakeEvent>();
        assert!(matches!(Event::decode(bytes), Some(Event::Wake(WakeEvent { task_id: 2, .. }, 9))));
        assert!(matches!(Event::decode(&bytes[..head]), Some(Event::Wake(WakeEvent { task_id: 2, .. }, 0))));
        assert!(Event::decode(&bytes[..head - 1]).is_none());
    }

    #[test]
    fn a_verdict_needs_evidence() {
        let mut seen = Calibration::zeroed();
        assert_eq!(seen.verdict(64), None);
        (seen.looks, seen.hits[6]) = (20, 19);
        assert_eq!(seen.verdict(64), Some(6));
        // Another word held the same as often: which one is it?
        seen.hits[3] = 19;
        assert_eq!(seen.verdict(64), None);
        // Some of the looks may be at tasks of other threads.
        (seen.hits[3], seen.looks) = (4, 57);
        assert_eq!(seen.verdict(64), Some(6));
        (seen.hits[3], seen.looks) = (4, 58);
        assert_eq!(seen.verdict(64), None);
        (seen.looks, seen.hits[6]) = (20, 10);
        assert_eq!(seen.verdict(64), None);
        // What is beyond the last word does not count.
        (seen.looks, seen.hits[6]) = (20, 19);
        assert_eq!(seen.verdict(6), None);
    }

    #[test]
    fn a_stack_longer_than_the_record_is_refused() {
        let head = SampleHead { kind: EventKind::Sample as u32, frames: u16::MAX, ..Zeroable::zeroed() };
        assert!(Event::decode(bytemuck::bytes_of(&head)).is_none());
    }
}
