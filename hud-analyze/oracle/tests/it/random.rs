//! Views against plain readings.

use hud_analyze::view::ALL;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRunner},
};
use serde_json::Value;

use crate::{
    data::{Args, Data, Row, ask, recording},
    made_up, plain,
};

/// Random sessions that every view is held to, other ones in each run. A session takes 20 s in a debug build, nearly all of it
/// the planning of 44 queries; `PROPTEST_CASES` asks for more of them.
const CASES: u32 = 4;
/// Arguments for each.
const ARGS: usize = 2;

/// The columns that rows are ordered by first; true: the greatest come first.
const ORDER: &[(&str, &str, bool)] = &[
    ("await_flame", "weight", true),
    ("blocking", "total", true),
    ("blocking_each", "dur", true),
    ("cpu_flame", "weight", true),
    ("critical_path", "slow", false),
    ("coverage", "stream", false),
    ("deadlocks", "lasted", true),
    ("drops", "lost", true),
    ("hotspots", "self", true),
    ("hotspots_by", "time", true),
    ("in_progress", "lasted", true),
    ("locks", "total", true),
    ("off_cpu_flame", "weight", true),
    ("run_queue", "total", true),
    ("suspended", "tasks", true),
    ("wake_chains", "wakes", true),
    ("wake_latency", "total", true),
];

/// The same cell. DataFusion rounds the weight with which it interpolates down to six digits, so such percentiles are a
/// millionth of the gap off that they lie in.
fn same(view: &str, column: &str, a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) if view == "blocking" && matches!(column, "median" | "p99") => {
            (a - b).abs() <= 1e-5 * a.abs().max(b.abs()) + 1.0
        }
        _ if view == "findings" && column == "sentence" => {
            a.as_str().zip(b.as_str()).is_some_and(|(a, b)| a.starts_with(b) || b.starts_with(a))
        }
        (Some(x), Some(y)) if a.is_f64() || b.is_f64() => (x - y).abs() <= 1e-12 * x.abs().max(y.abs()),
        _ => a == b,
    }
}

/// In an order that depends on no percentile and no float.
fn sorted(view: &str, mut rows: Vec<Row>) -> Vec<Row> {
    let key = |row: &Row| {
        let exact = row.iter().filter(|(column, value)| {
            let is_inexact = match view {
                "blocking" => matches!(column.as_str(), "median" | "p99"),
                "findings" => column.as_str() == "sentence",
                _ => false,
            };
            !value.is_f64() && !is_inexact
        });
        exact.map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>()
    };
    rows.sort_by_cached_key(key);
    rows
}

fn check(name: &str, mut found: Vec<Row>, data: &Data, args: &Args) -> Result<(), String> {
    if name == "findings" {
        // The code of a finding is that of an interval of blocking_each.sql, or of a stack, as other views have it.
        found
            .iter_mut()
            .for_each(|row| row.retain(|column, _| !["function", "file", "line"].contains(&column.as_str())));
    }
    for (view, column, is_descending) in ORDER {
        let values: Vec<&Value> = found.iter().filter(|_| *view == name).map(|row| &row[*column]).collect();
        let is_ordered = values.windows(2).all(|pair| {
            let order = match (pair[0], pair[1]) {
                (Value::String(a), Value::String(b)) => a.cmp(b),
                (a, b) => a.as_i64().cmp(&b.as_i64()),
            };
            if *is_descending { order.is_ge() } else { order.is_le() }
        });
        if !is_ordered {
            return Err(format!("{name} is not in the order of {column}"));
        }
    }
    let (found, wanted) = (sorted(name, found), sorted(name, plain::read(name, data, args)));
    let is_same = |(a, b): (&Row, &Row)| {
        a.len() == b.len() && a.iter().all(|(column, a)| b.get(column).is_some_and(|b| same(name, column, a, b)))
    };
    if found.len() == wanted.len() && found.iter().zip(&wanted).all(is_same) {
        return Ok(());
    }
    let show = |rows: &[Row], others: &[Row]| {
        let odd = rows.iter().filter(|row| !others.iter().any(|other| is_same((row, other))));
        odd.map(|row| format!("  {}\n", Value::Object(row.clone()))).collect::<String>()
    };
    Err(format!(
        "{name}: {} rows, and {} by a plain reading\nonly the view has\n{}only the plain reading has\n{}",
        found.len(),
        wanted.len(),
        show(&found, &wanted),
        show(&wanted, &found)
    ))
}

#[test]
fn every_view_says_what_a_plain_reading_says() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 8, ..Config::default() };
    let strategy = (made_up::session(), proptest::collection::vec(made_up::args(), ARGS), 1..4_usize);
    let result = TestRunner::new(config).run(&strategy, |(data, args, segments)| {
        let session = data.write(segments);
        // The rules take it that a task has one type, as the recorder writes it.
        let plain = data.with_one_type_per_task();
        let of_rules = plain.write(segments);
        for args in &args {
            for view in ALL {
                let (data, session) = match view.name {
                    "findings" => (&plain, &of_rules),
                    _ => (&data, &session),
                };
                let found = ask(&session.path, *view, args);
                check(view.name, found, data, args).map_err(proptest::test_runner::TestCaseError::fail)?;
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A view that random sessions leave empty would be held to nothing.
#[test]
fn random_sessions_have_something_for_every_view() {
    let mut runner = TestRunner::deterministic();
    let strategy = (made_up::session(), made_up::args());
    let mut most = vec![0; ALL.len()];
    let mut rules = std::collections::BTreeSet::new();
    for _ in 0..1_000 {
        let (data, args) = strategy.new_tree(&mut runner).unwrap().current();
        let of_rules = data.with_one_type_per_task();
        for (view, most) in ALL.iter().zip(&mut most) {
            let data = if view.name == "findings" { &of_rules } else { &data };
            let rows = plain::read(view.name, data, &args);
            *most = rows.len().max(*most);
            if view.name == "findings" {
                rules.extend(rows.iter().map(|row| row["rule"].as_str().unwrap().to_string()));
            }
        }
    }
    for (view, most) in ALL.iter().zip(most) {
        assert!(most >= 3, "{} has {most} rows at most", view.name);
    }
    assert_eq!(rules.len(), hud_common::cockpit::Rule::ALL.len(), "{rules:?}");
}

#[test]
fn on_a_recording_too() {
    let data = Data::read(&recording());
    let whole = Args::whole(&data);
    let third = (whole.to - whole.from) / 3;
    let middle = Args { step: third / 9, ..Args::between(whole.from + third, whole.to - third) };
    let low = Args { threshold: 1, asleep: 1, states: true, threads: true, lines: true, ..whole.clone() };
    for args in [whole, middle, low] {
        for view in ALL {
            let found = ask(&recording(), *view, &args);
            check(view.name, found, &data, &args).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}
