//! Programs that were stuck before the attach: the recorder names who is stuck, where, and since when. Programs whose
//! threads only wait are healthy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hud_common::session::Table;
use support::{Recorder, Recording, Target, analyze, hud_record, may_trace, program, record, until};

/// Builds with full debug information and with default settings.
const DEBUG: &str = "stuck";

struct Stuck {
    recording: Recording,
    target: Target,
    /// The lines at which it is stuck.
    lines: Vec<i64>,
}

/// Starts a mode of `stuck` and records it for four seconds.
fn stuck(mode: &str, polls: &str, session: &Path) -> Stuck {
    let target = Target::start(&program(DEBUG), &[mode]);
    let lines = target.first.trim().rsplit_once("lines=").unwrap().1.to_string();
    let lines = lines.split(',').filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect();
    let recording = record(target.pid(), session, &["--polls", polls, "--duration", "4"]);
    Stuck { recording, target, lines }
}

/// Rule, severity, sentence, function, file, line, estimated of each recorded finding.
#[derive(Debug)]
struct Found {
    rule: String,
    sentence: String,
    function: String,
    file: String,
    line: Option<i64>,
    /// End of the judged range, from the start of the session.
    by: i64,
}

fn found(recording: &Recording) -> Vec<Found> {
    let text = |column| recording.texts(Table::Findings, column);
    let int = |column| recording.integers(Table::Findings, column);
    let (rules, sentences, functions, files) = (text("rule"), text("sentence"), text("function"), text("file"));
    let (lines, ts, dur) = (int("line"), int("ts"), int("dur"));
    let each = rules.into_iter().zip(sentences).zip(functions).zip(files).zip(lines).zip(ts).zip(dur);
    let found = each.map(|((((((rule, sentence), function), file), line), ts), dur)| Found {
        rule,
        sentence,
        function,
        file,
        line,
        by: ts.unwrap() + dur.unwrap() - recording.manifest.start,
    });
    found.collect()
}

/// The ranges that are judged in the first five seconds are short. (Which of them is the first with a task depends on when
/// the debug information has been read: on a busy machine, by a debug build of hud, after seconds.)
const SOON: i64 = 5_100_000_000;

#[test]
fn two_workers_that_wait_for_each_other_are_named() {
    if !may_trace() {
        return;
    }
    for polls in ["auto", "off"] {
        let tmp = tempfile::tempdir().unwrap();
        let Stuck { recording, target, lines } = stuck("deadlock", polls, &tmp.path().join("s"));
        let found = found(&recording);
        for (function, line) in [("transfer_ab", lines[0]), ("transfer_ba", lines[1])] {
            let of: Vec<_> = found.iter().filter(|f| f.rule == "stuck_thread" && f.line == Some(line)).collect();
            let first = of.first().unwrap_or_else(|| panic!("{polls}: {function}: {found:#?}"));
            assert!(first.function.contains(function), "{polls}: {first:#?}");
            assert!(first.file.ends_with("stuck.rs"), "{polls}: {first:#?}");
            assert!(first.sentence.starts_with("worker "), "{polls}: {first:#?}");
            let said = format!(") has been in one poll of stuck::{function} since before the attach, at least ");
            assert!(first.sentence.contains(&said), "{polls}: {first:#?}");
            assert!(first.sentence.ends_with(&format!(" (stuck.rs:{line})")), "{polls}: {first:#?}");
            assert!(first.by <= SOON, "{polls}: {first:#?}");
        }
        let int = |column| recording.integers(Table::InProgress, column);
        let threads: std::collections::BTreeSet<_> = int("tid").into_iter().collect();
        assert_eq!(threads.len(), 2, "{polls}");
        // A row a second of each.
        let mut seen: std::collections::BTreeMap<_, Vec<i64>> = std::collections::BTreeMap::new();
        int("tid").into_iter().zip(int("ts")).for_each(|(tid, ts)| seen.entry(tid).or_default().extend(ts));
        for times in seen.values_mut() {
            times.sort_unstable();
            let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap > 900_000_000), "{polls}: {gaps:?}");
        }
        assert!(int("since").iter().all(Option::is_none), "{polls}: {:?}", int("since"));
        assert!(int("type_id").iter().all(Option::is_some), "{polls}");
        // Which worker it is may be known a moment later.
        let workers: std::collections::BTreeMap<_, _> = int("tid").into_iter().zip(int("worker")).collect();
        assert!(workers.values().all(Option::is_some), "{polls}: {workers:?}");
        assert!(recording.texts(Table::InProgress, "state").iter().all(|state| state == "blocked"), "{polls}");
        let unwind = recording.texts(Table::Stacks, "unwind");
        let ids = recording.integers(Table::Stacks, "stack_id");
        for id in int("stack_id") {
            let at = ids.iter().position(|known| *known == id).unwrap_or_else(|| panic!("{polls}: stack {id:?}"));
            assert_eq!(unwind[at], "complete", "{polls}");
        }
        recording.assert_names();
        drop(target);
    }
}

/// The threads cause no event, so the views and the screens know them from `in_progress` alone.
#[test]
fn views_and_screens_show_who_is_stuck() {
    if !may_trace() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let session = tmp.path().join("s");
    let Stuck { target, lines, .. } = stuck("deadlock", "off", &session);
    drop(target);
    let rows = |command: &[&str]| analyze(command, &session).as_array().unwrap().clone();
    let lasted = |row: &serde_json::Value| row["in_progress"].as_i64().unwrap();
    let culprits = rows(&["blocking"]);
    assert_eq!(culprits.len(), 2, "{culprits:#?}");
    for line in &lines {
        let row = culprits.iter().find(|row| row["line"] == *line).unwrap_or_else(|| panic!("{line}: {culprits:#?}"));
        assert_eq!((&row["cause"], row["count"].as_i64()), (&"blocked".into(), Some(1)), "{row}");
        assert!(
            row["total"].as_i64().unwrap() > 1_000_000_000 && lasted(row) >= row["total"].as_i64().unwrap(),
            "{row}"
        );
    }
    let workers = rows(&["workers"]);
    let numbers: Vec<_> = workers.iter().map(|row| row["worker"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [0, 1], "{workers:#?}");
    for row in &workers {
        assert_eq!(row["blocked"], row["observed"], "{row}");
        assert!(lasted(row) >= row["blocked"].as_i64().unwrap() && row["blocked_share"] == 1.0, "{row}");
    }
    let tasks = rows(&["tasks"]);
    for name in ["stuck::transfer_ab", "stuck::transfer_ba"] {
        let row = tasks.iter().find(|row| row["task_type"] == name).unwrap_or_else(|| panic!("{name}: {tasks:#?}"));
        assert!(
            lasted(row) >= row["blocked"].as_i64().unwrap() && row["blocked"].as_i64() > Some(1_000_000_000),
            "{row}"
        );
    }
    let locks = rows(&["locks"]);
    let places: std::collections::BTreeSet<_> = locks.iter().map(|row| row["line"].as_i64().unwrap()).collect();
    assert_eq!(places, lines.iter().copied().collect(), "{locks:#?}");
    assert!(locks.iter().all(|row| row["lock"] == "mutex" && lasted(row) > 1_000_000_000), "{locks:#?}");
    let steps = rows(&["timeline"]);
    let blocked: i64 = steps.iter().map(|row| row["blocked"].as_i64().unwrap()).sum();
    let whole: i64 = workers.iter().map(|row| row["blocked"].as_i64().unwrap()).sum();
    assert_eq!(blocked, whole);
    // Replay.
    for (screen, shown) in [("workers", "asleep "), ("tasks", "s+"), ("blocking", "s+"), ("timeline", "w0")] {
        let program = Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name("hud-analyze");
        let mut command = std::process::Command::new(program);
        command.arg("screenshot").arg(&session).args(["--screen", screen, "--size", "120x40", "--window", "4s"]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // Below the status, which has the finding.
        let below: String = text.lines().skip(4).collect::<Vec<_>>().join("\n");
        assert!(below.contains(shown), "{screen}:\n{text}");
        let names = ["transfer_ab", "transfer_ba"].iter().all(|name| below.contains(name));
        assert!(names || screen == "timeline", "{screen}:\n{text}");
    }
}

#[test]
fn a_poll_that_never_ends_is_named() {
    if !may_trace() {
        return;
    }
    for (polls, rule) in [("auto", "stuck_poll"), ("off", "cpu_share")] {
        let tmp = tempfile::tempdir().unwrap();
        let Stuck { recording, target, lines } = stuck("infinite", polls, &tmp.path().join("s"));
        let found = found(&recording);
        let of: Vec<_> = found.iter().filter(|f| f.rule == rule).collect();
        let first = of.first().unwrap_or_else(|| panic!("{polls}: {found:#?}"));
        assert!(first.function.contains("parse") && first.file.ends_with("stuck.rs"), "{polls}: {first:#?}");
        // The line of the loop, or of its body.
        assert!((lines[0]..=lines[0] + 1).contains(&first.line.unwrap()), "{polls}: {first:#?}");
        assert!(first.sentence.contains("stuck::infinite_parse"), "{polls}: {first:#?}");
        assert!(first.by <= SOON, "{polls}: {first:#?}");
        // Without polls it may be many polls: no rule says that it is one.
        let estimated = analyze(
            &["sql", "-c", "SELECT DISTINCT estimated FROM in_progress WHERE NOT ended"],
            &tmp.path().join("s"),
        );
        assert_eq!(estimated[0]["estimated"], polls == "off", "{polls}: {estimated}");
        if polls == "off" {
            assert!(found.iter().all(|f| !f.rule.starts_with("stuck")), "{found:#?}");
        }
        drop(target);
    }
}

/// The main thread, whose thread control block is not above its stack.
#[test]
fn the_worker_of_a_current_thread_runtime_is_named() {
    if !may_trace() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let Stuck { recording, target, lines } = stuck("current-thread", "off", &tmp.path().join("s"));
    let found = found(&recording);
    let of: Vec<_> = found.iter().filter(|f| f.rule == "stuck_thread").collect();
    let first = of.first().unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!((first.line, first.sentence.contains("stuck::settle")), (Some(lines[0]), true), "{first:#?}");
    let threads = recording.integers(Table::InProgress, "tid");
    assert!(threads.iter().all(|tid| *tid == Some(i64::from(target.pid()))), "{threads:?}");
}

#[test]
fn a_program_that_waits_is_not_stuck() {
    if !may_trace() {
        return;
    }
    for polls in ["auto", "off"] {
        let tmp = tempfile::tempdir().unwrap();
        let Stuck { recording, target, .. } = stuck("waiting", polls, &tmp.path().join("s"));
        let found = found(&recording);
        assert!(found.is_empty(), "{polls}: {found:#?}");
        // The call of `block_in_place` is a poll in progress; no other is.
        let types = analyze(
            &["sql", "-c", "SELECT DISTINCT y.name FROM in_progress p JOIN task_types y USING (type_id)"],
            &tmp.path().join("s"),
        );
        let names: Vec<_> = types.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["stuck::in_place"], "{polls}");
        assert!(recording.integers(Table::InProgress, "type_id").iter().all(Option::is_some), "{polls}");
        drop(target);
    }
}

#[test]
fn a_program_with_blocking_polls_is_not_stuck() {
    if !may_trace() {
        return;
    }
    for polls in ["auto", "off"] {
        let tmp = tempfile::tempdir().unwrap();
        let target = Target::start(&program("test-async-app"), &[]);
        let recording = record(target.pid(), &tmp.path().join("s"), &["--polls", polls, "--duration", "4"]);
        let stuck: Vec<_> = found(&recording).into_iter().filter(|f| f.rule.starts_with("stuck")).collect();
        assert!(stuck.is_empty(), "{polls}: {stuck:#?}");
        drop(target);
    }
}

/// A user who has just attached to a program that hangs is waiting for it.
#[test]
fn the_first_finding_does_not_wait_for_a_whole_range() {
    if !may_trace() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let session = tmp.path().join("s");
    let target = Target::start(&program(DEBUG), &["deadlock"]);
    let mut command = hud_record();
    command.args(["--pid", &target.pid().to_string(), "--headless", "--export"]).arg(&session);
    let mut recorder = Recorder::spawn(command);
    until("the session", || session.join("manifest.json").exists());
    let began = Instant::now();
    while !session.join("findings/000001.arrows.inflight").exists() {
        assert!(recorder.is_running() && began.elapsed() < Duration::from_secs(60), "{}", recorder.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    recorder.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
