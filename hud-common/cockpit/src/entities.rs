//! Tasks, types of tasks, frames, places in code and threads, as the session's tables of names describe them.

use serde::{Deserialize, Serialize};

use super::{Name, RuntimeId, TaskId, Tid, TypeId};

/// The spawn of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpawnedBy {
    /// Time (ns since the epoch).
    pub ts: i64,
    /// Spawning thread.
    pub tid: Tid,
    /// Spawning task; `None` outside a task.
    pub parent: Option<TaskId>,
}

/// A type of task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskType {
    /// Name as written in source code: `app::handler`.
    pub name: Name,
    /// Source file of the future.
    pub file: Option<Name>,
    /// Its line.
    pub line: Option<i32>,
    /// Task, loop of a worker, or work of the blocking pool.
    pub kind: TaskKind,
}

/// The kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskKind {
    /// A spawned future, or unknown.
    Task,
    /// Work of the blocking pool.
    Blocking,
    /// The loop of a runtime's worker, which is not shown as a task.
    Worker,
}

impl TaskKind {
    /// From `task_types.kind`.
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
    /// Its function; `None` if it has no name.
    pub function: Option<Name>,
    /// Its mapped file; shown if the function has no name.
    pub module: Option<i64>,
    /// Source file.
    pub file: Option<Name>,
    /// Line in it.
    pub line: Option<i32>,
    /// Its origin.
    pub origin: Origin,
}

/// Origin of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// The program.
    Own,
    /// A crate that it depends on.
    Dependency,
    /// Tokio.
    Tokio,
    /// Rust's standard library.
    Std,
    /// The C library, the kernel, and the like.
    System,
    /// Unknown.
    Unknown,
}

impl Origin {
    /// From `frames.origin`; empty if it is null.
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
    /// Time of the row (ns since the epoch).
    pub ts: i64,
    /// Its name.
    pub name: Name,
    /// Its role.
    pub role: Role,
    /// Number of the worker in its runtime.
    pub worker: Option<i32>,
    /// Its runtime.
    pub runtime: Option<RuntimeId>,
    /// Whether the thread exited (`event` is `gone`).
    pub is_gone: bool,
}

/// Role of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Polls tasks of a runtime.
    Worker,
    /// One of tokio's blocking pool.
    Blocking,
    /// Any other, or unknown.
    Other,
}

impl Role {
    /// From `threads.role`.
    pub fn of(text: &str) -> Self {
        match text {
            "worker" => Role::Worker,
            "blocking" => Role::Blocking,
            _ => Role::Other,
        }
    }
}

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The function; `<unknown>` without any name.
    pub function: Name,
    /// Source file.
    pub file: Option<Name>,
    /// Line in it.
    pub line: Option<i32>,
    /// Its origin.
    pub origin: Origin,
}

/// A type of task, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TypeRef {
    /// Its id.
    pub id: TypeId,
    /// Its name.
    pub name: Name,
}

/// A task, by id and type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// Its id.
    pub id: TaskId,
    /// Its type; `None` if unknown.
    pub task_type: Option<TypeRef>,
}

/// What a flame tree is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlameKind {
    /// CPU time, from samples.
    #[default]
    Cpu,
    /// Time asleep inside tasks, from context switches; without the blocking pool, whose purpose it is.
    OffCpu,
}
