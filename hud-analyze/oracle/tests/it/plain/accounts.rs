//! Coverage, losses and overhead.

use std::collections::{BTreeMap, BTreeSet};

use hud_common::session::OverheadRow;
use serde_json::{Value, json};

use super::share;
use crate::data::{Args, Data};

pub(super) fn coverage(data: &Data, args: &Args) -> Vec<Value> {
    let streams: BTreeSet<String> = data.coverage.iter().map(|c| c.stream.to_string()).collect();
    let mut rows = Vec::new();
    for stream in streams {
        let intervals = data.coverage.iter().filter(|c| c.stream == stream.as_str() && args.touches(c.ts, c.dur));
        let intervals: Vec<_> = intervals.collect();
        let mut parts: Vec<_> = intervals.iter().map(|c| (c.ts.max(args.from), (c.ts + c.dur).min(args.to))).collect();
        parts.sort_unstable();
        let mut on: Vec<(i64, i64)> = Vec::new();
        for (from, to) in parts {
            match on.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => on.push((from, to)),
            }
        }
        let watched: i64 = on.iter().map(|(from, to)| to - from).sum();
        let ends = [args.from].into_iter().chain(on.iter().map(|(_, to)| *to));
        let begins = on.iter().map(|(from, _)| *from).chain([args.to]);
        let longest_off = begins.zip(ends).map(|(begin, end)| begin - end).max();
        let reasons: BTreeSet<String> = intervals.iter().map(|c| c.reason.to_string()).collect();
        let reasons = reasons.into_iter().collect::<Vec<_>>().join(", ");
        rows.push(json!({
            "stream": stream, "watched": watched, "share": share(watched, args.to - args.from),
            "intervals": on.len(), "longest_off": longest_off, "reasons": (!intervals.is_empty()).then_some(reasons),
            "first_ts": on.first().map(|(from, _)| from), "last_ts": on.last().map(|(_, to)| to),
        }));
    }
    rows
}

pub(super) fn drops(data: &Data, args: &Args) -> Vec<Value> {
    let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for d in data.drops.iter().filter(|d| d.ts < args.to && d.ts + d.dur >= args.from) {
        places.entry((d.stream.to_string(), d.stage.to_string())).or_default().push(d);
    }
    let places = places.into_iter();
    places
        .map(|((stream, stage), drops)| {
            json!({
                "stream": stream, "stage": stage, "lost": drops.iter().map(|d| d.lost).sum::<i64>(),
                "intervals": drops.len(), "dur": drops.iter().map(|d| d.dur).sum::<i64>(),
                "first_ts": drops.iter().map(|d| d.ts).min(), "last_ts": drops.iter().map(|d| d.ts + d.dur).max(),
            })
        })
        .collect()
}

pub(super) fn overhead(data: &Data, args: &Args) -> Vec<Value> {
    let mut all: Vec<&OverheadRow> = data.overhead.iter().collect();
    all.sort_by_key(|o| o.ts);
    let befores = [None].into_iter().chain(all.iter().map(|o| Some(o.ts)));
    let seconds: Vec<_> = all.iter().zip(befores).map(|(o, before)| (*o, before.map(|ts| o.ts - ts))).collect();
    let seconds: Vec<_> = seconds.into_iter().filter(|(o, _)| args.holds(o.ts)).collect();
    let row = |what: &str, ts: Option<i64>, rows: &[(&OverheadRow, Option<i64>)]| {
        let some = |values: Vec<Option<i64>>| {
            let values: Vec<i64> = values.into_iter().flatten().collect();
            (!values.is_empty()).then(|| values.iter().sum::<i64>())
        };
        let dur = some(rows.iter().map(|(_, dur)| *dur).collect());
        let probe_ns = some(rows.iter().map(|(o, _)| o.probe_ns).collect());
        let recorder_cpu: i64 = rows.iter().map(|(o, _)| o.recorder_cpu).sum();
        // Shares are of the time that is known.
        let known: Vec<_> = rows.iter().filter(|(_, dur)| dur.is_some_and(|d| d > 0)).collect();
        let probes = some(known.iter().map(|(o, _)| o.probe_ns).collect());
        let recorder = some(known.iter().map(|(o, _)| Some(o.recorder_cpu)).collect());
        let part = |ns: Option<i64>| share(ns?, dur?);
        json!({
            "what": what, "ts": ts, "dur": dur, "cpu": probe_ns.unwrap_or(0) + recorder_cpu,
            "share": part(recorder.map(|r| r + probes.unwrap_or(0))), "probe_share": part(probes),
            "recorder_share": part(recorder), "recorder_rss": rows.iter().map(|(o, _)| o.recorder_rss).max(),
            "events": rows.iter().map(|(o, _)| o.events).sum::<i64>(),
            "ring_bytes": rows.iter().map(|(o, _)| o.ring_bytes).sum::<i64>(), "probe_ns": probe_ns,
            "recorder_cpu": recorder_cpu,
        })
    };
    let mut rows: Vec<Value> = seconds.iter().map(|one| row("second", Some(one.0.ts), &[*one])).collect();
    if !seconds.is_empty() {
        rows.insert(0, row("sum", None, &seconds));
    }
    rows
}
