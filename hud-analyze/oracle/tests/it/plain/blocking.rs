//! What held workers.

use std::collections::BTreeMap;

use hud_common::session::OffCpuRow;
use serde_json::{Value, json};

use super::{
    in_progress,
    names::{Blamed, Place, asleep, is_sleep},
};
use crate::data::{Args, Data};

/// An interval.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) ts: i64,
    pub(super) dur: i64,
    pub(super) is_cpu: bool,
    pub(super) is_estimated: bool,
    end: i64,
    is_polled: bool,
    pub(super) task: i64,
    pub(super) tid: i32,
    type_id: Option<i64>,
    blamed: Blamed,
    /// For how long its poll had been in progress, if that is all that is known.
    in_progress: Option<i64>,
}

/// The frame that weighs most, own ones before others.
fn heaviest(data: &Data, samples: impl Iterator<Item = (Option<i64>, i64)>) -> Blamed {
    let mut weights: BTreeMap<Blamed, i64> = BTreeMap::new();
    for (stack, weight) in samples {
        *weights.entry(data.attribute(stack)).or_default() += weight;
    }
    let rank = |(b, w): &(Blamed, i64)| (!b.is_own, -w, b.frame.is_none(), b.frame);
    weights.into_iter().min_by_key(rank).map_or(Blamed { frame: None, is_own: false }, |(b, _)| b)
}

/// Consecutive samples of a task on a thread without a sleep between, where polls were not watched.
fn islands(data: &Data, args: &Args) -> Vec<Island> {
    // The interval without polls that a moment lies in: by its beginning.
    let gap = |ts: i64| -> Option<i64> {
        if data.polls_on(ts) {
            return None;
        }
        let ends = data.coverage.iter().filter(|c| c.stream == "polls" && c.dur > 0).map(|c| c.ts + c.dur);
        Some(ends.filter(|end| *end <= ts).max().unwrap_or(args.from).max(args.from))
    };
    let mut marks: Vec<(i32, i64, i64, u8, Option<i64>, usize)> = Vec::new();
    for (i, s) in data.samples.iter().enumerate().filter(|(_, s)| args.holds(s.ts)) {
        marks.extend(gap(s.ts).map(|gap| (s.tid, gap, s.ts, 0, s.task_id, i)));
    }
    for (i, o) in data.off_cpu.iter().enumerate().filter(|(_, o)| args.holds(o.ts)) {
        // A sleep ends the run of samples; waiting for a CPU in the same task does not.
        let (kind, task) = if is_sleep(o) || o.state == "+" { (1, None) } else { (2, o.task_id) };
        marks.extend(gap(o.ts).map(|gap| (o.tid, gap, o.ts, kind, task, i)));
    }
    marks.sort_unstable();
    let mut islands: Vec<Island> = Vec::new();
    let mut before: Option<(i32, i64, Option<i64>)> = None;
    for (tid, gap, _, kind, task, i) in marks {
        if task.is_some() {
            if before != Some((tid, gap, task)) {
                islands.push(Island::default());
            }
            if let Some(island) = islands.last_mut() {
                if kind == 0 { island.samples.push(i) } else { island.off.push(i) }
            }
        }
        before = Some((tid, gap, task));
    }
    islands.retain(|island| island.samples.len() >= 2);
    islands
}

/// Samples, and rows off CPU between them.
#[derive(Default)]
struct Island {
    samples: Vec<usize>,
    off: Vec<usize>,
}

pub(super) fn intervals(data: &Data, args: &Args) -> Vec<(Held, Place, Option<String>)> {
    let mut all = Vec::new();
    for o in data.off_cpu.iter().filter(|o| args.holds(o.ts) && is_sleep(o)) {
        if let Some(task) = o.task_id.filter(|_| asleep(o) >= args.asleep && o.dur >= args.asleep) {
            let blamed = data.attribute(o.stack_id);
            let (ts, dur, end, tid) = (o.ts, asleep(o), o.ts + o.dur, o.tid);
            if !data.is_in_place(o.stack_id) {
                all.push(Held {
                    ts,
                    dur,
                    is_cpu: false,
                    is_estimated: false,
                    end,
                    is_polled: false,
                    task,
                    tid,
                    type_id: None,
                    blamed,
                    in_progress: None,
                });
            }
        }
    }
    for sleep in in_progress::sleeps(data, args) {
        let dur = sleep.end - sleep.ts;
        if dur >= args.asleep && !data.is_in_place(sleep.stack) {
            all.push(Held {
                ts: sleep.ts,
                dur,
                is_cpu: false,
                is_estimated: false,
                end: sleep.end,
                is_polled: false,
                task: sleep.task,
                tid: sleep.tid,
                type_id: sleep.type_id,
                blamed: data.attribute(sleep.stack),
                in_progress: Some(sleep.lasted),
            });
        }
    }
    let ended = data.polls.iter().filter(|p| args.holds(p.ts) && p.dur >= args.threshold).map(|p| {
        let busy = p.dur - p.blocked - p.run_queue;
        (p.tid, p.task_id, p.type_id, p.ts, p.ts + p.dur, busy, None)
    });
    let running = in_progress::busy(data, args).into_iter();
    let running = running.map(|p| (p.tid, p.task, p.type_id, p.ts, p.end, p.busy, Some(p.lasted)));
    for (tid, task, type_id, ts, end, dur, in_progress) in ended.chain(running) {
        if dur >= args.threshold {
            let within = data
                .samples
                .iter()
                .filter(|s| args.holds(s.ts) && s.tid == tid && s.task_id == Some(task) && ts <= s.ts && s.ts < end);
            if within.clone().any(|s| data.is_in_place(s.stack_id)) {
                continue;
            }
            let blamed = heaviest(data, within.map(|s| (s.stack_id, s.weight)));
            all.push(Held {
                ts,
                dur,
                is_cpu: true,
                is_estimated: false,
                end,
                is_polled: true,
                task,
                tid,
                type_id,
                blamed,
                in_progress,
            });
        }
    }
    for island in islands(data, args) {
        let samples: Vec<_> = island.samples.iter().map(|i| &data.samples[*i]).collect();
        let (first, last) = (samples[0], samples[samples.len() - 1]);
        let n = i64::try_from(samples.len()).unwrap();
        let off = island.off.iter().map(|i| &data.off_cpu[*i]).filter(|o| first.ts < o.ts && o.ts < last.ts);
        let on_cpu = last.ts - first.ts - off.map(|o| o.dur).sum::<i64>();
        let dur = on_cpu.min(samples.iter().map(|s| s.weight).sum::<i64>() * (n - 1) / n);
        if dur >= args.threshold && !samples.iter().any(|s| data.is_in_place(s.stack_id)) {
            let blamed = heaviest(data, samples.iter().map(|s| (s.stack_id, s.weight)));
            let (ts, end, task, tid) = (first.ts, last.ts, first.task_id.unwrap(), first.tid);
            all.push(Held {
                ts,
                dur,
                is_cpu: true,
                is_estimated: true,
                end,
                is_polled: false,
                task,
                tid,
                type_id: None,
                blamed,
                in_progress: None,
            });
        }
    }
    let named = all.into_iter().filter_map(|held| {
        let of = data.task_type(held.type_id.or(data.type_id(Some(held.task))));
        let is_code = held.is_polled || held.blamed.is_own;
        let is_held = data.keeps_worker(args, of, held.tid, held.end, is_code);
        (is_held && args.is_wanted(Some(held.task), held.tid)).then(|| {
            let place = data.interval_place(held.blamed, of);
            let name = of.map(|t| t.name.to_string());
            (held, place, name)
        })
    });
    named.collect()
}

fn spans(is_estimated: bool) -> &'static str {
    if is_estimated { "one poll or several" } else { "one poll" }
}

fn cause(is_cpu: bool) -> &'static str {
    if is_cpu { "cpu" } else { "blocked" }
}

pub(super) fn each(data: &Data, args: &Args) -> Vec<Value> {
    let intervals = intervals(data, args).into_iter();
    intervals
        .map(|(held, (function, file, line), task_type)| {
            json!({
                "ts": held.ts, "dur": held.dur, "cause": cause(held.is_cpu), "spans": spans(held.is_estimated),
                "estimated": held.is_estimated, "in_progress": held.in_progress,
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
    for (held, (function, file, line), task_type) in intervals(data, args) {
        // Each line that sleeps is a culprit of its own; a function that computes is one.
        let key = (held.is_cpu, held.is_estimated, task_type, function, file, line.filter(|_| !held.is_cpu));
        culprits.entry(key).or_default().push((held, line));
    }
    let culprits = culprits.into_iter();
    let mut rows: Vec<Value> = culprits
        .map(|((is_cpu, is_estimated, task_type, function, file, _), held)| {
            let (worst, line) = held.iter().min_by_key(|(h, _)| (-h.dur, h.ts, h.tid)).unwrap();
            let mut durs: Vec<i64> = held.iter().map(|(h, _)| h.dur).collect();
            durs.sort_unstable();
            json!({
                "cause": cause(is_cpu), "spans": spans(is_estimated), "count": held.len(),
                "total": durs.iter().sum::<i64>(), "median": interpolated(&durs, 0.5), "longest": worst.dur,
                "estimated": is_estimated, "in_progress": held.iter().filter_map(|(h, _)| h.in_progress).max(),
                "function": function, "file": file,
                "line": line, "task_type": task_type, "p99": interpolated(&durs, 0.99),
                "first_ts": held.iter().map(|(h, _)| h.ts).min(), "last_ts": held.iter().map(|(h, _)| h.ts).max(),
                "worst_ts": worst.ts, "task_id": worst.task, "tid": worst.tid, "thread": data.thread_name(worst.tid),
            })
        })
        .collect();
    rows.extend(short_culprits(data, args));
    rows
}

/// Sleeps in a task below `limit`, and sums of sleeps, that kept a worker from other tasks.
pub(super) fn short<'a>(data: &'a Data, args: &'a Args, limit: i64) -> impl Iterator<Item = &'a OffCpuRow> {
    data.off_cpu.iter().filter(move |o| {
        let is_short = o.state == "+" || (is_sleep(o) && asleep(o) < limit);
        let of = data.type_of(o.task_id);
        let is_own = data.attribute(o.stack_id).is_own;
        args.holds(o.ts)
            && o.task_id.is_some()
            && is_short
            && !data.is_in_place(o.stack_id)
            && data.keeps_worker(args, of, o.tid, o.ts + o.dur, is_own)
    })
}

/// How many sleeps a row is.
pub(super) fn sleeps(o: &OffCpuRow) -> i64 {
    o.intervals.unwrap_or(1).max(1).into()
}

fn short_culprits(data: &Data, args: &Args) -> Vec<Value> {
    let mut culprits: BTreeMap<_, Vec<&OffCpuRow>> = BTreeMap::new();
    for o in short(data, args, args.asleep).filter(|o| args.is_wanted(o.task_id, o.tid)) {
        let of = data.type_of(o.task_id);
        let key = (data.interval_place(data.attribute(o.stack_id), of), of.map(|t| t.name.to_string()));
        culprits.entry(key).or_default().push(o);
    }
    let mut rows = Vec::new();
    for (((function, file, line), task_type), held) in culprits {
        let (count, total) = (held.iter().map(|o| sleeps(o)).sum::<i64>(), held.iter().map(|o| asleep(o)).sum::<i64>());
        if total < args.threshold {
            continue;
        }
        let mut by_thread: BTreeMap<_, i64> = BTreeMap::new();
        for o in &held {
            let key = (o.tid, o.task_id.unwrap(), o.stack_id.is_none(), o.stack_id);
            *by_thread.entry(key).or_default() += asleep(o);
        }
        let ((tid, task, ..), _) = by_thread.into_iter().min_by_key(|(key, sum)| (-sum, *key)).unwrap();
        rows.push(json!({
            "cause": "blocked", "spans": "short sleeps", "count": count, "total": total, "median": total / count,
            "longest": held.iter().map(|o| asleep(o) / sleeps(o)).max(),
            "estimated": held.iter().any(|o| o.state == "+"), "in_progress": null, "function": function, "file": file, "line": line,
            "task_type": task_type, "p99": null, "first_ts": held.iter().map(|o| o.ts).min(),
            "last_ts": held.iter().map(|o| o.ts).max(), "worst_ts": null, "task_id": task, "tid": tid,
            "thread": data.thread_name(tid),
        }));
    }
    rows
}
