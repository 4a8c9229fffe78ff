//! Exports, read back by independent tools if there are any, and compared with the session's own rows.
//!
//! `HUD_DUCKDB_PYTHON` names a Python that has the packages `duckdb`, `perfetto`, `protobuf` and `austin-python` (for
//! its pprof messages). Without it these tests are skipped with a message, and fail if `HUD_REQUIRE_BPF=1`.

#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeSet, env, fs, io::Read as _, path::Path, process::Command};

use fxprof_processed_profile as fxprof;
use hud_common::session::{CoverageColumns, CoverageRow, OffCpuColumns, Table, TaskStateColumns, TaskStateRow, seal};
use hud_export::{Error, Format, Kind, Options, Rows as _, SessionRows, Summary, export};
use serde_json::Value;
use support::*;
use tempfile::TempDir;

fn python() -> Option<String> {
    let python = env::var("HUD_DUCKDB_PYTHON").ok().filter(|p| !p.is_empty());
    if python.is_none() {
        let why = "HUD_DUCKDB_PYTHON names no Python with DuckDB and the readers of other formats";
        assert!(env::var_os("HUD_REQUIRE_BPF").is_none_or(|v| v != "1"), "{why}");
        eprintln!("skipped: {why}");
    }
    python
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

fn try_export(session: &Path, format: Format, options: &Options) -> (Result<Summary, Error>, Vec<u8>) {
    let rows = SessionRows::open(session).unwrap();
    let mut out = Vec::new();
    let summary = export(&rows, format, options, &mut out, &|_, _| {});
    (summary, out)
}

fn exported(session: &Path, format: Format, options: &Options) -> (Summary, Vec<u8>) {
    let (summary, out) = try_export(session, format, options);
    let summary = summary.unwrap();
    assert_eq!(summary.bytes, out.len() as u64);
    (summary, out)
}

fn text(session: &Path, format: Format, options: &Options) -> String {
    String::from_utf8(exported(session, format, options).1).unwrap()
}

/// The contents of each format, as another tool reads them.
fn read_back(session: &Path, mode: &str) -> Vec<(Format, Summary, Value)> {
    let Some(python) = python() else { return Vec::new() };
    let tmp = TempDir::new().unwrap();
    let mut found = Vec::new();
    for &format in Format::ALL {
        let file = tmp.path().join(format.extension());
        let (summary, data) = exported(session, format, &Options::default());
        fs::write(&file, data).unwrap();
        let mut reader = Command::new(&python);
        if format == Format::Pprof {
            // Its messages are of an older generator, which protobuf's fast half does not take.
            reader.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/read_back.py");
        let output = reader.arg(script).arg(format.name()).arg(session).arg(&file).arg(mode).output().unwrap();
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        eprintln!("{format}: {report}");
        found.push((format, summary, report));
    }
    for (format, summary, report) in &found {
        for (what, ours) in [("samples", summary.samples), ("entries", summary.entries), ("instants", summary.instants)]
        {
            if let Some(theirs) = report[what].as_u64() {
                assert_eq!(theirs, ours, "{what} of {format}");
            }
        }
    }
    found
}

#[test]
fn other_tools_read_a_recording() {
    for (format, _, report) in read_back(&recording(), "strict") {
        match format {
            Format::Firefox => assert!(report["lines"].as_u64() > Some(0) && report["inlined"].as_u64() > Some(0)),
            Format::Pprof => assert!(report["inlined"].as_u64() > Some(0)),
            Format::Perfetto => assert!(report["task_tracks"].as_u64() > Some(0)),
            _ => {}
        }
    }
}

#[test]
fn other_tools_read_a_made_up_session() {
    for (format, summary, report) in read_back(&made_up().path, "strict") {
        if matches!(format, Format::Perfetto | Format::Chrome) {
            // Every wake in it has a poll.
            assert!(summary.flows > 100);
            assert_eq!(report["flows"].as_u64(), Some(summary.flows), "{format}");
        }
        if format == Format::Perfetto {
            assert!(report["nested"].as_u64() > Some(0));
        }
    }
}

#[test]
fn other_tools_read_what_a_hostile_program_left() {
    read_back(&hostile().path, "loose");
}

#[test]
fn no_hostile_name_reaches_a_file_as_it_is() {
    let session = hostile();
    for format in [Format::Folded, Format::Svg, Format::Chrome, Format::Firefox] {
        let text = text(&session.path, format, &Options::default());
        let bad = text.chars().find(|c| (c.is_control() && !matches!(c, '\n' | '\t' | '\r')) || *c == '\u{202e}');
        assert_eq!(bad, None, "{format}");
        assert!(!text.contains(&"x".repeat(5000)), "{format} has a name of 100,000 letters");
    }
    for line in text(&session.path, Format::Folded, &Options::default()).lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        count.parse::<i64>().unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        assert!(frames.len() <= 6 && frames.iter().all(|frame| !frame.is_empty()), "{line}");
    }
}

#[test]
fn the_shape_of_a_firefox_profile_is_that_of_another_writer() {
    let mut other = fxprof::Profile::new(
        "app",
        fxprof::ReferenceTimestamp::from_millis_since_unix_epoch(0.0),
        fxprof::SamplingInterval::from_millis(10),
    );
    let zero = fxprof::Timestamp::from_nanos_since_reference(0);
    let process = other.add_process("app", 1, zero);
    let thread = other.add_thread(process, 1, zero, true);
    let library = other.add_lib(fxprof::LibraryInfo {
        name: "app".into(),
        debug_name: "app".into(),
        path: "/app".into(),
        debug_path: "/app".into(),
        debug_id: Default::default(),
        code_id: None,
        arch: None,
        symbol_table: None,
    });
    let frame = fxprof::FrameInfo {
        frame: fxprof::Frame::RelativeAddressFromInstructionPointer(library, 16),
        category_pair: fxprof::CategoryHandle::OTHER.into(),
        flags: fxprof::FrameFlags::empty(),
    };
    let stack = other.intern_stack_frames(thread, [frame].into_iter());
    other.add_sample(thread, zero, stack, fxprof::CpuDelta::ZERO, 1);
    let counter = other.add_counter(process, "rss", "Memory", "");
    other.add_counter_sample(counter, zero, 1.0, 0);

    let ours: Value = serde_json::from_str(&text(&made_up().path, Format::Firefox, &Options::default())).unwrap();
    let other = serde_json::to_value(&other).unwrap();
    // Every column that it writes, of the same kind; if it has null for want of a value, ours may have one.
    fn compare(path: &str, ours: &Value, other: &Value) {
        match (ours, other) {
            (Value::Object(ours), Value::Object(other)) => {
                for (key, other) in other.iter().filter(|(key, _)| *key != "initialVisibleThreads") {
                    let ours = ours.get(key).unwrap_or_else(|| panic!("{path}.{key} is missing"));
                    compare(&format!("{path}.{key}"), ours, other);
                }
            }
            (Value::Array(ours), Value::Array(other)) => {
                if let (Some(ours), Some(other)) = (ours.first(), other.first()) {
                    compare(&format!("{path}[]"), ours, other);
                }
            }
            (_, Value::Null) | (Value::Null, _) => {}
            (ours, other) => {
                assert_eq!(std::mem::discriminant(ours), std::mem::discriminant(other), "{path}: {ours}, not {other}");
            }
        }
    }
    compare("profile", &ours, &other);
    let thread = &ours["threads"][0];
    let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    for table in ["frameTable", "funcTable", "stackTable", "resourceTable", "samples", "markers", "nativeSymbols"] {
        assert_eq!(keys(&thread[table]), keys(&other["threads"][0][table]), "{table}");
    }
}

#[test]
fn a_window_clips_what_crosses_it_and_says_so() {
    let session = session();
    names(&session, &["a", "b", "c", "d"]);
    session.add::<OffCpuColumns>([
        off(T0, 9 * SECOND, PID, "S", None, Some(1)),
        off(T0 + SECOND, SECOND, PID + 1, "S", Some(11), Some(2)),
        off(T0 + 4 * SECOND, SECOND, PID + 1, "S", Some(11), Some(2)),
    ]);
    let window = options(|o| {
        o.window = Some((T0 + SECOND + SECOND / 2, T0 + 4 * SECOND));
        o.kind = Kind::OffCpu;
    });
    let (summary, folded) = exported(&session.path, Format::Folded, &window);
    let total = |folded: &[u8]| {
        let lines = str::from_utf8(folded).unwrap().lines();
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum::<i64>()
    };
    // Two and a half seconds of the first, half a second of the second, none of those that begin where the window ends.
    assert_eq!((summary.slices, total(&folded)), (2, 3 * SECOND));
    assert!(summary.notes.iter().any(|n| n.starts_with("2 intervals are clipped")), "{:?}", summary.notes);
    assert!(summary.notes.iter().any(|n| n.starts_with("off_cpu were not watched")), "{:?}", summary.notes);

    let chrome: Value = serde_json::from_str(&text(&session.path, Format::Chrome, &window)).unwrap();
    let slices: Vec<(f64, f64)> = chrome["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["ph"] == "X")
        .map(|e| (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap()))
        .collect();
    assert_eq!(slices, [(1_500_000.0, 2_500_000.0), (1_500_000.0, 500_000.0)]);

    let of_thread = options(|o| (o.thread, o.kind) = (Some(PID + 1), Kind::OffCpu));
    assert_eq!(total(&exported(&session.path, Format::Folded, &of_thread).1), 2 * SECOND);
    let of_task = options(|o| (o.task, o.kind) = (Some(12), Kind::OffCpu));
    assert_eq!(exported(&session.path, Format::Folded, &of_task).0.slices, 0);
}

#[test]
fn a_wait_counts_from_the_snapshot_that_found_it_until_the_next() {
    let session = session();
    names(&session, &["a", "b", "c", "d"]);
    let row = |at: i64, task: i64, state: &'static str, branch: i32, stack: Option<i64>| TaskStateRow {
        ts: T0 + at * SECOND,
        since: T0,
        task_id: Some(task),
        tid: None,
        type_id: None,
        state: state.into(),
        branch,
        branches: 1,
        stack_id: stack,
        resource: None,
        address: None,
        deadline: None,
        detail: None,
        holder_task_id: None,
        holder_tid: None,
        cycle: None,
        spawn_file: None,
        spawn_line: None,
    };
    session.add::<TaskStateColumns>([
        // Two futures until the second snapshot, then another one until the last.
        row(1, 11, "suspended", 0, Some(1)),
        row(1, 11, "suspended", 1, Some(2)),
        row(1, 12, "running", 0, None),
        row(3, 11, "suspended", 0, Some(3)),
        row(3, 12, "suspended", 0, None),
        row(7, 12, "gone", 0, None),
    ]);
    let taken = |from: i64, to: i64| CoverageRow {
        ts: T0 + from * SECOND,
        dur: (to - from) * SECOND,
        stream: "task_states".into(),
        reason: "still on".into(),
    };
    session.add::<CoverageColumns>([taken(0, 1), taken(1, 3), taken(3, 7)]);
    let seconds = |change: &dyn Fn(&mut Options)| {
        let asked = options(|o| {
            o.kind = Kind::Await;
            change(o);
        });
        let folded = text(&session.path, Format::Folded, &asked);
        let of = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap() / SECOND;
        (folded.lines().map(of).sum::<i64>(), folded.lines().any(|line| line.starts_with("<no stack> ")))
    };
    assert_eq!(seconds(&|_| {}), (2 + 2 + 4 + 4, true));
    assert_eq!(seconds(&|o| o.task = Some(11)), (2 + 2 + 4, false));
    assert_eq!(seconds(&|o| o.window = Some((T0 + 2 * SECOND, T0 + 4 * SECOND))), (1 + 1 + 1 + 1, true));
    assert_eq!(seconds(&|o| o.window = Some((T0 + 7 * SECOND, T0 + 9 * SECOND))), (0, false));
}

#[test]
fn what_a_reader_cannot_hold_is_refused_before_a_byte_is_written() {
    let session = made_up();
    let small = options(|o| o.limit = Some(1000));
    for format in [Format::Chrome, Format::Firefox] {
        let few = options(|o| o.limit = Some(10));
        let (refused, out) = try_export(&session.path, format, &few);
        let words = refused.unwrap_err().to_string();
        assert!(words.contains("perfetto") && words.contains("at most 10"), "{words}");
        assert!(out.is_empty());
    }
    assert!(matches!(try_export(&session.path, Format::Chrome, &small).0, Err(Error::TooMany { limit: 1000, .. })));
    assert!(try_export(&session.path, Format::Perfetto, &small).0.is_ok());
}

#[test]
fn a_flame_graph_of_nothing_is_an_error_that_says_why() {
    let session = session();
    let words = try_export(&session.path, Format::Svg, &Options::default()).0.unwrap_err().to_string();
    assert!(words.contains("samples"), "{words}");
    // The other formats have no place for it.
    for format in [Format::Perfetto, Format::Firefox, Format::Pprof, Format::Folded, Format::Chrome, Format::Zip] {
        exported(&session.path, format, &Options::default());
    }
}

#[test]
fn the_same_session_gives_the_same_bytes() {
    let session = made_up();
    for &format in Format::ALL {
        let [a, b] = [(); 2].map(|()| exported(&session.path, format, &Options::default()).1);
        assert!(a == b, "{format}");
    }
}

#[test]
fn the_portable_file_has_logs_as_sealing_makes_them() {
    let session = made_up();
    // Unsorted, with equal times, and before the sealed rows: the recorder was killed.
    let rows = (0..500).map(|n| off(T0 + (n * 7919) % 100 * MS, n, PID + 1, "S", None, Some(1 + n % 4)));
    let number = session.log::<OffCpuColumns>(rows);
    let (summary, data) = exported(&session.path, Format::Zip, &Options::default());
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(data)).unwrap();
    assert_eq!(summary.entries, archive.len() as u64);
    let name = format!("off_cpu/{number:06}.parquet");
    let mut packed = Vec::new();
    archive.by_name(&name).unwrap().read_to_end(&mut packed).unwrap();
    let before = SessionRows::open(&session.path).unwrap().count(Table::OffCpu).unwrap();
    seal(&session.dir, Table::OffCpu, number).unwrap();
    assert!(packed == fs::read(session.path.join(&name)).unwrap());

    let tmp = TempDir::new().unwrap();
    archive.extract(tmp.path()).unwrap();
    let unpacked = SessionRows::open(tmp.path()).unwrap();
    assert_eq!(unpacked.count(Table::OffCpu).unwrap(), before);

    let window = options(|o| o.window = Some((T0, T0 + 1)));
    let words = try_export(&session.path, Format::Zip, &window).0.unwrap_err().to_string();
    assert!(words.contains("window"), "{words}");
}

#[test]
fn rows_are_in_the_order_of_time_across_segments() {
    let session = made_up();
    session.log::<OffCpuColumns>((0..500).map(|n| off(T0 + (n * 7919) % 100 * MS, n, PID + 1, "S", None, None)));
    let rows = SessionRows::open(&session.path).unwrap();
    let mut found = Vec::new();
    rows.scan(Table::OffCpu, &["dur"], None, &mut |batch| {
        found.extend(hud_common::session::integers(batch, "ts"));
        Ok(())
    })
    .unwrap();
    assert!(found.is_sorted());
    assert_eq!(found.len() as u64, rows.count(Table::OffCpu).unwrap());
}

#[test]
fn a_format_is_known_by_its_name_and_by_its_files() {
    for &format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
        assert_eq!(Format::of_file(&format!("some.{}", format.extension())), Some(format));
        assert_eq!(Format::of_file(format.extension()), Some(format));
    }
    assert_eq!(Format::of_file("trace.perfetto-trace"), Some(Format::Perfetto));
    assert_eq!((Format::of_file("session.json"), Format::of_file("myprofile.json")), (None, None));
    assert!("flame".parse::<Format>().unwrap_err().contains("svg"));
}
