//! Polls in progress, and those that are stuck.

use std::{cmp::Reverse, collections::BTreeMap};

use hud_common::session::InProgressRow;
use serde_json::{Value, json};

use super::{
    names::{Blamed, Place},
    overlap,
};
use crate::data::{Args, Data, SECOND};

pub(super) fn polls(data: &Data, args: &Args) -> Vec<Value> {
    let within = |p: &&InProgressRow| args.holds(p.ts) && args.is_wanted(Some(p.task_id), p.tid);
    let mut polls: BTreeMap<(i32, i64, bool, i64), Vec<&InProgressRow>> = BTreeMap::new();
    for p in data.in_progress.iter().filter(|p| !p.ended).filter(within) {
        polls.entry((p.tid, p.task_id, p.estimated, p.ts - p.lasted)).or_default().push(p);
    }
    let rows = polls.into_values().map(|rows| {
        let last = rows.iter().max_by_key(|p| p.ts).unwrap();
        let has_ended = data.in_progress.iter().any(|p| {
            let of = |p: &InProgressRow| (p.tid, p.task_id, p.estimated, p.lasted);
            p.ended && args.holds(p.ts) && of(p) == of(last)
        });
        let of = data.task_type(last.type_id.or(data.type_id(Some(last.task_id))));
        let (function, file, line) = data.interval_place(data.attribute(last.stack_id), of);
        json!({
            "lasted": last.lasted, "since": last.since, "state": last.state, "ended": has_ended,
            "estimated": last.estimated, "function": function, "file": file, "line": line,
            "task_type": of.map(|t| t.name.clone()), "ts": last.ts, "first_ts": rows.iter().map(|p| p.ts).min(),
            "task_id": last.task_id, "tid": last.tid, "thread": data.thread_name(last.tid), "worker": last.worker,
            "in_place": data.is_in_place(last.stack_id),
        })
    });
    rows.collect()
}

/// A part of a poll in progress, of which no event tells.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) tid: i32,
    pub(super) task: i64,
    pub(super) type_id: Option<i64>,
    pub(super) stack: Option<i64>,
    pub(super) ts: i64,
    pub(super) end: i64,
    pub(super) lasted: i64,
    /// Time on a CPU, of a poll that was not asleep each time it was observed.
    pub(super) busy: i64,
}

/// Certain observations of polls in progress in the window, and in the 2 s after it.
fn progress<'a>(data: &'a Data, args: &Args) -> Vec<&'a InProgressRow> {
    let is_certain = |p: &&InProgressRow| !p.ended && !p.estimated;
    let rows = data.in_progress.iter().filter(is_certain);
    rows.filter(|p| args.from < p.ts && p.ts < args.to + 2 * SECOND && p.ts - p.lasted < args.to).collect()
}

/// Merges observations of what began at the same moment.
fn merged(parts: impl Iterator<Item = (i64, i64, Part)>, args: &Args) -> Vec<Part> {
    let mut all: BTreeMap<_, Part> = BTreeMap::new();
    for (begin, from, part) in parts.filter(|(_, from, _)| *from < args.to) {
        let known = all.entry((part.tid, part.task, begin, from)).or_insert_with(|| part.clone());
        known.type_id = known.type_id.max(part.type_id);
        known.stack = known.stack.max(part.stack);
        known.end = known.end.max(part.end);
        known.lasted = known.lasted.max(part.lasted);
        known.busy = known.busy.max(part.busy);
    }
    all.into_values().collect()
}

fn part(p: &InProgressRow, from: i64, args: &Args) -> Part {
    let (ts, end) = (from, p.ts.min(args.to));
    let (tid, task, type_id, stack, lasted) = (p.tid, p.task_id, p.type_id, p.stack_id, p.lasted);
    Part { tid, task, type_id, stack, ts, end, lasted, busy: 0 }
}

/// Sleeps without a row of `off_cpu`, from the thread's last event to their last observation.
pub(super) fn sleeps(data: &Data, args: &Args) -> Vec<Part> {
    let observed = progress(data, args).into_iter().filter(|p| p.state == "blocked");
    let parts = observed.filter_map(|p| {
        let rows = data.off_cpu.iter().filter(|o| o.tid == p.tid && o.ts <= p.ts && o.ts + o.dur > args.from);
        let samples = data.samples.iter().filter(|s| s.tid == p.tid && args.from <= s.ts && s.ts <= p.ts);
        let last = rows.map(|o| o.ts + o.dur).chain(samples.map(|s| s.ts)).max();
        let begin = p.ts - p.lasted;
        let from = begin.max(last.unwrap_or(begin)).max(args.from);
        last.is_none_or(|last| last < p.ts).then(|| (begin, from, part(p, from, args)))
    });
    merged(parts, args)
}

/// Polls without a row of `polls`, with the time that they were on a CPU.
pub(super) fn busy(data: &Data, args: &Args) -> Vec<Part> {
    let rows = progress(data, args);
    let is_new = |p: &InProgressRow| {
        let polls = data.polls.iter().filter(|q| q.tid == p.tid && q.task_id == p.task_id && q.dur >= 100_000_000);
        !polls.filter(|q| q.ts <= p.ts && q.ts + q.dur > args.from).any(|q| q.ts + q.dur >= p.ts)
    };
    let new: Vec<_> = rows.into_iter().filter(|p| is_new(p)).collect();
    let parts = new.iter().map(|p| {
        let begin = p.ts - p.lasted;
        let is_busy = p.state != "blocked";
        (begin, 0, Part { busy: i64::from(is_busy), ..part(p, begin.max(args.from), args) })
    });
    let asleep = sleeps(data, args);
    let polls = merged(parts, args).into_iter().filter(|poll| poll.busy == 1);
    polls
        .map(|poll| {
            let off = data.off_cpu.iter().filter(|o| o.tid == poll.tid && args.touches(o.ts, o.dur));
            let off = off.map(|o| overlap(o.ts, o.ts + o.dur, poll.ts, poll.end)).sum::<i64>();
            let slept = asleep.iter().filter(|s| s.tid == poll.tid);
            let slept = slept.map(|s| overlap(s.ts, s.end, poll.ts, poll.end)).sum::<i64>();
            Part { busy: (poll.end - poll.ts - off - slept).max(0), ..poll }
        })
        .collect()
}

/// What each thread was polling by its last observation in the window: thread, task, and for how long.
pub(super) fn at_the_end(data: &Data, args: &Args) -> Vec<(i32, i64, i64)> {
    let newest = newest(data, args).into_values().filter(|p| !p.ended && !p.estimated);
    newest.map(|p| (p.tid, p.task_id, p.lasted)).collect()
}

fn newest<'a>(data: &'a Data, args: &Args) -> BTreeMap<i32, &'a InProgressRow> {
    let mut newest: BTreeMap<i32, &InProgressRow> = BTreeMap::new();
    for p in data.in_progress.iter().filter(|p| args.holds(p.ts)) {
        let known = newest.entry(p.tid).or_insert(p);
        if known.ts < p.ts {
            *known = p;
        }
    }
    newest
}

/// Whether a stack and all its frames are named.
fn is_whole(data: &Data, stack: Option<i64>) -> bool {
    let row = data.stacks.iter().find(|s| Some(s.stack_id) == stack);
    let is_named = |id: &i64| {
        data.frame(Some(*id)).is_some_and(|f| {
            let has_module = || data.modules.iter().any(|m| Some(m.module_id) == f.module_id);
            f.function.is_some() || f.module_id.is_none() || has_module()
        })
    };
    row.is_some_and(|row| row.frame_ids.iter().all(is_named))
}

/// A poll that holds its worker, with its type and its code.
pub(super) struct Stuck<'a> {
    pub(super) poll: &'a InProgressRow,
    pub(super) type_id: Option<i64>,
    pub(super) place: Place,
}

/// CPU time of a poll by its samples.
fn computed(data: &Data, args: &Args, poll: &InProgressRow) -> i64 {
    let is_within = |ts: i64| args.holds(ts) && poll.ts - poll.lasted <= ts && ts < poll.ts;
    let samples = data.samples.iter().filter(|s| is_within(s.ts));
    let of = samples.filter(|s| s.tid == poll.tid && s.task_id == Some(poll.task_id));
    let weights: Vec<i64> = of.map(|s| s.weight).collect();
    let n = i64::try_from(weights.len()).unwrap();
    weights.iter().sum::<i64>() * (n - 1).max(0) / n.max(1)
}

/// The polls in progress at the end that have lasted for longer than `least`.
pub(super) fn stuck<'a>(data: &'a Data, args: &Args, least: i64) -> Vec<Stuck<'a>> {
    let mut found = Vec::new();
    let polls = newest(data, args).into_values().filter(|p| !p.ended && !p.estimated && p.lasted > least);
    for poll in polls.filter(|p| p.state != "runnable" || computed(data, args, p) > least) {
        let type_id = poll.type_id.or(data.type_id(Some(poll.task_id)));
        let of = data.task_type(type_id);
        let begin = poll.ts - poll.lasted;
        let mut stack = poll.stack_id;
        if poll.state != "blocked" {
            // What weighs most of its samples, own code first.
            let mut places: BTreeMap<Place, (bool, i64, Option<i64>)> = BTreeMap::new();
            let mut samples: Vec<_> = data.samples.iter().filter(|s| args.holds(s.ts)).collect();
            samples.sort_by_key(|s| s.ts);
            for s in samples.iter().filter(|s| s.tid == poll.tid && s.task_id == Some(poll.task_id)) {
                if begin <= s.ts && s.ts < poll.ts {
                    let Blamed { is_own, .. } = data.attribute(s.stack_id);
                    let of = places.entry(data.cpu_place(s.stack_id, of)).or_insert((is_own, 0, s.stack_id));
                    *of = (of.0, of.1 + s.weight, of.2.min(s.stack_id));
                }
            }
            let most = places
                .into_iter()
                .max_by_key(|(place, (is_own, weight, _))| (*is_own, *weight, Reverse(place.clone())));
            stack = most.and_then(|(_, (.., stack))| stack).or(stack);
        }
        let is_in_place = data.is_in_place(poll.stack_id) || data.was_in_place(args, poll.tid, begin, poll.ts);
        // A call of `block_in_place` shows in the names of functions, which may not be there yet.
        let is_known = data.thread(poll.tid).is_some_and(|t| t.role == "worker") || is_whole(data, poll.stack_id);
        if !is_in_place && is_known && data.keeps_worker(args, of, poll.tid, poll.ts, data.attribute(stack).is_own) {
            found.push(Stuck { poll, type_id, place: data.cpu_place(stack, of) });
        }
    }
    found
}
