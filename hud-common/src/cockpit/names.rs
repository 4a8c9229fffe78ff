//! What ids stand for: the part of a session that is no event.

use std::vec::Vec;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{FrameId, Name, RuntimeId, StackId, TaskId, Tid, TypeId};

/// The names that a window's ids stand for. What is missing is shown as unknown, never guessed.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `task_types`.
    pub types: HashMap<TypeId, TaskType>,
    /// The type of a task: the least `type_id` that any row of `tasks`, `spawns` or `polls` gives it (they all agree, unless
    /// the recorder could not tell).
    pub type_of: HashMap<TaskId, TypeId>,
    /// Where a task came from: its row of `spawns`, the least by (ts, tid) where there is more than one.
    pub spawned: HashMap<TaskId, SpawnedBy>,
    /// `stacks`: frames from the leaf.
    pub stacks: HashMap<StackId, Vec<FrameId>>,
    /// `frames`.
    pub frames: HashMap<FrameId, Frame>,
    /// `threads`, one row a thread: of those with a role other than `other` if there is one, the newest; then by role and
    /// name, as the view `workers` has it.
    pub threads: HashMap<Tid, Thread>,
}

/// A task's first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpawnedBy {
    /// When (ns since the epoch).
    pub ts: i64,
    /// On which thread.
    pub tid: Tid,
    /// By which task; `None` outside a task.
    pub parent: Option<TaskId>,
}

/// A type of task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskType {
    /// As people write it: `app::handler`.
    pub name: Name,
    /// Where the future is written.
    pub file: Option<Name>,
    /// Its line.
    pub line: Option<i32>,
    /// Task, loop of a worker, or work of the blocking pool.
    pub kind: TaskKind,
}

/// What a "task" is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskKind {
    /// A future that was spawned. Also what is not known.
    Task,
    /// Work of the blocking pool.
    Blocking,
    /// The loop of a runtime's worker: for people, no task.
    Worker,
}

impl TaskKind {
    /// As `task_types.kind` has it.
    pub fn of(text: &str) -> Self {
        match text {
            "worker" => TaskKind::Worker,
            "blocking" => TaskKind::Blocking,
            _ => TaskKind::Task,
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its function; where it has no name, that of its module in angle brackets, as `<libc.so.6>`, or `<unknown>`.
    pub function: Name,
    /// Whether that is a function's own name.
    pub is_named: bool,
    /// Source file.
    pub file: Option<Name>,
    /// Line in it.
    pub line: Option<i32>,
    /// Whose code it is.
    pub origin: Origin,
}

/// Whose code a frame is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// The program's own.
    Own,
    /// Of a crate that it depends on.
    Dependency,
    /// Tokio.
    Tokio,
    /// Rust's standard library.
    Std,
    /// The C library, the kernel, and the like.
    System,
    /// Not known.
    Unknown,
}

impl Origin {
    /// As `frames.origin` has it; empty where it is null.
    pub fn of(text: &str) -> Self {
        match text {
            "own" => Origin::Own,
            "dependency" => Origin::Dependency,
            "tokio" => Origin::Tokio,
            "std" => Origin::Std,
            "system" => Origin::System,
            _ => Origin::Unknown,
        }
    }
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// When this was told (ns since the epoch).
    pub ts: i64,
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub role: Role,
    /// Number of the worker in its runtime.
    pub worker: Option<i32>,
    /// Its runtime.
    pub runtime: Option<RuntimeId>,
}

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Polls tasks of a runtime.
    Worker,
    /// One of tokio's blocking pool.
    Blocking,
    /// Anything else, and what is not known.
    Other,
}

impl Role {
    /// As `threads.role` has it.
    pub fn of(text: &str) -> Self {
        match text {
            "worker" => Role::Worker,
            "blocking" => Role::Blocking,
            _ => Role::Other,
        }
    }
}
