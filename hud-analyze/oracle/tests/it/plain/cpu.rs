//! Where the CPU time went, and whole stacks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    blocking::sleeps,
    names::{Place, asleep},
    share,
};
use crate::data::{Args, Data};

pub(super) fn hotspots(data: &Data, args: &Args) -> Vec<Value> {
    #[derive(Default)]
    struct Spot {
        weight: i64,
        samples: i64,
        lines: BTreeMap<(bool, Option<i32>), i64>,
        leaves: BTreeMap<(bool, Option<String>), i64>,
    }
    let key = |place: &Place| (place.0.clone(), place.1.clone(), place.2.filter(|_| args.lines));
    let samples: Vec<_> =
        data.samples.iter().filter(|s| args.holds(s.ts) && args.is_wanted(s.task_id, s.tid)).collect();
    let mut spots: BTreeMap<_, Spot> = BTreeMap::new();
    let mut totals: BTreeMap<_, i64> = BTreeMap::new();
    for sample in &samples {
        let of = data.shown_type(sample.task_id);
        let name = of.map(|t| t.name.to_string());
        let place = data.cpu_place(sample.stack_id, of);
        let frames = data.frames_of(sample.stack_id);
        let leaf = frames.first().and_then(|id| data.frame(Some(*id))).map(|f| data.function(f));
        let spot = spots.entry((key(&place), name.clone())).or_default();
        spot.weight += sample.weight;
        spot.samples += 1;
        *spot.lines.entry((place.2.is_none(), place.2)).or_default() += sample.weight;
        *spot.leaves.entry((leaf.is_none(), leaf)).or_default() += sample.weight;
        // Every place of the stack, each once.
        let mut places: BTreeSet<_> = frames
            .iter()
            .filter_map(|id| data.frame(Some(*id)))
            .map(|f| key(&(data.function(f), f.file.as_ref().map(ToString::to_string), f.line)))
            .collect();
        places.insert(key(&place));
        for place in places {
            *totals.entry((place, name.clone())).or_default() += sample.weight;
        }
    }
    let all: i64 = spots.values().map(|s| s.weight).sum();
    let spots = spots.into_iter().filter(|(_, spot)| spot.weight > 0);
    spots
        .map(|(key, spot)| {
            let total = totals[&key];
            let ((function, file, _), task_type) = key;
            // The first of the greatest.
            let line = spot.lines.iter().rev().max_by_key(|(_, w)| **w).unwrap().0.1;
            let leaf = spot.leaves.iter().rev().max_by_key(|(_, w)| **w).unwrap().0.1.clone();
            json!({
                "self": spot.weight, "self_share": share(spot.weight, all), "total": total, "samples": spot.samples,
                "function": function, "file": file, "line": line, "task_type": task_type, "leaf": leaf,
            })
        })
        .collect()
}

pub(super) fn hotspots_by(data: &Data, args: &Args) -> Vec<Value> {
    let mut rows: Vec<(i64, i32, Option<i64>, Option<i64>, &str, i64, i64)> = Vec::new();
    for s in &data.samples {
        rows.push((s.ts, s.tid, s.task_id, s.stack_id, "running", s.weight, 1));
    }
    for o in data.off_cpu.iter().filter(|_| args.states) {
        if o.state != "R" {
            rows.push((o.ts, o.tid, o.task_id, o.stack_id, "asleep", asleep(o), sleeps(o)));
        }
        if o.state == "R" || o.run_queue.unwrap_or(0) > 0 {
            rows.push((o.ts, o.tid, o.task_id, o.stack_id, "waiting", o.dur - asleep(o), sleeps(o)));
        }
    }
    rows.retain(|(ts, tid, task, ..)| args.holds(*ts) && args.is_wanted(*task, *tid));
    let mut groups: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for (_, tid, task, stack, state, time, n) in rows {
        let of = data.shown_type(task);
        let (function, file, line) = data.cpu_place(stack, of);
        let key = (
            args.functions.then_some(function),
            file.filter(|_| args.functions),
            line.filter(|_| args.functions && args.lines),
            of.map(|t| t.name.to_string()).filter(|_| args.types),
            args.threads.then_some(tid),
            args.states.then_some(state),
        );
        let group = groups.entry(key).or_default();
        *group = (group.0 + time, group.1 + n);
    }
    groups.retain(|_, (time, _)| *time > 0);
    let all: i64 = groups.values().map(|(time, _)| time).sum();
    let groups = groups.into_iter();
    groups
        .map(|((function, file, line, task_type, tid, state), (time, count))| {
            json!({
                "time": time, "share": share(time, all), "count": count, "function": function, "file": file,
                "line": line, "task_type": task_type, "thread": tid.and_then(|t| data.thread_name(t)), "state": state,
                "tid": tid,
            })
        })
        .collect()
}

/// A stack from its root, and its frames.
pub(super) fn folded(data: &Data, stack: Option<i64>) -> (String, usize) {
    let frames = data.frames_of(stack);
    if frames.is_empty() {
        return ("<no stack>".into(), 0);
    }
    let name = |id: &i64| match data.frame(Some(*id)) {
        Some(frame) => data.function(frame).replace(';', ",").replace('\n', " "),
        None => "<unknown>".into(),
    };
    (frames.iter().rev().map(name).collect::<Vec<_>>().join(";"), frames.len())
}

fn flame<'a>(
    data: &Data,
    rows: impl Iterator<Item = (Option<i64>, Option<i64>, i64, i64)> + 'a,
    counted: &str,
) -> Vec<Value> {
    let mut stacks: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for (task, stack, weight, n) in rows {
        let task_type = data.shown_type(task).map(|t| t.name.to_string());
        let sum = stacks.entry((folded(data, stack), task_type)).or_default();
        *sum = (sum.0 + weight, sum.1 + n);
    }
    let stacks = stacks.into_iter().filter(|(_, (weight, _))| *weight > 0);
    stacks
        .map(|(((stack, frames), task_type), (weight, count))| {
            json!({ "stack": stack, "weight": weight, "task_type": task_type, counted: count, "frames": frames })
        })
        .collect()
}

pub(super) fn cpu_flame(data: &Data, args: &Args) -> Vec<Value> {
    let samples = data.samples.iter().filter(|s| args.holds(s.ts) && args.is_wanted(s.task_id, s.tid));
    flame(data, samples.map(|s| (s.task_id, s.stack_id, s.weight, 1)), "samples")
}

pub(super) fn off_cpu_flame(data: &Data, args: &Args) -> Vec<Value> {
    let off = data.off_cpu.iter().filter(|o| args.holds(o.ts) && args.is_wanted(o.task_id, o.tid) && o.state != "R");
    flame(data, off.map(|o| (o.task_id, o.stack_id, asleep(o), sleeps(o))), "sleeps")
}
