//! The states of tasks that snapshots of all tasks found (rows of `task_states`), and which of them hold at an instant.
//!
//! A row says what has changed since the snapshot before. So a task's state at an instant is that of its newest rows by the
//! last snapshot up to that instant, unless that is `gone`.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::{Name, TaskState, TypeId, Wait, Waiting, Who};

/// Every task that is there has rows within this time before a snapshot (ns).
pub const STATES_REACH: i64 = 1_200_000_000_000;
/// Maximum number of observations that are kept, of 150 bytes and more each. Those of further tasks are counted only.
const MOST_OBSERVATIONS: usize = 1 << 18;
/// Maximum number of futures that one task waits for at once, as in the table.
const MOST_BRANCHES: usize = 8;
/// Maximum number of snapshots whose times are kept.
const MOST_SNAPSHOTS: usize = 4_096;

/// A row of `task_states`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the table's columns")]
pub struct StateRow {
    pub ts: i64,
    pub since: i64,
    pub who: Who,
    pub type_id: Option<TypeId>,
    pub state: TaskState,
    pub branch: i32,
    pub branches: i32,
    pub cycle: Option<i64>,
    pub wait: Wait,
}

/// What a snapshot found of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) ts: i64,
    pub(super) since: i64,
    pub(super) type_id: Option<TypeId>,
    pub(super) state: TaskState,
    pub(super) branches: i32,
    pub(super) cycle: Option<i64>,
    /// By branch.
    pub(super) waits: Vec<Wait>,
}

/// The states of tasks over a time range.
#[derive(Clone, Debug, Default)]
pub struct States {
    /// By time, each.
    tasks: HashMap<Who, Vec<Observation>>,
    /// Number of observations.
    count: usize,
    left_out: u64,
    /// When snapshots were taken, and what could not be read.
    taken: BTreeMap<i64, Option<Name>>,
    /// Why there are no snapshots.
    failure: Option<Name>,
    /// The newest snapshot before which observations were discarded.
    forgotten: i64,
    /// What was last made of them, and of what.
    pub(super) made: Option<(Made, Waiting)>,
}

/// What a list of waiting tasks was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) taken: i64,
    pub(super) observations: usize,
    pub(super) names: usize,
    pub(super) filter: Option<String>,
}

impl States {
    /// Adds a row.
    pub fn add(&mut self, row: StateRow) {
        let branch = usize::try_from(row.branch).unwrap_or(usize::MAX);
        if branch >= MOST_BRANCHES {
            return;
        }
        let is_full = self.count >= MOST_OBSERVATIONS;
        let of = match self.tasks.entry(row.who) {
            hashbrown::hash_map::Entry::Occupied(known) => known.into_mut(),
            hashbrown::hash_map::Entry::Vacant(_) if is_full => return self.left_out = self.left_out.saturating_add(1),
            hashbrown::hash_map::Entry::Vacant(free) => free.insert(Vec::new()),
        };
        if of.iter().all(|seen| seen.ts != row.ts) {
            // Of a task that is known, a new observation is worth more than its oldest one.
            if is_full && !of.is_empty() {
                of.remove(0);
                self.count -= 1;
            }
            of.insert(of.partition_point(|seen| seen.ts < row.ts), Observation::of(&row));
            self.count += 1;
        }
        let Some(seen) = of.iter_mut().find(|seen| seen.ts == row.ts) else { return };
        if seen.waits.len() <= branch {
            seen.waits.resize(branch + 1, Wait::default());
        }
        if let Some(wait) = seen.waits.get_mut(branch) {
            *wait = row.wait;
        }
    }

    /// Adds an interval of the stream `task_states`: a snapshot was taken at `end`. One of no length says why none is.
    pub fn covered(&mut self, ts: i64, end: i64, reason: Option<Name>) {
        if end <= ts {
            self.failure = reason;
            return;
        }
        self.taken.insert(end, reason);
        if self.taken.len() > MOST_SNAPSHOTS {
            self.taken.pop_first();
        }
    }

    /// Discards what does not hold at `from` or later.
    pub fn forget_before(&mut self, from: i64) {
        let Some((last, _)) = self.taken.range(..=from).next_back() else { return };
        let last = *last;
        if last <= self.forgotten {
            return;
        }
        self.forgotten = last;
        self.taken = self.taken.split_off(&last);
        let oldest = last.saturating_sub(STATES_REACH);
        self.tasks.retain(|_, of| {
            let newest = of.partition_point(|seen| seen.ts <= last);
            if newest > 1 {
                of.drain(..newest - 1);
            }
            let is_over =
                of.first().is_some_and(|seen| seen.ts <= last && (seen.state == TaskState::Gone || seen.ts <= oldest));
            if is_over {
                of.remove(0);
            }
            of.shrink_to(4);
            !of.is_empty()
        });
        self.count = self.tasks.values().map(Vec::len).sum();
        self.left_out = 0;
    }

    /// Discards everything.
    pub fn clear(&mut self) {
        *self = States::default();
    }

    /// The last snapshot up to an instant, and what it could not read.
    pub fn taken_by(&self, at: i64) -> Option<(i64, Option<&Name>)> {
        self.taken.range(..=at).next_back().map(|(ts, why)| (*ts, why.as_ref()))
    }

    /// Why there are no snapshots, if that is known.
    pub fn failure(&self) -> Option<&Name> {
        self.failure.as_ref()
    }

    /// Number of observations, as a measure of memory.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What the snapshot at `taken` says of a task.
    pub(super) fn of(&self, who: Who, taken: i64) -> Option<&Observation> {
        newest(self.tasks.get(&who)?, taken)
    }

    /// What the snapshot at `taken` says of each task.
    pub(super) fn at(&self, taken: i64) -> impl Iterator<Item = (Who, &Observation)> {
        self.tasks.iter().filter_map(move |(who, of)| Some((*who, newest(of, taken)?)))
    }
}

fn newest(of: &[Observation], taken: i64) -> Option<&Observation> {
    let seen = of.get(of.partition_point(|seen| seen.ts <= taken).checked_sub(1)?)?;
    (seen.state != TaskState::Gone && seen.ts > taken.saturating_sub(STATES_REACH)).then_some(seen)
}

impl Observation {
    fn of(row: &StateRow) -> Self {
        let StateRow { ts, since, type_id, state, branches, cycle, .. } = *row;
        Observation { ts, since, type_id, state, branches, cycle, waits: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TaskId, Tid};

    const SECOND: i64 = 1_000_000_000;

    fn row(ts: i64, task: i64, state: TaskState) -> StateRow {
        StateRow {
            ts: ts * SECOND,
            since: ts * SECOND,
            who: Who::Task(TaskId(task)),
            type_id: None,
            state,
            branch: 0,
            branches: 0,
            cycle: None,
            wait: Wait::default(),
        }
    }

    fn found(states: &States, at: i64) -> Vec<(i64, TaskState)> {
        let Some((taken, _)) = states.taken_by(at * SECOND) else { return Vec::new() };
        let mut all: Vec<_> = states
            .at(taken)
            .map(|(who, seen)| match who {
                Who::Task(TaskId(id)) => (id, seen.state),
                Who::Thread(Tid(tid)) => (-i64::from(tid), seen.state),
            })
            .collect();
        all.sort_unstable();
        all
    }

    fn three_snapshots() -> States {
        let mut states = States::default();
        for (ts, task, state) in [
            (10, 1, TaskState::Suspended),
            (10, 2, TaskState::Suspended),
            (20, 2, TaskState::Gone),
            (20, 3, TaskState::NeverPolled),
            (30, 3, TaskState::Suspended),
        ] {
            states.add(row(ts, task, state));
        }
        for ts in [10, 20, 30] {
            states.covered((ts - 10) * SECOND, ts * SECOND, None);
        }
        states
    }

    #[test]
    fn a_state_holds_until_a_snapshot_found_another() {
        use TaskState::{NeverPolled, Suspended};
        let states = three_snapshots();
        assert_eq!(found(&states, 9), []);
        assert_eq!(found(&states, 10), [(1, Suspended), (2, Suspended)]);
        assert_eq!(found(&states, 29), [(1, Suspended), (3, NeverPolled)]);
        assert_eq!(found(&states, 1_000), [(1, Suspended), (3, Suspended)]);
    }

    #[test]
    fn forgets_only_what_no_longer_holds() {
        let (whole, mut states) = (three_snapshots(), three_snapshots());
        states.forget_before(25 * SECOND);
        for at in [20, 29, 30, 40] {
            assert_eq!(found(&states, at), found(&whole, at), "at {at}");
        }
        assert_eq!(states.len(), 3, "task 2 is gone, and task 3 has two states");
        assert_eq!(found(&states, 19), []);
    }

    #[test]
    fn a_task_without_rows_for_twenty_minutes_is_gone() {
        let mut states = three_snapshots();
        states.covered(0, 1_300 * SECOND, None);
        assert_eq!(found(&states, 1_300), []);
        states.forget_before(1_300 * SECOND);
        assert!(states.is_empty());
    }

    #[test]
    fn rows_of_one_snapshot_are_branches() {
        let mut states = States::default();
        for branch in [1, 0, 1, 99] {
            let wait = Wait { address: Some(branch.into()), ..Wait::default() };
            states.add(StateRow { branch, wait, branches: 2, ..row(1, 7, TaskState::Suspended) });
        }
        let waits = &states.of(Who::Task(TaskId(7)), 2 * SECOND).unwrap().waits;
        assert_eq!(waits.iter().map(|wait| wait.address).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert_eq!(states.len(), 1);
    }

    #[test]
    fn keeps_no_more_than_its_maximum() {
        let mut states = States::default();
        let most = i64::try_from(MOST_OBSERVATIONS).unwrap();
        (0..most + 10).for_each(|task| states.add(row(1, task, TaskState::Suspended)));
        states.add(row(2, 0, TaskState::Running));
        assert_eq!((states.len(), states.left_out()), (MOST_OBSERVATIONS, 10));
        assert_eq!(states.of(Who::Task(TaskId(0)), 2 * SECOND).unwrap().state, TaskState::Running);
    }
}
