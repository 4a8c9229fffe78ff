//! The rules: detected problems, with severity and evidence, over the partial aggregates of a time range.
//!
//! The only implementation of the rules: the cockpit, the recorder and `hud-analyze findings` all run it. A rule reports only
//! where the streams that it needs were recorded; none of them treats the absence of rows as evidence.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use hud_units::{duration, round_duration, share as percent};

use super::{
    Cause, Coverage, Distribution, Finding, Histogram, InProgress, Jump, MOST_ROWS, Map, Merge as _, Place, PollState,
    PollSums, Role, Rule, StackId, Status, TaskId, TaskKind, Thread, Tid, TypeId, Value, Worker, Workers,
    blocking::{Held, place, stack_within},
    code::PlaceNo,
    deadlocks, endings, growth, lock_owners,
    scene::{self, Scene},
    sentence::{code, evidence, name_of},
    short_sleeps, storms,
};
use crate::wire::Stream;

pub(super) fn findings(
    scene: &mut Scene<'_>,
    intervals: &[Held],
    workers: &Workers,
    coverage: &Coverage,
) -> Vec<Finding> {
    let mut found = stuck(scene);
    found.extend(deadlocks::findings(scene));
    found.extend(long_polls(scene, intervals));
    found.extend(cpu_shares(scene));
    found.extend(short_sleeps::findings(scene));
    found.extend(cpu_starved(scene));
    found.extend(wake_delay(scene, workers));
    for runtime in &workers.runtimes {
        found.extend(runtime.workers.iter().filter_map(|worker| blocked(scene, worker, intervals)));
        found.extend(imbalance(scene, &runtime.workers));
    }
    found.extend(pool(scene, workers));
    found.extend(growth::tasks(scene, coverage));
    found.extend(growth::resources(scene));
    found.extend(endings::findings(scene));
    found.extend(storms::self_waking(scene));
    found.extend(storms::waking(scene, coverage));
    found.extend(storms::spawning(scene, workers, coverage));
    found.extend(lock_owners::findings(scene));
    // The first evidence is the figure that the rule compared with its threshold.
    let weight = |f: &Finding| f.evidence.first().map(|e| e.value);
    found.sort_by(|a, b| {
        (b.severity, a.rule, weight(b), &a.sentence).cmp(&(a.severity, b.rule, weight(a), &b.sentence))
    });
    found.truncate(MOST_ROWS);
    found
}

/// Polls in progress past the threshold, of which it is certain that they are single polls, by state, type and place.
fn stuck(scene: &mut Scene<'_>) -> Vec<Finding> {
    let least = scene.query.thresholds.stuck;
    let newest = scene.last_observed();
    let mut groups: BTreeMap<(Rule, Option<TypeId>, Place), Vec<InProgress>> = BTreeMap::new();
    // A thread that waits for a CPU is held up by others, unless it has computed for that long meanwhile.
    let is_held = |p: &InProgress| {
        let has_computed = || computed(scene, p) > least;
        !p.has_ended && !p.is_estimated && (p.state != PollState::Runnable || has_computed())
    };
    let held: Vec<InProgress> = newest.into_values().filter(|p| p.lasted > least && is_held(p)).collect();
    for poll in held {
        let type_id = poll.type_id.or(scene.names.type_of.get(&poll.task).copied());
        let begin = poll.ts.saturating_sub(poll.lasted);
        let stack = match poll.state {
            PollState::Blocked => poll.stack,
            _ => stack_within(scene, poll.tid, poll.task, type_id, begin, poll.ts).or(poll.stack),
        };
        let is_in_place = scene.is_in_place(poll.stack) || scene.was_in_place(poll.tid, begin, poll.ts);
        // A call of `block_in_place` shows in the names of functions, which come later than the poll, or in another thread
        // having the worker's core.
        let is_known =
            scene.role(poll.tid) == Role::Worker || poll.stack.is_some_and(|id| scene.names.code.is_whole(id));
        if is_in_place || !is_known || !scene.keeps_worker(poll.tid, type_id, poll.ts, scene.is_own(stack)) {
            continue;
        }
        let number = scene.names.attribute(stack, type_id);
        let rule = if poll.state == PollState::Blocked { Rule::StuckThread } else { Rule::StuckPoll };
        groups.entry((rule, type_id, place(scene, number))).or_default().push(poll);
    }
    let found = groups.into_iter().filter_map(|((rule, type_id, place), polls)| {
        let longest = polls.iter().max_by_key(|p| (p.lasted, Reverse(p.tid)))?;
        let count = i64::try_from(polls.len()).unwrap_or(i64::MAX);
        let does = if longest.state == PollState::Blocked { "asleep" } else { "computing" };
        let who = match count {
            1 => format!("{} has been in one poll", thread_name(scene, longest.tid)),
            _ => format!("{count} threads have been in one poll each"),
        };
        let lasts = match longest.since {
            Some(_) => format!("for {}", duration(longest.lasted)),
            None => format!("since before the attach, at least {}", duration(longest.lasted)),
        };
        Some(Finding {
            rule,
            severity: Status::Warning,
            sentence: format!("{who} of {} {lasts}, {does} in {}", name_of(scene, type_id), code(&place)),
            evidence: std::vec![
                evidence("lasts", Value::Nanos(longest.lasted), Some(Value::Nanos(least))),
                evidence("polls", Value::Count(count), None),
            ],
            place: Some(place),
            count: Some(count),
            total: Some(polls.iter().fold(0, |sum, p| sum.saturating_add(p.lasted))),
            jump: Jump { task: Some(longest.task), task_type: type_id, tid: Some(longest.tid), ts: longest.since },
            is_estimated: false,
        })
    });
    found.collect()
}

/// The CPU time of a poll in progress by its samples: of n samples, n - 1 count.
fn computed(scene: &Scene<'_>, poll: &InProgress) -> i64 {
    let begin = poll.ts.saturating_sub(poll.lasted);
    let marks = scene.parts.iter().flat_map(|(_, partial)| partial.marks.items());
    let of = marks.filter(|m| m.tid == poll.tid && m.task == poll.task && (begin..poll.ts).contains(&m.ts));
    let (count, sum) = of.fold((0_i64, 0_i64), |(count, sum), m| (count + 1, sum.saturating_add(m.weight)));
    sum.saturating_mul(count.saturating_sub(1)) / count.max(1)
}

/// A thread for a sentence: `worker 0 (4711)`.
fn thread_name(scene: &Scene<'_>, tid: Tid) -> String {
    match scene.names.threads.get(&tid) {
        Some(Thread { worker: Some(number), .. }) => format!("worker {number} ({tid})"),
        Some(Thread { role: Role::Worker, .. }) => format!("worker thread {tid}"),
        _ => format!("thread {tid}"),
    }
}

/// Tasks that took much of a worker's time while polls were not recorded, by samples. The number of polls is unknown.
fn cpu_shares(scene: &mut Scene<'_>) -> Vec<Finding> {
    let thresholds = scene.query.thresholds;
    let mut runs: BTreeMap<(Tid, TaskId), super::Run> = BTreeMap::new();
    let mut time = 0_i64;
    for (_, partial) in &scene.parts {
        let sums = &partial.sums;
        if scene::rows(sums, Stream::Polls) > 0 || scene::on(sums, Stream::Polls) > 0 {
            continue;
        }
        time = time.saturating_add(super::Bucket::NANOS);
        for ((tid, task), run) in &sums.runs {
            if let Some(task) = task {
                runs.entry((*tid, *task)).or_default().merge(run);
            }
        }
    }
    if time < thresholds.observed || time == 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for ((tid, task), run) in runs {
        let weight = run.weight.saturating_mul(run.samples.saturating_sub(1)) / run.samples.max(1);
        let share = weight.saturating_mul(1000) / time;
        let worker = match scene.names.threads.get(&tid).filter(|t| t.role == Role::Worker) {
            Some(Thread { worker: Some(number), .. }) => format!("worker {number}"),
            Some(_) => format!("worker thread {tid}"),
            None => continue,
        };
        let type_id = scene.names.type_of.get(&task).copied();
        let is_task = type_id.and_then(|id| scene.names.types.get(&id)).is_some_and(|t| t.kind == TaskKind::Task);
        if share <= thresholds.cpu_share || !is_task {
            continue;
        }
        let stack = stack_within(scene, tid, task, type_id, scene.window.start(), scene.window.end());
        let number = scene.names.attribute(stack, type_id);
        let place = place(scene, number);
        found.push(Finding {
            rule: Rule::CpuShare,
            severity: Status::Caution,
            sentence: format!(
                "{} took {} of the time of {worker} in the {} in which polls were not recorded, most of it in {}",
                name_of(scene, type_id),
                percent(share),
                duration(time),
                code(&place)
            ),
            evidence: std::vec![
                evidence("share", Value::Share(share), Some(Value::Share(thresholds.cpu_share))),
                evidence("samples", Value::Count(run.samples), None),
            ],
            place: Some(place),
            count: Some(run.samples),
            total: Some(weight),
            jump: Jump { task: Some(task), task_type: type_id, tid: Some(tid), ts: run.first.0 },
            is_estimated: true,
        });
    }
    found
}

/// Polls that held their worker for longer than the thresholds, by type; if no poll was recorded, sleeps inside a task. Time
/// without a CPU does not count. Neither do estimates: between two CPU samples, a task may have any number of short polls.
fn long_polls(scene: &Scene<'_>, intervals: &[Held]) -> Vec<Finding> {
    #[derive(Default)]
    struct Long {
        count: i64,
        total: i64,
        /// Longest, its start, thread, task.
        longest: Option<(i64, Reverse<i64>, Tid, TaskId)>,
        /// Busy time of the longest.
        busy: i64,
    }
    let thresholds = scene.query.thresholds;
    let mut types: BTreeMap<Option<TypeId>, Long> = BTreeMap::new();
    let mut add = |type_id: Option<TypeId>, at: (i64, Reverse<i64>, Tid, TaskId), busy: i64| {
        let long = types.entry(type_id).or_default();
        long.count += 1;
        long.total = long.total.saturating_add(at.0);
        if Some(at) > long.longest {
            (long.longest, long.busy) = (Some(at), busy);
        }
    };
    let long = task_polls(scene).filter(|(p, _)| p.held > thresholds.long_poll && scene.polls_on_worker(p));
    for (poll, type_id) in long {
        add(type_id, (poll.held, Reverse(poll.ts), poll.tid, poll.task), poll.busy);
    }
    for held in intervals.iter().filter(|h| h.cause == Cause::Blocked && h.dur > thresholds.long_poll) {
        if !is_polled(scene, held) {
            add(held.type_id, (held.dur, Reverse(held.ts), held.tid, held.task), 0);
        }
    }
    let mut found = Vec::new();
    for (type_id, long) in types {
        let Some((held, Reverse(ts), tid, task)) = long.longest else { continue };
        let (severity, threshold) = match held > thresholds.very_long_poll {
            true => (Status::Warning, thresholds.very_long_poll),
            false => (Status::Caution, thresholds.long_poll),
        };
        // The code of the type's longest interval.
        let longest = intervals.iter().find(|h| h.type_id == type_id && !h.is_estimated);
        let place = longest.map(|h| place(scene, h.blamed));
        let within = place.as_ref().map(|place| format!(", in {}", code(place))).unwrap_or_default();
        found.push(Finding {
            rule: Rule::LongPoll,
            severity,
            sentence: match long.count {
                1 => format!("{} held its worker for {}{within}", name_of(scene, type_id), duration(held)),
                count => format!(
                    "{} held its worker {count} times for more than {}, longest {}{within}",
                    name_of(scene, type_id),
                    round_duration(thresholds.long_poll),
                    duration(held)
                ),
            },
            evidence: std::vec![
                evidence("longest", Value::Nanos(held), Some(Value::Nanos(threshold))),
                evidence("computing", Value::Nanos(long.busy), None),
                evidence("asleep", Value::Nanos(held.saturating_sub(long.busy)), None),
                evidence("polls", Value::Count(long.count), None),
            ],
            place,
            count: Some(long.count),
            total: Some(long.total),
            jump: Jump { task: Some(task), task_type: type_id, tid: Some(tid), ts: Some(ts) },
            is_estimated: false,
        });
    }
    found
}

/// Polls of tasks that are longer than the threshold, with their type.
fn task_polls<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (&'a super::LongPoll, Option<TypeId>)> {
    let least = scene.query.thresholds.long_poll;
    let polls =
        scene.parts.iter().flat_map(move |(_, p)| p.long_polls.items().iter().take_while(move |p| p.dur > least));
    polls.filter_map(|poll| {
        let type_id = poll.type_id.or(scene.names.type_of.get(&poll.task).copied());
        (scene.names.kind_of_type(type_id) == TaskKind::Task).then_some((poll, type_id))
    })
}

/// Polls that waited for a CPU for longer than a poll may take: other threads used the CPUs, or a CPU limit throttled this
/// process.
fn cpu_starved(scene: &Scene<'_>) -> Option<Finding> {
    let least = scene.query.thresholds.long_poll;
    let (mut count, mut sum, mut longest) = (0, 0_i64, None);
    for (poll, type_id) in task_polls(scene) {
        let waited = poll.dur.saturating_sub(poll.held);
        if waited > least {
            count += 1;
            sum = sum.saturating_add(waited);
            longest = longest.max(Some((waited, Reverse(poll.ts), Reverse(poll.tid), Reverse(poll.task), type_id)));
        }
    }
    let (waited, Reverse(ts), Reverse(tid), Reverse(task), task_type) = longest?;
    // A row a second.
    let process = &scene.total.process;
    let cpus = |used: i64, rows: i64| (used / 100_000_000).checked_div(rows);
    let own = cpus(process.user.saturating_add(process.sys), process.rows);
    let others = cpus(process.others, process.others_rows);
    let tenths = |n: i64| format!("{}.{}", n / 10, n % 10);
    let mut who = String::new();
    if let Some((own, others)) = own.zip(others) {
        who = format!("; this process used {} CPUs, all others {}", tenths(own), tenths(others));
    }
    if process.throttled >= 1_000_000 {
        who = format!("{who}; a CPU limit kept its threads from running for {}", duration(process.throttled));
    }
    Some(Finding {
        rule: Rule::CpuStarved,
        severity: Status::Caution,
        sentence: match count {
            1 => format!("a poll waited for a CPU for {}{who}", duration(waited)),
            _ => format!(
                "polls waited for a CPU {count} times for more than {}, longest {}{who}",
                round_duration(least),
                duration(waited)
            ),
        },
        evidence: std::vec![
            evidence("longest", Value::Nanos(waited), Some(Value::Nanos(least))),
            evidence("total", Value::Nanos(sum), None),
            evidence("polls", Value::Count(count), None),
        ],
        place: None,
        count: Some(count),
        total: Some(sum),
        jump: Jump { task: Some(task), task_type, tid: Some(tid), ts: Some(ts) },
        is_estimated: false,
    })
}

/// Whether the poll that contains a sleep is in the list of long polls.
fn is_polled(scene: &Scene<'_>, held: &Held) -> bool {
    let around = |p: &super::LongPoll| {
        p.tid == held.tid && p.ts <= held.ts && p.ts.saturating_add(p.dur) >= held.end() && p.task == held.task
    };
    let from = super::Bucket::of(held.end());
    scene.parts.iter().skip_while(|(bucket, _)| *bucket < from).any(|(_, p)| p.long_polls.items().iter().any(around))
}

/// The 99th percentile of the wake-to-poll latencies of all tasks, and the type with the greatest sum of them. Not if the
/// workers themselves waited for CPUs: then the machine delays the tasks.
fn wake_delay(scene: &Scene<'_>, workers: &Workers) -> Option<Finding> {
    let thresholds = scene.query.thresholds;
    let mut load = super::Load::default();
    workers.runtimes.iter().flat_map(|runtime| &runtime.workers).for_each(|worker| load.add(&worker.load));
    let wanted = load.observed().saturating_sub(load.idle);
    if load.waiting.saturating_mul(1000) > thresholds.wake_delay_waiting.saturating_mul(wanted) {
        return None;
    }
    let is_task = |id: Option<TypeId>| scene.names.kind_of_type(id) == TaskKind::Task;
    let mut counts = super::Counts::default();
    scene.total.delays.iter().filter(|(id, _)| is_task(**id)).for_each(|(_, of)| counts.merge(of));
    let mut sums: BTreeMap<Option<TypeId>, PollSums> = BTreeMap::new();
    for ((_, id), polls) in scene.total.polls.iter().filter(|((_, id), _)| is_task(*id)) {
        sums.entry(*id).or_default().merge(polls);
    }
    let longest = sums.values().map(|of| of.delay_longest).max().unwrap_or(0);
    let total = sums.values().fold(0, |sum: i64, of| sum.saturating_add(of.delay));
    let delay = Distribution::of(Histogram::from(&counts), total, longest);
    let count = i64::try_from(delay.count).unwrap_or(i64::MAX);
    let p99 = delay.p99.filter(|p99| *p99 > thresholds.wake_delay_p99 && count >= thresholds.wake_delay_count)?;
    let worst = sums.iter().max_by_key(|(id, of)| (of.delay, id.is_some(), Reverse(**id))).and_then(|(id, _)| *id);
    let most = worst.map(|id| format!("; most affected: {}", name_of(scene, Some(id)))).unwrap_or_default();
    Some(Finding {
        rule: Rule::WakeDelay,
        severity: Status::Caution,
        sentence: format!("wake-to-poll latency p99 {}{most}", duration(p99)),
        evidence: std::vec![
            evidence("p99", Value::Nanos(p99), Some(Value::Nanos(thresholds.wake_delay_p99))),
            evidence("polls", Value::Count(count), None),
        ],
        place: None,
        count: Some(count),
        total: Some(total),
        jump: Jump { task_type: worst, ..Jump::default() },
        is_estimated: false,
    })
}

fn worker_name(worker: &Worker) -> String {
    match worker.worker {
        Some(number) => format!("worker {number}"),
        None => format!("worker thread {}", worker.tid),
    }
}

fn blocked(scene: &Scene<'_>, worker: &Worker, intervals: &[Held]) -> Option<Finding> {
    let thresholds = scene.query.thresholds;
    let share = worker.load.share(worker.load.blocked);
    if worker.load.observed() < thresholds.observed || share <= thresholds.worker_blocked {
        return None;
    }
    let longest = intervals.iter().find(|h| h.tid == worker.tid && h.cause == Cause::Blocked);
    let place = longest.map(|h| place(scene, h.blamed));
    let most = place.as_ref().map(|place| format!(", longest in {}", code(place))).unwrap_or_default();
    Some(Finding {
        rule: Rule::WorkerBlocked,
        severity: Status::Warning,
        sentence: format!("{} was asleep inside polls for {} of its time{most}", worker_name(worker), percent(share)),
        evidence: std::vec![
            evidence("blocked", Value::Share(share), Some(Value::Share(thresholds.worker_blocked))),
            evidence("asleep", Value::Nanos(worker.load.blocked), None),
        ],
        place,
        count: None,
        total: Some(worker.load.blocked),
        jump: Jump {
            task: longest.map(|h| h.task),
            task_type: longest.and_then(|h| h.type_id),
            tid: Some(worker.tid),
            ts: longest.map(|h| h.ts),
        },
        is_estimated: false,
    })
}

fn imbalance(scene: &Scene<'_>, workers: &[Worker]) -> Option<Finding> {
    let thresholds = scene.query.thresholds;
    let busy = |w: &&Worker| w.load.share(w.load.running);
    let is_seen = |w: &&Worker| w.load.observed() >= thresholds.observed.max(1);
    let seen: Vec<&Worker> = workers.iter().filter(is_seen).collect();
    let most = seen.iter().copied().max_by_key(|w| (busy(w), Reverse(w.tid)))?;
    let least = seen.iter().copied().min_by_key(|w| (busy(w), w.tid))?;
    let ratio = busy(&most).saturating_mul(1000) / busy(&least).max(1);
    if busy(&most) <= thresholds.imbalance_busy || ratio <= thresholds.imbalance {
        return None;
    }
    Some(Finding {
        rule: Rule::Imbalance,
        severity: Status::Caution,
        sentence: format!(
            "{} was on a CPU for {} of its time, {} for {}",
            worker_name(most),
            percent(busy(&most)),
            worker_name(least),
            percent(busy(&least))
        ),
        evidence: std::vec![
            evidence("ratio", Value::Share(ratio), Some(Value::Share(thresholds.imbalance))),
            evidence("busiest", Value::Share(busy(&most)), Some(Value::Share(thresholds.imbalance_busy))),
            evidence("least busy", Value::Share(busy(&least)), None),
        ],
        place: None,
        count: None,
        total: None,
        jump: Jump { tid: Some(most.tid), ..Jump::default() },
        is_estimated: false,
    })
}

/// A pool whose threads are all busy, one job after another. Threads that each have one job, such as a loop that receives from
/// a channel, are busy too, but no other job waits for them.
fn pool(scene: &mut Scene<'_>, workers: &Workers) -> Option<Finding> {
    let thresholds = scene.query.thresholds;
    let pool = &workers.pool;
    let share = pool.load.share(pool.load.observed().saturating_sub(pool.load.idle));
    let threads = i64::try_from(pool.threads).unwrap_or(i64::MAX);
    let is_observed = pool.load.observed() >= thresholds.observed;
    if threads < thresholds.pool_threads || share <= thresholds.pool_busy || !is_observed {
        return None;
    }
    let of_pool = |tid: Tid, task: Option<TaskId>| task.filter(|_| scene.role(tid) == Role::Blocking);
    let away = scene.total.away.keys().filter_map(|(tid, task)| of_pool(*tid, *task));
    let runs = scene.total.runs.keys().filter_map(|(tid, task)| of_pool(*tid, *task));
    let jobs = i64::try_from(away.chain(runs).collect::<BTreeSet<_>>().len()).unwrap_or(i64::MAX);
    if jobs < threads.saturating_mul(2) {
        return None;
    }
    let place = pool_place(scene);
    let most = place.as_ref().map(|place| format!(", most of it in {}", code(place))).unwrap_or_default();
    Some(Finding {
        rule: Rule::PoolSaturated,
        severity: Status::Caution,
        sentence: format!(
            "the {} threads of the blocking pool were busy for {} of the time{most}",
            pool.threads,
            percent(share)
        ),
        evidence: std::vec![
            evidence("busy", Value::Share(share), Some(Value::Share(thresholds.pool_busy))),
            evidence("threads", Value::Count(threads), None),
            evidence("jobs", Value::Count(jobs), None),
        ],
        place,
        count: None,
        total: None,
        jump: Jump { tid: pool.workers.first().map(|w| w.tid), ..Jump::default() },
        is_estimated: false,
    })
}

/// The code in which the pool's threads slept or computed for the longest time.
fn pool_place(scene: &mut Scene<'_>) -> Option<Place> {
    let mut rows: Vec<(TaskId, Option<StackId>, i64)> = Vec::new();
    for (_, partial) in &scene.parts {
        let sleeps = partial.sleeps.items().iter().map(|s| (s.tid, s.task, s.stack, s.dur));
        let marks = partial.marks.items().iter().map(|m| (m.tid, m.task, m.stack, m.weight));
        let of_pool = sleeps.chain(marks).filter(|(tid, ..)| scene.role(*tid) == Role::Blocking);
        rows.extend(of_pool.map(|(_, task, stack, time)| (task, stack, time)));
    }
    let mut places: Map<PlaceNo, i64> = Map::default();
    for (task, stack, time) in rows {
        let type_id = scene.names.type_of.get(&task).copied();
        places.entry(scene.names.attribute(stack, type_id)).or_default().merge(&time);
    }
    let code_of = &scene.names.code;
    let most = places.into_iter().max_by_key(|(number, time)| (*time, Reverse(code_of.place(*number).cloned())))?;
    Some(place(scene, most.0))
}
