//! The store: successive sessions, without missing an event between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_wrap, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hud_common::session::{Manifest, Table};
use rustix::process::Signal;
use support::{Recorder, Recording, Target, hud_record, may_trace, program, signal_process, text, truth};

/// The sessions of a store, oldest first.
fn sessions(root: &Path) -> Vec<PathBuf> {
    let Some(host) = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).next() else { return Vec::new() };
    assert!(host.file_name().unwrap().to_str().unwrap().starts_with("host="));
    let mut all: Vec<_> = fs::read_dir(host).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// Waits until the store has `n` sessions, all of them with polls.
fn until_begun(root: &Path, n: usize) {
    support::until("sessions with polls", || {
        root.exists() && sessions(root).len() == n && sessions(root).iter().all(|s| s.join("polls").exists())
    });
}

#[test]
fn one_session_follows_the_other_without_missing_an_event() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let root = dir.path().join("store");
    let target = Target::start(&program("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    let output = hud_record()
        .args(["--pid", &target.pid().to_string(), "--headless", "--duration", "12", "--polls", "exact"])
        .args(["--session-every", "1s", "--store"])
        .arg(&root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    target.stop();
    let sessions = sessions(&root);
    // A session begins once the one before is closed, symbols included: on a busy machine that takes longer than a
    // second.
    assert!(sessions.len() >= 3, "{sessions:?}");
    assert_eq!(text(&output.stdout).lines().count(), sessions.len(), "the path of each is printed on stdout");

    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let (mut start, mut end) = (i64::MAX, 0);
    let mut previous = None;
    for path in &sessions {
        let recording = Recording::open(path);
        recording.assert_names();
        support::verify(path);
        assert_eq!(recording.manifest.previous, previous);
        previous = Some(recording.manifest.id.clone());
        let window = recording.window("polls");
        assert!(end == 0 || (window.0 - end).abs() < 1000, "the streams were on all the time");
        (start, end) = (start.min(window.0), window.1);
        let names: BTreeMap<_, _> = recording
            .integers(Table::TaskTypes, "type_id")
            .into_iter()
            .zip(recording.texts(Table::TaskTypes, "name"))
            .collect();
        for type_id in recording.integers(Table::Polls, "type_id") {
            *counts.entry(names[&type_id].replace("test_async_app::", "")).or_default() += 1;
        }
        let known: std::collections::BTreeSet<_> = recording.integers(Table::Threads, "tid").into_iter().collect();
        assert!(recording.integers(Table::OffCpu, "tid").iter().all(|tid| known.contains(tid)));
    }
    for (name, own) in truth(&log) {
        let Some(&ours) = counts.get(&name) else { continue };
        // One poll at either end may count on one side only.
        let own = own.iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).count() as i64;
        assert!((ours - own).abs() <= 2, "{name}: {ours} polls in all sessions, {own} by its own count");
    }
    assert!(counts.len() >= 8, "{counts:?}");
}

#[test]
fn the_next_process_of_the_name_is_recorded_too_and_a_killed_recorders_session_recovered() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let app = dir.path().join("hud-test-again");
    fs::copy(program("test-async-app"), &app).unwrap();
    let wait = |root: &Path| {
        let mut command = hud_record();
        command.args(["hud-test-again", "--headless", "--wait", "--store"]).arg(root);
        Recorder::spawn(command)
    };
    let mut recorder = wait(&root);
    recorder.until_it_says("waiting for hud-test-again");
    let first = Target::start(&app, &[]);
    recorder.until_it_says("recording hud-test-again");
    until_begun(&root, 1);
    first.stop();
    recorder.until_it_says("(the target exited)");
    let second = Target::start(&app, &[]);
    recorder.until_it_says(&format!("recording hud-test-again (pid {}", second.pid()));
    until_begun(&root, 2);
    // Not in order: the session is left as it is.
    recorder.kill();
    let left = sessions(&root).pop().unwrap();
    assert!(!Manifest::read(&left).unwrap().complete);

    let mut recorder = wait(&root);
    recorder.until_it_says("recording hud-test-again");
    until_begun(&root, 3);
    assert!(recorder.stop().success());
    let all: Vec<_> = sessions(&root).iter().map(|s| Manifest::read(s).unwrap()).collect();
    assert_eq!(all.len(), 3);
    assert!(all[0].complete && all[2].complete);
    assert_eq!(all[0].end_reason.as_deref(), Some("the target exited"));
    assert_eq!(all[1].previous.as_deref(), Some(all[0].id.as_str()), "linked to the one before the restart");
    assert!(all[1].recovery.is_some(), "recovered at the start of the next recorder");
    Recording::open_recovered(&left).assert_names();
    second.stop();
}

#[test]
fn removes_whole_sessions_beyond_the_stores_limits() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let target = Target::start(&program("test-async-app"), &[]);
    let run = |more: &[&str]| {
        let output = hud_record()
            .args(["--pid", &target.pid().to_string(), "--headless", "--duration", "2", "--store"])
            .arg(&root)
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    run(&[]);
    let first = sessions(&root).remove(0);
    // Larger than the limit.
    fs::write(first.join("polls/000099.parquet"), vec![0; 4 << 20]).unwrap();
    run(&["--keep-size", "3MiB"]);
    assert!(!first.exists(), "the oldest session is gone");
    assert_eq!(sessions(&root).len(), 1);
    Recording::open(&sessions(&root)[0]);
}

#[test]
fn waiting_ends_with_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = hud_record();
    command.args(["hud-test-never", "--headless", "--wait", "--store"]).arg(dir.path().join("store"));
    let mut recorder = Recorder::spawn(command);
    recorder.until_it_says("waiting for hud-test-never");
    signal_process(recorder.pid(), Signal::TERM);
    assert!(recorder.wait().success());
}

#[test]
fn a_target_that_executes_another_program_ends_its_session() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let app = dir.path().join("hud-test-exec");
    fs::copy(program("exec-fork"), &app).unwrap();
    let target = Target::start(&app, &[]);
    let mut command = hud_record();
    command.args(["hud-test-exec", "--headless", "--wait", "--store"]).arg(&root);
    let mut recorder = Recorder::spawn(command);
    support::until("a session", || root.exists() && sessions(&root).iter().any(|s| s.join("off_cpu").exists()));
    target.signal(Signal::USR2);
    recorder.until_it_says("(the target executed another program)");
    // It is `sleep` now, which was not requested.
    recorder.until_it_says("waiting for hud-test-exec");
    let again = Target::start(&app, &[]);
    recorder.until_it_says(&format!("recording hud-test-exec (pid {}", again.pid()));
    assert!(recorder.stop().success());
    let all = sessions(&root);
    let recording = Recording::open(&all[0]);
    assert_eq!(recording.manifest.end_reason.as_deref(), Some("the target executed another program"));
    let next = Manifest::read(&all[1]).unwrap();
    assert_eq!(next.previous.as_deref(), Some(recording.manifest.id.as_str()));
}
