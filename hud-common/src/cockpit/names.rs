//! What ids stand for: the part of a session that is no event.

use std::{collections::BTreeMap, vec::Vec};

use hashbrown::{HashMap, HashSet, hash_map::Entry};
use serde::{Deserialize, Serialize};

use super::{FrameId, Name, RuntimeId, StackId, TaskId, Tid, TypeId, code::Code};

/// Bytes of names that are kept; what is longer in all stays without.
const MOST_BYTES: usize = 256 << 20;

/// The names that a window's ids stand for. What is missing is shown as unknown, never guessed.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `task_types`.
    pub types: HashMap<TypeId, TaskType>,
    /// The type of a task: the least `type_id` that any row of `tasks`, `spawns` or `polls` gives it (they all agree, unless
    /// the recorder could not tell).
    pub type_of: HashMap<TaskId, TypeId>,
    /// Where a task came from: its row of `spawns`, the least by (ts, tid, parent) where there is more than one.
    pub spawned: HashMap<TaskId, SpawnedBy>,
    /// `threads`, one row a thread; see [`Names::add_thread`].
    pub threads: HashMap<Tid, Thread>,
    /// What threads were for, by time, where that is known.
    roles: BTreeMap<(Tid, i64), Role>,
    stacks: HashMap<StackId, Vec<FrameId>>,
    frames: HashMap<FrameId, Frame>,
    modules: HashMap<i64, Name>,
    texts: HashSet<Name>,
    bytes: usize,
    pub(super) code: Code,
}

impl Names {
    /// The one copy of a text that is shared by all who bear it; `None` where there is no room for more.
    pub fn text(&mut self, text: &str) -> Option<Name> {
        if let Some(known) = self.texts.get(text) {
            return Some(known.clone());
        }
        if self.bytes.saturating_add(text.len()) > MOST_BYTES {
            return None;
        }
        self.bytes += text.len();
        let name = Name::from(text);
        self.texts.insert(name.clone());
        Some(name)
    }

    /// Takes in a row of `stacks`.
    pub fn add_stack(&mut self, id: StackId, frames: Vec<FrameId>) {
        self.stacks.insert(id, frames);
        self.code.forget(id);
    }

    /// Takes in a row of `frames`.
    pub fn add_frame(&mut self, id: FrameId, frame: Frame) {
        self.frames.insert(id, frame);
    }

    /// Takes in a row of `modules`; where an id has several, the least path counts.
    pub fn add_module(&mut self, id: i64, path: &str) {
        let file = path.rsplit('/').next().unwrap_or(path);
        if let Some(file) = self.text(file) {
            let known = self.modules.entry(id).or_insert_with(|| file.clone());
            if file < *known {
                *known = file;
            }
        }
    }

    /// Takes in a row of `threads`. Of a thread's rows the one that counts is, of those with a role other than `other` if
    /// there is one, the newest, and then the greatest by role, worker, runtime and name.
    pub fn add_thread(&mut self, tid: Tid, thread: Thread) {
        if thread.role != Role::Other {
            let role = self.roles.entry((tid, thread.ts)).or_insert(thread.role);
            *role = thread.role.max(*role);
        }
        let rank = |t: &Thread| (t.role != Role::Other, t.ts, t.role, t.worker, t.runtime, t.is_gone, t.name.clone());
        match self.threads.entry(tid) {
            Entry::Vacant(free) => drop(free.insert(thread)),
            Entry::Occupied(mut known) if rank(&thread) > rank(known.get()) => drop(known.insert(thread)),
            Entry::Occupied(_) => {}
        }
    }

    /// Lets go of what threads were for before this, but for the newest that is known of each.
    pub(super) fn forget_roles(&mut self, before: i64) {
        let mut newest = HashMap::new();
        for (tid, ts) in self.roles.keys() {
            newest.insert(*tid, *ts);
        }
        self.roles.retain(|(tid, ts), _| *ts >= before || newest.get(tid) == Some(ts));
    }

    /// How many times the role of a thread is known.
    pub(super) fn roles(&self) -> usize {
        self.roles.len()
    }

    /// Whether a thread is or was a worker's.
    pub(super) fn was_worker(&self, tid: Tid) -> bool {
        self.roles.range((tid, i64::MIN)..=(tid, i64::MAX)).any(|(_, role)| *role == Role::Worker)
    }

    /// Whether a worker's thread was no worker at this instant: `block_in_place` had handed its core to another thread.
    pub(super) fn is_handed(&self, tid: Tid, at: i64) -> bool {
        let last = self.roles.range((tid, i64::MIN)..=(tid, at)).next_back();
        last.is_some_and(|(_, role)| *role == Role::Blocking) && self.was_worker(tid)
    }

    /// Takes in what a row of `tasks`, `spawns` or `polls` says of a task's type.
    pub fn add_type_of(&mut self, task: TaskId, type_id: TypeId) {
        let known = self.type_of.entry(task).or_insert(type_id);
        *known = type_id.min(*known);
    }

    /// Takes in a row of `spawns`.
    pub fn add_spawn(&mut self, task: TaskId, by: SpawnedBy) {
        let known = self.spawned.entry(task).or_insert(by);
        *known = by.min(*known);
    }

    /// Takes in what others say of tasks.
    pub fn add_tasks(&mut self, others: &Names) {
        others.type_of.iter().for_each(|(task, type_id)| self.add_type_of(*task, *type_id));
        others.spawned.iter().for_each(|(task, by)| self.add_spawn(*task, *by));
    }

    /// What kind of task it is; a task of which nothing is known is one.
    pub fn kind(&self, task: TaskId) -> TaskKind {
        self.type_of.get(&task).map_or(TaskKind::Task, |id| self.kind_of_type(Some(*id)))
    }

    /// The same, of a type.
    pub fn kind_of_type(&self, id: Option<TypeId>) -> TaskKind {
        id.and_then(|id| self.types.get(&id)).map_or(TaskKind::Task, |t| t.kind)
    }

    /// Stacks and frames that are known.
    pub fn len(&self) -> usize {
        self.stacks.len() + self.frames.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Works out of which code these stacks are. Done once for each stack, but for those whose frames are not all there.
    pub fn prepare(&mut self, stacks: impl Iterator<Item = StackId>) {
        for id in stacks {
            if self.code.is_whole(id) {
                continue;
            }
            let Some(frames) = self.stacks.get(&id) else { continue };
            self.code.add(id, frames, &self.frames, &self.modules);
        }
    }
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
    /// Its function; `None` where it has no name.
    pub function: Option<Name>,
    /// The mapped file that it is in; shown where the function has no name.
    pub module: Option<i64>,
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
    /// Whether this was told as it ended (`event` is `gone`).
    pub is_gone: bool,
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
