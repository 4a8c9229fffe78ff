//! Rows that a bucket keeps one by one, each in its order.

use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{StackId, TaskId, Tid, TypeId};

/// Maximum number of rows of tasks in deadlocks that a bucket keeps.
pub const DEADLOCKED_PER_BUCKET: usize = 1_024;
/// Maximum number of rows of `process` that a bucket keeps: there is one a second.
pub const USAGES_PER_BUCKET: usize = 8;

/// A sleep inside a task. Order: the longest first, then by start, thread and the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// When the thread fell asleep.
    pub ts: i64,
    /// `ready - ts`.
    pub dur: i64,
    /// The row's `dur`: to the return to a CPU.
    pub away: i64,
    /// The thread.
    pub tid: Tid,
    /// The task.
    pub task: TaskId,
    /// The stack at which it fell asleep.
    pub stack: Option<StackId>,
    /// The thread that woke it.
    pub waker: Option<Tid>,
}

/// A poll of [`INTERVAL_MIN`] or more. Order: the longest first, then by start, thread and the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPoll {
    /// Its start.
    pub ts: i64,
    /// Its duration.
    pub dur: i64,
    /// `dur - run_queue`, not less than 0: the time for which it held its worker, asleep or on a CPU.
    pub held: i64,
    /// `dur - blocked - run_queue`, not less than 0.
    pub busy: i64,
    /// The thread.
    pub tid: Tid,
    /// The task.
    pub task: TaskId,
    /// Its type, from the row.
    pub type_id: Option<TypeId>,
}

/// A sample inside a task. Order: by time, then thread and the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Its time.
    pub ts: i64,
    /// The thread.
    pub tid: Tid,
    /// The task.
    pub task: TaskId,
    /// The stack.
    pub stack: Option<StackId>,
    /// The CPU time that it represents.
    pub weight: i64,
}

/// A row of `in_progress`. Order: by thread, then time and the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InProgress {
    /// The thread.
    pub tid: Tid,
    /// Time of the observation.
    pub ts: i64,
    /// Whether it had ended by then.
    pub has_ended: bool,
    /// The task.
    pub task: TaskId,
    /// Time for which it had lasted at least.
    pub lasted: i64,
    /// When it had begun by; `None` if that was before the attach.
    pub since: Option<i64>,
    /// Its type, from the row.
    pub type_id: Option<TypeId>,
    /// What the thread did.
    pub state: PollState,
    /// The thread's stack.
    pub stack: Option<StackId>,
    /// Whether there may have been several polls.
    pub is_estimated: bool,
}

/// The state of a thread in a poll in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum PollState {
    /// Asleep.
    Blocked,
    /// Waiting for a CPU.
    Runnable,
    /// On a CPU.
    Running,
}

/// What keeps a task from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// The deadlock of this number.
    Cycle(i64),
    /// It waits for further permits of the semaphore at this address, while it holds some.
    OwnPermits(i64),
}

/// A row of `task_states` of a task in a deadlock, or of one that holds permits of a semaphore and waits for more. Order: by
/// obstacle, then snapshot, task and the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadlocked {
    /// What keeps it from going on.
    pub by: Obstacle,
    /// Time of the snapshot.
    pub ts: i64,
    /// The task; `None` for a future that a thread runs by `block_on`.
    pub task: Option<TaskId>,
    /// That thread.
    pub tid: Option<Tid>,
    /// The first snapshot that found it there.
    pub since: i64,
    /// Its type, from the row.
    pub type_id: Option<TypeId>,
    /// Its await stack.
    pub stack: Option<StackId>,
}

/// A row of `process`: resources in use at an instant. Order: by time, then the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usage {
    /// Its time.
    pub ts: i64,
    /// Resident memory in bytes.
    pub rss: i64,
    /// Threads.
    pub threads: i32,
    /// Open file descriptors.
    pub fds: Option<i32>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub ts: i64,
    /// How.
    pub outcome: TaskOutcome,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// It returned.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// It panicked.
    Panicked,
}

/// A poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PollSpan {
    /// When it began.
    pub ts: i64,
    /// How long it took (ns).
    pub dur: i64,
    /// On which thread.
    pub tid: Tid,
    /// Asleep inside it (ns).
    pub blocked: i64,
    /// Runnable without a CPU inside it (ns).
    pub run_queue: i64,
    /// Wake-to-poll latency (ns); `None` if the wake is unknown.
    pub wake_delay: Option<i64>,
}

/// A poll. Order: the last to end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest(pub PollSpan);

impl Ord for Newest {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |p: &PollSpan| (p.ts.saturating_add(p.dur), *p);
        key(&other.0).cmp(&key(&self.0))
    }
}

impl PartialOrd for Newest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

macro_rules! longest_first {
    ($($name:ident by |$x:ident| $key:expr;)+) => { $(
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let key = |$x: &Self| $key;
                other.dur.cmp(&self.dur).then_with(|| key(self).cmp(&key(other)))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    )+ };
}
longest_first! {
    Sleep by |s| (s.ts, s.tid, s.task, s.away, s.stack, s.waker);
    LongPoll by |p| (p.ts, p.tid, p.task, p.held, p.busy, p.type_id);
}
