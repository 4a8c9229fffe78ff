//! The partial aggregate of one bucket, and how each row counts in it.
//!
//! `bucket(t)` is [`Bucket::of`]: `t / 100000000`. An event belongs to the bucket of its **end**: `bucket(ts + dur)`, or
//! `bucket(ts)` if it has no duration. A **clipped** row counts in every bucket that `[ts, ts + dur)` touches, with the
//! part inside: `least(end, bucket_end) - greatest(ts, bucket_start)`. Negative durations and addends count as 0, because
//! saturating sums would otherwise depend on the order of rows.
//! All sums are saturating integers. A capped list keeps the first entries in a total order, so the result does not
//! depend on the order of rows, and discarded entries are counted.
//!
//! In `off_cpu`, a thread is asleep from `ts` to `ready` and runnable from `ready` to `ts + dur`. `ready` is `ts` in state
//! `R`; else `ts + dur - run_queue`, clamped to `ts` and `ts + dur`; else, if `run_queue` is null, `ts + dur`.

use hud_wire::Stream;

use super::{
    Bucket, Counts, DEADLOCKED_PER_BUCKET, Deadlocked, Ended, Greatest, Histogram, InProgress, Kept, Least, LongPoll,
    Map, Mark, Merge, Name, Newest, Sleep, StackId, TaskId, Tid, TypeId, USAGES_PER_BUCKET, Usage,
};

/// Minimum duration of a poll, a sleep or a computation that is kept individually (ns): a bucket has at most a hundred of them
/// per thread.
pub const INTERVAL_MIN: i64 = 1_000_000;
/// Maximum number of sleeps inside tasks, and of long polls, that a bucket keeps: the longest of each.
pub const INTERVALS_PER_BUCKET: usize = 4_096;
/// Maximum number of samples inside tasks that a bucket keeps individually: the earliest. At 99 Hz those of 400 CPUs.
pub const MARKS_PER_BUCKET: usize = 4_096;
/// Maximum number of polls in progress that a bucket keeps: the first by thread. At one observation a second, those of ten
/// times as many workers.
pub const IN_PROGRESS_PER_BUCKET: usize = 1_024;
/// Maximum number of tasks that a bucket counts individually: those with the smallest ids.
pub const TASKS_PER_BUCKET: usize = 65_536;
/// Maximum number of polls on a task's page: the last to end.
pub const LAST_POLLS: usize = 64;
/// Maximum number of wakers on a task's page: those with the smallest task id (none first), then thread.
pub const WAKERS: usize = 1_024;

/// The aggregates of a bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial {
    /// Sums over any number of buckets.
    pub sums: Sums,
    /// Sleeps inside a task: rows of `off_cpu` with a `task_id`, in state `S` or `D`, with `ready - ts >= INTERVAL_MIN`, by
    /// end; the longest [`INTERVALS_PER_BUCKET`].
    pub sleeps: Kept<Sleep, INTERVALS_PER_BUCKET>,
    /// Polls with `dur >= INTERVAL_MIN`, by end; the longest [`INTERVALS_PER_BUCKET`].
    pub long_polls: Kept<LongPoll, INTERVALS_PER_BUCKET>,
    /// Samples with a `task_id`, by `ts`; the earliest [`MARKS_PER_BUCKET`].
    pub marks: Kept<Mark, MARKS_PER_BUCKET>,
    /// Polls in progress, by `ts`; the first [`IN_PROGRESS_PER_BUCKET`].
    pub in_progress: Kept<InProgress, IN_PROGRESS_PER_BUCKET>,
    /// Tasks in deadlocks, and that wait for permits while they hold some, by `ts`; the first [`DEADLOCKED_PER_BUCKET`].
    pub deadlocked: Kept<Deadlocked, DEADLOCKED_PER_BUCKET>,
    /// Rows of `process`, by `ts`; the first [`USAGES_PER_BUCKET`].
    pub usages: Kept<Usage, USAGES_PER_BUCKET>,
}

/// Sums over any number of buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Polls by end, by `tid` and `type_id`.
    pub polls: Map<(Tid, Option<TypeId>), PollSums>,
    /// Polls by end, by `type_id`: counted by `dur`.
    pub durations: Map<Option<TypeId>, Counts>,
    /// Polls with a `wake_delay`, by end, by `type_id`: counted by that (not less than 0).
    pub delays: Map<Option<TypeId>, Counts>,
    /// By `task_id`, from all tables; those with the smallest ids, at most [`TASKS_PER_BUCKET`] per bucket.
    pub tasks: Map<TaskId, TaskSums>,
    /// Rows of tasks that are not in `tasks`.
    pub tasks_left_out: i64,
    /// `off_cpu`, clipped, by `tid` and `task_id`.
    pub away: Map<(Tid, Option<TaskId>), Away>,
    /// `off_cpu` by end, not clipped, by `tid` and `task_id`; kept for rollups only.
    pub away_by_end: Map<(Tid, Option<TaskId>), Away>,
    /// Observations of threads: `off_cpu` and `polls` clipped, `samples` by `ts`, by `tid`.
    pub seen: Map<Tid, Seen>,
    /// Samples by `ts`, by `tid` and `task_id`.
    pub runs: Map<(Tid, Option<TaskId>), Run>,
    /// Sleeps inside a task that are not kept individually: rows of `off_cpu` with a `task_id`, in state `S` or `D` with
    /// `ready - ts < INTERVAL_MIN`, or in state `+`, by end, by `tid`, `task_id` and `stack_id`.
    pub short: Map<(Tid, TaskId, Option<StackId>), Short>,
    /// Samples by `ts`, by `stack_id` and `task_id`.
    pub stacks: Map<(Option<StackId>, Option<TaskId>), Weight>,
    /// Rows of `polls`, `off_cpu`, `samples`, `wakes`, `spawns` and `ends`, by [`Stream`]; of events with a duration by end.
    pub rows: [i64; Stream::ALL.len()],
    /// `coverage`, clipped, by `stream`.
    pub coverage: Map<Name, On>,
    /// `drops` by end, by `stream` and `stage`: the sum of `lost`.
    pub drops: Map<(Name, Name), i64>,
    /// `overhead` by `ts`.
    pub overhead: OverheadSums,
    /// `process` by `ts`.
    pub process: ProcessSums,
}

/// Polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollSums {
    /// Their number.
    pub count: i64,
    /// The sum of `dur` (not clipped).
    pub dur: i64,
    /// The sum of `dur - blocked - run_queue` of each (not less than 0 each).
    pub busy: i64,
    /// The sum of `blocked` (not less than 0 each).
    pub blocked: i64,
    /// The sum of `run_queue` (not less than 0 each).
    pub run_queue: i64,
    /// The greatest `dur`.
    pub longest: i64,
    /// The sum of `wake_delay` (not less than 0 each), without nulls.
    pub delay: i64,
    /// The greatest of these.
    pub delay_longest: i64,
}

/// The aggregates of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskSums {
    /// Rows of the task, all of those counted below.
    pub signs: i64,
    /// Polls, by end.
    pub polls: i64,
    /// The sum of `dur - blocked - run_queue` of each (not less than 0 each).
    pub busy: i64,
    /// The greatest `dur`; 0 if there is none.
    pub longest_poll: i64,
    /// The sum of `ready - ts` of its rows of `off_cpu`, by end (not clipped).
    pub blocked: i64,
    /// The sum of the `weight` of its samples.
    pub cpu: i64,
    /// Rows of `wakes` with its `task_id`.
    pub wakes: i64,
    /// Those of them whose `waker_task_id` is the same.
    pub self_wakes: i64,
    /// Rows of `wakes` of other tasks with it as their `waker_task_id`.
    pub waking: i64,
    /// Polls with a `wake_delay`.
    pub delays: i64,
    /// The sum of `wake_delay` (not less than 0 each).
    pub delay: i64,
    /// The greatest.
    pub delay_longest: i64,
    /// Rows of `spawns`.
    pub spawned: i64,
    /// Its row of `ends`: the least by (ts, outcome), in the order completed, cancelled, panicked.
    pub ended: Option<Ended>,
    /// The least `ts` of these rows, and of its rows of `tasks`.
    pub first: Least,
    /// The greatest `ts + dur`.
    pub last: Greatest,
}

/// Time off-CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away {
    /// The clipped part of `[ts, ready)`.
    pub asleep: i64,
    /// The clipped part of `[ready, ts + dur)`.
    pub waiting: i64,
}

/// The time range in which a thread was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The least clipped start.
    pub first: Least,
    /// The greatest clipped end.
    pub last: Greatest,
    /// The greatest end of a poll, by end.
    pub poll_end: Greatest,
    /// The greatest end of an off-CPU interval, by end.
    pub returned: Greatest,
    /// Times at which it fell asleep (states S and D), by `ts`.
    pub slept: Moments,
}

/// Milliseconds of a bucket that had an event, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments(u128);

impl Moments {
    fn milli(bucket: Bucket, ts: i64) -> u32 {
        let within = ts.saturating_sub(bucket.start()).clamp(0, 99_999_999);
        u32::try_from(within / 1_000_000).unwrap_or(0)
    }

    /// Adds one.
    pub fn add(&mut self, bucket: Bucket, ts: i64) {
        self.0 |= 1 << Self::milli(bucket, ts);
    }

    /// Whether a millisecond after that of `first` and before that of `last` is set.
    pub fn has_between(self, bucket: Bucket, first: i64, last: i64) -> bool {
        let (from, to) = (Self::milli(bucket, first) + 1, Self::milli(bucket, last));
        (from..to).any(|milli| self.0 & (1 << milli) != 0)
    }
}

impl Merge for Moments {
    fn merge(&mut self, other: &Self) {
        self.0 |= other.0;
    }
}

/// Samples of a task on a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Their number.
    pub samples: i64,
    /// The sum of `weight`.
    pub weight: i64,
    /// The least `ts`.
    pub first: Least,
    /// The greatest.
    pub last: Greatest,
}

/// Short sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// Their number: the sum of `intervals`, which counts as 1 if it is null or less.
    pub sleeps: i64,
    /// The sum of `ready - ts`.
    pub asleep: i64,
    /// The greatest `(ready - ts) / intervals`, rounded down.
    pub longest: i64,
    /// Rows in state `+`, which are sums.
    pub summed: i64,
    /// The greatest `ts + dur`.
    pub last: Greatest,
}

impl Short {
    /// Adds a row.
    pub(super) fn add(&mut self, intervals: i64, asleep: i64, is_sum: bool, end: i64) {
        let intervals = intervals.max(1);
        self.merge(&Short {
            sleeps: intervals,
            asleep,
            longest: asleep / intervals,
            summed: is_sum.into(),
            last: Greatest(Some(end)),
        });
    }
}

/// Samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Their number.
    pub samples: i64,
    /// The sum of `weight`.
    pub weight: i64,
}

/// Time in which a stream was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct On {
    /// The clipped sum.
    pub on: i64,
    /// The `reason` of the row with the greatest (`ts`, `reason`).
    pub reason: Option<(i64, Name)>,
}

/// `overhead`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverheadSums {
    /// Rows.
    pub rows: i64,
    /// The sum of `probe_ns` without nulls.
    pub probes: i64,
    /// Rows in which it is null.
    pub without_probes: i64,
    /// The sum of `recorder_cpu`.
    pub cpu: i64,
    /// The sum of `ring_bytes`.
    pub bytes: i64,
    /// The sum of `events`.
    pub events: i64,
    /// The greatest (`ts`, `recorder_rss`).
    pub rss: Option<(i64, i64)>,
}

/// `process`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessSums {
    /// Rows.
    pub rows: i64,
    /// The sum of `cpu_user`.
    pub user: i64,
    /// The sum of `cpu_sys`.
    pub sys: i64,
    /// Rows with `cpu_others`.
    pub others_rows: i64,
    /// The sum of `cpu_others`.
    pub others: i64,
    /// The sum of `throttled`.
    pub throttled: i64,
    /// The greatest (`ts`, `rss`, `threads`, `fds`), null fds first.
    pub last: Option<(i64, i64, i32, Option<i32>)>,
}

/// The aggregates of the task whose page is open, over the rows whose bucket is in the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskDetail {
    /// Its polls, by slot of `dur`.
    pub durations: Histogram,
    /// The sum of `dur`.
    pub sum: i64,
    /// The greatest `dur`.
    pub longest: i64,
    /// Its polls with a `wake_delay`, by its slot (not less than 0).
    pub delays: Histogram,
    /// The sum of these.
    pub delay_sum: i64,
    /// The greatest of these.
    pub delay_longest: i64,
    /// Its last polls.
    pub last: Kept<Newest, LAST_POLLS>,
    /// Its wakes, by `waker_task_id` and `waker_tid`.
    pub wakers: Map<(Option<TaskId>, Tid), i64>,
}

/// Sums some fields, takes the maximum of others, and merges the rest.
macro_rules! merge {
    ($($name:ident { sum: [$($sum:ident),*], max: [$($max:ident),*], each: [$($each:ident),*] })+) => { $(
        impl Merge for $name {
            fn merge(&mut self, other: &Self) {
                $( self.$sum = self.$sum.saturating_add(other.$sum); )*
                $( if other.$max > self.$max { self.$max = other.$max.clone(); } )*
                $( self.$each.merge(&other.$each); )*
            }
        }
    )+ };
}
merge! {
    PollSums { sum: [count, dur, busy, blocked, run_queue, delay], max: [longest, delay_longest], each: [] }
    Away { sum: [asleep, waiting], max: [], each: [] }
    Seen { sum: [], max: [], each: [first, last, poll_end, returned, slept] }
    Run { sum: [samples, weight], max: [], each: [first, last] }
    Short { sum: [sleeps, asleep, summed], max: [longest], each: [last] }
    Weight { sum: [samples, weight], max: [], each: [] }
    On { sum: [on], max: [reason], each: [] }
    OverheadSums { sum: [rows, probes, without_probes, cpu, bytes, events], max: [rss], each: [] }
    ProcessSums { sum: [rows, user, sys, others_rows, others, throttled], max: [last], each: [] }
    Partial { sum: [], max: [], each: [sums, sleeps, long_polls, marks, in_progress, deadlocked, usages] }
}

impl Merge for TaskSums {
    fn merge(&mut self, other: &Self) {
        let add = |a: &mut i64, b: i64| *a = a.saturating_add(b);
        add(&mut self.signs, other.signs);
        add(&mut self.polls, other.polls);
        add(&mut self.busy, other.busy);
        add(&mut self.blocked, other.blocked);
        add(&mut self.cpu, other.cpu);
        add(&mut self.wakes, other.wakes);
        add(&mut self.self_wakes, other.self_wakes);
        add(&mut self.waking, other.waking);
        add(&mut self.delays, other.delays);
        add(&mut self.delay, other.delay);
        add(&mut self.spawned, other.spawned);
        self.longest_poll = self.longest_poll.max(other.longest_poll);
        self.delay_longest = self.delay_longest.max(other.delay_longest);
        // `None` comes before any.
        self.ended = match (self.ended, other.ended) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.first.merge(&other.first);
        self.last.merge(&other.last);
    }
}

impl Merge for TaskDetail {
    fn merge(&mut self, other: &Self) {
        self.durations.merge(&other.durations);
        self.sum = self.sum.saturating_add(other.sum);
        self.longest = self.longest.max(other.longest);
        self.delays.merge(&other.delays);
        self.delay_sum = self.delay_sum.saturating_add(other.delay_sum);
        self.delay_longest = self.delay_longest.max(other.delay_longest);
        self.last.merge(&other.last);
        self.wakers.merge(&other.wakers);
        self.settle();
    }
}

impl Merge for Sums {
    fn merge(&mut self, other: &Self) {
        self.merge_ended(other);
        self.merge_clipped(other);
    }
}

impl Sums {
    /// Merges the aggregates by end: after the bucket's end only late rows change them.
    pub(super) fn merge_ended(&mut self, other: &Self) {
        self.polls.merge(&other.polls);
        self.durations.merge(&other.durations);
        self.delays.merge(&other.delays);
        self.tasks.merge(&other.tasks);
        self.tasks_left_out.merge(&other.tasks_left_out);
        self.runs.merge(&other.runs);
        self.short.merge(&other.short);
        self.away_by_end.merge(&other.away_by_end);
        self.stacks.merge(&other.stacks);
        for (rows, others) in self.rows.iter_mut().zip(&other.rows) {
            rows.merge(others);
        }
        self.drops.merge(&other.drops);
        self.overhead.merge(&other.overhead);
        self.process.merge(&other.process);
    }

    /// Merges the clipped aggregates: an interval that ends now changes all buckets since its start.
    pub(super) fn merge_clipped(&mut self, other: &Self) {
        self.away.merge(&other.away);
        self.seen.merge(&other.seen);
        self.coverage.merge(&other.coverage);
    }
}

impl Sums {
    /// Discards tasks past the first [`TASKS_PER_BUCKET`]. For the sums of one bucket only: those of a window have no bound.
    pub fn cap_tasks(&mut self) {
        if self.tasks.len() <= TASKS_PER_BUCKET {
            return;
        }
        let mut ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        let (_, last, _) = ids.select_nth_unstable(TASKS_PER_BUCKET - 1);
        let last = *last;
        let mut left_out = 0_i64;
        self.tasks.retain(|id, sums| {
            let stays = *id <= last;
            left_out = left_out.saturating_add(if stays { 0 } else { sums.signs });
            stays
        });
        self.tasks_left_out = self.tasks_left_out.saturating_add(left_out);
    }

    /// Number of entries, as a measure of memory.
    pub fn len(&self) -> usize {
        let counts = |of: &Map<Option<TypeId>, Counts>| of.values().map(Counts::len).sum::<usize>();
        self.polls.len()
            + counts(&self.durations)
            + counts(&self.delays)
            + self.tasks.len()
            + self.away.len()
            + self.away_by_end.len()
            + self.seen.len()
            + self.runs.len()
            + self.short.len()
            + self.stacks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Partial {
    /// Sorts lists and discards excess entries. Required before they are read.
    pub fn settle(&mut self) {
        self.sums.cap_tasks();
        self.sleeps.settle();
        self.long_polls.settle();
        self.marks.settle();
        self.in_progress.settle();
        self.deadlocked.settle();
        self.usages.settle();
    }

    /// Number of entries, as a measure of memory.
    pub fn len(&self) -> usize {
        let lists = [self.sleeps.len(), self.long_polls.len(), self.marks.len()];
        let few = [self.in_progress.len(), self.deadlocked.len(), self.usages.len()];
        self.sums.len() + lists.iter().chain(&few).sum::<usize>()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The part of `[from, to)` that lies in a bucket.
pub(super) fn clipped(bucket: Bucket, from: i64, to: i64) -> i64 {
    to.min(bucket.end()).saturating_sub(from.max(bucket.start())).max(0)
}
