//! What held workers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::names::{Blamed, Place, asleep, is_sleep};
use crate::data::{Args, Data};

/// A stretch.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) ts: i64,
    pub(super) dur: i64,
    pub(super) is_cpu: bool,
    pub(super) is_estimated: bool,
    pub(super) task: i64,
    pub(super) tid: i32,
    type_id: Option<i64>,
    blamed: Blamed,
}

/// The frame that weighs most, own ones before others.
fn heaviest(data: &Data, samples: impl Iterator<Item = (Option<i64>, i64)>) -> Blamed {
    let mut weights: BTreeMap<Blamed, i64> = BTreeMap::new();
    for (stack, weight) in samples {
        *weights.entry(data.blame(stack)).or_default() += weight;
    }
    let rank = |(b, w): &(Blamed, i64)| (!b.is_own, -w, b.frame.is_none(), b.frame);
    weights.into_iter().min_by_key(rank).map_or(Blamed { frame: None, is_own: false }, |(b, _)| b)
}

/// Consecutive samples of a task on a thread without a sleep between, where polls were not watched.
fn islands(data: &Data, args: &Args) -> Vec<Vec<usize>> {
    // The stretch without polls that a moment lies in: by its beginning.
    let gap = |ts: i64| -> Option<i64> {
        if data.polls_on(ts) {
            return None;
        }
        let ends = data.coverage.iter().filter(|c| c.stream == "polls" && c.dur > 0).map(|c| c.ts + c.dur);
        Some(ends.filter(|end| *end <= ts).max().unwrap_or(args.from).max(args.from))
    };
    let mut marks: Vec<(i32, i64, i64, bool, Option<i64>, usize)> = Vec::new();
    for (i, s) in data.samples.iter().enumerate().filter(|(_, s)| args.holds(s.ts)) {
        marks.extend(gap(s.ts).map(|gap| (s.tid, gap, s.ts, false, s.task_id, i)));
    }
    for (i, o) in data.off_cpu.iter().enumerate().filter(|(_, o)| args.holds(o.ts) && is_sleep(o)) {
        marks.extend(gap(o.ts).map(|gap| (o.tid, gap, o.ts, true, None, i)));
    }
    marks.sort_unstable();
    let mut islands: Vec<Vec<usize>> = Vec::new();
    let mut before: Option<(i32, i64, Option<i64>)> = None;
    for (tid, gap, _, is_sleep, task, i) in marks {
        if !is_sleep && task.is_some() {
            match islands.last_mut() {
                Some(island) if before == Some((tid, gap, task)) => island.push(i),
                _ => islands.push(vec![i]),
            }
        }
        before = Some((tid, gap, task));
    }
    islands
}

pub(super) fn stretches(data: &Data, args: &Args) -> Vec<(Held, Place, Option<String>)> {
    let mut all = Vec::new();
    for o in data.off_cpu.iter().filter(|o| args.holds(o.ts) && is_sleep(o)) {
        if let Some(task) = o.task_id.filter(|_| asleep(o) >= args.asleep && o.dur >= args.asleep) {
            let blamed = data.blame(o.stack_id);
            let (ts, dur, tid) = (o.ts, asleep(o), o.tid);
            all.push(Held { ts, dur, is_cpu: false, is_estimated: false, task, tid, type_id: None, blamed });
        }
    }
    for p in data.polls.iter().filter(|p| args.holds(p.ts)) {
        let busy = p.dur - p.blocked - p.run_queue;
        if busy >= args.threshold && p.dur >= args.threshold {
            let within = data.samples.iter().filter(|s| {
                args.holds(s.ts)
                    && s.tid == p.tid
                    && s.task_id == Some(p.task_id)
                    && p.ts <= s.ts
                    && s.ts < p.ts + p.dur
            });
            let blamed = heaviest(data, within.map(|s| (s.stack_id, s.weight)));
            let (ts, task, tid, type_id) = (p.ts, p.task_id, p.tid, p.type_id);
            all.push(Held { ts, dur: busy, is_cpu: true, is_estimated: false, task, tid, type_id, blamed });
        }
    }
    for island in islands(data, args) {
        let samples: Vec<_> = island.iter().map(|i| &data.samples[*i]).collect();
        let (first, last) = (samples[0], samples[samples.len() - 1]);
        let dur: i64 = samples.iter().map(|s| s.weight).sum();
        if samples.len() >= 2 && dur >= args.threshold && 2 * (last.ts - first.ts) >= args.threshold {
            let blamed = heaviest(data, samples.iter().map(|s| (s.stack_id, s.weight)));
            let (ts, task, tid) = (first.ts, first.task_id.unwrap(), first.tid);
            all.push(Held { ts, dur, is_cpu: true, is_estimated: true, task, tid, type_id: None, blamed });
        }
    }
    let named = all.into_iter().filter_map(|held| {
        let of = data.task_type(held.type_id.or(data.type_id(Some(held.task))));
        let is_task = of.is_none_or(|t| t.kind == "task") && args.is_wanted(Some(held.task), held.tid);
        is_task.then(|| {
            let place = data.stretch_place(held.blamed, of);
            let name = of.map(|t| t.name.to_string());
            (held, place, name)
        })
    });
    named.collect()
}

fn cause(is_cpu: bool) -> &'static str {
    if is_cpu { "cpu" } else { "blocked" }
}

pub(super) fn each(data: &Data, args: &Args) -> Vec<Value> {
    let stretches = stretches(data, args).into_iter();
    stretches
        .map(|(held, (function, file, line), task_type)| {
            json!({
                "ts": held.ts, "dur": held.dur, "cause": cause(held.is_cpu), "estimated": held.is_estimated,
                "function": function, "file": file, "line": line, "task_type": task_type, "task_id": held.task,
                "tid": held.tid, "thread": data.thread_name(held.tid),
            })
        })
        .collect()
}

/// The value at a part of the way through them in order, interpolated.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "few and small"
)]
fn interpolated(sorted: &[i64], part: f64) -> i64 {
    let at = part * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    (low as f64 + (high - low) as f64 * at.fract()).round() as i64
}

pub(super) fn culprits(data: &Data, args: &Args) -> Vec<Value> {
    let mut culprits: BTreeMap<_, Vec<(Held, Option<i32>)>> = BTreeMap::new();
    for (held, (function, file, line), task_type) in stretches(data, args) {
        // Each line that sleeps is a culprit of its own; a function that computes is one.
        let key = (held.is_cpu, task_type, function, file, line.filter(|_| !held.is_cpu));
        culprits.entry(key).or_default().push((held, line));
    }
    let culprits = culprits.into_iter();
    culprits
        .map(|((is_cpu, task_type, function, file, _), held)| {
            let (worst, line) = held.iter().min_by_key(|(h, _)| (-h.dur, h.ts, h.tid)).unwrap();
            let mut durs: Vec<i64> = held.iter().map(|(h, _)| h.dur).collect();
            durs.sort_unstable();
            json!({
                "cause": cause(is_cpu), "count": held.len(), "total": durs.iter().sum::<i64>(),
                "median": interpolated(&durs, 0.5), "longest": worst.dur,
                "estimated": held.iter().any(|(h, _)| h.is_estimated), "function": function, "file": file,
                "line": line, "task_type": task_type, "p99": interpolated(&durs, 0.99),
                "first_ts": held.iter().map(|(h, _)| h.ts).min(), "last_ts": held.iter().map(|(h, _)| h.ts).max(),
                "worst_ts": worst.ts, "task_id": worst.task, "tid": worst.tid, "thread": data.thread_name(worst.tid),
            })
        })
        .collect()
}
