//! Rollups and fleet views: they add up to what the views say of the events, in DataFusion and in DuckDB.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use hud_analyze::view;
use hud_common::session::{Manifest, Table};
use serde_json::{Value, json};
use support::*;

const VIEWS: [&str; 7] = ["hotspots", "blocking", "latency", "findings", "load", "outliers", "regressions"];
const DAY: i64 = 86_400 * SECOND;

fn hud(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hud-analyze")).args(arguments).output().unwrap()
}

fn run(arguments: &[&str]) -> String {
    let output = hud(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn rollup(session: &Path, store: &Path, more: &[&str]) -> String {
    let (session, store) = (session.to_str().unwrap(), store.to_str().unwrap());
    run(&[&["rollup", session, "--store", store], more].concat())
}

fn fleet(view: &str, store: &Path, more: &[&str]) -> Vec<Value> {
    let text = run(&[&["fleet", view, store.to_str().unwrap(), "--format", "json"], more].concat());
    serde_json::from_str(&text).unwrap()
}

/// The sum of a column of rows, grouped by the text of others.
fn sums(rows: &[Value], by: &[&str], column: &str) -> BTreeMap<Vec<String>, i64> {
    let mut all = BTreeMap::new();
    for row in rows {
        let key = by.iter().map(|name| row[*name].to_string()).collect::<Vec<_>>();
        *all.entry(key).or_insert(0) += row[column].as_i64().unwrap();
    }
    all
}

/// The rows of a query over the session's tables.
fn sql(session: &Path, query: &str) -> Vec<Value> {
    runtime().block_on(async {
        let catalog = hud_analyze::catalog::Catalog::open(session).unwrap();
        to_json(&catalog.sql(query).await.unwrap().collect().await.unwrap())
    })
}

/// A session like [`busy`], and its host, id, build and day.
fn session_of(host: &str, id: &str, build: &str) -> Session {
    let session = busy(1_200);
    let manifest = Manifest {
        host: host.into(),
        id: id.into(),
        build_id: Some(build.into()),
        ..Manifest::read(&session.path).unwrap()
    };
    // Files that hud wrote state their session: rewritten with the new one.
    let copy = Session::with(&manifest);
    for table in Table::ALL {
        for (number, _) in session.dir().sealed(*table).unwrap() {
            let mut log = format::InflightLog::create(copy.dir(), *table, number).unwrap();
            let columns: Vec<_> = table.columns().iter().map(|c| c.name).collect();
            format::scan_segment(*table, &session.dir().segment(*table, number), &columns, |batch| log.append(batch))
                .unwrap();
            log.finish().unwrap();
            format::seal(copy.dir(), *table, number).unwrap();
        }
    }
    copy
}

#[test]
fn sums_over_rollups_equal_the_views_over_the_events() {
    let session = busy(1_200);
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    rollup(&session.path, &store, &[]);

    // CPU time by function; `total` is complete for own code.
    let expected = session.rows(view::HOTSPOTS, whole());
    let found = fleet("hotspots", &store, &[]);
    let key = ["function", "file", "task_type"];
    for column in ["self", "samples"] {
        assert_eq!(sums(&found, &key, column), sums(&expected, &key, column), "{column}");
    }
    let own = |rows: &[Value]| -> Vec<Value> {
        rows.iter().filter(|row| row["function"].as_str().unwrap().starts_with("app::")).cloned().collect()
    };
    assert!(own(&found).len() > 3);
    assert_eq!(sums(&own(&found), &key, "total"), sums(&own(&expected), &key, "total"));
    let lines = |rows: &[Value]| sums(rows, &["function", "file", "task_type", "line"], "self");
    assert_eq!(lines(&found), lines(&expected));

    // Polls.
    let polls = "SELECT y.name AS task_type, count(*) AS count, sum(p.dur) AS total, max(p.dur) AS longest
                 FROM polls p LEFT JOIN task_types y ON y.type_id = p.type_id
                 WHERE coalesce(y.kind, 'task') <> 'worker' GROUP BY y.name";
    let expected = sql(&session.path, polls);
    let found = fleet("latency", &store, &[]);
    let found: Vec<Value> = found.into_iter().filter(|row| row["measure"] == "poll").collect();
    for column in ["count", "total", "longest"] {
        assert_eq!(sums(&found, &["task_type"], column), sums(&expected, &["task_type"], column), "{column}");
    }

    // Wake-to-poll latency: the same percentiles from the same slots.
    let expected = session.rows(view::WAKE_LATENCY, whole());
    let found = fleet("latency", &store, &[]);
    let found: Vec<Value> = found.into_iter().filter(|row| row["measure"] == "wake").collect();
    assert!(found.len() > 2);
    for column in ["count", "p50", "p90", "p99", "longest", "total", "mean"] {
        assert_eq!(sums(&found, &["task_type"], column), sums(&expected, &["task_type"], column), "{column}");
    }

    // Workers: no interval crosses the session's ends, so the sums by end are those of the clipped ones.
    let expected = session.rows(view::WORKERS, between(T0 - SECOND, T0 + 60 * SECOND));
    let found = fleet("load", &store, &[]);
    for (of_rollup, of_view) in [("worker_blocked", "blocked"), ("worker_queued", "waiting"), ("worker_idle", "idle")] {
        assert_eq!(sums(&found, &[], of_rollup), sums(&expected, &[], of_view), "{of_view}");
    }
    assert_eq!(found[0]["lost"], 9 + (0..9).sum::<i64>());
}

#[test]
fn blocking_adds_up_on_a_recording() {
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    rollup(&recording(), &store, &[]);
    // The view lists short sleeps from a sum of 10 ms on.
    let expected = rows(&recording(), view::BLOCKING, between(0, i64::MAX));
    let spans = |row: &Value| if row["spans"] == "short sleeps" { json!("short sleeps") } else { row["cause"].clone() };
    let expected: Vec<Value> = expected
        .into_iter()
        .map(|row| json!({ "cause": spans(&row), "function": row["function"], "task_type": row["task_type"], "count": row["count"], "total": row["total"] }))
        .collect();
    let found = fleet("blocking", &store, &[]);
    let key = ["cause", "function", "task_type"];
    for column in ["count", "total"] {
        let found = sums(&found, &key, column);
        let expected = sums(&expected, &key, column);
        assert!(expected.len() > 3);
        expected.iter().for_each(|(key, sum)| assert_eq!(found.get(key), Some(sum), "{key:?} {column}"));
    }
}

/// Five hosts of one service, one of them on another build.
fn five_hosts(store: &Path) -> i64 {
    let mut samples = 0;
    for n in 0..5 {
        let build = if n == 4 { "b2" } else { "b1" };
        let session = session_of(&format!("host-{n}"), &format!("session-{n}"), build);
        rollup(&session.path, store, &["--service", "api", "--label", "zone=a", "--label", "rack=7"]);
        samples += sql(&session.path, "SELECT count(*) AS n FROM samples")[0]["n"].as_i64().unwrap();
    }
    samples
}

fn total(rows: &[Value], column: &str) -> i64 {
    rows.iter().map(|row| row[column].as_i64().unwrap()).sum()
}

#[test]
fn a_fleet_is_the_sum_of_its_sessions_before_and_after_compaction() {
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    let samples = five_hosts(&store);
    let answers =
        || VIEWS.iter().filter(|view| **view != "regressions").map(|view| fleet(view, &store, &[])).collect::<Vec<_>>();
    let before = answers();
    assert_eq!(total(&before[0], "samples"), samples);
    assert_eq!((&before[4][0]["hosts"], &before[4][0]["service"]), (&json!(5), &json!("api")));
    let of_one = fleet("hotspots", &store, &["--host", "host-3"]);
    assert_eq!(total(&of_one, "samples") * 5, samples);
    assert!(fleet("hotspots", &store, &["--service", "web"]).is_empty());
    assert!(fleet("hotspots", &store, &["--to", "2023-11-14T22:13:00Z"]).is_empty(), "the minute begins then");
    assert_eq!(total(&fleet("hotspots", &store, &["--from", "2023-11-14T22:13:00Z"]), "samples"), samples);

    let part = |store: &Path| files(store).into_iter().filter(|path| path.ends_with("part.parquet")).count();
    assert!(part(&store) > 5);
    let text = run(&["compact", store.to_str().unwrap()]);
    assert!(text.contains("of 5 sessions merged"), "{text}");
    assert_eq!((answers(), part(&store)), (before.clone(), 0));
    // Nothing is left to do, and a session that is published again is not counted twice.
    assert!(run(&["compact", store.to_str().unwrap()]).contains("0 files of 0 sessions"));
    let again = session_of("host-2", "session-2", "b1");
    let text = rollup(&again.path, &store, &["--service", "api"]);
    assert!(text.contains("compacted already"), "{text}");
    assert_eq!(answers(), before);
}

#[test]
fn a_session_that_is_published_twice_counts_once_and_half_a_session_not_at_all() {
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    let session = session_of("a", "one", "b1");
    rollup(&session.path, &store, &[]);
    let once = fleet("hotspots", &store, &[]);
    rollup(&session.path, &store, &[]);
    assert_eq!(fleet("hotspots", &store, &[]), once);
    // As after an upload that was cut off before the manifest.
    let other = session_of("b", "two", "b1");
    rollup(&other.path, &store, &[]);
    assert_ne!(fleet("hotspots", &store, &[]), once);
    let manifest = files(&store).into_iter().find(|path| path.ends_with("session=two.json")).unwrap();
    fs::remove_file(manifest).unwrap();
    assert_eq!(fleet("hotspots", &store, &[]), once);
}

#[test]
fn an_interrupted_compaction_is_never_read() {
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    five_hosts(&store);
    let before = fleet("hotspots", &store, &[]);
    let copy = tmp.path().join("copy");
    copy_to(&store, &copy);
    run(&["compact", copy.to_str().unwrap()]);
    // Compact files without an index: killed before the index was written.
    for from in files(&copy).into_iter().filter(|path| path.to_str().unwrap().contains("compact-")) {
        let to = store.join(from.strip_prefix(&copy).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap();
    }
    assert_eq!(fleet("hotspots", &store, &[]), before);
    // With the index, and the sessions' own files: killed before these were removed.
    copy_to(&copy.join("index"), &store.join("index"));
    assert_eq!(fleet("hotspots", &store, &[]), before);
    run(&["compact", store.to_str().unwrap()]);
    assert_eq!(fleet("hotspots", &store, &[]), before);
}

#[test]
fn wrong_stores_and_arguments_are_one_clear_error() {
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    let session = session_of("a", "one", "b1");
    let error = |arguments: &[&str]| {
        let output = hud(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = error(&["fleet", "hotspots", store.to_str().unwrap()]);
    assert!(text.contains("is no fleet store"), "{text}");
    rollup(&session.path, &store, &[]);
    let text = error(&["fleet", "hotspot", store.to_str().unwrap()]);
    assert!(text.contains("there is no fleet view hotspot; the views are hotspots, "), "{text}");
    let text = error(&["fleet", "regressions", store.to_str().unwrap()]);
    assert!(text.contains("--before and --after"), "{text}");
    let path = session.path.to_str().unwrap();
    let text = error(&["rollup", path, "--store", path]);
    assert!(text.contains("is a session"), "{text}");
    fs::create_dir(store.join("index")).unwrap();
    fs::write(store.join("index/date=2023-11-14.json"), r#"{"version":2,"compacted":[]}"#).unwrap();
    let text = error(&["fleet", "hotspots", store.to_str().unwrap()]);
    assert!(text.contains("written by a newer hud"), "{text}");
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { all.extend(files(&entry)) } else { all.push(entry) }
    }
    all
}

#[test]
fn duckdb_answers_the_same_views_over_the_same_files() {
    let Some(python) = python("DuckDB") else { return };
    let tmp = tempfile::tempdir().unwrap();
    let store = tmp.path().join("fleet");
    five_hosts(&store);
    let labels = ["host", "service", "build_id", "version", "session", "tokio_version", "labels"];
    let tables: serde_json::Map<_, _> = Table::ROLLUPS
        .iter()
        .map(|table| {
            let columns: Vec<_> = labels
                .iter()
                .map(|name| json!([name, "VARCHAR"]))
                .chain(table.columns().iter().map(|c| json!([c.name, duckdb_type(&c.data_type)])))
                .collect();
            let folder = store.join(table.name());
            let files = if folder.exists() { files(&folder) } else { Vec::new() };
            (table.name().to_string(), json!({ "files": files, "columns": columns }))
        })
        .collect();
    let mut queries = Vec::new();
    for view in VIEWS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../queries/fleet/fleet_{view}.sql"));
        let (day, mut parameters) = (T0 - T0 % DAY, json!({ "service": null, "host": null }));
        parameters["from"] = json!(day);
        parameters["to"] = json!(day + DAY);
        if view == "regressions" {
            parameters["before"] = json!("b1");
            parameters["after"] = json!("b2");
        }
        queries.push(json!({ "sql": fs::read_to_string(path).unwrap(), "parameters": parameters }));
    }
    let answers = duckdb_rows(&python, &tables, &queries);
    let mut filled = BTreeSet::new();
    for (view, expected) in VIEWS.iter().zip(answers) {
        let builds: &[&str] = if *view == "regressions" { &["--before", "b1", "--after", "b2"] } else { &[] };
        let found = fleet(view, &store, builds);
        assert_eq!(found.len(), expected.len(), "{view}");
        for (found, expected) in found.iter().zip(&expected) {
            for (column, expected) in expected.as_object().unwrap() {
                let same = match (found[column].as_f64(), expected.as_f64()) {
                    (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
                    _ => found[column] == *expected,
                };
                assert!(same, "{view}.{column}: {} in DataFusion, {expected} in DuckDB", found[column]);
            }
        }
        if !found.is_empty() {
            filled.insert(*view);
        }
    }
    assert!(filled.len() >= 5, "{filled:?}");
}
