//! Threads: load of workers and of the blocking pool, their current activity, and the lanes of the timeline.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use hud_wire::Stream;

use super::{
    Bucket, INTERVAL_MIN, Lane, Load, MOST_SPANS_PER_LANE, Map, Merge as _, Now, Partial, Pool, Role, Runtime,
    RuntimeId, Sleep, Span, SpanKind, Step, TaskId, TaskKind, Tid, Timeline, TypeId, Worker, Workers,
    index_cache::{IndexCache, number_of, number_of_thread},
    partial::clipped,
    scene::{Polled, Scene, Seat, observed},
};

/// Maximum age of a sample that shows the current activity: two periods at 99 Hz and the delay of rows (ns).
const JUST_NOW: i64 = 150_000_000;

/// The activity of each thread observed in the window.
pub(super) fn seats(scene: &Scene<'_>) -> BTreeMap<Tid, Seat> {
    let mut seats: BTreeMap<Tid, Seat> = BTreeMap::new();
    for (tid, seen) in &scene.total.seen {
        seats.entry(*tid).or_default().seen = *seen;
    }
    for (bucket, partial) in &scene.parts {
        for ((tid, task), away) in &partial.sums.away {
            let in_task = scene.is_in_task(*tid, *task);
            let (asleep, idle) = if in_task { (away.asleep, 0) } else { (0, away.asleep) };
            let all = seats.entry(*tid).or_default().away.entry(*bucket).or_default();
            all.0 = all.0.saturating_add(asleep);
            all.1 = all.1.saturating_add(away.waiting);
            all.2 = all.2.saturating_add(idle);
        }
    }
    for sleep in scene.parts.iter().flat_map(|(_, partial)| partial.sleeps.items()) {
        if !scene.is_apart(sleep) {
            continue;
        }
        let until = sleep.ts.saturating_add(sleep.dur);
        let Some(seat) = seats.get_mut(&sleep.tid) else { continue };
        for (bucket, (asleep, _, idle)) in seat.away.range_mut(Bucket::of(sleep.ts)..=Bucket::of(until)) {
            let part = clipped(*bucket, sleep.ts, until).min(*asleep);
            *asleep = asleep.saturating_sub(part);
            *idle = idle.saturating_add(part);
        }
    }
    for ((tid, type_id), polls) in &scene.total.polls {
        if scene.names.kind_of_type(*type_id) == TaskKind::Worker {
            continue;
        }
        let seat = seats.entry(*tid).or_default();
        seat.polls = seat.polls.saturating_add(polls.count);
        seat.polling = seat.polling.saturating_add(polls.dur);
        seat.longest = seat.longest.max(polls.longest);
    }
    for ((tid, task), run) in &scene.total.runs {
        let seat = seats.entry(*tid).or_default();
        let task = task.filter(|task| scene.names.kind(*task) != TaskKind::Worker);
        seat.sampled = seat.sampled.max(run.last.0.map(|ts| (ts, task)));
    }
    seats
}

impl Scene<'_> {
    /// Whether a thread's sleep was inside a task. Inside only its own loop, a worker is outside a task; a task of unknown type
    /// may be its loop.
    pub(super) fn is_in_task(&self, tid: Tid, task: Option<TaskId>) -> bool {
        match task.map(|task| self.names.type_of.get(&task).and_then(|id| self.names.types.get(id))) {
            None => false,
            Some(None) => !self.names.was_worker(tid),
            Some(Some(of)) => of.kind != TaskKind::Worker,
        }
    }

    /// Whether a sleep of a worker's thread was inside `block_in_place`: another thread had its worker then.
    pub(super) fn is_apart(&self, sleep: &Sleep) -> bool {
        let end = sleep.ts.saturating_add(sleep.away).min(self.window.end().saturating_sub(1));
        let is_apart = self.is_in_place(sleep.stack) || self.names.is_handed(sleep.tid, end);
        // On a worker's thread, a sleep in a task of unknown type is idle time already.
        let task_type = self.names.type_of.get(&sleep.task).and_then(|id| self.names.types.get(id));
        let is_task = task_type.is_some_and(|t| t.kind == TaskKind::Task);
        is_apart && self.role(sleep.tid) == Role::Worker && is_task
    }
}

fn worker(scene: &Scene<'_>, tid: Tid, seat: Option<&Seat>) -> Worker {
    let thread = scene.names.threads.get(&tid);
    let polls_watched = scene.rows(Stream::Polls) > 0 || scene.total.coverage.contains_key(Stream::Polls.name());
    let seat = seat.cloned().unwrap_or_default();
    Worker {
        tid,
        name: thread.map_or_else(|| "".into(), |t| t.name.clone()),
        worker: thread.and_then(|t| t.worker),
        load: seat.load(),
        polls: polls_watched.then_some(seat.polls),
        polling: seat.polling,
        longest_poll: (seat.polls > 0).then_some(seat.longest),
        last_seen: seat.seen.last.0,
        now: now(scene, tid, &seat),
    }
}

fn now(scene: &Scene<'_>, tid: Tid, seat: &Seat) -> Now {
    if let Some(poll) = scene.progress.on(tid) {
        let (task, lasted, state) = (scene.task_ref(poll.task), poll.lasted, poll.state);
        return Now::InProgress { task, lasted, state };
    }
    let Some(last) = seat.seen.last.0 else { return Now::Unseen };
    let settled = seat.seen.poll_end.0.max(seat.seen.returned.0);
    match seat.sampled {
        Some((ts, task)) if Some(ts) >= settled && scene.at.saturating_sub(ts) <= JUST_NOW => {
            let since = settled.unwrap_or(ts);
            match task {
                Some(task) => Now::Polling { task: scene.task_ref(task), since },
                None => Now::Running { since },
            }
        }
        _ => Now::Quiet { since: last },
    }
}

/// Workers by runtime, and the pool.
pub(super) fn workers(scene: &Scene<'_>) -> Workers {
    let mut runtimes: Vec<Runtime> = Vec::new();
    let (mut pool, mut others) = (Pool::default(), 0);
    let mut known: Vec<Tid> =
        scene.names.threads.iter().filter(|(_, t)| t.role == Role::Worker).map(|(t, _)| *t).collect();
    known.extend(scene.threads.keys().filter(|tid| scene.role(**tid) != Role::Worker));
    known.sort_unstable();
    for tid in known {
        let seat = scene.threads.get(&tid);
        match scene.role(tid) {
            Role::Worker => {
                let id = scene.names.threads.get(&tid).and_then(|t| t.runtime);
                // A worker that has exited is not shown for ever.
                if seat.is_none() && scene.names.threads.get(&tid).is_some_and(|t| t.is_gone) {
                    continue;
                }
                let worker = worker(scene, tid, seat);
                match runtimes.iter_mut().find(|r| r.id == id) {
                    Some(runtime) => runtime.workers.push(worker),
                    None => runtimes.push(Runtime { id, workers: vec![worker] }),
                }
            }
            Role::Blocking => {
                let worker = worker(scene, tid, seat);
                pool.threads += 1;
                pool.load.add(&worker.load);
                pool.workers.push(worker);
            }
            Role::Other => others += 1,
        }
    }
    let last_if_none = |id: Option<RuntimeId>| (id.is_none(), id);
    runtimes.sort_by_key(|r| last_if_none(r.id));
    for runtime in &mut runtimes {
        runtime.workers.sort_by_key(|w| (w.worker.is_none(), w.worker, w.tid));
        runtime.workers.truncate(super::MOST_ROWS);
    }
    let work = |load: &Load| load.observed().saturating_sub(load.idle);
    pool.workers.sort_by_key(|w| (Reverse(work(&w.load)), w.tid));
    pool.workers.truncate(super::MOST_ROWS);
    Workers { runtimes, pool, others }
}

/// A lane per worker, and per thread of the pool that was not idle throughout.
pub(super) fn timeline(scene: &Scene<'_>) -> Timeline {
    let mut lanes: BTreeMap<Tid, Lane> = BTreeMap::new();
    let mut steps = steps(scene);
    for (tid, seat) in &scene.threads {
        let role = scene.role(*tid);
        let is_idle = role == Role::Blocking && seat.load().observed() == seat.load().idle;
        if role == Role::Other || is_idle {
            continue;
        }
        let thread = scene.names.threads.get(tid);
        lanes.insert(
            *tid,
            Lane {
                tid: *tid,
                name: thread.map_or_else(|| "".into(), |t| t.name.clone()),
                role,
                runtime: thread.and_then(|t| t.runtime),
                worker: thread.and_then(|t| t.worker),
                steps: steps.swap_remove(tid).unwrap_or_default(),
                spans: Vec::new(),
                left_out: 0,
            },
        );
    }
    spans(scene, &mut lanes);
    let mut lanes: Vec<_> = lanes.into_values().collect();
    lanes.sort_by_key(|l| (l.role, l.runtime.is_none(), l.runtime, l.worker.is_none(), l.worker, l.tid));
    lanes.truncate(super::MOST_ROWS);
    Timeline { lanes, span_min: INTERVAL_MIN }
}

/// The polls of each bucket.
pub(super) fn polled(scene: &Scene<'_>) -> Vec<Polled> {
    let (mut kinds, mut of_type, mut of_thread) = (Map::default(), IndexCache::new(8), IndexCache::new(8));
    let bucket = |(_, partial): &(Bucket, &Partial)| {
        let mut polled = Polled::default();
        for ((tid, type_id), polls) in &partial.sums.polls {
            let kind: &mut Option<TaskKind> = of_type.of(&mut kinds, *type_id, number_of(*type_id));
            let kind = *kind.get_or_insert_with(|| scene.names.kind_of_type(*type_id));
            if kind == TaskKind::Worker {
                continue;
            }
            if kind == TaskKind::Task {
                polled.tasks.add(polls);
            }
            let of = of_thread.of(&mut polled.threads, *tid, number_of_thread(*tid));
            of.add(polls);
            of.most = of.most.max(type_id.map(|id| (polls.dur, Reverse(id))));
        }
        polled
    };
    scene.parts.iter().map(bucket).collect()
}

/// The steps of each thread, with the type of task by polls, else by samples.
fn steps(scene: &Scene<'_>) -> Map<Tid, Vec<Step>> {
    let is_loop = |id: Option<TypeId>| scene.names.kind_of_type(id) == TaskKind::Worker;
    let mut steps: Map<Tid, Vec<Step>> = Map::default();
    let recorded: BTreeSet<Bucket> = scene.parts.iter().map(|(bucket, _)| *bucket).collect();
    for ((bucket, partial), polled) in scene.parts.iter().zip(&scene.polled) {
        let mut sampled: Map<(Tid, TypeId), i64> = Map::default();
        for ((tid, task), run) in &partial.sums.runs {
            let id = task.and_then(|task| scene.names.type_of.get(&task)).filter(|id| !is_loop(Some(**id)));
            if let Some(id) = id {
                sampled.entry((*tid, *id)).or_default().merge(&run.weight);
            }
        }
        let mut most_sampled: Map<Tid, (i64, Reverse<TypeId>)> = Map::default();
        for ((tid, id), weight) in sampled {
            let most = most_sampled.entry(tid).or_insert((weight, Reverse(id)));
            *most = (weight, Reverse(id)).max(*most);
        }
        for (tid, seat) in &scene.threads {
            let (first, last) = seat.range();
            if observed(*bucket, first, last) == 0 {
                continue;
            }
            let sum = polled.threads.get(tid).copied().unwrap_or_default();
            let most = sum.most.or(most_sampled.get(tid).copied());
            steps.entry(*tid).or_default().push(Step {
                ts: bucket.start(),
                load: seat.step(*bucket),
                polls: sum.count,
                longest_poll: sum.longest,
                task_type: scene.type_ref(most.map(|(_, Reverse(id))| id)),
            });
        }
    }
    // A thread that stays where it is has no rows of its own in most buckets.
    for part in scene.progress.sleeps.iter().chain(&scene.progress.polls) {
        let Some(seat) = scene.threads.get(&part.tid) else { continue };
        let of = steps.entry(part.tid).or_default();
        of.extend(part.buckets().filter(|bucket| !recorded.contains(bucket)).map(|bucket| Step {
            ts: bucket.start(),
            load: seat.step(bucket),
            polls: 0,
            longest_poll: 0,
            task_type: scene.type_ref(part.type_id),
        }));
        of.sort_by_key(|step| step.ts);
        of.dedup_by_key(|step| step.ts);
    }
    steps
}

fn spans(scene: &Scene<'_>, lanes: &mut BTreeMap<Tid, Lane>) {
    // Each lane keeps the longest, and each bucket has them longest first.
    let mut add = |tid: Tid, span: Span| {
        if let Entry::Occupied(mut lane) = lanes.entry(tid) {
            lane.get_mut().spans.push(span);
        }
    };
    for (_, partial) in &scene.parts {
        for poll in partial.long_polls.items() {
            if scene.names.kind_of_type(poll.type_id) == TaskKind::Worker {
                continue;
            }
            let is_long = poll.held > scene.query.thresholds.long_poll && scene.polls_on_worker(poll);
            let task = scene.task_ref(poll.task);
            add(poll.tid, Span { ts: poll.ts, dur: poll.dur, kind: SpanKind::Poll, task, is_long });
        }
        for sleep in partial.sleeps.items() {
            if scene.names.kind(sleep.task) == TaskKind::Worker {
                continue;
            }
            let task = scene.task_ref(sleep.task);
            let waited = sleep.away.saturating_sub(sleep.dur);
            if waited >= INTERVAL_MIN {
                let (ts, task) = (sleep.ts.saturating_add(sleep.dur), task.clone());
                add(sleep.tid, Span { ts, dur: waited, kind: SpanKind::Waiting, task, is_long: false });
            }
            add(sleep.tid, Span { ts: sleep.ts, dur: sleep.dur, kind: SpanKind::Asleep, task, is_long: false });
        }
    }
    for (parts, kind) in [(&scene.progress.sleeps, SpanKind::Asleep), (&scene.progress.polls, SpanKind::Poll)] {
        for part in parts {
            let dur = part.end.saturating_sub(part.ts);
            add(
                part.tid,
                Span { ts: part.ts, dur, kind, task: scene.task_ref(part.task), is_long: kind == SpanKind::Poll },
            );
        }
    }
    for lane in lanes.values_mut() {
        lane.spans.sort_by_key(|s| (Reverse(s.dur), s.ts, s.kind, s.task.id));
        lane.left_out = i64::try_from(lane.spans.len().saturating_sub(MOST_SPANS_PER_LANE)).unwrap_or(i64::MAX);
        lane.spans.truncate(MOST_SPANS_PER_LANE);
        lane.spans.sort_by_key(|s| (s.ts, Reverse(s.dur), s.kind, s.task.id));
    }
}
