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
            assert_eq!(account.produced, account.stored + account.dropped + account.expired, "{stream}: {account:?}");
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

    /// The stretch in which `stream` was on, by CLOCK_MONOTONIC. It must be one, though in several rows.
    pub fn window(&self, stream: &str) -> (i64, i64) {
        let (ts, dur) = (self.integers(Table::Coverage, "ts"), self.integers(Table::Coverage, "dur"));
        let streams = self.texts(Table::Coverage, "stream");
        let rows = streams.iter().zip(ts.into_iter().zip(dur)).filter(|(s, _)| *s == stream);
        let mut rows: Vec<_> = rows.map(|(_, (ts, dur))| (ts.unwrap(), ts.unwrap() + dur.unwrap())).collect();
        rows.sort_unstable();
        for pair in rows.windows(2) {
            assert_eq!(pair[0].1, pair[1].0, "{stream} was off in between");
        }
        (self.mono(rows[0].0), self.mono(rows[rows.len() - 1].1))
    }

    /// CLOCK_MONOTONIC of a `ts`.
    pub fn mono(&self, ts: i64) -> i64 {
        ts - self.manifest.clock.real + self.manifest.clock.mono
    }
}

/// What a target says of itself: events as (start by CLOCK_MONOTONIC, duration), by name.
pub fn truth(log: &Path) -> std::collections::BTreeMap<String, Vec<(i64, i64)>> {
    let mut events: std::collections::BTreeMap<String, Vec<(i64, i64)>> = Default::default();
    for line in fs::read_to_string(log).unwrap().lines().skip(1) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap();
        let mut number = || fields.next().unwrap().parse::<i64>().unwrap();
        events.entry(name.into()).or_default().push((number(), number()));
    }
    events
}

/// The value at `share` of the sorted values (nearest rank).
pub fn percentile(values: &mut [i64], share: f64) -> i64 {
    values.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ share ≤ 1")]
    let rank = (share * (values.len() - 1) as f64).round() as usize;
    values[rank]
}
