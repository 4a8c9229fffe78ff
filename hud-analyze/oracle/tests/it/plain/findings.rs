//! The rules, from the header of queries/findings.sql: over whole tenths of a second, and rows in the one in which they end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use hud_common::{
    session::{InProgressRow, OffCpuRow, PollRow, ProcessRow, SampleRow, TaskStateRow},
    units::{duration, round_duration, share as percent},
};
use serde_json::{Value, json};

use super::{
    blocking,
    in_progress::{self, Stuck},
    load, locks,
    names::{asleep, is_sleep, ready},
    overlap, percentile,
};
use crate::data::{Args, Data, MS, SECOND};

const TENTH: i64 = SECOND / 10;

/// The columns of a finding that its rule decides.
struct Finding {
    rule: &'static str,
    is_warning: bool,
    sentence: String,
    value: i64,
    threshold: i64,
    unit: &'static str,
    type_id: Option<i64>,
    /// Start and task of the worst.
    at: Option<(i64, i64)>,
    /// Its start, if it has no task.
    since: Option<i64>,
    tid: Option<i32>,
    count: Option<i64>,
    total: Option<i64>,
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
            type_id: None,
            at: None,
            since: None,
            tid: None,
            count: None,
            total: None,
            is_estimated: false,
        }
    }
}

/// The name of a type; of one that is in no table, a placeholder.
fn name_or(data: &Data, type_id: Option<i64>, unknown: &str) -> String {
    match (type_id, data.task_type(type_id)) {
        (None, _) => unknown.to_owned(),
        (Some(_), Some(of)) => of.name.to_string(),
        (Some(_), None) => "<unknown>".to_owned(),
    }
}

fn name(data: &Data, type_id: Option<i64>) -> String {
    name_or(data, type_id, "a task of unknown type")
}

/// Whether a type is that of a task, as far as is known.
fn is_task(data: &Data, type_id: Option<i64>) -> bool {
    data.task_type(type_id).is_none_or(|of| of.kind == "task")
}

fn len<T>(of: &[T]) -> i64 {
    i64::try_from(of.len()).unwrap()
}

/// A row of `polls` or `off_cpu` belongs to the range in which it ended.
fn has_ended(args: &Args, ts: i64, dur: i64) -> bool {
    args.holds(ts + dur)
}

/// Sleeps inside tasks of 1 ms or more.
fn sleeps<'a>(data: &'a Data, args: &'a Args) -> impl Iterator<Item = (&'a OffCpuRow, i64)> {
    let ended = data.off_cpu.iter().filter(|o| has_ended(args, o.ts, o.dur) && is_sleep(o) && asleep(o) >= MS);
    ended.filter_map(|o| Some((o, o.task_id?)))
}

pub(super) fn findings(data: &Data, args: &Args) -> Vec<Value> {
    let (from, to) = (args.from.div_euclid(TENTH) * TENTH, (args.to + TENTH - 1).div_euclid(TENTH) * TENTH);
    // There is nothing before the session.
    let from = from.max(data.start.div_euclid(TENTH) * TENTH);
    let args = &Args { from, to, ..args.clone() };
    let mut found = stuck(data, args);
    found.extend(deadlocks(data, args));
    found.extend(long_polls(data, args));
    found.extend(cpu_shares(data, args));
    found.extend(short_sleeps(data, args));
    found.extend(cpu_starved(data, args));
    found.extend(wake_delay(data, args));
    found.extend(loads(data, args));
    found.extend(tasks_grow(data, args));
    found.extend(resources_grow(data, args));
    found.extend(endings(data, args));
    found.extend(self_waking(data, args));
    found.extend(wake_storms(data, args));
    found.extend(spawn_rates(data, args));
    found.extend(lock_owners(data, args));
    found.extend(lock_owners_busy(data, args));
    let r = &args.rules;
    let thresholds = [
        ("long_poll", r.long_poll),
        ("very_long_poll", r.very_long_poll),
        ("asleep", args.asleep),
        ("wake_delay_p99", r.wake_delay_p99),
        ("wake_delay_count", r.wake_delay_count),
        ("wake_delay_waiting", r.wake_delay_waiting),
        ("cpu_share", r.cpu_share),
        ("short_sleeps", r.short_sleeps),
        ("worker_blocked", r.worker_blocked),
        ("imbalance", r.imbalance),
        ("imbalance_busy", r.imbalance_busy),
        ("pool_busy", r.pool_busy),
        ("pool_threads", r.pool_threads),
        ("growth", r.growth),
        ("growth_ended", r.growth_ended),
        ("threads_grow", r.threads_grow),
        ("fds_grow", r.fds_grow),
        ("memory_grow", r.memory_grow),
        ("grow_ratio", r.grow_ratio),
        ("grow_time", r.grow_time),
        ("panics", r.panics),
        ("cancelled", r.cancelled),
        ("cancelled_share", r.cancelled_share),
        ("self_wakes", r.self_wakes),
        ("self_wakes_share", r.self_wakes_share),
        ("wake_storm", r.wake_storm),
        ("wake_storm_rate", r.wake_storm_rate),
        ("spawn_rate", r.spawn_rate),
        ("lock_wait", r.lock_wait),
        ("lock_busy", r.lock_busy),
        ("stuck", r.stuck),
        ("observed", r.observed),
    ];
    let thresholds = thresholds.map(|(name, value)| format!("{name}={value}")).join(",");
    let found = found.into_iter();
    found
        .map(|f| {
            let thread = f.tid.and_then(|t| data.thread(t));
            let worker = thread.and_then(|t| t.worker).map(|number| format!("worker {number}"));
            let subject = data.task_type(f.type_id).map(|t| t.name.to_string()).or(worker);
            let subject = subject.or(thread.map(|t| t.name.to_string())).unwrap_or_else(|| "all".into());
            json!({
                "id": format!("{}/{subject}", f.rule),
                "rule": f.rule, "severity": if f.is_warning { "warning" } else { "caution" },
                "sentence": f.sentence, "value": f.value, "threshold": f.threshold, "unit": f.unit,
                "task_type": data.task_type(f.type_id).map(|t| t.name.clone()),
                "thread": f.tid.and_then(|t| data.thread(t)).map(|t| t.name.clone()),
                "ts": f.at.map(|(ts, _)| ts).or(f.since).filter(|ts| *ts > 0), "task_id": f.at.map(|(_, task)| task), "tid": f.tid,
                "count": f.count, "total": f.total, "estimated": f.is_estimated, "since": from, "until": to,
                "thresholds": thresholds,
            })
        })
        .collect()
}

impl Data {
    /// Whether a sample or a sleep of 1 ms or more shows that a thread was inside block_in_place.
    pub(super) fn was_in_place(&self, args: &Args, tid: i32, from: i64, to: i64) -> bool {
        let is_within = |of: i32, ts: i64| of == tid && from <= ts && ts < to;
        let samples = self.samples.iter().filter(|s| args.holds(s.ts) && s.task_id.is_some() && is_within(s.tid, s.ts));
        let sleeps = sleeps(self, args).filter(|(o, _)| is_within(o.tid, o.ts));
        let mut stacks = samples.map(|s| s.stack_id).chain(sleeps.map(|(o, _)| o.stack_id));
        stacks.any(|stack| self.is_in_place(stack))
    }
}

/// Polls in progress, by what their threads do and where.
fn stuck(data: &Data, args: &Args) -> Vec<Finding> {
    let mut groups: BTreeMap<_, Vec<&InProgressRow>> = BTreeMap::new();
    let least = args.rules.stuck;
    for Stuck { poll, type_id, place } in in_progress::stuck(data, args, least) {
        let rule = if poll.state == "blocked" { "stuck_thread" } else { "stuck_poll" };
        groups.entry((rule, type_id, place)).or_default().push(poll);
    }
    let groups = groups.into_iter();
    groups
        .map(|((rule, type_id, _), polls)| {
            let longest = polls.iter().max_by_key(|p| (p.lasted, Reverse(p.tid))).unwrap();
            let thread = data.thread(longest.tid);
            let thread = match thread.map(|t| (t.worker, t.role.as_ref())) {
                Some((Some(number), _)) => format!("worker {number} ({})", longest.tid),
                Some((None, "worker")) => format!("worker thread {}", longest.tid),
                _ => format!("thread {}", longest.tid),
            };
            let who = match polls.len() {
                1 => format!("{thread} has been in one poll"),
                n => format!("{n} threads have been in one poll each"),
            };
            let lasts = match longest.since {
                Some(_) => format!("for {}", duration(longest.lasted)),
                None => format!("since before the attach, at least {}", duration(longest.lasted)),
            };
            let does = if longest.state == "blocked" { "asleep" } else { "computing" };
            Finding {
                rule,
                is_warning: true,
                sentence: format!("{who} of {} {lasts}, {does} in ", name(data, type_id)),
                value: longest.lasted,
                threshold: least,
                type_id,
                at: Some((longest.since.unwrap_or(0), longest.task_id)),
                tid: Some(longest.tid),
                count: Some(len(&polls)),
                total: Some(polls.iter().map(|p| p.lasted).sum()),
                ..Finding::default()
            }
        })
        .collect()
}

/// The newest of some rows, in the order of the rule.
fn newest(mut rows: Vec<&TaskStateRow>) -> (i64, Vec<&TaskStateRow>) {
    let at = rows.iter().map(|row| row.ts).max().unwrap();
    rows.retain(|row| row.ts == at);
    rows.sort_by_key(|row| (row.task_id, row.tid, row.since, row.type_id, row.stack_id));
    (at, rows)
}

/// A finding about tasks that cannot go on.
fn halted(data: &Data, args: &Args, rule: &'static str, rows: &[&TaskStateRow], (at, since): (i64, i64)) -> Finding {
    let lasts = at - since;
    let who = match (rule, rows.len()) {
        ("lock_cycle", 1) => "a task has waited for itself for at least ".into(),
        ("lock_cycle", n) => format!("{n} tasks have waited for each other for at least "),
        (_, 1) => "a task holds permits of a semaphore and waits for more, in each snapshot of at least ".into(),
        (_, n) => format!("{n} tasks hold permits of a semaphore and wait for more, in each snapshot of at least "),
    };
    Finding {
        rule,
        is_warning: rule == "lock_cycle",
        sentence: format!("{who}{}: ", duration(lasts)),
        value: lasts,
        threshold: args.rules.stuck,
        type_id: rows[0].type_id.or(data.type_id(rows[0].task_id)),
        at: rows[0].task_id.map(|task| (since, task)),
        since: Some(since),
        tid: rows[0].tid,
        count: Some(len(rows)),
        ..Finding::default()
    }
}

/// Tasks that wait for each other, by the number of their deadlock, or for permits while they hold some, by the semaphore.
fn deadlocks(data: &Data, args: &Args) -> Vec<Finding> {
    let (mut cycles, mut semaphores): (BTreeMap<i64, Vec<_>>, BTreeMap<i64, Vec<_>>) = Default::default();
    for row in data.task_states.iter().filter(|row| args.holds(row.ts)) {
        let is_task = row.task_id.is_some() && row.task_id == row.holder_task_id;
        let is_thread = row.tid.is_some() && row.tid == row.holder_tid;
        let is_own = row.resource.as_deref() == Some("semaphore") && row.branches == 1 && (is_task || is_thread);
        match (row.cycle, row.address) {
            (Some(cycle), _) => cycles.entry(cycle).or_default().push(row),
            (None, Some(address)) if is_own => semaphores.entry(address).or_default().push(row),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (at, rows) in cycles.into_values().map(newest) {
        let since = rows.iter().map(|row| row.since).max().unwrap();
        if at - since > args.rules.stuck {
            found.push(halted(data, args, "lock_cycle", &rows, (at, since)));
        }
    }
    for (at, mut rows) in semaphores.into_values().map(newest) {
        rows.retain(|row| at - row.since > args.rules.stuck);
        if let Some(since) = rows.iter().map(|row| row.since).min() {
            found.push(halted(data, args, "semaphore_starved", &rows, (at, since)));
        }
    }
    found
}

fn long_polls(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let polls = || data.polls.iter().filter(|p| has_ended(args, p.ts, p.dur) && p.dur >= MS);
    // Time held, start, thread, task.
    let mut types: BTreeMap<Option<i64>, Vec<(i64, i64, i32, i64)>> = BTreeMap::new();
    for p in polls().filter(|p| p.dur > rules.long_poll && p.dur - p.run_queue > rules.long_poll) {
        let type_id = p.type_id.or(data.type_id(Some(p.task_id)));
        let end = p.ts + p.dur;
        if data.keeps_worker(args, data.task_type(type_id), p.tid, end, true)
            && !data.was_in_place(args, p.tid, p.ts, end)
        {
            types.entry(type_id).or_default().push((p.dur - p.run_queue, p.ts, p.tid, p.task_id));
        }
    }
    for (o, task) in sleeps(data, args).filter(|(o, _)| asleep(o) > rules.long_poll && asleep(o) >= args.asleep) {
        let is_around =
            |p: &PollRow| p.tid == o.tid && p.task_id == task && p.ts <= o.ts && p.ts + p.dur >= o.ts + asleep(o);
        let type_id = data.type_id(Some(task));
        let is_own = data.attribute(o.stack_id).is_own;
        if !data.is_in_place(o.stack_id)
            && data.keeps_worker(args, data.task_type(type_id), o.tid, o.ts + o.dur, is_own)
            && !polls().any(is_around)
        {
            types.entry(type_id).or_default().push((asleep(o), o.ts, o.tid, task));
        }
    }
    let types = types.into_iter();
    types
        .map(|(type_id, long)| {
            let worst = long.iter().max_by_key(|(dur, ts, tid, task)| (*dur, Reverse(*ts), *tid, *task));
            let (dur, ts, tid, task) = *worst.unwrap();
            let is_warning = dur > rules.very_long_poll;
            let held = format!("{} held its worker", name(data, type_id));
            Finding {
                rule: "long_poll",
                is_warning,
                sentence: match long.len() {
                    1 => format!("{held} for {}", duration(dur)),
                    n => format!(
                        "{held} {n} times for more than {}, longest {}",
                        round_duration(rules.long_poll),
                        duration(dur)
                    ),
                },
                value: dur,
                threshold: if is_warning { rules.very_long_poll } else { rules.long_poll },
                type_id,
                at: Some((ts, task)),
                tid: Some(tid),
                count: Some(len(&long)),
                total: Some(long.iter().map(|(dur, ..)| dur).sum()),
                ..Finding::default()
            }
        })
        .collect()
}

/// The tenths of a second with any event in which polls were not recorded.
fn unwatched(data: &Data, args: &Args) -> Vec<i64> {
    let mut tenths = Vec::new();
    let mut from = args.from;
    while from < args.to {
        let to = from + TENTH;
        let at = |ts: i64| from <= ts && ts < to;
        // An empty interval touches the tenth of its instant.
        let touches = |ts: i64, dur: i64| ts < to && (ts + dur - 1).max(ts) >= from;
        let has_event = data.polls.iter().any(|p| touches(p.ts, p.dur) || at(p.ts + p.dur))
            || data.off_cpu.iter().any(|o| touches(o.ts, o.dur) || at(o.ts + o.dur))
            || data.coverage.iter().any(|c| touches(c.ts, c.dur))
            || data.samples.iter().any(|s| at(s.ts))
            || data.wakes.iter().any(|w| at(w.ts))
            || data.spawns.iter().any(|s| at(s.ts))
            || data.ends.iter().any(|e| at(e.ts))
            || data.tasks.iter().any(|t| at(t.ts))
            || data.in_progress.iter().any(|p| at(p.ts))
            || data.task_states.iter().any(|t| t.cycle.is_some() && at(t.ts))
            || data.drops.iter().any(|d| at(d.ts + d.dur))
            || data.process.iter().any(|p| at(p.ts))
            || data.overhead.iter().any(|o| at(o.ts));
        let polled = data.polls.iter().any(|p| at(p.ts + p.dur)) || on(data, "polls", from, to) > 0;
        if has_event && !polled {
            tenths.push(from);
        }
        from = to;
    }
    tenths
}

/// How long a stream was on, at most all of the time.
fn on(data: &Data, stream: &str, from: i64, to: i64) -> i64 {
    let of = data.coverage.iter().filter(|c| c.stream == stream);
    of.map(|c| overlap(c.ts, c.ts + c.dur, from, to)).sum::<i64>().min(to - from)
}

/// Workers on which one task computed for much of the time in which polls were not recorded.
fn cpu_shares(data: &Data, args: &Args) -> Vec<Finding> {
    let tenths = unwatched(data, args);
    let time = len(&tenths) * TENTH;
    if time < args.rules.observed || time == 0 {
        return Vec::new();
    }
    let mut computed: BTreeMap<(i32, i64), (i64, i64, i64)> = BTreeMap::new();
    for s in data.samples.iter().filter(|s| tenths.contains(&(s.ts.div_euclid(TENTH) * TENTH))) {
        if let Some(task) = s.task_id {
            let (n, weight, first) = computed.entry((s.tid, task)).or_insert((0, 0, i64::MAX));
            (*n, *weight, *first) = (*n + 1, *weight + s.weight, s.ts.min(*first));
        }
    }
    let mut found = Vec::new();
    for ((tid, task), (n, weight, first)) in computed {
        let weight = weight * (n - 1) / n;
        let share = weight * 1000 / time;
        let worker = data.thread(tid).filter(|t| t.role == "worker");
        let type_id = data.type_id(Some(task));
        let of = data.task_type(type_id).filter(|t| t.kind == "task");
        if let (Some(worker), Some(of), true) = (worker, of, share > args.rules.cpu_share) {
            let name = worker.worker.map_or_else(|| format!("worker thread {tid}"), |n| format!("worker {n}"));
            found.push(Finding {
                rule: "cpu_share",
                sentence: format!(
                    "{} took {} of the time of {name} in the {} in which polls were not recorded",
                    of.name,
                    percent(share),
                    duration(time)
                ),
                value: share,
                threshold: args.rules.cpu_share,
                unit: "thousandths",
                type_id,
                at: Some((first, task)),
                tid: Some(tid),
                count: Some(n),
                total: Some(weight),
                is_estimated: true,
                ..Finding::default()
            });
        }
    }
    found
}

fn short_sleeps(data: &Data, args: &Args) -> Vec<Finding> {
    let mut types: BTreeMap<Option<i64>, Vec<&OffCpuRow>> = BTreeMap::new();
    for o in data.off_cpu.iter().filter(|o| has_ended(args, o.ts, o.dur) && o.task_id.is_some()) {
        let is_lock = || !matches!(locks::lock(data, o.stack_id), None | Some("park"));
        let is_medium = || asleep(o) >= MS && asleep(o) <= args.rules.long_poll && !is_lock();
        let is_short = o.state == "+" || (is_sleep(o) && (asleep(o) < MS || is_medium()));
        let (type_id, is_own) = (data.type_id(o.task_id), data.attribute(o.stack_id).is_own);
        let keeps_worker = data.keeps_worker(args, data.task_type(type_id), o.tid, o.ts + o.dur, is_own);
        if is_short && keeps_worker && !data.is_in_place(o.stack_id) {
            types.entry(type_id).or_default().push(o);
        }
    }
    let mut found = Vec::new();
    for (type_id, rows) in types {
        let (count, total) =
            (rows.iter().map(|o| blocking::sleeps(o)).sum::<i64>(), rows.iter().map(|o| asleep(o)).sum::<i64>());
        let range = (args.to - args.from).max(SECOND);
        if i128::from(total) * 1_000_000_000 < i128::from(args.rules.short_sleeps) * i128::from(range) {
            continue;
        }
        let mut by_task: BTreeMap<_, i64> = BTreeMap::new();
        for o in &rows {
            *by_task.entry((o.tid, o.task_id.unwrap())).or_default() += asleep(o);
        }
        let ((tid, task), _) = by_task.into_iter().min_by_key(|(key, sum)| (-sum, *key)).unwrap();
        found.push(Finding {
            rule: "short_sleeps",
            sentence: format!(
                "{} slept inside polls {count} times for less than {}, {} in total",
                name(data, type_id),
                round_duration(args.rules.long_poll.max(MS)),
                duration(total)
            ),
            value: total,
            threshold: args.rules.short_sleeps,
            type_id,
            at: Some((0, task)),
            tid: Some(tid),
            count: Some(count),
            total: Some(total),
            is_estimated: rows.iter().any(|o| o.state == "+"),
            ..Finding::default()
        });
    }
    found
}

fn cpu_starved(data: &Data, args: &Args) -> Option<Finding> {
    let least = args.rules.long_poll;
    let wait = |p: &PollRow| p.run_queue.min(p.dur);
    let waited = data.polls.iter().filter(|p| has_ended(args, p.ts, p.dur) && p.dur >= MS && wait(p) > least);
    let waited: Vec<_> = waited.filter(|p| is_task(data, p.type_id.or(data.type_id(Some(p.task_id))))).collect();
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
        who += &format!("; a CPU limit kept its threads from running for {}", duration(throttled));
    }
    Some(Finding {
        rule: "cpu_starved",
        sentence: match waited.len() {
            1 => format!("a poll waited for a CPU for {}{who}", duration(longest)),
            n => format!(
                "polls waited for a CPU {n} times for more than {}, longest {}{who}",
                round_duration(least),
                duration(longest)
            ),
        },
        value: longest,
        threshold: least,
        at: Some((worst.ts, worst.task_id)),
        tid: Some(worst.tid),
        count: Some(len(&waited)),
        total: Some(waited.iter().map(|p| wait(p)).sum()),
        ..Finding::default()
    })
}

fn wake_delay(data: &Data, args: &Args) -> Option<Finding> {
    let polls = data.polls.iter().filter(|p| has_ended(args, p.ts, p.dur) && is_task(data, p.type_id));
    let delays: Vec<_> = polls.filter_map(|p| Some((p.type_id, p.wake_delay?.max(0)))).collect();
    let mut types: BTreeMap<(bool, Option<i64>), i64> = BTreeMap::new();
    for (type_id, delay) in &delays {
        *types.entry((type_id.is_none(), *type_id)).or_default() += delay;
    }
    let ((_, worst), _) = types.into_iter().min_by_key(|(key, sum)| (-sum, *key))?;
    let all: Vec<i64> = delays.iter().map(|(_, delay)| *delay).collect();
    let p99 = percentile(&all, 990, 16)?;
    let most = worst.map(|_| format!("; most affected: {}", name(data, worst))).unwrap_or_default();
    let workers = load::threads(data, "worker").into_iter().filter_map(|w| load(data, args, w.tid));
    let (wanted, waiting) = workers.fold((0, 0), |(wanted, waiting), [observed, blocked, idle, running]| {
        (wanted + observed - idle, waiting + observed - blocked - idle - running)
    });
    if waiting * 1000 > wanted * args.rules.wake_delay_waiting {
        return None;
    }
    (p99 > args.rules.wake_delay_p99 && len(&all) >= args.rules.wake_delay_count).then(|| Finding {
        rule: "wake_delay",
        sentence: format!("wake-to-poll latency p99 {}{most}", duration(p99)),
        value: p99,
        threshold: args.rules.wake_delay_p99,
        type_id: worst,
        count: Some(len(&all)),
        total: Some(all.iter().sum()),
        ..Finding::default()
    })
}

/// Observed, blocked and idle time of a thread, and its time on a CPU. `None` if it has no event in the range.
fn load(data: &Data, args: &Args, tid: i32) -> Option<[i64; 4]> {
    let touches = |ts: i64, dur: i64| ts < args.to && (ts + dur - 1).max(ts) >= args.from;
    let off_cpu = || data.off_cpu.iter().filter(|o| o.tid == tid && touches(o.ts, o.dur));
    let mut events: Vec<_> = off_cpu().map(|o| (o.ts, o.ts + o.dur)).collect();
    let polls = data.polls.iter().filter(|p| p.tid == tid);
    events.extend(polls.filter(|p| touches(p.ts, p.dur)).map(|p| (p.ts, p.ts + p.dur)));
    events.extend(data.samples.iter().filter(|s| s.tid == tid && args.holds(s.ts)).map(|s| (s.ts, s.ts)));
    let first = events.iter().map(|(ts, _)| (*ts).max(args.from)).min();
    let last = events.iter().map(|(_, end)| (*end).min(args.to)).max();
    // What ends as the range begins belongs to it, and has no time in it.
    let ended = data.off_cpu.iter().filter(|o| o.tid == tid).map(|o| (o.ts, o.dur));
    let mut ended = ended.chain(data.polls.iter().filter(|p| p.tid == tid).map(|p| (p.ts, p.dur)));
    if first.is_none() && ended.any(|(ts, dur)| has_ended(args, ts, dur)) {
        return Some([0; 4]);
    }
    let is_worker = data.thread(tid).is_some_and(|t| t.role == "worker");
    let (mut blocked, mut waiting, mut idle) = (0, 0, 0);
    for o in off_cpu() {
        let slept = overlap(o.ts, ready(o), args.from, args.to);
        waiting += overlap(ready(o), o.ts + o.dur, args.from, args.to);
        let of = data.type_of(o.task_id);
        let is_in_task = match of {
            // It may be a worker's own loop.
            None => o.task_id.is_some() && !data.was_worker(tid),
            Some(of) => of.kind != "worker",
        };
        let is_long = has_ended(args, o.ts, o.dur) && is_sleep(o) && asleep(o) >= MS;
        let is_in_place = is_worker
            && is_long
            && of.is_none_or(|of| of.kind == "task")
            && (data.is_in_place(o.stack_id) || data.is_handed(args, tid, o.ts + o.dur));
        if is_in_task && !is_in_place { blocked += slept } else { idle += slept }
    }
    let running = (last? - first? - blocked - waiting - idle).max(0);
    Some([running + blocked + waiting + idle, blocked, idle, running])
}

fn loads(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let per_mille = |part: i64, whole: i64| if whole > 0 { part * 1000 / whole } else { 0 };
    let mut found = Vec::new();
    let mut runtimes: BTreeMap<Option<i64>, Vec<(i64, i32, String)>> = BTreeMap::new();
    for w in load::threads(data, "worker") {
        let [observed, blocked, _, running] = load(data, args, w.tid).unwrap_or_default();
        if observed < rules.observed {
            continue;
        }
        let name = w.worker.map_or_else(|| format!("worker thread {}", w.tid), |n| format!("worker {n}"));
        let share = per_mille(blocked, observed);
        if share > rules.worker_blocked {
            // The longest sleep is where to look.
            let sleeps = sleeps(data, args).filter(|(o, _)| o.tid == w.tid && asleep(o) >= args.asleep);
            let blocking = sleeps.filter(|(o, task)| {
                let is_own = data.attribute(o.stack_id).is_own;
                !data.is_in_place(o.stack_id)
                    && data.keeps_worker(args, data.type_of(Some(*task)), o.tid, o.ts + o.dur, is_own)
            });
            let longest = blocking.min_by_key(|(o, task)| (-asleep(o), o.ts, *task));
            found.push(Finding {
                rule: "worker_blocked",
                is_warning: true,
                sentence: format!("{name} was asleep inside polls for {} of its time", percent(share)),
                value: share,
                threshold: rules.worker_blocked,
                type_id: longest.and_then(|(_, task)| data.type_id(Some(task))),
                at: longest.map(|(o, task)| (o.ts, task)),
                tid: Some(w.tid),
                total: Some(blocked),
                ..Finding::default()
            });
        }
        if observed > 0 {
            runtimes.entry(w.runtime_id).or_default().push((per_mille(running, observed), w.tid, name));
        }
    }
    for workers in runtimes.into_values() {
        let (busy, tid, name) = workers.iter().max_by_key(|(busy, tid, _)| (*busy, Reverse(*tid))).unwrap();
        let (least, _, least_name) = workers.iter().min_by_key(|(busy, tid, _)| (*busy, *tid)).unwrap();
        let ratio = per_mille(*busy, (*least).max(1));
        if *busy > rules.imbalance_busy && ratio > rules.imbalance {
            found.push(Finding {
                rule: "imbalance",
                sentence: format!(
                    "{name} was on a CPU for {} of its time, {least_name} for {}",
                    percent(*busy),
                    percent(*least)
                ),
                value: ratio,
                threshold: rules.imbalance,
                tid: Some(*tid),
                ..Finding::default()
            });
        }
    }
    let pool = load::threads(data, "blocking").into_iter();
    let pool: Vec<_> = pool.filter_map(|t| Some((t.tid, load(data, args, t.tid)?))).collect();
    let (observed, idle) = pool.iter().fold((0, 0), |(o, i), (_, [observed, _, idle, _])| (o + observed, i + idle));
    let share = per_mille(observed - idle, observed);
    if len(&pool) >= rules.pool_threads
        && observed >= rules.observed
        && share > rules.pool_busy
        && jobs(data, args) >= 2 * len(&pool)
    {
        let busiest = pool.iter().min_by_key(|(tid, [observed, _, idle, _])| (idle - observed, *tid));
        found.push(Finding {
            rule: "pool_saturated",
            sentence: format!(
                "the {} threads of the blocking pool were busy for {} of the time",
                pool.len(),
                percent(share)
            ),
            value: share,
            threshold: rules.pool_busy,
            tid: busiest.map(|(tid, _)| *tid),
            ..Finding::default()
        });
    }
    found.into_iter().map(|f| Finding { unit: "thousandths", ..f }).collect()
}

/// Number of tasks with an event on a thread of the pool.
fn jobs(data: &Data, args: &Args) -> i64 {
    let is_of_pool = |tid: i32| data.thread(tid).is_some_and(|t| t.role == "blocking");
    let touches = |o: &OffCpuRow| o.ts < args.to && (o.ts + o.dur - 1).max(o.ts) >= args.from;
    let off_cpu = data.off_cpu.iter().filter(|o| is_of_pool(o.tid) && touches(o)).filter_map(|o| o.task_id);
    let samples = data.samples.iter().filter(|s| is_of_pool(s.tid) && args.holds(s.ts)).filter_map(|s| s.task_id);
    i64::try_from(off_cpu.chain(samples).collect::<BTreeSet<_>>().len()).unwrap()
}

/// Threads, file descriptors and memory.
fn resources_grow(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let mut rows: Vec<_> = data.process.iter().filter(|p| args.holds(p.ts)).collect();
    rows.sort_by_key(|p| (p.ts, p.rss, p.threads, p.fds));
    let of = |value: fn(&ProcessRow) -> Option<i64>| -> Vec<(i64, i64)> {
        rows.iter().filter_map(|p| Some((p.ts, value(p)?))).collect()
    };
    let all = [
        ("threads_grow", rules.threads_grow, "the number of threads", of(|p| Some(p.threads.into()))),
        ("fds_grow", rules.fds_grow, "the number of open file descriptors", of(|p| p.fds.map(i64::from))),
        ("memory_grow", rules.memory_grow, "resident memory", of(|p| Some(p.rss))),
    ];
    let mut found = Vec::new();
    for (rule, least, what, values) in all {
        let n = values.len().min(9);
        if n < 5 {
            continue;
        }
        let points: Vec<_> = (0..n).map(|i| values[i * (values.len() - 1) / (n - 1)]).collect();
        let (first, middle, last) = (points[0], points[(n - 1) / 2], points[n - 1]);
        // Not slower than half of the speed of the first part, without a division.
        let (early, late) = ((middle.0 - first.0, middle.1 - first.1), (last.0 - middle.0, last.1 - middle.1));
        let is_steady = i128::from(late.1) * i128::from(early.0) * 2 >= i128::from(early.1) * i128::from(late.0);
        let (grown, time) = (last.1 - first.1, last.0 - first.0);
        if points.windows(2).all(|pair| pair[0].1 < pair[1].1)
            && is_steady
            && grown >= least.max(1)
            && time >= rules.grow_time
            && last.1 * 1000 >= first.1 * rules.grow_ratio
        {
            found.push(Finding {
                rule,
                sentence: format!("{what} rose steadily from "),
                value: grown,
                threshold: least,
                unit: "count",
                since: Some(first.0),
                ..Finding::default()
            });
        }
    }
    found
}

/// Tasks that panicked or were cancelled.
fn endings(data: &Data, args: &Args) -> Vec<Finding> {
    let rank = |outcome: &str| ["completed", "cancelled", "panicked"].iter().position(|of| *of == outcome);
    let mut ends: BTreeMap<i64, (i64, Option<usize>)> = BTreeMap::new();
    for e in data.ends.iter().filter(|e| args.holds(e.ts)) {
        let end = (e.ts, rank(&e.outcome));
        let first = ends.entry(e.task_id).or_insert(end);
        *first = end.min(*first);
    }
    let mut types: BTreeMap<Option<i64>, Vec<(i64, Option<usize>, i64)>> = BTreeMap::new();
    for (task, (ts, outcome)) in ends {
        let type_id = data.type_id(Some(task));
        if is_task(data, type_id) {
            types.entry(type_id).or_default().push((ts, outcome, task));
        }
    }
    let rules = &args.rules;
    let mut found = Vec::new();
    for (type_id, all) in types {
        let of = |rank| all.iter().filter(|(_, outcome, _)| *outcome == Some(rank)).collect::<Vec<_>>();
        let (cancelled, panicked) = (of(1), of(2));
        let name = name_or(data, type_id, "unknown type");
        let mut add = |rule, of: &[&(i64, Option<usize>, i64)], least: i64, what: &str| {
            let last = of.iter().max_by_key(|(ts, _, task)| (*ts, Reverse(*task))).map(|(ts, _, task)| (*ts, *task));
            found.push(Finding {
                rule,
                sentence: format!("{} of {} tasks of {name} that ended {what}", of.len(), all.len()),
                value: len(of),
                threshold: least,
                unit: "count",
                type_id,
                at: last,
                count: Some(len(of)),
                ..Finding::default()
            });
        };
        if len(&panicked) >= rules.panics.max(1) {
            add("panics", &panicked, rules.panics, "panicked");
        }
        if len(&cancelled) >= rules.cancelled.max(1) && len(&cancelled) * 1000 / len(&all) >= rules.cancelled_share {
            add("cancelled_work", &cancelled, rules.cancelled, "were cancelled before they completed");
        }
    }
    found
}

/// How long a stream was recorded.
fn watched(data: &Data, args: &Args, stream: &str) -> i64 {
    let tenths = (args.from / TENTH..args.to / TENTH).map(|n| n * TENTH);
    tenths.map(|from| on(data, stream, from, from + TENTH)).sum()
}

/// Tasks that wake many others.
fn wake_storms(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let time = watched(data, args, "wakes");
    if time < TENTH || watched(data, args, "polls") < time {
        return Vec::new();
    }
    let mut types: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
    for w in data.wakes.iter().filter(|w| args.holds(w.ts)) {
        let Some(by) = w.waker_task_id.filter(|by| *by != w.task_id) else { continue };
        if let Some(type_id) = data.type_id(Some(by)) {
            *types.entry(type_id).or_default().entry(by).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for (type_id, tasks) in types {
        let wakes: i64 = tasks.values().sum();
        let polls = data.polls.iter().filter(|p| p.type_id == Some(type_id) && has_ended(args, p.ts, p.dur)).count();
        let rate = wakes * SECOND / time.max(1);
        let is_task = data.task_type(Some(type_id)).is_some_and(|t| t.kind == "task");
        let Some(each) = wakes.checked_div(i64::try_from(polls).unwrap()) else { continue };
        if is_task && each >= rules.wake_storm && rate.min(wakes) >= rules.wake_storm_rate {
            let most = tasks.iter().max_by_key(|(task, n)| (**n, Reverse(**task))).map(|(task, _)| (0, *task));
            let name = name(data, Some(type_id));
            found.push(Finding {
                rule: "wake_storm",
                sentence: format!("tasks of {name} woke {each} other tasks per poll, {rate} per second"),
                value: each,
                threshold: rules.wake_storm,
                unit: "count",
                type_id: Some(type_id),
                at: most,
                count: Some(wakes),
                ..Finding::default()
            });
        }
    }
    found
}

/// Types of task that are spawned very often.
fn spawn_rates(data: &Data, args: &Args) -> Vec<Finding> {
    let time = watched(data, args, "spawns");
    let workers = load::threads(data, "worker").into_iter().filter(|w| load(data, args, w.tid).is_some()).count();
    let least = args.rules.spawn_rate * i64::try_from(workers).unwrap().max(1);
    if time < TENTH {
        return Vec::new();
    }
    let mut types: BTreeMap<i64, i64> = BTreeMap::new();
    for s in data.spawns.iter().filter(|s| args.holds(s.ts)) {
        let of = data.type_id(Some(s.task_id)).filter(|id| data.task_type(Some(*id)).is_some_and(|t| t.kind == "task"));
        of.into_iter().for_each(|id| *types.entry(id).or_default() += 1);
    }
    let rates = types.into_iter().map(|(id, spawned)| (id, spawned, spawned * SECOND / time.max(1)));
    let rates = rates.filter(|(_, spawned, rate)| *rate >= least.max(1) && *spawned >= args.rules.spawn_rate);
    rates
        .map(|(type_id, spawned, rate)| Finding {
            rule: "spawn_rate",
            sentence: format!("{rate} tasks of {} were spawned per second", name(data, Some(type_id))),
            value: rate,
            threshold: least,
            unit: "count",
            type_id: Some(type_id),
            count: Some(spawned),
            ..Finding::default()
        })
        .collect()
}

fn tasks_grow(data: &Data, args: &Args) -> Vec<Finding> {
    let rules = &args.rules;
    let watched = watched(data, args, "spawns").min(watched(data, args, "ends"));
    if watched < rules.observed {
        return Vec::new();
    }
    let mut types: BTreeMap<Option<i64>, (i64, i64)> = BTreeMap::new();
    let mut add = |task, spawned, ended| {
        let type_id = data.type_id(Some(task));
        if data.task_type(type_id).is_none_or(|t| t.kind != "worker") {
            let of = types.entry(type_id).or_default();
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
    let types = types.into_iter().filter(|(_, (spawned, ended))| is_growing(*spawned, *ended));
    types
        .map(|(type_id, (spawned, ended))| Finding {
            rule: "tasks_grow",
            sentence: format!(
                "{spawned} tasks of {} were spawned in the {} in which spawns and ends were recorded, {ended} ended",
                name(data, type_id),
                duration(watched)
            ),
            value: spawned,
            threshold: rules.growth,
            unit: "count",
            type_id,
            count: Some(spawned),
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
    let least = rules.self_wakes * (args.to - args.from).max(SECOND) / SECOND;
    let mut types: BTreeMap<Option<i64>, Vec<(i64, i64)>> = BTreeMap::new();
    for (task, (wakes, by_itself)) in tasks {
        let type_id = data.type_id(Some(task));
        let is_often = by_itself > 0 && by_itself >= least;
        if is_often && by_itself * 1000 >= wakes * rules.self_wakes_share && is_task(data, type_id) {
            types.entry(type_id).or_default().push((by_itself, task));
        }
    }
    let types = types.into_iter();
    types
        .map(|(type_id, tasks)| {
            let wakes: i64 = tasks.iter().map(|(n, _)| n).sum();
            let of = name_or(data, type_id, "unknown type");
            let most = tasks.iter().min_by_key(|(n, task)| (-n, *task)).unwrap().1;
            Finding {
                rule: "self_waking",
                sentence: match tasks.len() {
                    1 => format!("a task of {of} woke itself {wakes} times"),
                    n => format!("{n} tasks of {of} woke themselves {wakes} times"),
                },
                value: wakes,
                threshold: least,
                unit: "count",
                type_id,
                at: Some((0, most)),
                count: Some(len(&tasks)),
                ..Finding::default()
            }
        })
        .collect()
}

/// Waits of 1 ms or more for a lock, with the last sleep of the thread that ended each.
fn lock_waits<'a>(data: &'a Data, args: &'a Args) -> Vec<(&'a OffCpuRow, i64, Option<(&'a OffCpuRow, i64)>)> {
    let sleeps: Vec<_> = sleeps(data, args).filter(|(_, task)| data.is_in_task(Some(*task))).collect();
    let mut waits = Vec::new();
    for (wait, task) in sleeps.iter().copied().filter(|(o, _)| asleep(o) >= args.rules.lock_wait) {
        let is_lock = matches!(locks::lock(data, wait.stack_id), Some("mutex" | "rwlock"));
        let is_runtimes = data.thread(wait.tid).is_some_and(|t| t.role != "other");
        if is_lock && is_runtimes && is_task(data, data.type_id(Some(task))) {
            let end = wait.ts + asleep(wait);
            let on_waker = sleeps.iter().copied().filter(|(o, _)| Some(o.tid) == wait.waker_tid && o.ts < end);
            waits.push((wait, task, on_waker.max_by_key(|(o, _)| (o.ts, asleep(o)))));
        }
    }
    waits
}

/// Waits whose holder was not asleep, and samples of it meanwhile.
fn lock_owners_busy(data: &Data, args: &Args) -> Vec<Finding> {
    let mut types: BTreeMap<Option<i64>, (Vec<(&OffCpuRow, i64)>, Vec<&SampleRow>)> = BTreeMap::new();
    for (wait, task, last) in lock_waits(data, args) {
        let Some(waker) = wait.waker_tid.filter(|tid| *tid != wait.tid) else { continue };
        let end = wait.ts + asleep(wait);
        let from = match last {
            Some((o, _)) if o.ts + asleep(o) > end => continue,
            Some((o, _)) if o.ts + asleep(o) > wait.ts => {
                if matches!(locks::lock(data, o.stack_id), None | Some("park")) {
                    continue;
                }
                o.ts + o.dur
            }
            _ => wait.ts,
        };
        let (waits, marks) = types.entry(data.type_id(Some(task))).or_default();
        waits.push((wait, task));
        let is_mark = |s: &&SampleRow| s.tid == waker && from <= s.ts && s.ts < end && args.holds(s.ts);
        marks.extend(data.samples.iter().filter(is_mark).filter(|s| data.is_in_task(s.task_id) && s.task_id.is_some()));
    }
    let mut found = Vec::new();
    for (type_id, (waits, marks)) in types {
        let sum: i64 = waits.iter().map(|(o, _)| asleep(o)).sum();
        let range = (args.to - args.from).max(SECOND);
        if i128::from(sum) * i128::from(SECOND) < i128::from(args.rules.lock_busy) * i128::from(range) {
            continue;
        }
        let mut places: BTreeMap<_, i64> = BTreeMap::new();
        for mark in &marks {
            let owner = data.type_id(mark.task_id);
            *places.entry((owner, data.cpu_place(mark.stack_id, data.task_type(owner)))).or_default() += mark.weight;
        }
        let (all, most) = (places.values().sum::<i64>(), places.values().max().copied().unwrap_or(0));
        if marks.is_empty() || all * 2 < sum || most * 2 < all {
            continue;
        }
        let (worst, task) = waits.iter().max_by_key(|(o, task)| (asleep(o), Reverse(o.ts), o.tid, *task)).unwrap();
        let times = if waits.len() > 1 { format!("{} times, longest ", waits.len()) } else { String::new() };
        found.push(Finding {
            rule: "lock_owner_busy",
            sentence: format!("{} waited {times}{} for a lock", name(data, type_id), duration(asleep(worst))),
            value: sum,
            threshold: args.rules.lock_busy,
            type_id,
            at: Some((worst.ts, *task)),
            tid: Some(worst.tid),
            count: Some(len(&waits)),
            total: Some(sum),
            is_estimated: true,
            ..Finding::default()
        });
    }
    found
}

fn lock_owners(data: &Data, args: &Args) -> Vec<Finding> {
    let least = args.rules.lock_wait;
    let mut waits: BTreeMap<_, Vec<(&OffCpuRow, i64)>> = BTreeMap::new();
    for (wait, task, last) in lock_waits(data, args) {
        let Some((owner, owner_task)) = last else { continue };
        let type_id = data.type_id(Some(task));
        let end = wait.ts + asleep(wait);
        let over = owner.ts + asleep(owner);
        let is_over = owner.tid != wait.tid && over > wait.ts && over <= end;
        if is_over && matches!(locks::lock(data, owner.stack_id), None | Some("park")) {
            let owner_type = data.type_id(Some(owner_task));
            let place = data.cpu_place(owner.stack_id, data.task_type(owner_type));
            waits.entry((type_id, owner_type, place)).or_default().push((wait, task));
        }
    }
    let waits = waits.into_iter();
    waits
        .map(|((type_id, owner_type, _), waits)| {
            let (worst, task) = waits.iter().max_by_key(|(o, task)| (asleep(o), Reverse(o.ts), o.tid, *task)).unwrap();
            let times = if waits.len() > 1 { format!("{} times, longest ", waits.len()) } else { String::new() };
            Finding {
                rule: "lock_owner_asleep",
                sentence: format!(
                    "{} waited {times}{} for a lock whose holder, {}, slept",
                    name(data, type_id),
                    duration(asleep(worst)),
                    name(data, owner_type)
                ),
                value: asleep(worst),
                threshold: least,
                type_id,
                at: Some((worst.ts, *task)),
                tid: Some(worst.tid),
                count: Some(len(&waits)),
                total: Some(waits.iter().map(|(o, _)| asleep(o)).sum()),
                ..Finding::default()
            }
        })
        .collect()
}
