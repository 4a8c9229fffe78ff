//! hud on test-async-app as others might have built it: older versions of tokio, other ways to compile and to link.
//!
//! The fixtures are built by `cargo xtask test` (xtask/src/fixtures.rs).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_wrap, reason = "tests")]

mod support;

use hud_common::session::Table;
use support::{Target, analyze, assert_both_culprits, assert_polls_agree, may_trace, program, record, truth};

macro_rules! fixtures {
    ($($name:ident: $folder:literal;)*) => {
        $(mod $name {
            #[test]
            fn exact() {
                super::exact($folder);
            }

            #[test]
            fn off() {
                super::off($folder);
            }
        })*
    };
}

fixtures! {
    // Up to 1.39 the current task's id is a number beside a tag, and outlives the task that it names.
    tokio_1_38: "tokio-1.38.2";
    tokio_1_43: "tokio-1.43.4";
    tokio_1_47: "tokio-1.47.1";
    tokio_1_50: "tokio-1.50.0";
    fat_lto: "fat-lto";
    v0_mangling: "v0";
    statically_linked: "static";
    non_pie: "non-pie";
}

/// Every poll timed: each is in the program's own account, and the culprits are named.
fn exact(fixture: &str) {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program(fixture).join("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    let session = dir.path().join("session");
    let recording = record(target.pid(), &session, &["--duration", "3", "--polls", "exact"]);
    target.stop();
    let tasks = ["good_citizen", "yielding_worker", "cpu_hog", "blocking_sleeper", "lock_contender", "short_lived"];
    assert_polls_agree(&recording, &truth(&log), "test_async_app", &tasks);
    assert_both_culprits(&session, fixture);
}

/// No poll timed: the culprits are named all the same, and the sleeps are the program's own.
fn off(fixture: &str) {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program(fixture).join("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    let session = dir.path().join("session");
    let recording = record(target.pid(), &session, &["--duration", "3", "--polls", "off"]);
    target.stop();
    assert_eq!(recording.rows(Table::Polls).num_rows(), 0);
    assert_both_culprits(&session, fixture);

    let (start, end) = (recording.tasks_known(), recording.window("off_cpu").1);
    let sleeps = &truth(&log)["sleep"];
    let inside = sleeps.iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).count() as i64;
    let rows = analyze(&["blocking", "--each", "--limit", "100000"], &session);
    let named = rows.as_array().unwrap().iter();
    let named = named.filter(|r| r["task_type"] == "test_async_app::blocking_sleeper" && r["cause"] == "blocked");
    let named = named.filter(|r| recording.mono(r["ts"].as_i64().unwrap()) >= start);
    let named = named.filter(|r| r["dur"].as_i64().unwrap() >= 14_000_000).count() as i64;
    // At either end of the window one may count on one side only.
    assert!((named - inside).abs() <= 2, "{fixture}: {named} sleeps by hud, {inside} by its own count");
}
