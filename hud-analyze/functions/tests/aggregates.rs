//! Quantiles, histograms and totals: compared with sorted values, over partitions, groups and filters; and their
//! memory.
#![allow(clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod support;

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use hud_common::cockpit::Histogram;
use proptest::prelude::*;
use support::{ask, context, failure, rows, sorted, unsorted, with_stacks};

/// The quantile by nearest rank.
fn exact(values: &[i64], thousandths: usize) -> Option<i64> {
    let mut values: Vec<i64> = values.iter().map(|v| (*v).max(0)).collect();
    values.sort_unstable();
    let rank = (values.len() * thousandths).div_ceil(1000).max(1);
    values.get(rank - 1).copied()
}

fn is_near(expected: Option<i64>, exact: Option<i64>) -> bool {
    match (expected, exact) {
        (Some(expected), Some(exact)) => (i128::from(expected) - i128::from(exact)).abs() <= i128::from(exact) / 32,
        (expected, exact) => expected == exact,
    }
}

#[test]
fn exact_results_are_exact() {
    let context = context(2, 8192);
    let value = |sql: &str| rows(&context, sql)[0][0];
    assert_eq!(value("SELECT quantile(x, 0.5) FROM (VALUES (3), (1), (2), (NULL)) v(x)"), Some(2));
    assert_eq!(value("SELECT quantile(x, 1) FROM (VALUES (3000000), (1000001)) v(x)"), Some(3_000_000), "the greatest");
    assert_eq!(value("SELECT quantile(x, 0.01) FROM (VALUES (1234567)) v(x)"), Some(1_234_567), "the only one");
    assert_eq!(value("SELECT quantile(x, 0.5) FROM (VALUES (-7)) v(x)"), Some(0), "negative counts as 0");
    assert_eq!(value("SELECT quantile(x, 0.5) FROM (VALUES (1)) v(x) WHERE x > 1"), None);
    assert_eq!(value("SELECT quantile(CAST(x AS INT), 0.5) FROM (VALUES (5)) v(x)"), Some(5));
    assert_eq!(value("SELECT histogram(x) IS NULL FROM (VALUES (1)) v(x) WHERE x > 1"), Some(1));
    assert_eq!(value("SELECT quantiles(x, 0.5, 0.9) IS NULL FROM (VALUES (1)) v(x) WHERE x > 1"), Some(1));
    assert_eq!(value("SELECT quantiles(x, 0, 0.5, 1)[2] FROM (VALUES (1), (2), (9)) v(x)"), Some(2));
    assert_eq!(value("SELECT total(x) FROM (VALUES (9223372036854775807), (5)) v(x)"), Some(i64::MAX));
    assert_eq!(value("SELECT total(x) FROM (VALUES (9223372036854775807), (5), (-6)) v(x)"), Some(i64::MAX - 1));
    assert_eq!(value("SELECT total(x) FROM (VALUES (-9223372036854775807), (-5)) v(x)"), Some(i64::MIN));
    assert_eq!(value("SELECT total(x) FROM (VALUES (1)) v(x) WHERE x > 1"), None);
    assert_eq!(
        rows(
            &context,
            "SELECT h['lower'], h['upper'], h['count'] FROM (SELECT unnest(histogram(x)) AS h FROM (VALUES (1), (1), (100)) v(x))"
        ),
        [[Some(1), Some(1), Some(2)], [Some(100), Some(103), Some(1)]]
    );
}

#[test]
fn invalid_quantiles_are_refused() {
    let context = context(2, 8192);
    unsorted(&context, "t", &["x", "q"], &[vec![Some(1), Some(1)]], 1);
    for (sql, expected) in [
        ("SELECT quantile(x, 99) FROM t", "from 0 to 1, not 99"),
        ("SELECT quantile(x, NULL) FROM t", "quantile"),
        ("SELECT quantile(x, q) FROM t", "has to be constant"),
        ("SELECT quantile(x) FROM t", "quantile cannot take 1 arguments"),
        ("SELECT quantile('a', 0.5) FROM t", "quantile cannot take a Utf8"),
        ("SELECT quantile(x * 1.5, 0.5) FROM t", "quantile cannot take a Float64"),
        ("SELECT histogram(x, 0.5) FROM t", "histogram cannot take 2 arguments"),
        ("SELECT quantile(DISTINCT x, 0.5), total(x) FROM t", "DISTINCT"),
        ("SELECT total(DISTINCT x), quantile(x, 0.5) FROM t", "DISTINCT"),
        ("SELECT total('a') FROM t", "total takes one integer"),
    ] {
        let why = failure(&context, sql);
        assert!(why.contains(expected), "{sql}: {why}");
    }
}

#[test]
fn groups_past_the_memory_limit_are_an_error() {
    let tight = with_stacks(1, 8192, Some(8_000_000), Default::default());
    // Each of 4,000 groups has hundreds of buckets: 7.7 kB each.
    let sql = "SELECT value % 4000 AS g, quantile(CAST(power(1.01, value % 3001) AS BIGINT), 0.99) \
               FROM generate_series(1, 2000000) GROUP BY g";
    let why = failure(&tight, sql);
    assert!(why.contains("Resources exhausted"), "{why}");
    let why =
        failure(&tight, "SELECT value * 7919 % 2000003 AS g, total(value) FROM generate_series(1, 2000000) GROUP BY g");
    assert!(why.contains("Resources exhausted"), "{why}");
}

#[test]
fn many_groups_are_passed_on_unmerged_and_still_right() {
    // As many groups as rows: DataFusion stops grouping before the final phase, and turns rows into states one by one.
    let context = context(2, 512);
    ask(&context, "SET datafusion.execution.skip_partial_aggregation_probe_rows_threshold = 1000").expect("set");
    let sql = "SELECT count(*), total(q), total(s), total(n) FROM (
        SELECT value % 50000 AS g, quantile(value % 16, 0.5) AS q, total(value) AS s, histogram(value)[1]['count'] AS n
        FROM generate_series(1, 50000) GROUP BY g)";
    let q: i64 = (1..=50_000).map(|v| v % 16).sum();
    assert_eq!(rows(&context, sql), [[Some(50_000), Some(q), Some(50_000 * 50_001 / 2), Some(50_000)]]);
}

fn value() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        1 => Just(None),
        2 => any::<i64>().prop_map(Some),
        4 => (0..63_u32, any::<i64>()).prop_map(|(bits, x)| Some((x & i64::MAX) >> bits)),
        2 => (-3..20_i64).prop_map(Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn aggregates_are_those_of_the_values(
        all in prop::collection::vec((0..5_i64, value(), any::<bool>()), 0..400),
        partitions in 1..4_usize,
        size in 1..60_usize,
        thousandths in 0..=1000_usize,
    ) {
        let context = context(partitions, size);
        let table: Vec<_> = all.iter().zip(0..).map(|((g, x, keep), ts)| vec![Some(ts), Some(*g), *x, Some(i64::from(*keep))]).collect();
        sorted(&context, "t", &["ts", "g", "x", "keep"], &table, size, partitions);
        let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let mut kept: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (g, x, keep) in &all {
            groups.entry(*g).or_default().extend(*x);
            kept.entry(*g).or_default().extend(x.filter(|_| *keep));
        }
        let q = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        let expected = rows(&context, &format!(
            "SELECT g, quantile(x, {q}), quantile(x, {q}) FILTER (WHERE keep = 1), total(x), quantiles(x, 0.5, {q})[2] \
             FROM t GROUP BY g ORDER BY g"));
        prop_assert_eq!(expected.len(), groups.len());
        for (row, (g, values)) in expected.iter().zip(&groups) {
            prop_assert_eq!(row[0], Some(*g));
            prop_assert!(is_near(row[1], exact(values, thousandths)), "{:?} of {:?}", row, values);
            prop_assert!(is_near(row[2], exact(&kept[g], thousandths)), "{:?} of {:?}", row, kept[g]);
            let sum = values.iter().map(|v| i128::from(*v)).sum::<i128>();
            let sum = i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
            prop_assert_eq!(row[3], (!values.is_empty()).then_some(sum));
            prop_assert_eq!(row[4], row[1]);
        }

        // Without groups, and the buckets themselves.
        let values: Vec<i64> = all.iter().filter_map(|(_, x, _)| *x).collect();
        let expected = rows(&context, &format!("SELECT quantile(x, {q}) FROM t"));
        prop_assert!(is_near(expected[0][0], exact(&values, thousandths)));
        let mut slow = Histogram::default();
        values.iter().for_each(|v| slow.record(*v));
        let answer = ask(&context, "SELECT histogram(x) FROM t").expect("a histogram");
        let lists = answer[0].column(0).as_list::<i32>();
        let expected = lists.is_valid(0).then(|| lists.value(0));
        let expected: Vec<_> = expected.iter().flat_map(|expected| {
            let column = |at: usize| expected.as_struct().column(at).as_primitive::<Int64Type>().clone();
            (0..expected.len()).map(move |i| (column(0).value(i), column(1).value(i), column(2).value(i))).collect::<Vec<_>>()
        }).collect();
        let slow: Vec<_> = slow.counts().iter().map(|(slot, n)| {
            let (from, to) = Histogram::range(*slot);
            (from, to, i64::try_from(*n).unwrap_or(0))
        }).collect();
        prop_assert_eq!(expected, slow);
    }
}
