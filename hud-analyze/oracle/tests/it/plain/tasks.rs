//! Tasks, their types, and who spawned whom.

use std::collections::{BTreeMap, BTreeSet};

use hud_common::session::TaskTypeRow;
use serde_json::{Value, json};

use super::{in_progress, names::asleep, percentile};
use crate::data::{Args, Data};

/// Figures of a task in the window.
#[derive(Default)]
struct Known {
    polls: Vec<i64>,
    busy: i64,
    blocked: i64,
    cpu: i64,
    samples: i64,
    moments: Vec<i64>,
    /// Of polls in progress.
    busy_now: i64,
    types: Vec<i64>,
}

fn known(data: &Data, args: &Args) -> BTreeMap<i64, Known> {
    let mut all: BTreeMap<i64, Known> = BTreeMap::new();
    for p in data.polls.iter().filter(|p| args.holds(p.ts)) {
        let task = all.entry(p.task_id).or_default();
        task.polls.push(p.dur);
        task.busy += p.dur - p.blocked - p.run_queue;
        task.moments.extend([p.ts, p.ts + p.dur]);
    }
    for o in data.off_cpu.iter().filter(|o| args.holds(o.ts)) {
        if let Some(id) = o.task_id {
            let task = all.entry(id).or_default();
            task.blocked += asleep(o);
            task.moments.extend([o.ts, o.ts + o.dur]);
        }
    }
    for s in in_progress::sleeps(data, args) {
        let task = all.entry(s.task).or_default();
        task.blocked += s.end - s.ts;
        task.moments.extend([s.ts, s.end]);
        task.types.extend(s.type_id);
    }
    for p in in_progress::busy(data, args) {
        let task = all.entry(p.task).or_default();
        task.busy_now += p.busy;
        task.moments.extend([p.ts, p.end]);
        task.types.extend(p.type_id);
    }
    for s in data.samples.iter().filter(|s| args.holds(s.ts)) {
        if let Some(id) = s.task_id {
            let task = all.entry(id).or_default();
            task.cpu += s.weight;
            task.samples += 1;
            task.moments.push(s.ts);
        }
    }
    let seen = data.tasks.iter().map(|t| (t.task_id, t.ts)).chain(data.spawns.iter().map(|s| (s.task_id, s.ts)));
    for (id, ts) in seen.chain(data.ends.iter().map(|e| (e.task_id, e.ts))).filter(|(_, ts)| args.holds(*ts)) {
        all.entry(id).or_default().moments.push(ts);
    }
    all
}

impl Known {
    fn of<'a>(&self, id: i64, data: &'a Data, args: &Args) -> Option<&'a TaskTypeRow> {
        data.task_type(self.types.iter().copied().chain(data.type_id_by_polls(Some(id), args)).min())
    }
}

pub(super) fn tasks(data: &Data, args: &Args) -> Vec<Value> {
    let is_watched = data.polls_watched(args);
    let stuck = in_progress::at_the_end(data, args);
    let tasks = known(data, args).into_iter().filter(|(id, _)| args.task.is_none_or(|t| t == *id));
    let tasks = tasks.map(|(id, known)| {
        let of = known.of(id, data, args);
        (id, known, of)
    });
    let tasks = tasks.filter(|(_, _, of)| of.is_none_or(|t| t.kind != "worker"));
    tasks
        .map(|(id, known, of)| {
            json!({
                "task_id": id, "task_type": of.map(|t| t.name.clone()), "file": of.map(|t| t.file.clone()),
                "line": of.map(|t| t.line), "polls": is_watched.then_some(known.polls.len()),
                "busy": is_watched.then_some(known.busy + known.busy_now), "blocked": known.blocked,
                "in_progress": stuck.iter().filter(|(_, task, _)| *task == id).map(|(.., lasted)| lasted).max(),
                "longest_poll": known.polls.iter().max(), "cpu": known.cpu, "first_seen": known.moments.iter().min(),
                "last_seen": known.moments.iter().max(), "kind": of.map(|t| t.kind.clone()), "samples": known.samples,
            })
        })
        .collect()
}

/// What makes a type one.
type Type = Option<(String, Option<String>, Option<i32>, String)>;

fn key(of: Option<&TaskTypeRow>) -> Type {
    of.map(|t| (t.name.to_string(), t.file.as_ref().map(ToString::to_string), t.line, t.kind.to_string()))
}

pub(super) fn by_type(data: &Data, args: &Args) -> Vec<Value> {
    #[derive(Default)]
    struct Sum {
        tasks: i64,
        durs: Vec<i64>,
        busy: i64,
        blocked: i64,
        cpu: i64,
        samples: i64,
        lasted: Option<i64>,
    }
    let stuck = in_progress::at_the_end(data, args);
    let is_watched = data.polls_watched(args);
    let mut types: BTreeMap<Type, Sum> = BTreeMap::new();
    for (id, known) in known(data, args) {
        let sum = types.entry(key(known.of(id, data, args))).or_default();
        sum.tasks += 1;
        sum.busy += known.busy_now;
        sum.lasted = stuck.iter().filter(|(_, task, _)| *task == id).map(|(.., lasted)| *lasted).max().max(sum.lasted);
        sum.blocked += known.blocked;
        sum.cpu += known.cpu;
        sum.samples += known.samples;
    }
    for p in data.polls.iter().filter(|p| args.holds(p.ts)) {
        let sum = types.entry(key(data.task_type(p.type_id))).or_default();
        sum.durs.push(p.dur);
        sum.busy += p.dur - p.blocked - p.run_queue;
    }
    let types = types.into_iter().filter(|(key, _)| key.as_ref().is_none_or(|(.., kind)| kind != "worker"));
    types
        .map(|(key, sum)| {
            let (name, file, line, kind) =
                key.map_or((None, None, None, None), |(n, f, l, k)| (Some(n), f, l, Some(k)));
            json!({
                "task_type": name, "tasks": sum.tasks, "polls": is_watched.then_some(sum.durs.len()),
                "median": percentile(&sum.durs, 500, 64), "p99": percentile(&sum.durs, 990, 64),
                "longest_poll": sum.durs.iter().max(), "in_progress": sum.lasted, "busy": is_watched.then_some(sum.busy),
                "blocked": sum.blocked, "cpu": sum.cpu, "file": file, "line": line, "kind": kind,
                "samples": sum.samples,
            })
        })
        .collect()
}

pub(super) fn tree(data: &Data, args: &Args) -> Vec<Value> {
    let mut parents: BTreeMap<i64, (i64, i32, Option<i64>)> = BTreeMap::new();
    for s in data.spawns.iter().filter(|s| args.holds(s.ts)) {
        let by = (s.ts, s.tid, s.parent_task_id);
        parents.entry(s.task_id).and_modify(|known| *known = by.min(*known)).or_insert(by);
    }
    let parent = |task: i64| parents.get(&task).and_then(|(_, _, parent)| *parent);
    // The ancestors of each task, from its parent.
    let ancestors: BTreeMap<i64, Vec<i64>> = parents
        .keys()
        .map(|task| {
            let mut above = Vec::new();
            let mut next = parent(*task);
            while let Some(ancestor) = next.filter(|_| i64::try_from(above.len()).unwrap() < args.depth.max(1)) {
                above.push(ancestor);
                next = parent(ancestor);
            }
            (*task, above)
        })
        .collect();
    let nodes: BTreeSet<i64> = parents.keys().copied().chain(parents.keys().filter_map(|t| parent(*t))).collect();
    let polled = |task: i64| {
        let polls = data.polls.iter().filter(move |p| p.task_id == task && args.holds(p.ts));
        polls.fold((0, 0), |(n, busy), p| (n + 1, busy + p.dur - p.blocked - p.run_queue))
    };
    let name = |task: i64| data.task_type(data.type_id_by_polls(Some(task), args)).map(|t| t.name.to_string());
    let is_watched = data.polls_watched(args);
    let nothing = Vec::new();
    let mut rows = Vec::new();
    for task in nodes {
        let above = ancestors.get(&task).unwrap_or(&nothing);
        if args.task.is_some_and(|wanted| wanted != task && !above.contains(&wanted)) {
            continue;
        }
        let below: Vec<i64> =
            ancestors.iter().filter(|(id, above)| **id != task && above.contains(&task)).map(|(id, _)| *id).collect();
        let children = below.iter().filter(|id| parent(**id) == Some(task)).count();
        let spawned = parents.get(&task).map(|(ts, ..)| *ts);
        let ended = data.ends.iter().filter(|e| e.task_id == task && args.holds(e.ts));
        let ended = ended.map(|e| (e.ts, e.outcome.to_string())).min();
        let (polls, busy) = polled(task);
        let tree_busy = busy + below.iter().map(|id| polled(*id).1).sum::<i64>();
        let way: Vec<i64> = above.iter().rev().copied().chain([task]).collect();
        let ids: Vec<String> = way.iter().map(ToString::to_string).collect();
        let types: Vec<String> = way.iter().map(|id| name(*id).unwrap_or_else(|| "<unknown>".into())).collect();
        rows.push(json!({
            "depth": above.len(), "path": ids.join("/"), "task_id": task, "task_type": name(task),
            "children": children, "descendants": below.len(), "spawned_ts": spawned,
            "lifetime": spawned.and_then(|ts| Some(ended.as_ref()?.0 - ts)),
            "outcome": ended.map(|(_, outcome)| outcome), "polls": is_watched.then_some(polls),
            "busy": is_watched.then_some(busy), "tree_busy": is_watched.then_some(tree_busy),
            "parent_task_id": parent(task), "type_path": types.join(" > "),
        }));
    }
    rows
}
