//! Conditions on time are answered by which rows are read: each row that one holds for, and no other.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::{Command, Stdio};

use hud_common::session::{WakeColumns, WakeRow};
use support::{SECOND, Session, T0};

/// Instants in three segments, of several pages and of one; many are at one instant, some at the ends of time.
fn segments() -> [Vec<i64>; 3] {
    let mut x = 88_172_645_463_325_252_u64;
    let mut random = |most: i64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        i64::try_from(x % u64::try_from(most).unwrap()).unwrap()
    };
    let mut of = |count: usize, from: i64, dur: i64| -> Vec<i64> {
        // Whole milliseconds, so that they equal each other and the bounds.
        (0..count).map(|_| from + random(dur / 1_000_000) * 1_000_000).collect()
    };
    let mut last = of(300, T0 + 50 * SECOND, SECOND);
    last.extend([i64::MIN, i64::MIN + 1, -1, 0, i64::MAX, i64::MAX]);
    [of(45_000, T0, 20 * SECOND), of(30_000, T0 + 15 * SECOND, 20 * SECOND), last]
}

#[test]
fn a_condition_on_time_reads_the_rows_that_it_holds_for() {
    let session = Session::with_cast();
    let segments = segments();
    let mut all: Vec<(i64, i64)> = Vec::new();
    for times in &segments {
        let first = all.len();
        all.extend(times.iter().enumerate().map(|(n, ts)| (*ts, i64::try_from(first + n).unwrap())));
        let rows = all.get(first..).unwrap().iter();
        session.add::<WakeColumns>(rows.map(|(ts, task_id)| WakeRow {
            ts: *ts,
            task_id: *task_id,
            waker_task_id: None,
            waker_tid: 1,
        }));
    }

    type Holds = Box<dyn Fn(i64) -> bool>;
    let mut conditions: Vec<(String, Holds)> = Vec::new();
    for (n, (from, to)) in [
        (T0, T0 + 1),
        (T0 + SECOND, T0 + 2 * SECOND),
        (T0 + 16 * SECOND, T0 + 17 * SECOND + 500_000),
        (T0 + 9_999_000_000, T0 + 30 * SECOND),
        (T0 + 21 * SECOND, T0 + 21 * SECOND),
        (T0 + 40 * SECOND, T0 + 45 * SECOND),
        (T0 + 50_500_000_000, i64::MAX),
        (i64::MIN, i64::MAX),
        (i64::MIN + 1, T0),
        (0, T0 + 50 * SECOND),
        (T0 + 30 * SECOND, T0),
    ]
    .into_iter()
    .enumerate()
    {
        conditions.push((format!("ts >= {from} AND ts < {to}"), Box::new(move |ts| from <= ts && ts < to)));
        conditions.push((format!("ts > {from} AND {to} >= ts"), Box::new(move |ts| from < ts && ts <= to)));
        conditions.push((format!("ts BETWEEN {from} AND {to}"), Box::new(move |ts| from <= ts && ts <= to)));
        conditions.push((format!("ts = {from}"), Box::new(move |ts| ts == from)));
        conditions.push((format!("NOT ts < {to}"), Box::new(move |ts| ts >= to)));
        let odd = i64::try_from(n).unwrap() % 3;
        conditions.push((
            format!("ts >= {from} AND ts / 1000000 % 3 = {odd}"),
            Box::new(move |ts| ts >= from && ts / 1_000_000 % 3 == odd),
        ));
        conditions.push((format!("ts < {from} OR ts > {to}"), Box::new(move |ts| ts < from || ts > to)));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
    command.args(["sql", "--format", "csv"]).arg(&session.path).stdin(Stdio::null());
    for (condition, _) in &conditions {
        command.args(["-c", &format!("SELECT count(*) AS n, sum(task_id) AS s FROM wakes WHERE {condition}")]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.lines().filter(|line| *line != "n,s").collect();
    assert_eq!(printed.len(), conditions.len());
    for ((condition, holds), line) in conditions.iter().zip(printed) {
        let held: Vec<i64> = all.iter().filter(|(ts, _)| holds(*ts)).map(|(_, task)| *task).collect();
        let sum = if held.is_empty() { String::new() } else { held.iter().sum::<i64>().to_string() };
        assert_eq!(line, format!("{},{sum}", held.len()), "{condition}");
    }
}
