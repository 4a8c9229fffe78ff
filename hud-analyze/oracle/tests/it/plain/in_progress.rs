//! Polls in progress, and those that are stuck.

use std::{cmp::Reverse, collections::BTreeMap};

use hud_common::session::InProgressRow;
use serde_json::{Value, json};

use super::names::{Blamed, Place};
use crate::data::{Args, Data};

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

/// A poll that holds its worker, with its type and its code.
pub(super) struct Stuck<'a> {
    pub(super) poll: &'a InProgressRow,
    pub(super) type_id: Option<i64>,
    pub(super) place: Place,
}

/// The polls in progress at the end that have lasted for longer than `least`.
pub(super) fn stuck<'a>(data: &'a Data, args: &Args, least: i64) -> Vec<Stuck<'a>> {
    let mut newest: BTreeMap<i32, &InProgressRow> = BTreeMap::new();
    for p in data.in_progress.iter().filter(|p| args.holds(p.ts)) {
        let known = newest.entry(p.tid).or_insert(p);
        if known.ts < p.ts {
            *known = p;
        }
    }
    let mut found = Vec::new();
    for poll in newest.into_values().filter(|p| !p.ended && !p.estimated && p.lasted > least) {
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
        if !is_in_place && data.keeps_worker(args, of, poll.tid, poll.ts, data.attribute(stack).is_own) {
            found.push(Stuck { poll, type_id, place: data.cpu_place(stack, of) });
        }
    }
    found
}
