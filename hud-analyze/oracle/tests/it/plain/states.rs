//! Where tasks wait, and for whom.

use std::collections::{BTreeMap, BTreeSet};

use hud_common::session::{TaskStateRow, TaskTypeRow};
use serde_json::{Value, json};

use super::{cpu::folded, names::Place};
use crate::data::{Args, Data, SECOND};

/// The newest rows of each task at the last snapshot in the window, and when that was.
fn newest<'a>(data: &'a Data, args: &Args) -> Option<(i64, Vec<&'a TaskStateRow>)> {
    let taken = data.coverage.iter().filter(|c| c.stream == "task_states" && c.dur > 0).map(|c| c.ts + c.dur);
    let at = taken.filter(|at| args.holds(*at)).max()?;
    let rows = || data.task_states.iter().filter(|row| row.ts <= at && row.ts > at - 1200 * SECOND);
    let mut last: BTreeMap<(Option<i64>, Option<i32>), i64> = BTreeMap::new();
    for row in rows() {
        let of = last.entry((row.task_id, row.tid)).or_insert(row.ts);
        *of = row.ts.max(*of);
    }
    Some((at, rows().filter(|row| last[&(row.task_id, row.tid)] == row.ts).collect()))
}

/// A task, or the thread that runs a future.
fn who(task: Option<i64>, tid: Option<i32>) -> Option<i64> {
    task.or(tid.map(|tid| -i64::from(tid)))
}

impl Data {
    fn type_of_state(&self, row: &TaskStateRow) -> Option<&TaskTypeRow> {
        self.task_type(row.type_id.or(self.type_id(row.task_id)))
    }

    /// The place to which a wait is attributed; its type where there is no function.
    fn await_place(&self, row: &TaskStateRow) -> Place {
        let (function, file, line) = self.code_of_wait(row);
        let function = function.or_else(|| self.type_of_state(row).map(|of| of.name.to_string()));
        (function.unwrap_or_else(|| "<unknown>".into()), file, line)
    }

    /// The code to which a wait is attributed.
    fn code_of_wait(&self, row: &TaskStateRow) -> (Option<String>, Option<String>, Option<i32>) {
        let frames: Vec<_> = self.frames_of(row.stack_id).iter().filter_map(|id| self.frame(Some(*id))).collect();
        let named = || frames.iter().filter(|frame| frame.function.is_some());
        let of = |origin: &str| named().find(|frame| frame.origin.as_deref() == Some(origin));
        let frame = of("own").or_else(|| of("dependency")).or_else(|| named().next_back());
        let function = frame.and_then(|frame| frame.function.as_deref()).map(ToOwned::to_owned);
        let file = frame.and_then(|frame| frame.file.as_deref()).map(ToOwned::to_owned);
        (function, file, frame.and_then(|frame| frame.line))
    }
}

/// The one value that all have.
fn one<T: Ord>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let all: BTreeSet<Option<T>> = values.collect();
    if all.len() == 1 { all.into_iter().next().flatten() } else { None }
}

pub(super) fn suspended(data: &Data, args: &Args) -> Vec<Value> {
    let Some((at, rows)) = newest(data, args) else { return Vec::new() };
    let mut groups: BTreeMap<_, Vec<&TaskStateRow>> = BTreeMap::new();
    for row in rows {
        if row.state == "suspended" && (args.task.is_none() || row.task_id == args.task) {
            let name = data.type_of_state(row).map(|of| of.name.to_string());
            let resource = row.resource.as_deref().map(ToOwned::to_owned);
            groups.entry((data.await_place(row), resource, name)).or_default().push(row);
        }
    }
    let group = |(((function, file, line), resource, name), rows): ((Place, _, Option<String>), Vec<&TaskStateRow>)| {
        let tasks: BTreeSet<_> = rows.iter().map(|row| who(row.task_id, row.tid)).collect();
        let stuck: BTreeSet<_> =
            rows.iter().filter(|row| row.cycle.is_some()).map(|row| who(row.task_id, row.tid)).collect();
        let resources: BTreeSet<_> = rows.iter().filter_map(|row| row.address).collect();
        let holders: BTreeSet<_> = rows.iter().filter_map(|row| row.holder_task_id).collect();
        let resource: Option<String> = resource;
        json!({
            "tasks": tasks.len(), "longest": rows.iter().map(|row| at - row.since).max(),
            "shortest": rows.iter().map(|row| at - row.since).min(), "function": function, "file": file, "line": line,
            "resource": resource, "detail": one(rows.iter().map(|row| row.detail.clone())), "resources": resources.len(),
            "holder_task_id": one(rows.iter().map(|row| row.holder_task_id)), "task_type": name,
            "deadlocked": stuck.len(), "holders": holders.len(),
            "task_id": rows.iter().filter_map(|row| row.task_id).min(), "ts": at,
        })
    };
    groups.into_iter().map(group).collect()
}

pub(super) fn await_flame(data: &Data, args: &Args) -> Vec<Value> {
    let taken = data.coverage.iter().filter(|c| c.stream == "task_states" && c.dur > 0).map(|c| c.ts + c.dur);
    let Some(last) = taken.max() else { return Vec::new() };
    let is_read = |row: &&TaskStateRow| row.ts >= args.from - 1200 * SECOND && row.ts < args.to;
    let is_asked = |row: &&TaskStateRow| args.task.is_none() || row.task_id == args.task;
    let rows: Vec<_> = data.task_states.iter().filter(is_read).filter(is_asked).collect();
    let mut groups: BTreeMap<_, (i64, BTreeSet<Option<i64>>)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.state == "suspended") {
        let of = who(row.task_id, row.tid);
        let later = rows.iter().filter(|other| who(other.task_id, other.tid) == of && other.ts > row.ts);
        let next = later.map(|other| other.ts).min().unwrap_or(last);
        let weight = next.min(last).min(args.to) - row.ts.max(args.from);
        if weight > 0 {
            let name = data.type_of_state(row).map(|of| of.name.to_string());
            let group = groups.entry((folded(data, row.stack_id), name)).or_default();
            group.0 += weight;
            group.1.insert(of);
        }
    }
    let row = |(((stack, frames), name), (weight, tasks)): (((String, usize), Option<String>), (i64, BTreeSet<_>))| json!({ "stack": stack, "weight": weight, "task_type": name, "tasks": tasks.len(), "frames": frames });
    groups.into_iter().map(row).collect()
}

pub(super) fn wait_graph(data: &Data, args: &Args) -> Vec<Value> {
    let Some((at, rows)) = newest(data, args) else { return Vec::new() };
    let mut found = Vec::new();
    for row in &rows {
        let holder = who(row.holder_task_id, row.holder_tid);
        let is_wanted = args.task.is_none() || row.task_id == args.task || row.holder_task_id == args.task;
        if row.state != "suspended" || holder.is_none() || !is_wanted {
            continue;
        }
        let of = rows.iter().find(|other| other.branch == 0 && who(other.task_id, other.tid) == holder);
        let (function, file, line) = data.await_place(row);
        let (holder_function, holder_file, holder_line) = match of.map(|of| data.await_place(of)) {
            Some((function, file, line)) => (Some(function), file, line),
            None => (None, None, None),
        };
        let name = |row: &TaskStateRow| data.type_of_state(row).map(|of| of.name.to_string());
        found.push(json!({
            "cycle": row.cycle, "task_id": row.task_id, "function": function, "file": file, "line": line,
            "waited": at - row.since, "resource": row.resource, "detail": row.detail,
            "holder_task_id": row.holder_task_id, "holder_state": of.map(|of| of.state.clone()),
            "holder_function": holder_function, "holder_file": holder_file, "holder_line": holder_line,
            "task_type": name(row), "holder_type": of.and_then(|of| name(of)), "tid": row.tid,
            "holder_tid": row.holder_tid, "address": row.address, "ts": at,
        }));
    }
    found
}

pub(super) fn deadlocks(data: &Data, args: &Args) -> Vec<Value> {
    let mut cycles: BTreeMap<i64, Vec<&TaskStateRow>> = BTreeMap::new();
    for row in data.task_states.iter().filter(|row| args.holds(row.ts)) {
        if let Some(cycle) = row.cycle {
            cycles.entry(cycle).or_default().push(row);
        }
    }
    let mut found = Vec::new();
    for (cycle, rows) in cycles {
        if args.task.is_some() && rows.iter().all(|row| row.task_id != args.task) {
            continue;
        }
        let taken: BTreeSet<i64> = rows.iter().map(|row| row.ts).collect();
        let (first, last) = (taken.first().unwrap(), taken.last().unwrap());
        let mut newest: Vec<_> = rows.iter().filter(|row| row.ts == *last).collect();
        newest.sort_by_key(|row| (row.task_id.is_none(), row.task_id, row.tid, row.branch));
        let since = newest.iter().map(|row| row.since).max().unwrap();
        let who = |task: Option<i64>, tid: Option<i32>| match (task, tid) {
            (Some(task), _) => task.to_string(),
            (None, Some(tid)) => format!("thread {tid}"),
            (None, None) => "?".into(),
        };
        let wait = |row: &TaskStateRow| {
            let name = data.type_of_state(row).map_or("<unknown>", |of| of.name.as_ref());
            let (function, file, line) = data.code_of_wait(row);
            let at = file.zip(line).map_or_else(String::new, |(file, line)| format!(" at {file}:{line}"));
            let function = function.unwrap_or_else(|| "<unknown>".into());
            let (of, holder) = (who(row.task_id, row.tid), who(row.holder_task_id, row.holder_tid));
            format!("{of} {name} in {function}{at} waits for {holder}")
        };
        let waits: Vec<String> = newest.iter().map(|row| wait(row)).collect();
        found.push(json!({
            "cycle": cycle, "tasks": newest.len(), "lasted": last - since, "waits": waits.join("; "),
            "snapshots": taken.len(), "since": since, "first_ts": first, "ts": last,
        }));
    }
    found
}
