//! The state of a task, and what it waits for, as the table `task_states` describes them.

use serde::{Deserialize, Serialize};

use super::{Name, StackId, TaskId, Tid};

/// A task, or a future that a thread runs by `block_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Who {
    /// A task.
    Task(TaskId),
    /// The thread that runs the future.
    Thread(Tid),
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskState {
    /// Being polled, or it changed while it was read.
    Running,
    /// Woken, and in a queue.
    Scheduled,
    /// Waiting.
    Suspended,
    /// Spawned, and not polled yet.
    NeverPolled,
    /// It has ended, and its handle still exists.
    Finished,
    /// Cancelled, and not dropped yet.
    Cancelled,
    /// No longer found.
    Gone,
}

impl TaskState {
    /// From `task_states.state`; `None` if a later version has added it.
    pub fn of(text: &str) -> Option<Self> {
        Some(match text {
            "running" => TaskState::Running,
            "scheduled" => TaskState::Scheduled,
            "suspended" => TaskState::Suspended,
            "never_polled" => TaskState::NeverPolled,
            "finished" => TaskState::Finished,
            "cancelled" => TaskState::Cancelled,
            "gone" => TaskState::Gone,
            _ => return None,
        })
    }
}

/// A future that a task waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// The await stack.
    pub stack: Option<StackId>,
    /// The kind of resource, as in the table.
    pub resource: Option<Name>,
    /// Its address.
    pub address: Option<i64>,
    /// End of a timer (ns since the epoch).
    pub deadline: Option<i64>,
    /// The resource in words.
    pub detail: Option<Name>,
    /// Who holds it, receives from it, or whose end is awaited.
    pub holder: Option<Who>,
}
