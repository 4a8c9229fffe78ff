//! The views' semantics, row by row, on made-up sessions whose answers can be worked out by hand.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use hud_analyze::view::{self, ALL};
use hud_common::cockpit::Thresholds;
use serde_json::{Value, json};
use support::*;

/// The columns `names` of `rows`.
fn pick(rows: &[Value], names: &[&str]) -> Vec<Vec<Value>> {
    rows.iter()
        .map(|row| names.iter().map(|n| row.get(*n).unwrap_or_else(|| panic!("no {n}")).clone()).collect())
        .collect()
}

macro_rules! rows_of {
    ($($row:tt),* $(,)?) => { vec![$(serde_json::from_value::<Vec<Value>>(json!($row)).unwrap()),*] };
}

#[test]
fn every_header_lists_the_columns_and_the_parameters_of_its_query() {
    let session = Session::new();
    for view in ALL {
        let header = view.header().unwrap();
        let frame = runtime().block_on(async { session.catalog().plan(view, &whole()).await.unwrap() });
        let found: Vec<_> = frame.schema().fields().iter().map(|f| f.name().as_str()).collect();
        let listed: Vec<_> = header.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(listed, found, "columns of {}", view.name);

        let body = view.sql.lines().filter(|l| !l.starts_with("--")).collect::<Vec<_>>().join("\n");
        // The planner sets `$few`.
        let body = body.replace("$few", "few");
        let found: BTreeSet<_> = body
            .split('$')
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
            .collect();
        // The thresholds are parameters of the rules, not of the query.
        let is_threshold = |name: &str| view.name == "findings" && Thresholds::named(name).is_some();
        let listed: BTreeSet<_> =
            header.parameters.iter().map(|p| p.name.as_str()).filter(|name| !is_threshold(name)).collect();
        assert_eq!(listed, found, "parameters of {}", view.name);
    }
}

#[test]
fn units_fit_the_types() {
    use arrow::datatypes::DataType::{Boolean, Float64, Int32, Int64};
    use hud_analyze::view::Unit;
    let session = Session::new();
    for view in ALL {
        let frame = runtime().block_on(async { session.catalog().plan(view, &whole()).await.unwrap() });
        for (column, field) in view.header().unwrap().columns.iter().zip(frame.schema().fields()) {
            let fits = match column.unit {
                Unit::Ns | Unit::EpochNs | Unit::Bytes | Unit::Count => *field.data_type() == Int64,
                Unit::Id => matches!(field.data_type(), Int32 | Int64),
                Unit::Share => *field.data_type() == Float64,
                Unit::Flag => *field.data_type() == Boolean,
                Unit::Text => field.data_type().is_string(),
            };
            assert!(fits, "{}.{} is {:?} and {}", view.name, column.name, column.unit, field.data_type());
        }
    }
}

#[test]
fn every_view_is_empty_on_an_empty_session() {
    let session = Session::new();
    for view in ALL {
        assert_eq!(session.rows(*view, whole()), Vec::<Value>::new(), "{}", view.name);
    }
}

mod hotspots {
    use super::*;

    fn hotspots(session: &Session) -> Vec<Value> {
        session.rows(view::HOTSPOTS, whole())
    }

    #[test]
    fn cpu_time_is_attributed_to_own_code_and_not_to_an_inlined_leaf_of_std() {
        let session = Session::with_cast();
        session.add::<Samples>([
            sample(at(10), W0, HOG, BURN_22),
            sample(at(20), W0, HOG, BURN_23),
            sample(at(30), W0, HOG, BURN_23),
            sample(at(40), W0, SLEEPER, SLEEP),
        ]);
        let rows = pick(
            &hotspots(&session),
            &["function", "file", "line", "task_type", "leaf", "self", "self_share", "total", "samples"],
        );
        assert_eq!(
            rows,
            rows_of![
                ["app::burn", "src/main.rs", 23, "app::hog", "<u64>::wrapping_add", 3 * TICK, 0.75, 3 * TICK, 3],
                ["app::sleeper", "src/main.rs", 12, "app::sleeper", "__nanosleep", TICK, 0.25, TICK, 1],
            ]
        );
    }

    #[test]
    fn by_line_each_line_has_its_own_row() {
        let session = Session::with_cast();
        session.add::<Samples>([
            sample(at(10), W0, HOG, BURN_22),
            sample(at(20), W0, HOG, BURN_23),
            sample(at(30), W0, HOG, BURN_23),
        ]);
        let rows = session.rows(view::HOTSPOTS, whole().flag("lines", true));
        assert_eq!(pick(&rows, &["function", "line", "samples"]), rows_of![["app::burn", 23, 2], ["app::burn", 22, 1]]);
    }

    #[test]
    fn a_stack_that_broke_off_or_is_missing_is_blamed_on_the_type_of_the_task() {
        let session = Session::with_cast();
        session.add::<Samples>([
            sample(at(10), W0, HOG, BROKEN),
            sample(at(20), W0, HOG, NAMELESS),
            sample(at(30), W0, HOG, None),
        ]);
        let rows = hotspots(&session);
        assert_eq!(
            pick(&rows, &["function", "file", "line", "task_type", "samples"]),
            rows_of![["app::hog", "src/main.rs", 20, "app::hog", 3]]
        );
    }

    #[test]
    fn an_own_frame_without_a_line_takes_that_of_the_type() {
        let session = Session::with_cast();
        session.add::<Samples>([sample(at(10), W0, HOG, NO_LINE)]);
        assert_eq!(
            pick(&hotspots(&session), &["function", "file", "line"]),
            rows_of![["app::stripped", "src/main.rs", 20]]
        );
    }

    #[test]
    fn outside_tasks_the_runtime_the_leaf_or_its_module_is_named() {
        let session = Session::with_cast();
        session.add::<Samples>([
            sample(at(10), W0, None, BROKEN),
            sample(at(20), W0, None, BROKEN),
            sample(at(30), W0, None, BROKEN),
            sample(at(40), W0, None, NAMELESS),
            sample(at(41), W0, None, NAMELESS),
            // The worker's own loop is no task.
            sample(at(50), W0, LOOP0, None),
        ]);
        assert_eq!(
            pick(&hotspots(&session), &["function", "task_type", "leaf", "samples"]),
            rows_of![
                ["tokio::runtime::task::raw::poll", null, "tokio::runtime::task::raw::poll", 3],
                ["<libc.so.6>", null, "<libc.so.6>", 2],
                ["<no stack>", null, null, 1],
            ]
        );
    }

    #[test]
    fn total_counts_a_sample_once_however_deep_the_recursion() {
        let session = Session::with_cast();
        session.add::<Samples>([sample(at(10), W0, HOG, RECURSIVE), sample(at(20), W0, HOG, BURN_22)]);
        let rows = hotspots(&session);
        assert_eq!(pick(&rows, &["function", "self", "total"]), rows_of![["app::burn", 2 * TICK, 2 * TICK]]);
    }

    #[test]
    fn it_keeps_to_the_window_the_task_and_the_thread() {
        let session = Session::with_cast();
        session.add::<Samples>([
            sample(at(10), W0, HOG, BURN_22),
            sample(at(20), W1, SLEEPER, SLEEP),
            sample(at(30), W0, SLEEPER, SLEEP),
        ]);
        let samples = |arguments| -> i64 {
            session.rows(view::HOTSPOTS, arguments).iter().map(|r| r["samples"].as_i64().unwrap()).sum()
        };
        assert_eq!(samples(whole()), 3);
        assert_eq!(samples(between(at(10), at(30))), 2);
        assert_eq!(samples(whole().int("task", SLEEPER)), 2);
        assert_eq!(samples(whole().int("thread", i64::from(W0))), 2);
        assert_eq!(samples(whole().int("task", HOG).int("thread", i64::from(W1))), 0);
    }
}

mod blocking {
    use super::*;

    #[test]
    fn each_sleep_counts_once_with_the_time_asleep_and_not_the_wait_for_a_cpu() {
        let session = Session::with_cast();
        session.add::<OffCpu>([
            sleep(at(100), W0, SLEEPER, 15 * MS, 4 * MS),
            sleep(at(200), W1, SLEEPER, 17 * MS, 0),
            // No waking was seen: asleep to the end.
            format::OffCpuRow { run_queue: None, ..sleep(at(300), W1, SLEEPER, 16 * MS, 0) },
            // None of these: too short, preempted, outside a task, in the pool, in the worker's own loop.
            sleep(at(400), W0, SLEEPER, MS - 1, 50 * MS),
            preempted(at(500), W0, SLEEPER, 30 * MS),
            sleep(at(600), W0, None, 90 * MS, 0),
            sleep(at(700), POOL, WORK, 90 * MS, 0),
            sleep(at(800), W0, LOOP0, 90 * MS, 0),
        ]);
        let each = session.rows(view::BLOCKING_EACH, whole());
        assert_eq!(
            pick(
                &each,
                &[
                    "ts",
                    "dur",
                    "cause",
                    "estimated",
                    "function",
                    "file",
                    "line",
                    "task_type",
                    "task_id",
                    "tid",
                    "thread"
                ]
            ),
            rows_of![
                [
                    at(200),
                    17 * MS,
                    "blocked",
                    false,
                    "app::sleeper",
                    "src/main.rs",
                    12,
                    "app::sleeper",
                    SLEEPER,
                    W1,
                    "tokio-rt-worker"
                ],
                [
                    at(300),
                    16 * MS,
                    "blocked",
                    false,
                    "app::sleeper",
                    "src/main.rs",
                    12,
                    "app::sleeper",
                    SLEEPER,
                    W1,
                    "tokio-rt-worker"
                ],
                [
                    at(100),
                    15 * MS,
                    "blocked",
                    false,
                    "app::sleeper",
                    "src/main.rs",
                    12,
                    "app::sleeper",
                    SLEEPER,
                    W0,
                    "tokio-rt-worker"
                ],
            ]
        );
        let culprits = session.rows(view::BLOCKING, whole());
        assert_eq!(
            pick(
                &culprits,
                &[
                    "cause", "count", "total", "median", "p99", "longest", "first_ts", "last_ts", "worst_ts",
                    "task_id", "tid", "line"
                ]
            ),
            rows_of![["blocked", 3, 48 * MS, 16 * MS, 16_980_000, 17 * MS, at(100), at(300), at(200), SLEEPER, W1, 12]]
        );
    }

    #[test]
    fn a_sleep_of_a_task_of_unknown_type_counts_by_own_code_on_a_workers_thread() {
        let session = Session::with_cast();
        session.add::<OffCpu>([
            sleep(at(100), W0, 99, 15 * MS, 0),
            // It may be a worker's own loop.
            format::OffCpuRow { stack_id: Some(BROKEN), ..sleep(at(200), W0, 99, 14 * MS, 0) },
            format::OffCpuRow { stack_id: None, ..sleep(at(300), W0, 99, 13 * MS, 0) },
            // It may be work of the pool.
            sleep(at(400), POOL, 98, 15 * MS, 0),
        ]);
        assert_eq!(
            pick(&session.rows(view::BLOCKING_EACH, whole()), &["ts", "function", "task_type"]),
            rows_of![[at(100), "app::sleeper", null]]
        );
        assert_eq!(pick(&session.rows(view::FINDINGS, whole()), &["rule", "value"]), rows_of![["long_poll", 15 * MS]]);
    }

    #[test]
    fn what_a_worker_does_in_block_in_place_keeps_no_task_waiting() {
        let session = Session::with_cast();
        let role = |ms: i64, role: &'static str| format::ThreadRow { ts: at(ms), ..thread(W1, "tokio", role, Some(1)) };
        // From 100 ms on another thread had the core of W1; at 500 ms it was a worker again.
        session.add::<format::ThreadColumns>([role(100, "blocking"), role(500, "worker")]);
        session.add::<format::FrameColumns>([
            frame(70, Some("tokio::task::blocking::block_in_place"), "tokio", None),
            frame(71, Some("tokio::runtime::task::raw::poll"), "tokio", None),
            frame(72, Some("app::sleeper"), "own", None),
        ]);
        let stack = |stack_id, frame_ids: &[i64]| format::StackRow {
            stack_id,
            frame_ids: frame_ids.to_vec(),
            unwind: "complete".into(),
        };
        // Called by the task; and far out, where it runs the worker which polls the task.
        session.add::<format::StackColumns>([stack(70, &[72, 70, 72, 71]), stack(71, &[72, 71, 70, 71])]);
        session.add::<OffCpu>([
            sleep(at(90), W1, SLEEPER, 30 * MS, 0),
            sleep(at(200), W1, SLEEPER, 31 * MS, 0),
            sleep(at(600), W1, SLEEPER, 20 * MS, 0),
            format::OffCpuRow { stack_id: Some(70), ..sleep(at(100), W0, SLEEPER, 32 * MS, 0) },
            format::OffCpuRow { stack_id: Some(71), ..sleep(at(200), W0, SLEEPER, 21 * MS, 0) },
        ]);
        session.add::<Polls>([poll(at(1_000), W1, SLEEPER, 2, 5 * MS), poll(at(300), W1, SLEEPER, 2, 50 * MS)]);
        session.add::<Coverage>([covered("polls", at(300), at(400))]);
        assert_eq!(
            pick(&session.rows(view::BLOCKING_EACH, whole()), &["ts", "dur"]),
            rows_of![[at(200), 21 * MS], [at(600), 20 * MS]]
        );
        let found = session.rows(view::FINDINGS, whole());
        assert_eq!(pick(&found, &["rule", "value", "count"]), rows_of![["long_poll", 21 * MS, 2]]);
        let blocked = session.rows(view::WORKERS, whole());
        assert_eq!(pick(&blocked, &["tid", "blocked"]), rows_of![[W0, 21 * MS], [W1, 20 * MS]]);
    }

    #[test]
    fn short_sleeps_are_added_up() {
        let session = Session::with_cast();
        let short = |n: i64| sleep(at(100) + n * MS, W0, SLEEPER, 270_000, 40_000);
        session.add::<OffCpu>((0..1_300).map(short));
        // Only the sum of these is known.
        session.add::<OffCpu>([format::OffCpuRow {
            state: "+".into(),
            stack_id: None,
            intervals: Some(100),
            ..sleep(at(2_000), W1, HOG, 30 * MS, 5 * MS)
        }]);
        // Too little, and work of the pool.
        session.add::<OffCpu>([sleep(at(3_000), W1, CITIZEN, 999_999, 0), sleep(at(3_000), POOL, WORK, 999_999, 0)]);
        let columns =
            ["cause", "spans", "count", "total", "median", "longest", "estimated", "function", "task_type", "tid"];
        assert_eq!(
            pick(&session.rows(view::BLOCKING, whole()), &columns),
            rows_of![
                [
                    "blocked",
                    "short sleeps",
                    1_300,
                    351 * MS,
                    270_000,
                    270_000,
                    false,
                    "app::sleeper",
                    "app::sleeper",
                    W0
                ],
                ["blocked", "short sleeps", 100, 30 * MS, 300_000, 300_000, true, "app::hog", "app::hog", W1]
            ]
        );
        assert_eq!(session.rows(view::BLOCKING_EACH, whole()), Vec::<Value>::new());
        let found = session.rows(view::FINDINGS, whole());
        assert_eq!(
            pick(&found, &["rule", "sentence", "value", "count", "task_type"]),
            rows_of![[
                "short_sleeps",
                "app::sleeper slept inside polls 1300 times for less than 10 ms, 351 ms in total, most of it in app::sleeper (main.rs:12)",
                351 * MS,
                1_300,
                "app::sleeper"
            ]]
        );
        // Sums count as what they sum up.
        let waits = session.rows(view::RUN_QUEUE, whole());
        assert_eq!(
            pick(&waits, &["task_type", "waits", "total", "longest"]),
            rows_of![["app::sleeper", 1_300, 52 * MS, 40_000], ["app::hog", 100, 5 * MS, 50_000]]
        );
        let slept = session.rows(view::OFF_CPU_FLAME, whole());
        let of_hog = slept.iter().find(|r| r["task_type"] == "app::hog").unwrap();
        assert_eq!((&of_hog["sleeps"], &of_hog["stack"]), (&json!(100), &json!("<no stack>")));
        let spent = session.rows(view::HOTSPOTS_BY, whole().flag("states", true));
        let of_hog = spent.iter().find(|r| r["task_type"] == "app::hog" && r["state"] == "asleep").unwrap();
        assert_eq!(of_hog["count"], 100);
    }

    #[test]
    fn without_polls_a_task_is_found_by_its_share_of_a_worker() {
        let session = Session::with_cast();
        session.add::<Samples>((0..500).map(|n| sample(at(2_000 + 10 * n), W0, HOG, BURN_22)));
        session.add::<Coverage>([covered("polls", at(0), at(2_000))]);
        // From 7 s on there is no event at all.
        let found = session.rows(view::FINDINGS, whole());
        assert_eq!(
            pick(&found, &["rule", "sentence", "value", "count", "estimated", "task_id", "tid"]),
            rows_of![[
                "cpu_share",
                "app::hog took 99.8 % of the time of worker 0 in the 5.00 s in which polls were not recorded, most of it in \
                 app::burn (main.rs:22)",
                998,
                500,
                true,
                HOG,
                W0
            ]]
        );
        let rows = session.rows(view::BLOCKING, whole());
        assert_eq!(
            pick(&rows, &["cause", "spans", "count", "total", "estimated"]),
            rows_of![["cpu", "one poll or several", 1, 499 * TICK, true]]
        );
    }

    #[test]
    fn a_long_poll_counts_by_its_computing_and_is_attributed_by_its_samples() {
        let session = Session::with_cast();
        session.add::<Coverage>([covered("polls", at(0), at(10_000))]).add::<Polls>([
            poll(at(100), W0, HOG, 3, 20 * MS),
            // 30 ms, 12 of them computing.
            format::PollRow { blocked: 10 * MS, run_queue: 8 * MS, ..poll(at(200), W0, HOG, 3, 30 * MS) },
            // 30 ms, 9 of them computing.
            format::PollRow { blocked: 21 * MS, ..poll(at(300), W0, HOG, 3, 30 * MS) },
            poll(at(400), W0, CITIZEN, 1, MS),
            poll(at(500), POOL, WORK, 4, 90 * MS),
            poll(at(0), W1, LOOP1, 5, 9_000 * MS),
        ]);
        session.add::<Samples>([
            // Before it, in it (two lines, the second more often), after it, and on another thread.
            sample(at(99), W0, HOG, SLEEP),
            sample(at(105), W0, HOG, BURN_22),
            sample(at(110), W0, HOG, BURN_23),
            sample(at(115), W0, HOG, BURN_23),
            sample(at(121), W0, HOG, SLEEP),
            sample(at(106), W1, HOG, SLEEP),
            sample(at(107), W1, HOG, SLEEP),
            sample(at(108), W1, HOG, SLEEP),
        ]);
        assert_eq!(
            pick(
                &session.rows(view::BLOCKING_EACH, whole()),
                &["ts", "dur", "cause", "estimated", "function", "line", "task_type", "task_id", "tid"]
            ),
            rows_of![
                [at(100), 20 * MS, "cpu", false, "app::burn", 23, "app::hog", HOG, W0],
                [at(200), 12 * MS, "cpu", false, "app::hog", 20, "app::hog", HOG, W0],
            ]
        );
    }

    #[test]
    fn a_line_that_sleeps_is_a_culprit_and_so_is_a_function_that_computes() {
        let session = Session::with_cast();
        session
            .add::<format::FrameColumns>([frame(20, Some("app::sleeper"), "own", Some(("src/main.rs", 14)))])
            .add::<format::StackColumns>([format::StackRow {
                stack_id: 20,
                frame_ids: vec![1, 2, 20],
                unwind: "complete".into(),
            }])
            .add::<Coverage>([covered("polls", at(0), at(10_000))])
            .add::<OffCpu>([
                sleep(at(100), W0, SLEEPER, 15 * MS, 0),
                format::OffCpuRow { stack_id: Some(20), ..sleep(at(200), W0, SLEEPER, 16 * MS, 0) },
            ])
            .add::<Polls>([poll(at(300), W0, HOG, 3, 20 * MS), poll(at(400), W0, HOG, 3, 21 * MS)])
            .add::<Samples>([sample(at(305), W0, HOG, BURN_22), sample(at(405), W0, HOG, BURN_23)]);
        assert_eq!(
            pick(&session.rows(view::BLOCKING, whole()), &["cause", "function", "line", "count", "total"]),
            rows_of![
                ["cpu", "app::burn", 23, 2, 41 * MS],
                ["blocked", "app::sleeper", 14, 1, 16 * MS],
                ["blocked", "app::sleeper", 12, 1, 15 * MS],
            ]
        );
    }

    #[test]
    fn without_polls_consecutive_samples_of_a_task_are_an_estimate() {
        let session = Session::with_cast();
        session.add::<Samples>([
            // Three ticks of work, preempted between: one interval.
            sample(at(100), W0, HOG, BURN_22),
            sample(at(110), W0, HOG, BURN_22),
            sample(at(140), W0, HOG, BURN_22),
            // Another task between ends it, and one sample is none.
            sample(at(150), W0, CITIZEN, None),
            sample(at(160), W0, HOG, BURN_22),
            // So does a sample outside a task.
            sample(at(170), W0, None, None),
            // So does a sleep: two islands of one sample.
            sample(at(200), W0, HOG, BURN_22),
            sample(at(210), W0, HOG, BURN_22),
            // Two samples of a migrated thread, almost at once, prove no long interval.
            sample(at(300), W1, HOG, BURN_22),
            sample(at(302), W1, HOG, BURN_22),
            // The pool may work.
            sample(at(400), POOL, WORK, BURN_22),
            sample(at(410), POOL, WORK, BURN_22),
        ]);
        session.add::<OffCpu>([
            preempted(at(111), W0, HOG, 20 * MS),
            format::OffCpuRow { dur: 10_000, run_queue: None, ..sleep(at(205), W0, None, 0, 0) },
            // Another thread's sleep is no matter.
            sleep(at(105), W1, None, MS, 0),
        ]);
        assert_eq!(
            pick(
                &session.rows(view::BLOCKING_EACH, whole()),
                &["ts", "dur", "cause", "estimated", "function", "line", "task_type", "task_id", "tid"]
            ),
            // Between the first and the last sample, less what it was off CPU.
            rows_of![[at(100), 2 * TICK, "cpu", true, "app::burn", 22, "app::hog", HOG, W0]]
        );
    }

    #[test]
    fn where_polls_were_recorded_samples_add_nothing() {
        let session = Session::with_cast();
        let burst = |ms: i64| (0..3).map(move |i| sample(at(ms + 10 * i), W0, HOG, BURN_22));
        session.add::<Samples>(burst(100).chain(burst(2_000)));
        session.add::<Coverage>([covered("polls", at(0), at(1_000)), covered("off_cpu", at(0), at(10_000))]);
        assert_eq!(
            pick(&session.rows(view::BLOCKING_EACH, whole()), &["ts", "dur", "estimated"]),
            rows_of![[at(2_000), 2 * TICK, true]]
        );
    }

    #[test]
    fn thresholds_window_task_and_thread_hold() {
        let session = Session::with_cast();
        session.add::<OffCpu>([
            sleep(at(100), W0, SLEEPER, 15 * MS, 0),
            sleep(at(200), W1, SLEEPER, 5 * MS, 0),
            sleep(at(300), W0, HOG, 2 * MS, 0),
        ]);
        let count = |arguments| session.rows(view::BLOCKING_EACH, arguments).len();
        assert_eq!(count(whole()), 3);
        assert_eq!(count(whole().int("asleep", 5 * MS)), 2);
        assert_eq!(count(between(at(101), at(301))), 2);
        assert_eq!(count(between(at(100), at(300))), 2);
        assert_eq!(count(whole().int("task", HOG)), 1);
        assert_eq!(count(whole().int("thread", i64::from(W1))), 1);
    }
}

mod workers {
    use super::*;

    /// One second of worker 0: 100 ms idle, 200 running, 300 blocked in a task, 50 waiting, 350 running.
    fn a_second() -> Session {
        let session = Session::with_cast();
        session.add::<OffCpu>([
            sleep(at(1_000), W0, LOOP0, 100 * MS, 0),
            sleep(at(1_300), W0, SLEEPER, 300 * MS, 30 * MS),
            preempted(at(1_700), W0, HOG, 20 * MS),
            // Not the worker's.
            sleep(at(1_000), POOL, WORK, 900 * MS, 0),
        ]);
        session.add::<Samples>([sample(at(2_000), W0, HOG, BURN_22)]);
        session
    }

    const STATES: [&str; 6] = ["tid", "observed", "running", "blocked", "waiting", "idle"];

    #[test]
    fn each_moment_of_a_worker_is_in_one_state() {
        let rows = a_second().rows(view::WORKERS, whole());
        assert_eq!(
            pick(&rows, &STATES),
            rows_of![
                [W0, 1_000 * MS, 550 * MS, 300 * MS, 50 * MS, 100 * MS],
                // Never seen to do anything.
                [W1, 0, 0, 0, 0, 0],
            ]
        );
        assert_eq!(
            pick(&rows[..1], &["worker", "runtime_id", "thread", "running_share", "blocked_share", "polls"]),
            rows_of![[0, 0, "tokio-rt-worker", 0.55, 0.3, null]]
        );
        assert_eq!(rows[1]["running_share"], Value::Null);
    }

    #[test]
    fn an_interval_is_cut_at_the_borders_of_the_window() {
        let session = a_second();
        // Inside the sleep, past its end by 10 ms of waiting.
        assert_eq!(
            pick(&session.rows(view::WORKERS, between(at(1_400), at(1_610)))[..1], &STATES),
            rows_of![[W0, 210 * MS, 0, 200 * MS, 10 * MS, 0]]
        );
        // Where nothing begins and nothing ends.
        assert_eq!(
            pick(&session.rows(view::WORKERS, between(at(1_800), at(1_900)))[..1], &STATES),
            rows_of![[W0, 100 * MS, 100 * MS, 0, 0, 0]]
        );
        // Half of it before the worker was first seen.
        assert_eq!(
            pick(&session.rows(view::WORKERS, between(at(950), at(1_050)))[..1], &STATES),
            rows_of![[W0, 50 * MS, 0, 0, 0, 50 * MS]]
        );
    }

    #[test]
    fn polls_are_counted_where_they_were_recorded() {
        let session = a_second();
        session.add::<Coverage>([covered("polls", at(0), at(10_000))]).add::<Polls>([
            poll(at(1_200), W0, HOG, 3, 5 * MS),
            poll(at(1_250), W0, CITIZEN, 1, MS),
            poll(at(1_000), W0, LOOP0, 5, 900 * MS),
        ]);
        let rows = session.rows(view::WORKERS, whole());
        assert_eq!(pick(&rows, &["tid", "polls", "longest_poll"]), rows_of![[W0, 2, 5 * MS], [W1, 0, null]]);
        assert_eq!(session.rows(view::WORKERS, whole().int("thread", i64::from(W1))).len(), 1);
    }
}

mod timeline {
    use super::*;

    #[test]
    fn what_crosses_steps_is_split_between_them() {
        let session = Session::with_cast();
        session
            .add::<OffCpu>([
                sleep(at(1_000), W0, None, 500 * MS, 0),
                // From the second step through the third to the fourth.
                sleep(at(1_900), W0, SLEEPER, 1_300 * MS, 100 * MS),
            ])
            .add::<Coverage>([covered("polls", at(0), at(10_000))])
            .add::<Polls>([
                format::PollRow {
                    blocked: 1_300 * MS,
                    run_queue: 100 * MS,
                    ..poll(at(1_850), W0, SLEEPER, 2, 1_460 * MS)
                },
                poll(at(1_700), W0, CITIZEN, 1, 10 * MS),
                poll(at(3_320), W0, HOG, 3, 680 * MS),
            ]);
        assert_eq!(
            pick(
                &session.rows(view::TIMELINE, whole()),
                &["ts", "dur", "tid", "running", "blocked", "waiting", "idle", "polls", "longest_poll", "task_type"]
            ),
            rows_of![
                [at(1_000), 1_000 * MS, W0, 400 * MS, 100 * MS, 0, 500 * MS, 2, 1_460 * MS, "app::sleeper"],
                [at(2_000), 1_000 * MS, W0, 0, 1_000 * MS, 0, 0, 0, 1_460 * MS, "app::sleeper"],
                [at(3_000), 1_000 * MS, W0, 700 * MS, 200 * MS, 100 * MS, 0, 1, 1_460 * MS, "app::hog"],
            ]
        );
    }

    #[test]
    fn its_steps_add_up_to_the_workers_view() {
        let session = Session::with_cast();
        session.add::<OffCpu>((0..400).map(|i| {
            let tid = if i % 2 == 0 { W0 } else { W1 };
            let task = match i % 3 {
                0 => None,
                1 => Some(SLEEPER),
                _ => Some(LOOP0),
            };
            sleep(at(i * 23 + i % 7), tid, task, (i * 31 % 17 + 1) * MS, (i % 5) * MS)
        }));
        session.add::<Samples>((0..900).map(|i| sample(at(i * 10), if i % 2 == 0 { W0 } else { W1 }, HOG, BURN_22)));
        // No multiple of the step, and not at its borders.
        let window = between(at(1_003), at(8_777)).int("step", 70 * MS);
        let steps = session.rows(view::TIMELINE, window.clone());
        for worker in session.rows(view::WORKERS, window) {
            for state in ["running", "blocked", "waiting", "idle"] {
                let sum: i64 =
                    steps.iter().filter(|s| s["tid"] == worker["tid"]).map(|s| s[state].as_i64().unwrap()).sum();
                assert_eq!(worker[state], sum, "{state} of {}", worker["tid"]);
            }
        }
    }

    #[test]
    fn without_polls_steps_are_attributed_by_samples_and_sleeps() {
        let session = Session::with_cast();
        session
            .add::<OffCpu>([sleep(at(1_100), W0, SLEEPER, 15 * MS, 0)])
            .add::<Samples>([sample(at(1_050), W0, HOG, BURN_22), sample(at(2_050), W0, HOG, BURN_22)]);
        assert_eq!(
            pick(&session.rows(view::TIMELINE, whole()), &["ts", "polls", "task_type"]),
            rows_of![[at(1_000), null, "app::sleeper"], [at(2_000), null, "app::hog"]]
        );
    }
}

mod tasks {
    use super::*;

    fn session() -> Session {
        let session = Session::with_cast();
        session
            .add::<Coverage>([covered("polls", at(0), at(10_000))])
            .add::<Polls>([
                poll(at(100), W0, HOG, 3, 20 * MS),
                poll(at(200), W0, HOG, 3, 30 * MS),
                poll(at(300), W1, CITIZEN, 1, MS),
                poll(at(310), W1, CITIZEN, 1, 2 * MS),
                poll(at(320), W1, CITIZEN + 100, 1, 3 * MS),
                format::PollRow { blocked: 15 * MS, run_queue: MS, ..poll(at(400), W0, SLEEPER, 2, 18 * MS) },
                poll(at(0), W0, LOOP0, 5, 9_000 * MS),
                poll(at(500), POOL, WORK, 4, 4 * MS),
            ])
            .add::<OffCpu>([
                sleep(at(401), W0, SLEEPER, 15 * MS, MS),
                preempted(at(450), W0, SLEEPER, MS),
                sleep(at(600), W0, LOOP0, 15 * MS, MS),
            ])
            .add::<Samples>([
                sample(at(105), W0, HOG, BURN_22),
                sample(at(115), W0, HOG, BURN_22),
                // Of a task without other rows.
                sample(at(700), W0, 999, BURN_22),
            ]);
        session
    }

    #[test]
    fn a_task_is_summed_up_from_all_its_rows() {
        assert_eq!(
            pick(
                &session().rows(view::TASKS, whole()),
                &[
                    "task_id",
                    "task_type",
                    "polls",
                    "busy",
                    "blocked",
                    "longest_poll",
                    "cpu",
                    "samples",
                    "first_seen",
                    "last_seen",
                    "kind"
                ]
            ),
            rows_of![
                [HOG, "app::hog", 2, 50 * MS, 0, 30 * MS, 2 * TICK, 2, at(1), at(230), "task"],
                [WORK, "app::pool_work", 1, 4 * MS, 0, 4 * MS, 0, 0, at(1), at(504), "blocking"],
                [CITIZEN, "app::citizen", 2, 3 * MS, 0, 2 * MS, 0, 0, at(1), at(312), "task"],
                [CITIZEN + 100, "app::citizen", 1, 3 * MS, 0, 3 * MS, 0, 0, at(320), at(323), "task"],
                [SLEEPER, "app::sleeper", 1, 2 * MS, 15 * MS, 18 * MS, 0, 0, at(1), at(451), "task"],
                [999, null, 0, 0, 0, null, TICK, 1, at(700), at(700), null],
            ]
        );
        assert_eq!(session().rows(view::TASKS, whole().int("task", HOG)).len(), 1);
    }

    #[test]
    fn figures_not_recorded_are_null_and_not_zero() {
        let session = Session::with_cast();
        session.add::<Samples>([sample(at(105), W0, HOG, BURN_22)]);
        let rows = session.rows(view::TASKS, whole().int("task", HOG));
        assert_eq!(pick(&rows, &["polls", "busy", "longest_poll", "cpu"]), rows_of![[null, null, null, TICK]]);
        let rows = session.rows(view::TASKS_BY_TYPE, whole());
        assert_eq!(
            pick(&rows[..1], &["task_type", "polls", "median", "busy", "cpu"]),
            rows_of![["app::hog", null, null, null, TICK]]
        );
    }

    #[test]
    fn by_type_polls_have_their_median_and_p99() {
        assert_eq!(
            pick(
                &session().rows(view::TASKS_BY_TYPE, whole()),
                &[
                    "task_type",
                    "tasks",
                    "polls",
                    "median",
                    "p99",
                    "longest_poll",
                    "busy",
                    "blocked",
                    "cpu",
                    "samples",
                    "line",
                    "kind"
                ]
            ),
            rows_of![
                ["app::hog", 1, 2, 20_054_015, 30 * MS, 30 * MS, 50 * MS, 0, 2 * TICK, 2, 20, "task"],
                ["app::citizen", 2, 3, 2_007_039, 2_998_271, 3 * MS, 6 * MS, 0, 0, 0, 5, "task"],
                ["app::pool_work", 1, 1, 4 * MS, 4 * MS, 4 * MS, 4 * MS, 0, 0, 0, 30, "blocking"],
                ["app::sleeper", 1, 1, 17_956_863, 17_956_863, 18 * MS, 2 * MS, 15 * MS, 0, 0, 10, "task"],
                [null, 1, 0, null, null, null, 0, 0, TICK, 1, null, null],
            ]
        );
    }

    #[test]
    fn a_type_under_two_ids_is_one_type() {
        let session = Session::with_cast();
        session.add::<format::TaskTypeColumns>([format::TaskTypeRow {
            scheduler: Some("current_thread".into()),
            ..task_type(6, "app::citizen", "task", 5)
        }]);
        session
            .add::<Coverage>([covered("polls", at(0), at(10_000))])
            .add::<Polls>([poll(at(1), W0, 50, 6, MS), poll(at(2), W0, CITIZEN, 1, MS)]);
        let rows = session.rows(view::TASKS_BY_TYPE, whole());
        assert_eq!(pick(&rows[..1], &["task_type", "tasks", "polls"]), rows_of![["app::citizen", 2, 2]]);
    }
}
