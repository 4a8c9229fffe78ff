//! Times, durations and names in queries: results, constant folding at planning, and rejected values.
#![allow(clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod support;

use hud_functions::{FunctionKind, catalog};
use proptest::prelude::*;
use support::{START, context, failure, plan, rows, sorted, texts, unsorted};

#[test]
fn moments_and_durations_are_constants_to_the_planner() {
    let context = context(1, 8192);
    let five = START + 5_000_000_000;
    sorted(&context, "t", &["ts"], &[vec![Some(five - 1)], vec![Some(five)], vec![None]], 8, 1);
    assert_eq!(rows(&context, "SELECT ts FROM t WHERE ts >= at('+5s')"), [[Some(five)]]);
    let explained = plan(&context, "SELECT ts FROM t WHERE ts >= at('+5s') AND ts < at('-1s') AND ts > ns('3ms')");
    assert!(explained.contains(&format!("ts@0 >= {five}")), "{explained}");
    assert!(!explained.contains("at(") && !explained.contains("ns("), "{explained}");
    assert_eq!(
        rows(&context, "SELECT at('22:13:21') - at('+0s'), ns('1.5s'), ns(7), at(NULL)"),
        [[Some(1_000_000_000), Some(1_500_000_000), Some(7), None]]
    );
    assert_eq!(
        rows(&context, "SELECT at(x) - at('+0s') FROM (VALUES ('+1ns'), (NULL), ('+2ns')) v(x)"),
        [[Some(1)], [None], [Some(2)]]
    );
}

#[test]
fn invalid_times_and_durations_are_reported_at_planning() {
    let context = context(1, 8192);
    unsorted(&context, "empty", &["ts"], &[], 1);
    for (sql, found) in [
        ("SELECT * FROM empty WHERE ts >= at('tomorrow')", "is not a time, write it like +12.5s"),
        ("SELECT * FROM empty WHERE ts >= ns('10')", "is not a duration, write it like 12.5s"),
        ("SELECT time_bucket('0s', ts) FROM empty", "a step of more than 0 ns"),
        ("SELECT time_bucket(-5, ts) FROM empty", "a step of more than 0 ns"),
        ("SELECT at(5)", "at cannot take a Int64"),
        ("SELECT human('x')", "human cannot take a Utf8"),
        ("SELECT clock()", "clock"),
        ("SELECT time_bucket('1s')", "time_bucket takes 2, not 1 arguments"),
    ] {
        let why = failure(&context, sql);
        assert!(why.contains(found), "{sql}: {why}");
    }
    let why = failure(&context, "SELECT at(x) FROM (VALUES ('+1s'), ('tomorrow')) v(x)");
    assert!(why.contains("is not a time"), "{why}");
}

#[test]
fn numbers_and_names_read_as_people_write_them() {
    let context = context(1, 8192);
    let found = |sql: &str| texts(&context, sql).into_iter().next().flatten();
    assert_eq!(found("SELECT human(12400000)").as_deref(), Some("12.4 ms"));
    assert_eq!(found("SELECT human(NULL)"), None);
    assert_eq!(found("SELECT clock(at('+1.5s'))").as_deref(), Some("22:13:21.500"));
    assert_eq!(found("SELECT short_type('app::f::{async_fn_env#0}<u8>')").as_deref(), Some("app::f"));
    assert_eq!(
        texts(&context, "SELECT short_type(x) FROM (VALUES ('a::B<u8>'), (NULL), ('a::B<u8>'), ('\u{1b}[2J')) v(x)"),
        [Some("a::B".into()), None, Some("a::B".into()), Some("\\x1b[2J".into())]
    );
}

#[test]
fn buckets_of_time_keep_order_and_prune() {
    let context = context(1, 8192);
    let all: Vec<_> = (0..100).map(|i| vec![Some(START + i * 70_000_000), Some(i)]).collect();
    sorted(&context, "t", &["ts", "x"], &all, 16, 1);
    let counted =
        rows(&context, "SELECT time_bucket('1s', ts) - at('+0s') AS b, count(*) FROM t GROUP BY b ORDER BY b");
    let expected: Vec<_> = (0..7)
        .map(|s| {
            let n = (0..100).filter(|i| i * 70_000_000 / 1_000_000_000 == s).count();
            vec![Some(s * 1_000_000_000), i64::try_from(n).ok()]
        })
        .collect();
    assert_eq!(counted, expected);
    // Sorted input makes sorted groups, that come out as they end.
    let explained = plan(&context, "SELECT time_bucket('1s', ts) AS b, count(*) FROM t GROUP BY b ORDER BY b");
    assert!(explained.contains("ordering_mode=Sorted") && !explained.contains("SortExec"), "{explained}");
    let explained = plan(&context, "SELECT x FROM t WHERE time_bucket('1s', ts) = at('+2s')");
    let two = START + 2_000_000_000;
    assert!(explained.contains(&format!("ts@0 >= {two} AND ts@0 < {}", two + 1_000_000_000)), "{explained}");
    assert_eq!(
        rows(&context, "SELECT time_bucket(s, 25) FROM (VALUES (10), (7), (NULL)) v(s)"),
        [[Some(20)], [Some(21)], [None]]
    );
}

#[test]
fn every_function_is_documented_and_every_example_runs() {
    let context = context(2, 8192);
    for table in hud_common::session::Table::ALL {
        let empty = datafusion::catalog::MemTable::try_new(table.schema(), vec![vec![]]).expect("a table");
        context.register_table(table.name(), std::sync::Arc::new(empty)).expect("registered");
    }
    let plain = datafusion::prelude::SessionContext::new().state();
    let state = context.state();
    let mut added: Vec<_> =
        state.scalar_functions().keys().filter(|name| !plain.scalar_functions().contains_key(*name)).collect();
    added.extend(state.aggregate_functions().keys().filter(|name| !plain.aggregate_functions().contains_key(*name)));
    added.extend(state.table_functions().keys().filter(|name| !plain.table_functions().contains_key(*name)));
    added.sort();
    let mut documented: Vec<_> = catalog().iter().map(|doc| doc.name).collect();
    documented.sort_unstable();
    assert_eq!(added, documented);
    for doc in catalog() {
        assert!(doc.signature.starts_with(&format!("{}(", doc.name)) && doc.about.ends_with('.'), "{}", doc.name);
        assert!(doc.example.contains(&format!("{}(", doc.name)), "{}", doc.name);
        support::ask(&context, doc.example).unwrap_or_else(|e| panic!("{}: {e}", doc.example));
    }
    assert!(catalog().is_sorted_by_key(|doc| doc.kind) && catalog().iter().any(|doc| doc.kind == FunctionKind::Table));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn buckets_are_the_multiples_below(step in 1..i64::MAX, times in prop::collection::vec(prop::option::of(any::<i64>()), 1..50)) {
        let context = context(2, 7);
        let all: Vec<_> = times.iter().map(|ts| vec![*ts]).collect();
        unsorted(&context, "t", &["ts"], &all, 7);
        let mut found = rows(&context, &format!("SELECT time_bucket({step}, ts) FROM t"));
        found.sort();
        let mut slow: Vec<_> = times
            .iter()
            .map(|ts| vec![ts.map(|ts| {
                let (ts, step) = (i128::from(ts), i128::from(step));
                let floor = if ts >= 0 { ts / step } else { -((-ts + step - 1) / step) };
                i64::try_from(floor * step).unwrap_or(i64::MIN)
            })])
            .collect();
        slow.sort();
        prop_assert_eq!(found, slow);
    }

    #[test]
    fn no_text_breaks_a_function(text in "\\PC{0,40}|[<>(){}:#,'a-z ]{0,60}|[-+0-9:.TZsmhnuµ ]{0,20}") {
        let context = context(1, 8);
        let quoted = text.replace('\'', "''");
        for function in ["at", "ns"] {
            // Rejected or accepted, but no panic.
            drop(support::ask(&context, &format!("SELECT {function}('{quoted}')")));
        }
        let short = texts(&context, &format!("SELECT short_type('{quoted}')"));
        prop_assert!(short.iter().flatten().all(|s| !s.chars().any(char::is_control)));
    }
}
