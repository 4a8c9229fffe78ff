//! Where tasks wait at an instant: by place and resource, each task, and the await stacks of one. As the views `suspended`
//! and `wait_graph` define it.

use core::cmp::Reverse;
use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::{
    AwaitedBy, MOST_ROWS, Name, Names, Origin, Place, Query, Snapshot, StackId, StateCounts, StateNow, States, TaskId,
    TaskKind, TaskOrder, TaskRef, TaskRow, TaskState, TypeId, TypeRef, Wait, Waiter, Waiting, WaitingPlace,
    WaitingTask, Who,
    code::PlaceNo,
    filter::Filter,
    states::{Made, Observation},
};

/// Maximum number of frames of an await stack that are shown.
const MOST_FRAMES: usize = 32;

impl Snapshot {
    /// Adds the states of tasks at its instant: where they wait, the state of the task whose page is open, and, where tasks
    /// are ordered by the time since they were last polled, those that were not observed in the window.
    pub fn add_states(&mut self, states: &mut States, names: &mut Names, query: &Query) {
        let Some((taken, gaps)) = states.taken_by(self.at) else {
            self.waiting = Waiting { gaps: states.failure().cloned(), ..Waiting::default() };
            return;
        };
        let gaps = gaps.cloned();
        let wanted = Made {
            taken,
            observations: states.len(),
            names: names.len(),
            filter: query.filter.clone().filter(|filter| !filter.is_empty()),
        };
        let made = match states.made.take().filter(|(of, _)| *of == wanted) {
            Some((_, made)) => made,
            None => {
                prepare(names, states.at(taken).map(|(_, seen)| seen));
                Waiting { ts: Some(taken), gaps, ..Waiting::of(states, names, taken, query) }
            }
        };
        self.waiting = made.clone();
        states.made = Some((wanted, made));
        if let Some(page) = &mut self.task {
            let who = Who::Task(page.task.id);
            prepare(names, states.of(who, taken).into_iter());
            page.state = state_of(states, names, who, taken);
            // Of a task that was not observed in the window, its type is known from its state alone.
            let type_id = states.of(who, taken).and_then(|seen| type_of(names, who, seen));
            page.task.task_type = page.task.task_type.take().or_else(|| type_ref(names, type_id));
        }
        if query.order == TaskOrder::Idle && !query.is_reversed {
            self.add_silent_tasks(states, names, taken, query);
        }
    }

    /// Adds suspended tasks that were not observed in the window, as they have not been polled for longer than those that were.
    fn add_silent_tasks(&mut self, states: &States, names: &Names, taken: i64, query: &Query) {
        let filter = Filter::of(query.filter.as_deref().unwrap_or_default());
        let known: BTreeSet<TaskId> = self.tasks.rows.iter().map(|row| row.task.id).collect();
        let mut silent: Vec<(i64, TaskId)> = states
            .at(taken)
            .filter_map(|(who, seen)| match who {
                Who::Task(id) if seen.state == TaskState::Suspended && !known.contains(&id) => Some((seen, id)),
                _ => None,
            })
            .filter(|(seen, id)| passes(&filter, names, type_of(names, Who::Task(*id), seen)))
            .map(|(seen, id)| (seen.since, id))
            .collect();
        self.tasks.count = self.tasks.count.saturating_add(i64::try_from(silent.len()).unwrap_or(i64::MAX));
        self.tasks.matching = self.tasks.matching.saturating_add(i64::try_from(silent.len()).unwrap_or(i64::MAX));
        silent.sort_unstable();
        let start = self.window.start();
        let rows = silent.into_iter().take(MOST_ROWS).map(|(since, id)| {
            let type_id = states.of(Who::Task(id), taken).and_then(|seen| type_of(names, Who::Task(id), seen));
            silent_row(names, id, type_id, since.min(start))
        });
        let mut rows: Vec<TaskRow> = rows.chain(std::mem::take(&mut self.tasks.rows)).collect();
        rows.sort_by_key(|row| (row.ended.is_some(), row.last_seen, row.task.id));
        rows.truncate(MOST_ROWS);
        self.tasks.rows = rows;
    }
}

/// The row of a task that was not observed in the window, nor since `last_seen`.
fn silent_row(names: &Names, id: TaskId, type_id: Option<TypeId>, last_seen: i64) -> TaskRow {
    let task_type = type_id.and_then(|id| names.types.get(&id));
    TaskRow {
        task: task_ref(names, id, type_id),
        kind: task_type.map_or(TaskKind::Task, |of| of.kind),
        file: task_type.and_then(|of| of.file.clone()),
        line: task_type.and_then(|of| of.line),
        polls: 0,
        busy: 0,
        blocked: 0,
        longest_poll: None,
        in_progress: None,
        cpu: 0,
        wakes: 0,
        self_wakes: 0,
        wake_delay_mean: None,
        wake_delay_longest: None,
        spawned: None,
        ended: None,
        first_seen: last_seen,
        last_seen,
    }
}

/// Resolves the await stacks of these states.
fn prepare<'a>(names: &mut Names, states: impl Iterator<Item = &'a Observation>) {
    let stacks: BTreeSet<StackId> = states.flat_map(|seen| &seen.waits).filter_map(|wait| wait.stack).collect();
    names.prepare(stacks.into_iter());
}

fn type_of(names: &Names, who: Who, seen: &Observation) -> Option<TypeId> {
    let Who::Task(id) = who else { return seen.type_id };
    seen.type_id.or_else(|| names.type_of.get(&id).copied())
}

fn type_ref(names: &Names, id: Option<TypeId>) -> Option<TypeRef> {
    let id = id?;
    names.types.get(&id).map(|of| TypeRef { id, name: of.name.clone() })
}

fn task_ref(names: &Names, id: TaskId, type_id: Option<TypeId>) -> TaskRef {
    TaskRef { id, task_type: type_ref(names, type_id) }
}

fn waiter(names: &Names, who: Who, type_id: Option<TypeId>) -> Waiter {
    match who {
        Who::Task(id) => Waiter::Task(task_ref(names, id, type_id)),
        Who::Thread(tid) => Waiter::Thread(tid),
    }
}

fn passes(filter: &Filter, names: &Names, type_id: Option<TypeId>) -> bool {
    filter.is_empty() || filter.passes([type_id.and_then(|id| names.types.get(&id)).map_or("", |of| of.name.as_str())])
}

/// The innermost own frame of an await stack; without one that of a dependency, else the outermost.
fn await_frame(names: &Names, stack: Option<StackId>) -> Option<PlaceNo> {
    let frames = &names.code.walked(stack)?.frames;
    let of = |origin: Origin| frames.iter().find(|no| names.code.place(**no).is_some_and(|at| at.origin == origin));
    of(Origin::Own).or_else(|| of(Origin::Dependency)).or(frames.last()).copied()
}

/// The place at which a task awaits; its type, if its code is unknown.
fn place_of(names: &Names, frame: Option<PlaceNo>, type_id: Option<TypeId>) -> Place {
    frame.and_then(|no| names.code.place(no)).cloned().unwrap_or_else(|| {
        let name =
            type_id.and_then(|id| names.types.get(&id)).map_or_else(|| Name::from("<unknown>"), |of| of.name.clone());
        Place { function: name, file: None, line: None, origin: Origin::Unknown }
    })
}

/// Frame, resource and type of task.
type Key = (Option<PlaceNo>, Option<Name>, Option<TypeId>);

/// Tasks that wait at one place for one kind of resource.
#[derive(Default)]
struct Group {
    tasks: i64,
    /// The last task that was counted: branches of one task follow each other.
    last: Option<Who>,
    first: Option<Who>,
    oldest: Option<i64>,
    newest: Option<i64>,
    detail: Same<Name>,
    holder: Same<Who>,
    addresses: BTreeSet<i64>,
    deadlocked: i64,
    stack: Option<StackId>,
}

/// A value that all rows have, or none.
#[derive(Default)]
enum Same<T> {
    #[default]
    Nothing,
    One(T),
    Several,
}

impl<T: Clone + PartialEq> Same<T> {
    fn add(&mut self, value: Option<&T>) {
        *self = match (std::mem::take(self), value) {
            (Same::Nothing, Some(value)) => Same::One(value.clone()),
            (Same::One(known), Some(value)) if known == *value => Same::One(known),
            _ => Same::Several,
        };
    }

    fn one(self) -> Option<T> {
        if let Same::One(value) = self { Some(value) } else { None }
    }
}

/// Maximum number of addresses that are told apart per group.
const MOST_ADDRESSES: usize = 4_096;

impl Group {
    fn add(&mut self, who: Who, seen: &Observation, wait: &Wait) {
        if self.last != Some(who) {
            self.tasks += 1;
            self.deadlocked += i64::from(seen.cycle.is_some());
        }
        self.last = Some(who);
        if self.oldest.is_none_or(|oldest| seen.since < oldest) || self.first.is_none() {
            (self.oldest, self.first, self.stack) = (Some(seen.since), Some(who), wait.stack);
        } else if self.oldest == Some(seen.since) && Some(who) < self.first {
            (self.first, self.stack) = (Some(who), wait.stack);
        }
        self.newest = self.newest.max(Some(seen.since));
        self.detail.add(wait.detail.as_ref());
        self.holder.add(wait.holder.as_ref());
        if let Some(address) = wait.address.filter(|_| self.addresses.len() < MOST_ADDRESSES) {
            self.addresses.insert(address);
        }
    }
}

impl Waiting {
    /// Where the tasks wait that pass the query's filter.
    fn of(states: &States, names: &Names, taken: i64, query: &Query) -> Self {
        let filter = Filter::of(query.filter.as_deref().unwrap_or_default());
        let mut counts = StateCounts::default();
        // Frames of stacks are looked up once each.
        let mut frames: HashMap<Option<StackId>, Option<PlaceNo>> = HashMap::new();
        let mut groups: HashMap<Key, Group> = HashMap::new();
        let mut each: Vec<(i64, Who)> = Vec::new();
        for (who, seen) in states.at(taken) {
            counts.add(seen.state);
            if seen.state != TaskState::Suspended {
                continue;
            }
            let type_id = type_of(names, who, seen);
            let mut does_pass = false;
            for wait in &seen.waits {
                let frame = *frames.entry(wait.stack).or_insert_with(|| await_frame(names, wait.stack));
                if !filter.is_empty() && !passes_wait(&filter, names, frame, type_id, wait) {
                    continue;
                }
                does_pass = true;
                groups.entry((frame, wait.resource.clone(), type_id)).or_default().add(who, seen, wait);
            }
            if does_pass {
                each.push((seen.since, who));
            }
        }
        let mut places: Vec<WaitingPlace> = groups
            .into_iter()
            .map(|((frame, resource, type_id), group)| {
                let first = group.first.unwrap_or(Who::Task(TaskId(0)));
                WaitingPlace {
                    tasks: group.tasks,
                    longest: taken.saturating_sub(group.oldest.unwrap_or(taken)),
                    shortest: taken.saturating_sub(group.newest.unwrap_or(taken)),
                    place: place_of(names, frame, type_id),
                    resource,
                    detail: group.detail.one(),
                    resources: i64::try_from(group.addresses.len()).unwrap_or(i64::MAX),
                    holder: group.holder.one().map(|who| awaited(states, names, who, taken)),
                    task_type: type_ref(names, type_id),
                    deadlocked: group.deadlocked,
                    first: waiter(names, first, type_id),
                    stack: stack_of(names, group.stack),
                }
            })
            .collect();
        places.sort_by(|a, b| {
            let key = |of: &WaitingPlace| (of.deadlocked == 0, Reverse(of.tasks), Reverse(of.longest));
            let names = |of: &'_ WaitingPlace| (of.place.clone(), of.resource.clone(), of.task_type.clone());
            key(a).cmp(&key(b)).then_with(|| names(a).cmp(&names(b)))
        });
        let place_count = places.len();
        places.truncate(MOST_ROWS);
        let count = each.len();
        if each.len() > MOST_ROWS {
            each.select_nth_unstable(MOST_ROWS);
            each.truncate(MOST_ROWS);
        }
        each.sort_unstable();
        let tasks = each.into_iter().filter_map(|(_, who)| {
            let seen = states.of(who, taken)?;
            let type_id = type_of(names, who, seen);
            seen.waits.first().map(|wait| waiting_task(states, names, (who, type_id), seen, (wait, taken)))
        });
        Waiting {
            ts: None,
            gaps: None,
            counts,
            place_count: i64::try_from(place_count).unwrap_or(i64::MAX),
            count: i64::try_from(count).unwrap_or(i64::MAX),
            tasks: tasks.collect(),
            places,
            left_out: i64::try_from(states.left_out()).unwrap_or(i64::MAX),
        }
    }
}

fn passes_wait(filter: &Filter, names: &Names, frame: Option<PlaceNo>, type_id: Option<TypeId>, wait: &Wait) -> bool {
    let place = frame.and_then(|no| names.code.place(no));
    let code = place.into_iter().flat_map(|at| [Some(at.function.as_str()), at.file.as_deref()]).flatten();
    let task_type = type_id.and_then(|id| names.types.get(&id)).map(|of| of.name.as_str());
    filter.passes(code.chain(task_type).chain(wait.resource.as_deref()).chain(wait.detail.as_deref()))
}

fn stack_of(names: &Names, stack: Option<StackId>) -> Vec<Place> {
    let frames = names.code.walked(stack).map(|walked| walked.frames.as_slice()).unwrap_or_default();
    frames.iter().take(MOST_FRAMES).filter_map(|no| names.code.place(*no)).cloned().collect()
}

/// Who is awaited, with its own state.
fn awaited(states: &States, names: &Names, who: Who, taken: i64) -> AwaitedBy {
    let seen = states.of(who, taken);
    let type_id = seen.map_or_else(
        || if let Who::Task(id) = who { names.type_of.get(&id).copied() } else { None },
        |seen| type_of(names, who, seen),
    );
    let frame = seen
        .filter(|seen| seen.state == TaskState::Suspended)
        .and_then(|seen| await_frame(names, seen.waits.first()?.stack));
    AwaitedBy {
        who: waiter(names, who, type_id),
        state: seen.map(|seen| seen.state),
        place: frame.map(|frame| place_of(names, Some(frame), type_id)),
    }
}

/// A task, and one future that it waits for.
fn waiting_task(
    states: &States,
    names: &Names,
    (who, type_id): (Who, Option<TypeId>),
    seen: &Observation,
    (wait, taken): (&Wait, i64),
) -> WaitingTask {
    WaitingTask {
        who: waiter(names, who, type_id),
        since: seen.since,
        place: place_of(names, await_frame(names, wait.stack), type_id),
        resource: wait.resource.clone(),
        detail: wait.detail.clone(),
        deadline: wait.deadline,
        holder: wait.holder.map(|who| awaited(states, names, who, taken)),
        branches: seen.branches,
        cycle: seen.cycle,
        stack: stack_of(names, wait.stack),
    }
}

/// The state of one task.
fn state_of(states: &States, names: &Names, who: Who, taken: i64) -> Option<StateNow> {
    let seen = states.of(who, taken)?;
    let type_id = type_of(names, who, seen);
    let is_suspended = seen.state == TaskState::Suspended;
    let waits = seen
        .waits
        .iter()
        .filter(|_| is_suspended)
        .map(|wait| waiting_task(states, names, (who, type_id), seen, (wait, taken)));
    Some(StateNow { ts: taken, since: seen.since, state: seen.state, waits: waits.collect() })
}

impl StateCounts {
    fn add(&mut self, state: TaskState) {
        let of = match state {
            TaskState::Running => &mut self.running,
            TaskState::Scheduled => &mut self.scheduled,
            TaskState::Suspended => &mut self.suspended,
            TaskState::NeverPolled => &mut self.never_polled,
            TaskState::Finished => &mut self.finished,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Gone => return,
        };
        *of += 1;
    }
}
