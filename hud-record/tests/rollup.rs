//! The rollups that the recorder writes are the sums of the events that it records.

#![allow(clippy::unwrap_used, clippy::cast_possible_wrap, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use hud_common::{cockpit::MINUTE, session::Table};
use support::{Recording, Target, analyze, may_trace, program, record};

/// The sum of a column without nulls.
fn sum(recording: &Recording, table: Table, column: &str) -> i64 {
    recording.integers(table, column).into_iter().flatten().sum()
}

/// The time ranges that the recorder judged, which are those that it summed up.
fn judged(recording: &Recording) -> Vec<(i64, i64)> {
    let streams = recording.texts(Table::Coverage, "stream");
    let (ts, dur) = (recording.integers(Table::Coverage, "ts"), recording.integers(Table::Coverage, "dur"));
    let rows = streams.iter().zip(ts).zip(dur).filter(|((stream, _), _)| *stream == "findings");
    rows.map(|((_, ts), dur)| (ts.unwrap(), ts.unwrap() + dur.unwrap())).collect()
}

#[test]
fn recorded_rollups_are_the_sums_of_the_recorded_events() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let recording = record(target.pid(), &session, &["--duration", "12", "--polls", "exact"]);
    target.stop();

    let ranges = judged(&recording);
    let is_judged = |end: i64| ranges.iter().any(|(from, to)| (*from..*to).contains(&end));
    let observed: i64 = ranges.iter().map(|(from, to)| to - from).sum();
    assert_eq!(sum(&recording, Table::RollupProcess, "observed"), observed);
    assert!(observed > 9_000_000_000, "{ranges:?}");

    let kinds = recording.texts(Table::TaskTypes, "kind");
    let types = recording.integers(Table::TaskTypes, "type_id");
    let loops: BTreeSet<_> =
        types.into_iter().zip(kinds).filter(|(_, kind)| kind == "worker").map(|(id, _)| id).collect();
    let column = |name| recording.integers(Table::Polls, name).into_iter().flatten().collect::<Vec<_>>();
    let (ts, dur, blocked, run_queue) = (column("ts"), column("dur"), column("blocked"), column("run_queue"));
    let (mut count, mut total, mut asleep, mut waited) = (0, 0, 0, 0);
    for (row, type_id) in recording.integers(Table::Polls, "type_id").into_iter().enumerate() {
        if is_judged(ts[row] + dur[row]) && !(type_id.is_some() && loops.contains(&type_id)) {
            count += 1;
            total += dur[row];
            asleep += blocked[row];
            waited += run_queue[row];
        }
    }
    assert!(count > 1_000, "{count}");
    let of = |name| sum(&recording, Table::RollupPolls, name);
    assert_eq!((of("count"), of("total"), of("blocked"), of("run_queue")), (count, total, asleep, waited));

    let (ts, weight) = (recording.integers(Table::Samples, "ts"), recording.integers(Table::Samples, "weight"));
    let weights = ts.into_iter().zip(weight).filter(|(ts, _)| is_judged(ts.unwrap()));
    let weight: i64 = weights.map(|(_, weight)| weight.unwrap()).sum();
    assert!(weight > 0);
    assert_eq!(sum(&recording, Table::RollupCpu, "own"), weight);
    assert_eq!(sum(&recording, Table::RollupStacks, "weight"), weight);

    let minutes = recording.integers(Table::RollupProcess, "minute");
    assert!(minutes.iter().all(|minute| minute.unwrap() % MINUTE == 0), "{minutes:?}");
    let functions = recording.texts(Table::RollupBlocking, "function");
    assert!(functions.iter().any(|function| function.contains("blocking_sleeper")), "{functions:?}");

    // Published, they answer like the session: the recorder's rows are taken, and the hottest function is the same.
    let store = dir.path().join("fleet");
    let hud_analyze = std::path::Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name("hud-analyze");
    let output = std::process::Command::new(&hud_analyze)
        .arg("rollup")
        .arg(&session)
        .arg("--store")
        .arg(&store)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("(the recorder's)"), "{said}");
    let hottest = &analyze(&["hotspots"], &session)[0];
    let output = std::process::Command::new(&hud_analyze)
        .args(["fleet", "hotspots", store.to_str().unwrap(), "--format", "json"])
        .output()
        .unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&rows[0]["function"], &rows[0]["task_type"]), (&hottest["function"], &hottest["task_type"]));
}
