//! The table `task_states` against programs that know what their tasks wait for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use arrow::{array::AsArray as _, datatypes::Int64Type};
use hud_common::session::{InflightReader, Table};
use rustix::process::Signal;
use serde_json::Value;
use support::{Recorder, Recording, Target, hud_record, may_trace, program, record, signal_process, until};

/// A row of `task_states`.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    ts: i64,
    since: i64,
    task: Option<i64>,
    state: String,
    branch: i64,
    branches: i64,
    stack: Option<i64>,
    resource: String,
    address: Option<i64>,
    detail: String,
    holder: Option<i64>,
    cycle: Option<i64>,
}

fn rows(recording: &Recording) -> Vec<Row> {
    let int = |column| recording.integers(Table::TaskStates, column);
    let text = |column| recording.texts(Table::TaskStates, column);
    let (ts, since, task, branch, branches) = (int("ts"), int("since"), int("task_id"), int("branch"), int("branches"));
    let (stack, address, holder, cycle) = (int("stack_id"), int("address"), int("holder_task_id"), int("cycle"));
    let (state, resource, detail) = (text("state"), text("resource"), text("detail"));
    let row = |n: usize| Row {
        ts: ts[n].unwrap(),
        since: since[n].unwrap(),
        task: task[n],
        state: state[n].clone(),
        branch: branch[n].unwrap(),
        branches: branches[n].unwrap(),
        stack: stack[n],
        resource: resource[n].clone(),
        address: address[n],
        detail: detail[n].clone(),
        holder: holder[n],
        cycle: cycle[n],
    };
    (0..ts.len()).map(row).collect()
}

/// A frame of a stack: function, file, line, origin.
type Frame = (String, String, Option<i64>, String);

/// The frames of each stack, leaf first.
fn stacks(recording: &Recording) -> BTreeMap<i64, Vec<Frame>> {
    let ids = recording.integers(Table::Frames, "frame_id");
    let text = |column| recording.texts(Table::Frames, column);
    let (functions, files, origins) = (text("function"), text("file"), text("origin"));
    let lines = recording.integers(Table::Frames, "line");
    let frame = |n: usize| (functions[n].clone(), files[n].clone(), lines[n], origins[n].clone());
    let frames: BTreeMap<i64, Frame> = ids.iter().enumerate().map(|(n, id)| (id.unwrap(), frame(n))).collect();
    let rows = recording.rows(Table::Stacks);
    let lists = rows.column_by_name("frame_ids").unwrap().as_list::<i32>();
    let of = |list: arrow::array::ArrayRef| -> Vec<Frame> {
        list.as_primitive::<Int64Type>().values().iter().map(|id| frames[id].clone()).collect()
    };
    let ids = recording.integers(Table::Stacks, "stack_id").into_iter();
    ids.zip(lists.iter()).map(|(id, list)| (id.unwrap(), of(list.unwrap()))).collect()
}

/// The reasons of the snapshots, and when they were taken.
fn snapshots(recording: &Recording) -> Vec<(i64, String)> {
    let int = |column| recording.integers(Table::Coverage, column);
    let ends = int("ts").into_iter().zip(int("dur")).map(|(ts, dur)| ts.unwrap() + dur.unwrap());
    let all = recording
        .texts(Table::Coverage, "stream")
        .into_iter()
        .zip(ends)
        .zip(recording.texts(Table::Coverage, "reason"));
    all.filter(|((stream, _), _)| stream == "task_states").map(|((_, end), reason)| (end, reason)).collect()
}

/// Starts `zoo`, and returns what it says of itself.
fn zoo(program: &Path, arguments: &[&str]) -> (Target, Value) {
    let mut target = Target::start(program, arguments);
    let truth = serde_json::from_str(&target.line()).unwrap();
    (target, truth)
}

/// Records until a table has rows, and for some time after that: on a busy machine, a debug build reads type information for
/// seconds.
fn record_until(pid: u32, session: &Path, table: Table, then: Duration, arguments: &[&str]) -> (Recording, String) {
    let mut command = hud_record();
    command.args(["--pid", &pid.to_string(), "--headless", "--export"]).arg(session).args(arguments);
    let mut recorder = Recorder::spawn(command);
    let log = session.join(table.name()).join("000001.arrows.inflight");
    until(table.name(), || log.exists());
    std::thread::sleep(then);
    assert!(recorder.stop().success(), "{}", recorder.said());
    (Recording::open(session), recorder.said())
}

#[test]
fn each_task_has_a_row_with_the_lines_at_which_it_waits() {
    if !may_trace() {
        return;
    }
    let (target, truth) = zoo(&program("zoo"), &[]);
    let tmp = tempfile::tempdir().unwrap();
    let (recording, _) =
        record_until(target.pid(), &tmp.path().join("s"), Table::Findings, Duration::from_secs(1), &[]);
    let (rows, stacks, taken) = (rows(&recording), stacks(&recording), snapshots(&recording));
    assert!(taken.len() >= 2 && taken.iter().all(|(_, reason)| reason == "still on"), "{taken:?}");
    let first: Vec<_> = rows.iter().filter(|row| row.ts == taken[0].0).cloned().collect();
    let holders = &truth["holders"];
    for own in truth["tasks"].as_array().unwrap() {
        let id = own["id"].as_i64().unwrap();
        let of: Vec<&Row> = first.iter().filter(|row| row.task == Some(id)).collect();
        assert!(!of.is_empty() && of.iter().all(|row| row.state == "suspended"), "{own}: {of:?}");
        assert!(of.iter().all(|row| row.since == row.ts), "{own}: {of:?}");
        // The program's own lines, without those of further equal branches.
        let frames = of.iter().flat_map(|row| row.stack.iter().flat_map(|id| &stacks[id]));
        let lines: BTreeSet<i64> = frames.filter(|frame| frame.3 == "own").filter_map(|frame| frame.2).collect();
        let wanted: BTreeSet<i64> = own["lines"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap()).collect();
        assert_eq!(lines, wanted, "{own}: {of:?}");
        if let Some(name) = own["held"].as_str().filter(|name| !matches!(*name, "permits" | "cell")) {
            assert!(of.iter().any(|row| row.holder == holders[name].as_i64()), "{own}: {of:?}");
        }
    }
    // Four belong to a runtime that does not run, and work of the blocking pool is there.
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    first.iter().filter(|row| row.state != "suspended").for_each(|row| *others.entry(&row.state).or_default() += 1);
    assert_eq!(others, BTreeMap::from([("cancelled", 1), ("finished", 1), ("never_polled", 2), ("running", 1)]));
    // Those that wait for each other have a row in each snapshot, others none, as nothing changes.
    let of = |lock: &str| holders[lock].as_i64().unwrap();
    let stuck: BTreeSet<i64> = ["a", "b", "actor", "other actor", "twice", "futurelock"].map(of).into();
    for (at, _) in &taken[1..] {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.ts == *at).collect();
        assert_eq!(rows.iter().filter_map(|row| row.task).collect::<BTreeSet<_>>(), stuck, "{rows:?}");
        assert!(rows.iter().all(|row| row.since == taken[0].0 && row.cycle.is_some()), "{rows:?}");
    }
    assert_eq!(first.iter().filter(|row| row.cycle.is_some()).count(), stuck.len());
    // Both sides of a deadlock, with the lock, its holder, and the line.
    for (one, other, function, content) in
        [(of("a"), of("b"), "zoo::transfer_ab", "Mutex<i64>"), (of("b"), of("a"), "zoo::transfer_ba", "Mutex<u32>")]
    {
        let row = first.iter().find(|row| row.task == Some(one)).unwrap();
        assert_eq!((row.resource.as_str(), row.detail.as_str()), ("mutex", content), "{row:?}");
        assert_eq!((row.holder, row.cycle, row.branches), (Some(other), Some(one.min(other)), 1), "{row:?}");
        let stack = &stacks[&row.stack.unwrap()];
        assert_eq!((stack[0].0.as_str(), stack[0].3.as_str()), ("tokio::sync::batch_semaphore::Acquire", "tokio"));
        let outermost = stack.last().unwrap();
        assert!(outermost.0 == function && outermost.1.ends_with("zoo.rs"), "{stack:?}");
        let own = truth["tasks"].as_array().unwrap().iter().find(|t| t["id"].as_i64() == Some(one)).unwrap();
        assert_eq!(outermost.2, own["lines"][0].as_i64(), "{stack:?}");
    }
    recording.assert_names();
    let session = tmp.path().join("s");
    support::verify(&session);
    the_deadlock_is_a_finding(&recording, &session, (of("a"), of("b")));
}

#[test]
fn tasks_that_hold_permits_and_wait_for_more_are_a_finding() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("faults"), &["hold-and-wait"]);
    let tmp = tempfile::tempdir().unwrap();
    let (recording, _) =
        record_until(target.pid(), &tmp.path().join("s"), Table::Findings, Duration::from_secs(1), &[]);
    // Both are their own holders in each snapshot, at one semaphore.
    let own: Vec<Row> =
        rows(&recording).into_iter().filter(|row| row.task.is_some() && row.holder == row.task).collect();
    let taken = snapshots(&recording);
    assert!(taken.len() >= 2, "{taken:?}");
    for (at, _) in &taken {
        let tasks: BTreeSet<_> = own.iter().filter(|row| row.ts == *at).map(|row| row.task).collect();
        assert_eq!(tasks.len(), 2, "{own:?}");
    }
    let is_same = |row: &Row| row.address == own[0].address && row.since == taken[0].0 && row.cycle.is_none();
    assert!(own.iter().all(|row| row.resource == "semaphore" && is_same(row)), "{own:?}");
    let text = |column| recording.texts(Table::Findings, column);
    let found: Vec<_> = text("rule").into_iter().zip(text("function")).zip(text("severity")).collect();
    assert!(!found.is_empty());
    for ((rule, function), severity) in found {
        assert_eq!((rule.as_str(), severity.as_str()), ("semaphore_starved", "caution"));
        assert!(function.contains("merge_shards_with_two_slots"), "{function}");
    }
}

/// Of the two tasks, in the session and in the views.
fn the_deadlock_is_a_finding(recording: &Recording, session: &Path, (one, other): (i64, i64)) {
    let text = |column| recording.texts(Table::Findings, column);
    let int = |column| recording.integers(Table::Findings, column);
    let found: Vec<_> = text("rule").into_iter().zip(text("sentence")).zip(int("task_id")).collect();
    let of = found.iter().find(|((rule, _), task)| rule == "lock_cycle" && *task == Some(one));
    let ((_, sentence), _) = of.unwrap_or_else(|| panic!("{found:#?}"));
    for said in [
        "2 tasks have waited for each other for at least ",
        &format!(": zoo::transfer_ab ({one}) in zoo::transfer_ab (zoo.rs:"),
        &format!(", zoo::transfer_ba ({other}) in zoo::transfer_ba (zoo.rs:"),
    ] {
        assert!(sentence.contains(said), "{said:?}: {sentence}");
    }
    let rules: BTreeSet<_> = found.iter().map(|((rule, _), _)| rule.as_str()).collect();
    assert_eq!(rules, BTreeSet::from(["lock_cycle"]), "{found:#?}");

    let waits = support::analyze(&["wait-graph"], session);
    let wait = |task: i64| waits.as_array().unwrap().iter().find(|wait| wait["task_id"] == task).unwrap();
    for (task, holder) in [(one, other), (other, one)] {
        let of = wait(task);
        assert_eq!((of["holder_task_id"].as_i64(), of["cycle"].as_i64()), (Some(holder), Some(one)), "{of:#}");
        let (place, there) = (["function", "file", "line"].map(|c| &of[c]), wait(holder));
        assert_eq!(place, ["function", "file", "line"].map(|c| &there[format!("holder_{c}")]), "{of:#}");
    }
    let deadlocks = support::analyze(&["deadlocks", "--task", &one.to_string()], session);
    assert_eq!((deadlocks[0]["tasks"].as_i64(), deadlocks.as_array().unwrap().len()), (Some(2), 1), "{deadlocks:#}");
    let said = deadlocks[0]["waits"].as_str().unwrap();
    assert!(
        said.starts_with(&format!("{one} zoo::transfer_ab in zoo::transfer_ab at hud-record/examples/zoo.rs:")),
        "{said}"
    );
    assert!(said.ends_with(&format!(" waits for {one}")) && deadlocks[0]["snapshots"].as_i64() >= Some(2), "{said}");
    // It waits there from the first snapshot to the last one.
    let flame = support::analyze(&["await-flame", "--task", &one.to_string()], session);
    let [stack] = &flame.as_array().unwrap()[..] else { panic!("{flame:#}") };
    assert_eq!(
        (stack["task_type"].as_str(), stack["tasks"].as_i64()),
        (Some("zoo::transfer_ab"), Some(1)),
        "{stack:#}"
    );
    let named = stack["stack"].as_str().unwrap();
    assert!(named.starts_with("zoo::transfer_ab;") && named.ends_with("batch_semaphore::Acquire"), "{stack:#}");
    let taken = snapshots(recording);
    assert_eq!(stack["weight"].as_i64(), Some(taken.last().unwrap().0 - taken[0].0), "{stack:#}");
    let places = support::analyze(&["suspended"], session);
    let place = places.as_array().unwrap().iter().find(|p| p["function"] == "zoo::transfer_ab").unwrap();
    assert_eq!((place["tasks"].as_i64(), place["deadlocked"].as_i64()), (Some(1), Some(1)), "{place:#}");
    assert_eq!(
        (place["resource"].as_str(), place["detail"].as_str()),
        (Some("mutex"), Some("Mutex<i64>")),
        "{place:#}"
    );
    assert_eq!(place["holder_task_id"], other, "{place:#}");
    assert!(place["longest"].as_i64().unwrap() > 1_000_000_000, "{place:#}");
}

/// 10,000 tasks that do not move cost rows once, and a bounded share of a CPU.
#[test]
fn many_tasks_that_wait_cost_rows_once() {
    if !may_trace() {
        return;
    }
    let (target, truth) = zoo(&program("zoo"), &["many", "10000", "100"]);
    let tmp = tempfile::tempdir().unwrap();
    let session = tmp.path().join("s");
    // A second apart, and more if they cost more than half a percent.
    let arguments = ["--freq", "0", "--polls", "off", "--log-level", "debug", "--state", "1s"];
    let (recording, said) = record_until(target.pid(), &session, Table::TaskStates, Duration::from_secs(6), &arguments);
    let (rows, taken) = (rows(&recording), snapshots(&recording));
    assert!(!taken.is_empty());
    assert_eq!(rows.len(), 10_000, "{truth}");
    assert!(rows.iter().all(|row| row.ts == taken[0].0 && row.state == "suspended"));
    assert_eq!(rows.iter().filter_map(|row| row.task).collect::<BTreeSet<_>>().len(), 10_000);
    let bytes: u64 =
        recording.session.segments(Table::TaskStates).unwrap().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 200_000, "{bytes} bytes");
    let cost = |line: &str| line.split_once("cost_us=")?.1.split_whitespace().next()?.parse::<u64>().ok();
    let costs: Vec<u64> = said.lines().filter_map(cost).collect();
    assert_eq!(costs.len(), taken.len(), "{said}");
    // A debug build: 400 ms here. What it costs is earned before the next one.
    assert!(costs.iter().all(|cost| *cost < 4_000_000), "{costs:?}");
    let later: u64 = costs.iter().skip(1).rev().skip(1).sum();
    assert!(later < 600_000, "{costs:?}");
}

#[test]
fn a_signal_takes_a_snapshot_and_off_takes_none() {
    if !may_trace() {
        return;
    }
    let (target, _) = zoo(&program("zoo"), &["many", "100", "1"]);
    let tmp = tempfile::tempdir().unwrap();
    let session = tmp.path().join("s");
    let mut command = hud_record();
    command.args(["--pid", &target.pid().to_string(), "--headless", "--state", "1h", "--export"]).arg(&session);
    let mut recorder = Recorder::spawn(command);
    // Nothing changes: the next rows are those of the snapshot on request, which has all tasks.
    let log = session.join("task_states/000001.arrows.inflight");
    let rows_so_far = || -> usize {
        let Ok(batches) = InflightReader::open(Table::TaskStates, &log) else { return 0 };
        batches.map_while(Result::ok).map(|batch| batch.num_rows()).sum()
    };
    until("the first snapshot", || rows_so_far() == 100);
    signal_process(recorder.pid(), Signal::USR2);
    until("a snapshot on request", || rows_so_far() == 200);
    assert!(recorder.stop().success(), "{}", recorder.said());
    let mut by_time: BTreeMap<i64, usize> = BTreeMap::new();
    let rows = rows(&Recording::open(&session));
    rows.iter().for_each(|row| *by_time.entry(row.ts).or_default() += 1);
    assert_eq!(by_time.into_values().collect::<Vec<_>>(), [100, 100]);

    let off = record(target.pid(), &tmp.path().join("off"), &["--duration", "3", "--state", "off", "--polls", "off"]);
    assert!(snapshots(&off).is_empty() && off.rows(Table::TaskStates).num_rows() == 0);
}

#[test]
fn without_type_information_the_states_are_recorded_and_coverage_says_so() {
    if !may_trace() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let stripped = tmp.path().join("zoo");
    assert!(Command::new("strip").arg("-s").arg("-o").arg(&stripped).arg(program("zoo")).status().unwrap().success());
    let (target, truth) = zoo(&stripped, &[]);
    let (recording, _) = record_until(target.pid(), &tmp.path().join("s"), Table::TaskStates, Duration::ZERO, &[]);
    let (rows, taken) = (rows(&recording), snapshots(&recording));
    assert!(taken[0].1.contains("no type information"), "{taken:?}");
    for own in truth["tasks"].as_array().unwrap() {
        let of: Vec<&Row> = rows.iter().filter(|row| row.task == own["id"].as_i64()).collect();
        assert!(matches!(of[..], [Row { stack: None, branches: 0, .. }]), "{own}: {of:?}");
        assert_eq!(of[0].state, "suspended", "{own}");
    }
}

/// A session has the state of all tasks, although nothing changed since the one before.
#[test]
fn each_session_of_a_store_has_all_tasks() {
    if !may_trace() {
        return;
    }
    let (target, _) = zoo(&program("zoo"), &["many", "50", "1"]);
    let tmp = tempfile::tempdir().unwrap();
    let mut command = hud_record();
    command.args(["--pid", &target.pid().to_string(), "--headless", "--state", "1s", "--session-every", "3s"]);
    command.arg("--store").arg(tmp.path());
    let mut recorder = Recorder::spawn(command);
    let sessions = || -> Vec<PathBuf> {
        let hosts = fs::read_dir(tmp.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = hosts.flat_map(|host| fs::read_dir(host).unwrap().map(|e| e.unwrap().path())).collect();
        all.sort();
        all
    };
    let has_states = |session: &PathBuf| session.join("task_states").exists();
    until("three sessions with states", || sessions().iter().filter(|session| has_states(session)).count() >= 3);
    assert!(recorder.stop().success(), "{}", recorder.said());
    for session in sessions().iter().filter(|session| has_states(session)) {
        let recording = Recording::open(session);
        let (rows, taken) = (rows(&recording), snapshots(&recording));
        assert!(rows.iter().all(|row| row.ts == taken[0].0), "{taken:?}");
        assert_eq!(rows.iter().filter_map(|row| row.task).collect::<BTreeSet<_>>().len(), 50, "{rows:?}");
        recording.assert_names();
    }
}

/// Tasks that come and go, and move all the time: each is `gone` once, after its last state.
#[test]
fn tasks_that_end_are_gone() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("test-async-app"), &[]);
    let tmp = tempfile::tempdir().unwrap();
    let arguments = ["--state", "1s"];
    let (recording, _) =
        record_until(target.pid(), &tmp.path().join("s"), Table::TaskStates, Duration::from_secs(6), &arguments);
    let rows = rows(&recording);
    assert!(snapshots(&recording).len() >= 3, "{:?}", snapshots(&recording));
    let mut by_task: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    rows.iter()
        .filter(|row| row.branch == 0)
        .for_each(|row| by_task.entry(row.task.unwrap_or(0)).or_default().push(row));
    by_task.remove(&0);
    for (task, mut rows) in by_task {
        rows.sort_by_key(|row| row.ts);
        let gone: Vec<usize> = rows.iter().enumerate().filter(|(_, row)| row.state == "gone").map(|(n, _)| n).collect();
        assert!(gone.is_empty() || gone == [rows.len() - 1] && rows.len() > 1, "{task}: {rows:?}");
        assert!(rows.iter().all(|row| row.cycle.is_none() && row.since <= row.ts), "{task}: {rows:?}");
    }
    let found = recording.texts(Table::Findings, "rule");
    assert!(found.iter().all(|rule| rule != "lock_cycle"), "{found:?}");
    recording.assert_names();
    support::verify(&tmp.path().join("s"));
}
