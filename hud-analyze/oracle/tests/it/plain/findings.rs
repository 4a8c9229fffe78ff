//! The rules.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use hud_common::session::{OffCpuRow, PollRow};
use serde_json::{Value, json};

use super::{
    blocking, load, locks,
    names::{asleep, is_sleep},
    percentile, wakes,
};
use crate::data::{Args, Data, MS, SECOND};

/// What all findings have.
struct Finding {
    rule: &'static str,
    is_warning: bool,
    sentence: String,
    value: i64,
    threshold: i64,
    unit: &'static str,
    task_type: Option<String>,
    at: Option<(i64, i64)>,
    tid: Option<i32>,
    count: Option<usize>,
    is_estimated: bool,
}

impl Default for Finding {
    fn default() -> Self {
        Finding {
            rule: "",
            is_warning: false,
            sentence: String::new(),
            value: 0,
            threshold: 0,
            unit: "ns",
            task_type: None,
            at: None,
            tid: None,
            count: None,
            is_estimated: false,
        }
    }
}

fn told(ns: i64) -> String {
    for (unit, scale) in [("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)] {
        if ns >= 10 * scale {
            return format!("{} {unit}", ns / scale);
        }
    }
    format!("{ns} ns")
}

fn name(task_type: &Option<String>) -> &str {
    task_type.as_deref().unwrap_or("a task of unknown type")
}

pub(super) fn findings(data: &Data, args: &Args) -> Vec<Value> {
    let mut found = long_polls(data, args);
    found.extend(cpu_shares(data, args));
    found.extend(short_sleeps(data, args));
    found.extend(cpu_starved(data, args));
    found.extend(wake_delay(data, args));
    found.extend(loads(data, args));
    found.extend(tasks_grow(data, args));
    found.extend(self_waking(data, args));
    found.extend(lock_owners(data, args));
    let found = found.into_iter();
    found
        .map(|f| {
            json!({
                "rule": f.rule, "severity": if f.is_warning { "warning" } else { "caution" },
                "sentence": f.sentence, "value": f.value, "threshold": f.threshold, "unit": f.unit,
                "task_type": f.task_type, "thread": f.tid.and_then(|t| data.thread(t)).map(|t| t.name.clone()),
                "ts": f.at.map(|(ts, _)| ts).filter(|ts| *ts > 0), "task_id": f.at.map(|(_, task)| task), "tid": f.tid,
                "count": f.count, "estimated": f.is_estimated,
            })
        })
        .collect()
}

fn long_polls(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let mut all: Vec<(i64, i64, i32, i64, Option<i64>)> = Vec::new();
    let was_in_place = |tid: i32, from: i64, to: i64| {
        let is_within = |ts: i64, of: i32, task: Option<i64>| {
            of == tid && task.is_some() && args.holds(ts) && from <= ts && ts < to
        };
        let samples = data.samples.iter().filter(|s| is_within(s.ts, s.tid, s.task_id)).map(|s| s.stack_id);
        let sleeps =
            data.off_cpu.iter().filter(|o| is_within(o.ts, o.tid, o.task_id) && is_sleep(o) && asleep(o) >= MS);
        samples.chain(sleeps.map(|o| o.stack_id)).any(|stack| data.is_in_place(stack))
    };
    let mut add = |dur: i64, ts: i64, end: i64, tid: i32, task: i64, type_id: Option<i64>, is_code: bool| {
        let of = data.task_type(type_id.or(data.type_id(Some(task))));
        if data.keeps_worker(args, of, tid, end, is_code) && !was_in_place(tid, ts, end) {
            all.push((dur, ts, tid, task, type_id));
        }
    };
    for p in data.polls.iter().filter(|p| args.holds(p.ts) && p.dur.min(p.dur - p.run_queue) > rules.long_poll) {
        add(p.dur - p.run_queue, p.ts, p.ts + p.dur, p.tid, p.task_id, p.type_id, true);
    }
    for o in data.off_cpu.iter().filter(|o| args.holds(o.ts) && is_sleep(o) && !data.polls_on(o.ts)) {
        if let Some(task) = o.task_id.filter(|_| asleep(o) > rules.long_poll) {
            add(asleep(o), o.ts, o.ts + o.dur, o.tid, task, None, data.blame(o.stack_id).is_own);
        }
    }
    let mut types: BTreeMap<Option<String>, Vec<_>> = BTreeMap::new();
    for long in all {
        let of = data.task_type(long.4.or(data.type_id(Some(long.3))));
        types.entry(of.map(|t| t.name.to_string())).or_default().push(long);
    }
    let types = types.into_iter();
    types
        .map(|(task_type, long)| {
            let (dur, ts, tid, task, ..) =
                *long.iter().min_by_key(|(dur, ts, tid, task, ..)| (-dur, *ts, *tid, *task)).unwrap();
            let is_warning = dur > rules.very_long_poll;
            let held = format!("{} held its worker", name(&task_type));
            Finding {
                rule: "long_poll",
                is_warning,
                sentence: match long.len() {
                    1 => format!("{held} for {}", told(dur)),
                    n => format!("{held} {n} times for more than {}, longest {}", told(rules.long_poll), told(dur)),
                },
                value: dur,
                threshold: if is_warning { rules.very_long_poll } else { rules.long_poll },
                task_type,
                at: Some((ts, task)),
                tid: Some(tid),
                count: Some(long.len()),
                ..Finding::default()
            }
        })
        .collect()
}

/// Worker threads that one task computed on for much of the time in which polls were not watched.
fn cpu_shares(data: &Data, args: &Args) -> Vec<Finding> {
    let mut on: Vec<(i64, i64)> = data
        .coverage
        .iter()
        .filter(|c| c.stream == "polls" && c.dur > 0)
        .map(|c| (c.ts.max(args.from), (c.ts + c.dur).min(args.to)))
        .filter(|(from, to)| from < to)
        .collect();
    on.sort_unstable();
    let (mut time, mut until) = (args.to - args.from, args.from);
    for (from, to) in on {
        time -= (to - from.max(until)).max(0);
        until = until.max(to);
    }
    if time < args.rules.observed || time == 0 {
        return Vec::new();
    }
    let mut computed: BTreeMap<(i32, i64), (i64, i64, i64)> = BTreeMap::new();
    for s in data.samples.iter().filter(|s| args.holds(s.ts) && !data.polls_on(s.ts)) {
        if let Some(task) = s.task_id {
            let (n, weight, first) = computed.entry((s.tid, task)).or_insert((0, 0, i64::MAX));
            (*n, *weight, *first) = (*n + 1, *weight + s.weight, s.ts.min(*first));
        }
    }
    let mut found = Vec::new();
    for ((tid, task), (n, weight, first)) in computed {
        let share = weight * (n - 1) * 1000 / (n * time);
        let worker = data.thread(tid).filter(|t| t.role == "worker");
        let of = data.type_of(Some(task)).filter(|t| t.kind == "task");
        if let (Some(worker), Some(of), true) = (worker, of, share > args.rules.cpu_share) {
            let name = worker.worker.map_or_else(|| format!("worker thread {tid}"), |n| format!("worker {n}"));
            found.push(Finding {
                rule: "cpu_share",
                sentence: format!(
                    "{} took {} % of the time of {name} in the {} in which polls were not recorded",
                    of.name,
                    share / 10,
                    told(time)
                ),
                value: share,
                threshold: args.rules.cpu_share,
                unit: "thousandths",
                task_type: Some(of.name.to_string()),
                at: Some((first, task)),
                tid: Some(tid),
                count: Some(usize::try_from(n).unwrap()),
                is_estimated: true,
                ..Finding::default()
            });
        }
    }
    found
}

fn short_sleeps(data: &Data, args: &Args) -> Vec<Finding> {
    let mut types: BTreeMap<Option<String>, Vec<&OffCpuRow>> = BTreeMap::new();
    for o in blocking::short(data, args, MS) {
        types.entry(data.type_of(o.task_id).map(|t| t.name.to_string())).or_default().push(o);
    }
    let mut found = Vec::new();
    for (task_type, rows) in types {
        let (count, total) =
            (rows.iter().map(|o| blocking::sleeps(o)).sum::<i64>(), rows.iter().map(|o| asleep(o)).sum::<i64>());
        let window = (args.to - args.from).max(SECOND);
        if i128::from(total) * 1_000_000_000 < i128::from(args.rules.short_sleeps) * i128::from(window) {
            continue;
        }
        let mut by_thread: BTreeMap<_, i64> = BTreeMap::new();
        for o in &rows {
            let is_own = data.blame(o.stack_id).is_own;
            *by_thread.entry((o.tid, o.task_id.unwrap(), is_own)).or_default() += asleep(o);
        }
        let ((tid, task, _), _) = by_thread.into_iter().min_by_key(|(key, sum)| (-sum, *key)).unwrap();
        found.push(Finding {
            rule: "short_sleeps",
            sentence: format!(
                "{} slept inside polls {count} times for less than 1 ms, {} in sum",
                name(&task_type),
                told(total)
            ),
            value: total,
            threshold: args.rules.short_sleeps,
            task_type,
            at: Some((0, task)),
            tid: Some(tid),
            count: Some(usize::try_from(count).unwrap()),
            is_estimated: rows.iter().any(|o| o.state == "+"),
            ..Finding::default()
        });
    }
    found
}

fn cpu_starved(data: &Data, args: &Args) -> Option<Finding> {
    let least = args.rules.long_poll;
    let wait = |p: &PollRow| p.run_queue.min(p.dur);
    let waited = data.polls.iter().filter(|p| args.holds(p.ts) && wait(p) > least);
    let waited: Vec<_> = waited
        .filter(|p| data.task_type(p.type_id.or(data.type_id(Some(p.task_id)))).is_none_or(|t| t.kind == "task"))
        .collect();
    let worst = waited.iter().min_by_key(|p| (-wait(p), p.ts, p.tid, p.task_id))?;
    let longest = wait(worst);
    let rows: Vec<_> = data.process.iter().filter(|p| args.holds(p.ts)).collect();
    let tenths = |used: i64, rows: usize| Some(used / 100_000_000 / i64::try_from(rows).ok().filter(|n| *n > 0)?);
    let own = tenths(rows.iter().map(|p| p.cpu_user.max(0) + p.cpu_sys.max(0)).sum(), rows.len());
    let others: Vec<i64> = rows.iter().filter_map(|p| p.cpu_others).map(|n| n.max(0)).collect();
    let others = tenths(others.iter().sum(), others.len());
    let mut who = String::new();
    if let Some((own, others)) = own.zip(others) {
        let (a, b) = (format!("{}.{}", own / 10, own % 10), format!("{}.{}", others / 10, others % 10));
        who = format!("; this process used {a} CPUs, all others {b}");
    }
    let throttled: i64 = rows.iter().filter_map(|p| p.throttled).map(|n| n.max(0)).sum();
    if throttled >= 1_000_000 {
        who += &format!("; a CPU limit kept its threads from running for {} ms", throttled / 1_000_000);
    }
    Some(Finding {
        rule: "cpu_starved",
        sentence: match waited.len() {
            1 => format!("a poll waited for a CPU for {}{who}", told(longest)),
            n => format!(
                "polls waited for a CPU {n} times for more than {}, longest {}{who}",
                told(least),
                told(longest)
            ),
        },
        value: longest,
        threshold: least,
        at: Some((worst.ts, worst.task_id)),
        tid: Some(worst.tid),
        count: Some(waited.len()),
        ..Finding::default()
    })
}

fn wake_delay(data: &Data, args: &Args) -> Option<Finding> {
    let (all, worst) = wakes::all_delays(data, args);
    let p99 = percentile(&all, 990, 16)?;
    let is_enough = i64::try_from(all.len()).unwrap() >= args.rules.wake_delay_count;
    let most = worst.as_ref().map(|name| format!("; most of it falls to {name}")).unwrap_or_default();
    (p99 > args.rules.wake_delay_p99 && is_enough).then(|| Finding {
        rule: "wake_delay",
        sentence: format!("woken tasks wait for their poll: one in a hundred {} or more{most}", told(p99)),
        value: p99,
        threshold: args.rules.wake_delay_p99,
        task_type: worst,
        count: Some(all.len()),
        ..Finding::default()
    })
}

fn loads(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let per_mille = |part: i64, whole: i64| part * 1000 / whole;
    let mut found = Vec::new();
    let mut runtimes: BTreeMap<Option<i64>, Vec<(i64, i32, String)>> = BTreeMap::new();
    for w in load::threads(data, "worker") {
        let load = load::whole(data, args, w.tid);
        if load.observed < rules.observed || load.observed == 0 {
            continue;
        }
        let name = w.worker.map_or_else(|| format!("worker thread {}", w.tid), |n| format!("worker {n}"));
        let blocked = per_mille(load.blocked, load.observed);
        if blocked > rules.worker_blocked {
            found.push(Finding {
                rule: "worker_blocked",
                is_warning: true,
                sentence: format!("{name} was asleep inside polls for {} % of its time", blocked / 10),
                value: blocked,
                threshold: rules.worker_blocked,
                tid: Some(w.tid),
                ..Finding::default()
            });
        }
        runtimes.entry(w.runtime_id).or_default().push((per_mille(load.running(), load.observed), w.tid, name));
    }
    for workers in runtimes.into_values() {
        let (busy, tid, name) = workers.iter().max_by_key(|(busy, tid, _)| (*busy, Reverse(*tid))).unwrap();
        let (least, _, least_name) = workers.iter().min_by_key(|(busy, tid, _)| (*busy, *tid)).unwrap();
        let ratio = per_mille(*busy, (*least).max(1));
        if *busy > rules.imbalance_busy && ratio > rules.imbalance {
            found.push(Finding {
                rule: "imbalance",
                sentence: format!(
                    "{name} was on a CPU for {} % of its time, {least_name} for {} %",
                    busy / 10,
                    least / 10
                ),
                value: ratio,
                threshold: rules.imbalance,
                tid: Some(*tid),
                ..Finding::default()
            });
        }
    }
    let pool: Vec<_> = load::threads(data, "blocking");
    let pool: Vec<_> = pool.iter().map(|t| (t.tid, load::whole(data, args, t.tid))).collect();
    let (observed, idle) = pool.iter().fold((0, 0), |(o, i), (_, l)| (o + l.observed, i + l.idle));
    let is_big = i64::try_from(pool.len()).unwrap() >= rules.pool_threads && observed >= rules.observed && observed > 0;
    if is_big && per_mille(observed - idle, observed) > rules.pool_busy {
        let at_work = per_mille(observed - idle, observed);
        let busiest = pool.iter().min_by_key(|(tid, l)| (l.idle - l.observed, *tid)).map(|(tid, _)| *tid);
        found.push(Finding {
            rule: "pool_saturated",
            sentence: format!(
                "the {} threads of the blocking pool were at work for {} % of the time",
                pool.len(),
                at_work / 10
            ),
            value: at_work,
            threshold: rules.pool_busy,
            tid: busiest,
            ..Finding::default()
        });
    }
    found.into_iter().map(|f| Finding { unit: "thousandths", ..f }).collect()
}

fn tasks_grow(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let watched = |stream: &str| -> i64 {
        let of = data.coverage.iter().filter(|c| c.stream == stream && args.touches(c.ts, c.dur));
        of.map(|c| (c.ts + c.dur).min(args.to) - c.ts.max(args.from)).filter(|on| *on > 0).sum()
    };
    let watched = watched("spawns").min(watched("ends"));
    if watched < rules.observed {
        return Vec::new();
    }
    let mut types: BTreeMap<Option<String>, (i64, i64)> = BTreeMap::new();
    let mut add = |task, spawned, ended| {
        let of = data.type_of(Some(task));
        if of.is_none_or(|t| t.kind != "worker") {
            let of = types.entry(of.map(|t| t.name.to_string())).or_default();
            *of = (of.0 + spawned, of.1 + ended);
        }
    };
    data.spawns.iter().filter(|s| args.holds(s.ts)).for_each(|s| add(s.task_id, 1, 0));
    // A task ends once.
    let ended: BTreeSet<_> = data.ends.iter().filter(|e| args.holds(e.ts)).map(|e| e.task_id).collect();
    ended.into_iter().for_each(|task| add(task, 0, 1));
    let untyped = types.remove(&None).map_or(0, |(_, ended)| ended);
    let is_growing =
        |spawned: i64, ended: i64| spawned >= rules.growth && (ended + untyped) * 1000 <= spawned * rules.growth_ended;
    let types = types.into_iter().filter_map(|(name, of)| Some((name?, of)));
    types
        .filter(|(_, (spawned, ended))| is_growing(*spawned, *ended))
        .map(|(name, (spawned, ended))| Finding {
            rule: "tasks_grow",
            sentence: format!(
                "{spawned} tasks of {name} were spawned within {} that were watched, {ended} ended",
                told(watched)
            ),
            value: spawned,
            threshold: rules.growth,
            unit: "count",
            task_type: Some(name),
            count: usize::try_from(spawned).ok(),
            ..Finding::default()
        })
        .collect()
}

fn self_waking(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let mut tasks: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for w in data.wakes.iter().filter(|w| args.holds(w.ts)) {
        let task = tasks.entry(w.task_id).or_default();
        *task = (task.0 + 1, task.1 + i64::from(w.waker_task_id == Some(w.task_id)));
    }
    let span = (args.to - args.from).max(SECOND);
    let mut types: BTreeMap<Option<String>, Vec<(i64, i64)>> = BTreeMap::new();
    for (task, (wakes, by_itself)) in tasks {
        let is_fast = i128::from(by_itself) * i128::from(SECOND) >= i128::from(rules.self_wakes) * i128::from(span);
        let of = data.type_of(Some(task));
        if by_itself > 0
            && is_fast
            && by_itself * 1000 >= wakes * rules.self_wakes_share
            && of.is_none_or(|t| t.kind == "task")
        {
            types.entry(of.map(|t| t.name.to_string())).or_default().push((by_itself, task));
        }
    }
    let types = types.into_iter();
    types
        .map(|(name, tasks)| {
            let wakes: i64 = tasks.iter().map(|(n, _)| n).sum();
            let of = name.as_deref().unwrap_or("unknown type");
            let most = tasks.iter().min_by_key(|(n, task)| (-n, *task)).unwrap().1;
            Finding {
                rule: "self_waking",
                sentence: match tasks.len() {
                    1 => format!("a task of {of} woke itself {wakes} times"),
                    n => format!("{n} tasks of {of} woke themselves {wakes} times"),
                },
                value: wakes,
                threshold: rules.self_wakes,
                unit: "count",
                task_type: name,
                at: Some((0, most)),
                count: Some(tasks.len()),
                ..Finding::default()
            }
        })
        .collect()
}

fn lock_owners(data: &Data, args: &Args) -> Vec<Finding> {
    let least = args.rules.lock_wait;
    let sleeps = locks::sleeps(data, args, least);
    let mut waits: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for wait in sleeps.iter().copied().filter(|o| args.holds(o.ts)) {
        let of = data.type_of(wait.task_id);
        let is_lock = matches!(locks::lock(data, wait.stack_id), Some("mutex" | "rwlock"));
        let is_worker = data.thread(wait.tid).is_some_and(|t| t.role != "other");
        let holder = locks::holder(data, &sleeps, wait);
        if let Some(holder) = holder.filter(|_| is_lock && is_worker && of.is_none_or(|t| t.kind == "task")) {
            let name = of.map(|t| t.name.to_string());
            let holder = data.type_of(holder.task_id).map(|t| t.name.to_string());
            waits.entry((name, holder)).or_default().push(wait);
        }
    }
    let waits = waits.into_iter();
    waits
        .map(|((task_type, holder), waits)| {
            let worst = waits.iter().min_by_key(|o| (-asleep(o), o.ts, o.tid)).unwrap();
            let times = if waits.len() > 1 { format!("{} times, longest ", waits.len()) } else { String::new() };
            Finding {
                rule: "lock_owner_asleep",
                sentence: format!(
                    "{} waited {times}{} for a lock that {} released, which had slept meanwhile",
                    name(&task_type),
                    told(asleep(worst)),
                    name(&holder)
                ),
                value: asleep(worst),
                threshold: least,
                task_type,
                at: Some((worst.ts, worst.task_id.unwrap())),
                tid: Some(worst.tid),
                count: Some(waits.len()),
                ..Finding::default()
            }
        })
        .collect()
}
