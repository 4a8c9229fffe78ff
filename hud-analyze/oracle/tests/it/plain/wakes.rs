//! How long polls take, and the wakes that lead to them.

use std::collections::BTreeMap;

use hud_common::session::PollRow;
use serde_json::{Value, json};

use super::{percentile, share};
use crate::data::{Args, Data, SECOND};

pub(super) fn polls_histogram(data: &Data, args: &Args) -> Vec<Value> {
    let mut types: BTreeMap<(Option<String>, Option<String>), BTreeMap<i64, Vec<i64>>> = BTreeMap::new();
    for p in data.polls.iter().filter(|p| args.holds(p.ts) && args.is_wanted(Some(p.task_id), p.tid)) {
        let of = data.task_type(p.type_id);
        if of.is_some_and(|t| t.kind == "worker") {
            continue;
        }
        let mut low = i64::from(p.dur >= 1);
        while low > 0 && p.dur >= 2 * low {
            low *= 2;
        }
        let buckets = types.entry((of.map(|t| t.name.to_string()), of.map(|t| t.kind.to_string()))).or_default();
        buckets.entry(low).or_default().push(p.dur);
    }
    let mut rows = Vec::new();
    for ((task_type, kind), buckets) in types {
        let count = |durs: &Vec<i64>| i64::try_from(durs.len()).unwrap();
        let (all, time): (i64, i64) = (buckets.values().map(count).sum(), buckets.values().flatten().sum());
        let mut upto = 0;
        for (low, durs) in &buckets {
            upto += count(durs);
            let total: i64 = durs.iter().sum();
            rows.push(json!({
                "task_type": task_type, "low": low, "high": (2 * low).max(1), "count": count(durs),
                "share": share(count(durs), all), "cumulative_share": share(upto, all), "total": total,
                "time_share": share(total, time), "kind": kind,
            }));
        }
    }
    rows
}

/// The delays of tasks, by type.
fn delays(data: &Data, args: &Args) -> BTreeMap<Option<(String, Option<String>, Option<i32>)>, Vec<i64>> {
    let mut types: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for p in data.polls.iter().filter(|p| args.holds(p.ts)) {
        let of = data.task_type(p.type_id);
        if let Some(delay) = p.wake_delay.filter(|_| of.is_none_or(|t| t.kind == "task")) {
            let key = of.map(|t| (t.name.to_string(), t.file.as_ref().map(ToString::to_string), t.line));
            types.entry(key).or_default().push(delay.max(0));
        }
    }
    types
}

pub(super) fn latency(data: &Data, args: &Args) -> Vec<Value> {
    let types = delays(data, args).into_iter();
    types
        .map(|(key, delays)| {
            let (name, file, line) = key.map_or((None, None, None), |(n, f, l)| (Some(n), f, l));
            let total: i64 = delays.iter().sum();
            json!({
                "task_type": name, "count": delays.len(), "p50": percentile(&delays, 500, 16),
                "p90": percentile(&delays, 900, 16), "p99": percentile(&delays, 990, 16),
                "longest": delays.iter().max(), "mean": total / i64::try_from(delays.len()).unwrap(), "total": total,
                "file": file, "line": line,
            })
        })
        .collect()
}

pub(super) fn chains(data: &Data, args: &Args) -> Vec<Value> {
    #[derive(Default)]
    struct Edge {
        wakes: i64,
        self_wakes: i64,
        late: Vec<i64>,
    }
    let name = |task| data.task_type(data.type_id_by_polls(task, args));
    let mut edges: BTreeMap<_, Edge> = BTreeMap::new();
    for w in data.wakes.iter().filter(|w| args.holds(w.ts)) {
        let waker = name(w.waker_task_id);
        let in_task = w.waker_task_id.is_some() && waker.is_none_or(|t| t.kind != "worker");
        let waker = waker.filter(|t| t.kind != "worker").map(|t| t.name.to_string());
        let woken = name(Some(w.task_id)).map(|t| t.name.to_string());
        let edge = edges.entry((waker, woken, in_task)).or_default();
        edge.wakes += 1;
        edge.self_wakes += i64::from(w.waker_task_id == Some(w.task_id));
        let led_to = data.polls.iter().filter(|p| {
            args.holds(p.ts)
                && p.task_id == w.task_id
                && p.wake_delay.is_some_and(|d| d >= args.late && p.ts - d == w.ts)
        });
        edge.late.extend(led_to.filter_map(|p| p.wake_delay).max());
    }
    let all = edges.values().map(|e| e.wakes).sum();
    let edges = edges.into_iter();
    edges
        .map(|((waker, woken, in_task), edge)| {
            let late = i64::try_from(edge.late.len()).unwrap();
            json!({
                "waker": waker, "woken": woken, "wakes": edge.wakes, "share": share(edge.wakes, all),
                "self_wakes": edge.self_wakes, "late": late, "late_share": share(late, edge.wakes),
                "late_total": edge.late.iter().sum::<i64>(), "longest": edge.late.iter().max(), "in_task": in_task,
            })
        })
        .collect()
}

pub(super) fn critical_path(data: &Data, args: &Args) -> Vec<Value> {
    let mut slow: Vec<&PollRow> = data.polls.iter().filter(|p| args.holds(p.ts) && p.dur >= args.threshold).collect();
    slow.retain(|p| data.task_type(p.type_id).is_none_or(|t| t.kind == "task"));
    slow.sort_by_key(|p| (-p.dur, p.ts, p.tid, p.task_id));
    slow.truncate(usize::try_from(args.polls).unwrap());
    let mut rows = Vec::new();
    for (number, poll) in (1..).zip(slow) {
        let row = |hop: i64, poll: Option<&PollRow>, task: Option<i64>, tid: i32, woke_ts: Option<i64>| {
            let of = data.task_type(poll.and_then(|p| p.type_id).or(data.type_id(task)));
            let is_loop = of.is_some_and(|t| t.kind == "worker");
            json!({
                "slow": number, "hop": hop, "task_type": of.filter(|_| !is_loop).map(|t| t.name.clone()),
                "task_id": task.filter(|_| !is_loop), "ts": poll.map(|p| p.ts), "dur": poll.map(|p| p.dur),
                "woke_after": poll.and_then(|p| Some(woke_ts? - p.ts)), "wake_delay": poll.and_then(|p| p.wake_delay),
                "thread": data.thread_name(tid), "tid": tid, "woke_ts": woke_ts,
            })
        };
        rows.push(row(0, Some(poll), Some(poll.task_id), poll.tid, None));
        let mut last = Some(poll);
        for hop in 1..=args.hops {
            let Some((poll, delay)) = last.and_then(|p| Some((p, p.wake_delay?))) else { break };
            let earliest = args.from - SECOND;
            let wakes = data
                .wakes
                .iter()
                .filter(|w| w.task_id == poll.task_id && w.ts == poll.ts - delay && earliest <= w.ts && w.ts < args.to);
            let wake = wakes.min_by_key(|w| (w.waker_task_id.is_none(), w.waker_task_id, w.waker_tid));
            let Some(wake) = wake else { break };
            let around = data.polls.iter().filter(|p| {
                Some(p.task_id) == wake.waker_task_id
                    && p.tid == wake.waker_tid
                    && p.ts <= wake.ts
                    && wake.ts <= p.ts + p.dur
                    && p.ts < args.to
                    && p.ts + p.dur > earliest
            });
            last = around.min_by_key(|p| (-p.ts, p.dur));
            rows.push(row(hop, last, wake.waker_task_id, wake.waker_tid, Some(wake.ts)));
        }
    }
    rows
}
