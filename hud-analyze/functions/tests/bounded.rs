//! DataFusion's functions with unbounded results: within the limit their results are unchanged, beyond it they fail
//! without allocating memory first.
#![allow(clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod support;

use datafusion::prelude::SessionContext;
use hud_functions::bounded;
use support::{context, failure, rows, texts};

const LIMIT: usize = 1 << 20;

fn bounded() -> SessionContext {
    let context = context(1, 8192);
    bounded::hold(&context, LIMIT).expect("held");
    context
}

#[test]
fn results_beyond_the_bound_are_refused() {
    let context = bounded();
    for sql in [
        "SELECT length(repeat('x', 2000000000))",
        "SELECT sum(length(repeat('abc', value))) FROM generate_series(1, 10000)",
        "SELECT cardinality(range(0, 1000000000))",
        "SELECT cardinality(generate_series(0, 1000000000))",
        "SELECT cardinality(range(9000000000, -9000000000, -1))",
        "SELECT cardinality(range(DATE '1900-01-01', DATE '2100-01-01', INTERVAL '1' DAY))",
        "SELECT cardinality(generate_series(TIMESTAMP '2020-01-01', TIMESTAMP '2100-01-01', INTERVAL '1' SECOND))",
        "SELECT cardinality(range(DATE '2000-01-01', DATE '2100-01-01', INTERVAL '1 month -30 days'))",
        "SELECT sum(cardinality(range(0, value))) FROM generate_series(1, 10000)",
        "SELECT length(lpad('x', 1000000000))",
        "SELECT length(rpad('x', 1000000000, 'ab'))",
        "SELECT cardinality(array_repeat(1, 1000000000))",
        "SELECT cardinality(list_repeat('abc', 1000000000))",
        "SELECT cardinality(array_resize([1, 2], 1000000000))",
        "SELECT length(replace(repeat('a', 100000), 'a', repeat('b', 100000)))",
        "SELECT length(regexp_replace(repeat('a', 100000), 'a', repeat('b', 100000), 'g'))",
        "SELECT length(concat(a, a, a, a)) FROM (SELECT repeat('a', 500000) AS a)",
        "SELECT length(concat_ws(a, a, a)) FROM (SELECT repeat('a', 500000) AS a)",
        "SELECT length(a || a || a) FROM (SELECT repeat('a', 500000) AS a)",
        "SELECT length(array_to_string(range(0, 10000), repeat('-', 10000)))",
        "SELECT cardinality([a, a, a]) FROM (SELECT repeat('a', 500000) AS a)",
    ] {
        let why = failure(&context, sql);
        assert!(why.contains("Resources exhausted") && why.contains("--memory"), "{sql}: {why}");
    }
}

#[test]
fn results_within_the_bound_are_as_before() {
    let (bounded, plain) = (bounded(), context(1, 8192));
    for sql in [
        "SELECT sum(length(repeat('ab', value % 10))) FROM generate_series(1, 10000)",
        "SELECT cardinality(range(5)) + cardinality(range(3, 9)) + cardinality(generate_series(9, 3, -2))",
        "SELECT cardinality(range(DATE '2000-01-01', DATE '2000-03-01', INTERVAL '1' MONTH))",
        "SELECT cardinality(array_repeat(value, 3)) FROM generate_series(1, 3)",
        "SELECT sum(length(replace(repeat('ab', 50), 'b', repeat('c', value % 3)))) FROM generate_series(1, 10000)",
        "SELECT sum(length(regexp_replace(repeat('ab', 50), 'b', 'ccc'))) FROM generate_series(1, 10000)",
        "SELECT sum(cardinality(array_resize([value], 3))) FROM generate_series(1, 3)",
        "SELECT repeat(NULL, 3) IS NULL AND cardinality(range(0, NULL)) IS NULL",
    ] {
        assert_eq!(rows(&bounded, sql), rows(&plain, sql), "{sql}");
    }
    for sql in [
        "SELECT 'a' || 'b' || NULL",
        "SELECT 'a' || value FROM generate_series(1, 3)",
        "SELECT value || '-' || value AS x FROM generate_series(1, 3) GROUP BY value || '-' || value ORDER BY x",
        "SELECT lpad('x', 3, 'é') || rpad('x', 3)",
        "SELECT concat('a', NULL, 'b') || concat_ws('-', 'a', NULL, 'b')",
        "SELECT array_to_string([1, 2, NULL], '-', 'none')",
        "SELECT array_to_string([1] || [2] || 3, '-')",
    ] {
        assert_eq!(texts(&bounded, sql), texts(&plain, sql), "{sql}");
    }
}
