//! The tailer, on real recordings: its counts equal the session's, however it read it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use hud_common::{
    cockpit::{Bucket, Culprit, Mode, Query, Rule, Snapshot, Source as _, Status, TaskId, Window},
    session::Table,
};
use hud_record::tail::{Settings, Tailer};
use support::{Recorder, Recording, Target, hud_record, may_trace, program, until};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: i64 = 1_000_000_000;

/// Keeps all of a short session, and never skips.
fn keep_all() -> Settings {
    Settings { keep: HOUR, history: HOUR, stall: HOUR, most: usize::MAX }
}

fn open(session: &Path, settings: Settings) -> Tailer {
    let mut tailer = None;
    until("the session", || {
        tailer = Tailer::open(session, settings).ok();
        tailer.is_some()
    });
    tailer.unwrap()
}

fn follow_to_the_end(tailer: &mut Tailer) {
    until("the session's end", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        tailer.is_ended()
    });
}

fn all_of(tailer: &mut Tailer) -> Snapshot {
    let (from, to) = tailer.range();
    tailer.snapshot(&Query { at: Some(to + 1), window: to - from + SECOND, ..Query::default() }).unwrap()
}

/// Compares a snapshot with the session, read by another reader.
fn assert_counts_equal(snapshot: &Snapshot, recording: &Recording) {
    let rows = |table| i64::try_from(recording.integers(table, "ts").len()).unwrap();
    for (stream, table) in [
        ("polls", Table::Polls),
        ("off_cpu", Table::OffCpu),
        ("samples", Table::Samples),
        ("wakes", Table::Wakes),
        ("spawns", Table::Spawns),
        ("ends", Table::Ends),
    ] {
        let seen = snapshot.coverage.streams.iter().find(|s| s.stream.as_str() == stream).unwrap();
        assert_eq!(seen.rows, rows(table), "{stream}");
        assert!(seen.rows > 0, "{stream}: a test of nothing");
    }
    let mut polls: BTreeMap<Option<i64>, (i64, i64, i64)> = BTreeMap::new();
    let durations = recording.integers(Table::Polls, "dur");
    for (type_id, dur) in recording.integers(Table::Polls, "type_id").iter().zip(durations) {
        let of = polls.entry(*type_id).or_default();
        *of = (of.0 + 1, of.1 + dur.unwrap(), of.2.max(dur.unwrap()));
    }
    for row in &snapshot.types {
        let id = row.task_type.as_ref().map(|t| t.id.0);
        let own = polls.remove(&id).unwrap_or_default();
        let seen = (row.polls, row.durations.sum, row.durations.longest);
        assert_eq!(seen, own, "{:?}", row.task_type);
        assert_eq!(row.durations.count, row.polls.unsigned_abs());
    }
    let kinds: BTreeMap<i64, String> = recording
        .integers(Table::TaskTypes, "type_id")
        .into_iter()
        .flatten()
        .zip(recording.texts(Table::TaskTypes, "kind"))
        .collect();
    assert!(polls.keys().all(|id| id.is_some_and(|id| kinds[&id] == "worker")), "only loops are left out: {polls:?}");
    let weight: i64 = recording.integers(Table::Samples, "weight").into_iter().flatten().sum();
    assert_eq!(snapshot.hotspots.weight, weight);
    let by_function: i64 = snapshot.hotspots.by_function.iter().map(|h| h.own).sum();
    assert_eq!(by_function, weight, "each sample is blamed on one function");
    let lost: i64 = recording.integers(Table::Drops, "lost").into_iter().flatten().sum();
    assert_eq!(snapshot.drops.lost, lost);
}

#[test]
fn live_counts_equal_the_sessions() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let arguments = ["--polls", "exact", "--duration", "6", "--roll-age", "300ms"];
    // Sealed a dozen times and more while it is followed.
    let mut recorder = Recorder::start(target.pid(), &session, &arguments);
    let mut live = open(&session, keep_all());
    let mut page_of = None;
    until("the session's end", || {
        live.wait(Duration::from_millis(50)).unwrap();
        let query = Query { task: page_of, ..Query::default() };
        let snapshot = live.snapshot(&query).unwrap();
        // A task's page is opened half way, of the task with the most polls then.
        if page_of.is_none() && snapshot.polls.count > 500 {
            page_of = snapshot.tasks.rows.iter().max_by_key(|r| r.polls).map(|r| r.task.id);
        }
        live.is_ended()
    });
    assert!(recorder.wait().success());
    let recording = Recording::open(&session);
    assert_counts_equal(&all_of(&mut live), &recording);

    let mut later = open(&session, keep_all());
    assert!(later.is_ended());
    assert_eq!(later.rows(), live.rows(), "each row once");
    // At a hundred instants and windows, the tailer that followed it live and one that reads it now agree.
    let (from, to) = later.range();
    for n in 0..100_i64 {
        let at = from + (to - from) * (n * 37 % 100) / 100 + n;
        let window = [SECOND / 10, SECOND, 3 * SECOND, 10 * SECOND][usize::try_from(n % 4).unwrap()];
        let query = Query { at: Some(at), window, task: page_of, ..Query::default() };
        assert_eq!(live.snapshot(&query).unwrap(), later.snapshot(&query).unwrap(), "{query:?}");
    }

    let page_of = page_of.expect("a task with polls");
    let query = Query { task: Some(page_of), window: to - from + SECOND, ..Query::default() };
    let page = later.snapshot(&query).unwrap().task.unwrap();
    let own = recording.integers(Table::Polls, "task_id").iter().filter(|id| **id == Some(page_of.0)).count();
    let wakes = recording.integers(Table::Wakes, "task_id").iter().filter(|id| **id == Some(page_of.0)).count();
    assert_eq!(page.durations.count, own as u64);
    assert_eq!(page.wakers.iter().map(|(_, n)| n).sum::<i64>(), i64::try_from(wakes).unwrap());
    assert!(!page.last_polls.is_empty() && page.row.is_some());
}

#[test]
fn both_culprits_are_found() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    // By probes, and by samples and the scheduler alone.
    for polls in ["exact", "off"] {
        let session = dir.path().join(polls);
        let mut command = hud_record();
        command.args([
            "--pid",
            &target.pid().to_string(),
            "--headless",
            "--duration",
            "6",
            "--polls",
            polls,
            "--export",
        ]);
        command.arg(&session);
        let mut recorder = Recorder::spawn(command);
        let mut tailer = open(&session, Settings::default());
        // Waiting without other work is no stall.
        until("the session's end", || {
            tailer.wait(Duration::from_secs(10)).unwrap();
            tailer.is_ended()
        });
        assert!(recorder.wait().success());
        let snapshot = tailer.snapshot(&Query::default()).unwrap();
        assert_eq!(snapshot.mode, Mode::Ended { is_complete: true });
        assert!(snapshot.status >= Status::Caution);
        assert_eq!(snapshot.polls.count > 0, polls == "exact");
        for (task, is_estimate) in [("cpu_hog", polls == "off"), ("blocking_sleeper", false)] {
            let task = format!("test_async_app::{task}");
            let of = |c: &&Culprit| c.task_type.as_ref().is_some_and(|t| t.name.as_str() == task);
            let culprit = snapshot.blocking.culprits.iter().find(of);
            let culprit =
                culprit.unwrap_or_else(|| panic!("{polls}: no {task} among {:#?}", snapshot.blocking.culprits));
            // Until the probes are attached, an exact recording has estimates too.
            let of_it = snapshot.blocking.worst.iter().filter(|s| s.task.task_type == culprit.task_type);
            assert_eq!(of_it.map(|s| s.is_estimated).min(), Some(is_estimate), "{polls}: {culprit:?}");
            assert!(culprit.place.file.as_ref().is_some_and(|f| f.ends_with("test-async-app.rs")), "{culprit:?}");
            assert!(culprit.place.line.is_some_and(|l| l > 0), "{culprit:?}");
            let found = snapshot.findings.iter().find(|f| f.rule == Rule::LongPoll && f.sentence.starts_with(&task));
            // Samples cannot distinguish one long poll from many short ones.
            assert_eq!(found.is_some(), !is_estimate, "{polls}: {:#?}", snapshot.findings);
        }
        assert!(snapshot.workers.runtimes.iter().flat_map(|r| &r.workers).all(|w| w.load.observed() > 0));
        assert!(!snapshot.timeline.lanes.is_empty() && snapshot.flame.nodes.len() > 10);
    }
}

#[test]
fn after_a_stall_it_skips_to_now_and_reports_it() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact", "--roll-age", "500ms"]);
    let settings = Settings { stall: Duration::from_millis(500), keep: HOUR, history: HOUR, ..Settings::default() };
    let mut tailer = open(&session, settings);
    tailer.wait(Duration::from_millis(100)).unwrap();
    // The stall itself: no read for three seconds.
    std::thread::sleep(Duration::from_secs(3));
    until("polls after it", || {
        tailer.wait(Duration::from_millis(100)).unwrap();
        tailer.snapshot(&Query::default()).unwrap().polls.count > 0
    });
    let resumed = tailer.range().0;
    let snapshot = tailer.snapshot(&Query::default()).unwrap();
    let Mode::Live { skipped: (times, ns), .. } = snapshot.mode else { panic!("{:?}", snapshot.mode) };
    assert!(times >= 1 && ns >= SECOND, "{times} times, {ns} ns");
    assert!(snapshot.coverage.unread > 0, "the window says that its start was not read");

    assert!(recorder.stop().success());
    follow_to_the_end(&mut tailer);
    let recording = Recording::open(&session);
    let skipped_again = matches!(snapshot.mode, Mode::Live { skipped, .. } if skipped.0 > 1);
    if tailer.range().0 == resumed && !skipped_again {
        // From there on, nothing is missing.
        let from = Bucket::of(resumed);
        let (ts, dur) = (recording.integers(Table::Polls, "ts"), recording.integers(Table::Polls, "dur"));
        let own = ts.iter().zip(dur).filter(|(ts, dur)| Bucket::of(ts.unwrap() + dur.unwrap()) >= from).count();
        let seen = all_of(&mut tailer);
        assert_eq!(
            seen.coverage.streams.iter().find(|s| s.stream.as_str() == "polls").unwrap().rows,
            i64::try_from(own).unwrap()
        );
    }
}

#[test]
fn a_killed_recorders_session_is_shown_to_its_end_and_as_killed() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact", "--roll-age", "400ms"]);
    let mut tailer = open(&session, keep_all());
    until("some polls", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        tailer.rows() > 5_000
    });
    assert!(!tailer.is_ended());
    recorder.kill();
    follow_to_the_end(&mut tailer);
    let seen = all_of(&mut tailer);
    assert_eq!(seen.mode, Mode::Ended { is_complete: false });
    let (folder, _) = hud_common::session::SessionDir::open(&session).unwrap();
    hud_common::session::recover(&folder).unwrap().expect("it was killed");
    assert_counts_equal(&seen, &Recording::open_recovered(&session));
}

#[test]
fn the_next_session_of_a_store_is_followed() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut command = hud_record();
    command.args(["--pid", &target.pid().to_string(), "--headless", "--session-every", "2s", "--store"]).arg(&store);
    let mut recorder = Recorder::spawn(command);
    let mut tailer = open(&store, Settings::default());
    let first = tailer.path().to_path_buf();
    until("the next session", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        tailer.path() != first
    });
    // Between one session and the next it may have ended, for a moment.
    until("it continues", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        matches!(tailer.snapshot(&Query::default()).unwrap().mode, Mode::Live { restarts: 1.., .. })
    });
    until("rows of it", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        tailer.snapshot(&Query::default()).unwrap().polls.count > 0
    });
    assert!(recorder.stop().success());
}

#[test]
fn memory_is_bounded_by_what_may_be_kept() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact"]);
    let (keep, most) = (Duration::from_secs(2), 20_000);
    let mut tailer = open(&session, Settings { keep, most, ..Settings::default() });
    let started = tailer.range().1;
    until("five seconds", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        tailer.range().1 - started > 5 * SECOND
    });
    let (from, to) = tailer.range();
    assert!(to - from <= 3 * SECOND, "it keeps {} ns", to - from);
    let ids: BTreeSet<TaskId> = all_of(&mut tailer).tasks.rows.iter().map(|r| r.task.id).collect();
    assert!(!ids.is_empty() && Window::ending(to, SECOND).dur() == SECOND);
    assert!(recorder.stop().success());
}
