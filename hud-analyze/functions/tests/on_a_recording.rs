//! The functions on a recorded session, compared with plain SQL over the same tables.
#![allow(clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod support;

use datafusion::prelude::{ParquetReadOptions, SessionContext, col};
use hud_common::session::Table;
use hud_functions::StackBatches;
use support::{block, plan, rows, texts, with_stacks};

fn recording() -> SessionContext {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/session");
    block(async {
        let plain = SessionContext::new();
        let mut stacks = StackBatches::default();
        for (table, batches) in
            [("stacks", &mut stacks.stacks), ("frames", &mut stacks.frames), ("modules", &mut stacks.modules)]
        {
            let path = folder.join(table).display().to_string();
            *batches = plain
                .read_parquet(path, ParquetReadOptions::default())
                .await
                .expect("read")
                .collect()
                .await
                .expect("rows");
        }
        let context = with_stacks(2, 8192, None, stacks);
        for table in Table::ALL {
            let path = folder.join(table.name());
            if path.exists() {
                let options =
                    ParquetReadOptions::default().file_sort_order(vec![vec![col(table.key()).sort(true, false)]]);
                context.register_parquet(table.name(), path.display().to_string(), options).await.expect("registered");
            }
        }
        context
    })
}

/// For each row of the left side, its first cell and the result of `of` for the rows of its tid: (tid, ts, dur), in
/// order.
fn slow(
    context: &SessionContext,
    left: &str,
    right: &str,
    is_met: impl Fn(i64, i64, i64) -> bool,
) -> Vec<Vec<Option<i64>>> {
    let all = rows(context, &format!("SELECT tid, ts, dur FROM {right} ORDER BY ts"));
    let left = rows(context, &format!("SELECT ts, tid FROM {left}"));
    let met = |ts: Option<i64>, tid: Option<i64>| {
        let of_tid = all.iter().rev().filter(|row| row[0] == tid);
        of_tid.map(|row| (row[1].unwrap_or(0), row[2].unwrap_or(0))).find(|row| is_met(ts.unwrap_or(0), row.0, row.1))
    };
    let mut found: Vec<_> = left.iter().map(|row| vec![row[0], row[1], met(row[0], row[1]).map(|met| met.0)]).collect();
    found.sort();
    found
}

#[test]
fn samples_are_found_in_their_polls() {
    let context = recording();
    let sql = "SELECT ts, tid, ts_right FROM within('samples', 'polls', 'tid')";
    let mut found = rows(&context, sql);
    found.sort();
    assert!(found.len() > 100 && found.iter().any(|row| row[2].is_some()), "{}", found.len());
    // Of polls around each other the innermost counts: the one that began last.
    assert_eq!(found, slow(&context, "samples", "polls", |ts, from, dur| from <= ts && ts < from + dur));
    assert!(!plan(&context, sql).contains("SortExec"));
}

#[test]
fn samples_know_the_interval_before_them() {
    let context = recording();
    let mut found = rows(&context, "SELECT ts, tid, ts_right FROM asof('samples', 'off_cpu', 'tid')");
    found.sort();
    assert!(found.len() > 100 && found.iter().any(|row| row[2].is_some()), "{}", found.len());
    assert_eq!(found, slow(&context, "samples", "off_cpu", |ts, from, _| from <= ts));
}

#[test]
fn stacks_have_names_and_culprits() {
    let context = recording();
    let found = texts(&context, "SELECT fold(stack_id) FROM stacks");
    assert!(found.iter().flatten().any(|stack| stack.contains("test_async_app::") && stack.contains(';')), "{found:?}");
    assert_eq!(
        rows(&context, "SELECT count(*), count(DISTINCT stack_id) FROM stack_frames()"),
        rows(
            &context,
            "SELECT total(CAST(cardinality(frame_ids) AS BIGINT)), count(*) FROM stacks WHERE cardinality(frame_ids) > 0"
        )
    );
    let blamed =
        texts(&context, "SELECT blame(stack_id)['function'] FROM samples GROUP BY 1 ORDER BY count(*) DESC LIMIT 3");
    assert!(blamed.iter().flatten().any(|function| function.contains("test_async_app::")), "{blamed:?}");
}

#[test]
fn quantiles_are_near_those_of_sql() {
    let context = recording();
    let found = rows(&context, "SELECT quantile(dur, 0.99), quantile(dur, 0.5), total(dur) - sum(dur) FROM polls");
    let slow = rows(
        &context,
        "SELECT max(dur) FILTER (WHERE r <= ceil(n * 0.99)), max(dur) FILTER (WHERE r <= ceil(n * 0.5)), 0
         FROM (SELECT dur, row_number() OVER (ORDER BY dur) AS r, count(*) OVER () AS n FROM polls)",
    );
    for (found, slow) in found[0].iter().zip(&slow[0]) {
        let (found, slow) = (found.expect("a quantile"), slow.expect("a quantile"));
        assert!((found - slow).abs() <= slow / 32, "{found} {slow}");
    }
}
