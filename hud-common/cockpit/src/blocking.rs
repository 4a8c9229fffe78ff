//! Blocking: sleeps inside polls and long computations that held workers.

use core::cmp::Reverse;
use std::collections::BTreeSet;

use hud_wire::Stream;

use super::{
    Blocking, BlockingInterval, Bucket, Cause, Culprit, Jump, LongPoll, MOST_ROWS, Map, Mark, Merge as _, Place, Short,
    Sleep, StackId, TaskId, Tid, TypeId, Waker,
    code::{PlaceNo, SpotNo},
    scene::{Scene, on, rows},
};

/// Maximum number of frames shown of a blocking interval's stack.
const SHOWN_FRAMES: usize = 32;

/// A blocking interval, without names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) ts: i64,
    pub(super) dur: i64,
    pub(super) cause: Cause,
    pub(super) task: TaskId,
    pub(super) type_id: Option<TypeId>,
    pub(super) tid: Tid,
    pub(super) stack: Option<StackId>,
    pub(super) waker: Option<Tid>,
    pub(super) is_estimated: bool,
    /// For how long its poll had been in progress when it was last observed, if no event says more.
    pub(super) in_progress: Option<i64>,
    pub(super) blamed: PlaceNo,
}

impl Held {
    pub(super) fn end(&self) -> i64 {
        self.ts.saturating_add(self.dur)
    }
}

/// The window's blocking intervals past the thresholds, the longest first.
pub(super) fn intervals(scene: &mut Scene<'_>) -> Vec<Held> {
    let mut all = Vec::new();
    let thresholds = scene.query.thresholds;
    let parts = scene.parts.clone();
    for (_, partial) in parts {
        for sleep in partial.sleeps.items().iter().take_while(|s| s.dur >= thresholds.asleep) {
            if scene.sleeps_on_worker(sleep) {
                let type_id = scene.names.type_of.get(&sleep.task).copied();
                let (ts, dur, tid, task, stack, waker) =
                    (sleep.ts, sleep.dur, sleep.tid, sleep.task, sleep.stack, sleep.waker);
                all.push((Cause::Blocked, ts, dur, tid, task, type_id, stack, waker, false));
            }
        }
        for poll in partial.long_polls.items().iter().take_while(|p| p.dur >= thresholds.long_poll) {
            let type_id = poll.type_id.or(scene.names.type_of.get(&poll.task).copied());
            if poll.busy >= thresholds.long_poll && scene.polls_on_worker(poll) {
                let stack =
                    stack_within(scene, poll.tid, poll.task, type_id, poll.ts, poll.ts.saturating_add(poll.dur));
                all.push((Cause::Cpu, poll.ts, poll.busy, poll.tid, poll.task, type_id, stack, None, false));
            }
        }
    }
    for (tid, task, ts, last, dur) in estimated(scene) {
        let type_id = scene.names.type_of.get(&task).copied();
        let stack = stack_within(scene, tid, task, type_id, ts, last.saturating_add(1));
        if !scene.keeps_worker(tid, type_id, last, scene.is_own(stack)) {
            continue;
        }
        all.push((Cause::Cpu, ts, dur, tid, task, type_id, stack, None, true));
    }
    let names = &mut *scene.names;
    let mut held: Vec<Held> = all
        .into_iter()
        .map(|(cause, ts, dur, tid, task, type_id, stack, waker, is_estimated)| {
            let blamed = names.attribute(stack, type_id);
            Held { ts, dur, cause, task, type_id, tid, stack, waker, is_estimated, in_progress: None, blamed }
        })
        .collect();
    sort(&mut held);
    held
}

/// Sorts intervals by length, the longest first.
pub(super) fn sort(held: &mut [Held]) {
    held.sort_by_key(|h| (Reverse(h.dur), h.ts, h.tid, h.cause, h.task));
}

/// The stack to which a computation is attributed: of the samples of its task on its thread within `[from, to)` those with an
/// own frame first, then those whose place weighs most; of equal ones the least by name, and of one place the least id.
pub(super) fn stack_within(
    scene: &mut Scene<'_>,
    tid: Tid,
    task: TaskId,
    type_id: Option<TypeId>,
    from: i64,
    to: i64,
) -> Option<StackId> {
    let marks = |bucket: &Bucket, marks: &[Mark]| -> Vec<Mark> {
        if bucket.end() <= from || bucket.start() >= to {
            return Vec::new();
        }
        let first = marks.partition_point(|m| m.ts < from);
        let within = marks.iter().skip(first).take_while(|m| m.ts < to);
        within.filter(|m| m.tid == tid && m.task == task).copied().collect()
    };
    let found: Vec<Mark> = scene.parts.iter().flat_map(|(bucket, p)| marks(bucket, p.marks.items())).collect();
    let ids: Vec<StackId> = found.iter().filter_map(|m| m.stack).collect();
    let names = &mut *scene.names;
    names.prepare(ids.into_iter());
    let task_type = type_id.and_then(|id| Some((id, names.types.get(&id)?)));
    let mut piles: Map<PlaceNo, (bool, i64, Option<StackId>)> = Map::default();
    for mark in found {
        let is_own = names.code.walked(mark.stack).is_some_and(|w| w.is_own);
        let pile = piles.entry(names.code.attribute(mark.stack, task_type)).or_insert((is_own, 0, mark.stack));
        pile.1 = pile.1.saturating_add(mark.weight);
        pile.2 = pile.2.min(mark.stack);
    }
    let best = piles.into_iter().max_by(|(a, x), (b, y)| {
        (x.0, x.1, Reverse(names.code.place(*a))).cmp(&(y.0, y.1, Reverse(names.code.place(*b))))
    });
    best.and_then(|(_, (_, _, stack))| stack)
}

/// Computations inferred from samples, in buckets in which polls were not recorded. A task was sampled on a thread at least
/// twice, without a sample of anything else on that thread and without a sleep in between, and the samples represent at least
/// four fifths of the time in between. Each bucket is considered separately. There may be any number of polls in between; the
/// reported duration is a lower bound of their sum: the time between the first sample and the last, less the thread's run-queue
/// latency in the bucket, and at most the time that n - 1 of n samples represent.
fn estimated(scene: &Scene<'_>) -> Vec<(Tid, TaskId, i64, i64, i64)> {
    let threshold = scene.query.thresholds.long_poll;
    let mut found = Vec::new();
    for (bucket, partial) in &scene.parts {
        let sums = &partial.sums;
        if rows(sums, Stream::Polls) > 0 || on(sums, Stream::Polls) > 0 {
            continue;
        }
        let range = |run: &super::Run| run.first.0.zip(run.last.0);
        for ((tid, task), run) in &sums.runs {
            let (Some(task), Some((first, last))) = (*task, range(run)) else { continue };
            let between = last.saturating_sub(first);
            let is_dense = run.weight.saturating_mul(5) >= between.saturating_mul(4);
            if run.samples < 2 || run.weight < threshold || !is_dense {
                continue;
            }
            let waits = sums.away.iter().filter(|((t, _), _)| t == tid).map(|(_, away)| away.waiting);
            let waited = waits.fold(0, i64::saturating_add);
            let periods = run.weight.saturating_mul(run.samples - 1) / run.samples;
            let least = between.saturating_sub(waited).min(periods);
            if least < threshold {
                continue;
            }
            if sums.seen.get(tid).is_some_and(|seen| seen.slept.has_between(*bucket, first, last)) {
                continue;
            }
            let is_alone = sums.runs.iter().all(|((other_tid, other), run)| {
                let apart = range(run).is_none_or(|(f, l)| l < first || f > last);
                other_tid != tid || *other == Some(task) || apart
            });
            let type_id = scene.names.type_of.get(&task).copied();
            let is_held = scene.keeps_worker(*tid, type_id, last, true) && !scene.was_in_place(*tid, first, last);
            if is_alone && is_held && !is_polled(scene, *tid, first, last) {
                found.push((*tid, task, first, last, least));
            }
        }
    }
    found
}

/// Times at which threads were observed inside `block_in_place`.
pub(super) fn in_place(scene: &Scene<'_>) -> BTreeSet<(Tid, i64)> {
    let mut found = BTreeSet::new();
    for (_, partial) in &scene.parts {
        let marks = partial.marks.items().iter().map(|m| (m.tid, m.ts, m.stack));
        let sleeps = partial.sleeps.items().iter().map(|s| (s.tid, s.ts, s.stack));
        found.extend(marks.chain(sleeps).filter(|(.., stack)| scene.is_in_place(*stack)).map(|(tid, ts, _)| (tid, ts)));
    }
    found
}

impl Scene<'_> {
    /// Whether a thread was observed inside `block_in_place` in `[from, to)`.
    pub(super) fn was_in_place(&self, tid: Tid, from: i64, to: i64) -> bool {
        from < to && self.in_place.range((tid, from)..(tid, to)).next().is_some()
    }

    /// Whether a sleep held a worker.
    pub(super) fn sleeps_on_worker(&self, sleep: &Sleep) -> bool {
        let type_id = self.names.type_of.get(&sleep.task).copied();
        let end = sleep.ts.saturating_add(sleep.away);
        !self.is_in_place(sleep.stack) && self.keeps_worker(sleep.tid, type_id, end, self.is_own(sleep.stack))
    }

    /// Whether a poll held its worker throughout.
    pub(super) fn polls_on_worker(&self, poll: &LongPoll) -> bool {
        let type_id = poll.type_id.or(self.names.type_of.get(&poll.task).copied());
        let end = poll.ts.saturating_add(poll.dur);
        self.keeps_worker(poll.tid, type_id, end, true) && !self.was_in_place(poll.tid, poll.ts, end)
    }
}

/// A type's short sleeps.
#[derive(Clone, Copy, Debug, Default)]
struct ShortOf {
    short: Short,
    /// The thread and task that slept most, and how long.
    most: Option<(i64, Reverse<Tid>, Reverse<TaskId>)>,
}

/// Sleeps of a task, each shorter than [`INTERVAL_MIN`](super::INTERVAL_MIN), at a stack.
pub(super) struct ShortRow {
    pub(super) tid: Tid,
    pub(super) task: TaskId,
    pub(super) stack: Option<StackId>,
    pub(super) type_id: Option<TypeId>,
    pub(super) short: Short,
}

/// Short sleeps that held workers.
pub(super) fn short_rows(scene: &Scene<'_>) -> Vec<ShortRow> {
    let mut rows = Vec::new();
    for (_, partial) in &scene.parts {
        for ((tid, task, stack), short) in &partial.sums.short {
            let type_id = scene.names.type_of.get(task).copied();
            let end = short.last.0.unwrap_or(i64::MIN);
            if !scene.is_in_place(*stack) && scene.keeps_worker(*tid, type_id, end, scene.is_own(*stack)) {
                rows.push(ShortRow { tid: *tid, task: *task, stack: *stack, type_id, short: *short });
            }
        }
    }
    rows
}

/// Short sleeps that held workers, by type and attributed place.
fn short_sleeps(scene: &mut Scene<'_>) -> Map<(Option<TypeId>, PlaceNo), ShortOf> {
    let rows = short_rows(scene);
    let names = &mut *scene.names;
    type ByTask = Map<(Tid, TaskId), Short>;
    let mut each: Map<(Option<TypeId>, PlaceNo), ByTask> = Map::default();
    for ShortRow { tid, task, stack, type_id, short } in rows {
        each.entry((type_id, names.attribute(stack, type_id)))
            .or_default()
            .entry((tid, task))
            .or_default()
            .merge(&short);
    }
    let sum = |of: ByTask| {
        let mut all = ShortOf::default();
        for ((tid, task), short) in of {
            all.short.merge(&short);
            all.most = all.most.max(Some((short.asleep, Reverse(tid), Reverse(task))));
        }
        all
    };
    each.into_iter().map(|(key, of)| (key, sum(of))).collect()
}

/// Whether a long poll of the window covers this: then it is known, not estimated.
fn is_polled(scene: &Scene<'_>, tid: Tid, first: i64, last: i64) -> bool {
    let over = |p: &LongPoll| p.tid == tid && p.ts <= last && p.ts.saturating_add(p.dur) >= first;
    scene.parts.iter().any(|(_, partial)| partial.long_polls.items().iter().any(over))
}

/// The rows of the panel.
pub(super) fn of(scene: &mut Scene<'_>, intervals: &[Held]) -> Blocking {
    let mut newest: Vec<&Held> = intervals.iter().collect();
    newest.sort_by_key(|h| (Reverse(h.end()), h.ts, h.tid, h.cause, h.task));
    let left_out = |p: &super::Partial| p.sleeps.left_out().saturating_add(p.long_polls.left_out());
    Blocking {
        culprits: culprits(scene, intervals),
        newest: newest.into_iter().take(MOST_ROWS).map(|held| interval(scene, held)).collect(),
        worst: intervals.iter().take(MOST_ROWS).map(|held| interval(scene, held)).collect(),
        count: i64::try_from(intervals.len()).unwrap_or(i64::MAX),
        total: intervals.iter().fold(0, |sum, h| sum.saturating_add(h.dur)),
        left_out: scene.parts.iter().fold(0, |sum, (_, p)| sum.saturating_add(left_out(p))),
    }
}

/// A blocking interval with its names.
pub(super) fn interval(scene: &Scene<'_>, held: &Held) -> BlockingInterval {
    let code = &scene.names.code;
    let frames = code.walked(held.stack).map(|w| w.frames.as_slice()).unwrap_or_default();
    let thread = scene.names.threads.get(&held.tid);
    BlockingInterval {
        ts: held.ts,
        dur: held.dur,
        cause: held.cause,
        task: super::TaskRef { id: held.task, task_type: scene.type_ref(held.type_id) },
        tid: held.tid,
        worker: thread.and_then(|t| Some((t.runtime, t.worker?))),
        place: place(scene, held.blamed),
        stack: frames.iter().take(SHOWN_FRAMES).filter_map(|no| code.place(*no)).cloned().collect(),
        stack_id: held.stack,
        waker: held.waker.map(|tid| waker(scene, Some(tid), None)),
        in_progress: held.in_progress,
        is_estimated: held.is_estimated,
    }
}

pub(super) fn waker(scene: &Scene<'_>, tid: Option<Tid>, task: Option<TaskId>) -> Waker {
    let thread = tid.and_then(|tid| scene.names.threads.get(&tid)).map(|t| t.name.clone());
    Waker { tid, thread, task: task.map(|id| scene.task_ref(id)) }
}

pub(super) fn place(scene: &Scene<'_>, no: PlaceNo) -> Place {
    scene.names.code.place(no).cloned().unwrap_or_else(|| Place {
        function: "<unknown>".into(),
        file: None,
        line: None,
        origin: super::Origin::Unknown,
    })
}

/// A row for each cause, type and line that sleeps, or function that computes. Estimated computations have rows of their own,
/// as have short sleeps whose sum exceeds the minimum of computations.
fn culprits(scene: &mut Scene<'_>, intervals: &[Held]) -> Vec<Culprit> {
    let least = scene.query.thresholds.long_poll;
    let short = short_sleeps(scene);
    let scene = &*scene;
    let short = short.into_iter().filter(|(_, of)| of.short.asleep >= least);
    let short: Vec<Culprit> = short
        .map(|((type_id, at), ShortOf { short, most })| Culprit {
            cause: Cause::ShortSleeps,
            place: place(scene, at),
            task_type: scene.type_ref(type_id),
            count: short.sleeps,
            total: short.asleep,
            median: short.asleep / short.sleeps.max(1),
            longest: short.longest,
            in_progress: None,
            jump: Jump {
                task: most.map(|(.., Reverse(task))| task),
                task_type: type_id,
                tid: most.map(|(_, Reverse(tid), _)| tid),
                ts: None,
            },
            is_estimated: short.summed > 0,
        })
        .collect();
    #[derive(PartialEq, Eq, Hash)]
    enum At {
        Line(PlaceNo),
        Function(SpotNo),
    }
    let code = &scene.names.code;
    // The longest of each group is first.
    let mut groups: Map<(Cause, bool, Option<TypeId>, At), Vec<&Held>> = Map::default();
    for held in intervals {
        let at = match held.cause {
            Cause::Cpu => At::Function(code.spot(held.blamed)),
            _ => At::Line(held.blamed),
        };
        groups.entry((held.cause, held.is_estimated, held.type_id, at)).or_default().push(held);
    }
    let mut rows: Vec<Culprit> = groups
        .into_iter()
        .filter_map(|((cause, is_estimated, type_id, _), held)| {
            let longest = held.first()?;
            let median = held.get(held.len() / 2)?;
            Some(Culprit {
                cause,
                place: place(scene, longest.blamed),
                task_type: scene.type_ref(type_id),
                count: i64::try_from(held.len()).unwrap_or(i64::MAX),
                total: held.iter().fold(0, |sum, h| sum.saturating_add(h.dur)),
                median: median.dur,
                longest: longest.dur,
                in_progress: held.iter().filter_map(|h| h.in_progress).max(),
                jump: Jump {
                    task: Some(longest.task),
                    task_type: type_id,
                    tid: Some(longest.tid),
                    ts: Some(longest.ts),
                },
                is_estimated,
            })
        })
        .chain(short)
        .collect();
    rows.sort_by(|a, b| {
        let key = |c: &Culprit| (c.cause, c.is_estimated);
        (b.total, key(a), &a.place, &a.task_type).cmp(&(a.total, key(b), &b.place, &b.task_type))
    });
    rows.truncate(MOST_ROWS);
    rows
}
