//! Spawns, wakes and ends with their subjects, compared with a program that logs them: `wakes` logs all but its
//! conductor's wakes. The program begins once recording is on and ends before it does, so the tables must contain all
//! of them, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter, thread,
    time::Duration,
};

use arrow::array::AsArray as _;
use hud_common::session::Table;
use rustix::process::Signal;
use support::{Recorder, Recording, Target, hud_record, may_trace, program, until};

/// Largest delay between a probe and the program's own reading of the clock, if a thread is preempted in between.
const NEAR: i64 = 50_000_000;

/// A line of the program's log.
#[derive(Clone, Debug)]
struct Fact {
    kind: String,
    mono: i64,
    of: i64,
    by: Option<i64>,
    detail: String,
}

/// The program's account, in order, and hud's.
struct Trial {
    facts: Vec<Fact>,
    recording: Recording,
    _dir: tempfile::TempDir,
}

impl Trial {
    /// Records the program from before its first task to after its last.
    fn run(arguments: &[&str]) -> Option<Self> {
        if !may_trace() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (log, session) = (dir.path().join("facts.csv"), dir.path().join("session"));
        let arguments = [arguments, &["--log", log.to_str().unwrap()]].concat();
        let mut target = Target::start(&program("wakes"), &arguments);
        let mut command = hud_record();
        command.args(["--pid", &target.pid().to_string(), "--headless", "--polls", "exact", "--export"]).arg(&session);
        let mut recorder = Recorder::spawn(command);
        until("recording to begin", || session.join("threads/000001.arrows.inflight").exists());
        // The probes follow; whether they were attached in time is checked below.
        thread::sleep(Duration::from_millis(500));
        target.signal(Signal::USR1);
        assert_eq!(target.line().trim(), "done");
        assert!(recorder.stop().success(), "{}", recorder.said());
        target.stop();

        let mut facts: Vec<Fact> = fs::read_to_string(&log).unwrap().lines().skip(1).map(fact).collect();
        facts.sort_by_key(|f| f.mono);
        let recording = Recording::open(&session);
        let (start, end) = recording.window("polls");
        let (first, last) = (facts[0].mono, facts[facts.len() - 1].mono);
        assert!(
            start < first && last < end,
            "active from {} to {} ns of a window of {}",
            first - start,
            last - start,
            end - start
        );
        for (stream, account) in &recording.manifest.streams {
            assert_eq!(account.dropped, 0, "{stream}");
        }
        Some(Trial { facts, recording, _dir: dir })
    }

    fn facts(&self, kind: &str) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(move |f| f.kind == kind)
    }

    /// Integers of a row, by the columns' names.
    fn rows<const N: usize>(&self, table: Table, columns: [&str; N]) -> Vec<[Option<i64>; N]> {
        let columns = columns.map(|c| self.recording.integers(table, c));
        let mut rows: Vec<_> =
            (0..columns[0].len()).map(|row| std::array::from_fn(|column| columns[column][row])).collect();
        rows.sort_unstable_by_key(|row: &[Option<i64>; N]| row[0]);
        rows
    }

    /// The task type of each spawned task, by the program.
    fn names(&self) -> BTreeMap<i64, &str> {
        self.facts("spawn").map(|f| (f.of, f.detail.as_str())).collect()
    }
}

fn fact(line: &str) -> Fact {
    let [kind, mono, of, by, detail] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
    Fact {
        kind: kind.into(),
        mono: mono.parse().unwrap(),
        of: of.parse().unwrap(),
        by: by.parse().ok(),
        detail: detail.into(),
    }
}

/// Asserts that `what` was at `ts` or a moment later.
fn assert_just_after(ts: i64, own: i64, what: &Fact) {
    assert!((own..own + NEAR).contains(&ts), "{} ns after {what:?}", ts - own);
}

#[test]
fn each_task_is_spawned_once_by_its_parent() {
    let Some(trial) = Trial::run(&["--rounds", "100"]) else { return };
    let recording = &trial.recording;
    let types: BTreeMap<i64, String> = recording
        .integers(Table::TaskTypes, "type_id")
        .into_iter()
        .flatten()
        .zip(recording.texts(Table::TaskTypes, "name"))
        .collect();
    let rows = trial.rows(Table::Spawns, ["ts", "task_id", "parent_task_id", "type_id"]);
    let by_task: BTreeMap<i64, _> = rows.iter().map(|row| (row[1].unwrap(), row)).collect();
    assert_eq!(by_task.len(), rows.len(), "a task is spawned twice");
    for fact in trial.facts("spawn") {
        let [ts, _, parent, type_id] = by_task.get(&fact.of).unwrap_or_else(|| panic!("no row for {fact:?}"));
        assert_eq!(*parent, fact.by, "{fact:?}");
        assert_eq!(types[&type_id.unwrap()], format!("wakes::{}", fact.detail));
        assert_just_after(recording.mono(ts.unwrap()), fact.mono, fact);
    }
    assert_eq!(rows.len(), trial.facts("spawn").count(), "spawns that the program does not know of");
}

#[test]
fn each_wake_is_recorded_with_its_waker() {
    for workers in ["1", "2"] {
        let Some(trial) = Trial::run(&["--rounds", "100", "--workers", workers]) else { return };
        // The wakes of a task follow each other: it is polled before the next.
        let mut recorded: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for [ts, task, waker] in trial.rows(Table::Wakes, ["ts", "task_id", "waker_task_id"]) {
            recorded.entry(task.unwrap()).or_default().push((trial.recording.mono(ts.unwrap()), waker));
        }
        let mut known: BTreeMap<i64, Vec<&Fact>> = BTreeMap::new();
        for fact in trial.facts("wake") {
            known.entry(fact.of).or_default().push(fact);
        }
        let names = trial.names();
        recorded.retain(|task, _| names.get(task) != Some(&"conductor"));
        assert_eq!(recorded.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>(), "the tasks that are woken");
        let mut wrong = Vec::new();
        for (task, facts) in &known {
            let rows = &recorded[task];
            assert_eq!(rows.len(), facts.len(), "wakes of {task}, {}", names[task]);
            for (&(ts, waker), &fact) in iter::zip(rows, facts) {
                match fact.detail.as_str() {
                    "timer" => assert!((fact.mono - NEAR..fact.mono).contains(&ts), "{} {fact:?}", ts - fact.mono),
                    _ => assert_just_after(ts, fact.mono, fact),
                }
                if waker != fact.by {
                    wrong.push(format!("{fact:?}: by {waker:?}"));
                }
            }
        }
        let count = trial.facts("wake").count();
        assert!(wrong.is_empty(), "{} of {count} wakes have a wrong waker:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn each_end_has_its_outcome_and_its_poll() {
    let Some(trial) = Trial::run(&["--rounds", "100"]) else { return };
    let outcomes = trial.recording.texts(Table::Ends, "outcome");
    let (tasks, times) =
        (trial.recording.integers(Table::Ends, "task_id"), trial.recording.integers(Table::Ends, "ts"));
    let mut ends: BTreeMap<i64, (i64, String)> = BTreeMap::new();
    for (task, (ts, outcome)) in iter::zip(tasks, times.into_iter().zip(outcomes)) {
        let (task, end) = (task.unwrap(), (ts.unwrap(), outcome));
        if let Some(other) = ends.insert(task, end.clone()) {
            let polls = trial.rows(Table::Polls, ["ts", "dur", "task_id", "tid"]);
            let polls: Vec<_> = polls.into_iter().filter(|poll| poll[2] == Some(task)).collect();
            let last = &polls[polls.len().saturating_sub(3)..];
            panic!("{task}, {}, ends twice: {other:?}, {end:?}; its last polls: {last:?}", trial.names()[&task]);
        }
    }

    // A task ends in the poll that completed, which is its last.
    let completed = trial.recording.rows(Table::Polls);
    let completed = completed.column_by_name("completed").unwrap().as_boolean();
    let ids: Vec<i64> = trial.recording.integers(Table::Polls, "task_id").into_iter().flatten().collect();
    assert_eq!(completed.iter().flatten().count(), ids.len(), "not known of some polls");
    let spans = iter::zip(trial.recording.integers(Table::Polls, "ts"), trial.recording.integers(Table::Polls, "dur"));
    let spans: Vec<(i64, i64)> = spans.map(|(ts, dur)| (ts.unwrap(), ts.unwrap() + dur.unwrap())).collect();
    let last: BTreeSet<(i64, i64)> =
        (0..ids.len()).filter(|&i| completed.value(i)).map(|i| (ids[i], spans[i].1)).collect();
    assert_eq!(last, ends.iter().map(|(task, end)| (*task, end.0)).collect(), "completed polls and ends");
    // Begun before its end, but not always finished: a task woken while it is polled is passed on by the last lines of
    // the poll, and if the thread is preempted there, another one may poll it to its end first.
    for (task, (begin, over)) in iter::zip(&ids, &spans) {
        let end = ends.get(task).unwrap_or_else(|| panic!("{task} is polled from {begin} to {over}, and has no end"));
        assert!(*begin < end.0, "{task} is polled from {begin} to {over}, after its end at {}", end.0);
    }

    let mut wrong: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for fact in trial.facts("end") {
        let (ts, outcome) = ends.get(&fact.of).unwrap_or_else(|| panic!("no row for {fact:?}"));
        assert_just_after(trial.recording.mono(*ts), fact.mono, fact);
        if *outcome != fact.detail {
            *wrong.entry((&fact.detail, outcome)).or_default() += 1;
        }
    }
    assert_eq!(ends.len(), trial.facts("end").count(), "ends that the program does not know of");
    assert!(wrong.is_empty(), "outcomes by the program and by hud: {wrong:?}");
}

#[test]
fn each_poll_knows_the_wake_that_led_to_it() {
    let Some(trial) = Trial::run(&["--rounds", "100"]) else { return };
    let wakes = trial.rows(Table::Wakes, ["ts", "task_id"]);
    let spawns = trial.rows(Table::Spawns, ["ts", "task_id"]);
    let causes: BTreeSet<(i64, i64)> =
        wakes.iter().chain(&spawns).map(|[ts, task]| (task.unwrap(), ts.unwrap())).collect();
    let mut led = BTreeSet::new();
    let mut unled: BTreeMap<i64, usize> = BTreeMap::new();
    for [ts, task, delay] in trial.rows(Table::Polls, ["ts", "task_id", "wake_delay"]) {
        let (ts, task) = (ts.unwrap(), task.unwrap());
        let Some(wake) = delay.map(|delay| ts - delay) else {
            *unled.entry(task).or_default() += 1;
            continue;
        };
        assert!(wake <= ts, "{task}: woken {} ns after its poll began", wake - ts);
        assert!(causes.contains(&(task, wake)), "{task}: no wake and no spawn is at {wake}, before its poll at {ts}");
        assert!(led.insert((task, wake)), "{task}: the wake at {wake} leads to two polls");
    }
    assert_eq!(led, causes, "every wake and every spawn leads to a poll");
    // An abort queues the task without its waker.
    let aborted = trial.facts("end").filter(|f| f.detail == "cancelled").map(|f| (f.of, 1)).collect();
    assert_eq!(unled, aborted, "polls that nothing led to, by task");
}
