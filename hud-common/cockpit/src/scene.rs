//! Input and intermediate results that several lists of a snapshot share.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hud_wire::Stream;

use super::{
    Bucket, InProgress, Load, Map, Name, Names, Partial, PollSums, Query, Role, Seen, StackId, Sums, TaskId, TaskKind,
    TaskRef, Tid, TypeId, TypeRef, Window, partial::clipped, progress::Progress,
};

/// The input of a snapshot's lists.
pub(super) struct Scene<'a> {
    pub(super) query: &'a Query,
    pub(super) at: i64,
    pub(super) window: Window,
    pub(super) parts: Vec<(Bucket, &'a Partial)>,
    pub(super) total: &'a Sums,
    pub(super) names: &'a mut Names,
    /// The activity of each thread observed in the window.
    pub(super) threads: BTreeMap<Tid, Seat>,
    /// Polls by bucket, as in `parts`.
    pub(super) polled: Vec<Polled>,
    /// Times at which threads were observed inside `block_in_place`: in a sample, or falling asleep.
    pub(super) in_place: BTreeSet<(Tid, i64)>,
    /// Polls in progress, once they are added to `threads`.
    pub(super) progress: Progress,
}

impl Scene<'_> {
    pub(super) fn type_ref(&self, id: Option<TypeId>) -> Option<TypeRef> {
        let id = id?;
        let name = self.names.types.get(&id).map_or_else(|| Name::from("<unknown>"), |t| t.name.clone());
        Some(TypeRef { id, name })
    }

    pub(super) fn task_ref(&self, id: TaskId) -> TaskRef {
        TaskRef { id, task_type: self.type_ref(self.names.type_of.get(&id).copied()) }
    }

    /// Whether it is neither the loop of a worker nor work of the blocking pool.
    pub(super) fn is_task(&self, id: TaskId) -> bool {
        self.names.kind(id) == TaskKind::Task
    }

    /// Whether it is known to be a type of task.
    pub(super) fn is_type_of_task(&self, id: TypeId) -> bool {
        self.names.types.get(&id).is_some_and(|of| of.kind == TaskKind::Task)
    }

    /// Whether an interval of a task of this type, up to `end`, held a worker: the thread had not passed its core to another one
    /// for `block_in_place`. A task of unknown type may be a worker's idle loop, or work of the pool: it counts only on a
    /// worker's thread, and if it `is_code`, own code or a recorded poll.
    pub(super) fn keeps_worker(&self, tid: Tid, type_id: Option<TypeId>, end: i64, is_code: bool) -> bool {
        let kind = type_id.and_then(|id| self.names.types.get(&id)).map(|t| t.kind);
        let is_task = kind.map_or_else(|| is_code && self.names.was_worker(tid), |kind| kind == TaskKind::Task);
        is_task && !self.names.is_handed(tid, end.min(self.window.end().saturating_sub(1)))
    }

    /// Whether the task on top of a stack has called `block_in_place`.
    pub(super) fn is_in_place(&self, stack: Option<StackId>) -> bool {
        self.names.code.walked(stack).is_some_and(|walked| walked.is_in_place)
    }

    /// The last observation of a poll in progress on each thread.
    pub(super) fn last_observed(&self) -> BTreeMap<Tid, InProgress> {
        let mut newest = BTreeMap::new();
        for (_, partial) in &self.parts {
            // Sorted by thread, then time.
            newest.extend(partial.in_progress.items().iter().map(|poll| (poll.tid, *poll)));
        }
        newest
    }

    /// Whether own code is on a stack.
    pub(super) fn is_own(&self, stack: Option<StackId>) -> bool {
        self.names.code.walked(stack).is_some_and(|walked| walked.is_own)
    }

    pub(super) fn role(&self, tid: Tid) -> Role {
        self.names.threads.get(&tid).map_or(Role::Other, |t| t.role)
    }

    /// Rows of a stream in the window.
    pub(super) fn rows(&self, stream: Stream) -> i64 {
        rows(self.total, stream)
    }
}

pub(super) fn rows(sums: &Sums, stream: Stream) -> i64 {
    sums.rows.get(stream as usize).copied().unwrap_or(0)
}

/// Time in a bucket in which a stream is known to have been recorded.
pub(super) fn on(sums: &Sums, stream: Stream) -> i64 {
    sums.coverage.get(stream.name()).map_or(0, |on| on.on.min(Bucket::NANOS))
}

/// A thread's activity in the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) seen: Seen,
    /// Time off-CPU by bucket: asleep inside tasks, runnable, asleep outside tasks.
    pub(super) away: BTreeMap<Bucket, (i64, i64, i64)>,
    /// Sleeps in polls in progress, which are not in `away`.
    pub(super) sleeps: Vec<Ongoing>,
    pub(super) polls: i64,
    pub(super) polling: i64,
    pub(super) longest: i64,
    /// Its newest sample.
    pub(super) sampled: Option<(i64, Option<TaskId>)>,
}

/// A sleep in a poll in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ongoing {
    pub(super) ts: i64,
    pub(super) end: i64,
    /// Whether it holds no task up.
    pub(super) is_idle: bool,
}

impl Ongoing {
    /// Its time in a bucket, without the time off-CPU that is known there from events that reach past the window.
    fn within(&self, bucket: Bucket, (asleep, waiting, idle): (i64, i64, i64)) -> i64 {
        let known = asleep.saturating_add(waiting).saturating_add(idle);
        clipped(bucket, self.ts, self.end).min(Bucket::NANOS.saturating_sub(known)).max(0)
    }
}

impl Seat {
    pub(super) fn range(&self) -> (i64, i64) {
        (self.seen.first.0.unwrap_or(0), self.seen.last.0.unwrap_or(0))
    }

    /// Its load in a bucket.
    pub(super) fn step(&self, bucket: Bucket) -> Load {
        let (first, last) = self.range();
        let (blocked, waiting, idle) = self.away_in(bucket);
        Load::within(observed(bucket, first, last), blocked, waiting, idle)
    }

    /// Its time off-CPU in a bucket: asleep inside tasks, runnable, asleep outside tasks.
    pub(super) fn away_in(&self, bucket: Bucket) -> (i64, i64, i64) {
        let known = self.away.get(&bucket).copied().unwrap_or_default();
        let mut all = known;
        for sleep in &self.sleeps {
            let of = if sleep.is_idle { &mut all.2 } else { &mut all.0 };
            *of = of.saturating_add(sleep.within(bucket, known));
        }
        all
    }

    pub(super) fn load(&self) -> Load {
        let (first, last) = self.range();
        let (mut blocked, mut waiting, mut idle) = (0_i64, 0_i64, 0_i64);
        for away in self.away.values() {
            blocked = blocked.saturating_add(away.0);
            waiting = waiting.saturating_add(away.1);
            idle = idle.saturating_add(away.2);
        }
        for sleep in &self.sleeps {
            let mut dur = sleep.end.saturating_sub(sleep.ts);
            for (bucket, known) in self.away.range(Bucket::of(sleep.ts)..=Bucket::of(sleep.end)) {
                let hidden = clipped(*bucket, sleep.ts, sleep.end).saturating_sub(sleep.within(*bucket, *known));
                dur = dur.saturating_sub(hidden);
            }
            let of = if sleep.is_idle { &mut idle } else { &mut blocked };
            *of = of.saturating_add(dur.max(0));
        }
        Load::within(last.saturating_sub(first), blocked, waiting, idle)
    }
}

/// Polls that ended in a bucket, without those of workers' loops.
#[derive(Default)]
pub(super) struct Polled {
    /// Those of tasks.
    pub(super) tasks: PolledBy,
    pub(super) threads: Map<Tid, PolledBy>,
}

/// Polls of a thread, or of many.
#[derive(Clone, Copy, Default)]
pub(super) struct PolledBy {
    pub(super) count: i64,
    pub(super) longest: i64,
    /// The type that was polled longest.
    pub(super) most: Option<(i64, Reverse<TypeId>)>,
}

impl PolledBy {
    pub(super) fn add(&mut self, polls: &PollSums) {
        self.count = self.count.saturating_add(polls.count);
        self.longest = self.longest.max(polls.longest);
    }
}

impl Load {
    pub(super) fn add(&mut self, other: &Load) {
        self.running = self.running.saturating_add(other.running);
        self.blocked = self.blocked.saturating_add(other.blocked);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.idle = self.idle.saturating_add(other.idle);
    }

    /// The load of a thread, or of many: the part of the observed time that is in none of the other states is running.
    pub(super) fn within(observed: i64, blocked: i64, waiting: i64, idle: i64) -> Load {
        let away = blocked.saturating_add(waiting).saturating_add(idle);
        Load { running: observed.saturating_sub(away).max(0), blocked, waiting, idle }
    }
}

/// The part of `[first, last)` that lies in a bucket.
pub(super) fn observed(bucket: Bucket, first: i64, last: i64) -> i64 {
    clipped(bucket, first, last)
}
