//! Where the time of threads went.

use std::collections::BTreeMap;

use hud_common::session::ThreadRow;
use serde_json::{Value, json};

use super::{
    blocking::sleeps,
    in_progress::{self, Part},
    names::{asleep, is_sleep, ready},
    overlap, share,
};
use crate::data::{Args, Data, MS, SECOND};

/// Where a thread's time went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) observed: i64,
    pub(super) blocked: i64,
    pub(super) waiting: i64,
    pub(super) idle: i64,
    /// Asleep inside `block_in_place`, or in a task of unknown type: of a worker.
    pub(super) apart: i64,
}

impl Load {
    pub(super) fn running(&self) -> i64 {
        self.observed - self.blocked - self.waiting - self.idle - self.apart
    }
}

/// What is known of threads beside events: sleeps and busy polls in progress.
#[derive(Default)]
struct Progress {
    sleeps: Vec<Part>,
    busy: Vec<Part>,
}

impl Progress {
    fn of(data: &Data, args: &Args) -> Self {
        Progress { sleeps: in_progress::sleeps(data, args), busy: in_progress::busy(data, args) }
    }
}

/// From the first to the last sign of life of a thread, looked for from a second before the window to a second after it.
fn seen(data: &Data, args: &Args, progress: &Progress, tid: i32) -> Option<(i64, i64)> {
    let (from, to) = (args.from - SECOND, args.to + SECOND);
    let intervals = data.off_cpu.iter().filter(|o| o.tid == tid).map(|o| (o.ts, o.ts + o.dur));
    let polls = data.polls.iter().filter(|p| p.tid == tid).map(|p| (p.ts, p.ts + p.dur));
    let mut signs: Vec<_> = intervals.chain(polls).filter(|(ts, end)| *ts < to && *end > from).collect();
    signs.extend(data.samples.iter().filter(|s| s.tid == tid && from <= s.ts && s.ts < to).map(|s| (s.ts, s.ts)));
    let parts = progress.sleeps.iter().chain(&progress.busy);
    signs.extend(parts.filter(|p| p.tid == tid).map(|p| (p.ts, p.end)));
    let first = signs.iter().map(|(ts, _)| *ts).min()?;
    let last = signs.iter().map(|(_, end)| *end).max()?;
    Some((first.max(args.from), last.min(args.to)))
}

/// A thread's time between two moments of the window.
fn load(data: &Data, args: &Args, progress: &Progress, tid: i32, from: i64, to: i64) -> Load {
    let mut load = Load {
        observed: seen(data, args, progress, tid).map_or(0, |(a, b)| overlap(a, b, from, to)),
        ..Load::default()
    };
    let intervals = data.off_cpu.iter().filter(|o| o.tid == tid).map(|o| {
        load.waiting += overlap(ready(o), o.ts + o.dur, from, to);
        (o.ts, ready(o), o.ts + o.dur, is_sleep(o) && asleep(o) >= MS, o.stack_id, o.task_id)
    });
    let sleeps = progress.sleeps.iter().filter(|s| s.tid == tid);
    let sleeps = sleeps.map(|s| (s.ts, s.end, s.end, true, s.stack, Some(s.task)));
    for (ts, ready, end, is_long, stack, task) in intervals.chain(sleeps).collect::<Vec<_>>() {
        let slept = overlap(ts, ready, from, to);
        let is_apart = is_long && (data.is_in_place(stack) || data.is_handed(args, tid, end));
        let is_typed = data.type_of(task).is_some();
        match data.is_in_task(task) {
            // What a worker sleeps in a task of unknown type may be its own loop's sleep.
            true if is_apart || (!is_typed && data.was_worker(tid)) => load.apart += slept,
            true => load.blocked += slept,
            false => load.idle += slept,
        }
    }
    load
}

pub(super) fn whole(data: &Data, args: &Args, tid: i32) -> Load {
    load(data, args, &Progress::default(), tid, args.from, args.to)
}

/// The threads of a role.
pub(super) fn threads<'a>(data: &'a Data, role: &str) -> Vec<&'a ThreadRow> {
    let mut tids: Vec<i32> = data.threads.iter().map(|t| t.tid).collect();
    tids.sort_unstable();
    tids.dedup();
    tids.into_iter().filter_map(|tid| data.thread(tid)).filter(|t| t.role == role).collect()
}

fn workers_of<'a>(data: &'a Data, args: &Args) -> Vec<&'a ThreadRow> {
    threads(data, "worker").into_iter().filter(|t| args.thread.is_none_or(|tid| tid == i64::from(t.tid))).collect()
}

pub(super) fn workers(data: &Data, args: &Args) -> Vec<Value> {
    let workers = workers_of(data, args).into_iter();
    let (progress, stuck) = (Progress::of(data, args), in_progress::at_the_end(data, args));
    workers
        .map(|w| {
            let load = load(data, args, &progress, w.tid, args.from, args.to);
            let polls = data.polls.iter().filter(|p| p.tid == w.tid && args.holds(p.ts));
            let polls: Vec<i64> =
                polls.filter(|p| data.task_type(p.type_id).is_none_or(|t| t.kind != "worker")).map(|p| p.dur).collect();
            let part = |part| share(part, load.observed);
            json!({
                "runtime_id": w.runtime_id, "worker": w.worker, "tid": w.tid, "observed": load.observed,
                "running_share": part(load.running()), "blocked_share": part(load.blocked),
                "waiting_share": part(load.waiting), "idle_share": part(load.idle + load.apart),
                "polls": data.polls_watched(args).then_some(polls.len()), "longest_poll": polls.iter().max(),
                "in_progress": stuck.iter().find(|(tid, ..)| *tid == w.tid).map(|(.., lasted)| lasted),
                "running": load.running(), "blocked": load.blocked, "waiting": load.waiting,
                "idle": load.idle + load.apart, "thread": w.name,
            })
        })
        .collect()
}

pub(super) fn timeline(data: &Data, args: &Args) -> Vec<Value> {
    let mut rows = Vec::new();
    let progress = Progress::of(data, args);
    for w in workers_of(data, args) {
        let Some((first, last)) = seen(data, args, &progress, w.tid) else { continue };
        let mut step = args.from;
        while step < args.to {
            let (from, full) = (step, step + args.step);
            let to = full.min(args.to);
            step = full;
            if first >= last || first >= to || last <= from {
                continue;
            }
            let load = load(data, args, &progress, w.tid, from, to);
            let (mut polls, mut longest) = (0, None);
            let mut shares: BTreeMap<String, i64> = BTreeMap::new();
            for p in data.polls.iter().filter(|p| p.tid == w.tid) {
                let begins = from <= p.ts && p.ts < to;
                let of = data.task_type(p.type_id);
                if (begins || (p.ts < from && p.ts + p.dur > from)) && of.is_none_or(|t| t.kind != "worker") {
                    polls += i64::from(begins);
                    longest = longest.max(Some(p.dur));
                    if let Some(of) = of {
                        *shares.entry(of.name.to_string()).or_default() += overlap(p.ts, p.ts + p.dur, from, full);
                    }
                }
            }
            for s in data.samples.iter().filter(|s| s.tid == w.tid && from <= s.ts && s.ts < to) {
                if let Some(of) = data.shown_type(s.task_id) {
                    *shares.entry(of.name.to_string()).or_default() += s.weight;
                }
            }
            for o in data.off_cpu.iter().filter(|o| o.tid == w.tid) {
                if let Some(of) = data.shown_type(o.task_id) {
                    *shares.entry(of.name.to_string()).or_default() += overlap(o.ts, ready(o), from, to);
                }
            }
            for s in progress.sleeps.iter().filter(|s| s.tid == w.tid) {
                if let Some(of) = data.shown_type(Some(s.task)) {
                    *shares.entry(of.name.to_string()).or_default() += overlap(s.ts, s.end, from, to);
                }
            }
            let owner = shares.into_iter().filter(|(_, s)| *s > 0).min_by_key(|(name, s)| (-s, name.clone()));
            rows.push(json!({
                "ts": from, "dur": to - from, "runtime_id": w.runtime_id, "worker": w.worker, "tid": w.tid,
                "running": load.running(), "blocked": load.blocked, "waiting": load.waiting,
                "idle": load.idle + load.apart, "polls": data.polls_watched(args).then_some(polls), "longest_poll": longest,
                "task_type": owner.map(|(name, _)| name),
            }));
        }
    }
    rows
}

pub(super) fn run_queue(data: &Data, args: &Args) -> Vec<Value> {
    #[derive(Default)]
    struct Wait {
        waits: i64,
        total: i64,
        longest: i64,
        preempted: i64,
    }
    let mut waits: BTreeMap<_, Wait> = BTreeMap::new();
    for o in data.off_cpu.iter().filter(|o| args.thread.is_none_or(|t| t == i64::from(o.tid))) {
        let (from, to) = (ready(o), o.ts + o.dur);
        if from >= to || from >= args.to || to <= args.from {
            continue;
        }
        let name = data.shown_type(o.task_id).map(|t| t.name.to_string());
        let wait = waits.entry((o.tid, name, data.is_in_task(o.task_id))).or_default();
        let part = overlap(from, to, args.from, args.to);
        let waits = sleeps(o);
        wait.waits += waits;
        wait.total += part;
        wait.longest = wait.longest.max((to - from) / waits);
        wait.preempted += if o.state == "R" { part } else { 0 };
    }
    let waits = waits.into_iter();
    waits
        .map(|((tid, task_type, in_task), w)| {
            let thread = data.thread(tid);
            json!({
                "thread": thread.map(|t| t.name.clone()), "role": thread.map(|t| t.role.clone()),
                "task_type": task_type, "waits": w.waits, "total": w.total, "share": share(w.total, args.to - args.from),
                "longest": w.longest, "preempted": w.preempted, "woken": w.total - w.preempted, "in_task": in_task,
                "tid": tid,
            })
        })
        .collect()
}

/// Durations of jobs, and the times in the queue that are known.
#[derive(Default)]
struct Works {
    durs: Vec<i64>,
    queued: Vec<i64>,
    tids: Vec<i32>,
}

impl Works {
    fn row(&self, is_watched: bool) -> serde_json::Map<String, Value> {
        let queued = i64::try_from(self.queued.len()).unwrap();
        let mean = self.queued.iter().sum::<i64>().checked_div(queued);
        let Value::Object(row) = json!({
            "works": is_watched.then_some(self.durs.len()), "longest": self.durs.iter().max(),
            "queued": is_watched.then_some(queued), "queued_mean": mean, "queued_longest": self.queued.iter().max(),
        }) else {
            unreachable!()
        };
        row
    }
}

pub(super) fn pool(data: &Data, args: &Args) -> Vec<Value> {
    let is_watched = data.polls_watched(args);
    let (mut by_thread, mut by_type): (BTreeMap<i32, Works>, BTreeMap<String, Works>) = Default::default();
    let pool = threads(data, "blocking");
    let mut all = Works::default();
    for p in data.polls.iter().filter(|p| args.holds(p.ts)) {
        let Some(of) = data.task_type(p.type_id).filter(|t| t.kind == "blocking") else { continue };
        let spawns =
            data.spawns.iter().filter(|s| s.task_id == p.task_id && args.from - SECOND <= s.ts && s.ts < args.to);
        let spawned = spawns.map(|s| s.ts).min().filter(|ts| *ts <= p.ts);
        let is_pool = pool.iter().any(|t| t.tid == p.tid);
        let both = [by_thread.entry(p.tid).or_default(), by_type.entry(of.name.to_string()).or_default()];
        for works in both.into_iter().chain(is_pool.then_some(&mut all)) {
            works.durs.push(p.dur);
            works.queued.extend(spawned.map(|ts| p.ts - ts));
            works.tids.push(p.tid);
        }
    }
    let row = |what: &str, name: Option<String>, threads: usize, load: Option<Load>, busy: i64, tid, works: &Works| {
        let mut row = works.row(is_watched);
        let Value::Object(rest) = json!({
            "what": what, "name": name, "threads": threads, "observed": load.map(|l| l.observed), "busy": busy,
            "busy_share": load.and_then(|l| share(busy, l.observed)),
            "idle_share": load.and_then(|l| share(l.idle, l.observed)), "idle": load.map(|l| l.idle), "tid": tid,
        }) else {
            unreachable!()
        };
        row.extend(rest);
        Value::Object(row)
    };
    let mut rows = Vec::new();
    let mut sum = Load::default();
    for t in &pool {
        let load = whole(data, args, t.tid);
        let works = by_thread.remove(&t.tid).unwrap_or_default();
        rows.push(row(
            "thread",
            Some(t.name.to_string()),
            1,
            Some(load),
            load.observed - load.idle,
            Some(t.tid),
            &works,
        ));
        sum = Load { observed: sum.observed + load.observed, idle: sum.idle + load.idle, ..sum };
    }
    if !pool.is_empty() {
        rows.push(row("pool", None, pool.len(), Some(sum), sum.observed - sum.idle, None, &all));
    }
    for (name, works) in by_type {
        let mut tids = works.tids.clone();
        tids.sort_unstable();
        tids.dedup();
        rows.push(row("work", Some(name), tids.len(), None, works.durs.iter().sum(), None, &works));
    }
    rows
}
