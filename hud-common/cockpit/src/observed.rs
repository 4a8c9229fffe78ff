//! Reads the observations of polls in progress. A sleep and a poll have a row only once they have ended, so what a thread has
//! done since then, or since before the recording, is known only from the observations in `in_progress`. They count up to the
//! last observation, with their part in the window.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Bucket, Cause, InProgress, PollState, Role, TaskId, TaskKind, Tid,
    blocking::{self, Held},
    partial::clipped,
    progress::{Part, Progress, TaskPart},
    scene::{Ongoing, Scene},
};

/// Adds to the scene what its events do not say.
///
/// Returns whether there was anything to add.
pub(super) fn add_to(scene: &mut Scene<'_>) -> bool {
    let observed = observed(scene);
    if observed.is_empty() {
        return false;
    }
    let mut progress = Progress { now: now(scene), ..read(scene, &observed) };
    for sleep in &progress.sleeps {
        let is_apart = scene.is_in_place(sleep.stack) || scene.names.is_handed(sleep.tid, sleep.end);
        let kind = sleep.type_id.and_then(|id| scene.names.types.get(&id)).map(|of| of.kind);
        // On a worker's thread, a sleep in a task of unknown type is idle time.
        let is_idle = match kind {
            Some(kind) => kind == TaskKind::Worker || (is_apart && scene.role(sleep.tid) == Role::Worker),
            None => scene.names.was_worker(sleep.tid),
        };
        let seat = scene.threads.entry(sleep.tid).or_default();
        seat.seen.first.add(sleep.ts);
        seat.seen.last.add(sleep.end);
        seat.sleeps.push(Ongoing { ts: sleep.ts, end: sleep.end, is_idle });
    }
    for poll in &mut progress.polls {
        let seat = scene.threads.entry(poll.tid).or_default();
        seat.seen.first.add(poll.ts);
        seat.seen.last.add(poll.end);
        let buckets = seat.away.range(Bucket::of(poll.ts)..=Bucket::of(poll.end));
        let off = buckets.map(|(bucket, (asleep, waiting, idle))| {
            asleep.saturating_add(*waiting).saturating_add(*idle).min(clipped(*bucket, poll.ts, poll.end))
        });
        let slept =
            seat.sleeps.iter().map(|sleep| sleep.end.min(poll.end).saturating_sub(sleep.ts.max(poll.ts)).max(0));
        let away = off.chain(slept).fold(0, i64::saturating_add);
        poll.busy = poll.dur().saturating_sub(away).max(0);
    }
    let mut tasks: BTreeMap<TaskId, TaskPart> = BTreeMap::new();
    for part in progress.sleeps.iter().chain(&progress.polls) {
        let of = tasks.entry(part.task).or_default();
        of.busy = of.busy.saturating_add(part.busy);
        let (first, last) = of.range.unwrap_or((part.ts, part.end));
        of.range = Some((first.min(part.ts), last.max(part.end)));
    }
    for sleep in &progress.sleeps {
        let of = tasks.entry(sleep.task).or_default();
        of.blocked = of.blocked.saturating_add(sleep.dur());
    }
    for poll in progress.now.values() {
        let of = tasks.entry(poll.task).or_default();
        of.lasted = of.lasted.max(Some(poll.lasted));
    }
    progress.tasks = tasks;
    scene.progress = progress;
    true
}

/// Observations in the window, each certainly of one poll.
fn observed(scene: &Scene<'_>) -> Vec<InProgress> {
    let rows = scene.parts.iter().flat_map(|(_, partial)| partial.in_progress.items());
    rows.filter(|poll| !poll.has_ended && !poll.is_estimated && poll.lasted > 0).copied().collect()
}

/// The last observation of each thread, unless the poll has ended since.
fn now(scene: &Scene<'_>) -> BTreeMap<Tid, InProgress> {
    let mut newest = scene.last_observed();
    newest.retain(|tid, poll| {
        let seen = scene.total.seen.get(tid).copied().unwrap_or_default();
        // A thread that was asleep has left the poll's sleep; one that was not may have been preempted since.
        let event = if poll.state == PollState::Blocked { seen.returned.0 } else { seen.poll_end.0 };
        !poll.has_ended && !poll.is_estimated && event.is_none_or(|event| event <= poll.ts)
    });
    newest
}

fn read(scene: &Scene<'_>, observed: &[InProgress]) -> Progress {
    let threads: BTreeSet<Tid> = observed.iter().map(|poll| poll.tid).collect();
    let mut events: BTreeMap<Tid, Vec<i64>> = BTreeMap::new();
    let mut slept: BTreeMap<Tid, Vec<(i64, i64)>> = BTreeMap::new();
    let mut polled: BTreeMap<(Tid, TaskId), Vec<(i64, i64)>> = BTreeMap::new();
    for (_, partial) in &scene.parts {
        let sums = &partial.sums;
        for tid in &threads {
            if let Some(end) = sums.seen.get(tid).and_then(|seen| seen.returned.0) {
                events.entry(*tid).or_default().push(end);
            }
        }
        for ((tid, _), run) in sums.runs.iter().filter(|((tid, _), _)| threads.contains(tid)) {
            events.entry(*tid).or_default().extend(run.last.0);
        }
        for sleep in partial.sleeps.items().iter().filter(|sleep| threads.contains(&sleep.tid)) {
            slept.entry(sleep.tid).or_default().push((sleep.ts, sleep.ts.saturating_add(sleep.away)));
        }
        for poll in partial.long_polls.items().iter().filter(|poll| threads.contains(&poll.tid)) {
            polled.entry((poll.tid, poll.task)).or_default().push((poll.ts, poll.ts.saturating_add(poll.dur)));
        }
    }
    events.values_mut().for_each(|of| of.sort_unstable());
    slept.values_mut().chain(polled.values_mut()).for_each(|of| of.sort_unstable());
    // Intervals of one thread do not overlap.
    let covers = |of: Option<&Vec<(i64, i64)>>, ts: i64| {
        let of = of.map(Vec::as_slice).unwrap_or_default();
        let before = of.partition_point(|(from, _)| *from <= ts);
        before.checked_sub(1).and_then(|at| of.get(at)).is_some_and(|(_, end)| *end >= ts)
    };
    let start = scene.window.start();
    let mut sleeps: BTreeMap<(Tid, TaskId, i64, i64), Part> = BTreeMap::new();
    let mut polls: BTreeMap<(Tid, TaskId, i64), Part> = BTreeMap::new();
    for poll in observed {
        let begin = poll.ts.saturating_sub(poll.lasted);
        let type_id = poll.type_id.or(scene.names.type_of.get(&poll.task).copied());
        if poll.state == PollState::Blocked && !covers(slept.get(&poll.tid), poll.ts) {
            let of = events.get(&poll.tid).map(Vec::as_slice).unwrap_or_default();
            let before = of.partition_point(|event| *event <= poll.ts);
            let last = before.checked_sub(1).and_then(|at| of.get(at)).copied();
            let from = begin.max(last.unwrap_or(begin)).max(start);
            let part = Part::of(poll, type_id, from);
            sleeps.entry((poll.tid, poll.task, begin, from)).or_insert(part).add(&part);
        }
        if !covers(polled.get(&(poll.tid, poll.task)), poll.ts) {
            let part = Part::of(poll, type_id, begin.max(start));
            polls.entry((poll.tid, poll.task, begin)).or_insert(part).add(&part);
        }
    }
    Progress {
        sleeps: sleeps.into_values().filter(|part| part.dur() > 0).collect(),
        polls: polls.into_values().filter(|part| part.has_run && part.dur() > 0).collect(),
        ..Progress::default()
    }
}

/// The parts of polls in progress that hold workers past the thresholds, as intervals, the longest first.
pub(super) fn intervals(scene: &mut Scene<'_>) -> Vec<Held> {
    let thresholds = scene.query.thresholds;
    let mut all = Vec::new();
    for sleep in scene.progress.sleeps.iter().filter(|part| part.dur() >= thresholds.asleep) {
        let is_held = scene.keeps_worker(sleep.tid, sleep.type_id, sleep.end, scene.is_own(sleep.stack));
        if is_held && !scene.is_in_place(sleep.stack) {
            all.push((Cause::Blocked, *sleep, sleep.dur(), sleep.stack));
        }
    }
    let polls: Vec<Part> = scene.progress.polls.clone();
    for poll in polls.into_iter().filter(|part| part.busy >= thresholds.long_poll) {
        let is_in_place = scene.is_in_place(poll.stack) || scene.was_in_place(poll.tid, poll.ts, poll.end);
        if !is_in_place && scene.keeps_worker(poll.tid, poll.type_id, poll.end, true) {
            let stack = blocking::stack_within(scene, poll.tid, poll.task, poll.type_id, poll.ts, poll.end);
            all.push((Cause::Cpu, poll, poll.busy, stack.or(poll.stack)));
        }
    }
    let held = all.into_iter().map(|(cause, part, dur, stack)| {
        let Part { ts, tid, task, type_id, lasted, .. } = part;
        let blamed = scene.names.attribute(stack, type_id);
        let (waker, in_progress, is_estimated) = (None, Some(lasted), false);
        Held { ts, dur, cause, task, type_id, tid, stack, waker, is_estimated, in_progress, blamed }
    });
    held.collect()
}
