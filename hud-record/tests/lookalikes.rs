//! Programs in which a task seems to hold its worker: none is reported, in the findings, the views and the cockpit
//! alike, however the program was built. And a task that does hold a worker, and is easily missed, is reported.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{path::Path, thread, time::Duration};

use hud_common::{
    cockpit::{Cause, Culprit, Query, Role, Rule, Snapshot, Source as _, Thresholds},
    session::Table,
};
use hud_record::tail::{Settings, Tailer};
use serde_json::Value;
use support::{Recording, Target, analyze, may_trace, program, record, until};

/// With full debug information, none (as `cargo build --release` gives it), line tables only, and stripped.
const BUILDS: [&str; 4] = ["", "plain/", "lines/", "stripped/plain/"];

/// Each of them, alternately with polls recorded and without; `first` is that of the first build.
fn runs(first: Polls) -> impl Iterator<Item = (&'static str, &'static str)> {
    let polls = match first {
        Polls::Exact => ["exact", "off"],
        Polls::Off => ["off", "exact"],
    };
    BUILDS.into_iter().zip(polls.into_iter().cycle())
}

enum Polls {
    Exact,
    Off,
}

/// Longest single interval that counts as noise, such as a page fault that waits while a probe is attached.
const NOISE: i64 = 20_000_000;

/// All reports of hud on a program.
struct Said {
    context: String,
    findings: Vec<Value>,
    blocking: Vec<Value>,
    each: Vec<Value>,
    workers: Vec<Value>,
    snapshot: Snapshot,
    /// Rules and values of the findings that the recorder wrote.
    recorded: Vec<(String, i64)>,
}

fn rows(view: &[&str], session: &Path) -> Vec<Value> {
    analyze(view, session).as_array().unwrap().clone()
}

/// A share of a worker's time (thousandths) that a task has on any machine, however busy others keep it, and that none
/// of this program's other tasks has.
const SHARE: i64 = 50;

/// Records a mode of a build of the program for some seconds.
fn said(build: &str, mode: &str, polls: &str) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program(&format!("{build}lookalikes")), &[mode]);
    record(target.pid(), &session, &["--duration", "2", "--polls", polls]);
    target.stop();
    let mut tailer = Tailer::open(
        &session,
        Settings {
            keep: Duration::from_secs(60),
            history: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            most: usize::MAX,
        },
    )
    .unwrap();
    until("the session's end", || {
        tailer.wait(Duration::from_millis(50)).unwrap();
        tailer.is_ended()
    });
    let (from, to) = tailer.range();
    let thresholds = match mode {
        "endless" => Thresholds { cpu_share: SHARE, ..Thresholds::default() },
        _ => Thresholds::default(),
    };
    let share = thresholds.cpu_share.to_string();
    // In a stripped program it takes a moment until the current task's id is found, and so until a thread is known to
    // be outside of any task.
    let (since, skipped) = if mode == "in-place" { ("+1s", 1_000_000_000) } else { ("+0s", 0) };
    let query = Query { at: Some(to), window: to - from - skipped, thresholds, ..Query::default() };
    let snapshot = tailer.snapshot(&query).unwrap();
    // Half of a test's time is hud-analyze's, in a debug build.
    let [findings, blocking, each, workers] = thread::scope(|scope| {
        let views = [
            vec!["findings", "--cpu-share", &share, "--from", since],
            vec!["blocking", "--limit", "1000", "--from", since],
            vec!["blocking", "--each", "--limit", "100000", "--from", since],
            vec!["workers", "--from", since],
        ];
        let session = &session;
        views.map(|view| scope.spawn(move || rows(&view, session))).map(|rows| rows.join().unwrap())
    });
    let recording = Recording::open(&session);
    let values = recording.integers(Table::Findings, "value").into_iter().map(Option::unwrap);
    let recorded = recording.texts(Table::Findings, "rule").into_iter().zip(values).collect();
    Said { context: format!("{build}{mode}, polls {polls}"), findings, blocking, each, workers, snapshot, recorded }
}

fn of_rule<'a>(said: &'a Said, rule: &'a str) -> impl Iterator<Item = &'a Value> {
    said.findings.iter().filter(move |f| f["rule"] == rule)
}

fn culprits(said: &Said, cause: Cause, is_estimated: bool) -> impl Iterator<Item = &Culprit> {
    said.snapshot.blocking.culprits.iter().filter(move |c| c.cause == cause && c.is_estimated == is_estimated)
}

/// No task is reported to have held a worker in one poll.
fn assert_nobody_held_a_worker(said: &Said) {
    let context = &said.context;
    // Steal time of less than a tick (10 ms at HZ=100) may go unobserved: once is not counted.
    let is_noise = |f: &Value| f["rule"] == "long_poll" && f["count"] == 1 && f["value"].as_i64().unwrap() < NOISE;
    let of_rules = ["long_poll", "worker_blocked"].into_iter().flat_map(|rule| of_rule(said, rule));
    let (noise, found): (Vec<_>, Vec<_>) = of_rules.partition(|f| is_noise(f));
    assert!(found.is_empty(), "{context}: {found:#?}");
    let accuses = |rule: Rule| rule == Rule::WorkerBlocked || (rule == Rule::LongPoll && noise.is_empty());
    let found: Vec<_> = said.snapshot.findings.iter().filter(|f| accuses(f.rule)).collect();
    assert!(found.is_empty(), "{context}: {found:#?}");

    let accuses = |(rule, value): &&(String, i64)| match rule.as_str() {
        "worker_blocked" => true,
        "long_poll" => *value >= NOISE,
        _ => false,
    };
    let found: Vec<_> = said.recorded.iter().filter(accuses).collect();
    assert!(found.is_empty(), "{context}, as recorded: {found:?}");

    let held: Vec<_> = said.blocking.iter().filter(|r| r["spans"] == "one poll").collect();
    let total = |rows: &[&Value]| rows.iter().map(|r| r["total"].as_i64().unwrap()).max().unwrap_or(0);
    assert!(total(&held) < NOISE, "{context}: {held:#?}");
    let each: i64 = said.each.iter().filter(|r| r["spans"] == "one poll").map(|r| r["dur"].as_i64().unwrap()).sum();
    assert!(each < NOISE, "{context}: {each} ns");
    let held: Vec<_> = culprits(said, Cause::Blocked, false).chain(culprits(said, Cause::Cpu, false)).collect();
    assert!(held.iter().all(|c| c.total < NOISE), "{context}: {held:#?}");
    for worker in &said.workers {
        assert!(worker["blocked_share"].as_f64().unwrap_or(0.0) < 0.1, "{context}: {worker}");
    }
}

#[test]
fn pool_work_that_began_before_the_attach_holds_no_worker() {
    if may_trace() {
        for (build, polls) in runs(Polls::Exact) {
            let said = said(build, "pool", polls);
            assert_nobody_held_a_worker(&said);
            assert!(said.workers.len() <= 2, "{}: {:#?}", said.context, said.workers);
        }
    }
}

#[test]
fn block_in_place_holds_no_worker() {
    if may_trace() {
        for (build, polls) in runs(Polls::Off) {
            let said = said(build, "in-place", polls);
            let context = &said.context;
            // A hundred polls did. If symbols do not show the call, one at the end, whose thread has not slept since,
            // may be missed.
            for found in of_rule(&said, "long_poll") {
                assert!(found["count"].as_i64().unwrap() <= 2, "{context}: {found}");
            }
            for row in said.blocking.iter().filter(|r| r["spans"] == "one poll") {
                assert!(row["count"].as_i64().unwrap() <= 2, "{context}: {row}");
            }
            for row in culprits(&said, Cause::Blocked, false).chain(culprits(&said, Cause::Cpu, false)) {
                assert!(row.count <= 2, "{context}: {row:#?}");
            }
            for worker in &said.workers {
                assert!(worker["blocked_share"].as_f64().unwrap_or(0.0) < 0.1, "{context}: {worker}");
            }
        }
    }
}

#[test]
fn a_busy_program_of_short_polls_is_healthy() {
    if may_trace() {
        for (build, polls) in runs(Polls::Exact) {
            let said = said(build, "short-polls", polls);
            assert_nobody_held_a_worker(&said);
            assert_eq!(of_rule(&said, "short_sleeps").count(), 0, "{}: {:#?}", said.context, said.findings);
            assert_eq!(of_rule(&said, "cpu_share").count(), 0, "{}: {:#?}", said.context, said.findings);
        }
    }
}

/// A task that waits for a CPU does not hold its worker meanwhile.
#[test]
fn reports_no_culprit_beside_a_program_that_takes_all_cpus() {
    if may_trace() {
        let burners: Vec<_> = (0..2).map(|_| Target::start(&program("lookalikes"), &["endless"])).collect();
        for (build, polls) in runs(Polls::Off) {
            assert_nobody_held_a_worker(&said(build, "short-polls", polls));
        }
        drop(burners);
    }
}

/// Polls of 4 ms, one after the other: without polls they cannot be distinguished from one of seconds.
#[test]
fn samples_do_not_make_one_long_poll_of_many_short_ones() {
    if may_trace() {
        for build in BUILDS {
            assert_nobody_held_a_worker(&said(build, "shards", "exact"));
            let said = said(build, "shards", "off");
            assert_nobody_held_a_worker(&said);
            let computing: Vec<_> = said.blocking.iter().filter(|r| r["cause"] == "cpu").collect();
            assert!(!computing.is_empty(), "{}: {:#?}", said.context, said.blocking);
            for row in computing {
                assert!(row["spans"] == "one poll or several" && row["estimated"] == true, "{}: {row}", said.context);
            }
            // The cockpit judges each tenth of a second separately, and has none if other programs had the CPUs in all
            // of them.
            assert!(culprits(&said, Cause::Cpu, false).next().is_none(), "{}", said.context);
        }
    }
}

/// The certain part of an endless computation: its share of a worker.
#[test]
fn without_polls_an_endless_computation_is_reported_by_its_share_of_a_worker() {
    if may_trace() {
        for build in BUILDS {
            let said = said(build, "endless", "off");
            assert_nobody_held_a_worker(&said);
            let found: Vec<_> = of_rule(&said, "cpu_share").collect();
            assert_eq!(found.len(), 1, "{}: {:#?}", said.context, said.findings);
            let sentence = found[0]["sentence"].as_str().unwrap();
            assert!(sentence.contains(" % of the time of worker "), "{}: {sentence}", said.context);
            assert!((SHARE..=1_000).contains(&found[0]["value"].as_i64().unwrap()), "{}: {}", said.context, found[0]);
            assert_eq!(found[0]["estimated"], true);
            let rule = said.snapshot.findings.iter().find(|f| f.rule == Rule::CpuShare);
            assert!(rule.is_some_and(|f| f.is_estimated), "{}: {:#?}", said.context, said.snapshot.findings);
        }
    }
}

/// 320 sleeps of 0.2 ms a second: none is a millisecond long, all together are a fiftieth of the time and more.
#[test]
fn many_short_sleeps_are_added_up() {
    if may_trace() {
        for (build, polls) in runs(Polls::Off) {
            let said = said(build, "short-sleeps", polls);
            let context = &said.context;
            let found: Vec<_> = of_rule(&said, "short_sleeps").collect();
            assert_eq!(found.len(), 1, "{context}: {:#?}", said.findings);
            let (count, total) = (found[0]["count"].as_i64().unwrap(), found[0]["value"].as_i64().unwrap());
            // Each takes at least as long as requested, and no short one a millisecond.
            assert!(count > 300 && total >= count * 200_000 && total < count * 1_000_000, "{context}: {}", found[0]);
            let rows: Vec<_> = said.blocking.iter().filter(|r| r["spans"] == "short sleeps").collect();
            let listed: i64 = rows.iter().map(|r| r["total"].as_i64().unwrap()).sum();
            assert!(listed <= total && listed * 10 >= total * 9, "{context}: {listed} of {total} ns: {rows:#?}");
            let shown: i64 = culprits(&said, Cause::ShortSleeps, false)
                .chain(culprits(&said, Cause::ShortSleeps, true))
                .map(|c| c.total)
                .sum();
            assert!(shown * 10 >= total * 8, "{context}: {shown} of {total} ns in the cockpit");
            assert!(said.snapshot.findings.iter().any(|f| f.rule == Rule::ShortSleeps), "{context}");
            assert!(said.recorded.iter().any(|(rule, _)| rule == "short_sleeps"), "{context}: {:?}", said.recorded);
        }
    }
}

/// The thread of a `LocalSet` is a worker: what holds it keeps its other tasks waiting.
#[test]
fn the_thread_of_a_local_set_is_a_worker() {
    if may_trace() {
        for (build, polls) in runs(Polls::Off).chain([("stripped/plain/", "off")]) {
            let said = said(build, "local", polls);
            let worker = said.workers.iter().find(|w| w["thread"] == "local");
            let worker = worker.unwrap_or_else(|| panic!("{}: {:#?}", said.context, said.workers));
            // Half of the time, once the current task's id and type are known.
            assert!(worker["blocked_share"].as_f64().unwrap() > 0.1, "{}: {worker}", said.context);
            assert_eq!(of_rule(&said, "long_poll").count(), 1, "{}: {:#?}", said.context, said.findings);
            let runtimes = said.snapshot.workers.runtimes.iter();
            let is_worker = runtimes.flat_map(|r| &r.workers).any(|w| w.name.as_str() == "local");
            assert!(is_worker, "{}: {:#?}", said.context, said.snapshot.workers);
            let lane = said.snapshot.timeline.lanes.iter().find(|l| l.name.as_str() == "local");
            assert_eq!(lane.map(|l| l.role), Some(Role::Worker), "{}", said.context);
        }
    }
}
