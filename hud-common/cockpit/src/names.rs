//! Names: the rows that ids refer to.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet, hash_map::Entry};

use super::{
    FrameId, Name, StackId, TaskId, Tid, TypeId,
    code::{Code, PlaceNo},
    entities::{Frame, Role, SpawnedBy, TaskKind, TaskType, Thread},
};

/// Maximum size of all names; beyond it, new ones are omitted.
const MOST_BYTES: usize = 256 << 20;

/// The names of a window's ids. Missing ones are shown as unknown.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `task_types`.
    pub types: HashMap<TypeId, TaskType>,
    /// The type of a task: the least `type_id` that any row of `tasks`, `spawns` or `polls` has (they all agree, unless
    /// the recorder could not determine it).
    pub type_of: HashMap<TaskId, TypeId>,
    /// A task's row of `spawns`, the least by (ts, tid, parent) if there are several.
    pub spawned: HashMap<TaskId, SpawnedBy>,
    /// `threads`, one row per thread; see [`Names::add_thread`].
    pub threads: HashMap<Tid, Thread>,
    /// Roles of threads by time, where known.
    roles: BTreeMap<(Tid, i64), Role>,
    stacks: HashMap<StackId, Vec<FrameId>>,
    frames: HashMap<FrameId, Frame>,
    modules: HashMap<i64, Name>,
    texts: HashSet<Name>,
    bytes: usize,
    pub(super) code: Code,
}

impl Names {
    /// The shared copy of a text; `None` if there is no room for more.
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

    /// The place to which a stack is attributed, for a task of this type.
    pub(super) fn attribute(&mut self, stack: Option<StackId>, type_id: Option<TypeId>) -> PlaceNo {
        let task_type = type_id.and_then(|id| Some((id, self.types.get(&id)?)));
        self.code.attribute(stack, task_type)
    }

    /// Adds a row of `stacks`.
    pub fn add_stack(&mut self, id: StackId, frames: Vec<FrameId>) {
        self.stacks.insert(id, frames);
        self.code.forget(id);
    }

    /// Adds a row of `frames`.
    pub fn add_frame(&mut self, id: FrameId, frame: Frame) {
        self.frames.insert(id, frame);
    }

    /// Adds a row of `modules`; if an id has several, the least path counts.
    pub fn add_module(&mut self, id: i64, path: &str) {
        let file = path.rsplit('/').next().unwrap_or(path);
        if let Some(file) = self.text(file) {
            let known = self.modules.entry(id).or_insert_with(|| file.clone());
            if file < *known {
                *known = file;
            }
        }
    }

    /// Adds a row of `threads`. Of a thread's rows, those with a role other than `other` take precedence, then the
    /// newest, then the greatest by role, worker, runtime and name.
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

    /// Discards roles before this time, except the last of each thread.
    pub(super) fn forget_roles(&mut self, before: i64) {
        let mut newest = HashMap::new();
        for (tid, ts) in self.roles.keys() {
            newest.insert(*tid, *ts);
        }
        self.roles.retain(|(tid, ts), _| *ts >= before || newest.get(tid) == Some(ts));
    }

    /// Number of known changes of roles.
    pub(super) fn roles(&self) -> usize {
        self.roles.len()
    }

    /// Whether a thread is or was a worker.
    pub(super) fn was_worker(&self, tid: Tid) -> bool {
        self.roles.range((tid, i64::MIN)..=(tid, i64::MAX)).any(|(_, role)| *role == Role::Worker)
    }

    /// Whether a worker's thread was not a worker at this instant: `block_in_place` had passed its core to another thread.
    pub(super) fn is_handed(&self, tid: Tid, at: i64) -> bool {
        let last = self.roles.range((tid, i64::MIN)..=(tid, at)).next_back();
        last.is_some_and(|(_, role)| *role == Role::Blocking) && self.was_worker(tid)
    }

    /// Adds a task's type, from a row of `tasks`, `spawns` or `polls`.
    pub fn add_type_of(&mut self, task: TaskId, type_id: TypeId) {
        let known = self.type_of.entry(task).or_insert(type_id);
        *known = type_id.min(*known);
    }

    /// Adds a row of `spawns`.
    pub fn add_spawn(&mut self, task: TaskId, by: SpawnedBy) {
        let known = self.spawned.entry(task).or_insert(by);
        *known = by.min(*known);
    }

    /// Adds the tasks of others.
    pub fn add_tasks(&mut self, others: &Names) {
        others.type_of.iter().for_each(|(task, type_id)| self.add_type_of(*task, *type_id));
        others.spawned.iter().for_each(|(task, by)| self.add_spawn(*task, *by));
    }

    /// The kind of a task; an unknown one is a task.
    pub fn kind(&self, task: TaskId) -> TaskKind {
        self.type_of.get(&task).map_or(TaskKind::Task, |id| self.kind_of_type(Some(*id)))
    }

    /// The kind of a type.
    pub fn kind_of_type(&self, id: Option<TypeId>) -> TaskKind {
        id.and_then(|id| self.types.get(&id)).map_or(TaskKind::Task, |t| t.kind)
    }

    /// Number of known stacks and frames.
    pub fn len(&self) -> usize {
        self.stacks.len() + self.frames.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves these stacks. A stack is resolved once, unless some of its frames are missing.
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
