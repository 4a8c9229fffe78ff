//! Polls in progress: what a window's observations of them say that its events do not.

use std::collections::BTreeMap;

use super::{Bucket, InProgress, MOST_TICKS, PollState, StackId, Sums, TaskId, TaskSums, Tid, TypeId};

/// What the observations of the window say that its rows of events do not.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Sleeps: from the thread's last event on.
    pub(super) sleeps: Vec<Part>,
    /// Polls that were on their CPU.
    pub(super) polls: Vec<Part>,
    /// What each thread is polling, by its last observation.
    pub(super) now: BTreeMap<Tid, InProgress>,
    pub(super) tasks: BTreeMap<TaskId, TaskPart>,
}

/// A part of a poll in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) tid: Tid,
    pub(super) task: TaskId,
    pub(super) type_id: Option<TypeId>,
    pub(super) stack: Option<StackId>,
    pub(super) ts: i64,
    pub(super) end: i64,
    /// Time for which the poll had lasted by the last observation.
    pub(super) lasted: i64,
    /// Of a poll: its time on a CPU.
    pub(super) busy: i64,
    /// Whether it was ever seen on a CPU or waiting for one.
    pub(super) has_run: bool,
}

impl Part {
    pub(super) fn of(poll: &InProgress, type_id: Option<TypeId>, from: i64) -> Self {
        let &InProgress { tid, task, stack, ts: end, lasted, .. } = poll;
        let has_run = poll.state != PollState::Blocked;
        Part { tid, task, type_id, stack, ts: from, end, lasted, busy: 0, has_run }
    }

    pub(super) fn dur(&self) -> i64 {
        self.end.saturating_sub(self.ts)
    }

    pub(super) fn add(&mut self, other: &Part) {
        self.end = self.end.max(other.end);
        self.lasted = self.lasted.max(other.lasted);
        self.stack = self.stack.max(other.stack);
        self.has_run |= other.has_run;
    }

    /// The buckets that it touches, at most [`MOST_TICKS`]: the last ones.
    pub(super) fn buckets(&self) -> impl Iterator<Item = Bucket> + use<> {
        let last = Bucket::of(self.end.saturating_sub(1));
        let most = i64::try_from(MOST_TICKS).unwrap_or(i64::MAX);
        (Bucket::of(self.ts).0.max(last.0.saturating_sub(most))..=last.0).map(Bucket)
    }
}

/// What a task has done in polls in progress.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TaskPart {
    pub(super) blocked: i64,
    pub(super) busy: i64,
    pub(super) range: Option<(i64, i64)>,
    pub(super) lasted: Option<i64>,
}

impl Progress {
    /// For how long the poll on a thread has been in progress.
    pub(super) fn on(&self, tid: Tid) -> Option<&InProgress> {
        self.now.get(&tid)
    }

    /// For how long the poll of a task has been in progress.
    pub(super) fn of(&self, task: TaskId) -> Option<i64> {
        self.tasks.get(&task).and_then(|of| of.lasted)
    }

    /// The time on a CPU of a task's polls in progress.
    pub(super) fn busy(&self, task: TaskId) -> i64 {
        self.tasks.get(&task).map_or(0, |of| of.busy)
    }

    /// The sums of the tasks with a poll in progress, that poll included, from those of all events.
    pub(super) fn task_sums(&self, total: &Sums) -> BTreeMap<TaskId, TaskSums> {
        let sums = self.tasks.iter().map(|(id, part)| {
            let mut sums = total.tasks.get(id).copied().unwrap_or_default();
            sums.blocked = sums.blocked.saturating_add(part.blocked);
            sums.busy = sums.busy.saturating_add(part.busy);
            if let Some((first, last)) = part.range {
                sums.first.add(first);
                sums.last.add(last);
            }
            (*id, sums)
        });
        sums.collect()
    }
}
