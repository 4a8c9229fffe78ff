//! Snapshots of all tasks for a recording: what changed since the one before.
//!
//! They are read as for a dump. Most tasks stay where they are, so a snapshot has the tasks whose state, await stack,
//! resource or holder differs from the last one, and those that are in a deadlock; a full one has all.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hud_common::clean_name;

use super::{
    chain::{Chain, Step, Wait, What},
    dump::{Detail, Dump, Is, Most, Reader, Task},
    frames::frames,
    layout::ResourceKind,
    waits::{Resources, SEMAPHORE},
};
use crate::{
    error::Result,
    inspect::{PollFn, Process, TaskKind},
    symbols::{ModuleKind, Origin, Sources, file_origin},
};

/// Limits of a snapshot. At 300 bytes a task, the recorder holds 30 MB of them for a moment.
const MOST: Most = Most { memory: 64 << 30, tasks: 100_000, time: Duration::from_secs(5) };
/// Futures of one task that get a row each.
const MOST_BRANCHES: usize = 8;

/// A function of an await stack, or the type of the future that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AwaitFrame {
    pub(crate) function: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) origin: Option<&'static str>,
}

/// From the future that waits to the task's own.
pub(crate) type AwaitStack = Arc<[AwaitFrame]>;

/// A task, or the thread that runs a future by `block_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Task(u64),
    Thread(u32),
}

/// A future for which a task waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) stack: AwaitStack,
    /// The kind of the resource, if it is known.
    pub(crate) resource: Option<&'static str>,
    pub(crate) address: Option<u64>,
    /// Of a timer, in ns of CLOCK_MONOTONIC.
    pub(crate) deadline: Option<u64>,
    pub(crate) detail: Option<String>,
    /// Who certainly holds it, or is waited for.
    pub(crate) holder: Option<Who>,
}

/// The state of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskState {
    pub(crate) who: Who,
    /// The runtime address of its poll function.
    pub(crate) poll: u64,
    pub(crate) state: &'static str,
    /// When the first snapshot with this state was taken (ns of CLOCK_MONOTONIC).
    pub(crate) since: u64,
    pub(crate) waits: Vec<Waiting>,
    /// Futures for which it waits, further ones included.
    pub(crate) branches: usize,
    /// The deadlock in which it is.
    pub(crate) cycle: Option<u64>,
    pub(crate) spawned_at: Option<(String, u32)>,
}

impl TaskState {
    /// Whether it is in a deadlock, or waits for permits of a semaphore while it holds some: then it has a row in each
    /// snapshot.
    pub(crate) fn is_halted(&self) -> bool {
        let is_own = |wait: &Waiting| wait.resource == Some(SEMAPHORE) && wait.holder == Some(self.who);
        self.cycle.is_some() || self.waits.iter().any(is_own)
    }
}

/// What changed since the snapshot before.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// When the tasks were read (ns of CLOCK_MONOTONIC).
    pub(crate) read_at: u64,
    /// Whether it has all tasks.
    pub(crate) is_full: bool,
    pub(crate) tasks: Vec<TaskState>,
    /// What could not be read.
    pub(crate) gaps: Vec<String>,
}

/// The state of a task that is no longer found.
const GONE: &str = "gone";

/// Reads snapshots of a process that is being recorded.
pub(crate) struct StateReader {
    reader: Reader,
    known: HashMap<Who, Known>,
    /// Number of snapshots so far.
    count: u64,
}

/// A task at the last snapshot that found it.
struct Known {
    /// A hash of its state.
    hash: u64,
    since: u64,
    /// The number of that snapshot.
    seen: u64,
    poll: u64,
}

impl StateReader {
    /// See [`Reader::of_recorded`].
    pub(crate) fn open(
        process: &Process,
        polls: Vec<PollFn>,
        names_from: &Path,
        sources: Arc<Sources>,
    ) -> Result<Self> {
        let reader = Reader::of_recorded(process, polls, names_from, sources, MOST)?;
        Ok(StateReader { reader, known: HashMap::new(), count: 0 })
    }

    /// Takes a snapshot, with all tasks if it `is_full`.
    pub(crate) fn read(&mut self, is_full: bool) -> Result<Snapshot> {
        let dump = self.reader.dump()?;
        self.count += 1;
        let mut snapshot = Snapshot { read_at: dump.read_at, is_full, gaps: dump.notes.clone(), ..Snapshot::default() };
        if dump.detail == Detail::Types {
            snapshot.gaps.push("no await stacks: the binary has no type information".into());
        }
        let view = View::of(&dump);
        let mut shapes = Shapes::default();
        for (index, task) in dump.tasks.iter().enumerate() {
            let Some(who) = who(task).filter(|_| is_recorded(&dump, task)) else { continue };
            let shape = task.chain.as_ref().map(|chain| shapes.of(&view, task, chain));
            let holders: Vec<_> = shape.iter().flat_map(|shape| view.holders(task, shape)).collect();
            let cycle = view.cycles.get(&index).copied();
            let poll = dump.types.get(task.of).map_or(0, |of| of.poll);
            let hash = hash((task.is, poll, cycle), &holders, shape.as_deref().zip(task.chain.as_deref()));
            let known = self.known.get(&who).filter(|known| known.hash == hash);
            let since = known.map_or(dump.read_at, |known| known.since);
            let is_new = known.is_none();
            self.known.insert(who, Known { hash, since, seen: self.count, poll });
            if !(is_new || is_full || cycle.is_some() || holders.contains(&Some(who))) {
                continue;
            }
            let state = TaskState {
                who,
                poll,
                state: state(task.is),
                since,
                waits: shape.as_ref().map_or_else(Vec::new, |shape| view.waits(task, shape, &holders)),
                branches: shape.as_ref().map_or(0, |shape| shape.branches),
                cycle,
                spawned_at: task.spawned_at.as_ref().map(|(file, line)| (clean_name(file), *line)),
            };
            if is_new || is_full || state.is_halted() {
                snapshot.tasks.push(state);
            }
        }
        if dump.is_complete {
            self.forget(&mut snapshot);
        }
        Ok(snapshot)
    }

    /// Reports the tasks that were not found, and forgets them.
    fn forget(&mut self, snapshot: &mut Snapshot) {
        let (count, at) = (self.count, snapshot.read_at);
        let mut gone: Vec<_> = self.known.extract_if(|_, known| known.seen != count).collect();
        gone.sort_unstable_by_key(|(who, _)| match who {
            Who::Task(id) => (0, *id),
            Who::Thread(tid) => (1, u64::from(*tid)),
        });
        snapshot.tasks.extend(gone.into_iter().map(|(who, known)| TaskState {
            who,
            poll: known.poll,
            state: GONE,
            since: at,
            waits: Vec::new(),
            branches: 0,
            cycle: None,
            spawned_at: None,
        }));
    }
}

/// Futures and work of the blocking pool; a worker's loop is a thread, not a task.
fn is_recorded(dump: &Dump, task: &Task) -> bool {
    dump.types.get(task.of).is_some_and(|of| of.kind != TaskKind::Worker)
        // The future of a thread that is running was not found.
        && (task.thread.is_none() || task.chain.is_some())
}

fn who(task: &Task) -> Option<Who> {
    match &task.thread {
        Some((tid, _)) => Some(Who::Thread(*tid)),
        None => (task.id != 0).then_some(Who::Task(task.id)),
    }
}

fn state(is: Is) -> &'static str {
    match is {
        Is::Running => "running",
        Is::Scheduled => "scheduled",
        Is::Suspended => "suspended",
        Is::NeverPolled => "never_polled",
        Is::Finished => "finished",
        Is::Cancelled => "cancelled",
    }
}

/// What stays the same while a task waits at one place for one resource. A timer's end does not: a loop sleeps again.
fn hash(of: (Is, u64, Option<u64>), holders: &[Option<Who>], waits: Option<(&Shape, &Chain)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (of, holders).hash(&mut hasher);
    if let Some((shape, chain)) = waits {
        chain.steps.hash(&mut hasher);
        for branch in &shape.leaves {
            let wait = branch.wait(chain).filter(|wait| wait.kind != ResourceKind::Timer);
            wait.map(|wait| wait.at).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The part of a chain that tasks at the same place share.
struct Shape {
    leaves: Vec<Leaf>,
    branches: usize,
}

struct Leaf {
    step: usize,
    stack: AwaitStack,
    resource: Option<&'static str>,
}

impl Leaf {
    fn wait<'c>(&self, chain: &'c Chain) -> Option<&'c Wait> {
        chain.wait_at(self.step)
    }
}

/// Shapes by the steps of their chains.
#[derive(Default)]
struct Shapes<'a> {
    known: HashMap<&'a [Step], Arc<Shape>>,
}

impl<'a> Shapes<'a> {
    fn of(&mut self, view: &View<'_>, task: &'a Task, chain: &'a Chain) -> Arc<Shape> {
        if let Some(known) = self.known.get(chain.steps.as_slice()) {
            return Arc::clone(known);
        }
        let shape = Arc::new(view.shape(task, chain));
        self.known.insert(&chain.steps, Arc::clone(&shape));
        shape
    }
}

/// A dump, with its resources.
struct View<'a> {
    dump: &'a Dump,
    resources: Resources<'a>,
    /// Deadlocks by the indexes of their tasks.
    cycles: HashMap<usize, u64>,
    /// Who keeps others from a resource, by its address.
    blockers: RefCell<HashMap<u64, Option<Who>>>,
}

impl<'a> View<'a> {
    fn of(dump: &'a Dump) -> Self {
        let resources = Resources::of(dump);
        let mut cycles = HashMap::new();
        for cycle in resources.cycles() {
            let ids = cycle.iter().filter_map(|&index| dump.tasks.get(index)).map(|task| task.id).filter(|id| *id != 0);
            let number = ids.min().unwrap_or(0);
            cycles.extend(cycle.into_iter().map(|index| (index, number)));
        }
        View { dump, resources, cycles, blockers: RefCell::default() }
    }

    fn shape(&self, task: &Task, chain: &Chain) -> Shape {
        let named = frames(self.dump, chain);
        let frame = |step: usize| {
            let of = named.get(step)?;
            let file = of.line.as_ref().map(|line| line.file.clone());
            let origin = match &file {
                Some(file) => Some(file_origin(file).unwrap_or(Origin::Own)),
                None => origin_of_type(&of.name),
            };
            let line = of.line.as_ref().map(|line| line.line).filter(|line| *line != 0);
            Some(AwaitFrame { function: of.name.clone(), file, line, origin: ModuleKind::Program.origin(origin) })
        };
        let is_leaf = |step: &Step| !matches!(step.what, What::Await(..) | What::More(_));
        let all: Vec<usize> =
            chain.steps.iter().enumerate().filter(|(_, step)| is_leaf(step)).map(|(n, _)| n).collect();
        // Equal branches are shown once.
        let shown = all.iter().filter(|&&step| named.get(step).is_some_and(|frame| frame.times > 0));
        let leaves = shown.take(MOST_BRANCHES).map(|&step| {
            let wait = chain.wait_at(step);
            Leaf {
                step,
                stack: path(&chain.steps, step).filter_map(frame).collect(),
                resource: wait.map(|wait| self.resources.kind(task, wait)),
            }
        });
        Shape { leaves: leaves.collect(), branches: all.len() }
    }

    /// For each leaf who keeps the task from its resource, or whose end it waits for.
    fn holders(&self, task: &Task, shape: &Shape) -> Vec<Option<Who>> {
        let Some(chain) = &task.chain else { return Vec::new() };
        let at = |index: usize| who(self.dump.tasks.get(index)?);
        let holder = |leaf: &Leaf| {
            let wait = leaf.wait(chain)?;
            match wait.kind {
                ResourceKind::Task => at(self.resources.awaited(wait)?),
                ResourceKind::Semaphore => {
                    let first = || at(*self.resources.blockers(task, wait).first()?);
                    let blocker = *self.blockers.borrow_mut().entry(wait.at).or_insert_with(first);
                    // With several branches, another one may proceed.
                    let wants_more = || shape.branches == 1 && self.resources.wants_more(task, wait);
                    blocker.or_else(|| who(task).filter(|_| wants_more()))
                }
                _ => None,
            }
        };
        shape.leaves.iter().map(holder).collect()
    }

    fn waits(&self, task: &Task, shape: &Shape, holders: &[Option<Who>]) -> Vec<Waiting> {
        let Some(chain) = &task.chain else { return Vec::new() };
        let waiting = |(leaf, holder): (&Leaf, &Option<Who>)| {
            let wait = leaf.wait(chain);
            let is_timer = wait.is_some_and(|wait| wait.kind == ResourceKind::Timer);
            let at = wait.map(|wait| wait.at);
            Waiting {
                stack: Arc::clone(&leaf.stack),
                resource: leaf.resource,
                address: at.filter(|_| !is_timer),
                deadline: at.filter(|_| is_timer),
                detail: wait.and_then(|wait| self.resources.detail(task, wait)).map(|detail| clean_name(&detail)),
                holder: *holder,
            }
        };
        shape.leaves.iter().zip(holders).map(waiting).collect()
    }
}

/// From a step to the outermost one, through those that await it.
fn path(steps: &[Step], leaf: usize) -> impl Iterator<Item = usize> {
    let mut depth = usize::MAX;
    (0..=leaf).rev().filter(move |&step| {
        let is_outer = steps.get(step).is_some_and(|step| step.depth < depth);
        if is_outer {
            depth = steps.get(step).map_or(0, |step| step.depth);
        }
        is_outer
    })
}

/// Whose code a type is, by its crate, where that is certain.
fn origin_of_type(name: &str) -> Option<Origin> {
    match name.split_once("::")?.0 {
        "tokio" => Some(Origin::Tokio),
        "core" | "std" | "alloc" => Some(Origin::Std),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_from_a_leaf_through_what_awaits_it() {
        let step = |depth| Step { depth, what: What::Leaf(0) };
        // 0 awaits 1, which has the branches 2 (awaiting 3) and 4.
        let steps = [step(0), step(1), step(2), step(3), step(2)];
        assert_eq!(path(&steps, 3).collect::<Vec<_>>(), [3, 2, 1, 0]);
        assert_eq!(path(&steps, 4).collect::<Vec<_>>(), [4, 1, 0]);
        assert_eq!(path(&steps, 9).collect::<Vec<_>>(), [4, 1, 0], "no such step");
    }
}
