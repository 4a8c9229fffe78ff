//! The functions on a session that was recorded, held to plain SQL over the same tables.

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

#[test]
fn samples_are_found_in_their_polls_as_by_an_interval_join() {
    let context = recording();
    let joined = "SELECT s.ts, s.tid, p.ts, p.dur FROM samples s LEFT JOIN polls p
                  ON p.tid = s.tid AND p.ts <= s.ts AND s.ts < p.ts + p.dur ORDER BY s.ts, s.tid, p.ts";
    // Of polls around each other the innermost counts: the one that began last.
    let mut slow: Vec<Vec<Option<i64>>> = Vec::new();
    for row in rows(&context, joined) {
        match slow.last_mut() {
            Some(last) if last[..2] == row[..2] => *last = row,
            _ => slow.push(row),
        }
    }
    let within = "SELECT ts, tid, ts_right, dur FROM within('samples', 'polls', 'tid')";
    let mut told = rows(&context, within);
    told.sort();
    slow.sort();
    assert!(told.len() > 100 && told.iter().any(|row| row[2].is_some()), "{}", told.len());
    assert_eq!(told, slow);
    assert!(!plan(&context, within).contains("SortExec"));
}

#[test]
fn polls_know_the_one_before_as_by_a_window() {
    let context = recording();
    let slow = rows(
        &context,
        "SELECT p.ts, max(e.ts) FROM polls p LEFT JOIN off_cpu e ON e.tid = p.tid AND e.ts <= p.ts GROUP BY p.ts, p.tid ORDER BY p.ts",
    );
    let told = rows(&context, "SELECT ts, ts_right FROM asof('polls', 'off_cpu', 'tid') ORDER BY ts");
    assert!(told.len() > 100 && told.iter().any(|row| row[1].is_some()), "{}", told.len());
    assert_eq!(told, slow);
}

#[test]
fn stacks_have_names_and_culprits() {
    let context = recording();
    let told = texts(&context, "SELECT fold(stack_id) FROM stacks");
    assert!(told.iter().flatten().any(|stack| stack.contains("test_async_app::") && stack.contains(';')), "{told:?}");
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
    let told = rows(&context, "SELECT quantile(dur, 0.99), quantile(dur, 0.5), total(dur) - sum(dur) FROM polls");
    let slow = rows(
        &context,
        "SELECT max(dur) FILTER (WHERE r <= ceil(n * 0.99)), max(dur) FILTER (WHERE r <= ceil(n * 0.5)), 0
         FROM (SELECT dur, row_number() OVER (ORDER BY dur) AS r, count(*) OVER () AS n FROM polls)",
    );
    for (told, slow) in told[0].iter().zip(&slow[0]) {
        let (told, slow) = (told.expect("a quantile"), slow.expect("a quantile"));
        assert!((told - slow).abs() <= slow / 32, "{told} {slow}");
    }
}
