//! The program from outside: its output, streams and exit codes.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::Read as _,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicI64, Ordering},
};

use hud_analyze::catalog::Catalog;
use serde_json::{Value, json};
use support::*;

const VIEWS: [&[&str]; 8] = [
    &["hotspots"],
    &["hotspots", "--lines"],
    &["blocking"],
    &["blocking", "--each"],
    &["workers"],
    &["tasks"],
    &["tasks", "--each"],
    &["timeline"],
];

fn hud(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hud-analyze")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// It worked, and reported nothing but streams that were recorded for a part of the time.
fn good(args: &[&str]) -> String {
    let output = hud(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_coverage = |line: &str| line.starts_with("note: recorded: ") || line.starts_with("note: not recorded: ");
    assert!(output.status.success() && stderr.lines().all(is_coverage), "{args:?}: {stderr}");
    stdout(&output).to_string()
}

/// It failed with this code and one line, which is returned, and printed nothing else.
fn bad(code: i32, args: &[&str]) -> String {
    let output = hud(args);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stdout(&output), "", "{args:?}");
    let line = stderr.strip_suffix('\n').unwrap();
    assert!(line.starts_with("hud-analyze: ") && !line.contains('\n'), "{args:?}: {stderr:?}");
    line.strip_prefix("hud-analyze: ").unwrap().to_string()
}

/// The manifest while a session is recorded, and ever after where its recorder is killed.
fn unfinished() -> format::Manifest {
    format::Manifest { end: None, end_reason: None, complete: false, ..manifest() }
}

fn path(session: &Session) -> &str {
    session.path.to_str().unwrap()
}

mod formats {
    use super::*;

    fn culprits() -> Session {
        let session = Session::with_cast();
        session.add::<OffCpu>([sleep(at(1_100), W0, SLEEPER, 15 * MS, 0), sleep(at(1_200), W0, SLEEPER, 17 * MS, 0)]);
        session
    }

    #[test]
    fn people_get_units() {
        let session = culprits();
        let text = good(&["blocking", path(&session), "--each"]);
        let lines: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ts", "dur", "cause", "spans", "estimated", "function", "file:line", "task_type"]);
        assert_eq!(
            lines[1],
            [
                "22:13:21.200",
                "17.0",
                "ms",
                "blocked",
                "one",
                "poll",
                "false",
                "app::sleeper",
                "src/main.rs:12",
                "app::sleeper"
            ]
        );
        assert!(!text.contains('\x1b'), "colours in a pipe");
    }

    #[test]
    fn rows_are_sorted_by_any_column() {
        let session = culprits();
        let durs = |sort: &str| -> Vec<i64> {
            let text = good(&["blocking", path(&session), "--each", "--format", "json", "--sort", sort]);
            let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
            rows.iter().map(|row| row["dur"].as_i64().unwrap()).collect()
        };
        assert_eq!(durs("dur"), [15 * MS, 17 * MS]);
        assert_eq!(durs("dur:desc"), [17 * MS, 15 * MS]);
        assert_eq!(durs("cause,ts"), [15 * MS, 17 * MS]);
        let why = bad(2, &["blocking", path(&session), "--each", "--sort", "length"]);
        assert!(why.starts_with("--sort: there is no column \"length\"") && why.contains("ts, dur, cause, "), "{why}");
        // What is drawn by default is a table then.
        assert!(good(&["timeline", path(&session), "--sort", "running:desc"]).trim_start().starts_with("ts "));
    }

    #[test]
    fn programs_get_integers() {
        let session = culprits();
        let rows: Vec<Value> =
            serde_json::from_str(&good(&["blocking", path(&session), "--each", "--format", "json"])).unwrap();
        assert_eq!(
            rows[0],
            json!({
                "ts": at(1_200), "dur": 17 * MS, "cause": "blocked", "spans": "one poll", "estimated": false,
                "in_progress": null, "function": "app::sleeper", "file": "src/main.rs", "line": 12, "task_type": "app::sleeper", "task_id": SLEEPER, "tid": W0,
                "thread": "tokio-rt-worker",
            })
        );
        let lines = good(&["blocking", path(&session), "--each", "--format", "ndjson"]);
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines, rows);
        let csv = good(&["blocking", path(&session), "--each", "--format", "csv"]);
        assert_eq!(
            csv.lines().nth(1).unwrap(),
            format!(
                "{},17000000,blocked,one poll,false,,app::sleeper,src/main.rs,12,app::sleeper,12,101,tokio-rt-worker",
                at(1_200)
            )
        );
        let arrow = hud(&["blocking", path(&session), "--each", "--format", "arrow"]).stdout;
        let batches = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(batches.map(|b| b.unwrap().num_rows()).sum::<usize>(), 2);
    }

    #[test]
    fn an_answer_without_rows_is_an_answer() {
        let session = Session::new();
        let answer = |format| hud(&["workers", path(&session), "--format", format]);
        assert_eq!(stdout(&answer("json")), "[]\n");
        assert_eq!(stdout(&answer("ndjson")), "");
        assert!(stdout(&answer("csv")).starts_with("runtime_id,worker,tid,"));
        assert_eq!(stdout(&answer("table")), "No workers were observed in 10.0 s.\n");
        assert_eq!(good(&["drops", path(&session)]), "No events were lost in 10.0 s.\n");
        assert_eq!(good(&["locks", path(&session), "--to", "5s"]), "No waits for locks in 5.00 s.\n");
        assert_eq!(stdout(&answer("markdown")).lines().count(), 2);
        let arrow = answer("arrow").stdout;
        let batches = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(batches.schema().field(0).name(), "runtime_id");
    }

    #[test]
    fn every_view_is_there_for_people_and_for_programs() {
        let session = culprits();
        for view in VIEWS {
            assert!(good(&[view, &[path(&session)]].concat()).lines().count() >= 1, "{view:?}");
            let json = good(&[view, &[path(&session), "--format", "json"]].concat());
            assert!(matches!(serde_json::from_str(&json), Ok(Value::Array(_))), "{view:?}");
        }
    }

    #[test]
    fn sql_keeps_the_order_of_a_view() {
        let session = Session::with_cast();
        session.add::<OffCpu>((0..30).map(|i| sleep(at(100 * i), W0, SLEEPER, (15 + 7 * i % 30) * MS, 0)));
        let first = |sql: &str| good(&["sql", path(&session), "--format", "csv", "-c", sql]);
        assert_eq!(first("SELECT dur FROM blocking_each LIMIT 3"), "dur\n44000000\n43000000\n42000000\n");
        let some = "SELECT dur / 1000000 AS ms FROM blocking_each WHERE dur < 20000000 LIMIT 2";
        assert_eq!(first(some), "ms\n19\n18\n");
        assert_eq!(first("SELECT max(dur) AS d FROM blocking_each"), "d\n44000000\n");
        let other = "SELECT dur FROM blocking_each ORDER BY ts LIMIT 2";
        assert_eq!(first(other), "dur\n15000000\n22000000\n");
    }

    #[test]
    fn limits_are_reported() {
        let session = Session::with_cast();
        session.add::<OffCpu>((0..30).map(|i| sleep(at(100 * i), W0, SLEEPER, (15 + i) * MS, 0)));
        let rows = |args: &[&str]| {
            let output = hud(&[&["blocking", path(&session), "--each"], args].concat());
            (stdout(&output).lines().count(), String::from_utf8(output.stderr).unwrap())
        };
        let note = |n: i64| format!("only the first {n} rows; --limit N shows more, --limit 0 all\n");
        assert_eq!(rows(&[]), (21, note(20)));
        assert_eq!(rows(&["--limit", "3"]), (4, note(3)));
        assert_eq!(rows(&["--limit", "30"]), (31, String::new()));
        assert_eq!(rows(&["--limit", "0"]), (31, String::new()));
        assert_eq!(rows(&["--format", "csv"]), (31, String::new()));
        assert_eq!(rows(&["--format", "csv", "--limit", "3"]), (4, String::new()));
    }

    #[test]
    fn names_of_the_target_cannot_drive_the_terminal() {
        let session = Session::with_cast();
        session
            .add::<format::ThreadColumns>([format::ThreadRow {
                ts: at(2),
                ..thread(W0, "\x1b]0;pwned\x07", "worker", Some(0))
            }])
            .add::<format::TaskTypeColumns>([task_type(9, "evil\x1b[2J\u{202e}\nrow", "task", 1)])
            .add::<Polls>([poll(at(5), W0, 77, 9, MS)]);
        for args in [
            &["workers", path(&session), "--wide"][..],
            &["tasks", path(&session)],
            &["tasks", path(&session), "--format", "markdown"],
            &["sql", path(&session), "-c", "SELECT name FROM task_types UNION ALL SELECT name FROM threads"],
        ] {
            let text = good(args);
            assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{args:?}: {text:?}");
            assert!(text.contains("\\x1b"), "{args:?}: {text:?}");
        }
        // Programs get the name as it is.
        let json = good(&["tasks", path(&session), "--task", "77", "--format", "json"]);
        let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(rows[0]["task_type"], "evil\x1b[2J\u{202e}\nrow");
    }

    #[test]
    fn a_reader_that_closes_the_pipe_is_no_failure() {
        let session = Session::new();
        // Past any pipe's buffer.
        let sql = "SELECT unnest(generate_series(1, 100000)) AS n";
        for format in ["csv", "json", "ndjson", "arrow", "table", "markdown"] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
                .args(["sql", path(&session), "-c", sql, "--format", format])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{format}");
            assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{format}");
        }
    }
}

mod findings {
    use super::*;

    fn hogged() -> Session {
        let session = Session::with_cast();
        session
            .add::<Coverage>([covered("polls", at(0), at(10_000)), covered("wakes", at(0), at(5_000))])
            .add::<Polls>([poll(at(100), W0, HOG, 3, 150 * MS), poll(at(400), W0, HOG, 3, 20 * MS)]);
        session
    }

    #[test]
    fn a_finding_is_a_block_with_evidence_place_and_advice() {
        let session = hogged();
        let place = path(&session);
        let block = format!(
            "\
WARNING  Long polls: app::hog
         app::hog held its worker 2 times for more than 10 ms, longest 150 ms, in app::hog (main.rs:20)
         Evidence: longest 150 ms, limit 100 ms; 2 polls, 170 ms in total
         Where:    app::hog, src/main.rs:20
                   task 13, thread tokio-rt-worker (101), worst at 22:13:20.100
         See:      hud-analyze blocking {place} --task 13
                   hud-analyze replay {place} --at +0.100s
         Do:       {}

1 warning in 10.0 s.
Recorded: polls throughout; wakes for 50.0 % of the time; not recorded: off_cpu, samples, spawns, ends.
",
            hud_common::cockpit::Rule::LongPoll.advice()
        );
        assert_eq!(good(&["findings", place]), block);
        // The commands that it names work.
        assert!(good(&["blocking", place, "--task", "13"]).contains("170 ms"));
        // With lower limits it is a caution; of another time range there is none.
        assert!(good(&["findings", place, "--very-long-poll", "1s"]).starts_with("CAUTION  Long polls: app::hog\n"));
        let none = good(&["findings", place, "--from", "5s"]);
        assert!(none.starts_with("No problems found in 5.00 s.\nRecorded: polls throughout; not recorded: "), "{none}");
    }

    #[test]
    fn programs_get_rows_and_a_table_is_there_too() {
        let session = hogged();
        let rows: Vec<Value> = serde_json::from_str(&good(&["findings", path(&session), "--format", "json"])).unwrap();
        assert_eq!((rows.len(), &rows[0]["rule"], &rows[0]["value"]), (1, &json!("long_poll"), &json!(150 * MS)));
        assert_eq!(rows[0]["id"], "long_poll/app::hog");
        let table = good(&["findings", path(&session), "--wide"]);
        assert!(table.starts_with("rule ") && table.lines().count() == 2, "{table}");
        assert!(good(&["findings", path(&session), "--format", "markdown"]).starts_with("| rule |"));
    }

    #[test]
    fn findings_of_a_severity_can_be_a_failure() {
        let session = hogged();
        let fails = |args: &[&str]| {
            let output = hud(&[&["findings", path(&session)], args].concat());
            let stderr = String::from_utf8(output.stderr.clone()).unwrap();
            (output.status.code(), stdout(&output).to_owned(), stderr)
        };
        let (code, text, stderr) = fails(&["--fail-on", "warning"]);
        assert!(code == Some(1) && text.starts_with("WARNING  Long polls"), "{code:?}: {text}");
        assert_eq!(stderr, "hud-analyze: 1 finding of severity warning or worse, which --fail-on makes a failure\n");
        let (code, json, _) = fails(&["--fail-on", "caution", "--format", "json"]);
        assert!(code == Some(1) && json.starts_with('['), "{code:?}: {json}");
        // All findings count, not only those shown.
        assert_eq!(fails(&["--fail-on", "caution", "--limit", "1", "--format", "csv"]).0, Some(1));
        assert_eq!(fails(&["--fail-on", "warning", "--very-long-poll", "1s"]).0, Some(0));
        assert_eq!(fails(&["--fail-on", "caution", "--from", "5s"]).0, Some(0));
        assert_eq!(fails(&["--fail-on", "bad"]).0, Some(2));
    }

    #[test]
    fn names_in_findings_cannot_drive_the_terminal() {
        let session = Session::with_cast();
        session.add::<format::TaskTypeColumns>([task_type(9, "evil\x1b[2J::f", "task", 1)]).add::<Polls>([poll(
            at(100),
            W0,
            77,
            9,
            50 * MS,
        )]);
        let text = good(&["findings", path(&session)]);
        assert!(!text.contains('\x1b') && text.contains("evil\\x1b[2J::f"), "{text:?}");
    }
}

mod people {
    use super::*;

    #[test]
    fn a_view_notes_streams_that_were_recorded_for_a_part_of_the_time() {
        let session = Session::with_cast();
        session
            .add::<Coverage>([covered("polls", at(0), at(4_550)), covered("wakes", at(0), at(10_000))])
            .add::<Polls>([poll(at(100), W0, HOG, 3, MS)]);
        let note = |args: &[&str]| String::from_utf8(hud(args).stderr).unwrap();
        assert_eq!(
            note(&["wake-latency", path(&session)]),
            "note: recorded: polls for 45.5 % of the time; `hud-analyze coverage` lists when\n"
        );
        assert_eq!(note(&["drops", path(&session)]), "");
        assert_eq!(note(&["wake-latency", path(&session), "--to", "2s"]), "");
        assert_eq!(note(&["wake-latency", path(&session), "--format", "csv"]), "");
    }

    #[test]
    fn sql_tables_have_units() {
        let session = Session::with_cast();
        session.add::<OffCpu>([sleep(at(1_100), W0, SLEEPER, 15 * MS, 0), sleep(at(1_200), W0, SLEEPER, 17 * MS, 0)]);
        let rows = |sql: &str| {
            let text = good(&["sql", path(&session), "-c", sql]);
            text.lines()
                .skip(1)
                .map(|line| {
                    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(rows("SELECT ts, dur FROM off_cpu ORDER BY ts LIMIT 1"), ["22:13:21.100|15.0 ms"]);
        assert_eq!(
            rows("SELECT max(dur) AS d, min(ts) + 5 AS a, count(*) AS n, sum(dur) / 1000000 AS ms FROM off_cpu"),
            ["17.0 ms|22:13:21.100|2|32"]
        );
        assert_eq!(rows("SELECT ts + dur - ts AS d FROM (SELECT * FROM off_cpu o WHERE dur > 16000000)"), ["17.0 ms"]);
        assert_eq!(rows("SELECT dur FROM views.blocking_each"), ["17.0 ms", "15.0 ms"]);
        assert_eq!(rows("SELECT longest FROM blocking('+1s', '+2s')"), ["17.0 ms"]);
        assert_eq!(rows("SELECT task_id, tid FROM off_cpu LIMIT 1"), ["12|101"]);
        let raw = good(&["sql", path(&session), "-c", "\\pset times ns", "-c", "SELECT max(dur) AS d FROM off_cpu"]);
        assert_eq!(raw.lines().last().map(str::trim), Some("17000000"));
        let csv = good(&["sql", path(&session), "--format", "csv", "-c", "SELECT max(dur) AS d FROM off_cpu"]);
        assert_eq!(csv, "d\n17000000\n");
    }

    #[test]
    fn sql_errors_point_at_the_place() {
        let session = Session::with_cast();
        let wrong = |sql: &str| bad(1, &["sql", path(&session), "-c", sql]);
        assert!(wrong("selec 1").contains("in line 1 at \"selec 1\""), "{}", wrong("selec 1"));
        let line = wrong("SELECT t.task_type FROM task_types t JOIN tasks k ON k.type_id = t.type_id");
        assert!(line.contains("there is no column task_type in t") && !line.contains("task_id"), "{line}");
    }
}

mod times {
    use super::*;

    #[test]
    fn from_and_to_are_read_in_all_their_forms() {
        let session = Session::with_cast();
        session.add::<OffCpu>((0..10).map(|i| sleep(at(1_000 * i), W0, SLEEPER, 15 * MS, 0)));
        let count = |args: &[&str]| {
            let args = [&["blocking", path(&session), "--each", "--format", "ndjson"], args].concat();
            good(&args).lines().count()
        };
        assert_eq!(count(&[]), 10);
        assert_eq!(count(&["--from", "+2s"]), 8);
        assert_eq!((count(&["--from", "2s"]), count(&["--from", "2"])), (8, 8));
        assert_eq!(count(&["--from", "+2.5s", "--to", "+4s"]), 1);
        assert_eq!(count(&["--from", "-3s"]), 3);
        assert_eq!(count(&["--from=-3s", "--to", "-1s"]), 2);
        assert_eq!(count(&["--from", "22:13:25"]), 5);
        assert_eq!(count(&["--to", "2023-11-14T22:13:25Z"]), 5);
        assert_eq!(count(&["--to", "2023-11-14T23:13:25.5+01:00"]), 6);
    }

    #[test]
    fn a_window_that_is_none_is_wrong_usage() {
        let session = Session::new();
        let line = bad(2, &["tasks", path(&session), "--from", "+5s", "--to", "+5s"]);
        assert!(line.contains("is not before --to") && line.contains("2023-11-14T22:13:20.000Z"), "{line}");
        let line = bad(2, &["tasks", path(&session), "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z"]);
        assert!(line.contains("outside the session"), "{line}");
        for wrong in ["noon", "+", "12 parsecs", "+-5s", "25:00:00"] {
            let output = hud(&["tasks", path(&session), "--from", wrong]);
            assert_eq!(output.status.code(), Some(2), "{wrong}");
        }
    }
}

mod sql {
    use super::*;

    #[test]
    fn it_comes_from_the_command_line_a_file_or_standard_input() {
        let session = Session::with_cast();
        let answer = "n\n5\n";
        let sql = "SELECT count(*) AS n FROM task_types";
        assert_eq!(good(&["sql", path(&session), "-c", sql, "--format", "csv"]), answer);

        let file = session.path.join("report.sql");
        fs::write(&file, format!("-- types\n{sql};\nCREATE VIEW v AS {sql};\nSELECT * FROM v")).unwrap();
        assert_eq!(
            good(&["sql", path(&session), "-f", file.to_str().unwrap(), "--format", "csv"]),
            format!("{answer}{answer}")
        );

        let mut child = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
            .args(["sql", path(&session), "--format", "csv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), sql.as_bytes()).unwrap();
        assert_eq!(stdout(&child.wait_with_output().unwrap()), answer);
    }

    #[test]
    fn a_table_that_was_not_recorded_is_empty() {
        let session = Session::new();
        assert_eq!(
            good(&["sql", path(&session), "-c", "SELECT count(*) AS n, max(ts) AS t FROM wakes", "--format", "json"]),
            "[{\"n\":0,\"t\":null}]\n"
        );
    }

    #[test]
    fn a_mistake_is_one_line_and_a_hint() {
        let session = Session::new();
        let wrong = |sql| bad(1, &["sql", path(&session), "-c", sql]);
        assert!(wrong("SELECT * FROM pols").starts_with("there is no table pols; did you mean polls? the tables are "));
        assert!(wrong("SELECT dru FROM polls").starts_with("there is no column dru, did you mean dur?"));
        assert!(wrong("SELEC 1").starts_with("the SQL does not parse: "));
        assert!(wrong("SELECT 'a").starts_with("a string is not closed"));
        wrong("SELECT no_such_function(1)");
        wrong("SELECT ts + 'x' FROM polls WHERE ts > 'y'");
        wrong("SELECT 1 / 0");
        wrong("SELECT $x");
        assert_eq!(good(&["sql", path(&session), "-c", " -- nothing"]), "");
        assert!(bad(1, &["sql", path(&session), "-f", "no/such/file.sql"]).contains("no/such/file.sql"));
    }

    #[test]
    fn a_session_cannot_be_written() {
        let session = Session::with_cast();
        let file = session.path.join("copy.csv");
        for sql in [
            "INSERT INTO clock VALUES (1, 2)".to_string(),
            "INSERT INTO task_types SELECT * FROM task_types".to_string(),
            format!("COPY task_types TO '{}'", file.display()),
            "EXPLAIN ANALYZE INSERT INTO task_types SELECT * FROM task_types".to_string(),
        ] {
            bad(1, &["sql", path(&session), "-c", &sql]);
        }
        assert!(!file.exists());
        assert_eq!(session.dir().segments(format::Table::TaskTypes).unwrap().len(), 1);
    }
}

mod damage {
    use super::*;

    #[test]
    fn a_path_without_a_session_is_reported() {
        let folder = tempfile::TempDir::new().unwrap();
        let folder = folder.path().to_str().unwrap();
        let missing = format!("{folder}/none");
        assert!(bad(1, &["tasks", &missing]).contains("there is no such folder"));
        assert!(bad(1, &["info", folder]).contains("it has no manifest.json"));
        let file = format!("{folder}/file");
        fs::write(&file, "x").unwrap();
        assert!(bad(1, &["info", &file]).contains("is no hud session"));
        fs::write(format!("{folder}/manifest.json"), "{").unwrap();
        assert!(bad(1, &["sql", folder, "-c", "SELECT 1"]).contains("does not parse"));
        fs::write(format!("{folder}/manifest.json"), "{\"format_version\": 99}").unwrap();
        assert!(bad(1, &["hotspots", folder]).contains("session format 99"));
    }

    #[test]
    fn a_damaged_segment_is_named() {
        let session = busy(300);
        let segment = session.dir().segment(format::Table::OffCpu, 2);
        let whole = fs::read(&segment).unwrap();
        let mut flipped = whole.clone();
        for byte in &mut flipped[4..400] {
            *byte ^= 0x5a;
        }
        let wrong_footer = [&whole[..whole.len() - 40], &[0; 40]].concat();
        for (how, bytes) in [
            ("truncated", &whole[..whole.len() - 1]),
            ("empty", &[]),
            ("half", &whole[..whole.len() / 2]),
            ("no Parquet", b"this is some text, not Parquet"),
            ("its data flipped", &flipped),
            ("its footer overwritten", &wrong_footer),
        ] {
            fs::write(&segment, bytes).unwrap();
            for view in ["blocking", "workers"] {
                let line = bad(1, &[view, path(&session)]);
                assert!(line.contains("off_cpu/000002.parquet is damaged: "), "{how}, {view}: {line}");
            }
            let line =
                bad(1, &["sql", path(&session), "-c", "SELECT sum(dur), min(run_queue), max(state) FROM off_cpu"]);
            assert!(line.contains("off_cpu/000002.parquet is damaged: "), "{how}: {line}");
        }
        // Another table is still read.
        good(&["sql", path(&session), "-c", "SELECT count(*) FROM samples"]);
        fs::write(&segment, &whole).unwrap();
        good(&["workers", path(&session)]);
    }

    #[test]
    fn a_segment_removed_meanwhile_is_named() {
        let session = busy(60);
        let catalog = session.catalog();
        fs::remove_file(session.dir().segment(format::Table::Polls, 1)).unwrap();
        let error = runtime().block_on(catalog.row("SELECT sum(dur) FROM polls")).unwrap_err().to_string();
        assert!(error.contains("polls/000001.parquet"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_session_of_a_killed_recorder_is_recovered_once_and_says_so() {
        let session = Session::with_cast_of(&unfinished());
        session.add::<OffCpu>([sleep(at(1_000), W0, SLEEPER, 500 * MS, 0)]);
        session.log::<Samples>([sample(at(20), W0, HOG, 77)]);
        let log = session.dir().log(format::Table::Samples, 1);
        let torn = fs::OpenOptions::new().append(true).open(&log).unwrap();
        torn.set_len(torn.metadata().unwrap().len() + 5).unwrap();
        let first = hud(&["hotspots", path(&session), "--format", "json"]);
        assert!(first.status.success());
        assert_eq!(
            String::from_utf8(first.stderr).unwrap(),
            "note: its recorder was killed; 1 row salvaged from its logs, 5 bytes cut, 1 stack without a name; \
             events that ended after 2023-11-14 22:13:20.020 UTC may be missing\n"
        );
        let rows: Vec<Value> = serde_json::from_slice(&first.stdout).unwrap();
        assert_eq!(rows[0]["samples"], 1);
        let info: Value = serde_json::from_str(&good(&["info", path(&session), "--format", "json"])).unwrap();
        assert_eq!((&info["state"], &info["unsealed_segments"]), (&json!("recovered"), &json!(0)));
        assert_eq!(info["to"], at(1_500));
        assert_eq!(info["manifest"]["recovery"]["rows_salvaged"], 1);
        assert_eq!(info["manifest"]["recovery"]["lost_after"], at(20));
        let text = good(&["info", path(&session)]);
        assert!(text.contains("the recorder was killed") && text.contains("1 row salvaged"), "{text}");
    }

    #[test]
    fn who_may_not_write_a_killed_session_reads_its_logs_where_they_lie() {
        let session = Session::with_cast_of(&unfinished());
        session.log::<Samples>([sample(at(20), W0, HOG, BURN_22)]);
        // A folder where the lock should be: not even root can take it.
        fs::remove_file(session.path.join("lock")).unwrap();
        fs::create_dir(session.path.join("lock")).unwrap();
        let output = hud(&["sql", path(&session), "-c", "SELECT count(*) FROM samples", "--format", "csv"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with("note: its recorder was killed; it is read without recovery"), "{stderr}");
        assert!(stdout(&output).ends_with("\n1\n"), "{}", stdout(&output));
        assert!(session.dir().log(format::Table::Samples, 1).exists());
    }

    #[test]
    fn a_session_is_read_while_it_is_recorded() {
        let session = Session::with_cast_of(&unfinished());
        session.add::<Samples>([sample(at(10), W0, HOG, BURN_22)]);
        session.log::<Samples>([sample(at(30), W0, HOG, BURN_22), sample(at(20), W0, HOG, BURN_22)]);
        let _recorder = session.record();
        let rows: Vec<Value> = serde_json::from_str(&good(&["hotspots", path(&session), "--format", "json"])).unwrap();
        assert_eq!(rows[0]["samples"], 3);
        let info: Value = serde_json::from_str(&good(&["info", path(&session), "--format", "json"])).unwrap();
        assert_eq!((&info["state"], &info["unsealed_segments"]), (&json!("recording"), &json!(1)));
        assert!(session.dir().log(format::Table::Samples, 2).exists(), "it belongs to the recorder");
        assert!(good(&["info", path(&session)]).contains("being recorded"));
    }

    #[test]
    fn a_log_that_is_sealed_meanwhile_is_counted_once() {
        let session = Session::with(&unfinished());
        let _recorder = session.record();
        let (dir, opened) = (session.dir().clone(), AtomicI64::new(0));
        const OPENED: i64 = 16;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A row a batch, a segment every seven rows, four segments for each time that the session is opened.
                for segment in 0..4 * OPENED {
                    while opened.load(Ordering::Relaxed) < segment / 4 {
                        std::thread::yield_now();
                    }
                    let number = dir.next_number(format::Table::Samples).unwrap();
                    let mut log = format::InflightLog::create(&dir, format::Table::Samples, number).unwrap();
                    for row in 0..7 {
                        let mut columns = format::SampleColumns::default();
                        format::Columns::push(&mut columns, sample(T0 + segment * 7 + row, W0, HOG, BURN_22));
                        log.append(&format::Columns::finish(&mut columns)).unwrap();
                    }
                    log.finish().unwrap();
                    format::seal(&dir, format::Table::Samples, number).unwrap();
                }
            });
            let mut last = 0;
            for _ in 0..OPENED {
                opened.fetch_add(1, Ordering::Relaxed);
                let sql = "SELECT count(*), count(DISTINCT ts), coalesce(max(ts), 0) FROM samples";
                let row = runtime().block_on(async { Catalog::open(&session.path).unwrap().row(sql).await.unwrap() });
                let row: Vec<i64> = row.iter().map(|v| v.to_string().parse().unwrap()).collect();
                assert!(row[0] == row[1] && (row[0] == 0 || row[2] == T0 + row[0] - 1), "{row:?}");
                assert!(row[0] >= last, "{row:?} after {last}");
                last = row[0];
            }
            assert!(last > 7, "only {last} rows were written meanwhile");
        });
    }

    #[test]
    fn a_path_may_contain_any_character() {
        let session = busy(60);
        let parent = tempfile::TempDir::new().unwrap();
        for name in ["with space", "a*b?[c]", "100%25", "größe", "#hash", "host=a"] {
            let odd = parent.path().join(name);
            assert!(Command::new("cp").arg("-r").arg(&session.path).arg(&odd).status().unwrap().success());
            let text = good(&["sql", odd.to_str().unwrap(), "-c", "SELECT count(*) > 0 AS found FROM polls"]);
            assert!(text.contains("true"), "{name}: {text}");
        }
    }
}

mod facts {
    use super::*;

    #[test]
    fn info_states_the_target_and_the_coverage() {
        let session = busy(300);
        let info: Value = serde_json::from_str(&good(&["info", path(&session), "--format", "json"])).unwrap();
        assert_eq!(info["manifest"]["tokio_version"], "1.54.1");
        assert_eq!(info["coverage"]["off_cpu"], 1.0);
        assert_eq!(info["coverage"]["polls"], 0.5);
        assert_eq!(info["workers"], 2);
        assert_eq!(info["complete_stacks"]["samples"], 1.0);
        assert_eq!(info["tables"]["threads"]["rows"], 5);
        assert_eq!(info["tables"]["polls"]["segments"], 3);
        let text = good(&["info", path(&session)]);
        for part in ["/srv/app, pid 100, tokio 1.54.1", "nowhere, Linux 6.0, 2 CPUs", "polls 50.0 %"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn help_and_completions_are_there() {
        for command in ["info", "hotspots", "blocking", "workers", "tasks", "timeline", "sql", "completions"] {
            assert!(good(&[command, "--help"]).contains("Usage: hud-analyze"), "{command}");
        }
        assert!(good(&["hotspots", "--help"]).contains("-30s"));
        for shell in ["bash", "zsh", "fish"] {
            assert!(good(&["completions", shell]).contains("hotspots"), "{shell}");
        }
        assert_eq!(hud(&["no-such-command"]).status.code(), Some(2));
        assert_eq!(hud(&[]).status.code(), Some(2));
    }
}
