//! Where tasks wait: the part of a snapshot that rests on the states of all tasks.

use serde::{Deserialize, Serialize};

use super::{Name, Place, TaskRef, TaskState, Tid, TypeRef};

/// The states of all tasks, and where those wait that are suspended, by the last snapshot of all tasks up to the instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// When that was taken; `None` if none is known.
    pub ts: Option<i64>,
    /// What it could not read, or, without one, why it was not taken.
    pub gaps: Option<Name>,
    /// Tasks by state, before the filter.
    pub counts: StateCounts,
    /// Number of places.
    pub place_count: i64,
    /// Places and resources, with the tasks that wait there: deadlocks first, then by number of tasks, the longest wait, place,
    /// resource and type.
    /// A task that waits for several futures counts at each of them.
    pub places: Vec<WaitingPlace>,
    /// Number of suspended tasks that pass the filter.
    pub count: i64,
    /// Suspended tasks, the longest first.
    pub tasks: Vec<WaitingTask>,
    /// Rows of tasks for which there was no room.
    pub left_out: i64,
}

/// Number of tasks in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the states of `TaskState`")]
pub struct StateCounts {
    pub running: i64,
    pub scheduled: i64,
    pub suspended: i64,
    pub never_polled: i64,
    pub finished: i64,
    pub cancelled: i64,
}

/// A task, or a future that a thread runs by `block_on`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiter {
    /// The task.
    Task(TaskRef),
    /// The thread.
    Thread(Tid),
}

/// Tasks of one type that wait at one place for one kind of resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPlace {
    /// Their number.
    pub tasks: i64,
    /// Time for which the first of them has been found there, at least (ns).
    pub longest: i64,
    /// The same for the last of them (ns).
    pub shortest: i64,
    /// Where they await: the innermost own frame of the await stack, else that of a dependency, else the outermost.
    pub place: Place,
    /// The kind of resource, as in the table `task_states`.
    pub resource: Option<Name>,
    /// The resource in words, if it is the same for all.
    pub detail: Option<Name>,
    /// Number of different resources; 0 for timers, and if unknown.
    pub resources: i64,
    /// Who holds it, if it is the same for all.
    pub holder: Option<AwaitedBy>,
    /// Type of the tasks.
    pub task_type: Option<TypeRef>,
    /// How many of them wait for each other in a cycle.
    pub deadlocked: i64,
    /// The one that has waited longest.
    pub first: Waiter,
    /// Its await stack, from the future that waits; at most 32 frames.
    pub stack: Vec<Place>,
}

/// A suspended task, and one future that it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingTask {
    /// The task.
    pub who: Waiter,
    /// The first snapshot that found it there.
    pub since: i64,
    /// Where it awaits.
    pub place: Place,
    /// The kind of resource, as in the table `task_states`.
    pub resource: Option<Name>,
    /// The resource in words.
    pub detail: Option<Name>,
    /// End of the timer (ns since the epoch).
    pub deadline: Option<i64>,
    /// Who holds it, receives from it, or whose end is awaited.
    pub holder: Option<AwaitedBy>,
    /// Number of futures for which it waits; 0 if none is known.
    pub branches: i32,
    /// Number of the deadlock that it is in.
    pub cycle: Option<i64>,
    /// The await stack, from the future that waits; at most 32 frames.
    pub stack: Vec<Place>,
}

/// Who is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedBy {
    /// The task or thread.
    pub who: Waiter,
    /// Its own state; `None` if it was not found.
    pub state: Option<TaskState>,
    /// Where it awaits, if it is suspended.
    pub place: Option<Place>,
}

/// The state of a task by a snapshot of all tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateNow {
    /// When it was taken.
    pub ts: i64,
    /// The first snapshot that found it in this state.
    pub since: i64,
    /// The state.
    pub state: TaskState,
    /// The futures for which it waits.
    pub waits: Vec<WaitingTask>,
}
