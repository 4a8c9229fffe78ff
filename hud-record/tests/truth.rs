//! hud against a program that measures itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_wrap, reason = "tests")]

mod support;

use hud_common::session::Table;
use rustix::process::Signal;
use support::{Target, analyze, assert_both_culprits, assert_polls_agree, may_trace, program, record, truth};

#[test]
fn exact_polls_agree_with_the_programs_own_account() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    let recording = record(target.pid(), &dir.path().join("session"), &["--duration", "12", "--polls", "exact"]);
    target.stop();

    let tasks = ["good_citizen", "yielding_worker", "cpu_hog", "blocking_sleeper", "lock_contender", "file_reader"];
    let tasks: Vec<_> = tasks.into_iter().chain(["pool_user", "short_lived_spawner", "short_lived"]).collect();
    assert_polls_agree(&recording, &truth(&log), "test_async_app", &tasks);
}

#[test]
fn without_probes_the_sleeper_is_named_and_its_sleeps_are_exact() {
    if !may_trace() {
        return;
    }
    for row in sleeps_agree("test-async-app") {
        assert!(row["file"].as_str().unwrap().ends_with("test-async-app.rs"), "{row}");
        assert!(row["line"].as_i64().unwrap() > 0, "{row}");
    }
}

/// No frame pointers, no debug information, legacy mangling: the defaults of `cargo build --release`.
#[test]
fn default_release_builds_agree_as_well() {
    if may_trace() {
        sleeps_agree("plain/test-async-app");
    }
}

/// Records without polls, and compares the sleeps that hud reports with the program's own. Returns hud's rows.
fn sleeps_agree(target: &str) -> Vec<serde_json::Value> {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program(target), &["--poll-log", log.to_str().unwrap()]);
    let session = dir.path().join("session");
    let recording = record(target.pid(), &session, &["--duration", "6", "--polls", "off"]);
    target.stop();
    assert_eq!(recording.rows(Table::Polls).num_rows(), 0);

    // The window is chosen between two sleeps, so that none lies across its border. If the current task's id has to be
    // searched in thread-local storage, the first moments are without tasks.
    let (start, end) = recording.window("off_cpu");
    let sleeps = &truth(&log)["sleep"];
    let inside: Vec<_> = sleeps.iter().filter(|(ts, dur)| *ts > start + 1_000_000_000 && ts + dur < end).collect();
    let (first, last) = (inside.first().unwrap(), inside.last().unwrap());
    let (from, to) = (first.0 - 1_000_000, last.0 + last.1 + 1_000_000);

    let rows = analyze(&["blocking", "--each", "--limit", "100000"], &session);
    let blocked: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["cause"] == "blocked" && r["task_type"] == "test_async_app::blocking_sleeper")
        .filter(|r| (from..to).contains(&recording.mono(r["ts"].as_i64().unwrap())))
        // A sleep takes 15 ms or longer. The task may block for other reasons as well, such as a page fault that waits
        // for `mmap_lock` while a probe is being detached.
        .filter(|r| r["dur"].as_i64().unwrap() >= 14_000_000)
        .cloned()
        .collect();
    let listed = || blocked.iter().map(|r| format!("{} +{}\n", r["ts"], r["dur"])).collect::<String>();
    assert_eq!(blocked.len(), inside.len(), "sleeps by hud, and by the program's own count:\n{}", listed());
    let total: i64 = blocked.iter().map(|r| r["dur"].as_i64().unwrap()).sum();
    let own: i64 = inside.iter().map(|(_, dur)| dur).sum();
    assert!((total - own).abs() * 20 <= own, "slept {total} ns by hud, {own} ns by its own clock");
    for row in &blocked {
        // The closure that sleeps; without debug information, the function into which it was inlined.
        let function = row["function"].as_str().unwrap();
        assert!(function.contains("blocking_sleeper") || function == "test_async_app::truth::timed", "{row}");
    }
    blocked
}

/// The summary that a user sees first: both culprits, and no other task.
#[test]
fn both_culprits_are_named_and_nobody_else() {
    if !may_trace() {
        return;
    }
    for polls in ["exact", "off"] {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::start(&program("test-async-app"), &[]);
        let session = dir.path().join("session");
        record(target.pid(), &session, &["--duration", "8", "--polls", polls]);
        target.stop();

        let rows = assert_both_culprits(&session, &format!("polls {polls}"));
        // A page fault, or hud's own attach, may delay any task once for a millisecond or so. Repeated delays, and
        // those as long as a culprit's, count as reports.
        let is_blame = |row: &&serde_json::Value| {
            row["count"].as_i64().unwrap() > 1 || row["total"].as_i64().unwrap() >= 5_000_000
        };
        for row in rows.as_array().unwrap().iter().filter(is_blame) {
            for innocent in ["good_citizen", "yielding_worker", "short_lived", "pool_work"] {
                assert!(
                    !row["task_type"].as_str().unwrap_or_default().ends_with(innocent),
                    "polls {polls}: {innocent} is blamed: {row:#}"
                );
            }
        }
        // The recorder evaluates the rules too, and writes down what they detect.
        let recording = support::Recording::open(&session);
        let text = |column| recording.texts(Table::Findings, column);
        let is_sleeper = |(sentence, function): (&String, &String)| {
            sentence.starts_with("test_async_app::blocking_sleeper held its worker")
                && function.contains("blocking_sleeper")
        };
        let (sentences, functions) = (text("sentence"), text("function"));
        assert!(sentences.iter().zip(&functions).any(is_sleeper), "polls {polls}: {sentences:#?}");
        let (from, to) = recording.window("findings");
        assert!(to - from > 6_000_000_000, "polls {polls}: the rules were evaluated for {} ns", to - from);

        let hottest = &analyze(&["hotspots"], &session)[0];
        assert!(hottest["function"].as_str().unwrap().starts_with("test_async_app::"), "polls {polls}: {hottest:#}");
        assert_eq!(hottest["task_type"], "test_async_app::cpu_hog", "polls {polls}: {hottest:#}");
    }
}

#[test]
fn a_runtime_that_starts_after_the_attach_is_seen() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut target = Target::start(&program("late-runtime"), &[]);
    let session = dir.path().join("session");
    let recorder = support::hud_record()
        .args(["--pid", &target.pid().to_string(), "--headless", "--polls", "off", "--export"])
        .arg(&session)
        .spawn()
        .unwrap();
    // The first rows are written once recording has begun; a task's type, once debug information has given the ids'
    // offset.
    for table in ["threads", "task_types"] {
        while !session.join(table).join("000001.arrows.inflight").exists() {
            std::thread::yield_now();
        }
    }
    target.signal(Signal::USR1);
    assert_eq!(target.line().trim(), "10 naps taken in the late runtime");
    support::signal_process(recorder.id(), Signal::INT);
    assert!(recorder.wait_with_output().unwrap().status.success());

    let recording = support::Recording::open(&session);
    let roles = recording.texts(Table::Threads, "role");
    let names = recording.texts(Table::Threads, "name");
    let late = names.iter().zip(&roles).filter(|(name, role)| *name == "late-worker" && *role == "worker").count();
    assert!(late >= 1, "{names:?} {roles:?}");
    let rows = analyze(&["blocking"], &session);
    let nap = rows.as_array().unwrap().iter().find(|r| r["task_type"] == "late_runtime::napper");
    assert_eq!(nap.expect("the napper is named")["count"], 10);
}
