//! Processes other than one runtime with several threads: several runtimes, threads by the thousand, forks and execs,
//! and other namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use hud_common::session::Table;
use rustix::process::Signal;
use support::{
    Recording, Target, analyze, assert_both_culprits, assert_polls_agree, hud_record, may_trace, polls_by_type,
    program, record, signal_process, text, truth,
};

/// Starts a recording without an end, and waits until rows are in flight.
fn start(pid: u32, session: &Path, arguments: &[&str]) -> Child {
    let recorder = hud_record()
        .args(["--pid", &pid.to_string(), "--headless", "--export"])
        .arg(session)
        .args(arguments)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    // Existing threads are written as recording begins; an idle target has no other rows.
    while !session.join("threads/000001.arrows.inflight").exists() {
        assert!(Instant::now() < until, "nothing was recorded in a minute");
        thread::yield_now();
    }
    recorder
}

/// Ends a recording in order.
fn stop(recorder: Child, session: &Path) -> Recording {
    signal_process(recorder.id(), Signal::INT);
    let output = recorder.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    Recording::open(session)
}

/// Threads of a process, by the kernel.
fn threads(pid: u32) -> BTreeSet<i64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|t| t.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// A row of `threads`.
#[derive(Clone, Debug)]
struct ThreadRow {
    ts: i64,
    tid: i64,
    name: String,
    role: String,
    worker: Option<i64>,
    runtime: Option<i64>,
    event: String,
}

fn thread_rows(recording: &Recording) -> Vec<ThreadRow> {
    let integers = |column: &str| recording.integers(Table::Threads, column).into_iter();
    let texts = |column: &str| recording.texts(Table::Threads, column).into_iter();
    let times = integers("ts").zip(integers("tid"));
    let seats = integers("worker").zip(integers("runtime_id"));
    times
        .zip(seats)
        .zip(texts("name").zip(texts("role")).zip(texts("event")))
        .map(|(((ts, tid), (worker, runtime)), ((name, role), event))| ThreadRow {
            ts: ts.unwrap(),
            tid: tid.unwrap(),
            name,
            role,
            worker,
            runtime,
            event,
        })
        .collect()
}

/// Records many-runtimes for some seconds; also returns its poll log.
fn record_many_runtimes(dir: &Path, polls: &str) -> (Recording, PathBuf) {
    let log = dir.join("polls.csv");
    let target = Target::start(&program("many-runtimes"), &["--poll-log", log.to_str().unwrap()]);
    let recording = record(target.pid(), &dir.join("session"), &["--duration", "4", "--polls", polls]);
    target.stop();
    (recording, log)
}

#[test]
fn polls_of_every_kind_of_runtime_agree_with_the_programs_own_account() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (recording, log) = record_many_runtimes(dir.path(), "exact");
    let tasks = ["first_sleeper", "second_sleeper", "single_sleeper", "local_sleeper", "in_place", "nested"];
    assert_polls_agree(&recording, &truth(&log), "many_runtimes", &tasks);

    // `Runtime::spawn` is compiled for either scheduler, so each name is there twice. Only one of them is polled.
    let polled: BTreeSet<i64> = recording.integers(Table::Polls, "type_id").into_iter().flatten().collect();
    let types: BTreeMap<String, String> = recording
        .integers(Table::TaskTypes, "type_id")
        .into_iter()
        .zip(recording.texts(Table::TaskTypes, "name").into_iter().zip(recording.texts(Table::TaskTypes, "scheduler")))
        .filter(|(type_id, _)| polled.contains(&type_id.unwrap()))
        .map(|(_, type_of)| type_of)
        .collect();
    for (task, scheduler) in [
        ("first_sleeper", "multi_thread"),
        ("nested_child", "multi_thread"),
        ("single_sleeper", "current_thread"),
        ("local_sleeper", "local"),
    ] {
        assert_eq!(types[&format!("many_runtimes::{task}")], scheduler, "{types:?}");
    }
}

#[test]
fn sleepers_of_every_kind_of_runtime_are_named() {
    if !may_trace() {
        return;
    }
    for polls in ["exact", "off"] {
        let dir = tempfile::tempdir().unwrap();
        let (recording, log) = record_many_runtimes(dir.path(), polls);
        let (start, end) = (recording.tasks_known(), recording.window("off_cpu").1);
        let own = truth(&log);
        let rows = analyze(&["blocking", "--each", "--limit", "100000"], &dir.path().join("session"));
        for task in ["first_sleeper", "second_sleeper", "single_sleeper", "local_sleeper"] {
            // One nap a poll.
            let naps = own[task].iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).count();
            let blamed = rows.as_array().unwrap().iter().filter(|r| {
                recording.mono(r["ts"].as_i64().unwrap()) >= start
                    && r["cause"] == "blocked"
                    && r["task_type"] == format!("many_runtimes::{task}")
                    && r["dur"].as_i64().unwrap() >= 3_900_000
            });
            let count = blamed.count();
            assert!(count.abs_diff(naps) <= 2, "polls {polls}: {task}: {count} naps by hud, {naps} by itself");
        }
    }
}

/// The threads of each runtime have its name, which hud does not use here.
#[test]
fn every_runtime_has_its_workers_and_block_in_place_makes_no_more() {
    if !may_trace() {
        return;
    }
    for polls in ["exact", "off"] {
        let dir = tempfile::tempdir().unwrap();
        let (recording, _) = record_many_runtimes(dir.path(), polls);
        let rows = thread_rows(&recording);
        let mut now: BTreeMap<i64, &ThreadRow> = BTreeMap::new();
        let mut at = 0;
        for (n, row) in rows.iter().enumerate() {
            if row.event == "gone" {
                now.remove(&row.tid);
            } else {
                now.insert(row.tid, row);
            }
            at = at.max(row.ts);
            // Rows of one instant belong together.
            if rows.get(n + 1).is_some_and(|next| next.ts == row.ts) {
                continue;
            }
            let seats: Vec<_> =
                now.values().filter(|r| r.role == "worker").filter_map(|r| Some((r.runtime?, r.worker?))).collect();
            let distinct: BTreeSet<_> = seats.iter().collect();
            assert_eq!(seats.len(), distinct.len(), "polls {polls}: two threads on one seat: {now:#?}");
        }
        let mut runtimes = BTreeSet::new();
        for (name, workers) in [("first", 2), ("second", 3)] {
            let of: Vec<_> = now.values().filter(|r| r.name == name && r.role == "worker").collect();
            let ids: BTreeSet<_> = of.iter().map(|r| r.runtime).collect();
            assert_eq!(ids.len(), 1, "polls {polls}: {name}'s workers in several runtimes: {of:#?}");
            let id = ids.into_iter().next().unwrap();
            assert!(id.is_some() && runtimes.insert(id), "polls {polls}: {name} has no runtime of its own: {of:#?}");
            let numbers: BTreeSet<_> = of.iter().map(|r| r.worker.unwrap()).collect();
            assert_eq!(numbers, (0..workers).collect(), "polls {polls}: {name}'s workers: {of:#?}");
        }
        for other in ["single", "local"] {
            let is_worker =
                now.values().any(|r| r.name == other && r.role == "worker" && runtimes.contains(&r.runtime));
            assert!(!is_worker, "polls {polls}: {other} is taken for a worker of another runtime");
        }
    }
}

/// Also without debug information, where stacks show them; and they stay workers.
#[test]
fn workers_are_known_within_the_first_second_on_every_build() {
    if !may_trace() {
        return;
    }
    for build in ["", "plain/", "stripped/plain/", "v0/", "stripped/v0/", "static/", "stripped/tokio-1.38.2/"] {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::start(&program(&format!("{build}test-async-app")), &["--workers", "3"]);
        let recording = record(target.pid(), &dir.path().join("session"), &["--duration", "2", "--polls", "off"]);
        target.stop();
        let rows = thread_rows(&recording);
        let began = rows.iter().map(|r| r.ts).min().unwrap();
        let workers_until = |end: i64| {
            let mut last: BTreeMap<i64, &ThreadRow> = BTreeMap::new();
            for row in rows.iter().filter(|r| r.ts <= end) {
                last.insert(row.tid, row);
            }
            let workers: Vec<_> = last.values().filter(|r| r.role == "worker").filter_map(|r| r.worker).collect();
            let distinct: BTreeSet<_> = workers.iter().copied().collect();
            assert_eq!(workers.len(), distinct.len(), "{build}: two threads are one worker: {rows:#?}");
            distinct
        };
        assert_eq!(workers_until(began + 1_000_000_000), (0..3).collect(), "{build}: after a second: {rows:#?}");
        assert_eq!(workers_until(i64::MAX), (0..3).collect(), "{build}: at the end: {rows:#?}");
    }
}

#[test]
fn threads_that_come_and_go_by_the_thousand_are_all_seen_and_gone() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, session) = (dir.path().join("threads.csv"), dir.path().join("session"));
    let mut target = Target::start(&program("thread-storm"), &["--log", log.to_str().unwrap()]);
    let recorder = start(target.pid(), &session, &["--polls", "exact"]);
    target.signal(Signal::USR1);
    let own: serde_json::Value = serde_json::from_str(&target.line()).unwrap();
    let living = threads(target.pid());
    // Recording::open checks the account.
    let recording = stop(recorder, &session);

    let rows = thread_rows(&recording);
    let storm = own["plain"].as_u64().unwrap() + own["pool"].as_u64().unwrap();
    assert!(storm >= 3000, "{own}");
    let count = |event: &str| rows.iter().filter(|r| r.event == event).count();
    assert_eq!(count("gone") as u64, storm, "gone, of {own}");
    assert_eq!(count("seen"), count("gone") + living.len(), "seen, gone and living: {living:?}");
    // By id, which the kernel may reuse.
    let mut born: BTreeMap<i64, i64> = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines().filter(|l| l.starts_with("began") && !l.ends_with("worker")) {
        *born.entry(line.split(',').nth(2).unwrap().parse().unwrap()).or_default() += 1;
    }
    for row in rows.iter().filter(|r| r.event == "gone") {
        *born.entry(row.tid).or_default() -= 1;
    }
    born.retain(|_, n| *n != 0);
    assert!(born.is_empty(), "threads that began and are not gone (or the reverse): {born:?}");
}

#[test]
fn a_forked_childs_events_never_appear() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let mut target = Target::start(&program("exec-fork"), &[]);
    let recorder = start(target.pid(), &session, &["--polls", "exact"]);
    target.signal(Signal::USR1);
    let line = target.line();
    let child: u32 = line.trim().strip_prefix("forked child=").expect(&line).parse().unwrap();
    let forked = Instant::now();
    // An interval to be recorded, in which both sleep 50 times a second.
    thread::sleep(Duration::from_secs(1));
    let (ours, theirs) = (threads(target.pid()), threads(child));
    let since = i64::try_from(forked.elapsed().as_nanos()).unwrap();
    let recording = stop(recorder, &session);

    for table in [Table::Threads, Table::OffCpu, Table::Samples, Table::Polls, Table::Tasks] {
        let tids: BTreeSet<i64> = recording.integers(table, "tid").into_iter().flatten().collect();
        assert!(tids.is_disjoint(&theirs), "{table:?} of {tids:?}, the child's are {theirs:?}");
        // The stack of a pool's thread may have been removed by now, but no thread of this program.
        assert!(tids.is_subset(&ours), "{table:?} of {tids:?}, the parent's are {ours:?}");
    }
    let polls = polls_by_type(&recording, "exec_fork");
    assert!(!polls.contains_key("child_sleeper"), "{:?}", polls.keys());
    // The parent is still recorded: its probes survive the fork.
    let (_, end) = recording.window("polls");
    let after = polls["parent_sleeper"].iter().filter(|(ts, _)| *ts > end - since).count();
    assert!(after >= 30, "{after} polls in the second after the fork");
}

#[test]
fn another_program_executed_by_the_target_ends_the_session() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("exec-fork"), &[]);
    let mut recorder = start(target.pid(), &session, &[]);
    // The previous program is recorded.
    thread::sleep(Duration::from_secs(1));
    target.signal(Signal::USR2);
    let until = Instant::now() + Duration::from_secs(30);
    while recorder.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the recorder continues for half a minute after the exec");
        thread::sleep(Duration::from_millis(20));
    }
    let output = recorder.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::open(&session);
    assert_eq!(recording.manifest.end_reason.as_deref(), Some("the target executed another program"));
    // Other stacks are not named by the symbols of the previous program.
    let functions = recording.texts(Table::Frames, "function");
    assert!(functions.iter().any(|f| f.starts_with("exec_fork::parent_sleeper")), "{functions:?}");
}

/// As in a container: other pids, and a binary at a path that does not exist outside.
#[test]
fn a_program_in_other_namespaces_is_recorded_from_outside() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let inside = format!(
        "mount -t tmpfs none {mnt} && cp {app} {mnt}/app && exec {mnt}/app",
        mnt = dir.path().join("mnt").display(),
        app = program("test-async-app").display()
    );
    fs::create_dir(dir.path().join("mnt")).unwrap();
    let unshare = ["--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &inside];
    let target = Target::start(Path::new("unshare"), &unshare);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", target.pid())).unwrap();
    let pid: u32 = children.trim().parse().unwrap();
    for polls in ["exact", "off"] {
        let session = dir.path().join(polls);
        let recording = record(pid, &session, &["--duration", "4", "--polls", polls]);
        assert_both_culprits(&session, polls);
        let tids: BTreeSet<i64> = recording.integers(Table::OffCpu, "tid").into_iter().flatten().collect();
        assert!(tids.contains(&i64::from(pid)) || !tids.is_disjoint(&threads(pid)), "{tids:?}");
        assert!(recording.manifest.exe.ends_with("/mnt/app"), "{}", recording.manifest.exe);
    }
}
