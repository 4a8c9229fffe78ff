//! DuckDB reads the same files and runs the same views, and says the same.
//!
//! `HUD_DUCKDB_PYTHON` names a Python that has the package `duckdb`. Without it these tests only say that they were
//! skipped, except where `HUD_REQUIRE_BPF=1` asks for everything: there they fail.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use hud_analyze::{catalog::Catalog, view};
use hud_common::{
    cockpit::Thresholds,
    session::{SessionDir, Table},
};
use serde_json::{Value, json};
use support::*;

/// The rows that DuckDB gives for each of `queries`, with their parameters.
fn duckdb(python: &str, session: &Path, queries: &[(String, Value)]) -> Vec<Vec<Value>> {
    let (dir, _) = SessionDir::open(session).unwrap();
    let tables: serde_json::Map<_, _> = Table::ALL
        .iter()
        .map(|table| {
            let columns: Vec<_> = table.columns().iter().map(|c| json!([c.name, duckdb_type(&c.data_type)])).collect();
            (table.name().to_string(), json!({ "files": dir.segments(*table).unwrap(), "columns": columns }))
        })
        .collect();
    let queries: Vec<_> =
        queries.iter().map(|(sql, parameters)| json!({ "sql": sql, "parameters": parameters })).collect();
    duckdb_rows(python, &tables, &queries)
}

/// The same rows. Floats may differ in their last digits, and percentiles by a millionth of the gap that they lie in, because DataFusion rounds the
/// weight with which it interpolates down to six digits.
fn same(a: &Value, b: &Value) -> bool {
    let near = |a: &Value, b: &Value, part: f64| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= part * a.abs().max(b.abs()) + part,
        _ => a == b,
    };
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return false;
    };
    a.len() == b.len()
        && a.iter().all(|(column, a)| match b.get(column) {
            Some(b) if matches!(column.as_str(), "median" | "p99") => near(a, b, 1e-5),
            Some(b) if a.is_f64() || b.is_f64() => near(a, b, 1e-9),
            b => b == Some(a),
        })
}

/// The view `findings` over the table of that name.
fn recorded_findings(session: &Path, from: i64, to: i64) -> Vec<Value> {
    let sql = view::FINDINGS.sql.replace("$from", &from.to_string()).replace("$to", &to.to_string());
    runtime().block_on(async {
        let catalog = Catalog::open(session).unwrap();
        to_json(&catalog.sql(&sql).await.unwrap().collect().await.unwrap())
    })
}

fn finding(ts: i64, rule: &'static str, value: i64, type_id: Option<i64>) -> format::FindingRow {
    format::FindingRow {
        ts,
        dur: 5 * SECOND,
        rule: rule.into(),
        severity: if value > 100 * MS { "warning" } else { "caution" }.into(),
        sentence: format!("{rule}: {value}").into(),
        value,
        threshold: 10 * MS,
        unit: "ns".into(),
        count: (value > 20 * MS).then_some(3),
        total: Some(2 * value),
        worst_ts: Some(ts + SECOND),
        task_id: Some(HOG),
        type_id,
        tid: Some(W0),
        function: type_id.map(|_| "app::burn".into()),
        file: None,
        line: type_id.map(|_| 7),
        estimated: value % 2 == 0,
        thresholds: Thresholds::default().line().into(),
    }
}

fn compare(session: &Path) {
    let Some(python) = python("DuckDB") else { return };
    let counts: Vec<_> =
        Table::ALL.iter().map(|t| (format!("SELECT count(*) AS n FROM {}", t.name()), json!({}))).collect();
    let ours = |sql: &str| {
        runtime().block_on(async { Catalog::open(session).unwrap().row(sql).await.unwrap().remove(0).to_string() })
    };
    for ((sql, _), theirs) in counts.iter().zip(duckdb(&python, session, &counts)) {
        assert_eq!(ours(sql), theirs[0]["n"].to_string(), "{sql}");
    }

    let window = runtime().block_on(async { Catalog::open(session).unwrap().window().await.unwrap() });
    let (from, to) = (window.from, window.to);
    // All of it; the middle, so that intervals cross both borders; one thread, by line, at low thresholds.
    for (part, from, to, thread, lines, threshold) in [
        ("all", from, to, None, false, 10 * MS),
        ("the middle", from + window.dur() / 3 + 1_234, to - window.dur() / 3, None, false, 10 * MS),
        ("a thread", from, to, Some(i64::from(W0)), true, MS / 10),
    ] {
        let step = (to - from) / 77 + 1;
        let arguments = between(from, to)
            .int("thread", thread)
            .int("threshold", threshold)
            .int("asleep", threshold / 10)
            .int("step", step)
            .int("long_poll", threshold)
            .int("lock_wait", threshold / 10)
            .int("stuck", threshold)
            .int("short_sleeps", threshold / 10)
            .int("self_wakes", threshold / MS)
            .flag("lines", lines)
            .flag("threads", lines)
            .flag("states", lines);
        let parameters = json!({
            "from": from, "to": to, "task": null, "thread": thread, "threshold": threshold,
            "asleep": threshold / 10, "step": step, "lines": lines, "functions": true, "types": true, "threads": lines,
            "states": lines, "late": MS, "polls": 10, "hops": 4, "depth": 64, "long_poll": threshold,
            "very_long_poll": 100 * MS, "wake_delay_p99": 5 * MS, "wake_delay_count": 100, "worker_blocked": 500,
            "cpu_share": 400, "short_sleeps": threshold / 10,
            "imbalance": 3_000, "imbalance_busy": 300, "pool_busy": 950, "pool_threads": 4, "growth": 100,
            "growth_ended": 100, "self_wakes": threshold / MS, "self_wakes_share": 500, "lock_wait": threshold / 10, "stuck": threshold,
            "observed": 500 * MS,
        });
        let queries: Vec<_> = view::ALL
            .iter()
            .map(|view| {
                // Thresholds are parameters of the rules, not of the query.
                let is_threshold = |name: &str| view.name == "findings" && Thresholds::named(name).is_some();
                let taken = view.header().unwrap().parameters.into_iter().filter(|p| !is_threshold(&p.name));
                let mut values: serde_json::Map<_, _> =
                    taken.map(|p| (p.name.clone(), parameters[&p.name].clone())).collect();
                if view.sql.contains("$few") {
                    values.insert("few".into(), json!(lines));
                }
                (view.sql.to_string(), values.into())
            })
            .collect();
        for (view, theirs) in view::ALL.iter().zip(duckdb(&python, session, &queries)) {
            let ours = match view.name {
                // hud-analyze evaluates the rules, and DuckDB cannot: both read what the recorder found.
                "findings" => recorded_findings(session, from, to),
                _ => rows(session, *view, arguments.clone()),
            };
            assert_eq!(ours.len(), theirs.len(), "rows of {} ({part})", view.name);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(same(ours, theirs), "{} ({part})\nDataFusion {ours}\nDuckDB     {theirs}", view.name);
            }
            eprintln!("{} ({part}): {} rows agree", view.name, ours.len());
        }
    }
}

#[test]
fn on_a_made_up_session() {
    let session = busy(3_000);
    session.add::<format::FindingColumns>([
        finding(T0, "long_poll", 120 * MS, Some(3)),
        finding(T0, "long_poll", 30 * MS, Some(1)),
        finding(T0 + 5 * SECOND, "short_sleeps", 15 * MS + 1, None),
    ]);
    assert_eq!(recorded_findings(&session.path, T0, T0 + SECOND).len(), 2, "those of the time range");
    // Four polls in progress, observed each second; the last ones have ended.
    session.add::<format::InProgressColumns>((0..24).map(|n| format::InProgressRow {
        ts: T0 + n / 4 * SECOND,
        lasted: (n / 4 + n % 4) * SECOND,
        since: (n % 2 == 0).then_some(T0 - n % 4 * SECOND),
        tid: if n % 4 < 2 { W0 } else { W1 },
        worker: None,
        task_id: if n % 4 == 0 { HOG } else { n % 4 },
        type_id: (n % 4 != 1).then_some(3),
        state: if n % 3 == 0 { "running" } else { "blocked" }.into(),
        stack_id: (n % 4 != 2).then_some(1 + n % 4),
        estimated: n % 4 == 3,
        ended: n == 23,
    }));
    // Two snapshots, of tasks that wait for each other in a ring, one that waits for two futures, and a thread.
    session.add::<format::TaskStateColumns>((0..40).map(|n| format::TaskStateRow {
        ts: T0 + n / 20 * 4 * SECOND,
        since: T0 + n % 3 * SECOND - 2 * SECOND,
        task_id: (n % 20 != 19).then_some(n % 20 - i64::from(n % 20 == 7)),
        tid: (n % 20 == 19).then_some(W1),
        type_id: (n % 4 != 1).then_some(1 + n % 3),
        state: if n % 20 == 3 { "running" } else { "suspended" }.into(),
        branch: i32::from(n % 20 == 7),
        branches: 1,
        stack_id: (n % 5 != 4).then_some(1 + n % 8),
        resource: ["mutex", "timer", "io"].get(usize::try_from(n % 4).unwrap()).map(|kind| (*kind).into()),
        address: (n % 4 != 1).then_some(n % 6),
        deadline: None,
        detail: (n % 6 != 5).then(|| format!("number {}", n % 6).into()),
        holder_task_id: (n % 4 == 0).then_some((n + 1) % 10),
        holder_tid: (n % 4 == 2).then_some(W1),
        cycle: (n % 8 == 0).then_some(n % 20 / 10),
        spawn_file: None,
        spawn_line: None,
    }));
    session.add::<format::CoverageColumns>([
        covered("task_states", T0 - SECOND, T0),
        covered("task_states", T0, T0 + 4 * SECOND),
        covered("in_progress", T0, T0 + 10 * SECOND),
    ]);
    compare(&session.path);
}

#[test]
fn on_a_session_without_a_row() {
    compare(&Session::new().path);
}

#[test]
fn on_a_recording() {
    compare(&recording());
}
