//! What the tests against the real kernel share: targets, recordings, and reading sessions back.
//!
//! `cargo xtask test` builds the target programs and hud-analyze first and says where they are.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's support; not every test uses all"
)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use arrow::{
    array::{Array, AsArray as _, RecordBatch},
    compute::concat_batches,
    datatypes::{Int32Type, Int64Type},
};
use hud_common::session::{Manifest, SessionDir, Table};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rustix::process::{Pid, Signal};

/// Whether tests may use eBPF here. Where HUD_REQUIRE_BPF=1 they must: then the test fails instead of being skipped.
pub fn may_trace() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("HUD_REQUIRE_BPF").is_none(), "HUD_REQUIRE_BPF is set, and this is not root");
        eprintln!("skipped: needs root, to load eBPF programs");
    }
    root
}

/// A program that is being watched; killed when dropped.
pub struct Target {
    pub child: Child,
    out: BufReader<std::process::ChildStdout>,
}

/// The path of a target program that `cargo xtask test` has built.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("HUD_TEST_TARGETS")
        .expect("HUD_TEST_TARGETS is not set: run the tests by `cargo xtask test`, which builds the target programs");
    PathBuf::from(folder).join(name)
}

impl Target {
    /// Starts a program and waits for its first line, which says that it is at work.
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{} ended at once", program.display());
        Target { child, out }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        self.child.wait().unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_process(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// `hud-record` with these arguments, not started yet.
pub fn hud_record() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud-record"));
    command.stdin(Stdio::null());
    command
}

/// Records, and asserts that it went well.
pub fn record(pid: u32, session: &Path, arguments: &[&str]) -> Recording {
    let output = hud_record()
        .args(["--pid", &pid.to_string(), "--headless", "--export"])
        .arg(session)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "hud-record failed: {}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), session.to_str().unwrap(), "the session's path goes to stdout");
    Recording::open(session)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs hud-analyze, built beside hud-record, for JSON.
pub fn analyze(arguments: &[&str], session: &Path) -> serde_json::Value {
    let program = Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name("hud-analyze");
    let (view, rest) = arguments.split_first().unwrap();
    let output: Output = Command::new(&program)
        .arg(view)
        .arg(session)
        .args(rest)
        .args(["--format", "json"])
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}; it is built by `cargo xtask test`", program.display()));
    assert!(output.status.success(), "hud-analyze {arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A closed session, read by parquet alone.
pub struct Recording {
    pub session: SessionDir,
    pub manifest: Manifest,
}

impl Recording {
    pub fn open(path: &Path) -> Self {
        let (session, manifest) = SessionDir::open(path).unwrap();
        let recording = Recording { session, manifest };
        recording.assert_whole();
        recording
    }

    /// Closed in order, nothing in flight, and every event accounted for: produced = stored + dropped, where what is
    /// stored is counted in the files.
    fn assert_whole(&self) {
        assert!(self.manifest.complete);
        assert!(self.session.unsealed().unwrap().is_empty(), "segments in flight in a closed session");
        for (stream, account) in &self.manifest.streams {
            let table = Table::ALL.iter().find(|t| t.name() == stream).unwrap();
            assert_eq!(account.stored, self.rows(*table).num_rows() as u64, "{stream}: stored");
            assert_eq!(account.produced, account.stored + account.dropped, "{stream}: {account:?}");
        }
    }

    /// All rows of a table.
    pub fn rows(&self, table: Table) -> RecordBatch {
        let batches: Vec<RecordBatch> = self
            .session
            .segments(table)
            .unwrap()
            .iter()
            .flat_map(|path| {
                let file = File::open(path).unwrap();
                ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|b| b.unwrap())
            })
            .collect();
        concat_batches(&table.schema(), &batches).unwrap()
    }

    /// A column of integers; null is `None`.
    pub fn integers(&self, table: Table, column: &str) -> Vec<Option<i64>> {
        let rows = self.rows(table);
        let values = rows.column_by_name(column).unwrap();
        match values.as_primitive_opt::<Int64Type>() {
            Some(values) => values.iter().collect(),
            None => values.as_primitive::<Int32Type>().iter().map(|v| v.map(i64::from)).collect(),
        }
    }

    /// A column of text; null is empty.
    pub fn texts(&self, table: Table, column: &str) -> Vec<String> {
        let rows = self.rows(table);
        let values = rows.column_by_name(column).unwrap().as_string::<i32>();
        (0..values.len()).map(|i| if values.is_null(i) { String::new() } else { values.value(i).into() }).collect()
    }

    /// The stretch in which `stream` was on, by CLOCK_MONOTONIC.
    pub fn window(&self, stream: &str) -> (i64, i64) {
        let streams = self.texts(Table::Coverage, "stream");
        let at = streams.iter().position(|s| s == stream).unwrap();
        let ts = self.integers(Table::Coverage, "ts")[at].unwrap();
        let start = self.mono(ts);
        (start, start + self.integers(Table::Coverage, "dur")[at].unwrap())
    }

    /// CLOCK_MONOTONIC of a `ts`.
    pub fn mono(&self, ts: i64) -> i64 {
        ts - self.manifest.clock.real + self.manifest.clock.mono
    }
}

/// What a target says of itself: events as (start by CLOCK_MONOTONIC, duration), by name.
pub fn truth(log: &Path) -> BTreeMap<String, Vec<(i64, i64)>> {
    let mut events: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines().skip(1) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap();
        let mut number = || fields.next().unwrap().parse::<i64>().unwrap();
        events.entry(name.into()).or_default().push((number(), number()));
    }
    events
}

/// The polls of a session by the name of their task type, without the program's own crate: (start by CLOCK_MONOTONIC,
/// duration) of each.
pub fn polls_by_type(recording: &Recording, crate_name: &str) -> BTreeMap<String, Vec<(i64, i64)>> {
    let names: BTreeMap<i64, String> = recording
        .integers(Table::TaskTypes, "type_id")
        .into_iter()
        .flatten()
        .zip(recording.texts(Table::TaskTypes, "name"))
        .collect();
    let mut polls: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    let types = recording.integers(Table::Polls, "type_id");
    let times = recording.integers(Table::Polls, "ts").into_iter().zip(recording.integers(Table::Polls, "dur"));
    for (type_id, (ts, dur)) in types.iter().zip(times) {
        let name = &names[&type_id.unwrap()];
        let name = name.strip_prefix(crate_name).and_then(|n| n.strip_prefix("::")).unwrap_or(name);
        polls.entry(name.into()).or_default().push((recording.mono(ts.unwrap()), dur.unwrap()));
    }
    polls
}

/// Holds the polls of these task types to the program's own account: how many, and how long.
pub fn assert_polls_agree(
    recording: &Recording,
    truth: &BTreeMap<String, Vec<(i64, i64)>>,
    crate_name: &str,
    tasks: &[&str],
) {
    let (start, end) = recording.window("polls");
    let polls = polls_by_type(recording, crate_name);
    for &name in tasks {
        let own: Vec<_> = truth[name].iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).collect();
        let ours = polls.get(name).unwrap_or_else(|| panic!("no poll of {name}"));
        let (count, own_count) = (ours.len().cast_signed(), own.len().cast_signed());
        // At either end of the window a poll may count on one side only: hud's probe and the program's clock are
        // microseconds apart.
        let slack = (own_count / 100).max(1);
        assert!((count - own_count).abs() <= slack, "{name}: {count} polls by hud, {own_count} by its own count");
        let (mut ours, mut own): (Vec<i64>, Vec<i64>) =
            (ours.iter().map(|p| p.1).collect(), own.iter().map(|p| p.1).collect());
        for share in [0.5, 0.99] {
            let (by_hud, by_itself) = (percentile(&mut ours, share), percentile(&mut own, share));
            let slack = (by_itself / 20).max(20_000);
            assert!(
                (by_hud - by_itself).abs() <= slack,
                "{name}, p{}: {by_hud} ns by hud, {by_itself} ns by its own clock",
                share * 100.0
            );
        }
    }
}

/// Asserts that hud-analyze blames both culprits of test-async-app; gives all that it blames.
pub fn assert_both_culprits(session: &Path, context: &str) -> serde_json::Value {
    let rows = analyze(&["blocking"], session);
    let named = |cause: &str, task: &str| {
        rows.as_array().unwrap().iter().any(|r| {
            r["cause"] == cause
                && r["task_type"] == format!("test_async_app::{task}")
                && r["file"].as_str().is_some_and(|f| f.ends_with("test-async-app.rs"))
                && r["line"].as_i64().is_some_and(|l| l > 0)
                && r["function"].as_str().is_some_and(|f| f.starts_with("test_async_app::"))
        })
    };
    assert!(named("blocked", "blocking_sleeper"), "{context}: {rows:#}");
    assert!(named("cpu", "cpu_hog"), "{context}: {rows:#}");
    rows
}

/// The value at `share` of the sorted values (nearest rank).
pub fn percentile(values: &mut [i64], share: f64) -> i64 {
    values.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ share ≤ 1")]
    let rank = (share * (values.len() - 1) as f64).round() as usize;
    values[rank]
}
